/* Files that the command carries in itself, made into C by CMakeLists.txt: the texts of `nibl eval`, what recipes lose, for
 * `nibl fit`, and a text to calibrate with. */
#ifndef NIBL_CLI_EMBEDDED_H
#define NIBL_CLI_EMBEDDED_H

#include <stddef.h>

typedef struct nibl_cli_embedded {
    const char *name; /* of the file, without its folder */
    const char *bytes;
    size_t length;
} nibl_cli_embedded;

extern const nibl_cli_embedded
    nibl_cli_embedded_files[]; /* texts by name, then those named here; the last has none */
#define NIBL_CLI_LOSSES "losses.js"
#define NIBL_CLI_CALIBRATION "calibration.js" /* the text stands between two backquotes */

#endif
