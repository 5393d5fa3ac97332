/*
 * The planner as a state machine: dials routers, receives snapshots of cluster and workload, answers with
 * numbered plans. It has no state that matters: killed, serving goes on with the last plan; started again, it
 * claims a higher term and takes over.
 *
 * It plans when the cluster, the workload or the links change, and now and then (planner_trigger.h): a
 * re-route at once, a flip of phases when it pays. One plan is made for all routers, over the workers of the
 * one that knows most of them and the workload of all; each gets it for its own snapshot.
 *
 * A term is claimed once, as the highest term of all routers plus one. A planner whose plan is refused as
 * stale has been superseded: it stands by, and claims again only when a router reports that the holder is
 * lost. One thread; strings of the settings are borrowed.
 */
#ifndef PLANNER_CORE_H
#define PLANNER_CORE_H

#include "common/core/ts_event.h"
#include "services/planner/live/planner_live.h"
#include "services/planner/planner_trigger.h"

#define PLANNER_ROUTERS_MAX 8

struct planner_settings {
    const char *id, *host;
    uint32_t pid;
    const char *routers[PLANNER_ROUTERS_MAX]; /* endpoints of their planner channel */
    size_t router_count;
    uint32_t heartbeat_ms, timeout_ms;
    struct planner_live_inputs plan;     /* algorithm, catalogue, expected demand, when a flip pays */
    struct planner_trigger_rule trigger; /* when a plan is made anew; requests_min is `plan`'s */
    double share_min;                    /* of requests that must move for a re-route to be worth a message */
    double pair_wait_s;                  /* for a pair to come back before phases turn for want of one */
    double flip_wait_s;                  /* a worker that has not turned by then will not */
    uint64_t step_work;                  /* units of search per step of the core */
};

struct planner_settings planner_settings_defaults(void);

struct planner_core;

struct planner_core *planner_core_new(const struct planner_settings *settings, uint64_t incarnation);
void planner_core_destroy(struct planner_core **core);
void planner_core_step(struct planner_core *core, ts_time now, const struct ts_event *event,
                       struct ts_actions *out);
ts_time planner_core_deadline(const struct planner_core *core);
bool planner_core_check(const struct planner_core *core, struct ts_error *err);
bool planner_core_idle(const struct planner_core *core);

#endif
