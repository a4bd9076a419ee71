/*
 * From a source of bytes to a GGUF file, tensor by tensor in the order of the source: the loader hands over rows, some of
 * them are gathered, encoded by all workers, and go out. Never more than those is held.
 */
#include "core/encode.h"
#include "core/loader.h"
#include "core/quant/quant.h"
#include "core/rows.h"

#include <math.h>
#include <string.h>

enum { GATHER = 2 << 20 /* bytes of rows that are encoded at a time */, TOGETHER = NIBL_PANEL };

/* What a worker needs of its own. */
typedef struct desk {
    float *values, *turned; /* (widest row); of the same values in another order */
    uint8_t *panel; /* rows of a quantized source, packed */
    uint64_t bad_row; /* the first it refused; UINT64_MAX = none */
    bool not_finite; /* it; else too large */
} desk;

/* The tensor at hand. */
struct nibl_gathering {
    nibl_pool *pool;
    desk *desks;
    uint32_t desk_count;
    size_t at; /* index of the tensor */
    uint64_t rows_done; /* encoded */
    uint8_t *rows; /* gathered, as the source has them */
    size_t capacity;
    uint32_t gathered, most; /* rows */
    uint64_t row_bytes, out_bytes; /* of a row */
    uint8_t *place; /* of the first gathered row in the output */
};

/* ---- Encoding ---- */

static void refuse(desk *d, uint64_t row, bool not_finite) {
    if (d->bad_row != UINT64_MAX) return;
    d->bad_row = row;
    d->not_finite = not_finite;
}

static void turn(const nibl_quant_tensor *t, float *values, float *room) {
    memcpy(room, values, (size_t)t->cols * sizeof *values);
    for (uint32_t i = 0; i < t->cols; i++) values[nibl_row_interleaved(t->halves, i)] = room[i];
}

static void encode_row(nibl_quantizer *q, const nibl_quant_tensor *t, desk *d, uint32_t row) {
    const bool vector = t->rows == 1;
    uint8_t *out =
        q->gathering->place + (vector ? row : nibl_row_interleaved(t->halves, row)) * q->gathering->out_bytes;
    for (uint32_t i = 0; t->from_zero && i < t->cols; i++) d->values[i] += 1.0f;
    if (vector && t->halves) turn(t, d->values, d->turned);
    if (!nibl_encode_values(q->kernels, t->to, d->values, NULL, (uint32_t)t->cols, q->method.search, out))
        refuse(d, q->gathering->rows_done + row, false);
}

static void encode_job(void *context, uint32_t worker, uint32_t workers) {
    nibl_quantizer *q = context;
    const nibl_quant_tensor *t = &q->recipe.tensors[q->gathering->at];
    desk *d = &q->gathering->desks[worker];
    nibl_claims claims = nibl_pool_divide(q->gathering->pool, worker, workers,
                                          (q->gathering->gathered + TOGETHER - 1) / TOGETHER, 1);
    for (uint32_t first, last; nibl_pool_claim(&claims, &first, &last);) {
        for (uint32_t i = first; i < last && d->bad_row == UINT64_MAX; i++) {
            const uint32_t begin = i * TOGETHER, end = q->gathering->gathered - begin < TOGETHER
                                                           ? q->gathering->gathered
                                                           : begin + TOGETHER;
            for (uint32_t row = begin; row < end; row++) {
                if (!nibl_decode_row(q->kernels, t->from, q->gathering->rows + row * q->gathering->row_bytes,
                                     (uint32_t)t->cols, d->panel, d->values))
                    refuse(d, q->gathering->rows_done + row, true);
                else
                    encode_row(q, t, d, row);
            }
        }
    }
}

/* For nibl_loss_measure: row `row` of those gathered. */
static const uint8_t *source_row(void *context, uint32_t worker, uint32_t row, float *x) {
    nibl_quantizer *q = context;
    const nibl_gathering *g = q->gathering;
    const nibl_quant_tensor *t = &q->recipe.tensors[g->at];
    const desk *d = &g->desks[worker];
    nibl_decode_row(q->kernels, t->from, g->rows + row * g->row_bytes, (uint32_t)t->cols, d->panel, x);
    return g->place + nibl_row_interleaved(t->halves, row) * g->out_bytes;
}

nibl_status nibl_quant_refuse(const nibl_quant_tensor *t, uint64_t row, bool not_finite) {
    if (not_finite)
        return nibl_fail(NIBL_E_NUMERIC,
                         "tensor '%.*s', row %llu: a value is infinite or NaN: the model is damaged, or was "
                         "converted to a type that cannot hold it",
                         NIBL_SHOW(t->source->name), (unsigned long long)row);
    return nibl_fail(NIBL_E_NUMERIC, "tensor '%.*s', row %llu: a value is too large for type %s",
                     NIBL_SHOW(t->source->name), (unsigned long long)row, t->to->name);
}

static bool is_ternary(const nibl_dtype *type) { return strncmp(type->name, "TQ", 2) == 0; }

bool nibl_quant_measures(const nibl_quantizer *q, const nibl_quant_tensor *t) {
    return t->rows > 1 && (q->measure || (is_ternary(t->to) && !q->force));
}

nibl_status nibl_quant_check(const nibl_quantizer *q, const nibl_quant_tensor *t) {
    static const double MOST =
        0.05; /* of the squares: ternary weights lose next to none, others a fifth and more */
    const double lost = t->loss.weights > 0 ? t->loss.error / t->loss.weights : 0;
    if (q->force || !is_ternary(t->to) || lost <= MOST) return NIBL_OK;
    return nibl_fail(
        NIBL_E_ARGUMENT,
        "tensor '%.*s': rounded to %s it loses %.0f %% of its energy, where weights trained to be ternary "
        "lose "
        "none: this model was not trained for it, and would answer nonsense; take q4_0 or q2_k, or insist "
        "(force)",
        NIBL_SHOW(t->source->name), t->to->name, 100 * lost);
}

static nibl_status check_desks(nibl_quantizer *q) {
    const nibl_gathering *g = q->gathering;
    const desk *first = &g->desks[0];
    for (uint32_t i = 1; i < g->desk_count; i++)
        if (g->desks[i].bad_row < first->bad_row) first = &g->desks[i];
    return first->bad_row == UINT64_MAX
               ? NIBL_OK
               : nibl_quant_refuse(&q->recipe.tensors[g->at], first->bad_row, first->not_finite);
}

/* ---- The stream ---- */

nibl_status nibl_quant_reserve(nibl_quantizer *q, uint64_t length) {
    if (q->taken) q->out_length = 0;
    q->taken = false;
    if (length > SIZE_MAX - q->out_length) return nibl_fail_memory(length, "the output");
    void *out = q->out;
    const nibl_status status =
        nibl_reserve(&out, &q->out_capacity, q->out_length + (size_t)length, 1, "the output");
    q->out = out;
    return status;
}

nibl_status nibl_quant_extend(nibl_quantizer *q, size_t length, uint8_t **place) {
    NIBL_TRY(nibl_quant_reserve(q, length));
    *place = q->out + q->out_length;
    q->out_length += length;
    return NIBL_OK;
}

void nibl_quant_shrink(nibl_quantizer *q) {
    if (!q->taken) return;
    nibl_free(q->out);
    q->out = NULL;
    q->out_length = q->out_capacity = 0;
}

/* Makes tensor `at` the one at hand: how many of its rows are gathered. */
static nibl_status open_tensor(nibl_quantizer *q) {
    if (q->gathering->at == q->recipe.count) return NIBL_OK;
    const nibl_quant_tensor *t = &q->recipe.tensors[q->gathering->at];
    nibl_dtype_row_bytes(t->from, t->cols, &q->gathering->row_bytes);
    nibl_dtype_row_bytes(t->to, t->cols, &q->gathering->out_bytes);
    const uint64_t unit = t->halves && t->halves % TOGETHER ? (uint64_t)t->halves * TOGETHER
                          : t->halves                       ? t->halves
                                                            : TOGETHER;
    uint64_t rows = GATHER / q->gathering->row_bytes / unit * unit;
    if (rows < unit) rows = unit;
    if (rows > t->rows) rows = t->rows;
    q->gathering->most = (uint32_t)(rows < UINT32_MAX ? rows : UINT32_MAX / unit * unit);
    q->gathering->rows_done = 0;
    q->gathering->gathered = 0;
    uint64_t bytes;
    size_t size;
    if (!nibl_mul_u64(q->gathering->most, q->gathering->row_bytes, &bytes) || !nibl_u64_to_size(bytes, &size))
        return nibl_fail_memory(UINT64_MAX, "rows of a tensor");
    void *grown = q->gathering->rows;
    const nibl_status status = nibl_reserve(&grown, &q->gathering->capacity, size, 1, "rows of a tensor");
    q->gathering->rows = grown;
    return status;
}

size_t nibl_quant_at(const nibl_quantizer *q) { return q->gathering->at; }

nibl_status nibl_quant_go_to(nibl_quantizer *q, size_t tensor) {
    q->gathering->at = tensor;
    return open_tensor(q);
}

static nibl_status encode_gathered(nibl_quantizer *q) {
    nibl_quant_tensor *t = &q->recipe.tensors[q->gathering->at];
    const uint64_t end = q->gathering->rows_done + q->gathering->gathered == t->rows ? t->bytes : 0,
                   gap = (NIBL_QUANT_ALIGNMENT - end % NIBL_QUANT_ALIGNMENT) % NIBL_QUANT_ALIGNMENT;
    const size_t length = (size_t)(q->gathering->gathered * q->gathering->out_bytes);
    NIBL_TRY(nibl_quant_extend(q, length + (size_t)gap, &q->gathering->place));
    if (t->from == t->to && !t->halves && !nibl_kind_is_float(t->from->kind)) {
        memcpy(q->gathering->place, q->gathering->rows, length);
    } else {
        for (uint32_t i = 0; i < q->gathering->desk_count; i++) q->gathering->desks[i].bad_row = UINT64_MAX;
        nibl_pool_run(q->gathering->pool, encode_job, q);
        NIBL_TRY(check_desks(q));
        if (nibl_quant_measures(q, t))
            NIBL_TRY(nibl_loss_measure(q->gathering->pool, q->kernels, t->to, q->gathering->gathered,
                                       (uint32_t)t->cols, source_row, q, &t->loss));
        NIBL_TRY(nibl_quant_check(q, t));
    }
    memset(q->gathering->place + length, 0, (size_t)gap);
    q->gathering->rows_done += q->gathering->gathered;
    q->gathering->gathered = 0;
    if (q->gathering->rows_done < t->rows) return NIBL_OK;
    q->gathering->at++;
    return open_tensor(q);
}

static nibl_status take_row(nibl_quantizer *q, const uint8_t *row) {
    memcpy(q->gathering->rows + q->gathering->gathered * q->gathering->row_bytes, row,
           (size_t)q->gathering->row_bytes);
    return ++q->gathering->gathered == q->gathering->most ||
                   q->gathering->rows_done + q->gathering->gathered ==
                       q->recipe.tensors[q->gathering->at].rows
               ? encode_gathered(q)
               : NIBL_OK;
}

static nibl_status take_rows(void *context, size_t item, const uint8_t *rows, size_t count) {
    nibl_quantizer *q = context;
    (void)item; /* always the one at hand */
    const uint64_t row_bytes = q->gathering->row_bytes; /* the last row opens another tensor */
    for (size_t i = 0; i < count; i++) NIBL_TRY(take_row(q, rows + i * row_bytes));
    return NIBL_OK;
}

/* ---- Beginning and end ---- */

static nibl_status make_desks(nibl_quantizer *q, uint32_t threads) {
    uint64_t values = 0, panel = 0;
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        const nibl_matrix w = nibl_matrix_of(t->from, TOGETHER, (uint32_t)t->cols);
        const uint64_t bytes = nibl_kind_is_float(t->from->kind) ? 0 : nibl_panel_bytes(&w);
        values = 4 * t->cols > values ? 4 * t->cols : values;
        panel = bytes > panel ? bytes : panel;
    }
    if (threads > 1) NIBL_TRY(nibl_pool_new(threads, &q->gathering->pool));
    q->gathering->desk_count = nibl_pool_workers(q->gathering->pool);
    q->gathering->desks = nibl_alloc_zero(q->gathering->desk_count * sizeof *q->gathering->desks);
    if (!q->gathering->desks)
        return nibl_fail_memory(q->gathering->desk_count * sizeof *q->gathering->desks, "the workers");
    for (uint32_t i = 0; i < q->gathering->desk_count; i++) {
        q->gathering->desks[i].values = nibl_alloc(2 * values);
        q->gathering->desks[i].panel = panel > 0 ? nibl_alloc_zero(panel) : NULL;
        q->gathering->desks[i].turned = q->gathering->desks[i].values + values / sizeof(float);
        if (!q->gathering->desks[i].values || (panel > 0 && !q->gathering->desks[i].panel))
            return nibl_fail_memory(values + panel, "rows of a tensor");
    }
    return NIBL_OK;
}

nibl_status nibl_quant_new(const nibl_gguf *gguf, const nibl_gguf_tensor *outputs, size_t count,
                           const nibl_quantize_options *o, const nibl_quant_grids *grids,
                           nibl_quantizer **out) {
    if (o->size != sizeof *o)
        return nibl_fail(NIBL_E_ARGUMENT, "nibl_quantize_options.size is %zu, must be %zu", o->size,
                         sizeof *o);
    nibl_quantizer *q = nibl_alloc_zero(sizeof *q);
    if (!q) return nibl_fail_memory(sizeof *q, "the quantizer");
    q->kernels = nibl_kernels_get(nibl_plat_isa_cap());
    q->measure = o->measure;
    q->force = o->force;
    nibl_status status = NIBL_OK;
    if (o->threads > NIBL_MAX_THREADS)
        status = nibl_fail(NIBL_E_ARGUMENT, "threads is %u; at most %u are possible", o->threads,
                           NIBL_MAX_THREADS);
    else if (!q->kernels)
        status = nibl_fail(NIBL_E_ARGUMENT, "NIBL_ISA=%s names no instruction set of this machine",
                           nibl_plat_isa_cap());
    else
        status = nibl_recipe_choose(gguf, outputs, count, o, grids, &q->recipe);
    if (status < 0)
        nibl_quantizer_free(q);
    else
        *out = q;
    return status;
}

nibl_status nibl_quant_begin(nibl_quantizer *q, const nibl_quantize_options *o) {
    NIBL_TRY(nibl_recipe_header(&q->recipe, o, &q->out, &q->out_length));
    q->out_capacity = q->out_length;
    q->size = q->out_length;
    for (size_t i = 0; i < q->recipe.count; i++) {
        const uint64_t bytes = q->recipe.tensors[i].bytes;
        q->size += (bytes + NIBL_QUANT_ALIGNMENT - 1) / NIBL_QUANT_ALIGNMENT * NIBL_QUANT_ALIGNMENT;
    }
    return NIBL_OK;
}

static nibl_status begin(nibl_quantizer *q, nibl_loader *loader, const nibl_quantize_options *o) {
    NIBL_TRY(nibl_method_read(o->method, false, &q->method));
    if (q->method.rotate || q->method.recover || o->imatrix)
        return nibl_fail(NIBL_E_ARGUMENT, "%s needs the model in memory (nibl_model_quantizer_new)",
                         o->imatrix         ? "an imatrix file"
                         : q->method.rotate ? "method rotate"
                                            : "method recover");
    NIBL_TRY(nibl_quant_begin(q, o));
    q->gathering = nibl_alloc_zero(sizeof *q->gathering);
    if (!q->gathering) return nibl_fail_memory(sizeof *q->gathering, "the quantizer");
    NIBL_TRY(make_desks(q, o->threads));
    NIBL_TRY(open_tensor(q));
    const uint64_t bytes = q->recipe.count * sizeof(nibl_source_item);
    nibl_source_item *items = nibl_alloc(bytes);
    if (!items) return nibl_fail_memory(bytes, "the list of tensors");
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        items[i] = (nibl_source_item){.offset = t->source->offset, .rows = t->rows, .name = t->source->name};
        nibl_dtype_row_bytes(t->from, t->cols, &items[i].row_bytes);
    }
    const nibl_status status = nibl_loader_begin_rows(loader, items, q->recipe.count, take_rows, q);
    nibl_free(items);
    return status;
}

nibl_status nibl_quantizer_new(nibl_loader *loader, const nibl_quantize_options *options,
                               nibl_quantizer **out) {
    nibl_gguf *gguf = NULL;
    nibl_quantizer *q = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    NIBL_TRY(nibl_quant_new(gguf, NULL, 0, options, NULL, &q));
    const nibl_status status = begin(q, loader, options);
    if (status < 0)
        nibl_quantizer_free(q);
    else
        *out = q;
    return status;
}

static void free_gathering(nibl_gathering *g) {
    if (!g) return;
    nibl_pool_free(g->pool);
    for (uint32_t i = 0; g->desks && i < g->desk_count; i++) {
        nibl_free(g->desks[i].values);
        nibl_free(g->desks[i].panel);
    }
    nibl_free(g->desks);
    nibl_free(g->rows);
    nibl_free(g);
}

void nibl_quantizer_free(nibl_quantizer *q) {
    if (!q) return;
    free_gathering(q->gathering);
    nibl_free(q->notes);
    if (q->layerwise) q->free_layerwise(q->layerwise);
    nibl_free(q->salient);
    nibl_recipe_free(&q->recipe);
    nibl_free(q->out);
    nibl_free(q);
}

uint64_t nibl_quantizer_size(const nibl_quantizer *q) { return q->size; }

void nibl_quantizer_output(nibl_quantizer *q, const void **bytes, size_t *length) {
    *bytes = q->out;
    *length = q->taken ? 0 : q->out_length;
    q->taken = true;
}

/* ---- The report ---- */

/* C libraries write decimals in the host's locale: integers around a point. */
static void write_decimal(nibl_writer *w, double value) {
    const uint64_t millionths = value < 1e12 ? (uint64_t)(value * 1e6 + 0.5) : UINT64_MAX;
    nibl_print(w, "%llu.%06u", (unsigned long long)(millionths / 1000000), (unsigned)(millionths % 1000000));
}

static void write_salient(nibl_writer *w, const nibl_salient *s) {
    nibl_print(w, "{\"tensor\":");
    nibl_write_json(w, s->tensor->source->name.bytes, s->tensor->source->name.length);
    nibl_print(w, ",\"median\":");
    write_decimal(w, (double)s->median);
    nibl_print(w, ",\"channels\":[");
    for (uint32_t i = 0; i < s->count; i++) {
        nibl_print(w, "%s[%u,", i > 0 ? "," : "", s->channels[i]);
        write_decimal(w, (double)s->magnitudes[i]);
        nibl_print(w, "]");
    }
    nibl_print(w, "]}");
}

static uint64_t stored_bytes(const nibl_quant_tensor *t) { return t->stored > 0 ? t->stored : t->bytes; }

static void write_tensor(nibl_writer *w, const nibl_quant_tensor *t) {
    nibl_print(w, "{\"name\":");
    nibl_write_json(w, t->source->name.bytes, t->source->name.length);
    nibl_print(w, ",\"rows\":%llu,\"columns\":%llu,\"from\":\"%s\",\"to\":\"%s\"",
               (unsigned long long)t->rows, (unsigned long long)t->cols, t->from->name, t->to->name);
    if (t->wanted)
        nibl_print(w, ",\"wanted\":\"%s\",\"why\":\"%llu columns are no multiple of %u\"", t->wanted->name,
                   (unsigned long long)t->cols, t->wanted_block);
    nibl_print(w, ",\"source_bytes\":%llu,\"bytes\":%llu", (unsigned long long)t->source->bytes,
               (unsigned long long)stored_bytes(t));
    if (t->uncalibrated > 0) nibl_print(w, ",\"uncalibrated\":%u", t->uncalibrated);
    if (t->unscaled > 0) nibl_print(w, ",\"unscaled\":%u", t->unscaled);
    if (t->recovery.groups > 0)
        nibl_print(w, ",\"groups\":%llu,\"recovered\":%llu", (unsigned long long)t->recovery.groups,
                   (unsigned long long)t->recovery.found);
    if (t->recovery.rounded > 0)
        nibl_print(w, ",\"scales_rounded\":%llu", (unsigned long long)t->recovery.rounded);
    if (t->loss.weights > 0) {
        nibl_print(w, ",\"error\":");
        write_decimal(w, sqrt(t->loss.error / t->loss.weights));
    }
    nibl_print(w, "}");
}

nibl_status nibl_quantizer_report(const nibl_quantizer *q, char *json, size_t capacity, size_t *needed) {
    nibl_writer w = {.text = json, .capacity = capacity};
    uint64_t parameters = 0, source = 0, bytes = 0;
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        parameters += t->rows * t->cols;
        source += t->source->bytes;
        bytes += stored_bytes(t);
    }
    /* in thousandths, for C libraries write decimals in the host's locale */
    const uint64_t bits = (bytes * 8000 + parameters / 2) / parameters;
    nibl_print(
        &w,
        "{\"parameters\":%llu,\"source_bytes\":%llu,\"bytes\":%llu,\"file_bytes\":%llu,\"bits_per_weight\":"
        "%llu.%03u,\"recipe\":",
        (unsigned long long)parameters, (unsigned long long)source, (unsigned long long)bytes,
        (unsigned long long)q->size, (unsigned long long)(bits / 1000), (unsigned)(bits % 1000));
    nibl_write(&w, q->recipe.text.bytes, q->recipe.text.length);
    nibl_print(&w, ",\"tensors\":[");
    for (size_t i = 0; i < q->recipe.count; i++) {
        if (i > 0) nibl_print(&w, ",");
        write_tensor(&w, &q->recipe.tensors[i]);
    }
    nibl_print(&w, "]");
    if (q->salient_count > 0) {
        nibl_print(&w, ",\"inputs\":[");
        for (size_t i = 0; i < q->salient_count; i++) {
            if (i > 0) nibl_print(&w, ",");
            write_salient(&w, &q->salient[i]);
        }
        nibl_print(&w, "]");
    }
    nibl_print(&w, "}");
    return nibl_write_end(&w, needed);
}
