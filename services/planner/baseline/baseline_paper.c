/*
 * `paper`: ThunderServe as published (Jiang et al., MLSys 2025, arXiv 2502.09334, section 3). Modelled: the
 * start by hierarchical clustering on the bandwidth matrix, slow links cut first, with random phases; tabu
 * search over the four neighbours (flip a phase, split a group, merge two, move devices), about 100 steps of
 * 10 neighbours with a list of 5, always to the best neighbour that is not tabu; the lower level
 * (plan_shape.h does what the paper's does); orchestration by the linear program  max sum Z_ij D_ij, sum Z_ij
 * = 1; KV at 4 bits on every transfer.
 *
 * D_ij is the attainment of the pair when requests are spread evenly over all replicas. That program has one
 * row, so its optimum is the best pair and all requests go there; pairs that tie share evenly, which is an
 * optimum too and the kindest one. The search prefers, of states with equal optima, the one with the better
 * mean D. PLAN_FLIP is its lightweight rescheduling: the same search, flips only. What the same groups would
 * reach under our program with capacities is in the last line of describe, so that what the grouping loses
 * and what the routing loses can be told apart.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_cluster.h"
#include "services/planner/baseline/baseline_moves.h"

#define STEPS      100
#define NEIGHBOURS 10
#define TABU       5

struct value {
    double best, mean; /* of D_ij */
};

struct plan_search {
    struct baseline base;
    struct ts_rng rng;
    struct value now, top;       /* of the draft; of the answer */
    struct plan_state candidate; /* the best neighbour of this step, its value and its routes */
    struct value candidate_value;
    struct plan_share *candidate_shares;
    uint32_t candidate_count;
    bool has_candidate;
    uint64_t tabu[TABU];
    uint32_t tabu_count, step, neighbour;
    bool started;
    double with_capacities; /* after the last step: the answer's groups under plan_eval_run */
};

static bool better(struct value a, struct value b)
{
    if (a.best > b.best + 1e-9)
        return true;
    return a.best > b.best - 1e-9 && a.mean > b.mean + 1e-9;
}

static enum ts_cost_codec codec_of(const struct plan_problem *problem)
{
    return problem->codec_allowed[TS_COST_CODEC_I4] ? TS_COST_CODEC_I4 : TS_COST_CODEC_NONE;
}

/* Every pair the same: the load at which each D_ij is taken. NULL when a phase is missing. */
static struct plan_share *even_shares(const struct plan_problem *problem, const struct plan_state *state,
                                      uint32_t *count)
{
    struct plan_share *shares = baseline_shares(state, NULL, NULL, codec_of(problem), count);
    for (uint32_t i = 0; i < *count; i++)
        shares[i].share = 1.0 / *count;
    return shares;
}

/* The one-row program. `attained` receives D of each share. */
static struct value one_row(struct baseline *base, const struct plan_state *state,
                            const struct plan_share *shares, uint32_t count, double *attained)
{
    const double offered = ts_demand_rate(base->problem->demand) / count;
    uint32_t *pair = ts_xcalloc((size_t)state->count * state->count + 1, sizeof *pair);
    struct plan_result result;
    struct value value = {0};
    base->ticks++;
    (void)plan_eval_fixed(base->eval, state, shares, count, &result);
    double scale = base->problem->objective == PLAN_GOODPUT && result.rate > 0
                       ? ts_demand_rate(base->problem->demand) / result.rate
                       : 1;
    for (uint32_t i = 0; i < count; i++) {
        attained[i] = 0;
        pair[shares[i].prefill * state->count + shares[i].decode] = i;
    }
    for (uint32_t i = 0; i < result.flow_count; i++) {
        const struct ts_flow *flow = &result.flows[i];
        attained[pair[flow->prefill * state->count + flow->decode]] += flow->attained * scale / offered;
    }
    for (uint32_t i = 0; i < count; i++) {
        value.best = attained[i] > value.best ? attained[i] : value.best;
        value.mean += attained[i] / count;
    }
    ts_free(pair);
    return value;
}

/* The optimum of the one-row program: the best pairs, evenly. Below 0 and NULL when a phase is missing. */
static struct plan_share *solve(struct baseline *base, const struct plan_state *state, uint32_t *kept,
                                struct value *value)
{
    uint32_t count = 0;
    struct plan_share *shares = even_shares(base->problem, state, &count);
    *kept = 0;
    *value = (struct value){-1, -1};
    if (!shares)
        return NULL;
    double *attained = ts_xcalloc(count + 1, sizeof *attained);
    *value = one_row(base, state, shares, count, attained);
    for (uint32_t i = 0; i < count; i++) {
        if (attained[i] >= value->best - 1e-9)
            shares[(*kept)++] = shares[i];
    }
    for (uint32_t i = 0; i < *kept; i++)
        shares[i].share = 1.0 / *kept;
    ts_free(attained);
    return shares;
}

static struct plan_share *paper_route(struct baseline *base, const struct plan_state *state, uint32_t *kept)
{
    struct value value;
    return solve(base, state, kept, &value);
}

/* The draft becomes the answer, with its routes as they were found. */
static void answer(struct plan_search *search, struct plan_share *shares, uint32_t count)
{
    baseline_answer(&search->base, &search->base.draft, shares, count);
    search->top = search->now;
}

struct tree {
    uint32_t *a, *b, cells;
};

static void leaves(const struct tree *tree, const struct ts_cluster *cluster, uint32_t node, uint32_t *counts)
{
    if (node < tree->cells) {
        counts[node] = cluster->cells[node].count;
        return;
    }
    leaves(tree, cluster, tree->a[node - tree->cells], counts);
    leaves(tree, cluster, tree->b[node - tree->cells], counts);
}

static enum ts_phase random_phase(struct plan_search *search)
{
    return ts_rng_below(&search->rng, 2) ? TS_PHASE_PREFILL : TS_PHASE_DECODE;
}

/* What is no group as a whole (too many cells or stages) becomes small ones, device by device. */
static void add_group(struct plan_search *search, const uint32_t *counts)
{
    struct baseline *base = &search->base;
    const uint32_t cells = base->problem->cluster->cell_count;
    struct plan_group group;
    if (baseline_group(base, counts, random_phase(search), &group)) {
        (void)plan_state_add(&base->draft, &group);
        return;
    }
    uint32_t *part = ts_xcalloc(cells + 1, sizeof *part);
    for (uint32_t cell = 0; cell < cells; cell++) {
        for (uint32_t i = 0; i < counts[cell]; i++) {
            part[cell]++;
            if (!baseline_holds(base->problem, part) ||
                !baseline_group(base, part, random_phase(search), &group))
                continue;
            (void)plan_state_add(&base->draft, &group);
            memset(part, 0, cells * sizeof *part);
        }
    }
    ts_free(part);
}

/* A cell is halved as long as both halves hold the model. */
static void cut_cell(struct plan_search *search, uint32_t cell, uint32_t count, uint32_t *counts)
{
    counts[cell] = count / 2;
    if (count > 1 && baseline_holds(search->base.problem, counts)) {
        cut_cell(search, cell, count / 2, counts);
        cut_cell(search, cell, count - count / 2, counts);
        return;
    }
    counts[cell] = count;
    add_group(search, counts);
    counts[cell] = 0;
}

/* A cluster is cut at its slowest joint as long as both sides hold the model. */
static void cut_tree(struct plan_search *search, const struct tree *tree, uint32_t node)
{
    const struct plan_problem *problem = search->base.problem;
    uint32_t *counts = ts_xcalloc((size_t)tree->cells * 2 + 1, sizeof *counts);
    uint32_t *other = counts + tree->cells;
    if (node < tree->cells) {
        cut_cell(search, node, problem->cluster->cells[node].count, counts);
    } else {
        uint32_t a = tree->a[node - tree->cells], b = tree->b[node - tree->cells];
        leaves(tree, problem->cluster, a, counts);
        leaves(tree, problem->cluster, b, other);
        if (baseline_holds(problem, counts) && baseline_holds(problem, other)) {
            cut_tree(search, tree, a);
            cut_tree(search, tree, b);
        } else {
            for (uint32_t i = 0; i < tree->cells; i++)
                counts[i] += other[i];
            add_group(search, counts);
        }
    }
    ts_free(counts);
}

static void cluster_devices(struct plan_search *search)
{
    struct baseline *base = &search->base;
    const struct ts_cluster *cluster = base->problem->cluster;
    const uint32_t n = cluster->cell_count;
    struct tree tree = {.a = ts_xcalloc((size_t)n * 2 + 1, sizeof(uint32_t)), .cells = n};
    tree.b = tree.a + n;
    baseline_dendrogram(cluster, tree.a, tree.b);
    cut_tree(search, &tree, n > 1 ? 2 * n - 2 : 0);
    ts_free(tree.a);
    uint32_t prefill = 0;
    for (uint32_t i = 0; i < base->draft.count; i++)
        prefill += base->draft.groups[i].phase == TS_PHASE_PREFILL;
    if (base->draft.count > 1 && (prefill == 0 || prefill == base->draft.count))
        (void)baseline_turn(base, &base->draft.groups[0], prefill ? TS_PHASE_DECODE : TS_PHASE_PREFILL);
}

/* To flip only, the search starts from the plan in force. */
static bool start(struct plan_search *search)
{
    struct baseline *base = &search->base;
    ts_rng_init(&search->rng, base->problem->seed);
    if (base->problem->depth == PLAN_REGROUP)
        cluster_devices(search);
    uint32_t count = 0;
    struct plan_share *shares = solve(base, &base->draft, &count, &search->now);
    search->started = true;
    if (shares)
        answer(search, shares, count);
    return base->draft.count > 0;
}

/* One random neighbour of `state`, in place; false when the move makes no sense or a group does not hold. */
static bool neighbour(struct plan_search *search, struct plan_state *state)
{
    struct baseline *base = &search->base;
    struct ts_rng *rng = &search->rng;
    struct plan_group a, b;
    const bool flip = base->problem->depth == PLAN_FLIP;
    uint32_t move = flip ? 0 : (uint32_t)ts_rng_below(rng, 4), i = (uint32_t)ts_rng_below(rng, state->count);
    uint32_t j =
        state->count > 1 ? (i + 1 + (uint32_t)ts_rng_below(rng, state->count - 1)) % state->count : i;
    struct plan_group *x = &state->groups[i], *y = &state->groups[j];
    enum ts_phase other = x->phase == TS_PHASE_PREFILL ? TS_PHASE_DECODE : TS_PHASE_PREFILL;
    if (flip) /* weights stay where they are */
        return baseline_rephase(base, x, other);
    if (move == 0)
        return baseline_turn(base, x, other);
    if (move == 1) {
        if (!baseline_split(base, rng, x, &a, &b))
            return false;
        *x = a;
        (void)baseline_turn(base, &b, random_phase(search));
        (void)plan_state_add(state, &b);
        return true;
    }
    if (i == j)
        return false;
    if (move == 2) {
        if (!baseline_merge(base, x, y, &a))
            return false;
        *x = a;
        plan_state_remove(state, j);
        return true;
    }
    if (!baseline_move(base, rng, x, y, &a, &b))
        return false;
    *x = a;
    *y = b;
    return true;
}

static bool is_tabu(const struct plan_search *search, uint64_t hash)
{
    for (uint32_t i = 0; i < search->tabu_count && i < TABU; i++) {
        if (search->tabu[i] == hash)
            return true;
    }
    return false;
}

/* To the best neighbour, even a worse one, or one that lacks a phase. */
static void move_on(struct plan_search *search)
{
    struct baseline *base = &search->base;
    search->step++;
    search->neighbour = 0;
    if (!search->has_candidate)
        return;
    search->tabu[search->tabu_count++ % TABU] = plan_state_hash(&base->draft);
    plan_state_copy(&base->draft, &search->candidate);
    search->now = search->candidate_value;
    search->has_candidate = false;
    if (search->candidate_shares && (!base->found || better(search->now, search->top))) {
        answer(search, search->candidate_shares, search->candidate_count);
        search->candidate_shares = NULL;
    }
}

/* A neighbour of the draft, if it is the best of this step so far. */
static void consider(struct plan_search *search, const struct plan_state *state)
{
    uint32_t count = 0;
    struct value value;
    struct plan_share *shares = solve(&search->base, state, &count, &value);
    if (search->has_candidate && !better(value, search->candidate_value)) {
        ts_free(shares);
        return;
    }
    plan_state_copy(&search->candidate, state);
    search->candidate_value = value;
    ts_free(search->candidate_shares);
    search->candidate_shares = shares;
    search->candidate_count = count;
    search->has_candidate = true;
}

/* One neighbour in each call. */
static bool paper_advance(struct plan_search *search)
{
    struct baseline *base = &search->base;
    struct plan_state state;
    if (!search->started)
        return !start(search);
    plan_state_init(&state);
    plan_state_copy(&state, &base->draft);
    if (neighbour(search, &state) && !is_tabu(search, plan_state_hash(&state)))
        consider(search, &state);
    plan_state_fini(&state);
    if (++search->neighbour == NEIGHBOURS)
        move_on(search);
    if (search->step < STEPS)
        return false;
    if (base->found)
        search->with_capacities = plan_eval_run(base->eval, &base->state, NULL);
    return true;
}

static void paper_describe(const struct plan_search *search, char *out, size_t size)
{
    const struct baseline *base = &search->base;
    unsigned long long runs = plan_eval_runs(base->eval);
    int used = 0;
    if (base->found)
        used = snprintf(out, size, "step %u of %d, evaluations %llu, one-row program %.4g, judged %.4g",
                        search->step, STEPS, runs, search->top.best, base->objective);
    if (base->found && search->step == STEPS && used > 0 && (size_t)used < size)
        (void)snprintf(out + used, size - (size_t)used, "; routed with capacities %.4g",
                       search->with_capacities);
    if (!base->found)
        (void)snprintf(out, size, "step %u of %d, evaluations %llu, no plan yet", search->step, STEPS, runs);
}

static void paper_fini(struct plan_search *search)
{
    ts_free(search->candidate_shares);
    plan_state_fini(&search->candidate);
}

static const struct baseline_kind kind = {
    .name = "paper",
    .size = sizeof(struct plan_search),
    .flips = true,
    .advance = paper_advance,
    .route = paper_route,
    .fini = paper_fini,
};

static struct plan_search *paper_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_paper = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "paper",
    .summary = "ThunderServe as published: tabu search over groups, one-row program (MLSys 2025)",
    .open = paper_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = paper_describe,
    .close = baseline_close,
};
