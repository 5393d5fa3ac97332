#include "common/core/ts_plan.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"

uint32_t ts_group_gpus(const struct ts_group *group)
{
    uint32_t count = 0;
    for (uint32_t s = 0; s < group->stage_count; s++)
        count += group->stages[s].tp;
    return count;
}

bool ts_group_same_devices(const struct ts_group *a, const struct ts_group *b)
{
    bool same = a->stage_count == b->stage_count;
    for (uint32_t s = 0; same && s < a->stage_count; s++) {
        const struct ts_stage *x = &a->stages[s], *y = &b->stages[s];
        same = x->tp == y->tp && x->layers == y->layers &&
               memcmp(x->gpus, y->gpus, x->tp * sizeof x->gpus[0]) == 0;
    }
    return same;
}

struct ts_plan *ts_plan_new(uint32_t groups, uint32_t flows)
{
    struct ts_plan *plan = ts_xcalloc(1, sizeof *plan);
    plan->groups = ts_xcalloc(groups + 1, sizeof *plan->groups);
    plan->flows = ts_xcalloc(flows + 1, sizeof *plan->flows);
    plan->group_count = groups;
    plan->flow_count = flows;
    plan->bound = NAN;
    plan->attained_all = NAN;
    return plan;
}

struct ts_plan *ts_plan_copy(const struct ts_plan *plan)
{
    struct ts_plan *copy = ts_plan_new(plan->group_count, plan->flow_count);
    struct ts_group *groups = copy->groups;
    struct ts_flow *flows = copy->flows;
    for (uint32_t i = 0; i < plan->group_count; i++)
        groups[i] = plan->groups[i];
    for (uint32_t i = 0; i < plan->flow_count; i++)
        flows[i] = plan->flows[i];
    *copy = *plan;
    copy->groups = groups;
    copy->flows = flows;
    return copy;
}

void ts_plan_destroy(struct ts_plan **plan)
{
    if (!*plan)
        return;
    ts_free((*plan)->groups);
    ts_free((*plan)->flows);
    ts_free(*plan);
    *plan = NULL;
}

/* What one check needs; `used[g]` says that some stage has device g. */
struct check {
    const struct ts_plan *plan;
    const struct ts_cluster *cluster;
    const struct ts_model *model;
    const struct ts_demand *demand;
    bool *used;
    struct ts_error *err;
};

static enum ts_status check_devices(struct check *c, const struct ts_stage *stage)
{
    const struct ts_gpu *first = NULL;
    for (uint32_t i = 0; i < stage->tp; i++) {
        uint32_t index = stage->gpus[i];
        if (index >= c->cluster->gpu_count)
            return ts_error_set(c->err, TS_EINVAL, "device %u does not exist; the cluster has %u", index,
                                c->cluster->gpu_count);
        const struct ts_gpu *gpu = &c->cluster->gpus[index];
        if (!gpu->alive)
            return ts_error_set(c->err, TS_EINVAL, "device %u is not alive", index);
        if (c->used[index])
            return ts_error_set(c->err, TS_EINVAL, "device %u is used twice", index);
        c->used[index] = true;
        if (first && (gpu->node != first->node || gpu->type != first->type))
            return ts_error_set(c->err, TS_EINVAL,
                                "tensor parallelism needs equal devices of one node; device %u differs",
                                index);
        first = gpu;
    }
    return TS_OK;
}

static enum ts_status check_stage(struct check *c, const struct ts_group *group, uint32_t s)
{
    const struct ts_stage *stage = &group->stages[s];
    if (stage->tp == 0 || stage->tp > TS_TP_MAX || (stage->tp & (stage->tp - 1)) ||
        c->model->heads % stage->tp)
        return ts_error_set(c->err, TS_EINVAL,
                            "tp is %u; it must be 1, 2, 4 or 8 and divide the %u heads of the model",
                            stage->tp, c->model->heads);
    if (stage->layers == 0)
        return ts_error_set(c->err, TS_EINVAL, "the stage has no layer");
    if (check_devices(c, stage) != TS_OK)
        return c->err->status;
    const struct ts_device_type *type = &c->cluster->types[c->cluster->gpus[stage->gpus[0]].type];
    double bytes = ts_cost_stage_weight_bytes(c->model, s == 0, s + 1 == group->stage_count, stage->layers);
    if (bytes / stage->tp > ts_cost_usable_bytes(type))
        return ts_error_set(c->err, TS_EINVAL,
                            "%u layers take %.3g bytes of each device; a %s has %.3g usable", stage->layers,
                            bytes / stage->tp, type->name, ts_cost_usable_bytes(type));
    return TS_OK;
}

static enum ts_status check_group(struct check *c, uint32_t g)
{
    const struct ts_group *group = &c->plan->groups[g];
    uint32_t layers = 0;
    if (group->phase < TS_PHASE_PREFILL || group->phase > TS_PHASE_BOTH)
        return ts_error_set(c->err, TS_EINVAL, "group %u: it has no phase", g);
    if (group->stage_count == 0 || group->stage_count > TS_STAGES_MAX)
        return ts_error_set(c->err, TS_EINVAL, "group %u: %u stages; it must have 1 to %d", g,
                            group->stage_count, TS_STAGES_MAX);
    for (uint32_t s = 0; s < group->stage_count; s++) {
        if (check_stage(c, group, s) != TS_OK)
            return ts_error_prefix(c->err, "group %u, stage %u", g, s);
        layers += group->stages[s].layers;
    }
    if (layers != c->model->layers)
        return ts_error_set(c->err, TS_EINVAL, "group %u: its stages have %u layers; the model has %u", g,
                            layers, c->model->layers);
    return TS_OK;
}

static enum ts_status check_flow(const struct check *c, uint32_t f)
{
    const struct ts_flow *flow = &c->plan->flows[f];
    const struct ts_plan *plan = c->plan;
    if (flow->prefill >= plan->group_count || flow->decode >= plan->group_count)
        return ts_error_set(c->err, TS_EINVAL, "flow %u: group %u or %u does not exist", f, flow->prefill,
                            flow->decode);
    if (!(plan->groups[flow->prefill].phase & TS_PHASE_PREFILL) ||
        !(plan->groups[flow->decode].phase & TS_PHASE_DECODE))
        return ts_error_set(c->err, TS_EINVAL, "flow %u: groups %u and %u are not of the phases it needs", f,
                            flow->prefill, flow->decode);
    if (flow->length_class >= c->demand->class_count)
        return ts_error_set(c->err, TS_EINVAL, "flow %u: length class %u does not exist", f,
                            flow->length_class);
    if (!(flow->rate >= 0 && flow->attained >= 0 && flow->attained <= flow->rate * (1 + 1e-9) + 1e-12))
        return ts_error_set(c->err, TS_EINVAL, "flow %u: rate %g or attained rate %g is out of range", f,
                            flow->rate, flow->attained);
    return TS_OK;
}

enum ts_status ts_plan_check(const struct ts_plan *plan, const struct ts_cluster *cluster,
                             const struct ts_model *model, const struct ts_demand *demand,
                             struct ts_error *err)
{
    struct ts_error own;
    struct check check = {plan, cluster, model, demand, NULL, err ? err : &own};
    enum ts_status status = TS_OK;
    check.used = ts_xcalloc(cluster->gpu_count + 1, sizeof *check.used);
    for (uint32_t g = 0; g < plan->group_count && status == TS_OK; g++)
        status = check_group(&check, g);
    for (uint32_t f = 0; f < plan->flow_count && status == TS_OK; f++)
        status = check_flow(&check, f);
    ts_free(check.used);
    return status;
}
