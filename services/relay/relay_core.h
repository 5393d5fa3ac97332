/*
 * The relay as a state machine: KV pools of the workers of its host, links to decode workers, one transfer
 * per attempt. Events in, actions out (common/core/ts_event.h). The protocol is common/core/README.md; states
 * and limits are in this folder's README.
 *
 * Owns everything it remembers; strings of the settings are borrowed and must outlive it. One thread.
 */
#ifndef RELAY_CORE_H
#define RELAY_CORE_H

#include "common/core/ts_event.h"

#define RELAY_ROUTERS_MAX 8
#define RELAY_LANES_MAX   16

struct relay_settings {
    const char *id, *host;
    uint32_t pid;
    const char *routers[RELAY_ROUTERS_MAX]; /* endpoints of their relay channel */
    size_t router_count;
    uint32_t heartbeat_ms, timeout_ms;
    uint32_t router_lost_ms;     /* a router away for so long has no copies here any more */
    uint64_t encoded_bytes_max;  /* held for transfers; beyond, encoding waits */
    uint64_t retained_bytes_max; /* of copies, within the above, which transfers take first */
    uint32_t encode_jobs_max;
    bool workers_encode; /* those that can, whatever we could map */
    uint32_t chunk_tokens_max;
    uint32_t kv_connections; /* to each decode worker, at most RELAY_LANES_MAX */
    uint32_t open_retry_ms;  /* decode does not know the attempt yet: ask again for so long */
    uint32_t idle_link_ms;
    uint32_t probe_every_ms; /* of a link that KV does not fill; 0 = never */
    uint32_t link_report_ms; /* what changed of links is told routers so often, the rest 15 times as seldom; 0
                                = never */
};

struct relay_settings relay_settings_defaults(void);

struct relay_counts {
    uint64_t done, failed;    /* transfers */
    uint64_t refeeds;         /* of them, begun from a copy */
    uint64_t copies_evicted;  /* for want of room */
    uint64_t encoded_instead; /* pieces that our device could not encode, and their worker was asked to */
    uint64_t chunks_repeated; /* sent again after a KvNack */
    uint64_t resumed;         /* transfers that went on in another session */
    uint64_t lanes_failed;    /* connections given up, their chunks sent over another one */
    uint64_t credits_missing; /* verified by decode before all payload had been credited: its fault or ours */
};

struct relay_core;

struct relay_core *relay_core_new(const struct relay_settings *settings, uint64_t incarnation);
void relay_core_destroy(struct relay_core **core);
void relay_core_step(struct relay_core *core, ts_time now, const struct ts_event *event,
                     struct ts_actions *out);
ts_time relay_core_deadline(const struct relay_core *core);
bool relay_core_check(const struct relay_core *core, struct ts_error *err); /* invariants */
bool relay_core_idle(const struct relay_core *core); /* no transfer; copies do not count */
struct relay_counts relay_core_counts(const struct relay_core *core);
size_t relay_core_copies(const struct relay_core *core); /* of transfers that are done */
uint64_t relay_core_retained_bytes(const struct relay_core *core);
size_t relay_core_handles(const struct relay_core *core); /* bulk handles that it must hold now */

#endif
