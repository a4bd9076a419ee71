/* The text that quantizers look at: a file's, or the small one that the command carries. */
#ifndef NIBL_CLI_CALIBRATION_TEXT_H
#define NIBL_CLI_CALIBRATION_TEXT_H

#include "core/cli/file.h"

#define NIBL_CLI_OWN_TEXT "default" /* in place of a path */

/* The first `most` tokens of the text. Returns an exit code; tells where there are fewer, or the text is the command's own. */
int nibl_cli_calibration_read(const nibl_cli_model *model, const char *path, size_t most,
                              nibl_cli_tokens *tokens);

/* Tokens that are computed together. */
uint32_t nibl_cli_calibration_window(const nibl_cli_model *model);

#endif
