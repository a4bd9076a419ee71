#include "core/cli/chat.h"
#include "core/cli/console.h"
#include "core/cli/json.h"
#include "core/cli/prompt_cache.h"
#include "core/cli/receipt.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROMPT = 64 << 20, MAX_GRAMMAR = 1 << 20 };

typedef struct run_options {
    nibl_cli_settings settings;
    const char *prompt, *file, *system, *schema, *grammar, *receipt, *cache;
    int64_t limit, seed, top_k, repeat_window;
    double temperature, top_p, min_p, repeat_penalty;
    nibl_cli_texts stop;
    int speculate;
    bool ignore_end, chat, no_chat, raw, logits_hash, json, cache_all, cache_read_only;
} run_options;

static const run_options defaults = {.limit = -1,
                                     .seed = -1,
                                     .temperature = 0.8,
                                     .top_k = 40,
                                     .top_p = 0.95,
                                     .min_p = 0.05,
                                     .repeat_penalty = 1,
                                     .repeat_window = 64};

#define FIELD(member) offsetof(run_options, member)
static const nibl_cli_option table[] = {
    {"-p, --prompt", NIBL_CLI_TEXT, FIELD(prompt), "TEXT", 0, 0, NULL,
     "one question, or the text to complete"},
    {"-f, --file", NIBL_CLI_TEXT, FIELD(file), "FILE", 0, 0, NULL, "read the prompt from a file; - is stdin"},
    {"-n, --predict", NIBL_CLI_INTEGER, FIELD(limit), "N", -1, INT32_MAX, "-1: until the end",
     "tokens to generate at most"},
    NIBL_CLI_CONTEXT_OPTION(run_options),
    NIBL_CLI_COMPUTE_OPTIONS(run_options),
    NIBL_CLI_KV_OPTIONS(run_options),
    {"-s, --seed", NIBL_CLI_INTEGER, FIELD(seed), "N", -1, INT64_MAX, "-1: random",
     "the same seed gives the same text, on every machine"},
    {"--temp", NIBL_CLI_REAL, FIELD(temperature), "X", 0, 100, NULL,
     "temperature; 0 always takes the likeliest"},
    {"--top-k", NIBL_CLI_INTEGER, FIELD(top_k), "N", 0, INT32_MAX, NULL,
     "sample from the N likeliest; 0 = all"},
    {"--top-p", NIBL_CLI_REAL, FIELD(top_p), "X", 0, 1, NULL,
     "sample from the likeliest that sum to X; 1 = off"},
    {"--min-p", NIBL_CLI_REAL, FIELD(min_p), "X", 0, 1, NULL,
     "drop what is less likely than X times the likeliest"},
    {"--repeat-penalty", NIBL_CLI_REAL, FIELD(repeat_penalty), "X", 0, 100, NULL, "1 = off"},
    {"--repeat-last-n", NIBL_CLI_INTEGER, FIELD(repeat_window), "N", 1, INT32_MAX, NULL,
     "tokens the penalty looks back at"},
    {"--ignore-eos", NIBL_CLI_FLAG, FIELD(ignore_end), NULL, 0, 0, NULL, "never sample an end token"},
    {"-r, --stop", NIBL_CLI_TEXTS, FIELD(stop), "TEXT", 0, 0, NULL, "stop before this text; may be repeated"},
    {"--json-schema, --json-schema-file", NIBL_CLI_TEXT, FIELD(schema), "FILE", 0, 0, NULL,
     "answers are JSON, valid for this schema"},
    {"--grammar, --grammar-file", NIBL_CLI_TEXT, FIELD(grammar), "FILE", 0, 0, NULL,
     "answers are texts of this grammar (GBNF)"},
    {"--speculate", NIBL_CLI_CHOICE, FIELD(speculate), "on|off", 0, 0, NULL,
     "guess ahead where the text repeats itself; changes the time only"},
    {"--chat, -cnv", NIBL_CLI_FLAG, FIELD(chat), NULL, 0, 0, NULL,
     "a conversation; from a pipe, every line of stdin is a question"},
    {"--no-chat, -no-cnv", NIBL_CLI_FLAG, FIELD(no_chat), NULL, 0, 0, NULL, "complete the text as it stands"},
    {"--system, -sys", NIBL_CLI_TEXT, FIELD(system), "TEXT", 0, 0, NULL,
     "system message of the conversation"},
    {"--prompt-cache", NIBL_CLI_TEXT, FIELD(cache), "FILE", 0, 0, NULL,
     "what was computed of the prompt, or of the conversation: taken from FILE where it is there, and "
     "written"},
    {"--prompt-cache-all", NIBL_CLI_FLAG, FIELD(cache_all), NULL, 0, 0, NULL, "and of the answer"},
    {"--prompt-cache-ro", NIBL_CLI_FLAG, FIELD(cache_read_only), NULL, 0, 0, NULL, "FILE is only read"},
    {"--raw", NIBL_CLI_FLAG, FIELD(raw), NULL, 0, 0, NULL,
     "special tokens are written, too; no final line feed, no figures"},
    {"--logits-hash", NIBL_CLI_FLAG, FIELD(logits_hash), NULL, 0, 0, NULL, "tell the hash of all logits"},
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL,
     "one JSON object per answer on stdout, at its end"},
    {"--receipt", NIBL_CLI_TEXT, FIELD(receipt), "FILE", 0, 0, NULL,
     "write what `nibl verify` repeats the answer from"},
};

/* All that one run holds. */
typedef struct context {
    const run_options *o;
    nibl_cli_model model;
    nibl_cli_generator generator;
    nibl_sampler_options sampling;
    nibl_logit_bias *biases;
    nibl_cli_text grammar;
    uint64_t seed;
    bool chat;
    size_t prefilled, decoded; /* tokens computed in all, and their time */
    uint64_t guessed, guessed_right;
    double prefill_seconds, decode_seconds;
} context;

static double rate(size_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

/* ---- Set-up ---- */

static int check(const run_options *o, const char *model) {
    const char *verb = nibl_cli_run.name;
    if (o->prompt && o->file) return nibl_cli_fail_usage(verb, "-p and -f contradict each other");
    if (o->chat && o->no_chat) return nibl_cli_fail_usage(verb, "--chat and --no-chat contradict each other");
    if (o->system && o->no_chat)
        return nibl_cli_fail_usage(verb, "--system needs a conversation, --no-chat is none");
    bool stdin_prompt = (!o->prompt && !o->file) || (o->file && strcmp(o->file, "-") == 0);
    if (strcmp(model, "-") == 0 && stdin_prompt)
        return nibl_cli_fail_usage(verb,
                                   "the model comes from stdin, so the prompt must come from -p or a file");
    if (o->receipt && (o->raw || strcmp(model, "-") == 0))
        return nibl_cli_fail_usage(verb,
                                   "--receipt needs a model that is a file, and an answer without --raw");
    if (!o->cache && (o->cache_all || o->cache_read_only))
        return nibl_cli_fail_usage(verb, "--prompt-cache-all and --prompt-cache-ro need --prompt-cache FILE");
    if (o->cache_all && o->cache_read_only)
        return nibl_cli_fail_usage(verb, "--prompt-cache-all and --prompt-cache-ro contradict each other");
    if (o->schema && o->grammar)
        return nibl_cli_fail_usage(verb, "--json-schema and --grammar contradict each other");
    for (size_t i = 0; i < o->stop.count; i++)
        if (*o->stop.items[i] == '\0')
            return nibl_cli_fail_usage(verb, "--stop needs a text that is not empty");
    return nibl_cli_settings_check(&o->settings, verb);
}

/* Forbids every end token of the vocabulary. */
static nibl_logit_bias *end_biases(const nibl_cli_model *model, size_t *count) {
    nibl_logit_bias *biases = NULL;
    size_t found = 0;
    for (int pass = 0; pass < 2; pass++) {
        found = 0;
        for (uint32_t token = 0; token < model->info.vocabulary; token++) {
            if (!nibl_is_end_token(model->model, (int32_t)token)) continue;
            if (biases) biases[found] = (nibl_logit_bias){(int32_t)token, -INFINITY};
            found++;
        }
        if (!biases && !(biases = calloc(found + 1, sizeof *biases))) return NULL;
    }
    *count = found;
    return biases;
}

static int make_sampler(context *c) {
    const run_options *o = c->o;
    nibl_sampler_options options = {.size = sizeof options,
                                    .temperature = (float)o->temperature,
                                    .top_k = (uint32_t)o->top_k,
                                    .top_p = (float)o->top_p,
                                    .min_p = (float)o->min_p,
                                    .repeat_penalty = (float)o->repeat_penalty,
                                    .repeat_window = (uint32_t)o->repeat_window,
                                    .seed = c->seed};
    if (o->ignore_end) {
        c->biases = end_biases(&c->model, &options.logit_bias_count);
        if (!c->biases) return nibl_cli_fail("out of memory");
        options.logit_bias = c->biases;
    }
    c->sampling = options;
    nibl_status status = nibl_sampler_new(c->model.model, &options, &c->generator.sampler);
    return status < 0 ? nibl_cli_fail_library("the sampler") : NIBL_EXIT_OK;
}

/* Tokens that the session holds. */
static uint32_t context_of(const context *c) {
    const uint32_t most = c->model.info.context_length < 4096 ? c->model.info.context_length : 4096;
    return c->o->settings.context ? (uint32_t)c->o->settings.context : most;
}

static int make_grammar(context *c) {
    const char *path = c->o->schema ? c->o->schema : c->o->grammar;
    c->generator.context = context_of(c);
    if (!path) return NIBL_EXIT_OK;
    int code = nibl_cli_read_file(path, MAX_GRAMMAR, &c->grammar);
    if (code == NIBL_EXIT_OK &&
        nibl_grammar_new(c->model.model, c->o->schema ? NIBL_GRAMMAR_JSON_SCHEMA : NIBL_GRAMMAR_GBNF,
                         c->grammar.bytes ? c->grammar.bytes : "", c->grammar.length,
                         &c->generator.grammar) < 0)
        code = nibl_cli_fail_library(path);
    return code;
}

/* A template that is there but unknown is told; a model that has none simply completes. */
static int choose_mode(context *c, bool interactive) {
    const run_options *o = c->o;
    if (o->no_chat) return NIBL_EXIT_OK;
    size_t length;
    bool has_template = nibl_model_metadata(c->model.model, "tokenizer.chat_template", &length) != NULL;
    c->chat = nibl_cli_chat_known(c->model.model) == NIBL_OK;
    if (c->chat) return NIBL_EXIT_OK;
    if (o->chat || o->system || interactive) return nibl_cli_fail_library(c->model.path);
    if (has_template)
        fprintf(stderr, "nibl: note: %s; completing the text as it stands\n", nibl_last_message());
    return NIBL_EXIT_OK;
}

/* ---- Answers ---- */

static void print_json(const context *c, const nibl_cli_answer *answer) {
    uint64_t current, peak;
    nibl_memory(&current, &peak);
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_bytes(&json, "text", answer->text.bytes ? answer->text.bytes : "", answer->text.length);
    nibl_cli_json_open(&json, "tokens", '[');
    for (size_t i = 0; i < answer->tokens.count; i++)
        nibl_cli_json_integer(&json, NULL, (uint64_t)answer->tokens.ids[i]);
    nibl_cli_json_close(&json, ']');
    nibl_cli_json_string(&json, "finish", nibl_cli_finish_name(answer->finish));
    nibl_cli_json_boolean(&json, "chat", c->chat);
    nibl_cli_json_integer(&json, "prompt_tokens", answer->prompt_tokens);
    nibl_cli_json_integer(&json, "reused_tokens", answer->reused_tokens);
    nibl_cli_json_integer(&json, "generated_tokens", answer->tokens.count);
    nibl_cli_json_integer(&json, "seed", c->seed);
    nibl_cli_json_real(&json, "load_seconds", c->model.seconds);
    nibl_cli_json_real(&json, "prefill_seconds", answer->prefill_seconds);
    nibl_cli_json_real(&json, "decode_seconds", answer->decode_seconds);
    nibl_cli_json_real(&json, "prefill_per_second",
                       rate(answer->prompt_tokens - answer->reused_tokens, answer->prefill_seconds));
    nibl_cli_json_real(&json, "decode_per_second", rate(answer->decoded_tokens, answer->decode_seconds));
    nibl_cli_json_integer(&json, "guessed_tokens", answer->guessed);
    nibl_cli_json_integer(&json, "guessed_right", answer->guessed_right);
    nibl_cli_json_open(&json, "memory", '{');
    nibl_cli_json_integer(&json, "weights", c->model.info.packed_bytes);
    nibl_cli_json_integer(&json, "peak", peak);
    nibl_cli_json_integer(&json, "process_peak", nibl_cli_peak_memory());
    nibl_cli_json_close(&json, '}');
    nibl_cli_json_string(&json, "isa", nibl_isa());
    nibl_cli_json_integer(&json, "threads", nibl_cli_threads(&c->o->settings));
    if (c->o->logits_hash) nibl_cli_json_hash(&json, "logits_hash", nibl_session_hash(c->generator.session));
    nibl_cli_json_close(&json, '}');
    fflush(stdout);
}

static void print_figures(const context *c) {
    uint64_t current, peak;
    nibl_memory(&current, &peak);
    fprintf(stderr,
            "prefill %zu tokens %.1f tok/s | decode %zu tokens %.1f tok/s | load %.2f s | memory %.1f MiB "
            "(process %.1f) "
            "| isa %s | threads %" PRIu32 " | seed %" PRIu64,
            c->prefilled, rate(c->prefilled, c->prefill_seconds), c->decoded,
            rate(c->decoded, c->decode_seconds), c->model.seconds, (double)peak / 1048576,
            (double)nibl_cli_peak_memory() / 1048576, nibl_isa(), nibl_cli_threads(&c->o->settings), c->seed);
    if (c->guessed)
        fprintf(stderr, " | guesses %" PRIu64 " of %" PRIu64 " right", c->guessed_right, c->guessed);
    if (c->o->logits_hash) fprintf(stderr, " | logits %016" PRIx64, nibl_session_hash(c->generator.session));
    fputc('\n', stderr);
}

/* Generates and shows one answer to `prompt`. */
static int answer_prompt(context *c, const nibl_cli_tokens *prompt, nibl_cli_answer *answer) {
    int code = nibl_cli_generate(&c->generator, prompt, answer);
    if (code != NIBL_EXIT_OK) return code;
    c->prefilled += answer->prompt_tokens - answer->reused_tokens;
    c->decoded += answer->decoded_tokens;
    c->prefill_seconds += answer->prefill_seconds;
    c->decode_seconds += answer->decode_seconds;
    c->guessed += answer->guessed;
    c->guessed_right += answer->guessed_right;
    if (c->o->json) {
        print_json(c, answer);
        return NIBL_EXIT_OK;
    }
    size_t length = answer->text.length;
    if (!c->o->raw && (length == 0 || answer->text.bytes[length - 1] != '\n')) putchar('\n');
    fflush(stdout);
    if (answer->finish == NIBL_CLI_FINISH_CONTEXT)
        fprintf(stderr, "nibl: note: the context is full, the answer is cut; -c gives more\n");
    return NIBL_EXIT_OK;
}

/* All files of the model that are there, hashed. */
static int add_files(context *c, nibl_cli_receipt *receipt) {
    nibl_cli_text path = {0};
    const char *model = c->model.path, *slash = strrchr(model, '/');
    const bool is_folder = nibl_cli_is_folder(model);
    int code = is_folder ? NIBL_EXIT_OK : nibl_cli_receipt_add_file(receipt, model);
    const char *name;
    for (uint32_t i = is_folder ? 0 : 1; code == NIBL_EXIT_OK; i++) {
        if (!(name = nibl_loader_file_name(c->model.loader, i))) break;
        path.length = 0;
        const bool ok = is_folder
                            ? nibl_cli_join(model, name, &path)
                            : nibl_cli_text_append(&path, model, slash ? (size_t)(slash + 1 - model) : 0) &&
                                  nibl_cli_text_append(&path, name, strlen(name));
        if (!ok)
            code = NIBL_EXIT_FAILED;
        else if (nibl_cli_is_file(path.bytes))
            code = nibl_cli_receipt_add_file(receipt, path.bytes);
    }
    nibl_cli_text_free(&path);
    return code;
}

/* Texts and tokens are borrowed, so of the receipt only its files are freed. */
static int write_receipt(context *c, const nibl_cli_text *prompt, const nibl_cli_tokens *tokens,
                         nibl_cli_answer *answer) {
    const run_options *o = c->o;
    const char *quantize = o->settings.quantize ? o->settings.quantize : "";
    nibl_cli_receipt receipt = {.prompt = *prompt,
                                .prompt_tokens = *tokens,
                                .bos = !c->chat && c->model.info.add_bos,
                                .text = answer->text,
                                .grammar = c->grammar,
                                .grammar_format = c->generator.grammar ? (o->schema ? 1 : 0) : -1,
                                .quantize = {.bytes = (char *)quantize, .length = strlen(quantize)},
                                .session = nibl_cli_session_options(&o->settings, context_of(c)),
                                .sampler = c->sampling,
                                .limit = o->limit,
                                .stop_count = o->stop.count,
                                .finish = answer->finish,
                                .hash = nibl_session_hash(c->generator.session)};
    for (size_t i = 0; i < o->stop.count; i++)
        receipt.stop[i] =
            (nibl_cli_text){.bytes = (char *)o->stop.items[i], .length = strlen(o->stop.items[i])};
    if (answer->end_token >= 0 && !nibl_cli_tokens_append(&answer->tokens, &answer->end_token, 1))
        return NIBL_EXIT_FAILED;
    receipt.tokens = answer->tokens;
    int code = add_files(c, &receipt);
    if (code == NIBL_EXIT_OK) code = nibl_cli_receipt_write(o->receipt, &receipt, &c->model.info);
    const nibl_cli_receipt files = {.files = receipt.files, .file_count = receipt.file_count};
    receipt = files;
    nibl_cli_receipt_free(&receipt);
    return code;
}

static int answer_once(context *c, const nibl_cli_text *prompt) {
    nibl_cli_answer answer = {0};
    nibl_cli_chat chat = {0};
    nibl_cli_tokens tokens = {0};
    int code;
    if (!c->chat) {
        code = nibl_cli_tokenize(&c->model, prompt->bytes, prompt->length, NIBL_TOKENIZE_BOS, &tokens);
        if (code == NIBL_EXIT_OK && tokens.count == 0) code = nibl_cli_fail("the prompt is empty");
    } else if (memchr(prompt->bytes, '\0', prompt->length)) {
        code = nibl_cli_fail("the prompt holds a NUL byte, which a message may not; --no-chat takes it");
    } else {
        code = nibl_cli_chat_begin(&chat, &c->model, c->o->system);
        if (code == NIBL_EXIT_OK) code = nibl_cli_chat_ask(&chat, prompt->bytes);
    }
    if (code == NIBL_EXIT_OK) code = answer_prompt(c, c->chat ? &chat.tokens : &tokens, &answer);
    if (code == NIBL_EXIT_OK && answer.finish == NIBL_CLI_FINISH_INTERRUPTED)
        code = nibl_cli_fail("interrupted");
    if (code == NIBL_EXIT_OK && c->o->receipt)
        code = write_receipt(c, c->chat ? &chat.text : prompt, c->chat ? &chat.tokens : &tokens, &answer);
    nibl_cli_answer_free(&answer);
    nibl_cli_chat_free(&chat);
    nibl_cli_tokens_free(&tokens);
    return code;
}

/* ---- Conversation ---- */

/* What has been read of stdin and belongs to later lines. */
typedef struct input {
    char bytes[4096];
    size_t at, length;
} input;

/* Reads a line of stdin without its line feed; *more is false at the end of the input. */
static int read_line(input *in, nibl_cli_text *line, bool *more) {
    line->length = 0;
    for (;;) {
        if (in->at == in->length) {
            const ssize_t got = nibl_cli_read(STDIN_FILENO, in->bytes, sizeof in->bytes);
            in->at = 0;
            in->length = got > 0 ? (size_t)got : 0;
        }
        *more = in->length > 0 || line->length > 0;
        if (in->length == 0) break;
        const char c = in->bytes[in->at++];
        if (c == '\n') break;
        if (c == '\0') return nibl_cli_fail("a question may not hold a NUL byte");
        if (line->length == MAX_PROMPT)
            return nibl_cli_fail("a question may have %d bytes at most", MAX_PROMPT);
        if (!nibl_cli_text_append(line, &c, 1)) return NIBL_EXIT_FAILED;
    }
    if (line->length > 0 && line->bytes[line->length - 1] == '\r') line->bytes[--line->length] = '\0';
    return NIBL_EXIT_OK;
}

/* One question and its answer. A question that does not fit, or was interrupted before a word came, is taken back; on
 * a terminal the talk goes on. */
static int turn(context *c, nibl_cli_chat *chat, const char *question, bool interactive) {
    int code = nibl_cli_chat_ask(chat, question);
    if (code != NIBL_EXIT_OK) return code;
    nibl_cli_answer answer = {0};
    code = answer_prompt(c, &chat->tokens, &answer);
    bool nothing = answer.finish == NIBL_CLI_FINISH_INTERRUPTED && answer.tokens.count == 0;
    if (interactive && answer.too_long) code = NIBL_EXIT_OK;
    if (answer.too_long || nothing)
        nibl_cli_chat_forget(chat);
    else if (code == NIBL_EXIT_OK)
        code = nibl_cli_chat_answered(chat, &answer);
    nibl_cli_answer_free(&answer);
    return code;
}

static int converse(context *c, bool interactive) {
    nibl_cli_chat chat;
    nibl_cli_text line = {0};
    input in = {.length = 0};
    int code = nibl_cli_chat_begin(&chat, &c->model, c->o->system);
    if (interactive) fputs("Ctrl-C stops an answer, Ctrl-D or /exit ends the conversation.\n", stderr);
    while (code == NIBL_EXIT_OK) {
        if (interactive) fputs("> ", stderr);
        bool more;
        code = read_line(&in, &line, &more);
        if (code != NIBL_EXIT_OK) break;
        if (!more || nibl_cli_interrupted()) {
            if (interactive) fputc('\n', stderr);
            break;
        }
        if (line.length == 0) continue;
        if (strcmp(line.bytes, "/exit") == 0) break;
        code = turn(c, &chat, line.bytes, interactive);
        if (interactive) nibl_cli_clear_interrupt();
        if (nibl_cli_interrupted()) break;
    }
    if (code == NIBL_EXIT_OK && nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    nibl_cli_text_free(&line);
    nibl_cli_chat_free(&chat);
    return code;
}

/* ---- The verb ---- */

static int read_prompt(const run_options *o, nibl_cli_text *prompt) {
    if (o->prompt)
        return nibl_cli_text_append(prompt, o->prompt, strlen(o->prompt)) ? NIBL_EXIT_OK : NIBL_EXIT_FAILED;
    int code = nibl_cli_read_file(o->file ? o->file : "-", MAX_PROMPT, prompt);
    /* The line feed that ends a file or an `echo` is not part of the question. */
    if (code == NIBL_EXIT_OK && prompt->length > 0 && prompt->bytes[prompt->length - 1] == '\n')
        prompt->bytes[--prompt->length] = '\0';
    return code;
}

static int work(context *c, const char *path) {
    const run_options *o = c->o;
    bool has_prompt = o->prompt || o->file;
    bool interactive = !has_prompt && nibl_cli_stdin_is_terminal();
    bool conversation = interactive || (!has_prompt && o->chat);
    if (conversation && o->receipt)
        return nibl_cli_fail_usage(nibl_cli_run.name, "--receipt is of one answer: give -p or -f");
    if (interactive && o->no_chat)
        return nibl_cli_fail_usage(nibl_cli_run.name,
                                   "--no-chat needs a prompt: -p, -f, or stdin that is no terminal");

    nibl_cli_text prompt = {0};
    int code = conversation ? NIBL_EXIT_OK : read_prompt(o, &prompt);
    if (code == NIBL_EXIT_OK) code = nibl_cli_model_open(path, o->settings.quantize, false, &c->model);
    if (code == NIBL_EXIT_OK) code = choose_mode(c, interactive);
    if (code == NIBL_EXIT_OK) {
        nibl_session_options options = nibl_cli_session_options(&o->settings, 0);
        if (nibl_session_new(c->model.model, &options, &c->generator.session) < 0)
            code = nibl_cli_fail_library("the session");
    }
    if (code == NIBL_EXIT_OK && o->cache) code = nibl_cli_prompt_cache_load(o->cache, c->generator.session);
    if (code == NIBL_EXIT_OK) nibl_session_speculate(c->generator.session, o->speculate == 0);
    if (code == NIBL_EXIT_OK) code = make_sampler(c);
    if (code == NIBL_EXIT_OK) code = make_grammar(c);
    c->generator.model = c->model.model;
    const char *cache = o->cache_read_only ? NULL : o->cache;
    const bool all = conversation || o->cache_all;
    c->generator.cache = all ? NULL : cache;
    if (code == NIBL_EXIT_OK) code = conversation ? converse(c, interactive) : answer_once(c, &prompt);
    if (code == NIBL_EXIT_OK && cache && all) code = nibl_cli_prompt_cache_save(cache, c->generator.session);
    if (code == NIBL_EXIT_OK && !o->json && !o->raw) print_figures(c);
    nibl_cli_text_free(&prompt);
    return code;
}

static int run(const char *model, const void *given) {
    const run_options *o = given;
    int code = check(o, model);
    if (code != NIBL_EXIT_OK) return code;
    context c = {.o = o, .seed = o->seed < 0 ? nibl_cli_random() >> 32 : (uint64_t)o->seed};
    c.generator.limit = o->limit;
    c.generator.stop = &o->stop;
    c.generator.special = o->raw;
    c.generator.stream = o->json ? NULL : stdout;
    code = work(&c, model);
    nibl_sampler_free(c.generator.sampler);
    nibl_grammar_free(c.generator.grammar);
    nibl_session_free(c.generator.session);
    nibl_cli_model_close(&c.model);
    nibl_cli_text_free(&c.grammar);
    free(c.biases);
    return code;
}

const nibl_cli_verb nibl_cli_run = {
    .name = "run",
    .arguments = "MODEL [-p TEXT] [options]",
    .summary = "Generates text.",
    .details = "\n"
               "MODEL is a GGUF file, or - for stdin. With -p or -f the text is one question where the model "
               "has a chat\n"
               "template, else it is completed; --no-chat always completes. Without them, and with a "
               "terminal, it is a\n"
               "conversation; from a pipe the whole of stdin is the prompt, or with --chat every line is a "
               "question.\n"
               "The answer goes to stdout as it comes, figures to stderr.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = run,
};
