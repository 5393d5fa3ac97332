/*
 * What changes while a site runs: losses, regroupings.
 */
#include "common/base/ts_mem.h"
#include "services/cloud/cloud_site_impl.h"
#include "services/planner/plan_adopt.h"

struct change {
    struct change *next;
    struct cloud_site *site;
    const struct ts_plan *plan;
    uint32_t gpu;
};

static void at(struct cloud_site *site, ts_time when, void (*call)(void *context), const struct ts_plan *plan,
               uint32_t gpu)
{
    struct change *c = ts_xcalloc(1, sizeof *c);
    *c = (struct change){.next = site->changes, .site = site, .plan = plan, .gpu = gpu};
    site->changes = c;
    cloud_at(site->cloud, when + SITE_START, call, c);
}

void site_changes_free(struct cloud_site *site)
{
    for (struct change *c = site->changes, *next; c; c = next) {
        next = c->next;
        ts_free(c);
    }
    site->changes = NULL;
}

void site_adopt(struct cloud_site *site, const struct ts_plan *plan)
{
    ts_free(site->workers);
    ts_free(site->of_group);
    site->plan = plan;
    site->workers = ts_xcalloc((size_t)plan->group_count + 1, sizeof(const char *));
    site->of_group = ts_xcalloc((size_t)plan->group_count + 1, sizeof(struct replica *));
}

void site_publish(struct cloud_site *site)
{
    const struct cloud_publication publication = {
        .plan = site->plan, .demand = site->settings.demand, .workers = site->workers};
    if (cloud_node_kind(site->planner) == CLOUD_PUBLISHER)
        cloud_publish(site->planner, &publication);
}

/* --- losses ------------------------------------------------------------------------------------------ */

static bool has_gpu(const struct ts_group *group, uint32_t gpu)
{
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            if (group->stages[s].gpus[i] == gpu)
                return true;
        }
    }
    return false;
}

/* Nobody who is to join may have it either. */
static void forget_joining(struct cloud_site *site, uint32_t gpu)
{
    size_t left = 0;
    for (size_t i = 0; i < site->joining_count; i++) {
        if (!has_gpu(&site->plan->groups[site->joining[i].group], gpu))
            site->joining[left++] = site->joining[i];
    }
    site->joining_count = left;
}

static void lose_happens(void *context)
{
    const struct change *c = context;
    struct cloud_site *site = c->site;
    forget_joining(site, c->gpu);
    for (uint32_t g = 0; g < site->plan->group_count; g++) {
        if (!has_gpu(&site->plan->groups[g], c->gpu))
            continue;
        site->workers[g] = NULL;
        site->of_group[g] = NULL;
    }
    for (size_t i = 0; i < site->replica_count; i++) {
        struct replica *r = site->replicas[i];
        if (!has_gpu(&r->group, c->gpu))
            continue;
        r->leaving = true;
        cloud_retire(r->node);
        cloud_kill(r->node);
    }
    site_publish(site);
}

void cloud_site_lose(struct cloud_site *site, ts_time when, uint32_t gpu)
{
    at(site, when, lose_happens, NULL, gpu);
}

/* --- regrouping -------------------------------------------------------------------------------------- */

static void leave(struct replica *r)
{
    r->leaving = true;
    cloud_retire(r->node);
    cloud_drain(r->node);
}

/* The slowest node of the group, each busy with all that it has to load for the plan. */
static double load_s(const struct cloud_site *site, const struct ts_group *group, const double *bytes)
{
    const struct ts_cluster *cluster = site->settings.cluster;
    double most = 0;
    for (uint32_t s = 0; s < group->stage_count; s++) {
        uint32_t node = cluster->gpus[group->stages[s].gpus[0]].node;
        double sum = 0;
        for (uint32_t i = 0; i < cluster->gpu_count; i++)
            sum += cluster->gpus[i].node == node ? bytes[i] : 0;
        most = sum > most ? sum : most;
    }
    return most / site->settings.load_bytes_per_s;
}

static void regroup_happens(void *context)
{
    const struct change *c = context;
    struct cloud_site *site = c->site;
    const struct ts_plan *from = site->plan, *to = c->plan;
    struct replica **before = site->of_group;
    uint32_t before_count = from->group_count;
    double *bytes = ts_xcalloc((size_t)site->settings.cluster->gpu_count + 1, sizeof *bytes);
    plan_change_bytes(site->settings.cluster, site->settings.model, from, to, bytes);
    site->of_group = NULL;
    site_adopt(site, to);
    site->joining = ts_xrealloc(site->joining, ((size_t)to->group_count + 1) * sizeof *site->joining);
    site->joining_count = 0;
    for (uint32_t g = 0; g < to->group_count; g++) {
        uint32_t k = 0;
        while (k < before_count && !(before[k] && ts_group_same_devices(&before[k]->group, &to->groups[g])))
            k++;
        if (k == before_count) {
            site->joining[site->joining_count++] = (struct joining){
                .group = g, .at = TS_TIME_NEVER, .load_s = load_s(site, &to->groups[g], bytes)};
            continue;
        }
        site->of_group[g] = before[k];
        site->workers[g] = before[k]->id;
        before[k] = NULL;
    }
    for (uint32_t k = 0; k < before_count; k++) {
        if (before[k])
            leave(before[k]);
    }
    ts_free(before);
    ts_free(bytes);
    site_publish(site);
}

void cloud_site_regroup(struct cloud_site *site, ts_time when, const struct ts_plan *plan)
{
    at(site, when, regroup_happens, plan, 0);
}

/* Whether nobody who was there before works on one of its devices any more. */
static bool devices_free(const struct cloud_site *site, const struct ts_group *group)
{
    for (size_t i = 0; i < site->replica_count; i++) {
        const struct replica *r = site->replicas[i];
        bool gone = r->leaving && !cloud_node_alive(r->node);
        for (uint32_t s = 0; s < group->stage_count && !gone; s++) {
            for (uint32_t k = 0; k < group->stages[s].tp; k++) {
                if (has_gpu(&r->group, group->stages[s].gpus[k]))
                    return false;
            }
        }
    }
    return true;
}

void site_join(struct cloud_site *site)
{
    ts_time now = cloud_now(site->cloud);
    size_t left = 0, before = site->joining_count;
    for (size_t i = 0; i < before; i++) {
        struct joining j = site->joining[i];
        struct ts_error err = {0};
        if (j.at == TS_TIME_NEVER && devices_free(site, &site->plan->groups[j.group]))
            j.at = now + (ts_time)(j.load_s * 1e9);
        if (j.at > now)
            site->joining[left++] = j;
        else if (site_add_replica(site, j.group, &err) != TS_OK)
            cloud_fail(site->cloud, "%s", err.text);
    }
    site->joining_count = left;
    if (left < before)
        site_publish(site);
}
