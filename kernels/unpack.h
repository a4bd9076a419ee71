/* Codes, scales and exact floats out of the packed layout, one at a time: references, embedding rows, exact path. */
#ifndef NIBL_UNPACK_H
#define NIBL_UNPACK_H

#include "kernels/blocks.h"
#include "kernels/maths.h"

/* What the nibbles of the two table kinds stand for. */
static const int8_t nibl_table_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t nibl_table_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static inline float nibl_e8m0_half(uint8_t e) {
    return nibl_bits_float(e < 2 ? 0x200000u << e : (e - 1u) << 23);
}

static inline float nibl_ue4m3_half(uint8_t e) { return nibl_bits_float((e & 127u) << 20) * 0x1p119f; }

/* Of byte `at` of vector c of codes of `bits` bits in chunks of `width` bytes. */
static inline int nibl_packed_bits(int bits, const uint8_t *p, size_t width, uint32_t at, uint32_t c) {
    int code = 0;
    for (int i = 0; i < 3; i++) {
        const nibl_piece piece = nibl_piece_of(bits, (int)c, i);
        if (piece.bits == 0) break;
        code |= (p[piece.chunk * width + at] >> piece.from & ((1 << piece.bits) - 1)) << piece.to;
    }
    return code;
}

/* Code j of row r as the kind means it, its zero not yet subtracted. `p`: the codes of a block. */
static inline int nibl_code(nibl_kind kind, const uint8_t *p, uint32_t r, uint32_t j) {
    const int code = nibl_packed_bits(nibl_code_bits(kind), p, 32, r * 4 + j % 4, j / 4);
    switch (kind) {
    case NIBL_KIND_INT8: return (int8_t)code;
    case NIBL_KIND_IQ4: return nibl_table_iq4[code];
    case NIBL_KIND_E2M1: return nibl_table_e2m1[code];
    default: return code;
    }
}

typedef struct nibl_row_scale {
    float d, m;
    int zero;
} nibl_row_scale;

/* Of row r of block b of a panel; `half`: of columns 16 half to 16 half + 15. */
static inline nibl_row_scale nibl_row_scale_of(const nibl_matrix *w, const uint8_t *panel, uint32_t b,
                                               uint32_t r, uint32_t half) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const nibl_scale scale = (nibl_scale)w->scale;
    const nibl_scale_form form = nibl_scale_form_of(scale);
    const uint8_t *p = panel + nibl_block_offset(w, b);
    const uint8_t *head = panel + nibl_block_offset(w, b / 8 * 8) - nibl_head_bytes(scale);
    const uint8_t *bits16 = form.head ? head : p;
    uint8_t first = p[r], second = p[8 + r];
    if (form.six) {
        const uint8_t *fields = head + 16 * form.head;
        first = (uint8_t)nibl_packed_bits(6, fields, NIBL_PANEL * form.six, r, b % 8);
        if (form.six > 1) second = (uint8_t)nibl_packed_bits(6, fields, NIBL_PANEL * form.six, 8 + r, b % 8);
    }
    const uint16_t x = ((const uint16_t *)(const void *)bits16)[r],
                   y = ((const uint16_t *)(const void *)bits16)[8 + r];
    nibl_row_scale s = {0.0f, 0.0f, nibl_code_zero(kind, scale)};
    switch (scale) {
    case NIBL_SCALE_F16_MIN: s.m = nibl_f16_to_f32(y); /* fall through */
    case NIBL_SCALE_F16:
    case NIBL_SCALE_SUPER: s.d = nibl_f16_to_f32(x); break;
    case NIBL_SCALE_F16_ZERO:
        s.d = nibl_f16_to_f32(x);
        s.zero = (int8_t)p[16 + r];
        break;
    case NIBL_SCALE_BF16: s.d = nibl_bf16_to_f32(x); break;
    case NIBL_SCALE_BF16_ZERO:
        s.d = nibl_bf16_to_f32(x);
        s.zero = (int8_t)p[16 + r];
        break;
    case NIBL_SCALE_F32: s.d = ((const float *)(const void *)p)[r]; break;
    case NIBL_SCALE_E8M0: s.d = nibl_e8m0_half(first); break;
    case NIBL_SCALE_UE4M3_16: s.d = nibl_ue4m3_half(half ? second : first) * w->factor; break;
    case NIBL_SCALE_SUPER_I6:
    case NIBL_SCALE_SUPER_I6_16:
        s.d = nibl_f16_to_f32(x) * (float)((half && form.halves ? second : first) - 32);
        break;
    case NIBL_SCALE_SUPER_U6_MIN:
        s.d = nibl_f16_to_f32(x) * (float)first;
        s.m = -(nibl_f16_to_f32(y) * (float)second);
        break;
    case NIBL_SCALE_SUPER_I8_16: s.d = nibl_f16_to_f32(x) * (float)(int8_t)(half ? second : first); break;
    case NIBL_SCALE_SUPER_U4_MIN_16: {
        const uint8_t both = half ? second : first;
        s.d = nibl_f16_to_f32(x) * (float)(both & 15);
        s.m = -(nibl_f16_to_f32(y) * (float)(both >> 4));
        break;
    }
    case NIBL_SCALE_COUNT: break;
    }
    return s;
}

/* out[8] = column k of the panel's rows. */
static inline void nibl_unpack_column(float *out, const nibl_matrix *w, uint32_t panel, uint32_t k) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const uint8_t *p = nibl_panel(w, panel);
    if (nibl_kind_is_float(kind)) {
        p += nibl_panel_unit(kind, NIBL_SCALE_F16) * k;
        const uint16_t *half = (const uint16_t *)(const void *)p;
        for (uint32_t r = 0; r < NIBL_PANEL; r++)
            out[r] = kind == NIBL_KIND_F32   ? ((const float *)(const void *)p)[r]
                     : kind == NIBL_KIND_F16 ? nibl_f16_to_f32(half[r])
                                             : nibl_bf16_to_f32(half[r]);
        return;
    }
    const nibl_scale scale = (nibl_scale)w->scale;
    const bool min = nibl_scale_form_of(scale).min;
    const uint32_t b = k / NIBL_BLOCK, j = k % NIBL_BLOCK;
    const uint8_t *codes = p + nibl_block_offset(w, b) + nibl_scale_bytes(scale);
    for (uint32_t r = 0; r < NIBL_PANEL; r++) {
        const nibl_row_scale s = nibl_row_scale_of(w, p, b, r, j / 16);
        out[r] = (float)(nibl_code(kind, codes, r, j) - s.zero) * s.d;
        if (min) out[r] += s.m;
    }
}

#endif
