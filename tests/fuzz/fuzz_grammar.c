/* Grammars and JSON Schemas: compiles the input and writes a text by logits that it chooses. Whatever is accepted ends within
 * its tokens. Input: the format and a seed, then the source. */
#include "core/alphabet.h"
#include "core/matcher.h"
#include "tests/c/gguf_builder.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

/* All bytes, and what JSON is full of. */
static const char *const words[] = {"{\"",  "\":",  "\",\"", "\"}", "[{\"", "}]",
                                    "true", "null", "12",    "--",  "ab"};
enum { WORDS = sizeof words / sizeof *words, TOKENS = 256 + WORDS + 1, BUDGET = 60 };

static nibl_token_trie *fixed_trie(void) {
    builder b = {0};
    put_start(&b, 0, 5);
    put_key_string(&b, "tokenizer.ggml.model", "gpt2");
    put_key_string(&b, "tokenizer.ggml.pre", "smollm");
    put_key_array(&b, "tokenizer.ggml.tokens", B_STRING, TOKENS);
    for (uint32_t i = 0; i < 256; i++) {
        const uint32_t code = nibl_alphabet_code((uint8_t)i);
        char text[3] = {(char)(code < 128 ? code : 0xC0 | code >> 6),
                        (char)(code < 128 ? 0 : 0x80 | (code & 0x3F))};
        put_string(&b, text);
    }
    for (size_t i = 0; i < WORDS; i++) put_string(&b, words[i]);
    put_string(&b, "<end>");
    put_key_array(&b, "tokenizer.ggml.token_type", B_I32, TOKENS);
    for (size_t i = 0; i < TOKENS; i++) put_int(&b, i + 1 == TOKENS ? 3 : 1, 4);
    put_key_array(&b, "tokenizer.ggml.merges", B_STRING, 0);
    nibl_gguf *gguf;
    size_t taken;
    nibl_tokenizer *tokenizer;
    nibl_token_trie *trie;
    if (nibl_gguf_new(&gguf) != NIBL_OK || nibl_gguf_feed(gguf, b.bytes, b.length, &taken) != NIBL_OK)
        abort();
    if (nibl_tokenizer_new(gguf, &tokenizer) != NIBL_OK || nibl_token_trie_new(tokenizer, &trie) != NIBL_OK)
        abort();
    nibl_tokenizer_free(tokenizer);
    nibl_gguf_free(gguf);
    free(b.bytes);
    return trie;
}

static void write_text(nibl_matcher *m, uint32_t seed) {
    static const int32_t ends[NIBL_END_TOKENS] = {TOKENS - 1, -1, -1, -1, -1, -1, -1, -1};
    float logits[TOKENS];
    if (nibl_matcher_start(m, BUDGET) != NIBL_OK) return; /* too long, or too many states */
    for (int left = BUDGET; left > 0 && !nibl_matcher_done(m); left--) {
        for (uint32_t i = 0; i < TOKENS; i++) {
            seed = seed * 1664525u + 1013904223u;
            logits[i] = (float)(seed >> 8);
        }
        if (nibl_matcher_apply(m, logits, TOKENS, ends, NIBL_END_TOKENS) != NIBL_OK) return;
        uint32_t best = 0;
        for (uint32_t i = 1; i < TOKENS; i++)
            if (logits[i] > logits[best]) best = i;
        if (!(logits[best] > -INFINITY)) abort();
        if (best + 1 == TOKENS) break;
        const char byte = (char)best;
        const char *bytes = best < 256 ? &byte : words[best - 256];
        const nibl_status status = nibl_matcher_accept(m, bytes, best < 256 ? 1 : strlen(bytes));
        if (status == NIBL_E_GRAMMAR && strstr(nibl_last_message(), "does not allow")) abort();
        if (status != NIBL_OK) return;
    }
    if (!nibl_matcher_complete(m)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static nibl_token_trie *trie;
    if (!trie) trie = fixed_trie();
    if (size < 2) return 0;
    uint64_t before, after;
    nibl_memory(&before, NULL);
    nibl_rules rules = {0};
    nibl_matcher *m = NULL;
    (data[0] & 1 ? nibl_grammar_read_schema : nibl_grammar_read)(&rules, (const char *)data + 2, size - 2);
    if (nibl_matcher_new(&rules, trie, &m) == NIBL_OK) {
        write_text(m, data[1]);
        write_text(m, data[1] + 1u);
        nibl_matcher_free(m);
    }
    nibl_memory(&after, NULL);
    if (after != before) abort();
    return 0;
}
