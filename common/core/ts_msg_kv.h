/*
 * Messages on the way of KV: a worker with the relay of its host, a relay with the decode worker, stages with
 * each other (as proto/ts_kv.proto); ts_msg.h joins all.
 */
#ifndef TS_CORE_MSG_KV_H
#define TS_CORE_MSG_KV_H

#include "common/core/ts_codec_spec.h"
#include "common/core/ts_msg_common.h"

#define TS_KV_PARTS_MAX 64 /* of one request: receivers of a sender, senders of a receiver */

/* --- relay pool (worker <-> relay of the host) ---------------------------------------------------------- */

struct ts_msg_pool { /* worker -> relay, first message after Welcome */
    /* Of the memfd, as the relay can open it: the pool, unless it is on a device, then the generations of its
     * blocks. Empty when modelled. */
    struct ts_str path;
    uint64_t bytes, fingerprint;
    uint32_t layer_begin, layer_end, head_begin, head_end, kv_blocks, head_dim, kv_dtype, layers, kv_heads;
    struct ts_u32s
        rope; /* fp32 bits: what keys turn by with each position [head_dim / 2]; none = not at all */
    struct ts_str device;   /* uuid of the device where the pool lies; empty = none */
    struct ts_bytes share;  /* by which another process of this host maps it there */
    uint64_t device_offset; /* of the pool in what is mapped so */
    bool encodes;           /* it answers KvEncode */
};

struct ts_msg_pool_reply {
    enum ts_reason reason;
    struct ts_str text;
};

struct ts_kv_part { /* one of several workers that the decode side is cut into, and what it holds */
    struct ts_str decode, endpoint;
    uint64_t decode_incarnation;
    uint32_t layer_begin, layer_end, head_begin, head_end;
    uint32_t senders; /* how many relays together bring that */
};

struct ts_kv_parts {
    const struct ts_kv_part *data;
    uint32_t count;
};

struct ts_msg_kv_begin { /* worker -> relay: a transfer will be wanted */
    struct ts_rid rid;
    struct ts_str decode, endpoint;
    uint64_t decode_incarnation;
    struct ts_codec codec;
    uint32_t token_count; /* prompt tokens, all of which pass the codec */
    struct ts_u32s blocks;
    struct ts_u32s generations; /* of the blocks (ts_kv.h): the relay believes only what still has them */
    struct ts_u64s chain;       /* token hash of each whole block, chained */
    struct ts_kv_parts parts;   /* none: all of the pool goes to `decode` */
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

/* For a relay that cannot read the pool, or is told not to: the worker encodes, the relay forwards. */
struct ts_msg_kv_encode { /* relay -> worker: a piece of what was announced by KvReady */
    struct ts_rid rid;
    uint64_t job;          /* the relay's, for the answer */
    struct ts_codec codec; /* of this layer */
    uint32_t layer, head_begin, head_count, token_begin, token_count;
};

struct ts_msg_kv_encoded { /* worker -> relay: once for each KvEncode; bulk = the payload */
    uint64_t job;
    enum ts_reason reason; /* NONE, or why there is no payload */
    uint64_t declared_bytes;
    uint32_t crc32c, escapes;
    struct ts_u64s digests; /* [head] of the piece */
};

/* --- KV data (relay -> decode worker) ------------------------------------------------------------------- */

struct ts_msg_kv_open {
    struct ts_rid rid;
    uint64_t fingerprint;
    uint64_t decode_incarnation; /* whom the sender means */
    struct ts_codec codec;
    uint32_t layer_begin, layer_end, layers, head_begin, head_end, kv_heads;
    uint32_t head_dim, kv_dtype, block_tokens;
    uint32_t token_begin, token_count;
    struct ts_u64s chain;
    bool resume;      /* it was granted before, in a session that is over; what decode has counts */
    uint32_t senders; /* how many together bring what the worker holds; 0 = this one alone */
};

struct ts_msg_kv_grant {
    struct ts_rid rid;
    uint32_t token_begin;  /* tokens already present at decode are not sent */
    uint64_t credit_bytes; /* payload bytes that may be under way */
    struct ts_u64s have;   /* a bit for each chunk, by number, 64 in each: those that need not come again */
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
    uint64_t chunk; /* its number + 1; 0 = not said */
};

struct ts_msg_kv_end { /* the sender's part is complete */
    struct ts_rid rid;
    uint32_t layer_begin, layer_end, head_begin, head_end;
    uint64_t chunks;
    uint64_t bytes_raw;     /* uncompressed KV of the part */
    uint64_t bytes_sent;    /* payloads of all chunks, repeats included */
    struct ts_u64s digests; /* [layer][head] of the part */
};

struct ts_msg_kv_commit { /* from each sender; the first one counts */
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

struct ts_msg_kv_probe { /* relay -> decode, which gives the number back at once; bulk = nothing, or filler */
    uint64_t number;
    bool reply;
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

#endif
