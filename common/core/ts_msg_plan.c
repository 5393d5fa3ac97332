/* Tables of the messages between router and planner. */
#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

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
    TS_F_MSG(plan_worker, load, ts_load_schema),
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
    TS_F_LIST(plan_worker, stages, TS_STAGE_ITEMS_MAX, ts_stage_item_schema),
    TS_F_LIST(plan_worker, measured, 1, ts_measured_schema),
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
    TS_F_LIST(msg_snapshot, links, TS_LIST_MAX, ts_link_item_schema),
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
