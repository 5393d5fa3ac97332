#include "gpu/codec/ts_codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "gpu/codec/codec_impl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#else
#include <fenv.h>
#endif

#define TILE_TOKENS  TS_KV_BLOCK_TOKENS
#define GROUP_MAX    256u
#define GROUP_MIN    16u
#define DIM_MAX      1024u
#define TILES_MAX    (1u << 30)
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

static const char *name_of(const struct ts_codec *codec)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(presets); i++) {
        if (presets[i].codec.id == codec->id)
            return presets[i].name;
    }
    return "unknown";
}

/* The group in effect: as asked, or the largest power of two that divides head_dim when that is smaller. */
static uint32_t group_of(const struct ts_codec *codec, uint32_t head_dim)
{
    uint32_t group = head_dim & -head_dim;
    return group < codec->group ? group : codec->group;
}

enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err)
{
    bool none = codec->id == TS_CODEC_NONE;
    uint32_t bits = none ? 16 : 4, flags = none ? 0 : TS_CODEC_ASYM, group = codec->group;
    bool grouped = group >= GROUP_MIN && group <= GROUP_MAX && (group & (group - 1)) == 0;
    if ((!none && codec->id != TS_CODEC_I4) || codec->key_bits != bits || codec->value_bits != bits ||
        codec->flags != flags || (none ? group != 0 : !grouped))
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "unknown KV codec descriptor: id %d, %u/%u bits, group %u, flags %u", codec->id,
                            codec->key_bits, codec->value_bits, group, codec->flags);
    if (head_dim == 0 || head_dim > DIM_MAX)
        return ts_error_set(err, TS_EUNSUPPORTED, "the KV codecs take a head_dim of 1 to %u, not %u", DIM_MAX,
                            head_dim);
    if (!none && group_of(codec, head_dim) < GROUP_MIN)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "codec %s needs a head_dim that 16 divides, not %u: use codec none",
                            name_of(codec), head_dim);
    return TS_OK;
}

static uint64_t blocks_for(uint32_t tokens)
{
    return ((uint64_t)tokens + TILE_TOKENS - 1) / TILE_TOKENS;
}

bool ts_codec_shape_ok(uint32_t head_dim, const struct ts_codec_chunk *c)
{
    return head_dim >= 1 && head_dim <= DIM_MAX && c->token_begin % TILE_TOKENS == 0 &&
           (uint64_t)c->token_begin + c->token_count <= UINT32_MAX &&
           (uint64_t)c->head_begin + c->head_count <= UINT32_MAX &&
           (c->token_count == 0 || c->head_count <= TILES_MAX / 2 / blocks_for(c->token_count));
}

/* Byte offsets of the sections of a payload. */
struct layout {
    uint32_t tiles, blocks, group, groups; /* groups of one tile */
    size_t scales, minima, codes, raw, tile_bytes;
};

static size_t align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static struct layout layout_of(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads,
                               uint32_t tokens)
{
    struct ts_codec_chunk shape = {.head_count = heads, .token_count = tokens};
    TS_ASSERT(ts_codec_shape_ok(head_dim, &shape));
    struct layout l = {.blocks = (uint32_t)blocks_for(tokens),
                       .tile_bytes = (size_t)TILE_TOKENS * head_dim * 2};
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
    struct layout l = layout_of(codec, head_dim, heads, tokens);
    return l.raw + l.tiles * l.tile_bytes;
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
    TS_ASSERT(ts_codec_shape_ok(view->head_dim, c));
    TS_ASSERT((uint64_t)c->head_begin + c->head_count <= view->pool_heads);
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

/* Other libraries of a process may have set another rounding mode, or flushing of subnormals, on this thread:
 * the bytes must not depend on it. */
#if defined(__x86_64__)
typedef unsigned int float_mode;

static float_mode float_mode_enter(void)
{
    float_mode mode = _mm_getcsr();
    _mm_setcsr(0x1f80); /* to nearest even, exceptions masked, no FTZ, no DAZ */
    return mode;
}

static void float_mode_leave(float_mode mode)
{
    _mm_setcsr(mode);
}
#else
typedef fenv_t float_mode;

static float_mode float_mode_enter(void)
{
    float_mode mode;
    fegetenv(&mode);
    fesetenv(FE_DFL_ENV);
    return mode;
}

static void float_mode_leave(float_mode mode)
{
    fesetenv(&mode);
}
#endif

static void encode_one(const struct layout *l, const struct ts_codec_view *from, const uint16_t *tile,
                       uint32_t index, uint8_t *out, uint32_t *escapes)
{
    uint8_t *codes = out + l->codes + (size_t)index * TILE_TOKENS * from->head_dim / 2;
    uint16_t *scales = (uint16_t *)(out + l->scales) + (size_t)index * l->groups;
    uint16_t *minima = (uint16_t *)(out + l->minima) + (size_t)index * l->groups;
    if (level()->encode_tile(tile, from->dtype, from->head_dim, l->group, scales, minima, codes))
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
    uint16_t scratch[TILE_TOKENS * DIM_MAX];
    uint32_t index = 0;
    check_shape(from, chunk);
    struct layout l = layout_of(codec, from->head_dim, chunk->head_count, chunk->token_count);
    float_mode mode = float_mode_enter();
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
    float_mode_leave(mode);
    return ts_codec_bytes(codec, from->head_dim, chunk->head_count, chunk->token_count, *escapes);
}

static bool escaped(const uint8_t *payload, size_t index)
{
    return payload[index / 8] >> index % 8 & 1;
}

static bool all_zero(const uint8_t *at, size_t bytes)
{
    return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

static bool padding_zero(const struct layout *l, uint32_t head_dim, const uint8_t *payload)
{
    size_t params = (size_t)l->tiles * l->groups * 2, codes = (size_t)l->tiles * TILE_TOKENS * head_dim / 2;
    size_t bitmap = ((size_t)l->tiles + 7) / 8;
    return all_zero(payload + bitmap, l->scales - bitmap) &&
           all_zero(payload + l->scales + params, l->minima - l->scales - params) &&
           all_zero(payload + l->minima + params, l->codes - l->minima - params) &&
           all_zero(payload + l->codes + codes, l->raw - l->codes - codes);
}

/* Parameters of a tile that is not escaped: scales are finite and not negative, minima finite. */
static bool parameters_sane(const uint8_t *scales, const uint8_t *minima, uint32_t groups)
{
    uint32_t bad = 0;
    for (uint32_t g = 0; g < groups; g++) {
        uint16_t scale, minimum;
        memcpy(&scale, scales + (size_t)g * 2, 2);
        memcpy(&minimum, minima + (size_t)g * 2, 2);
        bad |= (uint32_t)(scale >= 0x7c00) | (uint32_t)((minimum & 0x7fff) >= 0x7c00);
    }
    return bad == 0;
}

/* What no encoder writes is refused, so that one cache has one encoding. */
static bool tiles_sane(const struct layout *l, uint32_t head_dim, const uint8_t *payload)
{
    size_t params = (size_t)l->groups * 2, codes = (size_t)TILE_TOKENS * head_dim / 2;
    for (uint32_t i = 0; i < l->tiles; i++) {
        const uint8_t *scales = payload + l->scales + i * params, *minima = payload + l->minima + i * params;
        if (escaped(payload, i) ? !all_zero(scales, params) || !all_zero(minima, params) ||
                                      !all_zero(payload + l->codes + i * codes, codes)
                                : !parameters_sane(scales, minima, l->groups))
            return false;
    }
    return true;
}

/* The length against shape and bitmap, then the content. */
static bool payload_fits(const struct ts_codec *codec, uint32_t head_dim, const struct ts_codec_chunk *c,
                         const struct layout *l, const uint8_t *payload, size_t bytes)
{
    uint32_t escapes = 0;
    if (codec->id == TS_CODEC_NONE)
        return bytes == l->tiles * l->tile_bytes;
    if (bytes < l->raw)
        return false;
    for (size_t i = 0; i < l->scales * 8; i++) {
        if (escaped(payload, i) && i >= l->tiles)
            return false;
        escapes += escaped(payload, i);
    }
    return bytes == ts_codec_bytes(codec, head_dim, c->head_count, c->token_count, escapes) &&
           padding_zero(l, head_dim, payload) && tiles_sane(l, head_dim, payload);
}

/* The sections of one tile of a checked payload: bytes, since a received payload lies at any address. */
struct tile_parts {
    const uint8_t *raw; /* or NULL */
    const uint8_t *scales, *minima, *codes;
};

static struct tile_parts parts_of(const struct ts_codec *codec, uint32_t head_dim, const struct layout *l,
                                  const uint8_t *payload, uint32_t index, uint32_t *escapes)
{
    struct tile_parts p = {.raw = NULL};
    if (codec->id == TS_CODEC_NONE) {
        p.raw = payload + index * l->tile_bytes;
    } else if (escaped(payload, index)) {
        p.raw = payload + l->raw + (size_t)(*escapes)++ * l->tile_bytes;
    } else {
        p.scales = payload + l->scales + (size_t)index * l->groups * 2;
        p.minima = payload + l->minima + (size_t)index * l->groups * 2;
        p.codes = payload + l->codes + (size_t)index * TILE_TOKENS * head_dim / 2;
    }
    return p;
}

static void decode_one(const struct layout *l, const struct tile_parts *p, const struct ts_codec_view *to,
                       uint32_t rows, uint16_t *tile)
{
    uint16_t scales[CODEC_TILE_GROUPS], minima[CODEC_TILE_GROUPS];
    if (p->raw) {
        memcpy(tile, p->raw, (size_t)rows * to->head_dim * 2);
        return;
    }
    TS_ASSERT(p->scales && p->minima && p->codes);
    memcpy(scales, p->scales, (size_t)l->groups * 2);
    memcpy(minima, p->minima, (size_t)l->groups * 2);
    level()->decode_tile(scales, minima, p->codes, to->dtype, rows, to->head_dim, l->group, tile);
}

enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to)
{
    uint32_t index = 0, escapes = 0;
    check_shape(to, chunk);
    struct layout l = layout_of(codec, to->head_dim, chunk->head_count, chunk->token_count);
    if (!payload_fits(codec, to->head_dim, chunk, &l, payload, bytes))
        return TS_ECORRUPT;
    float_mode mode = float_mode_enter();
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t head = 0; head < chunk->head_count; head++) {
            for (uint32_t block = 0; block < l.blocks; block++, index++) {
                struct tile_parts p = parts_of(codec, to->head_dim, &l, payload, index, &escapes);
                decode_one(&l, &p, to, rows_of(chunk, block), tile_at(to, chunk, kv, head, block));
            }
        }
    }
    float_mode_leave(mode);
    return TS_OK;
}

enum ts_status ts_codec_digest(const struct ts_codec *codec, uint32_t head_dim, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    uint32_t index = 0, escapes = 0;
    if (!ts_codec_shape_ok(head_dim, chunk))
        return TS_ECORRUPT;
    struct layout l = layout_of(codec, head_dim, chunk->head_count, chunk->token_count);
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

#if defined(TS_CODEC_SIMD)
/* What clang 14 cannot ask for by name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}
#endif

static bool supported(const struct codec_level *l)
{
#if defined(TS_CODEC_SIMD)
    if (l == &codec_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (l == &codec_avx2)
        return __builtin_cpu_supports("avx2") && has_f16c();
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
        while (i + 1 < TS_ARRAY_SIZE(levels) && !supported(levels[i])) /* the last one runs anywhere */
            i++;
        atomic_store(&current, levels[i]);
    }
    return atomic_load(&current);
}
