#include "tests/planner/lp_referee.h"

#include <math.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_lp_impl.h"

struct sums {
    double *activity, *size; /* of rows: sum of terms, sum of their magnitudes and of the limit's */
    double primal, dual;     /* both objectives */
    double scale;            /* what differences of objectives are measured by */
};

static enum ts_status check_signs(const struct lp_program *program, const double *x, const double *duals,
                                  struct ts_error *err)
{
    for (uint32_t j = 0; j < program->columns; j++) {
        if (!(x[j] >= 0) || isinf(x[j])) {
            return ts_error_set(err, TS_ECORRUPT, "column %u has the value %g", j, x[j]);
        }
    }
    for (uint32_t i = 0; i < program->rows; i++) {
        if (!(duals[i] >= 0) || isinf(duals[i])) {
            return ts_error_set(err, TS_ECORRUPT, "row %u has the dual %g", i, duals[i]);
        }
    }
    return TS_OK;
}

static void add_up(const struct lp_program *program, const double *x, const double *duals, struct sums *sums)
{
    double size = 0;
    for (uint32_t i = 0; i < program->rows; i++) {
        sums->size[i] = fabs(program->limits[i]);
        sums->dual += program->limits[i] * duals[i];
    }
    for (uint32_t j = 0; j < program->columns; j++) {
        sums->primal += program->gains[j] * x[j];
        size += fabs(program->gains[j] * x[j]);
        for (size_t t = program->first[j]; t < program->first[j + 1]; t++) {
            const struct plan_lp_term *term = &program->terms[t];
            sums->activity[term->row] += term->value * x[j];
            sums->size[term->row] += fabs(term->value * x[j]);
        }
    }
    sums->scale = size + fabs(sums->dual);
}

static enum ts_status check_rows(const struct lp_program *program, const double *duals,
                                 const struct sums *sums, struct ts_error *err)
{
    for (uint32_t i = 0; i < program->rows; i++) {
        double slack = program->limits[i] - sums->activity[i];
        if (!(slack >= -LP_TOLERANCE * sums->size[i])) {
            return ts_error_set(err, TS_ECORRUPT, "row %u is over its limit %g by %g", i, program->limits[i],
                                -slack);
        }
        bool tight = slack <= LP_TOLERANCE * sums->size[i];
        if (!tight && !(slack * duals[i] <= LP_TOLERANCE * sums->scale)) {
            return ts_error_set(err, TS_ECORRUPT, "row %u has a slack of %g and yet a dual of %g", i, slack,
                                duals[i]);
        }
    }
    return TS_OK;
}

/* What more of column j would gain, at the duals, and the size of the numbers in that difference. `most` is
 * the largest value of the column that its rows allow, were it alone. */
static double column_gain(const struct lp_program *program, const double *duals, uint32_t j, double *size,
                          double *most)
{
    double gain = program->gains[j];
    *size = fabs(gain);
    *most = INFINITY;
    for (size_t t = program->first[j]; t < program->first[j + 1]; t++) {
        const struct plan_lp_term *term = &program->terms[t];
        gain -= term->value * duals[term->row];
        *size += fabs(term->value * duals[term->row]);
        if (term->value > 0) {
            *most = fmin(*most, program->limits[term->row] / term->value);
        }
    }
    return gain;
}

/* A negative term lets other columns pass what their own rows would allow. */
static bool any_negative(const struct lp_program *program)
{
    for (size_t t = 0; t < program->first[program->columns]; t++) {
        if (program->terms[t].value < 0) {
            return true;
        }
    }
    return false;
}

static enum ts_status check_columns(const struct lp_program *program, const double *x, const double *duals,
                                    const struct sums *sums, struct ts_error *err)
{
    bool limited = !any_negative(program);
    double rounding = 0; /* a column whose terms are all this small has nothing to compare with */
    for (uint32_t j = 0; j < program->columns; j++) {
        rounding = fmax(rounding, 1e-12 * fabs(program->gains[j]));
    }
    for (uint32_t j = 0; j < program->columns; j++) {
        double size, most;
        double gain = column_gain(program, duals, j, &size, &most);
        bool negligible = limited && gain * most <= LP_TOLERANCE * sums->scale;
        if (!(gain <= LP_TOLERANCE * size + rounding) && !negligible) {
            return ts_error_set(err, TS_ECORRUPT, "column %u would still gain %g of %g", j, gain, size);
        }
        if (!(-gain * x[j] <= LP_TOLERANCE * sums->scale)) {
            return ts_error_set(err, TS_ECORRUPT, "column %u is used for %g and yet loses %g", j, x[j],
                                -gain);
        }
    }
    return TS_OK;
}

bool lp_check(const struct lp_program *program, const double *x, const double *duals, double objective,
              struct ts_error *err)
{
    enum ts_status status = check_signs(program, x, duals, err);
    if (status != TS_OK) {
        return false;
    }
    struct sums sums = {
        .activity = ts_xcalloc(program->rows + 1, sizeof *sums.activity),
        .size = ts_xcalloc(program->rows + 1, sizeof *sums.size),
    };
    add_up(program, x, duals, &sums);
    double allowed = LP_TOLERANCE * sums.scale;
    if (!(fabs(sums.primal - objective) <= allowed) || !(fabs(sums.dual - objective) <= allowed)) {
        status =
            ts_error_set(err, TS_ECORRUPT, "objective %.12g is not that of x, %.12g, and of the duals, %.12g",
                         objective, sums.primal, sums.dual);
    }
    if (status == TS_OK) {
        status = check_rows(program, duals, &sums, err);
    }
    if (status == TS_OK) {
        status = check_columns(program, x, duals, &sums, err);
    }
    ts_free(sums.activity);
    ts_free(sums.size);
    return status == TS_OK;
}

bool lp_verify(const struct plan_lp *lp, struct ts_error *err)
{
    if (lp->solved != SOLVED_LP) {
        (void)ts_error_set(err, TS_EINVAL, "no solution to verify");
        return false;
    }
    const struct lp_program program = {.limits = lp->limits,
                                       .rows = lp->row_count,
                                       .gains = lp->gains,
                                       .first = lp->first,
                                       .terms = lp->terms,
                                       .columns = lp->column_count};
    return lp_check(&program, lp->x, lp->duals, lp->objective, err);
}
