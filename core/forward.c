/* The forward pass's buffers and its cursor. What a layer computes stands in layer.c. */
#include "core/run.h"

#include "core/maths.h"

#include <string.h>

/* Rows of one sequence that share the widening of a KV block, at most: there are several groups for every worker, or
 * some would wait for others. */
enum { GROUP_ROWS = 16, GROUPS_PER_WORKER = 4, SPLIT_ROWS = 8 };

/* ---- Buffers ---- */

typedef struct widths {
    uint32_t q, kv, ffn, out, conv, widest, acts;
    uint32_t ffn_rows, input_rows; /* per row of the chunk: with experts one for each in use, and its input */
    uint64_t scratch;
} widths;

static widths widths_of(const nibl_hyper *h) {
    widths w = {.q = nibl_padded(h->heads * h->head_width),
                .kv = nibl_padded(h->kv_heads * h->head_width),
                .ffn = nibl_padded(h->ffn_width),
                .out = nibl_padded(h->width),
                .conv = h->conv_layers ? nibl_padded(3 * h->width) : 0,
                .ffn_rows = h->experts ? h->experts_used : 1,
                .input_rows = h->experts ? 1 + h->experts_used : 1};
    w.widest = w.out > w.q ? w.out : w.q;
    if (w.ffn > w.widest) w.widest = w.ffn;
    w.widest = (w.widest + NIBL_BLOCK - 1) / NIBL_BLOCK * NIBL_BLOCK;
    w.acts = w.widest / NIBL_BLOCK;
    if (nibl_query_acts(h) > w.acts) w.acts = nibl_query_acts(h);
    uint64_t gemm = NIBL_GEMM_SCRATCH(w.widest),
             attention =
                 (2ull * NIBL_ATTN_BLOCK * h->head_width + h->heads / h->kv_heads * (h->head_width + 2ull)) *
                     4 +
                 64;
    w.scratch = ((gemm > attention ? gemm : attention) + 63) / 64 * 64;
    return w;
}

/* Bytes of the buffers of a chunk, per row. */
static uint64_t row_bytes(const nibl_hyper *h, const widths *w) {
    const uint64_t floats = (uint64_t)w->input_rows * w->widest + w->q + 2ull * w->kv + w->conv +
                            (2ull * w->ffn + w->out) * w->ffn_rows + 2ull * h->heads;
    const uint64_t routing = h->experts ? nibl_padded(h->experts) + 5ull * h->experts_used : 0;
    return 4 * (floats + routing) + (uint64_t)w->input_rows * w->acts * sizeof(nibl_act);
}

static uint64_t products_bytes(const nibl_hyper *h) { return 3ull * h->experts * sizeof(nibl_product); }

static uint64_t partial_bytes(const nibl_hyper *h, uint32_t rows, uint32_t positions) {
    const uint64_t blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    return rows * blocks * h->heads * (h->head_width + 2) * 4;
}

static uint32_t tables_of(const nibl_hyper *h) {
    return h->local_rope.base < h->rope.base || h->local_rope.base > h->rope.base ? 2 : 1;
}

static uint64_t frequency_bytes(const nibl_hyper *h) {
    return (tables_of(h) + 1ull) * (h->rope_width / 2) * sizeof(double);
}

uint64_t nibl_run_bytes(const nibl_hyper *h, uint32_t rows, uint32_t chunk, uint32_t logits, uint32_t threads,
                        uint32_t context_length) {
    const widths w = widths_of(h);
    const uint64_t per_row = sizeof(nibl_row) + 4ull * h->width + 4ull * tables_of(h) * h->rope_width;
    uint64_t bytes = sizeof(nibl_run) + rows * per_row + products_bytes(h) + frequency_bytes(h);
    bytes += chunk * row_bytes(h, &w) + threads * w.scratch + 4ull * logits * nibl_padded(h->vocabulary);
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
    const nibl_hyper *h = &run->model->hyper;
    const widths w = widths_of(h);
    if (chunk > run->chunk_capacity) {
        nibl_routing *r = &run->routing;
        const uint64_t inputs = (uint64_t)chunk * w.input_rows, ffns = (uint64_t)chunk * w.ffn_rows;
        run->chunk_capacity = 0;
        NIBL_TRY(regrow(&run->input, 4 * inputs * w.widest, "activations"));
        NIBL_TRY(regrow(&run->act, inputs * w.acts * sizeof(nibl_act), "activations"));
        NIBL_TRY(regrow(&run->qkv, 4ull * chunk * (w.q + 2 * w.kv), "activations"));
        NIBL_TRY(regrow(&run->hidden, 8 * ffns * w.ffn, "activations"));
        NIBL_TRY(regrow(&run->output, 4 * ffns * w.out, "activations"));
        NIBL_TRY(regrow(&run->ml, 8ull * chunk * h->heads, "activations"));
        if (w.conv) NIBL_TRY(regrow(&run->conv, 4ull * chunk * w.conv, "activations"));
        if (h->experts) {
            NIBL_TRY(regrow(&r->logits, 4ull * chunk * nibl_padded(h->experts), "activations"));
            NIBL_TRY(regrow(&r->chosen, 4 * ffns, "activations"));
            NIBL_TRY(regrow(&r->places, 4 * ffns, "activations"));
            NIBL_TRY(regrow(&r->weights, 4 * ffns, "activations"));
            NIBL_TRY(regrow(&r->rows, 4 * ffns, "activations"));
            NIBL_TRY(regrow(&r->experts, 4 * ffns, "activations"));
            NIBL_TRY(regrow(&r->products, products_bytes(h), "activations"));
        }
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
    run->conv_width = w.conv;
    run->tables = tables_of(&model->hyper);
    run->widest = w.widest;
    run->scratch_bytes = (size_t)w.scratch;
    *out = run;
    return NIBL_OK;
}

void nibl_run_free(nibl_run *run) {
    if (!run) return;
    nibl_routing *r = &run->routing;
    void *blocks[] = {run->rows,   run->x,       run->cos_sin, run->frequencies, run->input,
                      run->act,    run->qkv,     run->hidden,  run->output,      run->conv,
                      run->ml,     run->scratch, run->partial, run->logits,      r->logits,
                      r->chosen,   r->places,    r->weights,   r->rows,          r->experts,
                      r->products, run};
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
        NIBL_TRY(regrow(&run->cos_sin, 4ull * count * run->tables * h->rope_width, "rotary tables"));
        run->span_capacity = count;
    }
    NIBL_TRY(grow_chunk(run, nibl_smaller(count, chunk), workers));

    uint32_t positions = 0;
    run->logit_count = 0;
    run->hidden_wanted = false;
    for (uint32_t i = 0; i < count; i++) {
        run->hidden_wanted |= rows[i].hidden;
        run->logit_count += rows[i].logits;
        if (rows[i].position >= positions) positions = rows[i].position + 1;
    }
    if (run->logit_count > run->logit_capacity) {
        run->logit_capacity = 0;
        NIBL_TRY(regrow(&run->logits, 4ull * run->logit_count * nibl_padded(h->vocabulary), "logits"));
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

/* Of every table, and of the first one once more for long contexts. */
static nibl_status find_frequencies(nibl_run *run) {
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const uint32_t pairs = h->rope_width / 2;
    if (run->frequencies) return NIBL_OK;
    const uint64_t bytes = frequency_bytes(h);
    run->frequencies = nibl_alloc(bytes);
    if (!run->frequencies) return nibl_fail_memory(bytes, "RoPE frequencies");
    nibl_arch_frequencies(&h->rope, h->rope_width, m->rope_short ? m->rope_short : m->rope_factors,
                          run->frequencies);
    if (run->tables > 1)
        nibl_arch_frequencies(&h->local_rope, h->rope_width, m->rope_factors, run->frequencies + pairs);
    nibl_arch_frequencies(&h->rope, h->rope_width, m->rope_long ? m->rope_long : m->rope_factors,
                          run->frequencies + (size_t)run->tables * pairs);
    return NIBL_OK;
}

/* Cosines, then sines, of one position. */
static void find_rotation(float *out, const double *frequencies, double magnitude, uint32_t pairs,
                          uint32_t position) {
    for (uint32_t p = 0; p < pairs; p++) {
        double sine, cosine;
        nibl_sincos(position * frequencies[p], &sine, &cosine);
        out[p] = (float)(cosine * magnitude);
        out[pairs + p] = (float)(sine * magnitude);
    }
}

static void embed(nibl_run *run) {
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const uint32_t pairs = h->rope_width / 2;
    const bool scaled = h->embedding_scale < 1.0f || h->embedding_scale > 1.0f;
    for (uint32_t i = 0; i < run->row_count; i++) {
        float *x = run->x + (size_t)i * h->width;
        const uint32_t position = run->rows[i].position;
        const float *learned = m->positions ? m->positions + (size_t)position * h->width : NULL;
        m->kernels->unpack_row(x, &m->embedding, (uint32_t)run->rows[i].token);
        for (uint32_t d = 0; scaled && d < h->width; d++) x[d] *= h->embedding_scale;
        for (uint32_t d = 0; learned && d < h->width; d++) x[d] += learned[d];
        const bool is_long = m->rope_long && (double)run->rows[i].kv->positions > h->rope.original_length;
        for (uint32_t t = 0; t < run->tables; t++)
            find_rotation(run->cos_sin + ((size_t)i * run->tables + t) * 2 * pairs,
                          run->frequencies + (size_t)(is_long ? run->tables : t) * pairs,
                          t ? h->local_rope.magnitude : h->rope.magnitude, pairs, position);
    }
    run->embedded = true;
}

static void layer_job(void *context, uint32_t worker, uint32_t workers) {
    const nibl_run *run = context;
    nibl_run_layer(run, run->layer, worker, workers);
}

static void finish_logits(const nibl_model *m, float *logits) {
    const nibl_hyper *h = &m->hyper;
    if (h->logit_scale < 1.0f || h->logit_scale > 1.0f)
        for (uint32_t i = 0; i < h->vocabulary; i++) logits[i] /= h->logit_scale;
    if (h->logit_cap > 0.0f) m->kernels->soft_cap(logits, h->vocabulary, h->logit_cap);
}

/* Rows [head_row, head_row + chunk_rows) of those that want logits. */
static void head_job(void *context, uint32_t worker, uint32_t workers) {
    const nibl_run *run = context;
    const nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    const nibl_product head = {&m->head, run->logits + (size_t)run->head_row * nibl_padded(h->vocabulary),
                               nibl_padded(h->vocabulary), 0, run->chunk_rows};
    const nibl_share mine = nibl_share_of(run->chunk_rows, worker, workers);
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < run->row_count; i++) {
        if (!run->rows[i].logits) continue;
        const uint32_t t = wanted++ - run->head_row; /* wraps for earlier ones */
        if (t < mine.begin || t >= mine.end) continue;
        nibl_normalise(run, nibl_input_of(run, t), run->x + (size_t)i * h->width, m->output_norm,
                       m->output_norm_bias, h->width);
        nibl_quantize_row(run, &head, 1, t, worker);
    }
    nibl_pool_barrier(m->pool, worker);
    nibl_multiply(run, &head, 1, worker, workers);
    for (uint32_t t = mine.begin; t < mine.end; t++) finish_logits(m, head.y + t * head.stride);
}

/* ---- The cursor ---- */

/* Sets the chunk that begins at run->row, and its groups of rows that share a cache. */
static void set_chunk(nibl_run *run) {
    run->chunk_rows = nibl_smaller(run->row_count - run->row, run->chunk);
    run->group_count = 0;
    const nibl_row *rows = run->rows + run->row;
    const uint32_t workers = nibl_pool_workers(run->model->pool);
    const uint32_t even = run->chunk_rows * run->model->hyper.kv_heads / (GROUPS_PER_WORKER * workers);
    const uint32_t most = workers == 1 || even > GROUP_ROWS ? GROUP_ROWS : even;
    for (uint32_t t = 0; t < run->chunk_rows; t++) {
        nibl_group *last = run->group_count ? &run->groups[run->group_count - 1] : NULL;
        if (last && rows[t].kv == rows[t - 1].kv && t - last->begin < most)
            last->end = t + 1;
        else
            run->groups[run->group_count++] = (nibl_group){t, t + 1};
    }
}

nibl_status nibl_run_advance(nibl_run *run, uint32_t *units) {
    nibl_model *m = run->model;
    const nibl_hyper *h = &m->hyper;
    if (!run->embedded) {
        if (m->missing_embedding) return NIBL_NEED_DATA;
        NIBL_TRY(find_frequencies(run));
        embed(run);
    }
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
    if (run->logit_count == 0 && !run->hidden_wanted) return NIBL_OK;
    if (m->missing_output) return NIBL_NEED_DATA;
    for (run->head_row = 0; run->head_row < run->logit_count; run->head_row += run->chunk_rows) {
        run->chunk_rows = nibl_smaller((uint32_t)run->logit_count - run->head_row, run->chunk_capacity);
        nibl_pool_run(m->pool, head_job, run);
    }
    return NIBL_OK;
}

const float *nibl_run_logits(const nibl_run *run, uint32_t i) {
    return run->logits + (size_t)i * nibl_padded(run->model->hyper.vocabulary);
}

void nibl_run_hidden(const nibl_run *run, uint32_t row, float *out) {
    const nibl_model *m = run->model;
    nibl_normalise(run, out, run->x + (size_t)row * m->hyper.width, m->output_norm, m->output_norm_bias,
                   m->hyper.width);
}

void nibl_run_observe(nibl_run *run, nibl_run_observer observer, void *context) {
    run->observer = observer;
    run->observer_context = context;
}

float *nibl_run_stream(nibl_run *run, bool repeat, uint32_t *layer) {
    if (repeat) run->layer--;
    *layer = run->layer;
    return run->x;
}
