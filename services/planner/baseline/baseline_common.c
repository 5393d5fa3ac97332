#include "services/planner/baseline/baseline_common.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

/* Its first member, in each baseline. */
static struct baseline *base_of(struct plan_search *search)
{
    return (struct baseline *)search;
}

/* The plan in force as the draft. */
static bool take_current(struct baseline *base, struct ts_error *err)
{
    if (!base->problem->current) {
        (void)ts_error_set(err, TS_EINVAL, "to re-route or flip, the plan in force is needed");
        return false;
    }
    return plan_state_of_plan(base->shapes, base->problem->current, &base->draft, err) == TS_OK;
}

struct plan_search *baseline_open(const struct baseline_kind *kind, const struct plan_problem *problem,
                                  struct ts_error *err)
{
    const bool anew = problem->depth == PLAN_REGROUP;
    if (anew && kind->only_colocates && !problem->colocate) {
        (void)ts_error_set(err, TS_EUNSUPPORTED,
                           "%s does not split requests, and colocated replicas are forbidden", kind->name);
        return NULL;
    }
    struct baseline *base = ts_xcalloc(1, kind->size);
    struct plan_search *search = (struct plan_search *)base;
    base->kind = kind;
    base->problem = problem;
    base->shapes = plan_shapes_new(problem);
    base->eval = plan_eval_new(base->shapes);
    plan_state_init(&base->draft);
    plan_state_init(&base->state);
    base->idle = ts_xcalloc(problem->cluster->cell_count + 1, sizeof *base->idle);
    plan_state_idle(problem, &base->draft, base->idle);
    if (!anew && !take_current(base, err))
        baseline_close(&search);
    return search;
}

void baseline_close(struct plan_search **search)
{
    if (!*search)
        return;
    struct baseline *base = base_of(*search);
    if (base->kind->fini)
        base->kind->fini(*search);
    ts_free(base->shares);
    ts_free(base->idle);
    plan_state_fini(&base->draft);
    plan_state_fini(&base->state);
    plan_eval_destroy(&base->eval);
    plan_shapes_destroy(&base->shapes);
    ts_free(base);
    *search = NULL;
}

/* The plan in force by the baseline's routing rule. */
static bool route_current(struct baseline *base)
{
    uint32_t count = 0;
    struct plan_share *shares = base->kind->route
                                    ? base->kind->route(base, &base->draft, &count)
                                    : baseline_shares_by_score(base, &base->draft, NULL, &count);
    if (shares)
        baseline_answer(base, &base->draft, shares, count);
    return true;
}

bool baseline_step(struct plan_search *search, uint64_t budget)
{
    struct baseline *base = base_of(search);
    const enum plan_depth depth = base->problem->depth;
    const bool searches = depth == PLAN_REGROUP || (depth == PLAN_FLIP && base->kind->flips);
    base->granted = budget > UINT64_MAX - base->granted ? UINT64_MAX : base->granted + budget;
    while (!base->done && plan_eval_work(base->eval) + base->ticks < base->granted) {
        base->ticks++;
        base->done = searches ? base->kind->advance(search) : route_current(base);
    }
    return base->done;
}

struct ts_plan *baseline_best(struct plan_search *search)
{
    struct baseline *base = base_of(search);
    if (!base->found)
        return NULL;
    if (base->shares)
        return plan_eval_fixed_plan(base->eval, &base->state, base->shares, base->share_count,
                                    base->kind->name);
    return plan_eval_plan(base->eval, &base->state, base->kind->name);
}

void baseline_describe(const struct plan_search *search, char *out, size_t size)
{
    const struct baseline *base = (const struct baseline *)search;
    unsigned long long runs = plan_eval_runs(base->eval);
    if (base->found)
        (void)snprintf(out, size, "evaluations %llu, best %.4g", runs, base->objective);
    else
        (void)snprintf(out, size, "evaluations %llu, no plan yet", runs);
}

void baseline_answer(struct baseline *base, const struct plan_state *state, struct plan_share *shares,
                     uint32_t count)
{
    plan_state_copy(&base->state, state);
    ts_free(base->shares);
    base->shares = shares;
    base->share_count = count;
    base->found = true;
    base->objective = shares ? plan_eval_fixed(base->eval, &base->state, shares, count, NULL)
                             : plan_eval_run(base->eval, &base->state, NULL);
}

uint32_t *baseline_copy(const struct baseline *base, const uint32_t *counts)
{
    const size_t bytes = base->problem->cluster->cell_count * sizeof *counts;
    uint32_t *copy = ts_xmalloc(bytes);
    memcpy(copy, counts, bytes);
    return copy;
}

uint32_t baseline_type_count(const struct plan_problem *problem, const uint32_t *idle, uint32_t type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < problem->cluster->cell_count; i++) {
        if (problem->cluster->cells[i].type == type)
            count += idle[i];
    }
    return count;
}

/* The cell to take `need` devices in stages of tp from: the smallest that holds all, else the one with most.
 * A cell that the group has a part of already is out. */
static uint32_t pick_cell(const struct ts_cluster *cluster, const struct baseline_config *config,
                          const uint32_t *idle, const struct plan_group *group, uint32_t need, uint32_t only)
{
    uint32_t best = UINT32_MAX, best_room = 0;
    for (uint32_t i = 0; i < cluster->cell_count; i++) {
        uint32_t room = idle[i] / config->tp * config->tp;
        bool used = cluster->cells[i].type != config->type || (only != UINT32_MAX && i != only);
        for (uint32_t p = 0; p < group->part_count; p++)
            used = used || group->parts[p].cell == i;
        if (used || room == 0)
            continue;
        bool holds = room >= need, best_holds = best_room >= need;
        if (best == UINT32_MAX || (holds && (!best_holds || room < best_room)) ||
            (!holds && !best_holds && room > best_room)) {
            best = i;
            best_room = room;
        }
    }
    return best;
}

static void add_part(struct plan_group *group, uint32_t cell, uint32_t count, uint32_t tp)
{
    uint32_t at = group->part_count++;
    for (; at > 0 && group->parts[at - 1].cell > cell; at--)
        group->parts[at] = group->parts[at - 1];
    group->parts[at] = (struct plan_part){(uint16_t)cell, (uint8_t)count, (uint8_t)tp};
}

bool baseline_take(struct baseline *base, const struct baseline_config *config, enum ts_phase phase,
                   uint32_t only, uint32_t *idle, struct plan_group *out)
{
    const struct ts_cluster *cluster = base->problem->cluster;
    uint32_t need = (uint32_t)config->tp * config->pp;
    struct plan_group group = {.phase = phase};
    while (need > 0 && group.part_count < PLAN_PARTS_MAX) {
        uint32_t cell = pick_cell(cluster, config, idle, &group, need, only);
        if (cell == UINT32_MAX)
            return false;
        uint32_t room = idle[cell] / config->tp * config->tp;
        uint32_t count = room < need ? room : need;
        add_part(&group, cell, count, config->tp);
        need -= count;
    }
    if (need > 0 || !plan_shape_find(base->shapes, &group))
        return false;
    for (uint32_t p = 0; p < group.part_count; p++)
        idle[group.parts[p].cell] -= group.parts[p].count;
    *out = group;
    return true;
}

uint32_t baseline_configs(struct baseline *base, const uint32_t *idle, uint32_t type, enum ts_phase phase,
                          struct baseline_config out[BASELINE_CONFIGS_MAX])
{
    const struct plan_problem *problem = base->problem;
    const uint32_t cells = problem->cluster->cell_count;
    uint32_t have = baseline_type_count(problem, idle, type), count = 0;
    uint32_t *copy = ts_xmalloc((cells + 1) * sizeof *copy);
    uint32_t stages = problem->max_stages ? problem->max_stages : 8;
    uint32_t most = have < TS_TP_MAX * stages ? have : TS_TP_MAX * stages;
    for (uint32_t gpus = 1; gpus <= most; gpus++) {
        for (uint32_t tp = 1; tp <= TS_TP_MAX && count < BASELINE_CONFIGS_MAX; tp *= 2) {
            struct baseline_config config = {.type = (uint16_t)type, .tp = (uint8_t)tp};
            struct plan_group group;
            if (gpus % tp || gpus / tp > stages)
                continue;
            config.pp = (uint8_t)(gpus / tp);
            memcpy(copy, idle, cells * sizeof *copy);
            if (!baseline_take(base, &config, phase, UINT32_MAX, copy, &group))
                continue;
            config.score = baseline_score(base, &group);
            out[count++] = config;
        }
    }
    ts_free(copy);
    return count;
}

uint32_t baseline_replicate(struct baseline *base, const struct baseline_config *config, enum ts_phase phase,
                            uint32_t most, uint32_t *idle, struct plan_state *state)
{
    uint32_t count = 0;
    struct plan_group group;
    for (; count < most && baseline_take(base, config, phase, UINT32_MAX, idle, &group); count++)
        (void)plan_state_add(state, &group);
    return count;
}

bool baseline_rephase(struct baseline *base, struct plan_group *group, enum ts_phase phase)
{
    struct plan_group copy = *group;
    copy.phase = phase;
    copy.shape = NULL;
    if (!plan_shape_find(base->shapes, &copy))
        return false;
    *group = copy;
    return true;
}

double baseline_score(const struct baseline *base, const struct plan_group *group)
{
    return plan_shape_score(base->shapes, group->shape);
}

struct side {
    double prefill, decode, both;
};

static double served(const struct side *side)
{
    return (side->prefill < side->decode ? side->prefill : side->decode) + side->both;
}

static uint32_t pair_count(const struct plan_state *state)
{
    uint32_t prefill = 0, decode = 0, both = 0;
    for (uint32_t i = 0; i < state->count; i++) {
        prefill += state->groups[i].phase == TS_PHASE_PREFILL;
        decode += state->groups[i].phase == TS_PHASE_DECODE;
        both += state->groups[i].phase == TS_PHASE_BOTH;
    }
    return prefill * decode + both;
}

/* Sums of the weights of each pool; pools are numbered below state->count. */
static struct side *pool_sides(const struct plan_state *state, const uint32_t *pool, const double *weight)
{
    struct side *sides = ts_xcalloc(state->count + 1, sizeof *sides);
    for (uint32_t i = 0; i < state->count; i++) {
        struct side *side = &sides[pool ? pool[i] : 0];
        double w = weight ? weight[i] : 1;
        if (state->groups[i].phase == TS_PHASE_PREFILL)
            side->prefill += w;
        else if (state->groups[i].phase == TS_PHASE_DECODE)
            side->decode += w;
        else
            side->both += w;
    }
    return sides;
}

struct plan_share *baseline_shares(const struct plan_state *state, const uint32_t *pool, const double *weight,
                                   enum ts_cost_codec codec, uint32_t *count)
{
    struct side *sides = pool_sides(state, pool, weight);
    double total = 0;
    *count = 0;
    for (uint32_t i = 0; i < state->count; i++)
        total += served(&sides[i]);
    struct plan_share *shares = total > 0 ? ts_xcalloc(pair_count(state) + 1, sizeof *shares) : NULL;
    for (uint32_t i = 0; i < state->count && shares; i++) {
        const uint32_t at = pool ? pool[i] : 0;
        const struct side *side = &sides[at];
        const double wi = weight ? weight[i] : 1;
        if (state->groups[i].phase == TS_PHASE_BOTH && wi > 0)
            shares[(*count)++] = (struct plan_share){i, i, TS_COST_CODEC_NONE, wi / total, 0};
        if (state->groups[i].phase != TS_PHASE_PREFILL || !(side->decode > 0) || !(wi > 0))
            continue;
        const double split = (served(side) - side->both) / total;
        for (uint32_t j = 0; j < state->count; j++) {
            const double wj = weight ? weight[j] : 1;
            if (state->groups[j].phase == TS_PHASE_DECODE && (pool ? pool[j] : 0) == at && wj > 0)
                shares[(*count)++] =
                    (struct plan_share){i, j, codec, split * (wi / side->prefill) * (wj / side->decode), 0};
        }
    }
    ts_free(sides);
    return shares;
}

struct plan_share *baseline_shares_scored(const struct plan_shapes *shapes, const struct plan_state *state,
                                          const uint32_t *pool, uint32_t *count)
{
    double *weight = ts_xcalloc(state->count + 1, sizeof *weight);
    for (uint32_t i = 0; i < state->count; i++)
        weight[i] = plan_shape_score(shapes, state->groups[i].shape);
    struct plan_share *shares = baseline_shares(state, pool, weight, TS_COST_CODEC_NONE, count);
    ts_free(weight);
    return shares;
}

struct plan_share *baseline_shares_by_score(const struct baseline *base, const struct plan_state *state,
                                            const uint32_t *pool, uint32_t *count)
{
    struct plan_share *shares = baseline_shares_scored(base->shapes, state, pool, count);
    return shares ? shares : baseline_shares(state, pool, NULL, TS_COST_CODEC_NONE, count);
}
