/*
 * A stream of requests: when each arrives, how long its prompt and its output are. What the simulation, the
 * load generator and the experiments send. One is made from
 *
 *     conf/workloads NAME, FILE.conf   classes of a demand: lengths drawn from each class's law, arrivals by its
 *                                      rate (Poisson, gamma bursts, steps, diurnal: keys of the file)
 *     FILE.csv                         Azure form (ts_trace.h): as recorded
 *     FILE.jsonl                       Mooncake form: {"timestamp": ms, "input_length", "output_length", "hash_ids"}
 *
 * and then rescaled (`rate`), resampled (`poisson`: lengths in order, arrivals redrawn as a Poisson process), cut.
 * Pulled one by one, so that a million requests take no memory. Deterministic for a seed. One thread.
 */
#ifndef TS_REQUESTS_H
#define TS_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

struct ts_request_item {
    double at_s; /* after the start of the stream; never falls */
    uint32_t prompt_tokens, output_tokens;
};

struct ts_requests_options {
    double rate;       /* mean requests/s; 0 = as the workload says */
    bool poisson;      /* arrivals redrawn */
    uint64_t count;    /* at most so many; 0 = a trace once, a synthetic one 10,000 */
    double duration_s; /* none later than that; 0 = no bound */
    double skip_s;     /* a trace starts there */
    bool repeat;       /* a trace starts over at its end */
    uint32_t prompt_tokens_max, output_tokens_max; /* longer ones are cut; 0 = no bound */
    double scale_lengths;                          /* 0 = 1 */
    uint64_t seed;
};

struct ts_requests;

/* NAME as in ts_inputs.h. */
enum ts_status ts_requests_open(const char *conf_dir, const char *name, const struct ts_requests_options *options,
                                struct ts_requests **out, struct ts_error *err);
bool ts_requests_next(struct ts_requests *requests, struct ts_request_item *out); /* false: over */
double ts_requests_rate(const struct ts_requests *requests); /* mean over the stream, requests/s */
void ts_requests_close(struct ts_requests **requests);

#endif
