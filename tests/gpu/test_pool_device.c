/*
 * KV pools on a device, over the driver whose device is the CPU (emulated/emulated_driver.h): a worker is
 * another process, which fills a pool with drawn numbers and announces it; this one is its relay, and a
 * second worker that restores. What a pool in memory of the host gives is what this one must give.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/pool/ts_pool.h"
#include "tests/gpu/emulated/emulated_driver.h"

#define LAYERS   2u
#define HEADS    4u
#define BLOCKS   40u
#define HEAD_DIM 64u
#define KV_BYTES ((size_t)LAYERS * BLOCKS * 2 * HEADS * TS_KV_BLOCK_TOKENS * HEAD_DIM * 2)

static float frequencies[HEAD_DIM / 2];
static const struct ts_pool_shape shape = {.shard = {0, LAYERS, 0, HEADS},
                                           .blocks = BLOCKS,
                                           .head_dim = HEAD_DIM,
                                           .dtype = TS_DTYPE_BF16,
                                           .inverse_frequencies = frequencies};
static const struct emulated_driver *emulated;
static uint8_t *drawn; /* [KV_BYTES] what the worker's pool holds */
static int generations_fd;
static uint32_t *generations;

/* --- the worker ----------------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    int stop; /* closed: it ends */
    struct ts_pool_share share;
};

static void must(enum ts_status status, const struct ts_error *err)
{
    if (status == TS_OK)
        return;
    fprintf(stderr, "worker: %s\n", err->text);
    _exit(1);
}

static void work(int out, int stop)
{
    struct ts_error err = {.status = TS_OK};
    struct ts_cuda *cuda;
    ts_cuda_address at;
    struct ts_pool *pool;
    struct ts_pool_share share;
    char end;
    must(ts_cuda_open(0, &cuda, &err), &err);
    must(ts_cuda_alloc(cuda, KV_BYTES, &at, &err), &err);
    must(ts_cuda_upload(cuda, at, drawn, KV_BYTES, &err), &err);
    must(ts_cuda_wait(cuda, &err), &err);
    must(ts_pool_own_device(&shape, cuda, at, generations, 1, &pool, &err), &err);
    must(ts_pool_share(pool, &share, &err), &err);
    if (write(out, &share, sizeof share) != (ssize_t)sizeof share)
        _exit(1);
    while (read(stop, &end, 1) > 0)
        ;
    ts_pool_close(&pool);
    ts_cuda_free(cuda, &at);
    ts_cuda_close(&cuda);
    _exit(0);
}

static struct worker start(void)
{
    int ready[2], stop[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(stop), 0);
    struct worker w = {.pid = fork(), .stop = stop[1]};
    if (w.pid == 0) {
        close(stop[1]);
        work(ready[1], stop[0]);
    }
    close(ready[1]);
    close(stop[0]);
    assert_int_equal(read(ready[0], &w.share, sizeof w.share), sizeof w.share);
    close(ready[0]);
    return w;
}

static void stop(struct worker *w)
{
    int status;
    close(w->stop);
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    assert_int_equal(status, 0);
}

/* --- the relay ------------------------------------------------------------------------------------------ */

static struct ts_pool_place place_of(const struct worker *w)
{
    static char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", generations_fd);
    return (struct ts_pool_place){.path = path,
                                  .bytes = BLOCKS * sizeof *generations,
                                  .device = w->share.device,
                                  .share = w->share.bytes,
                                  .device_offset = w->share.offset};
}

static struct ts_pool_piece piece_of(const char *codec, uint32_t begin, uint32_t count,
                                     const uint32_t *blocks)
{
    static const uint32_t zeros[BLOCKS];
    struct ts_pool_piece p = {.layer = 1,
                              .head_begin = 1,
                              .head_count = 2,
                              .token_begin = begin,
                              .token_count = count,
                              .blocks = blocks,
                              .generations = zeros,
                              .block_count = BLOCKS};
    struct ts_arena arena;
    ts_arena_init(&arena);
    assert_int_equal(ts_codec_parse_text(ts_str_of(codec), &arena, &p.codec, NULL), TS_OK);
    p.codec = ts_codec_for_layer(&p.codec, p.layer);
    ts_arena_fini(&arena);
    return p;
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

static void same_as_host(struct ts_pool *device, struct ts_pool *host, const struct ts_pool_piece *p,
                         struct sent *sent)
{
    struct sent want;
    assert_int_equal(give(device, p, sent), TS_OK);
    assert_int_equal(give(host, p, &want), TS_OK);
    assert_int_equal(sent->given.bytes, want.given.bytes);
    assert_int_equal(sent->given.crc, want.given.crc);
    assert_int_equal(sent->given.escapes, want.given.escapes);
    assert_memory_equal(sent->payload, want.payload, want.given.bytes);
    assert_memory_equal(sent->digests, want.digests, sizeof want.digests);
    ts_free(want.payload);
}

static void setup(void)
{
    struct ts_rng rng;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    emulated = driver ? dlsym(driver, "ts_cuda_is_emulated") : NULL;
    assert_non_null(emulated);
    for (uint32_t i = 0; i < HEAD_DIM / 2; i++)
        frequencies[i] = 1.0f / (float)(1 + i * i);
    generations_fd = memfd_create("generations", MFD_CLOEXEC);
    assert_int_equal(ftruncate(generations_fd, BLOCKS * sizeof *generations), 0);
    generations =
        mmap(NULL, BLOCKS * sizeof *generations, PROT_READ | PROT_WRITE, MAP_SHARED, generations_fd, 0);
    drawn = ts_xmalloc(KV_BYTES);
    ts_rng_init(&rng, 5);
    for (size_t i = 0; i < KV_BYTES; i += 2) { /* bf16 of magnitude 0.5 to 4; one in 9000 is infinite */
        uint16_t x = (uint16_t)(0x3f00 + ts_rng_u64(&rng) % 0x0180) | (uint16_t)(ts_rng_u64(&rng) % 2 << 15);
        x = ts_rng_u64(&rng) % 9000 == 0 ? 0x7f80 : x;
        memcpy(drawn + i, &x, sizeof x);
    }
}

static const char *const codecs[] = {"none", "lz16", "i8",    "i4",          "i4h",
                                     "i4hs", "i4hc", "k8v4h", "lz16,1=8/16", "lz16,1=16/4"};

static void scatter(uint32_t *blocks, uint32_t first, uint32_t step)
{
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = (first + i * step) % BLOCKS;
}

/* Encoded by the relay, restored by a worker of this process into device and host: all that is seen of both
 * pools is the same. */
static void test_every_codec(void **state)
{
    struct worker w = start();
    struct ts_pool_place place = place_of(&w);
    struct ts_pool_devices *devices = ts_pool_devices_new(2);
    struct ts_error err = {.status = TS_OK};
    struct ts_pool *relay, *taker;
    struct ts_cuda *cuda;
    ts_cuda_address at;
    uint32_t blocks[BLOCKS], others[BLOCKS];
    uint8_t *here = ts_xmalloc(KV_BYTES), *there = ts_xmalloc(KV_BYTES);
    (void)state;
    scatter(blocks, 3, 7);
    scatter(others, 1, 11);
    if (ts_pool_map(devices, &shape, &place, &relay, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
    assert_int_equal(ts_cuda_alloc(cuda, KV_BYTES, &at, &err), TS_OK);
    memset(here, 0xee, KV_BYTES);
    assert_int_equal(ts_cuda_upload(cuda, at, here, KV_BYTES, &err), TS_OK);
    assert_int_equal(ts_pool_own_device(&shape, cuda, at, generations, 1, &taker, &err), TS_OK);
    struct ts_pool *from = ts_pool_own(&shape, drawn, generations),
                   *to = ts_pool_own(&shape, here, generations);
    for (size_t c = 0; c < sizeof codecs / sizeof codecs[0]; c++) {
        static const uint32_t cuts[][2] = {{0, 256}, {256, 256}, {512, 9}};
        for (size_t i = 0; i < 3; i++) {
            struct ts_pool_piece p = piece_of(codecs[c], cuts[i][0], cuts[i][1], blocks), q = p;
            struct sent sent;
            uint64_t digests[2];
            q.blocks = others;
            same_as_host(relay, from, &p, &sent);
            assert_int_equal(
                ts_pool_take(taker, &q, sent.payload, sent.given.bytes, sent.given.crc, digests, &err),
                TS_OK);
            assert_memory_equal(digests, sent.digests, sizeof digests);
            assert_int_equal(
                ts_pool_take(to, &q, sent.payload, sent.given.bytes, sent.given.crc, digests, &err), TS_OK);
            sent.payload[3] ^= 1;
            assert_int_equal(
                ts_pool_take(taker, &q, sent.payload, sent.given.bytes, sent.given.crc, digests, &err),
                TS_EAGAIN);
            ts_free(sent.payload);
        }
        assert_int_equal(ts_cuda_download(cuda, there, at, KV_BYTES, &err), TS_OK);
        assert_int_equal(ts_cuda_wait(cuda, &err), TS_OK);
        if (memcmp(there, here, KV_BYTES) != 0)
            fail_msg("%s restores other bytes than the CPU", codecs[c]);
    }
    ts_pool_close(&relay);
    ts_pool_close(&taker);
    ts_pool_close(&from);
    ts_pool_close(&to);
    ts_cuda_free(cuda, &at);
    ts_cuda_close(&cuda);
    ts_pool_devices_free(&devices);
    for (enum emulated_kind kind = EMULATED_CONTEXT; kind < EMULATED_KINDS; kind++)
        assert_int_equal(emulated->left(kind), 0);
    ts_free(here);
    ts_free(there);
    stop(&w);
}

static void test_given_back(void **state)
{
    struct worker w = start();
    struct ts_pool_place place = place_of(&w);
    struct ts_pool_devices *devices = ts_pool_devices_new(1);
    struct ts_pool *relay;
    uint32_t blocks[BLOCKS];
    struct sent sent;
    (void)state;
    scatter(blocks, 0, 1);
    assert_int_equal(ts_pool_map(devices, &shape, &place, &relay, NULL), TS_OK);
    struct ts_pool_piece p = piece_of("i4h", 16, 32, blocks);
    generations[2] = 1;
    assert_int_equal(give(relay, &p, &sent), TS_ECORRUPT);
    generations[2] = 0;
    ts_free(sent.payload);
    ts_pool_close(&relay);
    ts_pool_devices_free(&devices);
    stop(&w);
}

static enum ts_status map_after(const struct worker *w, const char *faults, struct ts_error *err)
{
    struct ts_pool_place place = place_of(w);
    struct ts_pool_devices *devices = ts_pool_devices_new(1);
    struct ts_pool *pool = NULL;
    emulated->set_faults(faults);
    enum ts_status status = ts_pool_map(devices, &shape, &place, &pool, err);
    ts_pool_close(&pool);
    ts_pool_devices_free(&devices);
    emulated->set_faults("");
    for (enum emulated_kind kind = EMULATED_CONTEXT; kind < EMULATED_KINDS; kind++)
        assert_int_equal(emulated->left(kind), 0);
    return status;
}

/* Nothing of it is TS_EINVAL: the worker encodes then, and is not refused. */
static void test_what_cannot_be_mapped(void **state)
{
    static const char *const faults[] = {"cuIpcOpenMemHandle_v2:1:201", "cuIpcOpenMemHandle_v2:1:1",
                                         "cuDevicePrimaryCtxRetain:1:2", "cuStreamCreateWithPriority:2:2",
                                         "cuIpcOpenMemHandle_v2:1:700:sticky"};
    struct worker w = start(), alone = w, elsewhere = w;
    struct ts_error err;
    (void)state;
    assert_int_equal(map_after(&w, "", &err), TS_OK);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        enum ts_status status = map_after(&w, faults[i], &err);
        assert_int_not_equal(status, TS_OK);
        assert_int_not_equal(status, TS_EINVAL);
        assert_non_null(strstr(err.text, w.share.device));
    }
    elsewhere.share.device[0] ^= 1;
    assert_int_equal(map_after(&elsewhere, "", &err), TS_ENOTFOUND);
    struct ts_pool_shape odd = shape;
    struct ts_pool_place place = place_of(&w);
    struct ts_pool *pool;
    odd.head_dim = 24;
    assert_int_equal(ts_pool_map(NULL, &odd, &place, &pool, &err), TS_EUNSUPPORTED);
    stop(&w);
    assert_int_not_equal(map_after(&alone, "", &err), TS_EINVAL); /* whose worker is gone */
}

/* Want of memory is of one piece: the next one has what it needs. What there was no room for at the start is
 * looked for again. */
static void test_no_memory(void **state)
{
    static const char *const faults[] = {
        "cuMemHostAlloc:1:2,cuMemHostAlloc:2:2", "cuMemAlloc_v2:1:2,cuMemAlloc_v2:3:2",
        "cuMemAlloc_v2:2:2,cuMemAlloc_v2:4:2", "cuMemAlloc_v2:3:2,cuMemAlloc_v2:5:2"};
    struct worker w = start();
    struct ts_pool_place place = place_of(&w);
    uint32_t blocks[BLOCKS];
    struct sent sent;
    (void)state;
    scatter(blocks, 0, 1);
    struct ts_pool_piece p = piece_of("i4h", 0, 64, blocks);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct ts_pool_devices *devices = ts_pool_devices_new(1);
        struct ts_pool *relay;
        emulated->set_faults(faults[i]);
        assert_int_equal(ts_pool_map(devices, &shape, &place, &relay, NULL), TS_OK);
        assert_int_equal(give(relay, &p, &sent), TS_ENOMEM);
        assert_int_equal(ts_pool_reason(TS_ENOMEM), TS_REASON_KV_NO_MEMORY);
        ts_free(sent.payload);
        assert_int_equal(give(relay, &p, &sent), TS_OK);
        ts_free(sent.payload);
        ts_pool_close(&relay);
        ts_pool_devices_free(&devices);
    }
    emulated->set_faults("");
    stop(&w);
}

/* A lost device is lost for good, also to pools that come later. */
static void test_lost(void **state)
{
    struct worker w = start();
    struct ts_pool_place place = place_of(&w);
    struct ts_pool_devices *devices = ts_pool_devices_new(1);
    struct ts_pool *relay;
    struct ts_error err;
    uint32_t blocks[BLOCKS];
    struct sent sent;
    (void)state;
    scatter(blocks, 0, 1);
    struct ts_pool_piece p = piece_of("i4h", 0, 64, blocks);
    assert_int_equal(ts_pool_map(devices, &shape, &place, &relay, &err), TS_OK);
    emulated->set_faults("cuLaunchKernelEx:1:700:sticky");
    for (int i = 0; i < 2; i++) {
        enum ts_status status = give(relay, &p, &sent);
        assert_int_equal(ts_pool_reason(status), TS_REASON_ENGINE);
        ts_free(sent.payload);
    }
    ts_pool_close(&relay);
    assert_int_equal(ts_pool_map(devices, &shape, &place, &relay, &err), TS_EIO);
    ts_pool_devices_free(&devices);
    emulated->set_faults("");
    stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_codec),
        cmocka_unit_test(test_given_back),
        cmocka_unit_test(test_what_cannot_be_mapped),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_lost),
    };
    setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
