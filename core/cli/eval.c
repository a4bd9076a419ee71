/* Token file, little-endian: u32 number of sequences, then for each u32 n and n x i32 token ids.
 * Logits file: raw little-endian f32 rows [vocabulary], of every position, sequence after sequence. */
#include "core/cli/console.h"
#include "core/cli/eval.h"
#include "core/cli/json.h"

#include <inttypes.h>

enum { MAX_FILE = 256 << 20 };

typedef nibl_cli_eval_options eval_options;

static const eval_options defaults = {0};

#define FIELD(member) offsetof(eval_options, member)
static const nibl_cli_option table[] = {
    {"-f, --file", NIBL_CLI_TEXTS, FIELD(files), "[NAME=]FILE", 0, 0, NULL,
     "a text to be scored; may be given several times, each is reported apart"},
    {"--reference", NIBL_CLI_TEXT, FIELD(reference), "MODEL", 0, 0, NULL,
     "the model to compare with, computed beside it with the same options; --quantize is not for it"},
    {"--chunks", NIBL_CLI_INTEGER, FIELD(chunks), "N", 0, 1 << 24, "all", "windows of each text"},
    {"--bos", NIBL_CLI_FLAG, FIELD(bos), NULL, 0, 0, NULL,
     "every window begins with BOS, in place of its first token"},
    {"-c, --ctx-size", NIBL_CLI_INTEGER, FIELD(settings.context), "N", 0, 1 << 24, "512",
     "tokens of a window"},
    {"--tokens", NIBL_CLI_TEXT, FIELD(tokens), "FILE", 0, 0, NULL,
     "sequences: u32 how many; for each u32 n, n x i32 (little-endian)"},
    {"--logits", NIBL_CLI_TEXT, FIELD(logits), "FILE", 0, 0, NULL,
     "where the f32 logits of every position are written"},
    NIBL_CLI_COMPUTE_OPTIONS(eval_options),
    NIBL_CLI_KV_OPTIONS(eval_options),
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "one JSON object per text or sequence"},
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

static int eval(const char *path, const void *given) {
    const eval_options *o = given;
    int code = nibl_cli_settings_check(&o->settings, nibl_cli_eval.name);
    if (code != NIBL_EXIT_OK) return code;
    if (o->files.count > 0 && (o->tokens || o->logits))
        return nibl_cli_fail_usage(nibl_cli_eval.name,
                                   "-f scores texts, --tokens and --logits write logits: not both");
    if (o->files.count > 0) return nibl_cli_eval_texts(path, o);
    if (o->reference || o->chunks || o->bos)
        return nibl_cli_fail_usage(nibl_cli_eval.name,
                                   "--reference, --chunks and --bos are for texts: -f is missing");
    if (!o->tokens || !o->logits)
        return nibl_cli_fail_usage(nibl_cli_eval.name, "--tokens and --logits are both needed");
    nibl_cli_model model = {0};
    nibl_cli_output output = {0};
    nibl_cli_tokens tokens = {0};
    sequences s = {0};
    code = read_sequences(o->tokens, &s);
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

const nibl_cli_verb nibl_cli_eval = {
    .name = "eval",
    .arguments = "MODEL -f FILE [options] | MODEL --tokens FILE --logits FILE [options]",
    .summary = "Scores texts: perplexity, and the divergence from a reference; or writes logits.",
    .details =
        "A text is cut into windows, each run alone, and the second half of each is scored. Errors behind\n"
        "+- are standard errors; those of comparisons are paired, position by position.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = eval,
};
