/* Windows of a workload that agree are put together; one that does not begins anew. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "services/planner/live/planner_demand.h"
#include "services/planner/planner_measure.h"

#define MOST_S 600

struct window { /* of two ranges of prompts, up to 1,000 tokens and beyond; 60 s that end at `end_s` */
    double end_s, few, many, output;
    double requests; /* expected of all together */
};

static struct ts_workload workload_of(const struct window *window, struct ts_workload_class *classes)
{
    double o = window->output;
    classes[0] = (struct ts_workload_class){window->few, 500, 3e5, o, 1.5 * o * o, 0, 1000};
    classes[1] = (struct ts_workload_class){window->many, 2000, 5e6, o, 1.5 * o * o, 1000, 1e8};
    return (struct ts_workload){.arrivals_per_s = window->few + window->many,
                                .output_tokens_mean = o,
                                .window_s = 60,
                                .burst = 1,
                                .attained = -1,
                                .classes = {classes, 2}};
}

static void test_windows(void **state)
{
    (void)state;
    static const struct window windows[] = {
        {100, 4, 2, 30, 360},  {110, 4, 2, 30, 360}, /* five sixths of it are known */
        {160, 6, 2, 30, 840},                        /* the next one */
        {200, 6, 2, 30, 840},                        /* lies within what is known */
        {220, 3, 3, 30, 1200},                       /* another mix, within the threshold */
        {280, 4, 2, 90, 360}, /* outputs three times as long: nothing of before counts */
        {300, 4, 2, 95, 360}, /* some of it is still of before */
        {340, 4, 2, 99, 360}, /* the first that is not */
        {400, 4, 2, 99, 720},
    };
    const struct planner_trigger_rule rule = {
        .rate = 0.5, .length = 0.5, .mix = 0.5, .requests_min = 50}; /* thresholds that only outputs pass */
    struct planner_measure measure = {.count = 0};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        struct ts_workload_class classes[2];
        const struct ts_workload workload = workload_of(&windows[i], classes);
        planner_measure_see(&measure, &rule, &workload, MOST_S, windows[i].end_s);
        const struct ts_workload all = planner_measure_of(&measure, &workload);
        double requests = planner_workload_requests(&all);
        if (fabs(requests - windows[i].requests) > 1e-6 * requests)
            fail_msg("window %zu: %g requests", i, requests);
        assert_true(fabs(all.output_tokens_mean - windows[i].output) < 1e-9);
        assert_int_equal(all.classes.count, 2);
    }
}

/* Means are over all requests, and there is an end to what counts. */
static void test_bounds(void **state)
{
    (void)state;
    const struct planner_trigger_rule rule = {.rate = 9, .length = 9, .mix = 9, .requests_min = 50};
    struct planner_measure measure = {.count = 0};
    struct ts_workload all = {.window_s = 0};
    for (int i = 1; i <= 100; i++) {
        const struct window window = {60.0 * i, i <= 50 ? 2 : 4, 2, 30, 0};
        struct ts_workload_class classes[2];
        const struct ts_workload workload = workload_of(&window, classes);
        planner_measure_see(&measure, &rule, &workload, MOST_S, window.end_s);
        all = planner_measure_of(&measure, &workload);
        assert_true(all.window_s <= MOST_S + 1e-9);
        if (i == 51)
            assert_true(fabs(all.classes.data[0].rate - (9 * 2 + 4) / 10.0) < 1e-9);
    }
    assert_true(fabs(all.arrivals_per_s - 6) < 0.05);
}

/* What is too little, of no range or nonsense is left alone. */
static void test_others(void **state)
{
    (void)state;
    const struct planner_trigger_rule rule = planner_trigger_defaults();
    const struct window window = {60, 4, 2, 30, 0};
    struct ts_workload_class classes[2];
    struct ts_workload workload = workload_of(&window, classes);
    struct planner_measure measure = {.count = 0};
    for (int i = 1; i < 4; i++) {
        classes[1].prompt_end = 0;
        planner_measure_see(&measure, &rule, &workload, MOST_S, 60.0 * i);
        assert_true(planner_measure_of(&measure, &workload).window_s == 60);
    }
    classes[0].rate = NAN;
    classes[1].rate = 0.1;
    planner_measure_see(&measure, &rule, &workload, MOST_S, 300);
    assert_int_equal(measure.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_windows), cmocka_unit_test(test_bounds),
                                       cmocka_unit_test(test_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
