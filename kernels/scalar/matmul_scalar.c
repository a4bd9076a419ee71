/* The reference of matrix x vector and matrix x matrix. */
#include "kernels/maths.h"
#include "kernels/unpack.h"
#include "kernels/variants.h"

#include <string.h>

/* Sums of the 8 rows over `chunks` chunks of 32 bytes: byte 4 r + i of chunk c meets activation 4 c + i. The weight is
 * (byte >> shift) & mask; with zero = 128 a signed byte. Written over contiguous 16-bit lanes, so that compilers vectorise even this. */
static inline void dot_chunks(int32_t sum[NIBL_PANEL], const uint8_t *q, int chunks, const int8_t *a,
                              int shift, int mask, int zero) {
    int32_t part[4 * NIBL_PANEL] = {0};
    for (int c = 0; c < chunks; c++) {
        int16_t x[4 * NIBL_PANEL];
        for (int r = 0; r < NIBL_PANEL; r++)
            for (int i = 0; i < 4; i++) x[4 * r + i] = a[4 * c + i];
        for (int j = 0; j < 4 * NIBL_PANEL; j++) {
            const int16_t w = (int16_t)(((q[32 * c + j] ^ zero) >> shift & mask) - zero);
            part[j] += (int16_t)(w * x[j]); /* at most 128 * 127 */
        }
    }
    for (int r = 0; r < NIBL_PANEL; r++)
        sum[r] += part[4 * r] + part[4 * r + 1] + part[4 * r + 2] + part[4 * r + 3];
}

void nibl_gemv_nibble_scalar(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end,
                             const nibl_act *a) {
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, (nibl_scale)w->scale);
    const bool has_min = w->scale == NIBL_SCALE_F16_MIN;
    for (uint32_t panel = begin; panel < end; panel++) {
        const uint8_t *block = nibl_panel(w, panel);
        float acc[NIBL_PANEL] = {0};
        for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++, block += unit) {
            const uint16_t *d = (const uint16_t *)(const void *)block;
            const uint8_t *q = block + (has_min ? 32 : 16);
            int32_t sum[NIBL_PANEL] = {0};
            dot_chunks(sum, q, 4, a[b].q, 0, 15, 0);
            dot_chunks(sum, q, 4, a[b].q + 16, 4, 15, 0);
            for (int r = 0; r < NIBL_PANEL; r++) {
                if (!has_min) sum[r] -= 8 * a[b].sum;
                acc[r] += (float)sum[r] * a[b].s * nibl_f16_to_f32(d[r]);
                if (has_min) acc[r] += nibl_f16_to_f32(d[8 + r]) * a[b].s_sum;
            }
        }
        memcpy(y + (size_t)panel * NIBL_PANEL, acc, sizeof acc);
    }
}

void nibl_gemv_int8_scalar(float *y, const nibl_matrix *w, uint32_t begin, uint32_t end, const nibl_act *a) {
    for (uint32_t panel = begin; panel < end; panel++) {
        const nibl_int8_block *block = (const nibl_int8_block *)(const void *)nibl_panel(w, panel);
        float acc[NIBL_PANEL] = {0};
        for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++) {
            int32_t sum[NIBL_PANEL] = {0};
            dot_chunks(sum, (const uint8_t *)block[b].q, 8, a[b].q, 0, 255, 128);
            for (int r = 0; r < NIBL_PANEL; r++)
                acc[r] += (float)sum[r] * a[b].s * nibl_f16_to_f32(block[b].d[r]);
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

/* As the contract says it, one code at a time. */
static float block_times(const nibl_matrix *w, const uint8_t *panel, uint32_t b, uint32_t r,
                         const nibl_act *a, float acc) {
    const nibl_scale scale = (nibl_scale)w->scale;
    const nibl_scale_form form = nibl_scale_form_of(scale);
    const uint8_t *codes = panel + nibl_block_offset(w, b) + nibl_scale_bytes(scale);
    const uint32_t width = form.halves ? NIBL_BLOCK / 2 : NIBL_BLOCK;
    for (uint32_t first = 0; first < NIBL_BLOCK; first += width) {
        const nibl_row_scale s = nibl_row_scale_of(w, panel, b, r, first / 16);
        int32_t isum = 0, sum = 0;
        for (uint32_t j = first; j < first + width; j++) {
            isum += (nibl_code((nibl_kind)w->kind, codes, r, j) - s.zero) * a->q[j];
            sum += a->q[j];
        }
        acc += (float)isum * a->s * s.d;
        if (form.min) acc += s.m * ((float)sum * a->s);
    }
    return acc;
}

void nibl_matmul_codes_scalar(float *y, size_t stride, const nibl_matrix *w, uint32_t begin, uint32_t end,
                              const nibl_act *a, uint32_t tokens) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    for (uint32_t panel = begin; panel < end; panel++)
        for (uint32_t t = 0; t < tokens; t++)
            for (uint32_t r = 0; r < NIBL_PANEL; r++) {
                float acc = 0.0f;
                for (uint32_t b = 0; b < blocks; b++)
                    acc = block_times(w, nibl_panel(w, panel), b, r, &a[(size_t)t * blocks + b], acc);
                y[t * stride + (size_t)panel * NIBL_PANEL + r] = acc;
            }
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
