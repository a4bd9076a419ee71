/* Hyperparameters from metadata "<architecture>.<key>". */
#include "core/arch.h"
#include "core/maths.h"

#include <stdio.h>
#include <string.h>

typedef struct reader {
    const nibl_arch *arch;
    const nibl_gguf *gguf;
    char key[96];
} reader;

static const char *key_of(reader *r, const char *key) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch->name, key);
    return r->key;
}

/* One metadata integer: where it goes, its limits, and what it is when absent. */
typedef struct field {
    const char *key;
    uint32_t *out;
    uint32_t max;
    uint32_t absent; /* 0 = required */
} field;

static nibl_status read_field(reader *r, const field *f) {
    uint64_t value = f->absent;
    key_of(r, f->key);
    if (!nibl_gguf_u64(r->gguf, r->key, &value) && f->absent == 0)
        return nibl_fail(NIBL_E_FILE, "metadata key %s is missing or not an integer", r->key);
    if (value == 0 || value > f->max)
        return nibl_fail(NIBL_E_FILE, "metadata key %s is %llu; 1 to %u is possible", r->key,
                         (unsigned long long)value, f->max);
    *f->out = (uint32_t)value;
    return NIBL_OK;
}

/* A positive real number; *out stays where the key is absent. */
static nibl_status read_real(reader *r, const char *key, double least, double most, double *out) {
    double value;
    if (!nibl_gguf_f64(r->gguf, key_of(r, key), &value)) return NIBL_OK;
    if (!(value >= least && value <= most))
        return nibl_fail(NIBL_E_FILE, "metadata key %s is %g; %g to %g is possible", r->key, value, least,
                         most);
    *out = value;
    return NIBL_OK;
}

/* An integer of an array (or a bool as 0 and 1). */
static bool read_element(const nibl_gguf_array *array, uint32_t index, int64_t *out) {
    if (index >= array->count) return false;
    switch (array->type) {
    case NIBL_GGUF_BOOL:
    case NIBL_GGUF_U8: *out = array->data[index]; return true;
    case NIBL_GGUF_U32: *out = nibl_load_u32(array->data + 4ull * index); return true;
    case NIBL_GGUF_I32: *out = (int32_t)nibl_load_u32(array->data + 4ull * index); return true;
    default: return false;
    }
}

/* KV heads of a layer, where they differ; 0 = it has none, for it is a convolution. */
static bool kv_heads_of(reader *r, uint32_t layer, int64_t *out) {
    nibl_gguf_array array;
    return nibl_gguf_array_of(r->gguf, key_of(r, "attention.head_count_kv"), &array) &&
           read_element(&array, layer, out);
}

static nibl_status read_kv_heads(reader *r, nibl_hyper *h) {
    nibl_gguf_array array;
    if (!(r->arch->has & NIBL_BIT(CONV)) ||
        !nibl_gguf_array_of(r->gguf, key_of(r, "attention.head_count_kv"), &array)) {
        const field one = {"attention.head_count_kv", &h->kv_heads, h->heads, h->heads};
        return read_field(r, &one);
    }
    for (uint32_t layer = 0; layer < h->layers; layer++) {
        int64_t heads;
        if (!read_element(&array, layer, &heads))
            return nibl_fail(NIBL_E_FILE, "metadata key %s has no integer for layer %u", r->key, layer);
        h->conv_layers += heads == 0;
        if (heads == 0) continue;
        if (heads < 0 || heads > h->heads || (h->kv_heads > 0 && heads != h->kv_heads))
            return nibl_fail(NIBL_E_UNSUPPORTED, "metadata key %s: %lld KV heads in layer %u, %u in others",
                             r->key, (long long)heads, layer, h->kv_heads);
        h->kv_heads = (uint32_t)heads;
    }
    return h->kv_heads ? NIBL_OK : nibl_fail(NIBL_E_UNSUPPORTED, "metadata key %s: no layer attends", r->key);
}

static nibl_status read_sizes(reader *r, nibl_hyper *h) {
    const field sizes[] = {
        {"context_length", &h->context_length, 1u << 24, 0},
        {"embedding_length", &h->width, 1u << 16, 0},
        {"block_count", &h->layers, 1024, 0},
        {"attention.head_count", &h->heads, 1024, 0},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) NIBL_TRY(read_field(r, &sizes[i]));
    NIBL_TRY(read_kv_heads(r, h));
    const field head = {"attention.key_length", &h->head_width, NIBL_MAX_HEAD_WIDTH, h->width / h->heads};
    NIBL_TRY(read_field(r, &head));
    const field rope = {"rope.dimension_count", &h->rope_width, h->head_width, h->head_width};
    NIBL_TRY(read_field(r, &rope));
    uint64_t value_width = h->head_width;
    if (nibl_gguf_u64(r->gguf, key_of(r, "attention.value_length"), &value_width) &&
        value_width != h->head_width)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "metadata key %s is %llu, but keys have %u values: not supported", r->key,
                         (unsigned long long)value_width, h->head_width);
    if (h->heads % h->kv_heads != 0)
        return nibl_fail(NIBL_E_FILE, "%u heads cannot be shared by %u KV heads", h->heads, h->kv_heads);
    if (h->rope_width % 2 != 0)
        return nibl_fail(NIBL_E_FILE, "%s.rope.dimension_count %u is odd", r->arch->name, h->rope_width);

    const bool experts = r->arch->has & NIBL_BIT(ROUTER);
    const field ffn = {"feed_forward_length", &h->ffn_width, 1u << 20, 0};
    const field expert_fields[] = {
        {"expert_count", &h->experts, 1024, 0},
        {"expert_used_count", &h->experts_used, 64, 0},
    };
    uint64_t unused;
    if (!experts && nibl_gguf_u64(r->gguf, key_of(r, "expert_count"), &unused) && unused > 0)
        return nibl_fail(NIBL_E_UNSUPPORTED, "architecture %s with experts is not supported", r->arch->name);
    for (size_t i = 0; experts && i < 2; i++) NIBL_TRY(read_field(r, &expert_fields[i]));
    if (h->experts_used > h->experts)
        return nibl_fail(NIBL_E_FILE, "%u of %u experts are to be used", h->experts_used, h->experts);
    if (!experts || !nibl_gguf_u64(r->gguf, key_of(r, "expert_feed_forward_length"), &unused))
        return read_field(r, &ffn);
    const field expert_ffn = {"expert_feed_forward_length", &h->ffn_width, 1u << 20, 0};
    return read_field(r, &expert_ffn);
}

static nibl_status read_scaling(reader *r, nibl_hyper *h) {
    static const char *const names[] = {[NIBL_ROPE_PLAIN] = "none",
                                        [NIBL_ROPE_LINEAR] = "linear",
                                        [NIBL_ROPE_YARN] = "yarn",
                                        [NIBL_ROPE_LONG] = "longrope"};
    nibl_rope_form *f = &h->rope;
    nibl_slice name;
    if (!nibl_gguf_string(r->gguf, key_of(r, "rope.scaling.type"), &name)) return NIBL_OK;
    enum { TYPES = sizeof names / sizeof *names };
    size_t type = 0;
    while (type < TYPES && !nibl_slice_is(name, names[type])) type++;
    if (type == TYPES)
        return nibl_fail(NIBL_E_UNSUPPORTED, "RoPE scaling '%.*s' (metadata key %s) is not supported",
                         NIBL_SHOW(name), r->key);
    f->scaling = (nibl_rope_scaling)type;
    if (f->scaling == NIBL_ROPE_PLAIN) return NIBL_OK;
    const bool yarn = f->scaling == NIBL_ROPE_YARN;
    if (yarn && !(f->base > 1))
        return nibl_fail(NIBL_E_FILE, "%s.rope.freq_base is %g, which YaRN cannot scale", r->arch->name,
                         f->base);
    f->factor = 0;
    f->original_length = h->context_length;
    f->low = 1;
    f->high = 32;
    NIBL_TRY(read_real(r, "rope.scaling.factor", 1, 1e6, &f->factor));
    if (f->scaling == NIBL_ROPE_LONG) f->factor = 1;
    if (!(f->factor > 0)) return nibl_fail(NIBL_E_FILE, "metadata key %s is missing", r->key);
    NIBL_TRY(read_real(r, "rope.scaling.original_context_length", 1, 1e9, &f->original_length));
    NIBL_TRY(read_real(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &f->low));
    NIBL_TRY(read_real(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &f->high));
    if (yarn && f->factor > 1) f->magnitude = 0.1 * nibl_log(f->factor) + 1;
    double more = 1;
    NIBL_TRY(read_real(r, "rope.scaling.yarn_attn_factor", 1e-3, 1e3, &f->magnitude));
    NIBL_TRY(read_real(r, "rope.scaling.attn_factor", 1e-3, 1e3, &more));
    f->magnitude *= more;
    return NIBL_OK;
}

static nibl_status read_rope(reader *r, nibl_hyper *h) {
    h->rope = (nibl_rope_form){.base = 10000, .factor = 1, .magnitude = 1, .exact_ramp = r->arch->exact_ramp};
    NIBL_TRY(read_real(r, "rope.freq_base", 1, 1e12, &h->rope.base));
    NIBL_TRY(read_scaling(r, h));
    h->local_rope = h->rope;
    if (!(r->arch->local_rope_base > 0)) return NIBL_OK;
    h->local_rope = (nibl_rope_form){.base = r->arch->local_rope_base, .factor = 1, .magnitude = 1};
    return read_real(r, "rope.freq_base_swa", 1, 1e12, &h->local_rope.base);
}

static nibl_status read_factors(reader *r, nibl_hyper *h) {
    const bool wide = r->arch->wide_scale_layers == h->layers && h->layers > 0;
    const double scaled_width = wide ? (double)h->width / h->heads : (double)h->head_width;
    const struct {
        const char *key;
        float *out;
        double absent;
    } factors[] = {
        {"attention.scale", &h->attention_scale, 1.0 / __builtin_sqrt(scaled_width)},
        {"attn_logit_softcapping", &h->attention_cap, 0},
        {"final_logit_softcapping", &h->logit_cap, 0},
        {"embedding_scale", &h->embedding_scale,
         r->arch->scaled_embedding ? __builtin_sqrt((double)h->width) : 1},
        {"residual_scale", &h->residual_scale, 1},
        {"logit_scale", &h->logit_scale, 1},
    };
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        double value = factors[i].absent;
        NIBL_TRY(read_real(r, factors[i].key, 1e-6, 1e6, &value));
        *factors[i].out = (float)value;
    }
    double epsilon = 1e-5;
    const char *key =
        r->arch->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (!nibl_gguf_f64(r->gguf, key_of(r, key), &epsilon))
        return nibl_fail(NIBL_E_FILE, "metadata key %s is missing", r->key);
    if (!(epsilon > 0 && epsilon < 1))
        return nibl_fail(NIBL_E_FILE, "metadata key %s is %g", r->key, epsilon);
    h->norm_epsilon = (float)epsilon;
    h->expert_norm = true;
    nibl_gguf_bool(r->gguf, key_of(r, "expert_weights_norm"), &h->expert_norm);
    return NIBL_OK;
}

nibl_status nibl_arch_hyper(const nibl_arch *arch, const nibl_gguf *gguf, nibl_hyper *out) {
    reader r = {arch, gguf, ""};
    nibl_hyper h = {0};
    NIBL_TRY(read_sizes(&r, &h));
    NIBL_TRY(read_rope(&r, &h));
    NIBL_TRY(read_factors(&r, &h));
    uint64_t window = 0, conv = 0;
    if (nibl_gguf_u64(gguf, key_of(&r, "attention.sliding_window"), &window) && window < h.context_length)
        h.window = (uint32_t)window;
    if (arch->has & NIBL_BIT(CONV)) {
        if (!nibl_gguf_u64(gguf, key_of(&r, "shortconv.l_cache"), &conv) || conv < 1 || conv > 16)
            return nibl_fail(NIBL_E_FILE, "metadata key %s is missing or not within 1 to 16", r.key);
        h.conv_length = (uint32_t)conv;
    }
    *out = h;
    return NIBL_OK;
}

/* Whether a layer has a trait that an array says of each, or a period: of so many layers all but the last have it. */
static nibl_status layer_flag(reader *r, const char *key, uint32_t layer, uint32_t period, bool *out) {
    nibl_gguf_array array;
    int64_t flag;
    uint64_t own_period;
    if (nibl_gguf_array_of(r->gguf, key, &array)) {
        if (!read_element(&array, layer, &flag))
            return nibl_fail(NIBL_E_FILE, "metadata key %s says nothing of layer %u", key, layer);
        *out = flag != 0;
        return NIBL_OK;
    }
    if (nibl_gguf_u64(r->gguf, key, &own_period)) period = own_period < 1024 ? (uint32_t)own_period : 1024;
    *out = period == 0 || layer % period != period - 1;
    return NIBL_OK;
}

nibl_status nibl_arch_layer(const nibl_arch *arch, const nibl_gguf *gguf, const nibl_hyper *h, uint32_t layer,
                            nibl_layer_form *out) {
    reader r = {arch, gguf, ""};
    bool windowed = false;
    int64_t kv_heads;
    NIBL_TRY(layer_flag(&r, key_of(&r, "attention.sliding_window_pattern"), layer, arch->window_period,
                        &windowed));
    NIBL_TRY(layer_flag(&r, NIBL_KEY_ROPE_LAYERS, layer, arch->rope_period, &out->rope));
    out->window = windowed ? h->window : 0;
    out->conv = (arch->has & NIBL_BIT(CONV)) && kv_heads_of(&r, layer, &kv_heads) && kv_heads == 0;
    return NIBL_OK;
}

/* ---- RoPE ---- */

static const double tau = 6.28318530717958647692;

/* The pair whose wave turns so often within the original length. */
static double pair_of(const nibl_rope_form *f, double turns, uint32_t rope_width) {
    return rope_width * nibl_log(f->original_length / (turns * tau)) / (2 * nibl_log(f->base));
}

static double yarn(const nibl_rope_form *f, double frequency, uint32_t pair, uint32_t rope_width) {
    double first = pair_of(f, f->high, rope_width), last = pair_of(f, f->low, rope_width);
    if (!f->exact_ramp) {
        first = __builtin_floor(first);
        last = __builtin_ceil(last);
    }
    if (first < 0) first = 0;
    if (last > rope_width - 1) last = rope_width - 1;
    if (!(last > first)) last = first + 0.001;
    double ramp = (pair - first) / (last - first);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return frequency / f->factor * ramp + frequency * (1 - ramp);
}

void nibl_arch_frequencies(const nibl_rope_form *f, uint32_t rope_width, const float *factors, double *out) {
    for (uint32_t i = 0; i < rope_width / 2; i++) {
        const double frequency = nibl_pow(f->base, -2.0 * (double)i / (double)rope_width);
        out[i] = f->scaling == NIBL_ROPE_YARN     ? yarn(f, frequency, i, rope_width)
                 : f->scaling == NIBL_ROPE_LINEAR ? frequency / f->factor
                                                  : frequency;
        if (factors) out[i] /= (double)factors[i];
    }
}
