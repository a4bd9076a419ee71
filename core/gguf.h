/* GGUF v3 header: parsed as its bytes arrive, bounded, pure. Layout: magic "GGUF", version u32, tensor
 * count u64, metadata count u64, key/value pairs, tensor infos; tensor data follows, aligned to
 * general.alignment (default 32). */
#ifndef NIBL_GGUF_H
#define NIBL_GGUF_H

#include "core/base.h"

#define NIBL_GGUF_MAX_HEADER (256u << 20) /* bytes of header */
#define NIBL_GGUF_MAX_TENSORS 65536u
#define NIBL_GGUF_MAX_METADATA 65536u
#define NIBL_GGUF_MAX_NAME 256u /* bytes of a tensor's name */
#define NIBL_GGUF_MAX_KEY 65535u /* bytes of a metadata key */
#define NIBL_GGUF_MAX_DIMS 4
#define NIBL_GGUF_MAX_ALIGNMENT (1u << 20)

typedef enum nibl_gguf_type {
    NIBL_GGUF_U8,
    NIBL_GGUF_I8,
    NIBL_GGUF_U16,
    NIBL_GGUF_I16,
    NIBL_GGUF_U32,
    NIBL_GGUF_I32,
    NIBL_GGUF_F32,
    NIBL_GGUF_BOOL,
    NIBL_GGUF_STRING,
    NIBL_GGUF_ARRAY,
    NIBL_GGUF_U64,
    NIBL_GGUF_I64,
    NIBL_GGUF_F64
} nibl_gguf_type;

/* Slices are of the header's bytes. Keys and tensor names hold no control characters, so that they may stand in
 * messages; values may hold anything. */
typedef struct nibl_gguf_tensor {
    nibl_slice name;
    uint32_t type; /* file type id, see dtype.h; may be unknown */
    uint32_t n_dims;
    uint64_t dims[NIBL_GGUF_MAX_DIMS]; /* fastest first; missing ones are 1; their product fits 63 bits */
    uint64_t offset; /* from the start of the file; joined parts: an address (nibl.h) */
    uint64_t bytes; /* 0 where the type is unknown; offset + bytes fits 63 bits */
} nibl_gguf_tensor;

typedef struct nibl_gguf nibl_gguf; /* owns the header's bytes; slices point into them once it is complete */

nibl_status nibl_gguf_new(nibl_gguf **out);
void nibl_gguf_free(nibl_gguf *gguf);

/* Appends the next header bytes (any chunking). NIBL_OK: the header is complete and *taken bytes of these
 * belonged to it; NIBL_NEED_DATA: all were taken, more is needed. Work is linear in the header's length
 * for any chunking, memory is proportional to the bytes received, never to a count the file claims. After
 * an error only nibl_gguf_free is legal. Checks everything that can be known without the file's size:
 * duplicate keys and tensors, alignment, overlap of tensors, sizes near 2^64. */
nibl_status nibl_gguf_feed(nibl_gguf *gguf, const void *bytes, size_t length, size_t *taken);

/* The source has no more bytes: NIBL_E_TRUNCATED, saying where, unless the header is complete and no
 * tensor ends behind `file_size`. */
nibl_status nibl_gguf_check_end(const nibl_gguf *gguf, uint64_t file_size);

uint64_t nibl_gguf_header_bytes(const nibl_gguf *gguf); /* fed so far; when complete: the header's length */
bool nibl_gguf_complete(const nibl_gguf *gguf);

/* What follows knows nothing (zero, NULL, false) before the header is complete. Tensors stand in one
 * array, in the order of the file's list. */
size_t nibl_gguf_tensor_count(const nibl_gguf *gguf);
const nibl_gguf_tensor *nibl_gguf_tensor_at(const nibl_gguf *gguf, size_t index);
const nibl_gguf_tensor *nibl_gguf_find_tensor(const nibl_gguf *gguf,
                                              const char *name); /* by bisection; NULL if absent */

/* Metadata by key, by bisection. Getters return false when the key is absent or of another kind of type
 * (out untouched). Integers widen from any integer type where the value fits; reals from F32/F64 and
 * integers. */
bool nibl_gguf_u64(const nibl_gguf *gguf, const char *key, uint64_t *out);
bool nibl_gguf_f64(const nibl_gguf *gguf, const char *key, double *out);
bool nibl_gguf_bool(const nibl_gguf *gguf, const char *key, bool *out);
bool nibl_gguf_string(const nibl_gguf *gguf, const char *key, nibl_slice *out);

typedef struct nibl_gguf_array {
    nibl_gguf_type type; /* of the elements */
    uint64_t count;
    const uint8_t *data; /* unaligned little-endian elements, for fixed-size types */
    const uint32_t *strings; /* for STRING: byte offset of each element's u64 length prefix from `data` */
} nibl_gguf_array;
bool nibl_gguf_array_of(const nibl_gguf *gguf, const char *key, nibl_gguf_array *out);
nibl_slice nibl_gguf_array_string(const nibl_gguf_array *array, uint64_t index);

/* All metadata, for inspect: key, type and a way to print a value. */
size_t nibl_gguf_metadata_count(const nibl_gguf *gguf);
nibl_slice nibl_gguf_metadata_key(const nibl_gguf *gguf, size_t index);
/* Writes the value as JSON; NaN and infinities become null, arrays of more than 64 elements
 * {"type":"I32","length":49152,"first":[8 elements]}. */
void nibl_gguf_metadata_json(const nibl_gguf *gguf, size_t index, nibl_writer *w);

/* ---- Split files (gguf_join.c) ---- */

/* Parts that the complete header of the first one tells of; 1 where it is whole. */
uint32_t nibl_gguf_split_count(const nibl_gguf *gguf);

/* Makes parts[0] the header of the whole model, which owns the others and has all their tensors; part i is file i. After
 * an error the parts are the caller's as before and may only be freed. NIBL_E_FILE where they do not belong together. */
nibl_status nibl_gguf_join(nibl_gguf *const *parts, size_t count);

#endif
