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

typedef float vf __attribute__((vector_size(4 * W)));
typedef float vf_unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));

enum { LANES = 16, PER_ROW = LANES / W };

static inline vf load(const float *p) { return *(const vf_unaligned *)p; }
static inline void store(float *p, vf x) { *(vf_unaligned *)p = x; }
static inline vf splat(float x) { return x - (vf){0}; }
static inline vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

static inline float fold(const vf *lane) /* of 16 lanes: 8, 4, 2, 1 */
{
    vf x[PER_ROW];
    for (int i = 0; i < PER_ROW; i++) x[i] = lane[i];
    for (int half = PER_ROW / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[0][i] += x[0][i + half];
    return x[0][0];
}

/* x is at most NIBL_EXP_HIGH. */
static inline vf vexp_of_small(vf x) {
    static const float c[6] = NIBL_EXP_COEFFICIENTS;
    const vi small = x < splat(NIBL_EXP_LOW);
    const vf shifted = x * NIBL_LOG2E + NIBL_ROUNDER, n = shifted - NIBL_ROUNDER;
    vf r = x - n * NIBL_LN2_HIGH;
    r = r - n * NIBL_LN2_LOW;
    vf p = splat(c[0]);
    for (int i = 1; i < 6; i++) p = p * r + c[i];
    p = p * (r * r) + r;
    p = p + 1.0f;
    p = p * (vf)(((vu)shifted - NIBL_ROUNDER_BITS + 127u) << 23);
    return choose(small, (vf){0}, p);
}

static inline vf vexp(vf x) {
    return vexp_of_small(choose(x > splat(NIBL_EXP_HIGH), splat(NIBL_EXP_HIGH), x));
}

#endif
