#include "services/planner/thunder/plan_thunder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define GAIN_EPS        1e-9
#define ALL_EPS         1e-7 /* attainment that counts as all */
#define TRIES           16   /* candidates of a neighbourhood that the program is run for, by estimate */
#define TRIES_ENOUGH    10   /* so many are enough once one of them is better */
#define PATIENCE        40   /* moves without a gain that end a run, and one for each group */
#define PATIENCE_GROUPS 20
#define KICKS_STALL     24 /* kicks without a gain that end the search */
#define SEEN_FIRST      4096u
#define SEEN_MAX        (1u << 20) /* 24 MB; beyond it, all are forgotten */
#define LIST_LIMIT      12000      /* moves valued per neighbourhood */
#define LIST_FRESH      40         /* new shapes per neighbourhood */
/* A gain that keeps a run going: a part of what is missing to serving all. Smaller ones are taken, too. */
#define GAIN_SHARE 1e-3
/* Effort of the whole search at most, in runs of the program on few groups: it ends earlier as a rule, when
 * kicks no longer gain. A run over n groups counts 1 + n^2 / 64 for its pairs, and (n / 19)^4 for the rows
 * and columns that follow from them (measured at 5, 40 and 300 groups). */
#define EFFORT_REGROUP 2600.0 /* for up to 32 devices; rises with their count */
#define EFFORT_FLIP    240.0

/* --- States seen --- */

static struct plan_seen *seen_slot(struct plan_search *search, uint64_t hash)
{
    hash = hash ? hash : 1;
    uint32_t at = (uint32_t)(hash >> 20) & (search->seen_capacity - 1);
    while (search->seen[at].hash && search->seen[at].hash != hash)
        at = (at + 1) & (search->seen_capacity - 1);
    return &search->seen[at];
}

static struct plan_seen *seen_add(struct plan_search *search, uint64_t hash)
{
    if (search->seen_count * 2 >= search->seen_capacity) {
        struct plan_seen *old = search->seen;
        uint32_t capacity = search->seen_capacity;
        bool full = capacity >= SEEN_MAX;
        search->seen_capacity = full ? SEEN_FIRST : capacity * 2;
        search->seen = ts_xcalloc(search->seen_capacity, sizeof *old);
        for (uint32_t i = 0; i < capacity && !full; i++) {
            if (old[i].hash)
                *seen_slot(search, old[i].hash) = old[i];
        }
        search->seen_count = full ? 0 : search->seen_count;
        ts_free(old);
    }
    struct plan_seen *seen = seen_slot(search, hash);
    search->seen_count += seen->hash == 0;
    seen->hash = hash ? hash : 1;
    return seen;
}

/* --- Evaluation --- */

static double evaluate(struct plan_search *search, const struct plan_state *state, struct plan_result *result)
{
    uint64_t before = plan_eval_work(search->eval);
    double objective = plan_eval_run(search->eval, state, result);
    search->spent += plan_eval_work(search->eval) - before;
    search->evaluations++;
    double pairs = (double)state->count * state->count;
    search->effort += 1 + pairs / 64 + pairs * pairs / 130321;
    if (objective > search->best_objective + GAIN_EPS) {
        search->best_objective = objective;
        plan_state_copy(&search->best, state);
    }
    return objective;
}

/* Worth going on for. */
static bool is_gain(const struct plan_search *search, double before, double after)
{
    double missing = search->problem->objective == PLAN_ATTAINMENT ? 1 - before : before;
    return after - before > fmax(GAIN_EPS, GAIN_SHARE * missing);
}

/* --- One run of tabu search --- */

static void begin_run(struct plan_search *search, const struct plan_state *from, double objective)
{
    plan_state_copy(&search->current, from);
    plan_state_copy(&search->run_best, from);
    search->current_objective = search->run_objective = objective;
    search->run++;
    search->iteration = search->stalled = 0;
    search->patience = from->count < PATIENCE_GROUPS ? PATIENCE + from->count : PATIENCE + PATIENCE_GROUPS;
    uint32_t length = 3 + from->count / 2;
    plan_tabu_reset(&search->tabu, length < 16 ? length : 16);
    seen_add(search, plan_state_hash(from))->run = search->run;
    search->stage = PLAN_THUNDER_LIST;
}

static void list(struct plan_search *search)
{
    struct plan_result result;
    search->current_objective = evaluate(search, &search->current, &result);
    plan_worth_set(search->worth, &search->current, &result);
    plan_gauge_set(search->gauge, &search->current);
    struct plan_moves_from from = {
        .picks = search->picks,
        .worth = search->worth,
        .gauge = search->gauge,
        .state = &search->current,
        .result = &result,
        .limit = LIST_LIMIT,
        .fresh = LIST_FRESH,
        .inside = search->inside,
        .rng = &search->rng,
    };
    if (search->problem->depth == PLAN_REGROUP)
        plan_moves_list(&from, &search->moves);
    else
        plan_thunder_flips(&from, search);
    search->spent++;
    search->next_top = search->tried = 0;
    search->next_any = search->moves.top_count;
    search->chosen = -1;
    search->chosen_objective = -1;
    search->stage = PLAN_THUNDER_TRY;
}

/* The next candidate worth a run of the program: of each three, two by estimate and one of those drawn
 * evenly, for where estimates mislead. NULL when it is enough. */
static const struct plan_move *next_candidate(struct plan_search *search)
{
    const struct plan_moves *moves = &search->moves;
    bool better = search->chosen_objective > search->current_objective + GAIN_EPS;
    bool top = search->next_top < moves->top_count && search->next_top < TRIES;
    bool any = search->next_any < moves->count;
    if ((better && search->tried >= TRIES_ENOUGH) || (!top && !any))
        return NULL;
    search->tried++;
    return &moves->items[top && !(any && search->tried % 3 == 0) ? search->next_top++ : search->next_any++];
}

static void try_one(struct plan_search *search)
{
    const struct plan_move *move = next_candidate(search);
    if (!move) {
        search->stage = PLAN_THUNDER_GO;
        return;
    }
    plan_state_copy(&search->scratch, &search->current);
    plan_move_apply(&search->scratch, move);
    uint64_t hash = plan_state_hash(&search->scratch);
    struct plan_seen *seen = seen_slot(search, hash);
    double objective;
    if (seen->hash && seen->run == search->run)
        return; /* stood on already */
    if (seen->hash) {
        objective = seen->objective;
    } else {
        objective = evaluate(search, &search->scratch, NULL);
        seen_add(search, hash)->objective = objective;
    }
    if (plan_tabu_has(&search->tabu, move) && objective <= search->run_objective + GAIN_EPS)
        return;
    if (objective > search->chosen_objective) {
        search->chosen_objective = objective;
        search->chosen = (int)(move - search->moves.items);
    }
}

static void go(struct plan_search *search)
{
    if (search->chosen < 0) {
        search->stage = PLAN_THUNDER_KICK;
        return;
    }
    const struct plan_move *move = &search->moves.items[search->chosen];
    plan_tabu_add(&search->tabu, &search->current, move);
    plan_move_apply(&search->current, move);
    search->current_objective = search->chosen_objective;
    struct plan_seen *seen = seen_add(search, plan_state_hash(&search->current));
    seen->objective = search->chosen_objective;
    seen->run = search->run;
    search->iteration++;
    search->stalled++;
    if (search->current_objective > search->run_objective) {
        if (is_gain(search, search->run_objective, search->current_objective))
            search->stalled = 0;
        search->run_objective = search->current_objective;
        plan_state_copy(&search->run_best, &search->current);
    }
    bool over = search->stalled > search->patience || search->effort > search->effort_most;
    search->stage = over ? PLAN_THUNDER_KICK : PLAN_THUNDER_LIST;
}

/* --- Starts and kicks --- */

static void evaluate_start(struct plan_search *search)
{
    if (search->scale) {
        plan_thunder_scale_step(search);
        return;
    }
    if (!search->starts_made) {
        search->starts_made = true;
        if (search->problem->depth == PLAN_REGROUP)
            plan_thunder_make_starts(search);
        else
            plan_thunder_fix(search);
        search->spent++;
        return;
    }
    if (search->start_next < search->start_count) {
        struct plan_start *start = &search->starts[search->start_next++];
        bool affordable = search->best_objective < 0 || search->effort < search->effort_most;
        start->used = start->state.count == 0 || !affordable;
        start->objective = start->used ? -1 : evaluate(search, &start->state, NULL);
        plan_thunder_trial_offer(search, &start->state, start->objective);
        if (!start->used)
            seen_add(search, plan_state_hash(&start->state))->objective = start->objective;
        return;
    }
    search->stage = search->problem->depth == PLAN_REROUTE ? PLAN_THUNDER_DONE : PLAN_THUNDER_KICK;
}

/* Takes some groups apart and puts the devices together at random. */
static void kick(struct plan_search *search)
{
    struct plan_state *state = &search->scratch;
    plan_state_copy(state, &search->best);
    uint64_t want = 2 + ts_rng_below(&search->rng, 3);
    for (uint64_t i = 0; i < want && state->count > 0; i++)
        plan_state_remove(state, (uint32_t)ts_rng_below(&search->rng, state->count));
    plan_thunder_rebuild(search, state);
}

static void kick_flips(struct plan_search *search)
{
    struct plan_state *state = &search->scratch;
    plan_state_copy(state, &search->best);
    for (uint32_t i = 0; i < state->count; i++) {
        enum ts_phase phase = (enum ts_phase)(1 + ts_rng_below(&search->rng, TS_PHASE_BOTH));
        const struct plan_group *row = &search->fixed[(size_t)i * (TS_PHASE_BOTH + 1)];
        if (row[phase].shape && ts_rng_below(&search->rng, 3) == 0)
            state->groups[i] = row[phase];
    }
}

static double effort_of(const struct plan_search *search)
{
    return search->problem->effort > 0 ? search->problem->effort : 1;
}

static bool is_over(const struct plan_search *search)
{
    bool all = search->problem->objective == PLAN_ATTAINMENT && search->best_objective > 1 - ALL_EPS;
    return search->best_objective < 0 || all || search->kicks_stalled > KICKS_STALL * effort_of(search) ||
           search->effort > search->effort_most;
}

/* With more effort than usual: the first start once more with groups that stay inside nodes, and from where
 * that ended without this restraint. It is another valley than the first run finds, as a rule. */
static bool restrained_run(struct plan_search *search)
{
    if (effort_of(search) <= 1 || search->problem->depth != PLAN_REGROUP || search->run < 1 ||
        search->run > 2)
        return false;
    search->inside = search->run == 1;
    if (search->inside) {
        const struct plan_start *start = &search->starts[search->first];
        begin_run(search, &start->state, start->objective);
    } else {
        plan_state_copy(&search->scratch, &search->run_best);
        begin_run(search, &search->scratch, search->run_objective);
    }
    return true;
}

/* The next run: from the best start not used yet, then from the best state, disturbed. */
static void next_run(struct plan_search *search)
{
    struct plan_start *start = NULL;
    for (uint32_t i = 0; i < search->start_count; i++) {
        struct plan_start *other = &search->starts[i];
        if (!other->used && (!start || other->objective > start->objective))
            start = other;
    }
    if (!start && search->run > 0) {
        bool gained = is_gain(search, search->best_before, search->best_objective);
        search->kicks_stalled = gained ? 0 : search->kicks_stalled + 1;
    }
    search->best_before = search->best_objective;
    plan_thunder_trial_offer(search, &search->run_best, search->run_objective);
    if (is_over(search)) {
        search->stage = search->trials ? PLAN_THUNDER_TRIALS : PLAN_THUNDER_DONE;
        return;
    }
    if (restrained_run(search))
        return;
    if (start) {
        search->first = search->run == 0 ? (uint32_t)(start - search->starts) : search->first;
        start->used = true;
        begin_run(search, &start->state, start->objective);
        return;
    }
    search->kicks++;
    if (search->problem->depth == PLAN_REGROUP)
        kick(search);
    else
        kick_flips(search);
    double objective = search->scratch.count ? evaluate(search, &search->scratch, NULL) : -1;
    search->spent++;
    if (search->scratch.count)
        begin_run(search, &search->scratch, objective);
}

/* --- The table entry --- */

static struct plan_search *thunder_open(const struct plan_problem *problem, struct ts_error *err)
{
    if (problem->depth != PLAN_REGROUP && !problem->current) {
        ts_error_set(err, TS_EINVAL, "to re-route or flip, the plan in force is needed");
        return NULL;
    }
    struct plan_search *search = ts_xcalloc(1, sizeof *search);
    search->problem = problem;
    search->shapes = plan_shapes_new(problem);
    search->picks = plan_picks_new(search->shapes);
    search->eval = plan_eval_new(search->shapes);
    search->worth = plan_worth_new(search->shapes);
    search->gauge = plan_gauge_new(search->shapes);
    ts_rng_init(&search->rng, problem->seed);
    double size = fmax(problem->cluster->gpu_count / 32.0, 1);
    search->effort_most =
        (problem->depth == PLAN_REGROUP ? EFFORT_REGROUP * size : EFFORT_FLIP) * effort_of(search);
    search->best_objective = search->best_before = -1;
    search->seen_capacity = SEEN_FIRST;
    search->seen = ts_xcalloc(search->seen_capacity, sizeof *search->seen);
    if (problem->depth == PLAN_REGROUP) {
        if (problem->current)
            plan_thunder_add_start(search, problem->current);
        plan_thunder_scale_open(search);
        plan_thunder_trial_open(search);
    }
    return search;
}

static void thunder_close(struct plan_search **ptr)
{
    struct plan_search *search = *ptr;
    if (!search)
        return;
    plan_thunder_scale_close(search);
    plan_thunder_trial_close(search);
    for (uint32_t i = 0; i < search->start_count; i++)
        plan_state_fini(&search->starts[i].state);
    plan_state_fini(&search->best);
    plan_state_fini(&search->current);
    plan_state_fini(&search->scratch);
    plan_state_fini(&search->run_best);
    plan_worth_destroy(&search->worth);
    plan_gauge_destroy(&search->gauge);
    plan_eval_destroy(&search->eval);
    plan_picks_destroy(&search->picks);
    plan_shapes_destroy(&search->shapes);
    ts_free(search->seen);
    ts_free(search->fixed);
    ts_free(search->fixed_from);
    ts_free(search);
    *ptr = NULL;
}

static bool thunder_step(struct plan_search *search, uint64_t budget)
{
    search->allowed = search->allowed + budget < budget ? UINT64_MAX : search->allowed + budget;
    while (search->stage != PLAN_THUNDER_DONE && search->spent < search->allowed) {
        switch (search->stage) {
        case PLAN_THUNDER_STARTS_STAGE:
            evaluate_start(search);
            break;
        case PLAN_THUNDER_LIST:
            list(search);
            break;
        case PLAN_THUNDER_TRY:
            try_one(search);
            break;
        case PLAN_THUNDER_GO:
            go(search);
            break;
        case PLAN_THUNDER_TRIALS:
            if (plan_thunder_trial_step(search))
                search->stage = PLAN_THUNDER_DONE;
            break;
        case PLAN_THUNDER_KICK:
            next_run(search);
            break;
        case PLAN_THUNDER_DONE:
            break;
        }
    }
    return search->stage == PLAN_THUNDER_DONE;
}

/* While the search goes on, by an evaluator of its own: the search's one stays as it is, so that asking
 * changes nothing. */
static struct ts_plan *thunder_best(struct plan_search *search)
{
    if (search->best_objective < 0)
        return plan_thunder_scale_best(search);
    struct ts_plan *tried = plan_thunder_trial_best(search);
    if (tried) {
        plan_thunder_keep_devices(search, tried);
        return tried;
    }
    bool done = search->stage == PLAN_THUNDER_DONE;
    struct plan_eval *fresh = done ? NULL : plan_eval_new(search->shapes);
    struct ts_plan *plan =
        plan_eval_plan(done ? search->eval : fresh, &search->best, plan_algorithm_thunder.name);
    plan_thunder_keep_devices(search, plan);
    plan_eval_destroy(&fresh);
    return plan;
}

static void thunder_describe(const struct plan_search *search, char *out, size_t size)
{
    const struct plan_search *small = search->scale ? plan_thunder_scale_search(search) : NULL;
    if (search->best_objective < 0 && small && small->best_objective >= 0)
        snprintf(out, size, "evaluations %llu, best %.4f on a part of the cluster",
                 (unsigned long long)search->evaluations, small->best_objective);
    else if (search->best_objective < 0)
        snprintf(out, size, "evaluations %llu, no plan yet", (unsigned long long)search->evaluations);
    else
        snprintf(out, size, "evaluations %llu, runs %u, best %.4f of %u groups",
                 (unsigned long long)search->evaluations, search->run, search->best_objective,
                 search->best.count);
}

const struct plan_algorithm plan_algorithm_thunder = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "thunder",
    .summary = "tabu search over groups and phases, guided by the prices of the linear program",
    .open = thunder_open,
    .step = thunder_step,
    .best = thunder_best,
    .describe = thunder_describe,
    .close = thunder_close,
};
