/* Settings of ts-router, from file, environment and command line (common/run/ts_conf.h). */
#ifndef ROUTER_CONF_H
#define ROUTER_CONF_H

#include "common/run/ts_conf.h"
#include "services/router/router_core.h"

struct router_conf {
    struct ts_conf *conf; /* owns the strings */
    const char *listen, *id, *codec, *accuracy, *conf_dir, *devices, *cluster, *record, *trace, *log_level;
    double overload_ttft_factor;
    bool measure_links;
    uint32_t queue_wait_ms;
    uint32_t heartbeat_ms, timeout_ms, queue_max, held_mib_max, prompt_bytes_max, per_client_max,
        prefill_inflight_max;
    uint32_t decode_inflight_max, client_timeout_ms, reattach_ms, no_worker_ms, ended_keep_count,
        ended_keep_ms, max_attempts, memory_wait_ms, phase_wait_ms, workload_window_ms, workload_update_ms;
    struct ts_cluster *links; /* of the cluster file; NULL = none is named */
};

/* Also reads the cluster file. To be freed unless it is an error. */
enum ts_conf_outcome router_conf_load(int argc, char **argv, struct router_conf *out, struct ts_error *err);
void router_conf_free(struct router_conf *conf);
struct router_settings router_conf_settings(const struct router_conf *conf, uint32_t pid);
char *router_conf_flags(const struct router_conf *conf, size_t *bytes); /* for recordings; ts_free */

#endif
