#include "common/base/ts_rng.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <sys/random.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_math.h"

/* Steele, Lea, Flood 2014: one step of the generator whose state is `x`. */
uint64_t ts_splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void ts_rng_init(struct ts_rng *rng, uint64_t seed)
{
    for (uint64_t i = 0; i < 4; i++) {
        rng->s[i] = ts_splitmix64(seed + i * 0x9e3779b97f4a7c15u);
    }
}

/* xoshiro256**, Blackman and Vigna 2018. */
uint64_t ts_rng_u64(struct ts_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* Lemire 2019: the high word of a product, drawing again in the few cases that would favour small results. */
uint64_t ts_rng_below(struct ts_rng *rng, uint64_t bound)
{
    TS_ASSERT(bound > 0);
    unsigned __int128 product = (unsigned __int128)ts_rng_u64(rng) * bound;
    if ((uint64_t)product < bound) {
        uint64_t threshold = -bound % bound;
        while ((uint64_t)product < threshold) {
            product = (unsigned __int128)ts_rng_u64(rng) * bound;
        }
    }
    return (uint64_t)(product >> 64);
}

static double unit_of(uint64_t word)
{
    return (double)(word >> 11) * 0x1p-53;
}

double ts_rng_unit(struct ts_rng *rng)
{
    return unit_of(ts_rng_u64(rng));
}

double ts_rng_exponential(struct ts_rng *rng, double mean)
{
    return -mean * ts_math_log(1 - ts_rng_unit(rng));
}

/* Box-Muller, one of the pair: the generator keeps no spare value, so its state is its four words. */
double ts_rng_normal(struct ts_rng *rng)
{
    double radius = sqrt(-2.0 * ts_math_log(1 - ts_rng_unit(rng)));
    return radius * ts_math_cos_turns(ts_rng_unit(rng));
}

void ts_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void ts_philox(uint64_t seed, uint64_t index, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    ts_philox4x32(counter, key, out);
}

double ts_philox_unit(uint64_t seed, uint64_t index)
{
    uint32_t words[4];
    ts_philox(seed, index, words);
    return unit_of((uint64_t)words[1] << 32 | words[0]);
}

uint64_t ts_random_u64(void)
{
    uint64_t word = 0;
    while (word == 0) {
        /* Up to 256 bytes come whole or not at all; a signal may interrupt only the wait for the first
         * seeding. */
        if (getrandom(&word, sizeof word, 0) != (ssize_t)sizeof word) {
            TS_ASSERT(errno == EINTR);
            word = 0;
        }
    }
    return word;
}
