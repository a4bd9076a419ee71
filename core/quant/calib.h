/* Calibration: the model computes texts layer by layer, and for the inputs of each group of matrices the sums
 * H = sum x x^T are collected, of one layer at a time. A layer may be computed again with other weights, so that the next
 * one sees what they make of the text. */
#ifndef NIBL_CALIB_H
#define NIBL_CALIB_H

#include "core/forward.h"

/* An input that matrices of a layer share. */
typedef struct nibl_site {
    const nibl_matrix *first; /* of these matrices */
    uint32_t cols, rows_seen;
    float *sums; /* H (cols, cols) in panels (gptq.h) */
    float *squares; /* (cols): mean of x^2, once the layer is computed; or their sum (totals) */
} nibl_site;

typedef struct nibl_calib {
    nibl_model *model;
    nibl_run *run;
    nibl_kv *caches; /* one per window, of one layer */
    size_t cache_count;
    uint32_t rows, chunks;
    float *stream; /* before the layer at hand (rows, width) */
    uint32_t resumed; /* the layer that it is before, where another process computed it; 0 = none */
    void (*enter)(void *context, float *stream,
                  uint32_t rows); /* changes it before the first layer; or NULL */
    void *context;
    float *panels; /* an input of a chunk, 16 columns after the other */
    bool hessians; /* or only squares, */
    bool totals; /* which stay sums */
    nibl_site *sites; /* room for nibl_calib_sites of the model */
    uint32_t site_count;
} nibl_calib;

enum { NIBL_CALIB_FEW = 32 /* rows say nothing of an input */ };

/* The first `count` tokens in windows of `window`, each on its own. Free it in any case. */
nibl_status nibl_calib_begin(nibl_calib *c, nibl_model *model, const int32_t *tokens, size_t count,
                             uint32_t window, bool hessians);
void nibl_calib_free(nibl_calib *c);

/* Computes the next layer and collects its sites. */
nibl_status nibl_calib_layer(nibl_calib *c);
/* Computes it once more, with the weights that it has now. */
nibl_status nibl_calib_again(nibl_calib *c);

/* As if the layers before this one were computed, and their output stood in the run's stream. */
nibl_status nibl_calib_resume(nibl_calib *c, uint32_t layer);

/* Room for the sums of the head's input, the caller's to free. */
nibl_status nibl_calib_open_head(nibl_calib *c, nibl_site *out);
/* Behind the last layer: the sums of the head's input, the caller's to free. */
nibl_status nibl_calib_head(nibl_calib *c, nibl_site *out);
/* Before the first layer: computes the next one on the way there, without sites. NIBL_MORE until *out is known; then the first
 * layer is next again. */
nibl_status nibl_calib_toward_head(nibl_calib *c, nibl_site *out);
void nibl_site_free(nibl_site *site);

/* The first of the matrices that the feed-forward block begins with. */
static inline const nibl_matrix *nibl_calib_first_ffn(const nibl_layer *l) {
    return l->gate && l->gate->rows ? l->gate : l->up;
}

/* Most inputs of a layer: two of its first block, two of every expert. */
static inline uint32_t nibl_calib_sites(const nibl_model *m) {
    return 2 + 2 * nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS);
}

/* Which expert's a matrix is, of those that stand in a row from `first` on; their number where it is none of them. */
static inline uint32_t nibl_calib_expert(const nibl_model *m, const nibl_matrix *first,
                                         const nibl_matrix *matrix) {
    uint32_t e = 0;
    while (e < nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS) && first + e != matrix) e++;
    return e;
}

/* The first of the matrices that share the input of `matrix`. */
static inline const nibl_matrix *nibl_calib_first(const nibl_model *m, const nibl_layer *l,
                                                  const nibl_matrix *matrix) {
    if (matrix == &l->wk || matrix == &l->wv) return &l->wq;
    const uint32_t expert = nibl_calib_expert(m, l->up, matrix);
    return expert < nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS) ? nibl_calib_first_ffn(l) + expert : matrix;
}

/* The first of the matrices that the layer begins with. */
static inline const nibl_matrix *nibl_calib_first_attn(const nibl_layer *l) {
    return l->form.conv ? &l->conv_in : &l->wq;
}

/* The input of a matrix; NULL where it was hardly ever multiplied, or zero for all of the text. */
const nibl_site *nibl_calib_site(const nibl_calib *c, const nibl_matrix *first);

#endif
