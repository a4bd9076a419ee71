/*
 * GPTQ (Frantar et al., arXiv:2210.17323): columns are rounded one after the other, and each takes the errors of those
 * before it into account, so that sum (w^ - w) H (w^ - w)^T stays small. Here in the form of Babai's nearest plane (Chen et
 * al., arXiv:2507.18553), which gives the same codes: with H = R R^T, R upper triangular, column i is rounded at
 * w_i + sum over k < i of (w_k - w^_k) R_ki / R_ii. No inverse, no updates of later columns, and rows are independent: 16 of
 * them go together, one in a lane.
 * Columns come in descending order of diag(H), with the scales of the groups as they stand ("act-order", static groups).
 */
#ifndef NIBL_GPTQ_H
#define NIBL_GPTQ_H

#include "core/encode_parts.h"
#include "core/plat.h"

/* A symmetric or triangular matrix in panels of 16 columns: element (i, j) of a square of `size` rows, a multiple of 16. */
static inline uint32_t nibl_panel_size(uint32_t n) { return (n + NIBL_TILE - 1) / NIBL_TILE * NIBL_TILE; }
static inline size_t nibl_panel_at(uint32_t size, uint32_t i, uint32_t j) {
    return ((size_t)(j / NIBL_TILE) * size + i) * NIBL_TILE + j % NIBL_TILE;
}

/* Floats of room for H in panels, or a triangle of it in doubles. */
static inline uint64_t nibl_panel_room(uint32_t size) { return (uint64_t)size * (size + NIBL_TILE); }

typedef struct nibl_factor {
    uint32_t n, size;
    uint32_t *order; /* (size): columns, the most active first; those from n on are none */
    float *
        triangle; /* R_ki / R_ii, k < i, and R_ii, both by order, in panels of 16 columns i down to the diagonal; the caller's */
} nibl_factor;

#define NIBL_DAMP 0.01 /* usual, of the mean of H's diagonal */

/* From H (n, n) in panels times scale[i] scale[j] (NULL = 1), its diagonal raised by `damp` of its mean; in its room of
 * nibl_panel_room floats is the factor then. NIBL_E_NUMERIC where that is not positive definite. Free it in any case. */
nibl_status nibl_factor_make(nibl_pool *pool, const nibl_kernels *kernels, float *sums, const float *scale,
                             uint32_t n, double damp, nibl_factor *out);
void nibl_factor_free(nibl_factor *factor);

/* At most 16 rows of n weights (a multiple of 16), `stride` apart: the blocks of a row, `block_stride` apart, hold the
 * scales, and get the codes. */
typedef struct nibl_gptq_rows {
    const nibl_grid *grid;
    uint32_t block, rows;
    const float *x;
    size_t stride;
    nibl_block *blocks;
    size_t block_stride;
    float *room; /* NIBL_GPTQ_ROOM(n) floats */
} nibl_gptq_rows;

#define NIBL_GPTQ_ROOM(n) (35 * (uint64_t)(n))

void nibl_gptq_round(const nibl_factor *factor, const nibl_kernels *kernels, const nibl_gptq_rows *rows);

/* Afterwards: the sum of (w^ - w) H (w^ - w)^T over the rows. */
double nibl_gptq_error(const nibl_factor *factor, const nibl_kernels *kernels, const nibl_gptq_rows *rows);

#endif
