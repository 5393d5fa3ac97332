/* The bound: never below any plan, falls with work, and its parts against independent computations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/bound/plan_bound.h"
#include "services/planner/bound/plan_bound_kinds.h"
#include "services/planner/eval/plan_lp.h"
#include "services/planner/plan_algorithm.h"
#include "tests/planner/planner_fixture.h"

static double plan_of(const struct plan_problem *problem, const struct plan_algorithm *algorithm,
                      uint64_t budget)
{
    struct ts_error err = {.text = ""};
    struct plan_search *search = algorithm->open(problem, &err);
    if (search == NULL)
        fail_msg("%s does not open: %s", algorithm->name, err.text);
    (void)algorithm->step(search, budget);
    struct ts_plan *plan = algorithm->best(search);
    double objective = plan != NULL ? plan->objective : 0;
    if (plan != NULL)
        ts_plan_destroy(&plan);
    algorithm->close(&search);
    return objective;
}

/* Steps to the end; on the way the bound only falls. */
static double bound_of(const struct plan_problem *problem, uint64_t budget)
{
    struct plan_shapes *shapes = plan_shapes_new(problem);
    struct plan_bound *bound = plan_bound_new(shapes);
    double value = plan_bound_value(bound);
    bool done = false;
    while (!done) {
        done = plan_bound_step(bound, budget);
        double next = plan_bound_value(bound);
        if (!(next <= value))
            fail_msg("the bound rose from %.10g to %.10g", value, next);
        value = next;
    }
    plan_bound_destroy(&bound);
    plan_shapes_destroy(&shapes);
    return value;
}

static void bound_above_optimum(enum plan_objective objective, uint64_t seeds)
{
    uint32_t compared = 0;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 1, 7);
        fixture.problem.objective = objective;
        if (plan_problem_check(&fixture.problem, NULL) == TS_OK) {
            double optimum = plan_of(&fixture.problem, &plan_algorithm_exhaustive, UINT64_MAX);
            double bound = bound_of(&fixture.problem, 500);
            if (!(bound >= optimum))
                fail_msg("seed %llu: optimum %.10g, bound %.10g", (unsigned long long)seed, optimum, bound);
            ++compared;
        }
        planner_fixture_fini(&fixture);
    }
    assert_true(compared * 4 >= seeds * 3);
}

static void test_above_optimum(void **unused)
{
    (void)unused;
    bound_above_optimum(PLAN_ATTAINMENT, 40);
}

static void test_above_optimum_goodput(void **unused)
{
    (void)unused;
    bound_above_optimum(PLAN_GOODPUT, 20);
}

static void test_above_search(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 16, 40);
        double found = plan_of(&fixture.problem, &plan_algorithm_thunder, 2000);
        double bound = bound_of(&fixture.problem, 20000);
        if (!(bound >= found))
            fail_msg("seed %llu: thunder %.10g, bound %.10g", (unsigned long long)seed, found, bound);
        planner_fixture_fini(&fixture);
    }
}

/* One replica that must do everything: with equal devices there is nothing left to relax but its phase. */
static void test_tight_when_saturated(void **unused)
{
    (void)unused;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_cluster("8xA100", 100), PLANNER_FIXTURE_CODING, 60);
    double found = plan_of(&fixture.problem, &plan_algorithm_exhaustive, UINT64_MAX);
    double bound = bound_of(&fixture.problem, 20000);
    assert_true(found > 0.05 && bound >= found && bound <= found * 1.1);
    planner_fixture_fini(&fixture);
}

/* --- Parts --- */

static void random_prices(struct ts_rng *rng, struct plan_bound_prices *prices)
{
    *prices = (struct plan_bound_prices){.scale = 1 + ts_rng_unit(rng)};
    for (uint32_t k = 0; k < TS_CLASSES_MAX; ++k) {
        prices->serve[k] = 0.6 * ts_rng_unit(rng);
        prices->feed[k] = ts_rng_unit(rng);
    }
}

static double worth_by_program(const struct plan_bound_item *item, const struct plan_bound_prices *prices)
{
    struct plan_lp *lp = plan_lp_new();
    struct plan_lp_term terms[PLAN_BOUND_USES];
    for (uint32_t r = 0; r < PLAN_BOUND_USES; ++r)
        (void)plan_lp_add_row(lp, 1);
    for (uint32_t i = 0; i < item->count; ++i) {
        const struct plan_bound_flow *flow = &item->flows[i];
        double feed = prices->feed[flow->length_class], serve = prices->serve[flow->length_class];
        double profit = prices->scale * flow->gain;
        profit +=
            item->phase == TS_PHASE_PREFILL ? feed : -serve - (item->phase == TS_PHASE_DECODE ? feed : 0);
        for (uint32_t r = 0; r < PLAN_BOUND_USES; ++r)
            terms[r] = (struct plan_lp_term){r, flow->use[r]};
        (void)plan_lp_add_column(lp, profit, terms, PLAN_BOUND_USES);
    }
    assert_true(plan_lp_solve(lp, NULL) == TS_OK);
    double objective = plan_lp_objective(lp);
    plan_lp_destroy(&lp);
    return objective;
}

static void test_worth(void **unused)
{
    (void)unused;
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 8, 16);
        struct plan_bound_kinds kinds;
        plan_bound_kinds_init(&kinds, &fixture.problem);
        for (uint32_t phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; ++phase) {
            uint8_t stages[4] = {0};
            stages[3] = (uint8_t)(kinds.kind_count - 1);
            struct plan_bound_item item;
            plan_bound_kinds_item(&kinds, stages, 4, (enum ts_phase)phase, &item);
            for (int i = 0; i < 20; ++i) {
                struct plan_bound_prices prices;
                struct plan_bound_pattern pattern;
                random_prices(&rng, &prices);
                double worth = plan_bound_item_worth(&item, &prices, &pattern);
                double want = worth_by_program(&item, &prices);
                double paid = prices.scale * pattern.gain;
                for (uint32_t k = 0; k < TS_CLASSES_MAX; ++k)
                    paid -= prices.serve[k] * pattern.serve[k] + prices.feed[k] * pattern.feed[k];
                assert_true(fabs(worth - want) <= 1e-7 * fmax(1e-3, want));
                assert_true(fabs(paid - want) <= 1e-7 * fmax(1e-3, want)); /* and the pattern earns it */
            }
            plan_bound_item_fini(&item);
        }
        plan_bound_kinds_fini(&kinds);
        planner_fixture_fini(&fixture);
    }
}

/* A replica of unlike stages, cut at random, is never worth more than the bound's idea of those stages. */
static void test_unlike_stages(void **unused)
{
    (void)unused;
    struct ts_rng rng;
    ts_rng_init(&rng, 9);
    uint32_t compared = 0;
    for (uint32_t round = 0; round < 300; ++round) {
        static const char *const specs[] = {"1xA40|1xA6000|1x3090Ti", "1xA100|1xL4|1xA5000",
                                            "1xH100|1x4090|1xA40"};
        struct planner_fixture fixture;
        planner_fixture_init(&fixture, planner_fixture_cluster(specs[round % 3], 100),
                             round % 2 == 0 ? PLANNER_FIXTURE_CODING : PLANNER_FIXTURE_CONVERSATION, 2);
        if (round % 5 != 0)
            fixture.model = planner_fixture_llama_8b();
        uint32_t layers = fixture.model.layers, first = 1 + (uint32_t)ts_rng_below(&rng, layers / 2);
        uint32_t second = 1 + (uint32_t)ts_rng_below(&rng, layers - first - 1);
        struct ts_group given = {.phase = (enum ts_phase)(1 + round / 3 % 3), .stage_count = 3};
        uint32_t shift = (uint32_t)ts_rng_below(&rng, 3), cuts[3] = {first, second, layers - first - second};
        for (uint32_t i = 0; i < 3; ++i)
            given.stages[i] = (struct ts_stage){.gpus = {(i + shift) % 3}, .tp = 1, .layers = cuts[i]};
        struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
        struct plan_group group;
        if (plan_shape_of_group(shapes, &given, &group, NULL)) {
            struct plan_bound_kinds kinds;
            struct plan_bound_item real, ideal;
            plan_bound_kinds_init(&kinds, &fixture.problem);
            assert_int_equal(kinds.kind_count, 3);
            plan_bound_item_init(&real, group.phase);
            plan_bound_item_add(&real, &fixture.problem, &kinds.ideal, group.shape);
            plan_bound_kinds_item(&kinds, (const uint8_t[]){0, 1, 2}, 3, group.phase, &ideal);
            for (int i = 0; i < 10; ++i) {
                struct plan_bound_prices prices;
                random_prices(&rng, &prices);
                double a = plan_bound_item_worth(&real, &prices, NULL);
                double b = plan_bound_item_worth(&ideal, &prices, NULL);
                if (a > b * (1 + 1e-9) + 1e-12)
                    fail_msg("round %u: phase %d, layers %u %u %u: %.10g, bound %.10g", round,
                             (int)group.phase, cuts[0], cuts[1], cuts[2], a, b);
            }
            plan_bound_item_fini(&real);
            plan_bound_item_fini(&ideal);
            plan_bound_kinds_fini(&kinds);
            ++compared;
        }
        plan_shapes_destroy(&shapes);
        planner_fixture_fini(&fixture);
    }
    assert_true(compared >= 100);
}

/* The blend so many steps above a kind, or as many as there are. */
static uint32_t blend_with(const struct plan_bound_kinds *kinds, uint32_t kind, uint32_t above)
{
    uint32_t found = kind;
    for (uint32_t i = kinds->kind_count; i < kinds->kind_count + kinds->blend_count && above > 0; ++i) {
        if ((kinds->kinds[i].members[kind / 64] >> (kind % 64) & 1) != 0) {
            found = i;
            --above;
        }
    }
    return found;
}

/* A blend is at least as good as each of its kinds, so a set of blends as every set that it stands for. */
static void test_blends(void **unused)
{
    (void)unused;
    struct ts_rng rng;
    ts_rng_init(&rng, 3);
    uint32_t joined = 0;
    for (uint64_t seed = 1; seed <= 12; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 24, 32);
        struct plan_bound_kinds kinds;
        plan_bound_kinds_init(&kinds, &fixture.problem);
        joined += kinds.blend_count;
        for (uint32_t i = 0; i < 30; ++i) {
            uint8_t stages[5], blends[5];
            uint32_t count = 2 + (uint32_t)ts_rng_below(&rng, 4);
            for (uint32_t s = 0; s < count; ++s) {
                stages[s] = (uint8_t)ts_rng_below(&rng, kinds.kind_count);
                blends[s] = (uint8_t)blend_with(&kinds, stages[s], (uint32_t)ts_rng_below(&rng, 3));
            }
            enum ts_phase phase = (enum ts_phase)(1 + i % 3);
            struct plan_bound_item real, blend;
            struct plan_bound_prices prices;
            plan_bound_kinds_item(&kinds, stages, count, phase, &real);
            plan_bound_kinds_item(&kinds, blends, count, phase, &blend);
            random_prices(&rng, &prices);
            double a = plan_bound_item_worth(&real, &prices, NULL);
            double b = plan_bound_item_worth(&blend, &prices, NULL);
            /* Operating points of decode are sparse, those of both phases sparser: a little falls between. */
            static const double slacks[] = {0, 1e-9, 2e-3, 0.02};
            double slack = slacks[phase];
            if (a > b * (1 + slack) + 1e-12)
                fail_msg("seed %llu, set %u: %.10g, its blends %.10g", (unsigned long long)seed, i, a, b);
            plan_bound_item_fini(&real);
            plan_bound_item_fini(&blend);
        }
        plan_bound_kinds_fini(&kinds);
        planner_fixture_fini(&fixture);
    }
    assert_true(joined > 20);
}

/* --- Money --- */

/* No column at all. */
static void test_nothing_in_time(void **unused)
{
    (void)unused;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_cluster("2xA40|2xA6000", 10), PLANNER_FIXTURE_CODING, 2);
    for (uint32_t k = 0; k < fixture.demand.class_count; ++k)
        fixture.demand.classes[k].e2e_s = 1e-3;
    for (int objective = PLAN_ATTAINMENT; objective <= PLAN_GOODPUT; ++objective) {
        fixture.problem.objective = (enum plan_objective)objective;
        double bound = bound_of(&fixture.problem, 50);
        assert_true(bound >= 0 && bound < 1e-6);
        assert_true(plan_of(&fixture.problem, &plan_algorithm_exhaustive, UINT64_MAX) == 0);
    }
    planner_fixture_fini(&fixture);
}

static void test_budget(void **unused)
{
    (void)unused;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CONVERSATION, 12);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    struct plan_bound *bound = plan_bound_new(shapes);
    double whole = ts_cluster_price_per_hour(fixture.cluster), last = 0;
    for (int i = 1; i <= 4; ++i) {
        double counts[4], dollars = whole * i / 4, spent = 0;
        double value = plan_bound_budget(bound, dollars, counts);
        assert_true(value >= last * (1 - 1e-5) && value > 0);
        for (uint32_t t = 0; t < 4; ++t) {
            assert_true(counts[t] >= -1e-9 && counts[t] <= 8 + 1e-6);
            spent += counts[t] * fixture.cluster->types[t].price_per_hour;
        }
        assert_true(spent <= dollars * (1 + 1e-6));
        last = value;
    }
    double free_value = plan_bound_budget(bound, 0, NULL);
    assert_true(fabs(free_value - last) <= 1e-4 * last);
    plan_bound_destroy(&bound);
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_above_optimum), cmocka_unit_test(test_above_optimum_goodput),
        cmocka_unit_test(test_above_search),  cmocka_unit_test(test_tight_when_saturated),
        cmocka_unit_test(test_worth),         cmocka_unit_test(test_unlike_stages),
        cmocka_unit_test(test_blends),        cmocka_unit_test(test_nothing_in_time),
        cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
