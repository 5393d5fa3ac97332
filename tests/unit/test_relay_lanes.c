/* Several connections to one decode worker: which chunk takes which, and what happens when one fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay_fixture.h"

static struct core_fixture *begin(uint32_t connections)
{
    struct relay_settings settings = relay_test_settings();
    settings.kv_connections = connections;
    settings.chunk_tokens_max = 16;
    settings.encode_jobs_max = 8;
    return relay_begin_with(&settings);
}

/* Four chunks of 40, 20, 40 and 20 bytes are encoded, the last two of the second layer. */
#define LANES(welcome)                                                                                       \
    {1, BEGIN("1.1"), CONNECT}, {2, welcome, OPEN("1.1")}, {3, READY("1.1", "0"), "*"},                      \
        {4, "encoded job=1 #5/40 digests=1,2 crc32c=91", ""},                                                \
        {4, "encoded job=2 #6/20 digests=1,2 crc32c=92", ""},                                                \
        {4, "encoded job=3 #7/40 digests=1,2 crc32c=93", ""},                                                \
    {                                                                                                        \
        4, "encoded job=4 #8/20 digests=1,2 crc32c=94", ""                                                   \
    }
#define GRANT "kv:1000 kv_grant rid=1.1 credit_bytes=200"
#define DONE(at)                                                                                             \
    {at, SEAL("1.1"), FREED("1.1") "\nkv:1000 kv_end chunks=4\nkv:1000 kv_commit"},                          \
        {at, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},                                                \
    {                                                                                                        \
        at, "relay:1 release rid=1.1", "drop #5\ndrop #6\ndrop #7\ndrop #8"                                  \
    }

/* Each chunk takes the one with the fewest bytes under way; connections are made when they are wanted. Credit
 * names its chunk and counts once. */
static void test_least_busy(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        LANES("kv:1000 welcome lanes=1"),
        {5, GRANT,
         "kv:1000 kv_chunk number=0 #5\n"
         "kv:1001 connect endpoint=tcp://d0\nkv:1001 kv_chunk number=1 layer=0 token_begin=16 crc32c=92 #6\n"
         "kv:1002 connect endpoint=tcp://d0\nkv:1002 kv_chunk number=2 #7\n"
         "kv:1001 kv_chunk number=3 #8"},
        {6, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=2", ""},
        {6, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=2", ""}, /* it was sent twice, say */
        {6, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=9", ""},
        {7, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},
        {7, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=3", ""},
        {7, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=4", ""},
        DONE(8),
    };
    static const struct core_step alone[] = {
        LANES("kv:1000 welcome"), /* decode does not say that it takes more */
        {5, GRANT,
         "kv:1000 kv_chunk number=0 #5\nkv:1000 kv_chunk number=1 #6\nkv:1000 kv_chunk number=2 #7\n"
         "kv:1000 kv_chunk number=3 #8"},
        DONE(8),
    };
    struct core_fixture *f = begin(3);
    CORE_RUN(f, "least busy", steps);
    assert_int_equal(relay_core_counts(f->driver.core).credits_missing, 0);
    relay_end(&f);
    RELAY_CASE(begin(3), "one", alone);
}

#define SPREAD(welcome)                                                                                      \
    LANES("kv:1000 welcome lanes=1" welcome),                                                                \
    {                                                                                                        \
        5, GRANT,                                                                                            \
            "kv:1000 kv_chunk number=0 #5\nkv:1001 connect\nkv:1001 kv_chunk number=1 #6\nkv:1002 connect\n" \
            "kv:1002 kv_chunk number=2 #7\nkv:1001 kv_chunk number=3 #8"                                     \
    }

/* What a connection that fails had under way goes over the session's; what was credited does not. */
static void test_failed(void **state)
{
    (void)state;
    static const struct core_step refused[] = {
        SPREAD(""),
        {6, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=2", ""},
        {7, "kv:1001 unreachable", "kv:1001 disconnect\nkv:1000 kv_chunk number=3 #8"},
        {8, "kv:1001 unreachable", ""},
        {9, "kv:1000 kv_nack rid=1.1 chunk=2 reason=kv_corrupt", "kv:1000 kv_chunk number=2 #7"},
        DONE(10),
    };
    /* Nothing of it has come back for as long as a silent session lives. */
    static const struct core_step stalled[] = {
        SPREAD(" timeout_ms=1000"),
        {900, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},
        {901, "kv:1000 kv_credit rid=1.1 bytes=20 chunk=2", ""},
        {1004, "tick", ""},
        {1005, "tick", "kv:1002 disconnect\nkv:1000 kv_chunk number=2 #7"},
        {1006, "kv:1000 heartbeat", ""},
        {1800, "kv:1000 heartbeat", ""}, /* the session lives */
        {1900, "tick", ""},
        {1901, "tick", "kv:1001 disconnect\nkv:1000 kv_chunk number=3 #8"},
        DONE(1902),
    };
    RELAY_CASE(begin(3), "refused", refused);
    struct core_fixture *f = begin(3);
    core_run(f, "stalled", stalled, TS_ARRAY_SIZE(stalled));
    assert_int_equal(relay_core_counts(f->driver.core).lanes_failed, 2);
    relay_end(&f);
}

/* With the session its other connections go, and what is queued on them; the next one makes its own. */
static void test_session_lost(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        SPREAD(""),
        {6, "kv:1000 unreachable", "kv:1001 disconnect\nkv:1002 disconnect\nkv:1000 hello"},
        {7, "kv:1001 unreachable", ""},
        {8, "kv:1000 welcome lanes=1", OPEN("1.1") " resume=1"},
        {9, "kv:1000 kv_grant rid=1.1 credit_bytes=200 have=5",
         "kv:1000 kv_chunk number=1 #6\nkv:1003 connect\nkv:1003 kv_chunk number=3 #8"},
        DONE(10),
    };
    RELAY_CASE(begin(3), "session lost", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_busy),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_session_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
