/*
 * What the search starts from. Three kinds, as one would lay a cluster out by hand:
 *
 *   by score     each cell is cut into the groups whose scores (plan_shape_score) sum up highest, once as if
 *                all of it did prefill and once decode; cells that are relatively better at prefill do it,
 *                and the cut between both is where the weaker side is strongest
 *   by node      the same cut inside each node, so that no KV has to cross: for slow links
 *   smallest     each cell is cut into the smallest groups that hold the model; same rule for phases
 *
 * Devices that are left over are gathered along the fastest links: hierarchical clustering as in the paper
 * (section 3), slow links being what is cut first. With colocation allowed, each cut also stands as
 * colocated.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/thunder/plan_thunder.h"

#define CUT_MAX 32 /* devices of a group inside one cell */

struct plan_state *plan_thunder_new_start(struct plan_search *search)
{
    if (search->start_count == PLAN_THUNDER_STARTS)
        return NULL;
    struct plan_start *start = &search->starts[search->start_count++];
    plan_state_init(&start->state);
    return &start->state;
}

static bool make(struct plan_search *search, uint32_t cell, uint32_t count, enum ts_phase phase,
                 struct plan_group *group)
{
    *group =
        (struct plan_group){.phase = phase, .part_count = 1, .parts = {{(uint16_t)cell, (uint8_t)count, 0}}};
    return plan_picks_find(search->picks, group);
}

/* --- Phases of whole groups: sorted by how much better they are at prefill, cut where it balances --- */

struct standing {
    uint32_t index;
    double prefill, decode;
};

static int by_ratio(const void *a, const void *b)
{
    const struct standing *x = a, *y = b;
    double left = x->prefill * y->decode, right = y->prefill * x->decode;
    return left != right ? (left < right) - (left > right) : (x->index > y->index) - (x->index < y->index);
}

static double score_as(struct plan_search *search, const struct plan_group *group, enum ts_phase phase)
{
    struct plan_group made = *group;
    made.phase = phase;
    return plan_picks_find(search->picks, &made) ? plan_shape_score(search->shapes, made.shape) + 1e-12 : 0;
}

/* Phases of the groups from `from` on; those before keep theirs and count. */
void plan_thunder_assign(struct plan_search *search, struct plan_state *state, uint32_t from)
{
    uint32_t count = state->count - from, cut = 0;
    struct standing *all = ts_xcalloc(count + 1, sizeof *all);
    double prefill = 0, decode = 0, best = -1;
    for (uint32_t i = 0; i < from; i++) {
        prefill += state->groups[i].phase == TS_PHASE_PREFILL
                       ? score_as(search, &state->groups[i], TS_PHASE_PREFILL)
                       : 0;
        decode += state->groups[i].phase == TS_PHASE_DECODE
                      ? score_as(search, &state->groups[i], TS_PHASE_DECODE)
                      : 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_group *group = &state->groups[from + i];
        all[i] = (struct standing){from + i, score_as(search, group, TS_PHASE_PREFILL),
                                   score_as(search, group, TS_PHASE_DECODE)};
        decode += all[i].decode;
    }
    qsort(all, count, sizeof *all, by_ratio);
    for (uint32_t i = 0; i <= count; i++) {
        double weaker = prefill < decode ? prefill : decode;
        if (weaker > best) {
            best = weaker;
            cut = i;
        }
        if (i < count) {
            prefill += all[i].prefill;
            decode -= all[i].decode;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        struct plan_group *group = &state->groups[all[i].index];
        group->phase = i < cut ? TS_PHASE_PREFILL : TS_PHASE_DECODE;
        if (!plan_picks_find(search->picks, group)) {
            group->phase = i < cut ? TS_PHASE_DECODE : TS_PHASE_PREFILL;
            plan_picks_find(search->picks, group);
        }
    }
    ts_free(all);
}

/* --- What is idle --- */

static bool fits_any(struct plan_search *search, struct plan_group *group)
{
    static const enum ts_phase order[] = {TS_PHASE_DECODE, TS_PHASE_PREFILL};
    for (size_t i = 0; i < 2; i++) {
        group->phase = order[i];
        if (plan_picks_find(search->picks, group))
            return true;
    }
    return false;
}

static uint32_t widest(const struct plan_search *search, const struct plan_group *group, const uint32_t *idle)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    uint32_t best = cluster->cell_count, node = cluster->cells[group->parts[0].cell].node;
    double most = 0;
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        bool inside = false;
        for (uint32_t i = 0; i < group->part_count; i++)
            inside = inside || group->parts[i].cell == c;
        if (inside || !idle[c])
            continue;
        double width = cluster->cells[c].node == node
                           ? ts_cluster_inner(cluster, node, cluster->cells[c].type)->bytes_per_s
                           : ts_cluster_link(cluster, node, cluster->cells[c].node)->bytes_per_s;
        if (width > most) {
            most = width;
            best = c;
        }
    }
    return best;
}

static void add_part(struct plan_group *group, uint32_t cell, uint32_t count)
{
    uint32_t at = group->part_count++;
    for (; at > 0 && group->parts[at - 1].cell > cell; at--)
        group->parts[at] = group->parts[at - 1];
    group->parts[at] = (struct plan_part){(uint16_t)cell, (uint8_t)count, 0};
}

/* From the cell on, along the fastest links, until it holds the model. */
static bool gather_from(struct plan_search *search, uint32_t cell, const uint32_t *idle,
                        struct plan_group *group)
{
    uint32_t seed = idle[cell] < CUT_MAX ? idle[cell] : CUT_MAX;
    *group = (struct plan_group){.part_count = 1, .parts = {{(uint16_t)cell, (uint8_t)seed, 0}}};
    while (!fits_any(search, group)) {
        uint32_t next = widest(search, group, idle);
        if (next == search->problem->cluster->cell_count || group->part_count == PLAN_PARTS_MAX)
            return false;
        /* One at a time, so that no device is taken that is not needed. */
        struct plan_group before = *group;
        for (uint32_t count = 1; count <= idle[next] && count <= CUT_MAX; count++) {
            *group = before;
            add_part(group, next, count);
            if (fits_any(search, group))
                return true;
        }
    }
    return true;
}

void plan_thunder_gather(struct plan_search *search, struct plan_state *state)
{
    const struct ts_cluster *cluster = search->problem->cluster;
    uint32_t *idle = ts_xcalloc(cluster->cell_count, sizeof *idle), from = state->count;
    plan_state_idle(search->problem, state, idle);
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        struct plan_group group;
        while (idle[c] && gather_from(search, c, idle, &group)) {
            for (uint32_t i = 0; i < group.part_count; i++)
                idle[group.parts[i].cell] -= group.parts[i].count;
            plan_state_add(state, &group);
        }
    }
    plan_thunder_assign(search, state, from);
    ts_free(idle);
}

/* --- Cells --- */

struct cut { /* the best cut of n devices of a cell in one phase: its score and the size of its last group */
    double score[UINT8_MAX + 1];
    uint8_t last[UINT8_MAX + 1];
};

/* `smallest`: only groups of the least size that holds the model. */
static void cut_cell(struct plan_search *search, uint32_t cell, enum ts_phase phase, bool smallest,
                     struct cut *cut)
{
    uint32_t total = search->problem->cluster->cells[cell].count, sizes = 0;
    double score[CUT_MAX + 1] = {0};
    bool fits[CUT_MAX + 1] = {false};
    total = total < UINT8_MAX ? total : UINT8_MAX;
    for (uint32_t n = 1; n <= total && n <= CUT_MAX && !(smallest && sizes && fits[sizes]); n++) {
        struct plan_group group;
        sizes = n;
        fits[n] = make(search, cell, n, phase, &group);
        if (fits[n])
            score[n] = plan_shape_score(search->shapes, group.shape) + 1e-12;
    }
    memset(cut, 0, sizeof *cut);
    for (uint32_t n = 1; n <= total; n++) {
        cut->score[n] = cut->score[n - 1];
        for (uint32_t last = 1; last <= n && last <= sizes; last++) {
            if (fits[last] && cut->score[n - last] + score[last] > cut->score[n]) {
                cut->score[n] = cut->score[n - last] + score[last];
                cut->last[n] = (uint8_t)last;
            }
        }
    }
}

static void add_cut(struct plan_search *search, struct plan_state *state, uint32_t cell, enum ts_phase phase,
                    const struct cut *cut, uint32_t devices)
{
    while (devices) {
        struct plan_group group;
        uint32_t last = cut->last[devices];
        if (last && make(search, cell, last, phase, &group))
            plan_state_add(state, &group);
        devices -= last ? last : 1;
    }
}

struct cell_cut {
    uint32_t cell, total;
    struct cut prefill, decode;
};

static int by_cell_ratio(const void *a, const void *b)
{
    const struct cell_cut *x = *(struct cell_cut *const *)a, *y = *(struct cell_cut *const *)b;
    double left = x->prefill.score[x->total] * y->decode.score[y->total],
           right = y->prefill.score[y->total] * x->decode.score[x->total];
    return left != right ? (left < right) - (left > right) : (x->cell > y->cell) - (x->cell < y->cell);
}

/* Cells [from, to): those relatively better at prefill first; the cut may go through one cell. False when one
 * of the sides has nothing. */
static bool split_cells(struct plan_search *search, struct plan_state *state, uint32_t from, uint32_t to,
                        bool smallest)
{
    uint32_t count = to - from, cut = 0, share = 0;
    struct cell_cut *cells = ts_xcalloc(count, sizeof *cells), **order = ts_xcalloc(count, sizeof(void *));
    double prefill = 0, decode = 0, best = -1;
    for (uint32_t c = 0; c < count; c++) {
        uint32_t total = search->problem->cluster->cells[from + c].count;
        cells[c].cell = from + c;
        cells[c].total = total < UINT8_MAX ? total : UINT8_MAX;
        cut_cell(search, from + c, TS_PHASE_PREFILL, smallest, &cells[c].prefill);
        cut_cell(search, from + c, TS_PHASE_DECODE, smallest, &cells[c].decode);
        decode += cells[c].decode.score[cells[c].total];
        order[c] = &cells[c];
    }
    qsort(order, count, sizeof(void *), by_cell_ratio);
    for (uint32_t c = 0; c < count; c++) {
        decode -= order[c]->decode.score[order[c]->total];
        for (uint32_t n = 0; n <= order[c]->total; n++) {
            double p = prefill + order[c]->prefill.score[n];
            double d = decode + order[c]->decode.score[order[c]->total - n];
            double weaker = p < d ? p : d;
            if (weaker > best) {
                best = weaker;
                cut = c;
                share = n;
            }
        }
        prefill += order[c]->prefill.score[order[c]->total];
    }
    for (uint32_t c = 0; c < count && best > 0; c++) {
        uint32_t n = c < cut ? order[c]->total : c == cut ? share : 0;
        add_cut(search, state, order[c]->cell, TS_PHASE_PREFILL, &order[c]->prefill, n);
        add_cut(search, state, order[c]->cell, TS_PHASE_DECODE, &order[c]->decode, order[c]->total - n);
    }
    ts_free(cells);
    ts_free(order);
    return best > 0;
}

static void start_split(struct plan_search *search, bool smallest)
{
    struct plan_state *state = plan_thunder_new_start(search);
    if (!state)
        return;
    split_cells(search, state, 0, search->problem->cluster->cell_count, smallest);
    plan_thunder_gather(search, state);
}

/* Each node for itself, so that no KV has to cross: split where it holds both phases, else colocated. */
static void start_nodes(struct plan_search *search)
{
    struct plan_state *state = plan_thunder_new_start(search);
    const struct ts_cluster *cluster = search->problem->cluster;
    struct cut *cut = ts_xcalloc(1, sizeof *cut);
    for (uint32_t c = 0, end; state && c < cluster->cell_count; c = end) {
        for (end = c + 1; end < cluster->cell_count && cluster->cells[end].node == cluster->cells[c].node;)
            end++;
        if (split_cells(search, state, c, end, false) || !search->problem->colocate)
            continue;
        for (uint32_t i = c; i < end; i++) {
            uint32_t total = cluster->cells[i].count < UINT8_MAX ? cluster->cells[i].count : UINT8_MAX;
            cut_cell(search, i, TS_PHASE_BOTH, false, cut);
            add_cut(search, state, i, TS_PHASE_BOTH, cut, total);
        }
    }
    if (state)
        plan_thunder_gather(search, state);
    ts_free(cut);
}

static void make_colocated(struct plan_search *search, struct plan_state *state)
{
    for (uint32_t i = state->count; i > 0; i--) {
        struct plan_group *group = &state->groups[i - 1];
        group->phase = TS_PHASE_BOTH;
        if (!plan_picks_find(search->picks, group))
            plan_state_remove(state, i - 1);
    }
}

static void start_colocated(struct plan_search *search, bool smallest)
{
    struct plan_state *state = plan_thunder_new_start(search);
    struct cut *cut = ts_xcalloc(1, sizeof *cut);
    for (uint32_t c = 0; state && c < search->problem->cluster->cell_count; c++) {
        uint32_t total = search->problem->cluster->cells[c].count;
        cut_cell(search, c, TS_PHASE_BOTH, smallest, cut);
        add_cut(search, state, c, TS_PHASE_BOTH, cut, total < UINT8_MAX ? total : UINT8_MAX);
    }
    if (state) {
        plan_thunder_gather(search, state);
        make_colocated(search, state);
    }
    ts_free(cut);
}

void plan_thunder_make_starts(struct plan_search *search)
{
    for (int smallest = 0; smallest < 2; smallest++) {
        start_split(search, smallest);
        if (search->problem->colocate)
            start_colocated(search, smallest);
    }
    start_nodes(search);
}

/* --- Kicks and plans from elsewhere --- */

/* A random size of the cell that fits in the phase; the sizes below the first that fits are passed over. */
static bool random_group(struct plan_search *search, uint32_t cell, uint32_t idle, struct plan_group *group)
{
    uint32_t phases = search->problem->colocate ? TS_PHASE_BOTH : TS_PHASE_DECODE;
    enum ts_phase phase = (enum ts_phase)(1 + ts_rng_below(&search->rng, phases));
    uint32_t most = idle < CUT_MAX ? idle : CUT_MAX;
    for (uint32_t count = 1 + (uint32_t)ts_rng_below(&search->rng, most); count <= most; count++) {
        if (make(search, cell, count, phase, group))
            return true;
    }
    return false;
}

void plan_thunder_rebuild(struct plan_search *search, struct plan_state *state)
{
    uint32_t cells = search->problem->cluster->cell_count;
    uint32_t *idle = ts_xcalloc(cells, sizeof *idle);
    plan_state_idle(search->problem, state, idle);
    for (uint32_t c = 0; c < cells; c++) {
        struct plan_group group;
        while (idle[c] && ts_rng_below(&search->rng, 8) != 0 && random_group(search, c, idle[c], &group)) {
            plan_state_add(state, &group);
            for (uint32_t i = 0; i < group.part_count; i++)
                idle[c] -= group.parts[i].count;
        }
    }
    plan_thunder_gather(search, state);
    ts_free(idle);
}

void plan_thunder_add_start(struct plan_search *search, const struct ts_plan *plan)
{
    struct plan_state *state = plan_thunder_new_start(search);
    const struct ts_cluster *cluster = search->problem->cluster;
    uint32_t *idle = ts_xcalloc(cluster->cell_count, sizeof *idle);
    for (uint32_t c = 0; c < cluster->cell_count; c++)
        idle[c] = cluster->cells[c].count;
    for (uint32_t i = 0; state && i < plan->group_count; i++) {
        struct plan_group group;
        bool fits = plan_thunder_alive(cluster, &plan->groups[i]) &&
                    (plan->groups[i].phase != TS_PHASE_BOTH || search->problem->colocate) &&
                    plan_shape_of_group(search->shapes, &plan->groups[i], &group, NULL);
        for (uint32_t p = 0; fits && p < group.part_count; p++)
            fits = idle[group.parts[p].cell] >= group.parts[p].count;
        for (uint32_t p = 0; fits && p < group.part_count; p++)
            idle[group.parts[p].cell] -= group.parts[p].count;
        if (fits)
            plan_state_add(state, &group);
    }
    if (state)
        plan_thunder_gather(search, state);
    ts_free(idle);
}
