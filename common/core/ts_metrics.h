/*
 * The one definition of the latency metrics, used for real runs, simulation and planner alike.
 *
 *   TTFT  = arrival of output token 0 at the client - send of the request by the client
 *   TPOT  = (arrival of the last - arrival of token 0) / (n - 1), n >= 2: transfer and decode queue are in it
 *   gap01 = arrival of token 1 - arrival of token 0 (the KV handover), reported by itself
 *   gap_max = the largest distance of two neighbouring tokens
 */
#ifndef TS_CORE_METRICS_H
#define TS_CORE_METRICS_H

#include <stddef.h>

#include "common/base/ts_clock.h"

struct ts_metrics {
    ts_time ttft_ns, tpot_ns, gap01_ns, gap_max_ns; /* -1 = not defined for so few tokens */
};

/* What they need of the arrivals so far, where not every arrival can be kept. Zeroed = none yet. */
struct ts_metrics_run {
    ts_time first, second, last, gap_max;
    size_t count;
};

void ts_metrics_arrive(struct ts_metrics_run *run, ts_time at); /* of the next token */
struct ts_metrics ts_metrics_end(const struct ts_metrics_run *run, ts_time sent);

/* `arrivals[i]` is when output token i reached the client, on the clock of `sent`. */
struct ts_metrics ts_metrics_of(ts_time sent, const ts_time *arrivals, size_t count);

#endif
