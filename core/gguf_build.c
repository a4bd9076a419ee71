#include "core/gguf_build.h"

#include "core/gguf_parts.h"

#include <string.h>

enum { HEAD = 24, TENSOR_COUNT_AT = 8, KEY_COUNT_AT = 16 };

/* Room for `length` more bytes, which then count; NULL after an error. */
static uint8_t *extend(nibl_gguf_builder *b, size_t length) {
    if (b->status < 0) return NULL;
    if (b->length == 0) b->length = HEAD;
    void *grown = b->bytes;
    if (length > NIBL_GGUF_MAX_HEADER - b->length) {
        b->status =
            nibl_fail(NIBL_E_FILE, "the model's metadata are longer than %u bytes", NIBL_GGUF_MAX_HEADER);
        return NULL;
    }
    b->status = nibl_reserve(&grown, &b->capacity, b->length + length, 1, "the model's metadata");
    if (b->status < 0) return NULL;
    b->bytes = grown;
    uint8_t *place = b->bytes + b->length;
    b->length += length;
    return place;
}

static void store(uint8_t *p, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++) p[i] = (uint8_t)(value >> 8 * i);
}

static void put(nibl_gguf_builder *b, uint64_t value, size_t width) {
    uint8_t *p = extend(b, width);
    if (p) store(p, value, width);
}

static void put_string(nibl_gguf_builder *b, nibl_slice s) {
    put(b, s.length, 8);
    uint8_t *p = extend(b, s.length);
    if (p && s.length > 0) memcpy(p, s.bytes, s.length);
}

static void put_key(nibl_gguf_builder *b, const char *key, nibl_gguf_type type) {
    put_string(b, (nibl_slice){key, strlen(key)});
    put(b, type, 4);
    b->keys++;
}

void nibl_gguf_build_u32(nibl_gguf_builder *b, const char *key, uint32_t value) {
    put_key(b, key, NIBL_GGUF_U32);
    put(b, value, 4);
}

void nibl_gguf_build_f64(nibl_gguf_builder *b, const char *key, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(b, key, NIBL_GGUF_F64);
    put(b, bits, 8);
}

void nibl_gguf_build_bool(nibl_gguf_builder *b, const char *key, bool value) {
    put_key(b, key, NIBL_GGUF_BOOL);
    put(b, value, 1);
}

void nibl_gguf_build_string(nibl_gguf_builder *b, const char *key, nibl_slice value) {
    put_key(b, key, NIBL_GGUF_STRING);
    put_string(b, value);
}

void nibl_gguf_build_copy(nibl_gguf_builder *b, const nibl_gguf *from, size_t index, bool narrow) {
    const metadata *m = &from->metadata[index];
    const size_t begin = m->key - 8, end = index + 1 < from->metadata_length
                                               ? from->metadata[index + 1].key - 8
                                               : from->tensors_at;
    if (narrow && m->type == NIBL_GGUF_F64) {
        double value;
        memcpy(&value, from->bytes + m->value, sizeof value);
        const float narrowed = (float)value;
        uint32_t bits;
        memcpy(&bits, &narrowed, sizeof bits);
        put_string(b, nibl_gguf_metadata_key(from, index));
        put(b, NIBL_GGUF_F32, 4);
        put(b, bits, 4);
    } else {
        uint8_t *p = extend(b, end - begin);
        if (p) memcpy(p, from->bytes + begin, end - begin);
    }
    b->keys++;
}

static void put_json(nibl_gguf_builder *b, const nibl_json *json, uint32_t first, uint32_t second) {
    nibl_writer w = {0};
    nibl_json_write_string(json, first, &w);
    if (second) nibl_write(&w, " ", 1);
    nibl_json_write_string(json, second, &w);
    put(b, w.length, 8);
    uint8_t *p = extend(b, w.length);
    if (!p) return;
    w = (nibl_writer){.text = (char *)p, .capacity = w.length};
    nibl_json_write_string(json, first, &w);
    if (second) nibl_write(&w, " ", 1);
    nibl_json_write_string(json, second, &w);
}

void nibl_gguf_build_json(nibl_gguf_builder *b, const char *key, const nibl_json *json, uint32_t node) {
    put_key(b, key, NIBL_GGUF_STRING);
    put_json(b, json, node, 0);
}

void nibl_gguf_build_array(nibl_gguf_builder *b, const char *key, nibl_gguf_type type) {
    put_key(b, key, NIBL_GGUF_ARRAY);
    put(b, type, 4);
    b->count_at = b->length;
    b->elements = 0;
    put(b, 0, 8);
}

static void count_element(nibl_gguf_builder *b) {
    if (b->status == NIBL_OK) store(b->bytes + b->count_at, ++b->elements, 8);
}

void nibl_gguf_add_f32(nibl_gguf_builder *b, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(b, bits, 4);
    count_element(b);
}

void nibl_gguf_add_i32(nibl_gguf_builder *b, int32_t value) {
    put(b, (uint32_t)value, 4);
    count_element(b);
}

void nibl_gguf_add_string(nibl_gguf_builder *b, nibl_slice value) {
    put_string(b, value);
    count_element(b);
}

void nibl_gguf_add_json(nibl_gguf_builder *b, const nibl_json *json, uint32_t first, uint32_t second) {
    put_json(b, json, first, second);
    count_element(b);
}

static uint64_t align(const nibl_gguf_builder *b, uint64_t x) {
    return b->alignment > 1 ? (x + b->alignment - 1) / b->alignment * b->alignment : x;
}

void nibl_gguf_build_tensor(nibl_gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims,
                            const uint64_t *dims, uint64_t bytes) {
    put_string(b, (nibl_slice){name, strlen(name)});
    put(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) put(b, dims[i], 8);
    put(b, type, 4);
    put(b, b->data, 8);
    b->data = align(b, b->data + bytes);
    b->tensors++;
}

static void finish(nibl_gguf_builder *b) {
    extend(b, 0);
    if (b->status < 0) return;
    memcpy(b->bytes, "GGUF\3\0\0", 8);
    store(b->bytes + TENSOR_COUNT_AT, b->tensors, 8);
    store(b->bytes + KEY_COUNT_AT, b->keys, 8);
}

nibl_status nibl_gguf_build_bytes(nibl_gguf_builder *b, uint8_t **bytes, size_t *length) {
    const size_t end = b->length;
    uint8_t *gap = extend(b, (size_t)(align(b, end) - end));
    if (gap) memset(gap, 0, (size_t)(b->length - end));
    finish(b);
    const nibl_status status = b->status;
    if (status < 0) {
        nibl_free(b->bytes);
    } else {
        *bytes = b->bytes;
        *length = b->length;
    }
    *b = (nibl_gguf_builder){0};
    return status;
}

nibl_status nibl_gguf_build_end(nibl_gguf_builder *b, nibl_gguf **out) {
    finish(b);
    nibl_status status = b->status;
    nibl_gguf *gguf = NULL;
    if (status == NIBL_OK) status = nibl_gguf_new(&gguf);
    if (status == NIBL_OK) {
        size_t taken;
        status = nibl_gguf_feed(gguf, b->bytes, b->length, &taken);
    }
    nibl_free(b->bytes);
    *b = (nibl_gguf_builder){0};
    if (status != NIBL_OK)
        nibl_gguf_free(gguf);
    else
        *out = gguf;
    return status;
}

void nibl_gguf_place_tensor(nibl_gguf *gguf, size_t index, uint64_t address, uint64_t bytes) {
    gguf->tensors[index].offset = address;
    gguf->tensors[index].bytes = bytes;
}
