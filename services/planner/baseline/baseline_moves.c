#include "services/planner/baseline/baseline_moves.h"

/* Adds devices of a cell to a group; false when it has too many parts then. */
static bool give(struct plan_group *group, uint32_t cell, uint32_t count)
{
    uint32_t at = group->part_count;
    for (uint32_t i = 0; i < group->part_count; i++) {
        if (group->parts[i].cell != cell)
            continue;
        if (group->parts[i].count + count > UINT8_MAX)
            return false;
        group->parts[i].count = (uint8_t)(group->parts[i].count + count);
        return true;
    }
    if (group->part_count == PLAN_PARTS_MAX || count > UINT8_MAX)
        return false;
    for (group->part_count++; at > 0 && group->parts[at - 1].cell > cell; at--)
        group->parts[at] = group->parts[at - 1];
    group->parts[at] = (struct plan_part){.cell = (uint16_t)cell, .count = (uint8_t)count};
    return true;
}

static void take(struct plan_group *group, uint32_t part, uint32_t count)
{
    group->parts[part].count = (uint8_t)(group->parts[part].count - count);
    if (group->parts[part].count > 0)
        return;
    group->part_count--;
    for (uint32_t i = part; i < group->part_count; i++)
        group->parts[i] = group->parts[i + 1];
}

static bool settle(struct baseline *base, struct plan_group *group)
{
    for (uint32_t i = 0; i < group->part_count; i++)
        group->parts[i].tp = 0;
    group->shape = NULL;
    return group->part_count > 0 && plan_shape_choose(base->shapes, group);
}

bool baseline_group(struct baseline *base, const uint32_t *counts, enum ts_phase phase,
                    struct plan_group *out)
{
    *out = (struct plan_group){.phase = phase};
    for (uint32_t cell = 0; cell < base->problem->cluster->cell_count; cell++) {
        if (counts[cell] > 0 && !give(out, cell, counts[cell]))
            return false;
    }
    return settle(base, out);
}

bool baseline_turn(struct baseline *base, struct plan_group *group, enum ts_phase phase)
{
    struct plan_group copy = *group;
    copy.phase = phase;
    if (!settle(base, &copy))
        return false;
    *group = copy;
    return true;
}

bool baseline_merge(struct baseline *base, const struct plan_group *a, const struct plan_group *b,
                    struct plan_group *out)
{
    *out = *a;
    for (uint32_t i = 0; i < b->part_count; i++) {
        if (!give(out, b->parts[i].cell, b->parts[i].count))
            return false;
    }
    return settle(base, out);
}

bool baseline_split(struct baseline *base, struct ts_rng *rng, const struct plan_group *group,
                    struct plan_group *a, struct plan_group *b)
{
    *a = *b = *group;
    a->part_count = b->part_count = 0;
    for (uint32_t i = 0; i < group->part_count; i++) {
        const struct plan_part *part = &group->parts[i];
        uint32_t how = group->part_count == 1 ? 2 : (uint32_t)ts_rng_below(rng, 3);
        uint32_t to_a = how == 2 ? (uint32_t)ts_rng_below(rng, part->count + 1u) : how == 1 ? part->count : 0;
        if (to_a > 0)
            (void)give(a, part->cell, to_a);
        if (to_a < part->count)
            (void)give(b, part->cell, part->count - to_a);
    }
    return settle(base, a) && settle(base, b);
}

bool baseline_move(struct baseline *base, struct ts_rng *rng, const struct plan_group *from,
                   const struct plan_group *to, struct plan_group *new_from, struct plan_group *new_to)
{
    uint32_t part = (uint32_t)ts_rng_below(rng, from->part_count);
    uint32_t count = 1 + (uint32_t)ts_rng_below(rng, from->parts[part].count);
    *new_from = *from;
    *new_to = *to;
    take(new_from, part, count);
    return give(new_to, from->parts[part].cell, count) && settle(base, new_from) && settle(base, new_to);
}

bool baseline_swap(struct baseline *base, struct ts_rng *rng, const struct plan_group *a,
                   const struct plan_group *b, struct plan_group *new_a, struct plan_group *new_b)
{
    uint32_t i = (uint32_t)ts_rng_below(rng, a->part_count), j = (uint32_t)ts_rng_below(rng, b->part_count);
    uint32_t least = a->parts[i].count < b->parts[j].count ? a->parts[i].count : b->parts[j].count;
    uint32_t count = 1 + (uint32_t)ts_rng_below(rng, least);
    *new_a = *a;
    *new_b = *b;
    take(new_a, i, count);
    take(new_b, j, count);
    return give(new_a, b->parts[j].cell, count) && give(new_b, a->parts[i].cell, count) &&
           settle(base, new_a) && settle(base, new_b);
}
