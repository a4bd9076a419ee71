/* Models of several files: the same bits as the one file they were made from, and errors that name what is wrong. */
#include "core/base.h"
#include "tests/c/model_files.h"

#define FIXTURES "tests/fixtures"

/* Hash of the last logits of a fixed sequence; frees the model. */
static uint64_t hash_of(nibl_model *model) {
    int32_t ids[40];
    for (int i = 0; i < 40; i++) ids[i] = (i * 37 + 11) % 272;
    nibl_session *session = NULL;
    uint64_t hash = 0;
    if (CHECK(model != NULL) && CHECK_EQ(nibl_session_new(model, NULL, &session), NIBL_OK) &&
        CHECK_EQ(nibl_session_set_tokens(session, ids, 40, NULL), NIBL_OK) &&
        CHECK_EQ(nibl_step(&session, 1, 0), NIBL_OK))
        hash = nibl_session_hash(session);
    nibl_session_free(session);
    nibl_model_free(model);
    return hash;
}

static uint64_t hash_of_files(const char *folder, const char *name, load_options options) {
    nibl_model *model;
    const nibl_status status = load_files(folder, name, options, &model);
    if (!CHECK_EQ(status, NIBL_OK)) printf("    %s\n", nibl_last_message());
    return hash_of(model);
}

#define SPLIT(part) "tiny-split-0000" part "-of-00003.gguf"

static void split_files_are_one_model(void) {
    const uint64_t whole = hash_of(load_file(FIXTURES "/tiny-llama-f16.gguf"));
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
    for (size_t i = 0; i < count; i++) {
        for (int quiet = 0; quiet < 2; quiet++) {
            uint64_t before, after;
            nibl_memory(&before, NULL);
            nibl_model *model;
            const nibl_status status =
                load_files(folder, name, (load_options){.spoilt = cases[i].spoilt, .quiet = quiet}, &model);
            if (!CHECK_EQ(status, cases[i].status)) printf("    case %zu: %s\n", i, nibl_last_message());
            if (status < 0) CHECK_HAS(nibl_last_message(), cases[i].says);
            nibl_model_free(model);
            nibl_memory(&after, NULL);
            CHECK_EQ(after, before);
        }
    }
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

static void memory_errors_leave_nothing(void) { check_memory_errors(FIXTURES, SPLIT("1"), 1); }

int main(void) {
    static const test tests[] = {
        {"a split GGUF file gives the bits of the whole one", split_files_are_one_model},
        {"missing, cut and foreign parts are told", wrong_parts_are_told},
        {"an allocation that fails leaves nothing", memory_errors_leave_nothing},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
