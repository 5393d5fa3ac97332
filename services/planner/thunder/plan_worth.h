/*
 * What a group would be worth in a state, by the prices (duals) of the state's linear program: the objective
 * that one more replica of this shape would add, to first order. The program is concave in its capacities, so
 * this is an estimate from above up to the shortcuts that make it cheap: a partner's misses are added without
 * looking at pairs, and the KV transfer is that from the cheapest partner.
 *
 *   profit of a request of class k = gain - price_k - cheapest partner - gain * own misses - NIC prices
 *   worth of prefill   = max over (k, point) of profit / prefill share
 *   worth of decode    = min over weights a + b = 1 of max over (k, point) of profit / (a compute + b memory)
 *
 * Tables of misses are kept per shape and visible transfer time; one object serves a whole search. One
 * thread.
 */
#ifndef PLAN_WORTH_H
#define PLAN_WORTH_H

#include "services/planner/eval/plan_eval.h"

struct plan_worth;

struct plan_worth *plan_worth_new(const struct plan_shapes *shapes);
void plan_worth_destroy(struct plan_worth **worth);
/* Takes the prices of this result of this state; both may go afterwards. */
void plan_worth_set(struct plan_worth *worth, const struct plan_state *state,
                    const struct plan_result *result);
double plan_worth_of(struct plan_worth *worth, const struct plan_group *group); /* has its shape */

#endif
