/*
 * Time is signed 64-bit nanoseconds on the monotonic clock. Cores never read it: `now` is an argument. Only
 * the run layer, the benches and the client library call ts_clock_now(). Wall time exists for log lines
 * alone; no decision uses it.
 */
#ifndef TS_BASE_CLOCK_H
#define TS_BASE_CLOCK_H

#include <stdint.h>

typedef int64_t ts_time; /* nanoseconds; also used for durations */

#define TS_TIME_NEVER INT64_MAX
#define TS_US         ((ts_time)1000)
#define TS_MS         ((ts_time)1000000)
#define TS_S          ((ts_time)1000000000)

ts_time ts_clock_now(void);     /* monotonic */
ts_time ts_clock_wall_ns(void); /* since the epoch, for logs */

#endif
