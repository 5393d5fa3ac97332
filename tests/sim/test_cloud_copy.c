/* A compiled copy of a message is what ts_schema_copy makes, and holds when the original is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "services/cloud/cloud_copy.h"
#include "tests/wire/wire_filler.h"

#define ROUNDS 40

static void test_every_kind(void **state)
{
    struct copier *copier = copier_new();
    struct ts_arena original, kept;
    struct ts_rng rng;
    (void)state;
    ts_arena_init(&original);
    ts_arena_init(&kept);
    ts_rng_init(&rng, 5);
    for (size_t i = 0; i < wire_kind_count; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            struct ts_envelope envelope;
            struct ts_msg msg, copy, reference;
            wire_fill_message(wire_kinds[i], &rng, &original, &envelope, &msg);
            memset(&copy, 0xaa, sizeof copy); /* a packet that is used again */
            copier_copy(copier, &copy, &msg, &kept);
            ts_schema_copy(&ts_msg_schema, &reference, &msg, &kept);
            ts_arena_reset(&original);
            memset(ts_arena_alloc(&original, 512), 0x55, 512); /* where it began */
            wire_fill_message(wire_kinds[i], &rng, &original, &envelope, &msg);
            assert_true(ts_schema_equal(&ts_msg_schema, &copy, &reference));
            ts_arena_reset(&original);
            ts_arena_reset(&kept);
        }
    }
    ts_arena_fini(&original);
    ts_arena_fini(&kept);
    copier_destroy(&copier);
}

static void test_empty(void **state)
{
    struct copier *copier = copier_new();
    struct ts_arena arena;
    (void)state;
    ts_arena_init(&arena);
    for (size_t i = 0; i < wire_kind_count; i++) {
        struct ts_msg msg = {.kind = wire_kinds[i]}, copy;
        memset(&copy, 0xaa, sizeof copy);
        copier_copy(copier, &copy, &msg, &arena);
        assert_true(ts_schema_equal(&ts_msg_schema, &copy, &msg));
    }
    assert_int_equal(arena.used_bytes, 0); /* nothing is allocated for what is empty */
    ts_arena_fini(&arena);
    copier_destroy(&copier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kind), cmocka_unit_test(test_empty)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
