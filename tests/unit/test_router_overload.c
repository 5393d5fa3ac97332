/* What is refused because it would come too late, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "router_fixture.h"
#include "services/router/router_load.h"

#define TAKEN(slot) "client:9 accepted\nworker:2 assign\nworker:1 assign " slot
#define REFUSED(id, slot, retry)                                                                             \
    "client:9 refused request_id=" id " reason=overloaded retry_after_ms=" retry "\ndrop " slot
#define CANCELLED "worker:1 release\nworker:2 release\n*"

/* 2000 prompt tokens in a second, and then 1000 that wait. Prompts of token ids: four bytes each. */
#define MEASURED                                                                                             \
    {0, "client:9 " GENERATE("a") "#1/8000", TAKEN("#1")},                                                   \
        {1000, "worker:1 report rid=1.1 role=prefill prompt_tokens=2000", ""},                               \
    {                                                                                                        \
        1000, "client:9 " GENERATE("b") "#2/4000", TAKEN("#2")                                               \
    }

static struct core_fixture *begin(uint32_t queue_wait_ms)
{
    struct router_settings settings = router_test_settings();
    settings.overload_ttft_factor = 0.5;
    settings.queue_wait_ms = queue_wait_ms;
    return router_begin_cluster(&settings);
}

static void test_prefill(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        /* Nothing is known yet: nobody is refused. */
        {0, "client:9 " GENERATE("a") "ttft_ms=1 #1/8000", TAKEN("#1")},
        {1000, "worker:1 report rid=1.1 role=prefill prompt_tokens=2000", ""},
        {1000, "client:9 " GENERATE("b") "#2/4000", TAKEN("#2")},
        /* 1000 wait and 200 come: 600 ms, of which it may wait half of its ttft_ms. */
        {1000, "client:9 " GENERATE("c") "ttft_ms=1000 #3/800", REFUSED("c", "#3", "100")},
        {1000, "client:9 " GENERATE("c") "ttft_ms=600 #3/800", REFUSED("c", "#3", "300")},
        {1000, "client:9 " GENERATE("c") "ttft_ms=1240 #3/800", TAKEN("#3")},
        {1000, "client:9 " GENERATE("d") "remaining_ms=500 #4/800", REFUSED("d", "#4", "200")},
        {1000, "client:9 " GENERATE("d") "ttft_ms=9000 remaining_ms=500 #4/800", REFUSED("d", "#4", "200")},
        {1000, "client:9 " GENERATE("d") "remaining_ms=5000 #4/800", TAKEN("#4")},
        /* It names no time: queue_wait_ms counts. */
        {1000, "client:9 " GENERATE("e") "#5/8000", REFUSED("e", "#5", "700")},
        /* What was begun elsewhere goes on; what is known attaches. */
        {1000, "client:9 " GENERATE("f") "ttft_ms=1 next_index=1 produced=5 #6/800", TAKEN("#6")},
        {1000, "client:9 " GENERATE("d") "ttft_ms=1 #7/800", "client:9 accepted\ndrop #7"},
        /* Computed: the next ones fit again. */
        {1500, "worker:1 report rid=2.1 role=prefill prompt_tokens=1000", ""},
        {1500, "client:9 " GENERATE("c2") "ttft_ms=1240 #8/800", TAKEN("#8")},
        {1600, "client:9 cancel client=c request_id=a", CANCELLED},
        {1600, "client:9 cancel client=c request_id=b", CANCELLED},
        {1600, "client:9 cancel client=c request_id=c", CANCELLED},
        {1600, "client:9 cancel client=c request_id=d", CANCELLED},
        {1600, "client:9 cancel client=c request_id=f", CANCELLED},
        {1600, "client:9 cancel client=c request_id=c2", CANCELLED},
    };
    struct core_fixture *f = begin(1000);
    CORE_RUN(f, "prefill", steps);
    assert_int_equal(router_core_counts(router_of(f)).refused, 5);
    router_end(&f);
}

/* 0 turns it off, each for what it is about. */
static void test_off(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        MEASURED,
        {1000, "client:9 " GENERATE("c") "ttft_ms=1 #3/800", TAKEN("#3")},
        {1000, "client:9 " GENERATE("d") "#4/80000", TAKEN("#4")},
        {1000, "client:9 " GENERATE("e") "remaining_ms=50 #5/800", REFUSED("e", "#5", "10650")},
        {1600, "client:9 cancel client=c request_id=a", CANCELLED},
        {1600, "client:9 cancel client=c request_id=b", CANCELLED},
        {1600, "client:9 cancel client=c request_id=c", CANCELLED},
        {1600, "client:9 cancel client=c request_id=d", CANCELLED},
    };
    struct router_settings settings = router_test_settings();
    settings.overload_ttft_factor = 0;
    settings.queue_wait_ms = 0;
    ROUTER_CASE(router_begin_cluster(&settings), "off", steps);
}

/* Blocks of KV: those of all who decode, against those that are given back while it is full. */
static void test_blocks(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, HELLO_R0, "relay:1 welcome"},
        {0, HELLO_P0, "worker:1 welcome"},
        {0, "worker:1 resync", "worker:1 resync_reply"},
        {0, "worker:2 " WORKER("d0", "decode", "profile.kv_blocks=100"), "worker:2 welcome"},
        {0, "worker:2 resync", "worker:2 resync_reply"},
        {0, "client:9 " GENERATE("a") "#1/3200", TAKEN("#1")}, /* 800 + 4 tokens: 51 blocks */
        {0, "client:9 " GENERATE("b") "#2/3200", TAKEN("#2")}, /* full */
        {0, "client:9 " GENERATE("c") "#3/3200", TAKEN("#3")},
        {1000, "worker:2 output rid=1.1 role=decode first_index=0 items=5 finish=stop",
         "client:9 tokens\nworker:1 release\nworker:2 release\ndrop #1\nclient:9 end\ntrace"},
        /* 51 blocks/s; 102 and its own 51 are wanted, 53 too many: a second. */
        {1000, "client:9 " GENERATE("d") "remaining_ms=900 #4/3200", "*"},
        {1000, "client:9 cancel client=c request_id=d", "*"},
        {1000, "client:9 cancel client=c request_id=b", "*"},
        {1000, "client:9 cancel client=c request_id=c", "*"},
    };
    struct router_settings settings = router_test_settings();
    settings.overload_ttft_factor = 0.5;
    struct core_fixture *f = router_begin(&settings);
    CORE_RUN(f, "blocks", steps);
    assert_int_equal(router_core_counts(router_of(f)).refused, 1);
    router_end(&f);
}

/* What waits at one pair of the plan keeps nobody from another; whom the plan has there alone is refused for
 * it, unless one that is idle would be in time. */
static void test_by_plan(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, HELLO_P1, "worker:4 welcome"},
        {0, "worker:4 resync", "worker:4 resync_reply"},
        {0, "planner:1 hello role=planner id=pa", "planner:1 welcome\nplanner:1 snapshot version=9"},
        {0,
         "planner:1 plan term=1 number=1 snapshot_version=9 "
         "replicas=10:p0:prefill,11:p1:prefill,20:d0:decode classes=100:4,2000:4 "
         "shares=10:20:0:1.0,11:20:1:1.0",
         "planner:1 plan_reply verdict=accepted\nplanner:1 plan_reply verdict=applied\nplanner:1 update"},
        /* p0: 100 short ones in a second; p1: 2000 tokens of a long one in a second. */
        {0, "client:9 " GENERATE("a") "#1/400", TAKEN("#1")},
        {0, "client:9 " GENERATE("b") "#2/8000", "client:9 accepted\nworker:2 assign\nworker:4 assign #2"},
        {1000, "worker:1 report rid=1.1 role=prefill prompt_tokens=100", ""},
        {1000, "worker:4 report rid=2.1 role=prefill prompt_tokens=2000", ""},
        /* 2000 wait at p1, a second's work there. */
        {1000, "client:9 " GENERATE("c") "#3/8000", "client:9 accepted\nworker:2 assign\nworker:4 assign #3"},
        {1000, "client:9 " GENERATE("d") "remaining_ms=1500 #4/8000", REFUSED("d", "#4", "500")},
        /* p0 is idle: a second for this one, where both workers as one would take two: (2000 + 100) / 1050.
         */
        {1000, "client:9 " GENERATE("e") "remaining_ms=1500 #5/400", TAKEN("#5")},
        {1000, "client:9 " GENERATE("f") "remaining_ms=1500 #6/400", REFUSED("f", "#6", "500")},
        /* p1 has nothing to do: what would wait too long at p0 goes there. */
        {1500, "worker:4 report rid=3.1 role=prefill prompt_tokens=2000", ""},
        {1500, "client:9 " GENERATE("f") "remaining_ms=1400 #7/400",
         "client:9 accepted\nworker:2 assign\nworker:4 assign #7"},
        {1500, "client:9 " GENERATE("g") "remaining_ms=1400 #8/400", REFUSED("g", "#8", "600")},
        {1600, "client:9 cancel client=c request_id=a", "*"},
        {1600, "client:9 cancel client=c request_id=b", "*"},
        {1600, "client:9 cancel client=c request_id=c", "*"},
        {1600, "client:9 cancel client=c request_id=e", "*"},
        {1600, "client:9 cancel client=c request_id=f", "*"},
    };
    struct core_fixture *f = begin(30000);
    CORE_RUN(f, "by plan", steps);
    assert_int_equal(router_core_counts(router_of(f)).refused, 3);
    router_end(&f);
}

/* Workers that are there and busy: no reason to give up; gone, they are. */
static void test_busy_is_not_absent(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "client:9 " GENERATE("a") "#1", TAKEN("#1")},
        {0, "client:9 " GENERATE("b") "#2", "client:9 accepted"},
        {30000, "tick", ""},
        {59999, "worker:2 drain", ""},
        {60000, "tick", "drop #2\nclient:9 end request_id=b reason=no_worker\ntrace"},
        {60001, "client:9 cancel client=c request_id=a", CANCELLED},
    };
    struct router_settings settings = router_test_settings();
    settings.prefill_inflight_max = 1;
    ROUTER_CASE(router_begin_cluster(&settings), "busy", steps);
}

/* Faster samples are believed sooner than slower ones. */
static void test_gauge(void **state)
{
    (void)state;
    struct gauge g = {0};
    gauge_done(&g, 100);
    gauge_pass(&g, 400 * TS_MS, true);
    assert_true(g.per_s == 0);
    gauge_pass(&g, 10 * TS_S, false); /* idle time does not count */
    gauge_done(&g, 100);
    gauge_pass(&g, 10 * TS_S + 100 * TS_MS, true);
    assert_true(g.per_s == 400);
    gauge_done(&g, 300);
    gauge_pass(&g, 10 * TS_S + 600 * TS_MS, true);
    assert_true(g.per_s == 500);
    gauge_done(&g, 200);
    gauge_pass(&g, 10 * TS_S + 1100 * TS_MS, true);
    assert_true(g.per_s == 490);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prefill),
                                       cmocka_unit_test(test_off),
                                       cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_by_plan),
                                       cmocka_unit_test(test_busy_is_not_absent),
                                       cmocka_unit_test(test_gauge)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
