/*
 * What is asked of the router, measured over a sliding window: how many requests arrive, how long their
 * prompts and outputs are, how they bunch, how many are refused, how many keep their deadlines. Lengths are
 * told by cells of a fixed grid, each with its means, so that memory and the work for a request do not grow
 * with traffic.
 *
 * Plain memory but for one array, one thread.
 */
#ifndef ROUTER_WORKLOAD_H
#define ROUTER_WORKLOAD_H

#include "common/core/ts_event.h"

#define WORKLOAD_BUCKETS   12 /* the window moves on by one at a time */
#define WORKLOAD_PROMPTS   21 /* ranges of prompts, which deadlines and work go by */
#define WORKLOAD_OUTPUTS   3  /* ranges of outputs in each */
#define WORKLOAD_CELLS     (WORKLOAD_PROMPTS * WORKLOAD_OUTPUTS)
#define WORKLOAD_SIDE      8 /* of the coarser grid of what is used of max_tokens */
#define WORKLOAD_SECONDS   600
#define WORKLOAD_WINDOW_MS (1000 * WORKLOAD_SECONDS) /* at most */

_Static_assert(WORKLOAD_CELLS <= TS_WORKLOAD_CLASSES_MAX, "more cells than a message has classes");

struct workload_cell {
    uint64_t count, prompt, prompt_sq, output, output_sq; /* sums */
};

struct workload_bucket {
    struct workload_cell cells[WORKLOAD_CELLS];
    uint64_t refused, judged, attained; /* judged: ended and had deadlines of their own */
};

struct workload_entry { /* where a request was counted */
    int64_t bucket;
    uint32_t prompt, output;
};

struct workload {
    ts_time bucket_ns, window_ns;
    ts_time first_at; /* of all arrivals; -1 = none yet */
    int64_t bucket;   /* the newest, counted from time 0 */
    struct workload_bucket *buckets;
    int64_t second; /* the newest */
    uint32_t seconds[WORKLOAD_SECONDS];
    double used[WORKLOAD_SIDE * WORKLOAD_SIDE],
        allowed[WORKLOAD_SIDE * WORKLOAD_SIDE]; /* output tokens of ended requests, and max_tokens */
};

void workload_init(struct workload *w, uint32_t window_ms);
void workload_fini(struct workload *w);
/* Output tokens that a request is expected to have: max_tokens times what ended ones of like lengths used. */
uint32_t workload_expected(const struct workload *w, uint32_t prompt_tokens, uint32_t max_tokens);
struct workload_entry workload_arrived(struct workload *w, ts_time now, uint32_t prompt_tokens,
                                       uint32_t output_tokens);
void workload_refused(struct workload *w, ts_time now);
/* Better known now than when it arrived. */
void workload_correct(struct workload *w, ts_time now, struct workload_entry *entry, uint32_t prompt_tokens,
                      uint32_t output_tokens);
/* It has ended by itself: with as many of max_tokens. */
void workload_learn(struct workload *w, uint32_t prompt_tokens, uint32_t output_tokens, uint32_t max_tokens);
void workload_judged(struct workload *w, ts_time now, bool attained);
bool workload_idle(struct workload *w, ts_time now); /* nothing has arrived in the window */
/* Without queued and running. Classes go into the arena. */
struct ts_workload workload_of(struct workload *w, ts_time now, struct ts_arena *arena);

#endif
