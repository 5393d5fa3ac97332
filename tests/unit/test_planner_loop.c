/*
 * The rescheduling loop, as tables: what opens a plan, when a flip is sent, that nothing flaps, and what
 * comes of flips that fail or take their time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "planner_core_fixture.h"

#define HELLO "planner:1 hello role=planner id=pl0"
#define BEGIN                                                                                                \
    {0, "start", "planner:1 connect endpoint=tcp://router\n" HELLO},                                         \
    {                                                                                                        \
        1, "planner:1 welcome", ""                                                                           \
    }
/* Llama-3-8B on cards of which nothing is known. */
#define SHAPE                                ":1:0:0:cpu:32:4096:14336:32:8:128:128256:3:2000"
#define W(name, its_host, its_phase, number) name ":" its_host ":m::" number ":3:" its_phase SHAPE
/* Three of each phase; and as a flip has them. */
#define W2_TO_4                                                                                              \
    W("w2", "h2", "prefill", "2") "," W("w3", "h3", "decode", "3") "," W("w4", "h4", "decode", "4")
#define W0        "workers=" W("w0", "h0", "prefill", "9") ","
#define W5_LOST   W0 W("w1", "h1", "prefill", "1") "," W2_TO_4
#define CLUSTER   W5_LOST "," W("w5", "h5", "decode", "5")
#define AS_DECODE W0 W("w1", "h1", "decode", "1") "," W2_TO_4 "," W("w5", "h5", "decode", "5")
#define TURNED    "replicas=0:w0:prefill,1:w1:decode,2:w2:prefill,3:w3:decode,4:w4:decode,5:w5:decode"
#define AS_IT_WAS "replicas=0:w0:prefill,1:w1:prefill,2:w2:prefill,3:w3:decode,4:w4:decode,5:w5:decode"
/* window_s, then one class: rate, prompt, its square, output, its square. */
#define LOAD(rate, prompt, prompt_sq, output, output_sq)                                                     \
    " workload.window_s=60 workload.burst=1 workload.attained=-1 workload.arrivals_per_s=" rate              \
    " workload.classes=" rate ":" prompt ":" prompt_sq ":" output ":" output_sq
#define CODING               LOAD("1.0", "1500", "2500000", "20", "500")
#define MORE_CODING          LOAD("1.2", "1500", "2500000", "20", "500")
#define HEAVY_CODING         LOAD("3.0", "1500", "2500000", "20", "500")
#define TALK                 LOAD("15", "150", "30000", "300", "120000")
#define HOLDER               " term=1 holder=pl0 "
#define UP(at, number, with) "planner:1 update version=" number HOLDER with

static struct planner_settings test_settings(void)
{
    struct planner_settings s = planner_test_settings();
    s.step_work = 1000000;
    s.plan.colocate = false;
    return s;
}

static struct core_fixture *begin(const struct planner_settings *settings)
{
    struct core_fixture *f = planner_begin(settings);
    f->busy = true; /* a flip is searched for in the step after the re-route */
    return f;
}

/* The workload moves: a re-route; back within the threshold: nothing; a look each half minute: nothing new.
 */
static void test_drift(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER, "planner:1 plan term=1 number=1 classes=*2"},
        {1000, UP(1000, "2", CLUSTER CODING), ""}, /* too early to look again */
        {1002, "tick",
         "planner:1 plan number=2 snapshot_version=2 classes=*0"}, /* measured for the first time */
        {2500, UP(2500, "3", CLUSTER MORE_CODING), ""},
        {4000, UP(4000, "4", CLUSTER CODING), ""},
        {40000, "tick", ""}, /* a look all the same; no other shares */
        {41000, UP(41000, "5", CLUSTER LOAD("1.0", "400", "200000", "20", "500")),
         ""}, /* shorter: shares stay */
        {43000,
         UP(43000, "6",
            CLUSTER " workload.window_s=60 workload.attained=-1 workload.burst=1 workload.arrivals_per_s=1 "
                    "workload.classes=0.5:100:12000:20:500,0.5:2000:4200000:20:500"),
         "planner:1 plan number=3 snapshot_version=6 classes=*2"},
    };
    struct planner_settings settings = test_settings();
    settings.plan.flips = false;
    struct core_fixture *f = begin(&settings);
    CORE_RUN(f, "drift", steps);
    planner_end(&f);
}

/* As routers report them from relays: a link that moves by no more than link_change is nothing; when those of
 * one host become slow, its worker gets less. */
static void test_links(void **state)
{
    (void)state;
#define FROM(host, speed)                                                                                    \
    host ":h3:" speed ":200000," host ":h4:" speed ":200000," host ":h5:" speed ":200000"
#define LINKS(speed) " links=" FROM("h0", speed) "," FROM("h1", "1000000000") "," FROM("h2", "1000000000")
    static const struct core_step steps[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING LINKS("1000000000"),
         "planner:1 plan number=1 replicas=*6"},
        {3000, UP(3000, "2", CLUSTER CODING LINKS("750000000")), ""},
        {6000, UP(6000, "3", CLUSTER CODING LINKS("10000000")),
         "planner:1 plan number=2 snapshot_version=3 replicas=*6"},
        {9000, UP(9000, "4", CLUSTER CODING LINKS("11000000")), ""},
    };
    struct planner_settings settings = test_settings();
    settings.plan.flips = false;
    struct core_fixture *f = begin(&settings);
    CORE_RUN(f, "links", steps);
    planner_end(&f);
}

/* A worker is lost: at once, whatever was sent when. */
static void test_lost(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING, "planner:1 plan number=1 replicas=*6"},
        {3, UP(3, "2", W5_LOST CODING), "planner:1 plan number=2 snapshot_version=2 replicas=*5"},
        {4, UP(4, "3", CLUSTER CODING), "planner:1 plan number=3 snapshot_version=3 replicas=*6"},
    };
    struct planner_settings settings = test_settings();
    settings.plan.flips = false;
    struct core_fixture *f = begin(&settings);
    CORE_RUN(f, "lost", steps);
    planner_end(&f);
}

/* From coding to conversation: a worker of prefill turns to decode, once its turn pays. Until it has arrived
 * it counts as what it is to be; then there is quiet. */
static void test_flip(void **state)
{
    (void)state;
    static const struct core_step pays[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING, "planner:1 plan number=1"},
        {5000, UP(5000, "2", CLUSTER TALK), ""}, /* equal workers: shares stay */
        {5000, "tick", ""},                      /* phases that serve all */
        {5000, "tick", "planner:1 plan number=2 snapshot_version=2 " TURNED},
        {5001, "planner:1 plan_reply term=1 number=2 verdict=accepted", ""},
        {5002, UP(5002, "3", CLUSTER TALK), ""}, /* not there yet */
        {5003, UP(5003, "4", AS_DECODE TALK), ""},
        {5004, "planner:1 plan_reply term=1 number=2 verdict=applied", ""},
        {20000, UP(20000, "5", AS_DECODE HEAVY_CODING), ""}, /* quiet */
        {50000, "tick", ""},
        {80000, "tick", ""},
        {110000, "tick", ""},
        {140000, "tick", ""},
        {140000, "tick", ""},
        {140000, "tick", "planner:1 plan number=3 snapshot_version=5 replicas=*6"}, /* and back */
    };
    static const struct core_step short_window[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING, "planner:1 plan number=1"},
        {5000, UP(5000, "2", CLUSTER TALK), ""},
        {5000, "tick", ""},
        {5000, "tick", ""},
    };
    struct planner_settings settings = test_settings();
    struct core_fixture *f = begin(&settings);
    CORE_RUN(f, "pays", pays);
    planner_end(&f);
    settings.plan.adopt.window_s = 11;
    f = begin(&settings);
    CORE_RUN(f, "short window", short_window);
    planner_end(&f);
}

/* Settings that contradict each other: the longer time counts, and it does not wake for nothing. */
static void test_slow(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING, "planner:1 plan number=1"},
        {1000, UP(1000, "2", CLUSTER TALK), ""},
        {30002, "tick", ""},
        {59000, "tick", ""},
    };
    struct planner_settings settings = test_settings();
    settings.plan.flips = false;
    settings.trigger.plan_min_s = 60;
    struct core_fixture *f = begin(&settings);
    f->busy = false;
    CORE_RUN(f, "slow", steps);
    assert_int_equal(planner_core_deadline(f->driver.core), 60002 * TS_MS);
    planner_end(&f);
}

/* The last worker of decode is lost: another one turns, unless it comes back in time. */
static void test_pair_lost(void **state)
{
    (void)state;
#define ALONE "workers=" W("w0", "h0", "prefill", "9") "," W("w1", "h1", "prefill", "1")
#define PAIR  ALONE "," W("w3", "h3", "decode", "3")
    static const struct core_step comes_back[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " PAIR, "planner:1 plan number=1"},
        {1000, UP(1000, "2", ALONE), ""},
        {4000, UP(4000, "3", PAIR), "planner:1 plan number=2 snapshot_version=3"},
        {7000, "tick", ""},
        {8000, UP(8000, "4", ALONE), ""},
        {12999, UP(12999, "5", ALONE), ""},
    };
    static const struct core_step turns[] = {
        {13000, "tick", ""},
        {13000, "tick", ""},
        {13000, "tick", "planner:1 plan number=3 snapshot_version=5 replicas=0:w0:decode,1:w1:prefill"},
    };
    struct planner_settings settings = test_settings();
    struct core_fixture *f = begin(&settings);
    f->busy = false;
    CORE_RUN(f, "comes back", comes_back);
    assert_int_equal(planner_core_deadline(f->driver.core), 13000 * TS_MS);
    core_step_one(f, 12999, "planner:1 unreachable", HELLO);
    assert_true(planner_core_deadline(f->driver.core) > 13000 * TS_MS); /* nobody to plan for */
    core_step_one(f, 12999, "planner:1 welcome term=1", "");
    core_step_one(f, 12999, "planner:1 snapshot version=5 term=1 holder=pl0 " ALONE, "");
    f->busy = true;
    CORE_RUN(f, "turns", turns);
    planner_end(&f);
}

/* A flip that the router aborts, or refuses, or that never comes: phases are as they are, and stay so. */
static void test_flip_fails(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "planner:1 plan_reply term=1 number=2 verdict=aborted reason=draining text=w1",
        "planner:1 plan_reply term=1 number=2 verdict=refused reason=bad_plan text=w1"};
    for (size_t i = 0; i < 2; i++) {
        const struct core_step steps[] = {
            BEGIN,
            {2, "planner:1 snapshot version=1 " CLUSTER TALK, "planner:1 plan number=1"},
            {2, "tick", ""},
            {2, "tick", "planner:1 plan number=2 " TURNED},
            {5001, answers[i], ""}, /* it waits for what the cluster is then */
            {5002, UP(5002, "2", CLUSTER TALK), "planner:1 plan number=3 snapshot_version=2 " AS_IT_WAS},
            {35002, "tick", ""}, /* quiet */
            {65002, "tick", ""},
            {155002, "tick", ""},
            {155002, "tick", ""},
            {155002, "tick", "planner:1 plan number=4 " TURNED},
        };
        struct planner_settings settings = test_settings();
        struct core_fixture *f = begin(&settings);
        CORE_RUN(f, "flip fails", steps);
        planner_end(&f);
    }
    static const struct core_step never[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER TALK, "planner:1 plan number=1"},
        {2, "tick", ""},
        {2, "tick", "planner:1 plan number=2 " TURNED},
        {30003, UP(30003, "2", CLUSTER TALK), ""},
        {60003, UP(60003, "3", CLUSTER TALK), "planner:1 plan number=3 snapshot_version=3 " AS_IT_WAS},
    };
    struct planner_settings settings = test_settings();
    struct core_fixture *f = begin(&settings);
    CORE_RUN(f, "never", never);
    planner_end(&f);
}

/* Ten minutes of swings between two loads, one each ten seconds, in a cluster that turns when told; the
 * number of plans after the first. */
static int plans_of_swings(const char *one, const char *other)
{
    static const struct core_step steps[] = {
        BEGIN,
        {2, "planner:1 snapshot version=1 " CLUSTER CODING, "planner:1 plan number=1"},
    };
    struct planner_settings settings = test_settings();
    struct core_fixture *f = begin(&settings);
    bool decode = false;
    int plans = 0;
    CORE_RUN(f, "swings", steps);
    for (int i = 0; i < 60; i++) {
        char line[2000];
        snprintf(line, sizeof line, "planner:1 update version=%d" HOLDER "%s%s", i + 2,
                 decode ? AS_DECODE : CLUSTER, i % 2 ? one : other);
        for (int ticks = 0; ticks == 0 || !planner_core_idle(f->driver.core); ticks++) {
            assert_true(ticks < 10);
            core_step_one(f, 10000 + 10000 * i, ticks ? "tick" : line, "*");
            for (size_t k = 0; k < f->out.count; k++) {
                const struct ts_action *a = &f->out.items[k];
                if (a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_PLAN) {
                    plans++;
                    decode = a->send.msg.plan.replicas.data[1].phase == TS_PHASE_DECODE;
                }
            }
        }
    }
    planner_end(&f);
    return plans;
}

static void test_no_flapping(void **state)
{
    (void)state;
    /* A little more than three workers of decode carry: the fourth stays. */
    assert_int_equal(plans_of_swings(LOAD("15", "150", "30000", "300", "120000"),
                                     LOAD("14", "150", "30000", "300", "120000")),
                     1);
    /* Other requests each time, either of which would rather have the other phases: not at each swing. */
    assert_in_range(plans_of_swings(CODING, TALK), 1, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drift),      cmocka_unit_test(test_links),
        cmocka_unit_test(test_lost),       cmocka_unit_test(test_flip),
        cmocka_unit_test(test_slow),       cmocka_unit_test(test_pair_lost),
        cmocka_unit_test(test_flip_fails), cmocka_unit_test(test_no_flapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
