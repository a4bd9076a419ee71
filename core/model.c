#include "core/model.h"

#include "core/encode.h"
#include "core/maths.h"
#include "kernels/maths.h"

#include <string.h>

enum { WEIGHT_ALIGN = 64 };

/* What a slot holds: shape in terms of the hyperparameters. */
typedef struct slot_shape {
    uint32_t rows, cols; /* rows 1 and `vector`: a vector of cols */
    bool vector;
} slot_shape;

static slot_shape shape_of(const nibl_hyper *h, nibl_slot slot) {
    const uint32_t q = h->heads * h->head_width, kv = h->kv_heads * h->head_width;
    switch (slot) {
    case NIBL_SLOT_EMBEDDING:
    case NIBL_SLOT_HEAD: return (slot_shape){h->vocabulary, h->width, false};
    case NIBL_SLOT_WQ: return (slot_shape){q, h->width, false};
    case NIBL_SLOT_WK:
    case NIBL_SLOT_WV: return (slot_shape){kv, h->width, false};
    case NIBL_SLOT_WO: return (slot_shape){h->width, q, false};
    case NIBL_SLOT_GATE:
    case NIBL_SLOT_UP: return (slot_shape){h->ffn_width, h->width, false};
    case NIBL_SLOT_DOWN: return (slot_shape){h->width, h->ffn_width, false};
    case NIBL_SLOT_ATTN_NORM:
    case NIBL_SLOT_FFN_NORM:
    case NIBL_SLOT_OUTPUT_NORM:
    case NIBL_SLOT_COUNT: break;
    }
    return (slot_shape){1, h->width, true};
}

static nibl_matrix *matrix_of(nibl_model *m, nibl_layer *l, nibl_slot slot) {
    switch (slot) {
    case NIBL_SLOT_EMBEDDING: return &m->embedding;
    case NIBL_SLOT_HEAD: return &m->head;
    case NIBL_SLOT_WQ: return &l->wq;
    case NIBL_SLOT_WK: return &l->wk;
    case NIBL_SLOT_WV: return &l->wv;
    case NIBL_SLOT_WO: return &l->wo;
    case NIBL_SLOT_GATE: return &l->gate;
    case NIBL_SLOT_UP: return &l->up;
    case NIBL_SLOT_DOWN: return &l->down;
    default: return NULL;
    }
}

static float **vector_of(nibl_model *m, nibl_layer *l, nibl_slot slot) {
    switch (slot) {
    case NIBL_SLOT_ATTN_NORM: return &l->attn_norm;
    case NIBL_SLOT_FFN_NORM: return &l->ffn_norm;
    case NIBL_SLOT_OUTPUT_NORM: return &m->output_norm;
    default: return NULL;
    }
}

static uint64_t packed_bytes(const nibl_binding *b, const slot_shape *shape) {
    if (b->quantized && !b->owns) return 0;
    uint64_t bytes =
        b->matrix ? (uint64_t)nibl_panel_bytes(b->matrix) * nibl_panels(b->matrix) : shape->cols * 4ull;
    return (bytes + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
}

/* What waits for a binding of this slot. */
static void set_waiting(nibl_model *m, nibl_binding *b, nibl_slot slot, uint32_t layer) {
    const bool output = slot == NIBL_SLOT_OUTPUT_NORM || slot == NIBL_SLOT_HEAD;
    b->layer = output || slot == NIBL_SLOT_EMBEDDING ? NULL : &m->layers[layer];
    b->missing = b->layer ? &b->layer->missing : output ? &m->missing_output : &m->missing_embedding;
    ++*b->missing;
}

static uint32_t halves_of(const nibl_model *m, nibl_slot slot) {
    return m->rope_halves && (slot == NIBL_SLOT_WQ || slot == NIBL_SLOT_WK) ? m->hyper.head_width : 0;
}

/* Adds the bindings of a matrix that several tensors make. */
static nibl_status bind_parts(nibl_model *m, nibl_slot slot, uint32_t layer, const char *name) {
    const slot_shape shape = shape_of(&m->hyper, slot);
    nibl_matrix *matrix = matrix_of(m, m->layers + layer, slot);
    *matrix = (nibl_matrix){.rows = shape.rows, .cols = shape.cols, .factor = 1};
    nibl_hfq *q = &m->quantized[m->quantized_count++];
    *q = (nibl_hfq){.config = m->quantization, .w = matrix, .halves = halves_of(m, slot)};
    nibl_hfq_piece pieces[NIBL_HFQ_PARTS];
    size_t count;
    NIBL_TRY(nibl_hfq_bind(m->gguf, name, q, pieces, &count));
    for (size_t i = 0; i < count; i++) {
        nibl_binding b = {.tensor = pieces[i].tensor,
                          .row_bytes = pieces[i].row_bytes,
                          .rows = pieces[i].rows,
                          .matrix = matrix,
                          .quantized = q,
                          .part = pieces[i].part,
                          .owns = i == 0};
        set_waiting(m, &b, slot, layer);
        m->bindings[m->binding_count++] = b;
        m->file_bytes += b.row_bytes * b.rows;
        m->packed_bytes += packed_bytes(&b, &shape);
    }
    return NIBL_OK;
}

/* Adds the binding of one slot, checked against the header; absent tensors only where `optional`. */
static nibl_status bind_slot(nibl_model *m, nibl_slot slot, uint32_t layer, bool optional, bool *present) {
    char name[64];
    nibl_arch_tensor_name(m->arch, slot, layer, name);
    const nibl_gguf_tensor *t = nibl_gguf_find_tensor(m->gguf, name);
    *present = t != NULL;
    if (slot != NIBL_SLOT_EMBEDDING && matrix_of(m, m->layers + layer, slot) &&
        nibl_hfq_has(m->gguf, &m->quantization, name)) {
        *present = true;
        return bind_parts(m, slot, layer, name);
    }
    if (!t) return optional ? NIBL_OK : nibl_fail(NIBL_E_FILE, "tensor '%s' is missing", name);

    const slot_shape shape = shape_of(&m->hyper, slot);
    const uint64_t rows = t->dims[1] * t->dims[2] * t->dims[3]; /* the parser checked the product */
    if (t->dims[0] != shape.cols || rows != shape.rows || t->n_dims > 2)
        return nibl_fail(NIBL_E_FILE, "tensor '%s' has shape [%llu, %llu]; the metadata ask for [%u, %u]",
                         name, (unsigned long long)rows, (unsigned long long)t->dims[0], shape.rows,
                         shape.cols);
    const nibl_dtype *type = nibl_dtype_by_id(t->type);
    if (!type) {
        const char *type_name = nibl_dtype_name(t->type);
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' has type %s (%u), which this build does not read",
                         name, type_name ? type_name : "unknown", t->type);
    }
    if (shape.vector && !nibl_kind_is_float(type->kind))
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s': a vector of type %s; F32, F16 or BF16 is possible",
                         name, type->name);
    nibl_binding b = {.tensor = (uint32_t)(t - nibl_gguf_tensor_at(m->gguf, 0)),
                      .type = type,
                      .packed = type,
                      .rows = shape.rows};
    if (m->quantize && !shape.vector && nibl_kind_is_float(type->kind) &&
        shape.cols % m->quantize->block == 0)
        b.packed = m->quantize;
    if (!nibl_dtype_row_bytes(type, shape.cols, &b.row_bytes))
        return nibl_fail(NIBL_E_FILE, "tensor '%s': %u columns are not a multiple of %u, the block of %s",
                         name, shape.cols, type->block, type->name);
    nibl_layer *l = m->layers + layer;
    if (shape.vector) {
        b.vector = vector_of(m, l, slot);
    } else {
        b.matrix = matrix_of(m, l, slot);
        *b.matrix = (nibl_matrix){.rows = shape.rows,
                                  .cols = shape.cols,
                                  .kind = (uint8_t)b.packed->kind,
                                  .scale = (uint8_t)b.packed->scale,
                                  .layout = (uint8_t)b.packed->layout,
                                  .factor = 1};
    }
    b.halves = halves_of(m, slot);
    set_waiting(m, &b, slot, layer);
    m->bindings[m->binding_count++] = b;
    m->file_bytes += b.row_bytes * b.rows;
    m->packed_bytes += packed_bytes(&b, &shape);
    return NIBL_OK;
}

/* Every tensor must have a place: one left over means a trait this build would silently drop. */
static nibl_status check_all_used(const nibl_model *m) {
    const size_t count = nibl_gguf_tensor_count(m->gguf);
    if (count == m->binding_count) return NIBL_OK;
    for (size_t i = 0; i < count; i++) {
        size_t j = 0;
        while (j < m->binding_count && m->bindings[j].tensor != i) j++;
        if (j < m->binding_count) continue;
        const nibl_slice name = nibl_gguf_tensor_at(m->gguf, i)->name;
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' has no place in architecture %s of this build",
                         (int)name.length, name.bytes, m->arch->name);
    }
    return NIBL_OK;
}

static nibl_status bind(nibl_model *m) {
    const nibl_gguf *g = m->gguf;
    NIBL_TRY(nibl_arch_of(g, &m->arch));
    NIBL_TRY(nibl_arch_hyper(m->arch, g, &m->hyper));

    char name[64];
    nibl_arch_tensor_name(m->arch, NIBL_SLOT_EMBEDDING, 0, name);
    const nibl_gguf_tensor *embedding = nibl_gguf_find_tensor(g, name);
    if (!embedding) return nibl_fail(NIBL_E_FILE, "tensor '%s' is missing", name);
    if (embedding->dims[1] > 1u << 22)
        return nibl_fail(NIBL_E_FILE, "tensor '%s' has %llu rows; at most %u are possible", name,
                         (unsigned long long)embedding->dims[1], 1u << 22);
    m->hyper.vocabulary = (uint32_t)embedding->dims[1];

    nibl_gguf_bool(g, NIBL_KEY_ROPE_HALVES, &m->rope_halves);
    if (m->rope_halves && m->hyper.rope_width != m->hyper.head_width)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "RoPE over %u of %u values of a head, in halves, is not supported",
                         m->hyper.rope_width, m->hyper.head_width);
    nibl_hfq_read_metadata(g, &m->quantization);
    const size_t slots = ((size_t)m->hyper.layers + 1) * NIBL_SLOT_COUNT;
    const size_t most = slots * (m->quantization.method ? NIBL_HFQ_PARTS : 1);
    m->layers = nibl_alloc_zero(m->hyper.layers * sizeof *m->layers);
    m->bindings = nibl_alloc(most * sizeof *m->bindings);
    if (m->quantization.method) m->quantized = nibl_alloc(slots * sizeof *m->quantized);
    if (!m->layers || !m->bindings || (m->quantization.method && !m->quantized))
        return nibl_fail_memory(most * sizeof *m->bindings, "the list of tensors");

    bool present;
    NIBL_TRY(bind_slot(m, NIBL_SLOT_EMBEDDING, 0, false, &present));
    for (uint32_t l = 0; l < m->hyper.layers; l++)
        for (nibl_slot s = NIBL_SLOT_ATTN_NORM; s <= NIBL_SLOT_DOWN; s++)
            NIBL_TRY(bind_slot(m, s, l, false, &present));
    NIBL_TRY(bind_slot(m, NIBL_SLOT_OUTPUT_NORM, 0, false, &present));
    NIBL_TRY(bind_slot(m, NIBL_SLOT_HEAD, 0, true, &present));
    m->tied = !present;
    return check_all_used(m);
}

static void release(nibl_model *m) {
    for (size_t i = 0; i < m->quantized_count; i++) nibl_hfq_free(&m->quantized[i]);
    nibl_free(m->quantized);
    nibl_free(m->layers);
    nibl_free(m->bindings);
    nibl_free(m->weights);
    nibl_free(m->staging);
    nibl_free(m->rope_frequency);
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

/* Allocates the weights and gives every tensor its place, in the order of need. */
static nibl_status place(nibl_model *m) {
    m->weights = nibl_alloc(m->packed_bytes);
    if (!m->weights) return nibl_fail_memory(m->packed_bytes, "the weights");
    nibl_plat_will_stream(m->weights, m->packed_bytes);
    uint8_t *p = m->weights;
    uint64_t widest = 0;
    for (size_t i = 0; i < m->binding_count; i++) {
        nibl_binding *b = &m->bindings[i];
        slot_shape shape = {.cols = m->hyper.width};
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
        p += packed_bytes(b, &shape);
        uint64_t bytes;
        if (!b->quantized && b->packed != b->type &&
            nibl_dtype_row_bytes(b->packed, b->matrix->cols, &bytes) && bytes > widest)
            widest = bytes;
    }
    if (widest > 0 && !(m->staging = nibl_alloc(widest)))
        return nibl_fail_memory(widest, "a row of a tensor");
    if (m->tied) m->head = m->embedding;
    return NIBL_OK;
}

static nibl_status build(nibl_model *m) {
    NIBL_TRY(bind(m));
    NIBL_TRY(nibl_tokenizer_new(m->gguf, &m->tokenizer));
    if (nibl_tokenizer_size(m->tokenizer) > m->hyper.vocabulary)
        return nibl_fail(NIBL_E_FILE, "the tokenizer has %zu tokens, the embedding only %u rows",
                         nibl_tokenizer_size(m->tokenizer), m->hyper.vocabulary);
    m->kernels = nibl_kernels_get(nibl_plat_isa_cap());
    if (!m->kernels)
        return nibl_fail(NIBL_E_ARGUMENT, "NIBL_ISA=%s names no instruction set of this machine",
                         nibl_plat_isa_cap());

    const uint32_t pairs = m->hyper.rope_width / 2;
    m->rope_frequency = nibl_alloc(pairs * sizeof(double));
    if (!m->rope_frequency) return nibl_fail_memory(pairs * sizeof(double), "RoPE frequencies");
    for (uint32_t i = 0; i < pairs; i++)
        m->rope_frequency[i] = nibl_pow(m->hyper.rope_base, -2.0 * (double)i / (double)m->hyper.rope_width);

    nibl_slice name = {"", 0};
    nibl_gguf_string(m->gguf, "general.name", &name);
    m->name = nibl_alloc((uint64_t)name.length + 1);
    if (!m->name) return nibl_fail_memory(name.length, "the model's name");
    memcpy(m->name, name.bytes, name.length);
    m->name[name.length] = 0;
    return place(m);
}

nibl_status nibl_model_new(nibl_gguf *gguf, const nibl_dtype *quantize, nibl_model **out) {
    nibl_model *m = nibl_alloc_zero(sizeof *m);
    if (!m) return nibl_fail_memory(sizeof *m, "the model");
    m->gguf = gguf;
    m->quantize = quantize;
    nibl_status status = build(m);
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
    nibl_tokenizer_free(m->tokenizer);
    nibl_gguf_free(m->gguf);
    release(m);
    nibl_free(m);
}

static nibl_status take_vector(nibl_model *m, const nibl_binding *b, const uint8_t *row) {
    float *v = *b->vector;
    bool finite = true;
    for (uint32_t i = 0; i < m->hyper.width; i++) {
        uint32_t bits =
            b->type->kind == NIBL_KIND_F32 ? nibl_load_u32(row + 4 * i) : nibl_load_u16(row + 2 * i);
        if (b->type->kind == NIBL_KIND_F16) finite = finite && (bits & 0x7C00) != 0x7C00;
        v[i] = b->type->kind == NIBL_KIND_F32   ? nibl_bits_float(bits)
               : b->type->kind == NIBL_KIND_F16 ? nibl_f16_to_f32((uint16_t)bits)
                                                : nibl_bf16_to_f32((uint16_t)bits);
        finite = finite && (nibl_float_bits(v[i]) & 0x7F800000) != 0x7F800000;
    }
    return finite ? NIBL_OK : NIBL_E_FILE;
}

/* Where the next row of a matrix goes: row i and row i + halves/2 of a head become its rows 2 i and 2 i + 1. */
static uint32_t next_row(const nibl_binding *b) {
    const uint32_t row = (uint32_t)b->rows_done, half = b->halves / 2;
    if (half == 0) return row;
    const uint32_t within = row % b->halves;
    return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

/* The products that share an input must agree in which of its values meet which column. */
static nibl_status check_orders(const nibl_layer *l) {
    const nibl_matrix *const pairs[][2] = {{&l->wq, &l->wk}, {&l->wq, &l->wv}, {&l->gate, &l->up}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const nibl_matrix *a = pairs[i][0], *b = pairs[i][1];
        if (a->gather && b->gather && memcmp(a->gather, b->gather, a->cols * sizeof *a->gather) == 0)
            continue;
        if (a->gather || b->gather)
            return nibl_fail(NIBL_E_UNSUPPORTED,
                             "matrices of one layer that share an input have groups of different columns "
                             "(g_idx), which is not supported: quantize with desc_act false");
    }
    return NIBL_OK;
}

/* A tensor has arrived. */
static nibl_status count_down(nibl_binding *b) {
    return --*b->missing == 0 && b->layer ? check_orders(b->layer) : NIBL_OK;
}

/* A row of one of the tensors of a matrix. */
static nibl_status take_part(nibl_model *m, nibl_binding *b, const uint8_t *row) {
    nibl_hfq *q = b->quantized;
    const nibl_slice name = nibl_gguf_tensor_at(m->gguf, b->tensor)->name;
    const nibl_status status = b->part->take(q, (uint32_t)b->rows_done, row);
    if (status < 0 && q->problem)
        return nibl_fail(status, "tensor '%.*s', row %llu: %s", (int)name.length, name.bytes,
                         (unsigned long long)b->rows_done, q->problem);
    NIBL_TRY(status);
    if (++b->rows_done < b->rows) return NIBL_OK;
    if (--q->missing == 0) NIBL_TRY(nibl_hfq_finish(q));
    return count_down(b);
}

nibl_status nibl_model_take_row(nibl_model *m, nibl_binding *b, const uint8_t *row) {
    if (b->quantized) return take_part(m, b, row);
    bool finite = true;
    if (b->packed != b->type) {
        finite = nibl_encode_row(b->packed, b->type, row, b->matrix->cols, m->staging);
        row = m->staging;
    }
    if (b->matrix)
        m->kernels->pack_row(b->matrix, next_row(b), row, &finite);
    else
        finite = take_vector(m, b, row) == NIBL_OK;
    if (!finite) {
        const nibl_slice name = nibl_gguf_tensor_at(m->gguf, b->tensor)->name;
        return nibl_fail(NIBL_E_FILE, "tensor '%.*s', row %llu: a value or scale is infinite or NaN",
                         (int)name.length, name.bytes, (unsigned long long)b->rows_done);
    }
    if (++b->rows_done == b->rows) {
        if (b->matrix == &m->embedding && m->tied) m->head.has_m128 = m->embedding.has_m128;
        return count_down(b);
    }
    return NIBL_OK;
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
            parameters += b->rows * (b->row_bytes / b->type->bytes * b->type->block);
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
