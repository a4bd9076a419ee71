#include "core/quant/recipe.h"

#include "core/arch.h"
#include "core/encode.h"
#include "core/gguf_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Types ---- */

/* general.file_type of llama.cpp, and what takes the place of a type whose blocks do not divide a row. */
typedef struct file_type {
    const char *type, *instead;
    uint32_t id;
} file_type;

static const file_type file_types[] = {
    {"F32", NULL, 0},      {"F16", NULL, 1},         {"Q4_0", "F16", 2},     {"Q4_1", "F16", 3},
    {"Q5_0", "F16", 8},    {"Q5_1", "F16", 9},       {"Q8_0", "F16", 7},     {"Q2_K", "Q4_0", 10},
    {"Q3_K", "Q4_0", 11},  {"Q4_K", "Q5_0", 14},     {"Q5_K", "Q5_1", 16},   {"Q6_K", "Q8_0", 18},
    {"IQ4_NL", "F16", 25}, {"IQ4_XS", "IQ4_NL", 30}, {"BF16", NULL, 32},     {"TQ1_0", "Q4_0", 36},
    {"TQ2_0", "Q4_0", 37}, {"MXFP4", "F16", 38},     {"NVFP4", "MXFP4", 39},
};

static const file_type *file_type_of(const nibl_dtype *type) {
    if (nibl_dtype_by_id(type->id) != type) type = nibl_dtype_by_id(2); /* integers, in Q4_0 */
    for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++)
        if (strcmp(file_types[i].type, type->name) == 0) return &file_types[i];
    return NULL;
}

static const nibl_dtype *fitting(const nibl_dtype *type, uint64_t cols) {
    while (cols % type->block != 0) type = nibl_encode_type(file_type_of(type)->instead);
    return type;
}

static nibl_status find_type(nibl_recipe *r, const char *name, const char *absent, const nibl_dtype **out) {
    if (!name) name = absent;
    *out = NULL;
    if (r->grids) NIBL_TRY(r->grids->find(r, name, out));
    if (*out) return NIBL_OK;
    *out = nibl_encode_type(name);
    if (*out && r->folder && !nibl_kind_is_float((*out)->kind))
        return nibl_fail(NIBL_E_ARGUMENT, "'%.64s' is GGUF's: a folder holds floats and integers like w4g64",
                         name);
    return *out ? NIBL_OK : nibl_fail_encode_type(name);
}

/* ---- Methods ---- */

static const struct {
    const char *name;
    bool calibrated;
    nibl_method method;
} methods[] = {
    {"rtn", false, {.rest = true}},
    {"clip", false, {.search = true, .rest = true}},
    {"recover", false, {.recover = true}},
    {"imatrix", true, {.search = true, .magnitude = true, .rest = true}},
    {"rotate", false, {.rotate = true}},
    {"awq", true, {.search = true, .awq = true, .rest = true}},
    {"gptq", true, {.search = true, .gptq = true, .rest = true}},
    {"best", true, {.search = true, .awq = true, .gptq = true}}, /* also types: choose() */
};
enum { METHODS = sizeof methods / sizeof *methods };

static nibl_status fail_method(const char *name, size_t length) {
    char names[96] = {0};
    nibl_writer w = {.text = names, .capacity = sizeof names - 1};
    for (size_t i = 0; i < METHODS; i++) nibl_print(&w, "%s%s", i > 0 ? ", " : "", methods[i].name);
    return nibl_fail(NIBL_E_ARGUMENT, "there is no method '%.*s'; possible are: %s",
                     (int)(length < 64 ? length : 64), name, names);
}

nibl_status nibl_method_read(const char *text, bool calibrated, nibl_method *out) {
    *out = (nibl_method){0};
    if (!text) text = "rtn";
    for (bool more = true; more;) {
        const size_t length = strcspn(text, ",");
        size_t i = 0;
        while (i < METHODS &&
               (strlen(methods[i].name) != length || memcmp(methods[i].name, text, length) != 0))
            i++;
        if (i == METHODS) return fail_method(text, length);
        if (methods[i].calibrated && !calibrated)
            return nibl_fail(NIBL_E_ARGUMENT, "method %s needs a calibration text", methods[i].name);
        const nibl_method *m = &methods[i].method;
        *out = (nibl_method){.search = out->search || m->search,
                             .magnitude = out->magnitude || m->magnitude,
                             .awq = out->awq || m->awq,
                             .gptq = out->gptq || m->gptq,
                             .rotate = out->rotate || m->rotate,
                             .recover = out->recover || m->recover,
                             .rest = out->rest || m->rest};
        more = text[length] == ',';
        text += length + 1;
    }
    return out->recover && (out->awq || out->rotate)
               ? nibl_fail(NIBL_E_ARGUMENT,
                           "awq and rotate move weights off the grid that recover looks for: "
                           "rtn, clip, imatrix and gptq can follow it")
               : NIBL_OK;
}

/* What loses least of all that was measured at 4.5 bits (tests/bench/MEASURED.md, "Quantization"): every matrix in IQ4_NL. */
static bool is_best(const nibl_quantize_options *o) { return o->method && strcmp(o->method, "best") == 0; }
static const char best_type[] = "iq4_nl", best_method[] = "awq,gptq";

const char *nibl_recipe_method(const nibl_quantize_options *o) {
    return is_best(o) ? best_method : o->method ? o->method : o->imatrix ? "imatrix" : "rtn";
}

bool nibl_quantize_needs_text(const nibl_quantize_options *o) {
    nibl_method method;
    for (const char *at = o->imatrix ? NULL : o->method; at && *at;
         at += strcspn(at, ",") + (strchr(at, ',') != NULL))
        for (size_t i = 0; i < METHODS; i++)
            if (methods[i].calibrated && strlen(methods[i].name) == strcspn(at, ",") &&
                memcmp(methods[i].name, at, strlen(methods[i].name)) == 0)
                return nibl_method_read(o->method, true, &method) == NIBL_OK;
    return false;
}

/* ---- Names ---- */

/* '*' stands for any bytes, '?' for one. */
static bool matches(const char *pattern, nibl_slice name) {
    const char *star = NULL;
    size_t at = 0, retry = 0;
    while (at < name.length) {
        if (*pattern == '*') {
            star = ++pattern;
            retry = at;
        } else if (*pattern && (*pattern == '?' || *pattern == name.bytes[at])) {
            pattern++;
            at++;
        } else if (star) {
            pattern = star;
            at = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

bool nibl_recipe_names(const nibl_quantize_options *o, nibl_slice name) {
    size_t i = 0;
    while (i < o->tensor_count && !matches(o->tensors[i].pattern, name)) i++;
    return i < o->tensor_count;
}

/* Matrices that are looked up or filtered with, or decide between experts: small, and not worth a loss. */
static const char *const kept[] = {"*ffn_gate_inp*",  "*ssm_conv1d*",          "*shortconv.conv*",
                                   "*position_embd*", "*token_types*",         "*rope_freqs*",
                                   "*altup*",         "*per_layer_model_proj*"};

static bool is_kept(const nibl_gguf_tensor *t) {
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (matches(kept[i], t->name)) return true;
    return t->n_dims < 2 || !matches("*.weight", t->name);
}

/* ---- The choice ---- */

/* The type of the tensor's matrix, or F16 where none of the grid fits. */
static nibl_status fit_type(nibl_recipe *r, const nibl_dtype *type, nibl_quant_tensor *t) {
    if (nibl_dtype_by_id(type->id) == type) {
        t->to = fitting(type, t->cols);
        t->wanted = t->to == type ? NULL : type;
        t->wanted_block = type->block;
        return NIBL_OK;
    }
    NIBL_TRY(r->grids->fit(r, type, t->rows, t->cols, &t->to));
    t->wanted_block = t->to ? r->grids->group(type) : NIBL_BLOCK;
    t->wanted = !t->to || t->cols % t->wanted_block != 0 ? type : NULL;
    if (!t->to) t->to = nibl_dtype_by_id(1);
    return NIBL_OK;
}

static nibl_status choose_type(nibl_recipe *r, const nibl_quantize_options *o, bool *used,
                               nibl_quant_tensor *t) {
    const nibl_slice name = t->source->name;
    const nibl_dtype *type = r->type, *f32 = nibl_dtype_by_id(0);
    const bool is_float = nibl_kind_is_float(t->from->kind);
    if (matches("token_embd.weight", name)) type = r->embedding;
    if (matches("output.weight", name)) type = r->head;
    if (t->source->n_dims < 2 || (!r->folder && matches("*ffn_gate_inp*", name))) /* F32 in GGUF */
        type = is_float ? f32 : t->from;
    else if (is_kept(t->source))
        type = t->from;
    for (size_t i = 0; i < o->tensor_count; i++) {
        if (!matches(o->tensors[i].pattern, name)) continue;
        used[i] = true;
        NIBL_TRY(find_type(r, o->tensors[i].type, NULL, &type));
        break;
    }
    if (r->folder && type == t->from && !is_float) type = nibl_dtype_by_id(1);
    NIBL_TRY(fit_type(r, type, t));
    if (is_float || t->to == t->from || nibl_kind_is_float(t->to->kind) || o->requantize) return NIBL_OK;
    return nibl_fail(
        NIBL_E_ARGUMENT,
        "tensor '%.*s' is %s already: quantizing it again to %s would add a second loss to the first; "
        "take the 16-bit model, or allow it (requantize)",
        NIBL_SHOW(name), t->from->name, t->to->name);
}

static int compare_addresses(const void *a, const void *b) {
    const uint64_t x = ((const nibl_quant_tensor *)a)->source->offset,
                   y = ((const nibl_quant_tensor *)b)->source->offset;
    return (x > y) - (x < y);
}

bool nibl_recipe_is_apart(const nibl_gguf *gguf) {
    static const char *const factors[] = {NIBL_KEY_ROPE_FACTORS, NIBL_KEY_ROPE_SHORT, NIBL_KEY_ROPE_LONG};
    bool transposed = false, apart = false;
    nibl_gguf_array list;
    nibl_gguf_bool(gguf, NIBL_KEY_TRANSPOSED, &transposed);
    nibl_gguf_bool(gguf, NIBL_KEY_TRANSPOSED_EXPERTS, &apart);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        apart = apart || nibl_gguf_array_of(gguf, factors[i], &list);
    for (size_t i = 0; i < nibl_gguf_tensor_count(gguf) && !apart; i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, i);
        apart = matches("blk.*.ffn_*.*.weight", t->name) ||
                (t->n_dims > 2 && matches("blk.*.shortconv.conv.weight", t->name));
    }
    return transposed || apart;
}

/* How Hugging Face files differ: rows of Q and K in the order for rotation in halves, norms less 1. */
static nibl_status mark_folder(const nibl_recipe *r) {
    static const char *const turned[] = {"blk.*.attn_q.weight", "blk.*.attn_k.weight", "blk.*.attn_q.bias",
                                         "blk.*.attn_k.bias"};
    bool halves = false, from_zero = false;
    nibl_gguf_bool(r->gguf, NIBL_KEY_ROPE_HALVES, &halves);
    nibl_gguf_bool(r->gguf, NIBL_KEY_NORMS_FROM_ZERO, &from_zero);
    if (nibl_recipe_is_apart(r->gguf))
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "a folder whose matrices are transposed, or one for every expert, or convolutions, "
                         "or factors of RoPE, is "
                         "quantized layer by layer: that needs the model (nibl_model_quantizer_new)");
    if (!halves && !from_zero) return NIBL_OK;
    const nibl_arch *arch;
    nibl_hyper hyper;
    NIBL_TRY(nibl_arch_of(r->gguf, &arch));
    NIBL_TRY(nibl_arch_hyper(arch, r->gguf, &hyper));
    for (size_t i = 0; i < r->count; i++) {
        nibl_quant_tensor *t = &r->tensors[i];
        t->from_zero = from_zero && t->source->n_dims < 2 && matches("*norm.weight", t->source->name);
        bool turns = false;
        for (size_t j = 0; j < sizeof turned / sizeof *turned; j++)
            turns = turns || matches(turned[j], t->source->name);
        if (!halves || !turns) continue;
        if ((t->rows > 1 ? t->rows : t->cols) % hyper.head_width != 0 || hyper.head_width % 2 != 0)
            return nibl_fail(NIBL_E_FILE, "tensor '%.*s' is no multiple of a head of %u",
                             NIBL_SHOW(t->source->name), hyper.head_width);
        t->halves = hyper.head_width;
    }
    return NIBL_OK;
}

static nibl_status choose(nibl_recipe *r, const nibl_quantize_options *o, bool *used) {
    bool tied = nibl_gguf_find_tensor(r->gguf, "output.weight") == NULL;
    const bool best = is_best(o) && !o->type;
    const char *rest = r->folder ? "f16" : best ? best_type : "q8_0";
    NIBL_TRY(find_type(r, o->type, r->folder ? "w4" : best ? best_type : "q4_0", &r->type));
    NIBL_TRY(find_type(r, o->head, rest, &r->head));
    NIBL_TRY(find_type(r, o->embedding, tied && o->head ? o->head : rest, &r->embedding));
    for (size_t i = 0; i < r->count; i++) {
        nibl_quant_tensor *t = &r->tensors[i];
        t->source = r->outputs ? &r->outputs[i] : nibl_gguf_tensor_at(r->gguf, i);
        const nibl_gguf_tensor *s = t->source;
        t->from = nibl_dtype_by_id(s->type);
        t->cols = s->dims[0];
        t->rows = s->dims[1] * s->dims[2] * s->dims[3];
        if (!t->from) {
            const char *name = nibl_dtype_name(s->type);
            return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' has type %s, which this build does not read",
                             NIBL_SHOW(s->name), name ? name : "unknown");
        }
        if (t->cols > UINT32_MAX / 8)
            return nibl_fail(NIBL_E_UNSUPPORTED,
                             "tensor '%.*s' has rows of %llu values; at most %u are possible",
                             NIBL_SHOW(s->name), (unsigned long long)t->cols, UINT32_MAX / 8);
        NIBL_TRY(choose_type(r, o, used, t));
        uint64_t row_bytes;
        if (!nibl_dtype_row_bytes(t->to, t->cols, &row_bytes) ||
            !nibl_mul_u64(row_bytes, t->rows, &t->bytes) || t->bytes > NIBL_MAX_FILE)
            return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' would be too large", NIBL_SHOW(s->name));
    }
    for (size_t i = 0; i < o->tensor_count; i++)
        if (!used[i])
            return nibl_fail(NIBL_E_ARGUMENT, "'%.64s' is the name of no tensor", o->tensors[i].pattern);
    if (r->outputs) return NIBL_OK; /* in order, and as GGUF has them */
    qsort(r->tensors, r->count, sizeof *r->tensors, compare_addresses);
    return mark_folder(r);
}

/* A folder where that is asked for, or a type that only folders have. */
static nibl_status choose_format(nibl_recipe *r, const nibl_quantize_options *o) {
    const char *const names[] = {o->type, o->embedding, o->head};
    const nibl_dtype *type = NULL;
    const bool told = o->format != NULL;
    r->folder = !told || strcmp(o->format, "safetensors") == 0;
    if (told && !r->folder && strcmp(o->format, "gguf") != 0)
        return nibl_fail(NIBL_E_ARGUMENT, "there is no format '%.64s'; possible are gguf and safetensors",
                         o->format);
    if (!r->grids) {
        if (told && r->folder)
            return nibl_fail(NIBL_E_ARGUMENT,
                             "a folder is made of a model in memory (nibl_model_quantizer_new)");
        r->folder = false;
        return NIBL_OK;
    }
    for (size_t i = 0; i < 3 + o->tensor_count && !told && !type; i++) {
        const char *name = i < 3 ? names[i] : o->tensors[i - 3].type;
        if (name) NIBL_TRY(r->grids->find(r, name, &type));
    }
    if (!told) r->folder = type != NULL;
    return NIBL_OK;
}

nibl_status nibl_recipe_choose(const nibl_gguf *gguf, const nibl_gguf_tensor *outputs, size_t count,
                               const nibl_quantize_options *options, const nibl_quant_grids *grids,
                               nibl_recipe *out) {
    *out = (nibl_recipe){.gguf = gguf,
                         .outputs = outputs,
                         .grids = grids,
                         .count = outputs ? count : nibl_gguf_tensor_count(gguf)};
    NIBL_TRY(choose_format(out, options));
    if (out->count == 0) return nibl_fail(NIBL_E_FILE, "the model has no tensors");
    nibl_slice method;
    if (nibl_gguf_string(gguf, "nibl.quantization.method", &method))
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "the weights are quantized by '%.*s' already: take the 16-bit model",
                         NIBL_SHOW(method));
    const uint64_t bytes = (uint64_t)out->count * sizeof *out->tensors;
    bool *used = nibl_alloc_zero((uint64_t)options->tensor_count + 1);
    out->tensors = nibl_alloc_zero(bytes);
    const nibl_status status =
        used && out->tensors ? choose(out, options, used) : nibl_fail_memory(bytes, "the list of tensors");
    nibl_free(used);
    return status;
}

nibl_status nibl_recipe_untie(nibl_recipe *r) {
    static const char name[] = "output.weight";
    size_t i = 0;
    while (i < r->count && !matches("token_embd.weight", r->tensors[i].source->name)) i++;
    if (i == r->count) return nibl_fail(NIBL_E_FILE, "the model has no embedding");
    void *grown = nibl_realloc(r->tensors, (uint64_t)(r->count + 1) * sizeof *r->tensors);
    if (!grown) return nibl_fail_memory((r->count + 1) * sizeof *r->tensors, "the list of tensors");
    r->tensors = grown;
    nibl_quant_tensor *t = &r->tensors[r->count++];
    *t = r->tensors[i];
    r->own_head = *t->source;
    r->own_head.name = (nibl_slice){name, sizeof name - 1};
    t->source = &r->own_head;
    NIBL_TRY(fit_type(r, r->head, t));
    uint64_t row;
    if (!nibl_dtype_row_bytes(t->to, t->cols, &row) || !nibl_mul_u64(row, t->rows, &t->bytes))
        return nibl_fail(NIBL_E_FILE, "the head is too large");
    return NIBL_OK;
}

void nibl_recipe_free(nibl_recipe *recipe) {
    nibl_free(recipe->tensors);
    nibl_free((void *)recipe->text.bytes);
    recipe->tensors = NULL;
    if (recipe->grids) recipe->grids->drop(recipe);
    recipe->text = (nibl_slice){0};
}

/* ---- The header ---- */

/* What the output says anew, or what is true of the source only. */
static bool is_dropped(nibl_slice key) {
    static const char *const dropped[] = {"general.alignment",
                                          "general.file_type",
                                          "general.quantization_version",
                                          "split.*",
                                          "nibl.format",
                                          NIBL_KEY_ROPE_HALVES,
                                          NIBL_KEY_NORMS_FROM_ZERO,
                                          NIBL_KEY_TRANSPOSED,
                                          NIBL_KEY_TRANSPOSED_EXPERTS,
                                          NIBL_KEY_ROPE_FACTORS,
                                          NIBL_KEY_ROPE_SHORT,
                                          NIBL_KEY_ROPE_LONG,
                                          "nibl.version",
                                          "nibl.recipe"};
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        if (matches(dropped[i], key)) return true;
    return false;
}

static void write_text(nibl_writer *w, const char *text) { nibl_write_json(w, text, strlen(text)); }

static void write_recipe(nibl_writer *w, const nibl_recipe *r, const nibl_quantize_options *o) {
    nibl_print(w, "{\"type\":\"%s\",\"embedding\":\"%s\",\"head\":\"%s\",\"tensors\":[", r->type->name,
               r->embedding->name, r->head->name);
    for (size_t i = 0; i < o->tensor_count; i++) {
        nibl_print(w, "%s[", i > 0 ? "," : "");
        write_text(w, o->tensors[i].pattern);
        nibl_print(w, ",");
        write_text(w, o->tensors[i].type);
        nibl_print(w, "]");
    }
    nibl_print(w, "],\"method\":");
    write_text(w, nibl_recipe_method(o));
    nibl_print(w, "}");
}

nibl_status nibl_recipe_describe(nibl_recipe *r, const nibl_quantize_options *o) {
    nibl_writer w = {0};
    write_recipe(&w, r, o);
    char *text = nibl_alloc((uint64_t)w.length + 1);
    if (!text) return nibl_fail_memory(w.length, "the recipe");
    w = (nibl_writer){.text = text, .capacity = w.length + 1};
    write_recipe(&w, r, o);
    r->text = (nibl_slice){text, w.length};
    return NIBL_OK;
}

nibl_status nibl_recipe_header(nibl_recipe *r, const nibl_quantize_options *o, uint8_t **bytes,
                               size_t *length) {
    nibl_gguf_builder b = {.alignment = NIBL_QUANT_ALIGNMENT};
    nibl_slice format;
    const bool folder = nibl_gguf_string(r->gguf, "nibl.format", &format);
    for (size_t i = 0; i < nibl_gguf_metadata_count(r->gguf); i++)
        if (!is_dropped(nibl_gguf_metadata_key(r->gguf, i))) nibl_gguf_build_copy(&b, r->gguf, i, folder);
    nibl_gguf_build_u32(&b, "general.file_type", file_type_of(r->type)->id);
    nibl_gguf_build_u32(&b, "general.quantization_version", 2);
    nibl_gguf_build_string(&b, "nibl.version", (nibl_slice){NIBL_VERSION, sizeof NIBL_VERSION - 1});
    const nibl_status status = nibl_recipe_describe(r, o);
    if (status == NIBL_OK) nibl_gguf_build_string(&b, "nibl.recipe", r->text);
    for (size_t i = 0; i < r->count; i++) {
        const nibl_quant_tensor *t = &r->tensors[i];
        char name[NIBL_GGUF_MAX_NAME + 1];
        snprintf(name, sizeof name, "%.*s", (int)t->source->name.length, t->source->name.bytes);
        nibl_gguf_build_tensor(&b, name, t->to->id, t->source->n_dims, t->source->dims, t->bytes);
    }
    if (b.status == NIBL_OK) b.status = status;
    return nibl_gguf_build_bytes(&b, bytes, length);
}
