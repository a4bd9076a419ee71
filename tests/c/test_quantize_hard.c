/* The quantizer where things go wrong: weights that are no numbers or too large, inputs and channels that are dead, an end at
 * any point. What comes out is good, or an error says why; memory comes back, and the source is as it was. */
#include "core/base.h"
#include "core/model.h"
#include "tests/c/model_files.h"
#include "tests/c/output.h"

#include <math.h>

#define TINY "tests/fixtures/tiny-llama-f32.gguf"
enum { TOKENS = 160, WINDOW = 40 };

static int32_t tokens[TOKENS];
static uint64_t seed = 1;

/* Steele, Lea and Flood's splitmix64. */
static uint32_t below(uint32_t n) {
    uint64_t z = seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 33) % n;
}

/* Row `row` of a tensor, columns [begin, end), becomes `value`; row UINT32_MAX: every row. */
typedef struct change {
    const char *tensor;
    uint32_t row, begin, end;
    float value;
} change;

/* The tiny model with changes. */
static nibl_model *changed(const change *changes, size_t count, nibl_status *status) {
    size_t length = 0;
    nibl_model *plain = load_file(TINY), *model = NULL;
    uint8_t *bytes = read_file(TINY, &length);
    nibl_loader *loader = NULL;
    for (size_t i = 0; i < count; i++) {
        const nibl_gguf_tensor *t = nibl_gguf_find_tensor(plain->gguf, changes[i].tensor);
        if (!CHECK(t != NULL)) continue;
        const uint64_t rows = t->dims[1];
        for (uint64_t row = 0; row < rows; row++)
            for (uint32_t j = changes[i].begin;
                 (changes[i].row == UINT32_MAX || changes[i].row == row) && j < changes[i].end; j++)
                memcpy(bytes + t->offset + 4 * (row * t->dims[0] + j), &changes[i].value, 4);
    }
    nibl_model_free(plain);
    CHECK_EQ(nibl_loader_new(length, &loader), NIBL_OK);
    *status = nibl_loader_feed(loader, 0, bytes, length);
    if (*status >= 0) *status = nibl_loader_begin(loader, &model);
    if (*status >= 0) *status = nibl_loader_feed(loader, 0, bytes, length);
    if (*status < 0) {
        nibl_model_free(model);
        model = NULL;
    }
    nibl_loader_free(loader);
    free(bytes);
    return model;
}

/* At most `steps`: NIBL_MORE where they were too few. */
static nibl_status quantize(nibl_model *model, const char *type, const char *method, uint32_t steps,
                            output *o) {
    const nibl_quantize_options options = {.size = sizeof options,
                                           .type = type,
                                           .format = "gguf",
                                           .embedding = "f32",
                                           .head = "f32",
                                           .method = method,
                                           .threads = 2,
                                           .measure = true};
    nibl_quantizer *q = NULL;
    *o = (output){0};
    nibl_status status = nibl_model_quantizer_new(model, &options, tokens, TOKENS, WINDOW, &q);
    if (status < 0) return status;
    for (status = NIBL_MORE; status == NIBL_MORE && steps > 0; steps--) {
        status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &o->bytes, &o->length);
    }
    if (status == NIBL_OK) {
        size_t needed = 0;
        nibl_quantizer_report(q, NULL, 0, &needed);
        o->report = malloc(needed + 1);
        CHECK_EQ(nibl_quantizer_report(q, o->report, needed + 1, &needed), NIBL_OK);
    } else {
        drop(o);
    }
    nibl_quantizer_free(q);
    return status;
}

/* Root mean square of what the logits of all tokens changed by; not a number where one is not finite. */
static double distance(nibl_model *a, nibl_model *b) {
    nibl_model *const models[] = {a, b};
    const uint32_t n = a->hyper.vocabulary;
    float *all[2];
    double sum = 0;
    for (int i = 0; i < 2; i++) {
        const nibl_session_options options = {.size = sizeof options,
                                              .logits = NIBL_LOGITS_ALL,
                                              .activations = NIBL_ACT_F32,
                                              .kv_type = NIBL_KV_F32,
                                              .chunk = TOKENS};
        nibl_session *session = NULL;
        const float *logits;
        size_t first, count = 0;
        all[i] = calloc((size_t)TOKENS * n, sizeof **all);
        if (CHECK_EQ(nibl_session_new(models[i], &options, &session), NIBL_OK) &&
            CHECK_EQ(nibl_session_set_tokens(session, tokens, TOKENS, NULL), NIBL_OK) &&
            CHECK(nibl_step(&session, 1, 0) >= 0) &&
            CHECK_EQ(nibl_session_logits(session, &logits, &first, &count), NIBL_OK))
            memcpy(all[i], logits, count * n * sizeof *logits);
        CHECK_EQ(count, TOKENS);
        nibl_session_free(session);
    }
    for (size_t i = 0; i < (size_t)TOKENS * n; i++)
        sum += ((double)all[0][i] - (double)all[1][i]) * ((double)all[0][i] - (double)all[1][i]);
    free(all[0]);
    free(all[1]);
    return sqrt(sum / ((double)TOKENS * n));
}

static const char *const methods[] = {"rtn", "clip", "imatrix", "awq", "gptq", "awq,gptq", "rotate,gptq"};
enum { METHODS = sizeof methods / sizeof *methods };

static void values_that_are_no_numbers_are_told(void) {
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        uint64_t before, after;
        nibl_status status;
        nibl_memory(&before, NULL);
        const change c = {"blk.1.ffn_up.weight", 7, 5, 6, bad[i]};
        CHECK(changed(&c, 1, &status) == NULL);
        CHECK_EQ(status, NIBL_E_FILE);
        CHECK_HAS(nibl_last_message(), "tensor 'blk.1.ffn_up.weight', row 7: a value or scale is infinite");
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
    }
}

/* No float16 holds the scale, and the square of what comes out of the matrix is no number. */
static void values_that_are_too_large_are_told(void) {
    const change c = {"blk.0.ffn_up.weight", 7, 5, 6, 1e30f};
    nibl_status status;
    uint64_t before, after;
    nibl_model *model = changed(&c, 1, &status);
    if (!CHECK(model)) return;
    output o;
    quantize(model, "f32", "rtn", UINT32_MAX, &o); /* the pool stays */
    drop(&o);
    nibl_memory(&before, NULL);
    for (int i = 0; i < METHODS; i++) {
        if (!CHECK_EQ(quantize(model, "q4_0", methods[i], UINT32_MAX, &o), NIBL_E_NUMERIC))
            printf("    %s\n", methods[i]);
        CHECK(strstr(nibl_last_message(), "finite") || strstr(nibl_last_message(), "too large"));
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
    }
    nibl_model_free(model);
}

/* Channels that nothing comes through, columns that are zero, a head that is zero, rows that are. */
static void dead_channels_stay_dead(void) {
    static const change dead[] = {
        {"blk.0.attn_norm.weight", 0, 3, 40, 0},        {"blk.0.ffn_norm.weight", 0, 0, 30, 0},
        {"blk.0.attn_q.weight", UINT32_MAX, 32, 64, 0}, {"blk.1.attn_v.weight", 3, 0, 64, 0},
        {"blk.1.ffn_gate.weight", UINT32_MAX, 0, 7, 0}, {"blk.1.ffn_up.weight", 11, 0, 64, 0},
        {"blk.1.ffn_down.weight", UINT32_MAX, 8, 56, 0}};
    static const char *const types[] = {"q4_0", "w4row", "q4_1", "q5_0"};
    nibl_status status;
    nibl_model *model = changed(dead, sizeof dead / sizeof *dead, &status);
    if (!CHECK(model)) return;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        double plain = HUGE_VAL; /* what rounding loses */
        for (int i = 0; i < METHODS; i++) {
            output o;
            if (!CHECK_EQ(quantize(model, types[t], methods[i], UINT32_MAX, &o), NIBL_OK)) {
                printf("    %s %s: %s\n", types[t], methods[i], nibl_last_message());
                continue;
            }
            nibl_model *made = load_output(&o);
            const double loss = distance(model, made);
            if (!CHECK(loss < plain)) printf("    %s %s: %g\n", types[t], methods[i], loss);
            if (i == 0) plain = 1.1 * loss;
            if (t < 2 && strstr(methods[i], "gptq") == NULL) { /* it makes errors of others good */
                float x[64];
                model->kernels->unpack_row(x, made->layers[1].down, 5);
                for (int j = 8; j < 56; j++)
                    if (!CHECK(x[j] >= 0 && x[j] <= 0)) break;
            }
            CHECK(strstr(o.report, "uncalibrated") == NULL);
            nibl_model_free(made);
            drop(&o);
        }
    }
    nibl_model_free(model);
}

/* Nothing is known of a matrix whose input is zero: it is rounded as without a text, and that is told. */
static void dead_inputs_are_told(void) {
    static const change dead = {"blk.1.ffn_up.weight", UINT32_MAX, 0, 64, 0};
    nibl_status status;
    nibl_model *model = changed(&dead, 1, &status);
    for (int i = 0; model && i < METHODS; i++) {
        output o;
        if (!CHECK_EQ(quantize(model, "q4_0", methods[i], UINT32_MAX, &o), NIBL_OK)) {
            printf("    %s: %s\n", methods[i], nibl_last_message());
            continue;
        }
        CHECK_HAS(o.report, "\"uncalibrated\":1");
        nibl_model *made = load_output(&o);
        CHECK(distance(model, made) < 2); /* rounding: 0.9 */
        nibl_model_free(made);
        drop(&o);
    }
    nibl_model_free(model);
}

/* A source that is fed pieces of any size, up to any byte. */
static void streams_end_anywhere(void) {
    static const char *const sources[] = {"tiny-llama-f16.gguf", "tiny-split-00001-of-00003.gguf"};
    uint64_t before, after;
    nibl_memory(&before, NULL);
    for (int i = 0; i < 50; i++) {
        model_files m = {.folder = "tests/fixtures", .options.piece = 1 + below(20000), .file = UINT32_MAX};
        const nibl_quantize_options options = {.size = sizeof options,
                                               .method = i % 2 ? "clip" : "rtn",
                                               .threads = 1 + below(3),
                                               .measure = i % 3 == 0};
        nibl_loader *loader = NULL;
        nibl_quantizer *q = NULL;
        uint64_t left = 6000 + below(260000), fed = 0;
        bool done = false;
        CHECK_EQ(nibl_loader_new(0, &loader), NIBL_OK);
        CHECK_EQ(nibl_loader_set_name(loader, sources[i % 2]), NIBL_OK);
        for (nibl_status status = NIBL_OK; status >= 0 && !done && fed < left; fed += m.options.piece) {
            if (!q && nibl_loader_header_ready(loader)) status = nibl_quantizer_new(loader, &options, &q);
            if (CHECK(status >= 0)) status = answer_loader(&m, loader, &done);
            CHECK(status >= 0);
        }
        free(m.bytes);
        if (i % 4 < 2) nibl_quantizer_free(q);
        nibl_loader_free(loader);
        if (i % 4 >= 2) nibl_quantizer_free(q);
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
}

/* A quantizer of a model in memory, after any step: the model is as it was. */
static void steps_end_anywhere(void) {
    nibl_model *model = load_file(TINY), *plain = load_file(TINY);
    output o;
    uint64_t before, after;
    if (!CHECK(model && plain)) return;
    CHECK_EQ(quantize(model, "q4_0", "awq,gptq", UINT32_MAX, &o), NIBL_OK);
    drop(&o);
    nibl_memory(&before, NULL);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(quantize(model, i % 2 ? "q4_0" : "w4row", methods[i % METHODS], below(4), &o), NIBL_MORE);
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
    CHECK(distance(model, plain) <= 0);
    nibl_model_free(model);
    nibl_model_free(plain);
}

static const test tests[] = {
    {"values that are no numbers are told", values_that_are_no_numbers_are_told},
    {"values that are too large are told", values_that_are_too_large_are_told},
    {"dead channels stay dead", dead_channels_stay_dead},
    {"dead inputs are told", dead_inputs_are_told},
    {"streams end anywhere", streams_end_anywhere},
    {"steps end anywhere", steps_end_anywhere},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + 11) % 250;
    return test_run(tests, sizeof tests / sizeof *tests);
}
