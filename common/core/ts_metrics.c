#include "common/core/ts_metrics.h"

struct ts_metrics ts_metrics_of(ts_time sent, const ts_time *arrivals, size_t count)
{
    struct ts_metrics m = {.ttft_ns = -1, .tpot_ns = -1, .gap01_ns = -1, .gap_max_ns = -1};
    if (count >= 1)
        m.ttft_ns = arrivals[0] - sent;
    if (count >= 2) {
        m.tpot_ns = (arrivals[count - 1] - arrivals[0]) / (ts_time)(count - 1);
        m.gap01_ns = arrivals[1] - arrivals[0];
    }
    for (size_t i = 1; i < count; i++) {
        ts_time gap = arrivals[i] - arrivals[i - 1];
        if (gap > m.gap_max_ns)
            m.gap_max_ns = gap;
    }
    return m;
}
