/* `nibl embed`: the vectors of texts. */
#include "core/cli/chat.h"
#include "core/cli/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_INPUT = 64 << 20 };

typedef struct embed_options {
    nibl_cli_settings settings;
    nibl_cli_texts texts;
    const char *file;
    int pooling, normalize; /* enum nibl_pooling; 0: to length 1 */
    bool json;
} embed_options;

static const embed_options defaults = {0};

#define FIELD(member) offsetof(embed_options, member)
static const nibl_cli_option table[] = {
    {"-p, --prompt", NIBL_CLI_TEXTS, FIELD(texts), "TEXT", 0, 0, NULL, "a text; may be repeated"},
    {"-f, --file", NIBL_CLI_TEXT, FIELD(file), "FILE", 0, 0, NULL,
     "texts, one a line; - is stdin, which is read where there is no -p either"},
    {"--pooling", NIBL_CLI_CHOICE, FIELD(pooling), "mean|last", 0, 0, NULL,
     "of the tokens' hidden states: their mean, or the last one"},
    {"--embd-normalize", NIBL_CLI_CHOICE, FIELD(normalize), "2|-1", 0, 0, NULL,
     "2: vectors have length 1; -1: as they come"},
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL,
     "one JSON object in the shape of OpenAI's answer; else one vector a line"},
    NIBL_CLI_CONTEXT_OPTION(embed_options),
    NIBL_CLI_COMPUTE_OPTIONS(embed_options),
    NIBL_CLI_KV_OPTIONS(embed_options),
};

typedef struct context {
    const embed_options *o;
    nibl_cli_model model;
    nibl_session *session;
    nibl_cli_tokens tokens;
    float *vector; /* (width) */
    nibl_cli_json json;
    uint64_t index, token_count;
} context;

static void print_vector(context *c) {
    if (!c->o->json) {
        for (uint32_t i = 0; i < c->model.info.width; i++)
            printf("%s%.9g", i ? " " : "", (double)c->vector[i]);
        putchar('\n');
        return;
    }
    nibl_cli_json_open(&c->json, NULL, '{');
    nibl_cli_json_string(&c->json, "object", "embedding");
    nibl_cli_json_integer(&c->json, "index", c->index);
    nibl_cli_json_open(&c->json, "embedding", '[');
    for (uint32_t i = 0; i < c->model.info.width; i++)
        nibl_cli_json_real(&c->json, NULL, (double)c->vector[i]);
    nibl_cli_json_close(&c->json, ']');
    nibl_cli_json_close(&c->json, '}');
}

static int embed_text(context *c, const char *text, size_t length) {
    c->tokens.count = 0;
    int code = nibl_cli_tokenize(&c->model, text, length, NIBL_TOKENIZE_BOS, &c->tokens);
    if (code != NIBL_EXIT_OK) return code;
    if (c->tokens.count == 0) return nibl_cli_fail("text %llu is empty", (unsigned long long)c->index + 1);
    if (nibl_session_set_tokens(c->session, c->tokens.ids, c->tokens.count, NULL) < 0)
        return nibl_cli_fail_library("a text");
    code = nibl_cli_compute(&c->session, 1);
    if (code != NIBL_EXIT_OK) return code;
    if (nibl_session_embedding(c->session, (uint32_t)c->o->pooling, c->o->normalize == 0, c->vector) < 0)
        return nibl_cli_fail_library("a text");
    print_vector(c);
    c->index++;
    c->token_count += c->tokens.count;
    return NIBL_EXIT_OK;
}

/* The line feed at the end begins no line. */
static int embed_lines(context *c, const nibl_cli_text *lines) {
    int code = NIBL_EXIT_OK;
    for (size_t at = 0, next; code == NIBL_EXIT_OK && at < lines->length; at = next + 1) {
        const char *feed = memchr(lines->bytes + at, '\n', lines->length - at);
        next = feed ? (size_t)(feed - lines->bytes) : lines->length;
        size_t end = next;
        if (end > at && lines->bytes[end - 1] == '\r') end--;
        code = embed_text(c, lines->bytes + at, end - at);
    }
    return code;
}

static int embed_all(context *c, const nibl_cli_text *lines) {
    const nibl_cli_texts *texts = &c->o->texts;
    if (c->o->json) {
        nibl_cli_json_open(&c->json, NULL, '{');
        nibl_cli_json_string(&c->json, "object", "list");
        nibl_cli_json_open(&c->json, "data", '[');
    }
    int code = NIBL_EXIT_OK;
    for (size_t i = 0; code == NIBL_EXIT_OK && i < texts->count; i++)
        code = embed_text(c, texts->items[i], strlen(texts->items[i]));
    if (code == NIBL_EXIT_OK) code = embed_lines(c, lines);
    if (code != NIBL_EXIT_OK || !c->o->json) return code;
    nibl_cli_json_close(&c->json, ']');
    nibl_cli_json_string(&c->json, "model", c->model.info.name);
    nibl_cli_json_open(&c->json, "usage", '{');
    nibl_cli_json_integer(&c->json, "prompt_tokens", c->token_count);
    nibl_cli_json_integer(&c->json, "total_tokens", c->token_count);
    nibl_cli_json_close(&c->json, '}');
    nibl_cli_json_close(&c->json, '}');
    return code;
}

static int work(context *c, const char *path) {
    const embed_options *o = c->o;
    const char *file = o->file ? o->file : o->texts.count ? NULL : "-";
    if (file && strcmp(file, "-") == 0 && strcmp(path, "-") == 0)
        return nibl_cli_fail_usage(nibl_cli_embed.name,
                                   "the model comes from stdin, so the texts must come from -p or a file");
    nibl_cli_text lines = {0};
    int code = file ? nibl_cli_read_file(file, MAX_INPUT, &lines) : NIBL_EXIT_OK;
    if (code == NIBL_EXIT_OK && file && lines.length == 0)
        code = nibl_cli_fail("%s: there are no texts", file);
    if (code == NIBL_EXIT_OK) code = nibl_cli_model_open(path, o->settings.quantize, false, &c->model);
    if (code == NIBL_EXIT_OK) {
        const nibl_session_options options = nibl_cli_session_options(&o->settings, 0);
        c->vector = malloc(c->model.info.width * sizeof *c->vector);
        if (!c->vector)
            code = nibl_cli_fail("out of memory");
        else if (nibl_session_new(c->model.model, &options, &c->session) < 0)
            code = nibl_cli_fail_library("the session");
    }
    if (code == NIBL_EXIT_OK) {
        nibl_session_embed(c->session, true);
        code = embed_all(c, &lines);
    }
    nibl_cli_text_free(&lines);
    return code;
}

static int embed(const char *model, const void *given) {
    context c = {.o = given, .json = {.out = stdout}};
    int code = nibl_cli_settings_check(&c.o->settings, nibl_cli_embed.name);
    if (code != NIBL_EXIT_OK) return code;
    code = work(&c, model);
    free(c.vector);
    nibl_cli_tokens_free(&c.tokens);
    nibl_session_free(c.session);
    nibl_cli_model_close(&c.model);
    return code;
}

const nibl_cli_verb nibl_cli_embed = {
    .name = "embed",
    .arguments = "MODEL [-p TEXT] [options]",
    .summary = "Prints the embeddings of texts.",
    .details = "\n"
               "A text's vector is made of its tokens' hidden states behind the last norm: what embed() and "
               "/v1/embeddings\n"
               "give. It stands on a line of its own, numbers parted by blanks, in the order of the texts.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = embed,
};
