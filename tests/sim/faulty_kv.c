/* Pools, the KV of a prompt, and the work behind ENCODE and SCATTER. */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "faulty.h"

#define VOCAB 1000

struct faulty_pool *faulty_pool_new(struct faulty_layout layout)
{
    struct faulty_pool *pool = ts_xcalloc(1, sizeof *pool);
    pool->layout = layout;
    pool->bytes = (size_t)layout.layers * layout.blocks * 2 * layout.heads * TS_KV_BLOCK_TOKENS *
                  layout.head_dim * sizeof(uint16_t);
    pool->data = ts_xaligned(64, pool->bytes);
    memset(pool->data, FAULTY_POISON, pool->bytes);
    pool->generations = ts_xcalloc(layout.blocks, sizeof *pool->generations);
    return pool;
}

void faulty_pool_free(struct faulty_pool *pool)
{
    if (!pool)
        return;
    ts_free(pool->data);
    ts_free(pool->generations);
    ts_free(pool);
}

uint16_t *faulty_pool_row(const struct faulty_pool *pool, uint32_t layer, uint32_t block, uint32_t side,
                          uint32_t head, uint32_t token)
{
    const struct faulty_layout *l = &pool->layout;
    size_t tile = (((size_t)layer * l->blocks + block) * 2 + side) * l->heads + head;
    size_t at = (tile * TS_KV_BLOCK_TOKENS + token % TS_KV_BLOCK_TOKENS) * l->head_dim;
    return (uint16_t *)(void *)pool->data + at;
}

void faulty_pool_poison(struct faulty_pool *pool, struct ts_u32s blocks)
{
    const struct faulty_layout *l = &pool->layout;
    size_t block_bytes = (size_t)2 * l->heads * TS_KV_BLOCK_TOKENS * l->head_dim * sizeof(uint16_t);
    for (uint32_t layer = 0; layer < l->layers; layer++) {
        for (uint32_t i = 0; i < blocks.count; i++)
            memset(faulty_pool_row(pool, layer, blocks.data[i], 0, 0, 0), FAULTY_POISON, block_bytes);
    }
}

/* Finite numbers around 1; rarely one that no code of few bits can hold, so that tiles escape. */
static void fill_row(uint64_t key, enum ts_dtype dtype, uint32_t count, uint16_t *out)
{
    uint32_t mantissa = dtype == TS_DTYPE_BF16 ? 7 : 10, base = dtype == TS_DTYPE_BF16 ? 122 : 10;
    uint64_t word = 0;
    for (uint32_t i = 0; i < count; i++) {
        word = i % 4 == 0 ? ts_splitmix64(key + i) : word >> 16;
        uint32_t draw = (uint32_t)word & 0xffff, exponent = base + (draw >> 10 & 7);
        out[i] = (uint16_t)((draw & 0x8000) | exponent << mantissa | (draw & ((1u << mantissa) - 1)));
    }
    if (word % 512 == 0)
        out[0] = (uint16_t)((dtype == TS_DTYPE_BF16 ? 255u : 31u) << mantissa);
}

static uint64_t key_at(const struct faulty_request *r, uint32_t token)
{
    return token < r->fork ? r->key : r->other;
}

void faulty_kv_compute(const struct faulty_request *r, struct faulty_pool *pool, struct ts_u32s blocks,
                       uint32_t layer, uint32_t token_begin, uint32_t token_count)
{
    for (uint32_t side = 0; side < 2; side++) {
        for (uint32_t head = 0; head < pool->layout.heads; head++) {
            for (uint32_t token = token_begin; token < token_begin + token_count; token++) {
                uint64_t place = ((uint64_t)token << 24) + (layer << 16) + (head << 8) + side;
                TS_ASSERT(token / TS_KV_BLOCK_TOKENS < blocks.count);
                fill_row(
                    ts_splitmix64(key_at(r, token) ^ ts_splitmix64(place)), pool->layout.dtype,
                    pool->layout.head_dim,
                    faulty_pool_row(pool, layer, blocks.data[token / TS_KV_BLOCK_TOKENS], side, head, token));
            }
        }
    }
}

uint32_t faulty_token(const struct faulty_request *r, uint32_t output_index)
{
    return (uint32_t)(ts_splitmix64(r->other + 77 * (output_index + 1)) % VOCAB);
}

void faulty_request_init(struct faulty_request *r, uint64_t key, uint32_t prompt_tokens, const char *codec)
{
    *r = (struct faulty_request){.key = key, .prompt_count = prompt_tokens};
    r->prompt = ts_xcalloc(prompt_tokens, sizeof *r->prompt);
    snprintf(r->codec_name, sizeof r->codec_name, "%s", codec);
    faulty_request_fork(r, prompt_tokens, key);
}

void faulty_request_fork(struct faulty_request *r, uint32_t token, uint64_t key)
{
    r->fork = token;
    r->other = key;
    for (uint32_t i = 0; i < r->prompt_count; i++)
        r->prompt[i] = (uint32_t)(ts_splitmix64(key_at(r, i) ^ (i + 1)) % VOCAB);
}

void faulty_request_fini(struct faulty_request *r)
{
    ts_free(r->prompt);
    faulty_pool_free(r->expected);
    r->prompt = NULL;
    r->expected = NULL;
}

static struct ts_codec_view view_of(const struct faulty_pool *pool, struct ts_u32s blocks)
{
    return (struct ts_codec_view){.pool = pool->data,
                                  .pool_blocks = pool->layout.blocks,
                                  .pool_heads = pool->layout.heads,
                                  .head_dim = pool->layout.head_dim,
                                  .dtype = pool->layout.dtype,
                                  .blocks = blocks.data,
                                  .block_count = blocks.count};
}

/* The whole prompt at once, without a network. */
static void expect(struct faulty_request *r, const struct faulty_layout *like)
{
    struct faulty_layout layout = *like;
    uint32_t blocks[64];
    layout.blocks = ts_kv_blocks_for(r->prompt_count);
    TS_ASSERT(layout.blocks <= TS_ARRAY_SIZE(blocks));
    for (uint32_t i = 0; i < layout.blocks; i++)
        blocks[i] = i;
    struct faulty_pool *from = faulty_pool_new(layout);
    struct ts_u32s all = {blocks, layout.blocks};
    struct ts_codec codec;
    enum ts_status known = ts_codec_parse(r->codec_name, &codec, NULL);
    TS_ASSERT(known == TS_OK);
    codec = ts_codec_for_prompt(&codec, r->prompt_count);
    r->expected = faulty_pool_new(layout);
    for (uint32_t layer = 0; layer < layout.layers; layer++) {
        const struct ts_codec_chunk chunk = {
            .layer = layer, .head_count = layout.heads, .token_count = r->prompt_count};
        const struct ts_codec_view in = view_of(from, all), out = view_of(r->expected, all);
        uint32_t escapes;
        faulty_kv_compute(r, from, all, layer, 0, r->prompt_count);
        size_t most =
            ts_codec_bytes_max(&codec, (struct ts_codec_cache){layout.head_dim, layout.dtype}, &chunk);
        uint8_t *payload = ts_xaligned(64, most);
        size_t bytes = ts_codec_encode(&codec, &in, &chunk, payload, &escapes);
        enum ts_status status = ts_codec_decode(&codec, payload, bytes, &chunk, &out);
        TS_ASSERT(status == TS_OK);
        ts_free(payload);
    }
    faulty_pool_free(from);
}

bool faulty_kv_right(struct faulty_request *r, const struct faulty_pool *pool, struct ts_u32s blocks,
                     struct ts_error *err)
{
    const struct faulty_layout *l = &pool->layout;
    TS_ASSERT(l->heads > 0);
    if (!r->expected)
        expect(r, l);
    if (blocks.count < r->expected->layout.blocks) {
        ts_error_set(err, TS_ECORRUPT, "%u blocks for %u tokens", blocks.count, r->prompt_count);
        return false;
    }
    for (uint32_t layer = 0; layer < l->layers; layer++) {
        for (uint32_t block = 0; block < r->expected->layout.blocks; block++) {
            uint32_t rows = r->prompt_count - block * TS_KV_BLOCK_TOKENS;
            rows = rows < TS_KV_BLOCK_TOKENS ? rows : TS_KV_BLOCK_TOKENS;
            for (uint32_t tile = 0; tile < 2 * l->heads; tile++) {
                uint32_t side = tile / l->heads, head = tile % l->heads;
                if (memcmp(faulty_pool_row(pool, layer, blocks.data[block], side, head, 0),
                           faulty_pool_row(r->expected, layer, block, side, head, 0),
                           (size_t)rows * l->head_dim * sizeof(uint16_t)) == 0)
                    continue;
                ts_error_set(err, TS_ECORRUPT, "a wrong byte: layer %u, %s, head %u, tokens from %u", layer,
                             side ? "values" : "keys", head, block * TS_KV_BLOCK_TOKENS);
                return false;
            }
        }
    }
    return true;
}

/* The worker counts before it writes a block anew. */
static bool still_theirs(const struct faulty_pool *pool, const struct ts_action_encode *a)
{
    for (uint32_t i = a->token_begin / TS_KV_BLOCK_TOKENS;
         i < ts_kv_blocks_for(a->token_begin + a->token_count); i++) {
        if (pool->generations[a->blocks.data[i]] != a->generations.data[i])
            return false;
    }
    return true;
}

void faulty_encode(const struct faulty_pool *pool, const struct ts_action_encode *a, struct ts_event *event,
                   struct ts_frame **frame, struct ts_arena *arena)
{
    const struct ts_codec codec = a->codec;
    const struct ts_codec_cache cache = {pool->layout.head_dim, pool->layout.dtype};
    const struct ts_codec_view view = view_of(pool, a->blocks);
    const struct ts_codec_chunk chunk = {.layer = a->layer,
                                         .head_begin = a->head_begin,
                                         .head_count = a->head_count,
                                         .token_begin = a->token_begin,
                                         .token_count = a->token_count};
    uint64_t *digests = ts_arena_zalloc(arena, a->head_count * sizeof *digests);
    struct ts_event_encoded *e = &event->encoded;
    *event = (struct ts_event){.kind = TS_EVENT_ENCODED};
    *e = (struct ts_event_encoded){.job = a->job, .digests = {digests, a->head_count}};
    TS_ASSERT(ts_codec_shape_ok(&codec, cache.head_dim, &chunk));
    struct ts_codec_sums sums = {.digest = digests};
    *frame = ts_frame_new(ts_codec_bytes_max(&codec, cache, &chunk));
    (*frame)->bytes = ts_codec_give(&codec, &view, &chunk, (*frame)->data, &e->escapes, &sums);
    e->crc32c = sums.crc;
    if (!still_theirs(pool, a))
        e->reason = TS_REASON_KV_CORRUPT;
}

void faulty_scatter(struct faulty_pool *pool, const struct ts_action_scatter *a, const struct ts_frame *frame,
                    struct ts_event *event, struct ts_arena *arena)
{
    const struct ts_codec codec = a->codec;
    const struct ts_codec_view view = view_of(pool, a->blocks);
    const struct ts_codec_chunk chunk = {.layer = a->layer,
                                         .head_begin = a->head_begin,
                                         .head_count = a->head_count,
                                         .token_begin = a->token_begin,
                                         .token_count = a->token_count};
    uint64_t *digests = ts_arena_zalloc(arena, a->head_count * sizeof *digests);
    struct ts_codec_sums sums = {.crc = a->crc32c, .digest = digests};
    struct ts_event_scattered *e = &event->scattered;
    *event = (struct ts_event){.kind = TS_EVENT_SCATTERED};
    *e = (struct ts_event_scattered){.job = a->job, .digests = {digests, a->head_count}};
    if (!ts_codec_shape_ok(&codec, pool->layout.head_dim, &chunk))
        e->reason = TS_REASON_KV_MISMATCH;
    else if (!frame || ts_codec_take(&codec, frame->data, frame->bytes, &chunk, &view, &sums) != TS_OK)
        e->reason = TS_REASON_KV_CORRUPT;
}
