/*
 * Replicas against the cost model, term by term, and against the step of a pipeline that the planner counts
 * with (services/planner/shape/README.md, "Step of a pipeline").
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/inputs/ts_inputs.h"
#include "services/cloud/cloud_replica.h"

#define LAYERS 40

static struct ts_catalogue *catalogue;
static struct ts_cluster *cluster; /* devices 0..3: A40, 4..7: 3090Ti */
static struct ts_model model;

static int setup(void **state)
{
    struct ts_error err = {0};
    (void)state;
    bool ok = ts_catalogue_load(TS_CONF_DIR, "measured", &catalogue, &err) == TS_OK &&
              ts_inputs_cluster(catalogue, TS_CONF_DIR, "two-nodes", &cluster, &err) == TS_OK &&
              ts_inputs_model(TS_CONF_DIR, "llama-2-13b", &model, &err) == TS_OK;
    if (!ok)
        fail_msg("%s", err.text);
    assert_int_equal(model.layers, LAYERS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ts_cluster_destroy(&cluster);
    ts_catalogue_destroy(&catalogue);
    return 0;
}

static const struct ts_device_type *type_of(uint32_t gpu)
{
    return &cluster->types[cluster->gpus[gpu].type];
}

static const struct ts_link *inner_of(uint32_t gpu)
{
    return ts_cluster_inner(cluster, cluster->gpus[gpu].node, cluster->gpus[gpu].type);
}

static void near_(double value, double expected, double part)
{
    if (!(fabs(value - expected) <= part * expected))
        fail_msg("%.9g, expected %.9g", value, expected);
}

static double seconds(ts_time at)
{
    return (double)at / 1e9;
}

static const struct ts_group one = {.stages = {{.gpus = {0, 1}, .tp = 2, .layers = LAYERS}},
                                    .stage_count = 1};
static const struct ts_group pipe3 = {.stages = {{.gpus = {0, 1}, .tp = 2, .layers = 20},
                                                 {.gpus = {4, 5}, .tp = 2, .layers = 12},
                                                 {.gpus = {6}, .tp = 1, .layers = 8}},
                                      .stage_count = 3};

static void test_decode(void **state)
{
    (void)state;
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &one, 0, 1);
    struct cloud_replica_load load = {0};
    ts_time done[LAYERS];
    double context = 0;
    for (uint32_t i = 0; i < 24; i++) {
        cloud_replica_load_row(r, &load, 100 + i, 1, true);
        context += 101 + i;
    }
    ts_time end = cloud_replica_enter(r, TS_S, &load, LAYERS, done);
    double layer = ts_cost_layer_decode_s(type_of(0), &model, inner_of(0), 2, 24, context);
    double step = ts_cost_step_s(type_of(0)), head = ts_cost_head_s(type_of(0), &model, 2, 24);
    near_(seconds(end - TS_S), step + LAYERS * layer + head, 1e-6);
    near_(cloud_replica_busy_s(r, 0), step + LAYERS * layer + head, 1e-9);
    for (uint32_t i = 0; i < LAYERS; i++)
        near_(seconds(done[i] - TS_S), step + (i + 1) * layer, 1e-6);
    assert_int_equal(cloud_replica_enter(r, TS_S, &load, LAYERS, done),
                     end + (end - TS_S)); /* after the first */
    cloud_replica_destroy(&r);
}

static void test_mixed(void **state)
{
    (void)state;
    const struct ts_device_type *d = type_of(0);
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &one, 0, 1);
    struct cloud_replica_load load = {0};
    cloud_replica_load_row(r, &load, 0, 512, false);
    cloud_replica_load_row(r, &load, 256, 64, true);
    for (uint32_t i = 0; i < 8; i++)
        cloud_replica_load_row(r, &load, 999, 1, true);
    double squares = 512.0 * 512 + 320.0 * 320 - 256.0 * 256;
    double layer = ts_cost_layer_prefill_s(d, &model, inner_of(0), 2, 576, squares) +
                   ts_cost_layer_decode_s(d, &model, inner_of(0), 2, 8, 8000) -
                   ts_cost_linear_s(d, &model, 2, 576) - ts_cost_linear_s(d, &model, 2, 8) +
                   ts_cost_linear_s(d, &model, 2, 584);
    near_(seconds(cloud_replica_enter(r, 0, &load, 0, NULL)),
          ts_cost_step_s(d) + LAYERS * layer + ts_cost_head_s(d, &model, 2, 9), 1e-6);
    cloud_replica_destroy(&r);
}

/* A window bounds what a row attends to; chunks of a prompt attend to what the whole does. */
static void test_window(void **state)
{
    (void)state;
    struct ts_model windowed = model;
    windowed.sliding_window = 100;
    struct cloud_replica *r = cloud_replica_new(cluster, &windowed, &one, 0, 1);
    struct cloud_replica_load whole = {0}, chunks = {0}, decode = {0};
    cloud_replica_load_row(r, &whole, 0, 350, true);
    for (uint32_t i = 0; i < 7; i++)
        cloud_replica_load_row(r, &chunks, 50 * i, 50, i == 6);
    near_(chunks.prompt_pairs, whole.prompt_pairs, 1e-12);
    near_(whole.prompt_pairs, 100.0 * (2 * 350 - 100), 1e-12);
    cloud_replica_load_row(r, &decode, 350, 1, true);
    near_(decode.decode_context, 100, 1e-12);
    cloud_replica_destroy(&r);
}

/* Time of one batch in stage s, and of the hop that follows. */
static double stage_s(uint32_t s, double rows, double context, double *hop)
{
    const struct ts_stage *stage = &pipe3.stages[s];
    uint32_t gpu = stage->gpus[0];
    const struct ts_link *link = NULL;
    if (s == 0)
        link = ts_cluster_link(cluster, cluster->gpus[0].node, cluster->gpus[4].node);
    else if (s == 1)
        link = inner_of(4);
    *hop = link ? ts_cost_send_s(link, ts_cost_hop_bytes(&model, rows)) : 0;
    return ts_cost_step_s(type_of(gpu)) +
           stage->layers *
               ts_cost_layer_decode_s(type_of(gpu), &model, inner_of(gpu), stage->tp, rows, context) +
           (s == 2 ? ts_cost_head_s(type_of(gpu), &model, stage->tp, rows) : 0);
}

/* As many batches of `rows` as given pass again and again: the time between two passes of one. */
static double round_s(uint32_t batches, uint32_t rows)
{
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &pipe3, 0, 1);
    struct cloud_replica_load load = {
        .sampled = rows, .decode_rows = rows, .decode_context = (double)rows * 500};
    ts_time end[8] = {0}, before = 0;
    for (uint32_t i = 0; i < 40 * batches; i++) {
        before = end[i % batches];
        end[i % batches] = cloud_replica_enter(r, before, &load, 0, NULL);
    }
    double last = seconds(end[batches - 1] - before);
    cloud_replica_destroy(&r);
    return last;
}

static void test_pipeline(void **state)
{
    (void)state;
    const uint32_t rows[] = {1, 16, 128};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double sum = 0, most = 0;
        for (uint32_t s = 0; s < 3; s++) {
            double hop, t = stage_s(s, rows[i], rows[i] * 500.0, &hop);
            sum += t + hop;
            most = fmax(most, fmax(t, hop));
        }
        near_(round_s(1, rows[i]), sum, 0.002); /* and the token's way back */
        near_(round_s(3, rows[i]), fmax(sum, 3 * most), 0.002);
        near_(round_s(8, rows[i]), 8 * most, 0.002);
    }
}

static void test_parts(void **state)
{
    (void)state;
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &pipe3, 0, 1);
    struct cloud_replica_load load = {.sampled = 1, .prompt_tokens = 700, .prompt_pairs = 700.0 * 700};
    ts_time done[10], end = cloud_replica_enter(r, 0, &load, 10, done);
    uint32_t a = cluster->gpus[0].node, b = cluster->gpus[4].node;
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(done[i] > (i ? done[i - 1] : 0) && done[i] < end);
        assert_int_equal(cloud_replica_node(r, i, 10), i < 5 ? a : b);
    }
    cloud_replica_clear(r);
    assert_int_equal(cloud_replica_enter(r, 0, &load, 10, done), end);
    cloud_replica_destroy(&r);
}

static double kv_tokens(uint32_t gpu, uint32_t tp, uint32_t layers, bool first, bool last)
{
    double left =
        ts_cost_usable_bytes(type_of(gpu)) - ts_cost_stage_weight_bytes(&model, first, last, layers) / tp;
    return left / (layers * ts_cost_kv_layer_token_bytes(&model, tp));
}

static void test_memory(void **state)
{
    (void)state;
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &one, 0, 1);
    assert_int_equal(cloud_replica_kv_blocks(r), floor(kv_tokens(0, 2, LAYERS, true, true) / 16));
    cloud_replica_destroy(&r);
    double least = fmin(kv_tokens(0, 2, 20, true, false),
                        fmin(kv_tokens(4, 2, 12, false, false), kv_tokens(6, 1, 8, false, true)));
    r = cloud_replica_new(cluster, &model, &pipe3, 0, 1);
    assert_int_equal(cloud_replica_kv_blocks(r), floor(least / 16));
    cloud_replica_destroy(&r);
    const struct ts_group small = {.stages = {{.gpus = {4}, .tp = 1, .layers = LAYERS}}, .stage_count = 1};
    r = cloud_replica_new(cluster, &model, &small, 0, 1); /* 26 GB of weights on 24 GB */
    assert_int_equal(cloud_replica_kv_blocks(r), 0);
    cloud_replica_destroy(&r);
}

static void test_noise(void **state)
{
    (void)state;
    struct cloud_replica *r = cloud_replica_new(cluster, &model, &one, 0, 1),
                         *noisy = cloud_replica_new(cluster, &model, &one, 0.2, 1);
    struct cloud_replica_load load = {.sampled = 4, .decode_rows = 4, .decode_context = 900};
    double squares = 0, step = seconds(cloud_replica_enter(r, 0, &load, 0, NULL));
    const uint32_t count = 40000;
    ts_time end = 0;
    for (uint32_t i = 0; i < count; i++) {
        ts_time before = end;
        end = cloud_replica_enter(noisy, before, &load, 0, NULL);
        double part = seconds(end - before) / step - 1;
        squares += part * part / count;
    }
    near_(seconds(end) / count, step, 0.005);
    near_(squares, exp(0.2 * 0.2) - 1, 0.05);
    cloud_replica_destroy(&r);
    cloud_replica_destroy(&noisy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decode), cmocka_unit_test(test_mixed),
                                       cmocka_unit_test(test_window), cmocka_unit_test(test_pipeline),
                                       cmocka_unit_test(test_parts),  cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_noise)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
