/* The exhaustive search: against a naive enumeration without any pruning, and identities of the optimum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"
#include "tests/planner/planner_fixture.h"

#define ALL UINT64_MAX

static double optimum_of(const struct plan_problem *problem, const struct plan_algorithm *algorithm,
                         char *words, size_t size)
{
    struct ts_error err = {.text = ""};
    struct plan_search *search = algorithm->open(problem, &err);
    if (search == NULL)
        fail_msg("%s does not open: %s", algorithm->name, err.text);
    while (!algorithm->step(search, 100000)) {
    }
    if (words != NULL)
        algorithm->describe(search, words, size);
    struct ts_plan *plan = algorithm->best(search);
    double objective = plan != NULL ? plan->objective : 0;
    if (plan != NULL) {
        assert_true(ts_plan_check(plan, problem->cluster, problem->model, problem->demand, &err) == TS_OK);
        ts_plan_destroy(&plan);
    }
    algorithm->close(&search);
    return objective;
}

static double optimum(const struct plan_problem *problem)
{
    return optimum_of(problem, &plan_algorithm_exhaustive, NULL, 0);
}

/* --- The naive enumeration: every multiset of groups that fits --- */

#define NAIVE_CELLS   4
#define NAIVE_OPTIONS 600

struct naive {
    const struct plan_problem *problem;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_group options[NAIVE_OPTIONS];
    uint32_t option_count;
    uint32_t left[NAIVE_CELLS];
    struct plan_state state;
    double best;
    uint64_t tried;
};

static void naive_phases(struct naive *naive, const struct plan_group *group)
{
    for (uint32_t phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH && group->part_count > 0; ++phase) {
        struct plan_group one = *group;
        one.phase = (enum ts_phase)phase;
        if ((phase != TS_PHASE_BOTH || naive->problem->colocate) && plan_shape_find(naive->shapes, &one)) {
            assert_true(naive->option_count < NAIVE_OPTIONS);
            naive->options[naive->option_count++] = one;
        }
    }
}

/* Any number of stages of each TP degree from each cell. */
static void naive_options(struct naive *naive, uint32_t cell, uint32_t tp, uint32_t left,
                          const struct plan_group *group)
{
    const struct ts_cluster *cluster = naive->problem->cluster;
    if (cell == cluster->cell_count) {
        naive_phases(naive, group);
        return;
    }
    for (uint32_t count = 0; count <= left; count += tp) {
        struct plan_group more = *group;
        if (count > 0)
            more.parts[more.part_count++] =
                (struct plan_part){.cell = (uint16_t)cell, .count = (uint8_t)count, .tp = (uint8_t)tp};
        uint32_t next = cell + 1 < cluster->cell_count ? cluster->cells[cell + 1].count : 0;
        if (tp > 1)
            naive_options(naive, cell, tp / 2, left - count, &more);
        else
            naive_options(naive, cell + 1, TS_TP_MAX, next, &more);
    }
}

static void naive_walk(struct naive *naive, uint32_t first)
{
    if (naive->state.count > 0) {
        naive->best = fmax(naive->best, plan_eval_run(naive->eval, &naive->state, NULL));
        ++naive->tried;
    }
    for (uint32_t i = first; i < naive->option_count; ++i) {
        const struct plan_group *group = &naive->options[i];
        uint32_t taken[NAIVE_CELLS] = {0};
        bool fits = true;
        for (uint32_t p = 0; p < group->part_count; ++p) {
            uint16_t cell = group->parts[p].cell;
            taken[cell] += group->parts[p].count;
            fits = fits && taken[cell] <= naive->left[cell];
        }
        if (!fits)
            continue;
        for (uint32_t p = 0; p < group->part_count; ++p)
            naive->left[group->parts[p].cell] -= group->parts[p].count;
        (void)plan_state_add(&naive->state, group);
        naive_walk(naive, i);
        plan_state_remove(&naive->state, naive->state.count - 1);
        for (uint32_t p = 0; p < group->part_count; ++p)
            naive->left[group->parts[p].cell] += group->parts[p].count;
    }
}

static double naive_optimum(const struct plan_problem *problem, uint64_t *tried)
{
    struct naive *naive = ts_xcalloc(1, sizeof *naive);
    struct plan_group none = {.part_count = 0};
    naive->problem = problem;
    naive->shapes = plan_shapes_new(problem);
    naive->eval = plan_eval_new(naive->shapes);
    assert_true(problem->cluster->cell_count <= NAIVE_CELLS);
    for (uint32_t c = 0; c < problem->cluster->cell_count; ++c)
        naive->left[c] = problem->cluster->cells[c].count;
    plan_state_init(&naive->state);
    naive_options(naive, 0, TS_TP_MAX, problem->cluster->cells[0].count, &none);
    naive_walk(naive, 0);
    double best = naive->best;
    *tried = naive->tried;
    plan_state_fini(&naive->state);
    plan_eval_destroy(&naive->eval);
    plan_shapes_destroy(&naive->shapes);
    ts_free(naive);
    return best;
}

static void assert_same(uint64_t seed, double got, double want)
{
    if (!(fabs(got - want) <= 1e-7 * fmax(1, want)))
        fail_msg("seed %llu: %.10g, the naive enumeration finds %.10g", (unsigned long long)seed, got, want);
}

static void test_equals_naive(void **unused)
{
    (void)unused;
    uint32_t compared = 0;
    uint64_t tried = 0;
    for (uint64_t seed = 1; seed <= 32; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 1, 4);
        fixture.problem.colocate = seed % 3 != 0;
        fixture.problem.objective = seed % 4 == 0 ? PLAN_GOODPUT : PLAN_ATTAINMENT;
        if (plan_problem_check(&fixture.problem, NULL) == TS_OK) {
            double want = naive_optimum(&fixture.problem, &tried);
            assert_same(seed, optimum(&fixture.problem), want);
            ++compared;
        }
        planner_fixture_fini(&fixture);
    }
    assert_true(compared >= 22);
}

/* Equal nodes are where symmetry is broken: nothing may be lost, and most must not be looked at. */
static void test_equal_nodes(void **unused)
{
    (void)unused;
    static const char *const specs[] = {"1xA100|1xA100|1xA100|1xA100", "2xA6000|2xA6000",
                                        "1xA40|1xA40|2xA6000", "1xA6000+1xA40|1xA6000+1xA40"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; ++i) {
        struct planner_fixture fixture;
        planner_fixture_init(&fixture, planner_fixture_cluster(specs[i], 10), PLANNER_FIXTURE_CONVERSATION,
                             3);
        fixture.model = planner_fixture_llama_8b();
        uint64_t tried = 0;
        unsigned long long evaluations = ALL;
        char words[200];
        double got = optimum_of(&fixture.problem, &plan_algorithm_exhaustive, words, sizeof words);
        assert_same(i, got, naive_optimum(&fixture.problem, &tried));
        assert_int_equal(1, sscanf(strstr(words, "evaluations"), "evaluations %llu", &evaluations));
        if (evaluations * 4 > tried)
            fail_msg("%s: %llu evaluations, the naive enumeration has %llu", specs[i], evaluations,
                     (unsigned long long)tried);
        planner_fixture_fini(&fixture);
    }
}

static void test_no_search_is_better(void **unused)
{
    (void)unused;
    uint32_t compared = 0;
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 2, 6);
        if (plan_problem_check(&fixture.problem, NULL) == TS_OK) {
            ++compared;
            double best = optimum(&fixture.problem);
            double found = optimum_of(&fixture.problem, &plan_algorithm_thunder, NULL, 0);
            if (found > best * (1 + 1e-7) + 1e-9)
                fail_msg("seed %llu: thunder %.10g, exhaustive %.10g", (unsigned long long)seed, found, best);
        }
        planner_fixture_fini(&fixture);
    }
    assert_true(compared >= 20);
}

static void test_loss_of_a_device(void **unused)
{
    (void)unused;
    uint32_t compared = 0;
    for (uint64_t seed = 1; seed <= 25; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 3, 6);
        if (plan_problem_check(&fixture.problem, NULL) == TS_OK) {
            double before = optimum(&fixture.problem);
            fixture.cluster->gpus[seed % fixture.cluster->gpu_count].alive = false;
            assert_true(ts_cluster_seal(fixture.cluster, NULL) == TS_OK);
            if (plan_problem_check(&fixture.problem, NULL) == TS_OK) {
                double after = optimum(&fixture.problem);
                compared += before > after; /* and some devices are missed */
                if (after > before * (1 + 1e-7) + 1e-9)
                    fail_msg("seed %llu: %.10g with all devices, %.10g without one", (unsigned long long)seed,
                             before, after);
            }
        }
        planner_fixture_fini(&fixture);
    }
    assert_true(compared >= 10);
}

/* However the steps are cut, the same nodes are looked at in the same order. */
static void test_steps(void **unused)
{
    (void)unused;
    struct planner_fixture fixture;
    planner_fixture_random(&fixture, 3, 4, 8);
    char whole[200], cut[200];
    double best = optimum_of(&fixture.problem, &plan_algorithm_exhaustive, whole, sizeof whole);
    struct plan_search *search = plan_algorithm_exhaustive.open(&fixture.problem, NULL);
    uint32_t steps = 0;
    double last = 0;
    while (!plan_algorithm_exhaustive.step(search, 7)) {
        if (++steps % 500 != 0)
            continue;
        struct ts_plan *plan = plan_algorithm_exhaustive.best(search);
        if (plan != NULL) {
            assert_true(plan->objective >= last && plan->objective <= best + 1e-12);
            assert_true(plan->bound >= best - 1e-9);
            last = plan->objective;
            ts_plan_destroy(&plan);
        }
    }
    assert_true(steps > 100);
    plan_algorithm_exhaustive.describe(search, cut, sizeof cut);
    assert_string_equal(whole, cut);
    plan_algorithm_exhaustive.close(&search);
    planner_fixture_fini(&fixture);
}

static void test_refusals(void **unused)
{
    (void)unused;
    struct planner_fixture fixture;
    struct ts_error err = {.text = ""};
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CODING, 5);
    assert_null(plan_algorithm_exhaustive.open(&fixture.problem, &err));
    assert_non_null(strstr(err.text, "too many to enumerate"));
    planner_fixture_fini(&fixture);
    planner_fixture_init(&fixture, planner_fixture_cluster("4xA100", 40), PLANNER_FIXTURE_CODING, 5);
    fixture.problem.depth = PLAN_FLIP;
    assert_null(plan_algorithm_exhaustive.open(&fixture.problem, &err));
    assert_non_null(strstr(err.text, "regroup"));
    planner_fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_naive),
        cmocka_unit_test(test_equal_nodes),
        cmocka_unit_test(test_no_search_is_better),
        cmocka_unit_test(test_loss_of_a_device),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
