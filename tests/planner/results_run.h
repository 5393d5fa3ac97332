/*
 * What the results of tests/planner/RESULTS.md are made of: one algorithm, or the bound, run on one problem
 * with a budget of work, and its processor time. Budgets are in work, so that everything but the times is the
 * same on every machine. One thread.
 */
#ifndef RESULTS_RUN_H
#define RESULTS_RUN_H

#include "services/planner/plan_algorithm.h"
#include "tests/planner/planner_fixture.h"

#define RESULTS_EQUAL 1e-6 /* relative: what differs by less is a tie */

struct results_outcome {
    bool opened, finished;
    double objective, seconds;
    struct ts_plan *plan; /* NULL when there is none */
    char words[200];      /* why it did not open */
};

/* Stops early when `enough` is reached (a bound: nothing is left to find). */
struct results_outcome results_run(const struct plan_algorithm *algorithm, const struct plan_problem *problem,
                                   uint64_t work, double enough);
void results_outcome_fini(struct results_outcome *outcome);

struct results_bound {
    double value, seconds;
};
struct results_bound results_bound(const struct plan_problem *problem);

/* Scales the rates of the problem's demand to `factor` times what the cluster can serve at 90 % attainment by
 * the bound on goodput. */
void results_at_capacity(struct planner_fixture *fixture, double factor);

bool results_above(double a, double b);             /* by more than a tie */
double results_gap(double bound, double objective); /* (bound - objective) / bound */
/* Of `count` numbers, which are sorted; share 0.5 = the median. 0 when there are none. */
double results_quantile(double *values, size_t count, double share);

#endif
