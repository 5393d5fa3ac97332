/* What each preset promises: size, accuracy, what is exact, that cuts do not matter, that damage is seen. */
#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "tests/gpu/codec_fixture.h"

/* --- size --- */

/* Protobuf envelope and chunk message with all fields at their largest. */
#define FRAME_BYTES 128

/* Bits on the wire for each element of keys and values, in chunks of one layer and up to 512 tokens. */
static double effective_bits(const char *name, uint32_t head_dim, uint32_t heads, uint32_t tokens)
{
    struct ts_codec codec;
    size_t bytes = 0;
    assert_int_equal(ts_codec_parse(name, &codec, NULL), TS_OK);
    for (uint32_t at = 0; at < tokens; at += 512) {
        struct ts_codec_chunk chunk = {
            .head_count = heads, .token_begin = at, .token_count = tokens - at < 512 ? tokens - at : 512};
        bytes +=
            FRAME_BYTES + ts_codec_bytes(&codec, (struct ts_codec_cache){head_dim, TS_DTYPE_BF16}, &chunk, 0);
    }
    return 8.0 * (double)bytes / (2.0 * heads * tokens * head_dim);
}

static void test_effective_bits(void **state)
{
    static const struct {
        const char *name;
        double most;
    } bounds[] = {{"none", 16.03}, {"i8", 8.30},  {"i4", 4.55},    {"i4h", 4.55},
                  {"i4hs", 4.55},  {"i4hc", 4.6}, {"k8v4h", 6.45}, {"lz16", 12.15}};
    static const uint32_t lengths[] = {512, 513, 520, 528, 700, 1024, 1025, 2048, 8192, 8201};
    (void)state;
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        for (size_t t = 0; t < sizeof lengths / sizeof *lengths; t++) {
            for (uint32_t head_dim = 64; head_dim <= 128; head_dim *= 2) {
                for (uint32_t heads = 3; heads <= 12; heads += 3) {
                    double bits = effective_bits(bounds[b].name, head_dim, heads, lengths[t]);
                    if (bits > bounds[b].most)
                        fail_msg("%s, %u heads of %u, %u tokens: %.4f bits", bounds[b].name, heads, head_dim,
                                 lengths[t], bits);
                }
            }
        }
    }
}

/* --- accuracy --- */

enum cache_kind { GAUSSIAN, OUTLIERS, BIASED };

/* Keys as in kernels.md 1.3: unit normal; four channels of mean 9; three of bias 150 and one of 60. Rotated
 * by position. */
static void fill_cache(struct fixture *f, enum cache_kind kind)
{
    struct ts_rng rng;
    uint32_t n = f->view.head_dim, half = n / 2;
    ts_rng_init(&rng, 5);
    for (uint32_t head = 0; head < FIXTURE_HEADS; head++) {
        for (uint32_t token = 0; token < 16 * FIXTURE_BLOCKS; token++) {
            float x[CODEC_DIM_MAX];
            for (uint32_t i = 0; i < n; i++) {
                x[i] = (float)ts_rng_normal(&rng);
                bool chosen = i % (n / 4) == head + 1;
                x[i] += !chosen ? 0 : kind == OUTLIERS ? 9 : kind == BIASED ? (i < n / 4 ? 60 : 150) : 0;
                fixture_element(f, 1, head, token)[i] =
                    fixture_narrow((float)ts_rng_normal(&rng), f->view.dtype);
            }
            for (uint32_t i = 0; i < half; i++) {
                double angle = token * pow(500000.0, -2.0 * i / n), c = cos(angle), s = sin(angle);
                fixture_element(f, 0, head, token)[i] =
                    fixture_narrow((float)(x[i] * c - x[i + half] * s), f->view.dtype);
                fixture_element(f, 0, head, token)[i + half] =
                    fixture_narrow((float)(x[i + half] * c + x[i] * s), f->view.dtype);
            }
        }
    }
}

static void rotate_as_filled(struct fixture *f)
{
    float frequencies[CODEC_DIM_MAX / 2];
    for (uint32_t i = 0; i < f->view.head_dim / 2; i++)
        frequencies[i] = (float)pow(500000.0, -2.0 * i / f->view.head_dim);
    f->view.rope = f->rope = ts_codec_rope_new(frequencies, f->view.head_dim);
}

/* Root mean square error of keys (kv 0) or values. */
static double error_of(const char *codec, enum cache_kind kind, uint32_t kv)
{
    struct fixture f;
    double sum = 0;
    fixture_init(&f, codec, TS_DTYPE_F16, 128);
    rotate_as_filled(&f);
    fill_cache(&f, kind);
    fixture_encode(&f);
    assert_int_equal(f.escapes, 0);
    uint16_t *was = ts_xmalloc(f.pool_bytes);
    memcpy(was, f.view.pool, f.pool_bytes);
    memset(f.view.pool, 0, f.pool_bytes);
    assert_int_equal(fixture_decode(&f), TS_OK);
    for (uint32_t head = 0; head < FIXTURE_HEADS; head++) {
        for (uint32_t token = 0; token < 16 * FIXTURE_BLOCKS; token++) {
            const uint16_t *at = fixture_element(&f, kv, head, token);
            const uint16_t *from = was + (at - (uint16_t *)(void *)f.view.pool);
            for (uint32_t i = 0; i < 128; i++) {
                double error = fixture_widen(at[i], TS_DTYPE_F16) - fixture_widen(from[i], TS_DTYPE_F16);
                sum += error * error;
            }
        }
    }
    ts_free(was);
    fixture_fini(&f);
    return sqrt(sum / (FIXTURE_HEADS * 16.0 * FIXTURE_BLOCKS * 128));
}

/* Sixteen steps over the range of 64 normal numbers, 4.75 on average (Tippett 1925), give 4.75 / 15 /
 * sqrt(12) = 0.091 and centring keeps that where keys have outliers or biases; the transform alone spreads
 * them, and plain groups suffer from them. */
static void test_accuracy(void **state)
{
    static const struct {
        const char *codec;
        enum cache_kind kind;
        uint32_t kv;
        double least, most;
    } table[] = {{"i4", GAUSSIAN, 0, .085, .097},    {"i4h", GAUSSIAN, 0, .085, .097},
                 {"i4hs", GAUSSIAN, 0, .08, .095},   {"i8", GAUSSIAN, 0, .005, .008},
                 {"i4hc", GAUSSIAN, 0, .085, .097},  {"i4", OUTLIERS, 0, .25, .35},
                 {"i4h", OUTLIERS, 0, .12, .18},     {"i4hs", OUTLIERS, 0, .11, .17},
                 {"i4hc", OUTLIERS, 0, .085, .097},  {"i4", BIASED, 0, 3, 7},
                 {"i4h", BIASED, 0, 1, 2},           {"i4hc", BIASED, 0, .085, .1},
                 {"k8v4h", BIASED, 0, .05, .13},     {"i4h", GAUSSIAN, 1, .085, .097},
                 {"k8v4h", GAUSSIAN, 1, .085, .097}, {"i4hc", BIASED, 1, .085, .097}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double error = error_of(table[i].codec, table[i].kind, table[i].kv);
        if (error > table[i].most || error < table[i].least)
            fail_msg("%s, kind %d, %s: rms error %.4f, not between %.4f and %.4f", table[i].codec,
                     (int)table[i].kind, table[i].kv ? "values" : "keys", error, table[i].least,
                     table[i].most);
    }
}

/* --- what is exact --- */

static void check_lossless(enum ts_dtype dtype, uint32_t head_dim)
{
    struct fixture f;
    struct ts_rng rng;
    fixture_init(&f, "lz16", dtype, head_dim);
    ts_rng_init(&rng, head_dim);
    uint16_t *pool = (uint16_t *)(void *)f.view.pool, *was = ts_xmalloc(f.pool_bytes);
    for (uint32_t round = 0; round < 4; round++) {
        fixture_random(&f, round);
        for (size_t i = 0; round > 0 && i < f.pool_bytes / 2; i += ts_rng_below(&rng, 1u << 3 * round) + 1)
            pool[i] = (uint16_t)ts_rng_u64(&rng); /* anything: NaN, infinities, subnormals, zeros */
        memcpy(was, pool, f.pool_bytes);
        fixture_encode(&f);
        double bits = 16.0 * (double)f.bytes / (double)f.pool_bytes;
        if (round == 0)
            assert_true(bits < (dtype == TS_DTYPE_F16 ? 14.6 : 12.2));
        memset(pool, 0, f.pool_bytes);
        assert_int_equal(fixture_decode(&f), TS_OK);
        assert_memory_equal(pool, was, f.pool_bytes);
    }
    ts_free(was);
    fixture_fini(&f);
}

static void test_lossless(void **state)
{
    (void)state;
    for (uint32_t head_dim = 48; head_dim <= 144; head_dim += 16) {
        check_lossless(TS_DTYPE_F16, head_dim);
        check_lossless(TS_DTYPE_BF16, head_dim);
    }
}

/* Token 0 comes through as it is, also where its tile escapes, and what it holds changes no other byte. */
static void test_first_token(void **state)
{
    static const char *const codecs[] = {"i4h", "i4hs", "i4hc", "k8v4h"};
    (void)state;
    for (size_t c = 0; c < 4; c++) {
        struct fixture f;
        uint32_t differ = 0;
        fixture_init(&f, codecs[c], TS_DTYPE_F16, 64);
        fixture_rotate(&f);
        fixture_random(&f, 9);
        fixture_encode(&f);
        uint8_t *before = ts_xmalloc(f.bytes);
        size_t bytes = f.bytes;
        memcpy(before, f.payload, bytes);
        for (uint32_t i = 0; i < 64; i++)
            fixture_element(&f, 0, 1, 0)[i] = (uint16_t)(0x7c00 - i); /* infinity among it */
        fixture_encode(&f);
        assert_int_equal(f.bytes, bytes);
        for (size_t i = 0; i < bytes; i++)
            differ += f.payload[i] != before[i];
        assert_in_range(differ, 64, 128);
        memset(f.view.pool, 0, f.pool_bytes);
        assert_int_equal(fixture_decode(&f), TS_OK);
        for (uint32_t i = 0; i < 64; i++)
            assert_int_equal(fixture_element(&f, 0, 1, 0)[i], 0x7c00 - i);
        ts_free(before);
        fixture_fini(&f);
    }
}

/* The bytes of today, whatever compiler and processor: a change here is a change of the format. */
static void test_format(void **state)
{
    static const struct {
        const char *codec;
        uint64_t f16, bf16;
    } known[] = {{"none", 0x081b39bce6279077ULL, 0xc998237b7ec77c6bULL},
                 {"lz16", 0x9f32365b8aaa1253ULL, 0xe5b4dfd245051d57ULL},
                 {"i8", 0xc03acc5cf924e7e5ULL, 0x7b3132a44e3fcd82ULL},
                 {"i4", 0x7f9eab6241be5669ULL, 0x47f8dd19991ed5c1ULL},
                 {"i4h", 0x004c52026847ed43ULL, 0xd34197361d2da96eULL},
                 {"i4hs", 0x0de8f0d11a64ba2aULL, 0x3c1e4609c6d08f20ULL},
                 {"i4hc", 0x8ef2dad07567a0b1ULL, 0x87de0f260932fb77ULL},
                 {"k8v4h", 0x04965d5f266da266ULL, 0x2b3523d6b54d87bfULL}};
    (void)state;
    for (size_t c = 0; c < sizeof known / sizeof *known; c++) {
        for (int t = 0; t < 2; t++) {
            struct fixture f;
            fixture_init(&f, known[c].codec, t ? TS_DTYPE_BF16 : TS_DTYPE_F16, 64);
            fixture_rotate(&f);
            fixture_random(&f, 6);
            fixture_element(&f, 1, 1, 33)[0] = 0x7fff;
            f.chunk.token_count -= 9;
            fixture_encode(&f);
            uint64_t hash = ts_hash64(f.payload, f.bytes, 0);
            if (hash != (t ? known[c].bf16 : known[c].f16))
                fail_msg("%s, %s: other bytes than before, hash 0x%016llx", known[c].codec,
                         ts_dtype_name(f.view.dtype), (unsigned long long)hash);
            fixture_fini(&f);
        }
    }
}

/* --- cuts --- */

/* A transfer in chunks of other heads and tokens restores the same numbers and has the same digests. */
static void test_cuts(void **state)
{
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        struct fixture f;
        uint64_t whole[FIXTURE_HEADS] = {0}, parts[FIXTURE_HEADS] = {0};
        fixture_init(&f, ts_codec_preset(c), TS_DTYPE_BF16, 64);
        fixture_rotate(&f);
        fixture_random(&f, 4);
        fixture_element(&f, 1, 2, 70)[9] = 0x7f80;
        f.chunk.token_count -= 5;
        uint8_t *was = ts_xmalloc(f.pool_bytes), *expected = ts_xmalloc(f.pool_bytes);
        memcpy(was, f.view.pool, f.pool_bytes);
        fixture_encode(&f);
        assert_int_equal(fixture_decode(&f), TS_OK);
        assert_int_equal(ts_codec_digest(&f.codec, fixture_cache(&f), f.payload, f.bytes, &f.chunk, whole),
                         TS_OK);
        memcpy(expected, f.view.pool, f.pool_bytes);
        memcpy(f.view.pool, was, f.pool_bytes);
        uint32_t tokens = f.chunk.token_count, step = ts_codec_span(&f.codec);
        for (uint32_t head = 0; head < FIXTURE_HEADS; head += 2) {
            for (uint32_t at = 0; at < tokens; at += step) {
                f.chunk = (struct ts_codec_chunk){.head_begin = head,
                                                  .head_count = head + 2 < FIXTURE_HEADS ? 2 : 1,
                                                  .token_begin = at,
                                                  .token_count = tokens - at < step ? tokens - at : step};
                fixture_encode(&f);
                assert_int_equal(fixture_decode(&f), TS_OK);
                assert_int_equal(
                    ts_codec_digest(&f.codec, fixture_cache(&f), f.payload, f.bytes, &f.chunk, parts + head),
                    TS_OK);
            }
        }
        assert_memory_equal(parts, whole, sizeof whole);
        assert_memory_equal(f.view.pool, expected, f.pool_bytes);
        ts_free(was);
        ts_free(expected);
        fixture_fini(&f);
    }
}

/* --- damage --- */

static uint8_t *exact_copy(const void *data, size_t bytes)
{
    uint8_t *copy = ts_xmalloc(bytes ? bytes : 1);
    memcpy(copy, data, bytes);
    return copy;
}

/* Any changed byte is refused, or changes the digest; nothing is read or written beyond its bounds. */
static void test_damage(void **state)
{
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        struct fixture f;
        struct ts_rng rng;
        fixture_init(&f, ts_codec_preset(c), TS_DTYPE_F16, 64);
        fixture_rotate(&f);
        fixture_random(&f, 4);
        fixture_element(&f, 0, 1, 290)[3] = 0x7e00;
        f.chunk.token_count -= 3;
        fixture_encode(&f);
        uint64_t whole[FIXTURE_HEADS] = {0};
        assert_int_equal(ts_codec_digest(&f.codec, fixture_cache(&f), f.payload, f.bytes, &f.chunk, whole),
                         TS_OK);
        ts_rng_init(&rng, c);
        for (uint32_t i = 0; i < 400; i++) {
            uint64_t damaged[FIXTURE_HEADS] = {0};
            size_t at = i < 64 ? i : ts_rng_below(&rng, f.bytes);
            uint8_t bit = (uint8_t)(1u << ts_rng_below(&rng, 8));
            uint8_t *copy = exact_copy(f.payload, f.bytes); /* exact size, for the sanitizer */
            copy[at] ^= bit;
            if (ts_codec_digest(&f.codec, fixture_cache(&f), copy, f.bytes, &f.chunk, damaged) == TS_OK) {
                assert_memory_not_equal(damaged, whole, sizeof whole);
                assert_int_equal(ts_codec_decode(&f.codec, copy, f.bytes, &f.chunk, &f.view), TS_OK);
            } else {
                assert_int_equal(ts_codec_decode(&f.codec, copy, f.bytes, &f.chunk, &f.view), TS_ECORRUPT);
            }
            ts_free(copy);
        }
        for (size_t cut = 0; cut < f.bytes; cut += f.bytes / 50 + 1) {
            uint8_t *copy = exact_copy(f.payload, cut);
            assert_int_equal(ts_codec_decode(&f.codec, copy, cut, &f.chunk, &f.view), TS_ECORRUPT);
            ts_free(copy);
        }
        fixture_fini(&f);
    }
}

/* No tokens or no heads: an empty payload, or one of nothing but its bitmap. */
static void test_empty(void **state)
{
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        struct fixture f;
        uint64_t digest[FIXTURE_HEADS] = {0};
        fixture_init(&f, ts_codec_preset(c), TS_DTYPE_F16, 64);
        const struct ts_codec_chunk empty[] = {{.head_count = 2}, {.token_count = 40}};
        for (size_t i = 0; i < 2; i++) {
            f.chunk = empty[i];
            fixture_encode(&f);
            assert_int_equal(f.bytes, 0);
            assert_int_equal(fixture_decode(&f), TS_OK);
            assert_int_equal(
                ts_codec_digest(&f.codec, fixture_cache(&f), f.payload, f.bytes, &f.chunk, digest), TS_OK);
            assert_int_equal(digest[0], 0);
        }
        fixture_fini(&f);
    }
}

/* A pool that is not aligned for vectors, as a caller's own memory may be. */
static void test_unaligned_pool(void **state)
{
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        struct fixture f;
        fixture_init(&f, ts_codec_preset(c), TS_DTYPE_F16, 64);
        fixture_random(&f, 8);
        fixture_encode(&f);
        uint8_t *aligned = f.view.pool, *moved = ts_xmalloc(f.pool_bytes + 64);
        memcpy(moved + 16, aligned, f.pool_bytes);
        f.view.pool = moved + 16;
        assert_int_equal(fixture_decode(&f), TS_OK);
        f.view.pool = aligned;
        assert_int_equal(fixture_decode(&f), TS_OK);
        assert_memory_equal(aligned, moved + 16, f.pool_bytes);
        ts_free(moved);
        fixture_fini(&f);
    }
}

/* --- descriptions --- */

static void test_names(void **state)
{
    struct ts_codec codec;
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        assert_int_equal(ts_codec_parse(ts_codec_preset(c), &codec, NULL), TS_OK);
        assert_string_equal(ts_codec_name(&codec), ts_codec_preset(c));
        assert_int_equal(ts_codec_check(&codec, 128, NULL), TS_OK);
        assert_int_equal(ts_codec_span(&codec), strcmp(ts_codec_preset(c), "i4hc") == 0 ? 256 : 16);
    }
    codec.raw_tokens = 3;
    assert_string_equal(ts_codec_name(&codec), "custom");
}

static void test_short_prompts(void **state)
{
    struct ts_codec codec, got;
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        assert_int_equal(ts_codec_parse(ts_codec_preset(c), &codec, NULL), TS_OK);
        got = ts_codec_for_prompt(&codec, 31);
        assert_string_equal(ts_codec_name(&got),
                            codec.key.bits == 4 || codec.value.bits == 4 ? "i8" : ts_codec_preset(c));
        got = ts_codec_for_prompt(&codec, 32);
        assert_string_equal(ts_codec_name(&got), ts_codec_preset(c));
    }
}

static void test_overrides(void **state)
{
    static const struct ts_codec_override list[] = {{0, 8, 8}, {1, 16, 0}, {7, 0, 8}, {9, 4, 4}};
    struct ts_codec i4hc, none, got;
    (void)state;
    assert_int_equal(ts_codec_parse("i4hc", &i4hc, NULL), TS_OK);
    assert_int_equal(ts_codec_parse("none", &none, NULL), TS_OK);
    i4hc.layers = none.layers = (struct ts_codec_overrides){list, TS_ARRAY_SIZE(list)};
    got = ts_codec_for_layer(&i4hc, 0);
    assert_int_equal(got.key.bits, 8);
    assert_int_equal(got.key.flags, TS_CODEC_HADAMARD | TS_CODEC_CENTRE);
    assert_int_equal(got.value.bits, 8);
    got = ts_codec_for_layer(&i4hc, 1);
    assert_int_equal(got.key.bits, 16);
    assert_int_equal(got.value.bits, 4);
    got = ts_codec_for_layer(&i4hc, 2);
    assert_string_equal(ts_codec_name(&got), "i4hc");
    got = ts_codec_for_layer(&i4hc, 7);
    assert_int_equal(got.key.bits, 4);
    assert_int_equal(got.value.bits, 8);
    got = ts_codec_for_layer(&none, 9);
    assert_int_equal(got.key.flags, TS_CODEC_HADAMARD | TS_CODEC_ASYM);
    for (uint32_t layer = 0; layer < 10; layer++) {
        got = ts_codec_for_layer(&i4hc, layer);
        assert_int_equal(ts_codec_check(&got, 64, NULL), TS_OK);
    }
}

/* Just below the magnitude from which tiles escape, with signs that fool the quantiser: still finite. */
static void test_moved_stays_finite(void **state)
{
    static const char *const codecs[] = {"i8", "i4h", "i4hs", "i4hc", "k8v4h"};
    (void)state;
    for (size_t c = 0; c < 5; c++) {
        for (uint32_t head_dim = 64; head_dim <= 256; head_dim *= 2) {
            struct fixture f;
            struct ts_rng rng;
            fixture_init(&f, codecs[c], TS_DTYPE_F16, head_dim);
            fixture_rotate(&f);
            ts_rng_init(&rng, c);
            uint16_t *pool = (uint16_t *)(void *)f.view.pool;
            uint16_t most = strcmp(codecs[c], "i4hc") == 0 ? 0x63ff : 0x6bff;
            for (size_t i = 0; i < f.pool_bytes / 2; i++)
                pool[i] = ts_rng_below(&rng, 4) ? (uint16_t)(most | (ts_rng_u64(&rng) & 0x8000)) : 0;
            fixture_encode(&f);
            assert_true(f.escapes == 0 || head_dim == 256); /* parameters of long transforms may overflow */
            assert_int_equal(fixture_decode(&f), TS_OK);
            for (size_t i = 0; i < f.pool_bytes / 2; i++)
                assert_true((pool[i] & 0x7fff) < 0x7c00);
            fixture_fini(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_effective_bits),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_lossless),
        cmocka_unit_test(test_first_token),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_short_prompts),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_unaligned_pool),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_moved_stays_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
