/* Families of tokenizers: byte-level ones by their pre-tokenizers, SentencePiece's, and those of tokenizer.json. */
#include "core/hf.h"
#include "core/normalize.h"
#include "core/vocabulary.h"
#include "tests/c/corpus.h"

static void free_all(nibl_tokenizer *t, nibl_gguf *gguf) {
    nibl_tokenizer_free(t);
    nibl_gguf_free(gguf);
    CHECK_EQ(memory_now(), 0);
}

/* The tokenizer, and that its plan keeps its word. */
static nibl_tokenizer *new_of(nibl_gguf *gguf) {
    nibl_tokenizer *t = NULL;
    CHECK(peak_of_new(gguf, &t) <= nibl_tokenizer_plan(gguf));
    return t;
}

/* ---- Against the corpus ---- */

static void byte_level(void) {
    static const struct {
        const char *name;
        bool nfc; /* texts come back normalized */
    } pres[] = {{"smollm", false},         {"gpt-2", false},       {"olmo", true},
                {"llama-bpe", false},      {"qwen2", true},        {"qwen35", true},
                {"gpt-4o", false},         {"tekken", false},      {"deepseek-v3", false},
                {"deepseek-coder", false}, {"deepseek-llm", false}};
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        builder file = read_whole(FIXTURE("mixed.gguf")), b = {0};
        const size_t at = (size_t)(find_name(file.bytes, file.length, "tokenizer.ggml.pre") - file.bytes) + 4;
        put(&b, file.bytes, at);
        put_string(&b, pres[i].name);
        put(&b, file.bytes + at + 8 + 6, file.length - at - 8 - 6); /* it was smollm */
        nibl_gguf *gguf = header_of(&b);
        nibl_tokenizer *t = new_of(gguf);
        char path[100];
        snprintf(path, sizeof path, FIXTURE("mixed-%s.ids"), pres[i].name);
        check_corpus(t, (corpus_check){.ids = path, .every = 4, .no_text = pres[i].nfc});
        free(file.bytes);
        free(b.bytes);
        free_all(t, gguf);
    }
}

static void pieces_of(const char *path, corpus_check check) {
    builder b = read_whole(path);
    nibl_gguf *gguf = header_of(&b);
    nibl_tokenizer *t = new_of(gguf);
    check_corpus(t, check);
    free(b.bytes);
    free_all(t, gguf);
}

static void pieces(void) {
    pieces_of(FIXTURE("llama.gguf"), (corpus_check){.ids = FIXTURE("llama.ids"), .plain = true});
    pieces_of(FIXTURE("gemma.gguf"), (corpus_check){.ids = FIXTURE("gemma.ids"), .plain = true});
}

/* The header of a tokenizer.json; NULL where it is refused. */
static nibl_gguf *read_json(const char *text, size_t length) {
    nibl_hf_parsed hf = {0};
    nibl_gguf_builder b = {0};
    nibl_gguf *gguf = NULL;
    nibl_status status = nibl_json_parse("tokenizer.json", text, length, &hf.json[NIBL_HF_TOKENIZER]);
    if (status == NIBL_OK) status = nibl_hf_build_tokenizer(&hf, &b);
    if (status == NIBL_OK)
        CHECK_EQ(nibl_gguf_build_end(&b, &gguf), NIBL_OK);
    else
        nibl_free(b.bytes);
    nibl_json_free(&hf.json[NIBL_HF_TOKENIZER]);
    return gguf;
}

static void json(void) {
    builder b = read_whole(FIXTURE("phi.json"));
    nibl_gguf *gguf = read_json((const char *)b.bytes, b.length);
    if (!CHECK(gguf != NULL)) return;
    nibl_tokenizer *t = new_of(gguf);
    check_corpus(t, (corpus_check){.ids = FIXTURE("phi.ids"), .no_text = true}); /* tokens take blanks */
    free(b.bytes);
    free_all(t, gguf);
}

/* One text in phi.json replaced by another of any length. */
static void check_json(const char *old, const char *by, const char *says) {
    builder file = read_whole(FIXTURE("phi.json")), b = {0};
    put(&file, "", 1);
    char *at = strstr((char *)file.bytes, old);
    if (!CHECK(at != NULL)) return;
    const size_t begin = (size_t)(at - (char *)file.bytes);
    put(&b, file.bytes, begin);
    put(&b, by, strlen(by));
    put(&b, at + strlen(old), file.length - 1 - begin - strlen(old));
    nibl_gguf *gguf = read_json((char *)b.bytes, b.length);
    CHECK((gguf == NULL) == (says != NULL));
    if (says) CHECK_HAS(nibl_last_message(), says);
    nibl_gguf_free(gguf);
    free(file.bytes);
    free(b.bytes);
    CHECK_EQ(memory_now(), 0);
}

static void unknown_json(void) {
    check_json("\"normalizer\":null", "\"normalizer\":null", NULL);
    check_json("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", "a normalizer of type 'NFKC'");
    check_json("\"normalizer\":null", "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"}",
               "type 'Prepend'");
    check_json("\"normalizer\":null", "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\u2581\"}",
               "type 'Metaspace'");
    check_json("\"split\":false", "\"split\":true", "a pre-tokenizer of type 'Metaspace'");
    check_json("\"replacement\":\"\u2581\"", "\"replacement\":\"_\"", "a pre-tokenizer of type 'Metaspace'");
    check_json("\"type\":\"Metaspace\"", "\"type\":\"Whitespace\"", "a pre-tokenizer of type 'Whitespace'");
    check_json("\"type\":\"ByteFallback\"", "\"type\":\"CTC\"", "a decoder of type 'CTC'");
    check_json("\"start\":1", "\"start\":2", "a decoder of type 'Strip'");
    check_json(",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}", "",
               "leaves the space that is put");
    check_json("\"prepend_scheme\":\"first\"", "\"prepend_scheme\":\"never\"", "takes away the space");
    check_json("\"ignore_merges\":false", "\"ignore_merges\":true", "with ignore_merges");
    check_json("\"dropout\":null", "\"dropout\":0.1", "dropped by chance");
    check_json("\"byte_fallback\":true", "\"byte_fallback\":false", "pre-tokenizer of type 'Metaspace'");
    check_json("\"<0x41>\"", "\"<0xZZ>\"", NULL);
    check_json("\"normalized\":false", "\"normalized\":true", "with normalized");
}

/* ---- Normalization form C ---- */

static void normalize(void) {
    static const struct {
        const char *text, *normal; /* NULL: as it is */
    } cases[] = {
        {"", NULL},
        {"plain \u00C5 \u4ECA\u5929 \uD55C \U0001F600", NULL},
        {"A\u030A", "\u00C5"},
        {"\u212B", "\u00C5"}, /* a singleton */
        {"q\u0307\u0323.", "q\u0323\u0307."}, /* marks in the order of their classes */
        {"s\u0307\u0323", "\u1E69"},
        {"\u1E69\u0301", NULL},
        {"\u0958", "\u0915\u093C"}, /* does not compose again */
        {"\u1112\u1161\u11AB", "\uD55C"},
        {"\uD558\u11AB", "\uD55C"},
        {"a\u0300\u0300", "\u00E0\u0300"},
        {"a\u0327\u0300", "\u00E0\u0327"}, /* a mark of a lower class does not block */
        {"a\u0315\u0301", "\u00E1\u0315"},
        {"\u0301a", NULL},
        {"\u0301\u0327a\u0301", "\u0327\u0301\u00E1"},
        {"\U0001D15E", "\U0001D157\U0001D165"},
        {"\u09C7x\u09BE\u09C7\u09BE", "\u09C7x\u09BE\u09CB"}, /* a second part that is no mark */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *wanted = cases[i].normal ? cases[i].normal : cases[i].text;
        char *out;
        size_t length = strlen(cases[i].text);
        CHECK_EQ(nibl_nfc(cases[i].text, length, &out, &length), NIBL_OK);
        if (!CHECK(length == strlen(wanted) && memcmp(out ? out : cases[i].text, wanted, length) == 0))
            printf("    '%s' became '%.*s'\n", cases[i].text, (int)length, out ? out : cases[i].text);
        nibl_free(out);
    }
    /* A run of marks as long as a text, in descending order: in quadratic time it would not come to an end here. */
    enum { MARKS = 300000 };
    char *text = malloc(2 * MARKS), *out;
    size_t length;
    if (!CHECK(text != NULL)) return;
    for (size_t i = 0; i < MARKS; i++) memcpy(text + 2 * i, i < MARKS / 2 ? "\u0301" : "\u0327", 2);
    CHECK_EQ(nibl_nfc(text, 2 * MARKS, &out, &length), NIBL_OK);
    CHECK(out && length == 2 * MARKS && memcmp(out, "\u0327", 2) == 0 &&
          memcmp(out + length - 2, "\u0301", 2) == 0);
    nibl_free(out);
    free(text);
    CHECK_EQ(memory_now(), 0);
}

/* ---- SentencePiece's by hand ---- */

enum { BYTE_A = 3, SPACE, A, SPACE_A, E_ACUTE, E, F, EF, CONTROL, USER, COUNT, ABSENT = -1 };

typedef struct hand {
    const char *architecture;
    const char *scores[2]; /* NULL, or the key of an array of another type */
    float score[COUNT];
    uint32_t types[COUNT];
    int prefix; /* add_space_prefix; ABSENT */
    int rstrip; /* a token in the list; ABSENT */
} hand;

static const char *const texts[COUNT] = {"<unk>",  "<s>", "</s>", "<0x41>", "\u2581", "a",     "\u2581a",
                                         "\u00E9", "e",   "f",    "ef",     "<|x|>",  "<user>"};
static const hand by_hand = {.score = {0, 0, 0, 0, -9, -9, -1, -9, -9, -9, -2},
                             .types = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 3, 4},
                             .prefix = ABSENT,
                             .rstrip = ABSENT};

static nibl_gguf *header_of_hand(const hand *h, uint64_t scores, uint32_t scores_type) {
    builder b = {0};
    put_start(&b, 0, 0);
    uint8_t keys = 5;
    put_key_string(&b, "tokenizer.ggml.model", "llama");
    put_key_array(&b, "tokenizer.ggml.tokens", B_STRING, COUNT);
    for (size_t i = 0; i < COUNT; i++) put_string(&b, texts[i]);
    put_key_array(&b, "tokenizer.ggml.token_type", B_I32, COUNT);
    for (size_t i = 0; i < COUNT; i++) put_int(&b, h->types[i], 4);
    put_key_array(&b, "tokenizer.ggml.scores", scores_type, scores);
    for (size_t i = 0; i < scores; i++) put(&b, &h->score[i], 4);
    put_key_u32(&b, "tokenizer.ggml.unknown_token_id", 0);
    if (h->architecture) put_key_string(&b, "general.architecture", h->architecture), keys++;
    if (h->prefix != ABSENT) {
        put_key(&b, "tokenizer.ggml.add_space_prefix", B_BOOL);
        put_int(&b, (uint64_t)h->prefix, 1);
        keys++;
    }
    if (h->rstrip != ABSENT) {
        put_key_array(&b, NIBL_KEY_LSTRIP, B_I32, 1);
        put_int(&b, USER, 4);
        put_key_array(&b, NIBL_KEY_RSTRIP, B_I32, 2);
        put_int(&b, (uint64_t)h->rstrip, 4);
        put_int(&b, 12345, 4); /* no token */
        keys += 2;
    }
    b.bytes[16] = keys;
    nibl_gguf *gguf = header_of(&b);
    free(b.bytes);
    return gguf;
}

static void check_ids(const nibl_tokenizer *t, const char *text, const int32_t *wanted, size_t count) {
    int32_t ids[40];
    size_t n = 0;
    CHECK_EQ(nibl_tokenizer_encode(t, text, strlen(text), NIBL_TOKENIZE_SPECIAL, ids, 40, &n), NIBL_OK);
    if (CHECK(n == count && memcmp(ids, wanted, n * sizeof *ids) == 0)) return;
    printf("    '%s'\n", text);
    show_ids("tokens", ids, n);
    show_ids("wanted", wanted, count);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void spaces(void) {
    nibl_gguf *gguf = header_of_hand(&by_hand, COUNT, B_F32);
    nibl_tokenizer *t = new_of(gguf);
    CHECK(!nibl_tokenizer_add_bos(t)); /* no bos_token_id is named */
    check_ids(t, "a a", IDS(SPACE_A, SPACE_A));
    check_ids(t, " a", IDS(SPACE, SPACE_A));
    check_ids(t, "<|x|>a<user> <user>", IDS(CONTROL, SPACE_A, USER, SPACE, SPACE, USER));
    check_ids(t, "eff", IDS(SPACE, EF, F));
    check_ids(t, "A\u00E9B\u20ACa\u20AC",
              IDS(SPACE, BYTE_A, E_ACUTE, 0, A, 0)); /* unknown ones in a row are one */
    int32_t more[4];
    size_t count;
    CHECK_EQ(nibl_tokenizer_encode(t, "a a", 3, NIBL_TOKENIZE_CONTINUE, more, 4, &count), NIBL_OK);
    CHECK(count == 2 && more[0] == A && more[1] == SPACE_A);
    const int32_t ids[] = {SPACE_A, SPACE_A, CONTROL, SPACE_A, BYTE_A};
    char text[20];
    size_t n;
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 5, false, text, 20, &n), NIBL_OK);
    CHECK(n == 5 && memcmp(text, "a aaA", 5) == 0); /* the spaces that encoding puts are taken away */
    free_all(t, gguf);

    hand h = by_hand;
    h.prefix = 0;
    h.rstrip = CONTROL;
    gguf = header_of_hand(&h, COUNT, B_F32);
    t = new_of(gguf);
    check_ids(t, "a a", IDS(A, SPACE_A));
    check_ids(t, "a<|x|> \t\n\u3000a", IDS(A, CONTROL, A)); /* takes what is blank behind it */
    check_ids(t, "a \u2003<user> a", IDS(A, USER, SPACE_A)); /* before it */
    check_ids(t, " <user><|x|> ", IDS(USER, CONTROL));
    CHECK_EQ(nibl_tokenizer_decode(t, ids, 5, false, text, 20, &n), NIBL_OK);
    CHECK(n == 7 && memcmp(text, " a a aA", 7) == 0);
    free_all(t, gguf);

    h = by_hand;
    h.architecture = "phi3";
    gguf = header_of_hand(&h, COUNT, B_F32);
    t = new_of(gguf);
    check_ids(t, "<|x|>\n a<s> <unk> </s>\n", IDS(CONTROL, SPACE_A, 1, SPACE, SPACE, 0, SPACE, SPACE, 2));
    free_all(t, gguf);
}

static void refuse(const hand *h, uint64_t scores, uint32_t type, const char *says) {
    nibl_gguf *gguf = header_of_hand(h, scores, type);
    nibl_tokenizer *t = NULL;
    CHECK_EQ(nibl_tokenizer_new(gguf, &t), NIBL_E_FILE);
    CHECK_HAS(nibl_last_message(), says);
    nibl_gguf_free(gguf);
    CHECK_EQ(memory_now(), 0);
}

static void hostile(void) {
    hand h = by_hand;
    refuse(&h, COUNT, B_I32, "scores is not an array of 32-bit floats");
    refuse(&h, COUNT - 1, B_F32, "scores has 12 elements, tokenizer.ggml.tokens 13");
    h.score[A] = (float)strtod("nan", NULL);
    refuse(&h, COUNT, B_F32, "token 5 has no finite score");
    h.score[A] = -(float)strtod("inf", NULL);
    refuse(&h, COUNT, B_F32, "token 5 has no finite score");
    h = by_hand;
    h.types[A] = 6;
    refuse(&h, COUNT, B_F32, "byte token 5 is not of the form <0x00>");
}

/* A megabyte without a break: in quadratic time it would not come to an end here. */
static void long_texts(void) {
    enum { BYTES = 1 << 20 };
    static const char *const units[] = {"a ", "ef", "e", "\u20AC", " "};
    builder b = read_whole(FIXTURE("llama.gguf"));
    nibl_gguf *gguf = header_of(&b);
    nibl_tokenizer *t = new_of(gguf);
    char *text = malloc(BYTES), *back = malloc(BYTES);
    int32_t *ids = malloc((BYTES + 1) * sizeof *ids);
    if (!CHECK(text && back && ids)) return;
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const size_t width = strlen(units[u]), length = BYTES / width * width;
        for (size_t i = 0; i < length; i++) text[i] = units[u][i % width];
        size_t count, n;
        CHECK_EQ(nibl_tokenizer_encode(t, text, length, 0, ids, BYTES + 1, &count), NIBL_OK);
        CHECK_EQ(nibl_tokenizer_decode(t, ids, count, false, back, BYTES, &n), NIBL_OK);
        CHECK(n == length && memcmp(back, text, n) == 0);
    }
    free(text);
    free(back);
    free(ids);
    free(b.bytes);
    free_all(t, gguf);
}

/* Tokens that take blanks among a megabyte of them. */
static void long_blanks(void) {
    enum { BYTES = 1 << 20 };
    hand h = by_hand;
    h.rstrip = USER;
    nibl_gguf *gguf = header_of_hand(&h, COUNT, B_F32);
    nibl_tokenizer *t = new_of(gguf);
    char *text = malloc(BYTES);
    int32_t *ids = malloc(BYTES * sizeof *ids);
    if (!CHECK(text && ids)) return;
    memset(text, ' ', BYTES);
    memcpy(text, "<user>", 6);
    memcpy(text + BYTES - 6, "<user>", 6);
    size_t count;
    CHECK_EQ(nibl_tokenizer_encode(t, text, BYTES, 0, ids, BYTES, &count), NIBL_OK);
    CHECK(count == 2 && ids[0] == USER && ids[1] == USER);
    free(text);
    free(ids);
    free_all(t, gguf);
}

/* Byte tokens come out as whole sequences. */
static void streaming(void) {
    builder b = read_whole(FIXTURE("llama.gguf"));
    nibl_gguf *gguf = header_of(&b);
    nibl_tokenizer *t = new_of(gguf);
    nibl_decoder *d = NULL;
    CHECK_EQ(nibl_tokenizer_decoder(t, false, &d), NIBL_OK);
    const int32_t first = 3; /* <0x00> */
    static const uint8_t bytes[] = {0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 'x', 0xC3};
    static const char *const wanted[] = {"", "", "\u20AC", "", "", "", "\uFFFDx", "", "\uFFFD"};
    for (size_t i = 0; i <= sizeof bytes; i++) {
        const char *piece;
        size_t n;
        CHECK_EQ(nibl_decoder_push(d, i < sizeof bytes ? first + bytes[i] : -1, &piece, &n), NIBL_OK);
        CHECK(n == strlen(wanted[i]) && memcmp(piece, wanted[i], n) == 0);
    }
    nibl_decoder_free(d);
    free(b.bytes);
    free_all(t, gguf);
}

int main(void) {
    static const test tests[] = {
        {"ids of the corpus are Hugging Face's: byte-level", byte_level},
        {"ids of the corpus are SentencePiece's", pieces},
        {"ids of the corpus are Hugging Face's: tokenizer.json", json},
        {"a tokenizer.json that is not known is refused", unknown_json},
        {"normalization form C", normalize},
        {"spaces, unknown characters, tokens that take blanks", spaces},
        {"hostile scores are refused by name", hostile},
        {"texts of a megabyte", long_texts},
        {"tokens that take a megabyte of blanks", long_blanks},
        {"byte tokens come out as whole sequences", streaming},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
