#include "services/planner/live/planner_live.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/live/planner_demand.h"
#include "services/planner/live/planner_live_impl.h"

#define EFFORT_UNITS 32.0 /* from so many groups on, flips are searched with the usual effort */
#define EFFORT_LEAST 0.1
#define CEILING_MIN  1e-3
/* What the program is off by near saturation, where a flip that brings nothing costs minutes of queues. */
#define GAIN_MIN 0.1

/* Half short, half long; deadlines that people would accept. Programs read a workload file instead. */
static struct ts_demand expected_demand(void)
{
    const struct ts_class half = {.rate = 1,
                                  .prompt_tokens = 300,
                                  .prompt_tokens_sq = 150e3,
                                  .output_tokens = 200,
                                  .output_tokens_sq = 60e3,
                                  .ttft_s = 2,
                                  .tpot_s = 0.2};
    struct ts_demand demand = {.name = "default", .burst = 1, .class_count = 2, .classes = {half, half}};
    demand.classes[1].prompt_tokens = 2000;
    demand.classes[1].prompt_tokens_sq = 6e6;
    return demand;
}

struct planner_live_inputs planner_live_defaults(void)
{
    struct plan_adopt_rule adopt = plan_adopt_defaults();
    adopt.gain_min = GAIN_MIN;
    return (struct planner_live_inputs){
        .algorithm = &plan_algorithm_thunder,
        .demand = expected_demand(),
        .seed = 1,
        .classes_max = 8,
        .requests_min = 50,
        .flips = true,
        .colocate = true,
        .codec_allowed = {[TS_COST_CODEC_NONE] = true, [TS_COST_CODEC_I4] = true},
        .adopt = adopt,
        .flip_s = 10,
    };
}

static bool usable(const struct ts_plan_worker *w)
{
    return w->ready && !w->draining;
}

/* --- Plans over the workers --- */

static bool same_place(const struct ts_cluster *cluster, const struct ts_group *a, const struct ts_group *b)
{
    bool same = a->stage_count == b->stage_count;
    for (uint32_t s = 0; same && s < a->stage_count; s++) {
        const struct ts_gpu *x = &cluster->gpus[a->stages[s].gpus[0]],
                            *y = &cluster->gpus[b->stages[s].gpus[0]];
        same = a->stages[s].tp == b->stages[s].tp && a->stages[s].layers == b->stages[s].layers &&
               x->node == y->node && x->type == y->type;
    }
    return same;
}

/* Which group of `current` each group of an algorithm's plan is: the same number, with devices like its own
 * (equal devices are not told apart), or else the same devices. False when one is none of them. */
static bool find_groups(const struct live_model *m, const struct ts_plan *plan, uint32_t *group_of)
{
    const struct ts_plan *current = m->current;
    bool parallel = plan->group_count == current->group_count;
    for (uint32_t g = 0; parallel && g < plan->group_count; g++) {
        parallel = same_place(m->cluster, &plan->groups[g], &current->groups[g]);
        group_of[g] = g;
    }
    bool found = true;
    for (uint32_t g = 0; !parallel && found && g < plan->group_count; g++) {
        group_of[g] = 0;
        while (group_of[g] < current->group_count &&
               !ts_group_same_devices(&plan->groups[g], &current->groups[group_of[g]]))
            group_of[g]++;
        found = group_of[g] < current->group_count;
    }
    return found;
}

/* An algorithm's plan over the groups of `current`, in their order, in its phases. NULL when it has others.
 */
static struct ts_plan *align(const struct live_model *m, const struct ts_plan *plan)
{
    uint32_t *group_of = ts_xcalloc(plan->group_count + 1, sizeof *group_of);
    struct ts_plan *aligned = NULL;
    if (find_groups(m, plan, group_of)) {
        aligned = ts_plan_new(m->current->group_count, plan->flow_count);
        memcpy(aligned->groups, m->current->groups, m->current->group_count * sizeof *aligned->groups);
        for (uint32_t g = 0; g < plan->group_count; g++)
            aligned->groups[group_of[g]].phase = plan->groups[g].phase;
        for (uint32_t f = 0; f < plan->flow_count; f++) {
            aligned->flows[f] = plan->flows[f];
            aligned->flows[f].prefill = group_of[plan->flows[f].prefill];
            aligned->flows[f].decode = group_of[plan->flows[f].decode];
        }
        aligned->objective = plan->objective;
        aligned->rate = plan->rate;
        memcpy(aligned->limit, plan->limit, sizeof aligned->limit);
    }
    ts_free(group_of);
    return aligned;
}

uint32_t live_count_flips(const struct ts_plan *from, const struct ts_plan *plan)
{
    uint32_t flips = 0;
    for (uint32_t g = 0; g < plan->group_count; g++)
        flips += plan->groups[g].phase != from->groups[g].phase;
    return flips;
}

/* --- Re-route --- */

struct ts_plan *live_route(const struct plan_problem *problem, struct ts_error *err)
{
    struct plan_shapes *shapes = plan_shapes_new(problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    struct ts_plan *plan = NULL;
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, problem->current, &state, err) == TS_OK)
        plan = plan_eval_plan(eval, &state, "re-route");
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return plan;
}

/* The algorithm's plan over the groups as they stand, at either depth. NULL, with words, when it has none. */
struct ts_plan *live_algorithm_plan(const struct planner_live *live, struct live_model *m)
{
    struct ts_plan *found = m->search ? live->inputs->algorithm->best(m->search) : NULL, *aligned = NULL;
    if (m->search)
        live->inputs->algorithm->close(&m->search);
    if (found)
        aligned = align(m, found);
    ts_plan_destroy(&found);
    return aligned;
}

void live_search(const struct planner_live *live, struct live_model *m, enum plan_depth depth)
{
    struct ts_error err = {0};
    m->problem.depth = depth;
    m->problem.willing = m->willing;
    m->problem.effort = fmin(1, fmax(EFFORT_LEAST, m->unit_count / EFFORT_UNITS));
    m->search = live->inputs->algorithm->open(&m->problem, &err);
    if (!m->search && depth == PLAN_REROUTE)
        snprintf(m->words, sizeof m->words, "phases as they are: %.170s", err.text);
}

/* What share of all requests the workers can serve in time at all: alone, without any queue. */
static double ceiling_of(const struct live_model *m)
{
    struct ts_demand trickle = m->demand;
    struct plan_problem problem = m->problem;
    ts_demand_scale_rate(&trickle, 1e-3 / ts_demand_rate(&m->demand));
    problem.demand = &trickle;
    problem.objective = PLAN_ATTAINMENT;
    struct ts_error err = {0};
    struct ts_plan *plan = live_route(&problem, &err);
    double ceiling = plan ? plan->objective : 0;
    ts_plan_destroy(&plan);
    return ceiling;
}

/* Some requests are late whatever is done: then it is the rest that goodput asks for. True when there is such
 * a rest and it is to be searched anew. */
bool live_relax(struct live_model *m, double ceiling)
{
    double share = m->problem.attainment * ceiling;
    if (m->relaxed || !(share > CEILING_MIN))
        return false;
    m->relaxed = true;
    m->problem.attainment = share;
    return true;
}

/* False: the search goes on, with less asked for. */
static bool settle_route(const struct planner_live *live, struct live_model *m)
{
    bool asked = m->search != NULL;
    struct ts_error err = {0};
    struct ts_plan *plan = live_algorithm_plan(live, m);
    m->searched = true;
    if (!m->cluster)
        return true;
    if (plan && live_count_flips(m->current, plan) > 0)
        ts_plan_destroy(&plan);
    if (asked && !plan)
        snprintf(m->words, sizeof m->words, "phases as they are: %s would change phases or groups",
                 live->inputs->algorithm->name);
    if (!plan)
        plan = live_route(&m->problem, &err);
    if (plan && !(plan->objective > 0) && live_relax(m, ceiling_of(m))) {
        ts_plan_destroy(&plan);
        m->searched = false;
        live_search(live, m, PLAN_REROUTE);
        return !m->search && settle_route(live, m);
    }
    if (!plan) {
        snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
    } else if (!(plan->objective > 0)) {
        snprintf(m->words, sizeof m->words,
                 "equal shares: no request is expected within its deadlines (%.110s)", plan->limit);
        ts_plan_destroy(&plan);
    } else if (!m->words[0]) {
        snprintf(m->words, sizeof m->words, "%s", plan->limit);
    }
    if (plan)
        live_take(live, m, plan, &m->route);
    return true;
}

/* --- One model --- */

static void open_model(struct planner_live *live, struct live_model *m, uint32_t workers)
{
    const struct planner_live_inputs *inputs = live->inputs;
    struct ts_error err = {0};
    bool described = live_describe(live, m);
    m->weight = (double)m->count / workers;
    m->demand = live->demand;
    if (described && live->measured && inputs->deadlines &&
        inputs->deadlines(inputs->catalogue, &m->model, &m->demand, &err) != TS_OK) {
        snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
        described = false;
    }
    if (live->measured)
        ts_demand_scale_rate(&m->demand, m->weight / m->per_unit);
    if (described) {
        m->problem = plan_problem_defaults(m->cluster, &m->model, &m->demand);
        m->problem.objective = PLAN_GOODPUT;
        m->problem.max_stages = TS_STAGES_MAX;
        m->problem.depth = PLAN_REROUTE;
        m->problem.current = m->current;
        m->problem.seed = inputs->seed;
        m->problem.colocate = inputs->colocate;
        memcpy(m->problem.codec_allowed, inputs->codec_allowed, sizeof m->problem.codec_allowed);
        described = plan_problem_check(&m->problem, &err) == TS_OK;
        if (!described)
            snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
    }
    if (described)
        live_search(live, m, PLAN_REROUTE);
    else
        ts_cluster_destroy(&m->cluster);
}

static struct live_model *model_for(struct planner_live *live, struct ts_str name)
{
    const struct ts_plan_worker *all = live->snapshot->workers.data;
    for (uint32_t i = 0; i < live->model_count; i++) {
        if (ts_str_equal(all[live->models[i].workers[0]].model, name))
            return &live->models[i];
    }
    struct live_model *m = &live->models[live->model_count++];
    m->workers = ts_xcalloc(live->snapshot->workers.count, sizeof *m->workers);
    return m;
}

static void set_demand(struct planner_live *live)
{
    const struct planner_live_inputs *inputs = live->inputs;
    const struct ts_class *like = &inputs->demand.classes[0];
    live->measured = planner_demand_measured(&live->snapshot->workload, inputs->classes_max,
                                             inputs->requests_min, &live->demand);
    if (!live->measured) {
        live->demand = inputs->demand;
        return;
    }
    for (uint32_t k = 0; k < live->demand.class_count; k++) {
        live->demand.classes[k].ttft_s = like->ttft_s;
        live->demand.classes[k].tpot_s = like->tpot_s;
        live->demand.classes[k].e2e_s = like->e2e_s;
    }
}

/* --- All models --- */

struct planner_live *planner_live_open(const struct planner_live_inputs *inputs,
                                       const struct ts_msg_snapshot *snapshot)
{
    struct planner_live *live = ts_xcalloc(1, sizeof *live);
    uint32_t workers = 0;
    live->inputs = inputs;
    live->snapshot = snapshot;
    live->models = ts_xcalloc(snapshot->workers.count + 1, sizeof *live->models);
    set_demand(live);
    for (uint32_t i = 0; i < snapshot->workers.count; i++) {
        if (!usable(&snapshot->workers.data[i]))
            continue;
        struct live_model *m = model_for(live, snapshot->workers.data[i].model);
        m->workers[m->count++] = i;
        workers++;
    }
    for (uint32_t i = 0; i < live->model_count; i++)
        open_model(live, &live->models[i], workers);
    return live;
}

bool planner_live_step(struct planner_live *live, uint64_t budget)
{
    for (uint32_t i = 0; i < live->model_count; i++) {
        struct live_model *m = &live->models[i];
        if (m->search && !live->inputs->algorithm->step(m->search, budget))
            return false;
        if (!m->searched && !settle_route(live, m))
            return false;
        if (live->past && !m->settled && !live_settle_flip(live, m))
            return false;
    }
    return true;
}

/* Workers that are to keep their phase are willing to be nothing else. */
static void keep_phases(const struct planner_live *live, struct live_model *m)
{
    const struct planner_live_past *past = live->past;
    for (uint32_t g = 0; past->keeps && g < m->current->group_count; g++) {
        const struct live_unit *unit = &m->units[m->group_unit[g]];
        for (uint32_t i = 0; i < unit->count; i++) {
            if (past->keeps(past->context, live->snapshot->workers.data[m->members[unit->begin + i]].id))
                m->willing[g] = m->current->groups[g].phase;
        }
    }
}

bool planner_live_flip(struct planner_live *live, const struct planner_live_past *past)
{
    bool any = false;
    live->past = past;
    for (uint32_t i = 0; i < live->model_count; i++) {
        struct live_model *m = &live->models[i];
        m->settled = !live_worth_a_flip(live, m);
        if (m->settled)
            continue;
        keep_phases(live, m);
        live_open_flip(live, m);
        any = true;
    }
    return any;
}

bool planner_live_flips(const struct planner_live *live)
{
    bool any = false;
    for (uint32_t i = 0; i < live->model_count; i++)
        any |= live->models[i].adopted;
    return any;
}

const char *planner_live_verdict(const struct planner_live *live)
{
    for (uint32_t i = 0; i < live->model_count; i++) {
        if (live->models[i].adopted)
            return live->models[i].verdict;
    }
    for (uint32_t i = 0; i < live->model_count; i++) {
        if (live->models[i].verdict[0])
            return live->models[i].verdict;
    }
    return "";
}

bool planner_live_measured(const struct planner_live *live)
{
    return live->measured;
}

void planner_live_close(struct planner_live **live)
{
    struct planner_live *l = *live;
    if (!l)
        return;
    for (uint32_t i = 0; i < l->model_count; i++) {
        struct live_model *m = &l->models[i];
        if (m->search)
            l->inputs->algorithm->close(&m->search);
        live_forget_plan(&m->route);
        live_forget_plan(&m->flip);
        ts_plan_destroy(&m->turned);
        live_forget(m);
    }
    ts_free(l->models);
    ts_free(l);
    *live = NULL;
}
