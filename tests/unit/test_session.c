/* Sessions as a table of arriving messages, and the clockwork around them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_session.h"

enum { SELF = 0xa11, REMOTE = 0xb22, STRANGER = 0xc33, ID = 7 };

#define HEARTBEAT (100 * TS_MS)
#define TIMEOUT   (350 * TS_MS)

static struct ts_session accepted(ts_time now)
{
    struct ts_session s;
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    ts_session_accept(&s, now, ID, REMOTE);
    return s;
}

static struct ts_session dialled(ts_time now, uint32_t heartbeat_ms, uint32_t timeout_ms)
{
    struct ts_session s;
    struct ts_envelope welcome = {.version = 1, .incarnation = REMOTE, .session = ID, .seq = 1};
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    ts_session_welcomed(&s, now, &welcome, ID, heartbeat_ms, timeout_ms);
    return s;
}

static enum ts_session_verdict receive(struct ts_session *s, ts_time now, uint64_t incarnation,
                                       uint64_t session, uint64_t seq)
{
    struct ts_envelope envelope = {.version = 1, .incarnation = incarnation, .session = session, .seq = seq};
    return ts_session_receive(s, now, &envelope);
}

static void test_resets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct ts_msg_reset reset;
        bool ends_up, ends_down; /* a session that is up; one that is not */
    } cases[] = {
        {"of whatever there is", {.fenced = false}, true, false},
        {"of this session", {.incarnation = SELF, .session = ID}, true, false},
        {"of an earlier session", {.incarnation = SELF, .session = ID - 1}, false, false},
        {"of an earlier incarnation", {.incarnation = STRANGER, .session = ID}, false, false},
        {"fenced, whatever there is", {.fenced = true}, true, true},
        {"fenced, this one", {.fenced = true, .incarnation = SELF, .session = ID}, true, true},
        {"fenced, its Hello", {.fenced = true, .incarnation = SELF}, true, true},
        {"fenced, an earlier one", {.fenced = true, .incarnation = STRANGER}, false, false},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_session s = dialled(0, 0, 0);
        if (ts_session_ended(&s, &cases[i].reset) != cases[i].ends_up)
            fail_msg("up: %s", cases[i].name);
        ts_session_down(&s, 0);
        if (ts_session_ended(&s, &cases[i].reset) != cases[i].ends_down)
            fail_msg("down: %s", cases[i].name);
    }
    struct ts_envelope answered = {.incarnation = SELF, .session = ID, .seq = 9};
    struct ts_msg_reset reset = ts_session_reset(&answered, true, TS_REASON_PEER_LOST);
    assert_true(reset.fenced && reset.reason == TS_REASON_PEER_LOST);
    assert_int_equal(reset.incarnation, SELF);
    assert_int_equal(reset.session, ID);
}

static void test_receive(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t incarnation, session, seq; /* arrives after messages 1 and 2 */
        enum ts_session_verdict verdict;
        bool up;
        uint64_t rx_next;
    } cases[] = {
        {"in order", REMOTE, ID, 3, TS_SESSION_DELIVER, true, 4},
        {"one lost", REMOTE, ID, 4, TS_SESSION_BROKEN, false, 3},
        {"many lost", REMOTE, ID, UINT64_MAX, TS_SESSION_BROKEN, false, 3},
        {"repeated", REMOTE, ID, 2, TS_SESSION_DROP, true, 3},
        {"not numbered", REMOTE, ID, 0, TS_SESSION_DROP, true, 3},
        {"earlier session", REMOTE, ID - 1, 3, TS_SESSION_DROP, true, 3},
        {"no session", REMOTE, 0, 0, TS_SESSION_DROP, true, 3},
        {"other incarnation", STRANGER, ID, 3, TS_SESSION_DROP, true, 3},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_session s = accepted(0);
        assert_int_equal(receive(&s, 1, REMOTE, ID, 1), TS_SESSION_DELIVER);
        assert_int_equal(receive(&s, 2, REMOTE, ID, 2), TS_SESSION_DELIVER);
        enum ts_session_verdict verdict =
            receive(&s, 50, cases[i].incarnation, cases[i].session, cases[i].seq);
        if (verdict != cases[i].verdict || s.up != cases[i].up || s.rx_next != cases[i].rx_next)
            fail_msg("%s: verdict %d, up %d, next %lu", cases[i].name, (int)verdict, s.up,
                     (unsigned long)s.rx_next);
        /* Only what is delivered proves that the peer is alive. */
        assert_int_equal(s.last_rx, cases[i].verdict == TS_SESSION_DELIVER ? 50 : 2);
    }
}

/* A Welcome that comes again would start its session over, and what is sent then would be taken for repeats.
 */
static void test_repeats(void **state)
{
    (void)state;
    struct ts_envelope welcome = {.version = 1, .incarnation = REMOTE, .session = ID, .seq = 1};
    struct ts_envelope other = {.version = 1, .incarnation = REMOTE, .session = ID + 1, .seq = 1};
    struct ts_envelope late = {.version = 1, .incarnation = REMOTE, .session = ID - 1, .seq = 1};
    struct ts_envelope stranger = {.version = 1, .incarnation = STRANGER, .session = ID - 1, .seq = 1};
    struct ts_session s;
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    assert_false(ts_session_repeats(&s, &welcome));
    s = dialled(0, 0, 0);
    assert_true(ts_session_repeats(&s, &welcome));
    assert_true(ts_session_repeats(&s, &late));
    assert_false(ts_session_repeats(&s, &other));
    assert_false(ts_session_repeats(&s, &stranger));
    ts_session_down(&s, 10);
    assert_true(ts_session_repeats(&s, &welcome));
    assert_false(ts_session_repeats(&s, &other));
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t last = 0, before = 0;
    for (uint64_t random = 0; random < 64; random++) {
        assert_true(ts_session_number(&last, random % 2 ? UINT64_MAX : 0) > before);
        before = last;
    }
}

static void test_down_drops_all(void **state)
{
    (void)state;
    struct ts_session s;
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    assert_int_equal(receive(&s, 1, REMOTE, 0, 0), TS_SESSION_DROP);
    s = accepted(0);
    assert_int_equal(receive(&s, 1, REMOTE, ID, 2), TS_SESSION_BROKEN);
    assert_int_equal(receive(&s, 2, REMOTE, ID, 1), TS_SESSION_DROP);
}

static void check_stamp(struct ts_session *s, ts_time now, uint64_t session, uint64_t seq)
{
    struct ts_envelope envelope;
    ts_session_stamp(s, now, &envelope);
    assert_int_equal(envelope.version, TS_PROTOCOL_VERSION);
    assert_int_equal(envelope.incarnation, SELF);
    assert_int_equal(envelope.session, session);
    assert_int_equal(envelope.seq, seq);
}

static void test_stamp(void **state)
{
    (void)state;
    struct ts_session s;
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    check_stamp(&s, 0, 0, 0);
    check_stamp(&s, 0, 0, 0);
    ts_session_accept(&s, 5, ID, REMOTE);
    check_stamp(&s, 10, ID, 1); /* the Welcome */
    check_stamp(&s, 20, ID, 2);
    assert_int_equal(s.last_tx, 20);
    ts_session_down(&s, TS_TIME_NEVER);
    check_stamp(&s, 30, 0, 0); /* a Reset */
    ts_session_accept(&s, 40, ID + 1, REMOTE);
    check_stamp(&s, 40, ID + 1, 1);
}

static void test_welcome_counts(void **state)
{
    (void)state;
    struct ts_session s = dialled(0, 0, 0);
    assert_true(s.up);
    assert_int_equal(s.remote, REMOTE);
    check_stamp(&s, 0, ID, 1);
    assert_int_equal(receive(&s, 1, REMOTE, ID, 2), TS_SESSION_DELIVER); /* the Welcome was 1 */
}

static void test_welcome_sets_times(void **state)
{
    (void)state;
    struct ts_session s = dialled(0, 40, 90);
    assert_int_equal(s.heartbeat_ns, 40 * TS_MS);
    assert_int_equal(s.timeout_ns, 90 * TS_MS);
    s = dialled(0, 0, 0);
    assert_int_equal(s.heartbeat_ns, HEARTBEAT);
    assert_int_equal(s.timeout_ns, TIMEOUT);
}

static void test_welcome_to_no_session(void **state)
{
    (void)state;
    struct ts_session s;
    struct ts_envelope welcome = {.version = 1, .incarnation = REMOTE};
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    ts_session_welcomed(&s, 0, &welcome, 0, 1, 1);
    assert_false(s.up);
}

static void test_heartbeat(void **state)
{
    (void)state;
    struct ts_session s = accepted(0);
    assert_false(ts_session_heartbeat_due(&s, HEARTBEAT - 1));
    assert_true(ts_session_heartbeat_due(&s, HEARTBEAT));
    check_stamp(&s, HEARTBEAT, ID, 1); /* anything sent will do */
    assert_false(ts_session_heartbeat_due(&s, 2 * HEARTBEAT - 1));
    assert_true(ts_session_heartbeat_due(&s, 2 * HEARTBEAT));
    ts_session_down(&s, TS_TIME_NEVER);
    assert_false(ts_session_heartbeat_due(&s, 9 * HEARTBEAT));
}

static void test_expiry(void **state)
{
    (void)state;
    struct ts_session s = accepted(0);
    assert_false(ts_session_expired(&s, TIMEOUT - 1));
    assert_true(ts_session_expired(&s, TIMEOUT));
    assert_int_equal(receive(&s, 10, REMOTE, ID, 1), TS_SESSION_DELIVER);
    assert_false(ts_session_expired(&s, TIMEOUT + 9));
    assert_true(ts_session_expired(&s, TIMEOUT + 10));
    ts_session_down(&s, TS_TIME_NEVER);
    assert_false(ts_session_expired(&s, 9 * TIMEOUT)); /* expires once */
}

static void test_deadline(void **state)
{
    (void)state;
    struct ts_session s;
    ts_session_init(&s, SELF, HEARTBEAT, TIMEOUT);
    assert_int_equal(ts_session_deadline(&s), 0); /* a dialler says Hello at once */
    ts_session_down(&s, 1234);
    assert_int_equal(ts_session_deadline(&s), 1234);
    s = dialled(0, 0, 0);
    assert_int_equal(ts_session_deadline(&s), HEARTBEAT);
    check_stamp(&s, 300 * TS_MS, ID, 1);
    assert_int_equal(ts_session_deadline(&s), TIMEOUT); /* nothing heard, sooner than the next heartbeat */
    s.timeout_ns = TS_TIME_NEVER;
    assert_int_equal(ts_session_deadline(&s), 300 * TS_MS + HEARTBEAT);
}

static void test_deadline_after_a_gap(void **state)
{
    (void)state;
    struct ts_session s = dialled(0, 0, 0);
    assert_int_equal(receive(&s, 77, REMOTE, ID, 9), TS_SESSION_BROKEN);
    assert_int_equal(ts_session_deadline(&s), 77); /* the dialler says Hello at once */
    s = accepted(0);
    assert_int_equal(receive(&s, 77, REMOTE, ID, 9), TS_SESSION_BROKEN);
    assert_int_equal(ts_session_deadline(&s), TS_TIME_NEVER); /* the acceptor waits for one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_down_drops_all),
        cmocka_unit_test(test_stamp),
        cmocka_unit_test(test_welcome_counts),
        cmocka_unit_test(test_welcome_sets_times),
        cmocka_unit_test(test_welcome_to_no_session),
        cmocka_unit_test(test_heartbeat),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_deadline_after_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
