/* Shared bandwidth against rates worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "common/base/ts_rng.h"
#include "services/cloud/cloud.h"

#define NODES 4
#define NEAR  2e-9 /* s: times are whole nanoseconds */

struct scene {
    struct ts_cluster *cluster;
    struct cloud *cloud;
    double ends[64]; /* s, of the flows in the order in which they began */
    struct end {
        struct scene *scene;
        uint32_t flow;
    } tokens[64];
    uint32_t count, over;
};

/* Links of 100 bytes/s, cards of 1,000. */
static void build(struct scene *s, uint32_t nodes)
{
    *s = (struct scene){.cluster = ts_cluster_new(1, nodes, nodes)};
    snprintf(s->cluster->name, sizeof s->cluster->name, "flows");
    for (uint32_t i = 0; i < nodes; i++) {
        s->cluster->nodes[i] = (struct ts_node){
            .inner = {.bytes_per_s = 10000}, .nic_out_bytes_per_s = 1000, .nic_in_bytes_per_s = 1000};
        for (uint32_t j = 0; j < nodes; j++)
            s->cluster->links[i * nodes + j] = (struct ts_link){.bytes_per_s = 100, .latency_s = 1e-3};
    }
}

static void start(struct scene *s)
{
    struct cloud_settings settings = cloud_settings_defaults();
    struct ts_error err = {0};
    settings.cluster = s->cluster;
    assert_int_equal(cloud_new(&settings, &s->cloud, &err), TS_OK);
}

static void fini(struct scene *s)
{
    cloud_destroy(&s->cloud);
    ts_cluster_destroy(&s->cluster);
}

static void flow_ends(void *context)
{
    struct end *end = context;
    end->scene->ends[end->flow] = (double)cloud_now(end->scene->cloud) / 1e9;
    end->scene->over++;
}

static void send(struct scene *s, uint32_t from, uint32_t to, double bytes)
{
    struct end *end = &s->tokens[s->count];
    *end = (struct end){s, s->count++};
    cloud_flow(s->cloud, from, to, bytes, flow_ends, end);
}

static void run(struct scene *s, double until)
{
    struct ts_error err = {0};
    assert_int_equal(cloud_run(s->cloud, (ts_time)(until * 1e9), &err), TS_OK);
}

static void assert_near(double value, double expected, double error)
{
    if (fabs(value - expected) > error)
        fail_msg("%.12g, expected %.12g", value, expected);
}

static void test_two_halves(void **state)
{
    struct scene s;
    (void)state;
    build(&s, NODES);
    start(&s);
    send(&s, 0, 1, 100);
    send(&s, 0, 1, 100);
    send(&s, 2, 3, 100); /* elsewhere */
    run(&s, 10);
    assert_near(s.ends[0], 2, NEAR);
    assert_near(s.ends[1], 2, NEAR);
    assert_near(s.ends[2], 1, NEAR);
    assert_near(cloud_link_use(s.cloud, 0, 1).bytes, 200, 1e-9);
    assert_near(cloud_link_use(s.cloud, 0, 1).busy_s, 2, NEAR);
    assert_near(cloud_card_use(s.cloud, 0, true).bytes, 200, 1e-9);
    assert_near(cloud_card_use(s.cloud, 1, false).busy_s, 2, NEAR);
    assert_near(cloud_card_use(s.cloud, 1, true).bytes, 0, 0);
    fini(&s);
}

/* The card of node 0 lets 150 out. Two flows to 1 over a link of 60 get 30 each; the one to 2 gets what is
 * left of the card, 90, though its third, 50, would be fair among all: the link cannot use that. */
static void test_card_and_link(void **state)
{
    struct scene s;
    (void)state;
    build(&s, NODES);
    s.cluster->links[0 * NODES + 1].bytes_per_s = 60;
    s.cluster->nodes[0].nic_out_bytes_per_s = 150;
    start(&s);
    send(&s, 0, 1, 300);
    send(&s, 0, 1, 60);
    send(&s, 0, 2, 270);
    run(&s, 1.5); /* flow 1 needs 2 s, flow 2 3 s; flow 0 has 300 - 2 * 30 then, and 60 from there on */
    assert_int_equal(s.over, 0);
    assert_near(cloud_link_use(s.cloud, 0, 2).bytes, 135, 1e-6);
    run(&s, 20);
    assert_near(s.ends[1], 2, NEAR);
    assert_near(s.ends[2], 3, NEAR);
    assert_near(s.ends[0], 2 + 240 / 60.0, NEAR);
    assert_near(cloud_card_use(s.cloud, 0, true).bytes, 630, 1e-6);
    assert_near(cloud_card_use(s.cloud, 0, true).busy_s, 6, NEAR);
    assert_near(cloud_link_use(s.cloud, 0, 2).busy_s, 3, NEAR);
    fini(&s);
}

/* Into node 3 come three flows: one over a link of 10, the others share what is left of the card's 100. */
static void test_three_into_one(void **state)
{
    struct scene s;
    (void)state;
    build(&s, NODES);
    s.cluster->nodes[3].nic_in_bytes_per_s = 100;
    start(&s);
    cloud_link_factor(s.cloud, 0, 3, 0.1);
    send(&s, 0, 3, 30);  /* 10 a second: 3 s */
    send(&s, 1, 3, 45);  /* 45 a second: 1 s */
    send(&s, 2, 3, 135); /* 45, then 90: 1 + 1 s */
    run(&s, 20);
    assert_near(s.ends[0], 3, NEAR);
    assert_near(s.ends[1], 1, NEAR);
    assert_near(s.ends[2], 2, NEAR);
    fini(&s);
}

static void slow_down(void *context)
{
    struct scene *s = context;
    cloud_link_factor(s->cloud, 0, 1, 0.25);
}

static void stop(void *context)
{
    struct scene *s = context;
    cloud_link_factor(s->cloud, 0, 1, 0);
}

static void heal(void *context)
{
    struct scene *s = context;
    cloud_link_factor(s->cloud, 0, 1, 2);
}

static void test_rate_changes(void **state)
{
    struct scene s;
    (void)state;
    build(&s, NODES);
    start(&s);
    send(&s, 0, 1, 400);
    cloud_at(s.cloud, 1 * TS_S, slow_down, &s); /* 100 are over, 25 a second */
    cloud_at(s.cloud, 3 * TS_S, stop, &s);      /* 150 */
    cloud_at(s.cloud, 9 * TS_S, heal, &s);      /* 200 a second for 250 */
    run(&s, 20);
    assert_near(s.ends[0], 10.25, NEAR);
    assert_near(cloud_link_use(s.cloud, 0, 1).bytes_per_s, 200, 0);
    fini(&s);
}

static void test_inside(void **state)
{
    struct scene s;
    (void)state;
    build(&s, NODES);
    start(&s);
    send(&s, 1, 1, 20000);
    run(&s, 20);
    assert_near(s.ends[0], 2, NEAR);
    assert_near(cloud_card_use(s.cloud, 1, true).bytes, 0, 0);
    fini(&s);
}

struct later {
    struct scene *scene;
    uint32_t from, to;
    double bytes;
};

static void begins(void *context)
{
    const struct later *l = context;
    send(l->scene, l->from, l->to, l->bytes);
}

/* Many at random: what the links carried is what was sent, and none was faster than alone. */
static void test_conserved(void **state)
{
    struct scene s;
    struct ts_rng rng;
    struct later later[64];
    double sent = 0, carried = 0, out = 0, in = 0;
    (void)state;
    build(&s, NODES);
    start(&s);
    ts_rng_init(&rng, 7);
    for (uint32_t i = 0; i < 64; i++) {
        later[i] = (struct later){.scene = &s, .from = (uint32_t)ts_rng_below(&rng, NODES)};
        later[i].to = (later[i].from + 1 + (uint32_t)ts_rng_below(&rng, NODES - 1)) % NODES;
        later[i].bytes = 1 + (double)ts_rng_below(&rng, 500);
        sent += later[i].bytes;
        cloud_at(s.cloud, (ts_time)ts_rng_below(&rng, 5 * TS_S), begins, &later[i]);
    }
    run(&s, 1000);
    assert_int_equal(s.over, 64);
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++)
            carried += cloud_link_use(s.cloud, i, j).bytes;
        out += cloud_card_use(s.cloud, i, true).bytes;
        in += cloud_card_use(s.cloud, i, false).bytes;
    }
    assert_near(carried, sent, 1e-6);
    assert_near(out, sent, 1e-6);
    assert_near(in, sent, 1e-6);
    fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_halves),     cmocka_unit_test(test_card_and_link),
        cmocka_unit_test(test_three_into_one), cmocka_unit_test(test_rate_changes),
        cmocka_unit_test(test_inside),         cmocka_unit_test(test_conserved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
