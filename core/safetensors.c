#include "core/safetensors.h"

#include <stdlib.h>
#include <string.h>

typedef struct dtype {
    const char *name;
    uint32_t bytes;
} dtype;

static const dtype dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                               {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                               {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static nibl_slice slice_of(const nibl_json *json, uint32_t node) {
    return (nibl_slice){json->text + json->nodes[node].at, json->nodes[node].length};
}

/* Bytes of an element; 0 where the type is not known. */
static uint32_t element_bytes(nibl_slice name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (nibl_slice_is(name, dtypes[i].name)) return dtypes[i].bytes;
    return 0;
}

static nibl_status read_shape(const char *file, const nibl_json *json, uint32_t shape, nibl_safetensor *t,
                              uint64_t *elements) {
    uint64_t dims[NIBL_GGUF_MAX_DIMS];
    *elements = 1;
    if (!nibl_json_is(json, shape, NIBL_JSON_ARRAY))
        return nibl_fail(NIBL_E_FILE, "%s: tensor '%.*s' has no shape", file, NIBL_SHOW(t->name));
    for (uint32_t i = 0; nibl_json_each(json, shape, &i); t->n_dims++) {
        if (t->n_dims == NIBL_GGUF_MAX_DIMS)
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: tensor '%.*s' has more than %d dimensions", file,
                             NIBL_SHOW(t->name), NIBL_GGUF_MAX_DIMS);
        if (!nibl_json_u64(json, i, &dims[t->n_dims]) || dims[t->n_dims] == 0 ||
            !nibl_mul_u64(*elements, dims[t->n_dims], elements) || *elements > INT64_MAX)
            return nibl_fail(NIBL_E_FILE, "%s: tensor '%.*s': dimension %u is not possible", file,
                             NIBL_SHOW(t->name), t->n_dims);
    }
    for (uint32_t i = 0; i < NIBL_GGUF_MAX_DIMS; i++)
        t->dims[i] = i < t->n_dims ? dims[t->n_dims - 1 - i] : 1;
    return NIBL_OK;
}

static nibl_status read_tensor(const char *file, const nibl_json *json, uint32_t key, uint64_t data,
                               nibl_safetensor *t) {
    const uint32_t value = key + 1, offsets = nibl_json_get(json, value, "data_offsets");
    const uint32_t type = nibl_json_get(json, value, "dtype");
    *t = (nibl_safetensor){.name = slice_of(json, key)};
    if (json->nodes[key].escaped || t->name.length == 0 || t->name.length >= NIBL_GGUF_MAX_NAME)
        return nibl_fail(NIBL_E_FILE, "%s: '%.*s' is no name for a tensor", file, NIBL_SHOW(t->name));
    if (!nibl_json_is(json, type, NIBL_JSON_STRING))
        return nibl_fail(NIBL_E_FILE, "%s: tensor '%.*s' has no dtype", file, NIBL_SHOW(t->name));
    t->dtype = slice_of(json, type);
    uint64_t elements, bytes;
    NIBL_TRY(read_shape(file, json, nibl_json_get(json, value, "shape"), t, &elements));
    if (!nibl_json_is(json, offsets, NIBL_JSON_ARRAY) || json->nodes[offsets].next != offsets + 3 ||
        !nibl_json_u64(json, offsets + 1, &t->begin) || !nibl_json_u64(json, offsets + 2, &t->end) ||
        t->begin > t->end || t->end > NIBL_MAX_FILE - data)
        return nibl_fail(NIBL_E_FILE, "%s: tensor '%.*s': data_offsets are not possible", file,
                         NIBL_SHOW(t->name));
    const uint32_t width = element_bytes(t->dtype);
    if (width > 0 && (!nibl_mul_u64(elements, width, &bytes) || bytes != t->end - t->begin))
        return nibl_fail(NIBL_E_FILE,
                         "%s: tensor '%.*s' has %llu bytes, but its shape and type make another number", file,
                         NIBL_SHOW(t->name), (unsigned long long)(t->end - t->begin));
    t->begin += data;
    t->end += data;
    return NIBL_OK;
}

static int compare_begin(const void *a, const void *b) {
    const nibl_safetensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static nibl_status read_all(const char *file, const nibl_json *json, uint64_t data, nibl_safetensor *tensors,
                            size_t *count) {
    *count = 0;
    for (uint32_t i = 0; nibl_json_each(json, NIBL_JSON_ROOT, &i);) {
        if (nibl_json_equals(json, i, "__metadata__")) continue;
        NIBL_TRY(read_tensor(file, json, i, data, &tensors[*count]));
        ++*count;
    }
    qsort(tensors, *count, sizeof *tensors, compare_begin);
    for (size_t i = 1; i < *count; i++)
        if (tensors[i].begin < tensors[i - 1].end)
            return nibl_fail(NIBL_E_FILE, "%s: tensors '%.*s' and '%.*s' overlap", file,
                             NIBL_SHOW(tensors[i - 1].name), NIBL_SHOW(tensors[i].name));
    return NIBL_OK;
}

nibl_status nibl_safetensors_read(const char *file, const char *text, size_t length, nibl_safetensor **out,
                                  size_t *count) {
    nibl_json json = {0};
    NIBL_TRY(nibl_json_parse(file, text, length, &json));
    nibl_safetensor *tensors = NULL;
    nibl_status status = NIBL_OK;
    size_t most = 0;
    for (uint32_t i = 0; nibl_json_each(&json, NIBL_JSON_ROOT, &i);) most++;
    if (!nibl_json_is(&json, NIBL_JSON_ROOT, NIBL_JSON_OBJECT))
        status = nibl_fail(NIBL_E_FILE, "%s: its header is not a JSON object", file);
    else if (most > NIBL_GGUF_MAX_TENSORS)
        status = nibl_fail(NIBL_E_FILE, "%s: %zu tensors (limit %u)", file, most, NIBL_GGUF_MAX_TENSORS);
    else if (!(tensors = nibl_alloc((most + 1) * sizeof *tensors)))
        status = nibl_fail_memory(most * sizeof *tensors, "the list of tensors");
    if (status == NIBL_OK) status = read_all(file, &json, 8 + (uint64_t)length, tensors, count);
    nibl_json_free(&json);
    if (status < 0)
        nibl_free(tensors);
    else
        *out = tensors;
    return status;
}
