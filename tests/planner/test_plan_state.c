/* States: parts of cells, equal up to the order of groups; problems that are refused before any search. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "services/planner/plan_problem.h"

static struct ts_cluster *two_cells(void)
{
    struct ts_cluster *cluster = ts_cluster_new(1, 2, 6);
    cluster->types[0] = (struct ts_device_type){.name = "t",
                                                .memory_bytes = 24e9,
                                                .memory_bytes_per_s = 9e11,
                                                .flops = 7e13,
                                                .fit = {0.5, 0.8, 0.6, 0.4, 0, 0, 0}};
    for (uint32_t i = 0; i < 6; i++)
        cluster->gpus[i] = (struct ts_gpu){.type = 0, .node = i / 4, .alive = true};
    assert_int_equal(ts_cluster_seal(cluster, NULL), TS_OK);
    return cluster;
}

static const struct ts_model model = {.name = "m",
                                      .layers = 10,
                                      .hidden = 1024,
                                      .intermediate = 4096,
                                      .heads = 8,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .vocab = 1000,
                                      .weight_dtype = TS_DTYPE_BF16,
                                      .kv_dtype = TS_DTYPE_BF16};

static void test_hash_ignores_order_and_idle_counts(void **unused)
{
    (void)unused;
    struct ts_cluster *cluster = two_cells();
    struct plan_problem problem = {.cluster = cluster};
    const struct plan_group a = {.phase = TS_PHASE_PREFILL, .part_count = 1, .parts = {{0, 2, 2}}};
    const struct plan_group b = {.phase = TS_PHASE_DECODE, .part_count = 2, .parts = {{0, 1, 1}, {1, 2, 1}}};
    struct plan_state one, two;
    uint32_t idle[2];
    plan_state_init(&one);
    plan_state_init(&two);
    plan_state_add(&one, &a);
    plan_state_add(&one, &b);
    plan_state_add(&two, &b);
    plan_state_add(&two, &a);
    assert_true(plan_state_hash(&one) == plan_state_hash(&two));
    plan_state_idle(&problem, &one, idle);
    assert_int_equal(idle[0], 1);
    assert_int_equal(idle[1], 0);
    two.groups[0].phase = TS_PHASE_BOTH;
    assert_false(plan_state_hash(&one) == plan_state_hash(&two));
    plan_state_copy(&two, &one);
    assert_true(plan_state_hash(&one) == plan_state_hash(&two));
    two.groups[0].parts[0].tp = 1;
    assert_false(plan_state_hash(&one) == plan_state_hash(&two));
    plan_state_remove(&two, 0);
    assert_int_equal(two.count, 1);
    assert_int_equal(two.groups[0].part_count, 2);
    /* Two equal groups are not none. */
    plan_state_copy(&two, &one);
    plan_state_add(&two, &a);
    plan_state_add(&two, &a);
    assert_false(plan_state_hash(&one) == plan_state_hash(&two));
    plan_state_fini(&one);
    plan_state_fini(&two);
    ts_cluster_destroy(&cluster);
}

static void expect(const struct plan_problem *problem, const char *words)
{
    struct ts_error err = {0};
    enum ts_status status = plan_problem_check(problem, &err);
    if (!words)
        assert_int_equal(status, TS_OK);
    else if (status == TS_OK || !strstr(err.text, words))
        fail_msg("\"%s\" is not in \"%s\"", words, err.text);
}

static void test_problems_that_are_refused(void **unused)
{
    (void)unused;
    struct ts_cluster *cluster = two_cells();
    struct ts_demand demand = {.name = "w",
                               .class_count = 1,
                               .burst = 1,
                               .classes = {{.rate = 1,
                                            .prompt_tokens = 10,
                                            .prompt_tokens_sq = 100,
                                            .output_tokens = 10,
                                            .output_tokens_sq = 100}}};
    struct plan_problem problem = plan_problem_defaults(cluster, &model, &demand);
    expect(&problem, NULL);
    problem.depth = PLAN_FLIP;
    expect(&problem, "the plan in force is needed");
    problem.depth = PLAN_REGROUP;
    problem.attainment = NAN;
    expect(&problem, "attainment is nan");
    problem.attainment = 0.9;
    demand.classes[0].rate = 0;
    expect(&problem, "its rate is 0");
    demand.classes[0].rate = 1;
    struct ts_model large = model;
    large.layers = 200;
    large.hidden = 1 << 15;
    large.intermediate = 1 << 17;
    problem.model = &large;
    expect(&problem, "does not fit");
    large.heads = 0;
    expect(&problem, "heads is 0");
    problem.model = &model;
    for (uint32_t i = 0; i < 6; i++)
        cluster->gpus[i].alive = false;
    assert_int_equal(ts_cluster_seal(cluster, NULL), TS_OK);
    expect(&problem, "no device is alive");
    ts_cluster_destroy(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_ignores_order_and_idle_counts),
        cmocka_unit_test(test_problems_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
