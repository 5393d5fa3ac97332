/*
 * The last stage of a search, where the problem asks for it: plans that stand for the ways a cluster can be
 * laid out are tried (plan_trial.h), and the best is the answer. The program ranks well among plans of one
 * kind and less well across kinds (all split, all colocated, some of both), and near saturation it is too
 * hopeful of some and too shy of others. So the ends of the best runs of each kind come in, each with the
 * program's flows and with shares by score, and what the planners of others find for little work.
 *
 *   a short trial of each -> long ones of the best six, then again of the best three, twice, and two
 *
 * The search ends with the first plan that has nothing late in these.
 *
 * What counts is the share in time at the demand's rates, and to a fifth that at rates a tenth higher: of two
 * plans that serve all, the one further from its limit is chosen.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"
#include "services/planner/thunder/plan_thunder.h"
#include "services/planner/trial/plan_trial.h"

#define KEPT_PER_KIND 4
#define KINDS         3
#define KEPT          (KEPT_PER_KIND * KINDS)
#define PLANS_MAX     (2 * KEPT + 8)
#define ABOVE         1.1 /* of the demand's rates */
#define ABOVE_WEIGHT  0.2
#define SHORT         4 /* a short trial has a fourth of the requests */
#define LARGE_GPUS    256
#define LARGE_STATES  3 /* of a large cluster that are tried */
#define SEED          1000
#define ALL_IN_TIME   1e-3

struct tried {
    struct ts_plan *plan;
    double value, now, above; /* what counts; in time by long trials at the demand's rates, and above */
};

struct plan_trials {
    struct plan_state kept[KEPT]; /* by kind */
    uint64_t hash[KEPT];
    double objective[KEPT]; /* below 0 = free */
    struct tried plans[PLANS_MAX];
    uint32_t plan_count, next_source;
    uint32_t round, next; /* short trials, then rounds of long ones; the next plan of the round */
};

/* Planners of others, for clusters of so many devices: above, they take too long. */
static const struct {
    const struct plan_algorithm *algorithm;
    uint32_t gpus_max;
} others[] = {{&plan_algorithm_colocated, UINT32_MAX},
              {&plan_algorithm_splitwise, UINT32_MAX},
              {&plan_algorithm_helix, UINT32_MAX},
              {&plan_algorithm_distserve, 256},
              {&plan_algorithm_hexgen2, 256}};

#define OTHERS (sizeof others / sizeof others[0])

void plan_thunder_trial_open(struct plan_search *search)
{
    const struct plan_problem *problem = search->problem;
    if (problem->trial_requests == 0 || problem->depth != PLAN_REGROUP ||
        problem->objective != PLAN_ATTAINMENT)
        return;
    search->trials = ts_xcalloc(1, sizeof *search->trials);
    for (uint32_t i = 0; i < KEPT; i++) {
        plan_state_init(&search->trials->kept[i]);
        search->trials->objective[i] = -1;
    }
}

void plan_thunder_trial_close(struct plan_search *search)
{
    struct plan_trials *trials = search->trials;
    if (!trials)
        return;
    for (uint32_t i = 0; i < KEPT; i++)
        plan_state_fini(&trials->kept[i]);
    for (uint32_t i = 0; i < trials->plan_count; i++)
        ts_plan_destroy(&trials->plans[i].plan);
    ts_free(trials);
    search->trials = NULL;
}

/* All split, some of both, all colocated. */
static uint32_t kind_of(const struct plan_state *state)
{
    uint32_t both = 0;
    for (uint32_t i = 0; i < state->count; i++)
        both += state->groups[i].phase == TS_PHASE_BOTH;
    return both == 0 ? 0 : both < state->count ? 1 : 2;
}

void plan_thunder_trial_offer(struct plan_search *search, const struct plan_state *state, double objective)
{
    struct plan_trials *trials = search->trials;
    if (!trials || state->count == 0 || objective <= 0)
        return;
    uint64_t hash = plan_state_hash(state);
    uint32_t first = kind_of(state) * KEPT_PER_KIND, worst = first;
    for (uint32_t i = first; i < first + KEPT_PER_KIND; i++) {
        if (trials->objective[i] >= 0 && trials->hash[i] == hash)
            return;
        if (trials->objective[i] < trials->objective[worst])
            worst = i;
    }
    if (objective <= trials->objective[worst])
        return;
    plan_state_copy(&trials->kept[worst], state);
    trials->hash[worst] = hash;
    trials->objective[worst] = objective;
}

/* --- Plans to try --- */

static void add_plan(struct plan_trials *trials, struct ts_plan *plan)
{
    if (plan && plan->flow_count > 0 && trials->plan_count < PLANS_MAX)
        trials->plans[trials->plan_count++] = (struct tried){.plan = plan};
    else
        ts_plan_destroy(&plan);
}

static void add_state(struct plan_search *search, const struct plan_state *state)
{
    uint32_t count;
    struct plan_share *shares = baseline_shares_scored(search->shapes, state, NULL, &count);
    add_plan(search->trials, plan_eval_plan(search->eval, state, plan_algorithm_thunder.name));
    if (shares)
        add_plan(search->trials,
                 plan_eval_fixed_plan(search->eval, state, shares, count, plan_algorithm_thunder.name));
    ts_free(shares);
}

static void add_other(struct plan_search *search, uint32_t index)
{
    const struct plan_algorithm *other = others[index].algorithm;
    struct plan_problem problem = *search->problem;
    problem.trial_requests = 0;
    if (problem.cluster->gpu_count > others[index].gpus_max ||
        (!problem.colocate && other == &plan_algorithm_colocated))
        return;
    struct plan_search *run = other->open(&problem, NULL);
    if (!run)
        return;
    while (!other->step(run, UINT64_MAX))
        ;
    struct ts_plan *plan = other->best(run);
    other->close(&run);
    if (plan)
        memcpy(plan->algorithm, plan_algorithm_thunder.name, strlen(plan_algorithm_thunder.name) + 1);
    add_plan(search->trials, plan);
}

/* --- Trials --- */

static double value_of(const struct plan_search *search, const struct ts_plan *plan, double scale,
                       uint32_t part, uint64_t seed)
{
    uint32_t requests = plan_trial_requests(plan, search->problem->trial_requests) / part;
    return plan_trial_run(search->problem, plan, scale, requests, search->problem->seed + SEED + seed).all;
}

/* The best first; ties by order. */
static void sort_plans(struct tried *plans, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct tried one = plans[i];
        uint32_t at = i;
        for (; at > 0 && plans[at - 1].value < one.value; at--)
            plans[at] = plans[at - 1];
        plans[at] = one;
    }
}

/* The mean of the first `times` long trials is known; adds one. */
static void try_long(struct plan_search *search, struct tried *tried, uint32_t times)
{
    if (times == 0)
        tried->above = value_of(search, tried->plan, ABOVE, 1, 0);
    double one = value_of(search, tried->plan, 1, 1, times);
    tried->now = (tried->now * times + one) / (times + 1);
    tried->value = (1 - ABOVE_WEIGHT) * tried->now + ABOVE_WEIGHT * tried->above;
}

/* Of the plans left, `count` are tried once more; then they are in order. */
static void round_step(struct plan_search *search, uint32_t count, uint32_t times)
{
    struct plan_trials *trials = search->trials;
    count = count < trials->plan_count ? count : trials->plan_count;
    if (trials->next < count) {
        try_long(search, &trials->plans[trials->next++], times);
        return;
    }
    sort_plans(trials->plans, count);
    trials->next = 0;
    trials->round++;
}

/* On a large cluster each trial has many requests: fewer will do. */
static bool is_large(const struct plan_search *search)
{
    return search->problem->cluster->gpu_count > LARGE_GPUS;
}

/* The best by the program first. */
static uint32_t next_kept(const struct plan_trials *trials)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < KEPT; i++)
        best = trials->objective[i] > trials->objective[best] ? i : best;
    return best;
}

static void next_source(struct plan_search *search)
{
    struct plan_trials *trials = search->trials;
    uint32_t i = trials->next_source++, kept = next_kept(trials);
    if (i >= KEPT) {
        add_other(search, i - KEPT);
    } else if (trials->objective[kept] >= 0 && (!is_large(search) || i < LARGE_STATES)) {
        trials->objective[kept] = -1;
        add_state(search, &trials->kept[kept]);
    }
}

/* True when all are in time, above the rates and at length too: there is nothing to gain then. */
static bool try_short(const struct plan_search *search, struct tried *tried)
{
    uint32_t part = is_large(search) ? 2 * SHORT : SHORT;
    tried->value = value_of(search, tried->plan, 1, part, 0) + value_of(search, tried->plan, ABOVE, part, 0);
    if (tried->value < 2 - ALL_IN_TIME || value_of(search, tried->plan, ABOVE, 1, 0) < 1 - ALL_IN_TIME)
        return false;
    tried->value = 3; /* before those that looked as good */
    return true;
}

static void short_over(struct plan_trials *trials, uint32_t round)
{
    sort_plans(trials->plans, trials->plan_count);
    trials->next = 0;
    trials->round = round;
}

bool plan_thunder_trial_step(struct plan_search *search)
{
    static const uint32_t finalists[] = {6, 3, 3, 2}, of_large[] = {3, 2};
    struct plan_trials *trials = search->trials;
    bool large = is_large(search);
    const uint32_t over = 1 + (large ? TS_ARRAY_SIZE(of_large) : TS_ARRAY_SIZE(finalists));
    search->spent++;
    if (trials->round > 0) {
        round_step(search, (large ? of_large : finalists)[trials->round - 1], trials->round - 1);
    } else if (trials->next < trials->plan_count) {
        if (try_short(search, &trials->plans[trials->next++]))
            short_over(trials, over);
    } else if (trials->next_source < KEPT + OTHERS) {
        next_source(search);
    } else {
        short_over(trials, 1);
    }
    return trials->round == over;
}

struct ts_plan *plan_thunder_trial_best(const struct plan_search *search)
{
    const struct plan_trials *trials = search->trials;
    return trials && trials->round > 1 && trials->plan_count > 0 ? ts_plan_copy(trials->plans[0].plan) : NULL;
}
