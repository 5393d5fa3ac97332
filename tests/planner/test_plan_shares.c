/*
 * What the paper's comparison of workloads shows (ThunderServe, table 3): coding, with its long prompts and
 * short outputs, puts a larger share of the cluster into prefill than conversation does. And what slow links
 * do: less KV crosses between nodes. Both follow from costs; nothing in the code knows the workloads' names.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_algorithm.h"
#include "tests/planner/planner_fixture.h"

#define WORK 25000

static struct ts_plan *solve(const struct plan_problem *problem)
{
    struct plan_search *search = plan_algorithm_thunder.open(problem, NULL);
    assert_non_null(search);
    plan_algorithm_thunder.step(search, WORK);
    struct ts_plan *plan = plan_algorithm_thunder.best(search);
    assert_non_null(plan);
    plan_algorithm_thunder.close(&search);
    return plan;
}

/* Of the price of all devices in use. */
static double prefill_share(const struct planner_fixture *f, const struct ts_plan *plan)
{
    double prefill = 0, all = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        for (uint32_t s = 0; s < group->stage_count; s++) {
            const struct ts_gpu *gpu = &f->cluster->gpus[group->stages[s].gpus[0]];
            double price = group->stages[s].tp * f->cluster->types[gpu->type].price_per_hour;
            all += price;
            prefill += group->phase == TS_PHASE_PREFILL ? price : 0;
        }
    }
    return prefill / all;
}

/* The share at 80 % of the rate that a plan for this workload can serve. */
static double share_of(enum planner_fixture_work work, double lengths)
{
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_paper_cloud(40), work, 10);
    ts_demand_scale_lengths(&f.demand, lengths);
    f.problem.colocate = false;
    f.problem.objective = PLAN_GOODPUT;
    struct ts_plan *most = solve(&f.problem);
    ts_demand_scale_rate(&f.demand, 0.8 * most->objective / ts_demand_rate(&f.demand));
    f.problem.objective = PLAN_ATTAINMENT;
    struct ts_plan *plan = solve(&f.problem);
    double share = prefill_share(&f, plan);
    print_message("lengths %.2f: goodput %.2f, attainment %.3f, prefill %.3f of the price\n", lengths,
                  most->objective, plan->objective, share);
    assert_true(plan->objective > 0.9);
    ts_plan_destroy(&most);
    ts_plan_destroy(&plan);
    planner_fixture_fini(&f);
    return share;
}

static void test_coding_takes_more_prefill(void **unused)
{
    (void)unused;
    static const double lengths[] = {0.8, 1, 1.25};
    for (int i = 0; i < 3; i++) {
        double coding = share_of(PLANNER_FIXTURE_CODING, lengths[i]);
        assert_true(coding > share_of(PLANNER_FIXTURE_CONVERSATION, lengths[i]));
    }
}

/* Bytes of KV that cross between nodes, per request served: by the layers that change nodes. */
static double crossing_bytes(const struct planner_fixture *f, const struct ts_plan *plan)
{
    double bytes = 0, served = 0;
    for (uint32_t i = 0; i < plan->flow_count; i++) {
        const struct ts_flow *flow = &plan->flows[i];
        uint32_t at[2][TS_MODEL_LAYERS_MAX], crossing = 0;
        const struct ts_group *ends[2] = {&plan->groups[flow->prefill], &plan->groups[flow->decode]};
        for (int e = 0; e < 2; e++) {
            uint32_t layer = 0;
            for (uint32_t s = 0; s < ends[e]->stage_count; s++) {
                for (uint32_t l = 0; l < ends[e]->stages[s].layers; l++)
                    at[e][layer++] = f->cluster->gpus[ends[e]->stages[s].gpus[0]].node;
            }
        }
        for (uint32_t l = 0; l < f->model.layers; l++)
            crossing += at[0][l] != at[1][l];
        double tokens = f->demand.classes[flow->length_class].prompt_tokens;
        bytes += flow->rate * crossing / f->model.layers * tokens * ts_cost_codec_ratio(flow->codec, tokens) *
                 (double)ts_model_kv_token_bytes(&f->model);
        served += flow->rate;
    }
    return bytes / served;
}

static void test_slow_links_carry_less(void **unused)
{
    (void)unused;
    static const enum planner_fixture_work works[] = {PLANNER_FIXTURE_CODING, PLANNER_FIXTURE_CONVERSATION};
    for (int w = 0; w < 2; w++) {
        double bytes[2];
        for (int slow = 0; slow < 2; slow++) {
            struct planner_fixture f;
            planner_fixture_init(&f, planner_fixture_paper_cloud(slow ? 5 : 40), works[w], 8);
            struct ts_plan *plan = solve(&f.problem);
            bytes[slow] = crossing_bytes(&f, plan);
            ts_plan_destroy(&plan);
            planner_fixture_fini(&f);
        }
        print_message("KV bytes per request between nodes: %.3g at 40 Gbit/s, %.3g at 5\n", bytes[0],
                      bytes[1]);
        assert_true(bytes[1] < bytes[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coding_takes_more_prefill),
        cmocka_unit_test(test_slow_links_carry_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
