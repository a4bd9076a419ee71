#define ISA avxvnni
#define W 8
#include <immintrin.h>

#define DOT(acc, u, s) ((vi)_mm256_dpbusd_avx_epi32((__m256i)(acc), (__m256i)(u), (__m256i)(s)))
#include "kernels/attention.inc"
