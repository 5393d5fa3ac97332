/* Clusters, demands and plans over devices: what is accepted, what is refused and with which words. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/core/ts_plan.h"

static const struct ts_device_fit plain = {0.5, 0.8, 0.6, 0.4, 1e-5, 1e-3, 100};

/* Two nodes: 4 of type 0 and 2 of type 1; 2 of type 0. */
static struct ts_cluster *small_cluster(void)
{
    static const struct ts_gpu gpus[] = {{0, 0, true}, {0, 0, true}, {0, 0, true}, {0, 0, true},
                                         {1, 0, true}, {1, 0, true}, {0, 1, true}, {0, 1, true}};
    struct ts_cluster *cluster = ts_cluster_new(2, 2, 8);
    for (uint32_t i = 0; i < 2; i++) {
        struct ts_device_type *type = &cluster->types[i];
        snprintf(type->name, sizeof type->name, "type%u", i);
        type->memory_bytes = 24e9;
        type->memory_bytes_per_s = 9e11;
        type->flops = 7e13;
        type->price_per_hour = 0.25 * (i + 1);
        type->fit = plain;
        type->peer = (struct ts_link){"peer", 2e10, 1e-5};
        snprintf(cluster->nodes[i].name, sizeof cluster->nodes[i].name, "n%u", i);
        cluster->nodes[i].nic_in_bytes_per_s = cluster->nodes[i].nic_out_bytes_per_s = 5e9;
    }
    cluster->links[1] = cluster->links[2] = (struct ts_link){"40g", 5e9, 1e-4};
    memcpy(cluster->gpus, gpus, sizeof gpus);
    return cluster;
}

static const struct ts_model model = {.name = "m",
                                      .layers = 10,
                                      .hidden = 1024,
                                      .intermediate = 4096,
                                      .heads = 8,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .vocab = 1000,
                                      .weight_dtype = TS_DTYPE_BF16,
                                      .kv_dtype = TS_DTYPE_BF16};

static struct ts_demand one_class(void)
{
    return (struct ts_demand){.name = "w",
                              .class_count = 1,
                              .burst = 1,
                              .classes = {{.rate = 2,
                                           .prompt_tokens = 100,
                                           .prompt_tokens_sq = 1e4,
                                           .output_tokens = 10,
                                           .output_tokens_sq = 100,
                                           .ttft_s = 1}}};
}

static void test_cells_follow_what_is_alive(void **state)
{
    (void)state;
    struct ts_error err = {0};
    struct ts_cluster *cluster = small_cluster();
    assert_int_equal(ts_cluster_seal(cluster, &err), TS_OK);
    assert_int_equal(cluster->cell_count, 3);
    assert_int_equal(cluster->cells[0].count, 4);
    assert_int_equal(cluster->cells[2].node, 1);
    assert_true(fabs(ts_cluster_price_per_hour(cluster) - (6 * 0.25 + 2 * 0.5)) < 1e-12);
    cluster->gpus[4].alive = cluster->gpus[5].alive = cluster->gpus[0].alive = false;
    assert_int_equal(ts_cluster_seal(cluster, &err), TS_OK);
    assert_int_equal(cluster->cell_count, 2);
    assert_int_equal(cluster->cells[0].count, 3);
    struct ts_cluster *copy = ts_cluster_copy(cluster);
    assert_int_equal(copy->cell_count, 2);
    assert_string_equal(ts_cluster_link(copy, 0, 1)->name, "40g");
    assert_string_equal(ts_cluster_inner(copy, 0, 0)->name, "peer");
    ts_cluster_destroy(&copy);
    ts_cluster_destroy(&cluster);
}

static void refuse_cluster(struct ts_cluster *cluster, const char *words)
{
    struct ts_error err = {0};
    assert_int_not_equal(ts_cluster_seal(cluster, &err), TS_OK);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" is not in \"%s\"", words, err.text);
    ts_cluster_destroy(&cluster);
}

static void test_absurd_clusters_are_refused(void **state)
{
    (void)state;
    struct ts_cluster *c = small_cluster();
    c->types[1].memory_bytes = NAN;
    refuse_cluster(c, "memory_bytes is nan");
    c = small_cluster();
    c->types[0].price_per_hour = -1;
    refuse_cluster(c, "price_per_hour is -1");
    c = small_cluster();
    c->links[1].bytes_per_s = INFINITY;
    refuse_cluster(c, "node \"n0\"");
    c = small_cluster();
    c->nodes[1].nic_in_bytes_per_s = 1e30;
    refuse_cluster(c, "nic_in_bytes_per_s");
    c = small_cluster();
    c->gpus[3].type = 7;
    refuse_cluster(c, "device 3");
    c = small_cluster();
    c->gpus[0].node = 1;
    refuse_cluster(c, "by node, then by type");
    c = small_cluster();
    c->gpu_count = 0;
    refuse_cluster(c, "number of devices is 0");
}

static void test_demands(void **state)
{
    (void)state;
    struct ts_error err = {0};
    struct ts_demand demand = one_class();
    assert_int_equal(ts_demand_check(&demand, &err), TS_OK);
    ts_demand_scale_rate(&demand, 3);
    ts_demand_scale_lengths(&demand, 0.5);
    assert_true(ts_demand_rate(&demand) == 6);
    assert_true(demand.classes[0].prompt_tokens == 50 && demand.classes[0].prompt_tokens_sq == 2500);
    assert_int_equal(ts_demand_check(&demand, &err), TS_OK);
    demand.classes[0].prompt_tokens_sq = 2000;
    assert_int_equal(ts_demand_check(&demand, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, "prompt_tokens_sq is 2000"));
    demand = one_class();
    demand.classes[0].rate = NAN;
    assert_int_equal(ts_demand_check(&demand, &err), TS_EINVAL);
    demand = one_class();
    demand.class_count = 0;
    assert_int_equal(ts_demand_check(&demand, &err), TS_EINVAL);
}

/* A prefill group of two stages on node 0 and a decode group on node 1, with one flow. */
static struct ts_plan *good_plan(void)
{
    struct ts_plan *plan = ts_plan_new(2, 1);
    plan->groups[0] = (struct ts_group){
        TS_PHASE_PREFILL, {{.gpus = {0, 1}, .tp = 2, .layers = 6}, {.gpus = {4}, .tp = 1, .layers = 4}}, 2};
    plan->groups[1] = (struct ts_group){TS_PHASE_DECODE, {{.gpus = {6, 7}, .tp = 2, .layers = 10}}, 1};
    plan->flows[0] = (struct ts_flow){.prefill = 0, .decode = 1, .rate = 1, .attained = 0.5};
    return plan;
}

static void check_plan(struct ts_plan *plan, const struct ts_cluster *cluster, const char *words)
{
    struct ts_error err = {0};
    struct ts_demand demand = one_class();
    enum ts_status status = ts_plan_check(plan, cluster, &model, &demand, &err);
    if (!words)
        assert_int_equal(status, TS_OK);
    else if (status == TS_OK || !strstr(err.text, words))
        fail_msg("\"%s\" is not in \"%s\"", words, err.text);
    ts_plan_destroy(&plan);
}

static void test_same_devices(void **state)
{
    (void)state;
    struct ts_group one = {
        .phase = TS_PHASE_PREFILL,
        .stage_count = 2,
        .stages = {{.tp = 2, .layers = 4, .gpus = {0, 1}}, {.tp = 1, .layers = 6, .gpus = {4}}}};
    struct ts_group other = one;
    other.phase = TS_PHASE_DECODE;
    other.stages[1].gpus[1] = 9; /* beyond tp */
    assert_true(ts_group_same_devices(&one, &other));
    other.stages[0].gpus[1] = 2;
    assert_false(ts_group_same_devices(&one, &other));
    other = one;
    other.stage_count = 1;
    assert_false(ts_group_same_devices(&one, &other));
    other = one;
    other.stages[0].layers = 5;
    assert_false(ts_group_same_devices(&one, &other));
    other = one;
    other.stages[1].tp = 2;
    assert_false(ts_group_same_devices(&one, &other));
}

static void test_plans(void **state)
{
    (void)state;
    struct ts_cluster *cluster = small_cluster();
    assert_int_equal(ts_cluster_seal(cluster, NULL), TS_OK);
    check_plan(good_plan(), cluster, NULL);
    struct ts_plan *plan = good_plan();
    plan->groups[1].stages[0].gpus[0] = 0;
    check_plan(plan, cluster, "group 1, stage 0: device 0 is used twice");
    plan = good_plan();
    plan->groups[0].stages[0].gpus[1] = 5;
    check_plan(plan, cluster, "equal devices of one node");
    plan = good_plan();
    plan->groups[0].stages[0].layers = 5;
    check_plan(plan, cluster, "group 0: its stages have 9 layers; the model has 10");
    plan = good_plan();
    plan->groups[0].stages[1].tp = 3;
    check_plan(plan, cluster, "tp is 3");
    plan = good_plan();
    plan->flows[0].prefill = 1;
    check_plan(plan, cluster, "flow 0: groups 1 and 1");
    plan = good_plan();
    plan->flows[0].attained = 2;
    check_plan(plan, cluster, "flow 0: rate 1 or attained rate 2");
    cluster->gpus[6].alive = false;
    check_plan(good_plan(), cluster, "device 6 is not alive");
    cluster->gpus[6].alive = true;
    cluster->types[0].memory_bytes = 1e8;
    check_plan(good_plan(), cluster, "usable");
    ts_cluster_destroy(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells_follow_what_is_alive),
        cmocka_unit_test(test_absurd_clusters_are_refused),
        cmocka_unit_test(test_demands),
        cmocka_unit_test(test_same_devices),
        cmocka_unit_test(test_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
