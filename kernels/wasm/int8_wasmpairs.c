/* Pair sums of bytes would need widening one by one: int16 from the start is faster. */
#define ISA wasmpairs
#define INT8_ONLY
#define BYTES dot_bytes
#define BYTES_END(sum) wasm_i32x4_shr(sum, 8)
#include "kernels/wasm/gemm_int16.inc"
#include "kernels/wasm/gemv_int8.inc"
