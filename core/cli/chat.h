/* A conversation: messages, and the tokens they are as the model's template writes them. What was computed for earlier
 * turns is kept: the tokens of an answer are used as they were sampled, not as its text would be tokenized again. */
#ifndef NIBL_CLI_CHAT_H
#define NIBL_CLI_CHAT_H

#include "core/cli/generate.h"

typedef struct nibl_cli_chat {
    const nibl_cli_model *model;
    nibl_moment began; /* "now" for its template to the end, so that what was computed stays true */
    nibl_message *messages; /* contents owned */
    size_t count, capacity;
    nibl_cli_text text; /* the conversation so far, the last answer included */
    nibl_cli_tokens tokens; /* of `text` */
} nibl_cli_chat;

/* Whether the model's chat template is known: NIBL_OK, or the library's status with its message set. */
nibl_status nibl_cli_chat_known(const nibl_model *model);

/* `system` may be NULL. Free it in every case. Returns an exit code, as the functions below. */
int nibl_cli_chat_begin(nibl_cli_chat *chat, const nibl_cli_model *model, const char *system);
void nibl_cli_chat_free(nibl_cli_chat *chat);

/* Adds the user's message; chat->tokens is then the prompt for the answer. */
int nibl_cli_chat_ask(nibl_cli_chat *chat, const char *content);
int nibl_cli_chat_answered(nibl_cli_chat *chat, const nibl_cli_answer *answer);
/* Takes back the last question: it did not fit. */
void nibl_cli_chat_forget(nibl_cli_chat *chat);

/* Tokens of a text, special tokens recognised; appended. `flags`: NIBL_TOKENIZE_BOS counts where the model wants one. */
int nibl_cli_tokenize(const nibl_cli_model *model, const char *text, size_t length, uint32_t flags,
                      nibl_cli_tokens *out);

#endif
