/* KV blocks: free or owned by one, taken all or nothing, the lowest ids first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "common/core/ts_kv.h"
#include "common/core/ts_model.h"

static void test_all_or_nothing(void **state)
{
    (void)state;
    struct ts_kv kv;
    uint32_t a[3] = {9, 9, 9}, b[3] = {9, 9, 9};
    ts_kv_init(&kv, 4);
    assert_true(ts_kv_take(&kv, 1, 3, a));
    assert_true(a[0] == 0 && a[1] == 1 && a[2] == 2);
    assert_false(ts_kv_take(&kv, 2, 2, b));
    assert_int_equal(kv.free_count, 1);
    assert_int_equal(b[0], 9);
    assert_true(ts_kv_take(&kv, 2, 1, b));
    assert_int_equal(b[0], 3);
    assert_true(ts_kv_take(&kv, 2, 0, b));
    ts_kv_give(&kv, 1, a + 1, 1);
    ts_kv_give(&kv, 1, a, 1);
    assert_true(ts_kv_take(&kv, 3, 2, b)); /* the lowest of those that came back */
    assert_true(b[0] == 0 && b[1] == 1);
    ts_kv_fini(&kv);
    ts_kv_init(&kv, 0);
    assert_false(ts_kv_take(&kv, 1, 1, b));
    ts_kv_fini(&kv);
}

static void test_random(void **state)
{
    (void)state;
    enum { BLOCKS = 50, OWNERS = 7 };
    struct ts_kv kv;
    struct ts_rng rng;
    uint32_t held[OWNERS][BLOCKS], count[OWNERS] = {0};
    ts_kv_init(&kv, BLOCKS);
    ts_rng_init(&rng, 5);
    for (int i = 0; i < 5000; i++) {
        uint32_t o = (uint32_t)ts_rng_below(&rng, OWNERS), n = (uint32_t)ts_rng_below(&rng, 12);
        if (n <= kv.free_count && count[o] + n <= BLOCKS && ts_rng_below(&rng, 2)) {
            assert_true(ts_kv_take(&kv, o + 1, n, held[o] + count[o]));
            count[o] += n;
        } else {
            n = n < count[o] ? n : count[o];
            count[o] -= n;
            ts_kv_give(&kv, o + 1, held[o] + count[o], n);
        }
        uint32_t owned = 0;
        for (o = 0; o < OWNERS; o++) {
            owned += count[o];
            for (uint32_t k = 0; k < count[o]; k++)
                assert_int_equal(kv.owner[held[o][k]], o + 1);
        }
        assert_int_equal(owned + kv.free_count, BLOCKS);
    }
    ts_kv_fini(&kv);
}

static void test_blocks_for(void **state)
{
    (void)state;
    assert_int_equal(ts_kv_blocks_for(0), 0);
    assert_int_equal(ts_kv_blocks_for(1), 1);
    assert_int_equal(ts_kv_blocks_for(16), 1);
    assert_int_equal(ts_kv_blocks_for(17), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_or_nothing), cmocka_unit_test(test_random),
                                       cmocka_unit_test(test_blocks_for)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
