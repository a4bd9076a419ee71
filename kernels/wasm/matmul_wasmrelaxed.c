/*
 * Integer matrix products with i32x4.relaxed_dot_i8x16_i7x16_add_s. Its first operand is the signed one (activations),
 * its second must stay within 0..127 (weights): then the result is the exact one on every engine, and nibbles cannot
 * saturate the 16-bit pair sums of x86 without VNNI.
 */
#include "kernels/wasm/panel.h"

INLINE v128_t dot(v128_t acc, v128_t a, v128_t w) {
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, acc);
}

INLINE void gemv_nibble(float *y, const uint8_t *block, uint32_t blocks, bool has_min, const nibl_act *a) {
    const v128_t low = wasm_i8x16_const_splat(15);
    v128_t acc[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *q = block + (has_min ? 32 : 16);
        const v128_t first = wasm_i32x4_splat(has_min ? 0 : -8 * a[b].sum);
        v128_t sum[1][2] = {{first, first}};
        for (int c = 0; c < 4; c++) {
            const v128_t a0 = splat32(a[b].q + 4 * c), a1 = splat32(a[b].q + 16 + 4 * c);
            for (int half = 0; half < 2; half++) {
                const v128_t w = wasm_v128_load(q + 32 * c + 16 * half);
                sum[0][half] = dot(sum[0][half], a0, wasm_v128_and(w, low));
                sum[0][half] = dot(sum[0][half], a1, wasm_u8x16_shr(w, 4));
            }
        }
        finish_block(acc, sum, (const uint16_t *)(const void *)block, has_min, &a[b], blocks, 1);
        block += has_min ? sizeof(nibl_nibble_min) : sizeof(nibl_nibble_sym);
    }
    wasm_v128_store(y, acc[0][0]);
    wasm_v128_store(y + 4, acc[0][1]);
}

void nibl_gemv_nibble_wasmrelaxed(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                                  const nibl_act *a) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    for (uint32_t panel = begin; panel < end; panel++) {
        float *out = y + (size_t)panel * NIBL_PANEL;
        if (w->has_min)
            gemv_nibble(out, nibl_panel(w, panel), blocks, true, a);
        else
            gemv_nibble(out, nibl_panel(w, panel), blocks, false, a);
    }
}

/* a w = (sign(a) w) |a|: |a| is the operand of 7 bits; right for every w but -128. */
void nibl_gemv_int8_wasmrelaxed(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                                const nibl_act *a) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    for (uint32_t panel = begin; panel < end; panel++) {
        const nibl_int8_block *block = (const nibl_int8_block *)(const void *)nibl_panel(w, panel);
        v128_t acc[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
        for (uint32_t b = 0; b < blocks; b++, block++) {
            v128_t sum[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
            for (int c = 0; c < 8; c++) {
                const v128_t x = splat32(a[b].q + 4 * c), sign = wasm_i8x16_shr(x, 7),
                             size = wasm_i8x16_abs(x);
                for (int half = 0; half < 2; half++) {
                    const v128_t q = wasm_v128_load(block->q + 32 * c + 16 * half);
                    sum[0][half] = dot(sum[0][half], wasm_i8x16_sub(wasm_v128_xor(q, sign), sign), size);
                }
            }
            finish_block(acc, sum, block->d, false, &a[b], blocks, 1);
        }
        wasm_v128_store(y + (size_t)panel * NIBL_PANEL, acc[0][0]);
        wasm_v128_store(y + (size_t)panel * NIBL_PANEL + 4, acc[0][1]);
    }
}

/* ---- Several tokens: the panel's nibbles become bytes once ---- */

enum { STEPS = 8 }; /* of a block: 4 columns, 32 bytes of weights each */

INLINE void tile(float *y, size_t stride, const uint8_t *panel, const uint8_t *block, size_t unit,
                 uint32_t blocks, bool has_min, const nibl_act *a, uint32_t n) {
    v128_t acc[TOKENS][2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = wasm_i32x4_const_splat(0);
    for (uint32_t b = 0; b < blocks; b++) {
        v128_t sum[TOKENS][2];
        for (uint32_t t = 0; t < n; t++)
            sum[t][0] = sum[t][1] = wasm_i32x4_splat(has_min ? 0 : -8 * a[t * blocks + b].sum);
        const uint8_t *q = panel + (size_t)b * NIBL_BLOCK * NIBL_PANEL;
        /* unrolled, V8 keeps more alive than it has registers for and spills */
#pragma clang loop unroll(disable)
        for (int step = 0; step < STEPS; step++) {
            const v128_t w0 = wasm_v128_load(q + 32 * step), w1 = wasm_v128_load(q + 32 * step + 16);
            for (uint32_t t = 0; t < n; t++) {
                const v128_t x = splat32(a[t * blocks + b].q + 4 * step);
                sum[t][0] = dot(sum[t][0], x, w0);
                sum[t][1] = dot(sum[t][1], x, w1);
            }
        }
        finish_block(acc, sum, (const uint16_t *)(const void *)(block + unit * b), has_min, &a[b], blocks, n);
    }
    for (uint32_t t = 0; t < n; t++) {
        wasm_v128_store(y + t * stride, acc[t][0]);
        wasm_v128_store(y + t * stride + 4, acc[t][1]);
    }
}

INLINE void gemm(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                 const nibl_act *a, uint32_t tokens, uint8_t *scratch, bool has_min) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, has_min);
    for (uint32_t panel = begin; panel < end; panel++) {
        const uint8_t *block = nibl_panel(w, panel);
        for (uint32_t b = 0; b < blocks; b++)
            for (uint32_t i = 0; i < 128; i += 16) {
                const v128_t q = wasm_v128_load(block + unit * b + (has_min ? 32 : 16) + i);
                uint8_t *out = scratch + (size_t)b * NIBL_BLOCK * NIBL_PANEL + i;
                wasm_v128_store(out, wasm_v128_and(q, wasm_i8x16_const_splat(15)));
                wasm_v128_store(out + 128, wasm_u8x16_shr(q, 4));
            }
        float *out = y + (size_t)panel * NIBL_PANEL;
        uint32_t t = 0;
        for (; t + TOKENS <= tokens; t += TOKENS)
            tile(out + t * stride, stride, scratch, block, unit, blocks, has_min, a + (size_t)t * blocks,
                 TOKENS);
        for (; t < tokens; t++)
            tile(out + t * stride, stride, scratch, block, unit, blocks, has_min, a + (size_t)t * blocks, 1);
    }
}

void nibl_gemm_nibble_wasmrelaxed(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                                  const nibl_act *a, uint32_t tokens, void *scratch) {
    if (w->has_min)
        gemm(y, stride, w, begin, end, a, tokens, scratch, true);
    else
        gemm(y, stride, w, begin, end, a, tokens, scratch, false);
}
