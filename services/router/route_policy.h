/*
 * Which prefill and which decode worker serve a request: pure functions of what the router knows of the
 * workers and of the plan's shares.
 *
 * With a plan, only pairs with a share of the request's class count. The cost of a pair is the sum of three
 * numbers, each 1 where everything is as planned: prompt tokens waiting at the prefill worker over those that
 * the plan sends there; sequences at the decode worker over those that the plan sends there; requests sent to
 * the pair over its share of the class. So the shares hold on the whole, and a worker that is behind gets
 * less. Without a plan, or where it has no usable pair: the best prefill worker, then the best decode worker.
 *
 * Penalties come first: a worker that failed this request before, then a decode worker without room for its
 * KV, is taken only if nobody better is left. Ties go by order.
 */
#ifndef ROUTE_POLICY_H
#define ROUTE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROUTE_NONE SIZE_MAX

struct route_worker {            /* what the router knows of one */
    uint64_t key;                /* hash of its id */
    uint64_t model, fingerprint; /* hash of the name; of the KV */
    uint32_t phases;             /* enum ts_phase: what it may be given at the moment */
    bool sends;                  /* its relay is alive */
    uint32_t unstarted;          /* prefill: requests whose KV is not at decode yet */
    uint32_t rows;               /* decode: requests */
    uint64_t prompt_tokens;      /* prefill: of requests that it has not computed yet */
    uint64_t kv_used, kv_blocks; /* decode: of it; kv_blocks 0 = unknown */
    double prompt_tokens_per_s;  /* measured; 0 = unknown */
};

struct route_request {
    uint64_t model; /* 0 = any */
    uint32_t prompt_tokens, kv_blocks;
    const uint64_t *avoid; /* keys of workers that failed it before */
    size_t avoid_count;
};

struct route_limits {
    uint32_t unstarted, rows; /* of one worker */
};

struct route_replica {
    const struct route_worker *worker; /* NULL = not there */
    double prompt_flow, row_flow;      /* what the plan sends there, in any unit */
};

struct route_share {
    uint32_t prefill, decode; /* indices of replicas; equal = both phases on one worker */
    double share;
    double sent;       /* requests so far, older ones count less */
    const char *codec; /* empty = the default */
};

struct route_class {
    double log_prompt, log_output;   /* of its centre */
    double prompt_begin, prompt_end; /* of prompts, end excluded; 0, 0 = no range */
    double prompt_flow, row_flow;    /* of all replicas */
    const struct route_share *shares;
    size_t share_count;
};

/* The class whose range holds the prompt; of several, or without any, that whose centre is nearest; ties go
 * to the first. `count` is at least 1. */
size_t route_class_of(const struct route_class *classes, size_t count, uint32_t prompt_tokens,
                      uint32_t output_tokens);

/* Index of the share, or ROUTE_NONE. `avoided`: how many of its workers failed the request before. */
size_t route_pick_share(const struct route_class *of, const struct route_replica *replicas,
                        const struct route_request *request, struct route_limits limits, unsigned *avoided);

/* The decode worker for KV that is there: made by `feeder`, whose place in the plan counts and not its load.
 */
size_t route_pick_fed(const struct route_class *of, const struct route_replica *replicas,
                      const struct route_request *request, struct route_limits limits,
                      const struct route_worker *feeder);
size_t route_pick_decode(struct route_worker *const *workers, size_t count,
                         const struct route_request *request, struct route_limits limits,
                         const struct route_worker *feeder); /* without a plan */

struct route_pair {
    size_t prefill, decode; /* indices into the workers; equal = both phases on one worker */
    unsigned avoided;
};

/* Among all workers, in order of joining. Two workers are preferred to one of both phases, and two of both
 * phases are never paired. False when none is usable. */
bool route_pick_any(struct route_worker *const *workers, size_t count, const struct route_request *request,
                    struct route_limits limits, struct route_pair *out);

#endif
