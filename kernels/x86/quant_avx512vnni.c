#include <immintrin.h>

#define ISA avx512vnni
#define W 16
#define VMAX(a, b) (vf) _mm512_max_ps((__m512)(b), (__m512)(a))
#define VMIN(a, b) (vf) _mm512_min_ps((__m512)(b), (__m512)(a))
#include "kernels/quant.inc"
