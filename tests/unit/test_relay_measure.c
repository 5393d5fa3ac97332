/* Goodput and round trip from scripts of sends and credits whose link is known: the model is a pipe of a rate
 * and a delay, reckoned by hand beside each case. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "services/relay/relay_measure.h"

#define US         1000
#define MB         1000000
#define NEAR(a, b) assert_true(fabs((a) / (b)-1) < 1e-9)

/* A pipe: chunks one after the other at `rate`, credit for each `rtt` after its last byte has left. */
struct pipe {
    double rate;
    ts_time rtt, free_at;
    struct {
        ts_time at;
        uint64_t bytes;
    } credits[512];
    size_t head, count;
};

static void put(struct relay_measure *m, struct pipe *p, ts_time now, uint64_t bytes)
{
    p->free_at = (p->free_at > now ? p->free_at : now) + (ts_time)((double)bytes / p->rate * 1e9);
    assert_in_range(p->count, 0, TS_ARRAY_SIZE(p->credits) - 1);
    p->credits[p->count].at = p->free_at + p->rtt;
    p->credits[p->count++].bytes = bytes;
    relay_measure_sent(m, now, bytes);
}

static ts_time take_credit(struct relay_measure *m, struct pipe *p)
{
    ts_time at = p->credits[p->head].at;
    relay_measure_credited(m, at, p->credits[p->head++].bytes);
    return at;
}

static ts_time next_credit(const struct pipe *p)
{
    return p->head < p->count ? p->credits[p->head].at : TS_TIME_NEVER;
}

/* `count` chunks, one each `every`, credits as they come. */
static void paced(struct relay_measure *m, struct pipe *p, ts_time every, uint64_t bytes, int count)
{
    ts_time now = TS_S;
    for (int i = 0; i < count; i++, now += every) {
        while (next_credit(p) <= now)
            take_credit(m, p);
        put(m, p, now, bytes);
    }
    while (p->head < p->count)
        take_credit(m, p);
}

/* As many as the window holds, always. Returns when the last credit came. */
static ts_time full(struct relay_measure *m, struct pipe *p, ts_time now, uint64_t window, uint64_t bytes,
                    int count)
{
    for (int sent = 0; sent < count || p->head < p->count;) {
        while (sent < count && relay_measure_under_way(m) + bytes <= window) {
            put(m, p, now, bytes);
            sent++;
        }
        now = take_credit(m, p);
    }
    return now;
}

static void test_rtt(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    static const ts_time took[] = {900, 500, 700, 700, 700, 700, 700, 700, 700, 0};
    static const ts_time least[] = {900, 500, 500, 500, 500, 500, 500, 500, 500, 1};
    for (size_t i = 0; i < TS_ARRAY_SIZE(took); i++) {
        relay_measure_rtt(&m, took[i]);
        assert_int_equal(m.rtt, least[i]);
    }
    assert_int_equal(m.samples, 0);
    for (int i = 0; i < RELAY_MEASURE_RTTS; i++) /* what is older does not count any more */
        relay_measure_rtt(&m, 800);
    assert_int_equal(m.rtt, 800);
    relay_measure_fini(&m);
}

/* A window that is always full: spans begin and end with credits, so the rate is exact. 100 MB/s, 200 us: a
 * chunk of 1 MB takes 10 ms. */
static void test_full(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    struct pipe pipe = {.rate = 1e8, .rtt = 200 * US};
    relay_measure_rtt(&m, 200 * US);
    ts_time end = full(&m, &pipe, TS_S, 8 * MB, 1 * MB, 100);
    assert_int_equal(end, TS_S + TS_S + 200 * US);
    NEAR(m.bytes_per_s, 1e8);
    assert_true(!m.at_least && m.by_transfer);
    assert_int_equal(m.delivered, 100 * MB);
    assert_int_equal(relay_measure_under_way(&m), 0);
    relay_measure_fini(&m);
}

/* A sender that is slower than its link. With 20 ms between chunks that take 10, the link's rate shows all
 * the same: 1 MB in 10.2 ms, less one round trip. Where a chunk takes no longer than a round trip nothing but
 * a lower bound can be known, and it is never above the link. */
static void test_paced(void **state)
{
    (void)state;
    struct relay_measure slow = {.bytes_per_s = 0}, far = {.bytes_per_s = 0};
    struct pipe near = {.rate = 1e8, .rtt = 200 * US}, distant = {.rate = 1e8, .rtt = 20 * TS_MS};
    relay_measure_rtt(&slow, 200 * US);
    paced(&slow, &near, 160 * TS_MS, 8 * MB, 50);
    NEAR(slow.bytes_per_s, 1e8);
    assert_false(slow.at_least);
    relay_measure_rtt(&far, 20 * TS_MS);
    paced(&far, &distant, 15 * TS_MS, 1 * MB, 50); /* 67 MB/s of 100; two are under way at a time */
    assert_true(far.at_least);
    assert_true(far.bytes_per_s > 3e7 && far.bytes_per_s <= 1e8);
    relay_measure_fini(&slow);
    relay_measure_fini(&far);
}

/* One chunk of a paced sender on a fast link, reckoned: 10 kB each 10 ms at 100 MB/s take 0.1 ms and a round
 * trip of 0.2: 10 kB / 0.3 ms at least, not the pace of 1 MB/s and not a limit. */
static void test_small_chunks(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    struct pipe pipe = {.rate = 1e8, .rtt = 200 * US};
    relay_measure_rtt(&m, 200 * US);
    paced(&m, &pipe, 10 * TS_MS, 10000, 20);
    assert_true(m.at_least);
    NEAR(m.bytes_per_s, 10000 / 300e-6);
    relay_measure_fini(&m);
}

/* Without a round trip nothing is a limit. */
static void test_no_rtt(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    struct pipe pipe = {.rate = 1e8, .rtt = 200 * US};
    full(&m, &pipe, TS_S, 8 * MB, 1 * MB, 20);
    assert_true(m.at_least && m.bytes_per_s > 0.9e8 && m.bytes_per_s <= 1e8);
    relay_measure_fini(&m);
}

/* A link that becomes ten times slower shows within one transfer; one that recovers, too. */
static void test_changes(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    struct pipe fast = {.rate = 1e8, .rtt = 200 * US}, slow = {.rate = 1e7, .rtt = 200 * US}, again = fast;
    relay_measure_rtt(&m, 200 * US);
    ts_time now = full(&m, &fast, TS_S, 8 * MB, 1 * MB, 50);
    now = full(&m, &slow, now + TS_S, 8 * MB, 1 * MB, 50);
    assert_true(m.bytes_per_s > 0.99e7 && m.bytes_per_s < 1.2e7);
    full(&m, &again, now + TS_S, 8 * MB, 1 * MB, 50);
    assert_true(m.bytes_per_s > 0.85e8 && m.bytes_per_s < 1.01e8);
    relay_measure_fini(&m);
}

static void probe(struct relay_measure *m, ts_time took, double then)
{
    relay_measure_alone(m, TS_S, 262144, took, true);
    NEAR(m->bytes_per_s, then);
}

/* Probes: 262,144 bytes at 10 MB/s and 1 ms: 26.2 ms + 1. That is more than 1.5 x 5 + 1 round trips. The best
 * of three counts; at 5 MB/s one takes 52.4 ms. */
static void test_probes(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0}, far = {.bytes_per_s = 0};
    relay_measure_rtt(&m, TS_MS);
    relay_measure_alone(&m, TS_S, 262144, 53428800, true);
    assert_true(!m.at_least && !m.by_transfer && m.samples == 1 && m.sampled_at == TS_S);
    NEAR(m.bytes_per_s, 5e6);
    probe(&m, 27214400, 1e7);
    probe(&m, 53428800, 1e7);
    probe(&m, 53428800, 1e7);
    probe(&m, 53428800, 5e6);
    probe(&m, 27214400, 1e7);
    /* Once KV has shown the limit, a probe that is faster changes nothing: shapers let a little pass at once.
     */
    struct pipe pipe = {.rate = 8e6, .rtt = TS_MS};
    full(&m, &pipe, 10 * TS_S, 8 * MB, 2 * MB, 200);
    assert_true(fabs(m.bytes_per_s / 8e6 - 1) < 0.01 && m.by_transfer);
    double known = m.bytes_per_s;
    uint64_t samples = m.samples;
    probe(&m, 27214400, known);
    assert_true(m.samples == samples + 1);
    probe(&m, 53428800, known);
    probe(&m, 53428800, known);
    probe(&m, 53428800, 5e6); /* three slower ones do */
    /* 20 ms of round trip: a probe is over in slow start. At least that, and a better bound raises it. */
    relay_measure_rtt(&far, 20 * TS_MS);
    relay_measure_alone(&far, TS_S, 262144, 120 * TS_MS, true);
    assert_true(far.at_least);
    NEAR(far.bytes_per_s, 262144 / 0.12);
    relay_measure_alone(&far, TS_S, 262144, 110 * TS_MS, true);
    NEAR(far.bytes_per_s, 262144 / 0.11);
    relay_measure_alone(&far, TS_S, 262144, 120 * TS_MS, true);
    NEAR(far.bytes_per_s, 262144 / 0.11);
    relay_measure_alone(&far, TS_S, 64 * MB, 660 * TS_MS, false); /* 100 MB/s: the limit takes its place */
    assert_false(far.at_least);
    NEAR(far.bytes_per_s, 64e6 / 0.64);
    relay_measure_fini(&m);
    relay_measure_fini(&far);
}

/* A transfer that ends with bytes under way: no span goes over it, and what follows is right again. */
static void test_dropped(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    struct pipe pipe = {.rate = 1e8, .rtt = 200 * US};
    relay_measure_rtt(&m, 200 * US);
    relay_measure_sent(&m, TS_S, 4 * MB);
    relay_measure_sent(&m, TS_S, 4 * MB);
    relay_measure_credited(&m, TS_S + 20 * TS_MS, 2 * MB);
    relay_measure_dropped(&m, 6 * MB);
    assert_int_equal(relay_measure_under_way(&m), 0);
    assert_int_equal(m.delivered, 2 * MB);
    relay_measure_credited(&m, TS_S + TS_MS, 9 * MB); /* nothing is under way */
    assert_int_equal(m.delivered, 2 * MB);
    assert_true(m.samples == 0);
    full(&m, &pipe, 5 * TS_S, 8 * MB, 1 * MB, 50);
    NEAR(m.bytes_per_s, 1e8);
    relay_measure_dropped(&m, 1);
    assert_int_equal(relay_measure_under_way(&m), 0);
    relay_measure_fini(&m);
}

/* A loop that stands still finds credits of a whole window at once, beside a chunk that it sends just before.
 */
static void test_stalled_loop(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    relay_measure_rtt(&m, 100 * US);
    for (int i = 0; i < 8; i++)
        relay_measure_sent(&m, TS_S, 1 * MB);
    ts_time now = TS_S + 100 * TS_MS; /* at 100 MB/s all is there for long */
    relay_measure_sent(&m, now, 1 * MB);
    for (int i = 0; i < 8; i++)
        relay_measure_credited(&m, now + US, 1 * MB);
    relay_measure_credited(&m, now + 10 * TS_MS, 1 * MB);
    assert_true(m.bytes_per_s <= 1e8);
    relay_measure_fini(&m);
}

/* Many chunks under way: those beyond the bound are not looked at, and nothing else changes. */
static void test_bounds(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    relay_measure_rtt(&m, 100 * US);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 2 * RELAY_MEASURE_SENDS_MAX; i++)
            relay_measure_sent(&m, round * TS_S, 2000);
        assert_int_equal(m.count, RELAY_MEASURE_SENDS_MAX);
        for (int i = 0; i < 2 * RELAY_MEASURE_SENDS_MAX; i++)
            relay_measure_credited(&m, round * TS_S + 100 * US + (i + 1) * 20 * US, 2000);
        assert_int_equal(relay_measure_under_way(&m), 0);
    }
    assert_true(m.bytes_per_s > 0.9e8 && m.bytes_per_s < 1.1e8);
    assert_true(m.capacity <= 4 * RELAY_MEASURE_SENDS_MAX);
    relay_measure_fini(&m);
}

/* At most 1 % of what the link carries. */
static void test_pause(void **state)
{
    (void)state;
    struct relay_measure m = {.bytes_per_s = 0};
    assert_int_equal(relay_measure_pause(&m, 10 * TS_S, 262144), 10 * TS_S);
    m.bytes_per_s = 1e8;
    assert_int_equal(relay_measure_pause(&m, 10 * TS_S, 262144), 10 * TS_S);
    m.bytes_per_s = 262144;
    assert_int_equal(relay_measure_pause(&m, 10 * TS_S, 262144), 100 * TS_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rtt),          cmocka_unit_test(test_full),
                                       cmocka_unit_test(test_paced),        cmocka_unit_test(test_no_rtt),
                                       cmocka_unit_test(test_small_chunks), cmocka_unit_test(test_changes),
                                       cmocka_unit_test(test_probes),       cmocka_unit_test(test_dropped),
                                       cmocka_unit_test(test_stalled_loop), cmocka_unit_test(test_bounds),
                                       cmocka_unit_test(test_pause)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
