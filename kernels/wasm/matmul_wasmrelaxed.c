/* For engines that turn i32x4.relaxed_dot_i8x16_i7x16_add_s into one instruction: x86 with AVX-VNNI, ARM with dotprod. */
#define ISA wasmrelaxed
#define ADD(acc, a, w) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, acc)
#define END(acc) (acc)
#define FIRST(a) (-8 * (a)->sum)
#include "kernels/wasm/panel.h"

#define ADD_FLIPPED(acc, a, w) ADD(acc, w, a)
#define FIRST_FLIPPED(a) negative_sum(a)
INLINE void flipped_steps(v128_t out[2], const nibl_act *a) {
    for (int i = 0; i < 2; i++) out[i] = wasm_i8x16_abs(wasm_v128_load(a->q + 16 * i));
}
INLINE void flips(v128_t out[2], const nibl_act *a) {
    for (int i = 0; i < 2; i++) out[i] = wasm_i8x16_shr(wasm_v128_load(a->q + 16 * i), 7);
}
/* -(sum of the activations below zero) */
INLINE int32_t negative_sum(const nibl_act *a) {
    int32_t sum = 0;
    for (int i = 0; i < NIBL_BLOCK; i++) sum -= a->q[i] < 0 ? a->q[i] : 0;
    return sum;
}

#include "kernels/wasm/nibble_relaxed.inc"

/* a w = (sign(a) w) |a|: |a| is the operand of 7 bits; right for every w but -128. */
INLINE v128_t dot_signed(v128_t acc, v128_t w, v128_t x, const constants *k) {
    const v128_t sign = wasm_i8x16_lt(x, k->zero);
    return ADD(acc, wasm_i8x16_sub(wasm_v128_xor(w, sign), sign), wasm_i8x16_abs(x));
}
#define BYTES dot_signed
#define BYTES_END END
#include "kernels/wasm/gemv_int8.inc"
