/* Tables of the parts that messages of several channels hold, of envelope and bulk handle. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

#define STOP_BYTES_MAX       256
#define TOKEN_TEXT_BYTES_MAX 4096

static const struct ts_field bulk_fields[] = {TS_F(bulk, slot), TS_F(bulk, generation), TS_F(bulk, bytes)};
const struct ts_schema ts_bulk_schema = TS_SCHEMA(bulk, "Bulk", bulk_fields);

static const struct ts_field rid_fields[] = {TS_F(rid, router), TS_F(rid, request), TS_F(rid, attempt)};
const struct ts_schema ts_rid_schema = TS_SCHEMA(rid, "Rid", rid_fields);

static const struct ts_field envelope_fields[] = {
    TS_F(envelope, version),
    TS_F(envelope, incarnation),
    TS_F(envelope, session),
    TS_F(envelope, seq),
};
const struct ts_schema ts_envelope_schema = TS_SCHEMA(envelope, "Envelope", envelope_fields);

static const struct ts_field sampling_fields[] = {
    TS_F(sampling, temperature),
    TS_F(sampling, top_k),
    TS_F(sampling, top_p),
    TS_F(sampling, min_p),
    TS_F(sampling, repetition_penalty),
    TS_F(sampling, presence_penalty),
    TS_F(sampling, frequency_penalty),
    TS_F(sampling, seed),
    TS_F(sampling, max_tokens),
    TS_F(sampling, min_tokens),
    TS_F(sampling, ignore_eos),
    TS_F(sampling, logprobs),
    TS_F(sampling, given),
};
const struct ts_schema ts_sampling_schema = TS_SCHEMA(sampling, "Sampling", sampling_fields);

static const struct ts_field stop_fields[] = {TS_F_SPAN(stop, text, STOP_BYTES_MAX)};
const struct ts_schema ts_stop_schema = TS_SCHEMA(stop, "Stop", stop_fields);

static const struct ts_field top_fields[] = {TS_F(top, token), TS_F_ANY(top, logprob)};
static const struct ts_schema top_schema = TS_SCHEMA(top, "Top", top_fields);

static const struct ts_field token_item_fields[] = {
    TS_F(token_item, token),
    TS_F_SPAN(token_item, text, TOKEN_TEXT_BYTES_MAX),
    TS_F_ANY(token_item, logprob),
    TS_F_LIST(token_item, top, TS_LOGPROBS_MAX, top_schema),
};
const struct ts_schema ts_token_item_schema = TS_SCHEMA(token_item, "TokenItem", token_item_fields);

static const struct ts_field trace_fields[] = {
    TS_F_ID(trace, client),
    TS_F_ID(trace, request_id),
    TS_F_MSG(trace, rid, ts_rid_schema),
    TS_F_ENUM(trace, finish, TS_FINISH_LAST),
    TS_F_ENUM(trace, reason, TS_REASON_LAST),
    TS_F(trace, prompt_tokens),
    TS_F(trace, output_tokens),
    TS_F(trace, attempts),
    TS_F(trace, term),
    TS_F(trace, plan),
    TS_F_ID(trace, prefill),
    TS_F_ID(trace, relay),
    TS_F_ID(trace, decode),
    TS_F_ID(trace, codec),
    TS_F_TEXT(trace, codec_why),
    TS_F(trace, kv_bytes_raw),
    TS_F(trace, kv_bytes_sent),
    TS_F(trace, assigned_ns),
    TS_F(trace, prefill_begin_ns),
    TS_F(trace, prefill_end_ns),
    TS_F(trace, first_token_ns),
    TS_F(trace, kv_open_ns),
    TS_F(trace, kv_commit_ns),
    TS_F(trace, decode_begin_ns),
    TS_F(trace, end_ns),
};
const struct ts_schema ts_trace_schema = TS_SCHEMA(trace, "Trace", trace_fields);

static const struct ts_field load_fields[] = {
    TS_F(load, waiting),       TS_F(load, running),        TS_F(load, kv_blocks_used),
    TS_F(load, kv_blocks),     TS_F(load, queued_tokens),  TS_F(load, done_tokens),
    TS_F(load, encoded_bytes), TS_F(load, retained_bytes),
};
const struct ts_schema ts_load_schema = TS_SCHEMA(load, "Load", load_fields);

static const struct ts_field stage_item_fields[] = {
    TS_F_ID(stage_item, device),
    TS_F_ID(stage_item, host),
    TS_F(stage_item, tp),
    TS_F(stage_item, layers),
};
const struct ts_schema ts_stage_item_schema = TS_SCHEMA(stage_item, "StageItem", stage_item_fields);

static const struct ts_field measured_fields[] = {
    TS_F(measured, memory_bytes),
    TS_F(measured, product_flops),
    TS_F(measured, attention_flops),
    TS_F(measured, weight_bytes_per_s),
    TS_F(measured, context_bytes_per_s),
    TS_F(measured, layer_s),
    TS_F(measured, step_s),
    TS_F(measured, tokens_half),
    TS_F(measured, upload_bytes_per_s),
    TS_F(measured, download_bytes_per_s),
    TS_F(measured, error),
};
const struct ts_schema ts_measured_schema = TS_SCHEMA(measured, "Measured", measured_fields);

static const struct ts_field link_item_fields[] = {
    TS_F_ID(link_item, from),
    TS_F_ID(link_item, to),
    TS_F(link_item, goodput_bytes_per_s),
    TS_F(link_item, rtt_ns),
    TS_F(link_item, bytes),
    TS_F(link_item, at_least),
    TS_F(link_item, transfers),
    TS_F(link_item, repeats),
    TS_F(link_item, samples),
    TS_F(link_item, expected_bytes_per_s),
    TS_F(link_item, age_ms),
    TS_F(link_item, slow),
};
const struct ts_schema ts_link_item_schema = TS_SCHEMA(link_item, "LinkItem", link_item_fields);
