/* What goes into a batch: prefill in chunks that end at multiples of 16, decode with single steps first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_rng.h"
#include "services/decode/decode_batch.h"
#include "services/prefill/prefill_batch.h"

#define MAX 5

struct batch_case {
    const char *name;
    uint32_t count, tokens, rows;
    uint32_t done[MAX], total[MAX]; /* decode: total = pending */
    uint32_t take[MAX];
};

static const struct batch_case prefill_cases[] = {
    {"nobody", 0, 64, 4, {0}, {0}, {0}},
    {"fits", 1, 64, 4, {0}, {20}, {20}},
    {"cut at a multiple of 16", 1, 19, 4, {0}, {20}, {16}},
    {"the rest", 1, 19, 4, {16}, {20}, {4}},
    {"a small rest ends the prompt", 1, 4, 4, {16}, {20}, {4}},
    {"no room for a block", 1, 15, 4, {0}, {20}, {0}},
    {"oldest first", 2, 40, 4, {0, 0}, {32, 20}, {32, 0}},
    {"what is left goes to the next", 2, 48, 4, {0, 0}, {32, 20}, {32, 16}},
    {"a short one fits behind a long one", 2, 20, 4, {0, 0}, {100, 4}, {16, 4}},
    {"rows", 3, 64, 2, {0, 0, 0}, {4, 4, 4}, {4, 4, 0}},
    {"no rows", 1, 64, 0, {0}, {4}, {0}},
    {"no tokens", 1, 0, 4, {0}, {4}, {0}},
};

static const struct batch_case decode_cases[] = {
    {"nobody", 0, 64, 4, {0}, {0}, {0}},
    {"one step each", 3, 64, 4, {0}, {1, 1, 1}, {1, 1, 1}},
    {"oldest first", 3, 2, 4, {0}, {1, 1, 1}, {1, 1, 0}},
    {"rows", 3, 64, 2, {0}, {1, 1, 1}, {1, 1, 0}},
    {"a replay comes last", 3, 10, 4, {0}, {30, 1, 1}, {8, 1, 1}},
    {"a replay waits for a row", 3, 64, 2, {0}, {30, 1, 1}, {0, 1, 1}},
    {"replays by age", 3, 21, 4, {0}, {12, 12, 1}, {12, 8, 1}},
    {"no tokens", 2, 0, 4, {0}, {1, 3}, {0, 0}},
};

static void check(const struct batch_case *c, const uint32_t *take)
{
    for (uint32_t i = 0; i < c->count; i++) {
        if (take[i] != c->take[i])
            fail_msg("%s: candidate %u gets %u, not %u", c->name, i, take[i], c->take[i]);
    }
}

static void test_prefill(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(prefill_cases); i++) {
        const struct batch_case *c = &prefill_cases[i];
        struct prefill_candidate candidates[MAX];
        uint32_t take[MAX] = {9, 9, 9, 9, 9};
        for (uint32_t k = 0; k < c->count; k++)
            candidates[k] = (struct prefill_candidate){c->done[k], c->total[k]};
        prefill_batch(candidates, c->count, c->tokens, c->rows, take);
        check(c, take);
    }
}

static void test_prefill_due(void **state)
{
    (void)state;
    assert_true(prefill_due(0, 2000, 1000000) == 2000000000); /* 2 s for 2,000 tokens */
    assert_true(prefill_due(1900000000, 50, 1000000) <
                prefill_due(0, 2000, 1000000)); /* a short one passes */
    assert_true(prefill_due(2000000000, 50, 1000000) > prefill_due(0, 2000, 1000000)); /* but not for ever */
    assert_true(prefill_due(5, 2000, 0) < prefill_due(6, 1, 0)); /* first come, first served */
}

static void test_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(decode_cases); i++) {
        const struct batch_case *c = &decode_cases[i];
        uint32_t take[MAX] = {0};
        decode_batch(c->total, c->count, c->tokens, c->rows, take);
        check(c, take);
    }
}

/* Over random batches: within the budgets, no block cut, and all are done after finitely many. */
static void test_prefill_ends(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 1);
    for (int round = 0; round < 200; round++) {
        struct prefill_candidate c[MAX];
        uint32_t tokens = 16 + (uint32_t)ts_rng_below(&rng, 100), rows = 1 + (uint32_t)ts_rng_below(&rng, 3),
                 left = 0;
        for (int i = 0; i < MAX; i++) {
            c[i] = (struct prefill_candidate){0, 1 + (uint32_t)ts_rng_below(&rng, 200)};
            left += c[i].total;
        }
        while (left > 0) {
            uint32_t take[MAX], used = 0, used_rows = 0;
            prefill_batch(c, MAX, tokens, rows, take);
            for (int i = 0; i < MAX; i++) {
                used += take[i];
                used_rows += take[i] > 0;
                c[i].done += take[i];
                assert_true(c[i].done % 16 == 0 || c[i].done == c[i].total);
            }
            assert_true(used > 0 && used <= tokens && used_rows <= rows);
            left -= used;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prefill), cmocka_unit_test(test_prefill_due),
                                       cmocka_unit_test(test_decode), cmocka_unit_test(test_prefill_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
