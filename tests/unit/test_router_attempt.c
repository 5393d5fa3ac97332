/* A request towards its workers, as tables: choosing, failing, trying again, Resync. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "router_fixture.h"

#define ASSIGN(p, d, rid, decode, more)                                                                      \
    d " assign role=decode rid=" rid " " more "\n" p " assign role=prefill rid=" rid " decode=" decode       \
      " " more " #1"
#define ASSIGN_0(rid, more) ASSIGN("worker:1", "worker:2", rid, "d0", more)
#define RELEASED(rid, why)                                                                                   \
    "worker:1 release rid=" rid " reason=" why "\nworker:2 release rid=" rid " reason=" why
#define ACCEPT                                                                                               \
    {                                                                                                        \
        1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n" ASSIGN_0("1.1", "age_ms=0 codec=i4h")       \
    }
#define CANCEL(at, released)                                                                                 \
    {                                                                                                        \
        at, "client:9 cancel client=c request_id=a",                                                         \
            released "\ndrop #1\nclient:9 end finish=cancelled\ntrace"                                       \
    }

static const struct core_step second_workers[] = {
    {0, HELLO_D1, "worker:3 welcome"},
    {0, "worker:3 resync", "worker:3 resync_reply"},
    {0, HELLO_P1, "worker:4 welcome"},
    {0, "worker:4 resync", "worker:4 resync_reply"},
};

static struct core_fixture *begin(bool two)
{
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    if (two)
        CORE_RUN(f, "second workers", second_workers);
    return f;
}

/* Every way in which an attempt may fail leads to the same: release, wait, try again under the next number.
 */
static void test_failures(void **state)
{
    (void)state;
    static const struct {
        const char *event, *reason;
    } cases[] = {
        {"worker:1 attempt_failed rid=1.1 role=prefill reason=engine", "engine"},
        {"worker:2 attempt_failed rid=1.1 role=decode reason=preempted", "preempted"},
        {"worker:2 assign_refused rid=1.1 role=decode reason=busy", "busy"},
        {"worker:1 assign_refused rid=1.1 role=prefill reason=stale_plan", "stale_plan"},
        {"relay:1 transfer rid=1.1 reason=kv_timeout", "kv_timeout"},
        {"worker:2 output rid=1.1 role=decode first_index=1 items=6", "internal"}, /* a gap */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char released[400];
        snprintf(released, sizeof released,
                 "worker:1 release rid=1.1 reason=%s\nworker:2 release rid=1.1 reason=%s", cases[i].reason,
                 cases[i].reason);
        const struct core_step steps[] = {
            ACCEPT,
            {5, cases[i].event, released},
            {14, "tick", ""},
            {15, "tick", ASSIGN_0("1.2", "age_ms=14 codec=i4h")},
            CANCEL(16, RELEASED("1.2", "cancelled")),
        };
        struct core_fixture *f = begin(false);
        CORE_RUN(f, cases[i].event, steps);
        assert_int_equal(router_core_counts(router_of(f)).retries, 1);
        router_end(&f);
    }
}

static void test_attempts_used_up(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:1 attempt_failed rid=1.1 role=prefill reason=engine", RELEASED("1.1", "engine")},
        {12, "tick", ASSIGN_0("1.2", "")},
        {13, "worker:2 attempt_failed rid=1.2 role=decode reason=kv_corrupt text=bad",
         RELEASED("1.2",
                  "retries") "\ndrop #1\nclient:9 end finish=error reason=retries trace.attempts=2\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    settings.max_attempts = 2;
    ROUTER_CASE(router_begin_cluster(&settings), "attempts used up", steps);
}

/* Want of KV memory is no failure, for as long as the stream may stand still. */
static void test_memory(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:2 attempt_failed rid=1.1 role=decode reason=kv_no_memory",
         RELEASED("1.1", "kv_no_memory")},
        {12, "tick", ASSIGN_0("1.2", "")},
        {13, "worker:2 attempt_failed rid=1.2 role=decode reason=preempted", RELEASED("1.2", "preempted")},
        {33, "tick", ASSIGN_0("1.3", "")},
        {34, "worker:1 attempt_failed rid=1.3 role=prefill reason=engine", RELEASED("1.3", "engine")},
        {74, "tick", ASSIGN_0("1.4", "")},
        {102, "worker:2 attempt_failed rid=1.4 role=decode reason=kv_no_memory",
         RELEASED("1.4",
                  "retries") "\ndrop #1\nclient:9 end finish=error reason=retries trace.attempts=4\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    settings.max_attempts = 2;
    settings.memory_wait_ms = 100;
    ROUTER_CASE(router_begin_cluster(&settings), "memory", steps);
}

static void test_final(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:1 attempt_failed rid=1.1 role=prefill reason=prompt_too_long final=1 text=long",
         RELEASED("1.1", "prompt_too_long") "\ndrop #1\nclient:9 end finish=error reason=prompt_too_long "
                                            "text=long\ntrace"},
    };
    ROUTER_CASE(begin(false), "final", steps);
}

/* Who failed is avoided while others are there; who was preempted did nothing wrong. */
static void test_avoid(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:1 attempt_failed rid=1.1 role=prefill reason=engine", RELEASED("1.1", "engine")},
        {12, "tick", ASSIGN("worker:4", "worker:2", "1.2", "d0", "")},
        {13, "worker:2 attempt_failed rid=1.2 role=decode reason=preempted",
         "worker:4 release rid=1.2\nworker:2 release rid=1.2"},
        {33, "tick", ASSIGN("worker:4", "worker:2", "1.3", "d0", "")},
        {34, "worker:2 attempt_failed rid=1.3 role=decode reason=kv_no_memory",
         "worker:4 release rid=1.3\nworker:2 release rid=1.3"},
        {74, "tick", ASSIGN("worker:4", "worker:3", "1.4", "d1", "")},
        {75, "worker:3 attempt_failed rid=1.4 role=decode reason=engine",
         "worker:4 release rid=1.4\nworker:3 release rid=1.4"},
        {155, "tick", ASSIGN("worker:4", "worker:2", "1.5", "d0", "")}, /* both failed: better than nobody */
        CANCEL(156, "worker:4 release rid=1.5\nworker:2 release rid=1.5"),
    };
    ROUTER_CASE(begin(true), "avoid", steps);
}

/* Late messages of an earlier attempt, and those of a worker that has no part in it, change nothing. */
static void test_stale(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:3 output rid=1.1 role=decode first_index=0 items=9", ""},
        {2, "worker:3 attempt_failed rid=1.1 role=decode reason=engine", ""},
        {3, "worker:1 attempt_failed rid=1.1 role=prefill reason=engine", RELEASED("1.1", "engine")},
        {4, "worker:2 output rid=1.1 role=decode first_index=0 items=9",
         ""}, /* queued: no attempt is under way */
        {13, "tick", ASSIGN("worker:4", "worker:2", "1.2", "d0", "")},
        {14, "worker:2 output rid=1.1 role=decode first_index=0 items=9 finish=stop", ""},
        {14, "worker:2 attempt_failed rid=1.1 role=decode reason=engine", ""},
        {14, "worker:2 report rid=1.1 role=decode prompt_tokens=3", ""},
        {14, "worker:2 assign_refused rid=1.1 role=decode reason=busy", ""},
        {14, "relay:1 transfer rid=1.1 reason=kv_corrupt", ""},
        {14, "worker:2 output rid=7.1 role=decode first_index=0 items=9", ""},
        CANCEL(15, "worker:4 release rid=1.2\nworker:2 release rid=1.2"),
    };
    struct core_fixture *f = begin(true);
    CORE_RUN(f, "stale", steps);
    assert_int_equal(router_core_counts(router_of(f)).stale, 7);
    router_end(&f);
}

/* Decode dies while it streams: what was delivered is forced upon the next one. */
static void test_decode_dies(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", "client:9 tokens items=5"},
        {3, "worker:2 output rid=1.1 role=decode first_index=0 items=5,6",
         "client:9 tokens first_index=1 items=6"},
        {4, "as=88 " HELLO_D0, /* it came back as somebody else */
         "worker:1 release rid=1.1 reason=peer_lost\nworker:2 welcome"},
        {14, "tick", ASSIGN("worker:1", "worker:3", "1.2", "d1", "produced=5,6")},
        /* The new one contradicts: what was delivered stands. */
        {15, "worker:3 output rid=1.2 role=decode first_index=1 items=99,7",
         "client:9 tokens first_index=2 items=7"},
        {16, "worker:3 output rid=1.2 role=decode first_index=3 items=8 finish=length",
         "client:9 tokens first_index=3 items=8\nworker:1 release rid=1.2 reason=finished\nworker:3 release "
         "rid=1.2 reason=finished\n"
         "drop #1\nclient:9 end next_index=4 finish=length trace.attempts=2\ntrace"},
    };
    struct core_fixture *f = begin(true);
    CORE_RUN(f, "decode dies", steps);
    assert_int_equal(router_core_counts(router_of(f)).contradictions, 1);
    router_end(&f);
}

/* Whoever dies before decode has the KV takes the attempt along; after that prefill and relay do not matter.
 */
static void test_sender_dies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *done, *death, *actions;
    } cases[] = {
        {"prefill before", "tick", "as=88 " HELLO_P0,
         "worker:2 release rid=1.1 reason=peer_lost\nworker:1 welcome"},
        {"prefill after report", "worker:2 report rid=1.1 role=decode prompt_tokens=3", "as=88 " HELLO_P0,
         "worker:1 welcome"},
        {"prefill after transfer", "relay:1 transfer rid=1.1 reason=none", "as=88 " HELLO_P0,
         "worker:1 welcome"},
        {"prefill after output",
         "worker:2 output rid=1.1 role=decode first_index=0 items=", "as=88 " HELLO_P0, "worker:1 welcome"},
        {"relay before", "tick", "as=88 " HELLO_R0, RELEASED("1.1", "peer_lost") "\nrelay:1 welcome"},
        {"relay after", "relay:1 transfer rid=1.1 reason=none", "as=88 " HELLO_R0, "relay:1 welcome"},
        {"failed after", "worker:2 report rid=1.1 role=decode", "relay:1 transfer rid=1.1 reason=peer_lost",
         ""},
        {"prefill failed after", "worker:2 report rid=1.1 role=decode",
         "worker:1 attempt_failed rid=1.1 role=prefill reason=peer_lost", ""},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            ACCEPT,
            {2, cases[i].done, ""},
            {3, cases[i].death, cases[i].actions},
        };
        struct core_fixture *f = begin(false);
        CORE_RUN(f, cases[i].name, steps);
        core_step_one(f, 4, "client:9 cancel client=c request_id=a", "*");
        router_end(&f);
    }
}

/* A relay that is told to stop takes no new transfer: nobody is sent there again. */
/* Prefill is released as soon as it has nothing left to do, however the news come in; but not where it
 * decodes too, and not before its own report. */
static void test_prefill_released(void **state)
{
    (void)state;
    static const struct core_step report_last[] = {
        ACCEPT,
        {2, "worker:2 report rid=1.1 role=decode", ""},
        {3, "worker:2 output rid=1.1 role=decode first_index=0 items=5", "client:9 tokens items=5"},
        {4, "worker:1 report rid=1.1 role=prefill", "worker:1 release rid=1.1 reason=finished"},
        {5, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", ""},
        {5, "as=88 " HELLO_P0, "worker:1 welcome"},
        CANCEL(6, "worker:2 release rid=1.1 reason=cancelled"),
    };
    static const struct core_step token_last[] = {
        ACCEPT,
        {2, "worker:1 report rid=1.1 role=prefill", ""},
        {3, "relay:1 transfer rid=1.1", ""},
        {4, "worker:2 output rid=1.1 role=decode first_index=0 items=5",
         "client:9 tokens items=5\nworker:1 release rid=1.1 reason=finished"},
        /* Decode dies: the next attempt has a prefill worker again, and waits for its report. */
        {5, "worker:2 attempt_failed rid=1.1 role=decode reason=engine",
         "worker:2 release rid=1.1 reason=engine"},
        {6, "relay:1 copies items=1.1:0", ""}, /* the relay had to let the copy go */
        {15, "tick", ASSIGN_0("1.2", "produced=5")},
        {16, "worker:2 report rid=1.2 role=decode", ""},
        CANCEL(17, RELEASED("1.2", "cancelled")),
    };
    static const struct core_step both[] = {
        {0, HELLO_R0, "relay:1 welcome"},
        {0, "worker:1 " WORKER("b0", "both", "profile.relay=r0"), "worker:1 welcome"},
        {0, "worker:1 resync", "worker:1 resync_reply"},
        {1, "client:9 " GENERATE("a") "#1",
         "client:9 accepted\nworker:1 assign role=both rid=1.1 decode= #1"},
        {2, "worker:1 output rid=1.1 role=both first_index=0 items=5", "client:9 tokens"},
        {3, "worker:1 report rid=1.1 role=both", ""},
        CANCEL(5, "worker:1 release rid=1.1 reason=cancelled"),
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(begin(false), "report last", report_last);
    ROUTER_CASE(begin(false), "token last", token_last);
    ROUTER_CASE(router_begin(&settings), "both", both);
}

static void test_relay_drains(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "relay:1 transfer rid=1.1 reason=draining", RELEASED("1.1", "draining")},
        {12, "tick", ""}, /* p0 has no relay any more: it waits */
        {13, "as=88 " HELLO_R0, "relay:1 welcome\n" ASSIGN_0("1.2", "")},
        CANCEL(14, RELEASED("1.2", "cancelled")),
    };
    ROUTER_CASE(begin(false), "relay drains", steps);
}

/* Whoever leaves says so: nobody is sent there, whatever it does until it is gone. */
static void test_leaving(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "planner:1 hello role=planner id=pa", "planner:1 welcome\nplanner:1 snapshot version=7"},
        {2, "planner:1 plan term=1 number=1 snapshot_version=7", "*"},
        {3, "worker:2 drain", "planner:1 update version=9 holder=pa"},
        {4, "client:9 " GENERATE("a") "#1", "client:9 accepted"}, /* d0 leaves: it waits */
        {5, HELLO_D1, "worker:3 welcome\nplanner:1 update"},
        {5, "worker:3 resync",
         "worker:3 resync_reply\n" ASSIGN("worker:1", "worker:3", "1.1", "d1", "") "\nplanner:1 update"},
        {6, "relay:1 drain", "planner:1 update"}, /* what runs goes on */
        {7, "client:9 cancel client=c request_id=a",
         "worker:1 release\nworker:3 release\ndrop #1\nclient:9 end\ntrace"},
        {8, "client:9 " GENERATE("b") "#2", "client:9 accepted"},
        {9, "planner:1 drain", "planner:1 update holder= term=1"},
        {10, "client:9 cancel client=c request_id=b", "drop #2\nclient:9 end\ntrace"},
    };
    ROUTER_CASE(begin(false), "leaving", steps);
}

static void test_worker_drains(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "worker:2 assign_refused rid=1.1 role=decode reason=draining", RELEASED("1.1", "draining")},
        {12, "tick", ""},
        {13, HELLO_D1, "worker:3 welcome"},
        {13, "worker:3 resync", "worker:3 resync_reply\n" ASSIGN("worker:1", "worker:3", "1.2", "d1", "")},
        CANCEL(14, "worker:1 release rid=1.2\nworker:3 release rid=1.2"),
    };
    ROUTER_CASE(begin(false), "worker drains", steps);
}

static void test_resync(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "client:9 " GENERATE("b") "#2", "client:9 accepted\n*"},
        {3, "worker:2 output rid=1.1 role=decode first_index=0 items=5,6", "client:9 tokens"},
        {4, "gap worker:2 output rid=1.1 role=decode first_index=3 items=8",
         "worker:2 reset fenced=0 reason=peer_lost"},
        {5, "worker:2 output rid=1.1 role=decode first_index=4 items=9", ""}, /* of a session that is over */
        {6, HELLO_D0, "worker:2 welcome"},
        /* 1.1 has more than the router: resend. 9.9 is unknown. 2.1 is not listed: its Assign was lost. */
        {7, "worker:2 resync items=1.1:decode:4,9.9:decode:0,1.1:prefill:1",
         "worker:2 resync_reply items=1.1:decode:resend:2,9.9:decode:cancel:0,1.1:prefill:cancel:0\n"
         "worker:1 release rid=2.1 reason=peer_lost\nworker:2 release rid=2.1 reason=peer_lost"},
        {7, "worker:2 output rid=1.1 role=decode first_index=4 items=9", ""}, /* sent before it heard that */
        {8, "worker:2 output rid=1.1 role=decode first_index=2 items=7,8",
         "client:9 tokens first_index=2 items=7,8"},
        /* Nobody is sent anything between Hello and Resync: what it holds is not known yet. */
        {8, "client:9 " GENERATE("c") "#3",
         "client:9 accepted\nworker:2 assign rid=3.1\nworker:1 assign rid=3.1 #3"},
        {8, "client:9 cancel client=c request_id=c", "*"},
        {9, HELLO_D0, "worker:2 welcome"},
        {9, "client:9 " GENERATE("d") "#4", "client:9 accepted"},
        {9, "worker:2 resync items=1.1:decode:4",
         "worker:2 resync_reply\nworker:2 assign rid=4.1\nworker:1 assign rid=4.1 #4"},
        {9, "client:9 cancel client=c request_id=d", "*"},
        /* Prefill says Hello again: it has nothing the router lacks. 2.2 is on its way to it since. */
        {9, HELLO_P0, "worker:1 welcome"},
        {10, "worker:1 resync items=1.1:prefill:0", "worker:1 resync_reply items=1.1:prefill:keep:4"},
        {17, "tick", "worker:2 assign rid=2.2 role=decode\nworker:1 assign rid=2.2 role=prefill #2"},
        {18, "client:9 cancel client=c request_id=a",
         RELEASED("1.1", "cancelled") "\ndrop #1\nclient:9 end\ntrace"},
        {18, "client:9 cancel client=c request_id=b",
         RELEASED("2.2", "cancelled") "\ndrop #2\nclient:9 end\ntrace"},
    };
    ROUTER_CASE(begin(false), "resync", steps);
}

/* Both workers come back. What prefill says meanwhile is not what decode was asked for. */
static void test_resync_of_both(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "gap worker:2 heartbeat", "worker:2 reset fenced=0 reason=peer_lost"},
        {2, HELLO_D0, "worker:2 welcome"},
        {2, "worker:2 resync items=1.1:decode:3", "worker:2 resync_reply items=1.1:decode:resend:0"},
        {2, "worker:2 output rid=1.1 role=decode first_index=3 items=8", ""}, /* sent before it heard that */
        {3, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", "client:9 tokens"},
        {3, "worker:2 output rid=1.1 role=decode first_index=4 items=9", ""},
        {4, "worker:2 output rid=1.1 role=decode first_index=0 items=5,6,7,8,9",
         "client:9 tokens first_index=1 items=6,7,8,9"},
        /* From then on a gap is one. */
        {5, "worker:2 output rid=1.1 role=decode first_index=6 items=11", RELEASED("1.1", "internal")},
        {6, "client:9 cancel client=c request_id=a", "drop #1\nclient:9 end finish=cancelled\ntrace"},
    };
    struct core_fixture *f = begin(false);
    CORE_RUN(f, "resync of both", steps);
    router_end(&f);
}

/* What no worker can take waits at the router, in order of acceptance; a request that failed keeps its turn.
 */
static void test_limits(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ACCEPT,
        {2, "client:9 " GENERATE("b") "#2", "client:9 accepted"},
        {3, "client:9 " GENERATE("c") "#3", "client:9 accepted"},
        {4, "relay:1 transfer rid=1.1 reason=none", /* prefill is free, decode may have two */
         "worker:2 assign rid=2.1 role=decode\nworker:1 assign rid=2.1 role=prefill #2"},
        {5, "worker:2 report rid=2.1 role=decode", ""}, /* decode is full */
        {6, "worker:2 attempt_failed rid=2.1 role=decode reason=preempted",
         RELEASED(
             "2.1",
             "preempted") "\nworker:2 assign rid=3.1 role=decode\nworker:1 assign rid=3.1 role=prefill #3"},
        {16, "tick", ""},
        {17, "client:9 " GENERATE("d") "#4", "client:9 accepted"},
        {18, "client:9 cancel client=c request_id=c",
         RELEASED(
             "3.1",
             "cancelled") "\ndrop #3\nclient:9 end\ntrace\n"
                          "worker:2 assign rid=2.2 role=decode\nworker:1 assign rid=2.2 role=prefill #2"},
        {19, "client:9 cancel client=c request_id=d", "drop #4\nclient:9 end\ntrace"},
        {20, "client:9 cancel client=c request_id=b",
         RELEASED("2.2", "cancelled") "\ndrop #2\nclient:9 end\ntrace"},
        CANCEL(21, RELEASED("1.1", "cancelled") "\nrelay:1 release rid=1.1 reason=cancelled"),
    };
    struct router_settings settings = router_test_settings();
    settings.prefill_inflight_max = 1;
    settings.decode_inflight_max = 2;
    ROUTER_CASE(router_begin_cluster(&settings), "limits", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_attempts_used_up),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_final),
        cmocka_unit_test(test_avoid),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_decode_dies),
        cmocka_unit_test(test_sender_dies),
        cmocka_unit_test(test_relay_drains),
        cmocka_unit_test(test_worker_drains),
        cmocka_unit_test(test_resync),
        cmocka_unit_test(test_resync_of_both),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_prefill_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
