/*
 * GPTQ (Frantar et al., arXiv:2210.17323): columns are rounded one after the other, and each takes the errors of those
 * before it into account, so that sum (w^ - w) H (w^ - w)^T stays small. Here in the form of Babai's nearest plane (Chen et
 * al., arXiv:2507.18553), which gives the same codes: with H = R R^T, R upper triangular, column i is rounded at
 * w_i + sum over k < i of (w_k - w^_k) R_ki / R_ii. No inverse, no updates of later columns, and rows are independent.
 * Columns come in descending order of diag(H), with the scales of the groups as they stand ("act-order", static groups).
 */
#ifndef NIBL_GPTQ_H
#define NIBL_GPTQ_H

#include "core/encode_parts.h"
#include "core/plat.h"

typedef struct nibl_factor {
    uint32_t n;
    uint32_t *order; /* (n): columns, the most active first */
    float *rows; /* (n, n): R_ki / R_ii at [i][k], k < i, both by order */
} nibl_factor;

/* From the lower triangle of H (n, n) times scale[i] scale[j] (NULL = 1), its diagonal raised by `damp` of its mean.
 * NIBL_E_NUMERIC where that is not positive definite. Free it in any case. */
nibl_status nibl_factor_make(nibl_pool *pool, const float *sums, const float *scale, uint32_t n, double damp,
                             nibl_factor *out);
void nibl_factor_free(nibl_factor *factor);

/* Rounds a row of n weights: `blocks` hold the scales, and get the codes. `errors` (n) is scratch. */
void nibl_gptq_row(const nibl_factor *factor, const nibl_grid *grid, uint32_t block, const float *x,
                   nibl_block *blocks, float *errors);

#endif
