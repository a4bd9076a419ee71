/* Words 2 c and 2 c + 1: the even and the odd two of columns 4 c to 4 c + 3, as int16. Products are made 256 times too
 * large, as in dot_bytes. */
#include "kernels/wasm/panel.h"

#define ISA wasmsimd
#define WORDS 16
#define FOUR 127

INLINE void words_of(int32_t *out, const int8_t *q) {
    for (int half = 0; half < 2; half++, q += 16, out += 8) {
        const v128_t x = wasm_v128_load(q), a0 = even(x), a1 = odd(x);
        wasm_v128_store(out, wasm_i32x4_shuffle(a0, a1, 0, 4, 1, 5));
        wasm_v128_store(out + 4, wasm_i32x4_shuffle(a0, a1, 2, 6, 3, 7));
    }
}

#define ADD(sum, w, x, c, k)                                                                                 \
    dot(dot(sum, wasm_i16x8_shl(w, 8), splat32((x) + 2 * (c))), wasm_v128_and(w, (k)->high),                 \
        splat32((x) + 2 * (c) + 1))
#define END(sum) wasm_i32x4_shr(sum, 8)
#define ADD_SIGNED ADD
#define END_SIGNED END
#include "kernels/wasm/codes.inc"
