/* Picks, for every operation, the first row of the table whose features this machine has. */
#include "kernels/variants.h"

#include <string.h>

/* Rows of ISAs that this binary does not contain vanish. */
#define ROW(op, isa, features) {#op, #isa, (features), (void (*)(void))nibl_##op##_##isa},
#if defined(__x86_64__)
#define ROW_avx2 ROW
#define ROW_avxvnni ROW
#define ROW_avx512vnni ROW
#else
#define ROW_avx2(op, isa, features)
#define ROW_avxvnni(op, isa, features)
#define ROW_avx512vnni(op, isa, features)
#endif
#if defined(__aarch64__)
#define ROW_neon ROW
#define ROW_dotprod ROW
#define ROW_i8mm ROW
#else
#define ROW_neon(op, isa, features)
#define ROW_dotprod(op, isa, features)
#define ROW_i8mm(op, isa, features)
#endif
#if defined(__wasm_simd128__)
#define ROW_wasmsimd ROW
#else
#define ROW_wasmsimd(op, isa, features)
#endif
#if defined(NIBL_WASM_RELAXED)
#define ROW_wasmrelaxed ROW
#define ROW_wasmpairs ROW
#else
#define ROW_wasmpairs(op, isa, features)
#define ROW_wasmrelaxed(op, isa, features)
#endif
#define ROW_scalar ROW

static const nibl_kernel_row rows[] = {
#define NIBL_IMPL(op, isa, features) ROW_##isa(op, isa, features)
#include "kernels/kernels.def"
};

const nibl_kernel_row *nibl_kernel_rows(size_t *count) {
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

/* Best first: the feature that an ISA's name stands for, and what may be used beside it when it caps the choice. */
static const struct {
    const char *name;
    uint32_t needs, beside;
} isas[] = {
    {"avx512vnni", NIBL_CPU_AVX512VNNI, NIBL_CPU_AVXVNNI | NIBL_CPU_AVX2},
    {"avxvnni", NIBL_CPU_AVXVNNI, NIBL_CPU_AVX2},
    {"avx2", NIBL_CPU_AVX2, 0},
    {"i8mm", NIBL_CPU_I8MM, NIBL_CPU_DOTPROD | NIBL_CPU_NEON},
    {"dotprod", NIBL_CPU_DOTPROD, NIBL_CPU_NEON},
    {"neon", NIBL_CPU_NEON, 0},
    {"wasmpairs", NIBL_CPU_WASM_PAIRS, NIBL_CPU_WASM_RELAXED | NIBL_CPU_WASM_SIMD128},
    {"wasmrelaxed", NIBL_CPU_WASM_RELAXED, NIBL_CPU_WASM_SIMD128},
    {"wasmsimd", NIBL_CPU_WASM_SIMD128, 0},
    {"scalar", 0, 0},
};

static nibl_kernels chosen;
static char names[96];
static bool ready;

static bool choose(uint32_t features) {
    static const char *const ops[] = {
#define NIBL_OP(name, args, check) #name,
#include "kernels/kernels.def"
    };
    bool used[sizeof isas / sizeof isas[0]] = {false};
    for (size_t op = 0; op < sizeof ops / sizeof ops[0]; op++) {
        void (*function)(void) = NULL;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !function; i++) {
            if (strcmp(rows[i].op, ops[op]) != 0 || (rows[i].features & ~features) != 0) continue;
            function = rows[i].function;
            for (size_t j = 0; j < sizeof isas / sizeof isas[0]; j++)
                used[j] = used[j] || strcmp(isas[j].name, rows[i].isa) == 0;
        }
        if (!function) return false;
        memcpy((char *)&chosen + op * sizeof function, &function,
               sizeof function); /* members stand in this order */
    }
    names[0] = 0;
    for (size_t j = 0; j < sizeof isas / sizeof isas[0]; j++) {
        if (!used[j]) continue;
        if (names[0]) strcat(names, " ");
        strcat(names, isas[j].name);
    }
    return true;
}

const nibl_kernels *nibl_kernels_get(const char *isa_cap) {
    if (ready) return &chosen;
    uint32_t features = nibl_cpu_features();
    if (isa_cap) {
        size_t j = 0;
        while (j < sizeof isas / sizeof isas[0] && strcmp(isas[j].name, isa_cap) != 0) j++;
        if (j == sizeof isas / sizeof isas[0] || (isas[j].needs & ~features) != 0) return NULL;
        features &= isas[j].needs | isas[j].beside;
    }
    ready = choose(features);
    return ready ? &chosen : NULL;
}

const char *nibl_kernels_names(void) { return names; }

void nibl_matmul(const nibl_kernels *k, float *y, size_t stride, const nibl_matrix *w, uint32_t begin,
                 uint32_t end, const nibl_act *a, uint32_t tokens, void *scratch) {
    const bool int8 = w->kind == NIBL_KIND_INT8;
    if (!nibl_is_plain(w) || w->has_m128)
        k->matmul_codes(y, stride, w, begin, end, a, tokens);
    else if (tokens == 1)
        (int8 ? k->gemv_int8 : k->gemv_nibble)(y, w, begin, end, a);
    else
        (int8 ? k->gemm_int8 : k->gemm_nibble)(y, stride, w, begin, end, a, tokens, scratch);
}
