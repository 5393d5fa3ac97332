#include "tests/planner/results_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/ts_error.h"
#include "services/planner/bound/plan_bound.h"

#define STEP       500
#define BOUND_STEP 20000

static double processor_s(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

struct results_outcome results_run(const struct plan_algorithm *algorithm, const struct plan_problem *problem,
                                   uint64_t work, double enough)
{
    struct results_outcome outcome = {.opened = false};
    struct ts_error err = {.text = ""};
    double start = processor_s();
    struct plan_search *search = algorithm->open(problem, &err);
    if (search == NULL) {
        (void)snprintf(outcome.words, sizeof outcome.words, "%.190s", err.text);
        return outcome;
    }
    outcome.opened = true;
    for (uint64_t spent = 0; spent < work && !outcome.finished; spent += STEP) {
        outcome.finished = algorithm->step(search, STEP);
        if (outcome.finished || spent / STEP % 8 == 7) {
            ts_plan_destroy(&outcome.plan);
            outcome.plan = algorithm->best(search);
            if (outcome.plan != NULL && !results_above(enough, outcome.plan->objective))
                break;
        }
    }
    ts_plan_destroy(&outcome.plan);
    outcome.plan = algorithm->best(search);
    outcome.objective = outcome.plan != NULL ? outcome.plan->objective : 0;
    algorithm->close(&search);
    outcome.seconds = processor_s() - start;
    return outcome;
}

void results_outcome_fini(struct results_outcome *outcome)
{
    ts_plan_destroy(&outcome->plan);
}

struct results_bound results_bound(const struct plan_problem *problem)
{
    double start = processor_s();
    struct plan_shapes *shapes = plan_shapes_new(problem);
    struct plan_bound *bound = plan_bound_new(shapes);
    while (!plan_bound_step(bound, BOUND_STEP)) {
    }
    struct results_bound out = {.value = plan_bound_value(bound)};
    plan_bound_destroy(&bound);
    plan_shapes_destroy(&shapes);
    out.seconds = processor_s() - start;
    return out;
}

void results_at_capacity(struct planner_fixture *fixture, double factor)
{
    struct plan_problem problem = fixture->problem;
    problem.objective = PLAN_GOODPUT;
    double capacity = results_bound(&problem).value;
    if (isfinite(capacity) && capacity > 0)
        ts_demand_scale_rate(&fixture->demand, factor * capacity / ts_demand_rate(&fixture->demand));
}

bool results_above(double a, double b)
{
    return a > b + RESULTS_EQUAL * fmax(fabs(a), 1e-6);
}

double results_gap(double bound, double objective)
{
    return bound > 0 ? fmax(0, bound - objective) / bound : 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double results_quantile(double *values, size_t count, double share)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, by_value);
    double at = share * (double)(count - 1);
    size_t low = (size_t)at, high = low + 1 < count ? low + 1 : low;
    return values[low] + (at - (double)low) * (values[high] - values[low]);
}
