/* A model that is quantized while its weights come and go: the same bytes as of one that is in memory as a whole, never more
 * of it there than is looked at together, an end at any point. */
#include "core/model.h"
#include "tests/c/model_files.h"

enum { TOKENS = 100, WINDOW = 40 };

static int32_t tokens[TOKENS];

typedef struct source {
    const char *folder, *name;
} source;

#define ARCH "tests/fixtures/arch"
static const source sources[] = {{"tests/fixtures", "tiny-llama-f16.gguf"},
                                 {"tests/fixtures", "tiny-llama-f32.gguf"},
                                 {"tests/fixtures", "tiny-split-00001-of-00003.gguf"},
                                 {"tests/fixtures/tiny-hf-f16", "config.json"},
                                 {ARCH, "gemma2.gguf"},
                                 {ARCH "/qwen2", "config.json"}};

typedef struct output {
    uint8_t *bytes;
    size_t length, most; /* bytes of weights at a time */
} output;

static nibl_quantize_options options_of(const char *type, const char *method) {
    return (nibl_quantize_options){.size = sizeof(nibl_quantize_options),
                                   .type = type,
                                   .format = "gguf",
                                   .method = method,
                                   .threads = 2};
}

static uint64_t held(const nibl_model *m) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->binding_count; i++) {
        const nibl_binding *b = &m->bindings[i];
        if (m->parts[b->section])
            bytes +=
                b->matrix ? (uint64_t)nibl_panel_bytes(b->matrix) * nibl_panels(b->matrix) : b->length * 4ull;
    }
    return bytes;
}

/* In parts, fed `piece` bytes at a time and at most `pieces` times; NIBL_MORE where they were too few. */
static nibl_status in_parts(source from, const nibl_quantize_options *o, size_t count, size_t piece,
                            uint32_t pieces, output *out) {
    model_files m = {.folder = from.folder, .options.piece = piece, .file = UINT32_MAX};
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    nibl_quantizer *q = NULL;
    *out = (output){0};
    nibl_status status = read_header(&m, from.name, &loader);
    if (status >= 0) status = nibl_loader_begin_parts(loader, &model);
    if (status >= 0) status = nibl_model_quantizer_new(model, o, tokens, count, WINDOW, &q);
    if (status >= 0) status = NIBL_MORE;
    while (status == NIBL_MORE || (status == NIBL_NEED_DATA && pieces > 0)) {
        bool done = false;
        if (status == NIBL_NEED_DATA) {
            status = answer_loader(&m, loader, &done);
            CHECK(!done);
            pieces--;
        }
        out->most = held(model) > out->most ? (size_t)held(model) : out->most;
        if (status >= 0) status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &out->bytes, &out->length);
    }
    if (status == NIBL_NEED_DATA) status = NIBL_MORE;
    if (status == NIBL_OK) { /* it is used up */
        const nibl_session_options options = {.size = sizeof options};
        nibl_session *session = NULL;
        CHECK_EQ(nibl_session_new(model, &options, &session), NIBL_OK);
        CHECK_EQ(nibl_session_set_tokens(session, tokens, 5, NULL), NIBL_OK);
        CHECK_EQ(nibl_step(&session, 1, 0), NIBL_NEED_DATA);
        nibl_session_free(session);
    }
    free(m.bytes);
    nibl_quantizer_free(q);
    nibl_loader_free(loader);
    nibl_model_free(model);
    return status;
}

static nibl_status as_a_whole(source from, const nibl_quantize_options *o, size_t count, output *out) {
    nibl_model *model = NULL;
    nibl_quantizer *q = NULL;
    *out = (output){0};
    nibl_status status = load_files(from.folder, from.name, (load_options){0}, &model);
    if (status >= 0) status = nibl_model_quantizer_new(model, o, tokens, count, WINDOW, &q);
    if (status >= 0) status = NIBL_MORE;
    while (status == NIBL_MORE) {
        status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &out->bytes, &out->length);
    }
    nibl_quantizer_free(q);
    nibl_model_free(model);
    return status;
}

static void bytes_are_the_same(void) {
    static const struct {
        const char *type, *method;
        size_t count;
    } ways[] = {{"q4_0", "rtn", 0},       {"w4row", "clip", 0},      {"q4_0", "clip", TOKENS},
                {"q5_1", "awq", TOKENS},  {"w4g32", "gptq", TOKENS}, {"q4_0", "rotate,gptq", TOKENS},
                {"w4tensor", "rotate", 0}};
    for (size_t s = 0; s < sizeof sources / sizeof *sources; s++)
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            const nibl_quantize_options o = options_of(ways[w].type, ways[w].method);
            output whole, parts;
            const nibl_status expected = as_a_whole(sources[s], &o, ways[w].count, &whole);
            const size_t piece = w % 2 ? 1777 : 0;
            if (!CHECK_EQ(in_parts(sources[s], &o, ways[w].count, piece, UINT32_MAX, &parts), expected) ||
                !CHECK(whole.length == parts.length &&
                       (whole.length == 0 || memcmp(whole.bytes, parts.bytes, whole.length) == 0)))
                printf("    %s/%s, %s %s: %s\n", sources[s].folder, sources[s].name, ways[w].type,
                       ways[w].method, nibl_last_message());
            free(whole.bytes);
            free(parts.bytes);
        }
}

/* A layer, with what stands around all of them; or the largest tensor. */
static void no_more_is_held(void) {
    nibl_model *model = load_file("tests/fixtures/tiny-llama-f32.gguf");
    uint64_t layer = 0, largest = 0;
    for (size_t i = 0; model && i < model->binding_count; i++) {
        const nibl_binding *b = &model->bindings[i];
        const uint64_t bytes = b->row_bytes * b->rows;
        layer += !b->layer || b->layer == &model->layers[0] ? bytes : 0;
        largest = bytes > largest ? bytes : largest;
    }
    nibl_model_free(model);
    output out;
    nibl_quantize_options o = options_of("w4row", "rtn");
    CHECK_EQ(in_parts(sources[1], &o, 0, 0, UINT32_MAX, &out), NIBL_OK);
    CHECK(out.most <= largest && out.most > 0);
    free(out.bytes);
    o.method = "gptq";
    CHECK_EQ(in_parts(sources[1], &o, TOKENS, 0, UINT32_MAX, &out), NIBL_OK);
    CHECK(out.most <= layer && out.most > largest);
    free(out.bytes);
}

static void parts_end_anywhere(void) {
    uint64_t before, after;
    const nibl_quantize_options options[] = {options_of("w4row", "rtn"), options_of("q4_0", "awq,gptq")};
    nibl_memory(&before, NULL);
    for (uint32_t i = 0; i < 50; i++) {
        output out;
        CHECK_EQ(
            in_parts(sources[i % 4], &options[i % 2], i % 2 ? TOKENS : 0, 5000 + 37 * i, i * 7 % 33, &out),
            NIBL_MORE);
        free(out.bytes);
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
}

static const test tests[] = {
    {"bytes are the same", bytes_are_the_same},
    {"no more is held", no_more_is_held},
    {"parts end anywhere", parts_end_anywhere},
};

int main(void) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * i * 7 + i * 37 + 11) % 40;
    return test_run(tests, sizeof tests / sizeof *tests);
}
