/* Purchases against the enumeration of all of them on small clusters; what holds of every answer; advice. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "planner_fixture.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/money/plan_money.h"

#define EFFORT        4000 /* of one purchase, here and in the enumeration */
#define PURCHASES_MAX 256

struct purchase {
    double price, objective;
};

/* A small world: LLaMA-8B, which one device holds, and more demand than it can serve. */
static void init_world(struct planner_fixture *f, const char *spec)
{
    planner_fixture_init(f, planner_fixture_cluster(spec, 40), PLANNER_FIXTURE_CONVERSATION, 20);
    f->model = planner_fixture_llama_8b();
    f->demand = planner_fixture_demand(PLANNER_FIXTURE_CONVERSATION, 2, 20, 5);
    f->problem.objective = PLAN_GOODPUT;
}

static double search(const struct plan_problem *problem)
{
    struct plan_search *s = plan_algorithm_thunder.open(problem, NULL);
    assert_non_null(s);
    plan_algorithm_thunder.step(s, EFFORT);
    struct ts_plan *plan = plan_algorithm_thunder.best(s);
    double objective = plan ? plan->objective : 0;
    ts_plan_destroy(&plan);
    plan_algorithm_thunder.close(&s);
    return objective;
}

/* Every number of devices of every cell, by the same search. */
static uint32_t enumerate(const struct planner_fixture *f, struct purchase *out)
{
    uint32_t counts[8] = {0}, total = 0, cells = f->cluster->cell_count, at = 0;
    assert_true(cells <= 8);
    do {
        struct ts_cluster *sub = ts_cluster_copy(f->cluster);
        for (uint32_t c = 0, gpu = 0; c < cells; c++) {
            for (uint32_t i = 0; i < f->cluster->cells[c].count; i++, gpu++)
                sub->gpus[gpu].alive = i < counts[c];
        }
        assert_int_equal(ts_cluster_seal(sub, NULL), TS_OK);
        struct plan_problem problem = f->problem;
        problem.cluster = sub;
        if (sub->cell_count > 0 && plan_problem_check(&problem, NULL) == TS_OK) {
            assert_true(total < PURCHASES_MAX);
            out[total++] = (struct purchase){ts_cluster_price_per_hour(sub), search(&problem)};
        }
        ts_cluster_destroy(&sub);
        for (at = 0; at < cells && ++counts[at] > f->cluster->cells[at].count; at++)
            counts[at] = 0;
    } while (at < cells);
    return total;
}

static struct plan_money *solve(const struct planner_fixture *f, struct plan_money_ask ask)
{
    struct ts_error err = {0};
    ask.effort = ask.effort ? ask.effort : EFFORT;
    struct plan_money *money = plan_money_open(&f->problem, &ask, &err);
    if (!money)
        fail_msg("%s", err.text);
    assert_true(plan_money_step(money, UINT64_MAX));
    return money;
}

static void check_target(const struct planner_fixture *f, const struct purchase *all, uint32_t count,
                         double target)
{
    double cheapest = INFINITY;
    struct plan_money *money =
        solve(f, (struct plan_money_ask){.goal = PLAN_MONEY_TARGET, .objective = target});
    const struct plan_money_point *best = plan_money_best(money);
    for (uint32_t i = 0; i < count; i++) {
        if (all[i].objective >= target - 1e-9)
            cheapest = fmin(cheapest, all[i].price);
    }
    assert_non_null(best);
    assert_true(best->objective >= target - 1e-9);
    if (best->dollars_per_hour > cheapest + 1e-6)
        fail_msg("target %g: %g $/h, but %g does", target, best->dollars_per_hour, cheapest);
    assert_true(plan_money_bound(money) <= best->dollars_per_hour + 1e-6);
    plan_money_close(&money);
}

static void check_budget(const struct planner_fixture *f, const struct purchase *all, uint32_t count,
                         double budget)
{
    double most = 0;
    struct plan_money *money =
        solve(f, (struct plan_money_ask){.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = budget});
    const struct plan_money_point *best = plan_money_best(money);
    for (uint32_t i = 0; i < count; i++) {
        if (all[i].price <= budget + 1e-9)
            most = fmax(most, all[i].objective);
    }
    if (most <= 0) {
        assert_null(best);
    } else {
        assert_non_null(best);
        assert_true(best->dollars_per_hour <= budget + 1e-9);
        if (best->objective < most * (1 - 1e-6))
            fail_msg("budget %g: %g, but %g is there", budget, best->objective, most);
        assert_true(plan_money_bound(money) >= best->objective * (1 - 1e-6));
    }
    plan_money_close(&money);
}

static void test_against_enumeration(void **state)
{
    static const char *const specs[] = {"2xA40|2x3090Ti", "2xL4|1xA100|2xA5000", "1xA6000+1xA5000|2x4090"};
    static const double shares[] = {0.25, 0.5, 0.8};
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(specs); i++) {
        struct planner_fixture f;
        struct purchase all[PURCHASES_MAX];
        double most = 0;
        init_world(&f, specs[i]);
        uint32_t count = enumerate(&f, all);
        assert_true(count >= 8);
        for (uint32_t j = 0; j < count; j++)
            most = fmax(most, all[j].objective);
        for (size_t j = 0; j < TS_ARRAY_SIZE(shares); j++) {
            check_target(&f, all, count, shares[j] * most);
            check_budget(&f, all, count, shares[j] * ts_cluster_price_per_hour(f.cluster));
        }
        planner_fixture_fini(&f);
    }
}

static void test_cut_anywhere(void **state)
{
    struct planner_fixture f;
    struct ts_error err = {0};
    struct plan_money_ask ask = {.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = 1, .effort = 500};
    (void)state;
    init_world(&f, "2xA40|2x3090Ti");
    struct plan_money *whole = solve(&f, ask), *cut = plan_money_open(&f.problem, &ask, &err);
    assert_non_null(cut);
    while (!plan_money_step(cut, 137)) {
    }
    const struct plan_money_point *a = plan_money_best(whole), *b = plan_money_best(cut);
    assert_non_null(a);
    assert_non_null(b);
    assert_true(a->objective == b->objective && a->dollars_per_hour == b->dollars_per_hour);
    plan_money_close(&whole);
    plan_money_close(&cut);
    planner_fixture_fini(&f);
}

/* All offers come before the bound, so that whoever stops early has an answer. */
static void test_an_answer_soon(void **state)
{
    struct planner_fixture f;
    struct plan_money_ask ask = {.goal = PLAN_MONEY_TARGET, .objective = 0.01, .effort = 100};
    (void)state;
    init_world(&f, "2xA40|2x3090Ti");
    struct plan_money *money = plan_money_open(&f.problem, &ask, NULL);
    assert_non_null(money);
    assert_false(plan_money_step(money, 700));
    assert_non_null(plan_money_best(money));
    plan_money_close(&money);
    planner_fixture_fini(&f);
}

/* Dearer is better all along, every plan is legal, and no point is above what the bound allows at its price.
 */
static void test_frontier(void **state)
{
    struct planner_fixture f;
    uint32_t count = 0;
    (void)state;
    init_world(&f, "2xA40|2x3090Ti|1xA100");
    struct plan_money *money =
        solve(&f, (struct plan_money_ask){.goal = PLAN_MONEY_FRONTIER, .points = 6, .effort = 1000});
    const struct plan_money_point *points = plan_money_frontier(money, &count);
    assert_true(count >= 4);
    for (uint32_t i = 0; i < count; i++) {
        struct ts_error err = {0};
        const struct ts_plan *plan = points[i].plan;
        if (ts_plan_check(plan, f.cluster, &f.model, &f.demand, &err) != TS_OK)
            fail_msg("%s", err.text);
        assert_float_equal(plan->price_per_hour, points[i].dollars_per_hour, 1e-9);
        assert_float_equal(plan->objective, points[i].objective, 1e-9);
        assert_true(points[i].objective <= points[i].bound * (1 + 1e-6));
        if (i > 0) {
            assert_true(points[i].dollars_per_hour > points[i - 1].dollars_per_hour);
            assert_true(points[i].objective > points[i - 1].objective);
        }
    }
    plan_money_close(&money);
    planner_fixture_fini(&f);
}

/* Devices that are offered and not rented count like the others. */
static void test_offers(void **state)
{
    struct planner_fixture all, offered;
    struct plan_money_ask ask = {.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = 1.2, .effort = 1000};
    (void)state;
    init_world(&all, "2xA40|2x3090Ti");
    init_world(&offered, "2xA40|2x3090Ti");
    for (uint32_t i = 1; i < offered.cluster->gpu_count; i++)
        offered.cluster->gpus[i].alive = false;
    assert_int_equal(ts_cluster_seal(offered.cluster, NULL), TS_OK);
    struct plan_money *a = solve(&all, ask), *b = solve(&offered, ask);
    assert_true(plan_money_best(a)->objective == plan_money_best(b)->objective);
    plan_money_close(&a);
    plan_money_close(&b);
    planner_fixture_fini(&all);
    planner_fixture_fini(&offered);
}

static void test_out_of_reach(void **state)
{
    struct planner_fixture f;
    (void)state;
    init_world(&f, "1xA40|1x3090Ti");
    struct plan_money *money =
        solve(&f, (struct plan_money_ask){.goal = PLAN_MONEY_TARGET, .objective = 1e6, .effort = 500});
    uint32_t count = 0;
    assert_null(plan_money_best(money));
    (void)plan_money_frontier(money, &count);
    assert_true(count > 0); /* what there is instead */
    plan_money_close(&money);
    money = solve(
        &f, (struct plan_money_ask){.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = 0.01, .effort = 500});
    assert_null(plan_money_best(money));
    plan_money_close(&money);
    planner_fixture_fini(&f);
}

static void test_refused(void **state)
{
    static const struct {
        struct plan_money_ask ask;
        const char *words;
    } cases[] = {
        {{.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = -1}, "budget = -1 $/h"},
        {{.goal = PLAN_MONEY_BUDGET, .dollars_per_hour = NAN}, "budget = nan $/h"},
        {{.goal = PLAN_MONEY_TARGET, .objective = 0}, "target = 0"},
        {{.goal = PLAN_MONEY_TARGET, .objective = INFINITY}, "target = inf"},
        {{.goal = PLAN_MONEY_FRONTIER, .points = 100000}, "points = 100000"},
    };
    struct planner_fixture f;
    (void)state;
    init_world(&f, "1xA40|1x3090Ti");
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_error err = {0};
        assert_null(plan_money_open(&f.problem, &cases[i].ask, &err));
        if (!strstr(err.text, cases[i].words))
            fail_msg("\"%s\", expected \"%s\"", err.text, cases[i].words);
    }
    planner_fixture_fini(&f);
}

static struct ts_plan *plan_of(const struct plan_problem *problem)
{
    struct plan_search *s = plan_algorithm_thunder.open(problem, NULL);
    assert_non_null(s);
    plan_algorithm_thunder.step(s, EFFORT);
    struct ts_plan *plan = plan_algorithm_thunder.best(s);
    assert_non_null(plan);
    plan_algorithm_thunder.close(&s);
    return plan;
}

static uint32_t advise(const struct planner_fixture *f, const struct ts_plan *plan, struct plan_advice *out)
{
    uint32_t count = 0;
    struct ts_error err = {0};
    if (plan_money_advise(&f->problem, plan, out, 32, &count, &err) != TS_OK)
        fail_msg("%s", err.text);
    return count;
}

/* Overloaded: any device that can be rented gains, and every group that goes loses. Rents come first, by gain
 * per dollar. */
static void test_advice_when_short(void **state)
{
    struct planner_fixture f;
    struct plan_advice advice[32];
    uint32_t rents = 0, returns = 0;
    (void)state;
    init_world(&f, "2xA40|2x3090Ti");
    f.cluster->gpus[1].alive = f.cluster->gpus[3].alive = false;
    assert_int_equal(ts_cluster_seal(f.cluster, NULL), TS_OK);
    struct ts_plan *plan = plan_of(&f.problem);
    uint32_t count = advise(&f, plan, advice);
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_advice *a = &advice[i];
        assert_float_equal(a->dollars_per_hour, a->count * f.cluster->types[a->type].price_per_hour, 1e-9);
        if (a->rent) {
            assert_true(returns == 0 && a->gain > 0 && a->count == 1);
            if (rents > 0)
                assert_true(a[0].gain / a[0].dollars_per_hour <= a[-1].gain / a[-1].dollars_per_hour);
            rents++;
        } else {
            assert_true(a->gain < 0 && !a->idle && a->group < plan->group_count);
            returns++;
        }
    }
    assert_int_equal(rents, 2);
    assert_true(returns > 0);
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
}

/* Hardly any demand: nothing to rent, devices in no group lose nothing. Where nothing is offered, advice is
 * about nodes like those that are there. */
static void test_advice_when_ample(void **state)
{
    struct planner_fixture f;
    struct plan_advice advice[32];
    bool idle = false;
    (void)state;
    init_world(&f, "2xA40|2x3090Ti");
    f.problem.objective = PLAN_ATTAINMENT;
    struct ts_plan *plan = plan_of(&f.problem);
    uint32_t count = advise(&f, plan, advice);
    assert_true(count > 0 && advice[0].rent); /* 20 requests/s are too many for these four */
    ts_demand_scale_rate(&f.demand, 1e-4);
    ts_plan_destroy(&plan);
    plan = ts_plan_new(1, 0); /* one device serves all */
    plan->groups[0] = (struct ts_group){
        .phase = TS_PHASE_BOTH,
        .stages = {{.gpus = {0}, .tp = 1, .layers = f.model.layers}},
        .stage_count = 1,
    };
    count = advise(&f, plan, advice);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(!advice[i].rent || advice[i].gain < 0.05);
        if (advice[i].idle)
            assert_true(advice[i].gain == 0);
        idle = idle || advice[i].idle;
    }
    assert_true(idle);
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_enumeration),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_an_answer_soon),
        cmocka_unit_test(test_frontier),
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_out_of_reach),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_advice_when_short),
        cmocka_unit_test(test_advice_when_ample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
