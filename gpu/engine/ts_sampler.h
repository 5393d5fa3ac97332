/*
 * From logits to a token: a pure function of the logits row, the sampling parameters, the history and (seed,
 * index). Order, as vLLM: penalties, mask of eos before min_tokens, log-probabilities (of the distribution at
 * this point, before temperature), temperature, min-p, top-k, top-p, then an inverse-CDF draw in descending
 * order of probability (ties by id) with u = ts_philox_unit(seed, index).
 */
#ifndef TS_GPU_SAMPLER_H
#define TS_GPU_SAMPLER_H

#include "gpu/ts_engine.h"

struct ts_sampler; /* workspace for one vocabulary; one thread */

struct ts_sampler *ts_sampler_new(const struct ts_model *model);
void ts_sampler_destroy(struct ts_sampler **sampler);
/* `logits` [vocab] is overwritten. */
void ts_sample(struct ts_sampler *sampler, float *logits, const struct ts_engine_row *row,
               struct ts_engine_sample *out);

#endif
