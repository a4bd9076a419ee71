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
enum { LANES = 16, REACHES = 17, MOST_TRIES = 2 * REACHES + 1, REFINEMENTS = 4, GROUPS = 16 };

/* ---- Levels ---- */

nibl_levels nibl_levels_of(const nibl_grid *g) {
    nibl_levels l = {.low = g->low, .high = g->high};
    if (!g->table) return l;
    /* tables are ordered by magnitude in each half (E2M1) or as a whole */
    if (g->table[0] < 0)
        for (; l.count < 16; l.count++) l.table[l.count] = g->table[l.count];
    else
        for (int i = -7; i <= 7; i++) l.table[l.count++] = i < 0 ? g->table[8 - i] : g->table[i];
    return l;
}

void nibl_round_levels(const nibl_levels *g, const float *x, uint32_t n, float inverse, float m,
                       float *levels) {
    if (g->count == 0) {
        for (uint32_t i = 0; i < n; i++) {
            float y = (x[i] - m) * inverse;
            y = y < g->low ? g->low : y;
            y = y > g->high ? g->high : y;
            levels[i] = (y + NIBL_ROUNDER) - NIBL_ROUNDER;
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) levels[i] = g->table[0];
    for (uint32_t j = 1; j < g->count; j++) {
        const float threshold = (g->table[j - 1] + g->table[j]) / 2, level = g->table[j];
        for (uint32_t i = 0; i < n; i++) levels[i] = (x[i] - m) * inverse > threshold ? level : levels[i];
    }
}

void nibl_level_codes(const nibl_grid *g, const float *levels, uint32_t n, uint8_t *codes) {
    if (!g->table) {
        for (uint32_t i = 0; i < n; i++) codes[i] = (uint8_t)((int)levels[i] + g->zero);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        codes[i] = 0;
        while (codes[i] < 15 && g->table[codes[i]] != (int)levels[i]) codes[i]++;
    }
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

/* A scale as stored, which values are rounded by. */
static nibl_try as_stored(float d, float m) {
    const float inverse = d < 0 || d > 0 ? 1.0f / d : 0;
    return (nibl_try){isfinite(inverse) ? inverse : 0, m, d, m};
}

/* ---- The scale of a group ---- */

/* What is searched for. */
typedef struct search {
    const nibl_kernels *kernels;
    const nibl_grid *grid;
    nibl_levels levels;
} search;

typedef struct fit {
    float d, m;
    double error;
} fit;

/* Weighted least squares of x = d level (+ m): from sums over a group, of w, w x, (w x) x, and w level, w level^2,
 * w level x. Returns the error, less w x^2, which is the same for all. */
static double solve(const nibl_grid *g, const float *values, const float *sums, nibl_try *t) {
    const double q = (double)sums[0], qq = (double)sums[1], xq = (double)sums[2], sw = (double)values[0],
                 sx = (double)values[1];
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
    t->d = (float)d;
    t->e = (float)m;
    return d * (d * qq - 2 * xq) + m * (m * sw - 2 * sx + 2 * d * q);
}

/* Levels by each of the scales that are tried; the scale that fits these best; the best pair. */
static void improve(const search *s, const float *x, const float *w, nibl_try *tries, uint32_t count,
                    fit *best) {
    float sums[3 + 3 * MOST_TRIES], error;
    double least = HUGE_VAL;
    uint32_t chosen = 0;
    s->kernels->fit_sums(sums, x, w, s->grid->group, &s->levels, tries, count);
    for (uint32_t i = 0; i < count; i++) {
        const double e = solve(s->grid, sums, sums + 3 + 3 * i, &tries[i]);
        if (!(e < least)) continue;
        least = e;
        chosen = i;
    }
    s->kernels->fit_errors(&error, x, w, s->grid->group, &s->levels, &tries[chosen], 1);
    if ((double)error < best->error) *best = (fit){tries[chosen].d, tries[chosen].e, (double)error};
}

/* The ends of a group; those of integers with a minimum include zero. */
static void find_ends(const nibl_grid *g, const float *x, float *low, float *high) {
    float least[LANES], most[LANES]; /* for the compiler to vectorize */
    for (int j = 0; j < LANES; j++) least[j] = most[j] = x[j];
    for (uint32_t i = LANES; i < g->group; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) {
            least[j] = x[i + j] < least[j] ? x[i + j] : least[j];
            most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
        }
    for (int j = 1; j < LANES; j++) {
        least[0] = least[j] < least[0] ? least[j] : least[0];
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    *low = g->min && g->storage == NIBL_STORE_INTEGER && least[0] > 0 ? 0 : least[0];
    *high = most[0];
}

/* The scale that just holds the ends. */
static fit plain_group(const nibl_grid *g, const float *x) {
    float low, high;
    find_ends(g, x, &low, &high);
    if (g->min) return (fit){(high - low) / g->high, low, 0};
    const float peak = -low > high ? low : high;
    return (fit){g->scale_low < 0 ? peak / g->low : fabsf(peak) / g->high, 0, 0};
}

static void add_try(nibl_try *tries, uint32_t *count, float inverse, float m) {
    if (isfinite(inverse)) tries[(*count)++] = (nibl_try){inverse, m, 0, 0};
}

static fit search_group(const search *s, const float *x, const float *w) {
    const nibl_grid *g = s->grid;
    float low, high;
    find_ends(g, x, &low, &high);
    const float peak = -low > high ? low : high;
    fit best = {0, g->min ? low : 0, HUGE_VAL};
    if (g->min ? !(high > low) : !(peak < 0 || peak > 0)) {
        best.error = 0;
        return best;
    }
    const bool signed_scale = g->storage == NIBL_STORE_F16 || g->scale_low < 0;
    /* few levels: the best scale clips more; scales that are stored as they are find the rest by themselves */
    const float step = g->high - g->low < 8 ? 0.1f : 0.04f;
    const int stride = g->storage == NIBL_STORE_F16 && !g->min && !g->table ? 2 : 1;
    nibl_try tries[MOST_TRIES];
    uint32_t count = 0;
    for (int i = 0; i < REACHES; i += stride) {
        const float reach = 0.88f + step * (float)i;
        if (g->min) {
            add_try(tries, &count, g->high * reach / (high - low), low);
            continue;
        }
        /* the peak on the lowest level or on the highest */
        if (signed_scale || peak < 0) add_try(tries, &count, g->low * reach / peak, 0);
        if (signed_scale || peak > 0) add_try(tries, &count, g->high * reach / peak, 0);
    }
    tries[count++] = (nibl_try){0}; /* all zero */
    improve(s, x, w, tries, count, &best);
    for (int i = 0; i < REFINEMENTS && (best.d < 0 || best.d > 0) && isfinite(1.0f / best.d); i++) {
        const double before = best.error;
        const float inverse = 1.0f / best.d, nudge = inverse * step / (float)(1 << i);
        tries[0] = (nibl_try){inverse, best.m, 0, 0};
        tries[1] = (nibl_try){inverse + nudge, best.m, 0, 0};
        tries[2] = (nibl_try){inverse - nudge, best.m, 0, 0};
        improve(s, x, w, tries, 3, &best);
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
static void settle_group(const search *se, const float *x, const float *w, uint32_t group, const fit *wanted,
                         candidate *c) {
    const nibl_grid *g = se->grid;
    const uint32_t n = g->group;
    nibl_try tries[8];
    float errors[8];
    int scales[8], mins[8], low, high;
    uint32_t count = 0, best = 0;
    scale_limits(g, &low, &high);
    const int scale = scale_code(g, c->d, wanted->d), min = c->m > 0 ? (int)floorf(-wanted->m / c->m) : 0;
    for (int i = -1; i <= 2; i++)
        for (int j = 0; j < (g->min ? 2 : 1); j++, count++) {
            scales[count] = clamp(scale + i, low, high);
            mins[count] = clamp(min + j, 0, high);
            tries[count] =
                as_stored(stored_scale(g, c->d, scales[count]), g->min ? -(c->m * (float)mins[count]) : 0);
        }
    se->kernels->fit_errors(errors, x, w, n, &se->levels, tries, count);
    for (uint32_t i = 1; i < count; i++)
        if (errors[i] < errors[best]) best = i;
    c->scales[group] = scales[best];
    c->mins[group] = mins[best];
    nibl_round_levels(&se->levels, x, n, tries[best].inverse, tries[best].m, c->levels + group * n);
    c->error += (double)errors[best];
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

static bool search_stored(const search *s, const float *x, const float *w, uint32_t groups, const fit *fits,
                          candidate *best) {
    const nibl_grid *g = s->grid;
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
            settle_group(s, x + i * g->group, w + i * g->group, i, &fits[i], &c);
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
static bool search_groups(const search *s, const float *x, const float *w, uint32_t groups, candidate *best) {
    const nibl_grid *g = s->grid;
    fit searched[GROUPS], plain[GROUPS];
    candidate other = {0};
    for (uint32_t i = 0; i < groups; i++) {
        searched[i] = search_group(s, x + i * g->group, w + i * g->group);
        plain[i] = plain_group(g, x + i * g->group);
    }
    if (!search_stored(s, x, w, groups, searched, best) || !search_stored(s, x, w, groups, plain, &other))
        return false;
    if (other.error < best->error) *best = other;
    return true;
}

bool nibl_search_block(const nibl_kernels *kernels, const nibl_grid *g, const float *x, const float *weights,
                       uint32_t count, nibl_block *out) {
    const search s = {kernels, g, nibl_levels_of(g)};
    const float most = g->storage == NIBL_STORE_UE4M3 ? ue4m3(0x7E) * g->high : LARGEST;
    for (uint32_t i = 0; i < count; i++)
        if (fabsf(x[i]) > most) return false;
    const uint32_t groups = count / g->group;
    candidate c = {0};
    if (g->storage == NIBL_STORE_F16) {
        const fit f = search_group(&s, x, weights);
        if (fabsf(f.d) > 65504.0f || fabsf(f.m) > 65504.0f) return false;
        out->d = nibl_f32_to_f16(f.d);
        out->m = nibl_f32_to_f16(f.m);
        const nibl_try t = as_stored(nibl_f16_to_f32(out->d), nibl_f16_to_f32(out->m));
        nibl_round_levels(&s.levels, x, count, t.inverse, t.m, c.levels);
    } else {
        if (!search_groups(&s, x, weights, groups, &c)) return false;
        out->d = nibl_f32_to_f16(c.d);
        out->m = nibl_f32_to_f16(c.m);
        for (uint32_t i = 0; i < groups; i++) {
            out->scales[i] = (uint8_t)c.scales[i];
            out->mins[i] = (uint8_t)c.mins[i];
        }
    }
    nibl_level_codes(g, c.levels, count, out->codes);
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

/* Levels of n codes. */
static void levels_of_codes(const nibl_grid *g, const uint8_t *codes, uint32_t n, float *levels) {
    if (g->zero && !g->table)
        for (uint32_t i = 0; i < n; i++) levels[i] = (float)(codes[i] - g->zero);
    else
        for (uint32_t i = 0; i < n; i++) levels[i] = nibl_code_level(g, codes[i]);
}

double nibl_block_error(const nibl_grid *g, const float *x, const float *weights, uint32_t count,
                        const nibl_block *b) {
    double error = 0;
    for (uint32_t i = 0; i < count; i += g->group) {
        float d, m, levels[NIBL_SUPER];
        nibl_group_scale(g, b, i / g->group, &d, &m);
        levels_of_codes(g, b->codes + i, g->group, levels);
        error += error_of(x + i, weights + i, g->group, d, m, levels);
    }
    return error;
}
