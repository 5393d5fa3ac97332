/* `uniform`: every usable pair of a prefill and a decode worker of one model has the same share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "services/planner/planner_algorithm.h"

#define W(name, its_model, its_phase)                                                                        \
    {                                                                                                        \
        .id = {name, 2}, .model = {its_model, 1}, .phase = its_phase, .ready = true                          \
    }
#define P(name) W(name, "m", TS_PHASE_PREFILL)
#define D(name) W(name, "m", TS_PHASE_DECODE)

struct uniform_case {
    const char *name;
    struct ts_plan_worker workers[5];
    uint32_t count, replicas;
    const char *pairs; /* prefill and decode replica ids, in order */
};

static const struct uniform_case cases[] = {
    {"nobody", {{.phase = 0}}, 0, 0, ""},
    {"prefill only", {P("p0")}, 1, 1, ""},
    {"one pair", {P("p0"), D("d0")}, 2, 2, "01"},
    {"order", {D("d0"), P("p0")}, 2, 2, "10"},
    {"two by two", {P("p0"), P("p1"), D("d0"), D("d1")}, 4, 4, "02031213"},
    {"both phases", {W("b0", "m", TS_PHASE_BOTH), D("d0")}, 2, 2, "0001"},
    {"two models",
     {P("p0"), W("p1", "n", TS_PHASE_PREFILL), D("d0"), W("d1", "n", TS_PHASE_DECODE)},
     4,
     4,
     "0213"},
    {"not ready",
     {P("p0"), D("d0"), {.id = {"d1", 2}, .model = {"m", 1}, .phase = TS_PHASE_DECODE}},
     3,
     2,
     "01"},
    {"draining",
     {P("p0"),
      {.id = {"d0", 2}, .model = {"m", 1}, .phase = TS_PHASE_DECODE, .ready = true, .draining = true},
      D("d1")},
     3,
     2,
     "02"},
    {"idle phase", {P("p0"), W("x0", "m", TS_PHASE_NONE), D("d0")}, 3, 3, "02"},
};

static void check_case(const struct uniform_case *c)
{
    const struct ts_msg_snapshot snapshot = {.workers = {c->workers, c->count}};
    struct ts_msg_plan plan = {.term = 0};
    struct ts_arena arena;
    ts_arena_init(&arena);
    struct planner_search *search = plan_uniform.open(&snapshot);
    assert_true(plan_uniform.step(search, 1));
    bool found = plan_uniform.best(search, &arena, &plan);
    size_t pairs = strlen(c->pairs) / 2;
    double sum = 0;
    if (found != (pairs > 0) || plan.shares.count != pairs || plan.replicas.count != c->replicas)
        fail_msg("%s: found %d, %u shares, %u replicas", c->name, found, plan.shares.count,
                 plan.replicas.count);
    for (uint32_t i = 0; i < plan.shares.count; i++) {
        const struct ts_plan_share *z = &plan.shares.data[i];
        if (z->prefill != (uint32_t)(c->pairs[2 * i] - '0') ||
            z->decode != (uint32_t)(c->pairs[2 * i + 1] - '0'))
            fail_msg("%s: share %u is of %u and %u", c->name, i, z->prefill, z->decode);
        assert_true(z->share == plan.shares.data[0].share && z->codec.count == 0 && z->length_class == 0);
        sum += z->share;
    }
    if (found)
        assert_true(sum > 0.999999 && sum < 1.000001);
    for (uint32_t i = 0; i < plan.replicas.count; i++) {
        const struct ts_plan_worker *w = &c->workers[plan.replicas.data[i].id];
        assert_true(ts_str_equal(plan.replicas.data[i].worker, w->id));
        assert_int_equal(plan.replicas.data[i].phase, w->phase);
    }
    plan_uniform.close(&search);
    assert_null(search);
    ts_arena_fini(&arena);
}

static void test_shares(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++)
        check_case(&cases[i]);
}

static void test_find(void **state)
{
    (void)state;
    assert_ptr_equal(planner_algorithm_find("uniform"), &plan_uniform);
    assert_null(planner_algorithm_find("Uniform"));
    assert_null(planner_algorithm_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares), cmocka_unit_test(test_find)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
