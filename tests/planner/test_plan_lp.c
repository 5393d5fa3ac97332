/*
 * Linear programs: worked by hand, and random ones judged by the referee of lp_referee.h. The referee
 * itself must refuse solutions that were made wrong on purpose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glpk.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/eval/plan_lp.h"
#include "tests/planner/lp_referee.h"

#define COLUMN(lp, gain, ...)                                                                                \
    plan_lp_add_column((lp), (gain), (const struct plan_lp_term[]){__VA_ARGS__},                             \
                       sizeof((const struct plan_lp_term[]){__VA_ARGS__}) / sizeof(struct plan_lp_term))

static void assert_optimal(struct plan_lp *lp)
{
    struct ts_error err = {0};
    if (plan_lp_solve(lp, &err) != TS_OK || !lp_verify(lp, &err)) {
        fail_msg("%s", err.text);
    }
}

static void assert_near(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-9 * fmax(1, fabs(b)));
}

/* max 3x + 5y, x <= 4, 2y <= 12, 3x + 2y <= 18 (Hillier and Lieberman's Wyndor Glass): 36 at (2, 6), prices
 * 0, 1.5, 1. */
static void test_by_hand(void **state)
{
    (void)state;
    struct plan_lp *lp = plan_lp_new();
    plan_lp_add_row(lp, 4);
    plan_lp_add_row(lp, 12);
    plan_lp_add_row(lp, 18);
    COLUMN(lp, 3, {0, 1}, {2, 3});
    COLUMN(lp, 5, {1, 2}, {2, 2});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 36);
    assert_near(plan_lp_value(lp, 0), 2);
    assert_near(plan_lp_value(lp, 1), 6);
    assert_near(plan_lp_dual(lp, 0), 0);
    assert_near(plan_lp_dual(lp, 1), 1.5);
    assert_near(plan_lp_dual(lp, 2), 1);

    /* A column at no gain for these prices changes nothing; a better one does, and so does a limit. */
    uint64_t before = plan_lp_iterations(lp);
    COLUMN(lp, 2.4, {1, 1}, {2, 1});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 36);
    assert_int_equal(plan_lp_iterations(lp), before);
    COLUMN(lp, 4, {0, 2}, {2, 1}); /* y = 6 leaves x + 2w <= 4, 3x + w <= 6 */
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 30 + 3 * 1.6 + 4 * 1.2);
    plan_lp_set_limit(lp, 1, 0);
    assert_optimal(lp);
    assert_near(plan_lp_value(lp, 1), 0);
    plan_lp_destroy(&lp);
    assert_null(lp);
}

static void test_corners(void **state)
{
    (void)state;
    struct plan_lp *lp = plan_lp_new();
    assert_optimal(lp); /* nothing at all */
    assert_near(plan_lp_objective(lp), 0);
    plan_lp_add_row(lp, 5);
    plan_lp_add_row(lp, 0);
    assert_optimal(lp); /* no column */
    assert_near(plan_lp_dual(lp, 0), 0);
    COLUMN(lp, -1, {0, 1});           /* not worth it */
    COLUMN(lp, 0, {0, 0});            /* a column of zeros */
    COLUMN(lp, 7, {1, 1}, {0, 1e-9}); /* in a row without room */
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 0);
    COLUMN(lp, 1, {0, 1}, {0, 1}); /* the row twice: 2x <= 5 */
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 2.5);
    uint32_t row = plan_lp_add_row(lp, 1); /* a row that comes later cuts */
    COLUMN(lp, 2, {0, 1}, {row, 1});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 2 + 2);
    /* Rows over free mixtures, as R of PLAN_GOODPUT: x - y <= 0 is feasible at 0. */
    plan_lp_reset(lp);
    plan_lp_add_row(lp, 0);
    plan_lp_add_row(lp, 3);
    COLUMN(lp, 1, {0, 1});
    COLUMN(lp, 0, {0, -2}, {1, 1});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 6);
    plan_lp_destroy(&lp);
    plan_lp_destroy(&lp); /* null-safe */
}

static void test_cut(void **state)
{
    (void)state;
    struct plan_lp *lp = plan_lp_new();
    plan_lp_add_row(lp, 4);
    COLUMN(lp, 1, {0, 1});
    COLUMN(lp, 2, {0, 1});
    COLUMN(lp, 3, {0, 1});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 12);
    assert_int_equal(plan_lp_add_cut(lp, 6, (struct plan_lp_cell[]){{0, 1}, {2, 3}}, 2), 1);
    assert_optimal(lp); /* 2 of the last at most */
    assert_near(plan_lp_objective(lp), 10);
    assert_near(plan_lp_value(lp, 1), 2);
    assert_near(plan_lp_value(lp, 2), 2);
    assert_near(plan_lp_dual(lp, 1), 1.0 / 3);
    plan_lp_destroy(&lp);
}

static void assert_refused(struct plan_lp *lp, const char *words)
{
    struct ts_error err = {0};
    assert_int_equal(plan_lp_solve(lp, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, words));
    assert_false(lp_verify(lp, &err));
    plan_lp_reset(lp);
}

static void test_refusals(void **state)
{
    (void)state;
    struct plan_lp *lp = plan_lp_new();
    static const double bad_limits[] = {-1, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 4; i++) {
        plan_lp_add_row(lp, bad_limits[i]);
        assert_refused(lp, "limit of row 0");
        plan_lp_set_limit(lp, plan_lp_add_row(lp, 1), bad_limits[i]);
        assert_refused(lp, "limit of row 0");
    }
    COLUMN(lp, NAN, {0, 0});
    assert_refused(lp, "gain of column 0");
    plan_lp_add_row(lp, 1);
    COLUMN(lp, 1, {0, INFINITY});
    assert_refused(lp, "a term of column 0");
    plan_lp_add_row(lp, 1);
    COLUMN(lp, 1, {0, 1}, {1, 1});
    assert_refused(lp, "row that is not there");
    plan_lp_add_row(lp, 1);
    COLUMN(lp, 1, {0, -1});
    assert_refused(lp, "unbounded");
    /* After all that the object still works. */
    plan_lp_add_row(lp, 1);
    COLUMN(lp, 1, {0, 2});
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 0.5);
    plan_lp_destroy(&lp);
}

/* GLPK ends the process where its memory is over. Ours gets a status, and all programs of the thread live on.
 */
static void test_error_inside_glpk(void **state)
{
    (void)state;
    struct plan_lp *small = plan_lp_new(), *large = plan_lp_new();
    plan_lp_add_row(small, 1);
    COLUMN(small, 1, {0, 1});
    assert_optimal(small);
    for (uint32_t i = 0; i < 30000; i++) {
        COLUMN(large, 1, {plan_lp_add_row(large, 1), 1});
    }
    glp_mem_limit(1); /* MiB */
    struct ts_error err = {0};
    assert_int_equal(plan_lp_solve(large, &err), TS_EIO);
    assert_non_null(strstr(err.text, "memory"));
    COLUMN(small, 2, {0, 1});
    assert_optimal(small);
    assert_near(plan_lp_objective(small), 2);
    plan_lp_destroy(&large);
    plan_lp_destroy(&small);
}

static void test_integer(void **state)
{
    (void)state;
    struct plan_lp *lp = plan_lp_new();
    /* Knapsack 10: weights 6, 5, 5 with gains 10, 7, 7: relaxed 10 + 0.8 * 7, whole 14. At most one of each.
     */
    plan_lp_add_row(lp, 10);
    static const double gains[] = {10, 7, 7}, weights[] = {6, 5, 5};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t row = plan_lp_add_row(lp, 1);
        plan_lp_set_integer(lp, COLUMN(lp, gains[i], {0, weights[i]}, {row, 1}));
    }
    struct ts_error err = {0};
    assert_optimal(lp);
    assert_near(plan_lp_objective(lp), 15.6);
    assert_int_equal(plan_lp_solve_integer(lp, 10, &err), TS_OK);
    assert_near(plan_lp_objective(lp), 14);
    assert_near(plan_lp_value(lp, 0), 0);
    assert_false(lp_verify(lp, &err)); /* has no duals */
    plan_lp_destroy(&lp);

    /* No time: whatever there is, and it says so. Even weights against an odd limit: branch and bound has no
     * end in sight. */
    lp = plan_lp_new();
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    for (uint32_t i = 0; i < 40; i++) {
        plan_lp_add_row(lp, 1001);
    }
    struct plan_lp_term terms[60][40];
    for (uint32_t j = 0; j < 60; j++) {
        for (uint32_t i = 0; i < 40; i++) {
            terms[j][i] = (struct plan_lp_term){i, 2 * (double)ts_rng_below(&rng, 200)};
        }
        plan_lp_set_integer(lp, plan_lp_add_column(lp, 1 + ts_rng_unit(&rng), terms[j], 40));
    }
    assert_int_equal(plan_lp_solve_integer(lp, 0.05, &err), TS_ETIMEOUT);
    assert_true(plan_lp_objective(lp) >= 0);
    for (uint32_t i = 0; i < 40; i++) {
        double used = 0;
        for (uint32_t j = 0; j < 60; j++) {
            used += terms[j][i].value * plan_lp_value(lp, j);
        }
        assert_true(used < 1001 + 1e-6);
    }
    plan_lp_destroy(&lp);
}

/* A random program: sparse, limits sometimes 0 or equal (degenerate), units of rows and columns apart by up
 * to `decades`. Column 0.. get a row that limits them, so none is unbounded. */
static void random_columns(struct plan_lp *lp, struct ts_rng *rng, uint32_t rows, uint32_t columns,
                           const double *units)
{
    for (uint32_t j = 0; j < columns; j++) {
        struct plan_lp_term terms[8];
        uint32_t count = 1 + (uint32_t)ts_rng_below(rng, 7);
        double unit = units[ts_rng_below(rng, rows)];
        for (uint32_t t = 0; t < count; t++) {
            uint32_t row = (uint32_t)ts_rng_below(rng, rows);
            double value = ts_rng_below(rng, 4) == 0 ? 1 : 0.1 + ts_rng_unit(rng);
            terms[t] = (struct plan_lp_term){row, value * units[row] * unit};
        }
        plan_lp_add_column(lp, (ts_rng_unit(rng) - 0.1) * unit, terms, count);
    }
}

static void random_program(uint64_t seed, double decades)
{
    struct ts_rng rng;
    ts_rng_init(&rng, seed);
    struct plan_lp *lp = plan_lp_new();
    uint32_t rows = 1 + (uint32_t)ts_rng_below(&rng, 40);
    double units[40];
    for (uint32_t i = 0; i < rows; i++) {
        units[i] = pow(10, decades * (ts_rng_unit(&rng) - 0.5));
        double limit = ts_rng_below(&rng, 8) == 0 ? 0 : ts_rng_below(&rng, 3) == 0 ? 1 : ts_rng_unit(&rng);
        plan_lp_add_row(lp, limit * units[i]);
    }
    double last = 0;
    uint32_t columns = 0;
    for (uint32_t round = 0; round < 4; round++) {
        uint32_t more = 1 + (uint32_t)ts_rng_below(&rng, 50);
        random_columns(lp, &rng, rows, more, units);
        columns += more;
        struct ts_error err = {0};
        if (plan_lp_solve(lp, &err) != TS_OK || !lp_verify(lp, &err)) {
            fail_msg("seed %llu, decades %g, round %u: %s", (unsigned long long)seed, decades, round,
                     err.text);
        }
        assert_true(plan_lp_objective(lp) >= last * (1 - 1e-9)); /* more columns never hurt */
        last = plan_lp_objective(lp);
    }
    if (decades == 0) { /* a row over what is there cuts, and never helps */
        struct plan_lp_cell cells[200];
        uint32_t count = 0;
        for (uint32_t j = 0; j < columns; j++) {
            bool used = plan_lp_value(lp, j) > 1e-3;
            if (used || ts_rng_below(&rng, 3) == 0) {
                cells[count++] = (struct plan_lp_cell){j, used ? 2 / plan_lp_value(lp, j) : 1};
            }
        }
        plan_lp_add_cut(lp, 1, cells, count);
        assert_optimal(lp);
        assert_true(plan_lp_objective(lp) <= last * (1 + 1e-9));
        random_columns(lp, &rng, rows, 1, units);
        assert_optimal(lp);
    }
    last = plan_lp_objective(lp);
    plan_lp_set_limit(lp, 0, 0); /* less room never helps */
    assert_optimal(lp);
    assert_true(plan_lp_objective(lp) <= last * (1 + 1e-9));
    plan_lp_destroy(&lp);
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        random_program(seed, seed % 4 == 0 ? 24 : seed % 4 == 1 ? 6 : 0);
    }
}

/* Warm or cold, whole or in pieces: the same optimum; the same calls: the same bits. */
static void test_warm_is_cold(void **state)
{
    (void)state;
    double first = 0;
    for (int run = 0; run < 3; run++) {
        struct plan_lp *lp = plan_lp_new();
        struct ts_rng rng;
        double units[30];
        ts_rng_init(&rng, 77);
        for (uint32_t i = 0; i < 30; i++) {
            units[i] = 1;
            plan_lp_add_row(lp, 1 + (double)i);
        }
        for (int round = 0; round < 5; round++) {
            random_columns(lp, &rng, 30, 20, units);
            if (run < 2) {
                assert_optimal(lp);
            }
        }
        assert_optimal(lp);
        if (run == 0) {
            first = plan_lp_objective(lp);
        } else if (run == 1) {
            assert_true(plan_lp_objective(lp) == first);
        } else {
            assert_near(plan_lp_objective(lp), first);
        }
        plan_lp_destroy(&lp);
    }
}

/* Wyndor's program and its optimum, then each number of the claim wrong in turn. */
static void test_referee(void **state)
{
    (void)state;
    static const double limits[] = {4, 12, 18}, gains[] = {3, 5, 1};
    static const size_t first[] = {0, 2, 4, 5};
    static const struct plan_lp_term terms[] = {{0, 1}, {2, 3}, {1, 2}, {2, 2}, {2, 2}};
    const struct lp_program program = {limits, 3, gains, first, terms, 3};
    double x[] = {2, 6, 0}, duals[] = {0, 1.5, 1};
    struct ts_error err = {0};
    assert_true(lp_check(&program, x, duals, 36, &err));
    assert_false(lp_check(&program, x, duals, 36.001, &err));
    static const double shifts[] = {-3, -1e-3, 1e-3, 1, NAN, INFINITY};
    for (size_t s = 0; s < 6; s++) {
        for (size_t i = 0; i < 6; i++) {
            double *number = i < 3 ? &x[i] : &duals[i - 3], kept = *number;
            *number += shifts[s];
            assert_false(lp_check(&program, x, duals, 36, &err));
            *number = kept;
        }
    }
    /* Feasible and consistent, but not the best: (4, 3) gives 27. */
    static const double worse[] = {4, 3, 0};
    assert_false(lp_check(&program, worse, duals, 27, &err));
    /* Both objectives agree and yet x is over a limit, or a column gains. */
    static const double over[] = {12, 0, 0}, over_duals[] = {0, 0, 2};
    assert_false(lp_check(&program, over, over_duals, 36, &err));
    assert_non_null(strstr(err.text, "row 0 is over"));
    static const double gaining_duals[] = {9, 0, 0};
    assert_false(lp_check(&program, x, gaining_duals, 36, &err));
    assert_non_null(strstr(err.text, "row 0 has a slack"));
    static const double tight[] = {4, 12, 12}; /* nothing has slack then, and a dual may stand anywhere */
    const struct lp_program other = {tight, 3, gains, first, terms, 3};
    static const double at[] = {0, 6, 0}, gaining[] = {0, 2.5, 0};
    assert_false(lp_check(&other, at, gaining, 30, &err));
    assert_non_null(strstr(err.text, "column 0 would still gain"));
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void test_speed(void **state)
{
    (void)state;
    double cold = 0, warm = 0;
    uint64_t iterations = 0;
    double units[30];
    struct plan_lp *lp = plan_lp_new();
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct ts_rng rng;
        ts_rng_init(&rng, seed);
        plan_lp_reset(lp);
        for (uint32_t i = 0; i < 30; i++) {
            units[i] = 1;
            plan_lp_add_row(lp, 1 + (double)i);
        }
        double start = now_us();
        random_columns(lp, &rng, 30, 100, units);
        assert_int_equal(plan_lp_solve(lp, NULL), TS_OK);
        double middle = now_us();
        random_columns(lp, &rng, 30, 10, units);
        assert_int_equal(plan_lp_solve(lp, NULL), TS_OK);
        cold += middle - start;
        warm += now_us() - middle;
    }
    iterations = plan_lp_iterations(lp);
    print_message("30 rows x 100 columns: %.0f us, 10 more columns: %.0f us, %.0f iterations\n", cold / 300,
                  warm / 300, (double)iterations / 300);
    plan_lp_destroy(&lp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_corners),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_error_inside_glpk),
        cmocka_unit_test(test_integer),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_warm_is_cold),
        cmocka_unit_test(test_referee),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
