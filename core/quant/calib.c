#include "core/quant/calib.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 64, UNROLL = 4 };

static nibl_status add_windows(nibl_calib *c, const int32_t *tokens, size_t count, uint32_t window,
                               nibl_row *rows) {
    const nibl_hyper *h = &c->model->hyper;
    for (size_t i = 0; i < c->cache_count; i++) {
        const size_t first = i * window, length = count - first < window ? count - first : window;
        nibl_kv_init(&c->caches[i], h, NIBL_KV_I8, (uint32_t)length);
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
    c->stream = nibl_alloc((uint64_t)count * model->hyper.width * sizeof *c->stream);
    nibl_row *rows = nibl_alloc((uint64_t)count * sizeof *rows);
    nibl_status status = c->caches && c->stream && rows
                             ? nibl_run_new(model, &c->run)
                             : nibl_fail_memory(count * model->hyper.width * 4, "calibration");
    if (status == NIBL_OK) status = add_windows(c, tokens, count, window, rows);
    nibl_free(rows);
    return status;
}

static void free_sites(nibl_calib *c) {
    for (uint32_t i = 0; i < c->site_count; i++) {
        nibl_free(c->sites[i].sums);
        nibl_free(c->sites[i].squares);
    }
    c->site_count = 0;
}

void nibl_calib_free(nibl_calib *c) {
    free_sites(c);
    for (size_t i = 0; c->caches && i < c->cache_count; i++) nibl_kv_free(&c->caches[i]);
    nibl_free(c->caches);
    nibl_free(c->stream);
    nibl_run_free(c->run);
    *c = (nibl_calib){0};
}

/* ---- Sums ---- */

/* Row i of the lower triangle of H, of UNROLL rows of the input at a time. */
static void add_products(float *sums, const float *input, size_t stride, uint32_t rows, uint32_t i) {
    uint32_t t = 0;
    for (; t + UNROLL <= rows; t += UNROLL) {
        const float *x0 = input + t * stride, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
        const float a0 = x0[i], a1 = x1[i], a2 = x2[i], a3 = x3[i];
        for (uint32_t j = 0; j <= i; j++) sums[j] += (a0 * x0[j] + a1 * x1[j]) + (a2 * x2[j] + a3 * x3[j]);
    }
    for (; t < rows; t++) {
        const float *x = input + t * stride, a = x[i];
        for (uint32_t j = 0; j <= i; j++) sums[j] += a * x[j];
    }
}

static void observe(void *context, const nibl_matrix *w, const float *input, size_t stride, uint32_t rows,
                    uint32_t worker, uint32_t workers) {
    nibl_calib *c = context;
    nibl_site *site = (nibl_site *)nibl_calib_site(c, w);
    if (!site) return;
    if (worker == 0) site->rows_seen += rows;
    for (uint32_t i = worker; i < w->cols; i += workers) {
        if (site->sums) add_products(site->sums + (size_t)i * w->cols, input, stride, rows, i);
        for (uint32_t t = 0; t < rows; t++) site->squares[i] += input[t * stride + i] * input[t * stride + i];
    }
}

const nibl_site *nibl_calib_site(const nibl_calib *c, const nibl_matrix *first) {
    for (uint32_t i = 0; i < c->site_count; i++)
        if (c->sites[i].first == first) return &c->sites[i];
    return NULL;
}

static nibl_status open_sites(nibl_calib *c, const nibl_layer *l) {
    const nibl_matrix *const firsts[] = {&l->wq, &l->wo, nibl_calib_first_ffn(l), l->down};
    free_sites(c);
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        const uint64_t cols = firsts[i]->cols;
        nibl_site *site = &c->sites[c->site_count++];
        *site = (nibl_site){.first = firsts[i], .cols = (uint32_t)cols, .squares = nibl_alloc_zero(4 * cols)};
        if (c->hessians) site->sums = nibl_alloc_zero(4 * cols * cols);
        if (!site->squares || (c->hessians && !site->sums))
            return nibl_fail_memory(4 * cols * cols, "a Hessian");
    }
    return NIBL_OK;
}

static nibl_status run_layer(nibl_calib *c) {
    uint32_t units = c->chunks;
    const nibl_status status = nibl_run_advance(c->run, &units);
    return status == NIBL_NEED_DATA ? nibl_fail(NIBL_E_ARGUMENT, "the model's weights have not all arrived")
                                    : status;
}

nibl_status nibl_calib_layer(nibl_calib *c) {
    uint32_t layer = 0, none = 0;
    NIBL_TRY(nibl_run_advance(c->run, &none)); /* embeds the tokens */
    const float *x = nibl_run_stream(c->run, false, &layer);
    memcpy(c->stream, x, (size_t)c->rows * c->model->hyper.width * sizeof *x);
    NIBL_TRY(open_sites(c, &c->model->layers[layer]));
    nibl_run_observe(c->run, observe, c);
    NIBL_TRY(run_layer(c));
    nibl_run_observe(c->run, NULL, NULL);
    for (uint32_t i = 0; i < c->site_count; i++) {
        nibl_site *site = &c->sites[i];
        double sum = 0;
        for (uint32_t j = 0; j < site->cols; j++) {
            site->squares[j] /= (float)(site->rows_seen ? site->rows_seen : 1);
            sum += (double)site->squares[j];
        }
        if (!isfinite(sum))
            return nibl_fail(NIBL_E_NUMERIC, "layer %u: calibration computes values that are not finite",
                             layer);
        if (!(sum > 0))
            return nibl_fail(NIBL_E_ARGUMENT, "layer %u: an input is zero for all of the calibration text",
                             layer);
    }
    return NIBL_OK;
}

nibl_status nibl_calib_again(nibl_calib *c) {
    uint32_t layer;
    float *x = nibl_run_stream(c->run, true, &layer);
    memcpy(x, c->stream, (size_t)c->rows * c->model->hyper.width * sizeof *x);
    return run_layer(c);
}
