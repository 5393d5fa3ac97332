/*
 * The router as a state machine: membership, the plan in force, one record for each request. Events in,
 * actions out, `now` an argument; no socket, clock or thread (common/core/ts_event.h). The protocol is
 * common/core/README.md; states and limits are in this folder's README.
 *
 * Owns everything it remembers; strings of the settings are borrowed and must outlive it. One thread.
 */
#ifndef ROUTER_CORE_H
#define ROUTER_CORE_H

#include "common/core/ts_cluster.h"
#include "common/core/ts_event.h"

enum router_accuracy { ROUTER_ACCURACY_NORMAL, ROUTER_ACCURACY_SAFE, ROUTER_ACCURACY_LOSSLESS };

struct router_settings {
    const char *id;
    uint32_t pid;
    uint32_t heartbeat_ms, timeout_ms; /* of members' sessions */
    uint32_t queue_max;                /* requests accepted and not ended */
    uint64_t held_bytes_max;           /* of prompts of those */
    uint64_t prompt_bytes_max;         /* of one prompt */
    uint32_t per_client_max;           /* not ended requests of one client */
    uint32_t prefill_inflight_max;     /* assigned to one prefill worker and without a token */
    uint32_t decode_inflight_max;      /* assigned to one decode worker */
    uint32_t client_timeout_ms;        /* a client silent for that long is detached */
    uint32_t reattach_ms;              /* a detached request lives that long, unless it says otherwise */
    uint32_t no_worker_ms;             /* a request that finds no worker for that long ends */
    uint32_t ended_keep_count, ended_keep_ms; /* ended records, for clients that attach again */
    uint32_t max_attempts;                    /* those that only wanted KV memory do not count, */
    uint32_t memory_wait_ms;                  /* unless the stream stands still for so long */
    uint32_t workload_window_ms,
        workload_update_ms;      /* of the measured workload; how often planners hear it */
    double overload_ttft_factor; /* a request that would wait for longer than this of its ttft_ms is refused;
                                    0 = off */
    uint32_t queue_wait_ms;      /* the same for one that names no time; 0 = off */
    bool measure_links;          /* asks relays to probe the ways to decode workers before KV needs them */
    uint32_t phase_wait_ms;      /* a worker that does not take a phase for so long aborts the plan */
    const char *codec; /* of all KV that no request wishes otherwise; "auto" = chosen (router_codec.h) */
    enum router_accuracy accuracy;
    const struct ts_cluster
        *cluster; /* what links are expected to carry, by names of hosts; NULL = unknown */
};

struct router_settings router_settings_defaults(void);

struct router_core;

struct router_core *router_core_new(const struct router_settings *settings, uint64_t incarnation);
void router_core_destroy(struct router_core **core);
void router_core_step(struct router_core *core, ts_time now, const struct ts_event *event,
                      struct ts_actions *out);
ts_time router_core_deadline(const struct router_core *core);
/* Invariants: counts agree with records, bounds hold, an ended record holds nothing. TS_OK or the violated
 * one in words. */
bool router_core_check(const struct router_core *core, struct ts_error *err);
bool router_core_idle(const struct router_core *core); /* no request is under way */

/* For statistics. `stale`: messages dropped because their attempt is not the current one. */
struct router_counts {
    uint64_t accepted, refused, ended, retries, resyncs, contradictions, stale, refeeds;
};

struct router_counts router_core_counts(const struct router_core *core);

#endif
