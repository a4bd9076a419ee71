#define ISA avxvnni
#define W 8
#include <immintrin.h>

#define VMAX(a, b) (vf) _mm256_max_ps((__m256)(b), (__m256)(a))
#define DOT(acc, u, s) ((vi)_mm256_dpbusd_avx_epi32((__m256i)(acc), (__m256i)(u), (__m256i)(s)))
#include "kernels/attention.inc"
