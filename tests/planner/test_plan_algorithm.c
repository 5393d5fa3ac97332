/* The table of algorithms, and algorithms from shared objects: the worked example and three that are wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"
#include "tests/planner/planner_fixture.h"

static void test_table(void **state)
{
    (void)state;
    size_t count = 0;
    for (const struct plan_algorithm *a; (a = plan_algorithm_at(count)) != NULL; count++) {
        assert_int_equal(a->version, PLAN_ALGORITHM_VERSION);
        assert_ptr_equal(plan_algorithm_find(a->name), a); /* so names differ */
        assert_true(strlen(a->summary) > 0 && strchr(a->summary, '\n') == NULL);
        assert_true(a->open && a->step && a->best && a->describe && a->close);
    }
    assert_true(count >= 9);
    assert_null(plan_algorithm_at(count + 1));
    assert_null(plan_algorithm_find("no such algorithm"));
}

static void test_example(void **state)
{
    (void)state;
    struct planner_fixture f;
    struct ts_error err;
    char words[200];
    const struct plan_algorithm *stripes = plan_algorithm_load(TS_PLAN_EXAMPLE, &err);
    assert_non_null(stripes);
    assert_string_equal(stripes->name, "stripes");
    /* A second load is the same object. */
    assert_ptr_equal(plan_algorithm_load(TS_PLAN_EXAMPLE, &err), stripes);

    /* One replica of each node but the last, which is too small for the model. */
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|4xA6000|1xA5000", 40), PLANNER_FIXTURE_CODING, 1);
    struct plan_search *search = stripes->open(&f.problem, &err);
    assert_non_null(search);
    assert_null(stripes->best(search));
    assert_false(stripes->step(search, 1));
    struct ts_plan *first = stripes->best(search);
    assert_true(stripes->step(search, 100));
    struct ts_plan *plan = stripes->best(search);
    stripes->describe(search, words, sizeof words);
    assert_string_equal(words, "cells 3, replicas 2");
    assert_int_equal(first->group_count, 1);
    assert_int_equal(plan->group_count, 2);
    assert_true(plan->objective >= first->objective && plan->objective > 0);
    assert_int_equal(ts_plan_check(plan, f.cluster, &f.model, &f.demand, &err), TS_OK);
    ts_plan_destroy(&first);
    ts_plan_destroy(&plan);
    stripes->close(&search);
    assert_null(search);

    f.problem.colocate = false;
    assert_null(stripes->open(&f.problem, &err));
    assert_non_null(strstr(err.text, "colocation is forbidden"));
    planner_fixture_fini(&f);
}

static void assert_refused(const char *path, const char *words)
{
    struct ts_error err = {0};
    assert_null(plan_algorithm_load(path, &err));
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_wrong_objects(void **state)
{
    (void)state;
    assert_refused("/nonexistent/planner.so", "cannot load \"/nonexistent/planner.so\"");
    assert_refused("no-such-file.so", "cannot load");
    assert_refused(TS_PLAN_NO_SYMBOL, "exports no ts_plan_algorithm");
    assert_refused(TS_PLAN_OLD_VERSION, "build it again");
    assert_refused(TS_PLAN_SAME_NAME, "an algorithm named \"uniform\" is built in");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_wrong_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
