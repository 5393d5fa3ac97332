/* Expected values: Python's hashlib.blake2b(data, digest_size=8), read little-endian. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_blake2b.h"

static const struct {
    size_t bytes;
    uint64_t digest;
} cases[] = {
    {0, 0xb4b2797457a0a6e4},    {1, 0xad19753f0a3de800},   {8, 0x543dd37a9528be5f},
    {127, 0xccb7a9be516b2a26},  {128, 0xd4bd8db997060b59}, {129, 0x87632c5fd17a3442},
    {255, 0x86801a888e94d058},  {256, 0x1ba4ab5201787de8}, {257, 0x13462d07347e5aa3},
    {1000, 0xfc9b24ffe5bf03e1},
};

static void fill(uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 7 + bytes);
}

static void test_known_digests(void **state)
{
    (void)state;
    uint8_t data[1000];
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_blake2b b;
        fill(data, cases[i].bytes);
        ts_blake2b_init(&b);
        ts_blake2b_add(&b, data, cases[i].bytes);
        assert_true(ts_blake2b_end(&b) == cases[i].digest);
    }
}

static void test_parts_do_not_matter(void **state)
{
    (void)state;
    uint8_t data[1000];
    fill(data, sizeof data);
    for (size_t part = 1; part < 300; part++) {
        struct ts_blake2b b;
        ts_blake2b_init(&b);
        for (size_t at = 0; at < sizeof data; at += part)
            ts_blake2b_add(&b, data + at, at + part < sizeof data ? part : sizeof data - at);
        assert_true(ts_blake2b_end(&b) == 0xfc9b24ffe5bf03e1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_digests),
        cmocka_unit_test(test_parts_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
