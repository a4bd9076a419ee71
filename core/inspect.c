/* nibl_loader_inspect: a model file as one JSON document, from its header alone. */
#include "core/dtype.h"
#include "core/hf_quant.h"
#include "core/loader.h"

#include <string.h>

enum { LISTED_TYPES = 64 }; /* ids from here on are summed up as "unknown" */

static void write_key(nibl_writer *w, const char *key) { nibl_print(w, ",\"%s\":", key); }

static void write_u64(nibl_writer *w, const char *key, uint64_t value) {
    nibl_print(w, ",\"%s\":%llu", key, (unsigned long long)value);
}

static void write_text(nibl_writer *w, const char *text) { nibl_write_json(w, text, strlen(text)); }

static void write_type(nibl_writer *w, uint32_t id) {
    const char *name = nibl_dtype_name(id);
    if (name)
        write_text(w, name);
    else
        nibl_print(w, "\"type %u\"", (unsigned)id);
}

static void write_metadata_string(nibl_writer *w, const nibl_gguf *gguf, const char *key) {
    nibl_slice value;
    if (nibl_gguf_string(gguf, key, &value))
        nibl_write_json(w, value.bytes, value.length);
    else
        nibl_print(w, "null");
}

static void write_types(nibl_writer *w, const nibl_gguf *gguf) {
    uint64_t tensors[LISTED_TYPES + 1] = {0}, bytes[LISTED_TYPES + 1] = {0};
    for (size_t i = 0; i < nibl_gguf_tensor_count(gguf); i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, i);
        uint32_t type = t->type < LISTED_TYPES ? t->type : LISTED_TYPES;
        tensors[type]++;
        bytes[type] += t->bytes;
    }
    const char *separator = "";
    nibl_print(w, "{");
    for (uint32_t type = 0; type <= LISTED_TYPES; type++) {
        if (tensors[type] == 0) continue;
        nibl_print(w, "%s", separator);
        if (type < LISTED_TYPES)
            write_type(w, type);
        else
            nibl_print(w, "\"unknown\"");
        nibl_print(w, ":{\"tensors\":%llu", (unsigned long long)tensors[type]);
        if (bytes[type] > 0)
            write_u64(w, "bytes", bytes[type]);
        else
            nibl_print(w, ",\"bytes\":null");
        nibl_print(w, "}");
        separator = ",";
    }
    nibl_print(w, "}");
}

static void write_metadata(nibl_writer *w, const nibl_gguf *gguf) {
    nibl_print(w, "{");
    for (size_t i = 0; i < nibl_gguf_metadata_count(gguf); i++) {
        nibl_slice key = nibl_gguf_metadata_key(gguf, i);
        if (i > 0) nibl_print(w, ",");
        nibl_write_json(w, key.bytes, key.length);
        nibl_print(w, ":");
        nibl_gguf_metadata_json(gguf, i, w);
    }
    nibl_print(w, "}");
}

/* `files`: the model has several, and offsets are addresses. */
static void write_tensors(nibl_writer *w, const nibl_gguf *gguf, bool files) {
    nibl_print(w, "[");
    for (size_t i = 0; i < nibl_gguf_tensor_count(gguf); i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, i);
        nibl_print(w, "%s{\"name\":", i > 0 ? "," : "");
        nibl_write_json(w, t->name.bytes, t->name.length);
        write_key(w, "type");
        write_type(w, t->type);
        write_key(w, "shape");
        nibl_print(w, "[");
        for (uint32_t d = 0; d < t->n_dims; d++)
            nibl_print(w, "%s%llu", d > 0 ? "," : "", (unsigned long long)t->dims[d]);
        nibl_print(w, "]");
        if (files) write_u64(w, "file", NIBL_ADDRESS_FILE(t->offset));
        write_u64(w, "offset", files ? NIBL_ADDRESS_OFFSET(t->offset) : t->offset);
        if (t->bytes > 0)
            write_u64(w, "bytes", t->bytes);
        else
            nibl_print(w, ",\"bytes\":null");
        nibl_print(w, "}");
    }
    nibl_print(w, "]");
}

nibl_status nibl_loader_inspect(const nibl_loader *loader, char *json, size_t capacity, size_t *needed) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    nibl_writer w = {.text = json, .capacity = capacity};
    uint64_t parameters = 0, bytes = 0;
    nibl_hfq_config quantization;
    nibl_hfq_read_metadata(gguf, &quantization);
    for (size_t i = 0; i < nibl_gguf_tensor_count(gguf); i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, i);
        parameters += nibl_hfq_elements(&quantization, t);
        bytes += t->bytes;
    }
    nibl_slice format;
    const bool native = !nibl_gguf_string(gguf, "nibl.format", &format);
    nibl_print(&w, native ? "{\"format\":\"gguf\",\"version\":3," : "{\"format\":\"safetensors\",");
    nibl_print(&w, "\"architecture\":");
    write_metadata_string(&w, gguf, "general.architecture");
    write_key(&w, "name");
    write_metadata_string(&w, gguf, "general.name");
    write_u64(&w, "parameters", parameters);
    write_u64(&w, "file_tensor_bytes", bytes);
    write_key(&w, "types");
    write_types(&w, gguf);
    write_key(&w, "metadata");
    write_metadata(&w, gguf);
    write_key(&w, "tensors");
    write_tensors(&w, gguf, nibl_loader_file_name(loader, 1) != NULL);
    nibl_print(&w, "}");
    return nibl_write_end(&w, needed);
}
