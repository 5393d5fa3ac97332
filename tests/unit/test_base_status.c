/* Every status has a name of its own; the clock moves forward. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_status.h"

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < TS_STATUS_COUNT; i++) {
        const char *name = ts_status_name((enum ts_status)i);
        assert_non_null(name);
        assert_string_not_equal(name, "unknown");
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(name, ts_status_name((enum ts_status)j));
        }
    }
    assert_string_equal(ts_status_name(TS_OK), "ok");
    assert_string_equal(ts_status_name(TS_STATUS_COUNT), "unknown");
}

static void test_clock(void **state)
{
    (void)state;
    ts_time before = ts_clock_now();
    for (int i = 0; i < 1000; i++) {
        ts_time now = ts_clock_now();
        assert_true(now >= before);
        before = now;
    }
    /* 2020-01-01 in nanoseconds: wall time is time since the epoch in the right unit. */
    assert_true(ts_clock_wall_ns() > 1577836800 * TS_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
