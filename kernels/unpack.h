/* Exact floats out of the packed layout, one column of a panel at a time: references, embedding rows, exact path. */
#ifndef NIBL_UNPACK_H
#define NIBL_UNPACK_H

#include "kernels/blocks.h"
#include "kernels/maths.h"

/* out[8] = column k of the panel's rows. */
static inline void nibl_unpack_column(float *out, const nibl_matrix *w, uint32_t panel, uint32_t k) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const size_t unit = nibl_panel_unit(kind, w->has_min);
    const uint8_t *p = nibl_panel(w, panel) + unit * (nibl_kind_is_float(kind) ? k : k / NIBL_BLOCK);
    const uint16_t *half = (const uint16_t *)(const void *)p;
    const uint32_t j = k % NIBL_BLOCK;
    for (uint32_t r = 0; r < NIBL_PANEL; r++) switch (kind) {
        case NIBL_KIND_F32: out[r] = ((const float *)(const void *)p)[r]; break;
        case NIBL_KIND_F16: out[r] = nibl_f16_to_f32(half[r]); break;
        case NIBL_KIND_BF16: out[r] = nibl_bf16_to_f32(half[r]); break;
        case NIBL_KIND_NIBBLE: {
            uint8_t byte = p[(w->has_min ? 32 : 16) + j % 16 / 4 * 32 + r * 4 + j % 4];
            int q = j < 16 ? byte & 15 : byte >> 4;
            float d = nibl_f16_to_f32(half[r]);
            out[r] = w->has_min ? (float)q * d + nibl_f16_to_f32(half[8 + r]) : (float)(q - 8) * d;
            break;
        }
        case NIBL_KIND_INT8: {
            int8_t q = (int8_t)p[16 + j / 4 * 32 + r * 4 + j % 4];
            out[r] = (float)q * nibl_f16_to_f32(half[r]);
            break;
        }
        }
}

#endif
