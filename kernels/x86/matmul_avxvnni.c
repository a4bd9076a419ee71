#define ISA avxvnni
#define TOKENS 4
#define NIBBLE_ADD(acc, w, a) _mm256_dpbusd_avx_epi32(acc, w, a)
#define NIBBLE_END(acc) (acc)
#define BYTE_ADD(acc, u, s) _mm256_dpbusd_avx_epi32(acc, u, s)
#include "kernels/x86/matmul.inc"
