/*
 * What the two ends of a transfer do: one call against the functions that it joins, for every preset, at
 * every level and at any address; what is refused, and what is then written.
 */
#include "common/base/ts_crc32c.h"
#include "tests/gpu/codec_fixture.h"

static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512bf16"};

struct ends {
    struct fixture f;
    uint8_t *pool, *moved; /* what is restored; a payload at an odd address */
    uint64_t digests[FIXTURE_HEADS];
    uint32_t crc;
};

static void ends_init(struct ends *e, const char *codec, enum ts_dtype dtype, uint32_t head_dim,
                      uint32_t tokens)
{
    fixture_init(&e->f, codec, dtype, head_dim);
    fixture_rotate(&e->f);
    fixture_random(&e->f, head_dim + tokens);
    if (tokens > 40) {
        fixture_element(&e->f, 0, 1, 20)[3] = 0x7f80; /* one tile escapes (fp16: is NaN) */
        fixture_element(&e->f, 1, 2, 33)[5] = 0x0001;
    }
    e->f.chunk.token_count = tokens;
    fixture_encode(&e->f);
    e->crc = ts_crc32c(0, e->f.payload, e->f.bytes);
    memset(e->digests, 0, sizeof e->digests);
    assert_int_equal(
        ts_codec_digest(&e->f.codec, fixture_cache(&e->f), e->f.payload, e->f.bytes, &e->f.chunk, e->digests),
        TS_OK);
    e->pool = ts_xmalloc(e->f.pool_bytes);
    e->moved = ts_xmalloc(e->f.bytes + 8);
}

static void ends_fini(struct ends *e)
{
    ts_free(e->pool);
    ts_free(e->moved);
    fixture_fini(&e->f);
}

static void check_give(struct ends *e)
{
    struct fixture *f = &e->f;
    uint8_t *again = ts_xaligned(64, 3 * f->pool_bytes);
    uint64_t digests[FIXTURE_HEADS] = {1, 2, 3};
    struct ts_codec_sums sums = {.digest = digests};
    uint32_t escapes;
    size_t bytes = ts_codec_give(&f->codec, &f->view, &f->chunk, again, &escapes, &sums);
    assert_int_equal(bytes, f->bytes);
    assert_int_equal(escapes, f->escapes);
    assert_memory_equal(again, f->payload, bytes);
    assert_int_equal(sums.crc, e->crc);
    assert_memory_equal(digests, e->digests, sizeof digests);
    ts_free(again);
}

static void check_take(struct ends *e, size_t shift)
{
    struct fixture *f = &e->f;
    uint64_t digests[FIXTURE_HEADS] = {1, 2, 3};
    struct ts_codec_sums sums = {.crc = e->crc, .digest = digests};
    memcpy(e->moved + shift, f->payload, f->bytes);
    memset(f->view.pool, 0x55, f->pool_bytes);
    assert_int_equal(ts_codec_take(&f->codec, e->moved + shift, f->bytes, &f->chunk, &f->view, &sums), TS_OK);
    assert_memory_equal(digests, e->digests, sizeof digests);
    assert_memory_equal(f->view.pool, e->pool, f->pool_bytes);
}

static void each_level(struct ends *e)
{
    uint8_t *source = ts_xmalloc(e->f.pool_bytes);
    memcpy(source, e->f.view.pool, e->f.pool_bytes);
    memset(e->f.view.pool, 0x55, e->f.pool_bytes);
    assert_int_equal(fixture_decode(&e->f), TS_OK);
    memcpy(e->pool, e->f.view.pool, e->f.pool_bytes);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (ts_codec_set_level(levels[i]) != TS_OK)
            continue;
        memcpy(e->f.view.pool, source, e->f.pool_bytes);
        check_give(e);
        check_take(e, 0);
        check_take(e, 5);
    }
    ts_free(source);
}

static void test_one_call(void **state)
{
    static const uint32_t dims[] = {64, 96, 128}, tokens[] = {1, 24, 16 * FIXTURE_BLOCKS};
    (void)state;
    for (size_t c = 0; ts_codec_preset(c); c++) {
        for (size_t i = 0; i < 18; i++) {
            struct ends e;
            ends_init(&e, ts_codec_preset(c), i % 2 ? TS_DTYPE_BF16 : TS_DTYPE_F16, dims[i / 2 % 3],
                      tokens[i / 6]);
            each_level(&e);
            ends_fini(&e);
        }
    }
}

/* A bit that flips under way leaves the pool and the digests as they were. */
static void test_wrong_sum(void **state)
{
    struct ends e;
    struct fixture *f = &e.f;
    (void)state;
    ends_init(&e, "i4h", TS_DTYPE_F16, 64, 320);
    memcpy(e.pool, f->view.pool, f->pool_bytes);
    for (size_t at = 0; at < f->bytes; at += 97) {
        uint64_t digests[FIXTURE_HEADS] = {1, 2, 3};
        struct ts_codec_sums sums = {.crc = e.crc, .digest = digests};
        f->payload[at] ^= (uint8_t)(1u << at % 8);
        assert_int_equal(ts_codec_take(&f->codec, f->payload, f->bytes, &f->chunk, &f->view, &sums),
                         TS_EAGAIN);
        assert_int_equal(digests[0] + digests[1] + digests[2], 6);
        f->payload[at] ^= (uint8_t)(1u << at % 8);
    }
    assert_memory_equal(f->view.pool, e.pool, f->pool_bytes);
    ends_fini(&e);
}

/* A peer that sums what no encoder writes: refused, wherever the fault lies, and nothing beyond the chunk is
 * written. */
static void test_wrong_content(void **state)
{
    struct ends e;
    struct fixture *f = &e.f;
    (void)state;
    ends_init(&e, "i4h", TS_DTYPE_F16, 64, 320);
    memcpy(e.pool, f->view.pool, f->pool_bytes);
    f->chunk.token_count = 64;
    fixture_encode(f);
    size_t scales = 16, count = (size_t)2 * FIXTURE_HEADS * 64;
    for (size_t g = 0; g < 2 * count; g += 5) { /* scales, then minima */
        uint64_t digests[FIXTURE_HEADS] = {1, 2, 3};
        uint8_t *at = f->payload + scales + 2 * g + 1, was = *at;
        *at = 0x7c;
        struct ts_codec_sums sums = {.crc = ts_crc32c(0, f->payload, f->bytes), .digest = digests};
        assert_int_equal(ts_codec_take(&f->codec, f->payload, f->bytes, &f->chunk, &f->view, &sums),
                         TS_ECORRUPT);
        assert_int_equal(digests[0] + digests[1] + digests[2], 6);
        *at = was;
    }
    size_t tile = f->tile_elements * 2, block = 2 * FIXTURE_HEADS * tile;
    for (uint32_t b = 4; b < FIXTURE_BLOCKS; b++)
        assert_memory_equal(f->view.pool + f->blocks[b] * block, e.pool + f->blocks[b] * block, block);
    ends_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_call),
        cmocka_unit_test(test_wrong_sum),
        cmocka_unit_test(test_wrong_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
