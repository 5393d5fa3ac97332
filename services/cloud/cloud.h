/*
 * A cloud in one process: the cores of all services joined under a virtual clock. Nothing here decides
 * anything a service decides; it performs the actions of the cores as the processes do (common/run), with
 * modelled devices, a modelled network and modelled clients, and steps them for what comes of it.
 *
 *     heap of occurrences, ordered by (time, sequence) -> step of one core -> its actions -> occurrences
 *
 * Deterministic: the same settings and seed give the same steps, and so the same cloud_digest. Time never
 * goes back and passes only between occurrences. A violated rule of the seam (a handle dropped twice, KV read
 * that is not the sequence's own, a message that could not be packed, ...) stops the run: cloud_fail.
 *
 * One thread. Settings of the nodes are copied; strings in them are borrowed and must outlive the cloud.
 */
#ifndef CLOUD_H
#define CLOUD_H

#include "common/core/ts_cluster.h"
#include "common/core/ts_event.h"
#include "common/core/ts_metrics.h"
#include "services/planner/planner_core.h"
#include "services/relay/relay_core.h"
#include "services/router/router_core.h"
#include "services/worker/worker_core.h"

struct cloud;
struct cloud_node;
struct cloud_replica;

enum cloud_kind {
    CLOUD_ROUTER = 1,
    CLOUD_PLANNER,
    CLOUD_WORKER,
    CLOUD_RELAY,
    CLOUD_CLIENT,
    CLOUD_PUBLISHER /* stands where a planner does: cloud_publisher.h */
};

/* What happens to messages. Chances are per message and hold until faults_until; afterwards the network is
 * only slow. A connection is FIFO in each direction; all that is lost of it is followed by its end, but for a
 * gap, which the receiver's session notices. */
struct cloud_network {
    ts_time latency_min, latency_mean; /* of each message: minimum plus an exponential share */
    double bytes_per_s;                /* adds the time of bulk bytes */
    double cut;                        /* the connection ends at once; what is under way is lost */
    double loss;                       /* nothing arrives any more in this direction, until it is cut */
    double gap;                        /* a few messages are lost, later ones arrive */
    double stall;                      /* this and later messages wait */
    double corrupt;                    /* of a KV chunk: one of its bytes changes */
    double refuse;                     /* the sender's queue is full: the send fails */
    ts_time cut_after_max, stall_max, reconnect_max;
    ts_time faults_until;
};

/* What befalls one message, beside what the chances of the network say. Zeroed: nothing. */
struct cloud_fate {
    bool refused; /* the sender's queue is full: the send fails */
    bool cut;     /* the connection ends at once, this and what is under way are lost */
    bool lost;    /* this one vanishes, later ones arrive */
    bool damaged; /* of a KV chunk: one of its bytes changes */
    bool again; /* a copy of it arrives, `again_after` behind it: whatever comes meanwhile is before the copy
                 */
    ts_time delay; /* it waits so long, and all behind it */
    ts_time again_after;
};

struct cloud_hooks { /* each may be NULL */
    void *context;
    /* Asked once for each message when it is sent over a connection that is up. */
    void (*fate)(void *context, struct cloud_node *from, struct cloud_node *to, const struct ts_msg *msg,
                 struct cloud_fate *fate);
    /* Before an action is performed: may change it; false = it is not performed. For tests that break things.
     */
    bool (*before)(void *context, struct cloud_node *node, struct ts_action *action);
    /* After each step, once its actions are performed. */
    void (*stepped)(void *context, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions);
};

struct cloud_settings {
    uint64_t seed;
    /* Digest of all steps, bounds of all messages, KV cells, texts and token ids. Without them the same steps
     * happen, faster: requests need no prompts, token i is a hash of (seed, i). */
    bool checks;
    bool undigested;    /* with checks, but no digest */
    bool shapes_unsaid; /* workers do not state the shape of their model: planners give equal shares */
    const char
        *device_conf; /* shapes and coefficients of all devices (gpu/sim/ts_sim_model.h); NULL = built in */
    const struct ts_model *model; /* instead of the devices' shape; copied */
    uint32_t context_tokens;      /* 0 = the model's */
    /* Layout of all KV pools: so many equal parts of the layers instead of single layers and heads, the same
     * bytes. A divisor of the layers; 0 = layers and heads as they are. */
    uint32_t kv_parts;
    double codec_bytes_per_s; /* of encode and scatter, raw KV bytes */
    ts_time tokenise_ns;      /* per prompt token */
    ts_time restart_max;      /* a killed node comes back within that time */
    /* Blocks are given back after KvFreed only. Not where sessions may end: a worker that has lost its
     * relay's session takes its blocks back, and the relay sees it by their generations. */
    bool blocks_stay;
    double engine_fault, codec_fault; /* chances of a batch, an encode to fail, until network.faults_until */
    struct cloud_network network;
    /* KV on its way between replicas shares the links and network cards of this cluster, and takes its
     * latencies; network.bytes_per_s is of everything else. Borrowed; NULL = of KV, too. */
    const struct ts_cluster *cluster;
    struct cloud_hooks hooks;
};

struct cloud_settings cloud_settings_defaults(void);

enum ts_status cloud_new(const struct cloud_settings *settings, struct cloud **out, struct ts_error *err);
void cloud_destroy(struct cloud **cloud);

/* Nodes dial each other by id: endpoints in the settings are replaced. All start at the first run. */
struct cloud_node *cloud_add_router(struct cloud *cloud, const struct router_settings *settings);
struct cloud_node *cloud_add_planner(struct cloud *cloud, const struct planner_settings *settings);
struct cloud_node *cloud_add_relay(struct cloud *cloud, const struct relay_settings *settings);
/* `kv_blocks`: size of its pool. `relay`: of its host, NULL = none. Fills profile, pool and endpoints. */
struct cloud_node *cloud_add_worker(struct cloud *cloud, const struct worker_settings *settings,
                                    enum ts_phase phase, uint32_t kv_blocks, const char *relay);
void cloud_worker_willing(struct cloud_node *worker, uint32_t phases); /* to serve, beside the one it has */

/* The same on devices of the cost model: takes their time, and its pool's size, from `replica`, which is
 * borrowed. */
struct cloud_node *cloud_add_replica(struct cloud *cloud, const struct worker_settings *settings,
                                     enum ts_phase phase, struct cloud_replica *replica, const char *relay);

/* One request of a modelled client. Spans are copied. */
struct cloud_request {
    ts_time at;             /* when it is sent */
    const uint32_t *prompt; /* NULL: drawn; without checks, zeros */
    uint32_t prompt_count;
    struct ts_sampling sampling;
    uint32_t deadline_ms, reattach_ms; /* 0 = none, the router's */
    uint32_t ttft_ms, tpot_ms;         /* what it is asked to keep; 0 = nothing */
    const char *codec;                 /* NULL = the router's choice */
    ts_time cancel_at;                 /* TS_TIME_NEVER = not cancelled */
};

struct cloud_outcome { /* what the client has of it */
    bool sent, ended, refused;
    enum ts_finish finish;
    enum ts_reason reason;
    const uint32_t *tokens; /* and arrivals: NULL without checks */
    const ts_time *arrivals;
    uint32_t token_count;
    struct ts_metrics metrics;    /* of the arrivals, by the function that real clients use */
    const struct ts_trace *trace; /* as End brought it; only in `ended` of a source, NULL when refused */
};

struct cloud_node *cloud_add_client(struct cloud *cloud, const char *id);
size_t cloud_client_ask(struct cloud_node *client, const struct cloud_request *request); /* its number */
/* Leaves without a word at `from`, dials again at `until` and asks for what it lacks. */
void cloud_client_leave(struct cloud_node *client, ts_time from, ts_time until);
void cloud_client_plain(struct cloud_node *client); /* takes Tokens only, no TokensBatch */
size_t cloud_client_count(const struct cloud_node *client);
struct cloud_outcome cloud_client_outcome(const struct cloud_node *client, size_t number);

/* A client whose requests are pulled one by one. `next` fills the request (zeroed but for sampling and
 * cancel_at) or returns false for good; it is asked at the start and when the one before was sent. A request
 * of the past is sent at once. `ended` (may be NULL) is told once of each; request and outcome are valid
 * during the call, and nothing of the request is kept afterwards. */
struct cloud_source {
    void *context;
    bool (*next)(void *context, struct cloud_request *out);
    void (*ended)(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome);
    uint32_t retries; /* of a refused request, when the router says after how long; 0 = refused is its end */
};

struct cloud_node *cloud_add_source(struct cloud *cloud, const char *id, const struct cloud_source *source);
bool cloud_source_over(const struct cloud_node *client); /* dry, and all has ended */

/* What a request must give on modelled devices: tokens are a pure function of it. Writes at most
 * sampling.max_tokens ids, returns how many, and how it ends (error: the prompt fills the context). */
uint32_t cloud_expected(const struct cloud *cloud, const struct cloud_request *request, uint32_t *out,
                        enum ts_finish *finish);

void cloud_retire(struct cloud_node *node); /* once dead, it stays so */
void cloud_kill(struct cloud_node *node);   /* at once; what it held is gone, what it sent may be */
void cloud_start(struct cloud_node *node);  /* a new incarnation; nothing to do for one that runs */
void cloud_drain(struct cloud_node *node);  /* first SIGTERM */
/* Nothing happens to the node until then: what comes waits, its timers and its devices stand still. */
void cloud_freeze(struct cloud_node *node, ts_time until);
void cloud_fail_jobs(struct cloud_node *node,
                     uint32_t count); /* its next batches or encodes end in an error */
/* An operator asks a router: Drain, Status, Why. The answer is not looked at. */
void cloud_admin(struct cloud_node *router, const struct ts_msg *msg);
void cloud_restart_stopped(struct cloud_node *node, bool restart); /* whether a drained node comes back */
void cloud_at(struct cloud *cloud, ts_time at, void (*call)(void *context), void *context);

/* What a link or a network card of the cluster has carried. `bytes_per_s` is what it can do now. */
struct cloud_link_use {
    double bytes, busy_s, bytes_per_s;
};

struct cloud_link_use cloud_link_use(const struct cloud *cloud, uint32_t from,
                                     uint32_t to); /* equal: inside */
struct cloud_link_use cloud_card_use(const struct cloud *cloud, uint32_t node, bool out);
void cloud_link_factor(struct cloud *cloud, uint32_t from, uint32_t to,
                       double factor); /* of its bytes/s, from now */
/* Other traffic between two nodes of the cluster: tells when all of it has left. */
void cloud_flow(struct cloud *cloud, uint32_t from, uint32_t to, double bytes, void (*over)(void *context),
                void *context);

/* Runs until `until` or a violation, whichever comes first. */
enum ts_status cloud_run(struct cloud *cloud, ts_time until, struct ts_error *err);
void cloud_fail(struct cloud *cloud, const char *format, ...) TS_PRINTF(2, 3); /* the first one counts */

ts_time cloud_now(const struct cloud *cloud);
uint64_t cloud_digest(const struct cloud *cloud); /* of all events and actions so far */
uint64_t cloud_steps(const struct cloud *cloud);
size_t cloud_node_count(const struct cloud *cloud);
struct cloud_node *cloud_node_at(const struct cloud *cloud, size_t i);
/* Who is at the other end of that connection; NULL: nobody. */
struct cloud_node *cloud_peer_of(const struct cloud_node *node, enum ts_channel channel, uint64_t peer);
/* Whether its dialler has closed that connection: what was under way may still come, nothing goes back. */
bool cloud_peer_closed(const struct cloud_node *node, enum ts_channel channel, uint64_t peer);
bool cloud_failed(const struct cloud *cloud);
const char *cloud_node_id(const struct cloud_node *node);
enum cloud_kind cloud_node_kind(const struct cloud_node *node);
bool cloud_node_alive(const struct cloud_node *node);
void *cloud_node_core(
    const struct cloud_node *node); /* struct router_core, ...; NULL when dead, a client or a publisher */
size_t cloud_node_handles(const struct cloud_node *node); /* bulk handles its core holds */

struct cloud_counts {
    uint64_t messages, lost, duplicates, cuts, stalls, corrupted, kills, batches, encodes, scatters;
};

struct cloud_counts cloud_counts(const struct cloud *cloud);

#endif
