/* Which layout a model has, and the tensors of its matrices. */
#include "core/hf_quant.h"

#include "core/dtype.h"

#include <stdio.h>
#include <string.h>

enum { I8 = 24 /* GGUF's id of bytes, whatever they mean */ };

static const char config_name[] = "config.json";

static const nibl_hfq_method *find_method(nibl_slice name) {
    for (size_t i = 0; i < nibl_hfq_method_count; i++)
        if (nibl_slice_is(name, nibl_hfq_methods[i].name)) return &nibl_hfq_methods[i];
    return NULL;
}

/* ---- config.json ---- */

/* Neither there nor anything in it. */
static bool is_empty(const nibl_json *json, uint32_t node) {
    uint32_t child = 0;
    const bool container =
        nibl_json_is(json, node, NIBL_JSON_OBJECT) || nibl_json_is(json, node, NIBL_JSON_ARRAY);
    return node == 0 || nibl_json_is(json, node, NIBL_JSON_NULL) ||
           (container && !nibl_json_each(json, node, &child));
}

static nibl_status refuse(const char *what, nibl_slice value) {
    return nibl_fail(NIBL_E_UNSUPPORTED,
                     "%s: the weights are quantized by %s '%.*s', which is not supported: take the 16-bit "
                     "model and quantize it on arrival, or a GGUF file",
                     config_name, what, NIBL_SHOW(value));
}

static nibl_slice word(const char *text) { return (nibl_slice){text, strlen(text)}; }

/* The first of two keys that is there. */
static uint32_t either(const nibl_json *json, uint32_t object, const char *a, const char *b) {
    const uint32_t node = nibl_json_get(json, object, a);
    return node ? node : nibl_json_get(json, object, b);
}

/* -1 stands for one group. */
static nibl_status read_sizes(const nibl_json *json, uint32_t bits, uint32_t group, nibl_hfq_config *out) {
    uint64_t number = 0;
    if (!nibl_json_u64(json, bits, &number) || (number != 4 && number != 8))
        return refuse("a number of bits",
                      bits ? (nibl_slice){json->text + json->nodes[bits].at, json->nodes[bits].length}
                           : word("?"));
    out->bits = (uint32_t)number;
    double negative = 0;
    if (group == 0 || (nibl_json_f64(json, group, &negative) && negative < 0)) return NIBL_OK;
    if (!nibl_json_u64(json, group, &number) || number == 0 || number > UINT32_MAX)
        return nibl_fail(NIBL_E_FILE, "%s: the group size of the quantization is not possible", config_name);
    out->group = (uint32_t)number;
    return NIBL_OK;
}

static nibl_status read_awq(const nibl_json *json, uint32_t config, nibl_hfq_config *out) {
    const nibl_slice version = nibl_json_text(json, either(json, config, "version", "format"));
    bool zero_point = true;
    nibl_json_bool(json, nibl_json_get(json, config, "zero_point"), &zero_point);
    if (version.length > 0 && !nibl_slice_is(version, "gemm") && !nibl_slice_is(version, "GEMM"))
        return refuse("AWQ's version", version);
    if (!zero_point) return refuse("AWQ", word("without zero points"));
    NIBL_TRY(read_sizes(json, either(json, config, "bits", "w_bit"),
                        either(json, config, "group_size", "q_group_size"), out));
    if (out->bits != 4) return refuse("AWQ", word("with 8 bits"));
    return NIBL_OK;
}

static nibl_status read_gptq(const nibl_json *json, uint32_t config, nibl_hfq_config *out) {
    const nibl_slice format = nibl_json_text(json, either(json, config, "checkpoint_format", "format"));
    bool marlin = false;
    nibl_json_bool(json, nibl_json_get(json, config, "is_marlin_format"), &marlin);
    if (marlin) return refuse("GPTQ's format", word("marlin"));
    if (nibl_slice_is(format, "gptq_v2"))
        out->method = find_method(word("gptq_v2"));
    else if (format.length > 0 && !nibl_slice_is(format, "gptq"))
        return refuse("GPTQ's format", format);
    nibl_json_bool(json, nibl_json_get(json, config, "sym"), &out->symmetric);
    return read_sizes(json, nibl_json_get(json, config, "bits"), nibl_json_get(json, config, "group_size"),
                      out);
}

static nibl_status read_compressed(const nibl_json *json, uint32_t config, nibl_hfq_config *out) {
    nibl_slice format = nibl_json_text(json, nibl_json_get(json, config, "format"));
    if (nibl_slice_is(format, "naive-quantized")) format = word("int-quantized"); /* its old name */
    out->method = find_method(format);
    if (!out->method || !strstr(out->method->name, "-quantized"))
        return refuse("compressed-tensors' format", format);
    const nibl_slice state = nibl_json_text(json, nibl_json_get(json, config, "quantization_status"));
    if (state.length > 0 && !nibl_slice_is(state, "compressed"))
        return refuse("compressed-tensors, with status", state);
    const uint32_t sparsity = nibl_json_get(json, config, "sparsity_config");
    const nibl_slice sparse = nibl_json_text(json, nibl_json_get(json, sparsity, "format"));
    if (!is_empty(json, sparsity) && !nibl_slice_is(sparse, "dense"))
        return refuse("compressed-tensors' sparse format", sparse);
    const uint32_t transforms = nibl_json_get(json, config, "transform_config");
    if (!is_empty(json, transforms) && !is_empty(json, nibl_json_get(json, transforms, "config_groups")))
        return refuse("compressed-tensors", word("transforms of activations"));
    const uint32_t groups = nibl_json_get(json, config, "config_groups");
    for (uint32_t i = 0; nibl_json_each(json, groups, &i);) {
        const uint32_t weights = nibl_json_get(json, i + 1, "weights");
        const nibl_slice own = nibl_json_text(json, nibl_json_get(json, i + 1, "format"));
        uint64_t bits;
        if (own.length > 0 && !nibl_slice_is(own, out->method->name) &&
            !nibl_slice_is(own, "naive-quantized"))
            return refuse("compressed-tensors' format", own);
        if (!nibl_json_u64(json, nibl_json_get(json, weights, "num_bits"), &bits) || bits > 16) continue;
        out->bits = (uint32_t)bits;
        out->possible |= 1u << bits;
    }
    return NIBL_OK;
}

static nibl_status read_bitnet(const nibl_json *json, uint32_t config, nibl_hfq_config *out) {
    const nibl_slice linear = nibl_json_text(json, nibl_json_get(json, config, "linear_class"));
    const nibl_slice mode = nibl_json_text(json, nibl_json_get(json, config, "quantization_mode"));
    bool norm = false;
    nibl_json_bool(json, nibl_json_get(json, config, "use_rms_norm"), &norm);
    if (norm) return refuse("bitnet", word("use_rms_norm"));
    out->divides = !nibl_slice_is(linear, "autobitlinear");
    if (linear.length > 0 && out->divides && !nibl_slice_is(linear, "bitlinear"))
        return refuse("bitnet's linear_class", linear);
    if (!out->divides && mode.length > 0 && !nibl_slice_is(mode, "offline"))
        return refuse("bitnet's quantization_mode", mode);
    return NIBL_OK;
}

static nibl_status read_nothing(const nibl_json *json, uint32_t config, nibl_hfq_config *out) {
    (void)json, (void)config, (void)out;
    return NIBL_OK;
}

nibl_status nibl_hfq_read_config(const nibl_json *json, nibl_hfq_config *out) {
    static const struct {
        const char *name; /* quant_method */
        nibl_status (*read)(const nibl_json *json, uint32_t config, nibl_hfq_config *out);
    } readers[] = {
        {"awq", read_awq},       {"gptq", read_gptq},     {"compressed-tensors", read_compressed},
        {"bitnet", read_bitnet}, {"mxfp4", read_nothing},
    };
    *out = (nibl_hfq_config){0};
    const uint32_t config = either(json, NIBL_JSON_ROOT, "quantization_config", "compression_config");
    if (config == 0 || nibl_json_is(json, config, NIBL_JSON_NULL)) return NIBL_OK;
    const nibl_slice name = nibl_json_text(json, nibl_json_get(json, config, "quant_method"));
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (!nibl_slice_is(name, readers[i].name)) continue;
        out->method = find_method(name);
        return readers[i].read(json, config, out);
    }
    return refuse("method", name);
}

/* ---- Metadata ---- */

#define KEY(name) "nibl.quantization." name

void nibl_hfq_write_metadata(const nibl_hfq_config *config, nibl_gguf_builder *b) {
    if (!config->method) return;
    nibl_gguf_build_string(b, KEY("method"), word(config->method->name));
    nibl_gguf_build_u32(b, KEY("bits"), config->bits);
    nibl_gguf_build_u32(b, KEY("possible_bits"), config->possible);
    nibl_gguf_build_u32(b, KEY("group_size"), config->group);
    nibl_gguf_build_bool(b, KEY("symmetric"), config->symmetric);
    nibl_gguf_build_bool(b, KEY("divides"), config->divides);
}

void nibl_hfq_read_metadata(const nibl_gguf *gguf, nibl_hfq_config *out) {
    nibl_slice name;
    uint64_t bits = 0, possible = 0, group = 0;
    *out = (nibl_hfq_config){0};
    if (!nibl_gguf_string(gguf, KEY("method"), &name)) return;
    out->method = find_method(name);
    nibl_gguf_u64(gguf, KEY("bits"), &bits);
    nibl_gguf_u64(gguf, KEY("possible_bits"), &possible);
    nibl_gguf_u64(gguf, KEY("group_size"), &group);
    out->possible = (uint32_t)possible;
    out->bits = (uint32_t)bits;
    out->group = (uint32_t)group;
    nibl_gguf_bool(gguf, KEY("symmetric"), &out->symmetric);
    nibl_gguf_bool(gguf, KEY("divides"), &out->divides);
}

static bool ends_in(nibl_slice name, const char *tail) {
    const size_t length = strlen(tail);
    return name.length > length && memcmp(name.bytes + name.length - length, tail, length) == 0;
}

bool nibl_hfq_is_idle(const nibl_hfq_config *config, nibl_slice name) {
    static const char *const tails[] = {".input_scale",      ".input_zero_point", ".input_global_scale",
                                        ".output_scale",     ".k_scale",          ".v_scale",
                                        ".output_zero_point"};
    for (size_t i = 0; config->method && i < sizeof tails / sizeof *tails; i++)
        if (ends_in(name, tails[i])) return true;
    return false;
}

uint64_t nibl_hfq_elements(const nibl_hfq_config *config, const nibl_gguf_tensor *t) {
    const uint64_t all = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    for (size_t i = 0; config->method && i < NIBL_HFQ_PARTS && config->method->parts[i].suffix; i++) {
        const nibl_hfq_part *p = &config->method->parts[i];
        if (!ends_in(t->name, p->suffix) || (p->codes && nibl_dtype_by_id(t->type))) continue;
        const uint32_t bits = config->method->bits ? config->method->bits : config->bits;
        if (!p->codes || bits == 0 || bits > 16) return 0;
        /* words along a row, whose columns are a multiple of 32, may have room for some more */
        if (p->dims[0] == NIBL_HFQ_COL_WORDS)
            return t->dims[0] * (32 / bits) / NIBL_BLOCK * NIBL_BLOCK * t->dims[1];
        return t->bytes / bits * 8;
    }
    return all;
}

/* ---- The tensors of a matrix ---- */

static const nibl_gguf_tensor *find_part(const nibl_gguf *gguf, const char *base, const nibl_hfq_part *part,
                                         char name[96]) {
    snprintf(name, 96, "%s%s", base, part->suffix);
    return nibl_gguf_find_tensor(gguf, name);
}

/* A tensor's name without ".weight". */
static void base_of(const char *name, char base[64]) {
    static const char tail[] = ".weight";
    const size_t length = strlen(name), cut = ends_in((nibl_slice){name, length}, tail) ? sizeof tail - 1 : 0;
    snprintf(base, 64, "%.*s", (int)(length - cut), name);
}

bool nibl_hfq_has(const nibl_gguf *gguf, const nibl_hfq_config *config, const char *name) {
    char base[64], part[96];
    base_of(name, base);
    for (size_t i = 0; config->method && i < NIBL_HFQ_PARTS && config->method->parts[i].suffix; i++) {
        const nibl_gguf_tensor *t = find_part(gguf, base, &config->method->parts[i], part);
        if (t && config->method->parts[i].codes)
            return strcmp(config->method->parts[i].suffix, ".weight") != 0 || !nibl_dtype_by_id(t->type);
    }
    return false;
}

/* Where a dimension stands in a part; -1 where it does not. */
static int position(const nibl_hfq_part *part, nibl_hfq_dim dim) {
    for (int i = 0; i < 3; i++)
        if (part->dims[i] == dim) return i;
    return -1;
}

/* What a tensor has where the layout has its dimension `at`: the last one takes all slower ones. */
static uint64_t extent(const nibl_gguf_tensor *t, const nibl_hfq_part *part, int at) {
    int last = 0;
    for (int i = 0; i < 3; i++)
        if (part->dims[i] != NIBL_HFQ_ONE) last = i;
    uint64_t product = at > last ? 1 : t->dims[at];
    for (int i = last + 1; at == last && i < NIBL_GGUF_MAX_DIMS; i++) product *= t->dims[i];
    return product;
}

static uint64_t words_of(uint64_t codes, uint32_t bits) { return (codes + 32 / bits - 1) / (32 / bits); }

static uint64_t expected(const nibl_hfq *q, nibl_hfq_dim dim) {
    const uint64_t rows = q->w->rows, cols = q->w->cols;
    switch (dim) {
    case NIBL_HFQ_ONE: break;
    case NIBL_HFQ_TWO: return 2;
    case NIBL_HFQ_SIXTEEN: return 16;
    case NIBL_HFQ_ROWS: return rows;
    case NIBL_HFQ_COLS: return cols;
    case NIBL_HFQ_GROUPS: return q->groups;
    case NIBL_HFQ_ROW_WORDS: return words_of(rows, q->bits);
    case NIBL_HFQ_COL_WORDS: return words_of(cols, q->bits);
    case NIBL_HFQ_ROW_QUARTERS: return (rows + 3) / 4;
    case NIBL_HFQ_COL_PAIRS: return cols / 2;
    case NIBL_HFQ_COL_BLOCKS: return cols / NIBL_BLOCK;
    }
    return 1;
}

static bool has_word(const char *words, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = strstr(words, name); at; at = strstr(at + 1, name))
        if (at[-1] == ' ' && at[length] == ' ') return true;
    return false;
}

static bool type_fits(const nibl_hfq_part *part, uint32_t type) {
    const char *name = nibl_dtype_name(type);
    return name && (has_word(part->types, name) ||
                    (type == I8 && (has_word(part->types, "U8") || has_word(part->types, "F8_E4M3"))));
}

static uint32_t type_bytes(uint32_t type) {
    const nibl_dtype *known = nibl_dtype_by_id(type);
    const char *name = nibl_dtype_name(type);
    return known ? known->bytes : strcmp(name, "I64") == 0 ? 8 : strcmp(name, "I32") == 0 ? 4 : 1;
}

/* Of the numbers of bits that config.json names, the one that makes so many words of the columns. Without any, 4 or 8. */
static nibl_status find_bits(const char *name, uint64_t words, nibl_hfq *q) {
    uint32_t found = 0;
    const uint32_t possible = q->config.possible ? q->config.possible : 1u << 4 | 1u << 8;
    for (uint32_t bits = 2; bits <= 8; bits++) {
        if (!(possible >> bits & 1) || words_of(q->w->cols, bits) != words) continue;
        if (found)
            return nibl_fail(NIBL_E_UNSUPPORTED,
                             "tensor '%s': config.json names %u and %u bits, and either fits", name, found,
                             bits);
        found = bits;
    }
    if (found) q->bits = found;
    return NIBL_OK;
}

/* Bits per code, groups and type of scales: what the parts tell of each other. */
static nibl_status read_shapes(const nibl_gguf *gguf, const char *base, nibl_hfq *q) {
    const nibl_hfq_method *m = q->config.method;
    q->bits = m->bits ? m->bits : 4;
    for (size_t i = 0; i < NIBL_HFQ_PARTS && m->parts[i].suffix; i++) {
        const nibl_hfq_part *p = &m->parts[i];
        char name[96];
        const nibl_gguf_tensor *t = find_part(gguf, base, p, name);
        if (!t) continue;
        if (p->scales && !m->fixed && t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] == 1)
            p = &nibl_hfq_one_scale;
        const int words = position(p, NIBL_HFQ_COL_WORDS), groups = position(p, NIBL_HFQ_GROUPS);
        if (p->codes && words >= 0) NIBL_TRY(find_bits(name, extent(t, p, words), q));
        if (!p->scales) continue;
        q->scale_type = t->type;
        q->one_scale = p == &nibl_hfq_one_scale;
        const uint64_t count = groups < 0 ? 1 : extent(t, p, groups);
        if (count == 0 || count > q->w->cols)
            return nibl_fail(NIBL_E_FILE, "tensor '%s': %llu groups of %u columns are not possible", name,
                             (unsigned long long)count, q->w->cols);
        q->groups = (uint32_t)count;
    }
    return NIBL_OK;
}

static nibl_status check_groups(const char *base, nibl_hfq *q) {
    const uint32_t cols = q->w->cols, fixed = q->config.method->group;
    q->group = fixed ? fixed : q->config.group ? q->config.group : cols / q->groups;
    if (q->group > cols) q->group = cols;
    if (cols % NIBL_BLOCK != 0)
        return nibl_fail(NIBL_E_UNSUPPORTED, "'%s' has %u columns; multiples of %u are possible", base, cols,
                         NIBL_BLOCK);
    if ((cols + q->group - 1) / q->group != q->groups || (!q->config.group && cols % q->group != 0))
        return nibl_fail(NIBL_E_FILE, "'%s': %u scales a row do not fit %u columns in groups of %u", base,
                         q->groups, cols, q->group);
    if (!fixed && q->group % NIBL_BLOCK != 0)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "'%s' is quantized in groups of %u columns; multiples of %u are possible: take "
                         "the 16-bit model and quantize it on arrival",
                         base, q->group, NIBL_BLOCK);
    return NIBL_OK;
}

static nibl_status choose_scale(const char *base, nibl_hfq *q, bool zeros) {
    const char *type = nibl_dtype_name(q->scale_type);
    const nibl_hfq_method *m = q->config.method;
    const bool f16 = type && strcmp(type, "F16") == 0, bf16 = type && strcmp(type, "BF16") == 0;
    nibl_scale scale = m->scale;
    if (!m->fixed && (q->config.divides || (!f16 && !bf16)))
        scale = NIBL_SCALE_F32;
    else if (!m->fixed)
        scale = f16 ? (zeros ? NIBL_SCALE_F16_ZERO : NIBL_SCALE_F16)
                    : (zeros ? NIBL_SCALE_BF16_ZERO : NIBL_SCALE_BF16);
    if (zeros && scale == NIBL_SCALE_F32)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "'%s' has F32 scales with zero points, which is not supported: save the model in "
                         "16 bits (F16 or BF16) and quantize it again",
                         base);
    q->w->kind = (uint8_t)(q->bits > 4 ? NIBL_KIND_INT8 : m->kind);
    q->w->scale = (uint8_t)scale;
    q->w->layout = NIBL_LAYOUT_PLAIN;
    return NIBL_OK;
}

static nibl_status check_part(const nibl_hfq *q, const nibl_hfq_part *p, const nibl_gguf_tensor *t,
                              const char *name, nibl_hfq_piece *out) {
    if (!type_fits(p, t->type))
        return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%s' has type %s; %s would be possible", name,
                         nibl_dtype_name(t->type) ? nibl_dtype_name(t->type) : "unknown", p->types);
    uint64_t dims[3], rows;
    for (int i = 0; i < 3; i++) {
        dims[i] = extent(t, p, i);
        if (dims[i] != expected(q, (nibl_hfq_dim)p->dims[i]))
            return nibl_fail(
                NIBL_E_FILE,
                "tensor '%s' has shape [%llu, %llu, %llu] (fastest last), which does not fit a %s matrix of "
                "%u rows, %u columns and %u groups",
                name, (unsigned long long)(t->dims[2] * t->dims[3]), (unsigned long long)t->dims[1],
                (unsigned long long)t->dims[0], q->config.method->name, q->w->rows, q->w->cols, q->groups);
    }
    *out = (nibl_hfq_piece){.part = p, .row_bytes = dims[0] * type_bytes(t->type)};
    rows = dims[1] * dims[2];
    if (p->merged) {
        out->row_bytes *= dims[1];
        rows = dims[2];
    }
    out->rows = rows;
    if (out->row_bytes * rows != t->bytes)
        return nibl_fail(NIBL_E_FILE, "tensor '%s' has not the %llu bytes of its shape", name,
                         (unsigned long long)(out->row_bytes * rows));
    return NIBL_OK;
}

nibl_status nibl_hfq_bind(const nibl_gguf *gguf, const char *whole, nibl_hfq *q,
                          nibl_hfq_piece pieces[NIBL_HFQ_PARTS], size_t *count) {
    const nibl_hfq_method *m = q->config.method;
    char base[64];
    base_of(whole, base);
    bool zeros = false;
    *count = 0;
    NIBL_TRY(read_shapes(gguf, base, q));
    for (size_t i = 0; i < NIBL_HFQ_PARTS && m->parts[i].suffix; i++) {
        char name[96];
        const nibl_gguf_tensor *t = find_part(gguf, base, &m->parts[i], name);
        if (!t && m->parts[i].optional) continue;
        if (!t) return nibl_fail(NIBL_E_FILE, "tensor '%s' is missing", name);
        if (*count == 0) NIBL_TRY(q->groups ? check_groups(base, q) : NIBL_OK);
        const bool one = m->parts[i].scales && q->one_scale;
        NIBL_TRY(check_part(q, one ? &nibl_hfq_one_scale : &m->parts[i], t, name, &pieces[*count]));
        pieces[*count].tensor = (uint32_t)(t - nibl_gguf_tensor_at(gguf, 0));
        zeros = zeros || m->parts[i].zeros;
        ++*count;
    }
    q->missing = (uint32_t)*count;
    return choose_scale(base, q, zeros && !q->config.symmetric);
}

void nibl_hfq_free(nibl_hfq *q) {
    nibl_free(q->order);
    q->order = NULL;
}
