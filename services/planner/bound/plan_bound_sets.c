#include "services/planner/bound/plan_bound_sets.h"

#include <string.h>

#include "common/base/ts_mem.h"

#define EXACT_MAX 2500u /* sets of kinds up to which none is blended */
#define LIVE_MAX  4000u

static const enum ts_phase phases[PLAN_BOUND_PHASES] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_BOTH};

/* Necessary: the model fits, and the cluster has as many of each. */
static bool possible(const struct plan_bound_kinds *kinds, const uint8_t *stages, uint32_t count)
{
    const struct ts_model *model = kinds->problem->model;
    double usable = 0;
    uint32_t run = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const struct plan_bound_kind *kind = &kinds->kinds[stages[i]];
        run = i > 0 && stages[i] == stages[i - 1] ? run + 1 : 1;
        usable += kind->unit.usable_bytes * kind->tp;
        if (run > kind->slots)
            return false;
    }
    return usable >= model->layers * ts_cost_layer_weight_bytes(model);
}

static void add_set(struct plan_bound_sets *sets, const uint8_t *stages, uint32_t count)
{
    if (!possible(sets->kinds, stages, count))
        return;
    ts_array_reserve((void **)&sets->sets, &sets->capacity, sets->count + 1, sizeof *sets->sets);
    struct plan_bound_set *set = &sets->sets[sets->count++];
    memset(set, 0, sizeof *set);
    memcpy(set->stages, stages, count);
    set->count = (uint8_t)count;
    ++sets->live;
    for (uint32_t i = 0; i < count; ++i) {
        const struct plan_bound_kind *kind = &sets->kinds->kinds[stages[i]];
        set->blended = set->blended || kind->make == PLAN_BOUND_BLEND;
        set->gpus = (uint16_t)(set->gpus + kind->tp);
    }
}

/* All sets of `count` stages of these kinds, in lexicographic order; false when there are too many. */
static bool find_sets(struct plan_bound_sets *sets, const uint32_t *kinds, uint32_t kind_count,
                      uint32_t count, size_t most)
{
    uint32_t at[TS_STAGES_MAX] = {0}, depth = 1;
    uint8_t stages[TS_STAGES_MAX];
    uint32_t *rows = ts_xcalloc((size_t)sets->kinds->make_count * PLAN_BOUND_TPS + 1, sizeof *rows);
    while (depth > 0 && sets->count <= most) {
        if (at[depth - 1] >= kind_count) {
            if (--depth > 0)
                ++at[depth - 1];
            continue;
        }
        stages[depth - 1] = (uint8_t)kinds[at[depth - 1]];
        bool blend = sets->kinds->kinds[stages[depth - 1]].make == PLAN_BOUND_BLEND;
        if (!blend && !plan_bound_kinds_rows(sets->kinds, stages, depth, rows)) {
            ++at[depth - 1];
        } else if (depth < count) {
            at[depth] = at[depth - 1];
            ++depth;
        } else {
            add_set(sets, stages, count);
            ++at[depth - 1];
        }
    }
    ts_free(rows);
    return sets->count <= most;
}

static bool find_exact(struct plan_bound_sets *sets)
{
    uint32_t all[UINT8_MAX], count = sets->kinds->kind_count;
    for (uint32_t i = 0; i < count; ++i)
        all[i] = i;
    for (uint32_t size = 1; size <= sets->kinds->max_stages; ++size) {
        if (!find_sets(sets, all, count, size, EXACT_MAX))
            return false;
    }
    return true;
}

void plan_bound_sets_init(struct plan_bound_sets *sets, const struct plan_bound_kinds *kinds)
{
    *sets = (struct plan_bound_sets){.kinds = kinds};
    sets->exact = find_exact(sets);
    if (sets->exact)
        return;
    sets->count = 0;
    sets->live = 0;
    for (uint32_t size = 1; size <= kinds->max_stages; ++size)
        (void)find_sets(sets, kinds->roots, kinds->root_count, size, SIZE_MAX - 1);
}

static void drop_items(struct plan_bound_set *set)
{
    for (int p = 0; p < PLAN_BOUND_PHASES; ++p)
        plan_bound_item_fini(&set->items[p]);
}

void plan_bound_sets_fini(struct plan_bound_sets *sets)
{
    for (size_t i = 0; i < sets->count; ++i)
        drop_items(&sets->sets[i]);
    ts_free(sets->sets);
    *sets = (struct plan_bound_sets){.kinds = NULL};
}

bool plan_bound_sets_make(struct plan_bound_sets *sets)
{
    if (sets->made == sets->count)
        return false;
    struct plan_bound_set *set = &sets->sets[sets->made++];
    bool any = false;
    for (int p = 0; p < PLAN_BOUND_PHASES; ++p) {
        if (phases[p] != TS_PHASE_BOTH || sets->kinds->problem->colocate)
            plan_bound_kinds_item(sets->kinds, set->stages, set->count, phases[p], &set->items[p]);
        any = any || set->items[p].count > 0;
    }
    if (!any) {
        set->gone = true;
        --sets->live;
    }
    return true;
}

/* The blend that says least: its two parts are the most unlike. */
static uint32_t vaguest(const struct plan_bound_kinds *kinds, const struct plan_bound_set *set)
{
    uint32_t found = UINT32_MAX;
    for (uint32_t i = 0; i < set->count; ++i) {
        const struct plan_bound_kind *kind = &kinds->kinds[set->stages[i]];
        if (kind->make == PLAN_BOUND_BLEND &&
            (found == UINT32_MAX || kind->unlikeness > kinds->kinds[found].unlikeness))
            found = set->stages[i];
    }
    return found;
}

static void sort_stages(uint8_t *stages, uint32_t count)
{
    for (uint32_t i = 1; i < count; ++i) {
        for (uint32_t j = i; j > 0 && stages[j] < stages[j - 1]; --j) {
            uint8_t swap = stages[j];
            stages[j] = stages[j - 1];
            stages[j - 1] = swap;
        }
    }
}

bool plan_bound_sets_split(struct plan_bound_sets *sets, size_t index)
{
    const struct plan_bound_kinds *kinds = sets->kinds;
    struct plan_bound_set whole = sets->sets[index];
    if (sets->live >= LIVE_MAX)
        return false;
    uint32_t *rows = ts_xcalloc((size_t)kinds->make_count * PLAN_BOUND_TPS + 1, sizeof *rows);
    uint32_t blend = vaguest(kinds, &whole), times = 0, others = 0;
    uint8_t rest[TS_STAGES_MAX] = {0};
    for (uint32_t i = 0; i < whole.count; ++i) {
        if (whole.stages[i] == blend)
            ++times;
        else
            rest[others++] = whole.stages[i];
    }
    drop_items(&sets->sets[index]);
    sets->sets[index].gone = true;
    --sets->live;
    for (uint32_t first = 0; first <= times; ++first) {
        uint8_t stages[TS_STAGES_MAX];
        memcpy(stages, rest, others);
        memset(stages + others, (uint8_t)kinds->kinds[blend].parts[0], first);
        memset(stages + others + first, (uint8_t)kinds->kinds[blend].parts[1], times - first);
        sort_stages(stages, whole.count);
        /* Kinds come before blends: the rows of the kinds alone must fit too. */
        uint32_t plain = 0;
        while (plain < whole.count && stages[plain] < kinds->kind_count)
            ++plain;
        if (plan_bound_kinds_rows(kinds, stages, plain, rows))
            add_set(sets, stages, whole.count);
    }
    ts_free(rows);
    while (plan_bound_sets_make(sets)) {
    }
    return true;
}
