/*
 * The replicas that may be bought, as sets of stages. Where there are few, each set of kinds is looked at.
 * Where there are many, sets of blends (plan_bound_kinds.h) stand for all sets of their kinds, and one that
 * matters is split: one of its blends becomes the two that it was joined of, in all numbers. At any moment
 * the sets that are not gone cover every replica. Grows only; one thread.
 */
#ifndef PLAN_BOUND_SETS_H
#define PLAN_BOUND_SETS_H

#include "services/planner/bound/plan_bound_kinds.h"

#define PLAN_BOUND_PHASES 3

struct plan_bound_set {
    uint8_t stages[TS_STAGES_MAX]; /* kinds or blends, rising */
    uint8_t count;
    bool blended, gone;
    uint16_t gpus;
    struct plan_bound_item items[PLAN_BOUND_PHASES]; /* PREFILL, DECODE, BOTH; empty when it cannot */
};

struct plan_bound_sets {
    const struct plan_bound_kinds *kinds;
    struct plan_bound_set *sets;
    size_t count, capacity, made, live;
    bool exact; /* no blends */
};

void plan_bound_sets_init(struct plan_bound_sets *sets, const struct plan_bound_kinds *kinds);
void plan_bound_sets_fini(struct plan_bound_sets *sets);
/* Makes the items of one more set; false when all have theirs. */
bool plan_bound_sets_make(struct plan_bound_sets *sets);
/* Splits a blended set; the new ones are at the end and have their items. False when there are too many sets.
 */
bool plan_bound_sets_split(struct plan_bound_sets *sets, size_t index);

#endif
