/*
 * What a modelled device stands in for: it moves no bytes, yet both ends of a transfer must agree on digests,
 * and tokens must be a pure function of their history, so that the tests on lost, repeated or contradicting
 * tokens bite in simulation as well.
 */
#ifndef TS_CORE_MODELLED_H
#define TS_CORE_MODELLED_H

#include <stdint.h>

/* Stands for the digest of the encoded bytes of one KV head of a chunk. */
uint64_t ts_modelled_digest(uint32_t layer, uint32_t head, uint32_t token_begin, uint32_t token_count);

/* Output token `index` of a request whose prompt hashes to `prompt_hash`: in [0, vocab). */
uint32_t ts_modelled_token(uint64_t prompt_hash, uint64_t seed, uint32_t index, uint32_t vocab);

#endif
