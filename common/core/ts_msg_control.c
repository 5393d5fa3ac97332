/* Tables of the messages of sessions, and of a router with workers, relays and operators. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

#define ENDPOINT_BYTES_MAX TS_TEXT_BYTES_MAX

/* --- sessions ------------------------------------------------------------------------------------------- */

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
    TS_F_LIST(profile, stages, TS_STAGE_ITEMS_MAX, ts_stage_item_schema),
    TS_F(profile, batches_max),
    TS_F_ID(profile, kv_codec),
    TS_F_TEXT(profile, kv_codec_why),
    TS_F_LIST(profile, measured, 1, ts_measured_schema),
};
static const struct ts_schema profile_schema = TS_SCHEMA(profile, "Profile", profile_fields);

static const struct ts_field hello_fields[] = {
    TS_F_ENUM(msg_hello, role, TS_ROLE_LAST),
    TS_F_ID(msg_hello, id),
    TS_F_ID(msg_hello, host),
    TS_F_ID(msg_hello, version),
    TS_F(msg_hello, pid),
    TS_F_MSG(msg_hello, profile, profile_schema),
    TS_F(msg_hello, link_tests),
};
const struct ts_schema ts_msg_hello_schema = TS_SCHEMA(msg_hello, "Hello", hello_fields);

static const struct ts_field welcome_fields[] = {
    TS_F_ID(msg_welcome, id),      TS_F(msg_welcome, session), TS_F(msg_welcome, heartbeat_ms),
    TS_F(msg_welcome, timeout_ms), TS_F(msg_welcome, term),    TS_F(msg_welcome, output_batches),
    TS_F(msg_welcome, probes),     TS_F(msg_welcome, lanes),
};
const struct ts_schema ts_msg_welcome_schema = TS_SCHEMA(msg_welcome, "Welcome", welcome_fields);

static const struct ts_field heartbeat_fields[] = {TS_F_MSG(msg_heartbeat, load, ts_load_schema)};
const struct ts_schema ts_msg_heartbeat_schema = TS_SCHEMA(msg_heartbeat, "Heartbeat", heartbeat_fields);

static const struct ts_field reset_fields[] = {
    TS_F(msg_reset, fenced),
    TS_F_ENUM(msg_reset, reason, TS_REASON_LAST),
    TS_F(msg_reset, incarnation),
    TS_F(msg_reset, session),
};
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

/* --- worker control ------------------------------------------------------------------------------------- */

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

/* --- relay control -------------------------------------------------------------------------------------- */

static const struct ts_field link_report_fields[] = {
    TS_F_LIST(msg_link_report, links, TS_LIST_MAX, ts_link_item_schema)};
const struct ts_schema ts_msg_link_report_schema =
    TS_SCHEMA(msg_link_report, "LinkReport", link_report_fields);

static const struct ts_field link_test_fields[] = {
    TS_F(msg_link_test, id),    TS_F_ID(msg_link_test, from),
    TS_F_ID(msg_link_test, to), TS_F_SPAN(msg_link_test, endpoint, ENDPOINT_BYTES_MAX),
    TS_F(msg_link_test, bytes),
};
const struct ts_schema ts_msg_link_test_schema = TS_SCHEMA(msg_link_test, "LinkTest", link_test_fields);

static const struct ts_field link_test_reply_fields[] = {
    TS_F(msg_link_test_reply, id),
    TS_F_ENUM(msg_link_test_reply, reason, TS_REASON_LAST),
    TS_F_TEXT(msg_link_test_reply, text),
    TS_F_MSG(msg_link_test_reply, link, ts_link_item_schema),
};
const struct ts_schema ts_msg_link_test_reply_schema =
    TS_SCHEMA(msg_link_test_reply, "LinkTestReply", link_test_reply_fields);

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

/* --- admin ---------------------------------------------------------------------------------------------- */

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
    TS_F_MSG(service_status, load, ts_load_schema),
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

static const struct ts_field links_fields[] = {TS_F(msg_links, id)};
const struct ts_schema ts_msg_links_schema = TS_SCHEMA(msg_links, "Links", links_fields);

static const struct ts_field links_reply_fields[] = {
    TS_F(msg_links_reply, id),
    TS_F_LIST(msg_links_reply, links, TS_LIST_MAX, ts_link_item_schema),
};
const struct ts_schema ts_msg_links_reply_schema =
    TS_SCHEMA(msg_links_reply, "LinksReply", links_reply_fields);

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
