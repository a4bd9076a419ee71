/* Method recover: weights that were made of codes and scales come back, whatever floats they were kept in; weights that lie on
 * no grid are told, or left to another method. */
#include "core/model.h"
#include "core/quant/recover.h"
#include "kernels/maths.h"
#include "tests/c/output.h"

#include <math.h>

static uint32_t seed = 1;

static uint32_t below(uint32_t n) {
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * n) >> 32);
}

/* As a source of that type has it. */
static float kept(const nibl_dtype *from, float x) {
    const uint32_t bits = nibl_float_bits(x);
    if (from->kind == NIBL_KIND_F16) return nibl_f16_to_f32(nibl_f32_to_f16(x));
    return from->kind == NIBL_KIND_BF16 ? nibl_bits_float((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000)
                                        : x;
}

static void decode(const nibl_dtype *type, const nibl_block *block, float *x) {
    uint8_t bytes[256] = {0}, panel[8192] = {0};
    nibl_write_block(type, block, bytes);
    CHECK(nibl_decode_row(nibl_kernels_get(NULL), type, bytes, type->block, panel, x));
}

/* Blocks as nobody's rule makes them: any codes, some of them only, any scale of either sign, any minimum. */
static nibl_block random_block(const nibl_dtype *type, uint32_t codes) {
    const nibl_grid *g = nibl_grid_of(type);
    const bool bytes = type->kind == NIBL_KIND_INT8;
    const uint32_t reach = 1 + below(codes), first = below(codes - reach + 1);
    nibl_block b = {.d = (uint16_t)(0x1800 + below(0x0C00)), .m = (uint16_t)(0xA000 + below(0x0C00))};
    if (!g->min && below(2)) b.d |= 0x8000;
    b.scales[0] = (uint8_t)(110 + below(20));
    for (uint32_t i = 0; i < type->block; i++)
        b.codes[i] = (uint8_t)((bytes ? 256 - 127 : 0) + first + below(reach));
    return b;
}

static const struct {
    const char *type;
    uint32_t codes;
    int coarsest; /* floats that still tell levels apart: F32, F16, BF16 */
} cases[] = {{"q4_0", 16, 2}, {"q4_1", 16, 1}, {"q5_0", 32, 2},  {"q5_1", 32, 1},  {"q8_0", 255, 1},
             {"tq1_0", 3, 2}, {"tq2_0", 3, 2}, {"mxfp4", 16, 2}, {"iq4_nl", 16, 1}};
enum { CASES = sizeof cases / sizeof *cases, TRIES = 300 };

static void random_blocks_come_back(void) {
    static const char *const floats[] = {"f32", "f16", "bf16"};
    for (int c = 0; c < CASES; c++) {
        const nibl_dtype *type = nibl_encode_type(cases[c].type);
        for (int f = 0; f <= cases[c].coarsest; f++) {
            const nibl_dtype *from = nibl_encode_type(floats[f]);
            const double relative = f == 1 ? 0x1.02p-11 : f == 2 ? 0x1.02p-8 : 0;
            nibl_recovery counts = {0};
            double most = 0;
            for (int t = 0; t < TRIES; t++) {
                const nibl_block source = random_block(type, cases[c].codes);
                float exact[NIBL_SUPER], x[NIBL_SUPER], y[NIBL_SUPER], peak = 0;
                nibl_block block = {0};
                decode(type, &source, exact);
                for (uint32_t i = 0; i < type->block; i++) {
                    x[i] = kept(from, exact[i]);
                    peak = fmaxf(peak, fabsf(x[i]));
                }
                nibl_recover_row(type, from, x, type->block, &block, &counts);
                decode(type, &block, y);
                for (uint32_t i = 0; i < type->block; i++) {
                    const double off = fabs((double)y[i] - (double)x[i]) - fabs((double)x[i]) * relative -
                                       (f ? (double)peak * 0x1p-21 + 0x1p-24 : 0);
                    most = off > most ? off : most;
                }
            }
            CHECK_EQ(counts.groups, TRIES);
            CHECK_EQ(counts.found, TRIES);
            CHECK_EQ(counts.rounded, 0);
            if (!CHECK(most <= 0)) printf("    %s from %s: off by %g\n", cases[c].type, floats[f], most);
        }
    }
}

/* Groups of any length, with zero points; scales that cannot be stored as they are. */
static void integers_come_back(void) {
    static const char *const names[] = {"w4g64", "w3g128asym", "w8g96-f32", "w2row", "w4g32asym-bf16"};
    enum { COUNT = 384 };
    for (int c = 0; c < 5; c++) {
        nibl_integers form;
        nibl_grid grid;
        CHECK(nibl_integers_read(names[c], &form));
        nibl_integers_grid(&form, COUNT, &grid);
        nibl_recovery counts = {0};
        for (int t = 0; t < TRIES; t++) {
            const bool third = t % 3 == 0; /* no float of 16 bits */
            const float zero = grid.min ? (float)below((uint32_t)grid.high + 1) : 0,
                        d = third ? 0.01f / 3 : nibl_bits_float((uint32_t)(0x3C00 + below(0x80)) << 16);
            float x[COUNT];
            nibl_block block = {0};
            for (int i = 0; i < COUNT; i++)
                x[i] = d * (grid.low - zero + (float)below((uint32_t)(grid.high - grid.low) + 1));
            CHECK(nibl_recover_group(&grid, nibl_encode_type("f32"), x, COUNT, &block, &counts));
            nibl_round_block(&grid, x, 256, &block);
            for (int i = 0; i < 256; i++) {
                const float level = nibl_code_level(&grid, block.codes[i]) - (float)block.zero_point;
                CHECK(third ? fabsf(level * block.scale - x[i]) <= fabsf(x[i]) * 0x1p-8f
                            : !(level * block.scale < x[i] || level * block.scale > x[i]));
            }
        }
        CHECK_EQ(counts.found, TRIES);
        CHECK_EQ(counts.rounded, form.storage == NIBL_STORE_F32 ? 0 : TRIES / 3);
    }
}

static void other_weights_are_on_none(void) {
    for (int c = 0; c < CASES; c++) {
        const nibl_dtype *type = nibl_encode_type(cases[c].type);
        for (int f = 0; f <= cases[c].coarsest; f++) {
            const nibl_dtype *from = nibl_encode_type(f == 0 ? "f32" : f == 1 ? "f16" : "bf16");
            nibl_recovery counts = {0};
            for (int t = 0; t < TRIES; t++) {
                float x[NIBL_SUPER];
                nibl_block block = {.d = 0x1234};
                for (int i = 0; i < NIBL_SUPER; i++) {
                    float sum = 0; /* about normal */
                    for (int k = 0; k < 6; k++) sum += (float)below(1 << 20);
                    x[i] = kept(from, (sum - 3 * (1 << 20)) * 0x1p-24f);
                }
                nibl_recover_row(type, from, x, type->block, &block, &counts);
                CHECK_EQ(block.d, 0x1234); /* as it was */
                CHECK(nibl_recover_type(from, x, NIBL_SUPER) == NULL);
            }
            CHECK_EQ(counts.found, 0);
        }
    }
}

static void ends_of_what_can_be(void) {
    const nibl_dtype *f32 = nibl_encode_type("f32");
    static const float most[] = {0, 1, -1, 3e38f, -3e38f, 1e-40f, 65504, 70000, 6e-8f, 1e-9f};
    for (int c = 0; c < CASES; c++) {
        const nibl_dtype *type = nibl_encode_type(cases[c].type);
        for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
            for (int alone = 0; alone < 2; alone++) {
                float x[NIBL_SUPER] = {0}, y[NIBL_SUPER];
                nibl_block block;
                nibl_recovery counts = {0};
                for (uint32_t j = 0; j < (alone ? 1 : type->block); j++) x[j] = most[i];
                if (!nibl_recover_group(nibl_grid_of(type), f32, x, type->block, &block, &counts)) continue;
                nibl_recover_row(type, f32, x, type->block, &block, &counts);
                decode(type, &block, y);
                for (uint32_t j = 0; j < type->block; j++)
                    if (!CHECK(fabsf(y[j] - x[j]) <= fabsf(x[j]) * 0x1p-7f))
                        printf("    %s %g: %g instead of %g\n", cases[c].type, (double)most[i], (double)y[j],
                               (double)x[j]);
            }
        }
    }
}

/* ---- Models ---- */

static nibl_status quantize(nibl_model *model, const nibl_quantize_options *options, output *o) {
    nibl_quantizer *q = NULL;
    size_t needed = 0;
    *o = (output){0};
    nibl_status status = nibl_model_quantizer_new(model, options, NULL, 0, 0, &q);
    if (status < 0) return status;
    for (status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_quantizer_step(q);
        if (status >= 0) take_output(q, &o->bytes, &o->length);
    }
    if (status < 0) { /* the message stays */
        nibl_quantizer_free(q);
        drop(o);
        return status;
    }
    nibl_quantizer_report(q, NULL, 0, &needed);
    o->report = calloc(1, needed + 1);
    CHECK_EQ(nibl_quantizer_report(q, o->report, needed + 1, &needed), NIBL_OK);
    nibl_quantizer_free(q);
    return status;
}

/* Quantized, made floats, recovered: the same model. */
static void models_come_back(void) {
    static const char *const types[] = {"q4_0", "q4_1", "q5_1", "q8_0", "iq4_nl"};
    static const char *const wide[] = {"f32", "f16"};
    for (int t = 0; t < 5; t++) {
        for (int f = 0; f < 2; f++) {
            nibl_model *source = load_file("tests/fixtures/tiny-llama-f32.gguf");
            nibl_quantize_options options = {.size = sizeof options,
                                             .type = types[t],
                                             .embedding = "f32",
                                             .head = types[t],
                                             .method = "clip"};
            output small, floats, again;
            CHECK_EQ(quantize(source, &options, &small), NIBL_OK);
            options = (nibl_quantize_options){.size = sizeof options,
                                              .type = wide[f],
                                              .embedding = "f32",
                                              .head = wide[f],
                                              .requantize = true};
            nibl_model *first = load_output(&small);
            CHECK_EQ(quantize(first, &options, &floats), NIBL_OK);
            options = (nibl_quantize_options){.size = sizeof options,
                                              .type = types[t],
                                              .embedding = "f32",
                                              .head = types[t],
                                              .method = "recover",
                                              .measure = true,
                                              .threads = 3};
            nibl_model *second = load_output(&floats);
            CHECK(nibl_quantize_needs_model(NULL, &options));
            if (!CHECK_EQ(quantize(second, &options, &again), NIBL_OK))
                printf("    %s\n", nibl_last_message());
            if (f == 0) CHECK_EQ(logits_hash(load_output(&again), 1), logits_hash(load_output(&small), 1));
            CHECK_HAS(again.report, "\"groups\":");
            if (f == 0)
                CHECK(strstr(again.report, "\"error\":0.0000") && !strstr(again.report, "\"error\":0.001"));
            nibl_model_free(source);
            nibl_model_free(first);
            nibl_model_free(second);
            drop(&small);
            drop(&floats);
            drop(&again);
        }
    }
}

static void what_is_on_no_grid_is_told(void) {
    nibl_model *model = load_file("tests/fixtures/tiny-llama-f32.gguf");
    nibl_quantize_options options = {
        .size = sizeof options, .embedding = "f32", .head = "f32", .method = "recover"};
    output o, plain;
    CHECK_EQ(quantize(model, &options, &o), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "tensor 'blk.0.attn_q.weight': only 0 of its ");
    CHECK_HAS(nibl_last_message(), "recover,clip");
    options.type = "q4_k";
    options.method = "recover";
    nibl_model *wide = load_file("tests/fixtures/arch/qwen2.gguf");
    if (quantize(wide, &options, &o) >= 0) drop(&o);
    nibl_model_free(wide);
    options.type = "nvfp4";
    CHECK_EQ(quantize(model, &options, &o), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "does not look for grids of NVFP4");
    options.type = "q4_0";
    options.method = "recover,awq";
    CHECK_EQ(quantize(model, &options, &o), NIBL_E_ARGUMENT);
    options.method = "recover,rotate";
    CHECK_EQ(quantize(model, &options, &o), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "off the grid");
    options.method = "recover,rtn";
    CHECK_EQ(quantize(model, &options, &o), NIBL_OK);
    options.method = "rtn";
    CHECK_EQ(quantize(model, &options, &plain), NIBL_OK);
    CHECK_EQ(logits_hash(load_output(&o), 1), logits_hash(load_output(&plain), 1));
    CHECK_HAS(o.report, "\"recovered\":0");
    CHECK(strstr(plain.report, "recovered") == NULL);
    drop(&o);
    drop(&plain);
    nibl_model_free(model);
}

/* The real one is of Q4_1, which somebody else made. */
static void the_real_model_comes_back(void) {
    nibl_model *model = load_default_model();
    if (!model) return;
    const nibl_dtype *type = nibl_encode_type("q4_1"), *f32 = nibl_encode_type("f32");
    float x[2048], y[NIBL_SUPER];
    nibl_block blocks[64];
    nibl_recovery counts = {0};
    for (uint32_t l = 0; l < model->hyper.layers; l++) {
        const nibl_matrix *const matrices[] = {&model->layers[l].wq, &model->layers[l].wv,
                                               model->layers[l].down};
        for (int i = 0; i < 3; i++) {
            for (uint32_t row = l; row < matrices[i]->rows; row += 31) {
                model->kernels->unpack_row(x, matrices[i], row);
                nibl_recover_row(type, f32, x, matrices[i]->cols, blocks, &counts);
                for (uint32_t b = 0; b < matrices[i]->cols / 32; b++) {
                    decode(type, &blocks[b], y);
                    CHECK(memcmp(y, x + 32 * b, 128) == 0);
                }
            }
        }
    }
    printf("%llu groups\n", (unsigned long long)counts.groups);
    CHECK(counts.groups > 10000 && counts.found == counts.groups && counts.rounded == 0);
    nibl_model_free(model);
}

static const test tests[] = {
    {"random blocks come back", random_blocks_come_back},
    {"integers come back", integers_come_back},
    {"other weights are on none", other_weights_are_on_none},
    {"ends of what can be", ends_of_what_can_be},
    {"models come back", models_come_back},
    {"what is on no grid is told", what_is_on_no_grid_is_told},
    {"the real model comes back", the_real_model_comes_back},
};

int main(void) { return test_run(tests, sizeof tests / sizeof *tests); }
