/*
 * What routers have measured, as a demand of the planner: their length classes, merged to as many as a plan
 * is made for. Pure functions; numbers that no honest router sends are left out.
 */
#ifndef PLANNER_DEMAND_H
#define PLANNER_DEMAND_H

#include "common/core/ts_demand.h"
#include "common/core/ts_msg.h"

/* The classes of `workload`, merged to `classes_max` (at most TS_CLASSES_MAX) of the nearest lengths, by
 * rising prompt, without deadlines. False when fewer than `requests_min` requests were seen. */
bool planner_demand_measured(const struct ts_workload *workload, uint32_t classes_max, double requests_min,
                             struct ts_demand *out);
/* One class, in the ranges that ts_demand_check asks for; false when it is not. A mean square below the
 * mean's square is lifted. */
bool planner_demand_class(const struct ts_workload_class *from, struct ts_class *to);
/* Requests that the measurement rests on; 0 = nothing is known. */
double planner_workload_requests(const struct ts_workload *workload);
/* Of several routers together; `count` of at least 1. Spans live in the arena. */
struct ts_workload planner_workload_sum(const struct ts_workload *const *workloads, size_t count,
                                        struct ts_arena *arena);
/* How far apart two lengths are: 0 when equal, about the square of the logarithm of their ratio. */
double planner_length_distance(double a, double b);

#endif
