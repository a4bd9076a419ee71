#include "core/quant/recover.h"

#include "kernels/maths.h"

#include <math.h>

enum { NEAR = 8 /* numbers that can be stored, on each side of the middle of an interval */ };

typedef struct interval {
    double low, high;
} interval;

typedef struct group {
    const nibl_grid *grid;
    nibl_levels levels;
    const float *x;
    uint32_t count;
    double relative, absolute; /* by which a value may be off */
    float low, high, peak; /* the ends, and the value of the largest magnitude */
} group;

bool nibl_recover_knows(const nibl_dtype *type) {
    const nibl_grid *g = nibl_grid_of(type);
    return g && g->storage != NIBL_STORE_INTEGER && g->storage != NIBL_STORE_UE4M3;
}

static group group_of(const nibl_grid *g, const nibl_dtype *from, const float *x, uint32_t count) {
    group s = {.grid = g, .levels = nibl_levels_of(g), .x = x, .count = count, .low = x[0], .high = x[0]};
    for (uint32_t i = 0; i < count; i++) {
        s.low = x[i] < s.low ? x[i] : s.low;
        s.high = x[i] > s.high ? x[i] : s.high;
    }
    s.peak = -s.low > s.high ? s.low : s.high;
    /* half of the last bit, and what a product and a sum in F32 are off */
    s.relative = from->kind == NIBL_KIND_F16 ? 0x1.01p-11 : from->kind == NIBL_KIND_BF16 ? 0x1.01p-8 : 0;
    s.absolute = fabs((double)s.peak) * 0x1p-22 + (from->kind == NIBL_KIND_F16 ? 0x1.01p-25 : 0);
    return s;
}

static double slack(const group *s, float x) { return fabs((double)x) * s->relative + s->absolute; }

/* Ties to even, without a call. */
static double nearest(double y) { return (y + 0x1.8p52) - 0x1.8p52; }

static double level_near(const group *s, double y) {
    if (s->levels.count == 0) return nearest(y);
    double best = (double)s->levels.table[0];
    for (uint32_t i = 1; i < s->levels.count; i++)
        if (fabs((double)s->levels.table[i] - y) < fabs(best - y)) best = (double)s->levels.table[i];
    return best;
}

/* Narrows it to what (y +- room) / level allows. */
static bool meet(interval *a, double y, double room, double level) {
    const double one = (y - room) / level, other = (y + room) / level;
    const double low = one < other ? one : other, high = one < other ? other : one;
    a->low = low > a->low ? low : a->low;
    a->high = high < a->high ? high : a->high;
    return a->low <= a->high;
}

/* Scales with which every x - origin is a level, if top - origin is level `at`; the ends of the levels go to `ends`. False
 * where there is none. Small values first: their levels are the sure ones. */
static bool scales_of(const group *s, float origin, float top, double at, interval *out, interval *ends) {
    const double span = (double)top - (double)origin, spare = origin < 0 || origin > 0 ? slack(s, origin) : 0;
    *out = (interval){-HUGE_VAL, HUGE_VAL};
    *ends = (interval){0, 0};
    meet(out, span, slack(s, top) + spare, at);
    for (int large = 0; large < 2; large++) {
        for (uint32_t i = 0; i < s->count; i++) {
            const double y = (double)s->x[i] - (double)origin, room = slack(s, s->x[i]) + spare;
            if ((fabs(y) > fabs(span) / 2) != (large == 1)) continue;
            const double level = level_near(s, y / ((out->low + out->high) / 2));
            if (fabs(level) < 0.5 ? fabs(y) > room : !meet(out, y, room, level)) return false;
            ends->low = level < ends->low ? level : ends->low;
            ends->high = level > ends->high ? level : ends->high;
        }
    }
    return true;
}

/* ---- Numbers as they are stored ---- */

/* The number that is `steps` beside the nearest to x; infinite where there is none. */
static float stored(nibl_storage storage, float x, int steps) {
    const uint32_t bits = nibl_float_bits(x);
    const uint16_t half = nibl_f32_to_f16(x);
    const int magnitude = (half & 0x7FFF) + steps;
    switch (storage) {
    case NIBL_STORE_F16:
        if (magnitude < 0 || magnitude >= 0x7C00) return INFINITY;
        return nibl_f16_to_f32((uint16_t)((half & 0x8000) | magnitude));
    case NIBL_STORE_BF16:
        return nibl_bits_float(((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000) + ((uint32_t)steps << 16));
    case NIBL_STORE_E8M0: /* of normal numbers */
        return steps == 0 && bits >> 23 ? nibl_bits_float((bits + 0x400000) & 0x7F800000) : INFINITY;
    default: return steps == 0 ? x : INFINITY;
    }
}

typedef enum precision { NONE, ROUNDED, EXACT } precision;

/* The `tries`th number about the middle; EXACT: it is in the interval, ROUNDED: it is the nearest, and no more than `off` away. */
static precision pick(nibl_storage storage, const interval *range, int tries, double off, float *out) {
    const double middle = (range->low + range->high) / 2;
    *out = stored(storage, (float)middle, tries % 2 ? -(tries + 1) / 2 : tries / 2);
    if (!isfinite(*out)) return NONE;
    if ((double)*out >= range->low && (double)*out <= range->high) return EXACT;
    return tries == 0 && fabs((double)*out - middle) <= off ? ROUNDED : NONE;
}

static void keep(const group *s, float d, float m, nibl_block *out) {
    out->scale = d;
    out->d = nibl_f32_to_f16(d);
    out->m = nibl_f32_to_f16(m);
    if (s->grid->storage == NIBL_STORE_E8M0) out->scales[0] = (uint8_t)((nibl_float_bits(d) >> 23) + 1);
}

/* ---- Grids through zero: the peak may be any level ---- */

/* Tries one, and keeps what is more precise than what there was. */
static precision try_peak(const group *s, double at, precision before, nibl_block *out) {
    const nibl_grid *g = s->grid;
    const bool zero_point = g->choose && g->min;
    interval range, ends;
    if (fabs(level_near(s, at) - at) > 0.1) return before; /* the table has no such level */
    if (!scales_of(s, 0, s->peak, at, &range, &ends)) return before;
    if (zero_point ? ends.high - ends.low > (double)g->high
                   : ends.low < (double)g->low || ends.high > (double)g->high)
        return before;
    for (int i = 0; i <= 2 * NEAR; i++) {
        float d;
        const precision now = pick(g->storage, &range, i, fabs(range.high) * 0x1.1p-8, &d);
        if (now <= before) continue;
        keep(s, d, 0, out);
        out->zero_point = (uint8_t)(zero_point ? -ends.low : 0);
        before = now;
    }
    return before;
}

static precision recover_scale(const group *s, nibl_block *out) {
    const nibl_grid *g = s->grid;
    const bool positive = (g->choose && g->min) || g->storage == NIBL_STORE_E8M0;
    precision found = NONE;
    for (int level = (int)fmaxf(-g->low, g->high); level > 0 && found != EXACT; level--) {
        const double same = s->peak < 0 ? -level : level; /* sign: scales are positive where they can be */
        found = try_peak(s, same, found, out);
        if (found != EXACT && !positive) found = try_peak(s, -same, found, out);
    }
    return found;
}

/* ---- Grids with a minimum: from the smallest value to the largest are any number of levels ---- */

/* Minima with which all values come out, if the smallest is level `first`. */
static interval minima_of(const group *s, double d, int first) {
    interval range = {-HUGE_VAL, HUGE_VAL};
    for (uint32_t i = 0; i < s->count; i++) {
        const double level = nearest(((double)s->x[i] - (double)s->low) / d);
        if (!meet(&range, (double)s->x[i] - d * (level + first), slack(s, s->x[i]), 1)) break;
    }
    return range;
}

/* All values alike: the rest of what a minimum cannot hold is level 1. */
static precision recover_constant(const group *s, nibl_block *out) {
    for (int i = 0; i <= 2 * NEAR; i++) {
        const float m = stored(s->grid->storage, s->low, i % 2 ? -(i + 1) / 2 : i / 2),
                    d = stored(s->grid->storage, s->low - m, 0);
        if (!isfinite(m) || d < 0 || d + m < s->low || d + m > s->low) continue;
        keep(s, d, m, out);
        return EXACT;
    }
    return NONE;
}

static precision recover_minimum(const group *s, nibl_block *out) {
    const int most = (int)s->grid->high;
    precision found = NONE;
    if (!(s->high > s->low)) return recover_constant(s, out);
    for (int steps = most; steps > 0; steps--) {
        interval scales, ends;
        if (!scales_of(s, s->low, s->high, steps, &scales, &ends)) continue;
        for (int i = 0; i <= 2 * NEAR && found != EXACT; i++) {
            float d, m;
            const precision scale = pick(s->grid->storage, &scales, i, scales.high * 0x1.1p-8, &d);
            if (scale == NONE || !(d > 0)) continue;
            for (int first = 0; first <= most - steps && found != EXACT; first++) {
                const interval minima = minima_of(s, (double)d, first);
                precision now = pick(s->grid->storage, &minima, 0, (double)d / 16, &m);
                if (now > scale) now = scale;
                if (now <= found) continue;
                keep(s, d, m, out);
                found = now;
            }
        }
    }
    return found;
}

/* ---- Groups ---- */

bool nibl_recover_group(const nibl_grid *grid, const nibl_dtype *from, const float *x, uint32_t count,
                        nibl_block *out, nibl_recovery *counts) {
    const group s = group_of(grid, from, x, count);
    nibl_block block = {0};
    precision found = EXACT; /* nothing but zeros */
    if (s.peak < 0 || s.peak > 0)
        found = grid->min && !grid->choose ? recover_minimum(&s, &block) : recover_scale(&s, &block);
    counts->groups++;
    counts->found += found != NONE;
    counts->rounded += found == ROUNDED;
    if (found != NONE) *out = block;
    return found != NONE;
}

void nibl_recover_row(const nibl_dtype *to, const nibl_dtype *from, const float *x, uint32_t count,
                      nibl_block *blocks, nibl_recovery *counts) {
    const nibl_grid *g = nibl_grid_of(to);
    const uint32_t size = to->block, span = g->group < size ? size : g->group < count ? g->group : count;
    const nibl_levels levels = nibl_levels_of(g);
    for (uint32_t at = 0; at < count; at += span) {
        nibl_block head;
        if (!nibl_recover_group(g, from, x + at, span, &head, counts)) continue;
        for (uint32_t i = at; i < at + span; i += size) {
            nibl_block *block = &blocks[i / size];
            *block = head;
            if (g->choose) {
                nibl_round_block(g, x + i, size, block);
                continue;
            }
            float d, m, rounded[NIBL_SUPER];
            nibl_group_scale(g, block, 0, &d, &m);
            nibl_round_levels(&levels, x + i, size, isfinite(1 / d) ? 1 / d : 0, m, rounded);
            nibl_level_codes(g, rounded, size, block->codes);
        }
    }
}

const char *nibl_recover_type(const nibl_dtype *from, const float *x, uint32_t count) {
    for (size_t i = 0; i < nibl_dtype_count(); i++) {
        const nibl_dtype *type = nibl_dtype_at(i);
        nibl_recovery counts = {0};
        if (!nibl_recover_knows(type) || count % type->block != 0) continue;
        for (uint32_t at = 0; at < count && counts.found == counts.groups; at += type->block) {
            nibl_block block;
            nibl_recover_group(nibl_grid_of(type), from, x + at, type->block, &block, &counts);
        }
        if (counts.found == counts.groups) return type->name;
    }
    return NULL;
}
