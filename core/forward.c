/*
 * Pre-norm transformer with grouped-query attention and gated feed-forward (Llama, arXiv:2302.13971):
 *   x += Wo attention(rope(Wq n), rope(Wk n), Wv n),  n = rmsnorm(x)
 *   x += Wdown (silu(Wgate n) * Wup n),               n = rmsnorm(x)
 * All workers run the same function; phases are separated by barriers, and within a phase every worker owns rows,
 * panels or heads, so nothing depends on their number.
 */
#include "core/forward.h"

#include "core/maths.h"

#include <math.h>
#include <string.h>

/* Rows of one sequence that share the widening of a KV block. */
enum { GROUP_ROWS = 16, SPLIT_ROWS = 8 };

/* Claims of a worker in its own share of a matrix product: what a straggler holds up at most is one of them. */
enum { CLAIMS = 8 };

typedef struct group {
    uint32_t begin, end; /* rows of the chunk, all of one cache, ascending positions */
} group;

struct nibl_run {
    nibl_model *model;
    uint32_t activations;
    /* the rows and the cursor */
    nibl_row *rows;
    size_t row_capacity;
    uint32_t row_count, chunk, layer, row;
    bool embedded;
    /* buffers; widths in floats, capacities in rows */
    float *x, *cos_sin; /* (rows, width), (rows, rope_width) */
    size_t span_capacity;
    float *input; /* (chunk, widest input): of the next matrix product */
    nibl_act *act; /* of the next matrix product; during attention the queries (chunk, heads, blocks of 32) */
    float *qkv, *hidden, *output; /* (chunk, ...) */
    uint32_t q_width, kv_width, ffn_width, out_width, widest; /* padded to panels */
    uint32_t chunk_capacity, worker_capacity;
    uint8_t *scratch; /* per worker */
    size_t scratch_bytes;
    float *ml; /* (chunk, heads, 2): maximum and sum of the softmax */
    float *partial; /* (chunk, heads, blocks, 2 + head_width) where blocks are split among workers */
    uint64_t partial_capacity;
    uint32_t blocks;
    float *logits; /* (logit_count, padded vocabulary) */
    size_t logit_capacity, logit_count;
    /* the chunk at work */
    group groups[NIBL_MAX_CHUNK];
    uint32_t group_count, chunk_rows, head_row;
    bool split; /* attention blocks among workers */
    nibl_run_observer observer;
    void *observer_context;
};

static uint32_t padded(uint32_t n) { return (n + NIBL_PANEL - 1) / NIBL_PANEL * NIBL_PANEL; }
static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- Buffers ---- */

typedef struct widths {
    uint32_t q, kv, ffn, out, widest, acts;
    uint64_t scratch;
} widths;

/* Blocks of a row's queries in int8. */
static uint32_t query_acts(const nibl_hyper *h) { return h->heads * NIBL_KV_QUERY_BLOCKS(h->head_width); }

static widths widths_of(const nibl_hyper *h) {
    widths w = {.q = padded(h->heads * h->head_width),
                .kv = padded(h->kv_heads * h->head_width),
                .ffn = padded(h->ffn_width),
                .out = padded(h->width)};
    w.widest = w.out > w.q ? w.out : w.q;
    if (w.ffn > w.widest) w.widest = w.ffn;
    w.widest = (w.widest + NIBL_BLOCK - 1) / NIBL_BLOCK * NIBL_BLOCK;
    w.acts = w.widest / NIBL_BLOCK;
    if (query_acts(h) > w.acts) w.acts = query_acts(h);
    uint64_t gemm = NIBL_GEMM_SCRATCH(w.widest),
             attention =
                 (2ull * NIBL_ATTN_BLOCK * h->head_width + h->heads / h->kv_heads * (h->head_width + 2ull)) *
                     4 +
                 64;
    w.scratch = ((gemm > attention ? gemm : attention) + 63) / 64 * 64;
    return w;
}

static uint64_t row_bytes(const nibl_hyper *h, const widths *w) /* of a chunk */
{
    return 4ull * (w->widest + w->q + 2ull * w->kv + 2ull * w->ffn + w->out + 2 * h->heads) +
           w->acts * sizeof(nibl_act);
}

static uint64_t partial_bytes(const nibl_hyper *h, uint32_t rows, uint32_t positions) {
    const uint64_t blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    return rows * blocks * h->heads * (h->head_width + 2) * 4;
}

uint64_t nibl_run_bytes(const nibl_hyper *h, uint32_t rows, uint32_t chunk, uint32_t logits, uint32_t threads,
                        uint32_t context_length) {
    const widths w = widths_of(h);
    uint64_t bytes = sizeof(nibl_run) + rows * (sizeof(nibl_row) + 4ull * h->width + 4ull * h->rope_width);
    bytes += chunk * row_bytes(h, &w) + threads * w.scratch + 4ull * logits * padded(h->vocabulary);
    if (threads > 1) bytes += partial_bytes(h, 1, context_length);
    return bytes;
}

static nibl_status regrow(void *buffer, uint64_t bytes, const char *what) {
    void **p = buffer;
    nibl_free(*p); /* first: the old contents are not needed, and both need not fit */
    *p = nibl_alloc(bytes);
    return *p ? NIBL_OK : nibl_fail_memory(bytes, what);
}

static nibl_status grow_chunk(nibl_run *run, uint32_t chunk, uint32_t workers) {
    const widths w = widths_of(&run->model->hyper);
    if (chunk > run->chunk_capacity) {
        run->chunk_capacity = 0;
        NIBL_TRY(regrow(&run->input, 4ull * chunk * w.widest, "activations"));
        NIBL_TRY(regrow(&run->act, (uint64_t)chunk * w.acts * sizeof(nibl_act), "activations"));
        NIBL_TRY(regrow(&run->qkv, 4ull * chunk * (w.q + 2 * w.kv), "activations"));
        NIBL_TRY(regrow(&run->hidden, 8ull * chunk * w.ffn, "activations"));
        NIBL_TRY(regrow(&run->output, 4ull * chunk * w.out, "activations"));
        NIBL_TRY(regrow(&run->ml, 8ull * chunk * run->model->hyper.heads, "activations"));
        run->chunk_capacity = chunk;
    }
    if (workers > run->worker_capacity) {
        run->worker_capacity = 0;
        NIBL_TRY(regrow(&run->scratch, workers * w.scratch, "worker scratch"));
        run->worker_capacity = workers;
    }
    return NIBL_OK;
}

nibl_status nibl_run_new(nibl_model *model, nibl_run **out) {
    nibl_run *run = nibl_alloc_zero(sizeof *run);
    if (!run) return nibl_fail_memory(sizeof *run, "the forward pass");
    const widths w = widths_of(&model->hyper);
    run->model = model;
    run->q_width = w.q;
    run->kv_width = w.kv;
    run->ffn_width = w.ffn;
    run->out_width = w.out;
    run->widest = w.widest;
    run->scratch_bytes = (size_t)w.scratch;
    *out = run;
    return NIBL_OK;
}

void nibl_run_free(nibl_run *run) {
    if (!run) return;
    void *blocks[] = {run->rows,    run->x,      run->cos_sin, run->input,   run->act,
                      run->qkv,     run->hidden, run->output,  run->scratch, run->ml,
                      run->partial, run->logits, run};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) nibl_free(blocks[i]);
}

/* ---- Beginning ---- */

nibl_status nibl_run_begin(nibl_run *run, const nibl_row *rows, uint32_t count, uint32_t chunk,
                           uint32_t activations) {
    const nibl_hyper *h = &run->model->hyper;
    const uint32_t workers = nibl_pool_workers(run->model->pool);
    run->row_count = 0;
    void *array = run->rows;
    nibl_status status = nibl_reserve(&array, &run->row_capacity, count, sizeof *rows, "the batch");
    run->rows = array;
    NIBL_TRY(status);
    memcpy(run->rows, rows, count * sizeof *rows);
    if (count > run->span_capacity) {
        run->span_capacity = 0;
        NIBL_TRY(regrow(&run->x, 4ull * count * h->width, "the residual stream"));
        NIBL_TRY(regrow(&run->cos_sin, 4ull * count * h->rope_width, "rotary tables"));
        run->span_capacity = count;
    }
    NIBL_TRY(grow_chunk(run, smaller(count, chunk), workers));

    uint32_t positions = 0;
    run->logit_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        run->logit_count += rows[i].logits;
        if (rows[i].position >= positions) positions = rows[i].position + 1;
    }
    if (run->logit_count > run->logit_capacity) {
        run->logit_capacity = 0;
        NIBL_TRY(regrow(&run->logits, 4ull * run->logit_count * padded(h->vocabulary), "logits"));
        run->logit_capacity = run->logit_count;
    }
    run->split = workers > 1 && count <= SPLIT_ROWS;
    run->blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    const uint64_t partial = partial_bytes(h, count, positions);
    if (run->split && partial > run->partial_capacity) {
        run->partial_capacity = 0;
        NIBL_TRY(regrow(&run->partial, partial, "attention"));
        run->partial_capacity = partial;
    }
    run->activations = activations;
    run->row_count = count;
    run->chunk = chunk;
    run->layer = run->row = 0;
    run->embedded = false;
    return NIBL_OK;
}

static void embed(nibl_run *run) {
    const nibl_model *m = run->model;
    const uint32_t pairs = m->hyper.rope_width / 2;
    for (uint32_t i = 0; i < run->row_count; i++) {
        m->kernels->unpack_row(run->x + (size_t)i * m->hyper.width, &m->embedding,
                               (uint32_t)run->rows[i].token);
        float *cosines = run->cos_sin + (size_t)i * 2 * pairs;
        for (uint32_t p = 0; p < pairs; p++) {
            double sine, cosine;
            nibl_sincos(run->rows[i].position * m->rope_frequency[p], &sine, &cosine);
            cosines[p] = (float)cosine;
            cosines[pairs + p] = (float)sine;
        }
    }
    run->embedded = true;
}

/* ---- One layer, as every worker runs it ---- */

typedef struct share {
    uint32_t begin, end;
} share;

static share share_of(uint32_t total, uint32_t worker, uint32_t workers) {
    return (share){(uint32_t)((uint64_t)total * worker / workers),
                   (uint32_t)((uint64_t)total * (worker + 1) / workers)};
}

/* One matrix product of a phase: y (rows, stride) = w input. */
typedef struct product {
    const nibl_matrix *w;
    float *y;
    size_t stride;
} product;

static bool is_float(const nibl_run *run, const nibl_matrix *w) {
    return run->activations == NIBL_ACT_F32 || nibl_kind_is_float((nibl_kind)w->kind);
}

/* Brings an input into the order of the columns that it meets. */
static void reorder(const nibl_run *run, const nibl_matrix *w, float *input, uint32_t worker) {
    float *copy = (float *)(void *)(run->scratch + worker * run->scratch_bytes);
    if (!w->gather) return;
    memcpy(copy, input, w->cols * sizeof *copy);
    for (uint32_t j = 0; j < w->cols; j++) input[j] = copy[w->gather[j]];
}

/* Rounds row t of the input to int8 where some product wants it so. */
static void quantize_row(const nibl_run *run, const product *products, uint32_t count, uint32_t t,
                         uint32_t worker) {
    const uint32_t cols = products[0].w->cols;
    reorder(run, products[0].w, run->input + (size_t)t * run->widest, worker);
    for (uint32_t i = 0; i < count; i++) {
        if (is_float(run, products[i].w)) continue;
        run->model->kernels->quantize(run->act + (size_t)t * (cols / NIBL_BLOCK),
                                      run->input + (size_t)t * run->widest, cols);
        return;
    }
}

/* Panels [begin, end) of the products' panels one after the other. */
static void multiply_panels(const nibl_run *run, const product *products, uint32_t rows, uint32_t begin,
                            uint32_t end, uint8_t *scratch) {
    const nibl_kernels *k = run->model->kernels;
    for (const product *p = products; begin < end; p++) {
        const uint32_t n = nibl_panels(p->w), to = smaller(end, n);
        if (begin < to && is_float(run, p->w))
            k->matmul_float(p->y, p->stride, p->w, begin, to, run->input, run->widest, rows);
        else if (begin < to)
            nibl_matmul(k, p->y, p->stride, p->w, begin, to, run->act, rows, scratch);
        begin = begin > n ? begin - n : 0;
        end = end > n ? end - n : 0;
    }
}

static void multiply(const nibl_run *run, const product *products, uint32_t count, uint32_t rows,
                     uint32_t worker, uint32_t workers) {
    uint32_t panels = 0;
    if (run->observer)
        run->observer(run->observer_context, products[0].w, run->input, run->widest, rows, worker, workers);
    for (uint32_t i = 0; i < count; i++) panels += nibl_panels(products[i].w);
    nibl_claims claims =
        nibl_pool_divide(run->model->pool, worker, workers, panels, panels / (workers * CLAIMS));
    for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);)
        multiply_panels(run, products, rows, begin, end, run->scratch + worker * run->scratch_bytes);
}

/* Adds the last product to the residual stream and normalises it into the next input. */
static void add_norm_quantize(const nibl_run *run, const float *weight, bool add, const product *next,
                              uint32_t count, uint32_t worker, uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const share mine = share_of(run->chunk_rows, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) {
        float *x = run->x + (size_t)(run->row + t) * h->width;
        const float *y = run->output + (size_t)t * run->out_width;
        for (uint32_t i = 0; add && i < h->width; i++) x[i] += y[i];
        if (!weight) continue;
        run->model->kernels->rmsnorm(run->input + (size_t)t * run->widest, x, weight, h->width,
                                     h->norm_epsilon);
        quantize_row(run, next, count, t, worker);
    }
}

static float *q_of(const nibl_run *run, uint32_t t) { return run->qkv + (size_t)t * run->q_width; }

static float *kv_of(const nibl_run *run, uint32_t t, bool value) {
    return run->qkv + (size_t)run->chunk_rows * run->q_width +
           ((size_t)(value ? run->chunk_rows : 0) + t) * run->kv_width;
}

static nibl_act *q_act_of(const nibl_run *run, uint32_t t, uint32_t head) {
    const nibl_hyper *h = &run->model->hyper;
    return run->act + (size_t)t * query_acts(h) + (size_t)head * NIBL_KV_QUERY_BLOCKS(h->head_width);
}

static void rotate_and_store(const nibl_run *run, uint32_t layer, uint32_t worker, uint32_t workers) {
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const uint32_t group_size = h->heads / h->kv_heads, pairs = h->rope_width / 2;
    const bool neox = m->arch->rope == NIBL_ROPE_NEOX;
    const share mine = share_of(h->kv_heads * run->chunk_rows, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end; u++) {
        const uint32_t head = u / run->chunk_rows, t = u % run->chunk_rows;
        const nibl_row *row = &run->rows[run->row + t];
        const float *cos_sin = run->cos_sin + (size_t)(run->row + t) * 2 * pairs;
        float *q = q_of(run, t) + (size_t)head * group_size * h->head_width;
        float *k = kv_of(run, t, false) + (size_t)head * h->head_width;
        for (uint32_t g = 0; g < group_size; g++, q += h->head_width) {
            m->kernels->rope(q, cos_sin, pairs, neox);
            nibl_kv_query(row->kv, m->kernels, q_act_of(run, t, head * group_size + g), q);
        }
        m->kernels->rope(k, cos_sin, pairs, neox);
        nibl_kv_store(row->kv, layer, head, row->position, k,
                      kv_of(run, t, true) + (size_t)head * h->head_width);
    }
}

/* Where the result of one (row, query head) goes: the input of the next product, and its running maximum and sum. */
static float *attention_out(const nibl_run *run, uint32_t t, uint32_t head) {
    return run->input + (size_t)t * run->widest + (size_t)head * run->model->hyper.head_width;
}

static float *attention_ml(const nibl_run *run, uint32_t t, uint32_t head) {
    return run->ml + ((size_t)t * run->model->hyper.heads + head) * 2;
}

static void empty_state(const nibl_run *run, uint32_t t, uint32_t head) {
    float *ml = attention_ml(run, t, head);
    memset(attention_out(run, t, head), 0, run->model->hyper.head_width * sizeof(float));
    ml[0] = -INFINITY;
    ml[1] = 0.0f;
}

static void finish_state(const nibl_run *run, uint32_t t, uint32_t head) {
    float *o = attention_out(run, t, head);
    const float r = 1.0f / attention_ml(run, t, head)[1];
    for (uint32_t d = 0; d < run->model->hyper.head_width; d++) o[d] *= r;
}

/* Positions of a block that a row sees. */
static uint32_t visible(const nibl_row *row, uint32_t block) {
    return smaller(row->position + 1 - block * NIBL_ATTN_BLOCK, NIBL_ATTN_BLOCK);
}

/* The queries of a row that share a KV head with a block of its cache: {m, l, o} of each to out + i * stride. */
static void attend_block(const nibl_run *run, uint32_t t, uint32_t kv_head, uint32_t block, const void *kv,
                         float *out, size_t stride) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_row *row = &run->rows[run->row + t];
    const uint32_t heads = h->heads / h->kv_heads, first = kv_head * heads;
    const nibl_view view = {0, visible(row, block), 1.0f / sqrtf((float)h->head_width), 0};
    nibl_kv_attend(row->kv, run->model->kernels, out, stride, q_of(run, t) + (size_t)first * h->head_width,
                   q_act_of(run, t, first), kv, &view, heads);
}

/* Attention of a group of rows with one KV head, block after block. */
static void attend_group(const nibl_run *run, uint32_t layer, uint32_t kv_head, const group *g, float *room) {
    const nibl_kernels *kernels = run->model->kernels;
    const uint32_t width = run->model->hyper.head_width;
    const uint32_t group_size = run->model->hyper.heads / run->model->hyper.kv_heads,
                   first = kv_head * group_size;
    const nibl_row *rows = run->rows + run->row;
    float *parts = room + (size_t)2 * NIBL_ATTN_BLOCK * width;
    for (uint32_t t = g->begin; t < g->end; t++)
        for (uint32_t head = first; head < first + group_size; head++) empty_state(run, t, head);
    for (uint32_t block = 0; block <= rows[g->end - 1].position / NIBL_ATTN_BLOCK; block++) {
        const void *kv = nibl_kv_block(rows[g->begin].kv, kernels, layer, kv_head, block, room);
        for (uint32_t t = g->begin; t < g->end; t++) {
            if (block * NIBL_ATTN_BLOCK > rows[t].position) continue;
            attend_block(run, t, kv_head, block, kv, parts, width + 2);
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
static void attend_blocks(const nibl_run *run, uint32_t layer, float *room, uint32_t worker,
                          uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const nibl_kernels *kernels = run->model->kernels;
    const uint32_t group_size = h->heads / h->kv_heads;
    const nibl_row *rows = run->rows + run->row;
    uint32_t total = 0;
    for (uint32_t t = 0; t < run->chunk_rows; t++)
        total += (rows[t].position / NIBL_ATTN_BLOCK + 1) * h->kv_heads;
    const share mine = share_of(total, worker, workers);
    uint32_t unit = 0;
    for (uint32_t t = 0; t < run->chunk_rows; t++)
        for (uint32_t kv_head = 0; kv_head < h->kv_heads; kv_head++)
            for (uint32_t block = 0; block <= rows[t].position / NIBL_ATTN_BLOCK; block++, unit++) {
                if (unit < mine.begin || unit >= mine.end) continue;
                const void *kv = nibl_kv_block(rows[t].kv, kernels, layer, kv_head, block, room);
                attend_block(run, t, kv_head, block, kv, partial_of(run, t, kv_head * group_size, block),
                             (size_t)run->blocks * (h->head_width + 2));
            }
}

/* ... merged in the order of positions. */
static void merge_blocks(const nibl_run *run, uint32_t worker, uint32_t workers) {
    const nibl_hyper *h = &run->model->hyper;
    const share mine = share_of(run->chunk_rows * h->heads, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end; u++) {
        const uint32_t t = u / h->heads, head = u % h->heads;
        empty_state(run, t, head);
        for (uint32_t block = 0; block <= run->rows[run->row + t].position / NIBL_ATTN_BLOCK; block++) {
            const float *p = partial_of(run, t, head, block);
            run->model->kernels->attn_merge(attention_out(run, t, head), attention_ml(run, t, head), p + 2, p,
                                            h->head_width);
        }
        finish_state(run, t, head);
    }
}

static void attend(const nibl_run *run, uint32_t layer, uint32_t worker, uint32_t workers) {
    float *room = (float *)(void *)(run->scratch + worker * run->scratch_bytes);
    if (run->split) {
        attend_blocks(run, layer, room, worker, workers);
        nibl_pool_barrier(run->model->pool, worker);
        merge_blocks(run, worker, workers);
        return;
    }
    const share mine = share_of(run->model->hyper.kv_heads * run->group_count, worker, workers);
    for (uint32_t u = mine.begin; u < mine.end; u++)
        attend_group(run, layer, u / run->group_count, &run->groups[u % run->group_count], room);
}

/* Rounds `input` to int8, and before that, with `gated`, computes it as silu(gate) * up: in units of 32 columns, or of
 * whole rows where columns change places. */
static void gate_and_quantize(const nibl_run *run, const product *next, bool gated, uint32_t worker,
                              uint32_t workers) {
    const nibl_kernels *k = run->model->kernels;
    const uint32_t cols = next->w->cols, blocks = (cols + NIBL_BLOCK - 1) / NIBL_BLOCK;
    const uint32_t units = next->w->gather ? blocks : 1;
    share mine = share_of(run->chunk_rows * blocks / units, worker, workers);
    mine = (share){mine.begin * units, mine.end * units};
    for (uint32_t u = mine.begin; u < mine.end;) {
        const uint32_t t = u / blocks, begin = u % blocks, end = smaller(blocks, begin + mine.end - u);
        const uint32_t at = begin * NIBL_BLOCK, n = smaller(end * NIBL_BLOCK, cols) - at;
        float *input = run->input + (size_t)t * run->widest + at;
        const float *gate = run->hidden + (size_t)t * run->ffn_width + at;
        if (gated)
            k->activate(input, gate, gate + (size_t)run->chunk_rows * run->ffn_width, n, NIBL_ACTIVATE_SILU);
        reorder(run, next->w, input, worker);
        if (!is_float(run, next->w)) k->quantize(run->act + (size_t)t * blocks + begin, input, n);
        u += end - begin;
    }
}

static void run_layer(const nibl_run *run, uint32_t layer, uint32_t worker, uint32_t workers) {
    const nibl_layer *l = &run->model->layers[layer];
    nibl_pool *pool = run->model->pool;
    const uint32_t rows = run->chunk_rows;
    const product qkv[] = {{&l->wq, q_of(run, 0), run->q_width},
                           {&l->wk, kv_of(run, 0, false), run->kv_width},
                           {&l->wv, kv_of(run, 0, true), run->kv_width}};
    const product out = {&l->wo, run->output, run->out_width}, down = {&l->down, run->output, run->out_width};
    const product gate_up[] = {{&l->gate, run->hidden, run->ffn_width},
                               {&l->up, run->hidden + (size_t)rows * run->ffn_width, run->ffn_width}};
    add_norm_quantize(run, l->attn_norm, false, qkv, 3, worker, workers);
    nibl_pool_barrier(pool, worker);
    multiply(run, qkv, 3, rows, worker, workers);
    nibl_pool_barrier(pool, worker);
    rotate_and_store(run, layer, worker, workers);
    nibl_pool_barrier(pool, worker);
    attend(run, layer, worker, workers);
    nibl_pool_barrier(pool, worker);
    gate_and_quantize(run, &out, false, worker, workers);
    nibl_pool_barrier(pool, worker);
    multiply(run, &out, 1, rows, worker, workers);
    nibl_pool_barrier(pool, worker);
    add_norm_quantize(run, l->ffn_norm, true, gate_up, 2, worker, workers);
    nibl_pool_barrier(pool, worker);
    multiply(run, gate_up, 2, rows, worker, workers);
    nibl_pool_barrier(pool, worker);
    gate_and_quantize(run, &down, true, worker, workers);
    nibl_pool_barrier(pool, worker);
    multiply(run, &down, 1, rows, worker, workers);
    nibl_pool_barrier(pool, worker);
    /* each worker adds the rows that it normalises next, so no barrier follows */
    add_norm_quantize(run, NULL, true, NULL, 0, worker, workers);
}

static void layer_job(void *context, uint32_t worker, uint32_t workers) {
    const nibl_run *run = context;
    run_layer(run, run->layer, worker, workers);
}

/* Rows [head_row, head_row + chunk_rows) of those that want logits. */
static void head_job(void *context, uint32_t worker, uint32_t workers) {
    const nibl_run *run = context;
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const product head = {&m->head, run->logits + (size_t)run->head_row * padded(h->vocabulary),
                          padded(h->vocabulary)};
    const share mine = share_of(run->chunk_rows, worker, workers);
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < run->row_count; i++) {
        if (!run->rows[i].logits) continue;
        const uint32_t t = wanted++ - run->head_row; /* wraps for earlier ones */
        if (t < mine.begin || t >= mine.end) continue;
        m->kernels->rmsnorm(run->input + (size_t)t * run->widest, run->x + (size_t)i * h->width,
                            m->output_norm, h->width, h->norm_epsilon);
        quantize_row(run, &head, 1, t, worker);
    }
    nibl_pool_barrier(m->pool, worker);
    multiply(run, &head, 1, run->chunk_rows, worker, workers);
}

/* ---- The cursor ---- */

/* Sets the chunk that begins at run->row, and its groups of rows that share a cache. */
static void set_chunk(nibl_run *run) {
    run->chunk_rows = smaller(run->row_count - run->row, run->chunk);
    run->group_count = 0;
    const nibl_row *rows = run->rows + run->row;
    for (uint32_t t = 0; t < run->chunk_rows; t++) {
        group *last = run->group_count ? &run->groups[run->group_count - 1] : NULL;
        if (last && rows[t].kv == rows[t - 1].kv && t - last->begin < GROUP_ROWS)
            last->end = t + 1;
        else
            run->groups[run->group_count++] = (group){t, t + 1};
    }
}

nibl_status nibl_run_advance(nibl_run *run, uint32_t *units) {
    nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    if (m->missing_embedding) return NIBL_NEED_DATA;
    if (!run->embedded) embed(run);
    while (run->layer < h->layers) {
        if (m->layers[run->layer].missing) return NIBL_NEED_DATA;
        if (*units == 0) return NIBL_MORE;
        set_chunk(run);
        nibl_pool_run(m->pool, layer_job, run);
        --*units;
        run->row += run->chunk_rows;
        if (run->row < run->row_count) continue;
        run->row = 0;
        run->layer++;
    }
    if (run->logit_count == 0) return NIBL_OK;
    if (m->missing_output) return NIBL_NEED_DATA;
    for (run->head_row = 0; run->head_row < run->logit_count; run->head_row += run->chunk_rows) {
        run->chunk_rows = smaller((uint32_t)run->logit_count - run->head_row, run->chunk_capacity);
        nibl_pool_run(m->pool, head_job, run);
    }
    return NIBL_OK;
}

const float *nibl_run_logits(const nibl_run *run, uint32_t i) {
    return run->logits + (size_t)i * padded(run->model->hyper.vocabulary);
}

void nibl_run_observe(nibl_run *run, nibl_run_observer observer, void *context) {
    run->observer = observer;
    run->observer_context = context;
}

float *nibl_run_stream(nibl_run *run, bool repeat, uint32_t *layer) {
    if (!run->embedded) embed(run);
    if (repeat) run->layer--;
    *layer = run->layer;
    return run->x;
}
