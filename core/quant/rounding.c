/* The rows of a matrix of the layer at hand: scaled and turned as the methods have it, rounded by all workers. */
#include "core/encode_grid.h"
#include "core/quant/layerwise.h"

#include <math.h>

static void weigh(const nibl_quantizer *q, const nibl_work *w, const float *x, float *weights) {
    const uint32_t n = w->matrix->cols;
    double sigma = 0, mean = 0;
    for (uint32_t j = 0; j < n; j++) {
        sigma += (double)(x[j] * x[j]) / n;
        mean += (double)w->squares[j] / n;
    }
    for (uint32_t j = 0; j < n; j++) {
        weights[j] = w->squares[j] + 1e-6f * (float)mean;
        if (w->in) weights[j] /= w->in[j] * w->in[j];
        if (q->method.magnitude) weights[j] *= sqrtf((float)sigma + x[j] * x[j]);
    }
}

/* Row of the matrix as it is to be rounded, and what its weights count. */
static void read_row(const nibl_quantizer *q, const nibl_work *w, uint32_t row, float *x, float *weights) {
    const uint32_t n = w->matrix->cols;
    q->kernels->unpack_row(x, w->matrix, row);
    for (uint32_t j = 0; w->in && j < n; j++) x[j] *= w->in[j];
    for (uint32_t j = 0; w->out && j < n; j++) x[j] /= w->out[row];
    if (w->turned) {
        for (uint32_t j = 0; w->norm && j < n; j++) x[j] *= w->norm[j];
        nibl_rotation_apply(q->layerwise->rotation, x, 1, weights);
    }
    if (w->squares) weigh(q, w, x, weights);
}

uint64_t nibl_layerwise_room(const nibl_layerwise *l) {
    return (NIBL_TILE + 1) * l->room_width + NIBL_GPTQ_ROOM(l->room_width);
}

static bool recovers(const nibl_quantizer *q, const nibl_work *w) {
    return q->method.recover && nibl_recover_knows(w->tensor->to);
}

/* Rows [begin, end), 16 at most; returns the first that has a value too large, or `end`. */
static uint32_t encode_rows(nibl_quantizer *q, uint32_t worker, uint32_t begin, uint32_t end) {
    nibl_layerwise *l = q->layerwise;
    const nibl_work *w = l->at;
    const uint32_t n = w->matrix->cols;
    const nibl_dtype *to = w->tensor->to;
    const nibl_grid *grid = nibl_grid_of(to);
    const bool rounded = grid && w->site && q->method.gptq; /* here, and by columns */
    const uint32_t blocks = n / to->block;
    float *room = l->room + worker * nibl_layerwise_room(l), *weights = room + NIBL_TILE * l->room_width;
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
        read_row(q, w, begin + r, x, weights);
        if (!grid) {
            if (!nibl_encode_values(q->kernels, to, x, NULL, n, false,
                                    w->bytes + (size_t)blocks * to->bytes * (begin + r)))
                return begin + r;
        } else if (!nibl_choose_row(q->kernels, to, x, w->squares ? weights : NULL, n, q->method.search,
                                    w->whole, &rows.blocks[r * rows.block_stride])) {
            return begin + r;
        } else if (recovers(q, w) && !w->whole) {
            nibl_recover_row(to, w->tensor->from, x, n, &rows.blocks[r * rows.block_stride],
                             &l->recoveries[worker]);
        }
    }
    if (!grid) return end;
    if (rounded) nibl_gptq_round(&l->factor, q->kernels, &rows);
    for (uint32_t r = 0; r < rows.rows; r++)
        for (uint32_t i = 0; i < blocks; i++)
            (to->layout == NIBL_LAYOUT_PLAIN ? nibl_write_integers : nibl_write_block)(
                to, &rows.blocks[r * rows.block_stride + i],
                w->bytes + ((size_t)blocks * (begin + r) + i) * to->bytes);
    return end;
}

/* The scale of all rows of a matrix. */
static nibl_status choose_whole(nibl_quantizer *q, const nibl_work *w, nibl_block *whole) {
    const nibl_grid *g = nibl_grid_of(w->tensor->to);
    const uint64_t count = (uint64_t)w->matrix->rows * w->matrix->cols;
    float *x = nibl_alloc(8 * count);
    if (!x) return nibl_fail_memory(8 * count, "a matrix");
    float *weights = x + count;
    for (uint32_t row = 0; row < w->matrix->rows; row++)
        read_row(q, w, row, x + (size_t)row * w->matrix->cols, weights + (size_t)row * w->matrix->cols);
    nibl_recovery *recovery = q->layerwise->recoveries;
    const bool fits =
        (recovers(q, w) && nibl_recover_group(g, w->tensor->from, x, (uint32_t)count, whole, recovery)) ||
        g->choose(g, x, w->squares ? weights : NULL, (uint32_t)count, q->method.search, whole);
    nibl_free(x);
    return fits ? NIBL_OK : nibl_quant_refuse(w->tensor, 0, false);
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
    const nibl_layerwise *l = q->layerwise;
    const nibl_work *w = l->at;
    read_row(q, w, row, x, l->room + worker * nibl_layerwise_room(l));
    return w->bytes + (size_t)(w->matrix->cols / w->tensor->to->block) * w->tensor->to->bytes * row;
}

/* Weights that are on no grid, and nothing else is to be done with them. */
static nibl_status refuse_grid(const nibl_quantizer *q, const nibl_work *w, const nibl_recovery *r) {
    nibl_layerwise *l = q->layerwise;
    const nibl_slice name = w->tensor->source->name;
    const char *type = w->tensor->to->name, *other;
    if (r->groups == 0)
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "tensor '%.*s': recover does not look for grids of %s, whose scales depend on each other: take "
            "the type that the model was trained for (q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, mxfp4, tq1_0, "
            "tq2_0, or integers as w4g32)",
            NIBL_SHOW(name), type);
    read_row(q, w, 0, l->room, l->room + l->room_width);
    other = nibl_recover_type(w->tensor->from, l->room, w->matrix->cols);
    return nibl_fail(
        NIBL_E_ARGUMENT,
        "tensor '%.*s': only %llu of its %llu groups of weights lie on a grid of %s%s%s; let another method "
        "follow (recover,clip), or keep such tensors as they are (--tensor PATTERN=f16)",
        NIBL_SHOW(name), (unsigned long long)r->found, (unsigned long long)r->groups, type,
        other ? ", but its first row on one of " : "", other ? other : "");
}

/* What the workers found. */
static nibl_status note_recovery(const nibl_quantizer *q, const nibl_work *w) {
    nibl_recovery *sum = &w->tensor->recovery, all = {0};
    for (uint32_t i = 0; i < nibl_pool_workers(q->layerwise->model->pool); i++) {
        nibl_recovery *r = &q->layerwise->recoveries[i];
        all.groups += r->groups;
        all.found += r->found;
        all.rounded += r->rounded;
        *r = (nibl_recovery){0};
    }
    sum->groups += all.groups;
    sum->found += all.found;
    sum->rounded += all.rounded;
    const bool whole = all.groups > 0 && all.found == all.groups;
    return whole || q->method.rest || !nibl_grid_of(w->tensor->to) ? NIBL_OK : refuse_grid(q, w, &all);
}

nibl_status nibl_layerwise_encode(nibl_quantizer *q, nibl_work *w) {
    nibl_layerwise *l = q->layerwise;
    const nibl_grid *grid = nibl_grid_of(w->tensor->to);
    nibl_block whole = {0};
    w->whole = NULL;
    if (grid && grid->choose && grid->group > w->matrix->cols) {
        NIBL_TRY(choose_whole(q, w, &whole));
        w->whole = &whole;
    }
    l->at = w;
    l->bad_row = UINT64_MAX;
    nibl_pool_run(l->model->pool, encode_job, q);
    if (l->bad_row != UINT64_MAX) return nibl_quant_refuse(w->tensor, l->bad_row, false);
    if (q->method.recover) NIBL_TRY(note_recovery(q, w));
    if (nibl_quant_measures(q, w->tensor))
        NIBL_TRY(nibl_loss_measure(l->model->pool, q->kernels, w->tensor->to, w->matrix->rows,
                                   w->matrix->cols, source_row, q, &w->tensor->loss));
    return nibl_quant_check(q, w->tensor);
}

nibl_status nibl_layerwise_factor(nibl_quantizer *q, const nibl_site *site, const float *scale) {
    nibl_layerwise *l = q->layerwise;
    float *inverse = NULL;
    if (scale && !(inverse = nibl_alloc((uint64_t)site->cols * sizeof *inverse)))
        return nibl_fail_memory((uint64_t)site->cols * sizeof *inverse, "the scales of a layer");
    for (uint32_t j = 0; inverse && j < site->cols; j++) inverse[j] = 1 / scale[j];
    const nibl_status status =
        nibl_factor_make(l->model->pool, q->kernels, site->sums, inverse, site->cols, NIBL_DAMP, &l->factor);
    nibl_free(inverse);
    return status;
}

nibl_status nibl_layerwise_pack(const nibl_quantizer *q, nibl_work *w) {
    const nibl_dtype *to = w->tensor->to;
    nibl_matrix m = nibl_matrix_of(to, w->matrix->rows, w->matrix->cols);
    const uint64_t bytes = (uint64_t)nibl_panel_bytes(&m) * nibl_panels(&m);
    m.data = nibl_alloc_zero(bytes);
    if (!m.data) return nibl_fail_memory(bytes, "the layer");
    bool finite = true;
    for (uint32_t row = 0; row < m.rows; row++)
        q->kernels->pack_row(&m, row, w->bytes + (size_t)(m.cols / to->block) * to->bytes * row, &finite);
    *w->matrix = m;
    return finite ? NIBL_OK : nibl_quant_refuse(w->tensor, 0, false);
}
