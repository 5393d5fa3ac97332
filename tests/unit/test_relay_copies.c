/* Encoded copies at the relay core, as tables: what is kept, what yields, and sending it again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay_fixture.h"

#define DONE                                                                                                 \
    OPENED, ENCODED, {5, SEAL("1.1"), FREED("1.1")},                                                         \
        {6, "kv:1000 kv_grant rid=1.1 credit_bytes=100",                                                     \
         "kv:1000 kv_chunk number=0 #5\nkv:1000 kv_chunk number=1 #6\nkv:1000 kv_end\nkv:1000 kv_commit"},   \
        {7, "kv:1000 kv_credit rid=1.1 bytes=84", ""},                                                       \
    {                                                                                                        \
        8, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")                                                    \
    }
#define REFEED(from, to)                                                                                     \
    "relay:1 refeed from=" from " rid=" to " decode=d1 endpoint=tcp://d1 decode_incarnation=8"
#define GONE "drop #5\ndrop #6"

static void expect_copies(const struct core_fixture *f, size_t copies, uint64_t bytes)
{
    const struct relay_core *core = f->driver.core;
    assert_int_equal(relay_core_copies(core), copies);
    assert_int_equal(relay_core_retained_bytes(core), bytes);
    assert_int_equal(relay_core_handles(core), core_refs(f));
}

/* A copy becomes a transfer under another number, and a copy again; the router's Release ends it. */
static void test_refeed(void **state)
{
    (void)state;
    static const struct core_step again[] = {
        DONE,
        {10, REFEED("1.1", "1.2"), "kv:1001 connect endpoint=tcp://d1\nkv:1001 hello"},
        {10, REFEED("1.1", "1.2"), ""}, /* asked again in a new session */
        {11, "kv:1001 welcome",
         "kv:1001 kv_open rid=1.2 fingerprint=7 decode_incarnation=8 " I8 " token_count=20 chain=77"},
        {12, "kv:1001 kv_nack rid=1.2 chunk=whole reason=no_assign", ""},
        {32, "tick", "kv:1001 kv_open rid=1.2"},
        {33, "kv:1001 kv_grant rid=1.2 credit_bytes=50", "kv:1001 kv_chunk rid=1.2 number=0 crc32c=91 #5"},
        {34, "kv:1001 kv_nack rid=1.2 chunk=0 reason=kv_corrupt", "kv:1001 kv_chunk rid=1.2 number=0 #5"},
        {35, "kv:1001 kv_credit rid=1.2 bytes=40",
         "kv:1001 kv_chunk rid=1.2 number=1 crc32c=92 #6\n"
         "kv:1001 kv_end rid=1.2 chunks=2 digests=1,2,3,4 bytes_sent=124\n"
         "kv:1001 kv_commit rid=1.2 prompt_ids=*20 produced=42 first=42:A"},
        {36, "kv:1001 kv_credit rid=1.2 bytes=44", ""},
        {37, "kv:1001 kv_done rid=1.2", OVER("1.2", "none") " run_ns=27000000 bytes_sent=124"},
        {38, REFEED("1.1", "1.2"), OVER("1.2", "none")}, /* that is what it holds already */
        {39, REFEED("1.1", "1.3"), OVER("1.3", "no_copy")},
        {40, "relay:1 release rid=1.1", ""}, /* of an attempt before */
        {41, REFEED("1.2", "1.3"), "kv:1001 kv_open rid=1.3"},
        {42, "relay:1 release rid=1.3", "kv:1001 kv_abort rid=1.3\n" OVER("1.3", "cancelled") "\n" GONE},
        {43, REFEED("1.3", "1.4"), OVER("1.4", "no_copy")},
    };
    struct core_fixture *f = relay_begin();
    CORE_RUN(f, "again", again);
    assert_int_equal(relay_core_counts(f->driver.core).refeeds, 2);
    expect_copies(f, 0, 0);
    relay_end(&f);
}

/* A transfer of a copy that fails takes the copy along: the router prefills again. */
static void test_refeed_fails(void **state)
{
    (void)state;
    static const struct {
        const char *event, *actions;
    } cases[] = {
        {"kv:1001 kv_nack rid=1.2 chunk=whole reason=kv_mismatch", OVER("1.2", "kv_mismatch") "\n" GONE},
        {"kv:1001 kv_abort rid=1.2", OVER("1.2", "cancelled") "\n" GONE},
        {"kv:1001 unreachable", "kv:1001 hello"}, /* it waits for the next session, as any transfer */
        {"relay:1 release rid=1.2 reason=peer_lost",
         "kv:1001 kv_abort rid=1.2\n" OVER("1.2", "peer_lost") "\n" GONE},
        /* What has nothing to do with it: the worker that prefilled. */
        {"pool:1 unreachable", "unmap_pool pool=1"},
        {"pool:1 release rid=1.1", FREED("1.1")},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            DONE,
            {10, REFEED("1.1", "1.2"), "kv:1001 connect\nkv:1001 hello"},
            {11, "kv:1001 welcome", "kv:1001 kv_open rid=1.2"},
            {12, cases[i].event, cases[i].actions},
        };
        static const struct core_step rest[] = {{20, "relay:1 release rid=1.2", "*"}};
        struct core_fixture *f = relay_begin();
        CORE_RUN(f, cases[i].event, steps);
        expect_copies(f, 0, 0);
        CORE_RUN(f, cases[i].event, rest);
        relay_end(&f);
    }
}

/* Nothing is sent that was not asked for properly. */
static void test_refused(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        DONE,
        {10, REFEED("1.2", "1.3"), OVER("1.3", "no_copy")},
        {10, REFEED("2.1", "2.2"), OVER("2.2", "no_copy")},
        {10, REFEED("1.1", "2.2"), OVER("2.2", "no_copy")},
        {10, "relay:1 refeed from=1.1 rid=1.2 decode=d1", OVER("1.2", "no_copy")}, /* where to? */
        {11, "relay:1 release rid=1.0", ""},
        {12, "relay:1 release rid=1.7", GONE}, /* a later attempt, so all before it too */
    };
    RELAY_CASE(relay_begin(), "refused", steps);
}

/* Who may not or need not be kept: another session is told what is there, another router's copies go. */
static void test_routers(void **state)
{
    (void)state;
    static const struct core_step told[] = {
        DONE,
        {10, "relay:1 unreachable", "relay:1 hello"},
        {11, "as=500 relay:1 welcome", "relay:1 copies items=1.1:84:1"},
        {12, "relay:1 release rid=1.1", GONE},
    };
    static const struct core_step restarted[] = {
        DONE,
        {10, "relay:1 unreachable", "relay:1 hello"},
        {11, "as=501 relay:1 welcome", GONE},
    };
    static const struct core_step fenced[] = {
        DONE,
        {10, "relay:1 reset fenced=1", GONE "\nrelay:1 hello"},
    };
    static const struct core_step lost[] = {
        DONE,
        {10, "relay:1 unreachable", "relay:1 hello"},
        {5000, "tick", "relay:1 hello"},
        {30009, "tick", "relay:1 hello"},
        {30010, "tick", GONE},
    };
    static const struct core_step drained[] = {
        DONE,
        {10, "drain", "relay:1 drain\n" GONE "\nstop"},
    };
    static const struct core_step nobody[] = {
        OPENED,
        ENCODED,
        {5, SEAL("1.1"), FREED("1.1")},
        {6, "kv:1000 kv_grant rid=1.1 credit_bytes=100", "*"},
        {7, "as=501 relay:1 welcome", ""}, /* its router is gone, the transfer is not */
        {7, "kv:1000 kv_credit rid=1.1 bytes=84", ""},
        {8, "kv:1000 kv_done rid=1.1", GONE},
    };
    static const struct core_table cases[] = {CORE_TABLE(told), CORE_TABLE(restarted), CORE_TABLE(fenced),
                                              CORE_TABLE(lost), CORE_TABLE(drained),   CORE_TABLE(nobody)};
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct core_fixture *f = relay_begin();
        core_run(f, cases[i].name, cases[i].steps, cases[i].count);
        expect_copies(f, 0, 0);
        relay_end(&f);
    }
}

/* One verified transfer of `request`: two chunks of these bytes for that many tokens. */
static void feed_done(struct core_fixture *f, int request, int tokens, int bytes, const char *after)
{
    static int job, slot;
    char line[300];
    if (request == 1)
        job = slot = 0;
#define SAY(actions, ...)                                                                                    \
    do {                                                                                                     \
        snprintf(line, sizeof line, __VA_ARGS__);                                                            \
        core_step_one(f, f->now / TS_MS, line, actions);                                                     \
    } while (0)
    SAY("*",
        "pool:1 kv_begin rid=%d.1 decode=d0 endpoint=tcp://d0 decode_incarnation=9 " I8 " "
        "token_count=%d blocks=%s generations=%s chain=77",
        request, tokens, tokens > 16 ? "4,6" : "4", tokens > 16 ? "1,2" : "1");
    if (request == 1)
        SAY("*", "kv:1000 welcome");
    SAY("*", "pool:1 kv_ready layer_begin=0 layer_end=2 items=%d.1:0:%d", request, tokens);
    for (int i = 0; i < 2; i++)
        SAY("*", "encoded job=%d #%d/%d digests=1,2", ++job, ++slot, bytes);
    SAY("*", "pool:1 kv_seal rid=%d.1 prompt_ids=*%d produced=42", request, tokens);
    SAY("*", "kv:1000 kv_grant rid=%d.1 credit_bytes=1000", request);
    SAY("*", "kv:1000 kv_credit rid=%d.1 bytes=1000", request);
    SAY(after, "kv:1000 kv_done rid=%d.1", request);
}

/* Beyond its bound: the copy that costs the fewest tokens for its bytes goes, then the one with fewer tokens,
 * then the older one. The router hears of it. */
static void test_cheapest_first(void **state)
{
    (void)state;
    struct relay_settings settings = relay_test_settings();
    settings.retained_bytes_max = 90;
    struct core_fixture *f = relay_begin_with(&settings);
    f->name = "cheapest first";
    feed_done(f, 1, 20, 20, OVER("1.1", "none"));
    feed_done(f, 2, 10, 10, OVER("2.1", "none")); /* as many for a byte, but fewer */
    feed_done(f, 3, 20, 20, OVER("3.1", "none") "\ndrop #3\ndrop #4\nrelay:1 copies items=2.1:0:0");
    expect_copies(f, 2, 80);
    feed_done(f, 4, 20, 20, OVER("4.1", "none") "\ndrop #1\ndrop #2\nrelay:1 copies items=1.1:0:0");
    feed_done(f, 5, 5, 30, OVER("5.1", "none") "\ndrop #9\ndrop #10\nrelay:1 copies items=5.1:0:0");
    feed_done(f, 6, 20, 60, OVER("6.1", "none") "\ndrop #11\ndrop #12\nrelay:1 copies items=6.1:0:0");
    expect_copies(f, 2, 80);
    assert_int_equal(relay_core_counts(f->driver.core).copies_evicted, 4);
    core_step_one(f, 50, "relay:1 release rid=3.1", "drop #5\ndrop #6");
    core_step_one(f, 51, "relay:1 release rid=4.1", "drop #7\ndrop #8");
    relay_end(&f);
}

/* Copies use what transfers leave, and give it back before a transfer waits. */
static void test_transfers_first(void **state)
{
    (void)state;
    struct relay_settings settings = relay_test_settings();
    settings.encoded_bytes_max = 90;
    struct core_fixture *f = relay_begin_with(&settings);
    f->name = "transfers first";
    feed_done(f, 1, 20, 20, OVER("1.1", "none"));
    expect_copies(f, 1, 40);
    core_step_one(f, 10, BEGIN("2.1"), "kv:1000 kv_open");
    core_step_one(f, 11, READY("2.1", "0"), "encode job=3\nencode job=4");
    core_step_one(f, 12, "encoded job=3 #3/40 digests=1,2", "");
    core_step_one(f, 13, "encoded job=4 #4/40 digests=1,2", "drop #1\ndrop #2\nrelay:1 copies items=1.1:0:0");
    expect_copies(f, 0, 0);
    core_step_one(f, 14, "pool:1 release rid=2.1", "*");
    relay_end(&f);
}

/* A request that was prefilled again has one copy: that of the later attempt, in whatever order they end. */
static void test_one_for_each_request(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        DONE,
        {10, BEGIN("1.2"), "kv:1000 kv_open rid=1.2"},
        {11, READY("1.2", "0"), "encode job=3\nencode job=4"},
        {12, "encoded job=3 #7/40 digests=1,2", ""},
        {12, "encoded job=4 #8/40 digests=3,4", ""},
        {13, SEAL("1.2"), FREED("1.2")},
        {14, "kv:1000 kv_grant rid=1.2 credit_bytes=100", "*"},
        {15, "kv:1000 kv_credit rid=1.2 bytes=80", ""},
        {16, "kv:1000 kv_done rid=1.2", OVER("1.2", "none") "\n" GONE},
        {17, "relay:1 release rid=1.1", ""},
        {18, "relay:1 release rid=1.2", "drop #7\ndrop #8"},
    };
    RELAY_CASE(relay_begin(), "one for each request", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refeed),
        cmocka_unit_test(test_refeed_fails),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_routers),
        cmocka_unit_test(test_cheapest_first),
        cmocka_unit_test(test_transfers_first),
        cmocka_unit_test(test_one_for_each_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
