/* Tables of the messages between a client and a router. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

/* Text of a detokenise reply: as many bytes as a prompt may have tokens, a few bytes each. */
#define DETOKENIZED_BYTES_MAX (4u << 20)

static const struct ts_field generate_fields[] = {
    TS_F_ID(msg_generate, client),
    TS_F_ID(msg_generate, request_id),
    TS_F(msg_generate, digest),
    TS_F_ID(msg_generate, model),
    TS_F_ENUM(msg_generate, prompt_kind, TS_PROMPT_LAST),
    TS_F_MSG(msg_generate, sampling, ts_sampling_schema),
    TS_F_LIST(msg_generate, stops, TS_STOPS_MAX, ts_stop_schema),
    TS_F(msg_generate, remaining_ms),
    TS_F(msg_generate, ttft_ms),
    TS_F(msg_generate, tpot_ms),
    TS_F(msg_generate, reattach_ms),
    TS_F(msg_generate, next_index),
    TS_F(msg_generate, resume_epoch),
    TS_F_SPAN(msg_generate, produced, TS_PROMPT_TOKENS_MAX),
    TS_F_ID(msg_generate, codec),
    TS_F(msg_generate, token_batches),
};
const struct ts_schema ts_msg_generate_schema = TS_SCHEMA(msg_generate, "Generate", generate_fields);

static const struct ts_field accepted_fields[] = {
    TS_F_ID(msg_accepted, request_id),
    TS_F(msg_accepted, epoch),
    TS_F(msg_accepted, next_index),
};
const struct ts_schema ts_msg_accepted_schema = TS_SCHEMA(msg_accepted, "Accepted", accepted_fields);

static const struct ts_field refused_fields[] = {
    TS_F_ID(msg_refused, request_id),
    TS_F_ENUM(msg_refused, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_refused, text),
    TS_F(msg_refused, retry_after_ms),
};
const struct ts_schema ts_msg_refused_schema = TS_SCHEMA(msg_refused, "Refused", refused_fields);

static const struct ts_field tokens_fields[] = {
    TS_F_ID(msg_tokens, request_id),
    TS_F(msg_tokens, epoch),
    TS_F(msg_tokens, first_index),
    TS_F_LIST(msg_tokens, items, TS_LIST_MAX, ts_token_item_schema),
};
const struct ts_schema ts_msg_tokens_schema = TS_SCHEMA(msg_tokens, "Tokens", tokens_fields);

static const struct ts_field tokens_batch_fields[] = {
    TS_F_LIST(msg_tokens_batch, streams, TS_LIST_MAX, ts_msg_tokens_schema)};
const struct ts_schema ts_msg_tokens_batch_schema =
    TS_SCHEMA(msg_tokens_batch, "TokensBatch", tokens_batch_fields);

static const struct ts_field end_fields[] = {
    TS_F_ID(msg_end, request_id),
    TS_F(msg_end, epoch),
    TS_F(msg_end, next_index),
    TS_F_ENUM(msg_end, finish, TS_FINISH_LAST),
    TS_F_ENUM(msg_end, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_end, text),
    TS_F_MSG(msg_end, trace, ts_trace_schema),
};
const struct ts_schema ts_msg_end_schema = TS_SCHEMA(msg_end, "End", end_fields);

static const struct ts_field cancel_fields[] = {TS_F_ID(msg_cancel, client), TS_F_ID(msg_cancel, request_id)};
const struct ts_schema ts_msg_cancel_schema = TS_SCHEMA(msg_cancel, "Cancel", cancel_fields);

static const struct ts_field tokenize_fields[] = {
    TS_F(msg_tokenize, id),
    TS_F_ID(msg_tokenize, model),
    TS_F(msg_tokenize, add_special),
};
const struct ts_schema ts_msg_tokenize_schema = TS_SCHEMA(msg_tokenize, "Tokenize", tokenize_fields);

static const struct ts_field detokenize_fields[] = {
    TS_F(msg_detokenize, id),
    TS_F_ID(msg_detokenize, model),
    TS_F_SPAN(msg_detokenize, tokens, TS_PROMPT_TOKENS_MAX),
};
const struct ts_schema ts_msg_detokenize_schema = TS_SCHEMA(msg_detokenize, "Detokenize", detokenize_fields);

static const struct ts_field tokenize_reply_fields[] = {
    TS_F(msg_tokenize_reply, id),
    TS_F_ENUM(msg_tokenize_reply, reason, TS_REASON_LAST),
    TS_F_SPAN(msg_tokenize_reply, tokens, TS_PROMPT_TOKENS_MAX),
    TS_F_SPAN(msg_tokenize_reply, text, DETOKENIZED_BYTES_MAX),
};
const struct ts_schema ts_msg_tokenize_reply_schema =
    TS_SCHEMA(msg_tokenize_reply, "TokenizeReply", tokenize_reply_fields);
