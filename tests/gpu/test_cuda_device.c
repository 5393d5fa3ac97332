/*
 * What ts_cuda.h promises, on a GPU; ctest runs it also over the driver whose device is the CPU. On a GPU it
 * also prints how fast copies are and what commands cost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/codec/ts_cuda_codec.h"
#include "gpu/cuda/weights/weights_args.h"
#include "tests/gpu/codec_fixture.h"
#include "tests/gpu/cuda_child.h"

static struct ts_cuda *cuda;
static struct ts_error err;

#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != TS_OK)                                                                                 \
            fail_msg("%s: %s", #call, err.text);                                                             \
    } while (0)

static ts_cuda_address take(size_t bytes)
{
    ts_cuda_address at;
    OK(ts_cuda_alloc(cuda, bytes, &at, &err));
    assert_int_equal(at % 256, 0);
    return at;
}

static void *pin(size_t bytes)
{
    void *memory;
    OK(ts_cuda_pin(cuda, bytes, &memory, &err));
    return memory;
}

/* --- memory --------------------------------------------------------------------------------------------- */

static void test_memory(void **state)
{
    static const size_t sizes[] = {0, 1, 257, ((size_t)1 << 20) + 3, (size_t)64 << 20};
    ts_cuda_address at[5], none;
    uint64_t before, during, total;
    (void)state;
    OK(ts_cuda_memory(cuda, &before, &total, &err));
    assert_true(before > 0 && before <= total && total == ts_cuda_properties(cuda)->memory_bytes);
    for (size_t i = 0; i < 5; i++)
        at[i] = take(sizes[i]);
    OK(ts_cuda_memory(cuda, &during, &total, &err));
    assert_true(during + sizes[4] <= before);
    assert_int_equal(ts_cuda_alloc(cuda, total + 1, &none, &err), TS_ENOMEM);
    assert_int_equal(none, 0);
    assert_null(ts_cuda_fault(cuda));
    for (size_t i = 0; i < 5; i++)
        ts_cuda_free(cuda, &at[i]);
    assert_int_equal(at[0], 0);
}

/* To the device, within it and back, from memory that is pinned and that is not, with bytes around it that
 * stay. */
static void check_copies(bool pinned)
{
    enum { COUNT = 300000, AT = 259, PART = 99991 };
    uint8_t *from = pinned ? pin(COUNT) : ts_xmalloc(COUNT), *to = pinned ? pin(COUNT) : ts_xmalloc(COUNT);
    ts_cuda_address a = take(COUNT), b = take(COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        from[i] = (uint8_t)((i * 2654435761u >> 11) | 1);
    OK(ts_cuda_upload(cuda, a, from, COUNT, &err));
    OK(ts_cuda_clear(cuda, b, COUNT, &err));
    OK(ts_cuda_copy(cuda, b + AT, a + 3, PART, &err));
    OK(ts_cuda_copy(cuda, b, a, 0, &err));
    OK(ts_cuda_download(cuda, to, b, COUNT, &err));
    OK(ts_cuda_wait(cuda, &err));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(to[i], i >= AT && i < AT + PART ? from[i - AT + 3] : 0);
    ts_cuda_free(cuda, &a);
    ts_cuda_free(cuda, &b);
    if (pinned) {
        ts_cuda_unpin(cuda, (void **)&from);
        ts_cuda_unpin(cuda, (void **)&to);
        assert_null(to);
    } else {
        ts_free(from);
        ts_free(to);
    }
}

static void test_copies(void **state)
{
    (void)state;
    check_copies(false);
    check_copies(true);
}

/* --- streams and events --------------------------------------------------------------------------------- */

/* Two streams that wait for each other by events alone: each adds what the other must not have missed. */
static void test_forks(void **state)
{
    enum { ROUNDS = 20, COUNT = 1 << 20 };
    struct ts_cuda *fork;
    struct ts_cuda_event *here, *there;
    ts_cuda_address a = take(COUNT), b = take(COUNT);
    uint8_t *pinned = pin(ROUNDS);
    (void)state;
    OK(ts_cuda_fork(cuda, true, &fork, &err));
    OK(ts_cuda_event_new(cuda, &here, &err));
    OK(ts_cuda_event_new(fork, &there, &err));
    for (uint32_t round = 0; round < ROUNDS; round++)
        pinned[round] = (uint8_t)(round + 1);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        OK(ts_cuda_clear(cuda, a, COUNT, &err));
        OK(ts_cuda_upload(cuda, a + COUNT - 1, pinned + round, 1, &err));
        OK(ts_cuda_record(cuda, here, &err));
        OK(ts_cuda_after(fork, here, &err));
        OK(ts_cuda_copy(fork, b, a, COUNT, &err));
        OK(ts_cuda_download(fork, pinned + round, b + COUNT - 1, 1, &err));
        OK(ts_cuda_record(fork, there, &err));
        OK(ts_cuda_after(cuda, there, &err));
    }
    OK(ts_cuda_event_wait(there, &err));
    for (uint32_t round = 0; round < ROUNDS; round++)
        assert_int_equal(pinned[round], round + 1);
    OK(ts_cuda_wait(cuda, &err));
    ts_cuda_event_free(&here);
    ts_cuda_event_free(&there);
    ts_cuda_close(&fork);
    ts_cuda_free(cuda, &a);
    ts_cuda_free(cuda, &b);
    ts_cuda_unpin(cuda, (void **)&pinned);
}

static void test_events(void **state)
{
    struct ts_cuda_event *from, *to;
    ts_cuda_address at = take((size_t)32 << 20);
    uint64_t ns;
    bool done;
    (void)state;
    OK(ts_cuda_event_new(cuda, &from, &err));
    OK(ts_cuda_event_new(cuda, &to, &err));
    OK(ts_cuda_event_wait(from, &err)); /* never recorded */
    OK(ts_cuda_event_done(from, &done, &err));
    assert_true(done);
    OK(ts_cuda_record(cuda, from, &err));
    OK(ts_cuda_clear(cuda, at, (size_t)32 << 20, &err));
    OK(ts_cuda_record(cuda, to, &err));
    OK(ts_cuda_event_done(to, &done, &err));
    if (ts_cuda_properties(cuda)->emulated) /* which does nothing at all, or all at once */
        assert_int_equal(done, strcmp(getenv("TS_EMULATED_LAZY"), "0") == 0);
    while (!done)
        OK(ts_cuda_event_done(to, &done, &err));
    OK(ts_cuda_elapsed(from, to, &ns, &err));
    assert_true(ns > 0 && ns < 10000000000);
    ts_cuda_event_free(&from);
    ts_cuda_event_free(&to);
    ts_cuda_free(cuda, &at);
}

/* --- graphs --------------------------------------------------------------------------------------------- */

struct work {
    struct fixture f;
    struct ts_cuda_codec_view view;
    ts_cuda_address workspace, payload;
    size_t capacity;
    uint8_t *in, *out; /* pinned */
    struct ts_cuda_event *event;
};

/* From `in` to the pool, encoded, to `out`, and an event. */
static void ask(struct work *w)
{
    OK(ts_cuda_upload(cuda, w->view.pool, w->in, w->f.pool_bytes, &err));
    OK(ts_cuda_clear(cuda, w->payload, w->capacity, &err));
    OK(ts_cuda_codec_encode(cuda, &w->f.codec, &w->view, &w->f.chunk, w->payload, w->workspace, &err));
    OK(ts_cuda_download(cuda, w->out, w->payload, w->capacity, &err));
    OK(ts_cuda_record(cuda, w->event, &err));
}

static void work_init(struct work *w)
{
    fixture_init(&w->f, "i4h", TS_DTYPE_BF16, 128);
    w->capacity = w->f.pool_bytes;
    w->view = (struct ts_cuda_codec_view){.pool = take(w->f.pool_bytes),
                                          .pool_blocks = w->f.view.pool_blocks,
                                          .pool_heads = w->f.view.pool_heads,
                                          .head_dim = 128,
                                          .dtype = TS_DTYPE_BF16,
                                          .blocks = take(sizeof w->f.blocks),
                                          .block_count = FIXTURE_BLOCKS};
    size_t workspace = ts_cuda_codec_workspace_bytes(2 * FIXTURE_HEADS * FIXTURE_BLOCKS);
    w->payload = take(w->capacity);
    w->workspace = take(workspace);
    w->in = pin(w->f.pool_bytes);
    w->out = pin(w->capacity);
    OK(ts_cuda_event_new(cuda, &w->event, &err));
    OK(ts_cuda_clear(cuda, w->workspace, workspace, &err));
    OK(ts_cuda_upload(cuda, w->view.blocks, w->f.blocks, sizeof w->f.blocks, &err));
    OK(ts_cuda_wait(cuda, &err));
}

static void work_fini(struct work *w)
{
    ts_cuda_event_free(&w->event);
    ts_cuda_free(cuda, &w->view.pool);
    ts_cuda_free(cuda, &w->view.blocks);
    ts_cuda_free(cuda, &w->payload);
    ts_cuda_free(cuda, &w->workspace);
    ts_cuda_unpin(cuda, (void **)&w->in);
    ts_cuda_unpin(cuda, (void **)&w->out);
    fixture_fini(&w->f);
}

/* A graph gives the bytes of the same commands one by one, each time from what is there then, and of the CPU.
 */
static void test_graph(void **state)
{
    struct work w;
    struct ts_cuda_graph *graph;
    (void)state;
    work_init(&w);
    uint8_t *eager = ts_xmalloc(w.capacity);
    memset(w.out, 0, w.capacity);
    OK(ts_cuda_capture_begin(cuda, &err));
    ask(&w);
    OK(ts_cuda_capture_end(cuda, &graph, &err));
    OK(ts_cuda_wait(cuda, &err));
    for (size_t i = 0; i < w.capacity; i++)
        assert_int_equal(w.out[i], 0); /* nothing was done yet */
    for (uint64_t seed = 0; seed < 3; seed++) {
        fixture_random(&w.f, seed);
        fixture_encode(&w.f);
        memcpy(w.in, w.f.view.pool, w.f.pool_bytes);
        ask(&w);
        OK(ts_cuda_event_wait(w.event, &err));
        memcpy(eager, w.out, w.capacity);
        assert_memory_equal(eager, w.f.payload, w.f.bytes);
        memset(w.out, 0x77, w.capacity);
        OK(ts_cuda_graph_launch(cuda, graph, &err));
        OK(ts_cuda_event_wait(w.event, &err)); /* recorded by the graph */
        assert_memory_equal(w.out, eager, w.capacity);
    }
    OK(ts_cuda_wait(cuda, &err));
    ts_cuda_graph_free(&graph);
    ts_free(eager);
    work_fini(&w);
}

/* What a capture does not allow is refused, and does not end it. */
static void test_capture_refuses(void **state)
{
    struct ts_cuda_graph *graph, *again;
    ts_cuda_address at = take(16), none;
    void *memory;
    uint8_t bytes[16] = {1};
    (void)state;
    assert_int_equal(ts_cuda_capture_end(cuda, &graph, &err), TS_EINVAL);
    OK(ts_cuda_upload(cuda, at, bytes, 16, &err));
    OK(ts_cuda_capture_begin(cuda, &err));
    assert_int_equal(ts_cuda_capture_begin(cuda, &err), TS_EINVAL);
    assert_int_equal(ts_cuda_alloc(cuda, 1, &none, &err), TS_EINVAL);
    assert_int_equal(ts_cuda_pin(cuda, 1, &memory, &err), TS_EINVAL);
    assert_int_equal(ts_cuda_wait(cuda, &err), TS_EINVAL);
    OK(ts_cuda_clear(cuda, at, 15, &err));
    OK(ts_cuda_capture_end(cuda, &graph, &err));
    OK(ts_cuda_capture_begin(cuda, &err));
    assert_int_equal(ts_cuda_graph_launch(cuda, graph, &err), TS_EINVAL);
    OK(ts_cuda_capture_end(cuda, &again, &err)); /* an empty one */
    OK(ts_cuda_graph_launch(cuda, again, &err));
    OK(ts_cuda_graph_launch(cuda, graph, &err));
    bytes[0] = 9;
    OK(ts_cuda_download(cuda, bytes, at, 16, &err));
    OK(ts_cuda_wait(cuda, &err));
    assert_int_equal(bytes[0], 0);
    ts_cuda_graph_free(&graph);
    ts_cuda_graph_free(&again);
    ts_cuda_free(cuda, &at);
}

/* A kernel may have all the shared memory of a block, even one that wants none. */
static void test_shared_memory(void **state)
{
    enum { COUNT = 4096 };
    const struct ts_cuda_properties *p = ts_cuda_properties(cuda);
    const struct ts_cuda_dim one = {1, 1, 1}, block = {WEIGHTS_THREADS, 1, 1};
    static const uint32_t left[] = {1024, 64 << 10}; /* of all that a block can have */
    uint16_t values[2][COUNT];
    ts_cuda_address at = take(sizeof *values);
    (void)state;
    assert_true(p->shared_bytes_max > left[1]);
    for (uint32_t i = 0; i < 2; i++) {
        const struct weights_fill_args args = {
            .to = (uint8_t *)(uintptr_t)at, .count = COUNT, .seed = 5, .scale = 1.0f, .bf16 = 1};
        OK(ts_cuda_clear(cuda, at, sizeof *values, &err));
        OK(ts_cuda_launch(cuda, "weights_fill", one, block, i ? p->shared_bytes_max - left[i - 1] : 0, &args,
                          sizeof args, &err));
        OK(ts_cuda_download(cuda, values[i], at, sizeof *values, &err));
        OK(ts_cuda_wait(cuda, &err));
    }
    assert_true(values[0][0] != 0);
    assert_memory_equal(values[0], values[1], sizeof *values);
    ts_cuda_free(cuda, &at);
}

/* --- two processes -------------------------------------------------------------------------------------- */

static void test_share(void **state)
{
    struct ts_cuda_share share;
    uint8_t *bytes = ts_xmalloc(CUDA_CHILD_BYTES), *wanted = ts_xmalloc(CUDA_CHILD_BYTES);
    ts_cuda_address before = take(1000), at = take(CUDA_CHILD_BYTES);
    (void)state;
    cuda_child_fill(bytes, 1);
    OK(ts_cuda_upload(cuda, at, bytes, CUDA_CHILD_BYTES, &err));
    OK(ts_cuda_wait(cuda, &err));
    assert_int_equal(ts_cuda_export(cuda, at + 256, &share, &err), TS_EINVAL);
    enum ts_status status = ts_cuda_export(cuda, at, &share, &err);
    if (status == TS_OK)
        status = cuda_child_import(&share, NULL);
    if (status == TS_OK) {
        cuda_child_fill(wanted, 2);
        OK(ts_cuda_download(cuda, bytes, at, CUDA_CHILD_BYTES, &err));
        OK(ts_cuda_wait(cuda, &err));
        assert_memory_equal(bytes, wanted, CUDA_CHILD_BYTES);
    }
    ts_free(bytes);
    ts_free(wanted);
    ts_cuda_free(cuda, &at);
    ts_cuda_free(cuda, &before);
    if (status == TS_EUNSUPPORTED) {
        print_message("SKIP: no-kernel-feature memory is not shared between processes here: %s\n", err.text);
        skip();
    }
    assert_int_equal(status, TS_OK);
}

/* --- figures -------------------------------------------------------------------------------------------- */

static double seconds_of(struct ts_cuda_event *from, struct ts_cuda_event *to)
{
    uint64_t ns;
    OK(ts_cuda_elapsed(from, to, &ns, &err));
    return (double)ns / 1e9;
}

static void test_figures(void **state)
{
    enum { TIMES = 20, COMMANDS = 200 };
    const size_t bytes = (size_t)256 << 20;
    const char *const names[] = {"pinned to device", "device to pinned",
                                 "within the device (read and written)"};
    struct ts_cuda_event *from, *to;
    (void)state;
    if (ts_cuda_properties(cuda)->emulated)
        return;
    ts_cuda_address a = take(bytes), b = take(bytes);
    void *memory = pin(bytes);
    OK(ts_cuda_event_new(cuda, &from, &err));
    OK(ts_cuda_event_new(cuda, &to, &err));
    for (int kind = 0; kind < 3; kind++) {
        for (int i = -2; i < TIMES; i++) {
            if (i == 0)
                OK(ts_cuda_record(cuda, from, &err));
            OK(kind == 0   ? ts_cuda_upload(cuda, a, memory, bytes, &err)
               : kind == 1 ? ts_cuda_download(cuda, memory, a, bytes, &err)
                           : ts_cuda_copy(cuda, b, a, bytes, &err));
        }
        OK(ts_cuda_record(cuda, to, &err));
        print_message("%s: %.1f GB/s\n", names[kind],
                      (double)bytes * TIMES * (kind == 2 ? 2 : 1) / seconds_of(from, to) / 1e9);
    }
    struct ts_cuda_graph *graph;
    OK(ts_cuda_capture_begin(cuda, &err));
    for (int i = 0; i < COMMANDS; i++)
        OK(ts_cuda_clear(cuda, a, 4, &err));
    OK(ts_cuda_capture_end(cuda, &graph, &err));
    for (int graphs = 0; graphs < 2; graphs++) {
        for (int i = -2; i < TIMES; i++) {
            if (i == 0)
                OK(ts_cuda_record(cuda, from, &err));
            for (int j = 0; !graphs && j < COMMANDS; j++)
                OK(ts_cuda_clear(cuda, a, 4, &err));
            if (graphs)
                OK(ts_cuda_graph_launch(cuda, graph, &err));
        }
        OK(ts_cuda_record(cuda, to, &err));
        print_message("a small command %s: %.2f us\n", graphs ? "in a graph" : "by itself",
                      seconds_of(from, to) / TIMES / COMMANDS * 1e6);
    }
    ts_cuda_graph_free(&graph);
    ts_cuda_event_free(&from);
    ts_cuda_event_free(&to);
    ts_cuda_unpin(cuda, &memory);
    ts_cuda_free(cuda, &a);
    ts_cuda_free(cuda, &b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_forks),         cmocka_unit_test(test_events),
        cmocka_unit_test(test_graph),         cmocka_unit_test(test_capture_refuses),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_share),
        cmocka_unit_test(test_figures),
    };
    int status;
    if (cuda_child_main(argc, argv, &status))
        return status;
    enum ts_status opened = ts_cuda_open(0, &cuda, &err);
    if (opened == TS_EUNSUPPORTED || opened == TS_ENOTFOUND) {
        printf("SKIP: no-gpu %s\n", err.text);
        return 77;
    }
    if (opened != TS_OK) {
        printf("%s\n", err.text);
        return 1;
    }
    const struct ts_cuda_properties *p = ts_cuda_properties(cuda);
    printf("device: %s, %s, sm_%u, %u multiprocessors, L2 %u MiB, shared %u KiB, %.1f GiB, CUDA %u\n",
           p->name, p->uuid, p->capability, p->multiprocessors, p->l2_bytes >> 20, p->shared_bytes_max >> 10,
           (double)p->memory_bytes / (1 << 30), p->driver_version);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
