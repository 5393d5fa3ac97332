/*
 * `splitwise`: Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA
 * 2024. Modelled: machines of a prompt, a token and a mixed pool (section IV); requests join the shortest
 * queue of their pool; how many machines a pool has follows from what the load asks of each (the search over
 * counts by which the paper provisions). A machine is one replica of equal devices, the same (TP, PP) in
 * every pool, since machines change pools without loading again.
 *
 * On mixed hardware the machines are lined up by prompt throughput over token throughput, as the paper gives
 * the stronger generation to prompts (its HHcap and HA designs), and the line is cut. The mixed pool takes at
 * most the one machine at the cut: in the paper it absorbs imbalance and is otherwise empty.
 * Left out: power and cost as goals of the search.
 */
#include <math.h>
#include <stdlib.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"

struct machine {
    struct plan_group prompt;
    double prefill, decode, both; /* requests/s in each pool */
    uint32_t index;
};

struct plan_search {
    struct baseline base;
    uint32_t type; /* the draft holds the machines in the prompt phase */
};

/* The configuration with most prompt and token throughput per device, as a geometric mean of the two. */
static void cut_type(struct plan_search *search, uint32_t type)
{
    struct baseline *base = &search->base;
    struct baseline_config prefill[BASELINE_CONFIGS_MAX], decode[BASELINE_CONFIGS_MAX];
    uint32_t p_count = baseline_configs(base, base->idle, type, TS_PHASE_PREFILL, prefill);
    uint32_t d_count = baseline_configs(base, base->idle, type, TS_PHASE_DECODE, decode), best = UINT32_MAX;
    double best_rate = -1;
    for (uint32_t i = 0; i < p_count; i++) {
        for (uint32_t j = 0; j < d_count; j++) {
            double rate = sqrt(prefill[i].score * decode[j].score) / (prefill[i].tp * prefill[i].pp);
            if (prefill[i].tp == decode[j].tp && prefill[i].pp == decode[j].pp &&
                rate > best_rate * (1 + 1e-9)) {
                best = i;
                best_rate = rate;
            }
        }
    }
    if (best != UINT32_MAX)
        (void)baseline_replicate(base, &prefill[best], TS_PHASE_PREFILL, UINT32_MAX, base->idle,
                                 &base->draft);
}

static double score_in(struct baseline *base, const struct plan_group *prompt, enum ts_phase phase)
{
    struct plan_group group = *prompt;
    return baseline_rephase(base, &group, phase) ? baseline_score(base, &group) : -1;
}

/* By prompt over token throughput, falling. */
static int compare(const void *left, const void *right)
{
    const struct machine *a = left, *b = right;
    double x = a->prefill * b->decode, y = b->prefill * a->decode;
    if (x != y)
        return x > y ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static struct machine *line_up(struct plan_search *search)
{
    struct baseline *base = &search->base;
    const uint32_t count = base->draft.count;
    struct machine *line = ts_xcalloc(count + 1, sizeof *line);
    for (uint32_t i = 0; i < count; i++) {
        line[i].prompt = base->draft.groups[i];
        line[i].index = i;
        line[i].prefill = score_in(base, &line[i].prompt, TS_PHASE_PREFILL);
        line[i].decode = score_in(base, &line[i].prompt, TS_PHASE_DECODE);
        line[i].both = base->problem->colocate ? score_in(base, &line[i].prompt, TS_PHASE_BOTH) : -1;
    }
    qsort(line, count, sizeof *line, compare);
    return line;
}

struct cut { /* machines before `prompts` are prompt machines, then `mixed` mixed ones, then token machines */
    uint32_t prompts, mixed;
    double rate;
};

static struct cut best_cut(const struct machine *line, uint32_t count)
{
    struct cut best = {.rate = -1};
    for (uint32_t mixed = 0; mixed <= 1; mixed++) {
        for (uint32_t prompts = 0; prompts + mixed <= count; prompts++) {
            double prefill = 0, decode = 0, both = 0;
            bool split = prompts > 0 && prompts + mixed < count;
            if ((mixed && line[prompts].both < 0) || (!split && !(mixed && count == 1)))
                continue;
            for (uint32_t i = 0; i < count; i++) {
                prefill += i < prompts ? line[i].prefill : 0;
                both += i >= prompts && i < prompts + mixed ? line[i].both : 0;
                decode += i >= prompts + mixed ? line[i].decode : 0;
            }
            double rate = fmin(prefill, decode) + both;
            if (rate > best.rate + 1e-9 * fabs(best.rate))
                best = (struct cut){prompts, mixed, rate};
        }
    }
    return best;
}

static void pool_machines(struct plan_search *search)
{
    struct baseline *base = &search->base;
    struct machine *line = line_up(search);
    struct cut cut = best_cut(line, base->draft.count);
    struct plan_state state;
    plan_state_init(&state);
    for (uint32_t i = 0; i < base->draft.count && cut.rate >= 0; i++) {
        struct plan_group group = line[i].prompt;
        if (i < cut.prompts ||
            baseline_rephase(base, &group, i < cut.prompts + cut.mixed ? TS_PHASE_BOTH : TS_PHASE_DECODE))
            (void)plan_state_add(&state, &group);
    }
    uint32_t count = 0;
    struct plan_share *shares = baseline_shares_by_score(base, &state, NULL, &count);
    if (shares)
        baseline_answer(base, &state, shares, count);
    plan_state_fini(&state);
    ts_free(line);
}

/* One type in each call, then the pools. */
static bool splitwise_advance(struct plan_search *search)
{
    if (search->type < search->base.problem->cluster->type_count) {
        cut_type(search, search->type++);
        return false;
    }
    pool_machines(search);
    return true;
}

static const struct baseline_kind kind = {
    .name = "splitwise",
    .size = sizeof(struct plan_search),
    .advance = splitwise_advance,
};

static struct plan_search *splitwise_open(const struct plan_problem *problem, struct ts_error *err)
{
    return baseline_open(&kind, problem, err);
}

const struct plan_algorithm plan_algorithm_splitwise = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "splitwise",
    .summary = "prompt, token and mixed pools of like machines, shortest queue (ISCA 2024)",
    .open = splitwise_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = baseline_describe,
    .close = baseline_close,
};
