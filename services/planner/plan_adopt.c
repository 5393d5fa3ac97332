#include "services/planner/plan_adopt.h"

#include <math.h>
#include <stdio.h>

#include "common/base/ts_mem.h"

struct plan_adopt_rule plan_adopt_defaults(void)
{
    /* Ten minutes are what Azure's traces keep their mix for; 2 % is the noise of a rate estimated from some
     * thousand requests. */
    return (struct plan_adopt_rule){
        .window_s = 600, .margin = 0.2, .gain_min = 0.02, .quiet_s = 120, .collapse = 0.5};
}

static const char *depth_name(enum plan_depth depth)
{
    static const char *const names[] = {"re-route", "flip", "regroup"};
    return names[depth];
}

/* Whether the candidate pays against serving `served` without it; the reason is of the refusal. */
static bool pays(const struct plan_adopt_rule *rule, const struct plan_adopt_now *now, double served,
                 const struct plan_adopt_candidate *c, struct plan_adopt_verdict *out)
{
    const char *name = depth_name(c->depth);
    double gain = c->served - served, meanwhile = fmin(c->served_meanwhile, served);
    double loss = c->reload_s * (served - meanwhile), left = rule->window_s - c->reload_s;
    out->gain = gain;
    out->loss = loss;
    if (!(gain > rule->gain_min * served)) {
        snprintf(out->reason, sizeof out->reason,
                 "hold: %s would serve %.3g requests/s within deadlines instead of %.3g, a gain within the "
                 "noise of %.3g",
                 name, c->served, served, rule->gain_min * served);
        return false;
    }
    bool collapsed = now->served < rule->collapse * now->served_adopted;
    if (c->depth != PLAN_REROUTE && now->since_s < rule->quiet_s && !collapsed) {
        snprintf(out->reason, sizeof out->reason,
                 "hold: %s would gain %.3g requests/s, but the last change is %.0f s ago and %.0f s are to "
                 "be quiet",
                 name, gain, now->since_s, rule->quiet_s);
        return false;
    }
    if (!(left > 0) || !(gain * left > (1 + rule->margin) * loss)) {
        snprintf(out->reason, sizeof out->reason,
                 "hold: %s gains %.3g requests/s for the %.0f s left of the window, which does not repay "
                 "%.3g requests lost in %.0f s of reload",
                 name, gain, fmax(left, 0), loss, c->reload_s);
        return false;
    }
    return true;
}

void plan_adopt_decide(const struct plan_adopt_rule *rule, const struct plan_adopt_now *now,
                       const struct plan_adopt_candidate *candidates, uint32_t count,
                       struct plan_adopt_verdict *out)
{
    struct plan_adopt_verdict refused = {.adopt = -1, .gain = -INFINITY};
    double served = now->served;
    *out = (struct plan_adopt_verdict){.adopt = -1, .reason = "hold: there is no other plan"};
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_adopt_candidate *c = &candidates[i];
        struct plan_adopt_verdict verdict = {.adopt = (int)i};
        if (pays(rule, now, served, c, &verdict)) {
            snprintf(verdict.reason, sizeof verdict.reason,
                     "%s: %.3g requests/s within deadlines instead of %.3g; reload takes %.0f s and loses "
                     "%.3g requests",
                     depth_name(c->depth), c->served, now->served, c->reload_s, verdict.loss);
            *out = verdict;
            served = c->served;
        } else if (out->adopt < 0 && verdict.gain > refused.gain) {
            verdict.adopt = -1;
            refused = verdict;
        }
    }
    if (out->adopt < 0 && count > 0)
        *out = refused;
}

/* --- What a change takes --- */

struct holding { /* what a device has in memory */
    uint32_t layer_begin, layer_end;
    uint32_t tp, rank;
    bool any;
};

static void hold(const struct ts_plan *plan, struct holding *holdings)
{
    for (uint32_t g = 0; g < plan->group_count; g++) {
        uint32_t layer = 0;
        for (uint32_t s = 0; s < plan->groups[g].stage_count; s++) {
            const struct ts_stage *stage = &plan->groups[g].stages[s];
            for (uint32_t i = 0; i < stage->tp; i++)
                holdings[stage->gpus[i]] = (struct holding){layer, layer + stage->layers, stage->tp, i, true};
            layer += stage->layers;
        }
    }
}

/* Layers that `after` has and `before` has not; embedding and output come with the first and last layer. */
static double bytes_to_load(const struct ts_model *model, const struct holding *before,
                            const struct holding *after)
{
    uint32_t begin = before->layer_begin > after->layer_begin ? before->layer_begin : after->layer_begin;
    uint32_t end = before->layer_end < after->layer_end ? before->layer_end : after->layer_end;
    bool same = before->any && before->tp == after->tp && before->rank == after->rank && begin < end;
    uint32_t layers = after->layer_end - after->layer_begin - (same ? end - begin : 0);
    double head = ts_cost_head_weight_bytes(model) / 2, bytes = layers * ts_cost_layer_weight_bytes(model);
    if (after->layer_begin == 0 && !(same && before->layer_begin == 0))
        bytes += head;
    if (after->layer_end == model->layers && !(same && before->layer_end == model->layers))
        bytes += head;
    return bytes / after->tp;
}

void plan_change_bytes(const struct ts_cluster *cluster, const struct ts_model *model,
                       const struct ts_plan *from, const struct ts_plan *to, double *bytes)
{
    struct holding *before = ts_xcalloc(cluster->gpu_count + 1, sizeof *before),
                   *after = ts_xcalloc(cluster->gpu_count + 1, sizeof *after);
    hold(from, before);
    hold(to, after);
    for (uint32_t i = 0; i < cluster->gpu_count; i++)
        bytes[i] = after[i].any ? bytes_to_load(model, &before[i], &after[i]) : 0;
    ts_free(before);
    ts_free(after);
}

void plan_change_of(const struct ts_cluster *cluster, const struct ts_model *model,
                    const struct ts_plan *from, const struct ts_plan *to, double node_bytes_per_s,
                    double flip_s, struct plan_change *out)
{
    double *bytes = ts_xcalloc(cluster->gpu_count + 1, sizeof *bytes);
    double *node_bytes = ts_xcalloc(cluster->node_count + 1, sizeof *node_bytes);
    bool *kept = ts_xcalloc(from->group_count + 1, sizeof *kept);
    *out = (struct plan_change){0};
    plan_change_bytes(cluster, model, from, to, bytes);
    for (uint32_t i = 0; i < cluster->gpu_count; i++)
        node_bytes[cluster->gpus[i].node] += bytes[i];
    for (uint32_t n = 0; n < cluster->node_count; n++) {
        out->load_bytes += node_bytes[n];
        out->reload_s = fmax(out->reload_s, node_bytes[n] > 0 ? node_bytes[n] / node_bytes_per_s : 0);
    }
    for (uint32_t i = 0; i < to->group_count; i++) {
        for (uint32_t j = 0; j < from->group_count; j++) {
            if (!ts_group_same_devices(&to->groups[i], &from->groups[j]))
                continue;
            kept[j] = to->groups[i].phase == from->groups[j].phase;
            out->groups_kept += kept[j];
            out->groups_flipped += !kept[j];
        }
    }
    if (out->groups_flipped)
        out->reload_s = fmax(out->reload_s, flip_s);
    for (uint32_t i = 0; i < from->flow_count; i++) {
        const struct ts_flow *flow = &from->flows[i];
        if (kept[flow->prefill] && kept[flow->decode])
            out->served_meanwhile += flow->attained;
    }
    ts_free(bytes);
    ts_free(node_bytes);
    ts_free(kept);
}
