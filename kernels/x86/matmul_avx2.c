/* Eight sums of nibble products fit int16: 8 * 2 * 15 * 127 = 30480. Bytes: a w = |a| (sign(a) w), right for every w but
 * -128. */
#define ISA avx2
#define PANELS 1
#define TOKENS 4
#define NIBBLE_ADD(acc, w, a)                                                                                \
    _mm256_add_epi16((__m256i)(acc), _mm256_maddubs_epi16((__m256i)(w), (__m256i)(a)))
#define NIBBLE_END(acc) _mm256_madd_epi16((__m256i)(acc), _mm256_set1_epi16(1))
#define INT8_ADD(acc, w, a)                                                                                  \
    _mm256_add_epi32((__m256i)(acc),                                                                         \
                     _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)(a)),                   \
                                                            _mm256_sign_epi8((__m256i)(w), (__m256i)(a))),   \
                                       _mm256_set1_epi16(1)))
#define INT8_FLIP 0
#define INT8_SHIFT 0
#define ONE_NIBBLE_ADD NIBBLE_ADD
#define ONE_NIBBLE_END NIBBLE_END
#define ONE_INT8_ADD INT8_ADD
#include "kernels/x86/matmul.inc"
