/* Error text: set, prefix, overflow, and that no object is no problem. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_error.h"

static void test_set_and_prefix(void **state)
{
    (void)state;
    struct ts_error err = {0};
    assert_int_equal(ts_error_set(&err, TS_EINVAL, "key %s: %d is too large", "rate", 12), TS_EINVAL);
    assert_int_equal(err.status, TS_EINVAL);
    assert_string_equal(err.text, "key rate: 12 is too large");
    assert_int_equal(ts_error_prefix(&err, "%s:%d", "local.conf", 3), TS_EINVAL);
    assert_string_equal(err.text, "local.conf:3: key rate: 12 is too large");
    /* The old text as an argument of the new one. */
    assert_int_equal(ts_error_set(&err, TS_EIO, "again: %s", err.text), TS_EIO);
    assert_string_equal(err.text, "again: local.conf:3: key rate: 12 is too large");
    ts_error_set(&err, TS_EIO, "short");
    assert_string_equal(err.text, "short");
}

static void test_no_object(void **state)
{
    (void)state;
    assert_int_equal(ts_error_set(NULL, TS_ECLOSED, "%d", 1), TS_ECLOSED);
    assert_int_equal(ts_error_prefix(NULL, "%d", 1), TS_OK);
}

static void test_overflow_is_cut(void **state)
{
    (void)state;
    struct ts_error err = {0};
    char big[1000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    ts_error_set(&err, TS_EIO, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    ts_error_prefix(&err, "where");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_memory_equal(err.text, "where: xxx", 10);
    ts_error_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_null(strstr(err.text, "where"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_prefix),
        cmocka_unit_test(test_no_object),
        cmocka_unit_test(test_overflow_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
