/*
 * KV pools from both ends in one process: a relay maps what a worker announces and encodes, another worker
 * restores; what must be refused is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/pool/ts_pool.h"

#define LAYERS   2u
#define HEADS    4u
#define BLOCKS   24u
#define HEAD_DIM 64u
#define TOKENS   300u
#define FIRST    10u /* layer of the model, and */
#define HEAD     4u  /* head */

static const struct ts_pool_shape shape = {.shard = {FIRST, FIRST + LAYERS, HEAD, HEAD + HEADS},
                                           .blocks = BLOCKS,
                                           .head_dim = HEAD_DIM,
                                           .dtype = TS_DTYPE_F16};

struct memory { /* a worker's memfd */
    int fd;
    uint8_t *kv;
    size_t kv_bytes, bytes;
    uint32_t *generations;
    char path[64];
};

static struct memory memory_new(uint64_t seed)
{
    struct memory m = {.fd = memfd_create("test-pool", MFD_CLOEXEC)};
    struct ts_rng rng;
    m.kv_bytes = (size_t)LAYERS * BLOCKS * 2 * HEADS * TS_KV_BLOCK_TOKENS * HEAD_DIM * 2;
    m.bytes = m.kv_bytes + BLOCKS * sizeof *m.generations;
    assert_int_equal(ftruncate(m.fd, (off_t)m.bytes), 0);
    m.kv = mmap(NULL, m.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
    assert_ptr_not_equal(m.kv, MAP_FAILED);
    m.generations = (uint32_t *)(void *)(m.kv + m.kv_bytes);
    snprintf(m.path, sizeof m.path, "/proc/%d/fd/%d", (int)getpid(), m.fd);
    ts_rng_init(&rng, seed);
    for (size_t i = 0; seed && i < m.kv_bytes; i += 2) { /* fp16 of magnitude 0.5 to 4 */
        uint16_t x = (uint16_t)(0x3800 + ts_rng_u64(&rng) % 0x0c00) | (uint16_t)(ts_rng_u64(&rng) % 2 << 15);
        memcpy(m.kv + i, &x, sizeof x);
    }
    return m;
}

static void memory_free(struct memory *m)
{
    munmap(m->kv, m->bytes);
    close(m->fd);
}

static struct ts_pool *map(const struct memory *m)
{
    struct ts_pool_place place = {.path = m->path, .bytes = m->bytes};
    struct ts_pool *pool = NULL;
    struct ts_error err = {.status = TS_OK};
    if (ts_pool_map(NULL, &shape, &place, &pool, &err) != TS_OK)
        fail_msg("%s", err.text);
    return pool;
}

/* A sequence in scattered blocks. */
struct sequence {
    uint32_t blocks[BLOCKS], generations[BLOCKS];
};

static struct ts_pool_piece piece_of(const struct sequence *s, struct ts_codec codec, uint32_t begin,
                                     uint32_t count)
{
    return (struct ts_pool_piece){.codec = codec,
                                  .layer = FIRST + 1,
                                  .head_begin = HEAD + 1,
                                  .head_count = 2,
                                  .token_begin = begin,
                                  .token_count = count,
                                  .blocks = s->blocks,
                                  .generations = s->generations,
                                  .block_count = ts_kv_blocks_for(TOKENS)};
}

static struct sequence scattered(uint32_t first, uint32_t step)
{
    struct sequence s;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        s.blocks[i] = (first + i * step) % BLOCKS;
        s.generations[i] = 0;
    }
    return s;
}

static uint8_t *tile(const struct memory *m, uint32_t block, uint32_t kv, uint32_t head)
{
    return m->kv + (((size_t)1 * BLOCKS + block) * 2 + kv) * HEADS * TS_KV_BLOCK_TOKENS * HEAD_DIM * 2 +
           (size_t)head * TS_KV_BLOCK_TOKENS * HEAD_DIM * 2;
}

/* All of `count` tokens from `begin` are the same in both. */
static bool equal(const struct memory *a, const struct sequence *of_a, const struct memory *b,
                  const struct sequence *of_b, uint32_t begin, uint32_t count)
{
    for (uint32_t t = begin; t < begin + count; t++) {
        for (uint32_t kv = 0; kv < 2; kv++) {
            for (uint32_t head = 1; head < 3; head++) {
                size_t row = (size_t)(t % TS_KV_BLOCK_TOKENS) * HEAD_DIM * 2;
                const uint8_t *x = tile(a, of_a->blocks[t / TS_KV_BLOCK_TOKENS], kv, head) + row;
                const uint8_t *y = tile(b, of_b->blocks[t / TS_KV_BLOCK_TOKENS], kv, head) + row;
                if (memcmp(x, y, HEAD_DIM * 2) != 0)
                    return false;
            }
        }
    }
    return true;
}

struct sent {
    struct ts_pool_given given;
    uint8_t *payload;
    uint64_t digests[2];
};

static enum ts_status give(struct ts_pool *pool, const struct ts_pool_piece *piece, struct sent *sent)
{
    struct ts_error err = {.status = TS_OK};
    assert_true(ts_pool_fits(pool, piece));
    sent->payload = ts_xmalloc(ts_pool_give_bytes(pool, piece));
    return ts_pool_give(pool, piece, sent->payload, sent->digests, &sent->given, &err);
}

static enum ts_status take(struct ts_pool *pool, const struct ts_pool_piece *piece, const struct sent *sent)
{
    struct ts_error err = {.status = TS_OK};
    uint64_t digests[2] = {0, 0};
    assert_true(ts_pool_fits(pool, piece));
    enum ts_status status =
        ts_pool_take(pool, piece, sent->payload, sent->given.bytes, sent->given.crc, digests, &err);
    if (status == TS_OK)
        assert_memory_equal(digests, sent->digests, sizeof digests);
    return status;
}

static struct ts_codec preset(const char *name)
{
    struct ts_codec codec;
    assert_int_equal(ts_codec_parse(name, &codec, NULL), TS_OK);
    return codec;
}

static void test_there_and_back(void **state)
{
    struct memory from = memory_new(1), to = memory_new(0);
    struct sequence a = scattered(3, 5), b = scattered(1, 7);
    struct ts_pool *relay = map(&from), *worker = ts_pool_own(&shape, to.kv, to.generations);
    struct sent sent;
    (void)state;
    for (uint32_t begin = 0; begin < TOKENS; begin += 256) {
        uint32_t count = TOKENS - begin < 256 ? TOKENS - begin : 256;
        struct ts_pool_piece p = piece_of(&a, preset("none"), begin, count), q = p;
        q.blocks = b.blocks;
        assert_int_equal(give(relay, &p, &sent), TS_OK);
        assert_false(equal(&from, &a, &to, &b, begin, count));
        assert_int_equal(take(worker, &q, &sent), TS_OK);
        assert_true(equal(&from, &a, &to, &b, begin, count));
        sent.payload[7] ^= 1; /* damaged on the way */
        assert_int_equal(take(worker, &q, &sent), TS_EAGAIN);
        ts_free(sent.payload);
    }
    ts_pool_close(&relay);
    ts_pool_close(&worker);
    memory_free(&from);
    memory_free(&to);
}

static void test_given_back(void **state)
{
    struct memory from = memory_new(2);
    struct sequence a = scattered(0, 1);
    struct ts_pool *relay = map(&from);
    struct ts_pool_piece p = piece_of(&a, preset("i4h"), 16, 40);
    struct sent sent;
    (void)state;
    for (uint32_t block = 0; block < 6; block++) { /* the piece has blocks 1 to 3 */
        from.generations[block] = 1;
        assert_int_equal(give(relay, &p, &sent), block >= 1 && block <= 3 ? TS_ECORRUPT : TS_OK);
        ts_free(sent.payload);
        from.generations[block] = 0;
    }
    ts_pool_close(&relay);
    memory_free(&from);
}

static void test_fits(void **state)
{
    struct memory from = memory_new(3);
    struct sequence a = scattered(0, 1), out = scattered(0, 1);
    struct ts_pool *relay = map(&from);
    struct ts_pool_piece p = piece_of(&a, preset("i4hc"), 256, 44), q;
    (void)state;
    out.blocks[2] = BLOCKS;
    assert_true(ts_pool_fits(relay, &p));
#define REFUSED(field, value) (q = p, q.field = (value), assert_false(ts_pool_fits(relay, &q)))
    REFUSED(layer, FIRST - 1);
    REFUSED(layer, FIRST + LAYERS);
    REFUSED(head_begin, HEAD - 1);
    REFUSED(head_begin, HEAD + 3);
    REFUSED(head_count, UINT32_MAX);
    REFUSED(token_begin, 240); /* not a whole span of centred keys */
    REFUSED(token_count, UINT32_MAX);
    REFUSED(block_count, 18);
    REFUSED(blocks, out.blocks);
#undef REFUSED
    ts_pool_close(&relay);
    memory_free(&from);
}

static void test_what_cannot_be_mapped(void **state)
{
    struct memory from = memory_new(4);
    struct ts_pool *pool = NULL;
    struct ts_error err;
    struct ts_pool_place small = {.path = from.path, .bytes = from.bytes - 1},
                         large = {.path = from.path, .bytes = from.bytes + 1},
                         gone = {.path = "/proc/self/fd/9999", .bytes = from.bytes};
    struct ts_pool_shape none = shape;
    (void)state;
    none.blocks = 0;
    assert_int_equal(ts_pool_map(NULL, &shape, &small, &pool, &err), TS_EINVAL);
    assert_int_equal(ts_pool_map(NULL, &shape, &large, &pool, &err), TS_EINVAL);
    assert_int_equal(ts_pool_map(NULL, &none, &large, &pool, &err), TS_EINVAL);
    assert_int_equal(ts_pool_map(NULL, &shape, &gone, &pool, &err), TS_EIO);
    assert_non_null(strstr(err.text, "/proc/self/fd/9999"));
    assert_null(pool);
    memory_free(&from);
}

static void test_modelled(void **state)
{
    struct ts_pool_place nowhere = {.path = ""};
    struct sequence a = scattered(0, 1);
    struct ts_pool *relay = NULL, *worker = ts_pool_own(&shape, NULL, NULL);
    struct ts_pool_piece p = piece_of(&a, preset("none"), 0, 32);
    struct ts_pool_given given;
    uint64_t out[2], in[2];
    (void)state;
    assert_int_equal(ts_pool_map(NULL, &shape, &nowhere, &relay, NULL), TS_OK);
    assert_int_equal(ts_pool_give_bytes(relay, &p), 0);
    assert_int_equal(ts_pool_give(relay, &p, NULL, out, &given, NULL), TS_OK);
    assert_int_equal(given.declared_bytes, 2 * 2 * 32 * HEAD_DIM * 2);
    assert_int_equal(ts_pool_take(worker, &p, NULL, 0, 0, in, NULL), TS_OK);
    assert_memory_equal(in, out, sizeof in);
    ts_pool_close(&relay);
    ts_pool_close(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_given_back),
        cmocka_unit_test(test_fits),           cmocka_unit_test(test_what_cannot_be_mapped),
        cmocka_unit_test(test_modelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
