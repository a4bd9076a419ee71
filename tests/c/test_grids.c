/* Grids of integers against an implementation in numpy (tests/fixtures/grids.py): names, scales, zero points and codes of
 * every combination; searched scales lose no more. */
#include "core/encode_grid.h"
#include "kernels/kernels.h"
#include "kernels/maths.h"
#include "tests/c/model_file.h"

#include <math.h>

static uint8_t *fixture;
static size_t fixture_length;
static uint32_t rows, cols;
static const float *x;

typedef struct expected {
    const char *name;
    uint32_t group, scales;
    const float *scale;
    const uint8_t *zero;
    uint64_t hash;
} expected;

static bool next_grid(size_t *at, expected *e) {
    const uint8_t *p = fixture + *at;
    if (*at >= fixture_length) return false;
    *e = (expected){.name = (const char *)p};
    memcpy(&e->group, p + 24, 4);
    memcpy(&e->scales, p + 28, 4);
    e->scale = (const float *)(const void *)(p + 32);
    e->zero = p + 32 + 4ul * e->scales;
    const size_t end = 32 + 4ul * e->scales + (e->scales + 3) / 4 * 4;
    memcpy(&e->hash, p + end, 8);
    *at += end + 8;
    return CHECK(*at <= fixture_length);
}

static size_t grids(void) { return 8 + 4ul * rows * cols; }

static void choose_all(const nibl_grid *g, bool search, const float *weights, nibl_block *heads) {
    for (uint32_t i = 0; i < rows * cols / g->group; i++) {
        memset(&heads[i], 0, sizeof *heads);
        CHECK(g->choose(g, x + (size_t)i * g->group, weights ? weights + (size_t)i * g->group : NULL,
                        g->group, search, &heads[i]));
    }
}

/* Sum of w (decoded - x)^2 of one group; its codes, from 0 on, into the hash. */
static double round_group(const nibl_grid *g, const float *values, const float *w, nibl_block *b,
                          uint64_t *hash) {
    double error = 0;
    for (uint32_t at = 0; at < g->group; at += 16) {
        nibl_round_block(g, values + at, 16, b);
        for (uint32_t i = 0; i < 16; i++) {
            const float level = nibl_code_level(g, b->codes[i]);
            float d, m;
            nibl_group_scale(g, b, 0, &d, &m);
            const double e = (double)level * (double)d + (double)m - (double)values[at + i];
            error += (w ? (double)w[at + i] : 1) * e * e;
            *hash = (*hash ^ (uint8_t)(level - g->low)) * 0x100000001B3u;
        }
    }
    return error;
}

static void rounding_is_that_of_numpy(void) {
    size_t at = grids();
    uint32_t count = 0;
    nibl_block *heads = malloc(rows * cols / 16 * sizeof *heads);
    for (expected e; next_grid(&at, &e); count++) {
        nibl_integers form;
        nibl_grid g;
        if (!CHECK(nibl_integers_read(e.name, &form))) continue;
        nibl_integers_grid(&form, e.group, &g);
        choose_all(&g, false, NULL, heads);
        uint64_t hash = 0xCBF29CE484222325u;
        for (uint32_t i = 0; i < e.scales; i++) {
            if (!CHECK(nibl_float_bits(heads[i].scale + 0.0f) == nibl_float_bits(e.scale[i] + 0.0f)))
                printf("    %s, scale %u: %g, expected %g\n", e.name, i, (double)heads[i].scale,
                       (double)e.scale[i]);
            CHECK_EQ(heads[i].zero_point, e.zero[i]);
            round_group(&g, x + (size_t)i * e.group, NULL, &heads[i], &hash);
        }
        if (!CHECK(hash == e.hash)) printf("    %s: other codes\n", e.name);
    }
    CHECK_EQ(count, 7 * 4 * (7 + 3));
    free(heads);
}

static void search_loses_no_more(void) {
    size_t at = grids();
    nibl_block *heads = malloc(rows * cols / 16 * sizeof *heads);
    float *weights = malloc(rows * cols * sizeof *weights);
    for (uint32_t i = 0; i < rows * cols; i++) weights[i] = expf((float)(i * 37 % 64) / 16 - 2);
    double sum[2] = {0};
    for (expected e; next_grid(&at, &e);) {
        nibl_integers form;
        nibl_grid g;
        if (!CHECK(nibl_integers_read(e.name, &form))) continue;
        nibl_integers_grid(&form, e.group, &g);
        double total[2] = {0};
        for (int search = 0; search < 2; search++) {
            uint64_t hash = 0;
            choose_all(&g, search, weights, heads);
            for (uint32_t i = 0; i < e.scales; i++)
                total[search] +=
                    round_group(&g, x + (size_t)i * e.group, weights + (size_t)i * e.group, &heads[i], &hash);
        }
        if (!CHECK(total[1] <= total[0] * 1.00001))
            printf("    %s: %g, plain %g\n", e.name, total[1], total[0]);
        if (form.bits == 3) sum[0] += total[0], sum[1] += total[1];
    }
    printf("3 bits, searched: %.3f of the error\n", sum[1] / sum[0]);
    CHECK(sum[1] < 0.7 * sum[0]);
    free(weights);
    free(heads);
}

static void names_are_read(void) {
    static const struct {
        const char *name, *full;
        uint32_t cols;
    } names[] = {{"w4", "w4g128sym", 1536},
                 {"W4A16", "w4g128sym", 1536},
                 {"W4A16_ASYM", "w4g96asym", 576},
                 {"w8a16", "w8rowsym", 64},
                 {"w4g128", "w4g96sym", 576},
                 {"w4g40", "w4g32sym", 64},
                 {"w3g64asym", "w3g64asym", 64},
                 {"w2tensor-f32", "w2tensorsym-f32", 32},
                 {"w4g64sym-absmax_bf16", "w4g64sym-absmax-bf16", 128},
                 {"w4g4096", "w4g32sym", 32}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        nibl_integers form;
        nibl_integer_type t;
        if (CHECK(nibl_integers_read(names[i].name, &form)) &&
            CHECK(nibl_integers_make(&form, 4, names[i].cols, false, &t)) &&
            !CHECK(strcmp(t.name, names[i].full) == 0))
            printf("    %s: %s, expected %s\n", names[i].name, t.name, names[i].full);
    }
    static const char *const wrong[] = {"",       "w",        "w1",   "w9",  "w4g",         "w4g0",
                                        "w4g64x", "w4rowg64", "q4_0", "w44", "w4g99999999", "w4-"};
    nibl_integers form;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!CHECK(!nibl_integers_read(wrong[i], &form))) printf("    '%s'\n", wrong[i]);
    nibl_integer_type t;
    CHECK(nibl_integers_read("w4g64asym-f32", &form) && !nibl_integers_make(&form, 4, 64, false, &t));
    CHECK(nibl_integers_read("w4g16", &form) && !nibl_integers_make(&form, 4, 64, false, &t));
    CHECK(nibl_integers_read("w4g64", &form) && !nibl_integers_make(&form, 4, 48, false, &t));
}

/* What is written is what pack_row and unpack_row make of it. */
static void rows_are_packed(void) {
    static const char *const names[] = {"w2g64",         "w3g128asym",     "w4g64", "w4rowasym",
                                        "w5g32",         "w6g64asym-bf16", "w7g96", "w8rowasym",
                                        "w8tensor-bf16", "w4g64-f32",      "w4g128"};
    const nibl_kernels *k = nibl_kernels_get(NULL);
    nibl_block *blocks = malloc(cols / 32 * sizeof *blocks);
    uint8_t *bytes = malloc(cols * 2);
    float *y = malloc(cols * sizeof *y);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        nibl_integers form;
        nibl_integer_type t;
        const bool last = i + 1 == sizeof names / sizeof *names; /* as Q4_0 */
        CHECK(nibl_integers_read(names[i], &form) && nibl_integers_make(&form, 1, cols, last, &t));
        CHECK(nibl_choose_row(nibl_kernels_get(NULL), &t.type, x + cols, NULL, cols, false, NULL, blocks));
        for (uint32_t b = 0; b < cols / 32; b++)
            (last ? nibl_write_block : nibl_write_integers)(&t.type, &blocks[b], bytes + b * t.type.bytes);
        nibl_matrix m = {.rows = 1,
                         .cols = cols,
                         .kind = (uint8_t)t.type.kind,
                         .scale = (uint8_t)t.type.scale,
                         .layout = (uint8_t)t.type.layout,
                         .factor = 1};
        m.data = calloc(1, nibl_panel_bytes(&m));
        bool finite = true;
        k->pack_row(&m, 0, bytes, &finite);
        k->unpack_row(y, &m, 0);
        CHECK(finite);
        for (uint32_t j = 0; j < cols; j++) {
            const nibl_block *b = &blocks[j / 32];
            const float level = nibl_code_level(&t.grid, b->codes[j % 32]) - (float)b->zero_point;
            if (!CHECK(y[j] + 0.0f == level * b->scale + 0.0f)) break;
        }
        free(m.data);
    }
    free(y);
    free(bytes);
    free(blocks);
}

static const test tests[] = {
    {"rounding is that of numpy", rounding_is_that_of_numpy},
    {"search loses no more than plain rounding", search_loses_no_more},
    {"names are read", names_are_read},
    {"rows are packed as they were rounded", rows_are_packed},
};

int main(void) {
    fixture = read_file("tests/fixtures/grids.bin", &fixture_length);
    if (!fixture || fixture_length < 8) {
        printf("grids.bin cannot be read\n");
        return 1;
    }
    memcpy(&rows, fixture, 4);
    memcpy(&cols, fixture + 4, 4);
    x = (const float *)(const void *)(fixture + 8);
    const int code = test_run(tests, sizeof tests / sizeof *tests);
    free(fixture);
    return code;
}
