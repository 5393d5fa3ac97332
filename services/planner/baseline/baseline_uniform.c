/*
 * `uniform`: what one does without looking at hardware or network, and the usual control of papers on split
 * phases. Each type of device is cut into the smallest equal groups that hold the model, groups take turns
 * (by devices) at prefill and decode, and requests are dealt out evenly over all pairs (round robin).
 *
 * Devices whose type alone cannot hold the model stay idle. One lone group colocates if that is allowed.
 */
#include "services/planner/baseline/baseline_common.h"

struct plan_search {
    struct baseline base;
};

/* Of the smallest groups the best at prefill: only TP and PP are left to choose. */
static void cut_type(struct baseline *base, uint32_t type, uint32_t *idle, struct plan_state *state)
{
    struct baseline_config configs[BASELINE_CONFIGS_MAX], *best = NULL;
    uint32_t count = baseline_configs(base, idle, type, TS_PHASE_PREFILL, configs);
    for (uint32_t i = 0; i < count && configs[i].tp * configs[i].pp == configs[0].tp * configs[0].pp; i++) {
        if (!best || configs[i].score > best->score)
            best = &configs[i];
    }
    if (best)
        (void)baseline_replicate(base, best, TS_PHASE_PREFILL, UINT32_MAX, idle, state);
}

static void deal_phases(struct baseline *base, struct plan_state *state)
{
    uint32_t prefill = 0, decode = 0;
    for (uint32_t i = 0; i < state->count; i++) {
        struct plan_group *group = &state->groups[i];
        if (prefill > decode && baseline_rephase(base, group, TS_PHASE_DECODE))
            decode += group->shape->gpus;
        else
            prefill += group->shape->gpus;
    }
    if (state->count == 1 && base->problem->colocate)
        (void)baseline_rephase(base, &state->groups[0], TS_PHASE_BOTH);
}

/* Round robin knows pairs and no capacities. */
static struct plan_share *uniform_route(struct baseline *base, const struct plan_state *state,
                                        uint32_t *count)
{
    (void)base;
    struct plan_share *shares = baseline_shares(state, NULL, NULL, TS_COST_CODEC_NONE, count);
    for (uint32_t i = 0; i < *count; i++)
        shares[i].share = 1.0 / *count;
    return shares;
}

static bool uniform_advance(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t count = 0;
    for (uint32_t type = 0; type < base->problem->cluster->type_count; type++)
        cut_type(base, type, base->idle, &base->draft);
    deal_phases(base, &base->draft);
    struct plan_share *shares = uniform_route(base, &base->draft, &count);
    if (shares)
        baseline_answer(base, &base->draft, shares, count);
    return true;
}

static const struct baseline_kind kind = {
    .name = "uniform",
    .size = sizeof(struct plan_search),
    .advance = uniform_advance,
    .route = uniform_route,
};

static struct plan_search *uniform_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_uniform = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "uniform",
    .summary = "smallest equal groups, half of the devices to each phase, round robin",
    .open = uniform_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
