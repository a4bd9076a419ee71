#include "core/quant/imatrix.h"

#include "core/gguf_build.h"
#include "core/quant/calib.h"
#include "core/quant/quant.h"
#include "core/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SUMS "%s.in_sum2"
#define COUNTS "%s.counts"
enum { NAME = 96, F32 = 0 };

/* ---- Reading ---- */

/* What a file says about one tensor. */
typedef struct entry {
    const uint8_t *sums, *counts; /* NULL: nothing */
    uint32_t cols, matrices;
    bool shared; /* one count for all matrices */
} entry;

static float float_at(const uint8_t *floats, size_t index) {
    float value;
    memcpy(&value, floats + 4 * index, sizeof value);
    return value;
}

static float count_of(const entry *e, uint32_t matrix) { return float_at(e->counts, e->shared ? 0 : matrix); }

/* The files before GGUF: a number of entries, then of each the length of its name, the name, ... */
static bool is_legacy(const uint8_t *bytes, size_t length) {
    uint32_t head[2];
    if (length < sizeof head) return false;
    memcpy(head, bytes, sizeof head);
    if (head[0] == 0 || head[0] > NIBL_GGUF_MAX_TENSORS || head[1] == 0 || head[1] > NIBL_GGUF_MAX_NAME ||
        head[1] > length - sizeof head)
        return false;
    for (uint32_t i = 0; i < head[1]; i++)
        if (bytes[sizeof head + i] < ' ' || bytes[sizeof head + i] > '~') return false;
    return true;
}

static nibl_status read_header(const uint8_t *bytes, size_t length, nibl_gguf *gguf) {
    size_t taken;
    nibl_slice type = {"", 0};
    if (is_legacy(bytes, length))
        return nibl_fail(
            NIBL_E_FILE,
            "the imatrix file is of the older kind (.dat): llama-imatrix --in-file OLD.dat -o NEW.gguf "
            "makes one that is read");
    nibl_status status = nibl_gguf_feed(gguf, bytes, length, &taken);
    if (status >= 0) status = nibl_gguf_check_end(gguf, length);
    if (status < 0) {
        char why[256];
        snprintf(why, sizeof why, "%s", nibl_last_message());
        return nibl_fail(status, "the imatrix file: %s", why);
    }
    nibl_gguf_string(gguf, "general.type", &type);
    if (type.length == 7 && memcmp(type.bytes, "imatrix", 7) == 0) return NIBL_OK;
    return nibl_fail(NIBL_E_FILE, "the imatrix file is none: its general.type is '%.*s', not 'imatrix'",
                     NIBL_SHOW(type));
}

static const nibl_gguf_tensor *find(const nibl_gguf *gguf, const char *format, const char *name) {
    char whole[NAME];
    snprintf(whole, sizeof whole, format, name);
    return nibl_gguf_find_tensor(gguf, whole);
}

static uint64_t elements(const nibl_gguf_tensor *t) {
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

/* The entry of a tensor, of the right size, with numbers that can be. */
static nibl_status read_entry(const nibl_gguf *gguf, const uint8_t *bytes, const char *name, entry *e) {
    const nibl_gguf_tensor *sums = find(gguf, SUMS, name), *counts = find(gguf, COUNTS, name);
    if (!sums && !counts) return NIBL_OK;
    if (!sums || !counts)
        return nibl_fail(NIBL_E_FILE, "the imatrix file has only the %s of tensor '%s'",
                         sums ? "sums" : "counts", name);
    const uint64_t expected = (uint64_t)e->cols * e->matrices;
    e->shared = elements(counts) == 1;
    if (sums->type != F32 || counts->type != F32)
        return nibl_fail(NIBL_E_FILE, "the imatrix file's numbers of tensor '%s' are not F32", name);
    if (elements(sums) != expected || (!e->shared && elements(counts) != e->matrices))
        return nibl_fail(
            NIBL_E_FILE,
            "the imatrix file is of another model: of tensor '%s' it has %llu sums and %llu counts "
            "where %llu and %u are needed",
            name, (unsigned long long)elements(sums), (unsigned long long)elements(counts),
            (unsigned long long)expected, e->matrices);
    e->sums = bytes + sums->offset;
    e->counts = bytes + counts->offset;
    for (uint64_t i = 0; i < expected + elements(counts); i++) {
        const float x =
            i < expected ? float_at(e->sums, (size_t)i) : float_at(e->counts, (size_t)(i - expected));
        if (!isfinite(x) || x < 0)
            return nibl_fail(
                NIBL_E_NUMERIC,
                "the imatrix file is damaged: of tensor '%s' it has a number that is negative or not "
                "finite, which no sum of squares is",
                name);
    }
    return NIBL_OK;
}

/* Means of one matrix; false where it was hardly seen, or its inputs were zero throughout. */
static bool read_means(const entry *e, uint32_t matrix, float few, float *means) {
    const float count = count_of(e, matrix);
    double sum = 0;
    if (count <= 0 || count < few) return false;
    for (uint32_t j = 0; j < e->cols; j++) {
        means[j] = float_at(e->sums, (size_t)matrix * e->cols + j) / count;
        sum += (double)means[j];
    }
    return sum > 0;
}

static nibl_status read_entries(const nibl_gguf *gguf, const uint8_t *bytes, const nibl_outputs *outputs,
                                entry *entries, nibl_importance *out) {
    uint64_t floats = 0;
    float most = 0;
    for (size_t i = 0; i < outputs->count; i++) {
        const nibl_output *o = &outputs->items[i];
        entry *e = &entries[i];
        if (!outputs->parts[o->first].matrix) continue;
        *e = (entry){.cols = outputs->parts[o->first].matrix->cols,
                     .matrices = (uint32_t)outputs->tensors[i].dims[2]};
        NIBL_TRY(read_entry(gguf, bytes, o->name, e));
        if (!e->sums) continue;
        floats += (uint64_t)e->cols * e->matrices;
        for (uint32_t j = 0; j < e->matrices; j++) most = fmaxf(most, count_of(e, j));
    }
    if (floats == 0)
        return nibl_fail(NIBL_E_FILE,
                         "the imatrix file is of another model: it has nothing about any tensor of this one");
    const float few = fminf(most, NIBL_CALIB_FEW);
    float *means = out->means = nibl_alloc(4 * floats);
    if (!means) return nibl_fail_memory(4 * floats, "the importance of inputs");
    for (size_t i = 0; i < outputs->count; i++) {
        const nibl_output *o = &outputs->items[i];
        if (!entries[i].sums) continue;
        for (uint32_t e = 0; e < entries[i].matrices; e++, means += entries[i].cols) {
            if (!read_means(&entries[i], e, few, means)) continue;
            for (uint32_t p = 0; p < o->count; p++) /* matrices of one tensor without experts share it */
                if (p == e || entries[i].matrices == 1) out->of[o->first + p] = means;
        }
    }
    return NIBL_OK;
}

nibl_status nibl_importance_read(const void *bytes, size_t length, const nibl_outputs *outputs,
                                 nibl_importance *out) {
    nibl_gguf *gguf = NULL;
    entry *entries = nibl_alloc_zero((uint64_t)outputs->count * sizeof *entries);
    *out = (nibl_importance){.of = nibl_alloc_zero((outputs->part_count + 1ull) * sizeof *out->of)};
    nibl_status status = entries && out->of ? nibl_gguf_new(&gguf)
                                            : nibl_fail_memory(outputs->part_count * sizeof *out->of,
                                                               "the importance of inputs");
    if (status == NIBL_OK) status = read_header(bytes, length, gguf);
    if (status == NIBL_OK) status = read_entries(gguf, bytes, outputs, entries, out);
    nibl_gguf_free(gguf);
    nibl_free(entries);
    return status;
}

void nibl_importance_free(nibl_importance *importance) {
    nibl_free(importance->means);
    nibl_free(importance->of);
    *importance = (nibl_importance){0};
}

/* ---- Collecting and writing ---- */

struct nibl_imatrix {
    nibl_model *model;
    nibl_outputs outputs;
    nibl_calib calib;
    uint32_t layer, window; /* layer: the next one */
    char *dataset;
    float **
        values; /* (outputs): sums (matrices, cols), counts (matrices); NULL = its inputs are not looked at */
    uint8_t *bytes; /* the file, once it is complete */
    size_t length;
};

static uint32_t matrices_of(const nibl_imatrix *x, size_t output) {
    return (uint32_t)x->outputs.tensors[output].dims[2];
}

static nibl_status note(nibl_imatrix *x, size_t output, uint32_t matrix, const nibl_site *site) {
    const uint64_t matrices = matrices_of(x, output), bytes = 4 * matrices * (site->cols + 1ull);
    float **values = &x->values[output];
    if (!*values && !(*values = nibl_alloc_zero(bytes))) return nibl_fail_memory(bytes, "the imatrix");
    memcpy(*values + (size_t)matrix * site->cols, site->squares, site->cols * sizeof **values);
    (*values)[matrices * site->cols + matrix] = (float)site->rows_seen;
    return NIBL_OK;
}

static nibl_status note_layer(nibl_imatrix *x, const nibl_layer *layer) {
    const nibl_model *m = x->model;
    for (size_t i = 0; i < x->outputs.count; i++) {
        const nibl_output *o = &x->outputs.items[i];
        if (m->bindings[o->binding].layer != layer) continue;
        for (uint32_t e = 0; e < matrices_of(x, i); e++) {
            const nibl_matrix *matrix = x->outputs.parts[o->first + e].matrix;
            const nibl_site *site =
                matrix ? nibl_calib_site(&x->calib, nibl_calib_first(m, layer, matrix)) : NULL;
            if (site) NIBL_TRY(note(x, i, e, site));
        }
    }
    return NIBL_OK;
}

static nibl_status note_head(nibl_imatrix *x) {
    nibl_site head = {0};
    nibl_status status = nibl_calib_head(&x->calib, &head);
    for (size_t i = 0; i < x->outputs.count && status == NIBL_OK; i++)
        if (nibl_outputs_is_head(&x->outputs, x->model, i)) status = note(x, i, 0, &head);
    nibl_site_free(&head);
    return status;
}

static size_t aligned(size_t bytes) {
    return (bytes + NIBL_QUANT_ALIGNMENT - 1) / NIBL_QUANT_ALIGNMENT * NIBL_QUANT_ALIGNMENT;
}

static nibl_status write_file(nibl_imatrix *x) {
    nibl_gguf_builder b = {.alignment = NIBL_QUANT_ALIGNMENT};
    nibl_gguf_build_string(&b, "general.type", (nibl_slice){"imatrix", 7});
    nibl_gguf_build_array(&b, "imatrix.datasets", NIBL_GGUF_STRING);
    nibl_gguf_add_string(&b, (nibl_slice){x->dataset, strlen(x->dataset)});
    nibl_gguf_build_u32(&b, "imatrix.chunk_count", (uint32_t)x->calib.cache_count);
    nibl_gguf_build_u32(&b, "imatrix.chunk_size", x->window);
    for (size_t i = 0; i < x->outputs.count; i++) {
        const uint64_t matrices = matrices_of(x, i), cols = x->outputs.tensors[i].dims[0];
        char name[NAME];
        if (!x->values[i]) continue;
        snprintf(name, sizeof name, SUMS, x->outputs.items[i].name);
        nibl_gguf_build_tensor(&b, name, F32, 2, (const uint64_t[]){cols, matrices}, 4 * cols * matrices);
        snprintf(name, sizeof name, COUNTS, x->outputs.items[i].name);
        nibl_gguf_build_tensor(&b, name, F32, 2, (const uint64_t[]){1, matrices}, 4 * matrices);
    }
    const uint64_t data = b.data;
    NIBL_TRY(nibl_gguf_build_bytes(&b, &x->bytes, &x->length));
    uint8_t *grown = nibl_realloc(x->bytes, x->length + data);
    if (!grown) return nibl_fail_memory(x->length + data, "the imatrix");
    memset(grown + x->length, 0, (size_t)data);
    x->bytes = grown;
    for (size_t i = 0; i < x->outputs.count; i++) {
        const size_t matrices = matrices_of(x, i), sums = matrices * (size_t)x->outputs.tensors[i].dims[0];
        if (!x->values[i]) continue;
        memcpy(x->bytes + x->length, x->values[i], 4 * sums);
        x->length += aligned(4 * sums);
        memcpy(x->bytes + x->length, x->values[i] + sums, 4 * matrices);
        x->length += aligned(4 * matrices);
    }
    return NIBL_OK;
}

nibl_status nibl_imatrix_step(nibl_imatrix *x, double *done) {
    nibl_model *m = x->model;
    const uint32_t layers = m->hyper.layers, part = x->layer + 1;
    *done = (double)x->layer / layers;
    if (x->layer == layers) return NIBL_OK;
    m->open = part + (part == layers);
    if ((x->layer == 0 && !nibl_model_part_ready(m, 0)) || !nibl_model_part_ready(m, part) ||
        !nibl_model_part_ready(m, m->open))
        return NIBL_NEED_DATA;
    NIBL_TRY(nibl_calib_layer(&x->calib));
    NIBL_TRY(note_layer(x, &m->layers[x->layer]));
    if (m->parts && x->layer == 0) nibl_model_drop_part(m, 0); /* the embedding is in the stream */
    if (m->parts) nibl_model_drop_part(m, part);
    if (++x->layer < layers) return NIBL_MORE;
    NIBL_TRY(note_head(x));
    return write_file(x);
}

void nibl_imatrix_bytes(const nibl_imatrix *x, const void **bytes, size_t *length) {
    *bytes = x->bytes;
    *length = x->length;
}

void nibl_imatrix_free(nibl_imatrix *x) {
    if (!x) return;
    for (size_t i = 0; x->values && i < x->outputs.count; i++) nibl_free(x->values[i]);
    nibl_free(x->values);
    nibl_calib_free(&x->calib);
    nibl_outputs_free(&x->outputs);
    nibl_free(x->dataset);
    nibl_free(x->bytes);
    nibl_free(x);
}

static nibl_status begin(nibl_imatrix *x, const int32_t *tokens, size_t count, const char *dataset,
                         uint32_t threads) {
    nibl_model *m = x->model;
    if (m->quantization.method)
        return nibl_fail(NIBL_E_UNSUPPORTED, "the weights are quantized already: take the 16-bit model");
    NIBL_TRY(nibl_session_grow_pool(m, threads));
    nibl_model_divide(m, false);
    NIBL_TRY(nibl_outputs_new(m, &x->outputs));
    x->values = nibl_alloc_zero((x->outputs.count + 1ull) * sizeof *x->values);
    x->dataset = nibl_alloc(strlen(dataset) + 1ull);
    if (!x->values || !x->dataset)
        return nibl_fail_memory(x->outputs.count * sizeof *x->values, "the imatrix");
    memcpy(x->dataset, dataset, strlen(dataset) + 1);
    NIBL_TRY(nibl_calib_begin(&x->calib, m, tokens, count, x->window, false));
    x->calib.totals = true;
    return NIBL_OK;
}

nibl_status nibl_imatrix_new(nibl_model *model, const int32_t *tokens, size_t count, uint32_t window,
                             const char *dataset, uint32_t threads, nibl_imatrix **out) {
    nibl_imatrix *x = nibl_alloc_zero(sizeof *x);
    if (!x) return nibl_fail_memory(sizeof *x, "the imatrix");
    x->model = model;
    x->window = window;
    const nibl_status status = begin(x, tokens, count, dataset, threads);
    if (status < 0)
        nibl_imatrix_free(x);
    else
        *out = x;
    return status;
}
