#include <immintrin.h>

#define ISA avx2
#define W 8
#define VMAX(a, b) (vf) _mm256_max_ps((__m256)(b), (__m256)(a))
#define VMIN(a, b) (vf) _mm256_min_ps((__m256)(b), (__m256)(a))
#include "kernels/quant.inc"
