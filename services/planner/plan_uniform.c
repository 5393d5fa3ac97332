/*
 * `uniform`: every worker keeps its phase, every pair of a prefill and a decode worker of one model gets an
 * equal share: z[p][d] = 1 / number of pairs. The baseline, and what a cluster of equal machines needs.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/planner_algorithm.h"

struct planner_search {
    const struct ts_msg_snapshot *snapshot;
};

static struct planner_search *uniform_open(const struct ts_msg_snapshot *snapshot)
{
    struct planner_search *search = ts_xcalloc(1, sizeof *search);
    search->snapshot = snapshot;
    return search;
}

static bool uniform_step(struct planner_search *search, uint64_t budget)
{
    (void)search;
    (void)budget;
    return true;
}

static bool usable(const struct ts_plan_worker *w)
{
    return w->ready && !w->draining;
}

static bool pairs(const struct ts_plan_worker *p, const struct ts_plan_worker *d)
{
    return (p->phase & TS_PHASE_PREFILL) && (d->phase & TS_PHASE_DECODE) && ts_str_equal(p->model, d->model);
}

static bool uniform_best(const struct planner_search *search, struct ts_arena *arena, struct ts_msg_plan *out)
{
    const struct ts_plan_workers *all = &search->snapshot->workers;
    struct ts_plan_replica *replicas = ts_arena_zalloc(arena, (all->count + 1) * sizeof *replicas);
    struct ts_plan_share *shares =
        ts_arena_zalloc(arena, ((size_t)all->count * all->count + 1) * sizeof *shares);
    uint32_t replica_count = 0, share_count = 0;
    for (uint32_t i = 0; i < all->count; i++) {
        if (usable(&all->data[i]))
            replicas[replica_count++] =
                (struct ts_plan_replica){.id = i, .worker = all->data[i].id, .phase = all->data[i].phase};
    }
    for (uint32_t i = 0; i < replica_count; i++) {
        for (uint32_t j = 0; j < replica_count; j++) {
            if (pairs(&all->data[replicas[i].id], &all->data[replicas[j].id]))
                shares[share_count++] =
                    (struct ts_plan_share){.prefill = replicas[i].id, .decode = replicas[j].id};
        }
    }
    for (uint32_t i = 0; i < share_count; i++)
        shares[i].share = 1.0 / share_count;
    out->replicas = (struct ts_plan_replicas){replicas, replica_count};
    out->shares = (struct ts_plan_shares){shares, share_count};
    out->binding = ts_str_of("equal shares: nothing is optimised");
    return share_count > 0;
}

static void uniform_close(struct planner_search **search)
{
    ts_free(*search);
    *search = NULL;
}

const struct planner_algorithm plan_uniform = {
    .name = "uniform",
    .summary = "equal shares over all pairs of prefill and decode workers",
    .open = uniform_open,
    .step = uniform_step,
    .best = uniform_best,
    .close = uniform_close,
};

const struct planner_algorithm *planner_algorithm_find(const char *name)
{
    static const struct planner_algorithm *const table[] = {&plan_uniform};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    }
    return NULL;
}
