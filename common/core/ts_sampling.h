/*
 * How the next token is chosen. Plain data, fixed when a request is accepted and carried in every attempt, so
 * that any worker continues with the same result. A request may be silent about the first five fields:
 * `given` has a bit for each that it names. For the others the model's generation_config.json counts, and
 * where that is silent too, ts_sampling_defaults: temperature 1, no truncation, no penalty. ts_sampling_apply
 * is that rule; the worker applies it when it takes a request, so all attempts at one model sample alike.
 */
#ifndef TS_CORE_SAMPLING_H
#define TS_CORE_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#define TS_LOGPROBS_MAX 20

enum ts_sampling_given { /* bit n - 1 is field n of the message */
                         TS_SAMPLING_TEMPERATURE = 1,
                         TS_SAMPLING_TOP_K = 2,
                         TS_SAMPLING_TOP_P = 4,
                         TS_SAMPLING_MIN_P = 8,
                         TS_SAMPLING_REPETITION_PENALTY = 16,
                         TS_SAMPLING_ALL = 31
};

struct ts_sampling {
    float temperature; /* 0 = greedy; ties go to the lowest id */
    uint32_t top_k;    /* 0 = off */
    float top_p;       /* (0, 1], 1 = off */
    float min_p;       /* [0, 1), 0 = off: keep p >= min_p * p_max */
    float
        repetition_penalty; /* > 0, 1 = off; prompt and output tokens (CTRL, arXiv 1909.05858, section 4.1) */
    float presence_penalty; /* [-2, 2], output tokens only */
    float frequency_penalty; /* [-2, 2], output tokens only */
    uint64_t seed;           /* random number of output index i is ts_philox_unit(seed, i) */
    uint32_t max_tokens;     /* >= 1 */
    uint32_t min_tokens;     /* eos is masked before that many output tokens */
    bool ignore_eos;
    uint32_t logprobs; /* 0 = none; n = the chosen token's and the n best */
    uint32_t given;    /* mask of enum ts_sampling_given */
};

static inline struct ts_sampling ts_sampling_defaults(void)
{
    return (struct ts_sampling){
        .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .max_tokens = 16};
}

/* The request with what it does not name taken from `defaults` (a model's; all zero = it names nothing) or,
 * where they do not name it either, from ts_sampling_defaults. All is given in the result. */
struct ts_sampling ts_sampling_apply(const struct ts_sampling *request, const struct ts_sampling *defaults);

#endif
