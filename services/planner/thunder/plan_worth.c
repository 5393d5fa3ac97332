#include "services/planner/thunder/plan_worth.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define MISSES     4096u /* tables of misses kept, direct-mapped; a power of two */
#define WORTHS     8192u /* worths kept since the last prices */
#define VISIBLE_EQ 1.25  /* visible times within this factor share a table */

struct side { /* a group of the state as a partner */
    const struct plan_shape *shape;
    uint32_t node;
    double prefill, compute, memory; /* prices */
};

struct misses { /* of a shape alone, per class and point */
    uint64_t key;
    uint32_t points;
    double *any; /* [class * points + point] */
};

struct partner { /* the cheapest other side for each class, seen from one node; INFINITY = none */
    bool known;
    double cost[TS_CLASSES_MAX];
    double visible[TS_CLASSES_MAX];
    uint64_t visible_key;
};

struct kept {
    uint64_t key;
    double worth;
};

struct plan_worth {
    const struct plan_problem *problem;
    double bytes[TS_CLASSES_MAX]; /* of KV on the wire by the smallest codec allowed */
    double gain, price[TS_CLASSES_MAX];
    double *nic_out, *nic_in; /* prices per byte/s, by node */
    struct side *sides;
    uint32_t side_count, side_capacity;
    bool has_prefill, has_decode;
    struct partner *to_decode, *to_prefill; /* by node */
    struct misses *misses;
    struct kept *kept;
};

struct plan_worth *plan_worth_new(const struct plan_shapes *shapes)
{
    struct plan_worth *worth = ts_xcalloc(1, sizeof *worth);
    const struct plan_problem *problem = plan_shapes_problem(shapes);
    uint32_t nodes = problem->cluster->node_count;
    worth->problem = problem;
    worth->nic_out = ts_xcalloc(nodes, sizeof *worth->nic_out);
    worth->nic_in = ts_xcalloc(nodes, sizeof *worth->nic_in);
    worth->to_decode = ts_xcalloc(nodes, sizeof *worth->to_decode);
    worth->to_prefill = ts_xcalloc(nodes, sizeof *worth->to_prefill);
    worth->misses = ts_xcalloc(MISSES, sizeof *worth->misses);
    worth->kept = ts_xcalloc(WORTHS, sizeof *worth->kept);
    for (uint32_t k = 0; k < problem->demand->class_count; k++) {
        double tokens = problem->demand->classes[k].prompt_tokens, ratio = 1;
        for (int codec = 1; codec < TS_COST_CODEC_COUNT; codec++) {
            if (problem->codec_allowed[codec])
                ratio = fmin(ratio, ts_cost_codec_ratio((enum ts_cost_codec)codec, tokens));
        }
        worth->bytes[k] = (double)ts_model_kv_token_bytes(problem->model) * tokens * ratio;
    }
    return worth;
}

void plan_worth_destroy(struct plan_worth **ptr)
{
    struct plan_worth *worth = *ptr;
    if (!worth)
        return;
    for (uint32_t i = 0; i < MISSES; i++)
        ts_free(worth->misses[i].any);
    ts_free(worth->misses);
    ts_free(worth->kept);
    ts_free(worth->nic_out);
    ts_free(worth->nic_in);
    ts_free(worth->to_decode);
    ts_free(worth->to_prefill);
    ts_free(worth->sides);
    ts_free(worth);
    *ptr = NULL;
}

/* --- Misses of one side, the other being ideal --- */

static void fill_misses(const struct plan_worth *worth, const struct plan_shape *shape, const double *visible,
                        double *any)
{
    static const double nothing[TS_CLASSES_MAX];
    const struct plan_point ideal = {.prefill = nothing, .compute = nothing, .memory = nothing};
    const struct ts_demand *demand = worth->problem->demand;
    for (uint32_t k = 0; k < demand->class_count; k++) {
        for (uint32_t p = 0; p < shape->point_count; p++) {
            const struct plan_point *point = &shape->points[p];
            double *out = &any[k * shape->point_count + p];
            if (!shape->fits[k])
                *out = 1;
            else if (shape->phase == TS_PHASE_PREFILL)
                *out = plan_miss_of(&demand->classes[k], shape->prefill_s[k], point, &ideal, 0).any;
            else if (shape->phase == TS_PHASE_DECODE)
                *out = plan_miss_of(&demand->classes[k], 0, &ideal, point, visible[k]).any;
            else
                *out = plan_miss_of(&demand->classes[k], shape->prefill_s[k], point, point, 0).any;
        }
    }
}

static const double *misses_of(struct plan_worth *worth, const struct plan_shape *shape,
                               const double *visible, uint64_t visible_key)
{
    uint64_t key = (uint64_t)shape->id + 1;
    if (shape->phase == TS_PHASE_DECODE)
        key ^= visible_key << 20;
    struct misses *misses = &worth->misses[ts_splitmix64(key) & (MISSES - 1)];
    if (misses->key != key) {
        uint32_t count = shape->point_count * worth->problem->demand->class_count;
        misses->any = ts_xrealloc(misses->any, (count + 1) * sizeof *misses->any);
        misses->key = key;
        misses->points = shape->point_count;
        fill_misses(worth, shape, visible, misses->any);
    }
    TS_ASSERT(misses->points == shape->point_count);
    return misses->any;
}

static double visible_step(double seconds, uint64_t *key)
{
    if (!(seconds > 1e-4)) {
        *key = ts_splitmix64(*key);
        return 0;
    }
    if (!isfinite(seconds)) {
        *key = ts_splitmix64(*key ^ 1);
        return seconds;
    }
    double step = ceil(ts_math_log(seconds) / ts_math_log(VISIBLE_EQ));
    *key = ts_splitmix64(*key ^ (uint64_t)(int64_t)(step + 1000));
    return ts_math_pow(VISIBLE_EQ, step);
}

/* --- Partners --- */

static void price_side(const struct plan_price *price, struct side *sides, uint32_t count)
{
    if (price->index >= count)
        return;
    if (price->limit == PLAN_LIMIT_PREFILL)
        sides[price->index].prefill = price->price;
    else if (price->limit == PLAN_LIMIT_COMPUTE)
        sides[price->index].compute = price->price;
    else if (price->limit == PLAN_LIMIT_MEMORY)
        sides[price->index].memory = price->price;
}

static double nic_cost(const struct plan_worth *worth, uint32_t from, uint32_t to, uint32_t k)
{
    return from == to ? 0 : (worth->nic_out[from] + worth->nic_in[to]) * worth->bytes[k];
}

static double prefill_cost(struct plan_worth *worth, const struct side *side, uint32_t k)
{
    const double *any = misses_of(worth, side->shape, NULL, 0);
    double best = INFINITY;
    for (uint32_t p = 0; p < side->shape->point_count; p++) {
        double cost = worth->gain * any[k * side->shape->point_count + p] +
                      side->prefill * side->shape->points[p].prefill[k];
        best = fmin(best, cost);
    }
    return best;
}

static double decode_cost(const struct plan_worth *worth, const struct side *side, const double *any,
                          uint32_t k)
{
    double best = INFINITY;
    for (uint32_t p = 0; p < side->shape->point_count; p++) {
        const struct plan_point *point = &side->shape->points[p];
        double cost = worth->gain * any[k * side->shape->point_count + p] +
                      side->compute * point->compute[k] + side->memory * point->memory[k];
        best = fmin(best, cost);
    }
    return best;
}

/* The KV time that a request sees between two nodes when its prefill takes so long. */
static double visible_s(const struct plan_worth *worth, uint32_t from, uint32_t to, uint32_t k,
                        double prefill_s)
{
    const struct ts_cluster *cluster = worth->problem->cluster;
    return from == to ? 0
                      : ts_cost_kv_visible_s(ts_cluster_link(cluster, from, to), worth->problem->model,
                                             worth->bytes[k], prefill_s);
}

static struct partner *prefill_partner(struct plan_worth *worth, uint32_t node)
{
    struct partner *partner = &worth->to_prefill[node];
    if (partner->known)
        return partner;
    partner->known = true;
    partner->visible_key = 0;
    for (uint32_t k = 0; k < worth->problem->demand->class_count; k++) {
        double best = INFINITY, visible = 0;
        for (uint32_t i = 0; i < worth->side_count; i++) {
            const struct side *side = &worth->sides[i];
            if (side->shape->phase != TS_PHASE_PREFILL)
                continue;
            double cost = prefill_cost(worth, side, k) + nic_cost(worth, side->node, node, k);
            if (cost < best) {
                best = cost;
                visible = visible_s(worth, side->node, node, k, side->shape->prefill_s[k]);
            }
        }
        partner->cost[k] = best;
        partner->visible[k] = visible_step(visible, &partner->visible_key);
    }
    return partner;
}

static struct partner *decode_partner(struct plan_worth *worth, uint32_t node)
{
    struct partner *partner = &worth->to_decode[node];
    uint32_t classes = worth->problem->demand->class_count;
    if (partner->known)
        return partner;
    partner->known = true;
    double prefill_s[TS_CLASSES_MAX] = {0}; /* of a prefill there is: how much of a transfer hides */
    for (uint32_t i = 0; i < worth->side_count; i++) {
        if (worth->sides[i].shape->phase == TS_PHASE_PREFILL)
            memcpy(prefill_s, worth->sides[i].shape->prefill_s, sizeof prefill_s);
    }
    for (uint32_t k = 0; k < classes; k++)
        partner->cost[k] = INFINITY;
    for (uint32_t i = 0; i < worth->side_count; i++) {
        const struct side *side = &worth->sides[i];
        if (side->shape->phase != TS_PHASE_DECODE)
            continue;
        double visible[TS_CLASSES_MAX];
        uint64_t key = 0;
        for (uint32_t k = 0; k < classes; k++)
            visible[k] = visible_step(visible_s(worth, node, side->node, k, prefill_s[k]), &key);
        const double *any = misses_of(worth, side->shape, visible, key);
        for (uint32_t k = 0; k < classes; k++)
            partner->cost[k] = fmin(partner->cost[k],
                                    decode_cost(worth, side, any, k) + nic_cost(worth, node, side->node, k));
    }
    return partner;
}

/* --- Prices --- */

/* For PLAN_GOODPUT what a request within its deadlines is worth is not 1 but what makes the best pair of the
 * program break even: the rise of the best profit over the gain is monotone, so halving finds it. */
static double break_even(struct plan_worth *worth)
{
    double low = 0, high = 1;
    for (int round = 0; round < 60; round++) {
        double gain = round < 30 ? high : (low + high) / 2, best = -INFINITY;
        worth->gain = gain;
        for (uint32_t k = 0; k < worth->problem->demand->class_count; k++) {
            double prefill = INFINITY, decode = INFINITY, both = INFINITY;
            static const double nothing[TS_CLASSES_MAX];
            for (uint32_t i = 0; i < worth->side_count; i++) {
                struct side *side = &worth->sides[i];
                const double *any = misses_of(worth, side->shape, nothing, 0);
                if (side->shape->phase == TS_PHASE_PREFILL)
                    prefill = fmin(prefill, prefill_cost(worth, side, k));
                else if (side->shape->phase == TS_PHASE_DECODE)
                    decode = fmin(decode, decode_cost(worth, side, any, k));
                else
                    both = fmin(both, prefill_cost(worth, side, k) + decode_cost(worth, side, any, k));
            }
            best = fmax(best, gain - worth->price[k] - fmin(prefill + decode, both));
        }
        if (round < 30 && best >= 0)
            round = 29;
        else if (round < 30)
            high *= 2;
        else if (best >= 0)
            high = gain;
        else
            low = gain;
    }
    return high;
}

void plan_worth_set(struct plan_worth *worth, const struct plan_state *state,
                    const struct plan_result *result)
{
    const struct plan_problem *problem = worth->problem;
    const struct ts_cluster *cluster = problem->cluster;
    uint32_t nodes = cluster->node_count;
    if (worth->side_capacity < state->count) {
        worth->side_capacity = state->count * 2;
        worth->sides = ts_xrealloc(worth->sides, worth->side_capacity * sizeof *worth->sides);
    }
    worth->side_count = state->count;
    worth->has_prefill = worth->has_decode = false;
    for (uint32_t i = 0; i < state->count; i++) {
        const struct plan_group *group = &state->groups[i];
        worth->sides[i] =
            (struct side){.shape = group->shape, .node = cluster->cells[group->parts[0].cell].node};
        worth->has_prefill = worth->has_prefill || group->phase == TS_PHASE_PREFILL;
        worth->has_decode = worth->has_decode || group->phase == TS_PHASE_DECODE;
    }
    memset(worth->nic_out, 0, nodes * sizeof *worth->nic_out);
    memset(worth->nic_in, 0, nodes * sizeof *worth->nic_in);
    memset(worth->price, 0, sizeof worth->price);
    for (uint32_t i = 0; i < result->price_count; i++) {
        const struct plan_price *price = &result->prices[i];
        if (price->limit == PLAN_LIMIT_DEMAND && price->index < TS_CLASSES_MAX)
            worth->price[price->index] = price->price;
        else if (price->limit == PLAN_LIMIT_NIC_OUT && price->index < nodes)
            worth->nic_out[price->index] = price->price;
        else if (price->limit == PLAN_LIMIT_NIC_IN && price->index < nodes)
            worth->nic_in[price->index] = price->price;
        else
            price_side(price, worth->sides, worth->side_count);
    }
    memset(worth->to_decode, 0, nodes * sizeof *worth->to_decode);
    memset(worth->to_prefill, 0, nodes * sizeof *worth->to_prefill);
    memset(worth->kept, 0, WORTHS * sizeof *worth->kept);
    worth->gain = problem->objective == PLAN_ATTAINMENT ? 1 / ts_demand_rate(problem->demand)
                  : state->count                        ? break_even(worth)
                                                        : 1;
}

/* --- One group --- */

/* The least a + b + c that covers the profits; any choice of weights gives an upper bound, few are enough. */
static double cover(const struct plan_shape *shape, const double *profit, uint32_t classes)
{
    static const double split[][3] = {{0, .5, .5},   {0, .1, .9},   {0, .9, .1},  {0, .02, .98},
                                      {0, .98, .02}, {0, .25, .75}, {0, .75, .25}};
    static const double both[][3] = {{.34, .33, .33}, {.8, .1, .1},   {.1, .8, .1},   {.1, .1, .8},
                                     {.45, .45, .1},  {.45, .1, .45}, {.1, .45, .45}, {.96, .02, .02},
                                     {.02, .96, .02}, {.02, .02, .96}};
    static const double prefill[][3] = {{1, 0, 0}};
    const double(*weights)[3] = shape->phase == TS_PHASE_PREFILL  ? prefill
                                : shape->phase == TS_PHASE_DECODE ? split
                                                                  : both;
    size_t count = shape->phase == TS_PHASE_PREFILL  ? TS_ARRAY_SIZE(prefill)
                   : shape->phase == TS_PHASE_DECODE ? TS_ARRAY_SIZE(split)
                                                     : TS_ARRAY_SIZE(both);
    double least = INFINITY;
    for (size_t w = 0; w < count; w++) {
        const double *a = weights[w];
        double most = 0;
        for (uint32_t k = 0; k < classes; k++) {
            for (uint32_t p = 0; p < shape->point_count; p++) {
                const struct plan_point *point = &shape->points[p];
                double gain = profit[k * shape->point_count + p];
                if (gain <= 0)
                    continue;
                double share = a[0] * point->prefill[k] + a[1] * point->compute[k] + a[2] * point->memory[k];
                if (gain > most * share)
                    most = gain / share;
            }
        }
        least = fmin(least, most);
    }
    return least;
}

static double value(struct plan_worth *worth, const struct plan_shape *shape, uint32_t node)
{
    uint32_t classes = worth->problem->demand->class_count, points = shape->point_count;
    const struct partner *partner = NULL;
    double profit[TS_CLASSES_MAX * PLAN_POINTS_MAX];
    /* With neither side there, each of the two is granted half of what a pair would bring. */
    bool alone = !worth->has_prefill && !worth->has_decode && shape->phase != TS_PHASE_BOTH;
    if (shape->phase == TS_PHASE_PREFILL && !alone)
        partner = decode_partner(worth, node);
    else if (shape->phase == TS_PHASE_DECODE && !alone)
        partner = prefill_partner(worth, node);
    static const double nothing[TS_CLASSES_MAX];
    const double *any = misses_of(worth, shape, partner ? partner->visible : nothing,
                                  partner && shape->phase == TS_PHASE_DECODE ? partner->visible_key : 0);
    for (uint32_t k = 0; k < classes; k++) {
        double most = worth->gain - worth->price[k];
        if (alone)
            most /= 2;
        if (partner)
            most -= partner->cost[k];
        for (uint32_t p = 0; p < points; p++)
            profit[k * points + p] = shape->fits[k] ? most - worth->gain * any[k * points + p] : 0;
    }
    return cover(shape, profit, classes);
}

double plan_worth_of(struct plan_worth *worth, const struct plan_group *group)
{
    uint32_t node = worth->problem->cluster->cells[group->parts[0].cell].node;
    uint64_t key = ((uint64_t)group->shape->id + 1) << 16 | node;
    struct kept *kept = &worth->kept[ts_splitmix64(key) & (WORTHS - 1)];
    if (kept->key != key)
        *kept = (struct kept){key, value(worth, group->shape, node)};
    return kept->worth;
}
