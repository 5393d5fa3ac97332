#include "services/planner/bound/plan_bound.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/bound/plan_bound_master.h"
#include "services/planner/bound/plan_bound_pack.h"

#define PACK_STATES_MAX    20000u /* beyond these vectors of counts, replicas stay fractional */
#define PACK_STATES_A_UNIT 20     /* states of the knapsack that count as one unit of work */
#define ITEM_WORK          10     /* of making an item; pricing one is 1 */
#define MARGIN             1e-7   /* relative: rounding of this program and of the evaluator's */

enum stage { SETS, ITEMS, COLUMNS, PACKINGS, FINISHED };

struct plan_bound {
    const struct plan_problem *problem;
    struct plan_bound_kinds kinds;
    double rate;
    enum stage stage;
    struct plan_bound_sets sets;
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
    plan_bound_sets_fini(&b->sets);
    plan_bound_kinds_fini(&b->kinds);
    ts_free(b);
    *bound = NULL;
}

/* --- Whole replicas --- */

static void start_packings(struct plan_bound *bound)
{
    uint32_t counts[PLAN_PACK_DIMS_MAX];
    bound->stage = FINISHED;
    if (!bound->sets.exact || bound->kinds.make_count > PLAN_PACK_DIMS_MAX)
        return;
    for (uint32_t i = 0; i < bound->kinds.make_count; ++i)
        counts[i] = bound->kinds.makes[i].slots[0];
    bound->pack = plan_bound_pack_new(bound->problem, counts, bound->kinds.make_count, PACK_STATES_MAX);
    if (bound->pack == NULL)
        return;
    for (size_t s = 0; s < bound->sets.count; ++s) {
        const struct plan_bound_set *set = &bound->sets.sets[s];
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
        bound->master = plan_bound_master_new(&bound->sets, 0);
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
    return 1 + bound->sets.count * PLAN_BOUND_PHASES +
           plan_bound_pack_states(bound->pack) / PACK_STATES_A_UNIT;
}

/* What all programs need. */
static uint64_t prepare(struct plan_bound *bound)
{
    if (bound->stage == SETS) {
        plan_bound_sets_init(&bound->sets, &bound->kinds);
        bound->stage = ITEMS;
        return 1 + bound->sets.count;
    }
    if (!plan_bound_sets_make(&bound->sets))
        bound->stage = COLUMNS;
    return ITEM_WORK * PLAN_BOUND_PHASES;
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
    struct plan_bound_master *master = plan_bound_master_new(&bound->sets, dollars_per_hour);
    while (!plan_bound_master_done(master))
        (void)plan_bound_master_round(master);
    if (counts != NULL)
        plan_bound_master_counts(master, counts);
    double value = plan_bound_master_value(master);
    plan_bound_master_destroy(&master);
    return with_margin(bound, bound->problem->objective == PLAN_GOODPUT ? value : value / bound->rate);
}
