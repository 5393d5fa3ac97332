/*
 * Running clusters as problems: hosts, devices and stages of replicas, links by measurement or file, classes
 * as measured, and clusters so large that a part stands for the rest.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/live/planner_live.h"

#define STR(text)                                                                                            \
    {                                                                                                        \
        text, sizeof text - 1                                                                                \
    }
/* Llama-3-8B by its shape. */
#define WORKER(name, its_host, its_phase)                                                                    \
    .id = STR(name), .host = STR(its_host), .model = STR("m"), .phase = its_phase, .phases = TS_PHASE_BOTH,  \
    .ready = true, .device = STR("card"), .layers = 32, .hidden = 4096, .intermediate = 14336, .heads = 32,  \
    .kv_heads = 8, .head_dim = 128, .vocab = 128256, .kv_dtype = TS_DTYPE_BF16, .kv_blocks = 2000

/* Refuses, and hands what it was asked to `inspect`. */
static void (*inspect)(const struct plan_problem *problem);

static struct plan_search *look(const struct plan_problem *problem, struct ts_error *err)
{
    inspect(problem);
    ts_error_set(err, TS_EINVAL, "only looking");
    return NULL;
}

static const struct plan_algorithm looking = {
    .version = PLAN_ALGORITHM_VERSION, .name = "looking", .summary = "", .open = look};

static void plan_of(const struct planner_live_inputs *inputs, const struct ts_msg_snapshot *snapshot,
                    struct ts_arena *arena, struct ts_msg_plan *plan)
{
    struct planner_live *live = planner_live_open(inputs, snapshot);
    while (!planner_live_step(live, 1000))
        ;
    *plan = (struct ts_msg_plan){.term = 0};
    assert_true(planner_live_best(live, arena, plan));
    planner_live_close(&live);
}

/* --- Stages --- */

static const struct ts_stage_item two_hosts[] = {{STR("card"), STR("h1"), 2, 20},
                                                 {STR("other"), STR("h2"), 1, 12}};
static const struct ts_stage_item one_host[] = {{STR("card"), STR("h2"), 4, 32}};
static const struct ts_plan_worker staged[] = {
    {WORKER("p0", "h1", TS_PHASE_PREFILL), .relay = STR("r1"), .stages = {two_hosts, 2}},
    {WORKER("d0", "h2", TS_PHASE_DECODE), .relay = STR("r2"), .stages = {one_host, 1}},
    {WORKER("d1", "h3", TS_PHASE_DECODE)},
};

static void see_stages(const struct plan_problem *problem)
{
    const struct ts_cluster *c = problem->cluster;
    const struct ts_plan *plan = problem->current;
    assert_int_equal(problem->depth, PLAN_REROUTE);
    assert_int_equal(c->node_count, 3);
    assert_string_equal(c->nodes[1].name, "h2");
    assert_int_equal(c->type_count, 2);
    assert_int_equal(c->gpu_count, 8);
    assert_int_equal(plan->group_count, 3);
    assert_int_equal(plan->groups[0].stage_count, 2);
    assert_int_equal(plan->groups[0].stages[0].tp, 2);
    assert_int_equal(plan->groups[0].stages[1].layers, 12);
    assert_int_equal(plan->groups[1].stages[0].tp, 4);
    assert_int_equal(plan->groups[2].stages[0].layers, 32);
    struct ts_error err = {0};
    if (ts_plan_check(plan, c, problem->model, problem->demand, &err) != TS_OK)
        fail_msg("%s", err.text);
    for (uint32_t g = 0; g < 3; g++) {
        for (uint32_t s = 0; s < plan->groups[g].stage_count; s++) {
            const struct ts_gpu *gpu = &c->gpus[plan->groups[g].stages[s].gpus[0]];
            const struct ts_stage_item own = {STR("card"), STR("h3"), 1, 32};
            const struct ts_stage_item *item = g == 2 ? &own : &staged[g].stages.data[s];
            assert_int_equal(strncmp(c->nodes[gpu->node].name, item->host.data, 3), 0);
        }
    }
    /* Measured both ways between the relays' hosts, one way only to the third. */
    assert_true(ts_cluster_link(c, 0, 1)->bytes_per_s == 3e9 && ts_cluster_link(c, 0, 1)->latency_s == 1e-4);
    assert_true(ts_cluster_link(c, 1, 0)->bytes_per_s == 2e9);
    assert_true(ts_cluster_link(c, 0, 2)->bytes_per_s == 1.25e9 && c->nodes[0].nic_out_bytes_per_s == 3e9);
}

#define LINK_FIELDS(a, b, speed, rtt) .from = a, .to = b, .goodput_bytes_per_s = speed, .rtt_ns = rtt

static void test_stages(void **state)
{
    (void)state;
    static const struct ts_link_item links[] = {
        {LINK_FIELDS(STR("r1"), STR("r2"), 3e9, 200000)}, {LINK_FIELDS(STR("h2"), STR("h1"), 2e9, 200000)},
        {LINK_FIELDS(STR("r1"), STR("r1"), 7e9, 1)},      {LINK_FIELDS(STR("r1"), STR("nobody"), 1e9, 1)},
        {LINK_FIELDS(STR("h1"), STR("h3"), -1, 1)},       {LINK_FIELDS(STR("h3"), STR("h1"), NAN, 1)}};
    const struct ts_msg_snapshot snapshot = {.workers = {staged, 3}, .links = {links, TS_ARRAY_SIZE(links)}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    bool named = false;
    ts_arena_init(&arena);
    inputs.algorithm = &looking;
    inspect = see_stages;
    plan_of(&inputs, &snapshot, &arena, &plan);
    for (uint32_t i = 0; i < plan.shares.count; i++) { /* a codec only where the link is known */
        const struct ts_plan_share *z = &plan.shares.data[i];
        assert_int_equal(z->prefill, 0);
        assert_true((z->codec.count > 0) == (z->decode == 1));
        named |= z->codec.count > 0;
    }
    assert_true(named);
    ts_arena_fini(&arena);
}

/* --- Codecs --- */

/* Of prefill 0 and decode 1: one class exact, of the other three quarters in four bits. */
static struct ts_plan *plan_two_codecs(struct plan_search *search)
{
    const struct plan_problem *problem = (const struct plan_problem *)search;
    struct ts_plan *plan = ts_plan_new(2, 3);
    memcpy(plan->groups, problem->current->groups, 2 * sizeof *plan->groups);
    plan->flows[0] = (struct ts_flow){0, 1, 0, 1, 1, TS_COST_CODEC_NONE};
    plan->flows[1] = (struct ts_flow){0, 1, 1, 0.75, 0.75, TS_COST_CODEC_I4};
    plan->flows[2] = (struct ts_flow){0, 1, 1, 0.25, 0.25, TS_COST_CODEC_NONE};
    plan->objective = plan->rate = 2;
    return plan;
}

static struct plan_search *open_two_codecs(const struct plan_problem *problem, struct ts_error *err)
{
    (void)err;
    return (struct plan_search *)(uintptr_t)problem;
}

static bool step_two_codecs(struct plan_search *search, uint64_t budget)
{
    (void)search;
    (void)budget;
    return true;
}

static void close_two_codecs(struct plan_search **search)
{
    *search = NULL;
}

/* Each flow keeps its codec: named by the first class, all KV went exact, over cards too slow for that. */
static void test_codecs(void **state)
{
    (void)state;
    static const struct plan_algorithm two_codecs = {.version = PLAN_ALGORITHM_VERSION,
                                                     .name = "two codecs",
                                                     .summary = "",
                                                     .open = open_two_codecs,
                                                     .step = step_two_codecs,
                                                     .best = plan_two_codecs,
                                                     .close = close_two_codecs};
    static const struct ts_plan_worker workers[] = {{WORKER("p0", "h1", TS_PHASE_PREFILL)},
                                                    {WORKER("d0", "h2", TS_PHASE_DECODE)}};
    static const struct ts_link_item links[] = {{LINK_FIELDS(STR("h1"), STR("h2"), 1e9, 200000)},
                                                {LINK_FIELDS(STR("h2"), STR("h1"), 1e9, 200000)}};
    const struct ts_msg_snapshot snapshot = {.workers = {workers, 2}, .links = {links, 2}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    double shares[2][2] = {{0}}; /* [class][in four bits] */
    ts_arena_init(&arena);
    inputs.algorithm = &two_codecs;
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_int_equal(plan.shares.count, 3);
    for (uint32_t i = 0; i < plan.shares.count; i++) {
        const struct ts_plan_share *z = &plan.shares.data[i];
        assert_in_range(z->length_class, 0, 1);
        shares[z->length_class][ts_str_equal(z->codec, ts_str_of("i4"))] += z->share;
    }
    assert_true(fabs(shares[0][0] - 1) < 1e-9 && fabs(shares[1][0] - 0.25) < 1e-9);
    assert_true(fabs(shares[1][1] - 0.75) < 1e-9);
    ts_arena_fini(&arena);
}

static void see_equal(const struct plan_problem *problem)
{
    fail_msg("a problem with %u groups was opened", problem->current->group_count);
}

/* Workers whose stages make no sense get equal shares. */
static void test_bad_stages(void **state)
{
    (void)state;
    static const struct ts_stage_item few[] = {{STR("card"), STR("h"), 1, 31}},
                                      wide[] = {{STR("card"), STR("h"), 16, 32}},
                                      wrap[] = {{STR("card"), STR("h"), 1, 0xffffffff},
                                                {STR("card"), STR("h"), 1, 33}};
    static const struct ts_stage_items bad[] = {{few, 1}, {wide, 1}, {wrap, 2}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        struct ts_plan_worker workers[] = {{WORKER("p0", "h", TS_PHASE_PREFILL), .stages = bad[i]},
                                           {WORKER("d0", "h", TS_PHASE_DECODE)}};
        const struct ts_msg_snapshot snapshot = {.workers = {workers, 2}};
        struct planner_live_inputs inputs = planner_live_defaults();
        struct ts_msg_plan plan;
        struct ts_arena arena;
        ts_arena_init(&arena);
        inputs.algorithm = &looking;
        inspect = see_equal;
        plan_of(&inputs, &snapshot, &arena, &plan);
        assert_int_equal(plan.shares.count, 1);
        assert_int_equal(strncmp(plan.binding.data, "equal shares", 12), 0);
        ts_arena_fini(&arena);
    }
}

/* --- A cluster file --- */

static void see_file(const struct plan_problem *problem)
{
    const struct ts_cluster *c = problem->cluster;
    assert_true(ts_cluster_link(c, 0, 1)->bytes_per_s == 5e8 && ts_cluster_link(c, 1, 0)->bytes_per_s == 6e8);
    assert_true(ts_cluster_link(c, 0, 2)->bytes_per_s == 1.25e9); /* not in the file */
    assert_true(c->nodes[1].nic_in_bytes_per_s == 9e8 && c->nodes[0].inner.bytes_per_s == 3e11);
    assert_true(c->nodes[2].inner.bytes_per_s == 10e9);
}

static void test_file(void **state)
{
    (void)state;
    struct ts_cluster *file = ts_cluster_new(1, 3, 1);
    static const char *const names[] = {"h2", "elsewhere", "h1"};
    struct ts_error err = {0};
    file->types[0] = planner_live_unknown;
    file->gpus[0].alive = true;
    for (int i = 0; i < 3; i++) {
        snprintf(file->nodes[i].name, sizeof file->nodes[i].name, "%s", names[i]);
        file->nodes[i].nic_out_bytes_per_s = file->nodes[i].nic_in_bytes_per_s = 9e8;
        file->nodes[i].inner.bytes_per_s = 3e11;
    }
    file->links[2 * 3 + 0].bytes_per_s = 5e8; /* h1 to h2 */
    file->links[0 * 3 + 2].bytes_per_s = 6e8;
    assert_int_equal(ts_cluster_seal(file, &err), TS_OK);
    const struct ts_msg_snapshot snapshot = {.workers = {staged, 3}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    inputs.algorithm = &looking;
    inputs.cluster = file;
    inspect = see_file;
    plan_of(&inputs, &snapshot, &arena, &plan);
    ts_arena_fini(&arena);
    ts_cluster_destroy(&file);
}

/* --- Classes --- */

static const struct ts_workload_class code_and_talk[] = {{1, 1500, 3e6, 20, 500, 0, 0},
                                                         {1, 300, 1e5, 200, 5e4, 0, 0}};

static double sum_of(const struct ts_msg_plan *plan, uint32_t length_class)
{
    double sum = 0;
    for (uint32_t i = 0; i < plan->shares.count; i++)
        sum += plan->shares.data[i].length_class == length_class ? plan->shares.data[i].share : 0;
    return sum;
}

static void test_classes(void **state)
{
    (void)state;
    static const struct ts_plan_worker workers[] = {{WORKER("p0", "h1", TS_PHASE_PREFILL)},
                                                    {WORKER("p1", "h2", TS_PHASE_PREFILL)},
                                                    {WORKER("d0", "h3", TS_PHASE_DECODE)}};
    struct ts_msg_snapshot snapshot = {
        .workers = {workers, 3},
        .workload = {
            .arrivals_per_s = 2, .window_s = 60, .burst = 1, .attained = -1, .classes = {code_and_talk, 2}}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_int_equal(plan.classes.count, 2);
    assert_true(plan.classes.data[0].prompt_tokens == 300 && plan.classes.data[1].output_tokens == 20);
    for (uint32_t k = 0; k < 2; k++)
        assert_true(fabs(sum_of(&plan, k) - 1) < 1e-9);
    assert_true(plan.attainment > 0.5 && plan.attainment <= 1 + 1e-9);
    assert_true(fabs(plan.served_per_s - 2 * plan.attainment) < 1e-9);
    double calm = plan.attainment;
    snapshot.workload.classes.data =
        (struct ts_workload_class[]){{10, 1500, 3e6, 20, 500, 0, 0}, {10, 300, 1e5, 200, 5e4, 0, 0}};
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_true(plan.attainment < calm); /* ten times as many */
    snapshot.workload.window_s = 1;      /* too few seen: the expected mix counts */
    snapshot.workload.classes.data = code_and_talk;
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_true(plan.classes.data[0].prompt_tokens == inputs.demand.classes[0].prompt_tokens);
    ts_arena_fini(&arena);
}

/* Equal workers on equal hosts get equal shares, also where others are what is short. */
static void test_equals(void **state)
{
    (void)state;
    static const struct ts_plan_worker workers[] = {
        {WORKER("p0", "h0", TS_PHASE_PREFILL)}, {WORKER("d0", "h1", TS_PHASE_DECODE)},
        {WORKER("d1", "h2", TS_PHASE_DECODE)},  {WORKER("d2", "h3", TS_PHASE_DECODE)},
        {WORKER("d3", "h0", TS_PHASE_DECODE)}, /* beside the prefill worker: not like the others */
    };
    const struct ts_msg_snapshot snapshot = {.workers = {workers, 5}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    double sums[5] = {0};
    ts_arena_init(&arena);
    plan_of(&inputs, &snapshot, &arena, &plan);
    for (uint32_t i = 0; i < plan.shares.count; i++)
        sums[plan.shares.data[i].decode] += plan.shares.data[i].share;
    assert_true(fabs(sums[1] - sums[2]) < 1e-12 && fabs(sums[1] - sums[3]) < 1e-12);
    assert_true(sums[1] + sums[4] > 0);
    ts_arena_fini(&arena);
}

/* --- Large --- */

static void see_large(const struct plan_problem *problem)
{
    assert_in_range(problem->current->group_count, 24, 48);
}

/* A thousand workers of two makes: each works as much as its equals do, and no list is beyond its bound. */
static void test_large(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct ts_plan_worker *workers = ts_xcalloc(COUNT, sizeof *workers);
    char(*names)[8] = ts_xcalloc(COUNT, sizeof *names), (*hosts)[8] = ts_xcalloc(COUNT, sizeof *hosts);
    double sums[COUNT] = {0}, least[2] = {INFINITY, INFINITY}, most[2] = {0, 0};
    for (int i = 0; i < COUNT; i++) {
        workers[i] = (struct ts_plan_worker){WORKER("", "", i % 4 ? TS_PHASE_DECODE : TS_PHASE_PREFILL)};
        snprintf(names[i], sizeof names[i], "w%d", i);
        snprintf(hosts[i], sizeof hosts[i], "h%d", i / 8);
        workers[i].id = ts_str_of(names[i]);
        workers[i].host = ts_str_of(hosts[i]);
    }
    const struct ts_msg_snapshot snapshot = {.workers = {workers, COUNT}};
    struct planner_live_inputs inputs = planner_live_defaults();
    struct ts_msg_plan plan;
    struct ts_arena arena;
    ts_arena_init(&arena);
    inputs.algorithm = &looking;
    inspect = see_large;
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_int_equal(plan.replicas.count, COUNT);
    assert_in_range(plan.shares.count, COUNT / 2, TS_LIST_MAX);
    for (uint32_t i = 0; i < plan.shares.count; i++) {
        sums[plan.shares.data[i].prefill] += plan.shares.data[i].share;
        sums[plan.shares.data[i].decode] += plan.shares.data[i].share;
    }
    for (int i = 0; i < COUNT; i++) {
        least[i % 4 > 0] = fmin(least[i % 4 > 0], sums[i]);
        most[i % 4 > 0] = fmax(most[i % 4 > 0], sums[i]);
    }
    assert_true(fabs(sum_of(&plan, 0) - 1) < 1e-9 && fabs(sum_of(&plan, 1) - 1) < 1e-9);
    assert_true(least[0] > 0 && most[0] < 1.5 * least[0]);
    workers[0].layers = 31; /* the first states another shape than all others: equal shares, in bounds */
    plan_of(&inputs, &snapshot, &arena, &plan);
    assert_in_range(plan.shares.count, COUNT / 2, COUNT);
    assert_int_equal(strncmp(plan.binding.data, "equal shares", 12), 0);
    ts_arena_fini(&arena);
    ts_free(hosts);
    ts_free(names);
    ts_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages),  cmocka_unit_test(test_bad_stages), cmocka_unit_test(test_file),
        cmocka_unit_test(test_classes), cmocka_unit_test(test_equals),     cmocka_unit_test(test_large),
        cmocka_unit_test(test_codecs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
