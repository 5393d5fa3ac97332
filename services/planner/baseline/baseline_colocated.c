/*
 * `colocated`: serving without split phases, as vLLM does (Kwon et al., SOSP 2023, section 4: one scheduler
 * and one engine for both phases; tensor and pipeline parallel degrees are the user's choice among equal
 * devices). Each type of device gets the one (TP, PP) that the evaluator likes best beside those of the other
 * types, and what is left over is cut again. Requests join the shortest queue: shares follow what each
 * replica can serve.
 *
 * Left out: mixing types in one replica, which vLLM's users do not. Interference of the two phases is the
 * cost model's (plan_shape.h).
 */
#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"

#define PASSES 4 /* over all types; more seldom change anything */

struct type_choice {
    struct baseline_config configs[BASELINE_CONFIGS_MAX];
    uint32_t count, chosen;
};

struct plan_search {
    struct baseline base;
    struct type_choice *types;
    uint32_t type, config, pass;
    bool started, changed;
    double value;
};

/* Replicas of the chosen configuration, then of whatever serves most among what the rest has room for. */
static void cut_type(struct baseline *base, const struct type_choice *choice, uint32_t type, uint32_t *idle,
                     struct plan_state *state)
{
    struct baseline_config configs[BASELINE_CONFIGS_MAX];
    const struct baseline_config *next = &choice->configs[choice->chosen];
    for (uint32_t count = choice->count; count > 0;) {
        (void)baseline_replicate(base, next, TS_PHASE_BOTH, UINT32_MAX, idle, state);
        count = baseline_configs(base, idle, type, TS_PHASE_BOTH, configs);
        next = &configs[0];
        for (uint32_t i = 1; i < count; i++)
            next = configs[i].score > next->score ? &configs[i] : next;
    }
}

/* All types by their choices. Becomes the answer when it is better than the one so far. */
static bool try_choices(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t *idle = baseline_copy(base, base->idle), count = 0;
    base->draft.count = 0;
    for (uint32_t type = 0; type < base->problem->cluster->type_count; type++)
        cut_type(base, &search->types[type], type, idle, &base->draft);
    ts_free(idle);
    struct plan_share *shares = baseline_shares_by_score(base, &base->draft, NULL, &count);
    if (!shares)
        return false;
    double value = plan_eval_fixed(base->eval, &base->draft, shares, count, NULL);
    if (base->found && value <= search->value * (1 + 1e-9)) {
        ts_free(shares);
        return false;
    }
    search->value = value;
    baseline_answer(base, &base->draft, shares, count);
    return true;
}

/* The first choice of each type promises most requests/s by itself, as many replicas as there is room for. */
static void start(struct plan_search *search)
{
    struct baseline *base = &search->base;
    const uint32_t types = base->problem->cluster->type_count;
    search->types = ts_xcalloc(types + 1, sizeof *search->types);
    for (uint32_t type = 0; type < types; type++) {
        struct type_choice *choice = &search->types[type];
        uint32_t have = baseline_type_count(base->problem, base->idle, type);
        double best = -1;
        choice->count = baseline_configs(base, base->idle, type, TS_PHASE_BOTH, choice->configs);
        for (uint32_t i = 0; i < choice->count; i++) {
            uint32_t replicas = have / (choice->configs[i].tp * choice->configs[i].pp);
            double sum = choice->configs[i].score * replicas;
            if (sum > best * (1 + 1e-9)) {
                choice->chosen = i;
                best = sum;
            }
        }
    }
    (void)try_choices(search);
    search->started = true;
}

/* One configuration of one type in each call, the other types as they are; passes until one changes nothing.
 * With one type that is all there is to try. */
static bool colocated_advance(struct plan_search *search)
{
    const uint32_t types = search->base.problem->cluster->type_count;
    if (!search->started)
        start(search);
    struct type_choice *choice = &search->types[search->type];
    if (search->config < choice->count) {
        uint32_t before = choice->chosen;
        choice->chosen = search->config++;
        if (choice->chosen != before && try_choices(search))
            search->changed = true;
        else
            choice->chosen = before;
        return false;
    }
    search->config = 0;
    if (++search->type < types)
        return false;
    search->type = 0;
    if (!search->changed || ++search->pass == PASSES)
        return true;
    search->changed = false;
    return false;
}

static void colocated_fini(struct plan_search *search)
{
    ts_free(search->types);
}

static const struct baseline_kind kind = {
    .name = "colocated",
    .size = sizeof(struct plan_search),
    .only_colocates = true,
    .advance = colocated_advance,
    .fini = colocated_fini,
};

static struct plan_search *colocated_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_colocated = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "colocated",
    .summary = "both phases on every replica, equal devices in each, as vLLM serves",
    .open = colocated_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
