/* Architectures are data: one row of traits, metadata keys and tensor names each. Optional tensors switch on by
 * presence. */
#ifndef NIBL_ARCH_H
#define NIBL_ARCH_H

#include "core/gguf.h"

typedef enum nibl_rope {
    NIBL_ROPE_INTERLEAVED /* pairs (2 i, 2 i + 1) */,
    NIBL_ROPE_NEOX /* (i, i + n / 2) */
} nibl_rope;

/* Places of a tensor in the forward pass, in the order it needs them. */
typedef enum nibl_slot {
    NIBL_SLOT_EMBEDDING,
    NIBL_SLOT_ATTN_NORM,
    NIBL_SLOT_WQ,
    NIBL_SLOT_WK,
    NIBL_SLOT_WV,
    NIBL_SLOT_WO,
    NIBL_SLOT_FFN_NORM,
    NIBL_SLOT_GATE,
    NIBL_SLOT_UP,
    NIBL_SLOT_DOWN,
    NIBL_SLOT_OUTPUT_NORM,
    NIBL_SLOT_HEAD,
    NIBL_SLOT_COUNT
} nibl_slot;

typedef struct nibl_arch {
    const char *name; /* general.architecture */
    nibl_rope rope;
    const char *names[NIBL_SLOT_COUNT]; /* GGUF names; one %u stands for the layer */
    const char *hf_type; /* model_type of a Hugging Face config.json */
    const char *hf_names[NIBL_SLOT_COUNT];
} nibl_arch;

/* Metadata key (bool): the rows of Q and K are ordered for NIBL_ROPE_NEOX although the architecture rotates pairs; the
 * model orders them as they arrive. */
#define NIBL_KEY_ROPE_HALVES "nibl.rope_halves"

/* Hyperparameters, from metadata "<architecture>.<key>". */
typedef struct nibl_hyper {
    uint32_t context_length, width, layers, ffn_width;
    uint32_t heads, kv_heads, head_width, rope_width;
    uint32_t vocabulary; /* rows of the embedding */
    float norm_epsilon;
    double rope_base;
} nibl_hyper;

/* The row of general.architecture; NIBL_E_UNSUPPORTED where it is not known. */
nibl_status nibl_arch_of(const nibl_gguf *gguf, const nibl_arch **out);

/* The row of a Hugging Face model_type; NULL where it is not known. */
const nibl_arch *nibl_arch_of_hf(const char *model_type, size_t length);

/* Reads and checks the hyperparameters; vocabulary is left 0. */
nibl_status nibl_arch_hyper(const nibl_arch *arch, const nibl_gguf *gguf, nibl_hyper *out);

/* Writes the tensor's name for a slot; `layer` is ignored for slots outside layers. */
void nibl_arch_tensor_name(const nibl_arch *arch, nibl_slot slot, uint32_t layer, char name[64]);
void nibl_arch_hf_name(const nibl_arch *arch, nibl_slot slot, uint32_t layer, char name[64]);

#endif
