#include "core/quant/rotate.h"

#include <math.h>
#include <string.h>

enum { FACTORS = 32, LARGEST = 256 };

struct nibl_rotation {
    uint32_t width, count;
    uint32_t orders[FACTORS]; /* their product is the width */
    int8_t *factors[FACTORS]; /* (order, order) of signs */
    float *signs; /* (width), and 1 / sqrt(width) */
};

/* ---- Hadamard matrices ---- */

static bool is_prime(uint32_t n) {
    for (uint32_t i = 2; i * i <= n; i++)
        if (n % i == 0) return false;
    return n > 2;
}

/* The prime of Paley's first or second construction of that order; 0 = there is none. */
static uint32_t prime_of(uint32_t order) {
    if (order % 4 == 0 && is_prime(order - 1) && order % 4 == 0 && (order - 1) % 4 == 3) return order - 1;
    const uint32_t q = order / 2 - 1;
    return order % 4 == 0 && is_prime(q) && q % 4 == 1 ? q : 0;
}

/* Quadratic character. */
static int character(uint32_t a, uint32_t q) {
    if (a % q == 0) return 0;
    for (uint32_t i = 1; i < q; i++)
        if (i * i % q == a % q) return 1;
    return -1;
}

static void make_matrix(uint32_t n, int8_t *h) {
    static const int8_t whole[4] = {1, 1, 1, -1}, alone[4] = {1, -1, -1, -1};
    if (n == 2) {
        memcpy(h, whole, 4);
        return;
    }
    const uint32_t q = prime_of(n), size = q + 1;
    const bool first = n == size; /* skew: I + S; else symmetric C: C x whole + I x alone */
    for (uint32_t i = 0; i < size; i++)
        for (uint32_t j = 0; j < size; j++) {
            int c = i == 0 ? 1 : first ? -1 : 1;
            if (i > 0 && j > 0) c = character(i + q - j, q);
            if (i == j) c = 0;
            if (first) {
                h[i * n + j] = (int8_t)(i == j ? 1 : c);
                continue;
            }
            for (uint32_t k = 0; k < 4; k++)
                h[(2 * i + k / 2) * n + 2 * j + k % 2] = (int8_t)(i == j ? alone[k] : c * whole[k]);
        }
}

/* Orders whose product is n: twos where that is enough, else the smallest of Paley's first. */
static bool factorize(uint32_t n, uint32_t *orders, uint32_t *count) {
    if (*count == FACTORS) return false;
    if ((n & (n - 1)) == 0) {
        for (; n > 1; n /= 2) orders[(*count)++] = 2;
        return true;
    }
    for (uint32_t order = 12; order <= LARGEST && order <= n; order += 4) {
        if (n % order != 0 || !prime_of(order)) continue;
        const uint32_t before = *count;
        orders[(*count)++] = order;
        if (factorize(n / order, orders, count)) return true;
        *count = before;
    }
    return false;
}

/* SplitMix64 (Steele et al. 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

nibl_status nibl_rotation_new(uint32_t width, uint64_t seed, nibl_rotation **out) {
    nibl_rotation *r = nibl_alloc_zero(sizeof *r);
    if (!r) return nibl_fail_memory(sizeof *r, "a rotation");
    r->width = width;
    nibl_status status = NIBL_OK;
    if (!factorize(width, r->orders, &r->count)) {
        r->count = 0;
        status = nibl_fail(NIBL_E_UNSUPPORTED, "no Hadamard matrix of %u dimensions is known here", width);
    }
    if (status == NIBL_OK && !(r->signs = nibl_alloc(4ull * width)))
        status = nibl_fail_memory(4ull * width, "a rotation");
    for (uint32_t i = 0; i < r->count && status == NIBL_OK; i++) {
        r->factors[i] = nibl_alloc((uint64_t)r->orders[i] * r->orders[i]);
        if (r->factors[i])
            make_matrix(r->orders[i], r->factors[i]);
        else
            status = nibl_fail_memory((uint64_t)r->orders[i] * r->orders[i], "a rotation");
    }
    for (uint32_t i = 0; i < width && status == NIBL_OK; i++)
        r->signs[i] = (next_random(&seed) >> 63 ? -1.0f : 1.0f) / sqrtf((float)width);
    if (status < 0)
        nibl_rotation_free(r);
    else
        *out = r;
    return status;
}

void nibl_rotation_free(nibl_rotation *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->count; i++) nibl_free(r->factors[i]);
    nibl_free(r->signs);
    nibl_free(r);
}

void nibl_rotation_apply(const nibl_rotation *r, float *x, size_t inner, float *room) {
    const size_t total = r->width * inner;
    for (uint32_t i = 0; i < r->width; i++)
        for (size_t j = 0; j < inner; j++) x[i * inner + j] *= r->signs[i];
    size_t stride = total;
    for (uint32_t f = 0; f < r->count; f++) {
        const uint32_t n = r->orders[f];
        const int8_t *h = r->factors[f];
        stride /= n;
        memset(room, 0, total * sizeof *room);
        for (size_t at = 0; at < total; at += stride * n)
            for (uint32_t a = 0; a < n; a++)
                for (uint32_t b = 0; b < n; b++) {
                    const float sign = h[a * n + b];
                    float *to = room + at + a * stride;
                    const float *from = x + at + b * stride;
                    for (size_t j = 0; j < stride; j++) to[j] += sign * from[j];
                }
        memcpy(x, room, total * sizeof *x);
    }
}

/* ---- Models ---- */

nibl_status nibl_rotate_check(const nibl_model *m) {
    static const uint64_t met = NIBL_BIT(ATTN_NORM_BIAS) | NIBL_BIT(FFN_NORM_BIAS) | NIBL_BIT(BO) |
                                NIBL_BIT(DOWN_BIAS) | NIBL_BIT(POST_ATTN_NORM) | NIBL_BIT(POST_FFN_NORM);
    uint32_t norms = 0;
    bool good = !m->arch->layer_norm && m->hyper.experts == 0 && m->hyper.conv_layers == 0;
    for (size_t i = 0; i < m->binding_count; i++) {
        const nibl_slot slot = m->bindings[i].slot;
        good = good && slot != NIBL_SLOT_POSITIONS && !(met >> slot & 1);
        norms += slot == NIBL_SLOT_ATTN_NORM || slot == NIBL_SLOT_FFN_NORM;
    }
    good = good && norms == 2 * m->hyper.layers;
    return good ? NIBL_OK
                : nibl_fail(
                      NIBL_E_UNSUPPORTED,
                      "architecture %s cannot be rotated: its residual stream meets more than RMS norms and "
                      "matrices without bias",
                      m->arch->name);
}

void nibl_rotate_matrices(nibl_layer *l, nibl_matrix *out[NIBL_ROTATED]) {
    nibl_matrix *const all[NIBL_ROTATED] = {&l->wq, &l->wk, &l->wv, &l->wo, l->gate, l->up, l->down};
    memcpy(out, all, sizeof all);
}

/* R2 of every head, on the rows of v or the columns of o. */
static nibl_status turn_heads(const nibl_model *m, const nibl_layer *layer, const nibl_matrix *w, bool values,
                              float *x, float *room) {
    const nibl_hyper *h = &m->hyper;
    const uint32_t width = h->head_width, heads = values ? h->kv_heads : h->heads;
    if (layer->bv || layer->attn_sub_norm) return NIBL_OK;
    for (uint32_t head = 0; head < heads; head++) {
        nibl_rotation *r;
        const uint32_t of =
            values ? head : head / (h->heads / h->kv_heads); /* shared by all queries of a head */
        NIBL_TRY(nibl_rotation_new(width, (uint64_t)(layer - m->layers) << 32 | (of + 1), &r));
        if (values)
            nibl_rotation_apply(r, x + (size_t)head * width * w->cols, w->cols, room);
        else
            for (uint32_t row = 0; row < w->rows; row++)
                nibl_rotation_apply(r, x + (size_t)row * w->cols + (size_t)head * width, 1, room);
        nibl_rotation_free(r);
    }
    return NIBL_OK;
}

static nibl_status turn(const nibl_model *m, const nibl_layer *layer, const nibl_rotation *stream,
                        uint32_t which, const nibl_matrix *w, float *x, float *room) {
    const float *norm = which < 3 ? layer->attn_norm : which == 4 || which == 5 ? layer->ffn_norm : NULL;
    for (uint32_t row = 0; row < w->rows; row++) {
        float *at = x + (size_t)row * w->cols;
        m->kernels->unpack_row(at, w, row);
        for (uint32_t j = 0; norm && j < w->cols; j++) at[j] *= norm[j];
        if (norm) nibl_rotation_apply(stream, at, 1, room);
    }
    if (which == 2 || which == 3) NIBL_TRY(turn_heads(m, layer, w, which == 2, x, room));
    if (!norm) nibl_rotation_apply(stream, x, w->cols, room);
    return NIBL_OK;
}

nibl_status nibl_rotate_layer(const nibl_model *m, const nibl_layer *layer, const nibl_rotation *stream,
                              nibl_matrix out[NIBL_ROTATED]) {
    const nibl_matrix *const all[NIBL_ROTATED] = {&layer->wq,  &layer->wk, &layer->wv, &layer->wo,
                                                  layer->gate, layer->up,  layer->down};
    memset(out, 0, NIBL_ROTATED * sizeof *out);
    for (uint32_t i = 0; i < NIBL_ROTATED; i++) {
        const nibl_matrix *w = all[i];
        if (!w || w->rows == 0) continue;
        out[i] = (nibl_matrix){.rows = w->rows, .cols = w->cols, .kind = NIBL_KIND_F32, .factor = 1};
        const uint64_t count = (uint64_t)w->rows * w->cols,
                       bytes = (uint64_t)nibl_panel_bytes(&out[i]) * nibl_panels(w);
        float *x = nibl_alloc(8 * count);
        out[i].data = nibl_alloc_zero(bytes);
        nibl_status status =
            x && out[i].data ? NIBL_OK : nibl_fail_memory(8 * count + bytes, "a rotated matrix");
        bool finite = true;
        if (status == NIBL_OK) status = turn(m, layer, stream, i, w, x, x + count);
        for (uint32_t row = 0; row < w->rows && status == NIBL_OK; row++)
            m->kernels->pack_row(&out[i], row, (const uint8_t *)(x + (size_t)row * w->cols), &finite);
        nibl_free(x);
        if (status == NIBL_OK && !finite)
            status = nibl_fail(NIBL_E_NUMERIC, "a rotated matrix is not finite");
        NIBL_TRY(status);
    }
    return NIBL_OK;
}
