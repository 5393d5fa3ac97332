/* The committed catalogues through the cost model: every device is sane, and what is known of real cards
 * holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_cost.h"
#include "common/inputs/ts_inputs.h"

static const char *const catalogues[] = {"paper", "sheet", "measured"};

static struct ts_catalogue *load(const char *name)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_error err = {0};
    if (ts_catalogue_load(TS_TEST_DATA "/../../conf", name, &catalogue, &err) != TS_OK)
        fail_msg("%s", err.text);
    return catalogue;
}

static struct ts_model model(const char *name)
{
    struct ts_model out;
    struct ts_error err = {0};
    if (ts_inputs_model(TS_TEST_DATA "/../../conf", name, &out, &err) != TS_OK)
        fail_msg("%s", err.text);
    return out;
}

static bool sane(double seconds)
{
    return isfinite(seconds) && seconds > 0 && seconds < 1000;
}

static void test_every_device(void **state)
{
    (void)state;
    struct ts_model llama = model("LLaMA-30B");
    for (size_t c = 0; c < TS_ARRAY_SIZE(catalogues); c++) {
        struct ts_catalogue *catalogue = load(catalogues[c]);
        assert_true(ts_catalogue_device_count(catalogue) >= 5);
        for (size_t i = 0; i < ts_catalogue_device_count(catalogue); i++) {
            const struct ts_device_type *device = ts_catalogue_device_at(catalogue, i);
            const struct ts_device_fit *fit = &device->fit;
            assert_true(fit->flops_efficiency > 0.2 && fit->flops_efficiency < 1);
            assert_true(fit->memory_efficiency > 0.5 && fit->memory_efficiency < 1);
            assert_true(fit->context_efficiency > 0.4 && fit->context_efficiency < 1);
            assert_true(fit->attention_efficiency > 0.1 && fit->attention_efficiency < 1);
            assert_true(fit->layer_s > 1e-6 && fit->layer_s < 1e-4 && fit->step_s < 2e-2);
            assert_true(device->price_per_hour > 0 && device->peer.bytes_per_s > 0);
            assert_true(sane(ts_cost_layer_prefill_s(device, &llama, &device->peer, 4, 512, 512 * 512)));
            assert_true(sane(ts_cost_layer_decode_s(device, &llama, &device->peer, 4, 16, 16 * 512)));
        }
        ts_catalogue_destroy(&catalogue);
    }
}

/* A 3090-class card beats an A40 in decode, where memory counts, and loses in prefill, where products do. */
static void test_ratios(void **state)
{
    (void)state;
    struct ts_model llama = model("LLaMA-30B");
    for (size_t c = 0; c < TS_ARRAY_SIZE(catalogues); c++) {
        struct ts_catalogue *catalogue = load(catalogues[c]);
        const struct ts_device_type *a40 = ts_catalogue_device(catalogue, "A40");
        const struct ts_device_type *home = ts_catalogue_device(catalogue, "3090Ti");
        const struct ts_device_type *a100 = ts_catalogue_device(catalogue, "A100");
        assert_non_null(a40);
        assert_non_null(home);
        assert_non_null(a100);
        for (double batch = 1; batch <= 16; batch *= 2)
            assert_true(ts_cost_layer_decode_s(home, &llama, NULL, 1, batch, batch * 1000) <
                        ts_cost_layer_decode_s(a40, &llama, NULL, 1, batch, batch * 1000));
        for (double tokens = 512; tokens <= 8192; tokens *= 2) {
            double slower = ts_cost_layer_prefill_s(home, &llama, NULL, 1, tokens, tokens * tokens);
            double middle = ts_cost_layer_prefill_s(a40, &llama, NULL, 1, tokens, tokens * tokens);
            assert_true(slower > middle);
            assert_true(middle > ts_cost_layer_prefill_s(a100, &llama, NULL, 1, tokens, tokens * tokens));
        }
        ts_catalogue_destroy(&catalogue);
    }
}

/* All names that the profiles mention, and the deployment sizes that must exist. */
static void test_names(void **state)
{
    (void)state;
    static const char *const names[] = {"A40",
                                        "A100-80G",
                                        "A100-40G",
                                        "A30",
                                        "H100",
                                        "H200",
                                        "L40S",
                                        "L40",
                                        "L4",
                                        "T4",
                                        "V100-16G",
                                        "V100",
                                        "RTX3090",
                                        "a100-80gb",
                                        "h100-80gb",
                                        "h100-80gb-pcap",
                                        "A100 SXM",
                                        "H200 SXM",
                                        "H100 SXM",
                                        "RTX A6000",
                                        "RTX A5000",
                                        "RTX A4000",
                                        "RTX 4090",
                                        "RTX 6000 Ada",
                                        "RTX A6000 ADA",
                                        "RTX 4000 Ada",
                                        "RTX 6000",
                                        "MI300X",
                                        "A10G",
                                        "cpu"};
    struct ts_catalogue *catalogue = load("measured");
    for (size_t i = 0; i < TS_ARRAY_SIZE(names); i++)
        if (!ts_catalogue_device(catalogue, names[i]))
            fail_msg("%s is not in the catalogue", names[i]);
    const struct ts_device_type *h100 = ts_catalogue_device(catalogue, "h100-80gb-pcap");
    assert_ptr_equal(h100, ts_catalogue_device(catalogue, "H100"));
    assert_true(h100->peer.bytes_per_s > 10 * ts_catalogue_device(catalogue, "L40S")->peer.bytes_per_s);
    ts_catalogue_destroy(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_device),
        cmocka_unit_test(test_ratios),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
