/* Attention of the rows of a chunk: biases, norms and RoPE of q, k and v, the cache, and the blocks of positions. */
#include "core/run.h"

#include <math.h>
#include <string.h>

static nibl_act *q_act_of(const nibl_run *run, uint32_t t, uint32_t head) {
    const nibl_hyper *h = &run->model->hyper;
    return run->act + (size_t)t * nibl_query_acts(h) + (size_t)head * NIBL_KV_QUERY_BLOCKS(h->head_width);
}

static void add(float *x, const float *bias, uint32_t n) {
    for (uint32_t i = 0; bias && i < n; i++) x[i] += bias[i];
}

/* One norm over all heads of a row: before the heads are shared out. */
static void norm_whole_rows(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const uint32_t q = h->heads * h->head_width, kv = h->kv_heads * h->head_width;
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) {
        add(nibl_q_of(run, t), l->bq, q);
        add(nibl_kv_of(run, t, false), l->bk, kv);
        nibl_normalise(run, nibl_q_of(run, t), nibl_q_of(run, t), l->q_norm, NULL, q);
        nibl_normalise(run, nibl_kv_of(run, t, false), nibl_kv_of(run, t, false), l->k_norm, NULL, kv);
    }
    nibl_pool_barrier(run->model->pool, worker);
}

/* A head of a query or key: bias, norm, RoPE. */
static void prepare_head(const nibl_run *run, const nibl_layer *l, float *x, const float *bias,
                         const float *norm, const float *cos_sin) {
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    if (!m->arch->whole_qk_norm) {
        add(x, bias, h->head_width);
        if (norm) nibl_normalise(run, x, x, norm, NULL, h->head_width);
    }
    if (l->form.rope) m->kernels->rope(x, cos_sin, h->rope_width / 2, m->arch->rope == NIBL_ROPE_NEOX);
}

static const float *from(const float *vector, size_t offset) { return vector ? vector + offset : NULL; }

static void rotate_and_store(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const uint32_t group_size = h->heads / h->kv_heads;
    const uint32_t table = l->form.window && run->tables > 1 ? h->rope_width : 0;
    const nibl_share mine = nibl_share_of(h->kv_heads * run->chunk_rows, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end; u++) {
        const uint32_t head = u / run->chunk_rows, t = u % run->chunk_rows, first = head * group_size;
        const nibl_row *row = &run->rows[run->row + t];
        const float *cos_sin = run->cos_sin + (size_t)(run->row + t) * run->tables * h->rope_width + table;
        const size_t at = (size_t)head * h->head_width;
        float *q = nibl_q_of(run, t) + at * group_size, *k = nibl_kv_of(run, t, false) + at;
        float *v = nibl_kv_of(run, t, true) + at;
        for (uint32_t g = 0; g < group_size; g++, q += h->head_width) {
            prepare_head(run, l, q, from(l->bq, (size_t)(first + g) * h->head_width), l->q_norm, cos_sin);
            nibl_kv_query(row->kv, m->kernels, q_act_of(run, t, first + g), q);
        }
        prepare_head(run, l, k, from(l->bk, at), l->k_norm, cos_sin);
        add(v, from(l->bv, at), h->head_width);
        nibl_kv_store(row->kv, l->index, head, row->position, k, v);
    }
    nibl_pool_barrier(m->pool, worker);
}

/* Where the result of one (row, query head) goes: the input of the next product, and its running maximum and sum. */
static float *attention_out(const nibl_run *run, uint32_t t, uint32_t head) {
    return nibl_input_of(run, t) + (size_t)head * run->model->hyper.head_width;
}

static float *attention_ml(const nibl_run *run, uint32_t t, uint32_t head) {
    return run->ml + ((size_t)t * run->model->hyper.heads + head) * 2;
}

/* A sink is a position without a value. */
static void empty_state(const nibl_run *run, const nibl_layer *l, uint32_t t, uint32_t head) {
    float *ml = attention_ml(run, t, head);
    memset(attention_out(run, t, head), 0, run->model->hyper.head_width * sizeof(float));
    ml[0] = l->sinks ? l->sinks[head] : -INFINITY;
    ml[1] = l->sinks ? 1.0f : 0.0f;
}

static void finish_state(const nibl_run *run, uint32_t t, uint32_t head) {
    float *o = attention_out(run, t, head);
    const float r = 1.0f / attention_ml(run, t, head)[1];
    for (uint32_t d = 0; d < run->model->hyper.head_width; d++) o[d] *= r;
}

/* The first position that a row sees in a layer, and the blocks from there to its own. */
static uint32_t first_seen(const nibl_layer *l, const nibl_row *row) {
    const uint32_t end = row->position + 1, window = l->form.window;
    return window && end > window ? end - window : 0;
}

static uint32_t first_block(const nibl_layer *l, const nibl_row *row) {
    return first_seen(l, row) / NIBL_ATTN_BLOCK;
}

static uint32_t last_block(const nibl_row *row) { return row->position / NIBL_ATTN_BLOCK; }

/* The queries of a row that share a KV head with a block of its cache: {m, l, o} of each to out + i * stride. */
static void attend_block(const nibl_run *run, const nibl_layer *l, uint32_t t, uint32_t kv_head,
                         uint32_t block, nibl_kv_block kv, float *out, size_t stride) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_row *row = &run->rows[run->row + t];
    const uint32_t heads = h->heads / h->kv_heads, head = kv_head * heads, begin = block * NIBL_ATTN_BLOCK;
    const uint32_t first = first_seen(l, row);
    const nibl_view view = {.first = first > begin ? first - begin : 0,
                            .n = nibl_smaller(row->position + 1 - begin, NIBL_ATTN_BLOCK),
                            .scale = h->attention_scale,
                            .cap = h->attention_cap};
    nibl_kv_attend(row->kv, run->model->kernels, out, stride,
                   nibl_q_of(run, t) + (size_t)head * h->head_width, q_act_of(run, t, head), kv, &view,
                   heads);
}

/* Attention of a group of rows with one KV head, block after block. */
static void attend_group(const nibl_run *run, const nibl_layer *l, uint32_t kv_head, const nibl_group *g,
                         float *room) {
    const nibl_kernels *kernels = run->model->kernels;
    const uint32_t width = run->model->hyper.head_width;
    const uint32_t group_size = run->model->hyper.heads / run->model->hyper.kv_heads,
                   first = kv_head * group_size;
    const nibl_row *rows = run->rows + run->row;
    float *parts = room + (size_t)2 * NIBL_ATTN_BLOCK * width;
    for (uint32_t t = g->begin; t < g->end; t++)
        for (uint32_t head = first; head < first + group_size; head++) empty_state(run, l, t, head);
    const uint32_t last = last_block(&rows[g->end - 1]);
    for (uint32_t block = first_block(l, &rows[g->begin]); block <= last; block++) {
        const nibl_kv_block kv =
            nibl_kv_open(rows[g->begin].kv, kernels, l->index, kv_head, block, last, room);
        for (uint32_t t = g->begin; t < g->end; t++) {
            if (block < first_block(l, &rows[t]) || block > last_block(&rows[t])) continue;
            attend_block(run, l, t, kv_head, block, kv, parts, width + 2);
            const float *p = parts;
            for (uint32_t head = first; head < first + group_size; head++, p += width + 2)
                kernels->attn_merge(attention_out(run, t, head), attention_ml(run, t, head), p + 2, p, width);
        }
    }
    for (uint32_t t = g->begin; t < g->end; t++)
        for (uint32_t head = first; head < first + group_size; head++) finish_state(run, t, head);
}

static float *partial_of(const nibl_run *run, uint32_t t, uint32_t head, uint32_t block) {
    const nibl_hyper *h = &run->model->hyper;
    return run->partial + (((size_t)t * h->heads + head) * run->blocks + block) * (h->head_width + 2);
}

/* Few rows, several workers: every (row, KV head, block) is a unit of its own... */
static void attend_blocks(const nibl_run *run, const nibl_layer *l, float *room, uint32_t worker,
                          uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_kernels *kernels = run->model->kernels;
    const uint32_t group_size = h->heads / h->kv_heads;
    const nibl_row *rows = run->rows + run->row;
    uint32_t total = 0;
    for (uint32_t t = 0; t < run->chunk_rows; t++)
        total += (last_block(&rows[t]) - first_block(l, &rows[t]) + 1) * h->kv_heads;
    const nibl_share mine = nibl_share_of(total, worker, workers);
    uint32_t unit = 0;
    for (uint32_t t = 0; t < run->chunk_rows; t++)
        for (uint32_t kv_head = 0; kv_head < h->kv_heads; kv_head++)
            for (uint32_t block = first_block(l, &rows[t]); block <= last_block(&rows[t]); block++, unit++) {
                if (unit < mine.begin || unit >= mine.end) continue;
                const nibl_kv_block kv =
                    nibl_kv_open(rows[t].kv, kernels, l->index, kv_head, block, last_block(&rows[t]), room);
                attend_block(run, l, t, kv_head, block, kv, partial_of(run, t, kv_head * group_size, block),
                             (size_t)run->blocks * (h->head_width + 2));
            }
}

/* ... merged in the order of positions. */
static void merge_blocks(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_share mine = nibl_share_of(run->chunk_rows * h->heads, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end; u++) {
        const uint32_t t = u / h->heads, head = u % h->heads;
        const nibl_row *row = &run->rows[run->row + t];
        empty_state(run, l, t, head);
        for (uint32_t block = first_block(l, row); block <= last_block(row); block++) {
            const float *p = partial_of(run, t, head, block);
            run->model->kernels->attn_merge(attention_out(run, t, head), attention_ml(run, t, head), p + 2, p,
                                            h->head_width);
        }
        finish_state(run, t, head);
    }
}

void nibl_attend(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers) {
    float *room = (float *)(void *)(run->scratch + worker * run->scratch_bytes);
    if (run->model->arch->whole_qk_norm) norm_whole_rows(run, l, worker, workers);
    rotate_and_store(run, l, worker, workers);
    if (run->split) {
        attend_blocks(run, l, room, worker, workers);
        nibl_pool_barrier(run->model->pool, worker);
        merge_blocks(run, l, worker, workers);
    } else {
        nibl_claims claims = nibl_pool_divide(run->model->pool, worker, workers,
                                              run->model->hyper.kv_heads * run->group_count, 1);
        for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);)
            for (uint32_t u = begin; u < end; u++)
                attend_group(run, l, u / run->group_count, &run->groups[u % run->group_count], room);
    }
    nibl_pool_barrier(run->model->pool, worker);
}
