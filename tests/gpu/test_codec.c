#include <fenv.h>
#include <math.h>

#include "tests/gpu/codec_fixture.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const char *const level_names[] = {"scalar", "avx2", "avx512", "avx512bf16"};

/* Calls the check once per level that this processor has. */
static void at_each_level(void (*check)(void))
{
    for (size_t i = 0; i < 3; i++) {
        if (ts_codec_set_level(level_names[i]) == TS_OK)
            check();
    }
}

/* Values 0..15 twice the group over: minimum 0, scale 1, code = value. */
static void check_hand(void)
{
    struct fixture f;
    fixture_init(&f, "i4", TS_DTYPE_F16, 64);
    f.chunk.token_count = 1;
    f.chunk.head_count = 1;
    for (uint32_t i = 0; i < 64; i++)
        fixture_element(&f, 0, 0, 0)[i] = codec_f32_to_f16((float)(i % 16));
    fixture_encode(&f);
    /* 16 bitmap; of keys and of values a scale and a minimum, each section filled up, and 32 bytes of codes.
     */
    assert_int_equal(f.bytes, 16 + 2 * 16 + 2 * 16 + 2 * 32);
    const uint16_t *scales = (const uint16_t *)(f.payload + 16);
    assert_int_equal(scales[0], 0x3c00);
    assert_int_equal(scales[1], 0);
    for (uint32_t i = 0; i < 32; i++)
        assert_int_equal(f.payload[80 + i], (i % 16) * 17);
    assert_int_equal(fixture_decode(&f), TS_OK);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(fixture_element(&f, 0, 0, 0)[i], codec_f32_to_f16((float)(i % 16)));
    fixture_fini(&f);
}

static void test_hand(void **state)
{
    (void)state;
    at_each_level(check_hand);
}

/* One row of a tile holds `low` once and `high` elsewhere: how many tiles escape? */
static uint32_t escapes_of(enum ts_dtype dtype, uint16_t low, uint16_t high)
{
    struct fixture f;
    fixture_init(&f, "i4", dtype, 64);
    f.chunk.token_count = 16;
    f.chunk.head_count = 1;
    for (uint32_t i = 0; i < 64; i++)
        fixture_element(&f, 0, 0, 5)[i] = i == 40 ? low : high;
    fixture_encode(&f);
    assert_int_equal(fixture_decode(&f), TS_OK);
    for (uint32_t i = 0; i < 64; i++)
        assert_true(isfinite(fixture_widen(fixture_element(&f, 0, 0, 5)[i], dtype)) || f.escapes);
    fixture_fini(&f);
    return f.escapes;
}

static void check_escapes(void)
{
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0, 0x7bfe), 0);       /* 65472: 15 * 4364 */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0, 0x7bff), 1);       /* 65504: 15 * 4368 rounds to infinity */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0xfbff, 0x7bff), 1);  /* the whole range */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0, 0x7e00), 1);       /* NaN */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0xfc00, 0), 1);       /* -infinity */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0x8000, 0), 0);       /* -0 */
    assert_int_equal(escapes_of(TS_DTYPE_F16, 0, 1), 0);            /* least subnormal */
    assert_int_equal(escapes_of(TS_DTYPE_BF16, 0, 0x4780), 0);      /* 65536: scale fits */
    assert_int_equal(escapes_of(TS_DTYPE_BF16, 0x4780, 0x4780), 1); /* 65536 as minimum does not */
    assert_int_equal(escapes_of(TS_DTYPE_BF16, 0, 0x7f7f), 1);      /* scale overflows */
    assert_int_equal(escapes_of(TS_DTYPE_BF16, 0, 0x7fc0), 1);
    assert_int_equal(escapes_of(TS_DTYPE_BF16, 1, 2), 0); /* far below fp16: restored as zero */
}

static void test_escapes(void **state)
{
    (void)state;
    at_each_level(check_escapes);
}

/* Every range up to 65504 with a scale that rounds up: none may restore to infinity without an escape. */
static void check_top(void)
{
    uint32_t escaped = 0;
    for (uint16_t low = 0xf000; low < 0xfc00; low = (uint16_t)(low + 7))
        escaped += escapes_of(TS_DTYPE_F16, low, 0x7bff);
    assert_true(escaped > 0);
}

static void test_top_restores_finite(void **state)
{
    (void)state;
    at_each_level(check_top);
}

static void check_float_mode(void)
{
    struct fixture f;
    fixture_init(&f, "i4", TS_DTYPE_F16, 128);
    fixture_random(&f, 7);
    for (uint32_t i = 0; i < 128; i++)
        fixture_element(&f, 0, 0, 0)[i] = (uint16_t)(i & 31); /* subnormal parameters */
    fixture_encode(&f);
    uint8_t *expected = ts_xmalloc(f.bytes);
    memcpy(expected, f.payload, f.bytes);
    int before = fegetround();
    fesetround(FE_UPWARD);
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ, DAZ */
    unsigned int asked = _mm_getcsr() & 0xffc0;
#endif
    fixture_encode(&f);
    assert_int_equal(fixture_decode(&f), TS_OK);
    assert_int_equal(fegetround(), FE_UPWARD);
#if defined(__x86_64__)
    assert_int_equal(_mm_getcsr() & 0xffc0, asked);
    _mm_setcsr(0x1f80);
#endif
    fesetround(before);
    assert_memory_equal(f.payload, expected, f.bytes);
    uint8_t *pool = ts_xmalloc(f.pool_bytes);
    memcpy(pool, f.view.pool, f.pool_bytes);
    assert_int_equal(fixture_decode(&f), TS_OK);
    assert_memory_equal(f.view.pool, pool, f.pool_bytes);
    ts_free(pool);
    ts_free(expected);
    fixture_fini(&f);
}

static void test_float_mode(void **state)
{
    (void)state;
    at_each_level(check_float_mode);
}

/* A received frame lies wherever the socket library put it. */
static void check_any_address(void)
{
    static const char *const codecs[] = {"none", "i4"};
    for (size_t c = 0; c < sizeof codecs / sizeof *codecs; c++) {
        struct fixture f;
        uint64_t want[FIXTURE_HEADS] = {0};
        fixture_init(&f, codecs[c], TS_DTYPE_BF16, 64);
        fixture_random(&f, 11);
        fixture_element(&f, 0, 1, 20)[3] = 0x7f80; /* infinite: one tile escapes */
        fixture_encode(&f);
        assert_int_equal(fixture_decode(&f), TS_OK);
        assert_int_equal(ts_codec_digest(&f.codec, fixture_cache(&f), f.payload, f.bytes, &f.chunk, want),
                         TS_OK);
        uint8_t *pool = ts_xmalloc(f.pool_bytes), *moved = ts_xmalloc(f.bytes + 3);
        memcpy(pool, f.view.pool, f.pool_bytes);
        for (size_t shift = 1; shift <= 3; shift++) {
            uint64_t got[FIXTURE_HEADS] = {0};
            memcpy(moved + shift, f.payload, f.bytes);
            memset(f.view.pool, 0, f.pool_bytes);
            assert_int_equal(ts_codec_decode(&f.codec, moved + shift, f.bytes, &f.chunk, &f.view), TS_OK);
            assert_memory_equal(f.view.pool, pool, f.pool_bytes);
            assert_int_equal(
                ts_codec_digest(&f.codec, fixture_cache(&f), moved + shift, f.bytes, &f.chunk, got), TS_OK);
            assert_memory_equal(got, want, sizeof got);
        }
        ts_free(pool);
        ts_free(moved);
        fixture_fini(&f);
    }
}

static void test_any_address(void **state)
{
    (void)state;
    at_each_level(check_any_address);
}

/* Sets payload[at] to `value`; the payload must then be refused and the pool untouched. */
static void refused(struct fixture *f, size_t at, uint8_t value)
{
    uint8_t was = f->payload[at];
    uint64_t digests[FIXTURE_HEADS] = {0};
    uint8_t *pool = ts_xmalloc(f->pool_bytes);
    memcpy(pool, f->view.pool, f->pool_bytes);
    assert_int_not_equal(was, value);
    f->payload[at] = value;
    assert_int_equal(fixture_decode(f), TS_ECORRUPT);
    assert_int_equal(ts_codec_digest(&f->codec, fixture_cache(f), f->payload, f->bytes, &f->chunk, digests),
                     TS_ECORRUPT);
    f->payload[at] = was;
    assert_memory_equal(f->view.pool, pool, f->pool_bytes);
    ts_free(pool);
}

static void test_hostile(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f, "i4", TS_DTYPE_F16, 32);
    fixture_random(&f, 3);
    f.chunk.head_count = 1;
    f.chunk.token_count = 16;
    fixture_element(&f, 1, 0, 0)[0] = 0x7c00; /* tile 1 escapes */
    fixture_encode(&f);
    assert_int_equal(f.escapes, 1);
    assert_int_equal(f.bytes, 16 + 64 + 64 + 512 + 1024);
    assert_int_equal(fixture_decode(&f), TS_OK);
    refused(&f, 0, 0);         /* fewer escapes than bytes */
    refused(&f, 0, 3);         /* more */
    refused(&f, 0, 4);         /* a bit beyond the tiles */
    refused(&f, 1, 1);         /* padding of the bitmap */
    refused(&f, 16 + 1, 0x80); /* a negative scale */
    refused(&f, 16 + 1, 0x7c); /* an infinite or NaN one */
    refused(&f, 16 + 32, 1);   /* a scale of the escaped tile */
    refused(&f, 80 + 1, 0x7c); /* a minimum that is not finite */
    refused(&f, 80 + 1, 0xfc);
    refused(&f, 80 + 33, 1);        /* a minimum of the escaped tile */
    refused(&f, 144 + 256 + 17, 1); /* its codes */
    for (size_t cut = 0; cut < f.bytes; cut += 13)
        assert_int_equal(ts_codec_decode(&f.codec, f.payload, cut, &f.chunk, &f.view), TS_ECORRUPT);
    fixture_fini(&f);
}

static void test_padding_refused(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f, "i4", TS_DTYPE_F16, 32);
    f.codec.key.group = f.codec.value.group = 32;
    f.chunk.head_count = 1;
    f.chunk.token_count = 40; /* 6 tiles: 1 byte of bitmap, 15 of padding */
    fixture_random(&f, 3);
    fixture_encode(&f);
    for (size_t i = 1; i < 16; i++)
        refused(&f, i, 0x10);
    fixture_fini(&f);
}

static void test_check(void **state)
{
    struct ts_codec none, i4;
    (void)state;
    assert_int_equal(ts_codec_parse("none", &none, NULL), TS_OK);
    assert_int_equal(ts_codec_parse("i4", &i4, NULL), TS_OK);
    assert_int_equal(ts_codec_parse("i5", &i4, NULL), TS_EUNSUPPORTED);
    assert_int_equal(ts_codec_check(&none, 100, NULL), TS_OK);
    for (uint32_t head_dim = 16; head_dim <= 1024; head_dim += 16)
        assert_int_equal(ts_codec_check(&i4, head_dim, NULL), TS_OK);
    assert_int_equal(ts_codec_check(&i4, 1040, NULL), TS_EUNSUPPORTED);
    assert_int_equal(ts_codec_check(&none, 1025, NULL), TS_EUNSUPPORTED);
    assert_int_equal(ts_codec_check(&i4, 0, NULL), TS_EUNSUPPORTED);
    assert_int_equal(ts_codec_check(&i4, 72, NULL), TS_EUNSUPPORTED);
    for (uint32_t group = 0; group < 65536; group++) {
        i4.key.group = i4.value.group = (uint16_t)group;
        bool sane = group == 16 || group == 32 || group == 64 || group == 128 || group == 256;
        assert_int_equal(ts_codec_check(&i4, 1024, NULL), sane ? TS_OK : TS_EUNSUPPORTED);
    }
    i4.key.flags = i4.value.flags = 0;
    i4.key.group = i4.value.group = 128;
    assert_int_equal(ts_codec_check(&i4, 1024, NULL), TS_OK);
    i4.value.group = 256; /* could restore to infinity */
    assert_int_equal(ts_codec_check(&i4, 1024, NULL), TS_EUNSUPPORTED);
    none.key.group = 64;
    assert_int_equal(ts_codec_check(&none, 64, NULL), TS_EUNSUPPORTED);
    none.key.group = 0;
    none.raw_tokens = 17;
    assert_int_equal(ts_codec_check(&none, 64, NULL), TS_EUNSUPPORTED);
}

/* Every combination of bits and flags that a side can claim: those that exist, no other. */
static void test_check_sides(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 256; bits++) {
        for (uint32_t flags = 0; flags < 256; flags++) {
            struct ts_codec_side side = {(uint8_t)bits, (uint8_t)flags, bits == 16 ? 0 : 64},
                                 raw = {16, 0, 0};
            struct ts_codec as_key = {.key = side, .value = raw}, as_value = {.key = raw, .value = side};
            uint32_t values = bits == 16  ? TS_CODEC_LOSSLESS
                              : bits == 8 ? TS_CODEC_HADAMARD
                              : bits == 4 ? TS_CODEC_HADAMARD | TS_CODEC_ASYM
                                          : 0;
            uint32_t keys = values | (bits == 4 || bits == 8 ? TS_CODEC_CENTRE : 0);
            bool known = bits == 4 || bits == 8 || bits == 16;
            assert_int_equal(ts_codec_check(&as_key, 64, NULL) == TS_OK, known && (flags & ~keys) == 0);
            assert_int_equal(ts_codec_check(&as_value, 64, NULL) == TS_OK, known && (flags & ~values) == 0);
        }
    }
}

static size_t bytes_of(const struct ts_codec *codec, uint32_t head_dim, uint32_t tokens)
{
    struct ts_codec_chunk chunk = {.head_count = 1, .token_count = tokens};
    return ts_codec_bytes(codec, (struct ts_codec_cache){head_dim, TS_DTYPE_F16}, &chunk, 0);
}

/* 96 = 3 * 32: groups of 32, 3 per token; 128 holds two of 64. */
static void test_group_in_effect(void **state)
{
    struct ts_codec i4;
    (void)state;
    assert_int_equal(ts_codec_parse("i4", &i4, NULL), TS_OK);
    assert_int_equal(bytes_of(&i4, 96, 16), 16 + 2 * (2 * 48 * 2) + 2 * 768);
    assert_int_equal(bytes_of(&i4, 128, 16), 16 + 2 * (2 * 32 * 2) + 2 * 1024);
    assert_int_equal(bytes_of(&i4, 256, 16), 16 + 2 * (2 * 64 * 2) + 2 * 2048);
}

static void test_shape(void **state)
{
    struct ts_codec none;
    const struct ts_codec_cache cache = {128, TS_DTYPE_F16};
    uint64_t digest = 0;
    uint8_t byte = 0;
    (void)state;
    assert_int_equal(ts_codec_parse("none", &none, NULL), TS_OK);
    const struct ts_codec_chunk bad[] = {
        {.head_count = 1, .token_count = UINT32_MAX, .token_begin = 16},
        {.head_count = 1, .token_count = 16, .token_begin = 8},
        {.head_count = UINT32_MAX, .token_count = 16},
        {.head_count = 1u << 28, .token_count = 1u << 31},
        {.head_begin = UINT32_MAX, .head_count = 2, .token_count = 16},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(ts_codec_shape_ok(&none, 128, &bad[i]));
        assert_int_equal(ts_codec_digest(&none, cache, &byte, 0, &bad[i], &digest), TS_ECORRUPT);
    }
    const struct ts_codec_chunk big = {.head_count = 1, .token_count = UINT32_MAX};
    assert_true(ts_codec_shape_ok(&none, 128, &big));
    assert_int_equal(ts_codec_bytes_max(&none, cache, &big), (uint64_t)UINT32_MAX * 128 * 2 * 2);
    assert_int_equal(ts_codec_digest(&none, cache, &byte, 0, &big, &digest), TS_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hand),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_top_restores_finite),
        cmocka_unit_test(test_float_mode),
        cmocka_unit_test(test_any_address),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_padding_refused),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_check_sides),
        cmocka_unit_test(test_group_in_effect),
        cmocka_unit_test(test_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
