#include <math.h>

#include "services/planner/plan_shape.h"

/* P(wait > x). */
static double wait_tail(const struct plan_point *p, double x)
{
    if (x < p->hold_s)
        return 1;
    return p->wait_s > 0 ? p->wait_share * exp(-(x - p->hold_s) / p->wait_s) : 0;
}

static double normal_tail(double slack, double sd)
{
    if (sd > 0)
        return 0.5 * erfc(slack / (sd * 1.4142135623730951));
    return slack < 0 ? 1 : 0;
}

struct plan_miss plan_miss_of(const struct ts_class *class_, double prefill_s, const struct plan_point *p,
                              const struct plan_point *d, double visible_s)
{
    struct plan_miss miss = {0};
    double steps = fmax(class_->output_tokens - 1, 0); /* token 0 comes from prefill */
    if (class_->ttft_s > 0)
        miss.ttft = wait_tail(p, class_->ttft_s - prefill_s);
    if (class_->tpot_s > 0 && steps > 0) {
        double variance = d->step_sd_s * d->step_sd_s + (d->stall_s2 + d->start_s2 / steps) / steps;
        double first = (visible_s + d->start_s) / steps;
        miss.tpot = normal_tail(class_->tpot_s - first - d->step_s, sqrt(variance));
    }
    if (class_->e2e_s > 0) {
        double decode = steps > 0 ? visible_s + d->start_s + steps * d->step_s : 0;
        miss.e2e = wait_tail(p, class_->e2e_s - prefill_s - decode);
    }
    miss.any = fmin(1, fmax(miss.ttft, miss.e2e) + miss.tpot);
    return miss;
}
