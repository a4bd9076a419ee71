#include "core/maths.h"

#include <stdint.h>
#include <string.h>

#define LN2_HIGH 0x1.62e42feep-1 /* 32 bits, so that n * LN2_HIGH is exact */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define LOG2E 0x1.71547652b82fep+0
#define ROUNDER 0x1.8p52 /* adding and subtracting it rounds to an integer */

static uint64_t to_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

double nibl_exp(double x) {
    if (x < -708.0) return 0.0;
    if (x > 709.0) x = 709.0;
    double n = x * LOG2E + ROUNDER - ROUNDER;
    double r = x - n * LN2_HIGH - n * LN2_LOW;
    double p = 1.0;
    for (int i = 14; i > 0; i--) p = p * (r / (double)i) + 1.0; /* Taylor by Horner, |r| <= ln2 / 2 */
    return p * from_bits((uint64_t)((int64_t)n + 1023) << 52);
}

double nibl_log(double x) {
    uint64_t bits = to_bits(x);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    double m = from_bits((bits & 0xFFFFFFFFFFFFFull) | 1023ull << 52);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    /* log m = 2 atanh((m - 1) / (m + 1)), |s| <= 0.1716 */
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, sum = 0.0;
    for (int i = 21; i > 0; i -= 2) sum = sum * s2 + 1.0 / (double)i;
    return (double)exponent * LN2_LOW + 2.0 * s * sum + (double)exponent * LN2_HIGH;
}

double nibl_pow(double base, double exponent) { return nibl_exp(exponent * nibl_log(base)); }

void nibl_sincos(double x, double *sine, double *cosine) {
    /* pi/2 in four parts; the first three have so many trailing zeros that n times them is exact */
    double n = x * 0x1.45f306dc9c883p-1 + ROUNDER - ROUNDER;
    double r = x - n * 0x1.921fb5p+0;
    r = r - n * 0x1.110b46p-26;
    r = r - n * 0x1.1a6263p-54;
    r = r - n * 0x1.8a2e03707344ap-81;
    double r2 = r * r, s = 1.0, c = 1.0;
    for (int i = 18; i > 0; i -= 2) {
        s = 1.0 - s * (r2 / (double)(i * (i + 1)));
        c = 1.0 - c * (r2 / (double)(i * (i - 1)));
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
    }
}
