/*
 * Equal workers get equal shares. Where several optima are the linear program's, it answers with a corner:
 * of workers that are not what is short, some may get nothing. Exchanging equal workers on equal hosts turns
 * an optimum into another one, and so the mean over all such exchanges is one, too.
 *
 * Two hosts are equal when their cards and insides are, when they hold equal workers in equal numbers, and
 * when both are linked alike to each third host. Replicas that span hosts are equal to none.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/live/planner_live_impl.h"

enum relation { OTHER_NODE, SAME_NODE, ITSELF, RELATIONS };

struct symmetry {
    const struct planner_live *live;
    const struct live_model *m;
    const struct ts_plan *plan;
    uint32_t groups, nodes;
    uint32_t *make;      /* [group]: the first one of equal make and phase */
    uint32_t *node;      /* [group]; UINT32_MAX: spans several */
    uint32_t *orbit;     /* [group]: the first one that it may be exchanged for */
    uint16_t *held;      /* [node * groups + make] */
    bool *fixed;         /* [node]: a replica spans it and others */
    uint32_t *node_like; /* [node]: the first one that it may be exchanged for */
    double *sums;        /* [(orbit * groups + orbit) * RELATIONS + relation] of one class */
    uint32_t *pairs;     /* the same: how many there are */
};

static bool same_link(const struct ts_link *a, const struct ts_link *b)
{
    return a->bytes_per_s == b->bytes_per_s && a->latency_s == b->latency_s;
}

static void find_makes(struct symmetry *s)
{
    const struct ts_plan_worker *all = s->live->snapshot->workers.data;
    for (uint32_t g = 0; g < s->groups; g++) {
        const struct ts_group *group = &s->plan->groups[g];
        const struct ts_plan_worker *worker = &all[s->m->members[s->m->units[s->m->group_unit[g]].begin]];
        uint32_t like = 0;
        while (like < g &&
               !(s->plan->groups[like].phase == group->phase && s->make[like] == like &&
                 live_same_make(&all[s->m->members[s->m->units[s->m->group_unit[like]].begin]], worker)))
            like++;
        s->make[g] = like;
        s->node[g] = s->m->cluster->gpus[group->stages[0].gpus[0]].node;
        for (uint32_t i = 0; i < group->stage_count; i++) {
            if (s->m->cluster->gpus[group->stages[i].gpus[0]].node != s->node[g])
                s->node[g] = UINT32_MAX;
        }
        for (uint32_t i = 0; s->node[g] == UINT32_MAX && i < group->stage_count; i++)
            s->fixed[s->m->cluster->gpus[group->stages[i].gpus[0]].node] = true;
        if (s->node[g] != UINT32_MAX)
            s->held[(size_t)s->node[g] * s->groups + like]++;
    }
}

static bool exchangeable(const struct symmetry *s, uint32_t a, uint32_t b)
{
    const struct ts_cluster *c = s->m->cluster;
    const struct ts_node *x = &c->nodes[a], *y = &c->nodes[b];
    bool same = !s->fixed[a] && !s->fixed[b] && x->nic_out_bytes_per_s == y->nic_out_bytes_per_s &&
                x->nic_in_bytes_per_s == y->nic_in_bytes_per_s && same_link(&x->inner, &y->inner) &&
                memcmp(&s->held[(size_t)a * s->groups], &s->held[(size_t)b * s->groups],
                       s->groups * sizeof *s->held) == 0 &&
                same_link(ts_cluster_link(c, a, b), ts_cluster_link(c, b, a));
    for (uint32_t k = 0; same && k < s->nodes; k++) {
        if (k != a && k != b)
            same = same_link(ts_cluster_link(c, a, k), ts_cluster_link(c, b, k)) &&
                   same_link(ts_cluster_link(c, k, a), ts_cluster_link(c, k, b));
    }
    return same;
}

static void find_orbits(struct symmetry *s)
{
    for (uint32_t n = 0; n < s->nodes; n++) {
        uint32_t like = 0;
        while (like < n && !(s->node_like[like] == like && exchangeable(s, like, n)))
            like++;
        s->node_like[n] = like;
    }
    for (uint32_t g = 0; g < s->groups; g++) {
        uint32_t like = s->node[g] == UINT32_MAX ? g : 0;
        while (like < g && !(s->make[like] == s->make[g] && s->node[like] != UINT32_MAX &&
                             s->node_like[s->node[like]] == s->node_like[s->node[g]]))
            like++;
        s->orbit[g] = like;
    }
}

static size_t slot_of(const struct symmetry *s, uint32_t p, uint32_t d)
{
    enum relation relation = p == d                                                 ? ITSELF
                             : s->node[p] == s->node[d] && s->node[p] != UINT32_MAX ? SAME_NODE
                                                                                    : OTHER_NODE;
    return ((size_t)s->orbit[p] * s->groups + s->orbit[d]) * RELATIONS + relation;
}

/* `like`: class and codec. */
static void add_pair(struct live_shares *to, uint32_t p, uint32_t d, const struct live_share *like,
                     double share)
{
    struct live_share item = *like;
    item.prefill = p;
    item.decode = d;
    item.share = share;
    live_shares_add(to, &item);
}

static uint32_t next_of_orbit(const struct symmetry *s, uint32_t orbit, uint32_t g)
{
    while (g < s->groups && s->orbit[g] != orbit)
        g++;
    return g;
}

/* In a large cluster, where each unit is on nodes of its own: a + b - 1 pairs of two orbits are enough for
 * equal shares of each unit. Both rows of units are laid beside each other, and where two meet is a pair. */
static void spread_thinly(struct symmetry *s, uint32_t p_orbit, uint32_t d_orbit,
                          const struct live_share *like, double share, struct live_shares *to)
{
    uint64_t a = 0, b = 0, i = 0, j = 0;
    for (uint32_t g = 0; g < s->groups; g++) {
        a += s->orbit[g] == p_orbit;
        b += s->orbit[g] == d_orbit;
    }
    uint32_t p = next_of_orbit(s, p_orbit, 0), d = next_of_orbit(s, d_orbit, 0);
    while (i < a && j < b) {
        uint64_t begin = i * b > j * a ? i * b : j * a;
        uint64_t end_i = (i + 1) * b, end_j = (j + 1) * a, end = end_i < end_j ? end_i : end_j;
        add_pair(to, p, d, like, share * (double)(end - begin) / ((double)a * (double)b));
        if (end == end_i && ++i < a)
            p = next_of_orbit(s, p_orbit, p + 1);
        if (end == end_j && ++j < b)
            d = next_of_orbit(s, d_orbit, d + 1);
    }
}

static bool same_kind(const struct live_share *a, const struct live_share *b)
{
    return a->length_class == b->length_class && a->codec == b->codec && a->codec_known == b->codec_known;
}

/* The pairs of the orbits that shares of one class and codec go to, each with its mean. */
static void spread_kind(struct symmetry *s, const struct live_shares *from, const struct live_share *like,
                        struct live_shares *to)
{
    memset(s->sums, 0, (size_t)s->groups * s->groups * RELATIONS * sizeof *s->sums);
    for (uint32_t i = 0; i < from->count; i++) {
        const struct live_share *share = &from->items[i];
        if (same_kind(share, like))
            s->sums[slot_of(s, share->prefill, share->decode)] += share->share;
    }
    for (uint32_t p = 0; p < s->groups; p++) {
        for (uint32_t d = 0; d < s->groups; d++) {
            size_t slot = slot_of(s, p, d);
            bool thin = s->m->per_unit > 1 && s->orbit[p] != s->orbit[d];
            if (!(s->sums[slot] > 0))
                continue;
            if (!thin)
                add_pair(to, p, d, like, s->sums[slot] / s->pairs[slot]);
            else if (s->orbit[p] == p && s->orbit[d] == d)
                spread_thinly(s, p, d, like, s->sums[slot], to);
        }
    }
}

static void symmetry_init(struct symmetry *s, const struct planner_live *live, const struct live_model *m,
                          const struct ts_plan *plan)
{
    size_t groups = plan->group_count, nodes = m->cluster->node_count;
    *s = (struct symmetry){
        .live = live, .m = m, .plan = plan, .groups = (uint32_t)groups, .nodes = (uint32_t)nodes};
    s->make = ts_xcalloc(groups, sizeof *s->make);
    s->node = ts_xcalloc(groups, sizeof *s->node);
    s->orbit = ts_xcalloc(groups, sizeof *s->orbit);
    s->held = ts_xcalloc(nodes * groups, sizeof *s->held);
    s->fixed = ts_xcalloc(nodes, sizeof *s->fixed);
    s->node_like = ts_xcalloc(nodes, sizeof *s->node_like);
    s->sums = ts_xcalloc(groups * groups * RELATIONS, sizeof *s->sums);
    s->pairs = ts_xcalloc(groups * groups * RELATIONS, sizeof *s->pairs);
    find_makes(s);
    find_orbits(s);
    for (uint32_t p = 0; p < groups; p++) {
        for (uint32_t d = 0; d < groups; d++)
            s->pairs[slot_of(s, p, d)]++;
    }
}

static void symmetry_fini(struct symmetry *s)
{
    ts_free(s->make);
    ts_free(s->node);
    ts_free(s->orbit);
    ts_free(s->held);
    ts_free(s->fixed);
    ts_free(s->node_like);
    ts_free(s->sums);
    ts_free(s->pairs);
}

void live_shares_even(const struct planner_live *live, const struct live_model *m, const struct ts_plan *plan,
                      struct live_shares *shares)
{
    struct symmetry s;
    struct live_shares even = {.items = NULL};
    symmetry_init(&s, live, m, plan);
    for (uint32_t i = 0; i < shares->count; i++) {
        uint32_t first = 0;
        while (!same_kind(&shares->items[first], &shares->items[i]))
            first++;
        if (first == i)
            spread_kind(&s, shares, &shares->items[i], &even);
    }
    symmetry_fini(&s);
    ts_free(shares->items);
    *shares = even;
}
