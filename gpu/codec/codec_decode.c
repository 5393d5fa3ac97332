/* From a payload into the pool. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/codec/codec_impl.h"

struct decoder {
    const struct codec_layout *layout;
    const struct codec_level *level;
    const struct ts_codec_view *to;
    const struct ts_codec_chunk *chunk;
    const uint8_t *payload;
    struct codec_reader reader;
    float mean[CODEC_DIM_MAX]; /* of the present head and span */
    uint16_t tile[CODEC_ROWS * CODEC_DIM_MAX]
        __attribute__((aligned(64))); /* where the pool is not aligned */
};

/* The codes of the same head in the next block, which follow in the payload: fetched while all other heads of
 * this block are restored. */
static void fetch_next(const struct codec_side_layout *s, const struct codec_parts *p)
{
    size_t bytes = (size_t)CODEC_ROWS * s->code_row;
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p->codes + bytes + i);
}

static void restore_coded(struct decoder *d, const struct codec_side_layout *s, const struct codec_parts *p,
                          uint32_t block, uint16_t *tile)
{
    const struct codec_side *side = &s->side;
    struct codec_centre centre = {.mean = d->mean, .row_end = p->rows};
    if (side->centred)
        centre.turns = codec_turns_of(d->to, d->chunk, block);
    d->level->decode_tile(side, p->scales, p->minima, p->codes, side->centred ? &centre : NULL, p->rows,
                          tile);
}

static void decode_tile(struct decoder *d, const struct codec_side_layout *s, struct codec_parts *p,
                        uint32_t block, uint16_t *tile)
{
    size_t bytes = p->rows * d->layout->row_bytes;
    uint16_t *out = ((uintptr_t)tile & 31) == 0 ? tile : d->tile;
    if (p->raw) {
        memcpy(tile, p->raw, bytes);
        return;
    }
    TS_ASSERT(p->scales && p->codes);
    fetch_next(s, p);
    if (s->side.lossless)
        codec_pass_exceptions(
            &d->reader, p, d->level->unpack_tile(&s->side, p->scales, p->codes, p->exceptions, p->rows, out));
    else
        restore_coded(d, s, p, block, out);
    if (out != tile)
        memcpy(tile, d->tile, bytes);
}

static void read_first_tokens(const struct decoder *d)
{
    const struct codec_layout *l = d->layout;
    const uint8_t *from = d->payload + l->first_tokens;
    size_t bytes = l->raw_rows * l->row_bytes;
    for (uint32_t kv = 0; kv < 2 && bytes > 0; kv++) {
        for (uint32_t head = 0; head < l->heads && l->sides[kv].side.bits < 16; head++, from += bytes)
            memcpy(codec_tile_at(d->to, d->chunk, kv, head, 0), from, bytes);
    }
}

void codec_decode(const struct codec_layout *l, const uint8_t *payload, size_t exceptions,
                  const struct ts_codec_chunk *chunk, const struct ts_codec_view *to, uint64_t *digest)
{
    struct decoder d;
    d.layout = l;
    d.level = codec_level();
    d.to = to;
    d.chunk = chunk;
    d.payload = payload;
    d.reader = codec_reader_of(l, payload, exceptions);
    codec_mode mode = codec_mode_enter();
    while (l->tiles > 0 && d.reader.block < l->blocks) {
        uint32_t kv = d.reader.kv, head = d.reader.head, block = d.reader.block;
        struct codec_parts p = codec_next_tile(&d.reader);
        if (l->sides[kv].side.centred)
            d.level->read_halves(payload + codec_mean_at(l, head, block), to->head_dim, d.mean);
        decode_tile(&d, &l->sides[kv], &p, block, codec_tile_at(to, chunk, kv, head, block));
        if (digest)
            digest[head] ^= codec_tile_digest(l, chunk, kv, block, &p);
    }
    codec_mode_leave(mode);
    codec_fence();
    read_first_tokens(&d);
    if (digest)
        codec_rest_digest(l, payload, chunk, digest);
}

enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to)
{
    struct ts_codec_cache cache = {to->head_dim, to->dtype};
    codec_check_shape(codec, to, chunk);
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    size_t exceptions;
    if (!codec_payload_fits(&l, payload, bytes, &exceptions))
        return TS_ECORRUPT;
    codec_decode(&l, payload, exceptions, chunk, to, NULL);
    return TS_OK;
}
