/* Elementary functions of core/maths.h and kernels/maths.h against the C library, and conversions of f16 bit by bit. */
#include "core/maths.h"
#include "kernels/maths.h"
#include "tests/c/test.h"

#include <math.h>

static double relative(double got, double expected) {
    if (got == expected) return 0;
    return fabs(got - expected) / fmax(fabs(expected), 1e-300);
}

/* `steps` points from low to high, not on any grid of powers of two. */
static double point(double low, double high, int i, int steps) {
    return low + (high - low) * (i + 0.37) / steps;
}

static void exp_log_pow(void) {
    double worst_exp = 0, worst_log = 0, worst_pow = 0;
    for (int i = 0; i < 200000; i++) {
        const double x = point(-700, 700, i, 200000), small = point(-1, 1, i, 200000);
        worst_exp = fmax(worst_exp, relative(nibl_exp(x), exp(x)));
        worst_exp = fmax(worst_exp, relative(nibl_exp(small), exp(small)));
        const double y = exp(x), near_one = 1.0 + small * 0.5;
        worst_log = fmax(worst_log, relative(nibl_log(y), log(y)));
        worst_log = fmax(worst_log, relative(nibl_log(near_one), log(near_one)));
        /* frequencies of rope: base^(-2 i / width) */
        const double base = point(100, 1e7, i % 1000, 1000), exponent = -point(0, 1, i / 1000, 200);
        worst_pow = fmax(worst_pow, relative(nibl_pow(base, exponent), pow(base, exponent)));
    }
    printf("relative error: exp %.1g, log %.1g, pow %.1g\n", worst_exp, worst_log, worst_pow);
    CHECK(worst_exp < 1e-14);
    CHECK(worst_log < 1e-14);
    CHECK(worst_pow < 1e-14);
    CHECK(nibl_exp(0) == 1.0);
    CHECK(nibl_exp(-INFINITY) == 0.0);
    CHECK(nibl_exp(-1e9) == 0.0);
    CHECK(isfinite(nibl_exp(1e9)));
    CHECK(nibl_log(1.0) == 0.0);
    CHECK(nibl_pow(10000.0, 0.0) == 1.0);
}

static void sine_and_cosine(void) {
    /* angles are position * frequency with frequencies up to 1 */
    static const double limits[] = {1, 10, 4096, 131072, 0x1p22, 0x1p27};
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        double worst = 0;
        for (int i = 0; i < 100000; i++) {
            double x = point(-limits[l], limits[l], i, 100000), s, c;
            if (i % 2) x = floor(x);
            nibl_sincos(x, &s, &c);
            worst = fmax(worst, fmax(fabs(s - sin(x)), fabs(c - cos(x))));
        }
        printf("sin, cos up to %.0f: %.1g\n", limits[l], worst);
        CHECK(worst < 1e-14);
    }
    double s, c;
    nibl_sincos(0, &s, &c);
    CHECK(s == 0 && c == 1);
}

static void expf_of_kernels(void) {
    double worst = 0;
    for (int i = 0; i < 400000; i++) {
        const float x = (float)point(-87, 88, i, 400000), small = (float)point(-1, 1, i, 400000);
        worst = fmax(worst, relative((double)nibl_expf(x), exp((double)x)));
        worst = fmax(worst, relative((double)nibl_expf(small), exp((double)small)));
    }
    printf("relative error: expf %.2g\n", worst);
    CHECK(worst < 1.5e-7);
    CHECK(nibl_expf(0.0f) == 1.0f);
    CHECK(nibl_expf(-0.0f) == 1.0f);
    CHECK(nibl_expf(-87.0f) > 0.0f);
    CHECK(nibl_expf(-87.00001f) == 0.0f);
    CHECK(nibl_expf(-INFINITY) == 0.0f);
    CHECK(nibl_expf(88.0f) > 1.6e38f && isfinite(nibl_expf(88.0f)));
    CHECK(nibl_expf(INFINITY) == nibl_expf(88.0f));
    CHECK(isnan(nibl_expf(NAN)));
}

/* The value of a finite f16 by its definition. */
static double half_value(uint32_t h) {
    const int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    const double size = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h >> 15 ? -size : size;
}

static void f16_widens_exactly(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        if ((h & 0x7C00) == 0x7C00) continue;
        const float x = nibl_f16_to_f32((uint16_t)h);
        if (!CHECK((double)x == half_value(h)) || !CHECK_EQ(signbit(x) != 0, h >> 15)) return;
        if (!CHECK_EQ(nibl_f32_to_f16(x), h)) return;
    }
}

static void f16_rounds_to_nearest_even(void) {
    for (uint32_t h = 0; h < 0x7BFF; h++) {
        const double low = half_value(h), high = half_value(h + 1);
        const float middle = (float)((low + high) / 2); /* has one bit more than a half: exact */
        const uint32_t even = h & 1 ? h + 1 : h;
        for (int sign = 0; sign < 2; sign++) {
            const uint32_t s = (uint32_t)sign << 15;
            const float m = sign ? -middle : middle, away = sign ? -INFINITY : INFINITY;
            if (!CHECK_EQ(nibl_f32_to_f16(m), even | s) ||
                !CHECK_EQ(nibl_f32_to_f16(nextafterf(m, 0)), h | s) ||
                !CHECK_EQ(nibl_f32_to_f16(nextafterf(m, away)), (h + 1) | s))
                return;
        }
    }
}

static void f16_never_leaves_its_range(void) {
    CHECK_EQ(nibl_f32_to_f16(65519.0f), 0x7BFF);
    CHECK_EQ(nibl_f32_to_f16(65520.0f), 0x7BFF);
    CHECK_EQ(nibl_f32_to_f16(1e30f), 0x7BFF);
    CHECK_EQ(nibl_f32_to_f16(-1e30f), 0xFBFF);
    CHECK_EQ(nibl_f32_to_f16(INFINITY), 0x7BFF);
    CHECK_EQ(nibl_f32_to_f16(-INFINITY), 0xFBFF);
    CHECK_EQ(nibl_f32_to_f16(NAN) & 0x7FFF, 0);
    CHECK_EQ(nibl_f32_to_f16(0x1p-26f), 0);
    CHECK_EQ(nibl_f32_to_f16(-0x1p-149f), 0x8000);
}

static void bf16_widens_exactly(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        const int exponent = (int)(h >> 7 & 255), mantissa = (int)(h & 127);
        if (exponent == 255) continue;
        const double size = exponent ? ldexp(128 + mantissa, exponent - 134) : ldexp(mantissa, -133);
        if (!CHECK((double)nibl_bf16_to_f32((uint16_t)h) == (h >> 15 ? -size : size))) return;
    }
}

int main(void) {
    static const test tests[] = {
        {"exp, log and pow agree with the C library", exp_log_pow},
        {"sine and cosine agree with the C library", sine_and_cosine},
        {"exp of the kernels agrees with the C library", expf_of_kernels},
        {"every f16 widens to its value and comes back", f16_widens_exactly},
        {"f16 rounds to nearest, ties to even", f16_rounds_to_nearest_even},
        {"f16 saturates", f16_never_leaves_its_range},
        {"every bf16 widens to its value", bf16_widens_exactly},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}
