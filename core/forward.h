/* The only transformer loop: a resumable cursor over (layer, chunk of rows). A row is one token of one sequence; a
 * batch may hold rows of several sequences. Results are the same bits for any chunking, batch and number of threads. */
#ifndef NIBL_FORWARD_H
#define NIBL_FORWARD_H

#include "core/kvcache.h"
#include "core/model.h"

typedef struct nibl_row {
    nibl_kv *kv; /* positions before this one are there, or come earlier in the same run */
    int32_t token;
    uint32_t position;
    bool logits, hidden; /* wanted */
} nibl_row;

typedef struct nibl_run nibl_run;

nibl_status nibl_run_new(nibl_model *model, nibl_run **out);
void nibl_run_free(nibl_run *run);

/* Bytes a run allocates, for planning. */
uint64_t nibl_run_bytes(const nibl_hyper *hyper, uint32_t rows, uint32_t chunk, uint32_t logits,
                        uint32_t threads, uint32_t context_length);

/* Starts over with these rows (copied), `chunk` at a time; the caches must have room for them. */
nibl_status nibl_run_begin(nibl_run *run, const nibl_row *rows, uint32_t count, uint32_t chunk,
                           uint32_t activations);

/* Goes on for at most *units (layer, chunk) pairs, counting them down. NIBL_OK: done; NIBL_MORE: units are used up;
 * NIBL_NEED_DATA: the next layer has not arrived. */
nibl_status nibl_run_advance(nibl_run *run, uint32_t *units);

/* Sees what matrices are about to be multiplied with: `input` (rows, stride), of which the first w->cols numbers of a row
 * are meant; `w` is the first of the matrices that share it. All workers call it, and none goes on to write the input
 * before all are back. NULL = nobody. */
typedef void (*nibl_run_observer)(void *context, const nibl_matrix *w, const float *input, size_t stride,
                                  uint32_t rows, uint32_t worker, uint32_t workers);
void nibl_run_observe(nibl_run *run, nibl_run_observer observer, void *context);

/* The residual stream (rows, width) before the layer that comes next, which *layer names: after nibl_run_advance, which may
 * have had no units. `repeat`: that is the one just computed, and the caller puts the stream back. */
float *nibl_run_stream(nibl_run *run, bool repeat, uint32_t *layer);

/* After NIBL_OK: logits (vocabulary) of the i-th row that wanted them. */
const float *nibl_run_logits(const nibl_run *run, uint32_t i);

/* The same of a row that wanted its hidden state (width), behind the last norm; `row` counts all. */
void nibl_run_hidden(const nibl_run *run, uint32_t row, float *out);

#endif
