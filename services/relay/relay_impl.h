/*
 * What the parts of the relay core share. relay_core.c dispatches; relay_link.c keeps sessions;
 * relay_lane.c the connections of a link; relay_transfer.c a transfer from KvBegin to its one end;
 * relay_part.c those of a request that goes to several workers; relay_resume.c what a lost session leaves of
 * it; relay_encode.c what is encoded, and what may be sent;
 * relay_copy.c what stays of it; relay_probe.c what is measured of links and told of them.
 */
#ifndef RELAY_IMPL_H
#define RELAY_IMPL_H

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_session.h"
#include "services/relay/relay_core.h"
#include "services/relay/relay_measure.h"

enum transfer_state {
    TRANSFER_OPENING,    /* link not up yet, or decode does not know the attempt yet */
    TRANSFER_WAIT_GRANT, /* KvOpen is sent */
    TRANSFER_STREAMING,  /* granted */
    TRANSFER_FLUSHING,   /* all is sent, KvEnd and KvCommit too: until KvDone */
    TRANSFER_RETAINED,   /* verified; a copy that can be sent again */
    TRANSFER_OVER        /* ended; kept until its running encodes have come back */
};

struct router_link {
    uint64_t peer;
    struct ts_session session;
    ts_time reported_at; /* when it was last told our load */
    ts_time lost_at;     /* since when its session is down */
    bool lost, given_up; /* down after it was up; for so long that no copy is kept for it */
};

struct pool {      /* of one worker of this host */
    uint64_t peer; /* of the pool channel */
    struct ts_session session;
    uint64_t id;               /* in actions; 0 = not announced */
    bool mapped;               /* MAP_POOL was asked for, and UNMAP_POOL was not */
    bool usable;               /* what lies there can be encoded, */
    bool by_worker;            /* and its worker does it */
    struct ts_msg_pool layout; /* without what only mapping needs */
};

struct lane { /* one connection to a decode worker: the first carries the session, the others only chunks */
    uint64_t peer; /* 0 = not there yet */
    uint64_t under_way;
    ts_time moved_at; /* since when nothing of what is under way has come back */
    bool failed;      /* not used again in this session */
};

struct probe {               /* of a link: relay_probe.c */
    uint64_t next, back;     /* numbers of the last one sent, and of the last one answered */
    ts_time due;             /* the next round */
    ts_time sent_at;         /* of the round: the last one, */
    uint64_t bytes, kv_sent; /* what it carried, and the link's bytes of KV until then */
    bool alone;              /* no KV was under way then */
    uint64_t stale;          /* answers up to that number are of a test that is over */
    uint32_t empty;          /* answered, of the round */
};

struct link { /* to a decode worker */
    uint64_t peer;
    struct lane lanes[RELAY_LANES_MAX];
    uint32_t lane_count; /* that may be used: 1 unless decode takes more */
    char *endpoint;
    struct ts_session session;
    uint32_t transfers;
    ts_time idle_since;
    char *id;    /* of the worker, as it last said; NULL = it has not */
    bool probes; /* it takes KvProbe */
    struct relay_measure measure;
    struct probe probe;
    uint64_t done, repeats; /* transfers verified, chunks sent again */
    struct {
        bool once, at_least;
        double bytes_per_s;
        uint64_t done, repeats;
    } told; /* routers, of this link */
};

struct link_test {              /* an operator's */
    struct link *link;          /* NULL = none is under way */
    uint64_t router, id;        /* who asked */
    bool begun;                 /* probes are under way */
    uint32_t empty;             /* answered */
    uint64_t count, sent, back; /* filled ones: in all, sent, answered */
    ts_time until, first_at, last_at, rtt;
};

struct chunk {
    struct ts_bulk bulk;
    uint64_t bytes, declared_bytes;
    uint32_t layer, token_begin, token_count, crc32c, escapes, tries;
    uint32_t lane;
    bool credited;
};

struct piece { /* ready in the pool, not yet given to the codec */
    uint32_t layer, token_begin, token_count;
};

/* A transfer is in up to one list of each kind, oldest first. */
enum list_kind { LIST_ALL, LIST_OPENING, LIST_PIECES, LIST_KINDS };

struct list {
    struct transfer *head, *tail;
};

struct neighbours {
    struct transfer *prev, *next;
};

struct transfer {
    struct neighbours near[LIST_KINDS];
    struct list *pieces_in; /* of LIST_PIECES, or NULL */
    uint64_t age;           /* smaller = older */
    enum transfer_state state;
    struct ts_rid rid;
    struct transfer *sibling;         /* the next one under way of the same request: relay_part.c */
    uint32_t parts;                   /* of the request in all; 1 = it goes to one worker */
    uint32_t senders;                 /* how many relays together bring that worker what it holds */
    uint64_t raw_before, sent_before; /* bytes of siblings that are verified: of the first one only */
    struct ts_arena arena;            /* holds begin and seal */
    struct ts_msg_kv_begin begin;
    struct ts_msg_kv_seal seal;
    bool sealed, freed;        /* freed: KvFreed is sent */
    struct pool *pool;         /* NULL once its session is over */
    struct ts_msg_pool layout; /* of the pool; its layers and heads are those that go there */
    struct link *link;         /* NULL once it is over */
    uint64_t pool_id;
    ts_time began_at, open_at, open_until, backoff;
    bool opened;      /* decode has heard of it */
    bool granted;     /* decode has memory for it: what comes after a lost session goes on from there */
    bool ended;       /* KvEnd and KvCommit were sent once */
    uint32_t resumes; /* sessions lost since decode last had something of it */
    struct piece *pieces;
    size_t piece_count, piece_head, piece_capacity;
    uint32_t *ready, *cut;  /* of each layer: tokens announced, and of them those that are in pieces */
    uint64_t tiles_encoded; /* (layer, block) pairs */
    uint32_t encodes;       /* under way */
    struct chunk *chunks;
    size_t chunk_count, chunk_sent, chunk_capacity;
    uint64_t held_bytes, bytes_sent; /* the last of payloads, repeats included */
    /* Credit, in bytes of payloads: a chunk sent again counts once. in_flight = sent_once - credited, within
     * the window but for a chunk that exceeds it alone. */
    uint64_t window, in_flight, sent_once, credited;
    uint32_t
        there; /* first tokens that decode has: what is wholly before is encoded for the copy, not sent */
    uint64_t *sums; /* digests [chunk][head] */
    size_t sum_capacity;
    uint64_t *digests; /* [layer][head], of what was sent */
    size_t heap_at;    /* of a copy */
};

/* Not sent. */
static inline bool chunk_there(const struct transfer *t, const struct chunk *c)
{
    return c->token_begin + c->token_count <= t->there;
}

struct encode { /* a job under way */
    uint64_t job;
    struct transfer *transfer;
    struct piece piece;
    const struct pool *by; /* its worker does it; NULL = our codec */
};

struct relay_core {
    struct relay_settings settings;
    uint64_t incarnation;
    struct ts_rng rng;
    uint64_t last_session; /* of those that it accepted */
    ts_time now;
    struct ts_actions *out;
    struct ts_bulk came; /* with the message of this step; who keeps it clears this */
    bool draining, started;
    struct router_link routers[RELAY_ROUTERS_MAX];
    struct ts_map *pools;       /* peer -> pool */
    struct ts_map *links;       /* endpoint -> link */
    struct ts_map *link_peers;  /* peer -> link */
    struct ts_map *transfers;   /* rid -> the first transfer of it that is not over */
    struct ts_map *encodes;     /* job -> encode */
    struct ts_map *copies;      /* router and request -> transfer, retained */
    struct transfer **cheapest; /* the same as a heap: the first one yields first */
    size_t copy_count, copy_capacity;
    struct ts_rid *evicted; /* in this step */
    size_t evicted_count, evicted_capacity;
    struct list live;             /* transfers that are not over */
    struct list over;             /* ended, until their encodes are back: at most as many as there are jobs */
    struct list opening;          /* of the live ones, those in OPENING */
    struct list waiting, flowing; /* with pieces for the codec: not granted yet; granted */
    struct transfer *dead;        /* gone, but actions of the step under way may point into them */
    uint64_t next_pool, next_peer, next_job, next_age;
    uint64_t held_bytes, retained_bytes; /* of transfers, of copies */
    uint32_t state_counts[TRANSFER_OVER + 1];
    ts_time links_due, opening_due, probes_due; /* nothing to do for a tick before these */
    struct link_test test;
    ts_time reported_at; /* links, to routers */
    bool report_all;     /* a router has not heard of them */
    struct relay_counts counts;
};

/* relay_core.c */
void list_add(struct list *list, enum list_kind kind, struct transfer *t);
void list_remove(struct list *list, enum list_kind kind, struct transfer *t);

/* relay_link.c */
void relay_link_start(struct relay_core *core);
void relay_link_drain(struct relay_core *core);
void relay_link_tick(struct relay_core *core);
void relay_link_router_message(struct relay_core *core, const struct ts_event_message *m);
void relay_link_pool_message(struct relay_core *core, const struct ts_event_message *m);
void relay_link_kv_message(struct relay_core *core, const struct ts_event_message *m);
void relay_link_unreachable(struct relay_core *core, enum ts_channel channel, uint64_t peer);
void relay_link_pool_mapped(struct relay_core *core, const struct ts_event_pool_mapped *m);
struct link *relay_link_to(struct relay_core *core, struct ts_str endpoint);
void relay_link_release(struct relay_core *core, struct link *link);
void relay_link_free(struct link *link);
struct ts_action_send *relay_send_router(struct relay_core *core, uint64_t router,
                                         enum ts_msg_kind kind); /* by incarnation; NULL: down */
struct ts_action_send *relay_send_pool(struct relay_core *core, struct pool *pool, enum ts_msg_kind kind);
struct ts_action_send *relay_send_link(struct relay_core *core, struct link *link, enum ts_msg_kind kind);
/* We cannot read it any more: its worker encodes, or it is refused from now on. */
void relay_link_pool_failed(struct relay_core *core, struct pool *pool, struct ts_str why);

/* relay_lane.c */
struct link *lane_link(const struct relay_core *core, uint64_t peer, uint32_t *lane); /* NULL: nobody's */
void lanes_begin(struct relay_core *core, struct link *link, bool many);              /* its session is up */
void lanes_end(struct relay_core *core, struct link *link);                           /* it is over */
/* A KvChunk on the least busy lane, which `c` then names. NULL: the session is down. */
struct ts_action_send *lane_send_chunk(struct relay_core *core, struct link *link, struct chunk *c);
/* The same over the session, for what is sent again. */
struct ts_action_send *lane_send_again(struct relay_core *core, struct link *link, struct chunk *c);
void lane_came(struct relay_core *core, struct link *link,
               const struct chunk *c); /* it is no longer under way */
void lane_failed(struct relay_core *core, struct link *link, uint32_t lane);
ts_time lanes_tick(struct relay_core *core, struct link *link); /* when it wants to be called again */

/* relay_probe.c */
void probe_measured(struct relay_core *core, const struct link *link); /* KV was credited or verified */
void probe_tick(struct relay_core *core);
void probe_link_up(struct relay_core *core, struct link *link, const struct ts_msg_welcome *m);
void probe_link_down(struct relay_core *core, struct link *link);
void probe_answer(struct relay_core *core, struct link *link, const struct ts_msg_kv_probe *m);
void probe_router_up(struct relay_core *core);
void probe_test(struct relay_core *core, uint64_t router, const struct ts_msg_link_test *m);

/* relay_part.c */
struct transfer *transfer_find(const struct relay_core *core,
                               struct ts_rid rid);            /* the first of its siblings */
void parts_join(struct relay_core *core, struct transfer *t); /* under way */
void parts_leave(struct relay_core *core, struct transfer *t);
bool parts_ended(const struct transfer *t); /* KvEnd was sent, of it and of its siblings */
bool parts_still_read(const struct relay_core *core, struct ts_rid rid); /* by one that is over */
bool parts_siblings_read(const struct relay_core *core, const struct transfer *t);
size_t parts_count(const struct relay_core *core); /* all that are under way */
/* Where the KV of `pool` goes: one part for each of the message's that it has something of, or the one that
 * the message itself names. Returns their number; the rectangles are those of the KV to send. */
uint32_t parts_plan(const struct pool *pool, const struct ts_msg_kv_begin *m, struct ts_kv_part *parts);
const char *parts_fault(const struct ts_msg_kv_begin *m); /* NULL: the parts can be */

/* relay_transfer.c */
/* Edges of the table in README.md. */
bool transfer_may_become(enum transfer_state from, enum transfer_state to);
void transfer_begin(struct relay_core *core, struct pool *pool, const struct ts_msg *m);
void transfer_ready(struct relay_core *core, struct pool *pool, const struct ts_msg_kv_ready *m);
void transfer_seal(struct relay_core *core, struct pool *pool, const struct ts_msg *m);
void transfer_released(struct relay_core *core, struct pool *pool, const struct ts_msg_release *m);
void transfer_grant(struct relay_core *core, struct link *link, const struct ts_msg_kv_grant *m);
void transfer_credit(struct relay_core *core, struct link *link, const struct ts_msg_kv_credit *m);
void transfer_done(struct relay_core *core, struct link *link, struct ts_rid rid);
void transfer_nack(struct relay_core *core, struct link *link, const struct ts_msg_kv_nack *m);
void transfer_aborted(struct relay_core *core, struct link *link, const struct ts_msg_kv_abort *m);
void transfer_link_up(struct relay_core *core, struct link *link);
void transfer_wait_open(struct relay_core *core, struct transfer *t); /* OPENING again, for a while */
void transfer_end(struct relay_core *core, struct transfer *t, enum ts_reason reason, const char *text);
void transfer_pool_lost(struct relay_core *core, struct pool *pool);
void transfer_pool_failed(struct relay_core *core, struct pool *pool); /* nobody encodes what lies there */
void transfer_abort(struct relay_core *core, struct transfer *t, enum ts_reason reason,
                    const char *text);                             /* ends it and tells decode */
void transfer_settle(struct relay_core *core, struct transfer *t); /* frees one that is over and quiet */
void transfer_maybe_freed(struct relay_core *core, struct transfer *t);
void transfer_flushing(struct relay_core *core, struct transfer *t); /* all is sent */
void transfer_tick(struct relay_core *core);
uint64_t transfer_raw_bytes(const struct transfer *t);
struct ts_load transfer_load(const struct relay_core *core);
void transfer_free(struct transfer *t);
void transfer_report(struct relay_core *core, struct ts_rid rid, const struct transfer *t,
                     enum ts_reason reason, const char *text);   /* t may be NULL */
void transfer_over(struct relay_core *core, struct transfer *t); /* of a retained one: gone with its chunks */
/* A copy that was taken out: a transfer again. */
void transfer_again(struct relay_core *core, struct transfer *t, const struct ts_msg_refeed *m);

/* relay_resume.c */
void resume_link_lost(struct relay_core *core,
                      struct link *link); /* its transfers wait for the next session */
void resume_granted(struct relay_core *core, struct transfer *t,
                    struct ts_u64s have);   /* what decode has counts as credited */
bool resume_done(const struct transfer *t); /* KvDone may answer a KvOpen: decode had all before */

/* relay_copy.c */
void copy_keep(struct relay_core *core, struct transfer *t); /* verified just now: a copy, or gone */
void copy_yield(struct relay_core *core);                    /* within the bounds, the cheapest first */
void copy_released(struct relay_core *core, struct ts_rid rid);
void copy_forget(struct relay_core *core, uint64_t router); /* 0 = of all */
void copy_inventory(struct relay_core *core, const struct router_link *router);
void copy_tell(struct relay_core *core);
void copy_refeed(struct relay_core *core, uint64_t router, const struct ts_msg_refeed *m);

/* relay_encode.c */
void encode_more(struct relay_core *core); /* as much as bounds allow, oldest transfer first */
/* After any change of its pieces or state: in the list where they belong. */
void encode_queue(struct relay_core *core, struct transfer *t);
void encode_done(struct relay_core *core, const struct ts_event_encoded *m);
/* A worker's answer to KvEncode; the payload is core->came. */
void encode_came(struct relay_core *core, const struct pool *pool, const struct ts_msg_kv_encoded *m);
void encode_pool_lost(struct relay_core *core, const struct pool *pool); /* no answer will come */
void encode_send(struct relay_core *core,
                 struct transfer *t); /* what the credit allows; the end when all is sent */
/* `chunk`: its number + 1; 0 = not said. */
void encode_credit(struct relay_core *core, struct transfer *t, uint64_t bytes, uint64_t chunk);
bool encode_resend(struct relay_core *core, struct transfer *t, uint64_t number);
/* What is under way on that lane, over the session instead. */
void encode_lane_lost(struct relay_core *core, struct transfer *t, uint32_t lane);
uint64_t encode_tiles(const struct transfer *t); /* in all */

#endif
