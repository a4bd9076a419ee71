#include "core/quant/folder.h"

#include "core/encode_grid.h"
#include "core/rows.h"

#include <stdio.h>
#include <string.h>

enum { DOCUMENTS = 5, PARTS = 4, NAME = 96 };
static const uint64_t SHARD = 5000000000u;

struct nibl_folder {
    nibl_folder_plan plan;
    char *headers; /* of all files of weights, one behind the other */
    size_t headers_length;
    struct shard {
        size_t first; /* tensor */
        size_t at, length; /* of its header, and the shapes behind it, in `headers` */
        uint64_t bytes; /* of tensors */
    } *shards;
    uint32_t shard_count, shard;
    struct document {
        const char *name;
        char *text;
        size_t length;
    } documents[DOCUMENTS];
    uint32_t document_count, document;
    bool opened; /* some file of weights */
    char file[64];
};

/* ---- A tensor as the tensors of a file ---- */

typedef struct part {
    const char *suffix, *type;
    uint64_t dims[3];
    uint32_t n_dims;
    uint64_t bytes;
} part;

static const nibl_integer_type *integers_of(const nibl_quant_tensor *t) {
    return t->to->id == NIBL_INTEGERS_ID ? (const nibl_integer_type *)(const void *)t->to : NULL;
}

uint32_t nibl_folder_pieces(const nibl_folder_plan *p, size_t index) {
    const bool each = nibl_slot_forms[p->outputs->items[index].slot].expert;
    return each && p->model->hyper.experts > 0 ? p->model->hyper.experts : 1;
}

static uint64_t words_of(uint64_t codes, uint32_t bits) { return (codes + 32 / bits - 1) / (32 / bits); }

/* Scales of a row: of a whole matrix its rows repeat it, for engines know groups and rows. */
static uint64_t groups_of(const nibl_quant_tensor *t) {
    const uint32_t group = integers_of(t)->grid.group;
    return group < t->cols ? t->cols / group : 1;
}

/* Of one piece, in the order of the file; weight_shape stands with the others' at its beginning. */
static uint32_t parts_of(const nibl_folder *f, size_t index, part out[PARTS]) {
    const nibl_quant_tensor *t = &f->plan.recipe->tensors[index];
    const nibl_integer_type *n = integers_of(t);
    const uint32_t pieces = nibl_folder_pieces(&f->plan, index);
    const uint64_t rows = t->rows / pieces;
    uint32_t count = 0;
    if (!n) {
        part *p = &out[count++];
        *p = (part){"", t->to->name, {rows, t->cols}, 2, t->bytes / pieces};
        if (t->source->n_dims < 2) p->dims[0] = t->cols, p->n_dims = 1;
        if (f->plan.outputs->items[index].slot == NIBL_SLOT_CONV) /* one channel a group */
            p->dims[1] = 1, p->dims[2] = t->cols, p->n_dims = 3;
        return count;
    }
    const uint64_t words = words_of(t->cols, n->form.bits), groups = groups_of(t);
    const nibl_storage storage = (nibl_storage)n->form.storage;
    out[count++] = (part){"_packed", "I32", {rows, words}, 2, 4 * rows * words};
    if (n->form.zero_point) {
        const uint64_t zeros = words_of(rows, n->form.bits);
        out[count++] = (part){"_zero_point", "I32", {zeros, groups}, 2, 4 * zeros * groups};
    }
    out[count++] = (part){"_scale",
                          storage == NIBL_STORE_F16    ? "F16"
                          : storage == NIBL_STORE_BF16 ? "BF16"
                                                       : "F32",
                          {rows, groups},
                          2,
                          (storage == NIBL_STORE_F32 ? 4 : 2) * rows * groups};
    return count;
}

static uint64_t piece_bytes(const nibl_folder *f, size_t index) {
    part parts[PARTS];
    uint64_t bytes = 0;
    const uint32_t count = parts_of(f, index, parts);
    for (uint32_t i = 0; i < count; i++) bytes += parts[i].bytes;
    return bytes;
}

size_t nibl_folder_bytes(const nibl_folder *f, size_t index) {
    return (size_t)piece_bytes(f, index) *
           nibl_folder_pieces(&f->plan, index); /* the rows are in memory already */
}

static const nibl_layer *layer_of(const nibl_folder_plan *p, size_t index) {
    return p->model->bindings[p->outputs->items[index].binding].layer;
}

void nibl_folder_name(const nibl_folder_plan *p, size_t index, uint32_t piece, char name[80]) {
    const nibl_layer *layer = layer_of(p, index);
    nibl_arch_write_name(nibl_arch_slot(p->model->arch, p->outputs->items[index].slot).hf,
                         layer ? (uint32_t)(layer - p->model->layers) : 0, piece, name);
}

/* Rows of a head that stand in halves in Hugging Face's files; 0 = rows stay. */
static uint32_t halves_of(const nibl_folder *f, size_t index) {
    const nibl_model *m = f->plan.model;
    const nibl_slot slot = f->plan.outputs->items[index].slot;
    const bool turned =
        slot == NIBL_SLOT_WQ || slot == NIBL_SLOT_WK || slot == NIBL_SLOT_BQ || slot == NIBL_SLOT_BK;
    return turned && m->arch->rope == NIBL_ROPE_INTERLEAVED ? m->hyper.head_width : 0;
}

/* Codes of a row, from 0 on, into words. */
static void pack_words(const uint8_t *row, const nibl_integer_type *n, uint64_t cols, uint8_t *out) {
    const uint32_t bits = n->form.bits, count = 32 / bits, fields = n->type.bytes - NIBL_BLOCK;
    const int middle = 1 << (bits - 1), more = bits > 4 ? middle : n->form.zero_point ? 0 : middle - 8;
    for (uint64_t k = 0; k < cols; out += 4) {
        uint32_t word = 0;
        for (uint32_t i = 0; i < count && k < cols; i++, k++) {
            const uint8_t code = row[k / NIBL_BLOCK * n->type.bytes + fields + k % NIBL_BLOCK];
            word |= (uint32_t)(uint8_t)(code + more) << i * bits;
        }
        for (int i = 0; i < 4; i++) out[i] = (uint8_t)(word >> 8 * i);
    }
}

/* `count` rows as a tensor of the file. */
static void write_piece(const nibl_folder *f, size_t index, uint64_t count, const uint8_t *rows,
                        uint8_t *out) {
    const nibl_quant_tensor *t = &f->plan.recipe->tensors[index];
    const nibl_integer_type *n = integers_of(t);
    const uint32_t halves = halves_of(f, index);
    const bool vector = t->source->n_dims < 2; /* has been put in order, as a row of its own */
    const size_t row_bytes = (size_t)(t->bytes / t->rows);
    if (!n) {
        for (uint32_t i = 0; i < count; i++)
            memcpy(out + i * row_bytes, rows + (vector ? i : nibl_row_interleaved(halves, i)) * row_bytes,
                   row_bytes);
        return;
    }
    const uint32_t bits = n->form.bits, together = 32 / bits, fields = n->type.bytes - NIBL_BLOCK;
    const uint64_t words = words_of(t->cols, bits), groups = groups_of(t),
                   step = t->cols / groups / NIBL_BLOCK;
    const uint32_t width = n->form.storage == NIBL_STORE_F32 ? 4 : 2, more = bits > 4 ? 1u << (bits - 1) : 0;
    uint8_t *zeros = out + 4 * count * words,
            *scales = zeros + (n->form.zero_point ? 4 * words_of(count, bits) * groups : 0);
    memset(zeros, 0, (size_t)(scales - zeros));
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *row = rows + nibl_row_interleaved(halves, i) * row_bytes;
        pack_words(row, n, t->cols, out + 4 * words * i);
        for (uint64_t g = 0; g < groups; g++) {
            const uint8_t *block = row + g * step * n->type.bytes;
            memcpy(scales + (i * groups + g) * width, block, width);
            if (!n->form.zero_point) continue;
            const uint32_t zero = (uint32_t)(uint8_t)(block[fields - 1] + more) << i % together * bits;
            uint8_t *word = zeros + 4 * (i / together * groups + g);
            for (int j = 0; j < 4; j++) word[j] = (uint8_t)(word[j] | zero >> 8 * j);
        }
    }
}

void nibl_folder_write(const nibl_folder *f, size_t index, const uint8_t *rows, uint8_t *out) {
    const nibl_quant_tensor *t = &f->plan.recipe->tensors[index];
    const uint32_t pieces = nibl_folder_pieces(&f->plan, index);
    const size_t from = (size_t)t->bytes / pieces, to = (size_t)piece_bytes(f, index);
    for (uint32_t i = 0; i < pieces; i++)
        write_piece(f, index, t->rows / pieces, rows + i * from, out + i * to);
}

/* ---- Files of weights ---- */

typedef struct header {
    nibl_writer w;
    uint64_t at; /* in the data */
    bool first;
} header;

static void add_entry(header *h, const char *name, const part *p) {
    nibl_print(&h->w, "%s\"%s%s\":{\"dtype\":\"%s\",\"shape\":[%llu", h->first ? "" : ",", name, p->suffix,
               p->type, (unsigned long long)p->dims[0]);
    for (uint32_t i = 1; i < p->n_dims; i++) nibl_print(&h->w, ",%llu", (unsigned long long)p->dims[i]);
    nibl_print(&h->w, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)h->at,
               (unsigned long long)(h->at + p->bytes));
    h->at += p->bytes;
    h->first = false;
}

static void store_u64(nibl_writer *w, uint64_t x) {
    char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (char)(x >> 8 * i);
    nibl_write(w, bytes, 8);
}

/* The shapes of an output's tensors, or where their bytes are. */
static void add_entries(const nibl_folder *f, size_t index, bool shapes, header *h) {
    part parts[PARTS];
    const uint32_t count = parts_of(f, index, parts), pieces = nibl_folder_pieces(&f->plan, index);
    for (uint32_t i = 0; i < pieces; i++) {
        char name[80];
        nibl_folder_name(&f->plan, index, i, name);
        if (shapes && integers_of(&f->plan.recipe->tensors[index]))
            add_entry(h, name, &(part){"_shape", "I64", {2}, 1, 16});
        for (uint32_t j = 0; j < count && !shapes; j++) add_entry(h, name, &parts[j]);
    }
}

/* The header of tensors [first, end): its length, JSON with spaces up to a multiple of 8, and all shapes. */
static void write_header(const nibl_folder *f, size_t first, size_t end, nibl_writer *out) {
    const nibl_recipe *r = f->plan.recipe;
    uint64_t length = 0;
    for (int pass = 0; pass < 2; pass++) { /* the first one measures */
        header h = {.first = true};
        const size_t begin = out->length + 8;
        if (pass == 1) {
            store_u64(out, (length + 7) / 8 * 8);
            h.w = *out;
        }
        nibl_print(&h.w, "{\"__metadata__\":{\"format\":\"pt\",\"nibl.recipe\":");
        nibl_write_json(&h.w, r->text.bytes, r->text.length);
        nibl_print(&h.w, "},");
        for (int shapes = 1; shapes >= 0; shapes--)
            for (size_t i = first; i < end; i++) add_entries(f, i, shapes, &h);
        nibl_print(&h.w, "}");
        if (pass == 1) {
            *out = h.w;
            while ((out->length - begin) % 8) nibl_write(out, " ", 1);
        }
        length = h.w.length;
    }
    for (size_t i = first; i < end; i++) {
        const uint32_t pieces = integers_of(&r->tensors[i]) ? nibl_folder_pieces(&f->plan, i) : 0;
        for (uint32_t j = 0; j < pieces; j++) {
            store_u64(out, r->tensors[i].rows / pieces);
            store_u64(out, r->tensors[i].cols);
        }
    }
}

static void write_headers(nibl_folder *f, nibl_writer *w) {
    for (uint32_t s = 0; s < f->shard_count; s++) {
        struct shard *shard = &f->shards[s];
        const size_t end = s + 1 < f->shard_count ? f->shards[s + 1].first : f->plan.recipe->count;
        shard->at = w->length;
        write_header(f, shard->first, end, w);
        shard->length = w->length - shard->at;
    }
}

/* NIBL_E_... where an output cannot be what a folder holds. */
static nibl_status check_output(const nibl_folder *f, size_t index) {
    const nibl_quant_tensor *t = &f->plan.recipe->tensors[index];
    char name[80];
    nibl_folder_name(&f->plan, index, 0, name);
    if (name[0] == 0)
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' has no place in a Hugging Face folder",
                         NIBL_SHOW(t->source->name));
    if (f->plan.outputs->items[index].slot == NIBL_SLOT_EMBEDDING && integers_of(t))
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "the embedding (and a head that is the same) cannot be integers in a folder: take f16");
    if (piece_bytes(f, index) % 4 != 0) /* what follows would not be aligned */
        return nibl_fail(NIBL_E_UNSUPPORTED, "'%s': an odd number of rows and scales cannot be written",
                         name);
    return NIBL_OK;
}

/* A new file begins where a layer, or a tensor outside of layers, would make the one at hand too large. */
static nibl_status divide(nibl_folder *f) {
    const nibl_folder_plan *p = &f->plan;
    const uint64_t most = f->plan.options->shard_bytes ? f->plan.options->shard_bytes : SHARD;
    size_t end;
    f->shards = nibl_alloc_zero((uint64_t)f->plan.recipe->count * sizeof *f->shards);
    if (!f->shards) return nibl_fail_memory(f->plan.recipe->count * sizeof *f->shards, "the list of files");
    for (size_t i = 0; i < f->plan.recipe->count; i = end) {
        uint64_t bytes = 0;
        for (end = i;
             end == i || (end < p->recipe->count && layer_of(p, i) && layer_of(p, end) == layer_of(p, i));
             end++) {
            NIBL_TRY(check_output(f, end));
            bytes += nibl_folder_bytes(f, end);
        }
        if (f->shard_count == 0 || f->shards[f->shard_count - 1].bytes + bytes > most)
            f->shards[f->shard_count++].first = i;
        f->shards[f->shard_count - 1].bytes += bytes;
    }
    return NIBL_OK;
}

static void shard_name(const nibl_folder *f, uint32_t s, char name[64]) {
    if (f->shard_count == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05u-of-%05u.safetensors", s + 1, f->shard_count);
}

nibl_slice nibl_folder_open(nibl_folder *f, size_t index) {
    const uint32_t next = f->opened ? f->shard + 1 : 0;
    if (next == f->shard_count || f->shards[next].first != index) return (nibl_slice){NULL, 0};
    f->shard = next;
    f->opened = true;
    shard_name(f, next, f->file);
    return (nibl_slice){f->headers + f->shards[next].at, f->shards[next].length};
}

const char *nibl_folder_file(const nibl_folder *f) { return f->file; }

/* ---- Documents ---- */

static nibl_status write_index(const nibl_folder *f, nibl_writer *w) {
    uint64_t total = 0;
    for (uint32_t s = 0; s < f->shard_count; s++) total += f->shards[s].bytes;
    nibl_print(w, "{\"metadata\":{\"total_size\":%llu},\"weight_map\":{", (unsigned long long)total);
    uint32_t shard = 0;
    for (size_t i = 0; i < f->plan.recipe->count; i++) {
        char name[80], file[64];
        part parts[PARTS];
        uint32_t count = parts_of(f, i, parts);
        const uint32_t pieces = nibl_folder_pieces(&f->plan, i);
        if (integers_of(&f->plan.recipe->tensors[i])) parts[count++] = (part){.suffix = "_shape"};
        while (shard + 1 < f->shard_count && f->shards[shard + 1].first <= i) shard++;
        shard_name(f, shard, file);
        for (uint32_t j = 0; j < count * pieces; j++) {
            nibl_folder_name(&f->plan, i, j / count, name);
            nibl_print(w, "%s\"%s%s\":\"%s\"", i + j > 0 ? "," : "", name, parts[j % count].suffix, file);
        }
    }
    nibl_print(w, "}}\n");
    return NIBL_OK;
}

typedef nibl_status (*document_writer)(const nibl_folder_plan *plan, nibl_writer *w);

static nibl_status add_document(nibl_folder *f, const char *name, document_writer write) {
    nibl_writer w = {0};
    NIBL_TRY(write ? write(&f->plan, &w) : write_index(f, &w));
    struct document *d = &f->documents[f->document_count];
    d->text = nibl_alloc((uint64_t)w.length + 1);
    if (!d->text) return nibl_fail_memory(w.length, name);
    f->document_count++;
    d->name = name;
    d->length = w.length;
    w = (nibl_writer){.text = d->text, .capacity = d->length + 1};
    return write ? write(&f->plan, &w) : write_index(f, &w);
}

bool nibl_folder_document(nibl_folder *f, nibl_slice *out) {
    const struct document *d = &f->documents[f->document++];
    snprintf(f->file, sizeof f->file, "%s", d->name);
    *out = (nibl_slice){d->text, d->length};
    return f->document < f->document_count;
}

static nibl_status build(nibl_folder *f, uint64_t *size) {
    const nibl_arch *arch = f->plan.model->arch;
    nibl_slice format;
    if (arch->transposed || arch->transposed_experts)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "architecture %s: matrices that transformers keeps transposed are no linear layers, "
                         "which alone compressed-tensors knows: take a GGUF file",
                         arch->name);
    NIBL_TRY(divide(f));
    shard_name(f, 0, f->file);
    nibl_writer w = {0};
    write_headers(f, &w);
    f->headers_length = w.length;
    f->headers = nibl_alloc((uint64_t)w.length + 1);
    if (!f->headers) return nibl_fail_memory(w.length, "the headers");
    w = (nibl_writer){.text = f->headers, .capacity = f->headers_length + 1};
    write_headers(f, &w);
    NIBL_TRY(add_document(f, "config.json", nibl_folder_config));
    if (f->shard_count > 1) NIBL_TRY(add_document(f, "model.safetensors.index.json", NULL));
    if (!nibl_gguf_string(f->plan.model->gguf, "nibl.format", &format)) {
        NIBL_TRY(add_document(f, "tokenizer.json", nibl_folder_tokenizer));
        NIBL_TRY(add_document(f, "tokenizer_config.json", nibl_folder_tokenizer_config));
        NIBL_TRY(add_document(f, "generation_config.json", nibl_folder_generation));
    }
    *size = f->headers_length;
    for (uint32_t s = 0; s < f->shard_count; s++) *size += f->shards[s].bytes;
    for (uint32_t i = 0; i < f->document_count; i++) *size += f->documents[i].length;
    return NIBL_OK;
}

nibl_status nibl_folder_new(const nibl_model *model, const nibl_outputs *outputs, const nibl_recipe *recipe,
                            const nibl_quantize_options *options, nibl_folder **out, uint64_t *size) {
    nibl_folder *f = nibl_alloc_zero(sizeof *f);
    if (!f) return nibl_fail_memory(sizeof *f, "the output");
    f->plan = (nibl_folder_plan){model, outputs, recipe, options};
    const nibl_status status = build(f, size);
    f->plan.options = NULL; /* the caller's, for this call */
    if (status < 0)
        nibl_folder_free(f);
    else
        *out = f;
    return status;
}

void nibl_folder_free(nibl_folder *f) {
    if (!f) return;
    for (uint32_t i = 0; i < f->document_count; i++) nibl_free(f->documents[i].text);
    nibl_free(f->headers);
    nibl_free(f->shards);
    nibl_free(f);
}
