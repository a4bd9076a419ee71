/* Tokenizer: builds one from fuzzed metadata, and encodes fuzzed text with it and with a fixed vocabulary.
 * Input: flags, then sections that end with 0xFF: tokens, token types (one byte each), merges (also scores, a byte
 * each), chat template; items within tokens and merges end with 0xFE. What is left is the text. */
#include "core/alphabet.h"
#include "core/tokenizer.h"
#include "core/unicode.h"
#include "tests/c/gguf_builder.h"
#include "tests/fuzz/fuzz.h"

typedef struct span {
    const uint8_t *bytes;
    size_t length;
} span;

/* Takes what stands before the next `mark`, or everything, off `*rest`. */
static span take(span *rest, uint8_t mark) {
    const uint8_t *end = rest->length ? memchr(rest->bytes, mark, rest->length) : NULL;
    span out = {rest->bytes, end ? (size_t)(end - rest->bytes) : rest->length};
    size_t used = out.length + (end != NULL);
    *rest = (span){rest->bytes + used, rest->length - used};
    return out;
}

static void put_span(builder *b, span s) {
    put_int(b, s.length, 8);
    put(b, s.bytes, s.length);
}

static void put_items(builder *b, const char *key, span items) {
    uint64_t count = 0;
    for (span rest = items; rest.length > 0; count++) take(&rest, 0xFE);
    put_key_array(b, key, B_STRING, count);
    while (items.length > 0) put_span(b, take(&items, 0xFE));
}

static nibl_gguf *finish(builder *b) {
    nibl_gguf *gguf;
    size_t taken;
    if (nibl_gguf_new(&gguf) != NIBL_OK || nibl_gguf_feed(gguf, b->bytes, b->length, &taken) != NIBL_OK)
        abort();
    free(b->bytes);
    return gguf;
}

static nibl_gguf *fuzzed_header(uint8_t flags, span *rest) {
    static const char *const keys[] = {NIBL_KEY_LSTRIP, NIBL_KEY_RSTRIP};
    builder b = {0};
    put_start(&b, 0, 12);
    const bool pieces = flags & 8;
    put_key_string(&b, "tokenizer.ggml.model",
                   !pieces     ? "gpt2"
                   : flags & 1 ? NIBL_MODEL_PIECES_MERGES
                               : "llama");
    put_key_string(&b, "tokenizer.ggml.pre", flags & 1 ? "smollm" : "gpt-2");
    put_key_u32(&b, NIBL_KEY_SPACE_PREFIX, flags >> 6);
    for (size_t i = 0; i < 2; i++) {
        put_key_array(&b, keys[i], B_I32, 1);
        put_int(&b, flags >> (4 + i), 4);
    }
    put_items(&b, "tokenizer.ggml.tokens", take(rest, 0xFF));
    span types = take(rest, 0xFF);
    put_key_array(&b, "tokenizer.ggml.token_type", B_I32, types.length);
    for (size_t i = 0; i < types.length; i++) put_int(&b, types.bytes[i], 4);
    span merges = take(rest, 0xFF);
    put_items(&b, "tokenizer.ggml.merges", merges);
    put_key_array(&b, "tokenizer.ggml.scores", B_F32, types.length);
    for (size_t i = 0; i < types.length; i++)
        put_f32(&b, i < merges.length ? -(float)merges.bytes[i] : (float)i);
    put_key_u32(&b, "tokenizer.ggml.bos_token_id", flags >> 4);
    put_key_u32(&b, "tokenizer.ggml.eos_token_id", flags >> 5);
    put_key(&b, "tokenizer.chat_template", B_STRING);
    put_span(&b, take(rest, 0xFF));
    return finish(&b);
}

/* All bytes, the pairs of some letters, pairs of those, and special tokens that begin alike. */
static nibl_tokenizer *fixed_tokenizer(void) {
    static const char letters[] = "etaoin s", *const specials[] = {"<|", "<|a|>", "<|a|>b", "\xC3\xA9<"};
    enum { N = sizeof letters - 1, TOKENS = 256 + N * N + N * N + 4 };
    builder b = {0};
    char pairs[N * N][8];
    put_start(&b, 0, 5);
    put_key_string(&b, "tokenizer.ggml.model", "gpt2");
    put_key_string(&b, "tokenizer.ggml.pre", "smollm");
    put_key_array(&b, "tokenizer.ggml.tokens", B_STRING, TOKENS);
    char bytes[256][3] = {{0}};
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t code = nibl_alphabet_code((uint8_t)i);
        bytes[i][0] = (char)(code < 128 ? code : 0xC0 | code >> 6);
        bytes[i][1] = (char)(code < 128 ? 0 : 0x80 | (code & 0x3F));
        put_string(&b, bytes[i]);
    }
    for (size_t i = 0; i < N * N; i++) {
        const char *left = bytes[(uint8_t)letters[i / N]], *right = bytes[(uint8_t)letters[i % N]];
        snprintf(pairs[i], sizeof pairs[i], "%s%s", left, right);
        put_string(&b, pairs[i]);
    }
    for (size_t i = 0; i < N * N; i++) {
        char twice[16];
        snprintf(twice, sizeof twice, "%s%s", pairs[i], pairs[N * N - 1 - i]);
        put_string(&b, twice);
    }
    for (size_t i = 0; i < 4; i++) put_string(&b, specials[i]);
    put_key_array(&b, "tokenizer.ggml.token_type", B_I32, TOKENS);
    for (size_t i = 0; i < TOKENS; i++) put_int(&b, i < TOKENS - 4 ? 1 : 3 + i % 2, 4);
    put_key_array(&b, "tokenizer.ggml.merges", B_STRING, N * N + N * N);
    for (size_t i = 0; i < 2 * N * N; i++) {
        char merge[16];
        size_t k = i % (N * N);
        if (i < N * N)
            snprintf(merge, sizeof merge, "%s %s", bytes[(uint8_t)letters[k / N]],
                     bytes[(uint8_t)letters[k % N]]);
        else
            snprintf(merge, sizeof merge, "%s %s", pairs[k], pairs[N * N - 1 - k]);
        put_string(&b, merge);
    }
    static nibl_gguf *gguf; /* kept as long as the tokenizer: for good */
    gguf = finish(&b);
    nibl_tokenizer *t;
    if (nibl_tokenizer_new(gguf, &t) != NIBL_OK) abort();
    return t;
}

/* Encodes and decodes; with `exact` the text must come back, streamed and at once. */
static void round_trip(const nibl_tokenizer *t, span text, uint32_t flags, bool exact) {
    size_t count, length, repaired = nibl_utf8_repair((const char *)text.bytes, text.length, NULL);
    const size_t most = 2 * repaired + 2; /* a space may go before what follows a special token */
    int32_t *ids = malloc(most * sizeof *ids);
    char *wanted = malloc(repaired + 1), *got = malloc(repaired + 1);
    if (!ids || !wanted || !got) abort();
    nibl_utf8_repair((const char *)text.bytes, text.length, wanted);
    if (nibl_tokenizer_encode(t, (const char *)text.bytes, text.length, flags, ids, most, &count) != NIBL_OK)
        abort();
    if (exact) {
        if (nibl_tokenizer_decode(t, ids, count, true, got, repaired, &length) != NIBL_OK) abort();
        if (length != repaired || memcmp(got, wanted, length) != 0) abort();
    }
    nibl_decoder *d;
    if (nibl_tokenizer_decoder(t, true, &d) != NIBL_OK) abort();
    length = 0;
    for (size_t i = 0; i <= count; i++) {
        const char *piece;
        size_t n;
        if (nibl_decoder_push(d, i < count ? ids[i] : -1, &piece, &n) != NIBL_OK) abort();
        if (!nibl_utf8_valid(piece, n)) abort();
        if (exact && (length + n > repaired || memcmp(wanted + length, piece, n) != 0)) abort();
        length += n;
    }
    if (exact && length != repaired) abort();
    nibl_decoder_free(d);
    free(ids);
    free(wanted);
    free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static nibl_tokenizer *fixed;
    if (!fixed) fixed = fixed_tokenizer();
    if (size == 0) return 0;
    span rest = {data + 1, size - 1};
    nibl_gguf *gguf = fuzzed_header(data[0], &rest);
    uint64_t plan = nibl_tokenizer_plan(gguf), before, after;
    nibl_memory(&before, NULL);
    nibl_tokenizer *t = NULL;
    if (nibl_tokenizer_new(gguf, &t) == NIBL_OK) {
        nibl_memory(&after, NULL);
        if (after - before > plan) abort();
        round_trip(t, rest, data[0] >> 1 & 3, false);
    }
    nibl_tokenizer_free(t);
    const nibl_message messages[] = {{"user", "Hello"}, {"assistant", "Hi"}};
    nibl_writer w = {0};
    nibl_template_write(gguf, messages, 2, data[0] & 1, data[0] & 2 ? &(nibl_moment){2026, 3, 5, 7, 9} : NULL,
                        &w);
    nibl_gguf_free(gguf);
    round_trip(fixed, rest, data[0] >> 1 & 1, true);
    return 0;
}
