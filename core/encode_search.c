/*
 * One search for every grid. Of a group, several scales are tried that clip the largest values more or less; each gives
 * levels, these give the scale (and minimum) that fits them best by weighted least squares, and the best pair is refined
 * until nothing changes. Scales that are stored as integers or small floats are then chosen again, with their neighbours,
 * among those that the file can hold, and levels are rounded with the scale as stored.
 */
#include "core/encode_parts.h"

#include "kernels/maths.h"

#include <math.h>
#include <string.h>

static const float LARGEST = 1e15f; /* its square is finite, and no type but MXFP4 holds it */
enum { LANES = 8, TRIES = 17, REFINEMENTS = 4, GROUPS = 16 };

/* ---- Levels ---- */

/* levels = those nearest to (x - m) / d. */
static void round_levels(const nibl_grid *g, const float *x, uint32_t n, float inverse, float m,
                         float *levels) {
    if (!g->table) {
        for (uint32_t i = 0; i < n; i++) {
            float y = (x[i] - m) * inverse;
            y = y < g->low ? g->low : y;
            y = y > g->high ? g->high : y;
            levels[i] = (y + NIBL_ROUNDER) - NIBL_ROUNDER;
        }
        return;
    }
    /* tables are ordered by magnitude in each half (E2M1) or as a whole: thresholds in ascending order */
    float sorted[16];
    uint32_t count = 0;
    if (g->table[0] < 0)
        for (; count < 16; count++) sorted[count] = g->table[count];
    else
        for (int i = -7; i <= 7; i++) sorted[count++] = i < 0 ? g->table[8 - i] : g->table[i];
    for (uint32_t i = 0; i < n; i++) levels[i] = sorted[0];
    for (uint32_t j = 1; j < count; j++) {
        const float threshold = (sorted[j - 1] + sorted[j]) / 2, level = sorted[j];
        for (uint32_t i = 0; i < n; i++) levels[i] = x[i] * inverse > threshold ? level : levels[i];
    }
}

static uint8_t code_of(const nibl_grid *g, float level) {
    if (!g->table) return (uint8_t)((int)level + g->zero);
    uint8_t code = 0;
    while (code < 15 && g->table[code] != (int)level) code++;
    return code;
}

float nibl_code_level(const nibl_grid *g, uint8_t code) {
    if (g->table) return g->table[code];
    if (g->choose && g->min) return code;
    return (float)((g->zero ? (int)code : (int)(int8_t)code) - g->zero);
}

static double error_of(const float *x, const float *w, uint32_t n, float d, float m, const float *levels) {
    float lanes[LANES] = {0};
    for (uint32_t i = 0; i < n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) {
            const float e = x[i + j] - (levels[i + j] * d + m);
            lanes[j] += w[i + j] * (e * e);
        }
    double sum = 0;
    for (int j = 0; j < LANES; j++) sum += (double)lanes[j];
    return sum;
}

/* Levels by a scale as stored, and their error. */
static double settle(const nibl_grid *g, const float *x, const float *w, uint32_t n, float d, float m,
                     float *levels) {
    const float inverse = d < 0 || d > 0 ? 1.0f / d : 0;
    round_levels(g, x, n, isfinite(inverse) ? inverse : 0, m, levels);
    return error_of(x, w, n, d, m, levels);
}

/* ---- The scale of a group ---- */

typedef struct fit {
    float d, m;
    double error;
} fit;

/* Weighted least squares of x = d level (+ m). */
static fit fit_levels(const nibl_grid *g, const float *x, const float *w, uint32_t n, const float *levels) {
    float lq[LANES] = {0}, lqq[LANES] = {0}, lxq[LANES] = {0}, lx[LANES] = {0}, lw[LANES] = {0};
    for (uint32_t i = 0; i < n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) {
            const float q = levels[i + j], wq = w[i + j] * q;
            lq[j] += wq;
            lqq[j] += wq * q;
            lxq[j] += wq * x[i + j];
            lx[j] += w[i + j] * x[i + j];
            lw[j] += w[i + j];
        }
    double q = 0, qq = 0, xq = 0, sx = 0, sw = 0;
    for (int j = 0; j < LANES; j++) {
        q += (double)lq[j];
        qq += (double)lqq[j];
        xq += (double)lxq[j];
        sx += (double)lx[j];
        sw += (double)lw[j];
    }
    double d = qq > 0 ? xq / qq : 0, m = 0;
    const double determinant = sw * qq - q * q;
    if (g->min && determinant > 1e-6 * sw * qq) {
        d = (sw * xq - q * sx) / determinant;
        m = (sx - d * q) / sw;
    } else if (g->min) { /* all levels alike */
        d = 0;
        m = sx / sw;
    }
    if (g->min && g->storage == NIBL_STORE_INTEGER && m > 0) { /* is stored as a magnitude below zero */
        d = qq > 0 ? xq / qq : 0;
        m = 0;
    }
    if (g->min && d < 0) d = 0;
    fit f = {(float)d, (float)m, 0};
    f.error = error_of(x, w, n, f.d, f.m, levels);
    return f;
}

static void improve(const nibl_grid *g, const float *x, const float *w, uint32_t n, float inverse, float m,
                    fit *best) {
    float levels[NIBL_SUPER];
    if (!isfinite(inverse)) return;
    round_levels(g, x, n, inverse, m, levels);
    const fit f = fit_levels(g, x, w, n, levels);
    if (f.error < best->error) *best = f;
}

/* The ends of a group; those of integers with a minimum include zero. */
static void find_ends(const nibl_grid *g, const float *x, float *low, float *high) {
    *low = *high = x[0];
    for (uint32_t i = 1; i < g->group; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
    if (g->min && g->storage == NIBL_STORE_INTEGER && *low > 0) *low = 0;
}

/* The scale that just holds the ends. */
static fit plain_group(const nibl_grid *g, const float *x) {
    float low, high;
    find_ends(g, x, &low, &high);
    if (g->min) return (fit){(high - low) / g->high, low, 0};
    const float peak = -low > high ? low : high;
    return (fit){g->scale_low < 0 ? peak / g->low : fabsf(peak) / g->high, 0, 0};
}

static fit search_group(const nibl_grid *g, const float *x, const float *w) {
    const uint32_t n = g->group;
    float low, high;
    double zero = 0;
    find_ends(g, x, &low, &high);
    for (uint32_t i = 0; i < n; i++) zero += (double)(w[i] * (x[i] * x[i]));
    fit best = {0, 0, zero};
    const float peak = -low > high ? low : high;
    if (g->min ? !(high > low) : !(peak < 0 || peak > 0)) {
        if (g->min) best = (fit){0, low, 0};
        return best;
    }
    const bool signed_scale = g->storage == NIBL_STORE_F16 || g->scale_low < 0;
    const float clip = g->high - g->low < 8 ? 0.1f : 0.04f; /* few levels: the best scale clips more */
    for (int i = 0; i < TRIES; i++) {
        const float reach = 0.88f + clip * (float)i;
        if (g->min) {
            improve(g, x, w, n, g->high * reach / (high - low), low, &best);
            continue;
        }
        /* the peak on the lowest level or on the highest */
        if (signed_scale || peak < 0) improve(g, x, w, n, g->low * reach / peak, 0, &best);
        if (signed_scale || peak > 0) improve(g, x, w, n, g->high * reach / peak, 0, &best);
    }
    for (int i = 0; i < REFINEMENTS && (best.d < 0 || best.d > 0); i++) {
        const double before = best.error;
        improve(g, x, w, n, 1.0f / best.d, best.m, &best);
        if (!(best.error < before)) break;
    }
    return best;
}

/* ---- Scales as they are stored ---- */

static float ue4m3(int code) {
    if (code == 0x7F) return 0;
    return code < 8 ? (float)code * 0x1p-10f
                    : (float)(8 + code % 8) * nibl_bits_float((116u + (uint32_t)code / 8) << 23);
}

static float e8m0(int code) {
    return nibl_bits_float(code < 2 ? 0x200000u << code : ((uint32_t)code - 1) << 23);
}

/* The number that a stored scale stands for, which levels are multiplied by. */
static float stored_scale(const nibl_grid *g, float head, int code) {
    switch (g->storage) {
    case NIBL_STORE_E8M0: return e8m0(code);
    case NIBL_STORE_UE4M3: return ue4m3(code);
    default: return head * (float)code;
    }
}

static int clamp(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

/* What can be stored nearest to d, not above. */
static int scale_code(const nibl_grid *g, float head, float d) {
    int code = 0;
    switch (g->storage) {
    case NIBL_STORE_E8M0:
        while (code < 252 && e8m0(code + 1) <= d) code++;
        return code;
    case NIBL_STORE_UE4M3:
        while (code < 0x7E && ue4m3(code + 1) <= d) code++;
        return code;
    default:
        if (!(head < 0 || head > 0)) return 0;
        return clamp((int)floorf(d / head), g->scale_low, g->scale_high);
    }
}

static void scale_limits(const nibl_grid *g, int *low, int *high) {
    *low = g->storage == NIBL_STORE_INTEGER ? g->scale_low : 0;
    *high = g->storage == NIBL_STORE_E8M0 ? 252 : g->storage == NIBL_STORE_UE4M3 ? 0x7E : g->scale_high;
}

/* A block of groups, all in the terms of the file. */
typedef struct candidate {
    float d, m; /* heads, exact in f16 */
    int scales[GROUPS], mins[GROUPS];
    float levels[NIBL_SUPER];
    double error;
} candidate;

/* The best scale (and minimum) of a group near the one wanted. */
static void settle_group(const nibl_grid *g, const float *x, const float *w, uint32_t group,
                         const fit *wanted, candidate *c) {
    const uint32_t n = g->group;
    float levels[NIBL_SUPER];
    int low, high;
    scale_limits(g, &low, &high);
    const int scale = scale_code(g, c->d, wanted->d), min = c->m > 0 ? (int)floorf(-wanted->m / c->m) : 0;
    double best = HUGE_VAL;
    for (int i = -1; i <= 2; i++)
        for (int j = 0; j < (g->min ? 2 : 1); j++) {
            const int s = clamp(scale + i, low, high), t = clamp(min + j, 0, high);
            const double error =
                settle(g, x, w, n, stored_scale(g, c->d, s), g->min ? -(c->m * (float)t) : 0, levels);
            if (!(error < best)) continue;
            best = error;
            c->scales[group] = s;
            c->mins[group] = t;
            memcpy(c->levels + group * n, levels, n * sizeof *levels);
        }
    c->error += best;
}

/* Heads that fit the stored integers and levels best, in f16. */
static void fit_heads(const nibl_grid *g, const float *x, const float *w, uint32_t groups, candidate *c) {
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (uint32_t i = 0; i < groups * g->group; i++) {
        const double a = (double)(c->levels[i] * (float)c->scales[i / g->group]), b = -c->mins[i / g->group];
        aa += (double)w[i] * a * a;
        ab += (double)w[i] * a * b;
        bb += (double)w[i] * b * b;
        xa += (double)(w[i] * x[i]) * a;
        xb += (double)(w[i] * x[i]) * b;
    }
    const double determinant = aa * bb - ab * ab;
    double d = aa > 0 ? xa / aa : 0, m = (double)c->m;
    if (g->min && determinant > 1e-9 * aa * bb) {
        d = (bb * xa - ab * xb) / determinant;
        m = (aa * xb - ab * xa) / determinant;
        if (d < 0 || m < 0) return;
    }
    c->d = nibl_f16_to_f32(nibl_f32_to_f16((float)d));
    c->m = nibl_f16_to_f32(nibl_f32_to_f16((float)m));
}

static bool search_stored(const nibl_grid *g, const float *x, const float *w, uint32_t groups,
                          const fit *fits, candidate *best) {
    float peak = 0, low = 0;
    for (uint32_t i = 0; i < groups; i++) {
        if (fabsf(fits[i].d) > fabsf(peak)) peak = fits[i].d;
        low = fits[i].m < low ? fits[i].m : low;
    }
    if (g->storage == NIBL_STORE_INTEGER) {
        best->d = peak / (float)(g->scale_low < 0 ? g->scale_low : g->scale_high);
        best->m = g->min ? -low / (float)g->scale_high : 0;
        if (fabsf(best->d) > 65504.0f || best->m > 65504.0f) return false;
        best->d = nibl_f16_to_f32(nibl_f32_to_f16(best->d));
        best->m = nibl_f16_to_f32(nibl_f32_to_f16(best->m));
    }
    for (int round = 0; round < 3; round++) {
        candidate c = {.d = best->d, .m = best->m};
        for (uint32_t i = 0; i < groups; i++)
            settle_group(g, x + i * g->group, w + i * g->group, i, &fits[i], &c);
        if (round > 0 && !(c.error < best->error)) break;
        *best = c;
        if (g->storage != NIBL_STORE_INTEGER) break;
        fit_heads(g, x, w, groups, &c);
        if (round == 2) break;
        /* levels stay where rounding anew does not help */
        double error = 0;
        for (uint32_t i = 0; i < groups; i++)
            error += error_of(x + i * g->group, w + i * g->group, g->group, stored_scale(g, c.d, c.scales[i]),
                              g->min ? -(c.m * (float)c.mins[i]) : 0, c.levels + i * g->group);
        c.error = error;
        if (!(error < best->error)) break;
        *best = c;
    }
    return true;
}

/* The searched scales or, where their rounding spoils more than they gain, the plain ones. */
static bool search_groups(const nibl_grid *g, const float *x, const float *w, uint32_t groups,
                          candidate *best) {
    fit searched[GROUPS], plain[GROUPS];
    candidate other = {0};
    for (uint32_t i = 0; i < groups; i++) {
        searched[i] = search_group(g, x + i * g->group, w + i * g->group);
        plain[i] = plain_group(g, x + i * g->group);
    }
    if (!search_stored(g, x, w, groups, searched, best) || !search_stored(g, x, w, groups, plain, &other))
        return false;
    if (other.error < best->error) *best = other;
    return true;
}

bool nibl_search_block(const nibl_grid *g, const float *x, const float *weights, uint32_t count,
                       nibl_block *out) {
    const float most = g->storage == NIBL_STORE_UE4M3 ? ue4m3(0x7E) * g->high : LARGEST;
    for (uint32_t i = 0; i < count; i++)
        if (fabsf(x[i]) > most) return false;
    const uint32_t groups = count / g->group;
    candidate c = {0};
    if (g->storage == NIBL_STORE_F16) {
        const fit f = search_group(g, x, weights);
        if (fabsf(f.d) > 65504.0f || fabsf(f.m) > 65504.0f) return false;
        out->d = nibl_f32_to_f16(f.d);
        out->m = nibl_f32_to_f16(f.m);
        settle(g, x, weights, count, nibl_f16_to_f32(out->d), nibl_f16_to_f32(out->m), c.levels);
    } else {
        if (!search_groups(g, x, weights, groups, &c)) return false;
        out->d = nibl_f32_to_f16(c.d);
        out->m = nibl_f32_to_f16(c.m);
        for (uint32_t i = 0; i < groups; i++) {
            out->scales[i] = (uint8_t)c.scales[i];
            out->mins[i] = (uint8_t)c.mins[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) out->codes[i] = code_of(g, c.levels[i]);
    return true;
}

void nibl_group_scale(const nibl_grid *g, const nibl_block *b, uint32_t group, float *d, float *m) {
    if (g->choose) {
        *d = b->scale;
        *m = -(b->scale * (float)b->zero_point);
        return;
    }
    const bool integer = g->storage == NIBL_STORE_INTEGER;
    const int scale = g->scale_low < 0 ? (int8_t)b->scales[group] : b->scales[group];
    const float head = nibl_f16_to_f32(b->d), low = nibl_f16_to_f32(b->m);
    *d = g->storage == NIBL_STORE_F16 ? head : stored_scale(g, head, scale);
    *m = !g->min ? 0 : integer ? -(low * (float)b->mins[group]) : low;
}

uint8_t nibl_nearest_code(const nibl_grid *g, float y, float *level) {
    round_levels(g, &y, 1, 1, 0, level);
    return code_of(g, *level);
}

double nibl_block_error(const nibl_grid *g, const float *x, const float *weights, uint32_t count,
                        const nibl_block *b) {
    double error = 0;
    for (uint32_t i = 0; i < count; i += g->group) {
        float d, m, levels[NIBL_SUPER];
        nibl_group_scale(g, b, i / g->group, &d, &m);
        for (uint32_t j = 0; j < g->group; j++) levels[j] = nibl_code_level(g, b->codes[i + j]);
        error += error_of(x + i, weights + i, g->group, d, m, levels);
    }
    return error;
}
