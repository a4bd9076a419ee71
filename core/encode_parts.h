/* What the parts of the encoder share: the grid of a type, and a block before it becomes the file's bytes. */
#ifndef NIBL_ENCODE_PARTS_H
#define NIBL_ENCODE_PARTS_H

#include "core/encode.h"

/* How the scale of a group (and its minimum) is stored. */
typedef enum nibl_storage {
    NIBL_STORE_F16, /* of its own */
    NIBL_STORE_INTEGER, /* an integer times the f16 number of the block */
    NIBL_STORE_E8M0,
    NIBL_STORE_UE4M3,
    NIBL_STORE_BF16, /* of its own, as are F32: of integers (encode_grid.h) */
    NIBL_STORE_F32
} nibl_storage;

struct nibl_block;

/* Values that a group of inputs may take: value = level * scale (+ minimum). */
typedef struct nibl_grid {
    const char *type;
    uint32_t group; /* inputs per scale: a multiple of 16 */
    float low, high; /* levels: all integers between, or those of the table */
    const int8_t *table; /* level of each code; NULL = code - zero */
    uint8_t zero;
    bool min; /* there is a minimum: levels begin at 0 */
    nibl_storage storage;
    int16_t scale_low, scale_high; /* of INTEGER */
    bool (*rule)(const struct nibl_grid *grid, const float *x, struct nibl_block *out); /* NULL = none */
    /* of integers (encode_grid.h), in place of rule and search: the scale (and zero point) of `count` inputs */
    bool (*choose)(const struct nibl_grid *grid, const float *x, const float *weights, uint32_t count,
                   bool search, struct nibl_block *out);
    uint8_t convention; /* of their scale */
} nibl_grid;

/* At most 256 inputs. */
typedef struct nibl_block {
    uint16_t d, m; /* f16: of F16 and INTEGER */
    uint8_t scales[16], mins[16]; /* of the others: per group */
    float scale; /* of integers */
    uint8_t zero_point;
    uint8_t codes[NIBL_SUPER];
} nibl_block;

/* NULL for floats. A type that is not in the table is a nibl_integer_type. */
const nibl_grid *nibl_grid_of(const nibl_dtype *type);

/* As nibl_encode_values, one block of the type. */
bool nibl_choose_block(const nibl_kernels *kernels, const nibl_grid *grid, const float *x,
                       const float *weights, uint32_t count, bool search, nibl_block *out);

/* The scale and the minimum (0 where there is none) of a group as stored. */
void nibl_group_scale(const nibl_grid *grid, const nibl_block *block, uint32_t group, float *d, float *m);

nibl_levels nibl_levels_of(const nibl_grid *grid);
float nibl_code_level(const nibl_grid *grid, uint8_t code);
void nibl_level_codes(const nibl_grid *grid, const float *levels, uint32_t n, uint8_t *codes);

/* levels (n) = those nearest to (x - m) inverse. */
void nibl_round_levels(const nibl_levels *grid, const float *x, uint32_t n, float inverse, float m,
                       float *levels);

/* The block in the layout of the type's files (blocks.h; encode_write.c). */
void nibl_write_block(const nibl_dtype *type, const nibl_block *block, uint8_t *out);

/* Scales by search (encode_search.c). `weights` are positive. False where a scale is too large. */
bool nibl_search_block(const nibl_kernels *kernels, const nibl_grid *grid, const float *x,
                       const float *weights, uint32_t count, nibl_block *out);

/* Sum of weights (decoded - x)^2. */
double nibl_block_error(const nibl_grid *grid, const float *x, const float *weights, uint32_t count,
                        const nibl_block *block);

#endif
