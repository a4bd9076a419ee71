/* The reference rules are those of the Python package `gguf` (gguf.quants), bit for bit. */
#include "core/encode_grid.h"

#include "kernels/maths.h"

#include <string.h>

enum { PIECE = 256 /* values that are decoded at a time: a multiple of every block */ };

/* ---- Rules ---- */

static uint32_t magnitude(float x) { return nibl_float_bits(x) & 0x7FFFFFFF; }

/* The first of the values with the largest magnitude. */
static float peak_of(const float *x, uint32_t count) {
    uint32_t most = 0, i = 0;
    for (uint32_t j = 0; j < count; j++) most = magnitude(x[j]) > most ? magnitude(x[j]) : most;
    while (magnitude(x[i]) != most) i++;
    return x[i];
}

/* Rounded toward zero after half a level is added: q = trunc((x - m) / d + offset). */
static void round_codes(const float *x, uint32_t count, float m, float d, float offset, int most,
                        uint8_t *codes) {
    const float inverse = d < 0 || d > 0 ? 1.0f / d : 0;
    for (uint32_t i = 0; i < count; i++) {
        const int q = (int)((x[i] - m) * inverse + offset);
        codes[i] = (uint8_t)(q < most ? q : most);
    }
}

static bool store_f16(float x, uint16_t *out) {
    *out = nibl_f32_to_f16(x);
    return magnitude(x) < 0x477FF000; /* 65520 would round to infinity */
}

/* Symmetric: the scale makes the peak the lowest level. */
static bool rule_symmetric(const nibl_grid *g, const float *x, nibl_block *out) {
    const float d = peak_of(x, g->group) / g->low;
    round_codes(x, g->group, 0, d, g->zero + 0.5f, g->zero * 2 - 1, out->codes);
    return store_f16(d, &out->d);
}

/* Asymmetric: levels from the smallest value to the largest. */
static bool rule_minimum(const nibl_grid *g, const float *x, nibl_block *out) {
    float low = x[0], high = x[0];
    for (uint32_t i = 1; i < g->group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    const float d = (high - low) / g->high;
    round_codes(x, g->group, low, d, 0.5f, (int)g->high, out->codes);
    return store_f16(d, &out->d) && store_f16(low, &out->m);
}

/* int8 and ternary: the scale makes the largest magnitude the highest level; halves go away from zero. */
static bool rule_magnitude(const nibl_grid *g, const float *x, nibl_block *out) {
    const float d = nibl_bits_float(magnitude(peak_of(x, g->group))) / g->high,
                inverse = d > 0 ? 1.0f / d : 0;
    for (uint32_t i = 0; i < g->group; i++) {
        const float y = x[i] * inverse;
        out->codes[i] = (uint8_t)((int)(y < 0 ? y - 0.5f : y + 0.5f) + g->zero);
    }
    return store_f16(d, &out->d);
}

/* OCP Microscaling 1.0: the exponent of the largest magnitude less 2; of levels as near the smaller magnitude. */
static bool rule_e8m0(const nibl_grid *g, const float *x, nibl_block *out) {
    const uint32_t exponent = magnitude(peak_of(x, g->group)) >> 23;
    const uint8_t e = (uint8_t)(exponent > 2 ? exponent - 2 : 0);
    const float half = nibl_bits_float(e < 2 ? 0x200000u << e : (e - 1u) << 23); /* levels are doubled */
    out->scales[0] = e;
    for (uint32_t i = 0; i < g->group; i++) {
        const float y = nibl_bits_float(magnitude(x[i])) / half;
        int code = 0;
        while (code < 7 && y > (float)(g->table[code] + g->table[code + 1]) / 2) code++;
        out->codes[i] = (uint8_t)(code > 0 && x[i] < 0 ? code | 8 : code);
    }
    return true;
}

/* ---- The table ---- */

static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* In the order of dtype.c. */
static const nibl_grid grids[] = {
    {"Q4_0", 32, -8, 7, NULL, 8, false, NIBL_STORE_F16, 0, 0, rule_symmetric, NULL, 0},
    {"Q4_1", 32, 0, 15, NULL, 0, true, NIBL_STORE_F16, 0, 0, rule_minimum, NULL, 0},
    {"Q5_0", 32, -16, 15, NULL, 16, false, NIBL_STORE_F16, 0, 0, rule_symmetric, NULL, 0},
    {"Q5_1", 32, 0, 31, NULL, 0, true, NIBL_STORE_F16, 0, 0, rule_minimum, NULL, 0},
    {"Q8_0", 32, -127, 127, NULL, 0, false, NIBL_STORE_F16, 0, 0, rule_magnitude, NULL, 0},
    {"Q2_K", 16, 0, 3, NULL, 0, true, NIBL_STORE_INTEGER, 0, 15, NULL, NULL, 0},
    {"Q3_K", 16, -4, 3, NULL, 4, false, NIBL_STORE_INTEGER, -32, 31, NULL, NULL, 0},
    {"Q4_K", 32, 0, 15, NULL, 0, true, NIBL_STORE_INTEGER, 0, 63, NULL, NULL, 0},
    {"Q5_K", 32, 0, 31, NULL, 0, true, NIBL_STORE_INTEGER, 0, 63, NULL, NULL, 0},
    {"Q6_K", 16, -32, 31, NULL, 32, false, NIBL_STORE_INTEGER, -128, 127, NULL, NULL, 0},
    {"IQ4_NL", 32, -127, 113, iq4, 0, false, NIBL_STORE_F16, 0, 0, NULL, NULL, 0},
    {"IQ4_XS", 32, -127, 113, iq4, 0, false, NIBL_STORE_INTEGER, -32, 31, NULL, NULL, 0},
    {"TQ1_0", 256, -1, 1, NULL, 1, false, NIBL_STORE_F16, 0, 0, rule_magnitude, NULL, 0},
    {"TQ2_0", 256, -1, 1, NULL, 1, false, NIBL_STORE_F16, 0, 0, rule_magnitude, NULL, 0},
    {"MXFP4", 32, -12, 12, e2m1, 0, false, NIBL_STORE_E8M0, 0, 0, rule_e8m0, NULL, 0},
    {"NVFP4", 16, -12, 12, e2m1, 0, false, NIBL_STORE_UE4M3, 0, 0, NULL, NULL, 0},
};

static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        const int x = *a >= 'a' && *a <= 'z' ? *a - 32 : *a, y = *b >= 'a' && *b <= 'z' ? *b - 32 : *b;
        if (x != y) return false;
    }
    return *a == *b;
}

const nibl_grid *nibl_grid_of(const nibl_dtype *type) {
    const nibl_dtype *of_file = nibl_dtype_by_id(type->id);
    if (of_file != type) return &((const nibl_integer_type *)(const void *)type)->grid;
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        if (same_name(grids[i].type, type->name)) return &grids[i];
    return NULL;
}

const nibl_dtype *nibl_encode_type(const char *name) {
    for (size_t i = 0; i < nibl_dtype_count(); i++)
        if (same_name(nibl_dtype_at(i)->name, name)) return nibl_dtype_at(i);
    return NULL;
}

nibl_status nibl_fail_encode_type(const char *name) {
    char names[256] = {0};
    nibl_writer w = {.text = names, .capacity = sizeof names - 1};
    for (size_t i = 0; i < nibl_dtype_count(); i++) {
        char lower[16] = "";
        for (size_t j = 0; nibl_dtype_at(i)->name[j] && j + 1 < sizeof lower; j++) {
            const char c = nibl_dtype_at(i)->name[j];
            lower[j] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
        nibl_print(&w, "%s%s", i > 0 ? ", " : "", lower);
    }
    return nibl_fail(NIBL_E_ARGUMENT, "weights cannot be quantized to '%.64s'; possible are: %s", name,
                     names);
}

/* ---- Rows ---- */

bool nibl_decode_floats(const nibl_dtype *from, const uint8_t *row, uint32_t count, float *out) {
    uint32_t special = 0;
    if (from->kind == NIBL_KIND_F32) {
        memcpy(out, row, 4 * (size_t)count);
        for (uint32_t i = 0; i < count; i++) special |= magnitude(out[i]) >= 0x7F800000;
        return !special;
    }
    const bool half = from->kind == NIBL_KIND_F16;
    const uint32_t exponent = half ? 0x7C00 : 0x7F80;
    for (uint32_t begin = 0; begin < count; begin += PIECE) {
        uint16_t bits[PIECE];
        const uint32_t n = count - begin < PIECE ? count - begin : PIECE;
        memcpy(bits, row + 2 * (size_t)begin, 2 * (size_t)n);
        for (uint32_t i = 0; i < n; i++) special |= (bits[i] & exponent) == exponent;
        if (half)
            for (uint32_t i = 0; i < n; i++) out[begin + i] = nibl_f16_to_f32(bits[i]);
        else
            for (uint32_t i = 0; i < n; i++) out[begin + i] = nibl_bf16_to_f32(bits[i]);
    }
    return !special;
}

/* Ties to even, as everywhere. */
static bool encode_floats(nibl_kind kind, const float *x, uint32_t count, uint8_t *out) {
    uint32_t most = 0;
    if (kind == NIBL_KIND_F32) {
        memcpy(out, x, 4 * (size_t)count);
        return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t bits = nibl_float_bits(x[i]);
        const uint16_t y = kind == NIBL_KIND_F16 ? nibl_f32_to_f16(x[i])
                                                 : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        most = magnitude(x[i]) > most ? magnitude(x[i]) : most;
        memcpy(out + 2 * (size_t)i, &y, 2);
    }
    return most < (kind == NIBL_KIND_F16 ? 0x477FF000u : 0x7F7F8000u);
}

/* The rule's block, or what is better. */
bool nibl_choose_block(const nibl_kernels *kernels, const nibl_grid *g, const float *x, const float *weights,
                       uint32_t count, bool search, nibl_block *out) {
    const bool ruled = g->rule && g->rule(g, x, out);
    if (g->rule && !search) return ruled;
    nibl_block found = {0};
    if (!nibl_search_block(kernels, g, x, weights, count, &found)) return ruled;
    if (!ruled ||
        nibl_block_error(g, x, weights, count, &found) < nibl_block_error(g, x, weights, count, out))
        *out = found;
    return true;
}

bool nibl_encode_values(const nibl_kernels *kernels, const nibl_dtype *to, const float *x,
                        const float *weights, uint32_t count, bool search, uint8_t *out) {
    if (nibl_kind_is_float(to->kind)) return encode_floats(to->kind, x, count, out);
    static const float alike[NIBL_SUPER] = {
#define EIGHT 1, 1, 1, 1, 1, 1, 1, 1
#define SIXTY_FOUR EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT
        SIXTY_FOUR, SIXTY_FOUR, SIXTY_FOUR, SIXTY_FOUR};
    const nibl_grid *g = nibl_grid_of(to);
    bool fits = true;
    for (uint32_t i = 0; i < count; i += to->block, out += to->bytes) {
        nibl_block block;
        fits =
            nibl_choose_block(kernels, g, x + i, weights ? weights + i : alike, to->block, search, &block) &&
            fits;
        if (fits) nibl_write_block(to, &block, out);
    }
    return fits;
}

bool nibl_decode_row(const nibl_kernels *kernels, const nibl_dtype *from, const uint8_t *row, uint32_t count,
                     uint8_t *panel, float *out) {
    if (nibl_kind_is_float(from->kind)) return nibl_decode_floats(from, row, count, out);
    bool finite = true;
    nibl_matrix w = nibl_matrix_of(from, NIBL_PANEL, count);
    w.data = panel;
    kernels->pack_row(&w, 0, row, &finite);
    kernels->unpack_row(out, &w, 0);
    return finite;
}

bool nibl_encode_row(const nibl_kernels *kernels, const nibl_dtype *to, const nibl_dtype *from,
                     const uint8_t *row, uint32_t count, uint8_t *out) {
    bool good = true;
    for (uint32_t i = 0; i < count && good; i += PIECE) {
        float x[PIECE];
        const uint32_t n = count - i < PIECE ? count - i : PIECE;
        good = nibl_decode_floats(from, row + (size_t)i * from->bytes, n, x) &&
               nibl_encode_values(kernels, to, x, NULL, n, false, out + (size_t)i / to->block * to->bytes);
    }
    return good;
}
