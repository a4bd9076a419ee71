/* Grammars and JSON Schemas against texts that are known to belong to them or not; masks against the tokens one by one; and
 * answers of random logits, which must be whole within any number of tokens. */
#include "core/matcher.h"
#include "core/model.h"
#include "tests/c/model_file.h"

#include <math.h>

static nibl_model *model;
static nibl_token_trie *trie;

static bool open_model(void) {
    if (!model) model = load_file("tests/fixtures/tiny-llama-f32.gguf");
    return CHECK(model != NULL) && (trie || CHECK_EQ(nibl_token_trie_new(model->tokenizer, &trie), NIBL_OK));
}

static nibl_status make(bool schema, const char *source, nibl_matcher **out) {
    nibl_rules rules = {0};
    (schema ? nibl_grammar_read_schema : nibl_grammar_read)(&rules, source, strlen(source));
    return nibl_matcher_new(&rules, trie, out);
}

static bool accepts(nibl_matcher *m, const char *text) {
    return nibl_matcher_start(m, 1u << 20) == NIBL_OK &&
           nibl_matcher_accept(m, text, strlen(text)) == NIBL_OK && nibl_matcher_complete(m);
}

typedef struct trial {
    const char *source, *good[6], *bad[8];
} trial;

static void try_all(bool schema, const trial *trials, size_t count) {
    if (!open_model()) return;
    for (size_t i = 0; i < count; i++) {
        nibl_matcher *m = NULL;
        if (!CHECK_EQ(make(schema, trials[i].source, &m), NIBL_OK)) {
            printf("    %s: %s\n", trials[i].source, nibl_last_message());
            continue;
        }
        for (size_t k = 0; k < 6 && trials[i].good[k]; k++)
            if (!CHECK(accepts(m, trials[i].good[k])))
                printf("    %s: '%s'\n", trials[i].source, trials[i].good[k]);
        for (size_t k = 0; k < 8 && trials[i].bad[k]; k++)
            if (!CHECK(!accepts(m, trials[i].bad[k])))
                printf("    %s: '%s'\n", trials[i].source, trials[i].bad[k]);
        nibl_matcher_free(m);
    }
}

static const trial grammars[] = {
    {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "ye", "yesno", "n", "maybe"}},
    {"root ::= [a-c]+ \"x\"?", {"a", "abcx", "ccc"}, {"", "x", "ax1", "axx", "d"}},
    {"root ::= (\"a\" | \"bc\"){2,3}", {"aa", "abc", "bcbcbc"}, {"a", "aaaa", "ab"}},
    {"root ::= x*\nx ::= \"(\" x* \")\"\n", {"", "()", "(())()"}, {"(", "())", ")("}},
    {"# a comment\nroot ::= a\n  | b # more\na ::= \"\\x41\"\nb ::= \"\\n\"", {"A", "\n"}, {"B", "a"}},
    {"root ::= [^a-z\\n]{2}",
     {"AB", "\xC3\xA4!", "\xE2\x82\xAC\xF0\x9F\x98\x80"},
     {"aB", "A", "A\n", "\xC3(", "\xED\xA0\x80x"}},
    {"root ::= . \"\xC3\xA4\"", {"x\xC3\xA4"}, {"\xC3\xA4", "xa"}},
    {"root ::= (\"a\"*)* \"b\"", {"b", "aaab"}, {"a", "ba"}},
    {"root ::= \"a\"{3}", {"aaa"}, {"aa", "aaaa"}},
    {"root ::= \"a\"{,2} \"b\"{2,}", {"bb", "aabbb"}, {"aaabb", "ab"}},
    {"root ::= [\\u00e4-\\u00f6]", {"\xC3\xA5"}, {"a", "\xC3\xB7"}},
};
static void gbnf(void) { try_all(false, grammars, sizeof grammars / sizeof *grammars); }

static const trial schemas[] = {
    {"{\"type\":\"null\"}", {"null"}, {"", "nul", "true"}},
    {"{\"type\":[\"boolean\",\"null\"]}", {"true", "false", "null"}, {"0"}},
    {"true", {"{\"a\": [1, {}]}", "[]", "\"x\"", "-1.5"}, {"{", "{\"a\":}", "[1,]", "01", "'x'"}},
    {"{\"type\":\"integer\"}", {"0", "-7", "120"}, {"01", "1.0", "+1", "", "1e3"}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}",
     {"-12", "105", "99", "0", "-1", "100"},
     {"-13", "106", "110", "1000", "00"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":5,\"exclusiveMaximum\":8}", {"6", "7"}, {"5", "8", "-6"}},
    {"{\"type\":\"integer\",\"minimum\":1995}", {"1995", "2024", "10000"}, {"1994", "5", "-2000"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "1", "0.5", "0.25"},
     {"1.5", "-0.5", "2", "-1"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-2,\"maximum\":-1}",
     {"-1", "-1.5"},
     {"-2", "-0.5", "-2.5", "1"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"a\xC3\xA4\xE2\x82\xAC\"", "\"\\n\\\"\""},
     {"\"a\"", "\"abcd\"", "\"a\nb\"", "ab"}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-f]{2}-\\\\d+$\"}",
     {"\"ab-1\"", "\"ff-123\""},
     {"\"ab-\"", "\"ag-1\"", "\"xab-1\"", "\"ab-1x\""}},
    {"{\"type\":\"string\",\"pattern\":\"b+\"}", {"\"b\"", "\"abbc\""}, {"\"ac\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(a|\\\"|\\\\\\\\)$\"}",
     {"\"a\"", "\"\\\"\"", "\"\\\\\""},
     {"\"b\"", "\"aa\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-28\""},
     {"\"2024-02-30\"", "\"2024-13-01\"", "\"24-01-01\""}},
    {"{\"enum\":[1,\"a\",{\"b\": [null, 2]}]}", {"1", "\"a\"", "{\"b\":[null,2]}"}, {"2", "a", "{}"}},
    {"{\"type\":\"string\",\"enum\":[1,\"a\"]}", {"\"a\""}, {"1"}},
    {"{\"const\":\"x\"}", {"\"x\""}, {"x", "\"y\""}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     {"[1]", "[1,2, 3]"},
     {"[]", "[1,2,3,4]", "[1,]", "[\"a\"]"}},
    {"{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3}}",
     {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
     {"[2]", "[1,3]", "[1,2,4]"}},
    {"{\"prefixItems\":[{\"const\":1}],\"items\":false,\"minItems\":1}", {"[1]"}, {"[]", "[1,1]"}},
    {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     {"{\"b\":null}", "{\"a\":1,\"b\":null}", "{\"a\": 1, \"b\": null}"},
     {"{}", "{\"a\":1}", "{\"b\":null,\"a\":1}", "{,\"b\":null}", "{\"b\":null,}", "{\"c\":1,\"b\":null}"}},
    {"{\"properties\":{\"ab\":{\"const\":1},\"ac\":{\"const\":2}},\"additionalProperties\":{\"const\":0}}",
     {"{}", "{\"ab\":1,\"x\":0}", "{\"a\":0,\"abc\":0}", "{\"ac\":2}"},
     {"{\"ab\":0}", "{\"x\":1}", "{\"\\u0061b\":0}", "{\"ac\":2,\"ab\":0}", "{\"x\":0,}"}},
    {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"required\":[\"n\"]}", {"{\"n\":1}", "{\"n\":[]}"}, {"{}", "{\"m\":1}"}},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"integer\"}]}", {"null", "3"}, {"true"}},
    {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":[\"k\"],\"type\":\"object\"},{"
     "\"properties\":{\"k\":{\"const\":\"b\"}},\"required\":[\"k\"],\"type\":\"object\"}]}",
     {"{\"k\":\"a\"}", "{\"k\":\"b\"}"},
     {"{\"k\":\"c\"}", "{}"}},
    {"{\"$ref\":\"#/$defs/t~1x\",\"$defs\":{\"t/"
     "x\":{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]}},"
     "\"required\":[\"next\"]}}}",
     {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
     {"{}", "{\"next\":1}"}},
    {"{\"allOf\":[{\"type\":\"null\"}],\"title\":\"x\"}", {"null"}, {"1"}},
    {"{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]},{\"properties\":{"
     "\"a\":{\"minimum\":3},\"b\":{\"const\":1}}}]}",
     {"{\"a\":3}", "{\"a\":7,\"b\":1}"},
     {"{}", "{\"a\":2}", "{\"b\":1}", "{\"a\":3,\"b\":2}", "{\"a\":\"x\"}", "{\"a\":3,\"c\":1}"}},
    {"{\"$ref\":\"#/$defs/s\",\"minLength\":2,\"$defs\":{\"s\":{\"type\":\"string\",\"maxLength\":3}}}",
     {"\"ab\"", "\"abc\""},
     {"\"a\"", "\"abcd\"", "12"}},
    {"{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"],\"anyOf\":[{"
     "\"properties\":{\"k\":{\"const\":\"x\"}},\"required\":[\"k\"]},{\"properties\":{\"n\":{\"minimum\":8}}}"
     "]}",
     {"{\"n\":1,\"k\":\"x\"}", "{\"n\":9}"},
     {"{\"n\":1}", "{\"n\":1,\"k\":\"y\"}", "{\"k\":\"x\"}"}},
    {"{\"type\":[\"integer\",\"string\"],\"anyOf\":[{\"type\":\"integer\",\"maximum\":4,\"minimum\":3},{"
     "\"type\":\"null\"}]}",
     {"3", "4"},
     {"null", "5", "\"a\""}},
    {"{\"enum\":[1,\"abc\",7,null],\"allOf\":[{\"type\":[\"integer\",\"string\"]},{\"minimum\":5},{"
     "\"maxLength\":3}]}",
     {"7", "\"abc\""},
     {"1", "null"}},
    {"{\"enum\":[\"ab\",\"abc\"],\"minLength\":3}", {"\"abc\""}, {"\"ab\""}},
    {"{\"contains\":{\"const\":5},\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
     {"[5,1]", "[5,5,2]"},
     {"[1,2]", "[5]", "[5,1,2,3]", "[]"}},
    {"{\"prefixItems\":[{\"const\":1}],\"contains\":{\"const\":2},\"minContains\":2}",
     {"[1,2,2]"},
     {"[1]", "[1,2]", "[2,2]"}},
    {"{\"contains\":{\"const\":2},\"minContains\":0,\"maxItems\":1}", {"[]", "[2]", "[3]"}, {"[1,2]"}},
    {"{\"allOf\":[{\"prefixItems\":[{\"type\":\"integer\"}]},{\"items\":{\"const\":3}}],\"minItems\":2}",
     {"[3,3]"},
     {"[4,3]", "[3,4]", "[3]"}},
    {"{\"patternProperties\":{\"^a+$\":{\"type\":\"integer\"}},\"additionalProperties\":false}",
     {"{}", "{\"a\":1,\"aa\": 2}"},
     {"{\"b\":1}", "{\"a\":\"x\"}"}},
    {"{\"propertyNames\":{\"maxLength\":2,\"minLength\":1},\"additionalProperties\":{\"type\":\"null\"}}",
     {"{}", "{\"ab\":null}"},
     {"{\"abc\":null}", "{\"\":null}", "{\"a\":1}"}},
    {"{\"properties\":{\"a\":{\"const\":1},\"long\":{\"const\":2}},\"propertyNames\":{\"maxLength\":3}}",
     {"{}", "{\"a\":1}"},
     {"{\"long\":2}"}},
    {"{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{\"const\":3}},\"required\":[\"c\"],"
     "\"minProperties\":2,\"maxProperties\":2}",
     {"{\"a\":1,\"c\":3}"},
     {"{\"c\":3}", "{\"a\":1,\"b\":2,\"c\":3}"}},
    {"{\"additionalProperties\":{\"type\":\"null\"},\"minProperties\":1,\"maxProperties\":2}",
     {"{\"x\":null}", "{\"x\":null,\"y\":null}"},
     {"{}", "{\"x\":null,\"y\":null,\"z\":null}"}},
    {"{\"properties\":{\"a\":{\"const\":1}},\"allOf\":[{\"properties\":{\"b\":{\"const\":2}}}],"
     "\"unevaluatedProperties\":false}",
     {"{}", "{\"a\":1,\"b\":2}"},
     {"{\"c\":1}", "{\"b\":3}"}},
    {"{\"properties\":{\"a\":{\"const\":1}},\"unevaluatedProperties\":{\"type\":\"null\"}}",
     {"{\"a\":1,\"b\":null}"},
     {"{\"b\":1}"}},
    {"{\"properties\":{\"a\":false,\"b\":{\"const\":1}}}", {"{\"b\":1}", "{}"}, {"{\"a\":1}"}},
};
static void json_schema(void) { try_all(true, schemas, sizeof schemas / sizeof *schemas); }

static void refusals(void) {
    static const struct {
        bool schema;
        const char *source, *message;
    } list[] = {
        {true, "{\"properties\":{\"a\":{\"not\":{}}}}", "#/properties/a/not: this keyword is not supported"},
        {true, "{\"type\":\"array\",\"uniqueItems\":true}", "#/uniqueItems"},
        {true, "{\"type\":\"strin\"}", "#/type: there is no such type"},
        {true, "{\"items\":{\"format\":\"uri\"}}", "#/items/format: this format"},
        {true, "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "#/oneOf/1"},
        {true, "{\"$ref\":\"#/nowhere\"}", "#/$ref"},
        {true, "{\"$ref\":\"https://elsewhere/x\"}", "#/$ref"},
        {true, "{\"$ref\":\"#\"}", "#: it refers to itself"},
        {true, "{\"allOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]}", "#: it refers to itself"},
        {true, "{\"allOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}", "no text that ends"},
        {true, "{\"allOf\":[]}", "#/allOf: it must be a list"},
        {true, "{\"enum\":[\"a\"],\"pattern\":\"a\"}", "#/enum/0: whether this value is valid"},
        {true, "{\"minProperties\":2}", "only where they are named"},
        {true, "{\"properties\":{\"ab\":{}},\"required\":[\"ab\"],\"propertyNames\":{\"maxLength\":1}}",
         "required, and not"},
        {true, "{\"properties\":{\"ab\":{}},\"propertyNames\":{\"pattern\":\"a\"}}",
         "whether 'propertyNames'"},
        {true, "{\"allOf\":[{\"properties\":{\"a\":{}}},{\"unevaluatedProperties\":false}]}",
         "unevaluatedProperties"},
        {true, "{\"patternProperties\":{\"a\":{},\"b\":{}}}", "one pattern alone"},
        {true, "{\"properties\":{\"a\":{}},\"patternProperties\":{\"a\":{}}}", "beside other rules"},
        {true, "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no text that ends"},
        {true, "{\"type\":\"string\",\"pattern\":\"(?=a)b\"}", "pattern, byte 2"},
        {true, "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no number in this range"},
        {true, "{\"minLength\":3,\"maxLength\":2}", "less than minLength"},
        {true, "{\"type\":\"integer\",\"multipleOf\":3}", "#/multipleOf"},
        {true, "{\"type\":", "byte 8"},
        {true, "false", "#: false allows no value"},
        {true, "{\"minItems\":1,\"maxItems\":0}", "none fit"},
        {true, "{\"required\":[\"a\"],\"additionalProperties\":false}", "#/required/0"},
        {false, "", "no rule 'root'"},
        {false, "root ::= x", "no rule 'x'"},
        {false, "root ::= \"a", "character is missing"},
        {false, "root ::= [b-a]", "ends before it begins"},
        {false, "root ::= (\"a\"", "')' is missing"},
        {false, "root ::= root \"a\"", "no text that ends"},
        {false, "root ::= root \"a\" | \"b\"", "left-recursive"},
        {false, "root ::= \"a\"\nroot ::= \"b\"", "there already"},
        {false, "root ::= \"a\"{3,2}", "repetition must be"},
        {false, "root ::= (\"a\"?){0,1000}", "may be empty"},
    };
    if (!open_model()) return;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        nibl_matcher *m = NULL;
        if (!CHECK_EQ(make(list[i].schema, list[i].source, &m), NIBL_E_GRAMMAR))
            printf("    %s\n", list[i].source);
        CHECK_HAS(nibl_last_message(), list[i].message);
        nibl_matcher_free(m);
    }
}

static uint32_t random_state;
static uint32_t next_random(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static size_t token_bytes(uint32_t token, char *out) {
    return nibl_tokenizer_bytes(model->tokenizer, token, out, 256);
}

/* Writes a text by random logits; returns whether it was whole within the tokens. `check`: every mask against the tokens. */
static bool write_one(nibl_matcher *m, nibl_matcher *other, uint32_t tokens, bool check) {
    enum { MOST = 2048 };
    static float logits[MOST];
    char text[1 << 16];
    size_t length = 0;
    const uint32_t vocabulary = trie->tokens;
    const int32_t *ends = nibl_tokenizer_ends(model->tokenizer);
    for (uint32_t left = tokens; left > 0; left--) {
        for (uint32_t i = 0; i < vocabulary; i++) logits[i] = (float)(next_random() % 10000);
        if (!CHECK_EQ(nibl_matcher_apply(m, logits, vocabulary, ends, NIBL_END_TOKENS), NIBL_OK))
            return false;
        uint32_t best = 0;
        for (uint32_t i = 1; i < vocabulary; i++)
            if (logits[i] > logits[best]) best = i;
        if (!CHECK(logits[best] > -INFINITY)) return false;
        for (uint32_t i = 0; check && i < vocabulary; i++) {
            char bytes[256];
            const size_t n = token_bytes(i, bytes);
            CHECK_EQ(nibl_matcher_start(other, 1u << 20), NIBL_OK);
            CHECK_EQ(nibl_matcher_accept(other, text, length), NIBL_OK);
            const bool end = nibl_tokenizer_is_end(model->tokenizer, (int32_t)i);
            const bool ok =
                end ? nibl_matcher_complete(other) : n > 0 && nibl_matcher_accept(other, bytes, n) == NIBL_OK;
            CHECK(logits[i] == -INFINITY || ok); /* fewer, where tokens run short */
            CHECK(!ok || logits[i] > -INFINITY || left < 64);
        }
        if (nibl_tokenizer_is_end(model->tokenizer, (int32_t)best)) break;
        char bytes[256];
        const size_t n = token_bytes(best, bytes);
        if (!CHECK_EQ(nibl_matcher_accept(m, bytes, n), NIBL_OK)) return false;
        memcpy(text + length, bytes, n);
        length += n;
        if (nibl_matcher_done(m)) break;
    }
    return CHECK(nibl_matcher_complete(m));
}

static void masks_and_budgets(void) {
    if (!open_model()) return;
    const size_t count = sizeof schemas / sizeof *schemas, all = count + sizeof grammars / sizeof *grammars;
    for (size_t i = 0; i < all; i++) {
        const bool schema = i < count;
        const char *source = schema ? schemas[i].source : grammars[i - count].source;
        nibl_matcher *m = NULL, *other = NULL;
        if (!CHECK_EQ(make(schema, source, &m), NIBL_OK) || !CHECK_EQ(make(schema, source, &other), NIBL_OK))
            return;
        random_state = (uint32_t)i;
        uint32_t fewest = 1;
        while (nibl_matcher_start(m, fewest) == NIBL_E_GRAMMAR && fewest < 200) fewest++;
        for (uint32_t more = 0; more < 40; more++) {
            if (!CHECK_EQ(nibl_matcher_start(m, fewest + more), NIBL_OK)) break;
            if (!write_one(m, other, fewest + more, more % 20 == 7))
                printf("    %s, %u tokens\n", source, fewest + more);
        }
        nibl_matcher_free(m);
        nibl_matcher_free(other);
    }
}

static void long_texts_are_forgotten(void) {
    if (!open_model()) return;
    nibl_matcher *m = NULL;
    if (!CHECK_EQ(make(false, "root ::= (\"[\" root \"]\"){0,3} | [a-z]{0,100000}", &m), NIBL_OK)) return;
    random_state = 7;
    for (int round = 0; round < 3; round++) {
        CHECK_EQ(nibl_matcher_start(m, 3000), NIBL_OK);
        if (!write_one(m, NULL, 3000, false)) break;
    }
    nibl_matcher_free(m);
}

static void without_memory(void) {
    if (!open_model()) return;
    const char *source = schemas[20].source;
    uint64_t before, after;
    nibl_memory(&before, NULL);
    for (int n = 0;; n++) {
        nibl_matcher *m = NULL;
        nibl_test_fail_alloc(n);
        nibl_status status = make(true, source, &m);
        if (status == NIBL_OK) status = nibl_matcher_start(m, 20);
        static float logits[2048];
        if (status == NIBL_OK)
            status = nibl_matcher_apply(m, logits, trie->tokens, nibl_tokenizer_ends(model->tokenizer),
                                        NIBL_END_TOKENS);
        nibl_test_fail_alloc(-1);
        nibl_matcher_free(m);
        if (status == NIBL_OK) break;
        if (!CHECK_EQ(status, NIBL_E_MEMORY) || !CHECK(n < 1000)) break;
    }
    nibl_memory(&after, NULL);
    CHECK_EQ(after, before);
}

/* Through the public calls: the same seed writes the same text, whole within its tokens. */
static void sampled(void) {
    if (!open_model()) return;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"n\":{"
                                 "\"type\":\"integer\"}},\"required\":[\"a\",\"n\"]}";
    nibl_grammar *g = NULL;
    nibl_session *session = NULL;
    CHECK_EQ(nibl_grammar_new(model, 7, schema, strlen(schema), &g), NIBL_E_ARGUMENT);
    if (!CHECK_EQ(nibl_grammar_new(model, NIBL_GRAMMAR_JSON_SCHEMA, schema, strlen(schema), &g), NIBL_OK) ||
        !CHECK_EQ(nibl_session_new(model, NULL, &session), NIBL_OK))
        return;
    const nibl_sampler_options o = {.size = sizeof o, .temperature = 2, .seed = 3};
    nibl_sampler *s = NULL;
    int32_t texts[2][40];
    for (int round = 0; round < 2; round++) {
        if (!CHECK_EQ(nibl_sampler_new(model, &o, &s), NIBL_OK)) return;
        CHECK(!nibl_sampler_done(s));
        CHECK_EQ(nibl_sampler_constrain(s, g, 2), NIBL_E_GRAMMAR);
        CHECK_HAS(nibl_last_message(), "2 are allowed");
        CHECK_EQ(nibl_sampler_constrain(s, g, 40), NIBL_OK);
        CHECK_EQ(nibl_session_set_tokens(session, &(int32_t){5}, 1, NULL), NIBL_OK);
        int count = 0;
        while (!nibl_sampler_done(s)) {
            int32_t *token = &texts[round][count];
            if (!CHECK(count < 40) || !CHECK_EQ(nibl_step(&session, 1, 0), NIBL_OK)) break;
            if (!CHECK_EQ(nibl_sample(s, session, token, NULL), NIBL_OK)) break;
            CHECK(!nibl_is_end_token(model, *token));
            CHECK_EQ(nibl_session_append(session, token, 1), NIBL_OK);
            CHECK_EQ(texts[round][count], texts[0][count]);
            count++;
        }
        nibl_sampler_free(s);
    }
    nibl_session_free(session);
    nibl_grammar_free(g);
}

static const test tests[] = {
    {"GBNF", gbnf},
    {"JSON Schema", json_schema},
    {"what is not supported is named", refusals},
    {"masks and budgets", masks_and_budgets},
    {"long texts", long_texts_are_forgotten},
    {"without memory", without_memory},
    {"sampled", sampled},
};

int main(void) {
    const int failed = test_run(tests, sizeof tests / sizeof *tests);
    nibl_token_trie_free(trie);
    nibl_model_free(model);
    return failed;
}
