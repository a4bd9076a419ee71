/* Models of several files: the same bits as the one file they were made from, and errors that name what is wrong. */
#include "core/base.h"
#include "tests/c/fixture.h"
#include "tests/c/model_files.h"

#define FIXTURES "tests/fixtures"

static uint64_t hash_of_files(const char *folder, const char *name, load_options options) {
    nibl_model *model;
    const nibl_status status = load_files(folder, name, options, &model);
    if (!CHECK_EQ(status, NIBL_OK)) printf("    %s\n", nibl_last_message());
    return logits_hash(model, 0);
}

#define SPLIT(part) "tiny-split-0000" part "-of-00003.gguf"

static void split_files_are_one_model(void) {
    const uint64_t whole = logits_hash(load_file(FIXTURES "/tiny-llama-f16.gguf"), 0);
    CHECK(whole != 0);
    const load_options ways[] = {
        {.piece = 0}, {.piece = 777}, {.quiet = true}, {.quiet = true, .piece = 4099}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        CHECK(hash_of_files(FIXTURES, SPLIT("1"), ways[i]) == whole);
}

typedef struct wrong {
    spoilt spoilt;
    nibl_status status;
    const char *says;
} wrong;

static void check_wrong(const char *folder, const char *name, const wrong *cases, size_t count) {
    for (size_t i = 0; i < count; i++)
        check_refused(folder, name, (load_options){.spoilt = cases[i].spoilt}, cases[i].status, cases[i].says,
                      i);
}

static void wrong_parts_are_told(void) {
    const wrong cases[] = {
        {{SPLIT("3"), .length = 0}, NIBL_E_TRUNCATED, SPLIT("3") "', part 3 of 3, is missing"},
        {{SPLIT("3"), .length = 100}, NIBL_E_TRUNCATED, SPLIT("3") ": the file ends after 100 bytes"},
        {{SPLIT("2"), .length = 80000}, NIBL_E_TRUNCATED, "the file ends"},
        {{SPLIT("2"), .text = "<html>"}, NIBL_E_FILE, "HTML"},
        {{SPLIT("1"), .replace = "split.count", .with = "split.cxunt"}, NIBL_E_FILE, "missing"},
        {{SPLIT("2"), .replace = "split.count", .with = "split.cxunt"}, NIBL_E_FILE, "of 0: it was renamed"},
        {{SPLIT("2"), .replace = "split.no", .with = "split.xo"},
         NIBL_E_FILE,
         "file 2 of 3 says it is part 1"},
        {{SPLIT("3"), .replace = "split.no", .with = "split.xo"},
         NIBL_E_FILE,
         "file 3 of 3 says it is part 1"},
    };
    check_wrong(FIXTURES, SPLIT("1"), cases, sizeof cases / sizeof *cases);
    const wrong second = {.status = NIBL_E_FILE, .says = "open '" SPLIT("1") "'"};
    check_wrong(FIXTURES, SPLIT("2"), &second, 1);
}

/* Every allocation fails once; nothing is lost, and nothing is left. */
static void check_memory_errors(const char *folder, const char *name, int64_t step) {
    uint64_t before, after;
    nibl_memory(&before, NULL);
    for (int64_t n = 0;; n += step) {
        nibl_model *model;
        nibl_test_fail_alloc(n);
        nibl_status status = load_files(folder, name, (load_options){0}, &model);
        nibl_test_fail_alloc(-1);
        nibl_model_free(model);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
        if (status == NIBL_OK) break;
        if (!CHECK_EQ(status, NIBL_E_MEMORY))
            printf("    allocation %lld: %s\n", (long long)n, nibl_last_message());
    }
}

static void memory_errors_leave_nothing(void) {
    check_memory_errors(FIXTURES, SPLIT("1"), 1);
    check_memory_errors(FIXTURES "/tiny-hf-f16", "config.json", 1);
}

/* ---- Hugging Face folders ---- */

static const char *const types[] = {"f16", "bf16"};

static void folders_are_the_same_model(void) {
    const load_options ways[] = {
        {.piece = 0}, {.piece = 777}, {.piece = 1}, {.quiet = true}, {.quiet = true, .piece = 4099}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[96], folder[96];
        snprintf(path, sizeof path, FIXTURES "/tiny-llama-%s.gguf", types[i]);
        snprintf(folder, sizeof folder, FIXTURES "/tiny-hf-%s", types[i]);
        const uint64_t whole = logits_hash(load_file(path), 0);
        CHECK(whole != 0);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
            CHECK(hash_of_files(folder, "config.json", ways[w]) == whole);
    }
}

/* The logits of `transformers` at every position. */
static void folders_give_the_logits_of_transformers(void) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[96], folder[96];
        fixture f = {0};
        snprintf(path, sizeof path, FIXTURES "/tiny-llama-%s", types[i]);
        snprintf(folder, sizeof folder, FIXTURES "/tiny-hf-%s", types[i]);
        if (open_logits(path, &f) &&
            CHECK_EQ(load_files(folder, "config.json", (load_options){0}, &f.model), NIBL_OK)) {
            const double worst = exact_difference(&f, f.model);
            printf("%s: max abs difference %.2g\n", types[i], worst);
            CHECK(worst < 1e-4);
        }
        close_fixture(&f);
    }
}

static void check_metadata(const nibl_model *a, const nibl_model *b, const char *key) {
    size_t x = 0, y = 0;
    const char *first = nibl_model_metadata(a, key, &x), *second = nibl_model_metadata(b, key, &y);
    CHECK(first && second && x == y && memcmp(first, second, x) == 0);
}

static void folders_have_the_same_tokenizer(void) {
    static const char text[] =
        "<|im_start|>The thing is there: 12345 in return\n\t caf\xc3\xa9 \xe2\x9c\x93 <pad><|im_end|>";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[96], folder[96];
        snprintf(path, sizeof path, FIXTURES "/tiny-llama-%s.gguf", types[i]);
        snprintf(folder, sizeof folder, FIXTURES "/tiny-hf-%s", types[i]);
        nibl_model *a = load_file(path), *b = NULL;
        CHECK_EQ(load_files(folder, "config.json", (load_options){0}, &b), NIBL_OK);
        if (CHECK(a && b)) {
            int32_t x[128], y[128];
            size_t m = 0, n = 0;
            CHECK_EQ(nibl_tokenize(a, text, sizeof text - 1, NIBL_TOKENIZE_SPECIAL, x, 128, &m), NIBL_OK);
            CHECK_EQ(nibl_tokenize(b, text, sizeof text - 1, NIBL_TOKENIZE_SPECIAL, y, 128, &n), NIBL_OK);
            CHECK(m == n && memcmp(x, y, n * sizeof *x) == 0);
            check_metadata(a, b, "tokenizer.chat_template");
            check_metadata(a, b, "tokenizer.ggml.pre");
            nibl_model_info f = {.size = sizeof f}, g = {.size = sizeof g};
            CHECK_EQ(nibl_model_get_info(a, &f), NIBL_OK);
            CHECK_EQ(nibl_model_get_info(b, &g), NIBL_OK);
            CHECK_EQ(g.bos, f.bos);
            CHECK_EQ(g.eos, f.eos);
            CHECK_EQ(g.add_bos, f.add_bos);
            CHECK_EQ(g.parameters, f.parameters);
            CHECK(nibl_is_end_token(b, 2) && nibl_is_end_token(b, 0) && !nibl_is_end_token(b, 1));
        }
        nibl_model_free(a);
        nibl_model_free(b);
    }
}

#define SHARD(part) "model-0000" part "-of-00003.safetensors"
#define INDEX "model.safetensors.index.json"

static void wrong_folders_are_told(void) {
    const wrong cases[] = {
        {{"config.json", .length = 0}, NIBL_E_TRUNCATED, "'config.json' is missing"},
        {{"config.json", .length = 100}, NIBL_E_FILE, "config.json: byte"},
        {{"config.json", .text = "[]"}, NIBL_E_UNSUPPORTED, "model_type"},
        {{"config.json", .text = "<html>"}, NIBL_E_FILE, "config.json: byte 0"},
        {{"config.json", .replace = "\"llama\"", .with = "\"lamma\""}, NIBL_E_UNSUPPORTED, "'lamma'"},
        {{"config.json", .replace = "hidden_size\": 96", .with = "hidden_size\": 66"}, NIBL_E_FILE, "shape"},
        {{"config.json", .replace = "num_hidden_layers\": 2", .with = "num_hidden_layers\": 3"},
         NIBL_E_FILE,
         "'model.layers.2."},
        {{"config.json", .replace = "num_hidden_layers\": 2", .with = "num_hidden_layers\": 1"},
         NIBL_E_UNSUPPORTED,
         "has no place"},
        {{"config.json", .replace = "vocab_size\": 272", .with = "vocab_size\": 300"},
         NIBL_E_FILE,
         "272 rows"},
        {{"config.json", .replace = "\"hidden_size\"", .with = "\"hidden_sizX\""},
         NIBL_E_FILE,
         "hidden_size is missing"},
        {{"config.json", .replace = "tie_word_embeddings\": true", .with = "tie_word_embeddings\": null"},
         NIBL_E_FILE,
         "lm_head.weight"},
        {{"config.json", .replace = "rope_scaling\": null", .with = "rope_scaling\": \"\"  "},
         NIBL_E_UNSUPPORTED,
         "RoPE scaling"},
        {{"config.json", .replace = "\"initializer_range\": 0.02", .with = "\"quantization_config\": {}"},
         NIBL_E_UNSUPPORTED,
         "quantized by"},
        {{"config.json", .replace = "\"silu\"", .with = "\"gelu\""}, NIBL_E_UNSUPPORTED, "hidden_act 'gelu'"},
        {{"tokenizer.json", .length = 0}, NIBL_E_TRUNCATED, "'tokenizer.json' is missing"},
        {{"tokenizer.json", .length = 3000}, NIBL_E_FILE, "tokenizer.json: byte 3000"},
        {{"tokenizer.json", .text = "{}"}, NIBL_E_UNSUPPORTED, "no pre-tokenizer"},
        {{"tokenizer.json", .replace = "\"Digits\"", .with = "\"Metasp\""}, NIBL_E_UNSUPPORTED, "'Metasp'"},
        {{"tokenizer.json", .replace = "\"BPE\"", .with = "\"UNI\""}, NIBL_E_UNSUPPORTED, "'UNI'"},
        {{"tokenizer.json", .replace = "\"id\": 1,", .with = "\"id\": 2,"}, NIBL_E_FILE, "same id 2"},
        {{"tokenizer.json", .replace = "\"single_word\": false", .with = "\"single_word\":  true"},
         NIBL_E_UNSUPPORTED,
         "single_word"},
        {{INDEX, .text = "{\"weight_map\": {\"a\": \"../" SHARD("1") "\"}}"},
         NIBL_E_FILE,
         "no .safetensors file"},
        {{INDEX, .text = "{\"weight_map\": {}}"}, NIBL_E_FILE, "no weight_map"},
        {{INDEX, .text = "{\"weight_map\": {\"a\": \"b.safetensors\"}}"},
         NIBL_E_TRUNCATED,
         "'b.safetensors' is missing"},
        {{INDEX, .length = 0}, NIBL_E_TRUNCATED, "'model.safetensors' is missing"},
        {{INDEX, .text = "{\"weight_map\": {\"a\": \"" SHARD("1") "\", \"b\": \"" SHARD("2") "\"}}"},
         NIBL_E_FILE,
         "is in no file"},
        {{SHARD("2"), .length = 0}, NIBL_E_TRUNCATED, "'" SHARD("2") "' is missing"},
        {{SHARD("2"), .length = 5}, NIBL_E_TRUNCATED, "within its header"},
        {{SHARD("2"), .length = 300}, NIBL_E_TRUNCATED, "within its header"},
        {{SHARD("2"), .length = 90000}, NIBL_E_TRUNCATED, SHARD("2") ": the file ends after 90000 bytes"},
        {{SHARD("2"), .text = "version https://git-lfs"}, NIBL_E_FILE, "not a safetensors file"},
        {{SHARD("3"), .replace = "\"F16\"", .with = "\"I16\""}, NIBL_E_UNSUPPORTED, "type I16"},
        {{SHARD("3"), .replace = "\"F16\"", .with = "\"F32\""}, NIBL_E_FILE, "another number"},
        {{SHARD("3"), .replace = "data_offsets\":[0", .with = "data_offsets\":[2"},
         NIBL_E_FILE,
         "another number"},
        {{SHARD("3"), .replace = "layers.1.", .with = "layers.0."}, NIBL_E_FILE, "stands twice"},
    };
    check_wrong(FIXTURES "/tiny-hf-f16", "config.json", cases, sizeof cases / sizeof *cases);
}

/* ---- Quantized on arrival ---- */

static void quantized_on_arrival_is_quantized_first(void) {
    const uint64_t first = logits_hash(load_file(FIXTURES "/tiny-llama-f16-as-q4_0.gguf"), 0);
    CHECK(first != 0);
    const load_options ways[] = {{.quantize = "q4_0"}, {.quantize = "Q4_0", .piece = 777}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        CHECK(hash_of_files(FIXTURES "/tiny-hf-f16", "config.json", ways[i]) == first);
        CHECK(hash_of_files(FIXTURES, SPLIT("1"), ways[i]) == first);
        CHECK(hash_of_files(FIXTURES, "tiny-llama-f16-as-q4_0.gguf", ways[i]) == first); /* stays as it is */
    }
    nibl_model *model;
    CHECK_EQ(load_files(FIXTURES, SPLIT("1"), (load_options){.quantize = "q9_0"}, &model), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "possible are: f32, f16, q4_0, ");
}

int main(void) {
    static const test tests[] = {
        {"a split GGUF file gives the bits of the whole one", split_files_are_one_model},
        {"missing, cut and foreign parts are told", wrong_parts_are_told},
        {"a Hugging Face folder gives the bits of the GGUF file", folders_are_the_same_model},
        {"and the logits of transformers", folders_give_the_logits_of_transformers},
        {"and the same tokens, template and special tokens", folders_have_the_same_tokenizer},
        {"quantized on arrival, a model has the bits of one quantized first",
         quantized_on_arrival_is_quantized_first},
        {"folders that contradict themselves are told", wrong_folders_are_told},
        {"an allocation that fails leaves nothing", memory_errors_leave_nothing},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
