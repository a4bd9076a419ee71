#include "core/cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* Room for `count` elements of `width` bytes; doubles, so that appending is linear in all. */
static bool reserve(void **block, size_t *capacity, size_t count, size_t width) {
    if (count <= *capacity) return true;
    size_t wanted = *capacity <= SIZE_MAX / 2 ? *capacity * 2 : count;
    if (wanted < count) wanted = count;
    if (wanted < 64) wanted = 64;
    void *grown = wanted <= SIZE_MAX / width ? realloc(*block, wanted * width) : NULL;
    if (!grown) {
        nibl_cli_fail("out of memory");
        return false;
    }
    *block = grown;
    *capacity = wanted;
    return true;
}

bool nibl_cli_text_reserve(nibl_cli_text *text, size_t length) {
    if (length == SIZE_MAX) return false;
    void *block = text->bytes;
    if (!reserve(&block, &text->capacity, length + 1, 1)) return false;
    text->bytes = block;
    return true;
}

bool nibl_cli_text_append(nibl_cli_text *text, const char *bytes, size_t length) {
    if (length >= SIZE_MAX - text->length || !nibl_cli_text_reserve(text, text->length + length))
        return false;
    if (length > 0) memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
    return true;
}

bool nibl_cli_tokens_reserve(nibl_cli_tokens *tokens, size_t count) {
    void *block = tokens->ids;
    if (!reserve(&block, &tokens->capacity, count, sizeof *tokens->ids)) return false;
    tokens->ids = block;
    return true;
}

bool nibl_cli_tokens_append(nibl_cli_tokens *tokens, const int32_t *ids, size_t count) {
    if (!nibl_cli_tokens_reserve(tokens, tokens->count + count)) return false;
    if (count > 0) memcpy(tokens->ids + tokens->count, ids, count * sizeof *ids);
    tokens->count += count;
    return true;
}

void nibl_cli_text_free(nibl_cli_text *text) {
    free(text->bytes);
    *text = (nibl_cli_text){0};
}

void nibl_cli_tokens_free(nibl_cli_tokens *tokens) {
    free(tokens->ids);
    *tokens = (nibl_cli_tokens){0};
}
