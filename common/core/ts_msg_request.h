/*
 * Messages between a client and a router (as proto/ts_request.proto); ts_msg.h joins all.
 */
#ifndef TS_CORE_MSG_REQUEST_H
#define TS_CORE_MSG_REQUEST_H

#include "common/core/ts_msg_common.h"
#include "common/core/ts_sampling.h"

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

#endif
