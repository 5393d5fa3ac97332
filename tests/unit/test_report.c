/* The report on requests, by hand; records through a file and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_report.h"

/* Request i is sent at second i, takes i + 1 seconds to token 0 and half a second for each of 4 more tokens;
 * alone on the reference it takes 1 s, 0.25 s and 2 s. */
static struct tsctl_record *add(struct tsctl_records *records, unsigned i)
{
    struct tsctl_record *r = tsctl_records_add(records);
    float ttft = (float)(i + 1);
    *r = (struct tsctl_record){.number = i,
                               .at_s = i,
                               .prompt_tokens = 100,
                               .output_tokens = 5,
                               .attempts = 1,
                               .finish = TS_FINISH_LENGTH,
                               .ttft_s = ttft,
                               .tpot_s = 0.5F,
                               .gap01_s = 0.5F,
                               .max_gap_s = 0.5F,
                               .e2e_s = ttft + 2,
                               .want_ttft_s = 1,
                               .want_tpot_s = 0.25F,
                               .want_e2e_s = 2,
                               .assigned_s = 0.25F * ttft,
                               .prefill_begin_s = 0.5F * ttft,
                               .prefill_end_s = ttft,
                               .first_token_s = ttft,
                               .kv_open_s = ttft - 0.125F,
                               .kv_commit_s = ttft + 0.25F,
                               .decode_begin_s = ttft + 0.5F,
                               .end_s = ttft + 1.75F,
                               .kv_bytes_raw = 1000,
                               .kv_bytes_sent = 300};
    r->prefill = tsctl_records_name(records, "g0", 2);
    r->decode = tsctl_records_name(records, "g1", 2);
    return r;
}

static void refuse(struct tsctl_record *r)
{
    r->finish = TS_FINISH_ERROR;
    r->reason = TS_REASON_QUEUE_FULL;
    r->attempts = 0;
    r->output_tokens = 0;
    r->ttft_s = r->tpot_s = r->gap01_s = r->max_gap_s = r->e2e_s = -1;
}

static struct tsctl_report_options options_of(const char *scales)
{
    struct tsctl_report_options o = tsctl_report_defaults();
    struct ts_error err = {0};
    if (tsctl_report_scales(scales, &o, &err) != TS_OK)
        fail_msg("%s", err.text);
    o.slo_scale = 4;
    return o;
}

static void test_wilson(void **state)
{
    (void)state;
    struct tsctl_share s = tsctl_share_of(8, 10);
    assert_float_equal(s.share, 0.8, 1e-12);
    assert_float_equal(s.low, 0.490162, 1e-6);
    assert_float_equal(s.high, 0.943318, 1e-6);
    s = tsctl_share_of(0, 20);
    assert_true(s.low == 0);
    assert_float_equal(s.high, 0.161125, 1e-6);
    s = tsctl_share_of(20, 20);
    assert_true(s.high == 1);
    assert_float_equal(s.low, 0.838875, 1e-6);
    s = tsctl_share_of(0, 0);
    assert_true(s.share == 0 && s.low == 0 && s.high == 0);
}

static void test_by_hand(void **state)
{
    struct tsctl_records records;
    struct tsctl_report r;
    struct tsctl_report_options o = options_of("1,2,4,6,12");
    (void)state;
    o.gpus = 4;
    o.price_per_hour = 7.2;
    tsctl_records_init(&records);
    for (unsigned i = 0; i < 10; i++)
        add(&records, i);
    refuse(&records.items[9]);
    tsctl_report_make(&records, &o, &r);
    assert_int_equal(r.requests, 10);
    assert_int_equal(r.completed, 9);
    assert_int_equal(r.refused, 1);
    assert_int_equal(r.reasons[TS_REASON_QUEUE_FULL], 1);
    /* TTFT i + 1 <= scale; TPOT 0.5 <= 0.25 scale; E2E i + 3 <= 2 scale. */
    static const unsigned hits[][TSCTL_SLO_COUNT] = {
        {1, 0, 0, 0}, {2, 9, 2, 2}, {4, 9, 6, 4}, {6, 9, 9, 6}, {9, 9, 9, 9}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(hits); i++)
        for (int k = 0; k < TSCTL_SLO_COUNT; k++) {
            assert_int_equal(r.attained[i][k].hits, hits[i][k]);
            assert_int_equal(r.attained[i][k].of, 10);
        }
    assert_int_equal(r.at_slo[TSCTL_ALL].hits, 4);
    const struct tsctl_latency *l = &r.latency[TSCTL_LATENCY_TTFT];
    assert_int_equal(l->count, 9);
    assert_float_equal(l->mean, 5, 1e-6);
    assert_true(l->p50 == 5 && l->p90 == 9 && l->p99 == 9 && l->max == 9);
    assert_float_equal(r.latency[TSCTL_LATENCY_E2E].mean, 7, 1e-6);
    /* The last one ends at 8 + 11 = 19 s. */
    assert_float_equal(r.to_s, 19, 1e-9);
    assert_float_equal(r.offered_per_s, 10.0 / 9, 1e-9);
    assert_float_equal(r.requests_per_s, 9.0 / 19, 1e-9);
    assert_float_equal(r.output_tokens_per_s, 45.0 / 19, 1e-9);
    assert_float_equal(r.goodput_per_s, 4.0 / 19, 1e-9);
    assert_float_equal(r.per_gpu, 1.0 / 19, 1e-9);
    assert_float_equal(r.per_dollar, 4.0 / 19 * 500, 1e-6);
    static const double parts[TSCTL_PART_COUNT] = {1.25, 1.25, 2.5, 0.25, 0.25, 1.25, 0.25};
    for (int i = 0; i < TSCTL_PART_COUNT; i++)
        assert_float_equal(r.parts_s[i], parts[i], 1e-6);
    assert_float_equal(r.hidden_s, 0.125, 1e-6);
    assert_non_null(strstr(r.bottleneck, "queue at the router: 1.25 s of 7 s"));
    tsctl_report_fini(&r);
    tsctl_records_fini(&records);
}

/* A transfer that waits for memory after prefill: that is a queue, and not the link's time. */
static void test_wait_for_memory(void **state)
{
    struct tsctl_records records;
    struct tsctl_report r;
    struct tsctl_report_options o = options_of("1");
    (void)state;
    tsctl_records_init(&records);
    struct tsctl_record *record = add(&records, 0); /* prefill ends at 1 s, decode begins at 1.5 s */
    record->kv_open_s = 1.125F;
    record->kv_commit_s = 1.25F;
    tsctl_report_make(&records, &o, &r);
    assert_float_equal(r.parts_s[TSCTL_PART_TRANSFER], 0.125, 1e-6);
    assert_float_equal(r.parts_s[TSCTL_PART_DECODE_QUEUE], 0.125 + 0.25, 1e-6);
    assert_float_equal(r.hidden_s, 0, 1e-9);
    tsctl_report_fini(&r);
    tsctl_records_fini(&records);
}

static void test_other_ends(void **state)
{
    struct tsctl_records records;
    struct tsctl_report r;
    struct tsctl_report_options o = options_of("1000");
    (void)state;
    tsctl_records_init(&records);
    for (unsigned i = 0; i < 6; i++)
        add(&records, i);
    records.items[0].finish = TS_FINISH_ERROR; /* after an attempt, and token 0 was in time */
    records.items[0].reason = TS_REASON_RETRIES;
    records.items[1].finish = TS_FINISH_DEADLINE;
    records.items[1].reason = TS_REASON_DEADLINE;
    records.items[2].finish = TS_FINISH_CANCELLED;
    records.items[3].finish = TS_FINISH_NONE;
    records.items[4].output_tokens = 1; /* no time between tokens: in time */
    records.items[4].tpot_s = records.items[4].gap01_s = records.items[4].max_gap_s = -1;
    records.items[5].want_ttft_s = 0; /* no deadline: in time */
    records.items[5].ttft_s = 1e6F;
    tsctl_report_make(&records, &o, &r);
    assert_int_equal(r.failed, 2);
    assert_int_equal(r.cancelled, 1);
    assert_int_equal(r.unfinished, 1);
    assert_int_equal(r.completed, 2);
    for (int k = 0; k < TSCTL_SLO_COUNT; k++)
        assert_int_equal(r.attained[0][k].hits, 2);
    assert_int_equal(r.latency[TSCTL_LATENCY_TPOT].count, 1);
    tsctl_report_fini(&r);
    tsctl_records_fini(&records);
}

static void test_warmup(void **state)
{
    struct tsctl_records records;
    struct tsctl_report r;
    struct tsctl_report_options o = options_of("4");
    (void)state;
    tsctl_records_init(&records);
    for (unsigned i = 0; i < 11; i++) /* sent from 0 to 10 s */
        add(&records, i);
    o.warmup = 0.2;
    tsctl_report_make(&records, &o, &r);
    assert_int_equal(r.requests, 7); /* 2 to 8 s */
    assert_float_equal(r.from_s, 2, 1e-9);
    assert_float_equal(r.to_s, 8, 1e-9);
    assert_float_equal(r.requests_per_s, 7.0 / 6, 1e-9);
    assert_int_equal(r.attained[0][TSCTL_TTFT].hits, 2); /* TTFT of 3 and 4 s */
    tsctl_report_fini(&r);
    tsctl_records_fini(&records);
}

static void test_nothing(void **state)
{
    struct tsctl_records records;
    struct tsctl_report r;
    struct tsctl_report_options o = options_of("1");
    (void)state;
    tsctl_records_init(&records);
    tsctl_report_make(&records, &o, &r);
    assert_int_equal(r.requests, 0);
    assert_true(r.requests_per_s == 0 && r.attained[0][TSCTL_ALL].share == 0);
    assert_string_equal(r.bottleneck, "no request completed");
    tsctl_report_fini(&r);
    tsctl_records_fini(&records);
}

static void test_scales(void **state)
{
    static const char *const bad[] = {"", "1,", "0,1", "2,1", "1,1", "a", "1;2", "nan"};
    struct tsctl_report_options o;
    struct ts_error err = {0};
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++)
        assert_int_equal(tsctl_report_scales(bad[i], &o, &err), TS_EINVAL);
    assert_int_equal(tsctl_report_scales("0.5,2", &o, &err), TS_OK);
    assert_int_equal(o.scale_count, 2);
}

/* --- Files --- */

static const char *write_text(const char *text)
{
    static char path[] = "/tmp/ts_report_XXXXXX";
    memcpy(path, "/tmp/ts_report_XXXXXX", sizeof path);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static void test_file(void **state)
{
    struct tsctl_records records, again;
    struct ts_error err = {0};
    (void)state;
    tsctl_records_init(&records);
    tsctl_records_init(&again);
    for (unsigned i = 0; i < 3; i++)
        add(&records, i)->relay = tsctl_records_name(&records, "relay-a", 7);
    refuse(&records.items[1]);
    const char *path = write_text("");
    assert_int_equal(tsctl_records_save(&records, path, &err), TS_OK);
    if (tsctl_records_load(&again, path, &err) != TS_OK)
        fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(again.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        const struct tsctl_record *a = &records.items[i], *b = &again.items[i];
        assert_int_equal(a->number, b->number);
        assert_true(a->at_s == b->at_s && a->finish == b->finish && a->reason == b->reason);
        assert_float_equal(a->ttft_s < 0 ? 0 : a->ttft_s, b->ttft_s < 0 ? 0 : b->ttft_s, 1e-6);
        assert_true((a->e2e_s < 0) == (b->e2e_s < 0));
        assert_float_equal(a->end_s, b->end_s, 1e-6);
        assert_int_equal(a->kv_bytes_sent, b->kv_bytes_sent);
        assert_string_equal(records.names[a->relay], again.names[b->relay]);
        assert_string_equal(again.names[b->codec], "");
    }
    tsctl_records_fini(&records);
    tsctl_records_fini(&again);
}

static void test_bad_files(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "holds no records"},
        {"request,when\n", ":1: \"when\" is no column"},
        {"request,finish\n1\n", ":2: expected 2 cells"},
        {"request,finish\n1,length\n2,lenght\n", ":3: finish = \"lenght\""},
        {"request,ttft_ms\n1,-5\n", ":2: ttft_ms = \"-5\""},
        {"request,ttft_ms\n1,nan\n", ":2: ttft_ms = \"nan\""},
        {"request,prompt_tokens\n1,99999999999\n", ":2: prompt_tokens"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct tsctl_records records;
        struct ts_error err = {0};
        const char *path = write_text(cases[i].text);
        tsctl_records_init(&records);
        assert_int_equal(tsctl_records_load(&records, path, &err), TS_EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("\"%s\" is not in: %s", cases[i].words, err.text);
        unlink(path);
        tsctl_records_fini(&records);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),          cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_wait_for_memory), cmocka_unit_test(test_other_ends),
        cmocka_unit_test(test_warmup),          cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_scales),          cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
