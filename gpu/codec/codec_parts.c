/* The checks of a payload that came from somewhere else, and its tiles one by one. */
#include <string.h>

#include "common/base/ts_hash.h"
#include "gpu/codec/codec_impl.h"

/* Seeds of what is hashed, apart for each kind; below them kv << 32 and the absolute block, span or 0. */
#define SEED_ESCAPED (1ULL << 63)
#define SEED_MEAN    (1ULL << 62)
#define SEED_FIRST   (1ULL << 61)

static bool all_zero(const uint8_t *at, size_t bytes)
{
    return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

#define HALVES 0x0001000100010001ULL
#define SIGNS  (0x8000 * HALVES)

static uint64_t load64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}

/* Four halves at a time: the exponent of one that is not finite carries into its sign. */
static uint64_t not_finite(uint64_t x)
{
    return (x & ~SIGNS) + 0x0400 * HALVES;
}

static bool finite16(const uint8_t *at, size_t count)
{
    uint64_t bad = 0;
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        bad |= not_finite(load64(at + 2 * i));
    for (; i < count; i++)
        bad |= not_finite(codec_load16(at + 2 * i)) & 0x8000;
    return (bad & SIGNS) == 0;
}

/* Finite, and not negative but where the sign says at which end the largest value lies: those of 4 bits
 * without minima. */
static bool scales_sane(const struct codec_side *s, const uint8_t *scales, size_t count)
{
    uint64_t bad = 0;
    if (s->bits == 8 || s->asym) {
        for (size_t i = 0; i < count; i++)
            bad |= codec_load16(scales + 2 * i) & 0x8000;
    } else {
        for (size_t i = 0; i < count; i++)
            bad |= (uint64_t)(codec_load16(scales + 2 * i) == 0x8000);
    }
    return bad == 0 && finite16(scales, count);
}

/* Of all tiles of a side that has parameters. Codes of 8 bits lie within 127 either way. */
static bool side_sane(const struct codec_layout *l, const struct codec_side_layout *s, const uint8_t *payload)
{
    size_t scales = codec_scale_bytes(l, s) / 2, codes = codec_code_bytes(l, s);
    return scales_sane(&s->side, payload + s->scales, scales) &&
           (!s->side.asym || finite16(payload + s->minima, scales)) &&
           (s->side.bits != 8 || codes == 0 || !memchr(payload + s->codes, 0x80, codes));
}

/* Nothing but zeros where a tile has escaped. */
static bool escaped_zero(const struct codec_layout *l, uint32_t index, const uint8_t *payload)
{
    uint32_t per_side = l->heads * l->blocks, kv = index >= per_side, at = index - kv * per_side;
    const struct codec_side_layout *s = &l->sides[kv];
    struct codec_place place = codec_place_of(l, kv, at / l->blocks, at % l->blocks);
    size_t scale_bytes = (size_t)place.rows * s->scale_row;
    return all_zero(payload + s->scales + place.row * s->scale_row, scale_bytes) &&
           all_zero(payload + s->minima + place.row * s->scale_row, s->side.asym ? scale_bytes : 0) &&
           all_zero(payload + s->codes + place.row * s->code_row, (size_t)place.rows * s->code_row);
}

/* Counts the escapes; bits of tiles that cannot, or are none, are no bits that an encoder sets. */
static bool escapes_sane(const struct codec_layout *l, const uint8_t *payload, uint32_t *escapes)
{
    uint32_t per_side = l->heads * l->blocks;
    for (uint32_t byte = 0; l->bitmapped && byte < l->means; byte++) {
        for (uint32_t bits = payload[byte]; bits; bits &= bits - 1) {
            uint32_t i = byte * 8 + (uint32_t)__builtin_ctz(bits);
            if (i >= l->tiles || l->sides[i >= per_side].side.bits == 16)
                return false;
            ++*escapes;
        }
    }
    return true;
}

static bool padding_zero(const struct codec_layout *l, const uint8_t *payload)
{
    bool zero = true;
    for (uint32_t kv = 0; kv < 2; kv++) {
        const struct codec_side_layout *s = &l->sides[kv];
        size_t ends[3] = {s->scales + codec_scale_bytes(l, s),
                          s->minima + (s->side.asym ? codec_scale_bytes(l, s) : 0),
                          s->codes + codec_code_bytes(l, s)};
        for (size_t i = 0; i < 3; i++)
            zero &= all_zero(payload + ends[i], codec_align16(ends[i]) - ends[i]);
    }
    return zero;
}

/* Counts the exceptions of lossless sides, in the order of the tiles. */
static bool planes_sane(const struct codec_layout *l, const uint8_t *payload, size_t bytes,
                        size_t *exceptions)
{
    const struct codec_level *level = codec_level();
    bool any = l->sides[0].side.lossless || l->sides[1].side.lossless;
    for (uint32_t i = 0; any && i < l->tiles; i++) {
        uint32_t kv = i / l->heads & 1;
        const struct codec_side_layout *s = &l->sides[kv];
        struct codec_place at = codec_place_of(l, kv, i % l->heads, i / l->heads / 2);
        if (!s->side.lossless)
            continue;
        uint32_t count = level->check_planes(
            &s->side, payload + s->scales + at.row, payload + s->codes + at.row * s->code_row,
            payload + l->tail + *exceptions, bytes - l->tail - *exceptions, at.rows);
        if (count == CODEC_INSANE)
            return false;
        *exceptions += count;
    }
    return true;
}

static bool content_sane(const struct codec_layout *l, const uint8_t *payload, uint32_t escapes)
{
    bool sane =
        padding_zero(l, payload) && finite16(payload + l->means, l->heads * l->spans * l->row_bytes / 2);
    for (uint32_t kv = 0; sane && kv < 2; kv++)
        sane = l->sides[kv].side.bits == 16 || side_sane(l, &l->sides[kv], payload);
    for (uint32_t i = 0; sane && escapes > 0 && i < l->tiles; i++)
        sane = !codec_escaped(l, payload, i) || escaped_zero(l, i, payload);
    return sane;
}

bool codec_payload_fits(const struct codec_layout *l, const uint8_t *payload, size_t bytes,
                        size_t *exceptions)
{
    uint32_t escapes = 0;
    *exceptions = 0;
    if (bytes < l->tail || !escapes_sane(l, payload, &escapes) || !planes_sane(l, payload, bytes, exceptions))
        return false;
    size_t padded = codec_align16(*exceptions);
    return bytes == l->tail + padded + escapes * l->tile_bytes &&
           all_zero(payload + l->tail + *exceptions, padded - *exceptions) &&
           content_sane(l, payload, escapes);
}

struct codec_reader codec_reader_of(const struct codec_layout *l, const uint8_t *payload, size_t exceptions)
{
    return (struct codec_reader){
        .layout = l, .payload = payload, .exceptions = l->tail, .raw = l->tail + codec_align16(exceptions)};
}

static void advance(struct codec_reader *r)
{
    if (++r->head < r->layout->heads)
        return;
    r->head = 0;
    r->block += r->kv;
    r->kv ^= 1;
}

struct codec_parts codec_next_tile(struct codec_reader *r)
{
    const struct codec_layout *l = r->layout;
    const struct codec_side_layout *s = &l->sides[r->kv];
    struct codec_place at = codec_place_of(l, r->kv, r->head, r->block);
    struct codec_parts p = {.rows = at.rows};
    advance(r);
    if (codec_escaped(l, r->payload, at.index)) {
        p.raw = r->payload + r->raw;
        r->raw += l->tile_bytes;
        return p;
    }
    p.scales = r->payload + s->scales + at.row * s->scale_row;
    p.minima = r->payload + s->minima + at.row * s->scale_row;
    p.codes = r->payload + s->codes + at.row * s->code_row;
    if (s->side.lossless)
        p.exceptions = r->payload + r->exceptions;
    else if (s->side.bits == 16)
        p.raw = p.codes;
    return p;
}

/* --- digest --- */

uint64_t codec_tile_digest(const struct codec_layout *l, const struct ts_codec_chunk *chunk, uint32_t kv,
                           uint32_t block, const struct codec_parts *p)
{
    const struct codec_side_layout *s = &l->sides[kv];
    uint64_t seed = (uint64_t)kv << 32 | (chunk->token_begin / CODEC_ROWS + block);
    if (p->raw)
        return ts_hash64(p->raw, s->side.bits == 16 ? p->rows * l->row_bytes : l->tile_bytes,
                         seed | SEED_ESCAPED);
    uint64_t hash = ts_hash64(p->scales, (size_t)p->rows * s->scale_row, seed);
    if (s->side.asym)
        hash = ts_hash64(p->minima, (size_t)p->rows * s->scale_row, hash);
    hash = ts_hash64(p->codes, (size_t)p->rows * s->code_row, hash);
    return p->exception_count ? ts_hash64(p->exceptions, p->exception_count, hash) : hash;
}

static void hash_means(const struct codec_layout *l, const uint8_t *payload,
                       const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    const uint8_t *at = payload + l->means;
    for (uint32_t head = 0; head < l->heads; head++) {
        for (uint32_t span = 0; span < l->spans; span++, at += l->row_bytes)
            digest[head] ^=
                ts_hash64(at, l->row_bytes, SEED_MEAN | (chunk->token_begin / TS_CODEC_SPAN_TOKENS + span));
    }
}

static void hash_first_tokens(const struct codec_layout *l, const uint8_t *payload, uint64_t *digest)
{
    const uint8_t *at = payload + l->first_tokens;
    size_t bytes = l->raw_rows * l->row_bytes;
    for (uint32_t kv = 0; kv < 2 && bytes > 0; kv++) {
        for (uint32_t head = 0; head < l->heads && l->sides[kv].side.bits < 16; head++, at += bytes)
            digest[head] ^= ts_hash64(at, bytes, SEED_FIRST | (uint64_t)kv << 32);
    }
}

void codec_rest_digest(const struct codec_layout *l, const uint8_t *payload,
                       const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    hash_means(l, payload, chunk, digest);
    hash_first_tokens(l, payload, digest);
}

enum ts_status ts_codec_digest(const struct ts_codec *codec, struct ts_codec_cache cache, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    if (!ts_codec_shape_ok(codec, cache.head_dim, chunk))
        return TS_ECORRUPT;
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    size_t exceptions;
    if (!codec_payload_fits(&l, payload, bytes, &exceptions))
        return TS_ECORRUPT;
    struct codec_reader reader = codec_reader_of(&l, payload, exceptions);
    while (l.tiles > 0 && reader.block < l.blocks) {
        uint32_t kv = reader.kv, head = reader.head, block = reader.block;
        struct codec_parts p = codec_next_tile(&reader);
        if (l.sides[kv].side.lossless)
            codec_pass_exceptions(&reader, &p,
                                  codec_level()->check_planes(&l.sides[kv].side, p.scales, p.codes,
                                                              p.exceptions, exceptions, p.rows));
        digest[head] ^= codec_tile_digest(&l, chunk, kv, block, &p);
    }
    codec_rest_digest(&l, payload, chunk, digest);
    return TS_OK;
}
