/* Pieces that the WebAssembly matrix products share. A panel's block is read as two halves: rows 0..3 and 4..7. */
#ifndef NIBL_WASM_PANEL_H
#define NIBL_WASM_PANEL_H

#include "kernels/variants.h"

#include <wasm_simd128.h>

#define INLINE static inline __attribute__((always_inline))

enum { TOKENS = 4 }; /* of a tile: its 8 sums, two weights and an activation fill the 16 registers of x86 */

/* What keeps V8's registers and instructions few, as its code shows (--print-wasm-code): it makes a constant that it sees
 * anew at every use, in three instructions, so constants come from memory; and loops over the chunks of a block stay
 * loops, for clang orders an unrolled one by sums instead of by loads, which keeps all activations alive: they spill. */
typedef struct constants {
    v128_t low; /* bytes: 15 */
    v128_t high; /* 16-bit lanes: the upper byte */
    v128_t zero;
    v128_t moved; /* sign, exponent and mantissa of an f16 moved into place */
    v128_t bias; /* 2^112 */
    v128_t ones; /* 16-bit lanes */
} constants;

INLINE constants resident(void) {
    static const uint32_t values[6] = {0x0F0F0F0F, 0xFF00FF00, 0, 0x8FFFE000, 0x77800000, 0x10001};
    const uint32_t *p = values;
    __asm__ volatile("" : "+r"(p)); /* clang does not know what is there, and loads it here */
    return (constants){wasm_v128_load32_splat(p),     wasm_v128_load32_splat(p + 1),
                       wasm_v128_load32_splat(p + 2), wasm_v128_load32_splat(p + 3),
                       wasm_v128_load32_splat(p + 4), wasm_v128_load32_splat(p + 5)};
}

/* Four f16, sign-extended to 32 bits, to f32 (there is no instruction): exponent and mantissa move into place, the sign
 * is there already, and 2^112 corrects the exponent's bias. */
INLINE v128_t widen(v128_t h, const constants *c) {
    return wasm_f32x4_mul(wasm_v128_and(wasm_i32x4_shl(h, 13), c->moved), c->bias);
}

INLINE v128_t halves(const uint16_t *p, const constants *c) { return widen(wasm_i32x4_load16x4(p), c); }

/* acc + (float)isum * s * d */
INLINE v128_t scaled(v128_t acc, v128_t isum, v128_t s, v128_t d) {
    return wasm_f32x4_add(acc, wasm_f32x4_mul(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(isum), s), d));
}

/* Signed bytes 0 and 2 of every 32-bit lane, bytes 1 and 3, as 16-bit lanes. */
INLINE v128_t even(v128_t x) { return wasm_i16x8_shr(wasm_i16x8_shl(x, 8), 8); }
INLINE v128_t odd(v128_t x) { return wasm_i16x8_shr(x, 8); }

INLINE v128_t dot(v128_t acc, v128_t w, v128_t a) { return wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(w, a)); }

/* acc + 256 times the products of signed bytes: the weights stay in the upper halves of 16-bit lanes, an instruction less
 * each. A block's sum is below 2^27. */
INLINE v128_t dot_bytes(v128_t acc, v128_t w, v128_t x, const constants *k) {
    return dot(dot(acc, wasm_i16x8_shl(w, 8), even(x)), wasm_v128_and(w, k->high), odd(x));
}

INLINE v128_t splat32(const void *p) { return wasm_v128_load32_splat(p); }

/* What symmetric nibbles count too much, in every lane; from memory, for a splat of a number costs three instructions. */
INLINE v128_t excess(const nibl_act *a) { return wasm_i32x4_shl(splat32(&a->sum), 3); }

/* The ends of a block for n tokens: scales, and minimums where there are any. */
INLINE void finish_block(v128_t acc[][2], v128_t isum[][2], const uint16_t *scale, bool has_min,
                         const nibl_act *a, uint32_t blocks, uint32_t n, const constants *c) {
    for (int half = 0; half < 2; half++) {
        const v128_t d = halves(scale + 4 * half, c);
        for (uint32_t t = 0; t < n; t++)
            acc[t][half] = scaled(acc[t][half], isum[t][half], splat32(&a[t * blocks].s), d);
    }
    for (int half = 0; half < 2 && has_min; half++) {
        const v128_t m = halves(scale + 8 + 4 * half, c);
        for (uint32_t t = 0; t < n; t++)
            acc[t][half] = wasm_f32x4_add(acc[t][half], wasm_f32x4_mul(m, splat32(&a[t * blocks].s_sum)));
    }
}

#endif
