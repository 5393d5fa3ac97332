/*
 * Money: which devices to rent. The cluster of the problem is the list of offers: every device of it, alive
 * or not, may be rented at its type's price. Each purchase that comes into question is judged by a real
 * search (an algorithm of plan_algorithm.h, `thunder` unless told otherwise) on the sub-cluster that it buys;
 * a device that the plan found there does not use is not bought.
 *
 *   PLAN_MONEY_BUDGET    the most objective for at most `dollars_per_hour`
 *   PLAN_MONEY_TARGET    the cheapest purchase whose objective is at least `objective`
 *   PLAN_MONEY_FRONTIER  as BUDGET, for `points` budgets from nothing to everything
 *
 * Purchases come from the fractional program (plan_bound_budget) rounded, from each type alone, from the plan
 * of all offers with its least useful groups dropped, and then by exchange: drop a group, add 1, 2, 4 or 8
 * devices of a cell, or both. README.md.
 *
 * Resumable like an algorithm: steps are counted in work. Same problem, ask and sum of budgets, same answer.
 * Pure. One thread.
 */
#ifndef PLAN_MONEY_H
#define PLAN_MONEY_H

#include "services/planner/plan_algorithm.h"

enum plan_money_goal { PLAN_MONEY_BUDGET, PLAN_MONEY_TARGET, PLAN_MONEY_FRONTIER };

struct plan_money_ask {
    enum plan_money_goal goal;
    double dollars_per_hour;                /* BUDGET */
    double objective;                       /* TARGET: in the units of the problem's objective */
    uint32_t points;                        /* FRONTIER; 0 = 12 */
    uint64_t effort;                        /* work for one purchase; 0 = by its size */
    const struct plan_algorithm *algorithm; /* NULL = thunder */
};

struct plan_money_point {
    double dollars_per_hour; /* of the devices that the plan uses */
    double objective;
    double bound;               /* no purchase at this price has more; NAN = not computed (but see below) */
    const struct ts_plan *plan; /* indices of the offers' devices */
};

struct plan_money;

/* The problem is borrowed until close; its `current` is one more start when given. NULL and words when the
 * ask is out of range or not even all offers together can hold the model. */
struct plan_money *plan_money_open(const struct plan_problem *offers, const struct plan_money_ask *ask,
                                   struct ts_error *err);
bool plan_money_step(struct plan_money *money, uint64_t budget); /* true when nothing is left to do */
/* The answer so far; NULL when there is none yet (TARGET: at the end too, when not even all offers reach it).
 * Valid until the next step. */
const struct plan_money_point *plan_money_best(const struct plan_money *money);
/* All purchases found that no other one beats in both price and objective, cheapest first. Same validity. */
const struct plan_money_point *plan_money_frontier(const struct plan_money *money, uint32_t *count);
/* BUDGET: no purchase within the budget has more objective. TARGET: no purchase that reaches the objective is
 * cheaper, in dollars an hour. FRONTIER: the most of all offers. NAN = not known yet. */
double plan_money_bound(const struct plan_money *money);
/* One line for a progress display: "purchases 40, best 3.1 req/s for 4.83 $/h". */
void plan_money_describe(const struct plan_money *money, char *out, size_t size);
void plan_money_close(struct plan_money **money);

/*
 * What to rent next and what to give back, seen from a plan in force: one group more of a type that is
 * offered and not alive (where nothing is: of any type of the cluster, as a node like those that have it), or
 * one group less (of each make, that which least goes through). Every piece of advice is one run of the
 * evaluator, so `gain` is what the flows alone make of it, without regrouping. Best first: rents by gain per
 * dollar, then returns by least loss per dollar (devices in no group lose nothing). `count` receives how many
 * there are, `capacity` at most.
 */
struct plan_advice {
    bool rent;               /* else give back */
    bool idle;               /* give back: they are in no group */
    uint32_t type, count;    /* of a group of mixed types: its first stage's, all its devices */
    enum ts_phase phase;     /* of the group that they make; not for idle ones */
    uint32_t group;          /* give back: of the plan; not for idle ones */
    double dollars_per_hour; /* spent or saved */
    double gain;             /* objective won; negative = lost */
};

enum ts_status plan_money_advise(const struct plan_problem *problem, const struct ts_plan *plan,
                                 struct plan_advice *out, uint32_t capacity, uint32_t *count,
                                 struct ts_error *err);

#endif
