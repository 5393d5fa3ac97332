#include "services/router/route_policy.h"

#include <limits.h>
#include <math.h>

#include "common/base/ts_math.h"
#include "common/core/ts_terms.h"

struct price { /* of a choice: what comes first counts first */
    unsigned avoided;
    bool full;
    double load;
};

static const struct price worst = {UINT_MAX, true, INFINITY};

static bool cheaper(struct price a, struct price b)
{
    if (a.avoided != b.avoided)
        return a.avoided < b.avoided;
    if (a.full != b.full)
        return b.full;
    return a.load < b.load;
}

static bool avoided(const struct route_request *r, const struct route_worker *w)
{
    for (size_t i = 0; i < r->avoid_count; i++) {
        if (r->avoid[i] == w->key)
            return true;
    }
    return false;
}

static bool fits(const struct route_request *r, const struct route_worker *w, enum ts_phase phase)
{
    return (w->phases & phase) == phase && (r->model == 0 || r->model == w->model);
}

static bool prefills(const struct route_request *r, const struct route_worker *w, struct route_limits limits)
{
    return fits(r, w, TS_PHASE_PREFILL) && w->unstarted < limits.unstarted;
}

static bool decodes(const struct route_request *r, const struct route_worker *w, struct route_limits limits)
{
    return fits(r, w, TS_PHASE_DECODE) && w->rows < limits.rows;
}

static bool full(const struct route_request *r, const struct route_worker *w)
{
    return w->kv_blocks > 0 && w->kv_used + r->kv_blocks > w->kv_blocks;
}

static double waiting(const struct route_request *r, const struct route_worker *w)
{
    return (double)(w->prompt_tokens + r->prompt_tokens);
}

/* --- by plan ----------------------------------------------------------------------------------------- */

static double log_of(double tokens)
{
    return ts_math_log(tokens < 1 ? 1 : tokens);
}

size_t route_class_of(const struct route_class *classes, size_t count, uint32_t prompt_tokens,
                      uint32_t output_tokens)
{
    size_t best = 0;
    bool within = false;
    double nearest = INFINITY, prompt, output;
    if (count < 2)
        return 0;
    prompt = log_of(prompt_tokens);
    output = log_of(output_tokens);
    for (size_t i = 0; i < count; i++) {
        double x = classes[i].log_prompt - prompt, y = classes[i].log_output - output;
        double distance = x * x + y * y;
        bool holds = prompt_tokens >= classes[i].prompt_begin && prompt_tokens < classes[i].prompt_end;
        if (holds == within ? distance < nearest : holds) {
            nearest = distance;
            within = holds;
            best = i;
        }
    }
    return best;
}

struct share_load {
    double prefill, decode, sent;
};

/* False when the pair cannot take it. The request itself counts alike everywhere: nothing is measured by a
 * worker that has next to nothing to do. */
static bool load_of(const struct route_class *of, const struct route_share *z,
                    const struct route_replica *replicas, const struct route_request *r,
                    struct route_limits limits, struct share_load *out)
{
    const struct route_replica *p = &replicas[z->prefill], *d = &replicas[z->decode];
    if (!(z->share > 0) || !p->worker || !d->worker || !prefills(r, p->worker, limits) ||
        !decodes(r, d->worker, limits))
        return false;
    if (p->worker != d->worker && (!p->worker->sends || p->worker->fingerprint != d->worker->fingerprint))
        return false;
    *out = (struct share_load){.prefill = (double)p->worker->prompt_tokens / p->prompt_flow +
                                          r->prompt_tokens / of->prompt_flow,
                               .decode = d->worker->rows / d->row_flow + 1 / of->row_flow,
                               .sent = (1 + z->sent) / z->share};
    return true;
}

size_t route_pick_share(const struct route_class *of, const struct route_replica *replicas,
                        const struct route_request *request, struct route_limits limits, unsigned *avoids)
{
    struct share_load mean = {0, 0, 0}, load;
    struct price best = worst;
    size_t picked = ROUTE_NONE;
    for (size_t i = 0; i < of->share_count; i++) {
        const struct route_share *z = &of->shares[i];
        if (!load_of(of, z, replicas, request, limits, &load))
            continue;
        mean.prefill += z->share * load.prefill;
        mean.decode += z->share * load.decode;
        mean.sent += 1 + z->sent;
    }
    const struct share_load weight = {1 / mean.prefill, 1 / mean.decode, 1 / mean.sent};
    for (size_t i = 0; i < of->share_count; i++) {
        const struct route_share *z = &of->shares[i];
        if (!load_of(of, z, replicas, request, limits, &load))
            continue;
        const struct route_worker *p = replicas[z->prefill].worker, *d = replicas[z->decode].worker;
        struct price own = {.avoided = avoided(request, p) + (p != d && avoided(request, d)),
                            .full = full(request, d),
                            .load = load.prefill * weight.prefill + load.decode * weight.decode +
                                    load.sent * weight.sent};
        if (!cheaper(own, best))
            continue;
        best = own;
        picked = i;
    }
    *avoids = best.avoided;
    return picked;
}

/* By sequences for what the plan sends there, among the partners of who made the KV. */
size_t route_pick_fed(const struct route_class *of, const struct route_replica *replicas,
                      const struct route_request *request, struct route_limits limits,
                      const struct route_worker *feeder)
{
    struct price best = worst;
    size_t picked = ROUTE_NONE;
    for (size_t i = 0; i < of->share_count; i++) {
        const struct route_share *z = &of->shares[i];
        const struct route_worker *p = replicas[z->prefill].worker, *d = replicas[z->decode].worker;
        if (!(z->share > 0) || !d || d->fingerprint != feeder->fingerprint || !decodes(request, d, limits) ||
            !p || p->key != feeder->key)
            continue;
        struct price own = {avoided(request, d), full(request, d), d->rows / replicas[z->decode].row_flow};
        if (!cheaper(own, best))
            continue;
        best = own;
        picked = i;
    }
    return picked;
}

/* --- without a plan ---------------------------------------------------------------------------------- */

struct any_pick {
    struct route_worker *const *workers;
    size_t count;
    const struct route_request *request;
    struct route_limits limits;
    bool rates, blocks; /* known of all usable workers: loads are seconds and shares of the memory */
};

static double prefill_load(const struct any_pick *a, const struct route_worker *w)
{
    return waiting(a->request, w) / (a->rates ? w->prompt_tokens_per_s : 1);
}

static double decode_load(const struct any_pick *a, const struct route_worker *w)
{
    return (1.0 + w->rows) / (a->blocks ? (double)w->kv_blocks : 1);
}

/* The next best prefill worker after `after`, whose price was *price. `barren`: one whose kind has no decode
 * worker. */
static size_t next_prefill(const struct any_pick *a, struct price *price, size_t after,
                           const struct route_worker *barren)
{
    const struct price floor = *price;
    size_t picked = ROUTE_NONE;
    *price = worst;
    for (size_t i = 0; i < a->count; i++) {
        const struct route_worker *w = a->workers[i];
        if (!prefills(a->request, w, a->limits) || !w->sends)
            continue;
        if (barren && barren->fingerprint == w->fingerprint && barren->phases == w->phases)
            continue;
        struct price own = {avoided(a->request, w), false, prefill_load(a, w)};
        if (after != ROUTE_NONE && (cheaper(own, floor) || (!cheaper(floor, own) && i <= after)))
            continue;
        if (!cheaper(own, *price))
            continue;
        *price = own;
        picked = i;
    }
    return picked;
}

static size_t best_decode(const struct any_pick *a, const struct route_worker *p)
{
    struct price best = worst;
    size_t picked = ROUTE_NONE;
    for (size_t i = 0; i < a->count; i++) {
        const struct route_worker *w = a->workers[i];
        if (w == p || w->fingerprint != p->fingerprint || !decodes(a->request, w, a->limits) ||
            (p->phases == TS_PHASE_BOTH && w->phases == TS_PHASE_BOTH))
            continue;
        struct price own = {avoided(a->request, w), full(a->request, w), decode_load(a, w)};
        if (!cheaper(own, best))
            continue;
        best = own;
        picked = i;
    }
    return picked;
}

static bool pick_two(const struct any_pick *a, struct route_pair *out)
{
    const struct route_worker *barren = NULL;
    struct price price = worst;
    size_t p = ROUTE_NONE;
    while ((p = next_prefill(a, &price, p, barren)) != ROUTE_NONE) {
        size_t d = best_decode(a, a->workers[p]);
        if (d != ROUTE_NONE) {
            *out = (struct route_pair){p, d, price.avoided + avoided(a->request, a->workers[d])};
            return true;
        }
        barren = a->workers[p];
    }
    return false;
}

static bool serves_alone(const struct any_pick *a, const struct route_worker *w)
{
    return w->phases == TS_PHASE_BOTH && prefills(a->request, w, a->limits) &&
           decodes(a->request, w, a->limits);
}

static bool pick_one(const struct any_pick *a, struct route_pair *out)
{
    struct price best = worst;
    double prefill = 0, decode = 0;
    size_t picked = ROUTE_NONE;
    for (size_t i = 0; i < a->count; i++) {
        if (!serves_alone(a, a->workers[i]))
            continue;
        prefill += prefill_load(a, a->workers[i]);
        decode += decode_load(a, a->workers[i]);
    }
    for (size_t i = 0; i < a->count; i++) {
        const struct route_worker *w = a->workers[i];
        if (!serves_alone(a, w))
            continue;
        struct price own = {avoided(a->request, w), full(a->request, w),
                            prefill_load(a, w) / prefill + decode_load(a, w) / decode};
        if (!cheaper(own, best))
            continue;
        best = own;
        picked = i;
    }
    *out = (struct route_pair){picked, picked, best.avoided};
    return picked != ROUTE_NONE;
}

bool route_pick_any(struct route_worker *const *workers, size_t count, const struct route_request *request,
                    struct route_limits limits, struct route_pair *out)
{
    struct any_pick a = {workers, count, request, limits, true, true};
    struct route_pair one;
    for (size_t i = 0; i < count; i++) {
        if (prefills(request, workers[i], limits) && !(workers[i]->prompt_tokens_per_s > 0))
            a.rates = false;
        if (decodes(request, workers[i], limits) && workers[i]->kv_blocks == 0)
            a.blocks = false;
    }
    bool two = pick_two(&a, out);
    if (two && out->avoided == 0)
        return true;
    if (pick_one(&a, &one) && (!two || one.avoided < out->avoided)) {
        *out = one;
        return true;
    }
    return two;
}

size_t route_pick_decode(struct route_worker *const *workers, size_t count,
                         const struct route_request *request, struct route_limits limits,
                         const struct route_worker *feeder)
{
    struct any_pick a = {workers, count, request, limits, false, false};
    return best_decode(&a, feeder);
}
