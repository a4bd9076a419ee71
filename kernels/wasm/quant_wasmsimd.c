#include <wasm_simd128.h>

#define ISA wasmsimd
#define W 4
#define VMAX(a, b) (vf) wasm_f32x4_pmax((v128_t)(a), (v128_t)(b))
#define VMIN(a, b) (vf) wasm_f32x4_pmin((v128_t)(a), (v128_t)(b))
#include "kernels/quant.inc"
