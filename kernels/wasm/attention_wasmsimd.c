/* Even and odd bytes as 16-bit lanes; where a quad is shared by all lanes the compiler widens it once. */
#define ISA wasmsimd
#define W 4
#include <wasm_simd128.h>

static inline v128_t even(v128_t x) { return wasm_i16x8_shr(wasm_i16x8_shl(x, 8), 8); }
static inline v128_t odd(v128_t x) { return wasm_i16x8_shr(x, 8); }
static inline v128_t dot(v128_t acc, v128_t u, v128_t s) {
    return wasm_i32x4_add(wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(even(u), even(s))),
                          wasm_i32x4_dot_i16x8(odd(u), odd(s)));
}

#define VMAX(a, b) (vf) wasm_f32x4_pmax((v128_t)(a), (v128_t)(b))
#define DOT(acc, u, s) ((vi)dot((v128_t)(acc), (v128_t)(u), (v128_t)(s)))
#include "kernels/attention.inc"
