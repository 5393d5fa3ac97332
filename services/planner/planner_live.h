/*
 * A running cluster as problems of the planner, and their plans as one message.
 *
 * A snapshot is taken apart by model. Each usable worker becomes a device in a node of its own: a worker is a
 * whole replica that holds its model already, so nothing may be joined or cut. Its type is the catalogue's
 * entry of the device that it names; one that is not in the catalogue is taken as `planner_live_unknown`,
 * equal for all.
 *
 * The objective is goodput: shares are those of the largest rate of the expected mix of requests that the
 * workers carry, so that they follow what each worker can do, whatever the load of the moment is.
 *
 * The algorithm runs over this problem. What it answers is sent when it keeps every worker's phase; a plan
 * that needs another phase or other groups is held, and requests are routed by the linear program over the
 * workers as they are. Where no pair meets the deadlines, shares are equal: live requests are served late
 * rather than refused.
 *
 * Borrows the snapshot and the inputs until close. One thread.
 */
#ifndef PLANNER_LIVE_H
#define PLANNER_LIVE_H

#include "common/core/ts_msg.h"
#include "services/planner/plan_algorithm.h"

struct planner_live_inputs {
    const struct plan_algorithm *algorithm;
    /* The catalogue: the type of that name or alias, NULL when there is none. NULL = no catalogue. */
    const struct ts_device_type *(*device)(const void *catalogue, const char *name);
    const void *catalogue;
    struct ts_demand demand; /* expected: the mix of classes, and their deadlines */
    uint64_t seed;
};

extern const struct ts_device_type planner_live_unknown;

struct planner_live;

struct planner_live *planner_live_open(const struct planner_live_inputs *inputs,
                                       const struct ts_msg_snapshot *snapshot);
/* Does about `budget` units of work; true when nothing is left to do. */
bool planner_live_step(struct planner_live *live, uint64_t budget);
/* Fills replicas, shares, attainment and binding; spans live in the arena. False when no worker of prefill
 * and no worker of decode share a model. */
bool planner_live_best(struct planner_live *live, struct ts_arena *arena, struct ts_msg_plan *out);
void planner_live_close(struct planner_live **live);

#endif
