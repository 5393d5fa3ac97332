#include "services/planner/planner_conf.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct planner_conf, field), fallback, lo, hi, text                           \
    }

static const struct ts_option options[] = {
    O(router, TS_OPTION_STRINGS, "tcp://127.0.0.1:5555", 0, 0, "client endpoints of the routers"),
    O(id, TS_OPTION_STRING, "planner", 0, 0, "name of this planner"),
    O(host, TS_OPTION_STRING, "localhost", 0, 0, "name of this machine"),
    O(algorithm, TS_OPTION_STRING, "thunder", 0, 0,
      "how plans are made: a name that tsctl plan --help lists, or a shared object, by a path with a '/'"),
    O(conf_dir, TS_OPTION_STRING, NULL, 0, 0,
      "folder with devices/, links/ and workloads/ (default: no catalogue, devices of one name are equal)"),
    O(devices, TS_OPTION_STRING, "measured", 0, 0, "catalogue of devices in conf_dir"),
    O(workload, TS_OPTION_STRING, NULL, 0, 0,
      "expected mix of requests: a file of conf_dir, or a path (default: half short, half long prompts)"),
    O(slo, TS_OPTION_STRING, "ttft=2s,tpot=200ms", 0, 0, "deadlines that shares are made for"),
    O(seed, TS_OPTION_U32, "1", 0, 4294967295.0, "of the search: the same seed gives the same plans"),
    O(step_work, TS_OPTION_U32, "1000", 1, 1e9, "units of search between two looks at the sockets"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to routers that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a router silent for that long is dialled again"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

static const struct ts_device_type *find_device(const void *catalogue, const char *name)
{
    return ts_catalogue_device(catalogue, name);
}

static enum ts_status find_algorithm(struct planner_conf *c, struct ts_error *err)
{
    char names[400] = "";
    const struct plan_algorithm *a;
    if (strchr(c->algorithm, '/'))
        c->settings.plan.algorithm = plan_algorithm_load(c->algorithm, err);
    else
        c->settings.plan.algorithm = plan_algorithm_find(c->algorithm);
    if (c->settings.plan.algorithm)
        return TS_OK;
    if (strchr(c->algorithm, '/'))
        return ts_error_prefix(err, "algorithm");
    for (size_t i = 0, at = 0; (a = plan_algorithm_at(i)) && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", a->name);
    return ts_error_set(err, TS_EINVAL, "unknown algorithm \"%s\": expected one of %s, or a path",
                        c->algorithm, names);
}

/* What plans are made for: the catalogue, the expected mix and its deadlines. */
static enum ts_status fill_plan(struct planner_conf *c, struct ts_error *err)
{
    struct planner_live_inputs *plan = &c->settings.plan;
    bool has_dir = c->conf_dir && *c->conf_dir;
    *plan = planner_live_defaults();
    enum ts_status status = find_algorithm(c, err);
    plan->seed = c->seed;
    if (status == TS_OK && has_dir)
        status = ts_catalogue_load(c->conf_dir, c->devices, &c->catalogue, err);
    if (status == TS_OK && c->workload && *c->workload)
        status = ts_inputs_demand(has_dir ? c->conf_dir : ".", c->workload, 0, &plan->demand, err);
    if (status == TS_OK && strncmp(c->slo, "scale", 5) == 0)
        status =
            ts_error_set(err, TS_EINVAL,
                         "slo \"%s\": the planner of a running cluster needs deadlines as times, such as "
                         "ttft=2s,tpot=200ms",
                         c->slo);
    if (status == TS_OK) {
        const struct ts_model none = {.layers = 0};
        status = ts_inputs_slo(c->catalogue, has_dir ? c->conf_dir : ".", c->slo, &none, &plan->demand, err);
    }
    if (status == TS_OK && c->catalogue) {
        plan->device = find_device;
        plan->catalogue = c->catalogue;
    }
    return status;
}

static enum ts_status fill(struct planner_conf *c, uint32_t pid, struct ts_error *err)
{
    c->settings = (struct planner_settings){.id = c->id,
                                            .host = c->host,
                                            .pid = pid,
                                            .router_count = c->router.count,
                                            .heartbeat_ms = c->heartbeat_ms,
                                            .timeout_ms = c->timeout_ms,
                                            .step_work = c->step_work};
    if (fill_plan(c, err) != TS_OK || ts_conf_check_clocks(c->heartbeat_ms, c->timeout_ms, err) != TS_OK)
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

void planner_conf_free(struct planner_conf *conf)
{
    ts_catalogue_destroy(&conf->catalogue);
    ts_conf_destroy(&conf->conf);
}

enum ts_conf_outcome planner_conf_load(int argc, char **argv, uint32_t pid, struct planner_conf *out,
                                       struct ts_error *err)
{
    *out = (struct planner_conf){.conf = NULL};
    enum ts_conf_outcome outcome =
        ts_conf_load("planner", options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, err);
    if (outcome != TS_CONF_ERROR && fill(out, pid, err) != TS_OK) {
        planner_conf_free(out);
        return TS_CONF_ERROR;
    }
    return outcome;
}

char *planner_conf_flags(const struct planner_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}
