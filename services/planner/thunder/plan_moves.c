#include "services/planner/thunder/plan_moves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

/* Places of groups that go are taken by groups that come, in order; what is left over of either is cut from
 * or put to the end. So most groups keep their index, which keeps the evaluator's program warm. */
void plan_move_apply(struct plan_state *state, const struct plan_move *move)
{
    for (uint32_t i = 0; i < move->in_count; i++) {
        if (i < move->out_count)
            state->groups[move->out[i]] = move->in[i];
        else
            plan_state_add(state, &move->in[i]);
    }
    for (uint32_t i = move->out_count; i > move->in_count; i--)
        plan_state_remove(state, move->out[i - 1]);
}

uint64_t plan_group_key(const struct plan_group *group)
{
    uint64_t key = ts_splitmix64((uint64_t)group->phase + 1);
    for (uint32_t i = 0; i < group->part_count; i++) {
        const struct plan_part *part = &group->parts[i];
        key = ts_splitmix64(key ^ ((uint64_t)part->cell << 16 | (uint64_t)part->count << 8 | part->tp));
    }
    return key;
}

/* --- The best TP, remembered: open addressing over (parts, phase) --- */

#define PICKS_FIRST 1024u
#define PICKS_MAX   (1u << 18) /* 14 MB; beyond it, all are forgotten */

struct pick {
    uint64_t key; /* 0 = free */
    struct plan_group group;
};

struct plan_picks {
    struct plan_shapes *shapes;
    double weight_bytes;
    struct pick *items;
    uint32_t capacity, count;
    uint32_t granted;
};

struct plan_picks *plan_picks_new(struct plan_shapes *shapes)
{
    const struct ts_model *model = plan_shapes_problem(shapes)->model;
    struct plan_picks *picks = ts_xcalloc(1, sizeof *picks);
    picks->shapes = shapes;
    picks->weight_bytes =
        model->layers * ts_cost_layer_weight_bytes(model) + ts_cost_head_weight_bytes(model);
    picks->capacity = PICKS_FIRST;
    picks->granted = UINT32_MAX;
    picks->items = ts_xcalloc(picks->capacity, sizeof *picks->items);
    return picks;
}

void plan_picks_destroy(struct plan_picks **picks)
{
    if (*picks)
        ts_free((*picks)->items);
    ts_free(*picks);
    *picks = NULL;
}

struct plan_shapes *plan_picks_shapes(const struct plan_picks *picks)
{
    return picks->shapes;
}

static uint64_t parts_key(const struct plan_group *group)
{
    uint64_t key = ts_splitmix64((uint64_t)group->phase + 1);
    for (uint32_t i = 0; i < group->part_count; i++)
        key = ts_splitmix64(key ^ ((uint64_t)group->parts[i].cell << 8 | group->parts[i].count));
    return key ? key : 1;
}

/* Parts of one cell with different TP become one again. */
static void join_cells(struct plan_group *group)
{
    uint8_t kept = 0;
    for (uint32_t i = 0; i < group->part_count; i++) {
        if (kept > 0 && group->parts[kept - 1].cell == group->parts[i].cell)
            group->parts[kept - 1].count = (uint8_t)(group->parts[kept - 1].count + group->parts[i].count);
        else
            group->parts[kept++] = group->parts[i];
    }
    group->part_count = kept;
}

static bool same_parts(const struct plan_group *answer, const struct plan_group *b)
{
    struct plan_group joined = *answer, *a = &joined;
    join_cells(a);
    bool same = a->phase == b->phase && a->part_count == b->part_count;
    for (uint32_t i = 0; same && i < a->part_count; i++)
        same = a->parts[i].cell == b->parts[i].cell && a->parts[i].count == b->parts[i].count;
    return same;
}

static struct pick *slot_of(const struct plan_picks *picks, uint64_t key, const struct plan_group *group)
{
    uint32_t at = (uint32_t)key & (picks->capacity - 1);
    while (picks->items[at].key &&
           !(picks->items[at].key == key && same_parts(&picks->items[at].group, group)))
        at = (at + 1) & (picks->capacity - 1);
    return &picks->items[at];
}

static void grow(struct plan_picks *picks)
{
    struct plan_picks old = *picks;
    if (old.capacity >= PICKS_MAX) {
        memset(picks->items, 0, picks->capacity * sizeof *picks->items);
        picks->count = 0;
        return;
    }
    picks->capacity *= 2;
    picks->items = ts_xcalloc(picks->capacity, sizeof *picks->items);
    for (uint32_t i = 0; i < old.capacity; i++) {
        if (old.items[i].key)
            *slot_of(picks, old.items[i].key, &old.items[i].group) = old.items[i];
    }
    ts_free(old.items);
}

void plan_picks_grant(struct plan_picks *picks, uint32_t fresh)
{
    picks->granted = fresh;
}

/* As many stages of TP `most` as each part has room for, and the rest in smaller powers of two: five devices
 * are a stage of four and one of one. False when nothing is left over anywhere, or too many parts come out.
 */
static bool split_parts(const struct plan_group *group, uint8_t most, struct plan_group *out)
{
    bool split = false;
    *out = (struct plan_group){.phase = group->phase};
    for (uint32_t i = 0; i < group->part_count; i++) {
        uint8_t left = group->parts[i].count;
        split = split || (left > most && left % most);
        for (uint8_t tp = most; left; tp /= 2) {
            uint8_t count = (uint8_t)(left - left % tp);
            if (count && out->part_count == PLAN_PARTS_MAX)
                return false;
            if (count)
                out->parts[out->part_count++] = (struct plan_part){group->parts[i].cell, count, tp};
            left = (uint8_t)(left - count);
        }
    }
    return split;
}

static void choose_split(struct plan_picks *picks, const struct plan_group *asked, struct plan_group *best)
{
    struct plan_group made;
    for (uint8_t most = 2; most <= TS_TP_MAX; most = (uint8_t)(most * 2)) {
        if (split_parts(asked, most, &made) && plan_shape_find(picks->shapes, &made) &&
            (!best->shape || made.shape->score > best->shape->score))
            *best = made;
    }
}

static void choose(struct plan_picks *picks, struct plan_group *group)
{
    struct plan_group best = *group, asked = *group;
    if (group->part_count == 1) {
        group->parts[0].tp = 0;
        plan_shape_choose(picks->shapes, group);
        choose_split(picks, &asked, group);
        return;
    }
    best.shape = NULL;
    for (uint8_t most = 1; most <= TS_TP_MAX; most = (uint8_t)(most * 2)) {
        struct plan_group made = *group;
        bool reached = false; /* otherwise it is the one before once more */
        for (uint32_t i = 0; i < made.part_count; i++) {
            uint8_t tp = most;
            while (made.parts[i].count % tp)
                tp /= 2;
            made.parts[i].tp = tp;
            reached = reached || tp == most;
        }
        if (reached && plan_shape_find(picks->shapes, &made) &&
            (!best.shape || made.shape->score > best.shape->score))
            best = made;
    }
    choose_split(picks, &asked, &best);
    *group = best;
}

bool plan_picks_find(struct plan_picks *picks, struct plan_group *group)
{
    const struct ts_cluster *cluster = plan_shapes_problem(picks->shapes)->cluster;
    double bytes = 0;
    join_cells(group);
    for (uint32_t i = 0; i < group->part_count; i++)
        bytes += group->parts[i].count *
                 ts_cost_usable_bytes(&cluster->types[cluster->cells[group->parts[i].cell].type]);
    group->shape = NULL;
    if (bytes < picks->weight_bytes)
        return false;
    uint64_t key = parts_key(group);
    struct pick *pick = slot_of(picks, key, group);
    if (!pick->key) {
        if (picks->count * 2 >= picks->capacity) {
            grow(picks);
            pick = slot_of(picks, key, group);
        }
        if (picks->granted == 0)
            return false;
        picks->granted -= picks->granted != UINT32_MAX;
        choose(picks, group);
        *pick = (struct pick){key, *group};
        picks->count++;
    }
    *group = pick->group;
    return group->shape != NULL;
}

/* --- The tabu list --- */

void plan_tabu_reset(struct plan_tabu *tabu, uint32_t length)
{
    TS_ASSERT(length <= PLAN_TABU_MAX);
    *tabu = (struct plan_tabu){.length = length};
}

void plan_tabu_add(struct plan_tabu *tabu, const struct plan_state *state, const struct plan_move *move)
{
    for (uint32_t i = 0; tabu->length && i < move->out_count; i++) {
        tabu->keys[tabu->next] = plan_group_key(&state->groups[move->out[i]]);
        tabu->next = (tabu->next + 1) % tabu->length;
    }
}

bool plan_tabu_has(const struct plan_tabu *tabu, const struct plan_move *move)
{
    for (uint32_t g = 0; g < move->in_count; g++) {
        uint64_t key = plan_group_key(&move->in[g]);
        for (uint32_t i = 0; i < tabu->length; i++) {
            if (tabu->keys[i] == key)
                return true;
        }
    }
    return false;
}

/* --- The neighbourhood --- */

/* The move by the gauge: what the state is known to reach, in proportion. */
static double by_gauge(const struct plan_moves_walk *walk, const struct plan_move *move)
{
    const struct plan_moves_from *from = walk->from;
    const struct plan_group *out[PLAN_MOVE_GROUPS], *in[PLAN_MOVE_GROUPS];
    for (uint32_t i = 0; i < move->out_count; i++)
        out[i] = &from->state->groups[move->out[i]];
    for (uint32_t i = 0; i < move->in_count; i++)
        in[i] = &move->in[i];
    double served = plan_gauge_of(from->gauge, out, move->out_count, in, move->in_count);
    bool known = walk->served > 0 && from->result->objective > 0;
    return known ? from->result->objective * served / walk->served : served;
}

static double by_prices(const struct plan_moves_walk *walk, const struct plan_move *move)
{
    const struct plan_result *result = walk->from->result;
    double estimate = result->objective;
    for (uint32_t i = 0; i < move->out_count; i++)
        estimate -= result->group_worth[move->out[i]];
    for (uint32_t i = 0; i < move->in_count; i++)
        estimate += plan_worth_of(walk->from->worth, &move->in[i]);
    return estimate;
}

void plan_moves_offer(struct plan_moves_walk *walk, struct plan_move *move)
{
    const struct plan_moves_from *from = walk->from;
    struct plan_moves *moves = walk->moves;
    walk->valued++;
    move->estimate = by_gauge(walk, move);
    bool full = moves->top_count == PLAN_MOVES_TOP;
    double least = full ? moves->items[walk->worst].estimate : -1;
    uint64_t draw = ts_rng_below(from->rng, ++walk->any_seen);
    if (move->estimate > least)
        move->estimate = fmin(move->estimate, by_prices(walk, move));
    /* Ties are broken by chance, not by the order of the walk. */
    move->estimate += (ts_rng_unit(from->rng) - 0.5) * 1e-9 * (1 + move->estimate);
    bool better = move->estimate > least;
    if (!better && draw >= PLAN_MOVES_ANY)
        return;
    moves->offered++;
    if (!better) {
        moves->items[PLAN_MOVES_TOP + draw] = *move;
        moves->count |= 1u << draw;
        return;
    }
    moves->items[full ? walk->worst : moves->top_count++] = *move;
    if (moves->top_count == PLAN_MOVES_TOP) {
        walk->worst = 0;
        for (uint32_t i = 1; i < PLAN_MOVES_TOP; i++) {
            if (moves->items[i].estimate < moves->items[walk->worst].estimate)
                walk->worst = i;
        }
    }
}

void plan_moves_begin(struct plan_moves_walk *walk, const struct plan_moves_from *from,
                      struct plan_moves *moves)
{
    *walk = (struct plan_moves_walk){
        .from = from, .problem = plan_shapes_problem(plan_picks_shapes(from->picks)), .moves = moves};
    walk->served = plan_gauge_of(from->gauge, NULL, 0, NULL, 0);
    moves->count = moves->top_count = 0;
    moves->offered = 0;
}

static int by_estimate(const void *a, const void *b)
{
    double x = ((const struct plan_move *)a)->estimate, y = ((const struct plan_move *)b)->estimate;
    return (x < y) - (x > y);
}

/* Orders the best ones and closes the gap to the drawn ones, of which `count` was the mask so far. */
void plan_moves_settle(struct plan_moves *moves)
{
    uint32_t drawn = moves->count;
    qsort(moves->items, moves->top_count, sizeof moves->items[0], by_estimate);
    moves->count = moves->top_count;
    for (uint32_t i = 0; i < PLAN_MOVES_ANY; i++) {
        if (drawn >> i & 1)
            moves->items[moves->count++] = moves->items[PLAN_MOVES_TOP + i];
    }
}

static void offer_alone(struct plan_moves_walk *walk, enum plan_move_kind kind, uint32_t index,
                        const struct plan_group *group)
{
    struct plan_move move = {.kind = kind, .out_count = 1, .in_count = 1, .out = {index}, .in = {*group}};
    plan_moves_offer(walk, &move);
}

static bool same_tp(const struct plan_group *a, const struct plan_group *b)
{
    if (a->part_count != b->part_count)
        return false;
    for (uint32_t i = 0; i < a->part_count; i++) {
        if (a->parts[i].tp != b->parts[i].tp)
            return false;
    }
    return true;
}

/* Another phase with its own best TP and with the present one, and other TP degrees in the same phase. */
static void list_alone(struct plan_moves_walk *walk, uint32_t index)
{
    struct plan_picks *picks = walk->from->picks;
    const struct plan_group *group = &walk->from->state->groups[index];
    for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
        struct plan_group best = *group, same = *group;
        best.phase = same.phase = phase;
        if (phase == group->phase || (phase == TS_PHASE_BOTH && !walk->problem->colocate))
            continue;
        if (!plan_picks_find(picks, &best))
            continue;
        offer_alone(walk, PLAN_MOVE_FLIP, index, &best);
        if (!same_tp(&best, group) && plan_shape_find(plan_picks_shapes(picks), &same))
            offer_alone(walk, PLAN_MOVE_FLIP, index, &same);
    }
    struct plan_group other = *group;
    for (uint32_t i = 0; i < other.part_count; i++)
        other.parts[i].tp = 0;
    while (plan_shape_next_tp(plan_picks_shapes(picks), &other)) {
        if (!same_tp(&other, group) && plan_shape_find(plan_picks_shapes(picks), &other))
            offer_alone(walk, PLAN_MOVE_RESHAPE, index, &other);
    }
}

void plan_moves_list(const struct plan_moves_from *from, struct plan_moves *moves)
{
    struct plan_moves_walk walk;
    plan_moves_begin(&walk, from, moves);
    const struct plan_problem *problem = walk.problem;
    uint32_t count = from->state->count;
    walk.idle = ts_xcalloc(problem->cluster->cell_count, sizeof *walk.idle);
    walk.twin = ts_xcalloc(count + 1, sizeof *walk.twin);
    uint64_t *keys = ts_xcalloc(count + 1, sizeof *keys);
    plan_state_idle(problem, from->state, walk.idle);
    plan_picks_grant(from->picks, from->fresh);
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = plan_group_key(&from->state->groups[i]);
        while (keys[walk.twin[i]] != keys[i])
            walk.twin[i]++;
        if (walk.twin[i] == i)
            list_alone(&walk, i);
    }
    plan_moves_pools(&walk);
    plan_moves_settle(moves);
    plan_picks_grant(from->picks, UINT32_MAX);
    ts_free(walk.idle);
    ts_free(walk.twin);
    ts_free(keys);
}
