/* The forward pass from inside: what forward.c (buffers and the cursor), layer.c (the phases of a layer), attention.c and
 * experts.c share. All workers run the same function; phases are separated by barriers, and within a phase every worker
 * owns rows, panels or heads, so nothing depends on their number. */
#ifndef NIBL_RUN_H
#define NIBL_RUN_H

#include "core/forward.h"

typedef struct nibl_group {
    uint32_t begin, end; /* rows of the chunk, all of one cache, ascending positions */
} nibl_group;

/* One matrix product of a phase: `rows` rows of y (stride) = w times the input's rows from `first` on. */
typedef struct nibl_product {
    const nibl_matrix *w;
    float *y;
    size_t stride;
    uint32_t first, rows;
} nibl_product;

/* Which experts the rows of a chunk use: (row, expert) pairs, sorted by expert. */
typedef struct nibl_routing {
    float *logits; /* (chunk, padded experts) */
    uint32_t *chosen, *places; /* (chunk, used): experts of a row, ascending, and where its pairs stand */
    float *weights; /* (chunk, used) */
    uint32_t *rows, *experts; /* (chunk * used) of every pair */
    nibl_product *products; /* gate and up of every expert in use, then down */
    uint32_t pairs, products_up, products_down;
} nibl_routing;

struct nibl_run {
    nibl_model *model;
    uint32_t activations;
    /* the rows and the cursor */
    nibl_row *rows;
    size_t row_capacity;
    uint32_t row_count, chunk, layer, row;
    bool embedded, hidden_wanted;
    /* buffers; widths in floats, capacities in rows */
    float *x, *cos_sin; /* (rows, width), (rows, tables, rope_width) */
    double
        *frequencies; /* (tables + 1, rope_width / 2), the last of long contexts; NULL before the first run */
    uint32_t tables; /* of RoPE: one, or a second one for layers with a window */
    size_t span_capacity;
    float *
        input; /* (chunk, widest input): of the next matrix product; with experts more rows follow, one per pair */
    nibl_act *act; /* of the next matrix product; during attention the queries (chunk, heads, blocks of 32) */
    float *qkv, *hidden, *output; /* (chunk or pairs, ...) */
    float *conv; /* (chunk, padded 3 * width) */
    uint32_t q_width, kv_width, ffn_width, out_width, conv_width, widest; /* padded to panels */
    uint32_t chunk_capacity, worker_capacity;
    uint8_t *scratch; /* per worker */
    size_t scratch_bytes;
    float *ml; /* (chunk, heads, 2): maximum and sum of the softmax */
    float *partial; /* (chunk, heads, blocks, 2 + head_width) where blocks are split among workers */
    uint64_t partial_capacity;
    uint32_t blocks;
    float *logits; /* (logit_count, padded vocabulary) */
    size_t logit_capacity, logit_count;
    nibl_routing routing;
    /* the chunk at work */
    nibl_group groups[NIBL_MAX_CHUNK];
    uint32_t group_count, chunk_rows, head_row;
    bool split; /* attention blocks among workers */
    nibl_run_observer observer; /* of the inputs of products, or NULL */
    void *observer_context;
};

static inline uint32_t nibl_padded(uint32_t n) { return (n + NIBL_PANEL - 1) / NIBL_PANEL * NIBL_PANEL; }
static inline uint32_t nibl_smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

typedef struct nibl_share {
    uint32_t begin, end;
} nibl_share;

static inline nibl_share nibl_share_of(uint32_t total, uint32_t worker, uint32_t workers) {
    return (nibl_share){(uint32_t)((uint64_t)total * worker / workers),
                        (uint32_t)((uint64_t)total * (worker + 1) / workers)};
}

/* Blocks of a row's queries in int8. */
static inline uint32_t nibl_query_acts(const nibl_hyper *h) {
    return h->heads * NIBL_KV_QUERY_BLOCKS(h->head_width);
}

static inline float *nibl_q_of(const nibl_run *run, uint32_t t) {
    return run->qkv + (size_t)t * run->q_width;
}

static inline float *nibl_kv_of(const nibl_run *run, uint32_t t, bool value) {
    return run->qkv + (size_t)run->chunk_rows * run->q_width +
           ((size_t)(value ? run->chunk_rows : 0) + t) * run->kv_width;
}

static inline float *nibl_input_of(const nibl_run *run, uint32_t t) {
    return run->input + (size_t)t * run->widest;
}

/* ---- layer.c ---- */

void nibl_run_layer(const nibl_run *run, uint32_t layer, uint32_t worker, uint32_t workers);

/* True where the product takes floats. */
bool nibl_product_is_float(const nibl_run *run, const nibl_matrix *w);

/* Rounds row t of the input to int8 where some product wants it so, its columns in the order of the products. */
void nibl_quantize_row(const nibl_run *run, const nibl_product *products, uint32_t count, uint32_t t,
                       uint32_t worker);

/* Ends with a barrier, as the phases below. */
void nibl_multiply(const nibl_run *run, const nibl_product *products, uint32_t count, uint32_t worker,
                   uint32_t workers);

/* y = norm(x) w (+ bias); y may be x; without weights a copy. */
void nibl_normalise(const nibl_run *run, float *y, const float *x, const float *weight, const float *bias,
                    uint32_t n);

/* Row t of `input` = the activation function of row t of `hidden`, columns [at, at + n), with the expert's biases. */
void nibl_activate_columns(const nibl_run *run, const nibl_layer *l, uint32_t t, uint32_t rows,
                           uint32_t expert, uint32_t at, uint32_t n);

/* Adds y (width) to row t of the residual stream. */
void nibl_add_row(const nibl_run *run, uint32_t t, float *y, const float *bias, const float *post_norm);

/* ---- attention.c: from q, k and v to `input` ---- */

void nibl_attend(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers);

/* ---- experts.c: from the normalised rows to the residual stream ---- */

void nibl_run_experts(const nibl_run *run, const nibl_layer *l, uint32_t worker, uint32_t workers);

#endif
