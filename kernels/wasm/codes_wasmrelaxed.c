/* The operand of 7 bits, the code, comes second. */
#define ISA wasmrelaxed
#define ADD(sum, w, x, c, k) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(splat32((x) + (c)), w, sum)
#define END(sum) (sum)
#define FOUR 127
#include "kernels/wasm/codes_relaxed.inc"
