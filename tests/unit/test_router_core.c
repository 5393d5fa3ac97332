/* Members, planners and operators of a router, as tables: sessions, fencing, plans, status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "router_fixture.h"

static struct router_settings ticking(void)
{
    struct router_settings s = router_test_settings();
    s.heartbeat_ms = 500;
    s.timeout_ms = 3000;
    return s;
}

static void test_session(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", ""},
        {0, "worker:1 heartbeat", "worker:1 reset fenced=0 reason=peer_lost"}, /* nobody it knows */
        {0, "worker:1 hello role=relay id=x", ""}, /* no such role on this channel */
        {0, "worker:1 hello role=worker", ""},     /* nameless */
        {10, HELLO_P0, "worker:1 welcome id=router0 heartbeat_ms=500 timeout_ms=3000 term=0"},
        {11, HELLO_P0, "worker:1 welcome"}, /* the first Welcome was slow: a new session */
        {12, "worker:1 resync", "worker:1 resync_reply"},
        {13, "old worker:1 heartbeat", ""},
        {511, "tick", ""},
        {512, "tick", "worker:1 heartbeat"},
        {600, "gap worker:1 heartbeat", "worker:1 reset fenced=0"},
        {610, HELLO_P0, "worker:1 welcome"}, /* the same incarnation: it was not dead */
        {611, "worker:1 resync", "worker:1 resync_reply"},
        {3610, "tick", "worker:1 heartbeat"},
        {3611, "tick", ""}, /* silence is final */
        {3700, "worker:1 heartbeat", "worker:1 reset fenced=1"},
        {3701, HELLO_P0, "worker:1 reset fenced=1"},
        {3702, "as=77 " HELLO_P0, "worker:1 welcome"},
        /* A send that failed ends the session; the member has one timeout to come back. */
        {3800, "worker:1 unreachable", ""},
        {3801, HELLO_P0, "worker:1 welcome"},
        {3802, "worker:1 unreachable", ""},
        {6801, "tick", ""},
        {6802, "tick", ""},
        {6803, HELLO_P0, "worker:1 reset fenced=1"},
    };
    struct router_settings settings = ticking();
    ROUTER_CASE(router_begin(&settings), "session", steps);
}

/* The same name from another process: the newer one is right, the older one is fenced. */
static void test_replaced(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, HELLO_P0, "worker:1 welcome"},
        {1, "worker:5 " WORKER("p0", "prefill", "profile.relay=r0"), "worker:5 welcome"},
        {2, "worker:1 heartbeat", "worker:1 reset fenced=1"},
        {3, "worker:5 heartbeat", ""},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin(&settings), "replaced", steps);
}

#define PAIR      "replicas=1:p0:prefill,2:d0:decode"
#define PLANNER_A "planner:1 hello role=planner id=pa"
#define PLANNER_B "planner:2 hello role=planner id=pb"
#define ACCEPTED(term, number)                                                                               \
    "planner:1 plan_reply term=" term " number=" number " verdict=accepted reason=none\n"                    \
    "planner:1 plan_reply term=" term " number=" number " verdict=applied reason=none"

/* Of router_begin_cluster: six changes make version 7; each planner that joins is one more. */
static void test_plans(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, PLANNER_A,
         "planner:1 welcome term=0\nplanner:1 snapshot version=7 term=0 number=0 holder= workers=p0,d0"},
        {2, "planner:1 plan term=1 number=1 snapshot_version=7 " PAIR " shares=1:2:0:1.0",
         ACCEPTED("1", "1") "\nplanner:1 update version=8 term=1 number=1 holder=pa"},
        {3, "planner:1 plan term=1 number=1 snapshot_version=8 " PAIR " shares=1:2:0:1.0",
         "planner:1 plan_reply verdict=refused reason=stale_plan"},
        {4, "planner:1 plan term=1 number=2 snapshot_version=7 " PAIR " shares=1:2:0:1.0",
         "planner:1 plan_reply verdict=refused reason=stale_snapshot"},
        {5, "planner:1 plan term=1 number=2 snapshot_version=8 " PAIR " shares=1:2:0:1.0",
         ACCEPTED("1", "2")},
        /* Another planner: it must claim a higher term. */
        {6, PLANNER_B,
         "planner:2 welcome term=1\nplanner:1 update version=9\nplanner:2 snapshot version=9 term=1 "
         "holder=pa"},
        {7, "planner:2 plan term=1 number=3 snapshot_version=9 " PAIR " shares=1:2:0:1.0",
         "planner:2 plan_reply verdict=refused reason=stale_plan"},
        {8, "planner:2 plan term=2 number=1 snapshot_version=9 " PAIR " shares=1:2:0:1.0:none",
         "planner:2 plan_reply term=2 verdict=accepted\nplanner:2 plan_reply verdict=applied\n"
         "planner:1 update version=10 term=2 number=1 holder=pb\nplanner:2 update version=10"},
        {9, "planner:1 plan term=1 number=9 snapshot_version=10 " PAIR " shares=1:2:0:1.0",
         "planner:1 plan_reply verdict=refused reason=stale_plan"},
        /* The plan is used, and named in what it decides. */
        {10, "client:9 " GENERATE("a") "#1",
         "client:9 accepted\nworker:2 assign term=2 plan=1 codec=none\nworker:1 assign term=2 plan=1 "
         "codec=none #1"},
        /* Its planner dies: the plan stays, the holder is lost. */
        {11, "as=99 planner:2 hello role=planner id=pb",
         "planner:2 welcome term=2\nplanner:1 update version=12 term=2 number=1 holder=\nplanner:2 snapshot "
         "version=12 holder="},
        {12, "client:9 cancel client=c request_id=a",
         "worker:1 release\nworker:2 release\ndrop #1\nclient:9 end trace.term=2 trace.plan=1 "
         "trace.codec=none\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "plans", steps);
}

/* A plan is taken whole or not at all. */
static void test_bad_plans(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "replicas=1:p0:prefill,1:d0:decode shares=1:1:0:1.0", /* two with one id */
        "replicas=1:p0:prefill,2:d9:decode shares=1:2:0:1.0", /* nobody */
        "replicas=1:p0:decode,2:d0:decode shares=1:2:0:1.0",  /* another phase than its share */
        "replicas=1:p0:none,2:d0:decode",
        PAIR " shares=1:3:0:1.0", /* no such replica */
        PAIR " shares=2:1:0:1.0", /* the wrong way round */
        PAIR " shares=1:2:0:1.5", /* more than all */
        PAIR " shares=1:2:0:-1",
        PAIR " shares=1:2:0:nan",
        PAIR " shares=1:2:0:0.5", /* half is nowhere */
    };
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    core_step_one(f, 1, PLANNER_A, "planner:1 welcome\nplanner:1 snapshot version=7");
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        char line[200];
        snprintf(line, sizeof line, "planner:1 plan term=1 number=1 snapshot_version=7 %s", bad[i]);
        core_step_one(f, 2, line, "planner:1 plan_reply verdict=refused reason=bad_plan");
    }
    core_step_one(f, 3, "planner:1 plan term=1 number=1 snapshot_version=7 " PAIR " shares=",
                  "*"); /* all idle: legal */
    router_end(&f);
}

static void test_status(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1/50", "client:9 accepted\n*"},
        {1, "client:9 " GENERATE_OF("other", "a") "#2/30", "client:9 accepted"},
        {1, "client:9 " GENERATE("a") "digest=5 #3/50", "client:9 refused\ndrop #3"},
        {2, "worker:2 heartbeat load=1:2:3:4:5:6", ""},
        {3, "admin:1 status id=8",
         "admin:1 status_reply id=8 queued=1 running=1 accepted=2 refused=1 ended=0 held_bytes=80 "
         "client_most=1 "
         "services=router0:router:none:77:500:1:0,r0:relay:none:0:900:1:0,p0:worker:prefill:0:901:1:0,"
         "d0:worker:decode:0:902:1:0:1"},
        {4, "client:9 status id=9", "client:9 status_reply id=9"},
        {5, "admin:1 why id=1 client=c request_id=a",
         "admin:1 why_reply id=1 reason=none trace.prefill=p0 trace.relay=r0 trace.decode=d0 "
         "trace.attempts=1"},
        {5, "admin:1 why id=2 client=c request_id=z", "admin:1 why_reply id=2 reason=not_found"},
        {5, "admin:1 set_phase phase=decode", "admin:1 phase_reply reason=not_found"},
        {6, "client:9 cancel client=c request_id=a", "*"},
        {6, "client:9 cancel client=other request_id=a", "*"},
    };
    struct router_settings settings = router_test_settings();
    settings.prefill_inflight_max = 1;
    ROUTER_CASE(router_begin_cluster(&settings), "status", steps);
}

/* An action may point into what the same step has declared dead. */
static void test_status_of_the_dead(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, HELLO_P0, "worker:1 welcome"},
        {3000, "admin:1 status id=1", "admin:1 status_reply services=router0,p0"},
        {3001, "admin:1 status id=2", "admin:1 status_reply services=router0"},
    };
    struct router_settings settings = ticking();
    ROUTER_CASE(router_begin(&settings), "status of the dead", steps);
}

static void test_drain_by_operator(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "admin:1 drain service=d0", "worker:2 drain\nadmin:1 status_reply"},
        {2, "client:9 " GENERATE("a") "#1", "client:9 accepted"}, /* nobody decodes any more */
        {3, "admin:1 drain service=nobody", "admin:1 status_reply"},
        {4, "admin:1 drain service=router0", "admin:1 status_reply"},
        {5, "client:9 " GENERATE("b") "#2", "client:9 refused reason=draining\ndrop #2"},
        {6, "client:9 cancel client=c request_id=a", "drop #1\nclient:9 end\ntrace\nstop"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "drain", steps);
}

/* The word may be lost with a session: each new one of that member says it again. */
static void test_drain_is_said_again(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "admin:1 drain service=d0", "worker:2 drain\nadmin:1 status_reply"},
        {2, HELLO_D0, "worker:2 welcome\nworker:2 drain"},
        {3, HELLO_P0, "worker:1 welcome"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "drain again", steps);
}

/* A router does not tokenise: it asks a worker that does. */
static void test_tokenize(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "client:9 tokenize id=5 #1", "client:9 tokenize_reply id=5 reason=no_worker\ndrop #1"},
        {1, "as=71 worker:1 " WORKER("p0", "prefill", "profile.tokenizer=1"), "worker:1 welcome"},
        {1, "worker:1 resync", "worker:1 resync_reply"},
        {2, "client:9 tokenize id=5 #2", "worker:1 tokenize id=1 #2\ndrop #2"},
        {2, "client:9 detokenize id=6 tokens=1,2", "worker:1 detokenize id=2 tokens=1,2"},
        {3, "worker:1 tokenize_reply id=1 tokens=7,8", "client:9 tokenize_reply id=5 tokens=7,8"},
        {4, "worker:1 tokenize_reply id=1 tokens=7,8", ""}, /* answered before */
        {10001, "tick", ""},
        {10002, "tick", "client:9 tokenize_reply id=6 reason=peer_lost"}, /* it never answered */
        {10003, "worker:1 tokenize_reply id=2 text=x", ""},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin(&settings), "tokenize", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_bad_plans),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_status_of_the_dead),
        cmocka_unit_test(test_drain_by_operator),
        cmocka_unit_test(test_drain_is_said_again),
        cmocka_unit_test(test_tokenize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
