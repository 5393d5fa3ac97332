/*
 * A small world in which both sides of a transfer are cut into several owners: the real cores of relays and
 * decode workers, the real codec on real pools, every message as bytes. Each owner has a pool of the whole
 * model, in which all but its own layers and heads is poison. Prefill workers and routers are played.
 * Messages of different connections, jobs and clocks come in an order that is drawn. A broken promise fails
 * the test. One thread; the world owns all.
 */
#ifndef PARTED_H
#define PARTED_H

#include "common/base/ts_rng.h"
#include "common/core/ts_reshard.h"
#include "common/core/ts_session.h"
#include "common/run/ts_frame.h"
#include "faulty.h"
#include "services/relay/relay_core.h"
#include "services/worker/worker_core.h"

#define PARTED_LAYERS   8
#define PARTED_HEADS    4
#define PARTED_TOKENS   100
#define PARTED_OWNERS   4 /* of a side, at most */
#define PARTED_NODES    (2 * PARTED_OWNERS)
#define PARTED_CONNS    256
#define PARTED_NEVER_MS 100000000

enum parted_trouble { TROUBLE_NONE, TROUBLE_DAMAGE, TROUBLE_CUT, TROUBLE_RELEASE, TROUBLES };

struct parted_node { /* senders come first */
    bool sends;
    char name[8];
    struct ts_shard_rect rect;
    struct relay_core *relay;
    struct worker_core *worker;
    struct faulty_pool *pool;
    struct ts_bulk_table *bulks;
    int64_t handles;
    uint64_t next_peer;
    struct ts_session router, prefill; /* those of who is played, with this node */
    struct ts_actions out;
    bool verified, failed; /* as its router was told */
};

struct parted_conn { /* of a relay to a decode worker */
    int relay, decode;
    uint64_t relay_peer, decode_peer;
    bool first; /* the one that carries the session */
};

enum parted_what { A_MESSAGE, A_JOB };

struct parted_item { /* to be delivered, in order where they are of the same way */
    enum parted_what what;
    uint64_t way;
    int node;
    struct ts_event event;   /* A_MESSAGE; in: */
    struct ts_action action; /* A_JOB */
    struct ts_arena *arena;
    struct ts_frame *frame;
};

struct parted_world {
    struct ts_rng rng;
    ts_time now;
    uint64_t steps, trouble_step;
    enum parted_trouble trouble;
    struct parted_node nodes[PARTED_NODES];
    int node_count, sender_count;
    struct parted_conn conns[PARTED_CONNS];
    size_t conn_count;
    struct parted_item *items;
    size_t item_count, item_capacity;
    uint64_t next_way, last_session, damaged;
    struct faulty_request request;
    struct faulty_pool *merged;
    struct ts_rid rid;
};

extern const struct faulty_layout parted_layout;

void parted_step(struct parted_world *w, int node, const struct ts_event *event);
/* A message of who is played to that node. */
void parted_play(struct parted_world *w, int node, enum ts_channel channel, struct ts_session *session,
                 const struct ts_msg *msg);
void parted_release(struct parted_world *w); /* by all routers */
bool parted_go_on(struct parted_world *w);   /* false: nothing will happen in the next seconds */
void parted_fini_items(struct parted_world *w);

#endif
