/* Between the files of a trial (plan_trial.h): requests that are drawn, replicas, and what happens to them.
 */
#ifndef PLAN_TRIAL_IMPL_H
#define PLAN_TRIAL_IMPL_H

#include "services/planner/trial/plan_trial.h"
#include "services/router/route_policy.h"

#define TRIAL_NONE UINT32_MAX

struct trial_request {
    double at, ttft_s, tpot_s, e2e_s; /* arrival; deadlines, 0 = none */
    double first, end, sent;          /* token 0; last token; all KV that was computed is at decode */
    uint32_t prompt, output, length_class;
    uint32_t share;           /* of the trial's, TRIAL_NONE before it is routed */
    uint32_t total;           /* tokens to compute before decode goes on */
    uint32_t issued, done;    /* of these */
    uint32_t produced;        /* tokens of the output */
    uint32_t blocks, feeding; /* of KV memory at decode; at prefill */
    bool granted, in_batch;
};

struct trial_list { /* requests, in order of age or of due times */
    uint32_t *items, count;
    size_t capacity;
};

struct trial_row {
    uint32_t request, tokens;
    bool prompt, last; /* a chunk of the prompt; its last one */
};

struct trial_batch {
    struct trial_row *rows;
    uint32_t count;
    size_t capacity;
    double ends;
};

struct trial_stage {
    const struct ts_device_type *device;
    const struct ts_link *inner, *next; /* between its ranks; to the next stage */
    uint32_t type, tp, layers, node;
    double free_at, link_free_at;
};

struct trial_replica {
    enum ts_phase phase;
    struct trial_stage stages[TS_STAGES_MAX];
    uint32_t stage_count;
    double back_s;
    uint32_t budget; /* tokens of a batch */
    uint32_t blocks, free_blocks;
    struct trial_list waiting, prefilling, grants, ready;
    struct trial_batch batches[TS_STAGES_MAX]; /* a ring: under way */
    uint32_t first, running, flying;           /* flying: ready ones in batches */
    struct route_worker route;
};

struct trial_lane { /* layers that go from one node to another, of a pair */
    uint32_t from, to;
    double part; /* of the layers */
    const struct ts_link *link;
};

struct trial_share {
    uint32_t prefill, decode, lane_first, lane_count;
    enum ts_cost_codec codec;
};

struct trial_event {
    double at;
    uint64_t order;
    uint32_t replica, request; /* a batch of the replica ends, or (TRIAL_NONE) KV of the request is there */
};

struct trial {
    const struct plan_problem *problem;
    const struct ts_plan *plan;
    struct trial_request *requests;
    uint32_t request_count;
    struct trial_replica *replicas;
    struct route_worker **workers; /* of the replicas */
    struct route_replica *routes;
    struct route_class classes[TS_CLASSES_MAX];
    struct route_share *route_shares; /* by class; what they stand for: */
    struct trial_share *shares;       /* after them, pairs that the router made itself */
    size_t share_capacity;
    uint32_t share_count;
    struct trial_lane *lanes;
    size_t lane_count, lane_capacity;
    double *out_free, *in_free; /* of each node's card */
    struct trial_list held;     /* by the router: no replica takes them */
    struct trial_event *events; /* a heap */
    size_t event_count, event_capacity;
    uint64_t order;
    double now;
    double token_bytes;
};

void trial_draw(struct trial *trial, double scale, uint64_t seed); /* the requests */
void trial_add_share(struct trial *trial, uint32_t prefill, uint32_t decode, enum ts_cost_codec codec);
void trial_play(struct trial *trial); /* all of them, to their ends */
/* Seconds until the batch is through all stages, and the token back at the first; holds the stages. */
double trial_pass(struct trial *trial, struct trial_replica *replica, const struct trial_batch *batch);

#endif
