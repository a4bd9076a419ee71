/* Pieces that the WebAssembly matrix products share. A panel's block is read as two halves: rows 0..3 and 4..7. */
#ifndef NIBL_WASM_PANEL_H
#define NIBL_WASM_PANEL_H

#include "kernels/variants.h"

#include <wasm_simd128.h>

#define INLINE static inline __attribute__((always_inline))

enum { TOKENS = 4 }; /* of a tile: its 8 sums, two weights and an activation fill the 16 registers of x86 */

/* Four f16, sign-extended to 32 bits, to f32 (there is no instruction): exponent and mantissa move into place, the sign
 * is there already, and 2^112 corrects the exponent's bias. */
INLINE v128_t widen(v128_t h) {
    const v128_t moved = wasm_v128_and(wasm_i32x4_shl(h, 13), wasm_i32x4_const_splat((int32_t)0x8FFFE000));
    return wasm_f32x4_mul(moved, wasm_f32x4_const_splat(0x1p112f));
}

INLINE v128_t halves(const uint16_t *p) { return widen(wasm_i32x4_load16x4(p)); }

/* acc + (float)isum * s * d */
INLINE v128_t scaled(v128_t acc, v128_t isum, v128_t s, v128_t d) {
    return wasm_f32x4_add(acc, wasm_f32x4_mul(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(isum), s), d));
}

INLINE v128_t splat32(const void *p) { return wasm_v128_load32_splat(p); }

/* The ends of a block for n tokens: scales, and minimums where there are any. */
INLINE void finish_block(v128_t acc[][2], v128_t isum[][2], const uint16_t *scale, bool has_min,
                         const nibl_act *a, uint32_t blocks, uint32_t n) {
    for (int half = 0; half < 2; half++) {
        const v128_t d = halves(scale + 4 * half);
        for (uint32_t t = 0; t < n; t++)
            acc[t][half] = scaled(acc[t][half], isum[t][half], splat32(&a[t * blocks].s), d);
    }
    for (int half = 0; half < 2 && has_min; half++) {
        const v128_t m = halves(scale + 8 + 4 * half);
        for (uint32_t t = 0; t < n; t++)
            acc[t][half] = wasm_f32x4_add(acc[t][half], wasm_f32x4_mul(m, splat32(&a[t * blocks].s_sum)));
    }
}

#endif
