/* The quantizer: the same file for any chunking and number of threads, the same model as quantizing on arrival (whose bits
 * another test takes from gguf.quants), and errors that name what is wrong and leave nothing behind. */
#include "core/base.h"
#include "tests/c/gguf_builder.h"
#include "tests/c/model_files.h"
#include "tests/c/output.h"

#include <math.h>

#define FIXTURES "tests/fixtures"

void nibl_test_fail_alloc(int64_t n);

typedef struct run {
    nibl_quantize_options options;
    size_t piece; /* bytes fed at once; 0 = all that is wanted */
    spoilt spoilt;
} run;

/* Quantizes a model; its output is the caller's after a success. */
static nibl_status quantize(const char *folder, const char *name, run r, output *o) {
    model_files m = {.folder = folder, .options = {.spoilt = r.spoilt, .piece = r.piece}, .file = UINT32_MAX};
    nibl_loader *loader = NULL;
    nibl_quantizer *q = NULL;
    *o = (output){0};
    r.options.size = sizeof r.options;
    nibl_status status = nibl_loader_new(0, &loader);
    if (status >= 0) status = nibl_loader_set_name(loader, name);
    for (bool done = false; status >= 0 && !done;) {
        if (!q && nibl_loader_header_ready(loader)) status = nibl_quantizer_new(loader, &r.options, &q);
        if (status >= 0) status = answer_loader(&m, loader, &done);
        if (q && status >= 0) take_output(q, &o->bytes, &o->length);
    }
    if (status >= 0) {
        size_t needed = 0;
        CHECK_EQ(o->length, nibl_quantizer_size(q));
        CHECK_EQ(nibl_quantizer_report(q, NULL, 0, &needed), NIBL_E_BUFFER);
        o->report = malloc(needed + 1);
        CHECK_EQ(nibl_quantizer_report(q, o->report, needed + 1, &needed), NIBL_OK);
    } else {
        drop(o);
    }
    free(m.bytes);
    nibl_loader_free(loader);
    nibl_quantizer_free(q);
    return status < 0 ? status : NIBL_OK;
}

static const nibl_quantize_options q4_0 = {.embedding = "Q4_0", .head = "q4_0"};

static nibl_model *load_bytes(const output *o) {
    nibl_loader *loader = NULL;
    nibl_model *model = NULL;
    if (CHECK_EQ(nibl_loader_new(o->length, &loader), NIBL_OK) &&
        CHECK_EQ(nibl_loader_feed(loader, 0, o->bytes, o->length), NIBL_NEED_DATA) &&
        CHECK_EQ(nibl_loader_begin(loader, &model), NIBL_OK) &&
        !CHECK_EQ(nibl_loader_feed(loader, 0, o->bytes, o->length), NIBL_OK))
        printf("    %s\n", nibl_last_message());
    nibl_loader_free(loader);
    return model;
}

#define SPLIT "tiny-split-00001-of-00003.gguf"

static void files_are_those_of_arrival(void) {
    static const struct {
        const char *folder, *name;
    } sources[] = {{FIXTURES, "tiny-llama-f16.gguf"},        {FIXTURES, "tiny-llama-bf16.gguf"},
                   {FIXTURES, "tiny-llama-f32.gguf"},        {FIXTURES, SPLIT},
                   {FIXTURES "/tiny-hf-f16", "config.json"}, {FIXTURES "/tiny-hf-bf16", "config.json"}};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        output o;
        if (!CHECK_EQ(quantize(sources[i].folder, sources[i].name, (run){.options = q4_0}, &o), NIBL_OK)) {
            printf("    %s: %s\n", sources[i].name, nibl_last_message());
            continue;
        }
        nibl_model *arrived;
        CHECK_EQ(load_files(sources[i].folder, sources[i].name, (load_options){.quantize = "q4_0"}, &arrived),
                 NIBL_OK);
        CHECK(logits_hash(load_bytes(&o), 0) == logits_hash(arrived, 0));
        drop(&o);
    }
    output o;
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-f16.gguf", (run){.options = q4_0}, &o), NIBL_OK);
    CHECK(logits_hash(load_bytes(&o), 0) ==
          logits_hash(load_file(FIXTURES "/tiny-llama-f16-as-q4_0.gguf"), 0));
    drop(&o);
}

static void one_file_for_all_ways(void) {
    static const char *const types[] = {"q4_0", "q4_1", "mxfp4", "q8_0", "bf16"};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        output first, other;
        nibl_quantize_options options = {.type = types[t],
                                         .tensors = &(nibl_tensor_type){"*.ffn_down.weight", "Q5_1"},
                                         .tensor_count = 1,
                                         .method = t % 2 ? "clip" : "rtn"};
        CHECK_EQ(quantize(FIXTURES, "tiny-llama-f16.gguf", (run){.options = options}, &first), NIBL_OK);
        for (uint32_t threads = 1; threads < 5; threads++) {
            options.threads = threads;
            const run r = {.options = options, .piece = threads == 1 ? 1 : 1000 * threads - 77};
            CHECK_EQ(quantize(FIXTURES, threads < 3 ? "tiny-llama-f16.gguf" : SPLIT, r, &other), NIBL_OK);
            CHECK(other.length == first.length && memcmp(other.bytes, first.bytes, first.length) == 0);
            drop(&other);
        }
        CHECK(logits_hash(load_bytes(&first), 0) != 0);
        drop(&first);
    }
}

static void every_type_is_loaded(void) {
    static const char *const types[] = {"f32",    "f16",   "bf16",  "q4_0",  "q4_1", "q5_0", "q5_1",
                                        "q8_0",   "q2_k",  "q3_k",  "q4_k",  "q5_k", "q6_k", "iq4_nl",
                                        "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        output o;
        const nibl_quantize_options options = {.type = types[i], .embedding = types[i], .head = types[i]};
        CHECK_EQ(quantize(FIXTURES, "tiny-llama-bf16.gguf", (run){.options = options}, &o), NIBL_OK);
        if (!o.bytes) continue;
        CHECK(logits_hash(load_bytes(&o), 0) != 0);
        /* rows of 96 hold no block of 256 or 64 */
        const bool whole = strstr("q2_k q3_k q4_k q5_k q6_k iq4_xs tq1_0 tq2_0 nvfp4", types[i]) == NULL;
        CHECK((strstr(o.report, "\"why\":\"96 columns are no multiple of ") == NULL) == whole);
        drop(&o);
    }
}

static void quantized_sources_need_leave(void) {
    output o;
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-q4_1.gguf", (run){.options = q4_0}, &o), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "is Q4_1 already");
    nibl_quantize_options options = q4_0;
    options.requantize = true;
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-q4_1.gguf", (run){.options = options}, &o), NIBL_OK);
    CHECK_HAS(o.report, "\"from\":\"Q4_1\",\"to\":\"Q4_0\"");
    drop(&o);
    /* what has the type already is left alone, and floats hold it exactly */
    const nibl_quantize_options same = {.type = "q8_0"},
                                wide = {.type = "f32", .embedding = "f32", .head = "f32"};
    const uint64_t hash = logits_hash(load_file(FIXTURES "/tiny-llama-q8_0.gguf"), 0);
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-q8_0.gguf", (run){.options = same}, &o), NIBL_OK);
    CHECK(logits_hash(load_bytes(&o), 0) == hash);
    drop(&o);
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-q8_0.gguf", (run){.options = wide}, &o), NIBL_OK);
    CHECK_HAS(o.report, "\"bits_per_weight\":32.000");
    drop(&o);
}

static void wrong_options_are_told(void) {
    const nibl_tensor_type none[] = {{"*.ffn_up.weight", "q4_0"}, {"blk.*.ffn_sideways.weight", "q4_0"}},
                           bad = {"*", "q9_9"};
    const struct {
        nibl_quantize_options options;
        const char *says;
    } cases[] = {
        {{.type = "q9_9"}, "'q9_9'; possible are: f32, f16, q4_0"},
        {{.embedding = "iq2_xs"}, "'iq2_xs'"},
        {{.head = ""}, "''"},
        {{.method = "magic"}, "'magic'; possible are: rtn, clip, recover, imatrix, rotate, awq, gptq"},
        {{.method = "clip,,"}, "there is no method ''"},
        {{.method = "clip,gptq"}, "method gptq needs a calibration text"},
        {{.threads = 65}, "threads is 65"},
        {{.tensors = none, .tensor_count = 2}, "'blk.*.ffn_sideways.weight' is the name of no tensor"},
        {{.tensors = &bad, .tensor_count = 1}, "'q9_9'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        CHECK_EQ(quantize(FIXTURES, "tiny-llama-f16.gguf", (run){.options = cases[i].options}, &o),
                 NIBL_E_ARGUMENT);
        CHECK_HAS(nibl_last_message(), cases[i].says);
    }
    nibl_quantizer *q;
    nibl_loader *loader;
    CHECK_EQ(nibl_loader_new(0, &loader), NIBL_OK);
    CHECK_EQ(nibl_quantizer_new(loader, &(nibl_quantize_options){.size = sizeof(nibl_quantize_options)}, &q),
             NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "header has not arrived");
    nibl_loader_free(loader);
}

/* A matrix of 64 rows of 256 weights, quantized to TQ2_0: of three values, or of any. */
static nibl_status round_ternary(bool trained, bool force) {
    builder b = {0};
    put_start(&b, 1, 1);
    put_key_string(&b, "general.architecture", "llama");
    put_tensor(&b, "blk.0.ffn_up.weight", 0, 2, 256, 64, 0);
    put_padding(&b, 32);
    uint32_t random = 1;
    for (int i = 0; i < 64 * 256; i++) {
        random = random * 1664525 + 1013904223;
        const int third = (int)((random >> 16) % 3) - 1;
        put_f32(&b, trained ? 0.25f * (float)third : (float)(random >> 8) / (1 << 23) - 1);
    }
    const nibl_quantize_options options = {.size = sizeof options, .type = "tq2_0", .force = force};
    nibl_loader *loader = NULL;
    nibl_quantizer *q = NULL;
    CHECK_EQ(nibl_loader_new(b.length, &loader), NIBL_OK);
    CHECK_EQ(nibl_loader_feed(loader, 0, b.bytes, b.length), NIBL_NEED_DATA);
    CHECK_EQ(nibl_quantizer_new(loader, &options, &q), NIBL_OK);
    const nibl_status status = nibl_loader_feed(loader, 0, b.bytes, b.length);
    nibl_quantizer_free(q);
    nibl_loader_free(loader);
    free(b.bytes);
    return status;
}

static void ternary_rounding_is_for_ternary_weights(void) {
    CHECK_EQ(round_ternary(true, false), NIBL_OK);
    CHECK_EQ(round_ternary(false, true), NIBL_OK);
    CHECK_EQ(round_ternary(false, false), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "'blk.0.ffn_up.weight': rounded to TQ2_0 it loses ");
    CHECK_HAS(nibl_last_message(), "not trained for it");
}

/* A file with one value spoilt is fed; the error names its tensor and row. */
static void values_that_are_no_numbers_are_told(void) {
    static const uint16_t bad[] = {0x7C00, 0xFC00, 0x7E01};
    size_t length = 0;
    uint8_t *bytes = read_file(FIXTURES "/tiny-llama-f16.gguf", &length);
    for (size_t i = 0; i < 3; i++) {
        uint64_t before, after;
        nibl_memory(&before, NULL);
        nibl_loader *loader = NULL;
        nibl_quantizer *q = NULL;
        const nibl_quantize_options options = {.size = sizeof options, .threads = 1 + (uint32_t)i};
        CHECK_EQ(nibl_loader_new(length, &loader), NIBL_OK);
        CHECK_EQ(nibl_loader_feed(loader, 0, bytes, length), NIBL_NEED_DATA);
        CHECK_EQ(nibl_quantizer_new(loader, &options, &q), NIBL_OK);
        /* the last tensor's row 5 */
        uint64_t address, wanted;
        CHECK_EQ(nibl_loader_want(loader, &address, &wanted), NIBL_OK);
        uint8_t *copy = malloc(length);
        memcpy(copy, bytes, length);
        const size_t at = (size_t)address + 96 * 2 * 5 + 8;
        copy[at] = (uint8_t)bad[i];
        copy[at + 1] = (uint8_t)(bad[i] >> 8);
        CHECK_EQ(nibl_loader_feed(loader, 0, copy, length), NIBL_E_NUMERIC);
        CHECK_HAS(nibl_last_message(), "row 5: a value is infinite or NaN");
        CHECK_EQ(nibl_loader_feed(loader, 0, bytes, length), NIBL_E_NUMERIC); /* final */
        free(copy);
        nibl_quantizer_free(q);
        nibl_loader_free(loader);
        nibl_memory(&after, NULL);
        CHECK_EQ(after, before);
    }
    free(bytes);
}

static void truncated_sources_are_told(void) {
    output o;
    CHECK_EQ(quantize(FIXTURES, "tiny-llama-f16.gguf",
                      (run){.options = q4_0, .spoilt = {"tiny-llama-f16.gguf", .length = 100000}}, &o),
             NIBL_E_TRUNCATED);
    CHECK_EQ(quantize(FIXTURES, SPLIT,
                      (run){.options = q4_0, .spoilt = {"tiny-split-00002-of-00003.gguf", .length = 0}}, &o),
             NIBL_E_TRUNCATED);
}

static void memory_that_cannot_be_had_is_told(void) {
    uint64_t before, after;
    nibl_memory(&before, NULL);
    int64_t n = 0;
    for (nibl_status status = NIBL_E_MEMORY; status != NIBL_OK && n < 2000; n++) {
        output o;
        nibl_test_fail_alloc(n);
        status = quantize(FIXTURES, "tiny-llama-f16.gguf", (run){.options = q4_0, .piece = 1 << 16}, &o);
        nibl_test_fail_alloc(-1);
        if (status != NIBL_OK && !CHECK_EQ(status, NIBL_E_MEMORY)) break;
        drop(&o);
        nibl_memory(&after, NULL);
        if (!CHECK_EQ(after, before)) break;
    }
    CHECK(n > 20 && n < 2000);
}

static const test tests[] = {
    {"files are those of quantizing on arrival", files_are_those_of_arrival},
    {"one file for all ways", one_file_for_all_ways},
    {"every type is loaded", every_type_is_loaded},
    {"quantized sources need leave", quantized_sources_need_leave},
    {"wrong options are told", wrong_options_are_told},
    {"ternary rounding is for ternary weights", ternary_rounding_is_for_ternary_weights},
    {"values that are no numbers are told", values_that_are_no_numbers_are_told},
    {"truncated sources are told", truncated_sources_are_told},
    {"memory that cannot be had is told", memory_that_cannot_be_had_is_told},
};

int main(void) { return test_run(tests, sizeof tests / sizeof *tests); }
