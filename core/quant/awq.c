#include "core/quant/awq.h"

#include "core/encode_grid.h"
#include "core/maths.h"
#include "core/quant/gptq.h"

#include <math.h>
#include <string.h>

static const int EXPONENTS = 20;
enum { SAMPLE = 64 /* rows of a matrix */, T = NIBL_TILE };

typedef struct search {
    nibl_pool *pool;
    const nibl_site *site;
    const nibl_kernels *kernels;
    const nibl_dtype **types; /* of the sampled rows */
    float *rows; /* (count, cols) */
    double *errors; /* (count) */
    uint32_t count;
    float *scale; /* tried (cols) */
    float *room; /* (workers, 17, size): a row, and what rounding changes in 16 rows, one in a lane */
    nibl_block *blocks; /* (workers, cols / 32) */
} search;

/* x^exponent of the root mean squares, its extremes balanced around 1. */
static void make_scale(const nibl_site *site, double exponent, float *scale) {
    double low = HUGE_VAL, high = 0;
    for (uint32_t j = 0; j < site->cols; j++) {
        const double square = (double)site->squares[j];
        double s = square > 1e-30 ? nibl_pow(square, exponent / 2) : 0;
        if (s < 1e-4) s = 1e-4;
        scale[j] = (float)s;
        low = s < low ? s : low;
        high = s > high ? s : high;
    }
    const float balance = (float)(1 / sqrt(low * high));
    for (uint32_t j = 0; j < site->cols; j++) scale[j] *= balance;
}

/* What rounding the scaled row, by the type's rule, changes: to lane `lane` of delta. Where a matrix has one scale, the row
 * stands for it. False where a value is too large. */
static bool try_row(const search *s, uint32_t row, float *scaled, float *delta, nibl_block *blocks,
                    uint32_t lane) {
    const uint32_t n = s->site->cols, size = s->types[row]->block;
    const nibl_grid *g = nibl_grid_of(s->types[row]);
    const float *x = s->rows + (size_t)row * n;
    for (uint32_t j = 0; j < n; j++) scaled[j] = x[j] * s->scale[j];
    if (!nibl_choose_row(s->kernels, s->types[row], scaled, NULL, n, false, NULL, blocks)) return false;
    for (uint32_t j = 0; j < n; j++) {
        const nibl_block *b = &blocks[j / size];
        float d, m;
        nibl_group_scale(g, b, j % size / g->group, &d, &m);
        delta[(size_t)j * T + lane] = (nibl_code_level(g, b->codes[j % size]) * d + m) / s->scale[j] - x[j];
    }
    return true;
}

/* The errors of 16 rows: sum over j of (sum over i of H_ij delta_i) delta_j. */
static void try_rows(const search *s, uint32_t first, float *room, nibl_block *blocks) {
    const uint32_t size = nibl_panel_size(s->site->cols);
    float *delta = room + size;
    double *errors = s->errors + first;
    memset(delta, 0, (size_t)size * T * sizeof *delta);
    for (uint32_t r = 0; r < T && first + r < s->count; r++)
        errors[r] = try_row(s, first + r, room, delta, blocks, r) ? 0 : HUGE_VAL;
    for (uint32_t j = 0; j < size; j += T) {
        float sums[T * T] = {0};
        s->kernels->tile_f32(sums, s->site->sums + nibl_panel_at(size, 0, j), delta, size);
        for (uint32_t i = 0; i < T; i++)
            for (uint32_t r = 0; r < T && first + r < s->count; r++)
                errors[r] += (double)sums[i * T + r] * (double)delta[(size_t)(j + i) * T + r];
    }
}

static void try_job(void *context, uint32_t worker, uint32_t workers) {
    const search *s = context;
    float *room = s->room + (size_t)worker * 17 * nibl_panel_size(s->site->cols);
    nibl_block *blocks = s->blocks + (size_t)worker * (s->site->cols / NIBL_BLOCK);
    for (uint32_t row = worker * T; row < s->count; row += workers * T) try_rows(s, row, room, blocks);
}

static void find_exponent(search *s, float *scale) {
    double least = HUGE_VAL;
    for (int r = 0; r < EXPONENTS; r++) {
        double error = 0;
        make_scale(s->site, (double)r / (double)EXPONENTS, s->scale);
        nibl_pool_run(s->pool, try_job, s);
        for (uint32_t i = 0; i < s->count; i++) error += s->errors[i];
        if (!(error < least)) continue;
        least = error;
        memcpy(scale, s->scale, s->site->cols * sizeof *scale);
    }
}

nibl_status nibl_awq_search(nibl_pool *pool, const nibl_site *site, const nibl_kernels *kernels,
                            const nibl_matrix *const *matrices, const nibl_dtype *const *types,
                            uint32_t count, float *scale) {
    const uint64_t n = site->cols, most = (uint64_t)count * SAMPLE;
    search s = {.pool = pool,
                .site = site,
                .kernels = kernels,
                .types = nibl_alloc(most * sizeof *s.types),
                .rows = nibl_alloc(4 * most * n),
                .errors = nibl_alloc_zero(most * sizeof *s.errors),
                .scale = nibl_alloc(4 * n),
                .room = nibl_alloc(4ull * 17 * nibl_panel_size(site->cols) * nibl_pool_workers(pool)),
                .blocks = nibl_alloc(n / NIBL_BLOCK * nibl_pool_workers(pool) * sizeof *s.blocks)};
    nibl_status status = NIBL_OK;
    for (uint32_t j = 0; j < n; j++) scale[j] = 1;
    if (!s.types || !s.rows || !s.errors || !s.scale || !s.room || !s.blocks) {
        status = nibl_fail_memory(4 * most * n, "rows of matrices");
    } else {
        for (uint32_t m = 0; m < count; m++) {
            if (!nibl_grid_of(types[m])) continue; /* floats lose next to nothing */
            const uint32_t rows = matrices[m]->rows, taken = rows < SAMPLE ? rows : SAMPLE;
            for (uint32_t i = 0; i < taken; i++, s.count++) {
                kernels->unpack_row(s.rows + s.count * n, matrices[m],
                                    (uint32_t)((uint64_t)rows * i / taken));
                s.types[s.count] = types[m];
            }
        }
        if (s.count > 0) find_exponent(&s, scale);
    }
    nibl_free(s.types);
    nibl_free(s.rows);
    nibl_free(s.errors);
    nibl_free(s.scale);
    nibl_free(s.room);
    nibl_free(s.blocks);
    return status;
}
