/* What `nibl eval` is asked for, and its second half: texts. */
#ifndef NIBL_CLI_EVAL_H
#define NIBL_CLI_EVAL_H

#include "core/cli/session.h"

typedef struct nibl_cli_eval_options {
    nibl_cli_settings settings;
    const char *tokens, *logits;
    nibl_cli_texts files; /* [NAME=]FILE */
    const char *reference;
    int64_t chunks; /* 0 = all */
    bool bos, json;
} nibl_cli_eval_options;

enum { NIBL_CLI_EVAL_WINDOW = 512 };

/* Scores the texts of `files`; prints one result each. Returns an exit code. */
int nibl_cli_eval_texts(const char *model, const nibl_cli_eval_options *options);

#endif
