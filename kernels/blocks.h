/*
 * Packed weights, and what the rows of files look like before they are packed.
 *
 * Packed layout "R8": rows stand in panels of 8; a panel is a run of blocks, one per 32 columns, in ascending k.
 *   float   element k of rows 0..7 side by side: [cols][8], in the file's type.
 *   others  scales, then codes. Every field of the scales is an array over the 8 rows; where the scale mode has a head
 *           per 256 columns (one f16 or two, then the fields of 6 bits), it stands before the first of its 8 blocks.
 * Codes of n bits fill n chunks of 32 bytes; byte r*4+i of a chunk belongs to row r. The eight vectors of codes (vector c:
 * columns 4c+i) stand in the chunks as nibl_piece_of says: as many as can be in one piece, the others in the bits left
 * over, so that a vector is a shift and a mask mostly.
 *   8 bits  vector c is chunk c
 *   4 bits  chunk c holds vector c in its low and 4+c in its high nibble
 *   2 bits  bits 2c of chunk h hold vector 4h+c
 *   6, 5, 3 bits  see there
 * Fields of 6 bits are packed the same way: those of the eight blocks are the vectors, with 8 bytes, one a row, for each
 * field of a block. The last panel is padded with rows of zeros. One layout serves every ISA.
 */
#ifndef NIBL_BLOCKS_H
#define NIBL_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NIBL_PANEL = 8, NIBL_BLOCK = 32, NIBL_SUPER = 256 };

/* How codes are stored. Kernels know the kind and the scale mode of a matrix, never a file's type. */
typedef enum nibl_kind {
    NIBL_KIND_F32,
    NIBL_KIND_F16,
    NIBL_KIND_BF16,
    NIBL_KIND_NIBBLE, /* 0..15 */
    NIBL_KIND_INT8, /* -128..127 */
    NIBL_KIND_IQ4, /* nibbles that choose from a table of 16 */
    NIBL_KIND_E2M1, /* the same: a 4-bit float, doubled */
    NIBL_KIND_BITS2, /* 0..3 */
    NIBL_KIND_BITS3, /* 0..7 */
    NIBL_KIND_BITS5, /* 0..31 */
    NIBL_KIND_BITS6, /* 0..63 */
    NIBL_KIND_COUNT
} nibl_kind;

/* What a code is multiplied by, per row and 32 columns (or 16, where the name ends so): value = (code - zero) d + m. The
 * zero is the middle of the range (8 for nibbles, 16, 32, 4, and 1 for two bits), or 0 where there is a minimum or a
 * table or int8, or stored. d and m are exact in f32, or
 * where a matrix has a factor rounded once. Names of fields: the head per 256 columns, then the block's. */
typedef enum nibl_scale {
    NIBL_SCALE_F16, /* d */
    NIBL_SCALE_F16_MIN, /* d, m */
    NIBL_SCALE_F16_ZERO, /* d, zero i8 */
    NIBL_SCALE_BF16, /* d */
    NIBL_SCALE_BF16_ZERO, /* d, zero i8 */
    NIBL_SCALE_F32, /* d */
    NIBL_SCALE_E8M0, /* e u8: d = 2^(e - 128) */
    NIBL_SCALE_UE4M3_16, /* two u8 e, one per 16 columns: a float without sign, 4 exponent bits, 3 of mantissa:
                            d = e / 2 times the matrix's factor */
    NIBL_SCALE_SUPER, /* head f16 D: d = D */
    NIBL_SCALE_SUPER_I6, /* head f16 D, 6 bits s: d = D (s - 32) */
    NIBL_SCALE_SUPER_U6_MIN, /* head f16 D, M, 6 bits s, t: d = D s, m = -(M t) */
    NIBL_SCALE_SUPER_I6_16, /* head f16 D, twice 6 bits s, one per 16 columns: d = D (s - 32) */
    NIBL_SCALE_SUPER_I8_16, /* head f16 D; two i8 s, one per 16 columns: d = D s */
    NIBL_SCALE_SUPER_U4_MIN_16, /* head f16 D, M; two bytes, one per 16: low nibble s, high t: d = D s, m = -(M t) */
    NIBL_SCALE_COUNT
} nibl_scale;

typedef struct nibl_scale_form {
    uint8_t head; /* f16 numbers of a row per 256 columns */
    uint8_t field[2]; /* bytes of a row's fields per block */
    uint8_t six; /* fields of 6 bits of a row per block, in the head */
    bool halves, min, zero;
} nibl_scale_form;

static inline nibl_scale_form nibl_scale_form_of(nibl_scale scale) {
    static const nibl_scale_form forms[NIBL_SCALE_COUNT] = {
        [NIBL_SCALE_F16] = {.field = {2}},
        [NIBL_SCALE_F16_MIN] = {.field = {2, 2}, .min = true},
        [NIBL_SCALE_F16_ZERO] = {.field = {2, 1}, .zero = true},
        [NIBL_SCALE_BF16] = {.field = {2}},
        [NIBL_SCALE_BF16_ZERO] = {.field = {2, 1}, .zero = true},
        [NIBL_SCALE_F32] = {.field = {4}},
        [NIBL_SCALE_E8M0] = {.field = {1}},
        [NIBL_SCALE_UE4M3_16] = {.field = {1, 1}, .halves = true},
        [NIBL_SCALE_SUPER] = {.head = 1},
        [NIBL_SCALE_SUPER_I6] = {.head = 1, .six = 1},
        [NIBL_SCALE_SUPER_U6_MIN] = {.head = 2, .six = 2, .min = true},
        [NIBL_SCALE_SUPER_I6_16] = {.head = 1, .six = 2, .halves = true},
        [NIBL_SCALE_SUPER_I8_16] = {.head = 1, .field = {1, 1}, .halves = true},
        [NIBL_SCALE_SUPER_U4_MIN_16] = {.head = 2, .field = {1, 1}, .halves = true, .min = true},
    };
    return forms[scale];
}

/* Bits of codes in the packed layout: `bits` of them from bit `to` of every code of a vector on stand from bit `from` of
 * the bytes of chunk `chunk` on. */
typedef struct nibl_piece {
    uint8_t chunk, from, bits, to;
} nibl_piece;

static inline int nibl_code_bits(nibl_kind kind) {
    switch (kind) {
    case NIBL_KIND_INT8: return 8;
    case NIBL_KIND_BITS2: return 2;
    case NIBL_KIND_BITS3: return 3;
    case NIBL_KIND_BITS5: return 5;
    case NIBL_KIND_BITS6: return 6;
    default: return 4;
    }
}

/* Piece i (0..2) of vector c; its `bits` are 0 where there is none. Halves of 16 columns use few chunks each. In the tables
 * a digit is a member. Decoders unroll it into constants, so it is always inlined. */
static inline __attribute__((always_inline)) nibl_piece nibl_piece_of(int bits, int c, int i) {
    static const uint16_t three[8][3] = {{0x0030}, {0x0330}, {0x1030}, {0x0620, 0x1612},
                                         {0x2030}, {0x2330}, {0x1330}, {0x2620, 0x1712}};
    static const uint16_t five[8][3] = {{0x0050}, {0x1050}, {0x4050},         {0x0530, 0x1523},
                                        {0x2050}, {0x3050}, {0x2530, 0x3523}, {0x4530, 0x1713, 0x3714}};
    static const uint16_t six[8][3] = {{0x0060}, {0x1060}, {0x2060}, {0x0620, 0x1622, 0x2624},
                                       {0x3060}, {0x4060}, {0x5060}, {0x3620, 0x4622, 0x5624}};
    const uint32_t digits = bits == 3   ? three[c][i]
                            : bits == 5 ? five[c][i]
                            : bits == 6 ? six[c][i]
                            : i         ? 0
                            : bits == 8 ? 0x0080u | (uint32_t)c << 12
                            : bits == 4 ? 0x0040u | (uint32_t)(c % 4) << 12 | (uint32_t)(c / 4 * 4) << 8
                                        : 0x0020u | (uint32_t)(c / 4) << 12 | (uint32_t)(c % 4 * 2) << 8;
    return (nibl_piece){(uint8_t)(digits >> 12), (uint8_t)(digits >> 8 & 15), (uint8_t)(digits >> 4 & 15),
                        (uint8_t)(digits & 15)};
}

/* Rows of files, as pack_row reads them. */
typedef enum nibl_layout {
    NIBL_LAYOUT_BLOCK32, /* per 32: scale fields, fifth bits (u32), then nibbles (low = j, high = j + 16) or int8 */
    NIBL_LAYOUT_PLAIN, /* per 32: scale fields (per 256 first the head), then a byte for every code: for any kind */
    NIBL_LAYOUT_NVFP4,
    NIBL_LAYOUT_Q2_K,
    NIBL_LAYOUT_Q3_K,
    NIBL_LAYOUT_Q4_K,
    NIBL_LAYOUT_Q5_K,
    NIBL_LAYOUT_Q6_K,
    NIBL_LAYOUT_IQ4_XS,
    NIBL_LAYOUT_TQ1_0,
    NIBL_LAYOUT_TQ2_0
} nibl_layout;

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
    float s; /* amax / 127 */
    float s_sum; /* (float)sum * s */
    int32_t sum; /* of q */
    int32_t sum16; /* of the first 16 */
    int8_t q[32]; /* -127..127 */
} nibl_act;

/* A packed matrix (rows, cols). Kernels read it; core owns the data. */
typedef struct nibl_matrix {
    uint8_t *data;
    uint32_t rows, cols;
    uint8_t kind; /* nibl_kind */
    uint8_t scale; /* nibl_scale; not of floats */
    uint8_t layout; /* nibl_layout of the file's rows, for pack_row */
    float factor; /* of UE4M3_16: multiplies every d; 1 where the file has none */
    const uint32_t *gather; /* column j takes input gather[j]; NULL: input j. Kernels know nothing of it */
    bool has_m128; /* INT8: holds a weight of -128, which the sign trick of some variants cannot take */
} nibl_matrix;

static inline uint32_t nibl_panels(const nibl_matrix *w) { return (w->rows + NIBL_PANEL - 1) / NIBL_PANEL; }

static inline bool nibl_kind_is_float(nibl_kind kind) { return kind <= NIBL_KIND_BF16; }

/* Bytes of the codes of 8 rows x 32 columns. */
static inline size_t nibl_code_bytes(nibl_kind kind) { return 32u * (size_t)nibl_code_bits(kind); }

/* Bytes of the scales of a block, without a head. */
static inline size_t nibl_scale_bytes(nibl_scale scale) {
    const nibl_scale_form form = nibl_scale_form_of(scale);
    return (size_t)NIBL_PANEL * (form.field[0] + form.field[1]);
}

/* Bytes of 8 rows x 32 columns (quantized kinds, without a head) or x 1 column (float kinds). */
static inline size_t nibl_panel_unit(nibl_kind kind, nibl_scale scale) {
    if (nibl_kind_is_float(kind)) return kind == NIBL_KIND_F32 ? 32 : 16;
    return nibl_scale_bytes(scale) + nibl_code_bytes(kind);
}

/* Its f16 numbers, then six chunks of fields. */
static inline size_t nibl_head_bytes(nibl_scale scale) {
    const nibl_scale_form form = nibl_scale_form_of(scale);
    return form.head * 16u + form.six * 6u * NIBL_PANEL;
}

static inline size_t nibl_panel_bytes(const nibl_matrix *w) {
    const nibl_kind kind = (nibl_kind)w->kind;
    const size_t unit = nibl_panel_unit(kind, (nibl_scale)w->scale);
    if (nibl_kind_is_float(kind)) return unit * w->cols;
    return unit * (w->cols / NIBL_BLOCK) + nibl_head_bytes((nibl_scale)w->scale) * (w->cols / NIBL_SUPER);
}

static inline uint8_t *nibl_panel(const nibl_matrix *w, uint32_t panel) {
    return w->data + nibl_panel_bytes(w) * panel;
}

/* Where block b begins in a panel of a quantized kind; its head, where there is one, stands before block b / 8 * 8. */
static inline size_t nibl_block_offset(const nibl_matrix *w, uint32_t b) {
    const nibl_scale scale = (nibl_scale)w->scale;
    return nibl_panel_unit((nibl_kind)w->kind, scale) * b + nibl_head_bytes(scale) * (b / 8 + 1);
}

/* What is subtracted from every code, unless it is stored. */
static inline int nibl_code_zero(nibl_kind kind, nibl_scale scale) {
    static const uint8_t middle[NIBL_KIND_COUNT] = {[NIBL_KIND_NIBBLE] = 8,
                                                    [NIBL_KIND_BITS2] = 1,
                                                    [NIBL_KIND_BITS3] = 4,
                                                    [NIBL_KIND_BITS5] = 16,
                                                    [NIBL_KIND_BITS6] = 32};
    const nibl_scale_form form = nibl_scale_form_of(scale);
    return form.min || form.zero ? 0 : middle[kind];
}

/* The kernels gemv_nibble, gemm_nibble, gemv_int8 and gemm_int8 take these; matmul_codes takes the rest. */
static inline bool nibl_is_plain(const nibl_matrix *w) {
    return w->scale == NIBL_SCALE_F16 ? w->kind == NIBL_KIND_NIBBLE || w->kind == NIBL_KIND_INT8
                                      : w->scale == NIBL_SCALE_F16_MIN && w->kind == NIBL_KIND_NIBBLE;
}

#endif
