#include "common/core/ts_msg.h"

#include "common/base/ts_assert.h"
#include "common/core/ts_schema_table.h"

static const struct ts_field msg_fields[] = {
#define MSG_FIELD(KIND, number, member, suffix) TS_F_CASE(msg, member, number, ts_msg_##suffix##_schema),
    TS_MSG_KINDS(MSG_FIELD)
#undef MSG_FIELD
};

/* Half of the protobuf message Envelope; ts_envelope_schema is the other half. */
const struct ts_schema ts_msg_schema = {
    .name = "Envelope",
    .size = sizeof(struct ts_msg),
    .one_of = true,
    .field_count = TS_ARRAY_SIZE(msg_fields),
    .fields = msg_fields,
};

/* --- names ------------------------------------------------------------------------------------------- */

#define NAME_OF(names, value)                                                                                \
    ((size_t)(value) < TS_ARRAY_SIZE(names) && (names)[value] ? (names)[value] : "unknown")

static const char *const channel_names[] = {
    [TS_CHANNEL_CLIENT] = "client",   [TS_CHANNEL_WORKER] = "worker", [TS_CHANNEL_RELAY] = "relay",
    [TS_CHANNEL_PLANNER] = "planner", [TS_CHANNEL_ADMIN] = "admin",   [TS_CHANNEL_POOL] = "pool",
    [TS_CHANNEL_KV] = "kv",           [TS_CHANNEL_STAGE] = "stage",
};

static const char *const role_names[] = {
    [TS_ROLE_ROUTER] = "router", [TS_ROLE_PLANNER] = "planner", [TS_ROLE_WORKER] = "worker",
    [TS_ROLE_RELAY] = "relay",   [TS_ROLE_CLIENT] = "client",
};

static const char *const phase_names[] = {
    [TS_PHASE_NONE] = "none",
    [TS_PHASE_PREFILL] = "prefill",
    [TS_PHASE_DECODE] = "decode",
    [TS_PHASE_BOTH] = "both",
};

static const char *const finish_names[] = {
    [TS_FINISH_NONE] = "none",           [TS_FINISH_STOP] = "stop",         [TS_FINISH_LENGTH] = "length",
    [TS_FINISH_CANCELLED] = "cancelled", [TS_FINISH_DEADLINE] = "deadline", [TS_FINISH_ERROR] = "error",
};

static const char *const reason_names[] = {
    [TS_REASON_NONE] = "none",
    [TS_REASON_BAD_REQUEST] = "bad_request",
    [TS_REASON_ID_CONFLICT] = "id_conflict",
    [TS_REASON_MODEL_UNKNOWN] = "model_unknown",
    [TS_REASON_PROMPT_TOO_LONG] = "prompt_too_long",
    [TS_REASON_QUEUE_FULL] = "queue_full",
    [TS_REASON_CLIENT_LIMIT] = "client_limit",
    [TS_REASON_MEMORY_FULL] = "memory_full",
    [TS_REASON_NO_WORKER] = "no_worker",
    [TS_REASON_DRAINING] = "draining",
    [TS_REASON_BUSY] = "busy",
    [TS_REASON_WRONG_PHASE] = "wrong_phase",
    [TS_REASON_STALE_PLAN] = "stale_plan",
    [TS_REASON_STALE_SNAPSHOT] = "stale_snapshot",
    [TS_REASON_BAD_PLAN] = "bad_plan",
    [TS_REASON_UNSUPPORTED] = "unsupported",
    [TS_REASON_NOT_FOUND] = "not_found",
    [TS_REASON_NO_ASSIGN] = "no_assign",
    [TS_REASON_KV_NO_MEMORY] = "kv_no_memory",
    [TS_REASON_KV_CORRUPT] = "kv_corrupt",
    [TS_REASON_KV_MISMATCH] = "kv_mismatch",
    [TS_REASON_KV_TIMEOUT] = "kv_timeout",
    [TS_REASON_PREEMPTED] = "preempted",
    [TS_REASON_PEER_LOST] = "peer_lost",
    [TS_REASON_NO_COPY] = "no_copy",
    [TS_REASON_CLIENT_LOST] = "client_lost",
    [TS_REASON_CANCELLED] = "cancelled",
    [TS_REASON_DEADLINE] = "deadline",
    [TS_REASON_FINISHED] = "finished",
    [TS_REASON_RETRIES] = "retries",
    [TS_REASON_ENGINE] = "engine",
    [TS_REASON_INTERNAL] = "internal",
    [TS_REASON_OVERLOADED] = "overloaded",
};

_Static_assert(TS_ARRAY_SIZE(channel_names) == TS_CHANNEL_LAST + 1, "a channel without a name");
_Static_assert(TS_ARRAY_SIZE(role_names) == TS_ROLE_LAST + 1, "a role without a name");
_Static_assert(TS_ARRAY_SIZE(finish_names) == TS_FINISH_LAST + 1, "a finish without a name");
_Static_assert(TS_ARRAY_SIZE(reason_names) == TS_REASON_LAST + 1, "a reason without a name");

const char *ts_channel_name(enum ts_channel channel)
{
    return NAME_OF(channel_names, channel);
}

const char *ts_role_name(enum ts_role role)
{
    return NAME_OF(role_names, role);
}

const char *ts_phase_name(enum ts_phase phase)
{
    return NAME_OF(phase_names, phase);
}

const char *ts_finish_name(enum ts_finish finish)
{
    return NAME_OF(finish_names, finish);
}

const char *ts_reason_name(enum ts_reason reason)
{
    return NAME_OF(reason_names, reason);
}

const char *ts_msg_name(enum ts_msg_kind kind)
{
    switch (kind) {
#define MSG_NAME(KIND, number, member, suffix)                                                               \
    case TS_MSG_##KIND:                                                                                      \
        return #member;
        TS_MSG_KINDS(MSG_NAME)
#undef MSG_NAME
    default:
        return "unknown";
    }
}

/* --- channels ---------------------------------------------------------------------------------------- */

#define ON(channel) (1u << TS_CHANNEL_##channel)
#define SESSIONS    (ON(WORKER) | ON(RELAY) | ON(PLANNER) | ON(POOL) | ON(KV) | ON(STAGE))

/* Both directions of a channel: which end may send what is the state machine's business. */
static const uint32_t msg_channels[] = {
    [TS_MSG_HELLO] = SESSIONS,
    [TS_MSG_WELCOME] = SESSIONS,
    [TS_MSG_HEARTBEAT] = SESSIONS | ON(CLIENT),
    [TS_MSG_RESET] = SESSIONS,
    [TS_MSG_RESYNC] = ON(WORKER),
    [TS_MSG_RESYNC_REPLY] = ON(WORKER),
    [TS_MSG_GENERATE] = ON(CLIENT),
    [TS_MSG_ACCEPTED] = ON(CLIENT),
    [TS_MSG_REFUSED] = ON(CLIENT) | ON(ADMIN),
    [TS_MSG_TOKENS] = ON(CLIENT),
    [TS_MSG_END] = ON(CLIENT),
    [TS_MSG_CANCEL] = ON(CLIENT),
    [TS_MSG_TOKENIZE] = ON(CLIENT) | ON(WORKER),
    [TS_MSG_DETOKENIZE] = ON(CLIENT) | ON(WORKER),
    [TS_MSG_TOKENIZE_REPLY] = ON(CLIENT) | ON(WORKER),
    [TS_MSG_TOKENS_BATCH] = ON(CLIENT),
    [TS_MSG_ASSIGN] = ON(WORKER),
    [TS_MSG_ASSIGN_REFUSED] = ON(WORKER),
    [TS_MSG_RELEASE] = ON(WORKER) | ON(RELAY) | ON(POOL),
    [TS_MSG_OUTPUT] = ON(WORKER),
    [TS_MSG_ATTEMPT_FAILED] = ON(WORKER),
    [TS_MSG_REPORT] = ON(WORKER),
    [TS_MSG_CONFIGURE] = ON(WORKER),
    [TS_MSG_SET_PHASE] = ON(WORKER) | ON(ADMIN),
    [TS_MSG_PHASE_REPLY] = ON(WORKER) | ON(ADMIN),
    [TS_MSG_DRAIN] = ON(WORKER) | ON(RELAY) | ON(PLANNER) | ON(ADMIN),
    [TS_MSG_LINK_REPORT] = ON(RELAY),
    [TS_MSG_COPIES] = ON(RELAY),
    [TS_MSG_REFEED] = ON(RELAY),
    [TS_MSG_TRANSFER] = ON(RELAY),
    [TS_MSG_OUTPUT_BATCH] = ON(WORKER),
    [TS_MSG_LINK_TEST] = ON(RELAY) | ON(ADMIN),
    [TS_MSG_LINK_TEST_REPLY] = ON(RELAY) | ON(ADMIN),
    [TS_MSG_SNAPSHOT] = ON(PLANNER),
    [TS_MSG_UPDATE] = ON(PLANNER),
    [TS_MSG_PLAN] = ON(PLANNER),
    [TS_MSG_PLAN_REPLY] = ON(PLANNER),
    [TS_MSG_STATUS] = ON(CLIENT) | ON(ADMIN),
    [TS_MSG_STATUS_REPLY] = ON(CLIENT) | ON(ADMIN),
    [TS_MSG_WHY] = ON(ADMIN),
    [TS_MSG_WHY_REPLY] = ON(ADMIN),
    [TS_MSG_LINKS] = ON(ADMIN),
    [TS_MSG_LINKS_REPLY] = ON(ADMIN),
    [TS_MSG_POOL] = ON(POOL),
    [TS_MSG_POOL_REPLY] = ON(POOL),
    [TS_MSG_KV_BEGIN] = ON(POOL),
    [TS_MSG_KV_READY] = ON(POOL),
    [TS_MSG_KV_SEAL] = ON(POOL),
    [TS_MSG_KV_FREED] = ON(POOL),
    [TS_MSG_KV_ENCODE] = ON(POOL),
    [TS_MSG_KV_ENCODED] = ON(POOL),
    [TS_MSG_KV_OPEN] = ON(KV),
    [TS_MSG_KV_GRANT] = ON(KV),
    [TS_MSG_KV_CHUNK] = ON(KV),
    [TS_MSG_KV_CREDIT] = ON(KV),
    [TS_MSG_KV_END] = ON(KV),
    [TS_MSG_KV_COMMIT] = ON(KV),
    [TS_MSG_KV_DONE] = ON(KV),
    [TS_MSG_KV_NACK] = ON(KV),
    [TS_MSG_KV_ABORT] = ON(KV),
    [TS_MSG_KV_PROBE] = ON(KV),
    [TS_MSG_ACTIVATIONS] = ON(STAGE),
    [TS_MSG_TOKEN_RETURN] = ON(STAGE),
};

bool ts_msg_allowed(enum ts_channel channel, enum ts_msg_kind kind)
{
    if ((size_t)kind >= TS_ARRAY_SIZE(msg_channels) || (unsigned)channel > TS_CHANNEL_LAST)
        return false;
    return (msg_channels[kind] >> channel & 1) != 0;
}
