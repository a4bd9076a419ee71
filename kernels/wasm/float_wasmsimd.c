#define ISA wasmsimd
#define W 4
#define OWN_WIDEN_F16
#include "kernels/float.inc"
#include "kernels/wasm/panel.h"

void nibl_widen_f16_wasmsimd(float *y, const uint16_t *x, uint32_t n) {
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) wasm_v128_store(y + i, halves(x + i));
    for (; i < n; i++) y[i] = nibl_f16_to_f32(x[i]);
}
