#include "services/planner/bound/plan_bound_item.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define ROWS       PLAN_BOUND_USES
#define PIVOTS_MAX 200
#define TINY       1e-12
#define SLACK      UINT32_MAX

/* --- The best partner --- */

static void better_link(struct ts_link *best, const struct ts_link *link)
{
    if (link->bytes_per_s <= 0)
        return;
    best->latency_s = fmin(best->latency_s, link->latency_s);
    best->bytes_per_s = fmax(best->bytes_per_s, link->bytes_per_s);
}

struct ts_link plan_bound_best_link(const struct ts_cluster *cluster)
{
    struct ts_link best = {.bytes_per_s = 0, .latency_s = INFINITY};
    for (uint32_t i = 0; i < cluster->cell_count; ++i) {
        better_link(&best, ts_cluster_inner(cluster, cluster->cells[i].node, cluster->cells[i].type));
    }
    for (uint32_t i = 0; i < cluster->node_count; ++i) {
        for (uint32_t j = 0; j < cluster->node_count; ++j) {
            if (i != j)
                better_link(&best, ts_cluster_link(cluster, i, j));
        }
    }
    return best.bytes_per_s > 0 ? best : (struct ts_link){.bytes_per_s = 0};
}

void plan_bound_ideal_init(struct plan_bound_ideal *ideal, const struct plan_problem *problem)
{
    memset(ideal, 0, sizeof *ideal);
    struct ts_link link = plan_bound_best_link(problem->cluster);
    /* A transfer between two pipelines may use as many links at once as they have stages. */
    link.bytes_per_s *= problem->max_stages > 0 ? problem->max_stages : TS_STAGES_MAX;
    for (uint32_t k = 0; k < problem->demand->class_count && link.bytes_per_s > 0; ++k) {
        double tokens = problem->demand->classes[k].prompt_tokens, ratio = 1;
        for (int codec = 0; codec < TS_COST_CODEC_COUNT; ++codec) {
            if (codec == TS_COST_CODEC_NONE || problem->codec_allowed[codec])
                ratio = fmin(ratio, ts_cost_codec_ratio((enum ts_cost_codec)codec, tokens));
        }
        /* All layers but the last one may hide behind the prefill. */
        double bytes = tokens * (double)ts_model_kv_token_bytes(problem->model) * ratio;
        ideal->visible_s[k] = ts_cost_kv_visible_s(&link, problem->model, bytes, INFINITY);
    }
}

/* --- A shape as flows --- */

static bool beats(const struct plan_bound_flow *a, const struct plan_bound_flow *b)
{
    if (a->length_class != b->length_class || a->gain < b->gain)
        return false;
    for (int r = 0; r < ROWS; ++r) {
        if (a->use[r] > b->use[r])
            return false;
    }
    return true;
}

static void add_flow(struct plan_bound_item *item, const struct plan_bound_flow *flow)
{
    for (uint32_t i = 0; i < item->count; ++i) {
        if (beats(&item->flows[i], flow))
            return;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < item->count; ++i) {
        if (!beats(flow, &item->flows[i]))
            item->flows[kept++] = item->flows[i];
    }
    ts_array_reserve((void **)&item->flows, &item->capacity, kept + 1, sizeof *item->flows);
    item->flows[kept] = *flow;
    item->count = kept + 1;
}

static struct plan_bound_flow make_flow(const struct plan_problem *problem,
                                        const struct plan_bound_ideal *ideal, const struct plan_shape *shape,
                                        const struct plan_point *point, uint32_t k)
{
    const struct ts_class *class_ = &problem->demand->classes[k];
    struct plan_bound_flow flow = {.length_class = k};
    double visible_s = shape->phase == TS_PHASE_BOTH ? 0 : ideal->visible_s[k];
    double prefill_s = shape->phase == TS_PHASE_DECODE ? 0 : shape->prefill_s[k];
    const struct plan_point *p = shape->phase == TS_PHASE_DECODE ? &ideal->point : point;
    const struct plan_point *d = shape->phase == TS_PHASE_PREFILL ? &ideal->point : point;
    struct plan_miss miss = plan_miss_of(class_, prefill_s, p, d, visible_s);
    /* Waiting is charged to prefill, time between tokens to decode. */
    flow.gain = shape->phase == TS_PHASE_PREFILL ? -fmax(miss.ttft, miss.e2e) : 1 - miss.any;
    if (shape->phase != TS_PHASE_DECODE)
        flow.use[PLAN_BOUND_PREFILL] = point->prefill[k];
    if (shape->phase != TS_PHASE_PREFILL) {
        flow.use[PLAN_BOUND_COMPUTE] = point->compute[k];
        flow.use[PLAN_BOUND_MEMORY] = point->memory[k];
    }
    return flow;
}

void plan_bound_item_init(struct plan_bound_item *item, enum ts_phase phase)
{
    *item = (struct plan_bound_item){.phase = phase};
}

void plan_bound_item_add(struct plan_bound_item *item, const struct plan_problem *problem,
                         const struct plan_bound_ideal *ideal, const struct plan_shape *shape)
{
    double least = shape->phase == TS_PHASE_PREFILL ? -1 : 0;
    for (uint32_t k = 0; k < problem->demand->class_count; ++k) {
        for (uint32_t i = 0; i < shape->point_count; ++i) {
            struct plan_bound_flow flow = make_flow(problem, ideal, shape, &shape->points[i], k);
            if (shape->fits[k] && flow.gain > least)
                add_flow(item, &flow);
        }
    }
}

void plan_bound_item_trim(struct plan_bound_item *item)
{
    if (item->count == item->capacity)
        return;
    if (item->count == 0)
        plan_bound_item_fini(item);
    else
        item->flows = ts_xrealloc(item->flows, item->count * sizeof *item->flows);
    item->capacity = item->count;
}

void plan_bound_item_fini(struct plan_bound_item *item)
{
    ts_free(item->flows);
    *item = (struct plan_bound_item){.phase = item->phase};
}

/* --- Its worth: max c x, uses <= 1, by a primal simplex on three rows --- */

static double profit_of(const struct plan_bound_item *item, const struct plan_bound_flow *flow,
                        const struct plan_bound_prices *prices)
{
    double profit = prices->scale * flow->gain;
    if (item->phase != TS_PHASE_PREFILL)
        profit -= prices->serve[flow->length_class];
    if (item->phase == TS_PHASE_PREFILL)
        profit += prices->feed[flow->length_class];
    else if (item->phase == TS_PHASE_DECODE)
        profit -= prices->feed[flow->length_class];
    return profit;
}

struct tableau {
    double inverse[ROWS][ROWS];
    double value[ROWS];   /* of the basic variables */
    double profit[ROWS];  /* theirs */
    uint32_t basis[ROWS]; /* a flow, or SLACK */
};

struct entering {
    uint32_t flow; /* or SLACK */
    double profit;
    double use[ROWS];
};

static void row_prices(const struct tableau *t, double y[ROWS])
{
    for (int r = 0; r < ROWS; ++r) {
        y[r] = 0;
        for (int i = 0; i < ROWS; ++i)
            y[r] += t->profit[i] * t->inverse[i][r];
    }
}

static double cost_of(const struct plan_bound_flow *flow, const double y[ROWS])
{
    double cost = 0;
    for (int r = 0; r < ROWS; ++r)
        cost += y[r] * flow->use[r];
    return cost;
}

/* The flow or slack of most reduced profit; false at the optimum. */
static bool find_entering(const struct plan_bound_item *item, const struct plan_bound_prices *prices,
                          const double y[ROWS], struct entering *out)
{
    double best = TINY;
    *out = (struct entering){.flow = SLACK};
    for (uint32_t j = 0; j < item->count; ++j) {
        double profit = profit_of(item, &item->flows[j], prices);
        double reduced = profit - cost_of(&item->flows[j], y);
        if (reduced <= best)
            continue;
        best = reduced;
        out->flow = j;
        out->profit = profit;
        memcpy(out->use, item->flows[j].use, sizeof out->use);
    }
    for (int r = 0; r < ROWS; ++r) {
        if (-y[r] <= best)
            continue;
        best = -y[r];
        *out = (struct entering){.flow = SLACK};
        out->use[r] = 1;
    }
    return best > TINY;
}

static bool pivot(struct tableau *t, const struct entering *entering)
{
    double direction[ROWS], step = INFINITY;
    int leave = -1;
    for (int i = 0; i < ROWS; ++i) {
        direction[i] = 0;
        for (int r = 0; r < ROWS; ++r)
            direction[i] += t->inverse[i][r] * entering->use[r];
        if (direction[i] > TINY && t->value[i] / direction[i] < step) {
            step = t->value[i] / direction[i];
            leave = i;
        }
    }
    if (leave < 0)
        return false;
    for (int i = 0; i < ROWS; ++i) {
        if (i == leave)
            continue;
        t->value[i] = fmax(0, t->value[i] - step * direction[i]);
        for (int r = 0; r < ROWS; ++r)
            t->inverse[i][r] -= direction[i] / direction[leave] * t->inverse[leave][r];
    }
    for (int r = 0; r < ROWS; ++r)
        t->inverse[leave][r] /= direction[leave];
    t->value[leave] = step;
    t->profit[leave] = entering->profit;
    t->basis[leave] = entering->flow;
    return true;
}

static void read_pattern(const struct plan_bound_item *item, const struct tableau *t,
                         struct plan_bound_pattern *pattern)
{
    memset(pattern, 0, sizeof *pattern);
    for (int i = 0; i < ROWS; ++i) {
        if (t->basis[i] == SLACK)
            continue;
        const struct plan_bound_flow *flow = &item->flows[t->basis[i]];
        uint32_t k = flow->length_class;
        pattern->gain += flow->gain * t->value[i];
        if (item->phase == TS_PHASE_PREFILL)
            pattern->feed[k] -= t->value[i];
        else
            pattern->serve[k] += t->value[i];
        if (item->phase == TS_PHASE_DECODE)
            pattern->feed[k] += t->value[i];
    }
}

double plan_bound_item_worth(const struct plan_bound_item *item, const struct plan_bound_prices *prices,
                             struct plan_bound_pattern *pattern)
{
    struct tableau t = {.basis = {SLACK, SLACK, SLACK}};
    struct entering entering;
    double y[ROWS] = {0};
    for (int i = 0; i < ROWS; ++i) {
        t.inverse[i][i] = 1;
        t.value[i] = 1;
    }
    for (int round = 0; round < PIVOTS_MAX && find_entering(item, prices, y, &entering); ++round) {
        if (!pivot(&t, &entering))
            break;
        row_prices(&t, y);
    }
    /* Any y >= 0 that covers each flow is a bound: lift y until it does. */
    double lift = 1, worth = 0;
    for (int r = 0; r < ROWS; ++r)
        y[r] = fmax(0, y[r]);
    for (uint32_t j = 0; j < item->count; ++j) {
        double profit = profit_of(item, &item->flows[j], prices), cost = cost_of(&item->flows[j], y);
        if (profit > cost)
            lift = cost > 0 ? fmax(lift, profit / cost) : profit > TINY ? INFINITY : lift;
    }
    for (int r = 0; r < ROWS; ++r)
        worth += y[r];
    worth = worth > 0 ? worth * lift : 0;
    if (pattern != NULL) {
        read_pattern(item, &t, pattern);
        pattern->worth = worth;
    }
    return worth;
}
