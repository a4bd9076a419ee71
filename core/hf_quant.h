/* Matrices that stand in a file as several tensors: codes, scales, zero points, the order of columns. Hugging Face's
 * quantized layouts, one row of a table each. Every tensor is taken row by row, in any order, and each value goes straight
 * to its place in the packed matrix. The formulas are those of AutoAWQ, GPTQModel, compressed-tensors and transformers.
 *
 * In the GGUF header that hf.c writes the method is metadata, and the tensors are "blk.0.attn_q" + their own suffix. */
#ifndef NIBL_HF_QUANT_H
#define NIBL_HF_QUANT_H

#include "core/gguf_build.h"
#include "core/json.h"
#include "kernels/blocks.h"

enum { NIBL_HFQ_PARTS = 6 };

/* A dimension of a part, in terms of the matrix and of what its parts tell. */
typedef enum nibl_hfq_dim {
    NIBL_HFQ_ONE,
    NIBL_HFQ_TWO,
    NIBL_HFQ_SIXTEEN,
    NIBL_HFQ_ROWS,
    NIBL_HFQ_COLS,
    NIBL_HFQ_GROUPS,
    NIBL_HFQ_ROW_WORDS, /* 32-bit words, each with as many codes of `bits` as are whole in it, that hold all rows */
    NIBL_HFQ_COL_WORDS,
    NIBL_HFQ_ROW_QUARTERS,
    NIBL_HFQ_COL_PAIRS,
    NIBL_HFQ_COL_BLOCKS /* of 32 */
} nibl_hfq_dim;

typedef struct nibl_hfq nibl_hfq;

typedef struct nibl_hfq_part {
    const char *suffix; /* behind the module's name: ".qweight" */
    const char *types; /* of safetensors, between spaces */
    uint8_t dims[3]; /* nibl_hfq_dim, fastest first; what is left out is ONE */
    bool optional;
    bool merged; /* the first two dimensions make a row */
    bool codes;
    bool scales; /* tells the number of groups and the type of the scales */
    bool zeros;
    nibl_status (*take)(nibl_hfq *q, uint32_t i, const uint8_t *row);
} nibl_hfq_part;

typedef struct nibl_hfq_method {
    const char *name;
    uint8_t bits; /* 0: config.json and the shape of the codes tell */
    nibl_kind kind; /* of 4 or fewer bits */
    bool fixed; /* the scale mode is `scale` whatever the type of the scales */
    nibl_scale scale;
    uint8_t group; /* columns per scale where that is fixed, else 0 */
    nibl_hfq_part parts[NIBL_HFQ_PARTS];
} nibl_hfq_method;

/* What config.json says. */
typedef struct nibl_hfq_config {
    const nibl_hfq_method *method; /* NULL: nothing is quantized */
    uint32_t bits; /* 0 = not told; of several the last */
    uint32_t possible; /* bit b: matrices of b bits are told of */
    uint32_t group; /* columns per scale; 0 = not told or all */
    bool symmetric; /* every zero point is the middle of the range */
    bool divides; /* values are divided by the scale */
} nibl_hfq_config;

/* One matrix on its way. */
struct nibl_hfq {
    nibl_hfq_config config;
    nibl_matrix *w;
    uint32_t halves; /* as in nibl_binding */
    bool alternating; /* as in nibl_binding */
    uint32_t bits, groups, group;
    uint32_t scale_type; /* GGUF id */
    bool one_scale; /* of the whole matrix */
    uint32_t missing; /* parts that have not arrived */
    uint32_t *order; /* packed column j is column order[j] of the file; NULL = they stand as in the file */
    const char *problem; /* after an error: what is wrong with the row */
};

/* A part as it was found. */
typedef struct nibl_hfq_piece {
    const nibl_hfq_part *part;
    uint32_t tensor; /* index in the header */
    uint64_t row_bytes, rows;
} nibl_hfq_piece;

/* config.json's quantization_config. What is not known, or would change the computation, is NIBL_E_UNSUPPORTED. */
nibl_status nibl_hfq_read_config(const nibl_json *json, nibl_hfq_config *out);
void nibl_hfq_write_metadata(const nibl_hfq_config *config, nibl_gguf_builder *b);
void nibl_hfq_read_metadata(const nibl_gguf *gguf, nibl_hfq_config *out);

/* Tensors of activations and of the KV cache, whose precision is nibl's own. */
bool nibl_hfq_is_idle(const nibl_hfq_config *config, nibl_slice name);

/* Weights that a tensor of the header holds: of codes as many as there are, of other parts none. */
uint64_t nibl_hfq_elements(const nibl_hfq_config *config, const nibl_gguf_tensor *tensor);

/* True where the header has, in place of the tensor `name` ("blk.0.attn_q.weight") of floats, codes. */
bool nibl_hfq_has(const nibl_gguf *gguf, const nibl_hfq_config *config, const char *name);

/* Finds the parts of the matrix q->w (rows, cols), in place of the tensor `whole`, checks them and sets w's kind and scale
 * mode. NIBL_E_FILE where shapes contradict each other, NIBL_E_UNSUPPORTED where the grid does not
 * fit. */
nibl_status nibl_hfq_bind(const nibl_gguf *gguf, const char *whole, nibl_hfq *q,
                          nibl_hfq_piece pieces[NIBL_HFQ_PARTS], size_t *count);

/* When all parts have arrived: brings the columns into the order of their groups. */
nibl_status nibl_hfq_finish(nibl_hfq *q);
void nibl_hfq_free(nibl_hfq *q); /* what it holds */

extern const nibl_hfq_part nibl_hfq_one_scale; /* in place of any other scales */
extern const nibl_hfq_method nibl_hfq_methods[];
extern const size_t nibl_hfq_method_count;

#endif
