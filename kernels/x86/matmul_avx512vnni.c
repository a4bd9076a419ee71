/* 256-bit registers, twice as many of them. */
#define ISA avx512vnni
#define TOKENS 8
#define NIBBLE_ADD(acc, w, a) _mm256_dpbusd_epi32(acc, w, a)
#define NIBBLE_END(acc) (acc)
#define BYTE_ADD(acc, u, s) _mm256_dpbusd_epi32(acc, u, s)
#include "kernels/x86/matmul.inc"
