#include "services/planner/live/planner_demand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool within(double value, double least, double most)
{
    return value >= least && value <= most;
}

bool planner_demand_class(const struct ts_workload_class *from, struct ts_class *to)
{
    if (!(from->rate > 0) || !within(from->rate, 0, 1e8) || !within(from->prompt_tokens, 1, 1e8) ||
        !within(from->output_tokens, 1, 1e8) || !within(from->prompt_tokens_sq, 0, 1e17) ||
        !within(from->output_tokens_sq, 0, 1e17))
        return false;
    *to = (struct ts_class){
        .rate = from->rate,
        .prompt_tokens = from->prompt_tokens,
        .prompt_begin = within(from->prompt_begin, 0, from->prompt_tokens) ? from->prompt_begin : 0,
        .prompt_end = within(from->prompt_end, from->prompt_tokens, 1e9) ? from->prompt_end : 0,
        .prompt_tokens_sq = fmax(from->prompt_tokens_sq, from->prompt_tokens * from->prompt_tokens),
        .output_tokens = from->output_tokens,
        .output_tokens_sq = fmax(from->output_tokens_sq, from->output_tokens * from->output_tokens)};
    return true;
}

double planner_workload_requests(const struct ts_workload *workload)
{
    double rate = 0;
    struct ts_class class_;
    for (uint32_t k = 0; k < workload->classes.count; k++)
        rate += planner_demand_class(&workload->classes.data[k], &class_) ? class_.rate : 0;
    return within(workload->window_s, 0, 1e9) ? rate * workload->window_s : 0;
}

double planner_length_distance(double a, double b)
{
    return a / b + b / a - 2;
}

static double mean_of(double rate_a, double a, double rate_b, double b)
{
    return (rate_a * a + rate_b * b) / (rate_a + rate_b);
}

static void merge(struct ts_class *into, const struct ts_class *other)
{
    double a = into->rate, b = other->rate;
    into->prompt_tokens = mean_of(a, into->prompt_tokens, b, other->prompt_tokens);
    into->prompt_tokens_sq = mean_of(a, into->prompt_tokens_sq, b, other->prompt_tokens_sq);
    into->output_tokens = mean_of(a, into->output_tokens, b, other->output_tokens);
    into->output_tokens_sq = mean_of(a, into->output_tokens_sq, b, other->output_tokens_sq);
    into->rate = a + b;
    bool ranges = into->prompt_end > 0 && other->prompt_end > 0;
    into->prompt_begin = ranges ? fmin(into->prompt_begin, other->prompt_begin) : 0;
    into->prompt_end = ranges ? fmax(into->prompt_end, other->prompt_end) : 0;
}

/* What is lost by treating two classes as one: Ward's criterion over the logarithms of their lengths. */
static double merge_cost(const struct ts_class *a, const struct ts_class *b)
{
    return a->rate * b->rate / (a->rate + b->rate) *
           (planner_length_distance(a->prompt_tokens, b->prompt_tokens) +
            planner_length_distance(a->output_tokens, b->output_tokens));
}

/* The cheapest pair; the first one of equals. */
static void merge_nearest(struct ts_class *classes, uint32_t *count)
{
    uint32_t best_a = 0, best_b = 1;
    double least = INFINITY;
    for (uint32_t a = 0; a < *count; a++) {
        for (uint32_t b = a + 1; b < *count; b++) {
            double cost = merge_cost(&classes[a], &classes[b]);
            if (cost < least) {
                least = cost;
                best_a = a;
                best_b = b;
            }
        }
    }
    merge(&classes[best_a], &classes[best_b]);
    (*count)--;
    memmove(&classes[best_b], &classes[best_b + 1], (*count - best_b) * sizeof *classes);
}

/* A router knows the prompt of a request and not its output: what has the same range of prompts is one class.
 */
static void merge_ranges(struct ts_class *classes, uint32_t *count)
{
    uint32_t kept = 0;
    for (uint32_t k = 0; k < *count; k++) {
        uint32_t same = 0;
        while (same < kept &&
               !(classes[k].prompt_end > 0 && classes[same].prompt_begin == classes[k].prompt_begin &&
                 classes[same].prompt_end == classes[k].prompt_end))
            same++;
        if (same < kept)
            merge(&classes[same], &classes[k]);
        else
            classes[kept++] = classes[k];
    }
    *count = kept;
}

static int by_lengths(const void *a, const void *b)
{
    const struct ts_class *x = a, *y = b;
    if (x->prompt_tokens != y->prompt_tokens)
        return x->prompt_tokens < y->prompt_tokens ? -1 : 1;
    if (x->output_tokens != y->output_tokens)
        return x->output_tokens < y->output_tokens ? -1 : 1;
    return (x->rate > y->rate) - (x->rate < y->rate);
}

/* The classes of a workload that make sense, merged to `most`, in order. `classes` has room for all. */
static uint32_t read_classes(const struct ts_workload *workload, uint32_t most, struct ts_class *classes)
{
    uint32_t count = 0;
    for (uint32_t k = 0; k < workload->classes.count && count < TS_WORKLOAD_CLASSES_MAX; k++)
        count += planner_demand_class(&workload->classes.data[k], &classes[count]);
    /* In order first, so that which of equal pairs is merged does not depend on the order of arrival. */
    if (count)
        qsort(classes, count, sizeof *classes, by_lengths);
    merge_ranges(classes, &count);
    while (count > (most ? most : 1))
        merge_nearest(classes, &count);
    if (count)
        qsort(classes, count, sizeof *classes, by_lengths);
    return count;
}

bool planner_demand_measured(const struct ts_workload *workload, uint32_t classes_max, double requests_min,
                             struct ts_demand *out)
{
    struct ts_class classes[TS_WORKLOAD_CLASSES_MAX];
    double requests = planner_workload_requests(workload);
    if (!(requests > 0) || requests < requests_min)
        return false;
    *out = (struct ts_demand){.name = "measured", .burst = 1};
    if (within(workload->burst, 1e-3, 1e6))
        out->burst = workload->burst;
    out->class_count =
        read_classes(workload, classes_max < TS_CLASSES_MAX ? classes_max : TS_CLASSES_MAX, classes);
    memcpy(out->classes, classes, out->class_count * sizeof *classes);
    return true;
}

/* So many of each router that all together are as many as one may have. */
static void add_classes(const struct ts_workload *from, uint32_t most, struct ts_workload_class *all,
                        uint32_t *count)
{
    struct ts_class classes[TS_WORKLOAD_CLASSES_MAX];
    uint32_t own = read_classes(from, most, classes);
    for (uint32_t k = 0; k < own; k++)
        all[(*count)++] = (struct ts_workload_class){.rate = classes[k].rate,
                                                     .prompt_tokens = classes[k].prompt_tokens,
                                                     .prompt_tokens_sq = classes[k].prompt_tokens_sq,
                                                     .prompt_begin = classes[k].prompt_begin,
                                                     .prompt_end = classes[k].prompt_end,
                                                     .output_tokens = classes[k].output_tokens,
                                                     .output_tokens_sq = classes[k].output_tokens_sq};
}

struct ts_workload planner_workload_sum(const struct ts_workload *const *workloads, size_t count,
                                        struct ts_arena *arena)
{
    struct ts_workload sum = *workloads[0];
    double judged = 0, attained = 0, rate = 0, prompt = 0, output = 0, burst = 0;
    if (count == 1)
        return sum;
    struct ts_workload_class *all = ts_arena_zalloc(arena, TS_WORKLOAD_CLASSES_MAX * sizeof *all);
    sum = (struct ts_workload){.attained = -1, .classes = {all, 0}};
    for (size_t i = 0; i < count; i++) {
        const struct ts_workload *w = workloads[i];
        double arrivals = within(w->arrivals_per_s, 0, 1e9) ? w->arrivals_per_s : 0;
        add_classes(w, (uint32_t)(TS_WORKLOAD_CLASSES_MAX / count), all, &sum.classes.count);
        sum.queued += w->queued;
        sum.running += w->running;
        sum.refused_per_s += w->refused_per_s;
        sum.window_s = i == 0 || w->window_s < sum.window_s ? w->window_s : sum.window_s;
        rate += arrivals;
        prompt += arrivals * w->prompt_tokens_mean;
        output += arrivals * w->output_tokens_mean;
        burst += arrivals * w->burst;
        judged += w->attained >= 0 ? arrivals : 0;
        attained += w->attained >= 0 ? arrivals * w->attained : 0;
    }
    sum.arrivals_per_s = rate;
    sum.prompt_tokens_mean = rate > 0 ? prompt / rate : 0;
    sum.output_tokens_mean = rate > 0 ? output / rate : 0;
    sum.burst = rate > 0 ? burst / rate : 1;
    sum.attained = judged > 0 ? attained / judged : -1;
    return sum;
}
