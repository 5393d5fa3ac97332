/* The requests of a trial. Lengths of a class are log-normal with its moments, inside its range. */
#include <math.h>
#include <stdlib.h>

#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/trial/plan_trial_impl.h"

#define LENGTH_MOST 1e6 /* tokens */

static double draw_length(struct ts_rng *rng, double mean, double square, double least, double most)
{
    double spread = fmax(square / (mean * mean), 1);
    double z = ts_rng_normal(rng), deviation = sqrt(ts_math_log(spread));
    return floor(fmin(fmax(mean / sqrt(spread) * ts_math_exp(deviation * z), least), most) + 0.5);
}

/* Time between two arrivals with the squared coefficient of variation `burst`: below 1 a constant and an
 * exponential part, above 1 two exponentials of balanced means (Whitt, Operations Research 30, 1982). */
static double draw_gap(struct ts_rng *rng, double mean, double burst)
{
    if (burst <= 1) {
        double part = sqrt(fmax(burst, 0));
        return mean * (1 - part) + ts_rng_exponential(rng, mean * part);
    }
    double first = (1 + sqrt((burst - 1) / (burst + 1))) / 2;
    double chosen = ts_rng_unit(rng) < first ? first : 1 - first;
    return ts_rng_exponential(rng, mean / (2 * chosen));
}

/* --- Deadlines --- */

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b));
}

static double deadline(const struct ts_class *class_, int kind)
{
    return kind == 0 ? class_->ttft_s : class_->tpot_s;
}

/* Deadlines that differ by class go with the prompt: linear between the means of the two classes that are
 * nearest on both sides, or the two outermost. */
static double deadline_of(const struct ts_demand *demand, const struct ts_class *own, int kind, double prompt)
{
    const struct ts_class *below = NULL, *above = NULL;
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *other = &demand->classes[k];
        if (!(deadline(other, kind) > 0))
            return deadline(own, kind);
        if (other->prompt_tokens <= prompt && (!below || other->prompt_tokens > below->prompt_tokens))
            below = other;
        if (other->prompt_tokens > prompt && (!above || other->prompt_tokens < above->prompt_tokens))
            above = other;
    }
    const struct ts_class *middle = below ? below : above, *second = NULL;
    for (uint32_t k = 0; k < demand->class_count && !(below && above); k++) {
        const struct ts_class *other = &demand->classes[k];
        double far = fabs(other->prompt_tokens - middle->prompt_tokens);
        if (far > 0 && (!second || far < fabs(second->prompt_tokens - middle->prompt_tokens)))
            second = other;
    }
    below = below ? below : second;
    above = above ? above : second;
    if (!below || !above)
        return deadline(own, kind);
    double slope =
        (deadline(above, kind) - deadline(below, kind)) / (above->prompt_tokens - below->prompt_tokens);
    double value = deadline(below, kind) + slope * (prompt - below->prompt_tokens);
    return value > 0 ? value : deadline(own, kind);
}

/* Whether the time to the end is that to token 0 and all steps, as deadlines of a scale are. */
static bool adds_up(const struct ts_demand *demand)
{
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *class_ = &demand->classes[k];
        double steps = fmax(class_->output_tokens - 1, 0);
        if (!(class_->ttft_s > 0 && class_->tpot_s > 0 && class_->e2e_s > 0) ||
            fabs(class_->ttft_s + steps * class_->tpot_s - class_->e2e_s) > 0.05 * class_->e2e_s)
            return false;
    }
    return true;
}

static bool alike(const struct ts_demand *demand)
{
    for (uint32_t k = 1; k < demand->class_count; k++) {
        if (!near(demand->classes[k].ttft_s, demand->classes[0].ttft_s) ||
            !near(demand->classes[k].tpot_s, demand->classes[0].tpot_s))
            return false;
    }
    return true;
}

static void set_deadlines(const struct ts_demand *demand, struct trial_request *r, bool scaled)
{
    const struct ts_class *own = &demand->classes[r->length_class];
    r->ttft_s = own->ttft_s;
    r->tpot_s = own->tpot_s;
    r->e2e_s = own->e2e_s;
    if (!scaled)
        return;
    r->ttft_s = deadline_of(demand, own, 0, r->prompt);
    r->tpot_s = deadline_of(demand, own, 1, r->prompt);
    r->e2e_s = r->ttft_s + (r->output - 1) * r->tpot_s;
}

/* --- All of them --- */

static uint32_t draw_class(struct ts_rng *rng, const struct ts_demand *demand)
{
    double at = ts_rng_unit(rng) * ts_demand_rate(demand);
    uint32_t k = 0;
    for (; k + 1 < demand->class_count && at >= demand->classes[k].rate; k++)
        at -= demand->classes[k].rate;
    return k;
}

void trial_draw(struct trial *trial, double scale, uint64_t seed)
{
    const struct ts_demand *demand = trial->problem->demand;
    bool scaled = adds_up(demand) && !(demand->class_count > 1 && alike(demand));
    double mean = 1 / (scale * ts_demand_rate(demand)), at = 0;
    struct ts_rng rng;
    ts_rng_init(&rng, ts_splitmix64(seed));
    for (uint32_t i = 0; i < trial->request_count; i++) {
        struct trial_request *r = &trial->requests[i];
        r->length_class = draw_class(&rng, demand);
        const struct ts_class *class_ = &demand->classes[r->length_class];
        double least = fmax(class_->prompt_begin, 1);
        double most = class_->prompt_end > least ? fmin(class_->prompt_end - 1, LENGTH_MOST) : LENGTH_MOST;
        at += draw_gap(&rng, mean, demand->burst);
        r->at = at;
        r->prompt = (uint32_t)draw_length(&rng, fmax(class_->prompt_tokens, 1), class_->prompt_tokens_sq,
                                          least, most);
        r->output = (uint32_t)draw_length(&rng, fmax(class_->output_tokens, 1), class_->output_tokens_sq, 1,
                                          LENGTH_MOST);
        r->share = TRIAL_NONE;
        r->total = r->prompt;
        set_deadlines(demand, r, scaled);
    }
}
