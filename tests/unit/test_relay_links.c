/* Probes, reports and tests of links, as tables. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay_fixture.h"

#define WELCOME        "kv:1000 welcome id=d0 probes=1"
#define PROBE(number)  "kv:1000 kv_probe reply=0 number=" number
#define ANSWER(number) "kv:1000 kv_probe reply=1 number=" number

static struct core_fixture *begin(void)
{
    struct relay_settings settings = relay_test_settings();
    settings.probe_every_ms = 10000;
    settings.link_report_ms = 2000;
    return relay_begin_with(&settings);
}

static uint64_t filler(const struct core_fixture *f)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < f->out.count; i++) {
        if (f->out.items[i].kind == TS_ACTION_SEND)
            bytes += f->out.items[i].send.filler_bytes;
    }
    return bytes;
}

static struct ts_link_item reported(const struct core_fixture *f)
{
    for (size_t i = 0; i < f->out.count; i++) {
        const struct ts_msg *m = &f->out.items[i].send.msg;
        if (f->out.items[i].kind == TS_ACTION_SEND && m->kind == TS_MSG_LINK_REPORT) {
            assert_int_equal(m->link_report.links.count, 1);
            return m->link_report.links.data[0];
        }
    }
    fail_msg("no report");
    return (struct ts_link_item){.bytes = 0};
}

#define REPORT    "relay:1 link_report"
#define CANCELLED "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "cancelled") "\n" FREED("1.1")

/* A link that comes up: three round trips, of which the least counts; nothing larger while a transfer uses
 * it. */
static void test_rounds(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BEGIN("1.1"), CONNECT},
        {2, WELCOME, OPEN("1.1") "\n" PROBE("1")},
        {3, ANSWER("2"), ""}, /* nothing of that number is under way */
        {3, PROBE("1"), ""},  /* no answer */
        {4, ANSWER("1"), PROBE("2")},
        {5, ANSWER("2"), PROBE("3")},
        {6, ANSWER("3"), ""},
        {1999, "tick", ""},
        {2000, "tick", REPORT " links=r0:d0:0:1000000:0:0:0:0:0"},
        {2007, "pool:1 release rid=1.1", CANCELLED},
        {10001, "tick", ""},
        {10002, "tick", PROBE("4")}, /* the next round, and nobody uses it */
        {10003, ANSWER("4"), PROBE("5")},
        {10004, ANSWER("5"), PROBE("6")},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "rounds", steps);
    assert_int_equal(filler(f), 0);
    core_step_one(f, 10005, ANSWER("6"), PROBE("7"));
    assert_int_equal(filler(f), 262144);
    /* 26 ms and a round trip of 1. The last report is long ago. */
    core_step_one(f, 10032, ANSWER("7"), REPORT);
    struct ts_link_item item = reported(f);
    assert_true(item.goodput_bytes_per_s == 262144 / 0.026 && !item.at_least);
    assert_true(item.samples == 1 && item.age_ms == 0 && item.rtt_ns == TS_MS && item.bytes == 0);
    /* Unchanged: 15 times as seldom; 1 % of 10 MB/s is more than 262,144 bytes in 10 s. */
    core_step_one(f, 20001, "tick", "");
    core_step_one(f, 20002, "tick", PROBE("8"));
    core_step_one(f, 40031, "tick", "");
    core_step_one(f, 40032, "tick", REPORT);
    assert_int_equal(reported(f).age_ms, 30000);
    /* A new session with the router: at once, since the last report is 2 s ago. */
    core_step_one(f, 50000, "relay:1 reset", "*");
    core_step_one(f, 50001, "as=500 relay:1 welcome", REPORT);
    relay_end(&f);
}

/* To a worker that does not take them, or by a relay that is told not to, no probe is sent. */
static void test_unasked(void **state)
{
    (void)state;
    static const struct core_step old[] = {{1, BEGIN("1.1"), CONNECT},
                                           {2, "kv:1000 welcome id=d0", OPEN("1.1")},
                                           {20000, "tick", ""},
                                           {20001, "pool:1 release rid=1.1", CANCELLED}};
    static const struct core_step never[] = {{1, BEGIN("1.1"), CONNECT},
                                             {2, WELCOME, OPEN("1.1")},
                                             {20000, "tick", ""},
                                             {20001, "pool:1 release rid=1.1", CANCELLED}};
    RELAY_CASE(begin(), "old worker", old);
    RELAY_CASE(relay_begin(), "never", never);
}

/* KV measures the link by its credits: 8 MiB in 58 ms and a round trip of 2, then as much in 74 and one. Of
 * few bytes that would be a lower bound. What was sent again and what was verified is counted. */
static void test_kv(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BEGIN("1.1"), CONNECT},
        {2, WELCOME, OPEN("1.1") "\n" PROBE("1")},
        {4, ANSWER("1"), PROBE("2")},
        {6, ANSWER("2"), PROBE("3")},
        {8, ANSWER("3"), ""},
        {9, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {10, "encoded job=1 #5/8388608 digests=1,2", ""},
        {11, "encoded job=2 #6/8388608 digests=1,2", ""},
        {12, SEAL("1.1"), FREED("1.1")},
        {2100, "kv:1000 kv_grant rid=1.1 credit_bytes=8388608", "kv:1000 kv_chunk number=0 #5\n" REPORT},
        {2101, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", "kv:1000 kv_chunk number=0 #5"},
        {2160, "kv:1000 kv_credit rid=1.1 bytes=8388608",
         "kv:1000 kv_chunk number=1 #6\nkv:1000 kv_end\nkv:1000 kv_commit"},
        {2236, "kv:1000 kv_credit rid=1.1 bytes=8388608", ""},
        {2237, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {4099, "tick", ""},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "kv", steps);
    core_step_one(f, 4100, "tick", REPORT);
    struct ts_link_item item = reported(f);
    double first = 8388608 / 0.058, second = 8388608 / 0.074;
    assert_true(fabs(item.goodput_bytes_per_s / (first + 2.0 / 3 * (second - first)) - 1) < 1e-9);
    assert_true(!item.at_least && item.bytes == 16777216 && item.transfers == 1 && item.repeats == 1);
    assert_true(item.samples == 2 && item.age_ms == 1864 && item.rtt_ns == 2 * TS_MS);
    core_step_one(f, 5000, "relay:1 release rid=1.1", "drop #5\ndrop #6");
    relay_end(&f);
}

#define LINK_TEST "relay:1 link_test id=7 from=r0 to=d0 endpoint=tcp://d0 bytes=600000"
#define SAYS      "relay:1 link_test_reply id=7 reason="

/* A test dials, takes three round trips, sends what was asked for in probes, and says what came of it. */
static void test_link_test(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, LINK_TEST, CONNECT},
        {2, "relay:1 link_test id=8 endpoint=tcp://d1", "relay:1 link_test_reply id=8 reason=busy"},
        {2, "relay:1 link_test id=8", "relay:1 link_test_reply id=8 reason=busy"},
        {3, WELCOME, PROBE("1")},
        {5, ANSWER("1"), PROBE("2")},
        {6, ANSWER("2"), PROBE("3")},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "test", steps);
    core_step_one(f, 8, ANSWER("3"), PROBE("4") "\n" PROBE("5") "\n" PROBE("6"));
    assert_int_equal(filler(f), 3 * 262144);
    core_step_one(f, 30, ANSWER("4"), "");
    core_step_one(f, 60, ANSWER("5"), "");
    /* 786,432 bytes in 101 ms, of which a round trip of 1. */
    core_step_one(f, 109, ANSWER("6"),
                  SAYS "none link.from=r0 link.to=d0 link.goodput_bytes_per_s=7864320 link.rtt_ns=1000000 "
                       "link.bytes=786432 link.samples=3 link.at_least=0");
    core_step_one(f, 2000, "tick", REPORT " links=r0:d0:7864320:1000000:0:0");
    core_step_one(f, 2001, "relay:1 link_test id=9", "relay:1 link_test_reply id=9 reason=bad_request");
    relay_end(&f);
}

/* What may come between: an old worker, none at all, a loss, and the time that it may take. */
static void test_link_test_fails(void **state)
{
    (void)state;
    static const struct core_step old[] = {
        {1, LINK_TEST, CONNECT},
        {2, "kv:1000 welcome id=d0", SAYS "unsupported"},
    };
    static const struct core_step nobody[] = {
        {1, LINK_TEST, CONNECT},
        {10000, "tick", "kv:1000 hello"},
        {10001, "tick", SAYS "kv_timeout"},
        {10002, LINK_TEST, ""},
    };
    static const struct core_step lost[] = {
        {1, LINK_TEST, CONNECT},
        {2, WELCOME, PROBE("1")},
        {3, "kv:1000 unreachable",
         SAYS "peer_lost"
              "\nkv:1000 hello"},
    };
    static const struct core_step silent[] = {
        {1, LINK_TEST, CONNECT},
        {2, WELCOME, PROBE("1")},
        {10001, "tick", SAYS "kv_timeout"},
        {10002, ANSWER("1"), PROBE("2")}, /* a round of its own begins; the answer was of the test */
    };
    static const struct core_step half[] = {
        {1, LINK_TEST, CONNECT},
        {2, WELCOME, PROBE("1")},
        {3, ANSWER("1"), PROBE("2")},
        {4, ANSWER("2"), PROBE("3")},
        {5, ANSWER("3"), PROBE("4") "\n" PROBE("5") "\n" PROBE("6")},
        {1006, ANSWER("4"), ""},
        {10001, "tick", SAYS "none link.bytes=262144 link.goodput_bytes_per_s=262144\n" REPORT},
    };
    static const struct core_step draining[] = {
        {1, "drain", "relay:1 drain\nstop"},
        {2, LINK_TEST, SAYS "draining\nstop"},
    };
    RELAY_CASE(begin(), "old", old);
    RELAY_CASE(begin(), "nobody", nobody);
    RELAY_CASE(begin(), "lost", lost);
    RELAY_CASE(begin(), "silent", silent);
    RELAY_CASE(begin(), "half", half);
    RELAY_CASE(begin(), "draining", draining);
}

/* A router wants to know of a link before KV needs it: it is probed, and closed when it was idle for too
 * long. */
static void test_watched(void **state)
{
    (void)state;
#define WATCH "relay:1 link_test id=0 endpoint=tcp://d0"
    static const struct core_step steps[] = {
        {1, WATCH, CONNECT},
        {2, WELCOME, PROBE("1")},
        {3, WATCH, ""},
        {4, ANSWER("1"), PROBE("2")},
        {5, ANSWER("2"), PROBE("3")},
        {6, ANSWER("3"), PROBE("4")},
        {33, ANSWER("4"), ""},
        {2000, "tick", REPORT},
        {4999, "tick", ""},
        {5003, "tick", "kv:1000 disconnect"},
        {5004, "relay:1 link_test id=0", ""},
        {5005, "drain", "relay:1 drain\nstop"},
        {5006, WATCH, "stop"},
    };
    struct relay_settings settings = relay_test_settings();
    settings.probe_every_ms = 10000;
    settings.link_report_ms = 2000;
    settings.idle_link_ms = 5000;
    RELAY_CASE(relay_begin_with(&settings), "watched", steps);
    settings.probe_every_ms = 0;
    struct core_fixture *f = relay_begin_with(&settings);
    core_step_one(f, 1, WATCH, "");
    relay_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds),
                                       cmocka_unit_test(test_unasked),
                                       cmocka_unit_test(test_kv),
                                       cmocka_unit_test(test_link_test),
                                       cmocka_unit_test(test_link_test_fails),
                                       cmocka_unit_test(test_watched)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
