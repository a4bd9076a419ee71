/* matmul_codes with SDOT: codes of any sign are signed bytes. */
#include <arm_neon.h>
#include <stdbool.h>

#define ISA dotprod
#define INLINE static inline __attribute__((always_inline))

typedef uint8_t lanes __attribute__((vector_size(32)));
typedef int32_t int32x8 __attribute__((vector_size(32)));
typedef union pair {
    lanes bytes;
    int32x8 ints;
    int8x16_t q[2];
    int32x4_t sums[2];
} pair;

INLINE int32x8 widen_f16(const void *p) {
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p));
    const pair x = {.sums = {vreinterpretq_s32_f32(vcvt_f32_f16(vget_low_f16(h))),
                             vreinterpretq_s32_f32(vcvt_f32_f16(vget_high_f16(h)))}};
    return x.ints;
}
INLINE int32x8 widen_u16(const void *p) {
    const uint16x8_t x = vld1q_u16(p);
    const pair out = {.sums = {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x))),
                               vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(x)))}};
    return out.ints;
}
INLINE int32x8 widen_bytes(const int8_t *p) {
    const int16x8_t x = vmovl_s8(vld1_s8(p));
    const pair out = {.sums = {vmovl_s16(vget_low_s16(x)), vmovl_s16(vget_high_s16(x))}};
    return out.ints;
}
INLINE int32x8 splat_float(float x) {
    const int32x4_t four = vreinterpretq_s32_f32(vdupq_n_f32(x));
    const pair out = {.sums = {four, four}};
    return out.ints;
}
#define CODE_TOKENS 4
#define MASK(m) ((uint8_t)(m))
#define IQ4_ZERO 0
#define WIDEN_F16 widen_f16
#define WIDEN_U16 widen_u16
#define WIDEN_BYTES widen_bytes
#define NUMBER(p) splat_float(*(p))

INLINE lanes lookup(lanes x, const int8_t *table) {
    const int8x16_t t = vld1q_s8(table);
    pair p = {.bytes = x};
    for (int i = 0; i < 2; i++) p.q[i] = vqtbl1q_s8(t, vreinterpretq_u8_s8(p.q[i]));
    return p.bytes;
}
#define LOOKUP lookup

INLINE void sums(int32x8 out[2], const lanes w[8], const int8_t *q, bool is_signed) {
    (void)is_signed;
    for (int h = 0; h < 2; h++) {
        const int8x16_t x = vld1q_s8(q + 16 * h);
        pair sum = {.ints = {0}};
        for (int i = 0; i < 2; i++) {
            const pair w0 = {.bytes = w[4 * h]}, w1 = {.bytes = w[4 * h + 1]}, w2 = {.bytes = w[4 * h + 2]},
                       w3 = {.bytes = w[4 * h + 3]};
            sum.sums[i] = vdotq_laneq_s32(sum.sums[i], w0.q[i], x, 0);
            sum.sums[i] = vdotq_laneq_s32(sum.sums[i], w1.q[i], x, 1);
            sum.sums[i] = vdotq_laneq_s32(sum.sums[i], w2.q[i], x, 2);
            sum.sums[i] = vdotq_laneq_s32(sum.sums[i], w3.q[i], x, 3);
        }
        out[h] = sum.ints;
    }
}

#include "kernels/codes.inc"
