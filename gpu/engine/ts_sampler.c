#include "gpu/engine/ts_sampler.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/engine/sampling_math.h"

#define SUM_LANES 16u
#define SUM_BLOCK 256u /* summed in fp32 before it joins the sum in double precision */

struct candidate {
    float logit;
    uint32_t token;
};

struct ts_sampler {
    const struct ts_model *model;
    struct candidate *candidates;
    uint32_t count, heap; /* candidates, and how many of them are still in the heap */
    uint32_t *counts;     /* occurrences of a token in the output; kept zero between calls */
    uint8_t *seen;        /* prompt or output; kept zero between calls */
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
    if (!ts_sampler_penalises(p))
        return;
    mark(s, row, true);
    for (uint32_t i = 0; i < s->model->vocab; i++) {
        if (s->seen[i])
            logits[i] = sampling_penalised(logits[i], p->repetition_penalty, p->presence_penalty,
                                           p->frequency_penalty, s->counts[i]);
    }
    mark(s, row, false);
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

/* Candidates are a heap with the best on top: mostly a few of them are looked at, and the order of all others
 * is never asked for. */
static void sift(struct candidate *heap, uint32_t count, uint32_t at)
{
    struct candidate moved = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static uint32_t argmax(const float *logits, uint32_t count)
{
    float best = -INFINITY; /* so that what is no number is passed over */
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (logits[i] > best) {
            best = logits[i];
            at = i;
        }
    }
    return at;
}

static double log_sum(const float *logits, uint32_t count, float best)
{
    double sum = 0; /* at least about 1, from the best itself */
    uint32_t i = 0;
    for (; i + SUM_BLOCK <= count; i += SUM_BLOCK) {
        float lane[SUM_LANES] = {0};
        for (uint32_t j = 0; j < SUM_BLOCK; j += SUM_LANES) {
            for (uint32_t l = 0; l < SUM_LANES; l++)
                lane[l] += sampling_exp(logits[i + j + l] - best);
        }
        for (uint32_t l = 0; l < SUM_LANES; l++)
            sum += lane[l];
    }
    for (; i < count; i++)
        sum += sampling_exp(logits[i] - best);
    return best + log(sum > 0.5 ? sum : 1);
}

/* The candidates: those with logits at least `least`. */
static void collect(struct ts_sampler *s, const float *logits, float least)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->model->vocab; i++) {
        if (logits[i] >= least)
            s->candidates[count++] = (struct candidate){logits[i], i};
    }
    for (uint32_t i = count / 2; i-- > 0;)
        sift(s->candidates, count, i);
    s->count = s->heap = count;
}

/* The n-th best candidate. Those asked for leave the heap and stay behind it, the best at the very end. */
static const struct candidate *ranked(struct ts_sampler *s, uint32_t n)
{
    while (s->heap > s->count - 1 - n) {
        struct candidate best = s->candidates[0];
        s->heap--;
        s->candidates[0] = s->candidates[s->heap];
        sift(s->candidates, s->heap, 0);
        s->candidates[s->heap] = best;
    }
    return &s->candidates[s->count - 1 - n];
}

static uint32_t draw(struct ts_sampler *s, const float *logits, const struct ts_engine_row *row, uint32_t top)
{
    const struct ts_sampling *p = row->sampling;
    float best = logits[top], coldness = ts_sampler_coldness(p);
    collect(s, logits, sampling_least(best, ts_sampler_log_min_p(p)));
    bool cut = p->top_k > 0 && p->top_k < s->count;
    uint32_t limit = cut ? p->top_k : s->count, n = 0;
    uint64_t total = 0, sum = 0;
    for (uint32_t i = 0; i < limit; i++)
        total += sampling_weight((cut ? ranked(s, i) : &s->candidates[i])->logit, best, coldness);
    if (total == 0)
        return top;     /* the best has no finite logit */
    if (p->top_p < 1) { /* the fewest that reach top_p */
        uint64_t wanted = sampling_nucleus(p->top_p, total);
        for (total = 0; total < wanted; n++)
            total += sampling_weight(ranked(s, n)->logit, best, coldness);
    }
    uint64_t target = sampling_target(ts_philox_unit(p->seed, row->sample_index), total);
    for (n = 0; sum < target; n++)
        sum += sampling_weight(ranked(s, n)->logit, best, coldness);
    return ranked(s, n - 1)->token;
}

static void fill_logprobs(struct ts_sampler *s, const float *logits, uint32_t wanted, double norm,
                          struct ts_engine_sample *out)
{
    uint32_t count = wanted < TS_LOGPROBS_MAX ? wanted : TS_LOGPROBS_MAX;
    if (count > 0)
        collect(s, logits, -INFINITY);
    count = count < s->count ? count : s->count;
    for (uint32_t i = 0; i < count; i++)
        out->top[i] = (struct ts_engine_logprob){ranked(s, i)->token, (float)(ranked(s, i)->logit - norm)};
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
    out->token = p->temperature > 0 ? draw(sampler, logits, row, top) : top;
    out->logprob = (float)(logits[out->token] - norm);
    fill_logprobs(sampler, logits, p->logprobs, norm, out);
}
