/* Links as relays report them: who may say what, what is forgotten, what planners and operators hear, and
 * when a link is far below what the cluster file says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router_fixture.h"
#include "services/router/router_links.h"

/* goodput, rtt, bytes, at least, transfers, repeats, samples */
#define LINK(relay, decode, goodput, at_least, samples)                                                      \
    relay ":" decode ":" goodput ":250000:77:" at_least ":3:1:" samples
#define REPORT(goodput, at_least, samples)                                                                   \
    "relay:1 link_report links=" LINK("r0", "d0", goodput, at_least, samples)

static struct ts_cluster *cluster; /* h1 and h2, 1 Gbit/s between them */

static int make_cluster(void **state)
{
    struct ts_error err;
    (void)state;
    cluster = ts_cluster_new(1, 2, 2);
    cluster->types[0] = (struct ts_device_type){.name = "card",
                                                .memory_bytes = 1e9,
                                                .memory_bytes_per_s = 1e9,
                                                .flops = 1e12,
                                                .fit = {.flops_efficiency = 1,
                                                        .memory_efficiency = 1,
                                                        .context_efficiency = 1,
                                                        .attention_efficiency = 1},
                                                .peer = {"peer", 1e9, 0}};
    for (uint32_t i = 0; i < 2; i++) {
        cluster->nodes[i] = (struct ts_node){.nic_out_bytes_per_s = 2e8, .nic_in_bytes_per_s = 2e8};
        snprintf(cluster->nodes[i].name, sizeof cluster->nodes[i].name, "h%u", i + 1);
        cluster->gpus[i] = (struct ts_gpu){.node = (uint16_t)i, .alive = true};
        cluster->links[i * 2 + (1 - i)] = (struct ts_link){"1gbit", 1.25e8, 1e-4};
    }
    if (ts_cluster_seal(cluster, &err) != TS_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int free_cluster(void **state)
{
    (void)state;
    ts_cluster_destroy(&cluster);
    return 0;
}

static struct core_fixture *begin(void)
{
    static const struct core_step join[] = {
        {0, HELLO_R0 " host=h1", "relay:1 welcome"},     {0, HELLO_P0 " host=h1", "worker:1 welcome"},
        {0, "worker:1 resync", "worker:1 resync_reply"}, {0, HELLO_D0 " host=h2", "worker:2 welcome"},
        {0, "worker:2 resync", "worker:2 resync_reply"}, {0, HELLO_D1 " host=h1", "worker:3 welcome"},
        {0, "worker:3 resync", "worker:3 resync_reply"},
    };
    struct router_settings settings = router_test_settings();
    settings.cluster = cluster;
    settings.workload_update_ms = 5000;
    struct core_fixture *f = router_begin(&settings);
    CORE_RUN(f, "join", join);
    return f;
}

static struct router_link_info found(const struct core_fixture *f, const char *relay, const char *decode)
{
    struct router_link_info info;
    assert_true(router_links_find(router_of(f), relay, decode, &info));
    return info;
}

/* Before anything is measured the cluster file speaks, and only of two hosts that it knows. */
static void test_find(void **state)
{
    (void)state;
    struct core_fixture *f = begin();
    struct router_link_info info = found(f, "r0", "d0");
    assert_true(info.bytes_per_s == 0 && info.expected_bytes_per_s == 1.25e8 && info.rtt == 0);
    assert_false(router_links_find(router_of(f), "r0", "d1", &info)); /* on the host of the relay */
    assert_false(router_links_find(router_of(f), "r0", "p9", &info));
    assert_false(router_links_find(router_of(f), "p0", "d0", &info));
    core_step_one(f, 10, REPORT("110000000", "0", "4"), "");
    core_step_one(f, 2010, "tick", "");
    info = found(f, "r0", "d0");
    assert_true(info.bytes_per_s == 1.1e8 && !info.at_least && info.expected_bytes_per_s == 1.25e8);
    assert_true(info.rtt == 250000 && info.age == 2 * TS_S && !info.slow);
    core_step_one(f, 2020, "relay:1 link_report links=" LINK("r0", "d1", "9000000000", "1", "1") ":0:1500",
                  "");
    info = found(f, "r0", "d1");
    assert_true(info.at_least && info.expected_bytes_per_s == 0 && info.age == 1500 * TS_MS);
    router_end(&f);
}

/* A relay speaks for itself, of workers that are there, in numbers that can be. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {LINK("r1", "d0", "1000000", "0", "1"),
                                      LINK("", "d0", "1000000", "0", "1"),
                                      LINK("r0", "r0", "1000000", "0", "1"),
                                      LINK("r0", "", "1000000", "0", "1"),
                                      LINK("r0", "d0", "-1", "0", "1"),
                                      LINK("r0", "d0", "2e14", "0", "1"),
                                      "r0:d0:1000000:0:7",
                                      "r0:d0:1000000:-1:7:0:0:0:1",
                                      "r0:d0:1000000:60000000001:7:0:0:0:1"};
    char line[300];
    struct router_link_info info;
    struct core_fixture *f = begin();
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        snprintf(line, sizeof line, "relay:1 link_report links=%s", bad[i]);
        core_step_one(f, 1, line, "");
    }
    assert_true(found(f, "r0", "d0").bytes_per_s == 0);
    core_step_one(f, 2, "admin:8 links id=5", "admin:8 links_reply id=5 links=");
    core_step_one(f, 3, "relay:1 link_report links=", "");
    core_step_one(f, 4,
                  "relay:1 link_report links=" LINK("r0", "d1", "1", "0", "1") ":0:18446744073709551615", "");
    assert_true(router_links_find(router_of(f), "r0", "d1", &info) && info.age == 4 * TS_MS);
    router_end(&f);
}

/* With its relay or its worker a link is forgotten, also when they come back as somebody else. */
static void test_forgotten(void **state)
{
    (void)state;
    struct router_link_info info;
    struct core_fixture *f = begin();
    core_step_one(f, 1,
                  "relay:1 link_report links=" LINK("r0", "d0", "5000000", "0",
                                                    "1") "," LINK("r0", "d1", "6000000", "0", "1"),
                  "");
    core_step_one(f, 2, "admin:8 links id=5",
                  "admin:8 links_reply id=5 links=r0:d0:5000000:250000:77:0:3:1:1:125000000:1:0,"
                  "r0:d1:6000000:250000:77:0:3:1:1:0:1:0");
    core_step_one(f, 3, "as=88 " HELLO_D1 " host=h1", "worker:3 welcome");
    assert_false(router_links_find(router_of(f), "r0", "d1", &info));
    assert_true(found(f, "r0", "d0").bytes_per_s == 5e6);
    core_step_one(f, 4, "as=89 " HELLO_R0 " host=h1", "relay:1 welcome");
    assert_true(found(f, "r0", "d0").bytes_per_s == 0);
    core_step_one(f, 5, "admin:8 links", "admin:8 links_reply links=");
    router_end(&f);
}

/* Planners hear of limits, not of lower bounds, within workload_update_ms and in the same version. */
static void test_planners(void **state)
{
    (void)state;
    struct core_fixture *f = begin();
    core_step_one(f, 0, "planner:1 hello role=planner id=pa",
                  "planner:1 welcome\nplanner:1 snapshot version=9 links=");
    core_step_one(f, 10,
                  "relay:1 link_report links=" LINK("r0", "d0", "5000000", "0",
                                                    "1") "," LINK("r0", "d1", "6000000", "1", "1"),
                  "");
    core_step_one(f, 5009, "tick", "");
    core_step_one(f, 5010, "tick", "planner:1 update version=9 links=r0:d0:5000000:250000");
    core_step_one(f, 20000, "tick", ""); /* nothing new */
    core_step_one(f, 20010, REPORT("7000000", "0", "2"), "");
    core_step_one(f, 25010, "tick", "planner:1 update version=9 links=r0:d0:7000000:250000");
    router_end(&f);
}

static int warnings(const struct core_fixture *f, const char *event)
{
    int count = 0;
    for (size_t i = 0; i < f->out.count; i++) {
        const struct ts_action *a = &f->out.items[i];
        char line[200];
        if (a->kind != TS_ACTION_LOG)
            continue;
        snprintf(line, sizeof line, "%.*s", (int)a->log.text.count, a->log.text.data);
        assert_true(!strstr(line, "event=link") || strstr(line, " from=r0 to=d0 measured="));
        count += strstr(line, event) != NULL;
    }
    return count;
}

/* One line when three reports with new measurements were below half of what the file says, one when it is
 * over. */
static void test_slow(void **state)
{
    (void)state;
    static const struct {
        const char *report;
        int slow, recovered;
    } steps[] = {
        {REPORT("60000000", "0", "1"), 0, 0}, /* below half of 125 MB/s */
        {REPORT("60000000", "0", "2"), 0, 0},
        {REPORT("60000000", "0", "2"), 0, 0}, /* nothing new was measured */
        {REPORT("1000000", "1", "3"), 0, 0},  /* a lower bound says nothing */
        {REPORT("63000000", "0", "4"), 0, 0}, /* above: from the start */
        {REPORT("12000000", "0", "5"), 0, 0},
        {REPORT("12000000", "0", "6"), 0, 0},
        {REPORT("12000000", "0", "7"), 1, 0},
        {REPORT("12000000", "0", "8"), 0, 0}, /* once */
        {REPORT("12000000", "0", "9"), 0, 0},
        {REPORT("99000000", "1", "10"), 0, 1},
        {REPORT("12000000", "0", "11"), 0, 0},
        {REPORT("12000000", "0", "12"), 0, 0},
        {REPORT("12000000", "0", "13"), 1, 0},
    };
    struct core_fixture *f = begin();
    for (size_t i = 0; i < TS_ARRAY_SIZE(steps); i++) {
        core_step_one(f, (int64_t)i + 1, steps[i].report, "");
        if (warnings(f, "event=link_slow") != steps[i].slow ||
            warnings(f, "event=link_recovered") != steps[i].recovered)
            fail_msg("report %zu", i);
    }
    assert_true(found(f, "r0", "d0").slow);
    core_step_one(f, 100, "admin:8 links",
                  "admin:8 links_reply links=r0:d0:12000000:250000:77:0:3:1:13:125000000:86:1");
    router_end(&f);
}

/* Names are looked up, the relay measures, who asked hears of it; each question has one answer. */
static void test_link_test(void **state)
{
    (void)state;
#define TEST(from, to) "admin:8 link_test id=5 from=" from " to=" to " bytes=9"
#define SAYS(reason)   "admin:8 link_test_reply id=5 reason=" reason
    static const struct core_step steps[] = {
        {1, TEST("r9", "d0"), SAYS("not_found")},
        {1, TEST("r0", "d9"), SAYS("not_found")},
        {1, TEST("r0", ""), SAYS("not_found")},
        {1, TEST("d0", "d0"), SAYS("unsupported")}, /* has no relay */
        {1, TEST("r0", "d0"), SAYS("unsupported")}, /* it does not say that it tests links */
        {2, HELLO_R0 " host=h1 link_tests=1", "relay:1 welcome\n*"},
        {3, TEST("r0", "d0"), "relay:1 link_test id=1 from=r0 to=d0 endpoint=tcp://d0 bytes=9"},
        {4, "relay:1 link_test_reply id=2", ""},
        {4, "relay:1 link_test_reply id=1 link.goodput_bytes_per_s=1000000 link.rtt_ns=7 link.to=x",
         SAYS("none") " link.from=r0 link.to=d0 link.goodput_bytes_per_s=1000000 link.rtt_ns=7 "
                      "link.expected_bytes_per_s=125000000"},
        {4, "relay:1 link_test_reply id=1", ""},
        {5, TEST("p0", "d1"),
         "relay:1 link_test id=2 to=d1 endpoint=tcp://d1"}, /* the relay of that worker */
        {6, "relay:1 link_test_reply id=2 reason=busy text=later", SAYS("busy") " text=later"},
        {7, TEST("r0", "d0"), "relay:1 link_test id=3"},
        {15006, "tick", ""},
        {15007, "tick", SAYS("kv_timeout")},
        {15008, "relay:1 link_test_reply id=3", ""},
        {15009, TEST("r0", "d0"), "relay:1 link_test id=4"},
        {15010, "relay:1 unreachable", ""},
        {15011, TEST("p0", "d0"), SAYS("peer_lost")},
        {15012, "as=99 " HELLO_R0, SAYS("peer_lost") "\nrelay:1 welcome"}, /* of the one before */
    };
    ROUTER_CASE(begin(), "link test", steps);
}

static void test_link_tests_bounded(void **state)
{
    (void)state;
    struct core_fixture *f = begin();
    core_step_one(f, 1, HELLO_R0 " host=h1 link_tests=1", "relay:1 welcome\n*");
    for (int i = 0; i < 64; i++)
        core_step_one(f, 2, TEST("r0", "d0"), "relay:1 link_test");
    core_step_one(f, 3, TEST("r0", "d0"), SAYS("busy"));
    core_step_one(f, 4, "relay:1 link_test_reply id=1 reason=busy", SAYS("busy"));
    core_step_one(f, 5, TEST("r0", "d0"), "relay:1 link_test id=65");
    router_end(&f);
}

/* Relays that take tests are asked to look at the ways that nobody has measured, as either end joins. */
static void test_watch(void **state)
{
    (void)state;
#define WATCH(id) "relay:1 link_test id=0 bytes=0 from=r0 to=" id " endpoint=tcp://" id
    static const struct core_step steps[] = {
        {0, HELLO_R0 " link_tests=1", "relay:1 welcome"},
        {0, HELLO_P0, "worker:1 welcome"},
        {0, "worker:1 resync", "worker:1 resync_reply"}, /* does not decode */
        {0, HELLO_D0, "worker:2 welcome"},
        {0, "worker:2 resync", "worker:2 resync_reply\n" WATCH("d0")},
        {1, REPORT("5000000", "0", "1"), ""},
        {2, "worker:3 " WORKER("d1", "both", "profile.kv_endpoint="), "worker:3 welcome"},
        {2, "worker:3 resync", "worker:3 resync_reply"}, /* takes no KV */
        {3, "worker:4 " WORKER("b0", "both", ""), "worker:4 welcome"},
        {3, "worker:4 resync", "worker:4 resync_reply\n" WATCH("b0")},
        {4, HELLO_R0 " link_tests=1", "relay:1 welcome\n" WATCH("b0")}, /* the other is known */
        {5, "as=99 " HELLO_R0 " link_tests=1", "relay:1 welcome\n" WATCH("d0") "\n" WATCH("b0")},
        {6, "relay:1 drain", ""},
        {7, "as=98 " HELLO_D0, "worker:2 welcome"},
        {7, "worker:2 resync", "worker:2 resync_reply"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin(&settings), "watch", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_forgotten), cmocka_unit_test(test_planners),
        cmocka_unit_test(test_slow),      cmocka_unit_test(test_link_test),
        cmocka_unit_test(test_watch),     cmocka_unit_test(test_link_tests_bounded)};
    return cmocka_run_group_tests(tests, make_cluster, free_cluster);
}
