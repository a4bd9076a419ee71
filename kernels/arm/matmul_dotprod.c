/* Integer matrix products with SDOT: lane r of an accumulator is row r, four columns at a time; the activations are a
 * lane of a register (vdotq_laneq). */
#include "kernels/arm/panel.h"

enum { TOKENS = 4 };

/* Macros, for vdotq_laneq_s32 wants a constant lane. */
#define NIBBLE_CHUNK(c)                                                                                      \
    do {                                                                                                     \
        int8x16_t w0[2], w1[2];                                                                              \
        for (int half = 0; half < 2; half++) {                                                               \
            const uint8x16_t bytes = vld1q_u8(q + 32 * (c) + 16 * half);                                     \
            w0[half] = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));                                 \
            w1[half] = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));                                            \
        }                                                                                                    \
        for (uint32_t t = 0; t < n; t++)                                                                     \
            for (int half = 0; half < 2; half++) {                                                           \
                sum[t][half] = vdotq_laneq_s32(sum[t][half], w0[half], vld1q_s8(a[t * blocks + b].q), c);    \
                sum[t][half] =                                                                               \
                    vdotq_laneq_s32(sum[t][half], w1[half], vld1q_s8(a[t * blocks + b].q + 16), c);          \
            }                                                                                                \
    } while (0)

INLINE void nibble_tile(float *y, size_t stride, const uint8_t *block, uint32_t blocks, bool has_min,
                        const nibl_act *a, uint32_t n) {
    float32x4_t acc[TOKENS][2], d[2], m[2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < blocks; b++) {
        const uint16_t *scale = (const uint16_t *)(const void *)block;
        const uint8_t *q = block + (has_min ? 32 : 16);
        int32x4_t sum[TOKENS][2];
        for (uint32_t t = 0; t < n; t++)
            sum[t][0] = sum[t][1] = vdupq_n_s32(has_min ? 0 : -8 * a[t * blocks + b].sum);
        NIBBLE_CHUNK(0);
        NIBBLE_CHUNK(1);
        NIBBLE_CHUNK(2);
        NIBBLE_CHUNK(3);
        halves(scale, d);
        if (has_min) halves(scale + 8, m);
        for (uint32_t t = 0; t < n; t++) {
            const nibl_act *x = &a[t * blocks + b];
            scale_and_add(acc[t], sum[t], x->s, d);
            for (int half = 0; has_min && half < 2; half++)
                acc[t][half] = vaddq_f32(acc[t][half], vmulq_n_f32(m[half], x->s_sum));
        }
        block += has_min ? sizeof(nibl_nibble_min) : sizeof(nibl_nibble_sym);
    }
    for (uint32_t t = 0; t < n; t++)
        for (int half = 0; half < 2; half++) vst1q_f32(y + t * stride + 4 * half, acc[t][half]);
}

#define INT8_CHUNK(c)                                                                                        \
    do {                                                                                                     \
        for (uint32_t t = 0; t < n; t++)                                                                     \
            for (int half = 0; half < 2; half++) {                                                           \
                const int8_t *q = block->q + 32 * (c) + 16 * half;                                           \
                const int8_t *x = a[t * blocks + b].q;                                                       \
                sum[t][half] = vdotq_laneq_s32(sum[t][half], vld1q_s8(q), vld1q_s8(x), c);                   \
                sum[t][half] = vdotq_laneq_s32(sum[t][half], vld1q_s8(q + 128), vld1q_s8(x + 16), c);        \
            }                                                                                                \
    } while (0)

INLINE void int8_tile(float *y, size_t stride, const uint8_t *panel, uint32_t blocks, bool unused,
                      const nibl_act *a, uint32_t n) {
    (void)unused;
    const nibl_int8_block *block = (const nibl_int8_block *)(const void *)panel;
    float32x4_t acc[TOKENS][2], d[2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < blocks; b++, block++) {
        int32x4_t sum[TOKENS][2];
        for (uint32_t t = 0; t < n; t++) sum[t][0] = sum[t][1] = vdupq_n_s32(0);
        INT8_CHUNK(0);
        INT8_CHUNK(1);
        INT8_CHUNK(2);
        INT8_CHUNK(3);
        halves(block->d, d);
        for (uint32_t t = 0; t < n; t++) scale_and_add(acc[t], sum[t], a[t * blocks + b].s, d);
    }
    for (uint32_t t = 0; t < n; t++)
        for (int half = 0; half < 2; half++) vst1q_f32(y + t * stride + 4 * half, acc[t][half]);
}

#define PANELS(tile, has_min)                                                                                \
    for (uint32_t panel = begin; panel < end; panel++) {                                                     \
        const uint8_t *p = nibl_panel(w, panel);                                                             \
        float *out = y + (size_t)panel * NIBL_PANEL;                                                         \
        uint32_t t = 0;                                                                                      \
        for (; t + TOKENS <= tokens; t += TOKENS)                                                            \
            tile(out + t * stride, stride, p, blocks, has_min, a + (size_t)t * blocks, TOKENS);              \
        for (; t < tokens; t++)                                                                              \
            tile(out + t * stride, stride, p, blocks, has_min, a + (size_t)t * blocks, 1);                   \
    }

void nibl_gemm_nibble_dotprod(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                              const nibl_act *a, uint32_t tokens, void *scratch) {
    (void)scratch;
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    if (w->scale == NIBL_SCALE_F16_MIN) {
        PANELS(nibble_tile, true)
    } else {
        PANELS(nibble_tile, false)
    }
}

void nibl_gemm_int8_dotprod(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                            const nibl_act *a, uint32_t tokens, void *scratch) {
    (void)scratch;
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    PANELS(int8_tile, false)
}

void nibl_gemv_nibble_dotprod(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                              const nibl_act *a) {
    nibl_gemm_nibble_dotprod(y, 0, w, begin, end, a, 1, NULL);
}

void nibl_gemv_int8_dotprod(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end, const nibl_act *a) {
    nibl_gemm_int8_dotprod(y, 0, w, begin, end, a, 1, NULL);
}
