/*
 * Shares of a plan over the groups that are there.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "services/cloud/cloud_shares.h"

static double share_of(const struct cloud_shares *shares, uint32_t prefill, uint32_t decode, uint32_t class_)
{
    double share = 0;
    for (uint32_t i = 0; i < shares->count; i++) {
        const struct ts_plan_share *z = &shares->items[i];
        if (z->prefill == prefill && z->decode == decode && z->length_class == class_) {
            assert_true(share == 0); /* once */
            share = z->share;
        }
    }
    return share;
}

static void test_losses(void **state)
{
    struct ts_plan *plan = ts_plan_new(5, 6);
    const struct ts_flow flows[] = {{0, 2, 0, 3, 2, TS_COST_CODEC_NONE}, {0, 2, 0, 1, 1, TS_COST_CODEC_I4},
                                    {0, 3, 0, 4, 3, TS_COST_CODEC_I4},   {1, 3, 1, 5, 5, TS_COST_CODEC_I4},
                                    {4, 4, 0, 2, 2, TS_COST_CODEC_NONE}, {1, 2, 1, 0, 0, TS_COST_CODEC_I4}};
    struct cloud_shares all, some, none;
    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        plan->flows[i] = flows[i];
    cloud_shares_make(plan, 2, (const bool[]){true, true, true, true, true}, &all);
    assert_int_equal(all.count, 4);
    assert_true(share_of(&all, 0, 2, 0) == 0.4 && share_of(&all, 0, 3, 0) == 0.4);
    assert_true(share_of(&all, 4, 4, 0) == 0.2 && share_of(&all, 1, 3, 1) == 1);
    assert_true(all.served == 13 && !all.folded);
    assert_string_equal(all.items[0].codec.data, "none"); /* of 3 requests/s and 1 */
    cloud_shares_make(plan, 2, (const bool[]){true, false, true, true, false}, &some);
    assert_true(share_of(&some, 0, 2, 0) == 0.5 && share_of(&some, 0, 3, 0) == 0.5);
    assert_true(share_of(&some, 0, 2, 1) == 0.5 && share_of(&some, 0, 3, 1) == 0.5); /* its own way is gone */
    assert_true(some.served == 6);
    cloud_shares_make(plan, 2, (const bool[]){true, true, false, false, false}, &none);
    assert_int_equal(none.count, 0);
    cloud_shares_fini(&all);
    cloud_shares_fini(&some);
    cloud_shares_fini(&none);
    ts_plan_destroy(&plan);
}

/* More than a message holds: every group is sent as much as before. */
static void check_dense(uint32_t half, uint32_t classes, bool folded)
{
    uint32_t colocated = 2 * half, count = 0;
    struct ts_plan *plan = ts_plan_new(2 * half + 1, half * half * classes + 1);
    bool *there = ts_xcalloc(2 * half + 1, sizeof *there);
    double *before = ts_xcalloc(2 * half + 1, sizeof *before),
           *after = ts_xcalloc(2 * half + 1, sizeof *after);
    double total = 0;
    struct cloud_shares shares;
    for (uint32_t k = 0; k < classes; k++) {
        for (uint32_t i = 0; i < half * half; i++) {
            uint32_t p = i / half, d = half + i % half;
            double rate = 1 + (p * 7 + d * 13 + k) % 5;
            plan->flows[count++] =
                (struct ts_flow){.prefill = p, .decode = d, .length_class = k, .rate = rate};
        }
    }
    plan->flows[count++] = (struct ts_flow){.prefill = colocated, .decode = colocated, .rate = 9};
    for (uint32_t f = 0; f < count; f++) {
        const struct ts_flow *flow = &plan->flows[f];
        total += flow->rate;
        before[flow->prefill] += flow->rate;
        before[flow->decode] += flow->rate;
    }
    for (uint32_t g = 0; g <= 2 * half; g++)
        there[g] = true;
    cloud_shares_make(plan, classes, there, &shares);
    assert_true(shares.count <= TS_LIST_MAX && shares.folded == folded);
    for (uint32_t i = 0; i < shares.count; i++) {
        after[shares.items[i].prefill] += shares.items[i].share * total;
        after[shares.items[i].decode] += shares.items[i].share * total;
    }
    for (uint32_t g = 0; g <= 2 * half; g++)
        assert_true(fabs(after[g] - before[g]) <= 1e-9 * before[g]);
    assert_true(share_of(&shares, colocated, colocated, 0) > 0);
    cloud_shares_fini(&shares);
    ts_free(there);
    ts_free(before);
    ts_free(after);
    ts_plan_destroy(&plan);
}

static void test_dense(void **state)
{
    (void)state;
    check_dense(100, 1, false);
    check_dense(100, 8, true); /* folded */
    check_dense(300, 1, true); /* and thinned */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses), cmocka_unit_test(test_dense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
