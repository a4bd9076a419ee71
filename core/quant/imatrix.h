/* What a text makes of the inputs of every matrix, as llama.cpp's llama-imatrix keeps it in a GGUF file (general.type
 * "imatrix"): of a tensor NAME two of F32, NAME.in_sum2 (columns, matrices), the sums of squares over the rows that were
 * multiplied, and NAME.counts (1, matrices), how many those were. Experts of a tensor are matrices of their own. */
#ifndef NIBL_IMATRIX_H
#define NIBL_IMATRIX_H

#include "core/quant/outputs.h"

/* What a file says about a model's matrices. */
typedef struct nibl_importance {
    float *means;
    const float **of; /* (parts of the outputs): mean squares of the inputs (cols); NULL = nothing is known */
} nibl_importance;

/* As llama-quantize takes them: sums by counts, and nothing known of what was hardly seen or is not there. NIBL_E_FILE for a file that
 * is none, or of another model, NIBL_E_TRUNCATED, NIBL_E_NUMERIC for negative numbers or such as are not finite. Free it in any case. */
nibl_status nibl_importance_read(const void *bytes, size_t length, const nibl_outputs *outputs,
                                 nibl_importance *out);
void nibl_importance_free(nibl_importance *importance);

#endif
