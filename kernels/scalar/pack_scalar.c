/* Rows of a file into panels and back (layout: blocks.h). */
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
    const bool has_min = w->has_min;
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, has_min), head = has_min ? 32 : 16;
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

void nibl_pack_row_scalar(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    switch ((nibl_kind)w->kind) {
    case NIBL_KIND_F32:
    case NIBL_KIND_F16:
    case NIBL_KIND_BF16: pack_float(w, row, bytes, finite); break;
    case NIBL_KIND_NIBBLE: pack_nibble(w, row, bytes, finite); break;
    case NIBL_KIND_INT8: pack_int8(w, row, bytes, finite); break;
    }
}

void nibl_unpack_row_scalar(float *y, const nibl_matrix *w, uint32_t row) {
    for (uint32_t k = 0; k < w->cols; k++) {
        float column[NIBL_PANEL];
        nibl_unpack_column(column, w, row / NIBL_PANEL, k);
        y[k] = column[row % NIBL_PANEL];
    }
}
