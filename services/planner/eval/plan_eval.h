/*
 * The one evaluator: the objective of a state, by the linear program of planner.md section 4. All algorithms,
 * baselines and bounds are judged by it, in its units: for PLAN_ATTAINMENT the share of requests within all
 * their deadlines, in [0, 1]; for PLAN_GOODPUT requests/s.
 *
 *   max  sum D z                                       z: requests/s of class k from prefill group i at point
 * p to decode group j at point q by codec c s.t. sum z                    <= rate_k            for each class
 * (slack = refused) sum z prefill_ip[k]      <= n_i               n_i equal groups, for prefill and colocated
 *        sum z compute_jq[k]      <= n_j               decode and colocated
 *        sum z memory_jq[k]       <= n_j
 *        sum z bytes              <= rho_L NIC         out of and into each node, and each slower link; KV
 * and activations D = 1 - plan_miss_of().any                    columns with D <= 0 do not exist
 *
 * Columns are generated: for the duals at hand the best column of each (i, j, k) is priced by a loop, so the
 * program that GLPK sees stays small. Groups of equal shape at equal place are one with n > 1.
 */
#ifndef PLAN_EVAL_H
#define PLAN_EVAL_H

#include "services/planner/shape/plan_shape.h"

enum plan_limit {
    PLAN_LIMIT_DEMAND,
    PLAN_LIMIT_PREFILL,
    PLAN_LIMIT_COMPUTE,
    PLAN_LIMIT_MEMORY,
    PLAN_LIMIT_NIC_OUT,
    PLAN_LIMIT_NIC_IN,
    PLAN_LIMIT_LINK
};

struct plan_price { /* dual of one row, in objective per unit of the row's limit */
    enum plan_limit limit;
    uint32_t index; /* class, group of the state, node; a link's is from * nodes + to */
    double price;
    double use; /* share of the limit in use, 0..1 */
};

struct plan_result {
    double objective;
    double rate; /* PLAN_GOODPUT: the scaled rate of all classes; else the demand's */
    double attained_ttft, attained_tpot, attained_e2e;
    struct ts_flow *flows; /* indices of the state's groups; owned by the evaluator until its next run */
    uint32_t flow_count;
    const struct plan_price *prices; /* of all rows; same ownership */
    uint32_t price_count;
    const double *group_worth; /* per group of the state: objective lost to first order without it */
};

struct plan_eval;

struct plan_eval *plan_eval_new(struct plan_shapes *shapes);
void plan_eval_destroy(struct plan_eval **eval);
/* All groups have their shape. Returns the objective; fills `out` when given. Warm from the previous run. */
double plan_eval_run(struct plan_eval *eval, const struct plan_state *state, struct plan_result *out);
uint64_t plan_eval_runs(const struct plan_eval *eval);
uint64_t plan_eval_work(const struct plan_eval *eval); /* runs and simplex iterations: what budgets count */

/*
 * For routing rules that are given and not optimised (baselines, a plan in force): any request, or any of one
 * class, takes this pair with probability `share`; what no share covers is refused. Judged by the same
 * columns and limits as above, so a rule never scores above the program's optimum: each replica runs at the
 * points (or a mixture of two) that just carry its load or, where that attains more, at lower ones, refusing
 * the excess. plan_eval_fixed.c.
 */
struct plan_share {
    uint32_t prefill, decode; /* groups of the state; equal for a colocated one */
    enum ts_cost_codec codec; /* another one where the problem does not allow it */
    double share;
    uint32_t only_class; /* 0 = whatever its class is; else that class + 1 */
};

double plan_eval_fixed(struct plan_eval *eval, const struct plan_state *state,
                       const struct plan_share *shares, uint32_t count, struct plan_result *out);

/* The state as a plan: devices chosen, flows spread over equal groups, limit in words, price. */
struct ts_plan *plan_eval_plan(struct plan_eval *eval, const struct plan_state *state, const char *algorithm);
struct ts_plan *plan_eval_fixed_plan(struct plan_eval *eval, const struct plan_state *state,
                                     const struct plan_share *shares, uint32_t count, const char *algorithm);
/* A plan from elsewhere (its flows are ignored) as a state with shapes. */
enum ts_status plan_state_of_plan(struct plan_shapes *shapes, const struct ts_plan *plan,
                                  struct plan_state *out, struct ts_error *err);
/* "decode memory of the 2 replicas on 4x A6000 (TP2) in node n3 is full: ..." */
void plan_limit_words(const struct plan_problem *problem, const struct plan_state *state,
                      const struct plan_result *result, char *out, size_t size);

#endif
