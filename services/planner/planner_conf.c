#include "services/planner/planner_conf.h"

#include "common/base/ts_assert.h"
#include "services/planner/planner_algorithm.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct planner_conf, field), fallback, lo, hi, text                           \
    }

static const struct ts_option options[] = {
    O(router, TS_OPTION_STRINGS, "tcp://127.0.0.1:5555", 0, 0, "client endpoints of the routers"),
    O(id, TS_OPTION_STRING, "planner", 0, 0, "name of this planner"),
    O(host, TS_OPTION_STRING, "localhost", 0, 0, "name of this machine"),
    O(algorithm, TS_OPTION_STRING, "uniform", 0, 0, "how plans are made: uniform"),
    O(step_work, TS_OPTION_U32, "1000", 1, 1e9, "units of search between two looks at the sockets"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to routers that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a router silent for that long is dialled again"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

static enum ts_status fill(struct planner_conf *c, uint32_t pid, struct ts_error *err)
{
    c->settings = (struct planner_settings){.id = c->id,
                                            .host = c->host,
                                            .pid = pid,
                                            .router_count = c->router.count,
                                            .heartbeat_ms = c->heartbeat_ms,
                                            .timeout_ms = c->timeout_ms,
                                            .step_work = c->step_work,
                                            .algorithm = planner_algorithm_find(c->algorithm)};
    if (!c->settings.algorithm)
        return ts_error_set(err, TS_EINVAL, "unknown algorithm \"%s\": expected uniform", c->algorithm);
    if (ts_conf_check_clocks(c->heartbeat_ms, c->timeout_ms, err) != TS_OK)
        return TS_EINVAL;
    if (c->router.count > PLANNER_ROUTERS_MAX)
        return ts_error_set(err, TS_EINVAL, "%zu routers: expected at most %d", c->router.count,
                            PLANNER_ROUTERS_MAX);
    for (size_t i = 0; i < c->router.count; i++) {
        if (ts_endpoint_of(c->router.items[i], TS_CHANNEL_PLANNER, c->endpoints[i], err) != TS_OK)
            return TS_EINVAL;
        c->settings.routers[i] = c->endpoints[i];
    }
    return TS_OK;
}

enum ts_conf_outcome planner_conf_load(int argc, char **argv, uint32_t pid, struct planner_conf *out,
                                       struct ts_error *err)
{
    *out = (struct planner_conf){.conf = NULL};
    enum ts_conf_outcome outcome =
        ts_conf_load("planner", options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, err);
    if (outcome != TS_CONF_ERROR && fill(out, pid, err) != TS_OK) {
        ts_conf_destroy(&out->conf);
        return TS_CONF_ERROR;
    }
    return outcome;
}

char *planner_conf_flags(const struct planner_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}
