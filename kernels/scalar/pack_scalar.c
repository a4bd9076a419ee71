/* Rows of a file into panels and back (layout: blocks.h). */
#include "kernels/unpack.h"
#include "kernels/variants.h"

#include <string.h>

static bool f16_finite(uint16_t h) { return (h & 0x7C00) != 0x7C00; }

static void pack_nibble(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    const size_t unit = nibl_panel_unit(NIBL_KIND_NIBBLE, w->has_min), head = w->has_min ? 32 : 16;
    const uint32_t r = row % NIBL_PANEL;
    uint8_t *block = nibl_panel(w, row / NIBL_PANEL);
    for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++, block += unit) {
        for (size_t s = 0; s < head / 16; s++, bytes += 2) {
            uint16_t scale = (uint16_t)(bytes[0] | bytes[1] << 8);
            *finite = *finite && f16_finite(scale);
            memcpy(block + s * 16 + r * 2, &scale, 2);
        }
        for (int c = 0; c < 4; c++, bytes += 4) memcpy(block + head + c * 32 + r * 4, bytes, 4);
    }
}

static void pack_int8(nibl_matrix *w, uint32_t row, const uint8_t *bytes, bool *finite) {
    const uint32_t r = row % NIBL_PANEL;
    nibl_int8_block *block = (nibl_int8_block *)(void *)nibl_panel(w, row / NIBL_PANEL);
    for (uint32_t b = 0; b < w->cols / NIBL_BLOCK; b++, block++) {
        block->d[r] = (uint16_t)(bytes[0] | bytes[1] << 8);
        *finite = *finite && f16_finite(block->d[r]);
        bytes += 2;
        w->has_m128 = w->has_m128 || memchr(bytes, 0x80, NIBL_BLOCK);
        for (int c = 0; c < 8; c++, bytes += 4) memcpy(block->q + c * 32 + r * 4, bytes, 4);
    }
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
