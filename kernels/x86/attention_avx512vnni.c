#define ISA avx512vnni
#define W 16
#define VECTORS(heads) ((heads) == 1 ? 4 : 1)
#include <immintrin.h>

#define VMAX(a, b) (vf) _mm512_max_ps((__m512)(b), (__m512)(a))
#define DOT(acc, u, s) ((vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(u), (__m512i)(s)))
#include "kernels/attention.inc"
