/*
 * The planner as a state machine: dials routers, receives snapshots of cluster and workload, answers with
 * numbered plans. It has no state that matters: killed, serving goes on with the last plan; started again, it
 * claims a higher term and takes over.
 *
 * A term is claimed once, as the highest term of all routers plus one. A planner whose plan is refused as
 * stale has been superseded: it stands by, and claims again only when a router reports that the holder is
 * lost. One thread; strings of the settings are borrowed.
 */
#ifndef PLANNER_CORE_H
#define PLANNER_CORE_H

#include "common/core/ts_event.h"
#include "services/planner/planner_live.h"

#define PLANNER_ROUTERS_MAX 8

struct planner_settings {
    const char *id, *host;
    uint32_t pid;
    const char *routers[PLANNER_ROUTERS_MAX]; /* endpoints of their planner channel */
    size_t router_count;
    uint32_t heartbeat_ms, timeout_ms;
    struct planner_live_inputs plan; /* algorithm, catalogue, expected demand */
    uint64_t step_work;              /* units of search per step of the core */
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
