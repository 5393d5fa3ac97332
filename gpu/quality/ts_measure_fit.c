/* Coefficients from times: a pattern search over their logarithms. */
#include <math.h>

#include "common/base/ts_assert.h"
#include "gpu/quality/ts_measure.h"

enum { PRODUCT, ATTENTION, WEIGHT, CONTEXT, LAYER, HALF, PARAMETERS };

/* What pulls a coefficient to where it began, against the squares of relative errors: it decides only where
 * these do not. */
#define PULL       1e-4
#define STEP_FIRST 0.7
#define STEP_LAST  0.002
#define SWEEPS_MAX 2000u

static double layers_of(const struct ts_engine_info *info)
{
    return info->shard.layer_end - info->shard.layer_begin;
}

double ts_measure_predict(const struct ts_engine_info *info, const struct ts_measured *measured,
                          const struct ts_measure_point *point)
{
    const struct ts_model *m = &info->model;
    struct ts_device_type device = {.memory_bytes = 0};
    double tokens = point->tokens, layer, rows = point->rows;
    TS_ASSERT(ts_cost_measured(measured, &device));
    if (point->decode)
        layer = ts_cost_layer_decode_s(&device, m, NULL, 1, rows, rows * tokens);
    else
        layer = ts_cost_layer_prefill_s(&device, m, NULL, 1, rows * tokens, rows * tokens * tokens);
    double head = info->shard.layer_end == m->layers ? ts_cost_head_s(&device, m, 1, rows) : 0;
    return layers_of(info) * layer + head + ts_cost_step_s(&device);
}

static struct ts_measured measured_of(const double *logs)
{
    return (struct ts_measured){.memory_bytes = 1e9,
                                .product_flops = exp(logs[PRODUCT]),
                                .attention_flops = exp(logs[ATTENTION]),
                                .weight_bytes_per_s = exp(logs[WEIGHT]),
                                .context_bytes_per_s = exp(logs[CONTEXT]),
                                .layer_s = exp(logs[LAYER]),
                                .tokens_half = exp(logs[HALF])};
}

static double badness(const struct ts_engine_info *info, const struct ts_measure_point *points,
                      uint32_t count, const double *logs, const double *begin)
{
    struct ts_measured m = measured_of(logs);
    struct ts_device_type unused = {.memory_bytes = 0};
    double sum = 0;
    if (!ts_cost_measured(&m, &unused))
        return INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        double off = log(ts_measure_predict(info, &m, &points[i]) / points[i].seconds);
        sum += off * off;
    }
    for (uint32_t i = 0; i < PARAMETERS; i++)
        sum += PULL * (logs[i] - begin[i]) * (logs[i] - begin[i]);
    return sum;
}

/* As if the largest prompt were nothing but products, and the smallest step nothing but the weights. */
static void begin_at(const struct ts_engine_info *info, const struct ts_measure_point *points, uint32_t count,
                     double *logs)
{
    const struct ts_measure_point *prompt = points, *step = points;
    for (uint32_t i = 1; i < count; i++) {
        const struct ts_measure_point *p = &points[i];
        if (p->decode)
            step = !step->decode || p->seconds < step->seconds ? p : step;
        else
            prompt = prompt->decode || p->tokens > prompt->tokens ? p : prompt;
    }
    TS_ASSERT(!prompt->decode && step->decode);
    double bytes = layers_of(info) * ts_cost_layer_weight_bytes(&info->model);
    double elements = bytes / (double)ts_dtype_bytes(info->model.weight_dtype);
    double product = 2 * elements * prompt->tokens / prompt->seconds;
    double weight = (bytes + ts_cost_head_weight_bytes(&info->model)) / step->seconds;
    logs[PRODUCT] = log(product);
    logs[ATTENTION] = log(product / 2);
    logs[WEIGHT] = log(weight);
    logs[CONTEXT] = log(weight);
    logs[LAYER] = log(step->seconds / layers_of(info) / 10);
    logs[HALF] = log(16);
}

void ts_measure_fit(const struct ts_engine_info *info, const struct ts_measure_point *points, uint32_t count,
                    struct ts_measured *out)
{
    double begin[PARAMETERS], at[PARAMETERS], step = STEP_FIRST;
    begin_at(info, points, count, begin);
    for (uint32_t i = 0; i < PARAMETERS; i++)
        at[i] = begin[i];
    double best = badness(info, points, count, at, begin);
    for (uint32_t sweep = 0; step > STEP_LAST && sweep < SWEEPS_MAX; sweep++) {
        bool better = false;
        for (uint32_t i = 0; i < 2 * PARAMETERS; i++) {
            double was = at[i / 2], now;
            at[i / 2] += i & 1 ? -step : step;
            now = badness(info, points, count, at, begin);
            better |= now < best;
            at[i / 2] = now < best ? at[i / 2] : was;
            best = fmin(now, best);
        }
        step *= better ? 1 : 0.5;
    }
    struct ts_measured found = measured_of(at);
    for (uint32_t i = 0; i < count; i++) {
        double off = fabs(ts_measure_predict(info, &found, &points[i]) / points[i].seconds - 1);
        found.error = fmax(found.error, off);
    }
    found.memory_bytes = out->memory_bytes;
    found.upload_bytes_per_s = out->upload_bytes_per_s;
    found.download_bytes_per_s = out->download_bytes_per_s;
    *out = found;
}
