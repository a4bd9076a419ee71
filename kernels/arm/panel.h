/* The ends of a block that the integer matrix products of ARM share. Halves of a panel are rows 0..3 and 4..7. */
#ifndef NIBL_ARM_PANEL_H
#define NIBL_ARM_PANEL_H

#include "kernels/variants.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

INLINE void halves(const uint16_t *p, float32x4_t out[2]) {
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p));
    out[0] = vcvt_f32_f16(vget_low_f16(h));
    out[1] = vcvt_f32_f16(vget_high_f16(h));
}

INLINE void scale_and_add(float32x4_t acc[2], const int32x4_t sum[2], float s, const float32x4_t d[2]) {
    for (int half = 0; half < 2; half++)
        acc[half] = vaddq_f32(acc[half], vmulq_f32(vmulq_n_f32(vcvtq_f32_s32(sum[half]), s), d[half]));
}

#endif
