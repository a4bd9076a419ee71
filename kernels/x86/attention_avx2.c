#define ISA avx2
#define W 8
#include <immintrin.h>

#define VMAX(a, b) (vf) _mm256_max_ps((__m256)(b), (__m256)(a))
#define DOT(acc, u, s)                                                                                       \
    ((acc) + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)(u), (__m256i)(s)), _mm256_set1_epi16(1)))
#include "kernels/attention.inc"
