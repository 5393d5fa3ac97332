/* The measured workload: rates, lengths, bunching, refusals, deadlines kept; and how planners hear of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "router_fixture.h"
#include "services/router/router_workload.h"

static struct ts_arena arena;

static double relative(double a, double b)
{
    return a > b ? a / b - 1 : b / a - 1;
}

/* Two kinds of requests at 10/s and 2/s: rates and moments of both, over the window only. */
static void test_classes(void **state)
{
    (void)state;
    struct workload w;
    ts_time now = 7 * TS_S;
    workload_init(&w, 60000);
    for (int i = 0; i < 600; i++, now += 100 * TS_MS) /* 60 s that are forgotten */
        workload_arrived(&w, now, 5, 5);
    for (int i = 0; i < 600; i++, now += 100 * TS_MS) {
        workload_arrived(&w, now, i % 2 ? 600 : 800, 100);
        if (i % 5 == 0)
            workload_arrived(&w, now, 40, 2000);
    }
    struct ts_workload got = workload_of(&w, now - 1, &arena);
    assert_int_equal(got.classes.count, 2);
    assert_true(relative(got.arrivals_per_s, 12) < 0.02);
    assert_true(got.window_s > 55 && got.window_s <= 60);
    const struct ts_workload_class *a = &got.classes.data[0], *b = &got.classes.data[1];
    assert_true(relative(a->rate, 2) < 0.03 && a->prompt_tokens == 40 && a->output_tokens == 2000);
    assert_true(relative(b->rate, 10) < 0.02 && relative(b->prompt_tokens, 700) < 1e-3);
    assert_true(relative(b->prompt_tokens_sq, (600.0 * 600 + 800.0 * 800) / 2) < 1e-3);
    assert_true(b->prompt_begin <= 600 && b->prompt_end > 800 && b->prompt_end < 1.6 * b->prompt_begin);
    assert_true(relative(got.output_tokens_mean, (10 * 100 + 2 * 2000) / 12.0) < 0.02);
    assert_true(got.attained == -1 && got.refused_per_s == 0);
    assert_false(workload_idle(&w, now));
    assert_true(workload_idle(&w, now + 61 * TS_S));
    got = workload_of(&w, now + 61 * TS_S, &arena);
    assert_true(got.classes.count == 0 && got.arrivals_per_s == 0);
    workload_fini(&w);
}

/* Classes are ranges of prompts without a gap, narrow enough that one deadline fits all in it; the last one
 * has no end. */
static void test_ranges(void **state)
{
    (void)state;
    struct workload w;
    double end = 0;
    workload_init(&w, 60000);
    for (uint32_t prompt = 1; prompt < 200000; prompt += 1 + prompt / 8)
        workload_arrived(&w, TS_S, prompt, 20);
    struct ts_workload got = workload_of(&w, 2 * TS_S, &arena);
    assert_in_range(got.classes.count, 16, WORKLOAD_PROMPTS);
    for (uint32_t k = 0; k < got.classes.count; k++) {
        const struct ts_workload_class *c = &got.classes.data[k];
        assert_true(c->prompt_begin == end && c->prompt_tokens >= c->prompt_begin);
        assert_true(c->prompt_tokens < c->prompt_end);
        assert_true(k == 0 || k + 1 == got.classes.count || c->prompt_end <= 1.5 * c->prompt_begin);
        end = c->prompt_end;
    }
    assert_true(end == 1e8);
    workload_fini(&w);
}

/* Arrivals one by one have less than one, Poisson ones one, those that come in dozens a dozen. */
static void test_burst(void **state)
{
    (void)state;
    struct ts_rng rng;
    double burst[3];
    ts_rng_init(&rng, 3);
    for (int kind = 0; kind < 3; kind++) {
        struct workload w;
        workload_init(&w, 600000);
        for (ts_time now = 0; now < 580 * TS_S; now += 10 * TS_MS) {
            bool comes = kind == 0 ? now % (50 * TS_MS) == 0 : ts_rng_below(&rng, kind == 1 ? 5 : 60) == 0;
            for (int i = 0; comes && i < (kind == 2 ? 12 : 1); i++)
                workload_arrived(&w, now, 100, 100);
        }
        burst[kind] = workload_of(&w, 580 * TS_S, &arena).burst;
        workload_fini(&w);
    }
    assert_true(burst[0] < 0.01);
    assert_true(burst[1] > 0.6 && burst[1] < 1.2);
    assert_true(burst[2] > 9 && burst[2] < 15);
}

/* An output is expected to be what others of like lengths used of theirs, until it is known. */
static void test_outputs(void **state)
{
    (void)state;
    struct workload w;
    workload_init(&w, 60000);
    assert_int_equal(workload_expected(&w, 100, 4096), 4096);
    for (int i = 0; i < 10; i++)
        workload_learn(&w, 100, i % 2 ? 300 : 100, 4096);
    assert_int_equal(workload_expected(&w, 100, 4096), 200);
    assert_int_equal(workload_expected(&w, 100, 64), 64); /* another cell */
    struct workload_entry e = workload_arrived(&w, TS_S, 100, 200);
    assert_true(workload_of(&w, 2 * TS_S, &arena).output_tokens_mean == 200);
    workload_correct(&w, 3 * TS_S, &e, 120, 1000);
    struct ts_workload got = workload_of(&w, 3 * TS_S, &arena);
    assert_true(got.classes.count == 1 && got.output_tokens_mean == 1000 && got.prompt_tokens_mean == 120);
    workload_correct(&w, 70 * TS_S, &e, 120, 5); /* it has left the window */
    assert_int_equal(workload_of(&w, 70 * TS_S, &arena).classes.count, 0);
    workload_arrived(&w, 71 * TS_S, 100, 1);
    assert_int_equal(workload_of(&w, 71 * TS_S, &arena).classes.count, 1);
    workload_fini(&w);
}

#define PLANNER "planner:1 hello role=planner id=pa"
#define SLO     "ttft_ms=100 tpot_ms=50 "

/* Updates of the same version while there is traffic; then silence. A refused request has arrived too. */
static void test_updates(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, PLANNER,
         "planner:1 welcome\nplanner:1 snapshot version=7 workload.window_s=0 workload.attained=-1"},
        {1000, "client:9 " GENERATE("a") SLO "#1/400", "client:9 accepted\n*"},
        {1050, "worker:2 output rid=1.1 role=decode first_index=0 items=5", "client:9 tokens"},
        {1150, "worker:2 output rid=1.1 role=decode first_index=1 items=5,5 finish=stop",
         "*"}, /* 50 ms each */
        {2000, "client:9 " GENERATE("b") SLO "#2/400", "client:9 accepted\n*"},
        {2101, "worker:2 output rid=2.1 role=decode first_index=0 items=5 finish=stop", "*"}, /* late */
        {3000, "client:9 " GENERATE("c") SLO "#3/400", "client:9 accepted\n*"},
        {3001, "client:9 " GENERATE("d") "#4/400", "client:9 refused reason=queue_full\ndrop #4"},
        {3002, "client:9 " GENERATE("e") "digest=5 #5/0", "client:9 refused reason=bad_request\ndrop #5"},
        {5999, "tick", ""},
        {6000, "tick",
         "planner:1 update version=7 workload.arrivals_per_s=0.8 workload.prompt_tokens_mean=100 "
         "workload.refused_per_s=0.2 workload.attained=0.5 workload.window_s=5 workload.running=1"},
        {6001, "client:9 cancel client=c request_id=c", "*"}, /* its wish, and not judged */
        {10999, "tick", ""},
        {11000, "tick", "planner:1 update version=7 workload.arrivals_per_s=0.4 workload.attained=0.5"},
        {16000, "tick", "planner:1 update"},
        {61000, "tick", "planner:1 update workload.arrivals_per_s=0"}, /* the last word */
        {66001, "tick", ""},
        {99000, "tick", ""},
    };
    struct router_settings settings = router_test_settings();
    settings.queue_max = 1;
    ROUTER_CASE(router_begin_cluster(&settings), "updates", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_classes), cmocka_unit_test(test_ranges),
                                       cmocka_unit_test(test_burst), cmocka_unit_test(test_outputs),
                                       cmocka_unit_test(test_updates)};
    ts_arena_init(&arena);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_arena_fini(&arena);
    return failed;
}
