/* Hugging Face's quantized layouts: the weights and logits of the reference libraries, and errors that name what is
 * wrong. Fixtures: tests/fixtures/quantized_hf.py. */
#include "core/hf_quant.h"
#include "core/model.h"
#include "tests/c/fixture.h"
#include "tests/c/model_files.h"

#define FOLDER "tests/fixtures/quantized"

static const char *const layouts[] = {"int4",         "int4-order",  "int8-packed",  "int8",
                                      "int8-tensor",  "int8-zeros",  "nvfp4",        "mxfp4",
                                      "gptq",         "gptq-order",  "gptq-8",       "awq",
                                      "bitnet",       "bitnet-auto", "phi3-awq",     "phi3-gptq-order",
                                      "phi3-int8",    "phi3-nvfp4",  "qwen3moe-awq", "qwen3moe-gptq-order",
                                      "qwen3moe-int4"};

enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static nibl_model *load_layout(const char *layout, load_options options) {
    nibl_model *model;
    options.layout = layout;
    const nibl_status status = load_files(FOLDER, "config.json", options, &model);
    if (!CHECK_EQ(status, NIBL_OK)) printf("    %s: %s\n", layout, nibl_last_message());
    return model;
}

/* Ids and logits as in a fixture; *rest: where the hashes of the matrices begin. */
static bool open_expected(const char *layout, fixture *f, size_t *rest) {
    char path[128];
    size_t length;
    snprintf(path, sizeof path, FOLDER "/%s.expected", layout);
    return read_logits(path, f, &length, rest);
}

/* FNV-1a over the bits of all values, by rows of the file and its columns. */
static uint64_t hash_of(const nibl_model *m, const nibl_matrix *w, uint32_t halves) {
    uint64_t hash = 0xCBF29CE484222325u;
    float *packed = malloc(w->cols * sizeof *packed), *row = malloc(w->cols * sizeof *row);
    for (uint32_t i = 0; i < w->rows; i++) {
        const uint32_t half = halves / 2, within = halves ? i % halves : 0;
        const uint32_t at = halves ? i - within + (within < half ? 2 * within : 2 * (within - half) + 1) : i;
        m->kernels->unpack_row(packed, w, at);
        for (uint32_t j = 0; j < w->cols; j++) row[w->gather ? w->gather[j] : j] = packed[j] + 0.0f;
        const uint8_t *bytes = (const uint8_t *)row;
        for (size_t j = 0; j < w->cols * sizeof *row; j++) hash = (hash ^ bytes[j]) * 0x100000001B3u;
    }
    free(packed);
    free(row);
    return hash;
}

static void the_weights_are_those_of_the_references(void) {
    for (size_t i = 0; i < LAYOUTS; i++) {
        fixture f = {0};
        size_t rest = 0;
        f.model = load_layout(layouts[i], (load_options){0});
        if (open_expected(layouts[i], &f, &rest) && CHECK(f.model)) {
            const nibl_model *m = f.model;
            const nibl_layer *l = m->layers;
            const nibl_matrix *all[32] = {&l->wq, &l->wk, &l->wv, &l->wo};
            uint32_t count = 4;
            for (uint32_t e = 0; e < nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS); e++) {
                all[count++] = &l->gate[e];
                all[count++] = &l->up[e];
                all[count++] = &l->down[e];
            }
            if (!m->tied) all[count++] = &m->head;
            const uint8_t *at = f.bytes + rest;
            CHECK_EQ(count, nibl_load_u32(at));
            for (uint32_t j = 0; j < count; j++)
                if (!CHECK(hash_of(m, all[j], j < 2 && m->rope_halves ? 16 : 0) ==
                           nibl_load_u64(at + 4 + 8 * j)))
                    printf("    %s: matrix %u\n", layouts[i], j);
        }
        close_fixture(&f);
    }
}

static void check_logits(const char *layout, load_options options) {
    fixture f = {0};
    size_t rest = 0;
    f.model = load_layout(layout, options);
    if (open_expected(layout, &f, &rest) && CHECK(f.model)) {
        const double worst = exact_difference(&f, f.model);
        printf("%s: max abs difference %.2g\n", layout, worst);
        CHECK(worst < 1e-4);
    }
    close_fixture(&f);
}

static void the_logits_are_those_of_the_references(void) {
    for (size_t i = 0; i < LAYOUTS; i++) check_logits(layouts[i], (load_options){0});
}

/* Rounded activations: the same bits however the bytes came and however many threads there are. */
static uint64_t rounded_hash(const char *layout, load_options options, uint32_t threads) {
    return logits_hash(load_layout(layout, options), threads);
}

static void any_chunking_gives_the_same_model(void) {
    for (size_t i = 0; i < LAYOUTS; i++) {
        const uint64_t whole = rounded_hash(layouts[i], (load_options){0}, 1);
        CHECK(whole != 0);
        CHECK(rounded_hash(layouts[i], (load_options){.piece = 777}, 1) == whole);
        CHECK(rounded_hash(layouts[i], (load_options){.quiet = true, .piece = 13}, 2) == whole);
    }
}

static void what_is_known_of_a_model(void) {
    nibl_model_info info = {.size = sizeof info};
    const uint64_t embedding = 272 * 64, attention = 3 * 64 + 2 * 64 * 64 + 2 * 32 * 64, ffn = 3 * 64 * 128,
                   experts = 2 * 16 + 4 * 64 + 4 * 3 * 64 * 32;
    for (size_t i = 0; i < LAYOUTS; i++) {
        nibl_model *m = load_layout(layouts[i], (load_options){0});
        if (!m) continue;
        CHECK_EQ(nibl_model_get_info(m, &info), NIBL_OK);
        CHECK_EQ(info.parameters,
                 attention + (m->hyper.experts ? experts : ffn) + embedding * (m->tied ? 1 : 2));
        nibl_model_free(m);
    }
}

/* ---- The expert layout of gpt-oss, which no model of this build has yet ---- */

static void experts_of_gpt_oss_are_placed(void) {
    enum { ROWS = 12, COLS = 64 };
    const nibl_hfq_method *method = NULL;
    for (size_t i = 0; i < nibl_hfq_method_count; i++)
        if (strcmp(nibl_hfq_methods[i].name, "mxfp4") == 0) method = &nibl_hfq_methods[i];
    nibl_matrix w = {.rows = ROWS,
                     .cols = COLS,
                     .kind = NIBL_KIND_E2M1,
                     .scale = NIBL_SCALE_E8M0,
                     .layout = NIBL_LAYOUT_PLAIN,
                     .factor = 1};
    w.data = calloc(nibl_panels(&w), nibl_panel_bytes(&w));
    nibl_hfq q = {
        .config.method = method, .w = &w, .bits = 4, .groups = COLS / 32, .group = 32, .scale_type = 24};
    for (uint32_t r = ROWS; r-- > 0;) {
        uint8_t blocks[COLS / 2], scales[COLS / 32];
        for (uint32_t j = 0; j < COLS / 2; j++) blocks[j] = (uint8_t)(r * 31 + j * 7);
        for (uint32_t j = 0; j < COLS / 32; j++) scales[j] = (uint8_t)(120 + r + j);
        CHECK_EQ(method->parts[1].take(&q, r, scales), NIBL_OK);
        CHECK_EQ(method->parts[0].take(&q, r, blocks), NIBL_OK);
    }
    static const float values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    for (uint32_t r = 0; r < ROWS; r++) {
        float row[COLS];
        nibl_kernels_get(NULL)->unpack_row(row, &w, r);
        for (uint32_t k = 0; k < COLS; k++) {
            const uint8_t byte = (uint8_t)(r * 31 + k / 2 * 7);
            const double scale = ldexp(1, (int)(120 + r + k / 32) - 127);
            CHECK((double)row[k] == (double)values[k % 2 ? byte >> 4 : byte & 15] * scale);
        }
    }
    const uint8_t nan[2] = {127, 255};
    CHECK_EQ(method->parts[1].take(&q, 0, nan), NIBL_E_FILE);
    free(w.data);
}

/* ---- What is refused ---- */

typedef struct wrong {
    const char *layout;
    spoilt spoilt;
    nibl_status status;
    const char *says;
} wrong;

#define CONFIG(from, to) {"config.json", .replace = from, .with = to}
#define WEIGHTS(from, to) {"layout.safetensors", .replace = from, .with = to}

static const wrong cases[] = {
    {"awq", CONFIG("\"awq\"", "\"aqt\""), NIBL_E_UNSUPPORTED, "quantized by method 'aqt'"},
    {"awq", CONFIG("\"gemm\"", "\"gemv\""), NIBL_E_UNSUPPORTED, "AWQ's version 'gemv'"},
    {"awq", CONFIG("\"zero_point\": true", "\"zero_point\":false"), NIBL_E_UNSUPPORTED,
     "without zero points"},
    {"awq", CONFIG("\"bits\": 4", "\"bits\": 3"), NIBL_E_UNSUPPORTED, "a number of bits '3'"},
    {"awq", CONFIG("\"group_size\": 32", "\"group_size\": 64"), NIBL_E_FILE,
     "do not fit 64 columns in groups of 64"},
    {"awq", CONFIG("\"group_size\": 32", "\"group_size\": 16"), NIBL_E_FILE, "do not fit"},
    {"awq", CONFIG("\"group_size\": 32", "\"group_size\": 33"), NIBL_E_UNSUPPORTED, "groups of 33 columns"},
    {"awq", CONFIG("\"group_size\": 32", "\"group_size\": 0 "), NIBL_E_FILE, "group size"},
    {"awq", WEIGHTS("q_proj.qzeros", "q_proj.qzerox"), NIBL_E_FILE, "q_proj.qzeros'"},
    {"awq", WEIGHTS("q_proj.scales", "q_proj.scalex"), NIBL_E_FILE, "q_proj.scales'"},
    {"awq", WEIGHTS("q_proj.qweight", "q_proj.qweighx"), NIBL_E_FILE, "q_proj.qweight'"},
    {"awq", WEIGHTS("\"shape\":[64,8]", "\"shape\":[8,64]"), NIBL_E_FILE, "has shape [1, 8, 64]"},
    {"awq", WEIGHTS("\"dtype\":\"I32\"", "\"dtype\":\"F32\""), NIBL_E_UNSUPPORTED, "F32"},
    {"gptq", CONFIG("\"gptq\"}", "\"gptx\"}"), NIBL_E_UNSUPPORTED, "GPTQ's format 'gptx'"},
    {"gptq", CONFIG("\"bits\": 4", "\"bits\": 5"), NIBL_E_UNSUPPORTED, "a number of bits '5'"},
    {"gptq", CONFIG("\"sym\": false", "\"sym\": true "), NIBL_E_FILE, "not the middle of the range"},
    {"gptq-order", CONFIG("\"group_size\": 32", "\"group_size\": 48"), NIBL_E_UNSUPPORTED,
     "groups of 48 columns"},
    {"int4", CONFIG("\"pack-quantized\"", "\"pock-quantized\""), NIBL_E_UNSUPPORTED,
     "format 'pock-quantized'"},
    {"int4", CONFIG("\"compressed\"", "\"calibrated\""), NIBL_E_UNSUPPORTED, "status 'calibrated'"},
    {"int4", WEIGHTS("q_proj.weight_scale", "q_proj.weight_scalx"), NIBL_E_FILE, "weight_scale'"},
    {"bitnet", CONFIG("\"bitlinear\"", "\"bitlineax\""), NIBL_E_UNSUPPORTED, "linear_class 'bitlineax'"},
    {"bitnet-auto", CONFIG("\"offline\"", "\"online\" "), NIBL_E_UNSUPPORTED, "quantization_mode 'online'"},
};

static void check_wrong(const wrong *w, size_t n) {
    check_refused(FOLDER, "config.json", (load_options){.spoilt = w->spoilt, .layout = w->layout}, w->status,
                  w->says, n);
}

static void wrong_folders_are_told(void) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_wrong(&cases[i], i);
}

/* Puts bytes at `offset` of a tensor of layout.safetensors; the file's bytes are read with them in place. */
typedef struct poke {
    const char *layout, *tensor;
    size_t offset;
    uint8_t bytes[4];
    size_t count;
    nibl_status status;
    const char *says;
} poke;

static void bad_values_are_told(void) {
    static const poke pokes[] = {
        {"int4-order", "q_proj.weight_g_idx", 0, {2, 0, 0, 0}, 4, NIBL_E_FILE, "does not exist"},
        {"int4-order", "q_proj.weight_g_idx", 0, {0xFF, 0xFF, 0xFF, 0xFF}, 4, NIBL_E_FILE, "does not exist"},
        {"gptq-order", "up_proj.g_idx", 0, {9, 0, 0, 0}, 4, NIBL_E_FILE, "does not exist"},
        {"gptq", "up_proj.g_idx", 0, {1, 0, 0, 0}, 4, NIBL_E_UNSUPPORTED, "groups of different sizes"},
        {"gptq", "up_proj.scales", 6, {0, 0x7C}, 2, NIBL_E_FILE, "infinite"},
        {"int8", "o_proj.weight_scale", 4, {0, 0, 0xC0, 0x7F}, 4, NIBL_E_FILE, "NaN"},
        {"int4", "v_proj.weight_shape", 0, {31}, 1, NIBL_E_FILE, "config.json asks for"},
        {"nvfp4", "v_proj.weight_scale", 3, {0x7F}, 1, NIBL_E_FILE, "negative or NaN"},
        {"nvfp4", "v_proj.weight_scale", 3, {0x81}, 1, NIBL_E_FILE, "negative or NaN"},
        {"nvfp4", "v_proj.weight_global_scale", 0, {0, 0, 0, 0}, 4, NIBL_E_FILE, "not a positive number"},
        {"mxfp4", "v_proj.weight_scale", 3, {0xFF}, 1, NIBL_E_FILE, "NaN"},
        {"bitnet", "v_proj.weight_scale", 0, {0, 0}, 2, NIBL_E_FILE, "0, infinite"},
    };
    for (size_t i = 0; i < sizeof pokes / sizeof *pokes; i++) {
        const poke *p = &pokes[i];
        nibl_model *model;
        const spoilt s = {"layout.safetensors", .tensor = p->tensor, .offset = p->offset, .bytes = p->bytes,
                          .length = p->count};
        const nibl_status status =
            load_files(FOLDER, "config.json", (load_options){.spoilt = s, .layout = p->layout}, &model);
        if (!CHECK_EQ(status, p->status)) printf("    %s: %s\n", p->tensor, nibl_last_message());
        if (status < 0) CHECK_HAS(nibl_last_message(), p->says);
        nibl_model_free(model);
    }
}

static void memory_errors_leave_nothing(void) {
    uint64_t before, after;
    nibl_memory(&before, NULL);
    for (int64_t n = 0;; n++) {
        nibl_model *model;
        nibl_test_fail_alloc(n);
        nibl_status status =
            load_files(FOLDER, "config.json", (load_options){.layout = "gptq-order"}, &model);
        nibl_test_fail_alloc(-1);
        nibl_model_free(model);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
        if (status == NIBL_OK) break;
        if (!CHECK_EQ(status, NIBL_E_MEMORY))
            printf("    allocation %lld: %s\n", (long long)n, nibl_last_message());
    }
}

int main(void) {
    static const test tests[] = {
        {"packed weights are those of the reference, bit for bit", the_weights_are_those_of_the_references},
        {"and so are the logits, within rounding", the_logits_are_those_of_the_references},
        {"any chunking gives the same model", any_chunking_gives_the_same_model},
        {"parameters are counted, not words", what_is_known_of_a_model},
        {"blocks and scales of gpt-oss' experts", experts_of_gpt_oss_are_placed},
        {"folders that contradict themselves are told", wrong_folders_are_told},
        {"and values that cannot be", bad_values_are_told},
        {"an allocation that fails leaves nothing", memory_errors_leave_nothing},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
