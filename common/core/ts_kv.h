/*
 * The free list of a worker's KV blocks. Blocks are counted by owner: a block is free or owned by exactly one
 * sequence; taking and giving back are all or nothing. The lowest free ids go out first, so runs are
 * deterministic. Plain memory, one thread.
 */
#ifndef TS_CORE_KV_H
#define TS_CORE_KV_H

#include <stdbool.h>
#include <stdint.h>

struct ts_kv {
    uint32_t blocks, free_count;
    uint32_t *heap;       /* min-heap of free ids */
    uint64_t *owner;      /* [blocks]; 0 = free */
    uint32_t *generation; /* [blocks]; how often it was given back: names what a block holds */
};

void ts_kv_init(struct ts_kv *kv, uint32_t blocks);
void ts_kv_fini(struct ts_kv *kv);
/* Takes `count` blocks for `owner` (not 0) into out[]. False, and nothing taken, when there are not so many.
 */
bool ts_kv_take(struct ts_kv *kv, uint64_t owner, uint32_t count, uint32_t *out);
/* Gives back; asserts that each belongs to `owner`. */
void ts_kv_give(struct ts_kv *kv, uint64_t owner, const uint32_t *blocks, uint32_t count);
/* From one owner to another, with what it holds: its generation stays. */
void ts_kv_move(struct ts_kv *kv, uint64_t from, uint64_t to, uint32_t block);

/* Names a block of TS_KV_BLOCK_TOKENS tokens by all that comes before it, the model's fingerprint first. */
uint64_t ts_kv_chain(uint64_t before, const uint32_t *tokens);

#endif
