/*
 * A running cluster as problems of the planner, and their plans as one message.
 *
 * A snapshot is taken apart by model. Each usable worker is a replica that holds its model already: a group
 * of fixed stages on its hosts, of the catalogue's types of the devices that it names; one that is not in the
 * catalogue is taken as `planner_live_unknown`, equal for all. What is asked of them is what the routers have
 * measured or, as long as they have not seen enough, the expected demand.
 *
 * Two depths, one after the other. *Re-route*: the algorithm over the groups as they are; its plan counts
 * when it keeps every phase, else requests are routed by the linear program. *Flip*: on request, the
 * algorithm may turn phases where the workers are willing; the flip is adopted if it pays (plan_adopt.h).
 *
 * The objective is goodput: shares are those of the largest rate of the mix that the workers carry, so that
 * they follow what each worker can do, whatever the load of the moment is. What a plan serves is judged at
 * the measured rates. Where no pair meets the deadlines, shares are equal: live requests are served late
 * rather than refused.
 *
 * Borrows snapshot, inputs and past until close. One thread.
 */
#ifndef PLANNER_LIVE_H
#define PLANNER_LIVE_H

#include "common/core/ts_msg.h"
#include "services/planner/plan_adopt.h"
#include "services/planner/plan_algorithm.h"

struct planner_live_inputs {
    const struct plan_algorithm *algorithm;
    /* The catalogue: the type of that name or alias, NULL when there is none. NULL = no catalogue. */
    const struct ts_device_type *(*device)(const void *catalogue, const char *name);
    const void *catalogue;
    struct ts_demand demand; /* expected: the mix of classes, and their deadlines */
    /* Sets the deadlines of measured classes. NULL: those of the expected demand's first class. */
    enum ts_status (*deadlines)(const void *catalogue, const struct ts_model *model, struct ts_demand *demand,
                                struct ts_error *err);
    const struct ts_cluster
        *cluster; /* links and network cards of the hosts that are its nodes; NULL = none */
    uint64_t seed;
    uint32_t classes_max;  /* of a measured demand */
    uint32_t requests_min; /* from so many on, what was measured counts */
    bool flips;            /* phases may change */
    bool colocate;         /* also to both */
    bool codec_allowed[TS_COST_CODEC_COUNT];
    struct plan_adopt_rule adopt;
    double flip_s; /* to drain a worker for another phase */
};

extern const struct ts_device_type planner_live_unknown;

struct planner_live_inputs planner_live_defaults(void); /* thunder, no catalogue */

struct planner_live_past {   /* what the decision to flip depends on beside the snapshot */
    double since_s;          /* the last flip; INFINITY = none that is known of */
    double attained_adopted; /* share in time that its plan was made for; 0 = unknown */
    bool awaits_pair;        /* no pair is left, but one may come back: no flip for its sake yet */
    /* Whether this worker is to keep its phase. NULL = none is. */
    bool (*keeps)(const void *context, struct ts_str worker);
    const void *context;
};

struct planner_live;

/* Opens the re-route. */
struct planner_live *planner_live_open(const struct planner_live_inputs *inputs,
                                       const struct ts_msg_snapshot *snapshot);
/* Does about `budget` units of work; true when nothing is left to do at this depth. */
bool planner_live_step(struct planner_live *live, uint64_t budget);
/* After the re-route: whether flips are worth a search, which step then does. */
bool planner_live_flip(struct planner_live *live, const struct planner_live_past *past);
/* Once step is done. After a flip: whether one is adopted, else the plan is that of the re-route. */
bool planner_live_flips(const struct planner_live *live);
/* Why phases stay or change, in a sentence; "" when that was not asked. */
const char *planner_live_verdict(const struct planner_live *live);
/* Whether the plan is made for what routers have measured. */
bool planner_live_measured(const struct planner_live *live);
/* Fills replicas, shares, classes, attainment, served_per_s and binding; spans live in the arena. False when
 * no worker of prefill and no worker of decode share a model. */
bool planner_live_best(struct planner_live *live, struct ts_arena *arena, struct ts_msg_plan *out);
void planner_live_close(struct planner_live **live);

#endif
