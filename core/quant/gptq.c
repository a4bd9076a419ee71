#include "core/quant/gptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, BLOCK = 64 /* columns of the factor at a time */ };

typedef struct activity {
    float value;
    uint32_t column;
} activity;

/* The most active first; of equals the first. */
static int compare_activities(const void *a, const void *b) {
    const activity *x = a, *y = b;
    if (x->value > y->value || x->value < y->value) return x->value > y->value ? -1 : 1;
    return (x->column > y->column) - (x->column < y->column);
}

static nibl_status order_columns(const float *sums, const float *scale, uint32_t n, uint32_t *order) {
    activity *list = nibl_alloc((uint64_t)n * sizeof *list);
    if (!list) return nibl_fail_memory((uint64_t)n * sizeof *list, "the order of columns");
    for (uint32_t i = 0; i < n; i++)
        list[i] = (activity){sums[(size_t)i * n + i] * (scale ? scale[i] * scale[i] : 1), i};
    qsort(list, n, sizeof *list, compare_activities);
    for (uint32_t i = 0; i < n; i++) order[i] = list[i].column;
    nibl_free(list);
    return NIBL_OK;
}

/* ---- Cholesky of H with the order of columns reversed: then R is L, both ways turned around ---- */

typedef struct cholesky {
    nibl_pool *pool;
    double *a; /* (n, n): the lower triangle becomes L */
    uint32_t n;
    bool failed;
} cholesky;

static double dot(const double *a, const double *b, uint32_t n) {
    double lanes[LANES] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum += a[i] * b[i];
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

/* Columns [begin, end) of row i. */
static void reduce_row(cholesky *c, uint32_t i, uint32_t begin, uint32_t end) {
    double *row = c->a + (size_t)i * c->n;
    for (uint32_t j = begin; j < end && j <= i; j++) {
        const double *other = c->a + (size_t)j * c->n, rest = row[j] - dot(row, other, j);
        if (j < i)
            row[j] = rest / other[j];
        else if (rest > 0)
            row[j] = sqrt(rest);
        else
            c->failed = true;
    }
}

static void cholesky_job(void *context, uint32_t worker, uint32_t workers) {
    cholesky *c = context;
    for (uint32_t begin = 0; begin < c->n; begin += BLOCK) {
        const uint32_t end = c->n - begin < BLOCK ? c->n : begin + BLOCK;
        for (uint32_t i = begin; worker == 0 && i < end; i++) reduce_row(c, i, begin, end);
        nibl_pool_barrier(c->pool, worker);
        for (uint32_t i = end + worker; i < c->n && !c->failed; i += workers) reduce_row(c, i, begin, end);
        nibl_pool_barrier(c->pool, worker);
    }
}

static nibl_status factorize(nibl_pool *pool, const float *sums, const float *scale, double damp,
                             nibl_factor *f) {
    const uint32_t n = f->n;
    cholesky c = {.pool = pool, .a = nibl_alloc((uint64_t)n * n * sizeof *c.a), .n = n};
    if (!c.a) return nibl_fail_memory((uint64_t)n * n * sizeof *c.a, "the factor of a Hessian");
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += (double)sums[(size_t)i * n + i] * (scale ? (double)scale[i] * (double)scale[i] : 1) / n;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            const uint32_t p = f->order[n - 1 - i], q = f->order[n - 1 - j];
            const double h = (double)sums[(size_t)(p > q ? p : q) * n + (p > q ? q : p)];
            c.a[(size_t)i * n + j] =
                h * (scale ? (double)scale[p] * (double)scale[q] : 1) + (i == j ? damp * mean : 0);
        }
    nibl_pool_run(pool, cholesky_job, &c);
    for (uint32_t i = 0; i < n && !c.failed; i++)
        for (uint32_t k = 0; k < i; k++)
            f->rows[(size_t)i * n + k] = (float)(c.a[(size_t)(n - 1 - k) * n + (n - 1 - i)] /
                                                 c.a[(size_t)(n - 1 - i) * n + (n - 1 - i)]);
    nibl_free(c.a);
    return c.failed
               ? nibl_fail(NIBL_E_NUMERIC, "a Hessian is not positive definite: take more calibration text")
               : NIBL_OK;
}

nibl_status nibl_factor_make(nibl_pool *pool, const float *sums, const float *scale, uint32_t n, double damp,
                             nibl_factor *out) {
    *out = (nibl_factor){.n = n,
                         .order = nibl_alloc((uint64_t)n * sizeof *out->order),
                         .rows = nibl_alloc((uint64_t)n * n * sizeof *out->rows)};
    if (!out->order || !out->rows) return nibl_fail_memory((uint64_t)n * n * 4, "the factor of a Hessian");
    NIBL_TRY(order_columns(sums, scale, n, out->order));
    return factorize(pool, sums, scale, damp, out);
}

void nibl_factor_free(nibl_factor *f) {
    nibl_free(f->order);
    nibl_free(f->rows);
    *f = (nibl_factor){0};
}

/* ---- Rounding ---- */

static float dot_errors(const float *a, const float *b, uint32_t n) {
    float lanes[LANES] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum += a[i] * b[i];
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

void nibl_gptq_row(const nibl_factor *f, const nibl_grid *g, uint32_t block, const float *x,
                   nibl_block *blocks, float *errors) {
    for (uint32_t i = 0; i < f->n; i++) {
        const uint32_t column = f->order[i], within = column % block;
        nibl_block *b = &blocks[column / block];
        float d, m, level = 0;
        nibl_group_scale(g, b, within / g->group, &d, &m);
        const float inverse = d < 0 || d > 0 ? 1.0f / d : 0,
                    target = x[column] + dot_errors(errors, f->rows + (size_t)i * f->n, i);
        b->codes[within] = nibl_nearest_code(g, isfinite(inverse) ? (target - m) * inverse : 0, &level);
        errors[i] = x[column] - (level * d + m);
    }
}
