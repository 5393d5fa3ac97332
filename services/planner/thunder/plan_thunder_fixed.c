/*
 * Depths below regroup: the groups of the plan in force keep their devices, stages and layers (the weights
 * stay in memory); only phases and flows may change. Groups that lost a device are left out. And what
 * regroup does for the same end: groups of the new plan that stand as they stood keep their devices.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/thunder/plan_thunder.h"

#define PHASES (TS_PHASE_BOTH + 1)

bool plan_thunder_alive(const struct ts_cluster *cluster, const struct ts_group *group)
{
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t gpu = group->stages[s].gpus[i];
            if (gpu >= cluster->gpu_count || !cluster->gpus[gpu].alive)
                return false;
        }
    }
    return group->stage_count > 0;
}

void plan_thunder_fix(struct plan_search *search)
{
    const struct plan_problem *problem = search->problem;
    const struct ts_plan *current = problem->current;
    struct plan_state *state = plan_thunder_new_start(search);
    search->fixed = ts_xcalloc((size_t)current->group_count * PHASES + 1, sizeof *search->fixed);
    search->fixed_from = ts_xcalloc(current->group_count + 1, sizeof *search->fixed_from);
    for (uint32_t i = 0; i < current->group_count; i++) {
        struct plan_group *row = &search->fixed[(size_t)search->fixed_count * PHASES];
        struct ts_group group = current->groups[i];
        if (!plan_thunder_alive(problem->cluster, &group))
            continue;
        bool any = false;
        memset(row, 0, PHASES * sizeof *row);
        for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
            bool stays = phase == current->groups[i].phase;
            bool willing = !problem->willing || (problem->willing[i] & phase) == (uint32_t)phase;
            group.phase = phase;
            if (stays ||
                (problem->depth == PLAN_FLIP && willing && (phase != TS_PHASE_BOTH || problem->colocate)))
                any |= plan_shape_of_group(search->shapes, &group, &row[phase], NULL);
        }
        if (!any)
            continue;
        const struct plan_group *first = &row[current->groups[i].phase];
        for (enum ts_phase phase = TS_PHASE_PREFILL; !first->shape && phase <= TS_PHASE_BOTH; phase++)
            first = &row[phase];
        plan_state_add(state, first);
        search->fixed_from[search->fixed_count++] = i;
    }
}

/* The first of equal groups in equal phase. */
static bool first_of_equals(const struct plan_search *search, uint32_t index)
{
    for (uint32_t twin = 0; twin < index; twin++) {
        const struct plan_group *a = &search->fixed[(size_t)twin * PHASES],
                                *b = &search->fixed[(size_t)index * PHASES];
        bool same = search->current.groups[twin].phase == search->current.groups[index].phase;
        for (int phase = TS_PHASE_PREFILL; same && phase < PHASES; phase++)
            same = a[phase].shape == b[phase].shape && plan_group_key(&a[phase]) == plan_group_key(&b[phase]);
        if (same)
            return false;
    }
    return true;
}

/* One flip, or two at once: an exchange of phases keeps both sides in balance. */
void plan_thunder_flips(const struct plan_moves_from *from, struct plan_search *search)
{
    struct plan_moves_walk walk;
    uint32_t count = search->current.count;
    plan_moves_begin(&walk, from, &search->moves);
    for (uint32_t i = 0; i < count; i++) {
        if (!first_of_equals(search, i))
            continue;
        for (int phase = TS_PHASE_PREFILL; phase < PHASES; phase++) {
            const struct plan_group *flipped = &search->fixed[(size_t)i * PHASES + (size_t)phase];
            if (!flipped->shape || flipped->phase == search->current.groups[i].phase)
                continue;
            struct plan_move move = {.out_count = 1, .in_count = 1, .out = {i}, .in = {*flipped}};
            plan_moves_offer(&walk, &move);
            for (uint32_t j = i + 1; j < count && walk.valued < from->limit; j++) {
                for (int other = TS_PHASE_PREFILL; other < PHASES; other++) {
                    const struct plan_group *second = &search->fixed[(size_t)j * PHASES + (size_t)other];
                    if (!second->shape || second->phase == search->current.groups[j].phase)
                        continue;
                    struct plan_move both = {
                        .out_count = 2, .in_count = 2, .out = {i, j}, .in = {*flipped, *second}};
                    plan_moves_offer(&walk, &both);
                }
            }
        }
    }
    plan_moves_settle(&search->moves);
}

/* --- Devices --- */

static bool same_place(const struct ts_cluster *cluster, uint32_t a, uint32_t b)
{
    return cluster->gpus[a].node == cluster->gpus[b].node && cluster->gpus[a].type == cluster->gpus[b].type;
}

static bool same_layout(const struct ts_cluster *cluster, const struct ts_group *a, const struct ts_group *b)
{
    bool same = a->stage_count == b->stage_count;
    for (uint32_t s = 0; same && s < a->stage_count; s++)
        same = a->stages[s].tp == b->stages[s].tp && a->stages[s].layers == b->stages[s].layers &&
               same_place(cluster, a->stages[s].gpus[0], b->stages[s].gpus[0]);
    return same;
}

static void mark(const struct ts_group *group, bool *used)
{
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++)
            used[group->stages[s].gpus[i]] = true;
    }
}

static void pick_unused(const struct ts_cluster *cluster, struct ts_group *group, bool *used)
{
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t like = group->stages[s].gpus[i], gpu = 0;
            while (used[gpu] || !cluster->gpus[gpu].alive || !same_place(cluster, gpu, like))
                gpu++;
            group->stages[s].gpus[i] = gpu;
            used[gpu] = true;
        }
    }
}

static void keep_equal(const struct plan_problem *problem, struct ts_plan *plan)
{
    const struct ts_cluster *cluster = problem->cluster;
    const struct ts_plan *current = problem->current;
    bool *used = ts_xcalloc(cluster->gpu_count + 1, sizeof *used);
    bool *taken = ts_xcalloc(current->group_count + 1, sizeof *taken);
    bool *kept = ts_xcalloc(plan->group_count + 1, sizeof *kept);
    for (uint32_t i = 0; i < plan->group_count; i++) {
        for (uint32_t j = 0; j < current->group_count && !kept[i]; j++) {
            const struct ts_group *old = &current->groups[j];
            if (taken[j] || !plan_thunder_alive(cluster, old) || !same_layout(cluster, &plan->groups[i], old))
                continue;
            memcpy(plan->groups[i].stages, old->stages, sizeof old->stages);
            kept[i] = taken[j] = true;
            mark(old, used);
        }
    }
    for (uint32_t i = 0; i < plan->group_count; i++) {
        if (!kept[i])
            pick_unused(cluster, &plan->groups[i], used);
    }
    ts_free(used);
    ts_free(taken);
    ts_free(kept);
}

void plan_thunder_keep_devices(const struct plan_search *search, struct ts_plan *plan)
{
    const struct plan_problem *problem = search->problem;
    if (problem->depth == PLAN_REGROUP) {
        if (problem->current)
            keep_equal(problem, plan);
        return;
    }
    for (uint32_t i = 0; i < plan->group_count; i++) {
        const struct ts_group *old = &problem->current->groups[search->fixed_from[i]];
        memcpy(plan->groups[i].stages, old->stages, sizeof old->stages);
    }
}
