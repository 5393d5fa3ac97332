/*
 * Overload of a modelled cluster: requests in time stay what they are at their peak however many more come,
 * because the others are refused at once; nothing that was accepted is dropped, and the router holds a
 * bounded number.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/ts_math.h"
#include "common/base/ts_rng.h"
#include "services/cloud/cloud.h"

#define TTFT_MS 300
#define WARM    (4 * TS_S) /* rates are measured by then */
#define UNTIL   (14 * TS_S)
#define PROMPT  256
#define OUTPUT  12

struct load {
    double rate; /* requests/s, Poisson */
    ts_time at;
    struct ts_rng rng;
    struct cloud_node *router;
    uint64_t sent, ended, refused, broken, in_time, most; /* in_time: of those sent between WARM and UNTIL */
};

static bool next(void *context, struct cloud_request *out)
{
    struct load *l = context;
    l->at += (ts_time)(-ts_math_log(1 - ts_rng_unit(&l->rng)) / l->rate * 1e9);
    if (l->at >= UNTIL)
        return false;
    out->at = l->at;
    out->prompt_count = PROMPT / 2 + (uint32_t)ts_rng_below(&l->rng, PROMPT);
    out->ttft_ms = TTFT_MS;
    out->sampling.max_tokens = OUTPUT;
    out->sampling.ignore_eos = true;
    l->sent++;
    return true;
}

static void ended(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    struct load *l = context;
    l->ended++;
    if (outcome->refused) {
        l->refused++;
        l->broken += outcome->reason != TS_REASON_OVERLOADED;
        return;
    }
    l->broken += outcome->finish != TS_FINISH_LENGTH;
    l->in_time += request->at >= WARM && outcome->metrics.ttft_ns <= TTFT_MS * TS_MS;
}

static void stepped(void *context, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    struct load *l = context;
    (void)event;
    (void)actions;
    if (node != l->router)
        return;
    struct router_counts counts = router_core_counts(cloud_node_core(node));
    uint64_t live = counts.accepted - counts.ended;
    l->most = live > l->most ? live : l->most;
}

/* Two prefill and two decode workers. Returns requests/s that had their first token in time. */
static double goodput(double rate, double factor, struct load *l)
{
    struct cloud_settings settings = cloud_settings_defaults();
    struct router_settings router = router_settings_defaults();
    struct relay_settings relay = relay_settings_defaults();
    struct cloud *cloud = NULL;
    struct ts_error err = {0};
    static const char *const ids[] = {"p0", "p1", "d0", "d1"};
    *l = (struct load){.rate = rate};
    ts_rng_init(&l->rng, 11);
    settings.seed = 5;
    settings.checks = false;
    settings.hooks = (struct cloud_hooks){.context = l, .stepped = stepped};
    assert_int_equal(cloud_new(&settings, &cloud, &err), TS_OK);
    router.overload_ttft_factor = factor;
    router.queue_max = router.per_client_max = 1000000;
    l->router = cloud_add_router(cloud, &router);
    relay.id = "r0";
    cloud_add_relay(cloud, &relay);
    for (size_t i = 0; i < 4; i++) {
        struct worker_settings worker = worker_settings_defaults();
        worker.id = ids[i];
        cloud_add_worker(cloud, &worker, i < 2 ? TS_PHASE_PREFILL : TS_PHASE_DECODE, 8000, "r0");
    }
    const struct cloud_source source = {l, next, ended, 0};
    const struct cloud_node *client = cloud_add_source(cloud, "client", &source);
    for (ts_time at = UNTIL; !cloud_source_over(client); at += TS_S) {
        assert_true(at < 200 * TS_S);
        if (cloud_run(cloud, at, &err) != TS_OK)
            fail_msg("%s", err.text);
    }
    cloud_destroy(&cloud);
    assert_int_equal(l->ended, l->sent);
    assert_int_equal(l->broken, 0);
    return (double)l->in_time / ((double)(UNTIL - WARM) / TS_S);
}

static void test_goodput(void **state)
{
    (void)state;
    struct load l;
    double peak = 0, got = 0;
    for (double rate = 150; rate <= 5.5 * peak || rate < 1000; rate *= 1.45) {
        got = goodput(rate, 0.8, &l);
        print_message("%.0f requests/s: %.1f in time, %.1f %% refused, %llu held at most\n", rate, got,
                      100.0 * (double)l.refused / (double)l.sent, (unsigned long long)l.most);
        if (rate < 300) /* below capacity: all of them, as many as Poisson sends */
            assert_true(l.refused == 0 && got > 0.95 * rate);
        peak = got > peak ? got : peak;
    }
    assert_true(got >= 0.9 * peak);
    assert_true(l.most < 2 * peak * TTFT_MS / 1000 +
                             6 * peak); /* what comes before rates are known, and a queue in time */
    /* Without it the same load leaves nothing in time. */
    double without = goodput(5 * peak, 0, &l);
    print_message("without refusal %.1f in time, %llu held at most\n", without, (unsigned long long)l.most);
    assert_true(without < 0.5 * peak);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goodput)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
