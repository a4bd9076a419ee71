/* Writes a GGUF header into memory, piece by piece. The first error sticks; calls after it do nothing. */
#ifndef NIBL_GGUF_BUILD_H
#define NIBL_GGUF_BUILD_H

#include "core/gguf.h"
#include "core/json.h"

/* Zero-initialise before use. */
typedef struct nibl_gguf_builder {
    uint8_t *bytes;
    size_t length, capacity;
    size_t count_at; /* where the length of the array at hand stands */
    uint64_t keys, tensors, elements; /* elements: of the array at hand */
    uint64_t data; /* bytes of the tensors so far */
    uint64_t alignment; /* every tensor begins at a multiple of it; 0: they follow each other without gaps */
    nibl_status status;
} nibl_gguf_builder;

void nibl_gguf_build_u32(nibl_gguf_builder *b, const char *key, uint32_t value);
void nibl_gguf_build_f64(nibl_gguf_builder *b, const char *key, double value);
void nibl_gguf_build_bool(nibl_gguf_builder *b, const char *key, bool value);
void nibl_gguf_build_string(nibl_gguf_builder *b, const char *key, nibl_slice value);
/* The decoded string of a JSON node. */
void nibl_gguf_build_json(nibl_gguf_builder *b, const char *key, const nibl_json *json, uint32_t node);

/* A key of another header with its value, as it is there; `narrow`: F64 becomes F32. */
void nibl_gguf_build_copy(nibl_gguf_builder *b, const nibl_gguf *from, size_t index, bool narrow);

/* An array: its beginning (STRING, I32 or F32), then its elements. */
void nibl_gguf_build_array(nibl_gguf_builder *b, const char *key, nibl_gguf_type type);
void nibl_gguf_add_i32(nibl_gguf_builder *b, int32_t value);
void nibl_gguf_add_f32(nibl_gguf_builder *b, float value);
void nibl_gguf_add_string(nibl_gguf_builder *b, nibl_slice value);
/* The decoded strings of one JSON node, or of two with a space between them (b may be 0). */
void nibl_gguf_add_json(nibl_gguf_builder *b, const nibl_json *json, uint32_t first, uint32_t second);

/* After all keys. Tensors of `bytes` follow each other; dims fastest first. */
void nibl_gguf_build_tensor(nibl_gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims,
                            const uint64_t *dims, uint64_t bytes);

/* Parses what was built; frees the builder in any case. Takes "general.alignment" 1. */
nibl_status nibl_gguf_build_end(nibl_gguf_builder *b, nibl_gguf **out);

/* The header as a file has it, up to where the first tensor begins: the caller's (nibl_free). Frees the builder after an
 * error. */
nibl_status nibl_gguf_build_bytes(nibl_gguf_builder *b, uint8_t **bytes, size_t *length);

/* Where tensor `index` really stands, and how long it is even if GGUF has no such type. */
void nibl_gguf_place_tensor(nibl_gguf *gguf, size_t index, uint64_t address, uint64_t bytes);

#endif
