#include "common/core/ts_metrics.h"

void ts_metrics_arrive(struct ts_metrics_run *run, ts_time at)
{
    if (run->count == 0)
        run->first = at;
    else if (run->count == 1)
        run->second = at;
    if (run->count > 0 && at - run->last > run->gap_max)
        run->gap_max = at - run->last;
    run->last = at;
    run->count++;
}

struct ts_metrics ts_metrics_end(const struct ts_metrics_run *run, ts_time sent)
{
    struct ts_metrics m = {.ttft_ns = -1, .tpot_ns = -1, .gap01_ns = -1, .gap_max_ns = -1};
    if (run->count >= 1)
        m.ttft_ns = run->first - sent;
    if (run->count >= 2) {
        m.tpot_ns = (run->last - run->first) / (ts_time)(run->count - 1);
        m.gap01_ns = run->second - run->first;
        m.gap_max_ns = run->gap_max;
    }
    return m;
}

struct ts_metrics ts_metrics_of(ts_time sent, const ts_time *arrivals, size_t count)
{
    struct ts_metrics_run run = {.count = 0};
    for (size_t i = 0; i < count; i++)
        ts_metrics_arrive(&run, arrivals[i]);
    return ts_metrics_end(&run, sent);
}
