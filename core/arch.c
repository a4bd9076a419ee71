#include "core/arch.h"

#include <stdio.h>
#include <string.h>

#define L "blk.%u."
#define M "model.layers.%u."
#define H "transformer.h.%u."

const nibl_slot_form nibl_slot_forms[NIBL_SLOT_COUNT] = {
#define MATRIX(slot, gguf, hf, rows, cols, presence)                                                         \
    [NIBL_SLOT_##slot] = {gguf, hf, NIBL_DIM_##rows, NIBL_DIM_##cols, NIBL_##presence, false, false, false},
#define EXPERT(slot, gguf, hf, rows, cols, presence)                                                         \
    [NIBL_SLOT_##slot] = {gguf, hf, NIBL_DIM_##rows, NIBL_DIM_##cols, NIBL_##presence, false, false, true},
#define VECTOR(slot, gguf, hf, rows, cols, presence)                                                         \
    [NIBL_SLOT_##slot] = {gguf, hf, NIBL_DIM_##rows, NIBL_DIM_##cols, NIBL_##presence, true, false, false},
#define NORM(slot, gguf, hf, cols, presence)                                                                 \
    [NIBL_SLOT_##slot] = {gguf, hf, NIBL_DIM_ONE, NIBL_DIM_##cols, NIBL_##presence, true, true, false},
    MATRIX(EMBEDDING, "token_embd.weight", "model.embed_tokens.weight", VOCABULARY, WIDTH, ALWAYS) /**/
    VECTOR(POSITIONS, "position_embd.weight", "", CONTEXT, WIDTH, WHERE_ASKED) /**/
    VECTOR(ROPE_FACTORS, "rope_freqs.weight", "", ONE, PAIRS, WHERE_PRESENT) /**/
    VECTOR(ROPE_SHORT, "rope_factors_short.weight", "", ONE, PAIRS, WHERE_PRESENT) /**/
    VECTOR(ROPE_LONG, "rope_factors_long.weight", "", ONE, PAIRS, WHERE_PRESENT) /**/
    NORM(ATTN_NORM, L "attn_norm.weight", M "input_layernorm.weight", WIDTH, ALWAYS) /**/
    VECTOR(ATTN_NORM_BIAS, L "attn_norm.bias", M "input_layernorm.bias", ONE, WIDTH, WHERE_ASKED) /**/
    MATRIX(WQ, L "attn_q.weight", M "self_attn.q_proj.weight", Q, WIDTH, ALWAYS) /**/
    MATRIX(WK, L "attn_k.weight", M "self_attn.k_proj.weight", KV, WIDTH, ALWAYS) /**/
    MATRIX(WV, L "attn_v.weight", M "self_attn.v_proj.weight", KV, WIDTH, ALWAYS) /**/
    VECTOR(BQ, L "attn_q.bias", M "self_attn.q_proj.bias", ONE, Q, WHERE_PRESENT) /**/
    VECTOR(BK, L "attn_k.bias", M "self_attn.k_proj.bias", ONE, KV, WHERE_PRESENT) /**/
    VECTOR(BV, L "attn_v.bias", M "self_attn.v_proj.bias", ONE, KV, WHERE_PRESENT) /**/
    NORM(Q_NORM, L "attn_q_norm.weight", M "self_attn.q_norm.weight", HEAD, WHERE_ASKED) /**/
    NORM(K_NORM, L "attn_k_norm.weight", M "self_attn.k_norm.weight", HEAD, WHERE_ASKED) /**/
    VECTOR(SINKS, L "attn_sinks.weight", M "self_attn.sinks", ONE, HEADS, WHERE_ASKED) /**/
    NORM(ATTN_SUB_NORM, L "attn_sub_norm.weight", M "self_attn.attn_sub_norm.weight", Q, WHERE_ASKED) /**/
    MATRIX(WO, L "attn_output.weight", M "self_attn.o_proj.weight", WIDTH, Q, ALWAYS) /**/
    VECTOR(BO, L "attn_output.bias", M "self_attn.o_proj.bias", ONE, WIDTH, WHERE_PRESENT) /**/
    MATRIX(CONV_IN, L "shortconv.in_proj.weight", M "conv.in_proj.weight", THREE_WIDTHS, WIDTH,
           WHERE_ASKED) /**/
    VECTOR(CONV, L "shortconv.conv.weight", M "conv.conv.weight", WIDTH, CONV, WHERE_ASKED) /**/
    MATRIX(CONV_OUT, L "shortconv.out_proj.weight", M "conv.out_proj.weight", WIDTH, WIDTH, WHERE_ASKED) /**/
    NORM(POST_ATTN_NORM, L "post_attention_norm.weight", M "post_attention_layernorm.weight", WIDTH,
         WHERE_ASKED) /**/
    NORM(FFN_NORM, L "ffn_norm.weight", M "post_attention_layernorm.weight", WIDTH, ALWAYS) /**/
    VECTOR(FFN_NORM_BIAS, L "ffn_norm.bias", M "post_attention_layernorm.bias", ONE, WIDTH, WHERE_ASKED) /**/
    MATRIX(ROUTER, L "ffn_gate_inp.weight", M "mlp.gate.weight", EXPERTS, WIDTH, WHERE_ASKED) /**/
    VECTOR(ROUTER_BIAS, L "ffn_gate_inp.bias", M "mlp.gate.bias", ONE, EXPERTS, WHERE_ASKED) /**/
    MATRIX(GATE_UP, L "ffn_gate_up_exps.weight", "", ALL_FFN, WIDTH, WHERE_PRESENT) /**/
    VECTOR(GATE_UP_BIAS, L "ffn_gate_up_exps.bias", "", EXPERTS, TWO_FFN, WHERE_PRESENT) /**/
    MATRIX(DOWNS, L "ffn_down_exps.weight", "", ALL_WIDTHS, FFN, WHERE_PRESENT) /**/
    EXPERT(GATE, L "ffn_gate.weight", M "mlp.gate_proj.weight", FFN, WIDTH, ALWAYS) /**/
    EXPERT(UP, L "ffn_up.weight", M "mlp.up_proj.weight", FFN, WIDTH, ALWAYS) /**/
    VECTOR(GATE_BIAS, L "ffn_gate.bias", M "mlp.gate_proj.bias", EXPERTS, FFN, WHERE_PRESENT) /**/
    VECTOR(UP_BIAS, L "ffn_up.bias", M "mlp.up_proj.bias", EXPERTS, FFN, WHERE_PRESENT) /**/
    NORM(FFN_SUB_NORM, L "ffn_sub_norm.weight", M "mlp.ffn_sub_norm.weight", FFN, WHERE_ASKED) /**/
    EXPERT(DOWN, L "ffn_down.weight", M "mlp.down_proj.weight", WIDTH, FFN, ALWAYS) /**/
    VECTOR(DOWN_BIAS, L "ffn_down.bias", M "mlp.down_proj.bias", EXPERTS, WIDTH, WHERE_PRESENT) /**/
    NORM(POST_FFN_NORM, L "post_ffw_norm.weight", M "post_feedforward_layernorm.weight", WIDTH,
         WHERE_ASKED) /**/
    NORM(OUTPUT_NORM, "output_norm.weight", "model.norm.weight", WIDTH, ALWAYS) /**/
    VECTOR(OUTPUT_NORM_BIAS, "output_norm.bias", "", ONE, WIDTH, WHERE_ASKED) /**/
    MATRIX(HEAD, "output.weight", "lm_head.weight", VOCABULARY, WIDTH, WHERE_PRESENT) /**/
#undef MATRIX
#undef EXPERT
#undef VECTOR
#undef NORM
};

#define QK_NORM (NIBL_BIT(Q_NORM) | NIBL_BIT(K_NORM))
#define POST_NORMS (NIBL_BIT(POST_ATTN_NORM) | NIBL_BIT(POST_FFN_NORM))
#define QKV_BIAS (NIBL_BIT(BQ) | NIBL_BIT(BK) | NIBL_BIT(BV))
#define PART(s, gguf, hf, ...) {NIBL_SLOT_##s, gguf, hf, {__VA_ARGS__}, true}
#define RENAMED(s, gguf, hf) {NIBL_SLOT_##s, gguf, hf, {NIBL_SLOT_EMBEDDING}, false}
#define FUSED_QKV(gguf, hf, q, k, v)                                                                         \
    PART(q, gguf, hf, NIBL_SLOT_EMBEDDING), PART(k, gguf, hf, NIBL_SLOT_##q),                                \
        PART(v, gguf, hf, NIBL_SLOT_##q, NIBL_SLOT_##k)
/* One tensor for all experts in GGUF, one for each in Hugging Face's. */
#define EXPERTS                                                                                              \
    RENAMED(GATE, L "ffn_gate_exps.weight", M "mlp.experts.%u.gate_proj.weight"),                            \
        RENAMED(UP, L "ffn_up_exps.weight", M "mlp.experts.%u.up_proj.weight"),                              \
        RENAMED(DOWN, L "ffn_down_exps.weight", M "mlp.experts.%u.down_proj.weight")
#define GEMMA_NORMS RENAMED(FFN_NORM, NULL, M "pre_feedforward_layernorm.weight")

static const nibl_arch archs[] = {
    {.name = "llama", .hf_type = {"llama", "mistral"}, .rope = NIBL_ROPE_INTERLEAVED},
    {.name = "qwen2", .hf_type = {"qwen2"}, .rope = NIBL_ROPE_NEOX, .has = QKV_BIAS},
    {.name = "qwen3", .hf_type = {"qwen3"}, .rope = NIBL_ROPE_NEOX, .has = QK_NORM},
    {.name = "qwen3moe",
     .hf_type = {"qwen3_moe"},
     .rope = NIBL_ROPE_NEOX,
     .has = QK_NORM | NIBL_BIT(ROUTER),
     .names = {EXPERTS}},
    {.name = "gemma2",
     .hf_type = {"gemma2"},
     .tied = true,
     .rope = NIBL_ROPE_NEOX,
     .has = POST_NORMS,
     .names = {GEMMA_NORMS},
     .activation = NIBL_ACTIVATE_GELU,
     .scaled_embedding = true,
     .norms_from_zero = true,
     .window_period = 2,
     .wide_scale_layers = 46},
    {.name = "gemma3",
     .hf_type = {"gemma3_text"},
     .tied = true,
     .rope = NIBL_ROPE_NEOX,
     .has = POST_NORMS | QK_NORM,
     .names = {GEMMA_NORMS},
     .activation = NIBL_ACTIVATE_GELU,
     .scaled_embedding = true,
     .norms_from_zero = true,
     .window_period = 6,
     .local_rope_base = 10000,
     .wide_scale_layers = 62},
    {.name = "phi3",
     .hf_type = {"phi3"},
     .rope = NIBL_ROPE_NEOX,
     .names = {FUSED_QKV(L "attn_qkv.weight", M "self_attn.qkv_proj.weight", WQ, WK, WV),
               PART(GATE, L "ffn_up.weight", M "mlp.gate_up_proj.weight", NIBL_SLOT_EMBEDDING),
               PART(UP, L "ffn_up.weight", M "mlp.gate_up_proj.weight", NIBL_SLOT_GATE)}},
    {.name = "smollm3",
     .hf_type = {"smollm3"},
     .tied = true,
     .rope = NIBL_ROPE_INTERLEAVED,
     .rope_period = 4},
    {.name = "olmo2",
     .hf_type = {"olmo2"},
     .rope = NIBL_ROPE_NEOX,
     .has = POST_NORMS | QK_NORM,
     .lacks = NIBL_BIT(ATTN_NORM) | NIBL_BIT(FFN_NORM),
     .whole_qk_norm = true},
    {.name = "granite", .hf_type = {"granite"}, .rope = NIBL_ROPE_INTERLEAVED},
    {.name = "gpt2",
     .hf_type = {"gpt2"},
     .tied = true,
     .has = NIBL_BIT(POSITIONS) | NIBL_BIT(ATTN_NORM_BIAS) | NIBL_BIT(FFN_NORM_BIAS) |
            NIBL_BIT(OUTPUT_NORM_BIAS) | QKV_BIAS | NIBL_BIT(BO) | NIBL_BIT(UP_BIAS) | NIBL_BIT(DOWN_BIAS),
     .lacks = NIBL_BIT(GATE) | NIBL_BIT(GATE_BIAS),
     .names = {FUSED_QKV(L "attn_qkv.weight", H "attn.c_attn.weight", WQ, WK, WV),
               FUSED_QKV(L "attn_qkv.bias", H "attn.c_attn.bias", BQ, BK, BV),
               RENAMED(EMBEDDING, NULL, "transformer.wte.weight"),
               RENAMED(POSITIONS, NULL, "transformer.wpe.weight"), RENAMED(ATTN_NORM, NULL, H "ln_1.weight"),
               RENAMED(ATTN_NORM_BIAS, NULL, H "ln_1.bias"), RENAMED(WO, NULL, H "attn.c_proj.weight"),
               RENAMED(BO, NULL, H "attn.c_proj.bias"), RENAMED(FFN_NORM, NULL, H "ln_2.weight"),
               RENAMED(FFN_NORM_BIAS, NULL, H "ln_2.bias"), RENAMED(UP, NULL, H "mlp.c_fc.weight"),
               RENAMED(UP_BIAS, NULL, H "mlp.c_fc.bias"), RENAMED(DOWN, NULL, H "mlp.c_proj.weight"),
               RENAMED(DOWN_BIAS, NULL, H "mlp.c_proj.bias"),
               RENAMED(OUTPUT_NORM, NULL, "transformer.ln_f.weight"),
               RENAMED(OUTPUT_NORM_BIAS, NULL, "transformer.ln_f.bias")},
     .activation = NIBL_ACTIVATE_GELU,
     .layer_norm = true,
     .ungated = true,
     .transposed = true,
     .rope_period = 1},
    {.name = "bitnet-b1.58",
     .hf_type = {"bitnet"},
     .rope = NIBL_ROPE_NEOX,
     .has = NIBL_BIT(ATTN_SUB_NORM) | NIBL_BIT(FFN_SUB_NORM),
     .activation = NIBL_ACTIVATE_RELU2},
    {.name = "gpt-oss",
     .hf_type = {"gpt_oss"},
     .rope = NIBL_ROPE_NEOX,
     .has = NIBL_BIT(ROUTER) | NIBL_BIT(ROUTER_BIAS) | NIBL_BIT(SINKS) | QKV_BIAS | NIBL_BIT(BO),
     .names = {RENAMED(GATE_UP, NULL, M "mlp.experts.gate_up_proj"),
               RENAMED(GATE_UP_BIAS, NULL, M "mlp.experts.gate_up_proj_bias"),
               RENAMED(DOWNS, NULL, M "mlp.experts.down_proj"), RENAMED(GATE, L "ffn_gate_exps.weight", ""),
               RENAMED(UP, L "ffn_up_exps.weight", ""), RENAMED(DOWN, L "ffn_down_exps.weight", ""),
               RENAMED(FFN_NORM, L "post_attention_norm.weight", NULL),
               RENAMED(ROUTER, NULL, M "mlp.router.weight"), RENAMED(ROUTER_BIAS, NULL, M "mlp.router.bias"),
               RENAMED(GATE_BIAS, L "ffn_gate_exps.bias", ""), RENAMED(UP_BIAS, L "ffn_up_exps.bias", ""),
               RENAMED(DOWN_BIAS, L "ffn_down_exps.bias", M "mlp.experts.down_proj_bias")},
     .activation = NIBL_ACTIVATE_CLAMPED,
     .exact_ramp = true,
     .transposed_experts = true,
     .window_period = 2},
    {.name = "lfm2",
     .hf_type = {"lfm2"},
     .tied = true,
     .rope = NIBL_ROPE_NEOX,
     .has = QK_NORM | NIBL_BIT(CONV_IN) | NIBL_BIT(CONV) | NIBL_BIT(CONV_OUT),
     .names = {RENAMED(ATTN_NORM, NULL, M "operator_norm.weight"),
               RENAMED(FFN_NORM, NULL, M "ffn_norm.weight"),
               RENAMED(Q_NORM, NULL, M "self_attn.q_layernorm.weight"),
               RENAMED(K_NORM, NULL, M "self_attn.k_layernorm.weight"),
               RENAMED(WO, NULL, M "self_attn.out_proj.weight"),
               RENAMED(GATE, NULL, M "feed_forward.w1.weight"), RENAMED(UP, NULL, M "feed_forward.w3.weight"),
               RENAMED(DOWN, NULL, M "feed_forward.w2.weight"),
               RENAMED(OUTPUT_NORM, "token_embd_norm.weight", "model.embedding_norm.weight")}},
};
enum { COUNT = sizeof archs / sizeof archs[0] };

nibl_status nibl_arch_of(const nibl_gguf *gguf, const nibl_arch **out) {
    nibl_slice name;
    if (!nibl_gguf_string(gguf, "general.architecture", &name))
        return nibl_fail(NIBL_E_FILE, "metadata key general.architecture is missing: not a model file");
    for (size_t i = 0; i < COUNT; i++) {
        if (!nibl_slice_is(name, archs[i].name)) continue;
        *out = &archs[i];
        return NIBL_OK;
    }
    char known[256];
    nibl_arch_list(known, sizeof known, false);
    return nibl_fail(NIBL_E_UNSUPPORTED, "architecture '%.*s' is not supported; this build knows: %s",
                     NIBL_SHOW(name), known);
}

const nibl_arch *nibl_arch_of_hf(nibl_slice model_type) {
    for (size_t i = 0; i < 2 * COUNT; i++) {
        const char *name = archs[i / 2].hf_type[i % 2];
        if (name && nibl_slice_is(model_type, name)) return &archs[i / 2];
    }
    return NULL;
}

void nibl_arch_list(char *out, size_t capacity, bool hf) {
    nibl_writer w = {.text = out, .capacity = capacity};
    for (size_t i = 0; i < 2 * COUNT; i++) {
        const char *name = hf ? archs[i / 2].hf_type[i % 2] : i % 2 ? NULL : archs[i / 2].name;
        if (!name) continue;
        if (w.length > 0) nibl_write(&w, ", ", 2);
        nibl_write(&w, name, strlen(name));
    }
    nibl_write_end(&w, NULL);
}

nibl_slot_name nibl_arch_slot(const nibl_arch *arch, nibl_slot slot) {
    nibl_slot_name name = {.slot = slot};
    for (size_t i = 0; i < NIBL_ARCH_NAMES && (arch->names[i].gguf || arch->names[i].hf); i++)
        if (arch->names[i].slot == slot) name = arch->names[i];
    if (!name.gguf) name.gguf = nibl_slot_forms[slot].gguf;
    if (!name.hf) name.hf = nibl_slot_forms[slot].hf;
    return name;
}

nibl_presence nibl_arch_presence(const nibl_arch *arch, nibl_slot slot) {
    if (arch->has >> slot & 1) return NIBL_ALWAYS;
    if (arch->lacks >> slot & 1) return NIBL_WHERE_ASKED;
    return nibl_slot_forms[slot].presence;
}

uint32_t nibl_arch_dim(const nibl_hyper *h, nibl_dim dim) {
    switch (dim) {
    case NIBL_DIM_VOCABULARY: return h->vocabulary;
    case NIBL_DIM_CONTEXT: return h->context_length;
    case NIBL_DIM_WIDTH: return h->width;
    case NIBL_DIM_Q: return h->heads * h->head_width;
    case NIBL_DIM_KV: return h->kv_heads * h->head_width;
    case NIBL_DIM_HEAD: return h->head_width;
    case NIBL_DIM_HEADS: return h->heads;
    case NIBL_DIM_PAIRS: return h->rope_width / 2;
    case NIBL_DIM_FFN: return h->ffn_width;
    case NIBL_DIM_EXPERTS: return h->experts ? h->experts : 1;
    case NIBL_DIM_TWO_FFN: return 2 * h->ffn_width;
    case NIBL_DIM_ALL_FFN: return 2 * h->experts * h->ffn_width;
    case NIBL_DIM_ALL_WIDTHS: return h->experts * h->width;
    case NIBL_DIM_CONV: return h->conv_length;
    case NIBL_DIM_THREE_WIDTHS: return 3 * h->width;
    case NIBL_DIM_ONE: break;
    }
    return 1;
}

void nibl_arch_write_name(const char *pattern, uint32_t layer, uint32_t expert, char name[80]) {
    const uint32_t numbers[] = {layer, expert};
    size_t length = 0, used = 0;
    for (const char *p = pattern; *p && length < 68; p++) {
        if (p[0] == '%' && p[1] == 'u')
            length += (size_t)snprintf(name + length, 12, "%u", numbers[used++ % 2]), p++;
        else
            name[length++] = *p;
    }
    name[length] = 0;
}

void nibl_arch_write_expert_name(nibl_slot slot, uint32_t layer, uint32_t expert, char name[80]) {
    char pattern[80];
    const char *usual = nibl_slot_forms[slot].gguf, *tail = strrchr(usual, '.');
    snprintf(pattern, sizeof pattern, "%.*s.%%u%s", (int)(tail - usual), usual, tail);
    nibl_arch_write_name(pattern, layer, expert, name);
}
