/* A Hugging Face folder as a GGUF header: config.json, the tokenizer's files and the headers of the weights are read, and
 * all that they say is written in GGUF's terms. What cannot be said exactly is an error. */
#ifndef NIBL_HF_H
#define NIBL_HF_H

#include "core/gguf_build.h"
#include "core/json.h"

/* The files besides the weights, in the order they are read: config.json is file 0 of the model. */
enum {
    NIBL_HF_CONFIG,
    NIBL_HF_GENERATION,
    NIBL_HF_TOKENIZER_CONFIG,
    NIBL_HF_TEMPLATE,
    NIBL_HF_TOKENIZER,
    NIBL_HF_INDEX,
    NIBL_HF_DOCUMENTS
};

typedef struct nibl_hf_file {
    const char *name;
    uint32_t limit; /* bytes */
    bool required;
} nibl_hf_file;

extern const nibl_hf_file nibl_hf_files[NIBL_HF_DOCUMENTS];
#define NIBL_HF_WEIGHTS "model.safetensors" /* where there is no index */

/* A document's bytes; NULL where the folder lacks it. */
typedef struct nibl_hf_text {
    const char *name, *bytes;
    size_t length;
} nibl_hf_text;

/* Calls `add` with every file that the index of weights names, each once, in the index's order. */
nibl_status nibl_hf_read_index(const nibl_hf_text *index, nibl_status (*add)(void *context, const char *name),
                               void *context);

/* `documents` by their number; `weights`: the JSON header of each file of weights, the first of which is file
 * `first_weights` of the model. */
nibl_status nibl_hf_build(const nibl_hf_text *documents, const nibl_hf_text *weights, size_t count,
                          uint32_t first_weights, nibl_gguf **out);

/* hf_assumed.c: the header of a folder whose config.json alone is known, for planning: no tokenizer, and tensors in 16 bits
 * that stand nowhere. */
nibl_status nibl_hf_assume(const nibl_hf_text *config, nibl_gguf **out);

/* hf_tokenizer.c: writes tokenizer.ggml.* and tokenizer.chat_template. */
typedef struct nibl_hf_parsed {
    nibl_json json[NIBL_HF_DOCUMENTS]; /* without nodes where the file is absent */
    nibl_slice chat_template; /* chat_template.jinja */
} nibl_hf_parsed;
nibl_status nibl_hf_build_tokenizer(const nibl_hf_parsed *hf, nibl_gguf_builder *b);

#endif
