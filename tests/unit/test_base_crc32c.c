/* CRC-32C against the check value and RFC 3720 B.4, and every way of computing it against the table. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_crc32c.h"
#include "common/base/ts_rng.h"

typedef uint32_t crc_function(uint32_t, const void *, size_t);

static void check_known(crc_function *crc)
{
    unsigned char bytes[32];
    assert_int_equal(crc(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc(0, "", 0), 0);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc(0, bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++) {
        bytes[i] = (unsigned char)i;
    }
    assert_int_equal(crc(0, bytes, 32), 0x46dd794eu);
    for (int i = 0; i < 32; i++) {
        bytes[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(crc(0, bytes, 32), 0x113fdb5cu);
}

static void test_known(void **state)
{
    (void)state;
    check_known(ts_crc32c);
    check_known(ts_crc32c_table);
}

static void test_twins_agree(void **state)
{
    (void)state;
    static unsigned char bytes[40000];
    struct ts_rng rng;
    ts_rng_init(&rng, 7);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)ts_rng_u64(&rng);
    }
    for (int round = 0; round < 3000; round++) {
        size_t limit = round < 2000 ? 300 : sizeof bytes - 64;
        size_t start = (size_t)ts_rng_below(&rng, 64), size = (size_t)ts_rng_below(&rng, limit);
        uint32_t before = (uint32_t)ts_rng_u64(&rng);
        uint32_t whole = ts_crc32c(before, bytes + start, size);
        assert_int_equal(whole, ts_crc32c_table(before, bytes + start, size));
        for (unsigned level = 0; level < TS_CRC32C_LEVELS; level++) {
            assert_int_equal(ts_crc32c_at(level, before, bytes + start, size), whole);
        }
        size_t cut = (size_t)ts_rng_below(&rng, size + 1);
        uint32_t pieces = ts_crc32c(ts_crc32c(before, bytes + start, cut), bytes + start + cut, size - cut);
        assert_int_equal(whole, pieces);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_twins_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
