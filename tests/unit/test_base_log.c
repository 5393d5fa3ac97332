/* Log lines as they arrive on stderr: columns, levels, one line per fact, a bound on its length. */
#include <errno.h>
#include <regex.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_log.h"

static char captured[16384];
static int pipe_ends[2], saved_stderr;

static void capture_begin(void)
{
    assert_int_equal(pipe(pipe_ends), 0);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(saved_stderr >= 0);
    dup2(pipe_ends[1], STDERR_FILENO);
}

static void capture_end(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_ends[1]);
    ssize_t got = read(pipe_ends[0], captured, sizeof captured - 1);
    close(pipe_ends[0]);
    captured[got > 0 ? got : 0] = '\0';
}

static void test_line(void **state)
{
    (void)state;
    ts_log_init("router", TS_LOG_INFO);
    capture_begin();
    errno = ENOENT;
    ts_log(TS_LOG_INFO, "event=%s id=%d", "joined", 3);
    int after = errno;
    ts_log(TS_LOG_DEBUG, "event=hidden");
    capture_end();
    assert_int_equal(after, ENOENT);
    regex_t regex;
    const char *pattern =
        "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z info router "
        "event=joined id=3\n$";
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    assert_int_equal(regexec(&regex, captured, 0, NULL, 0), 0);
    regfree(&regex);
}

static void test_hostile_value(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'y', sizeof big);
    big[sizeof big - 1] = '\0';
    ts_log_init("relay", TS_LOG_DEBUG);
    capture_begin();
    ts_log(TS_LOG_DEBUG, "event=odd name=%s",
           "a\nb\x1b[0m\tc\x7f"
           "d");
    ts_log(TS_LOG_ERROR, "event=%s", big);
    capture_end();
    assert_non_null(strstr(captured, " debug relay event=odd name=a b [0m c d\n"));
    char *second = strchr(captured, '\n') + 1;
    assert_in_range(strlen(second), 1000, 2048);
    assert_string_equal(second + strlen(second) - 5, "y...\n");
}

static void test_level_names(void **state)
{
    (void)state;
    enum ts_log_level level = TS_LOG_INFO;
    assert_int_equal(ts_log_level_parse("debug", &level), TS_OK);
    assert_int_equal(level, TS_LOG_DEBUG);
    assert_int_equal(ts_log_level_parse("error", &level), TS_OK);
    assert_int_equal(level, TS_LOG_ERROR);
    assert_int_equal(ts_log_level_parse("verbose", &level), TS_EINVAL);
    assert_int_equal(level, TS_LOG_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_hostile_value),
        cmocka_unit_test(test_level_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
