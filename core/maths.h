/* Elementary functions in double, made of IEEE additions, multiplications and divisions only, so that every host computes
 * the same bits (C libraries differ). Relative error below 1e-14 in the ranges used here. */
#ifndef NIBL_MATHS_H
#define NIBL_MATHS_H

double nibl_exp(double x);
double nibl_log(double x); /* x > 0, normal */
double nibl_pow(double base, double exponent); /* base > 0 */
/* |x| <= 2^27 */
void nibl_sincos(double x, double *sine, double *cosine);

#endif
