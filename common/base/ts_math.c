#include "common/base/ts_math.h"

#include <math.h>
#include <stddef.h>

/* ln 2 in two parts: the first has 21 trailing zero bits, so its product with an exponent is exact. */
static const double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;

/* e^r = sum of r^i / i!; |r| <= ln 2 / 2 leaves less than 1e-17 after the 13th term. */
static double exp_reduced(double r)
{
    static const double factorials[] = {1,    1,     2,      6,       24,       120,       720,
                                        5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800.0};
    double sum = 0;
    for (size_t i = sizeof factorials / sizeof factorials[0] - 1; i > 1; i--)
        sum = (sum + 1 / factorials[i]) * r;
    return 1 + (r + sum * r);
}

double ts_math_exp(double x)
{
    if (isnan(x))
        return x;
    if (x > 709.8)
        return INFINITY;
    if (x < -745.2)
        return 0;
    double k = floor(x / 0x1.62e42fefa39efp-1 + 0.5);
    return ldexp(exp_reduced((x - k * ln2_high) - k * ln2_low), (int)k);
}

/* ln m = 2 artanh s, s = (m - 1) / (m + 1); |s| <= 0.172 for m between the roots of 1/2 and 2. */
double ts_math_log(double x)
{
    int exponent;
    if (isnan(x) || x < 0)
        return NAN;
    if (x == 0)
        return -INFINITY;
    if (isinf(x))
        return x;
    double m = frexp(x, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int i = 21; i >= 3; i -= 2)
        sum = (sum + 1.0 / i) * z;
    return exponent * ln2_high + (2 * s + (2 * s * sum + exponent * ln2_low));
}

double ts_math_pow(double x, double y)
{
    if (y == 0 || x == 1)
        return 1;
    if (x == 0)
        return y > 0 ? 0 : INFINITY;
    return ts_math_exp(y * ts_math_log(x));
}

/* Taylor's series up to a sixteenth of a turn from an axis, where the terms fall fast. */
static double cos_near(double x)
{
    double z = x * x, sum = 0;
    for (int i = 18; i >= 2; i -= 2)
        sum = (1 + sum) * -z / (i * (i - 1));
    return 1 + sum;
}

static double sin_near(double x)
{
    double z = x * x, sum = 0;
    for (int i = 19; i >= 3; i -= 2)
        sum = (1 + sum) * -z / (i * (i - 1));
    return x * (1 + sum);
}

double ts_math_cos_turns(double turns)
{
    const double circle = 0x1.921fb54442d18p+2;
    double t = fabs(turns - floor(turns)); /* [0, 1) */
    t = t > 0.5 ? 1 - t : t;               /* even */
    double sign = t > 0.25 ? -1 : 1;
    t = t > 0.25 ? 0.5 - t : t;
    return sign * (t <= 0.125 ? cos_near(circle * t) : sin_near(circle * (0.25 - t)));
}

/* erf x = 2 / sqrt(pi) e^(-x^2) sum of 2^i x^(2i+1) / (2i+1)!!, all terms positive; and for large x the
 * continued fraction erfc x = e^(-x^2) / sqrt(pi) / (x + (1/2) / (x + 1 / (x + (3/2) / ...))) (Abramowitz and
 * Stegun 7.1.6, 7.1.14). */
double ts_math_erfc(double x)
{
    const double root_pi = 0x1.c5bf891b4ef6ap+0;
    if (isnan(x) || fabs(x) > 40)
        return x < 0 ? 2 : x > 0 ? 0 : x;
    double a = fabs(x), head = (double)(float)a, upper; /* head^2 is exact */
    double gauss = ts_math_exp(-head * head) * ts_math_exp((head - a) * (head + a));
    if (a < 2) {
        double term = a, sum = a;
        for (int i = 1; i < 60; i++) {
            term *= 2 * a * a / (2 * i + 1);
            sum += term;
        }
        upper = 1 - 2 / root_pi * gauss * sum;
    } else {
        double tail = a;
        for (int i = 80; i >= 1; i--)
            tail = a + 0.5 * i / tail;
        upper = gauss / root_pi / tail;
    }
    return x < 0 ? 2 - upper : upper;
}
