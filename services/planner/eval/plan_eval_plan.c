/* A state and its evaluation as a plan over devices, and back. */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval_impl.h"

/* Takes the lowest free devices of the cell. Devices stand by node, then by type. */
static void take_devices(const struct ts_cluster *cluster, const struct ts_cell *cell, bool *used,
                         struct ts_stage *stage)
{
    uint32_t taken = 0;
    for (uint32_t g = 0; g < cluster->gpu_count && taken < stage->tp; g++) {
        const struct ts_gpu *gpu = &cluster->gpus[g];
        if (gpu->alive && !used[g] && gpu->node == cell->node && gpu->type == cell->type) {
            stage->gpus[taken++] = g;
            used[g] = true;
        }
    }
}

static void make_group(struct plan_shapes *shapes, const struct plan_group *from, bool *used,
                       struct ts_group *to)
{
    const struct ts_cluster *cluster = plan_shapes_problem(shapes)->cluster;
    const struct plan_shape *shape = from->shape;
    uint8_t order[PLAN_PARTS_MAX];
    plan_shape_parts(shapes, from, order);
    to->phase = from->phase;
    to->stage_count = shape->stage_count;
    for (uint32_t s = 0; s < shape->stage_count; s++) {
        to->stages[s].tp = shape->stages[s].tp;
        to->stages[s].layers = shape->stages[s].layers;
        take_devices(cluster, &cluster->cells[from->parts[order[shape->stages[s].part]].cell], used,
                     &to->stages[s]);
    }
}

struct ts_plan *eval_make_plan(const struct plan_eval *eval, const struct plan_state *state,
                               const struct plan_result *result, const char *algorithm)
{
    const struct ts_cluster *cluster = eval->problem->cluster;
    struct ts_plan *plan = ts_plan_new(state->count, result->flow_count);
    bool *used = ts_xcalloc(cluster->gpu_count + 1, sizeof *used);
    (void)snprintf(plan->algorithm, sizeof plan->algorithm, "%s", algorithm);
    for (uint32_t g = 0; g < state->count; g++) {
        make_group(eval->shapes, &state->groups[g], used, &plan->groups[g]);
    }
    for (uint32_t g = 0; g < cluster->gpu_count; g++) {
        plan->price_per_hour += used[g] ? cluster->types[cluster->gpus[g].type].price_per_hour : 0;
    }
    if (result->flow_count) {
        memcpy(plan->flows, result->flows, result->flow_count * sizeof *plan->flows);
    }
    plan->objective = result->objective;
    plan->rate = result->rate;
    plan->attained_ttft = result->attained_ttft;
    plan->attained_tpot = result->attained_tpot;
    plan->attained_e2e = result->attained_e2e;
    plan_limit_words(eval->problem, state, result, plan->limit, sizeof plan->limit);
    ts_free(used);
    return plan;
}

/* By an evaluator of its own, so that the plan depends on the state alone, and the search that goes on does
 * not depend on when it was asked for a plan. */
struct ts_plan *plan_eval_plan(struct plan_eval *eval, const struct plan_state *state, const char *algorithm)
{
    struct plan_eval *fresh = eval_new(eval->shapes, eval->source);
    struct plan_result result;
    (void)plan_eval_run(fresh, state, &result);
    struct ts_plan *plan = eval_make_plan(eval, state, &result, algorithm);
    plan_eval_destroy(&fresh);
    return plan;
}

enum ts_status plan_state_of_plan(struct plan_shapes *shapes, const struct ts_plan *plan,
                                  struct plan_state *out, struct ts_error *err)
{
    out->count = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        struct plan_group group = {.phase = plan->groups[g].phase};
        struct ts_error own = {0};
        if (!plan_shape_of_group(shapes, &plan->groups[g], &group, &own)) {
            return ts_error_set(err, TS_EINVAL, "group %u: %s", g, own.text);
        }
        (void)plan_state_add(out, &group);
    }
    return TS_OK;
}
