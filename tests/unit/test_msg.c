/* Names of kinds, reasons and channels, which kind may pass on which channel, and the container of actions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_event.h"

static const enum ts_msg_kind kinds[] = {
#define KIND(K, number, member, suffix) TS_MSG_##K,
    TS_MSG_KINDS(KIND)
#undef KIND
};

static void test_kind_names(void **state)
{
    (void)state;
    assert_string_equal(ts_msg_name(TS_MSG_HELLO), "hello");
    assert_string_equal(ts_msg_name(TS_MSG_KV_COMMIT), "kv_commit");
    assert_string_equal(ts_msg_name(TS_MSG_NONE), "unknown");
    assert_string_equal(ts_msg_name((enum ts_msg_kind)9999), "unknown");
    for (size_t i = 0; i < TS_ARRAY_SIZE(kinds); i++) {
        assert_string_not_equal(ts_msg_name(kinds[i]), "unknown");
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(ts_msg_name(kinds[i]), ts_msg_name(kinds[j]));
    }
}

static void check_names(const char *(*name)(unsigned), unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++) {
        assert_string_not_equal(name(i), "unknown");
        for (unsigned j = first; j < i; j++)
            assert_string_not_equal(name(i), name(j));
    }
    assert_string_equal(name(last + 1), "unknown");
    assert_string_equal(name(UINT32_MAX), "unknown");
}

static const char *channel_name(unsigned value)
{
    return ts_channel_name((enum ts_channel)value);
}

static const char *role_name(unsigned value)
{
    return ts_role_name((enum ts_role)value);
}

static const char *phase_name(unsigned value)
{
    return ts_phase_name((enum ts_phase)value);
}

static const char *finish_name(unsigned value)
{
    return ts_finish_name((enum ts_finish)value);
}

static const char *reason_name(unsigned value)
{
    return ts_reason_name((enum ts_reason)value);
}

static void test_value_names(void **state)
{
    (void)state;
    check_names(channel_name, TS_CHANNEL_CLIENT, TS_CHANNEL_LAST);
    check_names(role_name, TS_ROLE_ROUTER, TS_ROLE_LAST);
    check_names(phase_name, TS_PHASE_NONE, TS_PHASE_BOTH);
    check_names(finish_name, TS_FINISH_NONE, TS_FINISH_LAST);
    check_names(reason_name, TS_REASON_NONE, TS_REASON_LAST);
    assert_string_equal(ts_reason_name(TS_REASON_QUEUE_FULL), "queue_full");
    assert_string_equal(ts_finish_name(TS_FINISH_LENGTH), "length");
    assert_string_equal(ts_channel_name((enum ts_channel)0), "unknown");
}

static void test_allowed(void **state)
{
    (void)state;
    static const struct {
        enum ts_channel channel;
        enum ts_msg_kind kind;
        bool allowed;
    } cases[] = {
        {TS_CHANNEL_CLIENT, TS_MSG_GENERATE, true},
        {TS_CHANNEL_WORKER, TS_MSG_GENERATE, false},
        {TS_CHANNEL_CLIENT, TS_MSG_ASSIGN, false},
        {TS_CHANNEL_WORKER, TS_MSG_ASSIGN, true},
        {TS_CHANNEL_CLIENT, TS_MSG_HEARTBEAT, true},
        {TS_CHANNEL_ADMIN, TS_MSG_HEARTBEAT, false},
        {TS_CHANNEL_CLIENT, TS_MSG_DRAIN, false},
        {TS_CHANNEL_ADMIN, TS_MSG_DRAIN, true},
        {TS_CHANNEL_CLIENT, TS_MSG_SET_PHASE, false},
        {TS_CHANNEL_CLIENT, TS_MSG_PLAN, false},
        {TS_CHANNEL_PLANNER, TS_MSG_PLAN, true},
        {TS_CHANNEL_POOL, TS_MSG_RELEASE, true},
        {TS_CHANNEL_RELAY, TS_MSG_RELEASE, true},
        {TS_CHANNEL_KV, TS_MSG_RELEASE, false},
        {TS_CHANNEL_KV, TS_MSG_KV_CHUNK, true},
        {TS_CHANNEL_POOL, TS_MSG_KV_CHUNK, false},
        {TS_CHANNEL_POOL, TS_MSG_POOL, true},
        {TS_CHANNEL_KV, TS_MSG_POOL, false},
        {TS_CHANNEL_STAGE, TS_MSG_ACTIVATIONS, true},
        {TS_CHANNEL_WORKER, TS_MSG_NONE, false},
        {TS_CHANNEL_WORKER, 16, false},
        {TS_CHANNEL_WORKER, 5000, false},
        {0, TS_MSG_HELLO, false},
        {TS_CHANNEL_LAST + 1, TS_MSG_HELLO, false},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++)
        if (ts_msg_allowed(cases[i].channel, cases[i].kind) != cases[i].allowed)
            fail_msg("%s on %s", ts_msg_name(cases[i].kind), ts_channel_name(cases[i].channel));
}

static void test_every_kind_has_a_channel(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(kinds); i++) {
        unsigned channels = 0;
        for (unsigned c = 1; c <= TS_CHANNEL_LAST; c++)
            channels += ts_msg_allowed((enum ts_channel)c, kinds[i]);
        if (channels == 0)
            fail_msg("%s may pass nowhere", ts_msg_name(kinds[i]));
    }
}

static void test_sessions_on_all_but_client_and_admin(void **state)
{
    (void)state;
    for (unsigned c = 1; c <= TS_CHANNEL_LAST; c++)
        assert_int_equal(ts_msg_allowed((enum ts_channel)c, TS_MSG_HELLO),
                         c != TS_CHANNEL_CLIENT && c != TS_CHANNEL_ADMIN);
}

static void test_actions(void **state)
{
    (void)state;
    struct ts_actions actions;
    ts_actions_init(&actions);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(actions.count, 0);
        struct ts_action_send *send = ts_actions_send(&actions, TS_CHANNEL_KV, 5, TS_MSG_KV_DONE);
        assert_int_equal(send->channel, TS_CHANNEL_KV);
        assert_int_equal(send->peer, 5);
        assert_int_equal(send->msg.kind, TS_MSG_KV_DONE);
        assert_int_equal(send->msg.kv_done.rid.request, 0); /* zeroed in the second round too */
        send->msg.kv_done.rid.request = 99;
        ts_actions_drop(&actions, (struct ts_bulk){.slot = 0, .generation = 1});
        ts_actions_drop(&actions, (struct ts_bulk){.slot = 3, .generation = 1, .bytes = 10});
        ts_actions_log(&actions, 2, "event=x n=%d", round);
        assert_int_equal(actions.count, 3); /* no drop of slot 0 */
        assert_int_equal(actions.items[1].kind, TS_ACTION_DROP);
        assert_int_equal(actions.items[1].drop.bulk.slot, 3);
        assert_int_equal(actions.items[2].log.level, 2);
        assert_true(
            ts_str_equal(actions.items[2].log.text, ts_str_of(round ? "event=x n=1" : "event=x n=0")));
        ts_actions_clear(&actions);
    }
    ts_actions_fini(&actions);
}

static void test_long_log_is_cut_at_a_character(void **state)
{
    (void)state;
    char text[6001];
    struct ts_actions actions;
    ts_actions_init(&actions);
    for (size_t i = 0; i < 6000; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    text[6000] = '\0';
    ts_actions_log(&actions, 0, "%s", text);
    assert_in_range(actions.items[0].log.text.count, 4000, 4096);
    assert_int_equal(ts_schema_check(&ts_action_schema, &actions.items[0], NULL), TS_OK);
    ts_actions_fini(&actions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kind_names),
        cmocka_unit_test(test_value_names),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_every_kind_has_a_channel),
        cmocka_unit_test(test_sessions_on_all_but_client_and_admin),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_long_log_is_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
