/* A text is cut into windows of -c tokens, each run alone; of each the second half is scored, so that every scored
 * position has at least half a window before it: with 512 tokens positions 256 to 510. */
#include "core/cli/console.h"
#include "core/cli/eval.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20, MAX_MESSAGES = 64, TOKENIZE_CHAT = NIBL_TOKENIZE_SPECIAL };

/* ---- Texts ---- */

/* A text's name and where it is; of one that the command carries `embedded` alone. */
typedef struct domain {
    char name[64];
    const char *path;
    const nibl_cli_embedded *embedded;
} domain;

static void set_name(domain *d, const char *name, size_t length) {
    snprintf(d->name, sizeof d->name, "%.*s", (int)(length < sizeof d->name ? length : sizeof d->name - 1),
             name);
}

/* The name of a file without folder and ending. */
static void name_after(domain *d, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    set_name(d, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

/* [NAME=]FILE: a name has no slash. */
static domain split(const char *given) {
    domain d = {.path = given};
    const char *equals = strchr(given, '='), *slash = strchr(given, '/');
    if (!equals || equals == given || (slash && slash < equals)) {
        set_name(&d, given, strlen(given));
    } else {
        set_name(&d, given, (size_t)(equals - given));
        d.path = equals + 1;
    }
    return d;
}

/* A score must not depend on the day; without a clock Llama's templates name the same. */
static const nibl_moment written = {.year = 2024, .month = 7, .day = 26};

/* Conversations, one a line: {"messages": [{"role", "content"}, ...]}, as the model's template writes them. */
static int write_chat(const nibl_model *model, const domain *d, const char *line, nibl_cli_text *out) {
    nibl_cli_document document = {0};
    nibl_cli_text words[2 * MAX_MESSAGES] = {{0}};
    nibl_message messages[MAX_MESSAGES];
    size_t count = 0, length = 0;
    int code = NIBL_EXIT_OK;
    size_t list = 0;
    if (nibl_cli_document_parse(line, &document)) list = nibl_cli_document_member(&document, 0, "messages");
    for (size_t i = list + 1; list && i < document.nodes[list].next && count < MAX_MESSAGES; count++) {
        nibl_cli_text *role = &words[2 * count], *content = role + 1;
        if (!nibl_cli_document_text(&document, nibl_cli_document_member(&document, i, "role"), role) ||
            !nibl_cli_document_text(&document, nibl_cli_document_member(&document, i, "content"), content))
            code = nibl_cli_fail("%s: a message without role and content", d->name);
        if (code != NIBL_EXIT_OK) break;
        messages[count] = (nibl_message){role->bytes, content->bytes};
        i = document.nodes[i].next;
    }
    if (code == NIBL_EXIT_OK && count == 0) code = nibl_cli_fail("%s: a line without messages", d->name);
    if (code == NIBL_EXIT_OK) {
        nibl_status status = nibl_chat_prompt(model, messages, count, false, &written, NULL, 0, &length);
        if (status == NIBL_E_BUFFER && nibl_cli_text_reserve(out, out->length + length))
            status = nibl_chat_prompt(model, messages, count, false, &written, out->bytes + out->length,
                                      out->capacity - out->length, &length);
        if (status < 0)
            code = nibl_cli_fail_library(d->name);
        else
            out->length += length;
    }
    for (size_t i = 0; i < 2 * MAX_MESSAGES; i++) nibl_cli_text_free(&words[i]);
    nibl_cli_document_free(&document);
    return code;
}

static bool is_chat(const domain *d) {
    const char *name = d->embedded ? d->embedded->name : d->path;
    const size_t length = strlen(name);
    return length > 6 && strcmp(name + length - 6, ".jsonl") == 0;
}

/* The text; of conversations, which are cut into lines, what the template makes of them. */
static int read_text(const nibl_model *model, const domain *d, nibl_cli_text *text) {
    nibl_cli_text lines = {0};
    nibl_cli_text *raw = is_chat(d) ? &lines : text;
    int code = NIBL_EXIT_OK;
    if (!d->embedded)
        code = nibl_cli_read_file(d->path, MAX_TEXT, raw);
    else if (!nibl_cli_text_append(raw, d->embedded->bytes, d->embedded->length))
        code = NIBL_EXIT_FAILED;
    char *line = raw->bytes;
    while (code == NIBL_EXIT_OK && is_chat(d) && line && *line) {
        char *end = strchr(line, '\n');
        if (end) *end = '\0';
        if (*line) code = write_chat(model, d, line, text);
        line = end ? end + 1 : NULL;
    }
    nibl_cli_text_free(&lines);
    if (code == NIBL_EXIT_OK && text->length == 0)
        code = nibl_cli_fail("%s: is empty", d->path ? d->path : d->name);
    return code;
}

static int tokenize(const nibl_model *model, const domain *d, nibl_cli_tokens *tokens) {
    nibl_cli_text text = {0};
    size_t count = 0;
    int code = read_text(model, d, &text);
    if (code == NIBL_EXIT_OK && !nibl_cli_tokens_reserve(tokens, 3 * text.length + 2))
        code = NIBL_EXIT_FAILED;
    if (code == NIBL_EXIT_OK && nibl_tokenize(model, text.bytes, text.length, is_chat(d) ? TOKENIZE_CHAT : 0,
                                              tokens->ids, tokens->capacity, &count) < 0)
        code = nibl_cli_fail_library("tokenizing");
    tokens->count = count;
    nibl_cli_text_free(&text);
    return code;
}

/* The tokens of a text; both models must read it alike, or their distributions are about different things. */
static int read_tokens(const nibl_cli_evaluator *e, const domain *d, nibl_cli_tokens *tokens) {
    nibl_cli_tokens others = {0};
    int code = tokenize(e->model.model, d, tokens);
    if (code == NIBL_EXIT_OK && e->reference.model) code = tokenize(e->reference.model, d, &others);
    if (code == NIBL_EXIT_OK && e->reference.model &&
        (others.count != tokens->count ||
         memcmp(others.ids, tokens->ids, tokens->count * sizeof *tokens->ids) != 0))
        code = nibl_cli_fail("%s: the reference's tokenizer gives other tokens; compare models of one family",
                             d->name);
    if (code == NIBL_EXIT_OK && tokens->count < e->window)
        code = nibl_cli_fail("%s: %zu tokens are less than a window of %zu; give more text or a smaller -c",
                             d->name, tokens->count, e->window);
    nibl_cli_tokens_free(&others);
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

/* One position: against the row of a second model, against the saved reference, or alone. */
static int score_row(nibl_cli_evaluator *e, const float *logits, const float *expected, int32_t next,
                     nibl_evaluation *evaluation) {
    int code = NIBL_EXIT_OK;
    if (e->saved.path) code = nibl_cli_reference_read_row(&e->saved);
    if (e->kept.path) code = nibl_cli_reference_write_row(&e->kept, logits, next);
    if (code != NIBL_EXIT_OK) return code;
    const nibl_status status = e->saved.path
                                   ? nibl_evaluation_add_packed(evaluation, logits, e->saved.record, next)
                                   : nibl_evaluation_add(evaluation, logits, expected, next);
    return status < 0 ? nibl_cli_fail_library("scoring") : NIBL_EXIT_OK;
}

/* Both sessions have the same options, so their steps are of the same positions. */
static int score_rows(nibl_cli_evaluator *e, const runner *model, const runner *reference, const int32_t *ids,
                      nibl_evaluation *evaluation) {
    const size_t vocabulary = e->model.info.vocabulary;
    int code = NIBL_EXIT_OK;
    for (size_t i = 0; i < model->count && code == NIBL_EXIT_OK; i++) {
        const size_t position = model->first + i;
        if (position < e->window / 2 || position + 1 >= e->window) continue;
        code = score_row(e, model->logits + i * vocabulary,
                         reference->session ? reference->logits + i * vocabulary : NULL, ids[position + 1],
                         evaluation);
    }
    return code;
}

static int score_window(nibl_cli_evaluator *e, const int32_t *ids, nibl_evaluation *evaluation) {
    runner model = {0}, reference = {0};
    nibl_status status = NIBL_MORE;
    int code = start(&e->model, e->o, ids, e->window, &model);
    if (code == NIBL_EXIT_OK && e->reference.model)
        code = start(&e->reference, e->o, ids, e->window, &reference);
    while (code == NIBL_EXIT_OK && status == NIBL_MORE) {
        if (reference.session) code = advance(&reference, &status);
        if (code == NIBL_EXIT_OK) code = advance(&model, &status);
        if (code == NIBL_EXIT_OK) code = score_rows(e, &model, &reference, ids, evaluation);
        if (code == NIBL_EXIT_OK && nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    }
    nibl_session_free(model.session);
    nibl_session_free(reference.session);
    return code;
}

static int score_windows(nibl_cli_evaluator *e, const char *name, const int32_t *ids, size_t windows,
                         nibl_evaluation *evaluation) {
    const bool shown = nibl_cli_stderr_is_terminal();
    int code = NIBL_EXIT_OK;
    for (size_t w = 0; code == NIBL_EXIT_OK && w < windows; w++) {
        if (shown) fprintf(stderr, "\r%s: window %zu of %zu\033[K", name, w + 1, windows);
        code = score_window(e, ids + w * e->window, evaluation);
    }
    if (shown) fputs("\r\033[K", stderr);
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

/* What is shown of the base, and how the model compares with it. */
typedef struct beside {
    const nibl_cli_base_text *base; /* NULL = there is none */
    nibl_evaluation_comparison comparison;
} beside;

static void print_row(const char *label, nibl_estimate e) {
    printf("  %-28s%12.6f  +- %.6f\n", label, e.value, e.error);
}

static void print_table(const nibl_cli_evaluator *e, const char *name, size_t windows,
                        const nibl_evaluation_result *result, const beside *b) {
    printf("%s: %zu windows of %zu tokens, %" PRIu64 " positions\n", name, windows, e->window,
           result->positions);
    for (size_t i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (f->compares && !nibl_cli_is_compared(e)) continue;
        const double *value = (const double *)(const void *)((const char *)result + f->value);
        printf("  %-28s%12.6f", f->label, value[0] * f->scale);
        if (f->has_error) printf("  +- %.6f", value[1] * f->scale); /* nibl_estimate: the error follows */
        putchar('\n');
    }
    if (!b->base) return;
    print_row("base's perplexity ratio", b->base->result.perplexity_ratio);
    print_row("base's mean KLD", b->base->result.kl);
    print_row("perplexity ratio / base's", b->comparison.perplexity_ratio);
    print_row("mean KLD / base's", b->comparison.kl_ratio);
}

static void print_figures(nibl_cli_json *json, const nibl_cli_evaluator *e,
                          const nibl_evaluation_result *result) {
    for (size_t i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (f->compares && !nibl_cli_is_compared(e)) continue;
        const double *value = (const double *)(const void *)((const char *)result + f->value);
        if (f->has_error)
            nibl_cli_eval_json_estimate(json, f->key, (nibl_estimate){value[0], value[1]});
        else
            nibl_cli_json_real(json, f->key, value[0]);
    }
}

static void print_json(const nibl_cli_evaluator *e, const char *name, size_t windows,
                       const nibl_evaluation_result *result, const beside *b) {
    nibl_cli_json json = {.out = stdout};
    nibl_cli_eval_json_open(&json, e, "text", name);
    nibl_cli_json_integer(&json, "windows", windows);
    nibl_cli_json_integer(&json, "window", e->window);
    nibl_cli_json_integer(&json, "positions", result->positions);
    print_figures(&json, e, result);
    if (b->base) {
        nibl_cli_json_open(&json, "base", '{');
        nibl_cli_json_string(&json, "model", e->base->path);
        print_figures(&json, e, &b->base->result);
        nibl_cli_json_close(&json, '}');
        nibl_cli_eval_json_estimate(&json, "perplexity_ratio_to_base", b->comparison.perplexity_ratio);
        nibl_cli_eval_json_estimate(&json, "kl_to_base", b->comparison.kl_ratio);
    }
    nibl_cli_json_close(&json, '}');
}

/* ---- All together ---- */

static int score_text(nibl_cli_evaluator *e, const char *name, const int32_t *ids, size_t windows) {
    nibl_evaluation *evaluation = NULL;
    nibl_evaluation_result result = {.size = sizeof result};
    int code = NIBL_EXIT_OK;
    if (e->kept.path) code = nibl_cli_reference_write_text(&e->kept, name, (uint32_t)windows, ids);
    if (code == NIBL_EXIT_OK &&
        nibl_evaluation_new(e->model.info.vocabulary, nibl_cli_is_compared(e), &evaluation) < 0)
        code = nibl_cli_fail_library("the evaluation");
    if (code == NIBL_EXIT_OK) code = score_windows(e, name, ids, windows, evaluation);
    if (code == NIBL_EXIT_OK && nibl_evaluation_get(evaluation, &result) < 0)
        code = nibl_cli_fail_library(name);
    const nibl_cli_base_text text = {.name = {.bytes = (char *)name, .length = strlen(name)},
                                     .tokens = {.count = windows * e->window},
                                     .window = e->window,
                                     .result = result};
    beside b = {.comparison = {.size = sizeof b.comparison}};
    if (code == NIBL_EXIT_OK && e->gathers) return nibl_cli_base_add(e->gathers, &text, ids, evaluation);
    if (code == NIBL_EXIT_OK && e->base)
        code = nibl_cli_base_compare(e->base, &text, ids, evaluation, &b.base, &b.comparison);
    if (code == NIBL_EXIT_OK) (e->o->json ? print_json : print_table)(e, name, windows, &result, &b);
    nibl_evaluation_free(evaluation);
    return code;
}

int nibl_cli_eval_saved_text(nibl_cli_evaluator *e, nibl_cli_tokens *tokens) {
    return score_text(e, e->saved.name.bytes, tokens->ids, e->saved.windows);
}

static int evaluate(nibl_cli_evaluator *e, const domain *d) {
    nibl_cli_tokens tokens = {0};
    int code = read_tokens(e, d, &tokens);
    size_t windows = tokens.count / e->window;
    if (e->o->chunks > 0 && (uint64_t)e->o->chunks < windows) windows = (size_t)e->o->chunks;
    for (size_t w = 0; w < windows && e->o->bos; w++) tokens.ids[w * e->window] = e->model.info.bos;
    if (code == NIBL_EXIT_OK) code = score_text(e, d->name, tokens.ids, windows);
    nibl_cli_tokens_free(&tokens);
    return code;
}

/* A folder's files, or what the command carries. Conversations need a template that C can write. */
static int evaluate_domains(nibl_cli_evaluator *e) {
    nibl_cli_names names = {0};
    nibl_cli_text path = {0};
    int code = NIBL_EXIT_OK;
    if (e->o->domains) code = nibl_cli_list_folder(e->o->domains, &names);
    for (size_t i = 0;
         code == NIBL_EXIT_OK &&
         (e->o->domains ? i < names.count : strcmp(nibl_cli_embedded_files[i].name, NIBL_CLI_LOSSES) != 0);
         i++) {
        domain d = {.embedded = e->o->domains ? NULL : &nibl_cli_embedded_files[i]};
        name_after(&d, e->o->domains ? names.items[i] : d.embedded->name);
        path.length = 0;
        if (e->o->domains && !nibl_cli_join(e->o->domains, names.items[i], &path)) code = NIBL_EXIT_FAILED;
        d.path = path.bytes;
        size_t length;
        const nibl_message message = {"user", "?"};
        if (is_chat(&d) &&
            nibl_chat_prompt(e->model.model, &message, 1, false, &written, NULL, 0, &length) != NIBL_E_BUFFER)
            fprintf(stderr, "nibl: %s is left out: %s\n", d.name, nibl_last_message());
        else if (code == NIBL_EXIT_OK)
            code = evaluate(e, &d);
    }
    nibl_cli_names_free(&names);
    nibl_cli_text_free(&path);
    return code;
}

int nibl_cli_eval_texts(nibl_cli_evaluator *e) {
    int code = NIBL_EXIT_OK;
    for (size_t i = 0; code == NIBL_EXIT_OK && i < e->o->files.count; i++) {
        const domain d = split(e->o->files.items[i]);
        code = evaluate(e, &d);
    }
    if (code == NIBL_EXIT_OK && (e->o->domains || (e->o->files.count == 0 && !e->o->tasks)))
        code = evaluate_domains(e);
    return code;
}
