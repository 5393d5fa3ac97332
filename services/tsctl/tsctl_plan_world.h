/*
 * What a plan is made over: the inputs named by the flags, loaded, and the planner's problem on top of them.
 * And the two things that verbs do with it: search, under a clock and Ctrl-C, and evaluate a given plan. A
 * world does not move once it is loaded (the problem points into it). One thread.
 */
#ifndef TSCTL_PLAN_WORLD_H
#define TSCTL_PLAN_WORLD_H

#include "common/inputs/ts_inputs.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"
#include "services/tsctl/tsctl_plan.h"

struct tsctl_plan_world {
    struct tsctl_plan_inputs inputs; /* its strings are the caller's */
    struct ts_catalogue *catalogue;
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
    struct ts_plan *current; /* may be NULL */
    struct plan_problem problem;
};

enum ts_status tsctl_plan_world_load(const struct tsctl_plan_inputs *inputs, struct tsctl_plan_world *out,
                                     struct ts_error *err);
void tsctl_plan_world_fini(struct tsctl_plan_world *world);
/* Reads the plan in force from a file and ties it to the cluster; says on stderr what was lost. */
enum ts_status tsctl_plan_world_current(struct tsctl_plan_world *world, const char *path,
                                        struct ts_error *err);
/* The document of a plan that was made over this world; borrows both. */
struct tsctl_plan_doc tsctl_plan_world_doc(const struct tsctl_plan_world *world, const struct ts_plan *plan);

/* --- Search: tsctl_plan_search.c --- */

struct tsctl_plan_search {
    const struct plan_algorithm *algorithm;
    double seconds;    /* of search and bound together */
    uint64_t max_work; /* of the search; 0 = no bound */
    bool bound;        /* find one when the algorithm has none */
    bool progress;     /* one line on stderr even when that is no terminal */
    /* Results. */
    struct ts_plan *plan; /* the caller's */
    uint64_t work;
    bool finished;
};

/* TS_ENOTFOUND: no plan was found. */
enum ts_status tsctl_plan_search(const struct tsctl_plan_world *world, struct tsctl_plan_search *search,
                                 struct ts_error *err);

/* --- A given plan: tsctl_plan_score.c --- */

struct tsctl_plan_score {
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_state state;   /* groups in the order of the plan */
    struct plan_result result; /* valid until the evaluator runs again */
};

enum ts_status tsctl_plan_score(const struct tsctl_plan_world *world, const struct ts_plan *plan,
                                struct tsctl_plan_score *out, struct ts_error *err);
void tsctl_plan_score_fini(struct tsctl_plan_score *score);

#endif
