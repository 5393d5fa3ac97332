/* A session with decode is lost in the middle of a transfer: it goes on in the next one, for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay_fixture.h"

#define GRANT(rest) "kv:1000 kv_grant rid=1.1 credit_bytes=" rest
#define DROPPED     "drop #5\ndrop #6"
#define RESUMED     OPEN("1.1") " resume=1"
#define SENT                                                                                                 \
    OPENED, ENCODED,                                                                                         \
    {                                                                                                        \
        5, GRANT("100"), "kv:1000 kv_chunk number=0 #5\nkv:1000 kv_chunk number=1 #6"                        \
    }
#define FLUSHED                                                                                              \
    SENT,                                                                                                    \
    {                                                                                                        \
        6, SEAL("1.1"), FREED("1.1") "\nkv:1000 kv_end chunks=2\nkv:1000 kv_commit"                          \
    }

/* Whatever ends the session: what decode has is not sent again, the rest is, under the new credit. */
static void test_streaming(void **state)
{
    (void)state;
    static const struct {
        const char *event, *actions, *welcome;
    } cases[] = {
        {"kv:1000 reset reason=peer_lost", "kv:1000 hello", RESUMED},
        {"gap kv:1000 kv_credit rid=1.1", "kv:1000 hello", RESUMED},
        {"kv:1000 unreachable", "kv:1000 hello", RESUMED},
        {"kv:1000 welcome", RESUMED, RESUMED}, /* decode has a new session, and soon another one */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            SENT,
            {6, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},
            {7, cases[i].event, cases[i].actions},
            {8, SEAL("1.1"), FREED("1.1")},
            {9, "kv:1000 welcome", cases[i].welcome},
            {10, GRANT("50 have=1"),
             "kv:1000 kv_chunk number=1 crc32c=92 #6\nkv:1000 kv_end chunks=2\nkv:1000 kv_commit"},
            {11, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""}, /* of before: it counts already */
            {12, "kv:1000 kv_credit rid=1.1 bytes=44 chunk=2", ""},
            {13, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
            {14, "relay:1 release rid=1.1", DROPPED},
        };
        struct core_fixture *f = relay_begin();
        CORE_RUN(f, cases[i].event, steps);
        assert_int_equal(relay_core_counts(f->driver.core).resumed, 1);
        assert_int_equal(relay_core_counts(f->driver.core).credits_missing, 0);
        relay_end(&f);
    }
}

/* Lost after the end was sent: it is sent again, unless decode has verified all and says so. */
static void test_flushing(void **state)
{
    (void)state;
    static const struct core_step again[] = {
        FLUSHED,
        {7, "kv:1000 unreachable", "kv:1000 hello"},
        {8, "kv:1000 welcome", RESUMED},
        {9, GRANT("100 have=3"), "kv:1000 kv_end chunks=2\nkv:1000 kv_commit"},
        {10, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {11, "relay:1 release rid=1.1", DROPPED},
    };
    static const struct core_step done[] = {
        FLUSHED,
        {7, "kv:1000 unreachable", "kv:1000 hello"},
        {8, "kv:1000 welcome", RESUMED},
        {9, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {11, "relay:1 release rid=1.1", DROPPED},
    };
    static const struct core_step early[] = {
        SENT, /* decode cannot have verified what was never ended */
        {7, "kv:1000 unreachable", "kv:1000 hello"},
        {8, "kv:1000 welcome", RESUMED},
        {9, "kv:1000 kv_done rid=1.1", ""},
        {10, "pool:1 release rid=1.1",
         "kv:1000 kv_abort\n" FAILED("1.1", "cancelled") "\n" DROPPED "\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "again", again);
    RELAY_CASE(relay_begin(), "done", done);
    RELAY_CASE(relay_begin(), "early", early);
}

/* Before the grant nothing is there to go on from. */
static void test_not_granted(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        ENCODED,
        {5, "kv:1000 unreachable", "kv:1000 hello"},
        {6, "kv:1000 welcome", OPEN("1.1") " resume=0"},
        {7, "kv:1000 kv_nack rid=1.1 chunk=whole reason=no_assign", ""}, /* yet */
        {27, "tick", OPEN("1.1") " resume=0"},
        {28, GRANT("40"), "kv:1000 kv_chunk number=0 #5"},
        {29, "pool:1 release rid=1.1",
         "kv:1000 kv_abort\n" FAILED("1.1", "cancelled") "\n" DROPPED "\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "not granted", steps);
}

/* Not for ever: decode does not come back, does not know it any more, or is lost each time before it got
 * anything. */
static void test_given_up(void **state)
{
    (void)state;
    static const struct core_step late[] = {
        SENT,
        {10, "kv:1000 unreachable", "kv:1000 hello"},
        {1010, "tick", "kv:1000 hello"},
        {5009, "tick", "kv:1000 hello"},
        {5010, "tick", FAILED("1.1", "peer_lost") "\n" DROPPED "\n" FREED("1.1")},
    };
    static const struct core_step unknown[] = {
        SENT,
        {10, "kv:1000 unreachable", "kv:1000 hello"},
        {11, "kv:1000 welcome", RESUMED},
        {12, "kv:1000 kv_nack rid=1.1 chunk=whole reason=no_assign",
         FAILED("1.1", "peer_lost") "\n" DROPPED "\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "late", late);
    RELAY_CASE(relay_begin(), "unknown", unknown);
    static const struct core_step sent[] = {SENT};
    struct core_fixture *f = relay_begin();
    CORE_RUN(f, "again and again", sent);
    for (int64_t i = 0; i < 8; i++) {
        core_step_one(f, 10 + 2 * i, "kv:1000 unreachable", "kv:1000 hello");
        core_step_one(f, 11 + 2 * i, "kv:1000 welcome", RESUMED);
        if (i == 0)
            core_step_one(f, 11, GRANT("40"), "kv:1000 kv_chunk number=0 #5");
    }
    core_step_one(f, 30, "kv:1000 unreachable",
                  FAILED("1.1", "peer_lost") "\n" DROPPED "\n" FREED("1.1") "\nkv:1000 hello");
    relay_end(&f);
}

/* Decode had a chunk, and finds only now that it is damaged: before or after the sender has passed it. */
static void test_damaged(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        SENT,
        {7, "kv:1000 unreachable", "kv:1000 hello"},
        {8, "kv:1000 welcome", RESUMED},
        {9, GRANT("40 have=2"), "kv:1000 kv_chunk number=0 #5"},
        {10, "kv:1000 kv_nack rid=1.1 chunk=1 reason=kv_corrupt", "kv:1000 kv_chunk number=1 #6"},
        {11, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},
        {12, "kv:1000 kv_credit rid=1.1 bytes=44 chunk=2", ""},
        {13, SEAL("1.1"), FREED("1.1") "\nkv:1000 kv_end chunks=2\nkv:1000 kv_commit"},
        {14, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {15, "relay:1 release rid=1.1", DROPPED},
    };
    RELAY_CASE(relay_begin(), "damaged", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streaming), cmocka_unit_test(test_flushing), cmocka_unit_test(test_not_granted),
        cmocka_unit_test(test_given_up),  cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
