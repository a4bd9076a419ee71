/*
 * Integer matrix products with plain SIMD128. Bytes are taken as 16-bit lanes: the even bytes of a row and the odd ones
 * give two vectors whose dot product (i32x4.dot_i16x8_s) leaves the sum of row r in lane r.
 */
#define ISA wasmsimd
#define BYTES dot_bytes
#define BYTES_END(sum) wasm_i32x4_shr(sum, 8)
#include "kernels/wasm/gemv_int8.inc"

/* Every product is made 256 times too large, by where the nibble stands in its 16-bit lane and where the activation does:
 * that saves the shifts. A block's sum is below 2^24. */
INLINE void gemv_nibble(float *y, const uint8_t *block, uint32_t blocks, bool has_min, const nibl_act *a) {
    const constants k = resident();
    const v128_t nibble0 = wasm_v128_andnot(k.low, k.high), nibble1 = wasm_i16x8_shl(nibble0, 4),
                 nibble2 = wasm_i16x8_shl(nibble0, 8);
    v128_t acc[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *q = block + (has_min ? 32 : 16);
        v128_t sum[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
#pragma clang loop unroll(disable)
        for (int c = 0; c < 4; c++) {
            const v128_t x0 = splat32(a[b].q + 4 * c), x1 = splat32(a[b].q + 16 + 4 * c);
            const v128_t even0 = wasm_i16x8_shl(x0, 8), even1 = wasm_i16x8_shr(wasm_i16x8_shl(x1, 8), 4);
            const v128_t odd1 = wasm_v128_and(x1, k.high);
            for (int half = 0; half < 2; half++) {
                const v128_t w = wasm_v128_load(q + 32 * c + 16 * half);
                v128_t s = dot(sum[0][half], wasm_v128_and(w, nibble0), even0);
                s = dot(s, wasm_v128_and(w, nibble2), odd(x0));
                s = dot(s, wasm_v128_and(w, nibble1), even1);
                sum[0][half] = dot(s, wasm_u16x8_shr(w, 12), odd1);
            }
        }
        const v128_t first = has_min ? wasm_i32x4_const_splat(0) : wasm_i32x4_neg(excess(&a[b]));
        for (int half = 0; half < 2; half++)
            sum[0][half] = wasm_i32x4_add(first, wasm_i32x4_shr(sum[0][half], 8));
        finish_block(acc, sum, (const uint16_t *)(const void *)block, has_min, &a[b], blocks, 1, &k);
        block += has_min ? sizeof(nibl_nibble_min) : sizeof(nibl_nibble_sym);
    }
    wasm_v128_store(y, acc[0][0]);
    wasm_v128_store(y + 4, acc[0][1]);
}

void nibl_gemv_nibble_wasmsimd(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                               const nibl_act *a) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    for (uint32_t panel = begin; panel < end; panel++) {
        float *out = y + (size_t)panel * NIBL_PANEL;
        if (w->scale == NIBL_SCALE_F16_MIN)
            gemv_nibble(out, nibl_panel(w, panel), blocks, true, a);
        else
            gemv_nibble(out, nibl_panel(w, panel), blocks, false, a);
    }
}

#include "kernels/wasm/gemm_int16.inc"
