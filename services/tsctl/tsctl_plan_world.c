#include "services/tsctl/tsctl_plan_world.h"

#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"

#define GBIT 1.25e8 /* bytes */

/* What joins two nodes is as fast as given, and so is each node's access to it. */
static void override_links(struct ts_cluster *cluster, double gbit)
{
    for (uint32_t a = 0; a < cluster->node_count; a++) {
        for (uint32_t b = 0; b < cluster->node_count; b++)
            if (a != b)
                cluster->links[a * cluster->node_count + b].bytes_per_s = gbit * GBIT;
        cluster->nodes[a].nic_out_bytes_per_s = gbit * GBIT;
        cluster->nodes[a].nic_in_bytes_per_s = gbit * GBIT;
    }
}

static enum ts_status load_inputs(struct tsctl_plan_world *w, const char *conf_dir, struct ts_error *err)
{
    const struct tsctl_plan_inputs *in = &w->inputs;
    enum ts_status status = ts_catalogue_load(conf_dir, in->devices, &w->catalogue, err);
    if (status == TS_OK)
        status = ts_inputs_cluster(w->catalogue, conf_dir, in->cluster, &w->cluster, err);
    if (status == TS_OK)
        status = ts_inputs_model(conf_dir, in->model, &w->model, err);
    if (status == TS_OK)
        status = ts_inputs_demand(conf_dir, in->workload, in->rate, &w->demand, err);
    if (status == TS_OK && in->link_gbit >= 0) {
        override_links(w->cluster, in->link_gbit);
        status = ts_cluster_seal(w->cluster, err);
    }
    if (status == TS_OK && in->scale_lengths != 1)
        ts_demand_scale_lengths(&w->demand, in->scale_lengths);
    if (status == TS_OK && strcmp(in->slo, "none") != 0)
        status = ts_inputs_slo(w->catalogue, conf_dir, in->slo, &w->model, &w->demand, err);
    return status;
}

enum ts_status tsctl_plan_world_load(const struct tsctl_plan_inputs *inputs, struct tsctl_plan_world *out,
                                     struct ts_error *err)
{
    struct plan_problem *problem = &out->problem;
    *out = (struct tsctl_plan_world){.inputs = *inputs};
    char *conf_dir = *inputs->conf_dir ? ts_xstrdup(inputs->conf_dir) : tsctl_conf_dir();
    enum ts_status status = load_inputs(out, conf_dir, err);
    ts_free(conf_dir);
    if (status != TS_OK) {
        tsctl_plan_world_fini(out);
        return status;
    }
    *problem = plan_problem_defaults(out->cluster, &out->model, &out->demand);
    if (strcmp(inputs->objective, "goodput") == 0)
        problem->objective = PLAN_GOODPUT;
    if (inputs->max_stages)
        problem->max_stages = inputs->max_stages;
    problem->attainment = inputs->attainment;
    problem->colocate = !inputs->no_colocate;
    problem->codec_allowed[TS_COST_CODEC_I4] = strcmp(inputs->codec, "none") != 0;
    problem->codec_allowed[TS_COST_CODEC_NONE] = strcmp(inputs->codec, "i4") != 0;
    problem->seed = inputs->seed;
    problem->effort = inputs->effort;
    status = plan_problem_check(problem, err);
    if (status != TS_OK)
        tsctl_plan_world_fini(out);
    return status;
}

void tsctl_plan_world_fini(struct tsctl_plan_world *world)
{
    ts_plan_destroy(&world->current);
    ts_cluster_destroy(&world->cluster);
    ts_catalogue_destroy(&world->catalogue);
}

enum ts_status tsctl_plan_world_current(struct tsctl_plan_world *world, const char *path,
                                        struct ts_error *err)
{
    struct tsctl_plan_doc *doc = NULL;
    uint32_t lost = 0;
    enum ts_status status = tsctl_plan_read(path, &doc, err);
    if (status == TS_OK)
        status = tsctl_plan_bind(doc, world->cluster, &world->current, &lost, err);
    if (status == TS_OK)
        status = ts_plan_check(world->current, world->cluster, &world->model, &world->demand, err);
    if (status != TS_OK)
        ts_error_prefix(err, "--current %s", path);
    else if (lost > 0)
        fprintf(stderr, "tsctl plan: %s: %u of %u replicas stand on devices that are gone and are left out\n",
                path, lost, doc->plan->group_count);
    tsctl_plan_doc_destroy(&doc);
    world->problem.current = world->current;
    return status;
}

struct tsctl_plan_doc tsctl_plan_world_doc(const struct tsctl_plan_world *world, const struct ts_plan *plan)
{
    return (struct tsctl_plan_doc){.inputs = world->inputs,
                                   .cluster = world->cluster,
                                   .model = &world->model,
                                   .demand = &world->demand,
                                   .plan = plan,
                                   .finished = true};
}
