/*
 * What the baseline planners share: the life of a search, homogeneous replicas cut from cells, routing rules
 * that follow capacity, and a maximum flow. A baseline chooses groups and a routing rule as its paper does;
 * plan_eval (LP routing) or plan_eval_fixed (a given rule) then judges the plan, never the baseline itself.
 *
 * A search begins with a struct baseline, so the entries of the algorithm's table but `open` are functions of
 * this file. It counts its work in the evaluator's units plus its own ticks; `advance` does one small unit
 * and is called until the work granted so far is spent. So a plan depends on the sum of the budgets and not
 * on how the steps were cut. One thread.
 */
#ifndef BASELINE_COMMON_H
#define BASELINE_COMMON_H

#include "services/planner/eval/plan_eval.h"
#include "services/planner/plan_algorithm.h"

struct baseline;

struct baseline_kind {
    const char *name;
    size_t size;         /* of its struct plan_search */
    bool only_colocates; /* cannot do without phase BOTH */
    bool flips;          /* has a way of its own for PLAN_FLIP; else only routes anew then */
    bool (*advance)(struct plan_search *search); /* one unit of work; true after the last */
    /* Its routing rule for groups that are there (PLAN_REROUTE); NULL = shortest queue. NULL result = no
     * pair.
     */
    struct plan_share *(*route)(struct baseline *base, const struct plan_state *state, uint32_t *count);
    void (*fini)(struct plan_search *search); /* of what it has beyond the baseline; may be NULL */
};

struct baseline {
    const struct baseline_kind *kind;
    const struct plan_problem *problem;
    struct plan_shapes *shapes;
    struct plan_eval *eval;
    uint64_t granted, ticks;
    bool done;
    struct plan_state draft; /* what the search builds */
    uint32_t *idle;          /* devices of each cell that the draft has not taken, where it keeps count */
    bool found;              /* `state` and `shares` are the answer */
    struct plan_state state;
    struct plan_share *shares; /* owned; NULL = the evaluator routes */
    uint32_t share_count;
    double objective; /* the evaluator's of the answer */
};

/* All zero beyond the baseline. When less than a new plan is asked for, the draft is the plan in force, and
 * all that a baseline does is to route by its rule, unless it has a way to flip. NULL and `err` when phase
 * BOTH is forbidden to a baseline that needs it, or the plan in force is none. */
struct plan_search *baseline_open(const struct baseline_kind *kind, const struct plan_problem *problem,
                                  struct ts_error *err);
bool baseline_step(struct plan_search *search, uint64_t budget);
struct ts_plan *baseline_best(struct plan_search *search);
void baseline_describe(const struct plan_search *search, char *out, size_t size);
void baseline_close(struct plan_search **search);
/* The answer becomes a copy of `state` with `shares` (taken; NULL = the evaluator routes). Judges it. */
void baseline_answer(struct baseline *base, const struct plan_state *state, struct plan_share *shares,
                     uint32_t count);

/* --- Homogeneous replicas --- */

struct baseline_config { /* pp stages of tp devices of one type */
    uint16_t type;
    uint8_t tp, pp;
    double score; /* plan_shape_score of one replica */
};

#define BASELINE_CONFIGS_MAX 64

uint32_t *baseline_copy(const struct baseline *base, const uint32_t *counts); /* of all cells; heap */
uint32_t baseline_type_count(const struct plan_problem *problem, const uint32_t *idle, uint32_t type);
/* All (tp, pp) of a type that `idle` has devices for and that hold the model, by devices, then tp. Stages
 * span no more nodes than needed. Returns how many. */
uint32_t baseline_configs(struct baseline *base, const uint32_t *idle, uint32_t type, enum ts_phase phase,
                          struct baseline_config out[BASELINE_CONFIGS_MAX]);
/* Takes one replica out of `idle`: from the cell that it fills best, else over the fullest cells. `only`
 * names the one cell to take from, UINT32_MAX = any. False when there is no room. */
bool baseline_take(struct baseline *base, const struct baseline_config *config, enum ts_phase phase,
                   uint32_t only, uint32_t *idle, struct plan_group *out);
/* Adds up to `most` replicas to the state; returns how many. */
uint32_t baseline_replicate(struct baseline *base, const struct baseline_config *config, enum ts_phase phase,
                            uint32_t most, uint32_t *idle, struct plan_state *state);
/* The same group in another phase with the same parts; false (and unchanged) when it does not hold. */
bool baseline_rephase(struct baseline *base, struct plan_group *group, enum ts_phase phase);
double baseline_score(const struct baseline *base, const struct plan_group *group);

/* --- Routing rules --- */

/* Each pool routes within itself: a prefill and a decode replica are drawn by their weights, a colocated one
 * by its own. `pool` and `weight` have an item for each group; weight NULL = equal ones. The share of a pool
 * is that of the requests/s that it can serve by these weights: the lesser of its prefill and its decode
 * side, and its colocated replicas. Returns the shares (owned by the caller), summing to 1, or NULL with
 * count 0 when no pool has both sides. */
struct plan_share *baseline_shares(const struct plan_state *state, const uint32_t *pool, const double *weight,
                                   enum ts_cost_codec codec, uint32_t *count);
/* Weights = scores, exact KV. */
struct plan_share *baseline_shares_scored(const struct plan_shapes *shapes, const struct plan_state *state,
                                          const uint32_t *pool, uint32_t *count);
/* The same, of one pool or several: what joining the shortest queue comes to. Where no replica meets a
 * deadline, equal weights. */
struct plan_share *baseline_shares_by_score(const struct baseline *base, const struct plan_state *state,
                                            const uint32_t *pool, uint32_t *count);

/* --- Maximum flow (Dinic 1970), real capacities --- */

struct baseline_edge {
    uint32_t from, to;
    double capacity, flow;
};

/* Fills in the flows; returns the value. Capacities are finite. */
double baseline_max_flow(struct baseline_edge *edges, uint32_t edge_count, uint32_t node_count,
                         uint32_t source, uint32_t sink);

#endif
