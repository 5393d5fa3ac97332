#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/money/plan_money_impl.h"

#define SIZE_MAX_GROUP 8 /* devices of a group to rent */

struct adviser {
    struct plan_problem problem; /* over `cluster` */
    struct ts_cluster *cluster;  /* what is there, and what may be rented, all alive */
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_state state, trial;
    const struct ts_plan *plan;
    uint32_t *spare; /* devices of each cell that may be rented */
    uint32_t *idle;  /* alive in the problem's cluster, and in no group; per type */
    double base;     /* objective as it is */
    struct plan_advice *items;
    size_t count, capacity;
};

/* --- What may be rented --- */

static bool has_offers(const struct ts_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->gpu_count; i++) {
        if (!cluster->gpus[i].alive)
            return true;
    }
    return false;
}

static uint32_t first_node_of(const struct ts_cluster *cluster, uint32_t type)
{
    uint32_t i = 0;
    while (i + 1 < cluster->gpu_count && cluster->gpus[i].type != type)
        i++;
    return cluster->gpus[i].node;
}

/* One more node for each type, like the first that has it; its devices come last. */
static struct ts_cluster *with_more_nodes(const struct ts_cluster *from)
{
    uint32_t n = from->node_count, extra = from->type_count, all = n + extra;
    struct ts_cluster *c = ts_cluster_new(from->type_count, all, from->gpu_count + extra * SIZE_MAX_GROUP);
    uint32_t *like = ts_xcalloc(all, sizeof *like);
    snprintf(c->name, sizeof c->name, "%s", from->name);
    memcpy(c->types, from->types, from->type_count * sizeof *c->types);
    memcpy(c->gpus, from->gpus, from->gpu_count * sizeof *c->gpus);
    for (uint32_t i = 0; i < all; i++) {
        like[i] = i < n ? i : first_node_of(from, i - n);
        c->nodes[i] = from->nodes[like[i]];
    }
    for (uint32_t i = 0; n > 1 && i < all; i++) {
        for (uint32_t j = 0; j < all; j++) {
            /* A node and its like are joined as the node is with its first other neighbour. */
            uint32_t next = like[i] + 1 < n ? like[i] + 1 : 0;
            uint32_t to = like[j] != like[i] ? like[j] : next;
            if (i != j)
                c->links[(size_t)i * all + j] = from->links[(size_t)like[i] * n + to];
        }
    }
    for (uint32_t i = from->gpu_count; i < c->gpu_count; i++) {
        uint32_t type = (i - from->gpu_count) / SIZE_MAX_GROUP;
        c->gpus[i] = (struct ts_gpu){.type = (uint16_t)type, .node = (uint16_t)(n + type), .alive = false};
    }
    ts_free(like);
    return c;
}

/* The cluster to advise on, with what may be rented dead; then all is made alive. */
static enum ts_status set_cluster(struct adviser *a, const struct ts_cluster *from, struct ts_error *err)
{
    bool room = from->node_count + from->type_count <= TS_CLUSTER_NODES_MAX &&
                from->gpu_count + from->type_count * SIZE_MAX_GROUP <= TS_CLUSTER_GPUS_MAX;
    a->cluster = has_offers(from) || !room ? ts_cluster_copy(from) : with_more_nodes(from);
    bool *was = ts_xcalloc(a->cluster->gpu_count + 1, sizeof *was);
    for (uint32_t i = 0; i < a->cluster->gpu_count; i++) {
        was[i] = a->cluster->gpus[i].alive;
        a->cluster->gpus[i].alive = true;
    }
    enum ts_status status = ts_cluster_seal(a->cluster, err);
    uint32_t gpu = 0;
    a->spare = ts_xcalloc(a->cluster->cell_count + 1, sizeof *a->spare);
    a->idle = ts_xcalloc(a->cluster->type_count + 1, sizeof *a->idle);
    for (uint32_t c = 0; c < a->cluster->cell_count; c++) {
        for (uint32_t i = 0; i < a->cluster->cells[c].count; i++, gpu++) {
            a->spare[c] += !was[gpu];
            a->idle[a->cluster->cells[c].type] += was[gpu];
        }
    }
    ts_free(was);
    return status;
}

/* --- Pieces of advice --- */

static void add(struct adviser *a, struct plan_advice advice)
{
    ts_array_reserve((void **)&a->items, &a->capacity, a->count + 1, sizeof *a->items);
    a->items[a->count++] = advice;
}

static double per_dollar(const struct plan_advice *advice)
{
    return advice->gain / fmax(advice->dollars_per_hour, MONEY_EPS);
}

/* The best group of `count` devices of a cell in a phase; false when it cannot hold the model. */
static bool try_group(struct adviser *a, uint32_t cell, uint32_t count, enum ts_phase phase,
                      struct plan_advice *out)
{
    struct plan_group group = {.phase = phase, .part_count = 1};
    group.parts[0] = (struct plan_part){.cell = (uint16_t)cell, .count = (uint8_t)count};
    if (!plan_shape_choose(a->shapes, &group))
        return false;
    uint32_t type = a->cluster->cells[cell].type;
    plan_state_copy(&a->trial, &a->state);
    plan_state_add(&a->trial, &group);
    *out = (struct plan_advice){.rent = true,
                                .type = type,
                                .count = count,
                                .phase = phase,
                                .dollars_per_hour = count * a->cluster->types[type].price_per_hour,
                                .gain = plan_eval_run(a->eval, &a->trial, NULL) - a->base};
    return true;
}

/* The cell of a type where most may be rented; false when none may. */
static bool roomiest_cell(const struct adviser *a, uint32_t type, uint32_t *cell)
{
    uint32_t most = 0;
    for (uint32_t c = 0; c < a->cluster->cell_count; c++) {
        if (a->cluster->cells[c].type == type && a->spare[c] > most) {
            most = a->spare[c];
            *cell = c;
        }
    }
    return most > 0;
}

/* The best use per dollar of a type that may be rented. */
static void advise_rent(struct adviser *a, uint32_t type)
{
    struct plan_advice best = {.gain = 0}, other;
    uint32_t cell = 0;
    if (!roomiest_cell(a, type, &cell))
        return;
    for (uint32_t count = 1; count <= SIZE_MAX_GROUP && count <= a->spare[cell]; count *= 2) {
        for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
            if (phase == TS_PHASE_BOTH && !a->problem.colocate)
                continue;
            if (try_group(a, cell, count, phase, &other) && other.gain > MONEY_EPS &&
                (best.gain <= 0 || per_dollar(&other) > per_dollar(&best)))
                best = other;
        }
    }
    if (best.gain > 0)
        add(a, best);
}

/* Of the groups of one make, the one that least goes through. */
static bool is_least_used(const struct adviser *a, uint32_t index)
{
    double use = money_group_use(a->plan, index);
    for (uint32_t g = 0; g < a->state.count; g++) {
        double other = money_group_use(a->plan, g);
        if (a->state.groups[g].shape == a->state.groups[index].shape &&
            (other < use || (other == use && g < index)))
            return false;
    }
    return true;
}

/* `group` of the state is group `index` of the plan. */
static void advise_return(struct adviser *a, uint32_t index)
{
    if (!is_least_used(a, index))
        return;
    const struct ts_group *group = &a->plan->groups[index];
    plan_state_copy(&a->trial, &a->state);
    plan_state_remove(&a->trial, index);
    double left = a->trial.count > 0 ? plan_eval_run(a->eval, &a->trial, NULL) : 0;
    add(a, (struct plan_advice){.type = a->cluster->gpus[group->stages[0].gpus[0]].type,
                                .count = ts_group_gpus(group),
                                .phase = group->phase,
                                .group = index,
                                .dollars_per_hour = money_group_price(a->cluster, group),
                                .gain = left - a->base});
}

static void advise_idle(struct adviser *a)
{
    for (uint32_t g = 0; g < a->plan->group_count; g++) {
        for (uint32_t s = 0; s < a->plan->groups[g].stage_count; s++) {
            const struct ts_stage *stage = &a->plan->groups[g].stages[s];
            a->idle[a->cluster->gpus[stage->gpus[0]].type] -= stage->tp;
        }
    }
    for (uint32_t t = 0; t < a->cluster->type_count; t++) {
        if (a->idle[t] > 0)
            add(a,
                (struct plan_advice){.idle = true,
                                     .type = t,
                                     .count = a->idle[t],
                                     .dollars_per_hour = a->idle[t] * a->cluster->types[t].price_per_hour});
    }
}

static int best_first(const void *x, const void *y)
{
    const struct plan_advice *a = x, *b = y;
    if (a->rent != b->rent)
        return a->rent ? -1 : 1;
    double first = per_dollar(a), second = per_dollar(b);
    if (first != second)
        return first > second ? -1 : 1;
    if (a->type != b->type)
        return a->type < b->type ? -1 : 1;
    return (a->group > b->group) - (a->group < b->group);
}

static void advise(struct adviser *a)
{
    a->base = a->state.count > 0 ? plan_eval_run(a->eval, &a->state, NULL) : 0;
    for (uint32_t t = 0; t < a->cluster->type_count; t++)
        advise_rent(a, t);
    for (uint32_t g = 0; g < a->state.count; g++)
        advise_return(a, g);
    advise_idle(a);
    if (a->count > 0)
        qsort(a->items, a->count, sizeof *a->items, best_first);
}

enum ts_status plan_money_advise(const struct plan_problem *problem, const struct ts_plan *plan,
                                 struct plan_advice *out, uint32_t capacity, uint32_t *count,
                                 struct ts_error *err)
{
    struct adviser a = {.problem = *problem, .plan = plan};
    *count = 0;
    enum ts_status status = set_cluster(&a, problem->cluster, err);
    a.problem.cluster = a.cluster;
    a.problem.depth = PLAN_REGROUP;
    a.problem.current = NULL;
    plan_state_init(&a.state);
    plan_state_init(&a.trial);
    if (status == TS_OK) {
        a.shapes = plan_shapes_new(&a.problem);
        a.eval = plan_eval_new(a.shapes);
        status = plan_state_of_plan(a.shapes, plan, &a.state, err);
    }
    if (status == TS_OK)
        advise(&a);
    for (; *count < a.count && *count < capacity; ++*count)
        out[*count] = a.items[*count];
    plan_state_fini(&a.state);
    plan_state_fini(&a.trial);
    plan_eval_destroy(&a.eval);
    plan_shapes_destroy(&a.shapes);
    ts_cluster_destroy(&a.cluster);
    ts_free(a.spare);
    ts_free(a.idle);
    ts_free(a.items);
    return status;
}
