/*
 * What one replica is worth at given prices: the part of the program that falls apart by replicas once
 * classes and the link between the phases have prices. Shared by the column bound (plan_bound.c), by its
 * packing form and by the exhaustive search, whose pruning is the same bound.
 *
 * The objective counts a request 1 - (misses at prefill) - (misses at decode). So a flow of rate z from i to
 * j is a half at the prefill replica (gain - misses, supplies its class) and a half at the decode replica
 * (gain 1 - misses, takes what was supplied and serves the class). The halves know nothing of each other:
 * each is judged with the best partner there could be (no wait, no decode time, the least visible KV
 * transfer). Hence the sum of worths over the replicas of a plan, plus what the prices of the classes are
 * worth, is never below the plan's objective, for any prices >= 0. README.md derives it.
 *
 * Items are immutable once made. One thread.
 */
#ifndef PLAN_BOUND_ITEM_H
#define PLAN_BOUND_ITEM_H

#include "services/planner/shape/plan_shape.h"

enum { PLAN_BOUND_PREFILL, PLAN_BOUND_COMPUTE, PLAN_BOUND_MEMORY, PLAN_BOUND_USES };

struct plan_bound_flow { /* one request/s of a class at one operating point of the replica */
    uint32_t length_class;
    double gain;
    double use[PLAN_BOUND_USES]; /* shares of the replica; each sums up to 1 at most */
};

struct plan_bound_item { /* a shape as flows, without those that another one beats in all respects */
    enum ts_phase phase;
    struct plan_bound_flow *flows;
    uint32_t count;
    size_t capacity;
};

struct plan_bound_ideal { /* the best partner */
    double visible_s[TS_CLASSES_MAX];
    struct plan_point point;
};

struct plan_bound_prices {
    double scale;                 /* of gains: 1, more when an attainment has to be kept (PLAN_GOODPUT) */
    double serve[TS_CLASSES_MAX]; /* paid by what serves a request of the class */
    double feed[TS_CLASSES_MAX];  /* paid by decode to prefill for a request */
};

struct plan_bound_pattern { /* what the replica does at these prices */
    double worth;           /* never below the true optimum, which rounding cannot change */
    double gain;
    double serve[TS_CLASSES_MAX], feed[TS_CLASSES_MAX]; /* requests/s; feed < 0 at prefill */
};

/* Fastest and shortest of all links between devices and nodes; 0 bytes/s when there is none. */
struct ts_link plan_bound_best_link(const struct ts_cluster *cluster);
void plan_bound_ideal_init(struct plan_bound_ideal *ideal, const struct plan_problem *problem);

void plan_bound_item_init(struct plan_bound_item *item, enum ts_phase phase);
/* A replica that may run like this shape too, or like a mixture: several shapes make one optimistic one. */
void plan_bound_item_add(struct plan_bound_item *item, const struct plan_problem *problem,
                         const struct plan_bound_ideal *ideal, const struct plan_shape *shape);
void plan_bound_item_trim(struct plan_bound_item *item); /* gives back what it grew beyond */
void plan_bound_item_fini(struct plan_bound_item *item);

/* `pattern` may be NULL. Returns the worth, >= 0. */
double plan_bound_item_worth(const struct plan_bound_item *item, const struct plan_bound_prices *prices,
                             struct plan_bound_pattern *pattern);

#endif
