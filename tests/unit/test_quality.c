#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "services/tsctl/tsctl_quality.h"

enum { ROWS = 200 };

static void near(double got, double expected)
{
    if (!(fabs(got - expected) < 1e-7)) /* the logits are floats */
        fail_msg("%.12f, not %.12f", got, expected);
}

static void equal_tables_differ_by_nothing(void **state)
{
    const float logits[2][3] = {{1.5f, -2.0f, 0.25f}, {0.0f, 88.0f, -INFINITY}};
    struct tsctl_quality q;
    (void)state;
    tsctl_quality_of(logits[0], logits[0], 2, 3, &q);
    assert_int_equal(q.rows, 2);
    assert_true(q.kl_mean == 0 && q.kl_p99 == 0 && q.kl_max == 0 && q.top1 == 1);
}

/* (1/2, 1/2) against (3/4, 1/4): ln(4/3) / 2. A constant added to a row changes nothing. */
static void divergence_is_the_known_one(void **state)
{
    const float reference[2] = {7.0f, 7.0f}, other[2] = {logf(3.0f), 0.0f};
    struct tsctl_quality q;
    (void)state;
    tsctl_quality_of(reference, other, 1, 2, &q);
    near(q.kl_mean, log(4.0 / 3) / 2);
    near(q.kl_p99, q.kl_mean);
    near(q.kl_max, q.kl_mean);
    assert_true(q.top1 == 1);
}

/* One row in 200 is far off, one other is a little off and has another best token: the first is the maximum,
 * the 198th of the sorted ones, nearest rank to 99 %, is neither. */
static void ranks_and_shares(void **state)
{
    float reference[ROWS][2], other[ROWS][2];
    struct tsctl_quality q;
    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        reference[i][0] = other[i][0] = 1.0f;
        reference[i][1] = other[i][1] = 0.0f;
    }
    other[17][0] = 20.0f;
    other[60][1] = 1.25f;
    tsctl_quality_of(reference[0], other[0], ROWS, 2, &q);
    near(q.top1, 199.0 / 200);
    assert_true(q.kl_p99 == 0);
    assert_true(q.kl_max > 4 && q.kl_mean > q.kl_max / ROWS && q.kl_mean < 2 * q.kl_max / ROWS);
    other[100][0] = 3.0f;
    tsctl_quality_of(reference[0], other[0], ROWS, 2, &q);
    assert_true(q.kl_p99 > 0 && q.kl_p99 < q.kl_max);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_tables_differ_by_nothing),
        cmocka_unit_test(divergence_is_the_known_one),
        cmocka_unit_test(ranks_and_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
