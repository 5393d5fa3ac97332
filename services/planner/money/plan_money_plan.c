#include "services/planner/money/plan_money_impl.h"

#include <string.h>

#include "common/base/ts_mem.h"

uint32_t money_plan_devices(const struct ts_plan *plan)
{
    uint32_t count = 0;
    for (uint32_t g = 0; g < plan->group_count; g++)
        count += ts_group_gpus(&plan->groups[g]);
    return count;
}

double money_group_price(const struct ts_cluster *cluster, const struct ts_group *group)
{
    double price = 0;
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++)
            price += cluster->types[cluster->gpus[group->stages[s].gpus[i]].type].price_per_hour;
    }
    return price;
}

double money_plan_price(const struct ts_cluster *cluster, const struct ts_plan *plan)
{
    double price = 0;
    for (uint32_t g = 0; g < plan->group_count; g++)
        price += money_group_price(cluster, &plan->groups[g]);
    return price;
}

double money_group_use(const struct ts_plan *plan, uint32_t group)
{
    double use = 0;
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        const struct ts_flow *flow = &plan->flows[f];
        use += ((flow->prefill == group) + (flow->decode == group)) * 0.5 * flow->attained;
    }
    return use;
}

struct ts_plan *money_plan_copy(const struct ts_plan *plan, const bool *keep)
{
    struct ts_plan *copy = ts_plan_new(plan->group_count, plan->flow_count);
    struct ts_group *groups = copy->groups;
    struct ts_flow *flows = copy->flows;
    uint32_t *index = ts_xcalloc(plan->group_count + 1, sizeof *index);
    *copy = *plan;
    copy->groups = groups;
    copy->flows = flows;
    copy->group_count = copy->flow_count = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        if (keep && !keep[g])
            continue;
        index[g] = copy->group_count;
        copy->groups[copy->group_count++] = plan->groups[g];
    }
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        struct ts_flow flow = plan->flows[f];
        if (keep && !(keep[flow.prefill] && keep[flow.decode]))
            continue;
        flow.prefill = index[flow.prefill];
        flow.decode = index[flow.decode];
        copy->flows[copy->flow_count++] = flow;
    }
    ts_free(index);
    return copy;
}

void money_plan_prune(struct ts_plan **plan)
{
    bool *keep = ts_xcalloc((*plan)->group_count + 1, sizeof *keep);
    for (uint32_t f = 0; f < (*plan)->flow_count; f++) {
        const struct ts_flow *flow = &(*plan)->flows[f];
        if (flow->rate > 0)
            keep[flow->prefill] = keep[flow->decode] = true;
    }
    struct ts_plan *pruned = money_plan_copy(*plan, keep);
    ts_plan_destroy(plan);
    *plan = pruned;
    ts_free(keep);
}
