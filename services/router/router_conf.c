#include "services/router/router_conf.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_codec_spec.h"
#include "common/inputs/ts_inputs.h"
#include "common/run/ts_net.h"
#include "services/router/router_workload.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct router_conf, field), fallback, lo, hi, text                            \
    }

static const struct ts_option options[] = {
    O(listen, TS_OPTION_STRING, "tcp://127.0.0.1:5555", 0, 0,
      "client endpoint; admin, worker, relay and planner take the next ports"),
    O(id, TS_OPTION_STRING, "router", 1, TS_ID_BYTES_MAX, "name of this router"),
    O(codec, TS_OPTION_STRING, "auto", 0, 0,
      "KV codec of requests that wish none: a preset, or auto = by accuracy, link, plan and model"),
    O(accuracy, TS_OPTION_CHOICE, "normal|safe|lossless", 0, 0, "what an automatic KV codec may cost"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to members that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a member silent for that long is dead"),
    O(queue_max, TS_OPTION_U32, "4096", 1, 1e6, "requests accepted and not ended"),
    O(held_mib_max, TS_OPTION_U32, "256", 1, 1e6, "MiB of prompts held for them"),
    O(prompt_bytes_max, TS_OPTION_U32, "8388608", 1, 2.6e8, "of one prompt"),
    O(per_client_max, TS_OPTION_U32, "2048", 1, 1e6, "requests of one client under way"),
    O(prefill_inflight_max, TS_OPTION_U32, "64", 1, 1e6, "at one prefill worker, until decode has the KV"),
    O(decode_inflight_max, TS_OPTION_U32, "1024", 1, 1e6, "at one decode worker"),
    O(client_timeout_ms, TS_OPTION_U32, "5000", 100, 3.6e6, "a client silent for that long is detached"),
    O(reattach_ms, TS_OPTION_U32, "10000", 0, 3.6e6, "how long a request outlives its client"),
    O(no_worker_ms, TS_OPTION_U32, "30000", 1, 3.6e6, "a request that finds no worker for that long ends"),
    O(ended_keep_count, TS_OPTION_U32, "512", 0, 1e6,
      "ended requests remembered, for clients that attach again"),
    O(ended_keep_ms, TS_OPTION_U32, "60000", 0, 3.6e6, "and for how long"),
    O(max_attempts, TS_OPTION_U32, "16", 1, 1000, "of one request"),
    O(memory_wait_ms, TS_OPTION_U32, "120000", 1, 3.6e6,
      "attempts that only wanted KV memory count once a request stands still for that long"),
    O(overload_ttft_factor, TS_OPTION_F64, "0.8", 0, 1000,
      "refuses a request that would wait for longer than this share of its ttft_ms; 0 = never"),
    O(queue_wait_ms, TS_OPTION_U32, "30000", 0, 3.6e6, "the same for one that names no time; 0 = never"),
    O(measure_links, TS_OPTION_BOOL, "true", 0, 0,
      "asks relays to probe their links to decode workers as those join"),
    O(phase_wait_ms, TS_OPTION_U32, "10000", 10, 3.6e6, "a worker must take a new phase within that time"),
    O(workload_window_ms, TS_OPTION_U32, "60000", 1000, WORKLOAD_WINDOW_MS,
      "the workload is measured over that time"),
    O(workload_update_ms, TS_OPTION_U32, "5000", 100, 3.6e6,
      "planners hear of it so often while there is traffic"),
    O(conf_dir, TS_OPTION_STRING, NULL, 0, 0,
      "folder with clusters/, devices/ and links/, for the key cluster"),
    O(devices, TS_OPTION_STRING, "measured", 0, 0, "catalogue of devices in conf_dir"),
    O(cluster, TS_OPTION_STRING, NULL, 0, 0,
      "what links between hosts are expected to carry: a file of conf_dir/clusters, or a path (default: "
      "unknown)"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(trace, TS_OPTION_STRING, NULL, 0, 0, "append a line for each ended request to this file"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

static enum ts_status read_cluster(struct router_conf *c, struct ts_error *err)
{
    struct ts_catalogue *catalogue = NULL;
    if (!*c->cluster)
        return TS_OK;
    if (!*c->conf_dir)
        return ts_error_set(err, TS_EINVAL, "cluster \"%s\": its devices need conf_dir", c->cluster);
    enum ts_status status = ts_catalogue_load(c->conf_dir, c->devices, &catalogue, err);
    if (status == TS_OK)
        status = ts_inputs_cluster(catalogue, c->conf_dir, c->cluster, &c->links, err);
    ts_catalogue_destroy(&catalogue);
    return status;
}

void router_conf_free(struct router_conf *conf)
{
    ts_cluster_destroy(&conf->links);
    ts_conf_destroy(&conf->conf);
}

enum ts_conf_outcome router_conf_load(int argc, char **argv, struct router_conf *out, struct ts_error *err)
{
    *out = (struct router_conf){.conf = NULL};
    enum ts_conf_outcome outcome =
        ts_conf_load("router", options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, err);
    char last[TS_ENDPOINT_BYTES];
    if (outcome == TS_CONF_ERROR)
        return outcome;
    if (ts_endpoint_of(out->listen, TS_CHANNEL_PLANNER, last, err) != TS_OK ||
        ts_conf_check_clocks(out->heartbeat_ms, out->timeout_ms, err) != TS_OK ||
        ts_codec_check_option(out->codec, err) != TS_OK || read_cluster(out, err) != TS_OK) {
        router_conf_free(out);
        return TS_CONF_ERROR;
    }
    if (outcome == TS_CONF_EXIT)
        ts_conf_well(out->conf);
    return outcome;
}

char *router_conf_flags(const struct router_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}

static enum router_accuracy accuracy_of(const char *text)
{
    return strcmp(text, "lossless") == 0 ? ROUTER_ACCURACY_LOSSLESS
           : strcmp(text, "safe") == 0   ? ROUTER_ACCURACY_SAFE
                                         : ROUTER_ACCURACY_NORMAL;
}

struct router_settings router_conf_settings(const struct router_conf *c, uint32_t pid)
{
    return (struct router_settings){.id = c->id,
                                    .pid = pid,
                                    .heartbeat_ms = c->heartbeat_ms,
                                    .timeout_ms = c->timeout_ms,
                                    .queue_max = c->queue_max,
                                    .held_bytes_max = (uint64_t)c->held_mib_max << 20,
                                    .prompt_bytes_max = c->prompt_bytes_max,
                                    .per_client_max = c->per_client_max,
                                    .prefill_inflight_max = c->prefill_inflight_max,
                                    .decode_inflight_max = c->decode_inflight_max,
                                    .client_timeout_ms = c->client_timeout_ms,
                                    .reattach_ms = c->reattach_ms,
                                    .no_worker_ms = c->no_worker_ms,
                                    .ended_keep_count = c->ended_keep_count,
                                    .ended_keep_ms = c->ended_keep_ms,
                                    .max_attempts = c->max_attempts,
                                    .memory_wait_ms = c->memory_wait_ms,
                                    .overload_ttft_factor = c->overload_ttft_factor,
                                    .queue_wait_ms = c->queue_wait_ms,
                                    .measure_links = c->measure_links,
                                    .phase_wait_ms = c->phase_wait_ms,
                                    .workload_window_ms = c->workload_window_ms,
                                    .workload_update_ms = c->workload_update_ms,
                                    .codec = c->codec,
                                    .accuracy = accuracy_of(c->accuracy),
                                    .cluster = c->links};
}
