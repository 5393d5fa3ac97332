/*
 * What the parts of the harness share. sim_draw.c makes scripts; sim_run.c builds the cloud of one and plays
 * it; sim_fault.c does what goes wrong; sim_check.c looks at clients and ends; sim_see_router.c,
 * sim_see_worker.c and sim_see_relay.c look into the cores after each of their steps and keep the books of
 * the harness, which do not rely on those of the cores; sim_look_router.c holds the router's tables against
 * them; sim_session.c follows the numbers of sessions;
 * sim_matrix.c counts what met what; sim_shrink.c and sim_print.c make a failure small and readable.
 */
#ifndef SIM_IMPL_H
#define SIM_IMPL_H

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "tests/sim/sim.h"

#define SIM_ROUTER      900 /* as a node of a fault */
#define SIM_CLIENT      (SIM_NODES_MAX + 1000)
#define SIM_PEERS_MAX   1024
#define SIM_NUMBERS_MAX 1024
#define SIM_BOUND       (12 * TS_S) /* after the last fault: what two cores may disagree about */

struct sim_ask { /* one request: what it must give, what its router has of it */
    const struct sim_request *request;
    bool asked;
    uint32_t client, number;
    struct cloud_request as_sent; /* without prompt */
    uint32_t tokens[SIM_OUTPUT_MAX];
    uint32_t count, seen;
    enum ts_finish finish;
    bool counted;
    /* At the present router. */
    bool live, cancel_heard;
    uint64_t rid_number, peer;
    ts_time accepted_at, deadline, asked_at, waiting_since, lost_at;
    uint32_t attempts, traced_tokens, bytes;
    struct cloud_node *holder[2]; /* prefill, decode of the present attempt: a Release is owed */
    uint64_t holder_peer[2], holder_session[2];
    ts_time missing_since[2];
    uint32_t short_of_memory;  /* attempts that failed for want of KV memory */
    uint32_t blamed;           /* bit per node of the script: it failed this request */
    uint32_t refed;            /* the last attempt that was fed by a copy */
    uint32_t copy_given_up;    /* attempt whose copy its relay has lost */
    struct cloud_node *feeder; /* relay that was told Refeed: a Release is owed, or it says that it is over */
    uint64_t feeder_session;
    uint64_t codec;       /* hash of the one that it was assigned with */
    bool colocated_first; /* on exact KV, whatever it wished */
};

struct sim_active { /* a fault of a link under way */
    enum sim_fault_kind kind;
    struct cloud_node *from, *to; /* from: NULL = a cut works in both directions of the pair */
    ts_time until, lasts;
    uint32_t amount;
};

struct router_core;
struct sim_session; /* sim_session.c */

struct sim_dead { /* an incarnation that the router has given up: for ever */
    uint64_t incarnation;
};

struct sim_member { /* at the router, one step ago */
    uint64_t incarnation;
    ts_time switching_since; /* to another phase; 0 = it does not */
    uint64_t switching_plan; /* the one under way: by the end of its time */
};

struct sim_worker { /* what the harness remembers of a worker between two steps */
    bool draining;
    enum ts_phase phase;
    uint64_t router, term, plan; /* the newest assignment of that router */
    ts_time router_lost_at;
    uint64_t life;
};

struct sim_planner {
    uint64_t incarnation, term, number, refused_term;
};

struct sim_world {
    const struct sim_options *options;
    struct sim_result *result;
    struct sim_script script;
    struct cloud *cloud;
    struct cloud_node *router, *clients[SIM_CLIENTS_MAX], *nodes[SIM_NODES_MAX];
    bool gone[SIM_NODES_MAX]; /* left for good */
    bool faulty;
    struct sim_ask asks[SIM_REQUESTS_MAX];
    uint32_t of_client[SIM_CLIENTS_MAX][SIM_REQUESTS_MAX]; /* its requests, by their number */
    uint32_t client_asks[SIM_CLIENTS_MAX];
    struct sim_active active[SIM_FAULTS_MAX];
    uint32_t active_count;
    uint32_t waiting[SIM_FAULTS_MAX]; /* faults that wait for a request in the state they aim at */
    ts_time waits_until[SIM_FAULTS_MAX];
    uint32_t waiting_count;
    struct sim_fault_call *calls;
    struct ts_rng rng;
    struct ts_map *traced;
    struct {
        const struct ts_action *action; /* altered by a fault in this step */
        enum ts_phase role;             /* of an assignment, before */
    } altered[8];
    uint32_t altered_count;
    bool delivered; /* the message of this step came in its turn */
    ts_time router_thawed;
    ts_time progress_at, looked_at, last_fault;
    /* Of the present router. */
    uint64_t idle_number;
    uint32_t idle_attempt;
    ts_time idle_since;
    uint64_t router_incarnation, term, number, snapshot;
    struct sim_ask *by_number[SIM_NUMBERS_MAX];
    ts_time heard[SIM_PEERS_MAX]; /* client connections */
    uint32_t live;
    uint64_t held;
    uint32_t client_live[SIM_CLIENTS_MAX];
    struct sim_member members[64];
    uint32_t member_count;
    uint64_t dead[256], drained[256]; /* incarnations that were given up, that said Drain */
    uint32_t dead_count, drained_count;
    /* Of workers and relays. */
    struct sim_worker workers[SIM_NODES_MAX];
    struct sim_planner planners[SIM_NODES_MAX];
    struct ts_map *sessions, *transfers, *jobs, *receipts;
};

static inline uint32_t sim_index_of(const struct sim_world *w, const struct cloud_node *node)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] == node)
            return i;
    }
    return SIM_NODE_NONE;
}

/* For how long the client of a request may be away. */
static inline uint32_t sim_reattach_ms(const struct sim_world *w, const struct sim_ask *ask)
{
    return ask->as_sent.reattach_ms ? ask->as_sent.reattach_ms : w->script.router.reattach_ms;
}

/* sim_fault.c */
void sim_faults_start(struct sim_world *w);
void sim_fate(void *context, struct cloud_node *from, struct cloud_node *to, const struct ts_msg *msg,
              struct cloud_fate *fate);
void sim_alter(struct sim_world *w, struct cloud_node *node,
               struct ts_action *action);  /* before it is performed */
void sim_faults_look(struct sim_world *w); /* for what they aim at, after each step */
struct cloud_node *sim_add_node(struct sim_world *w, uint32_t number);

const struct ts_action *sim_altered(const struct sim_world *w, const struct ts_action_send *send,
                                    enum ts_phase *role); /* NULL: it is as its core meant it */

/* sim_check.c */
void sim_check_step(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions);
bool sim_all_ended(const struct sim_world *w);
void sim_check_rest(struct sim_world *w);
struct sim_ask *sim_ask_of(struct sim_world *w, struct ts_str client, struct ts_str request_id);

/* sim_see_router.c */
void sim_see_router(struct sim_world *w, const struct ts_event *event, const struct ts_actions *actions);
void sim_router_died(struct sim_world *w);

/* sim_look_router.c */
void sim_look_router(struct sim_world *w, const struct router_core *core); /* each 50 ms */
void sim_look_members(struct sim_world *w, const struct router_core *core);
void sim_router_rest(struct sim_world *w);
/* The attempt that a live request has at the router: states by enum sim_state, -1 = not live. */
int sim_record_state(struct sim_world *w, const struct sim_ask *ask, struct ts_rid *rid,
                     struct cloud_node **prefill, struct cloud_node **decode, struct cloud_node **relay);

bool sim_record_in(struct sim_world *w, enum sim_state state, struct ts_rid *rid);

/* sim_idle.c: of the router */
void sim_router_idle(struct sim_world *w);
void sim_check_assign(struct sim_world *w, struct sim_ask *ask, const struct ts_msg_assign *a);
void sim_check_told(struct sim_world *w, const struct ts_action_send *s);
void sim_check_attached(struct sim_world *w, const struct ts_msg_generate *g,
                        const struct ts_actions *actions);
void sim_check_resync(struct sim_world *w, const struct ts_msg_resync *asked,
                      const struct ts_msg_resync_reply *answered);
void sim_detached(struct sim_world *w, uint64_t peer);

/* sim_see_worker.c */
void sim_see_worker(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions);
int sim_task_state(const struct cloud_node *node, struct ts_rid rid,
                   enum ts_phase role); /* enum sim_state; -1 = none */
bool sim_task_in(const struct cloud_node *node, enum sim_state state, struct ts_rid *rid);
enum ts_phase sim_phase(const struct cloud_node *node);
uint32_t sim_dying(const struct cloud_node *node, enum ts_phase role);
uint32_t sim_texts_open(struct sim_world *w, const struct cloud_node *node);
void sim_worker_books_free(struct sim_world *w);

/* sim_see_planner.c */
void sim_see_planner(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                     const struct ts_actions *actions);

/* sim_see_relay.c */
void sim_see_relay(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                   const struct ts_actions *actions);
int sim_transfer_state(const struct cloud_node *node, struct ts_rid rid);
bool sim_transfer_in(const struct cloud_node *node, enum sim_state state, struct ts_rid *rid);
/* Its transfers in that state: from whose pool each reads, NULL = from nobody's that is there. */
uint32_t sim_over(const struct cloud_node *node, struct cloud_node **owners, uint32_t most);
void sim_relay_books_free(struct sim_world *w);

/* sim_session.c */
struct ts_session;
void sim_session_sent(struct sim_world *w, struct cloud_node *node, const struct ts_action *action);
bool sim_session_heard(struct sim_world *w, struct cloud_node *node, const struct ts_event_message *m);
void sim_session_ended(struct sim_world *w, const struct cloud_node *node, enum ts_channel channel,
                       uint64_t peer);
/* The core's session with that peer must be where the harness says, or over. */
void sim_session_check(struct sim_world *w, struct cloud_node *node, enum ts_channel channel, uint64_t peer,
                       const struct ts_session *session);
void sim_sessions_free(struct sim_world *w);

/* sim_matrix.c */
void sim_met(struct sim_world *w, enum sim_fault_kind kind, const struct cloud_node *target,
             const struct cloud_node *other, const struct sim_ask *only);

#endif
