#include "gpu/codec/ts_codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "gpu/codec/codec_impl.h"

#define TILE_TOKENS  TS_KV_BLOCK_TOKENS
#define GROUP_MAX    256u
#define SEED_ESCAPED (1ULL << 63)

static const struct {
    const char *name;
    struct ts_codec codec;
} presets[] = {
    {"none", {.id = TS_CODEC_NONE, .key_bits = 16, .value_bits = 16}},
    {"i4", {.id = TS_CODEC_I4, .key_bits = 4, .value_bits = 4, .group = 64, .flags = TS_CODEC_ASYM}},
};

enum ts_status ts_codec_parse(const char *name, struct ts_codec *out, struct ts_error *err)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(presets); i++) {
        if (strcmp(name, presets[i].name) == 0) {
            *out = presets[i].codec;
            return TS_OK;
        }
    }
    return ts_error_set(err, TS_EUNSUPPORTED, "unknown KV codec \"%s\": expected none or i4", name);
}

const char *ts_codec_name(const struct ts_codec *codec)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(presets); i++) {
        if (presets[i].codec.id == codec->id)
            return presets[i].name;
    }
    return "unknown";
}

/* The group in effect: as asked where it divides head_dim, else the largest power of two that does. */
static uint32_t group_of(const struct ts_codec *codec, uint32_t head_dim)
{
    if (codec->group && head_dim % codec->group == 0)
        return codec->group;
    uint32_t group = head_dim & -head_dim;
    return group < GROUP_MAX ? group : GROUP_MAX;
}

enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err)
{
    if (codec->id == TS_CODEC_NONE)
        return TS_OK;
    if (codec->id != TS_CODEC_I4 || codec->key_bits != 4 || codec->value_bits != 4 ||
        codec->flags != TS_CODEC_ASYM)
        return ts_error_set(err, TS_EUNSUPPORTED, "unknown KV codec descriptor: id %d, %u/%u bits, flags %u",
                            codec->id, codec->key_bits, codec->value_bits, codec->flags);
    if (group_of(codec, head_dim) < 16)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "codec %s needs a head_dim that 16 divides, not %u: use codec none",
                            ts_codec_name(codec), head_dim);
    return TS_OK;
}

/* Byte offsets of the sections of a payload. */
struct layout {
    uint32_t tiles, blocks, group, groups; /* groups of one tile */
    size_t bitmap, scales, minima, codes, raw, tile_bytes;
};

static size_t align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static struct layout layout_of(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads,
                               uint32_t tokens)
{
    struct layout l = {.blocks = ts_kv_blocks_for(tokens), .tile_bytes = (size_t)TILE_TOKENS * head_dim * 2};
    l.tiles = 2 * heads * l.blocks;
    if (codec->id == TS_CODEC_NONE)
        return l;
    l.group = group_of(codec, head_dim);
    l.groups = TILE_TOKENS * (head_dim / l.group);
    l.scales = align16((l.tiles + 7) / 8);
    l.minima = l.scales + align16((size_t)l.tiles * l.groups * 2);
    l.codes = l.minima + align16((size_t)l.tiles * l.groups * 2);
    l.raw = l.codes + align16((size_t)l.tiles * TILE_TOKENS * head_dim / 2);
    return l;
}

size_t ts_codec_bytes(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens,
                      uint32_t escapes)
{
    struct layout l = layout_of(codec, head_dim, heads, tokens);
    return l.raw + (codec->id == TS_CODEC_NONE ? l.tiles : escapes) * l.tile_bytes;
}

size_t ts_codec_bytes_max(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens)
{
    return ts_codec_bytes(codec, head_dim, heads, tokens, 2 * heads * ts_kv_blocks_for(tokens));
}

static uint16_t *tile_at(const struct ts_codec_view *view, const struct ts_codec_chunk *c, uint32_t kv,
                         uint32_t head, uint32_t block)
{
    size_t tile = (size_t)TILE_TOKENS * view->head_dim * 2;
    size_t index =
        ((size_t)c->layer * view->pool_blocks + view->blocks[c->token_begin / TILE_TOKENS + block]) * 2 + kv;
    return (uint16_t *)(view->pool + (index * view->pool_heads + c->head_begin + head) * tile);
}

/* Tokens of the chunk that lie in this block of it. */
static uint32_t rows_of(const struct ts_codec_chunk *c, uint32_t block)
{
    uint32_t left = c->token_count - block * TILE_TOKENS;
    return left < TILE_TOKENS ? left : TILE_TOKENS;
}

static void check_shape(const struct ts_codec_view *view, const struct ts_codec_chunk *c)
{
    TS_ASSERT(c->token_begin % TILE_TOKENS == 0);
    TS_ASSERT(c->head_begin + c->head_count <= view->pool_heads);
    TS_ASSERT((uint64_t)c->token_begin + c->token_count <= (uint64_t)view->block_count * TILE_TOKENS);
}

/* A tile whose tokens beyond the sequence are zeros, so that the bytes do not depend on what lies there. */
static const uint16_t *padded(const uint16_t *tile, uint32_t rows, uint32_t head_dim, uint16_t *scratch)
{
    if (rows == TILE_TOKENS)
        return tile;
    memcpy(scratch, tile, (size_t)rows * head_dim * 2);
    memset(scratch + (size_t)rows * head_dim, 0, (size_t)(TILE_TOKENS - rows) * head_dim * 2);
    return scratch;
}

static const struct codec_level *level(void);

static void encode_one(const struct layout *l, const struct ts_codec_view *from, const uint16_t *tile,
                       uint32_t index, uint8_t *out, uint32_t *escapes)
{
    uint8_t *codes = out + l->codes + (size_t)index * TILE_TOKENS * from->head_dim / 2;
    uint16_t *scales = (uint16_t *)(out + l->scales) + (size_t)index * l->groups;
    uint16_t *minima = (uint16_t *)(out + l->minima) + (size_t)index * l->groups;
    if (level()->encode_tile(tile, from->dtype, TILE_TOKENS, from->head_dim, l->group, scales, minima, codes))
        return;
    memset(scales, 0, (size_t)l->groups * 2);
    memset(minima, 0, (size_t)l->groups * 2);
    memset(codes, 0, (size_t)TILE_TOKENS * from->head_dim / 2);
    out[index / 8] |= (uint8_t)(1u << index % 8);
    memcpy(out + l->raw + (size_t)(*escapes)++ * l->tile_bytes, tile, l->tile_bytes);
}

/* Padding between sections is zero, so that equal caches give equal bytes. */
static void clear_padding(const struct layout *l, uint32_t head_dim, uint8_t *out)
{
    size_t params = (size_t)l->tiles * l->groups * 2, codes = (size_t)l->tiles * TILE_TOKENS * head_dim / 2;
    memset(out, 0, l->scales);
    memset(out + l->scales + params, 0, l->minima - l->scales - params);
    memset(out + l->minima + params, 0, l->codes - l->minima - params);
    memset(out + l->codes + codes, 0, l->raw - l->codes - codes);
}

size_t ts_codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                       const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes)
{
    uint16_t scratch[TILE_TOKENS * 1024];
    struct layout l = layout_of(codec, from->head_dim, chunk->head_count, chunk->token_count);
    uint32_t index = 0;
    check_shape(from, chunk);
    TS_ASSERT(from->head_dim <= 1024);
    *escapes = 0;
    if (codec->id != TS_CODEC_NONE)
        clear_padding(&l, from->head_dim, out);
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t head = 0; head < chunk->head_count; head++) {
            for (uint32_t block = 0; block < l.blocks; block++, index++) {
                const uint16_t *tile = tile_at(from, chunk, kv, head, block);
                tile = padded(tile, rows_of(chunk, block), from->head_dim, scratch);
                if (codec->id == TS_CODEC_NONE)
                    memcpy((uint8_t *)out + index * l.tile_bytes, tile, l.tile_bytes);
                else
                    encode_one(&l, from, tile, index, out, escapes);
            }
        }
    }
    return ts_codec_bytes(codec, from->head_dim, chunk->head_count, chunk->token_count, *escapes);
}

static bool escaped(const uint8_t *payload, uint32_t index)
{
    return payload[index / 8] >> index % 8 & 1;
}

/* Length against shape and bitmap; bits beyond the tiles must be zero. */
static bool payload_fits(const struct ts_codec *codec, uint32_t head_dim, const struct ts_codec_chunk *c,
                         const struct layout *l, const uint8_t *payload, size_t bytes)
{
    uint32_t escapes = 0;
    if (codec->id == TS_CODEC_NONE)
        return bytes == l->tiles * l->tile_bytes;
    if (bytes < l->raw)
        return false;
    for (uint32_t i = 0; i < l->scales * 8; i++) {
        if (escaped(payload, i) && i >= l->tiles)
            return false;
        escapes += escaped(payload, i);
    }
    return bytes == ts_codec_bytes(codec, head_dim, c->head_count, c->token_count, escapes);
}

/* The sections of one tile of a checked payload. */
struct tile_parts {
    const uint16_t *raw; /* or NULL */
    const uint16_t *scales, *minima;
    const uint8_t *codes;
};

static struct tile_parts parts_of(const struct ts_codec *codec, uint32_t head_dim, const struct layout *l,
                                  const uint8_t *payload, uint32_t index, uint32_t *escapes)
{
    struct tile_parts p = {.raw = NULL};
    if (codec->id == TS_CODEC_NONE) {
        p.raw = (const uint16_t *)(payload + index * l->tile_bytes);
    } else if (escaped(payload, index)) {
        p.raw = (const uint16_t *)(payload + l->raw + (size_t)(*escapes)++ * l->tile_bytes);
    } else {
        p.scales = (const uint16_t *)(payload + l->scales) + (size_t)index * l->groups;
        p.minima = (const uint16_t *)(payload + l->minima) + (size_t)index * l->groups;
        p.codes = payload + l->codes + (size_t)index * TILE_TOKENS * head_dim / 2;
    }
    return p;
}

enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to)
{
    struct layout l = layout_of(codec, to->head_dim, chunk->head_count, chunk->token_count);
    uint32_t index = 0, escapes = 0;
    check_shape(to, chunk);
    if (!payload_fits(codec, to->head_dim, chunk, &l, payload, bytes))
        return TS_ECORRUPT;
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t head = 0; head < chunk->head_count; head++) {
            for (uint32_t block = 0; block < l.blocks; block++, index++) {
                struct tile_parts p = parts_of(codec, to->head_dim, &l, payload, index, &escapes);
                uint16_t *tile = tile_at(to, chunk, kv, head, block);
                uint32_t rows = rows_of(chunk, block);
                if (p.raw)
                    memcpy(tile, p.raw, (size_t)rows * to->head_dim * 2);
                else
                    level()->decode_tile(p.scales, p.minima, p.codes, to->dtype, rows, to->head_dim, l.group,
                                         tile);
            }
        }
    }
    return TS_OK;
}

enum ts_status ts_codec_digest(const struct ts_codec *codec, uint32_t head_dim, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    struct layout l = layout_of(codec, head_dim, chunk->head_count, chunk->token_count);
    uint32_t index = 0, escapes = 0;
    if (!payload_fits(codec, head_dim, chunk, &l, payload, bytes))
        return TS_ECORRUPT;
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t head = 0; head < chunk->head_count; head++) {
            for (uint32_t block = 0; block < l.blocks; block++, index++) {
                struct tile_parts p = parts_of(codec, head_dim, &l, payload, index, &escapes);
                uint64_t seed = (uint64_t)kv << 32 | (chunk->token_begin / TILE_TOKENS + block);
                if (p.raw) {
                    digest[head] ^= ts_hash64(p.raw, l.tile_bytes, seed | SEED_ESCAPED);
                    continue;
                }
                uint64_t hash = ts_hash64(p.scales, (size_t)l.groups * 2, seed);
                hash = ts_hash64(p.minima, (size_t)l.groups * 2, hash);
                digest[head] ^= ts_hash64(p.codes, (size_t)TILE_TOKENS * head_dim / 2, hash);
            }
        }
    }
    return TS_OK;
}

/* --- dispatch --- */

static const struct codec_level *const levels[] = {
#if defined(TS_CODEC_SIMD)
    &codec_avx512, &codec_avx2,
#endif
    &codec_scalar};

static _Atomic(const struct codec_level *) current;

static bool supported(const struct codec_level *l)
{
#if defined(TS_CODEC_SIMD)
    if (l == &codec_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (l == &codec_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
#endif
    return l == &codec_scalar;
}

enum ts_status ts_codec_set_level(const char *name)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(levels); i++) {
        if (strcmp(levels[i]->name, name) == 0 && supported(levels[i])) {
            atomic_store(&current, levels[i]);
            return TS_OK;
        }
    }
    return TS_EUNSUPPORTED;
}

static const struct codec_level *level(void)
{
    const struct codec_level *l = atomic_load_explicit(&current, memory_order_relaxed);
    if (l)
        return l;
    const char *wish = getenv("TS_CPU_LEVEL");
    if (!wish || ts_codec_set_level(wish) != TS_OK) {
        size_t i = 0;
        while (!supported(levels[i]))
            i++;
        atomic_store(&current, levels[i]);
    }
    return atomic_load(&current);
}

const char *ts_codec_level(void)
{
    return level()->name;
}
