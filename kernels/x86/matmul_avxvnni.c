#define ISA avxvnni
#define PANELS 1
#define TOKENS 4
#define NIBBLE_ADD(acc, w, a) _mm256_dpbusd_avx_epi32((__m256i)(acc), (__m256i)(w), (__m256i)(a))
#define NIBBLE_END(acc) (acc)
#define INT8_ADD NIBBLE_ADD
#define INT8_FLIP (-128) /* w + 128, without a sign */
#define INT8_SHIFT 7
#define ONE_NIBBLE_ADD NIBBLE_ADD
#define ONE_NIBBLE_END NIBBLE_END
#define ONE_INT8_ADD NIBBLE_ADD
#include "kernels/x86/matmul.inc"
