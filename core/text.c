/* The public calls that turn text into tokens and back, on a model. */
#include "core/model.h"

#include <string.h>

nibl_status nibl_tokenize(const nibl_model *model, const char *text, size_t length, uint32_t flags,
                          int32_t *tokens, size_t capacity, size_t *count) {
    return nibl_tokenizer_encode(model->tokenizer, text, length, flags, tokens, capacity, count);
}

nibl_status nibl_detokenize(const nibl_model *model, const int32_t *tokens, size_t count, bool special,
                            char *text, size_t capacity, size_t *length) {
    return nibl_tokenizer_decode(model->tokenizer, tokens, count, special, text, capacity, length);
}

nibl_status nibl_decoder_new(const nibl_model *model, bool special, nibl_decoder **out) {
    return nibl_tokenizer_decoder(model->tokenizer, special, out);
}

bool nibl_is_end_token(const nibl_model *model, int32_t token) {
    return nibl_tokenizer_is_end(model->tokenizer, token);
}

nibl_status nibl_chat_prompt(const nibl_model *model, const nibl_message *messages, size_t count,
                             bool generation_prompt, const nibl_moment *now, char *text, size_t capacity,
                             size_t *length) {
    nibl_writer out = {.text = text, .capacity = capacity};
    NIBL_TRY(nibl_template_write(model->gguf, messages, count, generation_prompt, now, &out));
    *length = out.length;
    if (out.length <= capacity) return NIBL_OK;
    return nibl_fail(NIBL_E_BUFFER, "the prompt has %zu bytes, the buffer holds %zu", out.length, capacity);
}
