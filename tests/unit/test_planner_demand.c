/* What routers have measured as a demand: too little, nonsense, merging of classes, several routers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "services/planner/live/planner_demand.h"

static struct ts_workload_class class_of(double rate, double prompt, double output)
{
    return (struct ts_workload_class){rate, prompt, prompt * prompt * 1.5, output, output * output * 1.25,
                                      0,    0};
}

static struct ts_workload workload_of(const struct ts_workload_class *classes, uint32_t count)
{
    struct ts_workload w = {.window_s = 60, .burst = 2, .attained = -1, .classes = {classes, count}};
    for (uint32_t k = 0; k < count; k++)
        w.arrivals_per_s += classes[k].rate;
    return w;
}

static void test_enough(void **state)
{
    (void)state;
    const struct ts_workload_class classes[] = {class_of(2, 1000, 100)};
    struct ts_workload w = workload_of(classes, 1);
    struct ts_demand demand;
    assert_true(planner_workload_requests(&w) == 120);
    assert_true(planner_demand_measured(&w, 8, 120, &demand));
    assert_int_equal(demand.class_count, 1);
    assert_true(demand.burst == 2 && demand.classes[0].rate == 2);
    assert_false(planner_demand_measured(&w, 8, 121, &demand));
    w.window_s = 0;
    assert_false(planner_demand_measured(&w, 8, 0, &demand));
    w.window_s = NAN;
    assert_false(planner_demand_measured(&w, 8, 0, &demand));
    w.window_s = 60;
    w.classes.count = 0;
    assert_false(planner_demand_measured(&w, 8, 0, &demand));
}

/* Of what no honest router sends only that class is lost; a mean square below the mean's square is lifted. */
static void test_nonsense(void **state)
{
    (void)state;
    struct ts_workload_class classes[] = {
        class_of(1, 100, 10),  class_of(NAN, 100, 10),   class_of(-1, 100, 10), class_of(1, 0, 10),
        class_of(1, 100, 1e9), class_of(INFINITY, 1, 1), class_of(1, 2000, 10), class_of(1e-320, 5, 5)};
    classes[6].prompt_tokens_sq = 5;
    struct ts_workload w = workload_of(classes, 8);
    struct ts_demand demand;
    struct ts_error err;
    w.burst = -3;
    assert_true(planner_demand_measured(&w, 8, 50, &demand));
    assert_int_equal(demand.class_count, 3);
    assert_true(demand.burst == 1 && demand.classes[2].prompt_tokens_sq == 4e6);
    assert_int_equal(ts_demand_check(&demand, &err), TS_OK);
}

/* The nearest lengths go together, moments add up, and the order of arrival does not matter. */
static void test_merge(void **state)
{
    (void)state;
    const struct ts_workload_class classes[] = {class_of(1, 4000, 20), class_of(3, 100, 200),
                                                class_of(1, 110, 210), class_of(2, 1000, 50),
                                                class_of(2, 4200, 22)};
    const struct ts_workload_class turned[] = {classes[4], classes[2], classes[3], classes[0], classes[1]};
    struct ts_workload w = workload_of(classes, 5), t = workload_of(turned, 5);
    struct ts_demand demand, other;
    assert_true(planner_demand_measured(&w, 3, 50, &demand));
    assert_int_equal(demand.class_count, 3);
    assert_true(demand.classes[0].rate == 4 && demand.classes[1].rate == 2 && demand.classes[2].rate == 3);
    assert_true(fabs(demand.classes[0].prompt_tokens - 102.5) < 1e-9);
    assert_true(fabs(demand.classes[2].prompt_tokens_sq - 1.5 * (16e6 + 2 * 17.64e6) / 3) < 1e-3);
    assert_true(planner_demand_measured(&t, 3, 50, &other));
    for (uint32_t k = 0; k < 3; k++)
        assert_memory_equal(&demand.classes[k], &other.classes[k], sizeof demand.classes[k]);
    assert_true(planner_demand_measured(&w, 0, 50, &demand)); /* at least one */
    assert_int_equal(demand.class_count, 1);
    assert_true(fabs(ts_demand_rate(&demand) - 9) < 1e-9);
}

/* As many as a message carries, at random: rates and mean tokens stay what they are. */
static void test_many(void **state)
{
    (void)state;
    struct ts_workload_class classes[TS_WORKLOAD_CLASSES_MAX];
    struct ts_rng rng;
    double tokens = 0, after = 0;
    ts_rng_init(&rng, 7);
    for (uint32_t k = 0; k < TS_WORKLOAD_CLASSES_MAX; k++) {
        double rate = 0.1 + ts_rng_unit(&rng), prompt = 10 + 5000 * ts_rng_unit(&rng);
        classes[k] = class_of(rate, prompt, 1 + 500 * ts_rng_unit(&rng));
        tokens += rate * prompt;
    }
    struct ts_workload w = workload_of(classes, TS_WORKLOAD_CLASSES_MAX);
    struct ts_demand demand;
    struct ts_error err;
    assert_true(planner_demand_measured(&w, 99, 50, &demand));
    assert_int_equal(demand.class_count, TS_CLASSES_MAX);
    assert_int_equal(ts_demand_check(&demand, &err), TS_OK);
    for (uint32_t k = 0; k < demand.class_count; k++) {
        after += demand.classes[k].rate * demand.classes[k].prompt_tokens;
        assert_true(k == 0 || demand.classes[k].prompt_tokens >= demand.classes[k - 1].prompt_tokens);
    }
    assert_true(fabs(after / tokens - 1) < 1e-9);
}

static void test_routers(void **state)
{
    (void)state;
    struct ts_workload_class classes[TS_WORKLOAD_CLASSES_MAX];
    for (uint32_t k = 0; k < TS_WORKLOAD_CLASSES_MAX; k++)
        classes[k] = class_of(1, 10 * (k + 1), 10);
    struct ts_workload a = workload_of(classes, TS_WORKLOAD_CLASSES_MAX), b = workload_of(classes, 2);
    const struct ts_workload *all[] = {&a, &b};
    struct ts_arena arena;
    ts_arena_init(&arena);
    a.attained = 0.5;
    a.prompt_tokens_mean = 100;
    b.prompt_tokens_mean = 166;
    b.window_s = 30;
    struct ts_workload one = planner_workload_sum(all, 1, &arena), sum = planner_workload_sum(all, 2, &arena);
    assert_ptr_equal(one.classes.data, classes);
    assert_true(sum.arrivals_per_s == 66 && sum.window_s == 30 && sum.attained == 0.5);
    assert_true(fabs(sum.prompt_tokens_mean - 102) < 1e-9);
    assert_true(sum.classes.count <= TS_WORKLOAD_CLASSES_MAX);
    assert_true(fabs(planner_workload_requests(&sum) - 66 * 30) < 1e-6);
    ts_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enough), cmocka_unit_test(test_nonsense), cmocka_unit_test(test_merge),
        cmocka_unit_test(test_many),   cmocka_unit_test(test_routers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
