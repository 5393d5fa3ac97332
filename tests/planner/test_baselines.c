/* What every algorithm of the table owes: legal plans by the one measure, the same plan however its steps are
 * cut, and clear answers where there is nothing to plan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/planner/baseline_fixture.h"

static const char *const baselines[] = {"uniform", "colocated", "splitwise", "distserve",
                                        "hexgen",  "hexgen2",   "helix",     "paper"};

#define BASELINES (sizeof baselines / sizeof baselines[0])

static void on_random_clusters(enum plan_objective objective, uint64_t seeds, uint32_t gpus)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct baseline_run run = {0};
        planner_fixture_random(&run.fixture, seed, 4, gpus);
        run.fixture.problem.objective = objective;
        bool splits = false;
        for (size_t i = 0; i < BASELINES; i++) {
            baseline_run_algorithm(&run, baselines[i]); /* checks the plan */
            splits = splits || (run.plan && strcmp(baselines[i], "distserve") == 0);
            if (strcmp(baselines[i], "paper") == 0) /* last; its groups may be of equal devices, too */
                assert_true(run.plan || !splits);
        }
        baseline_run_fini(&run);
    }
}

static void test_attainment_on_random_clusters(void **state)
{
    (void)state;
    on_random_clusters(PLAN_ATTAINMENT, 10, 20);
}

static void test_goodput_on_random_clusters(void **state)
{
    (void)state;
    on_random_clusters(PLAN_GOODPUT, 3, 10);
}

static void assert_same_plan(const struct ts_plan *a, const struct ts_plan *b)
{
    assert_int_equal(a != NULL, b != NULL);
    if (!a)
        return;
    assert_true(a->objective == b->objective);
    assert_int_equal(a->group_count, b->group_count);
    assert_int_equal(a->flow_count, b->flow_count);
    for (uint32_t g = 0; g < a->group_count; g++) {
        assert_int_equal(a->groups[g].phase, b->groups[g].phase);
        assert_int_equal(a->groups[g].stage_count, b->groups[g].stage_count);
        for (uint32_t s = 0; s < a->groups[g].stage_count; s++)
            assert_memory_equal(&a->groups[g].stages[s], &b->groups[g].stages[s], sizeof(struct ts_stage));
    }
    for (uint32_t f = 0; f < a->flow_count; f++) {
        assert_int_equal(a->flows[f].prefill, b->flows[f].prefill);
        assert_int_equal(a->flows[f].decode, b->flows[f].decode);
        assert_true(a->flows[f].rate == b->flows[f].rate);
    }
}

/* The plan after `total` units of work in steps of `budget`. */
static struct ts_plan *run_in_steps(const struct plan_algorithm *algorithm,
                                    const struct plan_problem *problem, uint64_t total, uint64_t budget)
{
    struct ts_error err;
    struct plan_search *search = algorithm->open(problem, &err);
    assert_non_null(search);
    for (uint64_t spent = 0; spent < total; spent += budget)
        (void)algorithm->step(search, budget);
    struct ts_plan *plan = algorithm->best(search);
    algorithm->close(&search);
    return plan;
}

static void test_steps_do_not_matter(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|2xA40+2xA6000|4xA5000", 20),
                         PLANNER_FIXTURE_CONVERSATION, 3);
    for (size_t i = 0; i < BASELINES; i++) {
        const struct plan_algorithm *algorithm = plan_algorithm_find(baselines[i]);
        for (uint64_t total = 63; total <= 2016; total *= 32) {
            struct ts_plan *whole = run_in_steps(algorithm, &f.problem, total, total);
            struct ts_plan *small = run_in_steps(algorithm, &f.problem, total, 1);
            struct ts_plan *other = run_in_steps(algorithm, &f.problem, total, 7);
            assert_same_plan(whole, small);
            assert_same_plan(whole, other);
            ts_plan_destroy(&whole);
            ts_plan_destroy(&small);
            ts_plan_destroy(&other);
        }
    }
    planner_fixture_fini(&f);
}

/* One device that holds the model: the ones that split have no plan, the others have one, nobody crashes. */
static void test_one_device(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "1xA100", 40, PLANNER_FIXTURE_CODING, 0.1);
    for (size_t i = 0; i < BASELINES; i++) {
        bool splits = strcmp(baselines[i], "distserve") == 0 || strcmp(baselines[i], "hexgen2") == 0 ||
                      strcmp(baselines[i], "paper") == 0;
        baseline_run_algorithm(&run, baselines[i]);
        assert_int_equal(run.plan == NULL, splits);
        if (splits)
            assert_non_null(strstr(run.words, "no plan yet"));
    }
    baseline_run_fini(&run);
}

/* All devices together hold the model, no group of them does: 21 nodes with one 4090 each, a group has at
 * most eight stages, and 14 devices would be needed. */
static void test_nothing_holds_the_model(void **state)
{
    (void)state;
    char spec[256] = "1x4090";
    struct baseline_run run;
    for (uint32_t i = 1; i < 21; i++)
        (void)snprintf(spec + strlen(spec), sizeof spec - strlen(spec), "|1x4090");
    baseline_run_open(&run, spec, 40, PLANNER_FIXTURE_CODING, 0.1);
    run.fixture.model.layers = 200;
    for (size_t i = 0; i < BASELINES; i++) {
        baseline_run_algorithm(&run, baselines[i]);
        assert_null(run.plan);
    }
    baseline_run_fini(&run);
}

static void assert_not_opened(const struct plan_problem *problem, const char *name, const char *words)
{
    struct ts_error err = {0};
    assert_null(plan_algorithm_find(name)->open(problem, &err));
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_what_they_cannot_do(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA100", 20), PLANNER_FIXTURE_CODING, 1);
    f.problem.colocate = false;
    assert_not_opened(&f.problem, "colocated", "colocated replicas are forbidden");
    assert_not_opened(&f.problem, "hexgen", "colocated replicas are forbidden");
    assert_not_opened(&f.problem, "helix", "colocated replicas are forbidden");
    f.problem.colocate = true;
    f.problem.depth = PLAN_FLIP;
    for (size_t i = 0; i < BASELINES; i++)
        assert_not_opened(&f.problem, baselines[i], "the plan in force is needed");
    planner_fixture_fini(&f);
}

static void assert_same_groups(const struct ts_plan *a, const struct ts_plan *b, bool phases)
{
    assert_int_equal(a->group_count, b->group_count);
    for (uint32_t g = 0; g < a->group_count; g++) {
        assert_int_equal(a->groups[g].stage_count, b->groups[g].stage_count);
        if (phases)
            assert_int_equal(a->groups[g].phase, b->groups[g].phase);
        for (uint32_t s = 0; s < a->groups[g].stage_count; s++) {
            const struct ts_stage *x = &a->groups[g].stages[s], *y = &b->groups[g].stages[s];
            assert_int_equal(x->tp, y->tp);
            for (uint32_t i = 0; i < x->tp; i++)
                assert_int_equal(x->gpus[i], y->gpus[i]);
        }
    }
}

/* Asked for less than a new plan, a baseline keeps groups and phases and routes by its rule; only the paper's
 * lightweight rescheduling turns phases, and then keeps the devices of each group. */
static void test_less_than_a_new_plan(void **state)
{
    (void)state;
    const char *starts[] = {"distserve", "colocated", "splitwise"};
    for (size_t s = 0; s < 3; s++) {
        struct baseline_run run;
        baseline_run_open(&run, "4xA100|4xA40|4xA40", 40, PLANNER_FIXTURE_CODING, 2);
        baseline_run_algorithm(&run, starts[s]);
        struct ts_plan *start = run.plan;
        run.plan = NULL;
        run.fixture.problem.current = start;
        for (enum plan_depth depth = PLAN_REROUTE; depth <= PLAN_FLIP; depth++) {
            run.fixture.problem.depth = depth;
            for (size_t i = 0; i < BASELINES; i++) {
                bool flips = depth == PLAN_FLIP && strcmp(baselines[i], "paper") == 0;
                baseline_run_algorithm(&run, baselines[i]);
                assert_non_null(run.plan);
                assert_true(run.plan->flow_count > 0);
                if (!flips || baseline_run_count(&run, TS_PHASE_BOTH) == 0)
                    assert_same_groups(run.plan, start, !flips);
            }
        }
        ts_plan_destroy(&start);
        baseline_run_fini(&run);
    }
}

/* Without phase BOTH nobody uses it. */
static void test_no_colocation(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct baseline_run run = {0};
        planner_fixture_random(&run.fixture, seed, 4, 24);
        run.fixture.problem.colocate = false;
        for (size_t i = 0; i < BASELINES; i++) {
            if (strcmp(baselines[i], "colocated") == 0 || strcmp(baselines[i], "hexgen") == 0 ||
                strcmp(baselines[i], "helix") == 0)
                continue;
            baseline_run_algorithm(&run, baselines[i]);
            if (run.plan)
                assert_int_equal(baseline_run_count(&run, TS_PHASE_BOTH), 0);
        }
        baseline_run_fini(&run);
    }
}

/* Nodes that nothing joins: whatever is planned works without a network, or attains nothing. */
static void test_no_network(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "4xA100|2xA40|1xA40", 40, PLANNER_FIXTURE_CODING, 0.2);
    const uint32_t nodes = run.fixture.cluster->node_count;
    for (uint32_t i = 0; i < nodes * nodes; i++)
        run.fixture.cluster->links[i].bytes_per_s = 0;
    for (size_t i = 0; i < BASELINES; i++) {
        baseline_run_algorithm(&run, baselines[i]);
        for (uint32_t f = 0; run.plan && f < run.plan->flow_count; f++) {
            const struct ts_flow *flow = &run.plan->flows[f];
            uint32_t from = run.plan->groups[flow->prefill].stages[0].gpus[0];
            uint32_t to = run.plan->groups[flow->decode].stages[0].gpus[0];
            assert_int_equal(run.fixture.cluster->gpus[from].node, run.fixture.cluster->gpus[to].node);
        }
    }
    baseline_run_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attainment_on_random_clusters),
        cmocka_unit_test(test_goodput_on_random_clusters),
        cmocka_unit_test(test_steps_do_not_matter),
        cmocka_unit_test(test_one_device),
        cmocka_unit_test(test_nothing_holds_the_model),
        cmocka_unit_test(test_what_they_cannot_do),
        cmocka_unit_test(test_less_than_a_new_plan),
        cmocka_unit_test(test_no_colocation),
        cmocka_unit_test(test_no_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
