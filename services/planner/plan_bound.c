#include "services/planner/plan_bound.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_bound_master.h"
#include "services/planner/plan_bound_pack.h"

#define SETS_MAX           3500u  /* sets of stages that are looked at one by one */
#define BLENDS_MAX         1200u  /* sets of blends that stand for the others */
#define PACK_STATES_MAX    20000u /* beyond these vectors of counts, replicas stay fractional */
#define PACK_STATES_A_UNIT 20     /* states of the knapsack that count as one unit of work */
#define ITEM_WORK          10     /* of making an item; pricing one is 1 */
#define MARGIN             1e-7   /* relative: rounding of this program and of the evaluator's */

static const enum ts_phase phases[PLAN_BOUND_PHASES] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_BOTH};

enum stage { SETS, ITEMS, COLUMNS, PACKINGS, FINISHED };

struct plan_bound {
    const struct plan_problem *problem;
    struct plan_bound_kinds kinds;
    double rate;
    enum stage stage;
    struct plan_bound_set *sets;
    size_t set_count, set_capacity, made;
    bool blended; /* sets of many stages are of blends */
    struct plan_bound_master *master;
    struct plan_bound_pack *pack;
    double value; /* the evaluator's unit */
};

struct plan_bound *plan_bound_new(struct plan_shapes *shapes)
{
    struct plan_bound *bound = ts_xcalloc(1, sizeof *bound);
    bound->problem = plan_shapes_problem(shapes);
    bound->rate = ts_demand_rate(bound->problem->demand);
    bound->value = bound->problem->objective == PLAN_GOODPUT ? INFINITY : 1;
    plan_bound_kinds_init(&bound->kinds, bound->problem);
    return bound;
}

void plan_bound_destroy(struct plan_bound **bound)
{
    struct plan_bound *b = *bound;
    if (b == NULL)
        return;
    plan_bound_pack_destroy(&b->pack);
    plan_bound_master_destroy(&b->master);
    for (size_t i = 0; i < b->set_count; ++i) {
        for (int p = 0; p < PLAN_BOUND_PHASES; ++p)
            plan_bound_item_fini(&b->sets[i].items[p]);
    }
    ts_free(b->sets);
    plan_bound_kinds_fini(&b->kinds);
    ts_free(b);
    *bound = NULL;
}

/* --- Sets of stages --- */

static void add_set(struct plan_bound *bound, const uint8_t *stages, uint32_t count, bool blended)
{
    ts_array_reserve((void **)&bound->sets, &bound->set_capacity, bound->set_count + 1, sizeof *bound->sets);
    struct plan_bound_set *set = &bound->sets[bound->set_count++];
    memset(set, 0, sizeof *set);
    memcpy(set->stages, stages, count);
    set->count = (uint8_t)count;
    set->blended = blended;
    for (uint32_t i = 0; i < count; ++i)
        set->gpus = (uint16_t)(set->gpus + bound->kinds.kinds[stages[i]].tp);
}

/* Necessary for the model to fit. */
static bool holds(const struct plan_bound *bound, const uint8_t *stages, uint32_t count)
{
    const struct ts_model *model = bound->problem->model;
    double usable = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const struct plan_bound_kind *kind = &bound->kinds.kinds[stages[i]];
        usable += kind->unit.usable_bytes * kind->tp;
    }
    return usable >= model->layers * ts_cost_layer_weight_bytes(model);
}

/* All sets of `count` stages of these kinds (or blends), in lexicographic order; false when there would be
 * more than `most` sets altogether. */
static bool find_sets(struct plan_bound *bound, uint32_t count, bool blended, size_t most)
{
    const struct plan_bound_kinds *kinds = &bound->kinds;
    uint32_t first = blended ? kinds->kind_count : 0;
    uint32_t end = blended ? first + kinds->blend_count : kinds->kind_count;
    uint8_t stages[TS_STAGES_MAX] = {(uint8_t)first};
    uint32_t *rows = ts_xcalloc((size_t)kinds->make_count * PLAN_BOUND_TPS + 1, sizeof *rows);
    uint32_t depth = 1;
    while (depth > 0 && bound->set_count <= most) {
        if (stages[depth - 1] >= end) {
            if (--depth > 0)
                ++stages[depth - 1];
        } else if (!blended && !plan_bound_kinds_rows(kinds, stages, depth, rows)) {
            ++stages[depth - 1];
        } else if (depth < count) {
            stages[depth] = stages[depth - 1];
            ++depth;
        } else {
            if (holds(bound, stages, count))
                add_set(bound, stages, count, blended);
            ++stages[depth - 1];
        }
    }
    ts_free(rows);
    return bound->set_count <= most;
}

/* Multisets of more than `whole` and up to `most` of `count` things. */
static double multisets(uint32_t count, uint32_t whole, uint32_t most)
{
    double sum = 0, ways = 1;
    for (uint32_t size = 1; size <= most; ++size) {
        ways *= (double)(count + size - 1) / size;
        sum += size > whole ? ways : 0;
    }
    return sum;
}

/* Sets of blends for what is too much to look at set by set. */
static void blend_sets(struct plan_bound *bound, uint32_t whole)
{
    uint32_t count = bound->kinds.kind_count;
    while (count > 1 && multisets(count, whole, bound->kinds.max_stages) > BLENDS_MAX)
        --count;
    (void)plan_bound_kinds_blend(&bound->kinds, count);
    for (uint32_t size = whole + 1; size <= bound->kinds.max_stages; ++size)
        (void)find_sets(bound, size, true, SIZE_MAX);
}

static uint64_t make_sets(struct plan_bound *bound)
{
    uint32_t whole = 0;
    while (whole < bound->kinds.max_stages) {
        size_t before = bound->set_count;
        if (!find_sets(bound, whole + 1, false, SETS_MAX)) {
            bound->set_count = before;
            break;
        }
        ++whole;
    }
    bound->blended = whole < bound->kinds.max_stages;
    if (bound->blended)
        blend_sets(bound, whole);
    bound->stage = ITEMS;
    return 1 + bound->set_count;
}

static uint64_t make_items(struct plan_bound *bound)
{
    struct plan_bound_set *set = &bound->sets[bound->made++];
    for (int p = 0; p < PLAN_BOUND_PHASES; ++p) {
        if (phases[p] != TS_PHASE_BOTH || bound->problem->colocate)
            plan_bound_kinds_item(&bound->kinds, set->stages, set->count, phases[p], &set->items[p]);
    }
    return ITEM_WORK * PLAN_BOUND_PHASES;
}

/* --- Whole replicas --- */

static void start_packings(struct plan_bound *bound)
{
    uint32_t counts[PLAN_PACK_DIMS_MAX];
    bound->stage = FINISHED;
    if (bound->blended || bound->kinds.make_count > PLAN_PACK_DIMS_MAX)
        return;
    for (uint32_t i = 0; i < bound->kinds.make_count; ++i)
        counts[i] = bound->kinds.makes[i].slots[0];
    bound->pack = plan_bound_pack_new(bound->problem, counts, bound->kinds.make_count, PACK_STATES_MAX);
    if (bound->pack == NULL)
        return;
    for (size_t s = 0; s < bound->set_count; ++s) {
        const struct plan_bound_set *set = &bound->sets[s];
        memset(counts, 0, sizeof counts);
        for (uint32_t i = 0; i < set->count; ++i)
            counts[bound->kinds.kinds[set->stages[i]].make] += bound->kinds.kinds[set->stages[i]].tp;
        for (int p = 0; p < PLAN_BOUND_PHASES; ++p) {
            if (set->items[p].count > 0)
                plan_bound_pack_add(bound->pack, plan_bound_pack_state(bound->pack, counts),
                                    plan_bound_pack_item(bound->pack, &set->items[p]));
        }
    }
    plan_bound_pack_start(bound->pack, plan_bound_master_prices(bound->master));
    bound->stage = PACKINGS;
}

/* --- Steps --- */

static uint64_t columns_round(struct plan_bound *bound)
{
    if (bound->master == NULL)
        bound->master = plan_bound_master_new(&bound->kinds, bound->sets, bound->set_count, 0);
    uint64_t work = plan_bound_master_round(bound->master);
    double value = plan_bound_master_value(bound->master);
    bound->value =
        fmin(bound->value, bound->problem->objective == PLAN_GOODPUT ? value : value / bound->rate);
    /* All of the demand within its deadlines: no bound is of use then. */
    bool idle = bound->problem->objective == PLAN_ATTAINMENT &&
                plan_bound_master_least(bound->master) >= bound->rate * (1 - MARGIN);
    if (idle)
        bound->stage = FINISHED;
    else if (plan_bound_master_done(bound->master))
        start_packings(bound);
    return work;
}

static uint64_t packings_round(struct plan_bound *bound)
{
    if (plan_bound_pack_round(bound->pack))
        bound->stage = FINISHED;
    bound->value = fmin(bound->value, plan_bound_pack_value(bound->pack));
    return 1 + bound->set_count * PLAN_BOUND_PHASES +
           plan_bound_pack_states(bound->pack) / PACK_STATES_A_UNIT;
}

/* What all programs need. */
static uint64_t prepare(struct plan_bound *bound)
{
    if (bound->stage == SETS)
        return make_sets(bound);
    if (bound->made < bound->set_count)
        return make_items(bound);
    bound->stage = COLUMNS;
    return 1;
}

bool plan_bound_step(struct plan_bound *bound, uint64_t budget)
{
    uint64_t work = 0;
    while (bound->stage != FINISHED && work < budget) {
        if (bound->stage == COLUMNS)
            work += columns_round(bound);
        else if (bound->stage == PACKINGS)
            work += packings_round(bound);
        else
            work += prepare(bound);
    }
    return bound->stage == FINISHED;
}

static double with_margin(const struct plan_bound *bound, double value)
{
    value *= 1 + MARGIN;
    return bound->problem->objective == PLAN_GOODPUT ? value : fmin(1, value);
}

double plan_bound_value(const struct plan_bound *bound)
{
    return with_margin(bound, bound->value);
}

double plan_bound_budget(struct plan_bound *bound, double dollars_per_hour, double *counts)
{
    while (bound->stage == SETS || bound->stage == ITEMS)
        (void)prepare(bound);
    struct plan_bound_master *master =
        plan_bound_master_new(&bound->kinds, bound->sets, bound->set_count, dollars_per_hour);
    while (!plan_bound_master_done(master))
        (void)plan_bound_master_round(master);
    if (counts != NULL)
        plan_bound_master_counts(master, counts);
    double value = plan_bound_master_value(master);
    plan_bound_master_destroy(&master);
    return with_margin(bound, bound->problem->objective == PLAN_GOODPUT ? value : value / bound->rate);
}
