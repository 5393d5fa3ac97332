/* Purchases to begin with. Each start is one purchase, or a few that halve an interval until the least one
 * that reaches the target is found. */
#include "services/planner/money/plan_money_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define BISECTIONS   10 /* of the price of a target: to a part in 1,000 of all offers */
#define FRACTION_TRY 4  /* purchases made of one fractional one, each larger */

enum { START_ALL, START_FRACTION, START_TRIM, START_TYPES };

/* --- The fractional purchase --- */

/* Halves for the least dollars with which the fractional program reaches the target; what is cheaper cannot.
 */
static bool fraction_for_target(struct plan_money *m)
{
    if (m->bisections == 0) {
        m->bound_value = 0;
        m->fraction_price = ts_cluster_price_per_hour(m->cluster);
    }
    if (m->bisections++ == BISECTIONS) {
        (void)plan_bound_budget(m->bound, m->fraction_price, m->fraction);
        return true;
    }
    double middle = (m->bound_value + m->fraction_price) / 2;
    if (plan_bound_budget(m->bound, middle, NULL) >= m->target)
        m->fraction_price = middle;
    else
        m->bound_value = middle;
    return false;
}

bool money_fraction(struct plan_money *m)
{
    if (m->ask.goal == PLAN_MONEY_TARGET)
        return fraction_for_target(m);
    double value = plan_bound_budget(m->bound, m->budget, m->fraction);
    if (m->ask.goal == PLAN_MONEY_BUDGET)
        m->bound_value = value;
    else if (m->point == 0)
        m->bound_value = plan_bound_budget(m->bound, 0, NULL);
    return true;
}

static uint32_t offered(const struct plan_money *m, uint32_t type)
{
    uint32_t count = 0;
    for (uint32_t c = 0; c < m->cluster->cell_count; c++)
        count += m->cluster->cells[c].type == type ? m->cluster->cells[c].count : 0;
    return count;
}

/* `count` devices of a type, cell by cell. */
static void buy(struct plan_money *m, uint32_t type, uint32_t count)
{
    for (uint32_t c = 0; c < m->cluster->cell_count && count > 0; c++) {
        const struct ts_cell *cell = &m->cluster->cells[c];
        uint32_t take = cell->count < count ? cell->count : count;
        if (cell->type != type)
            continue;
        money_add_devices(m, c, take);
        count -= take;
    }
}

/* Rounded down, then up from the largest remainder as far as the money goes (a target: all up). Each further
 * attempt buys a tenth more. */
static bool start_fraction(struct plan_money *m)
{
    uint32_t types = m->cluster->type_count;
    double *rest = ts_xcalloc(types, sizeof *rest), price = 0;
    bool reached = m->attempt > 0 && (m->target <= 0 || money_reaches(m, m->last_objective));
    bool more = m->attempt < FRACTION_TRY && !reached;
    money_clear_alive(m);
    for (uint32_t t = 0; t < types && more; t++) {
        double want = fmin(m->fraction[t] * (1 + 0.1 * m->attempt), offered(m, t));
        double whole = m->target > 0 ? ceil(want - 1e-6) : floor(want + 1e-6);
        rest[t] = want - whole;
        price += whole * money_price_of_type(m, t);
        buy(m, t, (uint32_t)whole);
        m->fraction[t] = m->target > 0 ? m->fraction[t] : whole;
    }
    for (bool found = more && m->target <= 0; found;) {
        uint32_t next = types;
        for (uint32_t t = 0; t < types; t++) {
            if (rest[t] > 0 && price + money_price_of_type(m, t) <= m->budget &&
                (next == types || rest[t] > rest[next]))
                next = t;
        }
        found = next < types;
        if (!found)
            break;
        price += money_price_of_type(m, next);
        rest[next] = 0;
        money_clear_alive(m);
        m->fraction[next]++;
        for (uint32_t t = 0; t < types; t++)
            buy(m, t, (uint32_t)m->fraction[t]);
    }
    ts_free(rest);
    m->attempt++;
    return more && money_judge(m, NULL, 1, false);
}

/* --- The plan of all offers, less what is least useful for its price --- */

struct ranked {
    uint32_t group;
    double use_per_dollar;
};

static int by_use(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->use_per_dollar != y->use_per_dollar)
        return x->use_per_dollar > y->use_per_dollar ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

/* The first `count` groups by use per dollar that the budget allows. */
static bool judge_trimmed(struct plan_money *m, uint32_t count)
{
    const struct ts_plan *all = m->all_plan;
    struct ranked *order = ts_xcalloc(all->group_count + 1, sizeof *order);
    bool *keep = ts_xcalloc(all->group_count + 1, sizeof *keep);
    double price = 0;
    for (uint32_t g = 0; g < all->group_count; g++) {
        double dollars = money_group_price(m->cluster, &all->groups[g]);
        order[g] = (struct ranked){g, money_group_use(all, g) / fmax(dollars, MONEY_EPS)};
    }
    qsort(order, all->group_count, sizeof *order, by_use);
    for (uint32_t i = 0; i < all->group_count && count > 0; i++) {
        double dollars = money_group_price(m->cluster, &all->groups[order[i].group]);
        if (price + dollars > m->budget + MONEY_EPS)
            continue;
        keep[order[i].group] = true;
        price += dollars;
        count--;
    }
    struct ts_plan *base = money_plan_copy(all, keep);
    ts_free(order);
    ts_free(keep);
    money_clear_alive(m);
    money_set_alive(m, base);
    return money_judge(m, base, 1, false);
}

/* --- Halving --- */

/* What was tried last has been judged: halves the interval. False when it is closed. */
static bool halve(struct plan_money *m, uint32_t most, uint32_t *size)
{
    uint32_t tried = *size;
    if (m->attempt == 0)
        m->ladder = (struct money_ladder){0, most};
    else if (m->last_objective >= 0 && money_reaches(m, m->last_objective))
        m->ladder.reaches = tried;
    else
        m->ladder.fails = tried;
    m->attempt++;
    *size = m->ladder.fails + (m->ladder.reaches - m->ladder.fails) / 2;
    return *size > m->ladder.fails && m->ladder.reaches - m->ladder.fails > 1;
}

/* One size with a budget; with a target the least that reaches it. */
static bool next_size(struct plan_money *m, uint32_t most, uint32_t *size)
{
    if (m->target > 0)
        return halve(m, most, size);
    *size = most;
    return m->attempt++ == 0 && most > 0;
}

static bool start_trim(struct plan_money *m)
{
    while (m->all_plan && next_size(m, m->all_plan->group_count, &m->size)) {
        m->last_objective = -1;
        if (judge_trimmed(m, m->size))
            return true;
    }
    return false;
}

static bool start_type(struct plan_money *m, uint32_t type)
{
    double price = money_price_of_type(m, type),
           affordable = price > 0 ? floor(m->budget / price + 1e-6) : INFINITY;
    uint32_t most = (uint32_t)fmin(offered(m, type), affordable);
    if (m->attempt > 0 && m->last_objective > 0 && m->last_devices > 0)
        m->type_value[type] = fmax(m->type_value[type], m->last_objective / m->last_devices);
    while (next_size(m, most + (m->target > 0), &m->size)) {
        m->last_objective = -1;
        m->last_devices = 0;
        money_clear_alive(m);
        buy(m, type, m->size);
        if (money_judge(m, NULL, 1, false))
            return true;
    }
    return false;
}

bool money_start_all(struct plan_money *m)
{
    if (m->start != START_ALL || m->all_plan || m->attempt++ > 0)
        return false;
    memset(m->alive, true, m->cluster->gpu_count * sizeof *m->alive);
    struct ts_plan *base = m->problem.current ? money_plan_copy(m->problem.current, NULL) : NULL;
    return money_judge(m, base, MONEY_MORE, false);
}

bool money_next_start(struct plan_money *m)
{
    for (; m->start < START_TYPES + m->cluster->type_count; m->start++, m->attempt = 0) {
        bool opened = false;
        if (m->start == START_FRACTION) {
            opened = start_fraction(m);
        } else if (m->start == START_TRIM) {
            opened = start_trim(m);
        } else if (m->start >= START_TYPES) {
            opened = start_type(m, m->start - START_TYPES);
        }
        if (opened)
            return true;
    }
    return false;
}
