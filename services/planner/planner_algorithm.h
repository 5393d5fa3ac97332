/*
 * What an algorithm of the planner is: a table entry. It is opened over one snapshot, stepped with a budget
 * counted in work (evaluations, never wall time) until it is finished, and asked for its best plan so far at
 * any moment. Entries may also come from a shared object in later versions.
 */
#ifndef PLANNER_ALGORITHM_H
#define PLANNER_ALGORITHM_H

#include "common/core/ts_msg.h"

struct planner_search; /* an algorithm's own */

struct planner_algorithm {
    const char *name;
    const char *summary;
    /* The snapshot is borrowed until close. */
    struct planner_search *(*open)(const struct ts_msg_snapshot *snapshot);
    /* Does at most `budget` units of work; true when nothing is left to do. */
    bool (*step)(struct planner_search *search, uint64_t budget);
    /* The best plan so far: replicas, shares, attainment, binding; spans live in the arena. False when there
     * is none. */
    bool (*best)(const struct planner_search *search, struct ts_arena *arena, struct ts_msg_plan *out);
    void (*close)(struct planner_search **search);
};

extern const struct planner_algorithm plan_uniform;

const struct planner_algorithm *planner_algorithm_find(const char *name); /* NULL when unknown */

#endif
