/* AWQ (Lin et al., arXiv:2306.00978): inputs that carry much are multiplied by what their activity says before rounding,
 * and divided again by what comes before them. Of 20 exponents the one is taken with the least error of the outputs,
 * tr(dW H dW^T), over a sample of rows. */
#ifndef NIBL_AWQ_H
#define NIBL_AWQ_H

#include "core/encode_parts.h"
#include "core/plat.h"
#include "core/quant/calib.h"

/* scale (site->cols) for matrices that share the site's input; all 1 where nothing is better. */
nibl_status nibl_awq_search(nibl_pool *pool, const nibl_site *site, const nibl_kernels *kernels,
                            const nibl_matrix *const *matrices, const nibl_dtype *const *types,
                            uint32_t count, float *scale);

#endif
