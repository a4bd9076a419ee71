/* The push loader: any chunking and order of ranges gives the same packed weights, and every bad file or
 * call a typed error with all memory returned. */
#include "core/model.h"
#include "core/session.h"
#include "tests/c/gguf_builder.h"
#include "tests/c/hostile.h"
#include "tests/c/test.h"

#define FIXTURE(type) "tests/fixtures/tiny-llama-" type ".gguf"
static const char *const fixtures[] = {FIXTURE("f32"),  FIXTURE("f16"),  FIXTURE("bf16"),
                                       FIXTURE("q8_0"), FIXTURE("q4_0"), FIXTURE("q4_1")};
enum { FIXTURES = sizeof fixtures / sizeof *fixtures };

/* ---- Ways to load ---- */

typedef struct load {
    nibl_loader *loader;
    nibl_model *model;
    nibl_status status; /* of the last call */
} load;

static void load_free(load *l) {
    nibl_loader_free(l->loader);
    nibl_model_free(l->model);
    *l = (load){0};
}

static size_t chunk_length(size_t chunk, size_t left) {
    size_t n = chunk ? chunk : 1 + random_below(300); /* 0: random */
    return n < left ? n : left;
}

/* As a stream: from start to end, the chunk that completes the header twice. */
static load load_stream(const builder *file, size_t length, uint64_t announced, size_t chunk) {
    load l = {0};
    l.status = nibl_loader_new(announced, &l.loader);
    for (size_t at = 0, n; l.status >= 0 && at < length; at += n) {
        n = chunk_length(chunk, length - at);
        l.status = nibl_loader_feed(l.loader, at, file->bytes + at, n);
        if (l.status < 0 || l.model || !nibl_loader_header_ready(l.loader)) continue;
        l.status = nibl_loader_begin(l.loader, &l.model);
        if (l.status == NIBL_OK) l.status = nibl_loader_feed(l.loader, at, file->bytes + at, n);
    }
    if (l.status >= 0) l.status = nibl_loader_end(l.loader, length);
    return l;
}

/* Answers nibl_loader_want in pieces of `chunk` bytes. */
static load load_wanted(const builder *file, uint64_t announced, size_t chunk) {
    load l = {0};
    l.status = nibl_loader_new(announced, &l.loader);
    while (l.status >= 0) {
        uint64_t offset, length;
        if (nibl_loader_header_ready(l.loader) && !l.model) {
            l.status = nibl_loader_begin(l.loader, &l.model);
            if (l.status < 0) break;
        }
        if (!CHECK_EQ(nibl_loader_want(l.loader, &offset, &length), NIBL_OK) || length == 0) break;
        if (!CHECK(offset < file->length)) break;
        if (length > file->length - offset) length = file->length - offset;
        for (size_t n; length > 0 && l.status >= 0; offset += n, length -= n) {
            n = chunk_length(chunk, (size_t)length);
            l.status = nibl_loader_feed(l.loader, offset, file->bytes + offset, n);
        }
    }
    return l;
}

/* Header parsed and model begun, no weights yet. */
static load load_header(const builder *file) {
    load l = {0};
    l.status = nibl_loader_new(file->length, &l.loader);
    if (l.status >= 0) l.status = nibl_loader_feed(l.loader, 0, file->bytes, file->length);
    if (l.status >= 0) l.status = nibl_loader_begin(l.loader, &l.model);
    return l;
}

/* ---- What the weights must be ---- */

static size_t matrix_bytes(const nibl_matrix *w) { return nibl_panel_bytes(w) * nibl_panels(w); }

/* Row r of the file against the packed layout of kernels/blocks.h. */
static bool row_is_packed(const nibl_matrix *w, uint32_t r, const uint8_t *row) {
    const uint8_t *panel = w->data + r / 8 * nibl_panel_bytes(w);
    const size_t lane = r % 8;
    bool same = true;
    if (w->kind == NIBL_KIND_NIBBLE || w->kind == NIBL_KIND_INT8) {
        const size_t scales = w->scale == NIBL_SCALE_F16_MIN ? 2 : 1,
                     chunks = w->kind == NIBL_KIND_INT8 ? 8 : 4;
        for (uint32_t b = 0; b < w->cols / 32; b++, panel += 16 * scales + 32 * chunks) {
            for (size_t s = 0; s < scales; s++, row += 2)
                same = same && memcmp(panel + 16 * s + 2 * lane, row, 2) == 0;
            for (size_t c = 0; c < chunks; c++, row += 4)
                same = same && memcmp(panel + 16 * scales + 32 * c + 4 * lane, row, 4) == 0;
        }
        return same;
    }
    const size_t width = w->kind == NIBL_KIND_F32 ? 4 : 2;
    for (uint32_t k = 0; k < w->cols; k++)
        same = same && memcmp(panel + (k * 8 + lane) * width, row + k * width, width) == 0;
    return same;
}

static void check_weights(const load *l, const builder *file) {
    if (!CHECK(l->model) || !CHECK_EQ(l->status, NIBL_OK)) return;
    uint64_t arrived, total, offset, length;
    CHECK(nibl_model_complete(l->model));
    nibl_loader_progress(l->loader, &arrived, &total);
    CHECK(arrived == total && total == l->model->file_bytes);
    CHECK(nibl_loader_want(l->loader, &offset, &length) == NIBL_OK && length == 0);
    CHECK_EQ(nibl_loader_feed(l->loader, 0, file->bytes, 100), NIBL_OK);
    CHECK_EQ(nibl_loader_feed(l->loader, 50, NULL, 0), NIBL_OK);
    for (size_t i = 0; i < l->model->binding_count; i++) {
        const nibl_binding *b = &l->model->bindings[i];
        const uint8_t *raw = file->bytes + nibl_gguf_tensor_at(l->model->gguf, b->tensor)->offset;
        CHECK_EQ(b->rows_done, b->rows);
        if (!b->matrix) {
            CHECK(b->type->kind == NIBL_KIND_F32 && memcmp(*b->vector, raw, (size_t)b->row_bytes) == 0);
            continue;
        }
        bool same = true;
        for (uint32_t r = 0; r < b->rows; r++)
            same = same && row_is_packed(b->matrix, r, raw + r * b->row_bytes);
        CHECK(same);
    }
}

static void check_same_weights(const load *a, const load *b) {
    if (!CHECK(a->model && b->model && a->model->binding_count == b->model->binding_count)) return;
    for (size_t i = 0; i < a->model->binding_count; i++) {
        const nibl_binding *x = &a->model->bindings[i], *y = &b->model->bindings[i];
        if (x->matrix)
            CHECK(memcmp(x->matrix->data, y->matrix->data, matrix_bytes(x->matrix)) == 0);
        else
            CHECK(memcmp(*x->vector, *y->vector, a->model->hyper.width * sizeof(float)) == 0);
    }
}

/* ---- Chunking and order ---- */

static void test_any_chunking(void) {
    static const size_t chunks[] = {1, 2, 3, 7, 64, 0, 4096, 1 << 20};
    uint64_t before = memory_now();
    for (size_t f = 0; f < FIXTURES; f++) {
        builder file = read_whole(fixtures[f]);
        load whole = load_stream(&file, file.length, file.length, file.length);
        check_weights(&whole, &file);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
            for (int announce = 0; announce < 2; announce++) {
                uint64_t announced = announce ? file.length : 0;
                load stream = load_stream(&file, file.length, announced, chunks[i]);
                check_weights(&stream, &file);
                check_same_weights(&whole, &stream);
                load_free(&stream);
                load wanted = load_wanted(&file, announced, chunks[i]);
                check_weights(&wanted, &file);
                check_same_weights(&whole, &wanted);
                load_free(&wanted);
            }
        load_free(&whole);
        free(file.bytes);
    }
    CHECK_EQ(memory_now(), before);
}

/* All tensors at once, a piece of a random one at a time; pieces overlap what has come before. */
static void test_shuffled(void) {
    for (size_t f = 0; f < FIXTURES; f++) {
        builder file = read_whole(fixtures[f]);
        load whole = load_stream(&file, file.length, file.length, file.length);
        for (int run = 0; run < 5; run++) {
            load l = load_header(&file);
            if (!CHECK_EQ(l.status, NIBL_OK)) break;
            uint64_t fed[64] = {0}, most_staged = 0, staged = memory_now();
            const size_t count = l.model->binding_count;
            if (!CHECK(count <= 64)) break;
            for (size_t open = count; open > 0;) {
                size_t i = random_below((uint32_t)count);
                const nibl_binding *b = &l.model->bindings[i];
                uint64_t bytes = b->row_bytes * b->rows, at = fed[i];
                if (at == bytes) continue;
                uint64_t back = random_below(100), n = 1 + random_below(5000);
                at = at > back ? at - back : 0;
                if (n > bytes - at) n = bytes - at;
                uint64_t offset = nibl_gguf_tensor_at(l.model->gguf, b->tensor)->offset + at;
                l.status = nibl_loader_feed(l.loader, offset, file.bytes + offset, (size_t)n);
                if (at + n > fed[i]) fed[i] = at + n;
                if (fed[i] == bytes) open--;
                CHECK_EQ(l.status, open ? NIBL_NEED_DATA : NIBL_OK);
                if (memory_now() - staged > most_staged) most_staged = memory_now() - staged;
            }
            CHECK_EQ(memory_now(), staged); /* staged rows are given back */
            CHECK(most_staged < count * 640);
            check_weights(&l, &file);
            check_same_weights(&whole, &l);
            load_free(&l);
        }
        load_free(&whole);
        free(file.bytes);
    }
}

/* While a stream comes in, nothing but one row of a tensor is held. */
static void test_keeps_no_bytes(void) {
    builder file = read_whole(FIXTURE("q4_1"));
    load l = load_header(&file);
    if (CHECK_EQ(l.status, NIBL_OK)) {
        uint64_t held = memory_now(), most = 0;
        for (size_t at = 0; at < file.length; at += 7) {
            size_t n = chunk_length(7, file.length - at);
            l.status = nibl_loader_feed(l.loader, at, file.bytes + at, n);
            if (memory_now() - held > most) most = memory_now() - held;
        }
        CHECK_EQ(l.status, NIBL_OK);
        CHECK(most > 0 && most <= 96 * sizeof(float)); /* the longest row: a norm */
        CHECK_EQ(memory_now(), held);
    }
    load_free(&l);
    free(file.bytes);
}

/* ---- Wanted ranges ---- */

static void test_want_header(void) {
    builder file = {0};
    put_start(&file, 0, 1);
    put_key_array(&file, "numbers", B_U8, 64 << 20);
    file.bytes = realloc(file.bytes, 32 << 20);
    if (!CHECK(file.bytes)) return;
    memset(file.bytes + file.length, 0, (32 << 20) - file.length);
    const uint64_t kib = 1024, expected[] = {256, 256, 512, 1024, 2048, 4096, 4096};
    for (int announce = 0; announce < 2; announce++) {
        nibl_loader *loader;
        uint64_t fed = 0, offset, length;
        if (!CHECK_EQ(nibl_loader_new(announce ? 9000 * kib : 0, &loader), NIBL_OK)) break;
        for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
            uint64_t n = expected[i] * kib;
            if (announce && n > 9000 * kib - fed) n = 9000 * kib - fed;
            for (int again = 0; again < 2; again++) {
                CHECK_EQ(nibl_loader_want(loader, &offset, &length), NIBL_OK);
                CHECK(offset == fed && length == n);
            }
            fed += n;
            nibl_status status = nibl_loader_feed(loader, offset, file.bytes + offset, (size_t)n);
            CHECK_EQ(status, announce && fed == 9000 * kib ? NIBL_E_TRUNCATED : NIBL_NEED_DATA);
            if (status < 0) break;
        }
        nibl_loader_free(loader);
    }
    free(file.bytes);
}

enum { BIG_LAYERS = 12, BIG_WIDTH = 512, BIG_FFN = 1408, BIG_TOKENS = 1024, BIG_GAP = 66560 /* > 64 KiB */ };

static int compare_texts(const void *a, const void *b) {
    char x[16], y[16];
    snprintf(x, sizeof x, "%d", *(const int *)a);
    snprintf(y, sizeof y, "%d", *(const int *)b);
    return strcmp(x, y);
}

/* A model of 22 MB, the tensors of a layer in the order of many published files, the embedding last. The
 * layers stand in descending order or, as in those files, sorted as text: 0, 1, 10, 11, 2 to 9; there is a
 * gap before layer 9. */
static builder build_big(bool descending) {
    static const struct {
        const char *name;
        uint32_t cols, rows; /* rows 0: a vector */
    } tensors[] = {{"attn_norm", BIG_WIDTH, 0},
                   {"ffn_down", BIG_FFN, BIG_WIDTH},
                   {"ffn_gate", BIG_WIDTH, BIG_FFN},
                   {"ffn_up", BIG_WIDTH, BIG_FFN},
                   {"ffn_norm", BIG_WIDTH, 0},
                   {"attn_k", BIG_WIDTH, BIG_WIDTH},
                   {"attn_output", BIG_WIDTH, BIG_WIDTH},
                   {"attn_q", BIG_WIDTH, BIG_WIDTH},
                   {"attn_v", BIG_WIDTH, BIG_WIDTH}};
    enum { PER_LAYER = sizeof tensors / sizeof *tensors };
    builder b = {0};
    char name[64];
    put_start(&b, BIG_LAYERS * PER_LAYER + 2, 13);
    put_key_string(&b, "general.architecture", "llama");
    put_key_u32(&b, "llama.block_count", BIG_LAYERS);
    put_key_u32(&b, "llama.context_length", 128);
    put_key_u32(&b, "llama.embedding_length", BIG_WIDTH);
    put_key_u32(&b, "llama.feed_forward_length", BIG_FFN);
    put_key_u32(&b, "llama.attention.head_count", 8);
    put_key_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_key_string(&b, "tokenizer.ggml.model", "gpt2");
    put_key_string(&b, "tokenizer.ggml.pre", "smollm");
    put_key_array(&b, "tokenizer.ggml.tokens", B_STRING, BIG_TOKENS);
    for (int i = 0; i < BIG_TOKENS; i++) snprintf(name, sizeof name, "t%d", i), put_string(&b, name);
    put_key_array(&b, "tokenizer.ggml.token_type", B_I32, BIG_TOKENS);
    for (int i = 0; i < BIG_TOKENS; i++) put_int(&b, 1, 4);
    put_key_array(&b, "tokenizer.ggml.merges", B_STRING, 0);
    put_key_u32(&b, "tokenizer.ggml.eos_token_id", 0);
    uint64_t offset = BIG_WIDTH * 4;
    put_tensor(&b, "output_norm.weight", 0, 1, BIG_WIDTH, 1, 0);
    int layers[BIG_LAYERS];
    for (int i = 0; i < BIG_LAYERS; i++) layers[i] = BIG_LAYERS - 1 - i;
    if (!descending) qsort(layers, BIG_LAYERS, sizeof *layers, compare_texts);
    for (int layer = 0; layer < BIG_LAYERS; layer++) {
        offset += layers[layer] == 9 ? BIG_GAP : 0;
        for (size_t i = 0; i < PER_LAYER; i++) {
            const uint32_t cols = tensors[i].cols, rows = tensors[i].rows;
            snprintf(name, sizeof name, "blk.%d.%s.weight", layers[layer], tensors[i].name);
            put_tensor(&b, name, rows ? 2 : 0, rows ? 2 : 1, cols, rows, offset);
            offset += rows ? (uint64_t)cols / 32 * 18 * rows : cols * 4;
        }
    }
    put_tensor(&b, "token_embd.weight", 2, 2, BIG_WIDTH, BIG_TOKENS, offset);
    offset += BIG_WIDTH / 32 * 18 * BIG_TOKENS;
    put_padding(&b, 32);
    size_t data = b.length;
    b.length = data + (size_t)offset;
    b.bytes = realloc(b.bytes, b.length);
    if (!b.bytes) abort();
    for (size_t i = data; i < b.length; i++) b.bytes[i] = (uint8_t)random_below(64); /* finite scales */
    return b;
}

/* Ranges come in the order of need, no byte twice, none of the gap, at most `most` of them. */
static void check_ranges(const builder *file, size_t most) {
    enum { RANGE = 8 << 20, AHEAD = 1 << 20, EARLY = 1001 };
    load l = load_header(file);
    if (CHECK_EQ(l.status, NIBL_OK)) {
        nibl_model *m = l.model;
        uint64_t offset = 0, length = 0, same_offset, same_length, arrived, total, fed = EARLY;
        uint64_t early = nibl_gguf_find_tensor(m->gguf, "blk.11.ffn_gate.weight")->offset;
        CHECK_EQ(nibl_loader_feed(l.loader, early, file->bytes + early, EARLY), NIBL_NEED_DATA);
        size_t ranges = 0;
        while (nibl_loader_want(l.loader, &offset, &length) == NIBL_OK && length > 0) {
            CHECK(nibl_loader_want(l.loader, &same_offset, &same_length) == NIBL_OK &&
                  same_offset == offset && same_length == length);
            size_t i = 0;
            while (m->bindings[i].rows_done == m->bindings[i].rows) i++;
            uint64_t begin = nibl_gguf_tensor_at(m->gguf, m->bindings[i].tensor)->offset;
            if (begin == early) begin += EARLY;
            CHECK(length <= RANGE && begin >= offset && begin - offset <= AHEAD && begin < offset + length);
            l.status = nibl_loader_feed(l.loader, offset, file->bytes + offset, (size_t)length);
            CHECK_EQ(l.status, nibl_model_complete(m) ? NIBL_OK : NIBL_NEED_DATA);
            CHECK(m->bindings[i].rows_done == m->bindings[i].rows);
            fed += length;
            if (!CHECK(++ranges <= most)) break;
        }
        nibl_loader_progress(l.loader, &arrived, &total);
        CHECK(arrived == total && fed == total);
        check_weights(&l, file);
    }
    load_free(&l);
}

static void test_want_order(void) {
    builder file = build_big(false);
    /* Embedding; layers 0 and 1; 2 to 5; 6 to 8; 9; 10; 11 in four parts, since one had come early; the
     * last norm. */
    check_ranges(&file, 11);
    free(file.bytes);
    file = build_big(true);
    check_ranges(&file, 17); /* each layer for itself, as the first of two is needed first */

    /* A part of a range: the rest is asked for again, from where the bytes ended. */
    load l = load_header(&file);
    if (CHECK_EQ(l.status, NIBL_OK)) {
        uint64_t offset, length, rest, rest_length;
        CHECK_EQ(nibl_loader_want(l.loader, &offset, &length), NIBL_OK);
        CHECK_EQ(nibl_loader_feed(l.loader, offset, file.bytes + offset, 1001), NIBL_NEED_DATA);
        CHECK_EQ(nibl_loader_want(l.loader, &rest, &rest_length), NIBL_OK);
        CHECK(rest == offset + 1001 && rest + rest_length >= offset + length);
    }
    load_free(&l);
    free(file.bytes);
}

/* ---- Wrong calls ---- */

static void test_calls(void) {
    builder file = read_whole(FIXTURE("q8_0"));
    nibl_loader *loader;
    nibl_model *model = NULL, *second = NULL;
    uint64_t offset, length, arrived = 1, total = 1;
    nibl_plan plan = {.size = sizeof plan};
    size_t needed = 7;
    if (!CHECK_EQ(nibl_loader_new(file.length, &loader), NIBL_OK)) return;
    CHECK_EQ(nibl_loader_begin(loader, &model), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_loader_plan(loader, &plan), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_loader_inspect(loader, NULL, 0, &needed), NIBL_E_ARGUMENT);
    CHECK(needed == 7 && !model && !nibl_loader_header_ready(loader));
    CHECK_EQ(nibl_loader_feed(loader, 0, NULL, 0), NIBL_NEED_DATA);
    nibl_loader_progress(loader, &arrived, &total);
    CHECK(arrived == 0 && total == 0);
    CHECK_EQ(nibl_loader_end(loader, file.length), NIBL_NEED_DATA); /* only tells the size */

    CHECK_EQ(nibl_loader_feed(loader, 0, file.bytes, 100), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_feed(loader, 20, file.bytes + 20, 80), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_feed(loader, 50, file.bytes + 50, file.length - 50), NIBL_NEED_DATA);
    CHECK(nibl_loader_header_ready(loader));
    CHECK(nibl_loader_want(loader, &offset, &length) == NIBL_OK &&
          length == 0); /* nibl_loader_begin is due */
    CHECK_EQ(nibl_loader_feed(loader, 0, file.bytes, file.length), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_plan(loader, &plan), NIBL_OK);
    CHECK_EQ(nibl_loader_begin(loader, &model), NIBL_OK);
    if (!CHECK(model)) return;
    CHECK(plan.weights == model->packed_bytes && plan.file_tensor_bytes == model->file_bytes);
    CHECK_EQ(nibl_loader_begin(loader, &second), NIBL_E_ARGUMENT);
    CHECK(!second);
    CHECK_EQ(nibl_loader_plan(loader, &plan), NIBL_OK);
    nibl_loader_progress(loader, &arrived, &total);
    CHECK(arrived == 0 && total == model->file_bytes);
    CHECK(nibl_loader_want(loader, &offset, &length) == NIBL_OK && length > 0);
    CHECK_EQ(nibl_loader_feed(loader, offset + 5, NULL, 0), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_end(loader, file.length), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_feed(loader, 0, file.bytes, file.length), NIBL_OK);
    CHECK_EQ(nibl_loader_end(loader, file.length), NIBL_OK);
    CHECK_EQ(nibl_loader_end(loader, 10), NIBL_OK); /* all is there, whatever the source says */
    nibl_loader_free(loader);
    nibl_model_free(model);
    nibl_loader_free(NULL);
    free(file.bytes);
}

/* After an error every call gives the same one, and both may be freed in either order. */
static void check_final(load *l, nibl_status status, const char *part, bool model_first) {
    char message[512], byte = 0;
    uint64_t offset, length;
    size_t needed;
    nibl_model *model = NULL;
    nibl_plan plan = {.size = sizeof plan};
    CHECK_EQ(l->status, status);
    CHECK_HAS(nibl_last_message(), part);
    snprintf(message, sizeof message, "%s", nibl_last_message());
    CHECK(!nibl_loader_header_ready(l->loader));
    for (int call = 0; call < 6; call++) {
        nibl_fail(NIBL_E_CANCELLED, "another message");
        nibl_status again = call == 0   ? nibl_loader_feed(l->loader, 0, &byte, 1)
                            : call == 1 ? nibl_loader_want(l->loader, &offset, &length)
                            : call == 2 ? nibl_loader_end(l->loader, 1)
                            : call == 3 ? nibl_loader_begin(l->loader, &model)
                            : call == 4 ? nibl_loader_plan(l->loader, &plan)
                                        : nibl_loader_inspect(l->loader, NULL, 0, &needed);
        CHECK_EQ(again, status);
        CHECK(strcmp(nibl_last_message(), message) == 0);
    }
    if (model_first) {
        nibl_model_free(l->model);
        l->model = NULL;
    }
    load_free(l);
}

static void test_gaps(void) {
    uint64_t before = memory_now();
    builder file = read_whole(FIXTURE("q4_0"));
    for (int model_first = 0; model_first < 2; model_first++) {
        load l = {0};
        if (!CHECK_EQ(nibl_loader_new(0, &l.loader), NIBL_OK)) return;
        CHECK_EQ(nibl_loader_feed(l.loader, 0, file.bytes, 100), NIBL_NEED_DATA);
        l.status = nibl_loader_feed(l.loader, 101, file.bytes + 101, 100);
        check_final(&l, NIBL_E_ARGUMENT, "bytes at 101 were fed, but the header has arrived only up to 100",
                    model_first);

        l = load_header(&file);
        if (!CHECK_EQ(l.status, NIBL_OK)) return;
        uint64_t begin = nibl_gguf_find_tensor(l.model->gguf, "blk.1.ffn_up.weight")->offset;
        CHECK_EQ(nibl_loader_feed(l.loader, begin, file.bytes + begin, 33), NIBL_NEED_DATA);
        l.status = nibl_loader_feed(l.loader, begin + 34, file.bytes, 1);
        check_final(&l, NIBL_E_ARGUMENT, "tensor 'blk.1.ffn_up.weight': bytes at", model_first);

        l = load_header(&file);
        l.status = nibl_loader_feed(l.loader, file.length - 1, file.bytes, 2);
        check_final(&l, NIBL_E_ARGUMENT, "2 bytes at", model_first);
        l = load_header(&file);
        l.status = nibl_loader_feed(l.loader, UINT64_MAX, file.bytes, 2);
        check_final(&l, NIBL_E_ARGUMENT, "2 bytes at 18446744073709551615", model_first);
    }
    free(file.bytes);
    CHECK_EQ(memory_now(), before);
}

/* ---- Bad files ---- */

static void test_truncated(void) {
    uint64_t before = memory_now();
    builder file = read_whole(FIXTURE("q4_1"));
    load whole = load_header(&file);
    if (!CHECK_EQ(whole.status, NIBL_OK)) return;
    const uint64_t header = nibl_gguf_header_bytes(whole.model->gguf);
    load_free(&whole);
    for (size_t i = 0; i < 50; i++) {
        size_t length = i < 25 ? i * 300 : file.length * i / 50; /* half of them within the header */
        if (i == 49) length = file.length - 1;
        static const size_t chunks[] = {1 << 20, 0};
        for (size_t c = 0; c < 2; c++)
            for (int announce = 0; announce < 3;
                 announce++) { /* unknown, the cut file's, the whole file's length */
                uint64_t announced = announce == 0 ? 0 : announce == 1 ? length : file.length;
                load l = load_stream(&file, length, announced, chunks[c]);
                check_final(&l, NIBL_E_TRUNCATED, length < header ? "within its header" : "tensor '",
                            announce & 1);
            }
    }
    free(file.bytes);
    CHECK_EQ(memory_now(), before);
}

/* Loads a spoiled copy of the fixture: patch, the status it must give, part of the message. */
typedef struct bad_file {
    const char *name; /* of the key or tensor to spoil */
    int at; /* offset of the patch, from the end of the name */
    const char *patch;
    size_t patch_length;
    nibl_status status;
    const char *message;
} bad_file;

static void test_bad_files(void) {
    /* Behind a key: type u32, value. Behind a tensor's name: n_dims u32, dims u64 each, type u32, offset
     * u64. */
    static const bad_file files[] = {
        {"general.architecture", 12, "llamb", 5, NIBL_E_UNSUPPORTED, "architecture 'llamb'"},
        {"general.architecture", -1, "f", 1, NIBL_E_FILE, "general.architecture is missing"},
        {"tokenizer.ggml.model", 12, "bert", 4, NIBL_E_UNSUPPORTED, "'bert'"},
        {"tokenizer.ggml.pre", 12, "halcon", 6, NIBL_E_UNSUPPORTED, "'halcon'"},
        {"llama.block_count", 4, "\3", 1, NIBL_E_FILE, "tensor 'blk.2.attn_norm.weight' is missing"},
        {"llama.block_count", 4, "\1", 1, NIBL_E_UNSUPPORTED, "has no place"},
        {"llama.block_count", 4, "\xFF\xFF\xFF\xFF", 4, NIBL_E_FILE, "llama.block_count is 4294967295"},
        {"llama.embedding_length", 4, "\0", 1, NIBL_E_FILE, "llama.embedding_length is 0"},
        {"llama.embedding_length", 4, "\xC0", 1, NIBL_E_FILE, "shape"},
        {"llama.feed_forward_length", 4, "\xFF\xFF\x0F", 3, NIBL_E_FILE, "shape"},
        {"llama.attention.head_count", 4, "\0\0\0\x80", 4, NIBL_E_FILE, "llama.attention.head_count is"},
        {"blk.1.attn_q.weight", -1, "s", 1, NIBL_E_FILE, "tensor 'blk.1.attn_q.weight' is missing"},
        {"blk.1.attn_q.weight", 20, "\x11", 1, NIBL_E_UNSUPPORTED,
         "tensor 'blk.1.attn_q.weight' has type IQ2_XS (17)"},
        {"blk.1.attn_q.weight", 20, "\xE7\3", 2, NIBL_E_UNSUPPORTED, "type unknown (999)"},
        {"blk.1.attn_q.weight", 4, "\x20", 1, NIBL_E_FILE, "tensor 'blk.1.attn_q.weight' has shape"},
        {"blk.1.attn_q.weight", 12, "\1\0\0\0\0\0\0\x10", 8, NIBL_E_FILE, "'blk.1.attn_q.weight'"},
        {"blk.1.attn_q.weight", 24, "\1", 1, NIBL_E_FILE, "not a multiple of the alignment"},
        {"blk.1.attn_q.weight", 24, "\0\0\0\0\0\0\0\0", 8, NIBL_E_FILE, "overlap"},
        {"blk.1.attn_q.weight", 30, "\1", 1, NIBL_E_TRUNCATED, "tensor 'blk.1.attn_q.weight' ends at byte"},
        {"token_embd.weight", -1, "s", 1, NIBL_E_FILE, "tensor 'token_embd.weight' is missing"},
    };
    uint64_t before = memory_now();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        builder file = read_whole(FIXTURE("f32"));
        uint8_t *place = find_name(file.bytes, file.length, files[i].name);
        if (!CHECK(place)) continue;
        memcpy(place + files[i].at, files[i].patch, files[i].patch_length);
        for (size_t chunk = 0; chunk <= 1 << 20; chunk += 1 << 20) {
            load l = load_stream(&file, file.length, file.length, chunk);
            CHECK_EQ(l.status, files[i].status);
            CHECK_HAS(nibl_last_message(), files[i].message);
            CHECK(!l.model);
            load_free(&l);
            CHECK_EQ(memory_now(), before);
        }
        free(file.bytes);
    }
}

/* All of a file fed to a model that has workers. */
static load load_by(const builder *file, uint32_t workers) {
    load l = load_header(file);
    if (l.status >= 0) l.status = nibl_session_grow_pool(l.model, workers);
    if (l.status >= 0) l.status = nibl_loader_feed(l.loader, 0, file->bytes, file->length);
    return l;
}

static void test_workers(void) {
    for (size_t f = 0; f < FIXTURES; f++) {
        builder file = read_whole(fixtures[f]);
        load whole = load_stream(&file, file.length, file.length, file.length);
        load l = load_by(&file, 3);
        CHECK_EQ(l.status, NIBL_OK);
        check_same_weights(&whole, &l);
        CHECK_EQ(l.model->embedding.has_m128, whole.model->embedding.has_m128);
        load_free(&l);
        load_free(&whole);
        free(file.bytes);
    }
    builder file = read_whole(FIXTURE("f32"));
    load l = load_header(&file);
    const nibl_gguf_tensor *t = nibl_gguf_find_tensor(l.model->gguf, "token_embd.weight");
    for (uint64_t row = 90; row < 110; row++)
        memcpy(file.bytes + t->offset + row * t->dims[0] * 4 + 20, "\0\0\xC0\x7F", 4);
    load_free(&l);
    l = load_by(&file, 3);
    check_final(&l, NIBL_E_FILE, "tensor 'token_embd.weight', row 90", false);
    load_free(&l);
    free(file.bytes);
}

static void test_not_finite(void) {
    builder file = read_whole(FIXTURE("f32"));
    load l = load_header(&file);
    if (CHECK_EQ(l.status, NIBL_OK)) {
        const nibl_gguf_tensor *t = nibl_gguf_find_tensor(l.model->gguf, "blk.0.ffn_down.weight");
        memcpy(file.bytes + t->offset + 3 * t->dims[0] * 4 + 20, "\0\0\xC0\x7F", 4);
        l.status = nibl_loader_feed(l.loader, 0, file.bytes, file.length);
        check_final(&l, NIBL_E_FILE, "tensor 'blk.0.ffn_down.weight', row 3", false);
    }
    load_free(&l);
    free(file.bytes);
}

/* ---- Memory ---- */

static void test_no_memory(void) {
    builder file = read_whole(FIXTURE("q4_0"));
    uint64_t before = memory_now();
    unsigned refused = 0;
    for (int64_t n = 0;; n++) {
        nibl_test_fail_alloc(n);
        load l = load_stream(&file, file.length, 0, 999);
        void *probe = nibl_alloc(1); /* the one that fails, once nothing above does */
        nibl_test_fail_alloc(-1);
        CHECK(l.status == NIBL_OK || l.status == NIBL_E_MEMORY);
        if (l.status == NIBL_OK) check_weights(&l, &file);
        refused += l.status == NIBL_E_MEMORY;
        load_free(&l);
        nibl_free(probe);
        CHECK_EQ(memory_now(), before);
        if (!probe) break;
    }
    CHECK(refused > 30);
    free(file.bytes);
}

/* ---- Inspect ---- */

static void test_inspect(void) {
    builder b = {0};
    put_start(&b, 3, 3);
    put_key_string(&b, "general.architecture", "mamba");
    put_key_string(&b, "general.name", "Snake \"1\"");
    put_key_u32(&b, "mamba.block_count", 2);
    put_tensor(&b, "x", 0, 2, 8, 3, 0), put_tensor(&b, "y", 3, 1, 64, 1, 96),
        put_tensor(&b, "z", 17, 2, 256, 2, 160);
    put_padding(&b, 32);
    char expected[2048], json[2048];
    snprintf(expected, sizeof expected,
             "{\"format\":\"gguf\",\"version\":3,\"architecture\":\"mamba\",\"name\":\"Snake "
             "\\\"1\\\"\",\"parameters\":600,"
             "\"file_tensor_bytes\":136,\"types\":{\"F32\":{\"tensors\":1,\"bytes\":96},\"Q4_1\":{"
             "\"tensors\":1,\"bytes\":40},"
             "\"IQ2_XS\":{\"tensors\":1,\"bytes\":null}},\"metadata\":{\"general.architecture\":\"mamba\","
             "\"general.name\":\"Snake \\\"1\\\"\",\"mamba.block_count\":2},\"tensors\":["
             "{\"name\":\"x\",\"type\":\"F32\",\"shape\":[8,3],\"offset\":%zu,\"bytes\":96},"
             "{\"name\":\"y\",\"type\":\"Q4_1\",\"shape\":[64],\"offset\":%zu,\"bytes\":40},"
             "{\"name\":\"z\",\"type\":\"IQ2_XS\",\"shape\":[256,2],\"offset\":%zu,\"bytes\":null}]}",
             b.length, b.length + 96, b.length + 160);
    nibl_loader *loader;
    size_t needed = 0;
    if (!CHECK_EQ(nibl_loader_new(0, &loader), NIBL_OK)) return;
    CHECK_EQ(nibl_loader_feed(loader, 0, b.bytes, b.length), NIBL_NEED_DATA);
    CHECK_EQ(nibl_loader_inspect(loader, json, sizeof json, &needed), NIBL_OK);
    if (!CHECK(strcmp(json, expected) == 0)) printf("%s\nexpected\n%s\n", json, expected);
    CHECK_EQ(needed, strlen(expected));
    CHECK_EQ(nibl_loader_inspect(loader, NULL, 0, &needed), NIBL_E_BUFFER);
    CHECK_EQ(needed, strlen(expected));
    CHECK_EQ(nibl_loader_inspect(loader, json, needed, &needed), NIBL_E_BUFFER);
    CHECK(strlen(json) == needed - 1 && memcmp(json, expected, needed - 1) == 0);
    CHECK_EQ(nibl_loader_inspect(loader, json, needed + 1, &needed), NIBL_OK);
    nibl_loader_free(loader);
    free(b.bytes);

    b = read_whole(FIXTURE("q4_1"));
    load l = load_header(&b);
    char *text = malloc(1 << 20);
    if (CHECK_EQ(l.status, NIBL_OK) && CHECK(text)) {
        CHECK_EQ(nibl_loader_inspect(l.loader, text, 1 << 20, &needed), NIBL_OK);
        CHECK_HAS(text, "\"name\":\"tiny llama Q4_1\"");
        CHECK_HAS(
            text,
            "\"tokenizer.ggml.tokens\":{\"type\":\"STRING\",\"length\":320,\"first\":[\"<|endoftext|>\",");
        CHECK_HAS(text, "\"types\":{\"F32\":{\"tensors\":5,");
        CHECK(strstr(text, "unsupported") == NULL);
    }
    free(text);
    load_free(&l);
    free(b.bytes);
}

int main(void) {
    static const test tests[] = {
        {"any chunking gives the same weights", test_any_chunking},
        {"tensors in any order", test_shuffled},
        {"the file's bytes are not kept", test_keeps_no_bytes},
        {"ranges of the header", test_want_header},
        {"ranges of tensors", test_want_order},
        {"calls out of turn", test_calls},
        {"gaps are final errors", test_gaps},
        {"truncated at 50 places", test_truncated},
        {"files that are no model", test_bad_files},
        {"weights that are not finite", test_not_finite},
        {"by several workers the same", test_workers},
        {"every allocation fails once", test_no_memory},
        {"inspect", test_inspect},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
