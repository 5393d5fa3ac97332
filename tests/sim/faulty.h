/*
 * A small world for transfers over a faulty network: the real cores of a relay, of prefill and of decode
 * workers, the real codec on real pools, every message as the bytes of proto/ts_wire, a router that is played
 * (faulty_router.c). Between relay and decode worker frames are damaged, cut short, lost, repeated and
 * swapped, connections end, any process is killed and comes back as another incarnation. Everything follows
 * from the seed: one queue is served at a time, drawn by number, under virtual time.
 *
 * What a decode worker's engine would read is compared with what decode(encode()) of the prompt's KV gives;
 * handles, blocks and ends are counted when all is at rest. The first broken promise is kept in `fault`, and
 * the world stands still. One thread; the world owns all.
 */
#ifndef FAULTY_H
#define FAULTY_H

#include "common/base/ts_rng.h"
#include "common/core/ts_session.h"
#include "common/run/ts_frame.h"
#include "gpu/codec/ts_codec.h"
#include "services/relay/relay_core.h"
#include "services/worker/worker_core.h"

#define FAULTY_NODES_MAX    4
#define FAULTY_REQUESTS_MAX 5
#define FAULTY_ATTEMPTS_MAX 128
#define FAULTY_POOLS_MAX    16
#define FAULTY_BLOCKS       16   /* of a pool; of some worlds thrice as many */
#define FAULTY_POISON       0xEE /* what lies in blocks that nobody owns */

enum faulty_role { FAULTY_ROUTER, FAULTY_RELAY, FAULTY_PREFILL, FAULTY_DECODE };

enum faulty_fate {              /* of a frame between relay and decode worker */
                   FATE_FLIP,   /* bits of the message */
                   FATE_DAMAGE, /* bits of the raw frame */
                   FATE_FORGE,  /* the same, and a checksum that agrees: only digests can tell */
                   FATE_TRUNCATE,
                   FATE_LOSE,
                   FATE_REPEAT,
                   FATE_SWAP,  /* overtakes the one before it */
                   FATE_CUT,   /* the connection ends with all that is under way */
                   FATE_STALL, /* nothing passes for a while */
                   FATES
};

struct faulty_layout {
    uint32_t layers, heads, head_dim, blocks;
    enum ts_dtype dtype;
};

/* --- pools and prompts (faulty_kv.c) --- */

struct faulty_pool {
    struct faulty_layout layout;
    uint8_t *data;
    size_t bytes;
    uint32_t *generations; /* [blocks] */
};

struct faulty_request {
    uint64_t key,
        other; /* all of its KV and tokens follow from the first, from token `fork` on from the other */
    uint32_t fork;
    uint32_t *prompt, prompt_count;
    char codec_name[16];
    struct faulty_pool *expected; /* block i holds tokens 16 i ...; NULL until it is asked for */
};

struct faulty_pool *faulty_pool_new(struct faulty_layout layout);
void faulty_pool_free(struct faulty_pool *pool);
/* The values of one token; side 0 = keys. */
uint16_t *faulty_pool_row(const struct faulty_pool *pool, uint32_t layer, uint32_t block, uint32_t side,
                          uint32_t head, uint32_t token);
void faulty_pool_poison(struct faulty_pool *pool, struct ts_u32s blocks);
/* What prefill computes for these tokens: a function of the request's key and the place. */
void faulty_kv_compute(const struct faulty_request *r, struct faulty_pool *pool, struct ts_u32s blocks,
                       uint32_t layer, uint32_t token_begin, uint32_t token_count);
uint32_t faulty_token(const struct faulty_request *r, uint32_t output_index);
void faulty_request_init(struct faulty_request *r, uint64_t key, uint32_t prompt_tokens, const char *codec);
void faulty_request_fork(struct faulty_request *r, uint32_t token,
                         uint64_t key); /* begins as it did, then differs */
void faulty_request_fini(struct faulty_request *r);
/* Whether these blocks hold the prompt's KV as the codec restores it: every byte of every token. */
bool faulty_kv_right(struct faulty_request *r, const struct faulty_pool *pool, struct ts_u32s blocks,
                     struct ts_error *err);
/* The work behind ENCODE and SCATTER, as relay_run.c and worker_run.c do it. */
void faulty_encode(const struct faulty_pool *pool, const struct ts_action_encode *a, struct ts_event *event,
                   struct ts_frame **frame, struct ts_arena *arena);
void faulty_scatter(struct faulty_pool *pool, const struct ts_action_scatter *a, const struct ts_frame *frame,
                    struct ts_event *event, struct ts_arena *arena);

/* --- the router (faulty_router.c) --- */

struct faulty_attempt {
    struct ts_rid rid;
    int request;           /* index */
    bool refeed;           /* from a copy */
    bool begun;            /* the relay had it; its incarnation then: */
    uint64_t relay;        /* 0 once that one was killed */
    uint32_t transfers;    /* how often the relay told its end */
    enum ts_reason reason; /* as it was told */
    bool assigned;         /* the decode worker had it */
    uint64_t decode;       /* its incarnation; 0 once that one was killed */
    bool released;         /* at the decode worker, before it had told an end */
    bool verified;
    uint32_t ends; /* how often the decode worker told an end */
};

struct faulty_member {
    int node;
    uint64_t peer;
    struct ts_session session;
    bool ready;
};

enum faulty_state { REQUEST_WAITS, REQUEST_RUNS, REQUEST_DONE };

struct faulty_asked {
    struct faulty_request request;
    enum faulty_state state;
    ts_time retry_at;
    int attempt; /* index of the last one, -1 before the first */
    uint32_t attempts;
    bool copy, again; /* its relay holds one; it was sent from there after a good end */
    bool lost;        /* who served it was killed */
};

struct faulty_router {
    uint64_t incarnation, last_session;
    struct faulty_member members[FAULTY_NODES_MAX];
    struct faulty_asked asked[FAULTY_REQUESTS_MAX];
    int asked_count;
    struct faulty_attempt attempts[FAULTY_ATTEMPTS_MAX];
    int attempt_count;
};

struct faulty_world;
struct faulty_node;

void faulty_router_step(struct faulty_world *w, const struct ts_event *event, struct ts_actions *out);
ts_time faulty_router_deadline(const struct faulty_world *w);
void faulty_router_lost(struct faulty_world *w, int node); /* killed: it hears of it at once */
bool faulty_worker_knows(const struct faulty_node *n, struct ts_rid rid, enum ts_phase role);
struct ts_rid faulty_worker_rid(const struct faulty_node *n, uint64_t tag); /* of the task with that tag */
struct faulty_attempt *faulty_attempt_find(struct faulty_world *w, struct ts_rid rid);
bool faulty_router_done(const struct faulty_world *w);
bool faulty_at_rest(struct faulty_world *w); /* nothing is left; else `fault` says what */
void faulty_router_fini(struct faulty_world *w);

/* --- processes and connections (faulty.c) --- */

struct faulty_node {
    enum faulty_role role;
    const char *name;
    bool alive;
    uint64_t incarnation, next_peer;
    ts_time back_at; /* when a killed one comes back */
    struct relay_core *relay;
    struct worker_core *worker;
    struct faulty_pool *pool;
    struct faulty_pool *mapped[FAULTY_POOLS_MAX]; /* relay: by the number that its core gave */
    struct ts_bulk_table *bulks;
    int64_t handles; /* references that the core owes */
    struct ts_actions out;
};

struct faulty_world {
    uint64_t seed;
    struct ts_rng rng;
    struct faulty_layout layout;
    ts_time now;
    uint64_t steps;
    struct faulty_node nodes[FAULTY_NODES_MAX];
    struct faulty_conn *conns;
    size_t conn_count, conn_capacity;
    struct faulty_job *jobs;
    size_t job_count, job_capacity;
    struct faulty_pool **pools; /* every one there ever was: a relay may still map it */
    size_t pool_count, pool_capacity;
    struct faulty_router router;
    bool storm;           /* things go wrong */
    uint32_t odds[FATES]; /* of 1000 frames */
    uint64_t kill_step;   /* in that step a process is killed; 0 = none */
    int kill_node;
    struct ts_error fault; /* the promise that was broken */
    uint64_t fates[FATES], kills, checked;
    uint64_t repeated, present; /* chunks sent again; blocks that decode had: of processes that have ended */
};

void faulty_begin(struct faulty_world *w, uint64_t seed);
bool faulty_step(struct faulty_world *w); /* false: a promise was broken, or nothing will ever happen */
void faulty_kill(struct faulty_world *w, int node);
void faulty_end(struct faulty_world *w);
void faulty_broken(struct faulty_world *w, const char *format, ...) TS_PRINTF(2, 3);

#endif
