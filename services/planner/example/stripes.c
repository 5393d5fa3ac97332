/*
 * A planner algorithm of one's own, in a shared object: `stripes` makes one replica of all equal devices of
 * each node and lets the evaluator route. It is an example of the interface and not of good planning.
 *
 * What it shows: a search owns what it needs (cache of shapes, evaluator, state), does a bounded amount of
 * work in each step (here one cell), has an answer at any moment, and exports one table. Built and loaded as
 * the README of the folder above says.
 */
#include <stdio.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"

struct plan_search {
    const struct plan_problem *problem;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_state state;
    uint32_t next; /* cell */
};

static struct plan_search *stripes_open(const struct plan_problem *problem, struct ts_error *err)
{
    if (!problem->colocate) {
        (void)ts_error_set(err, TS_EUNSUPPORTED, "stripes only colocates, and colocation is forbidden");
        return NULL;
    }
    struct plan_search *search = ts_xcalloc(1, sizeof *search);
    search->problem = problem;
    search->shapes = plan_shapes_new(problem);
    search->eval = plan_eval_new(search->shapes);
    plan_state_init(&search->state);
    return search;
}

static bool stripes_step(struct plan_search *search, uint64_t budget)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    for (; budget > 0 && search->next < cluster->cell_count; budget--, search->next++) {
        struct plan_group group = {.phase = TS_PHASE_BOTH, .part_count = 1};
        uint32_t count = cluster->cells[search->next].count;
        group.parts[0].cell = (uint16_t)search->next;
        group.parts[0].count = (uint8_t)(count < UINT8_MAX ? count : UINT8_MAX);
        if (plan_shape_choose(search->shapes, &group)) /* else the cell is too small for the model */
            (void)plan_state_add(&search->state, &group);
    }
    return search->next == cluster->cell_count;
}

static struct ts_plan *stripes_best(struct plan_search *search)
{
    return search->state.count ? plan_eval_plan(search->eval, &search->state, "stripes") : NULL;
}

static void stripes_describe(const struct plan_search *search, char *out, size_t size)
{
    (void)snprintf(out, size, "cells %u, replicas %u", search->next, search->state.count);
}

static void stripes_close(struct plan_search **search)
{
    if (!*search)
        return;
    plan_state_fini(&(*search)->state);
    plan_eval_destroy(&(*search)->eval);
    plan_shapes_destroy(&(*search)->shapes);
    ts_free(*search);
    *search = NULL;
}

extern const struct plan_algorithm ts_plan_algorithm;
const struct plan_algorithm ts_plan_algorithm = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "stripes",
    .summary = "one colocated replica of all equal devices of each node",
    .open = stripes_open,
    .step = stripes_step,
    .best = stripes_best,
    .describe = stripes_describe,
    .close = stripes_close,
};
