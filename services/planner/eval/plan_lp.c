#include "services/planner/eval/plan_lp_impl.h"

#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

/* Tighter than GLPK's 1e-7, which is also what the referee allows. Tighter than 1e-10 it stalls. */
#define TOLERANCE 1e-9

/* --- GLPK's environment: of a thread, and gone after an error in it --- */

static _Thread_local struct {
    uint32_t users;
    uint64_t epoch; /* rises when an error has taken all problems of the thread */
    bool ours;
    jmp_buf on_error;
    char words[200];
    size_t length;
} env;

static int keep_words(void *unused, const char *text)
{
    (void)unused;
    size_t room = sizeof env.words - 1 - env.length;
    size_t length = strlen(text) < room ? strlen(text) : room;
    memcpy(env.words + env.length, text, length);
    env.length += length;
    env.words[env.length] = '\0';
    return 1; /* nothing goes to the terminal */
}

static void leave(void *unused)
{
    (void)unused;
    longjmp(env.on_error, 1);
}

static void env_enter(void)
{
    bool fresh = glp_init_env() == 0;
    env.ours = env.ours || fresh;
    glp_term_out(GLP_OFF);
    glp_term_hook(keep_words, NULL);
    glp_error_hook(leave, NULL);
    env.length = 0;
    env.words[0] = '\0';
}

static void env_release(void)
{
    if (env.users == 0 && env.ours) {
        glp_free_env();
        env.ours = false;
    }
}

/* --- Building --- */

#define RESERVE(lp, array, need)                                                                             \
    ts_array_reserve((void **)&(lp)->array, &(lp)->array##_capacity, (need), sizeof *(lp)->array)

struct plan_lp *plan_lp_new(void)
{
    struct plan_lp *lp = ts_xcalloc(1, sizeof *lp);
    env.users++;
    RESERVE(lp, first, 1);
    lp->first[0] = 0;
    return lp;
}

static void drop_glpk(struct plan_lp *lp)
{
    if (lp->glpk && lp->epoch == env.epoch) {
        glp_delete_prob(lp->glpk);
    }
    lp->glpk = NULL;
    lp->rows_loaded = lp->columns_loaded = 0;
}

void plan_lp_destroy(struct plan_lp **lp)
{
    struct plan_lp *old = *lp;
    if (!old) {
        return;
    }
    drop_glpk(old);
    void *arrays[] = {old->limits,    old->gains,   old->first,  old->terms, old->integer,
                      old->row_scale, old->largest, old->closed, old->shut,  old->index,
                      old->value,     old->x,       old->duals};
    for (size_t i = 0; i < TS_ARRAY_SIZE(arrays); i++) {
        ts_free(arrays[i]);
    }
    ts_free(old);
    *lp = NULL;
    env.users--;
    env_release();
}

void plan_lp_reset(struct plan_lp *lp)
{
    lp->row_count = lp->column_count = 0;
    lp->first[0] = 0;
    lp->fault.status = TS_OK;
    lp->solved = SOLVED_NOT;
    drop_glpk(lp);
}

static void note_fault(struct plan_lp *lp, const char *what, uint32_t index, double number)
{
    if (lp->fault.status == TS_OK) {
        (void)ts_error_set(&lp->fault, TS_EINVAL, "linear program: %s %u is %g; it must be finite%s", what,
                           index, number, strcmp(what, "limit of row") == 0 ? " and not negative" : "");
    }
}

static void check_limit(struct plan_lp *lp, uint32_t row, double limit)
{
    if (!(limit >= 0) || isinf(limit)) {
        note_fault(lp, "limit of row", row, limit);
    }
}

uint32_t plan_lp_add_row(struct plan_lp *lp, double limit)
{
    RESERVE(lp, limits, lp->row_count + 1);
    check_limit(lp, lp->row_count, limit);
    lp->limits[lp->row_count] = limit;
    lp->solved = SOLVED_NOT;
    return lp->row_count++;
}

void plan_lp_set_limit(struct plan_lp *lp, uint32_t row, double limit)
{
    TS_ASSERT(row < lp->row_count);
    check_limit(lp, row, limit);
    lp->limits[row] = limit;
    lp->limits_changed = true;
    lp->solved = SOLVED_NOT;
}

/* Zeros are left out; a row that comes twice is added up. */
static void add_term(struct plan_lp *lp, const struct plan_lp_term *term)
{
    size_t begin = lp->first[lp->column_count], *end = &lp->first[lp->column_count + 1];
    if (!isfinite(term->value)) {
        note_fault(lp, "a term of column", lp->column_count, term->value);
        return;
    }
    if (term->row >= lp->row_count) {
        note_fault(lp, "the row that is not there of column", lp->column_count, term->row);
        return;
    }
    for (size_t t = begin; t < *end; t++) {
        if (lp->terms[t].row == term->row) {
            lp->terms[t].value += term->value;
            return;
        }
    }
    if (term->value != 0) {
        RESERVE(lp, terms, *end + 1);
        lp->terms[(*end)++] = *term;
    }
}

uint32_t plan_lp_add_column(struct plan_lp *lp, double gain, const struct plan_lp_term *terms, uint32_t count)
{
    RESERVE(lp, gains, lp->column_count + 1);
    RESERVE(lp, integer, lp->column_count + 1);
    RESERVE(lp, first, lp->column_count + 2);
    if (!isfinite(gain)) {
        note_fault(lp, "gain of column", lp->column_count, gain);
    }
    lp->gains[lp->column_count] = gain;
    lp->integer[lp->column_count] = false;
    lp->first[lp->column_count + 1] = lp->first[lp->column_count];
    for (uint32_t t = 0; t < count; t++) {
        add_term(lp, &terms[t]);
    }
    lp->solved = SOLVED_NOT;
    return lp->column_count++;
}

/* Shifts the terms of later columns upwards, from the end, to make room for the new ones. */
uint32_t plan_lp_add_cut(struct plan_lp *lp, double limit, const struct plan_lp_cell *cells, uint32_t count)
{
    uint32_t row = plan_lp_add_row(lp, limit), shift = count;
    RESERVE(lp, terms, lp->first[lp->column_count] + count);
    for (uint32_t j = lp->column_count; shift > 0; j--) {
        TS_ASSERT(j > 0); /* else a cell's column does not exist, or comes twice */
        size_t begin = lp->first[j - 1], end = lp->first[j];
        lp->first[j] = end + shift;
        const struct plan_lp_cell *cell = &cells[shift - 1];
        if (cell->column == j - 1) {
            shift--;
            lp->terms[end + shift] = (struct plan_lp_term){row, cell->value};
            if (!isfinite(cell->value)) {
                note_fault(lp, "a term of column", j - 1, cell->value);
            }
        }
        memmove(&lp->terms[begin + shift], &lp->terms[begin], (end - begin) * sizeof *lp->terms);
    }
    return row;
}

void plan_lp_set_integer(struct plan_lp *lp, uint32_t column)
{
    TS_ASSERT(column < lp->column_count);
    lp->integer[column] = true;
    lp->solved = SOLVED_NOT;
}

/* --- Loading into GLPK, scaled by powers of two (which round nothing) ---
 *
 * A row is divided by its limit, a column by its largest term then: so each scaled variable runs from 0 to 1
 * at most, whatever the units are, and GLPK's absolute tolerances mean the same everywhere. A row whose limit
 * is 0 comes last, divided by its largest term; if it has no negative term it is closed, and its columns are
 * fixed. The objective is divided by the largest gain that a column alone could bring.
 */

static double power_of_two(double near)
{
    return near > 0 && isfinite(near) ? ldexp(1, ilogb(near)) : 1;
}

static double column_scale(const struct plan_lp *lp, uint32_t column)
{
    double most = 0;
    for (size_t t = lp->first[column]; t < lp->first[column + 1]; t++) {
        most = fmax(most, fabs(lp->terms[t].value) * lp->row_scale[lp->terms[t].row]);
    }
    return power_of_two(1 / most);
}

static void scale_rows(struct plan_lp *lp)
{
    bool zeros = false;
    RESERVE(lp, row_scale, lp->row_count);
    RESERVE(lp, largest, lp->row_count);
    for (uint32_t i = lp->rows_loaded; i < lp->row_count; i++) {
        lp->row_scale[i] = lp->limits[i] > 0 ? power_of_two(1 / lp->limits[i]) : 0;
        lp->largest[i] = 0;
        zeros = zeros || lp->limits[i] == 0;
    }
    for (uint32_t j = 0; zeros && j < lp->column_count; j++) {
        double scale = column_scale(lp, j);
        for (size_t t = lp->first[j]; t < lp->first[j + 1]; t++) {
            uint32_t row = lp->terms[t].row;
            lp->largest[row] = fmax(lp->largest[row], fabs(lp->terms[t].value) * scale);
        }
    }
    for (uint32_t i = lp->rows_loaded; zeros && i < lp->row_count; i++) {
        lp->row_scale[i] = lp->limits[i] > 0 ? lp->row_scale[i] : power_of_two(1 / lp->largest[i]);
    }
}

static bool is_shut(const struct plan_lp *lp, uint32_t column)
{
    for (size_t t = lp->first[column]; lp->any_closed && t < lp->first[column + 1]; t++) {
        if (lp->closed[lp->terms[t].row]) {
            return true;
        }
    }
    return false;
}

static double gain_scale(const struct plan_lp *lp)
{
    double most = 0;
    for (uint32_t j = 0; j < lp->column_count; j++) {
        most = fmax(most, is_shut(lp, j) ? 0 : fabs(lp->gains[j]) * column_scale(lp, j));
    }
    return power_of_two(1 / most);
}

/* To be done again whenever limits or columns changed; `any_closed` says whether bounds of old columns did.
 */
static bool find_closed(struct plan_lp *lp)
{
    bool before = lp->any_closed;
    RESERVE(lp, closed, lp->row_count);
    lp->any_closed = false;
    for (uint32_t i = 0; i < lp->row_count; i++) {
        lp->closed[i] = lp->limits[i] == 0;
        lp->any_closed = lp->any_closed || lp->closed[i];
    }
    for (size_t t = 0; lp->any_closed && t < lp->first[lp->column_count]; t++) {
        lp->closed[lp->terms[t].row] = lp->closed[lp->terms[t].row] && lp->terms[t].value > 0;
    }
    return before || lp->any_closed;
}

static void load_limits(struct plan_lp *lp)
{
    for (uint32_t i = lp->limits_changed ? 0 : lp->rows_loaded; i < lp->row_count; i++) {
        glp_set_row_bnds(lp->glpk, (int)i + 1, GLP_UP, 0, lp->limits[i]);
    }
    lp->limits_changed = false;
}

static void load_column(struct plan_lp *lp, uint32_t j)
{
    size_t begin = lp->first[j], count = lp->first[j + 1] - begin;
    RESERVE(lp, index, count + 1);
    RESERVE(lp, value, count + 1);
    for (size_t t = 0; t < count; t++) {
        lp->index[t + 1] = (int)lp->terms[begin + t].row + 1;
        lp->value[t + 1] = lp->terms[begin + t].value;
    }
    glp_set_mat_col(lp->glpk, (int)j + 1, (int)count, lp->index, lp->value);
    glp_set_sjj(lp->glpk, (int)j + 1, column_scale(lp, j));
}

/* New rows over old columns. */
static void load_cuts(struct plan_lp *lp)
{
    for (uint32_t i = lp->rows_loaded; i < lp->row_count; i++) {
        int count = 0;
        for (uint32_t j = 0; j < lp->columns_loaded; j++) {
            for (size_t t = lp->first[j]; t < lp->first[j + 1]; t++) {
                if (lp->terms[t].row == i) {
                    RESERVE(lp, index, (size_t)count + 2);
                    RESERVE(lp, value, (size_t)count + 2);
                    lp->index[++count] = (int)j + 1;
                    lp->value[count] = lp->terms[t].value;
                }
            }
        }
        if (count > 0) {
            glp_set_mat_row(lp->glpk, (int)i + 1, count, lp->index, lp->value);
        }
    }
}

static void load_bounds(struct plan_lp *lp, uint32_t from)
{
    RESERVE(lp, shut, lp->column_count);
    for (uint32_t j = from; j < lp->column_count; j++) {
        bool shut = is_shut(lp, j);
        if (j >= lp->columns_loaded || shut != lp->shut[j]) {
            glp_set_col_bnds(lp->glpk, (int)j + 1, shut ? GLP_FX : GLP_LO, 0, 0);
            lp->shut[j] = shut;
        }
    }
}

static void load(struct plan_lp *lp)
{
    if (!lp->glpk || lp->epoch != env.epoch) {
        lp->rows_loaded = lp->columns_loaded = 0;
        lp->epoch = env.epoch;
        lp->glpk = glp_create_prob();
        glp_set_obj_dir(lp->glpk, GLP_MAX);
    }
    lp->moved = lp->columns_loaded > 0 && (lp->limits_changed || lp->rows_loaded < lp->row_count);
    if (lp->rows_loaded < lp->row_count) {
        glp_add_rows(lp->glpk, (int)(lp->row_count - lp->rows_loaded));
        scale_rows(lp);
        for (uint32_t i = lp->rows_loaded; i < lp->row_count; i++) {
            glp_set_rii(lp->glpk, (int)i + 1, lp->row_scale[i]);
        }
        load_cuts(lp);
    }
    load_limits(lp);
    bool bounds_changed = find_closed(lp);
    if (lp->columns_loaded == 0) {
        lp->gain_scale = gain_scale(lp);
    }
    if (lp->columns_loaded < lp->column_count) {
        glp_add_cols(lp->glpk, (int)(lp->column_count - lp->columns_loaded));
    }
    for (uint32_t j = lp->columns_loaded; j < lp->column_count; j++) {
        load_column(lp, j);
        glp_set_obj_coef(lp->glpk, (int)j + 1, lp->gains[j] * lp->gain_scale);
    }
    load_bounds(lp, bounds_changed ? 0 : lp->columns_loaded);
    lp->rows_loaded = lp->row_count;
    lp->columns_loaded = lp->column_count;
}

/* --- Solving --- */

static enum ts_status simplex(struct plan_lp *lp, struct ts_error *err)
{
    glp_smcp parameters;
    glp_init_smcp(&parameters);
    parameters.msg_lev = GLP_MSG_OFF;
    /* After other limits the old basis is dual feasible, after new columns it is primal feasible. */
    parameters.meth = lp->moved ? GLP_DUALP : GLP_PRIMAL;
    lp->moved = false;
    parameters.tol_bnd = parameters.tol_dj = TOLERANCE;
    parameters.it_lim = 1000 + 50 * ((int)lp->row_count + (int)lp->column_count);
    int before = glp_get_it_cnt(lp->glpk);
    int failed = glp_simplex(lp->glpk, &parameters);
    int reached = glp_get_status(lp->glpk);
    if (failed || (reached != GLP_OPT && reached != GLP_UNBND)) {
        glp_std_basis(lp->glpk); /* the kept basis was of no use; x = 0 is feasible, whatever was said */
        parameters.meth = GLP_PRIMAL;
        failed = glp_simplex(lp->glpk, &parameters);
    }
    lp->iterations += (uint64_t)(glp_get_it_cnt(lp->glpk) - before);
    int status = glp_get_status(lp->glpk);
    if (!failed && status == GLP_OPT) {
        return TS_OK;
    }
    if (!failed && status == GLP_UNBND) {
        return ts_error_set(err, TS_EINVAL, "linear program: unbounded, a column with gain has no limit");
    }
    return ts_error_set(err, TS_EIO,
                        "linear program: simplex gave up (%u rows, %u columns, code %d, status %d)",
                        lp->row_count, lp->column_count, failed, status);
}

static enum ts_status branch(struct plan_lp *lp, double seconds, struct ts_error *err)
{
    glp_iocp parameters;
    glp_init_iocp(&parameters);
    parameters.msg_lev = GLP_MSG_OFF;
    parameters.gmi_cuts = parameters.mir_cuts = GLP_ON;
    parameters.tm_lim = (int)fmin(fmax(seconds, 0) * 1000, 1e9);
    for (uint32_t j = 0; j < lp->column_count; j++) {
        glp_set_col_kind(lp->glpk, (int)j + 1, lp->integer[j] ? GLP_IV : GLP_CV);
    }
    int failed = glp_intopt(lp->glpk, &parameters);
    if (failed == GLP_ETMLIM || failed == GLP_EMIPGAP) {
        return TS_ETIMEOUT;
    }
    if (failed || glp_mip_status(lp->glpk) != GLP_OPT) {
        return ts_error_set(err, TS_EIO, "linear program: branch and cut gave up (code %d, status %d)",
                            failed, glp_mip_status(lp->glpk));
    }
    return TS_OK;
}

/* Of what the whole of a row could carry or bring, less than this is rounding. */
#define HAIR 1e-13

/* Closed rows are not GLPK's: their prices are what keeps each of their columns from gaining. */
static void price_closed(struct plan_lp *lp)
{
    for (uint32_t j = 0; lp->any_closed && j < lp->column_count; j++) {
        double gain = lp->gains[j];
        const struct plan_lp_term *shut = NULL;
        for (size_t t = lp->first[j]; t < lp->first[j + 1]; t++) {
            gain -= lp->terms[t].value * lp->duals[lp->terms[t].row];
            if (lp->closed[lp->terms[t].row] && (!shut || lp->terms[t].value > shut->value)) {
                shut = &lp->terms[t];
            }
        }
        if (shut && gain > 0) {
            lp->duals[shut->row] += gain / shut->value;
        }
    }
}

static double value_of(const struct plan_lp *lp, uint32_t column, enum plan_lp_solved solved)
{
    double x = solved == SOLVED_LP ? glp_get_col_prim(lp->glpk, (int)column + 1)
                                   : glp_mip_col_val(lp->glpk, (int)column + 1);
    return x > HAIR * glp_get_sjj(lp->glpk, (int)column + 1) ? x : 0;
}

static double dual_of(const struct plan_lp *lp, uint32_t row)
{
    double dual = glp_get_row_dual(lp->glpk, (int)row + 1);
    return dual > HAIR * lp->row_scale[row] ? dual / lp->gain_scale : 0;
}

static void read_solution(struct plan_lp *lp, enum plan_lp_solved solved)
{
    bool found =
        solved == SOLVED_LP || glp_mip_status(lp->glpk) == GLP_OPT || glp_mip_status(lp->glpk) == GLP_FEAS;
    RESERVE(lp, x, lp->column_count + 1);
    RESERVE(lp, duals, lp->row_count + 1);
    lp->objective = 0;
    for (uint32_t j = 0; j < lp->column_count; j++) {
        lp->x[j] = found && !lp->shut[j] ? value_of(lp, j, solved) : 0;
        lp->objective += lp->gains[j] * lp->x[j];
    }
    for (uint32_t i = 0; i < lp->row_count; i++) {
        lp->duals[i] = solved == SOLVED_LP ? dual_of(lp, i) : NAN;
    }
    if (solved == SOLVED_LP) {
        price_closed(lp);
    }
    lp->solved = solved;
}

/* Whatever goes wrong inside GLPK comes back here: its environment is gone then, with all problems in it. */
static enum ts_status solve(struct plan_lp *lp, const double *seconds, struct ts_error *err)
{
    lp->solved = SOLVED_NOT;
    if (lp->fault.status != TS_OK) {
        return ts_error_set(err, lp->fault.status, "%s", lp->fault.text);
    }
    env_enter();
    if (setjmp(env.on_error)) {
        glp_free_env();
        env.epoch++;
        env.ours = false;
        return ts_error_set(err, TS_EIO, "linear program: GLPK: %s", env.words);
    }
    load(lp);
    enum ts_status status = TS_OK;
    if (lp->row_count > 0 || lp->column_count > 0) {
        status = simplex(lp, err);
    }
    enum plan_lp_solved solved = SOLVED_LP;
    if (status == TS_OK && seconds) {
        status = branch(lp, *seconds, err);
        solved = SOLVED_INTEGER;
    }
    if (status == TS_OK || status == TS_ETIMEOUT) {
        read_solution(lp, solved);
    }
    return status;
}

enum ts_status plan_lp_solve(struct plan_lp *lp, struct ts_error *err)
{
    return solve(lp, NULL, err);
}

enum ts_status plan_lp_solve_integer(struct plan_lp *lp, double seconds, struct ts_error *err)
{
    return solve(lp, &seconds, err);
}

/* --- Reading --- */

double plan_lp_objective(const struct plan_lp *lp)
{
    TS_ASSERT(lp->solved != SOLVED_NOT);
    return lp->objective;
}

double plan_lp_value(const struct plan_lp *lp, uint32_t column)
{
    TS_ASSERT(lp->solved != SOLVED_NOT && column < lp->column_count);
    return lp->x[column];
}

double plan_lp_dual(const struct plan_lp *lp, uint32_t row)
{
    TS_ASSERT(lp->solved == SOLVED_LP && row < lp->row_count);
    return lp->duals[row];
}

uint64_t plan_lp_iterations(const struct plan_lp *lp)
{
    return lp->iterations;
}
