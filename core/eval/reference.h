/* A reference's distribution at one position, packed; the layout stands at the top of reference.c. */
#ifndef NIBL_REFERENCE_H
#define NIBL_REFERENCE_H

#include "core/base.h"

/* A row of logits: its most probable token (the first of several) and log sum exp; false where one is not finite. */
bool nibl_measure_row(const float *logits, uint32_t count, uint32_t *top, double *log_sum);

/* What the packed distribution says: its most probable token, -log p of what follows, and KL of a row of logits from it.
 * NIBL_E_FILE where it is no distribution over `vocabulary` tokens. */
nibl_status nibl_reference_compare(const void *packed, const float *logits, double log_sum,
                                   uint32_t vocabulary, uint32_t *top, double *surprise, double *kl);

#endif
