/* Settings of ts-prefill and ts-decode, from file, environment and command line (common/run/ts_conf.h). */
#ifndef WORKER_CONF_H
#define WORKER_CONF_H

#include "common/run/ts_conf.h"
#include "common/run/ts_net.h"
#include "services/worker/worker_core.h"

struct worker_conf {
    struct ts_conf *conf; /* owns the strings */
    const char *id, *host, *model, *served_model_name, *device, *device_name, *modelled_conf, *relay, *pool,
        *kv_listen, *kv_advertise, *kv_codec, *profile, *profile_cache, *phases, *record, *log_level,
        *weights;
    struct ts_conf_strings router;
    uint32_t prefill_patience_us, kv_cache_mib, kv_blocks, max_num_seqs, max_num_batched_tokens,
        max_model_len, requests_max, threads, device_reserve_mib;
    bool batch_invariant;
    uint32_t heartbeat_ms, timeout_ms, router_lost_ms, relay_wait_ms, grant_wait_ms, resume_wait_ms,
        credit_kib, prefix_percent;
    char endpoints[WORKER_ROUTERS_MAX][TS_ENDPOINT_BYTES];
    struct worker_settings settings; /* made from the above; profile and pool come from the engine */
};

/* `service` is "prefill" or "decode": the group of the file. Also checks the addresses. */
enum ts_conf_outcome worker_conf_load(const char *service, int argc, char **argv, uint32_t pid,
                                      struct worker_conf *out, struct ts_error *err);
char *worker_conf_flags(const struct worker_conf *conf, size_t *bytes); /* for recordings; ts_free */

#endif
