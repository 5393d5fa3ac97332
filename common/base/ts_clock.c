#include "common/base/ts_clock.h"

#include <time.h>

static ts_time read_clock(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (ts_time)now.tv_sec * TS_S + now.tv_nsec;
}

ts_time ts_clock_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

ts_time ts_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}
