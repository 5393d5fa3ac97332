/* What goes in comes out, for random values of every kind; and what is out of bounds does not go in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "proto/ts_wire.h"
#include "tests/wire/wire_filler.h"

#define ROUNDS 40

static struct ts_arena arena;

static int reset_arena(void **state)
{
    (void)state;
    ts_arena_reset(&arena);
    return 0;
}

static void test_messages(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 17);
    for (size_t i = 0; i < wire_kind_count; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            struct ts_envelope envelope, envelope_back;
            struct ts_msg msg, msg_back;
            struct ts_bytes bytes;
            struct ts_wire_counters counters = {0};
            wire_fill_message(wire_kinds[i], &rng, &arena, &envelope, &msg);
            assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
            assert_int_equal(ts_wire_unpack(bytes.data, bytes.count, wire_channel_of(wire_kinds[i]), &arena,
                                            &envelope_back, &msg_back, &counters, NULL),
                             TS_OK);
            assert_true(ts_schema_equal(&ts_envelope_schema, &envelope, &envelope_back));
            assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
            assert_int_equal(ts_wire_refused(&counters), 0);
            ts_arena_reset(&arena);
        }
    }
}

static void test_empty_messages(void **state)
{
    (void)state;
    for (size_t i = 0; i < wire_kind_count; i++) {
        struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION}, envelope_back;
        struct ts_msg msg = {.kind = wire_kinds[i]}, msg_back;
        struct ts_bytes bytes;
        assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
        assert_in_range(bytes.count, 4 + TS_WIRE_SEAL_BYTES,
                        5 + TS_WIRE_SEAL_BYTES); /* version, empty body */
        assert_int_equal(ts_wire_unpack(bytes.data, bytes.count, wire_channel_of(wire_kinds[i]), &arena,
                                        &envelope_back, &msg_back, NULL, NULL),
                         TS_OK);
        assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
    }
}

static void test_text_with_nul(void **state)
{
    (void)state;
    struct ts_token_item item = {.token = 1, .text = {"a\0b", 3}};
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION}, envelope_back;
    struct ts_msg msg = {.kind = TS_MSG_TOKENS, .tokens = {.items = {&item, 1}}}, msg_back;
    struct ts_bytes bytes;
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
    assert_int_equal(ts_wire_unpack(bytes.data, bytes.count, TS_CHANNEL_CLIENT, &arena, &envelope_back,
                                    &msg_back, NULL, NULL),
                     TS_OK);
    assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
    msg.tokens.request_id = (struct ts_str){"a\0b", 3}; /* an id may not: protobuf-c would cut it */
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_EINVAL);
}

static void test_pack_refuses(void **state)
{
    (void)state;
    static char text[TS_TEXT_BYTES_MAX + 1];
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION};
    struct ts_bytes bytes;
    struct ts_msg msg = {.kind = TS_MSG_NONE};
    memset(text, 'x', sizeof text);
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_EINVAL);
    msg.kind = (enum ts_msg_kind)16;
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_EINVAL);
    msg = (struct ts_msg){.kind = TS_MSG_POOL_REPLY, .pool_reply = {.text = {text, sizeof text}}};
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_EINVAL);
    msg.pool_reply.text.count--;
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
    msg.pool_reply.reason = (enum ts_reason)(TS_REASON_LAST + 1);
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_EINVAL);
}

/* As long as the bounds allow: the whole must still fit into one envelope. */
static void test_longest_prompt(void **state)
{
    (void)state;
    uint32_t *ids = ts_arena_alloc(&arena, TS_PROMPT_TOKENS_MAX * sizeof *ids);
    uint64_t *chain = ts_arena_alloc(&arena, TS_LIST_MAX * sizeof *chain);
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION}, envelope_back;
    struct ts_bytes bytes;
    struct ts_msg msg = {.kind = TS_MSG_KV_COMMIT}, msg_back;
    for (uint32_t i = 0; i < TS_PROMPT_TOKENS_MAX; i++)
        ids[i] = UINT32_MAX - i;
    memset(chain, 0xff, TS_LIST_MAX * sizeof *chain);
    msg.kv_commit.prompt_ids = (struct ts_u32s){ids, TS_PROMPT_TOKENS_MAX};
    msg.kv_commit.produced = (struct ts_u32s){ids, TS_PROMPT_TOKENS_MAX};
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
    assert_int_equal(
        ts_wire_unpack(bytes.data, bytes.count, TS_CHANNEL_KV, &arena, &envelope_back, &msg_back, NULL, NULL),
        TS_OK);
    assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
    msg = (struct ts_msg){.kind = TS_MSG_KV_BEGIN};
    msg.kv_begin.blocks = (struct ts_u32s){ids, TS_PROMPT_TOKENS_MAX};
    msg.kv_begin.chain = (struct ts_u64s){chain, TS_LIST_MAX};
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
}

static void test_records(void **state)
{
    (void)state;
    for (uint32_t kind = TS_RECORD_HEADER; kind <= TS_RECORD_STEP; kind++) {
        for (uint64_t seed = 0; seed < 400; seed++) {
            struct ts_record_entry entry, back;
            struct ts_bytes bytes;
            struct ts_rng rng;
            ts_rng_init(&rng, seed);
            wire_fill(&ts_record_schema, &entry, kind, &rng, &arena);
            assert_int_equal(ts_wire_pack_record(&entry, &arena, &bytes), TS_OK);
            assert_int_equal(ts_wire_unpack_record(bytes.data, bytes.count, &arena, &back, NULL), TS_OK);
            assert_true(ts_schema_equal(&ts_record_schema, &entry, &back));
            ts_arena_reset(&arena);
        }
    }
}

static void test_record_of_every_event_and_action(void **state)
{
    (void)state;
    struct ts_action actions[TS_ACTION_LAST];
    struct ts_rng rng;
    ts_rng_init(&rng, 3);
    for (uint32_t i = 0; i < TS_ACTION_LAST; i++)
        wire_fill(&ts_action_schema, &actions[i], i + 1, &rng, &arena);
    for (uint32_t kind = 1; kind <= TS_EVENT_LAST; kind++) {
        struct ts_record_entry entry = {.kind = TS_RECORD_STEP,
                                        .step = {.now = -5, .actions = {actions, TS_ACTION_LAST}}};
        struct ts_record_entry back;
        struct ts_bytes bytes;
        wire_fill(&ts_event_schema, &entry.step.event, kind, &rng, &arena);
        assert_int_equal(ts_wire_pack_record(&entry, &arena, &bytes), TS_OK);
        assert_int_equal(ts_wire_unpack_record(bytes.data, bytes.count, &arena, &back, NULL), TS_OK);
        assert_int_equal(back.step.event.kind, kind);
        assert_true(ts_schema_equal(&ts_record_schema, &entry, &back));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_messages, reset_arena),
        cmocka_unit_test_setup(test_empty_messages, reset_arena),
        cmocka_unit_test_setup(test_text_with_nul, reset_arena),
        cmocka_unit_test_setup(test_pack_refuses, reset_arena),
        cmocka_unit_test_setup(test_longest_prompt, reset_arena),
        cmocka_unit_test_setup(test_records, reset_arena),
        cmocka_unit_test_setup(test_record_of_every_event_and_action, reset_arena),
    };
    ts_arena_init(&arena);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_arena_fini(&arena);
    return failed;
}
