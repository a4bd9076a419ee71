/*
 * Mixture of experts: every row goes to the experts of its largest router logits, x += sum of weight expert(n). Rows are
 * gathered by expert, so that each expert in use is read once for all of them; a row's results are added in ascending
 * order of its experts, whatever else is in the batch.
 */
#include "core/maths.h"
#include "core/run.h"
#include "kernels/maths.h"

#include <string.h>

/* The experts of the largest logits, ascending, and their weights; of equal logits the first. */
static void choose(const nibl_run *run, const nibl_layer *l, uint32_t t) {
    const nibl_hyper *h = &run->model->hyper;
    const uint32_t used = h->experts_used;
    float *logits = run->routing.logits + (size_t)t * nibl_padded(h->experts);
    uint32_t *chosen = run->routing.chosen + (size_t)t * used;
    float *weights = run->routing.weights + (size_t)t * used;
    for (uint32_t e = 0; l->router_bias && e < h->experts; e++) logits[e] += l->router_bias[e];
    for (uint32_t n = 0; n < used; n++) {
        uint32_t best = h->experts;
        for (uint32_t e = 0; e < h->experts; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < n; i++) taken = taken || chosen[i] == e;
            if (!taken && (best == h->experts || logits[e] > logits[best])) best = e;
        }
        uint32_t place = n;
        for (; place > 0 && chosen[place - 1] > best; place--) chosen[place] = chosen[place - 1];
        chosen[place] = best;
    }
    float most = logits[chosen[0]], sum = 0;
    for (uint32_t i = 1; i < used; i++) most = logits[chosen[i]] > most ? logits[chosen[i]] : most;
    for (uint32_t i = 0; i < used; i++) weights[i] = nibl_expf(logits[chosen[i]] - most);
    if (h->expert_norm)
        for (uint32_t i = 0; i < used; i++) sum += weights[i];
    else
        for (uint32_t e = 0; e < h->experts; e++) sum += nibl_expf(logits[e] - most);
    for (uint32_t i = 0; i < used; i++) weights[i] /= sum;
}

/* Sorts the pairs by expert and lists the products, each with the rows of its expert. */
static void sort_pairs(const nibl_run *run, const nibl_layer *l) {
    const nibl_hyper *h = &run->model->hyper;
    nibl_routing *r = (nibl_routing *)&run->routing; /* one worker's, between barriers */
    const uint32_t rows = run->chunk_rows, pairs = rows * h->experts_used;
    uint32_t place = 0, count = 0;
    nibl_product *down = r->products + 2 * (size_t)nibl_smaller(h->experts, pairs);
    for (uint32_t e = 0; e < h->experts && place < pairs; e++) {
        const uint32_t first = place;
        for (uint32_t i = 0; i < pairs; i++) {
            if (r->chosen[i] != e) continue;
            r->rows[place] = i / h->experts_used;
            r->experts[place] = e;
            r->places[i] = place++;
        }
        if (place == first) continue;
        const uint32_t n = place - first;
        float *hidden = run->hidden + (size_t)first * run->ffn_width;
        r->products[2 * count] = (nibl_product){&l->gate[e], hidden, run->ffn_width, rows + first, n};
        r->products[2 * count + 1] = (nibl_product){&l->up[e], hidden + (size_t)pairs * run->ffn_width,
                                                    run->ffn_width, rows + first, n};
        down[count++] = (nibl_product){&l->down[e], run->output + (size_t)first * run->out_width,
                                       run->out_width, first, n};
    }
    r->pairs = pairs;
    r->products_up = 2 * count;
    r->products_down = count;
}

/* Copies the rows of the pairs behind those of the chunk, for experts that take columns in an order of their own in that. */
static void gather(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_routing *r = &run->routing;
    const uint32_t width = run->model->hyper.width, blocks = width / NIBL_BLOCK, rows = run->chunk_rows;
    const nibl_share mine = nibl_share_of(r->pairs, worker, workers);
    for (uint32_t p = mine.begin; p < mine.end; p++) {
        memcpy(nibl_input_of(run, rows + p), nibl_input_of(run, r->rows[p]), width * sizeof(float));
        const nibl_product own[] = {{.w = &l->gate[r->experts[p]]}, {.w = &l->up[r->experts[p]]}};
        if (own[0].w->gather)
            nibl_quantize_row(run, own, 2, rows + p, worker);
        else if (run->activations != NIBL_ACT_F32)
            memcpy(run->act + (size_t)(rows + p) * blocks, run->act + (size_t)r->rows[p] * blocks,
                   blocks * sizeof *run->act);
    }
    nibl_pool_barrier(run->model->pool, worker);
}

static void activate(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_routing *r = &run->routing;
    const nibl_share mine = nibl_share_of(r->pairs, worker, workers);
    for (uint32_t p = mine.begin; p < mine.end; p++) {
        nibl_activate_columns(run, l, p, r->pairs, r->experts[p], 0, run->model->hyper.ffn_width);
        const nibl_product own = {.w = &l->down[r->experts[p]]};
        nibl_quantize_row(run, &own, 1, p, worker);
    }
    nibl_pool_barrier(run->model->pool, worker);
}

/* The results of a row's pairs, into the first of them, and that to the residual stream. */
static void combine(const nibl_run *run, const nibl_layer *l, uint32_t t) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_routing *r = &run->routing;
    float *sum = NULL;
    const size_t first = (size_t)t * h->experts_used;
    for (uint32_t i = 0; i < h->experts_used; i++) {
        const uint32_t p = r->places[first + i];
        const float weight = r->weights[first + i];
        float *y = run->output + (size_t)p * run->out_width;
        const float *bias = l->down_bias ? l->down_bias + (size_t)r->experts[p] * h->width : NULL;
        for (uint32_t d = 0; bias && d < h->width; d++) y[d] += bias[d];
        for (uint32_t d = 0; d < h->width; d++) y[d] = sum ? sum[d] + y[d] * weight : y[d] * weight;
        sum = y;
    }
    nibl_add_row(run, t, sum, NULL, l->post_ffn_norm);
}

void nibl_run_experts(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_routing *r = &run->routing;
    nibl_pool *pool = run->model->pool;
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) choose(run, l, t);
    nibl_pool_barrier(pool, worker);
    if (worker == 0) sort_pairs(run, l);
    nibl_pool_barrier(pool, worker);
    gather(run, l, worker, workers);
    const nibl_product *down = r->products + 2 * (size_t)nibl_smaller(run->model->hyper.experts, r->pairs);
    nibl_multiply(run, r->products, r->products_up, worker, workers);
    activate(run, l, worker, workers);
    nibl_multiply(run, down, r->products_down, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) combine(run, l, t);
}
