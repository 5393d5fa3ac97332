/*
 * `thunder`, the planner's own search: tabu search over groups and phases (plan_moves.h), each state judged
 * by the evaluator (plan_eval.h). README.md says how it goes and why.
 *
 * It is a machine of small steps: each builds a start, walks a neighbourhood, or runs the linear program of
 * one candidate. Between two steps it may be left, asked for its best plan, or closed. What it does depends
 * on the problem and the seed alone, never on where the steps are cut. One thread.
 *
 *   (large clusters: the search of a smaller one, whose plan is a start) ->
 *   starts -> (for each start, best first) list -> try -> ... -> go -> list ... -> (no gain for long) ->
 *   kicks: the best state, disturbed, and again list -> try -> go ... -> (no gain by kicks for long) done
 */
#ifndef PLAN_THUNDER_H
#define PLAN_THUNDER_H

#include "services/planner/plan_algorithm.h"
#include "services/planner/thunder/plan_moves.h"

#define PLAN_THUNDER_STARTS 24

/* A plan from elsewhere as one more start, before the first step: a baseline's, an older one. Only for
 * PLAN_REGROUP. A plan that does not stand on this cluster (devices gone) gives what is left of it. */
void plan_thunder_add_start(struct plan_search *search, const struct ts_plan *plan);

/* --- For its pieces --- */

enum plan_thunder_stage {
    PLAN_THUNDER_STARTS_STAGE,
    PLAN_THUNDER_LIST,
    PLAN_THUNDER_TRY,
    PLAN_THUNDER_GO,
    PLAN_THUNDER_KICK,
    PLAN_THUNDER_TRIALS,
    PLAN_THUNDER_DONE
};

struct plan_seen { /* states evaluated, by hash; 0 = free */
    uint64_t hash;
    double objective;
    uint32_t run; /* in which it was stood on; 0 = only looked at */
};

struct plan_scale;
struct plan_trials;

struct plan_start {
    struct plan_state state;
    double objective;
    bool used;
};

struct plan_search {
    const struct plan_problem *problem;
    struct plan_shapes *shapes;
    struct plan_picks *picks;
    struct plan_eval *eval;
    struct plan_worth *worth;
    struct plan_gauge *gauge;
    struct ts_rng rng;
    uint64_t allowed, spent;    /* work: the sum of all budgets, and what was done */
    double effort, effort_most; /* runs of the program, weighted by size */
    enum plan_thunder_stage stage;

    struct plan_state best;
    double best_objective; /* -1 = none yet */

    struct plan_start starts[PLAN_THUNDER_STARTS];
    uint32_t start_count, start_next; /* start_next: how many have been evaluated */
    bool starts_made;

    /* The run at hand. */
    bool inside; /* it keeps new groups inside nodes */
    uint32_t run, iteration, stalled, patience;
    struct plan_state current, scratch, run_best;
    uint32_t first;                          /* the start of the first run */
    double current_objective, run_objective; /* the best of the run */
    struct plan_tabu tabu;
    struct plan_moves moves;
    uint32_t tried, next_top, next_any; /* of `moves` */
    int chosen;
    double chosen_objective;
    uint32_t kicks, kicks_stalled;
    double best_before; /* the best when the run began */

    struct plan_seen *seen;
    uint32_t seen_capacity, seen_count;

    /* PLAN_FLIP and PLAN_REROUTE: groups of `current` and what each is in each phase (no shape = cannot). */
    struct plan_group *fixed; /* [group * (TS_PHASE_BOTH + 1) + phase] */
    uint32_t *fixed_from;     /* index of the group in problem->current */
    uint32_t fixed_count;

    struct plan_scale *scale;   /* while a smaller cluster is searched in the place of this one */
    struct plan_trials *trials; /* where plans are tried at the end */
    uint64_t evaluations, scale_evaluations;
};

/* plan_thunder_start.c: the states that a search starts from. */
void plan_thunder_make_starts(struct plan_search *search);
void plan_thunder_gather(struct plan_search *search, struct plan_state *state); /* groups of what is idle */
/* Groups of what is idle, of random cells, sizes and phases. */
void plan_thunder_rebuild(struct plan_search *search, struct plan_state *state);
void plan_thunder_assign(struct plan_search *search, struct plan_state *state, uint32_t from);
struct plan_state *plan_thunder_new_start(struct plan_search *search); /* NULL when there are enough */
/* plan_thunder_scale.c: large clusters by way of small ones. */
void plan_thunder_scale_open(struct plan_search *search);
void plan_thunder_scale_close(struct plan_search *search);
void plan_thunder_scale_step(struct plan_search *search);
const struct plan_search *plan_thunder_scale_search(const struct plan_search *search); /* the small one */
/* What the search of the small cluster has found so far, on the cluster itself; NULL when there is nothing.
 */
struct ts_plan *plan_thunder_scale_best(const struct plan_search *search);
/* plan_thunder_trial.c: which of the plans found is best by trials. Nothing where the problem asks for none.
 */
void plan_thunder_trial_open(struct plan_search *search);
void plan_thunder_trial_close(struct plan_search *search);
/* The end of a run, or a start: the best of each kind are tried. */
void plan_thunder_trial_offer(struct plan_search *search, const struct plan_state *state, double objective);
bool plan_thunder_trial_step(struct plan_search *search);                  /* one plan; true after the last */
struct ts_plan *plan_thunder_trial_best(const struct plan_search *search); /* the caller's; NULL = none yet */
/* plan_thunder_fixed.c: the groups of the plan in force. */
bool plan_thunder_alive(const struct ts_cluster *cluster, const struct ts_group *group);
void plan_thunder_fix(struct plan_search *search);
void plan_thunder_flips(const struct plan_moves_from *from, struct plan_search *search); /* into `moves` */
void plan_thunder_keep_devices(const struct plan_search *search, struct ts_plan *plan);

#endif
