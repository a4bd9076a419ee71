/* Calibration of models whose matrices are not one tensor each: fused ones (phi3, gpt2), transposed ones (gpt2's folder),
 * experts in one tensor, in one each, or gate and up of all in one (qwen3moe, gpt-oss), convolutions (lfm2). A file and a folder
 * of the same weights give the same model; plain rounding is what the stream makes; methods lose less. */
#include "core/model.h"
#include "tests/c/model_files.h"
#include "tests/c/output.h"

#include <math.h>

#define ARCH "tests/fixtures/arch"
enum { TOKENS = 480, WINDOW = 120 };

static int32_t tokens[TOKENS];

static nibl_model *load_source(const char *arch, bool folder) {
    char path[128];
    nibl_model *model = NULL;
    if (!folder) {
        snprintf(path, sizeof path, ARCH "/%s.gguf", arch);
        return load_file(path);
    }
    snprintf(path, sizeof path, ARCH "/%s", arch);
    CHECK_EQ(load_files(path, "config.json", (load_options){0}, &model), NIBL_OK);
    return model;
}

static nibl_status quantize(nibl_model *model, const char *method, size_t count, output *o) {
    const nibl_quantize_options options = {.size = sizeof options,
                                           .type = "q4_0",
                                           .embedding = "f32",
                                           .head = "f32",
                                           .method = method,
                                           .threads = 2};
    nibl_quantizer *q = NULL;
    size_t needed = 0;
    *o = (output){0};
    nibl_status status = nibl_model_quantizer_new(model, &options, tokens, count, WINDOW, &q);
    if (status < 0) return status;
    for (status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &o->bytes, &o->length);
    }
    CHECK_EQ(o->length, nibl_quantizer_size(q));
    nibl_quantizer_report(q, NULL, 0, &needed);
    o->report = calloc(1, needed + 1);
    CHECK_EQ(nibl_quantizer_report(q, o->report, needed + 1, &needed), NIBL_OK);
    nibl_quantizer_free(q);
    return status;
}

/* Logits of all tokens, in windows. */
static float *logits_of(nibl_model *model) {
    const size_t n = model->hyper.vocabulary;
    const nibl_session_options options = {.size = sizeof options,
                                          .logits = NIBL_LOGITS_ALL,
                                          .activations = NIBL_ACT_F32,
                                          .kv_type = NIBL_KV_F32,
                                          .chunk = WINDOW};
    float *all = calloc(TOKENS * n, sizeof *all);
    for (int at = 0; at < TOKENS; at += WINDOW) {
        nibl_session *session = NULL;
        const float *logits;
        size_t first, count = 0;
        if (CHECK_EQ(nibl_session_new(model, &options, &session), NIBL_OK) &&
            CHECK_EQ(nibl_session_set_tokens(session, tokens + at, WINDOW, NULL), NIBL_OK) &&
            CHECK(nibl_step(&session, 1, 0) >= 0) &&
            CHECK_EQ(nibl_session_logits(session, &logits, &first, &count), NIBL_OK) &&
            CHECK_EQ(count, WINDOW))
            memcpy(all + (size_t)at * n, logits, count * n * sizeof *logits);
        nibl_session_free(session);
    }
    return all;
}

static double loss_of(const output *o, const float *reference) {
    nibl_model *model = load_output(o);
    if (!model) return HUGE_VAL;
    float *logits = logits_of(model);
    const double loss = rms_difference(logits, reference, (size_t)TOKENS * model->hyper.vocabulary);
    free(logits);
    nibl_model_free(model);
    return loss;
}

static const struct {
    const char *name;
    double awq, gptq; /* of plain rounding's loss, at most */
} archs[] = {{"phi3", 1.1, 0.9},
             {"gpt2", 0.95, 0.7},
             {"qwen3moe", 1.1, 0.9},
             {"gpt-oss", 1.1, 0.9},
             {"lfm2", 1.1, 0.85}};
enum { ARCHS = sizeof archs / sizeof *archs };

static void methods_lose_less(void) {
    static const char *const methods[] = {"rtn", "clip", "awq", "gptq", "awq,gptq"};
    for (size_t a = 0; a < ARCHS; a++) {
        double rtn = 0;
        nibl_model *file = load_source(archs[a].name, false), *folder = load_source(archs[a].name, true);
        if (!CHECK(file && folder)) continue;
        float *reference = logits_of(file);
        for (int i = 0; i < 5; i++) {
            output o, other;
            if (!CHECK_EQ(quantize(file, methods[i], TOKENS, &o), NIBL_OK)) {
                printf("    %s: %s\n", archs[a].name, nibl_last_message());
                continue;
            }
            CHECK_EQ(quantize(folder, methods[i], TOKENS, &other), NIBL_OK);
            const double loss = loss_of(&o, reference);
            if (i == 0) rtn = loss;
            printf("%s %s: %.5f\n", archs[a].name, methods[i], loss);
            CHECK(loss < (i > 2 ? archs[a].gptq : i == 2 ? archs[a].awq : 1.1) * rtn || i == 0);
            CHECK(fabs(loss_of(&other, reference) - loss) < 1e-9);
            CHECK(strstr(o.report, "uncalibrated") == NULL);
            CHECK((strstr(o.report, "unscaled") != NULL) == (strstr(methods[i], "awq") != NULL));
            drop(&o);
            drop(&other);
        }
        float *after = logits_of(file);
        CHECK(memcmp(after, reference, (size_t)TOKENS * file->hyper.vocabulary * sizeof *after) == 0);
        free(after);
        free(reference);
        nibl_model_free(file);
        nibl_model_free(folder);
    }
}

/* Without a text: the bits of a file that went through the stream. */
static void plain_rounding_is_that_of_the_stream(void) {
    for (size_t a = 0; a < ARCHS; a++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gguf", archs[a].name);
        const nibl_quantize_options options = {.size = sizeof options, .embedding = "f32", .head = "f32"};
        model_files m = {.folder = ARCH, .file = UINT32_MAX};
        nibl_loader *loader = NULL;
        nibl_quantizer *q = NULL;
        output streamed = {0}, o;
        nibl_status status = nibl_loader_new(0, &loader);
        if (status >= 0) status = nibl_loader_set_name(loader, name);
        for (bool done = false; status >= 0 && !done;) {
            if (!q && nibl_loader_header_ready(loader)) status = nibl_quantizer_new(loader, &options, &q);
            if (status >= 0) status = answer_loader(&m, loader, &done);
            if (q && status >= 0) take_output(q, &streamed.bytes, &streamed.length);
        }
        CHECK(status >= 0);
        free(m.bytes);
        nibl_loader_free(loader);
        nibl_quantizer_free(q);
        nibl_model *model = load_source(archs[a].name, true);
        CHECK_EQ(quantize(model, "rtn", 0, &o), NIBL_OK);
        nibl_model *expected = load_output(&streamed);
        float *logits = logits_of(expected);
        CHECK(loss_of(&o, logits) <= 0);
        free(logits);
        nibl_model_free(expected);
        nibl_model_free(model);
        drop(&o);
        drop(&streamed);
    }
}

/* An expert that too few tokens reach is rounded as without a text. */
static void few_tokens_are_told(void) {
    nibl_model *model = load_source("qwen3moe", false);
    output o;
    CHECK_EQ(quantize(model, "gptq", 40, &o), NIBL_OK);
    CHECK_HAS(o.report, "\"uncalibrated\":");
    CHECK(strstr(o.report, "blk.0.attn_q.weight") != NULL);
    drop(&o);
    CHECK_EQ(quantize(model, "gptq", 2 * WINDOW, &o), NIBL_OK);
    CHECK(strstr(o.report, "\"uncalibrated\":") == NULL);
    drop(&o);
    nibl_model_free(model);
}

static const test tests[] = {
    {"methods lose less", methods_lose_less},
    {"plain rounding is that of the stream", plain_rounding_is_that_of_the_stream},
    {"few tokens are told", few_tokens_are_told},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + i / 9 + 11) % 100;
    return test_run(tests, sizeof tests / sizeof *tests);
}
