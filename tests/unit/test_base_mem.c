/* Allocation helpers, and that exhaustion and overflow stop the process instead of returning. */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

static void test_sizes(void **state)
{
    (void)state;
    char *ptr = ts_xmalloc(0);
    assert_non_null(ptr);
    ptr = ts_xrealloc(ptr, 10);
    memcpy(ptr, "012345678", 10);
    ptr = ts_xrealloc(ptr, 100000);
    assert_string_equal(ptr, "012345678");
    ts_free(ptr);
    unsigned char *zeros = ts_xcalloc(1000, 3);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(zeros[i], 0);
    }
    ts_free(zeros);
    ts_free(ts_xcalloc(0, 8));
    for (size_t align = 16; align <= 4096; align *= 2) {
        void *aligned = ts_xaligned(align, 100);
        assert_int_equal((uintptr_t)aligned % align, 0);
        ts_free(aligned);
    }
    ts_free(NULL);
}

static void test_strings(void **state)
{
    (void)state;
    char *copy = ts_xstrdup("hello");
    char *part = ts_xstrndup("hello", 3);
    char *whole = ts_xstrndup("hello", 99);
    char *bytes = ts_xmemdup("a\0b", 3);
    char *none = ts_xmemdup(NULL, 0);
    char *text = ts_xasprintf("%s-%03d", part, 7);
    assert_string_equal(copy, "hello");
    assert_string_equal(part, "hel");
    assert_string_equal(whole, "hello");
    assert_string_equal(text, "hel-007");
    assert_memory_equal(bytes, "a\0b", 4);
    assert_string_equal(none, "");
    ts_free(copy);
    ts_free(part);
    ts_free(whole);
    ts_free(bytes);
    ts_free(none);
    ts_free(text);
}

static void test_array(void **state)
{
    (void)state;
    int *items = NULL;
    size_t capacity = 0;
    unsigned moves = 0;
    for (size_t i = 0; i < 100000; i++) {
        void *ptr = items;
        size_t before = capacity;
        ts_array_reserve(&ptr, &capacity, i + 1, sizeof *items);
        items = ptr;
        assert_true(capacity >= i + 1);
        moves += capacity != before;
        items[i] = (int)i;
    }
    for (size_t i = 0; i < 100000; i++) {
        assert_int_equal(items[i], i);
    }
    assert_true(moves < 20);
    ts_free(items);
}

static void huge_calloc(void)
{
    ts_free(ts_xcalloc(SIZE_MAX / 2, 3));
}

static void huge_array(void)
{
    void *items = NULL;
    size_t capacity = 0;
    ts_array_reserve(&items, &capacity, SIZE_MAX / 4, 16);
}

static void failed_assertion(void)
{
    volatile int one = 1;
    TS_ASSERT(one == 2);
}

static void expect_abort(void (*function)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        function();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    /* A sanitizer ends the process with an exit code of its own before ours can. */
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGABRT : WEXITSTATUS(status) != 0);
}

static void test_aborts(void **state)
{
    (void)state;
    expect_abort(huge_calloc);
    expect_abort(huge_array);
    expect_abort(failed_assertion);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_array),
        cmocka_unit_test(test_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
