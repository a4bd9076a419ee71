#include "core/hf_config.h"

#include "core/hf_family.h"
#include "core/maths.h"

#include <stdio.h>
#include <string.h>

static const char name[] = "config.json";

typedef struct writer {
    const nibl_json *config;
    const nibl_arch *arch;
    nibl_gguf_builder *b;
    char key[96];
} writer;

static const char *key_of(writer *w, const char *key) {
    snprintf(w->key, sizeof w->key, "%s.%s", w->arch->name, key);
    return w->key;
}

uint32_t nibl_hf_setting(const nibl_json *config, const char *key) {
    const uint32_t own = nibl_json_get(config, NIBL_JSON_ROOT, "text_config");
    uint32_t node = own ? nibl_json_get(config, own, key) : 0;
    if (node == 0 || nibl_json_is(config, node, NIBL_JSON_NULL))
        node = nibl_json_get(config, NIBL_JSON_ROOT, key);
    return nibl_json_is(config, node, NIBL_JSON_NULL) ? 0 : node;
}

static uint32_t top(const nibl_json *config, const char *key) { return nibl_hf_setting(config, key); }

static bool is_on(const nibl_json *config, const char *key, bool absent) {
    nibl_json_bool(config, top(config, key), &absent);
    return absent;
}

/* What goes to metadata "<architecture>.<key>" as it is, under its names. */
typedef struct setting {
    const char *key, *hf[3];
    bool real, required;
} setting;

static const setting settings[] = {
    {"context_length", {"max_position_embeddings", "n_positions"}, false, true},
    {"embedding_length", {"hidden_size", "n_embd"}, false, true},
    {"block_count", {"num_hidden_layers", "n_layer"}, false, true},
    {"attention.head_count", {"num_attention_heads", "n_head"}, false, true},
    {"attention.key_length", {"head_dim"}, false, false},
    {"attention.value_length", {"head_dim"}, false, false},
    {"expert_count", {"num_experts", "num_local_experts"}, false, false},
    {"expert_used_count", {"num_experts_per_tok"}, false, false},
    {"expert_feed_forward_length", {"moe_intermediate_size"}, false, false},
    {"shortconv.l_cache", {"conv_L_cache"}, false, false},
    {"attention.layer_norm_rms_epsilon", {"rms_norm_eps", "norm_eps"}, true, false},
    {"attention.layer_norm_epsilon", {"layer_norm_epsilon"}, true, false},
    {"attn_logit_softcapping", {"attn_logit_softcapping"}, true, false},
    {"final_logit_softcapping", {"final_logit_softcapping"}, true, false},
    {"attention.scale", {"attention_multiplier"}, true, false},
    {"embedding_scale", {"embedding_multiplier"}, true, false},
    {"residual_scale", {"residual_multiplier"}, true, false},
    {"logit_scale", {"logits_scaling"}, true, false},
};

/* What `transformers` takes where the key is absent, as published files of these architectures have it. */
static const struct {
    const char *arch, *hf;
    double value;
} defaults[] = {
    {"gemma3", "num_attention_heads", 8}, {"gemma3", "num_key_value_heads", 4},
    {"gemma3", "head_dim", 256},          {"gemma3", "max_position_embeddings", 131072},
    {"gemma3", "rms_norm_eps", 1e-6},     {"gemma3", "rope_theta", 1e6},
    {"gemma3", "sliding_window", 4096},
};

/* 0 = there is none */
static double default_of(const nibl_arch *arch, const char *key) {
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (strcmp(defaults[i].arch, arch->name) == 0 && strcmp(defaults[i].hf, key) == 0)
            return defaults[i].value;
    return 0;
}

static nibl_status write_setting(writer *w, const setting *s) {
    uint32_t node = 0;
    const char *hf = s->hf[0];
    for (size_t i = 0; node == 0 && i < 3 && s->hf[i]; i++)
        if ((node = top(w->config, s->hf[i]))) hf = s->hf[i];
    double real = default_of(w->arch, hf);
    uint64_t number = (uint64_t)real;
    if (node == 0 && !s->required && !(real > 0)) return NIBL_OK;
    const bool is_number = s->real ? nibl_json_f64(w->config, node, &real)
                                   : nibl_json_u64(w->config, node, &number) && number <= UINT32_MAX;
    if (!is_number && !(node == 0 && real > 0))
        return nibl_fail(NIBL_E_FILE, "%s: %s is missing or not a possible number", name, hf);
    if (s->real)
        nibl_gguf_build_f64(w->b, key_of(w, s->key), real);
    else
        nibl_gguf_build_u32(w->b, key_of(w, s->key), (uint32_t)number);
    return NIBL_OK;
}

/* A number at the top, or `absent`. */
static double number_of(const nibl_json *config, const char *key, double absent) {
    nibl_json_f64(config, top(config, key), &absent);
    return absent;
}

/* The width between the halves of a feed-forward block. */
static nibl_status write_ffn_width(writer *w) {
    const nibl_json *c = w->config;
    double width = number_of(c, "intermediate_size", number_of(c, "n_inner", 0));
    if (width < 1 && w->arch->transposed) width = 4 * number_of(c, "n_embd", 0);
    if ((w->arch->has & NIBL_BIT(CONV)) && is_on(c, "block_auto_adjust_ff_dim", true)) {
        /* two thirds, for there are three matrices in place of two, and a multiple of a round number */
        const double multiple = number_of(c, "block_multiple_of", 256);
        width = __builtin_floor(number_of(c, "block_ffn_dim_multiplier", 1) * __builtin_floor(2 * width / 3));
        if (multiple >= 1) width = multiple * __builtin_floor((width + multiple - 1) / multiple);
    }
    if (!(width >= 1 && width <= UINT32_MAX))
        return nibl_fail(NIBL_E_FILE, "%s: intermediate_size is missing or not a possible number", name);
    nibl_gguf_build_u32(w->b, key_of(w, "feed_forward_length"), (uint32_t)width);
    if ((w->arch->has & NIBL_BIT(ROUTER)) && top(c, "moe_intermediate_size") == 0)
        nibl_gguf_build_u32(w->b, key_of(w, "expert_feed_forward_length"), (uint32_t)width);
    return NIBL_OK;
}

/* ---- Layers that differ ---- */

static void write_flags(writer *w, const char *key, uint32_t array, const char *off, uint32_t on) {
    nibl_gguf_build_array(w->b, key, NIBL_GGUF_I32);
    for (uint32_t i = 0; nibl_json_each(w->config, array, &i);) {
        uint64_t flag = 1;
        nibl_json_u64(w->config, i, &flag);
        const bool is_off = off ? nibl_json_equals(w->config, i, off) : flag == 0;
        nibl_gguf_add_i32(w->b, is_off ? 0 : (int32_t)on);
    }
}

static nibl_status write_layers(writer *w) {
    const nibl_json *c = w->config;
    uint64_t kv_heads = (uint64_t)default_of(w->arch, "num_key_value_heads"),
             window = (uint64_t)default_of(w->arch, "sliding_window");
    const uint32_t kv = top(c, "num_key_value_heads"), types = top(c, "layer_types");
    if (kv && (!nibl_json_u64(c, kv, &kv_heads) || kv_heads > UINT32_MAX))
        return nibl_fail(NIBL_E_FILE, "%s: num_key_value_heads is not a possible number", name);
    for (uint32_t i = 0; nibl_json_each(c, types, &i);)
        if (!nibl_json_equals(c, i, "full_attention") && !nibl_json_equals(c, i, "sliding_attention") &&
            !((w->arch->has & NIBL_BIT(CONV)) && nibl_json_equals(c, i, "conv")))
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a layer of type '%.*s' is not supported", name,
                             NIBL_SHOW(nibl_json_text(c, i)));
    if (w->arch->has & NIBL_BIT(CONV)) {
        if (types == 0) return nibl_fail(NIBL_E_FILE, "%s: layer_types is missing", name);
        write_flags(w, key_of(w, "attention.head_count_kv"), types, "conv", (uint32_t)kv_heads);
    } else if (kv_heads > 0 || kv) {
        nibl_gguf_build_u32(w->b, key_of(w, "attention.head_count_kv"), (uint32_t)kv_heads);
    }
    const uint32_t sliding = top(c, "sliding_window");
    if (sliding && !nibl_json_u64(c, sliding, &window))
        return nibl_fail(NIBL_E_FILE, "%s: sliding_window is not a possible number", name);
    const uint32_t first = top(c, "max_window_layers"); /* of Qwen: how many layers have none */
    if (window > 0 && is_on(c, "use_sliding_window", first == 0)) {
        const char *pattern = "attention.sliding_window_pattern";
        nibl_gguf_build_u32(w->b, key_of(w, "attention.sliding_window"),
                            window < UINT32_MAX ? (uint32_t)window : UINT32_MAX);
        if (types)
            write_flags(w, key_of(w, pattern), types, "full_attention", 1);
        else if (first)
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: max_window_layers without layer_types is not supported",
                             name);
    }
    const uint32_t rope = top(c, "no_rope_layers"); /* which have it, whatever the name says */
    if (rope) write_flags(w, NIBL_KEY_ROPE_LAYERS, rope, NULL, 1);
    return NIBL_OK;
}

/* ---- RoPE ---- */

static const struct {
    const char *hf, *key;
} scaling_settings[] = {
    {"factor", "rope.scaling.factor"},
    {"beta_slow", "rope.scaling.yarn_beta_slow"},
    {"beta_fast", "rope.scaling.yarn_beta_fast"},
    {"attention_factor", "rope.scaling.yarn_attn_factor"},
};

static nibl_status write_original(writer *w, double length) {
    if (!(length > 1 && length <= 1e9))
        return nibl_fail(NIBL_E_FILE, "%s: original_max_position_embeddings is not a possible number", name);
    nibl_gguf_build_u32(w->b, key_of(w, "rope.scaling.original_context_length"), (uint32_t)length);
    return NIBL_OK;
}

/* Llama 3's, by wavelength: GGUF has what divides each frequency. */
static nibl_status write_llama3(writer *w, uint32_t scaling, double base, double width) {
    static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor",
                                       "original_max_position_embeddings"};
    static const double tau = 6.28318530717958647692;
    double x[4] = {0, 1, 4, number_of(w->config, "max_position_embeddings", 0)};
    for (size_t i = 0; i < 4; i++) {
        const uint32_t node = nibl_json_get(w->config, scaling, keys[i]);
        if ((node && !nibl_json_f64(w->config, node, &x[i])) || !(x[i] > 0 && x[i] <= 1e9))
            return nibl_fail(NIBL_E_FILE, "%s: %s is not a possible number", name, keys[i]);
    }
    const double factor = x[0], low = x[1], high = x[2], original = x[3];
    if (!(factor >= 1) || !(low < high))
        return nibl_fail(NIBL_E_FILE, "%s: %s", name,
                         factor >= 1 ? "low_freq_factor is not below high_freq_factor"
                                     : "the factor of RoPE scaling is less than 1");
    if (!(base >= 1 && width >= 2 && width <= (double)NIBL_MAX_HEAD_WIDTH))
        return nibl_fail(NIBL_E_FILE, "%s: rope_theta or head_dim is not a possible number", name);
    nibl_gguf_build_array(w->b, NIBL_KEY_ROPE_FACTORS, NIBL_GGUF_F32);
    for (uint32_t i = 0; i < (uint32_t)width / 2; i++) {
        const double turns = original * nibl_pow(base, -2.0 * i / (uint32_t)width) / tau,
                     smooth = turns < low    ? 0
                              : turns > high ? 1
                                             : (turns - low) / (high - low);
        nibl_gguf_add_f32(w->b, (float)(1 / ((1 - smooth) / factor + smooth)));
    }
    return NIBL_OK;
}

/* Phi 3's: its factors are lists, one for contexts that are longer than the original. */
static nibl_status write_longrope(writer *w, uint32_t scaling) {
    const nibl_json *c = w->config;
    static const struct {
        const char *hf, *key;
    } lists[] = {{"short_factor", NIBL_KEY_ROPE_SHORT}, {"long_factor", NIBL_KEY_ROPE_LONG}};
    for (size_t k = 0; k < 2; k++) {
        nibl_gguf_build_array(w->b, lists[k].key, NIBL_GGUF_F32);
        for (uint32_t i = 0; nibl_json_each(c, nibl_json_get(c, scaling, lists[k].hf), &i);) {
            double factor = 0; /* what is no number is told when it is read */
            nibl_json_f64(c, i, &factor);
            nibl_gguf_add_f32(w->b, factor <= 1e6 ? (float)factor : 0.0f);
        }
    }
    double most = number_of(c, "max_position_embeddings", 0), original = most, factor = 0;
    nibl_json_f64(c, nibl_json_get(c, scaling, "original_max_position_embeddings"), &original);
    original = number_of(c, "original_max_position_embeddings", original);
    NIBL_TRY(write_original(w, original));
    if (!(most >= 1))
        return nibl_fail(NIBL_E_FILE, "%s: max_position_embeddings is not a possible number", name);
    const double longer = most > original ? nibl_log(most / original) / nibl_log(original) : 0;
    if (!nibl_json_f64(c, nibl_json_get(c, scaling, "attention_factor"), &factor))
        factor = __builtin_sqrt(1 + longer);
    nibl_gguf_build_f64(w->b, key_of(w, "rope.scaling.attn_factor"), (double)(float)factor);
    return NIBL_OK;
}

static nibl_status write_scaling(writer *w, uint32_t scaling, double base, double width) {
    const nibl_json *c = w->config;
    uint32_t type = nibl_json_get(c, scaling, "rope_type");
    if (type == 0) type = nibl_json_get(c, scaling, "type");
    if (type == 0 && (scaling == 0 || nibl_json_is(c, scaling, NIBL_JSON_OBJECT))) return NIBL_OK;
    if (nibl_json_equals(c, type, "default")) return NIBL_OK;
    if (nibl_json_equals(c, type, "llama3")) return write_llama3(w, scaling, base, width);
    const bool known = nibl_json_equals(c, type, "linear") || nibl_json_equals(c, type, "yarn");
    const bool is_long = nibl_json_equals(c, type, "longrope");
    if (!(known || is_long) || nibl_json_get(c, scaling, "mscale_all_dim") ||
        nibl_json_get(c, scaling, "short_mscale"))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported", name,
                         NIBL_SHOW(nibl_json_text(c, type)));
    nibl_gguf_build_string(w->b, key_of(w, "rope.scaling.type"), nibl_json_text(c, type));
    if (is_long) return write_longrope(w, scaling);
    double original = 0;
    const uint32_t length = nibl_json_get(c, scaling, "original_max_position_embeddings");
    if (length && !nibl_json_is(c, length, NIBL_JSON_NULL)) {
        nibl_json_f64(c, length, &original);
        NIBL_TRY(write_original(w, original));
    }
    for (size_t i = 0; i < sizeof scaling_settings / sizeof *scaling_settings; i++) {
        const uint32_t node = nibl_json_get(c, scaling, scaling_settings[i].hf);
        double value;
        if (node == 0 || nibl_json_is(c, node, NIBL_JSON_NULL)) continue;
        if (!nibl_json_f64(c, node, &value))
            return nibl_fail(NIBL_E_FILE, "%s: %s is not a number", name, scaling_settings[i].hf);
        nibl_gguf_build_f64(w->b, key_of(w, scaling_settings[i].key), value);
    }
    return NIBL_OK;
}

/* *base is 0 where there is none. */
static nibl_status write_base(writer *w, uint32_t node, double *base, const char *key) {
    if (node && !nibl_json_f64(w->config, node, base))
        return nibl_fail(NIBL_E_FILE, "%s: rope_theta is not a number", name);
    if (node || *base > 0) nibl_gguf_build_f64(w->b, key_of(w, key), *base);
    return NIBL_OK;
}

/* rope_theta and rope_scaling stand at the top or, in newer files, together in rope_parameters, for each type of layer if
 * these differ. */
static nibl_status write_rope(writer *w) {
    const nibl_json *c = w->config;
    uint32_t parameters = top(c, "rope_parameters"), local = top(c, "rope_local_base_freq");
    const uint32_t sliding = nibl_json_get(c, parameters, "sliding_attention");
    const uint32_t full = nibl_json_get(c, parameters, "full_attention");
    if (sliding) local = nibl_json_get(c, sliding, "rope_theta");
    if (full) parameters = full;
    uint32_t theta = nibl_json_get(c, parameters, "rope_theta");
    if (theta == 0) theta = top(c, "rope_theta");
    double base = default_of(w->arch, "rope_theta"), local_base = 0;
    NIBL_TRY(write_base(w, theta, &base, "rope.freq_base"));
    NIBL_TRY(write_base(w, local, &local_base, "rope.freq_base_swa"));

    double share = number_of(c, "partial_rotary_factor", 1);
    nibl_json_f64(c, nibl_json_get(c, parameters, "partial_rotary_factor"), &share);
    const double heads = number_of(c, "num_attention_heads", 1);
    const double head = number_of(c, "head_dim", __builtin_floor(number_of(c, "hidden_size", 0) / heads));
    const bool part = share < 1 && share > 0 && head <= UINT32_MAX;
    if (part) nibl_gguf_build_u32(w->b, key_of(w, "rope.dimension_count"), (uint32_t)(share * head));
    return write_scaling(w, parameters ? parameters : top(c, "rope_scaling"), base > 0 ? base : 10000,
                         part ? share * head : head);
}

/* ---- What would change the computation and has no place in metadata ---- */

static const struct {
    const char *hf;
    nibl_activation function;
} activations[] = {{"silu", NIBL_ACTIVATE_SILU},
                   {"silu", NIBL_ACTIVATE_CLAMPED},
                   {"gelu_pytorch_tanh", NIBL_ACTIVATE_GELU},
                   {"gelu_new", NIBL_ACTIVATE_GELU},
                   {"relu2", NIBL_ACTIVATE_RELU2}};

static nibl_status check_activation(const writer *w) {
    static const char *const keys[] = {"hidden_activation", "hidden_act", "activation_function"};
    uint32_t act = 0;
    size_t key = 0;
    for (size_t i = 0; act == 0 && i < 3; i++)
        if ((act = top(w->config, keys[i]))) key = i;
    if (act == 0) return NIBL_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (activations[i].function == w->arch->activation &&
            nibl_json_equals(w->config, act, activations[i].hf))
            return NIBL_OK;
    return nibl_fail(NIBL_E_UNSUPPORTED, "%s: %s '%.*s' is not supported", name, keys[key],
                     NIBL_SHOW(nibl_json_text(w->config, act)));
}

static nibl_status check_traits(const writer *w) {
    const nibl_json *c = w->config;
    static const struct {
        const char *key;
        double usual;
    } numbers[] = {{"decoder_sparse_step", 1}, {"pretraining_tp", 1}};
    static const char *const flags[] = {"scale_attn_by_inverse_layer_idx", "use_bidirectional_attention",
                                        "conv_bias"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (is_on(c, flags[i], false))
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: %s is not supported", name, flags[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const double x = number_of(c, numbers[i].key, numbers[i].usual);
        if (x < numbers[i].usual || x > numbers[i].usual)
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: %s %g is not supported", name, numbers[i].key, x);
    }
    uint32_t dense = 0;
    if (nibl_json_each(c, top(c, "mlp_only_layers"), &dense))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: mlp_only_layers is not supported", name);
    return check_activation(w);
}

/* ---- All together ---- */

nibl_status nibl_hf_write_config(const nibl_json *config, const nibl_arch **arch, nibl_gguf_builder *b) {
    const nibl_slice type = nibl_json_text(config, top(config, "model_type"));
    *arch = nibl_arch_of_hf(type);
    if (!*arch) {
        char known[256];
        nibl_arch_list(known, sizeof known, true);
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: model_type '%.*s' is not supported; this build knows: %s",
                         name, NIBL_SHOW(type), known);
    }
    writer w = {config, *arch, b, ""};
    NIBL_TRY(check_traits(&w));
    nibl_gguf_build_string(b, "general.architecture", (nibl_slice){(*arch)->name, strlen((*arch)->name)});
    nibl_gguf_build_string(b, "nibl.format", (nibl_slice){"safetensors", 11});
    nibl_gguf_build_u32(b, "general.alignment", 1);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) NIBL_TRY(write_setting(&w, &settings[i]));
    NIBL_TRY(write_ffn_width(&w));
    NIBL_TRY(write_layers(&w));
    nibl_gguf_build_bool(b, NIBL_KEY_ROPE_HALVES,
                         (*arch)->rope == NIBL_ROPE_INTERLEAVED && !(*arch)->transposed);
    nibl_gguf_build_bool(b, NIBL_KEY_NORMS_FROM_ZERO, (*arch)->norms_from_zero);
    nibl_gguf_build_bool(b, NIBL_KEY_TRANSPOSED, (*arch)->transposed);
    nibl_gguf_build_bool(b, NIBL_KEY_TRANSPOSED_EXPERTS, (*arch)->transposed_experts);
    if ((*arch)->has & NIBL_BIT(ROUTER))
        nibl_gguf_build_bool(b, key_of(&w, "expert_weights_norm"),
                             is_on(config, "norm_topk_prob", ((*arch)->has & NIBL_BIT(ROUTER_BIAS)) != 0));
    const double scalar = number_of(config, "query_pre_attn_scalar", 0);
    if (scalar > 0) nibl_gguf_build_f64(b, key_of(&w, "attention.scale"), 1 / __builtin_sqrt(scalar));
    return write_rope(&w);
}

bool nibl_hf_is_tied(const nibl_json *config, const nibl_arch *arch) {
    return is_on(config, "tie_word_embeddings", arch->tied);
}

uint32_t nibl_hf_experts(const nibl_json *config, const nibl_arch *arch) {
    const double experts = number_of(config, "num_experts", number_of(config, "num_local_experts", 0));
    const bool has = arch->has & NIBL_BIT(ROUTER);
    return has && experts >= 1 && experts <= 1024 ? (uint32_t)experts : 0; /* else hyper.c tells */
}
