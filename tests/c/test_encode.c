/* Encoders against `gguf.quants` and plain rounding (tests/fixtures/encode.py tells the format of encode.bin). What is
 * decoded for the errors goes through pack_row and unpack_row, which test_blocks proves. */
#include "core/encode.h"
#include "core/plat.h"
#include "kernels/kernels.h"
#include "tests/c/model_file.h"

#include <math.h>

static uint8_t *fixture;
static size_t fixture_length;
static uint32_t values;
static const float *x, *weights;

typedef struct section {
    const nibl_dtype *type;
    uint32_t bytes;
    const float *plain; /* (values / 256, 2) */
    const uint8_t *encoding;
} section;

/* The section at *at, which moves on; false at the end. */
static bool next_section(size_t *at, section *s) {
    if (*at >= fixture_length) return false;
    uint32_t head[2];
    memcpy(head, fixture + *at, sizeof head);
    *s = (section){.type = nibl_dtype_by_id(head[0]), .bytes = head[1]};
    if (!CHECK(s->type != NULL)) return false;
    s->plain = (const float *)(const void *)(fixture + *at + sizeof head);
    s->encoding = (const uint8_t *)(s->plain + values / 256 * 2);
    *at += sizeof head + values / 256 * 8 + (head[1] + 3) / 4 * 4;
    return CHECK(*at <= fixture_length);
}

static size_t sections(void) { return 4 + 8 * (size_t)values; }

static uint8_t *encode(const nibl_dtype *type, const float *w, bool search) {
    uint64_t bytes = 0;
    CHECK(nibl_dtype_row_bytes(type, values, &bytes));
    uint8_t *out = malloc((size_t)bytes);
    memset(out, 0xA5, (size_t)bytes);
    CHECK(nibl_encode_values(nibl_kernels_get(nibl_plat_isa_cap()), type, x, w, values, search, out));
    return out;
}

static void rules_are_those_of_the_reference(void) {
    size_t at = sections();
    uint32_t ruled = 0;
    for (section s; next_section(&at, &s);) {
        if (s.bytes == 0) continue;
        uint8_t *out = encode(s.type, NULL, false);
        const uint32_t size = s.type->bytes;
        uint32_t wrong = 0;
        for (uint32_t i = 0; i < s.bytes; i += size)
            if (memcmp(out + i, s.encoding + i, size) != 0 && wrong++ < 3)
                printf("%s: block %u differs\n", s.type->name, i / size);
        CHECK_EQ(wrong, 0);
        free(out);
        ruled++;
    }
    CHECK_EQ(ruled, 10);
}

/* Sum of w (decoded - x)^2 of each 256; w NULL = all 1. */
static void errors_of(const nibl_dtype *type, const uint8_t *bytes, const float *w, double *errors) {
    const nibl_kernels *k = nibl_kernels_get(NULL);
    nibl_matrix m = {.rows = 1,
                     .cols = values,
                     .kind = (uint8_t)type->kind,
                     .scale = (uint8_t)type->scale,
                     .layout = (uint8_t)type->layout,
                     .factor = 1};
    m.data = calloc(1, nibl_panel_bytes(&m));
    float *y = malloc(values * sizeof *y);
    bool finite = true;
    k->pack_row(&m, 0, bytes, &finite);
    CHECK(finite);
    k->unpack_row(y, &m, 0);
    for (uint32_t i = 0; i < values; i++) {
        if (i % 256 == 0) errors[i / 256] = 0;
        const double e = (double)y[i] - (double)x[i];
        errors[i / 256] += (w ? (double)w[i] : 1) * e * e;
    }
    free(y);
    free(m.data);
}

static void search_loses_no_more_than_plain_rounding(void) {
    size_t at = sections();
    double errors[64];
    for (section s; next_section(&at, &s);) {
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *w = weighted ? weights : NULL;
            uint8_t *out = encode(s.type, w, true);
            errors_of(s.type, out, w, errors);
            double ratio = 0;
            uint32_t worse = 0, counted = 0;
            for (uint32_t i = 0; i < values / 256; i++) {
                const double plain = (double)s.plain[2 * i + (uint32_t)weighted];
                if (errors[i] > plain * 1.00001 && worse++ < 5)
                    printf("%s, row %u, %s: %g instead of %g\n", s.type->name, i,
                           weighted ? "weighted" : "alike", errors[i], plain);
                if (plain > 0) ratio += log((errors[i] + plain * 1e-6) / plain), counted++;
            }
            CHECK_EQ(worse, 0);
            printf("%s%s: %.3f of the error\n", s.type->name, weighted ? " weighted" : "",
                   exp(ratio / (counted ? counted : 1)));
            free(out);
        }
    }
}

static void values_too_large_are_refused(void) {
    static const struct {
        const char *type;
        float value;
        bool fits;
    } cases[] = {{"q4_0", 65504.0f * 8, true}, {"q4_0", 65536.0f * 8, false}, {"Q8_0", 65504.0f * 127, true},
                 {"q8_0", 1e9f, false},        {"q4_1", 65504.0f, true},      {"q4_1", 2e6f, false},
                 {"f16", 65504.0f, true},      {"f16", 65520.0f, false},      {"bf16", 3e38f, true},
                 {"mxfp4", 3e38f, true},       {"q4_k", 1e30f, false},        {"q6_k", 1e30f, false},
                 {"iq4_nl", 1e30f, false},     {"nvfp4", 3000.0f, false},     {"nvfp4", 2688.0f, true},
                 {"tq2_0", 70000.0f, false},   {"f32", 3e38f, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int search = 0; search < 2; search++) {
            float row[256] = {0};
            uint8_t out[1024];
            row[7] = cases[i].value;
            const bool fits =
                nibl_encode_values(nibl_kernels_get(nibl_plat_isa_cap()), nibl_encode_type(cases[i].type),
                                   row, NULL, 256, search, out);
            if (!CHECK_EQ(fits, cases[i].fits)) printf("    %s %g\n", cases[i].type, (double)cases[i].value);
        }
    }
}

static void floats_are_read_and_checked(void) {
    const nibl_dtype *f16 = nibl_dtype_by_id(1), *bf16 = nibl_dtype_by_id(30), *f32 = nibl_dtype_by_id(0);
    const uint8_t half[] = {0, 0x3C, 0, 0xC0, 1, 0, 0xFF, 0x7B}, infinite[] = {0, 0x3C, 0, 0x7C},
                  brain[] = {0x80, 0x3F, 0, 0xC0}, nan[] = {0x80, 0x3F, 0xC0, 0xFF};
    float out[4];
    CHECK(nibl_decode_floats(f16, half, 4, out));
    CHECK(out[0] == 1.0f && out[1] == -2.0f && out[2] == 0x1p-24f && out[3] == 65504.0f);
    CHECK(!nibl_decode_floats(f16, infinite, 2, out));
    CHECK(nibl_decode_floats(bf16, brain, 2, out));
    CHECK(out[0] == 1.0f && out[1] == -2.0f);
    CHECK(!nibl_decode_floats(bf16, nan, 2, out));
    const float infinity = INFINITY;
    CHECK(!nibl_decode_floats(f32, (const uint8_t *)&infinity, 1, out));
    CHECK(nibl_encode_type("q4_9") == NULL && nibl_encode_type("iq2_xxs") == NULL);
    CHECK_EQ(nibl_fail_encode_type("q4_9"), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "q4_1, q5_0");
}

static const test tests[] = {
    {"rules are those of the reference", rules_are_those_of_the_reference},
    {"search loses no more than plain rounding", search_loses_no_more_than_plain_rounding},
    {"values too large are refused", values_too_large_are_refused},
    {"floats are read and checked", floats_are_read_and_checked},
};

int main(void) {
    fixture = read_file("tests/fixtures/encode.bin", &fixture_length);
    if (!fixture || fixture_length < 4) {
        printf("encode.bin cannot be read\n");
        return 1;
    }
    memcpy(&values, fixture, 4);
    x = (const float *)(const void *)(fixture + 4);
    weights = x + values;
    const int code = test_run(tests, sizeof tests / sizeof *tests);
    free(fixture);
    return code;
}
