/*
 * ts-planner-bench: how long the planner takes, one core. Medians over rounds (seed = round). The floor of a
 * search is its evaluations times that of one evaluation, measured beside it; of one evaluation there is
 * none. peak_mb is that of the process so far.
 *
 *   ts-planner-bench [conf folder]
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "services/planner/thunder/plan_thunder.h"

#define ROUNDS_MAX 31

struct bench {
    struct ts_catalogue *catalogue;
    const char *conf_dir;
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
    struct plan_problem problem;
    const char *name; /* cluster/workload */
};

static void fatal(const struct ts_error *err)
{
    fprintf(stderr, "ts-planner-bench: %s\n", err->text);
    exit(1);
}

/* The share of the demand's rate that makes capacity bind, so that there is something to decide. */
static void bench_open(struct bench *b, const char *cluster, const char *workload, double rate)
{
    struct ts_error err = {0};
    if (ts_inputs_cluster(b->catalogue, b->conf_dir, cluster, &b->cluster, &err) != TS_OK ||
        ts_inputs_model(b->conf_dir, "llama-30b", &b->model, &err) != TS_OK ||
        ts_inputs_demand(b->conf_dir, workload, rate, &b->demand, &err) != TS_OK ||
        ts_inputs_slo(b->catalogue, b->conf_dir, "scale-5", &b->model, &b->demand, &err) != TS_OK)
        fatal(&err);
    b->problem = plan_problem_defaults(b->cluster, &b->model, &b->demand);
    if (plan_problem_check(&b->problem, &err) != TS_OK)
        fatal(&err);
    b->name = workload;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static double peak_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void row(const struct bench *b, const char *what, double *ms, int rounds, uint64_t evaluations,
                double floor_ms, double objective)
{
    double middle = median(ms, rounds);
    printf("%s,%s,%s,%u,%d,%.4f,", what, b->cluster->name, b->name, b->cluster->gpu_count, rounds, middle);
    if (floor_ms > 0)
        printf("%llu,%.4f,%.2f,", (unsigned long long)evaluations, floor_ms, middle / floor_ms);
    else
        printf("%llu,,,", (unsigned long long)evaluations);
    printf("%.6f,%.1f\n", objective, peak_mb());
    fflush(stdout);
}

/* One neighbour after the other: the state without one of its groups, and whole again. */
static double bench_evaluation(struct bench *b, const struct ts_plan *plan)
{
    struct plan_shapes *shapes = plan_shapes_new(&b->problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    struct ts_error err = {0};
    double ms[ROUNDS_MAX], objective = 0;
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, plan, &state, &err) != TS_OK)
        fatal(&err);
    plan_eval_run(eval, &state, NULL);
    for (int i = 0; i < ROUNDS_MAX; i++) {
        struct plan_group group = state.groups[(uint32_t)i % state.count];
        ts_time start = ts_clock_now();
        plan_state_remove(&state, (uint32_t)i % state.count);
        plan_eval_run(eval, &state, NULL);
        plan_state_add(&state, &group);
        objective = plan_eval_run(eval, &state, NULL);
        ms[i] = (double)(ts_clock_now() - start) / 2e6;
    }
    row(b, "evaluation", ms, ROUNDS_MAX, 1, 0, objective);
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return median(ms, ROUNDS_MAX);
}

/* From the problem to the finished plan. */
static struct ts_plan *bench_search(struct bench *b, const char *what, int rounds, double evaluation_ms)
{
    struct ts_plan *plan = NULL;
    double ms[ROUNDS_MAX];
    uint64_t evaluations = 0;
    for (int i = 0; i < rounds; i++) {
        struct ts_error err = {0};
        ts_plan_destroy(&plan);
        b->problem.seed = (uint64_t)i + 1;
        ts_time start = ts_clock_now();
        struct plan_search *search = plan_algorithm_thunder.open(&b->problem, &err);
        if (!search)
            fatal(&err);
        while (!plan_algorithm_thunder.step(search, 1000)) {
        }
        plan = plan_algorithm_thunder.best(search);
        ms[i] = (double)(ts_clock_now() - start) / 1e6;
        evaluations = search->evaluations;
        plan_algorithm_thunder.close(&search);
    }
    row(b, what, ms, rounds, evaluations, evaluation_ms * (double)evaluations, plan ? plan->objective : 0);
    return plan;
}

static void bench_case(struct bench *b, const char *cluster, const char *workload, double rate, int rounds)
{
    bench_open(b, cluster, workload, rate);
    struct ts_plan *plan = bench_search(b, "full", rounds, 0);
    if (plan) {
        double evaluation_ms = bench_evaluation(b, plan);
        b->problem.current = plan;
        ts_demand_scale_rate(&b->demand, 0.9); /* the workload moved */
        b->problem.depth = PLAN_FLIP;
        struct ts_plan *other = bench_search(b, "flip", rounds, evaluation_ms);
        ts_plan_destroy(&other);
        b->problem.depth = PLAN_REROUTE;
        other = bench_search(b, "re-route", 5 * rounds, evaluation_ms);
        ts_plan_destroy(&other);
    }
    ts_plan_destroy(&plan);
    ts_cluster_destroy(&b->cluster);
}

int main(int argc, char **argv)
{
    struct bench b = {.conf_dir = argc > 1 ? argv[1] : "conf"};
    struct ts_error err = {0};
    if (ts_catalogue_load(b.conf_dir, "measured", &b.catalogue, &err) != TS_OK)
        fatal(&err);
    printf("what,cluster,workload,gpus,rounds,ms,evaluations,floor_ms,ratio,objective,peak_mb\n");
    bench_case(&b, "paper-cloud", "azure-code", 10, 5);
    bench_case(&b, "paper-cloud", "azure-conv", 10, 5);
    bench_case(&b, "gpus-256", "azure-conv", 500, 1);
    ts_catalogue_destroy(&b.catalogue);
    return 0;
}
