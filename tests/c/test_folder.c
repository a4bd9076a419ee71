/* Folders that the quantizer makes: loaded again, every matrix is its rows rounded to the grid (which test_grids takes from
 * numpy), vectors and embedding stay, and what cannot be written is told. tests/verify/verify_folder.py compares their logits
 * with those of transformers. */
#include "core/encode_grid.h"
#include "core/model.h"
#include "tests/c/model_files.h"

#define FIXTURES "tests/fixtures"

void nibl_test_fail_alloc(int64_t n);

typedef struct file {
    char name[64];
    uint8_t *bytes;
    size_t length;
} file;

typedef struct folder {
    file files[16];
    size_t count;
} folder;

static void drop(folder *f) {
    for (size_t i = 0; i < f->count; i++) free(f->files[i].bytes);
    f->count = 0;
}

/* What a matrix takes in the folder: its bits, scales and zero points, and not what it takes in memory. */
static void check_bytes(const char *report, const char *type) {
    const char *at = strstr(report, "\"blk.0.ffn_up"), *columns, *bytes;
    if (!CHECK(at && (columns = strstr(at, "columns\":")) && (bytes = strstr(at, "\"bytes\":")))) return;
    const double weights = strtod(strstr(at, "rows\":") + 6, NULL) * strtod(columns + 9, NULL),
                 bits = 8 * strtod(bytes + 8, NULL) / weights;
    CHECK(bits >= type[1] - '0' && bits < type[1] - '0' + 1.5);
}

static nibl_status quantize(nibl_model *model, nibl_quantize_options options, folder *out) {
    nibl_quantizer *q = NULL;
    uint64_t total = 0;
    options.size = sizeof options;
    *out = (folder){0};
    nibl_status status = nibl_model_quantizer_new(model, &options, NULL, 0, 0, &q);
    if (status < 0) return status;
    for (status = NIBL_MORE; status == NIBL_MORE;) {
        const void *bytes;
        size_t length;
        status = nibl_quantizer_step(q);
        nibl_quantizer_output(q, &bytes, &length);
        if (status < 0 || length == 0) continue;
        const char *name = nibl_quantizer_file(q) ? nibl_quantizer_file(q) : "m.gguf";
        if (out->count == 0 || strcmp(out->files[out->count - 1].name, name) != 0)
            snprintf(out->files[out->count++].name, 64, "%s", name);
        file *f = &out->files[out->count - 1];
        f->bytes = realloc(f->bytes, f->length + length);
        memcpy(f->bytes + f->length, bytes, length);
        f->length += length;
        total += length;
    }
    if (status == NIBL_OK) {
        char report[20000];
        size_t needed;
        CHECK_EQ(total, nibl_quantizer_size(q));
        CHECK_EQ(nibl_quantizer_report(q, report, sizeof report, &needed), NIBL_OK);
        CHECK_HAS(report, "\"recipe\":{\"type\":\"w");
        check_bytes(report, options.type);
    }
    nibl_quantizer_free(q);
    if (status < 0) drop(out);
    return status;
}

/* Files that the folder lacks are read from `rest`. */
static nibl_model *load(const folder *f, const char *rest) {
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    nibl_status status = nibl_loader_new(0, &loader);
    if (status >= 0) status = nibl_loader_set_name(loader, "config.json");
    uint64_t address, wanted = 1;
    while (status >= 0 && wanted > 0) {
        if (!model && nibl_loader_header_ready(loader)) status = nibl_loader_begin(loader, &model);
        if (status >= 0) status = nibl_loader_want(loader, &address, &wanted);
        if (status < 0 || wanted == 0) break;
        const char *name = nibl_loader_file_name(loader, NIBL_ADDRESS_FILE(address));
        const size_t offset = (size_t)NIBL_ADDRESS_OFFSET(address);
        file found = {.length = 0};
        uint8_t *own = NULL;
        for (size_t i = 0; i < f->count; i++)
            if (strcmp(f->files[i].name, name) == 0) found = f->files[i];
        if (!found.bytes && strstr(name, "tokenizer")) {
            char path[256];
            snprintf(path, sizeof path, "%s/%s", rest, name);
            own = found.bytes = read_file(path, &found.length);
        }
        if (offset >= found.length)
            status = nibl_loader_end(loader, NIBL_ADDRESS(NIBL_ADDRESS_FILE(address), found.length));
        else
            status =
                nibl_loader_feed(loader, address, found.bytes + offset,
                                 wanted < found.length - offset ? (size_t)wanted : found.length - offset);
        free(own);
    }
    if (status < 0) printf("    %s\n", nibl_last_message());
    CHECK(status >= 0);
    nibl_loader_free(loader);
    return model;
}

/* Every row of a matrix is that of the source, rounded. */
static void check_matrix(const nibl_model *source, const nibl_matrix *from, const nibl_matrix *to,
                         const char *type) {
    nibl_integers form;
    nibl_integer_type t;
    const uint32_t n = from->cols;
    if (!CHECK(to->rows == from->rows && to->cols == n) || from->rows == 0 ||
        !CHECK(nibl_integers_read(type, &form)) ||
        !CHECK(nibl_integers_make(&form, from->rows, n, false, &t)))
        return;
    float *all = malloc((size_t)from->rows * n * sizeof *all), *y = malloc(n * sizeof *y);
    nibl_block *blocks = malloc(n / 32 * sizeof *blocks), whole = {0};
    for (uint32_t i = 0; i < from->rows; i++) source->kernels->unpack_row(all + (size_t)i * n, from, i);
    const bool one = t.grid.group > n;
    if (one) t.grid.choose(&t.grid, all, NULL, from->rows * n, false, &whole);
    bool same = true;
    for (uint32_t i = 0; i < from->rows && same; i++) {
        nibl_choose_row(nibl_kernels_get(NULL), &t.type, all + (size_t)i * n, NULL, n, false,
                        one ? &whole : NULL, blocks);
        source->kernels->unpack_row(y, to, i);
        for (uint32_t j = 0; j < n && same; j++) {
            const nibl_block *b = &blocks[j / 32];
            const float level = nibl_code_level(&t.grid, b->codes[j % 32]) - (float)b->zero_point;
            same = y[j] + 0.0f == level * b->scale + 0.0f;
        }
    }
    if (!CHECK(same)) printf("    %s, %u x %u\n", type, from->rows, n);
    free(all);
    free(y);
    free(blocks);
}

static void check_model(const nibl_model *source, const nibl_model *made, const char *type) {
    for (uint32_t l = 0; l < source->hyper.layers; l++) {
        const nibl_layer *a = &source->layers[l], *b = &made->layers[l];
        const nibl_matrix *from[] = {&a->wq, &a->wk, &a->wv, &a->wo, &a->conv_in, &a->conv_out},
                          *to[] = {&b->wq, &b->wk, &b->wv, &b->wo, &b->conv_in, &b->conv_out};
        for (int i = 0; i < 6; i++) check_matrix(source, from[i], to[i], type);
        for (uint32_t e = 0; e < nibl_arch_dim(&source->hyper, NIBL_DIM_EXPERTS); e++) {
            check_matrix(source, &a->gate[e], &b->gate[e], type);
            check_matrix(source, &a->up[e], &b->up[e], type);
            check_matrix(source, &a->down[e], &b->down[e], type);
        }
        CHECK(memcmp(a->attn_norm, b->attn_norm, source->hyper.width * 4ul) == 0);
        CHECK(memcmp(a->ffn_norm, b->ffn_norm, source->hyper.width * 4ul) == 0);
        CHECK(!a->conv ||
              memcmp(a->conv, b->conv, 4ul * source->hyper.width * source->hyper.conv_length) == 0);
    }
    CHECK_EQ(made->tied, source->tied);
    float x[4096], y[4096];
    for (uint32_t i = 0; i < source->hyper.vocabulary && source->hyper.width <= 4096; i += 7) {
        source->kernels->unpack_row(x, &source->embedding, i);
        made->kernels->unpack_row(y, &made->embedding, i);
        CHECK(memcmp(x, y, source->hyper.width * sizeof *x) == 0);
    }
}

static void grids_come_back(void) {
    static const char *const types[] = {"w2g32",           "w3g64asym",      "w4",       "w4rowasym",
                                        "w5g32sym-range",  "w6g96asym-bf16", "w7row",    "w8g32asym",
                                        "w8tensor-absmax", "w4tensorasym",   "w4g32-f32"};
    static const char *const sources[] = {FIXTURES "/tiny-llama-f32.gguf", FIXTURES "/tiny-llama-f16.gguf"};
    for (size_t s = 0; s < 2; s++) {
        nibl_model *source = load_file(sources[s]);
        for (size_t i = 0; source && i < sizeof types / sizeof *types; i++) {
            const nibl_quantize_options o = {.type = types[i],
                                             .embedding = "f32",
                                             .head = "f32",
                                             .threads = 1 + (uint32_t)i % 3,
                                             .shard_bytes = i % 2 ? 20000 : 0};
            folder f;
            if (!CHECK_EQ(quantize(source, o, &f), NIBL_OK)) {
                printf("    %s: %s\n", types[i], nibl_last_message());
                continue;
            }
            CHECK(i % 2 == (strstr(f.files[0].name, "-of-") != NULL));
            nibl_model *made = load(&f, "none");
            if (CHECK(made)) check_model(source, made, types[i]);
            /* the same text gives the same tokens */
            static const char text[] = "Hello  wörld 123\n\n it's";
            int32_t a[64], b[64];
            size_t na = 0, nb = 0;
            CHECK_EQ(nibl_tokenize(source, text, sizeof text - 1, 0, a, 64, &na), NIBL_OK);
            CHECK_EQ(nibl_tokenize(made, text, sizeof text - 1, 0, b, 64, &nb), NIBL_OK);
            CHECK(na == nb && memcmp(a, b, na * sizeof *a) == 0);
            nibl_model_free(made);
            drop(&f);
        }
        nibl_model_free(source);
    }
}

/* A folder, and the text of its config.json: the caller's. */
static nibl_model *load_source(const char *path, char **config) {
    size_t length = 0;
    char document[256];
    nibl_model *source;
    snprintf(document, sizeof document, "%s/config.json", path);
    uint8_t *bytes = read_file(document, &length);
    *config = calloc(1, length + 1);
    memcpy(*config, bytes, length);
    free(bytes);
    CHECK_EQ(load_files(path, "config.json", (load_options){0}, &source), NIBL_OK);
    return source;
}

static void folders_come_from_folders(void) {
    char *text;
    nibl_model *source = load_source(FIXTURES "/tiny-hf-f16", &text);
    folder f;
    nibl_quantize_options o = {.type = "w4g32asym", .embedding = "f32", .head = "f32"};
    CHECK_EQ(quantize(source, o, &f), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "its config.json is needed");
    o.config = text;
    if (CHECK_EQ(quantize(source, o, &f), NIBL_OK)) {
        nibl_model *made = load(&f, FIXTURES "/tiny-hf-f16");
        if (CHECK(made)) check_model(source, made, o.type);
        nibl_model_free(made);
        drop(&f);
    }
    nibl_model_free(source);
    free(text);
}

/* A folder and a GGUF file that are made of a source have one result. */
static void check_formats(nibl_model *source, nibl_quantize_options o, const char *rest) {
    folder f, g;
    if (!CHECK_EQ(quantize(source, o, &f), NIBL_OK)) return;
    o.format = "gguf";
    if (!CHECK_EQ(quantize(source, o, &g), NIBL_OK)) return;
    CHECK_EQ(g.count, 1);
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    CHECK_EQ(nibl_loader_new(g.files[0].length, &loader), NIBL_OK);
    nibl_loader_feed(loader, 0, g.files[0].bytes, g.files[0].length);
    CHECK_EQ(nibl_loader_begin(loader, &model), NIBL_OK);
    CHECK_EQ(nibl_loader_feed(loader, 0, g.files[0].bytes, g.files[0].length), NIBL_OK);
    nibl_loader_free(loader);
    CHECK(logits_hash(model, 1) == logits_hash(load(&f, rest), 1));
    drop(&f);
    drop(&g);
}

/* A symmetric grid of 4 bits is the same model as Q4_0 that repeats the scale. */
static void gguf_holds_some(void) {
    nibl_model *source = load_file(FIXTURES "/tiny-llama-f32.gguf");
    static const char *const types[] = {"w4g32", "w4g96", "w4row-range", "w4tensor"};
    for (size_t i = 0; source && i < 4; i++)
        check_formats(source, (nibl_quantize_options){.type = types[i], .embedding = "f32", .head = "f32"},
                      "none");
    nibl_model_free(source);
}

/* Matrices that share a tensor, experts with one each, convolutions; and what transformers keeps transposed is told. */
static void matrices_stand_as_transformers_has_them(void) {
    static const char *const archs[] = {"phi3", "qwen3moe", "lfm2", "gpt2", "gpt-oss"};
    for (size_t i = 0; i < 5; i++) {
        char path[64], *config;
        folder f;
        snprintf(path, sizeof path, FIXTURES "/arch/%s", archs[i]);
        nibl_model *source = load_source(path, &config);
        nibl_quantize_options o = {.type = "w4g32asym",
                                   .embedding = "f32",
                                   .head = "f32",
                                   .config = config,
                                   .threads = 2,
                                   .shard_bytes = 30000};
        const nibl_status status = quantize(source, o, &f);
        if (i < 3 ? !CHECK_EQ(status, NIBL_OK) : CHECK_EQ(status, NIBL_E_UNSUPPORTED))
            CHECK_HAS(nibl_last_message(), "no linear layers");
        if (status == NIBL_OK) {
            nibl_model *made = load(&f, path);
            if (CHECK(made)) check_model(source, made, o.type);
            nibl_model_free(made);
            drop(&f);
            o.type = "w4g32";
            check_formats(source, o, path);
        }
        nibl_model_free(source);
        free(config);
    }
}

static void what_cannot_be_is_told(void) {
    static const struct {
        nibl_quantize_options options;
        const char *says;
    } cases[] = {
        {{.type = "w4g64asym", .format = "gguf"}, "GGUF has no type for 'w4g64asym'"},
        {{.type = "w3", .format = "gguf"}, "GGUF has no type"},
        {{.type = "w4", .head = "q8_0"}, "'q8_0' is GGUF's"},
        {{.type = "w4", .format = "onnx"}, "no format 'onnx'"},
        {{.type = "w4asym-f32"}, "zero points go with F16"},
        {{.type = "w4", .embedding = "w4"}, "the embedding"},
        {{.type = "w4", .method = "gptq"}, "needs a calibration text"},
    };
    nibl_model *source = load_file(FIXTURES "/tiny-llama-f32.gguf");
    for (size_t i = 0; source && i < sizeof cases / sizeof *cases; i++) {
        uint64_t before, after;
        folder f;
        nibl_memory(&before, NULL);
        if (!CHECK_EQ(quantize(source, cases[i].options, &f), NIBL_E_ARGUMENT)) drop(&f);
        CHECK_HAS(nibl_last_message(), cases[i].says);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
    }
    nibl_model_free(source);
}

static void memory_that_cannot_be_had_is_told(void) {
    nibl_model *source = load_file(FIXTURES "/tiny-llama-f32.gguf");
    const nibl_quantize_options o = {
        .type = "w4tensorasym", .embedding = "f32", .head = "f32", .shard_bytes = 20000};
    nibl_status status = NIBL_E_MEMORY;
    for (int64_t n = 0; status != NIBL_OK && n < 400; n += n < 30 ? 1 : 5) {
        uint64_t before, after;
        folder f;
        nibl_memory(&before, NULL);
        nibl_test_fail_alloc(n);
        status = quantize(source, o, &f);
        nibl_test_fail_alloc(-1);
        drop(&f);
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before) || (status != NIBL_OK && !CHECK_EQ(status, NIBL_E_MEMORY))) break;
    }
    CHECK_EQ(status, NIBL_OK);
    nibl_model_free(source);
}

static const test tests[] = {
    {"grids come back", grids_come_back},
    {"folders come from folders", folders_come_from_folders},
    {"GGUF holds some", gguf_holds_some},
    {"matrices stand as transformers has them", matrices_stand_as_transformers_has_them},
    {"what cannot be is told", what_cannot_be_is_told},
    {"memory that cannot be had is told", memory_that_cannot_be_had_is_told},
};

int main(void) { return test_run(tests, sizeof tests / sizeof *tests); }
