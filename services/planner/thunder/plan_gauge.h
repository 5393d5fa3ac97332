/*
 * A coarse gauge of a state that costs a few nanoseconds: what its groups serve by their scores alone
 * (plan_shape_score), were all requests alike. It knows what first-order prices cannot: that prefill and
 * decode need each other, that demand ends, and that cards fill up. The search ranks neighbours by it and
 * lets the linear program judge the first few.
 *
 *   P_n, D_n = scores of prefill and decode in node n (a pipeline over nodes by its share of devices), B = of
 *   colocated groups; O_n, I_n = requests/s whose KV the node's card sends and receives
 *   kept     = sum of l_n = min(P_n, D_n): these stay inside their node
 *   crossing = min(sum of min(P_n - l_n, O_n), sum of min(D_n - l_n, I_n))
 *   capacity = soft min(P, D) * (kept + crossing) / min(P, D) + B
 *   served   = soft min(capacity, rate of the demand)
 *
 * To keep first inside what can stay is optimal: a request less kept frees one to send and one to receive,
 * which is one more crossing at best. Soft minima let the stronger side still count a little, as it does for
 * waits. One thread.
 */
#ifndef PLAN_GAUGE_H
#define PLAN_GAUGE_H

#include "services/planner/shape/plan_shape.h"

struct plan_gauge;

struct plan_gauge *plan_gauge_new(const struct plan_shapes *shapes);
void plan_gauge_destroy(struct plan_gauge **gauge);
void plan_gauge_set(struct plan_gauge *gauge, const struct plan_state *state);
/* Requests/s that the state serves without the groups `out` and with the groups `in`. */
double plan_gauge_of(struct plan_gauge *gauge, const struct plan_group *const *out, uint32_t out_count,
                     const struct plan_group *const *in, uint32_t in_count);

#endif
