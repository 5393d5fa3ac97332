/*
 * A worker of either phase as a state machine: sessions to routers and to the relay of its host, KV sessions
 * of relays that send to it, one task per (attempt, role), the KV blocks, engine batches. Events
 * in, actions out (common/core/ts_event.h). The protocol is common/core/README.md; states and limits are in
 * this folder's README.
 *
 * Owns everything it remembers; strings of the settings are borrowed and must outlive it. One thread.
 */
#ifndef WORKER_CORE_H
#define WORKER_CORE_H

#include "common/core/ts_event.h"

#define WORKER_ROUTERS_MAX 8

struct worker_settings {
    const char *id, *host;
    uint32_t pid;
    const char *routers[WORKER_ROUTERS_MAX]; /* endpoints of their worker channel */
    size_t router_count;
    const char *relay_endpoint; /* pool channel of the host's relay; empty = none, then it cannot prefill */
    struct ts_profile profile;  /* phase included */
    struct ts_msg_pool pool;    /* layout of the KV pool */
    uint32_t max_rows, max_batch_tokens; /* of one batch */
    uint32_t
        batches_max; /* under way at a time, as many as the engine has stages; announced in the profile */
    uint32_t requests_max;        /* tasks; more are refused with BUSY */
    uint32_t prefill_patience_us; /* per prompt token: services/prefill/prefill_batch.h */
    uint32_t heartbeat_ms, timeout_ms;
    uint32_t router_lost_ms;    /* tasks of a router that is away for so long are dropped */
    uint32_t grant_wait_ms;     /* a transfer that finds no memory for so long goes back to the router */
    uint32_t resume_wait_ms;    /* one whose sender's session was lost waits so long for the next one */
    uint64_t credit_bytes;      /* KV payload under way per transfer */
    uint32_t prefix_blocks_max; /* of ended prompts that stay known while nobody wants their memory */
};

struct worker_settings worker_settings_defaults(void);

struct worker_core;

struct worker_core *worker_core_new(const struct worker_settings *settings, uint64_t incarnation);
void worker_core_destroy(struct worker_core **core);
void worker_core_step(struct worker_core *core, ts_time now, const struct ts_event *event,
                      struct ts_actions *out);
ts_time worker_core_deadline(const struct worker_core *core);
/* Invariants: every block is free or owned by one living task, tasks agree with their states, bounds hold. */
bool worker_core_check(const struct worker_core *core, struct ts_error *err);
bool worker_core_idle(const struct worker_core *core);         /* no task */
bool worker_core_relay_usable(const struct worker_core *core); /* the relay has taken the KV pool */

/* For the simulation's statistics. */
struct worker_counts {
    uint64_t preempted, nacked, resent;
    uint64_t resumed;        /* transfers that went on in another session */
    uint64_t chunks_strayed; /* of a session that is over, over another connection than its own */
    uint64_t prefix_hits, prefix_evicted; /* blocks of KV that was there already; that gave way */
};

struct worker_counts worker_core_counts(const struct worker_core *core);
uint32_t worker_core_blocks_used(const struct worker_core *core);
enum ts_phase worker_core_phase(const struct worker_core *core); /* that it serves now */

#endif
