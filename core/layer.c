/*
 * A layer of a transformer, with what its architecture has of it:
 *   x += r postnorm(Wo subnorm(attention(rope(norm(Wq n + bq)), rope(norm(Wk n + bk)), Wv n + bv)) + bo),   n = norm(x)
 *   x += r postnorm(Wdown subnorm(f(Wgate n + bg) * (Wup n + bu)) + bd),                                    n = norm(x)
 * (Llama, arXiv:2302.13971, has the norms before and no bias). The first line may be a short convolution (LFM2,
 * arXiv:2511.23404) instead: x += Wout (c * conv(b * y)), (b, c, y) = Win n.
 */
#include "core/run.h"

#include <string.h>

/* Claims of a worker in its own share of a matrix product: what a straggler holds up at most is one of them. */
enum { CLAIMS = 8 };

bool nibl_product_is_float(const nibl_run *run, const nibl_matrix *w) {
    return run->activations == NIBL_ACT_F32 || nibl_kind_is_float((nibl_kind)w->kind);
}

/* Brings an input into the order of the columns that it meets. */
static void reorder(const nibl_run *run, const nibl_matrix *w, float *input, uint32_t worker) {
    float *copy = (float *)(void *)(run->scratch + worker * run->scratch_bytes);
    if (!w->gather) return;
    memcpy(copy, input, w->cols * sizeof *copy);
    for (uint32_t j = 0; j < w->cols; j++) input[j] = copy[w->gather[j]];
}

void nibl_quantize_row(const nibl_run *run, const nibl_product *products, uint32_t count, uint32_t t,
                       uint32_t worker) {
    const uint32_t cols = products[0].w->cols;
    reorder(run, products[0].w, nibl_input_of(run, t), worker);
    for (uint32_t i = 0; i < count; i++) {
        if (nibl_product_is_float(run, products[i].w)) continue;
        run->model->kernels->quantize(run->act + (size_t)t * (cols / NIBL_BLOCK), nibl_input_of(run, t),
                                      cols);
        return;
    }
}

/* Panels [begin, end) of the products' panels one after the other. */
static void multiply_panels(const nibl_run *run, const nibl_product *products, uint32_t begin, uint32_t end,
                            uint8_t *scratch) {
    const nibl_kernels *k = run->model->kernels;
    for (const nibl_product *p = products; begin < end; p++) {
        const uint32_t n = nibl_panels(p->w), to = nibl_smaller(end, n);
        if (begin < to && nibl_product_is_float(run, p->w))
            k->matmul_float(p->y, p->stride, p->w, begin, to, nibl_input_of(run, p->first), run->widest,
                            p->rows);
        else if (begin < to)
            nibl_matmul(k, p->y, p->stride, p->w, begin, to,
                        run->act + (size_t)p->first * (p->w->cols / NIBL_BLOCK), p->rows, scratch);
        begin = begin > n ? begin - n : 0;
        end = end > n ? end - n : 0;
    }
}

void nibl_multiply(const nibl_run *run, const nibl_product *products, uint32_t count, uint32_t worker,
                   uint32_t workers) {
    uint32_t panels = 0;
    for (uint32_t i = 0; run->observer && i < count; i++)
        if (i == 0 || products[i].first != products[i - 1].first)
            run->observer(run->observer_context, products[i].w, nibl_input_of(run, products[i].first),
                          run->widest, products[i].rows, worker, workers);
    for (uint32_t i = 0; i < count; i++) panels += nibl_panels(products[i].w);
    nibl_claims claims =
        nibl_pool_divide(run->model->pool, worker, workers, panels, panels / (workers * CLAIMS));
    for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);)
        multiply_panels(run, products, begin, end, run->scratch + worker * run->scratch_bytes);
    nibl_pool_barrier(run->model->pool, worker);
}

void nibl_normalise(const nibl_run *run, float *y, const float *x, const float *weight, const float *bias,
                    uint32_t n) {
    const nibl_kernels *k = run->model->kernels;
    if (!weight)
        memmove(y, x, n * sizeof *y);
    else if (bias)
        k->layernorm(y, x, weight, bias, n, run->model->hyper.norm_epsilon);
    else
        k->rmsnorm(y, x, weight, n, run->model->hyper.norm_epsilon);
}

static float *stream(const nibl_run *run, uint32_t t) {
    return run->x + (size_t)(run->row + t) * run->model->hyper.width;
}

/* Normalises the residual stream into the next input. Workers have the same rows here as when a block is added, so no
 * barrier stands between. */
static void norm_rows(const nibl_run *run, const float *weight, const float *bias, const nibl_product *next,
                      uint32_t count, uint32_t worker, uint32_t workers) {
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) {
        nibl_normalise(run, nibl_input_of(run, t), stream(run, t), weight, bias, run->model->hyper.width);
        nibl_quantize_row(run, next, count, t, worker);
    }
    nibl_pool_barrier(run->model->pool, worker);
}

void nibl_add_row(const nibl_run *run, uint32_t t, float *y, const float *bias, const float *post_norm) {
    const nibl_hyper *h = &run->model->hyper;
    float *x = stream(run, t);
    for (uint32_t i = 0; bias && i < h->width; i++) y[i] += bias[i];
    if (post_norm) nibl_normalise(run, y, y, post_norm, NULL, h->width);
    if (h->residual_scale < 1.0f || h->residual_scale > 1.0f)
        for (uint32_t i = 0; i < h->width; i++) x[i] += y[i] * h->residual_scale;
    else
        for (uint32_t i = 0; i < h->width; i++) x[i] += y[i];
}

static void add_rows(const nibl_run *run, const float *bias, const float *post_norm, uint32_t worker,
                     uint32_t workers) {
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++)
        nibl_add_row(run, t, run->output + (size_t)t * run->out_width, bias, post_norm);
}

void nibl_activate_columns(const nibl_run *run, const nibl_layer *l, uint32_t t, uint32_t rows,
                           uint32_t expert, uint32_t at, uint32_t n) {
    const nibl_model *m = run->model;
    const bool gated = !m->arch->ungated;
    float *gate = run->hidden + (size_t)t * run->ffn_width + at, *up = gate + (size_t)rows * run->ffn_width;
    const float *gate_bias = gated ? l->gate_bias : l->up_bias, *up_bias = gated ? l->up_bias : NULL;
    const size_t offset = (size_t)expert * m->hyper.ffn_width + at;
    for (uint32_t i = 0; gate_bias && i < n; i++) gate[i] += gate_bias[offset + i];
    for (uint32_t i = 0; up_bias && i < n; i++) up[i] += up_bias[offset + i];
    m->kernels->activate(nibl_input_of(run, t) + at, gate, gated ? up : NULL, n, m->arch->activation);
}

/* Rounds `input` to int8, and before that, with `l`, computes it as the activation: in units of 32 columns, or of rows
 * where they are normalised or change places. */
static void finish_input(const nibl_run *run, const nibl_product *next, const nibl_layer *l,
                         const float *sub_norm, uint32_t worker, uint32_t workers) {
    const nibl_kernels *k = run->model->kernels;
    const uint32_t cols = next->w->cols, unit = sub_norm || next->w->gather ? cols : NIBL_BLOCK;
    const uint32_t units = (cols + unit - 1) / unit;
    const nibl_share mine = nibl_share_of(run->chunk_rows * units, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end;) {
        const uint32_t t = u / units, begin = u % units, end = nibl_smaller(units, begin + mine.end - u);
        const uint32_t at = begin * unit, n = nibl_smaller(end * unit, cols) - at;
        float *input = nibl_input_of(run, t) + at;
        if (l) nibl_activate_columns(run, l, t, run->chunk_rows, 0, at, n);
        if (sub_norm) nibl_normalise(run, input, input, sub_norm, NULL, cols);
        reorder(run, next->w, input, worker);
        if (!nibl_product_is_float(run, next->w))
            k->quantize(run->act + (size_t)t * (cols / NIBL_BLOCK) + at / NIBL_BLOCK, input, n);
        u += end - begin;
    }
    nibl_pool_barrier(run->model->pool, worker);
}

static void run_attention(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const uint32_t rows = run->chunk_rows;
    const nibl_product qkv[] = {{&l->wq, nibl_q_of(run, 0), run->q_width, 0, rows},
                                {&l->wk, nibl_kv_of(run, 0, false), run->kv_width, 0, rows},
                                {&l->wv, nibl_kv_of(run, 0, true), run->kv_width, 0, rows}};
    const nibl_product out = {&l->wo, run->output, run->out_width, 0, rows};
    norm_rows(run, l->attn_norm, l->attn_norm_bias, qkv, 3, worker, workers);
    nibl_multiply(run, qkv, 3, worker, workers);
    nibl_attend(run, l, worker, workers);
    finish_input(run, &out, NULL, l->attn_sub_norm, worker, workers);
    nibl_multiply(run, &out, 1, worker, workers);
    add_rows(run, l->bo, l->post_attn_norm, worker, workers);
}

/* Each row's b * y goes to the cache first, since rows behind it see it. */
static void convolve(const nibl_run *run, const nibl_layer *l, const nibl_product *next, uint32_t worker,
                     uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) {
        const nibl_row *row = &run->rows[run->row + t];
        const float *b = run->conv + (size_t)t * run->conv_width, *y = b + 2 * (size_t)h->width;
        float *product = nibl_kv_conv(row->kv, l->index, row->position);
        for (uint32_t i = 0; i < h->width; i++) product[i] = b[i] * y[i];
    }
    nibl_pool_barrier(run->model->pool, worker);
    for (uint32_t t = mine.begin; t < mine.end; t++) {
        const nibl_row *row = &run->rows[run->row + t];
        const float *c = run->conv + (size_t)t * run->conv_width + h->width;
        float *input = nibl_input_of(run, t);
        memset(input, 0, h->width * sizeof *input);
        for (uint32_t j = 0; j < h->conv_length; j++) {
            const uint32_t back = h->conv_length - 1 - j;
            if (back > row->position) continue;
            const float *seen = nibl_kv_conv(row->kv, l->index, row->position - back);
            for (uint32_t i = 0; i < h->width; i++)
                input[i] += l->conv[(size_t)i * h->conv_length + j] * seen[i];
        }
        for (uint32_t i = 0; i < h->width; i++) input[i] *= c[i];
        nibl_quantize_row(run, next, 1, t, worker);
    }
    nibl_pool_barrier(run->model->pool, worker);
}

static void run_convolution(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const uint32_t rows = run->chunk_rows;
    const nibl_product in = {&l->conv_in, run->conv, run->conv_width, 0, rows},
                       out = {&l->conv_out, run->output, run->out_width, 0, rows};
    norm_rows(run, l->attn_norm, l->attn_norm_bias, &in, 1, worker, workers);
    nibl_multiply(run, &in, 1, worker, workers);
    convolve(run, l, &out, worker, workers);
    nibl_multiply(run, &out, 1, worker, workers);
    add_rows(run, NULL, l->post_attn_norm, worker, workers);
}

static void run_ffn(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const uint32_t rows = run->chunk_rows;
    float *up = run->hidden + (run->model->arch->ungated ? 0 : (size_t)rows * run->ffn_width);
    const nibl_product gate_up[] = {{l->gate, run->hidden, run->ffn_width, 0, rows},
                                    {l->up, up, run->ffn_width, 0, rows}};
    const uint32_t count = run->model->arch->ungated ? 1 : 2;
    const nibl_product *products = gate_up + 2 - count;
    const nibl_product down = {l->down, run->output, run->out_width, 0, rows};
    norm_rows(run, l->ffn_norm, l->ffn_norm_bias, products, count, worker, workers);
    nibl_multiply(run, products, count, worker, workers);
    finish_input(run, &down, l, l->ffn_sub_norm, worker, workers);
    nibl_multiply(run, &down, 1, worker, workers);
    add_rows(run, l->down_bias, l->post_ffn_norm, worker, workers);
}

static void run_routed_ffn(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_product products[] = {
        {&l->router, run->routing.logits, nibl_padded(run->model->hyper.experts), 0, run->chunk_rows},
        {l->gate, NULL, 0, 0, 0},
        {l->up, NULL, 0, 0, 0}};
    norm_rows(run, l->ffn_norm, l->ffn_norm_bias, products, 3, worker, workers);
    nibl_multiply(run, products, 1, worker, workers);
    nibl_run_experts(run, l, worker, workers);
}

void nibl_run_layer(const nibl_run *run, uint32_t layer, uint32_t worker, uint32_t workers) {
    const nibl_layer *l = &run->model->layers[layer];
    if (l->form.conv)
        run_convolution(run, l, worker, workers);
    else
        run_attention(run, l, worker, workers);
    if (run->model->hyper.experts > 0)
        run_routed_ffn(run, l, worker, workers);
    else
        run_ffn(run, l, worker, workers);
}
