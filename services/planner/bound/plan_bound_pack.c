#include "services/planner/bound/plan_bound_pack.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_lp.h"

#define ROUNDS_MAX  400
#define CLOSED      1e-6 /* relative gap between master and bound at which rounds end */
#define SMOOTHING   0.6  /* weight of the best prices so far against the master's */
#define IDLE_DEVICE UINT32_MAX

struct option {
    size_t state;
    uint32_t item;
};

struct plan_bound_pack {
    const struct plan_problem *problem;
    double rate; /* of all classes */
    uint32_t dims;
    uint32_t counts[PLAN_PACK_DIMS_MAX];
    size_t strides[PLAN_PACK_DIMS_MAX];
    size_t states;
    uint8_t *digits; /* dims of each state */

    const struct plan_bound_item **items;
    double *worths; /* of items */
    size_t item_count, item_capacity, worth_capacity;
    struct option *options;
    size_t option_count, option_capacity;

    double *offer; /* by state: best option that takes just these devices */
    uint32_t *offer_item;
    double *most;     /* by state: best packing */
    uint32_t *choice; /* by state: item bought with all of `taken`, or IDLE_DEVICE */
    size_t *taken;
    size_t *active; /* states whose offer beats all packings of smaller ones */
    size_t active_count;

    struct plan_lp *lp;
    uint32_t rounds;
    bool done;
    struct plan_bound_prices prices, best_prices;
    double value; /* requests/s */
};

/* --- Vectors of counts --- */

struct plan_bound_pack *plan_bound_pack_new(const struct plan_problem *problem, const uint32_t *counts,
                                            uint32_t dims, size_t states_max)
{
    if (dims > PLAN_PACK_DIMS_MAX)
        return NULL;
    size_t states = 1;
    for (uint32_t d = 0; d < dims; ++d) {
        if (counts[d] > UINT8_MAX || states * (counts[d] + 1) > states_max)
            return NULL;
        states *= counts[d] + 1;
    }
    struct plan_bound_pack *pack = ts_xcalloc(1, sizeof *pack);
    pack->problem = problem;
    pack->rate = ts_demand_rate(problem->demand);
    pack->dims = dims;
    pack->states = states;
    pack->value = INFINITY;
    pack->digits = ts_xcalloc(states, dims + 1);
    size_t stride = 1;
    for (uint32_t d = 0; d < dims; ++d) {
        pack->counts[d] = counts[d];
        pack->strides[d] = stride;
        for (size_t s = 0; s < states; ++s)
            pack->digits[s * dims + d] = (uint8_t)(s / stride % (counts[d] + 1));
        stride *= counts[d] + 1;
    }
    pack->offer = ts_xcalloc(states, sizeof *pack->offer);
    pack->offer_item = ts_xcalloc(states, sizeof *pack->offer_item);
    pack->most = ts_xcalloc(states, sizeof *pack->most);
    pack->choice = ts_xcalloc(states, sizeof *pack->choice);
    pack->taken = ts_xcalloc(states, sizeof *pack->taken);
    pack->active = ts_xcalloc(states, sizeof *pack->active);
    return pack;
}

void plan_bound_pack_destroy(struct plan_bound_pack **pack)
{
    struct plan_bound_pack *p = *pack;
    if (p == NULL)
        return;
    plan_lp_destroy(&p->lp);
    ts_free(p->digits);
    ts_free(p->items);
    ts_free(p->worths);
    ts_free(p->options);
    ts_free(p->offer);
    ts_free(p->offer_item);
    ts_free(p->most);
    ts_free(p->choice);
    ts_free(p->taken);
    ts_free(p->active);
    ts_free(p);
    *pack = NULL;
}

size_t plan_bound_pack_states(const struct plan_bound_pack *pack)
{
    return pack->states;
}

size_t plan_bound_pack_state(const struct plan_bound_pack *pack, const uint32_t *counts)
{
    size_t state = 0;
    for (uint32_t d = 0; d < pack->dims; ++d)
        state += counts[d] * pack->strides[d];
    return state;
}

const uint8_t *plan_bound_pack_digits(const struct plan_bound_pack *pack, size_t state)
{
    return pack->digits + state * pack->dims;
}

/* --- Options --- */

uint32_t plan_bound_pack_item(struct plan_bound_pack *pack, const struct plan_bound_item *item)
{
    ts_array_reserve((void **)&pack->items, &pack->item_capacity, pack->item_count + 1, sizeof *pack->items);
    ts_array_reserve((void **)&pack->worths, &pack->worth_capacity, pack->item_count + 1,
                     sizeof *pack->worths);
    pack->items[pack->item_count] = item;
    return (uint32_t)pack->item_count++;
}

void plan_bound_pack_add(struct plan_bound_pack *pack, size_t state, uint32_t item)
{
    ts_array_reserve((void **)&pack->options, &pack->option_capacity, pack->option_count + 1,
                     sizeof *pack->options);
    pack->options[pack->option_count++] = (struct option){.state = state, .item = item};
}

/* --- The knapsack --- */

static bool within(const struct plan_bound_pack *pack, size_t part, size_t whole)
{
    const uint8_t *a = pack->digits + part * pack->dims, *b = pack->digits + whole * pack->dims;
    for (uint32_t d = 0; d < pack->dims; ++d) {
        if (a[d] > b[d])
            return false;
    }
    return true;
}

static void price_offers(struct plan_bound_pack *pack)
{
    for (size_t i = 0; i < pack->item_count; ++i)
        pack->worths[i] = plan_bound_item_worth(pack->items[i], &pack->prices, NULL);
    memset(pack->offer, 0, pack->states * sizeof *pack->offer);
    for (size_t i = 0; i < pack->option_count; ++i) {
        const struct option *option = &pack->options[i];
        if (pack->worths[option->item] > pack->offer[option->state]) {
            pack->offer[option->state] = pack->worths[option->item];
            pack->offer_item[option->state] = option->item;
        }
    }
}

static void best_of_state(struct plan_bound_pack *pack, size_t state)
{
    double most = 0;
    uint32_t choice = IDLE_DEVICE;
    size_t taken = 0;
    for (uint32_t d = 0; d < pack->dims; ++d) {
        if (pack->digits[state * pack->dims + d] == 0)
            continue;
        double without = pack->most[state - pack->strides[d]];
        if (taken == 0 || without > most) {
            most = without;
            taken = pack->strides[d];
        }
    }
    for (size_t i = 0; i < pack->active_count; ++i) {
        size_t part = pack->active[i];
        double with = pack->offer[part];
        if (!within(pack, part, state) || with + pack->most[state - part] <= most)
            continue;
        most = with + pack->most[state - part];
        choice = pack->offer_item[part];
        taken = part;
    }
    if (pack->offer[state] > most) {
        most = pack->offer[state];
        choice = pack->offer_item[state];
        taken = state;
        pack->active[pack->active_count++] = state;
    }
    pack->most[state] = most;
    pack->choice[state] = choice;
    pack->taken[state] = taken;
}

static void solve_knapsack(struct plan_bound_pack *pack)
{
    price_offers(pack);
    pack->active_count = 0;
    pack->most[0] = 0;
    for (size_t s = 1; s < pack->states; ++s)
        best_of_state(pack, s);
}

/* --- Prices --- */

static bool scaled(const struct plan_bound_pack *pack)
{
    return pack->problem->objective == PLAN_GOODPUT;
}

static double base_of(const struct plan_bound_pack *pack, const struct plan_bound_prices *prices)
{
    double base = 0;
    for (uint32_t k = 0; k < pack->problem->demand->class_count && !scaled(pack); ++k)
        base += prices->serve[k] * pack->problem->demand->classes[k].rate;
    return base;
}

/* Rows: serve of each class, feed of each class, one packing, and for goodput the attainment. */
static void start_master(struct plan_bound_pack *pack)
{
    const struct ts_demand *demand = pack->problem->demand;
    uint32_t classes = demand->class_count;
    pack->lp = plan_lp_new();
    for (uint32_t k = 0; k < classes; ++k)
        (void)plan_lp_add_row(pack->lp, scaled(pack) ? 0 : demand->classes[k].rate);
    for (uint32_t k = 0; k < classes; ++k)
        (void)plan_lp_add_row(pack->lp, 0);
    (void)plan_lp_add_row(pack->lp, 1);
    if (!scaled(pack))
        return;
    (void)plan_lp_add_row(pack->lp, 0);
    struct plan_lp_term terms[TS_CLASSES_MAX + 1];
    for (uint32_t k = 0; k < classes; ++k)
        terms[k] = (struct plan_lp_term){k, -demand->classes[k].rate / pack->rate};
    terms[classes] = (struct plan_lp_term){2 * classes + 1, pack->problem->attainment};
    (void)plan_lp_add_column(pack->lp, 0, terms, classes + 1);
}

static void add_packing(struct plan_bound_pack *pack)
{
    uint32_t classes = pack->problem->demand->class_count, count = 0;
    struct plan_bound_pattern sum = {.worth = 0};
    for (size_t s = pack->states - 1; s != 0; s -= pack->taken[s]) {
        if (pack->choice[s] == IDLE_DEVICE)
            continue;
        struct plan_bound_pattern one;
        (void)plan_bound_item_worth(pack->items[pack->choice[s]], &pack->prices, &one);
        sum.gain += one.gain;
        for (uint32_t k = 0; k < classes; ++k) {
            sum.serve[k] += one.serve[k];
            sum.feed[k] += one.feed[k];
        }
    }
    struct plan_lp_term terms[2 * TS_CLASSES_MAX + 2];
    for (uint32_t k = 0; k < classes; ++k) {
        if (sum.serve[k] != 0)
            terms[count++] = (struct plan_lp_term){k, sum.serve[k]};
        if (sum.feed[k] != 0)
            terms[count++] = (struct plan_lp_term){classes + k, sum.feed[k]};
    }
    terms[count++] = (struct plan_lp_term){2 * classes, 1};
    if (scaled(pack) && sum.gain != 0)
        terms[count++] = (struct plan_lp_term){2 * classes + 1, -sum.gain};
    (void)plan_lp_add_column(pack->lp, sum.gain, terms, count);
}

/* The master's duals, made feasible where they are so up to rounding only. */
static struct plan_bound_prices read_prices(const struct plan_bound_pack *pack)
{
    const struct ts_demand *demand = pack->problem->demand;
    uint32_t classes = demand->class_count;
    struct plan_bound_prices prices = {.scale = 1};
    double asked = 0;
    for (uint32_t k = 0; k < classes; ++k) {
        prices.serve[k] = fmax(0, plan_lp_dual(pack->lp, k));
        prices.feed[k] = fmax(0, plan_lp_dual(pack->lp, classes + k));
        asked += prices.serve[k] * demand->classes[k].rate / pack->rate;
    }
    if (scaled(pack)) {
        double dual = fmax(0, plan_lp_dual(pack->lp, 2 * classes + 1));
        prices.scale = 1 + fmax(dual, asked / pack->problem->attainment);
    }
    return prices;
}

static double mix(double a, double b)
{
    return SMOOTHING * a + (1 - SMOOTHING) * b;
}

static struct plan_bound_prices mix_prices(const struct plan_bound_prices *a,
                                           const struct plan_bound_prices *b)
{
    struct plan_bound_prices out = {.scale = mix(a->scale, b->scale)};
    for (uint32_t k = 0; k < TS_CLASSES_MAX; ++k) {
        out.serve[k] = mix(a->serve[k], b->serve[k]);
        out.feed[k] = mix(a->feed[k], b->feed[k]);
    }
    return out;
}

static void try_prices(struct plan_bound_pack *pack, const struct plan_bound_prices *prices)
{
    pack->prices = *prices;
    solve_knapsack(pack);
    double value = base_of(pack, prices) + pack->most[pack->states - 1];
    if (value < pack->value) {
        pack->value = value;
        pack->best_prices = *prices;
    }
    add_packing(pack);
}

void plan_bound_pack_start(struct plan_bound_pack *pack, const struct plan_bound_prices *prices)
{
    if (pack->lp == NULL)
        start_master(pack);
    try_prices(pack, prices);
}

static void guess_prices(struct plan_bound_pack *pack)
{
    for (int i = 1; i < 4; ++i) {
        struct plan_bound_prices prices = {.scale = 1};
        for (uint32_t k = 0; k < pack->problem->demand->class_count; ++k)
            prices.feed[k] = 0.25 * i;
        plan_bound_pack_start(pack, &prices);
    }
}

bool plan_bound_pack_round(struct plan_bound_pack *pack)
{
    if (pack->done)
        return true;
    if (pack->lp == NULL) {
        guess_prices(pack);
        return false;
    }
    struct ts_error err;
    pack->done = ++pack->rounds > ROUNDS_MAX || plan_lp_solve(pack->lp, &err) != TS_OK;
    if (pack->done)
        return true;
    double least = plan_lp_objective(pack->lp);
    if (pack->value - least <= CLOSED * fmax(pack->value, 1e-9)) {
        pack->done = true;
        return true;
    }
    struct plan_bound_prices duals = read_prices(pack);
    struct plan_bound_prices between = mix_prices(&pack->best_prices, &duals);
    double before = pack->value;
    try_prices(pack, &between);
    if (pack->value >= before)
        try_prices(pack, &duals);
    return false;
}

double plan_bound_pack_value(const struct plan_bound_pack *pack)
{
    return scaled(pack) ? pack->value : fmin(1, pack->value / pack->rate);
}

void plan_bound_pack_settle(struct plan_bound_pack *pack)
{
    pack->prices = pack->best_prices;
    solve_knapsack(pack);
}

double plan_bound_pack_base(const struct plan_bound_pack *pack)
{
    return base_of(pack, &pack->prices);
}

double plan_bound_pack_most(const struct plan_bound_pack *pack, size_t state)
{
    return pack->most[state];
}

double plan_bound_pack_worth(const struct plan_bound_pack *pack, uint32_t item)
{
    return pack->worths[item];
}
