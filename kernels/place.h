/* Single codes and scale fields to their places in the packed layout (blocks.h), in any order, for files whose rows are
 * not a matrix's rows. The matrix's bytes are zero before the first code. */
#ifndef NIBL_PLACE_H
#define NIBL_PLACE_H

#include "kernels/blocks.h"

#include <string.h>

/* Where column k stands: of row 0 in the first panel, and which bits of the byte. NIBBLE, table kinds, INT8, BITS2. */
typedef struct nibl_place {
    uint8_t *first;
    size_t panel_bytes;
    int shift;
    uint8_t mask;
} nibl_place;

static inline nibl_place nibl_place_of(const nibl_matrix *w, uint32_t k) {
    const uint32_t b = k / NIBL_BLOCK, c = k % NIBL_BLOCK / 4;
    const int bits = w->kind == NIBL_KIND_INT8 ? 8 : w->kind == NIBL_KIND_BITS2 ? 2 : 4;
    const uint32_t chunk = bits == 8 ? c : bits == 2 ? c / 4 : c % 4;
    return (nibl_place){.first = w->data + nibl_block_offset(w, b) + nibl_scale_bytes((nibl_scale)w->scale) +
                                 32 * chunk + k % 4,
                        .panel_bytes = nibl_panel_bytes(w),
                        .shift = bits == 8   ? 0
                                 : bits == 2 ? (int)(c % 4) * 2
                                             : (int)(c / 4) * 4,
                        .mask = (uint8_t)((1 << bits) - 1)};
}

static inline uint8_t *nibl_place_row(const nibl_place *p, uint32_t row) {
    return p->first + row / NIBL_PANEL * p->panel_bytes + row % NIBL_PANEL * 4;
}

static inline void nibl_put_code(const nibl_place *p, uint32_t row, uint32_t code) {
    uint8_t *at = nibl_place_row(p, row);
    *at = (uint8_t)((*at & ~(p->mask << p->shift)) | ((int)code & p->mask) << p->shift);
}

/* A block of a row from 16 bytes that hold neighbours as pairs, the first in the low nibble. */
static inline void nibl_put_pairs(const nibl_matrix *w, uint32_t row, uint32_t b, const uint8_t *pairs) {
    const nibl_place p = nibl_place_of(w, b * NIBL_BLOCK);
    uint8_t *out = nibl_place_row(&p, row);
    for (int c = 0; c < 4; c++, pairs += 2, out += 32) {
        out[0] = (uint8_t)((pairs[0] & 15) | pairs[8] << 4);
        out[1] = (uint8_t)(pairs[0] >> 4 | (pairs[8] & 0xF0));
        out[2] = (uint8_t)((pairs[1] & 15) | pairs[9] << 4);
        out[3] = (uint8_t)(pairs[1] >> 4 | (pairs[9] & 0xF0));
    }
}

/* A block of a row of INT8; true where a code is -128. `flip`: 128 in the codes where they stand with an offset. */
static inline bool nibl_put_bytes(const nibl_matrix *w, uint32_t row, uint32_t b, const uint8_t *codes,
                                  uint8_t flip) {
    const nibl_place p = nibl_place_of(w, b * NIBL_BLOCK);
    uint8_t *out = nibl_place_row(&p, row);
    bool m128 = false;
    for (int j = 0; j < NIBL_BLOCK; j++) {
        const uint8_t code = codes[j] ^ flip;
        m128 |= code == 0x80;
        out[j / 4 * 32 + j % 4] = code;
    }
    return m128;
}

/* Field 0 or 1 of the scales of block b of a row. */
static inline void nibl_put_field(const nibl_matrix *w, uint32_t row, uint32_t b, int field,
                                  const uint8_t *bytes) {
    const nibl_scale_form form = nibl_scale_form_of((nibl_scale)w->scale);
    uint8_t *p = nibl_panel(w, row / NIBL_PANEL) + nibl_block_offset(w, b) +
                 (field ? (size_t)NIBL_PANEL * form.field[0] : 0);
    memcpy(p + row % NIBL_PANEL * form.field[field], bytes, form.field[field]);
}

#endif
