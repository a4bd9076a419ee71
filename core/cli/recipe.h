/* A recipe in a file: JSON as quantized files carry it ("nibl.recipe"), {"type", "embedding", "head", "tensors":
 * [[pattern, type], ...], "method"}, all optional; or a report of `nibl quantize --report`, which has one in it. */
#ifndef NIBL_CLI_RECIPE_H
#define NIBL_CLI_RECIPE_H

#include "core/cli/cli.h"

/* Owns what it puts into the options. Zero-initialise. */
typedef struct nibl_cli_recipe {
    nibl_cli_text *texts;
    size_t count;
    nibl_tensor_type *tensors;
} nibl_cli_recipe;

/* Writes the recipe's members into the options. Returns an exit code; free it in any case, after the last use of them. */
int nibl_cli_recipe_read(const char *path, nibl_quantize_options *options, nibl_cli_recipe *out);
void nibl_cli_recipe_free(nibl_cli_recipe *recipe);

#endif
