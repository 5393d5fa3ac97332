#include <math.h>
#include <string.h>

#include "services/tsctl/tsctl_plan.h"

double tsctl_plan_gap(const struct ts_plan *plan)
{
    if (isnan(plan->bound))
        return NAN;
    if (plan->bound <= 0)
        return 0;
    double gap = (plan->bound - plan->objective) / plan->bound;
    return fabs(gap) < 1e-9 ? 0 : gap; /* the last bits of a linear program */
}

double tsctl_plan_attained(const struct tsctl_plan_doc *doc)
{
    double attained = 0;
    if (isfinite(doc->plan->attained_all))
        return doc->plan->attained_all;
    for (uint32_t i = 0; i < doc->plan->flow_count; i++)
        attained += doc->plan->flows[i].attained;
    return doc->plan->rate > 0 ? attained / doc->plan->rate : 0;
}

uint32_t tsctl_plan_place(const struct ts_cluster *cluster, uint32_t gpu)
{
    uint32_t place = 0;
    while (place < gpu && cluster->gpus[gpu - place - 1].node == cluster->gpus[gpu].node)
        place++;
    return place;
}

const struct ts_device_type *tsctl_plan_type(const struct ts_cluster *cluster, uint32_t gpu)
{
    return &cluster->types[cluster->gpus[gpu].type];
}

uint32_t tsctl_plan_group_tp(const struct ts_group *group)
{
    uint32_t tp = 0;
    for (uint32_t s = 0; s < group->stage_count; s++)
        tp = group->stages[s].tp > tp ? group->stages[s].tp : tp;
    return tp;
}

double tsctl_plan_group_rate(const struct ts_plan *plan, uint32_t group)
{
    double rate = 0;
    for (uint32_t i = 0; i < plan->flow_count; i++)
        if (plan->flows[i].prefill == group || plan->flows[i].decode == group)
            rate += plan->flows[i].rate;
    return rate;
}

double tsctl_plan_group_price(const struct tsctl_plan_doc *doc, uint32_t group)
{
    const struct ts_group *g = &doc->plan->groups[group];
    double price = 0;
    for (uint32_t s = 0; s < g->stage_count; s++)
        for (uint32_t i = 0; i < g->stages[s].tp; i++)
            price += tsctl_plan_type(doc->cluster, g->stages[s].gpus[i])->price_per_hour;
    return price;
}

double tsctl_plan_stage_bytes(const struct ts_model *model, const struct ts_group *group, uint32_t stage)
{
    const struct ts_stage *s = &group->stages[stage];
    return ts_cost_stage_weight_bytes(model, stage == 0, stage + 1 == group->stage_count, s->layers) / s->tp;
}

const char *tsctl_plan_phase_name(enum ts_phase phase)
{
    return phase == TS_PHASE_PREFILL ? "prefill" : phase == TS_PHASE_DECODE ? "decode" : "both";
}

char tsctl_plan_phase_letter(enum ts_phase phase)
{
    return phase == TS_PHASE_PREFILL ? 'P' : phase == TS_PHASE_DECODE ? 'D' : 'C';
}

/* Layers whose KV goes from one node to another. */
static uint32_t crossing_layers(const struct tsctl_plan_doc *doc, const struct ts_group *from,
                                const struct ts_group *to)
{
    const struct ts_gpu *gpus = doc->cluster->gpus;
    uint32_t count = 0, a = 0, b = 0;
    for (uint32_t i = 0; i < from->stage_count; a += from->stages[i++].layers) {
        b = 0;
        for (uint32_t j = 0; j < to->stage_count; b += to->stages[j++].layers) {
            uint32_t begin = a > b ? a : b, a_end = a + from->stages[i].layers,
                     b_end = b + to->stages[j].layers;
            uint32_t end = a_end < b_end ? a_end : b_end;
            if (begin < end && gpus[from->stages[i].gpus[0]].node != gpus[to->stages[j].gpus[0]].node)
                count += end - begin;
        }
    }
    return count;
}

double tsctl_plan_flow_bytes(const struct tsctl_plan_doc *doc, const struct ts_flow *flow, bool crossing)
{
    const struct ts_class *class_ = &doc->demand->classes[flow->length_class];
    if (flow->prefill == flow->decode)
        return 0;
    double bytes = class_->prompt_tokens * (double)ts_model_kv_token_bytes(doc->model) *
                   ts_cost_codec_ratio(flow->codec, class_->prompt_tokens);
    if (!crossing)
        return bytes;
    const struct ts_group *groups = doc->plan->groups;
    return bytes * crossing_layers(doc, &groups[flow->prefill], &groups[flow->decode]) / doc->model->layers;
}

double tsctl_plan_crossing_bytes(const struct tsctl_plan_doc *doc)
{
    double bytes = 0, rate = 0;
    for (uint32_t i = 0; i < doc->plan->flow_count; i++) {
        bytes += doc->plan->flows[i].rate * tsctl_plan_flow_bytes(doc, &doc->plan->flows[i], true);
        rate += doc->plan->flows[i].rate;
    }
    return rate > 0 ? bytes / rate : 0;
}

static void append(char out[TSCTL_PLAN_WORDS], const char *text)
{
    size_t used = strlen(out);
    snprintf(out + used, TSCTL_PLAN_WORDS - used, "%s", text);
}

static void append_number(char out[TSCTL_PLAN_WORDS], const char *before, uint32_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%s%u", before, number);
    append(out, text);
}

static void append_count(char out[TSCTL_PLAN_WORDS], uint32_t count, const char *name)
{
    char text[TS_CLUSTER_NAME_BYTES + 24];
    snprintf(text, sizeof text, "%s%ux %s", out[0] ? ", " : "", count, name);
    append(out, text);
}

const char *tsctl_plan_gpus_words(const struct tsctl_plan_doc *doc, const struct ts_group *group, bool nodes,
                                  char out[TSCTL_PLAN_WORDS])
{
    const struct ts_cluster *cluster = doc->cluster;
    out[0] = '\0';
    for (uint32_t s = 0, count = 0; s < group->stage_count; s++) {
        bool last = s + 1 == group->stage_count;
        struct ts_gpu here = cluster->gpus[group->stages[s].gpus[0]];
        struct ts_gpu next = cluster->gpus[group->stages[last ? s : s + 1].gpus[0]];
        count += group->stages[s].tp;
        if (!last && next.type == here.type && (!nodes || next.node == here.node))
            continue;
        append_count(out, count, cluster->types[here.type].name);
        append(out, nodes ? " in " : "");
        append(out, nodes ? cluster->nodes[here.node].name : "");
        count = 0;
    }
    return out;
}

const char *tsctl_plan_layers_words(const struct ts_group *group, char out[TSCTL_PLAN_WORDS])
{
    out[0] = '\0';
    for (uint32_t s = 0; s < group->stage_count; s++)
        append_number(out, s ? "+" : "", group->stages[s].layers);
    return out;
}

const char *tsctl_plan_shape_words(const struct ts_group *group, char out[TSCTL_PLAN_WORDS])
{
    bool equal = true;
    for (uint32_t s = 1; s < group->stage_count; s++)
        equal = equal && group->stages[s].tp == group->stages[0].tp;
    snprintf(out, TSCTL_PLAN_WORDS, "TP%u", group->stages[0].tp);
    for (uint32_t s = 1; !equal && s < group->stage_count; s++)
        append_number(out, "+", group->stages[s].tp);
    append_number(out, " PP", group->stage_count);
    return out;
}

#define BRIEF_BYTES 46 /* a longer list of places is counted instead */

const char *tsctl_plan_gpus_brief(const struct tsctl_plan_doc *doc, const struct ts_group *group,
                                  char out[TSCTL_PLAN_WORDS])
{
    const struct ts_cluster *cluster = doc->cluster;
    uint32_t counts[TS_CLUSTER_TYPES_MAX] = {0}, nodes = 0;
    if (strlen(tsctl_plan_gpus_words(doc, group, true, out)) <= BRIEF_BYTES)
        return out;
    for (uint32_t s = 0; s < group->stage_count; s++) {
        const struct ts_gpu *gpu = &cluster->gpus[group->stages[s].gpus[0]];
        bool seen = false;
        for (uint32_t other = 0; other < s; other++)
            seen = seen || cluster->gpus[group->stages[other].gpus[0]].node == gpu->node;
        counts[gpu->type] += group->stages[s].tp;
        nodes += !seen;
    }
    out[0] = '\0';
    for (uint32_t t = 0; t < cluster->type_count; t++)
        if (counts[t])
            append_count(out, counts[t], cluster->types[t].name);
    append_number(out, " in ", nodes);
    append(out, nodes == 1 ? " node" : " nodes");
    return out;
}
