#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "services/planner/planner_impl.h"

#define CENTRE_CHANGE 0.25 /* of a class, from which on classes are other ones */

/* --- Clusters --- */

bool worker_usable(const struct ts_plan_worker *w)
{
    return w->ready && !w->draining;
}

enum ts_phase worker_phase(const struct planner_core *core, const struct ts_plan_worker *w)
{
    const struct fixed_worker *fixed = loop_fixed(core, w->id);
    return fixed && fixed->under_way && fixed->incarnation == w->incarnation ? fixed->phase : w->phase;
}

static uint64_t hash_text(struct ts_str text, uint64_t seed)
{
    return ts_hash64(text.count ? text.data : "", text.count, seed + text.count);
}

uint64_t cluster_hash(const struct planner_core *core, const struct ts_msg_snapshot *snapshot)
{
    uint64_t hash = 1;
    for (uint32_t i = 0; i < snapshot->workers.count; i++) {
        const struct ts_plan_worker *w = &snapshot->workers.data[i];
        if (!worker_usable(w))
            continue;
        const uint64_t numbers[] = {w->incarnation, w->phases,    worker_phase(core, w),
                                    w->layers,      w->kv_blocks, w->stages.count};
        hash = ts_hash64(numbers, sizeof numbers, hash);
        hash = hash_text(w->id, hash_text(w->host, hash_text(w->model, hash_text(w->device, hash))));
        for (uint32_t s = 0; s < w->stages.count; s++) {
            const struct ts_stage_item *item = &w->stages.data[s];
            const uint64_t stage[] = {item->tp, item->layers};
            hash = ts_hash64(stage, sizeof stage, hash_text(item->host, hash_text(item->device, hash)));
        }
    }
    return hash ? hash : 1;
}

bool cluster_paired(const struct planner_core *core, const struct ts_msg_snapshot *snapshot)
{
    const struct ts_plan_worker *all = snapshot->workers.data;
    bool paired = true;
    for (uint32_t i = 0; paired && i < snapshot->workers.count; i++) {
        uint32_t first = 0, phases = 0;
        if (!worker_usable(&all[i]))
            continue;
        while (first < i && !(worker_usable(&all[first]) && ts_str_equal(all[first].model, all[i].model)))
            first++;
        for (uint32_t k = i; first == i && phases != TS_PHASE_BOTH && k < snapshot->workers.count; k++) {
            if (worker_usable(&all[k]) && ts_str_equal(all[k].model, all[i].model))
                phases |= worker_phase(core, &all[k]);
        }
        paired = first < i || phases == TS_PHASE_BOTH;
    }
    return paired;
}

static struct ts_map *replicas_by_worker(const struct ts_msg_plan *plan)
{
    struct ts_map *map = ts_map_new();
    for (uint32_t i = 0; i < plan->replicas.count; i++) {
        const struct ts_plan_replica *r = &plan->replicas.data[i];
        if (r->worker.count)
            ts_map_put(map, r->worker.data, r->worker.count, (void *)(uintptr_t)r);
    }
    return map;
}

static struct ts_map *usable_by_id(const struct ts_msg_snapshot *snapshot)
{
    struct ts_map *map = ts_map_new();
    for (uint32_t i = 0; i < snapshot->workers.count; i++) {
        const struct ts_plan_worker *w = &snapshot->workers.data[i];
        if (w->id.count && worker_usable(w))
            ts_map_put(map, w->id.data, w->id.count, (void *)(uintptr_t)w);
    }
    return map;
}

static const void *find(const struct ts_map *map, struct ts_str name)
{
    return name.count ? ts_map_get(map, name.data, name.count) : NULL;
}

static int shown(struct ts_str name)
{
    return (int)(name.count < 60 ? name.count : 60);
}

void cluster_words(const struct ts_msg_plan *plan, const struct ts_msg_snapshot *snapshot, char *words,
                   size_t size)
{
    struct ts_map *planned = replicas_by_worker(plan), *usable = usable_by_id(snapshot);
    const struct ts_plan_worker *joined = NULL;
    const struct ts_plan_replica *lost = NULL;
    for (uint32_t i = 0; i < snapshot->workers.count && !joined; i++) {
        const struct ts_plan_worker *w = &snapshot->workers.data[i];
        joined = worker_usable(w) && !find(planned, w->id) ? w : NULL;
    }
    for (uint32_t i = 0; i < plan->replicas.count && !lost; i++)
        lost = find(usable, plan->replicas.data[i].worker) ? NULL : &plan->replicas.data[i];
    if (lost)
        snprintf(words, size, "worker %.*s is gone", shown(lost->worker), lost->worker.data);
    else if (joined)
        snprintf(words, size, "worker %.*s has come", shown(joined->id), joined->id.data);
    else
        snprintf(words, size, "a worker has changed");
    ts_map_destroy(&planned);
    ts_map_destroy(&usable);
}

/* --- Whether plans differ --- */

static bool same_centre(double a, double b)
{
    return fabs(a - b) <= CENTRE_CHANGE * fmin(a, b);
}

static bool same_classes(const struct ts_plan_classes *a, const struct ts_plan_classes *b)
{
    bool same = a->count == b->count;
    for (uint32_t k = 0; same && k < a->count; k++)
        same = same_centre(a->data[k].prompt_tokens, b->data[k].prompt_tokens) &&
               same_centre(a->data[k].output_tokens, b->data[k].output_tokens);
    return same;
}

enum role { ROLE_PREFILL, ROLE_DECODE, ROLE_EXACT, ROLES }; /* exact: prefill whose KV is sent as it is */

/* What each replica gets of each class in each role: [(class * replicas + replica) * ROLES + role]. `index`
 * gives a replica of the plan its number in both. */
static void add_loads(const struct ts_msg_plan *plan, const struct ts_map *index, uint32_t replicas,
                      const struct ts_plan_replica *first, double sign, double *loads)
{
    struct ts_map *by_id = ts_map_new();
    for (uint32_t i = 0; i < plan->replicas.count; i++)
        ts_map_put_u64(by_id, plan->replicas.data[i].id, (void *)(uintptr_t)&plan->replicas.data[i]);
    for (uint32_t i = 0; i < plan->shares.count; i++) {
        const struct ts_plan_share *z = &plan->shares.data[i];
        const struct ts_plan_replica *p = ts_map_get_u64(by_id, z->prefill),
                                     *d = ts_map_get_u64(by_id, z->decode);
        size_t row = (size_t)z->length_class * replicas;
        double *from =
            loads + ROLES * (row + (size_t)((const struct ts_plan_replica *)find(index, p->worker) - first));
        double *to =
            loads + ROLES * (row + (size_t)((const struct ts_plan_replica *)find(index, d->worker) - first));
        from[ROLE_PREFILL] += sign * z->share;
        to[ROLE_DECODE] += sign * z->share;
        from[ROLE_EXACT] += ts_str_equal(z->codec, ts_str_of("none")) ? sign * z->share : 0;
    }
    ts_map_destroy(&by_id);
}

/* The share of requests that go to other replicas, or as another codec, of all classes alike. */
static double moved_share(const struct ts_msg_plan *a, const struct ts_msg_plan *b)
{
    uint32_t classes = a->classes.count ? a->classes.count : 1, replicas = a->replicas.count;
    struct ts_map *index = replicas_by_worker(a);
    double *loads = ts_xcalloc((size_t)classes * replicas * ROLES + 1, sizeof *loads), sums[ROLES] = {0};
    add_loads(a, index, replicas, a->replicas.data, 1, loads);
    add_loads(b, index, replicas, a->replicas.data, -1, loads);
    for (size_t i = 0; i < (size_t)classes * replicas; i++) {
        for (int role = 0; role < ROLES; role++)
            sums[role] += fabs(loads[ROLES * i + role]) / (role == ROLE_EXACT ? 1 : 2);
    }
    ts_free(loads);
    ts_map_destroy(&index);
    return fmax(sums[ROLE_PREFILL], fmax(sums[ROLE_DECODE], sums[ROLE_EXACT])) / classes;
}

bool plan_differs(const struct ts_msg_plan *before, const struct ts_msg_plan *after, double share)
{
    struct ts_map *old = replicas_by_worker(before);
    bool same =
        before->replicas.count == after->replicas.count && same_classes(&before->classes, &after->classes);
    for (uint32_t i = 0; same && i < after->replicas.count; i++) {
        const struct ts_plan_replica *r = find(old, after->replicas.data[i].worker);
        same = r && r->phase == after->replicas.data[i].phase;
    }
    ts_map_destroy(&old);
    return !same || moved_share(before, after) > share;
}

/* --- A part of a plan --- */

static bool has_all(const struct ts_msg_plan *plan, const struct ts_map *usable)
{
    bool all = true;
    for (uint32_t i = 0; all && i < plan->replicas.count; i++)
        all = find(usable, plan->replicas.data[i].worker) != NULL;
    return all;
}

struct ts_msg_plan plan_part(const struct ts_msg_plan *plan, const struct ts_msg_snapshot *snapshot,
                             struct ts_arena *arena)
{
    struct ts_msg_plan part = *plan;
    struct ts_map *usable = usable_by_id(snapshot), *kept = ts_map_new();
    if (!has_all(plan, usable)) {
        uint32_t classes = plan->classes.count ? plan->classes.count : 1, replicas = 0, shares = 0;
        struct ts_plan_replica *r = ts_arena_zalloc(arena, (plan->replicas.count + 1) * sizeof *r);
        struct ts_plan_share *z = ts_arena_zalloc(arena, (plan->shares.count + 1) * sizeof *z);
        double *sums = ts_arena_zalloc(arena, classes * sizeof *sums);
        for (uint32_t i = 0; i < plan->replicas.count; i++) {
            if (find(usable, plan->replicas.data[i].worker)) {
                r[replicas] = plan->replicas.data[i];
                ts_map_put_u64(kept, r[replicas].id, &r[replicas]);
                replicas++;
            }
        }
        for (uint32_t i = 0; i < plan->shares.count; i++) {
            const struct ts_plan_share *from = &plan->shares.data[i];
            if (ts_map_get_u64(kept, from->prefill) && ts_map_get_u64(kept, from->decode)) {
                z[shares++] = *from;
                sums[from->length_class] += from->share;
            }
        }
        for (uint32_t i = 0; i < shares; i++)
            z[i].share /= sums[z[i].length_class] > 0 ? sums[z[i].length_class] : 1;
        part.replicas = (struct ts_plan_replicas){r, replicas};
        part.shares = (struct ts_plan_shares){z, shares};
    }
    ts_map_destroy(&usable);
    ts_map_destroy(&kept);
    return part;
}
