/* KV on the links of a site: as many bytes as the requests say, slower over a slow link, in halves when two
 * share it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/inputs/ts_inputs.h"
#include "services/cloud/cloud_site.h"

#define PROMPT 1000

struct stream {
    uint32_t count, asked, ended;
    ts_time every, gap_sum; /* from token 0 to token 1 */
    double bytes;
};

static bool next(void *context, struct cloud_request *out)
{
    struct stream *s = context;
    if (s->asked == s->count)
        return false;
    out->at = s->asked++ * s->every;
    out->prompt_count = PROMPT;
    out->sampling.max_tokens = 4;
    out->sampling.ignore_eos = true;
    return true;
}

static void ended(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    struct stream *s = context;
    assert_int_equal(outcome->token_count, request->sampling.max_tokens);
    s->ended++;
    s->gap_sum += outcome->metrics.gap01_ns;
    s->bytes += (double)outcome->trace->kv_bytes_sent;
}

static void set_group(struct ts_plan *plan, uint32_t g, enum ts_phase phase, uint32_t gpu)
{
    plan->groups[g] = (struct ts_group){
        .phase = phase, .stages = {{.gpus = {gpu}, .tp = 1, .layers = 32}}, .stage_count = 1};
}

/* `prefills` devices of node 0 feed one of node 1. */
static struct cloud_site_link play(struct stream *stream, uint32_t prefills, double factor)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_cluster *cluster = NULL;
    struct ts_model model;
    struct ts_error err = {0};
    if (ts_catalogue_load(TS_CONF_DIR, "measured", &catalogue, &err) != TS_OK ||
        ts_inputs_cluster(catalogue, TS_CONF_DIR, "two-nodes", &cluster, &err) != TS_OK ||
        ts_inputs_model(TS_CONF_DIR, "llama-2-7b", &model, &err) != TS_OK)
        fail_msg("%s", err.text);
    const struct ts_demand demand = {.burst = 1,
                                     .class_count = 1,
                                     .classes = {{.rate = 1,
                                                  .prompt_tokens = PROMPT,
                                                  .prompt_tokens_sq = PROMPT * PROMPT,
                                                  .output_tokens = 4,
                                                  .output_tokens_sq = 16}}};
    struct ts_plan *plan = ts_plan_new(prefills + 1, prefills);
    for (uint32_t i = 0; i < prefills; i++) {
        set_group(plan, i, TS_PHASE_PREFILL, i);
        plan->flows[i] = (struct ts_flow){
            .prefill = i, .decode = prefills, .rate = 1, .attained = 1, .codec = TS_COST_CODEC_NONE};
    }
    set_group(plan, prefills, TS_PHASE_DECODE, 4);
    plan->rate = prefills;
    struct cloud_site_settings settings = cloud_site_defaults();
    const struct cloud_source source = {stream, next, ended, 0};
    struct cloud_site *site = NULL;
    settings.cluster = cluster;
    settings.model = &model;
    settings.plan = plan;
    settings.demand = &demand;
    if (cloud_site_new(&settings, &source, &site, &err) != TS_OK)
        fail_msg("%s", err.text);
    cloud_site_link(site, 0, 0, 1, factor);
    if (cloud_site_run(site, 1000 * TS_S, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(stream->ended, stream->count);
    assert_int_equal(cloud_site_link_count(site), 2);
    struct cloud_site_link card = cloud_site_link_at(site, 0), link = cloud_site_link_at(site, 1);
    assert_true(card.from == 0 && card.to == 0 && link.from == 0 && link.to == 1);
    assert_true(fabs(card.bytes - link.bytes) < 1);
    assert_true(fabs(link.bytes_per_s - factor * ts_cluster_link(cluster, 0, 1)->bytes_per_s) < 1);
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
    ts_cluster_destroy(&cluster);
    ts_catalogue_destroy(&catalogue);
    return link;
}

static void test_bytes(void **state)
{
    struct stream stream = {.count = 20, .every = 2 * TS_S};
    (void)state;
    struct cloud_site_link link = play(&stream, 1, 1);
    double kv = 32 * 2 * 4096 * 2.0 * PROMPT * stream.count;     /* layers, keys and values, hidden, 16 bit */
    assert_true(stream.bytes >= kv && stream.bytes < 1.01 * kv); /* messages included */
    assert_true(fabs(link.bytes - kv) < 0.01 * kv);
    assert_true(fabs(link.busy_s - link.bytes / link.bytes_per_s) < 0.01 * link.busy_s);
}

/* Far slower than the prefill: from token 0 to token 1 passes the time of the bytes. */
static void test_slow(void **state)
{
    struct stream fast = {.count = 10, .every = 60 * TS_S}, slow = fast, shared = {.count = 20, .every = 0};
    (void)state;
    play(&fast, 1, 1);
    struct cloud_site_link link = play(&slow, 1, 0.02);
    double transfer = link.bytes / slow.count / link.bytes_per_s,
           gap = (double)slow.gap_sum / 1e9 / slow.count;
    assert_true(fast.gap_sum < slow.gap_sum / 5);
    assert_true(fabs(gap - transfer) < 0.1 * transfer);
    link = play(&shared, 2, 0.02); /* all at once from two devices: the link is the bound */
    assert_true(fabs(link.busy_s - shared.count * transfer) < 0.02 * link.busy_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes), cmocka_unit_test(test_slow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
