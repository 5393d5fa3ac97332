/*
 * What the parts of the router core share. router_core.c dispatches events; router_member.c holds who is
 * there; router_request.c admission and the life of a request; router_stream.c clients and what they are
 * sent; router_load.c overload; router_attempt.c a request towards its workers, router_refeed.c by a copy of
 * its KV; router_forward.c questions of clients to tokenizers; router_plan.c plans; router_snapshot.c what
 * planners are told; router_links.c measured links; router_status.c questions of operators; router_check.c
 * the invariants.
 *
 * Nothing that happens for each token searches, allocates (but to grow an array) or walks a list: records are
 * found by number, hold pointers to their workers and client, and deadlines sit in one heap.
 */
#ifndef ROUTER_IMPL_H
#define ROUTER_IMPL_H

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_session.h"
#include "services/router/route_policy.h"
#include "services/router/router_core.h"
#include "services/router/router_index.h"
#include "services/router/router_load.h"
#include "services/router/router_timer.h"
#include "services/router/router_workload.h"

#define ROUTER_AVOID_MAX 4

enum record_state { RECORD_QUEUED, RECORD_ASSIGNED, RECORD_STREAMING, RECORD_ENDED };

enum timer_kind {
    TIMER_MEMBER,
    TIMER_RECORD,
    TIMER_CLIENT,
    TIMER_FORWARD,
    TIMER_ENDED,
    TIMER_PHASE,
    TIMER_WORKLOAD,
    TIMER_LINK_TEST
};

struct model {    /* served by at least one worker that is there */
    uint64_t key; /* hash of its name */
    uint32_t workers;
    double bytes_per_token; /* of text prompts, as a worker's profile says; 0 = unknown */
    double bytes, tokens;   /* of text prompts, as workers have counted them; older ones count less */
};

struct switching {          /* of a worker to another phase: router_phase.c */
    enum ts_phase to;       /* NONE = it stays as it is */
    uint64_t term, number;  /* as it was told */
    uint64_t operator_peer; /* who asked; 0 = a plan */
    struct timer timer;     /* until it must have answered */
};

struct member {                /* a worker, relay or planner whose Hello was accepted */
    struct route_worker route; /* worker: what picks look at */
    struct member *next;       /* of those that are gone */
    enum ts_role role;
    char id[TS_ID_BYTES_MAX + 1];
    struct ts_arena arena; /* holds hello */
    struct ts_msg_hello hello;
    enum ts_channel channel;
    uint64_t peer; /* of its present connection */
    uint64_t incarnation;
    struct ts_session session; /* down: silent or broken, may come back until dead_at */
    ts_time dead_at;           /* while the session is down */
    struct timer timer;        /* at its deadline or before: sends only move that back */
    struct ts_load load;
    bool synced; /* worker: Resync came in this session */
    bool draining;
    struct switching switching;
    struct gauge prompts, blocks; /* worker: prompt tokens computed; KV blocks given back while it was full */
    struct model *model;          /* worker */
    struct member *relay;         /* worker: that of its host, if it is there */
    size_t slot;                  /* worker: in core->workers */
    uint32_t replica;             /* worker: of the plan in force, + 1; 0 = not in it */
    uint64_t kv_assigned;         /* worker: KV blocks that its decode requests may come to need */
    uint64_t snapshot_sent;       /* planner: version it has seen */
};

struct kept_copy {         /* router_refeed.c */
    uint32_t attempt;      /* whose KV its relay holds encoded; 0 = none that is known */
    uint64_t session;      /* of the relay when it said so */
    uint64_t fingerprint;  /* of that KV */
    uint32_t from;         /* the present attempt is fed by the copy of that one, */
    struct member *feeder; /* by this relay, which still sends; NULL = not so, or over */
};

struct client { /* a connection */
    uint64_t peer;
    ts_time last_rx;
    struct timer timer;     /* at its deadline or before */
    struct record *records; /* under way, attached to it */
    uint32_t attached;
    struct record **pending; /* of those: with tokens to send in this step; NULL = not any more */
    size_t pending_count, pending_capacity;
    size_t flush_slot; /* in core->flush, + 1; 0 = nothing is pending */
};

struct record {
    uint64_t number; /* rid.request: also the order of acceptance */
    uint32_t attempt;
    uint32_t failures;   /* attempts that count towards max_attempts */
    ts_time short_since; /* when it was first short of KV memory, with so many tokens: */
    size_t short_count;
    enum record_state state;
    struct member *prefill, *decode; /* of the present attempt, or NULL; equal = one worker for both phases */
    struct client *client;           /* NULL = detached or ended */
    struct ts_token_item *items;     /* texts and tops in the arena */
    size_t count, capacity;
    size_t sent;                            /* items that the client was sent */
    size_t pending_slot;                    /* in client->pending, + 1; 0 = not there */
    bool batches;                           /* the client takes TokensBatch */
    bool kv_done;                           /* decode has the KV: prefill and relay do not matter any more */
    bool resent;                            /* decode was asked for what a lost session swallowed: it comes */
    bool computing;                         /* prefill: its prompt tokens count in the worker's */
    int64_t decode_begin_ns;                /* see ts_trace; hot */
    struct ts_arena arena;                  /* holds generate and texts */
    struct record *prev, *next;             /* live ones by acceptance, or ended ones by age */
    struct record *queue_prev, *queue_next; /* of QUEUED, by acceptance */
    struct record *client_prev, *client_next;
    struct timer timer;
    ts_time detached_at, accepted_at, deadline, retry_at, waiting_since, ended_at;
    uint64_t client_peer; /* last known */
    struct ts_msg_generate generate;
    char *key; /* client, NUL, request id */
    size_t key_bytes;
    struct ts_bulk prompt;
    struct kept_copy copy;
    uint64_t model;         /* hash of its name, 0 = any */
    uint32_t output_tokens; /* expected of all attempts together */
    struct workload_entry counted;
    uint32_t prompt_tokens;            /* estimated, then as counted */
    uint32_t held_tokens, held_blocks; /* as added to its workers' numbers */
    uint32_t length_class;             /* of the plan, at the last pick */
    uint64_t avoid[ROUTER_AVOID_MAX];
    uint32_t avoid_count;
    char codec[TS_ID_BYTES_MAX + 1], codec_why[96]; /* empty until the first attempt */
    struct ts_trace trace;                          /* its strings: see fill_trace */
    char prefill_id[TS_ID_BYTES_MAX + 1], relay_id[TS_ID_BYTES_MAX + 1], decode_id[TS_ID_BYTES_MAX + 1];
    enum ts_finish finish;
    enum ts_reason reason;
    char text[256]; /* words of the end */
};

struct forwarded { /* a Tokenize or Detokenize on its way */
    uint64_t id, client_peer, client_id;
    struct timer timer;
};

struct link_question { /* an operator's, on its way: router_link_test.c */
    uint64_t id;
    struct member *relay;
    char to[TS_ID_BYTES_MAX + 1];
    enum ts_channel channel; /* who asked, and under which number */
    uint64_t peer, peer_id;
    struct timer timer;
};

struct plan_class {
    double prompt_tokens, output_tokens; /* of its centre, at least 1 */
    double seen;                         /* requests; older ones count less */
};

struct plan { /* in force, resolved to workers; count 0 = none */
    struct ts_arena arena;
    struct route_class *classes;
    struct plan_class *lengths; /* of each class */
    size_t class_count;
    struct route_share *shares; /* by class */
    size_t share_count;
    struct route_replica *replicas;
    const char **workers;  /* id of each replica */
    enum ts_phase *phases; /* and its phase */
    bool applying;         /* not all are in theirs yet */
    size_t replica_count;
    double seen;                         /* of all classes */
    double recount;                      /* of `seen`, at which flows are counted anew */
    uint64_t newest_term, newest_number; /* of all plans that were ever in force */
};

struct router_core {
    struct router_settings settings;
    uint64_t incarnation;
    struct ts_rng rng;
    uint64_t last_session; /* of those that it accepted */
    ts_time now;
    struct ts_actions *out; /* of the step under way */
    bool draining;
    bool changed;  /* members: routes are refreshed and planners informed at the end of the step */
    bool dispatch; /* something may fit now that did not */
    bool batching; /* an OutputBatch: tokens go out when all of it is taken */
    struct timers timers;
    struct workload workload;
    struct timer workload_timer;   /* planners hear of it */
    struct timer ended_timer;      /* of the oldest ended record */
    struct ts_map *members;        /* role + id -> member */
    struct ts_map *peers;          /* channel + peer -> member */
    struct ts_map *fenced;         /* dead incarnations */
    struct ts_map *models;         /* hash of the name -> model */
    struct ts_map *link_tests;     /* id -> link_question */
    struct ts_map *links;          /* ids of relay and decode worker -> what was measured: router_links.c */
    struct route_worker **workers; /* in order of joining: the first field of a member */
    size_t worker_count, worker_capacity;
    struct ts_map *records; /* key -> record, ended ones included */
    struct index by_number; /* not ended */
    struct ts_map *clients; /* peer -> client */
    struct client **flush;  /* with tokens to send in this step; NULL = gone */
    size_t flush_count, flush_capacity;
    struct ts_map *per_client;              /* client id -> number of live records, as a tagged pointer */
    struct ts_map *forwards;                /* id -> forwarded */
    struct record *live_head, *live_tail;   /* by number */
    struct record *queue_head, *queue_tail; /* QUEUED, by number */
    struct record *ended_head, *ended_tail; /* oldest first */
    /* Gone, but actions of the step under way may point into them: freed at the next one. */
    struct record *dead_records;
    struct member *dead_members;
    size_t live_count, queued_count, ended_count;
    uint64_t held_bytes;
    uint64_t queued_tokens; /* of prompts of QUEUED */
    uint64_t next_number, next_forward, next_link_test;
    struct plan plan;
    uint64_t term, number, snapshot_version;
    char holder[TS_ID_BYTES_MAX + 1];
    struct router_counts counts;
};

static inline struct member *member_of(const struct route_worker *worker) /* whose first field it is */
{
    return (struct member *)(void *)(uintptr_t)worker;
}

/* router_member.c */
bool member_event(struct router_core *core, const struct ts_event_message *m,
                  struct member **out); /* true: a message to handle */
struct ts_action_send *member_send(struct router_core *core, struct member *member,
                                   enum ts_msg_kind kind); /* NULL: session down */
void member_unreachable(struct router_core *core, enum ts_channel channel, uint64_t peer);
void member_due(struct router_core *core, struct member *member); /* its timer */
struct member *member_find(const struct router_core *core, enum ts_role role, const char *id);
void member_drains(struct router_core *core, struct member *member); /* gets nothing new any more */
bool member_ready(const struct member *member);
void member_free(struct member *member);
void members_refresh(struct router_core *core); /* what each may be given */
void member_heard_load(struct router_core *core, struct member *member, const struct ts_load *load);
struct model *model_find(const struct router_core *core,
                         uint64_t key); /* 0: any; NULL: no worker serves it */
void member_ask_again(struct router_core *core, struct member *member); /* ends its session */
uint64_t router_key(struct ts_str name);                                /* its hash, never 0 */

/* router_request.c */
void request_generate(struct router_core *core, const struct ts_event_message *m, struct client *client);
void request_cancel(struct router_core *core, const struct ts_event_message *m);
void request_end(struct router_core *core, struct record *r, enum ts_finish finish, enum ts_reason reason,
                 const char *text);
void request_due(struct router_core *core, struct record *r);      /* its timer */
void request_schedule(struct router_core *core, struct record *r); /* sets it */
void request_trim(struct router_core *core);                       /* bounds the ended ones */
void request_ended_due(struct router_core *core);
uint32_t request_client_most(const struct router_core *core);
void request_fill_trace(const struct router_core *core, const struct record *r, struct ts_trace *out);
struct record *record_find(const struct router_core *core, struct ts_str client, struct ts_str request_id);
void record_state_set(struct router_core *core, struct record *r, enum record_state state);
void record_free(struct record *r);

/* router_stream.c */
struct ts_action_send *stream_send(struct router_core *core, uint64_t peer, enum ts_msg_kind kind);
struct client *client_heard(struct router_core *core, uint64_t peer);
void client_due(struct router_core *core, struct client *client); /* its timer */
void client_lost(struct router_core *core, uint64_t peer);
void client_free(struct client *client);
void stream_attach(struct router_core *core, struct record *r, struct client *client,
                   const struct ts_msg_generate *g); /* tells it what it lacks */
void stream_detach(struct record *r);
void stream_append(struct router_core *core, struct record *r, const struct ts_token_item *item);
void stream_publish(struct router_core *core, struct record *r); /* now, or with others of the step */
void stream_end(struct router_core *core, struct record *r);     /* what is left, and the End */
void streams_flush(struct router_core *core);

/* router_links.c */
void links_report(struct router_core *core, const struct member *from, const struct ts_msg_link_report *m);
void links_watch(struct router_core *core, const struct member *joined); /* a relay or a worker */
void links_forget(struct router_core *core, const struct member *gone);  /* a relay or a worker */
/* In order of first reports; without those of which a lower bound alone is known, if that is asked for. */
struct ts_link_items links_list(struct router_core *core, bool limits_only);

double links_expected(const struct router_core *core, const struct member *relay,
                      const struct member *decode); /* by the cluster file; 0: it does not say */

/* router_link_test.c */
void link_test_asked(struct router_core *core, const struct ts_event_message *m);
void link_test_reply(struct router_core *core, const struct member *from,
                     const struct ts_msg_link_test_reply *m);
void link_test_due(struct router_core *core, struct link_question *q); /* its timer */
void link_test_lost(struct router_core *core, const struct member *gone);

/* router_load.c */
bool load_full(const struct member *member);                     /* its KV blocks, nearly */
void load_pass(struct router_core *core, struct member *member); /* before its numbers change */
/* True: the plan's pair would be too late, and *out, the best of all, has no prompt that waits. */
bool load_elsewhere(const struct router_core *core, const struct ts_msg_generate *g,
                    const struct route_request *request, const struct route_share *share,
                    struct route_pair *out);
/* 0: it may come; else after how many ms it may ask again. */
uint32_t load_too_late(const struct router_core *core, const struct ts_msg_generate *g,
                       uint32_t prompt_tokens, uint32_t output_tokens);

/* router_forward.c */
void forward_asked(struct router_core *core, const struct ts_event_message *m);
void forward_reply(struct router_core *core, const struct ts_msg_tokenize_reply *reply);
void forward_due(struct router_core *core, struct forwarded *f); /* its timer */

/* router_refeed.c */
bool refeed_dispatch(struct router_core *core, struct record *r); /* true: assigned, fed by its copy */
void refeed_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m);
void refeed_copies(struct router_core *core, struct member *from, const struct ts_msg_copies *m);
void refeed_drop(struct router_core *core, struct record *r, enum ts_reason reason); /* of no more use */
void refeed_stop(struct router_core *core, struct record *r, enum ts_reason reason); /* the attempt is over */
void refeed_session(struct router_core *core, const struct member *relay);           /* a new one */

/* router_attempt.c */
/* The next attempt, with this pair; without prefill it is fed by a copy, and equal workers do both phases. */
void attempt_begin(struct router_core *core, struct record *r, struct member *p, struct member *d);
/* Who can go on with the KV that the request has; NULL = nobody. */
struct member *attempt_pick_decode(struct router_core *core, struct record *r);
bool attempt_only_waits(const struct router_core *core, const struct record *r);
void attempt_dispatch(struct router_core *core);
void attempt_release(struct router_core *core, struct record *r, enum ts_reason reason);
void attempt_output(struct router_core *core, struct member *from, const struct ts_msg_output *m);
void attempt_outputs(struct router_core *core, struct member *from, const struct ts_msg_output_batch *m);
void attempt_failed(struct router_core *core, struct member *from, const struct ts_msg_attempt_failed *m);
void attempt_refused(struct router_core *core, struct member *from, const struct ts_msg_assign_refused *m);
void attempt_report(struct router_core *core, struct member *from, const struct ts_msg_report *m);
void attempt_verified(struct router_core *core, struct record *r); /* decode has the KV */
void attempt_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m);
void attempt_resync(struct router_core *core, struct member *from, const struct ts_msg_resync *m);
void attempt_member_lost(struct router_core *core, const struct member *member);

/* router_plan.c */
void plan_changed(struct router_core *core); /* the cluster changed: a new snapshot version */
void plan_received(struct router_core *core, struct member *from, const struct ts_msg_plan *m);
void plan_member_joined(struct router_core *core, struct member *member);
void plan_member_lost(struct router_core *core, const struct member *member);
void plan_member_gone(struct router_core *core, struct member *member);
/* The pair that the plan has for a request, or NULL. `length_class`, `avoided` (how many of its workers
 * failed the request before) may be NULL. */
const struct route_share *plan_pick(const struct router_core *core, const struct route_request *request,
                                    uint32_t output_tokens, uint32_t *length_class, unsigned *avoided);
struct route_limits plan_limits(const struct router_core *core);
void plan_sent(struct router_core *core, size_t share, size_t length_class); /* a request goes that way */

void plan_phase(struct router_core *core, const struct member *member,
                enum ts_reason reason); /* in another phase than it was, or not */

/* router_phase.c */
void phase_set(struct router_core *core, struct member *member, enum ts_phase phase);
void phase_reply(struct router_core *core, struct member *from, const struct ts_msg_phase_reply *m);
void phase_synced(struct router_core *core, struct member *member);
void phase_due(struct router_core *core, struct member *member); /* its timer */
void phase_lost(struct router_core *core, struct member *member);
void phase_asked(struct router_core *core, const struct ts_event_message *m);

/* router_snapshot.c */
void snapshot_inform(struct router_core *core); /* sends what planners have not seen */
void snapshot_workload_due(struct router_core *core);

/* router_status.c */
void status_message(struct router_core *core, const struct ts_event_message *m);

#endif
