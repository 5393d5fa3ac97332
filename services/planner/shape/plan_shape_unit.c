#include <math.h>
#include <string.h>

#include "services/planner/shape/plan_shape_internal.h"

#define PREFILL_BATCH_TOKENS                                                                                 \
    2048.0                /* of a chunk under load, as vLLM and Sarathi-Serve have it by default             \
                           */
#define STAFFING      2.0 /* deviations of the batch that memory is kept free for: 3 of 100 wait */
#define CONTEXT_PROBE 1e6 /* tokens; far above where rounding matters */

/* Tokens that a request holds and attends to are at most the window. */
static double windowed(const struct ts_model *model, double tokens)
{
    return model->sliding_window > 0 ? fmin(tokens, model->sliding_window) : tokens;
}

static void init_class(struct plan_mix *mix, uint32_t k, const struct ts_model *model,
                       const struct ts_class *class_)
{
    double s = class_->prompt_tokens, s_sq = fmax(class_->prompt_tokens_sq, s * s);
    /* Token 0 comes from prefill: decode makes the others. */
    double o = fmax(class_->output_tokens - 1, 0);
    double o_sq = fmax(class_->output_tokens_sq - 2 * class_->output_tokens + 1, o * o);
    double w = windowed(model, s);
    mix->prompt[k] = s;
    mix->spread[k] = s > 0 ? s_sq / (s * s) : 1;
    mix->attended_sq[k] = w < s ? w * (2 * s - w) : s_sq;
    mix->output[k] = o;
    mix->held_prompt[k] = w;
    mix->total[k] = windowed(model, s + class_->output_tokens);
    /* Integrals over the o steps of a request, in which its context grows from s to s + o. */
    mix->context[k] = o > 0 ? windowed(model, s + o_sq / (2 * o)) : w;
    double sq = o > 0 ? s_sq + s * o_sq / o + o_sq / 3 : s_sq;
    mix->context_sq[k] = fmin(sq, windowed(model, 1e18) * windowed(model, 1e18));
    double limit = INFINITY;
    if (o > 0 && class_->tpot_s > 0)
        limit = class_->tpot_s;
    if (o > 0 && class_->e2e_s > 0)
        limit = fmin(limit, class_->e2e_s / o);
    mix->step_limit[k] = isfinite(limit) ? limit : 0;
}

void plan_mix_init(struct plan_mix *mix, const struct ts_model *model, const struct ts_demand *demand)
{
    memset(mix, 0, sizeof *mix);
    mix->classes = demand->class_count;
    mix->burst = demand->burst;
    double rate = ts_demand_rate(demand), in_decode = 0;
    mix->rate = rate;
    for (uint32_t k = 0; k < mix->classes; ++k) {
        init_class(mix, k, model, &demand->classes[k]);
        double weight = rate > 0 ? demand->classes[k].rate / rate : 1.0 / mix->classes;
        mix->weight[k] = weight;
        mix->step_limit_max = fmax(mix->step_limit_max, mix->step_limit[k]);
        mix->mean_prompt += weight * mix->prompt[k];
        mix->mean_output += weight * mix->output[k];
        in_decode += weight * mix->output[k];
        mix->mean_context += weight * mix->output[k] * mix->context[k];
        mix->mean_context_sq += weight * mix->output[k] * mix->context_sq[k];
    }
    for (uint32_t k = 0; k < mix->classes; ++k)
        if (mix->output[k] > 0 && mix->step_limit[k] == 0)
            mix->step_limit_max = INFINITY; /* someone does not mind */
    mix->mean_context = in_decode > 0 ? mix->mean_context / in_decode : mix->mean_prompt;
    mix->mean_context_sq =
        in_decode > 0 ? mix->mean_context_sq / in_decode : mix->mean_context * mix->mean_context;
}

double plan_mix_holds(const struct plan_mix *mix, enum ts_phase phase, uint32_t k)
{
    return phase == TS_PHASE_PREFILL ? mix->held_prompt[k] : mix->total[k];
}

double plan_mix_held(const struct plan_mix *mix, enum ts_phase phase, bool longest)
{
    double held = plan_mix_holds(mix, phase, 0);
    for (uint32_t k = 1; k < mix->classes; ++k) {
        double other = plan_mix_holds(mix, phase, k);
        held = longest ? fmax(held, other) : fmin(held, other);
    }
    return held;
}

double plan_mix_burst(const struct plan_mix *mix, double rate)
{
    double share = mix->rate > rate ? rate / mix->rate : 1;
    return 1 + share * (mix->burst - 1);
}

double plan_mix_capacity(double batch, double noise)
{
    return batch + STAFFING * sqrt(noise * batch);
}

double plan_mix_batch(double capacity, double noise)
{
    double half = STAFFING / 2 * sqrt(noise);
    double root = sqrt(half * half + fmax(capacity, 0)) - half;
    return root * root;
}

static const double fractions[PLAN_GRID_OCTAVE + 1] = {1, 1.189207115002721, 1.4142135623730951,
                                                       1.681792830507429, 2}; /* 2^(i/4) */

double plan_grid_knot(uint32_t i)
{
    return (double)(1u << i / PLAN_GRID_OCTAVE) * fractions[i % PLAN_GRID_OCTAVE];
}

struct plan_knot plan_knot_of(double batch)
{
    int octave = ilogb(fmin(fmax(batch, 1), PLAN_GRID_MOST * (1 - 1e-15)));
    double base = (double)(1u << octave), mantissa = batch / base;
    uint32_t part = 0;
    while (part + 1 < PLAN_GRID_OCTAVE && fractions[part + 1] <= mantissa)
        ++part;
    return (struct plan_knot){.low = (uint32_t)octave * PLAN_GRID_OCTAVE + part,
                              .over = batch - base * fractions[part],
                              .inverse = 1 / (base * (fractions[part + 1] - fractions[part]))};
}

void plan_unit_init(struct plan_unit *unit, const struct ts_cluster *cluster, const struct ts_model *model,
                    const struct plan_mix *mix, const struct ts_link *link)
{
    const struct ts_device_type *device = &cluster->types[unit->type];
    uint32_t tp = unit->tp;
    unit->usable_bytes = ts_cost_usable_bytes(device);
    unit->layer_bytes = ts_cost_layer_weight_bytes(model) / tp;
    unit->kv_bytes = ts_cost_kv_layer_token_bytes(model, tp);
    unit->batch_prefill = ts_cost_layer_prefill_s(device, model, link, tp, PREFILL_BATCH_TOKENS,
                                                  PREFILL_BATCH_TOKENS * PREFILL_BATCH_TOKENS);
    for (uint32_t i = 0; i < 4; ++i)
        unit->head_bytes[i / 2][i % 2] = ts_cost_stage_weight_bytes(model, i / 2, i % 2, 0) / tp;
    unit->step_s = ts_cost_step_s(device);
    unit->head_alone = ts_cost_head_s(device, model, tp, 1);
    for (uint32_t k = 0; k < mix->classes; ++k) {
        double prompt = fmax(mix->prompt[k], 1);
        /* Under load short prompts are computed together, up to a batch of tokens. */
        double together = fmax(1, PREFILL_BATCH_TOKENS / prompt);
        unit->prefill[k] = ts_cost_layer_prefill_s(device, model, link, tp, prompt, mix->attended_sq[k]);
        unit->busy[k] = ts_cost_layer_prefill_s(device, model, link, tp, prompt * together,
                                                mix->attended_sq[k] * together) /
                        together;
        unit->step_share[k] = unit->step_s / together;
        unit->head_busy[k] = ts_cost_head_s(device, model, tp, together) / together;
    }
    for (uint32_t i = 0; i < PLAN_GRID_COUNT; ++i) {
        unit->grid[i] = ts_cost_layer_decode_s(device, model, link, tp, plan_grid_knot(i), 0);
        unit->head[i] = ts_cost_head_s(device, model, tp, plan_grid_knot(i));
    }
    unit->context_s =
        (ts_cost_layer_decode_s(device, model, link, tp, 1, CONTEXT_PROBE) - unit->grid[0]) / CONTEXT_PROBE;
}
