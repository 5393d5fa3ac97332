/*
 * The referee of linear programs: told a program and what a solver claims of it, recomputes everything. Knows
 * nothing of GLPK, and shares no number with the solver but the program as it was given.
 *
 * By weak duality (Bertsimas and Tsitsiklis, Introduction to Linear Optimization, section 4.3) a feasible x
 * and feasible duals of equal objective prove each other optimal; complementary slackness follows, and is
 * checked apart because it names the row or column at fault.
 */
#ifndef LP_REFEREE_H
#define LP_REFEREE_H

#include "services/planner/eval/plan_lp.h"

/* max gain x, sum of terms <= limits, x >= 0. Borrowed. */
struct lp_program {
    const double *limits; /* of rows */
    uint32_t rows;
    const double *gains; /* of columns */
    const size_t *first; /* columns + 1: where the terms of a column begin */
    const struct plan_lp_term *terms;
    uint32_t columns;
};

#define LP_TOLERANCE 1e-7

/*
 * True when x and duals are not negative, no row is over its limit, no column would gain at the duals, both
 * objectives agree with `objective`, and a row with slack has no price and a column in use no loss; each
 * within LP_TOLERANCE of the sizes that were added up. A column that could not lift the objective by
 * that much at its largest possible value is not held against the duals.
 */
bool lp_check(const struct lp_program *program, const double *x, const double *duals, double objective,
              struct ts_error *err);

/* The solution at hand, against the program as it was given. */
bool lp_verify(const struct plan_lp *lp, struct ts_error *err);

#endif
