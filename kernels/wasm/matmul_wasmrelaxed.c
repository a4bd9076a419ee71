/* For engines that turn i32x4.relaxed_dot_i8x16_i7x16_add_s into one instruction: x86 with AVX-VNNI, ARM with dotprod. */
#define ISA wasmrelaxed
#define ADD(acc, a, w) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, acc)
#define END(acc) (acc)
#include "kernels/wasm/nibble_relaxed.inc"

/* a w = (sign(a) w) |a|: |a| is the operand of 7 bits; right for every w but -128. */
void nibl_gemv_int8_wasmrelaxed(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                                const nibl_act *a) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    for (uint32_t panel = begin; panel < end; panel++) {
        const nibl_int8_block *block = (const nibl_int8_block *)(const void *)nibl_panel(w, panel);
        v128_t acc[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
        for (uint32_t b = 0; b < blocks; b++, block++) {
            v128_t sum[1][2] = {{wasm_i32x4_const_splat(0), wasm_i32x4_const_splat(0)}};
            for (int c = 0; c < 8; c++) {
                const v128_t x = splat32(a[b].q + 4 * c), sign = wasm_i8x16_shr(x, 7),
                             size = wasm_i8x16_abs(x);
                for (int half = 0; half < 2; half++) {
                    const v128_t q = wasm_v128_load(block->q + 32 * c + 16 * half);
                    sum[0][half] = ADD(sum[0][half], wasm_i8x16_sub(wasm_v128_xor(q, sign), sign), size);
                }
            }
            finish_block(acc, sum, block->d, false, &a[b], blocks, 1);
        }
        wasm_v128_store(y + (size_t)panel * NIBL_PANEL, acc[0][0]);
        wasm_v128_store(y + (size_t)panel * NIBL_PANEL + 4, acc[0][1]);
    }
}
