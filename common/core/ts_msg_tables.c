/* One table for each struct of ts_msg_*.h. `max` values that are not obvious are explained where they are
 * defined. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

#define STOP_BYTES_MAX       256
#define TOKEN_TEXT_BYTES_MAX 4096
#define ENDPOINT_BYTES_MAX   TS_TEXT_BYTES_MAX
#define BLOCKS_MAX           (1u << 20)
/* Text of a detokenise reply: as many bytes as a prompt may have tokens, a few bytes each. */
#define DETOKENIZED_BYTES_MAX (4u << 20)

/* --- shared parts -------------------------------------------------------------------------------------- */

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
    TS_F(load, waiting),       TS_F(load, running),     TS_F(load, kv_blocks_used), TS_F(load, kv_blocks),
    TS_F(load, queued_tokens), TS_F(load, done_tokens), TS_F(load, encoded_bytes),
};
static const struct ts_schema load_schema = TS_SCHEMA(load, "Load", load_fields);

/* --- sessions ------------------------------------------------------------------------------------------ */

static const struct ts_field stage_item_fields[] = {
    TS_F_ID(stage_item, device),
    TS_F_ID(stage_item, host),
    TS_F(stage_item, tp),
    TS_F(stage_item, layers),
};
static const struct ts_schema stage_item_schema = TS_SCHEMA(stage_item, "StageItem", stage_item_fields);

static const struct ts_field profile_fields[] = {
    TS_F(profile, phases),
    TS_F_ENUM(profile, phase, TS_PHASE_BOTH),
    TS_F_ID(profile, model),
    TS_F_ID(profile, device),
    TS_F(profile, fingerprint),
    TS_F(profile, layers),
    TS_F(profile, kv_heads),
    TS_F(profile, head_dim),
    TS_F(profile, vocab),
    TS_F(profile, context_tokens),
    TS_F(profile, kv_dtype),
    TS_F(profile, layer_begin),
    TS_F(profile, layer_end),
    TS_F(profile, head_begin),
    TS_F(profile, head_end),
    TS_F(profile, kv_blocks),
    TS_F(profile, max_rows),
    TS_F(profile, max_batch_tokens),
    TS_F(profile, tokenizer),
    TS_F(profile, modelled),
    TS_F_SPAN(profile, kv_endpoint, ENDPOINT_BYTES_MAX),
    TS_F_ID(profile, relay),
    TS_F(profile, bytes_per_token),
    TS_F_MSG(profile, defaults, ts_sampling_schema),
    TS_F(profile, hidden),
    TS_F(profile, intermediate),
    TS_F(profile, heads),
    TS_F_LIST(profile, stages, TS_STAGE_ITEMS_MAX, stage_item_schema),
    TS_F(profile, batches_max),
};
static const struct ts_schema profile_schema = TS_SCHEMA(profile, "Profile", profile_fields);

static const struct ts_field hello_fields[] = {
    TS_F_ENUM(msg_hello, role, TS_ROLE_LAST),
    TS_F_ID(msg_hello, id),
    TS_F_ID(msg_hello, host),
    TS_F_ID(msg_hello, version),
    TS_F(msg_hello, pid),
    TS_F_MSG(msg_hello, profile, profile_schema),
};
const struct ts_schema ts_msg_hello_schema = TS_SCHEMA(msg_hello, "Hello", hello_fields);

static const struct ts_field welcome_fields[] = {
    TS_F_ID(msg_welcome, id),      TS_F(msg_welcome, session), TS_F(msg_welcome, heartbeat_ms),
    TS_F(msg_welcome, timeout_ms), TS_F(msg_welcome, term),    TS_F(msg_welcome, output_batches),
};
const struct ts_schema ts_msg_welcome_schema = TS_SCHEMA(msg_welcome, "Welcome", welcome_fields);

static const struct ts_field heartbeat_fields[] = {TS_F_MSG(msg_heartbeat, load, load_schema)};
const struct ts_schema ts_msg_heartbeat_schema = TS_SCHEMA(msg_heartbeat, "Heartbeat", heartbeat_fields);

static const struct ts_field reset_fields[] = {TS_F(msg_reset, fenced),
                                               TS_F_ENUM(msg_reset, reason, TS_REASON_LAST)};
const struct ts_schema ts_msg_reset_schema = TS_SCHEMA(msg_reset, "Reset", reset_fields);

static const struct ts_field resync_item_fields[] = {
    TS_F_MSG(resync_item, rid, ts_rid_schema),
    TS_F_ENUM(resync_item, role, TS_PHASE_BOTH),
    TS_F(resync_item, next_index),
};
static const struct ts_schema resync_item_schema = TS_SCHEMA(resync_item, "ResyncItem", resync_item_fields);

static const struct ts_field resync_fields[] = {
    TS_F_LIST(msg_resync, items, TS_LIST_MAX, resync_item_schema)};
const struct ts_schema ts_msg_resync_schema = TS_SCHEMA(msg_resync, "Resync", resync_fields);

static const struct ts_field resync_answer_fields[] = {
    TS_F_MSG(resync_answer, rid, ts_rid_schema),
    TS_F_ENUM(resync_answer, role, TS_PHASE_BOTH),
    TS_F_ENUM(resync_answer, verdict, TS_RESYNC_LAST),
    TS_F(resync_answer, from_index),
};
static const struct ts_schema resync_answer_schema =
    TS_SCHEMA(resync_answer, "ResyncAnswer", resync_answer_fields);

static const struct ts_field resync_reply_fields[] = {
    TS_F_LIST(msg_resync_reply, items, TS_LIST_MAX, resync_answer_schema)};
const struct ts_schema ts_msg_resync_reply_schema =
    TS_SCHEMA(msg_resync_reply, "ResyncReply", resync_reply_fields);

/* --- client channel ------------------------------------------------------------------------------------ */

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

/* --- worker control ------------------------------------------------------------------------------------ */

static const struct ts_field assign_fields[] = {
    TS_F_MSG(msg_assign, rid, ts_rid_schema),
    TS_F_ENUM(msg_assign, role, TS_PHASE_BOTH),
    TS_F(msg_assign, term),
    TS_F(msg_assign, plan),
    TS_F_ENUM(msg_assign, prompt_kind, TS_PROMPT_LAST),
    TS_F_MSG(msg_assign, sampling, ts_sampling_schema),
    TS_F_LIST(msg_assign, stops, TS_STOPS_MAX, ts_stop_schema),
    TS_F(msg_assign, remaining_ms),
    TS_F(msg_assign, age_ms),
    TS_F_ID(msg_assign, codec),
    TS_F(msg_assign, fingerprint),
    TS_F_SPAN(msg_assign, produced, TS_PROMPT_TOKENS_MAX),
    TS_F_ID(msg_assign, decode),
    TS_F_SPAN(msg_assign, decode_endpoint, ENDPOINT_BYTES_MAX),
    TS_F(msg_assign, decode_incarnation),
};
const struct ts_schema ts_msg_assign_schema = TS_SCHEMA(msg_assign, "Assign", assign_fields);

static const struct ts_field assign_refused_fields[] = {
    TS_F_MSG(msg_assign_refused, rid, ts_rid_schema),
    TS_F_ENUM(msg_assign_refused, role, TS_PHASE_BOTH),
    TS_F_ENUM(msg_assign_refused, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_assign_refused, text),
};
const struct ts_schema ts_msg_assign_refused_schema =
    TS_SCHEMA(msg_assign_refused, "AssignRefused", assign_refused_fields);

static const struct ts_field release_fields[] = {
    TS_F_MSG(msg_release, rid, ts_rid_schema),
    TS_F_ENUM(msg_release, reason, TS_REASON_LAST),
};
const struct ts_schema ts_msg_release_schema = TS_SCHEMA(msg_release, "Release", release_fields);

static const struct ts_field output_fields[] = {
    TS_F_MSG(msg_output, rid, ts_rid_schema),
    TS_F_ENUM(msg_output, role, TS_PHASE_BOTH),
    TS_F(msg_output, first_index),
    TS_F_LIST(msg_output, items, TS_LIST_MAX, ts_token_item_schema),
    TS_F_ENUM(msg_output, finish, TS_FINISH_LAST),
};
const struct ts_schema ts_msg_output_schema = TS_SCHEMA(msg_output, "Output", output_fields);

static const struct ts_field output_batch_fields[] = {
    TS_F_LIST(msg_output_batch, outputs, TS_LIST_MAX, ts_msg_output_schema)};
const struct ts_schema ts_msg_output_batch_schema =
    TS_SCHEMA(msg_output_batch, "OutputBatch", output_batch_fields);

static const struct ts_field attempt_failed_fields[] = {
    TS_F_MSG(msg_attempt_failed, rid, ts_rid_schema),
    TS_F_ENUM(msg_attempt_failed, role, TS_PHASE_BOTH),
    TS_F_ENUM(msg_attempt_failed, reason, TS_REASON_LAST),
    TS_F(msg_attempt_failed, final),
    TS_F_TEXT(msg_attempt_failed, text),
};
const struct ts_schema ts_msg_attempt_failed_schema =
    TS_SCHEMA(msg_attempt_failed, "AttemptFailed", attempt_failed_fields);

static const struct ts_field report_fields[] = {
    TS_F_MSG(msg_report, rid, ts_rid_schema),
    TS_F_ENUM(msg_report, role, TS_PHASE_BOTH),
    TS_F(msg_report, prompt_tokens),
    TS_F(msg_report, queue_ns),
    TS_F(msg_report, run_ns),
    TS_F(msg_report, kv_bytes_raw),
    TS_F(msg_report, kv_bytes_sent),
    TS_F_ID(msg_report, relay),
};
const struct ts_schema ts_msg_report_schema = TS_SCHEMA(msg_report, "Report", report_fields);

static const struct ts_field configure_fields[] = {
    TS_F(msg_configure, term),
    TS_F(msg_configure, plan),
    TS_F_ID(msg_configure, model),
    TS_F(msg_configure, replica),
    TS_F(msg_configure, stage),
    TS_F(msg_configure, layer_begin),
    TS_F(msg_configure, layer_end),
    TS_F(msg_configure, tp),
    TS_F_ENUM(msg_configure, phase, TS_PHASE_BOTH),
};
const struct ts_schema ts_msg_configure_schema = TS_SCHEMA(msg_configure, "Configure", configure_fields);

static const struct ts_field set_phase_fields[] = {
    TS_F(msg_set_phase, term),
    TS_F(msg_set_phase, plan),
    TS_F_ENUM(msg_set_phase, phase, TS_PHASE_BOTH),
    TS_F_ID(msg_set_phase, service),
};
const struct ts_schema ts_msg_set_phase_schema = TS_SCHEMA(msg_set_phase, "SetPhase", set_phase_fields);

static const struct ts_field phase_reply_fields[] = {
    TS_F(msg_phase_reply, term),
    TS_F(msg_phase_reply, plan),
    TS_F_ENUM(msg_phase_reply, phase, TS_PHASE_BOTH),
    TS_F_ENUM(msg_phase_reply, reason, TS_REASON_LAST),
};
const struct ts_schema ts_msg_phase_reply_schema =
    TS_SCHEMA(msg_phase_reply, "PhaseReply", phase_reply_fields);

static const struct ts_field drain_fields[] = {TS_F_ID(msg_drain, service)};
const struct ts_schema ts_msg_drain_schema = TS_SCHEMA(msg_drain, "Drain", drain_fields);

/* --- relay control ------------------------------------------------------------------------------------- */

static const struct ts_field link_item_fields[] = {
    TS_F_ID(link_item, from), TS_F_ID(link_item, to), TS_F(link_item, goodput_bytes_per_s),
    TS_F(link_item, rtt_ns),  TS_F(link_item, bytes),
};
static const struct ts_schema link_item_schema = TS_SCHEMA(link_item, "LinkItem", link_item_fields);

static const struct ts_field link_report_fields[] = {
    TS_F_LIST(msg_link_report, links, TS_LIST_MAX, link_item_schema)};
const struct ts_schema ts_msg_link_report_schema =
    TS_SCHEMA(msg_link_report, "LinkReport", link_report_fields);

static const struct ts_field copy_item_fields[] = {
    TS_F_MSG(copy_item, rid, ts_rid_schema),
    TS_F(copy_item, bytes),
    TS_F(copy_item, whole),
};
static const struct ts_schema copy_item_schema = TS_SCHEMA(copy_item, "CopyItem", copy_item_fields);

static const struct ts_field copies_fields[] = {TS_F_LIST(msg_copies, items, TS_LIST_MAX, copy_item_schema)};
const struct ts_schema ts_msg_copies_schema = TS_SCHEMA(msg_copies, "Copies", copies_fields);

static const struct ts_field refeed_fields[] = {
    TS_F_MSG(msg_refeed, from, ts_rid_schema),
    TS_F_MSG(msg_refeed, rid, ts_rid_schema),
    TS_F_ID(msg_refeed, decode),
    TS_F_SPAN(msg_refeed, endpoint, ENDPOINT_BYTES_MAX),
    TS_F(msg_refeed, decode_incarnation),
};
const struct ts_schema ts_msg_refeed_schema = TS_SCHEMA(msg_refeed, "Refeed", refeed_fields);

static const struct ts_field transfer_fields[] = {
    TS_F_MSG(msg_transfer, rid, ts_rid_schema),
    TS_F_ENUM(msg_transfer, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_transfer, text),
    TS_F(msg_transfer, bytes_raw),
    TS_F(msg_transfer, bytes_sent),
    TS_F(msg_transfer, run_ns),
};
const struct ts_schema ts_msg_transfer_schema = TS_SCHEMA(msg_transfer, "Transfer", transfer_fields);

/* --- planner ------------------------------------------------------------------------------------------- */

static const struct ts_field plan_worker_fields[] = {
    TS_F_ID(plan_worker, id),
    TS_F_ID(plan_worker, host),
    TS_F_ID(plan_worker, model),
    TS_F_ID(plan_worker, relay),
    TS_F(plan_worker, incarnation),
    TS_F(plan_worker, phases),
    TS_F_ENUM(plan_worker, phase, TS_PHASE_BOTH),
    TS_F(plan_worker, ready),
    TS_F(plan_worker, draining),
    TS_F_MSG(plan_worker, load, load_schema),
    TS_F_ID(plan_worker, device),
    TS_F(plan_worker, layers),
    TS_F(plan_worker, hidden),
    TS_F(plan_worker, intermediate),
    TS_F(plan_worker, heads),
    TS_F(plan_worker, kv_heads),
    TS_F(plan_worker, head_dim),
    TS_F(plan_worker, vocab),
    TS_F(plan_worker, kv_dtype),
    TS_F(plan_worker, kv_blocks),
    TS_F_LIST(plan_worker, stages, TS_STAGE_ITEMS_MAX, stage_item_schema),
};
static const struct ts_schema plan_worker_schema = TS_SCHEMA(plan_worker, "PlanWorker", plan_worker_fields);

static const struct ts_field workload_class_fields[] = {
    TS_F(workload_class, rate),
    TS_F(workload_class, prompt_tokens),
    TS_F(workload_class, prompt_tokens_sq),
    TS_F(workload_class, output_tokens),
    TS_F(workload_class, output_tokens_sq),
    TS_F(workload_class, prompt_begin),
    TS_F(workload_class, prompt_end),
};
static const struct ts_schema workload_class_schema =
    TS_SCHEMA(workload_class, "WorkloadClass", workload_class_fields);

static const struct ts_field workload_fields[] = {
    TS_F(workload, arrivals_per_s),
    TS_F(workload, prompt_tokens_mean),
    TS_F(workload, output_tokens_mean),
    TS_F(workload, queued),
    TS_F(workload, running),
    TS_F(workload, window_s),
    TS_F(workload, burst),
    TS_F(workload, refused_per_s),
    TS_F(workload, attained),
    TS_F_LIST(workload, classes, TS_WORKLOAD_CLASSES_MAX, workload_class_schema),
};
static const struct ts_schema workload_schema = TS_SCHEMA(workload, "Workload", workload_fields);

static const struct ts_field snapshot_fields[] = {
    TS_F(msg_snapshot, version),
    TS_F_LIST(msg_snapshot, workers, TS_LIST_MAX, plan_worker_schema),
    TS_F_LIST(msg_snapshot, links, TS_LIST_MAX, link_item_schema),
    TS_F_MSG(msg_snapshot, workload, workload_schema),
    TS_F(msg_snapshot, term),
    TS_F(msg_snapshot, number),
    TS_F_ID(msg_snapshot, holder),
};
const struct ts_schema ts_msg_snapshot_schema = TS_SCHEMA(msg_snapshot, "Snapshot", snapshot_fields);

static const struct ts_field plan_replica_fields[] = {
    TS_F(plan_replica, id),
    TS_F_ID(plan_replica, worker),
    TS_F_ENUM(plan_replica, phase, TS_PHASE_BOTH),
};
static const struct ts_schema plan_replica_schema =
    TS_SCHEMA(plan_replica, "PlanReplica", plan_replica_fields);

static const struct ts_field plan_class_fields[] = {
    TS_F(plan_class, prompt_tokens),
    TS_F(plan_class, output_tokens),
    TS_F(plan_class, prompt_begin),
    TS_F(plan_class, prompt_end),
};
static const struct ts_schema plan_class_schema = TS_SCHEMA(plan_class, "PlanClass", plan_class_fields);

static const struct ts_field plan_share_fields[] = {
    TS_F(plan_share, prefill), TS_F(plan_share, decode),   TS_F(plan_share, length_class),
    TS_F(plan_share, share),   TS_F_ID(plan_share, codec),
};
static const struct ts_schema plan_share_schema = TS_SCHEMA(plan_share, "PlanShare", plan_share_fields);

static const struct ts_field plan_fields[] = {
    TS_F(msg_plan, term),
    TS_F(msg_plan, number),
    TS_F_ID(msg_plan, planner),
    TS_F_ID(msg_plan, algorithm),
    TS_F(msg_plan, snapshot_version),
    TS_F_LIST(msg_plan, replicas, TS_LIST_MAX, plan_replica_schema),
    TS_F_LIST(msg_plan, shares, TS_LIST_MAX, plan_share_schema),
    TS_F(msg_plan, attainment),
    TS_F_TEXT(msg_plan, binding),
    TS_F_LIST(msg_plan, classes, TS_WORKLOAD_CLASSES_MAX, plan_class_schema),
    TS_F(msg_plan, served_per_s),
};
const struct ts_schema ts_msg_plan_schema = TS_SCHEMA(msg_plan, "Plan", plan_fields);

static const struct ts_field plan_reply_fields[] = {
    TS_F(msg_plan_reply, term),
    TS_F(msg_plan_reply, number),
    TS_F_ENUM(msg_plan_reply, verdict, TS_PLAN_VERDICT_LAST),
    TS_F_ENUM(msg_plan_reply, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_plan_reply, text),
};
const struct ts_schema ts_msg_plan_reply_schema = TS_SCHEMA(msg_plan_reply, "PlanReply", plan_reply_fields);

/* --- admin --------------------------------------------------------------------------------------------- */

static const struct ts_field status_fields[] = {TS_F(msg_status, id)};
const struct ts_schema ts_msg_status_schema = TS_SCHEMA(msg_status, "Status", status_fields);

static const struct ts_field service_status_fields[] = {
    TS_F_ID(service_status, id),
    TS_F_ENUM(service_status, role, TS_ROLE_LAST),
    TS_F_ENUM(service_status, phase, TS_PHASE_BOTH),
    TS_F(service_status, pid),
    TS_F(service_status, incarnation),
    TS_F(service_status, ready),
    TS_F(service_status, draining),
    TS_F_MSG(service_status, load, load_schema),
};
static const struct ts_schema service_status_schema =
    TS_SCHEMA(service_status, "ServiceStatus", service_status_fields);

static const struct ts_field status_reply_fields[] = {
    TS_F(msg_status_reply, id),
    TS_F_LIST(msg_status_reply, services, TS_LIST_MAX, service_status_schema),
    TS_F(msg_status_reply, queued),
    TS_F(msg_status_reply, running),
    TS_F(msg_status_reply, accepted),
    TS_F(msg_status_reply, refused),
    TS_F(msg_status_reply, ended),
    TS_F(msg_status_reply, malformed),
    TS_F(msg_status_reply, term),
    TS_F(msg_status_reply, number),
    TS_F(msg_status_reply, held_bytes),
    TS_F(msg_status_reply, client_most),
    TS_F(msg_status_reply, retries),
    TS_F(msg_status_reply, stale),
};
const struct ts_schema ts_msg_status_reply_schema =
    TS_SCHEMA(msg_status_reply, "StatusReply", status_reply_fields);

static const struct ts_field why_fields[] = {
    TS_F(msg_why, id),
    TS_F_ID(msg_why, client),
    TS_F_ID(msg_why, request_id),
};
const struct ts_schema ts_msg_why_schema = TS_SCHEMA(msg_why, "Why", why_fields);

static const struct ts_field why_reply_fields[] = {
    TS_F(msg_why_reply, id),
    TS_F_ENUM(msg_why_reply, reason, TS_REASON_LAST),
    TS_F_MSG(msg_why_reply, trace, ts_trace_schema),
};
const struct ts_schema ts_msg_why_reply_schema = TS_SCHEMA(msg_why_reply, "WhyReply", why_reply_fields);

/* --- relay pool ---------------------------------------------------------------------------------------- */

static const struct ts_field pool_fields[] = {
    TS_F_TEXT(msg_pool, path),   TS_F(msg_pool, bytes),     TS_F(msg_pool, fingerprint),
    TS_F(msg_pool, layer_begin), TS_F(msg_pool, layer_end), TS_F(msg_pool, head_begin),
    TS_F(msg_pool, head_end),    TS_F(msg_pool, kv_blocks), TS_F(msg_pool, head_dim),
    TS_F(msg_pool, kv_dtype),    TS_F(msg_pool, layers),    TS_F(msg_pool, kv_heads),
};
const struct ts_schema ts_msg_pool_schema = TS_SCHEMA(msg_pool, "Pool", pool_fields);

static const struct ts_field pool_reply_fields[] = {
    TS_F_ENUM(msg_pool_reply, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_pool_reply, text),
};
const struct ts_schema ts_msg_pool_reply_schema = TS_SCHEMA(msg_pool_reply, "PoolReply", pool_reply_fields);

static const struct ts_field kv_begin_fields[] = {
    TS_F_MSG(msg_kv_begin, rid, ts_rid_schema),
    TS_F_ID(msg_kv_begin, decode),
    TS_F_SPAN(msg_kv_begin, endpoint, ENDPOINT_BYTES_MAX),
    TS_F(msg_kv_begin, decode_incarnation),
    TS_F_ID(msg_kv_begin, codec),
    TS_F(msg_kv_begin, token_count),
    TS_F_SPAN(msg_kv_begin, blocks, BLOCKS_MAX),
    TS_F_SPAN(msg_kv_begin, generations, BLOCKS_MAX),
    TS_F_SPAN(msg_kv_begin, chain, TS_LIST_MAX),
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

/* --- KV data ------------------------------------------------------------------------------------------- */

static const struct ts_field kv_open_fields[] = {
    TS_F_MSG(msg_kv_open, rid, ts_rid_schema),
    TS_F(msg_kv_open, fingerprint),
    TS_F(msg_kv_open, decode_incarnation),
    TS_F_ID(msg_kv_open, codec),
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
};
const struct ts_schema ts_msg_kv_open_schema = TS_SCHEMA(msg_kv_open, "KvOpen", kv_open_fields);

static const struct ts_field kv_grant_fields[] = {
    TS_F_MSG(msg_kv_grant, rid, ts_rid_schema),
    TS_F(msg_kv_grant, token_begin),
    TS_F(msg_kv_grant, credit_bytes),
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

/* --- stage link ---------------------------------------------------------------------------------------- */

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
