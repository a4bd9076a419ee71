/* The reference of the quantizer's kernels. */
#include "kernels/maths.h"
#include "kernels/variants.h"

enum { LANES = 16 };

static float fold(float *lane) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static float nearest_level(float y, const nibl_levels *g) {
    if (g->count == 0) {
        y = g->low > y ? g->low : y;
        y = g->high < y ? g->high : y;
        return y + NIBL_ROUNDER - NIBL_ROUNDER;
    }
    float level = g->table[0];
    for (uint32_t j = 1; j < g->count; j++)
        if (y > (g->table[j - 1] + g->table[j]) / 2) level = g->table[j];
    return level;
}

void nibl_fit_sums_scalar(float *sums, const float *x, const float *w, uint32_t n, const nibl_levels *g,
                          const nibl_try *tries, uint32_t count) {
    for (uint32_t t = 0; t <= count; t++) { /* the first of x itself */
        float lanes[3][LANES] = {{0}};
        for (uint32_t i = 0; i < n; i++) {
            const float q = t > 0 ? nearest_level((x[i] - tries[t - 1].m) * tries[t - 1].inverse, g) : x[i];
            const float wq = w[i] * q;
            lanes[0][i % LANES] += t > 0 ? wq : w[i];
            lanes[1][i % LANES] += t > 0 ? wq * q : wq;
            lanes[2][i % LANES] += wq * x[i];
        }
        for (uint32_t i = 0; i < 3; i++) sums[3 * t + i] = fold(lanes[i]);
    }
}

void nibl_fit_errors_scalar(float *errors, const float *x, const float *w, uint32_t n, const nibl_levels *g,
                            const nibl_try *tries, uint32_t count) {
    for (uint32_t t = 0; t < count; t++) {
        float lanes[LANES] = {0};
        for (uint32_t i = 0; i < n; i++) {
            const float e =
                x[i] - (nearest_level((x[i] - tries[t].m) * tries[t].inverse, g) * tries[t].d + tries[t].e);
            lanes[i % LANES] += w[i] * (e * e);
        }
        errors[t] = fold(lanes);
    }
}

void nibl_tile_f32_scalar(float *c, const float *a, const float *b, uint32_t k) {
    for (uint32_t t = 0; t < k; t++, a += NIBL_TILE, b += NIBL_TILE)
        for (int i = 0; i < NIBL_TILE; i++)
            for (int j = 0; j < NIBL_TILE; j++) c[i * NIBL_TILE + j] += a[i] * b[j];
}

void nibl_tile_f64_scalar(double *c, const double *a, const double *b, uint32_t k) {
    for (uint32_t t = 0; t < k; t++, a += NIBL_TILE, b += NIBL_TILE)
        for (int i = 0; i < NIBL_TILE; i++)
            for (int j = 0; j < NIBL_TILE; j++) c[i * NIBL_TILE + j] += a[i] * b[j];
}
