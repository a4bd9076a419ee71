/* Writes GGUF files in memory, right or wrong, and finds places in them to spoil; knows nothing of
 * core/gguf.c. */
#ifndef NIBL_GGUF_BUILDER_H
#define NIBL_GGUF_BUILDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B_U8, B_I8, B_U16, B_I16, B_U32, B_I32, B_F32, B_BOOL, B_STRING, B_ARRAY, B_U64, B_I64, B_F64 };

typedef struct builder {
    uint8_t *bytes;
    size_t length, capacity;
} builder;

static inline void put(builder *b, const void *bytes, size_t length) {
    if (b->length + length > b->capacity) {
        b->capacity = (b->length + length) * 2;
        b->bytes = realloc(b->bytes, b->capacity);
        if (!b->bytes) abort();
    }
    if (length > 0) memcpy(b->bytes + b->length, bytes, length);
    b->length += length;
}

static inline void put_int(builder *b, uint64_t value, size_t width) {
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++) bytes[i] = (uint8_t)(value >> 8 * i);
    put(b, bytes, width);
}

static inline void put_string(builder *b, const char *text) {
    put_int(b, strlen(text), 8);
    put(b, text, strlen(text));
}

static inline void put_f32(builder *b, float value) {
    put(b, &value, sizeof value); /* all hosts of the tests are little-endian */
}

static inline void put_f64(builder *b, double value) { put(b, &value, sizeof value); }

static inline void put_start(builder *b, uint64_t tensors, uint64_t keys) {
    put(b, "GGUF", 4);
    put_int(b, 3, 4);
    put_int(b, tensors, 8);
    put_int(b, keys, 8);
}

static inline void put_key(builder *b, const char *key, uint32_t type) {
    put_string(b, key);
    put_int(b, type, 4);
}

static inline void put_key_u32(builder *b, const char *key, uint32_t value) {
    put_key(b, key, B_U32);
    put_int(b, value, 4);
}

static inline void put_key_f32(builder *b, const char *key, float value) {
    put_key(b, key, B_F32);
    put_f32(b, value);
}

static inline void put_key_string(builder *b, const char *key, const char *value) {
    put_key(b, key, B_STRING);
    put_string(b, value);
}

/* The elements follow by put_*. */
static inline void put_key_array(builder *b, const char *key, uint32_t type, uint64_t count) {
    put_key(b, key, B_ARRAY);
    put_int(b, type, 4);
    put_int(b, count, 8);
}

static inline void put_tensor(builder *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t d0,
                              uint64_t d1, uint64_t offset) {
    const uint64_t dims[] = {d0, d1, 1, 1};
    put_string(b, name);
    put_int(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims && i < 4; i++) put_int(b, dims[i], 8);
    put_int(b, type, 4);
    put_int(b, offset, 8);
}

static inline void put_padding(builder *b, size_t alignment) {
    while (b->length % alignment != 0) put_int(b, 0, 1);
}

/* The value of key or the fields behind the name (n_dims, dims, type, offset) of a tensor; NULL where
 * absent. Names are found by their length and bytes, so they must be unique in the file. */
static inline uint8_t *find_name(uint8_t *file, size_t length, const char *name) {
    builder b = {0};
    put_string(&b, name);
    uint8_t *found = NULL;
    for (size_t i = 0; i + b.length <= length && !found; i++)
        if (memcmp(file + i, b.bytes, b.length) == 0) found = file + i + b.length;
    free(b.bytes);
    return found;
}

static inline builder read_whole(const char *path) {
    builder b = {0};
    uint8_t piece[4096];
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("cannot open %s: run from the project's root\n", path);
        exit(1);
    }
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) put(&b, piece, n);
    fclose(f);
    return b;
}

#endif
