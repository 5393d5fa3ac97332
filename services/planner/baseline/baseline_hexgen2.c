/*
 * `hexgen2`: Jiang et al., "HexGen-2: Disaggregated Generative Inference of LLMs in Heterogeneous
 * Environment", ICLR 2025 (arXiv 2502.07903), section 3. Modelled: (1) a partition of the devices into model
 * serving groups by bandwidth, spectral first and then improved by Kernighan-Lin exchanges, balanced by
 * memory; (2) a second partition of the coarsened graph into prefill and decode groups that puts much
 * bandwidth across; (3) parallel configurations by phase, latency for prefill and throughput for decode; (4)
 * the maximum flow from prefill to decode groups with replica rates as capacities of nodes and KV bandwidth
 * as capacities of edges; (5) iterative refinement guided by the flow: devices are exchanged between
 * saturated and idle groups while the flow grows. Requests are routed in proportion to the flow.
 *
 * The number of groups, which the paper derives from memory, is tried from 2 to what memory allows (GRID
 * values). KV is sent as it is. Left out: preflow-push as the method, since all find the same value.
 */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_cluster.h"
#include "services/planner/baseline/baseline_moves.h"

#define GRID      12
#define EXCHANGES 64 /* groups; with more, exchanges of phases would take too long */
#define STALE     60 /* refinements without gain that end a partition */

enum step { STEP_PARTITION, STEP_TURN, STEP_EXCHANGE, STEP_REFINE };

struct plan_search {
    struct baseline base;
    struct ts_rng rng;
    uint32_t most; /* groups that memory allows */
    uint32_t grid, stale;
    enum step step;
    uint32_t at; /* group that the step has come to */
    bool started, grew;
    double now, best; /* flow of the draft, of the answer: requests/s */
};

static double pair_bandwidth(const struct ts_cluster *cluster, const struct plan_group *a,
                             const struct plan_group *b)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < a->part_count; i++) {
        for (uint32_t j = 0; j < b->part_count; j++)
            least = fmin(least, baseline_bandwidth(cluster, a->parts[i].cell, b->parts[j].cell));
    }
    return least;
}

static double mean_kv_bytes(const struct plan_problem *problem)
{
    double tokens = 0;
    for (uint32_t k = 0; k < problem->demand->class_count; k++)
        tokens += problem->demand->classes[k].rate * problem->demand->classes[k].prompt_tokens;
    return fmax(1,
                (double)ts_model_kv_token_bytes(problem->model) * tokens / ts_demand_rate(problem->demand));
}

/* Nodes: groups, then source, then sink. The first state->count edges are those of the groups; a colocated
 * one of a plan in force has two, the second a pair with itself. */
static struct baseline_edge *flow_graph(const struct baseline *base, const struct plan_state *state,
                                        uint32_t *count)
{
    const uint32_t n = state->count;
    const double bytes = mean_kv_bytes(base->problem);
    struct baseline_edge *edges = ts_xcalloc(2 * n + (size_t)n * n + 1, sizeof *edges);
    *count = n;
    for (uint32_t i = 0; i < n; i++) {
        double rate = baseline_score(base, &state->groups[i]);
        edges[i] = state->groups[i].phase == TS_PHASE_PREFILL ? (struct baseline_edge){n, i, rate, 0}
                                                              : (struct baseline_edge){i, n + 1, rate, 0};
        if (state->groups[i].phase == TS_PHASE_BOTH)
            edges[(*count)++] = (struct baseline_edge){n, i, rate, 0};
        for (uint32_t j = 0; j < n && state->groups[i].phase == TS_PHASE_PREFILL; j++) {
            if (state->groups[j].phase == TS_PHASE_DECODE)
                edges[(*count)++] = (struct baseline_edge){
                    i, j,
                    pair_bandwidth(base->problem->cluster, &state->groups[i], &state->groups[j]) / bytes, 0};
        }
    }
    return edges;
}

static double flow_value(struct baseline *base, const struct plan_state *state)
{
    uint32_t count;
    struct baseline_edge *edges = flow_graph(base, state, &count);
    double value = baseline_max_flow(edges, count, state->count + 2, state->count, state->count + 1);
    ts_free(edges);
    base->ticks++;
    return value;
}

/* Requests follow the maximum flow. */
static struct plan_share *hexgen2_route(struct baseline *base, const struct plan_state *state, uint32_t *kept)
{
    uint32_t count;
    struct baseline_edge *edges = flow_graph(base, state, &count);
    double value = baseline_max_flow(edges, count, state->count + 2, state->count, state->count + 1);
    struct plan_share *shares = value > 0 ? ts_xcalloc(count + 1, sizeof *shares) : NULL;
    *kept = 0;
    for (uint32_t i = state->count; i < count && shares; i++) {
        uint32_t from = edges[i].from == state->count ? edges[i].to : edges[i].from;
        if (edges[i].flow > 0)
            shares[(*kept)++] =
                (struct plan_share){from, edges[i].to, TS_COST_CODEC_NONE, edges[i].flow / value, 0};
    }
    ts_free(edges);
    return shares;
}

static void adopt_if_best(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t count;
    if (search->now <= search->best * (1 + 1e-9))
        return;
    struct plan_share *shares = hexgen2_route(base, &base->draft, &count);
    search->best = search->now;
    if (shares)
        baseline_answer(base, &base->draft, shares, count);
}

/* Step 1, by halves: `groups` groups out of `counts`. What does not hold the model stays idle. */
static void partition(struct plan_search *search, const uint32_t *counts, uint32_t groups)
{
    struct baseline *base = &search->base;
    const uint32_t cells = base->problem->cluster->cell_count;
    struct plan_group group;
    if (groups == 1) {
        if (baseline_group(base, counts, TS_PHASE_PREFILL, &group))
            (void)plan_state_add(&base->draft, &group);
        return;
    }
    uint32_t *side = ts_xcalloc((size_t)cells * 2 + 1, sizeof *side), *other = side + cells;
    const uint32_t half = groups / 2;
    baseline_bisect(base->problem, counts, (double)half / groups, side);
    for (uint32_t i = 0; i < cells; i++)
        other[i] = counts[i] - side[i];
    partition(search, side, half);
    partition(search, other, groups - half);
    ts_free(side);
}

static enum ts_phase other_phase(const struct plan_group *group)
{
    return group->phase == TS_PHASE_PREFILL ? TS_PHASE_DECODE : TS_PHASE_PREFILL;
}

/* Turns the phase of group i, and of j too when they differ. Kept when the flow grows. */
static bool try_turn(struct plan_search *search, uint32_t i, uint32_t j)
{
    struct baseline *base = &search->base;
    struct plan_group *groups = base->draft.groups, old_i = groups[i], old_j = groups[j];
    if (baseline_turn(base, &groups[i], other_phase(&groups[i])) &&
        (i == j || baseline_turn(base, &groups[j], other_phase(&groups[j])))) {
        double value = flow_value(base, &base->draft);
        if (value > search->now * (1 + 1e-9)) {
            search->now = value;
            return true;
        }
    }
    groups[i] = old_i;
    groups[j] = old_j;
    return false;
}

/* Step 2: each group takes the phase that puts more bandwidth across the cut. */
static void cut_phases(struct plan_search *search)
{
    struct baseline *base = &search->base;
    struct plan_state *state = &base->draft;
    for (uint32_t i = 0; i < state->count; i++) {
        double to[2] = {0};
        for (uint32_t j = 0; j < i; j++)
            to[state->groups[j].phase == TS_PHASE_DECODE] +=
                pair_bandwidth(base->problem->cluster, &state->groups[i], &state->groups[j]);
        (void)baseline_turn(base, &state->groups[i], to[0] > to[1] ? TS_PHASE_DECODE : TS_PHASE_PREFILL);
    }
    search->now = flow_value(base, state);
}

/* Step 5: one exchange between a group whose rate is used up and one that has some left. */
static void refine(struct plan_search *search)
{
    struct baseline *base = &search->base;
    struct plan_state *state = &base->draft;
    uint32_t count, *full = ts_xcalloc((size_t)state->count * 2 + 1, sizeof *full), fulls = 0, slacks = 0;
    uint32_t *slack = full + state->count;
    struct baseline_edge *edges = flow_graph(base, state, &count);
    (void)baseline_max_flow(edges, count, state->count + 2, state->count, state->count + 1);
    for (uint32_t i = 0; i < state->count; i++) {
        if (edges[i].flow >= edges[i].capacity * (1 - 1e-6))
            full[fulls++] = i;
        else
            slack[slacks++] = i;
    }
    ts_free(edges);
    search->stale++;
    if (fulls > 0 && slacks > 0) {
        struct plan_group *a = &state->groups[full[ts_rng_below(&search->rng, fulls)]];
        struct plan_group *b = &state->groups[slack[ts_rng_below(&search->rng, slacks)]];
        struct plan_group old_a = *a, old_b = *b, new_a, new_b;
        bool holds = ts_rng_below(&search->rng, 2) ? baseline_swap(base, &search->rng, a, b, &new_a, &new_b)
                                                   : baseline_move(base, &search->rng, b, a, &new_b, &new_a);
        if (holds) {
            *a = new_a;
            *b = new_b;
            double value = flow_value(base, state);
            if (value > search->now * (1 + 1e-9)) {
                search->now = value;
                search->stale = 0;
            } else {
                *a = old_a;
                *b = old_b;
            }
        }
    }
    ts_free(full);
}

static void begin(struct plan_search *search)
{
    const struct plan_problem *problem = search->base.problem;
    double have = 0, need = problem->model->layers * ts_cost_layer_weight_bytes(problem->model) +
                            ts_cost_head_weight_bytes(problem->model);
    for (uint32_t i = 0; i < problem->cluster->cell_count; i++)
        have += problem->cluster->cells[i].count *
                ts_cost_usable_bytes(&problem->cluster->types[problem->cluster->cells[i].type]);
    ts_rng_init(&search->rng, problem->seed);
    search->most = (uint32_t)fmin(have / need, TS_CLUSTER_GPUS_MAX);
    search->started = true;
}

/* 2 to `most` groups, evenly and without repeats. False after the last. */
static bool next_partition(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t values = search->most < 2 ? 0 : search->most - 1 < GRID ? search->most - 1 : GRID;
    if (search->grid == values)
        return false;
    uint32_t groups = 2 + (values > 1 ? search->grid * (search->most - 2) / (values - 1) : 0);
    search->grid++;
    base->draft.count = 0;
    partition(search, base->idle, groups);
    cut_phases(search);
    return true;
}

static void go_to(struct plan_search *search, enum step step)
{
    search->step = step;
    search->at = 0;
    search->grew = false;
    search->stale = 0;
}

/* Single turns until a pass changes nothing, then exchanges with any group before; after one that gains,
 * turns again. */
static void turn_phases(struct plan_search *search)
{
    const uint32_t count = search->base.draft.count;
    const bool exchange = search->step == STEP_EXCHANGE;
    if (search->at < count) {
        uint32_t i = search->at++;
        if (!exchange)
            search->grew = try_turn(search, i, i) || search->grew;
        for (uint32_t j = 0; exchange && j < i; j++) {
            const struct plan_group *groups = search->base.draft.groups;
            if (groups[i].phase != groups[j].phase)
                search->grew = try_turn(search, i, j) || search->grew;
        }
    } else if (search->grew) {
        go_to(search, STEP_TURN);
    } else {
        go_to(search, exchange || count > EXCHANGES ? STEP_REFINE : STEP_EXCHANGE);
    }
}

/* A partition into another number of groups, the phase of one group, or one refinement in each call. */
static bool hexgen2_advance(struct plan_search *search)
{
    if (!search->started)
        begin(search);
    switch (search->step) {
    case STEP_PARTITION:
        if (!next_partition(search))
            return true;
        go_to(search, STEP_TURN);
        break;
    case STEP_TURN:
    case STEP_EXCHANGE:
        turn_phases(search);
        break;
    case STEP_REFINE:
        refine(search);
        if (search->stale >= STALE)
            go_to(search, STEP_PARTITION);
        break;
    }
    adopt_if_best(search);
    return false;
}

static const struct baseline_kind kind = {
    .name = "hexgen2",
    .size = sizeof(struct plan_search),
    .advance = hexgen2_advance,
    .route = hexgen2_route,
};

static struct plan_search *hexgen2_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_hexgen2 = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "hexgen2",
    .summary = "graph partition, then maximum flow from prefill to decode groups (ICLR 2025)",
    .open = hexgen2_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
