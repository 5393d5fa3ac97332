/*
 * Non-cryptographic hashes (xxHash, XXH3) for identities: body digests, token chains, model fingerprints. The
 * only file that includes xxhash.h.
 */
#ifndef TS_BASE_HASH_H
#define TS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t ts_hash64(const void *data, size_t size, uint64_t seed);

#endif
