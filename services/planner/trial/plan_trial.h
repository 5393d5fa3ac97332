/*
 * A plan tried on drawn requests: arrivals and lengths of the demand go through the queues of its replicas,
 * one after the other, and what is in time is counted. The linear program (plan_eval.h) ranks thousands of
 * states by formulas for a replica in equilibrium; a trial judges a few whole plans where formulas are weak:
 * near saturation and beyond, where waits depend on how long the load has lasted; in colocated replicas,
 * whose batches mix both phases; where KV memory is held during prefill and transfer.
 *
 * Replicas take batches by the workers' own policies (services/prefill/prefill_batch.h), requests go to
 * replicas by the router's own (services/router/route_policy.h), and a batch takes the time of the cost model
 * in each stage. Nothing is refused: what the program would refuse is served late. Left out: messages,
 * tokenising, noise; a transfer holds a card and a link alone instead of sharing them.
 *
 * Pure and deterministic for a seed. One thread.
 */
#ifndef PLAN_TRIAL_H
#define PLAN_TRIAL_H

#include "services/planner/plan_problem.h"

#define PLAN_TRIAL_REQUESTS 2000 /* of a promise: 95 % of them lie within 2.2 points of the long run */

struct plan_trial {
    uint32_t requests;
    double ttft, tpot, e2e, all; /* shares in time of all requests; one without a deadline meets it */
};

/* Flows of the plan are its shares, whatever part of the rates they carry; the requests come at the rates of
 * the problem's demand times `scale`. Without a flow they go by load. */
struct plan_trial plan_trial_run(const struct plan_problem *problem, const struct ts_plan *plan, double scale,
                                 uint32_t requests, uint64_t seed);
/* At least so many, and more for many replicas: each must see its share. */
uint32_t plan_trial_requests(const struct ts_plan *plan, uint32_t least);
/* The mean of several, at the demand's rates. */
struct plan_trial plan_trial_mean(const struct plan_problem *problem, const struct ts_plan *plan,
                                  uint32_t requests, uint32_t times, uint64_t seed);

#endif
