/* What replicas and links did from instant to instant: differences of what a site counts. */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_simulate.h"

static double busiest_s(const struct cloud_site_replica *r)
{
    double most = 0;
    for (uint32_t s = 0; s < TS_STAGES_MAX; s++)
        most = fmax(most, r->busy_s[s]);
    return most;
}

static float share(double now, double *before, double step_s)
{
    double part = (now - *before) / step_s;
    *before = now;
    return (float)fmin(1, fmax(0, part)); /* a batch's time is counted when it begins */
}

/* Grows an array of what was counted by zeros. */
static void grow(double **items, size_t known, size_t now)
{
    *items = ts_xrealloc(*items, (now + 1) * sizeof **items);
    for (size_t i = known; i < now; i++)
        (*items)[i] = 0;
}

void tsctl_timeline_sample(struct tsctl_timeline *t, const struct cloud_site *site, double now_s)
{
    size_t replicas = cloud_site_replica_count(site), links = cloud_site_link_count(site);
    void *instants = t->instants;
    ts_array_reserve(&instants, &t->capacity, t->count + 1, sizeof *t->instants);
    t->instants = instants;
    grow(&t->busy_s, t->replicas, replicas);
    grow(&t->kv_s, t->replicas, replicas);
    grow(&t->link_s, t->links, links);
    t->replicas = replicas;
    t->links = links;
    struct tsctl_instant *instant = &t->instants[t->count++];
    *instant = (struct tsctl_instant){.replica_count = replicas,
                                      .link_count = links,
                                      .replicas = ts_xcalloc(replicas + 1, sizeof *instant->replicas),
                                      .links = ts_xcalloc(links + 1, sizeof *instant->links)};
    for (size_t i = 0; i < replicas; i++) {
        struct cloud_site_replica r = cloud_site_replica_at(site, i);
        bool alive = r.died_s > now_s;
        double lived_s = fmin(now_s, r.died_s) - r.born_s;
        instant->replicas[i] =
            (struct tsctl_sample){.busy = share(busiest_s(&r), &t->busy_s[i], t->step_s),
                                  .kv = share(r.kv_used_mean * fmax(0, lived_s), &t->kv_s[i], t->step_s),
                                  .phase = alive ? (uint8_t)r.phase : 0};
    }
    for (size_t i = 0; i < links; i++)
        instant->links[i] = share(cloud_site_link_at(site, i).busy_s, &t->link_s[i], t->step_s);
}

static void put_replica(const struct tsctl_timeline *t, size_t i, const char *name, struct ts_json *list)
{
    struct ts_json *item = ts_json_new_object(), *phases = ts_json_new_array(), *busy = ts_json_new_array(),
                   *kv = ts_json_new_array();
    for (size_t k = 0; k < t->count; k++) {
        static const struct tsctl_sample none = {.phase = 0};
        const struct tsctl_instant *instant = &t->instants[k];
        const struct tsctl_sample *s = i < instant->replica_count ? &instant->replicas[i] : &none;
        const char *phase = s->phase == TS_PHASE_BOTH ? "both" : ts_phase_name((enum ts_phase)s->phase);
        ts_json_put_string(phases, NULL, phase, strlen(phase));
        ts_json_put_number(busy, NULL, (double)s->busy);
        ts_json_put_number(kv, NULL, (double)s->kv);
    }
    ts_json_put_string(item, "name", name, strlen(name));
    ts_json_put(item, "phase", &phases);
    ts_json_put(item, "busy", &busy);
    ts_json_put(item, "kv", &kv);
    ts_json_put(list, NULL, &item);
}

void tsctl_timeline_json(const struct tsctl_timeline *t, const struct tsctl_report *report,
                         struct ts_json *into)
{
    struct ts_json *timeline = ts_json_new_object(), *replicas = ts_json_new_array(),
                   *links = ts_json_new_array();
    for (size_t i = 0; i < report->replica_count; i++)
        put_replica(t, i, report->replicas[i].name, replicas);
    for (size_t i = 0; i < report->link_count; i++) {
        struct ts_json *item = ts_json_new_object(), *busy = ts_json_new_array();
        for (size_t k = 0; k < t->count; k++)
            ts_json_put_number(busy, NULL,
                               i < t->instants[k].link_count ? (double)t->instants[k].links[i] : 0);
        ts_json_put_string(item, "from", report->links[i].from, strlen(report->links[i].from));
        ts_json_put_string(item, "to", report->links[i].to, strlen(report->links[i].to));
        ts_json_put(item, "busy", &busy);
        ts_json_put(links, NULL, &item);
    }
    ts_json_put_number(timeline, "step_s", t->step_s);
    ts_json_put(timeline, "replicas", &replicas);
    ts_json_put(timeline, "links", &links);
    ts_json_put(into, "timeline", &timeline);
}

void tsctl_timeline_fini(struct tsctl_timeline *t)
{
    for (size_t i = 0; i < t->count; i++) {
        ts_free(t->instants[i].replicas);
        ts_free(t->instants[i].links);
    }
    ts_free(t->instants);
    ts_free(t->busy_s);
    ts_free(t->kv_s);
    ts_free(t->link_s);
    *t = (struct tsctl_timeline){.count = 0};
}
