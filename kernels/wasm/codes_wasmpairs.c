/* Where the relaxed dot product is made of 16-bit pair sums: those of four vectors of codes fit int16 up to codes of 31
 * (4 * 2 * 31 * 127 = 31496), of two up to 63. Nothing saturates; clang keeps the order of what could. */
#define ISA wasmpairs
#define ADD(sum, w, x, c, k)                                                                                 \
    wasm_i16x8_add_sat(sum, wasm_i16x8_relaxed_dot_i8x16_i7x16(splat32((x) + (c)), w))
#define END(sum) wasm_i32x4_extadd_pairwise_i16x8(sum)
#define FOUR 31
#include "kernels/wasm/codes_relaxed.inc"
