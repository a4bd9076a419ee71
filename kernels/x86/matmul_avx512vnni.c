#define ISA avx512vnni
#define PANELS 2
#define TOKENS 8
#define NIBBLE_ADD(acc, w, a) _mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(w), (__m512i)(a))
#define NIBBLE_END(acc) (acc)
#define INT8_ADD NIBBLE_ADD
#define INT8_FLIP (-128) /* w + 128, without a sign */
#define INT8_SHIFT 7
#define ONE_NIBBLE_ADD(acc, w, a) _mm256_dpbusd_epi32(acc, w, a)
#define ONE_NIBBLE_END(acc) (acc)
#define ONE_INT8_ADD ONE_NIBBLE_ADD
#include "kernels/x86/matmul.inc"
