/* Getters over a complete header, and its values as JSON. */
#include "core/gguf_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_ARRAY = 64, ARRAY_HEAD = 8 };

const char *const nibl_gguf_type_names[] = {"U8",   "I8",     "U16",   "I16", "U32", "I32", "F32",
                                            "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"};
const uint8_t nibl_gguf_type_widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

int nibl_gguf_compare_names(const void *a, const void *b) {
    nibl_slice x = ((const named *)a)->name, y = ((const named *)b)->name;
    int order = memcmp(x.bytes, y.bytes, x.length < y.length ? x.length : y.length);
    return order ? order : (x.length > y.length) - (x.length < y.length);
}

static const named *find(const named *names, size_t count, const char *name) {
    named wanted = {.name = {name, strlen(name)}};
    return count ? bsearch(&wanted, names, count, sizeof *names, nibl_gguf_compare_names) : NULL;
}

uint64_t nibl_gguf_header_bytes(const nibl_gguf *gguf) {
    uint64_t bytes = 0;
    for (; gguf; gguf = gguf->part) bytes += gguf->length;
    return bytes;
}

bool nibl_gguf_complete(const nibl_gguf *gguf) { return gguf->step == STEP_COMPLETE; }

size_t nibl_gguf_tensor_count(const nibl_gguf *gguf) {
    return nibl_gguf_complete(gguf) ? gguf->tensors_length : 0;
}

size_t nibl_gguf_metadata_count(const nibl_gguf *gguf) {
    return nibl_gguf_complete(gguf) ? gguf->metadata_length : 0;
}

const nibl_gguf_tensor *nibl_gguf_tensor_at(const nibl_gguf *gguf, size_t index) {
    return index < nibl_gguf_tensor_count(gguf) ? &gguf->tensors[index] : NULL;
}

const nibl_gguf_tensor *nibl_gguf_find_tensor(const nibl_gguf *gguf, const char *name) {
    const named *found = find(gguf->names, nibl_gguf_tensor_count(gguf), name);
    return found ? &gguf->tensors[found->index] : NULL;
}

nibl_slice nibl_gguf_metadata_key(const nibl_gguf *gguf, size_t index) {
    const metadata *m = &gguf->metadata[index];
    return (nibl_slice){(const char *)gguf->bytes + m->key, m->key_length};
}

const metadata *nibl_gguf_find_metadata(const nibl_gguf *gguf, const char *key) {
    const named *found = find(gguf->keys, nibl_gguf_metadata_count(gguf), key);
    return found ? &gguf->metadata[found->index] : NULL;
}

static nibl_slice string_at(const uint8_t *p) {
    return (nibl_slice){(const char *)p + 8, (size_t)nibl_load_u64(p)};
}

/* An integer of any type as sign and 64 bits of two's complement. */
static bool read_integer(nibl_gguf_type type, const uint8_t *p, uint64_t *bits, bool *negative) {
    uint64_t sign = 0;
    switch (type) {
    case NIBL_GGUF_U8: *bits = *p; break;
    case NIBL_GGUF_U16: *bits = nibl_load_u16(p); break;
    case NIBL_GGUF_U32: *bits = nibl_load_u32(p); break;
    case NIBL_GGUF_U64: *bits = nibl_load_u64(p); break;
    case NIBL_GGUF_I8: *bits = *p, sign = 1u << 7; break;
    case NIBL_GGUF_I16: *bits = nibl_load_u16(p), sign = 1u << 15; break;
    case NIBL_GGUF_I32: *bits = nibl_load_u32(p), sign = 1u << 31; break;
    case NIBL_GGUF_I64: *bits = nibl_load_u64(p), sign = UINT64_C(1) << 63; break;
    default: return false;
    }
    *negative = (*bits & sign) != 0;
    if (*negative) *bits |= ~(sign - 1);
    return true;
}

static bool read_real(nibl_gguf_type type, const uint8_t *p, double *out) {
    if (type == NIBL_GGUF_F32) {
        uint32_t bits = nibl_load_u32(p);
        float value;
        memcpy(&value, &bits, sizeof value);
        *out = (double)value;
        return true;
    }
    if (type == NIBL_GGUF_F64) {
        uint64_t bits = nibl_load_u64(p);
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    return false;
}

bool nibl_gguf_u64(const nibl_gguf *gguf, const char *key, uint64_t *out) {
    const metadata *m = nibl_gguf_find_metadata(gguf, key);
    uint64_t bits;
    bool negative;
    if (!m || !read_integer(m->type, gguf->bytes + m->value, &bits, &negative) || negative) return false;
    *out = bits;
    return true;
}

bool nibl_gguf_f64(const nibl_gguf *gguf, const char *key, double *out) {
    const metadata *m = nibl_gguf_find_metadata(gguf, key);
    if (!m) return false;
    uint64_t bits;
    bool negative;
    if (!read_integer(m->type, gguf->bytes + m->value, &bits, &negative))
        return read_real(m->type, gguf->bytes + m->value, out);
    *out = negative ? -(double)(~bits + 1) : (double)bits;
    return true;
}

bool nibl_gguf_bool(const nibl_gguf *gguf, const char *key, bool *out) {
    const metadata *m = nibl_gguf_find_metadata(gguf, key);
    if (!m || m->type != NIBL_GGUF_BOOL) return false;
    *out = gguf->bytes[m->value] != 0;
    return true;
}

bool nibl_gguf_string(const nibl_gguf *gguf, const char *key, nibl_slice *out) {
    const metadata *m = nibl_gguf_find_metadata(gguf, key);
    if (!m || m->type != NIBL_GGUF_STRING) return false;
    *out = string_at(gguf->bytes + m->value);
    return true;
}

static nibl_gguf_array array_at(const nibl_gguf *g, const metadata *m) {
    return (nibl_gguf_array){
        .type = m->element,
        .count = m->count,
        .data = g->bytes + m->value,
        .strings = m->element == NIBL_GGUF_STRING && m->count > 0 ? g->strings + m->first_string : NULL};
}

bool nibl_gguf_array_of(const nibl_gguf *gguf, const char *key, nibl_gguf_array *out) {
    const metadata *m = nibl_gguf_find_metadata(gguf, key);
    if (!m || m->type != NIBL_GGUF_ARRAY) return false;
    *out = array_at(gguf, m);
    return true;
}

nibl_slice nibl_gguf_array_string(const nibl_gguf_array *array, uint64_t index) {
    return string_at(array->data + array->strings[index]);
}

/* ---- JSON ---- */

static void write_scalar(nibl_writer *w, nibl_gguf_type type, const uint8_t *p) {
    uint64_t bits;
    bool negative;
    double real;
    if (type == NIBL_GGUF_STRING) {
        nibl_slice s = string_at(p);
        nibl_write_json(w, s.bytes, s.length);
    } else if (type == NIBL_GGUF_BOOL) {
        nibl_print(w, "%s", *p ? "true" : "false");
    } else if (read_integer(type, p, &bits, &negative)) {
        nibl_print(w, "%s%llu", negative ? "-" : "", (unsigned long long)(negative ? ~bits + 1 : bits));
    } else if (read_real(type, p, &real) && isfinite(real)) {
        char text[40];
        snprintf(text, sizeof text, "%.*g", type == NIBL_GGUF_F32 ? 9 : 17, real);
        char *comma = strchr(text, ','); /* in the host program's locale */
        if (comma) *comma = '.';
        nibl_write(w, text, strlen(text));
    } else {
        nibl_print(w, "null");
    }
}

void nibl_gguf_metadata_json(const nibl_gguf *gguf, size_t index, nibl_writer *w) {
    const metadata *m = &gguf->metadata[index];
    if (m->type != NIBL_GGUF_ARRAY) {
        write_scalar(w, m->type, gguf->bytes + m->value);
        return;
    }
    nibl_gguf_array array = array_at(gguf, m);
    bool elided = array.count > SHORT_ARRAY;
    if (elided)
        nibl_print(w, "{\"type\":\"%s\",\"length\":%llu,\"first\":", nibl_gguf_type_names[array.type],
                   (unsigned long long)array.count);
    nibl_write(w, "[", 1);
    uint64_t shown = elided ? ARRAY_HEAD : array.count;
    for (uint64_t i = 0; i < shown; i++) {
        if (i > 0) nibl_write(w, ",", 1);
        write_scalar(w, array.type,
                     array.data +
                         (array.strings ? array.strings[i] : (size_t)i * nibl_gguf_type_widths[array.type]));
    }
    nibl_print(w, elided ? "]}" : "]");
}
