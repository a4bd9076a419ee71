/* The relaxed dot product is exact with its second operand within 0..127; x86 without AVX-VNNI makes it of 16-bit pair
 * sums, and 2 * 127 * 127 = 32258 fits those. */
#define ISA wasmrelaxed
#define W 4
#include <wasm_simd128.h>

#define VMAX(a, b) (vf) wasm_f32x4_pmax((v128_t)(a), (v128_t)(b))
#define DOT(acc, u, s) ((vi)wasm_i32x4_relaxed_dot_i8x16_i7x16_add((v128_t)(s), (v128_t)(u), (v128_t)(acc)))
#include "kernels/attention.inc"
