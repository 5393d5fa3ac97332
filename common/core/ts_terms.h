/*
 * The words that all services share: channels, roles, phases, how a request ends and why. Numbers are on the
 * wire: never renumber. Names are stable: users see them in JSON, logs and metrics.
 */
#ifndef TS_CORE_TERMS_H
#define TS_CORE_TERMS_H

enum ts_channel { /* architecture.md section 5 */
                  TS_CHANNEL_CLIENT = 1,
                  TS_CHANNEL_WORKER,
                  TS_CHANNEL_RELAY,
                  TS_CHANNEL_PLANNER,
                  TS_CHANNEL_ADMIN,
                  TS_CHANNEL_POOL,
                  TS_CHANNEL_KV,
                  TS_CHANNEL_STAGE,
                  TS_CHANNEL_LAST = TS_CHANNEL_STAGE
};

enum ts_role {
    TS_ROLE_ROUTER = 1,
    TS_ROLE_PLANNER,
    TS_ROLE_WORKER,
    TS_ROLE_RELAY,
    TS_ROLE_CLIENT,
    TS_ROLE_LAST = TS_ROLE_CLIENT
};

enum ts_phase {
    TS_PHASE_NONE = 0,
    TS_PHASE_PREFILL = 1,
    TS_PHASE_DECODE = 2,
    TS_PHASE_BOTH = 3
}; /* a bit mask */

enum ts_finish {
    TS_FINISH_NONE = 0,
    TS_FINISH_STOP,
    TS_FINISH_LENGTH,
    TS_FINISH_CANCELLED,
    TS_FINISH_DEADLINE,
    TS_FINISH_ERROR,
    TS_FINISH_LAST = TS_FINISH_ERROR
};

enum ts_reason { /* why something was refused, failed or ended; ts_reason_name gives the stable text */
                 TS_REASON_NONE = 0,
                 TS_REASON_BAD_REQUEST,
                 TS_REASON_ID_CONFLICT, /* same client and request id, another body */
                 TS_REASON_MODEL_UNKNOWN,
                 TS_REASON_PROMPT_TOO_LONG,
                 TS_REASON_QUEUE_FULL,
                 TS_REASON_CLIENT_LIMIT, /* too many in flight for one client */
                 TS_REASON_MEMORY_FULL,  /* bytes of held prompts */
                 TS_REASON_NO_WORKER,
                 TS_REASON_DRAINING,
                 TS_REASON_BUSY,
                 TS_REASON_WRONG_PHASE,
                 TS_REASON_STALE_PLAN,
                 TS_REASON_STALE_SNAPSHOT,
                 TS_REASON_BAD_PLAN,
                 TS_REASON_UNSUPPORTED,
                 TS_REASON_NOT_FOUND,
                 TS_REASON_NO_ASSIGN, /* OPEN without a matching Assign: retryable */
                 TS_REASON_KV_NO_MEMORY,
                 TS_REASON_KV_CORRUPT,
                 TS_REASON_KV_MISMATCH, /* fingerprint, layout or codec differ */
                 TS_REASON_KV_TIMEOUT,
                 TS_REASON_PREEMPTED,
                 TS_REASON_PEER_LOST,
                 TS_REASON_NO_COPY,
                 TS_REASON_CLIENT_LOST,
                 TS_REASON_CANCELLED,
                 TS_REASON_DEADLINE,
                 TS_REASON_FINISHED, /* ended normally: release */
                 TS_REASON_RETRIES,  /* attempts used up */
                 TS_REASON_ENGINE,   /* the engine reported an error */
                 TS_REASON_INTERNAL,
                 TS_REASON_OVERLOADED, /* it could not be served in time: refused at once */
                 TS_REASON_LAST = TS_REASON_OVERLOADED
};

const char *ts_channel_name(enum ts_channel channel);
const char *ts_role_name(enum ts_role role);
const char *ts_phase_name(enum ts_phase phase);
const char *ts_finish_name(enum ts_finish finish); /* "stop", "length", "cancelled", "deadline", "error" */
const char *ts_reason_name(enum ts_reason reason); /* "queue_full", ... */

#endif
