/*
 * Every event a core may see and every action it may emit. A core is a state machine:
 *
 *     void <name>_core_step(struct <name>_core *core, ts_time now, const struct ts_event *event, struct
 * ts_actions *out); ts_time <name>_core_deadline(const struct <name>_core *core);
 *
 * It opens no socket, reads no clock, starts no thread, never blocks. `now` never goes back. The driver
 * (common/run in a process, services/cloud under virtual time) steps the core for each event, performs the
 * actions in order, and steps it with TS_EVENT_TICK once `now` has reached the deadline. Long work (encode,
 * scatter, tokenising, engine batches) is submitted by action and comes back as an event, possibly after the
 * core has lost interest.
 *
 * Bulk handles. The driver owns the bytes, counted. An event that carries a handle gives the core one
 * reference, which the core must give up by TS_ACTION_DROP exactly once. An action that names a handle only
 * borrows it: the driver takes its own reference for as long as it needs the bytes. At rest (nothing in
 * flight) a core holds no handle: anything else is a leak and an invariant violation.
 *
 * Spans in events are valid during the step; spans in actions are valid until the next step (they point into
 * the core's records or into out->arena).
 *
 * Peers. On a bound socket the driver numbers each connection it has not seen before (a peer that reconnects
 * is a new number). On a dialling socket the core chooses the number in TS_ACTION_CONNECT.
 */
#ifndef TS_CORE_EVENT_H
#define TS_CORE_EVENT_H

#include "common/base/ts_clock.h"
#include "common/core/ts_msg.h"

enum ts_event_kind {
    TS_EVENT_START = 1,
    TS_EVENT_TICK,
    TS_EVENT_MESSAGE,
    TS_EVENT_SEND_FAILED, /* the peer is unreachable: what was sent may be lost */
    TS_EVENT_TOKENISED,
    TS_EVENT_LAYER_DONE,
    TS_EVENT_BATCH_DONE,
    TS_EVENT_ENCODED,
    TS_EVENT_SCATTERED,
    TS_EVENT_POOL_MAPPED,
    TS_EVENT_DRAIN, /* first SIGTERM; the device is lost */
    TS_EVENT_LAST = TS_EVENT_DRAIN
};

struct ts_event_message {
    enum ts_channel channel;
    uint64_t peer;
    struct ts_envelope envelope;
    struct ts_msg msg;
    struct ts_bulk bulk; /* slot 0 = no raw frame came with it */
    uint64_t wire_bytes; /* message and raw frame as they came; the latter alone where nothing was packed
                            (simulation) */
};

struct ts_event_send_failed {
    enum ts_channel channel;
    uint64_t peer;
};

struct ts_event_tokenised {
    uint64_t job;
    enum ts_reason reason; /* NONE = ids are valid */
    struct ts_str text;    /* of the error */
    struct ts_u32s ids;
};

struct ts_event_layer_done {
    uint64_t batch;
    uint32_t layer;
};

struct ts_batch_sample {
    uint64_t tag;
    struct ts_token_item item;
    enum ts_finish finish; /* by eos, stop string or length; NONE = goes on */
    bool complete;         /* the stream ended within the produced tokens already: the item does not count */
};

struct ts_batch_samples {
    const struct ts_batch_sample *data;
    uint32_t count;
};

struct ts_event_batch_done {
    uint64_t batch;
    enum ts_reason reason; /* NONE, ENGINE */
    struct ts_str text;
    struct ts_batch_samples samples; /* one per sampling row, in row order */
    int64_t compute_ns;
};

struct ts_event_encoded {
    uint64_t job;
    /* KV_MISMATCH: outside of the pool. KV_CORRUPT: given back meanwhile. KV_NO_MEMORY: of the device; this
     * piece only. ENGINE: the device is lost, and every later piece of the pool with it. */
    enum ts_reason reason;
    struct ts_str text;  /* of the error */
    struct ts_bulk bulk; /* the payload; slot 0 with declared_bytes when modelled */
    uint64_t declared_bytes;
    uint32_t crc32c, escapes;
    struct ts_u64s digests; /* [head] of the chunk */
};

struct ts_event_scattered {
    uint64_t job;
    enum ts_reason reason; /* NONE; KV_CORRUPT: damaged; KV_NO_MEMORY: of the device; ENGINE: it is lost */
    struct ts_u64s digests;
};

struct ts_event_pool_mapped {
    uint64_t pool;
    enum ts_reason reason; /* NONE; KV_MISMATCH: it contradicts itself; else: we cannot read it */
    struct ts_str text;
};

struct ts_event {
    enum ts_event_kind kind;
    union {
        struct ts_event_message message;
        struct ts_event_send_failed send_failed;
        struct ts_event_tokenised tokenised;
        struct ts_event_layer_done layer_done;
        struct ts_event_batch_done batch_done;
        struct ts_event_encoded encoded;
        struct ts_event_scattered scattered;
        struct ts_event_pool_mapped pool_mapped;
    };
};

enum ts_action_kind {
    TS_ACTION_SEND = 1,
    TS_ACTION_CONNECT,
    TS_ACTION_DISCONNECT, /* on a bound socket: forget the peer's number */
    TS_ACTION_DROP,
    TS_ACTION_TOKENISE,
    TS_ACTION_TEXT_OPEN,
    TS_ACTION_TEXT_CLOSE,
    TS_ACTION_BATCH,
    TS_ACTION_ENCODE,
    TS_ACTION_SCATTER,
    TS_ACTION_MAP_POOL,
    TS_ACTION_UNMAP_POOL,
    TS_ACTION_TRACE,
    TS_ACTION_LOG,
    TS_ACTION_STOP, /* drained: leave the loop */
    TS_ACTION_FREE_BLOCKS,
    TS_ACTION_LAST = TS_ACTION_FREE_BLOCKS
};

#define TS_FILLER_BYTES_MAX (1u << 20)

struct ts_action_send {
    enum ts_channel channel;
    uint64_t peer;
    struct ts_envelope envelope;
    struct ts_msg msg;
    struct ts_bulk bulk;
    uint64_t filler_bytes; /* instead of a handle: a raw frame of so many bytes that mean nothing; at most
                              TS_FILLER_BYTES_MAX */
};

struct ts_action_connect {
    enum ts_channel channel;
    uint64_t peer;
    struct ts_str endpoint;
};

struct ts_action_disconnect {
    enum ts_channel channel;
    uint64_t peer;
};

struct ts_action_drop {
    struct ts_bulk bulk;
};

struct ts_action_tokenise { /* -> TOKENISED. Token prompts are only unpacked and range-checked. */
    uint64_t job;
    enum ts_prompt_kind prompt_kind;
    struct ts_bulk bulk;
};

/* From now on samples tagged `tag` come with text and finish (a pure function of these fields and the
 * tokens). `produced` was delivered before. A tag that is open already is replaced. */
struct ts_action_text_open {
    uint64_t tag;
    struct ts_sampling sampling;
    struct ts_stops stops;
    struct ts_u32s produced;
};

struct ts_action_text_close {
    uint64_t tag;
};

struct ts_batch_row { /* mirrors struct ts_engine_row of gpu/ts_engine.h */
    uint64_t tag;
    uint32_t position;
    struct ts_u32s tokens;
    struct ts_u32s blocks;
    bool sample;
    uint32_t sample_index;
    struct ts_sampling sampling;
    struct ts_u32s prompt_ids, output_ids; /* for penalties */
};

struct ts_batch_rows {
    const struct ts_batch_row *data;
    uint32_t count;
};

/* -> LAYER_DONE (if asked), BATCH_DONE. At most `batches_max` of the worker's profile are under way; they are
 * done in the order of issue, and in each layer a row reads what rows of earlier batches wrote there. Spans
 * must live until BATCH_DONE. */
struct ts_action_batch {
    uint64_t batch;
    struct ts_batch_rows rows;
    bool report_layers;
};

struct ts_action_encode {       /* -> ENCODED. Reads the pool's blocks until then. */
    uint64_t job, pool;         /* of a worker: its own, 0 */
    struct ts_codec codec;      /* of this layer */
    struct ts_u32s blocks;      /* of the sequence, from token 0 */
    struct ts_u32s generations; /* of the blocks, as announced: KV_CORRUPT when one has grown meanwhile */
    uint32_t layer, head_begin, head_count, token_begin,
        token_count; /* layer and heads as the model counts them */
};

/* These blocks were given back: their generations grow by one before anything is written to them again, so
 * that a relay that still reads them sees it. */
struct ts_action_free_blocks {
    struct ts_u32s blocks;
};

struct ts_action_scatter { /* -> SCATTERED. Checks the crc, restores into the worker's own pool, gives
                              digests. */
    uint64_t job;
    struct ts_bulk bulk;
    uint64_t declared_bytes;
    struct ts_codec codec; /* of this layer */
    struct ts_u32s blocks;
    uint32_t layer, head_begin, head_count, token_begin, token_count;
    uint32_t crc32c;
};

struct ts_action_map_pool { /* -> POOL_MAPPED */
    uint64_t pool;
    struct ts_msg_pool layout;
};

struct ts_action_unmap_pool {
    uint64_t pool;
};

struct ts_action_trace {
    struct ts_trace trace;
};

struct ts_action_log {
    uint32_t level; /* enum ts_log_level */
    struct ts_str text;
};

struct ts_action {
    enum ts_action_kind kind;
    union {
        struct ts_action_send send;
        struct ts_action_connect connect;
        struct ts_action_disconnect disconnect;
        struct ts_action_drop drop;
        struct ts_action_tokenise tokenise;
        struct ts_action_text_open text_open;
        struct ts_action_text_close text_close;
        struct ts_action_batch batch;
        struct ts_action_encode encode;
        struct ts_action_scatter scatter;
        struct ts_action_map_pool map_pool;
        struct ts_action_unmap_pool unmap_pool;
        struct ts_action_trace trace;
        struct ts_action_log log;
        struct ts_action_free_blocks free_blocks;
    };
};

/* What one step asks for, in order. The driver clears it before each step; the arena holds spans made for the
 * actions. */
struct ts_actions {
    struct ts_action *items;
    size_t count, capacity;
    struct ts_arena arena;
};

void ts_actions_init(struct ts_actions *actions);
void ts_actions_fini(struct ts_actions *actions);
void ts_actions_clear(struct ts_actions *actions);
/* Appends a zeroed action of that kind and returns it, valid until the next append. */
struct ts_action *ts_actions_add(struct ts_actions *actions, enum ts_action_kind kind);
/* Appends a SEND whose message has that kind; the caller fills msg (and the session stamps the envelope). */
struct ts_action_send *ts_actions_send(struct ts_actions *actions, enum ts_channel channel, uint64_t peer,
                                       enum ts_msg_kind kind);
void ts_actions_drop(struct ts_actions *actions, struct ts_bulk bulk); /* no-op for slot 0 */
void ts_actions_log(struct ts_actions *actions, uint32_t level, const char *format, ...) TS_PRINTF(3, 4);

extern const struct ts_schema ts_event_schema, ts_action_schema;

#endif
