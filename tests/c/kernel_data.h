/* Random inputs of kernels, for checkkern and test_kernels: reproducible by seed, with the extremes of every format. */
#ifndef NIBL_TEST_KERNEL_DATA_H
#define NIBL_TEST_KERNEL_DATA_H

#include "kernels/kernels.h"
#include "kernels/maths.h"

#include <math.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t random_bits(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static inline uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)((random_bits(state) >> 32) * n >> 32);
}

static inline uint32_t random_between(uint64_t *state, uint32_t low, uint32_t high) {
    return low + random_below(state, high - low + 1);
}

static inline float random_float(uint64_t *state, float low, float high) {
    return low + (high - low) * (float)(random_bits(state) >> 40) * 0x1p-24f;
}

/* What the numbers are like. */
typedef enum profile {
    PROFILE_PLAIN, /* as in models */
    PROFILE_ENDS, /* every code and scale at an end of its range */
    PROFILE_WILD, /* any bits that are finite, mixed with the ends */
    PROFILE_COUNT
} profile;

/* A finite f16. */
static inline uint16_t random_half(uint64_t *state, profile p) {
    static const uint16_t ends[] = {0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF};
    const uint16_t sign = (uint16_t)(random_below(state, 2) << 15);
    if (p == PROFILE_PLAIN)
        return (uint16_t)(sign | random_between(state, 4, 13) << 10 | random_below(state, 1024));
    if (p == PROFILE_ENDS || random_below(state, 4) == 0) return sign | ends[random_below(state, 6)];
    return (uint16_t)(sign | random_below(state, 0x7C00));
}

/* A finite float; WILD ones are mostly of a size whose squares and products stay finite. */
static inline float random_number(uint64_t *state, profile p) {
    static const float ends[] = {0.0f,  0x1p-149f, 0x1.fffffcp-127f, FLT_MIN, 1.0f, 0x1p22f,
                                 1e19f, 3e37f,     FLT_MAX};
    if (p == PROFILE_PLAIN) return random_float(state, -2.0f, 2.0f);
    const float sign = random_below(state, 2) ? -1.0f : 1.0f;
    if (p == PROFILE_ENDS || random_below(state, 64) == 0) return sign * ends[random_below(state, 9)];
    const uint32_t exponent = random_between(state, 97, 157);
    return sign * nibl_bits_float(exponent << 23 | random_below(state, 1 << 23));
}

static inline void random_numbers(float *x, size_t n, uint64_t *state, profile p) {
    for (size_t i = 0; i < n; i++) x[i] = random_number(state, p);
}

/* Codes of a block: PLAIN any, ENDS the same few everywhere, so that sums of products reach their bounds. */
static inline void random_nibbles(uint8_t *q, size_t n, uint64_t *state, profile p) {
    static const uint8_t ends[] = {0x00, 0xFF, 0x0F, 0xF0, 0x88};
    const uint8_t same = ends[random_below(state, 5)];
    const bool plain = p == PROFILE_PLAIN || random_below(state, 2);
    for (size_t i = 0; i < n; i++) q[i] = plain ? (uint8_t)random_below(state, 256) : same;
}

/* -127..127 */
static inline void random_codes(int8_t *q, size_t n, uint64_t *state, profile p) {
    const int8_t same[] = {random_below(state, 2) ? 127 : -127, random_below(state, 2) ? 127 : -127};
    const bool plain = p == PROFILE_PLAIN || random_below(state, 3) == 0;
    for (size_t i = 0; i < n; i++) q[i] = plain ? (int8_t)((int)random_below(state, 255) - 127) : same[i % 2];
}

/* What `quantize` may write: s is never subnormal; a NaN comes with zeros. */
static inline void random_acts(nibl_act *a, size_t blocks, uint64_t *state, profile p) {
    static const float ends[] = {0.0f, FLT_MIN, 1.0f, FLT_MAX / 127.0f, NAN};
    for (; blocks > 0; blocks--, a++) {
        memset(a, 0, sizeof *a);
        a->s = random_float(state, 0.001f, 0.1f);
        if (p == PROFILE_ENDS || (p == PROFILE_WILD && random_below(state, 8) == 0))
            a->s = ends[random_below(state, random_below(state, 50) ? 4 : 5)];
        if (a->s > 0) random_codes(a->q, NIBL_BLOCK, state, p);
        for (int i = 0; i < NIBL_BLOCK; i++) a->sum += a->q[i];
        for (int i = 0; i < NIBL_BLOCK / 2; i++) a->sum16 += a->q[i];
        a->s_sum = (float)a->sum * a->s;
    }
}

/* The eight values of a field of `width` bytes: f16, bf16 or f32 numbers, or bytes. */
static inline void random_field(uint8_t *p, nibl_scale scale, size_t width, uint64_t *state, profile pr) {
    for (int r = 0; r < NIBL_PANEL; r++, p += width) {
        const bool bf16 = scale == NIBL_SCALE_BF16 || scale == NIBL_SCALE_BF16_ZERO;
        const uint32_t bits = nibl_float_bits(random_number(state, pr));
        const uint16_t half = bf16 ? (uint16_t)(bits >> 16) : random_half(state, pr);
        if (width == 1) *p = (uint8_t)random_below(state, scale == NIBL_SCALE_E8M0 ? 253 : 256);
        if (width == 1 && scale == NIBL_SCALE_E8M0 && pr == PROFILE_PLAIN)
            *p = (uint8_t)random_between(state, 112, 130);
        if (width == 2) memcpy(p, &half, 2);
        if (width == 4) memcpy(p, &bits, 4);
    }
}

/* Fills w->data, which holds whole panels. INT8 weights are -127..127, floats finite. */
static inline void random_weights(const nibl_matrix *w, uint64_t *state, profile pr) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const nibl_scale scale = (nibl_scale)w->scale;
    const nibl_scale_form form = nibl_scale_form_of(scale);
    for (uint32_t panel = 0; panel < nibl_panels(w); panel++) {
        uint8_t *p = nibl_panel(w, panel);
        if (nibl_kind_is_float(kind)) {
            const nibl_scale as[] = {NIBL_SCALE_F32, NIBL_SCALE_F16, NIBL_SCALE_BF16};
            const size_t width = nibl_panel_unit(kind, scale) / NIBL_PANEL;
            for (uint32_t k = 0; k < w->cols; k++, p += NIBL_PANEL * width)
                random_field(p, as[kind], width, state, pr);
            continue;
        }
        for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++) {
            uint8_t *at = p + nibl_block_offset(w, b);
            for (uint32_t h = 0; h < form.head && b % 8 == 0; h++)
                random_field(at - nibl_head_bytes(scale) + 16 * h, NIBL_SCALE_F16, 2, state, pr);
            if (form.six && b % 8 == 0) random_nibbles(at - 48 * form.six, 48 * form.six, state, pr);
            random_field(at, scale, form.field[0], state, pr);
            random_field(at + NIBL_PANEL * form.field[0], scale, form.field[1], state, pr);
            at += nibl_scale_bytes(scale);
            if (kind == NIBL_KIND_INT8)
                random_codes((int8_t *)at, 256, state, pr);
            else
                random_nibbles(at, nibl_code_bytes(kind), state, pr);
        }
    }
}

#endif
