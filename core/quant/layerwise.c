/*
 * Quantizing a model in memory with what a text makes of it: layer by layer in the order of the forward pass. A layer is
 * computed and its inputs are measured; scales move between its matrices (AWQ); its rows are rounded; and before the next
 * one is measured it is computed again as it will be (true-sequential GPTQ). The model is left as it was.
 */
#include "core/encode.h"
#include "core/quant/awq.h"
#include "core/quant/calib.h"
#include "core/quant/gptq.h"
#include "core/quant/quant.h"
#include "core/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MATRICES = 7 };
static const double DAMP = 0.01;

/* A matrix of the layer at hand on its way. */
typedef struct work {
    nibl_quant_tensor *tensor;
    nibl_matrix *matrix, original;
    const nibl_site *site; /* NULL: nothing is known of its input */
    const float *in, *out; /* its columns are multiplied by `in`, its rows divided by `out`; NULL = 1 */
    uint8_t *bytes; /* encoded rows */
} work;

struct nibl_layerwise {
    nibl_model *model;
    nibl_calib calib;
    size_t binding; /* the next one */
    float *scales[NIBL_MAX_SITES]; /* of AWQ, by site */
    work works[MATRICES];
    uint32_t work_count;
    nibl_factor factor; /* of the site at hand */
    /* one per worker */
    float *room; /* of 16 rows the values (16, widest), of one the weights (widest), NIBL_GPTQ_ROOM(widest) */
    nibl_block *blocks; /* of 16 rows */
    uint64_t room_width, block_width;
    /* the rows at work */
    const work *at;
    uint64_t bad_row;
};

static float *scale_of(const nibl_layerwise *l, const nibl_site *site) {
    return site ? l->scales[site - l->calib.sites] : NULL;
}

/* ---- Rows ---- */

static void weigh(const nibl_quantizer *q, const work *w, const float *x, float *weights) {
    const nibl_site *site = w->site;
    const uint32_t n = site->cols;
    double sigma = 0, mean = 0;
    for (uint32_t j = 0; j < n; j++) {
        sigma += (double)(x[j] * x[j]) / n;
        mean += (double)site->squares[j] / n;
    }
    for (uint32_t j = 0; j < n; j++) {
        weights[j] = site->squares[j] + 1e-6f * (float)mean;
        if (w->in) weights[j] /= w->in[j] * w->in[j];
        if (q->method.magnitude) weights[j] *= sqrtf((float)sigma + x[j] * x[j]);
    }
}

static uint64_t room_of(const nibl_layerwise *l) {
    return (NIBL_TILE + 1) * l->room_width + NIBL_GPTQ_ROOM(l->room_width);
}

/* Rows [begin, end), 16 at most; returns the first that has a value too large, or `end`. */
static uint32_t encode_rows(nibl_quantizer *q, uint32_t worker, uint32_t begin, uint32_t end) {
    nibl_layerwise *l = q->layerwise;
    const work *w = l->at;
    const uint32_t n = w->matrix->cols;
    const nibl_dtype *to = w->tensor->to;
    const nibl_grid *grid = nibl_grid_of(to);
    const bool rounded = grid && w->site && q->method.gptq; /* here, and by columns */
    const uint32_t blocks = n / to->block;
    float *room = l->room + worker * room_of(l), *weights = room + NIBL_TILE * l->room_width;
    const nibl_gptq_rows rows = {.grid = grid,
                                 .block = to->block,
                                 .rows = end - begin,
                                 .x = room,
                                 .stride = (size_t)l->room_width,
                                 .blocks = l->blocks + (size_t)worker * NIBL_TILE * l->block_width,
                                 .block_stride = (size_t)l->block_width,
                                 .room = weights + l->room_width};
    for (uint32_t r = 0; r < rows.rows; r++) {
        float *x = room + r * l->room_width;
        q->kernels->unpack_row(x, w->matrix, begin + r);
        for (uint32_t j = 0; w->in && j < n; j++) x[j] *= w->in[j];
        for (uint32_t j = 0; w->out && j < n; j++) x[j] /= w->out[begin + r];
        if (w->site) weigh(q, w, x, weights);
        if (!rounded && !nibl_encode_values(q->kernels, to, x, w->site ? weights : NULL, n, q->method.search,
                                            w->bytes + (size_t)blocks * to->bytes * (begin + r)))
            return begin + r;
        for (uint32_t i = 0; rounded && i < blocks; i++)
            if (!nibl_choose_block(q->kernels, grid, x + i * to->block, weights + i * to->block, to->block,
                                   true, &rows.blocks[r * rows.block_stride + i]))
                return begin + r;
    }
    if (!rounded) return end;
    nibl_gptq_round(&l->factor, q->kernels, &rows);
    for (uint32_t r = 0; r < rows.rows; r++)
        for (uint32_t i = 0; i < blocks; i++)
            nibl_write_block(to, &rows.blocks[r * rows.block_stride + i],
                             w->bytes + ((size_t)blocks * (begin + r) + i) * to->bytes);
    return end;
}

static void encode_job(void *context, uint32_t worker, uint32_t workers) {
    nibl_quantizer *q = context;
    nibl_layerwise *l = q->layerwise;
    const uint32_t rows = l->at->matrix->rows;
    nibl_claims claims =
        nibl_pool_divide(l->model->pool, worker, workers, (rows + NIBL_TILE - 1) / NIBL_TILE, 1);
    for (uint32_t first, last; nibl_pool_claim(&claims, &first, &last);)
        for (uint32_t i = first; i < last; i++) {
            const uint32_t begin = i * NIBL_TILE, end = rows - begin < NIBL_TILE ? rows : begin + NIBL_TILE,
                           done = encode_rows(q, worker, begin, end);
            if (done < end) l->bad_row = done; /* any of several */
        }
}

/* For nibl_loss_measure: a row of the matrix at work. */
static const uint8_t *source_row(void *context, uint32_t worker, uint32_t row, float *x) {
    const nibl_quantizer *q = context;
    const work *w = q->layerwise->at;
    (void)worker;
    q->kernels->unpack_row(x, w->matrix, row);
    for (uint32_t j = 0; w->in && j < w->matrix->cols; j++) x[j] *= w->in[j];
    for (uint32_t j = 0; w->out && j < w->matrix->cols; j++) x[j] /= w->out[row];
    return w->bytes + (size_t)(w->matrix->cols / w->tensor->to->block) * w->tensor->to->bytes * row;
}

static nibl_status encode_matrix(nibl_quantizer *q, const work *w) {
    nibl_layerwise *l = q->layerwise;
    l->at = w;
    l->bad_row = UINT64_MAX;
    nibl_pool_run(l->model->pool, encode_job, q);
    if (l->bad_row != UINT64_MAX) return nibl_quant_refuse(w->tensor, l->bad_row, false);
    return q->measure ? nibl_loss_measure(l->model->pool, q->kernels, w->tensor->to, w->matrix->rows,
                                          w->matrix->cols, source_row, q, &w->tensor->loss)
                      : NIBL_OK;
}

/* ---- A layer ---- */

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Notes the channels of the layer's inputs that carry most. */
static nibl_status note_salient(nibl_quantizer *q) {
    const nibl_layerwise *l = q->layerwise;
    for (uint32_t s = 0; s < l->calib.site_count; s++) {
        const nibl_site *site = &l->calib.sites[s];
        uint32_t first = 0;
        while (first < l->work_count && l->works[first].site != site) first++;
        if (first == l->work_count) continue;
        void *grown = q->salient;
        NIBL_TRY(nibl_reserve(&grown, &q->salient_capacity, q->salient_count + 1, sizeof *q->salient,
                              "the report"));
        q->salient = grown;
        float *sorted = nibl_alloc((uint64_t)site->cols * sizeof *sorted);
        if (!sorted) return nibl_fail_memory((uint64_t)site->cols * sizeof *sorted, "the report");
        memcpy(sorted, site->squares, site->cols * sizeof *sorted);
        qsort(sorted, site->cols, sizeof *sorted, ascending);
        nibl_salient *salient = &q->salient[q->salient_count++];
        *salient = (nibl_salient){.tensor = l->works[first].tensor, .median = sqrtf(sorted[site->cols / 2])};
        for (; salient->count < NIBL_MOST_CHANNELS && salient->count < site->cols; salient->count++) {
            const float square = sorted[site->cols - 1 - salient->count];
            uint32_t channel = 0; /* the first that has it and is not there yet */
            for (;; channel++) {
                bool taken = site->squares[channel] < square || site->squares[channel] > square;
                for (uint32_t i = 0; i < salient->count; i++)
                    taken = taken || salient->channels[i] == channel;
                if (!taken) break;
            }
            salient->channels[salient->count] = channel;
            salient->magnitudes[salient->count] = sqrtf(square);
        }
        nibl_free(sorted);
    }
    return NIBL_OK;
}

/* Whether what goes before an input can take its scale back: a norm without bias, the values of attention where every head
 * has its own, or the upper of the two matrices before the last. */
static bool folds(const nibl_model *m, const nibl_layer *layer, const nibl_matrix *first) {
    if (first == &layer->wq) return layer->attn_norm && !layer->attn_norm_bias;
    if (first == nibl_calib_first_ffn(layer)) return layer->ffn_norm && !layer->ffn_norm_bias;
    if (first == &layer->wo)
        return m->hyper.heads == m->hyper.kv_heads && !layer->bv && !layer->attn_sub_norm;
    return !m->arch->ungated && !layer->up_bias && !layer->ffn_sub_norm &&
           m->arch->activation != NIBL_ACTIVATE_CLAMPED;
}

static nibl_status find_scales(nibl_quantizer *q, const nibl_layer *layer) {
    nibl_layerwise *l = q->layerwise;
    for (uint32_t s = 0; s < l->calib.site_count; s++) {
        const nibl_site *site = &l->calib.sites[s];
        const nibl_matrix *matrices[MATRICES];
        const nibl_dtype *types[MATRICES];
        uint32_t count = 0;
        if (!folds(l->model, layer, site->first)) continue;
        for (uint32_t i = 0; i < l->work_count; i++) {
            if (l->works[i].site != site) continue;
            matrices[count] = l->works[i].matrix;
            types[count++] = l->works[i].tensor->to;
        }
        nibl_free(l->scales[s]);
        l->scales[s] = nibl_alloc((uint64_t)site->cols * sizeof(float));
        if (!l->scales[s])
            return nibl_fail_memory((uint64_t)site->cols * sizeof(float), "the scales of a layer");
        NIBL_TRY(nibl_awq_search(l->model->pool, site, q->kernels, matrices, types, count, l->scales[s]));
    }
    return NIBL_OK;
}

static void fold_scales(nibl_layerwise *l, const nibl_layer *layer) {
    for (uint32_t i = 0; i < l->work_count; i++) {
        work *w = &l->works[i];
        w->in = scale_of(l, w->site);
        if (w->matrix == &layer->wv) w->out = scale_of(l, nibl_calib_site(&l->calib, &layer->wo));
        if (w->matrix == layer->up) w->out = scale_of(l, nibl_calib_site(&l->calib, layer->down));
    }
}

static nibl_status encode_layer(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    nibl_status status = NIBL_OK;
    for (uint32_t s = 0; s < l->calib.site_count && status == NIBL_OK; s++) {
        const nibl_site *site = &l->calib.sites[s];
        bool factored = false;
        for (uint32_t i = 0; i < l->work_count && status == NIBL_OK; i++) {
            const work *w = &l->works[i];
            if (w->site != site) continue;
            if (q->method.gptq && !factored) {
                float *inverse = NULL; /* the inputs are divided by the scale */
                if (w->in && !(inverse = nibl_alloc((uint64_t)site->cols * sizeof *inverse)))
                    status =
                        nibl_fail_memory((uint64_t)site->cols * sizeof *inverse, "the scales of a layer");
                for (uint32_t j = 0; inverse && j < site->cols; j++) inverse[j] = 1 / w->in[j];
                if (status == NIBL_OK)
                    status = nibl_factor_make(l->model->pool, q->kernels, site->sums, inverse, site->cols,
                                              DAMP, &l->factor);
                nibl_free(inverse);
                factored = true;
            }
            if (status == NIBL_OK) status = encode_matrix(q, w);
        }
        nibl_factor_free(&l->factor);
    }
    return status;
}

/* The matrix as its encoded rows make it. */
static nibl_status pack_work(const nibl_quantizer *q, work *w) {
    const nibl_dtype *to = w->tensor->to;
    nibl_matrix m = {.rows = w->matrix->rows,
                     .cols = w->matrix->cols,
                     .kind = (uint8_t)to->kind,
                     .scale = (uint8_t)to->scale,
                     .layout = (uint8_t)to->layout,
                     .factor = 1};
    const uint64_t bytes = (uint64_t)nibl_panel_bytes(&m) * nibl_panels(&m);
    m.data = nibl_alloc_zero(bytes);
    if (!m.data) return nibl_fail_memory(bytes, "the layer");
    bool finite = true;
    for (uint32_t row = 0; row < m.rows; row++)
        q->kernels->pack_row(&m, row, w->bytes + (size_t)(m.cols / to->block) * to->bytes * row, &finite);
    *w->matrix = m;
    return finite ? NIBL_OK : nibl_quant_refuse(w->tensor, 0, false);
}

/* x may be NULL: an architecture may lack the norm. */
static void divide(float *out, const float *x, const float *scale, uint32_t n) {
    for (uint32_t i = 0; x && i < n; i++) out[i] = scale ? x[i] / scale[i] : x[i];
}

/* Computes the layer as it will be. */
static nibl_status compute_again(nibl_quantizer *q, nibl_layer *layer) {
    nibl_layerwise *l = q->layerwise;
    const uint32_t width = l->model->hyper.width;
    float *const norms[] = {layer->attn_norm, layer->ffn_norm};
    float *scaled = nibl_alloc(8ull * width);
    nibl_status status = scaled ? NIBL_OK : nibl_fail_memory(8ull * width, "the norms of a layer");
    for (uint32_t i = 0; i < l->work_count; i++) l->works[i].original = *l->works[i].matrix;
    for (uint32_t i = 0; i < l->work_count && status == NIBL_OK; i++) status = pack_work(q, &l->works[i]);
    if (status == NIBL_OK) {
        divide(scaled, norms[0], scale_of(l, nibl_calib_site(&l->calib, &layer->wq)), width);
        divide(scaled + width, norms[1], scale_of(l, nibl_calib_site(&l->calib, nibl_calib_first_ffn(layer))),
               width);
        if (norms[0]) layer->attn_norm = scaled;
        if (norms[1]) layer->ffn_norm = scaled + width;
        status = nibl_calib_again(&l->calib);
        layer->attn_norm = norms[0];
        layer->ffn_norm = norms[1];
    }
    for (uint32_t i = 0; i < l->work_count; i++) {
        nibl_matrix *m = l->works[i].matrix;
        if (m->data != l->works[i].original.data) nibl_free(m->data);
        *m = l->works[i].original;
    }
    nibl_free(scaled);
    return status;
}

static void free_works(nibl_layerwise *l) {
    for (uint32_t i = 0; i < l->work_count; i++) nibl_free(l->works[i].bytes);
    l->work_count = 0;
    for (uint32_t s = 0; s < NIBL_MAX_SITES; s++) {
        nibl_free(l->scales[s]);
        l->scales[s] = NULL;
    }
}

static nibl_status quantize_layer(nibl_quantizer *q, nibl_layer *layer, size_t begin, size_t end) {
    nibl_layerwise *l = q->layerwise;
    NIBL_TRY(nibl_calib_layer(&l->calib));
    for (size_t i = begin; i < end; i++) {
        const nibl_binding *b = &l->model->bindings[i];
        if (!b->matrix) continue;
        work *w = &l->works[l->work_count++];
        *w = (work){.tensor = &q->recipe.tensors[i], .matrix = b->matrix};
        w->site = nibl_calib_site(&l->calib, nibl_calib_first(layer, b->matrix));
        w->bytes = nibl_alloc(w->tensor->bytes);
        if (!w->bytes) return nibl_fail_memory(w->tensor->bytes, "the layer");
    }
    if (q->measure) NIBL_TRY(note_salient(q));
    if (q->method.awq) {
        NIBL_TRY(find_scales(q, layer));
        fold_scales(l, layer);
    }
    NIBL_TRY(encode_layer(q));
    return q->method.gptq && end < l->model->binding_count ? compute_again(q, layer) : NIBL_OK;
}

/* ---- The output ---- */

static nibl_status write_gap(nibl_quantizer *q, uint64_t bytes) {
    uint8_t *place;
    const size_t gap = (size_t)((NIBL_QUANT_ALIGNMENT - bytes % NIBL_QUANT_ALIGNMENT) % NIBL_QUANT_ALIGNMENT);
    NIBL_TRY(nibl_quant_extend(q, gap, &place));
    memset(place, 0, gap);
    return NIBL_OK;
}

static nibl_status write_vector(nibl_quantizer *q, const nibl_binding *b, const nibl_quant_tensor *t) {
    nibl_layerwise *l = q->layerwise;
    const nibl_layer *layer = b->layer;
    const nibl_matrix *first = !layer                           ? NULL
                               : b->vector == &layer->attn_norm ? &layer->wq
                               : b->vector == &layer->ffn_norm  ? nibl_calib_first_ffn(layer)
                                                                : NULL;
    const uint64_t count = t->rows * t->cols;
    float *x = nibl_alloc(4 * count);
    uint8_t *place = NULL;
    if (!x) return nibl_fail_memory(4 * count, "a vector");
    divide(x, *b->vector, first ? scale_of(l, nibl_calib_site(&l->calib, first)) : NULL, (uint32_t)count);
    nibl_status status = nibl_quant_extend(q, (size_t)t->bytes, &place);
    if (status == NIBL_OK && !nibl_encode_values(q->kernels, t->to, x, NULL, (uint32_t)count, false, place))
        status = nibl_quant_refuse(t, 0, false);
    nibl_free(x);
    return status;
}

/* A matrix outside of layers. */
static nibl_status write_matrix(nibl_quantizer *q, const nibl_binding *b, nibl_quant_tensor *t) {
    work w = {.tensor = t, .matrix = b->matrix, .bytes = nibl_alloc(t->bytes)};
    uint8_t *place = NULL;
    if (!w.bytes) return nibl_fail_memory(t->bytes, "a matrix");
    nibl_status status = encode_matrix(q, &w);
    if (status == NIBL_OK) status = nibl_quant_extend(q, (size_t)t->bytes, &place);
    if (status == NIBL_OK) memcpy(place, w.bytes, (size_t)t->bytes);
    nibl_free(w.bytes);
    return status;
}

static nibl_status write_work(nibl_quantizer *q, const nibl_quant_tensor *t) {
    const nibl_layerwise *l = q->layerwise;
    uint8_t *place;
    uint32_t i = 0;
    while (l->works[i].tensor != t) i++;
    NIBL_TRY(nibl_quant_extend(q, (size_t)t->bytes, &place));
    memcpy(place, l->works[i].bytes, (size_t)t->bytes);
    return NIBL_OK;
}

nibl_status nibl_quantizer_step(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    if (!l) return nibl_fail(NIBL_E_ARGUMENT, "this quantizer works on what its loader is fed");
    const nibl_model *m = l->model;
    if (l->binding == m->binding_count) return NIBL_OK;
    nibl_layer *layer = m->bindings[l->binding].layer;
    size_t end = l->binding + 1;
    while (layer && end < m->binding_count && m->bindings[end].layer == layer) end++;
    if (layer) NIBL_TRY(quantize_layer(q, layer, l->binding, end));
    for (; l->binding < end; l->binding++) {
        const nibl_binding *b = &m->bindings[l->binding];
        nibl_quant_tensor *t = &q->recipe.tensors[l->binding];
        NIBL_TRY(!b->matrix ? write_vector(q, b, t) : layer ? write_work(q, t) : write_matrix(q, b, t));
        NIBL_TRY(write_gap(q, t->bytes));
    }
    free_works(l);
    return end == m->binding_count ? NIBL_OK : NIBL_MORE;
}

/* ---- Beginning and end ---- */

/* The recipe's tensors in the order of the bindings. */
static nibl_status order_tensors(const nibl_model *m, nibl_recipe *r) {
    bool plain = m->binding_count == r->count && !m->quantization.method && !m->transposed &&
                 m->hyper.experts == 0 && m->hyper.conv_layers == 0;
    for (size_t i = 0; i < m->binding_count && plain; i++)
        plain = m->bindings[i].offset == 0 && !m->bindings[i].next;
    if (!plain)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "architecture %s: models with experts, convolutions or matrices that share a tensor "
                         "cannot be calibrated yet",
                         m->arch->name);
    const uint64_t bytes = (uint64_t)r->count * sizeof *r->tensors;
    nibl_quant_tensor *sorted = nibl_alloc(bytes);
    if (!sorted) return nibl_fail_memory(bytes, "the list of tensors");
    for (size_t i = 0; i < r->count; i++) {
        const nibl_gguf_tensor *source = nibl_gguf_tensor_at(m->gguf, m->bindings[i].tensor);
        size_t j = 0;
        while (r->tensors[j].source != source) j++;
        sorted[i] = r->tensors[j];
    }
    nibl_free(r->tensors);
    r->tensors = sorted;
    return NIBL_OK;
}

static void free_layerwise(nibl_layerwise *l) {
    free_works(l);
    nibl_factor_free(&l->factor);
    nibl_calib_free(&l->calib);
    nibl_free(l->room);
    nibl_free(l->blocks);
    nibl_free(l);
}

static nibl_status begin(nibl_quantizer *q, nibl_model *model, const nibl_quantize_options *o,
                         const int32_t *tokens, size_t count, uint32_t window) {
    NIBL_TRY(nibl_method_read(o->method, true, &q->method));
    NIBL_TRY(order_tensors(model, &q->recipe));
    NIBL_TRY(nibl_quant_begin(q, o));
    NIBL_TRY(nibl_session_grow_pool(model, o->threads));
    nibl_layerwise *l = q->layerwise = nibl_alloc_zero(sizeof *l);
    if (!l) return nibl_fail_memory(sizeof *l, "the quantizer");
    q->free_layerwise = free_layerwise;
    l->model = model;
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        if (nibl_panel_size((uint32_t)t->cols) > l->room_width)
            l->room_width = nibl_panel_size((uint32_t)t->cols);
        if (t->cols / t->to->block > l->block_width && nibl_grid_of(t->to))
            l->block_width = t->cols / t->to->block;
    }
    const uint64_t workers = nibl_pool_workers(model->pool);
    l->room = nibl_alloc(workers * room_of(l) * sizeof *l->room);
    l->blocks = nibl_alloc_zero(workers * NIBL_TILE * (l->block_width + 1) * sizeof *l->blocks);
    if (!l->room || !l->blocks) return nibl_fail_memory(workers * room_of(l) * 4, "the workers");
    return nibl_calib_begin(&l->calib, model, tokens, count, window, q->method.awq || q->method.gptq);
}

nibl_status nibl_model_quantizer_new(nibl_model *model, const nibl_quantize_options *options,
                                     const int32_t *tokens, size_t count, uint32_t window,
                                     nibl_quantizer **out) {
    nibl_quantizer *q = NULL;
    if (!nibl_model_complete(model))
        return nibl_fail(NIBL_E_ARGUMENT, "the model's weights have not all arrived");
    NIBL_TRY(nibl_quant_new(model->gguf, options, &q));
    const nibl_status status = begin(q, model, options, tokens, count, window);
    if (status < 0)
        nibl_quantizer_free(q);
    else
        *out = q;
    return status;
}
