/*
 * Whether other phases pay, and which. First those that serve all requests at a little more than today's
 * rates are looked for: as few as that takes turn, as a rule. Where none do, those that carry the largest
 * rate of the mix. What is found is routed like any plan, judged at today's rates and decided by
 * plan_adopt.h.
 */
#include <math.h>
#include <stdio.h>

#include "services/planner/live/planner_demand.h"
#include "services/planner/live/planner_live_impl.h"

#define HEADROOM         1.1
#define FLIP_CEILING     0.1 /* share in time that is enough where nothing is served */
#define NODE_BYTES_PER_S 1e9 /* of weights: never needed, a flip loads none */

static struct plan_adopt_now now_of(const struct planner_live *live, const struct live_model *m)
{
    return (struct plan_adopt_now){.served = m->route.served * m->per_unit,
                                   /* Of today's requests, as many as then. */
                                   .served_adopted = live->past->attained_adopted *
                                                     ts_demand_rate(&m->demand) * m->per_unit,
                                   /* Without a pair nothing is served: there is no quiet to keep. */
                                   .since_s = live_has_pair(live, m) ? live->past->since_s : INFINITY};
}

/* The adopted share of what a plan serves while its groups flip, by its flows between groups that stay. */
static double meanwhile(const struct live_model *m, const struct ts_plan *flip)
{
    struct plan_change change;
    double attained = 0;
    if (!m->route.plan)
        return 0;
    for (uint32_t f = 0; f < m->route.plan->flow_count; f++)
        attained += m->route.plan->flows[f].attained;
    plan_change_of(m->cluster, &m->model, m->route.plan, flip, NODE_BYTES_PER_S, 0, &change);
    return attained > 0 ? m->route.served * fmin(1, change.served_meanwhile / attained) : 0;
}

/* A rate estimated from n requests is off by 1 / sqrt(n) of itself, and a gain within that is none. */
static struct plan_adopt_rule rule_of(const struct planner_live *live)
{
    struct plan_adopt_rule rule = live->inputs->adopt;
    double requests = planner_workload_requests(&live->snapshot->workload);
    if (live->measured && requests > 0)
        rule.gain_min = fmax(rule.gain_min, 1 / sqrt(requests));
    return rule;
}

static void decide(const struct planner_live *live, struct live_model *m)
{
    const struct planner_live_inputs *inputs = live->inputs;
    struct plan_adopt_now now = now_of(live, m);
    struct plan_adopt_candidate candidate = {.depth = PLAN_FLIP,
                                             .served = m->flip.served * m->per_unit,
                                             .reload_s = inputs->flip_s,
                                             .served_meanwhile = meanwhile(m, m->flip.plan) * m->per_unit};
    struct plan_adopt_rule rule = rule_of(live);
    struct plan_adopt_verdict verdict;
    /* Things are expected to stay as they are for no longer than the last flip has lasted. */
    rule.window_s = fmin(rule.window_s, fmax(live->past->since_s, rule.quiet_s));
    plan_adopt_decide(&rule, &now, &candidate, 1, &verdict);
    m->adopted = verdict.adopt == 0;
    snprintf(m->verdict, sizeof m->verdict, "%s", verdict.reason);
}

/* The first group that a plan turns to what its workers are not willing to be; UINT32_MAX = none. */
static uint32_t find_unwilling(const struct live_model *m, const struct ts_plan *plan)
{
    for (uint32_t g = 0; g < plan->group_count; g++) {
        uint32_t phase = plan->groups[g].phase;
        if (phase != (uint32_t)m->current->groups[g].phase && (m->willing[g] & phase) != phase)
            return g;
    }
    return UINT32_MAX;
}

/* Whether a plan's phases are out of the question, with words. */
static bool refuses(const struct planner_live *live, struct live_model *m, const struct ts_plan *plan)
{
    const char *name = live->inputs->algorithm->name;
    uint32_t unwilling = plan ? find_unwilling(m, plan) : UINT32_MAX;
    if (!plan) {
        snprintf(m->verdict, sizeof m->verdict, "hold: %s has no plan over these workers", name);
    } else if (unwilling != UINT32_MAX) {
        const struct live_unit *unit = &m->units[m->group_unit[unwilling]];
        struct ts_str id = live->snapshot->workers.data[m->members[unit->begin]].id;
        snprintf(m->verdict, sizeof m->verdict,
                 "hold: %s would turn worker %.*s to %s, which it is not to be", name,
                 (int)(id.count < 60 ? id.count : 60), id.data, ts_phase_name(plan->groups[unwilling].phase));
    } else if (live_count_flips(m->current, plan) == 0) {
        snprintf(m->verdict, sizeof m->verdict, "hold: no phases are better than those in force");
    } else {
        return false;
    }
    return true;
}

static bool search_on(const struct planner_live *live, struct live_model *m, enum live_flip_stage stage)
{
    m->stage = stage;
    m->problem.demand = stage == LIVE_FLIP_ALL ? &m->more : &m->demand;
    m->problem.objective = stage == LIVE_FLIP_ALL ? PLAN_ATTAINMENT : PLAN_GOODPUT;
    m->problem.current = stage == LIVE_FLIP_SHARES ? m->turned : m->current;
    live_search(live, m, stage == LIVE_FLIP_SHARES ? PLAN_REROUTE : PLAN_FLIP);
    return !m->search && live_settle_flip(live, m);
}

void live_open_flip(const struct planner_live *live, struct live_model *m)
{
    m->more = m->demand;
    ts_demand_scale_rate(&m->more, HEADROOM);
    /* Nothing is known of the load, or nothing is served at all: as much as can be. */
    bool most = !live->measured || !live_has_pair(live, m);
    (void)search_on(live, m, most ? LIVE_FLIP_MOST : LIVE_FLIP_ALL);
}

/* The shares over the new phases, and whether they pay. */
static void judge_flip(const struct planner_live *live, struct live_model *m)
{
    struct ts_plan *plan = live_algorithm_plan(live, m);
    if (plan && (live_count_flips(m->turned, plan) > 0 || !(plan->objective > 0)))
        ts_plan_destroy(&plan);
    if (!plan)
        plan = live_route(&m->problem, NULL);
    if (plan && plan->objective > 0) {
        live_take(live, m, plan, &m->flip);
        plan = NULL;
    }
    ts_plan_destroy(&plan);
    if (m->flip.plan)
        decide(live, m);
    else
        snprintf(m->verdict, sizeof m->verdict, "hold: no other phases serve a request in time");
    if (m->adopted)
        snprintf(m->words, sizeof m->words, "%s", m->flip.plan->limit);
}

bool live_settle_flip(const struct planner_live *live, struct live_model *m)
{
    m->settled = true;
    if (m->stage == LIVE_FLIP_SHARES) {
        judge_flip(live, m);
        return true;
    }
    struct ts_plan *plan = live_algorithm_plan(live, m);
    bool again = m->stage == LIVE_FLIP_ALL ? !plan || plan->objective < m->problem.attainment
                                           : plan && !(plan->objective > 0) && live_relax(m, FLIP_CEILING);
    if (again || !refuses(live, m, plan)) {
        m->settled = false;
        ts_plan_destroy(&m->turned);
        m->turned = plan;
        return search_on(live, m, again ? LIVE_FLIP_MOST : LIVE_FLIP_SHARES);
    }
    ts_plan_destroy(&plan);
    return true;
}

/* Whether it could pay at all, whatever is found: the search is spared else. */
bool live_worth_a_flip(const struct planner_live *live, struct live_model *m)
{
    const struct plan_adopt_rule rule = rule_of(live);
    struct plan_adopt_now now = now_of(live, m);
    bool pair = live_has_pair(live, m);
    bool collapsed = !pair || now.served < rule.collapse * now.served_adopted;
    double rate = ts_demand_rate(&m->demand) * m->per_unit;
    if (!m->cluster || m->current->group_count == 0 || !live->inputs->flips)
        return false;
    if (!pair && live->past->awaits_pair)
        return false;
    if (pair && !live->measured)
        return false; /* what the expected mix would gain is not known to be there */
    if (!collapsed && now.since_s < rule.quiet_s) {
        snprintf(m->verdict, sizeof m->verdict,
                 "hold: the last flip is %.0f s ago and %.0f s are to be quiet", now.since_s, rule.quiet_s);
        return false;
    }
    if (pair && rate - now.served <= rule.gain_min * now.served) {
        snprintf(m->verdict, sizeof m->verdict,
                 "hold: %.3g of %.3g requests/s are served within deadlines as it is", now.served, rate);
        return false;
    }
    return true;
}
