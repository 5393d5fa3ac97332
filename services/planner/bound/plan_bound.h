/*
 * An upper bound on the objective of every plan of a problem: the column program in which replicas of any
 * legal shape may be bought in fractions with the devices of their types. It ignores that replicas are whole,
 * that they must be packed into nodes (but for TP, which it keeps inside nodes), and that links have limits
 * (each flow gets the best link of the cluster). README.md derives it.
 *
 * Resumable: steps are counted in shapes priced. The bound is valid at every moment (by the duals at hand)
 * and falls with more steps.
 */
#ifndef PLAN_BOUND_H
#define PLAN_BOUND_H

#include "services/planner/shape/plan_shape.h"

struct plan_bound;

struct plan_bound *plan_bound_new(struct plan_shapes *shapes);
void plan_bound_destroy(struct plan_bound **bound);
bool plan_bound_step(struct plan_bound *bound, uint64_t budget); /* true when it cannot fall any more */
double plan_bound_value(const struct plan_bound *bound);

/* Money: devices may be bought at their prices, up to the cluster's counts. The most objective for
 * `dollars_per_hour` (0 = all devices), fractional; `counts` (per type, may be NULL) receives what it buys.
 */
double plan_bound_budget(struct plan_bound *bound, double dollars_per_hour, double *counts);

#endif
