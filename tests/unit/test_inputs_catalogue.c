/* Catalogues of devices and links: units, aliases, defaults, what is refused, and that the shipped ones load.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_cost.h"
#include "inputs_fixture.h"

static void test_values(void **state)
{
    struct ts_catalogue *catalogue = inputs_catalogue();
    const struct ts_device_type *a40 = ts_catalogue_device(catalogue, "A40");
    (void)state;
    assert_non_null(a40);
    assert_true(a40->memory_bytes == 48e9 && a40->memory_bytes_per_s == 696e9);
    assert_float_equal(a40->flops, 149.7e12, 1);
    assert_float_equal(a40->price_per_hour, 0.403, 1e-12);
    assert_float_equal(a40->fit.flops_efficiency, 0.5, 1e-12);
    assert_float_equal(a40->fit.layer_s, 30e-6, 1e-12);
    assert_float_equal(a40->fit.step_s, 1e-3, 1e-12);
    assert_float_equal(a40->fit.memory_efficiency, ts_cost_fit_generic().memory_efficiency, 0);
    assert_float_equal(a40->peer.bytes_per_s, 32e9, 1);
    assert_float_equal(a40->peer.latency_s, 10e-6, 1e-12);
    struct ts_device_fit generic = ts_cost_fit_generic();
    assert_memory_equal(&ts_catalogue_device(catalogue, "3090Ti")->fit, &generic, sizeof generic);
    assert_int_equal(ts_catalogue_device_count(catalogue), 2);
    assert_string_equal(ts_catalogue_device_at(catalogue, 1)->name, "3090Ti");
    ts_catalogue_destroy(&catalogue);
}

static void test_names(void **state)
{
    struct ts_catalogue *catalogue = inputs_catalogue();
    const struct ts_device_type *a40 = ts_catalogue_device(catalogue, "A40");
    (void)state;
    assert_ptr_equal(ts_catalogue_device(catalogue, "nvidia_a-40"), a40);
    assert_ptr_equal(ts_catalogue_device(catalogue, " a40 "), a40);
    assert_null(ts_catalogue_device(catalogue, "A4"));
    assert_null(ts_catalogue_device(catalogue, "A400"));
    assert_null(ts_catalogue_device(catalogue, ""));
    assert_ptr_equal(ts_catalogue_link(catalogue, "PCIE 4.0"), ts_catalogue_link(catalogue, "pcie4"));
    ts_catalogue_destroy(&catalogue);
}

/* What the catalogue of devices measured beats the data sheet of the link. */
static void test_measured_links(void **state)
{
    struct ts_catalogue *catalogue = inputs_catalogue();
    (void)state;
    assert_float_equal(ts_catalogue_link(catalogue, "NVLink")->bytes_per_s, 230e9, 1);
    ts_catalogue_destroy(&catalogue);
    struct ts_error err = {0};
    const char *path =
        inputs_write("devices", "plain.conf",
                     "devices = ( { name = \"X\"; memory_gb = 1; memory_gb_per_s = 1; tflops = 1; } );");
    assert_int_equal(ts_catalogue_load(inputs_conf, path, &catalogue, &err), TS_OK);
    assert_float_equal(ts_catalogue_link(catalogue, "NVLink")->bytes_per_s, 300e9,
                       1); /* one of two directions */
    assert_true(ts_catalogue_device(catalogue, "x")->peer.bytes_per_s == 0);
    ts_catalogue_destroy(&catalogue);
}

#define DEVICE(rest) "devices = ( { name = \"X\"; memory_gb = 1; memory_gb_per_s = 1; " rest " } );"

static void test_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {DEVICE(""), "the key tflops is missing"},
        {DEVICE("tflops = -3;"), "tflops = -3: expected a number from"},
        {DEVICE("tflops = 1; tflop = 3;"), "tflop = 3: unknown key; did you mean tflops?"},
        {DEVICE("tflops = 1; peer = \"PCIe44\";"),
         "peer = \"PCIe44\": no link has this name; did you mean PCIe4"},
        {DEVICE("tflops = 1; fit: { step_s = 1; };"), "step_s = 1: unknown key; did you mean step_us?"},
        {DEVICE("tflops = 1; fit: { memory_efficiency = 3; };"), "memory_efficiency = 3: expected a number"},
        {DEVICE("tflops = 1; price_per_hour = -0.1;"), "price_per_hour = -0.1: expected"},
        {"devices = ( { name = \"X\"; memory_gb = 1; memory_gb_per_s = 1; tflops = 1; },\n"
         "{ name = \"Y\"; aliases = ( \"x \" ); memory_gb = 1; memory_gb_per_s = 1; tflops = 1; } );",
         "bad.conf:2: aliases = ( ... ): \"x \" is already a name of another entry, \"X\""},
        {"devices = ( );", "devices = ( ... ): expected a list of groups"},
        {"device = ( );", "unknown key; did you mean devices?"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_catalogue *catalogue = NULL;
        struct ts_error err = {0};
        const char *path = inputs_write("devices", "bad.conf", cases[i].text);
        assert_int_equal(ts_catalogue_load(inputs_conf, path, &catalogue, &err), TS_EINVAL);
        assert_null(catalogue);
        inputs_expect(&err, cases[i].words);
        inputs_expect(&err, "bad.conf:");
    }
}

static void test_unknown_file(void **state)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_catalogue_load(inputs_conf, "twos", &catalogue, &err), TS_ENOTFOUND);
    inputs_expect(&err, "devices \"twos\"");
    inputs_expect(&err, "did you mean two?");
    assert_int_equal(ts_catalogue_load("/nowhere", "two", &catalogue, &err), TS_ENOTFOUND);
    inputs_expect(&err, "/nowhere/links");
}

static void test_shipped(void **state)
{
    char names[16][64];
    size_t count = inputs_shipped("devices", names, 16);
    (void)state;
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        struct ts_catalogue *catalogue = NULL;
        struct ts_error err = {0};
        if (ts_catalogue_load(TS_CONF_DIR, names[i], &catalogue, &err) != TS_OK)
            fail_msg("%s", err.text);
        for (size_t j = 0; j < ts_catalogue_device_count(catalogue); j++)
            assert_true(ts_catalogue_device_at(catalogue, j)->peer.bytes_per_s > 0);
        ts_catalogue_destroy(&catalogue);
    }
}

/* Figures of data sheets, GB/s; those of NVLink are the sum of both directions. */
static void test_shipped_links(void **state)
{
    static const struct {
        const char *name;
        double gb_per_s;
    } links[] = {{"NVLink 4", 450},  {"NVLink 3", 300}, {"NVLink bridge", 56.25}, {"PCIe 5", 64},
                 {"PCIe 4", 32},     {"PCIe 3", 16},    {"InfiniBand NDR", 50},   {"100 GbE", 12.5},
                 {"40 Gbit/s", 5},   {"25 GbE", 3.1},   {"10 GbE", 1.25},         {"5 Gbit/s", 0.625},
                 {"1 Gbit/s", 0.125}};
    struct ts_catalogue *catalogue = NULL;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_catalogue_load(TS_CONF_DIR, "paper", &catalogue, &err), TS_OK);
    for (size_t i = 0; i < TS_ARRAY_SIZE(links); i++) {
        const struct ts_link *link = ts_catalogue_link(catalogue, links[i].name);
        if (!link || link->bytes_per_s < links[i].gb_per_s * 0.999e9 ||
            link->bytes_per_s > links[i].gb_per_s * 1.001e9)
            fail_msg("%s: %g", links[i].name, link ? link->bytes_per_s : 0);
    }
    ts_catalogue_destroy(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),         cmocka_unit_test(test_names),
        cmocka_unit_test(test_measured_links), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unknown_file),   cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_shipped_links),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
