#include "core/tokenizer.h"

#include "core/alphabet.h"
#include "core/bpe.h"
#include "core/normalize.h"
#include "core/special.h"
#include "core/vocabulary.h"

#include <string.h>

#define MAX_TEXT                                                                                             \
    (NIBL_BPE_MAX_WORD / 9) /* bytes; repaired they may be three times as many, normalized again */

struct nibl_tokenizer {
    nibl_vocabulary v;
    nibl_pieces pieces; /* its index stays where texts are looked up while encoding */
    nibl_pretokenizer pre;
    nibl_bpe bpe;
    nibl_special special;
    bool cuts; /* pieces have spaces at their beginning only: a text may be cut before them */
};

static const char mark[] = "\xE2\x96\x81"; /* a space in a piece */

/* ---- Tables ---- */

static void find_bytes(nibl_tokenizer *t) {
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t byte = 0; byte < 256; byte++) {
        char name[] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
        nibl_slice text = {name, sizeof name};
        if (t->v.model == NIBL_TOKENIZER_BYTES) text.length = nibl_alphabet_write((uint8_t)byte, name);
        t->bpe.byte_token[byte] = nibl_pieces_find(&t->pieces, text, (nibl_slice){"", 0});
    }
}

/* Reads "left right" of the given rank. */
static nibl_status parse_merge(const nibl_tokenizer *t, uint32_t rank, nibl_merge *out) {
    const nibl_slice empty = {"", 0};
    nibl_slice text = nibl_gguf_array_string(&t->v.merges, rank);
    const char *space = memchr(text.bytes, ' ', text.length);
    nibl_slice left = {text.bytes, space ? (size_t)(space - text.bytes) : 0};
    nibl_slice right = {text.bytes + left.length + 1, space ? text.length - left.length - 1 : 0};
    if (left.length == 0 || right.length == 0 || memchr(right.bytes, ' ', right.length))
        return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.merges: %u is not two tokens with a space between them",
                         rank);
    out->left = nibl_pieces_find(&t->pieces, left, empty);
    out->right = nibl_pieces_find(&t->pieces, right, empty);
    out->merged = nibl_pieces_find(&t->pieces, left, right);
    if (t->v.model == NIBL_TOKENIZER_PIECES && out->left != NIBL_NO_TOKEN && out->right != NIBL_NO_TOKEN &&
        (nibl_tokenizer_kind(t, out->left) == NIBL_TOKEN_BYTE ||
         nibl_tokenizer_kind(t, out->right) == NIBL_TOKEN_BYTE))
        return nibl_fail(NIBL_E_UNSUPPORTED, "tokenizer.ggml.merges: %u merges tokens that stand for bytes",
                         rank);
    if (out->left != NIBL_NO_TOKEN && out->right != NIBL_NO_TOKEN && out->merged != NIBL_NO_TOKEN)
        return NIBL_OK;
    return nibl_fail(NIBL_E_FILE,
                     "tokenizer.ggml.merges: %u, '%.*s', needs a token that the vocabulary lacks", rank,
                     text.length < 64 ? (int)text.length : 64, text.bytes);
}

static nibl_status build_merges(nibl_tokenizer *t) {
    const uint32_t count = t->v.merge_count;
    NIBL_TRY(nibl_index_new(&t->bpe.pairs, count, "merges"));
    if (count == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)count * sizeof *t->bpe.merges;
    t->bpe.merges = nibl_alloc(bytes);
    if (!t->bpe.merges) return nibl_fail_memory(bytes, "merges");
    for (uint32_t rank = 0; rank < count; rank++) {
        NIBL_TRY(parse_merge(t, rank, &t->bpe.merges[rank]));
        NIBL_TRY(nibl_bpe_add_merge(&t->bpe, rank));
    }
    return NIBL_OK;
}

static nibl_status build_specials(nibl_tokenizer *t) {
    NIBL_TRY(nibl_special_new(&t->special, t->v.specials));
    for (uint32_t i = 0; i < t->v.tokens; i++) {
        uint32_t type = nibl_pieces_type(&t->pieces, i);
        if (!nibl_type_special(type)) continue;
        const nibl_special_token token = {.text = nibl_tokenizer_text(t, i),
                                          .token = i,
                                          .control = type != NIBL_TYPE_USER,
                                          .rstrip = nibl_vocabulary_rstrip(&t->v, i)};
        NIBL_TRY(nibl_special_add(&t->special, token));
    }
    for (uint64_t i = 0; i < t->v.lstrip.count; i++) {
        nibl_special_token *token = nibl_special_of(&t->special, nibl_load_u32(t->v.lstrip.data + 4 * i));
        if (token) token->lstrip = true;
    }
    for (uint64_t i = 0; i < t->v.rstrip.count; i++) {
        nibl_special_token *token = nibl_special_of(&t->special, nibl_load_u32(t->v.rstrip.data + 4 * i));
        if (token) token->rstrip = true;
    }
    return NIBL_OK;
}

static nibl_status check_byte_tokens(const nibl_tokenizer *t) {
    uint8_t byte;
    for (uint32_t i = 0; i < t->v.tokens; i++)
        if (nibl_tokenizer_kind(t, i) == NIBL_TOKEN_BYTE &&
            !nibl_token_byte(nibl_tokenizer_text(t, i), &byte))
            return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: byte token %u is not of the form <0x00>",
                             i);
    return NIBL_OK;
}

/* Whether a space follows something else at text[i]: where words end, and no piece should go on. */
static bool ends_word(const char *text, size_t length, size_t i) {
    return i > 0 && i + 3 <= length && memcmp(text + i, mark, 3) == 0 &&
           (i < 3 || memcmp(text + i - 3, mark, 3) != 0);
}

static bool can_cut(const nibl_tokenizer *t) {
    for (uint32_t token = 0; token < t->v.tokens; token++) {
        const nibl_slice text = nibl_tokenizer_text(t, token);
        for (size_t i = 1; i + 3 <= text.length; i++)
            if (ends_word(text.bytes, text.length, i)) return false;
    }
    return nibl_pieces_find_word(&t->pieces, mark, 3) != NIBL_NO_TOKEN;
}

static nibl_status build(nibl_tokenizer *t) {
    t->pieces = (nibl_pieces){.texts = t->v.texts, .types = t->v.types, .scores = t->v.scores};
    NIBL_TRY(nibl_pieces_index(&t->pieces));
    find_bytes(t);
    NIBL_TRY(build_specials(t));
    t->bpe.unknown = (uint32_t)t->v.unknown; /* -1 is none */
    if (t->v.by_merges) NIBL_TRY(build_merges(t));
    if (t->v.model == NIBL_TOKENIZER_PIECES) {
        t->bpe.pieces = &t->pieces;
        t->bpe.scores = !t->v.by_merges;
        t->cuts = can_cut(t);
        return check_byte_tokens(t);
    }
    NIBL_TRY(nibl_pretokenizer_new(&t->pre, t->v.patterns, t->v.pattern_count));
    if (!t->v.whole_words) nibl_pieces_free(&t->pieces);
    return NIBL_OK;
}

nibl_status nibl_tokenizer_new(const nibl_gguf *gguf, nibl_tokenizer **out) {
    nibl_vocabulary v;
    NIBL_TRY(nibl_vocabulary_read(gguf, &v));
    return nibl_tokenizer_build(&v, out);
}

nibl_status nibl_tokenizer_build(const nibl_vocabulary *vocabulary, nibl_tokenizer **out) {
    nibl_tokenizer *t = nibl_alloc_zero(sizeof *t);
    if (!t) return nibl_fail_memory(sizeof *t, "a tokenizer");
    t->v = *vocabulary;
    nibl_status status = build(t);
    if (status == NIBL_OK)
        *out = t;
    else
        nibl_tokenizer_free(t);
    return status;
}

void nibl_tokenizer_free(nibl_tokenizer *tokenizer) {
    if (!tokenizer) return;
    nibl_free(tokenizer->bpe.merges);
    nibl_index_free(&tokenizer->bpe.pairs);
    nibl_pieces_free(&tokenizer->pieces);
    nibl_pretokenizer_free(&tokenizer->pre);
    nibl_special_free(&tokenizer->special);
    nibl_free(tokenizer);
}

uint64_t nibl_tokenizer_plan(const nibl_gguf *gguf) {
    nibl_vocabulary v;
    if (nibl_vocabulary_read(gguf, &v) != NIBL_OK) return 0;
    uint64_t slots =
        (uint64_t)nibl_index_slots(v.tokens) + nibl_index_slots(v.merge_count) + nibl_index_slots(v.specials);
    return sizeof(nibl_tokenizer) + slots * sizeof(uint32_t) + (uint64_t)v.merge_count * sizeof(nibl_merge) +
           (uint64_t)v.specials * sizeof(nibl_special_token) + v.pattern_count * sizeof(nibl_pattern);
}

/* ---- What it knows ---- */

size_t nibl_tokenizer_size(const nibl_tokenizer *tokenizer) { return tokenizer->v.tokens; }
int32_t nibl_tokenizer_bos(const nibl_tokenizer *tokenizer) { return tokenizer->v.bos; }
int32_t nibl_tokenizer_eos(const nibl_tokenizer *tokenizer) { return tokenizer->v.ends[0]; }
bool nibl_tokenizer_add_bos(const nibl_tokenizer *tokenizer) { return tokenizer->v.add_bos; }
nibl_space_prefix nibl_tokenizer_space_prefix(const nibl_tokenizer *tokenizer) {
    return tokenizer->v.space_prefix;
}

nibl_slice nibl_tokenizer_text(const nibl_tokenizer *tokenizer, uint32_t token) {
    return nibl_gguf_array_string(&tokenizer->v.texts, token);
}

nibl_token_kind nibl_tokenizer_kind(const nibl_tokenizer *tokenizer, uint32_t token) {
    uint32_t type = nibl_pieces_type(&tokenizer->pieces, token);
    if (type == NIBL_TYPE_USER) return NIBL_TOKEN_USER;
    if (nibl_type_special(type)) return NIBL_TOKEN_CONTROL;
    if (tokenizer->v.model == NIBL_TOKENIZER_BYTES) return NIBL_TOKEN_WORD;
    return type == NIBL_TYPE_BYTE ? NIBL_TOKEN_BYTE : NIBL_TOKEN_PIECE;
}

bool nibl_tokenizer_is_end(const nibl_tokenizer *tokenizer, int32_t token) {
    for (size_t i = 0; token >= 0 && i < NIBL_END_TOKENS; i++)
        if (tokenizer->v.ends[i] == token) return true;
    return false;
}

const int32_t *nibl_tokenizer_ends(const nibl_tokenizer *tokenizer) { return tokenizer->v.ends; }

/* ---- Text to tokens ---- */

/* The token whose text is the word's in GPT-2's alphabet. */
static uint32_t whole_word(const nibl_tokenizer *t, const char *word, size_t length) {
    char text[2 * NIBL_SPECIAL_MAX_BYTES];
    size_t written = 0;
    if (length > NIBL_SPECIAL_MAX_BYTES || length > t->pieces.longest) return NIBL_NO_TOKEN;
    for (size_t i = 0; i < length; i++) written += nibl_alphabet_write((uint8_t)word[i], text + written);
    return nibl_pieces_find_word(&t->pieces, text, written);
}

static nibl_status encode_words(const nibl_tokenizer *t, const char *text, size_t length,
                                nibl_token_list *out) {
    nibl_words words;
    nibl_words_start(&words, &t->pre, text, length);
    for (size_t at, count; nibl_words_next(&words, &at, &count);) {
        uint32_t token = t->v.whole_words ? whole_word(t, text + at, count) : NIBL_NO_TOKEN;
        if (token != NIBL_NO_TOKEN)
            nibl_token_list_add(out, token);
        else
            NIBL_TRY(nibl_bpe_encode(&t->bpe, text + at, count, out));
    }
    return NIBL_OK;
}

/* Where a piece of text stands in the whole. */
typedef enum place { PLACE_FIRST, PLACE_CONTINUED, PLACE_LATER } place;

static nibl_status encode_bytes(const nibl_tokenizer *t, const char *text, size_t length, place where,
                                nibl_token_list *out) {
    (void)where;
    char *normal = NULL;
    if (t->v.nfc) NIBL_TRY(nibl_nfc(text, length, &normal, &length));
    nibl_status status = encode_words(t, normal ? normal : text, length, out);
    nibl_free(normal);
    return status;
}

/* Whether a space goes before it. */
static bool needs_prefix(nibl_space_prefix prefix, const char *text, size_t length, place where) {
    if (where == PLACE_CONTINUED) return false;
    if (prefix == NIBL_PREFIX_NONE || prefix == NIBL_PREFIX_EACH) return prefix != NIBL_PREFIX_NONE;
    if (prefix == NIBL_PREFIX_FIRST_BARE && where != PLACE_FIRST) return false;
    return text[0] != ' ' && !(length >= 3 && memcmp(text, mark, 3) == 0);
}

/* Spaces as SentencePiece has them. Returns the length of what is written: at most 3 * (length + 1). */
static size_t mark_spaces(const nibl_vocabulary *v, const char *text, size_t length, bool prefix, char *out) {
    size_t written = 0;
    bool collapse = v->collapse_spaces, after_space = true;
    while (collapse && length > 0 && text[length - 1] == ' ') length--;
    for (size_t i = 0; i < length; i++) {
        bool space = text[i] == ' ';
        if (collapse && space && after_space) continue;
        after_space = space;
        if (space || prefix) {
            memcpy(out + written, mark, 3);
            written += 3;
        }
        if (prefix && space) { /* the text's own after the one that is put before it */
            memcpy(out + written, mark, 3);
            written += 3;
        }
        prefix = false;
        if (!space) out[written++] = text[i];
    }
    return written;
}

static nibl_status encode_pieces(const nibl_tokenizer *t, const char *text, size_t length, place where,
                                 nibl_token_list *out) {
    if (length == 0) return NIBL_OK;
    uint64_t bytes = 3 * ((uint64_t)length + 1);
    char *marked = nibl_alloc(bytes);
    if (!marked) return nibl_fail_memory(bytes, "a text's spaces");
    const bool prefix = needs_prefix(t->v.space_prefix, text, length, where);
    size_t written = mark_spaces(&t->v, text, length, prefix, marked);
    nibl_status status = NIBL_OK;
    for (size_t begin = 0, end; begin < written && status == NIBL_OK; begin = end) {
        for (end = begin + 1; t->cuts && end < written && !ends_word(marked, written, end);) end++;
        if (!t->cuts) end = written;
        status = nibl_bpe_encode(&t->bpe, marked + begin, end - begin, out);
    }
    nibl_free(marked);
    return status;
}

/* `text` is well-formed. */
static nibl_status encode_text(const nibl_tokenizer *t, const char *text, size_t length, uint32_t flags,
                               nibl_token_list *out) {
    const bool control = flags & NIBL_TOKENIZE_SPECIAL;
    const place start = flags & NIBL_TOKENIZE_CONTINUE ? PLACE_CONTINUED : PLACE_FIRST;
    nibl_special_match m = {0};
    for (size_t at = 0; at < length || m.next < length; at = m.end) {
        nibl_special_next(&t->special, text, length, control, &m);
        if (at < m.begin)
            NIBL_TRY((t->bpe.pieces ? encode_pieces : encode_bytes)(t, text + at, m.begin - at,
                                                                    at == 0 ? start : PLACE_LATER, out));
        if (m.token) nibl_token_list_add(out, m.token->token);
    }
    return NIBL_OK;
}

nibl_status nibl_tokenizer_encode(const nibl_tokenizer *tokenizer, const char *text, size_t length,
                                  uint32_t flags, int32_t *tokens, size_t capacity, size_t *count) {
    if (flags & ~(uint32_t)(NIBL_TOKENIZE_SPECIAL | NIBL_TOKENIZE_BOS | NIBL_TOKENIZE_CONTINUE))
        return nibl_fail(NIBL_E_ARGUMENT, "tokenize: unknown flags 0x%x", (unsigned)flags);
    if (length > MAX_TEXT)
        return nibl_fail(NIBL_E_ARGUMENT, "tokenize: a text of %zu bytes (limit %u), cut it", length,
                         MAX_TEXT);
    nibl_token_list list = {tokens, capacity, 0};
    if ((flags & NIBL_TOKENIZE_BOS) && tokenizer->v.bos >= 0)
        nibl_token_list_add(&list, (uint32_t)tokenizer->v.bos);
    char *repaired = NULL;
    if (!nibl_utf8_valid(text, length)) {
        size_t bytes = nibl_utf8_repair(text, length, NULL);
        repaired = nibl_alloc(bytes);
        if (!repaired) return nibl_fail_memory(bytes, "a text's repaired copy");
        nibl_utf8_repair(text, length, repaired);
        text = repaired;
        length = bytes;
    }
    nibl_status status = encode_text(tokenizer, text, length, flags, &list);
    nibl_free(repaired);
    NIBL_TRY(status);
    *count = list.count;
    if (list.count <= capacity) return NIBL_OK;
    return nibl_fail(NIBL_E_BUFFER, "the text has %zu tokens, the buffer holds %zu", list.count, capacity);
}
