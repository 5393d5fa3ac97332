/*
 * What the parts of the worker core share. worker_core.c dispatches; worker_link.c keeps sessions;
 * worker_task.c the life of a task and what goes to its router; worker_prefill.c and worker_decode.c the two
 * roles (a colocated task, role TS_PHASE_BOTH, passes from the one to the other); worker_batch.c the engine;
 * worker_tokenize.c questions of clients.
 */
#ifndef WORKER_IMPL_H
#define WORKER_IMPL_H

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_kv.h"
#include "common/core/ts_session.h"
#include "services/worker/worker_core.h"

enum task_state {
    TASK_TOKENISING, /* prefill, colocated */
    TASK_WAITING,    /* prefill, colocated: for blocks */
    TASK_PREFILLING, /* prefill, colocated: chunks */
    TASK_SEALED,     /* prefill: done, until Release */
    TASK_ASSIGNED,   /* decode: until KvOpen */
    TASK_GRANT_WAIT, /* decode: for blocks */
    TASK_RECEIVING,  /* decode: chunks, end and commit */
    TASK_SUSPENDED,  /* decode: the sender's session was lost; until it opens again */
    TASK_READY,      /* decode, colocated: a row in each step */
    TASK_FINISHED,   /* decode, colocated: done, until Release */
    TASK_DYING,      /* released or failed: until nothing reads or writes its blocks */
    TASK_STATES
};

struct router_link {
    uint64_t peer; /* 1.. */
    struct ts_session session;
    ts_time lost_at;               /* since when it is down; TS_TIME_NEVER while up */
    ts_time reported_at;           /* when it was last told our load */
    uint64_t term, plan;           /* the newest seen */
    bool output_batches;           /* it takes OutputBatch */
    struct ts_msg_output *outputs; /* of the batch that is being taken in; NULL = each goes alone */
    uint32_t output_count;
};

struct pool_link {
    struct ts_session session;
    bool usable; /* the relay has mapped our pool */
};

struct kv_peer { /* a relay that sends KV to us */
    uint64_t peer;
    uint64_t name; /* hash of its id */
    struct ts_session session;
};

struct part {                   /* of a transfer: what one relay brings */
    struct kv_peer *sender;     /* NULL once its session is over */
    uint64_t relay, relay_name; /* incarnation and name of the relay */
    ts_time lost_at;            /* suspended: since when it has no session */
    struct ts_msg_kv_open open; /* without spans */
    uint64_t *digests;          /* [layer][head] of the open; NULL = not granted yet */
    uint8_t *chunk_seen;        /* bit per chunk number */
    uint64_t chunk_limit;
    uint64_t chunks_scattered, tiles_scattered;
    bool ended;
    struct ts_msg_kv_end end; /* digests in the task's arena */
};

struct task {
    struct task *prev, *next;             /* all tasks, oldest acceptance first */
    struct task *alike_prev, *alike_next; /* those in the same state, in the same order */
    uint64_t tag;                         /* names it towards engine, text streams and block table */
    enum task_state state;
    struct ts_rid rid;
    enum ts_phase role;
    struct router_link *router;
    struct ts_arena arena; /* holds assign, what KvCommit brought, texts and tops of items */
    struct ts_msg_assign assign;
    struct ts_codec codec; /* of the assignment; once decode knows the prompt's length, what it goes as */
    struct ts_sampling sampling; /* the model's defaults applied, max_tokens clipped to the context */
    ts_time accepted_at, arrived_at, began_at, waiting_since;
    uint32_t *prompt;
    uint32_t prompt_count;
    uint32_t *blocks;
    uint32_t block_count, block_capacity;
    struct ts_token_item *items; /* output tokens with text */
    uint32_t *outputs;           /* ids of all output tokens, produced ones included */
    size_t item_count, item_capacity, output_count, output_capacity;
    uint32_t item_first; /* output index of items[0] */
    enum ts_finish finish;
    uint32_t in_batch;  /* batches under way that name it: one at most once it is ready */
    uint32_t returning; /* dying: blocks that come back with the last of them */
    bool text_open;
    /* prefill; of the flags only `tokenising` is for colocated ones too */
    bool begun;       /* the relay knows it and may read its blocks until KvFreed */
    bool relay_knows; /* since KvBegin, until the end: it must hear of a Release */
    bool tokenising;
    uint32_t encodes; /* under way */
    uint32_t issued;  /* prompt tokens given to batches */
    uint32_t done;    /* prompt tokens computed */
    /* decode */
    uint64_t *chain;    /* of the prompt's whole blocks; NULL = what comes is not for others */
    uint32_t shared;    /* of its first blocks: those that belong to all (worker_prefix.c) */
    uint32_t present;   /* the same when it was granted: they are not sent */
    uint32_t scratch;   /* + 1; takes what comes of tokens that are there already; 0 = none */
    struct part *parts; /* [senders], of them part_count have opened */
    uint32_t part_count, senders;
    bool granted, committed;
    uint64_t kv_bytes;  /* of all messages of the transfer, as they came */
    uint32_t scatters;  /* under way */
    uint32_t kv_length; /* positions whose KV is in the pool */
};

struct scatter {
    uint64_t job;
    struct task *task;
    struct part *part;
    uint64_t number, bytes;
    uint32_t layer, head_begin, head_count, token_begin, token_count;
};

/* Blocks of prompts that are known by what they hold. */
#define PREFIX_OWNER UINT64_MAX

struct prefix_key {
    uint64_t chain, span_end, codec;
};

struct prefix_entry { /* of a block */
    struct prefix_key key;
    uint32_t users; /* tasks; without any it is in the list of the idle ones */
    uint32_t prev, next;
    bool cached;
};

struct prefix {
    struct ts_map *by_key;        /* prefix_key -> entry */
    struct prefix_entry *entries; /* [blocks] */
    uint32_t head, tail;          /* of the idle ones: head goes first */
    uint32_t idle, idle_max;
};

struct encode { /* for a relay that does not read the pool itself: KvEncode under way */
    uint64_t job, relay_job;
    uint64_t session; /* with the relay that asked */
    struct task *task;
};

struct asked { /* a Tokenize under way */
    uint64_t job, id;
    struct router_link *router;
};

struct task_list {
    struct task *head, *tail;
    uint32_t count;
};

struct batch { /* under way: the engine reads the rows until BATCH_DONE */
    uint64_t id;
    struct ts_batch_row *rows; /* [max_rows] */
    struct task **tasks;       /* of each row */
    uint32_t count;
};

struct worker_core {
    struct worker_settings settings;
    uint64_t incarnation;
    struct ts_rng rng;
    uint64_t last_session; /* of those that it accepted */
    ts_time now;
    struct ts_actions *out;
    bool draining, started;
    struct router_link routers[WORKER_ROUTERS_MAX];
    struct pool_link pool;
    struct ts_map *kv_peers;    /* peer -> kv_peer */
    struct ts_map *kv_sessions; /* number of the session -> kv_peer */
    ts_time kv_due;             /* none of their sessions wants attention before */
    ts_time grant_due;          /* none of those that wait for memory has waited too long before */
    ts_time resume_due;         /* the same of those whose sender was lost */
    struct ts_map *tasks;       /* rid + role -> task */
    struct ts_map *by_tag;      /* tag -> task */
    struct task *head, *tail;
    struct task_list lists[TASK_STATES];
    struct task *dead;       /* gone, but actions of the step under way may point into them */
    struct ts_map *scatters; /* job -> scatter */
    struct ts_map *encodes;  /* job -> encode */
    struct ts_map *asked;    /* job -> asked */
    struct ts_kv kv;
    struct prefix prefix;
    uint64_t next_tag, next_job, next_batch;
    struct batch *batches; /* ring of settings.batches_max */
    uint32_t first, running;
    uint32_t flying;    /* ready sequences in a batch */
    uint32_t returning; /* blocks of dying sequences that only batches under way hold */
    bool starved;       /* a ready sequence waits for them: nobody else gets blocks */
    uint64_t done_tokens;
    struct worker_counts counts;
};

/* Of an earlier plan than the newest seen from this router. */
static inline bool worker_stale(const struct router_link *link, uint64_t term, uint64_t plan)
{
    return term < link->term || (term == link->term && plan < link->plan);
}

/* worker_link.c */
void worker_link_start(struct worker_core *core);
void worker_link_drain(struct worker_core *core);
void worker_link_tick(struct worker_core *core);
ts_time worker_link_deadline(const struct worker_core *core);
void worker_link_router_message(struct worker_core *core, const struct ts_event_message *m);
void worker_link_pool_message(struct worker_core *core, const struct ts_event_message *m);
void worker_link_kv_message(struct worker_core *core, const struct ts_event_message *m);
void worker_link_unreachable(struct worker_core *core, enum ts_channel channel, uint64_t peer);
struct ts_action_send *worker_send_router(struct worker_core *core, struct router_link *link,
                                          enum ts_msg_kind kind); /* NULL: down */
struct ts_action_send *worker_send_pool(struct worker_core *core, enum ts_msg_kind kind);
struct ts_action_send *worker_send_kv(struct worker_core *core, struct kv_peer *peer, enum ts_msg_kind kind);

/* worker_task.c */
void task_free(struct task *t);
void task_assign(struct worker_core *core, struct router_link *link, const struct ts_event_message *m);
void task_release(struct worker_core *core, struct ts_rid rid, enum ts_reason reason);
struct task *task_find(const struct worker_core *core, struct ts_rid rid, enum ts_phase role);
struct task *task_by_tag(const struct worker_core *core, uint64_t tag);
void task_fail(struct worker_core *core, struct task *t, enum ts_reason reason, bool final, const char *text);
void task_settle(struct worker_core *core, struct task *t); /* frees a dying task that is quiet */
void task_give_blocks(struct worker_core *core, struct task *t);
void task_give_scratch(struct worker_core *core, struct task *t);
bool task_take_blocks(struct worker_core *core, struct task *t, uint32_t tokens);
/* To one that begins: a block stays free for each ready sequence, or somebody were preempted within 16
 * tokens. */
bool task_admit_blocks(struct worker_core *core, struct task *t, uint32_t tokens);
bool task_younger(const struct task *a, const struct task *b);  /* by acceptance, then by arrival */
bool task_may_become(enum task_state from, enum task_state to); /* edges of the table in README.md */
void task_state_set(struct worker_core *core, struct task *t, enum task_state state);
void task_add_item(struct task *t, const struct ts_token_item *item);
void task_add_output(struct task *t, uint32_t token);
void task_send_output(struct worker_core *core, struct task *t, uint32_t from_index);
/* Between the two, output is gathered, at most `count` for each router, and goes as one message each. */
void task_outputs_begin(struct worker_core *core, uint32_t count);
void task_outputs_end(struct worker_core *core);
void task_text_open(struct worker_core *core, struct task *t);
void task_text_close(struct worker_core *core, struct task *t);
void task_resync(struct worker_core *core, struct router_link *link);
void task_resync_reply(struct worker_core *core, const struct ts_msg_resync_reply *m);
void task_drop_router(struct worker_core *core, struct router_link *link);
void task_clip(struct worker_core *core, struct task *t);

/* worker_prefill.c */
void prefill_assigned(struct worker_core *core, struct task *t, struct ts_bulk prompt);
void prefill_tokenised(struct worker_core *core, const struct ts_event_tokenised *m);
void prefill_admit(struct worker_core *core); /* blocks to those that wait */
void prefill_layer_done(struct worker_core *core, const struct batch *batch, uint32_t layer);
void prefill_done(struct worker_core *core, struct task *t, uint32_t computed,
                  const struct ts_batch_sample *sample);
void prefill_pool_lost(struct worker_core *core);
void prefill_freed(struct worker_core *core, const struct ts_msg_kv_freed *m);
void prefill_transfer_failed(struct worker_core *core, const struct ts_msg_release *m);
void prefill_encode(struct worker_core *core, const struct ts_msg_kv_encode *m);
void prefill_encoded(struct worker_core *core, const struct ts_event_encoded *m);

/* worker_decode.c */
void decode_count(struct worker_core *core, struct ts_rid rid, uint64_t wire_bytes);
void decode_open(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_open *m);
void decode_chunk(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_chunk *m,
                  struct ts_bulk bulk);
void decode_end(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_end *m);
void decode_commit(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_commit *m);
void decode_abort(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_abort *m);
void decode_scattered(struct worker_core *core, const struct ts_event_scattered *m);
void decode_admit(struct worker_core *core); /* grants to those that wait */
/* Refuses the transfer: to `peer`, the others hear KvAbort; NULL = to all its senders. */
void decode_fail(struct worker_core *core, struct task *t, struct kv_peer *peer, enum ts_reason reason,
                 const char *text);
/* Why the transfer cannot be this task's, whatever part of it, or NULL. */
const char *decode_open_fault(const struct worker_core *core, const struct task *t,
                              const struct ts_msg_kv_open *m);
void decode_wait_grant(struct worker_core *core, struct task *t);
void decode_send_grant(struct worker_core *core, const struct task *t, const struct part *p);
void decode_prefilled(struct worker_core *core, struct task *t, const struct ts_batch_sample *sample);
void decode_done(struct worker_core *core, struct task *t, uint32_t computed,
                 const struct ts_batch_sample *sample);

/* worker_part.c */
struct part *part_of(const struct task *t, const struct kv_peer *peer); /* NULL: it brings nothing */
struct part *part_of_relay(const struct task *t, uint64_t incarnation); /* the same, whatever its session */
/* Why what the message announces cannot come beside the parts that have opened, or NULL. */
const char *part_fault(const struct worker_core *core, const struct task *t, const struct ts_msg_kv_open *m);
void part_add(struct task *t, struct kv_peer *peer, const struct ts_msg_kv_open *m);
void part_free(struct task *t);           /* all of them */
uint32_t part_rows(const struct part *p); /* its (layer, head) pairs */
void part_granted(const struct task *t, struct part *p);
bool part_chunk_fits(const struct part *p, const struct ts_msg_kv_chunk *m);
void part_restored(const struct task *t, const struct scatter *job, struct ts_u64s digests);
bool part_all_came(const struct task *t);                     /* of all parts, and the commit */
bool part_agrees(const struct task *t, const struct part *p); /* what was restored is what was announced */

/* worker_resume.c */
void resume_peer_lost(struct worker_core *core, struct kv_peer *peer); /* what it sends is suspended */
void resume_peer_came(struct worker_core *core,
                      const struct kv_peer *peer); /* what a former self of it sent is lost */
void resume_open(struct worker_core *core, struct kv_peer *peer, struct task *t, struct part *p,
                 const struct ts_msg_kv_open *m);
void resume_tick(struct worker_core *core); /* ends what was suspended for too long */
struct ts_u64s resume_have(struct worker_core *core, const struct part *p);

/* worker_prefix.c */
void prefix_init(struct prefix *p, uint32_t blocks, uint32_t idle_max);
void prefix_fini(struct prefix *p);
uint32_t prefix_room(const struct worker_core *core);            /* blocks that may be had: idle ones, too */
void prefix_make_room(struct worker_core *core, uint32_t count); /* so many free ones, if they may be had */
void prefix_remember(const struct worker_core *core, struct task *t, struct ts_u64s chain); /* opened */
void prefix_take(struct worker_core *core, struct task *t);  /* what is there becomes its first blocks */
void prefix_share(struct worker_core *core, struct task *t); /* verified */
void prefix_leave(struct worker_core *core, struct task *t); /* it does not use the shared ones any more */

/* worker_tokenize.c */
void tokenize_asked(struct worker_core *core, struct router_link *link, const struct ts_event_message *m);
void tokenize_done(struct worker_core *core, const struct ts_event_tokenised *m);

/* worker_batch.c */
void batch_start(struct worker_core *core); /* as many as may run and have something to do */
void batch_layer_done(struct worker_core *core, const struct ts_event_layer_done *m);
void batch_done(struct worker_core *core, const struct ts_event_batch_done *m);

#endif
