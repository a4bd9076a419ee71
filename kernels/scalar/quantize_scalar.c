#include "kernels/maths.h"
#include "kernels/variants.h"

void nibl_quantize_scalar(nibl_act *a, const float *x, uint32_t n) {
    for (uint32_t b = 0; b < n / NIBL_BLOCK; b++, x += NIBL_BLOCK, a++) {
        uint32_t amax = 0;
        for (int i = 0; i < NIBL_BLOCK; i++) {
            uint32_t bits = nibl_float_bits(x[i]) & 0x7FFFFFFF;
            if (bits > amax) amax = bits;
        }
        float s = nibl_bits_float(amax) / 127.0f;
        if (amax >= 0x7F800000) s = nibl_bits_float(0x7FC00000); /* infinite or NaN: the logits will tell */
        if (s < FLT_MIN) s = 0.0f;
        float inverse = s > 0.0f ? 1.0f / s : 0.0f;
        int32_t sum = 0, sum16 = 0;
        for (int i = 0; i < NIBL_BLOCK; i++) {
            /* inverse is 0 for a NaN scale, and 0 * inf must not leave a payload that differs by CPU */
            uint32_t bits = inverse > 0.0f ? nibl_float_bits(x[i] * inverse + NIBL_ROUNDER) : 0;
            a->q[i] = (int8_t)(bits & 0xFF);
            sum += a->q[i];
            if (i < NIBL_BLOCK / 2) sum16 += a->q[i];
        }
        a->s = s;
        a->s_sum = (float)sum * s;
        a->sum = sum;
        a->sum16 = sum16;
    }
}
