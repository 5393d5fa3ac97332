/* The pieces of the lower level against brute force: order of parts, layers of stages, steps of a pipeline.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "services/planner/shape/plan_shape_internal.h"
#include "tests/planner/planner_fixture.h"

/* --- Order --- */

static double path_cost(uint32_t count, const double *cost, const uint8_t *order)
{
    double sum = 0;
    for (uint32_t i = 0; i + 1 < count; ++i)
        sum += cost[order[i] * count + order[i + 1]];
    return sum;
}

/* Least cost over all ways to fill order[at..]. */
static double best_path(uint32_t count, const double *cost, uint8_t *order, uint32_t at)
{
    if (at == count)
        return path_cost(count, cost, order);
    double best = INFINITY;
    for (uint32_t i = at; i < count; ++i) {
        uint8_t swap = order[at];
        order[at] = order[i];
        order[i] = swap;
        best = fmin(best, best_path(count, cost, order, at + 1));
        order[i] = order[at];
        order[at] = swap;
    }
    return best;
}

static void test_order(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    for (int round = 0; round < 400; ++round) {
        uint32_t count = 1 + (uint32_t)ts_rng_below(&rng, 7);
        double cost[PLAN_PARTS_MAX * PLAN_PARTS_MAX], ends[PLAN_PARTS_MAX];
        uint8_t order[PLAN_PARTS_MAX], all[PLAN_PARTS_MAX], seen = 0;
        for (uint32_t i = 0; i < count * count; ++i)
            cost[i] = ts_rng_below(&rng, 6) == 0 ? INFINITY : 1 + (double)ts_rng_below(&rng, 20);
        for (uint32_t i = 0; i < count; ++i) {
            all[i] = (uint8_t)i;
            ends[i] = ts_rng_unit(&rng);
        }
        double found = plan_order_parts(count, cost, ends, order);
        for (uint32_t i = 0; i < count; ++i)
            seen |= (uint8_t)(1u << order[i]);
        assert_int_equal(seen, (1u << count) - 1);
        double best = best_path(count, cost, all, 0);
        assert_true(found == best && path_cost(count, cost, order) == best);
    }
}

static void test_order_of_equal_links_puts_memory_at_the_ends(void **state)
{
    (void)state;
    double cost[16], ends[4] = {24, 48, 24, 80};
    uint8_t order[PLAN_PARTS_MAX];
    for (int i = 0; i < 16; ++i)
        cost[i] = 0.1;
    (void)plan_order_parts(4, cost, ends, order);
    assert_int_equal(order[0] + order[3], 4); /* 1 and 3 */
    assert_true(order[0] == 1 || order[0] == 3);
}

/* --- Layers --- */

struct pipes { /* a pipeline of devices drawn from a seed, over a small model */
    struct planner_fixture fixture;
    struct plan_mix mix;
    struct plan_unit units[4];
    struct plan_pipe pipe;
};

static void pipes_init(struct pipes *pipes, struct ts_rng *rng, enum ts_phase phase, bool tight)
{
    static const char *const specs[] = {"1xA40|1xA6000|1x3090Ti|1xA5000", "1xA100|1xL4|1x4090|1xA40",
                                        "1xL4|1xL4|1xA5000|1xA5000"};
    planner_fixture_init(&pipes->fixture, planner_fixture_cluster(specs[ts_rng_below(rng, 3)], 10),
                         PLANNER_FIXTURE_CONVERSATION, 4);
    struct ts_model *model = &pipes->fixture.model;
    model->layers = 8 + (uint32_t)ts_rng_below(rng, 6);
    for (uint32_t i = 0; i < pipes->fixture.cluster->type_count; ++i) {
        struct ts_device_type *type = &pipes->fixture.cluster->types[i];
        if (tight) /* room for a few layers each */
            type->memory_bytes = (2.5e9 + 1.3e9 * (2 + 4 * ts_rng_unit(rng))) / 0.9;
        type->fit.step_s *= ts_rng_unit(rng);
    }
    plan_mix_init(&pipes->mix, model, &pipes->fixture.demand);
    pipes->pipe = (struct plan_pipe){.phase = phase, .layers = model->layers};
    pipes->pipe.count = 1 + (uint32_t)ts_rng_below(rng, 4);
    for (uint32_t i = 0; i < pipes->pipe.count; ++i) {
        pipes->units[i] = (struct plan_unit){.type = pipes->fixture.cluster->gpus[i].type, .tp = 1};
        plan_unit_init(&pipes->units[i], pipes->fixture.cluster, model, &pipes->mix, NULL);
        pipes->pipe.ranks[i] = (struct plan_rank){.unit = &pipes->units[i]};
    }
}

static double busy_of_stage(const struct pipes *pipes, uint32_t i, uint32_t layers)
{
    const struct plan_unit *unit = &pipes->units[i];
    double busy = 0;
    for (uint32_t k = 0; k < pipes->mix.classes; ++k)
        busy += pipes->mix.weight[k] * (layers * unit->busy[k] + unit->step_share[k] +
                                        (i + 1 == pipes->pipe.count ? unit->head_busy[k] : 0));
    return busy;
}

static void judge_prefill(const struct pipes *pipes, const uint16_t *split, double *most, double *sum)
{
    *most = 0;
    *sum = 0;
    for (uint32_t i = 0; i < pipes->pipe.count; ++i) {
        double busy = busy_of_stage(pipes, i, split[i]);
        *most = fmax(*most, busy);
        *sum += busy;
    }
}

static bool fits(const struct pipes *pipes, const uint16_t *split, double tokens)
{
    for (uint32_t i = 0; i < pipes->pipe.count; ++i) {
        double kv = tokens * split[i] * pipes->units[i].kv_bytes;
        if (plan_pipe_weights(&pipes->pipe, i, split[i]) + kv > pipes->units[i].usable_bytes)
            return false;
    }
    return true;
}

/* The next way to cut the layers, each stage with at least one; false after the last. Starts from zeros. */
static bool next_split(uint32_t stages, uint32_t layers, uint16_t *split)
{
    if (split[0] == 0) {
        for (uint32_t i = 0; i < stages; ++i)
            split[i] = 1;
    } else {
        uint32_t i = 0;
        while (i + 1 < stages && ++split[i] > layers)
            split[i++] = 1;
        if (i + 1 >= stages)
            return false;
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i + 1 < stages; ++i)
        sum += split[i];
    if (sum >= layers)
        return next_split(stages, layers, split);
    split[stages - 1] = (uint16_t)(layers - sum);
    return true;
}

static void test_layers_of_prefill(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 11);
    int fitting = 0, refused = 0;
    for (int round = 0; round < 300; ++round) {
        struct pipes pipes;
        pipes_init(&pipes, &rng, TS_PHASE_PREFILL, round % 2);
        uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX], split[TS_STAGES_MAX] = {0};
        uint32_t found = plan_layers_prefill(&pipes.pipe, &pipes.mix, splits);
        double least_most = INFINITY, least_sum = INFINITY;
        for (int longest = 1; longest >= 0 && isinf(least_sum); --longest) {
            double tokens = plan_mix_held(&pipes.mix, TS_PHASE_PREFILL, longest);
            memset(split, 0, sizeof split);
            while (next_split(pipes.pipe.count, pipes.pipe.layers, split)) {
                double most, sum;
                judge_prefill(&pipes, split, &most, &sum);
                if (fits(&pipes, split, tokens)) {
                    least_most = fmin(least_most, most);
                    least_sum = fmin(least_sum, sum);
                }
            }
        }
        assert_int_equal(found > 0, isfinite(least_sum));
        if (found > 0) {
            double most, sum;
            judge_prefill(&pipes, splits[0], &most, &sum);
            assert_true(most <= least_most * (1 + 1e-9));
            judge_prefill(&pipes, splits[found - 1], &most, &sum);
            assert_true(found == 1 || sum <= least_sum * (1 + 1e-9));
            ++fitting;
        } else {
            ++refused;
        }
        planner_fixture_fini(&pipes.fixture);
    }
    assert_true(fitting > 100 && refused > 20);
}

/* Sequences in flight at the step limit, by definition: compute and memory allow them. */
static double batch_of(struct pipes *pipes, const uint16_t *split, double limit)
{
    for (uint32_t i = 0; i < pipes->pipe.count; ++i)
        pipes->pipe.ranks[i].layers = split[i];
    double room = plan_pipe_kv_tokens(&pipes->pipe) / pipes->mix.mean_context;
    if (plan_pipe_kv_tokens(&pipes->pipe) < plan_mix_held(&pipes->mix, TS_PHASE_DECODE, true))
        return 0;
    return plan_pipe_batch(&pipes->pipe, pipes->mix.mean_context, limit,
                           fmin(plan_mix_batch(room, 1), 8192.0 * pipes->pipe.count));
}

static void test_layers_of_decode(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 12);
    int fitting = 0;
    for (int round = 0; round < 300; ++round) {
        struct pipes pipes;
        pipes_init(&pipes, &rng, TS_PHASE_DECODE, round % 2);
        double limit = pipes.mix.step_limit_max = 0.01 + 0.05 * ts_rng_unit(&rng), best = 0;
        uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX], split[TS_STAGES_MAX] = {0};
        while (next_split(pipes.pipe.count, pipes.pipe.layers, split))
            best = fmax(best, batch_of(&pipes, split, limit));
        uint32_t found = plan_layers_decode(&pipes.pipe, &pipes.mix, 1, splits);
        if (best >= pipes.pipe.count) {
            assert_true(found > 0);
            assert_true(batch_of(&pipes, splits[0], limit) >= best * 0.998);
            ++fitting;
        }
        planner_fixture_fini(&pipes.fixture);
    }
    assert_true(fitting > 100);
}

/* --- Steps --- */

static void test_steps_are_convex_and_invert(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 13);
    for (int round = 0; round < 100; ++round) {
        struct pipes pipes;
        pipes_init(&pipes, &rng, TS_PHASE_DECODE, false);
        struct plan_pipe *pipe = &pipes.pipe;
        for (uint32_t i = 0; i < pipe->count; ++i)
            pipe->ranks[i].layers = (uint16_t)(1 + ts_rng_below(&rng, 9));
        double context = 100 + 3000 * ts_rng_unit(&rng), before = -1;
        for (int i = 0; i < 15; ++i) {
            double batch = pow(1.7, i);
            struct plan_step step = plan_pipe_step(pipe, batch, context);
            double ahead = plan_pipe_step(pipe, batch * 1.01, context).time;
            double slope = (ahead - step.time) / (batch * 0.01);
            assert_true(slope >= before * (1 - 1e-9));
            before = slope;
            double tangent = step.per_sequence + step.per_token * context;
            assert_true(batch < pipe->count || slope >= tangent * (1 - 1e-6));
            double found = plan_pipe_batch(pipe, context, step.time, 8192);
            if (batch >= pipe->count)
                assert_true(fabs(found - batch) <= 1e-6 * batch);
        }
        double least = plan_pipe_step(pipe, pipe->count, context).time;
        assert_true(plan_pipe_batch(pipe, context, least * 0.99, 8192) == 0);
        planner_fixture_fini(&pipes.fixture);
    }
}

/* The tables against the cost model that they are made from. */
static void test_tables(void **state)
{
    (void)state;
    struct ts_rng rng;
    ts_rng_init(&rng, 14);
    struct pipes pipes;
    pipes_init(&pipes, &rng, TS_PHASE_DECODE, false);
    const struct plan_unit *unit = &pipes.units[0];
    const struct ts_device_type *type = &pipes.fixture.cluster->types[unit->type];
    for (int i = 0; i < 73; ++i) {
        double batch = pow(1.13, i);
        struct plan_knot knot = plan_knot_of(batch);
        double table = plan_unit_at(unit->grid, &knot).value + 1e4 * unit->context_s;
        double model = ts_cost_layer_decode_s(type, &pipes.fixture.model, NULL, 1, batch, 1e4);
        assert_true(table >= model * (1 - 1e-9)); /* a chord of a convex function */
        assert_true(table <= model * 1.005);
    }
    planner_fixture_fini(&pipes.fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_order_of_equal_links_puts_memory_at_the_ends),
        cmocka_unit_test(test_layers_of_prefill),
        cmocka_unit_test(test_layers_of_decode),
        cmocka_unit_test(test_steps_are_convex_and_invert),
        cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
