/*
 * Runs a planner algorithm over a fixture and looks at its plan. A run owns shapes, evaluator and the plan's
 * state beside the plan, so that a test can judge other states by the same measure.
 */
#ifndef BASELINE_FIXTURE_H
#define BASELINE_FIXTURE_H

#include "services/planner/baseline/baseline_common.h"
#include "tests/planner/planner_fixture.h"

struct baseline_run {
    struct planner_fixture fixture;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct ts_plan *plan; /* NULL when there is none */
    struct plan_state state;
    char words[300]; /* of describe */
};

/* A cluster of planner_fixture_cluster with LLaMA-30B. */
void baseline_run_open(struct baseline_run *run, const char *cluster, double gbit,
                       enum planner_fixture_work work, double rate);
/* Over run->fixture as it is, to the end. Checks the plan, that its objective is what its own flows attain,
 * and that it is not above what the evaluator's routing makes of its groups. May be called again. */
void baseline_run_algorithm(struct baseline_run *run, const char *name);
void baseline_run_fini(struct baseline_run *run);

uint32_t baseline_run_count(const struct baseline_run *run, enum ts_phase phase);
/* Requests/s of the flows of a pair, of all classes. */
double baseline_run_rate(const struct baseline_run *run, uint32_t prefill, uint32_t decode);
/* Judged as the plan was that joins the shortest queue. */
double baseline_run_judge(struct baseline_run *run, const struct plan_state *state);

#endif
