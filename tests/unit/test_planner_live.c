/*
 * Snapshots as problems and plans as messages: equal shares where nothing is known, shares after what each
 * worker can do where it is, phases held where an algorithm would change them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/live/planner_live.h"

#define W(name, its_model, its_phase)                                                                        \
    {                                                                                                        \
        .id = {name, 2}, .model = {its_model, 1}, .phase = its_phase, .ready = true                          \
    }
#define P(name) W(name, "m", TS_PHASE_PREFILL)
#define D(name) W(name, "m", TS_PHASE_DECODE)

struct equal_case {
    const char *name;
    struct ts_plan_worker workers[5];
    uint32_t count, replicas;
    const char *pairs; /* prefill and decode replica ids, in order */
};

static const struct equal_case cases[] = {
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

static struct plan_search *refuse(const struct plan_problem *problem, struct ts_error *err)
{
    assert_int_equal(problem->depth, PLAN_REROUTE);
    ts_error_set(err, TS_EINVAL, "it does not feel like it");
    return NULL;
}

static const struct plan_algorithm refusing = {
    .version = PLAN_ALGORITHM_VERSION, .name = "refusing", .summary = "", .open = refuse};

static const struct planner_live_inputs inputs = {
    .algorithm = &refusing,
    .codec_allowed = {true, true},
    .demand = {.name = "d",
               .burst = 1,
               .class_count = 1,
               .classes = {{.rate = 1,
                            .prompt_tokens = 500,
                            .prompt_tokens_sq = 3e5,
                            .output_tokens = 100,
                            .output_tokens_sq = 1e4,
                            .ttft_s = 2,
                            .tpot_s = 0.2}}},
};

static void check_case(const struct equal_case *c)
{
    const struct ts_msg_snapshot snapshot = {.workers = {c->workers, c->count}};
    struct ts_msg_plan plan = {.term = 0};
    struct ts_arena arena;
    ts_arena_init(&arena);
    struct planner_live *live = planner_live_open(&inputs, &snapshot);
    assert_true(planner_live_step(live, 1));
    bool found = planner_live_best(live, &arena, &plan);
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
    planner_live_close(&live);
    assert_null(live);
    ts_arena_fini(&arena);
}

static void test_shares(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++)
        check_case(&cases[i]);
}

/* Llama-3-8B by its shape. */
#define SHAPED(name, its_device, its_phase)                                                                  \
    {                                                                                                        \
        .id = {name, 2}, .host = {"h", 1}, .model = {"m", 1}, .phase = its_phase, .ready = true,             \
        .device = {its_device, sizeof its_device - 1}, .layers = 32, .hidden = 4096, .intermediate = 14336,  \
        .heads = 32, .kv_heads = 8, .head_dim = 128, .vocab = 128256, .kv_dtype = TS_DTYPE_BF16,             \
        .kv_blocks = 2000                                                                                    \
    }

/* "fast" has twice of all that the unknown device has. */
static const struct ts_device_type *catalogue_of_one(const void *catalogue, const char *name)
{
    static struct ts_device_type fast;
    assert_ptr_equal(catalogue, &inputs);
    fast = planner_live_unknown;
    fast.flops *= 2;
    fast.memory_bytes *= 2;
    fast.memory_bytes_per_s *= 2;
    fast.fit.layer_s /= 2;
    fast.fit.step_s /= 2;
    return strcmp(name, "fast") == 0 ? &fast : NULL;
}

static void plan_of(const struct planner_live_inputs *with, const struct ts_plan_worker *workers,
                    uint32_t count, struct ts_arena *arena, struct ts_msg_plan *plan)
{
    const struct ts_msg_snapshot snapshot = {.workers = {workers, count}};
    struct planner_live *live = planner_live_open(with, &snapshot);
    while (!planner_live_step(live, 100))
        ;
    *plan = (struct ts_msg_plan){.term = 0};
    assert_true(planner_live_best(live, arena, plan));
    planner_live_close(&live);
}

static double share_of(const struct ts_msg_plan *plan, uint32_t worker)
{
    double share = 0;
    for (uint32_t i = 0; i < plan->shares.count; i++) {
        if (plan->shares.data[i].prefill == worker || plan->shares.data[i].decode == worker)
            share += plan->shares.data[i].share;
    }
    return share;
}

/* The share of p1 over that of p0 when prefill is what is short; p1's device, "other" or "fast", has measured
 * what is given. */
static double ratio_with(const char *device, const struct ts_measured *measured)
{
    struct ts_plan_worker workers[] = {
        SHAPED("p0", "slow", TS_PHASE_PREFILL), SHAPED("p1", "    ", TS_PHASE_PREFILL),
        SHAPED("d0", "slow", TS_PHASE_DECODE),  SHAPED("d1", "slow", TS_PHASE_DECODE),
        SHAPED("d2", "slow", TS_PHASE_DECODE),  SHAPED("d3", "slow", TS_PHASE_DECODE)};
    struct planner_live_inputs with = inputs;
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    workers[1].device = (struct ts_str){device, strlen(device)};
    workers[1].measured = (struct ts_measured_items){measured, measured ? 1 : 0};
    with.device = catalogue_of_one;
    with.catalogue = &inputs;
    with.demand.classes[0].prompt_tokens = 4000;
    with.demand.classes[0].prompt_tokens_sq = 16e6;
    with.demand.classes[0].ttft_s = 60;
    with.demand.classes[0].output_tokens = 10;
    with.demand.classes[0].output_tokens_sq = 100;
    plan_of(&with, workers, TS_ARRAY_SIZE(workers), &arena, &plan);
    double slow = share_of(&plan, 0), fast = share_of(&plan, 1);
    if (!(slow + fast > 0.999999 && slow + fast < 1.000001))
        fail_msg("shares %g and %g: %.*s", slow, fast, (int)plan.binding.count, plan.binding.data);
    assert_true(plan.attainment > 0.5 && plan.attainment <= 1);
    assert_non_null(strstr(plan.binding.data, "it does not feel like it"));
    ts_arena_fini(&arena);
    return fast / slow;
}

static void test_shares_follow_the_devices(void **state)
{
    (void)state;
    double ratio = ratio_with("fast", NULL);
    if (!(ratio > 1.5 && ratio < 3))
        fail_msg("a device that is twice as fast has %g times the share", ratio);
}

/* Half of what the unknown device has, with its efficiencies taken in: it counts more than the catalogue, and
 * nonsense counts for nothing. */
static void test_shares_follow_what_is_measured(void **state)
{
    const struct ts_device_type *u = &planner_live_unknown;
    struct ts_measured half = {.memory_bytes = u->memory_bytes,
                               .product_flops = u->flops * u->fit.flops_efficiency / 2,
                               .attention_flops = u->flops * u->fit.attention_efficiency / 2,
                               .weight_bytes_per_s = u->memory_bytes_per_s * u->fit.memory_efficiency / 2,
                               .context_bytes_per_s = u->memory_bytes_per_s * u->fit.context_efficiency / 2,
                               .layer_s = 2 * u->fit.layer_s,
                               .step_s = 2 * u->fit.step_s,
                               .tokens_half = u->fit.tokens_half};
    (void)state;
    double named = ratio_with("fast", &half), unknown = ratio_with("other", &half);
    if (!(named > 0.3 && named < 0.7 && unknown > 0.3 && unknown < 0.7))
        fail_msg("a device that was measured as half as fast has %g and %g times the share", named, unknown);
    half.product_flops = -1;
    named = ratio_with("fast", &half);
    if (!(named > 1.5 && named < 3))
        fail_msg("figures that no device has give it %g times the share", named);
}

/* Turns every decode worker into one of prefill. */
static struct plan_search *borrow(const struct plan_problem *problem, struct ts_error *err)
{
    (void)err;
    return (struct plan_search *)(uintptr_t)problem;
}

static bool at_once(struct plan_search *search, uint64_t budget)
{
    (void)search;
    (void)budget;
    return true;
}

static struct ts_plan *flipped(struct plan_search *search)
{
    const struct plan_problem *problem = (const struct plan_problem *)search;
    struct ts_plan *plan = ts_plan_new(problem->current->group_count, 0);
    for (uint32_t i = 0; i < plan->group_count; i++) {
        plan->groups[i] = problem->current->groups[i];
        plan->groups[i].phase = TS_PHASE_PREFILL;
    }
    return plan;
}

static void forget(struct plan_search **search)
{
    *search = NULL;
}

static void test_flips_are_held(void **state)
{
    (void)state;
    static const struct plan_algorithm flipping = {.version = PLAN_ALGORITHM_VERSION,
                                                   .name = "flipping",
                                                   .summary = "",
                                                   .open = borrow,
                                                   .step = at_once,
                                                   .best = flipped,
                                                   .close = forget};
    static const struct ts_plan_worker workers[] = {SHAPED("p0", "x", TS_PHASE_PREFILL),
                                                    SHAPED("d0", "x", TS_PHASE_DECODE)};
    struct planner_live_inputs with = inputs;
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    with.algorithm = &flipping;
    plan_of(&with, workers, TS_ARRAY_SIZE(workers), &arena, &plan);
    assert_int_equal(plan.replicas.data[1].phase, TS_PHASE_DECODE);
    assert_true(share_of(&plan, 0) == 1 && share_of(&plan, 1) == 1);
    assert_non_null(strstr(plan.binding.data, "flipping would change phases or groups"));
    ts_arena_fini(&arena);
}

/* Late is better than never: where no deadline can be met, requests are dealt out all the same. */
static void test_hopeless_deadlines(void **state)
{
    (void)state;
    static const struct ts_plan_worker workers[] = {SHAPED("p0", "x", TS_PHASE_PREFILL),
                                                    SHAPED("d0", "x", TS_PHASE_DECODE),
                                                    SHAPED("d1", "x", TS_PHASE_DECODE)};
    struct planner_live_inputs with = inputs;
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    with.demand.classes[0].ttft_s = 1e-6;
    plan_of(&with, workers, TS_ARRAY_SIZE(workers), &arena, &plan);
    assert_true(share_of(&plan, 1) == 0.5 && share_of(&plan, 2) == 0.5);
    assert_true(plan.attainment == 0);
    assert_non_null(strstr(plan.binding.data, "equal shares"));
    ts_arena_fini(&arena);
}

/* More is asked than can be served in time. The program would then give some classes to this worker and
 * refuse much of others, but live requests are not refused: what all can do decides, for each class alike. */
static void test_overload_follows_the_devices(void **state)
{
    (void)state;
    static const struct ts_plan_worker workers[] = {SHAPED("b0", "slow", TS_PHASE_BOTH),
                                                    SHAPED("b1", "fast", TS_PHASE_BOTH)};
    static const struct ts_workload_class classes[] = {{5, 1500, 3e6, 20, 500, 0, 0},
                                                       {5, 300, 1e5, 200, 5e4, 0, 0}};
    const struct ts_msg_snapshot snapshot = {
        .workers = {workers, 2},
        .workload = {
            .arrivals_per_s = 10, .window_s = 60, .burst = 1, .attained = -1, .classes = {classes, 2}}};
    struct planner_live_inputs with = inputs;
    struct ts_arena arena;
    struct ts_msg_plan plan = {.term = 0};
    double fast[2] = {0};
    ts_arena_init(&arena);
    with.device = catalogue_of_one;
    with.catalogue = &inputs;
    with.classes_max = 2;
    struct planner_live *live = planner_live_open(&with, &snapshot);
    while (!planner_live_step(live, 100))
        ;
    assert_true(planner_live_best(live, &arena, &plan));
    planner_live_close(&live);
    assert_int_equal(plan.classes.count, 2);
    for (uint32_t i = 0; i < plan.shares.count; i++)
        fast[plan.shares.data[i].length_class] +=
            plan.shares.data[i].prefill == 1 ? plan.shares.data[i].share : 0;
    if (!(fabs(fast[0] - fast[1]) < 1e-9 && fast[0] > 0.6 && fast[0] < 0.8))
        fail_msg("the fast worker has %g and %g of the classes", fast[0], fast[1]);
    assert_true(plan.attainment > 0.35 && plan.attainment < 0.5); /* 0.346 with the program's own shares */
    ts_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_shares_follow_the_devices),
        cmocka_unit_test(test_shares_follow_what_is_measured),
        cmocka_unit_test(test_flips_are_held),
        cmocka_unit_test(test_hopeless_deadlines),
        cmocka_unit_test(test_overload_follows_the_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
