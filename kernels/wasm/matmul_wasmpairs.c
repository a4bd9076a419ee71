/* For x86 without AVX-VNNI, where the relaxed dot product is made of 16-bit pair sums: eight of them fit int16
 * (8 * 2 * 15 * 127 = 30480), so that one widening serves a whole block. */
#define ISA wasmpairs
#define ADD(acc, a, w) wasm_i16x8_add(acc, wasm_i16x8_relaxed_dot_i8x16_i7x16(a, w))
#define END(acc) wasm_i32x4_extadd_pairwise_i16x8(acc)
#include "kernels/wasm/nibble_relaxed.inc"

/* Pair sums of bytes would need widening one by one. */
#define BYTES dot_bytes
#define BYTES_END(sum) wasm_i32x4_shr(sum, 8)
#include "kernels/wasm/gemv_int8.inc"
