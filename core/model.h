/* A model: header, tokenizer, and weights packed in their final place. Built by nibl_model_new from a complete header,
 * filled row by row by the loader (source.c), read by forward.c. */
#ifndef NIBL_MODEL_H
#define NIBL_MODEL_H

#include "core/arch.h"
#include "core/dtype.h"
#include "core/gguf.h"
#include "core/hf_quant.h"
#include "core/plat.h"
#include "core/token_trie.h"
#include "kernels/kernels.h"

/* One tensor of the file, or a run of its rows, and where they go. */
typedef struct nibl_binding {
    uint32_t tensor; /* index in the header */
    nibl_slot slot;
    uint64_t offset; /* bytes of the tensor before the first row */
    uint64_t row_bytes; /* in the file */
    uint64_t rows;
    uint64_t rows_done; /* packed so far; ready when equal to rows */
    nibl_matrix *matrix; /* destination of a matrix, or */
    float **vector; /* of a vector (one row) of */
    uint32_t length; /* floats */
    uint32_t
        halves; /* rows of a head whose halves are to be interleaved as they come; 0 = rows stand as they come */
    bool alternating; /* even rows are to stand before all odd ones */
    bool transposed; /* a row of the file is a column, of one after the other of */
    uint32_t stacked; /* so many matrices that make this one; */
    uint8_t *waiting; /* columns that are no whole block yet, where they are quantized on arrival */
    uint32_t first; /* of such a row this matrix takes as many numbers as it has rows, from here on, */
    uint32_t next; /* and then the binding of this index; 0 = none. It has no rows of its own */
    uint32_t *missing; /* counts the tensors that the same part of the model still waits for */
    struct nibl_layer *layer; /* that part, where it is a layer */
    nibl_hfq *
        quantized; /* not NULL: the tensor is one of several of a matrix (hf_quant.h), and its `part`; then */
    const nibl_hfq_part *part;
    bool owns; /* the first of them stands for all where the matrix counts once */
    uint32_t section; /* the part of the model, see nibl_model_divide */
    const nibl_dtype *type; /* in the file; NULL where quantized */
    const nibl_dtype *packed; /* what is kept: the same, or what it is quantized to on arrival */
} nibl_binding;

/* Vectors and matrices that an architecture lacks are NULL and empty. Shapes: nibl_slot_forms. */
typedef struct nibl_layer {
    nibl_layer_form form;
    uint32_t index; /* among the layers whose block is of the same form: where the cache has it */
    float *attn_norm, *attn_norm_bias, *bq, *bk, *bv, *q_norm, *k_norm, *sinks, *attn_sub_norm, *bo, *conv;
    float *post_attn_norm, *ffn_norm, *ffn_norm_bias, *router_bias, *gate_bias, *up_bias, *ffn_sub_norm;
    float *down_bias, *post_ffn_norm;
    nibl_matrix wq, wk, wv; /* (heads * head_width, width), (kv_heads * head_width, width) twice */
    nibl_matrix wo; /* (width, heads * head_width) */
    nibl_matrix conv_in, conv_out, router;
    nibl_matrix *gate, *up, *down; /* of every expert, or one */
    nibl_matrix qkv, gate_up,
        downs; /* what those are parts of, where one tensor has them (nibl_model_part) */
    float *gate_up_bias;
    uint32_t missing; /* bindings of this layer that have not arrived */
} nibl_layer;

/* nibl_encode_row. */
typedef bool (*nibl_row_encoder)(const nibl_kernels *kernels, const nibl_dtype *to, const nibl_dtype *from,
                                 const uint8_t *row, uint32_t count, uint8_t *out);

struct nibl_model {
    nibl_gguf *gguf; /* owned */
    nibl_tokenizer *tokenizer;
    nibl_token_trie *token_trie; /* made when the first grammar needs it */
    const nibl_arch *arch;
    nibl_hyper hyper;
    char *name;
    nibl_layer *layers; /* (layers) */
    nibl_matrix *ffn; /* gate, up and down of every expert of every layer */
    nibl_matrix embedding; /* (vocabulary, width) */
    nibl_matrix head; /* the same weights as embedding where tied */
    bool tied;
    float *output_norm, *output_norm_bias; /* (width) */
    float *positions; /* (context_length, width), learned; or NULL */
    float *rope_factors, *rope_short, *rope_long; /* (rope_width / 2) or NULL */
    float *own_factors; /* those three where they come from metadata */
    uint32_t missing_embedding, missing_output;
    nibl_binding *bindings; /* in the order the forward pass needs them */
    size_t binding_count, binding_capacity;
    nibl_hfq_config quantization; /* of the file, if any */
    nibl_hfq *quantized; /* (quantized_count) */
    size_t quantized_count;
    bool rope_halves, norms_from_zero, transposed, transposed_experts; /* NIBL_KEY_ROPE_HALVES and its like */
    uint64_t file_bytes; /* tensor data wanted from the file */
    uint64_t packed_bytes; /* the block below */
    uint8_t *weights;
    uint8_t **
        parts; /* of a model whose weights come and go: in place of that block one per part; NULL = not there */
    uint32_t open; /* rows of parts behind this one are not taken then */
    bool again; /* rows of parts that were dropped are to come once more */
    const nibl_dtype *quantize; /* what matrices of floats become on arrival; NULL = they stay */
    nibl_row_encoder encode_row; /* set with it: a program that never quantizes need not hold encoders */
    uint8_t *staging; /* one row of it */
    uint64_t fingerprint; /* of weights and hyperparameters; 0 = not known yet (state.c) */
    const nibl_kernels *kernels;
    nibl_pool *pool; /* worker threads, started by the first session that asks for more than one */
    struct nibl_batch *batch; /* state of session.c between steps, and how to free it */
    void (*free_batch)(struct nibl_batch *batch);
};

/* Sizes known from a header alone; the same checks as nibl_model_new, the tokenizer's excepted. `quantize`: a type of
 * encode.h, or NULL. */
typedef struct nibl_model_size {
    nibl_hyper hyper;
    uint64_t file_bytes, packed_bytes;
} nibl_model_size;
nibl_status nibl_model_sizes(nibl_gguf *gguf, const nibl_dtype *quantize, nibl_model_size *out);

/* Takes ownership of `gguf` on success only. Checks architecture, tensors, shapes, tokenizer; allocates the weights, or,
 * with `parts`, those of a part when the first of its rows comes. */
nibl_status nibl_model_new(nibl_gguf *gguf, const nibl_dtype *quantize, bool parts, nibl_model **out);

/* Parts are what stands before the layers, each layer and what stands behind (from the beginning), or single tensors. Only
 * before the first row. */
void nibl_model_divide(nibl_model *model, bool tensors);

/* The first binding behind those of the same part; behind those of all parts up to the open one. */
size_t nibl_model_part_end(const nibl_model *model, size_t index);
size_t nibl_model_open_end(const nibl_model *model);

/* Whether all of a part has arrived. Frees its weights: it is as before its first row. */
bool nibl_model_part_ready(const nibl_model *model, uint32_t part);
void nibl_model_drop_part(nibl_model *model, uint32_t part);

/* Gives the part of a binding its place, where it has none. */
nibl_status nibl_model_hold_part(nibl_model *model, const nibl_binding *binding);

/* Packs the next `count` rows (from binding->rows_done on) of `binding->row_bytes` raw bytes each and counts them: many
 * at once by all workers of the pool, where there is one. */
nibl_status nibl_model_take_rows(nibl_model *model, nibl_binding *binding, const uint8_t *rows, size_t count);

bool nibl_model_complete(const nibl_model *model);

/* Makes single matrices and biases of those that a layer has as one. */
void nibl_model_part(const nibl_hyper *hyper, nibl_layer *layer);

/* RoPE factors below 1 would make angles larger than the sine takes: NIBL_E_FILE. */
nibl_status nibl_model_check_factors(const nibl_model *model, const float *factors);

#endif
