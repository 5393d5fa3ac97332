/*
 * A stream of requests: when each arrives, how long its prompt and its output are. What the simulation, the
 * load generator and the experiments send. One is made from
 *
 *     conf/workloads NAME, FILE.conf   classes of a demand: lengths drawn from each class's law, arrivals by
 * its rate (Poisson, gamma bursts, steps, diurnal: keys of the file) FILE.csv, FILE.jsonl             a trace
 * (ts_trace.h), as recorded
 *
 * and then rescaled (`rate`), resampled (`poisson`: the same lengths in order, arrivals redrawn as a Poisson
 * process of the mean rate), cut. Pulled one by one: a synthetic stream of a million requests takes no
 * memory, a trace takes 16 bytes for each of its rows. Deterministic for a seed; arrivals and lengths have
 * generators of their own, so that changing one leaves the other as it was. One thread.
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
    double rate;       /* mean requests/s, steps and diurnal aside; 0 = as the workload says */
    bool poisson;      /* arrivals redrawn: no bursts, no steps, nothing diurnal */
    bool shuffle;      /* a trace: the lengths of any of its rows for each request, since traces drift */
    uint64_t count;    /* at most so many; 0 = a trace once, a synthetic one 10,000 or as `duration_s` says */
    double duration_s; /* none later than that; 0 = no bound */
    double skip_s;     /* a trace starts there (in its own time), with its time 0 */
    bool repeat;       /* a trace starts over at its end; needs `count` or `duration_s` */
    uint32_t prompt_tokens_max, output_tokens_max; /* longer ones are cut; 0 = no bound */
    double scale_lengths;                          /* before the cut; 0 = 1 */
    uint64_t seed;
};

struct ts_requests;

/* NAME as in ts_inputs.h. */
enum ts_status ts_requests_open(const char *conf_dir, const char *name,
                                const struct ts_requests_options *options, struct ts_requests **out,
                                struct ts_error *err);
bool ts_requests_next(struct ts_requests *requests, struct ts_request_item *out); /* false: over */
void ts_requests_close(struct ts_requests **requests);

#endif
