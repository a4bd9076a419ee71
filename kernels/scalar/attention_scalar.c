/* The reference of attention with int8. Codes beyond the n-th position hold anything. */
#include "kernels/maths.h"
#include "kernels/variants.h"

#include <math.h>

enum { LANES = 16 };

static float score(const nibl_act *q, const nibl_attn_i8 *kv, uint32_t j, uint32_t width) {
    float dot = 0.0f, q_sum = 0.0f;
    for (uint32_t b = 0; b * NIBL_BLOCK < width; b++) {
        int32_t isum = 0;
        for (uint32_t i = 0; i < NIBL_BLOCK && b * NIBL_BLOCK + i < width; i++) {
            const uint32_t d = b * NIBL_BLOCK + i;
            isum += q[b].q[i] * kv->codes[nibl_attn_i8_key(width, j, d)];
        }
        dot += (float)isum * q[b].s;
        q_sum += q[b].s_sum;
    }
    return dot * kv->d[j] + kv->m[j] * q_sum;
}

static void attend(float *o, float *ml, const nibl_act *q, const nibl_attn_i8 *kv, const nibl_view *view,
                   uint32_t width) {
    const uint32_t first = view->first, n = view->n;
    float p[NIBL_ATTN_BLOCK], lane[LANES] = {0}, m = -INFINITY, most = 0.0f;
    for (uint32_t j = first; j < n; j++) {
        p[j] = score(q, kv, j, width) * view->scale;
        if (view->cap > 0.0f) p[j] = nibl_soft_cap(p[j], view->cap);
        if (p[j] > m) m = p[j];
    }
    m += 0.0f; /* of two zeros the positive one, in whatever order they were compared */
    for (uint32_t j = first; j < n; j++) {
        p[j] = nibl_expf(p[j] - m);
        lane[j % LANES] += p[j];
        p[j] *= kv->dv[j];
        if (p[j] > most) most = p[j];
    }
    float r = most / 127.0f;
    if (r < FLT_MIN) r = 0.0f;
    const float inverse = r > 0.0f ? 1.0f / r : 0.0f;
    int32_t u[NIBL_ATTN_BLOCK];
    for (uint32_t j = first; j < n; j++)
        u[j] =
            p[j] > 0.0f ? (int32_t)(nibl_float_bits(p[j] * inverse + NIBL_ROUNDER) - NIBL_ROUNDER_BITS) : 0;
    for (uint32_t d = 0; d < width; d++) {
        int32_t isum = 0;
        for (uint32_t j = first; j < n; j++) isum += u[j] * kv->codes[nibl_attn_i8_value(width, j, d)];
        o[d] = (float)isum * r;
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    ml[0] = m;
    ml[1] = lane[0];
}

void nibl_attn_block_i8_scalar(float *o, float *ml, size_t stride, const nibl_act *q, const nibl_attn_i8 *kv,
                               const nibl_attn_i8 *next, const nibl_view *view, uint32_t width,
                               uint32_t heads) {
    (void)next;
    const size_t blocks = (width + NIBL_BLOCK - 1) / NIBL_BLOCK;
    for (uint32_t h = 0; h < heads; h++)
        attend(o + h * stride, ml + h * stride, q + h * blocks, kv, view, width);
}
