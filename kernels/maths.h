/* Scalar pieces of the numeric contract (kernels.def), shared by references and tails. */
#ifndef NIBL_KERNEL_MATHS_H
#define NIBL_KERNEL_MATHS_H

#include <float.h>
#include <stdint.h>
#include <string.h>

/* Adding and subtracting it rounds a float of less than 2^22 to an integer, ties to even; its low bits hold it. */
#define NIBL_ROUNDER 12582912.0f
#define NIBL_ROUNDER_BITS 0x4B400000

/* exp: 2^n times a polynomial on [-ln2/2, ln2/2]; coefficients of Cephes' expf (S. Moshier). */
#define NIBL_EXP_LOW (-87.0f)
#define NIBL_EXP_HIGH 88.0f
#define NIBL_LOG2E 1.44269504f
#define NIBL_LN2_HIGH 0.693359375f
#define NIBL_LN2_LOW (-2.12194440e-4f)
#define NIBL_EXP_COEFFICIENTS(form)                                                                          \
    {form(1.9875691500e-4f), form(1.3981999507e-3f), form(8.3334519073e-3f),                                 \
     form(4.1665795894e-2f), form(1.6666665459e-1f), form(5.0000001201e-1f)}

static inline uint32_t nibl_float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float nibl_bits_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float nibl_expf(float x) {
    static const float c[6] = NIBL_EXP_COEFFICIENTS(+);
    if (x < NIBL_EXP_LOW) return 0.0f;
    if (x > NIBL_EXP_HIGH) x = NIBL_EXP_HIGH;
    float shifted = x * NIBL_LOG2E + NIBL_ROUNDER;
    float n = shifted - NIBL_ROUNDER;
    float r = x - n * NIBL_LN2_HIGH;
    r = r - n * NIBL_LN2_LOW;
    float p = c[0];
    for (int i = 1; i < 6; i++) p = p * r + c[i];
    p = p * (r * r) + r;
    p = p + 1.0f;
    return p * nibl_bits_float((nibl_float_bits(shifted) - NIBL_ROUNDER_BITS + 127u) << 23);
}

/* GELU's argument of the sigmoid: 2 sqrt(2 / pi), and times 0.044715. */
#define NIBL_GELU_LINEAR 1.5957691f
#define NIBL_GELU_CUBIC 0.071354816f
#define NIBL_CLAMP 7.0f
#define NIBL_CLAMPED_SLOPE 1.702f

static inline float nibl_soft_cap(float x, float cap) {
    return cap - 2.0f * cap / (nibl_expf(x * (2.0f / cap)) + 1.0f);
}

/* Exact for finite values: shifts the exponent field into place and corrects the bias by 2^112. */
static inline float nibl_f16_to_f32(uint16_t h) {
    float magnitude = nibl_bits_float((uint32_t)(h & 0x7FFF) << 13) * 0x1p112f;
    return nibl_bits_float(nibl_float_bits(magnitude) | (uint32_t)(h & 0x8000) << 16);
}

/* Ties to even; magnitudes above 65504 become 65504, NaN becomes 0. */
static inline uint16_t nibl_f32_to_f16(float x) {
    uint32_t bits = nibl_float_bits(x), sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) return (uint16_t)sign;
    if (bits >= 0x477FE000) return (uint16_t)(sign | 0x7BFF);
    if (bits < 0x38800000) { /* subnormal: the float adder rounds at 2^-24 */
        float y = nibl_bits_float(bits) + 0.5f;
        return (uint16_t)(sign | (nibl_float_bits(y) - 0x3F000000));
    }
    bits += 0xFFF + (bits >> 13 & 1);
    return (uint16_t)(sign | (bits - 0x38000000) >> 13);
}

static inline float nibl_bf16_to_f32(uint16_t h) { return nibl_bits_float((uint32_t)h << 16); }

#endif
