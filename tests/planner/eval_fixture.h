/*
 * States for tests of the evaluator, and the evaluator's program once more from its definitions: a row for
 * each group, all columns at once, paths walked layer by layer.
 */
#ifndef EVAL_FIXTURE_H
#define EVAL_FIXTURE_H

#include "services/planner/eval/plan_eval.h"
#include "tests/planner/planner_fixture.h"

struct eval_fixture {
    struct planner_fixture base;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_state state;
};

/* Over fixture->base, which is there: shapes, evaluator, an empty state. To be called again after a change of
 * the problem. */
void eval_fixture_open(struct eval_fixture *fixture);
void eval_fixture_reopen(struct eval_fixture *fixture); /* the evaluator alone: rates or objective changed */
void eval_fixture_fini(struct eval_fixture *fixture);

/* "P 0:4/2" = a prefill replica on 4 devices of cell 0 at TP 2; "D 1:2/2+3:2/1", "B ..." alike; several
 * between blanks and ','. A group that does not fit fails the test. */
void eval_fixture_groups(struct eval_fixture *fixture, const char *text);
/* Random groups of 1..3 parts until little is idle; what does not fit is left out. */
void eval_fixture_random_groups(struct eval_fixture *fixture, uint64_t seed);

/* The optimum of the whole program, checked by the referee. */
double eval_fixture_full(const struct eval_fixture *fixture);
/* Runs the evaluator and checks program, rows and flows of its result. Returns the objective. */
double eval_fixture_run(struct eval_fixture *fixture, struct plan_result *out);

#endif
