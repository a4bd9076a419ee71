/* A quantizer that goes on where another one was: from every place that can be saved, the bytes that the first one made. */
#include "core/model.h"
#include "tests/c/model_files.h"

enum { TOKENS = 100, WINDOW = 40, PLACES = 64 };

static int32_t tokens[TOKENS];

typedef struct source {
    const char *folder, *name;
} source;

#define ARCH "tests/fixtures/arch"
static const source sources[] = {{"tests/fixtures", "tiny-llama-f16.gguf"},
                                 {"tests/fixtures", "tiny-split-00001-of-00003.gguf"},
                                 {"tests/fixtures/tiny-hf-f16", "config.json"},
                                 {ARCH, "gemma2.gguf"},
                                 {ARCH "/qwen2", "config.json"},
                                 {ARCH "/lfm2", "config.json"}};

static const struct {
    const char *type, *method;
    size_t count;
} ways[] = {{"q4_0", "rtn", 0},
            {"w4row", "rtn", 0},
            {"q4_0", "rotate", 0},
            {"q4_0", "clip", TOKENS},
            {"q5_1", "awq", TOKENS},
            {"q4_0", "awq,gptq", TOKENS},
            {"q4_0", "rotate,gptq", TOKENS}};
enum { WAYS = sizeof ways / sizeof *ways };

typedef struct blob {
    uint8_t *bytes;
    size_t length;
} blob;

typedef struct work {
    model_files files;
    nibl_loader *loader;
    nibl_model *model; /* NULL: row by row */
    nibl_quantizer *q;
} work;

static nibl_status open_work(source from, size_t way, work *w) {
    const nibl_quantize_options o = {
        .size = sizeof o, .type = ways[way].type, .format = "gguf", .method = ways[way].method, .threads = 2};
    *w = (work){.files = {.folder = from.folder, .options.piece = 1777, .file = UINT32_MAX}};
    nibl_status status = read_header(&w->files, from.name, &w->loader);
    if (status < 0) return status;
    if (ways[way].count == 0 && !nibl_quantize_needs_model(NULL, &o))
        return nibl_quantizer_new(w->loader, &o, &w->q);
    status = nibl_loader_begin_parts(w->loader, &w->model);
    return status < 0 ? status
                      : nibl_model_quantizer_new(w->model, &o, tokens, ways[way].count, WINDOW, &w->q);
}

static void close_work(work *w) {
    free(w->files.bytes);
    nibl_quantizer_free(w->q);
    nibl_loader_free(w->loader);
    nibl_model_free(w->model);
}

static nibl_status step(work *w) {
    bool done = false;
    if (!w->model) return answer_loader(&w->files, w->loader, &done);
    nibl_status status = nibl_quantizer_step(w->q);
    if (status == NIBL_NEED_DATA) {
        status = answer_loader(&w->files, w->loader, &done);
        return status < 0 ? status : NIBL_MORE;
    }
    return status;
}

static blob save(work *w) {
    blob state = {0};
    const void *bytes;
    size_t length;
    for (size_t piece = 0; nibl_quantizer_save(w->q, piece, &bytes, &length) == NIBL_OK && length > 0;
         piece++) {
        state.bytes = realloc(state.bytes, state.length + length);
        memcpy(state.bytes + state.length, bytes, length);
        state.length += length;
    }
    return state;
}

/* To the end; keeps states in `places` where those differ in where they are. */
static nibl_status finish(work *w, blob *out, blob *places, size_t *count) {
    nibl_status status;
    do {
        status = step(w);
        if (status >= 0) take_output(w->q, &out->bytes, &out->length);
        blob state = places && status >= 0 ? save(w) : (blob){0};
        const bool same =
            *count > 0 && state.length >= 16 && memcmp(state.bytes, places[*count - 1].bytes, 16) == 0;
        if (state.length > 0 && !same && *count < PLACES)
            places[(*count)++] = state;
        else
            free(state.bytes);
    } while (status == NIBL_MORE || status == NIBL_NEED_DATA);
    return status;
}

static void go_on(source from, size_t way, const blob *state, const blob *whole) {
    work w;
    blob rest = {0}, header = {0};
    uint64_t offset = 0;
    size_t none = 0;
    if (CHECK_EQ(open_work(from, way, &w), NIBL_OK)) {
        take_output(w.q, &header.bytes, &header.length);
        CHECK_EQ(nibl_quantizer_restore(w.q, w.loader, state->bytes, state->length, &offset), NIBL_OK);
        CHECK_EQ(finish(&w, &rest, NULL, &none), NIBL_OK);
        if (!CHECK(offset + rest.length == whole->length) ||
            !CHECK(rest.length == 0 || memcmp(whole->bytes + offset, rest.bytes, rest.length) == 0))
            printf("    %s/%s, %s from %llu of %zu\n", from.folder, from.name, ways[way].method,
                   (unsigned long long)offset, whole->length);
    }
    free(rest.bytes);
    free(header.bytes);
    close_work(&w);
}

static void from_every_place(void) {
    for (size_t s = 0; s < sizeof sources / sizeof *sources; s++)
        for (size_t way = 0; way < WAYS; way++) {
            work w;
            blob whole = {0}, places[PLACES];
            size_t count = 0;
            nibl_status status = open_work(sources[s], way, &w);
            if (status == NIBL_OK) {
                take_output(w.q, &whole.bytes, &whole.length);
                status = finish(&w, &whole, places, &count);
            }
            close_work(&w);
            CHECK(status == NIBL_OK ? count > 1
                                    : ways[way].method[0] == 'r'); /* not every model can be rotated */
            for (size_t i = 0; i < count; i++) {
                go_on(sources[s], way, &places[i], &whole);
                free(places[i].bytes);
            }
            free(whole.bytes);
        }
}

static void states_of_others_are_refused(void) {
    work w;
    blob out = {0}, places[PLACES];
    size_t count = 0;
    uint64_t offset;
    CHECK_EQ(open_work(sources[0], 5, &w), NIBL_OK);
    CHECK_EQ(finish(&w, &out, places, &count), NIBL_OK);
    close_work(&w);
    if (!CHECK(count > 1)) return;
    const blob state = places[0];
    static const size_t others[] = {0, 1, 2, 4}; /* of other sizes, or without a text */
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        CHECK_EQ(open_work(sources[0], others[i], &w), NIBL_OK);
        CHECK_EQ(nibl_quantizer_restore(w.q, w.loader, state.bytes, state.length, &offset), NIBL_E_FILE);
        close_work(&w);
    }
    for (size_t less = 1; less <= state.length; less += 97) {
        CHECK_EQ(open_work(sources[0], 5, &w), NIBL_OK);
        CHECK_EQ(nibl_quantizer_restore(w.q, w.loader, state.bytes, state.length - less, &offset),
                 NIBL_E_FILE);
        close_work(&w);
    }
    for (size_t i = 0; i < count; i++) free(places[i].bytes);
    free(out.bytes);
}

static const test tests[] = {
    {"from every place", from_every_place},
    {"states of others are refused", states_of_others_are_refused},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + 11) % 40;
    return test_run(tests, sizeof tests / sizeof *tests);
}
