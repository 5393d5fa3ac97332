/*
 * `exhaustive`: the optimum of a small cluster, by branch and bound over all states up to symmetry. What
 * makes it exact, and what it leaves out and why:
 *
 * - A state is a set of groups. Devices are decided cell by cell: the lowest cell with undecided devices gets
 *   its next group (any parts, TP degrees and phase that plan_shape.h accepts), or the rest of it stays idle.
 * - Groups that share their lowest cell come in falling order of their kind, so that no order of groups is
 * met twice. The kind names what a group is up to a renaming of equal nodes.
 * - Nodes that can be swapped without changing the cluster are one class. Among those that no group has
 *   touched, a group takes more from an earlier node than from a later one: any other state is a renaming of
 *   one that does. A renaming keeps kinds, so the two rules go together.
 * - A group more never lowers the evaluator's optimum (its flows may be zero). So only states count whose
 * idle devices cannot make another group.
 * - plan_bound_pack.h bounds what decided groups and undecided devices can reach; what does not beat the best
 *   state so far is left out.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/bound/plan_bound_pack.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"

#define CELLS_MAX       12
#define STATES_MAX      4096  /* vectors of counts */
#define OPTIONS_MAX     60000 /* groups */
#define ASSIGNMENTS_MAX 1e14  /* ways to divide the devices, before any pruning */
#define SLACK           1e-9  /* relative: what differs less counts as equal */
#define ROUND_WORK      10    /* units of work of one round of the bound */
#define NODES_PER_WORK  50    /* nodes of the tree that count as one unit of work */
#define GROUPS_MAX      64

struct option {
    struct plan_group group;
    size_t state;  /* of the pack */
    uint32_t item; /* of the pack */
    uint64_t kind;
    double density; /* worth for a device, the same for all options of a kind */
};

struct frame {                /* one decision of the tree: a group, or cell idle */
    size_t rest, idle;        /* undecided and idle devices before it */
    double worth;             /* of the groups before it */
    uint32_t cell, next, end; /* options of this cell that are still to be tried */
    uint64_t touched;         /* nodes before it */
    double last_density;      /* of the group before it when that has the same lowest cell */
    uint64_t last_kind;
    bool follows, idle_tried;
};

struct plan_search {
    const struct plan_problem *problem;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    struct plan_bound_pack *pack;
    struct plan_bound_ideal ideal;
    struct plan_bound_item **items; /* by id of the shape; NULL = not made */
    uint32_t *item_numbers;
    size_t item_capacity, number_capacity;
    uint32_t classes[TS_CLUSTER_NODES_MAX]; /* of nodes: the first one that it can be swapped with */
    struct option *options;                 /* by lowest cell, then by falling density, kind */
    size_t option_count, option_capacity;
    uint32_t first[CELLS_MAX + 1]; /* options of each lowest cell */
    bool *hosts;                   /* by state: some group fits in these devices */
    bool bounded;
    struct frame frames[GROUPS_MAX + CELLS_MAX + 1];
    uint32_t chosen[GROUPS_MAX + CELLS_MAX + 1]; /* option of each frame; UINT32_MAX = idle */
    uint32_t depth;
    bool done;
    struct plan_state state, best_state;
    double best;
    uint64_t work, target, nodes, leaves;
};

/* --- Nodes that are equal --- */

static bool same_link(const struct ts_link *a, const struct ts_link *b)
{
    return a->bytes_per_s == b->bytes_per_s && a->latency_s == b->latency_s;
}

static uint32_t cells_of_node(const struct ts_cluster *cluster, uint32_t node, uint32_t *first)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster->cell_count; ++i) {
        if (cluster->cells[i].node != node)
            continue;
        if (count++ == 0)
            *first = i;
    }
    return count;
}

static bool same_devices(const struct ts_cluster *cluster, uint32_t a, uint32_t b)
{
    uint32_t at_a = 0, at_b = 0, count = cells_of_node(cluster, a, &at_a);
    if (count != cells_of_node(cluster, b, &at_b))
        return false;
    for (uint32_t i = 0; i < count; ++i) {
        const struct ts_cell *x = &cluster->cells[at_a + i], *y = &cluster->cells[at_b + i];
        if (x->type != y->type || x->count != y->count ||
            !same_link(ts_cluster_inner(cluster, a, x->type), ts_cluster_inner(cluster, b, y->type)))
            return false;
    }
    return cluster->nodes[a].nic_in_bytes_per_s == cluster->nodes[b].nic_in_bytes_per_s &&
           cluster->nodes[a].nic_out_bytes_per_s == cluster->nodes[b].nic_out_bytes_per_s;
}

static bool swappable(const struct ts_cluster *cluster, uint32_t a, uint32_t b)
{
    if (!same_devices(cluster, a, b) ||
        !same_link(ts_cluster_link(cluster, a, b), ts_cluster_link(cluster, b, a)))
        return false;
    for (uint32_t n = 0; n < cluster->node_count; ++n) {
        if (n == a || n == b)
            continue;
        if (!same_link(ts_cluster_link(cluster, a, n), ts_cluster_link(cluster, b, n)) ||
            !same_link(ts_cluster_link(cluster, n, a), ts_cluster_link(cluster, n, b)))
            return false;
    }
    return true;
}

static void find_classes(struct plan_search *search)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    for (uint32_t n = 0; n < cluster->node_count; ++n) {
        search->classes[n] = n;
        for (uint32_t m = 0; m < n && search->classes[n] == n; ++m) {
            if (search->classes[m] == m && swappable(cluster, m, n))
                search->classes[n] = m;
        }
    }
}

/* --- All groups --- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What stays of a group when equal nodes are renamed. Parts of one node belong together: they are sorted
 * inside it, then nodes are. */
static uint64_t kind_of(const struct plan_search *search, const struct plan_group *group)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    uint64_t nodes[PLAN_PARTS_MAX] = {0}, hash = (uint64_t)group->phase;
    uint32_t count = 0, last = UINT32_MAX;
    for (uint32_t i = 0; i < group->part_count; ++i) { /* by cell, so by node and type */
        const struct plan_part *part = &group->parts[i];
        const struct ts_cell *cell = &cluster->cells[part->cell];
        if (cell->node != last)
            nodes[count++] = search->classes[cell->node];
        last = cell->node;
        uint64_t word = ((uint64_t)cell->type << 16) | ((uint64_t)part->count << 8) | part->tp;
        nodes[count - 1] = nodes[count - 1] * UINT64_C(0x9e3779b97f4a7c15) + word + 1;
        nodes[count - 1] ^= nodes[count - 1] >> 29;
    }
    qsort(nodes, count, sizeof *nodes, compare_u64);
    for (uint32_t i = 0; i < count; ++i) {
        hash = (hash ^ nodes[i]) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    return hash;
}

static uint32_t item_of(struct plan_search *search, const struct plan_shape *shape)
{
    size_t known = search->item_capacity;
    ts_array_reserve((void **)&search->items, &search->item_capacity, shape->id + 1, sizeof *search->items);
    ts_array_reserve((void **)&search->item_numbers, &search->number_capacity, shape->id + 1,
                     sizeof *search->item_numbers);
    for (size_t i = known; i < search->item_capacity; ++i)
        search->items[i] = NULL;
    if (search->items[shape->id] == NULL) {
        struct plan_bound_item *item = ts_xcalloc(1, sizeof *item);
        plan_bound_item_init(item, shape->phase);
        plan_bound_item_add(item, search->problem, &search->ideal, shape);
        search->items[shape->id] = item;
        search->item_numbers[shape->id] = plan_bound_pack_item(search->pack, item);
    }
    return search->item_numbers[shape->id];
}

static void add_option(struct plan_search *search, struct plan_group *group, size_t state)
{
    static const enum ts_phase phases[] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_BOTH};
    for (size_t i = 0; i < (search->problem->colocate ? 3 : 2); ++i) {
        group->phase = phases[i];
        if (search->option_count > OPTIONS_MAX || !plan_shape_find(search->shapes, group))
            continue;
        ts_array_reserve((void **)&search->options, &search->option_capacity, search->option_count + 1,
                         sizeof *search->options);
        uint32_t item = item_of(search, group->shape);
        search->options[search->option_count++] =
            (struct option){.group = *group, .state = state, .item = item, .kind = kind_of(search, group)};
        plan_bound_pack_add(search->pack, state, item);
    }
}

/* All ways to have the rest of this cell's devices, and of the cells after it, in stages of TP up to `tp`. */
static void add_options(struct plan_search *search, const struct plan_group *group, uint32_t cell,
                        uint32_t left, uint32_t tp, size_t state)
{
    const uint8_t *digits = plan_bound_pack_digits(search->pack, state);
    while (left == 0 && ++cell < search->problem->cluster->cell_count) {
        left = digits[cell];
        tp = TS_TP_MAX;
    }
    if (left == 0) {
        struct plan_group whole = *group;
        add_option(search, &whole, state);
        return;
    }
    if (group->part_count == PLAN_PARTS_MAX)
        return;
    if (tp > 1)
        add_options(search, group, cell, left, tp / 2, state);
    for (uint32_t count = tp; count <= left; count += tp) {
        if (tp == 1 && count < left)
            continue;
        struct plan_group more = *group;
        more.parts[more.part_count++] =
            (struct plan_part){.cell = (uint16_t)cell, .count = (uint8_t)count, .tp = (uint8_t)tp};
        if (tp > 1 || count == left)
            add_options(search, &more, cell, left - count, tp > 1 ? tp / 2 : 1, state);
    }
}

static void find_options(struct plan_search *search)
{
    for (size_t state = 1; state < plan_bound_pack_states(search->pack); ++state) {
        struct plan_group group = {.phase = TS_PHASE_NONE};
        uint32_t first = plan_bound_pack_digits(search->pack, state)[0];
        add_options(search, &group, 0, first, TS_TP_MAX, state);
    }
}

static bool within(const struct plan_search *search, size_t part, size_t whole)
{
    const uint8_t *a = plan_bound_pack_digits(search->pack, part);
    const uint8_t *b = plan_bound_pack_digits(search->pack, whole);
    for (uint32_t c = 0; c < search->problem->cluster->cell_count; ++c) {
        if (a[c] > b[c])
            return false;
    }
    return true;
}

static void find_hosts(struct plan_search *search)
{
    size_t states = plan_bound_pack_states(search->pack);
    search->hosts = ts_xcalloc(states, sizeof *search->hosts);
    for (size_t i = 0; i < search->option_count; ++i)
        search->hosts[search->options[i].state] = true;
    for (size_t s = 0; s < states; ++s) {
        for (size_t i = 0; i < s && !search->hosts[s]; ++i)
            search->hosts[s] = search->hosts[i] && within(search, i, s);
    }
}

/* Sets of groups that fit in the cluster together, up to order: what there would be to evaluate. */
static double count_assignments(const struct plan_search *search)
{
    size_t states = plan_bound_pack_states(search->pack);
    double *ways = ts_xcalloc(states, sizeof *ways), sum = 0;
    ways[0] = 1;
    for (size_t i = 0; i < search->option_count; ++i) {
        size_t part = search->options[i].state;
        for (size_t s = part; s < states; ++s) {
            if (within(search, part, s))
                ways[s] += ways[s - part];
        }
    }
    for (size_t s = 0; s < states; ++s)
        sum += ways[s];
    ts_free(ways);
    return sum;
}

/* --- Order of the options --- */

static uint32_t lowest_cell(const struct option *option)
{
    return option->group.parts[0].cell;
}

static int compare_options(const void *a, const void *b)
{
    const struct option *x = a, *y = b;
    uint32_t cell_x = lowest_cell(x), cell_y = lowest_cell(y);
    if (cell_x != cell_y)
        return cell_x < cell_y ? -1 : 1;
    if (x->density != y->density)
        return x->density > y->density ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind > y->kind ? -1 : 1;
    return (x->state > y->state) - (x->state < y->state);
}

static int compare_kinds(const void *a, const void *b)
{
    const struct option *x = a, *y = b;
    return (x->kind > y->kind) - (x->kind < y->kind);
}

/* One density for a kind, so that the order of options is an order of kinds. */
static void sort_options(struct plan_search *search)
{
    qsort(search->options, search->option_count, sizeof *search->options, compare_kinds);
    for (size_t i = 0; i < search->option_count; ++i) {
        struct option *option = &search->options[i];
        bool same = i > 0 && search->options[i - 1].kind == option->kind;
        option->density = same
                              ? search->options[i - 1].density
                              : plan_bound_pack_worth(search->pack, option->item) / option->group.shape->gpus;
    }
    qsort(search->options, search->option_count, sizeof *search->options, compare_options);
    uint32_t at = 0;
    for (uint32_t c = 0; c <= search->problem->cluster->cell_count; ++c) {
        while (at < search->option_count && lowest_cell(&search->options[at]) < c)
            ++at;
        search->first[c] = at;
    }
}

/* --- The tree --- */

static double reach(const struct plan_search *search, double worth)
{
    double value = plan_bound_pack_base(search->pack) + worth;
    return search->problem->objective == PLAN_GOODPUT ? value
                                                      : value / ts_demand_rate(search->problem->demand);
}

static bool hopeless(const struct plan_search *search, double worth)
{
    return reach(search, worth) <= search->best * (1 + SLACK);
}

static void open_frame(struct plan_search *search, const struct frame *from)
{
    const uint8_t *digits = plan_bound_pack_digits(search->pack, from->rest);
    struct frame *frame = &search->frames[search->depth++];
    *frame = *from;
    uint32_t cell = 0;
    while (digits[cell] == 0)
        ++cell;
    frame->follows = from->follows && cell == from->cell;
    frame->cell = cell;
    frame->next = search->first[cell];
    frame->end = search->first[cell + 1];
    frame->idle_tried = false;
}

/* More from an earlier node than from a later one of its class, where no group has touched them. */
static bool in_canonical_nodes(const struct plan_search *search, const struct option *option,
                               uint64_t touched)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    const uint8_t *digits = plan_bound_pack_digits(search->pack, option->state);
    for (uint32_t n = 0; n < cluster->node_count; ++n) {
        for (uint32_t m = 0; m < n; ++m) {
            if (search->classes[n] != search->classes[m] || ((touched >> n) & 1) != 0 ||
                ((touched >> m) & 1) != 0)
                continue;
            uint32_t at_m = 0, at_n = 0, cells = cells_of_node(cluster, m, &at_m);
            (void)cells_of_node(cluster, n, &at_n);
            if (memcmp(digits + at_m, digits + at_n, cells) < 0)
                return false;
        }
    }
    return true;
}

static uint64_t touched_by(const struct plan_search *search, const struct plan_group *group)
{
    uint64_t touched = 0;
    for (uint32_t i = 0; i < group->part_count; ++i)
        touched |= UINT64_C(1) << search->problem->cluster->cells[group->parts[i].cell].node;
    return touched;
}

static void judge(struct plan_search *search, double worth)
{
    bool prefill = false, decode = false;
    for (uint32_t i = 0; i < search->depth; ++i) {
        if (search->chosen[i] == UINT32_MAX)
            continue;
        enum ts_phase phase = search->options[search->chosen[i]].group.phase;
        prefill = prefill || (phase & TS_PHASE_PREFILL) != 0;
        decode = decode || (phase & TS_PHASE_DECODE) != 0;
    }
    if (!prefill || !decode || hopeless(search, worth))
        return;
    search->state.count = 0;
    for (uint32_t i = 0; i < search->depth; ++i) {
        if (search->chosen[i] != UINT32_MAX)
            (void)plan_state_add(&search->state, &search->options[search->chosen[i]].group);
    }
    uint64_t before = plan_eval_work(search->eval);
    double objective = plan_eval_run(search->eval, &search->state, NULL);
    search->work += plan_eval_work(search->eval) - before;
    ++search->leaves;
    if (objective > search->best) {
        search->best = objective;
        plan_state_copy(&search->best_state, &search->state);
    }
}

/* The frame on top has just chosen: goes deeper, or judges when all devices are decided. */
static void descend(struct plan_search *search, struct frame next)
{
    if (next.rest != 0)
        open_frame(search, &next);
    else if (!search->hosts[next.idle])
        judge(search, next.worth);
}

static bool try_option(struct plan_search *search, struct frame *frame, uint32_t index)
{
    const struct option *option = &search->options[index];
    if (!within(search, option->state, frame->rest))
        return false;
    if (frame->follows && (option->density > frame->last_density ||
                           (option->density == frame->last_density && option->kind > frame->last_kind)))
        return false;
    double worth = frame->worth + plan_bound_pack_worth(search->pack, option->item);
    size_t rest = frame->rest - option->state;
    if (hopeless(search, worth + plan_bound_pack_most(search->pack, rest)) ||
        !in_canonical_nodes(search, option, frame->touched))
        return false;
    search->chosen[search->depth - 1] = index;
    struct frame next = {.rest = rest,
                         .idle = frame->idle,
                         .worth = worth,
                         .cell = frame->cell,
                         .touched = frame->touched | touched_by(search, &option->group),
                         .last_density = option->density,
                         .last_kind = option->kind,
                         .follows = true};
    descend(search, next);
    return true;
}

/* All devices of the cell that are undecided stay idle. */
static void try_idle(struct plan_search *search, struct frame *frame)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    uint32_t counts[PLAN_PACK_DIMS_MAX] = {0};
    counts[frame->cell] = plan_bound_pack_digits(search->pack, frame->rest)[frame->cell];
    size_t left = plan_bound_pack_state(search->pack, counts);
    struct frame next = *frame;
    next.rest -= left;
    next.idle += left;
    next.touched |= UINT64_C(1) << cluster->cells[frame->cell].node;
    next.follows = false;
    frame->idle_tried = true;
    search->chosen[search->depth - 1] = UINT32_MAX;
    if (!search->hosts[next.idle] &&
        !hopeless(search, next.worth + plan_bound_pack_most(search->pack, next.rest)))
        descend(search, next);
}

static void walk(struct plan_search *search)
{
    struct frame *frame = &search->frames[search->depth - 1];
    if (++search->nodes % NODES_PER_WORK == 0)
        ++search->work;
    if (search->problem->objective == PLAN_ATTAINMENT && search->best >= 1 - SLACK) {
        search->depth = 0;
        return;
    }
    while (frame->next < frame->end) {
        if (try_option(search, frame, frame->next++))
            return;
    }
    if (!frame->idle_tried)
        try_idle(search, frame);
    else
        --search->depth;
}

static void start_tree(struct plan_search *search)
{
    plan_bound_pack_settle(search->pack);
    sort_options(search);
    search->bounded = true;
    struct frame root = {.rest = plan_bound_pack_states(search->pack) - 1};
    if (root.rest != 0)
        open_frame(search, &root);
}

/* --- The table entry --- */

static void exhaustive_close(struct plan_search **search)
{
    struct plan_search *s = *search;
    if (s == NULL)
        return;
    plan_state_fini(&s->state);
    plan_state_fini(&s->best_state);
    plan_bound_pack_destroy(&s->pack);
    for (size_t i = 0; i < s->item_capacity; ++i) {
        if (s->items[i] != NULL)
            plan_bound_item_fini(s->items[i]);
        ts_free(s->items[i]);
    }
    ts_free(s->items);
    ts_free(s->item_numbers);
    plan_eval_destroy(&s->eval);
    plan_shapes_destroy(&s->shapes);
    ts_free(s->options);
    ts_free(s->hosts);
    ts_free(s);
    *search = NULL;
}

static enum ts_status refuse(const struct plan_search *search, struct ts_error *err)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    if (search->problem->depth != PLAN_REGROUP)
        return ts_error_set(err, TS_EINVAL, "exhaustive: it forms all groups anew; ask for depth regroup");
    if (search->pack == NULL)
        return ts_error_set(
            err, TS_EINVAL,
            "exhaustive: %u devices in %u cells are too many to enumerate (up to %d cells and %d "
            "vectors of counts); use thunder",
            cluster->gpu_count, cluster->cell_count, CELLS_MAX, STATES_MAX);
    double ways = count_assignments(search);
    if (search->option_count > OPTIONS_MAX || ways > ASSIGNMENTS_MAX)
        return ts_error_set(
            err, TS_EINVAL,
            "exhaustive: about %.1e states of %zu groups are too many to enumerate (up to %.0e); "
            "use thunder",
            ways, search->option_count, ASSIGNMENTS_MAX);
    return TS_OK;
}

static struct plan_search *exhaustive_open(const struct plan_problem *problem, struct ts_error *err)
{
    const struct ts_cluster *cluster = problem->cluster;
    struct plan_search *search = ts_xcalloc(1, sizeof *search);
    search->problem = problem;
    search->best = 0;
    plan_state_init(&search->state);
    plan_state_init(&search->best_state);
    uint32_t counts[CELLS_MAX] = {0};
    if (problem->depth == PLAN_REGROUP && cluster->cell_count <= CELLS_MAX && cluster->node_count <= 64) {
        for (uint32_t c = 0; c < cluster->cell_count; ++c)
            counts[c] = cluster->cells[c].count;
        search->pack = plan_bound_pack_new(problem, counts, cluster->cell_count, STATES_MAX);
    }
    if (search->pack != NULL) {
        search->shapes = plan_shapes_new(problem);
        search->eval = plan_eval_new(search->shapes);
        plan_bound_ideal_init(&search->ideal, problem);
        find_classes(search);
        find_options(search);
    }
    if (refuse(search, err) != TS_OK) {
        exhaustive_close(&search);
        return NULL;
    }
    find_hosts(search);
    return search;
}

static bool exhaustive_step(struct plan_search *search, uint64_t budget)
{
    search->target = search->target + budget >= budget ? search->target + budget : UINT64_MAX;
    while (!search->done && search->work < search->target) {
        if (!search->bounded && search->option_count > 0) {
            search->work += ROUND_WORK;
            if (plan_bound_pack_round(search->pack))
                start_tree(search);
        } else if (search->depth > 0) {
            walk(search);
        } else {
            search->done = true;
        }
    }
    return search->done;
}

static struct ts_plan *exhaustive_best(struct plan_search *search)
{
    if (search->best_state.count == 0)
        return NULL;
    struct ts_plan *plan = plan_eval_plan(search->eval, &search->best_state, "exhaustive");
    if (search->done)
        plan->bound = plan->objective;
    else if (plan_bound_pack_value(search->pack) < INFINITY)
        plan->bound = fmax(plan->objective, plan_bound_pack_value(search->pack));
    return plan;
}

static void exhaustive_describe(const struct plan_search *search, char *out, size_t size)
{
    (void)snprintf(out, size,
                   "groups %zu, nodes %" PRIu64 ", evaluations %" PRIu64 ", best %.6g, bound %.6g%s",
                   search->option_count, search->nodes, search->leaves, search->best,
                   plan_bound_pack_value(search->pack), search->done ? ", finished" : "");
}

const struct plan_algorithm plan_algorithm_exhaustive = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "exhaustive",
    .summary = "all plans of a small cluster up to symmetry, by branch and bound: the optimum",
    .open = exhaustive_open,
    .step = exhaustive_step,
    .best = exhaustive_best,
    .describe = exhaustive_describe,
    .close = exhaustive_close,
};
