#define ISA avx2
#define IQ4_ZERO 0
#define BYTE_ADD(acc, u, s)                                                                                  \
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)))
#include "kernels/x86/codes.inc"
