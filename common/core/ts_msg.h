/*
 * Every message that crosses a socket, as our own plain structs: one header for each .proto file (proto/),
 * which mirrors it field by field, with the schema tables beside it, and here what joins them. A
 * message travels in an envelope; bulk bytes (prompt, KV chunk, activations) follow as one raw frame and are
 * never inside a message: cores see them as struct ts_bulk handles.
 *
 * Times in messages are durations or remaining times, never stamps of another process's clock. Spans are
 * borrowed (ts_schema.h).
 */
#ifndef TS_CORE_MSG_H
#define TS_CORE_MSG_H

#include "common/core/ts_msg_common.h"
#include "common/core/ts_msg_control.h"
#include "common/core/ts_msg_kv.h"
#include "common/core/ts_msg_plan.h"
#include "common/core/ts_msg_request.h"
#include "common/core/ts_schema.h"
#include "common/core/ts_terms.h"

#define TS_PROTOCOL_VERSION 1

/* Kinds are the field numbers of the one-of in proto/ts_envelope.proto: never renumber. X(KIND, number,
 * member, struct suffix) */
#define TS_MSG_KINDS(X)                                                                                      \
    X(HELLO, 10, hello, hello)                                                                               \
    X(WELCOME, 11, welcome, welcome)                                                                         \
    X(HEARTBEAT, 12, heartbeat, heartbeat)                                                                   \
    X(RESET, 13, reset, reset)                                                                               \
    X(RESYNC, 14, resync, resync)                                                                            \
    X(RESYNC_REPLY, 15, resync_reply, resync_reply)                                                          \
    X(GENERATE, 20, generate, generate)                                                                      \
    X(ACCEPTED, 21, accepted, accepted)                                                                      \
    X(REFUSED, 22, refused, refused)                                                                         \
    X(TOKENS, 23, tokens, tokens)                                                                            \
    X(END, 24, end, end)                                                                                     \
    X(CANCEL, 25, cancel, cancel)                                                                            \
    X(TOKENIZE, 26, tokenize, tokenize)                                                                      \
    X(DETOKENIZE, 27, detokenize, detokenize)                                                                \
    X(TOKENIZE_REPLY, 28, tokenize_reply, tokenize_reply)                                                    \
    X(TOKENS_BATCH, 29, tokens_batch, tokens_batch)                                                          \
    X(ASSIGN, 30, assign, assign)                                                                            \
    X(ASSIGN_REFUSED, 31, assign_refused, assign_refused)                                                    \
    X(RELEASE, 32, release, release)                                                                         \
    X(OUTPUT, 33, output, output)                                                                            \
    X(ATTEMPT_FAILED, 34, attempt_failed, attempt_failed)                                                    \
    X(REPORT, 35, report, report)                                                                            \
    X(CONFIGURE, 36, configure, configure)                                                                   \
    X(SET_PHASE, 37, set_phase, set_phase)                                                                   \
    X(PHASE_REPLY, 38, phase_reply, phase_reply)                                                             \
    X(DRAIN, 39, drain, drain)                                                                               \
    X(LINK_REPORT, 40, link_report, link_report)                                                             \
    X(COPIES, 41, copies, copies)                                                                            \
    X(REFEED, 42, refeed, refeed)                                                                            \
    X(TRANSFER, 43, transfer, transfer)                                                                      \
    X(OUTPUT_BATCH, 44, output_batch, output_batch)                                                          \
    X(LINK_TEST, 45, link_test, link_test)                                                                   \
    X(LINK_TEST_REPLY, 46, link_test_reply, link_test_reply)                                                 \
    X(SNAPSHOT, 50, snapshot, snapshot)                                                                      \
    X(UPDATE, 51, update, snapshot)                                                                          \
    X(PLAN, 52, plan, plan)                                                                                  \
    X(PLAN_REPLY, 53, plan_reply, plan_reply)                                                                \
    X(STATUS, 60, status, status)                                                                            \
    X(STATUS_REPLY, 61, status_reply, status_reply)                                                          \
    X(WHY, 62, why, why)                                                                                     \
    X(WHY_REPLY, 63, why_reply, why_reply)                                                                   \
    X(LINKS, 64, links, links)                                                                               \
    X(LINKS_REPLY, 65, links_reply, links_reply)                                                             \
    X(POOL, 70, pool, pool)                                                                                  \
    X(POOL_REPLY, 71, pool_reply, pool_reply)                                                                \
    X(KV_BEGIN, 72, kv_begin, kv_begin)                                                                      \
    X(KV_READY, 73, kv_ready, kv_ready)                                                                      \
    X(KV_SEAL, 74, kv_seal, kv_seal)                                                                         \
    X(KV_FREED, 75, kv_freed, kv_freed)                                                                      \
    X(KV_ENCODE, 76, kv_encode, kv_encode)                                                                   \
    X(KV_ENCODED, 77, kv_encoded, kv_encoded)                                                                \
    X(KV_OPEN, 80, kv_open, kv_open)                                                                         \
    X(KV_GRANT, 81, kv_grant, kv_grant)                                                                      \
    X(KV_CHUNK, 82, kv_chunk, kv_chunk)                                                                      \
    X(KV_CREDIT, 83, kv_credit, kv_credit)                                                                   \
    X(KV_END, 84, kv_end, kv_end)                                                                            \
    X(KV_COMMIT, 85, kv_commit, kv_commit)                                                                   \
    X(KV_DONE, 86, kv_done, kv_done)                                                                         \
    X(KV_NACK, 87, kv_nack, kv_nack)                                                                         \
    X(KV_ABORT, 88, kv_abort, kv_abort)                                                                      \
    X(KV_PROBE, 89, kv_probe, kv_probe)                                                                      \
    X(ACTIVATIONS, 90, activations, activations)                                                             \
    X(TOKEN_RETURN, 91, token_return, token_return)

enum ts_msg_kind {
    TS_MSG_NONE = 0,
#define TS_MSG_ENUM(KIND, number, member, suffix) TS_MSG_##KIND = (number),
    TS_MSG_KINDS(TS_MSG_ENUM)
#undef TS_MSG_ENUM
};

struct ts_msg {
    enum ts_msg_kind kind;
    union {
#define TS_MSG_MEMBER(KIND, number, member, suffix) struct ts_msg_##suffix member;
        TS_MSG_KINDS(TS_MSG_MEMBER)
#undef TS_MSG_MEMBER
    };
};

extern const struct ts_schema ts_msg_schema; /* one-of over all kinds */
extern const struct ts_schema ts_envelope_schema;
extern const struct ts_schema ts_rid_schema;
extern const struct ts_schema ts_bulk_schema;
extern const struct ts_schema ts_trace_schema;
extern const struct ts_schema ts_sampling_schema;
extern const struct ts_schema ts_stop_schema;
extern const struct ts_schema ts_token_item_schema;

const char *ts_msg_name(enum ts_msg_kind kind); /* "hello", ...; "unknown" */
/* Whether this kind may arrive on this channel: anything else is counted and refused. */
bool ts_msg_allowed(enum ts_channel channel, enum ts_msg_kind kind);

#endif
