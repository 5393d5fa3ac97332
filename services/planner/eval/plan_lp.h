/*
 * A linear program in the form that the planner needs, solved by GLPK's simplex; the only file that includes
 * glpk.h is plan_lp.c.
 *
 *     max  sum c_j x_j    s.t.  sum_j a_ij x_j <= b_i  (b_i >= 0, so x = 0 is feasible),  x >= 0
 *
 * Columns and rows may be added and limits changed between two solves (column generation): the last basis is
 * kept where it still is one, so that the next solve is short. Numbers that are not finite, negative limits
 * and rows that do not exist are noted when they come and refused by the next solve; GLPK never ends the
 * process. Deterministic. GLPK's environment belongs to a thread, so an object is made, used and destroyed by
 * one thread; the last object of a thread takes the environment with it.
 */
#ifndef PLAN_LP_H
#define PLAN_LP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

struct plan_lp;

struct plan_lp_term {
    uint32_t row;
    double value;
};

struct plan_lp *plan_lp_new(void);
void plan_lp_destroy(struct plan_lp **lp);
void plan_lp_reset(struct plan_lp *lp); /* no rows, no columns */
uint32_t plan_lp_add_row(struct plan_lp *lp, double limit);
/* A row over columns that are there, each at most once and in ascending order. */
struct plan_lp_cell {
    uint32_t column;
    double value;
};
uint32_t plan_lp_add_cut(struct plan_lp *lp, double limit, const struct plan_lp_cell *cells, uint32_t count);
void plan_lp_set_limit(struct plan_lp *lp, uint32_t row, double limit);
uint32_t plan_lp_add_column(struct plan_lp *lp, double gain, const struct plan_lp_term *terms,
                            uint32_t count);
void plan_lp_set_integer(struct plan_lp *lp, uint32_t column); /* for plan_lp_solve_integer */
enum ts_status plan_lp_solve(struct plan_lp *lp, struct ts_error *err);
/* Branch and cut within `seconds` (wall time: only for baselines that are published as such). TS_ETIMEOUT
 * when the time was over first: the values are then the best found, x = 0 at worst. Has no duals. */
enum ts_status plan_lp_solve_integer(struct plan_lp *lp, double seconds, struct ts_error *err);
double plan_lp_objective(const struct plan_lp *lp);
double plan_lp_value(const struct plan_lp *lp, uint32_t column);
double plan_lp_dual(const struct plan_lp *lp, uint32_t row); /* >= 0: gain of one more unit of the limit */
uint64_t plan_lp_iterations(const struct plan_lp *lp);       /* of simplex, since new */

#endif
