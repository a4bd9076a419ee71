/* Rows of a file into panels and back (layout: blocks.h). */
#include "kernels/scalar/file_blocks.h"
#include "kernels/unpack.h"
#include "kernels/variants.h"

#include <string.h>

static bool f16_finite(uint16_t h) { return (h & 0x7C00) != 0x7C00; }

static uint32_t load_u32(const uint8_t *p) {
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

static void store_u32(uint8_t *p, uint32_t x) { memcpy(p, &x, 4); }

/* Bounds and results stand in local variables: stores through byte pointers could change anything else. */
static void pack_nibble(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    const nibl_scale mode = (nibl_scale)w->scale;
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, mode), head = nibl_scale_bytes(mode);
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    uint8_t *scale = nibl_panel(w, row / NIBL_PANEL) + row % NIBL_PANEL * 2;
    uint8_t *q = nibl_panel(w, row / NIBL_PANEL) + head + row % NIBL_PANEL * 4;
    bool ok = true;
    for (uint32_t b = 0; b < blocks; b++, scale += unit, q += unit) {
        for (size_t s = 0; s < head; s += 16, bytes += 2) {
            uint16_t half;
            memcpy(&half, bytes, 2);
            ok &= f16_finite(half);
            memcpy(scale + s, &half, 2);
        }
        for (int c = 0; c < 4; c++, bytes += 4) store_u32(q + c * 32, load_u32(bytes));
    }
    *finite = *finite && ok;
}

static void pack_int8(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    uint8_t *block = nibl_panel(w, row / NIBL_PANEL) + row % NIBL_PANEL * 2;
    uint8_t *q = nibl_panel(w, row / NIBL_PANEL) + offsetof(nibl_int8_block, q) + row % NIBL_PANEL * 4;
    uint32_t m128 = 0;
    bool ok = true;
    for (uint32_t b = 0; b < blocks; b++, block += sizeof(nibl_int8_block), q += sizeof(nibl_int8_block)) {
        uint16_t half;
        memcpy(&half, bytes, 2);
        ok &= f16_finite(half);
        memcpy(block, &half, 2);
        bytes += 2;
        for (int c = 0; c < 8; c++, bytes += 4) {
            const uint32_t x = load_u32(bytes), zero_if_m128 = x ^ 0x80808080u;
            m128 |= (zero_if_m128 - 0x01010101u) & ~zero_if_m128 & 0x80808080u; /* a byte of it is zero */
            store_u32(q + c * 32, x);
        }
    }
    *finite = *finite && ok;
    w->has_m128 = w->has_m128 || m128;
}

static void pack_float(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    const size_t width = w->kind == NIBL_KIND_F32 ? 4 : 2;
    const int exponent =
        w->kind == NIBL_KIND_F16 ? 0x7C : 0x7F; /* of the highest byte, bits of the exponent there */
    uint8_t *out = nibl_panel(w, row / NIBL_PANEL) + row % NIBL_PANEL * width;
    for (uint32_t k = 0; k < w->cols; k++, bytes += width, out += NIBL_PANEL * width) {
        memcpy(out, bytes, width);
        bool special = (bytes[width - 1] & exponent) == exponent;
        if (w->kind != NIBL_KIND_F16) special = special && bytes[width - 2] & 0x80;
        if (special) *finite = false;
    }
}

/* `bytes` of one row, at byte `at` of vector c of codes in chunks of `width`, over whatever stands there. */
static void put_bits(uint8_t *p, size_t width, size_t at, int bits, int c, const uint8_t *codes, int bytes) {
    for (int i = 0; i < 3; i++) {
        const nibl_piece piece = nibl_piece_of(bits, c, i);
        const int mask = ((1 << piece.bits) - 1) << piece.from;
        uint8_t *to = p + piece.chunk * width + at;
        if (piece.bits == 0) return;
        for (int j = 0; j < bytes; j++)
            to[j] = (uint8_t)((to[j] & ~mask) | ((codes[j] >> piece.to) << piece.from & mask));
    }
}

/* A field of one row into its array over the rows. Returns the end of the array. */
static uint8_t *put_field(uint8_t *p, uint32_t row, const uint8_t *field, size_t width) {
    memcpy(p + row * width, field, width);
    return p + NIBL_PANEL * width;
}

/* Scale modes that hold numbers which may not be finite; the f16 ones of a head are checked where they are read. */
static bool fields_finite(nibl_scale scale, const uint8_t *fields) {
    uint32_t bits = 0;
    memcpy(&bits, fields, scale == NIBL_SCALE_F32 ? 4 : 2);
    switch (scale) {
    case NIBL_SCALE_F16:
    case NIBL_SCALE_F16_ZERO: return f16_finite((uint16_t)bits);
    case NIBL_SCALE_F16_MIN:
        return f16_finite((uint16_t)bits) && f16_finite((uint16_t)(fields[2] | fields[3] << 8));
    case NIBL_SCALE_BF16:
    case NIBL_SCALE_BF16_ZERO: return (bits & 0x7F80) != 0x7F80;
    case NIBL_SCALE_F32: return (bits & 0x7F800000) != 0x7F800000;
    case NIBL_SCALE_E8M0: return fields[0] <= 252; /* 6 times 2^126 is infinite, 255 stands for NaN */
    default: return true;
    }
}

/* `count` blocks of 32, taken apart, to place. */
static bool put_blocks(nibl_matrix *w, uint32_t row, uint32_t b, uint32_t count, const nibl_file_block *x) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const nibl_scale scale = (nibl_scale)w->scale;
    const nibl_scale_form form = nibl_scale_form_of(scale);
    const uint32_t r = row % NIBL_PANEL;
    const int bits = nibl_code_bits(kind);
    uint8_t *panel = nibl_panel(w, row / NIBL_PANEL),
            *head = panel + nibl_block_offset(w, b) - nibl_head_bytes(scale);
    bool ok = true;
    for (int i = 0; i < form.head; i++) {
        head = put_field(head, r, x->head + 2 * i, 2);
        ok = ok && f16_finite((uint16_t)(x->head[2 * i] | x->head[2 * i + 1] << 8));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *p = panel + nibl_block_offset(w, b + i);
        for (int f = 0; f < form.six; f++)
            put_bits(head, NIBL_PANEL * form.six, NIBL_PANEL * (size_t)f + r, 6, (int)i, x->fields[i] + f, 1);
        p = put_field(p, r, x->fields[i], form.field[0]);
        p = put_field(p, r, x->fields[i] + form.field[0], form.field[1]);
        ok = fields_finite(scale, x->fields[i]) && ok;
        for (int c = 0; c < 8; c++) put_bits(p, 32, 4 * r, bits, c, x->codes + NIBL_BLOCK * i + 4 * c, 4);
    }
    return ok;
}

/* A block of 32 in the layouts that know no larger ones. Returns what follows it. */
static const uint8_t *read_block32(const nibl_matrix *w, nibl_file_block *x, uint32_t i,
                                   const uint8_t *bytes) {
    const nibl_scale_form form = nibl_scale_form_of((nibl_scale)w->scale);
    const size_t fields = (size_t)form.field[0] + form.field[1] + form.six;
    uint8_t *codes = x->codes + NIBL_BLOCK * i;
    memcpy(x->fields[i], bytes, fields);
    bytes += fields;
    if (w->layout == NIBL_LAYOUT_PLAIN || w->kind == NIBL_KIND_INT8) {
        memcpy(codes, bytes, NIBL_BLOCK);
        return bytes + NIBL_BLOCK;
    }
    const uint32_t fifth = w->kind == NIBL_KIND_BITS5 ? load_u32(bytes) : 0;
    if (w->kind == NIBL_KIND_BITS5) bytes += 4;
    take_split(codes, bytes, 16);
    for (int j = 0; j < NIBL_BLOCK; j++) codes[j] = (uint8_t)(codes[j] | (fifth >> j & 1) << 4);
    return bytes + 16;
}

static void pack_blocks(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    static const struct {
        void (*read)(nibl_file_block *x, const uint8_t *bytes);
        size_t bytes; /* of 256 columns */
    } layouts[] = {
        [NIBL_LAYOUT_NVFP4] = {read_nvfp4, 144},   [NIBL_LAYOUT_Q2_K] = {read_q2_k, 84},
        [NIBL_LAYOUT_Q3_K] = {read_q3_k, 110},     [NIBL_LAYOUT_Q4_K] = {read_q4_k, 144},
        [NIBL_LAYOUT_Q5_K] = {read_q5_k, 176},     [NIBL_LAYOUT_Q6_K] = {read_q6_k, 210},
        [NIBL_LAYOUT_IQ4_XS] = {read_iq4_xs, 136}, [NIBL_LAYOUT_TQ1_0] = {read_tq1_0, 54},
        [NIBL_LAYOUT_TQ2_0] = {read_tq2_0, 66},
    };
    const uint32_t blocks = w->cols / NIBL_BLOCK;
    bool ok = true;
    for (uint32_t b = 0; b < blocks; b += 8) {
        nibl_file_block x = {0};
        const uint32_t count = blocks - b < 8 ? blocks - b : 8;
        if (w->layout > NIBL_LAYOUT_PLAIN) {
            if (count == 8) {
                layouts[w->layout].read(&x, bytes);
                bytes += layouts[w->layout].bytes;
            } else { /* the last blocks of 64 */
                uint8_t padded[144] = {0};
                memcpy(padded, bytes, layouts[w->layout].bytes / 8 * count);
                layouts[w->layout].read(&x, padded);
            }
        } else {
            const size_t head = 2u * nibl_scale_form_of((nibl_scale)w->scale).head;
            memcpy(x.head, bytes, head);
            bytes += head;
            for (uint32_t i = 0; i < count; i++) bytes = read_block32(w, &x, i, bytes);
        }
        if (w->kind == NIBL_KIND_INT8)
            for (uint32_t i = 0; i < count * NIBL_BLOCK; i++) w->has_m128 = w->has_m128 || x.codes[i] == 0x80;
        ok = put_blocks(w, row, b, count, &x) && ok;
    }
    *finite = *finite && ok;
}

void nibl_pack_row_scalar(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    if (nibl_kind_is_float((nibl_kind)w->kind))
        pack_float(w, row, bytes, finite);
    else if (!nibl_is_plain(w) || w->layout != NIBL_LAYOUT_BLOCK32)
        pack_blocks(w, row, bytes, finite);
    else
        (w->kind == NIBL_KIND_INT8 ? pack_int8 : pack_nibble)(w, row, bytes, finite);
}

static void unpack_float(float *y, const nibl_matrix *w, const uint8_t *panel, uint32_t r) {
    const size_t width = w->kind == NIBL_KIND_F32 ? 4 : 2;
    const uint8_t *p = panel + r * width;
    for (uint32_t k = 0; k < w->cols; k++, p += NIBL_PANEL * width) {
        uint16_t half;
        memcpy(&half, p, 2);
        if (w->kind == NIBL_KIND_F32)
            memcpy(&y[k], p, 4);
        else
            y[k] = w->kind == NIBL_KIND_F16 ? nibl_f16_to_f32(half) : nibl_bf16_to_f32(half);
    }
}

/* The numbers of nibl_unpack_column; scales are found once for 16 columns. */
void nibl_unpack_row_scalar(float *y, const nibl_matrix *w, uint32_t row) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const nibl_scale scale = (nibl_scale)w->scale;
    const uint8_t *panel = nibl_panel(w, row / NIBL_PANEL);
    const uint32_t r = row % NIBL_PANEL;
    if (nibl_kind_is_float(kind)) {
        unpack_float(y, w, panel, r);
        return;
    }
    const bool min = nibl_scale_form_of(scale).min;
    const size_t head = nibl_scale_bytes(scale);
    for (uint32_t k = 0; k < w->cols; k += 16) {
        const uint32_t b = k / NIBL_BLOCK, first = k % NIBL_BLOCK;
        const uint8_t *codes = panel + nibl_block_offset(w, b) + head;
        const nibl_row_scale s = nibl_row_scale_of(w, panel, b, r, first / 16);
        for (uint32_t j = 0; j < 16; j++) {
            y[k + j] = (float)(nibl_code(kind, codes, r, first + j) - s.zero) * s.d;
            if (min) y[k + j] += s.m;
        }
    }
}
