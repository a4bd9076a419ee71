/* Files of importance: one that nibl makes of a text stands for the text, bit for bit; one that somebody else made (tests/c/gguf_builder.h,
 * which knows nothing of core/gguf_build.c) is read as llama-quantize reads it; and none can do harm. */
#include "core/model.h"
#include "core/quant/imatrix.h"
#include "tests/c/gguf_builder.h"
#include "tests/c/output.h"

#include <math.h>

#define TINY "tests/fixtures/tiny-llama-f32.gguf"
enum { TOKENS = 480, WINDOW = 120, WIDTH = 64 };

void nibl_test_fail_alloc(int64_t n);

static int32_t tokens[TOKENS];

/* ---- Models ---- */

static nibl_quantize_options options_of(const char *method, const builder *imatrix) {
    return (nibl_quantize_options){.size = sizeof(nibl_quantize_options),
                                   .method = method,
                                   .threads = 2,
                                   .imatrix = imatrix ? imatrix->bytes : NULL,
                                   .imatrix_bytes = imatrix ? imatrix->length : 0};
}

static nibl_status quantize(nibl_model *model, const nibl_quantize_options *options, size_t count,
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
    nibl_quantizer_report(q, NULL, 0, &needed);
    o->report = calloc(1, needed + 1);
    CHECK_EQ(nibl_quantizer_report(q, o->report, needed + 1, &needed), NIBL_OK);
    nibl_quantizer_free(q);
    return status;
}

static nibl_status collect(nibl_model *model, size_t count, uint32_t threads, builder *out) {
    nibl_imatrix *x = NULL;
    const void *bytes;
    size_t length;
    double done = 0;
    *out = (builder){0};
    nibl_status status = nibl_imatrix_new(model, tokens, count, WINDOW, "words.txt", threads, &x);
    while (status >= 0) {
        status = nibl_imatrix_step(x, &done);
        CHECK(done >= 0 && done <= 1);
        if (status == NIBL_OK) break;
    }
    if (status == NIBL_OK) {
        nibl_imatrix_bytes(x, &bytes, &length);
        put(out, bytes, length);
    }
    nibl_imatrix_free(x);
    return status;
}

static void a_file_stands_for_its_text(void) {
    static const struct {
        const char *path;
        size_t count; /* few tokens leave experts unseen */
    } models[] = {{TINY, TOKENS},
                  {"tests/fixtures/arch/phi3.gguf", 200},
                  {"tests/fixtures/arch/gpt2.gguf", TOKENS},
                  {"tests/fixtures/arch/qwen3moe.gguf", 40},
                  {"tests/fixtures/arch/gpt-oss.gguf", TOKENS},
                  {"tests/fixtures/arch/lfm2.gguf", 20}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        nibl_model *model = load_file(models[i].path);
        builder file, again;
        if (!CHECK(model != NULL)) continue;
        CHECK_EQ(collect(model, models[i].count, 1, &file), NIBL_OK);
        CHECK_EQ(collect(model, models[i].count, 3, &again), NIBL_OK);
        CHECK(file.length == again.length && memcmp(file.bytes, again.bytes, file.length) == 0);
        for (int m = 0; m < 2; m++) {
            const char *method = m ? "clip" : "imatrix";
            const nibl_quantize_options with_text = options_of(method, NULL),
                                        with_file = options_of(m ? "clip" : NULL, &file);
            output text, other;
            CHECK_EQ(quantize(model, &with_text, models[i].count, &text), NIBL_OK);
            CHECK_EQ(quantize(model, &with_file, 0, &other), NIBL_OK);
            CHECK_EQ(text.length, other.length);
            CHECK(text.length == other.length && memcmp(text.bytes, other.bytes, text.length) == 0);
            CHECK(strcmp(text.report, other.report) == 0);
            if (models[i].count == 40) CHECK_HAS(other.report, "\"uncalibrated\":");
            drop(&text);
            drop(&other);
        }
        free(file.bytes);
        free(again.bytes);
        nibl_model_free(model);
    }
}

/* ---- Files of somebody else ---- */

/* What is written of one tensor. */
typedef struct said {
    const char *name;
    uint32_t cols, matrices, counts, type;
    float count;
    const float *sums; /* (matrices, cols); NULL = all the same */
    bool no_sums, no_counts;
} said;

static builder file_of(const said *list, size_t count, const char *kind) {
    builder b = {0};
    uint64_t tensors = 0, at = 0;
    for (size_t i = 0; i < count; i++) tensors += (uint64_t)!list[i].no_sums + (uint64_t)!list[i].no_counts;
    put_start(&b, tensors, 4);
    put_key_string(&b, "general.type", kind);
    put_key_array(&b, "imatrix.datasets", B_STRING, 1);
    put_string(&b, "words.txt");
    put_key_u32(&b, "imatrix.chunk_count", 3);
    put_key_u32(&b, "imatrix.chunk_size", 512);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++)
            for (int c = 0; c < 2; c++) {
                const said *s = &list[i];
                char name[96];
                const uint64_t cols = c ? 1 : s->cols, rows = c ? s->counts : s->matrices;
                if (c ? s->no_counts : s->no_sums) continue;
                snprintf(name, sizeof name, "%s.%s", s->name, c ? "counts" : "in_sum2");
                if (pass == 0) {
                    put_tensor(&b, name, s->type, 2, cols, rows, at);
                    at += (4 * cols * rows + 31) / 32 * 32;
                    continue;
                }
                for (uint64_t j = 0; j < cols * rows; j++)
                    put_f32(&b, c ? s->count : s->sums ? s->sums[j] : 1000);
                put_padding(&b, 32);
            }
        put_padding(&b, 32);
    }
    return b;
}

/* (rows, cols) of the first matrix of layer 0. */
static float *first_matrix(const nibl_model *model, size_t *count) {
    const nibl_matrix *w = &model->layers[0].wq;
    *count = (size_t)w->rows * w->cols;
    float *x = malloc(*count * sizeof *x);
    for (uint32_t row = 0; row < w->rows; row++) model->kernels->unpack_row(x + row * w->cols, w, row);
    return x;
}

/* What matters loses less. */
static void inputs_that_matter_lose_less(void) {
    nibl_model *model = load_file(TINY);
    float sums[WIDTH];
    double loss[2] = {0, 0};
    size_t count;
    for (int j = 0; j < WIDTH; j++) sums[j] = j % 9 == 4 ? 5e5f : 5;
    const said s[] = {{.name = "blk.0.attn_q.weight",
                       .cols = WIDTH,
                       .matrices = 1,
                       .counts = 1,
                       .count = 500,
                       .sums = sums}};
    builder file = file_of(s, 1, "imatrix");
    float *source = first_matrix(model, &count);
    CHECK_EQ(model->layers[0].wq.cols, WIDTH);
    for (int i = 0; i < 2; i++) {
        const nibl_quantize_options options = options_of("clip", i ? &file : NULL);
        output o;
        CHECK_EQ(quantize(model, &options, 0, &o), NIBL_OK);
        nibl_model *made = load_output(&o);
        if (!CHECK(made != NULL)) return;
        float *x = first_matrix(made, &count);
        for (size_t k = 0; k < count; k++)
            loss[i] += (double)sums[k % WIDTH] * pow((double)(x[k] - source[k]), 2);
        if (i) CHECK_HAS(o.report, "\"uncalibrated\":1"); /* of all others */
        free(x);
        nibl_model_free(made);
        drop(&o);
    }
    printf("weighted loss %.3f of that without\n", loss[1] / loss[0]);
    CHECK(loss[1] < 0.5 * loss[0]);
    free(source);
    free(file.bytes);
    nibl_model_free(model);
}

/* Whether a report says that of a tensor. */
static bool tells(const char *report, const char *tensor, const char *what) {
    const char *at = strstr(report, tensor), *end = at ? strchr(at, '}') : NULL,
               *found = at ? strstr(at, what) : NULL;
    CHECK(end != NULL);
    return found && found < end;
}

/* Of the first layer's experts, up; `sums` NULL: nothing is known. */
static void check_means(nibl_model *model, const builder *file, const float *sums, float count) {
    nibl_outputs outputs;
    nibl_importance importance;
    CHECK_EQ(nibl_outputs_new(model, &outputs), NIBL_OK);
    CHECK_EQ(nibl_importance_read(file->bytes, file->length, &outputs, &importance), NIBL_OK);
    size_t i = 0;
    while (strcmp(outputs.items[i].name, "blk.0.ffn_up_exps.weight") != 0) i++;
    for (uint32_t e = 0; e < outputs.items[i].count; e++) {
        const float *means = importance.of[outputs.items[i].first + e];
        CHECK((means != NULL) == (sums != NULL));
        for (uint32_t j = 0; means && j < model->hyper.width; j++)
            CHECK(fabsf(means[j] - sums[e * model->hyper.width + j] / count) < 1e-6f);
    }
    nibl_importance_free(&importance);
    nibl_outputs_free(&outputs);
}

/* Sums are divided by counts: twice the text says the same. A count for all matrices is one for each; a matrix with a count of 0 is one
 * of which nothing is known. */
static void counts_are_of_rows(void) {
    nibl_model *model = load_file("tests/fixtures/arch/qwen3moe.gguf");
    if (!CHECK(model != NULL)) return;
    const uint32_t cols = model->hyper.width, experts = model->hyper.experts;
    float *sums[2] = {malloc(4ull * cols * experts), malloc(4ull * cols * experts)};
    for (uint32_t j = 0; j < cols * experts; j++) {
        sums[0][j] = 1 + (float)(j * j % 97);
        sums[1][j] = 2 * sums[0][j];
    }
    said s = {.name = "blk.0.ffn_up_exps.weight", .cols = cols, .matrices = experts, .counts = experts};
    output o[4];
    for (int i = 0; i < 4; i++) {
        s.count = (float[]){100, 200, 100, 0}[i];
        s.sums = sums[i == 1];
        s.counts = i == 2 ? 1 : experts;
        const said both[] = {
            s, {.name = "blk.0.attn_q.weight", .cols = cols, .matrices = 1, .counts = 1, .count = 100}};
        builder file = file_of(both, 2, "imatrix");
        const nibl_quantize_options options = options_of(NULL, &file);
        CHECK_EQ(quantize(model, &options, 0, &o[i]), NIBL_OK);
        check_means(model, &file, i == 3 ? NULL : s.sums, s.count);
        free(file.bytes);
    }
    char unknown[32];
    snprintf(unknown, sizeof unknown, "\"uncalibrated\":%u", experts);
    CHECK(!tells(o[0].report, s.name, "uncalibrated"));
    CHECK(tells(o[3].report, s.name, unknown));
    for (int i = 1; i < 3; i++) CHECK(memcmp(o[0].bytes, o[i].bytes, o[0].length) == 0);
    CHECK(memcmp(o[0].bytes, o[3].bytes, o[0].length) != 0);
    for (int i = 0; i < 4; i++) drop(&o[i]);
    free(sums[0]);
    free(sums[1]);
    nibl_model_free(model);
}

static void what_is_wrong_is_told(void) {
    nibl_model *model = load_file(TINY);
    const said good = {
        .name = "blk.0.attn_q.weight", .cols = WIDTH, .matrices = 1, .counts = 1, .count = 500};
    const float infinite[WIDTH] = {INFINITY}, nan[WIDTH] = {1, NAN}, negative[WIDTH] = {1, 2, -1};
    struct {
        said entry;
        const char *kind, *message;
        nibl_status status;
    } cases[] = {
        {good, "model", "general.type is 'model'", NIBL_E_FILE},
        {good, "imatrix", "of another model", NIBL_E_FILE},
        {good, "imatrix", "32 sums and 1 counts where 64 and 1", NIBL_E_FILE},
        {good, "imatrix", "64 sums and 2 counts", NIBL_E_FILE},
        {good, "imatrix", "not F32", NIBL_E_FILE},
        {good, "imatrix", "only the counts of tensor 'blk.0.attn_q.weight'", NIBL_E_FILE},
        {good, "imatrix", "only the sums", NIBL_E_FILE},
        {good, "imatrix", "negative or not finite", NIBL_E_NUMERIC},
        {good, "imatrix", "negative or not finite", NIBL_E_NUMERIC},
        {good, "imatrix", "negative or not finite", NIBL_E_NUMERIC},
        {good, "imatrix", "negative or not finite", NIBL_E_NUMERIC},
        {good, "imatrix", "negative or not finite", NIBL_E_NUMERIC},
    };
    cases[1].entry.name = "blk.77.attn_q.weight";
    cases[2].entry.cols = 32;
    cases[3].entry.counts = 2;
    cases[4].entry.type = 24; /* I8 */
    cases[5].entry.no_sums = true;
    cases[6].entry.no_counts = true;
    cases[7].entry.sums = infinite;
    cases[8].entry.sums = nan;
    cases[9].entry.sums = negative;
    cases[10].entry.count = -1;
    cases[11].entry.count = NAN;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        builder file = file_of(&cases[i].entry, 1, cases[i].kind);
        const nibl_quantize_options options = options_of(NULL, &file);
        output o;
        CHECK_EQ(quantize(model, &options, 0, &o), cases[i].status);
        CHECK_HAS(nibl_last_message(), cases[i].message);
        CHECK_HAS(nibl_last_message(), "imatrix file");
        free(file.bytes);
    }
    nibl_model_free(model);
}

static void bytes_that_are_no_file_are_told(void) {
    nibl_model *model = load_file(TINY);
    const said good = {
        .name = "blk.0.attn_q.weight", .cols = WIDTH, .matrices = 1, .counts = 1, .count = 500};
    builder file = file_of(&good, 1, "imatrix"), old = {0};
    put_int(&old, 1, 4);
    put_int(&old, strlen(good.name), 4);
    put(&old, good.name, strlen(good.name));
    put_int(&old, 3, 4);
    nibl_quantize_options options = options_of(NULL, &old);
    output o;
    CHECK_EQ(quantize(model, &options, 0, &o), NIBL_E_FILE);
    CHECK_HAS(nibl_last_message(), ".dat");
    CHECK_HAS(nibl_last_message(), "llama-imatrix --in-file");
    options.imatrix = file.bytes;
    for (size_t length = 0; length < file.length - 28; length++) { /* the last bytes pad the count */
        uint8_t *exact = malloc(length + 1); /* so that a sanitizer sees what is behind */
        memcpy(exact, file.bytes, length);
        options.imatrix = exact;
        options.imatrix_bytes = length;
        CHECK(quantize(model, &options, 0, &o) < 0);
        free(exact);
    }
    for (size_t i = 0; i < file.length;
         i++) { /* spoilt anywhere: refused, or read as something that can be */
        uint8_t *spoilt = malloc(file.length);
        memcpy(spoilt, file.bytes, file.length);
        spoilt[i] ^= (uint8_t)(1u << i % 8);
        options.imatrix = spoilt;
        options.imatrix_bytes = file.length;
        if (quantize(model, &options, 0, &o) >= 0) drop(&o);
        free(spoilt);
    }
    free(old.bytes);
    free(file.bytes);
    nibl_model_free(model);
}

static void methods_that_need_a_text_are_refused(void) {
    nibl_model *model = load_file(TINY);
    builder file;
    CHECK_EQ(collect(model, TOKENS, 1, &file), NIBL_OK);
    for (int i = 0; i < 6; i++) {
        const char *methods[] = {"awq", "gptq", "imatrix,awq", "best", "rotate", "rtn"};
        const nibl_quantize_options options = options_of(methods[i], &file);
        output o;
        CHECK(!nibl_quantize_needs_text(&options));
        CHECK(nibl_quantize_needs_model(NULL, &options));
        CHECK_EQ(quantize(model, &options, 0, &o), NIBL_E_ARGUMENT);
        CHECK_HAS(nibl_last_message(), i < 5 ? "need the text" : "does not look at inputs");
    }
    const nibl_quantize_options both = options_of("clip", &file);
    output o;
    CHECK_EQ(quantize(model, &both, TOKENS, &o), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "take one of them");
    free(file.bytes);
    nibl_model_free(model);
}

static void memory_that_is_short_is_told(void) {
    nibl_model *model = load_file(TINY);
    builder file, other;
    CHECK_EQ(collect(model, 40, 1, &file), NIBL_OK);
    for (int64_t n = 0; n < 400; n++) {
        nibl_test_fail_alloc(n);
        const nibl_status status = collect(model, 40, 1, &other);
        nibl_test_fail_alloc(-1);
        free(other.bytes);
        if (status == NIBL_OK) break;
        CHECK_EQ(status, NIBL_E_MEMORY);
    }
    const nibl_quantize_options options = options_of(NULL, &file);
    for (int64_t n = 0; n < 400; n++) {
        output o;
        nibl_test_fail_alloc(n);
        const nibl_status status = quantize(model, &options, 0, &o);
        nibl_test_fail_alloc(-1);
        if (status >= 0) drop(&o);
        if (status == NIBL_OK) break;
        CHECK_EQ(status, NIBL_E_MEMORY);
        drop(&o);
    }
    free(file.bytes);
    nibl_model_free(model);
}

static const test tests[] = {
    {"a file stands for its text", a_file_stands_for_its_text},
    {"inputs that matter lose less", inputs_that_matter_lose_less},
    {"counts are of rows", counts_are_of_rows},
    {"what is wrong is told", what_is_wrong_is_told},
    {"bytes that are no file are told", bytes_that_are_no_file_are_told},
    {"methods that need a text are refused", methods_that_need_a_text_are_refused},
    {"memory that is short is told", memory_that_is_short_is_told},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + i / 9 + 11) % 100;
    return test_run(tests, sizeof tests / sizeof *tests);
}
