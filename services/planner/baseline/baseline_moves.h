/*
 * Moves between groups for the baselines that search over mixed ones. Each makes new groups from old ones,
 * chooses TP and layers anew and reports whether they hold the model; nothing else changes.
 */
#ifndef BASELINE_MOVES_H
#define BASELINE_MOVES_H

#include "common/base/ts_rng.h"
#include "services/planner/baseline/baseline_common.h"

/* A group of `count[cell]` devices of each cell; false when it is in too many cells or does not hold. */
bool baseline_group(struct baseline *base, const uint32_t *counts, enum ts_phase phase,
                    struct plan_group *out);
/* The same devices in another phase, with the TP that suits it; false and unchanged when it does not hold. */
bool baseline_turn(struct baseline *base, struct plan_group *group, enum ts_phase phase);
bool baseline_merge(struct baseline *base, const struct plan_group *a, const struct plan_group *b,
                    struct plan_group *out);
/* A random cut in two: each part goes to one side, or is cut itself. */
bool baseline_split(struct baseline *base, struct ts_rng *rng, const struct plan_group *group,
                    struct plan_group *a, struct plan_group *b);
/* One random part of `from`, or some of it, goes over to `to`. */
bool baseline_move(struct baseline *base, struct ts_rng *rng, const struct plan_group *from,
                   const struct plan_group *to, struct plan_group *new_from, struct plan_group *new_to);
/* The same number of devices of a random part of each change places. */
bool baseline_swap(struct baseline *base, struct ts_rng *rng, const struct plan_group *a,
                   const struct plan_group *b, struct plan_group *new_a, struct plan_group *new_b);

#endif
