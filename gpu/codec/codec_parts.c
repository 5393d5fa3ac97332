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

static uint16_t load16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return v;
}

static bool finite16(const uint8_t *at, size_t count)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++)
        bad |= (uint32_t)((load16(at + 2 * i) & 0x7fff) >= 0x7c00);
    return bad == 0;
}

/* Scales are finite, and not negative but where the sign says at which end the largest value lies: those of 4
 * bits without minima. */
static bool scales_sane(const struct codec_side *s, const uint8_t *scales, size_t count)
{
    bool either = s->bits == 4 && !s->asym;
    uint32_t bad = 0;
    for (size_t g = 0; g < count; g++) {
        uint16_t scale = load16(scales + g * 2);
        bad |= (uint32_t)((either ? scale & 0x7fff : scale) >= 0x7c00) | (uint32_t)(scale == 0x8000);
    }
    return bad == 0;
}

/* Codes of 8 bits lie within 127 either way. */
static bool codes_sane(const struct codec_side *s, const uint8_t *codes, size_t count)
{
    uint32_t bad = 0;
    for (size_t i = 0; s->bits == 8 && i < count; i++)
        bad |= (uint32_t)(codes[i] == 0x80);
    return bad == 0;
}

static bool tile_sane(const struct codec_layout *l, const struct codec_side_layout *s, const uint8_t *payload,
                      struct codec_place at)
{
    const uint8_t *scales = payload + s->scales + at.row * s->scale_row;
    const uint8_t *minima = payload + s->minima + at.row * s->scale_row;
    const uint8_t *codes = payload + s->codes + at.row * s->code_row;
    size_t scale_bytes = (size_t)at.rows * s->scale_row, code_bytes = (size_t)at.rows * s->code_row;
    size_t minimum_bytes = s->side.asym ? scale_bytes : 0;
    if (codec_escaped(l, payload, at.index))
        return all_zero(scales, scale_bytes) && all_zero(minima, minimum_bytes) &&
               all_zero(codes, code_bytes);
    return scales_sane(&s->side, scales, scale_bytes / 2) && codes_sane(&s->side, codes, code_bytes) &&
           finite16(minima, minimum_bytes / 2);
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

static bool tiles_sane(const struct codec_layout *l, uint32_t kv, uint32_t block, const uint8_t *payload,
                       const uint8_t **exceptions)
{
    const struct codec_side_layout *s = &l->sides[kv];
    bool sane = true;
    for (uint32_t head = 0; sane && head < l->heads; head++) {
        struct codec_place at = codec_place_of(l, kv, head, block);
        if (s->side.lossless) {
            const uint8_t *planes = payload + s->codes + at.row * s->code_row;
            sane = codec_level()->check_planes(&s->side, payload + s->scales + at.row, planes, *exceptions,
                                               at.rows);
            *exceptions += codec_level()->count_exceptions(&s->side, planes, at.rows);
        } else if (s->side.bits < 16) {
            sane = tile_sane(l, s, payload, at);
        }
    }
    return sane;
}

static bool content_sane(const struct codec_layout *l, const uint8_t *payload)
{
    const uint8_t *exceptions = payload + l->tail;
    bool sane =
        padding_zero(l, payload) && finite16(payload + l->means, l->heads * l->spans * l->row_bytes / 2);
    for (uint32_t block = 0; sane && block < l->blocks; block++)
        sane = tiles_sane(l, 0, block, payload, &exceptions) && tiles_sane(l, 1, block, payload, &exceptions);
    return sane;
}

static size_t count_exceptions(const struct codec_layout *l, const uint8_t *payload)
{
    size_t count = 0;
    for (uint32_t kv = 0; kv < 2; kv++) {
        const struct codec_side_layout *s = &l->sides[kv];
        if (s->side.lossless)
            count += codec_level()->count_exceptions(&s->side, payload + s->codes, l->heads * l->tokens);
    }
    return count;
}

bool codec_payload_fits(const struct codec_layout *l, const uint8_t *payload, size_t bytes)
{
    uint32_t escapes = 0, per_side = l->heads * l->blocks;
    if (bytes < l->tail)
        return false;
    for (uint32_t i = 0; l->bitmapped && i < l->means * 8; i++) {
        bool bit = payload[i / 8] >> i % 8 & 1;
        if (bit && (i >= l->tiles || l->sides[i >= per_side].side.bits == 16))
            return false;
        escapes += bit;
    }
    size_t exceptions = count_exceptions(l, payload), padded = codec_align16(exceptions);
    return bytes == l->tail + padded + escapes * l->tile_bytes &&
           all_zero(payload + l->tail + exceptions, padded - exceptions) && content_sane(l, payload);
}

struct codec_reader codec_reader_of(const struct codec_layout *l, const uint8_t *payload)
{
    return (struct codec_reader){.layout = l,
                                 .payload = payload,
                                 .exceptions = l->tail,
                                 .raw = l->tail + codec_align16(count_exceptions(l, payload))};
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
    if (s->side.lossless) {
        p.exceptions = r->payload + r->exceptions;
        p.exception_count = codec_level()->count_exceptions(&s->side, p.codes, at.rows);
        r->exceptions += p.exception_count;
    } else if (s->side.bits == 16) {
        p.raw = p.codes;
    }
    return p;
}

/* --- digest --- */

static uint64_t hash_tile(const struct codec_layout *l, const struct codec_side_layout *s,
                          const struct codec_parts *p, uint64_t seed)
{
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

enum ts_status ts_codec_digest(const struct ts_codec *codec, struct ts_codec_cache cache, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest)
{
    if (!ts_codec_shape_ok(codec, cache.head_dim, chunk))
        return TS_ECORRUPT;
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    if (!codec_payload_fits(&l, payload, bytes))
        return TS_ECORRUPT;
    struct codec_reader reader = codec_reader_of(&l, payload);
    while (l.tiles > 0 && reader.block < l.blocks) {
        uint32_t kv = reader.kv, head = reader.head;
        uint64_t seed = (uint64_t)kv << 32 | (chunk->token_begin / CODEC_ROWS + reader.block);
        struct codec_parts p = codec_next_tile(&reader);
        digest[head] ^= hash_tile(&l, &l.sides[kv], &p, seed);
    }
    hash_means(&l, payload, chunk, digest);
    hash_first_tokens(&l, payload, digest);
    return TS_OK;
}
