/* For x86 without AVX-VNNI, where the relaxed dot product is made of 16-bit pair sums: eight of them fit int16
 * (8 * 2 * 15 * 127 = 30480), so that one widening serves a whole block. */
#define ISA wasmpairs
#define NIBBLES_ONLY
#define ADD(acc, a, w) wasm_i16x8_add(acc, wasm_i16x8_relaxed_dot_i8x16_i7x16(a, w))
#define END(acc) wasm_i32x4_extadd_pairwise_i16x8(acc)
#define FIRST(a) pairs_first(a)
#include "kernels/wasm/panel.h"

/* In the 16-bit lanes of the products of columns 0 and 1, and of 2 and 3, of every four. */
INLINE int32_t pairs_first(const nibl_act *a) {
    v128_t x = wasm_i16x8_add(wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(a->q)),
                              wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(a->q + 16)));
    x = wasm_i16x8_add(x, wasm_i32x4_shuffle(x, x, 2, 3, 0, 1));
    x = wasm_i16x8_add(x, wasm_i32x4_shuffle(x, x, 1, 0, 3, 2));
    return wasm_i32x4_extract_lane(wasm_i16x8_neg(wasm_i16x8_shl(x, 3)), 0);
}

#include "kernels/wasm/nibble_relaxed.inc"
