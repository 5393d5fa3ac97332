/*
 * What is asked, from more than one window of a router: windows that follow each other are put together as
 * long as they agree, so that a plan rests on some thousand requests and not on the last few hundred, whose
 * mix is chance to a tenth and more. When one does not agree (planner_trigger.h), only windows that begin
 * after it count.
 *
 * Only classes that say their ranges of prompts can be put together; of others the last window counts. Plain
 * memory, one thread.
 */
#ifndef PLANNER_MEASURE_H
#define PLANNER_MEASURE_H

#include "services/planner/planner_trigger.h"

struct planner_measure { /* zeroed = nothing yet */
    struct ts_workload_class classes[TS_WORKLOAD_CLASSES_MAX];
    uint32_t count;
    double window_s, burst; /* of all windows together */
    double end_s;           /* of the last of them, or of what does not count any more */
    bool ended;             /* there was one */
};

/* A snapshot's workload; `most_s`: what is older than that counts less. Times are seconds of any clock. */
void planner_measure_see(struct planner_measure *measure, const struct planner_trigger_rule *rule,
                         const struct ts_workload *workload, double most_s, double now_s);
/* `workload`, with what is known from before: rates, lengths, burst, window. Spans live in `measure` or are
 * the workload's own. */
struct ts_workload planner_measure_of(const struct planner_measure *measure,
                                      const struct ts_workload *workload);

#endif
