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

/* The logits alone. */
static inline bool open_logits(const char *path, fixture *f) {
    char name[128];
    size_t length = 0;
    snprintf(name, sizeof name, "%s.logits", path);
    f->bytes = read_file(name, &length);
    if (!CHECK(f->bytes)) return false;
    memcpy(&f->tokens, f->bytes, 4);
    memcpy(&f->vocabulary, f->bytes + 4, 4);
    f->ids = (const int32_t *)(const void *)(f->bytes + 8);
    f->logits = (const float *)(const void *)(f->bytes + 8 + 4ul * f->tokens);
    return CHECK_EQ(length, 8 + 4ul * f->tokens * (1 + f->vocabulary));
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
    for (nibl_status status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_step(&session, 1, 0);
        const float *rows;
        size_t first, n;
        if (!CHECK(status >= 0) || !CHECK_EQ(nibl_session_logits(session, &rows, &first, &n), NIBL_OK)) break;
        memcpy(out + first * info.vocabulary, rows, n * info.vocabulary * sizeof *out);
    }
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

#endif
