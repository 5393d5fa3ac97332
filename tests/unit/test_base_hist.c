/* Quantiles: exact while all samples are kept, close to the truth beyond, and the same on every run. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_hist.h"
#include "common/base/ts_rng.h"

static void test_small(void **state)
{
    (void)state;
    struct ts_hist hist;
    ts_hist_init(&hist);
    assert_true(isnan(ts_hist_quantile(&hist, 0.5)));
    assert_true(isnan(ts_hist_mean(&hist)));
    ts_hist_add(&hist, 7);
    assert_true(ts_hist_quantile(&hist, 0) == 7 && ts_hist_quantile(&hist, 1) == 7);
    /* 1..100 in a scrambled order, with a question in between. */
    ts_hist_fini(&hist);
    for (int i = 0; i < 100; i++) {
        ts_hist_add(&hist, (i * 37) % 100 + 1);
        assert_true(ts_hist_quantile(&hist, 0.5) >= 1);
    }
    assert_true(ts_hist_quantile(&hist, 0) == 1);
    assert_true(ts_hist_quantile(&hist, 0.5) == 50);
    assert_true(ts_hist_quantile(&hist, 0.99) == 99);
    assert_true(ts_hist_quantile(&hist, 0.991) == 100);
    assert_true(ts_hist_quantile(&hist, 1) == 100);
    assert_true(ts_hist_quantile(&hist, NAN) == 1);
    assert_true(ts_hist_mean(&hist) == 50.5);
    ts_hist_fini(&hist);
}

static double reservoir_median(uint64_t seed, uint64_t *seen, size_t *kept)
{
    struct ts_hist hist;
    struct ts_rng rng;
    ts_hist_init(&hist);
    ts_rng_init(&rng, seed);
    /* The second half lies elsewhere: a reservoir that forgets the early or the late samples shows it. */
    for (int i = 0; i < 1000000; i++) {
        ts_hist_add(&hist, ts_rng_unit(&rng) + (i < 500000 ? 0 : 1));
        if (i == 500000) {
            assert_true(ts_hist_quantile(&hist, 0.99) < 1);
        }
    }
    double median = ts_hist_quantile(&hist, 0.5);
    assert_true(fabs(ts_hist_quantile(&hist, 0.25) - 0.5) < 0.01);
    assert_true(fabs(ts_hist_quantile(&hist, 0.75) - 1.5) < 0.01);
    assert_true(fabs(ts_hist_mean(&hist) - 1.0) < 0.005);
    *seen = hist.seen;
    *kept = hist.count;
    ts_hist_fini(&hist);
    return median;
}

static void test_reservoir(void **state)
{
    (void)state;
    uint64_t seen;
    size_t kept;
    double median = reservoir_median(11, &seen, &kept);
    assert_int_equal(seen, 1000000);
    assert_true(kept < 1000000);
    assert_true(fabs(median - 1.0) < 0.01);
    assert_true(median == reservoir_median(11, &seen, &kept));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_reservoir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
