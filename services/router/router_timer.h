/*
 * Deadlines of things that live as long as they like: a heap of timers that sit in their owners, so that one
 * may be moved or taken out at any time and none is ever stale. Equal times come in the order in which they
 * were set. Plain memory, one thread.
 */
#ifndef ROUTER_TIMER_H
#define ROUTER_TIMER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/ts_clock.h"

struct timer {
    ts_time at;
    uint64_t order;
    size_t slot;   /* + 1; 0 = not set */
    unsigned kind; /* of its owner */
};

struct timers {
    struct timer **heap;
    size_t count, capacity;
    uint64_t next_order;
};

void timers_fini(struct timers *timers);
void timers_set(struct timers *timers, struct timer *timer, ts_time at); /* TS_TIME_NEVER: takes it out */
struct timer *timers_due(struct timers *timers, ts_time now); /* takes out the first that is due, or NULL */
ts_time timers_next(const struct timers *timers);
bool timers_check(const struct timers *timers);

#endif
