/*
 * All dispatch levels write equal bytes and restore equal numbers: random groups of every preset, size and
 * type, and all special values. The argument is how many groups there are in all: `test_codec_levels
 * 10000000` for the whole series, the default is a sample of it.
 */
#include <stdlib.h>

#include "common/base/ts_hash.h"
#include "tests/gpu/codec_fixture.h"

#define ROUNDS 16u /* pools of one draw, each of its own kind */

#define GROUPS_WHOLE 10000000u /* the whole series */

static uint64_t groups_total = 400000;

static uint32_t mixed_element(uint64_t word, uint32_t kind, enum ts_dtype dtype)
{
    uint32_t bits = (uint32_t)word & 0xffff;
    bool f16 = dtype == TS_DTYPE_F16;
    switch (kind) {
    case 0: /* any bits at all: nearly every tile escapes */
        return bits;
    case 1: /* any finite magnitude below one */
        return bits & (f16 ? 0xbbffu : 0xbf7fu);
    case 2: /* around the subnormals of fp16 */
        return f16 ? (bits & 0x83ff) : (bits & 0x83ff) + 0x3200;
    case 3: /* near the largest fp16 */
        return f16 ? (bits & 0x83ff) | 0x7800 : (bits & 0x807f) | 0x4700;
    case 4: /* around the magnitude from which moved tiles escape */
        return f16 ? (bits & 0x83ff) | 0x6800 : (bits & 0x807f) | 0x6f00;
    case 5: /* few values, so that many rounding ties and constant groups come */
        return bits & 1 ? (f16 ? 0x3c00u : 0x3f80u) : (bits & 0x8002) << 0;
    case 6: /* subnormals of bf16, and zeros of both signs */
        return f16 ? bits & 0x8001 : bits & 0x807f;
    default: /* like real keys: a narrow band of exponents */
        return f16 ? (bits & 0x8fff) | 0x3000 : (bits & 0x83ff) | 0x3c00;
    }
}

struct outcome {
    uint64_t hash;
    uint32_t escapes;
};

static void hash_pool(struct fixture *f, struct outcome *o)
{
    fixture_encode(f);
    o->escapes += f->escapes;
    o->hash = ts_hash64(f->payload, f->bytes, o->hash);
    if (fixture_decode(f) != TS_OK)
        fail_msg("%s at %s refuses what it wrote", ts_codec_name(&f->codec), codec_level()->name);
    for (uint32_t i = 0; i < 2 * FIXTURE_HEADS * ts_kv_blocks_for(f->chunk.token_count); i++) {
        uint32_t token = i / (2 * FIXTURE_HEADS) * 16;
        o->hash =
            ts_hash64(fixture_element(f, i & 1, i / 2 % FIXTURE_HEADS, token), 2 * f->tile_elements, o->hash);
    }
}

/* The same sequence of pools at the level now set. */
static struct outcome run_level(const char *codec, uint32_t head_dim, uint16_t group, enum ts_dtype dtype,
                                uint64_t groups)
{
    struct fixture f;
    struct ts_rng rng;
    struct outcome result = {0};
    fixture_init(&f, codec, dtype, head_dim);
    fixture_rotate(&f);
    f.codec.key.group = f.codec.key.bits < 16 && group ? group : f.codec.key.group;
    f.codec.value.group = f.codec.value.bits < 16 && group ? group : f.codec.value.group;
    ts_rng_init(&rng, head_dim + group);
    uint16_t *pool = (uint16_t *)(void *)f.view.pool;
    size_t elements = f.pool_bytes / 2, per_pool = elements / (group ? group : 64);
    for (uint64_t done = 0, round = 0; done < groups; done += per_pool, round++) {
        for (size_t i = 0; i < elements; i += 4) {
            uint64_t word = ts_rng_u64(&rng);
            for (size_t j = 0; j < 4; j++, word >>= 16)
                pool[i + j] = (uint16_t)mixed_element(word, round % ROUNDS, dtype);
        }
        f.chunk.token_count = 16 * FIXTURE_BLOCKS - round % 16;
        hash_pool(&f, &result);
    }
    fixture_fini(&f);
    return result;
}

static const char *const names[] = {"avx2", "avx512", "avx512bf16"};

static void compare(const char *codec, uint32_t head_dim, uint16_t group, double share)
{
    for (int t = 0; t < 2; t++) {
        enum ts_dtype dtype = t ? TS_DTYPE_BF16 : TS_DTYPE_F16;
        uint64_t groups = (uint64_t)(share / 2 * (double)groups_total);
        assert_int_equal(ts_codec_set_level("scalar"), TS_OK);
        struct outcome expected = run_level(codec, head_dim, group, dtype, groups);
        for (size_t i = 0; i < 3; i++) {
            if (ts_codec_set_level(names[i]) != TS_OK)
                continue;
            struct outcome got = run_level(codec, head_dim, group, dtype, groups);
            if (got.escapes != expected.escapes || got.hash != expected.hash)
                fail_msg("%s, head_dim %u, group %u, %s: %s differs from scalar (%u escapes, %u)", codec,
                         head_dim, group, ts_dtype_name(dtype), names[i], got.escapes, expected.escapes);
        }
    }
}

static void test_equal(void **state)
{
    (void)state;
    compare("i4", 80, 16, 0.03);
    compare("i4", 96, 32, 0.03);
    compare("i4", 128, 64, 0.2);
    compare("i4", 128, 128, 0.03);
    compare("i4", 256, 256, 0.01);
    compare("i4h", 64, 64, 0.1);
    compare("i4h", 128, 64, 0.15);
    compare("i4h", 80, 16, 0.03);
    compare("i4h", 96, 32, 0.03);
    compare("i4h", 256, 64, 0.03);
    compare("i4h", 512, 128, 0.01);
    compare("i4hs", 64, 32, 0.03);
    compare("i4hs", 128, 32, 0.1);
    compare("i4hs", 256, 16, 0.02);
    compare("i8", 64, 0, 0.02);
    compare("i8", 80, 0, 0.02);
    compare("i8", 128, 32, 0.02);
    compare("i4hc", 64, 64, 0.02);
    compare("i4hc", 128, 64, 0.05);
    compare("i4hc", 96, 16, 0.02);
    compare("k8v4h", 128, 0, 0.02);
    compare("lz16", 64, 0, 0.02);
    compare("lz16", 128, 0, 0.02);
    compare("none", 80, 0, 0.01);
}

/* --- special values --- */

static const uint16_t specials_f16[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x3c00,
                                        0xbc00, 0x63ff, 0x6400, 0xe400, 0x6bff, 0x6c00, 0xebff, 0xec00,
                                        0x7bfe, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xffff, 0x3555};
static const uint16_t specials_bf16[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x0080, 0x3f80, 0xbf80,
                                         0x477f, 0x4780, 0xc780, 0x6f7f, 0x6f80, 0xef7f, 0xef80, 0x7f7f,
                                         0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffff, 0x3380, 0x3eab, 0x0d00};

enum { SPECIALS = sizeof specials_f16 / sizeof *specials_f16 };

/* Each pair of values in each of five places: a constant group but for one element, its mirror image, a
 * constant row, alternating, and one element of a tile of zeros. */
static void fill_special(struct fixture *f, const uint16_t *values, uint32_t pair)
{
    uint32_t n = f->view.head_dim;
    uint16_t a = values[pair / SPECIALS], b = values[pair % SPECIALS];
    for (uint32_t i = 0; i < 2 * FIXTURE_HEADS * 3; i++)
        memset(fixture_element(f, i & 1, i / 2 % FIXTURE_HEADS, i / (2 * FIXTURE_HEADS) * 16), 0,
               2 * f->tile_elements);
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t i = 0; i < n; i++) {
            fixture_element(f, kv, 0, 3)[i] = i == 5 ? a : b;
            fixture_element(f, kv, 0, 20)[i] = i == n - 1 ? a : b;
            fixture_element(f, kv, 0, 40)[i] = a;
            fixture_element(f, kv, 1, 3)[i] = i & 1 ? a : b;
        }
        fixture_element(f, kv, 2, 17)[n / 2] = a;
        fixture_element(f, kv, 2, 17)[n / 2 + 1] = b;
    }
}

static struct outcome special_level(const char *codec, uint32_t head_dim, enum ts_dtype dtype)
{
    struct fixture f;
    struct outcome result = {0};
    fixture_init(&f, codec, dtype, head_dim);
    fixture_rotate(&f);
    f.chunk.token_count = 48;
    uint32_t step = groups_total < GROUPS_WHOLE ? 5 : 1; /* each value meets several others, or all */
    for (uint32_t pair = 0; pair < SPECIALS * SPECIALS; pair += step) {
        fill_special(&f, dtype == TS_DTYPE_F16 ? specials_f16 : specials_bf16, pair);
        hash_pool(&f, &result);
        /* Nothing as it was: no infinity comes of it. */
        for (uint32_t i = 0; f.escapes == 0 && f.codec.key.bits < 16 && i < head_dim; i++)
            assert_true(isfinite(fixture_widen(fixture_element(&f, 0, 0, 3)[i], dtype)) &&
                        isfinite(fixture_widen(fixture_element(&f, 0, 1, 3)[i], dtype)));
    }
    fixture_fini(&f);
    return result;
}

static void test_specials(void **state)
{
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t head_dim = k & 1 ? 128 : 64;
            enum ts_dtype dtype = k & 2 ? TS_DTYPE_BF16 : TS_DTYPE_F16;
            assert_int_equal(ts_codec_set_level("scalar"), TS_OK);
            struct outcome expected = special_level(ts_codec_preset(c), head_dim, dtype);
            for (size_t i = 0; i < 3; i++) {
                if (ts_codec_set_level(names[i]) != TS_OK)
                    continue;
                struct outcome got = special_level(ts_codec_preset(c), head_dim, dtype);
                if (got.escapes != expected.escapes || got.hash != expected.hash)
                    fail_msg("%s, head_dim %u, %s: %s differs from scalar", ts_codec_preset(c), head_dim,
                             ts_dtype_name(dtype), names[i]);
            }
        }
    }
}

/* --- parameters that no data has led to --- */

/* A scale and a minimum so many binary orders apart, 13 at most either way; some of them 0. */
static void draw_parameters(struct ts_rng *rng, uint16_t *scale, uint16_t *minimum)
{
    uint64_t word = ts_rng_u64(rng);
    uint32_t e = 1 + (uint32_t)ts_rng_below(rng, 19), apart = (uint32_t)ts_rng_below(rng, 27);
    uint32_t other = e + apart < 13 ? 0 : e + apart - 13;
    *scale = (uint16_t)((word & 0x3ff) | e << 10);
    *minimum = (uint16_t)((word >> 16 & 0x83ff) | (other > 25 ? 25 : other) << 10);
    if (word >> 32 & 15)
        return;
    *scale = word >> 36 & 1 ? 0 : *scale & 0x3ff;
    *minimum = word >> 37 & 1 ? *minimum & 0x8000 : *minimum;
}

/* The payload of a pool of zeros with other parameters and codes. */
static void draw_payload(struct fixture *f, struct ts_rng *rng)
{
    struct codec_layout l = codec_layout_of(&f->codec, fixture_cache(f), &f->chunk);
    size_t groups = (size_t)FIXTURE_HEADS * f->chunk.token_count * f->view.head_dim / 64;
    for (uint32_t kv = 0; kv < 2; kv++) {
        uint16_t *scales = (uint16_t *)(void *)(f->payload + l.sides[kv].scales);
        uint16_t *minima = (uint16_t *)(void *)(f->payload + l.sides[kv].minima);
        for (size_t i = 0; i < groups; i++)
            draw_parameters(rng, &scales[i], &minima[i]);
        for (size_t i = 0; i < groups * 32; i++)
            f->payload[l.sides[kv].codes + i] = /* any, or 14 and 15 for large sums */
                (uint8_t)((i / 32 % 4 ? 0 : 0xee) | ts_rng_u64(rng));
    }
}

static uint64_t restored_hash(struct fixture *f, const char *level)
{
    if (ts_codec_set_level(level) != TS_OK)
        return 0;
    memset(f->view.pool, 0x55, f->pool_bytes);
    assert_int_equal(fixture_decode(f), TS_OK);
    return ts_hash64(f->view.pool, f->pool_bytes, 1);
}

static void test_parameters(void **state)
{
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    (void)state;
    for (uint32_t k = 0; k < 40; k++) {
        struct fixture f;
        fixture_init(&f, "i4h", k & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16, k & 2 ? 128 : 64);
        f.codec.raw_tokens = 0;
        f.chunk.token_count = 48 - k % 5;
        fixture_encode(&f);
        draw_payload(&f, &rng);
        uint64_t expected = restored_hash(&f, "scalar");
        for (size_t i = 0; i < 3; i++) {
            uint64_t got = restored_hash(&f, names[i]);
            assert_true(got == 0 || got == expected);
        }
        fixture_fini(&f);
    }
}

/* --- damaged payloads without loss: one verdict at all levels, and one result --- */

static void damage(struct fixture *f, struct ts_rng *rng)
{
    for (size_t flips = 1 + ts_rng_below(rng, 3); flips > 0; flips--) {
        size_t at = (size_t)ts_rng_below(rng, f->bytes);
        f->payload[at] = (uint8_t)ts_rng_u64(rng);
    }
}

static void compare_verdicts(struct fixture *f)
{
    uint8_t *pool = ts_xmalloc(f->pool_bytes);
    assert_int_equal(ts_codec_set_level("scalar"), TS_OK);
    memset(f->view.pool, 0x55, f->pool_bytes);
    enum ts_status verdict = fixture_decode(f);
    memcpy(pool, f->view.pool, f->pool_bytes);
    for (size_t i = 0; i < 3; i++) {
        if (ts_codec_set_level(names[i]) != TS_OK)
            continue;
        memset(f->view.pool, 0x55, f->pool_bytes);
        assert_int_equal(fixture_decode(f), verdict);
        assert_memory_equal(f->view.pool, pool, f->pool_bytes);
    }
    ts_free(pool);
}

static void test_verdicts(void **state)
{
    struct ts_rng rng;
    ts_rng_init(&rng, 6);
    (void)state;
    for (uint32_t k = 0; k < 4; k++) {
        struct fixture f;
        fixture_init(&f, "lz16", k & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16, k & 2 ? 128 : 64);
        f.chunk.token_count = 9;
        fixture_random(&f, k);
        for (size_t i = 0; i < f.pool_bytes / 2; i += 1 + (size_t)ts_rng_below(&rng, 40))
            ((uint16_t *)(void *)f.view.pool)[i] &= 0x83ff; /* small ones: exceptions */
        fixture_encode(&f);
        uint8_t *whole = ts_xmalloc(f.bytes);
        memcpy(whole, f.payload, f.bytes);
        for (uint32_t round = 0; round < 400; round++) {
            compare_verdicts(&f);
            memcpy(f.payload, whole, f.bytes);
            damage(&f, &rng);
        }
        ts_free(whole);
        fixture_fini(&f);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_specials),
                                       cmocka_unit_test(test_parameters), cmocka_unit_test(test_verdicts)};
    if (argc > 1)
        groups_total = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
