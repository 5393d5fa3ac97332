/*
 * The clock of a long search: its end (a limit of time, Ctrl-C or SIGTERM) and its line of progress on
 * stderr, which shows from the first second on, when stderr is a terminal or somebody asked for it. One at a
 * time (it owns the handlers of both signals between start and stop; the second Ctrl-C ends the process as
 * usual).
 */
#ifndef TSCTL_PLAN_CLOCK_H
#define TSCTL_PLAN_CLOCK_H

#include <stdbool.h>

#include "common/base/ts_clock.h"

struct tsctl_plan_clock {
    ts_time start, end, next; /* `next` line of progress */
    bool terminal, progress, shown;
};

void tsctl_plan_clock_start(struct tsctl_plan_clock *clock, double seconds, bool progress);
void tsctl_plan_clock_stop(struct tsctl_plan_clock *clock);
bool tsctl_plan_clock_out(const struct tsctl_plan_clock *clock);
bool tsctl_plan_clock_interrupted(void);
/* "NAME: WORDS (12.3 s)", unless the last line is too young. */
void tsctl_plan_clock_show(struct tsctl_plan_clock *clock, const char *name, const char *words);

#endif
