#include "tests/planner/baseline_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/ts_mem.h"

void baseline_run_open(struct baseline_run *run, const char *cluster, double gbit,
                       enum planner_fixture_work work, double rate)
{
    *run = (struct baseline_run){0};
    planner_fixture_init(&run->fixture, planner_fixture_cluster(cluster, gbit), work, rate);
}

static void close_plan(struct baseline_run *run)
{
    ts_plan_destroy(&run->plan);
    plan_state_fini(&run->state);
    plan_eval_destroy(&run->eval);
    plan_shapes_destroy(&run->shapes);
}

void baseline_run_fini(struct baseline_run *run)
{
    close_plan(run);
    planner_fixture_fini(&run->fixture);
}

static void check_plan(struct baseline_run *run)
{
    const struct plan_problem *problem = &run->fixture.problem;
    struct ts_error err = {0};
    double attained = 0;
    if (ts_plan_check(run->plan, problem->cluster, problem->model, problem->demand, &err) != TS_OK)
        fail_msg("%s: %s", run->plan->algorithm, err.text);
    if (plan_state_of_plan(run->shapes, run->plan, &run->state, &err) != TS_OK)
        fail_msg("%s: %s", run->plan->algorithm, err.text);
    for (uint32_t i = 0; i < run->plan->flow_count; i++)
        attained += run->plan->flows[i].attained;
    if (problem->objective == PLAN_ATTAINMENT)
        attained /= ts_demand_rate(problem->demand);
    /* The charge on lossy codecs is in the objective and not in the flows. */
    if (!(fabs(attained - run->plan->objective) <= 2e-4 * fmax(1, attained)))
        fail_msg("%s: objective %.9g, flows attain %.9g", run->plan->algorithm, run->plan->objective,
                 attained);
    double program = plan_eval_run(run->eval, &run->state, NULL);
    if (!(run->plan->objective <= program * (1 + 1e-6) + 1e-9))
        fail_msg("%s: objective %.9g, the program attains %.9g on the same groups", run->plan->algorithm,
                 run->plan->objective, program);
}

void baseline_run_algorithm(struct baseline_run *run, const char *name)
{
    const struct plan_algorithm *algorithm = plan_algorithm_find(name);
    struct ts_error err = {0};
    close_plan(run);
    assert_non_null(algorithm);
    run->shapes = plan_shapes_new(&run->fixture.problem);
    run->eval = plan_eval_new(run->shapes);
    struct plan_search *search = algorithm->open(&run->fixture.problem, &err);
    if (!search)
        fail_msg("%s: %s", name, err.text);
    for (uint32_t i = 0; !algorithm->step(search, 1000); i++)
        assert_true(i < 100000);
    run->plan = algorithm->best(search);
    algorithm->describe(search, run->words, sizeof run->words);
    algorithm->close(&search);
    assert_null(search);
    if (run->plan)
        check_plan(run);
}

uint32_t baseline_run_count(const struct baseline_run *run, enum ts_phase phase)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < run->plan->group_count; i++)
        count += run->plan->groups[i].phase == phase;
    return count;
}

double baseline_run_rate(const struct baseline_run *run, uint32_t prefill, uint32_t decode)
{
    double rate = 0;
    for (uint32_t i = 0; i < run->plan->flow_count; i++) {
        const struct ts_flow *flow = &run->plan->flows[i];
        rate += flow->prefill == prefill && flow->decode == decode ? flow->rate : 0;
    }
    return rate;
}

double baseline_run_judge(struct baseline_run *run, const struct plan_state *state)
{
    struct baseline base = {.problem = &run->fixture.problem, .shapes = run->shapes, .eval = run->eval};
    uint32_t count = 0;
    struct plan_share *shares = baseline_shares_by_score(&base, state, NULL, &count);
    double value = shares ? plan_eval_fixed(run->eval, state, shares, count, NULL) : 0;
    ts_free(shares);
    return value;
}
