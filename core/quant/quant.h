/* The quantizer, as its two ways of working see it: a stream of rows (quant.c), or a model in memory, layer by layer
 * (layerwise.c). */
#ifndef NIBL_QUANT_H
#define NIBL_QUANT_H

#include "core/plat.h"
#include "core/quant/recipe.h"
#include "kernels/kernels.h"

typedef struct nibl_layerwise nibl_layerwise;
typedef struct nibl_gathering nibl_gathering;

enum { NIBL_MOST_CHANNELS = 4 };

/* The channels of an input that carry most, as the calibration saw them: roots of mean squares, and their median. */
typedef struct nibl_salient {
    const nibl_quant_tensor *tensor; /* the first that takes the input */
    uint32_t count, channels[NIBL_MOST_CHANNELS];
    float magnitudes[NIBL_MOST_CHANNELS], median;
} nibl_salient;

/* Where a quantizer goes on (resume.c). */
typedef struct nibl_place {
    uint64_t offset, tensor; /* in the output, and which begins there */
    uint32_t layer; /* that is calibrated next; 0: none is */
    uint32_t head_rows; /* seen by a head that is still to come */
} nibl_place;

/* What became known of a tensor while it was rounded. */
typedef struct nibl_note {
    uint32_t uncalibrated, unscaled;
    nibl_recovery recovery;
} nibl_note;

struct nibl_quantizer {
    nibl_recipe recipe;
    nibl_method method;
    bool measure; /* what rounding loses */
    bool force; /* ternary rounding of anything */
    const nibl_kernels *kernels;
    uint64_t size; /* of the output */
    nibl_salient *salient;
    size_t salient_count, salient_capacity;
    /* what has come out */
    uint8_t *out;
    size_t out_length, out_capacity;
    bool taken; /* the caller has it */
    nibl_place place;
    nibl_note *notes; /* of every tensor, for that */
    /* one of both */
    nibl_gathering *gathering;
    nibl_layerwise *layerwise;
    void (*free_layerwise)(nibl_layerwise *layerwise); /* set with it: builds without calibration lack it */
};

/* A quantizer whose recipe is chosen from the options; nibl_quantizer_free frees it. */
nibl_status nibl_quant_new(const nibl_gguf *gguf, const nibl_gguf_tensor *outputs, size_t count,
                           const nibl_quantize_options *options, const nibl_quant_grids *grids,
                           nibl_quantizer **out);

/* Writes the header, once the tensors are in the order of the output. */
nibl_status nibl_quant_begin(nibl_quantizer *q, const nibl_quantize_options *options);

/* Room for `length` more bytes of output, which count: at q->out + q->out_length before the call, unless they were taken. */
nibl_status nibl_quant_extend(nibl_quantizer *q, size_t length, uint8_t **place);

/* Of a stream, the tensor at hand; and makes another one it. */
size_t nibl_quant_at(const nibl_quantizer *q);
nibl_status nibl_quant_go_to(nibl_quantizer *q, size_t tensor);

/* Gives back the room of output that was taken; makes room for `length` more bytes, and no more. */
void nibl_quant_shrink(nibl_quantizer *q);
nibl_status nibl_quant_reserve(nibl_quantizer *q, uint64_t length);

/* Whether the loss of a tensor is to be measured, and, once it is, NIBL_E_ARGUMENT for ternary rounding of weights that were
 * not trained for it. */
bool nibl_quant_measures(const nibl_quantizer *q, const nibl_quant_tensor *tensor);
nibl_status nibl_quant_check(const nibl_quantizer *q, const nibl_quant_tensor *tensor);

/* The error of a row that could not be encoded. */
nibl_status nibl_quant_refuse(const nibl_quant_tensor *tensor, uint64_t row, bool not_finite);

#endif
