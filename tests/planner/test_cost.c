/* Identities of the cost model: signs, shapes in batch and context, what tensor parallelism and links do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_cost.h"

static const struct ts_link fast = {.name = "fast", .bytes_per_s = 200e9, .latency_s = 4e-6};
static const struct ts_link slow = {.name = "slow", .bytes_per_s = 10e9, .latency_s = 20e-6};

static struct ts_device_type device_of(double gb, double gb_per_s, double tflops)
{
    return (struct ts_device_type){.name = "device",
                                   .memory_bytes = gb * 1e9,
                                   .memory_bytes_per_s = gb_per_s * 1e9,
                                   .flops = tflops * 1e12,
                                   .price_per_hour = 1,
                                   .fit = ts_cost_fit_generic(),
                                   .peer = fast};
}

static const struct ts_model models[] = {
    {.name = "grouped",
     .layers = 80,
     .hidden = 8192,
     .intermediate = 28672,
     .heads = 64,
     .kv_heads = 8,
     .head_dim = 128,
     .vocab = 32000,
     .weight_dtype = TS_DTYPE_F16,
     .kv_dtype = TS_DTYPE_F16},
    {.name = "plain",
     .layers = 40,
     .hidden = 5120,
     .intermediate = 20480,
     .heads = 40,
     .kv_heads = 40,
     .head_dim = 128,
     .vocab = 50272,
     .mlp_plain = true,
     .tied = true,
     .weight_dtype = TS_DTYPE_F16,
     .kv_dtype = TS_DTYPE_F16},
};

static bool sane(double seconds)
{
    return isfinite(seconds) && seconds > 0;
}

/* Decode is convex and increasing in the batch, affine and increasing in the context. */
static void test_decode_shape(void **state)
{
    (void)state;
    struct ts_device_type device = device_of(80, 2039, 312);
    for (size_t m = 0; m < TS_ARRAY_SIZE(models); m++)
        for (uint32_t tp = 1; tp <= 8; tp *= 2) {
            double before = 0, slope = 0;
            for (double batch = 1; batch <= 1024; batch++) {
                double now = ts_cost_layer_decode_s(&device, &models[m], &fast, tp, batch, 1e5);
                assert_true(sane(now) && now > before);
                if (batch > 2)
                    assert_true(now - before >= slope - 1e-15);
                slope = batch > 1 ? now - before : 0;
                before = now;
            }
            double none = ts_cost_layer_decode_s(&device, &models[m], &fast, tp, 64, 0);
            double some = ts_cost_layer_decode_s(&device, &models[m], &fast, tp, 64, 3e4);
            double twice = ts_cost_layer_decode_s(&device, &models[m], &fast, tp, 64, 6e4);
            assert_true(some > none);
            assert_float_equal((twice - some) / (some - none), 1, 1e-6);
        }
}

/* Prefill increases in tokens and squares; a batch of short prompts is cheaper than one long prompt. */
static void test_prefill_shape(void **state)
{
    (void)state;
    struct ts_device_type device = device_of(48, 696, 149.7);
    for (size_t m = 0; m < TS_ARRAY_SIZE(models); m++)
        for (uint32_t tp = 1; tp <= 8; tp *= 2) {
            double before = 0;
            for (double tokens = 1; tokens <= 16384; tokens *= 2) {
                double one = ts_cost_layer_prefill_s(&device, &models[m], &slow, tp, tokens, tokens * tokens);
                double four =
                    ts_cost_layer_prefill_s(&device, &models[m], &slow, tp, tokens, tokens * tokens / 4);
                assert_true(sane(one) && sane(four) && four < one && one > before);
                before = one;
            }
        }
}

/* Prefill of n tokens in one prompt costs at least as much as its linear part and at most as n steps. */
static void test_parts(void **state)
{
    (void)state;
    struct ts_device_type device = device_of(24, 1008, 80);
    const struct ts_model *model = &models[0];
    double linear = ts_cost_linear_s(&device, model, 1, 512);
    double whole = ts_cost_layer_prefill_s(&device, model, NULL, 1, 512, 512.0 * 512);
    double step = ts_cost_layer_decode_s(&device, model, NULL, 1, 1, 256);
    assert_true(whole > linear && whole < 512 * step);
    assert_float_equal(ts_cost_layer_prefill_s(&device, model, NULL, 1, 512, 0), linear, 1e-15);
    assert_float_equal(ts_cost_layer_decode_s(&device, model, NULL, 1, 512, 0), linear, 1e-15);
    assert_true(ts_cost_step_s(&device) > 0);
    assert_true(sane(ts_cost_head_s(&device, model, 1, 1)));
    assert_true(ts_cost_head_s(&device, model, 1, 8) > ts_cost_head_s(&device, model, 1, 1));
    assert_true(ts_cost_head_s(&device, model, 4, 8) < ts_cost_head_s(&device, model, 1, 8));
}

/* More ranks: less linear time, and never more KV; KV heads are copied when there are fewer than ranks. */
static void test_tensor_parallel(void **state)
{
    (void)state;
    struct ts_device_type device = device_of(80, 2039, 312);
    for (size_t m = 0; m < TS_ARRAY_SIZE(models); m++)
        for (uint32_t tp = 1; tp <= 4; tp *= 2)
            for (double tokens = 1; tokens <= 4096; tokens *= 8)
                assert_true(ts_cost_linear_s(&device, &models[m], 2 * tp, tokens) <
                            ts_cost_linear_s(&device, &models[m], tp, tokens));
    double one = ts_cost_kv_layer_token_bytes(&models[0], 1);
    assert_float_equal(one, 2 * 8 * 128 * 2, 0);
    assert_float_equal(ts_cost_kv_layer_token_bytes(&models[0], 8), one / 8, 0);
    assert_float_equal(ts_cost_kv_layer_token_bytes(&models[0], 16), one / 8, 0);
}

static void test_memory(void **state)
{
    (void)state;
    /* 70 billion parameters: layers and head in two bytes each. */
    double bytes = 80 * ts_cost_layer_weight_bytes(&models[0]) + ts_cost_head_weight_bytes(&models[0]);
    assert_true(bytes > 2 * 68.5e9 && bytes < 2 * 69.5e9);
    /* OPT-13B. */
    bytes = 40 * ts_cost_layer_weight_bytes(&models[1]) + ts_cost_head_weight_bytes(&models[1]);
    assert_true(bytes > 2 * 12.7e9 && bytes < 2 * 13.2e9);
    struct ts_device_type device = device_of(80, 2039, 312);
    double usable = ts_cost_usable_bytes(&device);
    assert_true(usable > 0.8 * 80e9 && usable < 0.95 * 80e9);
    device.memory_bytes = 1e6;
    assert_true(ts_cost_usable_bytes(&device) >= 0);
}

/* The two ends of a pipeline share what is not in the layers; a tied matrix is on both. */
static void test_memory_of_stages(void **state)
{
    (void)state;
    struct ts_model model = models[0];
    double head = ts_cost_head_weight_bytes(&model), layer = ts_cost_layer_weight_bytes(&model);
    assert_float_equal(ts_cost_stage_weight_bytes(&model, true, true, 80), 80 * layer + head, 1);
    assert_float_equal(ts_cost_stage_weight_bytes(&model, true, false, 20), 20 * layer + head / 2, 1);
    assert_float_equal(ts_cost_stage_weight_bytes(&model, false, true, 20), 20 * layer + head / 2, 1);
    assert_float_equal(ts_cost_stage_weight_bytes(&model, false, false, 20), 20 * layer, 1);
    model.tied = true;
    assert_float_equal(ts_cost_stage_weight_bytes(&model, true, true, 0), head / 2, 1);
    assert_float_equal(ts_cost_stage_weight_bytes(&model, false, true, 0), head / 2, 1);
}

static void test_links(void **state)
{
    (void)state;
    struct ts_link none = {.name = "none"};
    struct ts_device_type device = device_of(24, 1008, 80);
    assert_true(isinf(ts_cost_send_s(&none, 1)));
    assert_true(isinf(ts_cost_layer_prefill_s(&device, &models[0], &none, 2, 64, 64 * 64)));
    assert_true(isinf(ts_cost_layer_decode_s(&device, &models[0], &none, 2, 1, 64)));
    assert_true(ts_cost_send_s(&slow, 1e6) > ts_cost_send_s(&fast, 1e6));
    assert_float_equal(ts_cost_allreduce_s(&fast, 1, 1e6), 0, 0);
    for (double bytes = 1024; bytes <= 1 << 30; bytes *= 4) {
        double before = 0;
        for (uint32_t tp = 2; tp <= 8; tp *= 2) {
            double now = ts_cost_allreduce_s(&fast, tp, bytes);
            assert_true(sane(now) && now >= before && now < ts_cost_allreduce_s(&slow, tp, bytes));
            before = now;
        }
        /* No all-reduce moves less than its message through each rank once. */
        assert_true(before >= bytes / fast.bytes_per_s);
    }
    assert_float_equal(ts_cost_hop_bytes(&models[0], 10), 10 * 8192 * 2, 0);
}

static void test_kv_transfer(void **state)
{
    (void)state;
    const struct ts_model *model = &models[0];
    double bytes = 1e9, whole = ts_cost_send_s(&slow, bytes);
    assert_float_equal(ts_cost_kv_visible_s(&slow, model, bytes, 0), whole, 1e-12);
    /* Long prefill: the last layer's share remains. */
    assert_float_equal(ts_cost_kv_visible_s(&slow, model, bytes, 1e3), ts_cost_send_s(&slow, bytes / 80),
                       1e-12);
    double half = ts_cost_kv_visible_s(&slow, model, bytes, whole / 2);
    assert_true(half < whole && half > whole / 2);
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_NONE, 1024), 1, 0);
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_I4, 1024), 0.28125, 0);
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_I4, 31.5), 8.125 / 16, 0); /* short: i8 */
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_I4, 32), 0.28125, 0);
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_I4, 1e12), 0.28125, 0);
    assert_float_equal(ts_cost_codec_ratio(TS_COST_CODEC_I4, 0), 1, 0);
    assert_string_equal(ts_cost_codec_name(TS_COST_CODEC_NONE), "none");
    assert_string_equal(ts_cost_codec_name(TS_COST_CODEC_I4), "i4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_shape), cmocka_unit_test(test_prefill_shape),
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_tensor_parallel),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_memory_of_stages),
        cmocka_unit_test(test_links),        cmocka_unit_test(test_kv_transfer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
