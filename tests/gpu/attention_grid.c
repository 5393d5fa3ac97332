/* The grid: what each of its tests varies, the rest small. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "tests/gpu/attention_fixture.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Of one token, at the ends of blocks; of several, from the begin and behind cached ones; of none. */
static const struct attention_row mixed[] = {{0, 1},  {0, 37}, {15, 1},  {21, 12}, {40, 0},
                                             {16, 1}, {74, 1}, {127, 2}, {199, 1}, {62, 3}};

static struct attention_case mixed_case(uint32_t q_heads, uint32_t kv_heads, uint32_t head_dim, bool bf16)
{
    struct attention_case c = {.shape = {q_heads, kv_heads, head_dim, 0, bf16},
                               .row_count = COUNT(mixed),
                               .span_tokens = 64,
                               .seed = q_heads * 1000 + head_dim};
    memcpy(c.rows, mixed, sizeof mixed);
    return c;
}

static void run(const struct attention_case *c)
{
    ts_free(attention_run(c));
}

void attention_test_groups(void **state)
{
    static const uint32_t groups[] = {1, 2, 3, 4, 7, 8, 16, 17};
    (void)state;
    for (size_t i = 0; i < COUNT(groups); i++) {
        uint32_t kv_heads = groups[i] < 4 ? 3 : groups[i] < 16 ? 2 : 1;
        struct attention_case c = mixed_case(groups[i] * kv_heads, kv_heads, 32, i & 1);
        run(&c);
    }
}

void attention_test_widths(void **state)
{
    static const uint32_t dims[] = {4, 8, 12, 16, 24, 48, 64, 72, 80, 96, 112, 128, 192, 256};
    (void)state;
    for (size_t i = 0; i < COUNT(dims); i++) {
        struct attention_case c = mixed_case(2, 1, dims[i], i & 1);
        run(&c);
        c.shape.bf16 = !c.shape.bf16;
        c.row_count = 5;
        run(&c);
    }
}

void attention_test_windows(void **state)
{
    static const uint32_t windows[] = {1, 2, 15, 16, 17, 33, 64, 65, 100, 1000, UINT32_MAX};
    (void)state;
    for (size_t i = 0; i < COUNT(windows); i++) {
        struct attention_case c = mixed_case(3, 1, 16, i & 1);
        c.shape.window = windows[i];
        c.wide_plan = i % 3 == 1;
        c.multiprocessors = i % 2 ? 1 : 64;
        c.span_tokens = i % 4 ? 64 : 0;
        /* the last query of a slab, and no other, loses the first key of a tile */
        c.rows[c.row_count++] = (struct attention_row){59 + (windows[i] < 200 ? windows[i] : 16), 8};
        run(&c);
    }
    struct attention_case c = mixed_case(2, 1, 256, true); /* tiles of 32 keys */
    c.shape.window = 33;
    c.wide_plan = true;
    run(&c);
}

void attention_test_tiles(void **state)
{
    static const struct attention_row rows[] = {{0, 70}, {33, 1}, {64, 65}, {5, 3}, {130, 43}};
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct attention_case c = {
            .shape = {3 + i, 1 + i % 2 * (2 + i), i & 1 ? 64 : 128, i == 3 ? 50 : 0, i / 2},
            .row_count = COUNT(rows),
            .multiprocessors = 1,
            .seed = i};
        memcpy(c.rows, rows, sizeof rows);
        run(&c);
    }
}

/* Row 0 in chunks, beside others: what its tokens get must not change by a bit. */
static void check_cut(const struct attention_case *whole, const uint16_t *want, uint32_t from, uint32_t count,
                      uint32_t neighbours, uint32_t multiprocessors)
{
    struct attention_case c = *whole;
    uint32_t width = c.shape.q_heads * c.shape.head_dim;
    c.rows[0] = (struct attention_row){from, count};
    c.row_count = 1 + neighbours;
    c.multiprocessors = multiprocessors;
    c.batch_invariant = true;
    uint16_t *got = attention_run(&c);
    for (uint32_t i = 0; i < count * width; i++) {
        if (got[i] != want[from * width + i])
            fail_msg("head_dim %u, window %u, tokens %u + %u: token %u, element %u", c.shape.head_dim,
                     c.shape.window, from, count, i / width, i % width);
    }
    ts_free(got);
}

void attention_test_cuts(void **state)
{
    static const struct {
        uint32_t q_heads, kv_heads, head_dim, window;
    } kinds[] = {{3, 1, 64, 0}, {2, 2, 32, 21}, {2, 1, 256, 0}};
    (void)state;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct attention_case c = {
            .shape = {kinds[i].q_heads, kinds[i].kv_heads, kinds[i].head_dim, kinds[i].window, i & 1},
            .rows = {{0, 140}, {7, 1}, {3, 20}},
            .row_count = 1,
            .multiprocessors = 1,
            .seed = 77 + i};
        uint16_t *want = attention_run(&c);
        check_cut(&c, want, 0, 64, 0, 64);
        check_cut(&c, want, 64, 49, 2, 1);
        check_cut(&c, want, 113, 27, 1, 64);
        check_cut(&c, want, 139, 1, 2, 64);
        check_cut(&c, want, 128, 1, 0, 64);
        ts_free(want);
    }
}

void attention_test_spans(void **state)
{
    static const uint32_t tokens[] = {64, 128, 192, 320, 512, 0};
    (void)state;
    for (uint32_t bf16 = 0; bf16 < 2; bf16++) {
        struct attention_case c = {.shape = {4, 2, 64, bf16 ? 700 : 0, bf16},
                                   .rows = {{999, 1}, {63, 1}, {64, 1}, {530, 1}},
                                   .row_count = 4,
                                   .span_tokens = 1024,
                                   .seed = 5};
        uint16_t *whole = attention_run(&c);
        for (size_t i = 0; i < COUNT(tokens); i++) {
            c.span_tokens = tokens[i];
            c.multiprocessors = 3;
            uint16_t *parts = attention_run(&c);
            double distance = attention_distance(parts, whole, (size_t)4 * 4 * 64, bf16);
            if (!(distance <= 2e-4)) /* 1e-3 would do; weights that round alike do better */
                fail_msg("%s, spans of %u: %g from one span", bf16 ? "bf16" : "f16", tokens[i], distance);
            ts_free(parts);
        }
        ts_free(whole);
    }
    /* as many spans as a row may have, and more */
    struct attention_case c = {
        .shape = {1, 1, 8, 0, false}, .rows = {{8990, 1}}, .row_count = 1, .span_tokens = 64};
    run(&c);
}
