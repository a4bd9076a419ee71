/* One row per tensor type of a file: block size, bytes, packed kind. The exact decode of every type is pinned by the
 * Python package `gguf` (gguf.quants). */
#ifndef NIBL_DTYPE_H
#define NIBL_DTYPE_H

#include "core/base.h"
#include "kernels/blocks.h"

typedef struct nibl_dtype {
    uint32_t id; /* GGUF type id */
    const char *name; /* "Q4_1" */
    uint32_t block; /* elements per block */
    uint32_t bytes; /* bytes per block */
    nibl_kind kind;
    nibl_scale scale; /* of quantized kinds */
    nibl_layout layout;
} nibl_dtype;

const nibl_dtype *nibl_dtype_by_id(uint32_t id); /* NULL where this build does not know the type */
size_t nibl_dtype_count(void);
const nibl_dtype *nibl_dtype_at(size_t index);
/* A matrix whose rows in a file are of this type; without data. */
static inline nibl_matrix nibl_matrix_of(const nibl_dtype *type, uint32_t rows, uint32_t cols) {
    return (nibl_matrix){.rows = rows,
                         .cols = cols,
                         .kind = (uint8_t)type->kind,
                         .scale = (uint8_t)type->scale,
                         .layout = (uint8_t)type->layout,
                         .factor = 1};
}

/* Name of any type id GGUF defines ("IQ2_XS"), supported or not, for messages; NULL where nobody knows it. */
const char *nibl_dtype_name(uint32_t id);
/* Bytes of a row of `elements`; false where elements is not a multiple of the block or it overflows. */
bool nibl_dtype_row_bytes(const nibl_dtype *type, uint64_t elements, uint64_t *bytes);

#endif
