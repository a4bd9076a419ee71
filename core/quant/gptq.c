#include "core/quant/gptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = NIBL_TILE };

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

static nibl_status order_columns(const float *sums, const float *scale, const nibl_factor *f) {
    activity *list = nibl_alloc((uint64_t)f->size * sizeof *list);
    if (!list) return nibl_fail_memory((uint64_t)f->size * sizeof *list, "the order of columns");
    for (uint32_t i = 0; i < f->size; i++)
        list[i] = (activity){
            i < f->n ? sums[nibl_panel_at(f->size, i, i)] * (scale ? scale[i] * scale[i] : 1) : 0, i};
    qsort(list, f->n, sizeof *list, compare_activities);
    for (uint32_t i = 0; i < f->size; i++) f->order[i] = list[i].column;
    nibl_free(list);
    return NIBL_OK;
}

/* ---- Cholesky of H with the order of columns reversed, in place: then R is L, both ways turned around ---- */

typedef struct cholesky {
    nibl_pool *pool;
    const nibl_kernels *kernels;
    float *sums; /* H, then all that follows */
    const float *scale;
    nibl_factor *factor;
    float *room; /* of every worker a row (size), and a panel (size, T) */
    double *diagonal; /* (size) of L */
    double damp;
    bool failed;
} cholesky;

/* Where panel `panel` of a triangle begins: rows 16 `panel` on, of which column j has T values at j T, up to the diagonal's. */
static size_t triangle_at(uint32_t panel) { return (size_t)panel * (panel + 1) / 2 * T * T; }

static double *panel_of(const cholesky *c, uint32_t panel) {
    return (double *)(void *)c->sums + triangle_at(panel);
}

/* The columns of H by their order, reversed. */
static void turn_columns(const cholesky *c, uint32_t worker, uint32_t workers) {
    const uint32_t size = c->factor->size, *order = c->factor->order;
    float *room = c->room + (size_t)worker * size;
    for (uint32_t i = worker; i < size; i += workers) {
        for (uint32_t j = 0; j < size; j++) room[j] = c->sums[nibl_panel_at(size, i, order[size - 1 - j])];
        for (uint32_t j = 0; j < size; j += T)
            memcpy(c->sums + nibl_panel_at(size, i, j), room + j, T * sizeof *room);
    }
}

/* A triangle of H, its rows turned as well, scaled and damped, in doubles where the square was: a panel of them ends before
 * the next one of the square begins, but for the last. Copied by memcpy, as the memory changes its type. */
static void widen(const cholesky *c, uint32_t workers) {
    const uint32_t size = c->factor->size, n = c->factor->n, *order = c->factor->order;
    float *room = c->room + (size_t)workers * size;
    for (uint32_t panel = 0; panel < size / T; panel++) {
        const uint32_t first = panel * T;
        double *a = panel_of(c, panel);
        for (uint32_t j = 0; j < first + T; j++)
            memcpy(room + (size_t)j * T, c->sums + nibl_panel_at(size, order[size - 1 - j], first),
                   T * sizeof *room);
        for (uint32_t j = 0; j < first + T; j++) {
            const uint32_t q = order[size - 1 - j];
            for (uint32_t r = 0; r < T; r++) {
                const uint32_t p = order[size - 1 - first - r];
                const double s = c->scale && p < n && q < n ? (double)c->scale[p] * (double)c->scale[q] : 1;
                a[(size_t)j * T + r] = (double)room[(size_t)j * T + r] * s + (first + r == j ? c->damp : 0);
            }
        }
    }
}

/* The square on the diagonal, once the columns before it are subtracted. */
static void factor_diagonal(cholesky *c, uint32_t panel) {
    double sum[T * T] = {0}, *a = panel_of(c, panel), *square = a + (size_t)panel * T * T;
    c->kernels->tile_f64(sum, a, a, panel * T);
    for (uint32_t s = 0; s < T; s++) {
        for (uint32_t r = s; r < T; r++) {
            double rest = square[s * T + r] - sum[s * T + r];
            for (uint32_t t = 0; t < s; t++) rest -= square[t * T + r] * square[t * T + s];
            if (r > s) {
                square[s * T + r] = rest / square[s * T + s];
            } else if (rest > 0) {
                square[s * T + s] = sqrt(rest);
            } else {
                square[s * T + s] = 1;
                c->failed = true;
            }
        }
    }
}

/* Columns 16 `column` on of a panel of rows below them. */
static void reduce_panel(const cholesky *c, uint32_t panel, uint32_t column) {
    double sum[T * T] = {0}, *a = panel_of(c, panel), *out = a + (size_t)column * T * T;
    const double *other = panel_of(c, column), *square = other + (size_t)column * T * T;
    c->kernels->tile_f64(sum, other, a, column * T);
    for (uint32_t s = 0; s < T; s++) {
        double rest[T];
        for (uint32_t r = 0; r < T; r++) rest[r] = out[s * T + r] - sum[s * T + r];
        for (uint32_t t = 0; t < s; t++)
            for (uint32_t r = 0; r < T; r++) rest[r] -= out[t * T + r] * square[t * T + s];
        for (uint32_t r = 0; r < T; r++) out[s * T + r] = rest[r] / square[s * T + s];
    }
}

/* L in floats, each column divided by its diagonal, and that, in the first half of its room. */
static void narrow(const cholesky *c) {
    const uint32_t panels = c->factor->size / T;
    for (uint32_t panel = 0; panel < panels; panel++)
        for (uint32_t r = 0; r < T; r++)
            c->diagonal[panel * T + r] = panel_of(c, panel)[(size_t)(panel * T + r) * T + r];
    for (uint32_t panel = 0; panel < panels; panel++)
        for (uint32_t j = 0; j < (panel + 1) * T; j++) {
            double from[T];
            float to[T];
            memcpy(from, panel_of(c, panel) + (size_t)j * T, sizeof from);
            for (uint32_t r = 0; r < T; r++)
                to[r] = (float)(panel * T + r == j ? c->diagonal[j] : from[r] / c->diagonal[j]);
            memcpy(c->sums + triangle_at(panel) + (size_t)j * T, to, sizeof to);
        }
}

/* Of columns 16 `panel` on of the factor, as it is used: squares of L, turned around. */
static void write_panel(const cholesky *c, uint32_t panel) {
    const uint32_t last = c->factor->size / T - 1;
    float *out = c->factor->triangle + triangle_at(panel);
    for (uint32_t k = 0; k <= panel; k++, out += T * T) {
        const float *square = c->sums + triangle_at(last - k) + (size_t)(last - panel) * T * T;
        for (uint32_t i = 0; i < T * T; i++) out[i] = square[(T - 1 - i % T) * T + T - 1 - i / T];
    }
}

/* A worker has every so-manieth panel of rows, and whoever has a panel also factors its diagonal: nobody waits but for
 * that. */
static void cholesky_job(void *context, uint32_t worker, uint32_t workers) {
    cholesky *c = context;
    const uint32_t panels = c->factor->size / T;
    turn_columns(c, worker, workers);
    nibl_pool_barrier(c->pool, worker);
    if (worker == 0) widen(c, workers);
    nibl_pool_barrier(c->pool, worker);
    for (uint32_t j = 0; j < panels; j++) {
        if (j % workers == worker) factor_diagonal(c, j);
        nibl_pool_barrier(c->pool, worker);
        for (uint32_t i = worker; i < panels; i += workers)
            if (i > j) reduce_panel(c, i, j);
    }
    nibl_pool_barrier(c->pool, worker);
    if (worker == 0) narrow(c);
    nibl_pool_barrier(c->pool, worker);
    for (uint32_t i = worker; i < panels; i += workers) write_panel(c, i);
}

static nibl_status factorize(cholesky *c) {
    const uint32_t n = c->factor->n, size = c->factor->size;
    const uint64_t bytes = (nibl_pool_workers(c->pool) + T) * (uint64_t)size * sizeof *c->room;
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += (double)c->sums[nibl_panel_at(size, i, i)] *
                (c->scale ? (double)c->scale[i] * (double)c->scale[i] : 1) / n;
    c->damp *= mean;
    c->room = nibl_alloc(bytes);
    c->diagonal = nibl_alloc(size * sizeof *c->diagonal);
    const bool ready = c->room && c->diagonal;
    if (ready) nibl_pool_run(c->pool, cholesky_job, c);
    nibl_free(c->room);
    nibl_free(c->diagonal);
    if (!ready) return nibl_fail_memory(bytes, "the factor of a Hessian");
    return c->failed
               ? nibl_fail(NIBL_E_NUMERIC, "a Hessian is not positive definite: take more calibration text")
               : NIBL_OK;
}

nibl_status nibl_factor_make(nibl_pool *pool, const nibl_kernels *kernels, float *sums, const float *scale,
                             uint32_t n, double damp, nibl_factor *out) {
    const uint32_t size = nibl_panel_size(n);
    *out = (nibl_factor){.n = n,
                         .size = size,
                         .order = nibl_alloc((uint64_t)size * sizeof *out->order),
                         .triangle = sums + triangle_at(size / T)};
    if (!out->order) return nibl_fail_memory(size * sizeof *out->order, "the factor of a Hessian");
    NIBL_TRY(order_columns(sums, scale, out));
    cholesky c = {
        .pool = pool, .kernels = kernels, .sums = sums, .scale = scale, .factor = out, .damp = damp};
    return factorize(&c);
}

void nibl_factor_free(nibl_factor *f) {
    nibl_free(f->order);
    *f = (nibl_factor){0};
}

/* ---- Rounding ---- */

/* What lies in the room: of every column the weights, then their levels; the errors by order; scales of groups. */
typedef struct desk {
    float *x, *errors, *d, *inverse, *m;
} desk;

/* Columns whose scale stands in one place: a group, or a block where groups are larger. */
static uint32_t group_of(const nibl_gptq_rows *w) {
    return w->grid->group < w->block ? w->grid->group : w->block;
}

static desk desk_of(const nibl_gptq_rows *w, uint32_t n) {
    float *room = w->room;
    return (desk){room, room + (size_t)16 * n, room + (size_t)32 * n, room + (size_t)33 * n,
                  room + (size_t)34 * n};
}

static void begin_rows(const nibl_gptq_rows *w, uint32_t n, const desk *at) {
    const uint32_t group = group_of(w);
    memset(w->room, 0, (size_t)NIBL_GPTQ_ROOM(n) * sizeof *w->room);
    for (uint32_t r = 0; r < w->rows; r++) {
        for (uint32_t j = 0; j < n; j++) at->x[(size_t)j * T + r] = w->x[r * w->stride + j];
        for (uint32_t i = 0; i < n / group; i++) {
            const uint32_t first = i * group;
            float d, m;
            nibl_group_scale(w->grid, &w->blocks[r * w->block_stride + first / w->block],
                             first % w->block / group, &d, &m);
            const float inverse = d < 0 || d > 0 ? 1.0f / d : 0;
            at->d[(size_t)i * T + r] = d;
            at->m[(size_t)i * T + r] = m;
            at->inverse[(size_t)i * T + r] = isfinite(inverse) ? inverse : 0;
        }
    }
}

/* Column i by order, with the errors of the columns before it: of earlier panels in `sum`, of its own in at->errors. */
static void round_column(const nibl_factor *f, const nibl_levels *levels, uint32_t group, uint32_t i,
                         const float *sum, const desk *at) {
    const uint32_t column = f->order[i], first = i / T * T;
    const float *factor = f->triangle + triangle_at(i / T) + (size_t)first * T + i % T;
    float *x = at->x + (size_t)column * T, *errors = at->errors + (size_t)first * T, y[T], level[T];
    const size_t g = (size_t)(column / group) * T;
    for (uint32_t r = 0; r < T; r++) y[r] = x[r] + sum[r];
    for (uint32_t k = 0; k < i - first; k++)
        for (uint32_t r = 0; r < T; r++) y[r] += factor[k * T] * errors[k * T + r];
    for (uint32_t r = 0; r < T; r++) y[r] = (y[r] - at->m[g + r]) * at->inverse[g + r];
    nibl_round_levels(levels, y, T, 1, 0, level);
    for (uint32_t r = 0; r < T; r++) {
        errors[(i - first) * T + r] = x[r] - (level[r] * at->d[g + r] + at->m[g + r]);
        x[r] = level[r];
    }
}

void nibl_gptq_round(const nibl_factor *f, const nibl_kernels *kernels, const nibl_gptq_rows *w) {
    const uint32_t n = f->n;
    const nibl_levels levels = nibl_levels_of(w->grid);
    const uint32_t group = group_of(w);
    const desk at = desk_of(w, n);
    begin_rows(w, n, &at);
    for (uint32_t first = 0; first < n; first += T) {
        float sums[T * T] = {0};
        kernels->tile_f32(sums, f->triangle + triangle_at(first / T), at.errors, first);
        for (uint32_t i = 0; i < T; i++) round_column(f, &levels, group, first + i, sums + i * T, &at);
    }
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint32_t first = 0; first < n; first += T) {
            float level[T];
            for (uint32_t j = 0; j < T; j++) level[j] = at.x[(size_t)(first + j) * T + r];
            nibl_level_codes(w->grid, level, T,
                             w->blocks[r * w->block_stride + first / w->block].codes + first % w->block);
        }
}

double nibl_gptq_error(const nibl_factor *f, const nibl_kernels *kernels, const nibl_gptq_rows *w) {
    const float *errors = desk_of(w, f->n).errors;
    double error = 0;
    for (uint32_t first = 0; first < f->n; first += T) {
        float sums[T * T] = {0};
        kernels->tile_f32(sums, f->triangle + triangle_at(first / T), errors, first);
        for (uint32_t i = 0; i < T; i++) {
            const float *factor = f->triangle + triangle_at(first / T) + (size_t)first * T + i;
            for (uint32_t r = 0; r < w->rows; r++) {
                double e = (double)sums[i * T + r] + (double)errors[(size_t)(first + i) * T + r];
                for (uint32_t k = 0; k < i; k++)
                    e += (double)factor[k * T] * (double)errors[(size_t)(first + k) * T + r];
                e *= (double)factor[i * T];
                error += e * e;
            }
        }
    }
    return error;
}
