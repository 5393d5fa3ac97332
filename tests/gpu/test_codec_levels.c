/* All dispatch levels write equal bytes: ten million random groups, of every size and both types. */
#include "common/base/ts_hash.h"
#include "tests/gpu/codec_fixture.h"

#define GROUPS_TOTAL 10000000u
#define ROUNDS       16u /* tiles made from one draw, by changing bits */

static uint32_t mixed_element(uint64_t word, uint32_t kind, enum ts_dtype dtype)
{
    uint32_t bits = (uint32_t)word & 0xffff;
    switch (kind) {
    case 0: /* any bits at all: nearly every tile escapes */
        return bits;
    case 1: /* any finite magnitude below one */
        return bits & (dtype == TS_DTYPE_F16 ? 0xbbffu : 0xbf7fu);
    case 2: /* around the subnormals of fp16 */
        return dtype == TS_DTYPE_F16 ? (bits & 0x83ff) : (bits & 0x83ff) + 0x3200;
    case 3: /* near the largest fp16 */
        return dtype == TS_DTYPE_F16 ? (bits & 0x83ff) | 0x7800 : (bits & 0x807f) | 0x4700;
    default: /* like real keys: a narrow band of exponents */
        return dtype == TS_DTYPE_F16 ? (bits & 0x8fff) | 0x3000 : (bits & 0x83ff) | 0x3c00;
    }
}

struct outcome {
    uint64_t hash;
    uint32_t escapes;
};

/* The same sequence of tiles at the level now set. */
static struct outcome run_level(uint32_t head_dim, const char *codec, uint16_t group, enum ts_dtype dtype,
                                uint32_t tiles, uint64_t seed)
{
    struct fixture f;
    struct ts_rng rng;
    struct outcome result = {0};
    fixture_init(&f, codec, dtype, head_dim);
    f.codec.group = group;
    ts_rng_init(&rng, seed);
    uint16_t *pool = (uint16_t *)f.view.pool;
    size_t elements = f.pool_bytes / 2, per_run = 2 * FIXTURE_HEADS * FIXTURE_BLOCKS;
    for (uint32_t done = 0, round = 0; done < tiles; done += (uint32_t)per_run, round++) {
        for (size_t i = 0; i < elements; i += 4) {
            uint64_t word = ts_rng_u64(&rng);
            for (size_t j = 0; j < 4; j++, word >>= 16)
                pool[i + j] = (uint16_t)mixed_element(word, round % ROUNDS, dtype);
        }
        fixture_encode(&f);
        result.escapes += f.escapes;
        result.hash = ts_hash64(f.payload, f.bytes, result.hash);
        assert_int_equal(fixture_decode(&f), TS_OK);
        result.hash = ts_hash64(pool, f.pool_bytes, result.hash);
    }
    fixture_fini(&f);
    return result;
}

static void compare(uint32_t head_dim, uint16_t group, enum ts_dtype dtype, uint32_t groups)
{
    uint32_t tiles = groups / (16 * head_dim / group);
    assert_int_equal(ts_codec_set_level("scalar"), TS_OK);
    struct outcome expected = run_level(head_dim, "i4", group, dtype, tiles, group);
    assert_true(expected.escapes > 0 && expected.escapes < tiles);
    static const char *const names[] = {"avx2", "avx512"};
    for (size_t i = 0; i < 2; i++) {
        if (ts_codec_set_level(names[i]) != TS_OK)
            continue;
        struct outcome got = run_level(head_dim, "i4", group, dtype, tiles, group);
        assert_int_equal(got.escapes, expected.escapes);
        assert_true(got.hash == expected.hash);
    }
}

static void test_equal(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        enum ts_dtype dtype = t ? TS_DTYPE_BF16 : TS_DTYPE_F16;
        compare(80, 16, dtype, GROUPS_TOTAL / 2 / 2);
        compare(96, 32, dtype, GROUPS_TOTAL / 2 / 4);
        compare(128, 64, dtype, GROUPS_TOTAL / 2 / 5);
        compare(128, 128, dtype, GROUPS_TOTAL / 2 / 25);
        compare(256, 256, dtype, GROUPS_TOTAL / 2 / 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
