/*
 * Inside a linear program: what was given, what GLPK has of it, and the last solution. plan_lp.c works on it;
 * the referee of the tests reads it and changes nothing.
 */
#ifndef PLAN_LP_IMPL_H
#define PLAN_LP_IMPL_H

#include "services/planner/eval/plan_lp.h"

enum plan_lp_solved { SOLVED_NOT, SOLVED_LP, SOLVED_INTEGER };

struct plan_lp {
    /* The program as given. */
    double *limits, *gains;
    size_t *first; /* column_count + 1 */
    struct plan_lp_term *terms;
    bool *integer;
    uint32_t row_count, column_count;
    size_t limits_capacity, gains_capacity, first_capacity, terms_capacity, integer_capacity;
    struct ts_error fault; /* the first bad number since reset */

    /* What GLPK has of it. */
    struct glp_prob *glpk;
    uint64_t epoch; /* of the environment that `glpk` lives in */
    uint32_t rows_loaded, columns_loaded;
    bool limits_changed, moved;  /* since the last load; since the last solve */
    double *row_scale, *largest; /* of rows: what they are multiplied by; work of scale_rows */
    size_t row_scale_capacity, largest_capacity;
    bool *closed; /* rows with limit 0 and no negative term: their columns are 0 */
    size_t closed_capacity;
    bool any_closed;
    bool *shut; /* columns of such rows */
    size_t shut_capacity;
    double gain_scale;
    int *index; /* of one column, from 1, as GLPK wants it */
    double *value;
    size_t index_capacity, value_capacity;

    /* Of the last solve. */
    enum plan_lp_solved solved;
    double objective;
    double *x, *duals;
    size_t x_capacity, duals_capacity;
    uint64_t iterations;
};

#endif
