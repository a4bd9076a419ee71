/* Option tables: one row per option names its spellings, kind, range, default and help. Parsing and the help texts are
 * made from the same rows. */
#ifndef NIBL_CLI_OPTIONS_H
#define NIBL_CLI_OPTIONS_H

#include "core/nibl.h"

typedef enum nibl_cli_kind {
    NIBL_CLI_FLAG, /* bool field */
    NIBL_CLI_INTEGER, /* int64_t field */
    NIBL_CLI_REAL, /* double field */
    NIBL_CLI_TEXT, /* const char * field */
    NIBL_CLI_TEXTS, /* nibl_cli_texts field: may be given several times */
    NIBL_CLI_CHOICE /* int field: index into `value`, "f16|f32" */
} nibl_cli_kind;

typedef struct nibl_cli_option {
    const char *names; /* spellings as the help shows them: "-n, --predict" */
    nibl_cli_kind kind;
    size_t field; /* offset in the verb's options struct */
    const char *value; /* placeholder in the help; for CHOICE the choices */
    int64_t min, max; /* INTEGER and REAL, both inclusive */
    const char *shown; /* the default as the help tells it; NULL = the field's value in the defaults */
    const char *help;
} nibl_cli_option;

enum { NIBL_CLI_MAX_TEXTS = 16 };

typedef struct nibl_cli_texts {
    const char *items[NIBL_CLI_MAX_TEXTS];
    size_t count;
} nibl_cli_texts;

typedef struct nibl_cli_verb nibl_cli_verb;

/* Reads the arguments behind the verb into `options` (a copy of the verb's defaults) and the model's path. Returns 0; or
 * NIBL_EXIT_USAGE after a message; *help is set, and nothing else is, when -h or --help is among them. */
int nibl_cli_parse(const nibl_cli_verb *verb, int argc, char **argv, void *options, const char **model,
                   bool *help);

/* Prints the usage line, the details and one line per option on stdout. */
void nibl_cli_print_help(const nibl_cli_verb *verb);

/* How far two words are apart: the number of insertions, deletions and replacements (Levenshtein 1966). */
size_t nibl_cli_distance(const char *a, size_t a_length, const char *b, size_t b_length);
/* Whether a word at that distance is worth suggesting in place of one of `length` bytes. */
bool nibl_cli_close(size_t distance, size_t length);

/* A size as "4GB", "800MiB"; at least 1 byte. */
bool nibl_cli_parse_size(const char *text, uint64_t *out);

#endif
