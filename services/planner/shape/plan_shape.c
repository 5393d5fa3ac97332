#include "services/planner/shape/plan_shape.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "services/planner/shape/plan_shape_internal.h"

#define STAGES_DEFAULT    8
#define CHOICES_MAX       64   /* all are tried up to here */
#define DECODE_HOP_TOKENS 16.0 /* of a micro-batch, for the order of stages */
#define UNLINKED          UINT16_MAX

/* What a shape is known by: written without gaps from the front, so that a prefix is the key. */
struct key_part {
    uint16_t type, inner;
    uint8_t count, tp;
};

struct key {
    uint8_t bytes[4 + PLAN_PARTS_MAX * (6 + 2 * (PLAN_PARTS_MAX - 1)) + 4 * TS_STAGES_MAX];
    size_t size;
};

/* The parts of a group in the order of its key, and what their links are. */
struct sorted {
    uint32_t count;
    uint8_t order[PLAN_PARTS_MAX]; /* indices of the group's parts */
    uint16_t cells[PLAN_PARTS_MAX];
    struct key_part parts[PLAN_PARTS_MAX];
};

struct choice { /* tp by part, in the order of parts without tp */
    const struct plan_shape *shape;
    uint8_t tp[PLAN_PARTS_MAX];
};

struct plan_shapes {
    const struct plan_problem *problem;
    struct plan_mix mix;
    struct ts_arena arena;
    struct ts_map *link_ids; /* value of a link -> 1 + id */
    const struct ts_link **links;
    size_t link_count, link_capacity;
    uint16_t *pair_ids; /* [from * nodes + to]: 1 + id, 0 = not looked up yet */
    uint16_t *cell_ids; /* id of the link inside the cell */
    struct ts_map *units, *found, *chosen;
    uint32_t count;
};

static const struct plan_shape none; /* cached answer: it does not fit */

/* --- Links and units by value --- */

static uint16_t link_id(struct plan_shapes *shapes, const struct ts_link *link)
{
    if (!(link->bytes_per_s > 0))
        return UNLINKED;
    double value[2] = {link->bytes_per_s, link->latency_s};
    uintptr_t id = (uintptr_t)ts_map_get(shapes->link_ids, value, sizeof value);
    if (id == 0) {
        TS_ASSERT(shapes->link_count < UNLINKED - 1);
        ts_array_reserve((void **)&shapes->links, &shapes->link_capacity, shapes->link_count + 1,
                         sizeof(struct ts_link *));
        shapes->links[shapes->link_count++] = link;
        id = shapes->link_count;
        (void)ts_map_put(shapes->link_ids, value, sizeof value, (void *)id);
    }
    return (uint16_t)(id - 1);
}

/* Between two cells: of one node, its own link or the slower of what the two types have. */
static uint16_t pair_id(struct plan_shapes *shapes, uint32_t from, uint32_t to)
{
    const struct ts_cluster *cluster = shapes->problem->cluster;
    const struct ts_cell *a = &cluster->cells[from], *b = &cluster->cells[to];
    if (a->node == b->node) {
        uint16_t one = shapes->cell_ids[from], other = shapes->cell_ids[to];
        if (one == UNLINKED || other == UNLINKED)
            return UNLINKED;
        return shapes->links[one]->bytes_per_s <= shapes->links[other]->bytes_per_s ? one : other;
    }
    uint16_t *known = &shapes->pair_ids[(size_t)a->node * cluster->node_count + b->node];
    if (*known == 0)
        *known = (uint16_t)(1 + link_id(shapes, ts_cluster_link(cluster, a->node, b->node)));
    return (uint16_t)(*known - 1);
}

static const struct plan_unit *unit_of(struct plan_shapes *shapes, uint16_t type, uint16_t inner, uint8_t tp)
{
    uint64_t key = (uint64_t)type << 32 | (uint64_t)(tp > 1 ? inner : 0) << 8 | tp;
    struct plan_unit *unit = ts_map_get_u64(shapes->units, key);
    if (!unit) {
        unit = ts_arena_zalloc(&shapes->arena, sizeof *unit);
        unit->type = type;
        unit->inner = inner;
        unit->tp = tp;
        plan_unit_init(unit, shapes->problem->cluster, shapes->problem->model, &shapes->mix,
                       tp > 1 ? shapes->links[inner] : NULL);
        (void)ts_map_put_u64(shapes->units, key, unit);
    }
    return unit;
}

/* --- The cache --- */

struct plan_shapes *plan_shapes_new(const struct plan_problem *problem)
{
    const struct ts_cluster *cluster = problem->cluster;
    struct plan_shapes *shapes = ts_xcalloc(1, sizeof *shapes);
    shapes->problem = problem;
    plan_mix_init(&shapes->mix, problem->model, problem->demand);
    ts_arena_init(&shapes->arena);
    shapes->link_ids = ts_map_new();
    shapes->units = ts_map_new();
    shapes->found = ts_map_new();
    shapes->chosen = ts_map_new();
    shapes->pair_ids = ts_xcalloc((size_t)cluster->node_count * cluster->node_count + 1, sizeof(uint16_t));
    shapes->cell_ids = ts_xcalloc(cluster->cell_count + 1, sizeof(uint16_t));
    for (uint32_t i = 0; i < cluster->cell_count; ++i) {
        const struct ts_cell *cell = &cluster->cells[i];
        shapes->cell_ids[i] = link_id(shapes, ts_cluster_inner(cluster, cell->node, cell->type));
    }
    return shapes;
}

void plan_shapes_destroy(struct plan_shapes **shapes)
{
    if (!*shapes)
        return;
    ts_arena_fini(&(*shapes)->arena);
    ts_map_destroy(&(*shapes)->link_ids);
    ts_map_destroy(&(*shapes)->units);
    ts_map_destroy(&(*shapes)->found);
    ts_map_destroy(&(*shapes)->chosen);
    ts_free((*shapes)->links);
    ts_free((*shapes)->pair_ids);
    ts_free((*shapes)->cell_ids);
    ts_free(*shapes);
    *shapes = NULL;
}

static bool part_before(const struct sorted *sorted, const struct key_part *part, uint16_t cell, uint32_t at)
{
    const struct key_part *other = &sorted->parts[at];
    if (part->type != other->type)
        return part->type < other->type;
    if (part->inner != other->inner)
        return part->inner < other->inner;
    if (part->count != other->count)
        return part->count < other->count;
    if (part->tp != other->tp)
        return part->tp < other->tp;
    return cell < sorted->cells[at];
}

static void sort_parts(const struct plan_shapes *shapes, const struct plan_group *group, bool with_tp,
                       struct sorted *sorted)
{
    const struct ts_cell *cells = shapes->problem->cluster->cells;
    TS_ASSERT(group->part_count >= 1 && group->part_count <= PLAN_PARTS_MAX);
    sorted->count = group->part_count;
    for (uint32_t i = 0; i < sorted->count; ++i) {
        const struct plan_part *from = &group->parts[i];
        struct key_part part = {cells[from->cell].type, shapes->cell_ids[from->cell], from->count,
                                with_tp ? from->tp : 0};
        uint32_t at = i;
        for (; at > 0 && part_before(sorted, &part, from->cell, at - 1); --at) {
            sorted->order[at] = sorted->order[at - 1];
            sorted->cells[at] = sorted->cells[at - 1];
            sorted->parts[at] = sorted->parts[at - 1];
        }
        sorted->order[at] = (uint8_t)i;
        sorted->cells[at] = from->cell;
        sorted->parts[at] = part;
    }
}

void plan_shape_parts(struct plan_shapes *shapes, const struct plan_group *group,
                      uint8_t order[PLAN_PARTS_MAX])
{
    struct sorted sorted;
    sort_parts(shapes, group, true, &sorted);
    memcpy(order, sorted.order, sorted.count);
}

static void key_add(struct key *key, const void *data, size_t size)
{
    memcpy(key->bytes + key->size, data, size);
    key->size += size;
}

static void make_key(struct plan_shapes *shapes, const struct sorted *sorted, enum ts_phase phase,
                     const struct plan_shape_stage *stages, uint32_t stage_count, struct key *key)
{
    const uint8_t head[] = {(uint8_t)phase, (uint8_t)sorted->count, (uint8_t)stage_count, 0};
    key->size = 0;
    key_add(key, head, sizeof head);
    for (uint32_t i = 0; i < sorted->count; ++i)
        key_add(key, &sorted->parts[i], sizeof sorted->parts[i]);
    for (uint32_t i = 0; i < sorted->count; ++i) {
        for (uint32_t j = 0; j < sorted->count; ++j) {
            uint16_t id = i == j ? 0 : pair_id(shapes, sorted->cells[i], sorted->cells[j]);
            if (i != j)
                key_add(key, &id, sizeof id);
        }
    }
    for (uint32_t i = 0; i < stage_count; ++i)
        key_add(key, &stages[i], sizeof stages[i]);
}

const struct plan_problem *plan_shapes_problem(const struct plan_shapes *shapes)
{
    return shapes->problem;
}

double plan_shape_score(const struct plan_shapes *shapes, const struct plan_shape *shape)
{
    (void)shapes;
    return shape->score;
}

/* --- Making a shape --- */

static uint32_t most_stages(const struct plan_problem *problem)
{
    uint32_t most = problem->max_stages > 0 ? problem->max_stages : STAGES_DEFAULT;
    return most < TS_STAGES_MAX ? most : TS_STAGES_MAX;
}

static bool legal_tp(const struct plan_problem *problem, uint32_t count, uint32_t tp)
{
    return tp >= 1 && tp <= TS_TP_MAX && (tp & (tp - 1)) == 0 && count % tp == 0 &&
           problem->model->heads % tp == 0;
}

/* Sends of activations from a stage: the link to the next one. False when there is none. */
static bool set_hop(const struct plan_shapes *shapes, uint16_t link, struct plan_rank *rank)
{
    if (link == UNLINKED)
        return false;
    rank->hop_latency_s = shapes->links[link]->latency_s;
    rank->hop_token_s = ts_cost_hop_bytes(shapes->problem->model, 1) / shapes->links[link]->bytes_per_s;
    return true;
}

/* Order of the parts along the pipeline: by the time of the hops between them. */
static void order_parts(struct plan_shapes *shapes, const struct sorted *sorted, enum ts_phase phase,
                        uint8_t *order)
{
    const struct plan_problem *problem = shapes->problem;
    double cost[PLAN_PARTS_MAX * PLAN_PARTS_MAX] = {0}, ends[PLAN_PARTS_MAX];
    double tokens = phase == TS_PHASE_DECODE ? DECODE_HOP_TOKENS : shapes->mix.mean_prompt;
    double bytes = ts_cost_hop_bytes(problem->model, tokens);
    for (uint32_t i = 0; i < sorted->count; ++i) {
        ends[i] = ts_cost_usable_bytes(&problem->cluster->types[sorted->parts[i].type]);
        for (uint32_t j = 0; j < sorted->count; ++j) {
            uint16_t link = i == j ? UNLINKED : pair_id(shapes, sorted->cells[i], sorted->cells[j]);
            cost[i * sorted->count + j] =
                link == UNLINKED ? INFINITY : ts_cost_send_s(shapes->links[link], bytes);
        }
    }
    (void)plan_order_parts(sorted->count, cost, ends, order);
}

/* The stages of all parts in this order; layers are left open. False when the parts cannot be a replica. */
static bool make_pipe(struct plan_shapes *shapes, const struct sorted *sorted, const uint8_t *order,
                      struct plan_pipe *pipe)
{
    uint32_t most = most_stages(shapes->problem);
    pipe->count = 0;
    for (uint32_t i = 0; i < sorted->count; ++i) {
        const struct key_part *part = &sorted->parts[order[i]];
        if (!legal_tp(shapes->problem, part->count, part->tp) || part->count == 0 ||
            (part->count > 1 && part->inner == UNLINKED) || pipe->count + part->count / part->tp > most)
            return false;
        const struct plan_unit *unit = unit_of(shapes, part->type, part->inner, part->tp);
        for (uint32_t j = 0; j < part->count / part->tp; ++j) {
            struct plan_rank *rank = &pipe->ranks[pipe->count++];
            *rank = (struct plan_rank){.unit = unit, .part = order[i]};
            if ((j + 1) * part->tp < part->count && !set_hop(shapes, part->inner, rank))
                return false;
        }
        if (i + 1 < sorted->count &&
            !set_hop(shapes, pair_id(shapes, sorted->cells[order[i]], sorted->cells[order[i + 1]]),
                     &pipe->ranks[pipe->count - 1]))
            return false;
    }
    return true;
}

/* What ties of the score are broken by: the time of one request alone. */
static double latency_of(const struct plan_shapes *shapes, const struct plan_draft *draft)
{
    double sum = 0;
    if (draft->shape.phase & TS_PHASE_PREFILL)
        for (uint32_t k = 0; k < shapes->mix.classes; ++k)
            sum += shapes->mix.weight[k] * draft->shape.prefill_s[k];
    if (draft->shape.phase & TS_PHASE_DECODE && draft->shape.point_count > 0)
        sum += shapes->mix.mean_output * draft->points[0].step_s;
    return sum;
}

/* A draft without stages is none. */
static bool better_draft(const struct plan_shapes *shapes, const struct plan_draft *a,
                         const struct plan_draft *b)
{
    if (b->shape.stage_count == 0)
        return true;
    if (fabs(a->shape.score - b->shape.score) > 1e-9 * b->shape.score)
        return a->shape.score > b->shape.score;
    double x = latency_of(shapes, a), y = latency_of(shapes, b);
    if (fabs(x - y) > 1e-9 * y)
        return x < y;
    return a->shape.stage_count < b->shape.stage_count;
}

static void set_layers(struct plan_pipe *pipe, const uint16_t *split)
{
    for (uint32_t i = 0; i < pipe->count; ++i)
        pipe->ranks[i].layers = split[i];
}

/* The best way to cut the layers of a pipe. False when the model does not fit. */
static bool make_draft(struct plan_shapes *shapes, const struct sorted *sorted, const uint8_t *order,
                       enum ts_phase phase, struct plan_draft *best)
{
    struct plan_pipe pipe = {.phase = phase, .layers = shapes->problem->model->layers};
    uint16_t splits[PLAN_SPLITS_MAX + PLAN_SPLITS_MAX][TS_STAGES_MAX];
    uint32_t count = 0;
    best->shape.stage_count = 0;
    if (!make_pipe(shapes, sorted, order, &pipe))
        return false;
    if (phase & TS_PHASE_DECODE)
        count += plan_layers_decode(&pipe, &shapes->mix, phase == TS_PHASE_BOTH ? 0.5 : 1, splits);
    if (phase & TS_PHASE_PREFILL)
        count += plan_layers_prefill(&pipe, &shapes->mix, splits + count);
    for (uint32_t i = 0; i < count; ++i) {
        struct plan_draft draft;
        if (i > 0 && memcmp(splits[i], splits[0], pipe.count * sizeof splits[0][0]) == 0)
            continue;
        set_layers(&pipe, splits[i]);
        plan_points_make(&pipe, &shapes->mix, shapes->problem->demand, &draft);
        if (better_draft(shapes, &draft, best))
            *best = draft;
    }
    return best->shape.stage_count > 0;
}

static const double *keep_shares(struct plan_shapes *shapes, const double *shares)
{
    static const double zeros[TS_CLASSES_MAX];
    for (uint32_t k = 0; k < shapes->mix.classes; ++k)
        if (shares[k] != 0)
            return ts_arena_copy(&shapes->arena, shares, shapes->mix.classes * sizeof *shares);
    return zeros;
}

static const struct plan_shape *keep_draft(struct plan_shapes *shapes, struct plan_draft *draft)
{
    struct plan_shape *shape = &draft->shape;
    const struct plan_follow *follow = NULL;
    if (shape->phase & TS_PHASE_PREFILL && shape->stage_count > 1)
        follow = ts_arena_copy(&shapes->arena, &draft->follow, sizeof draft->follow);
    for (uint32_t i = 0; i < shape->point_count; ++i) {
        draft->points[i].prefill = keep_shares(shapes, draft->shares[i][0]);
        draft->points[i].compute = keep_shares(shapes, draft->shares[i][1]);
        draft->points[i].follow = follow;
        draft->points[i].memory = keep_shares(shapes, draft->shares[i][2]);
    }
    shape->points =
        ts_arena_copy(&shapes->arena, draft->points, shape->point_count * sizeof draft->points[0]);
    shape->id = shapes->count++;
    return ts_arena_copy(&shapes->arena, shape, sizeof *shape);
}

/* --- Asking --- */

bool plan_shape_find(struct plan_shapes *shapes, struct plan_group *group)
{
    struct sorted sorted;
    struct key key;
    sort_parts(shapes, group, true, &sorted);
    make_key(shapes, &sorted, group->phase, NULL, 0, &key);
    const struct plan_shape *shape = ts_map_get(shapes->found, key.bytes, key.size);
    if (!shape) {
        struct plan_draft draft;
        uint8_t order[PLAN_PARTS_MAX];
        order_parts(shapes, &sorted, group->phase, order);
        bool made = make_draft(shapes, &sorted, order, group->phase, &draft);
        shape = made ? keep_draft(shapes, &draft) : &none;
        (void)ts_map_put(shapes->found, key.bytes, key.size, (void *)shape);
    }
    group->shape = shape == &none ? NULL : shape;
    return group->shape != NULL;
}

bool plan_shape_next_tp(const struct plan_shapes *shapes, struct plan_group *group)
{
    bool fresh = true;
    for (uint32_t i = 0; i < group->part_count; ++i)
        fresh = fresh && group->parts[i].tp == 0;
    for (uint32_t i = 0; i < group->part_count; ++i) {
        struct plan_part *part = &group->parts[i];
        uint32_t tp = part->tp * 2u;
        if (!fresh && tp <= part->count && legal_tp(shapes->problem, part->count, tp)) {
            part->tp = (uint8_t)tp;
            return true;
        }
        part->tp = 1;
    }
    return fresh;
}

struct contest { /* among choices of tp for the parts of one group */
    struct plan_shapes *shapes;
    struct sorted sorted;
    uint8_t order[PLAN_PARTS_MAX];
    enum ts_phase phase;
    struct plan_draft best;
    uint8_t tp[PLAN_PARTS_MAX]; /* of the best */
};

/* Tries the values of tp that stand in contest->sorted; true when they are the best so far. */
static bool try_choice(struct contest *contest)
{
    struct plan_draft draft;
    if (!make_draft(contest->shapes, &contest->sorted, contest->order, contest->phase, &draft))
        return false;
    if (!better_draft(contest->shapes, &draft, &contest->best))
        return false;
    contest->best = draft;
    for (uint32_t i = 0; i < contest->sorted.count; ++i)
        contest->tp[i] = contest->sorted.parts[i].tp;
    return true;
}

static void try_all(struct contest *contest)
{
    struct plan_group each = {.part_count = (uint8_t)contest->sorted.count};
    for (uint32_t i = 0; i < each.part_count; ++i)
        each.parts[i].count = contest->sorted.parts[i].count;
    while (plan_shape_next_tp(contest->shapes, &each)) {
        for (uint32_t i = 0; i < each.part_count; ++i)
            contest->sorted.parts[i].tp = each.parts[i].tp;
        (void)try_choice(contest);
    }
}

static void try_descent(struct contest *contest)
{
    const struct plan_problem *problem = contest->shapes->problem;
    struct key_part *parts = contest->sorted.parts;
    for (uint32_t i = 0; i < contest->sorted.count; ++i) {
        parts[i].tp = TS_TP_MAX;
        while (!legal_tp(problem, parts[i].count, parts[i].tp))
            parts[i].tp /= 2;
    }
    (void)try_choice(contest);
    for (bool again = true; again;) {
        again = false;
        for (uint32_t i = 0; i < contest->sorted.count; ++i) {
            uint8_t kept = parts[i].tp;
            for (uint8_t tp = 1; tp <= TS_TP_MAX; tp = (uint8_t)(tp * 2)) {
                if (tp == kept || !legal_tp(problem, parts[i].count, tp))
                    continue;
                parts[i].tp = tp;
                if (try_choice(contest)) {
                    kept = tp;
                    again = true;
                }
            }
            parts[i].tp = kept;
        }
    }
}

static struct choice *make_choice(struct plan_shapes *shapes, const struct plan_group *group,
                                  const struct sorted *sorted)
{
    struct choice *choice = ts_arena_zalloc(&shapes->arena, sizeof *choice);
    struct contest contest = {.shapes = shapes, .sorted = *sorted, .phase = group->phase};
    uint32_t choices = 1;
    for (uint32_t i = 0; i < sorted->count; ++i) {
        uint32_t own = 0;
        for (uint32_t tp = 1; tp <= TS_TP_MAX; tp *= 2)
            own += legal_tp(shapes->problem, sorted->parts[i].count, tp);
        choices *= own;
    }
    order_parts(shapes, sorted, group->phase, contest.order);
    if (choices <= CHOICES_MAX)
        try_all(&contest);
    else
        try_descent(&contest);
    if (contest.best.shape.stage_count > 0)
        memcpy(choice->tp, contest.tp, sizeof choice->tp);
    return choice;
}

bool plan_shape_choose(struct plan_shapes *shapes, struct plan_group *group)
{
    struct sorted sorted;
    struct key key;
    sort_parts(shapes, group, false, &sorted);
    make_key(shapes, &sorted, group->phase, NULL, 0, &key);
    struct choice *choice = ts_map_get(shapes->chosen, key.bytes, key.size);
    bool known = choice != NULL;
    if (!known) {
        choice = make_choice(shapes, group, &sorted);
        (void)ts_map_put(shapes->chosen, key.bytes, key.size, choice);
    }
    for (uint32_t i = 0; i < sorted.count; ++i)
        group->parts[sorted.order[i]].tp = choice->tp[i];
    if (!known && choice->tp[0] > 0 && plan_shape_find(shapes, group))
        choice->shape = group->shape;
    group->shape = choice->shape;
    return group->shape != NULL;
}

/* --- Stages as given --- */

/* The parts of a given group: its cells in order of mention. False when one of its devices is in no cell. */
static bool parts_of_stages(const struct plan_shapes *shapes, const struct ts_group *from,
                            struct plan_group *group, uint8_t *part_of_stage)
{
    const struct ts_cluster *cluster = shapes->problem->cluster;
    *group = (struct plan_group){.phase = from->phase};
    for (uint32_t i = 0; i < from->stage_count; ++i) {
        const struct ts_stage *stage = &from->stages[i];
        if (stage->tp < 1 || stage->tp > TS_TP_MAX || stage->gpus[0] >= cluster->gpu_count ||
            stage->layers > shapes->problem->model->layers)
            return false;
        const struct ts_gpu *gpu = &cluster->gpus[stage->gpus[0]];
        uint32_t cell = 0, part = 0;
        while (cell < cluster->cell_count &&
               (cluster->cells[cell].node != gpu->node || cluster->cells[cell].type != gpu->type))
            ++cell;
        while (part < group->part_count && group->parts[part].cell != cell)
            ++part;
        if (cell == cluster->cell_count || part == PLAN_PARTS_MAX)
            return false;
        struct plan_part *into = &group->parts[part];
        if (part == group->part_count) {
            *into = (struct plan_part){.cell = (uint16_t)cell, .tp = (uint8_t)stage->tp};
            ++group->part_count;
        }
        into->count = (uint8_t)(into->count + stage->tp);
        into->tp = into->tp == stage->tp ? into->tp : 0;
        part_of_stage[i] = (uint8_t)part;
    }
    return group->part_count > 0;
}

static bool make_given(struct plan_shapes *shapes, const struct sorted *sorted, enum ts_phase phase,
                       const struct plan_shape_stage *stages, uint32_t count, struct plan_draft *draft)
{
    struct plan_pipe pipe = {.phase = phase, .count = count, .layers = shapes->problem->model->layers};
    uint32_t layers = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const struct key_part *part = &sorted->parts[stages[i].part];
        struct plan_rank *rank = &pipe.ranks[i];
        if (!legal_tp(shapes->problem, stages[i].tp, stages[i].tp) || stages[i].layers == 0 ||
            (stages[i].tp > 1 && part->inner == UNLINKED))
            return false;
        *rank = (struct plan_rank){.unit = unit_of(shapes, part->type, part->inner, stages[i].tp),
                                   .part = stages[i].part,
                                   .layers = stages[i].layers};
        layers += stages[i].layers;
        if (i + 1 == count)
            break;
        uint32_t next = stages[i + 1].part;
        uint16_t link = next == stages[i].part
                            ? part->inner
                            : pair_id(shapes, sorted->cells[stages[i].part], sorted->cells[next]);
        if (!set_hop(shapes, link, rank))
            return false;
    }
    if (layers != pipe.layers || plan_pipe_kv_tokens(&pipe) < plan_mix_held(&shapes->mix, phase, false))
        return false;
    plan_points_make(&pipe, &shapes->mix, shapes->problem->demand, draft);
    return true;
}

bool plan_shape_of_group(struct plan_shapes *shapes, const struct ts_group *from, struct plan_group *group,
                         struct ts_error *err)
{
    uint8_t part_of_stage[TS_STAGES_MAX], rank_of_part[PLAN_PARTS_MAX] = {0};
    struct plan_shape_stage stages[TS_STAGES_MAX];
    struct sorted sorted;
    struct key key;
    if (from->stage_count < 1 || from->stage_count > TS_STAGES_MAX ||
        !parts_of_stages(shapes, from, group, part_of_stage)) {
        (void)ts_error_set(
            err, TS_EINVAL,
            "the group has no stage, a device that is not alive, or more than %d kinds of devices",
            PLAN_PARTS_MAX);
        return false;
    }
    sort_parts(shapes, group, true, &sorted);
    for (uint32_t i = 0; i < sorted.count; ++i)
        rank_of_part[sorted.order[i]] = (uint8_t)i;
    for (uint32_t i = 0; i < from->stage_count; ++i)
        stages[i] = (struct plan_shape_stage){rank_of_part[part_of_stage[i]], (uint8_t)from->stages[i].tp,
                                              (uint16_t)from->stages[i].layers};
    make_key(shapes, &sorted, from->phase, stages, from->stage_count, &key);
    const struct plan_shape *shape = ts_map_get(shapes->found, key.bytes, key.size);
    if (!shape) {
        struct plan_draft draft;
        bool made = make_given(shapes, &sorted, from->phase, stages, from->stage_count, &draft);
        shape = made ? keep_draft(shapes, &draft) : &none;
        (void)ts_map_put(shapes->found, key.bytes, key.size, (void *)shape);
    }
    group->shape = shape == &none ? NULL : shape;
    if (!group->shape)
        (void)ts_error_set(err, TS_EINVAL,
                           "the group cannot serve: weights and one request must fit on each device, its "
                           "stages must be connected, and the layers add up to %u",
                           shapes->problem->model->layers);
    return group->shape != NULL;
}
