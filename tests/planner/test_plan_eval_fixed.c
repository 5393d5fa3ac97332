/* Routing rules that are given: judged by the same columns and limits as the program's own routing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/eval/plan_columns.h"
#include "tests/planner/eval_fixture.h"

static void open_on(struct eval_fixture *f, const char *cluster, double gbit, double rate, const char *groups)
{
    *f = (struct eval_fixture){0};
    planner_fixture_init(&f->base, planner_fixture_cluster(cluster, gbit), PLANNER_FIXTURE_CONVERSATION,
                         rate);
    eval_fixture_open(f);
    eval_fixture_groups(f, groups);
}

/* A colocated replica under a load that its lowest point carries: every class attains 1 - miss at that
 * point. */
static void test_light_load_by_hand(void **state)
{
    (void)state;
    struct eval_fixture f = {0};
    open_on(&f, "4xA100", 40, 1e-3, "B 0:4/4");
    const struct plan_share all = {0, 0, TS_COST_CODEC_NONE, 1, 0}, half = {0, 0, TS_COST_CODEC_NONE, 0.5, 0};
    const struct plan_shape *shape = f.state.groups[0].shape;
    struct plan_result result;
    double expected = 0;
    for (uint32_t k = 0; k < f.base.demand.class_count; k++) {
        struct plan_miss miss = plan_miss_of(&f.base.demand.classes[k], shape->prefill_s[k],
                                             &shape->points[0], &shape->points[0], 0);
        expected += (1 - miss.any) / f.base.demand.class_count; /* classes have equal rates */
    }
    assert_float_equal(plan_eval_fixed(f.eval, &f.state, &all, 1, &result), expected, 1e-9);
    assert_int_equal(result.flow_count, f.base.demand.class_count);
    for (uint32_t i = 0; i < result.flow_count; i++)
        assert_float_equal(result.flows[i].rate, 1e-3 / f.base.demand.class_count, 1e-12);
    assert_float_equal(plan_eval_fixed(f.eval, &f.state, &half, 1, NULL), expected / 2, 1e-9);
    eval_fixture_fini(&f);
}

/* A rule of one class serves that class alone; those of all classes together are the rule of any class. */
static void test_rules_of_one_class(void **state)
{
    (void)state;
    struct eval_fixture f = {0};
    open_on(&f, "4xA100", 40, 1e-3, "B 0:4/4");
    const struct plan_share any = {0, 0, TS_COST_CODEC_NONE, 1, 0};
    struct plan_share each[TS_CLASSES_MAX];
    struct plan_result result;
    double sum = 0, all = plan_eval_fixed(f.eval, &f.state, &any, 1, NULL);
    for (uint32_t k = 0; k < f.base.demand.class_count; k++) {
        each[k] = (struct plan_share){0, 0, TS_COST_CODEC_NONE, 1, k + 1};
        sum += plan_eval_fixed(f.eval, &f.state, &each[k], 1, &result);
        assert_int_equal(result.flow_count, 1);
        assert_int_equal(result.flows[0].length_class, k);
    }
    assert_float_equal(sum, all, 1e-9);
    assert_float_equal(plan_eval_fixed(f.eval, &f.state, each, f.base.demand.class_count, NULL), all, 1e-9);
    eval_fixture_fini(&f);
}

/* Twice as much as a replica carries: half is refused, whatever the other replica has left. */
static void test_excess_is_refused(void **state)
{
    (void)state;
    struct eval_fixture f = {0};
    open_on(&f, "4xA100|4xA100", 40, 1, "B 0:4/4, B 1:4/4");
    const struct plan_share one[] = {{0, 0, TS_COST_CODEC_NONE, 1, 0}};
    const struct plan_share two[] = {{0, 0, TS_COST_CODEC_NONE, 0.5, 0}, {1, 1, TS_COST_CODEC_NONE, 0.5, 0}};
    double few = plan_eval_fixed(f.eval, &f.state, one, 1, NULL);
    eval_fixture_fini(&f);
    assert_true(few > 0.9);

    open_on(&f, "4xA100|4xA100", 40, 1000, "B 0:4/4, B 1:4/4");
    struct plan_result result;
    double at_one = plan_eval_fixed(f.eval, &f.state, one, 1, &result), served = 0;
    for (uint32_t i = 0; i < result.flow_count; i++)
        served += result.flows[i].rate;
    assert_true(at_one > 0 && at_one < 0.1);
    assert_true(served < 100);
    assert_float_equal(plan_eval_fixed(f.eval, &f.state, two, 2, NULL), 2 * at_one, 1e-9);
    eval_fixture_fini(&f);
}

/* With one class, the program's own routing as a rule comes to what the program says. */
static void test_own_routing_as_a_rule(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct eval_fixture f = {0};
        planner_fixture_random(&f.base, seed, 8, 24);
        f.base.demand = planner_fixture_demand(PLANNER_FIXTURE_CODING, 1, ts_demand_rate(&f.base.demand), 5);
        eval_fixture_open(&f);
        eval_fixture_random_groups(&f, seed);
        struct plan_result result;
        double program = plan_eval_run(f.eval, &f.state, &result);
        struct plan_share *shares = ts_xcalloc(result.flow_count + 1, sizeof *shares);
        uint32_t count = result.flow_count;
        for (uint32_t i = 0; i < count; i++)
            shares[i] = (struct plan_share){result.flows[i].prefill, result.flows[i].decode,
                                            result.flows[i].codec, result.flows[i].rate / result.rate, 0};
        double rule = plan_eval_fixed(f.eval, &f.state, shares, count, NULL);
        assert_true(rule <= program + 1e-7);
        assert_true(rule >= 0.98 * program);
        ts_free(shares);
        eval_fixture_fini(&f);
    }
}

/* Any rule is a solution of the program, so it never scores above the optimum. */
static void test_never_above_the_program(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct eval_fixture f = {0};
        struct ts_rng rng;
        ts_rng_init(&rng, seed);
        planner_fixture_random(&f.base, seed, 4, 24);
        f.base.problem.objective = seed % 2 ? PLAN_ATTAINMENT : PLAN_GOODPUT;
        f.base.problem.codec_allowed[TS_COST_CODEC_I4] = seed % 3 != 0;
        f.base.problem.codec_allowed[TS_COST_CODEC_NONE] = seed % 3 != 1;
        eval_fixture_open(&f);
        eval_fixture_random_groups(&f, seed);
        struct plan_share shares[64];
        uint32_t count = 0;
        double total = 0;
        for (uint32_t i = 0; i < f.state.count; i++) {
            for (uint32_t j = 0; j < f.state.count && count < 64; j++) {
                enum ts_phase a = f.state.groups[i].phase, b = f.state.groups[j].phase;
                if ((i == j && a == TS_PHASE_BOTH) || (a == TS_PHASE_PREFILL && b == TS_PHASE_DECODE)) {
                    enum ts_cost_codec codec = (enum ts_cost_codec)ts_rng_below(&rng, TS_COST_CODEC_COUNT);
                    shares[count] = (struct plan_share){i, j, codec, ts_rng_unit(&rng), 0};
                    total += shares[count++].share;
                }
            }
        }
        for (uint32_t i = 0; i < count; i++)
            shares[i].share /= total;
        struct plan_result result;
        double rule = plan_eval_fixed(f.eval, &f.state, shares, count, &result), flows = 0;
        for (uint32_t i = 0; i < result.flow_count; i++) {
            assert_true(result.flows[i].attained <= result.flows[i].rate + 1e-9);
            if (result.flows[i].prefill != result.flows[i].decode)
                assert_true(f.base.problem.codec_allowed[result.flows[i].codec]);
            flows += result.flows[i].rate;
        }
        assert_true(flows <= result.rate * (1 + 1e-9));
        double program = plan_eval_run(f.eval, &f.state, NULL);
        if (rule > program * (1 + 1e-6) + 1e-9)
            fail_msg("seed %llu: rule %.9g, program %.9g", (unsigned long long)seed, rule, program);
        eval_fixture_fini(&f);
    }
}

/* A network card that a tenth of the KV fills lets a tenth through. */
static void test_full_network(void **state)
{
    (void)state;
    struct eval_fixture f = {0};
    open_on(&f, "4xA100|4xA100", 40, 8, "P 0:4/4, D 1:4/4");
    const struct plan_share share = {0, 1, TS_COST_CODEC_NONE, 1, 0};
    struct plan_result result;
    double kappa = (double)ts_model_kv_token_bytes(&f.base.model), bytes = 0, asked = 0;
    for (uint32_t n = 0; n < 2; n++)
        f.base.cluster->nodes[n].nic_in_bytes_per_s = 1e8;
    plan_eval_destroy(&f.eval);
    f.eval = plan_eval_new(f.shapes);
    (void)plan_eval_fixed(f.eval, &f.state, &share, 1, &result);
    for (uint32_t i = 0; i < result.flow_count; i++) {
        const struct ts_class *c = &f.base.demand.classes[result.flows[i].length_class];
        bytes += result.flows[i].rate * c->prompt_tokens * kappa;
        asked += c->rate * c->prompt_tokens * kappa;
    }
    assert_true(asked > 1e8);
    /* Blocks are filled up, so slightly less than the usable share of the card in useful bytes. */
    assert_true(bytes <= PLAN_NIC_SHARE * 1e8 * (1 + 1e-9) && bytes > 0.95 * PLAN_NIC_SHARE * 1e8);
    eval_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_light_load_by_hand),      cmocka_unit_test(test_rules_of_one_class),
        cmocka_unit_test(test_excess_is_refused),       cmocka_unit_test(test_own_routing_as_a_rule),
        cmocka_unit_test(test_never_above_the_program), cmocka_unit_test(test_full_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
