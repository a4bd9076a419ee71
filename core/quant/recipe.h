/* What a model is quantized to: the type of every tensor, and the header of the file that comes out. */
#ifndef NIBL_RECIPE_H
#define NIBL_RECIPE_H

#include "core/dtype.h"
#include "core/gguf.h"
#include "core/quant/loss.h"
#include "core/quant/recover.h"

/* One tensor on its way from the source to the output; in the order of both. */
typedef struct nibl_quant_tensor {
    const nibl_gguf_tensor *source;
    const nibl_dtype *from, *to;
    const nibl_dtype
        *wanted; /* what the options ask for, where rows do not divide into its blocks; else NULL */
    uint32_t wanted_block; /* columns of those */
    uint64_t rows, cols;
    uint32_t halves; /* rows (of one row: numbers) of a head whose halves are to be interleaved; 0 = none */
    bool from_zero; /* a vector of what is added to 1 */
    uint64_t bytes; /* of its rows as they are made: of the output, without the gap that follows; */
    uint64_t stored; /* where the output is a folder: what it takes there */
    nibl_loss loss; /* where it is measured */
    nibl_recovery recovery; /* where that is asked for */
    uint32_t
        uncalibrated; /* of its matrices so many were rounded as without a text, which hardly reaches them */
    uint32_t unscaled; /* so many without AWQ: what goes before them can take no scale back */
} nibl_quant_tensor;

/* What the list of methods asks for. */
typedef struct nibl_method {
    bool search; /* scales that lose least, by weighted squares where there is a calibration, */
    bool magnitude; /* which weigh large weights more */
    bool awq, gptq;
    bool rotate;
    bool recover, rest; /* the grid that weights lie on is taken, and those on none are rounded otherwise */
} nibl_method;

typedef struct nibl_quant_type nibl_quant_type;
typedef struct nibl_quant_grids nibl_quant_grids;

typedef struct nibl_recipe {
    const nibl_gguf *gguf;
    const nibl_gguf_tensor *outputs; /* the tensors, as they come out (outputs.h); NULL = the source's own */
    const nibl_dtype *type, *embedding, *head;
    bool folder; /* the output: Hugging Face's, else GGUF */
    const nibl_quant_grids *grids; /* NULL: only GGUF's types are known */
    nibl_quant_type *types; /* theirs, owned */
    nibl_gguf_tensor own_head; /* of nibl_recipe_untie */
    nibl_quant_tensor *tensors; /* by address */
    size_t count;
    nibl_slice text; /* as the output has it ("nibl.recipe"): from nibl_recipe_header on */
} nibl_recipe;

enum { NIBL_QUANT_ALIGNMENT = 32 };

/* Types that GGUF has not (integers.h). */
struct nibl_quant_grids {
    nibl_status (*find)(nibl_recipe *r, const char *name,
                        const nibl_dtype **out); /* *out NULL: no such name */
    /* That of a matrix; *out NULL: none fits */
    nibl_status (*fit)(nibl_recipe *r, const nibl_dtype *named, uint64_t rows, uint64_t cols,
                       const nibl_dtype **out);
    uint32_t (*group)(const nibl_dtype *type); /* columns that a named one wants to divide into */
    void (*drop)(nibl_recipe *r);
};

/* The methods that the options ask for, as a recipe names them. */
const char *nibl_recipe_method(const nibl_quantize_options *options);
/* Reads "rtn,clip,...". */
nibl_status nibl_method_read(const char *text, bool calibrated, nibl_method *out);

/* Chooses by the options; every name in them is checked. `outputs` (count), or NULL for the source's tensors. Free it in any
 * case. */
nibl_status nibl_recipe_choose(const nibl_gguf *gguf, const nibl_gguf_tensor *outputs, size_t count,
                               const nibl_quantize_options *options, const nibl_quant_grids *grids,
                               nibl_recipe *out);
/* Adds a head of its own, as large as the embedding that was it, behind all tensors. */
nibl_status nibl_recipe_untie(nibl_recipe *recipe);
void nibl_recipe_free(nibl_recipe *recipe);

/* Whether the source's tensors are not those of a GGUF file: transposed, one for every expert, convolutions of
 * three dimensions, factors of RoPE in the configuration. */
bool nibl_recipe_is_apart(const nibl_gguf *gguf);

/* Whether one of the options' exceptions is about this tensor. */
bool nibl_recipe_names(const nibl_quantize_options *options, nibl_slice name);

/* Writes `text`. */
nibl_status nibl_recipe_describe(nibl_recipe *recipe, const nibl_quantize_options *options);

/* The header of the output with the recipe in it: the caller's. */
nibl_status nibl_recipe_header(nibl_recipe *recipe, const nibl_quantize_options *options, uint8_t **bytes,
                               size_t *length);

#endif
