#include "core/quant/calib.h"

#include "core/quant/gptq.h"
#include "core/run.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 128, T = NIBL_TILE };

static nibl_status add_windows(nibl_calib *c, const int32_t *tokens, size_t count, uint32_t window,
                               nibl_row *rows) {
    const nibl_hyper *h = &c->model->hyper;
    nibl_hyper one = *h; /* layers take turns: one of each form */
    one.conv_layers = h->conv_layers > 0;
    one.layers = 1 + one.conv_layers;
    for (size_t i = 0; i < c->cache_count; i++) {
        const size_t first = i * window, length = count - first < window ? count - first : window;
        nibl_kv_init(&c->caches[i], &one, NIBL_KV_I8, (uint32_t)length);
        NIBL_TRY(nibl_kv_reserve(&c->caches[i], (uint32_t)length));
        for (size_t t = 0; t < length; t++) {
            const int32_t token = tokens[first + t];
            if (token < 0 || (uint32_t)token >= h->vocabulary)
                return nibl_fail(NIBL_E_ARGUMENT, "calibration token %zu is %d; the vocabulary has %u",
                                 first + t, (int)token, h->vocabulary);
            rows[first + t] = (nibl_row){.kv = &c->caches[i], .token = token, .position = (uint32_t)t};
        }
    }
    return nibl_run_begin(c->run, rows, c->rows, CHUNK, NIBL_ACT_I8);
}

static uint32_t widest_input(const nibl_hyper *h) {
    const uint32_t q = h->heads * h->head_width, widest = h->width > q ? h->width : q;
    return h->ffn_width > widest ? h->ffn_width : widest;
}

nibl_status nibl_calib_begin(nibl_calib *c, nibl_model *model, const int32_t *tokens, size_t count,
                             uint32_t window, bool hessians) {
    *c = (nibl_calib){.model = model, .hessians = hessians};
    if (count == 0 || count > 1u << 20 || window == 0 || window > model->hyper.context_length)
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "%zu calibration tokens in windows of %u: 1 to %u, and at most the model's context of %u, are "
            "possible",
            count, window, 1u << 20, model->hyper.context_length);
    c->rows = (uint32_t)count;
    c->chunks = (c->rows + CHUNK - 1) / CHUNK;
    c->cache_count = (count + window - 1) / window;
    c->caches = nibl_alloc_zero((uint64_t)c->cache_count * sizeof *c->caches);
    c->sites = nibl_alloc((nibl_calib_sites(model) + 1ull) * sizeof *c->sites); /* one more for the head */
    c->stream = nibl_alloc((uint64_t)count * model->hyper.width * sizeof *c->stream);
    c->panels =
        nibl_alloc((uint64_t)nibl_panel_size(widest_input(&model->hyper)) * CHUNK * sizeof *c->panels);
    nibl_row *rows = nibl_alloc((uint64_t)count * sizeof *rows);
    nibl_status status = c->caches && c->sites && c->stream && c->panels && rows
                             ? nibl_run_new(model, &c->run)
                             : nibl_fail_memory(count * model->hyper.width * 4, "calibration");
    if (status == NIBL_OK) status = add_windows(c, tokens, count, window, rows);
    nibl_free(rows);
    return status;
}

void nibl_site_free(nibl_site *site) {
    nibl_free(site->sums);
    nibl_free(site->squares);
    *site = (nibl_site){0};
}

static void free_sites(nibl_calib *c) {
    for (uint32_t i = 0; i < c->site_count; i++) nibl_site_free(&c->sites[i]);
    c->site_count = 0;
}

void nibl_calib_free(nibl_calib *c) {
    free_sites(c);
    for (size_t i = 0; c->caches && i < c->cache_count; i++) nibl_kv_free(&c->caches[i]);
    nibl_free(c->caches);
    nibl_free(c->sites);
    nibl_free(c->stream);
    nibl_free(c->panels);
    nibl_run_free(c->run);
    *c = (nibl_calib){0};
}

/* ---- Sums ---- */

/* Columns 16 `panel` on of the input, one row after the other, and the sums of their squares. */
static void copy_panel(const nibl_calib *c, nibl_site *site, const float *input, size_t stride, uint32_t rows,
                       uint32_t panel) {
    const uint32_t first = panel * T, n = site->cols - first < T ? site->cols - first : T;
    float *out = c->panels + (size_t)panel * CHUNK * T, squares[T] = {0};
    for (uint32_t t = 0; t < rows; t++) {
        const float *x = input + t * stride + first;
        for (uint32_t j = 0; j < T; j++) {
            out[t * T + j] = j < n ? x[j] : 0;
            squares[j] += out[t * T + j] * out[t * T + j];
        }
    }
    for (uint32_t j = 0; j < n; j++) site->squares[first + j] += squares[j];
}

/* H += x^T x: tiles on and below the diagonal. */
static void observe(void *context, const nibl_matrix *w, const float *input, size_t stride, uint32_t rows,
                    uint32_t worker, uint32_t workers) {
    nibl_calib *c = context;
    nibl_site *site = (nibl_site *)nibl_calib_site(c, w);
    if (!site) return;
    const uint32_t size = nibl_panel_size(site->cols), panels = size / T;
    if (worker == 0) site->rows_seen += rows;
    for (uint32_t i = worker; i < panels; i += workers) copy_panel(c, site, input, stride, rows, i);
    nibl_pool_barrier(c->model->pool, worker);
    uint32_t at = 0;
    for (uint32_t j = 0; site->sums && j < panels; j++)
        for (uint32_t i = j; i < panels; i++)
            if (at++ % workers == worker)
                c->model->kernels->tile_f32(site->sums + nibl_panel_at(size, i * T, j * T),
                                            c->panels + (size_t)i * CHUNK * T,
                                            c->panels + (size_t)j * CHUNK * T, rows);
    nibl_pool_barrier(c->model->pool, worker); /* another input may follow */
}

/* The other half of H. */
static void mirror(nibl_site *site) {
    const uint32_t size = nibl_panel_size(site->cols);
    for (uint32_t j = 0; site->sums && j < size; j++)
        for (uint32_t i = (j / T + 1) * T; i < size; i++)
            site->sums[nibl_panel_at(size, j, i)] = site->sums[nibl_panel_at(size, i, j)];
}

const nibl_site *nibl_calib_site(const nibl_calib *c, const nibl_matrix *first) {
    for (uint32_t i = 0; i < c->site_count; i++)
        if (c->sites[i].first == first) return &c->sites[i];
    return NULL;
}

/* Forgets what next to nothing was seen of. */
static void drop_unseen(nibl_calib *c) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->site_count; i++) {
        double sum = 0;
        for (uint32_t j = 0; j < c->sites[i].cols; j++) sum += (double)c->sites[i].squares[j];
        if (sum > 0 && c->sites[i].rows_seen >= (c->rows < NIBL_CALIB_FEW ? c->rows : NIBL_CALIB_FEW))
            c->sites[kept++] = c->sites[i];
        else
            nibl_site_free(&c->sites[i]);
    }
    c->site_count = kept;
}

static nibl_status open_site(nibl_calib *c, const nibl_matrix *first) {
    const uint64_t cols = first->cols, size = nibl_panel_size(first->cols);
    nibl_site *site = &c->sites[c->site_count++];
    *site = (nibl_site){.first = first, .cols = first->cols, .squares = nibl_alloc_zero(4 * cols)};
    const uint64_t bytes = 4 * nibl_panel_room((uint32_t)size);
    if (c->hessians) site->sums = nibl_alloc_zero(bytes);
    return site->squares && (site->sums || !c->hessians) ? NIBL_OK : nibl_fail_memory(bytes, "a Hessian");
}

static nibl_status open_sites(nibl_calib *c, const nibl_layer *l) {
    free_sites(c);
    NIBL_TRY(open_site(c, nibl_calib_first_attn(l)));
    NIBL_TRY(open_site(c, l->form.conv ? &l->conv_out : &l->wo));
    for (uint32_t e = 0; e < nibl_arch_dim(&c->model->hyper, NIBL_DIM_EXPERTS); e++) {
        NIBL_TRY(open_site(c, nibl_calib_first_ffn(l) + e));
        NIBL_TRY(open_site(c, l->down + e));
    }
    return NIBL_OK;
}

/* The caches have one layer, which this one takes for its own. */
static nibl_status run_layer(nibl_calib *c, nibl_layer *layer) {
    uint32_t units = c->chunks;
    const uint32_t index = layer->index;
    layer->index = 0;
    const nibl_status status = nibl_run_advance(c->run, &units);
    layer->index = index;
    return status == NIBL_NEED_DATA && units > 0
               ? nibl_fail(NIBL_E_ARGUMENT, "the model's weights have not all arrived")
               : status;
}

/* Sums become whole and squares means; returns the sum of those. */
static double finish(const nibl_calib *c, nibl_site *site) {
    double sum = 0;
    mirror(site);
    for (uint32_t j = 0; j < site->cols; j++) {
        if (!c->totals) site->squares[j] /= (float)(site->rows_seen ? site->rows_seen : 1);
        sum += (double)site->squares[j];
    }
    return sum;
}

nibl_status nibl_calib_resume(nibl_calib *c, uint32_t layer) {
    memcpy(c->stream, c->run->x, (size_t)c->rows * c->model->hyper.width * sizeof *c->stream);
    c->resumed = layer;
    return NIBL_OK;
}

nibl_status nibl_calib_layer(nibl_calib *c) {
    uint32_t layer = 0, none = 0;
    NIBL_TRY(nibl_run_advance(c->run, &none)); /* embeds the tokens */
    if (c->resumed) {
        memcpy(c->run->x, c->stream, (size_t)c->rows * c->model->hyper.width * sizeof *c->stream);
        c->run->layer = c->resumed;
        c->resumed = 0;
    }
    float *x = nibl_run_stream(c->run, false, &layer);
    if (layer == 0 && c->enter) c->enter(c->context, x, c->rows);
    memcpy(c->stream, x, (size_t)c->rows * c->model->hyper.width * sizeof *x);
    NIBL_TRY(open_sites(c, &c->model->layers[layer]));
    nibl_run_observe(c->run, observe, c);
    NIBL_TRY(run_layer(c, &c->model->layers[layer]));
    nibl_run_observe(c->run, NULL, NULL);
    for (uint32_t i = 0; i < c->site_count; i++) {
        double sum = finish(c, &c->sites[i]);
        if (!isfinite(sum))
            return nibl_fail(NIBL_E_NUMERIC, "layer %u: calibration computes values that are not finite",
                             layer);
    }
    drop_unseen(c);
    return NIBL_OK;
}

nibl_status nibl_calib_again(nibl_calib *c) {
    uint32_t layer;
    float *x = nibl_run_stream(c->run, true, &layer);
    memcpy(x, c->stream, (size_t)c->rows * c->model->hyper.width * sizeof *x);
    return run_layer(c, &c->model->layers[layer]);
}

/* The rows behind the last layer as the head sees them: a chunk of them after the other, in place. */
static void observe_head(void *context, uint32_t worker, uint32_t workers) {
    nibl_calib *c = context;
    const nibl_model *m = c->model;
    const uint32_t width = m->hyper.width;
    for (uint32_t first = 0; first < c->rows; first += CHUNK) {
        const uint32_t rows = c->rows - first < CHUNK ? c->rows - first : CHUNK;
        float *x = c->run->x + (size_t)first * width;
        for (uint32_t t = worker; t < rows; t += workers)
            nibl_normalise(c->run, x + t * width, x + t * width, m->output_norm, m->output_norm_bias, width);
        nibl_pool_barrier(m->pool, worker);
        observe(c, &m->head, x, width, rows, worker, workers);
        nibl_pool_barrier(m->pool, worker);
    }
}

nibl_status nibl_calib_open_head(nibl_calib *c, nibl_site *out) {
    NIBL_TRY(open_site(c, &c->model->head));
    *out = c->sites[--c->site_count];
    return NIBL_OK;
}

nibl_status nibl_calib_head(nibl_calib *c, nibl_site *out) {
    NIBL_TRY(open_site(c, &c->model->head));
    nibl_pool_run(c->model->pool, observe_head, c);
    *out = c->sites[--c->site_count];
    return isfinite(finish(c, out))
               ? NIBL_OK
               : nibl_fail(NIBL_E_NUMERIC, "calibration computes values that are not finite");
}

nibl_status nibl_calib_toward_head(nibl_calib *c, nibl_site *out) {
    nibl_run *run = c->run;
    NIBL_TRY(run_layer(c, &c->model->layers[run->layer]));
    if (run->layer < c->model->hyper.layers) return NIBL_MORE;
    NIBL_TRY(nibl_calib_head(c, out));
    run->layer = run->row = 0;
    run->embedded = false;
    return NIBL_OK;
}
