/*
 * Blocks of files and of packed weights.
 *
 * Packed layout "R8": rows stand in panels of 8; a panel is a run of blocks, one per 32 columns, in ascending k.
 *   nibble  d[8] f16, (m[8] f16), 4 chunks of 32 bytes: byte r*4+i of chunk c holds k = 4c+i in its low and
 *           k = 16+4c+i in its high nibble of row r. Same bytes as the file's Q4_0 / Q4_1 rows, interleaved.
 *   int8    d[8] f16, 8 chunks of 32 bytes: byte r*4+i of chunk c is column 4c+i of row r.
 *   float   element k of rows 0..7 side by side: [cols][8], in the file's type.
 * The last panel is padded with rows of zeros. One layout serves every ISA.
 */
#ifndef NIBL_BLOCKS_H
#define NIBL_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NIBL_PANEL = 8, NIBL_BLOCK = 32 };

typedef enum nibl_kind {
    NIBL_KIND_F32,
    NIBL_KIND_F16,
    NIBL_KIND_BF16,
    NIBL_KIND_NIBBLE, /* (q - 8) d, or q d + m where has_min */
    NIBL_KIND_INT8    /* q d */
} nibl_kind;

typedef struct nibl_nibble_sym {
    uint16_t d[8];
    uint8_t q[128];
} nibl_nibble_sym;

typedef struct nibl_nibble_min {
    uint16_t d[8];
    uint16_t m[8];
    uint8_t q[128];
} nibl_nibble_min;

typedef struct nibl_int8_block {
    uint16_t d[8];
    int8_t q[256];
} nibl_int8_block;

/* 32 activations: x = q s. Written by the `quantize` kernel. */
typedef struct nibl_act {
    float s;      /* amax / 127 */
    float s_sum;  /* (float)sum * s */
    int32_t sum;  /* of q */
    int32_t unused;
    int8_t q[32]; /* -127..127 */
} nibl_act;

/* A packed matrix (rows, cols). Kernels read it; core owns the data. */
typedef struct nibl_matrix {
    uint8_t *data;
    uint32_t rows, cols;
    uint8_t kind;  /* nibl_kind */
    bool has_min;
    bool has_m128; /* INT8: holds a weight of -128, which the sign trick of some variants cannot take */
} nibl_matrix;

static inline uint32_t nibl_panels(const nibl_matrix *w) { return (w->rows + NIBL_PANEL - 1) / NIBL_PANEL; }

/* Bytes of 8 rows x 32 columns (quantized kinds) or x 1 column (float kinds). */
static inline size_t nibl_panel_unit(nibl_kind kind, bool has_min) {
    switch (kind) {
    case NIBL_KIND_F32: return 32;
    case NIBL_KIND_F16:
    case NIBL_KIND_BF16: return 16;
    case NIBL_KIND_NIBBLE: return has_min ? sizeof(nibl_nibble_min) : sizeof(nibl_nibble_sym);
    case NIBL_KIND_INT8: return sizeof(nibl_int8_block);
    }
    return 0;
}

static inline bool nibl_kind_is_float(nibl_kind kind) { return kind <= NIBL_KIND_BF16; }

static inline size_t nibl_panel_bytes(const nibl_matrix *w) {
    nibl_kind kind = (nibl_kind)w->kind;
    return nibl_panel_unit(kind, w->has_min) * (nibl_kind_is_float(kind) ? w->cols : w->cols / NIBL_BLOCK);
}

static inline uint8_t *nibl_panel(const nibl_matrix *w, uint32_t panel) {
    return w->data + nibl_panel_bytes(w) * panel;
}

#endif
