/* Generators: published vectors, bounds, moments. Numbers drawn here decide tokens, so they must never
 * change. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"

static void check_philox(const uint32_t counter[4], const uint32_t key[2], const uint32_t expected[4])
{
    uint32_t words[4];
    ts_philox4x32(counter, key, words);
    assert_memory_equal(words, expected, sizeof words);
}

/* From kat_vectors of the Random123 distribution. */
static void test_philox_known(void **state)
{
    (void)state;
    check_philox((const uint32_t[4]){0}, (const uint32_t[2]){0},
                 (const uint32_t[4]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check_philox((const uint32_t[4]){~0u, ~0u, ~0u, ~0u}, (const uint32_t[2]){~0u, ~0u},
                 (const uint32_t[4]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check_philox((const uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                 (const uint32_t[2]){0xa4093822, 0x299f31d0},
                 (const uint32_t[4]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void test_philox_layout(void **state)
{
    (void)state;
    uint32_t words[4], expected[4];
    ts_philox(0x1122334455667788u, 0x99aabbccddeeff00u, words);
    ts_philox4x32((const uint32_t[4]){0xddeeff00, 0x99aabbcc, 0, 0},
                  (const uint32_t[2]){0x55667788, 0x11223344}, expected);
    assert_memory_equal(words, expected, sizeof words);
    ts_philox(0, 0, words);
    double unit = ts_philox_unit(0, 0);
    assert_true(unit == (double)(((uint64_t)words[1] << 32 | words[0]) >> 11) / 9007199254740992.0);
    double sum = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        unit = ts_philox_unit(42, i);
        assert_true(unit >= 0 && unit < 1);
        sum += unit;
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005);
}

static void test_stream(void **state)
{
    (void)state;
    /* xoshiro256** from the state {1, 2, 3, 4}, and splitmix64 from 0: first outputs of the reference
     * programs. */
    struct ts_rng rng = {.s = {1, 2, 3, 4}};
    const uint64_t expected[] = {11520u, 0u, 1509978240u, 1215971899390074240u};
    for (int i = 0; i < 4; i++) {
        assert_true(ts_rng_u64(&rng) == expected[i]);
    }
    assert_true(ts_splitmix64(0) == 0xe220a8397b1dcdafu);
    struct ts_rng a, b;
    ts_rng_init(&a, 5);
    ts_rng_init(&b, 5);
    assert_memory_equal(&a, &b, sizeof a);
    ts_rng_init(&b, 6);
    assert_true(ts_rng_u64(&a) != ts_rng_u64(&b));
}

static void test_below(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 9);
    unsigned counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t value = ts_rng_below(&rng, 7);
        assert_true(value < 7);
        counts[value]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ts_rng_below(&rng, 1), 0);
    }
    /* Three quarters of the range: without drawing again, four words would fall on three values, two of them
     * on the first. */
    uint64_t bound = (uint64_t)3 << 62;
    unsigned first = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t value = ts_rng_below(&rng, bound);
        assert_true(value < bound);
        first += value % 3 == 0;
    }
    assert_in_range(first, 9600, 10400);
}

static void test_moments(void **state)
{
    (void)state;
    struct ts_rng rng;
    double units = 0, exponentials = 0, normals = 0, squares = 0;
    ts_rng_init(&rng, 13);
    for (int i = 0; i < 200000; i++) {
        double unit = ts_rng_unit(&rng), exponential = ts_rng_exponential(&rng, 3),
               normal = ts_rng_normal(&rng);
        assert_true(unit >= 0 && unit < 1);
        assert_true(exponential >= 0 && isfinite(exponential) && isfinite(normal));
        units += unit;
        exponentials += exponential;
        normals += normal;
        squares += normal * normal;
    }
    assert_true(fabs(units / 200000 - 0.5) < 0.005);
    assert_true(fabs(exponentials / 200000 - 3) < 0.05);
    assert_true(fabs(normals / 200000) < 0.01);
    assert_true(fabs(squares / 200000 - 1) < 0.02);
}

static void test_kernel(void **state)
{
    (void)state;
    uint64_t first = ts_random_u64();
    assert_true(first != 0);
    assert_true(first != ts_random_u64());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known), cmocka_unit_test(test_philox_layout),
        cmocka_unit_test(test_stream),       cmocka_unit_test(test_below),
        cmocka_unit_test(test_moments),      cmocka_unit_test(test_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
