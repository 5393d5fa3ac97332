/* Cluster files: nodes and links expanded, prices and offers, overrides, what is refused, the shipped ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "inputs_fixture.h"

static struct ts_cluster *read_text(const char *text, const char *suffix, struct ts_error *err)
{
    struct ts_catalogue *catalogue = inputs_catalogue();
    struct ts_cluster *cluster = NULL;
    char name[64];
    inputs_write("clusters", "it.conf", text);
    snprintf(name, sizeof name, "it%s", suffix);
    enum ts_status status = ts_inputs_cluster(catalogue, inputs_conf, name, &cluster, err);
    assert_true((status == TS_OK) == (cluster != NULL));
    ts_catalogue_destroy(&catalogue);
    return cluster;
}

static struct ts_cluster *read_well(const char *text, const char *suffix)
{
    struct ts_error err = {0};
    struct ts_cluster *cluster = read_text(text, suffix, &err);
    if (!cluster)
        fail_msg("%s", err.text);
    return cluster;
}

static const char three[] = "link = \"40Gbit\";\n"
                            "nodes = ( { name = \"a\"; count = 2; inner = \"NVLink\"; devices = ( { type = "
                            "\"3090Ti\"; count = 2; } ); },\n"
                            "          { name = \"b\"; devices = ( { type = \"A40\"; count = 1; }, { type = "
                            "\"3090Ti\"; count = 3; } ); } );\n";

static void test_nodes(void **state)
{
    struct ts_cluster *c = read_well(three, "");
    (void)state;
    assert_string_equal(c->name, "it");
    assert_int_equal(c->node_count, 3);
    assert_int_equal(c->gpu_count, 8);
    assert_int_equal(c->type_count, 2);
    assert_int_equal(c->cell_count, 4);
    assert_string_equal(c->nodes[0].name, "a-0");
    assert_string_equal(c->nodes[1].name, "a-1");
    assert_string_equal(c->nodes[2].name, "b");
    assert_string_equal(c->types[c->gpus[0].type].name, "3090Ti");
    assert_float_equal(ts_cluster_inner(c, 0, 0)->bytes_per_s, 230e9, 1);
    assert_float_equal(ts_cluster_inner(c, 2, 0)->bytes_per_s, 32e9, 1);
    assert_float_equal(ts_cluster_link(c, 0, 2)->bytes_per_s, 5e9, 1);
    assert_float_equal(c->nodes[1].nic_out_bytes_per_s, 5e9, 1);
    assert_float_equal(ts_cluster_price_per_hour(c), 0.403 + 7 * 0.307, 1e-9);
    ts_cluster_destroy(&c);
}

static void test_overrides(void **state)
{
    struct ts_cluster *c = read_well(three, ",link=5 gbit,inner=pcie4");
    (void)state;
    assert_float_equal(ts_cluster_link(c, 0, 2)->bytes_per_s, 0.625e9, 1);
    assert_float_equal(c->nodes[0].nic_in_bytes_per_s, 0.625e9, 1);
    assert_float_equal(ts_cluster_inner(c, 2, 0)->bytes_per_s, 32e9, 1);
    assert_float_equal(ts_cluster_inner(c, 0, 0)->bytes_per_s, 230e9, 1); /* the node's own word stands */
    ts_cluster_destroy(&c);
}

static void test_links(void **state)
{
    char text[1024];
    snprintf(text, sizeof text,
             "%slinks = ( { from = \"a\"; to = \"*\"; link = \"5Gbit\"; },\n"
             "  { from = \"a-0\"; to = \"b\"; gb_per_s = 2; latency_us = 7; one_way = true; },\n"
             "  { from = \"a\"; to = \"a\"; link = \"none\"; } );",
             three);
    struct ts_cluster *c = read_well(text, "");
    (void)state;
    assert_float_equal(ts_cluster_link(c, 0, 2)->bytes_per_s, 2e9, 1);
    assert_float_equal(ts_cluster_link(c, 0, 2)->latency_s, 7e-6, 1e-12);
    assert_float_equal(ts_cluster_link(c, 2, 0)->bytes_per_s, 0.625e9, 1);
    assert_float_equal(ts_cluster_link(c, 1, 2)->bytes_per_s, 0.625e9, 1);
    assert_true(ts_cluster_link(c, 0, 1)->bytes_per_s == 0);
    assert_float_equal(c->nodes[0].nic_out_bytes_per_s, 2e9, 1);
    assert_float_equal(c->nodes[0].nic_in_bytes_per_s, 0.625e9, 1);
    ts_cluster_destroy(&c);
}

/* A message is no faster than the adapters that it passes. */
static void test_nic_limits_links(void **state)
{
    struct ts_cluster *c = read_well("link = \"40Gbit\"; nodes = ( { name = \"a\"; nic = \"5Gbit\"; devices "
                                     "= ( { type = \"A40\"; count = 1; } ); },\n"
                                     "{ name = \"b\"; nic_out_gb_per_s = 1; nic_in_gb_per_s = 0.5; devices = "
                                     "( { type = \"A40\"; count = 1; } ); } );",
                                     "");
    (void)state;
    assert_float_equal(ts_cluster_link(c, 0, 1)->bytes_per_s, 0.5e9, 1);
    assert_float_equal(ts_cluster_link(c, 1, 0)->bytes_per_s, 0.625e9, 1);
    assert_float_equal(c->nodes[1].nic_out_bytes_per_s, 1e9, 1);
    ts_cluster_destroy(&c);
}

/* Offers: another price is another type; what is only available does not live. */
static void test_offers(void **state)
{
    struct ts_cluster *c =
        read_well("link = \"none\"; nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = 1; "
                  "available = 2; },\n"
                  "{ type = \"A40\"; count = 0; available = 3; price_per_hour = 0.2; } ); } );",
                  "");
    (void)state;
    assert_int_equal(c->type_count, 2);
    assert_string_equal(c->types[1].name, "A40@0.2");
    assert_float_equal(c->types[1].price_per_hour, 0.2, 1e-12);
    assert_int_equal(c->gpu_count, 6);
    assert_int_equal(c->cell_count, 1);
    assert_int_equal(c->cells[0].count, 1);
    assert_float_equal(ts_cluster_price_per_hour(c), 0.403, 1e-9);
    ts_cluster_destroy(&c);
}

#define NODE(name, rest) "{ name = \"" name "\"; devices = ( { type = \"A40\"; count = 1; } ); " rest " }"

static void test_refused(void **state)
{
    static const struct {
        const char *text, *suffix, *words;
    } cases[] = {
        {"nodes = ( " NODE("a", "") ",\n" NODE("b", "") " );", "", "it.conf:1: the key link is missing"},
        {"link = \"6Gbit\"; nodes = ( " NODE("a", "") " );", "",
         "link = \"6Gbit\": no link has this name; did you mean"},
        {"nodes = ( );", "", "nodes = ( ... ): expected a list of groups"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A400\"; count = 1; } ); } );", "",
         "type = \"A400\": the catalogue has no such device; did you mean A40"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = 0; } ); } );", "",
         "count = 0: no device at all"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = -4; } ); } );", "",
         "count = -4: expected a whole number from 0 to 4096"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = 1e30; } ); } );", "",
         "count = 1e+30: expected"},
        {"nodes = ( { name = \"a\"; count = 1000; devices = ( { type = \"A40\"; count = 8; } ); } );", "",
         "more than 4096 devices in all"},
        {"nodes = ( { name = \"a\"; count = 1000; devices = ( { type = \"A40\"; count = 1; } ); },\n"
         "{ name = \"b\"; count = 1000; devices = ( { type = \"A40\"; count = 1; } ); } );",
         "", "it.conf:2: count = 1000: more than 1024 nodes in all"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = 1; price_per_hour = nan; } ); } );",
         "", "syntax error"},
        {"nodes = ( { name = \"a\"; devices = ( { type = \"A40\"; count = 1; }, { type = \"a-40\"; count = "
         "1; } ); } );",
         "", "type = \"a-40\": this node lists the type twice"},
        {"link = \"none\"; nodes = ( " NODE("a", "") ", " NODE("A_", "") " );", "",
         "name = \"A_\": an earlier entry has"},
        {"nodes = ( " NODE("a", "nic_out_gb_per_s = -1;") " );", "",
         "nic_out_gb_per_s = -1: expected a number"},
        {"nodes = ( " NODE("a", "nic = \"5Gbit\"; nic_in_gb_per_s = 1;") " );", "",
         "nic = \"5Gbit\": give either"},
        {"nodes = ( " NODE("a", "inner = \"x\";") " );", "", "inner = \"x\": no link has this name"},
        {"link = \"none\"; nodes = ( " NODE("a", "") ", " NODE(
             "b", "") " );\nlinks = ( { from = \"a\"; to = \"c\"; "
                      "link = \"5Gbit\"; } );",
         "", "it.conf:2: to = \"c\": no node has this name"},
        {"nodes = ( " NODE("a", "") " ); links = ( { from = \"a\"; to = \"a\"; } );", "",
         "give either link = \"NAME\", or both"},
        {"nodes = ( " NODE("a", "") " ); links = ( { from = \"a\"; to = \"a\"; gb_per_s = 1; } );", "",
         "give either link = \"NAME\", or both"},
        {"nodes = ( " NODE("a", "") " );", ",link=6Gbit", "cluster it: link=6Gbit: no link has this name"},
        {"nodes = ( " NODE("a", "") " );", ",link=-5Gbit", "cluster it: link=-5Gbit: no link has this name"},
        {"nodes = ( " NODE("a", "") " );", ",lnk=5Gbit", "\"lnk=5Gbit\": expected link=NAME or inner=NAME"},
        {"nodes = ( " NODE("a", "") " );\nnodse = 3;", "",
         "it.conf:2: nodse = 3: unknown key; did you mean nodes?"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_error err = {0};
        struct ts_cluster *cluster = read_text(cases[i].text, cases[i].suffix, &err);
        if (cluster)
            fail_msg("accepted: %s", cases[i].text);
        inputs_expect(&err, cases[i].words);
    }
}

static void test_disconnected_is_legal(void **state)
{
    struct ts_cluster *c =
        read_well("link = \"none\"; nodes = ( " NODE("a", "") ", " NODE("b", "") " );", "");
    (void)state;
    assert_true(ts_cluster_link(c, 0, 1)->bytes_per_s == 0);
    assert_true(c->nodes[0].nic_out_bytes_per_s == 0);
    ts_cluster_destroy(&c);
}

static void load_shipped(const char *devices, const char *name, uint32_t *gpus)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_cluster *cluster = NULL;
    struct ts_error err = {0};
    if (ts_catalogue_load(TS_CONF_DIR, devices, &catalogue, &err) != TS_OK ||
        ts_inputs_cluster(catalogue, TS_CONF_DIR, name, &cluster, &err) != TS_OK)
        fail_msg("%s", err.text);
    *gpus = cluster->gpu_count;
    ts_cluster_destroy(&cluster);
    ts_catalogue_destroy(&catalogue);
}

static void test_shipped(void **state)
{
    char names[32][64];
    size_t count = inputs_shipped("clusters", names, 32);
    uint32_t gpus;
    (void)state;
    for (size_t i = 0; i < count; i++) {
        load_shipped("sheet", names[i], &gpus);
        load_shipped("measured", names[i], &gpus);
    }
    load_shipped("paper", "paper-cloud", &gpus);
    assert_int_equal(gpus, 32);
    load_shipped("paper", "paper-cloud,link=5Gbit", &gpus);
    assert_int_equal(gpus, 32);
    load_shipped("paper", "paper-inhouse", &gpus);
    assert_int_equal(gpus, 8);
    load_shipped("paper", "two-nodes", &gpus);
    assert_int_equal(gpus, 8);
    load_shipped("sheet", "gpus-64", &gpus);
    assert_int_equal(gpus, 64);
    load_shipped("sheet", "gpus-256", &gpus);
    assert_int_equal(gpus, 256);
}

static void test_a_thousand(void **state)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_cluster *cluster = NULL;
    struct ts_error err = {0};
    uint32_t alive = 0;
    (void)state;
    assert_int_equal(ts_catalogue_load(TS_CONF_DIR, "sheet", &catalogue, &err), TS_OK);
    assert_int_equal(ts_inputs_cluster(catalogue, TS_CONF_DIR, "gpus-1000", &cluster, &err), TS_OK);
    for (uint32_t i = 0; i < cluster->gpu_count; i++)
        alive += cluster->gpus[i].alive;
    assert_int_equal(alive, 1000);
    ts_cluster_destroy(&cluster);
    ts_catalogue_destroy(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_nic_limits_links),
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_disconnected_is_legal),
        cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_a_thousand),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
