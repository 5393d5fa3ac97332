#include "services/planner/planner_trigger.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "services/planner/live/planner_demand.h"

#define TICK_S     1e-6 /* below what a clock's rounding may hide */
#define DEVIATIONS 3    /* of an estimate: what chance does once in some hundred looks */

struct planner_trigger_rule planner_trigger_defaults(void)
{
    return (struct planner_trigger_rule){.rate = 0.3,
                                         .length = 0.25,
                                         .mix = 0.2,
                                         .link = 0.3,
                                         .attained = 0.1,
                                         .period_s = 30,
                                         .plan_min_s = 1,
                                         .requests_min = 50};
}

/* --- What is measured --- */

/* Those of one range of prompts are one class. */
static void add_class(struct planner_basis *out, const struct ts_class *class_)
{
    uint32_t k = 0;
    while (k < out->class_count &&
           !(class_->prompt_end > 0 && out->classes[k].prompt_begin == class_->prompt_begin &&
             out->classes[k].prompt_end == class_->prompt_end))
        k++;
    struct ts_workload_class *c = &out->classes[k];
    double rate = (k < out->class_count ? c->rate : 0) + class_->rate, weight = class_->rate / rate;
    if (k == out->class_count)
        *c = (struct ts_workload_class){.prompt_begin = class_->prompt_begin,
                                        .prompt_end = class_->prompt_end};
    out->class_count += k == out->class_count;
    c->prompt_tokens += weight * (class_->prompt_tokens - c->prompt_tokens);
    c->output_tokens += weight * (class_->output_tokens - c->output_tokens);
    c->rate = rate;
}

/* Classes that make sense, and their sums. False when too few requests were seen. */
static bool read_workload(const struct planner_trigger_rule *rule, const struct ts_workload *workload,
                          struct planner_basis *out)
{
    double requests = planner_workload_requests(workload);
    if (!(requests > 0) || requests < rule->requests_min)
        return false;
    out->requests = requests;
    out->burst = workload->burst >= 1 && workload->burst <= 1e6 ? workload->burst : 1;
    for (uint32_t k = 0; k < workload->classes.count; k++) {
        struct ts_class class_;
        if (out->class_count == TS_WORKLOAD_CLASSES_MAX ||
            !planner_demand_class(&workload->classes.data[k], &class_))
            continue;
        add_class(out, &class_);
        out->rate += class_.rate;
        out->prompt_tokens += class_.rate * class_.prompt_tokens;
        out->prompt_tokens_sq += class_.rate * class_.prompt_tokens_sq;
        out->output_tokens += class_.rate * class_.output_tokens;
        out->output_tokens_sq += class_.rate * class_.output_tokens_sq;
    }
    out->prompt_tokens /= out->rate;
    out->prompt_tokens_sq /= out->rate;
    out->output_tokens /= out->rate;
    out->output_tokens_sq /= out->rate;
    return true;
}

static uint64_t name_of(const struct ts_link_item *link)
{
    uint64_t from = link->from.count ? ts_hash64(link->from.data, link->from.count, 1) : 1;
    return link->to.count ? ts_hash64(link->to.data, link->to.count, from) : from;
}

void planner_basis_forget(struct planner_basis *basis)
{
    ts_free(basis->links);
    *basis = (struct planner_basis){.promised = -1};
}

void planner_basis_set(struct planner_basis *basis, const struct planner_trigger_rule *rule,
                       const struct ts_workload *workload, const struct ts_link_items *links, double promised,
                       double now_s)
{
    planner_basis_forget(basis);
    if (read_workload(rule, workload, basis))
        basis->promised = promised;
    basis->at_s = now_s;
    basis->links = ts_xcalloc(links->count + 1, sizeof *basis->links);
    basis->link_count = links->count;
    for (uint32_t i = 0; i < links->count; i++)
        basis->links[i] =
            (struct planner_basis_link){name_of(&links->data[i]), links->data[i].goodput_bytes_per_s};
}

/* --- What has changed --- */

/* Whether a figure has moved from `before` by more than the share, and more than chance: `variation` is that
 * of one request, squared. */
static bool moved(double before, double after, double share, double variation, double requests)
{
    double limit = fmax(share, DEVIATIONS * sqrt(2 * fmax(variation, 0) / requests));
    return fabs(after - before) > limit * before;
}

static double variation_of(double mean, double mean_sq)
{
    return mean_sq / (mean * mean) - 1;
}

/* The share of requests that are of other classes than before: half the sum of the differences. Today's
 * classes count as those of before that are nearest. */
static double mix_change(const struct planner_basis *basis, const struct planner_basis *now)
{
    double shares[TS_WORKLOAD_CLASSES_MAX] = {0}, sum = 0;
    for (uint32_t k = 0; k < now->class_count; k++) {
        uint32_t nearest = 0;
        double least = INFINITY;
        for (uint32_t b = 0; b < basis->class_count; b++) {
            double distance =
                planner_length_distance(now->classes[k].prompt_tokens, basis->classes[b].prompt_tokens) +
                planner_length_distance(now->classes[k].output_tokens, basis->classes[b].output_tokens);
            if (distance < least) {
                least = distance;
                nearest = b;
            }
        }
        shares[nearest] += now->classes[k].rate / now->rate;
    }
    for (uint32_t b = 0; b < basis->class_count; b++)
        sum += fabs(shares[b] - basis->classes[b].rate / basis->rate);
    return sum / 2;
}

static enum planner_cause check_workload(const struct planner_basis *basis,
                                         const struct planner_trigger_rule *rule,
                                         const struct planner_basis *now, char *words, size_t size)
{
    double requests = fmin(basis->requests, now->requests);
    if (moved(basis->rate, now->rate, rule->rate, fmax(basis->burst, now->burst), requests)) {
        snprintf(words, size, "requests/s went from %.3g to %.3g", basis->rate, now->rate);
        return PLANNER_CAUSE_RATE;
    }
    if (moved(basis->prompt_tokens, now->prompt_tokens, rule->length,
              variation_of(basis->prompt_tokens, basis->prompt_tokens_sq), requests)) {
        snprintf(words, size, "prompts went from %.0f to %.0f tokens", basis->prompt_tokens,
                 now->prompt_tokens);
        return PLANNER_CAUSE_LENGTH;
    }
    if (moved(basis->output_tokens, now->output_tokens, rule->length,
              variation_of(basis->output_tokens, basis->output_tokens_sq), requests)) {
        snprintf(words, size, "outputs went from %.0f to %.0f tokens", basis->output_tokens,
                 now->output_tokens);
        return PLANNER_CAUSE_LENGTH;
    }
    double mix = mix_change(basis, now);
    if (mix > fmax(rule->mix, sqrt(basis->class_count / requests))) {
        snprintf(words, size, "%.0f %% of the requests are of other lengths than before", 100 * mix);
        return PLANNER_CAUSE_MIX;
    }
    return PLANNER_CAUSE_NONE;
}

bool planner_trigger_moved(const struct planner_trigger_rule *rule, const struct ts_workload *before,
                           const struct ts_workload *now)
{
    struct planner_basis a = {.class_count = 0}, b = {.class_count = 0};
    char words[160];
    return read_workload(rule, before, &a) && read_workload(rule, now, &b) &&
           check_workload(&a, rule, &b, words, sizeof words) != PLANNER_CAUSE_NONE;
}

static enum planner_cause check_links(const struct planner_basis *basis,
                                      const struct planner_trigger_rule *rule,
                                      const struct ts_link_items *links, char *words, size_t size)
{
    for (uint32_t i = 0; i < links->count && i < basis->link_count; i++) {
        const struct ts_link_item *link = &links->data[i];
        double before = basis->links[i].bytes_per_s, after = link->goodput_bytes_per_s;
        if (!(before > 0 && after > 0) || !(fabs(after - before) > rule->link * before) ||
            name_of(link) != basis->links[i].name)
            continue;
        snprintf(words, size, "the link from %.*s to %.*s went from %.3g to %.3g MB/s",
                 (int)(link->from.count < 40 ? link->from.count : 40), link->from.data,
                 (int)(link->to.count < 40 ? link->to.count : 40), link->to.data, before / 1e6, after / 1e6);
        return PLANNER_CAUSE_LINK;
    }
    return PLANNER_CAUSE_NONE;
}

enum planner_cause planner_basis_check(const struct planner_basis *basis,
                                       const struct planner_trigger_rule *rule,
                                       const struct ts_workload *workload, const struct ts_link_items *links,
                                       double now_s, char *words, size_t size)
{
    struct planner_basis now = {.class_count = 0};
    enum planner_cause cause = PLANNER_CAUSE_NONE;
    bool measured = read_workload(rule, workload, &now);
    if (measured && basis->class_count == 0) {
        snprintf(words, size, "%.0f requests are measured now", now.requests);
        return PLANNER_CAUSE_MEASURED;
    }
    if (measured)
        cause = check_workload(basis, rule, &now, words, size);
    if (cause == PLANNER_CAUSE_NONE)
        cause = check_links(basis, rule, links, words, size);
    if (cause != PLANNER_CAUSE_NONE)
        return cause;
    /* Only what was measured since the plan is there speaks of it. */
    if (measured && workload->attained >= 0 && workload->attained < basis->promised - rule->attained &&
        now_s - basis->at_s >= workload->window_s) {
        snprintf(words, size, "%.0f %% of the requests are in time and %.0f %% were promised",
                 100 * workload->attained, 100 * basis->promised);
        return PLANNER_CAUSE_ATTAINED;
    }
    if (basis->class_count > 0 && now_s - basis->at_s >= rule->period_s - TICK_S) {
        snprintf(words, size, "the last look is %.0f s ago", now_s - basis->at_s);
        return PLANNER_CAUSE_PERIOD;
    }
    return PLANNER_CAUSE_NONE;
}
