/*
 * Trials of plans: what must hold of any, and that a search that ends with them is no worse by them than the
 * planners whose plans it tries. How close they are to simulations is seen in tests/process/test_simulate.py.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/planner/plan_algorithm.h"
#include "services/planner/trial/plan_trial.h"
#include "tests/planner/planner_fixture.h"

#define REQUESTS 600

static struct ts_plan *made_by(const struct plan_problem *problem, const char *algorithm, uint64_t budget)
{
    const struct plan_algorithm *of = plan_algorithm_find(algorithm);
    struct plan_search *search = of->open(problem, NULL);
    assert_non_null(search);
    while (!of->step(search, budget))
        ;
    struct ts_plan *plan = of->best(search);
    of->close(&search);
    assert_non_null(plan);
    return plan;
}

static double tried(const struct plan_problem *problem, const struct ts_plan *plan, double scale)
{
    struct plan_trial trial = plan_trial_run(problem, plan, scale, REQUESTS, 7);
    assert_int_equal(trial.requests, REQUESTS);
    assert_true(trial.all >= 0 && trial.all <= 1 + 1e-9);
    assert_true(trial.all <= fmin(trial.ttft, fmin(trial.tpot, trial.e2e)) + 1e-9);
    return trial.all;
}

static void test_load(void **state)
{
    (void)state;
    static const char *const algorithms[] = {"colocated", "distserve", "thunder"};
    for (int work = PLANNER_FIXTURE_CODING; work <= PLANNER_FIXTURE_CONVERSATION; work++) {
        struct planner_fixture f;
        planner_fixture_init(&f, planner_fixture_cluster("8xA100", 40), (enum planner_fixture_work)work, 3);
        for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
            struct ts_plan *plan = made_by(&f.problem, algorithms[i], UINT64_MAX);
            double before = tried(&f.problem, plan, 0.05);
            assert_true(before > 0.97); /* next to nothing waits */
            for (double scale = 1; scale <= 16; scale *= 4) {
                double now = tried(&f.problem, plan, scale);
                assert_true(now <= before + 0.03);
                before = now;
            }
            assert_true(before < 0.35); /* nothing is refused, so most are late */
            ts_plan_destroy(&plan);
        }
        planner_fixture_fini(&f);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|4xA6000", 10), PLANNER_FIXTURE_CODING, 1.5);
    struct ts_plan *plan = made_by(&f.problem, "thunder", UINT64_MAX);
    struct plan_trial a = plan_trial_run(&f.problem, plan, 1, REQUESTS, 1);
    struct plan_trial b = plan_trial_run(&f.problem, plan, 1, REQUESTS, 1);
    struct plan_trial c = plan_trial_run(&f.problem, plan, 1, REQUESTS, 2);
    struct plan_trial mean = plan_trial_mean(&f.problem, plan, REQUESTS, 2, 1);
    assert_true(a.ttft == b.ttft && a.tpot == b.tpot && a.e2e == b.e2e && a.all == b.all);
    assert_true(a.all != c.all || a.ttft != c.ttft || a.e2e != c.e2e);
    assert_true(fabs(mean.all - (a.all + c.all) / 2) < 1e-12 && mean.requests == 2 * REQUESTS);
    f.demand.burst = 4; /* bursts make requests late */
    struct plan_trial bursts = plan_trial_mean(&f.problem, plan, REQUESTS, 2, 1);
    assert_true(bursts.all < mean.all);
    f.demand.burst = 0; /* and even gaps spare waits */
    struct plan_trial even = plan_trial_mean(&f.problem, plan, REQUESTS, 2, 1);
    assert_true(even.all >= mean.all - 0.01);
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
}

/* Prompts that the memory of a replica cannot hold are lost, and only these; where another one can, it serves
 * them. */
static void test_memory(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("8xA100", 40), PLANNER_FIXTURE_CODING, 0.2);
    struct ts_plan *plan = ts_plan_new(2, 2 * f.demand.class_count);
    plan->groups[0] = (struct ts_group){.phase = TS_PHASE_BOTH,
                                        .stage_count = 1,
                                        .stages = {{.tp = 1, .layers = f.model.layers, .gpus = {0}}}};
    plan->groups[1] =
        (struct ts_group){.phase = TS_PHASE_BOTH,
                          .stage_count = 1,
                          .stages = {{.tp = 4, .layers = f.model.layers, .gpus = {4, 5, 6, 7}}}};
    for (uint32_t k = 0; k < f.demand.class_count; k++) {
        plan->flows[2 * k] = (struct ts_flow){0, 0, k, 1, 1, TS_COST_CODEC_NONE};
        plan->flows[2 * k + 1] = (struct ts_flow){1, 1, k, 1, 1, TS_COST_CODEC_NONE};
        f.demand.classes[k].prompt_tokens = k % 2 ? 20000 : 500;
        f.demand.classes[k].prompt_tokens_sq =
            f.demand.classes[k].prompt_tokens * f.demand.classes[k].prompt_tokens;
        f.demand.classes[k].ttft_s = 100;
        f.demand.classes[k].tpot_s = f.demand.classes[k].e2e_s = 0;
    }
    assert_true(tried(&f.problem, plan, 0.1) > 0.99);
    plan->group_count = 1;
    for (uint32_t i = 0; i < plan->flow_count; i++)
        plan->flows[i].rate = plan->flows[i].prefill == 0;
    double alone = tried(&f.problem, plan, 0.1);
    assert_true(alone > 0.4 && alone < 0.6);
    for (uint32_t i = 0; i < plan->flow_count; i++)
        plan->flows[i].rate = 0;
    alone = tried(&f.problem, plan, 0.1); /* without a plan the router goes by load */
    assert_true(alone > 0.4 && alone < 0.6);
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
}

/* A search that ends with trials: the same plan however it is cut, and by trials none of those it tried is
 * better. */
static void test_search(void **state)
{
    (void)state;
    static const char *const others[] = {"colocated", "distserve", "hexgen2", "helix"};
    for (int work = PLANNER_FIXTURE_CODING; work <= PLANNER_FIXTURE_CONVERSATION; work++) {
        struct planner_fixture f;
        planner_fixture_init(&f, planner_fixture_cluster("4xA100|4xA40", 40), (enum planner_fixture_work)work,
                             4);
        f.problem.trial_requests = REQUESTS;
        struct ts_plan *plan = made_by(&f.problem, "thunder", UINT64_MAX);
        struct ts_plan *cut = made_by(&f.problem, "thunder", 37);
        assert_int_equal(plan->group_count, cut->group_count);
        assert_true(plan->objective == cut->objective &&
                    tried(&f.problem, plan, 1) == tried(&f.problem, cut, 1));
        assert_int_equal(ts_plan_check(plan, f.cluster, &f.model, &f.demand, NULL), TS_OK);
        double own = plan_trial_mean(&f.problem, plan, REQUESTS, 4, 1).all;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            struct ts_plan *other = made_by(&f.problem, others[i], UINT64_MAX);
            assert_true(plan_trial_mean(&f.problem, other, REQUESTS, 4, 1).all < own + 0.03);
            ts_plan_destroy(&other);
        }
        ts_plan_destroy(&plan);
        ts_plan_destroy(&cut);
        planner_fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
