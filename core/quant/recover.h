/* Weights that lie on a grid already, of a model that was trained for it or was once quantized: that grid, in place of another
 * one near it. All values of a group that shares a scale are level * scale (+ minimum), but for how the source rounds them: each
 * leaves an interval of scales, and one that can be stored is taken from where all of them meet. */
#ifndef NIBL_RECOVER_H
#define NIBL_RECOVER_H

#include "core/encode_grid.h"

/* Of groups of weights. */
typedef struct nibl_recovery {
    uint64_t groups;
    uint64_t found; /* of them so many are on the grid; */
    uint64_t rounded; /* of these so many have a scale that the type cannot store as it is */
} nibl_recovery;

/* Whether the scales of a type stand for themselves: those of others are not looked for. */
bool nibl_recover_knows(const nibl_dtype *type);

/* A group of any length: the scale, and zero point or minimum. `from`: the source's type, which tells how far a value may be
 * off. Adds to *counts; leaves *out where the group is on no grid. */
bool nibl_recover_group(const nibl_grid *grid, const nibl_dtype *from, const float *x, uint32_t count,
                        nibl_block *out, nibl_recovery *counts);

/* Replaces the blocks of a row, chosen otherwise, whose group is on the grid. */
void nibl_recover_row(const nibl_dtype *to, const nibl_dtype *from, const float *x, uint32_t count,
                      nibl_block *blocks, nibl_recovery *counts);

/* The name of a type of GGUF on whose grid all of a row (count) lies; NULL = there is none. */
const char *nibl_recover_type(const nibl_dtype *from, const float *x, uint32_t count);

#endif
