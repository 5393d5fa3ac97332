/*
 * BLAKE2b (RFC 7693) cut to 8 bytes: the digest of a request's body. Clients in other languages must find the
 * same number, and every standard library has this hash. Identities that never leave our processes use
 * ts_hash64. Owns nothing; one object, one thread.
 */
#ifndef TS_BASE_BLAKE2B_H
#define TS_BASE_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

struct ts_blake2b {
    uint64_t state[8], total;
    uint8_t block[128];
    size_t used;
};

void ts_blake2b_init(struct ts_blake2b *b); /* digest of 8 bytes, no key */
void ts_blake2b_add(struct ts_blake2b *b, const void *data, size_t bytes);
uint64_t ts_blake2b_end(struct ts_blake2b *b); /* the 8 bytes, read little-endian */

#endif
