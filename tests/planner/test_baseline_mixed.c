/* hexgen, hexgen2, helix and paper: cases whose answer follows from what they say they do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_cluster.h"
#include "services/planner/baseline/baseline_moves.h"
#include "tests/planner/baseline_fixture.h"

/* --- hexgen --- */

struct all { /* every way to put a few devices into colocated groups, or into none */
    struct baseline_run *run;
    struct baseline base;
    uint32_t cell_of[8], label[8], devices;
    double best;
    uint32_t tried;
};

static void try_labels(struct all *all, uint32_t groups)
{
    const uint32_t cells = all->run->fixture.cluster->cell_count;
    struct plan_state state;
    bool fits = groups > 0;
    plan_state_init(&state);
    for (uint32_t g = 1; g <= groups && fits; g++) {
        uint32_t counts[8] = {0};
        struct plan_group group;
        for (uint32_t i = 0; i < all->devices; i++)
            counts[all->cell_of[i]] += all->label[i] == g;
        assert_true(cells <= 8);
        fits = baseline_group(&all->base, counts, TS_PHASE_BOTH, &group);
        if (fits)
            (void)plan_state_add(&state, &group);
    }
    if (fits) {
        all->best = fmax(all->best, baseline_run_judge(all->run, &state));
        all->tried++;
    }
    plan_state_fini(&state);
}

/* Label 0 is idle; a label is used only after those before it, so no partition comes twice. */
static void label_from(struct all *all, uint32_t device, uint32_t groups)
{
    if (device == all->devices) {
        try_labels(all, groups);
        return;
    }
    for (uint32_t l = 0; l <= groups + 1; l++) {
        all->label[device] = l;
        label_from(all, device + 1, l > groups ? l : groups);
    }
}

static void hexgen_case(const char *cluster, bool small, double gbit, double rate)
{
    struct baseline_run run;
    baseline_run_open(&run, cluster, gbit, PLANNER_FIXTURE_CONVERSATION, rate);
    if (small)
        run.fixture.model = planner_fixture_llama_8b();
    baseline_run_algorithm(&run, "hexgen");
    struct all all = {.run = &run, .base = {.problem = &run.fixture.problem, .shapes = run.shapes}};
    for (uint32_t cell = 0; cell < run.fixture.cluster->cell_count; cell++) {
        for (uint32_t i = 0; i < run.fixture.cluster->cells[cell].count; i++)
            all.cell_of[all.devices++] = cell;
    }
    label_from(&all, 0, 0);
    assert_true(all.tried > 1);
    assert_float_equal(run.plan->objective, all.best, 1e-6);
    baseline_run_fini(&run);
}

static void test_hexgen_finds_the_best_partition(void **state)
{
    (void)state;
    hexgen_case("2xA40|2xA6000", false, 40, 0.5);
    hexgen_case("2xA40|2xA6000", false, 40, 4);
    hexgen_case("1xA100|1xA40|2xA5000", false, 10, 1);
    hexgen_case("1xA100|1xA40|2xA5000", true, 10, 10);
    hexgen_case("2x4090|1xA40|1xL4", true, 1, 3);
    hexgen_case("2x4090|1xA40|2xL4", true, 40, 20);
}

/* --- hexgen2 --- */

/* Two nodes of four with a fast inside and a slow way between: the first cut goes between the nodes, from
 * whatever shares. */
static void test_bisection_goes_through_the_slow_link(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("2xA40+2xA6000|2xA40+2xA6000", 1),
                         PLANNER_FIXTURE_CODING, 1);
    const uint32_t counts[4] = {2, 2, 2, 2};
    uint32_t side[4];
    baseline_bisect(&f.problem, counts, 0.5, side);
    assert_int_equal(side[0], side[1]);
    assert_int_equal(side[2], side[3]);
    assert_int_equal(side[0] + side[2], 2);
    planner_fixture_fini(&f);
}

/* Nodes that are good for themselves: no group spans two of them, both phases are there, and requests follow
 * the flow: what a prefill group sends on is what it takes in. */
static void test_hexgen2_partitions_by_bandwidth(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "4xA100|4xA100|4xA100|4xA100", 5, PLANNER_FIXTURE_CONVERSATION, 2);
    baseline_run_algorithm(&run, "hexgen2");
    assert_int_equal(baseline_run_count(&run, TS_PHASE_BOTH), 0);
    assert_true(baseline_run_count(&run, TS_PHASE_PREFILL) > 0);
    assert_true(baseline_run_count(&run, TS_PHASE_DECODE) > 0);
    for (uint32_t g = 0; g < run.plan->group_count; g++) {
        const struct ts_group *group = &run.plan->groups[g];
        for (uint32_t s = 1; s < group->stage_count; s++)
            assert_int_equal(run.fixture.cluster->gpus[group->stages[s].gpus[0]].node,
                             run.fixture.cluster->gpus[group->stages[0].gpus[0]].node);
    }
    baseline_run_fini(&run);
}

/* The flow is bound by the side with less: with one prefill group of rate p and one decode group of rate d
 * the best of both assignments is chosen. Two nodes that hold one group each. */
static void test_hexgen2_chooses_phases_by_flow(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "2xA40|2x3090Ti+2x3090Ti", 100, PLANNER_FIXTURE_CODING, 0.5);
    baseline_run_algorithm(&run, "hexgen2");
    struct baseline base = {.problem = &run.fixture.problem, .shapes = run.shapes};
    assert_int_equal(run.plan->group_count, 2);
    double score[2][2], chosen = 0, other = 0;
    for (uint32_t g = 0; g < 2; g++) {
        for (uint32_t p = 0; p < 2; p++) {
            struct plan_group group = run.state.groups[g];
            assert_true(baseline_turn(&base, &group, p ? TS_PHASE_DECODE : TS_PHASE_PREFILL));
            score[g][p] = baseline_score(&base, &group);
        }
    }
    bool first = run.plan->groups[0].phase == TS_PHASE_PREFILL;
    chosen = first ? fmin(score[0][0], score[1][1]) : fmin(score[1][0], score[0][1]);
    other = first ? fmin(score[1][0], score[0][1]) : fmin(score[0][0], score[1][1]);
    assert_true(chosen >= other);
    baseline_run_fini(&run);
}

/* --- helix --- */

static void flows_of(const struct baseline_run *run, double *flow, double *chains)
{
    const char *at = strstr(run->words, "flow ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "flow %lf", flow), 1);
    at = strstr(run->words, "carry ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "carry %lf", chains), 1);
}

/* One A100 with half of the layers and two A40 side by side with the other half: fixed chains can take one
 * A40 only, so half of the flow is lost, and helix says so. */
static void test_helix_says_what_the_cut_loses(void **state)
{
    (void)state;
    struct baseline_run run;
    double flow, chains;
    baseline_run_open(&run, "1xA100|1xA40|1xA40", 40, PLANNER_FIXTURE_CODING, 0.2);
    baseline_run_algorithm(&run, "helix");
    flows_of(&run, &flow, &chains);
    assert_int_equal(run.plan->group_count, 1);
    assert_int_equal(run.plan->groups[0].stage_count, 2);
    assert_float_equal(chains, flow / 2, 0.01 * flow);
    assert_non_null(strstr(run.words, "the cut loses 50"));
    baseline_run_fini(&run);
}

/* Equal machines: whatever number of stages divides them, chains of one machine for each stage carry it all.
 */
static void test_helix_loses_nothing_on_equal_machines(void **state)
{
    (void)state;
    struct baseline_run run;
    double flow, chains;
    baseline_run_open(&run, "1xA40|1xA40|1xA40|1xA40", 40, PLANNER_FIXTURE_CODING, 0.02);
    for (uint32_t stages = 2; stages <= 4; stages += 2) {
        run.fixture.problem.max_stages = stages;
        baseline_run_algorithm(&run, "helix");
        flows_of(&run, &flow, &chains);
        assert_float_equal(chains, flow, 1e-3 * flow);
        assert_int_equal(run.plan->groups[0].stage_count * run.plan->group_count, 4);
        for (uint32_t g = 1; g < run.plan->group_count; g++)
            assert_float_equal(baseline_run_rate(&run, g, g), baseline_run_rate(&run, 0, 0), 1e-9);
    }
    baseline_run_fini(&run);
}

/* --- paper --- */

/* a and b are joined at 100 Gbit/s, both to c at 1: a and b come first, c joins last. */
static void test_dendrogram(void **state)
{
    (void)state;
    struct ts_cluster *cluster = planner_fixture_cluster("2xA40|2xA40|2xA40", 1);
    uint32_t a[2], b[2];
    cluster->links[0 * 3 + 2].bytes_per_s = cluster->links[2 * 3 + 0].bytes_per_s = 12.5e9;
    baseline_dendrogram(cluster, a, b);
    assert_int_equal(a[0], 0);
    assert_int_equal(b[0], 2);
    assert_int_equal(a[1], 3);
    assert_int_equal(b[1], 1);
    ts_cluster_destroy(&cluster);
}

/* The attainment of each pair at evenly spread load, as the one-row program sees it. */
static double pair_attainment(struct baseline_run *run, uint32_t i, uint32_t j)
{
    struct plan_share shares[64];
    struct plan_result result;
    uint32_t count = 0;
    double attained = 0;
    for (uint32_t a = 0; a < run->state.count; a++) {
        for (uint32_t b = 0; b < run->state.count; b++) {
            if (run->state.groups[a].phase == TS_PHASE_PREFILL &&
                run->state.groups[b].phase == TS_PHASE_DECODE)
                shares[count++] = (struct plan_share){a, b, TS_COST_CODEC_I4, 0, 0};
        }
    }
    for (uint32_t s = 0; s < count; s++)
        shares[s].share = 1.0 / count;
    (void)plan_eval_fixed(run->eval, &run->state, shares, count, &result);
    for (uint32_t f = 0; f < result.flow_count; f++)
        attained +=
            result.flows[f].prefill == i && result.flows[f].decode == j ? result.flows[f].attained : 0;
    return attained * count / ts_demand_rate(&run->fixture.demand);
}

/* Everything goes to the best pair: no pair that carries requests is worse than any other. */
static void test_paper_routes_to_the_best_pair(void **state)
{
    (void)state;
    uint32_t idle = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct baseline_run run;
        baseline_run_open(&run, "4xA100|4xA40|4xA6000", 40, (enum planner_fixture_work)(seed % 2), 6);
        run.fixture.problem.seed = seed;
        baseline_run_algorithm(&run, "paper");
        double best = 0;
        for (uint32_t i = 0; i < run.state.count; i++) {
            for (uint32_t j = 0; j < run.state.count; j++)
                best = fmax(best, pair_attainment(&run, i, j));
        }
        for (uint32_t i = 0; i < run.state.count; i++) {
            for (uint32_t j = 0; j < run.state.count; j++) {
                if (baseline_run_rate(&run, i, j) > 0)
                    assert_float_equal(pair_attainment(&run, i, j), best, 1e-6);
                else
                    idle += pair_attainment(&run, i, j) > 0;
            }
        }
        for (uint32_t f = 0; f < run.plan->flow_count; f++)
            assert_int_equal(run.plan->flows[f].codec, TS_COST_CODEC_I4);
        assert_int_equal(baseline_run_count(&run, TS_PHASE_BOTH), 0);
        double judged, routed; /* the same groups by the program, in its last line */
        const char *words = strstr(run.words, "judged ");
        assert_non_null(words);
        assert_int_equal(sscanf(words, "judged %lf; routed with capacities %lf", &judged, &routed), 2);
        assert_float_equal(judged, run.plan->objective, 1e-3);
        assert_float_equal(routed, plan_eval_run(run.eval, &run.state, NULL), 1e-3);
        baseline_run_fini(&run);
    }
    assert_true(idle > 0); /* some pair that could have served got nothing */
}

/* The A40 is too small alone, so clustering makes one group of all; only a cut through the H100 leads to two.
 */
static void test_paper_cuts_through_a_cell(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "1xA40|3xH100", 40, PLANNER_FIXTURE_CODING, 0.2);
    baseline_run_algorithm(&run, "paper");
    assert_non_null(run.plan);
    assert_true(run.plan->objective > 0.5);
    baseline_run_fini(&run);
}

/* Equal pairs are all best: they share. */
static void test_paper_ties_share(void **state)
{
    (void)state;
    struct baseline_run run;
    baseline_run_open(&run, "2xA100|2xA100", 100, PLANNER_FIXTURE_CODING, 0.01);
    run.fixture.problem.max_stages = 1;
    baseline_run_algorithm(&run, "paper");
    assert_true(run.plan->flow_count > 0);
    for (uint32_t i = 1; i < run.plan->flow_count; i++)
        assert_float_equal(run.plan->flows[i].rate, run.plan->flows[0].rate, 1e-9);
    baseline_run_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hexgen_finds_the_best_partition),
        cmocka_unit_test(test_bisection_goes_through_the_slow_link),
        cmocka_unit_test(test_hexgen2_partitions_by_bandwidth),
        cmocka_unit_test(test_hexgen2_chooses_phases_by_flow),
        cmocka_unit_test(test_helix_says_what_the_cut_loses),
        cmocka_unit_test(test_helix_loses_nothing_on_equal_machines),
        cmocka_unit_test(test_dendrogram),
        cmocka_unit_test(test_paper_routes_to_the_best_pair),
        cmocka_unit_test(test_paper_cuts_through_a_cell),
        cmocka_unit_test(test_paper_ties_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
