/* Settings of ts-relay, from file, environment and command line (common/run/ts_conf.h). */
#ifndef RELAY_CONF_H
#define RELAY_CONF_H

#include "common/run/ts_conf.h"
#include "common/run/ts_net.h"
#include "services/relay/relay_core.h"

struct relay_conf {
    struct ts_conf *conf; /* owns the strings */
    const char *id, *host, *listen, *encode, *record, *log_level;
    struct ts_conf_strings router;
    uint32_t heartbeat_ms, timeout_ms, encoded_mib_max, retained_mib_max, encode_threads, router_lost_ms,
        chunk_tokens_max, kv_connections, open_retry_ms, idle_link_ms, probe_every_ms, link_report_ms;
    char endpoints[RELAY_ROUTERS_MAX][TS_ENDPOINT_BYTES];
    struct relay_settings settings; /* made from the above */
};

/* Also checks the addresses. */
enum ts_conf_outcome relay_conf_load(int argc, char **argv, uint32_t pid, struct relay_conf *out,
                                     struct ts_error *err);
char *relay_conf_flags(const struct relay_conf *conf, size_t *bytes); /* for recordings; ts_free */

#endif
