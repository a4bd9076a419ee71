#include "core/arch.h"

#include <stdio.h>
#include <string.h>

static const nibl_arch archs[] = {
    {"llama",
     NIBL_ROPE_INTERLEAVED,
     {"token_embd.weight", "blk.%u.attn_norm.weight", "blk.%u.attn_q.weight", "blk.%u.attn_k.weight",
      "blk.%u.attn_v.weight", "blk.%u.attn_output.weight", "blk.%u.ffn_norm.weight", "blk.%u.ffn_gate.weight",
      "blk.%u.ffn_up.weight", "blk.%u.ffn_down.weight", "output_norm.weight", "output.weight"},
     "llama",
     {"model.embed_tokens.weight", "model.layers.%u.input_layernorm.weight",
      "model.layers.%u.self_attn.q_proj.weight", "model.layers.%u.self_attn.k_proj.weight",
      "model.layers.%u.self_attn.v_proj.weight", "model.layers.%u.self_attn.o_proj.weight",
      "model.layers.%u.post_attention_layernorm.weight", "model.layers.%u.mlp.gate_proj.weight",
      "model.layers.%u.mlp.up_proj.weight", "model.layers.%u.mlp.down_proj.weight", "model.norm.weight",
      "lm_head.weight"}},
};

nibl_status nibl_arch_of(const nibl_gguf *gguf, const nibl_arch **out) {
    nibl_slice name;
    if (!nibl_gguf_string(gguf, "general.architecture", &name))
        return nibl_fail(NIBL_E_FILE, "metadata key general.architecture is missing: not a model file");
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strlen(archs[i].name) != name.length || memcmp(archs[i].name, name.bytes, name.length) != 0)
            continue;
        *out = &archs[i];
        return NIBL_OK;
    }
    return nibl_fail(NIBL_E_UNSUPPORTED, "architecture '%.*s' is not supported; this build knows: llama",
                     (int)(name.length < 64 ? name.length : 64), name.bytes);
}

const nibl_arch *nibl_arch_of_hf(const char *model_type, size_t length) {
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        if (strlen(archs[i].hf_type) == length && memcmp(archs[i].hf_type, model_type, length) == 0)
            return &archs[i];
    return NULL;
}

/* One metadata integer: where it goes, its limits, and what it is when absent. */
typedef struct field {
    const char *key;
    uint32_t *out;
    uint32_t max;
    uint32_t absent; /* 0 = required */
} field;

static nibl_status read_field(const nibl_gguf *gguf, const char *arch, const field *f) {
    char key[96];
    uint64_t value = f->absent;
    snprintf(key, sizeof key, "%s.%s", arch, f->key);
    if (!nibl_gguf_u64(gguf, key, &value) && f->absent == 0)
        return nibl_fail(NIBL_E_FILE, "metadata key %s is missing or not an integer", key);
    if (value == 0 || value > f->max)
        return nibl_fail(NIBL_E_FILE, "metadata key %s is %llu; 1 to %u is possible", key,
                         (unsigned long long)value, f->max);
    *f->out = (uint32_t)value;
    return NIBL_OK;
}

nibl_status nibl_arch_hyper(const nibl_arch *arch, const nibl_gguf *gguf, nibl_hyper *out) {
    nibl_hyper h = {0};
    const field sizes[] = {
        {"context_length", &h.context_length, 1u << 24, 0},
        {"embedding_length", &h.width, 1u << 16, 0},
        {"block_count", &h.layers, 1024, 0},
        {"feed_forward_length", &h.ffn_width, 1u << 20, 0},
        {"attention.head_count", &h.heads, 1024, 0},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        NIBL_TRY(read_field(gguf, arch->name, &sizes[i]));
    const field derived[] = {
        {"attention.head_count_kv", &h.kv_heads, h.heads, h.heads},
        {"attention.key_length", &h.head_width, 512, h.width / h.heads},
    };
    for (size_t i = 0; i < sizeof derived / sizeof derived[0]; i++)
        NIBL_TRY(read_field(gguf, arch->name, &derived[i]));
    const field rope = {"rope.dimension_count", &h.rope_width, h.head_width, h.head_width};
    NIBL_TRY(read_field(gguf, arch->name, &rope));
    if (h.heads % h.kv_heads != 0)
        return nibl_fail(NIBL_E_FILE, "%u heads cannot be shared by %u KV heads", h.heads, h.kv_heads);
    if (h.rope_width % 2 != 0)
        return nibl_fail(NIBL_E_FILE, "%s.rope.dimension_count %u is odd", arch->name, h.rope_width);

    char key[96];
    double epsilon = 1e-5;
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch->name);
    if (!nibl_gguf_f64(gguf, key, &epsilon)) return nibl_fail(NIBL_E_FILE, "metadata key %s is missing", key);
    if (!(epsilon > 0 && epsilon < 1)) return nibl_fail(NIBL_E_FILE, "metadata key %s is %g", key, epsilon);
    h.norm_epsilon = (float)epsilon;
    h.rope_base = 10000.0;
    snprintf(key, sizeof key, "%s.rope.freq_base", arch->name);
    nibl_gguf_f64(gguf, key, &h.rope_base);
    if (!(h.rope_base >= 1 && h.rope_base <= 1e12))
        return nibl_fail(NIBL_E_FILE, "metadata key %s is %g", key, h.rope_base);
    nibl_slice scaling;
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch->name);
    if (nibl_gguf_string(gguf, key, &scaling) &&
        !(scaling.length == 4 && memcmp(scaling.bytes, "none", 4) == 0))
        return nibl_fail(NIBL_E_UNSUPPORTED, "RoPE scaling '%.*s' (metadata key %s) is not supported",
                         (int)(scaling.length < 64 ? scaling.length : 64), scaling.bytes, key);
    *out = h;
    return NIBL_OK;
}

static void write_name(const char *pattern, uint32_t layer, char name[64]) {
    const char *at = strstr(pattern, "%u");
    if (at)
        snprintf(name, 64, "%.*s%u%s", (int)(at - pattern), pattern, layer, at + 2);
    else
        snprintf(name, 64, "%s", pattern);
}

void nibl_arch_tensor_name(const nibl_arch *arch, nibl_slot slot, uint32_t layer, char name[64]) {
    write_name(arch->names[slot], layer, name);
}

void nibl_arch_hf_name(const nibl_arch *arch, nibl_slot slot, uint32_t layer, char name[64]) {
    write_name(arch->hf_names[slot], layer, name);
}
