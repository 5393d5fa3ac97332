#include "services/tsctl/tsctl_plan_clock.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PROGRESS_AFTER (1 * TS_S)
#define PROGRESS_EVERY (TS_S / 5) /* on a terminal; in a file once in PROGRESS_AFTER */

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

void tsctl_plan_clock_start(struct tsctl_plan_clock *c, double seconds, bool progress)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    interrupted = 0;
    c->start = ts_clock_now();
    c->end = c->start + (ts_time)(seconds * (double)TS_S);
    c->next = c->start + PROGRESS_AFTER;
    c->terminal = isatty(STDERR_FILENO);
    c->progress = c->terminal || progress;
    c->shown = false;
}

void tsctl_plan_clock_stop(struct tsctl_plan_clock *c)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (c->shown && c->terminal)
        fprintf(stderr, "\r\033[K");
}

bool tsctl_plan_clock_out(const struct tsctl_plan_clock *c)
{
    return interrupted || ts_clock_now() >= c->end;
}

bool tsctl_plan_clock_interrupted(void)
{
    return interrupted;
}

void tsctl_plan_clock_show(struct tsctl_plan_clock *c, const char *name, const char *words)
{
    ts_time now = ts_clock_now();
    if (!c->progress || now < c->next)
        return;
    fprintf(stderr, "%s%s: %s (%.1f s)%s", c->terminal ? "\r\033[K" : "", name, words,
            (double)(now - c->start) / (double)TS_S, c->terminal ? "" : "\n");
    fflush(stderr);
    c->next = now + (c->terminal ? PROGRESS_EVERY : PROGRESS_AFTER);
    c->shown = true;
}
