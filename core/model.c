#include "core/model.h"

#include "core/maths.h"
#include "core/rows.h"
#include "kernels/maths.h"

#include <string.h>

enum { WEIGHT_ALIGN = 64 };

/* What a slot holds. */
typedef struct slot_shape {
    uint64_t rows, cols;
} slot_shape;

static slot_shape shape_of(const nibl_model *m, nibl_slot slot) {
    const nibl_slot_form *form = &nibl_slot_forms[slot];
    nibl_dim cols = form->cols;
    if (m->arch->whole_qk_norm && slot == NIBL_SLOT_Q_NORM) cols = NIBL_DIM_Q;
    if (m->arch->whole_qk_norm && slot == NIBL_SLOT_K_NORM) cols = NIBL_DIM_KV;
    return (slot_shape){nibl_arch_dim(&m->hyper, form->rows), nibl_arch_dim(&m->hyper, cols)};
}

/* Where a slot stands, in a layer or in the model. */
static void *place_of(nibl_model *m, nibl_layer *l, nibl_slot slot) {
    static const size_t offsets[NIBL_SLOT_COUNT] = {
#define IN_MODEL(slot, member) [NIBL_SLOT_##slot] = offsetof(nibl_model, member)
#define IN_LAYER(slot, member) [NIBL_SLOT_##slot] = offsetof(nibl_layer, member)
        IN_MODEL(EMBEDDING, embedding),
        IN_MODEL(POSITIONS, positions),
        IN_MODEL(ROPE_FACTORS, rope_factors),
        IN_MODEL(ROPE_SHORT, rope_short),
        IN_MODEL(ROPE_LONG, rope_long),
        IN_LAYER(ATTN_NORM, attn_norm),
        IN_LAYER(ATTN_NORM_BIAS, attn_norm_bias),
        IN_LAYER(WQ, wq),
        IN_LAYER(WK, wk),
        IN_LAYER(WV, wv),
        IN_LAYER(BQ, bq),
        IN_LAYER(BK, bk),
        IN_LAYER(BV, bv),
        IN_LAYER(Q_NORM, q_norm),
        IN_LAYER(K_NORM, k_norm),
        IN_LAYER(SINKS, sinks),
        IN_LAYER(ATTN_SUB_NORM, attn_sub_norm),
        IN_LAYER(WO, wo),
        IN_LAYER(BO, bo),
        IN_LAYER(CONV_IN, conv_in),
        IN_LAYER(CONV, conv),
        IN_LAYER(CONV_OUT, conv_out),
        IN_LAYER(POST_ATTN_NORM, post_attn_norm),
        IN_LAYER(FFN_NORM, ffn_norm),
        IN_LAYER(FFN_NORM_BIAS, ffn_norm_bias),
        IN_LAYER(ROUTER, router),
        IN_LAYER(ROUTER_BIAS, router_bias),
        IN_LAYER(GATE_UP, gate_up),
        IN_LAYER(GATE_UP_BIAS, gate_up_bias),
        IN_LAYER(DOWNS, downs),
        IN_LAYER(GATE, gate),
        IN_LAYER(UP, up),
        IN_LAYER(GATE_BIAS, gate_bias),
        IN_LAYER(UP_BIAS, up_bias),
        IN_LAYER(FFN_SUB_NORM, ffn_sub_norm),
        IN_LAYER(DOWN, down),
        IN_LAYER(DOWN_BIAS, down_bias),
        IN_LAYER(POST_FFN_NORM, post_ffn_norm),
        IN_MODEL(OUTPUT_NORM, output_norm),
        IN_MODEL(OUTPUT_NORM_BIAS, output_norm_bias),
        IN_MODEL(HEAD, head),
#undef IN_MODEL
#undef IN_LAYER
    };
    return (uint8_t *)(nibl_slot_in_layer(slot) ? (void *)l : (void *)m) + offsets[slot];
}

static nibl_matrix *matrix_of(nibl_model *m, nibl_layer *l, nibl_slot slot, uint32_t expert) {
    void *place = place_of(m, l, slot);
    return nibl_slot_forms[slot].expert ? *(nibl_matrix **)place + expert : place;
}

/* A slot that is there for every expert. */
static bool is_each(const nibl_model *m, nibl_slot slot) {
    return nibl_slot_forms[slot].expert && m->hyper.experts > 0;
}

/* A slot that holds the matrices of all experts. */
static bool is_stack(nibl_slot slot) { return slot == NIBL_SLOT_GATE_UP || slot == NIBL_SLOT_DOWNS; }

static bool is_transposed(const nibl_model *m, nibl_slot slot) {
    if (is_stack(slot)) return m->transposed_experts;
    return m->transposed && !nibl_slot_forms[slot].vector && nibl_slot_in_layer(slot);
}

static uint64_t packed_bytes(const nibl_binding *b) {
    if (b->quantized && !b->owns) return 0;
    uint64_t bytes =
        b->matrix ? (uint64_t)nibl_panel_bytes(b->matrix) * nibl_panels(b->matrix) : b->length * 4ull;
    return (bytes + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
}

/* The tensor of a slot, and which of its rows (or numbers, of a vector) come first; NULL where it is absent. */
static const nibl_gguf_tensor *find_tensor(const nibl_model *m, nibl_slot slot, uint32_t layer,
                                           uint32_t expert, char name[80], uint64_t *first, bool *whole) {
    const nibl_slot_name names = nibl_arch_slot(m->arch, slot);
    const slot_shape shape = shape_of(m, slot);
    const bool stacked = is_each(m, slot);
    nibl_arch_write_name(names.gguf, layer, expert, name);
    const nibl_gguf_tensor *t = nibl_gguf_find_tensor(m->gguf, name);
    *whole = !stacked && !names.shared;
    *first = stacked ? expert * shape.rows : 0;
    for (int i = 0; i < 2 && names.after[i] != NIBL_SLOT_EMBEDDING; i++) {
        const slot_shape before = shape_of(m, names.after[i]);
        *first += nibl_slot_forms[slot].vector ? before.cols : before.rows;
    }
    if (t || !stacked) return t;
    char own[80];
    nibl_arch_write_expert_name(slot, layer, expert, own);
    const nibl_gguf_tensor *of_expert = nibl_gguf_find_tensor(m->gguf, own);
    if (!of_expert) return NULL;
    memcpy(name, own, sizeof own);
    *whole = true;
    *first = 0;
    return of_expert;
}

static nibl_status check_shape(const nibl_model *m, const char *name, const nibl_gguf_tensor *t,
                               nibl_slot slot, uint64_t first, bool whole) {
    const slot_shape shape = shape_of(m, slot);
    const bool vector = nibl_slot_forms[slot].vector;
    const bool transposed = is_transposed(m, slot), stack = is_stack(slot);
    const uint64_t width = t->dims[0], outer = t->dims[2] * t->dims[3],
                   rest = t->dims[1] * outer; /* the parser checked the product */
    const uint64_t cols = transposed ? t->dims[1] : width, rows = transposed ? width * outer : rest;
    bool fits = (!transposed || outer == (stack ? m->hyper.experts : 1)) && cols == shape.cols &&
                (whole ? rows == shape.rows : first + shape.rows <= rows);
    if (vector && !whole) fits = rest == 1 && first + shape.cols <= width;
    const uint32_t most = vector || stack || (nibl_slot_forms[slot].expert && !whole) ? 3 : 2;
    if (fits && t->n_dims <= most && shape.rows * shape.cols <= 1ull << 34) return NIBL_OK;
    return nibl_fail(NIBL_E_FILE, "tensor '%s' has shape [%llu, %llu]; the metadata ask for [%llu, %llu]",
                     name, (unsigned long long)rows, (unsigned long long)cols, (unsigned long long)shape.rows,
                     (unsigned long long)shape.cols);
}

/* Numbers of the file per row of a binding. */
static uint64_t file_cols(const nibl_binding *b) { return b->row_bytes / b->type->bytes * b->type->block; }

/* What waits for a binding of this slot. */
static void set_waiting(nibl_model *m, nibl_binding *b, uint32_t layer) {
    b->layer = nibl_slot_in_layer(b->slot) ? &m->layers[layer] : NULL;
    b->missing = b->layer                        ? &b->layer->missing
                 : b->slot < NIBL_SLOT_ATTN_NORM ? &m->missing_embedding
                                                 : &m->missing_output;
    ++*b->missing;
}

static uint32_t halves_of(const nibl_model *m, nibl_slot slot) {
    const bool turned =
        slot == NIBL_SLOT_WQ || slot == NIBL_SLOT_WK || slot == NIBL_SLOT_BQ || slot == NIBL_SLOT_BK;
    return m->rope_halves && turned ? m->hyper.head_width : 0;
}

/* Adds a binding that is complete. */
static nibl_status add_binding(nibl_model *m, const nibl_binding *b) {
    void *array = m->bindings;
    const nibl_status status =
        nibl_reserve(&array, &m->binding_capacity, m->binding_count + 1, sizeof *b, "the list of tensors");
    m->bindings = array;
    NIBL_TRY(status);
    m->file_bytes += b->row_bytes * b->rows;
    m->packed_bytes += packed_bytes(b);
    m->bindings[m->binding_count++] = *b;
    return NIBL_OK;
}

/* Matrices that are parts of one (nibl_model_part) begin where a panel does. */
static nibl_status check_panels(const char *name, uint32_t a, uint32_t b) {
    if (a % NIBL_PANEL == 0 && b % NIBL_PANEL == 0) return NIBL_OK;
    return nibl_fail(NIBL_E_UNSUPPORTED, "'%s': matrices of %u and %u rows in one tensor are not supported",
                     name, a, b);
}

/* What holds the matrices of several slots; NULL where a slot's tensor is its own. */
static nibl_matrix *whole_of(const nibl_model *m, nibl_layer *l, nibl_slot slot) {
    if (!nibl_arch_slot(m->arch, slot).shared) return NULL;
    return slot == NIBL_SLOT_GATE || slot == NIBL_SLOT_UP ? &l->gate_up : &l->qkv;
}

/* Adds the bindings of a matrix that several tensors make. */
static nibl_status bind_parts(nibl_model *m, nibl_slot slot, uint32_t layer, uint32_t expert,
                              const char *name) {
    const nibl_hyper *h = &m->hyper;
    const slot_shape shape = shape_of(m, slot);
    nibl_layer *l = m->layers + layer;
    nibl_matrix *whole = whole_of(m, l, slot), *matrix = whole ? whole : matrix_of(m, l, slot, expert);
    if (matrix->rows > 0) return NIBL_OK; /* bound with the first of its slots */
    const uint32_t rows = whole == &l->qkv       ? (h->heads + 2 * h->kv_heads) * h->head_width
                          : whole == &l->gate_up ? 2 * h->ffn_width
                                                 : (uint32_t)shape.rows;
    *matrix = (nibl_matrix){.rows = rows, .cols = (uint32_t)shape.cols, .factor = 1};
    if (whole == &l->qkv) NIBL_TRY(check_panels(name, h->heads * h->head_width, h->kv_heads * h->head_width));
    if (whole == &l->gate_up || is_stack(slot)) NIBL_TRY(check_panels(name, h->ffn_width, h->width));
    nibl_hfq *q = &m->quantized[m->quantized_count++];
    *q = (nibl_hfq){.config = m->quantization,
                    .w = matrix,
                    .halves = halves_of(m, slot),
                    .alternating = slot == NIBL_SLOT_GATE_UP};
    nibl_hfq_piece pieces[NIBL_HFQ_PARTS];
    size_t count;
    NIBL_TRY(nibl_hfq_bind(m->gguf, name, q, pieces, &count));
    for (size_t i = 0; i < count; i++) {
        nibl_binding b = {.tensor = pieces[i].tensor,
                          .slot = slot,
                          .row_bytes = pieces[i].row_bytes,
                          .rows = pieces[i].rows,
                          .matrix = matrix,
                          .quantized = q,
                          .part = pieces[i].part,
                          .owns = i == 0};
        set_waiting(m, &b, layer);
        NIBL_TRY(add_binding(m, &b));
    }
    return NIBL_OK;
}

/* Adds the binding of one slot, checked against the header; absent tensors only where they may be. */
static nibl_status bind_slot(nibl_model *m, nibl_slot slot, uint32_t layer, uint32_t expert) {
    const nibl_presence presence = nibl_arch_presence(m->arch, slot);
    if (presence == NIBL_WHERE_ASKED) return NIBL_OK;
    char name[80];
    uint64_t first;
    bool whole;
    const nibl_gguf_tensor *t = find_tensor(m, slot, layer, expert, name, &first, &whole);
    const bool is_vector = nibl_slot_forms[slot].vector;
    if (!is_vector && slot != NIBL_SLOT_EMBEDDING) {
        char own[80]; /* several tensors may make the matrix */
        memcpy(own, name, sizeof own);
        if (is_each(m, slot)) nibl_arch_write_expert_name(slot, layer, expert, own);
        if (nibl_hfq_has(m->gguf, &m->quantization, own)) return bind_parts(m, slot, layer, expert, own);
    }
    if (is_stack(slot) && !m->transposed_experts) return NIBL_OK; /* of plain weights the experts are apart */
    if (!t)
        return presence == NIBL_WHERE_PRESENT ? NIBL_OK
                                              : nibl_fail(NIBL_E_FILE, "tensor '%s' is missing", name);
    const slot_shape shape = shape_of(m, slot);
    NIBL_TRY(check_shape(m, name, t, slot, first, whole));
    const nibl_dtype *type = nibl_dtype_by_id(t->type);
    if (!type) {
        const char *type_name = nibl_dtype_name(t->type);
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' has type %s (%u), which this build does not read",
                         name, type_name ? type_name : "unknown", t->type);
    }
    if (is_vector && !nibl_kind_is_float(type->kind))
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s': a vector of type %s; F32, F16 or BF16 is possible",
                         name, type->name);
    if (is_vector && shape.rows * shape.cols > UINT32_MAX / 8)
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' is too large", name);
    nibl_binding b = {.tensor = (uint32_t)(t - nibl_gguf_tensor_at(m->gguf, 0)),
                      .slot = slot,
                      .type = type,
                      .packed = type,
                      .rows = is_vector ? 1 : shape.rows,
                      .transposed = is_transposed(m, slot)};
    const uint64_t cols = is_vector ? shape.rows * shape.cols : b.transposed ? t->dims[0] : shape.cols;
    if (b.transposed && !nibl_kind_is_float(type->kind))
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' is transposed and has type %s: not supported", name,
                         type->name);
    if (m->quantize && !is_vector && slot != NIBL_SLOT_ROUTER && nibl_kind_is_float(type->kind) &&
        shape.cols % m->quantize->block == 0)
        b.packed = m->quantize;
    if (!nibl_dtype_row_bytes(type, (uint32_t)cols, &b.row_bytes))
        return nibl_fail(NIBL_E_FILE, "tensor '%s': %llu columns are not a multiple of %u, the block of %s",
                         name, (unsigned long long)cols, type->block, type->name);
    nibl_layer *l = m->layers + layer;
    if (is_vector) {
        b.vector = place_of(m, l, slot);
        b.length = (uint32_t)cols;
        b.offset = first * type->bytes;
    } else {
        b.matrix = matrix_of(m, l, slot, expert);
        *b.matrix = nibl_matrix_of(b.packed, (uint32_t)shape.rows, (uint32_t)shape.cols);
        b.offset = b.transposed ? 0 : first * b.row_bytes;
    }
    b.halves = halves_of(m, slot);
    b.alternating = slot == NIBL_SLOT_GATE_UP_BIAS || slot == NIBL_SLOT_GATE_UP;
    b.stacked = is_stack(slot) ? m->hyper.experts : 1;
    if (is_stack(slot)) NIBL_TRY(check_panels(name, m->hyper.ffn_width, m->hyper.width));
    set_waiting(m, &b, layer);
    if (b.transposed) {
        b.first = (uint32_t)first;
        b.rows = shape.cols * b.stacked;
        for (size_t i = m->binding_count; first > 0 && i-- > 0;) {
            nibl_binding *leader = &m->bindings[i];
            if (leader->tensor != b.tensor || leader->first > 0) continue;
            b.next = leader->next;
            b.rows = 0;
            b.offset = t->bytes; /* nothing, behind the leader's rows */
            leader->next = (uint32_t)m->binding_count;
            break;
        }
    }
    return add_binding(m, &b);
}

/* Every tensor must have a place: one left over means a trait this build would silently drop. */
static nibl_status check_all_used(const nibl_model *m) {
    const size_t count = nibl_gguf_tensor_count(m->gguf);
    uint64_t bound = 0, there = 0;
    for (size_t i = 0; i < m->binding_count; i++) bound += m->bindings[i].row_bytes * m->bindings[i].rows;
    bool known = true; /* sizes */
    for (size_t i = 0; i < count; i++) {
        const uint64_t bytes = nibl_gguf_tensor_at(m->gguf, i)->bytes;
        there += bytes;
        known = known && bytes > 0;
    }
    if (bound == there && known) return NIBL_OK;
    for (size_t i = 0; i < count; i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(m->gguf, i);
        bound = 0;
        for (size_t j = 0; j < m->binding_count; j++)
            if (m->bindings[j].tensor == i) bound += m->bindings[j].row_bytes * m->bindings[j].rows;
        if (bound == t->bytes && t->bytes > 0) continue;
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' has %s in architecture %s of this build",
                         (int)t->name.length, t->name.bytes, bound ? "rows without a place" : "no place",
                         m->arch->name);
    }
    return NIBL_OK;
}

/* What the layer has by its kind of block, and has not as a part of something else. */
static bool layer_has(const nibl_layer *l, nibl_slot slot) {
    if (slot == NIBL_SLOT_GATE || slot == NIBL_SLOT_UP) return l->gate_up.rows == 0;
    if (slot == NIBL_SLOT_DOWN) return l->downs.rows == 0;
    if (slot >= NIBL_SLOT_WQ && slot <= NIBL_SLOT_BO) return !l->form.conv;
    if (slot >= NIBL_SLOT_CONV_IN && slot <= NIBL_SLOT_CONV_OUT) return l->form.conv;
    return true;
}

static nibl_status bind_layer(nibl_model *m, uint32_t layer) {
    const uint32_t experts = nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS);
    nibl_layer *l = &m->layers[layer];
    NIBL_TRY(nibl_arch_layer(m->arch, m->gguf, &m->hyper, layer, &l->form));
    for (uint32_t i = 0; i < layer; i++) l->index += m->layers[i].form.conv == l->form.conv;
    l->gate = m->ffn + (size_t)layer * 3 * experts;
    l->up = l->gate + experts;
    l->down = l->up + experts;
    for (nibl_slot s = NIBL_SLOT_ATTN_NORM; s <= NIBL_SLOT_POST_FFN_NORM; s++)
        for (uint32_t e = 0; layer_has(l, s) && e < (nibl_slot_forms[s].expert ? experts : 1); e++)
            NIBL_TRY(bind_slot(m, s, layer, e));
    return NIBL_OK;
}

static nibl_status bind(nibl_model *m) {
    const nibl_gguf *g = m->gguf;
    NIBL_TRY(nibl_arch_of(g, &m->arch));
    NIBL_TRY(nibl_arch_hyper(m->arch, g, &m->hyper));

    char name[80];
    nibl_arch_write_name(nibl_arch_slot(m->arch, NIBL_SLOT_EMBEDDING).gguf, 0, 0, name);
    const nibl_gguf_tensor *embedding = nibl_gguf_find_tensor(g, name);
    if (!embedding) return nibl_fail(NIBL_E_FILE, "tensor '%s' is missing", name);
    if (embedding->dims[1] > 1u << 22)
        return nibl_fail(NIBL_E_FILE, "tensor '%s' has %llu rows; at most %u are possible", name,
                         (unsigned long long)embedding->dims[1], 1u << 22);
    m->hyper.vocabulary = (uint32_t)embedding->dims[1];

    nibl_gguf_bool(g, NIBL_KEY_ROPE_HALVES, &m->rope_halves);
    nibl_gguf_bool(g, NIBL_KEY_NORMS_FROM_ZERO, &m->norms_from_zero);
    nibl_gguf_bool(g, NIBL_KEY_TRANSPOSED, &m->transposed);
    nibl_gguf_bool(g, NIBL_KEY_TRANSPOSED_EXPERTS, &m->transposed_experts);
    if (m->rope_halves && m->hyper.rope_width != m->hyper.head_width)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "RoPE over %u of %u values of a head, in halves, is not supported",
                         m->hyper.rope_width, m->hyper.head_width);
    const uint64_t experts = nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS), layers = m->hyper.layers;
    /* experts that the file has no tensors for must not cost memory */
    if (experts * layers > 1u << 15)
        return nibl_fail(NIBL_E_UNSUPPORTED, "%llu experts are too many",
                         (unsigned long long)(experts * layers));
    nibl_hfq_read_metadata(g, &m->quantization);
    const uint64_t slots = layers * (NIBL_SLOT_COUNT + 3 * experts) + NIBL_SLOT_COUNT;
    m->layers = nibl_alloc_zero(layers * sizeof *m->layers);
    m->ffn = nibl_alloc_zero(3 * experts * layers * sizeof *m->ffn);
    if (m->quantization.method) m->quantized = nibl_alloc(slots * sizeof *m->quantized);
    if (!m->layers || !m->ffn || (m->quantization.method && !m->quantized))
        return nibl_fail_memory(slots * sizeof *m->quantized, "the list of tensors");

    for (nibl_slot s = NIBL_SLOT_EMBEDDING; s < NIBL_SLOT_ATTN_NORM; s++) NIBL_TRY(bind_slot(m, s, 0, 0));
    for (uint32_t l = 0; l < layers; l++) NIBL_TRY(bind_layer(m, l));
    for (nibl_slot s = NIBL_SLOT_OUTPUT_NORM; s < NIBL_SLOT_COUNT; s++) NIBL_TRY(bind_slot(m, s, 0, 0));
    m->tied = m->head.rows == 0;
    return check_all_used(m);
}

/* At most, however it is divided. */
static uint64_t parts_of(const nibl_model *m) { return m->binding_count + m->hyper.layers + 2; }

static void release(nibl_model *m) {
    for (size_t i = 0; i < m->quantized_count; i++) nibl_hfq_free(&m->quantized[i]);
    for (size_t i = 0; i < m->binding_count; i++) nibl_free(m->bindings[i].waiting);
    nibl_free(m->quantized);
    nibl_free(m->layers);
    nibl_free(m->ffn);
    nibl_free(m->own_factors);
    nibl_free(m->bindings);
    nibl_free(m->weights);
    for (uint64_t i = 0; m->parts && i < parts_of(m); i++) nibl_free(m->parts[i]);
    nibl_free(m->parts);
    nibl_free(m->staging);
    nibl_free(m->name);
}

nibl_status nibl_model_sizes(nibl_gguf *gguf, const nibl_dtype *quantize, nibl_model_size *out) {
    nibl_model m = {.gguf = gguf, .quantize = quantize};
    nibl_status status = bind(&m);
    if (status == NIBL_OK)
        *out =
            (nibl_model_size){.hyper = m.hyper, .file_bytes = m.file_bytes, .packed_bytes = m.packed_bytes};
    release(&m);
    return status;
}

/* Rows [first, first + rows) of a matrix; both are multiples of a panel. */
static nibl_matrix rows_of(const nibl_matrix *all, uint32_t first, uint32_t rows) {
    nibl_matrix part = *all;
    part.data = nibl_panel(all, first / NIBL_PANEL);
    part.rows = rows;
    return part;
}

void nibl_model_part(const nibl_hyper *h, nibl_layer *l) {
    const uint32_t experts = h->experts ? h->experts : 1, q = h->heads * h->head_width,
                   kv = h->kv_heads * h->head_width;
    if (l->qkv.rows > 0) {
        l->wq = rows_of(&l->qkv, 0, q);
        l->wk = rows_of(&l->qkv, q, kv);
        l->wv = rows_of(&l->qkv, q + kv, kv);
    }
    for (uint32_t e = 0; e < experts && l->gate_up.rows > 0; e++) {
        l->gate[e] = rows_of(&l->gate_up, e * h->ffn_width, h->ffn_width);
        l->up[e] = rows_of(&l->gate_up, (experts + e) * h->ffn_width, h->ffn_width);
    }
    for (uint32_t e = 0; e < experts && l->downs.rows > 0; e++)
        l->down[e] = rows_of(&l->downs, e * h->width, h->width);
    if (!l->gate_up_bias) return;
    l->gate_bias = l->gate_up_bias;
    l->up_bias = l->gate_up_bias + (size_t)experts * h->ffn_width;
}

nibl_status nibl_model_check_factors(const nibl_model *m, const float *factors) {
    for (uint32_t i = 0; i < m->hyper.rope_width / 2; i++)
        if (!(factors[i] >= 1))
            return nibl_fail(NIBL_E_FILE, "RoPE factor %u is %g; at least 1 is possible", i,
                             (double)factors[i]);
    return NIBL_OK;
}

/* The factors that a Hugging Face folder has in its configuration. */
static nibl_status read_factors(nibl_model *m) {
    static const char *const keys[] = {NIBL_KEY_ROPE_FACTORS, NIBL_KEY_ROPE_SHORT, NIBL_KEY_ROPE_LONG};
    float **places[] = {&m->rope_factors, &m->rope_short, &m->rope_long};
    enum { LISTS = sizeof keys / sizeof *keys };
    const uint32_t pairs = m->hyper.rope_width / 2;
    for (size_t k = 0; k < LISTS; k++) {
        nibl_gguf_array array;
        if (!nibl_gguf_array_of(m->gguf, keys[k], &array)) continue;
        if (array.type != NIBL_GGUF_F32 || array.count != pairs)
            return nibl_fail(NIBL_E_FILE, "there are %llu RoPE factors, %u are needed",
                             (unsigned long long)array.count, pairs);
        const uint64_t bytes = (uint64_t)LISTS * pairs * sizeof *m->own_factors;
        if (!m->own_factors && !(m->own_factors = nibl_alloc(bytes)))
            return nibl_fail_memory(bytes, "RoPE factors");
        *places[k] = m->own_factors + k * pairs;
        for (uint32_t i = 0; i < pairs; i++)
            (*places[k])[i] = nibl_bits_float(nibl_load_u32(array.data + 4ull * i));
        NIBL_TRY(nibl_model_check_factors(m, *places[k]));
    }
    return NIBL_OK;
}

/* Allocates the weights of bindings [begin, end) and gives every one its place, in the order of need. */
static nibl_status place(nibl_model *m, size_t begin, size_t end, uint8_t **block) {
    uint64_t bytes = 0;
    for (size_t i = begin; i < end; i++) bytes += packed_bytes(&m->bindings[i]);
    *block = nibl_alloc(bytes);
    if (!*block) return nibl_fail_memory(bytes, "the weights");
    nibl_plat_will_stream(*block, bytes);
    uint8_t *p = *block;
    for (size_t i = begin; i < end; i++) {
        nibl_binding *b = &m->bindings[i];
        if (b->quantized && !b->owns) continue;
        if (b->matrix) {
            b->matrix->data = p;
            const uint32_t panels = nibl_panels(b->matrix);
            if (b->quantized)
                memset(p, 0, nibl_panel_bytes(b->matrix) * panels);
            else if (b->matrix->rows % NIBL_PANEL != 0)
                memset(nibl_panel(b->matrix, panels - 1), 0, nibl_panel_bytes(b->matrix));
        } else {
            *b->vector = (float *)(void *)p;
        }
        p += packed_bytes(b);
        if (b->layer && (i + 1 == end || m->bindings[i + 1].layer != b->layer))
            nibl_model_part(&m->hyper, b->layer);
    }
    if (m->tied) m->head = m->embedding;
    return NIBL_OK;
}

/* Room for a row that is quantized on arrival. */
static nibl_status make_staging(nibl_model *m) {
    uint64_t widest = 0;
    for (size_t i = 0; i < m->binding_count; i++) {
        const nibl_binding *b = &m->bindings[i];
        uint64_t bytes;
        if (!b->quantized && b->packed != b->type &&
            nibl_dtype_row_bytes(b->packed, b->matrix->cols, &bytes) && bytes > widest)
            widest = bytes;
    }
    if (widest > 0 && !(m->staging = nibl_alloc(widest)))
        return nibl_fail_memory(widest, "a row of a tensor");
    return NIBL_OK;
}

/* ---- Weights that come and go ---- */

void nibl_model_divide(nibl_model *m, bool tensors) {
    for (size_t i = 0; i < m->binding_count; i++) {
        nibl_binding *b = &m->bindings[i];
        /* what one tensor of a GGUF file holds stays together */
        const bool same =
            i > 0 && b->layer && b->layer == b[-1].layer &&
            strcmp(nibl_arch_slot(m->arch, b->slot).gguf, nibl_arch_slot(m->arch, b[-1].slot).gguf) == 0;
        if (tensors)
            b->section =
                i == 0 ? 0
                       : b[-1].section + !(same || b->tensor == b[-1].tensor || (b->quantized && !b->owns));
        else if (b->layer)
            b->section = 1 + (uint32_t)(b->layer - m->layers);
        else
            b->section = b->missing == &m->missing_embedding ? 0 : m->hyper.layers + 1;
    }
}

size_t nibl_model_part_end(const nibl_model *m, size_t index) {
    size_t end = index + 1;
    while (end < m->binding_count && m->bindings[end].section == m->bindings[index].section) end++;
    return end;
}

size_t nibl_model_open_end(const nibl_model *m) {
    size_t end = 0;
    while (end < m->binding_count && m->bindings[end].section <= m->open) end++;
    return end;
}

nibl_status nibl_model_hold_part(nibl_model *m, const nibl_binding *b) {
    if (!m->parts || m->parts[b->section]) return NIBL_OK;
    size_t begin = (size_t)(b - m->bindings);
    while (begin > 0 && m->bindings[begin - 1].section == b->section) begin--;
    return place(m, begin, nibl_model_part_end(m, begin), &m->parts[b->section]);
}

bool nibl_model_part_ready(const nibl_model *m, uint32_t part) {
    for (size_t i = 0; i < m->binding_count; i++)
        if (m->bindings[i].section == part && m->bindings[i].rows_done < m->bindings[i].rows) return false;
    return true;
}

void nibl_model_drop_part(nibl_model *m, uint32_t part) {
    nibl_free(m->parts[part]);
    m->parts[part] = NULL;
    for (size_t i = 0; i < m->binding_count; i++) {
        nibl_binding *b = &m->bindings[i];
        if (b->section != part) continue;
        *b->missing += b->rows_done == b->rows;
        b->rows_done = 0;
    }
}

static nibl_status build(nibl_model *m, bool parts) {
    NIBL_TRY(bind(m));
    NIBL_TRY(nibl_tokenizer_new(m->gguf, &m->tokenizer));
    if (nibl_tokenizer_size(m->tokenizer) > m->hyper.vocabulary)
        return nibl_fail(NIBL_E_FILE, "the tokenizer has %zu tokens, the embedding only %u rows",
                         nibl_tokenizer_size(m->tokenizer), m->hyper.vocabulary);
    m->kernels = nibl_kernels_get(nibl_plat_isa_cap());
    if (!m->kernels)
        return nibl_fail(NIBL_E_ARGUMENT, "NIBL_ISA=%s names no instruction set of this machine",
                         nibl_plat_isa_cap());

    NIBL_TRY(read_factors(m));
    if (m->hyper.rope.scaling == NIBL_ROPE_LONG && (!m->rope_short != !m->rope_long))
        return nibl_fail(NIBL_E_FILE, "only one of two lists of RoPE factors is there");
    nibl_slice name = {"", 0};
    nibl_gguf_string(m->gguf, "general.name", &name);
    m->name = nibl_alloc((uint64_t)name.length + 1);
    if (!m->name) return nibl_fail_memory(name.length, "the model's name");
    memcpy(m->name, name.bytes, name.length);
    m->name[name.length] = 0;
    NIBL_TRY(make_staging(m));
    nibl_model_divide(m, false);
    if (!parts) return place(m, 0, m->binding_count, &m->weights);
    m->parts = nibl_alloc_zero(parts_of(m) * sizeof *m->parts);
    return m->parts ? NIBL_OK : nibl_fail_memory(parts_of(m) * sizeof *m->parts, "the weights");
}

nibl_status nibl_model_new(nibl_gguf *gguf, const nibl_dtype *quantize, bool parts, nibl_model **out) {
    nibl_model *m = nibl_alloc_zero(sizeof *m);
    if (!m) return nibl_fail_memory(sizeof *m, "the model");
    m->gguf = gguf;
    m->quantize = quantize;
    nibl_status status = build(m, parts);
    if (status < 0) {
        m->gguf = NULL;
        nibl_model_free(m);
        return status;
    }
    *out = m;
    return NIBL_OK;
}

void nibl_model_free(nibl_model *m) {
    if (!m) return;
    if (m->free_batch) m->free_batch(m->batch);
    nibl_pool_free(m->pool);
    nibl_token_trie_free(m->token_trie);
    nibl_tokenizer_free(m->tokenizer);
    nibl_gguf_free(m->gguf);
    release(m);
    nibl_free(m);
}

bool nibl_model_complete(const nibl_model *m) {
    if (m->missing_embedding || m->missing_output) return false;
    for (uint32_t l = 0; l < m->hyper.layers; l++)
        if (m->layers[l].missing) return false;
    return true;
}

nibl_status nibl_model_get_info(const nibl_model *m, nibl_model_info *info) {
    if (info->size < sizeof *info)
        return nibl_fail(NIBL_E_ARGUMENT, "nibl_model_info.size is %zu, must be %zu", info->size,
                         sizeof *info);
    const nibl_hyper *h = &m->hyper;
    uint64_t parameters = 0;
    for (size_t i = 0; i < m->binding_count; i++) {
        const nibl_binding *b = &m->bindings[i];
        if (!b->quantized)
            parameters += b->rows * file_cols(b);
        else if (b->owns)
            parameters += (uint64_t)b->matrix->rows * b->matrix->cols;
    }
    *info = (nibl_model_info){
        .size = sizeof *info,
        .architecture = m->arch->name,
        .name = m->name,
        .parameters = parameters,
        .packed_bytes = m->packed_bytes,
        .context_length = h->context_length,
        .layers = h->layers,
        .width = h->width,
        .heads = h->heads,
        .kv_heads = h->kv_heads,
        .head_width = h->head_width,
        .ffn_width = h->ffn_width,
        .vocabulary = h->vocabulary,
        .bos = nibl_tokenizer_bos(m->tokenizer),
        .eos = nibl_tokenizer_eos(m->tokenizer),
        .add_bos = nibl_tokenizer_add_bos(m->tokenizer),
        .complete = nibl_model_complete(m),
    };
    return NIBL_OK;
}

const char *nibl_model_metadata(const nibl_model *m, const char *key, size_t *length) {
    nibl_slice value;
    if (!nibl_gguf_string(m->gguf, key, &value)) return NULL;
    *length = value.length;
    return value.bytes;
}

const char *nibl_isa(void) { return nibl_kernels_get(nibl_plat_isa_cap()) ? nibl_kernels_names() : ""; }
