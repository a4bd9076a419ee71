/* Every architecture against `transformers`, from GGUF and from a Hugging Face folder, on tiny random models: at every
 * position, whole, in chunks and token by token; past the window and past the original length of RoPE scaling. */
#include "core/base.h"
#include "tests/c/fixture.h"
#include "tests/c/model_files.h"

static const char *const names[] = {
    "llama-linear", "llama-yarn", "llama-llama3",  "mistral",       "qwen2",   "qwen3",      "qwen3moe",
    "gemma2",       "gemma3",     "phi3",          "smollm3",       "olmo2",   "granite",    "gpt2",
    "bitnet",       "lfm2",       "gpt-oss-mxfp4", "phi3-longrope", "gpt-oss", "gemma3-sees"};
enum { FOLDERS = sizeof names / sizeof *names, FILES = FOLDERS - 1 /* a model that sees is a folder */ };

static const nibl_session_options ways[] = {
    {0}, {.chunk = 7, .threads = 2}, {.chunk = 33}, {.chunk = 1, .threads = 3}, {.chunk = 1}};
enum { WAYS = sizeof ways / sizeof *ways };

static const double bar = 2e-3;

/* One result in all ways, and that of transformers. */
static void check_exact(const char *name, const char *source, const fixture *f) {
    float *whole = NULL;
    for (size_t w = 0; w < WAYS; w++) {
        nibl_session_options o = ways[w];
        o.activations = NIBL_ACT_F32;
        o.kv_type = NIBL_KV_F32;
        float *logits = all_logits(f->model, o, f->ids, f->tokens);
        if (w == 0) {
            whole = logits;
            const double worst = worst_difference(f, logits);
            printf("%s, %s: max abs difference %.2g over %u positions\n", name, source, worst, f->tokens);
            CHECK(worst <= bar);
            continue;
        }
        if (!CHECK(memcmp(whole, logits, (size_t)f->tokens * f->vocabulary * sizeof *logits) == 0))
            printf("    %s, %s: way %zu differs\n", name, source, w);
        free(logits);
    }
    free(whole);
}

static void gguf_gives_the_logits_of_transformers(void) {
    for (size_t i = 0; i < FILES; i++) {
        char path[96];
        fixture f = {0};
        snprintf(path, sizeof path, "tests/fixtures/arch/%s", names[i]);
        if (open_fixture(path, &f)) check_exact(names[i], "GGUF", &f);
        close_fixture(&f);
    }
}

static nibl_model *load_folder(const char *name, const char *quantize) {
    char path[96];
    nibl_model *model = NULL;
    snprintf(path, sizeof path, "tests/fixtures/arch/%s", name);
    if (!CHECK_EQ(
            load_files(path, "config.json", (load_options){.quantize = quantize, .piece = 1000}, &model),
            NIBL_OK))
        printf("    %s: %s\n", name, nibl_last_message());
    return model;
}

static void folders_give_the_logits_of_transformers(void) {
    for (size_t i = 0; i < FOLDERS; i++) {
        char path[96];
        fixture f = {0};
        snprintf(path, sizeof path, "tests/fixtures/arch/%s", names[i]);
        f.model = load_folder(names[i], NULL);
        if (open_logits(path, &f) && f.model) check_exact(names[i], "folder", &f);
        close_fixture(&f);
    }
}

/* The file beside a folder, quantized on arrival too: its rows are those of matrices, whatever the folder's are. */
static void check_file_agrees(const char *name, const fixture *f, const float *expected) {
    char file[64];
    nibl_model *model = NULL;
    snprintf(file, sizeof file, "%s.gguf", name);
    CHECK_EQ(load_files("tests/fixtures/arch", file, (load_options){.quantize = "q4_0"}, &model), NIBL_OK);
    if (!model) return;
    float *logits = all_logits(model, ways[0], f->ids, f->tokens);
    if (!CHECK(memcmp(logits, expected, (size_t)f->tokens * f->vocabulary * sizeof *logits) == 0))
        printf("    %s: the file differs\n", name);
    free(logits);
    nibl_model_free(model);
}

/* With int8 activations and an int8 cache, and with what of the weights can be in 4 bits. */
static void the_fast_path_has_one_result(void) {
    for (size_t i = 0; i < FOLDERS; i++) {
        char path[96];
        fixture f = {0};
        snprintf(path, sizeof path, "tests/fixtures/arch/%s", names[i]);
        f.model = load_folder(names[i], "q4_0");
        if (open_logits(path, &f) && f.model) {
            float *whole = all_logits(f.model, ways[0], f.ids, f.tokens);
            for (size_t w = 1; w < WAYS; w++) {
                float *logits = all_logits(f.model, ways[w], f.ids, f.tokens);
                if (!CHECK(memcmp(whole, logits, (size_t)f.tokens * f.vocabulary * sizeof *logits) == 0))
                    printf("    %s: way %zu differs\n", names[i], w);
                free(logits);
            }
            /* GGUF's numbers of a RoPE scaling have fewer digits */
            const bool same_rope = !strstr(names[i], "llama-") && !strstr(names[i], "longrope");
            if (i < FILES && same_rope) check_file_agrees(names[i], &f, whole);
            free(whole);
        }
        close_fixture(&f);
    }
}

int main(void) {
    static const test tests[] = {
        {"GGUF files give the logits of transformers", gguf_gives_the_logits_of_transformers},
        {"Hugging Face folders give them", folders_give_the_logits_of_transformers},
        {"the fast path has one result, chunks and threads do not matter", the_fast_path_has_one_result},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
