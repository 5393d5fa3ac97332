/*
 * From logits to a token: a pure function of the logits row, the sampling parameters, the history and (seed,
 * index). Order, as vLLM: penalties, mask of eos before min_tokens, log-probabilities (of the distribution at
 * this point, before temperature), temperature, min-p, top-k, top-p, then an inverse-CDF draw in descending
 * order of probability (ties by id) with u = ts_philox_unit(seed, index). Weights and their sums are those of
 * sampling_math.h, so that a device (gpu/cuda/sample/cuda_sample.h) draws the same token.
 */
#ifndef TS_GPU_SAMPLER_H
#define TS_GPU_SAMPLER_H

#include <math.h>

#include "gpu/ts_engine.h"

/* Parameters as sampling_math.h takes them. */
static inline bool ts_sampler_penalises(const struct ts_sampling *p)
{
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

/* 0 = greedy. */
static inline float ts_sampler_coldness(const struct ts_sampling *p)
{
    return p->temperature > 0 ? 1 / p->temperature : 0;
}

static inline float ts_sampler_log_min_p(const struct ts_sampling *p)
{
    return p->min_p > 0 ? logf(p->min_p) * p->temperature : -INFINITY;
}

struct ts_sampler; /* workspace for one vocabulary; one thread */

struct ts_sampler *ts_sampler_new(const struct ts_model *model);
void ts_sampler_destroy(struct ts_sampler **sampler);
/* `logits` [vocab] is overwritten. */
void ts_sample(struct ts_sampler *sampler, float *logits, const struct ts_engine_row *row,
               struct ts_engine_sample *out);

#endif
