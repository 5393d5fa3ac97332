/* Plans of a router: length classes, shares of pairs, both phases on one worker, workers that come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "router_fixture.h"

#define PLANNER        "planner:1 hello role=planner id=pa"
#define TAKEN          "planner:1 plan_reply verdict=accepted\nplanner:1 plan_reply verdict=applied\nplanner:1 update"
#define HELLO_B0       "worker:5 " WORKER("b0", "both", "")
#define OF(id, tokens) GENERATE(id) "sampling.max_tokens=" tokens " "
#define CANCEL(at, id, released)                                                                             \
    {                                                                                                        \
        at, "client:9 cancel client=c request_id=" id, released "\n*"                                        \
    }

static const struct core_step more_workers[] = {
    {0, HELLO_D1, "worker:3 welcome output_batches=1"},
    {0, "worker:3 resync", "worker:3 resync_reply"},
    {0, HELLO_P1, "worker:4 welcome"},
    {0, "worker:4 resync", "worker:4 resync_reply"},
    {0, HELLO_B0, "worker:5 welcome"},
    {0, "worker:5 resync", "worker:5 resync_reply"},
};

static struct core_fixture *begin(void)
{
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    CORE_RUN(f, "more workers", more_workers);
    core_step_one(f, 0, PLANNER, "planner:1 welcome\nplanner:1 snapshot version=13");
    return f;
}

#define REPLICAS "replicas=10:p0:prefill,11:p1:prefill,20:d0:decode,21:d1:decode,30:b0:both "

/* Short ones by p0 and d0, long prompts by p1 and d1, long answers on b0 alone. Prompts of token ids are
 * counted: four bytes each. */
static void test_classes(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1,
         "planner:1 plan term=1 number=1 snapshot_version=13 " REPLICAS
         "classes=20:20,2000:20,2000:2000 shares=11:21:1:1.0:none,10:20:0:1.0,30:30:2:1.0",
         TAKEN},
        {2, "client:9 " OF("a", "20") "#1/80",
         "client:9 accepted\nworker:2 assign role=decode\nworker:1 assign #1"},
        {3, "client:9 " OF("b", "20") "#2/8000",
         "client:9 accepted\nworker:3 assign role=decode codec=none\nworker:4 assign codec=none #2"},
        {4, "client:9 " OF("c", "1000") "#3/8000", "client:9 accepted\nworker:5 assign role=both decode= #3"},
        /* The same bytes of text are fewer tokens: 4 bytes each until a worker has counted. */
        {5, "client:9 " OF("d", "20") "prompt_kind=text #4/500",
         "client:9 accepted\nworker:2 assign role=decode\nworker:1 assign #4"},
        {6, "worker:1 report rid=4.1 role=prefill prompt_tokens=500", ""},
        {7, "client:9 " OF("e", "20") "prompt_kind=text #5/500",
         "client:9 accepted\nworker:3 assign role=decode\nworker:4 assign #5"},
        CANCEL(8, "a", "worker:1 release\nworker:2 release"),
        CANCEL(8, "b", "worker:4 release\nworker:3 release"),
        CANCEL(8, "c", "worker:5 release"),
        CANCEL(8, "d", "worker:1 release\nworker:2 release"),
        CANCEL(8, "e", "worker:4 release\nworker:3 release"),
    };
    ROUTER_CASE(begin(), "classes", steps);
}

/* What the plan sends to a worker is counted by the classes that were seen before it came: no long prompt
 * was, so p1, which all of them are for, gets hardly more of the short ones than p0. */
static void test_seen(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " OF("a", "20") "#1/80", "client:9 accepted\n*"},
        CANCEL(2, "a", "worker:1 release\nworker:2 release"),
        {3, "client:9 " OF("b", "20") "#2/80", "client:9 accepted\n*"},
        CANCEL(4, "b", "*"),
        {5,
         "planner:1 plan term=1 number=1 snapshot_version=13 " REPLICAS
         "classes=20:20,200:20 shares=10:20:0:0.5,11:20:0:0.5,11:20:1:1.0",
         TAKEN},
        {6, "client:9 " OF("c", "20") "#3/80", "client:9 accepted\nworker:2 assign\nworker:1 assign #3"},
        {7, "client:9 " OF("d", "20") "#4/80", "client:9 accepted\nworker:2 assign\nworker:4 assign #4"},
        {8, "client:9 " OF("e", "20") "#5/80", "client:9 accepted\nworker:2 assign\nworker:4 assign #5"},
        {9, "client:9 " OF("f", "20") "#6/80", "client:9 accepted\nworker:2 assign\nworker:1 assign #6"},
        CANCEL(10, "c", "worker:1 release\nworker:2 release"),
        CANCEL(10, "d", "worker:4 release\nworker:2 release"),
        CANCEL(10, "e", "worker:4 release\nworker:2 release"),
        CANCEL(10, "f", "worker:1 release\nworker:2 release"),
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "seen", steps);
    router_end(&f);
}

/* Who is not there is not picked; whoever comes back has its shares again. */
static void test_come_and_go(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "planner:1 plan term=1 number=1 snapshot_version=13 " REPLICAS "shares=10:21:0:1.0:none", TAKEN},
        {2, "client:9 " GENERATE("a") "#1",
         "client:9 accepted\nworker:3 assign codec=none\nworker:1 assign codec=none #1"},
        CANCEL(3, "a", "worker:1 release\nworker:3 release"),
        {4, "as=88 " HELLO_D1, "worker:3 welcome\nplanner:1 update"},
        /* Not ready before Resync: what has no share is better than nobody. */
        {5, "client:9 " GENERATE("b") "#2",
         "client:9 accepted\nworker:2 assign codec=i4h\nworker:1 assign codec=i4h #2"},
        {6, "worker:3 resync", "worker:3 resync_reply\nplanner:1 update"},
        {7, "client:9 " GENERATE("c") "#3",
         "client:9 accepted\nworker:3 assign codec=none\nworker:1 assign #3"},
        CANCEL(8, "b", "worker:1 release\nworker:2 release"),
        CANCEL(8, "c", "worker:1 release\nworker:3 release"),
    };
    ROUTER_CASE(begin(), "come and go", steps);
}

/* Without a plan: prompt tokens decide, not requests. */
static void test_by_load(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1/4000", "client:9 accepted\nworker:2 assign\nworker:1 assign #1"},
        {2, "client:9 " GENERATE("b") "#2/40", "client:9 accepted\nworker:3 assign\nworker:4 assign #2"},
        {3, "client:9 " GENERATE("c") "#3/40",
         "client:9 accepted\nworker:5 assign role=decode\nworker:4 assign #3"},
        {4, "worker:1 report rid=1.1 role=prefill prompt_tokens=1000", ""}, /* computed */
        {5, "client:9 " GENERATE("d") "#4/40", "client:9 accepted\nworker:2 assign\nworker:1 assign #4"},
        CANCEL(8, "a", "worker:1 release\nworker:2 release"),
        CANCEL(8, "b", "worker:4 release\nworker:3 release"),
        CANCEL(8, "c", "worker:4 release\nworker:5 release"),
        CANCEL(8, "d", "worker:1 release\nworker:2 release"),
    };
    ROUTER_CASE(begin(), "by load", steps);
}

/* One worker of both phases serves alone: one Assign, one record at Resync, one loss. */
static void test_alone(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, HELLO_B0, "worker:5 welcome"},
        {1, "worker:5 resync", "worker:5 resync_reply"},
        {2, "client:9 " GENERATE("a") "#1", "client:9 accepted\nworker:5 assign rid=1.1 role=both #1"},
        {3, HELLO_B0, "worker:5 welcome"},
        {4, "worker:5 resync items=1.1:both:0", "worker:5 resync_reply items=1.1:both:keep:0"},
        {5, "worker:5 output rid=1.1 role=both first_index=0 items=5,6", "client:9 tokens"},
        {6, HELLO_B0, "worker:5 welcome"},
        {7, "worker:5 resync items=1.1:decode:2",
         "worker:5 resync_reply items=1.1:decode:cancel:0\nworker:5 release rid=1.1"},
        {17, "tick", "worker:5 assign rid=1.2 role=both produced=5,6 #1"},
        {18, "worker:5 attempt_failed rid=1.2 role=both reason=preempted", "worker:5 release rid=1.2"},
        {38, "tick", "worker:5 assign rid=1.3 role=both #1"},
        {39, "as=99 " HELLO_B0, "worker:5 welcome"},
        {40, "worker:5 resync", "worker:5 resync_reply"},
        {79, "tick", "worker:5 assign rid=1.4 role=both #1"},
        {80, "worker:5 output rid=1.4 role=both first_index=2 items=7 finish=stop",
         "client:9 tokens first_index=2 items=7\nworker:5 release rid=1.4\ndrop #1\nclient:9 end "
         "trace.prefill=b0 "
         "trace.decode=b0 trace.relay=\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin(&settings), "alone", steps);
}

/* A plan is taken whole or not at all. */
static void test_bad_plans(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "replicas=1:p0:prefill,2:p0:prefill",
        REPLICAS "classes=20:20 shares=10:20:1:1.0",                    /* no such class */
        REPLICAS "classes=20:20,200:20 shares=10:20:0:1.0,10:21:1:0.5", /* half of one is nowhere */
        REPLICAS "classes=nan:20 shares=10:20:0:1.0",
        REPLICAS "classes=-1:20 shares=10:20:0:1.0",
        REPLICAS "shares=10:30:0:1.0,30:10:0:0.0", /* p0 does not decode */
    };
    struct core_fixture *f = begin();
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        char line[300];
        snprintf(line, sizeof line, "planner:1 plan term=1 number=1 snapshot_version=13 %s", bad[i]);
        core_step_one(f, 2, line, "planner:1 plan_reply verdict=refused reason=bad_plan");
    }
    router_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes), cmocka_unit_test(test_seen),  cmocka_unit_test(test_come_and_go),
        cmocka_unit_test(test_by_load), cmocka_unit_test(test_alone), cmocka_unit_test(test_bad_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
