/*
 * Two generators. `ts_rng` is a seeded sequential stream (xoshiro256**, seeded by splitmix64) for
 * simulations, tests and jitter. `ts_philox` is counter-based (Philox4x32-10, Salmon et al., SC 2011): the
 * word for (seed, index) is a pure function, so that any worker draws the same random number for token
 * `index` of a request. Not for secrets; ts_random_u64 asks the kernel.
 */
#ifndef TS_BASE_RNG_H
#define TS_BASE_RNG_H

#include <stdint.h>

struct ts_rng {
    uint64_t s[4];
};

void ts_rng_init(struct ts_rng *rng, uint64_t seed);
uint64_t ts_rng_u64(struct ts_rng *rng);
uint64_t ts_rng_below(struct ts_rng *rng, uint64_t bound); /* uniform in [0, bound), bound > 0, unbiased */
double ts_rng_unit(struct ts_rng *rng);                    /* uniform in [0, 1) with 53 bits */
double ts_rng_exponential(struct ts_rng *rng, double mean);
double ts_rng_normal(struct ts_rng *rng);

/* The bare function of Salmon et al.; ts_philox() has the seed as its key and the index as the low half of
 * its counter. */
void ts_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
void ts_philox(uint64_t seed, uint64_t index, uint32_t out[4]);
double ts_philox_unit(uint64_t seed,
                      uint64_t index); /* uniform in [0, 1) with 53 bits, from the first two words */

uint64_t ts_splitmix64(uint64_t x);
uint64_t ts_random_u64(void); /* from the kernel, never 0: for incarnations */

#endif
