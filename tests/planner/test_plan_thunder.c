/*
 * The search: same problem and seed, same plan, however its steps are cut; better with more work, never
 * worse; equal to the optimum on small clusters; depths change what they may; odd problems get an answer.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "services/planner/thunder/plan_thunder.h"
#include "tests/planner/planner_fixture.h"

static struct ts_plan *run(const struct plan_algorithm *algorithm, const struct plan_problem *problem,
                           uint64_t budget, uint64_t work)
{
    struct ts_error err = {0};
    struct plan_search *search = algorithm->open(problem, &err);
    if (!search)
        fail_msg("%s", err.text);
    bool done = false;
    for (uint64_t spent = 0; !done && spent < work; spent += budget)
        done = algorithm->step(search, budget);
    struct ts_plan *plan = algorithm->best(search);
    algorithm->close(&search);
    assert_null(search);
    return plan;
}

static struct ts_plan *plan_of(const struct plan_problem *problem)
{
    return run(&plan_algorithm_thunder, problem, 1000, UINT64_MAX);
}

static void check(const struct planner_fixture *f, const struct ts_plan *plan)
{
    struct ts_error err = {0};
    assert_non_null(plan);
    if (ts_plan_check(plan, f->cluster, &f->model, &f->demand, &err) != TS_OK)
        fail_msg("%s", err.text);
}

static void assert_same_plan(const struct ts_plan *a, const struct ts_plan *b)
{
    assert_true(a->objective == b->objective);
    assert_int_equal(a->group_count, b->group_count);
    assert_int_equal(a->flow_count, b->flow_count);
    assert_memory_equal(a->groups, b->groups, a->group_count * sizeof *a->groups);
    for (uint32_t i = 0; i < a->flow_count; i++) {
        assert_int_equal(a->flows[i].prefill, b->flows[i].prefill);
        assert_int_equal(a->flows[i].decode, b->flows[i].decode);
        assert_true(a->flows[i].rate == b->flows[i].rate);
    }
}

#define WORK 3000

static void test_cuts_do_not_matter(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|2xA5000+2x3090Ti|4xA6000", 40),
                         PLANNER_FIXTURE_CONVERSATION, 6);
    struct ts_plan *whole = run(&plan_algorithm_thunder, &f.problem, WORK, WORK);
    struct ts_plan *cut = run(&plan_algorithm_thunder, &f.problem, 37, WORK / 37 * 37);
    struct plan_search *search = plan_algorithm_thunder.open(&f.problem, NULL);
    double before = 0;
    check(&f, whole);
    for (uint64_t spent = 0; spent < WORK / 37 * 37; spent += 37) {
        plan_algorithm_thunder.step(search, 37);
        if (spent % (37 * 20) != 0)
            continue;
        struct ts_plan *plan = plan_algorithm_thunder.best(search); /* asking changes nothing */
        if (plan) {
            check(&f, plan);
            assert_true(plan->objective >= before - 1e-9);
            before = plan->objective;
        }
        ts_plan_destroy(&plan);
    }
    struct ts_plan *asked = plan_algorithm_thunder.best(search);
    plan_algorithm_thunder.close(&search);
    assert_same_plan(cut, asked);
    assert_true(whole->objective >= cut->objective - 1e-9);
    struct ts_plan *again = run(&plan_algorithm_thunder, &f.problem, WORK, WORK);
    assert_same_plan(whole, again);
    ts_plan_destroy(&whole);
    ts_plan_destroy(&cut);
    ts_plan_destroy(&asked);
    ts_plan_destroy(&again);
    planner_fixture_fini(&f);
}

/* On random clusters that branch and bound solves. */
static void test_equals_the_optimum(void **unused)
{
    (void)unused;
    uint32_t compared = 0;
    for (uint64_t seed = 200; seed < 208; seed++) {
        struct planner_fixture f;
        planner_fixture_random(&f, seed, 4, 6);
        f.problem.colocate = seed % 3 != 0;
        struct ts_plan *optimum = NULL, *plan = NULL;
        if (plan_problem_check(&f.problem, NULL) == TS_OK) {
            optimum = run(&plan_algorithm_exhaustive, &f.problem, 1000, UINT64_MAX);
            plan = plan_of(&f.problem);
        }
        if (optimum && plan) {
            compared++;
            check(&f, plan);
            if (fabs(plan->objective - optimum->objective) > 1e-6 * optimum->objective)
                fail_msg("seed %d: %.9f, the optimum is %.9f", (int)seed, plan->objective,
                         optimum->objective);
        }
        ts_plan_destroy(&optimum);
        ts_plan_destroy(&plan);
        planner_fixture_fini(&f);
    }
    assert_true(compared >= 5);
}

static void assert_same_groups(const struct ts_plan *a, const struct ts_plan *b, bool phases)
{
    assert_int_equal(a->group_count, b->group_count);
    for (uint32_t i = 0; i < a->group_count; i++) {
        assert_memory_equal(a->groups[i].stages, b->groups[i].stages, sizeof a->groups[i].stages);
        if (phases)
            assert_int_equal(a->groups[i].phase, b->groups[i].phase);
    }
}

static void test_depths(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|4xA40|4xA6000|4xA6000", 40),
                         PLANNER_FIXTURE_CODING, 5);
    struct ts_plan *current = run(&plan_algorithm_thunder, &f.problem, 500, 3000);
    check(&f, current);
    /* Another workload comes. */
    f.demand = planner_fixture_demand(PLANNER_FIXTURE_CONVERSATION, 4, 9, 5);
    f.problem.current = current;
    f.problem.depth = PLAN_REROUTE;
    struct ts_plan *routed = plan_of(&f.problem);
    check(&f, routed);
    assert_same_groups(current, routed, true);
    f.problem.depth = PLAN_FLIP;
    struct ts_plan *flipped = plan_of(&f.problem);
    check(&f, flipped);
    assert_same_groups(current, flipped, false);
    assert_true(flipped->objective >= routed->objective - 1e-9);
    f.problem.depth = PLAN_REGROUP;
    struct ts_plan *regrouped = run(&plan_algorithm_thunder, &f.problem, 500, 3000);
    check(&f, regrouped);
    assert_true(regrouped->objective >= routed->objective - 1e-9);
    /* A device dies: its group is left out, the others stay. */
    uint32_t dead = current->groups[0].stages[0].gpus[0];
    f.cluster->gpus[dead].alive = false;
    assert_int_equal(ts_cluster_seal(f.cluster, NULL), TS_OK);
    f.problem.depth = PLAN_FLIP;
    struct ts_plan *left = plan_of(&f.problem);
    check(&f, left);
    assert_int_equal(left->group_count, current->group_count - 1);
    assert_memory_equal(left->groups[0].stages, current->groups[1].stages, sizeof left->groups[0].stages);
    ts_plan_destroy(&current);
    ts_plan_destroy(&routed);
    ts_plan_destroy(&flipped);
    ts_plan_destroy(&regrouped);
    ts_plan_destroy(&left);
    planner_fixture_fini(&f);
}

/* A start from elsewhere is never made worse. */
static void test_added_start(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|4xA6000", 40), PLANNER_FIXTURE_CODING, 3);
    struct ts_plan *plan = plan_of(&f.problem);
    f.problem.seed = 2;
    struct plan_search *search = plan_algorithm_thunder.open(&f.problem, NULL);
    plan_thunder_add_start(search, plan);
    struct ts_plan *other;
    while (!(other = plan_algorithm_thunder.best(search)))
        plan_algorithm_thunder.step(search, 1);
    ts_plan_destroy(&other);
    plan_algorithm_thunder.step(search, 400);
    other = plan_algorithm_thunder.best(search);
    char words[120];
    plan_algorithm_thunder.describe(search, words, sizeof words);
    assert_non_null(strstr(words, "best"));
    assert_true(other->objective >= plan->objective - 1e-9);
    plan_algorithm_thunder.close(&search);
    ts_plan_destroy(&plan);
    ts_plan_destroy(&other);
    planner_fixture_fini(&f);
}

/* More effort begins with the same run, and what it adds is kept only when it is better. */
static void test_effort(void **unused)
{
    (void)unused;
    for (double rate = 2; rate <= 8; rate *= 2) {
        struct planner_fixture f;
        planner_fixture_init(&f, planner_fixture_cluster("4xA40|2xA5000+2x3090Ti|4xA6000", 40),
                             PLANNER_FIXTURE_CODING, rate);
        struct plan_search *usual = plan_algorithm_thunder.open(&f.problem, NULL);
        struct plan_problem more = f.problem;
        more.effort = 3;
        plan_algorithm_thunder.step(usual, UINT64_MAX);
        struct ts_plan *plan = plan_algorithm_thunder.best(usual), *other = plan_of(&more);
        check(&f, other);
        if (other->objective < plan->objective - 0.01)
            fail_msg("rate %g: %.9g with effort 3, %.9g with 1", rate, other->objective, plan->objective);
        plan_algorithm_thunder.close(&usual);
        ts_plan_destroy(&plan);
        ts_plan_destroy(&other);
        planner_fixture_fini(&f);
    }
}

static void solve_odd(const char *cluster, double gbit, bool colocate, bool served)
{
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster(cluster, gbit), PLANNER_FIXTURE_CODING, 0.2);
    f.problem.colocate = colocate;
    struct ts_plan *plan = plan_of(&f.problem);
    if (served) {
        check(&f, plan);
        assert_true(plan->objective > 0.3);
    } else {
        assert_true(!plan || plan->objective == 0);
    }
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
}

static void test_odd_problems(void **unused)
{
    (void)unused;
    solve_odd("1xA100", 40, true, true);
    solve_odd("1xA100", 40, false, false);           /* one group cannot do both phases apart */
    solve_odd("1x3090Ti|1x3090Ti", 40, true, false); /* holds no model */
    solve_odd("4xA100|4xA100", 0, true, true);       /* no network: each node for itself */
    solve_odd("2xA100|2xA100", 0, false, true);
}

static void big_cluster(struct planner_fixture *f, int nodes, double rate)
{
    static const char *const types[] = {"A40", "A6000", "A5000", "3090Ti", "A100"};
    char spec[4096] = "";
    for (int i = 0; i < nodes; i++) {
        strcat(spec, i ? "|8x" : "8x");
        strcat(spec, types[i % 5]);
    }
    planner_fixture_init(f, planner_fixture_cluster(spec, 40), PLANNER_FIXTURE_CONVERSATION, rate);
}

/* An answer, soon, and a valid one. */
static void test_thousand_devices(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    big_cluster(&f, 125, 400);
    struct plan_search *search = plan_algorithm_thunder.open(&f.problem, NULL);
    search->effort_most = 60; /* enough for a plan */
    while (!plan_algorithm_thunder.step(search, 500)) {
    }
    struct ts_plan *plan = plan_algorithm_thunder.best(search);
    check(&f, plan);
    assert_true(plan->objective > 0.2);
    ts_plan_destroy(&plan);
    plan_algorithm_thunder.close(&search);
    planner_fixture_fini(&f);
}

/* While the small cluster is searched there is a plan of the large one, and asking for it changes nothing. */
static void test_plan_while_scaled(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    big_cluster(&f, 15, 60);
    struct ts_plan *plans[2];
    for (int asked = 0; asked < 2; asked++) {
        struct plan_search *search = plan_algorithm_thunder.open(&f.problem, NULL);
        plan_algorithm_thunder.step(search, 300);
        assert_true(search->scale && search->best_objective < 0);
        if (asked) {
            struct ts_plan *early = plan_algorithm_thunder.best(search);
            check(&f, early);
            assert_true(early->objective > 0);
            ts_plan_destroy(&early);
        }
        while (search->best_objective < 0)
            plan_algorithm_thunder.step(search, 50);
        plans[asked] = plan_algorithm_thunder.best(search);
        plan_algorithm_thunder.close(&search);
    }
    assert_same_plan(plans[0], plans[1]);
    ts_plan_destroy(&plans[0]);
    ts_plan_destroy(&plans[1]);
    planner_fixture_fini(&f);
}

/* A large cluster is searched by way of a small one, to the end. */
static void test_scaled(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    big_cluster(&f, 15, 60);
    struct plan_search *search = plan_algorithm_thunder.open(&f.problem, NULL);
    search->effort_most = 400;
    assert_non_null(search->scale);
    while (search->best_objective < 0)
        assert_false(plan_algorithm_thunder.step(search, 50));
    struct ts_plan *first = plan_algorithm_thunder.best(search);
    while (!plan_algorithm_thunder.step(search, 500)) {
    }
    assert_null(search->scale);
    struct ts_plan *plan = plan_algorithm_thunder.best(search);
    check(&f, plan);
    assert_true(plan->objective >= first->objective);
    ts_plan_destroy(&first);
    ts_plan_destroy(&plan);
    plan_algorithm_thunder.close(&search);
    planner_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_do_not_matter),
        cmocka_unit_test(test_equals_the_optimum),
        cmocka_unit_test(test_depths),
        cmocka_unit_test(test_added_start),
        cmocka_unit_test(test_effort),
        cmocka_unit_test(test_odd_problems),
        cmocka_unit_test(test_thousand_devices),
        cmocka_unit_test(test_plan_while_scaled),
        cmocka_unit_test(test_scaled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
