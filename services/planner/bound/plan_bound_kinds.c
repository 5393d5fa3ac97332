#include "services/planner/bound/plan_bound_kinds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define STAGES_DEFAULT 8
#define KINDS_MAX      120 /* stages are numbered by bytes, blends too */
#define LINKS_SEEN_MAX 256
#define MEETS_MORE     8 /* sequences beyond the mean batch that a request may meet, beside half of it */

static uint32_t make_of(struct plan_bound_kinds *kinds, const struct ts_cell *cell,
                        const struct ts_link *inner)
{
    for (uint32_t i = 0; i < kinds->make_count; ++i) {
        const struct plan_bound_make *make = &kinds->makes[i];
        if (make->type == cell->type && make->inner.bytes_per_s == inner->bytes_per_s &&
            make->inner.latency_s == inner->latency_s)
            return i;
    }
    kinds->makes[kinds->make_count] = (struct plan_bound_make){.type = cell->type, .inner = *inner};
    return kinds->make_count++;
}

static void find_makes(struct plan_bound_kinds *kinds)
{
    const struct ts_cluster *cluster = kinds->problem->cluster;
    kinds->makes = ts_xcalloc(cluster->cell_count + 1, sizeof *kinds->makes);
    for (uint32_t i = 0; i < cluster->cell_count; ++i) {
        const struct ts_cell *cell = &cluster->cells[i];
        uint32_t make = make_of(kinds, cell, ts_cluster_inner(cluster, cell->node, cell->type));
        for (uint32_t t = 0; t < PLAN_BOUND_TPS; ++t)
            kinds->makes[make].slots[t] += cell->count >> t;
    }
}

static void find_kinds(struct plan_bound_kinds *kinds)
{
    const struct plan_problem *problem = kinds->problem;
    kinds->kinds = ts_xcalloc((size_t)kinds->make_count * PLAN_BOUND_TPS * 2 + 1, sizeof *kinds->kinds);
    for (uint32_t i = 0; i < kinds->make_count; ++i) {
        const struct plan_bound_make *make = &kinds->makes[i];
        for (uint32_t t = 0; t < PLAN_BOUND_TPS && kinds->kind_count < KINDS_MAX; ++t) {
            bool linked = make->inner.bytes_per_s > 0 || t == 0;
            if (make->slots[t] == 0 || problem->model->heads % (1u << t) != 0 || !linked)
                continue;
            struct plan_bound_kind *kind = &kinds->kinds[kinds->kind_count];
            *kind = (struct plan_bound_kind){
                .make = i, .tp = (uint8_t)(1u << t), .tp_log2 = (uint8_t)t, .slots = make->slots[t]};
            kind->members[kinds->kind_count / 64] = UINT64_C(1) << (kinds->kind_count % 64);
            ++kinds->kind_count;
            kind->unit.type = (uint16_t)make->type;
            kind->unit.tp = kind->tp;
            plan_unit_init(&kind->unit, problem->cluster, problem->model, &kinds->mix,
                           t > 0 ? &make->inner : NULL);
        }
    }
}

static int by_speed(const void *a, const void *b)
{
    const struct ts_link *x = a, *y = b;
    return (x->bytes_per_s < y->bytes_per_s) - (x->bytes_per_s > y->bytes_per_s);
}

static uint32_t add_link(struct ts_link *seen, uint32_t count, const struct ts_link *link)
{
    bool known = !(link->bytes_per_s > 0) || count == LINKS_SEEN_MAX;
    for (uint32_t i = 0; i < count && !known; ++i)
        known = seen[i].bytes_per_s == link->bytes_per_s && seen[i].latency_s == link->latency_s;
    if (!known)
        seen[count++] = *link;
    return count;
}

/* The best of all in both respects; then the median and the slowest between nodes: a slower pipeline never
 * does better, but its operating points lie elsewhere. */
static void find_links(struct plan_bound_kinds *kinds)
{
    const struct ts_cluster *cluster = kinds->problem->cluster;
    struct ts_link *seen = ts_xcalloc(LINKS_SEEN_MAX, sizeof *seen);
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster->node_count; ++i) {
        for (uint32_t j = 0; j < cluster->node_count; ++j) {
            if (i != j)
                count = add_link(seen, count, ts_cluster_link(cluster, i, j));
        }
    }
    qsort(seen, count, sizeof *seen, by_speed);
    struct ts_link best = plan_bound_best_link(cluster);
    kinds->links[kinds->link_count++] = best;
    if (count > 0)
        kinds->links[kinds->link_count++] = seen[count / 2];
    if (count > 1)
        kinds->links[kinds->link_count++] = seen[count - 1];
    ts_free(seen);
}

/* --- Blends --- */

/* How much one unit is ahead of the other at most, in what matters most. */
static double unlikeness(const struct plan_unit *a, const struct plan_unit *b)
{
    const double x[] = {a->busy[0], a->grid[0], a->grid[4 * PLAN_GRID_OCTAVE], a->grid[7 * PLAN_GRID_OCTAVE],
                        1 / a->usable_bytes};
    const double y[] = {b->busy[0], b->grid[0], b->grid[4 * PLAN_GRID_OCTAVE], b->grid[7 * PLAN_GRID_OCTAVE],
                        1 / b->usable_bytes};
    double most = 1;
    for (size_t i = 0; i < sizeof x / sizeof *x; ++i)
        most = fmax(most, fmax(x[i] / y[i], y[i] / x[i]));
    return most;
}

static void least_of(double *into, const double *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; ++i)
        into[i] = fmin(into[i], from[i]);
}

/* Kinds of one TP degree have equal shares of the weights, so the one with more memory holds more of both. */
static void best_of(struct plan_unit *into, const struct plan_unit *from)
{
    into->usable_bytes = fmax(into->usable_bytes, from->usable_bytes);
    into->step_s = fmin(into->step_s, from->step_s);
    into->batch_prefill = fmin(into->batch_prefill, from->batch_prefill);
    into->head_alone = fmin(into->head_alone, from->head_alone);
    into->context_s = fmin(into->context_s, from->context_s);
    least_of(into->prefill, from->prefill, TS_CLASSES_MAX);
    least_of(into->busy, from->busy, TS_CLASSES_MAX);
    least_of(into->step_share, from->step_share, TS_CLASSES_MAX);
    least_of(into->head_busy, from->head_busy, TS_CLASSES_MAX);
    least_of(into->grid, from->grid, PLAN_GRID_COUNT);
    least_of(into->head, from->head, PLAN_GRID_COUNT);
}

/* Joins the two most alike roots of a tree; false when no two have one TP degree. */
static bool join_closest(struct plan_bound_kinds *kinds, bool *joined)
{
    uint32_t count = kinds->kind_count + kinds->blend_count, parts[2] = {0, 0};
    double least = INFINITY;
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t j = 0; j < i; ++j) {
            const struct plan_bound_kind *a = &kinds->kinds[i], *b = &kinds->kinds[j];
            if (joined[i] || joined[j] || a->tp != b->tp)
                continue;
            double between = unlikeness(&a->unit, &b->unit);
            if (between < least) {
                least = between;
                parts[0] = j;
                parts[1] = i;
            }
        }
    }
    if (isinf(least))
        return false;
    struct plan_bound_kind *blend = &kinds->kinds[count], *first = &kinds->kinds[parts[0]];
    const struct plan_bound_kind *second = &kinds->kinds[parts[1]];
    *blend = *first;
    blend->make = PLAN_BOUND_BLEND;
    blend->slots += second->slots;
    blend->unlikeness = least;
    best_of(&blend->unit, &second->unit);
    for (int i = 0; i < 2; ++i) {
        blend->parts[i] = parts[i];
        blend->members[i] |= second->members[i];
        joined[parts[i]] = true;
    }
    ++kinds->blend_count;
    return true;
}

static void find_blends(struct plan_bound_kinds *kinds)
{
    bool joined[2 * KINDS_MAX] = {false};
    while (join_closest(kinds, joined)) {
    }
    for (uint32_t i = 0; i < kinds->kind_count + kinds->blend_count; ++i) {
        if (!joined[i])
            kinds->roots[kinds->root_count++] = i;
    }
}

void plan_bound_kinds_init(struct plan_bound_kinds *kinds, const struct plan_problem *problem)
{
    memset(kinds, 0, sizeof *kinds);
    kinds->problem = problem;
    kinds->max_stages = problem->max_stages > 0 ? problem->max_stages : STAGES_DEFAULT;
    plan_mix_init(&kinds->mix, problem->model, problem->demand);
    plan_bound_ideal_init(&kinds->ideal, problem);
    find_makes(kinds);
    find_kinds(kinds);
    find_links(kinds);
    find_blends(kinds);
}

void plan_bound_kinds_fini(struct plan_bound_kinds *kinds)
{
    ts_free(kinds->makes);
    ts_free(kinds->kinds);
    memset(kinds, 0, sizeof *kinds);
}

bool plan_bound_kinds_rows(const struct plan_bound_kinds *kinds, const uint8_t *stages, uint32_t count,
                           uint32_t *rows)
{
    bool fit = true;
    memset(rows, 0, (size_t)kinds->make_count * PLAN_BOUND_TPS * sizeof *rows);
    for (uint32_t i = 0; i < count; ++i) {
        const struct plan_bound_kind *kind = &kinds->kinds[stages[i]];
        for (uint32_t t = 0; t <= kind->tp_log2; ++t) {
            uint32_t *row = &rows[kind->make * PLAN_BOUND_TPS + t];
            *row += (uint32_t)kind->tp >> t;
            fit = fit && *row <= kinds->makes[kind->make].slots[t];
        }
    }
    return fit;
}

/* --- Replicas --- */

struct maker {
    const struct plan_bound_kinds *kinds;
    struct plan_bound_item *item;
    struct plan_pipe pipe;
    struct plan_draft draft;
    /* Of unlike stages: their units, and one unit that stands for all of them. */
    const struct plan_unit *units[TS_STAGES_MAX];
    const uint64_t *members[TS_STAGES_MAX];
    struct plan_unit common;
};

static void add_draft(struct maker *maker)
{
    const struct plan_bound_kinds *kinds = maker->kinds;
    struct plan_draft *draft = &maker->draft;
    for (uint32_t i = 0; i < draft->shape.point_count; ++i) {
        draft->points[i].prefill = draft->shares[i][0];
        draft->points[i].compute = draft->shares[i][1];
        draft->points[i].memory = draft->shares[i][2];
    }
    draft->shape.points = draft->points;
    plan_bound_item_add(maker->item, kinds->problem, &kinds->ideal, &draft->shape);
}

static bool make_points(struct maker *maker, const struct plan_mix *mix)
{
    const struct plan_bound_kinds *kinds = maker->kinds;
    if (plan_pipe_kv_tokens(&maker->pipe) < plan_mix_held(mix, maker->pipe.phase, false))
        return false;
    plan_points_make(&maker->pipe, mix, kinds->problem->demand, &maker->draft);
    return true;
}

static void set_hops(struct maker *maker, const struct ts_link *link)
{
    double bytes = ts_cost_hop_bytes(maker->kinds->problem->model, 1);
    for (uint32_t i = 0; i + 1 < maker->pipe.count; ++i) {
        maker->pipe.ranks[i].hop_latency_s = link->latency_s;
        maker->pipe.ranks[i].hop_token_s = link->bytes_per_s > 0 ? bytes / link->bytes_per_s : 0;
    }
}

/* Equal stages: the pipelines that plan_shape.h makes of them, on each of the links. */
static void add_equal(struct maker *maker, const struct plan_unit *unit)
{
    const struct plan_bound_kinds *kinds = maker->kinds;
    uint16_t splits[2 * PLAN_SPLITS_MAX][TS_STAGES_MAX];
    enum ts_phase phase = maker->pipe.phase;
    uint32_t count = 0;
    for (uint32_t i = 0; i < maker->pipe.count; ++i)
        maker->pipe.ranks[i] = (struct plan_rank){.unit = unit};
    if (phase & TS_PHASE_DECODE)
        count += plan_layers_decode(&maker->pipe, &kinds->mix, phase == TS_PHASE_BOTH ? 0.5 : 1, splits);
    if (phase & TS_PHASE_PREFILL)
        count += plan_layers_prefill(&maker->pipe, &kinds->mix, splits + count);
    uint32_t links = maker->pipe.count > 1 ? kinds->link_count : 1;
    for (uint32_t l = 0; l < links && count > 0; ++l) {
        set_hops(maker, &kinds->links[l]);
        for (uint32_t i = 0; i < count; ++i) {
            for (uint32_t r = 0; r < maker->pipe.count; ++r)
                maker->pipe.ranks[r].layers = splits[i][r];
            if (make_points(maker, &kinds->mix))
                add_draft(maker);
        }
    }
}

/*
 * Unlike stages. If stage s takes t_s for a layer and f_s besides, and the last one h_s for the head, a cut
 * of L layers whose slowest stage takes T has (T - f_s) / t_s layers at most in stage s. They add up to L, so
 *
 *     T >= (L + sum f_s / t_s + min h_s / t_s) / sum 1 / t_s
 *
 * for every cut and order: that of equal stages in which each takes this time for its one share.
 */
struct common_time {
    double speeds, fixed, head;
};

static struct common_time common_time(void)
{
    return (struct common_time){.head = INFINITY};
}

static void join_time(struct common_time *sum, double layer, double fixed, double head)
{
    sum->speeds += 1 / layer;
    sum->fixed += fixed / layer;
    sum->head = fmin(sum->head, head / layer);
}

static double time_of(const struct common_time *sum, double layers)
{
    return (layers + sum->fixed + sum->head) / sum->speeds;
}

static void join_prefill(struct maker *maker)
{
    for (uint32_t k = 0; k < maker->kinds->mix.classes; ++k) {
        struct common_time alone = common_time(), busy = common_time();
        for (uint32_t i = 0; i < maker->pipe.count; ++i) {
            const struct plan_unit *unit = maker->units[i];
            join_time(&alone, unit->prefill[k], unit->step_s, unit->head_alone);
            join_time(&busy, unit->busy[k], unit->step_share[k], unit->head_busy[k]);
        }
        maker->common.prefill[k] = time_of(&alone, maker->kinds->problem->model->layers);
        maker->common.busy[k] = time_of(&busy, maker->kinds->problem->model->layers);
    }
    double batch = INFINITY;
    for (uint32_t i = 0; i < maker->pipe.count; ++i)
        batch = fmin(batch, maker->units[i]->batch_prefill);
    maker->common.batch_prefill = batch * maker->kinds->problem->model->layers / maker->pipe.count;
}

/* The whole step at the mean context; of that, the part by context as the fastest stage has it. */
static void join_decode(struct maker *maker)
{
    double context = maker->kinds->mix.mean_context, layers = maker->kinds->problem->model->layers;
    double least = INFINITY;
    for (uint32_t i = 0; i < maker->pipe.count; ++i)
        least = fmin(least, maker->units[i]->context_s);
    maker->common.context_s = least * layers / maker->pipe.count;
    for (uint32_t j = 0; j < PLAN_GRID_COUNT; ++j) {
        double batch = plan_grid_knot(j);
        struct common_time step = common_time();
        for (uint32_t i = 0; i < maker->pipe.count; ++i) {
            const struct plan_unit *unit = maker->units[i];
            join_time(&step, unit->grid[j] + unit->context_s * batch * context, unit->step_s, unit->head[j]);
        }
        maker->common.grid[j] = time_of(&step, layers) - maker->common.context_s * batch * context;
    }
}

/* Most tokens of KV over all cuts: those at which the stages just hold all layers. */
static double join_memory(const struct maker *maker)
{
    double low = 0, high = 1e12, layers = maker->kinds->problem->model->layers;
    for (int round = 0; round < 100 && high - low > 1e-9 * high; ++round) {
        double tokens = (low + high) / 2, held = 0;
        for (uint32_t i = 0; i < maker->pipe.count; ++i)
            held += maker->units[i]->usable_bytes /
                    (maker->units[i]->layer_bytes + tokens * maker->units[i]->kv_bytes);
        if (held >= layers)
            low = tokens;
        else
            high = tokens;
    }
    return high;
}

/* Least time of one prompt alone: the fastest stages hold as many layers as they can. */
static double least_latency(const struct maker *maker, uint32_t k)
{
    const struct plan_bound_kinds *kinds = maker->kinds;
    double tokens = plan_mix_held(&kinds->mix, maker->pipe.phase, false),
           layers = kinds->problem->model->layers;
    double sum = 0, head = INFINITY;
    bool used[TS_STAGES_MAX] = {false};
    for (uint32_t i = 0; i < maker->pipe.count; ++i) {
        sum += maker->units[i]->step_s;
        head = fmin(head, maker->units[i]->head_alone);
    }
    for (uint32_t round = 0; round < maker->pipe.count && layers > 0; ++round) {
        uint32_t best = 0;
        while (used[best])
            ++best;
        for (uint32_t i = best + 1; i < maker->pipe.count; ++i) {
            if (!used[i] && maker->units[i]->prefill[k] < maker->units[best]->prefill[k])
                best = i;
        }
        const struct plan_unit *unit = maker->units[best];
        double most = fmin(layers, unit->usable_bytes / (unit->layer_bytes + tokens * unit->kv_bytes));
        sum += most * unit->prefill[k];
        layers -= most;
        used[best] = true;
    }
    return sum + head;
}

/* Which share of one more sequence's time is context, per token, differs between stages; the kinds of a blend
 * count for it. */
struct share_range {
    double least, most;
};

static struct share_range context_shares(const struct maker *maker, double micro)
{
    const struct plan_bound_kinds *kinds = maker->kinds;
    struct plan_knot near = plan_knot_of(micro), above = plan_knot_of(1.5 * micro + MEETS_MORE);
    struct share_range range = {INFINITY, 0};
    for (uint32_t i = 0; i < kinds->kind_count; ++i) {
        const struct plan_unit *unit = &kinds->kinds[i].unit;
        bool part = false;
        for (uint32_t s = 0; s < maker->pipe.count; ++s)
            part = part || (maker->members[s][i / 64] >> (i % 64) & 1) != 0;
        if (!part)
            continue;
        double fixed = unit->context_s * kinds->mix.mean_context;
        double steep = plan_unit_at(unit->grid, &above).slope + plan_unit_at(unit->head, &above).slope;
        range.most = fmax(range.most, unit->context_s / (plan_unit_at(unit->grid, &near).slope + fixed));
        range.least = fmin(range.least, unit->context_s / (steep + fixed));
    }
    return range;
}

/* Each class takes what is best for it. A request meets a few more sequences than the mean batch. */
static void mend_compute(struct maker *maker)
{
    const struct plan_mix *mix = &maker->kinds->mix;
    for (uint32_t i = 0; i < maker->draft.shape.point_count; ++i) {
        const struct plan_point *point = &maker->draft.points[i];
        struct share_range range = context_shares(maker, fmax(point->batch / maker->pipe.count, 1));
        for (uint32_t k = 0; k < mix->classes; ++k) {
            double more = mix->context[k] - mix->mean_context;
            double share = 1 + (more > 0 ? range.least : range.most) * more;
            maker->draft.shares[i][1][k] = mix->output[k] * point->step_s / point->batch * fmax(share, 0);
        }
    }
}

static void add_common(struct maker *maker)
{
    enum ts_phase phase = maker->pipe.phase;
    for (uint32_t k = 0; k < maker->kinds->mix.classes && (phase & TS_PHASE_PREFILL); ++k) {
        struct plan_follow *follow = &maker->draft.follow;
        maker->draft.shape.prefill_s[k] = least_latency(maker, k);
        follow->prefill_s[k] = fmin(maker->draft.shape.prefill_s[k], follow->most);
    }
    if (phase & TS_PHASE_DECODE)
        mend_compute(maker);
    add_draft(maker);
}

static void add_unlike(struct maker *maker, bool blended)
{
    enum ts_phase phase = maker->pipe.phase;
    maker->common = (struct plan_unit){.tp = 1, .kv_bytes = 1};
    join_prefill(maker);
    join_decode(maker);
    maker->common.usable_bytes = join_memory(maker);
    maker->pipe.layers = maker->pipe.count;
    for (uint32_t i = 0; i < maker->pipe.count; ++i)
        maker->pipe.ranks[i] = (struct plan_rank){.unit = &maker->common, .layers = 1};
    set_hops(maker, &maker->kinds->links[0]);
    /* Operating points are few, and those of the common stage lie elsewhere than those of a real pipeline.
     * More of them: what lies between two is then little better than their mixture. */
    static const double limits[] = {1, 0.8, 0.6};
    uint32_t rounds = !(phase & TS_PHASE_DECODE) ? 1 : blended ? 3 : 2;
    for (uint32_t i = 0; i < rounds; ++i) {
        struct plan_mix mix = maker->kinds->mix;
        mix.step_limit_max *= limits[i];
        for (uint32_t k = 0; k < mix.classes; ++k)
            mix.step_limit[k] *= limits[i];
        if (make_points(maker, &mix))
            add_common(maker);
    }
}

void plan_bound_kinds_item(const struct plan_bound_kinds *kinds, const uint8_t *stages, uint32_t count,
                           enum ts_phase phase, struct plan_bound_item *item)
{
    struct maker maker = {.kinds = kinds, .item = item};
    plan_bound_item_init(item, phase);
    maker.pipe = (struct plan_pipe){.phase = phase, .count = count, .layers = kinds->problem->model->layers};
    bool blended = false, equal = true;
    for (uint32_t i = 0; i < count; ++i) {
        maker.units[i] = &kinds->kinds[stages[i]].unit;
        maker.members[i] = kinds->kinds[stages[i]].members;
        blended = blended || kinds->kinds[stages[i]].make == PLAN_BOUND_BLEND;
        equal = equal && stages[i] == stages[0];
    }
    if (equal && !blended)
        add_equal(&maker, maker.units[0]);
    else
        add_unlike(&maker, blended);
    plan_bound_item_trim(item);
}
