/* The C library's functions are the reference for values; bits are compared with recorded ones, since equal
 * bits on every machine are the purpose. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_math.h"
#include "common/base/ts_rng.h"

#define DRAWS 200000

static double worst(double a, double exact, double worst_so_far)
{
    double error = exact != 0 ? fabs(a - exact) / fabs(exact) : fabs(a);
    return error > worst_so_far ? error : worst_so_far;
}

static void test_values(void **state)
{
    struct ts_rng rng;
    double e = 0, l = 0, p = 0, c = 0, f = 0;
    (void)state;
    ts_rng_init(&rng, 7);
    for (int i = 0; i < DRAWS; i++) {
        double u = ts_rng_unit(&rng), v = ts_rng_unit(&rng);
        e = worst(ts_math_exp(1400 * u - 700), exp(1400 * u - 700), e);
        double x = ldexp(0.5 + u / 2, (int)(2000 * v) - 1000);
        l = worst(ts_math_log(x), log(x), l);
        p = worst(ts_math_pow(100 * u, 10 * v - 5), pow(100 * u, 10 * v - 5), p);
        double away = fabs(ts_math_cos_turns(u) - cos(6.283185307179586 * u));
        c = away > c ? away : c;
        f = worst(ts_math_erfc(30 * u - 5), erfc(30 * u - 5), f);
    }
    print_message("largest errors in units of 2^-52: exp %.1f, log %.1f, pow %.1f, cos %.1f, erfc %.1f\n",
                  e / DBL_EPSILON, l / DBL_EPSILON, p / DBL_EPSILON, c / DBL_EPSILON, f / DBL_EPSILON);
    assert_true(e < 2 * DBL_EPSILON);
    assert_true(l < 2 * DBL_EPSILON);
    assert_true(p < 40 * DBL_EPSILON);
    assert_true(c < 8 * DBL_EPSILON);
    assert_true(f < 1000 * DBL_EPSILON); /* 1 - erf loses three digits below x = 2 */
}

static void test_edges(void **state)
{
    (void)state;
    assert_true(ts_math_exp(0) == 1 && isinf(ts_math_exp(710)) && ts_math_exp(-746) == 0 &&
                ts_math_exp(-745) > 0);
    assert_true(isnan(ts_math_exp(NAN)) && isinf(ts_math_exp(INFINITY)) && ts_math_exp(-INFINITY) == 0);
    assert_true(ts_math_log(1) == 0 && isinf(ts_math_log(0)) && ts_math_log(0) < 0 &&
                isnan(ts_math_log(-1)) && isinf(ts_math_log(INFINITY)));
    assert_true(ts_math_pow(0, 0) == 1 && ts_math_pow(0, 2) == 0 && isinf(ts_math_pow(0, -1)) &&
                ts_math_pow(1, 1e300) == 1);
    assert_true(ts_math_cos_turns(0) == 1 && ts_math_cos_turns(0.25) == 0 && ts_math_cos_turns(0.5) == -1 &&
                ts_math_cos_turns(0.75) == 0);
    assert_true(ts_math_cos_turns(1) == 1 && ts_math_cos_turns(-0.125) == ts_math_cos_turns(0.125));
    assert_true(ts_math_erfc(0) == 1 && ts_math_erfc(-40) == 2 && ts_math_erfc(40) == 0 &&
                isnan(ts_math_erfc(NAN)));
}

static uint64_t mix(uint64_t hash, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return ts_splitmix64(hash ^ bits);
}

/* Not a single bit may differ between compilers, levels of optimisation and machines. */
static void test_bits(void **state)
{
    struct ts_rng rng;
    uint64_t hash = 0;
    (void)state;
    ts_rng_init(&rng, 11);
    for (int i = 0; i < DRAWS; i++) {
        double u = ts_rng_unit(&rng);
        hash = mix(hash, ts_math_exp(100 * u - 50));
        hash = mix(hash, ts_math_log(u));
        hash = mix(hash, ts_math_pow(u, 0.37));
        hash = mix(hash, ts_math_cos_turns(u));
        hash = mix(hash, ts_math_erfc(8 * u - 4));
        hash = mix(hash, ts_rng_normal(&rng));
        hash = mix(hash, ts_rng_exponential(&rng, 3));
    }
    print_message("bits %016llx\n", (unsigned long long)hash);
    assert_true(hash == 0x977dfd8412685f06ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_edges),
                                       cmocka_unit_test(test_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
