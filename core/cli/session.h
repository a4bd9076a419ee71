/* What every verb that computes has: a loaded model, a session opened by options, and steps that can be interrupted. */
#ifndef NIBL_CLI_SESSION_H
#define NIBL_CLI_SESSION_H

#include "core/cli/file.h"

typedef struct nibl_cli_settings {
    int64_t context, threads, chunk; /* 0 = default */
    int key_type, value_type; /* of NIBL_CLI_KV_TYPES; they must agree */
    int activations; /* enum nibl_activations */
    const char *quantize; /* NULL = weights stay as they are */
} nibl_cli_settings;

/* Option rows for a member `settings` of the verb's options struct. */
/* clang-format off */
#define NIBL_CLI_SETTING(type, member) offsetof(type, settings.member)
#define NIBL_CLI_CONTEXT_OPTION(type)                                                                        \
    {"-c, --ctx-size", NIBL_CLI_INTEGER, NIBL_CLI_SETTING(type, context), "N", 0, 1 << 24,                   \
     "the model's, 4096 at most", "tokens the context holds"}
#define NIBL_CLI_QUANTIZE_OPTION(type)                                                                       \
    {"--quantize", NIBL_CLI_TEXT, NIBL_CLI_SETTING(type, quantize), "q4_0", 0, 0,                            \
     NULL, "pack weights of 16 and 32 bits as this type while they are read"}
#define NIBL_CLI_COMPUTE_OPTIONS(type)                                                                       \
    {"-t, --threads", NIBL_CLI_INTEGER, NIBL_CLI_SETTING(type, threads), "N", 0, NIBL_MAX_THREADS,       \
     "one per physical core, at most 8", "threads; the result does not depend on them"},                               \
    {"--chunk", NIBL_CLI_INTEGER, NIBL_CLI_SETTING(type, chunk), "N", 0, NIBL_MAX_CHUNK,                     \
     "64", "prefill tokens at a time; the result does not depend on it"},                                    \
    {"--activations", NIBL_CLI_CHOICE, NIBL_CLI_SETTING(type, activations), "i8|f32", 0, 0,                  \
     NULL, "precision of what enters the linear layers; f32 is exact and slow"},                              \
    NIBL_CLI_QUANTIZE_OPTION(type)
/* enum nibl_kv_type in its order, then the name that others have for the first. */
#define NIBL_CLI_KV_TYPES "i8|f16|f32|q8_0"
#define NIBL_CLI_KV_OPTIONS(type)                                                                            \
    {"-ctk, --cache-type-k", NIBL_CLI_CHOICE, NIBL_CLI_SETTING(type, key_type), NIBL_CLI_KV_TYPES, 0, 0,     \
     NULL, "type of the KV cache; must agree with -ctv; q8_0 means i8"},                                                    \
    {"-ctv, --cache-type-v", NIBL_CLI_CHOICE, NIBL_CLI_SETTING(type, value_type), NIBL_CLI_KV_TYPES, 0, 0,   \
     NULL, "see -ctk"}
/* clang-format on */

/* NIBL_EXIT_USAGE with a message when the settings contradict each other. */
int nibl_cli_settings_check(const nibl_cli_settings *settings, const char *verb);

/* enum nibl_kv_type */
uint32_t nibl_cli_kv_type(int choice);

/* The library's options for these settings; `context` 0 = as the settings say. */
nibl_session_options nibl_cli_session_options(const nibl_cli_settings *settings, uint32_t context);

/* The number of threads the settings stand for. */
uint32_t nibl_cli_threads(const nibl_cli_settings *settings);

/* Computes all tokens of the sessions. Returns an exit code; NIBL_EXIT_FAILED without a message when interrupted. */
int nibl_cli_compute(nibl_session *const *sessions, size_t count);

#endif
