/* Architectures are data: a row of traits and of the tensors it has besides the usual ones. Names and shapes of tensors
 * stand in one table for all; a row names only what differs. */
#ifndef NIBL_ARCH_H
#define NIBL_ARCH_H

#include "core/gguf.h"
#include "kernels/kernels.h"

typedef enum nibl_rope {
    NIBL_ROPE_INTERLEAVED /* pairs (2 i, 2 i + 1) */,
    NIBL_ROPE_NEOX /* (i, i + n / 2) */
} nibl_rope;

/* Places of a tensor in the forward pass, in the order it needs them. */
typedef enum nibl_slot {
    NIBL_SLOT_EMBEDDING,
    NIBL_SLOT_POSITIONS, /* learned positions */
    NIBL_SLOT_ROPE_FACTORS, /* what RoPE's frequencies are divided by; with NIBL_ROPE_LONG one of the next two, */
    NIBL_SLOT_ROPE_SHORT, /* in contexts up to the original length */
    NIBL_SLOT_ROPE_LONG, /* and in longer ones */
    NIBL_SLOT_ATTN_NORM,
    NIBL_SLOT_ATTN_NORM_BIAS,
    NIBL_SLOT_WQ,
    NIBL_SLOT_WK,
    NIBL_SLOT_WV,
    NIBL_SLOT_BQ,
    NIBL_SLOT_BK,
    NIBL_SLOT_BV,
    NIBL_SLOT_Q_NORM,
    NIBL_SLOT_K_NORM,
    NIBL_SLOT_SINKS, /* a logit per head that takes part in its softmax and has no value */
    NIBL_SLOT_ATTN_SUB_NORM, /* before WO */
    NIBL_SLOT_WO,
    NIBL_SLOT_BO,
    NIBL_SLOT_CONV_IN,
    NIBL_SLOT_CONV,
    NIBL_SLOT_CONV_OUT,
    NIBL_SLOT_POST_ATTN_NORM, /* of what the block adds to the residual stream */
    NIBL_SLOT_FFN_NORM,
    NIBL_SLOT_FFN_NORM_BIAS,
    NIBL_SLOT_ROUTER,
    NIBL_SLOT_ROUTER_BIAS,
    NIBL_SLOT_GATE_UP, /* of all experts, rows alternating */
    NIBL_SLOT_GATE_UP_BIAS,
    NIBL_SLOT_DOWNS, /* of all experts */
    NIBL_SLOT_GATE,
    NIBL_SLOT_UP,
    NIBL_SLOT_GATE_BIAS,
    NIBL_SLOT_UP_BIAS,
    NIBL_SLOT_FFN_SUB_NORM, /* before DOWN */
    NIBL_SLOT_DOWN,
    NIBL_SLOT_DOWN_BIAS,
    NIBL_SLOT_POST_FFN_NORM,
    NIBL_SLOT_OUTPUT_NORM,
    NIBL_SLOT_OUTPUT_NORM_BIAS,
    NIBL_SLOT_HEAD,
    NIBL_SLOT_COUNT
} nibl_slot;

static inline bool nibl_slot_in_layer(nibl_slot slot) {
    return slot >= NIBL_SLOT_ATTN_NORM && slot <= NIBL_SLOT_POST_FFN_NORM;
}

/* Where a tensor has a name of its own. */
typedef struct nibl_slot_name {
    nibl_slot slot;
    const char *gguf, *hf; /* NULL = the usual one; %u stands for the layer, a second one for the expert */
    nibl_slot after[2]; /* the tensor begins with the rows of these slots; NIBL_SLOT_EMBEDDING = nothing */
    bool shared; /* with other slots */
} nibl_slot_name;

enum { NIBL_ARCH_NAMES = 21 };

typedef struct nibl_arch {
    const char *name; /* general.architecture */
    const char *hf_type[2]; /* model_type of a Hugging Face config.json */
    nibl_rope rope;
    uint64_t has, lacks; /* bits of slots: those that are not usual, and usual ones that are absent */
    nibl_slot_name names[NIBL_ARCH_NAMES]; /* up to the first without names */
    nibl_activation activation;
    bool layer_norm; /* with mean and bias; else RMS */
    bool ungated; /* one matrix before the activation function */
    bool whole_qk_norm; /* one norm for all heads together */
    bool scaled_embedding; /* by sqrt(width) */
    bool norms_from_zero; /* Hugging Face's weights of norms are what is added to 1 */
    bool tied; /* the head is the embedding unless Hugging Face's config.json says otherwise */
    bool transposed; /* Hugging Face's matrices are (inputs, outputs) */
    bool transposed_experts; /* those of its experts are, and stand in one tensor */
    bool exact_ramp; /* YaRN's ramp between unrounded dimensions */
    uint32_t
        window_period; /* of so many layers all but the last have a window; 0 = every one, where there is one */
    uint32_t rope_period; /* of so many layers the last has no RoPE; 0 = all have it */
    double local_rope_base; /* of layers with a window; 0 = as the others */
    uint32_t
        wide_scale_layers; /* with so many layers attention is scaled by width / heads, not by the head's width */
} nibl_arch;

#define NIBL_BIT(slot) (1ull << NIBL_SLOT_##slot)

/* Sizes that shapes are made of. */
typedef enum nibl_dim {
    NIBL_DIM_ONE,
    NIBL_DIM_VOCABULARY,
    NIBL_DIM_CONTEXT,
    NIBL_DIM_WIDTH,
    NIBL_DIM_Q, /* heads * head_width */
    NIBL_DIM_KV, /* kv_heads * head_width */
    NIBL_DIM_HEAD, /* head_width */
    NIBL_DIM_HEADS,
    NIBL_DIM_PAIRS, /* rope_width / 2 */
    NIBL_DIM_FFN,
    NIBL_DIM_EXPERTS, /* 1 where there are none */
    NIBL_DIM_TWO_FFN, /* 2 * ffn_width */
    NIBL_DIM_ALL_FFN, /* experts * ffn_width, twice */
    NIBL_DIM_ALL_WIDTHS, /* experts * width */
    NIBL_DIM_CONV, /* width of the convolution */
    NIBL_DIM_THREE_WIDTHS
} nibl_dim;

typedef enum nibl_presence { NIBL_ALWAYS, NIBL_WHERE_PRESENT, NIBL_WHERE_ASKED } nibl_presence;

typedef struct nibl_slot_form {
    const char *gguf, *hf;
    nibl_dim rows, cols;
    nibl_presence presence;
    bool vector; /* (rows * cols) floats */
    bool norm; /* the weight of a norm */
    bool expert; /* a matrix per expert, where there are any */
} nibl_slot_form;

extern const nibl_slot_form nibl_slot_forms[NIBL_SLOT_COUNT];

/* Metadata keys of our own. ROPE_HALVES (bool): the rows of Q and K are ordered for NIBL_ROPE_NEOX although the
 * architecture rotates pairs; the model orders them as they arrive. NORMS_FROM_ZERO, TRANSPOSED, TRANSPOSED_EXPERTS (bool):
 * the trait of that name holds. ROPE_LAYERS (bool array): which layers have RoPE. */
#define NIBL_KEY_ROPE_HALVES "nibl.rope_halves"
#define NIBL_KEY_NORMS_FROM_ZERO "nibl.norms_from_zero"
#define NIBL_KEY_TRANSPOSED "nibl.transposed"
#define NIBL_KEY_TRANSPOSED_EXPERTS "nibl.transposed_experts"
#define NIBL_KEY_ROPE_LAYERS "nibl.rope_layers"
/* Arrays of floats in place of the tensors NIBL_SLOT_ROPE_FACTORS, _SHORT and _LONG. */
#define NIBL_KEY_ROPE_FACTORS "nibl.rope_factors"
#define NIBL_KEY_ROPE_SHORT "nibl.rope_short_factors"
#define NIBL_KEY_ROPE_LONG "nibl.rope_long_factors"

typedef enum nibl_rope_scaling {
    NIBL_ROPE_PLAIN,
    NIBL_ROPE_LINEAR,
    NIBL_ROPE_YARN, /* arXiv:2309.00071 */
    NIBL_ROPE_LONG /* by factors, arXiv:2402.13753; those of the context's length, so that chunks do not matter */
} nibl_rope_scaling;

typedef struct nibl_rope_form {
    nibl_rope_scaling scaling;
    double base, factor, original_length;
    double low, high; /* YARN: beta_slow, beta_fast */
    double magnitude; /* cosines and sines are multiplied with it */
    bool exact_ramp;
} nibl_rope_form;

/* Hyperparameters, from metadata "<architecture>.<key>". */
typedef struct nibl_hyper {
    uint32_t context_length, width, layers, ffn_width;
    uint32_t heads, kv_heads, head_width, rope_width;
    uint32_t vocabulary; /* rows of the embedding */
    uint32_t experts, experts_used; /* 0 = none */
    uint32_t window; /* positions that layers with a window see; 0 = no layer has one */
    uint32_t conv_length; /* positions that a convolution sees; 0 = no layer has one */
    uint32_t conv_layers; /* that have a convolution instead of attention */
    float norm_epsilon;
    float attention_scale, attention_cap, logit_cap; /* cap 0 = none */
    float embedding_scale, residual_scale, logit_scale;
    bool expert_norm; /* the weights of the experts used sum up to 1 */
    nibl_rope_form rope, local_rope; /* of layers without and with a window */
} nibl_hyper;

/* What differs from layer to layer. */
typedef struct nibl_layer_form {
    uint32_t window; /* 0 = sees all */
    bool rope, conv;
} nibl_layer_form;

/* The row of general.architecture; NIBL_E_UNSUPPORTED where it is not known. */
nibl_status nibl_arch_of(const nibl_gguf *gguf, const nibl_arch **out);

/* The row of a Hugging Face model_type; NULL where it is not known. */
const nibl_arch *nibl_arch_of_hf(nibl_slice model_type);

/* Writes the names of all architectures, with commas between. */
void nibl_arch_list(char *out, size_t capacity, bool hf);

/* Reads and checks the hyperparameters (hyper.c); vocabulary is left 0. */
nibl_status nibl_arch_hyper(const nibl_arch *arch, const nibl_gguf *gguf, nibl_hyper *out);
nibl_status nibl_arch_layer(const nibl_arch *arch, const nibl_gguf *gguf, const nibl_hyper *hyper,
                            uint32_t layer, nibl_layer_form *out);

/* Radians per position of each pair (rope_width / 2); `factors` may be NULL. */
void nibl_arch_frequencies(const nibl_rope_form *form, uint32_t rope_width, const float *factors,
                           double *out);

/* How the slot's tensor is named in this architecture; never NULL. */
nibl_slot_name nibl_arch_slot(const nibl_arch *arch, nibl_slot slot);
nibl_presence nibl_arch_presence(const nibl_arch *arch, nibl_slot slot);
uint32_t nibl_arch_dim(const nibl_hyper *hyper, nibl_dim dim);

/* Fills in layer and expert. */
void nibl_arch_write_name(const char *pattern, uint32_t layer, uint32_t expert, char name[80]);

/* The tensor of one expert, where they are not one. */
void nibl_arch_write_expert_name(nibl_slot slot, uint32_t layer, uint32_t expert, char name[80]);

#endif
