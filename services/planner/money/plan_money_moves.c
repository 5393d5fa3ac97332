/* The centre's neighbours: less a group or a few devices of a cell, and 1, 2, 4 or 8 devices of a cell
 * more. Groups that lose devices are taken apart; the search makes something of what is left of them. */
#include "services/planner/money/plan_money_impl.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define CELLS_OF_TYPE 2 /* cells of a type that devices are added to: the fullest and the emptiest */
#define ADD_MAX       8
#define TAKE_MAX      4

struct neighbours {
    struct plan_money *m;
    uint32_t *used;  /* devices of each cell in the centre */
    uint32_t *cells; /* to add to */
    uint32_t cell_count;
    double *worth; /* of one device of each cell in the centre */
};

static uint32_t cell_of(const struct plan_money *m, uint32_t gpu)
{
    uint32_t c = 0;
    while (c + 1 < m->cluster->cell_count && m->cell_first[c + 1] <= gpu)
        c++;
    return c;
}

/* Groups of equal phase on the same cells are interchangeable. */
static uint64_t signature(const struct plan_money *m, const struct ts_group *group)
{
    uint64_t hash = ts_splitmix64((uint64_t)group->phase);
    for (uint32_t s = 0; s < group->stage_count; s++)
        hash =
            ts_splitmix64(hash ^ ((uint64_t)cell_of(m, group->stages[s].gpus[0]) << 8 | group->stages[s].tp));
    return hash;
}

static uint32_t room(const struct neighbours *n, uint32_t cell)
{
    return n->m->cluster->cells[cell].count - n->used[cell];
}

static void choose_cells(struct neighbours *n)
{
    const struct ts_cluster *cluster = n->m->cluster;
    for (uint32_t t = 0; t < cluster->type_count; t++) {
        uint32_t best[CELLS_OF_TYPE] = {UINT32_MAX, UINT32_MAX};
        for (uint32_t c = 0; c < cluster->cell_count; c++) {
            if (cluster->cells[c].type != t || room(n, c) == 0)
                continue;
            if (best[0] == UINT32_MAX || n->used[c] > n->used[best[0]])
                best[0] = c;
            if (best[1] == UINT32_MAX || room(n, c) > room(n, best[1]))
                best[1] = c;
        }
        for (int i = 0; i < CELLS_OF_TYPE; i++) {
            if (best[i] != UINT32_MAX && (i == 0 || best[1] != best[0]))
                n->cells[n->cell_count++] = best[i];
        }
    }
}

/* A move of this price change and expected change of the objective, if the goal wants it. */
static void offer(struct neighbours *n, struct money_move move, double dollars, double gain)
{
    struct plan_money *m = n->m;
    double price = m->centre_price + dollars, expected = m->centre_objective + gain;
    bool reached = m->target > 0 && money_reaches(m, m->objective);
    if (price > m->budget + MONEY_EPS || (reached && price >= m->price - MONEY_EPS))
        return;
    if (m->target > 0 && !money_reaches(m, m->centre_objective) && gain <= 0)
        return;
    /* Cheaper at the target: the saving, less what the expected shortfall would cost at the present rate. */
    double rate = m->centre_price / fmax(m->centre_objective, MONEY_EPS);
    move.rank = reached ? m->price - price - rate * fmax(0, m->target - expected)
                        : gain - dollars * 1e-3 / fmax(rate, MONEY_EPS);
    ts_array_reserve((void **)&m->moves, &m->move_capacity, m->move_count + 1, sizeof *m->moves);
    m->moves[m->move_count++] = move;
}

/* What the devices of a cell would add, by what their type does alone; a type that cannot stand alone may
 * still help others. */
static double gain_of(const struct neighbours *n, uint32_t cell, uint32_t count)
{
    return n->m->type_value[n->m->cluster->cells[cell].type] * count;
}

/* The move as it is, and with devices added. */
static void offer_with_additions(struct neighbours *n, struct money_move move, double dollars, double gain)
{
    struct plan_money *m = n->m;
    offer(n, move, dollars, gain);
    for (uint32_t i = 0; i < n->cell_count; i++) {
        uint32_t cell = n->cells[i];
        double price = money_price_of_type(m, m->cluster->cells[cell].type);
        if (move.from_count > 0 && move.from == cell)
            continue; /* as with fewer of both */
        for (uint32_t count = 1; count <= ADD_MAX && count <= room(n, cell); count *= 2) {
            move.cell = cell;
            move.count = count;
            offer(n, move, dollars + price * count, gain + gain_of(n, cell, count));
        }
    }
}

static int by_rank(const void *a, const void *b)
{
    const struct money_move *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank > y->rank ? -1 : 1;
    if (x->drop != y->drop)
        return x->drop < y->drop ? -1 : 1;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    if (x->from_count != y->from_count)
        return x->from_count < y->from_count ? -1 : 1;
    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

static void offer_drops(struct neighbours *n, double per_use)
{
    struct plan_money *m = n->m;
    const struct ts_plan *plan = m->centre;
    uint64_t *seen = ts_xcalloc(plan->group_count + 1, sizeof *seen);
    for (uint32_t g = 0; g < plan->group_count; g++) {
        uint32_t same = 0;
        seen[g] = signature(m, &plan->groups[g]);
        while (seen[same] != seen[g])
            same++;
        if (same == g)
            offer_with_additions(n, (struct money_move){.drop = (int32_t)g},
                                 -money_group_price(m->cluster, &plan->groups[g]),
                                 -money_group_use(plan, g) * per_use);
    }
    ts_free(seen);
}

static void offer_takes(struct neighbours *n)
{
    const struct ts_cluster *cluster = n->m->cluster;
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        double price = money_price_of_type(n->m, cluster->cells[c].type);
        for (uint32_t count = 1; count <= TAKE_MAX && count <= n->used[c]; count *= 2)
            offer_with_additions(n, (struct money_move){.drop = -1, .from = c, .from_count = count},
                                 -price * count, -n->worth[c] * count);
    }
}

/* What the centre uses of each cell, and what a device there is worth: its share of its groups. */
static void count_use(struct neighbours *n, double per_use)
{
    const struct ts_plan *plan = n->m->centre;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        double share = money_group_use(plan, g) * per_use / ts_group_gpus(group);
        for (uint32_t s = 0; s < group->stage_count; s++) {
            uint32_t cell = cell_of(n->m, group->stages[s].gpus[0]);
            n->used[cell] += group->stages[s].tp;
            n->worth[cell] += share * group->stages[s].tp;
        }
    }
    for (uint32_t c = 0; c < n->m->cluster->cell_count; c++)
        n->worth[c] /= n->used[c] > 0 ? n->used[c] : 1;
}

void money_list_moves(struct plan_money *m)
{
    double use = 0;
    struct neighbours n = {.m = m};
    n.used = ts_xcalloc(m->cluster->cell_count + 1, sizeof *n.used);
    n.worth = ts_xcalloc(m->cluster->cell_count + 1, sizeof *n.worth);
    n.cells = ts_xcalloc((size_t)m->cluster->type_count * CELLS_OF_TYPE + 1, sizeof *n.cells);
    for (uint32_t g = 0; g < m->centre->group_count; g++)
        use += money_group_use(m->centre, g);
    double per_use = m->centre_objective / fmax(use, MONEY_EPS);
    count_use(&n, per_use);
    choose_cells(&n);
    m->move_count = m->move_next = 0;
    offer_with_additions(&n, (struct money_move){.drop = -1}, 0, 0);
    offer_drops(&n, per_use);
    offer_takes(&n);
    if (m->move_count > 0)
        qsort(m->moves, m->move_count, sizeof *m->moves, by_rank);
    ts_free(n.used);
    ts_free(n.worth);
    ts_free(n.cells);
}

/* Gives up devices of a cell: first those of the groups that have the fewest there. Groups that lose any are
 * no longer whole. */
static void give_up(struct plan_money *m, uint32_t cell, uint32_t count, bool *keep)
{
    const struct ts_plan *plan = m->centre;
    while (count > 0) {
        uint32_t least = UINT32_MAX, at = UINT32_MAX;
        for (uint32_t g = 0; g < plan->group_count; g++) {
            uint32_t here = 0;
            for (uint32_t s = 0; s < plan->groups[g].stage_count; s++)
                here +=
                    cell_of(m, plan->groups[g].stages[s].gpus[0]) == cell ? plan->groups[g].stages[s].tp : 0;
            if (keep[g] && here > 0 && here < least) {
                least = here;
                at = g;
            }
        }
        if (at == UINT32_MAX)
            return;
        keep[at] = false;
        for (uint32_t s = 0; s < plan->groups[at].stage_count; s++) {
            const struct ts_stage *stage = &plan->groups[at].stages[s];
            for (uint32_t i = 0; cell_of(m, stage->gpus[0]) == cell && i < stage->tp && count > 0;
                 i++, count--)
                m->alive[stage->gpus[i]] = false;
        }
    }
}

static bool judge_move(struct plan_money *m, const struct money_move *move)
{
    bool *keep = ts_xcalloc(m->centre->group_count + 1, sizeof *keep);
    for (uint32_t g = 0; g < m->centre->group_count; g++)
        keep[g] = move->drop < 0 || g != (uint32_t)move->drop;
    struct ts_plan *rest = money_plan_copy(m->centre, keep);
    money_clear_alive(m);
    money_set_alive(m, rest);
    ts_plan_destroy(&rest);
    give_up(m, move->from, move->from_count, keep);
    money_add_devices(m, move->cell, move->count);
    struct ts_plan *base = money_plan_copy(m->centre, keep);
    ts_free(keep);
    return money_judge(m, base, 1, false);
}

bool money_next_move(struct plan_money *m)
{
    while (m->move_next < m->move_count) {
        if (judge_move(m, &m->moves[m->move_next++]))
            return true;
    }
    return false;
}
