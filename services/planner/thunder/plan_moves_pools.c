/*
 * Neighbours that put devices elsewhere. All are one thing: the devices of one or two groups (and what is
 * idle) are a pool, and the pool is dealt out again as groups A and B with the phases that the prices like
 * best. Split, merge, shift, exchange and growth are the cases. Small pools are dealt out in every way; of
 * large ones the ways near to the present one are taken.
 */
#include <string.h>

#include "services/planner/thunder/plan_moves.h"

#define WAYS_ALL 96 /* pools with at most so many ways to deal them are dealt out in all */

struct pool {
    uint32_t out[2], out_count; /* the groups whose devices these are */
    uint16_t cells[2 * PLAN_PARTS_MAX];
    uint8_t counts[2 * PLAN_PARTS_MAX]; /* in all */
    uint8_t first[2 * PLAN_PARTS_MAX];  /* of those in the first group */
    uint32_t cell_count;
    bool rest_idle; /* what A does not take stays idle instead of being B */
    enum plan_move_kind kind;
};

static void pool_add(struct pool *pool, const struct plan_group *group, bool first)
{
    for (uint32_t i = 0; i < group->part_count; i++) {
        const struct plan_part *part = &group->parts[i];
        uint32_t at = 0;
        while (at < pool->cell_count && pool->cells[at] < part->cell)
            at++;
        if (at == pool->cell_count || pool->cells[at] != part->cell) {
            uint32_t tail = pool->cell_count++ - at;
            memmove(&pool->cells[at + 1], &pool->cells[at], tail * sizeof pool->cells[0]);
            memmove(&pool->counts[at + 1], &pool->counts[at], tail);
            memmove(&pool->first[at + 1], &pool->first[at], tail);
            pool->cells[at] = part->cell;
            pool->counts[at] = pool->first[at] = 0;
        }
        pool->counts[at] = (uint8_t)(pool->counts[at] + part->count);
        if (first)
            pool->first[at] = (uint8_t)(pool->first[at] + part->count);
    }
}

static uint32_t ways(const struct pool *pool)
{
    uint32_t product = 1;
    for (uint32_t i = 0; i < pool->cell_count && product <= WAYS_ALL; i++)
        product *= pool->counts[i] + 1u;
    return product;
}

/* A with `take` of each cell (false when it has too many parts or none, or may not leave its node), or the
 * rest of the pool. */
static bool deal(const struct plan_moves_walk *walk, const struct pool *pool, const uint8_t *take, bool rest,
                 struct plan_group *group)
{
    const struct ts_cell *cells = walk->problem->cluster->cells;
    *group = (struct plan_group){0};
    for (uint32_t i = 0; i < pool->cell_count; i++) {
        uint8_t count = rest ? (uint8_t)(pool->counts[i] - take[i]) : take[i];
        if (!count)
            continue;
        if (group->part_count == PLAN_PARTS_MAX)
            return false;
        if (walk->from->inside && group->part_count > 0 &&
            cells[group->parts[0].cell].node != cells[pool->cells[i]].node)
            return false;
        group->parts[group->part_count++] = (struct plan_part){.cell = pool->cells[i], .count = count};
    }
    return group->part_count > 0;
}

struct side {
    struct plan_group groups[TS_PHASE_BOTH];
    uint32_t count;
};

static void shape_side(struct plan_moves_walk *walk, const struct plan_group *group, struct side *side)
{
    side->count = 0;
    for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
        struct plan_group *made = &side->groups[side->count];
        if (phase == TS_PHASE_BOTH && !walk->problem->colocate)
            continue;
        *made = *group;
        made->phase = phase;
        side->count += plan_picks_find(walk->from->picks, made);
    }
}

static bool stands(const struct plan_moves_walk *walk, const struct pool *pool, const struct plan_group *made)
{
    for (uint32_t i = 0; i < pool->out_count; i++) {
        if (plan_group_key(&walk->from->state->groups[pool->out[i]]) == plan_group_key(made))
            return true;
    }
    return false;
}

static void offer_pool(struct plan_moves_walk *walk, const struct pool *pool, const struct plan_group *a,
                       const struct plan_group *b)
{
    struct plan_move move = {.kind = pool->kind, .out_count = (uint8_t)pool->out_count, .in_count = 1};
    memcpy(move.out, pool->out, sizeof pool->out);
    move.in[0] = *a;
    if (b) {
        move.in[1] = *b;
        move.in_count = 2;
    } else if (pool->kind == PLAN_MOVE_SHIFT) {
        move.kind = PLAN_MOVE_MERGE;
    }
    if (move.in_count == move.out_count && stands(walk, pool, a) && (!b || stands(walk, pool, b)))
        return;
    plan_moves_offer(walk, &move);
}

/* In all pairs of phases. */
static void deal_out(struct plan_moves_walk *walk, const struct pool *pool, const uint8_t *take)
{
    struct plan_group a, b;
    struct side of_a, of_b;
    uint32_t rest = 0;
    for (uint32_t i = 0; i < pool->cell_count && !pool->rest_idle; i++)
        rest += pool->counts[i] - take[i];
    if (!deal(walk, pool, take, false, &a) || (rest && !deal(walk, pool, take, true, &b)))
        return;
    shape_side(walk, &a, &of_a);
    for (uint32_t i = 0; i < of_a.count && !rest; i++)
        offer_pool(walk, pool, &of_a.groups[i], NULL);
    if (!rest || !of_a.count)
        return;
    shape_side(walk, &b, &of_b);
    for (uint32_t i = 0; i < of_a.count; i++) {
        for (uint32_t j = 0; j < of_b.count; j++)
            offer_pool(walk, pool, &of_a.groups[i], &of_b.groups[j]);
    }
}

/* Every way; of the two that differ by exchanging A and B, one. */
static void deal_all(struct plan_moves_walk *walk, const struct pool *pool)
{
    uint8_t take[2 * PLAN_PARTS_MAX] = {0};
    for (;;) {
        uint32_t i = 0;
        while (i < pool->cell_count && take[i] == pool->counts[i])
            take[i++] = 0;
        if (i == pool->cell_count)
            return;
        take[i]++;
        int order = 0;
        for (uint32_t c = 0; c < pool->cell_count && order == 0; c++)
            order = 2 * take[c] - pool->counts[c];
        if (order >= 0 || pool->rest_idle)
            deal_out(walk, pool, take);
    }
}

static void try_near(struct plan_moves_walk *walk, const struct pool *pool, uint32_t cell, int by,
                     uint32_t other, int other_by)
{
    uint8_t take[2 * PLAN_PARTS_MAX];
    memcpy(take, pool->first, sizeof take);
    int one = take[cell] + by;
    if (one < 0 || one > pool->counts[cell])
        return;
    take[cell] = (uint8_t)one;
    if (other_by) {
        int two = take[other] + other_by;
        if (two < 0 || two > pool->counts[other])
            return;
        take[other] = (uint8_t)two;
    }
    deal_out(walk, pool, take);
}

/* Ways near to the present one: steps of 1, 2, 4 or all of a cell either way, exchanges of 1, 2 or 4 between
 * two cells, all together, each cell for itself. */
static void deal_near(struct plan_moves_walk *walk, const struct pool *pool)
{
    uint8_t take[2 * PLAN_PARTS_MAX];
    memcpy(take, pool->counts, sizeof take);
    deal_out(walk, pool, take);
    for (uint32_t c = 0; c < pool->cell_count; c++) {
        int up = pool->counts[c] - pool->first[c], down = pool->first[c];
        for (int by = 1; by <= 4; by *= 2) {
            if (by < up)
                try_near(walk, pool, c, by, 0, 0);
            if (by < down)
                try_near(walk, pool, c, -by, 0, 0);
            for (uint32_t d = 0; d < pool->cell_count; d++) {
                if (d != c)
                    try_near(walk, pool, c, by, d, -by);
            }
        }
        if (up)
            try_near(walk, pool, c, up, 0, 0);
        if (down)
            try_near(walk, pool, c, -down, 0, 0);
        if (pool->cell_count > 1) {
            memset(take, 0, sizeof take);
            take[c] = pool->counts[c];
            deal_out(walk, pool, take);
        }
    }
    if (!pool->rest_idle) /* the present one, other phases on both sides */
        try_near(walk, pool, 0, 0, 0, 0);
}

static void walk_pool(struct plan_moves_walk *walk, const struct pool *pool)
{
    if (ways(pool) <= WAYS_ALL)
        deal_all(walk, pool);
    else
        deal_near(walk, pool);
}

static void take_group(const struct plan_moves_walk *walk, struct pool *pool, uint32_t index)
{
    pool_add(pool, &walk->from->state->groups[index], pool->out_count == 0);
    pool->out[pool->out_count++] = index;
}

static void split(struct plan_moves_walk *walk, uint32_t index)
{
    struct pool pool = {.kind = PLAN_MOVE_SPLIT};
    take_group(walk, &pool, index);
    walk_pool(walk, &pool);
    pool.rest_idle = true;
    walk_pool(walk, &pool);
}

/* With one idle cell, or with all that are idle in the group's nodes. */
static void grow_group(struct plan_moves_walk *walk, uint32_t index, uint32_t cell)
{
    struct pool pool = {.kind = PLAN_MOVE_GROW};
    uint32_t count = walk->idle[cell] < 16 ? walk->idle[cell] : 16;
    struct plan_group more = {.part_count = 1, .parts = {{(uint16_t)cell, (uint8_t)count, 0}}};
    take_group(walk, &pool, index);
    pool_add(&pool, &more, false);
    walk_pool(walk, &pool);
    pool.rest_idle = true;
    walk_pool(walk, &pool);
}

/* New groups of what is idle in one cell, or in two. */
static void grow_new(struct plan_moves_walk *walk, uint32_t a, uint32_t b)
{
    struct pool pool = {.kind = PLAN_MOVE_GROW};
    for (uint32_t i = 0; i < (a == b ? 1 : 2); i++) {
        uint32_t cell = i ? b : a, count = walk->idle[cell] < 16 ? walk->idle[cell] : 16;
        struct plan_group more = {.part_count = 1, .parts = {{(uint16_t)cell, (uint8_t)count, 0}}};
        pool_add(&pool, &more, false);
    }
    pool.rest_idle = true;
    walk_pool(walk, &pool);
    pool.rest_idle = false;
    walk_pool(walk, &pool);
}

static void pair(struct plan_moves_walk *walk, uint32_t a, uint32_t b)
{
    struct pool pool = {.kind = PLAN_MOVE_SHIFT};
    take_group(walk, &pool, a);
    take_group(walk, &pool, b);
    walk_pool(walk, &pool);
}

static bool spent(const struct plan_moves_walk *walk)
{
    return walk->valued > walk->from->limit;
}

static void grow_all(struct plan_moves_walk *walk)
{
    const struct ts_cluster *cluster = walk->problem->cluster;
    for (uint32_t c = 0; c < cluster->cell_count && !spent(walk); c++) {
        if (!walk->idle[c])
            continue;
        for (uint32_t d = c; d < cluster->cell_count && !spent(walk); d++) {
            if (walk->idle[d])
                grow_new(walk, c, d);
        }
        for (uint32_t i = 0; i < walk->from->state->count && !spent(walk); i++) {
            if (walk->twin[i] == i)
                grow_group(walk, i, c);
        }
    }
}

/* The third group equal to a pair of equal ones brings nothing new. */
static bool pair_is_new(const struct plan_moves_walk *walk, uint32_t a, uint32_t b)
{
    if (walk->twin[a] != a)
        return false;
    if (walk->twin[b] == b)
        return true;
    if (walk->twin[b] != a)
        return false;
    for (uint32_t i = a + 1; i < b; i++) {
        if (walk->twin[i] == a)
            return false;
    }
    return true;
}

void plan_moves_pools(struct plan_moves_walk *walk)
{
    uint32_t count = walk->from->state->count;
    for (uint32_t i = 0; i < count && !spent(walk); i++) {
        if (walk->twin[i] == i)
            split(walk, i);
    }
    grow_all(walk);
    if (count < 2)
        return;
    /* From a drawn place on, with strides that visit all pairs: a sample, when the limit ends it early. */
    uint64_t pairs = (uint64_t)count * count, at = ts_rng_below(walk->from->rng, pairs), stride = 0;
    for (uint64_t d = 1; stride == 0; d++) {
        uint64_t want = pairs * 5 / 8 + d, a = want, b = pairs;
        while (b) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            stride = want;
    }
    for (uint64_t n = 0; n < pairs && !spent(walk); n++, at = (at + stride) % pairs) {
        uint32_t a = (uint32_t)(at / count), b = (uint32_t)(at % count);
        if (a < b && pair_is_new(walk, a, b))
            pair(walk, a, b);
    }
}
