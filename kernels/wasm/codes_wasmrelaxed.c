/* The operand of 7 bits comes second: a w = (sign(a) w) |a|, right for every w but -128. */
#define ISA wasmrelaxed
#define DOT(acc, a, w) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, acc)
#define ADD_UNSIGNED(sum, w, x, k) DOT(sum, x, w)
#define END_UNSIGNED(sum) (sum)
#define ADD_SIGNED(sum, w, x, k)                                                                             \
    DOT(sum, wasm_i8x16_sub(wasm_v128_xor(w, wasm_i8x16_lt(x, (k)->zero)), wasm_i8x16_lt(x, (k)->zero)),     \
        wasm_i8x16_abs(x))
#define END_SIGNED END_UNSIGNED
#include "kernels/wasm/codes.inc"
