/* Features of the CPU this runs on. In WebAssembly an ISA is a binary: what it was compiled for is what it has. */
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xE6 };

static uint32_t xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

uint32_t nibl_cpu_features(void) {
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const bool osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!osxsave || !f16c || (xcr0() & XCR0_AVX) != XCR0_AVX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (b >> 5 & 1) features |= NIBL_CPU_AVX2;
    /* F, DQ, BW, VL in ebx, VNNI in ecx */
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if ((b & avx512) == avx512 && c >> 11 & 1 && (xcr0() & XCR0_AVX512) == XCR0_AVX512)
        features |= NIBL_CPU_AVX512VNNI;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1) features |= NIBL_CPU_AVXVNNI;
    return features;
}

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
uint32_t nibl_cpu_features(void) {
    enum { ASIMDDP = 1 << 20, I8MM = 1 << 13 }; /* HWCAP_ASIMDDP, HWCAP2_I8MM */
    return NIBL_CPU_NEON | (getauxval(AT_HWCAP) & ASIMDDP ? NIBL_CPU_DOTPROD : 0u) |
           (getauxval(AT_HWCAP2) & I8MM ? NIBL_CPU_I8MM : 0u);
}
#elif defined(__APPLE__)
uint32_t nibl_cpu_features(void) { return NIBL_CPU_NEON | NIBL_CPU_DOTPROD; } /* every Apple M has both */
#else
uint32_t nibl_cpu_features(void) { return NIBL_CPU_NEON; }
#endif

#else

uint32_t nibl_cpu_features(void) {
    uint32_t features = 0;
#if defined(__wasm_simd128__)
    features |= NIBL_CPU_WASM_SIMD128;
#endif
#if defined(NIBL_WASM_RELAXED)
    features |= NIBL_CPU_WASM_RELAXED;
    if (nibl_wasm_pair_sums()) features |= NIBL_CPU_WASM_PAIRS;
#endif
    return features;
}
#endif
