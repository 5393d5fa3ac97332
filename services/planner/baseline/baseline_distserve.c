/*
 * `distserve`: Zhong et al., "DistServe: Disaggregating Prefill and Decoding for Goodput-optimized Large
 * Language Model Serving", OSDI 2024. Modelled: the placement search of section 4 for equal devices. For each
 * phase all (TP, PP) are tried, the goodput of a prefill and of a decode replica is asked of the model, and
 * both are replicated so that their rates match. Two kinds of placement: Algorithm 1 (high node affinity:
 * prefill and decode anywhere) and Algorithm 2 (low node affinity: a prefill replica only feeds decode
 * replicas of its own node, so KV stays off the network). Dispatch to the shortest prefill queue and the
 * least loaded decode replica (section 4.3): shares follow what replicas can serve.
 *
 * Where the paper ranks each phase apart by goodput per device, here all pairs of the best few of both are
 * tried, which can only find more on a cluster that replicas do not fill evenly. A cluster of several types
 * is planned as one deployment for each type, as the paper knows equal devices only; a type that cannot hold
 * two replicas stays idle.
 */
#include <math.h>
#include <stdlib.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"

#define KEPT 8 /* configurations of each phase */

struct plan_search {
    struct baseline base;
    uint32_t type;
    bool ready; /* the configurations of the type are there */
    struct baseline_config prefill[BASELINE_CONFIGS_MAX], decode[BASELINE_CONFIGS_MAX];
    uint32_t prefill_count, decode_count, pair;
    struct plan_state best; /* of the type */
    double best_value;
    bool best_local;
    uint32_t *pools; /* of the groups of the draft, which gathers the best of all types */
    uint32_t pool_count;
};

static double per_device(const struct baseline_config *config)
{
    return config->score / (config->tp * config->pp);
}

static int compare(const void *left, const void *right)
{
    const struct baseline_config *a = left, *b = right;
    if (per_device(a) != per_device(b))
        return per_device(a) > per_device(b) ? -1 : 1;
    int x = a->tp * a->pp, y = b->tp * b->pp;
    return x != y ? x - y : a->pp - b->pp;
}

static uint32_t rank(struct baseline *base, uint32_t type, enum ts_phase phase, struct baseline_config *out)
{
    uint32_t count = baseline_configs(base, base->idle, type, phase, out);
    qsort(out, count, sizeof *out, compare);
    return count < KEPT ? count : KEPT;
}

/* Prefill replicas out of `devices` such that the lesser of both rates is greatest. At least one of each
 * phase where there is room for it, else 0. */
static uint32_t matched(const struct baseline_config *p, const struct baseline_config *d, uint32_t devices)
{
    uint32_t a = p->tp * p->pp, b = d->tp * d->pp, best = 0;
    double best_rate = -1;
    for (uint32_t n = 1; n * a + b <= devices; n++) {
        uint32_t m = (devices - n * a) / b;
        double rate = fmin(n * p->score, m * d->score);
        if (rate > best_rate) {
            best = n;
            best_rate = rate;
        }
    }
    return best;
}

/* Numbers pools from `first`: one for all groups, or one for each node. Returns the next number. */
static uint32_t number_pools(const struct plan_problem *problem, const struct plan_state *state, bool local,
                             uint32_t first, uint32_t *pools)
{
    uint32_t next = first;
    for (uint32_t i = 0; i < state->count; i++) {
        const uint32_t node = problem->cluster->cells[state->groups[i].parts[0].cell].node;
        pools[i] = UINT32_MAX;
        for (uint32_t j = 0; j < i && pools[i] == UINT32_MAX; j++) {
            if (!local || problem->cluster->cells[state->groups[j].parts[0].cell].node == node)
                pools[i] = pools[j];
        }
        if (pools[i] == UINT32_MAX)
            pools[i] = next++;
    }
    return next;
}

static void consider(struct plan_search *search, const struct plan_state *state, bool local)
{
    struct baseline *base = &search->base;
    uint32_t *pools = ts_xcalloc(state->count + 1, sizeof *pools), count = 0;
    (void)number_pools(base->problem, state, local, 0, pools);
    struct plan_share *shares = baseline_shares_by_score(base, state, pools, &count);
    if (shares) {
        double value = plan_eval_fixed(base->eval, state, shares, count, NULL);
        base->ticks++;
        if (value > search->best_value * (1 + 1e-9) || search->best.count == 0) {
            plan_state_copy(&search->best, state);
            search->best_value = value;
            search->best_local = local;
        }
    }
    ts_free(shares);
    ts_free(pools);
}

/* Algorithm 1 with n prefill replicas and decode replicas from the rest. */
static void place_anywhere(struct plan_search *search, const struct baseline_config *p,
                           const struct baseline_config *d, uint32_t n)
{
    struct baseline *base = &search->base;
    uint32_t *idle = baseline_copy(base, base->idle);
    struct plan_state state;
    plan_state_init(&state);
    if (baseline_replicate(base, p, TS_PHASE_PREFILL, n, idle, &state) == n &&
        baseline_replicate(base, d, TS_PHASE_DECODE, UINT32_MAX, idle, &state) > 0)
        consider(search, &state, false);
    plan_state_fini(&state);
    ts_free(idle);
}

/* Algorithm 2: rates are matched in each node. */
static void place_in_nodes(struct plan_search *search, const struct baseline_config *p,
                           const struct baseline_config *d)
{
    struct baseline *base = &search->base;
    const struct ts_cluster *cluster = base->problem->cluster;
    uint32_t *idle = baseline_copy(base, base->idle);
    struct plan_state state;
    struct plan_group group;
    plan_state_init(&state);
    for (uint32_t cell = 0; cell < cluster->cell_count; cell++) {
        if (cluster->cells[cell].type != search->type)
            continue;
        uint32_t n = matched(p, d, idle[cell]);
        for (uint32_t i = 0; i < n && baseline_take(base, p, TS_PHASE_PREFILL, cell, idle, &group); i++)
            (void)plan_state_add(&state, &group);
        while (n > 0 && baseline_take(base, d, TS_PHASE_DECODE, cell, idle, &group))
            (void)plan_state_add(&state, &group);
    }
    if (state.count > 0)
        consider(search, &state, true);
    plan_state_fini(&state);
    ts_free(idle);
}

static void try_pair(struct plan_search *search, uint32_t pair)
{
    const struct baseline_config *p = &search->prefill[pair / search->decode_count];
    const struct baseline_config *d = &search->decode[pair % search->decode_count];
    uint32_t devices = baseline_type_count(search->base.problem, search->base.idle, search->type);
    uint32_t n = matched(p, d, devices);
    if (n == 0)
        return;
    /* Rates match between two counts; the evaluator says on which side. */
    for (uint32_t i = n > 1 ? n - 1 : n; i <= n + 1; i++)
        place_anywhere(search, p, d, i);
    place_in_nodes(search, p, d);
}

static void gather_type(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t before = base->draft.count;
    search->pools = ts_xrealloc(search->pools, (before + search->best.count + 1) * sizeof *search->pools);
    search->pool_count = number_pools(base->problem, &search->best, search->best_local, search->pool_count,
                                      search->pools + before);
    for (uint32_t i = 0; i < search->best.count; i++)
        (void)plan_state_add(&base->draft, &search->best.groups[i]);
    search->best.count = 0;
    search->best_value = 0;
    search->ready = false;
    search->type++;
}

/* A pair of configurations of one type in each call; after the last, the deployments of all types. */
static bool distserve_advance(struct plan_search *search)
{
    struct baseline *base = &search->base;
    if (!search->ready) {
        search->prefill_count = rank(base, search->type, TS_PHASE_PREFILL, search->prefill);
        search->decode_count = rank(base, search->type, TS_PHASE_DECODE, search->decode);
        search->pair = 0;
        search->ready = true;
    }
    if (search->pair < search->prefill_count * search->decode_count)
        try_pair(search, search->pair++);
    else
        gather_type(search);
    if (search->type < base->problem->cluster->type_count)
        return false;
    uint32_t count = 0;
    struct plan_share *shares = baseline_shares_by_score(base, &base->draft, search->pools, &count);
    if (shares)
        baseline_answer(base, &base->draft, shares, count);
    return true;
}

static void distserve_fini(struct plan_search *search)
{
    plan_state_fini(&search->best);
    ts_free(search->pools);
}

static const struct baseline_kind kind = {
    .name = "distserve",
    .size = sizeof(struct plan_search),
    .advance = distserve_advance,
    .fini = distserve_fini,
};

static struct plan_search *distserve_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_distserve = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "distserve",
    .summary = "goodput search over equal devices, prefill and decode replicated to match (OSDI 2024)",
    .open = distserve_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
