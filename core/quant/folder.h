/* The output as a Hugging Face folder: safetensors files whose matrices of integers stand in compressed-tensors' layout
 * "pack-quantized", config.json with quantization_config, and, where the source is a GGUF file, the tokenizer's files. */
#ifndef NIBL_QUANT_FOLDER_H
#define NIBL_QUANT_FOLDER_H

#include "core/model.h"
#include "core/quant/recipe.h"

typedef struct nibl_folder nibl_folder;

/* The recipe's tensors stand in the order of the model's bindings; *size: bytes of all files. */
nibl_status nibl_folder_new(const nibl_model *model, const nibl_recipe *recipe,
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
    const nibl_recipe *recipe;
    const nibl_quantize_options *options;
} nibl_folder_plan;

/* A tensor's name in Hugging Face's files, of the binding of that index. */
void nibl_folder_name(const nibl_model *model, size_t index, char name[80]);

nibl_status nibl_folder_config(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_tokenizer(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_tokenizer_config(const nibl_folder_plan *plan, nibl_writer *w);
nibl_status nibl_folder_generation(const nibl_folder_plan *plan, nibl_writer *w);

#endif
