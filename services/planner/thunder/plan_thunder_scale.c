/*
 * Large clusters. A cluster of many like nodes is planned as a small one: nodes of one make are one class, a
 * class of m nodes is represented by about m / f of them, and the demand is divided by the same factor. The
 * small problem is searched in full; then each of its groups is set up as often as its nodes stand for
 * others, what is left over is gathered, and the search goes on from there on the cluster itself. That
 * doubling all rates and all capacities doubles all flows (an identity that the evaluator keeps) makes this
 * nearly lossless where the classes divide evenly.
 */
#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/thunder/plan_thunder.h"

#define WHOLE_GPUS 72 /* up to so many devices a cluster is searched as it is */
#define SMALL_GPUS 40 /* what a larger one is brought down to, about */

struct plan_scale {
    struct ts_cluster *cluster;
    struct ts_demand demand;
    struct plan_problem problem;
    struct plan_search *search;
    /* Nodes of the cluster that each node of the small one stands for: real[first[n] .. first[n + 1]). */
    uint32_t *real, *first;
};

/* Of equal make: the same cells, links inside and cards. */
static bool alike(const struct ts_cluster *cluster, const uint32_t *cell_of_node, uint32_t a, uint32_t b)
{
    const struct ts_node *x = &cluster->nodes[a], *y = &cluster->nodes[b];
    if (x->nic_out_bytes_per_s != y->nic_out_bytes_per_s || x->nic_in_bytes_per_s != y->nic_in_bytes_per_s ||
        x->inner.bytes_per_s != y->inner.bytes_per_s || x->inner.latency_s != y->inner.latency_s)
        return false;
    uint32_t cells = cell_of_node[a + 1] - cell_of_node[a];
    if (cells != cell_of_node[b + 1] - cell_of_node[b])
        return false;
    for (uint32_t i = 0; i < cells; i++) {
        const struct ts_cell *c = &cluster->cells[cell_of_node[a] + i],
                             *d = &cluster->cells[cell_of_node[b] + i];
        if (c->type != d->type || c->count != d->count)
            return false;
    }
    return true;
}

/* cells[n] = first cell of node n: cells stand by node. */
static void find_cells(const struct ts_cluster *cluster, uint32_t *cells)
{
    uint32_t cell = 0;
    for (uint32_t n = 0; n <= cluster->node_count; n++) {
        while (cell < cluster->cell_count && cluster->cells[cell].node < n)
            cell++;
        cells[n] = cell;
    }
}

/* Deals the nodes of each class out to its representatives; returns the number of these. */
static uint32_t deal_nodes(const struct ts_cluster *cluster, const uint32_t *cells, double factor,
                           struct plan_scale *scale)
{
    uint32_t nodes = cluster->node_count, small = 0, dealt = 0;
    bool *done = ts_xcalloc(nodes, sizeof *done);
    uint32_t *members = ts_xcalloc(nodes, sizeof *members);
    for (uint32_t n = 0; n < nodes; n++) {
        uint32_t count = 0;
        for (uint32_t m = n; m < nodes && !done[n]; m++) {
            if (!done[m] && alike(cluster, cells, n, m))
                members[count++] = m;
        }
        for (uint32_t i = 0; i < count; i++)
            done[members[i]] = true;
        if (count == 0 || cells[n + 1] == cells[n])
            continue;
        uint32_t kept = (uint32_t)(count / factor + 0.5);
        kept = kept < 1 ? 1 : kept;
        for (uint32_t r = 0; r < kept; r++) {
            scale->first[small++] = dealt;
            for (uint32_t i = (uint32_t)((uint64_t)count * r / kept); i < (uint64_t)count * (r + 1) / kept;
                 i++)
                scale->real[dealt++] = members[i];
        }
    }
    scale->first[small] = dealt;
    ts_free(done);
    ts_free(members);
    return small;
}

static uint32_t devices_of(const struct ts_cluster *cluster, const uint32_t *cells, uint32_t node)
{
    uint32_t count = 0;
    for (uint32_t c = cells[node]; c < cells[node + 1]; c++)
        count += cluster->cells[c].count;
    return count;
}

static void make_cluster(const struct ts_cluster *cluster, const uint32_t *cells, uint32_t nodes,
                         struct plan_scale *scale)
{
    uint32_t gpus = 0, at = 0;
    for (uint32_t n = 0; n < nodes; n++)
        gpus += devices_of(cluster, cells, scale->real[scale->first[n]]);
    struct ts_cluster *small = scale->cluster = ts_cluster_new(cluster->type_count, nodes, gpus);
    memcpy(small->types, cluster->types, cluster->type_count * sizeof *small->types);
    for (uint32_t n = 0; n < nodes; n++) {
        uint32_t real = scale->real[scale->first[n]];
        small->nodes[n] = cluster->nodes[real];
        for (uint32_t m = 0; m < nodes; m++)
            small->links[n * nodes + m] =
                cluster->links[(size_t)real * cluster->node_count + scale->real[scale->first[m]]];
        for (uint32_t c = cells[real]; c < cells[real + 1]; c++) {
            for (uint32_t i = 0; i < cluster->cells[c].count; i++)
                small->gpus[at++] =
                    (struct ts_gpu){.type = cluster->cells[c].type, .node = (uint16_t)n, .alive = true};
        }
    }
}

/* Sets search->scale when the cluster is large and has like nodes. */
void plan_thunder_scale_open(struct plan_search *search)
{
    const struct plan_problem *problem = search->problem;
    const struct ts_cluster *cluster = problem->cluster;
    uint32_t devices = 0, *cells = ts_xcalloc(cluster->node_count + 1, sizeof *cells);
    find_cells(cluster, cells);
    for (uint32_t c = 0; c < cluster->cell_count; c++)
        devices += cluster->cells[c].count;
    struct plan_scale *scale = ts_xcalloc(1, sizeof *scale);
    scale->real = ts_xcalloc(cluster->node_count + 1, sizeof *scale->real);
    scale->first = ts_xcalloc(cluster->node_count + 1, sizeof *scale->first);
    search->scale = scale;
    if (devices > WHOLE_GPUS) {
        uint32_t nodes = deal_nodes(cluster, cells, (double)devices / SMALL_GPUS, scale);
        make_cluster(cluster, cells, nodes, scale);
        scale->demand = *problem->demand;
        ts_demand_scale_rate(&scale->demand, (double)scale->cluster->gpu_count / devices);
        scale->problem = *problem;
        scale->problem.cluster = scale->cluster;
        scale->problem.demand = &scale->demand;
        scale->problem.current = NULL;
        scale->problem.trial_requests = 0;
        if (scale->cluster->gpu_count < devices && ts_cluster_seal(scale->cluster, NULL) == TS_OK)
            scale->search = plan_algorithm_thunder.open(&scale->problem, NULL);
    }
    ts_free(cells);
    if (!scale->search)
        plan_thunder_scale_close(search);
}

void plan_thunder_scale_close(struct plan_search *search)
{
    struct plan_scale *scale = search->scale;
    if (!scale)
        return;
    if (scale->search)
        plan_algorithm_thunder.close(&scale->search);
    ts_cluster_destroy(&scale->cluster);
    ts_free(scale->real);
    ts_free(scale->first);
    ts_free(scale);
    search->scale = NULL;
}

/* The cell of this type in this node. */
static uint16_t cell_in(const struct ts_cluster *cluster, uint32_t node, uint16_t type)
{
    uint32_t c = 0;
    while (c < cluster->cell_count && !(cluster->cells[c].node == node && cluster->cells[c].type == type))
        c++;
    TS_ASSERT(c < cluster->cell_count);
    return (uint16_t)c;
}

/* The group on the copy-th nodes that its nodes stand for; false when one stands for fewer. */
static bool copy_group(const struct plan_search *search, struct plan_shapes *shapes,
                       const struct plan_group *from, uint32_t copy, struct plan_group *group)
{
    const struct plan_scale *scale = search->scale;
    *group = *from;
    group->shape = NULL;
    for (uint32_t i = 0; i < from->part_count; i++) {
        const struct ts_cell *cell = &scale->cluster->cells[from->parts[i].cell];
        uint32_t at = scale->first[cell->node] + copy;
        if (at >= scale->first[cell->node + 1])
            return false;
        struct plan_part part = from->parts[i];
        part.cell = cell_in(search->problem->cluster, scale->real[at], cell->type);
        uint32_t k = i;
        for (; k > 0 && group->parts[k - 1].cell > part.cell; k--)
            group->parts[k] = group->parts[k - 1];
        group->parts[k] = part;
    }
    return plan_shape_find(shapes, group);
}

static void copy_groups(const struct plan_search *search, struct plan_shapes *shapes,
                        struct plan_state *state)
{
    const struct plan_search *small = search->scale->search;
    for (uint32_t copy = 0; copy < search->problem->cluster->node_count; copy++) {
        for (uint32_t i = 0; i < small->best.count; i++) {
            struct plan_group group;
            if (copy_group(search, shapes, &small->best.groups[i], copy, &group))
                plan_state_add(state, &group);
        }
    }
}

static void expand(struct plan_search *search)
{
    struct plan_state *state = plan_thunder_new_start(search);
    if (!state || search->scale->search->best_objective < 0)
        return;
    copy_groups(search, search->shapes, state);
    plan_thunder_gather(search, state);
}

const struct plan_search *plan_thunder_scale_search(const struct plan_search *search)
{
    return search->scale->search;
}

/* With shapes of its own: asking changes nothing. */
struct ts_plan *plan_thunder_scale_best(const struct plan_search *search)
{
    if (!search->scale || search->scale->search->best_objective < 0)
        return NULL;
    struct plan_shapes *shapes = plan_shapes_new(search->problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    plan_state_init(&state);
    copy_groups(search, shapes, &state);
    struct ts_plan *plan = plan_eval_plan(eval, &state, plan_algorithm_thunder.name);
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return plan;
}

/* One unit of the small search; when it is over, its plan stands as a start. */
void plan_thunder_scale_step(struct plan_search *search)
{
    struct plan_search *small = search->scale->search;
    uint64_t before = small->spent;
    small->effort_most = fmin(small->effort_most, search->effort_most);
    bool done = plan_algorithm_thunder.step(small, 1);
    search->spent += small->spent - before;
    search->evaluations += small->evaluations - search->scale_evaluations;
    search->scale_evaluations = small->evaluations;
    if (done) {
        expand(search);
        plan_thunder_scale_close(search);
    }
}
