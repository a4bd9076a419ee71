/* The kernels in use against plain formulas in double precision. (checkkern compares variants with the scalar reference
 * bit for bit; here the reference, and with it all of them, is compared with what it should compute.) */
#include "tests/c/kernel_data.h"
#include "tests/c/test.h"

static const nibl_kernels *k;
static uint64_t state = 20250101;

/* A packed matrix with the weights it stands for, made from rows in the file's form. */
typedef struct weights {
    nibl_matrix w;
    double *values; /* (rows, cols) */
} weights;

static double half_value(const uint8_t *bytes) {
    const uint32_t h = bytes[0] | (uint32_t)bytes[1] << 8;
    const int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    const double size = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h >> 15 ? -size : size;
}

static void put_half(uint8_t *bytes) {
    const uint16_t h = random_half(&state, PROFILE_PLAIN);
    bytes[0] = (uint8_t)h;
    bytes[1] = (uint8_t)(h >> 8);
}

/* One block (or number) of a file at `bytes`, and its values; returns its length. */
static size_t make_block(uint8_t *bytes, double *values, nibl_kind kind, bool has_min, bool m128) {
    uint8_t *q = bytes + (has_min ? 4 : 2);
    uint32_t bits;
    float x;
    switch (kind) {
    case NIBL_KIND_F32:
        x = random_float(&state, -2, 2);
        memcpy(bytes, &x, 4);
        *values = (double)x;
        return 4;
    case NIBL_KIND_F16:
        put_half(bytes);
        *values = half_value(bytes);
        return 2;
    case NIBL_KIND_BF16:
        bits = nibl_float_bits(random_float(&state, -2, 2)) >> 16;
        bytes[0] = (uint8_t)bits;
        bytes[1] = (uint8_t)(bits >> 8);
        *values = (double)nibl_bits_float(bits << 16);
        return 2;
    case NIBL_KIND_NIBBLE:
        put_half(bytes);
        put_half(bytes + 2);
        random_nibbles(q, 16, &state, PROFILE_PLAIN);
        for (int i = 0; i < NIBL_BLOCK; i++) {
            const int code = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
            values[i] =
                has_min ? code * half_value(bytes) + half_value(bytes + 2) : (code - 8) * half_value(bytes);
        }
        return has_min ? 20 : 18;
    default: /* INT8 */
        put_half(bytes);
        random_codes((int8_t *)q, NIBL_BLOCK, &state, PROFILE_PLAIN);
        if (m128) q[random_below(&state, NIBL_BLOCK)] = 0x80;
        for (int i = 0; i < NIBL_BLOCK; i++) values[i] = (int8_t)q[i] * half_value(bytes);
        return 34;
    }
}

static weights make_weights(nibl_kind kind, bool has_min, uint32_t rows, uint32_t cols, bool m128) {
    weights m = {{.rows = rows,
                  .cols = cols,
                  .kind = (uint8_t)kind,
                  .scale = has_min ? NIBL_SCALE_F16_MIN : NIBL_SCALE_F16},
                 NULL};
    m.w.data = calloc(nibl_panels(&m.w), nibl_panel_bytes(&m.w));
    m.values = malloc((size_t)rows * cols * sizeof *m.values);
    uint8_t *row = malloc(cols * 4 + 64);
    bool finite = true;
    for (uint32_t r = 0; r < rows; r++) {
        uint8_t *at = row;
        const uint32_t step = nibl_kind_is_float(kind) ? 1 : NIBL_BLOCK;
        for (uint32_t c = 0; c < cols; c += step)
            at += make_block(at, m.values + (size_t)r * cols + c, kind, has_min, m128 && r % 3 == 0);
        k->pack_row(&m.w, r, row, &finite);
    }
    CHECK(finite);
    free(row);
    return m;
}

static void free_weights(weights *m) {
    free(m->w.data);
    free(m->values);
}

/* y (tokens, stride) of the panels of all rows is near the product with x (tokens, cols), measured by the sum of the
 * products' sizes; padding rows are 0. */
static void check_product(const weights *m, const float *y, size_t stride, const double *x, uint32_t tokens) {
    double worst = 0;
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t r = 0; r < nibl_panels(&m->w) * NIBL_PANEL; r++) {
            double sum = 0, size = 1e-30;
            for (uint32_t c = 0; c < m->w.cols && r < m->w.rows; c++) {
                const double product = m->values[(size_t)r * m->w.cols + c] * x[(size_t)t * m->w.cols + c];
                sum += product;
                size += fabs(product);
            }
            worst = fmax(worst, fabs((double)y[t * stride + r] - sum) / size);
        }
    if (!CHECK(worst < 2e-6))
        printf("    kind %d, scale %d, %u x %u, %u tokens: %.2g\n", m->w.kind, m->w.scale, m->w.rows,
               m->w.cols, tokens, worst);
}

static void integer_product(nibl_kind kind, bool has_min, bool m128, uint32_t rows, uint32_t cols,
                            uint32_t tokens) {
    weights m = make_weights(kind, has_min, rows, cols, m128);
    CHECK_EQ(m.w.has_m128, m128);
    const size_t blocks = cols / NIBL_BLOCK, stride = (size_t)nibl_panels(&m.w) * NIBL_PANEL + 3;
    nibl_act *a = malloc(tokens * blocks * sizeof *a);
    double *x = malloc((size_t)tokens * cols * sizeof *x);
    random_acts(a, tokens * blocks, &state, PROFILE_PLAIN);
    for (size_t i = 0; i < (size_t)tokens * cols; i++) x[i] = a[i / 32].q[i % 32] * (double)a[i / 32].s;
    float *y = malloc(tokens * stride * sizeof *y);
    void *scratch = malloc(NIBL_GEMM_SCRATCH(cols) + 64);
    void *aligned = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    nibl_matmul(k, y, stride, &m.w, 0, nibl_panels(&m.w), a, tokens, aligned);
    check_product(&m, y, stride, x, tokens);
    free(scratch);
    free(y);
    free(x);
    free(a);
    free_weights(&m);
}

static void integer_products(void) {
    static const uint32_t shapes[][3] = {{1, 32, 1},    {8, 64, 1}, {13, 576, 1},
                                         {33, 1536, 1}, {5, 32, 2}, {20, 576, 7}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const uint32_t *s = shapes[i];
        integer_product(NIBL_KIND_NIBBLE, false, false, s[0], s[1], s[2]);
        integer_product(NIBL_KIND_NIBBLE, true, false, s[0], s[1], s[2]);
        integer_product(NIBL_KIND_INT8, false, false, s[0], s[1], s[2]);
        integer_product(NIBL_KIND_INT8, false, true, s[0], s[1], s[2]);
    }
}

static void float_products(void) {
    static const uint32_t shapes[][3] = {{1, 32, 1}, {9, 96, 1}, {12, 160, 5}, {24, 576, 9}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = 0; kind < 6; kind++) {
            const bool odd = kind < 3; /* float kinds take any number of columns */
            const uint32_t rows = shapes[i][0], cols = shapes[i][1] + (odd ? 5 : 0), tokens = shapes[i][2];
            weights m = make_weights(kind == 5 ? NIBL_KIND_NIBBLE : (nibl_kind)kind, kind == 5, rows, cols,
                                     kind == 4);
            const size_t stride = (size_t)nibl_panels(&m.w) * NIBL_PANEL + 1, x_stride = cols + 2;
            float *x = malloc(tokens * x_stride * sizeof *x), *y = malloc(tokens * stride * sizeof *y);
            double *exact = malloc((size_t)tokens * cols * sizeof *exact);
            random_numbers(x, tokens * x_stride, &state, PROFILE_PLAIN);
            for (uint32_t t = 0; t < tokens; t++)
                for (uint32_t c = 0; c < cols; c++) exact[(size_t)t * cols + c] = (double)x[t * x_stride + c];
            k->matmul_float(y, stride, &m.w, 0, nibl_panels(&m.w), x, x_stride, tokens);
            check_product(&m, y, stride, exact, tokens);
            free(exact);
            free(y);
            free(x);
            free_weights(&m);
        }
}

static void quantize_rounds_to_nearest(void) {
    enum { BLOCKS = 400 };
    static float x[BLOCKS * NIBL_BLOCK];
    static nibl_act a[BLOCKS];
    for (int b = 0; b < BLOCKS; b++) {
        const float size = ldexpf(1.0f, (int)random_below(&state, 200) - 100);
        for (int i = 0; i < NIBL_BLOCK; i++) x[b * NIBL_BLOCK + i] = size * random_float(&state, -1, 1);
    }
    k->quantize(a, x, BLOCKS * NIBL_BLOCK);
    for (int b = 0; b < BLOCKS; b++) {
        double most = 0;
        int sum = 0;
        for (int i = 0; i < NIBL_BLOCK; i++) most = fmax(most, fabs((double)x[b * NIBL_BLOCK + i]));
        CHECK(fabs((double)a[b].s - most / 127) <= most / 127 * 1e-7);
        for (int i = 0; i < NIBL_BLOCK; i++) {
            const double error = (double)x[b * NIBL_BLOCK + i] - a[b].q[i] * (double)a[b].s;
            CHECK(fabs(error) <= (double)a[b].s * 0.50002);
            CHECK(a[b].q[i] >= -127 && a[b].q[i] <= 127);
            sum += a[b].q[i];
        }
        CHECK_EQ(a[b].sum, sum);
        CHECK(a[b].s_sum == (float)sum * a[b].s);
    }
}

static void quantize_at_the_ends(void) {
    float x[NIBL_BLOCK] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f};
    const int expected[NIBL_BLOCK] = {127, 0, 2, 2, 0, -2, -2, 126, -126};
    nibl_act a;
    k->quantize(&a, x, NIBL_BLOCK);
    CHECK(a.s == 1.0f);
    for (int i = 0; i < NIBL_BLOCK; i++) CHECK_EQ(a.q[i], expected[i]);

    static const float nothing[] = {0.0f, -0.0f, 0x1p-149f, 0x1p-126f, 127 * 0x1p-127f};
    static const float wrong[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 5 + 3; i++) {
        for (int j = 0; j < NIBL_BLOCK; j++) x[j] = 0.0f;
        x[3] = -0x1p-140f;
        x[17] = i < 5 ? nothing[i] : wrong[i - 5];
        k->quantize(&a, x, NIBL_BLOCK);
        CHECK(i < 5 ? a.s == 0.0f && a.s_sum == 0.0f : isnan(a.s) && isnan(a.s_sum));
        CHECK_EQ(a.sum, 0);
        for (int j = 0; j < NIBL_BLOCK; j++) CHECK_EQ(a.q[j], 0);
    }
    for (int j = 0; j < NIBL_BLOCK; j++) x[j] = j % 2 ? FLT_MAX : -FLT_MAX;
    k->quantize(&a, x, NIBL_BLOCK);
    CHECK(isfinite(a.s) && a.sum == 0);
    for (int j = 0; j < NIBL_BLOCK; j++) CHECK_EQ(a.q[j], j % 2 ? 127 : -127);
}

static double activation(double g, double up, nibl_activation function) {
    static const double pi = 3.14159265358979323846;
    switch (function) {
    case NIBL_ACTIVATE_GELU: return 0.5 * g * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 * g * g * g))) * up;
    case NIBL_ACTIVATE_RELU2: return g > 0 ? g * g * up : 0;
    case NIBL_ACTIVATE_CLAMPED:
        g = fmin(g, 7);
        return g / (1 + exp(-1.702 * g)) * (fmax(fmin(up, 7), -7) + 1);
    default: return g / (1 + exp(-g)) * up;
    }
}

static void norms_and_activation_functions(void) {
    static const uint32_t lengths[] = {1, 7, 16, 33, 576, 2049};
    static float x[2049], g[2049], y[2049];
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        const uint32_t n = lengths[l];
        random_numbers(x, n, &state, PROFILE_PLAIN);
        for (uint32_t i = 0; i < n; i++) g[i] = random_float(&state, -30, 30);
        double squares = 0, worst = 0;
        for (uint32_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
        k->rmsnorm(y, x, g, n, 1e-5f);
        for (uint32_t i = 0; i < n; i++) {
            const double expected = (double)x[i] / sqrt(squares / n + (double)1e-5f) * (double)g[i];
            worst = fmax(worst, fabs((double)y[i] - expected) / (fabs(expected) + 1e-30));
        }
        CHECK(worst < 1e-6);
        double mean = 0, variance = 0;
        for (uint32_t i = 0; i < n; i++) mean += (double)x[i] / n;
        for (uint32_t i = 0; i < n; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
        worst = 0;
        k->layernorm(y, x, g, x, n, 1e-5f);
        for (uint32_t i = 0; i < n; i++) {
            const double expected =
                ((double)x[i] - mean) / sqrt(variance + (double)1e-5f) * (double)g[i] + (double)x[i];
            worst = fmax(worst, fabs((double)y[i] - expected) / (fabs(expected) + 1));
        }
        CHECK(worst < 1e-5);
        for (int f = 0; f < 4; f++) {
            worst = 0;
            k->activate(y, g, x, n, (nibl_activation)f);
            for (uint32_t i = 0; i < n; i++) {
                const double expected = activation((double)g[i], (double)x[i], (nibl_activation)f);
                worst = fmax(worst, fabs((double)y[i] - expected) / (fabs(expected) + 1e-6));
            }
            CHECK(worst < 3e-6);
            k->activate(y, g, NULL, n, (nibl_activation)f);
            CHECK(fabs((double)y[0] - activation((double)g[0], 1, (nibl_activation)f)) <
                  1e-5 * fabs((double)y[0]) + 1e-9);
        }
        memcpy(y, g, n * sizeof *y);
        k->soft_cap(y, n, 12.5f);
        for (uint32_t i = 0; i < n; i++) CHECK(fabs((double)y[i] - 12.5 * tanh((double)g[i] / 12.5)) < 5e-6);
    }
}

/* A pair turns by its angle, and no other number moves. */
static void rope_turns_pairs(void) {
    enum { PAIRS = 5 };
    for (int neox = 0; neox < 2; neox++)
        for (int pair = 0; pair < PAIRS; pair++) {
            float x[2 * PAIRS] = {0}, cos_sin[2 * PAIRS];
            for (int i = 0; i < PAIRS; i++) {
                cos_sin[i] = cosf(0.3f * (float)(i + 1));
                cos_sin[PAIRS + i] = sinf(0.3f * (float)(i + 1));
            }
            const int a = neox ? pair : 2 * pair, b = neox ? pair + PAIRS : 2 * pair + 1;
            x[a] = 3 * cosf(0.5f);
            x[b] = 3 * sinf(0.5f);
            k->rope(x, cos_sin, PAIRS, neox);
            const double angle = 0.5 + 0.3 * (pair + 1);
            for (int i = 0; i < 2 * PAIRS; i++) {
                const double expected = i == a ? 3 * cos(angle) : i == b ? 3 * sin(angle) : 0;
                CHECK(fabs((double)x[i] - expected) < 1e-6);
            }
        }
}

/* Softmax attention over `count` positions, in blocks. */
static void attention(uint32_t count, uint32_t width, float size) {
    const uint32_t blocks = (count + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    const size_t half = (size_t)NIBL_ATTN_BLOCK * width;
    const float scale = 1.0f / sqrtf((float)width);
    float *q = malloc(width * sizeof *q), *o = calloc(width, sizeof *o), *o2 = malloc(width * sizeof *o2);
    float *keys = malloc(blocks * half * sizeof *keys), *values = malloc(blocks * half * sizeof *values);
    float ml[2] = {-INFINITY, 0}, ml2[2];
    for (uint32_t d = 0; d < width; d++) q[d] = random_float(&state, -size, size);
    random_numbers(keys, blocks * half, &state, PROFILE_PLAIN);
    random_numbers(values, blocks * half, &state, PROFILE_PLAIN);

    double *expected = calloc(width, sizeof *expected), *scores = malloc(count * sizeof *scores);
    double most = -INFINITY, total = 0;
    for (uint32_t j = 0; j < count; j++) {
        scores[j] = 0;
        for (uint32_t d = 0; d < width; d++)
            scores[j] += (double)q[d] * (double)keys[j / 64 * half + d * 64 + j % 64] * (double)scale;
        most = fmax(most, scores[j]);
    }
    for (uint32_t j = 0; j < count; j++) total += exp(scores[j] - most);
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t d = 0; d < width; d++)
            expected[d] += exp(scores[j] - most) / total * (double)values[j / 64 * half + j % 64 * width + d];

    for (uint32_t b = 0; b < blocks; b++) {
        const uint32_t n = count - b * 64 < 64 ? count - b * 64 : 64;
        const nibl_view view = {0, n, scale, 0};
        k->attn_block(o2, ml2, q, keys + b * half, values + b * half, &view, width);
        k->attn_merge(o, ml, o2, ml2, width);
    }
    CHECK(fabs((double)ml[0] - most) <= 1e-5 * (1 + fabs(most)));
    CHECK(fabs((double)ml[1] / total - 1) < 2e-5 * (1 + (double)size));
    double worst = 0;
    for (uint32_t d = 0; d < width; d++) worst = fmax(worst, fabs((double)(o[d] / ml[1]) - expected[d]));
    if (!CHECK(worst < 2e-5 * (1 + (double)size)))
        printf("    %u positions, width %u: %.2g\n", count, width, worst);
    free(scores);
    free(expected);
    free(values);
    free(keys);
    free(o2);
    free(o);
    free(q);
}

static void attention_is_a_softmax(void) {
    static const uint32_t counts[] = {1, 2, 17, 63, 64, 65, 128, 150, 300}, widths[] = {8, 64, 80, 128};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            attention(counts[c], widths[w], 1);
            attention(counts[c], widths[w], 20); /* nearly all weight on one position */
        }
}

int main(void) {
    static const test tests[] = {
        {"integer products are the sum of weight times activation", integer_products},
        {"float products are the sum of weight times activation", float_products},
        {"quantize rounds to nearest", quantize_rounds_to_nearest},
        {"quantize: ties, nothing, too much", quantize_at_the_ends},
        {"norm and activation function follow their formulas", norms_and_activation_functions},
        {"rope turns the right pairs", rope_turns_pairs},
        {"attention over blocks is a softmax", attention_is_a_softmax},
    };
    k = nibl_kernels_get(NULL);
    return test_run(tests, sizeof tests / sizeof *tests);
}
