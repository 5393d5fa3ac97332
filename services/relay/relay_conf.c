#include "services/relay/relay_conf.h"

#include <string.h>

#include "common/base/ts_assert.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct relay_conf, field), fallback, lo, hi, text                             \
    }

static const struct ts_option options[] = {
    O(router, TS_OPTION_STRINGS, "tcp://127.0.0.1:5555", 0, 0, "client endpoints of the routers"),
    O(listen, TS_OPTION_STRING, "ipc:///tmp/thunderserve-relay", 0, 0,
      "where the workers of this host announce their KV pools"),
    O(id, TS_OPTION_STRING, "relay", 1, TS_ID_BYTES_MAX, "name of this relay"),
    O(host, TS_OPTION_STRING, "localhost", 1, TS_ID_BYTES_MAX, "name of this machine"),
    O(encoded_mib_max, TS_OPTION_U32, "512", 1, 1e6, "MiB of encoded KV held; beyond, encoding waits"),
    O(retained_mib_max, TS_OPTION_U32, "256", 0, 1e6,
      "MiB of them that may stay as copies for other decode workers; transfers take them first"),
    O(encode, TS_OPTION_CHOICE, "relay|worker", 0, 0,
      "who encodes KV: the relay, from the pools that it has mapped, or the worker that computed it"),
    O(encode_threads, TS_OPTION_U32, "1", 1, 64, "threads of the codec"),
    O(chunk_tokens_max, TS_OPTION_U32, "512", 16, 65536, "tokens of one layer in one message"),
    O(kv_connections, TS_OPTION_U32, "4", 1, RELAY_LANES_MAX,
      "connections to each decode worker, which chunks share"),
    O(open_retry_ms, TS_OPTION_U32, "5000", 10, 600000,
      "how long a decode worker may not know a transfer yet"),
    O(idle_link_ms, TS_OPTION_U32, "30000", 100, 3.6e6,
      "an unused connection to a decode worker is closed after that"),
    O(probe_every_ms, TS_OPTION_U32, "10000", 0, 3.6e6,
      "an idle link to a decode worker is measured by a small probe so often; 0 = never"),
    O(link_report_ms, TS_OPTION_U32, "2000", 0, 3.6e6,
      "what changed of links is told routers so often, the rest 15 times as seldom; 0 = never"),
    O(router_lost_ms, TS_OPTION_U32, "30000", 100, 3.6e6,
      "copies for a router that is away for so long are dropped"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to peers that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a peer silent for that long is lost"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

static enum ts_status fill(struct relay_conf *c, uint32_t pid, struct ts_error *err)
{
    c->settings = (struct relay_settings){.id = c->id,
                                          .host = c->host,
                                          .pid = pid,
                                          .router_count = c->router.count,
                                          .heartbeat_ms = c->heartbeat_ms,
                                          .timeout_ms = c->timeout_ms,
                                          .router_lost_ms = c->router_lost_ms,
                                          .retained_bytes_max = (uint64_t)c->retained_mib_max << 20,
                                          .encoded_bytes_max = (uint64_t)c->encoded_mib_max << 20,
                                          .encode_jobs_max = 4 * c->encode_threads,
                                          .workers_encode = strcmp(c->encode, "worker") == 0,
                                          .chunk_tokens_max = c->chunk_tokens_max,
                                          .kv_connections = c->kv_connections,
                                          .open_retry_ms = c->open_retry_ms,
                                          .idle_link_ms = c->idle_link_ms,
                                          .probe_every_ms = c->probe_every_ms,
                                          .link_report_ms = c->link_report_ms};
    if (ts_conf_check_clocks(c->heartbeat_ms, c->timeout_ms, err) != TS_OK)
        return TS_EINVAL;
    if (c->router.count > RELAY_ROUTERS_MAX)
        return ts_error_set(err, TS_EINVAL, "%zu routers: expected at most %d", c->router.count,
                            RELAY_ROUTERS_MAX);
    for (size_t i = 0; i < c->router.count; i++) {
        if (ts_endpoint_of(c->router.items[i], TS_CHANNEL_RELAY, c->endpoints[i], err) != TS_OK ||
            ts_net_check(c->endpoints[i], err) != TS_OK)
            return TS_EINVAL;
        c->settings.routers[i] = c->endpoints[i];
    }
    return TS_OK;
}

enum ts_conf_outcome relay_conf_load(int argc, char **argv, uint32_t pid, struct relay_conf *out,
                                     struct ts_error *err)
{
    *out = (struct relay_conf){.conf = NULL};
    enum ts_conf_outcome outcome =
        ts_conf_load("relay", options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, err);
    if (outcome != TS_CONF_ERROR && fill(out, pid, err) != TS_OK) {
        ts_conf_destroy(&out->conf);
        return TS_CONF_ERROR;
    }
    if (outcome == TS_CONF_EXIT)
        ts_conf_well(out->conf);
    return outcome;
}

char *relay_conf_flags(const struct relay_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}
