/* Where the relaxed dot product is made of 16-bit pair sums: 2 * 127 * 127 = 32258 fits those. V8 would make the ones that
 * widen them anew for every product. */
#define ISA wasmpairs
#define W 4
#include "kernels/wasm/panel.h"

#define VMAX(a, b) (vf) wasm_f32x4_pmax((v128_t)(a), (v128_t)(b))
#define DOT_NEEDS const v128_t ones = resident().ones;
#define DOT(acc, u, s)                                                                                       \
    ((acc) + (vi)wasm_i32x4_dot_i16x8(wasm_i16x8_relaxed_dot_i8x16_i7x16((v128_t)(s), (v128_t)(u)), ones))
#include "kernels/attention.inc"
