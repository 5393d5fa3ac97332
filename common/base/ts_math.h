/*
 * Exponentials and their like from additions, multiplications and divisions alone. The C library's differ by
 * compiler, version and CPU in the last bit, and one bit is enough to send a simulation or a search another
 * way; these give the same bits wherever doubles are IEEE 754 and products are not fused (-ffp-contract=off).
 * Errors are a few units in the last place; tests/unit/test_base_math.c states and checks them.
 *
 * Whatever decides or prints a simulated or planned result uses these. sqrt, floor, ceil, fabs, ldexp and the
 * like are exact by IEEE 754 and need no twin. Any thread.
 */
#ifndef TS_MATH_H
#define TS_MATH_H

double ts_math_exp(double x);           /* infinite above 709.8, 0 below -745.2 */
double ts_math_log(double x);           /* -infinite at 0, NAN below */
double ts_math_pow(double x, double y); /* x >= 0; 1 for y = 0; relative error rises with |y ln x| */
double ts_math_cos_turns(double turns); /* cos(2 pi turns), exact at multiples of a quarter */
double ts_math_erfc(double x);          /* 1 - erf(x) */

#endif
