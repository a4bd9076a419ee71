/* What core sees of the kernels: one table of functions, chosen once for this machine. No allocation, no failure. */
#ifndef NIBL_KERNELS_H
#define NIBL_KERNELS_H

#include "kernels/blocks.h"

enum { NIBL_ATTN_BLOCK = 64, NIBL_MAX_HEAD_WIDTH = 512 };

/* What a query sees of a block, positions [first, n), and what becomes of its dot products: s = dot scale, and then, where
 * cap is not 0, cap tanh(s / cap). */
typedef struct nibl_view {
    uint32_t first, n;
    float scale, cap;
} nibl_view;

/* Between the halves of a feed-forward block. */
typedef enum nibl_activation {
    NIBL_ACTIVATE_SILU, /* g sigmoid(g) */
    NIBL_ACTIVATE_GELU, /* g Phi(g), approximated by tanh: g sigmoid(2 sqrt(2 / pi) (g + 0.044715 g^3)) */
    NIBL_ACTIVATE_RELU2, /* max(g, 0)^2 */
    NIBL_ACTIVATE_CLAMPED /* g sigmoid(1.702 g) with g at most 7; times up + 1, with up within -7..7 */
} nibl_activation;

/* 64 positions of one KV head in int8: K is code d + m with codes of 0..127, V is code dv with codes of -127..127, where
 * d, m and dv are finite and belong to a position. codes holds K, then V, each as quads of bytes that are multiplied by
 * four bytes that all lanes share, in tiles that are read one after the other: a tile of K has 16 positions, chunk after
 * chunk of four dimensions, one of V 16 dimensions, group after group of the four positions that are the same mod 16. */
typedef struct nibl_attn_i8 {
    float d[NIBL_ATTN_BLOCK], m[NIBL_ATTN_BLOCK], dv[NIBL_ATTN_BLOCK];
    int8_t codes[];
} nibl_attn_i8;

static inline uint32_t nibl_attn_i8_width(uint32_t width) { return (width + 15) / 16 * 16; }

static inline size_t nibl_attn_i8_bytes(uint32_t width) {
    return sizeof(nibl_attn_i8) + (size_t)2 * NIBL_ATTN_BLOCK * nibl_attn_i8_width(width);
}

/* Where in codes dimension d of position j is. */
static inline size_t nibl_attn_i8_key(uint32_t width, uint32_t j, uint32_t d) {
    return (size_t)(j / 16) * 16 * nibl_attn_i8_width(width) + d / 4 * 64 + j % 16 * 4 + d % 4;
}
static inline size_t nibl_attn_i8_value(uint32_t width, uint32_t j, uint32_t d) {
    return (size_t)NIBL_ATTN_BLOCK * (nibl_attn_i8_width(width) + d / 16 * 16) + j % 16 * 64 + d % 16 * 4 +
           j / 16;
}

/* The levels of a grid: all integers from low to high, or the first `count` of a table in ascending order. */
typedef struct nibl_levels {
    float low, high;
    uint32_t count; /* 0 = integers */
    float table[16];
} nibl_levels;

/* A scale that is tried: the level of x is the nearest to (x - m) inverse, and it stands for level d + e. */
typedef struct nibl_try {
    float inverse, m, d, e;
} nibl_try;

enum { NIBL_TILE = 16 };

/* Room for unpacked panels (of int16 and their scales, or two of bytes) and rearranged activations of 16 tokens (int16) or
 * 32 (bytes). */
#define NIBL_GEMM_SCRATCH(cols) ((size_t)(cols) * 64 + 64)

typedef struct nibl_kernels {
#define NIBL_OP(name, args, check) void(*name) args;
#include "kernels/kernels.def"
} nibl_kernels;

/* The chosen kernels; `isa_cap` of the first call decides: NULL for the best, or the name of an ISA ("avx2", "scalar")
 * that caps the choice. Not thread-safe at its first call. */
const nibl_kernels *nibl_kernels_get(const char *isa_cap);

/* Names of the variants in use, best first, e.g. "avx512vnni avx2 scalar". Static storage. */
const char *nibl_kernels_names(void);

/* y (tokens, stride) = w rows of panels [begin, end) times quantized activations; picks gemv or gemm. w is not float. */
void nibl_matmul(const nibl_kernels *k, float *y, size_t stride, const nibl_matrix *w, uint32_t begin,
                 uint32_t end, const nibl_act *a, uint32_t tokens, void *scratch);

/* CPU features, as bits of the table. */
enum {
    NIBL_CPU_AVX2 = 1 << 0, /* with F16C */
    NIBL_CPU_AVXVNNI = 1 << 1,
    NIBL_CPU_AVX512VNNI = 1 << 2, /* with F, BW, DQ, VL */
    NIBL_CPU_NEON = 1 << 3,
    NIBL_CPU_DOTPROD = 1 << 4,
    NIBL_CPU_I8MM = 1 << 8,
    NIBL_CPU_WASM_SIMD128 = 1 << 5,
    NIBL_CPU_WASM_RELAXED = 1 << 6,
    NIBL_CPU_WASM_PAIRS = 1 << 7 /* its relaxed dot product is made of 16-bit pair sums */
};
uint32_t nibl_cpu_features(void);
bool nibl_wasm_pair_sums(void); /* NIBL_CPU_WASM_PAIRS; in relaxed binaries only */

/* Every variant in this binary, for checkkern. */
typedef struct nibl_kernel_row {
    const char *op, *isa;
    uint32_t features;
    void (*function)(void);
} nibl_kernel_row;
const nibl_kernel_row *nibl_kernel_rows(size_t *count);

#endif
