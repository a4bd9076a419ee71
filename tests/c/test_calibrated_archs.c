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

static nibl_status quantize_with(nibl_model *model, const nibl_quantize_options *options, size_t count,
                                 output *o) {
    nibl_quantizer *q = NULL;
    size_t needed = 0;
    *o = (output){0};
    nibl_status status = nibl_model_quantizer_new(model, options, tokens, count, WINDOW, &q);
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

static nibl_quantize_options options_of(const char *method) {
    return (nibl_quantize_options){.size = sizeof(nibl_quantize_options),
                                   .type = "q4_0",
                                   .embedding = "f32",
                                   .head = "f32",
                                   .method = method,
                                   .threads = 2};
}

static nibl_status quantize(nibl_model *model, const char *method, size_t count, output *o) {
    const nibl_quantize_options options = options_of(method);
    return quantize_with(model, &options, count, o);
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

static nibl_allotment *measured(nibl_model *model) {
    const nibl_quantize_options options = options_of("gptq");
    nibl_allotment *a = NULL;
    double done = 0;
    nibl_status status = nibl_allotment_new(model, &options, "q4_0,q8_0", tokens, TOKENS, WINDOW, &a);
    while (status >= 0 && (status = nibl_allotment_step(a, &done)) == NIBL_MORE) {
    }
    if (!CHECK_EQ(status, NIBL_OK)) printf("    %s\n", nibl_last_message());
    return a;
}

/* Loss of a model of so many bytes of tensors; with the tensors that share one type. */
static double mixed_loss(nibl_model *model, const float *reference, nibl_allotment *a, uint64_t bytes,
                         const char *together) {
    nibl_quantize_options options = options_of("gptq");
    bool found = false;
    output o;
    if (!CHECK_EQ(nibl_allotment_choose(a, bytes, &options.tensors, &options.tensor_count), NIBL_OK))
        return HUGE_VAL;
    for (size_t i = 0; i < options.tensor_count; i++)
        found = found || strcmp(options.tensors[i].pattern, together) == 0;
    CHECK(found);
    if (!CHECK_EQ(quantize_with(model, &options, TOKENS, &o), NIBL_OK)) return HUGE_VAL;
    const double loss = loss_of(&o, reference);
    drop(&o);
    return loss;
}

/* What the smallest types take; routers are F32 in a file, 16 bits in a folder. */
static uint64_t least_of(nibl_allotment *a) {
    const nibl_tensor_type *types;
    size_t count;
    CHECK_EQ(nibl_allotment_choose(a, 1000, &types, &count), NIBL_E_ARGUMENT);
    const char *take = strstr(nibl_last_message(), "they take ");
    return CHECK(take != NULL) ? strtoull(take + 10, NULL, 10) : 0;
}

/* Mixed precision: the matrices of a tensor get a type together, a file and a folder the same ones. */
static void bytes_go_where_they_help(void) {
    static const char *const together[ARCHS] = {"blk.1.attn_qkv.weight", "blk.1.attn_qkv.weight",
                                                "blk.1.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight",
                                                "blk.1.shortconv.in_proj.weight"};
    for (size_t i = 0; i < ARCHS; i++) {
        nibl_model *file = load_source(archs[i].name, false), *folder = load_source(archs[i].name, true);
        float *reference = logits_of(file);
        uint64_t before, after;
        nibl_allotment *a = measured(file), *b = measured(folder); /* which start threads */
        nibl_allotment_free(a);
        nibl_allotment_free(b);
        nibl_memory(&before, NULL);
        a = measured(file);
        b = measured(folder);
        const uint64_t least = least_of(a), least_folder = least_of(b),
                       more[] = {0, least / 5, UINT64_MAX / 4};
        const nibl_tensor_type *types, *others;
        size_t count, other_count;
        double losses[3];
        for (int s = 0; s < 3; s++) {
            losses[s] = mixed_loss(file, reference, a, least + more[s], together[i]);
            CHECK_EQ(nibl_allotment_choose(a, least + more[s], &types, &count), NIBL_OK);
            CHECK_EQ(nibl_allotment_choose(b, least_folder + more[s], &others, &other_count), NIBL_OK);
            bool same = CHECK_EQ(count, other_count);
            for (size_t j = 0; j < count && same; j++)
                same = strcmp(types[j].pattern, others[j].pattern) == 0 &&
                       strcmp(types[j].type, others[j].type) == 0;
            CHECK(same);
        }
        printf("%s: %.5f, a fifth more bytes %.5f, all in q8_0 %.5f\n", archs[i].name, losses[0], losses[1],
               losses[2]);
        CHECK(losses[1] < losses[0] && losses[2] < losses[1]);
        nibl_allotment_free(a);
        nibl_allotment_free(b);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
        float *same = logits_of(file);
        CHECK(memcmp(same, reference, (size_t)TOKENS * file->hyper.vocabulary * sizeof *same) == 0);
        free(same);
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
    {"bytes go where they help", bytes_go_where_they_help},
    {"plain rounding is that of the stream", plain_rounding_is_that_of_the_stream},
    {"few tokens are told", few_tokens_are_told},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + i / 9 + 11) % 100;
    return test_run(tests, sizeof tests / sizeof *tests);
}
