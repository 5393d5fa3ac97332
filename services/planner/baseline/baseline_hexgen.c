/*
 * `hexgen`: Jiang et al., "HexGen: Generative Inference of Large Language Model over Heterogeneous
 * Environment", ICML 2024 (arXiv 2311.11514). Modelled: replicas without phases over any mix of devices, each
 * with asymmetric TP and PP (own TP degree and layers for each stage, by the lower level of plan_shape.h, as
 * the paper finds them by dynamic programming), and the genetic search over the partition of the devices with
 * its mutations merge, split and swap (section 4). Fitness is the evaluator's, as the paper's is a simulated
 * attainment; requests are dispatched by what replicas can serve.
 *
 * The first individual cuts each cell into the smallest groups that hold the model and joins what is too
 * small. Stops after STALE offspring without a better one. Devices that no group
 * has are merged into one as if they were a group.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_moves.h"

#define POPULATION 8
#define STALE      1000
#define ENOUGH     10000

struct individual {
    struct plan_state state;
    double value;
    uint64_t hash;
};

struct plan_search {
    struct baseline base;
    struct ts_rng rng;
    struct individual population[POPULATION];
    uint32_t size, born, stale;
};

static double fitness(struct baseline *base, const struct plan_state *state)
{
    uint32_t count = 0;
    struct plan_share *shares = baseline_shares_by_score(base, state, NULL, &count);
    double value = shares ? plan_eval_fixed(base->eval, state, shares, count, NULL) : 0;
    ts_free(shares);
    return value;
}

static void adopt_if_best(struct plan_search *search, const struct plan_state *state, double value)
{
    struct baseline *base = &search->base;
    if (base->found && value <= base->objective * (1 + 1e-9)) {
        search->stale++;
        return;
    }
    uint32_t count = 0;
    struct plan_share *shares = baseline_shares_by_score(base, state, NULL, &count);
    search->stale = 0;
    baseline_answer(base, state, shares, count);
}

/* Takes the place of the worst of a full population if it is better. Twins are not let in. */
static void let_in(struct plan_search *search, const struct plan_state *state)
{
    uint64_t hash = plan_state_hash(state);
    uint32_t worst = 0;
    for (uint32_t i = 0; i < search->size; i++) {
        if (search->population[i].hash == hash) {
            search->stale++;
            return;
        }
        worst = search->population[i].value < search->population[worst].value ? i : worst;
    }
    double value = fitness(&search->base, state);
    adopt_if_best(search, state, value);
    if (search->size < POPULATION)
        worst = search->size++;
    else if (value <= search->population[worst].value)
        return;
    plan_state_copy(&search->population[worst].state, state);
    search->population[worst].value = value;
    search->population[worst].hash = hash;
}

/* The smallest group of one cell, again and again; what is left waits in `counts` until that together holds.
 */
static void first_individual(struct plan_search *search)
{
    struct baseline *base = &search->base;
    const struct ts_cluster *cluster = base->problem->cluster;
    uint32_t *counts = ts_xcalloc(cluster->cell_count + 1, sizeof *counts);
    struct plan_state state;
    struct plan_group group;
    plan_state_init(&state);
    for (uint32_t cell = 0; cell < cluster->cell_count; cell++) {
        for (uint32_t i = 0; i < cluster->cells[cell].count; i++) {
            counts[cell]++;
            if (!baseline_group(base, counts, TS_PHASE_BOTH, &group))
                continue;
            (void)plan_state_add(&state, &group);
            memset(counts, 0, cluster->cell_count * sizeof *counts);
        }
    }
    if (state.count > 0)
        let_in(search, &state);
    plan_state_fini(&state);
    ts_free(counts);
}

/* Devices in no group: they join a random one as a merge would have it. */
static bool join_idle(struct plan_search *search, struct plan_state *state)
{
    struct baseline *base = &search->base;
    const uint32_t cells = base->problem->cluster->cell_count;
    uint32_t *idle = ts_xcalloc(cells + 1, sizeof *idle);
    uint32_t cell = (uint32_t)ts_rng_below(&search->rng, cells);
    uint32_t at = (uint32_t)ts_rng_below(&search->rng, state->count);
    plan_state_idle(base->problem, state, idle);
    for (uint32_t i = 0; i < cells && idle[cell] == 0; i++)
        cell = (cell + 1) % cells;
    struct plan_group loose = {.phase = TS_PHASE_BOTH, .part_count = 1}, joined;
    loose.parts[0] = (struct plan_part){.cell = (uint16_t)cell, .count = (uint8_t)idle[cell]};
    bool done = idle[cell] > 0 && idle[cell] <= UINT8_MAX &&
                baseline_merge(base, &state->groups[at], &loose, &joined);
    if (done)
        state->groups[at] = joined;
    ts_free(idle);
    return done;
}

static bool mutate(struct plan_search *search, struct plan_state *state)
{
    struct baseline *base = &search->base;
    struct ts_rng *rng = &search->rng;
    struct plan_group a, b;
    uint32_t kind_of = (uint32_t)ts_rng_below(rng, 4), i = (uint32_t)ts_rng_below(rng, state->count);
    if (kind_of == 0 && baseline_split(base, rng, &state->groups[i], &a, &b)) {
        state->groups[i] = a;
        (void)plan_state_add(state, &b);
        return true;
    }
    if (kind_of == 1)
        return join_idle(search, state);
    if (kind_of == 0 || state->count < 2)
        return false;
    uint32_t j = (i + 1 + (uint32_t)ts_rng_below(rng, state->count - 1)) % state->count;
    if (kind_of == 2 && baseline_merge(base, &state->groups[i], &state->groups[j], &a)) {
        state->groups[i] = a;
        plan_state_remove(state, j);
        return true;
    }
    if (kind_of == 3 && baseline_swap(base, rng, &state->groups[i], &state->groups[j], &a, &b)) {
        state->groups[i] = a;
        state->groups[j] = b;
        return true;
    }
    return false;
}

/* One offspring in each call: the better of two drawn parents, mutated once to three times. */
static bool hexgen_advance(struct plan_search *search)
{
    struct baseline *base = &search->base;
    if (search->born++ == 0) {
        ts_rng_init(&search->rng, base->problem->seed);
        first_individual(search);
        return search->size == 0;
    }
    uint32_t x = (uint32_t)ts_rng_below(&search->rng, search->size);
    uint32_t y = (uint32_t)ts_rng_below(&search->rng, search->size);
    const struct individual *parent =
        &search->population[search->population[y].value > search->population[x].value ? y : x];
    plan_state_copy(&base->draft, &parent->state);
    uint32_t times = 1 + (uint32_t)ts_rng_below(&search->rng, 3), changed = 0;
    for (uint32_t i = 0; i < times; i++)
        changed += mutate(search, &base->draft);
    if (changed > 0)
        let_in(search, &base->draft);
    else
        search->stale++;
    return search->stale >= STALE || search->born >= ENOUGH;
}

static void hexgen_fini(struct plan_search *search)
{
    for (uint32_t i = 0; i < POPULATION; i++)
        plan_state_fini(&search->population[i].state);
}

static const struct baseline_kind kind = {
    .name = "hexgen",
    .size = sizeof(struct plan_search),
    .only_colocates = true,
    .advance = hexgen_advance,
    .fini = hexgen_fini,
};

static struct plan_search *hexgen_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_hexgen = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "hexgen",
    .summary = "mixed replicas without phases, genetic search by merge, split and swap (ICML 2024)",
    .open = hexgen_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
