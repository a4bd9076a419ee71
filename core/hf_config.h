/* config.json of a Hugging Face folder, in GGUF's terms. */
#ifndef NIBL_HF_CONFIG_H
#define NIBL_HF_CONFIG_H

#include "core/arch.h"
#include "core/gguf_build.h"
#include "core/json.h"

/* Writes all metadata of the model but those of its tokenizer. What would change the computation and is not known is
 * NIBL_E_UNSUPPORTED. */
nibl_status nibl_hf_write_config(const nibl_json *config, const nibl_arch **arch, nibl_gguf_builder *b);

/* Whether the head's weights are the embedding's, and how many experts a layer has. */
bool nibl_hf_is_tied(const nibl_json *config, const nibl_arch *arch);
uint32_t nibl_hf_experts(const nibl_json *config, const nibl_arch *arch);

#endif
