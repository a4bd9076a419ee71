#define ISA wasmsimd
#define ADD_SIGNED dot_bytes
#define END_SIGNED(sum) wasm_i32x4_shr(sum, 8)
#define ADD_UNSIGNED dot_bytes
#define END_UNSIGNED END_SIGNED
#include "kernels/wasm/codes.inc"
