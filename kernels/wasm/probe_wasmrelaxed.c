/* Operands out of range tell how the engine makes the relaxed dot product: saturated 16-bit pair sums give 65534, one
 * instruction of four products gives 129540 (x86) or -508 (ARM). */
#include "kernels/kernels.h"

#include <wasm_simd128.h>

bool nibl_wasm_pair_sums(void) {
    volatile int8_t operands[] = {127, -1, 0}; /* constants would be folded by the compiler */
    const v128_t a = wasm_i8x16_splat(operands[0]), w = wasm_i8x16_splat(operands[1]);
    const v128_t sum = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, wasm_i32x4_splat(operands[2]));
    return wasm_i32x4_extract_lane(sum, 0) == 2 * INT16_MAX;
}
