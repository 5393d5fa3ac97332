#include <math.h>
#include <string.h>

#include "common/base/ts_math.h"
#include "services/planner/shape/plan_shape_internal.h"

#define SLACK_SPLIT 1.15 /* of the bottleneck, for the split between balance and latency */

/* What a split looks at: a layer's time and the constant of each stage, and the most layers it holds. */
struct costs {
    double layer[TS_STAGES_MAX], fixed[TS_STAGES_MAX];
    uint32_t most[TS_STAGES_MAX];
};

static bool enough(const struct plan_pipe *pipe, const struct costs *costs)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < pipe->count; ++i) {
        if (costs->most[i] < 1)
            return false;
        sum += costs->most[i];
    }
    return sum >= pipe->layers && pipe->count <= pipe->layers;
}

static bool set_most(const struct plan_pipe *pipe, struct costs *costs, double tokens)
{
    for (uint32_t i = 0; i < pipe->count; ++i)
        costs->most[i] = plan_pipe_most_layers(pipe, i, tokens);
    return enough(pipe, costs);
}

/* Least time of the slowest stage: each layer in turn goes where the stage's time is least afterwards, which
 * is optimal as a stage's time rises with its layers. Returns that time. */
static double split_balanced(const struct plan_pipe *pipe, const struct costs *costs, uint16_t *split)
{
    double most = 0;
    for (uint32_t i = 0; i < pipe->count; ++i)
        split[i] = 1;
    for (uint32_t layer = pipe->count; layer < pipe->layers; ++layer) {
        uint32_t best = UINT32_MAX;
        double least = INFINITY;
        for (uint32_t i = 0; i < pipe->count; ++i) {
            double after = costs->fixed[i] + (split[i] + 1) * costs->layer[i];
            if (split[i] < costs->most[i] && after < least) {
                best = i;
                least = after;
            }
        }
        ++split[best];
    }
    for (uint32_t i = 0; i < pipe->count; ++i)
        most = fmax(most, costs->fixed[i] + split[i] * costs->layer[i]);
    return most;
}

/* Least sum of the stages' times with none above `limit`: the fastest stages are filled first, equal ones
 * evenly. The limit is one that some split meets. */
static void split_fast(const struct plan_pipe *pipe, const struct costs *costs, double limit, uint16_t *split)
{
    uint32_t most[TS_STAGES_MAX];
    for (uint32_t i = 0; i < pipe->count; ++i) {
        double fit =
            isinf(limit) ? pipe->layers : floor((limit * (1 + 1e-9) - costs->fixed[i]) / costs->layer[i]);
        most[i] = fit < costs->most[i] ? (fit < 1 ? 1 : (uint32_t)fit) : costs->most[i];
        split[i] = 1;
    }
    for (uint32_t layer = pipe->count; layer < pipe->layers; ++layer) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < pipe->count; ++i) {
            if (split[i] >= most[i])
                continue;
            if (best == UINT32_MAX || costs->layer[i] < costs->layer[best] ||
                (costs->layer[i] == costs->layer[best] && split[i] < split[best]))
                best = i;
        }
        ++split[best];
    }
}

static uint32_t keep_new(uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX], uint32_t kept, uint32_t stages)
{
    for (uint32_t i = 0; i < kept; ++i)
        if (memcmp(splits[i], splits[kept], stages * sizeof splits[0][0]) == 0)
            return kept;
    return kept + 1;
}

static void prefill_costs(const struct plan_pipe *pipe, const struct plan_mix *mix, struct costs *costs)
{
    for (uint32_t i = 0; i < pipe->count; ++i) {
        const struct plan_unit *unit = pipe->ranks[i].unit;
        costs->layer[i] = 0;
        costs->fixed[i] = 0;
        for (uint32_t k = 0; k < mix->classes; ++k) {
            costs->layer[i] += mix->weight[k] * unit->busy[k];
            costs->fixed[i] +=
                mix->weight[k] * (unit->step_share[k] + (i + 1 == pipe->count ? unit->head_busy[k] : 0));
        }
    }
}

uint32_t plan_layers_prefill(const struct plan_pipe *pipe, const struct plan_mix *mix,
                             uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX])
{
    struct costs costs;
    if (!set_most(pipe, &costs, plan_mix_held(mix, pipe->phase, true)) &&
        !set_most(pipe, &costs, plan_mix_held(mix, pipe->phase, false)))
        return 0;
    prefill_costs(pipe, mix, &costs);
    double least = split_balanced(pipe, &costs, splits[0]);
    if (pipe->count == 1)
        return 1;
    split_fast(pipe, &costs, least * SLACK_SPLIT, splits[1]);
    uint32_t kept = keep_new(splits, 1, pipe->count);
    split_fast(pipe, &costs, INFINITY, splits[kept]);
    return keep_new(splits, kept, pipe->count);
}

static void decode_costs(const struct plan_pipe *pipe, const struct plan_mix *mix, double batch,
                         struct costs *costs)
{
    double micro = fmax(batch / pipe->count, 1);
    struct plan_knot knot = plan_knot_of(micro);
    for (uint32_t i = 0; i < pipe->count; ++i) {
        const struct plan_unit *unit = pipe->ranks[i].unit;
        costs->layer[i] = plan_unit_at(unit->grid, &knot).value + unit->context_s * micro * mix->mean_context;
        costs->fixed[i] = unit->step_s;
        if (i + 1 == pipe->count)
            costs->fixed[i] += plan_unit_at(unit->head, &knot).value;
    }
}

/* Whether some split runs `batch` sequences within `limit` and within the memory; costs->most says how. */
static bool can_run(const struct plan_pipe *pipe, const struct plan_mix *mix, double batch, double limit,
                    double held, struct costs *costs)
{
    decode_costs(pipe, mix, batch, costs);
    double tokens = fmax(plan_mix_capacity(batch, 1) * mix->mean_context, held);
    for (uint32_t i = 0; i < pipe->count; ++i) {
        costs->most[i] = plan_pipe_most_layers(pipe, i, tokens);
        double fit = floor((limit / pipe->count - costs->fixed[i]) / costs->layer[i]);
        if (fit < costs->most[i])
            costs->most[i] = fit < 1 ? 0 : (uint32_t)fit;
    }
    return enough(pipe, costs);
}

/* The largest batch that some split can run, by bisection: less is possible whenever more is. */
static double largest_batch(const struct plan_pipe *pipe, const struct plan_mix *mix, double limit,
                            double held)
{
    struct costs costs;
    double low = ts_math_log(1e-3), high = ts_math_log(PLAN_GRID_MOST * pipe->count);
    if (!can_run(pipe, mix, ts_math_exp(low), limit, held, &costs))
        return 0;
    for (int i = 0; i < 16; ++i) {
        double middle = (low + high) / 2;
        if (can_run(pipe, mix, ts_math_exp(middle), limit, held, &costs))
            low = middle;
        else
            high = middle;
    }
    return ts_math_exp(low);
}

uint32_t plan_layers_decode(const struct plan_pipe *pipe, const struct plan_mix *mix, double time_share,
                            uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX])
{
    struct costs costs;
    double held = plan_mix_held(mix, pipe->phase, true);
    if (!set_most(pipe, &costs, held)) {
        held = plan_mix_held(mix, pipe->phase, false);
        if (!set_most(pipe, &costs, held))
            return 0;
    }
    double limit = mix->step_limit_max > 0 ? mix->step_limit_max * time_share : INFINITY;
    double batch = largest_batch(pipe, mix, limit, held);
    if (batch == 0) /* too slow even for one: at least as much as the memory allows */
        batch = largest_batch(pipe, mix, INFINITY, held);
    (void)can_run(pipe, mix, batch, INFINITY, held, &costs);
    (void)split_balanced(pipe, &costs, splits[0]);
    if (pipe->count == 1)
        return 1;
    /* At a light load the weights decide alone. */
    decode_costs(pipe, mix, 1, &costs);
    (void)set_most(pipe, &costs, held);
    (void)split_balanced(pipe, &costs, splits[1]);
    return keep_new(splits, 1, pipe->count);
}
