/* The header of a model that may be several files: one GGUF file, the parts of a split one, or a Hugging Face folder.
 * Whatever it was read from, it ends as one nibl_gguf whose tensors stand at addresses (nibl.h: file and offset). */
#ifndef NIBL_HEADER_H
#define NIBL_HEADER_H

#include "core/gguf.h"

#define NIBL_HEADER_MAX_FILES 4096u
#define NIBL_HEADER_MAX_NAME 255u /* bytes of a file's name */

typedef struct nibl_header nibl_header;

/* `file_size` of file 0, 0 where it is not known. */
nibl_status nibl_header_new(uint64_t file_size, nibl_header **out);
void nibl_header_free(nibl_header *header);

/* The name of file 0, without its folder: tells what the model is, and what its other files are called. */
nibl_status nibl_header_set_name(nibl_header *header, const char *name);

/* config.json is all there is. */
void nibl_header_set_config_only(nibl_header *header);

/* Grows while the header is read. NULL for an index that is none; "" where file 0 has no name. */
const char *nibl_header_file_name(const nibl_header *header, uint32_t file);
uint64_t nibl_header_file_size(const nibl_header *header, uint32_t file); /* 0 = not known */
uint32_t nibl_header_file_count(const nibl_header *header);

/* The range wanted next; *length 0 once the header is complete. */
void nibl_header_want(const nibl_header *header, uint64_t *address, uint64_t *length);

/* NIBL_NEED_DATA, also when this completes the header; or what is wrong. Bytes known already, or behind the header of
 * their file, are ignored. */
nibl_status nibl_header_feed(nibl_header *header, uint64_t address, const uint8_t *bytes, size_t length);

/* A file has no bytes from `address` on: nothing at all where it does not exist. */
nibl_status nibl_header_end(nibl_header *header, uint64_t address);

/* Puts the name of the file at `address` before the message of an error, where there are several. */
nibl_status nibl_header_name_file(const nibl_header *header, uint64_t address, nibl_status status);

/* NULL until it is complete, and after it was taken. */
nibl_gguf *nibl_header_gguf(const nibl_header *header);
nibl_gguf *nibl_header_take(nibl_header *header); /* to the caller */

#endif
