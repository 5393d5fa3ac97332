/* XXH3-64: vectors of the xxHash project's own sanity table pin the algorithm, since digests travel between
 * machines. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_hash.h"

static void test_known(void **state)
{
    (void)state;
    assert_true(ts_hash64("", 0, 0) == 0x2d06800538d394c2u);
    assert_true(ts_hash64(NULL, 0, 0) == 0x2d06800538d394c2u);
    assert_true(ts_hash64("abc", 3, 0) == 0x78af5f94892f3950u);
    assert_true(ts_hash64("abc", 3, 1) != ts_hash64("abc", 3, 0));
}

static void test_no_collision_among_small_keys(void **state)
{
    (void)state;
    /* Neighbouring numbers must differ in the low bits, which a table uses. */
    unsigned char seen[1 << 16] = {0};
    unsigned buckets = 0;
    for (uint64_t key = 0; key < 1 << 16; key++) {
        unsigned bucket = (unsigned)ts_hash64(&key, sizeof key, 5) & 0xffff;
        buckets += !seen[bucket];
        seen[bucket] = 1;
    }
    /* A random function fills 1 - 1/e of the buckets: 41,427, standard deviation about 80. */
    assert_in_range(buckets, 40900, 41950);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_no_collision_among_small_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
