/*
 * What the tests of kernels use of cmocka, for machines without it (TS_KERNELS_ONLY): cases run one after the
 * other, a failed assertion ends its case. Each program has one source that includes this and runs cases; its
 * other sources may include it to fail them. The same output as cmocka's where scripts read it: [ RUN ],
 * [ OK ], [ FAILED ]. One thread.
 */
#ifndef TS_TESTS_PLAIN_CMOCKA_H
#define TS_TESTS_PLAIN_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN_PASSED, PLAIN_FAILED, PLAIN_SKIPPED };

typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
    const char *name;
    void (*test_func)(void **state);
    CMFixtureFunction setup_func, teardown_func;
    void *initial_state;
};

/* One for the whole program, whichever of its sources fails. */
__attribute__((weak)) jmp_buf plain_end;

__attribute__((noreturn, format(printf, 3, 4))) static inline void plain_fail(const char *file, int line,
                                                                              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("[  ERROR   ] --- ", stderr);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n%s:%d\n", file, line);
    va_end(args);
    longjmp(plain_end, 1 + PLAIN_FAILED);
}

static inline int plain_case(const struct CMUnitTest *test)
{
    void *state = test->initial_state;
    printf("[ RUN      ] %s\n", test->name);
    fflush(stdout);
    if (test->setup_func && test->setup_func(&state))
        return PLAIN_FAILED;
    int ended = setjmp(plain_end);
    if (ended == 0)
        test->test_func(&state);
    if (test->teardown_func && test->teardown_func(&state) && ended == 0)
        ended = 1 + PLAIN_FAILED;
    return ended ? ended - 1 : PLAIN_PASSED;
}

static inline int plain_run(const struct CMUnitTest *tests, size_t count, CMFixtureFunction setup,
                            CMFixtureFunction teardown)
{
    static const char *const words[] = {"[       OK ]", "[  FAILED  ]", "[  SKIPPED ]"};
    void *state = NULL;
    int failed = setup ? setup(&state) != 0 : 0;
    for (size_t i = 0; i < count && (i > 0 || !failed); i++) {
        int result = plain_case(&tests[i]);
        printf("%s %s\n", words[result], tests[i].name);
        failed += result == PLAIN_FAILED;
    }
    if (teardown && teardown(&state))
        failed++;
    printf("[==========] %zu test(s) run, %d failed\n", count, failed);
    return failed;
}

#define cmocka_unit_test(f)                                                                                  \
    {                                                                                                        \
        .name = #f, .test_func = (f)                                                                         \
    }
#define cmocka_unit_test_setup_teardown(f, setup, teardown)                                                  \
    {                                                                                                        \
        .name = #f, .test_func = (f), .setup_func = (setup), .teardown_func = (teardown)                     \
    }
#define cmocka_unit_test_prestate(f, state)                                                                  \
    {                                                                                                        \
        .name = #f, .test_func = (f), .initial_state = (state)                                               \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                                       \
    plain_run(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

#define fail_msg(...)          plain_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail()                 plain_fail(__FILE__, __LINE__, "failed")
#define skip()                 longjmp(plain_end, 1 + PLAIN_SKIPPED)
#define print_message(...)     printf(__VA_ARGS__)
#define assert_true(c)         ((c) ? (void)0 : plain_fail(__FILE__, __LINE__, "%s", #c))
#define assert_false(c)        ((c) ? plain_fail(__FILE__, __LINE__, "not: %s", #c) : (void)0)
#define assert_non_null(p)     assert_true((p) != NULL)
#define assert_null(p)         assert_true((p) == NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b)                                                                               \
    plain_compare((uintmax_t)(a), (uintmax_t)(b), 1, #a " == " #b, __FILE__, __LINE__)
#define assert_int_not_equal(a, b)                                                                           \
    plain_compare((uintmax_t)(a), (uintmax_t)(b), 0, #a " != " #b, __FILE__, __LINE__)
#define assert_string_equal(a, b)                                                                            \
    do {                                                                                                     \
        const char *plain_a = (a), *plain_b = (b);                                                           \
        if (strcmp(plain_a, plain_b) != 0)                                                                   \
            plain_fail(__FILE__, __LINE__, "\"%s\" is not \"%s\"", plain_a, plain_b);                        \
    } while (0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

#define assert_memory_not_equal(a, b, n) assert_true(memcmp(a, b, n) != 0)
#define assert_in_range(value, low, high)                                                                    \
    assert_true((uintmax_t)(value) >= (uintmax_t)(low) && (uintmax_t)(value) <= (uintmax_t)(high))

static inline void plain_compare(uintmax_t a, uintmax_t b, int equal, const char *text, const char *file,
                                 int line)
{
    if ((a == b) != equal)
        plain_fail(file, line, "%s: %jd and %jd", text, (intmax_t)a, (intmax_t)b);
}

#endif
