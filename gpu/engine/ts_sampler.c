#include "gpu/engine/ts_sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

struct candidate {
    float logit;
    uint32_t token;
};

struct ts_sampler {
    const struct ts_model *model;
    struct candidate *candidates;
    uint32_t *counts; /* occurrences of a token in the output; kept zero between calls */
    uint8_t *seen;    /* prompt or output; kept zero between calls */
};

struct ts_sampler *ts_sampler_new(const struct ts_model *model)
{
    struct ts_sampler *s = ts_xcalloc(1, sizeof *s);
    s->model = model;
    s->candidates = ts_xcalloc(model->vocab, sizeof *s->candidates);
    s->counts = ts_xcalloc(model->vocab, sizeof *s->counts);
    s->seen = ts_xcalloc(model->vocab, 1);
    return s;
}

void ts_sampler_destroy(struct ts_sampler **sampler)
{
    struct ts_sampler *s = *sampler;
    if (!s)
        return;
    ts_free(s->candidates);
    ts_free(s->counts);
    ts_free(s->seen);
    ts_free(s);
    *sampler = NULL;
}

static void mark(struct ts_sampler *s, const struct ts_engine_row *row, bool set)
{
    for (uint32_t i = 0; i < row->prompt_count; i++) {
        if (row->prompt_ids[i] < s->model->vocab)
            s->seen[row->prompt_ids[i]] = set;
    }
    for (uint32_t i = 0; i < row->output_count; i++) {
        uint32_t token = row->output_ids[i];
        if (token >= s->model->vocab)
            continue;
        s->seen[token] = set;
        s->counts[token] = set ? s->counts[token] + 1 : 0;
    }
}

static void penalise(struct ts_sampler *s, float *logits, const struct ts_engine_row *row)
{
    const struct ts_sampling *p = row->sampling;
    if (p->repetition_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    mark(s, row, true);
    for (uint32_t i = 0; i < s->model->vocab; i++) {
        if (s->seen[i])
            logits[i] = logits[i] > 0 ? logits[i] / p->repetition_penalty : logits[i] * p->repetition_penalty;
        if (s->counts[i])
            logits[i] -= p->presence_penalty + p->frequency_penalty * (float)s->counts[i];
    }
    mark(s, row, false);
}

static int descending(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static uint32_t argmax(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return best;
}

static double log_sum(const float *logits, uint32_t count, float best)
{
    double sum = 0; /* at least 1, from the best itself */
    for (uint32_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - best);
    return best + log(sum > 1 ? sum : 1);
}

/* Candidates with logits at least `least`, sorted. */
static uint32_t collect(struct ts_sampler *s, const float *logits, float least)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->model->vocab; i++) {
        if (logits[i] >= least)
            s->candidates[count++] = (struct candidate){logits[i], i};
    }
    qsort(s->candidates, count, sizeof *s->candidates, descending);
    return count;
}

static uint32_t draw(struct ts_sampler *s, const float *logits, const struct ts_engine_row *row, float best)
{
    const struct ts_sampling *p = row->sampling;
    float least = p->min_p > 0 ? best + logf(p->min_p) * p->temperature : -INFINITY;
    uint32_t count = collect(s, logits, least);
    double total = 0, kept = 0;
    if (p->top_k > 0 && p->top_k < count)
        count = p->top_k;
    for (uint32_t i = 0; i < count; i++)
        total += exp(((double)s->candidates[i].logit - best) / p->temperature);
    uint32_t last = 0;
    for (; last < count && (last == 0 || kept < (double)p->top_p * total || p->top_p >= 1); last++)
        kept += exp(((double)s->candidates[last].logit - best) / p->temperature);
    double at = ts_philox_unit(p->seed, row->sample_index) * kept, sum = 0;
    for (uint32_t i = 0; i < last; i++) {
        sum += exp(((double)s->candidates[i].logit - best) / p->temperature);
        if (at < sum)
            return s->candidates[i].token;
    }
    return s->candidates[last - 1].token;
}

static void fill_logprobs(struct ts_sampler *s, const float *logits, uint32_t wanted, double norm,
                          struct ts_engine_sample *out)
{
    uint32_t count = wanted < TS_LOGPROBS_MAX ? wanted : TS_LOGPROBS_MAX;
    if (count > s->model->vocab)
        count = s->model->vocab;
    if (count > 0)
        collect(s, logits, -INFINITY);
    for (uint32_t i = 0; i < count; i++)
        out->top[i] =
            (struct ts_engine_logprob){s->candidates[i].token, (float)(s->candidates[i].logit - norm)};
    out->top_count = count;
}

void ts_sample(struct ts_sampler *sampler, float *logits, const struct ts_engine_row *row,
               struct ts_engine_sample *out)
{
    const struct ts_model *model = sampler->model;
    const struct ts_sampling *p = row->sampling;
    penalise(sampler, logits, row);
    for (uint32_t i = 0; row->sample_index < p->min_tokens && i < model->eos_count; i++)
        logits[model->eos[i]] = -INFINITY;
    uint32_t top = argmax(logits, model->vocab);
    float best = logits[top];
    double norm = log_sum(logits, model->vocab, best);
    out->tag = row->tag;
    out->token = p->temperature > 0 ? draw(sampler, logits, row, best) : top;
    out->logprob = (float)(logits[out->token] - norm);
    fill_logprobs(sampler, logits, p->logprobs, norm, out);
}
