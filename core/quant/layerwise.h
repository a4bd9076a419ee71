/* A model in memory on its way, layer by layer: what layerwise.c (the order of work), rounding.c (the rows of a matrix) and
 * writing.c (what comes out) share. */
#ifndef NIBL_LAYERWISE_H
#define NIBL_LAYERWISE_H

#include "core/quant/calib.h"
#include "core/quant/folder.h"
#include "core/quant/gptq.h"
#include "core/quant/imatrix.h"
#include "core/quant/outputs.h"
#include "core/quant/quant.h"
#include "core/quant/rotate.h"

/* A matrix of the layer at hand on its way. */
typedef struct nibl_work {
    nibl_quant_tensor *tensor;
    nibl_matrix *matrix, original;
    const nibl_site *site; /* NULL: no text was seen there */
    const float *squares; /* (cols): mean squares of its input; NULL: nothing is known */
    const float *in, *out; /* its columns are multiplied by `in`, its rows divided by `out`; NULL = 1 */
    uint8_t *bytes; /* encoded rows */
    uint8_t *block; /* all of the tensor's, of the first of its matrices; else NULL */
    const float *norm; /* of matrices outside of layers that are turned: their columns are multiplied by it */
    bool turned;
    nibl_block *whole; /* the scale of the matrix, where it has one for all rows */
} nibl_work;

struct nibl_layerwise {
    nibl_model *model;
    bool calibrated;
    nibl_importance importance; /* of a file, in place of a text; or none */
    bool by_tensor; /* one after the other: nothing looks at layers */
    nibl_calib calib;
    nibl_folder *folder; /* the output; NULL = GGUF */
    bool more; /* of it after the tensors */
    nibl_outputs outputs;
    size_t output; /* the next one */
    uint32_t site_count, work_count;
    float **scales; /* (site_count) of AWQ */
    nibl_work *works; /* of the layer at hand */
    nibl_factor factor; /* of the site at hand */
    bool wants_head; /* the head is rounded by what it sees, which is not known yet */
    nibl_site head; /* that */
    nibl_matrix embedding; /* as it was rounded, until the first layer has seen it; or none */
    /* one per worker */
    float *room; /* of 16 rows the values (16, widest), of one the weights (widest), NIBL_GPTQ_ROOM(widest) */
    nibl_block *blocks; /* of 16 rows */
    uint64_t room_width, block_width;
    nibl_recovery *recoveries;
    /* of a model that is turned (rotate.h) */
    nibl_rotation *rotation; /* NULL = it is not */
    float *ones; /* (width): norms */
    nibl_layer plain_layer; /* the layer at hand as it was */
    nibl_matrix turned[NIBL_ROTATED], plain[NIBL_ROTATED];
    nibl_layer *turned_layer; /* it; NULL = none */
    nibl_binding *bindings; /* the model's own, where a head was added to them */
    /* the rows at work */
    const nibl_work *at;
    uint64_t bad_row;
};

static inline float *nibl_layerwise_scale(const nibl_layerwise *l, const nibl_site *site) {
    return site ? l->scales[site - l->calib.sites] : NULL;
}

/* The first of the matrices whose input's scale a vector of the layer takes back: a norm's, its bias', that of the values. */
static inline const nibl_matrix *nibl_layerwise_taker(const nibl_layer *layer, float *const *vector) {
    if (vector == &layer->attn_norm || vector == &layer->attn_norm_bias) return nibl_calib_first_attn(layer);
    if (vector == &layer->ffn_norm || vector == &layer->ffn_norm_bias) return nibl_calib_first_ffn(layer);
    return vector == &layer->bv ? &layer->wo : NULL;
}

/* x may be NULL: an architecture may lack the norm. */
static inline void nibl_layerwise_divide(float *out, const float *x, const float *scale, uint32_t n) {
    for (uint32_t i = 0; x && i < n; i++) out[i] = scale ? x[i] / scale[i] : x[i];
}

/* Floats that a worker needs (nibl_layerwise.room). */
uint64_t nibl_layerwise_room(const nibl_layerwise *l);

/* ---- rounding.c ---- */

/* Prepares rounding by columns for matrices of a site, whose inputs were divided by `scale` (NULL = 1). */
nibl_status nibl_layerwise_factor(nibl_quantizer *q, const nibl_site *site, const float *scale);

/* Rounds a matrix to its tensor's type, into its bytes. */
nibl_status nibl_layerwise_encode(nibl_quantizer *q, nibl_work *w);

/* Packs those anew, to take the matrix's place: *w->matrix, whose old data stay the caller's. */
nibl_status nibl_layerwise_pack(const nibl_quantizer *q, nibl_work *w);

/* ---- writing.c: the next tensor, or the next document behind the tensors ---- */

nibl_status nibl_layerwise_write_vector(nibl_quantizer *q, size_t index);
nibl_status nibl_layerwise_write_matrix(nibl_quantizer *q, size_t index); /* outside of layers */
nibl_status nibl_layerwise_write_work(nibl_quantizer *q, size_t index);
nibl_status nibl_layerwise_write_document(nibl_quantizer *q);

#endif
