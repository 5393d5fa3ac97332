/* The settings of the planner in the loop: what a running planner is told, from the inputs of the simulation.
 */
#include "services/tsctl/tsctl_simulate.h"

static const struct ts_device_type *find_device(const void *context, const char *name)
{
    const struct tsctl_planner *p = context;
    return ts_catalogue_device(p->catalogue, name);
}

/* Of classes that were measured: as those of single requests with their mean lengths. */
static enum ts_status set_deadlines(const void *context, const struct ts_model *model,
                                    struct ts_demand *demand, struct ts_error *err)
{
    const struct tsctl_planner *p = context;
    enum ts_status status = TS_OK;
    (void)model;
    for (uint32_t k = 0; p->slo && k < demand->class_count && status == TS_OK; k++) {
        struct ts_class *c = &demand->classes[k];
        struct ts_deadlines d;
        status = ts_slo_of(p->slo, c->prompt_tokens, c->output_tokens, &d, err);
        c->ttft_s = d.ttft_s;
        c->tpot_s = d.tpot_s;
        c->e2e_s = d.e2e_s;
    }
    return status;
}

void tsctl_planner_fill(struct tsctl_planner *p, const struct ts_demand *expected, uint64_t seed)
{
    p->settings = planner_settings_defaults();
    struct planner_live_inputs *plan = &p->settings.plan;
    plan->algorithm = p->algorithm;
    plan->device = find_device;
    plan->catalogue = p;
    plan->deadlines = set_deadlines;
    plan->demand = *expected;
    plan->cluster = p->cluster;
    plan->seed = seed;
    plan->colocate = p->colocate;
    for (int i = 0; i < TS_COST_CODEC_COUNT; i++)
        plan->codec_allowed[i] = p->codec_allowed[i];
}
