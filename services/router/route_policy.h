/*
 * Which prefill and which decode worker serve a request. A pure function of the candidates and the plan's
 * shares: among all usable pairs the one with the least load for its share wins, ties by order. Without a
 * plan (or where it covers nobody alive) all pairs have equal shares.
 */
#ifndef ROUTE_POLICY_H
#define ROUTE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct route_worker {
    const char *id;
    uint64_t fingerprint;
    uint32_t in_flight, limit;
    bool avoid; /* failed this request before: only if nobody else is left */
};

struct route_share {
    const char *prefill, *decode; /* worker ids */
    double share;
    const char *codec; /* empty = the default */
};

struct route_choice {
    size_t prefill, decode; /* indices into the candidates */
    const char *codec;      /* of the plan, or NULL */
};

/* False when no pair is usable. Candidates are alive, ready, not draining and of the asked model. */
bool route_pick(const struct route_worker *prefill, size_t prefill_count, const struct route_worker *decode,
                size_t decode_count, const struct route_share *shares, size_t share_count,
                struct route_choice *out);

#endif
