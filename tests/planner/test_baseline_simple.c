/* uniform, colocated, splitwise and distserve: cases whose answer follows from what they say they do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "tests/planner/baseline_fixture.h"

/* LLaMA-30B takes 65 GB, so two A40 of 48 GB are the smallest group: eight of them are four groups, two for
 * each phase, and each of the four pairs is dealt a quarter of what is asked. */
static void test_uniform_deals_evenly(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "4xA40|4xA40", 40, PLANNER_FIXTURE_CODING, 0.02);
    baseline_run_algorithm(&run, "uniform");
    assert_int_equal(run.plan->group_count, 4);
    assert_int_equal(baseline_run_count(&run, TS_PHASE_PREFILL), 2);
    assert_int_equal(baseline_run_count(&run, TS_PHASE_DECODE), 2);
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t j = 0; j < 4; j++) {
            bool pair =
                run.plan->groups[i].phase == TS_PHASE_PREFILL && run.plan->groups[j].phase == TS_PHASE_DECODE;
            assert_float_equal(baseline_run_rate(&run, i, j), pair ? 0.02 / 4 : 0, 1e-12);
        }
    }
    baseline_run_fini(&run);
}

/* Equal shares know no hardware: replicas on A100 and on A40 get the same, though one serves more. Of the
 * shortest class, since the longest has no room in the KV memory of some. */
static void test_uniform_is_blind(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "2xA100|4xA40", 40, PLANNER_FIXTURE_CODING, 0.02);
    baseline_run_algorithm(&run, "uniform");
    double first = -1;
    for (uint32_t i = 0; i < run.plan->flow_count; i++) {
        if (run.plan->flows[i].length_class == 0) {
            first = first < 0 ? run.plan->flows[i].rate : first;
            assert_float_equal(run.plan->flows[i].rate, first, 1e-12);
        }
    }
    assert_true(first > 0);
    baseline_run_fini(&run);
}

/* One replica can only do both. */
static void test_uniform_alone(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "1xA100", 40, PLANNER_FIXTURE_CODING, 0.1);
    baseline_run_algorithm(&run, "uniform");
    assert_int_equal(run.plan->group_count, 1);
    assert_int_equal(run.plan->groups[0].phase, TS_PHASE_BOTH);
    run.fixture.problem.colocate = false;
    baseline_run_algorithm(&run, "uniform");
    assert_null(run.plan);
    baseline_run_fini(&run);
}

/* All (TP, PP) of one type, as many replicas as there is room for. What is left over of four A40 or six never
 * holds LLaMA-30B by itself but as another pair, which is tried, too. */
static double best_homogeneous(struct baseline_run *run)
{
    struct baseline base = {.problem = &run->fixture.problem, .shapes = run->shapes, .eval = run->eval};
    struct baseline_config configs[BASELINE_CONFIGS_MAX], rest[BASELINE_CONFIGS_MAX];
    struct plan_state empty, state;
    double best = 0;
    plan_state_init(&empty);
    plan_state_init(&state);
    uint32_t *idle = ts_xcalloc(run->fixture.cluster->cell_count, sizeof *idle);
    plan_state_idle(&run->fixture.problem, &empty, idle);
    uint32_t count = baseline_configs(&base, idle, 0, TS_PHASE_BOTH, configs);
    assert_true(count > 2);
    for (uint32_t i = 0; i < count; i++) {
        state.count = 0;
        plan_state_idle(&run->fixture.problem, &empty, idle);
        (void)baseline_replicate(&base, &configs[i], TS_PHASE_BOTH, UINT32_MAX, idle, &state);
        best = fmax(best, baseline_run_judge(run, &state));
        uint32_t more = baseline_configs(&base, idle, 0, TS_PHASE_BOTH, rest), top = 0;
        for (uint32_t j = 1; j < more; j++)
            top = rest[j].score > rest[top].score ? j : top;
        if (more > 0)
            (void)baseline_replicate(&base, &rest[top], TS_PHASE_BOTH, UINT32_MAX, idle, &state);
        best = fmax(best, baseline_run_judge(run, &state));
    }
    ts_free(idle);
    plan_state_fini(&state);
    return best;
}

static void test_colocated_finds_the_best_cut(void **state)
{
    (void)state;
    const char *clusters[] = {"4xA40", "4xA40|2xA40", "8xA100", "8xA5000"};
    for (uint32_t i = 0; i < 4; i++) {
        for (double rate = 0.25; rate < 20; rate *= 4) {
            struct baseline_run run;
            baseline_run_open(&run, clusters[i], 40, PLANNER_FIXTURE_CONVERSATION, rate);
            baseline_run_algorithm(&run, "colocated");
            assert_int_equal(baseline_run_count(&run, TS_PHASE_BOTH), run.plan->group_count);
            assert_float_equal(run.plan->objective, best_homogeneous(&run), 1e-6);
            baseline_run_fini(&run);
        }
    }
}

/* Equal machines in the ratio of what the load asks of each phase: with p and d requests/s of a machine in
 * the two pools, the best whole number of prompt machines among n lies beside n d / (p + d). */
static void test_splitwise_pools_by_ratio(void **state)
{
    (void)state;
    for (uint32_t work = 0; work < 2; work++) {
        struct baseline_run run;
        baseline_run_open(&run, "2xA100|2xA100|2xA100|2xA100|2xA100|2xA100|2xA100", 1,
                          (enum planner_fixture_work)work, 4);
        baseline_run_algorithm(&run, "splitwise");
        uint32_t prompt = baseline_run_count(&run, TS_PHASE_PREFILL);
        uint32_t mixed = baseline_run_count(&run, TS_PHASE_BOTH), n = run.plan->group_count;
        struct baseline base = {.problem = &run.fixture.problem, .shapes = run.shapes};
        struct plan_group machine = run.state.groups[0];
        assert_true(baseline_rephase(&base, &machine, TS_PHASE_PREFILL));
        double p = baseline_score(&base, &machine);
        assert_true(baseline_rephase(&base, &machine, TS_PHASE_DECODE));
        double d = baseline_score(&base, &machine);
        double even = n * d / (p + d);
        assert_true(n >= 3 && mixed <= 1);
        assert_true(prompt + mixed >= floor(even) && prompt <= ceil(even));
        /* All machines are the same in every pool, so that they can change pools. */
        for (uint32_t i = 1; i < n; i++) {
            assert_int_equal(run.plan->groups[i].stage_count, run.plan->groups[0].stage_count);
            assert_int_equal(run.plan->groups[i].stages[0].tp, run.plan->groups[0].stages[0].tp);
        }
        baseline_run_fini(&run);
    }
}

/* The machines that are better at prompts, relative to tokens, are the prompt machines: A40 (150 TFLOPS, 696
 * GB/s) against 3090Ti (80 TFLOPS, 1008 GB/s). */
static void test_splitwise_lines_up_types(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "4x3090Ti|4x3090Ti|4xA40|4xA40", 100, PLANNER_FIXTURE_CODING, 2);
    run.fixture.problem.colocate = false;
    baseline_run_algorithm(&run, "splitwise");
    bool prompt_3090 = false, token_a40 = false;
    for (uint32_t i = 0; i < run.plan->group_count; i++) {
        const struct ts_gpu *gpu = &run.fixture.cluster->gpus[run.plan->groups[i].stages[0].gpus[0]];
        bool a40 = strcmp(run.fixture.cluster->types[gpu->type].name, "A40") == 0;
        prompt_3090 = prompt_3090 || (!a40 && run.plan->groups[i].phase == TS_PHASE_PREFILL);
        token_a40 = token_a40 || (a40 && run.plan->groups[i].phase == TS_PHASE_DECODE);
    }
    assert_false(prompt_3090 && token_a40);
    baseline_run_fini(&run);
}

/* Every (TP, PP) for each phase and every count of both on equal devices. */
static double best_placement(struct baseline_run *run)
{
    struct baseline base = {.problem = &run->fixture.problem, .shapes = run->shapes, .eval = run->eval};
    struct baseline_config prefill[BASELINE_CONFIGS_MAX], decode[BASELINE_CONFIGS_MAX];
    struct plan_state empty, state;
    uint32_t idle[8];
    double best = 0;
    plan_state_init(&empty);
    plan_state_init(&state);
    plan_state_idle(&run->fixture.problem, &empty, idle);
    uint32_t p_count = baseline_configs(&base, idle, 0, TS_PHASE_PREFILL, prefill);
    uint32_t d_count = baseline_configs(&base, idle, 0, TS_PHASE_DECODE, decode);
    for (uint32_t i = 0; i < p_count * d_count; i++) {
        for (uint32_t n = 1; n <= 8; n++) {
            for (uint32_t m = 1; m <= 8; m++) {
                state.count = 0;
                plan_state_idle(&run->fixture.problem, &empty, idle);
                if (baseline_replicate(&base, &prefill[i / d_count], TS_PHASE_PREFILL, n, idle, &state) < n ||
                    baseline_replicate(&base, &decode[i % d_count], TS_PHASE_DECODE, m, idle, &state) < m)
                    break;
                best = fmax(best, baseline_run_judge(run, &state));
            }
        }
    }
    plan_state_fini(&state);
    return best;
}

static void test_distserve_finds_the_best_placement(void **state)
{
    (void)state;
    for (uint32_t work = 0; work < 2; work++) {
        for (double rate = 0.25; rate < 40; rate *= 4) {
            struct baseline_run run;
            baseline_run_open(&run, work ? "4xA40" : "4xA100", 40, (enum planner_fixture_work)work, rate);
            baseline_run_algorithm(&run, "distserve");
            assert_int_equal(baseline_run_count(&run, TS_PHASE_BOTH), 0);
            assert_float_equal(run.plan->objective, best_placement(&run), 1e-6);
            baseline_run_fini(&run);
        }
    }
}

/* Low node affinity (Algorithm 2 of the paper): over a network that no KV gets through, each prefill replica
 * feeds decode replicas of its own node only. */
static void test_distserve_stays_in_nodes(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "4xA100|4xA100", 0.01, PLANNER_FIXTURE_CODING, 2);
    baseline_run_algorithm(&run, "distserve");
    assert_true(run.plan->objective > 0.5);
    for (uint32_t i = 0; i < run.plan->flow_count; i++) {
        const struct ts_flow *flow = &run.plan->flows[i];
        uint32_t from = run.plan->groups[flow->prefill].stages[0].gpus[0];
        uint32_t to = run.plan->groups[flow->decode].stages[0].gpus[0];
        assert_int_equal(run.fixture.cluster->gpus[from].node, run.fixture.cluster->gpus[to].node);
    }
    baseline_run_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform_deals_evenly),
        cmocka_unit_test(test_uniform_is_blind),
        cmocka_unit_test(test_uniform_alone),
        cmocka_unit_test(test_colocated_finds_the_best_cut),
        cmocka_unit_test(test_splitwise_pools_by_ratio),
        cmocka_unit_test(test_splitwise_lines_up_types),
        cmocka_unit_test(test_distserve_finds_the_best_placement),
        cmocka_unit_test(test_distserve_stays_in_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
