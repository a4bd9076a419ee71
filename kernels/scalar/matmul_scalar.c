/* The reference of matrix x vector and matrix x matrix. */
#include "kernels/maths.h"
#include "kernels/unpack.h"
#include "kernels/variants.h"

#include <string.h>

/* Sum over one block of row r: k = 4c+i from low nibbles, k = 16+4c+i from high ones. */
static int32_t dot_nibble(const uint8_t *q, int r, const int8_t *a) {
    int32_t sum = 0;
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 4; i++) {
            uint8_t byte = q[c * 32 + r * 4 + i];
            sum += (byte & 15) * a[4 * c + i] + (byte >> 4) * a[16 + 4 * c + i];
        }
    return sum;
}

void nibl_gemv_nibble_scalar(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                             const nibl_act *a) {
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, w->has_min);
    for (uint32_t panel = begin; panel < end; panel++) {
        const uint8_t *block = nibl_panel(w, panel);
        float acc[NIBL_PANEL] = {0};
        for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++, block += unit) {
            const uint16_t *d = (const uint16_t *)(const void *)block;
            const uint8_t *q = block + (w->has_min ? 32 : 16);
            for (int r = 0; r < NIBL_PANEL; r++) {
                int32_t sum = dot_nibble(q, r, a[b].q) - (w->has_min ? 0 : 8 * a[b].sum);
                acc[r] += (float)sum * a[b].s * nibl_f16_to_f32(d[r]);
                if (w->has_min) acc[r] += nibl_f16_to_f32(d[8 + r]) * a[b].s_sum;
            }
        }
        memcpy(y + (size_t)panel * NIBL_PANEL, acc, sizeof acc);
    }
}

void nibl_gemv_int8_scalar(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end, const nibl_act *a) {
    for (uint32_t panel = begin; panel < end; panel++) {
        const nibl_int8_block *block = (const nibl_int8_block *)(const void *)nibl_panel(w, panel);
        float acc[NIBL_PANEL] = {0};
        for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++)
            for (int r = 0; r < NIBL_PANEL; r++) {
                int32_t sum = 0;
                for (int k = 0; k < NIBL_BLOCK; k++)
                    sum += block[b].q[k / 4 * 32 + r * 4 + k % 4] * a[b].q[k];
                acc[r] += (float)sum * a[b].s * nibl_f16_to_f32(block[b].d[r]);
            }
        memcpy(y + (size_t)panel * NIBL_PANEL, acc, sizeof acc);
    }
}

void nibl_gemm_nibble_scalar(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                             const nibl_act *a, uint32_t tokens, void *scratch) {
    (void)scratch;
    for (uint32_t t = 0; t < tokens; t++)
        nibl_gemv_nibble_scalar(y + t * stride, w, begin, end, a + (size_t)t * (w->cols / NIBL_BLOCK));
}

void nibl_gemm_int8_scalar(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                           const nibl_act *a, uint32_t tokens, void *scratch) {
    (void)scratch;
    for (uint32_t t = 0; t < tokens; t++)
        nibl_gemv_int8_scalar(y + t * stride, w, begin, end, a + (size_t)t * (w->cols / NIBL_BLOCK));
}

void nibl_matmul_float_scalar(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                              const float *x, size_t x_stride, uint32_t tokens) {
    for (uint32_t panel = begin; panel < end; panel++)
        for (uint32_t t = 0; t < tokens; t++) {
            float acc[NIBL_PANEL] = {0};
            for (uint32_t k = 0; k < w->cols; k++) {
                float column[NIBL_PANEL];
                nibl_unpack_column(column, w, panel, k);
                for (int r = 0; r < NIBL_PANEL; r++) acc[r] += column[r] * x[t * x_stride + k];
            }
            memcpy(y + t * stride + (size_t)panel * NIBL_PANEL, acc, sizeof acc);
        }
}
