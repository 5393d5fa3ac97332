/*
 * A small site on cards of the catalogue with plans made by hand: every request ends once, whatever changes
 * on the way; a request alone takes the time of the cost model.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "services/cloud/cloud_site.h"

#define PROMPT 500
#define OUTPUT 50

struct fixture {
    struct ts_catalogue *catalogue;
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
};

static int setup(void **state)
{
    struct fixture *f = ts_xcalloc(1, sizeof *f);
    struct ts_error err = {0};
    bool ok = ts_catalogue_load(TS_CONF_DIR, "measured", &f->catalogue, &err) == TS_OK &&
              ts_inputs_cluster(f->catalogue, TS_CONF_DIR, "two-nodes", &f->cluster, &err) == TS_OK &&
              ts_inputs_model(TS_CONF_DIR, "llama-2-7b", &f->model, &err) == TS_OK;
    if (!ok)
        fail_msg("%s", err.text);
    f->demand = (struct ts_demand){.burst = 1,
                                   .class_count = 1,
                                   .classes = {{.rate = 4,
                                                .prompt_tokens = PROMPT,
                                                .prompt_tokens_sq = PROMPT * PROMPT,
                                                .output_tokens = OUTPUT,
                                                .output_tokens_sq = OUTPUT * OUTPUT}}};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ts_cluster_destroy(&f->cluster);
    ts_catalogue_destroy(&f->catalogue);
    ts_free(f);
    return 0;
}

/* --- plans ------------------------------------------------------------------------------------------- */

static void set_group(struct ts_plan *plan, uint32_t g, enum ts_phase phase, uint32_t gpu)
{
    plan->groups[g] = (struct ts_group){
        .phase = phase, .stages = {{.gpus = {gpu}, .tp = 1, .layers = 32}}, .stage_count = 1};
}

/* Group g holds device g of `gpus`; the first half prefills, and each sends to each of the second half. */
static struct ts_plan *halves(const uint32_t *gpus, uint32_t count, bool swapped)
{
    uint32_t half = count / 2;
    struct ts_plan *plan = ts_plan_new(count, half * half);
    for (uint32_t g = 0; g < count; g++)
        set_group(plan, g, (g < half) != swapped ? TS_PHASE_PREFILL : TS_PHASE_DECODE, gpus[g]);
    for (uint32_t f = 0; f < half * half; f++) {
        uint32_t a = f / half, b = half + f % half;
        plan->flows[f] = (struct ts_flow){.prefill = swapped ? b : a,
                                          .decode = swapped ? a : b,
                                          .rate = 1,
                                          .attained = 1,
                                          .codec = f % 2 ? TS_COST_CODEC_I4 : TS_COST_CODEC_NONE};
    }
    plan->rate = 4;
    return plan;
}

/* --- requests ---------------------------------------------------------------------------------------- */

struct stream {
    uint32_t count, asked, ended, failed, prompt;
    ts_time every;
    double noise; /* of batch times */
    uint64_t tokens;
    int64_t sums; /* of times */
    struct ts_metrics last;
    struct ts_trace trace;
};

static bool next(void *context, struct cloud_request *out)
{
    struct stream *s = context;
    if (s->asked == s->count)
        return false;
    out->at = s->asked * s->every;
    out->prompt_count = s->prompt ? s->prompt : PROMPT;
    out->sampling.seed = s->asked++;
    out->sampling.max_tokens = OUTPUT;
    out->sampling.ignore_eos = true;
    return true;
}

static void ended(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    struct stream *s = context;
    assert_true(outcome->ended);
    assert_int_equal(request->at, request->sampling.seed * s->every);
    s->ended++;
    s->failed += outcome->refused || outcome->finish != TS_FINISH_LENGTH;
    s->tokens += outcome->token_count;
    s->last = outcome->metrics;
    s->sums += outcome->metrics.ttft_ns + 3 * outcome->metrics.tpot_ns + 7 * outcome->metrics.gap_max_ns;
    if (outcome->trace)
        s->trace = *outcome->trace;
}

static struct cloud_site *open_site(const struct fixture *f, const struct ts_plan *plan,
                                    struct stream *stream, bool checks)
{
    struct cloud_site_settings s = cloud_site_defaults();
    const struct cloud_source source = {stream, next, ended, 0};
    struct cloud_site *site = NULL;
    struct ts_error err = {0};
    s.cluster = f->cluster;
    s.model = &f->model;
    s.plan = plan;
    s.demand = &f->demand;
    s.cloud.checks = checks;
    s.noise = stream->noise;
    if (cloud_site_new(&s, &source, &site, &err) != TS_OK)
        fail_msg("%s", err.text);
    return site;
}

static void run(struct cloud_site *site, const struct stream *stream)
{
    struct ts_error err = {0};
    if (cloud_site_run(site, 600 * TS_S, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(stream->ended, stream->count);
}

/* --- */

static void test_all_end(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    int64_t sums[2];
    for (int checks = 0; checks < 2; checks++) {
        struct stream stream = {.count = 200, .every = 60 * TS_MS};
        struct cloud_site *site = open_site(f, plan, &stream, checks);
        run(site, &stream);
        assert_int_equal(stream.failed, 0);
        assert_int_equal(stream.tokens, 200 * OUTPUT);
        uint64_t prompts = 0, outputs = 0;
        assert_int_equal(cloud_site_replica_count(site), 4);
        for (size_t i = 0; i < 4; i++) {
            struct cloud_site_replica r = cloud_site_replica_at(site, i);
            prompts += r.prompt_tokens;
            outputs += r.output_tokens;
            assert_true(r.busy_s[0] > 0 && r.busy_s[0] < 60 && r.batches > 0);
            assert_true(isinf(r.died_s) && r.born_s == 0);
        }
        assert_int_equal(prompts, 200 * PROMPT);
        assert_int_equal(outputs, 200 * OUTPUT);
        sums[checks] = stream.sums;
        cloud_site_destroy(&site);
    }
    assert_true(sums[0] == sums[1]); /* checks change nothing */
    ts_plan_destroy(&plan);
}

static uint64_t digest_of_run(const struct fixture *f, const struct ts_plan *plan, double noise)
{
    struct stream stream = {.count = 40, .every = 60 * TS_MS, .noise = noise};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    run(site, &stream);
    uint64_t digest = cloud_digest(cloud_site_cloud(site));
    cloud_site_destroy(&site);
    return digest;
}

static void test_repeats(void **state)
{
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    uint64_t digest = digest_of_run(*state, plan, 0.1);
    assert_true(digest == digest_of_run(*state, plan, 0.1));
    assert_true(digest != digest_of_run(*state, plan, 0.11));
    ts_plan_destroy(&plan);
}

static void near_(double value, double expected, double part, const char *what)
{
    if (!(fabs(value - expected) <= part * expected))
        fail_msg("%s: %g, expected %g", what, value, expected);
}

static void test_alone(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 4}, 2, false);
    struct stream stream = {.count = 1};
    struct cloud_site *site = open_site(f, plan, &stream, false);
    const struct ts_device_type *p = &f->cluster->types[f->cluster->gpus[0].type],
                                *d = &f->cluster->types[f->cluster->gpus[4].type];
    run(site, &stream);
    double prefill = 32 * ts_cost_layer_prefill_s(p, &f->model, NULL, 1, PROMPT, (double)PROMPT * PROMPT) +
                     ts_cost_head_s(p, &f->model, 1, 1) + ts_cost_step_s(p);
    double context = PROMPT + OUTPUT / 2.0;
    double step = 32 * ts_cost_layer_decode_s(d, &f->model, NULL, 1, 1, context) +
                  ts_cost_head_s(d, &f->model, 1, 1) + ts_cost_step_s(d);
    const struct ts_link *link =
        ts_cluster_link(f->cluster, f->cluster->gpus[0].node, f->cluster->gpus[4].node);
    double bytes =
        (double)ts_model_kv_token_bytes(&f->model) * PROMPT * ts_cost_codec_ratio(TS_COST_CODEC_NONE, PROMPT);
    double visible = ts_cost_kv_visible_s(link, &f->model, bytes, prefill);
    near_((double)stream.last.ttft_ns / 1e9, prefill, 0.05, "TTFT");
    near_((double)stream.last.tpot_ns / 1e9, step + visible / (OUTPUT - 1), 0.05, "TPOT");
    assert_int_equal(cloud_site_link_count(site), 2);
    for (size_t i = 0; i < 2; i++) { /* the card, then the link */
        struct cloud_site_link use = cloud_site_link_at(site, i);
        assert_int_equal(use.from, f->cluster->gpus[0].node);
        assert_int_equal(use.to, f->cluster->gpus[i ? 4 : 0].node);
        near_(use.bytes, bytes, 0.02, "bytes sent");
        assert_true(use.busy_s >= bytes / link->bytes_per_s);
    }
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
}

/* The slower the link, the later the second token, and only that. */
static void test_link(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 4}, 2, false);
    double tpot[2], bytes = (double)ts_model_kv_token_bytes(&f->model) * PROMPT;
    const struct ts_link *link = ts_cluster_link(f->cluster, 0, 1);
    for (int slow = 0; slow < 2; slow++) {
        struct stream stream = {.count = 1};
        struct cloud_site *site = open_site(f, plan, &stream, false);
        if (slow)
            cloud_site_link(site, 0, 0, 1, 0.01);
        run(site, &stream);
        tpot[slow] = (double)stream.last.tpot_ns / 1e9;
        cloud_site_destroy(&site);
    }
    near_((tpot[1] - tpot[0]) * (OUTPUT - 1), bytes / link->bytes_per_s * 100, 0.02,
          "time at 1 % of the link");
    ts_plan_destroy(&plan);
}

/* Stages on two nodes send at once. */
static void test_senders(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = ts_plan_new(2, 1);
    plan->groups[0] = (struct ts_group){
        .phase = TS_PHASE_PREFILL,
        .stages = {{.gpus = {0}, .tp = 1, .layers = 16}, {.gpus = {4}, .tp = 1, .layers = 16}},
        .stage_count = 2};
    plan->groups[1] = (struct ts_group){
        .phase = TS_PHASE_DECODE,
        .stages = {{.gpus = {5}, .tp = 1, .layers = 16}, {.gpus = {1}, .tp = 1, .layers = 16}},
        .stage_count = 2};
    plan->flows[0] = (struct ts_flow){.prefill = 0, .decode = 1, .rate = 4, .attained = 4};
    double tpot[2], bytes = (double)ts_model_kv_token_bytes(&f->model) * PROMPT;
    for (int slow = 0; slow < 2; slow++) {
        struct stream stream = {.count = 1};
        struct cloud_site *site = open_site(f, plan, &stream, false);
        if (slow) {
            cloud_site_link(site, 0, 0, 1, 0.002);
            cloud_site_link(site, 0, 1, 0, 0.002);
        }
        run(site, &stream);
        tpot[slow] = (double)stream.last.tpot_ns / 1e9;
        cloud_site_destroy(&site);
    }
    near_((tpot[1] - tpot[0]) * (OUTPUT - 1),
          bytes / 2 / (0.002 * ts_cluster_link(f->cluster, 0, 1)->bytes_per_s), 0.03,
          "time of half of the KV");
    ts_plan_destroy(&plan);
}

/* Each group does both, alone. */
static struct ts_plan *colocated(const uint32_t *gpus, uint32_t count)
{
    struct ts_plan *plan = ts_plan_new(count, count);
    for (uint32_t g = 0; g < count; g++) {
        set_group(plan, g, TS_PHASE_BOTH, gpus[g]);
        plan->flows[g] = (struct ts_flow){.prefill = g, .decode = g, .rate = 1, .attained = 1};
    }
    plan->rate = count;
    return plan;
}

static void test_colocated(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = colocated((const uint32_t[]){0, 1, 4}, 3);
    for (int checks = 0; checks < 2; checks++) {
        struct stream stream = {.count = 200, .every = 80 * TS_MS};
        struct cloud_site *site = open_site(f, plan, &stream, checks);
        run(site, &stream);
        assert_int_equal(stream.failed, 0);
        assert_int_equal(cloud_counts(cloud_site_cloud(site)).encodes, 0);
        for (size_t i = 0; i < 3; i++)
            assert_true(cloud_site_replica_at(site, i).output_tokens > 0);
        cloud_site_destroy(&site);
    }
    ts_plan_destroy(&plan);
}

/* More tokens than one batch computes and one chunk carries. */
static void test_long(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 4}, 2, false);
    struct stream stream = {.count = 3, .every = 2 * TS_S, .prompt = 3700};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    assert_true(cloud_counts(cloud_site_cloud(site)).encodes > 3 * 2 * 8);
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
}

/* Three stages on both nodes prefill, two decode. */
static void test_pipelines(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = ts_plan_new(2, 1);
    plan->groups[0] = (struct ts_group){.phase = TS_PHASE_PREFILL,
                                        .stages = {{.gpus = {0, 1}, .tp = 2, .layers = 16},
                                                   {.gpus = {4}, .tp = 1, .layers = 8},
                                                   {.gpus = {5}, .tp = 1, .layers = 8}},
                                        .stage_count = 3};
    plan->groups[1] = (struct ts_group){
        .phase = TS_PHASE_DECODE,
        .stages = {{.gpus = {2}, .tp = 1, .layers = 20}, {.gpus = {6}, .tp = 1, .layers = 12}},
        .stage_count = 2};
    plan->flows[0] =
        (struct ts_flow){.prefill = 0, .decode = 1, .rate = 4, .attained = 4, .codec = TS_COST_CODEC_I4};
    for (int checks = 0; checks < 2; checks++) {
        struct stream stream = {.count = 200, .every = 80 * TS_MS};
        struct cloud_site *site = open_site(f, plan, &stream, checks);
        run(site, &stream);
        assert_int_equal(stream.failed, 0);
        struct cloud_site_replica p = cloud_site_replica_at(site, 0), d = cloud_site_replica_at(site, 1);
        assert_true(p.busy_s[0] > 0 && p.busy_s[1] > 0 && p.busy_s[2] > 0);
        assert_true(d.busy_s[0] > 0 && d.busy_s[1] > 0);
        cloud_site_destroy(&site);
    }
    ts_plan_destroy(&plan);
}

/* Chunks of a colocated pipeline are smaller by its depth: 4 of 1,024 tokens instead of 2. */
static void test_colocated_pipeline(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = ts_plan_new(1, 1);
    plan->groups[0] = (struct ts_group){
        .phase = TS_PHASE_BOTH,
        .stages = {{.gpus = {2}, .tp = 1, .layers = 20}, {.gpus = {6}, .tp = 1, .layers = 12}},
        .stage_count = 2};
    plan->flows[0] = (struct ts_flow){.rate = 1, .attained = 1};
    struct stream stream = {.count = 1, .prompt = 3700};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    assert_int_equal(cloud_site_replica_at(site, 0).batches, 4 + OUTPUT - 1);
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
}

static void test_lose(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    struct stream stream = {.count = 200, .every = 80 * TS_MS};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    cloud_site_lose(site, 4 * TS_S, 1);
    cloud_site_lose(site, 9 * TS_S, 4);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    struct cloud_site_replica p = cloud_site_replica_at(site, 1), d = cloud_site_replica_at(site, 2);
    assert_true(p.died_s >= 4 && p.died_s < 4.5 && d.died_s >= 9 && d.died_s < 9.5);
    assert_true(isinf(cloud_site_replica_at(site, 0).died_s) && isinf(cloud_site_replica_at(site, 3).died_s));
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
}

/* All phases turn. */
static void test_flip(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    struct ts_plan *turned = halves((const uint32_t[]){0, 1, 4, 5}, 4, true);
    struct stream stream = {.count = 200, .every = 80 * TS_MS};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    cloud_site_regroup(site, 8 * TS_S, turned);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    for (size_t i = 0; i < 4; i++) {
        struct cloud_site_replica r = cloud_site_replica_at(site, i);
        assert_int_equal(r.phase, turned->groups[i].phase);
        assert_true(r.prompt_tokens > 0 && r.output_tokens > 20 * r.prompt_tokens / PROMPT);
    }
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
    ts_plan_destroy(&turned);
}

static void test_regroup(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    struct ts_plan *other = halves((const uint32_t[]){0, 2, 4, 6}, 4, false); /* 0 and 4 stay as they are */
    struct stream stream = {.count = 400, .every = 80 * TS_MS};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    cloud_site_regroup(site, 4 * TS_S, other);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    assert_int_equal(cloud_site_replica_count(site), 6);
    double weights = ts_cost_stage_weight_bytes(&f->model, true, true, 32);
    for (size_t i = 0; i < 6; i++) {
        struct cloud_site_replica r = cloud_site_replica_at(site, i);
        if (i == 1 || i == 3)
            assert_true(r.died_s >= 4 && r.died_s < 12);
        else
            assert_true(isinf(r.died_s));
        if (i >= 4)
            assert_true(r.born_s >= 4 + weights / 1e9 && r.output_tokens > 0);
    }
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
    ts_plan_destroy(&other);
}

/* One that drains is lost, and so is one that is about to join. */
static void test_lose_while_regrouping(void **state)
{
    const struct fixture *f = *state;
    struct ts_plan *plan = halves((const uint32_t[]){0, 1, 4, 5}, 4, false);
    struct ts_plan *other = halves((const uint32_t[]){0, 2, 4, 6}, 4, false);
    struct stream stream = {.count = 400, .every = 80 * TS_MS};
    struct cloud_site *site = open_site(f, plan, &stream, true);
    cloud_site_regroup(site, 4 * TS_S, other);
    cloud_site_lose(site, 4 * TS_S + 500 * TS_MS, 5);
    cloud_site_lose(site, 9 * TS_S, 2);
    run(site, &stream);
    assert_int_equal(stream.failed, 0);
    assert_int_equal(cloud_site_replica_count(site), 5);
    struct cloud_site_replica drained = cloud_site_replica_at(site, 3),
                              joined = cloud_site_replica_at(site, 4);
    assert_true(drained.died_s >= 4.5 && drained.died_s < 5);
    assert_int_equal(joined.phase, TS_PHASE_DECODE);
    cloud_site_destroy(&site);
    ts_plan_destroy(&plan);
    ts_plan_destroy(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_senders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_colocated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_colocated_pipeline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lose, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_regroup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lose_while_regrouping, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
