/* Hashes where xxHash is missing, for kernels alone (TS_KERNELS_ONLY): slower, and other values than
 * ts_hash.c's, which no file or message holds there. */
#include "common/base/ts_blake2b.h"
#include "common/base/ts_hash.h"

uint64_t ts_hash64(const void *data, size_t size, uint64_t seed)
{
    struct ts_blake2b b;
    ts_blake2b_init(&b);
    ts_blake2b_add(&b, &seed, sizeof seed);
    ts_blake2b_add(&b, data, size);
    return ts_blake2b_end(&b);
}
