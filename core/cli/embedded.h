/* Files that the command carries in itself, made into C by CMakeLists.txt: the texts of `nibl eval`, and what recipes lose,
 * for `nibl fit`. */
#ifndef NIBL_CLI_EMBEDDED_H
#define NIBL_CLI_EMBEDDED_H

#include <stddef.h>

typedef struct nibl_cli_embedded {
    const char *name; /* of the file, without its folder */
    const char *bytes;
    size_t length;
} nibl_cli_embedded;

extern const nibl_cli_embedded
    nibl_cli_embedded_files[]; /* texts by name, then NIBL_CLI_LOSSES; the last has none */
#define NIBL_CLI_LOSSES "losses.js"

#endif
