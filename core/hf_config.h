/* config.json of a Hugging Face folder, in GGUF's terms. */
#ifndef NIBL_HF_CONFIG_H
#define NIBL_HF_CONFIG_H

#include "core/arch.h"
#include "core/gguf_build.h"
#include "core/json.h"

/* Writes all metadata of the model but those of its tokenizer. What would change the computation and is not known is
 * NIBL_E_UNSUPPORTED. */
nibl_status nibl_hf_write_config(const nibl_json *config, const nibl_arch **arch, nibl_gguf_builder *b);

/* A setting of the language model, which has a configuration of its own ("text_config") in a model that sees or hears as
 * well; else at the top. 0 where it is absent or null. */
uint32_t nibl_hf_setting(const nibl_json *config, const char *key);

/* Whether the head's weights are the embedding's, and how many experts a layer has. */
bool nibl_hf_is_tied(const nibl_json *config, const nibl_arch *arch);
uint32_t nibl_hf_experts(const nibl_json *config, const nibl_arch *arch);

#endif
