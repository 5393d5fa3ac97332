#include "services/planner/planner_conf.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_slo.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct planner_conf, field), fallback, lo, hi, text                           \
    }

static const struct ts_option options[] = {
    O(router, TS_OPTION_STRINGS, "tcp://127.0.0.1:5555", 0, 0, "client endpoints of the routers"),
    O(id, TS_OPTION_STRING, "planner", 1, TS_ID_BYTES_MAX, "name of this planner"),
    O(host, TS_OPTION_STRING, "localhost", 1, TS_ID_BYTES_MAX, "name of this machine"),
    O(algorithm, TS_OPTION_STRING, "thunder", 0, 0,
      "how plans are made: a name that tsctl plan --help lists, or a shared object, by a path with a '/'"),
    O(conf_dir, TS_OPTION_STRING, NULL, 0, 0,
      "folder with devices/, links/ and workloads/ (default: no catalogue, devices of one name are equal)"),
    O(devices, TS_OPTION_STRING, "measured", 0, 0, "catalogue of devices in conf_dir"),
    O(cluster, TS_OPTION_STRING, NULL, 0, 0,
      "links and network cards of hosts, by their names: a file of conf_dir/clusters, or a path (default: "
      "unknown)"),
    O(workload, TS_OPTION_STRING, NULL, 0, 0,
      "expected mix of requests: a file of conf_dir, or a path (default: half short, half long prompts)"),
    O(slo, TS_OPTION_STRING, "ttft=2s,tpot=200ms", 0, 0,
      "deadlines that plans are made for; as a scale they need conf_dir and model"),
    O(model, TS_OPTION_STRING, NULL, 0, 0,
      "the model that deadlines are scaled by: a file of conf_dir/models, or a path"),
    O(codecs, TS_OPTION_STRING, "none,i4", 0, 0, "codecs that plans may choose for links that are known"),
    O(classes, TS_OPTION_U32, "8", 1, TS_CLASSES_MAX, "length classes of a measured workload"),
    O(requests_min, TS_OPTION_U32, "50", 1, 1e9,
      "requests that must be seen before a measured workload counts"),
    O(flips, TS_OPTION_BOOL, "true", 0, 0, "whether workers may be told to change their phase"),
    O(colocate, TS_OPTION_BOOL, "true", 0, 0, "also to both phases"),
    O(window_s, TS_OPTION_U32, "600", 1, 1000000, "for how long things are expected to stay as they are"),
    O(margin, TS_OPTION_F64, "0.2", 0, 1e6,
      "by which a flip must gain more than it loses, a share of the loss"),
    O(gain_min, TS_OPTION_F64, "0.1", 0, 1e6, "gains below this share of what is served are noise"),
    O(quiet_s, TS_OPTION_U32, "120", 0, 1000000, "between two flips"),
    O(collapse, TS_OPTION_F64, "0.5", 0, 1,
      "share in time, of that at the last flip, below which no quiet is kept"),
    O(flip_s, TS_OPTION_U32, "10", 0, 100000,
      "that a worker takes to change its phase, as it is reckoned with"),
    O(pair_wait_s, TS_OPTION_U32, "5", 0, 100000,
      "for a worker of a phase that has none left to come back, before another one takes it"),
    O(flip_wait_s, TS_OPTION_U32, "60", 1, 100000,
      "after which a worker that has not changed its phase will not"),
    O(rate_change, TS_OPTION_F64, "0.3", 0.01, 1e6, "of requests/s, a share, that a plan is made anew for"),
    O(length_change, TS_OPTION_F64, "0.25", 0.01, 1e6, "of mean prompts or outputs, the same"),
    O(mix_change, TS_OPTION_F64, "0.2", 0.01, 1,
      "share of requests that are of another length class, the same"),
    O(link_change, TS_OPTION_F64, "0.3", 0.01, 1e6, "of a link's measured speed, the same"),
    O(attained_drop, TS_OPTION_F64, "0.1", 0.01, 1,
      "requests in time below what the plan promised, the same"),
    O(period_s, TS_OPTION_U32, "30", 1, 100000, "a plan is made anew all the same"),
    O(plan_min_ms, TS_OPTION_U32, "1000", 0, 3600000, "between two plans for the sake of the workload"),
    O(share_min, TS_OPTION_F64, "0.1", 0, 1, "of requests that must go elsewhere for a re-route to be sent"),
    O(seed, TS_OPTION_U32, "1", 0, 4294967295.0, "of the search: the same seed gives the same plans"),
    O(step_work, TS_OPTION_U32, "1000", 1, 1e9, "units of search between two looks at the sockets"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to routers that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a router silent for that long is dialled again"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

struct planner_world {
    struct ts_catalogue *catalogue; /* NULL = none, and so are the others */
    struct ts_cluster *cluster;
    struct ts_slo *slo; /* scaled deadlines */
};

static const struct ts_device_type *find_device(const void *world, const char *name)
{
    return ts_catalogue_device(((const struct planner_world *)world)->catalogue, name);
}

/* Scaled: those of a request with the mean lengths of its class, on the reference. */
static enum ts_status set_deadlines(const void *world, const struct ts_model *model, struct ts_demand *demand,
                                    struct ts_error *err)
{
    enum ts_status status = TS_OK;
    (void)model; /* what the settings name is scaled by */
    for (uint32_t k = 0; k < demand->class_count && status == TS_OK; k++) {
        struct ts_class *c = &demand->classes[k];
        struct ts_deadlines d = {0};
        status = ts_slo_of(((const struct planner_world *)world)->slo, c->prompt_tokens, c->output_tokens, &d,
                           err);
        c->ttft_s = d.ttft_s;
        c->tpot_s = d.tpot_s;
        c->e2e_s = d.e2e_s;
    }
    return status;
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

static enum ts_status fill_codecs(struct planner_conf *c, struct ts_error *err)
{
    bool *allowed = c->settings.plan.codec_allowed;
    for (int k = 0; k < TS_COST_CODEC_COUNT; k++)
        allowed[k] = false;
    for (const char *at = c->codecs; *at;) {
        size_t bytes = strcspn(at, ",");
        int k = 0;
        for (; k < TS_COST_CODEC_COUNT; k++) {
            const char *name = ts_cost_codec_name((enum ts_cost_codec)k);
            if (strlen(name) == bytes && strncmp(name, at, bytes) == 0)
                break;
        }
        if (k == TS_COST_CODEC_COUNT)
            return ts_error_set(err, TS_EINVAL, "codecs: unknown codec \"%.*s\": expected none, i4 or both",
                                (int)bytes, at);
        allowed[k] = true;
        at += bytes + (at[bytes] == ',');
    }
    return *c->codecs ? TS_OK : ts_error_set(err, TS_EINVAL, "codecs: expected none, i4 or both");
}

/* Deadlines of the expected mix, and of any that is measured. */
static enum ts_status fill_slo(struct planner_conf *c, const char *conf_dir, bool has_dir,
                               struct ts_error *err)
{
    struct planner_live_inputs *plan = &c->settings.plan;
    struct ts_model model = {.layers = 0};
    bool has_model = c->model && *c->model;
    if (strncmp(c->slo, "scale", 5) == 0 && !(has_dir && has_model))
        return ts_error_set(
            err, TS_EINVAL,
            "slo \"%s\": without conf_dir and model the planner needs deadlines as times, such as "
            "ttft=2s,tpot=200ms",
            c->slo);
    enum ts_status status = has_model ? ts_inputs_model(conf_dir, c->model, &model, err) : TS_OK;
    if (status == TS_OK)
        status = ts_inputs_slo(c->world->catalogue, conf_dir, c->slo, &model, &plan->demand, err);
    if (status == TS_OK && has_dir && has_model) {
        status = ts_slo_open(c->world->catalogue, conf_dir, c->slo, &model, &c->world->slo, err);
        plan->deadlines = set_deadlines;
    }
    return status;
}

/* What plans are made for: the catalogue, the cluster, the expected mix and its deadlines. */
static enum ts_status fill_plan(struct planner_conf *c, struct ts_error *err)
{
    struct planner_live_inputs *plan = &c->settings.plan;
    bool has_dir = c->conf_dir && *c->conf_dir;
    const char *conf_dir = has_dir ? c->conf_dir : ".";
    *plan = planner_live_defaults();
    plan->seed = c->seed;
    plan->classes_max = c->classes;
    plan->requests_min = c->requests_min;
    plan->flips = c->flips;
    plan->colocate = c->colocate;
    plan->flip_s = c->flip_s;
    plan->adopt = (struct plan_adopt_rule){.window_s = c->window_s,
                                           .margin = c->margin,
                                           .gain_min = c->gain_min,
                                           .quiet_s = c->quiet_s,
                                           .collapse = c->collapse};
    c->world = ts_xcalloc(1, sizeof *c->world);
    enum ts_status status = find_algorithm(c, err);
    if (status == TS_OK)
        status = fill_codecs(c, err);
    if (status == TS_OK && has_dir)
        status = ts_catalogue_load(c->conf_dir, c->devices, &c->world->catalogue, err);
    if (status == TS_OK && c->cluster && *c->cluster)
        status = has_dir
                     ? ts_inputs_cluster(c->world->catalogue, conf_dir, c->cluster, &c->world->cluster, err)
                     : ts_error_set(err, TS_EINVAL, "cluster \"%s\": its devices need conf_dir", c->cluster);
    if (status == TS_OK && c->workload && *c->workload)
        status = ts_inputs_demand(conf_dir, c->workload, 0, &plan->demand, err);
    if (status == TS_OK)
        status = fill_slo(c, conf_dir, has_dir, err);
    plan->cluster = c->world->cluster;
    plan->catalogue = c->world;
    plan->device = c->world->catalogue ? find_device : NULL;
    return status;
}

static struct planner_trigger_rule trigger_of(const struct planner_conf *c)
{
    return (struct planner_trigger_rule){.rate = c->rate_change,
                                         .length = c->length_change,
                                         .mix = c->mix_change,
                                         .link = c->link_change,
                                         .attained = c->attained_drop,
                                         .period_s = c->period_s,
                                         .plan_min_s = c->plan_min_ms / 1e3,
                                         .requests_min = c->requests_min};
}

static enum ts_status fill(struct planner_conf *c, uint32_t pid, struct ts_error *err)
{
    c->settings = (struct planner_settings){.id = c->id,
                                            .host = c->host,
                                            .pid = pid,
                                            .router_count = c->router.count,
                                            .heartbeat_ms = c->heartbeat_ms,
                                            .timeout_ms = c->timeout_ms,
                                            .trigger = trigger_of(c),
                                            .share_min = c->share_min,
                                            .pair_wait_s = c->pair_wait_s,
                                            .flip_wait_s = c->flip_wait_s,
                                            .step_work = c->step_work};
    if (fill_plan(c, err) != TS_OK || ts_conf_check_clocks(c->heartbeat_ms, c->timeout_ms, err) != TS_OK)
        return TS_EINVAL;
    if (c->router.count > PLANNER_ROUTERS_MAX)
        return ts_error_set(err, TS_EINVAL, "%zu routers: expected at most %d", c->router.count,
                            PLANNER_ROUTERS_MAX);
    for (size_t i = 0; i < c->router.count; i++) {
        if (ts_endpoint_of(c->router.items[i], TS_CHANNEL_PLANNER, c->endpoints[i], err) != TS_OK ||
            ts_net_check(c->endpoints[i], err) != TS_OK)
            return TS_EINVAL;
        c->settings.routers[i] = c->endpoints[i];
    }
    return TS_OK;
}

void planner_world_free(struct planner_world **world)
{
    struct planner_world *w = *world;
    if (!w)
        return;
    ts_slo_close(&w->slo);
    ts_cluster_destroy(&w->cluster);
    ts_catalogue_destroy(&w->catalogue);
    ts_free(w);
    *world = NULL;
}

void planner_conf_free(struct planner_conf *conf)
{
    planner_world_free(&conf->world);
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
    if (outcome == TS_CONF_EXIT)
        ts_conf_well(out->conf);
    return outcome;
}

char *planner_conf_flags(const struct planner_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}
