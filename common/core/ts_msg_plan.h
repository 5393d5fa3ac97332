/*
 * Messages between router and planner: what the cluster is and does, and what it is to do (as
 * proto/ts_plan.proto); ts_msg.h joins all.
 */
#ifndef TS_CORE_MSG_PLAN_H
#define TS_CORE_MSG_PLAN_H

#include "common/core/ts_msg_common.h"

struct ts_plan_worker { /* cluster state: one slot */
    struct ts_str id, host, model, relay;
    uint64_t incarnation;
    uint32_t phases;
    enum ts_phase phase;
    bool ready, draining;
    struct ts_load load;
    struct ts_str device; /* as in its profile, and so are these: what the cost model needs */
    uint32_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, kv_dtype, kv_blocks;
    struct ts_stage_items stages; /* as in its profile */
    struct ts_measured_items measured;
};

struct ts_plan_workers {
    const struct ts_plan_worker *data;
    uint32_t count;
};

struct ts_workload_class { /* requests of like length in the window */
    double rate;           /* requests/s that arrived, refused ones included */
    double prompt_tokens, prompt_tokens_sq, output_tokens, output_tokens_sq; /* means, mean squares */
    double prompt_begin, prompt_end;                                         /* of prompts, end excluded */
};

struct ts_workload_classes {
    const struct ts_workload_class *data;
    uint32_t count; /* at most TS_WORKLOAD_CLASSES_MAX */
};

struct ts_workload { /* as the router has measured it */
    double arrivals_per_s, prompt_tokens_mean, output_tokens_mean;
    uint32_t queued, running;
    double window_s; /* of the measurement; 0 = nothing is known yet */
    double burst;    /* index of dispersion of counts, as in ts_demand */
    double refused_per_s,
        attained; /* share of those that ended within their own deadlines; -1 = none had any */
    struct ts_workload_classes classes;
};

struct ts_msg_snapshot { /* router -> planner, at start and (as Update) after each change; always whole */
    uint64_t version;
    struct ts_plan_workers workers;
    struct ts_link_items links;
    struct ts_workload workload;
    uint64_t term, number; /* of the plan in force; 0 = none */
    struct ts_str holder;  /* planner whose term it is; empty = none or lost */
};

struct ts_plan_replica {
    uint32_t id;
    struct ts_str worker; /* the slot of its only stage */
    enum ts_phase phase;
};

struct ts_plan_replicas {
    const struct ts_plan_replica *data;
    uint32_t count;
};

/* Holds a request whose prompt is in its range; of several such, or without any, the one whose centre is
 * nearest in the logarithms of (prompt tokens, max_tokens). */
struct ts_plan_class {
    double prompt_tokens, output_tokens, prompt_begin, prompt_end; /* end excluded; 0 = no range */
};

struct ts_plan_classes {
    const struct ts_plan_class *data;
    uint32_t count; /* 0 = all requests are of class 0 */
};

struct ts_plan_share {        /* z[prefill][decode][class] as a share of all requests of the class */
    uint32_t prefill, decode; /* replica ids */
    uint32_t length_class;
    double share;
    struct ts_str codec; /* of this link; empty = the router's default */
};

struct ts_plan_shares {
    const struct ts_plan_share *data;
    uint32_t count;
};

struct ts_msg_plan {
    uint64_t term, number;
    struct ts_str planner, algorithm;
    uint64_t snapshot_version;
    struct ts_plan_replicas replicas;
    struct ts_plan_shares shares;
    double attainment;
    struct ts_str binding; /* what limits it, in words */
    struct ts_plan_classes classes;
    double served_per_s; /* requests/s within deadlines that it is made for; 0 = unknown */
};

enum ts_plan_verdict {
    TS_PLAN_ACCEPTED = 1,
    TS_PLAN_REFUSED,
    TS_PLAN_APPLIED,
    TS_PLAN_ABORTED,
    TS_PLAN_VERDICT_LAST = TS_PLAN_ABORTED
};

struct ts_msg_plan_reply {
    uint64_t term, number;
    enum ts_plan_verdict verdict;
    enum ts_reason reason;
    struct ts_str text;
};

#endif
