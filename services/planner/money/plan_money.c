#include "services/planner/money/plan_money_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define POINTS_DEFAULT  12
#define POINTS_MAX      200
#define BOUND_WORK      200 /* of one solution of the fractional program */
#define EFFORT_ANY      500 /* work of one search: so much, and so much for each device */
#define EFFORT_MOST     8000
#define EFFORT_DEVICE   60
#define JUDGE_WORK      16  /* of opening a search, beside what it does itself */
#define TRIED_MAX       300 /* purchases of one exchange */
#define CENTRES         4
#define EXCHANGE_WORK   400000 /* and no new one beyond so much work */
#define TRIED_MAX_POINT 24     /* of that at one point of a frontier */

/* --- Opening and closing --- */

static enum ts_status check_ask(const struct plan_money_ask *ask, struct ts_error *err)
{
    if (ask->goal == PLAN_MONEY_BUDGET && !(ask->dollars_per_hour > 0 && ask->dollars_per_hour <= 1e9))
        return ts_error_set(err, TS_EINVAL, "budget = %g $/h: expected a number above 0 and up to 1e9",
                            ask->dollars_per_hour);
    if (ask->goal == PLAN_MONEY_TARGET && !(ask->objective > 0 && ask->objective <= 1e9))
        return ts_error_set(err, TS_EINVAL, "target = %g: expected a number above 0 and up to 1e9",
                            ask->objective);
    if (ask->points > POINTS_MAX)
        return ts_error_set(err, TS_EINVAL, "points = %u: expected up to %d", ask->points, POINTS_MAX);
    return TS_OK;
}

/* The cluster with all its devices alive. */
static struct ts_cluster *all_offers(const struct ts_cluster *cluster, struct ts_error *err)
{
    struct ts_cluster *all = ts_cluster_copy(cluster);
    for (uint32_t i = 0; i < all->gpu_count; i++)
        all->gpus[i].alive = true;
    if (ts_cluster_seal(all, err) != TS_OK)
        ts_cluster_destroy(&all);
    return all;
}

static void allocate(struct plan_money *m)
{
    m->cell_first = ts_xcalloc(m->cluster->cell_count + 1, sizeof *m->cell_first);
    for (uint32_t c = 1; c < m->cluster->cell_count; c++)
        m->cell_first[c] = m->cell_first[c - 1] + m->cluster->cells[c - 1].count;
    m->alive = ts_xcalloc(m->cluster->gpu_count + 1, sizeof *m->alive);
    m->type_value = ts_xcalloc(m->cluster->type_count + 1, sizeof *m->type_value);
    m->fraction = ts_xcalloc(m->cluster->type_count + 1, sizeof *m->fraction);
    m->shapes = plan_shapes_new(&m->problem);
    m->bound = plan_bound_new(m->shapes);
}

static void set_goal(struct plan_money *m)
{
    double all = ts_cluster_price_per_hour(m->cluster);
    m->target = m->ask.goal == PLAN_MONEY_TARGET ? m->ask.objective : 0;
    m->budget = m->ask.goal == PLAN_MONEY_BUDGET ? m->ask.dollars_per_hour : INFINITY;
    if (m->ask.goal == PLAN_MONEY_FRONTIER)
        m->budget = all * (m->point + 1) / m->ask.points;
}

struct plan_money *plan_money_open(const struct plan_problem *offers, const struct plan_money_ask *ask,
                                   struct ts_error *err)
{
    struct ts_cluster *all = check_ask(ask, err) == TS_OK ? all_offers(offers->cluster, err) : NULL;
    if (!all)
        return NULL;
    struct plan_money *m = ts_xcalloc(1, sizeof *m);
    m->problem = *offers;
    m->problem.cluster = m->cluster = all;
    m->problem.depth = PLAN_REGROUP;
    m->ask = *ask;
    if (plan_problem_check(&m->problem, err) != TS_OK) {
        plan_money_close(&m);
        return NULL;
    }
    if (m->ask.points == 0)
        m->ask.points = POINTS_DEFAULT;
    m->algorithm = ask->algorithm ? ask->algorithm : &plan_algorithm_thunder;
    m->bound_value = NAN;
    allocate(m);
    set_goal(m);
    return m;
}

static void end_judgement(struct plan_money *m)
{
    if (m->search)
        m->algorithm->close(&m->search);
    ts_plan_destroy(&m->base);
    ts_cluster_destroy(&m->sub);
}

void plan_money_close(struct plan_money **money)
{
    struct plan_money *m = *money;
    if (!m)
        return;
    end_judgement(m);
    for (uint32_t i = 0; i < m->point_count; i++) {
        struct ts_plan *plan = (struct ts_plan *)m->points[i].plan; /* made and owned here */
        ts_plan_destroy(&plan);
    }
    ts_plan_destroy(&m->incumbent);
    ts_plan_destroy(&m->centre);
    ts_plan_destroy(&m->all_plan);
    plan_bound_destroy(&m->bound);
    plan_shapes_destroy(&m->shapes);
    ts_cluster_destroy(&m->cluster);
    ts_free(m->points);
    ts_free(m->cell_first);
    ts_free(m->alive);
    ts_free(m->type_value);
    ts_free(m->fraction);
    ts_free(m->moves);
    ts_free(m->seen);
    ts_free(m);
    *money = NULL;
}

/* --- Purchases --- */

void money_clear_alive(struct plan_money *m)
{
    memset(m->alive, 0, m->cluster->gpu_count * sizeof *m->alive);
}

void money_set_alive(struct plan_money *m, const struct ts_plan *plan)
{
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        for (uint32_t s = 0; s < group->stage_count; s++) {
            for (uint32_t i = 0; i < group->stages[s].tp; i++)
                m->alive[group->stages[s].gpus[i]] = true;
        }
    }
}

void money_add_devices(struct plan_money *m, uint32_t cell, uint32_t count)
{
    uint32_t first = m->cell_first[cell];
    for (uint32_t i = first; i < first + m->cluster->cells[cell].count && count > 0; i++) {
        count -= !m->alive[i];
        m->alive[i] = true;
    }
}

double money_price_of_type(const struct plan_money *m, uint32_t type)
{
    return m->cluster->types[type].price_per_hour;
}

/* Equal for purchases of equally many devices in each cell. */
static uint64_t hash_alive(const struct plan_money *m)
{
    uint64_t hash = 1;
    for (uint32_t c = 0; c < m->cluster->cell_count; c++) {
        uint64_t count = 0;
        for (uint32_t i = 0; i < m->cluster->cells[c].count; i++)
            count += m->alive[m->cell_first[c] + i];
        hash = ts_splitmix64(hash ^ count);
    }
    return hash;
}

static bool first_time(struct plan_money *m)
{
    uint64_t hash = hash_alive(m);
    for (size_t i = 0; i < m->seen_count; i++) {
        if (m->seen[i] == hash)
            return false;
    }
    ts_array_reserve((void **)&m->seen, &m->seen_capacity, m->seen_count + 1, sizeof *m->seen);
    m->seen[m->seen_count++] = hash;
    return true;
}

/* By the devices that the search has to place. */
static uint64_t effort_of(const struct plan_money *m)
{
    uint64_t devices = 0;
    for (uint32_t i = 0; i < m->cluster->gpu_count; i++)
        devices += m->alive[i];
    uint64_t usual = EFFORT_ANY + EFFORT_DEVICE * devices;
    return m->ask.effort ? m->ask.effort : usual < EFFORT_MOST ? usual : EFFORT_MOST;
}

bool money_judge(struct plan_money *m, struct ts_plan *base, uint32_t times, bool again)
{
    TS_ASSERT(!m->search);
    m->base = base;
    m->spent++;
    bool fresh = first_time(m);
    if (fresh || again) {
        m->sub = ts_cluster_copy(m->cluster);
        for (uint32_t i = 0; i < m->sub->gpu_count; i++)
            m->sub->gpus[i].alive = m->alive[i];
        m->sub_problem = m->problem;
        m->sub_problem.cluster = m->sub;
        m->sub_problem.current = base && base->group_count > 0 ? base : NULL;
        if (ts_cluster_seal(m->sub, NULL) == TS_OK && plan_problem_check(&m->sub_problem, NULL) == TS_OK)
            m->search = m->algorithm->open(&m->sub_problem, NULL);
    }
    if (!m->search) {
        end_judgement(m);
        return false;
    }
    m->spent += JUDGE_WORK;
    m->search_spent = 0;
    m->search_effort = effort_of(m) * times;
    m->purchases++;
    return true;
}

/* --- Points --- */

bool money_reaches(const struct plan_money *m, double objective)
{
    return objective >= m->target - MONEY_EPS;
}

/* Keeps what no other purchase beats. */
static void add_point(struct plan_money *m, const struct ts_plan *plan, double price, double objective)
{
    uint32_t kept = 0, at;
    for (uint32_t i = 0; i < m->point_count; i++) {
        const struct plan_money_point *other = &m->points[i];
        if (other->dollars_per_hour <= price + MONEY_EPS && other->objective >= objective - MONEY_EPS)
            return;
    }
    for (uint32_t i = 0; i < m->point_count; i++) {
        struct plan_money_point *other = &m->points[i];
        if (other->dollars_per_hour >= price - MONEY_EPS && other->objective <= objective + MONEY_EPS) {
            struct ts_plan *beaten = (struct ts_plan *)other->plan;
            ts_plan_destroy(&beaten);
        } else {
            m->points[kept++] = *other;
        }
    }
    ts_array_reserve((void **)&m->points, &m->point_capacity, kept + 1, sizeof *m->points);
    for (at = kept; at > 0 && m->points[at - 1].dollars_per_hour > price; at--)
        m->points[at] = m->points[at - 1];
    m->points[at] = (struct plan_money_point){price, objective, NAN, money_plan_copy(plan, NULL)};
    m->point_count = kept + 1;
}

static bool is_better(const struct plan_money *m, double price, double objective)
{
    bool reaches = money_reaches(m, objective);
    if (price > m->budget + MONEY_EPS)
        return false;
    if (!m->incumbent)
        return true;
    if (m->target > 0 && reaches != money_reaches(m, m->objective))
        return reaches;
    double more = objective - m->objective, cheaper = m->price - price;
    if (m->target > 0 && reaches)
        return cheaper > MONEY_EPS || (cheaper > -MONEY_EPS && more > MONEY_EPS);
    double least = MONEY_EPS * (1 + fabs(m->objective));
    return more > least || (more > -least && cheaper > MONEY_EPS);
}

/* The cheapest, or the best, of the points so far as incumbent of a new goal. */
static void take_incumbent(struct plan_money *m)
{
    ts_plan_destroy(&m->incumbent);
    for (uint32_t i = 0; i < m->point_count; i++) {
        const struct plan_money_point *point = &m->points[i];
        if (!is_better(m, point->dollars_per_hour, point->objective))
            continue;
        ts_plan_destroy(&m->incumbent);
        m->incumbent = money_plan_copy(point->plan, NULL);
        m->price = point->dollars_per_hour;
        m->objective = point->objective;
    }
}

/* The purchase at hand has been judged. */
static void finish_judgement(struct plan_money *m)
{
    struct ts_plan *plan = m->algorithm->best(m->search);
    m->last_objective = -1;
    m->last_devices = 0;
    if (plan) {
        money_plan_prune(&plan);
        double price = money_plan_price(m->cluster, plan);
        plan->price_per_hour = price;
        m->last_objective = plan->objective;
        m->last_devices = money_plan_devices(plan);
        if (plan->group_count > 0)
            add_point(m, plan, price, plan->objective);
        if (plan->group_count > 0 && is_better(m, price, plan->objective)) {
            ts_plan_destroy(&m->incumbent);
            m->incumbent = money_plan_copy(plan, NULL);
            m->price = price;
            m->objective = plan->objective;
            m->centres = 0; /* begin around it */
            ts_plan_destroy(&m->centre);
        }
        if (!m->all_plan)
            m->all_plan = money_plan_copy(plan, NULL);
        ts_plan_destroy(&plan);
    }
    end_judgement(m);
}

/* --- The machine --- */

static void step_bound(struct plan_money *m)
{
    if (money_start_all(m))
        return;
    m->spent += BOUND_WORK;
    if (money_fraction(m))
        m->stage = MONEY_STARTS;
}

static void step_starts(struct plan_money *m)
{
    if (money_next_start(m))
        return;
    if (m->ask.goal == PLAN_MONEY_FRONTIER)
        take_incumbent(m);
    m->tried = m->centres = 0;
    m->exchange_from = m->spent;
    ts_plan_destroy(&m->centre);
    m->stage = MONEY_EXCHANGE;
}

/* The next centre to exchange around; false when enough have been. */
static bool next_centre(struct plan_money *m)
{
    const struct plan_money_point *point = NULL;
    uint32_t below = 0;
    ts_plan_destroy(&m->centre);
    if (!m->incumbent || m->centres >= CENTRES)
        return false;
    for (uint32_t i = m->point_count; m->centres > 0 && i-- > 0 && !point;) {
        if (m->points[i].dollars_per_hour < m->price - MONEY_EPS && ++below == m->centres)
            point = &m->points[i];
    }
    if (m->centres > 0 && !point)
        return false;
    m->centre = money_plan_copy(point ? point->plan : m->incumbent, NULL);
    m->centre_price = point ? point->dollars_per_hour : m->price;
    m->centre_objective = point ? point->objective : m->objective;
    m->centres++;
    money_list_moves(m);
    return true;
}

static void step_exchange(struct plan_money *m)
{
    uint32_t most = m->ask.goal == PLAN_MONEY_FRONTIER ? TRIED_MAX_POINT : TRIED_MAX;
    uint64_t work = m->ask.goal == PLAN_MONEY_FRONTIER ? EXCHANGE_WORK / m->ask.points : EXCHANGE_WORK;
    m->spent++;
    if (m->spent - m->exchange_from > work)
        most = 0;
    if (m->tried < most && m->centre && money_next_move(m)) {
        m->tried++;
        return;
    }
    if (m->tried < most && next_centre(m))
        return;
    m->stage = MONEY_POLISH;
    if (m->incumbent) {
        money_clear_alive(m);
        money_set_alive(m, m->incumbent);
        (void)money_judge(m, money_plan_copy(m->incumbent, NULL), MONEY_MORE, true);
    }
}

static void step_polish(struct plan_money *m)
{
    m->spent++;
    if (m->ask.goal == PLAN_MONEY_FRONTIER && m->point + 1 < m->ask.points) {
        m->point++;
        set_goal(m);
        take_incumbent(m);
        m->start = m->attempt = 0;
        m->stage = MONEY_BOUND;
        return;
    }
    m->point = 0;
    m->stage = MONEY_LIMITS;
}

static void step_limits(struct plan_money *m)
{
    m->spent += BOUND_WORK;
    if (m->point >= m->point_count) {
        m->stage = MONEY_DONE;
        return;
    }
    struct plan_money_point *point = &m->points[m->point++];
    point->bound = plan_bound_budget(m->bound, fmax(point->dollars_per_hour, MONEY_EPS), NULL);
}

static void step_search(struct plan_money *m)
{
    uint64_t chunk = m->allowed - m->spent, left = m->search_effort - m->search_spent;
    chunk = chunk < left ? chunk : left;
    bool done = m->algorithm->step(m->search, chunk);
    m->spent += chunk;
    m->search_spent += chunk;
    if (done || m->search_spent >= m->search_effort)
        finish_judgement(m);
}

bool plan_money_step(struct plan_money *m, uint64_t budget)
{
    m->allowed = m->allowed + budget < budget ? UINT64_MAX : m->allowed + budget;
    while (m->stage != MONEY_DONE && m->spent < m->allowed) {
        if (m->search)
            step_search(m);
        else if (m->stage == MONEY_BOUND)
            step_bound(m);
        else if (m->stage == MONEY_STARTS)
            step_starts(m);
        else if (m->stage == MONEY_EXCHANGE)
            step_exchange(m);
        else if (m->stage == MONEY_POLISH)
            step_polish(m);
        else
            step_limits(m);
    }
    return m->stage == MONEY_DONE;
}

const struct plan_money_point *plan_money_best(const struct plan_money *m)
{
    const struct plan_money_point *best = NULL;
    double budget = m->ask.goal == PLAN_MONEY_BUDGET ? m->budget : INFINITY;
    for (uint32_t i = 0; i < m->point_count; i++) {
        const struct plan_money_point *point = &m->points[i];
        if (point->dollars_per_hour > budget + MONEY_EPS)
            break;
        best = point; /* dearer points have more objective */
        if (m->ask.goal == PLAN_MONEY_TARGET && money_reaches(m, point->objective))
            return point;
    }
    return m->ask.goal == PLAN_MONEY_TARGET ? NULL : best;
}

const struct plan_money_point *plan_money_frontier(const struct plan_money *m, uint32_t *count)
{
    *count = m->point_count;
    return m->points;
}

double plan_money_bound(const struct plan_money *m)
{
    return m->bound_value;
}

void plan_money_describe(const struct plan_money *m, char *out, size_t size)
{
    const struct plan_money_point *best = plan_money_best(m);
    if (best)
        snprintf(out, size, "purchases %u, best %.4f for %.3f $/h", m->purchases, best->objective,
                 best->dollars_per_hour);
    else
        snprintf(out, size, "purchases %u, no answer yet", m->purchases);
}
