/* Methods that look at activations: GPTQ against an implementation after the paper (tests/fixtures/gptq.py), Hessians
 * against sums, and whole models: what comes out loads, is nearer to the source than plain rounding, and the source stays
 * as it was. */
#include "core/base.h"
#include "core/quant/calib.h"
#include "core/quant/gptq.h"
#include "core/quant/rotate.h"
#include "core/session.h"
#include "kernels/maths.h"
#include "tests/c/model_file.h"
#include "tests/c/output.h"

#include <math.h>

#define TINY "tests/fixtures/tiny-llama-f32.gguf"
enum { TOKENS = 200, WINDOW = 40 };

void nibl_test_fail_alloc(int64_t n);

static int32_t tokens[TOKENS];

static void choose_tokens(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + 11) % 250;
}

static const float *take(const uint8_t **at, size_t count) {
    const float *values = (const float *)(const void *)*at;
    *at += 4 * count;
    return values;
}

static const nibl_kernels *kernels(void) { return nibl_kernels_get(nibl_plat_isa_cap()); }

/* A square (n, n) in panels. */
static float *in_panels(const float *square, uint32_t n) {
    const uint32_t size = nibl_panel_size(n);
    float *panels = calloc((size_t)nibl_panel_room(size), sizeof *panels);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) panels[nibl_panel_at(size, i, j)] = square[(size_t)i * n + j];
    return panels;
}

/* sum over i, j of delta_i H_ij delta_j over the rows, H damped; Q4_0. */
static double error_of(const nibl_gptq_rows *w, const float *hessian, uint32_t n, double damp) {
    double sum = 0, mean = 0, delta[256];
    for (uint32_t i = 0; i < n; i++) mean += (double)hessian[(size_t)i * n + i] / n;
    for (uint32_t row = 0; row < w->rows; row++) {
        for (uint32_t i = 0; i < n; i++) {
            const nibl_block *b = &w->blocks[row * w->block_stride + i / 32];
            delta[i] =
                (double)nibl_f16_to_f32(b->d) * (b->codes[i % 32] - 8) - (double)w->x[row * w->stride + i];
        }
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                sum +=
                    delta[i] * delta[j] * ((double)hessian[(size_t)i * n + j] + (i == j ? damp * mean : 0));
    }
    return sum;
}

static void codes_are_those_of_the_paper(void) {
    size_t length;
    uint8_t *bytes = read_file("tests/fixtures/gptq.bin", &length);
    if (!CHECK(bytes != NULL)) return;
    uint32_t counted = 0;
    for (const uint8_t *at = bytes; at < bytes + length;) {
        uint32_t size[2];
        memcpy(size, at, sizeof size);
        at += sizeof size;
        const uint32_t rows = size[0], cols = size[1];
        const float *hessian = take(&at, (size_t)cols * cols), *weights = take(&at, (size_t)rows * cols),
                    *scales = take(&at, rows * cols / 32), *codes = take(&at, (size_t)rows * cols),
                    *margin = take(&at, (size_t)rows * cols);
        for (uint32_t threads = 1; threads < 4; threads++) {
            nibl_pool *pool = NULL;
            CHECK_EQ(nibl_pool_new(threads, &pool), NIBL_OK);
            nibl_factor factor;
            float *panels = in_panels(hessian, cols);
            CHECK_EQ(nibl_factor_make(pool, kernels(), panels, NULL, cols, 0.01, &factor), NIBL_OK);
            float *room = malloc((size_t)NIBL_GPTQ_ROOM(cols) * sizeof *room);
            const nibl_grid *grid = nibl_grid_of(nibl_dtype_by_id(2));
            nibl_block blocks[8][8] = {{{0}}};
            for (uint32_t row = 0; row < rows; row++)
                for (uint32_t b = 0; b < cols / 32; b++)
                    blocks[row][b].d = nibl_f32_to_f16(scales[row * cols / 32 + b]);
            const nibl_gptq_rows all = {grid, 32, rows, weights, cols, blocks[0], 8, room};
            nibl_gptq_round(&factor, kernels(), &all);
            const double error = error_of(&all, hessian, cols, 0.01);
            CHECK(fabs(nibl_gptq_error(&factor, kernels(), &all) - error) < 1e-4 * error);
            for (uint32_t row = 0; row < rows; row++) {
                bool near = false; /* a boundary: what follows may differ */
                for (uint32_t i = 0; i < cols; i++) near = near || margin[(size_t)row * cols + i] < 1e-4f;
                for (uint32_t i = 0; i < cols && !near; i++, counted++) {
                    int32_t expected;
                    memcpy(&expected, &codes[(size_t)row * cols + i], 4);
                    CHECK_EQ(blocks[row][i / 32].codes[i % 32] - 8, expected);
                }
            }
            free(room);
            nibl_factor_free(&factor);
            nibl_pool_free(pool);
            free(panels);
        }
    }
    CHECK(counted > 2000);
    free(bytes);
}

static void hessians_that_are_none_are_told(void) {
    const float squares[][4] = {{1, 2, 2, 1}, {1, INFINITY, INFINITY, 1}};
    float *flat = in_panels(squares[0], 2), *infinite = in_panels(squares[1], 2);
    nibl_factor factor;
    CHECK_EQ(nibl_factor_make(NULL, kernels(), flat, NULL, 2, 0.01, &factor), NIBL_E_NUMERIC);
    CHECK_HAS(nibl_last_message(), "not positive definite");
    nibl_factor_free(&factor);
    CHECK_EQ(nibl_factor_make(NULL, kernels(), infinite, NULL, 2, 0.01, &factor), NIBL_E_NUMERIC);
    nibl_factor_free(&factor);
    free(infinite);
    free(flat);
}

/* Inputs of the first layer, seen by an observer of this test, summed in double. */
typedef struct sums {
    const nibl_matrix *matrix;
    double *h;
} sums;

static void add(void *context, const nibl_matrix *w, const float *input, size_t stride, uint32_t rows,
                uint32_t worker, uint32_t workers) {
    const sums *s = context;
    (void)workers;
    if (worker != 0 || w != s->matrix) return;
    for (uint32_t t = 0; t < rows; t++)
        for (uint32_t i = 0; i < w->cols; i++)
            for (uint32_t j = 0; j < w->cols; j++)
                s->h[(size_t)i * w->cols + j] +=
                    (double)input[t * stride + i] * (double)input[t * stride + j];
}

static void hessians_are_sums_of_products(void) {
    nibl_model *model = load_file(TINY);
    if (!CHECK(model != NULL)) return;
    nibl_calib calib, other;
    CHECK_EQ(nibl_calib_begin(&calib, model, tokens, TOKENS, WINDOW, true), NIBL_OK);
    CHECK_EQ(nibl_calib_begin(&other, model, tokens, TOKENS, WINDOW, true), NIBL_OK);
    CHECK(nibl_calib_layer(&calib) >= 0);
    const nibl_layer *l = &model->layers[0];
    const nibl_matrix *const firsts[] = {&l->wq, &l->wo, l->gate, l->down};
    for (int f = 0; f < 4; f++) {
        const uint32_t n = firsts[f]->cols;
        const nibl_site *site = nibl_calib_site(&calib, firsts[f]);
        if (!CHECK(site != NULL)) break;
        CHECK_EQ(site->rows_seen, TOKENS);
        sums s = {firsts[f], calloc((size_t)n * n, sizeof(double))};
        uint32_t layer, units = 0;
        CHECK(nibl_run_advance(other.run, &units) >= 0); /* embeds */
        nibl_run_stream(other.run, f > 0, &layer);
        if (f > 0)
            memcpy(nibl_run_stream(other.run, false, &layer), calib.stream, TOKENS * model->hyper.width * 4);
        nibl_run_observe(other.run, add, &s);
        units = other.chunks;
        CHECK(nibl_run_advance(other.run, &units) >= 0);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j < n; j++) {
                const double scale = sqrt(s.h[(size_t)i * n + i] * s.h[(size_t)j * n + j]);
                CHECK(fabs((double)site->sums[nibl_panel_at(nibl_panel_size(n), i, j)] -
                           s.h[(size_t)i * n + j]) <= 1e-5 * scale);
            }
            CHECK(fabs((double)site->squares[i] * (double)TOKENS - s.h[(size_t)i * n + i]) <=
                  1e-4 * s.h[(size_t)i * n + i]);
        }
        free(s.h);
    }
    nibl_calib_free(&other);
    nibl_calib_free(&calib);
    nibl_model_free(model);
}

/* ---- Whole models ---- */

static nibl_status quantize_with(nibl_model *model, const nibl_quantize_options *given, output *o) {
    const nibl_quantize_options options = *given;
    nibl_quantizer *q = NULL;
    *o = (output){0};
    nibl_status status = nibl_model_quantizer_new(model, &options, tokens, TOKENS, WINDOW, &q);
    if (status < 0) return status;
    for (status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &o->bytes, &o->length);
    }
    if (status == NIBL_OK) CHECK_EQ(o->length, nibl_quantizer_size(q));
    nibl_quantizer_free(q);
    return status;
}

/* `end`: the type of the head, or of the embedding that is it. */
static nibl_status quantize_end(nibl_model *model, const char *type, const char *end, const char *method,
                                uint32_t threads, output *o) {
    const nibl_quantize_options options = {.size = sizeof options,
                                           .type = type,
                                           .embedding = model->tied ? end : "f32",
                                           .head = end,
                                           .method = method,
                                           .threads = threads,
                                           .requantize = true};
    return quantize_with(model, &options, o);
}

static nibl_status quantize(nibl_model *model, const char *type, const char *method, uint32_t threads,
                            output *o) {
    return quantize_end(model, type, "f32", method, threads, o);
}

/* Logits of all tokens; frees nothing. */
static float *logits_of(nibl_model *model) {
    const uint32_t vocabulary = model->hyper.vocabulary;
    nibl_session_options options = {.size = sizeof options,
                                    .logits = NIBL_LOGITS_ALL,
                                    .activations = NIBL_ACT_F32,
                                    .kv_type = NIBL_KV_F32,
                                    .chunk = 512};
    float *all = calloc((size_t)TOKENS * vocabulary, sizeof *all);
    nibl_session *session = NULL;
    const float *logits;
    size_t first, count;
    if (CHECK_EQ(nibl_session_new(model, &options, &session), NIBL_OK) &&
        CHECK_EQ(nibl_session_set_tokens(session, tokens, TOKENS, NULL), NIBL_OK) &&
        CHECK(nibl_step(&session, 1, 0) >= 0) &&
        CHECK_EQ(nibl_session_logits(session, &logits, &first, &count), NIBL_OK) && CHECK_EQ(count, TOKENS))
        memcpy(all, logits, count * vocabulary * sizeof *all);
    nibl_session_free(session);
    return all;
}

/* Distance of the logits from the source's. */
static double loss_of_end(nibl_model *source, const float *reference, const char *type, const char *end,
                          const char *method) {
    output o;
    if (!CHECK_EQ(quantize_end(source, type, end, method, 2, &o), NIBL_OK)) {
        printf("    %s\n", nibl_last_message());
        return HUGE_VAL;
    }
    nibl_model *model = load_output(&o);
    float *logits = logits_of(model);
    const double loss = rms_difference(logits, reference, (size_t)TOKENS * source->hyper.vocabulary);
    printf("%s, head %s, %s: %.5f\n", type, end, method, loss);
    free(logits);
    nibl_model_free(model);
    free(o.bytes);
    return loss;
}

static double loss_of(nibl_model *source, const float *reference, const char *type, const char *method) {
    return loss_of_end(source, reference, type, "f32", method);
}

static void methods_lose_less_than_plain_rounding(void) {
    nibl_model *source = load_file(TINY);
    if (!CHECK(source != NULL)) return;
    float *reference = logits_of(source);
    const double rtn = loss_of(source, reference, "q4_0", "rtn");
    CHECK(loss_of(source, reference, "q4_0", "clip") < rtn);
    CHECK(loss_of(source, reference, "q4_0", "imatrix") < rtn);
    CHECK(loss_of(source, reference, "q4_0", "awq") < 1.02 * rtn);
    CHECK(loss_of(source, reference, "q4_0", "gptq") < 0.85 * rtn);
    CHECK(loss_of(source, reference, "q4_0", "awq,gptq") < 0.85 * rtn);
    CHECK(loss_of(source, reference, "q8_0", "awq") < 0.1 * rtn); /* what was scaled is scaled back */
    CHECK(loss_of(source, reference, "f32", "awq,gptq") < 1e-6);
    float *after = logits_of(source);
    CHECK(memcmp(after, reference, (size_t)TOKENS * source->hyper.vocabulary * sizeof *after) == 0);
    free(after);
    free(reference);
    nibl_model_free(source);
}

/* Every order that is needed: rows are orthogonal, and no number stands out. */
/* ---- Outliers ---- */

/* Whether a name, of a layer's tensor behind "blk.N", begins so. */
static bool begins(nibl_slice name, const char *with) {
    const size_t length = strlen(with), skipped = with[0] == '.' ? 5 : 0;
    return name.length >= skipped + length && memcmp(name.bytes + skipped, with, length) == 0;
}

static bool is_one_of(const nibl_gguf_tensor *t, const char *const *names) {
    while (*names && !begins(t->name, *names)) names++;
    return *names != NULL;
}

/* The model with some channels of norms x 64 and the columns after them / 64, which changes nothing. F32 or F16. */
static nibl_model *load_outliers(const char *path, const nibl_model *plain, const char *const *norms,
                                 const char *const *matrices) {
    output o = {0};
    o.bytes = read_file(path, &o.length);
    for (size_t i = 0; i < nibl_gguf_tensor_count(plain->gguf); i++) {
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(plain->gguf, i);
        const bool norm = is_one_of(t, norms);
        if (!norm && !is_one_of(t, matrices)) continue;
        CHECK(t->type < 2);
        const float factor = norm ? 64.0f : 1 / 64.0f;
        for (uint64_t row = 0; row < (norm ? 1 : t->dims[1]); row++)
            for (uint64_t j = row * t->dims[0] + 5; j < (row + 1) * t->dims[0]; j += 32) {
                float *x = (float *)(void *)(o.bytes + t->offset);
                uint16_t *half = (uint16_t *)x;
                if (t->type == 0)
                    x[j] *= factor;
                else
                    half[j] = nibl_f32_to_f16(nibl_f16_to_f32(half[j]) * factor);
            }
    }
    nibl_model *model = load_output(&o);
    free(o.bytes);
    return model;
}

static const char *const layer_norms[] = {".attn_norm.", ".ffn_norm.", NULL};
static const char *const layer_matrices[] = {".attn_q.",   ".attn_k.", ".attn_v.",
                                             ".ffn_gate.", ".ffn_up.", NULL};

static void outliers_are_recovered(void) {
    nibl_model *plain = load_file(TINY), *twin = load_outliers(TINY, plain, layer_norms, layer_matrices);
    float *reference = logits_of(plain), *same = logits_of(twin);
    const size_t count = (size_t)TOKENS * plain->hyper.vocabulary;
    CHECK(rms_difference(same, reference, count) < 1e-4);
    const double without = loss_of(plain, reference, "q8_0", "rtn"),
                 rtn = loss_of(twin, reference, "q8_0", "rtn"), awq = loss_of(twin, reference, "q8_0", "awq");
    CHECK(rtn > 3 * without);
    CHECK(rtn - awq > 0.9 * (rtn - without));
    free(reference);
    free(same);
    nibl_model_free(plain);
    nibl_model_free(twin);
}

static void heads_are_rounded_by_what_they_see(void) {
    static const char path[] = "tests/fixtures/arch/mistral.gguf";
    static const char *const norms[] = {"output_norm.", NULL}, *const matrices[] = {"output.", NULL};
    nibl_model *plain = load_file(path), *twin = load_outliers(path, plain, norms, matrices);
    for (int i = 0; i < TOKENS; i++) tokens[i] %= (int32_t)plain->hyper.vocabulary;
    float *reference = logits_of(plain), *same = logits_of(twin);
    CHECK(!plain->tied);
    CHECK(rms_difference(same, reference, (size_t)TOKENS * plain->hyper.vocabulary) < 1e-4);
    const double rtn = loss_of_end(twin, reference, "f32", "q4_0", "rtn");
    CHECK(loss_of_end(twin, reference, "f32", "q4_0", "imatrix") < rtn);
    CHECK(loss_of_end(twin, reference, "f32", "q4_0", "gptq") < 0.9 * rtn);
    free(reference);
    free(same);
    nibl_model_free(plain);
    nibl_model_free(twin);
    choose_tokens();
}

static void rotations_are_orthogonal(void) {
    static const uint32_t widths[] = {2, 12, 64, 20, 28, 36, 96, 576, 640, 896, 960};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const uint32_t n = widths[i];
        nibl_rotation *r;
        if (!CHECK_EQ(nibl_rotation_new(n, i, &r), NIBL_OK)) continue;
        float *x = calloc((size_t)n * n, sizeof *x), *room = malloc((size_t)n * n * sizeof *x);
        for (uint32_t j = 0; j < n; j++) x[(size_t)j * n + j] = 1;
        nibl_rotation_apply(r, x, n, room);
        double worst = 0;
        for (uint32_t a = 0; a < n; a += n / 12 + 1)
            for (uint32_t b = 0; b < n; b++) {
                double dot = a == b ? -1 : 0;
                for (uint32_t j = 0; j < n; j++)
                    dot += (double)x[(size_t)a * n + j] * (double)x[(size_t)b * n + j];
                worst = fabs(dot) > worst ? fabs(dot) : worst;
                CHECK(fabsf(x[(size_t)a * n + b]) < 1.01f / sqrtf((float)n));
            }
        CHECK(worst < 1e-5);
        free(x);
        free(room);
        nibl_rotation_free(r);
    }
    nibl_rotation *r;
    CHECK_EQ(nibl_rotation_new(7 * 64 + 1, 0, &r), NIBL_E_UNSUPPORTED);
    CHECK_HAS(nibl_last_message(), "449 dimensions");
}

/* Turned, a model computes the same; the head stands apart, and the source stays as it was. */
static void rotation_changes_nothing(void) {
    static const char *const sources[] = {TINY, "tests/fixtures/tiny-llama-f16.gguf"};
    for (size_t i = 0; i < 2; i++) {
        nibl_model *source = load_file(sources[i]);
        if (!CHECK(source)) continue;
        output o, rounded;
        const bool tied = source->tied;
        float *before = logits_of(source);
        const nibl_status status = quantize(source, "f32", "rotate", 2, &o);
        float *after = logits_of(source);
        if (!CHECK_EQ(status, NIBL_OK)) {
            printf("    %s: %s\n", sources[i], nibl_last_message());
        } else {
            const size_t count = (size_t)TOKENS * source->hyper.vocabulary;
            CHECK(memcmp(before, after, count * sizeof *before) == 0 && source->tied == tied);
            nibl_model *turned = load_output(&o);
            CHECK(turned && !turned->tied);
            float *logits = logits_of(turned);
            double worst = 0;
            for (size_t j = 0; j < count; j++)
                worst = fmax(worst, fabs((double)logits[j] - (double)before[j]));
            printf("rotated: %.2g\n", worst);
            CHECK(worst < 1e-3);
            CHECK(turned->layers[0].attn_norm[0] >= 1 && turned->layers[0].attn_norm[0] <= 1);
            free(logits);
            nibl_model_free(turned);
            free(o.bytes);
            CHECK_EQ(quantize(source, "q4_0", "rotate,gptq", 2, &rounded), NIBL_OK);
            free(rounded.bytes);
        }
        free(before);
        free(after);
        nibl_model_free(source);
    }
    nibl_model *other = load_file("tests/fixtures/arch/gemma2.gguf");
    output o;
    CHECK_EQ(quantize(other, "f32", "rotate", 1, &o), NIBL_E_UNSUPPORTED);
    CHECK_HAS(nibl_last_message(), "gemma2 cannot be rotated");
    nibl_model_free(other);
}

static void threads_do_not_matter(void) {
    nibl_model *source = load_file(TINY);
    output first, other;
    CHECK_EQ(quantize(source, "q4_1", "awq,gptq", 1, &first), NIBL_OK);
    for (uint32_t threads = 2; threads < 4; threads++) {
        CHECK_EQ(quantize(source, "q4_1", "awq,gptq", threads, &other), NIBL_OK);
        CHECK(other.length == first.length && memcmp(other.bytes, first.bytes, first.length) == 0);
        free(other.bytes);
    }
    free(first.bytes);
    nibl_model_free(source);
}

/* ---- Mixed precision ---- */

static const nibl_tensor_type norms_and_down[] = {{"blk.0.ffn_down.weight", "q5_0"}};
static const nibl_quantize_options mixed = {.size = sizeof mixed,
                                            .type = "q4_0",
                                            .embedding = "f32",
                                            .head = "f32",
                                            .tensors = norms_and_down,
                                            .tensor_count = 1,
                                            .method = "gptq",
                                            .threads = 2};

/* Measures all; NULL after an error, which is in *status. */
static nibl_allotment *measured(nibl_model *model, nibl_status *status) {
    nibl_allotment *a = NULL;
    double done = 0;
    *status = nibl_allotment_new(model, &mixed, "q4_0,q8_0", tokens, TOKENS, WINDOW, &a);
    while (*status == NIBL_OK || *status == NIBL_MORE) {
        *status = nibl_allotment_step(a, &done);
        if (*status == NIBL_OK) return a;
    }
    nibl_allotment_free(a);
    return NULL;
}

/* Loss of a model made with so many bytes of tensors, and how many of them are q8_0. */
static double mixed_loss(nibl_model *source, const float *reference, nibl_allotment *a, uint64_t bytes,
                         size_t *eights) {
    nibl_quantize_options options = mixed;
    output o;
    if (!CHECK_EQ(nibl_allotment_choose(a, bytes, &options.tensors, &options.tensor_count), NIBL_OK))
        return HUGE_VAL;
    CHECK(strcmp(options.tensors[0].pattern, "blk.0.ffn_down.weight") == 0);
    *eights = 0;
    for (size_t i = 0; i < options.tensor_count; i++) *eights += strcmp(options.tensors[i].type, "Q8_0") == 0;
    if (!CHECK_EQ(quantize_with(source, &options, &o), NIBL_OK)) return HUGE_VAL;
    nibl_model *model = load_output(&o);
    uint64_t taken = 0; /* of the file, behind its header */
    for (size_t i = 0; i < nibl_gguf_tensor_count(model->gguf); i++)
        taken += (nibl_gguf_tensor_at(model->gguf, i)->bytes + 31) / 32 * 32;
    CHECK(taken <= bytes);
    float *logits = logits_of(model);
    const double loss = rms_difference(logits, reference, (size_t)TOKENS * source->hyper.vocabulary);
    printf("%llu bytes: %.5f, %zu tensors in q8_0\n", (unsigned long long)bytes, loss, *eights);
    free(logits);
    nibl_model_free(model);
    free(o.bytes);
    return loss;
}

static void bytes_go_where_they_help(void) {
    nibl_model *source = load_file(TINY);
    float *reference = logits_of(source);
    nibl_status status;
    const nibl_tensor_type *types;
    size_t count, few, some, all;
    nibl_allotment *early = NULL, *a = measured(source, &status);
    if (!CHECK(a != NULL)) printf("    %s\n", nibl_last_message());
    CHECK_EQ(nibl_allotment_choose(a, 1000, &types, &count), NIBL_E_ARGUMENT);
    const char *take = strstr(nibl_last_message(), "they take ");
    if (CHECK(take != NULL)) {
        const uint64_t least = strtoull(take + 10, NULL, 10);
        const double worst = mixed_loss(source, reference, a, least, &few),
                     middle = mixed_loss(source, reference, a, least + least / 16, &some),
                     best = mixed_loss(source, reference, a, UINT64_MAX / 2, &all);
        CHECK(few == 0 && some > 0 && some < all);
        CHECK(middle < worst && best < middle);
        CHECK(worst - middle > (worst - best) / 2); /* a sixteenth more bytes saves most */
        CHECK_EQ(nibl_allotment_choose(a, least - 1, &types, &count), NIBL_E_ARGUMENT);
    }
    nibl_allotment_free(a);
    CHECK_EQ(nibl_allotment_new(source, &mixed, "q4_0,f16", tokens, TOKENS, WINDOW, &early), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_allotment_new(source, &mixed, "q4_0,q9", tokens, TOKENS, WINDOW, &early), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_allotment_new(source, &mixed, NULL, tokens, TOKENS, WINDOW, &early), NIBL_OK);
    CHECK_EQ(nibl_allotment_choose(early, 1 << 20, &types, &count), NIBL_E_ARGUMENT);
    nibl_allotment_free(early);
    float *after = logits_of(source);
    CHECK(memcmp(after, reference, (size_t)TOKENS * source->hyper.vocabulary * sizeof *after) == 0);
    free(after);
    free(reference);
    nibl_model_free(source);
}

static void best_is_what_was_measured(void) {
    nibl_model *source = load_file(TINY);
    nibl_quantize_options options = {.size = sizeof options, .method = "best"};
    output best, told;
    CHECK_EQ(quantize_with(source, &options, &best), NIBL_OK);
    options = (nibl_quantize_options){.size = sizeof options,
                                      .type = "iq4_nl",
                                      .embedding = "iq4_nl",
                                      .head = "iq4_nl",
                                      .method = "awq,gptq"};
    CHECK_EQ(quantize_with(source, &options, &told), NIBL_OK);
    CHECK(best.length == told.length && memcmp(best.bytes, told.bytes, best.length) == 0);
    free(best.bytes);
    free(told.bytes);
    nibl_model_free(source);
}

static void wrong_calibrations_are_told(void) {
    nibl_model *source = load_file(TINY);
    const nibl_quantize_options options = {.size = sizeof options, .method = "gptq"};
    const int32_t bad = 1 << 20;
    nibl_quantizer *q;
    CHECK_EQ(nibl_model_quantizer_new(source, &options, tokens, 0, WINDOW, &q), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "needs a calibration text");
    CHECK_EQ(nibl_model_quantizer_new(source, &options, tokens, TOKENS, 0, &q), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_model_quantizer_new(source, &options, tokens, TOKENS, 1 << 20, &q), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_model_quantizer_new(source, &options, &bad, 1, WINDOW, &q), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "calibration token 0 is 1048576");
    int32_t *many = calloc(2048, sizeof *many); /* enough for some that are only scored */
    nibl_allotment *a;
    many[2000] = bad;
    CHECK_EQ(nibl_allotment_new(source, &options, "q4_0", many, 2048, WINDOW, &a), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "calibration token 1048576");
    free(many);
    nibl_model_free(source);
}

static void memory_that_cannot_be_had_is_told(void) {
    nibl_model *source = load_file(TINY);
    uint64_t before, after;
    output o;
    CHECK_EQ(quantize_end(source, "q4_0", "q4_0", "awq,gptq", 2, &o), NIBL_OK); /* the pool stays */
    free(o.bytes);
    nibl_memory(&before, NULL);
    int64_t n = 0;
    for (nibl_status status = NIBL_E_MEMORY; status != NIBL_OK && n < 1000; n += n < 40 ? 1 : 7) {
        nibl_test_fail_alloc(n);
        status = quantize_end(source, "q4_0", "q4_0", "awq,gptq", 2, &o);
        nibl_test_fail_alloc(-1);
        free(o.bytes);
        if (status != NIBL_OK && !CHECK_EQ(status, NIBL_E_MEMORY)) break;
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
    CHECK(n > 40 && n < 1000);
    n = 0;
    for (nibl_status status = NIBL_E_MEMORY; status != NIBL_OK && n < 1000; n += n < 40 ? 1 : 7) {
        nibl_test_fail_alloc(n);
        nibl_allotment_free(measured(source, &status));
        nibl_test_fail_alloc(-1);
        if (status != NIBL_OK && !CHECK_EQ(status, NIBL_E_MEMORY)) break;
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
    CHECK(n > 20 && n < 1000);
    nibl_model_free(source);
}

static const test tests[] = {
    {"GPTQ's codes are those of the paper", codes_are_those_of_the_paper},
    {"Hessians that are none are told", hessians_that_are_none_are_told},
    {"Hessians are sums of products", hessians_are_sums_of_products},
    {"methods lose less than plain rounding", methods_lose_less_than_plain_rounding},
    {"heads are rounded by what they see", heads_are_rounded_by_what_they_see},
    {"outliers are recovered", outliers_are_recovered},
    {"rotations are orthogonal", rotations_are_orthogonal},
    {"rotation changes nothing", rotation_changes_nothing},
    {"threads do not matter", threads_do_not_matter},
    {"bytes go where they help", bytes_go_where_they_help},
    {"best is what was measured", best_is_what_was_measured},
    {"wrong calibrations are told", wrong_calibrations_are_told},
    {"memory that cannot be had is told", memory_that_cannot_be_had_is_told},
};

int main(void) {
    choose_tokens();
    return test_run(tests, sizeof tests / sizeof *tests);
}
