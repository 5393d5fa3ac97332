/* Maximum flow against minimum cuts, and Helix's placement problem against answers worked by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/baseline/baseline_helix.h"

/* Two ways of 3 and 2 from s to t with a bridge: s-a 3, s-b 2, a-b 2, a-t 2, b-t 3. All 5 get through, one of
 * them over the bridge. */
static void test_flow_by_hand(void **state)
{
    (void)state;
    struct baseline_edge edges[] = {{0, 1, 3, 0}, {0, 2, 2, 0}, {1, 2, 2, 0}, {1, 3, 2, 0}, {2, 3, 3, 0}};
    assert_float_equal(baseline_max_flow(edges, 5, 4, 0, 3), 5, 1e-12);
    assert_float_equal(edges[2].flow, 1, 1e-12);
    edges[2].capacity = 0;
    assert_float_equal(baseline_max_flow(edges, 5, 4, 0, 3), 4, 1e-12);
}

/* The least capacity over all cuts of a graph of up to 8 nodes. */
static double least_cut(const struct baseline_edge *edges, uint32_t count, uint32_t nodes)
{
    double least = INFINITY;
    for (uint32_t side = 1; side < 1u << (nodes - 1); side += 2) { /* node 0 in, the last out */
        double cut = 0;
        for (uint32_t i = 0; i < count; i++)
            cut += (side >> edges[i].from & 1) && !(side >> edges[i].to & 1) ? edges[i].capacity : 0;
        least = fmin(least, cut);
    }
    return least;
}

static void test_flow_is_the_least_cut(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 7);
    for (uint32_t round = 0; round < 500; round++) {
        struct baseline_edge edges[24];
        uint32_t nodes = 2 + (uint32_t)ts_rng_below(&rng, 7), count = (uint32_t)ts_rng_below(&rng, 25);
        double balance[8] = {0};
        for (uint32_t i = 0; i < count; i++) {
            uint32_t from = (uint32_t)ts_rng_below(&rng, nodes);
            uint32_t to = (from + 1 + (uint32_t)ts_rng_below(&rng, nodes - 1)) % nodes;
            edges[i] = (struct baseline_edge){from, to, ts_rng_unit(&rng) * 10, 0};
        }
        double value = baseline_max_flow(edges, count, nodes, 0, nodes - 1);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(edges[i].flow >= -1e-9 && edges[i].flow <= edges[i].capacity + 1e-9);
            balance[edges[i].from] -= edges[i].flow;
            balance[edges[i].to] += edges[i].flow;
        }
        for (uint32_t i = 1; i + 1 < nodes; i++)
            assert_float_equal(balance[i], 0, 1e-9);
        assert_float_equal(balance[nodes - 1], value, 1e-9);
        assert_float_equal(value, least_cut(edges, count, nodes), 1e-9);
    }
}

struct three { /* a strong machine and two weak ones over a model of two blocks */
    double rate[3 * 3], link[9];
    struct helix_problem problem;
    uint32_t begin[3], end[3];
    struct helix_placement placement;
};

static void make_three(struct three *t, double strong_both, double link)
{
    const double rate[9] = {0, 10, strong_both, 0, 4, 1, 0, 4, 1}; /* by blocks held: 0, 1, 2 */
    memcpy(t->rate, rate, sizeof rate);
    for (uint32_t i = 0; i < 9; i++)
        t->link[i] = link;
    t->problem = (struct helix_problem){3, 2, t->rate, t->link};
    t->placement = (struct helix_placement){t->begin, t->end};
}

static double exact(struct three *t)
{
    double flow = -1;
    assert_int_equal(helix_exact(&t->problem, 60, &t->placement, &flow, NULL), TS_OK);
    return flow;
}

/* The strong machine serves 10 requests/s with one block and 3 with both; the weak ones 4 and 1.
 *   strong alone with both, the weak ones in a chain        3 + 4 = 7
 *   strong first, then both weak ones side by side          min(10, 4 + 4) = 8   <- the best
 *   each by itself                                          3 + 1 + 1 = 5 */
static void test_helix_splits_the_flow(void **state)
{
    (void)state;
    struct three t;
    make_three(&t, 3, 100);
    assert_float_equal(exact(&t), 8, 1e-6);
    assert_int_equal(t.end[0] - t.begin[0], 1);
    assert_int_equal(t.begin[1], t.begin[2]);
    assert_int_equal(t.end[1] - t.begin[1], 1);
    assert_int_not_equal(t.begin[0], t.begin[1]);

    /* A fixed chain takes one of the weak machines along: 4 of 8 are lost. */
    uint32_t count, path[3];
    struct baseline_edge *edges = helix_graph(&t.problem, &t.placement, &count);
    assert_float_equal(baseline_max_flow(edges, count, 8, 6, 7), 8, 1e-9);
    assert_int_equal(helix_path(&t.problem, edges, count, path), 2);
    assert_true(path[0] == 0 || path[1] == 0);
    ts_free(edges);
}

/* With 5 for both blocks the strong machine stays alone, 5 + 4 = 9; and where links carry no more than 3
 * each, 5 + 3 = 8 still beats 3 + 3. */
static void test_helix_keeps_apart(void **state)
{
    (void)state;
    struct three t;
    make_three(&t, 5, 100);
    assert_float_equal(exact(&t), 9, 1e-6);
    assert_int_equal(t.end[0] - t.begin[0], 2);
    make_three(&t, 5, 3);
    assert_float_equal(exact(&t), 8, 1e-6);
}

/* Even stages: the strong machine makes one stage by itself, the weak ones the other. */
static void test_helix_stages(void **state)
{
    (void)state;
    struct three t;
    make_three(&t, 3, 100);
    assert_true(helix_stages(&t.problem, 2, NULL, &t.placement));
    assert_float_equal(helix_flow(&t.problem, &t.placement), 8, 1e-9);
    assert_true(helix_stages(&t.problem, 1, NULL, &t.placement));
    assert_float_equal(helix_flow(&t.problem, &t.placement), 5, 1e-9);
    const bool weak[3] = {false, true, true};
    assert_true(helix_stages(&t.problem, 2, weak, &t.placement)); /* the strong one keeps both blocks */
    assert_float_equal(helix_flow(&t.problem, &t.placement), 7, 1e-9);
    t.rate[2] = t.rate[5] = t.rate[8] = 0;
    assert_false(helix_stages(&t.problem, 1, NULL, &t.placement));
}

/* The program is at least as good as the heuristics that it stands beside, on random machines. */
static void test_helix_exact_beats_heuristics(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 3);
    for (uint32_t round = 0; round < 30; round++) {
        struct three t;
        make_three(&t, 3, 1 + 10 * ts_rng_unit(&rng));
        for (uint32_t i = 0; i < 3; i++) {
            t.rate[i * 3 + 1] = 1 + 9 * ts_rng_unit(&rng);
            t.rate[i * 3 + 2] = ts_rng_below(&rng, 3) ? t.rate[i * 3 + 1] * ts_rng_unit(&rng) : 0;
        }
        double best = exact(&t);
        assert_float_equal(helix_flow(&t.problem, &t.placement), best, 1e-6);
        for (uint32_t stages = 1; stages <= 2; stages++) {
            (void)helix_stages(&t.problem, stages, NULL, &t.placement);
            assert_true(helix_flow(&t.problem, &t.placement) <= best + 1e-6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow_by_hand),          cmocka_unit_test(test_flow_is_the_least_cut),
        cmocka_unit_test(test_helix_splits_the_flow), cmocka_unit_test(test_helix_keeps_apart),
        cmocka_unit_test(test_helix_stages),          cmocka_unit_test(test_helix_exact_beats_heuristics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
