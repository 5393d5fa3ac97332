/*
 * What happens to a simulated cluster on the way: a JSON list of
 *
 *     {"at_s": 300, "lose": "NODE"}                    all its devices die for ever
 *     {"at_s": 301, "plan": "PLAN.json"}               that plan from now on: replicas that it keeps change
 * phase and flows at once, its new ones load first, the others drain
 *     {"at_s": 400, "slow": "NODE", "factor": 0.1}     all links from and to it
 *     {"at_s": 400, "link": ["FROM", "TO"], "factor": 0.1}
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan.h"
#include "services/tsctl/tsctl_simulate.h"

#define PLACE_BYTES 400

struct tsctl_events {
    struct ts_plan **plans;
    size_t plan_count;
};

static enum ts_status find_node(const struct ts_cluster *cluster, const char *name, uint32_t *out,
                                struct ts_error *err)
{
    for (*out = 0; *out < cluster->node_count; (*out)++) {
        if (name && strcmp(cluster->nodes[*out].name, name) == 0)
            return TS_OK;
    }
    return ts_error_set(err, TS_ENOTFOUND, "\"%.60s\" is no node of cluster %s: its first is %s",
                        name ? name : "", cluster->name, cluster->nodes[0].name);
}

static enum ts_status lose(const struct tsctl_simulation *s, ts_time at, const struct ts_json *event,
                           struct ts_error *err)
{
    const struct ts_cluster *cluster = s->site.cluster;
    uint32_t node;
    enum ts_status status = find_node(cluster, ts_json_string(ts_json_get(event, "lose"), NULL), &node, err);
    for (uint32_t i = 0; status == TS_OK && i < cluster->gpu_count; i++) {
        if (cluster->gpus[i].node == node)
            cloud_site_lose(s->running, at, i);
    }
    return status;
}

static enum ts_status adopt(struct tsctl_simulation *s, ts_time at, const struct ts_json *event,
                            struct ts_error *err)
{
    const char *path = ts_json_string(ts_json_get(event, "plan"), NULL);
    struct tsctl_plan_doc *doc = NULL;
    struct ts_plan *plan = NULL;
    uint32_t lost = 0;
    if (!path)
        return ts_error_set(err, TS_EINVAL, "\"plan\" is not the path of a plan");
    enum ts_status status = tsctl_plan_read(path, &doc, err);
    if (status == TS_OK)
        status = tsctl_plan_bind(doc, s->site.cluster, &plan, &lost, err);
    if (status == TS_OK && lost > 0)
        status = ts_error_set(err, TS_EINVAL, "%s: %u replicas stand on devices that cluster %s has not",
                              path, lost, s->site.cluster->name);
    tsctl_plan_doc_destroy(&doc);
    if (status != TS_OK) {
        ts_plan_destroy(&plan);
        return status;
    }
    struct tsctl_events *events = s->plans;
    events->plans = ts_xrealloc(events->plans, (events->plan_count + 1) * sizeof *events->plans);
    events->plans[events->plan_count++] = plan;
    cloud_site_regroup(s->running, at, plan);
    return TS_OK;
}

static enum ts_status change_links(const struct tsctl_simulation *s, ts_time at, const struct ts_json *event,
                                   struct ts_error *err)
{
    const struct ts_cluster *cluster = s->site.cluster;
    const struct ts_json *link = ts_json_get(event, "link"), *slow = ts_json_get(event, "slow");
    double factor = 0;
    uint32_t from, to = 0;
    enum ts_status status = ts_json_read_number(event, "factor", 1e-6, 1e6, &factor, err);
    if (status == TS_OK)
        status = find_node(cluster, ts_json_string(link ? ts_json_at(link, 0) : slow, NULL), &from, err);
    if (status == TS_OK && link)
        status = find_node(cluster, ts_json_string(ts_json_at(link, 1), NULL), &to, err);
    if (status != TS_OK)
        return status;
    if (link) {
        cloud_site_link(s->running, at, from, to, factor);
        return TS_OK;
    }
    for (to = 0; to < cluster->node_count; to++) {
        if (to == from)
            continue;
        cloud_site_link(s->running, at, from, to, factor);
        cloud_site_link(s->running, at, to, from, factor);
    }
    return TS_OK;
}

static enum ts_status apply(struct tsctl_simulation *s, const struct ts_json *event, struct ts_error *err)
{
    double at_s = 0;
    enum ts_status status = ts_json_read_number(event, "at_s", 0, 1e9, &at_s, err);
    ts_time at = (ts_time)(at_s * (double)TS_S);
    if (status != TS_OK)
        return status;
    if (!ts_json_is_null(ts_json_get(event, "lose")))
        return lose(s, at, event, err);
    if (!ts_json_is_null(ts_json_get(event, "plan")))
        return adopt(s, at, event, err);
    if (!ts_json_is_null(ts_json_get(event, "link")) || !ts_json_is_null(ts_json_get(event, "slow")))
        return change_links(s, at, event, err);
    return ts_error_set(err, TS_EINVAL, "nothing to do: expected one of lose, plan, slow, link");
}

enum ts_status tsctl_events_load(struct tsctl_simulation *s, struct ts_error *err)
{
    struct ts_json *list = NULL;
    enum ts_status status = ts_json_load(s->events, &list, err);
    s->plans = ts_xcalloc(1, sizeof *s->plans);
    for (size_t i = 0; status == TS_OK && i < ts_json_count(list); i++) {
        status = apply(s, ts_json_at(list, i), err);
        if (status != TS_OK)
            ts_error_prefix(err, "%.*s: event %zu", PLACE_BYTES, s->events, i);
    }
    ts_json_destroy(&list);
    return status;
}

void tsctl_events_fini(struct tsctl_simulation *s)
{
    for (size_t i = 0; s->plans && i < s->plans->plan_count; i++)
        ts_plan_destroy(&s->plans->plans[i]);
    if (s->plans)
        ts_free(s->plans->plans);
    ts_free(s->plans);
}
