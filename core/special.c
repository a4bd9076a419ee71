#include "core/special.h"

#include "core/unicode.h"

#include <string.h>

nibl_status nibl_special_new(nibl_special *special, uint32_t capacity) {
    if (capacity == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)capacity * sizeof *special->tokens;
    special->tokens = nibl_alloc(bytes);
    if (!special->tokens) return nibl_fail_memory(bytes, "special tokens");
    return nibl_index_new(&special->texts, capacity, "special tokens");
}

void nibl_special_free(nibl_special *special) {
    nibl_free(special->tokens);
    nibl_index_free(&special->texts);
}

nibl_status nibl_special_add(nibl_special *special, nibl_special_token added) {
    const nibl_slice text = added.text;
    const uint32_t token = added.token;
    if (text.length == 0) return NIBL_OK;
    if (text.length > NIBL_SPECIAL_MAX_BYTES)
        return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: special token %u has %zu bytes (limit %u)",
                         token, text.length, NIBL_SPECIAL_MAX_BYTES);
    nibl_probe probe =
        nibl_index_start(&special->texts, nibl_hash_bytes(NIBL_HASH_SEED, text.bytes, text.length));
    for (uint32_t other; nibl_index_next(&special->texts, &probe, &other);) continue;
    if (!nibl_index_put(&special->texts, &probe, special->count))
        return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: special token %u collides with too many others",
                         token);
    special->tokens[special->count++] = added;
    uint16_t *longest = &special->longest[(uint8_t)text.bytes[0]];
    if (text.length > *longest) *longest = (uint16_t)text.length;
    special->lengths[text.length] = true;
    return NIBL_OK;
}

nibl_special_token *nibl_special_of(const nibl_special *special, uint32_t token) {
    uint32_t low = 0, high = special->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (special->tokens[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low < special->count && special->tokens[low].token == token ? &special->tokens[low] : NULL;
}

/* The longest token that text begins with; at most `limit` bytes of it are looked at. */
static const nibl_special_token *longest_at(const nibl_special *special, const char *text, size_t limit,
                                            bool control) {
    const nibl_special_token *found = NULL;
    uint64_t hash = NIBL_HASH_SEED;
    for (size_t n = 1; n <= limit; n++) {
        hash = nibl_hash_bytes(hash, text + n - 1, 1);
        if (!special->lengths[n]) continue;
        nibl_probe probe = nibl_index_start(&special->texts, hash);
        for (uint32_t i; nibl_index_next(&special->texts, &probe, &i);) {
            const nibl_special_token *s = &special->tokens[i];
            if (s->text.length == n && memcmp(s->text.bytes, text, n) == 0 && (control || !s->control))
                found = s;
        }
    }
    return found;
}

static bool is_space(const char *text, size_t length, size_t *width) {
    uint32_t code;
    *width = nibl_utf8_step(text, length, &code);
    return nibl_unicode_category(code) == NIBL_CATEGORY_SPACE;
}

/* Where the white space that ends at `at` begins. */
static size_t space_before(const char *text, size_t from, size_t at) {
    for (size_t width; at > from;) {
        size_t begin = at - 1;
        while (begin > from && ((uint8_t)text[begin] & 0xC0) == 0x80) begin--;
        if (!is_space(text + begin, at - begin, &width)) break;
        at = begin;
    }
    return at;
}

const nibl_special_token *nibl_special_find(const nibl_special *special, const char *text, size_t length,
                                            size_t from, bool control, size_t *at, size_t *end) {
    for (size_t i = special->count ? from : length; i < length; i++) {
        size_t limit = special->longest[(uint8_t)text[i]];
        if (limit == 0) continue;
        const nibl_special_token *found =
            longest_at(special, text + i, limit < length - i ? limit : length - i, control);
        if (!found) continue;
        *at = found->lstrip ? space_before(text, from, i) : i;
        *end = i + found->text.length;
        for (size_t width; found->rstrip && *end < length && is_space(text + *end, length - *end, &width);)
            *end += width;
        return found;
    }
    return NULL;
}
