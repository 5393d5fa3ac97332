#include "common/core/ts_kv.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_model.h"

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t t = *a;
    *a = *b;
    *b = t;
}

static void push(struct ts_kv *kv, uint32_t id)
{
    uint32_t i = kv->free_count++;
    kv->heap[i] = id;
    for (; i > 0 && kv->heap[(i - 1) / 2] > kv->heap[i]; i = (i - 1) / 2)
        swap(&kv->heap[i], &kv->heap[(i - 1) / 2]);
}

static uint32_t pop(struct ts_kv *kv)
{
    uint32_t id = kv->heap[0], i = 0;
    kv->heap[0] = kv->heap[--kv->free_count];
    for (;;) {
        uint32_t least = i, left = 2 * i + 1;
        if (left < kv->free_count && kv->heap[left] < kv->heap[least])
            least = left;
        if (left + 1 < kv->free_count && kv->heap[left + 1] < kv->heap[least])
            least = left + 1;
        if (least == i)
            return id;
        swap(&kv->heap[i], &kv->heap[least]);
        i = least;
    }
}

void ts_kv_init(struct ts_kv *kv, uint32_t blocks)
{
    *kv = (struct ts_kv){.blocks = blocks};
    kv->heap = ts_xcalloc(blocks ? blocks : 1, sizeof *kv->heap);
    kv->owner = ts_xcalloc(blocks ? blocks : 1, sizeof *kv->owner);
    kv->generation = ts_xcalloc(blocks ? blocks : 1, sizeof *kv->generation);
    for (uint32_t i = 0; i < blocks; i++)
        push(kv, i);
}

void ts_kv_fini(struct ts_kv *kv)
{
    ts_free(kv->heap);
    ts_free(kv->owner);
    ts_free(kv->generation);
    *kv = (struct ts_kv){.blocks = 0};
}

bool ts_kv_take(struct ts_kv *kv, uint64_t owner, uint32_t count, uint32_t *out)
{
    TS_ASSERT(owner != 0);
    if (count > kv->free_count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = pop(kv);
        TS_ASSERT(kv->owner[out[i]] == 0);
        kv->owner[out[i]] = owner;
    }
    return true;
}

void ts_kv_give(struct ts_kv *kv, uint64_t owner, const uint32_t *blocks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        TS_ASSERT(blocks[i] < kv->blocks && kv->owner[blocks[i]] == owner);
        kv->owner[blocks[i]] = 0;
        kv->generation[blocks[i]]++;
        push(kv, blocks[i]);
    }
}

void ts_kv_move(struct ts_kv *kv, uint64_t from, uint64_t to, uint32_t block)
{
    TS_ASSERT(to != 0 && block < kv->blocks && kv->owner[block] == from);
    kv->owner[block] = to;
}

uint64_t ts_kv_chain(uint64_t before, const uint32_t *tokens)
{
    return ts_hash64(tokens, TS_KV_BLOCK_TOKENS * sizeof *tokens, before);
}
