/* What a quantizer put out, for tests. */
#ifndef NIBL_TEST_OUTPUT_H
#define NIBL_TEST_OUTPUT_H

#include "tests/c/model_file.h"

#include <math.h>

typedef struct output {
    uint8_t *bytes;
    size_t length;
    char *report;
} output;

static inline void drop(output *o) {
    free(o->bytes);
    free(o->report);
    *o = (output){0};
}

/* The model of a GGUF file that was put out. */
static inline nibl_model *load_output(const output *o) {
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    CHECK_EQ(nibl_loader_new(o->length, &loader), NIBL_OK);
    CHECK_EQ(nibl_loader_feed(loader, 0, o->bytes, o->length), NIBL_NEED_DATA);
    if (!CHECK_EQ(nibl_loader_begin(loader, &model), NIBL_OK) ||
        !CHECK_EQ(nibl_loader_feed(loader, 0, o->bytes, o->length), NIBL_OK))
        printf("    %s\n", nibl_last_message());
    nibl_loader_free(loader);
    return model;
}

/* Root of the mean square, of logits from others. */
static inline double rms_difference(const float *a, const float *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (double)count);
}

#endif
