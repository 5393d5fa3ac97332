/*
 * What messages of several channels hold: ids, load, tokens, links, the trace of a request (as
 * proto/ts_common.proto). ts_msg.h joins all messages and says what holds for every one.
 */
#ifndef TS_CORE_MSG_COMMON_H
#define TS_CORE_MSG_COMMON_H

#include "common/core/ts_schema.h"
#include "common/core/ts_terms.h"

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

static inline bool ts_rid_equal(struct ts_rid a, struct ts_rid b)
{
    return a.router == b.router && a.request == b.request && a.attempt == b.attempt;
}

struct ts_envelope {
    uint32_t version;
    uint64_t incarnation; /* of the sender */
    uint64_t session;     /* 0 outside a session (Hello, client and admin channels) */
    uint64_t seq;         /* 1, 2, ... in each direction of a session */
};

struct ts_load {
    uint32_t waiting, running; /* requests */
    uint32_t kv_blocks_used, kv_blocks;
    uint64_t queued_tokens;  /* prompt tokens not yet prefilled */
    uint64_t done_tokens;    /* output tokens since start */
    uint64_t encoded_bytes;  /* relay: encoded KV held */
    uint64_t retained_bytes; /* relay: of that, in copies of what is done */
};

/* Of a replica, in order: `tp` devices of that type on that host own `layers` layers. */
struct ts_stage_item {
    struct ts_str device, host;
    uint32_t tp, layers;
};

struct ts_stage_items {
    const struct ts_stage_item *data;
    uint32_t count;
};

/* Of a worker's device with its model, measured as it started (gpu/quality/ts_measure.h): the coefficients of
 * the cost model. */
struct ts_measured {
    double memory_bytes;
    double product_flops, attention_flops;           /* of matrix products, and of attention in prefill */
    double weight_bytes_per_s, context_bytes_per_s;  /* of weights, and of the KV cache in decode */
    double layer_s, step_s, tokens_half;             /* as in struct ts_device_fit */
    double upload_bytes_per_s, download_bytes_per_s; /* between device and host; 0 = the device is the host */
    double error; /* the largest of these figures on what they were made from, relative */
};

struct ts_measured_items { /* one, or none */
    const struct ts_measured *data;
    uint32_t count;
};

enum ts_prompt_kind { TS_PROMPT_TEXT = 1, TS_PROMPT_TOKENS, TS_PROMPT_CHAT, TS_PROMPT_LAST = TS_PROMPT_CHAT };

struct ts_stop {
    struct ts_str text;
};

struct ts_stops {
    const struct ts_stop *data;
    uint32_t count;
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

/* As a relay (`from`) has measured the way to a decode worker (`to`). */
struct ts_link_item {
    struct ts_str from, to;
    double goodput_bytes_per_s;
    int64_t rtt_ns;              /* 0 = not known */
    uint64_t bytes;              /* of KV that were credited */
    bool at_least;               /* the goodput is what it carries at least: nothing has filled it yet */
    uint64_t transfers, repeats; /* verified; chunks sent again */
    uint64_t samples;            /* measurements so far */
    double expected_bytes_per_s; /* by the cluster file; 0 = it does not say */
    uint64_t age_ms;             /* since the last of them */
    bool slow;                   /* far below what was expected, for several reports */
};

struct ts_link_items {
    const struct ts_link_item *data;
    uint32_t count;
};

#endif
