/* Flows of a plan as shares of the message: per class, over all workers that a unit stands for. */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/live/planner_live_impl.h"

#define BINDING_BYTES 1000 /* below TS_TEXT_BYTES_MAX */
/* Of all pairs each has a share; beyond so many, each worker has only as many partners as it needs. */
#define PAIRS_MAX 4096

/* --- Of flows, per group --- */

/* Whether the speed of all links between two groups is known, so that the codec can be chosen for it. */
static bool codec_known(const struct live_model *m, const struct ts_plan *plan, const struct ts_flow *flow)
{
    const struct ts_group *from = &plan->groups[flow->prefill], *to = &plan->groups[flow->decode];
    bool all = flow->prefill != flow->decode, other = false;
    for (uint32_t s = 0; all && s < from->stage_count; s++) {
        for (uint32_t t = 0; all && t < to->stage_count; t++) {
            uint32_t a = m->cluster->gpus[from->stages[s].gpus[0]].node;
            uint32_t b = m->cluster->gpus[to->stages[t].gpus[0]].node;
            all = a == b || m->known[(size_t)a * m->cluster->node_count + b];
            other |= a != b;
        }
    }
    uint32_t home = m->cluster->gpus[from->stages[0].gpus[0]].node;
    return all && (other || m->known[(size_t)home * (m->cluster->node_count + 1)]);
}

void live_shares_add(struct live_shares *out, const struct live_share *share)
{
    void *items = out->items;
    ts_array_reserve(&items, &out->capacity, out->count + 1, sizeof *out->items);
    out->items = items;
    out->items[out->count++] = *share;
}

static void add(struct live_shares *out, const struct live_share *share)
{
    for (uint32_t i = out->count; i-- > 0;) {
        struct live_share *old = &out->items[i];
        if (old->length_class != share->length_class)
            break;
        if (old->prefill == share->prefill && old->decode == share->decode && old->codec == share->codec) {
            old->share += share->share;
            return;
        }
    }
    live_shares_add(out, share);
}

/* A class that the plan refuses follows all others: late rather than refused. */
void live_shares_of(const struct planner_live *live, const struct live_model *m, const struct ts_plan *plan,
                    struct live_shares *out)
{
    const uint32_t classes = m->demand.class_count;
    double total = 0;
    *out = (struct live_shares){.items = NULL};
    for (uint32_t f = 0; f < plan->flow_count; f++)
        total += plan->flows[f].rate;
    for (uint32_t k = 0; k < classes && total > 0; k++) {
        double rate = 0;
        for (uint32_t f = 0; f < plan->flow_count; f++)
            rate += plan->flows[f].length_class == k ? plan->flows[f].rate : 0;
        for (uint32_t f = 0; f < plan->flow_count; f++) {
            const struct ts_flow *flow = &plan->flows[f];
            if (!(flow->rate > 0) || (rate > 0 && flow->length_class != k))
                continue;
            add(out, &(struct live_share){.prefill = flow->prefill,
                                          .decode = flow->decode,
                                          .length_class = k,
                                          .share = flow->rate / (rate > 0 ? rate : total),
                                          .codec = flow->codec,
                                          .codec_known = codec_known(m, plan, flow)});
        }
    }
    if (out->count)
        live_shares_even(live, m, plan, out);
}

/* --- Of the message --- */

struct spread {
    struct ts_arena *arena;
    const enum ts_phase *phase_of; /* workers of the snapshot, as the plan has them */
    struct ts_plan_share *items;
    uint32_t count, capacity;
};

static struct ts_plan_share *add_share(struct spread *spread, uint32_t prefill, uint32_t decode)
{
    if (spread->count == spread->capacity) {
        struct ts_plan_share *old = spread->items;
        spread->capacity = 2 * spread->capacity + 64;
        spread->items = ts_arena_alloc(spread->arena, spread->capacity * sizeof *old);
        if (spread->count)
            memcpy(spread->items, old, spread->count * sizeof *old);
    }
    struct ts_plan_share *share = &spread->items[spread->count++];
    *share = (struct ts_plan_share){.prefill = prefill, .decode = decode};
    return share;
}

/* Deals `share->share` evenly over a prefill and b decode workers: the two rows of shares, laid beside each
 * other, meet in a + b - 1 pairs at most. The share of each worker comes out exactly. */
static void deal(struct spread *spread, const uint32_t *prefill, uint32_t a, const uint32_t *decode,
                 uint32_t b, const struct ts_plan_share *share)
{
    for (uint64_t i = 0, j = 0; i < a && j < b;) {
        /* In units of 1 / (a b): worker i of prefill has [i b, (i + 1) b), worker j of decode [j a, (j + 1)
         * a). */
        uint64_t begin = i * b > j * a ? i * b : j * a;
        uint64_t end_i = (i + 1) * b, end_j = (j + 1) * a, end = end_i < end_j ? end_i : end_j;
        struct ts_plan_share *z = add_share(spread, prefill[i], decode[j]);
        z->length_class = share->length_class;
        z->codec = share->codec;
        z->share = share->share * (double)(end - begin) / ((double)a * b);
        i += end == end_i;
        j += end == end_j;
    }
}

static void deal_units(struct spread *spread, const struct live_model *m, const struct live_share *from,
                       double share)
{
    const struct live_unit *p = &m->units[m->group_unit[from->prefill]],
                           *d = &m->units[m->group_unit[from->decode]];
    struct ts_plan_share item = {.length_class = from->length_class, .share = share};
    if (from->codec_known)
        item.codec = ts_str_of(ts_cost_codec_name(from->codec));
    if (from->prefill != from->decode) {
        deal(spread, &m->members[p->begin], p->count, &m->members[d->begin], d->count, &item);
        return;
    }
    for (uint32_t i = 0; i < p->count; i++) { /* colocated: each with itself */
        struct ts_plan_share *z = add_share(spread, m->members[p->begin + i], m->members[p->begin + i]);
        z->length_class = item.length_class;
        z->share = share / p->count;
    }
}

/* A unit that stands for fewer workers than the others has accordingly less. */
static double size_of(const struct live_model *m, const struct live_share *share)
{
    double p = m->units[m->group_unit[share->prefill]].count,
           d = m->units[m->group_unit[share->decode]].count;
    return fmin(p, d) / m->per_unit;
}

static void spread_plan(struct spread *spread, const struct live_model *m, const struct live_plan *plan)
{
    for (uint32_t k = 0; k < m->demand.class_count; k++) {
        double sum = 0;
        for (uint32_t i = 0; i < plan->shares.count; i++) {
            const struct live_share *share = &plan->shares.items[i];
            sum += share->length_class == k ? share->share * size_of(m, share) : 0;
        }
        for (uint32_t i = 0; i < plan->shares.count; i++) {
            const struct live_share *share = &plan->shares.items[i];
            if (share->length_class == k)
                deal_units(spread, m, share, m->weight * share->share * size_of(m, share) / sum);
        }
    }
}

/* Every pair alike, for requests of each class. */
static void spread_equally(struct spread *spread, const struct live_model *m, uint32_t classes)
{
    uint32_t *prefill = ts_xcalloc(m->count, sizeof *prefill), *decode = ts_xcalloc(m->count, sizeof *decode);
    uint32_t a = 0, b = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (spread->phase_of[m->workers[i]] & TS_PHASE_PREFILL)
            prefill[a++] = m->workers[i];
        if (spread->phase_of[m->workers[i]] & TS_PHASE_DECODE)
            decode[b++] = m->workers[i];
    }
    for (uint32_t k = 0; k < classes; k++) {
        struct ts_plan_share item = {.length_class = k, .share = m->weight};
        if ((uint64_t)a * b > PAIRS_MAX) {
            deal(spread, prefill, a, decode, b, &item);
            continue;
        }
        for (uint32_t i = 0; i < a; i++) {
            for (uint32_t j = 0; j < b; j++) {
                struct ts_plan_share *z = add_share(spread, prefill[i], decode[j]);
                z->length_class = k;
                z->share = m->weight / ((double)a * b);
            }
        }
    }
    ts_free(prefill);
    ts_free(decode);
}

/* --- The message --- */

bool live_has_pair(const struct planner_live *live, const struct live_model *m)
{
    uint32_t phases = 0;
    for (uint32_t i = 0; i < m->count; i++)
        phases |= live->snapshot->workers.data[m->workers[i]].phase;
    return phases == TS_PHASE_BOTH;
}

static const struct live_plan *plan_in(const struct live_model *m)
{
    return m->adopted ? &m->flip : &m->route;
}

static bool serves(const struct planner_live *live, const struct live_model *m)
{
    return m->adopted || live_has_pair(live, m);
}

static double attained_share(const struct ts_plan *plan)
{
    double rate = 0, attained = 0;
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        rate += plan->flows[f].rate;
        attained += plan->flows[f].attained;
    }
    return rate > 0 ? attained / rate : 0;
}

/* Returns the phase of each worker of the snapshot. */
static const enum ts_phase *fill_replicas(const struct planner_live *live, struct ts_arena *arena,
                                          struct ts_msg_plan *out)
{
    const struct ts_plan_workers *all = &live->snapshot->workers;
    struct ts_plan_replica *replicas = ts_arena_zalloc(arena, (all->count + 1) * sizeof *replicas);
    enum ts_phase *phase_of = ts_arena_zalloc(arena, (all->count + 1) * sizeof *phase_of);
    uint32_t count = 0;
    for (uint32_t i = 0; i < all->count; i++)
        phase_of[i] = all->data[i].phase;
    for (uint32_t i = 0; i < live->model_count; i++) {
        const struct live_model *m = &live->models[i];
        for (uint32_t g = 0; m->adopted && g < m->flip.plan->group_count; g++) {
            const struct live_unit *unit = &m->units[m->group_unit[g]];
            for (uint32_t k = 0; k < unit->count; k++)
                phase_of[m->members[unit->begin + k]] = m->flip.plan->groups[g].phase;
        }
    }
    for (uint32_t i = 0; i < all->count; i++) {
        if (all->data[i].ready && !all->data[i].draining)
            replicas[count++] =
                (struct ts_plan_replica){.id = i, .worker = all->data[i].id, .phase = phase_of[i]};
    }
    out->replicas = (struct ts_plan_replicas){replicas, count};
    return phase_of;
}

/* Only where some plan tells classes apart; without them all requests are of class 0. */
static uint32_t fill_classes(const struct planner_live *live, struct ts_arena *arena, struct ts_msg_plan *out)
{
    bool any = false;
    for (uint32_t i = 0; i < live->model_count; i++)
        any |= plan_in(&live->models[i])->plan && serves(live, &live->models[i]);
    if (!any || live->demand.class_count < 2)
        return 1;
    struct ts_plan_class *classes = ts_arena_zalloc(arena, live->demand.class_count * sizeof *classes);
    for (uint32_t k = 0; k < live->demand.class_count; k++)
        classes[k] = (struct ts_plan_class){.prompt_tokens = live->demand.classes[k].prompt_tokens,
                                            .output_tokens = live->demand.classes[k].output_tokens,
                                            .prompt_begin = live->demand.classes[k].prompt_begin,
                                            .prompt_end = live->demand.classes[k].prompt_end};
    out->classes = (struct ts_plan_classes){classes, live->demand.class_count};
    return live->demand.class_count;
}

bool planner_live_best(struct planner_live *live, struct ts_arena *arena, struct ts_msg_plan *out)
{
    struct spread spread = {.arena = arena, .phase_of = fill_replicas(live, arena, out)};
    double workers = 0;
    const char *words = "";
    for (uint32_t i = 0; i < live->model_count; i++)
        workers += serves(live, &live->models[i]) ? live->models[i].count : 0;
    uint32_t classes = fill_classes(live, arena, out);
    for (uint32_t i = 0; i < live->model_count; i++) {
        struct live_model *m = &live->models[i];
        const struct live_plan *plan = plan_in(m);
        if (!serves(live, m))
            continue;
        m->weight = m->count / workers;
        if (plan->plan) {
            spread_plan(&spread, m, plan);
            double rate = ts_demand_rate(&m->demand);
            double share = live->measured && rate > 0 ? plan->served / rate : attained_share(plan->plan);
            out->attainment += m->weight * share;
            out->served_per_s += plan->served * m->per_unit;
        } else {
            spread_equally(&spread, m, classes);
        }
        words = ts_arena_printf(arena, "%s%s%s", words, *words ? "; " : "", m->words);
    }
    if (spread.count > TS_LIST_MAX) { /* many kinds and classes: each worker is as good as another then */
        spread.count = 0;
        out->classes.count = 0;
        for (uint32_t i = 0; i < live->model_count; i++) {
            if (serves(live, &live->models[i]))
                spread_equally(&spread, &live->models[i], 1);
        }
        words = "equal shares: there are too many for a message";
    }
    if (*planner_live_verdict(live))
        words = ts_arena_printf(arena, "%s; %s", words, planner_live_verdict(live));
    out->binding = ts_str_of(words);
    while (out->binding.count > BINDING_BYTES ||
           (out->binding.count && (words[out->binding.count] & 0xc0) == 0x80))
        out->binding.count--; /* not within a character */
    out->shares = (struct ts_plan_shares){spread.items, spread.count};
    return spread.count > 0;
}
