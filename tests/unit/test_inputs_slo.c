/* Deadlines: absolute, as a scale of a reference device, from files; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_cost.h"
#include "common/inputs/ts_slo.h"
#include "inputs_fixture.h"

struct asked {
    struct ts_catalogue *catalogue;
    struct ts_model model;
    struct ts_demand demand;
    struct ts_error err;
};

static enum ts_status ask(struct asked *a, const char *model, const char *text)
{
    *a = (struct asked){.catalogue = NULL};
    if (ts_catalogue_load(TS_CONF_DIR, "sheet", &a->catalogue, &a->err) != TS_OK ||
        ts_inputs_model(TS_CONF_DIR, model, &a->model, &a->err) != TS_OK ||
        ts_inputs_demand(TS_CONF_DIR, "azure-conv", 0, &a->demand, &a->err) != TS_OK)
        fail_msg("%s", a->err.text);
    return ts_inputs_slo(a->catalogue, TS_CONF_DIR, text, &a->model, &a->demand, &a->err);
}

static void ask_well(struct asked *a, const char *model, const char *text)
{
    if (ask(a, model, text) != TS_OK)
        fail_msg("%s", a->err.text);
}

static void test_absolute(void **state)
{
    struct asked a;
    (void)state;
    ask_well(&a, "llama-30b", "ttft=500ms, e2e=10 s");
    for (uint32_t k = 0; k < a.demand.class_count; k++) {
        assert_float_equal(a.demand.classes[k].ttft_s, 0.5, 1e-12);
        assert_float_equal(a.demand.classes[k].tpot_s, 0, 0);
        assert_float_equal(a.demand.classes[k].e2e_s, 10, 1e-12);
    }
    ts_catalogue_destroy(&a.catalogue);
}

/* LLaMA-30B on one A100: what the cost model says for the class alone, times the scale. (The KV of the
 * longest class does not fit beside the weights of one: its reference is two stages.) */
static void test_scale(void **state)
{
    struct asked a;
    (void)state;
    ask_well(&a, "llama-30b", "scale=5,reference=A100-80G");
    const struct ts_device_type *d = ts_catalogue_device(a.catalogue, "A100-80G");
    for (uint32_t k = 0; k + 1 < a.demand.class_count; k++) {
        const struct ts_class *c = &a.demand.classes[k];
        double s = c->prompt_tokens, rest = ts_cost_head_s(d, &a.model, 1, 1) + ts_cost_step_s(d);
        double prefill = 60 * ts_cost_layer_prefill_s(d, &a.model, NULL, 1, s, s * s) + rest;
        double step = 60 * ts_cost_layer_decode_s(d, &a.model, NULL, 1, 1, s + c->output_tokens / 2) + rest;
        assert_float_equal(c->ttft_s, 5 * prefill, 1e-9);
        assert_float_equal(c->tpot_s, 5 * step, 1e-9);
        assert_float_equal(c->e2e_s, 5 * (prefill + (c->output_tokens - 1) * step), 1e-6);
    }
    ts_catalogue_destroy(&a.catalogue);
}

static void test_scale_is_linear_and_times_beat_it(void **state)
{
    struct asked one, ten;
    (void)state;
    ask_well(&one, "llama-30b", "scale=1,reference=a100");
    ask_well(&ten, "llama-30b", "scale=10,reference=a100,tpot=77ms");
    assert_float_equal(ten.demand.classes[0].ttft_s, 10 * one.demand.classes[0].ttft_s, 1e-9);
    assert_float_equal(ten.demand.classes[0].tpot_s, 0.077, 1e-12);
    ts_catalogue_destroy(&one.catalogue);
    ts_catalogue_destroy(&ten.catalogue);
}

/* A model that one device cannot hold takes stages, and TP shortens both phases. */
static void test_large_model(void **state)
{
    struct asked stages, tp;
    (void)state;
    ask_well(&stages, "llama-2-70b", "scale=1,reference=A100-80G");
    ask_well(&tp, "llama-2-70b", "scale=1,reference=A100-80G,tp=4");
    for (uint32_t k = 0; k < tp.demand.class_count; k++) {
        assert_true(tp.demand.classes[k].ttft_s < stages.demand.classes[k].ttft_s);
        assert_true(tp.demand.classes[k].tpot_s < stages.demand.classes[k].tpot_s);
    }
    ts_catalogue_destroy(&stages.catalogue);
    ts_catalogue_destroy(&tp.catalogue);
}

static void test_files(void **state)
{
    char names[16][64];
    size_t count = inputs_shipped("slo", names, 16);
    (void)state;
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        struct asked a;
        ask_well(&a, "llama-30b", names[i]);
        const struct ts_class *c = &a.demand.classes[0];
        assert_true(c->ttft_s + c->tpot_s + c->e2e_s > 0);
        ts_catalogue_destroy(&a.catalogue);
    }
    struct asked file, text;
    ask_well(&file, "llama-30b", "scale-5");
    ask_well(&text, "llama-30b", "scale=5,reference=A100-80G");
    assert_float_equal(file.demand.classes[3].e2e_s, text.demand.classes[3].e2e_s, 0);
    ts_catalogue_destroy(&file.catalogue);
    ts_catalogue_destroy(&text.catalogue);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"ttft=500", "ttft = 500: expected a time above 0 with its unit"},
        {"ttft=-5ms", "ttft = -5ms: expected a time above 0"},
        {"ttft=nans", "ttft = nans: expected a time"},
        {"tpot=1e30s", "tpot = 1e30s: expected a time"},
        {"ttft=1h", "ttft = 1h: expected a time"},
        {"ttft=", "ttft: expected ttft=VALUE, once"},
        {"ttft=1s,ttft=2s", "ttft: expected ttft=VALUE, once"},
        {"tftt=1s", "unknown key \"tftt\"; did you mean ttft"},
        {"scale=5", "scale and reference go together"},
        {"reference=A100", "scale and reference go together"},
        {"scale=0,reference=A100", "scale = 0: expected a number from 0.01"},
        {"scale=5,reference=A101-80G",
         "reference = A101-80G: the catalogue has no such device; did you mean A10"},
        {"scale=5,reference=A100,tp=3", "tp = 3: expected 1, 2, 4 or 8"},
        {"scale=5,reference=A100,tp=8", "tp = 8: expected a divisor of the model's heads"},
        {"interactiv", "slo \"interactiv\""},
        {"tp=2", "sets no deadline"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct asked a;
        if (ask(&a, "llama-30b", cases[i].text) == TS_OK)
            fail_msg("accepted: %s", cases[i].text);
        inputs_expect(&a.err, cases[i].words);
        ts_catalogue_destroy(&a.catalogue);
    }
}

static void test_refused_files(void **state)
{
    struct asked a;
    (void)state;
    const char *path = inputs_write("slo", "bad.conf", "ttft = \"5\";");
    assert_int_not_equal(ask(&a, "llama-30b", path), TS_OK);
    inputs_expect(&a.err, "bad.conf: ttft = 5: expected a time");
    ts_catalogue_destroy(&a.catalogue);
    path = inputs_write("slo", "bad.conf", "scale = -5; reference = \"A100\";");
    assert_int_not_equal(ask(&a, "llama-30b", path), TS_OK);
    inputs_expect(&a.err, "bad.conf:1: scale = -5: expected a number from 0.01");
    ts_catalogue_destroy(&a.catalogue);
}

/* A request of its class's mean lengths has its class's deadlines; a longer one has more time. */
static void test_single_requests(void **state)
{
    struct asked a;
    struct ts_slo *slo = NULL;
    struct ts_deadlines d, longer;
    struct ts_error err = {0};
    struct ts_model model;
    (void)state;
    assert_int_equal(ask(&a, "llama-30b", "scale=4,reference=A100-80G,tpot=30ms"), TS_OK);
    const struct ts_class *c = &a.demand.classes[4];
    assert_int_equal(ts_inputs_model(TS_CONF_DIR, "llama-30b", &model, &err), TS_OK);
    if (ts_slo_open(a.catalogue, TS_CONF_DIR, "scale=4,reference=A100-80G,tpot=30ms", &model, &slo, &err) !=
        TS_OK)
        fail_msg("%s", err.text);
    assert_true(ts_slo_scale(slo) == 4);
    assert_int_equal(ts_slo_of(slo, c->prompt_tokens, c->output_tokens, &d, &err), TS_OK);
    assert_true(d.ttft_s == c->ttft_s && d.tpot_s == c->tpot_s && d.e2e_s == c->e2e_s);
    assert_float_equal(d.tpot_s, 0.03, 1e-12);
    assert_int_equal(ts_slo_of(slo, 2 * c->prompt_tokens, c->output_tokens, &longer, &err), TS_OK);
    assert_true(longer.ttft_s > 1.8 * d.ttft_s && longer.tpot_s == d.tpot_s && longer.e2e_s > d.e2e_s);
    ts_slo_close(&slo);
    assert_int_equal(ts_slo_open(a.catalogue, TS_CONF_DIR, "e2e=3s", &model, &slo, &err), TS_OK);
    assert_int_equal(ts_slo_of(slo, 1, 1, &d, &err), TS_OK);
    assert_true(ts_slo_scale(slo) == 1 && d.ttft_s == 0 && d.tpot_s == 0 && d.e2e_s == 3);
    ts_slo_close(&slo);
    ts_catalogue_destroy(&a.catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absolute),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_scale_is_linear_and_times_beat_it),
        cmocka_unit_test(test_large_model),
        cmocka_unit_test(test_single_requests),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_files),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
