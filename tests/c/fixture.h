/* A tiny model and the logits that `transformers` gives for it: "<path>.gguf" beside "<path>.logits" (tiny_llama.py has the
 * format). */
#ifndef NIBL_TEST_FIXTURE_H
#define NIBL_TEST_FIXTURE_H

#include "tests/c/model_file.h"

#include <math.h>

typedef struct fixture {
    nibl_model *model;
    uint8_t *bytes;
    uint32_t tokens, vocabulary;
    const int32_t *ids;
    const float *logits; /* (tokens, vocabulary) */
} fixture;

/* Reads the ids and logits that a file begins with, and keeps its bytes; *rest: where they end. */
static inline bool read_logits(const char *path, fixture *f, size_t *length, size_t *rest) {
    f->bytes = read_file(path, length);
    if (!CHECK(f->bytes)) return false;
    memcpy(&f->tokens, f->bytes, 4);
    memcpy(&f->vocabulary, f->bytes + 4, 4);
    f->ids = (const int32_t *)(const void *)(f->bytes + 8);
    f->logits = (const float *)(const void *)(f->bytes + 8 + 4ul * f->tokens);
    *rest = 8 + 4ul * f->tokens * (1 + f->vocabulary);
    return true;
}

/* The logits alone. */
static inline bool open_logits(const char *path, fixture *f) {
    char name[128];
    size_t length = 0, rest = 0;
    snprintf(name, sizeof name, "%s.logits", path);
    return read_logits(name, f, &length, &rest) && CHECK_EQ(length, rest);
}

static inline bool open_fixture(const char *path, fixture *f) {
    char name[128];
    snprintf(name, sizeof name, "%s.gguf", path);
    f->model = load_file(name);
    return open_logits(path, f) && CHECK(f->model);
}

static inline void close_fixture(fixture *f) {
    nibl_model_free(f->model);
    free(f->bytes);
}

/* Logits of every position, (count, vocabulary); the caller frees. */
static inline float *all_logits(nibl_model *model, nibl_session_options options, const int32_t *ids,
                                size_t count) {
    nibl_model_info info = {.size = sizeof info};
    nibl_model_get_info(model, &info);
    options.size = sizeof options;
    options.logits = NIBL_LOGITS_ALL;
    float *out = calloc(count * info.vocabulary, sizeof *out);
    nibl_session *session = NULL;
    CHECK_EQ(nibl_session_new(model, &options, &session), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(session, ids, count, NULL), NIBL_OK);
    size_t seen = 0;
    for (nibl_status status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_step(&session, 1, 0);
        const float *rows;
        size_t first, n;
        if (!CHECK(status >= 0) || !CHECK_EQ(nibl_session_logits(session, &rows, &first, &n), NIBL_OK)) break;
        memcpy(out + first * info.vocabulary, rows, n * info.vocabulary * sizeof *out);
        seen += n;
    }
    CHECK_EQ(seen, count);
    nibl_session_free(session);
    return out;
}

/* The largest difference to the fixture's logits. */
static inline double worst_difference(const fixture *f, const float *logits) {
    double worst = 0;
    for (size_t j = 0; j < (size_t)f->tokens * f->vocabulary; j++) {
        const double difference = fabs((double)logits[j] - (double)f->logits[j]);
        worst = difference <= worst ? worst : difference; /* a NaN is the worst */
    }
    return worst;
}

/* The same of a model on the exact path. */
static inline double exact_difference(const fixture *f, nibl_model *model) {
    const nibl_session_options exact = {.activations = NIBL_ACT_F32, .kv_type = NIBL_KV_F32};
    float *logits = all_logits(model, exact, f->ids, f->tokens);
    const double worst = worst_difference(f, logits);
    free(logits);
    return worst;
}

#endif
