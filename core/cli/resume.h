/* An output file that the same command can go on with after its process was killed: its temporary name says what it is made
 * of, and beside it stands, renewed now and then, the state of the quantizer. Every function prints its own message on failure. */
#ifndef NIBL_CLI_RESUME_H
#define NIBL_CLI_RESUME_H

#include "core/cli/file.h"

typedef struct nibl_cli_resume {
    nibl_cli_text state; /* path of that file; no bytes = nobody can go on with this output */
    nibl_cli_text fresh; /* of the next one, until it is complete */
    uint64_t key;
    double saved, cost; /* when, and the seconds it took */
} nibl_cli_resume;

/* Opens the output at `path` of a quantizer that has not begun, and takes its header: *written bytes of it stand then, more than
 * that where there is one to go on with, which is told. `seen`: what the quantizer was given besides the source and its recipe,
 * tokens or a file of importance. Returns an exit code. */
int nibl_cli_resume_open(const char *path, const nibl_cli_model *model, nibl_quantizer *quantizer,
                         const void *seen, size_t seen_length, nibl_cli_resume *out, nibl_cli_output *output,
                         uint64_t *written);
/* Behind a step whose output was written, `written` bytes in all: saves the state where some time has passed. */
int nibl_cli_resume_save(nibl_cli_resume *resume, nibl_quantizer *quantizer, nibl_cli_output *output,
                         uint64_t written);
/* The output is complete, or given up. */
void nibl_cli_resume_end(nibl_cli_resume *resume);

#endif
