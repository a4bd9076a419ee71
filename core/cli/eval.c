/* Token file, little-endian: u32 number of sequences, then for each u32 n and n x i32 token ids.
 * Logits file: raw little-endian f32 rows [vocabulary], of every position, sequence after sequence. */
#include "core/cli/console.h"
#include "core/cli/eval.h"

#include <inttypes.h>

enum { MAX_FILE = 256 << 20, MIN_WINDOW = 4 };

typedef nibl_cli_eval_options eval_options;

static const eval_options defaults = {0};

#define FIELD(member) offsetof(eval_options, member)
static const nibl_cli_option table[] = {
    {"-f, --file", NIBL_CLI_TEXTS, FIELD(files), "[NAME=]FILE", 0, 0, NULL,
     "a text to be scored; may be given several times, each is reported apart"},
    {"--domains", NIBL_CLI_TEXT, FIELD(domains), "DIR", 0, 0, "small texts of its own",
     "a folder of texts to be scored, one file a domain; .jsonl: conversations, for the chat template"},
    {"--tasks", NIBL_CLI_TEXT, FIELD(tasks), "DIR", 0, 0, NULL,
     "a folder of .jsonl files with items {prompt, choices, answer}: the likeliest choice is the model's"},
    {"--reference", NIBL_CLI_TEXT, FIELD(reference), "MODEL|FILE", 0, 0, NULL,
     "what to compare with: a model, computed beside it with the same options (--quantize is not for it), or "
     "a file "
     "of --keep, which brings its texts"},
    {"--base", NIBL_CLI_TEXT, FIELD(base), "MODEL", 0, 0, NULL,
     "the model that MODEL is fine-tuned from, quantized alike: what it lost against --base-reference on the "
     "same texts "
     "stands beside what MODEL lost"},
    {"--base-reference", NIBL_CLI_TEXT, FIELD(base_reference), "MODEL|FILE", 0, 0, NULL,
     "what --base is compared with; a file of --keep where --reference is one"},
    {"--keep", NIBL_CLI_TEXT, FIELD(keep), "FILE", 0, 0, NULL,
     "keeps this model's answers as a reference for others, in 2.6 KB a position"},
    {"--chunks", NIBL_CLI_INTEGER, FIELD(chunks), "N", 0, 1 << 24, "all", "windows of each text"},
    {"--bos", NIBL_CLI_FLAG, FIELD(bos), NULL, 0, 0, NULL,
     "every window begins with BOS, in place of its first token"},
    {"--items", NIBL_CLI_INTEGER, FIELD(items), "N", 0, 1 << 24, "all", "items of each task"},
    {"-c, --ctx-size", NIBL_CLI_INTEGER, FIELD(settings.context), "N", 0, 1 << 24, "512",
     "tokens of a window"},
    {"--tokens", NIBL_CLI_TEXT, FIELD(tokens), "FILE", 0, 0, NULL,
     "sequences: u32 how many; for each u32 n, n x i32 (little-endian)"},
    {"--logits", NIBL_CLI_TEXT, FIELD(logits), "FILE", 0, 0, NULL,
     "where the f32 logits of every position are written"},
    NIBL_CLI_COMPUTE_OPTIONS(eval_options),
    NIBL_CLI_KV_OPTIONS(eval_options),
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "one JSON object per text, task or sequence"},
};

static uint32_t load_u32(const char *bytes) {
    const unsigned char *b = (const unsigned char *)bytes;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

typedef struct sequences {
    nibl_cli_text file;
    size_t at; /* next byte of the file */
    uint32_t count;
} sequences;

/* The next sequence; the file has been checked. */
static bool next_sequence(sequences *s, nibl_cli_tokens *tokens) {
    size_t length = load_u32(s->file.bytes + s->at);
    if (!nibl_cli_tokens_reserve(tokens, length)) return false;
    tokens->count = length;
    for (size_t i = 0; i < length; i++) tokens->ids[i] = (int32_t)load_u32(s->file.bytes + s->at + 4 + 4 * i);
    s->at += 4 + 4 * length;
    return true;
}

static int read_sequences(const char *path, sequences *out) {
    int code = nibl_cli_read_file(path, MAX_FILE, &out->file);
    if (code != NIBL_EXIT_OK) return code;
    size_t length = out->file.length, at = 4;
    if (length < 4) return nibl_cli_fail("%s: %zu bytes are too few for a token file", path, length);
    out->count = load_u32(out->file.bytes);
    out->at = at;
    for (uint32_t i = 0; i < out->count; i++) {
        uint32_t tokens = length - at >= 4 ? load_u32(out->file.bytes + at) : 0;
        if (length - at < 4 || (length - at - 4) / 4 < tokens)
            return nibl_cli_fail("%s: ends inside sequence %" PRIu32 " of %" PRIu32, path, i, out->count);
        if (tokens == 0) return nibl_cli_fail("%s: sequence %" PRIu32 " is empty", path, i);
        at += 4 + 4 * (size_t)tokens;
    }
    if (at != length)
        return nibl_cli_fail("%s: %zu bytes follow the last of %" PRIu32 " sequences", path, length - at,
                             out->count);
    return NIBL_EXIT_OK;
}

static int write_row(nibl_cli_output *output, const float *logits, size_t count) {
    static const union {
        uint16_t word;
        unsigned char first;
    } order = {1};
    if (order.first == 1) return nibl_cli_output_write(output, logits, count * sizeof *logits);
    return nibl_cli_fail("this machine is big-endian; logits files are little-endian");
}

/* Writes the rows that the last step computed; *written counts positions. */
static int write_rows(nibl_cli_output *output, nibl_session *session, size_t vocabulary, size_t *written) {
    const float *logits;
    size_t first, count;
    if (nibl_session_logits(session, &logits, &first, &count) < 0)
        return nibl_cli_fail_library("reading the logits");
    if (first != *written) return nibl_cli_fail("the logits of position %zu are missing", *written);
    *written += count;
    return write_row(output, logits, count * vocabulary);
}

static int evaluate(const nibl_cli_model *model, const eval_options *o, const nibl_cli_tokens *tokens,
                    nibl_cli_output *output, uint64_t *hash) {
    nibl_session *session = NULL;
    nibl_session_options options = nibl_cli_session_options(&o->settings, (uint32_t)tokens->count);
    options.logits = NIBL_LOGITS_ALL;
    int code = NIBL_EXIT_OK;
    if (nibl_session_new(model->model, &options, &session) < 0) return nibl_cli_fail_library("the session");
    if (nibl_session_set_tokens(session, tokens->ids, tokens->count, NULL) < 0)
        code = nibl_cli_fail_library("the sequence");
    nibl_status status = NIBL_MORE;
    for (size_t written = 0; code == NIBL_EXIT_OK && status == NIBL_MORE;) {
        status = nibl_step(&session, 1, 0);
        if (status < 0)
            code = nibl_cli_fail_library("computing");
        else
            code = write_rows(output, session, model->info.vocabulary, &written);
        if (nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    }
    *hash = nibl_session_hash(session);
    nibl_session_free(session);
    return code;
}

static void print_result(const eval_options *o, uint32_t index, size_t tokens, uint64_t hash) {
    if (!o->json) {
        printf("sequence %" PRIu32 "  tokens %zu  logits %016" PRIx64 "\n", index, tokens, hash);
        return;
    }
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_integer(&json, "sequence", index);
    nibl_cli_json_integer(&json, "tokens", tokens);
    nibl_cli_json_hash(&json, "hash", hash);
    nibl_cli_json_string(&json, "isa", nibl_isa());
    nibl_cli_json_close(&json, '}');
}

static int write_logits(const char *path, const eval_options *o) {
    if (!o->tokens || !o->logits)
        return nibl_cli_fail_usage(nibl_cli_eval.name, "--tokens and --logits are both needed");
    nibl_cli_model model = {0};
    nibl_cli_output output = {0};
    nibl_cli_tokens tokens = {0};
    sequences s = {0};
    int code = read_sequences(o->tokens, &s);
    if (code == NIBL_EXIT_OK) code = nibl_cli_model_open(path, o->settings.quantize, false, &model);
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_open(o->logits, &output);
    for (uint32_t i = 0; code == NIBL_EXIT_OK && i < s.count; i++) {
        uint64_t hash = 0;
        code = next_sequence(&s, &tokens) ? evaluate(&model, o, &tokens, &output, &hash) : NIBL_EXIT_FAILED;
        if (code == NIBL_EXIT_OK) print_result(o, i, tokens.count, hash);
    }
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_commit(&output);
    nibl_cli_output_discard(&output);
    nibl_cli_tokens_free(&tokens);
    nibl_cli_text_free(&s.file);
    nibl_cli_model_close(&model);
    return code;
}

/* ---- Texts and tasks ---- */

void nibl_cli_eval_json_open(nibl_cli_json *json, const nibl_cli_evaluator *e, const char *kind,
                             const char *name) {
    nibl_cli_json_open(json, NULL, '{');
    nibl_cli_json_string(json, kind, name);
    nibl_cli_json_string(json, "model", e->model.path);
    if (nibl_cli_is_compared(e))
        nibl_cli_json_string(json, "reference", e->saved.path ? e->saved.model.bytes : e->reference.path);
    nibl_cli_json_string(json, "isa", nibl_isa());
}

void nibl_cli_eval_json_estimate(nibl_cli_json *json, const char *key, nibl_estimate estimate) {
    nibl_cli_json_open(json, key, '{');
    nibl_cli_json_real(json, "value", estimate.value);
    nibl_cli_json_real(json, "error", estimate.error);
    nibl_cli_json_close(json, '}');
}

/* What the saved reference has, in its order. */
static int follow_reference(nibl_cli_evaluator *e) {
    nibl_cli_tokens tokens = {0};
    nibl_cli_section section = NIBL_CLI_SECTION_TEXT;
    int code = NIBL_EXIT_OK;
    while (code == NIBL_EXIT_OK && section != NIBL_CLI_SECTION_END) {
        code = nibl_cli_reference_next(&e->saved, &section, &tokens);
        if (code == NIBL_EXIT_OK && section == NIBL_CLI_SECTION_TEXT)
            code = nibl_cli_eval_saved_text(e, &tokens);
        if (code == NIBL_EXIT_OK && section == NIBL_CLI_SECTION_TASK) code = nibl_cli_eval_saved_task(e);
    }
    nibl_cli_tokens_free(&tokens);
    return code;
}

static int open_reference(nibl_cli_evaluator *e, bool saved) {
    const char *path = e->o->reference;
    if (saved) {
        const int code = nibl_cli_reference_open(path, &e->model, &e->saved);
        e->window = e->saved.window;
        return code;
    }
    const int code = nibl_cli_model_open(path, NULL, false, &e->reference);
    if (code == NIBL_EXIT_OK && e->model.info.vocabulary != e->reference.info.vocabulary)
        return nibl_cli_fail("%s: has %u tokens, %s has %u: their distributions cannot be compared", path,
                             e->reference.info.vocabulary, e->model.path, e->model.info.vocabulary);
    return code;
}

static int score_pair(const char *path, const eval_options *o, nibl_cli_base *gathers, nibl_cli_base *base) {
    nibl_cli_evaluator e = {.o = o,
                            .window =
                                o->settings.context ? (size_t)o->settings.context : NIBL_CLI_EVAL_WINDOW,
                            .gathers = gathers,
                            .base = base};
    const bool saved = o->reference && nibl_cli_is_reference(o->reference);
    if (e.window < MIN_WINDOW)
        return nibl_cli_fail_usage(nibl_cli_eval.name,
                                   "-c must be %d at least: a window's second half is scored", MIN_WINDOW);
    if (saved && (o->files.count > 0 || o->domains || o->keep || o->chunks || o->bos || o->settings.context))
        return nibl_cli_fail_usage(
            nibl_cli_eval.name,
            "%s brings its texts and windows: -f, --domains, --keep, --chunks, --bos and -c are "
            "not for it",
            o->reference);
    int code = nibl_cli_model_open(path, o->settings.quantize, false, &e.model);
    if (code == NIBL_EXIT_OK && o->reference) code = open_reference(&e, saved);
    if (code == NIBL_EXIT_OK && o->bos && e.model.info.bos < 0)
        code = nibl_cli_fail("%s: has no BOS token for --bos", path);
    if (code == NIBL_EXIT_OK && o->keep)
        code = nibl_cli_reference_create(o->keep, &e.model, (uint32_t)e.window, &e.kept);
    if (code == NIBL_EXIT_OK && saved) code = follow_reference(&e);
    if (code == NIBL_EXIT_OK && !saved) code = nibl_cli_eval_texts(&e);
    if (code == NIBL_EXIT_OK && !saved) code = nibl_cli_eval_tasks(&e);
    if (code == NIBL_EXIT_OK && o->keep) code = nibl_cli_reference_commit(&e.kept);
    nibl_cli_reference_close(&e.saved);
    nibl_cli_reference_close(&e.kept);
    nibl_cli_model_close(&e.reference);
    nibl_cli_model_close(&e.model);
    return code;
}

/* One pair of models after the other: the base's first. */
static int score(const char *path, const eval_options *o) {
    nibl_cli_base base = {.path = o->base};
    eval_options other = *o;
    if (!o->base && !o->base_reference) return score_pair(path, o, NULL, NULL);
    if (!o->base || !o->base_reference || !o->reference || o->tasks || o->keep)
        return nibl_cli_fail_usage(
            nibl_cli_eval.name,
            "--base, --base-reference and --reference go together, and neither with --tasks "
            "nor --keep");
    if (nibl_cli_is_reference(o->reference) != nibl_cli_is_reference(o->base_reference))
        return nibl_cli_fail_usage(
            nibl_cli_eval.name,
            "--reference and --base-reference must both be models, or both files of --keep");
    other.reference = o->base_reference;
    int code = score_pair(o->base, &other, &base, NULL);
    if (code == NIBL_EXIT_OK) code = score_pair(path, o, NULL, &base);
    if (code == NIBL_EXIT_OK && base.compared == 0)
        code = nibl_cli_fail("no text could be compared with the base: give models of one family");
    nibl_cli_base_free(&base);
    return code;
}

static int eval(const char *path, const void *given) {
    const eval_options *o = given;
    const int code = nibl_cli_settings_check(&o->settings, nibl_cli_eval.name);
    if (code != NIBL_EXIT_OK) return code;
    if (!o->tokens && !o->logits) return score(path, o);
    if (o->files.count > 0 || o->domains || o->tasks || o->reference || o->keep || o->base ||
        o->base_reference)
        return nibl_cli_fail_usage(nibl_cli_eval.name,
                                   "-f scores texts, --tokens and --logits write logits: not both");
    return write_logits(path, o);
}

const nibl_cli_verb nibl_cli_eval = {
    .name = "eval",
    .arguments = "MODEL [-f FILE] [options] | MODEL --tokens FILE --logits FILE [options]",
    .summary =
        "Scores texts by domain, and tasks: perplexity, divergence from a reference; or writes logits.",
    .details =
        "Without -f, --domains and --tasks small texts of the command's own are scored: arithmetic, "
        "chat, code,\n"
        "other languages, prose. Two models are compared with --reference, or each with the same file of "
        "--keep.\n"
        "A text is cut into windows, each run alone, and the second half of each is scored. Errors behind "
        "+- are\n"
        "standard errors; those of comparisons are paired, position by position.\n"
        "\n"
        "Whether a fine-tuned model loses more than its base:\n"
        "    nibl eval TUNED-Q4 --reference TUNED-F16 --base BASE-Q4 --base-reference BASE-F16\n"
        "tells by domain what each lost against its own reference, and the quotients: above 1 it does.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = eval,
};
