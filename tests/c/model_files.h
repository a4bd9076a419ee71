/* Loads a model of several files for tests, and lets a test spoil one of them. */
#ifndef NIBL_TEST_MODEL_FILES_H
#define NIBL_TEST_MODEL_FILES_H

#include "tests/c/model_file.h"

/* What stands in place of a file. */
typedef struct spoilt {
    const char *name; /* of the file; NULL = none */
    const char *text; /* its whole contents; NULL: as below */
    const char *replace,
        *with; /* the first occurrence of one text by another of the same length; NULL: as below */
    const char
        *tensor; /* not NULL: `length` bytes at `offset` of this tensor of a .safetensors file are these */
    size_t offset;
    const uint8_t *bytes;
    size_t length; /* else: it is cut to so many bytes; 0: missing */
} spoilt;

typedef struct load_options {
    spoilt spoilt;
    size_t piece; /* bytes fed at once; 0 = all that is wanted */
    bool quiet; /* about sizes: they are told only where a file ends */
    const char *quantize;
    const char *layout; /* of tests/fixtures/quantized: its files stand for those of a folder */
} load_options;

typedef struct model_files {
    const char *folder;
    load_options options;
    uint32_t file; /* at hand */
    uint8_t *bytes;
    size_t length;
} model_files;

/* Where a tensor whose name ends so stands in a .safetensors file, whose header is as `safetensors` writes it. */
static inline size_t tensor_at(const model_files *m, const char *tensor) {
    const size_t header = (size_t)nibl_load_u64(m->bytes);
    char *text = calloc(1, header + 1), key[128];
    memcpy(text, m->bytes + 8, header);
    snprintf(key, sizeof key, "%s\":", tensor);
    const char *at = strstr(text, key), *offsets = at ? strstr(at, "offsets\":[") : NULL;
    const size_t found = offsets ? 8 + header + (size_t)strtoull(offsets + 10, NULL, 10) : 0;
    free(text);
    CHECK(found > 0);
    return found;
}

static inline void spoil(model_files *m) {
    const spoilt *s = &m->options.spoilt;
    if (s->text) {
        free(m->bytes);
        m->length = strlen(s->text);
        m->bytes = malloc(m->length + 1);
        memcpy(m->bytes, s->text, m->length + 1);
        return;
    }
    if (s->tensor) {
        memcpy(m->bytes + tensor_at(m, s->tensor) + s->offset, s->bytes, s->length);
        return;
    }
    if (!s->replace) {
        m->length = s->length < m->length ? s->length : m->length;
        return;
    }
    const size_t width = strlen(s->replace);
    for (size_t i = 0; i + width <= m->length; i++) {
        if (memcmp(m->bytes + i, s->replace, width) != 0) continue;
        memcpy(m->bytes + i, s->with, strlen(s->with));
        return;
    }
    CHECK_EQ(0, 1 /* the text to be replaced is there */);
}

/* Where a file of a model lies. */
static inline void path_of(const model_files *m, const char *name, char path[512]) {
    const char *from = m->folder, *layout = m->options.layout;
    char renamed[256];
    snprintf(renamed, sizeof renamed, "%s", name);
    if (layout && strstr(name, "tokenizer")) from = "tests/fixtures/tiny-hf-f16";
    if (layout && strstr(name, ".index.json")) snprintf(renamed, sizeof renamed, "index.json");
    if (layout && strcmp(name, "config.json") == 0) snprintf(renamed, sizeof renamed, "%s.json", layout);
    if (layout && strcmp(name, "layout.safetensors") == 0)
        snprintf(renamed, sizeof renamed, "%s.safetensors", layout);
    snprintf(path, 512, "%s/%s", from, renamed);
}

/* Makes a file the one at hand; one that does not exist has no bytes. */
static inline nibl_status open_model_file(model_files *m, nibl_loader *loader, uint32_t file) {
    const char *name = nibl_loader_file_name(loader, file);
    if (!CHECK(name != NULL)) return NIBL_E_ARGUMENT;
    char path[512];
    path_of(m, name, path);
    free(m->bytes);
    m->length = 0;
    m->bytes = read_file(path, &m->length);
    m->file = file;
    if (m->options.spoilt.name && strcmp(m->options.spoilt.name, name) == 0) spoil(m);
    return m->options.quiet ? NIBL_NEED_DATA : nibl_loader_end(loader, NIBL_ADDRESS(file, m->length));
}

/* Answers what the loader wants next, once; *done when that is nothing. */
static inline nibl_status answer_loader(model_files *m, nibl_loader *loader, bool *done) {
    uint64_t address, length;
    nibl_status status = nibl_loader_want(loader, &address, &length);
    *done = status < 0 || length == 0;
    if (*done) return status;
    if (NIBL_ADDRESS_FILE(address) != m->file) return open_model_file(m, loader, NIBL_ADDRESS_FILE(address));
    const size_t offset = (size_t)NIBL_ADDRESS_OFFSET(address);
    if (offset >= m->length) {
        status = nibl_loader_end(loader, NIBL_ADDRESS(m->file, m->length));
        *done = !CHECK(offset == m->length) || (!m->options.quiet && !CHECK(status < 0));
        return status;
    }
    if (length > m->length - offset) length = m->length - offset;
    if (m->options.piece > 0 && length > m->options.piece) length = m->options.piece;
    uint8_t *copy = malloc((size_t)length); /* so that a sanitizer sees a read behind it */
    memcpy(copy, m->bytes + offset, (size_t)length);
    status = nibl_loader_feed(loader, address, copy, (size_t)length);
    free(copy);
    return status;
}

/* A loader that has read the header of the model that begins with file `name`; the caller's, even after an error. */
static inline nibl_status read_header(model_files *m, const char *name, nibl_loader **loader) {
    nibl_status status = nibl_loader_new(0, loader);
    if (status >= 0) status = nibl_loader_set_name(*loader, name);
    for (bool done; status >= 0 && !nibl_loader_header_ready(*loader);)
        status = answer_loader(m, *loader, &done);
    return status;
}

/* Answers what the loader wants until it has all; begins the model. `*out` is NULL after an error. */
static inline nibl_status load_files(const char *folder, const char *name, load_options options,
                                     nibl_model **out) {
    model_files m = {.folder = folder, .options = options, .file = UINT32_MAX};
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    nibl_status status = nibl_loader_new(0, &loader);
    if (status >= 0) status = nibl_loader_set_name(loader, name);
    if (status >= 0 && options.quantize) status = nibl_loader_set_quantize(loader, options.quantize);
    for (bool done = false; status >= 0 && !done;) {
        if (!model && nibl_loader_header_ready(loader)) status = nibl_loader_begin(loader, &model);
        if (status >= 0) status = answer_loader(&m, loader, &done);
    }
    free(m.bytes);
    nibl_loader_free(loader);
    if (status < 0) {
        nibl_model_free(model);
        model = NULL;
    }
    *out = model;
    return status < 0 ? status : NIBL_OK;
}

/* Loading ends with this status, which a message explains, and without a trace: whether sizes are told or not. */
static inline void check_refused(const char *folder, const char *name, load_options options,
                                 nibl_status expected, const char *says, size_t n) {
    for (int quiet = 0; quiet < 2; quiet++) {
        uint64_t before, after;
        nibl_memory(&before, NULL);
        nibl_model *model;
        options.quiet = quiet;
        const nibl_status status = load_files(folder, name, options, &model);
        if (!CHECK_EQ(status, expected)) printf("    case %zu: %s\n", n, nibl_last_message());
        if (status < 0) CHECK_HAS(nibl_last_message(), says);
        nibl_model_free(model);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
    }
}

#endif
