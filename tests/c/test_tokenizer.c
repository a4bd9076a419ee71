/* Tokenizer: the corpus with a small vocabulary, cases by hand, hostile metadata, long words, failing memory.
 * */
#include "core/alphabet.h"
#include "core/index_table.h"
#include "core/pretokenize.h"
#include "tests/c/corpus.h"

/* ---- A vocabulary by hand: token b is byte b for b < 256, then these ---- */

enum { HE = 256, LL, LLO, HELLO, SPACE_HELLO, CONTROL, CONTROL_LONG, THINK, SMILE, UNKNOWN, TOKENS };
enum { NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, USER = 4, MAX_COUNT = 1000 };

typedef struct vocabulary {
    const char *model, *pre; /* NULL: absent */
    const char *tokens[MAX_COUNT];
    uint32_t types[MAX_COUNT];
    const char *merges[8];
    uint32_t token_count, type_count, merge_count;
    uint32_t tokens_type, types_type, merges_type; /* B_ARRAY: absent */
    uint32_t rows; /* of token_embd.weight; 0 = no such tensor */
    int64_t bos, eos; /* -1: absent */
    int add_bos; /* -1: absent */
} vocabulary;

static char byte_texts[256][3];
static vocabulary good;

static void make_good(void) {
    static const char *const more[] = {
        "he",   "ll", "llo", "hello", "\xC4\xA0hello", "<|end|>", "<|end|>\n", "<think>", "\xF0\x9F\x99\x82",
        "<unk>"};
    static const char *const merges[] = {"h e", "l l", "ll o", "he llo", "\xC4\xA0 hello"};
    good = (vocabulary){.model = "gpt2",
                        .pre = "gpt-2",
                        .token_count = TOKENS,
                        .type_count = TOKENS,
                        .merge_count = 5,
                        .tokens_type = B_STRING,
                        .types_type = B_I32,
                        .merges_type = B_STRING,
                        .bos = CONTROL,
                        .eos = CONTROL,
                        .add_bos = -1};
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t code = nibl_alphabet_code((uint8_t)b);
        char *text = byte_texts[b];
        if (code < 128)
            *text = (char)code;
        else
            text[0] = (char)(0xC0 | code >> 6), text[1] = (char)(0x80 | (code & 0x3F));
        good.tokens[b] = text;
    }
    for (uint32_t i = 256; i < TOKENS; i++) good.tokens[i] = more[i - 256];
    for (uint32_t i = 0; i < TOKENS; i++) good.types[i] = NORMAL;
    good.types[CONTROL] = good.types[CONTROL_LONG] = TYPE_CONTROL;
    good.types[THINK] = good.types[SMILE] = USER;
    good.types[UNKNOWN] = TYPE_UNKNOWN;
    memcpy(good.merges, merges, sizeof merges);
}

static uint32_t put_strings(builder *b, const char *key, uint32_t type, const char *const *texts,
                            uint32_t count) {
    if (type == B_ARRAY) return 0;
    put_key_array(b, key, type, count);
    for (uint32_t i = 0; i < count; i++) {
        if (type == B_STRING)
            put_string(b, texts[i]);
        else
            put_int(b, i, 4);
    }
    return 1;
}

static uint32_t put_id(builder *b, const char *key, int64_t id) {
    if (id < 0) return 0;
    put_key_u32(b, key, (uint32_t)id);
    return 1;
}

static nibl_gguf *header_with(const vocabulary *v) {
    builder b = {0};
    put_start(&b, v->rows > 0, 0);
    uint32_t keys = 0;
    if (v->model) put_key_string(&b, "tokenizer.ggml.model", v->model), keys++;
    if (v->pre) put_key_string(&b, "tokenizer.ggml.pre", v->pre), keys++;
    keys += put_strings(&b, "tokenizer.ggml.tokens", v->tokens_type, v->tokens, v->token_count);
    keys += put_strings(&b, "tokenizer.ggml.merges", v->merges_type, v->merges, v->merge_count);
    if (v->types_type != B_ARRAY) {
        put_key_array(&b, "tokenizer.ggml.token_type", v->types_type, v->type_count);
        for (uint32_t i = 0; i < v->type_count; i++) put_int(&b, v->types[i], v->types_type == B_I32 ? 4 : 2);
        keys++;
    }
    keys +=
        put_id(&b, "tokenizer.ggml.bos_token_id", v->bos) + put_id(&b, "tokenizer.ggml.eos_token_id", v->eos);
    if (v->add_bos >= 0) {
        put_key(&b, "tokenizer.ggml.add_bos_token", B_BOOL);
        put_int(&b, (uint64_t)v->add_bos, 1);
        keys++;
    }
    if (v->rows > 0) put_tensor(&b, "token_embd.weight", 0, 2, 32, v->rows, 0);
    b.bytes[16] = (uint8_t)keys;
    nibl_gguf *gguf = header_of(&b);
    free(b.bytes);
    return gguf;
}

/* The tokenizer of `good`; *gguf must be freed after it. */
static nibl_tokenizer *new_good(nibl_gguf **gguf) {
    nibl_tokenizer *t = NULL;
    *gguf = header_with(&good);
    if (CHECK_EQ(nibl_tokenizer_new(*gguf, &t), NIBL_OK)) return t;
    printf("%s\n", nibl_last_message());
    exit(1);
}

static void free_all(nibl_tokenizer *t, nibl_gguf *gguf) {
    nibl_tokenizer_free(t);
    nibl_gguf_free(gguf);
    CHECK_EQ(memory_now(), 0);
}

/* ---- Tests ---- */

static void corpus_with(const char *pre, const char *ids) {
    builder b = read_whole(FIXTURE("small.gguf"));
    uint8_t *value = find_name(b.bytes, b.length, "tokenizer.ggml.pre");
    if (strcmp(pre, "smollm") != 0) { /* make the value shorter: it has 6 bytes behind its type and length */
        size_t tail = b.length - (size_t)(value + 12 + 6 - b.bytes);
        value[4] = (uint8_t)strlen(pre);
        memcpy(value + 12, pre, strlen(pre));
        memmove(value + 12 + strlen(pre), value + 12 + 6, tail);
        b.length -= 6 - strlen(pre);
    }
    nibl_gguf *gguf = header_of(&b);
    nibl_tokenizer *t = NULL;
    CHECK(peak_of_new(gguf, &t) <= nibl_tokenizer_plan(gguf));
    check_corpus(
        t, (corpus_check){.ids = ids, .same = FIXTURE("small-smollm.ids"), .lost = "\x04\x06\xf1\xf2\xff"});
    CHECK(nibl_tokenizer_is_end(t, 0) && nibl_tokenizer_is_end(t, 2) &&
          !nibl_tokenizer_is_end(t, 1)); /* eot, eos */
    free(b.bytes);
    free_all(t, gguf);
}

static void corpus_smollm(void) { corpus_with("smollm", FIXTURE("small-smollm.ids")); }
static void corpus_gpt2(void) { corpus_with("gpt-2", FIXTURE("small-gpt-2.ids")); }

static void words(void) {
    static const struct {
        const char *pre, *words; /* cut at '|' */
    } cases[] = {
        {"gpt-2", "Hello| world|!"},
        {"gpt-2", "I|'m| we|'ve| you|'re| he|'ll| she|'d| it|'s| don|'t"},
        {"gpt-2", "I|'|M| '|s|!'|re|'|v|'"},
        {"gpt-2", "a| | b|  | c|\n|d|\t| e|\n|\n|f|   "},
        {"gpt-2", "x|1234| 56| | 7|  "},
        {"gpt-2", "\xC2\xA0|a|\xE3\x80\x80| b| |\xC2\xA0|c"},
        {"gpt-2", "e|\xCC\x81|x"}, /* a combining mark is no letter */
        {"smollm", "x|1|2|3|4| |5|6|  |7|  "},
        {"smollm", "\xD9\xA1|\xD9\xA2|\xC2\xBD|a| |\xE2\x85\xA7"},
        {"smollm", "a| |\xF0\x91\xB7\xA0"}, /* U+11DE0 is a number for the digit splitter ... */
        {"gpt-2", "a| \xF0\x91\xB7\xA0!"}, /* ... not for the pattern */
        {"llama-bpe", "I|'M| we|'Ve|'\u017F| a|123|456|7|\t|\tb|.c|..|x| ...\n\n|  \n|  | y"},
        {"qwen2", "1|2| a|(b| -|3|\n \n|   | ce|\u0301x"},
        {"qwen35", "1|2|e\u0301x| \u0301| -"},
        {"gpt-4o", "Hello|World's| ABCdef|HTTPServer'LL|/|123|4| //\n/|\u0301\u8A9E|A"},
        {"tekken", "Hello|World|'s| |1|2| //\n/\n"},
        {"deepseek-v3", "123|45|\u4ECA\u5929| abc|.def|(|   | x| +++\n\n|y|\x01"},
        {"deepseek-coder", "a| b| .|\n|\n| | c| |1|2|\u4ECA\u5929"},
        {"deepseek-llm", "a| b| .!|\n|  | c|1|2|\u4ECA\u5929|   "},
        {"smollm",
         "\xE4\xBB\x8A\xE5\xA4\xA9|\xEF\xBC\x8C|\xE5\xA5\xBD|\xEF\xBC\x93|\xF0\x9F\x98\x80\xE2\x9D\xA4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const nibl_pre_row *row = nibl_pre_find(cases[i].pre, strlen(cases[i].pre));
        if (!CHECK(row != NULL)) continue;
        size_t patterns = 0, length = 0, out = 0;
        while (patterns < NIBL_PRE_PATTERNS && row->patterns[patterns]) patterns++;
        nibl_pretokenizer pre;
        if (!CHECK_EQ(nibl_pretokenizer_new(&pre, row->patterns, patterns), NIBL_OK)) continue;
        char text[200], cut[200];
        for (const char *p = cases[i].words; *p; p++)
            if (*p != '|') text[length++] = *p;
        nibl_words words;
        nibl_words_start(&words, &pre, text, length);
        for (size_t at, n, end = 0; nibl_words_next(&words, &at, &n); end = at + n) {
            if (!CHECK(n > 0 && at == end && at + n <= length)) break;
            if (at > 0) cut[out++] = '|';
            memcpy(cut + out, text + at, n);
            out += n;
        }
        cut[out] = 0;
        if (!CHECK(strcmp(cut, cases[i].words) == 0))
            printf("    %s: '%s', not '%s'\n", cases[i].pre, cut, cases[i].words);
        nibl_pretokenizer_free(&pre);
    }
    CHECK(nibl_pre_find("default", 7) == NULL && nibl_pre_find("smollm2", 7) == NULL &&
          nibl_pre_find("", 0) == NULL);
}

/* The examples of the Unicode Standard, 3.9, "Best Practices for Using U+FFFD"; '?' stands for it. */
static const struct {
    const char *bytes, *repaired;
} ill_formed[] = {
    {"a\xF1\x80\x80\xE1\x80\xC2"
     "b\x80"
     "c\x80\xBF"
     "d",
     "a???b?c??d"},
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
     "A",
     "????????A"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF"
     "A",
     "????????A"},
    {"\xF4\x91\x92\x93\xFF"
     "A\x80\xBF"
     "B",
     "?????A??B"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
     "A",
     "????A"},
    {"ok\xF0\x9F\x98", "ok?"},
    {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xEF\xBF\xBD", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80?"},
};

static size_t spell_out(const char *repaired, char *out) {
    size_t length = 0;
    for (const char *p = repaired; *p; p++) {
        size_t n = *p == '?' ? 3 : 1;
        memcpy(out + length, *p == '?' ? "\xEF\xBF\xBD" : p, n);
        length += n;
    }
    return length;
}

static void repair(void) {
    for (size_t i = 0; i < sizeof ill_formed / sizeof *ill_formed; i++) {
        char wanted[100], got[100];
        size_t length = strlen(ill_formed[i].bytes),
               wanted_length = spell_out(ill_formed[i].repaired, wanted);
        CHECK_EQ(nibl_utf8_repair(ill_formed[i].bytes, length, NULL), wanted_length);
        CHECK_EQ(nibl_utf8_repair(ill_formed[i].bytes, length, got), wanted_length);
        CHECK(memcmp(got, wanted, wanted_length) == 0);
        CHECK(nibl_utf8_valid(wanted, wanted_length));
        CHECK(nibl_utf8_valid(ill_formed[i].bytes, length) == (i == 6));
    }
    CHECK(nibl_utf8_valid("", 0));
    CHECK(!nibl_utf8_valid("12345678\xC3", 9)); /* behind a word of ASCII */
}

/* One byte a token: whatever the cuts, pieces are whole sequences and make up the repaired text. */
static void streaming(void) {
    nibl_gguf *gguf;
    nibl_tokenizer *t = new_good(&gguf);
    nibl_decoder *d = NULL;
    CHECK_EQ(nibl_tokenizer_decoder(t, false, &d), NIBL_OK);
    for (size_t i = 0; i < sizeof ill_formed / sizeof *ill_formed; i++) {
        char wanted[100], got[100];
        size_t wanted_length = spell_out(ill_formed[i].repaired, wanted), length = 0, n;
        const char *piece;
        const uint8_t *bytes = (const uint8_t *)ill_formed[i].bytes;
        for (bool more = true; more; length += n) {
            more = *bytes != 0;
            int32_t token = more ? *bytes++ : -1;
            if (!CHECK_EQ(nibl_decoder_push(d, token, &piece, &n), NIBL_OK)) break;
            CHECK(nibl_utf8_valid(piece, n));
            memcpy(got + length, piece, n);
        }
        CHECK(length == wanted_length && memcmp(got, wanted, length) == 0);
    }
    /* A control token between the halves of a sequence is not written and does not part them. */
    const char *piece;
    size_t n;
    nibl_decoder_push(d, 0xC3, &piece, &n);
    CHECK_EQ(n, 0);
    nibl_decoder_push(d, CONTROL, &piece, &n);
    CHECK_EQ(n, 0);
    CHECK_EQ(nibl_decoder_push(d, TOKENS, &piece, &n), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "token 266 is not in the vocabulary of 266");
    CHECK_EQ(nibl_decoder_push(d, -2, &piece, &n), NIBL_E_ARGUMENT);
    nibl_decoder_push(d, 0xA9, &piece, &n);
    CHECK(n == 2 && memcmp(piece, "\xC3\xA9", 2) == 0);
    nibl_decoder_push(d, SMILE, &piece, &n);
    CHECK(n == 4 && memcmp(piece, good.tokens[SMILE], 4) == 0);
    nibl_decoder_push(d, -1, &piece, &n);
    CHECK_EQ(n, 0);
    nibl_decoder_free(d);
    nibl_decoder_free(NULL);
    free_all(t, gguf);
}

static void check_ids(const nibl_tokenizer *t, const char *text, uint32_t flags, const int32_t *wanted,
                      size_t count) {
    int32_t ids[100];
    size_t n = 0;
    CHECK_EQ(nibl_tokenizer_encode(t, text, strlen(text), flags, ids, 100, &n), NIBL_OK);
    if (CHECK(n == count && memcmp(ids, wanted, n * sizeof *ids) == 0)) return;
    printf("    %s\n", text);
    show_ids("tokens", ids, n);
    show_ids("wanted", wanted, count);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void encoding(void) {
    nibl_gguf *gguf;
    nibl_tokenizer *t = new_good(&gguf);
    const uint32_t special = NIBL_TOKENIZE_SPECIAL, bos = NIBL_TOKENIZE_BOS;
    check_ids(t, "hello hello", 0, IDS(HELLO, SPACE_HELLO));
    check_ids(t, "hell llo", 0, IDS(HE, LL, ' ', LLO));
    check_ids(t, "lll", 0, IDS(LL, 'l')); /* the leftmost of equals */
    check_ids(t, "x<|end|>\nhe<|end|>", special, IDS('x', CONTROL_LONG, HE, CONTROL)); /* the longest */
    check_ids(t, "<|end|><unk>", special, IDS(CONTROL, UNKNOWN));
    check_ids(t, "<<think><think", 0,
              IDS('<', THINK, '<', 't', 'h', 'i', 'n', 'k')); /* even without the flag */
    check_ids(t, "<|end|>", 0, IDS('<', '|', 'e', 'n', 'd', '|', '>'));
    check_ids(t, "he", bos, IDS(CONTROL, HE));
    check_ids(t, "\xF0\x9F\x99\x82\xF0\x9F\x99", special, IDS(SMILE, 0xEF, 0xBF, 0xBD));
    int32_t ids[3];
    size_t n = 99;
    CHECK_EQ(nibl_tokenizer_encode(t, NULL, 0, 0, NULL, 0, &n), NIBL_OK);
    CHECK_EQ(n, 0);
    CHECK_EQ(nibl_tokenizer_encode(t, "a\0b", 3, 0, ids, 3, &n), NIBL_OK);
    CHECK(n == 3 && ids[1] == 0);
    ids[2] = -7;
    CHECK_EQ(nibl_tokenizer_encode(t, "abc", 3, 0, ids, 2, &n), NIBL_E_BUFFER);
    CHECK(n == 3 && ids[1] == 'b' && ids[2] == -7);
    CHECK_HAS(nibl_last_message(), "3 tokens, the buffer holds 2");
    CHECK_EQ(nibl_tokenizer_encode(t, "abc", 3, 8, ids, 3, &n), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_tokenizer_encode(t, "abc", (size_t)1 << 30, 0, ids, 3, &n), NIBL_E_ARGUMENT);
    free_all(t, gguf);
}

static void decoding(void) {
    nibl_gguf *gguf;
    nibl_tokenizer *t = new_good(&gguf);
    const int32_t ids[] = {HELLO, CONTROL, SPACE_HELLO, THINK, 0xF0, UNKNOWN};
    char text[64];
    size_t n;
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 6, false, text, 64, &n), NIBL_OK);
    CHECK(n == 19 && memcmp(text, "hello hello<think>\xF0", n) == 0);
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 6, true, text, 31, &n), NIBL_OK);
    CHECK(n == 31 && memcmp(text, "hello<|end|> hello<think>\xF0<unk>", n) == 0);
    memset(text, '#', sizeof text);
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 6, true, text, 7, &n), NIBL_E_BUFFER);
    CHECK(n == 31 && memcmp(text, "hello<|#", 8) == 0);
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 0, true, NULL, 0, &n), NIBL_OK);
    CHECK_EQ(n, 0);
    CHECK_EQ(nibl_tokenizer_decode(t, (const int32_t[]){-1}, 1, true, text, 64, &n), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_tokenizer_decode(t, (const int32_t[]){TOKENS}, 1, true, text, 64, &n), NIBL_E_ARGUMENT);
    free_all(t, gguf);
}

/* Words of a megabyte: in quadratic time they would not come to an end here. */
static void long_words(void) {
    enum { REPEATS = 200000, BYTES = 5 * REPEATS };
    nibl_gguf *gguf;
    nibl_tokenizer *t = new_good(&gguf);
    char *text = malloc(BYTES);
    int32_t *ids = malloc(BYTES * sizeof *ids);
    size_t n, wrong = 0;
    if (!CHECK(text && ids)) return;
    for (size_t i = 0; i < BYTES; i++) text[i] = "hello"[i % 5];
    CHECK_EQ(nibl_tokenizer_encode(t, text, BYTES, 0, ids, BYTES, &n), NIBL_OK);
    CHECK_EQ(n, REPEATS);
    for (size_t i = 0; i < n; i++) wrong += ids[i] != HELLO;
    CHECK_EQ(wrong, 0);
    static const char others[] = {'l', ' ', '<',
                                  '\x80'}; /* all merge; none; begins special tokens; ill-formed */
    static const size_t tokens[] = {BYTES / 2, BYTES, BYTES, 3 * BYTES};
    for (size_t i = 0; i < sizeof others; i++) {
        memset(text, others[i], BYTES);
        nibl_tokenizer_encode(t, text, BYTES, NIBL_TOKENIZE_SPECIAL, ids, BYTES, &n);
        CHECK_EQ(n, tokens[i]);
    }
    free(text);
    free(ids);
    free_all(t, gguf);
}

static vocabulary v; /* what the hostile cases spoil */

static void refuse(nibl_status status, const char *part) {
    nibl_gguf *gguf = header_with(&v);
    uint64_t before = memory_now();
    nibl_tokenizer *t = NULL;
    CHECK_EQ(nibl_tokenizer_new(gguf, &t), status);
    CHECK_HAS(nibl_last_message(), part);
    CHECK(t == NULL && memory_now() == before);
    nibl_tokenizer_plan(gguf);
    nibl_gguf_free(gguf);
    v = good;
}

static void hostile(void) {
    const nibl_status file = NIBL_E_FILE, unsupported = NIBL_E_UNSUPPORTED;
    v = good;
    v.model = NULL, refuse(file, "tokenizer.ggml.model is missing");
    v.model = "bert", refuse(unsupported, "tokenizer.ggml.model 'bert' is not supported; known are 'gpt2'");
    v.model = "llama", refuse(file, "tokenizer.ggml.scores is missing");
    v.pre = NULL, refuse(unsupported, "tokenizer.ggml.pre, which names the pre-tokenizer, is missing");
    v.pre = "default", refuse(unsupported, "tokenizer.ggml.pre 'default' is not a supported pre-tokenizer; "
                                           "known are, by some of their names: llama-bpe, ");
    v.tokens_type = B_ARRAY, refuse(file, "tokenizer.ggml.tokens is missing");
    v.tokens_type = B_U32, refuse(file, "tokenizer.ggml.tokens is not an array of strings");
    v.merges_type = B_ARRAY, refuse(file, "tokenizer.ggml.merges is missing");
    v.merges_type = B_F32, refuse(file, "tokenizer.ggml.merges is not an array of strings");
    v.types_type = B_ARRAY, refuse(file, "tokenizer.ggml.token_type is missing");
    v.types_type = B_I16, refuse(file, "tokenizer.ggml.token_type is not an array of 32-bit integers");
    v.token_count = 0, refuse(file, "tokenizer.ggml.tokens has 0 elements");
    v.type_count = TOKENS - 1,
    refuse(file, "tokenizer.ggml.token_type has 265 elements, tokenizer.ggml.tokens 266");
    v.types[9] = 7, refuse(file, "token 9 has the unknown type 7");
    v.rows = TOKENS - 1, refuse(file, "but token_embd.weight only 265 rows");
    v.tokens[7] = "he", refuse(file, "tokens 7 and 256 are the same");
    v.merges[1] = "ll", refuse(file, "merges: 1 is not two tokens with a space");
    v.merges[1] = "l l o", refuse(file, "merges: 1 is not");
    v.merges[1] = " ll", refuse(file, "merges: 1 is not");
    v.merges[1] = "ll ", refuse(file, "merges: 1 is not");
    v.merges[1] = "", refuse(file, "merges: 1 is not");
    v.merges[1] = "zz l", refuse(file, "merges: 1, 'zz l', needs a token");
    v.merges[1] = "l zz", refuse(file, "needs a token");
    v.merges[1] = "l o", refuse(file, "needs a token");
    v.merges[1] = "h e", refuse(file, "merges: 0 and 1 are the same");
    v.bos = TOKENS, refuse(file, "bos_token_id is 266, but the vocabulary ends at 265");
    v.eos = UINT32_MAX, refuse(file, "eos_token_id is 4294967295");
    v.bos = -1, v.add_bos = 1, refuse(file, "add_bos_token is true, but no bos_token_id");
    char big[258] = "";
    memset(big, 'x', 257);
    v.tokens[CONTROL] = big, refuse(file, "special token 261 has 257 bytes (limit 256)");

    /* Legal: no merges, no ids, an empty token, as many rows as tokens. */
    v.merge_count = 0;
    v.bos = v.eos = -1;
    v.tokens[UNKNOWN] = "";
    v.rows = TOKENS;
    nibl_gguf *gguf = header_with(&v);
    nibl_tokenizer *t = NULL;
    CHECK_EQ(nibl_tokenizer_new(gguf, &t), NIBL_OK);
    CHECK_EQ(nibl_tokenizer_bos(t), -1);
    check_ids(t, "hello", NIBL_TOKENIZE_BOS, IDS('h', 'e', 'l', 'l', 'o'));
    free_all(t, gguf);
}

/* Tokens chosen so that all fall into one slot are refused, not searched for ever. */
static void collisions(void) {
    static char texts[400][8];
    const uint32_t count = 256 + 400;
    v = good;
    v.token_count = v.type_count = count;
    v.merge_count = 0;
    nibl_index index = {.mask = nibl_index_slots(count) - 1};
    for (uint32_t i = 256, number = 0; i < count; number++) {
        char *text = texts[i - 256];
        snprintf(text, 8, "%07u", number);
        if (nibl_index_start(&index, nibl_hash_bytes(NIBL_HASH_SEED, text, 7)).slot != 5) continue;
        v.types[i] = NORMAL;
        v.tokens[i++] = text;
    }
    refuse(NIBL_E_FILE, "collides with too many others");
}

static void no_memory(void) {
    nibl_gguf *gguf = header_with(&good);
    const uint64_t before = memory_now();
    static char text[1000];
    static int32_t ids[1000];
    memset(text, 'l', sizeof text);
    text[0] = (char)0xFF; /* to be repaired, and a long word */
    unsigned refused = 0;
    for (int64_t n = 0;; n++) {
        nibl_tokenizer *t = NULL;
        nibl_decoder *d = NULL;
        size_t count;
        const char *piece;
        nibl_test_fail_alloc(n);
        nibl_status status = nibl_tokenizer_new(gguf, &t);
        if (status == NIBL_OK)
            status = nibl_tokenizer_encode(t, text, sizeof text, 0, ids, sizeof text, &count);
        if (status == NIBL_OK) status = nibl_tokenizer_decoder(t, true, &d);
        if (status == NIBL_OK) status = nibl_decoder_push(d, HELLO, &piece, &count);
        void *probe = nibl_alloc(1); /* the one that fails, once nothing above does */
        nibl_test_fail_alloc(-1);
        if (status != NIBL_OK) CHECK_EQ(status, NIBL_E_MEMORY);
        refused += status == NIBL_E_MEMORY;
        nibl_decoder_free(d);
        nibl_tokenizer_free(t);
        nibl_free(probe);
        CHECK_EQ(memory_now(), before);
        if (!probe) break;
    }
    CHECK_EQ(refused, 11);
    nibl_gguf_free(gguf);
}

int main(void) {
    static const test tests[] = {
        {"ids of the corpus are Hugging Face's: smollm", corpus_smollm},
        {"ids of the corpus are Hugging Face's: gpt-2", corpus_gpt2},
        {"pre-tokenizers cut where their patterns do", words},
        {"ill-formed UTF-8 is replaced as the Unicode Standard recommends", repair},
        {"streamed pieces are whole sequences", streaming},
        {"merges, special tokens, flags, buffers", encoding},
        {"tokens to bytes", decoding},
        {"words of a megabyte", long_words},
        {"hostile metadata is refused by name", hostile},
        {"chosen collisions are refused", collisions},
        {"failing memory", no_memory},
    };
    make_good();
    return test_run(tests, sizeof tests / sizeof *tests);
}
