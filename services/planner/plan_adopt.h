/*
 * Whether a better plan is worth its change (planner.md section 3e). Three depths, cheapest first: re-route
 * (new flows only), flip (phases change, weights stay), regroup (devices change hands, weights are loaded
 * anew). A depth is adopted over the one before when
 *
 *     (gain per second) x (stability window - reload time)  >  (1 + margin) x (loss during the reload)
 *
 * gain: requests/s within deadlines that it serves more than what would stand otherwise; loss: what would
 * have been served within deadlines while its groups reload, less what the groups that stay serve meanwhile.
 * Hysteresis: a gain below `gain_min` of what is served is noise; and for `quiet_s` after a flip or a regroup
 * there is no other, unless what is served has collapsed since. Each verdict says why in a sentence.
 *
 * Pure functions; plain data.
 */
#ifndef PLAN_ADOPT_H
#define PLAN_ADOPT_H

#include "services/planner/plan_problem.h"

struct plan_adopt_rule {
    double window_s; /* for how long workload and cluster are expected to stay as they are */
    double margin;   /* of the loss, 0 = break even suffices */
    double gain_min; /* share of what is served now */
    double quiet_s;
    double
        collapse; /* share of what the plan in force served when it was adopted, below which it collapsed */
};

struct plan_adopt_rule plan_adopt_defaults(void);

struct plan_adopt_now {    /* the plan in force */
    double served;         /* requests/s within deadlines, as it stands, in the present situation */
    double served_adopted; /* the same when it was adopted */
    double since_s;        /* the last flip or regroup; INFINITY = none */
};

struct plan_adopt_candidate {
    enum plan_depth depth;
    double served;           /* requests/s within deadlines once it stands */
    double reload_s;         /* until it stands */
    double served_meanwhile; /* requests/s within deadlines until then, by what does not change */
};

struct plan_adopt_verdict {
    int adopt;         /* index of the candidate; -1 = hold */
    double gain, loss; /* requests/s; requests: of the candidate adopted, or of the best one refused */
    char reason[200];
};

/* Candidates by rising depth, each at most once. */
void plan_adopt_decide(const struct plan_adopt_rule *rule, const struct plan_adopt_now *now,
                       const struct plan_adopt_candidate *candidates, uint32_t count,
                       struct plan_adopt_verdict *out);

/* What it takes to get from one plan to another on the same cluster. */
struct plan_change {
    uint32_t groups_kept;    /* of `to`: same devices, stages, layers and phase */
    uint32_t groups_flipped; /* the same but for the phase */
    double load_bytes;       /* weights to load, all devices */
    double reload_s;         /* the slowest node: its bytes at node_bytes_per_s; flip_s if a group flips */
    double served_meanwhile; /* by the flows of `from` between groups that are kept */
};

/* node_bytes_per_s: what a node loads weights with, from its disk or the network; flip_s: to drain a group
 * for another phase. */
void plan_change_of(const struct ts_cluster *cluster, const struct ts_model *model,
                    const struct ts_plan *from, const struct ts_plan *to, double node_bytes_per_s,
                    double flip_s, struct plan_change *out);

/* Weights that each device loads on the way: `bytes` has cluster->gpu_count items. */
void plan_change_bytes(const struct ts_cluster *cluster, const struct ts_model *model,
                       const struct ts_plan *from, const struct ts_plan *to, double *bytes);

#endif
