#include "services/planner/bound/plan_bound_master.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_lp.h"

#define ROUNDS_MAX      150
#define COLUMNS_A_ROUND 30
#define CLOSED          1e-5 /* relative gap between program and bound at which rounds end */
#define SMOOTHING       0.5  /* weight of the best prices so far against the program's */
#define SHARE_MAX       8
#define CUTS_MAX        96
#define SPLITS_A_ROUND  150
#define OFFERS_A_ROUND  300
#define SPLIT_WORK      30   /* of making the items of a set; pricing one is 1 */
#define GAIN_MIN        1e-9 /* requests/s */
#define NONE            UINT32_MAX

struct cut { /* floor(devices / share) of a make; make_count = of all makes together */
    uint32_t make, share;
    double limit;
};

struct prices {
    struct plan_bound_prices classes;
    double *slots; /* [make * PLAN_BOUND_TPS + log2 of the width] */
    double cuts[CUTS_MAX];
    double dollar;
    double stages[UINT8_MAX];    /* what follows for one stage of each kind and blend */
    uint8_t cheapest[UINT8_MAX]; /* kind of a blend */
};

struct column {
    uint8_t stages[TS_STAGES_MAX]; /* kinds */
    uint32_t count;
};

struct offer { /* a pattern that may become a column */
    size_t set;
    int phase;
    double excess; /* of its worth over its cost, relative */
    struct plan_bound_pattern pattern;
};

struct plan_bound_master {
    const struct plan_bound_kinds *kinds;
    const struct plan_problem *problem;
    struct plan_bound_sets *sets;
    double rate, dollars, replicas_max;
    uint32_t classes, slot_count, cut_count;
    struct cut cuts[CUTS_MAX];
    struct plan_lp *lp;
    uint32_t first_slot, first_cut, dollar_row, attain_row, column_base;
    struct prices now, best;
    struct offer *offers;
    size_t offer_count, offer_capacity;
    struct column *columns;
    size_t column_count, column_capacity;
    struct plan_lp_term *terms; /* scratch: of one column */
    uint32_t *rows;             /* scratch: of one set */
    uint32_t rounds;
    bool done;
    double value, least;
};

static bool scaled(const struct plan_bound_master *master)
{
    return master->problem->objective == PLAN_GOODPUT;
}

/* --- Rows --- */

static void add_cut(struct plan_bound_master *master, uint32_t make, uint32_t share, uint32_t devices)
{
    /* A limit that divides evenly follows from the row of the devices. */
    if (devices % share != 0 && master->cut_count < CUTS_MAX)
        master->cuts[master->cut_count++] =
            (struct cut){.make = make, .share = share, .limit = floor((double)devices / share)};
}

static void find_cuts(struct plan_bound_master *master)
{
    const struct plan_bound_kinds *kinds = master->kinds;
    uint32_t all = 0;
    for (uint32_t i = 0; i < kinds->make_count; ++i)
        all += kinds->makes[i].slots[0];
    for (uint32_t share = 2; share <= SHARE_MAX; ++share) {
        for (uint32_t i = 0; i < kinds->make_count && kinds->make_count > 1; ++i)
            add_cut(master, i, share, kinds->makes[i].slots[0]);
        add_cut(master, kinds->make_count, share, all);
    }
}

static uint32_t slot_limit(const struct plan_bound_master *master, uint32_t slot)
{
    uint32_t make = slot / PLAN_BOUND_TPS;
    return master->kinds->makes[make].slots[slot % PLAN_BOUND_TPS];
}

static void make_rows(struct plan_bound_master *master)
{
    const struct ts_demand *demand = master->problem->demand;
    for (uint32_t k = 0; k < master->classes; ++k)
        (void)plan_lp_add_row(master->lp, scaled(master) ? 0 : demand->classes[k].rate);
    for (uint32_t k = 0; k < master->classes; ++k)
        (void)plan_lp_add_row(master->lp, 0);
    master->first_slot = 2 * master->classes;
    for (uint32_t i = 0; i < master->slot_count; ++i)
        (void)plan_lp_add_row(master->lp, slot_limit(master, i));
    master->first_cut = master->first_slot + master->slot_count;
    for (uint32_t i = 0; i < master->cut_count; ++i)
        (void)plan_lp_add_row(master->lp, master->cuts[i].limit);
    master->dollar_row = master->dollars > 0 ? plan_lp_add_row(master->lp, master->dollars) : NONE;
    master->attain_row = NONE;
    if (!scaled(master))
        return;
    /* The scaled rate: as much of each class as the mix says, and enough of it attained. */
    master->attain_row = plan_lp_add_row(master->lp, 0);
    for (uint32_t k = 0; k < master->classes; ++k)
        master->terms[k] = (struct plan_lp_term){k, -demand->classes[k].rate / master->rate};
    master->terms[master->classes] = (struct plan_lp_term){master->attain_row, master->problem->attainment};
    (void)plan_lp_add_column(master->lp, 0, master->terms, master->classes + 1);
    master->column_base = 1;
}

/* --- What a set of stages takes --- */

static double cut_take(const struct plan_bound_master *master, const struct cut *cut,
                       const struct plan_bound_set *set)
{
    uint32_t devices = 0;
    for (uint32_t i = 0; i < set->count; ++i) {
        const struct plan_bound_kind *kind = &master->kinds->kinds[set->stages[i]];
        if (cut->make == master->kinds->make_count || cut->make == kind->make)
            devices += kind->tp;
    }
    return floor((double)devices / cut->share);
}

static double dollars_of(const struct plan_bound_master *master, const struct plan_bound_kind *kind)
{
    uint32_t type = master->kinds->makes[kind->make].type;
    return kind->tp * master->problem->cluster->types[type].price_per_hour;
}

/* Of one stage of each kind; of a blend that of its cheapest kind. */
static void cost_kinds(const struct plan_bound_master *master, struct prices *prices)
{
    const struct plan_bound_kinds *kinds = master->kinds;
    for (uint32_t i = 0; i < kinds->kind_count; ++i) {
        const struct plan_bound_kind *kind = &kinds->kinds[i];
        prices->stages[i] = prices->dollar * dollars_of(master, kind);
        for (uint32_t t = 0; t <= kind->tp_log2; ++t)
            prices->stages[i] += prices->slots[kind->make * PLAN_BOUND_TPS + t] * (kind->tp >> t);
        prices->cheapest[i] = (uint8_t)i;
    }
    for (uint32_t i = kinds->kind_count; i < kinds->kind_count + kinds->blend_count; ++i) {
        const uint32_t *parts = kinds->kinds[i].parts;
        uint32_t part = prices->stages[parts[0]] <= prices->stages[parts[1]] ? parts[0] : parts[1];
        prices->stages[i] = prices->stages[part];
        prices->cheapest[i] = prices->cheapest[part];
    }
}

static double cost_of(const struct plan_bound_master *master, const struct prices *prices,
                      const struct plan_bound_set *set)
{
    double cost = 0;
    for (uint32_t i = 0; i < set->count; ++i)
        cost += prices->stages[set->stages[i]];
    for (uint32_t i = 0; i < master->cut_count; ++i) {
        if (prices->cuts[i] > 0)
            cost += prices->cuts[i] * cut_take(master, &master->cuts[i], set);
    }
    return cost;
}

/* `prices`: those by which the kinds of blends are chosen. */
static void add_column(struct plan_bound_master *master, const struct prices *prices,
                       const struct offer *offer)
{
    const struct plan_bound_set *set = &master->sets->sets[offer->set];
    const struct plan_bound_pattern *pattern = &offer->pattern;
    struct plan_lp_term *terms = master->terms;
    struct column column = {.count = set->count};
    uint32_t count = 0;
    double dollars = 0;
    for (uint32_t i = 0; i < set->count; ++i) {
        column.stages[i] = prices->cheapest[set->stages[i]];
        dollars += dollars_of(master, &master->kinds->kinds[column.stages[i]]);
    }
    for (uint32_t k = 0; k < master->classes; ++k) {
        if (pattern->serve[k] != 0)
            terms[count++] = (struct plan_lp_term){k, pattern->serve[k]};
        if (pattern->feed[k] != 0)
            terms[count++] = (struct plan_lp_term){master->classes + k, pattern->feed[k]};
    }
    (void)plan_bound_kinds_rows(master->kinds, column.stages, set->count, master->rows);
    for (uint32_t i = 0; i < master->slot_count; ++i) {
        if (master->rows[i] > 0)
            terms[count++] = (struct plan_lp_term){master->first_slot + i, master->rows[i]};
    }
    for (uint32_t i = 0; i < master->cut_count; ++i) {
        double take = cut_take(master, &master->cuts[i], set);
        if (take > 0)
            terms[count++] = (struct plan_lp_term){master->first_cut + i, take};
    }
    if (master->dollar_row != NONE)
        terms[count++] = (struct plan_lp_term){master->dollar_row, dollars};
    if (master->attain_row != NONE && pattern->gain != 0)
        terms[count++] = (struct plan_lp_term){master->attain_row, -pattern->gain};
    (void)plan_lp_add_column(master->lp, pattern->gain, terms, count);
    ts_array_reserve((void **)&master->columns, &master->column_capacity, master->column_count + 1,
                     sizeof *master->columns);
    master->columns[master->column_count++] = column;
}

/* --- Prices --- */

static void read_prices(const struct plan_bound_master *master, struct prices *prices)
{
    const struct ts_demand *demand = master->problem->demand;
    double asked = 0;
    prices->classes = (struct plan_bound_prices){.scale = 1};
    for (uint32_t k = 0; k < master->classes; ++k) {
        prices->classes.serve[k] = fmax(0, plan_lp_dual(master->lp, k));
        prices->classes.feed[k] = fmax(0, plan_lp_dual(master->lp, master->classes + k));
        asked += prices->classes.serve[k] * demand->classes[k].rate / master->rate;
    }
    for (uint32_t i = 0; i < master->slot_count; ++i)
        prices->slots[i] = fmax(0, plan_lp_dual(master->lp, master->first_slot + i));
    for (uint32_t i = 0; i < master->cut_count; ++i)
        prices->cuts[i] = fmax(0, plan_lp_dual(master->lp, master->first_cut + i));
    prices->dollar = master->dollar_row == NONE ? 0 : fmax(0, plan_lp_dual(master->lp, master->dollar_row));
    if (scaled(master)) {
        double dual = fmax(0, plan_lp_dual(master->lp, master->attain_row));
        prices->classes.scale = 1 + fmax(dual, asked / master->problem->attainment);
    }
}

static double mix(double a, double b)
{
    return SMOOTHING * a + (1 - SMOOTHING) * b;
}

static void mix_in(const struct plan_bound_master *master, struct prices *prices, const struct prices *best)
{
    prices->classes.scale = mix(best->classes.scale, prices->classes.scale);
    for (uint32_t k = 0; k < master->classes; ++k) {
        prices->classes.serve[k] = mix(best->classes.serve[k], prices->classes.serve[k]);
        prices->classes.feed[k] = mix(best->classes.feed[k], prices->classes.feed[k]);
    }
    for (uint32_t i = 0; i < master->slot_count; ++i)
        prices->slots[i] = mix(best->slots[i], prices->slots[i]);
    for (uint32_t i = 0; i < master->cut_count; ++i)
        prices->cuts[i] = mix(best->cuts[i], prices->cuts[i]);
    prices->dollar = mix(best->dollar, prices->dollar);
}

static void copy_prices(const struct plan_bound_master *master, struct prices *into,
                        const struct prices *from)
{
    double *slots = into->slots;
    *into = *from;
    into->slots = slots;
    memcpy(slots, from->slots, master->slot_count * sizeof *slots);
}

static double class_base(const struct plan_bound_master *master, const struct prices *prices)
{
    double base = 0;
    for (uint32_t k = 0; k < master->classes && !scaled(master); ++k)
        base += prices->classes.serve[k] * master->problem->demand->classes[k].rate;
    return base;
}

static double device_base(const struct plan_bound_master *master, const struct prices *prices)
{
    double base = prices->dollar * master->dollars;
    for (uint32_t i = 0; i < master->slot_count; ++i)
        base += prices->slots[i] * slot_limit(master, i);
    for (uint32_t i = 0; i < master->cut_count; ++i)
        base += prices->cuts[i] * master->cuts[i].limit;
    return base;
}

/* --- Pricing --- */

/* What the offer would gain at the program's own duals. */
static double reduced_gain(const struct plan_bound_master *master, const struct prices *duals,
                           const struct offer *offer)
{
    const struct plan_bound_pattern *pattern = &offer->pattern;
    double gain = duals->classes.scale * pattern->gain;
    for (uint32_t k = 0; k < master->classes; ++k)
        gain -= duals->classes.serve[k] * pattern->serve[k] + duals->classes.feed[k] * pattern->feed[k];
    return gain - cost_of(master, duals, &master->sets->sets[offer->set]);
}

static int by_excess(const void *a, const void *b)
{
    const struct offer *x = a, *y = b;
    if (x->excess != y->excess)
        return x->excess > y->excess ? -1 : 1;
    if (x->set != y->set)
        return x->set < y->set ? -1 : 1;
    return x->phase - y->phase;
}

static void push_offer(struct plan_bound_master *master, const struct offer *offer)
{
    ts_array_reserve((void **)&master->offers, &master->offer_capacity, master->offer_count + 1,
                     sizeof *master->offers);
    master->offers[master->offer_count++] = *offer;
}

/* All items at `now`: the bound, and what is worth more than it costs at the duals. */
static void price_all(struct plan_bound_master *master, const struct prices *duals)
{
    double ratio = 0, most = 0;
    master->offer_count = 0;
    cost_kinds(master, &master->now);
    for (size_t s = 0; s < master->sets->count; ++s) {
        const struct plan_bound_set *set = &master->sets->sets[s];
        double cost = set->gone ? 0 : cost_of(master, &master->now, set);
        for (int p = 0; p < PLAN_BOUND_PHASES && !set->gone; ++p) {
            struct offer offer = {.set = s, .phase = p};
            double worth = plan_bound_item_worth(&set->items[p], &master->now.classes, &offer.pattern);
            if (worth <= 0)
                continue;
            most = fmax(most, worth - cost);
            ratio = fmax(ratio, cost > 0 ? worth / cost : INFINITY);
            double gain = duals != NULL ? reduced_gain(master, duals, &offer) : worth;
            offer.excess = gain / set->gpus;
            if (gain > GAIN_MIN)
                push_offer(master, &offer);
        }
    }
    double classes = class_base(master, &master->now), devices = device_base(master, &master->now);
    double value = classes + devices + master->replicas_max * most;
    if (isfinite(ratio))
        value = fmin(value, classes + devices * ratio);
    if (value < master->value) {
        master->value = value;
        copy_prices(master, &master->best, &master->now);
    }
}

/* What became of a set that was split, at these prices. */
static void price_new(struct plan_bound_master *master, const struct prices *prices, size_t first)
{
    for (size_t s = first; s < master->sets->count; ++s) {
        const struct plan_bound_set *set = &master->sets->sets[s];
        for (int p = 0; p < PLAN_BOUND_PHASES && !set->gone; ++p) {
            struct offer offer = {.set = s, .phase = p};
            double gain = plan_bound_item_worth(&set->items[p], &prices->classes, &offer.pattern);
            gain -= cost_of(master, prices, set);
            offer.excess = gain / set->gpus;
            if (gain > GAIN_MIN)
                push_offer(master, &offer);
        }
    }
}

/* The best offers become columns; a blended one is split first, if there is room, and its parts offered. */
static uint64_t take_offers(struct plan_bound_master *master, const struct prices *prices)
{
    uint32_t added[PLAN_BOUND_PHASES] = {0}, splits = 0;
    size_t first = master->sets->count;
    if (master->offer_count > 0)
        qsort(master->offers, master->offer_count, sizeof *master->offers, by_excess);
    if (master->offer_count > OFFERS_A_ROUND)
        master->offer_count = OFFERS_A_ROUND;
    while (master->offer_count > 0) {
        size_t best = 0;
        for (size_t i = 1; i < master->offer_count; ++i) {
            if (by_excess(&master->offers[i], &master->offers[best]) < 0)
                best = i;
        }
        struct offer offer = master->offers[best];
        master->offers[best] = master->offers[--master->offer_count];
        if (master->sets->sets[offer.set].gone || added[offer.phase] >= COLUMNS_A_ROUND)
            continue;
        size_t from = master->sets->count;
        if (master->sets->sets[offer.set].blended && splits < SPLITS_A_ROUND &&
            plan_bound_sets_split(master->sets, offer.set)) {
            price_new(master, prices, from);
            ++splits;
        } else if (!master->sets->sets[offer.set].blended || splits < SPLITS_A_ROUND) {
            add_column(master, prices, &offer);
            ++added[offer.phase];
        }
    }
    return SPLIT_WORK * (master->sets->count - first);
}

static void first_round(struct plan_bound_master *master)
{
    for (int i = 1; i < 4; ++i) {
        master->now.classes = (struct plan_bound_prices){.scale = 1};
        for (uint32_t k = 0; k < master->classes; ++k)
            master->now.classes.feed[k] = 0.25 * i;
        price_all(master, NULL);
        (void)take_offers(master, &master->now);
    }
}

struct plan_bound_master *plan_bound_master_new(struct plan_bound_sets *sets, double dollars)
{
    const struct plan_bound_kinds *kinds = sets->kinds;
    struct plan_bound_master *master = ts_xcalloc(1, sizeof *master);
    master->kinds = kinds;
    master->problem = kinds->problem;
    master->sets = sets;
    master->dollars = dollars;
    master->rate = ts_demand_rate(master->problem->demand);
    master->classes = master->problem->demand->class_count;
    master->slot_count = kinds->make_count * PLAN_BOUND_TPS;
    master->value = INFINITY;
    master->now.slots = ts_xcalloc(master->slot_count + 1, sizeof *master->now.slots);
    master->best.slots = ts_xcalloc(master->slot_count + 1, sizeof *master->best.slots);
    find_cuts(master);
    master->terms =
        ts_xcalloc(2 * (size_t)master->classes + master->slot_count + CUTS_MAX + 4, sizeof *master->terms);
    master->rows = ts_xcalloc(master->slot_count + 1, sizeof *master->rows);
    double least = INFINITY, all = 0;
    for (uint32_t i = 0; i < kinds->make_count; ++i)
        all += kinds->makes[i].slots[0];
    for (size_t i = 0; i < sets->count; ++i)
        least = fmin(least, sets->sets[i].gpus);
    master->replicas_max = sets->count > 0 ? floor(all / least) : 0;
    master->lp = plan_lp_new();
    make_rows(master);
    return master;
}

void plan_bound_master_destroy(struct plan_bound_master **master)
{
    struct plan_bound_master *m = *master;
    if (m == NULL)
        return;
    plan_lp_destroy(&m->lp);
    ts_free(m->now.slots);
    ts_free(m->best.slots);
    ts_free(m->offers);
    ts_free(m->columns);
    ts_free(m->terms);
    ts_free(m->rows);
    ts_free(m);
    *master = NULL;
}

uint64_t plan_bound_master_round(struct plan_bound_master *master)
{
    uint64_t pass = master->sets->live * PLAN_BOUND_PHASES + 1;
    if (master->done)
        return 1;
    if (master->rounds++ == 0) {
        first_round(master);
        return 3 * pass;
    }
    struct ts_error err;
    master->done = master->rounds > ROUNDS_MAX || plan_lp_solve(master->lp, &err) != TS_OK;
    if (master->done)
        return 1;
    master->least = plan_lp_objective(master->lp);
    if (master->value - master->least <= CLOSED * master->value) {
        master->done = true;
        return 1;
    }
    struct prices duals = {.slots = ts_xcalloc(master->slot_count + 1, sizeof *duals.slots)};
    read_prices(master, &duals);
    cost_kinds(master, &duals);
    uint64_t work = pass;
    copy_prices(master, &master->now, &duals);
    if (master->value < INFINITY && master->rounds > 2) {
        mix_in(master, &master->now, &master->best);
        price_all(master, &duals);
    }
    if (master->offer_count == 0 || master->rounds <= 2) {
        copy_prices(master, &master->now, &duals);
        price_all(master, &duals);
        master->done = master->offer_count == 0;
        work += pass;
    }
    work += take_offers(master, &duals);
    ts_free(duals.slots);
    return work;
}

bool plan_bound_master_done(const struct plan_bound_master *master)
{
    return master->done;
}

double plan_bound_master_value(const struct plan_bound_master *master)
{
    return master->value;
}

double plan_bound_master_least(const struct plan_bound_master *master)
{
    return master->least;
}

const struct plan_bound_prices *plan_bound_master_prices(const struct plan_bound_master *master)
{
    return &master->best.classes;
}

void plan_bound_master_counts(const struct plan_bound_master *master, double *counts)
{
    memset(counts, 0, master->problem->cluster->type_count * sizeof *counts);
    for (size_t i = 0; i < master->column_count; ++i) {
        const struct column *column = &master->columns[i];
        double bought = plan_lp_value(master->lp, master->column_base + (uint32_t)i);
        for (uint32_t s = 0; s < column->count; ++s) {
            const struct plan_bound_kind *kind = &master->kinds->kinds[column->stages[s]];
            counts[master->kinds->makes[kind->make].type] += bought * kind->tp;
        }
    }
}
