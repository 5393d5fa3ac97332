/* Phases that a plan or an operator changes: SetPhase, what is assigned meanwhile, Applied and Aborted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "router_fixture.h"

#define PLANNER       "planner:1 hello role=planner id=pa"
#define REPLY(more)   "planner:1 plan_reply " more
#define REFUSED(slot) "drop " slot
#define END(slot)     "drop " slot "\nclient:9 end\ntrace"
#define CANCEL(at, id, more)                                                                                 \
    {                                                                                                        \
        at, "client:9 cancel client=c request_id=" id, more                                                  \
    }

/* r0, p0, d0 of the fixture; d1, which has a relay too, may do both, p1 prefills only. */
static const struct core_step others[] = {
    {0, "worker:3 " WORKER("d1", "decode", "profile.relay=r0"), "worker:3 welcome"},
    {0, "worker:3 resync", "worker:3 resync_reply"},
    {0, "worker:4 " WORKER("p1", "prefill", "profile.relay=r0 profile.phases=1"), "worker:4 welcome"},
    {0, "worker:4 resync", "worker:4 resync_reply"},
    {0, PLANNER, "planner:1 welcome\nplanner:1 snapshot version=11"},
};

static struct core_fixture *begin(void)
{
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    CORE_RUN(f, "others", others);
    return f;
}

#define FLIP(number, version)                                                                                \
    "planner:1 plan term=1 number=" number " snapshot_version=" version                                      \
    " replicas=1:p0:prefill,2:d0:decode,3:d1:prefill shares=1:2:0:0.5,3:2:0:0.5"
#define BACK(number, version)                                                                                \
    "planner:1 plan term=1 number=" number " snapshot_version=" version                                      \
    " replicas=1:p0:prefill,2:d0:decode,3:d1:decode shares=1:2:0:0.5,1:3:0:0.5"
#define ACCEPTED(number) REPLY("term=1 number=" number " verdict=accepted reason=none")
#define APPLIED(number)  REPLY("term=1 number=" number " verdict=applied reason=none")

/* d1 gets nothing between SetPhase and its answer, and prefills afterwards. What it runs goes on. */
static void test_flip(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\nworker:2 assign\nworker:1 assign #1"},
        {1, "client:9 " GENERATE("b") "#2", "client:9 accepted\nworker:3 assign\nworker:4 assign #2"},
        {2, FLIP("1", "11"),
         ACCEPTED("1") "\nworker:3 set_phase term=1 plan=1 phase=prefill\nplanner:1 update version=12"},
        {3, "client:9 " GENERATE("c") "#3", "client:9 accepted\nworker:2 assign\nworker:1 assign #3"},
        {3, "client:9 " GENERATE("d") "#4", "client:9 accepted\nworker:2 assign\nworker:1 assign #4"},
        {4, "worker:3 output rid=2.1 role=decode first_index=0 items=5", "client:9 tokens request_id=b"},
        {5, "worker:3 phase_reply term=1 plan=1 phase=prefill",
         APPLIED("1") "\nplanner:1 update version=13 workers=p0,d0,d1,p1"},
        {6, "client:9 " GENERATE("e") "#5",
         "client:9 accepted\nworker:2 assign plan=1\nworker:3 assign plan=1 #5"},
        {7, "worker:3 output rid=2.1 role=decode first_index=1 items=6 finish=stop",
         "client:9 tokens\nworker:4 release rid=2.1\nworker:3 release rid=2.1\n" END("#2")},
        /* And back. */
        {8, BACK("2", "13"), ACCEPTED("2") "\nworker:3 set_phase term=1 plan=2 phase=decode"},
        {9, "worker:3 phase_reply term=1 plan=2 phase=decode", APPLIED("2") "\nplanner:1 update version=14"},
        CANCEL(10, "a", "worker:1 release\nworker:2 release\n" END("#1")),
        CANCEL(10, "c", "worker:1 release\nworker:2 release\n" END("#3")),
        CANCEL(10, "d", "worker:1 release\nworker:2 release\n" END("#4")),
        CANCEL(10, "e", "worker:3 release\nworker:2 release\n" END("#5")),
    };
    ROUTER_CASE(begin(), "flip", steps);
}

/* Towards both phases it keeps what it has. */
static void test_to_both(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1,
         "planner:1 plan term=1 number=1 snapshot_version=11 replicas=1:p0:prefill,3:d1:both "
         "shares=1:3:0:0.5,3:3:0:0.5",
         ACCEPTED("1") "\nworker:3 set_phase phase=both\nplanner:1 update"},
        {2, "client:9 " GENERATE("a") "#1",
         "client:9 accepted\nworker:3 assign role=decode\nworker:1 assign #1"},
        {3, "worker:3 phase_reply term=1 plan=1 phase=both", APPLIED("1") "\nplanner:1 update"},
        {4, "client:9 " GENERATE("b") "#2", "client:9 accepted\nworker:3 assign role=both #2"},
        CANCEL(10, "a", "worker:1 release\nworker:3 release\n" END("#1")),
        CANCEL(10, "b", "worker:3 release\n" END("#2")),
    };
    ROUTER_CASE(begin(), "to both", steps);
}

/* Each way in which a plan is not applied. Routing goes on over what is ready in its actual phase. */
static void test_aborted(void **state)
{
    (void)state;
    static const struct core_step refused[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update version=12"},
        {2, "worker:3 phase_reply term=1 plan=1 phase=decode reason=unsupported",
         REPLY("term=1 number=1 verdict=aborted reason=unsupported text=d1")},
        {3, "client:9 " GENERATE("a") "#1", "client:9 accepted\nworker:2 assign\nworker:1 assign #1"},
        CANCEL(4, "a", "worker:1 release\nworker:2 release\n" END("#1")),
    };
    static const struct core_step dies[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update"},
        {2, "as=88 worker:3 " WORKER("d1", "decode", "profile.relay=r0"),
         REPLY("verdict=aborted reason=peer_lost text=d1") "\nworker:3 welcome\nplanner:1 update"},
        {3, "worker:3 resync", "worker:3 resync_reply\nplanner:1 update"},
    };
    static const struct core_step other_dies[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update"},
        {2, "as=88 " HELLO_D0,
         REPLY("verdict=aborted reason=peer_lost text=d0") "\nworker:2 welcome\nplanner:1 update"},
        {3, "worker:3 phase_reply term=1 plan=1 phase=prefill", "planner:1 update"},
    };
    static const struct core_step silent[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update"},
        {10000, "tick", ""},
        {10001, "tick",
         REPLY("verdict=aborted reason=peer_lost text=d1") "\nworker:3 reset fenced=0\nplanner:1 update"},
        /* Its Hello tells what it is. */
        {10002, "worker:3 " WORKER("d1", "prefill", "profile.relay=r0"),
         "worker:3 welcome\nplanner:1 update"},
        {10003, "worker:3 resync", "worker:3 resync_reply\nplanner:1 update"},
        {10004, "client:9 " GENERATE("a") "#1", "client:9 accepted\nworker:2 assign\nworker:1 assign #1"},
        {10005, "client:9 " GENERATE("b") "#2", "client:9 accepted\nworker:2 assign\nworker:3 assign #2"},
        CANCEL(10006, "a", "worker:1 release\nworker:2 release\n" END("#1")),
        CANCEL(10006, "b", "worker:3 release\nworker:2 release\n" END("#2")),
    };
    static const struct core_step superseded[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase plan=1\nplanner:1 update"},
        {2, BACK("2", "12"),
         REPLY("number=1 verdict=aborted reason=stale_plan") "\n" ACCEPTED(
             "2") "\nworker:3 set_phase plan=2 phase=decode"},
        /* The first answer is not the last word. */
        {3, "worker:3 phase_reply term=1 plan=1 phase=prefill", "planner:1 update"},
        {4, "client:9 " GENERATE("a") "#1", "client:9 accepted\nworker:2 assign\nworker:1 assign #1"},
        {5, "worker:3 phase_reply term=1 plan=2 phase=decode", APPLIED("2") "\nplanner:1 update"},
        CANCEL(6, "a", "worker:1 release\nworker:2 release\n" END("#1")),
    };
    ROUTER_CASE(begin(), "refused", refused);
    ROUTER_CASE(begin(), "dies", dies);
    ROUTER_CASE(begin(), "another dies", other_dies);
    ROUTER_CASE(begin(), "silent", silent);
    ROUTER_CASE(begin(), "superseded", superseded);
}

/* The word or its answer may be lost with the session. */
static void test_session_breaks(void **state)
{
    (void)state;
    static const struct core_step again[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update"},
        {2, "worker:3 " WORKER("d1", "decode", "profile.relay=r0"), "worker:3 welcome\nplanner:1 update"},
        {3, "worker:3 resync",
         "worker:3 resync_reply\nworker:3 set_phase term=1 plan=1 phase=prefill\nplanner:1 update"},
        {4, "worker:3 phase_reply term=1 plan=1 phase=prefill", APPLIED("1") "\nplanner:1 update"},
    };
    static const struct core_step taken[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase\nplanner:1 update"},
        {2, "gap worker:3 heartbeat", "worker:3 reset fenced=0\nplanner:1 update"},
        {3, "worker:3 " WORKER("d1", "prefill", "profile.relay=r0"), "worker:3 welcome\nplanner:1 update"},
        {4, "worker:3 resync", "worker:3 resync_reply\n" APPLIED("1") "\nplanner:1 update"},
    };
    /* A plan that comes between Hello and Resync waits for it. */
    static const struct core_step before[] = {
        {1, "worker:3 " WORKER("d1", "decode", "profile.relay=r0"),
         "worker:3 welcome\nplanner:1 update version=12"},
        {2, FLIP("1", "12"), ACCEPTED("1") "\nplanner:1 update"},
        {3, "worker:3 resync", "worker:3 resync_reply\nworker:3 set_phase phase=prefill\nplanner:1 update"},
        {4, "worker:3 phase_reply term=1 plan=1 phase=prefill", APPLIED("1") "\nplanner:1 update"},
    };
    ROUTER_CASE(begin(), "again", again);
    ROUTER_CASE(begin(), "taken", taken);
    ROUTER_CASE(begin(), "before", before);
}

static void test_not_willing(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "planner:1 plan term=1 number=1 snapshot_version=11 replicas=1:p1:decode",
         REPLY("verdict=refused reason=bad_plan")},
        {2, "admin:1 set_phase service=p1 phase=decode",
         "admin:1 phase_reply reason=unsupported phase=prefill"},
        {3, "admin:1 set_phase service=nobody phase=decode", "admin:1 phase_reply reason=not_found"},
        {4, "admin:1 set_phase service=p0 phase=none", "admin:1 phase_reply reason=unsupported"},
    };
    ROUTER_CASE(begin(), "not willing", steps);
}

/* An operator's word goes with the plan in force, which a later one overrules. */
static void test_operator(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BACK("1", "11"), ACCEPTED("1") "\n" APPLIED("1") "\nplanner:1 update version=12"},
        {2, "admin:1 set_phase service=d1 phase=prefill", "worker:3 set_phase term=1 plan=1 phase=prefill"},
        {3, "admin:2 set_phase service=d1 phase=decode", "admin:2 phase_reply reason=busy"},
        {4, "worker:3 phase_reply term=1 plan=1 phase=prefill",
         "admin:1 phase_reply term=1 plan=1 phase=prefill reason=none\nplanner:1 update version=13"},
        {5, "admin:1 set_phase service=d1 phase=both", "worker:3 set_phase phase=both"},
        {6, BACK("2", "13"),
         ACCEPTED("2") "\nadmin:1 phase_reply reason=stale_plan\nworker:3 set_phase plan=2 phase=decode"},
        {7, "worker:3 phase_reply term=1 plan=1 phase=both", "planner:1 update"},
        {8, "worker:3 phase_reply term=1 plan=2 phase=decode", APPLIED("2") "\nplanner:1 update"},
        {9, "admin:1 set_phase service=d1 phase=both", "worker:3 set_phase phase=both"},
        {10, "as=88 worker:3 " WORKER("d1", "decode", "profile.relay=r0"),
         "admin:1 phase_reply phase=decode reason=peer_lost\nworker:3 welcome\nplanner:1 update"},
    };
    ROUTER_CASE(begin(), "operator", steps);
}

/* One that takes another replica to another phase before all are in theirs: the plan is not applied, and says
 * so when nobody is on the way any more, whoever answers last. */
static void test_operator_meanwhile(void **state)
{
    (void)state;
    static const struct core_step last[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase plan=1 phase=prefill\nplanner:1 update"},
        {2, "admin:1 set_phase service=d0 phase=both", "worker:2 set_phase plan=1 phase=both"},
        {3, "worker:3 phase_reply term=1 plan=1 phase=prefill", "planner:1 update"},
        {4, "worker:2 phase_reply term=1 plan=1 phase=both",
         "admin:1 phase_reply phase=both reason=none\n" REPLY(
             "term=1 number=1 verdict=aborted reason=wrong_phase text=d0") "\nplanner:1 update"},
    };
    static const struct core_step first[] = {
        {1, FLIP("1", "11"), ACCEPTED("1") "\nworker:3 set_phase plan=1 phase=prefill\nplanner:1 update"},
        {2, "admin:1 set_phase service=d0 phase=both", "worker:2 set_phase plan=1 phase=both"},
        {3, "worker:2 phase_reply term=1 plan=1 phase=both",
         "admin:1 phase_reply phase=both reason=none\nplanner:1 update"},
        {4, "worker:3 phase_reply term=1 plan=1 phase=prefill",
         REPLY("term=1 number=1 verdict=aborted reason=wrong_phase text=d0") "\nplanner:1 update"},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "last", last);
    router_end(&f);
    f = begin();
    CORE_RUN(f, "first", first);
    router_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flip),
        cmocka_unit_test(test_to_both),
        cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_session_breaks),
        cmocka_unit_test(test_not_willing),
        cmocka_unit_test(test_operator),
        cmocka_unit_test(test_operator_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
