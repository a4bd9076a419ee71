/*
 * The default model against `transformers` (F32, GGUF dequantized): the exact path logit by logit, the fast path by the
 * divergence of its distributions on real text. The formats of the fixtures, and what is estimated, stand at the top of
 * tests/fixtures/smollm2_logits.py and smollm2_kl.py.
 *
 * usage: test_smollm2 [PROMPTS WINDOWS POSITIONS]
 * How many of the 8 prompts, of the 8 windows, and of the 255 scored positions of a window are run. By default all are in
 * native release builds; in debug builds (sanitizers) and WebAssembly a first look, with bars as loose as so few positions
 * need; on ARM (mostly an emulator) one prompt. Other tests show that all of them compute the same bits.
 */
#include "tests/c/model_file.h"

#include <math.h>

#if defined(__aarch64__)
enum { PROMPTS = 1, WINDOWS = 0, POSITIONS = 0 };
#elif defined(__wasm__) || !defined(NDEBUG)
enum { PROMPTS = 1, WINDOWS = 1, POSITIONS = 32 };
#else
enum { PROMPTS = 8, WINDOWS = 8, POSITIONS = 255 };
#endif

/* The bars, and from how many positions on they hold. */
static const double max_difference = 2e-3, max_kl = 0.005, min_same_top = 0.95;
enum { ENOUGH = 2000 };

static nibl_model *model;
static uint32_t prompts = PROMPTS, windows = WINDOWS, positions = POSITIONS, vocabulary;

/* ---- Fixtures: little-endian, aligned to their values ---- */

typedef struct reader {
    uint8_t *bytes;
    size_t at, length;
} reader;

static reader open_fixture(const char *path) {
    reader r = {0};
    r.bytes = read_file(path, &r.length);
    if (!r.bytes) {
        printf("%s: cannot be read\n", path);
        exit(1);
    }
    return r;
}

/* The next `count` values of `width` bytes. */
static const void *take(reader *r, size_t count, size_t width) {
    if (r->length - r->at < count * width) {
        printf("a fixture ends too early\n");
        exit(1);
    }
    const void *p = r->bytes + r->at;
    r->at += count * width;
    return p;
}

/* ---- Running ---- */

typedef void row_function(void *context, size_t position, const float *logits);

/* Computes a sequence of at most 512 tokens and hands every row of logits over. */
static void compute(nibl_session_options options, const uint16_t *ids, size_t count, row_function *row,
                    void *context) {
    int32_t tokens[512];
    for (size_t i = 0; i < count; i++) tokens[i] = ids[i];
    options.size = sizeof options;
    options.context_length = 512;
    options.logits = NIBL_LOGITS_ALL;
    nibl_session *session = NULL;
    CHECK_EQ(nibl_session_new(model, &options, &session), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(session, tokens, count, NULL), NIBL_OK);
    size_t seen = 0;
    for (nibl_status status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_step(&session, 1, 0);
        const float *rows;
        size_t first, n;
        if (!CHECK(status >= 0) || !CHECK_EQ(nibl_session_logits(session, &rows, &first, &n), NIBL_OK)) break;
        for (size_t i = 0; i < n; i++) row(context, first + i, rows + i * vocabulary);
        seen += n;
    }
    CHECK_EQ(seen, count);
    nibl_session_free(session);
}

static double log_sum_exp(const float *logits) {
    double most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocabulary; i++) most = fmax(most, (double)logits[i]);
    for (uint32_t i = 0; i < vocabulary; i++) sum += exp((double)logits[i] - most);
    return most + log(sum);
}

/* ---- The exact path ---- */

typedef struct exact {
    reader file;
    uint32_t fixed, top;
    const uint16_t *fixed_ids;
    double worst, worst_log_sum, worst_mean, worst_norm;
} exact;

static void worse(double *worst, double difference) {
    if (!(fabs(difference) <= *worst)) *worst = fabs(difference); /* NaN stays */
}

static void compare_row(void *context, size_t position, const float *logits) {
    exact *e = context;
    (void)position;
    const double *sums = take(&e->file, 3, sizeof *sums);
    const float *fixed = take(&e->file, e->fixed, sizeof *fixed), *top = take(&e->file, e->top, sizeof *top);
    const uint16_t *top_ids = take(&e->file, e->top, sizeof *top_ids);
    for (uint32_t i = 0; i < e->fixed; i++)
        worse(&e->worst, (double)logits[e->fixed_ids[i]] - (double)fixed[i]);
    for (uint32_t i = 0; i < e->top; i++) worse(&e->worst, (double)logits[top_ids[i]] - (double)top[i]);
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < vocabulary; i++) {
        sum += (double)logits[i];
        squares += (double)logits[i] * (double)logits[i];
    }
    worse(&e->worst_log_sum, log_sum_exp(logits) - sums[0]);
    worse(&e->worst_mean, sum / vocabulary - sums[1]);
    worse(&e->worst_norm, sqrt(squares) - sums[2]);
}

static void exact_path_has_the_reference_logits(void) {
    exact e = {.file = open_fixture("tests/fixtures/smollm2-logits.bin")};
    const uint32_t *head = take(&e.file, 4, sizeof *head);
    e.fixed = head[1];
    e.top = head[2];
    CHECK_EQ(head[3], vocabulary);
    e.fixed_ids = take(&e.file, e.fixed, sizeof *e.fixed_ids);
    uint32_t count = 0;
    for (uint32_t p = 0; p < head[0] && p < prompts; p++) {
        const uint32_t *tokens = take(&e.file, 2, sizeof *tokens);
        const uint16_t *ids = take(&e.file, (tokens[0] + 3) / 4 * 4, sizeof *ids);
        compute((nibl_session_options){.activations = NIBL_ACT_F32, .kv_type = NIBL_KV_F32}, ids, tokens[0],
                compare_row, &e);
        count += tokens[0];
    }
    printf("exact path, %u prompts, %u positions: max abs difference %.2e (bar %.0e); of logsumexp %.1e, "
           "mean %.1e, norm "
           "%.1e\n",
           prompts, count, e.worst, max_difference, e.worst_log_sum, e.worst_mean, e.worst_norm);
    CHECK(e.worst <= max_difference);
    /* what follows for the sums when no logit of the row is further off */
    CHECK(e.worst_log_sum <= max_difference);
    CHECK(e.worst_mean <= max_difference);
    CHECK(e.worst_norm <= max_difference * sqrt(vocabulary));
    if (prompts >= head[0]) CHECK_EQ(e.file.at, e.file.length);
    free(e.file.bytes);
}

/* ---- The fast path ---- */

typedef struct divergence {
    reader file;
    const uint16_t *ids; /* of the window */
    uint32_t first, top, samples;
    uint32_t scored, same_top;
    double estimate, bound, surprise, reference_surprise;
} divergence;

static void score_row(void *context, size_t position, const float *logits) {
    divergence *d = context;
    if (position < d->first) return;
    const uint32_t kept = d->top + d->samples;
    const float *next_and_rest = take(&d->file, 2, sizeof *next_and_rest);
    const float *log_p = take(&d->file, kept, sizeof *log_p);
    const uint16_t *ids = take(&d->file, kept, sizeof *ids);
    const double log_sum = log_sum_exp(logits), rest = (double)next_and_rest[1];
    double top = 0, samples = 0, top_q = 0;
    for (uint32_t i = 0; i < kept; i++) {
        const double p = (double)log_p[i], q = (double)logits[ids[i]] - log_sum;
        if (i < d->top) {
            top += exp(p) * (p - q);
            top_q += exp(q);
        } else {
            samples += p - q;
        }
    }
    d->estimate += top + rest * samples / d->samples;
    d->bound += top + rest * log(rest / (1 - top_q));
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocabulary; i++)
        if (logits[i] > logits[best]) best = i;
    d->same_top += best == ids[0];
    d->surprise += log_sum - (double)logits[d->ids[position + 1]];
    d->reference_surprise -= (double)next_and_rest[0];
    d->scored++;
}

static void score(uint32_t kv_type, const char *name) {
    if (windows == 0 || positions == 0) {
        printf("fast path, KV cache in %s: not run (0 windows)\n", name);
        return;
    }
    divergence d = {.file = open_fixture("tests/fixtures/smollm2-kl.bin")};
    const uint32_t *head = take(&d.file, 6, sizeof *head);
    const uint32_t length = head[1], scored = head[3];
    d.first = head[2];
    d.top = head[4];
    d.samples = head[5];
    const uint16_t *ids = take(&d.file, (size_t)head[0] * length, sizeof *ids);
    const size_t window_bytes = scored * (8 + (size_t)(d.top + d.samples) * 6), begin = d.file.at;
    CHECK(d.first + scored < length && length <= 512);
    for (uint32_t w = 0; w < head[0] && w < windows; w++) {
        d.ids = ids + (size_t)w * length;
        d.file.at = begin + w * window_bytes;
        compute((nibl_session_options){.kv_type = kv_type}, d.ids,
                d.first + (positions < scored ? positions : scored), score_row, &d);
    }
    const double n = d.scored, same_top = d.same_top / n;
    printf("fast path, KV cache in %s, %u positions of %u windows: KL %.5f (at least %.5f; bar %.3f), same "
           "top token %.2f %% "
           "(bar %.0f "
           "%%), perplexity %.3f (reference %.3f)\n",
           name, d.scored, windows, d.estimate / n, d.bound / n, max_kl, 100 * same_top, 100 * min_same_top,
           exp(d.surprise / n), exp(d.reference_surprise / n));
    const double slack = d.scored >= ENOUGH ? 1 : 3;
    CHECK(d.estimate / n <= slack * max_kl);
    CHECK(d.bound / n <= slack * max_kl);
    CHECK(same_top >= 1 - slack * (1 - min_same_top));
    CHECK(fabs(d.surprise - d.reference_surprise) / n < slack * 0.02);
    if (windows >= head[0] && positions >= scored) CHECK_EQ(d.file.at, d.file.length);
    free(d.file.bytes);
}

static void fast_path_has_nearly_the_reference_distributions(void) { score(0, "int8 (default)"); }

static void so_it_has_with_f16(void) { score(NIBL_KV_F16, "f16"); }

int main(int argc, char **argv) {
    static const test tests[] = {
        {"the exact path has the reference's logits", exact_path_has_the_reference_logits},
        {"the fast path has nearly its distributions", fast_path_has_nearly_the_reference_distributions},
        {"so it has with a KV cache in f16", so_it_has_with_f16},
    };
    uint32_t *const counts[] = {&prompts, &windows, &positions};
    for (int i = 1; i < argc && i <= 3; i++) *counts[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
    model = load_default_model();
    if (!model) return nibl_last_message()[0] ? 1 : 77;
    nibl_model_info info = {.size = sizeof info};
    CHECK_EQ(nibl_model_get_info(model, &info), NIBL_OK);
    vocabulary = info.vocabulary;
    const int failed = test_run(tests, sizeof tests / sizeof *tests);
    nibl_model_free(model);
    return failed;
}
