/* The lower level as a whole: shapes of the paper's deployments, identities, points, the cache. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "services/planner/shape/plan_shape.h"
#include "tests/planner/planner_fixture.h"

static const enum ts_phase phases[] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_BOTH};

static uint16_t cell_of(const struct ts_cluster *cluster, const char *type, uint32_t which)
{
    for (uint32_t i = 0; i < cluster->cell_count; ++i)
        if (strcmp(cluster->types[cluster->cells[i].type].name, type) == 0 && which-- == 0)
            return (uint16_t)i;
    fail_msg("no cell of %s", type);
    return 0;
}

static struct plan_group group_of(enum ts_phase phase, uint16_t cell, uint8_t count, uint8_t tp)
{
    return (struct plan_group){.phase = phase, .part_count = 1, .parts = {{cell, count, tp}}};
}

static double share_of_mix(const struct planner_fixture *fixture, const double *shares)
{
    double sum = 0;
    for (uint32_t k = 0; k < fixture->demand.class_count; ++k)
        sum += shares[k] * fixture->demand.classes[k].rate / ts_demand_rate(&fixture->demand);
    return sum;
}

static uint32_t layers_of(const struct plan_shape *shape)
{
    uint32_t layers = 0;
    for (uint32_t i = 0; i < shape->stage_count; ++i)
        layers += shape->stages[i].layers;
    return layers;
}

static void test_paper_shapes(void **state)
{
    (void)state;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(5), PLANNER_FIXTURE_CONVERSATION, 10);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    const struct ts_cluster *cluster = fixture.cluster;
    uint16_t a40 = cell_of(cluster, "A40", 0), a5000 = cell_of(cluster, "A5000", 0);
    uint16_t a6000 = cell_of(cluster, "A6000", 0), ti = cell_of(cluster, "3090Ti", 0);
    /* Table 3 of the paper. */
    struct plan_group groups[] = {
        group_of(TS_PHASE_PREFILL, a40, 2, 2),
        group_of(TS_PHASE_PREFILL, a5000, 4, 4),
        group_of(TS_PHASE_PREFILL, a6000, 2, 2),
        group_of(TS_PHASE_DECODE, ti, 4, 2),
        group_of(TS_PHASE_DECODE, a6000, 2, 1),
        group_of(TS_PHASE_DECODE, a40, 2, 1),
        group_of(TS_PHASE_DECODE, a5000, 4, 2),
        {.phase = TS_PHASE_PREFILL, .part_count = 2, .parts = {{a5000, 2, 2}, {ti, 2, 2}}},
        {.phase = TS_PHASE_DECODE, .part_count = 2, .parts = {{a5000, 2, 2}, {ti, 2, 2}}},
    };
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; ++i) {
        assert_true(plan_shape_find(shapes, &groups[i]));
        assert_int_equal(layers_of(groups[i].shape), 60);
        assert_true(groups[i].shape->point_count > 0);
        assert_true(groups[i].shape->fits[0] && groups[i].shape->fits[3]);
    }
    struct plan_group alone = group_of(TS_PHASE_DECODE, ti, 2, 2); /* 65 GB do not fit on 48 */
    assert_false(plan_shape_find(shapes, &alone));
    assert_null(alone.shape);
    struct plan_group odd = group_of(TS_PHASE_PREFILL, a40, 8, 8); /* 52 heads */
    assert_false(plan_shape_find(shapes, &odd));
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

static void test_equal_devices_split_evenly(void **state)
{
    (void)state;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_cluster("8xA100", 10), PLANNER_FIXTURE_CODING, 10);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    for (size_t p = 0; p < 3; ++p) {
        for (uint8_t count = 1; count <= 6; ++count) {
            struct plan_group group = group_of(phases[p], 0, count, 1);
            assert_true(plan_shape_find(shapes, &group));
            assert_int_equal(group.shape->stage_count, count);
            for (uint32_t i = 0; i < count; ++i)
                assert_in_range(group.shape->stages[i].layers, 60 / count - 1, 60 / count);
        }
    }
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

/* Along the points of one replica: more throughput costs more time; shares are convex in the step time. */
static void test_points_are_a_frontier(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 4, 24);
        struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
        for (uint32_t c = 0; c < fixture.cluster->cell_count; ++c) {
            struct plan_group group =
                group_of(TS_PHASE_DECODE, (uint16_t)c, (uint8_t)fixture.cluster->cells[c].count, 0);
            if (!plan_shape_choose(shapes, &group))
                continue;
            const struct plan_shape *shape = group.shape;
            assert_true(shape->point_count > 0);
            for (uint32_t i = 0; i + 1 < shape->point_count; ++i) {
                const struct plan_point *a = &shape->points[i], *b = a + 1;
                assert_true(a->step_s < b->step_s);
                assert_true(a->batch < b->batch);
                assert_true(share_of_mix(&fixture, a->compute) > share_of_mix(&fixture, b->compute));
                assert_true(share_of_mix(&fixture, a->memory) < share_of_mix(&fixture, b->memory));
                if (i + 2 == shape->point_count)
                    break;
                const struct plan_point *d = b + 1;
                double w = (b->step_s - a->step_s) / (d->step_s - a->step_s);
                double chord =
                    (1 - w) * share_of_mix(&fixture, a->compute) + w * share_of_mix(&fixture, d->compute);
                assert_true(share_of_mix(&fixture, b->compute) <= chord * (1 + 1e-3));
            }
        }
        plan_shapes_destroy(&shapes);
        planner_fixture_fini(&fixture);
    }
}

/* At each point the mean mix takes exactly what Little's law says, and never more memory than there is. */
static void test_points_obey_little(void **state)
{
    (void)state;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(5), PLANNER_FIXTURE_CONVERSATION, 10);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    struct plan_group group = {
        .phase = TS_PHASE_DECODE,
        .part_count = 2,
        .parts = {{cell_of(fixture.cluster, "A40", 0), 4, 2}, {cell_of(fixture.cluster, "3090Ti", 0), 4, 4}}};
    assert_true(plan_shape_find(shapes, &group));
    double steps = 0;
    for (uint32_t k = 0; k < fixture.demand.class_count; ++k)
        steps += (fixture.demand.classes[k].output_tokens - 1) / fixture.demand.class_count;
    assert_in_range(group.shape->point_count, 3, PLAN_POINTS_MAX);
    for (uint32_t i = 0; i < group.shape->point_count; ++i) {
        const struct plan_point *point = &group.shape->points[i];
        double rate = 1 / share_of_mix(&fixture, point->compute);
        assert_true(fabs(rate * steps * point->step_s / point->batch - 1) < 1e-9);
        assert_true(rate * share_of_mix(&fixture, point->memory) <= 1 + 1e-9);
    }
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

static double score_after(struct planner_fixture *fixture, enum ts_phase phase)
{
    struct plan_shapes *shapes = plan_shapes_new(&fixture->problem);
    struct plan_group group = {.phase = phase, .part_count = 2, .parts = {{0, 2, 1}, {1, 2, 1}}};
    double score = 0;
    if (plan_shape_find(shapes, &group))
        score = plan_shape_score(shapes, group.shape);
    plan_shapes_destroy(&shapes);
    return score;
}

static void test_better_devices_never_hurt(void **state)
{
    (void)state;
    for (size_t p = 0; p < 3; ++p) {
        struct planner_fixture fixture;
        planner_fixture_init(&fixture, planner_fixture_cluster("2xA40|2xA6000", 10),
                             PLANNER_FIXTURE_CONVERSATION, 10);
        double before = score_after(&fixture, phases[p]);
        assert_true(before > 0);
        fixture.cluster->types[1].memory_bytes *= 1.5;
        double memory = score_after(&fixture, phases[p]);
        assert_true(memory >= before * 0.999);
        fixture.cluster->types[1].memory_bytes_per_s *= 2;
        fixture.cluster->types[1].flops *= 2;
        assert_true(score_after(&fixture, phases[p]) >= memory * 0.999);
        planner_fixture_fini(&fixture);
    }
}

/* All speeds doubled, all constants halved: every time is half of what it was (but for the all-reduce, whose
 * ramp is a constant of the model). */
static void test_twice_as_fast(void **state)
{
    (void)state;
    for (size_t p = 0; p < 3; ++p) {
        struct planner_fixture fixture;
        planner_fixture_init(&fixture, planner_fixture_cluster("4xA40|4xA6000", 10), PLANNER_FIXTURE_CODING,
                             10);
        fixture.demand = planner_fixture_demand(PLANNER_FIXTURE_CODING, 4, 10, 0);
        struct plan_group one = {.phase = phases[p], .part_count = 2, .parts = {{0, 4, 1}, {1, 4, 1}}};
        struct plan_group two = one;
        struct plan_shapes *slow = plan_shapes_new(&fixture.problem);
        assert_true(plan_shape_find(slow, &one));
        for (uint32_t i = 0; i < fixture.cluster->type_count; ++i) {
            struct ts_device_type *type = &fixture.cluster->types[i];
            type->flops *= 2;
            type->memory_bytes_per_s *= 2;
            type->fit.layer_s /= 2;
            type->fit.step_s /= 2;
            type->peer.bytes_per_s *= 2;
            type->peer.latency_s /= 2;
        }
        for (uint32_t i = 0; i < 4; ++i) {
            fixture.cluster->links[i].bytes_per_s *= 2;
            fixture.cluster->links[i].latency_s /= 2;
        }
        struct plan_shapes *fast = plan_shapes_new(&fixture.problem);
        assert_true(plan_shape_find(fast, &two));
        assert_int_equal(one.shape->point_count, two.shape->point_count);
        for (uint32_t k = 0; k < 4; ++k)
            assert_true(fabs(one.shape->prefill_s[k] - 2 * two.shape->prefill_s[k]) <=
                        1e-9 * one.shape->prefill_s[k]);
        assert_true(one.shape->point_count > 3);
        for (uint32_t i = 0; i < one.shape->point_count; ++i) {
            const struct plan_point *a = &one.shape->points[i], *b = &two.shape->points[i];
            assert_true(fabs(a->step_s - 2 * b->step_s) <= 1e-9 * a->step_s);
            assert_true(fabs(a->wait_s - 2 * b->wait_s) <= 1e-9 * a->wait_s);
            assert_true(fabs(a->compute[1] - 2 * b->compute[1]) <= 1e-6 * a->compute[1]);
            assert_true(fabs(a->prefill[1] - 2 * b->prefill[1]) <= 1e-9 * a->prefill[1]);
        }
        plan_shapes_destroy(&slow);
        plan_shapes_destroy(&fast);
        planner_fixture_fini(&fixture);
    }
}

static void test_equal_makes_share_a_shape(void **state)
{
    (void)state;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(5), PLANNER_FIXTURE_CODING, 10);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    uint16_t first = cell_of(fixture.cluster, "A6000", 0), second = cell_of(fixture.cluster, "A6000", 1);
    struct plan_group a = group_of(TS_PHASE_DECODE, first, 4, 2);
    struct plan_group b = group_of(TS_PHASE_DECODE, second, 4, 2);
    assert_true(plan_shape_find(shapes, &a) && plan_shape_find(shapes, &b));
    assert_ptr_equal(a.shape, b.shape);
    b.phase = TS_PHASE_PREFILL;
    assert_true(plan_shape_find(shapes, &b));
    assert_ptr_not_equal(a.shape, b.shape);
    /* The stages of a mixed group point at the parts that they were made from, whatever their order. */
    uint16_t ti = cell_of(fixture.cluster, "3090Ti", 0);
    struct plan_group c = {.phase = TS_PHASE_DECODE, .part_count = 2, .parts = {{ti, 2, 2}, {first, 2, 1}}};
    struct plan_group d = {.phase = TS_PHASE_DECODE, .part_count = 2, .parts = {{second, 2, 1}, {ti, 2, 2}}};
    uint8_t order_c[PLAN_PARTS_MAX], order_d[PLAN_PARTS_MAX];
    assert_true(plan_shape_find(shapes, &c) && plan_shape_find(shapes, &d));
    assert_ptr_equal(c.shape, d.shape);
    plan_shape_parts(shapes, &c, order_c);
    plan_shape_parts(shapes, &d, order_d);
    for (uint32_t i = 0; i < c.shape->stage_count; ++i) {
        const struct plan_shape_stage *stage = &c.shape->stages[i];
        assert_int_equal(c.parts[order_c[stage->part]].tp, stage->tp);
        assert_int_equal(d.parts[order_d[stage->part]].tp, stage->tp);
    }
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

/* plan_shape_choose against trying every choice by plan_shape_next_tp. */
static void test_choice_is_the_best(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 4, 16);
        struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
        const struct ts_cluster *cluster = fixture.cluster;
        struct plan_group group = {.phase = phases[seed % 3]};
        for (uint32_t c = 0; c < cluster->cell_count && c < 3; ++c)
            group.parts[group.part_count++] =
                (struct plan_part){(uint16_t)c, (uint8_t)cluster->cells[c].count, 0};
        struct plan_group each = group;
        double best = -1;
        while (plan_shape_next_tp(shapes, &each))
            if (plan_shape_find(shapes, &each) && plan_shape_score(shapes, each.shape) > best)
                best = plan_shape_score(shapes, each.shape);
        assert_int_equal(plan_shape_choose(shapes, &group), best >= 0);
        if (best >= 0) {
            assert_true(fabs(plan_shape_score(shapes, group.shape) - best) <= 1e-9 * best);
            struct plan_group again = group;
            assert_true(plan_shape_find(shapes, &again));
            assert_ptr_equal(again.shape, group.shape);
        }
        plan_shapes_destroy(&shapes);
        planner_fixture_fini(&fixture);
    }
}

static void test_given_stages(void **state)
{
    (void)state;
    struct planner_fixture fixture;
    planner_fixture_init(&fixture, planner_fixture_paper_cloud(5), PLANNER_FIXTURE_CODING, 10);
    struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
    const struct ts_cell *cells = fixture.cluster->cells;
    uint32_t first = 0;
    for (uint32_t i = 0; i < cell_of(fixture.cluster, "A6000", 0); ++i)
        first += cells[i].count;
    struct ts_group given = {.phase = TS_PHASE_DECODE, .stage_count = 2};
    given.stages[0] = (struct ts_stage){.gpus = {first}, .tp = 1, .layers = 30};
    given.stages[1] = (struct ts_stage){.gpus = {first + 1}, .tp = 1, .layers = 30};
    struct plan_group group, even = group_of(TS_PHASE_DECODE, cell_of(fixture.cluster, "A6000", 0), 2, 1);
    struct ts_error err;
    assert_true(plan_shape_of_group(shapes, &given, &group, &err));
    assert_true(plan_shape_find(shapes, &even));
    assert_true(fabs(group.shape->score - even.shape->score) <= 1e-9 * even.shape->score);
    given.stages[0].layers = 25; /* legal and worse */
    given.stages[1].layers = 35;
    assert_true(plan_shape_of_group(shapes, &given, &group, &err));
    assert_int_equal(group.shape->stages[0].layers, 25);
    assert_true(group.shape->score < even.shape->score);
    given.stages[1].layers = 34; /* one is missing */
    assert_false(plan_shape_of_group(shapes, &given, &group, &err));
    given.stages[0].layers = 10; /* 50 layers do not fit */
    given.stages[1].layers = 50;
    assert_false(plan_shape_of_group(shapes, &given, &group, &err));
    assert_non_null(strstr(err.text, "must fit"));
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
}

/* --- Odd problems --- */

static void check_numbers(const struct planner_fixture *fixture, const struct plan_shape *shape)
{
    assert_true(isfinite(shape->score) && shape->score >= 0);
    assert_in_range(shape->point_count, 1, PLAN_POINTS_MAX);
    for (uint32_t i = 0; i < shape->point_count; ++i) {
        const struct plan_point *point = &shape->points[i];
        assert_true(point->wait_share >= 0 && point->wait_share <= 1);
        assert_true(isfinite(point->wait_s) && point->wait_s >= 0);
        assert_true(isfinite(point->step_s) && point->step_s >= 0);
        assert_true(isfinite(point->step_sd_s) && point->step_sd_s >= 0);
        assert_true(isfinite(point->stall_s2) && point->stall_s2 >= 0);
        assert_true(isfinite(point->start_s2) && point->start_s2 >= 0 && point->batch >= 0);
        for (uint32_t k = 0; k < fixture->demand.class_count; ++k) {
            assert_true(isfinite(point->prefill[k]) && point->prefill[k] >= 0);
            assert_true(isfinite(point->compute[k]) && point->compute[k] >= 0);
            assert_true(isfinite(point->memory[k]) && point->memory[k] >= 0);
            struct plan_miss miss =
                plan_miss_of(&fixture->demand.classes[k], shape->prefill_s[k], point, point, 0);
            assert_true(miss.ttft >= 0 && miss.ttft <= 1 && miss.tpot >= 0 && miss.tpot <= 1);
            assert_true(miss.e2e >= 0 && miss.e2e <= 1 && miss.any >= 0 && miss.any <= 1);
        }
    }
}

static double pick(struct ts_rng *rng, const double *of, uint32_t count)
{
    return of[ts_rng_below(rng, count)];
}

static void make_odd(struct planner_fixture *fixture, struct ts_rng *rng)
{
    static const double tokens[] = {1, 2, 100, 4000, 500000}, seconds[] = {0, 1e-6, 0.05, 2, 1e6};
    static const double bursts[] = {0, 0.2, 1, 30, 1e4}, rates[] = {0, 1e-6, 1, 1e4};
    static const double bytes[] = {1e6, 1e9, 24e9, 1e13}, latencies[] = {0, 1e-5, 1};
    fixture->demand.burst = pick(rng, bursts, 5);
    for (uint32_t k = 0; k < fixture->demand.class_count; ++k) {
        struct ts_class *class_ = &fixture->demand.classes[k];
        class_->rate = pick(rng, rates, 4);
        class_->prompt_tokens = pick(rng, tokens, 5);
        class_->prompt_tokens_sq = class_->prompt_tokens * class_->prompt_tokens * (1 + ts_rng_unit(rng));
        class_->output_tokens = pick(rng, tokens, 5);
        class_->output_tokens_sq = class_->output_tokens * class_->output_tokens * (1 + ts_rng_unit(rng));
        class_->ttft_s = pick(rng, seconds, 5);
        class_->tpot_s = pick(rng, seconds, 5);
        class_->e2e_s = pick(rng, seconds, 5);
    }
    fixture->model.layers = 1 + (uint32_t)ts_rng_below(rng, 100);
    fixture->model.sliding_window = ts_rng_below(rng, 3) == 0 ? 1024 : 0;
    fixture->model.tied = ts_rng_below(rng, 2) == 0;
    for (uint32_t i = 0; i < fixture->cluster->type_count; ++i) {
        struct ts_device_type *type = &fixture->cluster->types[i];
        type->fit.step_s *= pick(rng, latencies, 3) * 1e5;
        type->peer.bytes_per_s = pick(rng, bytes, 4) * (double)ts_rng_below(rng, 4);
        type->peer.latency_s = pick(rng, latencies, 3);
        type->memory_bytes *= 0.05 + 2 * ts_rng_unit(rng);
        type->flops *= pick(rng, (const double[]){1e-4, 1, 1, 1e4}, 4);
    }
    uint32_t links = fixture->cluster->node_count * fixture->cluster->node_count;
    for (uint32_t i = 0; i < links; ++i)
        if (ts_rng_below(rng, 6) == 0)
            fixture->cluster->links[i].bytes_per_s = 0;
}

/* Whatever is asked, each answer is no or has numbers that a program can be made of. */
static void test_odd_problems(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 77);
    uint32_t made = 0;
    for (uint64_t seed = 1; seed <= 400; ++seed) {
        struct planner_fixture fixture;
        planner_fixture_random(&fixture, seed, 2, 20);
        make_odd(&fixture, &rng);
        struct plan_shapes *shapes = plan_shapes_new(&fixture.problem);
        for (uint32_t n = 0; n < 12; ++n) {
            struct plan_group group = {.phase = phases[n % 3]};
            for (uint32_t c = 0; c < fixture.cluster->cell_count && group.part_count < 4; ++c)
                if (ts_rng_below(&rng, 2) == 0)
                    group.parts[group.part_count++] = (struct plan_part){
                        (uint16_t)c, (uint8_t)(1 + ts_rng_below(&rng, fixture.cluster->cells[c].count)), 0};
            if (group.part_count == 0 || !plan_shape_choose(shapes, &group))
                continue;
            assert_int_equal(layers_of(group.shape), fixture.model.layers);
            check_numbers(&fixture, group.shape);
            ++made;
        }
        plan_shapes_destroy(&shapes);
        planner_fixture_fini(&fixture);
    }
    assert_true(made > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paper_shapes),
        cmocka_unit_test(test_equal_devices_split_evenly),
        cmocka_unit_test(test_points_are_a_frontier),
        cmocka_unit_test(test_points_obey_little),
        cmocka_unit_test(test_better_devices_never_hurt),
        cmocka_unit_test(test_twice_as_fast),
        cmocka_unit_test(test_equal_makes_share_a_shape),
        cmocka_unit_test(test_choice_is_the_best),
        cmocka_unit_test(test_given_stages),
        cmocka_unit_test(test_odd_problems),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
