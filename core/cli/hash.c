#include "core/cli/json.h"
#include "core/cli/random_tokens.h"
#include "core/cli/session.h"

#include <inttypes.h>

enum { MAIN = 1, BATCH = 3, MAX_TOKENS = 1 << 20 };

typedef struct hash_options {
    nibl_cli_settings settings;
    int64_t prefill, decode, seed;
    bool batch, reuse, json;
} hash_options;

static const hash_options defaults = {.prefill = 512, .decode = 64, .seed = 1};

#define FIELD(member) offsetof(hash_options, member)
static const nibl_cli_option table[] = {
    {"--prefill", NIBL_CLI_INTEGER, FIELD(prefill), "N", 1, MAX_TOKENS, NULL,
     "random tokens computed at once"},
    {"--decode", NIBL_CLI_INTEGER, FIELD(decode), "N", 0, MAX_TOKENS, NULL,
     "tokens then computed one by one, greedy"},
    {"--seed", NIBL_CLI_INTEGER, FIELD(seed), "N", 0, INT64_MAX, NULL, "of the random tokens"},
    {"--reuse", NIBL_CLI_FLAG, FIELD(reuse), NULL, 0, 0, NULL,
     "compute half of the prefill first, then set it all"},
    {"--batch", NIBL_CLI_FLAG, FIELD(batch), NULL, 0, 0, NULL, "beside two other sequences in every step"},
    NIBL_CLI_COMPUTE_OPTIONS(hash_options),
    NIBL_CLI_KV_OPTIONS(hash_options),
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "one JSON object"},
};

/* The sequence that is hashed stands between two others, which have other lengths. */
typedef struct batch {
    nibl_session *sessions[BATCH];
    nibl_cli_tokens tokens[BATCH];
    nibl_sampler *sampler;
    size_t first, count; /* the sessions in use */
} batch;

static int prefill(batch *b, const hash_options *o, uint32_t vocabulary) {
    for (size_t i = b->first; i < b->first + b->count; i++) {
        size_t length = (size_t)o->prefill;
        if (i != MAIN) length = i == 0 ? length / 3 + 1 : length - length / 4;
        if (!nibl_cli_random_tokens(&b->tokens[i], length, vocabulary,
                                    (uint64_t)o->seed + (i + BATCH - MAIN) % BATCH))
            return NIBL_EXIT_FAILED;
    }
    for (int part = o->reuse ? 0 : 1; part < 2; part++) {
        for (size_t i = b->first; i < b->first + b->count; i++) {
            size_t length = part == 0 ? (b->tokens[i].count + 1) / 2 : b->tokens[i].count;
            size_t reused, expected = part == 1 && o->reuse ? (b->tokens[i].count + 1) / 2 : 0;
            if (nibl_session_set_tokens(b->sessions[i], b->tokens[i].ids, length, &reused) < 0)
                return nibl_cli_fail_library("the sequence");
            if (expected == length) expected--;
            if (reused != expected) return nibl_cli_fail("%zu tokens were reused, not %zu", reused, expected);
        }
        int code = nibl_cli_compute(b->sessions + b->first, b->count);
        if (code != NIBL_EXIT_OK) return code;
    }
    return NIBL_EXIT_OK;
}

static int decode(batch *b, const hash_options *o) {
    for (int64_t step = 0; step < o->decode; step++) {
        for (size_t i = b->first; i < b->first + b->count; i++) {
            int32_t token;
            if (nibl_sample(b->sampler, b->sessions[i], &token, NULL) < 0 ||
                nibl_session_append(b->sessions[i], &token, 1) < 0)
                return nibl_cli_fail_library("decoding");
            if (!nibl_cli_tokens_append(&b->tokens[i], &token, 1)) return NIBL_EXIT_FAILED;
        }
        int code = nibl_cli_compute(b->sessions + b->first, b->count);
        if (code != NIBL_EXIT_OK) return code;
    }
    return NIBL_EXIT_OK;
}

static int open_batch(batch *b, const nibl_cli_model *model, const hash_options *o) {
    b->first = o->batch ? 0 : MAIN;
    b->count = o->batch ? BATCH : 1;
    nibl_session_options options = nibl_cli_session_options(&o->settings, (uint32_t)(o->prefill + o->decode));
    for (size_t i = b->first; i < b->first + b->count; i++)
        if (nibl_session_new(model->model, &options, &b->sessions[i]) < 0)
            return nibl_cli_fail_library("the session");
    nibl_sampler_options greedy = {.size = sizeof greedy};
    if (nibl_sampler_new(model->model, &greedy, &b->sampler) < 0) return nibl_cli_fail_library("the sampler");
    return NIBL_EXIT_OK;
}

static void close_batch(batch *b) {
    for (size_t i = 0; i < BATCH; i++) {
        nibl_session_free(b->sessions[i]);
        nibl_cli_tokens_free(&b->tokens[i]);
    }
    nibl_sampler_free(b->sampler);
}

static void print_result(const batch *b, const hash_options *o) {
    uint64_t hash = nibl_session_hash(b->sessions[MAIN]);
    uint32_t threads = nibl_cli_threads(&o->settings);
    if (!o->json) {
        printf("%016" PRIx64 "  isa %s  threads %" PRIu32 "  prefill %" PRId64 "  decode %" PRId64 "\n", hash,
               nibl_isa(), threads, o->prefill, o->decode);
        return;
    }
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_hash(&json, "hash", hash);
    nibl_cli_json_string(&json, "isa", nibl_isa());
    nibl_cli_json_integer(&json, "threads", threads);
    nibl_cli_json_integer(&json, "prefill", (uint64_t)o->prefill);
    nibl_cli_json_integer(&json, "decode", (uint64_t)o->decode);
    nibl_cli_json_open(&json, "tokens", '[');
    for (size_t i = (size_t)o->prefill; i < b->tokens[MAIN].count; i++)
        nibl_cli_json_integer(&json, NULL, (uint64_t)b->tokens[MAIN].ids[i]);
    nibl_cli_json_close(&json, ']');
    nibl_cli_json_close(&json, '}');
}

static int hash(const char *path, const void *given) {
    const hash_options *o = given;
    int code = nibl_cli_settings_check(&o->settings, nibl_cli_hash.name);
    if (code != NIBL_EXIT_OK) return code;
    nibl_cli_model model;
    batch b = {0};
    code = nibl_cli_model_open(path, o->settings.quantize, false, &model);
    if (code == NIBL_EXIT_OK) code = open_batch(&b, &model, o);
    if (code == NIBL_EXIT_OK) code = prefill(&b, o, model.info.vocabulary);
    if (code == NIBL_EXIT_OK) code = decode(&b, o);
    if (code == NIBL_EXIT_OK) print_result(&b, o);
    close_batch(&b);
    nibl_cli_model_close(&model);
    return code;
}

const nibl_cli_verb nibl_cli_hash = {
    .name = "hash",
    .arguments = "MODEL [options]",
    .summary = "Prints a hash of the logits of a fixed computation: the same on every machine, build and "
               "setting below.",
    .details = "\n"
               "Random tokens (SplitMix64) are prefilled, then the likeliest token is decoded again and "
               "again. The hash\n"
               "depends on the model, the numbers of tokens, the seed, --activations and -ctk, and on "
               "nothing else.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = hash,
};
