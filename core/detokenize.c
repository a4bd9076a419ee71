#include "core/tokenizer.h"

#include "core/alphabet.h"

#include <string.h>

struct nibl_decoder {
    const nibl_tokenizer *tokenizer;
    bool special, strip;
    char pending[4]; /* the beginning of a UTF-8 sequence */
    size_t pending_count;
    char *buffer;
    size_t capacity;
};

static bool in_alphabet(nibl_slice text) {
    uint32_t code;
    uint8_t byte;
    for (size_t i = 0; i < text.length;) {
        i += nibl_utf8_step(text.bytes + i, text.length - i, &code);
        if (!nibl_alphabet_byte(code, &byte)) return false;
    }
    return true;
}

static size_t word_char(nibl_slice text, uint8_t *byte) {
    uint32_t code;
    size_t width = nibl_utf8_step(text.bytes, text.length, &code);
    nibl_alphabet_byte(code, byte);
    return width;
}

static size_t piece_char(nibl_slice text, uint8_t *byte) {
    bool space = text.length >= 3 && memcmp(text.bytes, "\xE2\x96\x81", 3) == 0;
    if (space) *byte = ' ';
    return space ? 3 : 1;
}

/* Appends a token's bytes, no more than its text has, at out[*length]; what does not fit is only counted. `*strip`: the
 * space that encoding put before the text stands here. */
static nibl_status append_token(const nibl_tokenizer *t, int32_t token, bool special, bool *strip, char *out,
                                uint64_t capacity, uint64_t *length) {
    if (token < 0 || (size_t)token >= nibl_tokenizer_size(t))
        return nibl_fail(NIBL_E_ARGUMENT, "token %d is not in the vocabulary of %zu", token,
                         nibl_tokenizer_size(t));
    nibl_token_kind kind = nibl_tokenizer_kind(t, (uint32_t)token);
    nibl_slice text = nibl_tokenizer_text(t, (uint32_t)token);
    bool stripped = *strip && kind == NIBL_TOKEN_PIECE;
    const nibl_space_prefix prefix = nibl_tokenizer_space_prefix(t);
    *strip = (prefix == NIBL_PREFIX_EACH || prefix == NIBL_PREFIX_EACH_BARE) &&
             (kind == NIBL_TOKEN_CONTROL || kind == NIBL_TOKEN_USER);
    if (kind == NIBL_TOKEN_CONTROL && !special) return NIBL_OK;
    uint8_t single;
    if (kind == NIBL_TOKEN_BYTE && nibl_token_byte(text, &single))
        text = (nibl_slice){(const char *)&single, 1};
    if (kind == NIBL_TOKEN_WORD && !in_alphabet(text)) kind = NIBL_TOKEN_USER;
    while (text.length > 0) {
        uint8_t byte = (uint8_t)text.bytes[0];
        size_t width = kind == NIBL_TOKEN_WORD    ? word_char(text, &byte)
                       : kind == NIBL_TOKEN_PIECE ? piece_char(text, &byte)
                                                  : 1;
        text = (nibl_slice){text.bytes + width, text.length - width};
        if (stripped && width == 3) {
            stripped = false;
            continue;
        }
        stripped = false;
        if (*length < capacity) out[*length] = (char)byte;
        ++*length;
    }
    return NIBL_OK;
}

nibl_status nibl_tokenizer_decode(const nibl_tokenizer *tokenizer, const int32_t *tokens, size_t count,
                                  bool special, char *text, size_t capacity, size_t *length) {
    uint64_t written = 0;
    bool strip = nibl_tokenizer_space_prefix(tokenizer) != NIBL_PREFIX_NONE;
    for (size_t i = 0; i < count; i++)
        NIBL_TRY(append_token(tokenizer, tokens[i], special, &strip, text, capacity, &written));
    if (!nibl_u64_to_size(written, length))
        return nibl_fail(NIBL_E_ARGUMENT,
                         "detokenize: the text is too long for this machine, pass fewer tokens");
    if (written <= capacity) return NIBL_OK;
    return nibl_fail(NIBL_E_BUFFER, "the text has %zu bytes, the buffer holds %zu", *length, capacity);
}

size_t nibl_tokenizer_bytes(const nibl_tokenizer *tokenizer, uint32_t token, char *out, size_t capacity) {
    uint64_t length = 0;
    bool strip = false;
    append_token(tokenizer, (int32_t)token, false, &strip, out, capacity, &length);
    return (size_t)length;
}

/* ---- Streaming ---- */

nibl_status nibl_tokenizer_decoder(const nibl_tokenizer *tokenizer, bool special, nibl_decoder **out) {
    nibl_decoder *d = nibl_alloc_zero(sizeof *d);
    if (!d) return nibl_fail_memory(sizeof *d, "a decoder");
    d->tokenizer = tokenizer;
    d->special = special;
    *out = d;
    return NIBL_OK;
}

void nibl_decoder_free(nibl_decoder *decoder) {
    if (!decoder) return;
    nibl_free(decoder->buffer);
    nibl_free(decoder);
}

/* Length of `bytes` without a sequence that they end inside of. */
static size_t whole_sequences(const char *bytes, size_t length) {
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t taken = nibl_utf8_step(bytes + i, length - i, &code);
        if (code == NIBL_UTF8_PARTIAL) return i;
        i += taken;
    }
    return length;
}

nibl_status nibl_decoder_push(nibl_decoder *decoder, int32_t token, const char **piece, size_t *length) {
    bool end = token == -1;
    uint64_t raw = decoder->pending_count;
    bool strip = decoder->strip;
    if (!end) NIBL_TRY(append_token(decoder->tokenizer, token, decoder->special, &strip, NULL, 0, &raw));
    /* The piece, up to three times as long as its bytes, stands before them. */
    size_t count = (size_t)raw, room = 3 * count;
    NIBL_TRY(
        nibl_reserve((void **)&decoder->buffer, &decoder->capacity, room + count + 1, 1, "a piece of text"));
    char *bytes = decoder->buffer + room;
    memcpy(bytes, decoder->pending, decoder->pending_count);
    raw = decoder->pending_count;
    if (!end)
        NIBL_TRY(
            append_token(decoder->tokenizer, token, decoder->special, &decoder->strip, bytes, count, &raw));

    size_t whole = end ? count : whole_sequences(bytes, count);
    decoder->pending_count = count - whole;
    memcpy(decoder->pending, bytes + whole, decoder->pending_count);
    *length = nibl_utf8_repair(bytes, whole, decoder->buffer);
    *piece = decoder->buffer;
    return NIBL_OK;
}
