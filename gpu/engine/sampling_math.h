/*
 * The arithmetic that decides which token is drawn, for ts_sampler.c and for gpu/cuda/sample/sample.cu:
 * operations of fp32 and fp64 that IEEE 754 defines, in a fixed order (no contraction), and sums of whole
 * numbers, which are the same in any order. So CPU and devices choose alike, and a row's token does not
 * depend on how its vocabulary is divided among threads.
 *
 * A token's weight is exp((logit - best) / temperature) in units of 2^-44, cut to a whole number: the best
 * has 2^44, what is below 2^-44 of it has none and is never drawn, and 2^19 of them have a sum below 2^63.
 *
 * SAMPLING_MATH says what its functions are: kernels define it before they include this.
 */
#ifndef TS_GPU_SAMPLING_MATH_H
#define TS_GPU_SAMPLING_MATH_H

#include <stdint.h>
#include <string.h>

#if !defined(SAMPLING_MATH)
#define SAMPLING_MATH static inline
#endif

#define SAMPLING_WEIGHT_ONE 0x1p44f

/* exp of x <= 0: 2^(x log2 e) by a polynomial of degree 6 on [-0.5, 0.5]; about 2 ulp; no branches. What is
 * below 2^-126 is 2^-126, and so is what is no number. */
SAMPLING_MATH float sampling_exp(float x)
{
    float y = x * 1.44269504f;
    y = y > -126.0f ? y : -126.0f;
    float shifted = y + 0x1.8p23f, f = y - (shifted - 0x1.8p23f), p = 1.535336188e-4f;
    uint32_t bits, whole;
    p = p * f + 1.339887440e-3f;
    p = p * f + 9.618437357e-3f;
    p = p * f + 5.550332548e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472028e-1f;
    p = p * f + 1.0f;
    memcpy(&bits, &p, 4);
    memcpy(&whole, &shifted, 4);
    bits += whole << 23;
    memcpy(&p, &bits, 4);
    return p;
}

/* `coldness`: 1 / temperature. */
SAMPLING_MATH uint64_t sampling_weight(float logit, float best, float coldness)
{
    return (uint64_t)(sampling_exp((logit - best) * coldness) * SAMPLING_WEIGHT_ONE);
}

/* Of tokens in descending order of logits, those are kept whose logit is at least this. `log_min_p`: log of
 * min_p times the temperature, minus infinity without min_p. */
SAMPLING_MATH float sampling_least(float best, float log_min_p)
{
    return best + log_min_p;
}

/* Top-p keeps the fewest whose weights reach this: at least one. */
SAMPLING_MATH uint64_t sampling_nucleus(float top_p, uint64_t total)
{
    uint64_t wanted = (uint64_t)((double)top_p * (double)total);
    wanted = wanted < total ? wanted : total;
    return wanted > 0 ? wanted : 1;
}

/* The first is drawn with which the weights in descending order reach this, in 1 .. total. */
SAMPLING_MATH uint64_t sampling_target(double unit, uint64_t total)
{
    uint64_t at = (uint64_t)(unit * (double)total);
    return (at < total ? at : total - 1) + 1;
}

/* The logit of a token that prompt or output have, `count` times in the output. */
SAMPLING_MATH float sampling_penalised(float logit, float repetition, float presence, float frequency,
                                       uint32_t count)
{
    logit = logit > 0 ? logit / repetition : logit * repetition;
    return count ? logit - (presence + frequency * (float)count) : logit;
}

#endif
