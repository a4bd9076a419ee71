#include "core/hf.h"

#include "core/dtype.h"
#include "core/hf_config.h"
#include "core/hf_family.h"
#include "core/hf_quant.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const nibl_hf_file nibl_hf_files[NIBL_HF_DOCUMENTS] = {
    [NIBL_HF_CONFIG] = {"config.json", 1 << 20, true},
    [NIBL_HF_GENERATION] = {"generation_config.json", 1 << 20, false},
    [NIBL_HF_TOKENIZER_CONFIG] = {"tokenizer_config.json", 16 << 20, false},
    [NIBL_HF_TEMPLATE] = {"chat_template.jinja", 1 << 20, false},
    [NIBL_HF_TOKENIZER] = {"tokenizer.json", 128 << 20, true},
    [NIBL_HF_INDEX] = {NIBL_HF_WEIGHTS ".index.json", 16 << 20, false},
};

static const char config_name[] = "config.json";

/* ---- model.safetensors.index.json ---- */

typedef struct named_file {
    nibl_slice name;
    uint32_t order;
} named_file;

static int compare_files(const void *a, const void *b) {
    const named_file *x = a, *y = b;
    const size_t length = x->name.length < y->name.length ? x->name.length : y->name.length;
    const int order = memcmp(x->name.bytes, y->name.bytes, length);
    if (order) return order;
    if (x->name.length != y->name.length) return x->name.length < y->name.length ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int compare_order(const void *a, const void *b) {
    const named_file *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* A name of a file in the same folder, and nothing else. */
static bool is_file_name(nibl_slice s) {
    static const char tail[] = ".safetensors";
    const size_t width = sizeof tail - 1;
    if (s.length <= width || s.length > 255 || s.bytes[0] == '.') return false;
    for (size_t i = 0; i < s.length; i++)
        if (strchr("/\\:?#%\"*<>|", s.bytes[i]) || (uint8_t)s.bytes[i] < 0x20) return false;
    return memcmp(s.bytes + s.length - width, tail, width) == 0;
}

static nibl_status read_files(const nibl_json *json, const char *file, named_file *files, size_t *count) {
    const uint32_t map = nibl_json_get(json, NIBL_JSON_ROOT, "weight_map");
    for (uint32_t i = 0; nibl_json_each(json, map, &i); ++*count) {
        files[*count] = (named_file){nibl_json_text(json, i + 1), (uint32_t)*count};
        if (json->nodes[i + 1].escaped || !is_file_name(files[*count].name))
            return nibl_fail(NIBL_E_FILE,
                             "%s: weight_map points to '%.*s', which is no .safetensors file of this folder",
                             file, NIBL_SHOW(files[*count].name));
    }
    if (*count == 0) return nibl_fail(NIBL_E_FILE, "%s: there is no weight_map, or nothing in it", file);
    qsort(files, *count, sizeof *files, compare_files);
    size_t kept = 1;
    for (size_t i = 1; i < *count; i++) {
        const nibl_slice a = files[kept - 1].name, b = files[i].name;
        if (a.length != b.length || memcmp(a.bytes, b.bytes, a.length) != 0) files[kept++] = files[i];
    }
    *count = kept;
    qsort(files, kept, sizeof *files, compare_order);
    return NIBL_OK;
}

nibl_status nibl_hf_read_index(const nibl_hf_text *index, nibl_status (*add)(void *context, const char *name),
                               void *context) {
    nibl_json json = {0};
    NIBL_TRY(nibl_json_parse(index->name, index->bytes, index->length, &json));
    const uint64_t bytes = ((uint64_t)json.count / 2 + 1) * sizeof(named_file);
    named_file *files = nibl_alloc(bytes);
    size_t count = 0;
    nibl_status status =
        files ? read_files(&json, index->name, files, &count) : nibl_fail_memory(bytes, "the list of files");
    for (size_t i = 0; i < count && status == NIBL_OK; i++) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)files[i].name.length, files[i].name.bytes);
        status = add(context, name);
    }
    nibl_free(files);
    nibl_json_free(&json);
    return status;
}

/* ---- Weights ---- */

typedef struct weight {
    nibl_safetensor tensor;
    uint32_t file;
    bool used;
} weight;

typedef struct weights {
    weight *list; /* by name */
    size_t count;
    const char *const *names; /* of the files */
    nibl_hfq_config quantized;
} weights;

static int compare_names(const void *a, const void *b) {
    const nibl_slice x = ((const weight *)a)->tensor.name, y = ((const weight *)b)->tensor.name;
    const int order = memcmp(x.bytes, y.bytes, x.length < y.length ? x.length : y.length);
    return order ? order : (x.length > y.length) - (x.length < y.length);
}

static weight *find_weight(const weights *w, const char *name) {
    const weight wanted = {.tensor.name = {name, strlen(name)}};
    return w->count ? bsearch(&wanted, w->list, w->count, sizeof wanted, compare_names) : NULL;
}

/* Other beginnings that names have: published GPT-2 folders omit it, models that see as well say which part they mean. */
static weight *find_slot(const weights *w, const char *name) {
    static const char *const beginnings[][2] = {
        {"", ""}, {"transformer.", ""}, {"", "language_model."}, {"model.", "model.language_model."}};
    weight *found = NULL;
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings && !found; i++) {
        const size_t length = strlen(beginnings[i][0]);
        char other[128];
        if (strncmp(name, beginnings[i][0], length) != 0) continue;
        snprintf(other, sizeof other, "%s%s", beginnings[i][1], name + length);
        found = find_weight(w, other);
    }
    return found;
}

static nibl_status read_weights(const nibl_hf_text *files, size_t count, uint32_t first, weights *w) {
    size_t capacity = 0;
    for (size_t i = 0; i < count; i++) {
        nibl_safetensor *tensors;
        size_t more;
        NIBL_TRY(nibl_safetensors_read(files[i].name, files[i].bytes, files[i].length, &tensors, &more));
        void *grown = w->list;
        nibl_status status =
            nibl_reserve(&grown, &capacity, w->count + more, sizeof *w->list, "the list of tensors");
        w->list = grown;
        for (size_t j = 0; j < more && status == NIBL_OK; j++)
            w->list[w->count++] = (weight){.tensor = tensors[j], .file = first + (uint32_t)i};
        nibl_free(tensors);
        NIBL_TRY(status);
    }
    if (w->count > 0) qsort(w->list, w->count, sizeof *w->list, compare_names);
    for (size_t i = 1; i < w->count; i++)
        if (compare_names(&w->list[i - 1], &w->list[i]) == 0)
            return nibl_fail(NIBL_E_FILE, "tensor '%.*s' stands twice in the weights",
                             NIBL_SHOW(w->list[i].tensor.name));
    return NIBL_OK;
}

/* GGUF's id of a type, I8 for bytes that GGUF has no name for; an id of none where nobody knows it. */
static uint32_t type_id(nibl_slice dtype) {
    if (nibl_slice_is(dtype, "U8") || nibl_slice_is(dtype, "F8_E4M3")) dtype = (nibl_slice){"I8", 2};
    for (uint32_t id = 0; id < 64; id++) {
        const char *name = nibl_dtype_name(id);
        if (name && nibl_slice_is(dtype, name)) return id;
    }
    return UINT32_MAX;
}

/* A tensor of the file as tensor `name` of the header. */
static void write_tensor(const weights *w, weight *found, const char *name, nibl_gguf_builder *b,
                         uint32_t *order) {
    const nibl_safetensor *t = &found->tensor;
    found->used = true;
    order[b->tensors] = (uint32_t)(found - w->list);
    nibl_gguf_build_tensor(b, name, type_id(t->dtype), t->n_dims, t->dims, t->end - t->begin);
}

/* A name without ".weight". */
static int length_of_module(const char *name) {
    const char *tail = strrchr(name, '.');
    return (int)(tail && strcmp(tail, ".weight") == 0 ? (size_t)(tail - name) : strlen(name));
}

/* The tensors of a quantized matrix. */
static nibl_status write_parts(const char *name, const char *hf_name, bool optional, const weights *w,
                               nibl_gguf_builder *b, uint32_t *order) {
    const nibl_hfq_method *m = w->quantized.method;
    const int base = length_of_module(name), hf_base = length_of_module(hf_name);
    for (size_t i = 0; i < NIBL_HFQ_PARTS && m->parts[i].suffix; i++) {
        char part[96], hf_part[96];
        snprintf(part, sizeof part, "%.*s%s", base, name, m->parts[i].suffix);
        snprintf(hf_part, sizeof hf_part, "%.*s%s", hf_base, hf_name, m->parts[i].suffix);
        weight *found = find_slot(w, hf_part);
        if (found)
            write_tensor(w, found, part, b, order);
        else if (optional && i == 0)
            return NIBL_OK;
        else if (!m->parts[i].optional)
            return nibl_fail(NIBL_E_FILE,
                             "neither '%s' nor '%s', which %s weights have, is in a file of weights", hf_name,
                             hf_part, m->name);
    }
    return NIBL_OK;
}

/* What one tensor becomes; `order` says which weight stands where in the header. */
static nibl_status write_weight(nibl_slot slot, const char *name, const char *hf_name, bool optional,
                                const weights *w, nibl_gguf_builder *b, uint32_t *order) {
    const bool linear = !nibl_slot_forms[slot].vector && slot != NIBL_SLOT_EMBEDDING;
    weight *found = find_slot(w, hf_name);
    const bool floats = found && nibl_dtype_by_id(type_id(found->tensor.dtype));
    if (w->quantized.method && !floats && linear) return write_parts(name, hf_name, optional, w, b, order);
    if (!found && optional) return NIBL_OK;
    if (!found)
        return nibl_fail(NIBL_E_FILE, "tensor '%s' is in no file of weights, but config.json asks for it",
                         hf_name);
    if (!floats)
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' has type %.*s, which this build does not read",
                         hf_name, NIBL_SHOW(found->tensor.dtype));
    write_tensor(w, found, name, b, order);
    return NIBL_OK;
}

static nibl_status write_slot(const nibl_arch *arch, nibl_slot slot, uint32_t layer, uint32_t experts,
                              const weights *w, nibl_gguf_builder *b, uint32_t *order) {
    const nibl_slot_name names = nibl_arch_slot(arch, slot);
    /* a layer with a convolution has no attention: the model knows which lack what */
    const bool block = (arch->has & NIBL_BIT(CONV)) && slot >= NIBL_SLOT_WQ && slot <= NIBL_SLOT_CONV_OUT;
    const bool optional =
        block || (nibl_arch_presence(arch, slot) == NIBL_WHERE_PRESENT && slot != NIBL_SLOT_HEAD);
    const bool each = experts > 0 && nibl_slot_forms[slot].expert;
    char name[80], hf_name[80];
    for (uint32_t e = 0; e < (each ? experts : 1); e++) {
        nibl_arch_write_name(names.hf, layer, e, hf_name);
        if (each)
            nibl_arch_write_expert_name(slot, layer, e, name);
        else
            nibl_arch_write_name(names.gguf, layer, e, name);
        NIBL_TRY(write_weight(slot, name, hf_name, optional, w, b, order));
    }
    return NIBL_OK;
}

static bool has_end(nibl_slice name, const char *end) {
    const size_t length = strlen(end);
    return name.length >= length && memcmp(name.bytes + name.length - length, end, length) == 0;
}

/* RoPE frequencies and causal masks that old files carry along are computed anyway; what sees is no part of the language
 * model; a head that is tied is the embedding. */
static bool is_idle(const nibl_json *config, bool tied, nibl_slice name) {
    static const char *const ends[] = {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"};
    static const char *const others[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                         "model.multi_modal_projector."};
    bool idle = tied && (nibl_slice_is(name, "lm_head.weight") || has_end(name, ".lm_head.weight"));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) idle = idle || has_end(name, ends[i]);
    const bool has_others = nibl_json_get(config, NIBL_JSON_ROOT, "text_config") != 0;
    for (size_t i = 0; has_others && i < sizeof others / sizeof *others; i++) {
        const size_t length = strlen(others[i]);
        idle = idle || (name.length > length && memcmp(name.bytes, others[i], length) == 0);
    }
    return idle;
}

static nibl_status write_weights(const nibl_json *config, const nibl_arch *arch, const weights *w,
                                 nibl_gguf_builder *b, uint32_t *order) {
    uint64_t layers = 0, vocabulary = 0;
    const bool tied = nibl_hf_is_tied(config, arch);
    const uint32_t experts = nibl_hf_experts(config, arch);
    nibl_json_u64(config, nibl_hf_setting(config, "num_hidden_layers"), &layers);
    if (layers == 0) nibl_json_u64(config, nibl_hf_setting(config, "n_layer"), &layers);
    /* Each layer takes a tensor: no more work than the files have. */
    for (nibl_slot slot = 0; slot < NIBL_SLOT_COUNT; slot++) {
        const nibl_slot_name names = nibl_arch_slot(arch, slot);
        if (nibl_arch_presence(arch, slot) == NIBL_WHERE_ASKED || names.hf[0] == 0) continue;
        if (slot == NIBL_SLOT_HEAD && tied) continue;
        if (names.shared && names.after[0] != NIBL_SLOT_EMBEDDING) continue;
        for (uint32_t layer = 0; layer < (nibl_slot_in_layer(slot) ? layers : 1); layer++)
            NIBL_TRY(write_slot(arch, slot, layer, experts, w, b, order));
    }
    for (size_t i = 0; i < w->count; i++) {
        const nibl_slice name = w->list[i].tensor.name;
        if (!w->list[i].used && !is_idle(config, tied, name) && !nibl_hfq_is_idle(&w->quantized, name))
            return nibl_fail(NIBL_E_UNSUPPORTED,
                             "tensor '%.*s' has no place in architecture %s of this build", NIBL_SHOW(name),
                             arch->name);
    }
    const uint64_t rows = w->list[order[0]].tensor.dims[1];
    if (nibl_json_u64(config, nibl_hf_setting(config, "vocab_size"), &vocabulary) && vocabulary != rows)
        return nibl_fail(NIBL_E_FILE, "%s: vocab_size is %llu, but the embedding has %llu rows", config_name,
                         (unsigned long long)vocabulary, (unsigned long long)rows);
    return NIBL_OK;
}

/* ---- All together ---- */

static nibl_status build(const nibl_hf_parsed *hf, weights *w, uint32_t *order, nibl_gguf_builder *b) {
    const nibl_json *config = &hf->json[NIBL_HF_CONFIG];
    const nibl_arch *arch;
    NIBL_TRY(nibl_hf_write_config(config, &arch, b));
    NIBL_TRY(nibl_hfq_read_config(config, &w->quantized));
    nibl_hfq_write_metadata(&w->quantized, b);
    NIBL_TRY(nibl_hf_build_tokenizer(hf, b));
    return write_weights(config, arch, w, b, order);
}

static nibl_status build_header(const nibl_hf_parsed *hf, weights *w, nibl_gguf **out) {
    const uint64_t bytes = ((uint64_t)w->count + 1) * sizeof(uint32_t);
    uint32_t *order = nibl_alloc(bytes);
    if (!order) return nibl_fail_memory(bytes, "the order of tensors");
    nibl_gguf_builder b = {0};
    nibl_gguf *gguf = NULL;
    nibl_status status = build(hf, w, order, &b);
    if (status < 0) b.status = status;
    status = nibl_gguf_build_end(&b, &gguf);
    for (size_t i = 0; status == NIBL_OK && i < nibl_gguf_tensor_count(gguf); i++) {
        const weight *from = &w->list[order[i]];
        nibl_gguf_place_tensor(gguf, i, NIBL_ADDRESS(from->file, from->tensor.begin),
                               from->tensor.end - from->tensor.begin);
    }
    nibl_free(order);
    if (status == NIBL_OK) *out = gguf;
    return status;
}

nibl_status nibl_hf_build(const nibl_hf_text *documents, const nibl_hf_text *files, size_t count,
                          uint32_t first_weights, nibl_gguf **out) {
    nibl_hf_parsed hf = {0};
    weights w = {0};
    nibl_status status = NIBL_OK;
    for (size_t i = 0; i < NIBL_HF_INDEX && status == NIBL_OK; i++) {
        const nibl_hf_text *d = &documents[i];
        if (i == NIBL_HF_TEMPLATE)
            hf.chat_template = (nibl_slice){d->bytes, d->length};
        else if (d->length > 0)
            status = nibl_json_parse(d->name, d->bytes, d->length, &hf.json[i]);
    }
    if (status == NIBL_OK) status = read_weights(files, count, first_weights, &w);
    if (status == NIBL_OK) status = build_header(&hf, &w, out);
    nibl_free(w.list);
    for (size_t i = 0; i < NIBL_HF_DOCUMENTS; i++) nibl_json_free(&hf.json[i]);
    return status;
}
