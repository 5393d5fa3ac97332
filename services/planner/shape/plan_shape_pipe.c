#include <math.h>

#include "services/planner/shape/plan_shape_internal.h"

double plan_pipe_weights(const struct plan_pipe *pipe, uint32_t i, uint32_t layers)
{
    const struct plan_unit *unit = pipe->ranks[i].unit;
    return layers * unit->layer_bytes + unit->head_bytes[i == 0][i + 1 == pipe->count];
}

double plan_pipe_kv_tokens(const struct plan_pipe *pipe)
{
    double tokens = INFINITY;
    for (uint32_t i = 0; i < pipe->count; ++i) {
        const struct plan_rank *rank = &pipe->ranks[i];
        double left = rank->unit->usable_bytes - plan_pipe_weights(pipe, i, rank->layers);
        tokens = fmin(tokens, left / (rank->layers * rank->unit->kv_bytes));
    }
    return tokens;
}

uint32_t plan_pipe_most_layers(const struct plan_pipe *pipe, uint32_t i, double tokens)
{
    const struct plan_unit *unit = pipe->ranks[i].unit;
    double left = unit->usable_bytes - plan_pipe_weights(pipe, i, 0);
    double most = floor(left / (unit->layer_bytes + tokens * unit->kv_bytes));
    return most < 0 ? 0 : most > pipe->layers ? pipe->layers : (uint32_t)most;
}

struct plan_step plan_pipe_step(const struct plan_pipe *pipe, double batch, double context)
{
    double stages = pipe->count, micro = fmax(batch / stages, 1);
    struct plan_knot knot = plan_knot_of(micro);
    struct plan_step sum = {0}, most = {0};
    for (uint32_t i = 0; i < pipe->count; ++i) {
        const struct plan_rank *rank = &pipe->ranks[i];
        struct plan_slope layer = plan_unit_at(rank->unit->grid, &knot);
        struct plan_step step = {.time = rank->layers * layer.value + rank->unit->step_s,
                                 .per_sequence = rank->layers * layer.slope,
                                 .per_token = rank->layers * rank->unit->context_s};
        if (i + 1 == pipe->count) {
            struct plan_slope head = plan_unit_at(rank->unit->head, &knot);
            step.time += head.value;
            step.per_sequence += head.slope;
        }
        step.time += step.per_token * micro * context;
        double hop_s = rank->hop_latency_s + micro * rank->hop_token_s;
        if (step.time > most.time)
            most = step;
        if (hop_s > most.time)
            most = (struct plan_step){.time = hop_s, .per_sequence = rank->hop_token_s};
        sum.time += step.time + hop_s;
        sum.per_sequence += step.per_sequence + rank->hop_token_s;
        sum.per_token += step.per_token;
    }
    /* All micro-batches pass the slowest part in turn; one of them passes all parts. */
    if (stages * most.time > sum.time)
        return (struct plan_step){stages * most.time, most.per_sequence, most.per_token};
    return (struct plan_step){sum.time, sum.per_sequence / stages, sum.per_token / stages};
}

double plan_pipe_batch(const struct plan_pipe *pipe, double context, double limit, double most)
{
    double least = fmin(pipe->count, most);
    if (plan_pipe_step(pipe, least, context).time > limit)
        return 0;
    /* Newton's method from above: the step is convex in the batch, so the way down never passes the root.
     * The step is piecewise linear, so it ends. */
    double batch = most;
    for (int i = 0; i < 64 && batch > least; ++i) {
        struct plan_step step = plan_pipe_step(pipe, batch, context);
        double excess = step.time - limit;
        if (excess <= limit * 1e-12)
            return batch;
        batch -= excess / (step.per_sequence + step.per_token * context);
    }
    return fmax(batch, least);
}
