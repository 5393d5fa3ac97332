/* A request whose decode worker is gone and whose KV a relay still holds, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "router_fixture.h"

#define ASSIGNED(rid) "worker:2 assign role=decode rid=" rid "\nworker:1 assign role=prefill rid=" rid " #1"
#define REFED(d, rid, more, from)                                                                            \
    d " assign role=decode rid=" rid " " more "\nrelay:1 refeed from=" from " rid=" rid
/* Prefilled by p0, decoded by d0: token 0 is delivered, and the relay holds the copy. */
#define STREAMING                                                                                            \
    {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n" ASSIGNED("1.1")},                              \
        {2, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", "client:9 tokens items=5"},        \
        {3, "worker:1 report rid=1.1 role=prefill prompt_tokens=4 run_ns=1000000", ""},                      \
        {4, "worker:2 report rid=1.1 role=decode kv_bytes_sent=30",                                          \
         "worker:1 release rid=1.1 reason=finished"},                                                        \
    {                                                                                                        \
        5, "relay:1 transfer rid=1.1 bytes_raw=100 bytes_sent=20", ""                                        \
    }
#define DIES                                                                                                 \
    {                                                                                                        \
        6, "as=88 " HELLO_D0, "worker:2 welcome"                                                             \
    }
#define CANCEL(at, released)                                                                                 \
    {                                                                                                        \
        at, "client:9 cancel client=c request_id=a",                                                         \
            released "drop #1\nclient:9 end finish=cancelled\ntrace"                                         \
    }

static struct core_fixture *begin(void)
{
    static const struct core_step second[] = {
        {0, HELLO_D1, "worker:3 welcome"},
        {0, "worker:3 resync", "worker:3 resync_reply"},
    };
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    CORE_RUN(f, "second decode worker", second);
    return f;
}

/* The next decode worker gets the copy and the tokens so far; nobody prefills. Its end releases the copy. */
static void test_decode_dies(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        STREAMING,
        DIES,
        {15, "tick", ""},
        {16, "tick",
         REFED("worker:3", "1.2", "produced=5 codec=i4h fingerprint=7",
               "1.1") " decode=d1 endpoint=tcp://d1"},
        {17, "worker:3 report rid=1.2 role=decode kv_bytes_sent=31", ""},
        {18, "relay:1 transfer rid=1.2", ""},
        {19, "worker:3 output rid=1.2 role=decode first_index=1 items=6", "client:9 tokens first_index=1"},
        /* Again, without the first worker: the copy is that of the second attempt now. */
        {20, "worker:3 attempt_failed rid=1.2 role=decode reason=preempted",
         "worker:3 release rid=1.2 reason=preempted"},
        {40, "tick", REFED("worker:3", "1.3", "produced=5,6", "1.2")},
        {41, "worker:3 report rid=1.3 role=decode prompt_tokens=4", ""},
        {41, "relay:1 transfer rid=1.3", ""},
        {42, "worker:3 output rid=1.3 role=decode first_index=2 items=7,8 finish=length",
         "client:9 tokens first_index=2 items=7,8\nworker:3 release rid=1.3 reason=finished\n"
         "relay:1 release rid=1.3 reason=finished\ndrop #1\n"
         "client:9 end finish=length next_index=4 trace.attempts=3 trace.prefill=p0 trace.relay=r0 "
         "trace.decode=d1 trace.prefill_begin_ns=1000000 trace.prefill_end_ns=2000000 "
         "trace.kv_commit_ns=40000000\ntrace"},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "decode dies", steps);
    assert_int_equal(router_core_counts(router_of(f)).refeeds, 2);
    router_end(&f);
}

/* Whatever goes wrong with a copy fails the attempt, and the next one prefills. */
static void test_fails(void **state)
{
    (void)state;
    static const struct {
        const char *event, *actions, *next;
    } cases[] = {
        {"relay:1 transfer rid=1.2 reason=no_copy", "worker:3 release rid=1.2 reason=no_copy", "worker:3"},
        {"relay:1 transfer rid=1.2 reason=kv_timeout", "worker:3 release rid=1.2 reason=kv_timeout",
         "worker:3"},
        {"worker:3 attempt_failed rid=1.2 role=decode reason=kv_no_memory",
         "relay:1 release rid=1.2 reason=kv_no_memory\nworker:3 release rid=1.2", "worker:3"},
        {"as=89 " HELLO_D1, "relay:1 release rid=1.2 reason=peer_lost\nworker:3 welcome", NULL},
        {"as=90 " HELLO_R0, "worker:3 release rid=1.2 reason=peer_lost\nrelay:1 welcome", "worker:3"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            STREAMING,
            DIES,
            {16, "tick", REFED("worker:3", "1.2", "", "1.1")},
            {17, cases[i].event, cases[i].actions},
        };
        static const struct core_step prefilled[] = {
            {37, "tick",
             "worker:3 assign role=decode rid=1.3 produced=5\nworker:1 assign role=prefill rid=1.3 #1"},
            CANCEL(40, "worker:1 release rid=1.3\nworker:3 release rid=1.3\n"),
        };
        static const struct core_step nobody[] = {CANCEL(40, "")};
        struct core_fixture *f = begin();
        CORE_RUN(f, cases[i].event, steps);
        if (cases[i].next)
            CORE_RUN(f, cases[i].event, prefilled);
        else
            CORE_RUN(f, cases[i].event, nobody);
        router_end(&f);
    }
}

/* A copy is used only where the relay of today has said that it is there. */
static void test_no_copy(void **state)
{
    (void)state;
#define PREFILLED                                                                                            \
    {16, "tick", "worker:3 assign role=decode rid=1.2\nworker:1 assign role=prefill rid=1.2 #1"},            \
        CANCEL(17, "worker:1 release rid=1.2\nworker:3 release rid=1.2\n")
    static const struct core_step evicted[] = {
        STREAMING, {5, "relay:1 copies items=1.1:0:0", ""}, DIES, PREFILLED};
    static const struct core_step session[] = {
        STREAMING, {5, "relay:1 unreachable", ""}, {5, HELLO_R0, "relay:1 welcome"}, DIES, PREFILLED};
    static const struct core_step replaced[] = {
        STREAMING, {5, "as=90 " HELLO_R0, "relay:1 welcome"}, DIES, PREFILLED};
    /* Prefill takes the copy's place: it goes at once. */
    static const struct core_step drains[] = {
        STREAMING,
        {5, "relay:1 drain", ""},
        DIES,
        {7, "relay:2 hello role=relay id=r1", "relay:2 welcome"},
        {8, "worker:4 " WORKER("p1", "prefill", "profile.relay=r1"), "worker:4 welcome"},
        {8, "worker:4 resync", "worker:4 resync_reply"},
        {16, "tick",
         "relay:1 release rid=1.1 reason=finished\nworker:3 assign role=decode rid=1.2\n"
         "worker:4 assign role=prefill rid=1.2 #1"},
        CANCEL(17, "worker:4 release rid=1.2\nworker:3 release rid=1.2\n")};
    static const struct core_table cases[] = {CORE_TABLE(evicted), CORE_TABLE(session), CORE_TABLE(replaced),
                                              CORE_TABLE(drains)};
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct core_fixture *f = begin();
        core_run(f, cases[i].name, cases[i].steps, cases[i].count);
        router_end(&f);
    }
}

/* A relay that comes back in a new session says what it holds, and is asked again for what may be lost. */
static void test_sessions(void **state)
{
    (void)state;
    static const struct core_step told_again[] = {
        STREAMING,
        {5, "relay:1 unreachable", ""},
        {6, HELLO_R0, "relay:1 welcome"},
        /* Of others it may let go: ended, of an earlier attempt, of another router. */
        {6, "relay:1 copies items=1.1:84:1,7.1:84:1,1.9:84:1",
         "relay:1 release rid=7.1\nrelay:1 release rid=1.9"},
        {6, "as=88 " HELLO_D0, "worker:2 welcome"},
        {16, "tick", REFED("worker:3", "1.2", "", "1.1")},
        {17, "relay:1 unreachable", ""},
        {18, HELLO_R0, "relay:1 welcome\nrelay:1 refeed from=1.1 rid=1.2 decode=d1 endpoint=tcp://d1"},
        {19, "worker:3 report rid=1.2 role=decode", ""},
        {20, "relay:1 unreachable", ""},
        {21, HELLO_R0, "relay:1 welcome"}, /* decode has it */
        CANCEL(22, "worker:3 release rid=1.2 reason=cancelled\n"),
        {23, "relay:1 copies items=1.2:84:1", "relay:1 release rid=1.2"},
    };
    /* The end of the transfer was lost with the session, but its copy is told: so decode has the KV. */
    static const struct core_step end_lost[] = {
        STREAMING,
        DIES,
        {16, "tick", REFED("worker:3", "1.2", "", "1.1")},
        {17, "relay:1 unreachable", ""},
        {18, HELLO_R0, "relay:1 welcome\nrelay:1 refeed from=1.1 rid=1.2"},
        {18, "relay:1 copies items=1.2:84:1", ""},
        {19, "worker:3 attempt_failed rid=1.2 role=decode reason=engine",
         "worker:3 release rid=1.2 reason=engine"},
        {39, "tick", REFED("worker:3", "1.3", "", "1.2")},
        CANCEL(40, "relay:1 release rid=1.3\nworker:3 release rid=1.3\n"),
    };
    ROUTER_CASE(begin(), "told again", told_again);
    ROUTER_CASE(begin(), "end lost", end_lost);
}

/* The news of a copy may come when the request has gone on: while it waits it counts, later it is let go. */
static void test_late_news(void **state)
{
    (void)state;
    static const struct core_step waits[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n" ASSIGNED("1.1")},
        {2, "worker:2 report rid=1.1 role=decode", ""},
        {3, "worker:2 attempt_failed rid=1.1 role=decode reason=engine",
         "worker:1 release rid=1.1\nworker:2 release rid=1.1"},
        {4, "relay:1 transfer rid=1.1", ""},
        {13, "tick", REFED("worker:3", "1.2", "produced=", "1.1")},
        /* Nothing was delivered yet: token 0 comes from the copy's KvCommit. */
        {14, "worker:3 output rid=1.2 role=decode first_index=0 items=5", "client:9 tokens items=5"},
        CANCEL(15, "worker:3 release rid=1.2 reason=cancelled\n"),
        {16, "relay:1 transfer rid=1.2", "relay:1 release rid=1.2 reason=finished"},
    };
    static const struct core_step too_late[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n" ASSIGNED("1.1")},
        {2, "worker:2 report rid=1.1 role=decode", ""},
        {3, "worker:2 attempt_failed rid=1.1 role=decode reason=engine",
         "worker:1 release rid=1.1\nworker:2 release rid=1.1"},
        {13, "tick", "worker:3 assign role=decode rid=1.2\nworker:1 assign role=prefill rid=1.2 #1"},
        {14, "relay:1 transfer rid=1.1", "relay:1 release rid=1.1 reason=finished"},
        CANCEL(15, "worker:1 release rid=1.2\nworker:3 release rid=1.2\n"),
    };
    ROUTER_CASE(begin(), "waits", waits);
    ROUTER_CASE(begin(), "too late", too_late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_dies), cmocka_unit_test(test_fails),     cmocka_unit_test(test_no_copy),
        cmocka_unit_test(test_sessions),    cmocka_unit_test(test_late_news),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
