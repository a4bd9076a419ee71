#include "core/encode.h"

#include "kernels/maths.h"

enum { BLOCK = 32 };

static float load(nibl_kind kind, const uint8_t *p) {
    return kind == NIBL_KIND_F32   ? nibl_bits_float(nibl_load_u32(p))
           : kind == NIBL_KIND_F16 ? nibl_f16_to_f32(nibl_load_u16(p))
                                   : nibl_bf16_to_f32(nibl_load_u16(p));
}

static bool is_finite(nibl_kind kind, const uint8_t *p) {
    const uint32_t bits = kind == NIBL_KIND_F32 ? nibl_load_u32(p) : nibl_load_u16(p);
    const uint32_t exponent = kind == NIBL_KIND_F32 ? 0x7F800000 : kind == NIBL_KIND_F16 ? 0x7C00 : 0x7F80;
    return (bits & exponent) != exponent;
}

/* The scale makes the value of largest magnitude -8; the first of several counts. The bits of gguf.quants, and of
 * llama.cpp's reference without fused multiply-add. */
static bool encode_q4_0(const float *x, uint8_t *out) {
    float peak = 0, magnitude = 0;
    for (int i = 0; i < BLOCK; i++) {
        const float a = x[i] < 0 ? -x[i] : x[i];
        if (a > magnitude) magnitude = a, peak = x[i];
    }
    const float d = peak / -8.0f, inverse = magnitude > 0 ? 1.0f / d : 0;
    if (magnitude > 8.0f * 65504.0f) return false;
    const uint16_t half = nibl_f32_to_f16(d);
    out[0] = (uint8_t)half;
    out[1] = (uint8_t)(half >> 8);
    uint8_t q[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        const float shifted = x[i] * inverse + 8.5f;
        q[i] = shifted < 15 ? (uint8_t)shifted : 15;
    }
    for (int i = 0; i < BLOCK / 2; i++) out[2 + i] = (uint8_t)(q[i] | q[i + BLOCK / 2] << 4);
    return true;
}

typedef struct encoder {
    const char *name;
    bool (*block)(const float *x, uint8_t *out);
} encoder;

static const encoder encoders[] = {{"Q4_0", encode_q4_0}};

static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        const int x = *a >= 'a' && *a <= 'z' ? *a - 32 : *a, y = *b >= 'a' && *b <= 'z' ? *b - 32 : *b;
        if (x != y) return false;
    }
    return *a == *b;
}

static const encoder *find(const char *name) {
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++)
        if (same_name(encoders[i].name, name)) return &encoders[i];
    return NULL;
}

const nibl_dtype *nibl_encode_type(const char *name) {
    const encoder *e = find(name);
    for (size_t i = 0; e && i < nibl_dtype_count(); i++)
        if (same_name(nibl_dtype_at(i)->name, e->name)) return nibl_dtype_at(i);
    return NULL;
}

bool nibl_encode_row(const nibl_dtype *to, const nibl_dtype *from, const uint8_t *row, uint32_t count,
                     uint8_t *out) {
    const encoder *e = find(to->name);
    bool finite = true;
    for (uint32_t b = 0; b < count / BLOCK; b++, out += to->bytes) {
        float x[BLOCK];
        for (uint32_t i = 0; i < BLOCK; i++, row += from->bytes) {
            finite = finite && is_finite(from->kind, row);
            x[i] = load(from->kind, row);
        }
        finite = finite && e->block(x, out);
    }
    return finite;
}
