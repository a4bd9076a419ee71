/* What the parts of the `nibl` command share: exit codes, messages, growing buffers, the row of the verb table. */
#ifndef NIBL_CLI_H
#define NIBL_CLI_H

#include "core/cli/options.h"
#include "core/nibl.h"

enum { NIBL_EXIT_OK = 0, NIBL_EXIT_FAILED = 1, NIBL_EXIT_USAGE = 2 };

#if defined(__GNUC__)
#define NIBL_CLI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define NIBL_CLI_PRINTF(fmt, args)
#endif

/* "nibl: MESSAGE" on stderr; returns NIBL_EXIT_FAILED. */
int nibl_cli_fail(const char *format, ...) NIBL_CLI_PRINTF(1, 2);
/* "nibl: WHERE: the library's last message"; `where` names the file or the step. */
int nibl_cli_fail_library(const char *where);
/* "nibl: MESSAGE" and where the help is; returns NIBL_EXIT_USAGE. */
int nibl_cli_fail_usage(const char *verb, const char *format, ...) NIBL_CLI_PRINTF(2, 3);

/* Growing buffers: zero-initialise, free with the function below. Text always has a NUL behind its last byte. */
typedef struct nibl_cli_text {
    char *bytes;
    size_t length, capacity;
} nibl_cli_text;

typedef struct nibl_cli_tokens {
    int32_t *ids;
    size_t count, capacity;
} nibl_cli_tokens;

/* Room for `length` bytes and a NUL, or `count` ids. False, with a message on stderr, when memory is short. */
bool nibl_cli_text_reserve(nibl_cli_text *text, size_t length);
bool nibl_cli_text_append(nibl_cli_text *text, const char *bytes, size_t length);
bool nibl_cli_tokens_reserve(nibl_cli_tokens *tokens, size_t count);
bool nibl_cli_tokens_append(nibl_cli_tokens *tokens, const int32_t *ids, size_t count);
void nibl_cli_text_free(nibl_cli_text *text);
void nibl_cli_tokens_free(nibl_cli_tokens *tokens);

/* One verb: `nibl NAME ARGUMENTS`. `run` gets the model's path and the verb's options struct; it returns an exit code. */
struct nibl_cli_verb {
    const char *name;
    const char *arguments;
    const char *summary; /* one line */
    const char *details; /* shown by `nibl help NAME` below the usage line */
    const nibl_cli_option *options;
    size_t option_count;
    const void *defaults; /* an options struct */
    size_t options_size;
    const char *
        places; /* options that may be given by place behind the model, in this order: "--output --type"; or NULL */
    int (*run)(const char *model, const void *options);
};

/* Appends the command line as it was given, quoted where a shell needs it. False when memory is short. */
bool nibl_cli_write_command(nibl_cli_text *out);

extern const nibl_cli_verb nibl_cli_run, nibl_cli_quantize, nibl_cli_inspect, nibl_cli_eval, nibl_cli_bench,
    nibl_cli_hash, nibl_cli_fit, nibl_cli_verify, nibl_cli_imatrix, nibl_cli_embed;

#endif
