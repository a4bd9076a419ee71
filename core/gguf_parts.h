/* What the parser (gguf.c) builds and the getters (gguf_read.c) read; private to both. */
#ifndef NIBL_GGUF_PARTS_H
#define NIBL_GGUF_PARTS_H

#include "core/gguf.h"

typedef enum nibl_gguf_step {
    STEP_START,
    STEP_KEY,
    STEP_VALUE,
    STEP_STRINGS,
    STEP_TENSOR,
    STEP_COMPLETE,
    STEP_FAILED
} nibl_gguf_step;

/* Offsets in the header are 32 bits: NIBL_GGUF_MAX_HEADER. */
typedef struct metadata {
    uint32_t key, key_length;
    nibl_gguf_type type;
    nibl_gguf_type element; /* of an array */
    uint64_t count;         /* elements of an array */
    uint32_t value;         /* offset of the value; of an array: its first element */
    uint32_t first_string;  /* of an array of strings: index of its first entry in `strings` */
} metadata;

typedef struct named {
    nibl_slice name;
    uint32_t index;
} named;

struct nibl_gguf {
    uint8_t *bytes;
    size_t length, capacity;
    size_t at; /* all before it is parsed */
    nibl_gguf_step step;
    uint32_t metadata_count, tensor_count; /* as the file claims */
    metadata *metadata;                    /* parsed so far; [metadata_length] is the one at hand */
    size_t metadata_length, metadata_capacity;
    size_t tensors_at;                     /* where the first tensor info stands */
    nibl_gguf_tensor *tensors;
    size_t tensors_length, tensors_capacity;
    uint32_t *strings; /* of all arrays of strings */
    size_t strings_length, strings_capacity;
    uint64_t strings_left; /* of the array at hand */
    named *keys, *names;   /* sorted */
    nibl_gguf *part;       /* the next part of a split file: owned, for the names of its tensors */
};

/* By value type. */
extern const char *const nibl_gguf_type_names[NIBL_GGUF_F64 + 1];
extern const uint8_t nibl_gguf_type_widths[NIBL_GGUF_F64 + 1]; /* bytes; 0 for strings and arrays */

/* Makes the index of tensor names anew; NIBL_E_FILE where one stands twice. */
nibl_status nibl_gguf_index_tensors(nibl_gguf *gguf);

/* Bytewise order of two `named`. */
int nibl_gguf_compare_names(const void *a, const void *b);
const metadata *nibl_gguf_find_metadata(const nibl_gguf *gguf, const char *key); /* NULL if absent */

#endif
