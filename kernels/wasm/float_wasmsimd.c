#define ISA wasmsimd
#define W 4
#define OWN_WIDEN_F16
#include "kernels/float.inc"
#include "kernels/wasm/panel.h"

void nibl_widen_f16_wasmsimd(float *y, const uint16_t *x, uint32_t n) {
    const constants k = resident();
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v128_t h = wasm_v128_load(x + i);
        wasm_v128_store(y + i, widen(wasm_i32x4_extend_low_i16x8(h), &k));
        wasm_v128_store(y + i + 4, widen(wasm_i32x4_extend_high_i16x8(h), &k));
    }
    for (; i < n; i++) y[i] = nibl_f16_to_f32(x[i]);
}
