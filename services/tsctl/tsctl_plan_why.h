/*
 * Why a plan is as it is: what the objective would be if one replica alone changed its phase (devices, TP and
 * layers stay, so it is what a flip gives), what each replica is worth, and which limits have a price. Made
 * from the evaluator's answers; plain data. One thread.
 */
#ifndef TSCTL_PLAN_WHY_H
#define TSCTL_PLAN_WHY_H

#include "services/planner/money/plan_money.h"
#include "services/tsctl/tsctl_plan_world.h"

struct tsctl_plan_replica_why {
    double worth;                        /* objective lost without it, the flows of the others made anew */
    double as[TS_PHASE_BOTH + 1];        /* objective with this phase; NAN: it cannot, or may not */
    char reason[TS_PHASE_BOTH + 1][160]; /* why it cannot */
};

struct tsctl_plan_price {
    struct plan_price price;
    double gain; /* objective for as much again of what is short: one replica, one network access */
};

struct tsctl_plan_why {
    double objective;
    struct tsctl_plan_replica_why *replicas; /* as the plan's groups */
    uint32_t replica_count;
    struct tsctl_plan_price *prices; /* of limits that cost something, the dearest first */
    uint32_t price_count;
    struct plan_advice *advice; /* what to rent next, then what to give back: the best first */
    uint32_t advice_count;
};

enum ts_status tsctl_plan_why(const struct tsctl_plan_world *world, const struct ts_plan *plan,
                              struct tsctl_plan_why *out, struct ts_error *err);
void tsctl_plan_why_fini(struct tsctl_plan_why *why);
struct ts_json *tsctl_plan_why_json(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why);
void tsctl_plan_why_table(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why, FILE *to);

#endif
