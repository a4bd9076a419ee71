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

/* ---- Several tokens: panel and activations become int16 once, in the order of the inner loop ---- */

enum { STEPS = 16 }; /* of a block: (chunk of 4 columns, even or odd), 32 bytes of weights each */

/* One block of weights as int16, symmetric nibbles as q - 8. */
INLINE void widen_block(int16_t *out, const uint8_t *block, bool int8, bool has_min) {
    const v128_t low = wasm_i16x8_const_splat(15), zero = wasm_i16x8_splat(has_min ? 0 : 8);
    const uint8_t *q = block + (has_min ? 32 : 16);
    for (int c = 0; c < (int8 ? 8 : 4); c++)
        for (int half = 0; half < 2; half++) {
            const v128_t w = wasm_v128_load(q + 32 * c + 16 * half);
            int16_t *p = out + 32 * c + 8 * half;
            if (int8) {
                wasm_v128_store(p, even(w));
                wasm_v128_store(p + 16, odd(w));
            } else {
                wasm_v128_store(p, wasm_i16x8_sub(wasm_v128_and(w, low), zero));
                wasm_v128_store(p + 16, wasm_i16x8_sub(wasm_v128_and(wasm_u16x8_shr(w, 8), low), zero));
                wasm_v128_store(p + 128, wasm_i16x8_sub(wasm_v128_and(wasm_u16x8_shr(w, 4), low), zero));
                wasm_v128_store(p + 144, wasm_i16x8_sub(wasm_u16x8_shr(w, 12), zero));
            }
        }
}

/* Activations of a block: for every step the two columns it multiplies. */
INLINE void widen_activations(int16_t *out, const int8_t *q) {
    for (int half = 0; half < 2; half++) {
        const v128_t x = wasm_v128_load(q + 16 * half), a0 = even(x), a1 = odd(x);
        wasm_v128_store(out + 16 * half, wasm_i32x4_shuffle(a0, a1, 0, 4, 1, 5));
        wasm_v128_store(out + 16 * half + 8, wasm_i32x4_shuffle(a0, a1, 2, 6, 3, 7));
    }
}

INLINE void tile(float *y, size_t stride, const int16_t *panel, const int16_t *x, const uint8_t *block,
                 size_t unit, uint32_t blocks, bool has_min, const nibl_act *a, uint32_t n) {
    v128_t acc[TOKENS][2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = wasm_i32x4_const_splat(0);
    for (uint32_t b = 0; b < blocks; b++) {
        v128_t sum[TOKENS][2];
        for (uint32_t t = 0; t < n; t++) sum[t][0] = sum[t][1] = wasm_i32x4_const_splat(0);
        const int16_t *q = panel + (size_t)b * NIBL_BLOCK * NIBL_PANEL;
#pragma clang loop unroll(disable)
        for (int step = 0; step < STEPS; step++) {
            const v128_t w0 = wasm_v128_load(q + 16 * step), w1 = wasm_v128_load(q + 16 * step + 8);
            for (uint32_t t = 0; t < n; t++) {
                const v128_t pair = splat32(x + ((size_t)t * blocks + b) * NIBL_BLOCK + 2 * step);
                sum[t][0] = dot(sum[t][0], w0, pair);
                sum[t][1] = dot(sum[t][1], w1, pair);
            }
        }
        const constants k = resident(); /* in the loop above every register is taken */
        finish_block(acc, sum, (const uint16_t *)(const void *)(block + unit * b), has_min, &a[b], blocks, n,
                     &k);
    }
    for (uint32_t t = 0; t < n; t++) {
        wasm_v128_store(y + t * stride, acc[t][0]);
        wasm_v128_store(y + t * stride + 4, acc[t][1]);
    }
}

/* Widening a tile's activations again for every panel costs one part in sixteen of its products. */
INLINE void gemm(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                 const nibl_act *a, uint32_t tokens, int16_t *scratch, bool int8, bool has_min) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    const size_t unit = nibl_panel_unit((nibl_kind)w->kind, has_min ? NIBL_SCALE_F16_MIN : NIBL_SCALE_F16);
    int16_t *x = scratch + (size_t)w->cols * NIBL_PANEL;
    for (uint32_t panel = begin; panel < end; panel++) {
        const uint8_t *block = nibl_panel(w, panel);
        for (uint32_t b = 0; b < blocks; b++)
            widen_block(scratch + (size_t)b * NIBL_BLOCK * NIBL_PANEL, block + unit * b, int8, has_min);
        float *out = y + (size_t)panel * NIBL_PANEL;
        for (uint32_t t = 0; t < tokens; t += TOKENS) {
            const uint32_t n = tokens - t < TOKENS ? tokens - t : TOKENS;
            const nibl_act *rows = a + (size_t)t * blocks;
            for (uint32_t i = 0; i < n * blocks; i++)
                widen_activations(x + (size_t)i * NIBL_BLOCK, rows[i].q);
            if (n == TOKENS)
                tile(out + t * stride, stride, scratch, x, block, unit, blocks, has_min, rows, TOKENS);
            else
                for (uint32_t i = 0; i < n; i++)
                    tile(out + (t + i) * stride, stride, scratch, x + (size_t)i * w->cols, block, unit,
                         blocks, has_min, rows + (size_t)i * blocks, 1);
        }
    }
}

void nibl_gemm_nibble_wasmsimd(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                               const nibl_act *a, uint32_t tokens, void *scratch) {
    if (w->scale == NIBL_SCALE_F16_MIN)
        gemm(y, stride, w, begin, end, a, tokens, scratch, false, true);
    else
        gemm(y, stride, w, begin, end, a, tokens, scratch, false, false);
}

void nibl_gemm_int8_wasmsimd(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                             const nibl_act *a, uint32_t tokens, void *scratch) {
    gemm(y, stride, w, begin, end, a, tokens, scratch, true, false);
}
