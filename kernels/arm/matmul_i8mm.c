/* Integer products of several tokens with SMMLA, which multiplies 2 rows by 2 tokens, 8 columns at a time. The panel
 * becomes bytes once, the 8 columns of a row side by side; a token without a partner goes to the SDOT variant. */
#include "kernels/arm/panel.h"

enum { TOKENS = 4, EIGHTS = NIBL_BLOCK / 8, PAIRS = NIBL_PANEL / 2, UNIT = NIBL_BLOCK * NIBL_PANEL };

/* Columns 0..3 and 4..7 of four rows to two pairs of rows. */
INLINE void join(int8_t *out, uint8x16_t low, uint8x16_t high) {
    const uint32x4_t a = vreinterpretq_u32_u8(low), b = vreinterpretq_u32_u8(high);
    vst1q_s8(out, vreinterpretq_s8_u32(vzip1q_u32(a, b)));
    vst1q_s8(out + 16, vreinterpretq_s8_u32(vzip2q_u32(a, b)));
}

static void unpack_nibbles(int8_t *out, const uint8_t *q) {
    const uint8x16_t low = vdupq_n_u8(15);
    for (int c = 0; c < 4; c += 2)
        for (int half = 0; half < 2; half++) {
            const uint8x16_t x = vld1q_u8(q + 32 * c + 16 * half), y = vld1q_u8(q + 32 * c + 32 + 16 * half);
            int8_t *to = out + 32 * c + 32 * half;
            join(to, vandq_u8(x, low), vandq_u8(y, low));
            join(to + UNIT / 2, vshrq_n_u8(x, 4), vshrq_n_u8(y, 4));
        }
}

static void unpack_bytes(int8_t *out, const uint8_t *q) {
    for (int c = 0; c < 8; c += 2)
        for (int half = 0; half < 2; half++)
            join(out + 32 * c + 32 * half, vld1q_u8(q + 32 * c + 16 * half),
                 vld1q_u8(q + 32 * c + 32 + 16 * half));
}

/* Scales of a block, and what its codes count too much. */
typedef struct form {
    size_t unit, codes; /* bytes of a block, and of what stands before its codes */
    bool has_min;
    int32_t zero;
} form;

/* An even number of tokens. */
INLINE void tile(float *y, size_t stride, const int8_t *panel, const uint8_t *block, const form *f,
                 uint32_t blocks, const nibl_act *a, uint32_t n) {
    float32x4_t acc[TOKENS][2], d[2], m[2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < blocks; b++, block += f->unit, panel += UNIT) {
        int32x4_t sum[TOKENS / 2][PAIRS];
        for (uint32_t p = 0; p < n / 2; p++) {
            const int32_t both[4] = {
                -f->zero * a[2 * p * blocks + b].sum, -f->zero * a[(2 * p + 1) * blocks + b].sum,
                -f->zero * a[2 * p * blocks + b].sum, -f->zero * a[(2 * p + 1) * blocks + b].sum};
            for (int r = 0; r < PAIRS; r++) sum[p][r] = vld1q_s32(both);
        }
        for (int e = 0; e < EIGHTS; e++)
            for (uint32_t p = 0; p < n / 2; p++) {
                const int8x16_t x = vcombine_s8(vld1_s8(a[2 * p * blocks + b].q + 8 * e),
                                                vld1_s8(a[(2 * p + 1) * blocks + b].q + 8 * e));
                for (int r = 0; r < PAIRS; r++)
                    sum[p][r] = vmmlaq_s32(sum[p][r], vld1q_s8(panel + 64 * e + 16 * r), x);
            }
        const uint16_t *scale = (const uint16_t *)(const void *)block;
        halves(scale, d);
        if (f->has_min) halves(scale + 8, m);
        for (uint32_t t = 0; t < n; t++) {
            const nibl_act *x = &a[t * blocks + b];
            const int32x4_t *s = sum[t / 2];
            const int32x4_t rows[2] = {t % 2 ? vuzp2q_s32(s[0], s[1]) : vuzp1q_s32(s[0], s[1]),
                                       t % 2 ? vuzp2q_s32(s[2], s[3]) : vuzp1q_s32(s[2], s[3])};
            scale_and_add(acc[t], rows, x->s, d);
            for (int half = 0; f->has_min && half < 2; half++)
                acc[t][half] = vaddq_f32(acc[t][half], vmulq_n_f32(m[half], x->s_sum));
        }
    }
    for (uint32_t t = 0; t < n; t++)
        for (int half = 0; half < 2; half++) vst1q_f32(y + t * stride + 4 * half, acc[t][half]);
}

/* Returns how many tokens it took: all, or all but one. */
INLINE uint32_t multiply(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                         const nibl_act *a, uint32_t tokens, int8_t *bytes, const form *f,
                         void (*unpack)(int8_t *, const uint8_t *)) {
    const uint32_t blocks = w->cols / NIBL_BLOCK, even = tokens / 2 * 2;
    for (uint32_t panel = begin; panel < end && even; panel++) {
        const uint8_t *block = nibl_panel(w, panel);
        for (uint32_t b = 0; b < blocks; b++)
            unpack(bytes + (size_t)b * UNIT, block + b * f->unit + f->codes);
        float *out = y + (size_t)panel * NIBL_PANEL;
        uint32_t t = 0;
        for (; t + TOKENS <= even; t += TOKENS)
            tile(out + t * stride, stride, bytes, block, f, blocks, a + (size_t)t * blocks, TOKENS);
        if (t < even) tile(out + t * stride, stride, bytes, block, f, blocks, a + (size_t)t * blocks, 2);
    }
    return even;
}

void nibl_gemm_nibble_i8mm(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                           const nibl_act *a, uint32_t tokens, void *scratch) {
    static const form min = {sizeof(nibl_nibble_min), 32, true, 0},
                      sym = {sizeof(nibl_nibble_sym), 16, false, 8};
    const bool has_min = w->scale == NIBL_SCALE_F16_MIN;
    const uint32_t done = has_min
                              ? multiply(y, stride, w, begin, end, a, tokens, scratch, &min, unpack_nibbles)
                              : multiply(y, stride, w, begin, end, a, tokens, scratch, &sym, unpack_nibbles);
    if (done < tokens)
        nibl_gemv_nibble_dotprod(y + done * stride, w, begin, end, a + (size_t)done * (w->cols / NIBL_BLOCK));
}

void nibl_gemm_int8_i8mm(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                         const nibl_act *a, uint32_t tokens, void *scratch) {
    static const form plain = {sizeof(nibl_int8_block), 16, false, 0};
    const uint32_t done = multiply(y, stride, w, begin, end, a, tokens, scratch, &plain, unpack_bytes);
    if (done < tokens)
        nibl_gemv_int8_dotprod(y + done * stride, w, begin, end, a + (size_t)done * (w->cols / NIBL_BLOCK));
}
