/* A text is cut into windows of -c tokens, each run alone; of each the second half is scored, so that every scored
 * position has at least half a window before it: with 512 tokens positions 256 to 510. */
#include "core/cli/console.h"
#include "core/cli/eval.h"
#include "core/cli/json.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20, MIN_WINDOW = 4 };

typedef struct models {
    nibl_cli_model model, reference; /* the reference's model is NULL where there is none */
    size_t window;
} models;

/* ---- Texts ---- */

typedef struct domain {
    const char *name, *path;
    size_t name_length;
} domain;

/* [NAME=]FILE: a name has no slash. */
static domain split(const char *given) {
    const char *equals = strchr(given, '='), *slash = strchr(given, '/');
    if (!equals || equals == given || (slash && slash < equals)) return (domain){given, given, strlen(given)};
    return (domain){given, equals + 1, (size_t)(equals - given)};
}

static int tokenize(const nibl_model *model, const nibl_cli_text *text, nibl_cli_tokens *tokens) {
    size_t count;
    if (!nibl_cli_tokens_reserve(tokens, text->length + 1)) return NIBL_EXIT_FAILED;
    if (nibl_tokenize(model, text->bytes, text->length, 0, tokens->ids, tokens->capacity, &count) < 0)
        return nibl_cli_fail_library("tokenizing");
    tokens->count = count;
    return NIBL_EXIT_OK;
}

/* The tokens of a text; both models must read it alike, or their distributions are about different things. */
static int read_tokens(const models *m, const char *path, nibl_cli_tokens *tokens) {
    nibl_cli_text text = {0};
    nibl_cli_tokens others = {0};
    int code = nibl_cli_read_file(path, MAX_TEXT, &text);
    if (code == NIBL_EXIT_OK && text.length == 0) code = nibl_cli_fail("%s: is empty", path);
    if (code == NIBL_EXIT_OK) code = tokenize(m->model.model, &text, tokens);
    if (code == NIBL_EXIT_OK && m->reference.model) code = tokenize(m->reference.model, &text, &others);
    if (code == NIBL_EXIT_OK && m->reference.model &&
        (others.count != tokens->count ||
         memcmp(others.ids, tokens->ids, tokens->count * sizeof *tokens->ids) != 0))
        code = nibl_cli_fail("%s: the reference's tokenizer gives other tokens; compare models of one family",
                             path);
    if (code == NIBL_EXIT_OK && tokens->count < m->window)
        code = nibl_cli_fail("%s: %zu tokens are less than a window of %zu; give more text or a smaller -c",
                             path, tokens->count, m->window);
    nibl_cli_tokens_free(&others);
    nibl_cli_text_free(&text);
    return code;
}

/* ---- Windows ---- */

typedef struct runner {
    nibl_session *session;
    const float *logits; /* of the last step */
    size_t first, count;
} runner;

/* A session of its own for each window: nothing of the one before is reused, so every position has its logits. */
static int start(const nibl_cli_model *model, const nibl_cli_eval_options *o, const int32_t *ids,
                 size_t window, runner *out) {
    nibl_session_options options = nibl_cli_session_options(&o->settings, (uint32_t)window);
    options.logits = NIBL_LOGITS_ALL;
    if (nibl_session_new(model->model, &options, &out->session) < 0 ||
        nibl_session_set_tokens(out->session, ids, window, NULL) < 0)
        return nibl_cli_fail_library("the window");
    return NIBL_EXIT_OK;
}

static int advance(runner *r, nibl_status *status) {
    *status = nibl_step(&r->session, 1, 0);
    if (*status < 0) return nibl_cli_fail_library("computing");
    if (nibl_session_logits(r->session, &r->logits, &r->first, &r->count) < 0)
        return nibl_cli_fail_library("reading the logits");
    return NIBL_EXIT_OK;
}

/* Both sessions have the same options, so their steps are of the same positions. */
static int score_rows(const runner *model, const runner *reference, const int32_t *ids, size_t window,
                      size_t vocabulary, nibl_evaluation *evaluation) {
    for (size_t i = 0; i < model->count; i++) {
        const size_t position = model->first + i;
        if (position < window / 2 || position + 1 >= window) continue;
        const float *logits = model->logits + i * vocabulary;
        const float *expected = reference->session ? reference->logits + i * vocabulary : NULL;
        if (nibl_evaluation_add(evaluation, logits, expected, ids[position + 1]) < 0)
            return nibl_cli_fail_library("scoring");
    }
    return NIBL_EXIT_OK;
}

static int score_window(const models *m, const nibl_cli_eval_options *o, const int32_t *ids,
                        nibl_evaluation *evaluation) {
    runner model = {0}, reference = {0};
    nibl_status status = NIBL_MORE;
    int code = start(&m->model, o, ids, m->window, &model);
    if (code == NIBL_EXIT_OK && m->reference.model)
        code = start(&m->reference, o, ids, m->window, &reference);
    while (code == NIBL_EXIT_OK && status == NIBL_MORE) {
        if (reference.session) code = advance(&reference, &status);
        if (code == NIBL_EXIT_OK) code = advance(&model, &status);
        if (code == NIBL_EXIT_OK)
            code = score_rows(&model, &reference, ids, m->window, m->model.info.vocabulary, evaluation);
        if (code == NIBL_EXIT_OK && nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    }
    nibl_session_free(model.session);
    nibl_session_free(reference.session);
    return code;
}

static int score_text(const models *m, const nibl_cli_eval_options *o, nibl_cli_tokens *tokens,
                      size_t windows, nibl_evaluation *evaluation) {
    const bool shown = nibl_cli_stderr_is_terminal();
    int code = NIBL_EXIT_OK;
    for (size_t w = 0; code == NIBL_EXIT_OK && w < windows; w++) {
        int32_t *ids = tokens->ids + w * m->window;
        if (o->bos) ids[0] = m->model.info.bos;
        if (shown) fprintf(stderr, "\rwindow %zu of %zu", w + 1, windows);
        code = score_window(m, o, ids, evaluation);
    }
    if (shown) fputc('\n', stderr);
    return code;
}

/* ---- Results ---- */

/* What is shown of a result: a table row and a JSON member each. */
typedef struct figure {
    const char *key, *label;
    size_t value;
    bool has_error, compares;
    double scale; /* of the table: 100 for percent */
} figure;

#define RESULT(member) offsetof(nibl_evaluation_result, member)
static const figure figures[] = {
    {"perplexity", "perplexity", RESULT(perplexity), true, false, 1},
    {"reference_perplexity", "perplexity of the reference", RESULT(reference_perplexity), true, true, 1},
    {"perplexity_ratio", "perplexity ratio", RESULT(perplexity_ratio), true, true, 1},
    {"kl", "mean KLD", RESULT(kl), true, true, 1},
    {"kl_median", "median KLD", RESULT(kl_median), false, true, 1},
    {"kl_99", "99 % KLD", RESULT(kl_99), false, true, 1},
    {"kl_999", "99.9 % KLD", RESULT(kl_999), false, true, 1},
    {"kl_max", "maximum KLD", RESULT(kl_max), false, true, 1},
    {"p_change", "mean change of p, %", RESULT(p_change), true, true, 100},
    {"p_change_rms", "RMS change of p, %", RESULT(p_change_rms), true, true, 100},
    {"same_top", "same top token, %", RESULT(same_top), true, true, 100},
};
enum { FIGURES = sizeof figures / sizeof *figures };

static void print_table(const domain *d, size_t windows, size_t window, const nibl_evaluation_result *result,
                        bool compared) {
    printf("%.*s: %zu windows of %zu tokens, %" PRIu64 " positions\n", (int)d->name_length, d->name, windows,
           window, result->positions);
    for (size_t i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (f->compares && !compared) continue;
        const double *value = (const double *)(const void *)((const char *)result + f->value);
        printf("  %-28s%12.6f", f->label, value[0] * f->scale);
        if (f->has_error) printf("  +- %.6f", value[1] * f->scale); /* nibl_estimate: the error follows */
        putchar('\n');
    }
}

static void print_json(const domain *d, size_t windows, size_t window, const nibl_evaluation_result *result,
                       bool compared) {
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_bytes(&json, "text", d->name, d->name_length);
    nibl_cli_json_integer(&json, "windows", windows);
    nibl_cli_json_integer(&json, "window", window);
    nibl_cli_json_integer(&json, "positions", result->positions);
    for (size_t i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (f->compares && !compared) continue;
        const double *value = (const double *)(const void *)((const char *)result + f->value);
        if (!f->has_error) {
            nibl_cli_json_real(&json, f->key, value[0]);
            continue;
        }
        nibl_cli_json_open(&json, f->key, '{');
        nibl_cli_json_real(&json, "value", value[0]);
        nibl_cli_json_real(&json, "error", value[1]);
        nibl_cli_json_close(&json, '}');
    }
    nibl_cli_json_string(&json, "isa", nibl_isa());
    nibl_cli_json_close(&json, '}');
}

static int evaluate_text(const models *m, const nibl_cli_eval_options *o, const char *given) {
    const domain d = split(given);
    nibl_cli_tokens tokens = {0};
    nibl_evaluation *evaluation = NULL;
    nibl_evaluation_result result = {.size = sizeof result};
    const bool compared = m->reference.model != NULL;
    int code = read_tokens(m, d.path, &tokens);
    size_t windows = tokens.count / m->window;
    if (o->chunks > 0 && (uint64_t)o->chunks < windows) windows = (size_t)o->chunks;
    if (code == NIBL_EXIT_OK && nibl_evaluation_new(m->model.info.vocabulary, compared, &evaluation) < 0)
        code = nibl_cli_fail_library("the evaluation");
    if (code == NIBL_EXIT_OK) code = score_text(m, o, &tokens, windows, evaluation);
    if (code == NIBL_EXIT_OK && nibl_evaluation_get(evaluation, &result) < 0)
        code = nibl_cli_fail_library(d.path);
    if (code == NIBL_EXIT_OK) (o->json ? print_json : print_table)(&d, windows, m->window, &result, compared);
    nibl_evaluation_free(evaluation);
    nibl_cli_tokens_free(&tokens);
    return code;
}

int nibl_cli_eval_texts(const char *path, const nibl_cli_eval_options *o) {
    models m = {.window = o->settings.context ? (size_t)o->settings.context : NIBL_CLI_EVAL_WINDOW};
    if (m.window < MIN_WINDOW)
        return nibl_cli_fail_usage(nibl_cli_eval.name,
                                   "-c must be %d at least: a window's second half is scored", MIN_WINDOW);
    int code = nibl_cli_model_open(path, o->settings.quantize, false, &m.model);
    if (code == NIBL_EXIT_OK && o->reference)
        code = nibl_cli_model_open(o->reference, NULL, false, &m.reference);
    if (code == NIBL_EXIT_OK && o->reference && m.model.info.vocabulary != m.reference.info.vocabulary)
        code = nibl_cli_fail("%s: has %u tokens, %s has %u: their distributions cannot be compared",
                             o->reference, m.reference.info.vocabulary, path, m.model.info.vocabulary);
    if (code == NIBL_EXIT_OK && o->bos && m.model.info.bos < 0)
        code = nibl_cli_fail("%s: has no BOS token for --bos", path);
    for (size_t i = 0; code == NIBL_EXIT_OK && i < o->files.count; i++)
        code = evaluate_text(&m, o, o->files.items[i]);
    nibl_cli_model_close(&m.reference);
    nibl_cli_model_close(&m.model);
    return code;
}
