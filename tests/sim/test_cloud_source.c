/* Requests pulled one by one: each ends once, none is remembered, and checks change nothing but the price. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/cloud/cloud.h"

#define REQUESTS 1000

struct count {
    uint32_t asked, ended, refused, complete, traced, tokens;
    ts_time every, sums; /* between two requests; of all latencies */
    bool ids;            /* outcomes brought token ids */
};

static bool next(void *context, struct cloud_request *out)
{
    struct count *count = context;
    if (count->asked == REQUESTS)
        return false;
    out->at = TS_S + count->asked * count->every;
    out->prompt_count = 1 + count->asked % 100;
    out->sampling.seed = count->asked;
    out->sampling.max_tokens = 1 + count->asked % 17;
    out->sampling.ignore_eos = true;
    count->asked++;
    return true;
}

static void ended(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    struct count *count = context;
    assert_true(outcome->ended);
    count->ended++;
    count->refused += outcome->refused;
    assert_int_equal(outcome->refused, outcome->trace == NULL);
    if (outcome->refused)
        return;
    assert_int_equal(outcome->finish, TS_FINISH_LENGTH);
    assert_int_equal(outcome->token_count, request->sampling.max_tokens);
    assert_int_equal(outcome->trace->output_tokens, outcome->token_count);
    assert_int_equal(outcome->trace->prompt_tokens, request->prompt_count);
    assert_true(outcome->metrics.ttft_ns > 0);
    count->complete++;
    count->tokens += outcome->token_count;
    count->ids = outcome->tokens != NULL;
    count->sums += outcome->metrics.ttft_ns + 3 * outcome->metrics.tpot_ns + 7 * outcome->metrics.gap_max_ns;
}

static struct count play(bool checks, ts_time every, uint32_t queue_max, uint32_t retries, bool plain)
{
    struct count count = {.every = every};
    struct cloud_source source = {&count, next, ended, retries};
    struct cloud_settings settings = cloud_settings_defaults();
    struct router_settings router = router_settings_defaults();
    struct planner_settings planner = planner_settings_defaults();
    struct relay_settings relay = relay_settings_defaults();
    struct worker_settings worker = worker_settings_defaults();
    struct ts_error err = {0};
    struct cloud *cloud = NULL;
    settings.checks = checks;
    settings.context_tokens = 512;
    router.queue_max = queue_max;
    router.per_client_max = queue_max;
    planner.id = "planner";
    relay.id = "relay";
    assert_int_equal(cloud_new(&settings, &cloud, &err), TS_OK);
    cloud_add_router(cloud, &router);
    cloud_add_planner(cloud, &planner);
    cloud_add_relay(cloud, &relay);
    worker.id = "prefill";
    cloud_add_worker(cloud, &worker, TS_PHASE_PREFILL, 256, relay.id);
    worker.id = "decode";
    cloud_add_worker(cloud, &worker, TS_PHASE_DECODE, 256, NULL);
    struct cloud_node *client = cloud_add_source(cloud, "client", &source);
    if (plain)
        cloud_client_plain(client);
    for (ts_time at = TS_S; !cloud_source_over(client) && at < 300 * TS_S; at += TS_S) {
        if (cloud_run(cloud, at, &err) != TS_OK)
            fail_msg("%s", err.text);
        if (retries == 0) /* what waits to be sent again is remembered, of course */
            assert_true(cloud_client_count(client) < REQUESTS / 2);
    }
    assert_true(cloud_source_over(client));
    assert_int_equal(cloud_digest(cloud) != 0, checks);
    cloud_destroy(&cloud);
    assert_int_equal(count.ended, REQUESTS);
    assert_int_equal(count.complete + count.refused, REQUESTS);
    return count;
}

static void test_each_ends_once(void **state)
{
    (void)state;
    struct count count = play(true, 10 * TS_MS, 64, 0, false);
    assert_int_equal(count.complete, REQUESTS);
    assert_true(count.ids);
}

static void test_checks_change_nothing(void **state)
{
    (void)state;
    struct count with = play(true, 10 * TS_MS, 64, 0, false), without = play(false, 10 * TS_MS, 64, 0, false);
    assert_false(without.ids);
    assert_int_equal(with.tokens, without.tokens);
    assert_int_equal(with.sums, without.sums);
}

static void test_plain_client(void **state)
{
    (void)state;
    assert_int_equal(play(true, 10 * TS_MS, 64, 0, true).complete, REQUESTS);
}

static void test_refused(void **state)
{
    (void)state;
    struct count once = play(true, 100 * TS_US, 8, 0, false);
    struct count often = play(true, 100 * TS_US, 8, 1000, false);
    assert_true(once.refused > REQUESTS / 4);
    assert_int_equal(often.refused, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_ends_once),
                                       cmocka_unit_test(test_checks_change_nothing),
                                       cmocka_unit_test(test_plain_client), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
