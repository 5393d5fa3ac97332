/*
 * What an algorithm of the planner is: a table entry. It is opened over one problem, stepped with a budget
 * counted in work (evaluations and simplex iterations, never wall time) until it is finished, and asked for
 * its best plan so far at any moment. Same problem, same seed and same sum of budgets give the same plan,
 * however the steps are cut. An entry may come from a shared object that exports it as `ts_plan_algorithm`
 * (plan_algorithm_load); README.md has a worked example.
 */
#ifndef PLAN_ALGORITHM_H
#define PLAN_ALGORITHM_H

#include "services/planner/plan_problem.h"

#define PLAN_ALGORITHM_VERSION 1

struct plan_search; /* an algorithm's own */

struct plan_algorithm {
    uint32_t version; /* PLAN_ALGORITHM_VERSION */
    const char *name;
    const char *summary; /* one line */
    /* The problem has passed plan_problem_check and is borrowed until close. NULL and `err` when this
     * algorithm cannot treat it (too large, colocation forbidden for one that only colocates). */
    struct plan_search *(*open)(const struct plan_problem *problem, struct ts_error *err);
    /* Does about `budget` units of work; true when nothing is left to do. */
    bool (*step)(struct plan_search *search, uint64_t budget);
    /* The best plan so far; the caller owns it. NULL when there is none yet. */
    struct ts_plan *(*best)(struct plan_search *search);
    /* What it has done so far, one line for a progress display: "evaluations 1200, best 0.93". */
    void (*describe)(const struct plan_search *search, char *out, size_t size);
    void (*close)(struct plan_search **search);
};

extern const struct plan_algorithm plan_algorithm_uniform, plan_algorithm_colocated, plan_algorithm_splitwise,
    plan_algorithm_distserve, plan_algorithm_hexgen, plan_algorithm_hexgen2, plan_algorithm_helix,
    plan_algorithm_paper, plan_algorithm_exhaustive, plan_algorithm_thunder;

const struct plan_algorithm *plan_algorithm_find(const char *name); /* NULL when unknown */
const struct plan_algorithm *plan_algorithm_at(size_t index);       /* NULL after the last */
/* Loads an algorithm from a shared object; it stays loaded. */
const struct plan_algorithm *plan_algorithm_load(const char *path, struct ts_error *err);

#endif
