/* Rows of every file type through pack_row and unpack_row against the values of `gguf.quants` (tests/fixtures/blocks.py
 * tells the format of blocks.bin), and the rows of dtype.c. */
#include "core/dtype.h"
#include "kernels/kernels.h"
#include "tests/c/kernel_data.h"
#include "tests/c/model_file.h"

#include <math.h>

enum { ROW_BLOCKS = 4 }; /* blocks of a test row */

typedef struct section {
    const nibl_dtype *type;
    uint32_t blocks;
    const uint8_t *bytes;
    const float *values;
} section;

static uint8_t *fixture;
static section sections[24];
static size_t section_count;

/* Reads the sections; they must be complete and fit the table of types. */
static bool open_fixture(void) {
    size_t length = 0, at = 0;
    fixture = read_file("tests/fixtures/blocks.bin", &length);
    if (!CHECK(fixture != NULL)) return false;
    while (at < length && section_count < 24) {
        uint32_t head[4];
        if (!CHECK(length - at >= sizeof head)) return false;
        memcpy(head, fixture + at, sizeof head);
        section *s = &sections[section_count++];
        s->type = nibl_dtype_by_id(head[0]);
        if (!CHECK(s->type != NULL)) return false;
        CHECK_EQ(s->type->block, head[1]);
        CHECK_EQ(s->type->bytes, head[2]);
        CHECK_EQ(head[3] % ROW_BLOCKS, 0);
        s->blocks = head[3];
        s->bytes = fixture + at + sizeof head;
        s->values = (const float *)(const void *)(s->bytes + (size_t)head[2] * head[3]);
        at += sizeof head + (size_t)head[3] * (head[2] + 4 * head[1]);
    }
    return CHECK_EQ(at, length);
}

/* A matrix for the section's blocks, full of ones. */
static nibl_matrix new_matrix(const nibl_dtype *type, uint32_t rows, uint32_t cols) {
    nibl_matrix w = {.rows = rows,
                     .cols = cols,
                     .kind = (uint8_t)type->kind,
                     .scale = (uint8_t)type->scale,
                     .layout = (uint8_t)type->layout,
                     .factor = 1};
    const size_t bytes = nibl_panels(&w) * nibl_panel_bytes(&w);
    w.data = malloc(bytes);
    memset(w.data, 0xFF, bytes);
    return w;
}

static bool same_bits(float a, float b) { return nibl_load_u32(&a) == nibl_load_u32(&b); }

/* Packed weights are as large as the file's, but for the base-3 codes of TQ1_0, which are packed as those of TQ2_0. */
static void check_size(const nibl_dtype *type, size_t packed, size_t file) {
    CHECK_EQ(packed, strcmp(type->name, "TQ1_0") == 0 ? file / 54 * 66 : file);
}

/* Packed in an order in which no row may disturb another. */
static void decodes_as_the_reference(void) {
    const nibl_kernels *k = nibl_kernels_get(NULL);
    for (size_t i = 0; i < section_count; i++) {
        const section *s = &sections[i];
        const bool is_float = nibl_kind_is_float(s->type->kind);
        /* the last row of the 2-byte floats is not finite: a test of its own */
        const uint32_t rows = s->blocks / ROW_BLOCKS - is_float, cols = ROW_BLOCKS * s->type->block;
        const size_t row_bytes = (size_t)ROW_BLOCKS * s->type->bytes;
        uint64_t bytes;
        CHECK(nibl_dtype_row_bytes(s->type, cols, &bytes));
        CHECK_EQ(bytes, row_bytes);
        nibl_matrix w = new_matrix(s->type, rows, cols);
        check_size(s->type, nibl_panel_bytes(&w), row_bytes * NIBL_PANEL);
        bool finite = true;
        for (uint32_t n = 0; n < rows; n++) {
            const uint32_t row = (uint32_t)((uint64_t)n * 65537 % rows);
            k->pack_row(&w, row, s->bytes + row * row_bytes, &finite);
        }
        CHECK(finite);
        float *y = malloc(cols * sizeof *y);
        uint32_t wrong = 0;
        for (uint32_t row = 0; row < rows; row++) {
            k->unpack_row(y, &w, row);
            for (uint32_t c = 0; c < cols; c++) {
                const float expected = s->values[(size_t)row * cols + c];
                if (same_bits(y[c], expected) || wrong++) continue;
                printf("%s, row %u, column %u: %.9g, must be %.9g\n", s->type->name, row, c, (double)y[c],
                       (double)expected);
            }
        }
        CHECK_EQ(wrong, 0);
        printf("%s: %u values\n", s->type->name, rows * cols);
        free(y);
        free(w.data);
    }
}

/* The same rows times quantized activations, one token and three, are near the products of the reference's values. */
static void products_are_those_of_the_values(void) {
    enum { TOKENS = 3 };
    const nibl_kernels *k = nibl_kernels_get(NULL);
    uint64_t random = 5;
    for (size_t i = 0; i < section_count; i++) {
        const section *s = &sections[i];
        if (nibl_kind_is_float(s->type->kind)) continue;
        const uint32_t rows = s->blocks / ROW_BLOCKS, cols = ROW_BLOCKS * s->type->block;
        const uint32_t blocks = cols / NIBL_BLOCK;
        nibl_matrix w = new_matrix(s->type, rows, cols);
        bool finite = true;
        for (uint32_t row = 0; row < rows; row++)
            k->pack_row(&w, row, s->bytes + (size_t)row * ROW_BLOCKS * s->type->bytes, &finite);
        const size_t stride = (size_t)nibl_panels(&w) * NIBL_PANEL;
        nibl_act *a = malloc(TOKENS * blocks * sizeof *a);
        float *y = malloc(TOKENS * stride * sizeof *y);
        void *scratch = NULL;
        CHECK(posix_memalign(&scratch, 64, NIBL_GEMM_SCRATCH(cols)) == 0);
        random_acts(a, TOKENS * blocks, &random, PROFILE_PLAIN);
        for (uint32_t tokens = 1; tokens <= TOKENS; tokens += TOKENS - 1) {
            nibl_matmul(k, y, stride, &w, 0, nibl_panels(&w), a, tokens, scratch);
            uint32_t wrong = 0;
            for (uint32_t row = 0; row < rows * tokens; row++) {
                double sum = 0, size = 0;
                for (uint32_t c = 0; c < cols; c++) {
                    const nibl_act *x = &a[row / rows * blocks + c / NIBL_BLOCK];
                    const double product = s->values[(size_t)(row % rows) * cols + c] *
                                           (double)x->q[c % NIBL_BLOCK] * (double)x->s;
                    sum += product;
                    size += fabs(product);
                }
                const double got = (double)y[row / rows * stride + row % rows];
                /* near the ends of the floats' range they overflow, or lose digits */
                wrong += size < 1e37 && !(fabs(got - sum) <= 2e-6 * size + 1e-36);
            }
            if (!CHECK_EQ(wrong, 0)) printf("%s, %u tokens\n", s->type->name, tokens);
        }
        free(scratch);
        free(y);
        free(a);
        free(w.data);
    }
}

static void f32_is_copied(void) {
    static const uint32_t bits[] = {0, 0x80000000, 1, 0x807FFFFF, 0x3F800000, 0x7F7FFFFF, 0xFF7FFFFF};
    enum { COLS = 7, ROWS = 11 };
    const nibl_kernels *k = nibl_kernels_get(NULL);
    const nibl_dtype *type = nibl_dtype_by_id(0);
    nibl_matrix w = new_matrix(type, ROWS, COLS);
    bool finite = true;
    uint32_t rows[ROWS][COLS];
    float y[COLS];
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t c = 0; c < COLS; c++) rows[r][c] = bits[(r + c) % 7] ^ r << 8;
        k->pack_row(&w, r, (const uint8_t *)rows[r], &finite);
    }
    CHECK(finite);
    for (uint32_t r = 0; r < ROWS; r++) {
        k->unpack_row(y, &w, r);
        CHECK(memcmp(y, rows[r], sizeof y) == 0);
    }
    free(w.data);
}

/* One number of an otherwise good row of three blocks is replaced; `at` is its place in a block. */
static bool is_refused(const nibl_dtype *type, size_t block, size_t at, uint64_t number, size_t width) {
    uint8_t row[3 * 256] = {0};
    memcpy(row + block * type->bytes + at, &number, width);
    nibl_matrix w = new_matrix(type, 8, 3 * type->block);
    bool finite = true;
    nibl_kernels_get(NULL)->pack_row(&w, 5, row, &finite);
    free(w.data);
    return !finite;
}

static void what_is_not_finite_is_refused(void) {
    static const struct {
        uint32_t type;
        size_t at, width;
        uint32_t bad[4], good[2];
    } cases[] = {
        {0, 0, 4, {0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001}, {0x7F7FFFFF, 0xFF7FFFFF}},
        {1, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {30, 0, 2, {0x7F80, 0xFF80, 0x7FC0, 0xFF81}, {0x7F7F, 0xFF7F}},
        {2, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {3, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {3, 2, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {8, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {6, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {7, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {7, 2, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {10, 80, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {10, 82, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {11, 108, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {12, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {12, 2, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {13, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {13, 2, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {14, 208, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {20, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {23, 0, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {34, 52, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {35, 64, 2, {0x7C00, 0xFC00, 0x7E00, 0xFC01}, {0x7BFF, 0xFBFF}},
        {39, 0, 1, {0xFF, 0xFE, 0xFD, 0xFF}, {0xFC, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t block = 0; block < 3; block++) {
            const nibl_dtype *type = nibl_dtype_by_id(cases[i].type);
            for (int j = 0; j < 4; j++)
                CHECK(is_refused(type, block, cases[i].at, cases[i].bad[j], cases[i].width));
            for (int j = 0; j < 2; j++)
                CHECK(!is_refused(type, block, cases[i].at, cases[i].good[j], cases[i].width));
        }
    /* codes may have any bits */
    for (uint32_t id = 2; id <= 8; id++) {
        const nibl_dtype *type = nibl_dtype_by_id(id);
        for (size_t at = type ? 2u + 2u * (type->scale == NIBL_SCALE_F16_MIN) : 0;
             type && at + 2 <= type->bytes; at += 2)
            CHECK(!is_refused(type, 1, at, 0x7C00, 2));
    }
}

static void a_weight_of_minus_128_is_noticed(void) {
    const nibl_kernels *k = nibl_kernels_get(NULL);
    const nibl_dtype *type = nibl_dtype_by_id(8);
    bool finite = true;
    for (size_t at = 0; at < 2 * 34; at++) {
        nibl_matrix w = new_matrix(type, 8, 64);
        uint8_t row[2 * 34] = {0};
        k->pack_row(&w, 0, row, &finite);
        CHECK(!w.has_m128);
        row[at] = 0x80; /* in a scale it is no weight */
        k->pack_row(&w, 1, row, &finite);
        CHECK_EQ(w.has_m128, at % 34 >= 2);
        memset(row, 0, sizeof row);
        k->pack_row(&w, 2, row, &finite);
        CHECK_EQ(w.has_m128, at % 34 >= 2);
        free(w.data);
    }
}

static void the_table_of_types_is_whole(void) {
    uint64_t bytes = 1;
    for (size_t i = 0; i < nibl_dtype_count(); i++) {
        const nibl_dtype *type = nibl_dtype_at(i);
        CHECK(nibl_dtype_by_id(type->id) == type);
        CHECK(strcmp(nibl_dtype_name(type->id), type->name) == 0);
        CHECK(nibl_dtype_row_bytes(type, 0, &bytes));
        CHECK_EQ(bytes, 0);
        CHECK(nibl_dtype_row_bytes(type, 768, &bytes));
        CHECK_EQ(bytes, 768 / type->block * type->bytes);
        CHECK_EQ(nibl_dtype_row_bytes(type, 769, &bytes), type->block == 1);
        CHECK(!nibl_dtype_row_bytes(type, UINT64_MAX / 16 * 16, &bytes) || type->bytes <= type->block);
    }
    CHECK(nibl_dtype_at(nibl_dtype_count()) == NULL);
    CHECK(nibl_dtype_by_id(17) == NULL); /* known by name only */
    CHECK(strcmp(nibl_dtype_name(17), "IQ2_XS") == 0);
    CHECK(nibl_dtype_by_id(UINT32_MAX) == NULL);
    CHECK(nibl_dtype_name(UINT32_MAX) == NULL);
}

int main(void) {
    static const test tests[] = {
        {"every type decodes as in gguf.quants", decodes_as_the_reference},
        {"products are those of the decoded values", products_are_those_of_the_values},
        {"F32 is copied", f32_is_copied},
        {"what is not finite is refused", what_is_not_finite_is_refused},
        {"a weight of -128 is noticed", a_weight_of_minus_128_is_noticed},
        {"the table of types is whole", the_table_of_types_is_whole},
    };
    if (!open_fixture()) return 1;
    const int failed = test_run(tests, sizeof tests / sizeof *tests);
    free(fixture);
    return failed;
}
