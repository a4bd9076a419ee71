/* The compilers' generic vectors, for kernels that are written once and compiled per ISA. A file that includes this
 * defines ISA (the variant's name) and W (floats of a register: 4, 8 or 16) first. */
#ifndef NIBL_VECTORS_H
#define NIBL_VECTORS_H

#include "kernels/maths.h"
#include "kernels/variants.h"

#include <math.h>

#define PASTE3(a, b, c) a##b##c
#define NAME2(op, isa) PASTE3(nibl_, op##_, isa)
#define NAME(op) NAME2(op, ISA)

/* clang would unroll it, and order what is in there by results: one chain of operations after the other, whose latencies
 * nothing hides, and with more values alive than there are registers. */
#ifdef __clang__
#define KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define KEEP_LOOP _Pragma("GCC unroll 1")
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef float vf_unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));

enum { LANES = 16, PER_ROW = LANES / W };

static inline vf load(const float *p) { return *(const vf_unaligned *)p; }
static inline void store(float *p, vf x) { *(vf_unaligned *)p = x; }
static inline vf splat(float x) { return x - (vf){0}; }
static inline vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* Lane i becomes what lane i + n was; n is a constant. (Lanes one by one would cost an instruction each.) */
#if W == 4
#define ROTATED(x, n) __builtin_shufflevector(x, x, (n) % 4, (n + 1) % 4, (n + 2) % 4, (n + 3) % 4)
#elif W == 8
#define ROTATED(x, n)                                                                                        \
    __builtin_shufflevector(x, x, (n) % 8, (n + 1) % 8, (n + 2) % 8, (n + 3) % 8, (n + 4) % 8, (n + 5) % 8,  \
                            (n + 6) % 8, (n + 7) % 8)
#else
#define ROTATED(x, n)                                                                                        \
    __builtin_shufflevector(x, x, (n) % 16, (n + 1) % 16, (n + 2) % 16, (n + 3) % 16, (n + 4) % 16,          \
                            (n + 5) % 16, (n + 6) % 16, (n + 7) % 16, (n + 8) % 16, (n + 9) % 16,            \
                            (n + 10) % 16, (n + 11) % 16, (n + 12) % 16, (n + 13) % 16, (n + 14) % 16,       \
                            (n + 15) % 16)
#endif

/* Lane 0 of each of n vectors combined with its other lanes, halves first: 8, 4, 2, 1. */
#define FOLD_STEP(x, n, lanes, combine)                                                                      \
    for (uint32_t v = 0; v < (n); v++) (x)[v] = combine((x)[v], ROTATED((x)[v], lanes));
#define FOLD_LANES(x, n, combine)                                                                            \
    if (W > 8) FOLD_STEP(x, n, 8, combine)                                                                   \
    if (W > 4) FOLD_STEP(x, n, 4, combine)                                                                   \
    FOLD_STEP(x, n, 2, combine)                                                                              \
    FOLD_STEP(x, n, 1, combine)

static inline vf vadd(vf a, vf b) { return a + b; }
/* b > a ? b : a, so a where b is a NaN; a file may define it as the instruction that does just that. */
#ifndef VMAX
#define VMAX(a, b) choose(b > a, b, a)
#endif
static inline vf vmax(vf a, vf b) { return VMAX(a, b); }

static inline vf fold_rows(const vf *lane) /* of 16 lanes to W */
{
    vf x[PER_ROW];
    for (int i = 0; i < PER_ROW; i++) x[i] = lane[i];
    for (int half = PER_ROW / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

static inline float fold(const vf *lane) {
    vf x[1] = {fold_rows(lane)};
    FOLD_LANES(x, 1, vadd)
    return x[0][0];
}

static inline vf max_rows(const vf *lane) {
    vf x = lane[0];
    for (int i = 1; i < PER_ROW; i++) x = vmax(x, lane[i]);
    return x;
}

static inline float fold_max(const vf *lane) {
    vf x[1] = {max_rows(lane)};
    FOLD_LANES(x, 1, vmax)
    return x[0][0];
}

#if W == 4
#define SPLAT(x) {x, x, x, x}
#elif W == 8
#define SPLAT(x) {x, x, x, x, x, x, x, x}
#else
#define SPLAT(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#endif

/* V8 makes a constant anew at every use, in three instructions; one that comes from memory, which clang does not know,
 * costs one. */
#ifdef __wasm__
#define HIDE(p) __asm__("" : "+r"(p))
#else
#define HIDE(p) (void)(p)
#endif

typedef struct constant_vectors {
    vf low, log2e, rounder;
    vf rounders; /* as integers: the rounder's bits in every byte of a word, 2^24 + 2^16 + 2^8 + 1 times */
    vf ln2[2], c[6], one;
} constant_vectors;

static inline const constant_vectors *constant(void) {
    static const constant_vectors values = {SPLAT(NIBL_EXP_LOW),
                                            SPLAT(NIBL_LOG2E),
                                            SPLAT(NIBL_ROUNDER),
                                            SPLAT(-0x1.8p-105f),
                                            {SPLAT(NIBL_LN2_HIGH), SPLAT(NIBL_LN2_LOW)},
                                            NIBL_EXP_COEFFICIENTS(SPLAT),
                                            SPLAT(1.0f)};
    const constant_vectors *p = &values;
    HIDE(p);
    return p;
}

/* The exponentials of n vectors, at most 4, side by side: one alone would wait for its latencies. They are of at most
 * NIBL_EXP_HIGH. */
#define MANY for (uint32_t v = 0; v < n; v++)
static inline __attribute__((always_inline)) void vexps_of_small(vf *x, uint32_t n) {
    const constant_vectors *k = constant();
    vf shifted[4], r[4], p[4];
    MANY shifted[v] = x[v] * k->log2e + k->rounder;
    MANY p[v] = shifted[v] - k->rounder;
    MANY r[v] = x[v];
    KEEP_LOOP
    for (int i = 0; i < 2; i++) MANY r[v] = r[v] - p[v] * k->ln2[i];
    MANY p[v] = k->c[0];
    KEEP_LOOP
    for (int i = 1; i < 6; i++) MANY p[v] = p[v] * r[v] + k->c[i];
    MANY p[v] = p[v] * (r[v] * r[v]) + r[v];
    MANY p[v] = p[v] + k->one;
    MANY p[v] = p[v] * (vf)(((vu)shifted[v] << 23) + (vu)k->one);
    MANY x[v] = (vf)(~(x[v] < k->low) & (vi)p[v]);
}

static inline vf vexp_of_small(vf x) {
    vexps_of_small(&x, 1);
    return x;
}

static inline vf vexp(vf x) {
    return vexp_of_small(choose(x > splat(NIBL_EXP_HIGH), splat(NIBL_EXP_HIGH), x));
}

static inline vf vsoft_cap(vf x, float cap) { return cap - 2.0f * cap / (vexp(x * (2.0f / cap)) + 1.0f); }

#endif
