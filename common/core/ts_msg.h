/*
 * Every message that crosses a socket, as our own plain structs. The .proto files mirror them field by field
 * (proto/), ts_msg.c holds the schema tables. A message travels in an envelope; bulk bytes (prompt, KV chunk,
 * activations) follow as one raw frame and are never inside a message: cores see them as struct ts_bulk
 * handles.
 *
 * Times in messages are durations or remaining times, never stamps of another process's clock. Spans are
 * borrowed (ts_schema.h).
 */
#ifndef TS_CORE_MSG_H
#define TS_CORE_MSG_H

#include "common/base/ts_clock.h"
#include "common/core/ts_model.h"
#include "common/core/ts_sampling.h"
#include "common/core/ts_schema.h"
#include "common/core/ts_terms.h"

#define TS_PROTOCOL_VERSION     1
#define TS_ID_BYTES_MAX         128
#define TS_TEXT_BYTES_MAX       1024
#define TS_PROMPT_TOKENS_MAX    (1u << 20)
#define TS_STOPS_MAX            16
#define TS_LIST_MAX             65536
#define TS_STAGE_ITEMS_MAX      64
#define TS_WORKLOAD_CLASSES_MAX 64

/* Raw bytes beside a message; slot 0 = none. Cores hold handles, never the bytes (ts_event.h). */
struct ts_bulk {
    uint32_t slot, generation;
    uint64_t bytes;
};

/* One attempt of one request. `router` is the incarnation of the router that accepted it. */
struct ts_rid {
    uint64_t router, request;
    uint32_t attempt;
};

struct ts_envelope {
    uint32_t version;
    uint64_t incarnation; /* of the sender */
    uint64_t session;     /* 0 outside a session (Hello, client and admin channels) */
    uint64_t seq;         /* 1, 2, ... in each direction of a session */
};

/* --- sessions ------------------------------------------------------------------------------------------- */

struct ts_load {
    uint32_t waiting, running; /* requests */
    uint32_t kv_blocks_used, kv_blocks;
    uint64_t queued_tokens; /* prompt tokens not yet prefilled */
    uint64_t done_tokens;   /* output tokens since start */
    uint64_t encoded_bytes; /* relay: encoded KV held */
};

struct ts_stage_item { /* of a replica, in order: `tp` devices of that type on that host own `layers` layers
                        */
    struct ts_str device, host;
    uint32_t tp, layers;
};

struct ts_stage_items {
    const struct ts_stage_item *data;
    uint32_t count;
};

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
};

struct ts_msg_hello {
    enum ts_role role;
    struct ts_str id, host, version;
    uint32_t pid;
    struct ts_profile profile; /* workers only */
};

struct ts_msg_welcome {
    struct ts_str id;
    uint64_t session;
    uint32_t heartbeat_ms, timeout_ms;
    uint64_t term;       /* highest planner term seen */
    bool output_batches; /* a router that takes OutputBatch */
};

struct ts_msg_heartbeat {
    struct ts_load load;
};

struct ts_msg_reset { /* the session is unknown or broken: say Hello again (fenced: as a new incarnation,
                         after dropping all work) */
    bool fenced;
    enum ts_reason reason;
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

/* --- client channel ------------------------------------------------------------------------------------- */

enum ts_prompt_kind { TS_PROMPT_TEXT = 1, TS_PROMPT_TOKENS, TS_PROMPT_CHAT, TS_PROMPT_LAST = TS_PROMPT_CHAT };

struct ts_stop {
    struct ts_str text;
};

struct ts_stops {
    const struct ts_stop *data;
    uint32_t count;
};

/* The prompt is the bulk frame: UTF-8 text, little-endian u32 ids, or a JSON array of {"role","content"}. */
struct ts_msg_generate {
    struct ts_str client, request_id;
    uint64_t digest;     /* of prompt, sampling, stops and model: common/client/README.md */
    struct ts_str model; /* empty = the only one */
    enum ts_prompt_kind prompt_kind;
    struct ts_sampling sampling;
    struct ts_stops stops;
    uint32_t remaining_ms;     /* deadline; 0 = none */
    uint32_t ttft_ms, tpot_ms; /* SLO; 0 = none */
    uint32_t reattach_ms;      /* how long the request outlives its client */
    uint32_t next_index;       /* first output index wanted: > 0 when resuming */
    uint64_t resume_epoch; /* with next_index > 0 at a router that does not know the request: produced holds
                              the tokens so far */
    struct ts_u32s produced;
    struct ts_str codec; /* wish; empty = the router's choice */
    bool token_batches;  /* a client that takes TokensBatch */
};

struct ts_msg_accepted {
    struct ts_str request_id;
    uint64_t epoch; /* the router's incarnation */
    uint32_t next_index;
};

struct ts_msg_refused {
    struct ts_str request_id;
    enum ts_reason reason;
    struct ts_str text;
    uint32_t retry_after_ms; /* 0 = do not retry as it is */
};

struct ts_top {
    uint32_t token;
    float logprob;
};

struct ts_tops {
    const struct ts_top *data;
    uint32_t count;
};

struct ts_token_item {
    uint32_t token;
    struct ts_str text; /* what this token adds to the visible text; may be empty */
    float logprob;
    struct ts_tops top;
};

struct ts_token_items {
    const struct ts_token_item *data;
    uint32_t count;
};

struct ts_msg_tokens { /* router -> client */
    struct ts_str request_id;
    uint64_t epoch;
    uint32_t first_index;
    struct ts_token_items items;
};

struct ts_tokens_list {
    const struct ts_msg_tokens *data;
    uint32_t count;
};

struct ts_msg_tokens_batch { /* router -> client: of several streams of one connection, at most once each */
    struct ts_tokens_list streams;
};

/* What a request leaves behind (architecture.md section 8). Durations since acceptance at the router, -1 =
 * did not happen. */
struct ts_trace {
    struct ts_str client, request_id;
    struct ts_rid rid; /* of the last attempt */
    enum ts_finish finish;
    enum ts_reason reason;
    uint32_t prompt_tokens, output_tokens, attempts;
    uint64_t term, plan;
    struct ts_str prefill, relay, decode, codec, codec_why;
    uint64_t kv_bytes_raw, kv_bytes_sent;
    int64_t assigned_ns, prefill_begin_ns, prefill_end_ns, first_token_ns, kv_open_ns, kv_commit_ns,
        decode_begin_ns, end_ns;
};

struct ts_msg_end { /* router -> client: the one terminal event */
    struct ts_str request_id;
    uint64_t epoch;
    uint32_t next_index; /* number of output tokens */
    enum ts_finish finish;
    enum ts_reason reason;
    struct ts_str text;
    struct ts_trace trace;
};

struct ts_msg_cancel {
    struct ts_str client, request_id;
};

struct ts_msg_tokenize { /* text is the bulk frame */
    uint64_t id;
    struct ts_str model;
    bool add_special;
};

struct ts_msg_detokenize {
    uint64_t id;
    struct ts_str model;
    struct ts_u32s tokens;
};

struct ts_msg_tokenize_reply { /* to either */
    uint64_t id;
    enum ts_reason reason;
    struct ts_u32s tokens;
    struct ts_bytes text;
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

struct ts_link_item {
    struct ts_str from, to;
    double goodput_bytes_per_s;
    int64_t rtt_ns;
    uint64_t bytes;
};

struct ts_link_items {
    const struct ts_link_item *data;
    uint32_t count;
};

struct ts_msg_link_report {
    struct ts_link_items links;
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

/* --- planner -------------------------------------------------------------------------------------------- */

struct ts_plan_worker { /* cluster state: one slot */
    struct ts_str id, host, model, relay;
    uint64_t incarnation;
    uint32_t phases;
    enum ts_phase phase;
    bool ready, draining;
    struct ts_load load;
    struct ts_str device; /* as in its profile, and so are these: what the cost model needs */
    uint32_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, kv_dtype, kv_blocks;
    struct ts_stage_items stages; /* as in its profile */
};

struct ts_plan_workers {
    const struct ts_plan_worker *data;
    uint32_t count;
};

struct ts_workload_class { /* requests of like length in the window */
    double rate;           /* requests/s that arrived, refused ones included */
    double prompt_tokens, prompt_tokens_sq, output_tokens, output_tokens_sq; /* means, mean squares */
    double prompt_begin, prompt_end;                                         /* of prompts, end excluded */
};

struct ts_workload_classes {
    const struct ts_workload_class *data;
    uint32_t count; /* at most TS_WORKLOAD_CLASSES_MAX */
};

struct ts_workload { /* as the router has measured it */
    double arrivals_per_s, prompt_tokens_mean, output_tokens_mean;
    uint32_t queued, running;
    double window_s; /* of the measurement; 0 = nothing is known yet */
    double burst;    /* index of dispersion of counts, as in ts_demand */
    double refused_per_s,
        attained; /* share of those that ended within their own deadlines; -1 = none had any */
    struct ts_workload_classes classes;
};

struct ts_msg_snapshot { /* router -> planner, at start and (as Update) after each change; always whole */
    uint64_t version;
    struct ts_plan_workers workers;
    struct ts_link_items links;
    struct ts_workload workload;
    uint64_t term, number; /* of the plan in force; 0 = none */
    struct ts_str holder;  /* planner whose term it is; empty = none or lost */
};

struct ts_plan_replica {
    uint32_t id;
    struct ts_str worker; /* the slot of its only stage */
    enum ts_phase phase;
};

struct ts_plan_replicas {
    const struct ts_plan_replica *data;
    uint32_t count;
};

/* Holds a request whose prompt is in its range; of several such, or without any, the one whose centre is
 * nearest in the logarithms of (prompt tokens, max_tokens). */
struct ts_plan_class {
    double prompt_tokens, output_tokens, prompt_begin, prompt_end; /* end excluded; 0 = no range */
};

struct ts_plan_classes {
    const struct ts_plan_class *data;
    uint32_t count; /* 0 = all requests are of class 0 */
};

struct ts_plan_share {        /* z[prefill][decode][class] as a share of all requests of the class */
    uint32_t prefill, decode; /* replica ids */
    uint32_t length_class;
    double share;
    struct ts_str codec; /* of this link; empty = the router's default */
};

struct ts_plan_shares {
    const struct ts_plan_share *data;
    uint32_t count;
};

struct ts_msg_plan {
    uint64_t term, number;
    struct ts_str planner, algorithm;
    uint64_t snapshot_version;
    struct ts_plan_replicas replicas;
    struct ts_plan_shares shares;
    double attainment;
    struct ts_str binding; /* what limits it, in words */
    struct ts_plan_classes classes;
    double served_per_s; /* requests/s within deadlines that it is made for; 0 = unknown */
};

enum ts_plan_verdict {
    TS_PLAN_ACCEPTED = 1,
    TS_PLAN_REFUSED,
    TS_PLAN_APPLIED,
    TS_PLAN_ABORTED,
    TS_PLAN_VERDICT_LAST = TS_PLAN_ABORTED
};

struct ts_msg_plan_reply {
    uint64_t term, number;
    enum ts_plan_verdict verdict;
    enum ts_reason reason;
    struct ts_str text;
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

struct ts_msg_why { /* what happened to this request */
    uint64_t id;
    struct ts_str client, request_id;
};

struct ts_msg_why_reply {
    uint64_t id;
    enum ts_reason reason;
    struct ts_trace trace;
};

/* --- relay pool (worker <-> relay of the host)
 * ------------------------------------------------------------------------------------ */

struct ts_msg_pool {    /* worker -> relay, first message after Welcome */
    struct ts_str path; /* of the memfd, as the relay can open it; empty when modelled */
    uint64_t bytes, fingerprint;
    uint32_t layer_begin, layer_end, head_begin, head_end, kv_blocks, head_dim, kv_dtype, layers, kv_heads;
};

struct ts_msg_pool_reply {
    enum ts_reason reason;
    struct ts_str text;
};

struct ts_msg_kv_begin { /* worker -> relay: a transfer will be wanted */
    struct ts_rid rid;
    struct ts_str decode, endpoint;
    uint64_t decode_incarnation;
    struct ts_str codec;
    uint32_t token_count; /* prompt tokens, all of which pass the codec */
    struct ts_u32s blocks;
    struct ts_u32s generations; /* of the blocks (ts_kv.h): the relay believes only what still has them */
    struct ts_u64s chain;       /* token hash of each whole block, chained */
};

struct ts_ready_item {
    struct ts_rid rid;
    uint32_t token_begin,
        token_count; /* token_begin and, but for the last piece, the end are multiples of 16 */
};

struct ts_ready_items {
    const struct ts_ready_item *data;
    uint32_t count;
};

struct ts_msg_kv_ready { /* worker -> relay: these layers of these tokens are in the pool */
    uint32_t layer_begin, layer_end;
    struct ts_ready_items items;
};

struct ts_msg_kv_seal { /* worker -> relay: prefill is complete; forwarded to decode as KvCommit */
    struct ts_rid rid;
    struct ts_u32s prompt_ids, produced; /* produced holds at least token 0 */
    struct ts_token_item first;          /* token 0 with its text, when it was sampled here */
};

struct ts_msg_kv_freed { /* relay -> worker: it will not read the blocks of this attempt again */
    struct ts_rid rid;
};

/* --- KV data (relay -> decode worker)
 * ------------------------------------------------------------------------------------------------ */

struct ts_msg_kv_open {
    struct ts_rid rid;
    uint64_t fingerprint;
    uint64_t decode_incarnation; /* whom the sender means */
    struct ts_str codec;
    uint32_t layer_begin, layer_end, layers, head_begin, head_end, kv_heads;
    uint32_t head_dim, kv_dtype, block_tokens;
    uint32_t token_begin, token_count;
    struct ts_u64s chain;
};

struct ts_msg_kv_grant {
    struct ts_rid rid;
    uint32_t token_begin;  /* tokens already present at decode are not sent */
    uint64_t credit_bytes; /* payload bytes that may be under way */
};

struct ts_msg_kv_chunk { /* payload = the bulk frame (none and declared_bytes > 0 when modelled) */
    struct ts_rid rid;
    uint64_t number; /* 0, 1, ... within the transfer */
    uint32_t layer, head_begin, head_count, token_begin, token_count, escapes;
    uint64_t declared_bytes;
    uint32_t crc32c;
};

struct ts_msg_kv_credit {
    struct ts_rid rid;
    uint64_t bytes;
};

struct ts_msg_kv_end { /* the sender's part is complete */
    struct ts_rid rid;
    uint32_t layer_begin, layer_end, head_begin, head_end;
    uint64_t chunks;
    uint64_t bytes_raw;     /* uncompressed KV of the part */
    uint64_t bytes_sent;    /* payloads of all chunks, repeats included */
    struct ts_u64s digests; /* [layer][head] of the part */
};

struct ts_msg_kv_commit { /* from the head of the prefill replica */
    struct ts_rid rid;
    uint32_t senders; /* parts that must be verified */
    struct ts_u32s prompt_ids, produced;
    struct ts_token_item first;
};

struct ts_msg_kv_done { /* decode -> relay: verified */
    struct ts_rid rid;
};

struct ts_msg_kv_nack { /* decode -> relay: refused (chunk = UINT64_MAX) or send that chunk again */
    struct ts_rid rid;
    uint64_t chunk;
    enum ts_reason reason;
    struct ts_str text;
};

struct ts_msg_kv_abort { /* either way: forget this transfer */
    struct ts_rid rid;
    enum ts_reason reason;
};

/* --- stage link ----------------------------------------------------------------------------------------- */

struct ts_msg_activations { /* bulk = fp32 [tokens][hidden] */
    struct ts_rid rid;
    uint32_t stage, position, token_count;
    bool sample;
};

struct ts_msg_token_return {
    struct ts_rid rid;
    uint32_t index;
    struct ts_token_item item;
};

/* --- the union ------------------------------------------------------------------------------------------ */

/* Kinds are the field numbers of the one-of in proto/ts_envelope.proto: never renumber. X(KIND, number,
 * member, struct suffix) */
#define TS_MSG_KINDS(X)                                                                                      \
    X(HELLO, 10, hello, hello)                                                                               \
    X(WELCOME, 11, welcome, welcome)                                                                         \
    X(HEARTBEAT, 12, heartbeat, heartbeat)                                                                   \
    X(RESET, 13, reset, reset)                                                                               \
    X(RESYNC, 14, resync, resync)                                                                            \
    X(RESYNC_REPLY, 15, resync_reply, resync_reply)                                                          \
    X(GENERATE, 20, generate, generate)                                                                      \
    X(ACCEPTED, 21, accepted, accepted)                                                                      \
    X(REFUSED, 22, refused, refused)                                                                         \
    X(TOKENS, 23, tokens, tokens)                                                                            \
    X(END, 24, end, end)                                                                                     \
    X(CANCEL, 25, cancel, cancel)                                                                            \
    X(TOKENIZE, 26, tokenize, tokenize)                                                                      \
    X(DETOKENIZE, 27, detokenize, detokenize)                                                                \
    X(TOKENIZE_REPLY, 28, tokenize_reply, tokenize_reply)                                                    \
    X(TOKENS_BATCH, 29, tokens_batch, tokens_batch)                                                          \
    X(ASSIGN, 30, assign, assign)                                                                            \
    X(ASSIGN_REFUSED, 31, assign_refused, assign_refused)                                                    \
    X(RELEASE, 32, release, release)                                                                         \
    X(OUTPUT, 33, output, output)                                                                            \
    X(ATTEMPT_FAILED, 34, attempt_failed, attempt_failed)                                                    \
    X(REPORT, 35, report, report)                                                                            \
    X(CONFIGURE, 36, configure, configure)                                                                   \
    X(SET_PHASE, 37, set_phase, set_phase)                                                                   \
    X(PHASE_REPLY, 38, phase_reply, phase_reply)                                                             \
    X(DRAIN, 39, drain, drain)                                                                               \
    X(LINK_REPORT, 40, link_report, link_report)                                                             \
    X(COPIES, 41, copies, copies)                                                                            \
    X(REFEED, 42, refeed, refeed)                                                                            \
    X(TRANSFER, 43, transfer, transfer)                                                                      \
    X(OUTPUT_BATCH, 44, output_batch, output_batch)                                                          \
    X(SNAPSHOT, 50, snapshot, snapshot)                                                                      \
    X(UPDATE, 51, update, snapshot)                                                                          \
    X(PLAN, 52, plan, plan)                                                                                  \
    X(PLAN_REPLY, 53, plan_reply, plan_reply)                                                                \
    X(STATUS, 60, status, status)                                                                            \
    X(STATUS_REPLY, 61, status_reply, status_reply)                                                          \
    X(WHY, 62, why, why)                                                                                     \
    X(WHY_REPLY, 63, why_reply, why_reply)                                                                   \
    X(POOL, 70, pool, pool)                                                                                  \
    X(POOL_REPLY, 71, pool_reply, pool_reply)                                                                \
    X(KV_BEGIN, 72, kv_begin, kv_begin)                                                                      \
    X(KV_READY, 73, kv_ready, kv_ready)                                                                      \
    X(KV_SEAL, 74, kv_seal, kv_seal)                                                                         \
    X(KV_FREED, 75, kv_freed, kv_freed)                                                                      \
    X(KV_OPEN, 80, kv_open, kv_open)                                                                         \
    X(KV_GRANT, 81, kv_grant, kv_grant)                                                                      \
    X(KV_CHUNK, 82, kv_chunk, kv_chunk)                                                                      \
    X(KV_CREDIT, 83, kv_credit, kv_credit)                                                                   \
    X(KV_END, 84, kv_end, kv_end)                                                                            \
    X(KV_COMMIT, 85, kv_commit, kv_commit)                                                                   \
    X(KV_DONE, 86, kv_done, kv_done)                                                                         \
    X(KV_NACK, 87, kv_nack, kv_nack)                                                                         \
    X(KV_ABORT, 88, kv_abort, kv_abort)                                                                      \
    X(ACTIVATIONS, 90, activations, activations)                                                             \
    X(TOKEN_RETURN, 91, token_return, token_return)

enum ts_msg_kind {
    TS_MSG_NONE = 0,
#define TS_MSG_ENUM(KIND, number, member, suffix) TS_MSG_##KIND = (number),
    TS_MSG_KINDS(TS_MSG_ENUM)
#undef TS_MSG_ENUM
};

struct ts_msg {
    enum ts_msg_kind kind;
    union {
#define TS_MSG_MEMBER(KIND, number, member, suffix) struct ts_msg_##suffix member;
        TS_MSG_KINDS(TS_MSG_MEMBER)
#undef TS_MSG_MEMBER
    };
};

extern const struct ts_schema ts_msg_schema; /* one-of over all kinds */
extern const struct ts_schema ts_envelope_schema;
extern const struct ts_schema ts_rid_schema;
extern const struct ts_schema ts_bulk_schema;
extern const struct ts_schema ts_trace_schema;
extern const struct ts_schema ts_sampling_schema;
extern const struct ts_schema ts_stop_schema;
extern const struct ts_schema ts_token_item_schema;

const char *ts_msg_name(enum ts_msg_kind kind); /* "hello", ...; "unknown" */
/* Whether this kind may arrive on this channel: anything else is counted and refused. */
bool ts_msg_allowed(enum ts_channel channel, enum ts_msg_kind kind);

static inline bool ts_rid_equal(struct ts_rid a, struct ts_rid b)
{
    return a.router == b.router && a.request == b.request && a.attempt == b.attempt;
}

#endif
