/*
 * What the parts of the router core share. router_core.c dispatches events; router_member.c holds who is
 * there; router_request.c a request towards its client; router_attempt.c a request towards its workers;
 * router_plan.c planners; router_status.c questions of operators.
 */
#ifndef ROUTER_IMPL_H
#define ROUTER_IMPL_H

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_session.h"
#include "services/router/router_core.h"

#define ROUTER_AVOID_MAX 4

enum record_state { RECORD_QUEUED, RECORD_ASSIGNED, RECORD_STREAMING, RECORD_ENDED };

struct member {          /* a worker, relay or planner whose Hello was accepted */
    struct member *next; /* of those that are gone */
    enum ts_role role;
    char id[TS_ID_BYTES_MAX + 1];
    struct ts_arena arena; /* holds hello */
    struct ts_msg_hello hello;
    enum ts_channel channel;
    uint64_t peer; /* of its present connection */
    uint64_t incarnation;
    struct ts_session session; /* down: silent or broken, may come back until dead_at */
    ts_time dead_at;           /* while the session is down */
    struct ts_load load;
    bool synced; /* worker: Resync came in this session */
    bool draining;
    uint32_t assigned;      /* records whose attempt names it */
    uint32_t unstarted;     /* prefill: of those, without a token */
    uint64_t snapshot_sent; /* planner: version it has seen */
};

struct kept_copy {         /* router_refeed.c */
    uint32_t attempt;      /* whose KV its relay holds encoded; 0 = none that is known */
    uint64_t session;      /* of the relay when it said so */
    uint64_t fingerprint;  /* of that KV */
    uint32_t from;         /* the present attempt is fed by the copy of that one, */
    struct member *feeder; /* by this relay, which still sends; NULL = not so, or over */
};

struct record {
    struct record *prev, *next; /* queue of QUEUED, list of live, or list of ended */
    struct record *queue_prev, *queue_next;
    uint64_t number; /* rid.request: also the order of acceptance */
    uint32_t attempt;
    enum record_state state;
    struct ts_arena arena; /* holds generate */
    struct ts_msg_generate generate;
    char *key; /* client, NUL, request id */
    size_t key_bytes;
    struct ts_bulk prompt;
    uint64_t client_peer; /* 0 = detached */
    ts_time detached_at, accepted_at, deadline, retry_at, waiting_since, ended_at;
    struct ts_token_item *items; /* texts and tops on the heap */
    uint32_t *tokens;            /* the ids of items */
    size_t count, item_capacity, token_capacity;
    struct member *prefill, *decode; /* of the present attempt, or NULL */
    struct kept_copy copy;
    bool kv_done; /* decode has the KV: prefill and relay do not matter any more */
    char codec[32];
    const char *codec_why;
    char avoid[ROUTER_AVOID_MAX][TS_ID_BYTES_MAX + 1];
    uint32_t avoid_count;
    struct ts_trace trace; /* its strings: see fill_trace */
    char prefill_id[TS_ID_BYTES_MAX + 1], relay_id[TS_ID_BYTES_MAX + 1], decode_id[TS_ID_BYTES_MAX + 1];
    enum ts_finish finish;
    enum ts_reason reason;
    char text[256]; /* words of the end */
};

struct client {
    uint64_t peer;
    ts_time last_rx;
};

struct forwarded { /* a Tokenize or Detokenize on its way */
    uint64_t id, client_peer, client_id;
    ts_time until;
};

struct plan {
    struct ts_arena arena;
    struct ts_msg_plan plan;
    struct route_share *shares; /* resolved to worker ids */
    size_t share_count;
    bool valid;
};

struct router_core {
    struct router_settings settings;
    uint64_t incarnation;
    struct ts_rng rng;
    ts_time now;
    struct ts_actions *out; /* of the step under way */
    bool draining;
    struct ts_map *members;                 /* role + id -> member */
    struct ts_map *peers;                   /* channel + peer -> member */
    struct ts_map *fenced;                  /* dead incarnations */
    struct ts_map *records;                 /* key -> record, ended ones included */
    struct ts_map *by_number;               /* number -> record, not ended */
    struct ts_map *clients;                 /* peer -> client */
    struct ts_map *per_client;              /* client id -> number of live records + 1, as a tagged pointer */
    struct ts_map *forwards;                /* id -> forwarded */
    struct record *queue_head, *queue_tail; /* QUEUED, by number */
    struct record *ended_head, *ended_tail; /* oldest first */
    /* Gone, but actions of the step under way may point into them: freed at the next one. */
    struct record *dead_records;
    struct member *dead_members;
    size_t live_count, queued_count, ended_count;
    uint64_t held_bytes;
    uint64_t next_number, next_forward;
    ts_time sweep_at; /* earliest instant at which a record or client wants attention */
    struct plan plan;
    uint64_t term, number, snapshot_version;
    char holder[TS_ID_BYTES_MAX + 1];
    struct router_counts counts;
};

/* router_core.c */
void router_wake(struct router_core *core, ts_time at); /* the sweep looks no later than `at` */

/* router_member.c */
bool member_event(struct router_core *core, const struct ts_event_message *m,
                  struct member **out); /* true: a message to handle */
struct ts_action_send *member_send(struct router_core *core, struct member *member,
                                   enum ts_msg_kind kind); /* NULL: session down */
void member_unreachable(struct router_core *core, enum ts_channel channel, uint64_t peer);
void members_tick(struct router_core *core);
ts_time members_deadline(const struct router_core *core);
struct member *member_find(const struct router_core *core, enum ts_role role, const char *id);
void member_drains(struct router_core *core, struct member *member); /* gets nothing new any more */
bool member_ready(const struct member *member);
void member_free(struct member *member);
bool relay_alive(const struct router_core *core, const struct member *worker);

/* router_request.c */
void request_generate(struct router_core *core, const struct ts_event_message *m);
void request_cancel(struct router_core *core, const struct ts_event_message *m);
void request_forward(struct router_core *core, const struct ts_event_message *m);
void request_forward_reply(struct router_core *core, const struct ts_msg_tokenize_reply *reply);
void request_append(struct router_core *core, struct record *r, const struct ts_token_item *item);
void request_publish(struct router_core *core, struct record *r, size_t first);
void request_end(struct router_core *core, struct record *r, enum ts_finish finish, enum ts_reason reason,
                 const char *text);
void request_sweep(struct router_core *core);
void request_trim(struct router_core *core); /* forgets ended records beyond their bound */
void request_client_lost(struct router_core *core, uint64_t peer);
uint32_t request_attached(const struct router_core *core, uint64_t peer); /* its streams under way */
uint32_t request_client_most(const struct router_core *core); /* requests of the client that has most */
void request_fill_trace(const struct router_core *core, const struct record *r, struct ts_trace *out);
void record_state_set(struct router_core *core, struct record *r, enum record_state state);
void record_free(struct record *r);
struct record *record_find(const struct router_core *core, struct ts_str client, struct ts_str request_id);

/* router_refeed.c */
bool refeed_dispatch(struct router_core *core, struct record *r); /* true: assigned, fed by its copy */
void refeed_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m);
void refeed_copies(struct router_core *core, struct member *from, const struct ts_msg_copies *m);
void refeed_drop(struct router_core *core, struct record *r, enum ts_reason reason); /* of no more use */
void refeed_stop(struct router_core *core, struct record *r, enum ts_reason reason); /* the attempt is over */
void refeed_session(struct router_core *core, const struct member *relay);           /* a new one */

/* router_attempt.c */
/* The next attempt, with this pair; without prefill it is fed by a copy. */
void attempt_begin(struct router_core *core, struct record *r, struct member *p, struct member *d);
/* Who can go on with the KV that the request has; NULL = nobody. */
struct member *attempt_pick_decode(struct router_core *core, const struct record *r);
void attempt_dispatch(struct router_core *core);
void attempt_release(struct router_core *core, struct record *r, enum ts_reason reason);
void attempt_fail(struct router_core *core, struct record *r, enum ts_reason reason,
                  const struct member *blame, const char *text);
void attempt_output(struct router_core *core, struct member *from, const struct ts_msg_output *m);
void attempt_failed(struct router_core *core, struct member *from, const struct ts_msg_attempt_failed *m);
void attempt_refused(struct router_core *core, struct member *from, const struct ts_msg_assign_refused *m);
void attempt_report(struct router_core *core, struct member *from, const struct ts_msg_report *m);
void attempt_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m);
void attempt_resync(struct router_core *core, struct member *from, const struct ts_msg_resync *m);
void attempt_member_lost(struct router_core *core, const struct member *member);

/* router_plan.c */
void plan_changed(struct router_core *core); /* the cluster changed: a new snapshot version */
void plan_inform(struct router_core *core);  /* sends what planners have not seen */
void plan_received(struct router_core *core, struct member *from, const struct ts_msg_plan *m);
void plan_member_lost(struct router_core *core, const struct member *member);

/* router_status.c */
void status_message(struct router_core *core, const struct ts_event_message *m);

#endif
