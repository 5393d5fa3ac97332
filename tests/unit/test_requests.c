/* Streams of requests: rates, spreads and means as asked, the same for the same seed, bad rows by their line.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/inputs/ts_requests.h"
#include "inputs_fixture.h"

struct figures { /* of a stream */
    uint64_t count;
    double last_s, gap, gap_cv_sq, prompt, prompt_cv, output, output_cv;
};

static struct ts_requests *open_stream(const char *conf, const char *name,
                                       const struct ts_requests_options *options)
{
    struct ts_requests *r = NULL;
    struct ts_error err = {0};
    if (ts_requests_open(conf, name, options, &r, &err) != TS_OK)
        fail_msg("%s", err.text);
    return r;
}

static struct figures figures_of(const char *name, struct ts_requests_options options)
{
    struct ts_requests *r = open_stream(inputs_conf, name, &options);
    struct figures f = {.count = 0};
    struct ts_request_item item;
    double gap_sq = 0, prompt_sq = 0, output_sq = 0;
    while (ts_requests_next(r, &item)) {
        double gap = item.at_s - f.last_s;
        assert_true(gap >= 0);
        f.last_s = item.at_s;
        gap_sq += gap * gap;
        f.prompt += item.prompt_tokens;
        prompt_sq += (double)item.prompt_tokens * item.prompt_tokens;
        f.output += item.output_tokens;
        output_sq += (double)item.output_tokens * item.output_tokens;
        f.count++;
    }
    double n = (double)f.count;
    f.gap = f.last_s / n;
    f.prompt /= n;
    f.output /= n;
    f.gap_cv_sq = gap_sq / n / (f.gap * f.gap) - 1;
    f.prompt_cv = sqrt(fmax(0, prompt_sq / n / (f.prompt * f.prompt) - 1));
    f.output_cv = sqrt(fmax(0, output_sq / n / (f.output * f.output) - 1));
    ts_requests_close(&r);
    assert_null(r);
    return f;
}

static void expect_near(double value, double wanted, double share)
{
    if (!(fabs(value - wanted) <= share * wanted))
        fail_msg("%g, expected %g within %g %%", value, wanted, 100 * share);
}

#define CLASSES                                                                                              \
    "classes = ( { rate = 1; prompt_tokens = 100; output_tokens = 400; },\n"                                 \
    "{ rate = 3; prompt_tokens = 500; prompt_cv = 0.5; output_tokens = 40; output_cv = 1.0; } );\n"

static void test_lengths(void **state)
{
    (void)state;
    const char *path = inputs_write("workloads", "mix.conf", CLASSES);
    struct figures f = figures_of(path, (struct ts_requests_options){.count = 100000, .seed = 3});
    assert_int_equal(f.count, 100000);
    expect_near(f.gap, 0.25, 0.02);
    expect_near(f.gap_cv_sq, 1, 0.05);
    expect_near(f.prompt, 400, 0.02);
    expect_near(f.output, 130, 0.02);
    /* Mean squares of the mixture: (10000 + 3 * 250000 * 1.25) / 4 and (160000 + 3 * 1600 * 2) / 4. */
    expect_near(f.prompt_cv, sqrt(236875.0 / 160000 - 1), 0.03);
    expect_near(f.output_cv, sqrt(42400.0 / 16900 - 1), 0.03);
}

static void test_fixed(void **state)
{
    (void)state;
    const char *path =
        inputs_write("workloads", "fixed.conf",
                     "burst = 0;\nclasses = ( { rate = 4; law = \"fixed\"; prompt_tokens = 512; "
                     "output_tokens = 16; } );");
    struct figures f = figures_of(path, (struct ts_requests_options){.duration_s = 100.1});
    assert_int_equal(f.count, 400);
    expect_near(f.gap, 0.25, 1e-9);
    assert_true(f.gap_cv_sq < 1e-9);
    expect_near(f.prompt, 512, 0);
    expect_near(f.output, 16, 0);
    f = figures_of(path, (struct ts_requests_options){.scale_lengths = 2, .prompt_tokens_max = 700});
    assert_int_equal(f.count, 10000);
    expect_near(f.prompt, 700, 0);
    expect_near(f.output, 32, 0);
}

static void test_bursts(void **state)
{
    static const double spreads[] = {0.25, 4, 13};
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(spreads); i++) {
        char text[400];
        (void)snprintf(text, sizeof text, "arrivals = \"gamma\"; burst = %g;\n%s", spreads[i], CLASSES);
        const char *path = inputs_write("workloads", "bursts.conf", text);
        struct figures f = figures_of(path, (struct ts_requests_options){.count = 200000, .rate = 50});
        expect_near(f.gap, 0.02, 0.03);
        expect_near(f.gap_cv_sq, spreads[i], 0.05);
        f = figures_of(path, (struct ts_requests_options){.count = 200000, .rate = 50, .poisson = true});
        expect_near(f.gap, 0.02, 0.01);
        expect_near(f.gap_cv_sq, 1, 0.03);
    }
}

/* Requests that arrive in [from, to). */
static double counted(const char *path, double from, double to)
{
    struct ts_requests *r = open_stream(
        inputs_conf, path, &(struct ts_requests_options){.rate = 100, .duration_s = to, .count = 1000000});
    struct ts_request_item item;
    double count = 0;
    while (ts_requests_next(r, &item))
        count += item.at_s >= from;
    ts_requests_close(&r);
    return count;
}

static void test_steps(void **state)
{
    (void)state;
    const char *path = inputs_write("workloads", "steps.conf",
                                    "steps = ( { at_s = 100; factor = 3; }, { at_s = 200; factor = 0; },\n"
                                    "{ at_s = 300; factor = 0.5; } );\n" CLASSES);
    expect_near(counted(path, 0, 100), 10000, 0.03);
    expect_near(counted(path, 100, 200), 30000, 0.03);
    assert_true(counted(path, 200, 300) == 0);
    expect_near(counted(path, 300, 400), 5000, 0.05);
    path = inputs_write("workloads", "ends.conf",
                        "steps = ( { at_s = 0; factor = 2; }, { at_s = 50; factor = 0; } );\n" CLASSES);
    expect_near(counted(path, 0, 1e6), 10000, 0.03); /* and the stream ends */
}

static void test_diurnal(void **state)
{
    (void)state;
    const char *path =
        inputs_write("workloads", "day.conf", "diurnal = { period_s = 400; amplitude = 0.8; };\n" CLASSES);
    /* Of the half with the sun: 1 + 0.8 * 2 / pi. */
    expect_near(counted(path, 0, 200), 20000 * (1 + 0.8 * 0.63662), 0.02);
    expect_near(counted(path, 200, 400), 20000 * (1 - 0.8 * 0.63662), 0.03);
    expect_near(counted(path, 0, 800), 80000, 0.02);
}

static void test_empirical(void **state)
{
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    inputs_write("workloads", "lengths.csv", "0,10,1\n1,20,2\n2,60,6\n");
    const char *path =
        inputs_write("workloads", "drawn.conf", "classes = ( { rate = 2; empirical = \"lengths.csv\"; } );");
    if (ts_inputs_demand(inputs_conf, path, 0, &d, &err) != TS_OK)
        fail_msg("%s", err.text);
    expect_near(d.classes[0].prompt_tokens, 30, 1e-9);
    expect_near(d.classes[0].output_tokens_sq, 41.0 / 3, 1e-9);
    struct ts_requests *r = open_stream(inputs_conf, path, &(struct ts_requests_options){.count = 3000});
    struct ts_request_item item;
    int seen[7] = {0};
    while (ts_requests_next(r, &item)) {
        assert_int_equal(item.prompt_tokens, 10 * item.output_tokens);
        assert_true(item.output_tokens <= 6);
        seen[item.output_tokens]++;
    }
    ts_requests_close(&r);
    expect_near(seen[1], 1000, 0.1);
    expect_near(seen[2], 1000, 0.1);
    expect_near(seen[6], 1000, 0.1);
}

static void test_seed(void **state)
{
    (void)state;
    char path[600];
    (void)snprintf(path, sizeof path, "%s", inputs_write("workloads", "seed.conf", "burst = 2;\n" CLASSES));
    struct ts_requests_options options = {.count = 1000, .seed = 7};
    struct ts_requests *a = open_stream(inputs_conf, path, &options),
                       *b = open_stream(inputs_conf, path, &options);
    options.seed = 8;
    struct ts_requests *c = open_stream(inputs_conf, path, &options);
    options.seed = 7;
    options.poisson = true;
    struct ts_requests *p = open_stream(inputs_conf, path, &options);
    struct ts_request_item x, y, z, w;
    bool other = false;
    while (ts_requests_next(a, &x)) {
        assert_true(ts_requests_next(b, &y) && ts_requests_next(c, &z) && ts_requests_next(p, &w));
        assert_memory_equal(&x, &y, sizeof x);
        other = other || x.prompt_tokens != z.prompt_tokens;
        assert_int_equal(x.prompt_tokens, w.prompt_tokens); /* arrivals alone are redrawn */
        assert_int_equal(x.output_tokens, w.output_tokens);
    }
    assert_true(other);
    ts_requests_close(&a);
    ts_requests_close(&b);
    ts_requests_close(&c);
    ts_requests_close(&p);
}

static void test_traces(void **state)
{
    (void)state;
    const char *conv = TS_TEST_DATA "/traces/AzureLLMInferenceTrace_conv.csv";
    struct figures f = figures_of(conv, (struct ts_requests_options){.count = 0});
    assert_int_equal(f.count, 19366);
    expect_near(f.prompt * 19366, 22361870, 1e-12);
    expect_near(f.output * 19366, 4088665, 1e-12);
    double rate = 1 / f.gap;
    f = figures_of(conv, (struct ts_requests_options){.rate = 20});
    expect_near(f.gap, 0.05, 1e-3);
    expect_near(f.prompt * 19366, 22361870, 1e-12);
    f = figures_of(conv, (struct ts_requests_options){.poisson = true});
    expect_near(f.gap, 1 / rate, 0.02);
    expect_near(f.gap_cv_sq, 1, 0.05);
    f = figures_of(conv, (struct ts_requests_options){.count = 2000});
    assert_true(f.output > 1.2 * 4088665 / 19366); /* the trace drifts */
    f = figures_of(conv, (struct ts_requests_options){.shuffle = true, .count = 10000});
    expect_near(f.output, 4088665.0 / 19366, 0.03);
    expect_near(f.prompt, 22361870.0 / 19366, 0.03);
    f = figures_of(conv, (struct ts_requests_options){.repeat = true, .count = 50000});
    assert_int_equal(f.count, 50000);
    expect_near(f.gap, 1 / rate, 0.02);
    f = figures_of(TS_TEST_DATA "/traces/mooncake-form.jsonl", (struct ts_requests_options){.skip_s = 40});
    assert_true(f.count > 80 && f.count < 160);
    expect_near(f.last_s, 41, 0.01);
}

static void test_hand_traces(void **state)
{
    (void)state;
    struct ts_request_item item;
    const char *path = inputs_write("traces", "hand.csv", "5,1,10\n6,2,20\n8,3,30\n9,4,40\n");
    struct ts_requests *r = open_stream(
        inputs_conf, path, &(struct ts_requests_options){.skip_s = 1, .rate = 6, .repeat = true, .count = 7});
    /* 3 rows in 3 s: their own rate is 1, so times are a sixth; a lap adds a gap of 1 s. */
    static const double at[] = {0, 2, 3, 4, 6, 7, 8};
    for (size_t i = 0; i < TS_ARRAY_SIZE(at); i++) {
        assert_true(ts_requests_next(r, &item));
        assert_float_equal(item.at_s, at[i] / 6, 1e-9);
        assert_int_equal(item.prompt_tokens, 2 + i % 3);
        assert_int_equal(item.output_tokens, 20 + 10 * (i % 3));
    }
    assert_false(ts_requests_next(r, &item));
    ts_requests_close(&r);
}

static void test_refused(void **state)
{
    static const struct {
        const char *name, *text;
        struct ts_requests_options options;
        const char *words;
    } cases[] = {
        {"a.conf", "arrivals = \"often\";" CLASSES, {.rate = 0}, "expected \"poisson\" or \"gamma\""},
        {"a.conf",
         "arrivals = \"poisson\"; burst = 3.0;" CLASSES,
         {.rate = 0},
         "Poisson arrivals have a burst of 1"},
        {"a.conf",
         "steps = ( { at_s = 5; factor = 2; }, { at_s = 5; factor = 1; } );" CLASSES,
         {.rate = 0},
         "at_s = 5: steps come in order"},
        {"a.conf",
         "diurnal = { period_s = 10; amplitude = 2; };" CLASSES,
         {.rate = 0},
         "amplitude = 2: expected"},
        {"a.conf", "burts = 3.0;" CLASSES, {.rate = 0}, "did you mean burst?"},
        {"a.conf",
         "classes = ( { rate = 1; prompt_tokens = 9; output_tokens = 9; law = \"normal\"; } );",
         {.rate = 0},
         "law = \"normal\": expected \"fixed\""},
        {"a.conf",
         "classes = ( { rate = 1; prompt_tokens = 9; prompt_cv = 0.1; output_tokens = 9; law = \"fixed\"; } "
         ");",
         {.rate = 0},
         "fixed lengths do not vary"},
        {"a.conf",
         "classes = ( { rate = 1; prompt_tokens = 9; empirical = \"x.csv\"; } );",
         {.rate = 0},
         "prompt_tokens = 9: both lengths are drawn"},
        {"a.conf", "classes = ( { rate = 1; empirical = \"x.csv\"; } );", {.rate = 0}, "x.csv: No such file"},
        {"a.conf",
         "classes = ( { rate = 0; prompt_tokens = 9; output_tokens = 9; } );",
         {.rate = 0},
         "all rates are 0"},
        {"a.conf", CLASSES, {.skip_s = 1}, "is no trace"},
        {"b.csv", "0,1,1\n1,1,0\n", {.rate = 0}, "b.csv:2: \"1,1,0\""},
        {"b.csv", "0,1,1\n1,1,1\n", {.skip_s = 2}, "nothing is left"},
        {"b.csv", "0,1,1\n1,1,1\n", {.repeat = true}, "needs a number of requests"},
        {"b.csv", "3,1,1\n3,1,1\n", {.rate = 2}, "are at one time"},
        {"c.jsonl",
         "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}\n\nnothing\n",
         {.rate = 0},
         "c.jsonl:3"},
        {"c.jsonl",
         "{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}\n",
         {.rate = 0},
         "c.jsonl:1: "},
        {"c.jsonl", "{\"timestamp\": 0, \"output_length\": 1}\n", {.rate = 0}, "expected {\"timestamp\": MS"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_requests *r = NULL;
        struct ts_error err = {0};
        const char *path = inputs_write("workloads", cases[i].name, cases[i].text);
        if (ts_requests_open(inputs_conf, path, &cases[i].options, &r, &err) == TS_OK)
            fail_msg("case %zu is taken", i);
        assert_null(r);
        inputs_expect(&err, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_fixed),   cmocka_unit_test(test_bursts),
        cmocka_unit_test(test_steps),   cmocka_unit_test(test_diurnal), cmocka_unit_test(test_empirical),
        cmocka_unit_test(test_seed),    cmocka_unit_test(test_traces),  cmocka_unit_test(test_hand_traces),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
