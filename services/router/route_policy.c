#include "services/router/route_policy.h"

#include <math.h>
#include <string.h>

/* Cost of one more request on this pair; infinite when it cannot take it. */
static double cost_of(const struct route_worker *p, const struct route_worker *d, double share,
                      int avoided_max)
{
    if (p->fingerprint != d->fingerprint || p->in_flight >= p->limit || d->in_flight >= d->limit ||
        share <= 0)
        return INFINITY;
    if (p->avoid + d->avoid > avoided_max)
        return INFINITY;
    return (1.0 + p->in_flight + d->in_flight) / share;
}

static const struct route_share *share_of(const struct route_worker *p, const struct route_worker *d,
                                          const struct route_share *shares, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(shares[i].prefill, p->id) == 0 && strcmp(shares[i].decode, d->id) == 0)
            return &shares[i];
    }
    return NULL;
}

static bool pick(const struct route_worker *prefill, size_t prefill_count, const struct route_worker *decode,
                 size_t decode_count, const struct route_share *shares, size_t share_count, int avoided_max,
                 struct route_choice *out)
{
    double best = INFINITY;
    for (size_t i = 0; i < prefill_count; i++) {
        for (size_t j = 0; j < decode_count; j++) {
            const struct route_share *share = share_of(&prefill[i], &decode[j], shares, share_count);
            double weight = share ? share->share : share_count == 0 ? 1.0 : 0.0;
            double cost = cost_of(&prefill[i], &decode[j], weight, avoided_max);
            if (cost >= best)
                continue;
            best = cost;
            *out = (struct route_choice){i, j, share && *share->codec ? share->codec : NULL};
        }
    }
    return isfinite(best);
}

bool route_pick(const struct route_worker *prefill, size_t prefill_count, const struct route_worker *decode,
                size_t decode_count, const struct route_share *shares, size_t share_count,
                struct route_choice *out)
{
    for (int avoided_max = 0; avoided_max <= 2; avoided_max++) {
        if (share_count &&
            pick(prefill, prefill_count, decode, decode_count, shares, share_count, avoided_max, out))
            return true;
        if (pick(prefill, prefill_count, decode, decode_count, NULL, 0, avoided_max, out))
            return true;
    }
    return false;
}
