/*
 * Grids of integers: value = (code - zero) * scale, with one scale (and zero point) for a group of columns, a row or a
 * matrix. A scale is rounded to how it is stored before codes are chosen by it. Names: "w4g64asym", "w3row", "w8tensor",
 * "w4g128sym-range-bf16".
 */
#include "core/encode_grid.h"

#include "kernels/maths.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LANES = 8, STEPS = 24, REFINEMENTS = 4 };

/* ---- Names ---- */

static const char *const conventions[] = {"extreme", "range", "absmax"};
static const char *const storages[] = {"f16", "bf16", "f32"};
static const nibl_storage storage_kinds[] = {NIBL_STORE_F16, NIBL_STORE_BF16, NIBL_STORE_F32};

/* Takes `word` from the beginning of *at, in any case. */
static bool take(const char **at, const char *word) {
    const char *s = *at;
    for (; *word; s++, word++)
        if ((*s >= 'A' && *s <= 'Z' ? *s + 32 : *s) != *word) return false;
    *at = s;
    return true;
}

static bool take_number(const char **at, uint32_t *out) {
    uint32_t number = 0, digits = 0;
    for (; **at >= '0' && **at <= '9' && digits < 7; (*at)++, digits++)
        number = number * 10 + (uint32_t)(**at - '0');
    *out = number;
    return digits > 0 && !(**at >= '0' && **at <= '9');
}

static void take_tails(const char **at, nibl_integers *out) {
    for (bool more = true; more;) {
        const char *s = *at;
        more = false;
        while (*s == '-' || *s == '_') s++;
        if (take(&s, "asym")) out->zero_point = more = true;
        if (!more && take(&s, "sym")) more = true;
        for (int i = 0; i < 3 && !more; i++) {
            if (take(&s, conventions[i]))
                out->convention = (uint8_t)i, more = true;
            else if (take(&s, storages[i]))
                out->storage = (uint8_t)storage_kinds[i], more = true;
        }
        if (more) *at = s;
    }
}

bool nibl_integers_read(const char *name, nibl_integers *out) {
    nibl_integers n = {.group = 128, .storage = NIBL_STORE_F16};
    uint32_t bits;
    if (!take(&name, "w") || !take_number(&name, &bits) || bits < 2 || bits > 8) return false;
    n.bits = (uint8_t)bits;
    if (take(&name, "a16")) /* as llm-compressor names them: int4 in groups of 128, int8 by row */
        n.granularity = bits == 8 ? NIBL_PER_ROW : NIBL_PER_GROUP;
    else if (take(&name, "row") || take(&name, "channel"))
        n.granularity = NIBL_PER_ROW;
    else if (take(&name, "tensor"))
        n.granularity = NIBL_PER_TENSOR;
    else if (take(&name, "g") && (!take_number(&name, &n.group) || n.group == 0))
        return false;
    take_tails(&name, &n);
    *out = n;
    return *name == 0;
}

static void write_name(const nibl_integers *n, char name[NIBL_INTEGERS_NAME]) {
    char span[16] = "row";
    if (n->granularity == NIBL_PER_TENSOR) snprintf(span, sizeof span, "tensor");
    if (n->granularity == NIBL_PER_GROUP) snprintf(span, sizeof span, "g%u", (unsigned)n->group);
    int storage = 0;
    while (storage_kinds[storage] != (nibl_storage)n->storage) storage++;
    snprintf(name, NIBL_INTEGERS_NAME, "w%u%s%s%s%s%s%s", n->bits, span, n->zero_point ? "asym" : "sym",
             n->convention ? "-" : "", n->convention ? conventions[n->convention] : "", storage ? "-" : "",
             storage ? storages[storage] : "");
}

/* ---- Scales ---- */

static float as_stored(nibl_storage storage, float x) {
    const uint32_t bits = nibl_float_bits(x);
    if (storage == NIBL_STORE_F32) return x;
    if (storage == NIBL_STORE_F16) return nibl_f16_to_f32(nibl_f32_to_f16(x));
    return nibl_bits_float((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000);
}

static float zero_of(float low, float d, float most) {
    const float z = d > 0 ? rintf(-low / d) : 0;
    return z < 0 ? 0 : z > most ? most : z;
}

typedef struct ends {
    float low, high; /* zero between them */
    float peak; /* the first value of the largest magnitude */
} ends;

static ends find_ends(const float *x, uint32_t n) {
    ends e = {0, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        e.low = x[i] < e.low ? x[i] : e.low;
        e.high = x[i] > e.high ? x[i] : e.high;
        if (fabsf(x[i]) > fabsf(e.peak)) e.peak = x[i];
    }
    return e;
}

static float rule_scale(const nibl_grid *g, const ends *e) {
    if (g->min) return (e->high - e->low) / g->high;
    switch ((nibl_convention)g->convention) {
    case NIBL_SCALE_ABSMAX: return fabsf(e->peak) / g->high;
    case NIBL_SCALE_RANGE: return 2 * fabsf(e->peak) / (g->high - g->low);
    default: return e->peak / g->low;
    }
}

/* ---- Search: the squares that a scale leaves, and the scale that fits its levels best ---- */

typedef struct trial {
    float d, z;
    double error, lx, ll; /* sums of w e^2, w level x, w level^2 */
} trial;

static trial try_scale(const nibl_grid *g, const float *x, const float *w, uint32_t n, float d, float z) {
    trial t = {.d = as_stored(g->storage, d), .z = z};
    float error[LANES] = {0}, lx[LANES] = {0}, ll[LANES] = {0};
    const float inverse = t.d < 0 || t.d > 0 ? 1 / t.d : 0, low = g->low - z, high = g->high - z;
    if (!isfinite(inverse) || !isfinite(t.d)) return (trial){.error = HUGE_VAL};
    for (uint32_t at = 0; at < n; at += LANES) {
        const uint32_t lanes = n - at < LANES ? n - at : LANES;
        for (uint32_t j = 0; j < lanes; j++) {
            float level = x[at + j] * inverse;
            level = level < low ? low : level;
            level = level > high ? high : level;
            level = (level + NIBL_ROUNDER) - NIBL_ROUNDER;
            const float weight = w ? w[at + j] : 1, e = x[at + j] - level * t.d;
            error[j] += weight * (e * e);
            lx[j] += weight * level * x[at + j];
            ll[j] += weight * level * level;
        }
    }
    for (int j = 0; j < LANES; j++) {
        t.error += (double)error[j];
        t.lx += (double)lx[j];
        t.ll += (double)ll[j];
    }
    return t;
}

static void improve(const nibl_grid *g, const float *x, const float *w, uint32_t n, float d, float z,
                    trial *best) {
    const trial t = try_scale(g, x, w, n, d, z);
    if (t.error < best->error) *best = t;
}

static trial search(const nibl_grid *g, const float *x, const float *w, uint32_t n, const ends *e, float d,
                    float z) {
    const float levels = g->high - g->low, amax = fabsf(e->peak);
    const float reach = levels < 8 ? 0.8f : levels < 32 ? 0.5f : 0.1f; /* few levels: more is clipped */
    trial best = try_scale(g, x, w, n, d, z);
    for (int i = 0; i < STEPS; i++) {
        const float share = 1 + reach * (0.15f - (float)i / (float)STEPS);
        if (g->min) {
            const float scale = (e->high - e->low) * share / g->high;
            improve(g, x, w, n, scale, zero_of(e->low * share, scale, g->high), &best);
        } else {
            improve(g, x, w, n, amax * share / g->low, 0, &best);
            improve(g, x, w, n, -amax * share / g->low, 0, &best);
        }
    }
    for (int i = 0; i < REFINEMENTS && best.ll > 0; i++) {
        const trial before = best;
        for (int j = g->min ? -1 : 0; j <= (g->min ? 1 : 0); j++) {
            const float zero = before.z + (float)j;
            if (zero >= 0 && zero <= g->high)
                improve(g, x, w, n, (float)(before.lx / before.ll), zero, &best);
        }
        if (!(best.error < before.error)) break;
    }
    return best;
}

static bool choose(const nibl_grid *g, const float *x, const float *weights, uint32_t count, bool searches,
                   nibl_block *out) {
    const ends e = find_ends(x, count);
    float d = as_stored(g->storage, rule_scale(g, &e)), z = g->min ? zero_of(e.low, d, g->high) : 0;
    if (searches) {
        const trial best = search(g, x, weights, count, &e, d, z);
        if (isfinite(best.error)) d = best.d, z = best.z;
    }
    out->scale = d;
    out->zero_point = (uint8_t)z;
    out->d = nibl_f32_to_f16(d);
    return isfinite(d);
}

/* ---- Codes ---- */

void nibl_round_block(const nibl_grid *g, const float *x, uint32_t count, nibl_block *b) {
    const float z = b->zero_point;
    for (uint32_t i = 0; i < count; i++) {
        const float y = b->scale < 0 || b->scale > 0 ? x[i] / b->scale : 0, level = rintf(y) + z;
        const float kept = level < g->low ? g->low : level > g->high ? g->high : level;
        b->codes[i] = (uint8_t)((int)kept + g->zero);
    }
}

bool nibl_choose_row(const nibl_kernels *kernels, const nibl_dtype *type, const float *x,
                     const float *weights, uint32_t count, bool searches, const nibl_block *given,
                     nibl_block *blocks) {
    const nibl_grid *g = nibl_grid_of(type);
    const uint32_t size = type->block;
    const uint32_t span = g->group < size ? size : g->group < count ? g->group : count;
    float alike[NIBL_SUPER];
    for (int i = 0; i < NIBL_SUPER; i++) alike[i] = 1;
    for (uint32_t at = 0; at < count; at += span) {
        nibl_block *first = &blocks[at / size];
        if (!g->choose) {
            if (!nibl_choose_block(kernels, g, x + at, weights ? weights + at : alike, size, searches, first))
                return false;
            continue;
        }
        nibl_block head = {0};
        if (given)
            head = *given;
        else if (!g->choose(g, x + at, weights ? weights + at : NULL, span, searches, &head))
            return false;
        for (uint32_t i = 0; i < span; i += size) {
            first[i / size] = head;
            nibl_round_block(g, x + at + i, size, &first[i / size]);
        }
    }
    return true;
}

/* ---- Types ---- */

uint32_t nibl_integers_group(const nibl_integers *n, uint64_t rows, uint64_t cols) {
    const uint64_t whole = n->granularity == NIBL_PER_TENSOR ? rows * cols : cols;
    uint64_t group = n->granularity == NIBL_PER_GROUP && n->group < cols ? n->group : whole;
    if (n->granularity == NIBL_PER_GROUP)
        for (group -= group % NIBL_BLOCK; group > 0 && cols % group != 0;) group -= NIBL_BLOCK;
    return group <= UINT32_MAX ? (uint32_t)group : 0;
}

bool nibl_integers_fit_q4_0(const nibl_integers *n) {
    return n->bits == 4 && !n->zero_point && n->storage == NIBL_STORE_F16;
}

void nibl_integers_grid(const nibl_integers *n, uint32_t group, nibl_grid *out) {
    const int half = 1 << (n->bits - 1);
    *out = (nibl_grid){.group = group,
                       .low = n->zero_point ? 0 : (float)-half,
                       .high = (float)(n->zero_point ? 2 * half - 1 : half - 1),
                       .zero = !n->zero_point && n->bits <= 4 ? 8 : 0,
                       .min = n->zero_point,
                       .storage = (nibl_storage)n->storage,
                       .choose = choose,
                       .convention = n->convention};
}

bool nibl_integers_make(const nibl_integers *n, uint64_t rows, uint64_t cols, bool as_q4_0,
                        nibl_integer_type *out) {
    static const nibl_scale scales[][2] = {
        [NIBL_STORE_F16] = {NIBL_SCALE_F16, NIBL_SCALE_F16_ZERO},
        [NIBL_STORE_BF16] = {NIBL_SCALE_BF16, NIBL_SCALE_BF16_ZERO},
        [NIBL_STORE_F32] = {NIBL_SCALE_F32, NIBL_SCALE_F32},
    };
    const nibl_scale scale = scales[n->storage][n->zero_point];
    const nibl_scale_form form = nibl_scale_form_of(scale);
    const uint32_t group = nibl_integers_group(n, rows, cols);
    if (group == 0 || cols % NIBL_BLOCK != 0 || (n->zero_point && n->storage == NIBL_STORE_F32)) return false;
    *out = (nibl_integer_type){.form = *n};
    if (n->granularity == NIBL_PER_GROUP) out->form.group = group;
    nibl_integers_grid(n, group, &out->grid);
    write_name(&out->form, out->name);
    out->type = as_q4_0 ? *nibl_dtype_by_id(2)
                        : (nibl_dtype){.id = NIBL_INTEGERS_ID,
                                       .block = NIBL_BLOCK,
                                       .bytes = (uint32_t)NIBL_BLOCK + form.field[0] + form.field[1],
                                       .kind = n->bits <= 4 ? NIBL_KIND_NIBBLE : NIBL_KIND_INT8,
                                       .scale = scale,
                                       .layout = NIBL_LAYOUT_PLAIN};
    return true;
}

void nibl_write_integers(const nibl_dtype *type, const nibl_block *b, uint8_t *p) {
    const nibl_integer_type *t = (const nibl_integer_type *)(const void *)type;
    const nibl_scale_form form = nibl_scale_form_of(type->scale);
    const int middle = 1 << (t->form.bits - 1),
              less = type->kind == NIBL_KIND_INT8 && t->form.zero_point ? middle : 0;
    const uint32_t bits = nibl_float_bits(b->scale);
    if (form.field[0] == 4)
        memcpy(p, &bits, 4);
    else
        memcpy(p, t->form.storage == NIBL_STORE_F16 ? &b->d : &(uint16_t){(uint16_t)(bits >> 16)}, 2);
    p += form.field[0];
    if (form.zero) *p++ = (uint8_t)(b->zero_point - less);
    for (int i = 0; i < NIBL_BLOCK; i++) p[i] = (uint8_t)(b->codes[i] - less);
}
