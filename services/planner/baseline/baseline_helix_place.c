#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_helix.h"
#include "services/planner/eval/plan_lp.h"

static double rate_of(const struct helix_problem *problem, uint32_t unit, uint32_t blocks)
{
    return problem->rate[(size_t)unit * (problem->blocks + 1) + blocks];
}

double helix_rate(const struct helix_problem *problem, const struct helix_placement *placement, uint32_t unit)
{
    uint32_t held = placement->end[unit] - placement->begin[unit];
    return held > 0 ? rate_of(problem, unit, held) : 0;
}

struct baseline_edge *helix_graph(const struct helix_problem *problem,
                                  const struct helix_placement *placement, uint32_t *edge_count)
{
    const uint32_t n = problem->units, source = 2 * n, sink = 2 * n + 1;
    uint32_t count = 0, room = 4 * n + 16;
    struct baseline_edge *edges = ts_xcalloc(room, sizeof *edges);
    for (uint32_t i = 0; i < n; i++) {
        double rate = helix_rate(problem, placement, i);
        if (!(rate > 0))
            continue;
        edges[count++] = (struct baseline_edge){2 * i, 2 * i + 1, rate, 0};
        if (placement->begin[i] == 0)
            edges[count++] = (struct baseline_edge){source, 2 * i, rate, 0};
        if (placement->end[i] == problem->blocks)
            edges[count++] = (struct baseline_edge){2 * i + 1, sink, rate, 0};
        for (uint32_t j = 0; j < n; j++) {
            if (j == i || placement->begin[j] != placement->end[i] ||
                !(helix_rate(problem, placement, j) > 0))
                continue;
            edges[count++] = (struct baseline_edge){2 * i + 1, 2 * j, problem->link[(size_t)i * n + j], 0};
            if (count + 8 > room)
                edges = ts_xrealloc(edges, (room *= 2) * sizeof *edges);
        }
        if (count + 8 > room)
            edges = ts_xrealloc(edges, (room *= 2) * sizeof *edges);
    }
    *edge_count = count;
    return edges;
}

double helix_flow(const struct helix_problem *problem, const struct helix_placement *placement)
{
    uint32_t count;
    struct baseline_edge *edges = helix_graph(problem, placement, &count);
    double value =
        baseline_max_flow(edges, count, 2 * problem->units + 2, 2 * problem->units, 2 * problem->units + 1);
    ts_free(edges);
    return value;
}

bool helix_stages(const struct helix_problem *problem, uint32_t stages, const bool *member,
                  struct helix_placement *placement)
{
    const uint32_t n = problem->units;
    double *sum = ts_xcalloc(stages, sizeof *sum);
    bool *placed = ts_xcalloc(n + 1, sizeof *placed), full = true;
    for (uint32_t i = 0; i < n; i++) {
        placed[i] = member && !member[i];
        if (!placed[i])
            placement->begin[i] = placement->end[i] = 0;
    }
    for (;;) {
        uint32_t next = UINT32_MAX, to = UINT32_MAX, held = (problem->blocks + stages - 1) / stages;
        for (uint32_t i = 0; i < n; i++) {
            if (!placed[i] &&
                (next == UINT32_MAX || rate_of(problem, i, held) > rate_of(problem, next, held)))
                next = i;
        }
        if (next == UINT32_MAX)
            break;
        placed[next] = true;
        for (uint32_t s = 0; s < stages; s++) {
            uint32_t from = s * problem->blocks / stages, until = (s + 1) * problem->blocks / stages;
            if (rate_of(problem, next, until - from) > 0 && (to == UINT32_MAX || sum[s] < sum[to]))
                to = s;
        }
        if (to == UINT32_MAX)
            continue;
        placement->begin[next] = to * problem->blocks / stages;
        placement->end[next] = (to + 1) * problem->blocks / stages;
        sum[to] += helix_rate(problem, placement, next);
    }
    for (uint32_t s = 0; s < stages; s++)
        full = full && sum[s] > 0;
    ts_free(sum);
    ts_free(placed);
    return full;
}

uint32_t helix_path(const struct helix_problem *problem, const struct baseline_edge *edges,
                    uint32_t edge_count, uint32_t *units)
{
    /* Widest path by rounds over the edges that carry flow: runs join up, so rounds are at most stages. */
    const uint32_t nodes = 2 * problem->units + 2, source = nodes - 2, sink = nodes - 1;
    double *width = ts_xcalloc(nodes, sizeof *width);
    uint32_t *from = ts_xcalloc(nodes, sizeof *from), length = 0;
    width[source] = INFINITY;
    for (bool grew = true; grew;) {
        grew = false;
        for (uint32_t i = 0; i < edge_count; i++) {
            double through = fmin(width[edges[i].from], edges[i].flow);
            if (through > width[edges[i].to]) {
                width[edges[i].to] = through;
                from[edges[i].to] = edges[i].from;
                grew = true;
            }
        }
    }
    if (width[sink] > 0) {
        for (uint32_t node = from[sink]; node != source; node = from[from[node]])
            units[length++] = node / 2; /* node is an exit; before it its entry */
    }
    for (uint32_t i = 0; i < length / 2; i++) {
        uint32_t swap = units[i];
        units[i] = units[length - 1 - i];
        units[length - 1 - i] = swap;
    }
    ts_free(width);
    ts_free(from);
    return length;
}

/* --- The mixed-integer program. Rows of unit i:
 *
 *     hold    sum_m b_im <= 1                                     b_im: i holds m blocks
 *     last    s_i + sum_m m b_im <= B                             s_i: its first block
 *     out     flow in - flow out <= 0
 *     pass    flow in - sum_m T_i(m) b_im <= 0
 *     first   s_i + B d_source,i <= B                             d: the edge may carry flow
 *     final   B d_i,sink - s_i - sum_m m b_im <= 0
 *
 * and of each pair joined up and joined down, |e_i - s_j| <= B (1 - d_ij), and of each edge  f <= cap d. ---
 */

enum { HOLD, LAST, OUT, PASS, FIRST, FINAL, SOURCE_CAP, SINK_CAP, UNIT_ROWS };
enum { UP, DOWN, PAIR_CAP, PAIR_ROWS };

struct program {
    const struct helix_problem *problem;
    struct plan_lp *lp;
    uint32_t start, hold; /* first columns of s and b */
};

static uint32_t unit_row(uint32_t unit, uint32_t kind)
{
    return unit * UNIT_ROWS + kind;
}

static uint32_t pair_row(const struct program *p, uint32_t i, uint32_t j, uint32_t kind)
{
    const uint32_t n = p->problem->units;
    return n * UNIT_ROWS + (i * n + j) * PAIR_ROWS + kind;
}

static void add_rows(struct program *p)
{
    const double blocks = p->problem->blocks;
    const double unit[UNIT_ROWS] = {[HOLD] = 1, [LAST] = blocks, [FIRST] = blocks};
    const double pair[PAIR_ROWS] = {[UP] = blocks, [DOWN] = blocks};
    for (uint32_t i = 0; i < p->problem->units; i++) {
        for (uint32_t kind = 0; kind < UNIT_ROWS; kind++)
            (void)plan_lp_add_row(p->lp, unit[kind]);
    }
    for (uint32_t i = 0; i < p->problem->units * p->problem->units; i++) {
        for (uint32_t kind = 0; kind < PAIR_ROWS; kind++)
            (void)plan_lp_add_row(p->lp, pair[kind]);
    }
}

/* A column of s_i (`blocks` 1, no rate) or b_im: both move the end of the unit's run; s_i its begin, too. */
static uint32_t add_run(struct program *p, uint32_t i, uint32_t blocks, bool start)
{
    const uint32_t n = p->problem->units;
    struct plan_lp_term *terms = ts_xcalloc((size_t)6 + 4 * n, sizeof *terms);
    const double m = start ? 1 : blocks;
    uint32_t count = 0;
    terms[count++] = (struct plan_lp_term){unit_row(i, LAST), m};
    terms[count++] = (struct plan_lp_term){unit_row(i, FINAL), -m};
    if (start) {
        terms[count++] = (struct plan_lp_term){unit_row(i, FIRST), 1};
    } else {
        terms[count++] = (struct plan_lp_term){unit_row(i, HOLD), 1};
        terms[count++] = (struct plan_lp_term){unit_row(i, PASS), -rate_of(p->problem, i, blocks)};
    }
    for (uint32_t j = 0; j < n; j++) {
        if (j == i)
            continue;
        terms[count++] = (struct plan_lp_term){pair_row(p, i, j, UP), m};
        terms[count++] = (struct plan_lp_term){pair_row(p, i, j, DOWN), -m};
        if (start) {
            terms[count++] = (struct plan_lp_term){pair_row(p, j, i, UP), -1};
            terms[count++] = (struct plan_lp_term){pair_row(p, j, i, DOWN), 1};
        }
    }
    uint32_t column = plan_lp_add_column(p->lp, 0, terms, count);
    ts_free(terms);
    return column;
}

static void add_switch(struct program *p, const struct plan_lp_term *terms, uint32_t count)
{
    plan_lp_set_integer(p->lp, plan_lp_add_column(p->lp, 0, terms, count));
}

static void add_edges(struct program *p)
{
    const uint32_t n = p->problem->units;
    const double blocks = p->problem->blocks;
    for (uint32_t i = 0; i < n; i++) {
        double most = 0;
        for (uint32_t m = 1; m <= p->problem->blocks; m++)
            most = fmax(most, rate_of(p->problem, i, m));
        struct plan_lp_term source[] = {{unit_row(i, FIRST), blocks}, {unit_row(i, SOURCE_CAP), -most}};
        struct plan_lp_term sink[] = {{unit_row(i, FINAL), blocks}, {unit_row(i, SINK_CAP), -most}};
        struct plan_lp_term in[] = {
            {unit_row(i, OUT), 1}, {unit_row(i, PASS), 1}, {unit_row(i, SOURCE_CAP), 1}};
        struct plan_lp_term out[] = {{unit_row(i, OUT), -1}, {unit_row(i, SINK_CAP), 1}};
        add_switch(p, source, TS_ARRAY_SIZE(source));
        add_switch(p, sink, TS_ARRAY_SIZE(sink));
        (void)plan_lp_add_column(p->lp, 1, in, TS_ARRAY_SIZE(in));
        (void)plan_lp_add_column(p->lp, 0, out, TS_ARRAY_SIZE(out));
        for (uint32_t j = 0; j < n; j++) {
            if (i == j)
                continue;
            double cap = fmin(p->problem->link[(size_t)i * n + j], most);
            struct plan_lp_term open[] = {{pair_row(p, i, j, UP), blocks},
                                          {pair_row(p, i, j, DOWN), blocks},
                                          {pair_row(p, i, j, PAIR_CAP), -cap}};
            struct plan_lp_term flow[] = {{unit_row(i, OUT), -1},
                                          {unit_row(j, OUT), 1},
                                          {unit_row(j, PASS), 1},
                                          {pair_row(p, i, j, PAIR_CAP), 1}};
            add_switch(p, open, TS_ARRAY_SIZE(open));
            (void)plan_lp_add_column(p->lp, 0, flow, TS_ARRAY_SIZE(flow));
        }
    }
}

static void read_placement(const struct program *p, struct helix_placement *placement)
{
    for (uint32_t i = 0; i < p->problem->units; i++) {
        uint32_t held = 0;
        for (uint32_t m = 1; m <= p->problem->blocks; m++) {
            if (plan_lp_value(p->lp, p->hold + i * p->problem->blocks + m - 1) > 0.5)
                held = m;
        }
        placement->begin[i] = (uint32_t)lround(plan_lp_value(p->lp, p->start + i));
        placement->end[i] = placement->begin[i] + held;
        if (placement->end[i] > p->problem->blocks)
            placement->begin[i] = placement->end[i] = 0;
    }
}

enum ts_status helix_exact(const struct helix_problem *problem, double seconds,
                           struct helix_placement *placement, double *flow, struct ts_error *err)
{
    struct program p = {.problem = problem, .lp = plan_lp_new()};
    add_rows(&p);
    for (uint32_t i = 0; i < problem->units; i++) {
        uint32_t column = add_run(&p, i, 1, true);
        p.start = i == 0 ? column : p.start;
    }
    for (uint32_t i = 0; i < problem->units; i++) {
        for (uint32_t m = 1; m <= problem->blocks; m++) {
            uint32_t column = add_run(&p, i, m, false);
            plan_lp_set_integer(p.lp, column);
            p.hold = i == 0 && m == 1 ? column : p.hold;
        }
    }
    add_edges(&p);
    enum ts_status status = plan_lp_solve_integer(p.lp, seconds, err);
    if (status == TS_OK) {
        read_placement(&p, placement);
        *flow = helix_flow(problem, placement);
    }
    plan_lp_destroy(&p.lp);
    return status;
}
