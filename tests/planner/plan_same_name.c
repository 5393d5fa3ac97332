/* A planner algorithm that takes the name of one that is built in, and is otherwise complete. */
#include "services/planner/plan_algorithm.h"

static struct plan_search *same_open(const struct plan_problem *problem, struct ts_error *err)
{
    (void)problem;
    (void)ts_error_set(err, TS_EUNSUPPORTED, "never opened");
    return NULL;
}

static bool same_step(struct plan_search *search, uint64_t budget)
{
    return search == NULL && budget == 0;
}

static struct ts_plan *same_best(struct plan_search *search)
{
    (void)search;
    return NULL;
}

static void same_describe(const struct plan_search *search, char *out, size_t size)
{
    (void)search;
    if (size > 0)
        out[0] = '\0';
}

static void same_close(struct plan_search **search)
{
    *search = NULL;
}

extern const struct plan_algorithm ts_plan_algorithm;
const struct plan_algorithm ts_plan_algorithm = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "uniform",
    .summary = "takes a name that is not free",
    .open = same_open,
    .step = same_step,
    .best = same_best,
    .describe = same_describe,
    .close = same_close,
};
