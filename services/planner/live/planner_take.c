/*
 * The shares of a plan, and what they serve. Three are looked at: those that carry the largest rate of the
 * mix, those that serve most at the measured rates, and those that follow what each worker can do, whatever
 * the class. The program's own shares count on refusing what they have no place for, but live requests are
 * served late rather than refused; so all are judged as they are, at the measured rates, by plan_eval_fixed.
 */
#include <math.h>

#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"
#include "services/planner/live/planner_demand.h"
#include "services/planner/live/planner_live_impl.h"

#define EQUAL        0.998
#define REROUTE_WORK 1000000

void live_forget_plan(struct live_plan *plan)
{
    ts_plan_destroy(&plan->plan);
    ts_free(plan->shares.items);
    *plan = (struct live_plan){.served = 0};
}

static struct plan_share *plan_shares(const struct live_shares *shares)
{
    struct plan_share *out = ts_xcalloc(shares->count + 1, sizeof *out);
    for (uint32_t i = 0; i < shares->count; i++) {
        const struct live_share *share = &shares->items[i];
        out[i] = (struct plan_share){share->prefill, share->decode, share->codec, share->share,
                                     share->length_class + 1};
    }
    return out;
}

/* What the shares serve within deadlines at the demand's rates. */
static double judge(struct live_model *m, const struct live_plan *plan)
{
    struct plan_problem problem = m->problem;
    problem.demand = &m->demand;
    problem.objective = PLAN_ATTAINMENT;
    struct plan_shapes *shapes = plan_shapes_new(&problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    struct plan_result result = {.objective = 0};
    struct plan_share *shares = plan_shares(&plan->shares);
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, plan->plan, &state, NULL) == TS_OK)
        (void)plan_eval_fixed(eval, &state, shares, plan->shares.count, &result);
    ts_free(shares);
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return result.objective * ts_demand_rate(&m->demand);
}

static void take_plan(const struct planner_live *live, struct live_model *m, struct ts_plan *plan,
                      struct live_plan *out)
{
    out->plan = plan;
    live_shares_of(live, m, plan, &out->shares);
    if (out->shares.count == 0)
        live_forget_plan(out);
    else
        out->served = live->measured ? judge(m, out) : plan->objective;
}

/* The algorithm's plan over problem->current for as many requests as possible at the measured rates. NULL
 * when it has none, or turns phases. */
static struct ts_plan *plan_for_rates(const struct planner_live *live, struct live_model *m)
{
    const struct plan_algorithm *algorithm = live->inputs->algorithm;
    struct plan_problem problem = m->problem;
    struct ts_error err = {0};
    problem.depth = PLAN_REROUTE;
    problem.objective = PLAN_ATTAINMENT;
    problem.demand = &m->demand;
    m->search = algorithm->open(&problem, &err);
    while (m->search && !algorithm->step(m->search, REROUTE_WORK)) /* one state: it is over soon */
        ;
    struct ts_plan *plan = live_algorithm_plan(live, m);
    if (plan && live_count_flips(problem.current, plan) > 0)
        ts_plan_destroy(&plan);
    return plan;
}

/* Shares by score over problem->current. NULL when no worker meets the deadlines. */
static struct ts_plan *plan_by_score(const struct live_model *m)
{
    struct plan_problem problem = m->problem;
    problem.demand = &m->demand;
    problem.objective = PLAN_ATTAINMENT;
    struct plan_shapes *shapes = plan_shapes_new(&problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    struct ts_plan *plan = NULL;
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, problem.current, &state, NULL) == TS_OK) {
        uint32_t count = 0;
        struct plan_share *shares = baseline_shares_scored(shapes, &state, NULL, &count);
        if (shares)
            plan = plan_eval_fixed_plan(eval, &state, shares, count, "by score");
        ts_free(shares);
    }
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return plan;
}

/* The other plan (may be NULL; taken) instead of `out` where it serves at least `least` of as much. */
static void prefer(const struct planner_live *live, struct live_model *m, struct ts_plan *plan, double least,
                   struct live_plan *out)
{
    struct live_plan other = {.served = 0};
    if (plan)
        take_plan(live, m, plan, &other);
    if (other.plan && other.served >= least * out->served) {
        struct live_plan worse = *out;
        *out = other;
        other = worse;
    }
    live_forget_plan(&other);
}

/* Shares by score do not move with the mix, so others must serve more by what a rate estimated from n
 * requests is not off by, 1 / sqrt(n). */
void live_take(const struct planner_live *live, struct live_model *m, struct ts_plan *plan,
               struct live_plan *out)
{
    double requests = planner_workload_requests(&live->snapshot->workload);
    take_plan(live, m, plan, out);
    if (!live->measured)
        return;
    prefer(live, m, plan_for_rates(live, m), EQUAL, out);
    prefer(live, m, plan_by_score(m), 1 / (1 + 1 / sqrt(requests)), out);
}
