/* The tensors that come out of a model, as GGUF has them, in the order of its bindings: one may be made of several matrices
 * (query, key and value of one layer, the same matrix of all experts), and one of the source may become several. */
#ifndef NIBL_OUTPUTS_H
#define NIBL_OUTPUTS_H

#include "core/model.h"

/* A matrix of a tensor, or a vector. */
typedef struct nibl_output_part {
    nibl_matrix *matrix;
    float **vector;
    uint32_t length; /* floats of that */
} nibl_output_part;

typedef struct nibl_output {
    size_t binding; /* the first */
    nibl_slot slot;
    size_t first; /* of the parts, which are */
    uint32_t count;
    bool at_hand; /* waits for no weights: the binding is any outside of layers */
    char name[80];
} nibl_output;

typedef struct nibl_outputs {
    nibl_gguf_tensor *tensors; /* (count) */
    nibl_output *items;
    size_t count;
    nibl_output_part *parts;
    size_t part_count;
} nibl_outputs;

/* None of a source that is quantized in several tensors per matrix. At the end stand factors of RoPE that the source has in
 * its configuration. Free it in any case. */
nibl_status nibl_outputs_new(nibl_model *model, nibl_outputs *out);
void nibl_outputs_free(nibl_outputs *outputs);

/* Leaves out what other formats have in their configuration. Returns how many tensors are left. */
size_t nibl_outputs_leave_factors(nibl_outputs *outputs);

/* Adds a head that is the embedding, at the end; the binding of that index stands for it. */
void nibl_outputs_untie(nibl_outputs *outputs, nibl_model *model, size_t binding);

/* Whether an output is multiplied with what comes last: the head, or an embedding that is it. */
static inline bool nibl_outputs_is_head(const nibl_outputs *outputs, const nibl_model *model, size_t index) {
    const nibl_slot slot = outputs->items[index].slot;
    return slot == NIBL_SLOT_HEAD || (model->tied && slot == NIBL_SLOT_EMBEDDING);
}

#endif
