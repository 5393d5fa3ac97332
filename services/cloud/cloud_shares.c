#include "services/cloud/cloud_shares.h"

#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"

struct pair { /* of groups, for one class; the rates by codec */
    uint32_t prefill, decode, class_;
    double rate[TS_COST_CODEC_COUNT];
};

struct pairs {
    struct pair *items;
    size_t count, capacity;
    struct ts_map *found; /* number + 1 of the item, as a pointer */
};

static double rate_of(const struct pair *p)
{
    double rate = 0;
    for (int c = 0; c < TS_COST_CODEC_COUNT; c++)
        rate += p->rate[c];
    return rate;
}

static const char *codec_of(const double *rate)
{
    int best = 0;
    for (int c = 1; c < TS_COST_CODEC_COUNT; c++)
        best = rate[c] > rate[best] ? c : best;
    return ts_cost_codec_name((enum ts_cost_codec)best);
}

static void add(struct pairs *pairs, const struct ts_flow *flow, uint32_t class_)
{
    const uint32_t key[] = {flow->prefill, flow->decode, class_};
    uintptr_t at = (uintptr_t)ts_map_get(pairs->found, key, sizeof key);
    if (at == 0) {
        void *items = pairs->items;
        ts_array_reserve(&items, &pairs->capacity, pairs->count + 1, sizeof *pairs->items);
        pairs->items = items;
        pairs->items[pairs->count++] =
            (struct pair){.prefill = flow->prefill, .decode = flow->decode, .class_ = class_};
        at = pairs->count;
        ts_map_put(pairs->found, key, sizeof key, (void *)at);
    }
    pairs->items[at - 1].rate[flow->codec] += flow->rate;
}

static bool stands(const struct ts_flow *flow, const bool *there)
{
    return flow->rate > 0 && there[flow->prefill] && there[flow->decode];
}

/* `fold`: all of class 0. */
static void gather(struct pairs *pairs, const struct ts_plan *plan, uint32_t classes, const bool *there,
                   bool fold)
{
    bool has[TS_CLASSES_MAX] = {false};
    ts_map_destroy(&pairs->found);
    pairs->found = ts_map_new();
    pairs->count = 0;
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        const struct ts_flow *flow = &plan->flows[f];
        if (stands(flow, there)) {
            add(pairs, flow, fold ? 0 : flow->length_class);
            has[flow->length_class] = true;
        }
    }
    for (uint32_t k = 0; k < classes && !fold; k++) {
        for (uint32_t f = 0; f < plan->flow_count && !has[k]; f++) {
            if (stands(&plan->flows[f], there))
                add(pairs, &plan->flows[f], k);
        }
    }
}

/* One class. Prefill groups in order meet decode groups in order, each until it has what the plan gives it.
 */
static void thin(struct pairs *pairs, uint32_t groups)
{
    double *out = ts_xcalloc(groups, sizeof *out), *in = ts_xcalloc(groups, sizeof *in);
    double all[TS_COST_CODEC_COUNT] = {0};
    size_t kept = 0;
    for (size_t i = 0; i < pairs->count; i++) {
        struct pair *p = &pairs->items[i];
        if (p->prefill == p->decode) {
            pairs->items[kept++] = *p;
            continue;
        }
        out[p->prefill] += rate_of(p);
        in[p->decode] += rate_of(p);
        for (int c = 0; c < TS_COST_CODEC_COUNT; c++)
            all[c] += p->rate[c];
    }
    pairs->count = kept;
    int codec = 0;
    for (int c = 1; c < TS_COST_CODEC_COUNT; c++)
        codec = all[c] > all[codec] ? c : codec;
    for (uint32_t p = 0, d = 0; p < groups && d < groups;) {
        double rate = out[p] < in[d] ? out[p] : in[d];
        if (rate > 0) {
            struct pair *pair = &pairs->items[pairs->count++]; /* fewer than there were */
            *pair = (struct pair){.prefill = p, .decode = d};
            pair->rate[codec] = rate;
        }
        out[p] -= rate;
        in[d] -= rate;
        if (out[p] <= in[d])
            p++;
        else
            d++;
    }
    ts_free(out);
    ts_free(in);
}

void cloud_shares_make(const struct ts_plan *plan, uint32_t classes, const bool *there,
                       struct cloud_shares *out)
{
    struct pairs pairs = {0};
    double sums[TS_CLASSES_MAX] = {0};
    *out = (struct cloud_shares){.count = 0};
    gather(&pairs, plan, classes, there, false);
    out->folded = pairs.count > TS_LIST_MAX;
    if (out->folded)
        gather(&pairs, plan, classes, there, true);
    if (pairs.count > TS_LIST_MAX)
        thin(&pairs, plan->group_count);
    for (size_t i = 0; i < pairs.count; i++)
        sums[pairs.items[i].class_] += rate_of(&pairs.items[i]);
    out->items = ts_xcalloc(pairs.count + 1, sizeof *out->items);
    for (size_t i = 0; i < pairs.count; i++) {
        const struct pair *p = &pairs.items[i];
        out->items[out->count++] = (struct ts_plan_share){.prefill = p->prefill,
                                                          .decode = p->decode,
                                                          .length_class = p->class_,
                                                          .share = rate_of(p) / sums[p->class_],
                                                          .codec = ts_str_of(codec_of(p->rate))};
    }
    for (uint32_t f = 0; f < plan->flow_count; f++)
        out->served += stands(&plan->flows[f], there) ? plan->flows[f].attained : 0;
    ts_map_destroy(&pairs.found);
    ts_free(pairs.items);
}

void cloud_shares_fini(struct cloud_shares *shares)
{
    ts_free(shares->items);
    *shares = (struct cloud_shares){.count = 0};
}
