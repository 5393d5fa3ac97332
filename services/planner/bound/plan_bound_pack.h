/*
 * The bound in packing form: at given prices of the classes every replica has a worth (plan_bound_item.h),
 * and the most that whole replicas can be worth together is a knapsack over the devices, solved exactly by
 * dynamic programming over counts. The prices are improved by cutting planes: each packing found is a column
 * of a small master program, whose duals are the next prices. So replicas are whole here, unlike in the
 * column program of plan_bound.c; what stays relaxed is that the program may mix packings.
 *
 * Counts are of `dims` kinds of device (cells for the exhaustive search, types for the bound). Options are
 * what may be bought; all are added before the first round. One thread.
 */
#ifndef PLAN_BOUND_PACK_H
#define PLAN_BOUND_PACK_H

#include "services/planner/bound/plan_bound_item.h"

#define PLAN_PACK_DIMS_MAX 16

struct plan_bound_pack;

/* NULL when there are more than `states_max` vectors of counts. */
struct plan_bound_pack *plan_bound_pack_new(const struct plan_problem *problem, const uint32_t *counts,
                                            uint32_t dims, size_t states_max);
void plan_bound_pack_destroy(struct plan_bound_pack **pack);

/* A vector of counts as one number, in mixed radix: sums of vectors are sums of numbers. */
size_t plan_bound_pack_states(const struct plan_bound_pack *pack);
size_t plan_bound_pack_state(const struct plan_bound_pack *pack, const uint32_t *counts);
const uint8_t *plan_bound_pack_digits(const struct plan_bound_pack *pack, size_t state);

/* Makes an item known (borrowed); returns its number. */
uint32_t plan_bound_pack_item(struct plan_bound_pack *pack, const struct plan_bound_item *item);
/* A replica that does what the item says takes the devices of `state`. */
void plan_bound_pack_add(struct plan_bound_pack *pack, size_t state, uint32_t item);
/* Prices to begin with; otherwise a few guesses. */
void plan_bound_pack_start(struct plan_bound_pack *pack, const struct plan_bound_prices *prices);

/* One packing at new prices; true when the bound cannot fall any more. */
bool plan_bound_pack_round(struct plan_bound_pack *pack);
/* In the evaluator's units; the least so far. Infinite before the first round. */
double plan_bound_pack_value(const struct plan_bound_pack *pack);

/* At the prices of the least bound so far, in requests/s: the bound is base + most(all devices), and for any
 * plan base + the sum of the worths of its replicas is a bound. */
void plan_bound_pack_settle(struct plan_bound_pack *pack);
double plan_bound_pack_base(const struct plan_bound_pack *pack);
double plan_bound_pack_most(const struct plan_bound_pack *pack, size_t state);
double plan_bound_pack_worth(const struct plan_bound_pack *pack, uint32_t item);

#endif
