/* Loads a model file for tests: everything at once through the push loader. */
#ifndef NIBL_TEST_MODEL_FILE_H
#define NIBL_TEST_MODEL_FILE_H

#include "core/nibl.h"
#include "tests/c/test.h"

static inline uint8_t *read_file(const char *path, size_t *length) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    *length = bytes ? fread(bytes, 1, (size_t)size, f) : 0;
    fclose(f);
    return bytes;
}

/* NULL, with a message, where it cannot be loaded. */
static inline nibl_model *load_file(const char *path) {
    size_t length = 0;
    uint8_t *bytes = read_file(path, &length);
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    nibl_status status = bytes ? nibl_loader_new(length, &loader) : NIBL_E_ARGUMENT;
    if (status >= 0) status = nibl_loader_feed(loader, 0, bytes, length);
    if (status >= 0) status = nibl_loader_begin(loader, &model);
    if (status >= 0) status = nibl_loader_feed(loader, 0, bytes, length);
    if (status != NIBL_OK) {
        printf("%s: %s\n", path, bytes ? nibl_last_message() : "cannot be read");
        nibl_model_free(model);
        model = NULL;
    }
    nibl_loader_free(loader);
    free(bytes);
    return model;
}

/* Appends what the quantizer has put out to bytes that grow; returns how many. */
static inline size_t take_output(nibl_quantizer *q, uint8_t **bytes, size_t *length) {
    const void *out;
    size_t more = 0;
    nibl_quantizer_output(q, &out, &more);
    if (more == 0) return 0;
    *bytes = realloc(*bytes, *length + more);
    memcpy(*bytes + *length, out, more);
    *length += more;
    return more;
}

/* Hash of the last logits of a fixed sequence; frees the model. threads 0 = as many as there are. */
static inline uint64_t logits_hash(nibl_model *model, uint32_t threads) {
    int32_t ids[40];
    nibl_model_info info = {.size = sizeof info};
    if (model) nibl_model_get_info(model, &info);
    const int tokens = info.vocabulary > 0 && info.vocabulary < 272 ? (int)info.vocabulary : 272;
    for (int i = 0; i < 40; i++) ids[i] = (i * 37 + 11) % tokens;
    nibl_session *session = NULL;
    const nibl_session_options o = {.size = sizeof o, .threads = threads};
    uint64_t hash = 0;
    if (CHECK(model != NULL) && CHECK_EQ(nibl_session_new(model, &o, &session), NIBL_OK) &&
        CHECK_EQ(nibl_session_set_tokens(session, ids, 40, NULL), NIBL_OK) &&
        CHECK_EQ(nibl_step(&session, 1, 0), NIBL_OK))
        hash = nibl_session_hash(session);
    nibl_session_free(session);
    nibl_model_free(model);
    return hash;
}

/* The default model: NIBL_MODEL or its place in the project; NULL, told, where it is absent. */
static inline nibl_model *load_default_model(void) {
    const char *path = getenv("NIBL_MODEL");
    if (!path) path = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("skipped: no model (node demo/fetch.js brings it)\n");
        return NULL;
    }
    fclose(f);
    return load_file(path);
}

#endif
