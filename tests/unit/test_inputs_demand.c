/* Workload files, and traces cut into classes whose sums are the trace's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_trace.h"
#include "inputs_fixture.h"

static const char *const traces[] = {"code", "conv"};

static void test_file(void **state)
{
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    inputs_write("workloads", "two.conf",
                 "burst = 2.5; classes = ( { rate = 1; prompt_tokens = 100; output_tokens = 10; },\n"
                 "{ rate = 3; prompt_tokens = 200; prompt_cv = 0.5; output_tokens = 20; output_cv = 1; } );");
    if (ts_inputs_demand(inputs_conf, "two", 0, &d, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_string_equal(d.name, "two");
    assert_int_equal(d.class_count, 2);
    assert_float_equal(d.burst, 2.5, 1e-12);
    assert_float_equal(d.classes[0].prompt_tokens_sq, 1e4, 1e-9);
    assert_float_equal(d.classes[1].prompt_tokens_sq, 4e4 * 1.25, 1e-9);
    assert_float_equal(d.classes[1].output_tokens_sq, 800, 1e-9);
    assert_float_equal(d.classes[1].ttft_s, 0, 0);
    assert_int_equal(ts_inputs_demand(inputs_conf, "two", 8, &d, &err), TS_OK);
    assert_float_equal(d.classes[0].rate, 2, 1e-12);
    assert_float_equal(d.classes[1].rate, 6, 1e-12);
}

static void test_refused_files(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"classes = ( );", "classes = ( ... ): expected a list of groups"},
        {"classes = ( { rate = -1; prompt_tokens = 1; output_tokens = 1; } );",
         "rate = -1: expected a number from 0"},
        {"classes = ( { rate = 1; prompt_tokens = 0; output_tokens = 1; } );", "prompt_tokens = 0: expected"},
        {"classes = ( { rate = 1; prompt_tokens = 1; } );", "the key output_tokens is missing"},
        {"classes = ( { rate = 1e30; prompt_tokens = 1; output_tokens = 1; } );", "rate = 1e+30: expected"},
        {"classes = ( { rate = 1; prompt_tokens = 1; output_tokens = 1; output_cw = 1; } );",
         "did you mean output_cv?"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_demand d;
        struct ts_error err = {0};
        const char *path = inputs_write("wrong", "bad.conf", cases[i].text);
        assert_int_equal(ts_inputs_demand(inputs_conf, path, 0, &d, &err), TS_EINVAL);
        inputs_expect(&err, cases[i].words);
        inputs_expect(&err, "bad.conf:1");
    }
}

static void test_refused_rates(void **state)
{
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_inputs_demand(TS_CONF_DIR, "azure-code", NAN, &d, &err), TS_EINVAL);
    inputs_expect(&err, "rate = nan: expected requests/s");
    assert_int_equal(ts_inputs_demand(TS_CONF_DIR, "azure-code", -1, &d, &err), TS_EINVAL);
    inputs_expect(&err, "rate = -1: expected requests/s");
    assert_int_equal(ts_inputs_demand(TS_CONF_DIR, "azure-cod", 0, &d, &err), TS_ENOTFOUND);
    inputs_expect(&err, "did you mean azure-code?");
    const char *path = inputs_write("workloads", "zero.conf",
                                    "classes = ( { rate = 0; prompt_tokens = 1; output_tokens = 1; } );");
    assert_int_equal(ts_inputs_demand(inputs_conf, path, 0, &d, &err), TS_OK);
    assert_int_equal(ts_inputs_demand(inputs_conf, path, 5, &d, &err), TS_EINVAL);
    inputs_expect(&err, "all rates are 0");
}

static enum ts_status load_trace(const char *text, struct ts_trace *trace, struct ts_error *err)
{
    return ts_trace_load(inputs_write("traces", "t.csv", text), trace, err);
}

/* CR LF, no header, no last line end, T for a blank, rows out of order, a day's turn: all the same requests.
 */
static void test_forms_of_a_trace(void **state)
{
    static const char *const forms[] = {
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5,10,1\n2023-11-17 00:00:01.25,20,2\n",
        ("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
         "2023-11-16 23:59:59.5,10,1\r\n2023-11-17 00:00:01.25,20,2"),
        "2023-11-16T23:59:59.5,10,1\n\n2023-11-17T00:00:01.25,20,2\n",
        "2023-11-17 00:00:01.25,20,2\n2023-11-16 23:59:59.5000000,10,1\n",
        "-0.5,10,1\n1.25,20,2\n",
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(forms); i++) {
        struct ts_trace trace;
        struct ts_error err = {0};
        if (load_trace(forms[i], &trace, &err) != TS_OK)
            fail_msg("form %zu: %s", i, err.text);
        assert_int_equal(trace.count, 2);
        assert_float_equal(trace.rows[0].at_s, 0, 0);
        assert_float_equal(trace.rows[1].at_s, 1.75, 1e-6);
        assert_int_equal(trace.rows[0].prompt_tokens, 10);
        assert_int_equal(trace.rows[1].output_tokens, 2);
        ts_trace_fini(&trace);
    }
}

static void test_leap_days(void **state)
{
    struct ts_trace trace;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(load_trace("2024-02-28 00:00:00,1,1\n2024-03-01 00:00:00,1,1\n2025-03-01 00:00:00,1,1\n",
                                &trace, &err),
                     TS_OK);
    assert_float_equal(trace.rows[1].at_s, 2 * 86400, 0);
    assert_float_equal(trace.rows[2].at_s, 367 * 86400, 0);
    ts_trace_fini(&trace);
}

static void test_bad_rows(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\ngarbage\n",
         "t.csv:3: \"garbage\": expected TIMESTAMP"},
        {"1,2\n", "t.csv:1: \"1,2\": expected"},
        {"1,2,3,4\n", "t.csv:1:"},
        {"1,0,3\n", "t.csv:1:"},
        {"1,-2,3\n", "t.csv:1:"},
        {"1,2,99999999999\n", "t.csv:1:"},
        {"nan,2,3\n", "t.csv:1:"},
        {"2023-13-01 00:00:00,2,3\n", "t.csv:1:"},
        {"2023-11-16 18:17:03.97.99,2,3\n", "t.csv:1:"},
        {"1,2,3\nTIMESTAMP,ContextTokens,GeneratedTokens\n", "t.csv:2:"},
        {"", "holds no request"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_trace trace;
        struct ts_error err = {0};
        assert_int_equal(load_trace(cases[i].text, &trace, &err), TS_EINVAL);
        inputs_expect(&err, cases[i].words);
    }
}

static void test_one_instant_has_no_rate(void **state)
{
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    const char *path = inputs_write("traces", "t.csv", "5,2,3\n5,4,5\n");
    assert_int_equal(ts_inputs_demand(inputs_conf, path, 0, &d, &err), TS_EINVAL);
    inputs_expect(&err, "2 requests at one time");
}

static void shipped_trace(const char *name, struct ts_trace *trace)
{
    char path[256];
    struct ts_error err = {0};
    snprintf(path, sizeof path, "%s/traces/AzureLLMInferenceTrace_%s.csv", TS_TEST_DATA, name);
    if (ts_trace_load(path, trace, &err) != TS_OK)
        fail_msg("%s", err.text);
}

static void check_sums(const struct ts_trace *trace, const struct ts_demand *d)
{
    double span = trace->rows[trace->count - 1].at_s, want[5] = {(double)trace->count}, have[5] = {0};
    for (size_t i = 0; i < trace->count; i++) {
        double prompt = trace->rows[i].prompt_tokens, output = trace->rows[i].output_tokens;
        double add[] = {0, prompt, output, prompt * prompt, output * output};
        for (int j = 1; j < 5; j++)
            want[j] += add[j];
    }
    for (uint32_t k = 0; k < d->class_count; k++) {
        const struct ts_class *c = &d->classes[k];
        double add[] = {1, c->prompt_tokens, c->output_tokens, c->prompt_tokens_sq, c->output_tokens_sq};
        for (int j = 0; j < 5; j++)
            have[j] += c->rate * span * add[j];
    }
    for (int j = 0; j < 5; j++)
        assert_true(fabs(have[j] - want[j]) <= 1e-9 * want[j]);
}

/* Whatever it is cut into: requests, tokens and their squares are the trace's. */
static void test_sums(void **state)
{
    (void)state;
    for (size_t t = 0; t < TS_ARRAY_SIZE(traces); t++) {
        struct ts_trace trace;
        shipped_trace(traces[t], &trace);
        for (uint32_t bands = 1; bands <= 4; bands++) {
            struct ts_demand d;
            struct ts_error err = {0};
            assert_int_equal(ts_trace_demand(&trace, bands, 4 - (bands > 2 ? bands - 2 : 0), &d, &err),
                             TS_OK);
            assert_int_equal(ts_demand_check(&d, &err), TS_OK);
            check_sums(&trace, &d);
        }
        ts_trace_fini(&trace);
    }
}

static void test_cuts(void **state)
{
    struct ts_trace_row rows[64];
    struct ts_trace trace = {rows, TS_ARRAY_SIZE(rows)};
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    for (uint32_t i = 0; i < 64; i++)
        rows[i] = (struct ts_trace_row){i, 10 + i / 16 * 100, 1 + i % 16 / 8};
    assert_int_equal(ts_trace_demand(&trace, 4, 2, &d, &err), TS_OK);
    assert_int_equal(d.class_count, 8);
    for (uint32_t k = 0; k < 8; k++) {
        assert_float_equal(d.classes[k].rate, 8.0 / 63, 1e-12);
        assert_float_equal(d.classes[k].prompt_tokens, 10 + k / 2 * 100, 1e-12);
        assert_float_equal(d.classes[k].output_tokens, 1 + k % 2, 1e-12);
    }
    assert_float_equal(d.burst, 0, 1e-12); /* one each second */
    for (uint32_t i = 0; i < 64; i++)
        rows[i].prompt_tokens = rows[i].output_tokens = 7;
    assert_int_equal(ts_trace_demand(&trace, 4, 2, &d, &err), TS_OK);
    assert_int_equal(d.class_count, 1);
    assert_int_equal(ts_trace_demand(&trace, 5, 4, &d, &err), TS_EINVAL);
    inputs_expect(&err, "5 x 4 length classes");
}

/* Figures stated with the traces by those who counted them otherwise. */
static void test_known_figures(void **state)
{
    struct ts_demand d;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_inputs_demand(TS_CONF_DIR, "azure-code", 0, &d, &err), TS_OK);
    assert_float_equal(ts_demand_rate(&d), 2.57, 0.005);
    assert_float_equal(d.burst, 13.2, 0.05);
    assert_int_equal(ts_inputs_demand(TS_CONF_DIR, "azure-conv", 0, &d, &err), TS_OK);
    assert_float_equal(ts_demand_rate(&d), 5.53, 0.005);
    assert_float_equal(d.burst, 1.39, 0.01);
}

static char *without_comments(const char *path)
{
    char *text = ts_xcalloc(1, 1 << 16), line[1024];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (*line != '#')
            strncat(text, line, (1 << 16) - strlen(text) - 1);
    }
    fclose(file);
    return text;
}

/* conf/workloads/azure-*.conf are what the traces give, byte for byte, and read back as the same demand. */
static void test_shipped_files_are_the_traces(void **state)
{
    (void)state;
    for (size_t t = 0; t < TS_ARRAY_SIZE(traces); t++) {
        char path[256], name[32];
        struct ts_trace trace;
        struct ts_demand from_trace, from_file;
        struct ts_error err = {0};
        shipped_trace(traces[t], &trace);
        snprintf(name, sizeof name, "azure-%s", traces[t]);
        snprintf(path, sizeof path, "%s/workloads/%s.conf", TS_CONF_DIR, name);
        assert_int_equal(
            ts_trace_demand(&trace, TS_TRACE_PROMPT_BANDS, TS_TRACE_OUTPUT_BANDS, &from_trace, &err), TS_OK);
        snprintf(from_trace.name, sizeof from_trace.name, "%s", name);
        char *text = ts_inputs_demand_text(&from_trace), *file = without_comments(path);
        assert_string_equal(text, file);
        assert_int_equal(ts_inputs_demand(TS_CONF_DIR, name, 0, &from_file, &err), TS_OK);
        assert_int_equal(from_file.class_count, from_trace.class_count);
        for (uint32_t k = 0; k < from_file.class_count; k++) {
            const struct ts_class *a = &from_file.classes[k], *b = &from_trace.classes[k];
            assert_true(fabs(a->prompt_tokens_sq / b->prompt_tokens_sq - 1) < 1e-7);
            assert_true(fabs(a->output_tokens_sq / b->output_tokens_sq - 1) < 1e-7);
        }
        ts_free(text);
        ts_free(file);
        ts_trace_fini(&trace);
    }
}

static void test_shipped(void **state)
{
    char names[16][64];
    size_t count = inputs_shipped("workloads", names, 16);
    (void)state;
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        struct ts_demand d;
        struct ts_error err = {0};
        if (ts_inputs_demand(TS_CONF_DIR, names[i], 0, &d, &err) != TS_OK)
            fail_msg("%s", err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_refused_rates),
        cmocka_unit_test(test_forms_of_a_trace),
        cmocka_unit_test(test_leap_days),
        cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_one_instant_has_no_rate),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_known_figures),
        cmocka_unit_test(test_shipped_files_are_the_traces),
        cmocka_unit_test(test_shipped),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
