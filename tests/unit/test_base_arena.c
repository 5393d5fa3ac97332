/* The arena: alignment, that pieces do not overlap, and that a reset makes room again. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_rng.h"

#define PIECES 2000

static void fill_and_check(struct ts_arena *arena, struct ts_rng *rng)
{
    static unsigned char *pieces[PIECES];
    static size_t sizes[PIECES];
    size_t total = 0;
    for (size_t i = 0; i < PIECES; i++) {
        sizes[i] = i % 500 == 7 ? 100000 + i : (size_t)ts_rng_below(rng, 300);
        pieces[i] = ts_arena_alloc(arena, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i % 251), sizes[i]);
        total += sizes[i];
    }
    assert_true(arena->used_bytes >= total);
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t j = 0; j < sizes[i]; j++) {
            assert_int_equal(pieces[i][j], i % 251);
        }
    }
}

static void test_pieces_are_apart(void **state)
{
    (void)state;
    struct ts_arena arena;
    struct ts_rng rng;
    ts_arena_init(&arena);
    ts_rng_init(&rng, 1);
    for (int turn = 0; turn < 3; turn++) {
        fill_and_check(&arena, &rng);
        ts_arena_reset(&arena);
        assert_int_equal(arena.used_bytes, 0);
    }
    ts_arena_fini(&arena);
    assert_null(arena.head);
}

static void test_reset_reuses_a_block(void **state)
{
    (void)state;
    struct ts_arena arena;
    ts_arena_init(&arena);
    void *first = ts_arena_alloc(&arena, 100);
    ts_arena_reset(&arena);
    assert_ptr_equal(ts_arena_alloc(&arena, 100), first);
    ts_arena_reset(&arena);
    /* A giant block must not stay. */
    ts_arena_alloc(&arena, 64u << 20);
    ts_arena_reset(&arena);
    assert_ptr_equal(ts_arena_alloc(&arena, 100), first);
    ts_arena_fini(&arena);
    ts_arena_fini(&arena);
}

static void test_helpers(void **state)
{
    (void)state;
    struct ts_arena arena;
    ts_arena_init(&arena);
    assert_non_null(ts_arena_alloc(&arena, 0));
    unsigned char *dirty = ts_arena_alloc(&arena, 64);
    memset(dirty, 0xff, 64);
    ts_arena_reset(&arena);
    ts_arena_alloc(&arena, 0);
    const unsigned char zeros[48] = {0};
    assert_memory_equal(ts_arena_zalloc(&arena, 48), zeros, 48);
    assert_memory_equal(ts_arena_copy(&arena, "abc", 4), "abc", 4);
    assert_non_null(ts_arena_copy(&arena, NULL, 0));
    assert_string_equal(ts_arena_printf(&arena, "%s=%d", "x", 42), "x=42");
    ts_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_apart),
        cmocka_unit_test(test_reset_reuses_a_block),
        cmocka_unit_test(test_helpers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
