/* Eight sums of nibble products fit int16: 8 * 2 * 15 * 127 = 30480. */
#define ISA avx2
#define TOKENS 4
#define NIBBLE_ADD(acc, w, a) _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, a))
#define NIBBLE_END(acc) _mm256_madd_epi16(acc, _mm256_set1_epi16(1))
#define BYTE_ADD(acc, u, s)                                                                                  \
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)))
#include "kernels/x86/matmul.inc"
