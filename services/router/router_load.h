/*
 * How long a request would wait: rates of workers as measured while they were busy, and what is before it. A
 * gauge counts what is done over the time in which there was something to do. Plain data.
 */
#ifndef ROUTER_LOAD_H
#define ROUTER_LOAD_H

#include <stdbool.h>

#include "common/base/ts_clock.h"

struct gauge {
    ts_time at;      /* counted until then */
    ts_time busy_ns; /* of the sample under way */
    double done;
    double per_s; /* 0 = not known yet */
};

/* Until now it was busy, or not. */
void gauge_pass(struct gauge *gauge, ts_time now, bool busy);
void gauge_done(struct gauge *gauge, double amount);

#endif
