/* Grids of integers as types: what matrices may be rounded to besides the types of GGUF. */
#ifndef NIBL_ENCODE_GRID_H
#define NIBL_ENCODE_GRID_H

#include "core/encode_parts.h"

typedef enum nibl_granularity { NIBL_PER_GROUP, NIBL_PER_ROW, NIBL_PER_TENSOR } nibl_granularity;

/* Symmetric scales of b bits. */
typedef enum nibl_convention {
    NIBL_SCALE_EXTREME, /* the value of the largest magnitude / -2^(b-1) */
    NIBL_SCALE_RANGE, /* 2 amax / (2^b - 1) */
    NIBL_SCALE_ABSMAX /* amax / (2^(b-1) - 1) */
} nibl_convention;

typedef struct nibl_integers {
    uint8_t bits; /* 2..8 */
    uint8_t granularity; /* nibl_granularity */
    uint8_t convention; /* nibl_convention, of symmetric ones */
    uint8_t storage; /* nibl_storage: F16, BF16 or F32 */
    bool zero_point; /* asymmetric: s = (max - min) / (2^b - 1), zero = rint(-min / s), min <= 0 <= max */
    uint32_t group; /* columns, of PER_GROUP */
} nibl_integers;

enum { NIBL_INTEGERS_NAME = 40, NIBL_INTEGERS_ID = 0xFFFF /* no type of GGUF */ };

/* A type that is in no table (nibl_grid_of). Its rows: per 32 columns scale, zero point and codes as pack_row takes them
 * (NIBL_LAYOUT_PLAIN), or Q4_0's with the scale repeated. */
typedef struct nibl_integer_type {
    nibl_dtype type; /* first */
    nibl_grid grid;
    nibl_integers form;
    char name[NIBL_INTEGERS_NAME]; /* type.name points here once it has its place */
} nibl_integer_type;

/* False where it is no such name. */
bool nibl_integers_read(const char *name, nibl_integers *out);

/* Columns that have a scale of their own, the whole matrix included; of groups the largest multiple of 32 that divides the
 * columns and is no larger. 0: there is none. */
uint32_t nibl_integers_group(const nibl_integers *form, uint64_t rows, uint64_t cols);

/* The grid alone, of any group. */
void nibl_integers_grid(const nibl_integers *form, uint32_t group, nibl_grid *out);

bool nibl_integers_fit_q4_0(const nibl_integers *form);

/* The type of a matrix; false where none fits: columns that are no multiple of 32, F32 scales with zero points. */
bool nibl_integers_make(const nibl_integers *form, uint64_t rows, uint64_t cols, bool as_q4_0,
                        nibl_integer_type *out);

/* All blocks of a row, for any type with a grid: scales and nearest codes. Weights as in nibl_encode_values. `given`: the
 * scale of the matrix, where it has one for all. */
bool nibl_choose_row(const nibl_kernels *kernels, const nibl_dtype *type, const float *x,
                     const float *weights, uint32_t count, bool search, const nibl_block *given,
                     nibl_block *blocks);

/* The codes nearest to at most 256 values by the scale that the block has. */
void nibl_round_block(const nibl_grid *grid, const float *x, uint32_t count, nibl_block *block);

/* 32 columns of NIBL_LAYOUT_PLAIN. */
void nibl_write_integers(const nibl_dtype *type, const nibl_block *block, uint8_t *out);

#endif
