/*
 * KV of prompts that is there already. Whole blocks of a prompt that came by transfer and were verified stay
 * known by what they hold when their task is over, and while others use them: a later prompt that begins
 * alike takes them as they are, and its relay sends only what follows. They belong to nobody (PREFIX_OWNER)
 * and are only read. What nobody uses counts as free memory and goes when it is wanted: the longest unused
 * first, and of one prompt the last block first, since blocks are looked up from the first on.
 *
 * A block is the same only if a transfer would bring the same bytes: same model (the chain begins with its
 * fingerprint), same tokens before and in it, same codec, and, where a codec looks at spans of several
 * blocks, the same tokens to the end of its span.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

#define NO_BLOCK UINT32_MAX

void prefix_init(struct prefix *p, uint32_t blocks, uint32_t idle_max)
{
    *p = (struct prefix){.head = NO_BLOCK, .tail = NO_BLOCK, .idle_max = idle_max};
    p->by_key = ts_map_new();
    p->entries = ts_xcalloc(blocks ? blocks : 1, sizeof *p->entries);
}

void prefix_fini(struct prefix *p)
{
    ts_map_destroy(&p->by_key);
    ts_free(p->entries);
}

/* --- those that nobody uses, in the order in which they go ---------------------------------------------- */

static void idle_add(struct prefix *p, uint32_t block)
{
    struct prefix_entry *e = &p->entries[block];
    e->prev = p->tail;
    e->next = NO_BLOCK;
    *(p->tail != NO_BLOCK ? &p->entries[p->tail].next : &p->head) = block;
    p->tail = block;
    p->idle++;
}

static void idle_remove(struct prefix *p, uint32_t block)
{
    const struct prefix_entry *e = &p->entries[block];
    *(e->prev != NO_BLOCK ? &p->entries[e->prev].next : &p->head) = e->next;
    *(e->next != NO_BLOCK ? &p->entries[e->next].prev : &p->tail) = e->prev;
    p->idle--;
}

static void give_back(struct worker_core *core, const uint32_t *blocks, uint32_t count)
{
    const uint32_t *copy = ts_arena_copy(&core->out->arena, blocks, count * sizeof *blocks);
    ts_actions_add(core->out, TS_ACTION_FREE_BLOCKS)->free_blocks.blocks = (struct ts_u32s){copy, count};
}

static void evict(struct worker_core *core, uint32_t count)
{
    struct prefix *p = &core->prefix;
    uint32_t *blocks = ts_arena_alloc(&core->out->arena, count * sizeof *blocks);
    for (uint32_t i = 0; i < count; i++) {
        struct prefix_entry *e = &p->entries[blocks[i] = p->head];
        idle_remove(p, blocks[i]);
        ts_map_remove(p->by_key, &e->key, sizeof e->key);
        e->cached = false;
    }
    ts_kv_give(&core->kv, PREFIX_OWNER, blocks, count);
    core->counts.prefix_evicted += count;
    give_back(core, blocks, count);
}

uint32_t prefix_room(const struct worker_core *core)
{
    return core->kv.free_count + core->prefix.idle;
}

void prefix_make_room(struct worker_core *core, uint32_t count)
{
    if (count > core->kv.free_count && count <= prefix_room(core))
        evict(core, count - core->kv.free_count);
}

/* --- what a block holds --------------------------------------------------------------------------------- */

static uint64_t codec_hash(const struct ts_codec *c)
{
    const uint32_t words[] = {c->key.bits,    c->key.flags,   c->key.group, c->value.bits,
                              c->value.flags, c->value.group, c->raw_tokens};
    return ts_hash64(c->layers.data, c->layers.count * sizeof *c->layers.data,
                     ts_hash64(words, sizeof words, 0));
}

/* Blocks of the transfer's whole spans: those that others may come to use. */
static uint32_t whole_blocks(const struct task *t)
{
    uint32_t span = ts_codec_span(&t->codec);
    return t->prompt_count / span * (span / TS_KV_BLOCK_TOKENS);
}

static struct prefix_key key_of(const struct task *t, uint64_t codec, uint32_t block)
{
    uint32_t span = ts_codec_span(&t->codec) / TS_KV_BLOCK_TOKENS, last = block / span * span + span - 1;
    return (struct prefix_key){t->chain[block], t->chain[last], codec};
}

void prefix_remember(const struct worker_core *core, struct task *t, struct ts_u64s chain)
{
    if (core->prefix.idle_max == 0 || chain.count != t->prompt_count / TS_KV_BLOCK_TOKENS)
        return;
    t->chain = ts_xcalloc(chain.count + 1, sizeof *t->chain);
    if (chain.count)
        memcpy(t->chain, chain.data, chain.count * sizeof *t->chain);
}

/* What is there of its prompt, in whole spans from the first token on. */
static uint32_t find(const struct worker_core *core, const struct task *t, uint64_t codec)
{
    uint32_t span = ts_codec_span(&t->codec) / TS_KV_BLOCK_TOKENS, most = whole_blocks(t), count = 0;
    while (count < most) {
        struct prefix_key key = key_of(t, codec, count);
        if (!ts_map_get(core->prefix.by_key, &key, sizeof key))
            break;
        count++;
    }
    return count / span * span;
}

static void use(struct prefix *p, uint32_t block)
{
    if (p->entries[block].users++ == 0)
        idle_remove(p, block);
}

void prefix_take(struct worker_core *core, struct task *t)
{
    struct prefix *p = &core->prefix;
    if (!t->chain)
        return;
    uint64_t codec = codec_hash(&t->codec);
    uint32_t count = find(core, t, codec);
    size_t capacity = t->block_capacity;
    TS_ASSERT(t->block_count == 0);
    ts_array_reserve((void **)&t->blocks, &capacity, count, sizeof *t->blocks);
    t->block_capacity = (uint32_t)capacity;
    for (uint32_t i = 0; i < count; i++) {
        struct prefix_key key = key_of(t, codec, i);
        const struct prefix_entry *e = ts_map_get(p->by_key, &key, sizeof key);
        use(p, t->blocks[i] = (uint32_t)(e - p->entries));
    }
    t->shared = t->block_count = count;
    core->counts.prefix_hits += count;
}

/* Verified: its whole blocks are for all from now on. One that came twice meanwhile is kept once. */
void prefix_share(struct worker_core *core, struct task *t)
{
    struct prefix *p = &core->prefix;
    if (!t->chain)
        return;
    uint64_t codec = codec_hash(&t->codec);
    uint32_t most = whole_blocks(t), twice_count = 0;
    uint32_t *twice = ts_arena_alloc(&core->out->arena, (most + 1) * sizeof *twice);
    for (uint32_t i = t->shared; i < most; i++) {
        struct prefix_key key = key_of(t, codec, i);
        const struct prefix_entry *there = ts_map_get(p->by_key, &key, sizeof key);
        if (there) {
            twice[twice_count++] = t->blocks[i];
            use(p, t->blocks[i] = (uint32_t)(there - p->entries));
            continue;
        }
        struct prefix_entry *e = &p->entries[t->blocks[i]];
        *e = (struct prefix_entry){.key = key, .users = 1, .cached = true};
        ts_kv_move(&core->kv, t->tag, PREFIX_OWNER, t->blocks[i]);
        ts_map_put(p->by_key, &key, sizeof key, e);
    }
    t->shared = most > t->shared ? most : t->shared;
    if (twice_count > 0) {
        ts_kv_give(&core->kv, t->tag, twice, twice_count);
        give_back(core, twice, twice_count);
    }
}

void prefix_leave(struct worker_core *core, struct task *t)
{
    struct prefix *p = &core->prefix;
    for (uint32_t i = t->shared; i-- > 0;) {
        if (--p->entries[t->blocks[i]].users == 0)
            idle_add(p, t->blocks[i]);
    }
    t->shared = 0;
    if (p->idle > p->idle_max)
        evict(core, p->idle - p->idle_max);
}
