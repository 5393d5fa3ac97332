/*
 * What an algorithm is asked, and the state that algorithms move through. A problem borrows its cluster,
 * model and demand, which outlive it. A state names parts of cells (ts_cluster.h) instead of devices, so that
 * plans which differ only by equal devices are one state.
 */
#ifndef PLAN_PROBLEM_H
#define PLAN_PROBLEM_H

#include "common/core/ts_plan.h"

#define PLAN_PARTS_MAX 8

enum plan_depth { PLAN_REROUTE, PLAN_FLIP, PLAN_REGROUP }; /* what may change against `current` */

enum plan_objective {
    PLAN_ATTAINMENT, /* share of the demand's requests within their deadlines, at the demand's rates */
    PLAN_GOODPUT     /* requests/s within deadlines when the demand's mix is scaled to what gives the most of
                        them at `attainment` or better */
};

struct plan_problem {
    const struct ts_cluster *cluster;
    const struct ts_model *model;
    const struct ts_demand *demand;
    enum plan_objective objective;
    double attainment;                       /* least share for PLAN_GOODPUT, (0, 1] */
    bool colocate;                           /* phase BOTH is allowed */
    bool codec_allowed[TS_COST_CODEC_COUNT]; /* for KV on the wire: the accuracy policy, or a wish */
    uint32_t max_stages;                     /* of a replica, up to TS_STAGES_MAX; 0 = the default, 8 */
    enum plan_depth depth;
    const struct ts_plan *current; /* needed for REROUTE and FLIP, a start for REGROUP; may be NULL */
    uint64_t seed;
    uint32_t trial_requests; /* of a trial of plans (plan_trial.h) at the end of thunder's search; 0 = none */
    double effort;           /* of thunder: times its usual bound of work; 1, and 0 is taken as 1 */
    const uint32_t
        *willing; /* for FLIP, of each group of `current`: mask of phases it may turn to; NULL = all */
};

struct plan_problem plan_problem_defaults(const struct ts_cluster *cluster, const struct ts_model *model,
                                          const struct ts_demand *demand);
/* Finite, in range, model fits somewhere, rate above zero: otherwise a clear statement. */
enum ts_status plan_problem_check(const struct plan_problem *problem, struct ts_error *err);

struct plan_part {
    uint16_t cell;
    uint8_t count; /* devices of the cell: count / tp stages */
    uint8_t tp;    /* 0 = not chosen yet */
};

struct plan_shape;

struct plan_group {
    enum ts_phase phase;
    uint8_t part_count;
    struct plan_part parts[PLAN_PARTS_MAX]; /* by cell; a cell again with another tp */
    const struct plan_shape *shape;         /* of parts and phase: plan_shape.h; NULL = not asked yet */
};

struct plan_state { /* devices in no group are idle */
    struct plan_group *groups;
    uint32_t count, capacity;
};

void plan_state_init(struct plan_state *state);
void plan_state_fini(struct plan_state *state);
void plan_state_copy(struct plan_state *into, const struct plan_state *from);
struct plan_group *plan_state_add(struct plan_state *state, const struct plan_group *group);
void plan_state_remove(struct plan_state *state, uint32_t index); /* the last takes its place */
uint64_t plan_state_hash(const struct plan_state *state); /* equal for states equal up to order of groups */
/* Devices of each cell that are in no group; `idle` has cluster->cell_count items. */
void plan_state_idle(const struct plan_problem *problem, const struct plan_state *state, uint32_t *idle);

#endif
