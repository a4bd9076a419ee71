#define ISA avx2
#define W 8
#define OWN_WIDEN_F16
#include "kernels/float.inc"

#include <immintrin.h>

void nibl_widen_f16_avx2(float *y, const uint16_t *x, uint32_t n) {
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
    for (; i < n; i++) y[i] = nibl_f16_to_f32(x[i]);
}
