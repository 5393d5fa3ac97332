#include <math.h>

#include "services/planner/bound/plan_bound.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_clock.h"
#include "services/tsctl/tsctl_plan_world.h"

#define STEP_WORK  64 /* between two looks at the clock: some milliseconds */
#define BOUND_WORK 64 /* likewise: shapes priced */

/* What no plan exceeds. Valid whenever it is cut short. */
static void find_bound(const struct tsctl_plan_world *world, struct tsctl_plan_clock *clock,
                       struct ts_plan *plan)
{
    struct plan_shapes *shapes = plan_shapes_new(&world->problem);
    struct plan_bound *bound = plan_bound_new(shapes);
    char words[64];
    while (!plan_bound_step(bound, BOUND_WORK) && !tsctl_plan_clock_out(clock)) {
        snprintf(words, sizeof words, "at most %.4g", plan_bound_value(bound));
        tsctl_plan_clock_show(clock, "bound", words);
    }
    /* Between its operating points the bound may lie a little too low (services/planner/bound/README.md):
     * what is reached is then the better statement. */
    plan->bound = isfinite(plan_bound_value(bound)) ? fmax(plan_bound_value(bound), plan->objective) : NAN;
    plan_bound_destroy(&bound);
    plan_shapes_destroy(&shapes);
}

/* The weights that the largest group can hold: the best lots of up to TS_TP_MAX equal devices of a node, one
 * for each stage. */
static double largest_group_bytes(const struct tsctl_plan_world *world)
{
    const struct ts_cluster *cluster = world->cluster;
    uint32_t stages = 0;
    double lots[TS_STAGES_MAX] = {0}, sum = 0; /* largest first */
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        double usable = ts_cost_usable_bytes(&cluster->types[cluster->cells[c].type]);
        for (uint32_t left = cluster->cells[c].count, tp; left > 0; left -= tp) {
            for (tp = TS_TP_MAX; tp > left || world->model.heads % tp; tp /= 2)
                ;
            double bytes = tp * usable;
            for (uint32_t i = 0; i < world->problem.max_stages; i++) {
                double worse = lots[i];
                if (bytes <= worse)
                    continue;
                lots[i] = bytes;
                bytes = worse;
            }
        }
    }
    for (; stages < world->problem.max_stages; stages++)
        sum += lots[stages];
    return sum;
}

static enum ts_status no_plan(const struct tsctl_plan_world *world, const struct tsctl_plan_search *search,
                              struct ts_error *err)
{
    double need = world->model.layers * ts_cost_layer_weight_bytes(&world->model) +
                  ts_cost_head_weight_bytes(&world->model);
    if (!search->finished && tsctl_plan_clock_interrupted())
        return ts_error_set(err, TS_ENOTFOUND, "%s was stopped before it found a plan; give it more time",
                            search->algorithm->name);
    if (!search->finished && search->max_work > 0 && search->work == search->max_work)
        return ts_error_set(err, TS_ENOTFOUND,
                            "%s found no plan in %llu units of work; give it more (--max-work)",
                            search->algorithm->name, (unsigned long long)search->max_work);
    if (!search->finished)
        return ts_error_set(err, TS_ENOTFOUND, "%s found no plan in %g s; give it more (--time-limit)",
                            search->algorithm->name, search->seconds);
    double most = largest_group_bytes(world);
    if (most >= need)
        return ts_error_set(
            err, TS_ENOTFOUND,
            "%s finds no plan, though cluster \"%s\" can hold model \"%s\" (%.1f GB) once: none meets a "
            "deadline, or it needs the model twice, for prefill and for decode; relax --slo, add devices, or "
            "let a replica do both (thunder)",
            search->algorithm->name, world->cluster->name, world->model.name, need / 1e9);
    return ts_error_set(
        err, TS_ENOTFOUND,
        "%s finds no plan: the weights of model \"%s\" take %.1f GB, and the largest group of "
        "cluster \"%s\" (up to %u stages) has %.1f GB usable; add devices, raise --max-stages, "
        "or take a smaller model",
        search->algorithm->name, world->model.name, need / 1e9, world->cluster->name,
        world->problem.max_stages, most / 1e9);
}

enum ts_status tsctl_plan_search(const struct tsctl_plan_world *world, struct tsctl_plan_search *search,
                                 struct ts_error *err)
{
    struct tsctl_plan_clock clock;
    struct plan_search *run = search->algorithm->open(&world->problem, err);
    if (!run)
        return ts_error_prefix(err, "algorithm %s", search->algorithm->name);
    tsctl_plan_clock_start(&clock, search->seconds, search->progress);
    search->work = 0;
    do {
        char words[160] = "";
        uint64_t work = STEP_WORK;
        if (search->max_work > 0 && search->max_work - search->work < work)
            work = search->max_work - search->work;
        search->finished = search->algorithm->step(run, work);
        search->work += work;
        search->algorithm->describe(run, words, sizeof words);
        tsctl_plan_clock_show(&clock, search->algorithm->name, words);
    } while (!search->finished && search->work != search->max_work && !tsctl_plan_clock_out(&clock));
    search->plan = search->algorithm->best(run);
    search->algorithm->close(&run);
    if (search->plan && search->bound && isnan(search->plan->bound) && !tsctl_plan_clock_interrupted())
        find_bound(world, &clock, search->plan);
    tsctl_plan_clock_stop(&clock);
    return search->plan ? TS_OK : no_plan(world, search, err);
}
