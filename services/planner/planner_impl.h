/*
 * Inside of the planner core. planner_core.c: sessions and terms; planner_loop.c: when a plan is made and at
 * which depth; planner_send.c: whether a plan that is made is worth being sent, and what each router gets.
 */
#ifndef PLANNER_IMPL_H
#define PLANNER_IMPL_H

#include "common/core/ts_session.h"
#include "services/planner/planner_core.h"
#include "services/planner/planner_measure.h"

#define PLANNER_WORDS 160

struct router_link {
    uint64_t peer;
    struct ts_session session;
    uint64_t term; /* the highest it has seen, as it last said */
    bool has_snapshot;
    bool wants_plan;       /* it has none of this term, or refused the last one */
    uint64_t refused;      /* version of the snapshot whose plan it refused: wait for another; 0 = none */
    uint64_t cluster;      /* hash of the usable workers of `snapshot` */
    uint64_t planned;      /* the same of what the last plan was made for; 0 = none */
    uint64_t searched;     /* the same of what the plan under way is made for */
    struct ts_arena arena; /* holds snapshot */
    struct ts_msg_snapshot snapshot;
    struct ts_arena sent_arena; /* holds sent */
    struct ts_msg_plan sent;    /* the last plan; number 0 = none */
    uint64_t sent_cluster;      /* hash of the cluster that it was sent for */
};

/* A worker whose phase is not up to the next plan: it is on its way to it, or did not go there. */
struct fixed_worker {
    struct ts_str id; /* owned */
    uint64_t incarnation;
    enum ts_phase phase;
    bool under_way; /* counts as being in `phase` already */
    ts_time until;
};

struct planner_loop {
    struct planner_live *live;       /* under way */
    bool flipping;                   /* its depth */
    struct ts_arena arena;           /* holds snapshot */
    struct ts_msg_snapshot snapshot; /* what it is made for: of all routers together */
    struct planner_live_past past;
    enum planner_cause cause;
    char words[PLANNER_WORDS]; /* why */
    struct planner_basis basis;
    struct planner_measure measure;
    bool fresh;              /* a snapshot came since the basis was looked at */
    ts_time reviewed_at;     /* when the last plan was made */
    ts_time wake_at;         /* the next look, if nothing comes before */
    bool unpaired;           /* some model has no pair of workers */
    ts_time pair_due;        /* when that is no longer waited for; TS_TIME_NEVER = it is not */
    ts_time flipped_at;      /* TS_TIME_NEVER = no flip that is known of */
    double attained_adopted; /* promised when phases were last turned, or first planned for; 0 = nothing */
    struct fixed_worker *fixed;
    size_t fixed_count, fixed_capacity;
};

struct planner_core {
    struct planner_settings settings;
    ts_time now;
    struct ts_actions *out;
    bool started, draining;
    struct router_link routers[PLANNER_ROUTERS_MAX];
    uint64_t term;      /* ours; 0 = standby */
    uint64_t last_term; /* that was ever ours: never twice, whatever routers say */
    uint64_t number;    /* of the last plan sent */
    bool claimed;       /* a term was claimed once: again only when the holder is lost */
    struct planner_loop loop;
};

/* planner_core.c */
struct ts_action_send *planner_send(struct planner_core *core, struct router_link *r, enum ts_msg_kind kind);

/* planner_loop.c */
void loop_init(struct planner_core *core);
void loop_fini(struct planner_core *core);
void loop_snapshot(struct planner_core *core, struct router_link *r); /* a new one is in r->snapshot */
void loop_claimed(struct planner_core *core); /* a term was: nothing is known of before */
void loop_stop(struct planner_core *core);    /* drops what is under way */
/* The router will not do, or has not done, what the plan asks for; `worker`: for whose sake, if it says so.
 */
void loop_failed(struct planner_core *core, struct router_link *r, bool aborted, struct ts_str worker);
void loop_step(struct planner_core *core); /* a little of what is under way; starts what is due */
ts_time loop_deadline(const struct planner_core *core);
/* NULL, or the worker's entry. */
const struct fixed_worker *loop_fixed(const struct planner_core *core, struct ts_str worker);

/* planner_send.c */
uint64_t cluster_hash(const struct planner_core *core, const struct ts_msg_snapshot *snapshot);
/* Usable, and in the phase that it is in or on its way to. */
bool worker_usable(const struct ts_plan_worker *w);
enum ts_phase worker_phase(const struct planner_core *core, const struct ts_plan_worker *w);
/* Whether the usable workers of each model serve both phases. */
bool cluster_paired(const struct planner_core *core, const struct ts_msg_snapshot *snapshot);
/* What has changed between the plan in force and the workers of a snapshot, as a clause. */
void cluster_words(const struct ts_msg_plan *plan, const struct ts_msg_snapshot *snapshot, char *words,
                   size_t size);
/* Whether routing by one differs from routing by the other so much that it is worth a message. */
bool plan_differs(const struct ts_msg_plan *before, const struct ts_msg_plan *after, double share);
/* The part of a plan whose workers are in the snapshot, shares made whole again; spans live in the arena. */
struct ts_msg_plan plan_part(const struct ts_msg_plan *plan, const struct ts_msg_snapshot *snapshot,
                             struct ts_arena *arena);

#endif
