/* Attention through the KV cache: every type against float arithmetic on the same keys and values, at every head width. */
#include "core/kvcache.h"
#include "tests/c/kernel_data.h"
#include "tests/c/test.h"

enum { POSITIONS = 100, BLOCKS = 2, MAX_WIDTH = 160 };

static const uint32_t widths[] = {64, 128, 80, 96, 1, 7, 16, 33, 160};
static const nibl_kernels *kernels;

typedef struct sequence {
    uint32_t width;
    float q[MAX_WIDTH], k[POSITIONS][MAX_WIDTH], v[POSITIONS][MAX_WIDTH];
} sequence;

/* One dimension of the keys is far off and large, as models have them. */
static void random_sequence(sequence *s, uint32_t width, uint64_t seed) {
    s->width = width;
    for (uint32_t d = 0; d < width; d++) s->q[d] = random_float(&seed, -1, 1);
    for (uint32_t j = 0; j < POSITIONS; j++)
        for (uint32_t d = 0; d < width; d++) {
            s->k[j][d] = random_float(&seed, -2, 2) + (d == width / 2 ? 20.0f : 0.0f);
            s->v[j][d] = random_float(&seed, -1, 1);
        }
}

static void store(nibl_kv *kv, const sequence *s, uint32_t begin, uint32_t end) {
    for (uint32_t j = begin; j < end; j++) nibl_kv_store(kv, 1, 2, j, s->k[j], s->v[j]);
}

static nibl_kv cache_of(const sequence *s, uint32_t type) {
    nibl_kv kv;
    const nibl_hyper hyper = {.layers = 2, .kv_heads = 3, .head_width = s->width};
    nibl_kv_init(&kv, &hyper, type, POSITIONS);
    CHECK_EQ(nibl_kv_reserve(&kv, POSITIONS), NIBL_OK);
    store(&kv, s, 0, POSITIONS);
    return kv;
}

/* o (width) over the first n positions. */
static void attend(const nibl_kv *kv, const sequence *s, uint32_t n, float *o) {
    static float room[2 * NIBL_ATTN_BLOCK * MAX_WIDTH];
    nibl_act codes[NIBL_KV_QUERY_BLOCKS(MAX_WIDTH)];
    float ml[2] = {-INFINITY, 0};
    nibl_kv_query(kv, kernels, codes, s->q);
    for (uint32_t d = 0; d < s->width; d++) o[d] = 0;
    for (uint32_t block = 0; block * NIBL_ATTN_BLOCK < n; block++) {
        const uint32_t left = n - block * NIBL_ATTN_BLOCK;
        float part[2 + MAX_WIDTH];
        const nibl_view view = {0, left < NIBL_ATTN_BLOCK ? left : NIBL_ATTN_BLOCK,
                                1.0f / sqrtf((float)s->width), 0};
        nibl_kv_attend(kv, kernels, part, 0, s->q, codes,
                       nibl_kv_open(kv, kernels, 1, 2, block, (n - 1) / NIBL_ATTN_BLOCK, room), &view, 1);
        kernels->attn_merge(o, ml, part + 2, part, s->width);
    }
    for (uint32_t d = 0; d < s->width; d++) o[d] /= ml[1];
}

static void expected(const sequence *s, uint32_t n, double *o) {
    double p[POSITIONS], most = -INFINITY, sum = 0;
    for (uint32_t j = 0; j < n; j++) {
        p[j] = 0;
        for (uint32_t d = 0; d < s->width; d++) p[j] += (double)s->q[d] * (double)s->k[j][d];
        p[j] /= sqrt(s->width);
        most = fmax(most, p[j]);
    }
    for (uint32_t j = 0; j < n; j++) sum += p[j] = exp(p[j] - most);
    for (uint32_t d = 0; d < s->width; d++) {
        o[d] = 0;
        for (uint32_t j = 0; j < n; j++) o[d] += p[j] * (double)s->v[j][d] / sum;
    }
}

static void attention_is_close_to_float_arithmetic(void) {
    static const struct {
        uint32_t type;
        double bar; /* of values within -1..1 */
    } types[] = {{NIBL_KV_F32, 1e-5}, {NIBL_KV_F16, 5e-3}, {NIBL_KV_I8, 0.03}};
    static sequence s;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        double worst = 0;
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            random_sequence(&s, widths[w], w);
            nibl_kv kv = cache_of(&s, types[i].type);
            for (uint32_t n = 1; n <= POSITIONS; n++) {
                float o[MAX_WIDTH];
                double e[MAX_WIDTH];
                attend(&kv, &s, n, o);
                expected(&s, n, e);
                for (uint32_t d = 0; d < s.width; d++)
                    worst = fabs((double)o[d] - e[d]) <= worst ? worst : fabs((double)o[d] - e[d]);
            }
            nibl_kv_free(&kv);
        }
        printf("type %u: max abs difference %.2g (bar %.0e)\n", (unsigned)types[i].type, worst, types[i].bar);
        CHECK(worst <= types[i].bar);
    }
}

/* What a page held before, behind the positions that a query sees or at the same ones, leaves no trace. */
static void a_page_can_be_written_again(void) {
    static sequence first, second;
    for (uint32_t type = NIBL_KV_I8; type <= NIBL_KV_F32; type++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            random_sequence(&first, widths[w], 1);
            random_sequence(&second, widths[w], 2);
            for (uint32_t d = 0; d < widths[w]; d++) first.k[70][d] = first.v[5][d] = NAN;
            nibl_kv fresh = cache_of(&second, type), used = cache_of(&first, type);
            store(&used, &second, 0, 50);
            float a[MAX_WIDTH], b[MAX_WIDTH];
            attend(&fresh, &second, 50, a);
            attend(&used, &second, 50, b);
            CHECK(memcmp(a, b, widths[w] * sizeof *a) == 0);
            nibl_kv_free(&fresh);
            nibl_kv_free(&used);
        }
}

/* Codes of one byte, 12 bytes of scales per head and position. */
static void pages_have_the_size_that_is_promised(void) {
    static const uint64_t bytes[] = {140, 256, 512}; /* of nibl.h */
    for (uint32_t type = NIBL_KV_I8; type <= NIBL_KV_F32; type++) {
        nibl_kv kv;
        const nibl_hyper hyper = {.layers = 30, .kv_heads = 3, .head_width = 64};
        nibl_kv_init(&kv, &hyper, type, NIBL_ATTN_BLOCK);
        CHECK_EQ(nibl_kv_bytes(&kv, NIBL_ATTN_BLOCK), 30 * 3 * NIBL_ATTN_BLOCK * bytes[type]);
    }
}

int main(void) {
    static const test tests[] = {
        {"attention is close to float arithmetic", attention_is_close_to_float_arithmetic},
        {"a page can be written again", a_page_can_be_written_again},
        {"pages have the size that is promised", pages_have_the_size_that_is_promised},
    };
    kernels = nibl_kernels_get(NULL);
    return test_run(tests, sizeof tests / sizeof *tests);
}
