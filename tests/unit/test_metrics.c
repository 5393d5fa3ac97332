/* A trace written down by hand, with the numbers worked out on paper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_metrics.h"

static void check(struct ts_metrics m, ts_time ttft, ts_time tpot, ts_time gap01, ts_time gap_max)
{
    assert_int_equal(m.ttft_ns, ttft);
    assert_int_equal(m.tpot_ns, tpot);
    assert_int_equal(m.gap01_ns, gap01);
    assert_int_equal(m.gap_max_ns, gap_max);
}

static void test_worked_trace(void **state)
{
    (void)state;
    /* Sent at 10 ms. Token 0 after 250 ms, then the handover takes 60 ms, then gaps of 20, 20, 95 and 25 ms.
     */
    static const ts_time arrivals[] = {260 * TS_MS, 320 * TS_MS, 340 * TS_MS,
                                       360 * TS_MS, 455 * TS_MS, 480 * TS_MS};
    /* tpot = (480 - 260) / 5 = 44 ms */
    check(ts_metrics_of(10 * TS_MS, arrivals, TS_ARRAY_SIZE(arrivals)), 250 * TS_MS, 44 * TS_MS, 60 * TS_MS,
          95 * TS_MS);
}

static void test_few_tokens(void **state)
{
    (void)state;
    static const ts_time arrivals[] = {700, 1000};
    check(ts_metrics_of(100, NULL, 0), -1, -1, -1, -1);
    check(ts_metrics_of(100, arrivals, 1), 600, -1, -1, -1);
    check(ts_metrics_of(100, arrivals, 2), 600, 300, 300, 300);
}

static void test_tokens_in_one_message(void **state)
{
    (void)state;
    static const ts_time arrivals[] = {50, 50, 50};
    check(ts_metrics_of(50, arrivals, 3), 0, 0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_trace),
        cmocka_unit_test(test_few_tokens),
        cmocka_unit_test(test_tokens_in_one_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
