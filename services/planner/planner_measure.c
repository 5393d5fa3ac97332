#include "services/planner/planner_measure.h"

#include <math.h>
#include <string.h>

#include "services/planner/live/planner_demand.h"

#define TICK_S 1e-3 /* rounding of windows */

static struct ts_workload all_of(const struct planner_measure *m, const struct ts_workload *like)
{
    struct ts_workload all = *like;
    double rate = 0, prompt = 0, output = 0;
    for (uint32_t k = 0; k < m->count; k++) {
        rate += m->classes[k].rate;
        prompt += m->classes[k].rate * m->classes[k].prompt_tokens;
        output += m->classes[k].rate * m->classes[k].output_tokens;
    }
    all.arrivals_per_s = rate;
    all.prompt_tokens_mean = rate > 0 ? prompt / rate : 0;
    all.output_tokens_mean = rate > 0 ? output / rate : 0;
    all.window_s = m->window_s;
    all.burst = m->burst;
    all.classes = (struct ts_workload_classes){m->classes, m->count};
    return all;
}

static double mean_of(double weight_a, double a, double weight_b, double b)
{
    return (weight_a * a + weight_b * b) / (weight_a + weight_b);
}

/* False when it is of no range, or of one too many. */
static bool add_class(struct planner_measure *m, const struct ts_workload_class *from)
{
    uint32_t k = 0;
    if (!(from->prompt_end > 0))
        return false;
    while (k < m->count && !(m->classes[k].prompt_begin == from->prompt_begin &&
                             m->classes[k].prompt_end == from->prompt_end))
        k++;
    if (k == TS_WORKLOAD_CLASSES_MAX)
        return false;
    struct ts_workload_class *c = &m->classes[k];
    if (k == m->count) {
        m->classes[m->count++] = *from;
        return true;
    }
    double a = c->rate, b = from->rate;
    c->prompt_tokens = mean_of(a, c->prompt_tokens, b, from->prompt_tokens);
    c->prompt_tokens_sq = mean_of(a, c->prompt_tokens_sq, b, from->prompt_tokens_sq);
    c->output_tokens = mean_of(a, c->output_tokens, b, from->output_tokens);
    c->output_tokens_sq = mean_of(a, c->output_tokens_sq, b, from->output_tokens_sq);
    c->rate = a + b;
    return true;
}

/* Rates are those of the windows' mean: what was there weighs as its seconds do. */
static bool add(struct planner_measure *m, const struct ts_workload *w, double most_s)
{
    double before_s = fmax(0, fmin(m->window_s, most_s - w->window_s)), whole_s = before_s + w->window_s;
    bool all = true;
    for (uint32_t k = 0; k < m->count; k++)
        m->classes[k].rate *= before_s / whole_s;
    for (uint32_t k = 0; all && k < w->classes.count; k++) {
        struct ts_workload_class c = w->classes.data[k];
        struct ts_class makes_sense;
        c.rate *= w->window_s / whole_s;
        all = !planner_demand_class(&c, &makes_sense) || add_class(m, &c);
    }
    m->burst = mean_of(before_s, m->burst, w->window_s, fmin(1e6, fmax(1e-3, w->burst)));
    m->window_s = whole_s;
    return all;
}

void planner_measure_see(struct planner_measure *m, const struct planner_trigger_rule *rule,
                         const struct ts_workload *workload, double most_s, double now_s)
{
    double requests = planner_workload_requests(workload);
    if (!(requests > 0) || requests < rule->requests_min)
        return;
    if (m->count > 0) {
        const struct ts_workload before = all_of(m, workload);
        if (planner_trigger_moved(rule, &before, workload))
            *m = (struct planner_measure){.end_s = now_s, .ended = true};
    }
    if (m->ended && now_s - m->end_s < workload->window_s - TICK_S)
        return; /* some of it is in there already, or from before the change */
    if (!add(m, workload, most_s))
        *m = (struct planner_measure){.count = 0};
    m->end_s = now_s;
    m->ended = true;
}

struct ts_workload planner_measure_of(const struct planner_measure *m, const struct ts_workload *workload)
{
    return m->count > 0 && m->window_s > workload->window_s + TICK_S ? all_of(m, workload) : *workload;
}
