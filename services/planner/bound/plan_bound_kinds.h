/*
 * What the column bound buys: stages, by kind. A *make* is a device type with the link inside its nodes; a
 * *kind* is a make with a TP degree. The real cluster only says how many there are: of a make with `t`
 * devices abreast in a node there are sum over nodes of floor(devices / t) slots, and a stage of TP u >= t
 * takes u / t of them. So each pair (make, t in 1, 2, 4, 8) is a row with a limit.
 *
 * Where there are too many sets of stages to look at each, like kinds are joined: a *blend* of two kinds (or
 * blends) of one TP degree is as good as the best of them in every respect. Blends form a tree for each
 * degree.
 *
 * A replica of equal stages is what plan_shape.h makes of them, on the best link or on slower ones, and any
 * mixture of those. One of unlike stages is optimistic: no order of the stages and no way to cut the layers
 * does better in any respect, and each respect has its own best. One thread.
 */
#ifndef PLAN_BOUND_KINDS_H
#define PLAN_BOUND_KINDS_H

#include "services/planner/bound/plan_bound_item.h"
#include "services/planner/shape/plan_shape_internal.h"

#define PLAN_BOUND_TPS       4 /* 1, 2, 4, 8 */
#define PLAN_BOUND_LINKS_MAX 3
#define PLAN_BOUND_BLEND     UINT32_MAX

struct plan_bound_make {
    uint32_t type;
    struct ts_link inner;
    uint32_t slots[PLAN_BOUND_TPS];
};

struct plan_bound_kind {
    uint32_t make; /* of a blend: PLAN_BOUND_BLEND */
    uint8_t tp, tp_log2;
    uint32_t slots;      /* stages that the cluster has room for */
    uint32_t parts[2];   /* of a blend: the kinds or blends that it was joined of */
    double unlikeness;   /* of these */
    uint64_t members[2]; /* a bit for each kind in it */
    struct plan_unit unit;
};

struct plan_bound_kinds {
    const struct plan_problem *problem;
    struct plan_mix mix;
    struct plan_bound_ideal ideal;
    struct plan_bound_make *makes;
    uint32_t make_count;
    struct plan_bound_kind *kinds;
    uint32_t kind_count, blend_count;           /* blends come after the kinds */
    uint32_t roots[PLAN_BOUND_TPS], root_count; /* of each TP degree, the blend of all */
    struct ts_link links[PLAN_BOUND_LINKS_MAX]; /* between stages: the best there could be, and slower ones */
    uint32_t link_count;
    uint32_t max_stages;
};

void plan_bound_kinds_init(struct plan_bound_kinds *kinds, const struct plan_problem *problem);
void plan_bound_kinds_fini(struct plan_bound_kinds *kinds);

/* Slots of (make, t) that these stages take: makes * PLAN_BOUND_TPS numbers are written. False when the
 * cluster has not as many. */
bool plan_bound_kinds_rows(const struct plan_bound_kinds *kinds, const uint8_t *stages, uint32_t count,
                           uint32_t *rows);
/* What a replica of these stages (kinds, rising) can do; no flows when it cannot hold the model. */
void plan_bound_kinds_item(const struct plan_bound_kinds *kinds, const uint8_t *stages, uint32_t count,
                           enum ts_phase phase, struct plan_bound_item *item);

#endif
