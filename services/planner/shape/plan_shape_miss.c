#include <math.h>

#include "common/base/ts_math.h"
#include "services/planner/shape/plan_shape.h"

#define NONE_IN_TIME 1e-9 /* so few that a program over them would only see rounding */
#define SURE_SD      7    /* standard deviations: one in 10^12 is beyond */

/* P(wait > x) in the queue of the first stage. */
static double queue_tail(const struct plan_point *p, double x)
{
    if (x < p->hold_s)
        return 1;
    return p->wait_s > 0 ? p->wait_share * ts_math_exp(-(x - p->hold_s) / p->wait_s) : 0;
}

/* P(wait > x) along the pipeline too. Completion is last-passage percolation: one of class c, longer, that
 * came t before, makes this one wait for prefill(c) - t + what came between - share * prefill. What comes
 * between lets gaps close at the rate 1 - rho, so those that still stand in the way after x are Poisson with
 * this mean. */
static double wait_tail(const struct plan_point *p, double prefill_s, double x)
{
    double tail = queue_tail(p, x);
    if (!p->follow || tail >= 1)
        return tail;
    const struct plan_follow *follow = p->follow;
    double own = fmin(prefill_s, follow->most), after = follow->share * own + x, ahead = 0;
    for (uint32_t c = 0; c < follow->count; ++c)
        if (follow->prefill_s[c] > own && follow->prefill_s[c] > after)
            ahead += follow->weight[c] * (follow->prefill_s[c] - after);
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
    if (class_->ttft_s > 0)
        miss.ttft = wait_tail(p, prefill_s, class_->ttft_s - prefill_s);
    if (class_->tpot_s > 0 && steps > 0) {
        double variance = d->step_sd_s * d->step_sd_s + (d->stall_s2 + d->start_s2 / steps) / steps;
        double first = (visible_s + d->start_s) / steps;
        miss.tpot = normal_tail(class_->tpot_s - first - d->step_s, sqrt(variance));
    }
    if (class_->e2e_s > 0) {
        double decode = steps > 0 ? visible_s + d->start_s + steps * d->step_s : 0;
        miss.e2e = wait_tail(p, prefill_s, class_->e2e_s - prefill_s - decode);
    }
    miss.any = fmin(1, fmax(miss.ttft, miss.e2e) + miss.tpot);
    if (miss.any > 1 - NONE_IN_TIME)
        miss.any = 1;
    return miss;
}
