/*
 * Quantizing a model in memory with what a text makes of it: layer by layer in the order of the forward pass. A layer is
 * computed and its inputs are measured; scales move between its matrices (AWQ); its rows are rounded; and before the next
 * one is measured it is computed again as it will be (true-sequential GPTQ). The model is left as it was.
 */
#include "core/encode_grid.h"
#include "core/quant/awq.h"
#include "core/loader.h"
#include "core/quant/integers.h"
#include "core/quant/layerwise.h"
#include "core/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHARED = 3 /* matrices that have one input, at most */, VECTORS = 5 /* that take scales back */ };

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

/* Whether what goes before an input can take its scale back: a norm that nothing else sees, the values of
 * attention where every head has its own, or the upper of the two matrices before the last. */
static bool folds(const nibl_model *m, const nibl_layer *layer, const nibl_matrix *first) {
    if (first == nibl_calib_first_attn(layer)) return layer->attn_norm != NULL;
    if (first == &layer->conv_out) return false;
    if (first == &layer->wo) return m->hyper.heads == m->hyper.kv_heads && !layer->attn_sub_norm;
    if (nibl_calib_expert(m, layer->down, first) == nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS))
        return m->hyper.experts == 0 && layer->ffn_norm;
    return !m->arch->ungated && !layer->up_bias && !layer->ffn_sub_norm &&
           m->arch->activation != NIBL_ACTIVATE_CLAMPED;
}

static nibl_status find_scales(nibl_quantizer *q, const nibl_layer *layer) {
    nibl_layerwise *l = q->layerwise;
    for (uint32_t s = 0; s < l->calib.site_count; s++) {
        const nibl_site *site = &l->calib.sites[s];
        const nibl_matrix *matrices[SHARED];
        const nibl_dtype *types[SHARED];
        uint32_t count = 0;
        const bool foldable = folds(l->model, layer, site->first);
        for (uint32_t i = 0; i < l->work_count; i++) {
            if (l->works[i].site != site) continue;
            if (!foldable) l->works[i].tensor->unscaled++;
            if (!foldable) continue;
            matrices[count] = l->works[i].matrix;
            types[count++] = l->works[i].tensor->to;
        }
        if (!foldable) continue;
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
        nibl_work *w = &l->works[i];
        w->in = nibl_layerwise_scale(l, w->site);
        if (w->matrix == &layer->wv) w->out = nibl_layerwise_scale(l, nibl_calib_site(&l->calib, &layer->wo));
        const uint32_t expert = nibl_calib_expert(l->model, layer->up, w->matrix);
        if (expert < nibl_arch_dim(&l->model->hyper, NIBL_DIM_EXPERTS))
            w->out = nibl_layerwise_scale(l, nibl_calib_site(&l->calib, layer->down + expert));
    }
}

static nibl_status encode_layer(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    nibl_status status = NIBL_OK;
    for (uint32_t s = 0; s < l->calib.site_count && status == NIBL_OK; s++) {
        nibl_site *site = &l->calib.sites[s];
        bool factored = false;
        for (uint32_t i = 0; i < l->work_count && status == NIBL_OK; i++) {
            nibl_work *w = &l->works[i];
            if (w->site != site) continue;
            if (q->method.gptq && !factored) {
                status = nibl_layerwise_factor(q, site, w->in);
                factored = true;
            }
            if (status == NIBL_OK) status = nibl_layerwise_encode(q, w);
        }
        nibl_factor_free(&l->factor);
        nibl_free(site->sums);
        site->sums = NULL;
    }
    for (uint32_t i = 0; i < l->work_count && status == NIBL_OK; i++)
        if (!l->works[i].site) status = nibl_layerwise_encode(q, &l->works[i]);
    return status;
}

/* Computes the layer as it will be. */
static nibl_status compute_again(nibl_quantizer *q, nibl_layer *layer) {
    nibl_layerwise *l = q->layerwise;
    const uint32_t width = l->model->hyper.width;
    float **const places[VECTORS] = {&layer->attn_norm, &layer->attn_norm_bias, &layer->ffn_norm,
                                     &layer->ffn_norm_bias, &layer->bv},
                  *plain[VECTORS];
    const uint32_t longest = layer->wv.rows > width ? layer->wv.rows : width;
    float *scaled = nibl_alloc(4ull * VECTORS * longest);
    nibl_status status =
        scaled ? NIBL_OK : nibl_fail_memory(4ull * VECTORS * longest, "the norms of a layer");
    for (uint32_t i = 0; i < l->work_count; i++) l->works[i].original = *l->works[i].matrix;
    for (uint32_t i = 0; i < l->work_count && status == NIBL_OK; i++)
        status = nibl_layerwise_pack(q, &l->works[i]);
    if (status == NIBL_OK) {
        for (uint32_t i = 0; i < VECTORS; i++) {
            const float *scale =
                nibl_layerwise_scale(l, nibl_calib_site(&l->calib, nibl_layerwise_taker(layer, places[i])));
            float *own = scaled + (size_t)i * longest;
            plain[i] = *places[i];
            nibl_layerwise_divide(own, plain[i], scale, places[i] == &layer->bv ? layer->wv.rows : width);
            if (plain[i]) *places[i] = own;
        }
        status = nibl_calib_again(&l->calib);
        for (uint32_t i = 0; i < VECTORS; i++) *places[i] = plain[i];
    }
    for (uint32_t i = 0; i < l->work_count; i++) {
        nibl_matrix *m = l->works[i].matrix;
        if (m->data != l->works[i].original.data) nibl_free(m->data);
        *m = l->works[i].original;
    }
    nibl_free(scaled);
    return status;
}

/* The layer at hand with its matrices turned, and the norms in them. */
static nibl_status turn_layer(nibl_layerwise *l, nibl_layer *layer) {
    nibl_matrix *places[NIBL_ROTATED];
    NIBL_TRY(nibl_rotate_layer(l->model, layer, l->rotation, l->turned));
    nibl_rotate_matrices(layer, places);
    l->plain_layer = *layer;
    l->turned_layer = layer;
    for (uint32_t i = 0; i < NIBL_ROTATED; i++) {
        if (!l->turned[i].data) continue;
        l->plain[i] = *places[i];
        *places[i] = l->turned[i];
    }
    layer->attn_norm = layer->ffn_norm = l->ones;
    return NIBL_OK;
}

static void turn_back(nibl_layerwise *l) {
    nibl_matrix *places[NIBL_ROTATED];
    if (l->turned_layer) {
        nibl_rotate_matrices(l->turned_layer, places);
        for (uint32_t i = 0; i < NIBL_ROTATED; i++)
            if (l->turned[i].data) *places[i] = l->plain[i];
        l->turned_layer->attn_norm = l->plain_layer.attn_norm;
        l->turned_layer->ffn_norm = l->plain_layer.ffn_norm;
    }
    l->turned_layer = NULL;
    for (uint32_t i = 0; i < NIBL_ROTATED; i++) {
        nibl_free(l->turned[i].data);
        l->turned[i].data = NULL;
    }
}

static void free_works(nibl_layerwise *l) {
    turn_back(l);
    for (uint32_t i = 0; i < l->work_count; i++) nibl_free(l->works[i].block);
    l->work_count = 0;
    for (uint32_t s = 0; l->scales && s < l->site_count; s++) {
        nibl_free(l->scales[s]);
        l->scales[s] = NULL;
    }
}

/* The first layer sees the embedding as it was rounded. */
static nibl_status calibrate(nibl_layerwise *l) {
    const nibl_matrix original = l->model->embedding;
    if (l->embedding.data) l->model->embedding = l->embedding;
    const nibl_status status = nibl_calib_layer(&l->calib);
    l->model->embedding = original;
    nibl_free(l->embedding.data);
    l->embedding.data = NULL;
    return status;
}

/* The matrices of a tensor; their rows stand one behind the other. */
static nibl_status add_works(nibl_quantizer *q, const nibl_layer *layer, size_t index) {
    nibl_layerwise *l = q->layerwise;
    const nibl_output *o = &l->outputs.items[index];
    nibl_quant_tensor *t = &q->recipe.tensors[index];
    if (!l->outputs.parts[o->first].matrix) return NIBL_OK;
    uint8_t *bytes = nibl_alloc(t->bytes);
    if (!bytes) return nibl_fail_memory(t->bytes, "the layer");
    for (uint32_t i = 0; i < o->count; i++) {
        nibl_matrix *matrix = l->outputs.parts[o->first + i].matrix;
        nibl_work *w = &l->works[l->work_count++];
        *w = (nibl_work){.tensor = t, .matrix = matrix, .bytes = bytes, .block = i == 0 ? bytes : NULL};
        w->site = nibl_calib_site(&l->calib, nibl_calib_first(l->model, layer, matrix));
        w->squares = w->site ? w->site->squares : l->importance.of ? l->importance.of[o->first + i] : NULL;
        t->uncalibrated += (l->calibrated || l->importance.of) && !w->squares && nibl_grid_of(t->to);
        bytes += (size_t)(t->bytes / t->rows) * matrix->rows;
    }
    return NIBL_OK;
}

static nibl_status quantize_layer(nibl_quantizer *q, nibl_layer *layer, size_t begin, size_t end) {
    nibl_layerwise *l = q->layerwise;
    if (l->rotation) NIBL_TRY(turn_layer(l, layer));
    if (l->calibrated) NIBL_TRY(calibrate(l));
    for (size_t i = begin; i < end; i++) NIBL_TRY(add_works(q, layer, i));
    if (q->measure && l->calibrated) NIBL_TRY(note_salient(q));
    if (q->method.awq) {
        NIBL_TRY(find_scales(q, layer));
        fold_scales(l, layer);
    }
    NIBL_TRY(encode_layer(q));
    return q->method.gptq && end < l->outputs.count ? compute_again(q, layer) : NIBL_OK;
}

/* A layer on the way to the head; weights that come and go come once more afterwards. */
static nibl_status see_head(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    nibl_model *m = l->model;
    uint32_t layer;
    nibl_run_stream(l->calib.run, false, &layer);
    const bool last = layer + 1 == m->hyper.layers;
    m->open = layer + 1 + last;
    if (!nibl_model_part_ready(m, 0) || !nibl_model_part_ready(m, layer + 1) ||
        !nibl_model_part_ready(m, m->open))
        return NIBL_NEED_DATA;
    const nibl_status status = nibl_calib_toward_head(&l->calib, &l->head);
    for (uint32_t part = layer + 1; m->parts && part <= m->open; part++) nibl_model_drop_part(m, part);
    l->wants_head = !last;
    m->again = last && m->parts;
    return status == NIBL_OK ? NIBL_MORE : status;
}

nibl_status nibl_quantizer_step(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    if (!l) return nibl_fail(NIBL_E_ARGUMENT, "this quantizer works on what its loader is fed");
    const nibl_model *m = l->model;
    nibl_quant_shrink(q);
    if (l->wants_head) return see_head(q);
    if (l->output == l->outputs.count) return l->more ? nibl_layerwise_write_document(q) : NIBL_OK;
    const nibl_output *items = l->outputs.items;
    if (items[l->output].at_hand) {
        NIBL_TRY(nibl_layerwise_write_vector(q, l->output++));
        return l->output == l->outputs.count ? NIBL_OK : NIBL_MORE; /* of a GGUF file */
    }
    nibl_layer *layer = m->bindings[items[l->output].binding].layer;
    const uint32_t part = l->model->open = m->bindings[items[l->output].binding].section;
    size_t end = l->output + 1;
    while (layer && end < l->outputs.count && m->bindings[items[end].binding].section == part) end++;
    if (!nibl_model_part_ready(m, part) || (l->calib.resumed && !nibl_model_part_ready(m, 0)))
        return NIBL_NEED_DATA;
    if (layer) NIBL_TRY(quantize_layer(q, layer, l->output, end));
    if (m->parts && l->by_tensor && l->work_count > 0)
        nibl_model_drop_part(l->model, part); /* before there is room for the output */
    uint64_t bytes = 0;
    for (size_t i = l->output; i < end; i++)
        bytes +=
            (l->folder ? q->recipe.tensors[i].stored : q->recipe.tensors[i].bytes) + NIBL_QUANT_ALIGNMENT;
    if (layer) NIBL_TRY(nibl_quant_reserve(q, bytes));
    for (; l->output < end; l->output++)
        NIBL_TRY(!l->outputs.parts[items[l->output].first].matrix ? nibl_layerwise_write_vector(q, l->output)
                 : layer                                          ? nibl_layerwise_write_work(q, l->output)
                         : nibl_layerwise_write_matrix(q, l->output));
    free_works(l);
    if (m->parts && (layer || l->by_tensor)) nibl_model_drop_part(l->model, part);
    if (m->parts && layer && !l->by_tensor && !l->bindings)
        nibl_model_drop_part(l->model, 0); /* the embedding is in the stream */
    return end == l->outputs.count && !l->more ? NIBL_OK : NIBL_MORE;
}

/* ---- Beginning and end ---- */

static void free_layerwise(nibl_layerwise *l) {
    free_works(l);
    if (l->bindings) {
        nibl_free(l->model->bindings);
        l->model->bindings = l->bindings;
        l->model->binding_count--;
        l->model->tied = true;
    }
    nibl_rotation_free(l->rotation);
    nibl_free(l->ones);
    nibl_factor_free(&l->factor);
    nibl_site_free(&l->head);
    nibl_free(l->embedding.data);
    nibl_calib_free(&l->calib);
    nibl_importance_free(&l->importance);
    nibl_folder_free(l->folder);
    nibl_outputs_free(&l->outputs);
    nibl_free(l->works);
    nibl_free(l->scales);
    nibl_free(l->room);
    nibl_free(l->blocks);
    nibl_free(l->recoveries);
    nibl_free(l);
}

static void turn_stream(void *context, float *stream, uint32_t rows) {
    const nibl_layerwise *l = context;
    const uint32_t width = l->model->hyper.width;
    for (uint32_t t = 0; t < rows; t++)
        nibl_rotation_apply(l->rotation, stream + (size_t)t * width, 1, l->room);
}

/* A head that was the embedding becomes a tensor of its own, for as long as the quantizer lives. */
static nibl_status untie(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    nibl_model *m = l->model;
    const uint64_t bytes = (uint64_t)(m->binding_count + 1) * sizeof *m->bindings;
    NIBL_TRY(nibl_recipe_untie(&q->recipe));
    nibl_binding *longer = nibl_alloc(bytes);
    if (!longer) return nibl_fail_memory(bytes, "the list of tensors");
    memcpy(longer, m->bindings, (size_t)bytes - sizeof *longer);
    longer[m->binding_count] =
        (nibl_binding){.slot = NIBL_SLOT_HEAD, .matrix = &m->embedding, .missing = &m->missing_embedding};
    nibl_outputs_untie(&l->outputs, m, m->binding_count);
    l->bindings = m->bindings;
    m->bindings = longer;
    m->binding_count++;
    m->tied = false;
    return NIBL_OK;
}

static nibl_status begin_rotation(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    const uint32_t width = l->model->hyper.width;
    NIBL_TRY(nibl_rotate_check(l->model));
    NIBL_TRY(nibl_rotation_new(width, 0, &l->rotation));
    l->ones = nibl_alloc(4ull * width);
    if (!l->ones) return nibl_fail_memory(4ull * width, "the norms");
    for (uint32_t i = 0; i < width; i++) l->ones[i] = 1;
    return l->model->tied ? untie(q) : NIBL_OK;
}

/* Whether the head, or the embedding that is it, gets fewer bits. */
static bool rounds_head(const nibl_quantizer *q) {
    for (size_t i = 0; i < q->recipe.count; i++)
        if (nibl_outputs_is_head(&q->layerwise->outputs, q->layerwise->model, i) &&
            nibl_grid_of(q->recipe.tensors[i].to))
            return true;
    return false;
}

/* With a file of importance only methods that look at squares of inputs, one at least. */
static nibl_status read_method(const nibl_quantize_options *o, bool calibrated, nibl_method *out) {
    if (o->imatrix && calibrated)
        return nibl_fail(NIBL_E_ARGUMENT, "an imatrix file stands for a calibration text: take one of them");
    NIBL_TRY(nibl_method_read(nibl_recipe_method(o), calibrated || o->imatrix, out));
    if (!o->imatrix || (out->search && !out->awq && !out->gptq && !out->rotate)) return NIBL_OK;
    return nibl_fail(NIBL_E_ARGUMENT, "method %.64s: with an imatrix file imatrix and clip are possible; %s",
                     nibl_recipe_method(o),
                     out->search || out->awq || out->rotate
                         ? "awq, gptq and rotate need the text, for the file does not tell how inputs "
                           "go together"
                         : "rtn does not look at inputs");
}

/* Takes the outputs over. */
static nibl_status begin(nibl_quantizer *q, nibl_model *model, const nibl_quantize_options *o,
                         nibl_outputs *outputs, const int32_t *tokens, size_t count, uint32_t window) {
    const uint64_t works = 16 + 3ull * model->hyper.experts;
    NIBL_TRY(read_method(o, count > 0, &q->method));
    NIBL_TRY(nibl_session_grow_pool(model, o->threads));
    const bool by_tensor = count == 0 && !q->method.rotate;
    nibl_model_divide(model, by_tensor);
    nibl_layerwise *l = q->layerwise = nibl_alloc_zero(sizeof *l);
    if (!l) return nibl_fail_memory(sizeof *l, "the quantizer");
    q->free_layerwise = free_layerwise;
    l->model = model;
    l->outputs = *outputs;
    *outputs = (nibl_outputs){0};
    l->by_tensor = by_tensor;
    l->calibrated = count > 0;
    l->site_count = nibl_calib_sites(model);
    l->works = nibl_alloc_zero(works * sizeof *l->works);
    l->scales = nibl_alloc_zero(l->site_count * sizeof *l->scales);
    if (!l->works || !l->scales) return nibl_fail_memory(works * sizeof *l->works, "the quantizer");
    if (o->imatrix) NIBL_TRY(nibl_importance_read(o->imatrix, o->imatrix_bytes, &l->outputs, &l->importance));
    if (q->recipe.folder) q->recipe.count = nibl_outputs_leave_factors(&l->outputs);
    if (q->method.rotate) NIBL_TRY(begin_rotation(q));
    if (q->recipe.folder) {
        NIBL_TRY(nibl_recipe_describe(&q->recipe, o));
        NIBL_TRY(nibl_folder_new(model, &l->outputs, &q->recipe, o, &l->folder, &q->size));
        for (size_t i = 0; i < q->recipe.count; i++)
            q->recipe.tensors[i].stored = nibl_folder_bytes(l->folder, i);
        q->taken = l->more = true;
    } else {
        NIBL_TRY(nibl_quant_begin(q, o));
    }
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        if (nibl_panel_size((uint32_t)t->cols) > l->room_width)
            l->room_width = nibl_panel_size((uint32_t)t->cols);
        if (t->cols / t->to->block > l->block_width && nibl_grid_of(t->to))
            l->block_width = t->cols / t->to->block;
    }
    const uint64_t workers = nibl_pool_workers(model->pool);
    l->room = nibl_alloc(workers * nibl_layerwise_room(l) * sizeof *l->room);
    l->blocks = nibl_alloc_zero(workers * NIBL_TILE * (l->block_width + 1) * sizeof *l->blocks);
    l->recoveries = nibl_alloc_zero(workers * sizeof *l->recoveries);
    if (!l->room || !l->blocks || !l->recoveries)
        return nibl_fail_memory(workers * nibl_layerwise_room(l) * 4, "the workers");
    if (!l->calibrated) return NIBL_OK;
    const nibl_status status =
        nibl_calib_begin(&l->calib, model, tokens, count, window, q->method.awq || q->method.gptq);
    if (l->rotation) {
        l->calib.enter = turn_stream;
        l->calib.context = l;
    }
    l->wants_head = status == NIBL_OK && !l->rotation && q->method.search && rounds_head(q);
    return status;
}

nibl_status nibl_model_quantizer_new(nibl_model *model, const nibl_quantize_options *options,
                                     const int32_t *tokens, size_t count, uint32_t window,
                                     nibl_quantizer **out) {
    nibl_quantizer *q = NULL;
    nibl_outputs outputs;
    nibl_status status = nibl_outputs_new(model, &outputs);
    if (status == NIBL_OK)
        status =
            nibl_quant_new(model->gguf, outputs.tensors, outputs.count, options, &nibl_quant_integers, &q);
    if (status == NIBL_OK) status = begin(q, model, options, &outputs, tokens, count, window);
    nibl_outputs_free(&outputs);
    if (status < 0)
        nibl_quantizer_free(q);
    else
        *out = q;
    return status;
}

bool nibl_quantize_needs_model(nibl_loader *loader, const nibl_quantize_options *o) {
    const char *const names[] = {o->type, o->embedding, o->head};
    nibl_integers form;
    nibl_gguf *gguf = NULL;
    const bool folder = o->format && strcmp(o->format, "safetensors") == 0;
    bool needs =
        folder || o->imatrix || (o->method && (strstr(o->method, "rotate") || strstr(o->method, "recover")));
    for (size_t i = 0; i < 3 + o->tensor_count; i++) {
        const char *name = i < 3 ? names[i] : o->tensors[i - 3].type;
        needs = needs || (name && nibl_integers_read(name, &form));
    }
    return needs || (loader && nibl_loader_header(loader, &gguf) == NIBL_OK && nibl_recipe_is_apart(gguf));
}
