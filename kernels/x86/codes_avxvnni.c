#define ISA avxvnni
#define IQ4_ZERO 128 /* its dot product takes unsigned bytes */
#define BYTE_ADD(acc, u, s) _mm256_dpbusd_avx_epi32(acc, u, s)
#include "kernels/x86/codes.inc"
