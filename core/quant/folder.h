/* The output as a Hugging Face folder: safetensors files whose matrices of integers stand in compressed-tensors' layout
 * "pack-quantized", config.json with quantization_config, and, where the source is a GGUF file, the tokenizer's files. */
#ifndef NIBL_QUANT_FOLDER_H
#define NIBL_QUANT_FOLDER_H

#include "core/quant/outputs.h"
#include "core/quant/recipe.h"

typedef struct nibl_folder nibl_folder;

/* The recipe's tensors are those outputs; *size: bytes of all files. NIBL_E_UNSUPPORTED tells what transformers has no place
 * for. */
nibl_status nibl_folder_new(const nibl_model *model, const nibl_outputs *outputs, const nibl_recipe *recipe,
                            const nibl_quantize_options *options, nibl_folder **out, uint64_t *size);
void nibl_folder_free(nibl_folder *folder);

/* Where tensor `index` opens a file: its beginning, else nothing. Owned by the folder. */
nibl_slice nibl_folder_open(nibl_folder *folder, size_t index);

/* Bytes of a tensor in its file, and those bytes from the rows of its type. */
size_t nibl_folder_bytes(const nibl_folder *folder, size_t index);
void nibl_folder_write(const nibl_folder *folder, size_t index, const uint8_t *rows, uint8_t *out);

/* The next file besides those of the weights; false: that was the last. */
bool nibl_folder_document(nibl_folder *folder, nibl_slice *out);

/* Of the file at hand. */
const char *nibl_folder_file(const nibl_folder *folder);

/* documents.c */
typedef struct nibl_folder_plan {
    const nibl_model *model;
    const nibl_outputs *outputs;
    const nibl_recipe *recipe;
    const nibl_quantize_options *options;
} nibl_folder_plan;

/* The tensors of Hugging Face's files that output `index` becomes: one, or one for every expert; and their names, empty where
 * there is none. */
uint32_t nibl_folder_pieces(const nibl_folder_plan *plan, size_t index);
void nibl_folder_name(const nibl_folder_plan *plan, size_t index, uint32_t piece, char name[80]);

nibl_status nibl_folder_config(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_tokenizer(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_tokenizer_config(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_generation(const nibl_folder_plan *plan, nibl_writer *w);

#endif
