/* What rounding lost of a tensor, measured behind it in a second pass: rows are decoded again and compared. */
#ifndef NIBL_LOSS_H
#define NIBL_LOSS_H

#include "core/dtype.h"
#include "core/plat.h"
#include "kernels/kernels.h"

/* Sums of squares: of what changed, and of the weights as they were rounded. */
typedef struct nibl_loss {
    double error, weights;
} nibl_loss;

/* Writes a row (cols) as it was before rounding; returns its encoded bytes. */
typedef const uint8_t *nibl_loss_row(void *context, uint32_t worker, uint32_t row, float *x);

/* Adds the rows of a tensor of type `to`, in their order whatever the number of workers. */
nibl_status nibl_loss_measure(nibl_pool *pool, const nibl_kernels *kernels, const nibl_dtype *to,
                              uint32_t rows, uint32_t cols, nibl_loss_row *row, void *context,
                              nibl_loss *loss);

#endif
