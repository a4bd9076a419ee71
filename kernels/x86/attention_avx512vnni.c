#define ISA avx512vnni
#define W 16
#define VECTORS(heads) 4 /* all 64 positions: there are 32 registers */
#include <immintrin.h>

#define VMAX(a, b) (vf) _mm512_max_ps((__m512)(b), (__m512)(a))
#define DOT(acc, u, s) ((vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(u), (__m512i)(s)))
#include "kernels/attention.inc"
