#include "core/cli/chat.h"
#include "core/cli/console.h"

#include <stdlib.h>
#include <string.h>

int nibl_cli_tokenize(const nibl_cli_model *model, const char *text, size_t length, uint32_t flags,
                      nibl_cli_tokens *out) {
    flags |= NIBL_TOKENIZE_SPECIAL;
    if (!model->info.add_bos) flags &= ~(uint32_t)NIBL_TOKENIZE_BOS;
    if (length > SIZE_MAX / 4 - 16 || !nibl_cli_tokens_reserve(out, out->count + length / 2 + 16))
        return NIBL_EXIT_FAILED;
    size_t count = 0;
    nibl_status status = nibl_tokenize(model->model, text, length, flags, out->ids + out->count,
                                       out->capacity - out->count, &count);
    if (status == NIBL_E_BUFFER) {
        if (!nibl_cli_tokens_reserve(out, out->count + count)) return NIBL_EXIT_FAILED;
        status = nibl_tokenize(model->model, text, length, flags, out->ids + out->count,
                               out->capacity - out->count, &count);
    }
    if (status < 0) return nibl_cli_fail_library("the prompt");
    out->count += count;
    return NIBL_EXIT_OK;
}

nibl_status nibl_cli_chat_known(const nibl_model *model) {
    const nibl_message message = {"user", ""};
    const nibl_moment now = nibl_cli_now();
    size_t length;
    nibl_status status = nibl_chat_prompt(model, &message, 1, true, &now, NULL, 0, &length);
    return status == NIBL_E_BUFFER ? NIBL_OK : status;
}

static int add_message(nibl_cli_chat *chat, const char *role, const char *content) {
    if (chat->count == chat->capacity) {
        size_t capacity = chat->capacity ? chat->capacity * 2 : 16;
        nibl_message *messages = realloc(chat->messages, capacity * sizeof *messages);
        if (!messages) return nibl_cli_fail("out of memory");
        chat->messages = messages;
        chat->capacity = capacity;
    }
    size_t size = strlen(content) + 1;
    char *copy = malloc(size);
    if (!copy) return nibl_cli_fail("out of memory");
    memcpy(copy, content, size);
    chat->messages[chat->count++] = (nibl_message){role, copy};
    return NIBL_EXIT_OK;
}

int nibl_cli_chat_begin(nibl_cli_chat *chat, const nibl_cli_model *model, const char *system) {
    *chat = (nibl_cli_chat){.model = model, .began = nibl_cli_now()};
    return system ? add_message(chat, "system", system) : NIBL_EXIT_OK;
}

void nibl_cli_chat_forget(nibl_cli_chat *chat) { free((void *)chat->messages[--chat->count].content); }

void nibl_cli_chat_free(nibl_cli_chat *chat) {
    while (chat->count > 0) nibl_cli_chat_forget(chat);
    free(chat->messages);
    nibl_cli_text_free(&chat->text);
    nibl_cli_tokens_free(&chat->tokens);
}

static int write_conversation(const nibl_cli_chat *chat, nibl_cli_text *out) {
    size_t length = 0;
    nibl_status status = nibl_chat_prompt(chat->model->model, chat->messages, chat->count, true, &chat->began,
                                          NULL, 0, &length);
    if (status == NIBL_E_BUFFER) {
        if (!nibl_cli_text_reserve(out, length)) return NIBL_EXIT_FAILED;
        status = nibl_chat_prompt(chat->model->model, chat->messages, chat->count, true, &chat->began,
                                  out->bytes, out->capacity, &length);
    }
    if (status < 0) return nibl_cli_fail_library("the conversation");
    out->length = length;
    return NIBL_EXIT_OK;
}

int nibl_cli_chat_ask(nibl_cli_chat *chat, const char *content) {
    int code = add_message(chat, "user", content);
    if (code != NIBL_EXIT_OK) return code;
    nibl_cli_text text = {0};
    code = write_conversation(chat, &text);
    if (code == NIBL_EXIT_OK) {
        size_t known = chat->text.length;
        bool grows = text.length >= known && known > 0 && memcmp(text.bytes, chat->text.bytes, known) == 0;
        if (!grows) known = chat->tokens.count = 0;
        code = nibl_cli_tokenize(chat->model, text.bytes + known,
                                 text.length - known, /* the template writes BOS */
                                 known > 0 ? NIBL_TOKENIZE_CONTINUE : 0, &chat->tokens);
    }
    nibl_cli_text_free(&chat->text);
    chat->text = text;
    return code;
}

int nibl_cli_chat_answered(nibl_cli_chat *chat, const nibl_cli_answer *answer) {
    const char *content = answer->text.bytes ? answer->text.bytes : "";
    int code = add_message(chat, "assistant", content);
    if (code != NIBL_EXIT_OK) return code;
    /* The text ends before a stop string, the tokens behind it: tokenize all again at the next turn. */
    if (answer->finish == NIBL_CLI_FINISH_STOP) {
        nibl_cli_text_free(&chat->text);
        return NIBL_EXIT_OK;
    }
    if (!nibl_cli_text_append(&chat->text, content, answer->text.length) ||
        !nibl_cli_tokens_append(&chat->tokens, answer->tokens.ids, answer->tokens.count))
        return NIBL_EXIT_FAILED;
    return NIBL_EXIT_OK;
}
