/* The reference of norms, rope, activation functions and attention. */
#include "kernels/maths.h"
#include "kernels/variants.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

static float fold(float *lane) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

void nibl_rmsnorm_scalar(float *y, const float *x, const float *weight, uint32_t n, float eps) {
    float lane[LANES] = {0};
    for (uint32_t i = 0; i < n; i++) lane[i % LANES] += x[i] * x[i];
    float r = 1.0f / sqrtf(fold(lane) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

void nibl_rope_scalar(float *x, const float *cos_sin, uint32_t pairs, bool neox) {
    const uint32_t step = neox ? 1 : 2, apart = neox ? pairs : 1;
    for (uint32_t i = 0; i < pairs; i++) {
        float *a = x + (size_t)i * step, *b = a + apart;
        float c = cos_sin[i], s = cos_sin[pairs + i], p = *a, q = *b;
        *a = p * c - q * s;
        *b = p * s + q * c;
    }
}

void nibl_layernorm_scalar(float *y, const float *x, const float *weight, const float *bias, uint32_t n,
                           float eps) {
    float lane[LANES] = {0};
    for (uint32_t i = 0; i < n; i++) lane[i % LANES] += x[i];
    const float mean = fold(lane) / (float)n;
    memset(lane, 0, sizeof lane);
    for (uint32_t i = 0; i < n; i++) lane[i % LANES] += (x[i] - mean) * (x[i] - mean);
    const float r = 1.0f / sqrtf(fold(lane) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = (x[i] - mean) * r * weight[i] + bias[i];
}

static float activated(float g, float up, nibl_activation function) {
    switch (function) {
    case NIBL_ACTIVATE_GELU:
        return g / (1.0f + nibl_expf(-(g * (NIBL_GELU_LINEAR + NIBL_GELU_CUBIC * (g * g))))) * up;
    case NIBL_ACTIVATE_RELU2: g = g > 0.0f ? g : 0.0f; return g * g * up;
    case NIBL_ACTIVATE_CLAMPED:
        g = g > NIBL_CLAMP ? NIBL_CLAMP : g;
        up = up > NIBL_CLAMP ? NIBL_CLAMP : up < -NIBL_CLAMP ? -NIBL_CLAMP : up;
        return g / (1.0f + nibl_expf(-(g * NIBL_CLAMPED_SLOPE))) * (up + 1.0f);
    default: return g / (1.0f + nibl_expf(-g)) * up;
    }
}

void nibl_activate_scalar(float *y, const float *gate, const float *up, uint32_t n,
                          nibl_activation function) {
    for (uint32_t i = 0; i < n; i++) y[i] = activated(gate[i], up ? up[i] : 1.0f, function);
}

void nibl_soft_cap_scalar(float *x, uint32_t n, float cap) {
    for (uint32_t i = 0; i < n; i++) x[i] = nibl_soft_cap(x[i], cap);
}

void nibl_softmax_scalar(float *ml, const float *x, uint32_t n) {
    float lane[LANES] = {0}, m = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    for (uint32_t i = 0; i < n; i++) lane[i % LANES] += x[i] > -INFINITY ? nibl_expf(x[i] - m) : 0.0f;
    ml[0] = m + 0.0f;
    ml[1] = fold(lane);
}

void nibl_widen_f16_scalar(float *y, const uint16_t *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) y[i] = nibl_f16_to_f32(x[i]);
}

void nibl_attn_block_scalar(float *o, float *ml, const float *q, const float *k, const float *v,
                            const nibl_view *view, uint32_t width) {
    const uint32_t first = view->first, n = view->n;
    float p[NIBL_ATTN_BLOCK] = {0}, lane[LANES] = {0}, m = -INFINITY;
    for (uint32_t d = 0; d < width; d++)
        for (uint32_t j = first; j < n; j++) p[j] += q[d] * k[(size_t)d * NIBL_ATTN_BLOCK + j];
    for (uint32_t j = first; j < n; j++) {
        p[j] *= view->scale;
        if (view->cap > 0.0f) p[j] = nibl_soft_cap(p[j], view->cap);
        if (p[j] > m) m = p[j];
    }
    m += 0.0f; /* of two zeros the positive one, in whatever order they were compared */
    for (uint32_t j = first; j < n; j++) {
        p[j] = nibl_expf(p[j] - m);
        lane[j % LANES] += p[j];
    }
    for (uint32_t d = 0; d < width; d++) o[d] = 0.0f;
    for (uint32_t j = first; j < n; j++)
        for (uint32_t d = 0; d < width; d++) o[d] += p[j] * v[(size_t)j * width + d];
    ml[0] = m;
    ml[1] = fold(lane);
}

void nibl_attn_merge_scalar(float *o, float *ml, const float *o2, const float *ml2, uint32_t width) {
    float m = ml2[0] > ml[0] ? ml2[0] : ml[0];
    /* exp(0) is exactly 1 */
    const float a = ml[0] == m ? 1.0f : nibl_expf(ml[0] - m), b = ml2[0] == m ? 1.0f : nibl_expf(ml2[0] - m);
    ml[1] = ml[1] * a + ml2[1] * b;
    for (uint32_t d = 0; d < width; d++) o[d] = o[d] * a + o2[d] * b;
    ml[0] = m;
}
