/*
 * Messages of sessions, and of a router with its workers, relays and operators (as proto/ts_control.proto);
 * ts_msg.h joins all.
 */
#ifndef TS_CORE_MSG_CONTROL_H
#define TS_CORE_MSG_CONTROL_H

#include "common/core/ts_model.h"
#include "common/core/ts_msg_common.h"
#include "common/core/ts_sampling.h"

/* --- sessions ------------------------------------------------------------------------------------------- */

struct ts_profile {      /* of a worker: what it can do */
    uint32_t phases;     /* mask of enum ts_phase it is willing to serve */
    enum ts_phase phase; /* the actual one */
    struct ts_str model, device;
    uint64_t fingerprint;
    uint32_t layers, kv_heads, head_dim, vocab, context_tokens;
    uint32_t kv_dtype; /* enum ts_dtype */
    uint32_t layer_begin, layer_end, head_begin, head_end;
    uint32_t kv_blocks, max_rows, max_batch_tokens;
    bool tokenizer, modelled;
    struct ts_str kv_endpoint;   /* where relays reach this worker */
    struct ts_str relay;         /* id of the relay of its host; empty = none */
    double bytes_per_token;      /* of prompts, measured; 0 = unknown */
    struct ts_sampling defaults; /* of the model, for requests that are silent */
    uint32_t hidden, intermediate, heads;
    struct ts_stage_items stages; /* empty = one stage: `device` on the worker's host, tp 1, all layers */
    uint32_t batches_max;         /* engine batches under way at a time, as many as stages; 0 = 1 */
    /* The 4-bit codec that this model's keys bear, by name, and what speaks for it; empty = not calibrated.
     */
    struct ts_str kv_codec, kv_codec_why;
    struct ts_measured_items measured;
};

struct ts_msg_hello {
    enum ts_role role;
    struct ts_str id, host, version;
    uint32_t pid;
    struct ts_profile profile; /* workers only */
    bool link_tests;           /* a relay that takes LinkTest */
};

struct ts_msg_welcome {
    struct ts_str id;
    uint64_t session;
    uint32_t heartbeat_ms, timeout_ms;
    uint64_t term;       /* highest planner term seen */
    bool output_batches; /* a router that takes OutputBatch */
    bool probes;         /* a worker that takes KvProbe */
    bool lanes; /* a worker that takes KvChunk over other connections, outside of the session's order */
};

struct ts_msg_heartbeat {
    struct ts_load load;
};

struct ts_msg_reset { /* the session is unknown or broken: say Hello again (fenced: as a new incarnation,
                         after dropping all work) */
    bool fenced;
    enum ts_reason reason;
    /* Of the receiver, as the message that is answered had them; 0 = whatever there is. Several may answer
     * what was sent before the end (ts_session_reset). */
    uint64_t incarnation, session;
};

struct ts_resync_item {
    struct ts_rid rid;
    enum ts_phase role;
    uint32_t next_index; /* output tokens held */
};

struct ts_resync_items {
    const struct ts_resync_item *data;
    uint32_t count;
};

struct ts_msg_resync { /* dialler, first message after Welcome: all it holds of this peer's requests */
    struct ts_resync_items items;
};

enum ts_resync_verdict {
    TS_RESYNC_KEEP = 1,
    TS_RESYNC_CANCEL,
    TS_RESYNC_RESEND,
    TS_RESYNC_LAST = TS_RESYNC_RESEND
};

struct ts_resync_answer {
    struct ts_rid rid;
    enum ts_phase role;
    enum ts_resync_verdict verdict;
    uint32_t from_index; /* RESEND: the first output index wanted */
};

struct ts_resync_answers {
    const struct ts_resync_answer *data;
    uint32_t count;
};

struct ts_msg_resync_reply {
    struct ts_resync_answers items;
};

/* --- worker control ------------------------------------------------------------------------------------- */

/* To both workers of an attempt. The prompt rides as the bulk frame of the prefill worker's copy. */
struct ts_msg_assign {
    struct ts_rid rid;
    enum ts_phase role;
    uint64_t term, plan;
    enum ts_prompt_kind prompt_kind;
    struct ts_sampling sampling;
    struct ts_stops stops;
    uint32_t remaining_ms; /* 0 = none */
    uint64_t age_ms;       /* since acceptance: grants go by age */
    struct ts_str codec;
    uint64_t fingerprint;
    struct ts_u32s produced; /* output tokens so far: prefill does not sample, decode replays them */
    struct ts_str decode, decode_endpoint; /* for prefill: where the KV goes */
    uint64_t decode_incarnation;
};

struct ts_msg_assign_refused {
    struct ts_rid rid;
    enum ts_phase role;
    enum ts_reason reason;
    struct ts_str text;
};

struct ts_msg_release { /* router -> worker or relay: cancelled, superseded or finished; drop all of this
                           attempt */
    struct ts_rid rid;
    enum ts_reason reason;
};

struct ts_msg_output { /* worker -> router: tokens in order, and its proposal to end */
    struct ts_rid rid;
    enum ts_phase role;
    uint32_t first_index;
    struct ts_token_items items;
    enum ts_finish finish; /* proposed after the last item */
};

struct ts_outputs {
    const struct ts_msg_output *data;
    uint32_t count;
};

struct ts_msg_output_batch { /* worker -> router: of one engine batch, each attempt at most once */
    struct ts_outputs outputs;
};

struct ts_msg_attempt_failed {
    struct ts_rid rid;
    enum ts_phase role;
    enum ts_reason reason;
    bool final; /* no other worker would do better (prompt too long, bad prompt) */
    struct ts_str text;
};

/* Durations of one attempt at one worker, measured on its own clock; the router adds its own stamps. */
struct ts_msg_report {
    struct ts_rid rid;
    enum ts_phase role;
    uint32_t prompt_tokens;
    int64_t queue_ns,
        run_ns; /* prefill: waiting, computing. decode: grant wait, transfer (open to verified) */
    uint64_t kv_bytes_raw, kv_bytes_sent; /* decode; sent: all bytes of the transfer's messages to decode */
    struct ts_str relay;
};

struct ts_msg_configure {
    uint64_t term, plan;
    struct ts_str model;
    uint32_t replica, stage, layer_begin, layer_end, tp;
    enum ts_phase phase;
};

/* Router -> worker. In effect at once; tasks run to their end. Refused when older than (term, plan) seen. */
struct ts_msg_set_phase {
    uint64_t term, plan;
    enum ts_phase phase;
    struct ts_str service; /* admin: whom */
};

struct ts_msg_phase_reply {
    uint64_t term, plan;
    enum ts_phase phase;
    enum ts_reason reason; /* NONE = in effect */
};

struct ts_msg_drain {
    struct ts_str service; /* admin: whom; empty for the receiver itself */
};

/* --- relay control -------------------------------------------------------------------------------------- */

struct ts_msg_link_report {
    struct ts_link_items links;
};

struct ts_msg_link_test { /* operator -> router by names; router -> relay: measure the way to that endpoint
                             now */
    uint64_t id;
    struct ts_str from, to; /* a relay, or a worker whose relay is meant; a decode worker */
    struct ts_str endpoint;
    uint64_t bytes; /* to send, at most */
};

struct ts_msg_link_test_reply {
    uint64_t id;
    enum ts_reason reason; /* NONE = link is valid */
    struct ts_str text;
    struct ts_link_item link; /* as just measured; bytes: what was sent for it */
};

struct ts_copy_item {
    struct ts_rid rid;
    uint64_t bytes;
    bool whole;
};

struct ts_copy_items {
    const struct ts_copy_item *data;
    uint32_t count;
};

struct ts_msg_copies { /* retained encoded copies: inventory after Welcome; bytes 0 = had to go */
    struct ts_copy_items items;
};

struct ts_msg_refeed { /* send the retained copy of `from` to another decode worker, as attempt `rid` */
    struct ts_rid from, rid;
    struct ts_str decode, endpoint;
    uint64_t decode_incarnation;
};

struct ts_msg_transfer { /* relay -> router: the end of a transfer */
    struct ts_rid rid;
    enum ts_reason reason; /* NONE = verified by decode */
    struct ts_str text;
    uint64_t bytes_raw, bytes_sent; /* sent: payloads of all chunks, repeats included */
    int64_t run_ns;
};

/* --- admin ---------------------------------------------------------------------------------------------- */

struct ts_msg_status {
    uint64_t id;
};

struct ts_service_status {
    struct ts_str id;
    enum ts_role role;
    enum ts_phase phase;
    uint32_t pid;
    uint64_t incarnation;
    bool ready, draining;
    struct ts_load load;
};

struct ts_service_statuses {
    const struct ts_service_status *data;
    uint32_t count;
};

struct ts_msg_status_reply {
    uint64_t id;
    struct ts_service_statuses services; /* the router itself first */
    uint32_t queued, running;
    uint64_t accepted, refused, ended, malformed;
    uint64_t term, number;
    uint64_t held_bytes;     /* of prompts */
    uint32_t client_most;    /* requests under way of the client that has most */
    uint64_t retries, stale; /* attempts after the first; messages of attempts that are not the current one */
};

struct ts_msg_links { /* all links that relays have reported */
    uint64_t id;
};

struct ts_msg_links_reply {
    uint64_t id;
    struct ts_link_items links;
};

struct ts_msg_why { /* what happened to this request */
    uint64_t id;
    struct ts_str client, request_id;
};

struct ts_msg_why_reply {
    uint64_t id;
    enum ts_reason reason;
    struct ts_trace trace;
};

#endif
