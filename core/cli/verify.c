#include "core/cli/chat.h"
#include "core/cli/receipt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct verify_options {
    const char *model;
    int64_t threads;
    bool json;
} verify_options;

static const verify_options defaults = {0};

#define FIELD(member) offsetof(verify_options, member)
static const nibl_cli_option table[] = {
    {"-m, --model", NIBL_CLI_TEXT, FIELD(model), "MODEL", 0, 0, "",
     "the model, in place of the second argument"},
    {"-t, --threads", NIBL_CLI_INTEGER, FIELD(threads), "N", 0, NIBL_MAX_THREADS,
     "one per physical core, at most 8", "threads; the result does not depend on them"},
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "one JSON object"},
};

/* One verification. The first difference ends it. */
typedef struct verification {
    const nibl_cli_receipt *receipt;
    nibl_cli_model model;
    nibl_session *session;
    nibl_sampler *sampler;
    nibl_grammar *grammar;
    nibl_decoder *decoder;
    const char *what; /* differs: "model", "prompt", "tokens", "text", "hash"; NULL = nothing does */
    size_t at; /* index of the token */
    nibl_cli_text theirs, here; /* as people read it */
} verification;

static int differ(verification *v, const char *what, size_t at, const char *theirs, const char *here) {
    v->what = what;
    v->at = at;
    return nibl_cli_text_append(&v->theirs, theirs, strlen(theirs)) &&
                   nibl_cli_text_append(&v->here, here, strlen(here))
               ? NIBL_EXIT_OK
               : NIBL_EXIT_FAILED;
}

/* ---- The model ---- */

/* Where the receipt's file i stands, if MODEL is the first one, or a folder. */
static bool file_path(const char *model, const nibl_cli_receipt *receipt, size_t i, nibl_cli_text *out) {
    const char *name = receipt->files[i].name.bytes, *slash = strrchr(model, '/');
    out->length = 0;
    if (nibl_cli_is_folder(model)) return nibl_cli_join(model, name, out);
    if (i == 0) return nibl_cli_text_append(out, model, strlen(model));
    return nibl_cli_text_append(out, model, slash ? (size_t)(slash + 1 - model) : 0) &&
           nibl_cli_text_append(out, name, strlen(name));
}

static int compare_files(verification *v, const char *model) {
    nibl_cli_text path = {0};
    int code = NIBL_EXIT_OK;
    for (size_t i = 0; i < v->receipt->file_count && code == NIBL_EXIT_OK && !v->what; i++) {
        const nibl_cli_receipt_file *theirs = &v->receipt->files[i];
        uint64_t size;
        char sha256[NIBL_CLI_SHA256_TEXT], sizes[2][64];
        if (!file_path(model, v->receipt, i, &path)) code = NIBL_EXIT_FAILED;
        if (code == NIBL_EXIT_OK) code = nibl_cli_sha256_file(path.bytes, &size, sha256);
        if (code != NIBL_EXIT_OK) break;
        snprintf(sizes[0], sizeof sizes[0], "%" PRIu64 " bytes", theirs->size);
        snprintf(sizes[1], sizeof sizes[1], "%" PRIu64 " bytes", size);
        if (theirs->size && theirs->size != size)
            code = differ(v, "model", i, sizes[0], sizes[1]);
        else if (*theirs->sha256 && strcmp(theirs->sha256, sha256) != 0)
            code = differ(v, "model", i, theirs->sha256, sha256);
    }
    nibl_cli_text_free(&path);
    return code;
}

/* Whether every file of the model had a hash to be compared. */
static bool is_identified(const nibl_cli_receipt *receipt) {
    for (size_t i = 0; i < receipt->file_count; i++)
        if (!*receipt->files[i].sha256) return false;
    return receipt->file_count > 0;
}

/* ---- The answer ---- */

static int open_model(verification *v, const char *path, const verify_options *o) {
    const nibl_cli_receipt *r = v->receipt;
    int code = nibl_cli_model_open(path, r->quantize.length ? r->quantize.bytes : NULL, false, &v->model);
    if (code != NIBL_EXIT_OK) return code;
    const nibl_cli_settings settings = {.threads = o->threads};
    nibl_session_options session = r->session;
    session.threads = nibl_cli_threads(&settings);
    if (nibl_session_new(v->model.model, &session, &v->session) < 0)
        return nibl_cli_fail_library("the session");
    if (nibl_sampler_new(v->model.model, &r->sampler, &v->sampler) < 0)
        return nibl_cli_fail_library("the sampler");
    if (nibl_decoder_new(v->model.model, false, &v->decoder) < 0)
        return nibl_cli_fail_library("decoding tokens");
    if (r->grammar_format >= 0 &&
        nibl_grammar_new(v->model.model, (uint32_t)r->grammar_format,
                         r->grammar.bytes ? r->grammar.bytes : "", r->grammar.length, &v->grammar) < 0)
        return nibl_cli_fail_library("the grammar");
    return NIBL_EXIT_OK;
}

/* "17 (" lives")" */
static void describe_token(const verification *v, int32_t token, char *out, size_t size) {
    char piece[48];
    size_t length = 0;
    const bool known =
        nibl_detokenize(v->model.model, &token, 1, true, piece, sizeof piece, &length) == NIBL_OK;
    snprintf(out, size, "%" PRId32 " (\"%.*s\")", token, known ? (int)length : 0, piece);
}

static int differ_token(verification *v, const char *what, size_t at, int32_t theirs, int32_t here) {
    char texts[2][96];
    describe_token(v, theirs, texts[0], sizeof texts[0]);
    describe_token(v, here, texts[1], sizeof texts[1]);
    return differ(v, what, at, texts[0], texts[1]);
}

/* Whether the prompt's text makes the prompt's tokens. */
static int compare_prompt(verification *v) {
    const nibl_cli_receipt *r = v->receipt;
    nibl_cli_tokens tokens = {0};
    int code = nibl_cli_tokenize(&v->model, r->prompt.bytes ? r->prompt.bytes : "", r->prompt.length,
                                 r->bos ? NIBL_TOKENIZE_BOS : 0, &tokens);
    size_t same = 0;
    while (same < tokens.count && same < r->prompt_tokens.count &&
           tokens.ids[same] == r->prompt_tokens.ids[same])
        same++;
    char counts[2][48];
    snprintf(counts[0], sizeof counts[0], "%zu tokens", r->prompt_tokens.count);
    snprintf(counts[1], sizeof counts[1], "%zu tokens", tokens.count);
    if (code == NIBL_EXIT_OK && same < tokens.count && same < r->prompt_tokens.count)
        code = differ_token(v, "prompt", same, r->prompt_tokens.ids[same], tokens.ids[same]);
    else if (code == NIBL_EXIT_OK && tokens.count != r->prompt_tokens.count)
        code = differ(v, "prompt", same, counts[0], counts[1]);
    nibl_cli_tokens_free(&tokens);
    return code;
}

static int add_piece(verification *v, int32_t token, nibl_cli_text *out) {
    const char *piece;
    size_t length;
    if (nibl_decoder_push(v->decoder, token, &piece, &length) < 0)
        return nibl_cli_fail_library("decoding a token");
    return nibl_cli_text_append(out, piece, length) ? NIBL_EXIT_OK : NIBL_EXIT_FAILED;
}

/* The tokens' text: what was stopped may have less of it. */
static int compare_text(verification *v, const nibl_cli_text *text) {
    const nibl_cli_receipt *r = v->receipt;
    const bool partly = r->finish == NIBL_CLI_FINISH_STOP || r->finish == NIBL_CLI_FINISH_INTERRUPTED;
    const bool fits = partly ? r->text.length <= text->length : r->text.length == text->length;
    if (fits && (r->text.length == 0 || memcmp(text->bytes, r->text.bytes, r->text.length) == 0))
        return NIBL_EXIT_OK;
    return differ(v, "text", 0, r->text.bytes ? r->text.bytes : "", text->bytes ? text->bytes : "");
}

static int repeat(verification *v) {
    const nibl_cli_receipt *r = v->receipt;
    if (nibl_session_set_tokens(v->session, r->prompt_tokens.ids, r->prompt_tokens.count, NULL) < 0)
        return nibl_cli_fail_library("the prompt");
    int code = nibl_cli_compute(&v->session, 1);
    if (code == NIBL_EXIT_OK && v->grammar) {
        const int64_t room = (int64_t)r->session.context_length - (int64_t)r->prompt_tokens.count + 1;
        const bool limited = r->limit >= 0 && r->limit < room;
        if (nibl_sampler_constrain(v->sampler, v->grammar, (uint32_t)(limited ? r->limit : room)) < 0)
            return nibl_cli_fail_library("the grammar");
    }
    nibl_cli_text text = {0};
    for (size_t i = 0; i < r->tokens.count && code == NIBL_EXIT_OK && !v->what; i++) {
        int32_t token;
        if (nibl_sample(v->sampler, v->session, &token, NULL) < 0)
            code = nibl_cli_fail_library("sampling");
        else if (token != r->tokens.ids[i])
            code = differ_token(v, "tokens", i, r->tokens.ids[i], token);
        else if (!nibl_is_end_token(v->model.model, token))
            code = add_piece(v, token, &text);
        if (code != NIBL_EXIT_OK || v->what || i + 1 == r->tokens.count) continue;
        if (nibl_session_append(v->session, &token, 1) < 0)
            code = nibl_cli_fail_library("repeating");
        else
            code = nibl_cli_compute(&v->session, 1);
    }
    if (code == NIBL_EXIT_OK && !v->what && r->finish != NIBL_CLI_FINISH_INTERRUPTED)
        code = add_piece(v, -1, &text);
    if (code == NIBL_EXIT_OK && !v->what) {
        char hashes[2][20];
        snprintf(hashes[0], sizeof hashes[0], "%016" PRIx64, r->hash);
        snprintf(hashes[1], sizeof hashes[1], "%016" PRIx64, nibl_session_hash(v->session));
        code = strcmp(hashes[0], hashes[1]) == 0 ? compare_text(v, &text)
                                                 : differ(v, "hash", 0, hashes[0], hashes[1]);
    }
    nibl_cli_text_free(&text);
    return code;
}

/* ---- The verb ---- */

static void print_result(const verification *v, const verify_options *o) {
    const nibl_cli_receipt *r = v->receipt;
    if (o->json) {
        nibl_cli_json json = {.out = stdout};
        nibl_cli_json_open(&json, NULL, '{');
        nibl_cli_json_boolean(&json, "equal", !v->what);
        nibl_cli_json_boolean(&json, "identified", is_identified(r));
        nibl_cli_json_integer(&json, "tokens", r->tokens.count);
        nibl_cli_json_hash(&json, "hash", r->hash);
        if (v->what) {
            nibl_cli_json_open(&json, "difference", '{');
            nibl_cli_json_string(&json, "what", v->what);
            nibl_cli_json_integer(&json, "at", v->at);
            nibl_cli_json_bytes(&json, "receipt", v->theirs.bytes, v->theirs.length);
            nibl_cli_json_bytes(&json, "here", v->here.bytes, v->here.length);
            nibl_cli_json_close(&json, '}');
        }
        nibl_cli_json_close(&json, '}');
    } else if (v->what) {
        printf("differs: %s", v->what);
        if (strcmp(v->what, "tokens") == 0 || strcmp(v->what, "prompt") == 0) printf(" %zu", v->at);
        printf(": the receipt has %s, here it is %s\n", v->theirs.bytes, v->here.bytes);
    } else {
        printf("equal: %zu tokens, logits %016" PRIx64 ", %s\n", r->tokens.count, r->hash,
               is_identified(r) ? "the model's SHA-256" : "the model's size (the receipt has no SHA-256)");
    }
}

static int verify(const char *path, const void *given) {
    const verify_options *o = given;
    nibl_cli_receipt receipt;
    nibl_cli_text beside = {0};
    int code = nibl_cli_receipt_read(path, &receipt);
    const char *model = o->model;
    if (code == NIBL_EXIT_OK && !model) {
        const char *slash = strrchr(path, '/');
        if (receipt.file_count == 0)
            code = nibl_cli_fail_usage("verify", "the receipt names no file: give MODEL");
        else if (!nibl_cli_text_append(&beside, path, slash ? (size_t)(slash + 1 - path) : 0) ||
                 !nibl_cli_text_append(&beside, receipt.files[0].name.bytes, receipt.files[0].name.length))
            code = NIBL_EXIT_FAILED;
        model = beside.bytes;
    }
    verification v = {.receipt = &receipt};
    if (code == NIBL_EXIT_OK) code = compare_files(&v, model);
    if (code == NIBL_EXIT_OK && !v.what) code = open_model(&v, model, o);
    if (code == NIBL_EXIT_OK && !v.what) code = compare_prompt(&v);
    if (code == NIBL_EXIT_OK && !v.what) code = repeat(&v);
    if (code == NIBL_EXIT_OK) print_result(&v, o);
    if (code == NIBL_EXIT_OK && v.what) code = NIBL_EXIT_FAILED;
    nibl_cli_text_free(&v.theirs);
    nibl_cli_text_free(&v.here);
    nibl_cli_text_free(&beside);
    nibl_decoder_free(v.decoder);
    nibl_sampler_free(v.sampler);
    nibl_grammar_free(v.grammar);
    nibl_session_free(v.session);
    nibl_cli_model_close(&v.model);
    nibl_cli_receipt_free(&receipt);
    return code;
}

const nibl_cli_verb nibl_cli_verify = {
    .name = "verify",
    .arguments = "RECEIPT [MODEL] [options]",
    .summary = "Repeats an answer from its receipt, and says whether it is the same.",
    .details =
        "\n"
        "RECEIPT is what the page, model.receipt() or `nibl run --receipt` wrote. MODEL is the file that it "
        "names, by default\n"
        "in the receipt's folder. Compared are the model's SHA-256, the prompt's tokens, every token, the "
        "text, and a hash of\n"
        "all logits. Exit code 0: equal; 1: not, or it could not be told.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .places = "--model",
    .run = verify,
};
