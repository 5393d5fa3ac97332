/* Tables of the messages on the way of KV. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

#define ENDPOINT_BYTES_MAX TS_TEXT_BYTES_MAX
#define BLOCKS_MAX         (1u << 20)
#define SHARE_BYTES_MAX    64

/* --- relay pool ----------------------------------------------------------------------------------------- */

static const struct ts_field pool_fields[] = {
    TS_F_TEXT(msg_pool, path),
    TS_F(msg_pool, bytes),
    TS_F(msg_pool, fingerprint),
    TS_F(msg_pool, layer_begin),
    TS_F(msg_pool, layer_end),
    TS_F(msg_pool, head_begin),
    TS_F(msg_pool, head_end),
    TS_F(msg_pool, kv_blocks),
    TS_F(msg_pool, head_dim),
    TS_F(msg_pool, kv_dtype),
    TS_F(msg_pool, layers),
    TS_F(msg_pool, kv_heads),
    TS_F_SPAN(msg_pool, rope, TS_CODEC_DIM_MAX / 2),
    TS_F_ID(msg_pool, device),
    TS_F_SPAN(msg_pool, share, SHARE_BYTES_MAX),
    TS_F(msg_pool, device_offset),
    TS_F(msg_pool, encodes),
};
const struct ts_schema ts_msg_pool_schema = TS_SCHEMA(msg_pool, "Pool", pool_fields);

static const struct ts_field pool_reply_fields[] = {
    TS_F_ENUM(msg_pool_reply, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_pool_reply, text),
};
const struct ts_schema ts_msg_pool_reply_schema = TS_SCHEMA(msg_pool_reply, "PoolReply", pool_reply_fields);

static const struct ts_field kv_part_fields[] = {
    TS_F_ID(kv_part, decode),          TS_F_SPAN(kv_part, endpoint, ENDPOINT_BYTES_MAX),
    TS_F(kv_part, decode_incarnation), TS_F(kv_part, layer_begin),
    TS_F(kv_part, layer_end),          TS_F(kv_part, head_begin),
    TS_F(kv_part, head_end),           TS_F(kv_part, senders),
};
static const struct ts_schema kv_part_schema = TS_SCHEMA(kv_part, "KvPart", kv_part_fields);

static const struct ts_field kv_begin_fields[] = {
    TS_F_MSG(msg_kv_begin, rid, ts_rid_schema),
    TS_F_ID(msg_kv_begin, decode),
    TS_F_SPAN(msg_kv_begin, endpoint, ENDPOINT_BYTES_MAX),
    TS_F(msg_kv_begin, decode_incarnation),
    TS_F_MSG(msg_kv_begin, codec, ts_codec_schema),
    TS_F(msg_kv_begin, token_count),
    TS_F_SPAN(msg_kv_begin, blocks, BLOCKS_MAX),
    TS_F_SPAN(msg_kv_begin, generations, BLOCKS_MAX),
    TS_F_SPAN(msg_kv_begin, chain, TS_LIST_MAX),
    TS_F_LIST(msg_kv_begin, parts, TS_KV_PARTS_MAX, kv_part_schema),
};
const struct ts_schema ts_msg_kv_begin_schema = TS_SCHEMA(msg_kv_begin, "KvBegin", kv_begin_fields);

static const struct ts_field ready_item_fields[] = {
    TS_F_MSG(ready_item, rid, ts_rid_schema),
    TS_F(ready_item, token_begin),
    TS_F(ready_item, token_count),
};
static const struct ts_schema ready_item_schema = TS_SCHEMA(ready_item, "ReadyItem", ready_item_fields);

static const struct ts_field kv_ready_fields[] = {
    TS_F(msg_kv_ready, layer_begin),
    TS_F(msg_kv_ready, layer_end),
    TS_F_LIST(msg_kv_ready, items, TS_LIST_MAX, ready_item_schema),
};
const struct ts_schema ts_msg_kv_ready_schema = TS_SCHEMA(msg_kv_ready, "KvReady", kv_ready_fields);

static const struct ts_field kv_seal_fields[] = {
    TS_F_MSG(msg_kv_seal, rid, ts_rid_schema),
    TS_F_SPAN(msg_kv_seal, prompt_ids, TS_PROMPT_TOKENS_MAX),
    TS_F_SPAN(msg_kv_seal, produced, TS_PROMPT_TOKENS_MAX),
    TS_F_MSG(msg_kv_seal, first, ts_token_item_schema),
};
const struct ts_schema ts_msg_kv_seal_schema = TS_SCHEMA(msg_kv_seal, "KvSeal", kv_seal_fields);

static const struct ts_field kv_freed_fields[] = {TS_F_MSG(msg_kv_freed, rid, ts_rid_schema)};
const struct ts_schema ts_msg_kv_freed_schema = TS_SCHEMA(msg_kv_freed, "KvFreed", kv_freed_fields);

static const struct ts_field kv_encode_fields[] = {
    TS_F_MSG(msg_kv_encode, rid, ts_rid_schema),
    TS_F(msg_kv_encode, job),
    TS_F_MSG(msg_kv_encode, codec, ts_codec_schema),
    TS_F(msg_kv_encode, layer),
    TS_F(msg_kv_encode, head_begin),
    TS_F(msg_kv_encode, head_count),
    TS_F(msg_kv_encode, token_begin),
    TS_F(msg_kv_encode, token_count),
};
const struct ts_schema ts_msg_kv_encode_schema = TS_SCHEMA(msg_kv_encode, "KvEncode", kv_encode_fields);

static const struct ts_field kv_encoded_fields[] = {
    TS_F(msg_kv_encoded, job),
    TS_F_ENUM(msg_kv_encoded, reason, TS_REASON_LAST),
    TS_F(msg_kv_encoded, declared_bytes),
    TS_F(msg_kv_encoded, crc32c),
    TS_F(msg_kv_encoded, escapes),
    TS_F_SPAN(msg_kv_encoded, digests, TS_LIST_MAX),
};
const struct ts_schema ts_msg_kv_encoded_schema = TS_SCHEMA(msg_kv_encoded, "KvEncoded", kv_encoded_fields);

/* --- KV data -------------------------------------------------------------------------------------------- */

static const struct ts_field kv_open_fields[] = {
    TS_F_MSG(msg_kv_open, rid, ts_rid_schema),
    TS_F(msg_kv_open, fingerprint),
    TS_F(msg_kv_open, decode_incarnation),
    TS_F_MSG(msg_kv_open, codec, ts_codec_schema),
    TS_F(msg_kv_open, layer_begin),
    TS_F(msg_kv_open, layer_end),
    TS_F(msg_kv_open, layers),
    TS_F(msg_kv_open, head_begin),
    TS_F(msg_kv_open, head_end),
    TS_F(msg_kv_open, kv_heads),
    TS_F(msg_kv_open, head_dim),
    TS_F(msg_kv_open, kv_dtype),
    TS_F(msg_kv_open, block_tokens),
    TS_F(msg_kv_open, token_begin),
    TS_F(msg_kv_open, token_count),
    TS_F_SPAN(msg_kv_open, chain, TS_LIST_MAX),
    TS_F(msg_kv_open, resume),
    TS_F(msg_kv_open, senders),
};
const struct ts_schema ts_msg_kv_open_schema = TS_SCHEMA(msg_kv_open, "KvOpen", kv_open_fields);

static const struct ts_field kv_grant_fields[] = {
    TS_F_MSG(msg_kv_grant, rid, ts_rid_schema),
    TS_F(msg_kv_grant, token_begin),
    TS_F(msg_kv_grant, credit_bytes),
    TS_F_SPAN(msg_kv_grant, have, TS_LIST_MAX),
};
const struct ts_schema ts_msg_kv_grant_schema = TS_SCHEMA(msg_kv_grant, "KvGrant", kv_grant_fields);

static const struct ts_field kv_chunk_fields[] = {
    TS_F_MSG(msg_kv_chunk, rid, ts_rid_schema),
    TS_F(msg_kv_chunk, number),
    TS_F(msg_kv_chunk, layer),
    TS_F(msg_kv_chunk, head_begin),
    TS_F(msg_kv_chunk, head_count),
    TS_F(msg_kv_chunk, token_begin),
    TS_F(msg_kv_chunk, token_count),
    TS_F(msg_kv_chunk, escapes),
    TS_F(msg_kv_chunk, declared_bytes),
    TS_F(msg_kv_chunk, crc32c),
};
const struct ts_schema ts_msg_kv_chunk_schema = TS_SCHEMA(msg_kv_chunk, "KvChunk", kv_chunk_fields);

static const struct ts_field kv_credit_fields[] = {
    TS_F_MSG(msg_kv_credit, rid, ts_rid_schema),
    TS_F(msg_kv_credit, bytes),
    TS_F(msg_kv_credit, chunk),
};
const struct ts_schema ts_msg_kv_credit_schema = TS_SCHEMA(msg_kv_credit, "KvCredit", kv_credit_fields);

static const struct ts_field kv_end_fields[] = {
    TS_F_MSG(msg_kv_end, rid, ts_rid_schema),
    TS_F(msg_kv_end, layer_begin),
    TS_F(msg_kv_end, layer_end),
    TS_F(msg_kv_end, head_begin),
    TS_F(msg_kv_end, head_end),
    TS_F(msg_kv_end, chunks),
    TS_F(msg_kv_end, bytes_raw),
    TS_F(msg_kv_end, bytes_sent),
    TS_F_SPAN(msg_kv_end, digests, TS_LIST_MAX),
};
const struct ts_schema ts_msg_kv_end_schema = TS_SCHEMA(msg_kv_end, "KvEnd", kv_end_fields);

static const struct ts_field kv_commit_fields[] = {
    TS_F_MSG(msg_kv_commit, rid, ts_rid_schema),
    TS_F(msg_kv_commit, senders),
    TS_F_SPAN(msg_kv_commit, prompt_ids, TS_PROMPT_TOKENS_MAX),
    TS_F_SPAN(msg_kv_commit, produced, TS_PROMPT_TOKENS_MAX),
    TS_F_MSG(msg_kv_commit, first, ts_token_item_schema),
};
const struct ts_schema ts_msg_kv_commit_schema = TS_SCHEMA(msg_kv_commit, "KvCommit", kv_commit_fields);

static const struct ts_field kv_done_fields[] = {TS_F_MSG(msg_kv_done, rid, ts_rid_schema)};
const struct ts_schema ts_msg_kv_done_schema = TS_SCHEMA(msg_kv_done, "KvDone", kv_done_fields);

static const struct ts_field kv_nack_fields[] = {
    TS_F_MSG(msg_kv_nack, rid, ts_rid_schema),
    TS_F(msg_kv_nack, chunk),
    TS_F_ENUM(msg_kv_nack, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_kv_nack, text),
};
const struct ts_schema ts_msg_kv_nack_schema = TS_SCHEMA(msg_kv_nack, "KvNack", kv_nack_fields);

static const struct ts_field kv_abort_fields[] = {
    TS_F_MSG(msg_kv_abort, rid, ts_rid_schema),
    TS_F_ENUM(msg_kv_abort, reason, TS_REASON_LAST),
};
const struct ts_schema ts_msg_kv_abort_schema = TS_SCHEMA(msg_kv_abort, "KvAbort", kv_abort_fields);

static const struct ts_field kv_probe_fields[] = {TS_F(msg_kv_probe, number), TS_F(msg_kv_probe, reply)};
const struct ts_schema ts_msg_kv_probe_schema = TS_SCHEMA(msg_kv_probe, "KvProbe", kv_probe_fields);

/* --- stage link ----------------------------------------------------------------------------------------- */

static const struct ts_field activations_fields[] = {
    TS_F_MSG(msg_activations, rid, ts_rid_schema),
    TS_F(msg_activations, stage),
    TS_F(msg_activations, position),
    TS_F(msg_activations, token_count),
    TS_F(msg_activations, sample),
};
const struct ts_schema ts_msg_activations_schema =
    TS_SCHEMA(msg_activations, "Activations", activations_fields);

static const struct ts_field token_return_fields[] = {
    TS_F_MSG(msg_token_return, rid, ts_rid_schema),
    TS_F(msg_token_return, index),
    TS_F_MSG(msg_token_return, item, ts_token_item_schema),
};
const struct ts_schema ts_msg_token_return_schema =
    TS_SCHEMA(msg_token_return, "TokenReturn", token_return_fields);
