#include <math.h>

#include "common/base/ts_math.h"
#include "services/planner/plan_shape.h"

#define NONE_IN_TIME 1e-9 /* so few that a program over them would only see rounding */
#define SURE_SD      7    /* standard deviations: one in 10^12 is beyond */

/* The work in line when a prompt that is due so long after its arrival has x to wait. Who is due first goes
 * first, so those that wait are the ones due after some time, the frontier; a class that has due_s has all
 * its arrivals of (due_s - frontier)+ in line (Doytchinov, Lehoczky, Shreve, Real-time queues in heavy
 * traffic with earliest-deadline-first queue discipline, Annals of Applied Probability 11, 2001). */
static double work_ahead(const struct plan_line *line, double due_s, double x)
{
    double work = 0;
    for (uint32_t c = 0; c < line->count; ++c)
        work += line->work[c] * fmax(x + line->due_s[c] - due_s, 0);
    return work;
}

/* P(wait > x) in the queue of the first stage. */
static double queue_tail(const struct plan_point *p, double due_s, double x)
{
    if (x < p->hold_s)
        return 1;
    double ahead = p->line ? work_ahead(p->line, due_s, x - p->hold_s) : x - p->hold_s;
    return p->wait_s > 0 ? p->wait_share * ts_math_exp(-ahead / p->wait_s) : 0;
}

/* P(wait > x) for the batch under way and for one's own, which is filled up with prompts that are due later:
 * all the work in line, but no more than is left of the one and a full other. The last batch of a prompt that
 * is larger than one is its own by half. */
static double batch_tail(const struct plan_point *p, double prefill_s, double x)
{
    double one = 1 - p->line->share, under_way = p->full_s * one; /* of the stages; the first one's batch */
    double over = x - fmax(p->full_s - prefill_s, p->full_s / 2);
    if (over >= under_way || !(p->wait_s > 0))
        return 0;
    double near = over > 0 ? 1 - over / under_way : 1;
    return near * p->wait_share * ts_math_exp(-fmax(x - p->hold_s, 0) * one / p->wait_s);
}

/* P(wait > x) along the pipeline too. Completion is last-passage percolation: one of class c, longer, that
 * came t before, makes this one wait for prefill(c) - t + what came between - share * prefill. What comes
 * between lets gaps close at the rate 1 - rho, so those that still stand in the way after x are Poisson with
 * this mean. */
static double wait_tail(const struct plan_point *p, double due_s, double prefill_s, double x)
{
    double tail = queue_tail(p, due_s, x);
    const struct plan_line *line = p->line;
    if (!line || tail >= 1)
        return tail;
    tail = 1 - (1 - tail) * (1 - batch_tail(p, prefill_s, x));
    if (!(line->share > 0))
        return tail;
    double own = fmin(prefill_s, line->most), after = line->share * own + x, ahead = 0;
    for (uint32_t c = 0; c < line->count; ++c)
        if (line->prefill_s[c] > own && line->prefill_s[c] > after)
            ahead += line->weight[c] * (line->prefill_s[c] - after);
    return ahead > 0 ? 1 - (1 - tail) * ts_math_exp(-p->follow_rate * ahead) : tail;
}

static double normal_tail(double slack, double sd)
{
    if (fabs(slack) < SURE_SD * sd)
        return 0.5 * ts_math_erfc(slack / (sd * 1.4142135623730951));
    return slack < 0 ? 1 : 0;
}

struct plan_miss plan_miss_of(const struct ts_class *class_, double prefill_s, const struct plan_point *p,
                              const struct plan_point *d, double visible_s)
{
    struct plan_miss miss = {0};
    double steps = fmax(class_->output_tokens - 1, 0); /* token 0 comes from prefill */
    double due_s = plan_due_s(class_->prompt_tokens);
    if (class_->ttft_s > 0)
        miss.ttft = wait_tail(p, due_s, prefill_s, class_->ttft_s - prefill_s);
    if (class_->tpot_s > 0 && steps > 0) {
        double variance = d->step_sd_s * d->step_sd_s + d->stall_s2 / steps;
        double limit = class_->tpot_s - (visible_s + d->start_s) / steps;
        bool never = d->step_most_s > 0 && class_->tpot_s - visible_s / steps >= d->step_most_s;
        miss.tpot = never ? 0 : normal_tail(limit - d->step_s, sqrt(variance));
    }
    if (class_->e2e_s > 0) {
        double decode = steps > 0 ? visible_s + d->start_s + steps * d->step_s : 0;
        miss.e2e = wait_tail(p, due_s, prefill_s, class_->e2e_s - prefill_s - decode);
    }
    miss.any = fmin(1, fmax(miss.ttft, miss.e2e) + miss.tpot);
    if (miss.any > 1 - NONE_IN_TIME)
        miss.any = 1;
    return miss;
}
