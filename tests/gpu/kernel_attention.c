/*
 * The attention kernels, compiled for the CPU, against a softmax in double precision, with the threads of a
 * block in ascending, descending and drawn orders (gpu/cuda/host/kernel_host.h); and the plans that the host
 * makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cuda/attention/attention_args.h"
#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/attention_fixture.h"

static uint32_t turn;

/* Each case in another order than the one before. */
static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    kernel_host_set_order(orders[turn++ % 3]);
}

/* --- plans ---------------------------------------------------------------------------------------------- */

#define ROWS 40u

struct batch {
    uint32_t first[ROWS], count[ROWS], start[ROWS];
    struct cuda_attention_rows rows;
};

static void draw(struct batch *b, const struct cuda_attention_limits *limits, struct ts_rng *rng)
{
    uint32_t at = 0;
    b->rows = (struct cuda_attention_rows){.rows = 1 + (uint32_t)ts_rng_below(rng, limits->rows),
                                           .first = b->first,
                                           .count = b->count,
                                           .start = b->start};
    for (uint32_t r = 0; r < b->rows.rows; r++) {
        uint32_t left = limits->tokens - at, most = ts_rng_below(rng, 2) ? 2 : limits->context;
        uint32_t count = (uint32_t)ts_rng_below(rng, (left < most ? left : most) + 1ull);
        b->first[r] = at;
        b->count[r] = count;
        b->start[r] = (uint32_t)ts_rng_below(rng, limits->context - count + 1ull);
        at += count;
    }
}

/* Every key of a row of one token in one span, in order. */
static void check_spans(const struct cuda_attention_shape *shape, const struct cuda_attention_limits *limits,
                        const struct batch *b, const struct attention_span *spans, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t r = 0; r < b->rows.rows; r++) {
        if (b->count[r] != 1 || limits->batch_invariant)
            continue;
        uint32_t length = b->start[r] + 1, first = at;
        uint32_t key = shape->window && length > shape->window ? (length - shape->window) / 16 * 16 : 0;
        assert_true(at < count);
        uint32_t of = spans[first].of;
        assert_in_range(of, 1, ATTENTION_SPANS_MAX);
        for (; at < first + of; at++) {
            assert_true(at < count && spans[at].row == r && spans[at].token == b->first[r]);
            assert_true(spans[at].first == first && spans[at].of == of && spans[at].length == length);
            assert_int_equal(spans[at].begin, key);
            assert_true(spans[at].end > key && (spans[at].end - key) % 64 * (length - spans[at].end) == 0);
            key = spans[at].end;
        }
        assert_int_equal(key, length);
    }
    assert_int_equal(at, count);
}

/* Every pair of the other rows in one tile, the last ones first. */
static void check_tiles(const struct cuda_attention_shape *shape, const struct cuda_attention_limits *limits,
                        const struct batch *b, const struct attention_tile *tiles,
                        const struct cuda_attention_plan *plan)
{
    uint32_t at = 0, group = shape->q_heads / shape->kv_heads;
    for (uint32_t r = 0; r < b->rows.rows; r++) {
        uint64_t pairs = (uint64_t)b->count[r] * group;
        if (b->count[r] == 1 && !limits->batch_invariant)
            continue;
        for (uint64_t end = pairs; end > 0; at++) {
            assert_true(at < plan->tiles && tiles[at].row == r && tiles[at].token == b->first[r]);
            assert_true(tiles[at].start == b->start[r] && tiles[at].count == b->count[r]);
            assert_true(tiles[at].begin < end && end - tiles[at].begin <= plan->tile_rows);
            assert_int_equal(tiles[at].begin % plan->tile_rows, 0);
            end = tiles[at].begin;
        }
    }
    assert_int_equal(at, plan->tiles);
}

static void check_plan(const struct cuda_attention_shape *shape, const struct cuda_attention_limits *limits,
                       const struct batch *b)
{
    size_t bytes = cuda_attention_plan_bytes(shape, limits);
    struct cuda_attention_limits of_batch = *limits;
    struct cuda_attention_plan plan;
    uint8_t *array = ts_xcalloc(bytes + 16, 1);
    cuda_attention_plan_make(shape, limits, &b->rows, array, &plan);
    const struct attention_head *head = (const struct attention_head *)(void *)array;
    assert_int_equal(head->spans, plan.spans);
    check_spans(shape, limits, b, (const struct attention_span *)(const void *)(head + 1), plan.spans);
    check_tiles(shape, limits, b, (const struct attention_tile *)(const void *)(array + plan.tiles_at),
                &plan);
    assert_int_equal(plan.bytes, plan.tiles_at + plan.tiles * sizeof(struct attention_tile));
    for (size_t i = plan.bytes; i < bytes + 16; i++)
        assert_int_equal(array[i], 0);
    of_batch.rows = b->rows.rows; /* the grid of a graph for this batch */
    assert_true(sizeof *head + plan.spans * sizeof(struct attention_span) <=
                cuda_attention_plan_bytes(shape, &of_batch));
    ts_free(array);
}

static void test_plans(void **state)
{
    struct ts_rng rng;
    struct batch b;
    (void)state;
    ts_rng_init(&rng, 11);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t kv_heads = 1 + (uint32_t)ts_rng_below(&rng, 8), group = 1 + (uint32_t)ts_rng_below(&rng, 20);
        struct cuda_attention_shape shape = {kv_heads * group, kv_heads, i & 1 ? 64 : 80,
                                             i % 3 ? 0 : 1 + (uint32_t)ts_rng_below(&rng, 5000), true};
        struct cuda_attention_limits limits = {.rows = 1 + (uint32_t)ts_rng_below(&rng, ROWS),
                                               .tokens = 1 + (uint32_t)ts_rng_below(&rng, 9000),
                                               .context = 1 + (uint32_t)ts_rng_below(&rng, 30000),
                                               .multiprocessors = 1 + (uint32_t)ts_rng_below(&rng, 150),
                                               .span_tokens = i % 4 ? 0 : (uint32_t)ts_rng_below(&rng, 2000),
                                               .batch_invariant = i % 5 == 0};
        draw(&b, &limits, &rng);
        check_plan(&shape, &limits, &b);
    }
}

/* With batch_invariant a graph of more rows has the tiles of the rows there are, then empty ones, and the
 * launch is that of the graph without any row. */
static void test_padded(void **state)
{
    static const uint32_t one[8] = {1, 1, 1, 1, 1, 1, 1, 1}, at[8] = {0, 1, 2, 3, 4, 5, 6, 7},
                          start[8] = {0, 99, 5, 70, 16, 15, 31, 32};
    (void)state;
    for (uint32_t group = 1; group <= 200; group += 33) {
        const struct cuda_attention_shape shape = {group, 1, 128, 0, true};
        const struct cuda_attention_limits limits = {
            .rows = 8, .tokens = 8, .context = 100, .multiprocessors = 1, .batch_invariant = true};
        size_t bytes = cuda_attention_plan_bytes(&shape, &limits);
        for (uint32_t rows = 0; rows <= 8; rows++) {
            struct batch b = {.rows = {.rows = rows, .first = at, .count = one, .start = start, .padded = 8}};
            const struct cuda_attention_rows none = {.padded = 8};
            struct cuda_attention_plan plan, graph;
            uint8_t *array = ts_xcalloc(bytes, 1);
            cuda_attention_plan_make(&shape, &limits, &none, array, &graph);
            memset(array, 0xff, bytes);
            cuda_attention_plan_make(&shape, &limits, &b.rows, array, &plan);
            assert_true(plan.tiles == graph.tiles && plan.tiles_at == graph.tiles_at &&
                        plan.tile_rows == graph.tile_rows && plan.spans == 0 && plan.bytes <= bytes);
            struct attention_tile *tiles = (struct attention_tile *)(void *)(array + plan.tiles_at);
            memcpy(b.first, at, sizeof at);
            memcpy(b.count, one, sizeof one);
            memcpy(b.start, start, sizeof start);
            for (uint32_t i = rows * (plan.tiles / 8); i < plan.tiles; i++)
                assert_int_equal(tiles[i].count, 0);
            plan.tiles = rows * (plan.tiles / 8);
            check_tiles(&shape, &limits, &b, tiles, &plan);
            ts_free(array);
        }
    }
}

/* The largest batch of a context, and none. */
static void test_ends(void **state)
{
    const struct cuda_attention_shape shape = {128, 1, 128, 0, true};
    struct cuda_attention_limits limits = {
        .rows = 2, .tokens = 1u << 20, .context = 1u << 30, .multiprocessors = 1000};
    struct batch b = {
        .first = {0, 1}, .count = {1, (1u << 20) - 1}, .start = {(1u << 30) - 1, (1u << 30) - (1u << 20)}};
    struct cuda_attention_plan plan;
    (void)state;
    b.rows = (struct cuda_attention_rows){.rows = 2, .first = b.first, .count = b.count, .start = b.start};
    check_plan(&shape, &limits, &b);
    limits.span_tokens = 1;
    check_plan(&shape, &limits, &b);
    limits.rows = 0;
    assert_int_equal(cuda_attention_plan_bytes(&shape, &limits), 0);
    assert_int_equal(cuda_attention_workspace_bytes(&shape, &limits), 0);
    b.rows.rows = 0;
    cuda_attention_plan_make(&shape, &limits, &b.rows, NULL, &plan);
    assert_true(plan.bytes == 0 && plan.spans == 0 && plan.tiles == 0);
}

static void test_check(void **state)
{
    static const uint32_t taken[] = {4, 8, 12, 32, 40, 128, 256},
                          refused[] = {0, 2, 6, 36, 100, 257, 264, 512};
    struct cuda_attention_shape shape = {6, 3, 64, 0, false};
    struct ts_error err;
    (void)state;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        shape.head_dim = taken[i];
        assert_int_equal(cuda_attention_check(&shape, &err), TS_OK);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        shape.head_dim = refused[i];
        assert_int_equal(cuda_attention_check(&shape, &err), TS_EUNSUPPORTED);
    }
    shape = (struct cuda_attention_shape){7, 3, 64, 0, false};
    assert_int_equal(cuda_attention_check(&shape, &err), TS_EUNSUPPORTED);
}

/* --- kernels -------------------------------------------------------------------------------------------- */

static int open_device(void **state)
{
    *state = kernel_host_open(NULL);
    attention_use(*state, next_order);
    return 0;
}

static int close_device(void **state)
{
    struct ts_cuda *cuda = *state;
    ts_cuda_close(&cuda);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_padded),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_check),
        cmocka_unit_test(attention_test_groups),
        cmocka_unit_test(attention_test_widths),
        cmocka_unit_test(attention_test_windows),
        cmocka_unit_test(attention_test_tiles),
        cmocka_unit_test(attention_test_cuts),
        cmocka_unit_test(attention_test_spans),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
