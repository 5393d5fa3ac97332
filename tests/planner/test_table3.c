/* The paper's two deployments on its cloud: legal, judged on its two workloads, and no better than ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/inputs/ts_inputs.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"
#include "tests/planner/fixture_table3.h"

#define WORK_MAX  200000 /* units of the search: past it thunder has failed */
#define WORK_STEP 500

struct world {
    struct ts_catalogue *catalogue;
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
    struct plan_problem problem;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
};

static void check(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static void open_world(struct world *w, const char *devices, const char *cluster, const char *workload,
                       double rate)
{
    struct ts_error err = {0};
    *w = (struct world){0};
    check(ts_catalogue_load(TS_CONF_DIR, devices, &w->catalogue, &err), &err);
    check(ts_inputs_cluster(w->catalogue, TS_CONF_DIR, cluster, &w->cluster, &err), &err);
    check(ts_inputs_model(TS_CONF_DIR, "llama-30b", &w->model, &err), &err);
    check(ts_inputs_demand(TS_CONF_DIR, workload, rate, &w->demand, &err), &err);
    check(ts_inputs_slo(w->catalogue, TS_CONF_DIR, "scale-5", &w->model, &w->demand, &err), &err);
    w->problem = plan_problem_defaults(w->cluster, &w->model, &w->demand);
    check(plan_problem_check(&w->problem, &err), &err);
    w->shapes = plan_shapes_new(&w->problem);
    w->eval = plan_eval_new(w->shapes);
}

static void close_world(struct world *w)
{
    plan_eval_destroy(&w->eval);
    plan_shapes_destroy(&w->shapes);
    ts_cluster_destroy(&w->cluster);
    ts_catalogue_destroy(&w->catalogue);
}

/* The objective of the paper's deployment under our routing. */
static double judge_table(struct world *w, bool coding)
{
    struct ts_error err = {0};
    struct ts_plan *plan = fixture_table3(w->cluster, &w->model, coding);
    struct plan_state state;
    bool used[64] = {false};
    plan_state_init(&state);
    check(ts_plan_check(plan, w->cluster, &w->model, &w->demand, &err), &err);
    for (uint32_t g = 0; g < plan->group_count; g++) {
        for (uint32_t s = 0; s < plan->groups[g].stage_count; s++) {
            for (uint32_t i = 0; i < plan->groups[g].stages[s].tp; i++)
                used[plan->groups[g].stages[s].gpus[i]] = true;
        }
    }
    for (uint32_t g = 0; g < 32; g++) /* the table leaves no device idle */
        assert_true(used[g]);
    check(plan_state_of_plan(w->shapes, plan, &state, &err), &err);
    double objective = plan_eval_run(w->eval, &state, NULL);
    plan_state_fini(&state);
    ts_plan_destroy(&plan);
    return objective;
}

static void test_evaluator_accepts_both(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct world w;
        bool coding = i % 2 == 0;
        open_world(&w, i < 2 ? "paper" : "measured", "paper-cloud", coding ? "azure-code" : "azure-conv", 4);
        double objective = judge_table(&w, coding);
        assert_true(objective > 0.3 && objective <= 1);
        close_world(&w);
    }
}

/* Each deployment is the better one on the workload that it was found for, with devices as measured: coding
 * needs prefill, conversation decode. (By the paper's catalogue, which understates prefill of all but A40,
 * the coding deployment is not the better one.) */
static void test_each_on_its_own_workload(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "measured", "paper-cloud", "azure-code", 4);
    assert_true(judge_table(&w, true) > judge_table(&w, false));
    close_world(&w);
    open_world(&w, "measured", "paper-cloud", "azure-conv", 4);
    assert_true(judge_table(&w, false) > judge_table(&w, true));
    close_world(&w);
}

/* Steps thunder until it is as good. */
static void thunder_reaches(const char *devices, const char *cluster, bool coding, double rate)
{
    const struct plan_algorithm *thunder = plan_algorithm_find("thunder");
    struct ts_error err = {0};
    struct world w;
    open_world(&w, devices, cluster, coding ? "azure-code" : "azure-conv", rate);
    double table = judge_table(&w, coding), best = 0;
    struct plan_search *search = thunder->open(&w.problem, &err);
    assert_non_null(search);
    bool done = false;
    for (uint64_t spent = 0; spent < WORK_MAX && !done && best < table; spent += WORK_STEP) {
        done = thunder->step(search, WORK_STEP);
        struct ts_plan *plan = thunder->best(search);
        best = plan ? plan->objective : 0;
        ts_plan_destroy(&plan);
    }
    if (best < table)
        fail_msg("%s %s at %g requests/s: thunder %.9g, table 3 %.9g", cluster,
                 coding ? "coding" : "conversation", rate, best, table);
    thunder->close(&search);
    close_world(&w);
}

static void test_thunder_is_as_good(void **state)
{
    (void)state;
    for (uint32_t coding = 0; coding <= 1; coding++) {
        for (double rate = 2; rate <= 32; rate *= 2)
            thunder_reaches("paper", "paper-cloud", coding == 1, rate);
        thunder_reaches("paper", "paper-cloud,link=5Gbit", coding == 1, 6);
        thunder_reaches("measured", "paper-cloud", coding == 1, 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluator_accepts_both),
        cmocka_unit_test(test_each_on_its_own_workload),
        cmocka_unit_test(test_thunder_is_as_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
