/* One answer: prefill, then sample and decode until an end token, a stop string, a limit, or Ctrl-C. */
#ifndef NIBL_CLI_GENERATE_H
#define NIBL_CLI_GENERATE_H

#include "core/cli/session.h"

typedef struct nibl_cli_generator {
    const nibl_model *model;
    nibl_session *session;
    nibl_sampler *sampler;
    int64_t limit;              /* tokens to generate; -1 = until the end */
    nibl_grammar *grammar;      /* of every answer; NULL = none */
    uint32_t context;           /* tokens of the session, at most */
    const nibl_cli_texts *stop; /* never shown */
    bool special;               /* special tokens are text, too */
    const char *cache;          /* file that the prompt's state goes to once it is computed; NULL = none */
    FILE *stream;               /* where pieces go as they come; NULL = nowhere */
} nibl_cli_generator;

typedef enum nibl_cli_finish {
    NIBL_CLI_FINISH_END,     /* an end token */
    NIBL_CLI_FINISH_STOP,    /* a stop string */
    NIBL_CLI_FINISH_LENGTH,  /* the limit */
    NIBL_CLI_FINISH_CONTEXT, /* the context is full */
    NIBL_CLI_FINISH_INTERRUPTED
} nibl_cli_finish;

const char *nibl_cli_finish_name(nibl_cli_finish finish); /* "end", "stop", ... */

typedef struct nibl_cli_answer {
    nibl_cli_text text;     /* without the stop string */
    nibl_cli_tokens tokens; /* without the end token */
    int32_t end_token;      /* that was sampled; -1 = none */
    nibl_cli_finish finish;
    bool too_long; /* the prompt exceeds the context: nothing was computed */
    size_t prompt_tokens, reused_tokens; /* reused: found in the KV cache */
    size_t decoded_tokens;               /* computed one by one; the last one sampled need not be */
    uint64_t guessed, guessed_right;     /* tokens, where the text repeated itself */
    double prefill_seconds, decode_seconds;
} nibl_cli_answer;

/* Zero-initialise the answer; free it in every case. Returns an exit code; an interrupted answer is a success. */
int nibl_cli_generate(const nibl_cli_generator *generator, const nibl_cli_tokens *prompt,
                      nibl_cli_answer *answer);
void nibl_cli_answer_free(nibl_cli_answer *answer);

#endif
