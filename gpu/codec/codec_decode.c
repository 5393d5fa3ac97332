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
    float mean[CODEC_DIM_MAX]; /* of the present head and span */
    uint16_t scales[CODEC_TILE_GROUPS], minima[CODEC_TILE_GROUPS];
};

static void read_mean(struct decoder *d, uint32_t head, uint32_t span)
{
    const uint8_t *at =
        d->payload + d->layout->means + ((size_t)head * d->layout->spans + span) * d->layout->row_bytes;
    for (uint32_t i = 0; i < d->to->head_dim; i++) {
        uint16_t bits;
        memcpy(&bits, at + 2 * (size_t)i, 2);
        d->mean[i] = codec_f16_to_f32(bits);
    }
}

static void decode_tile(struct decoder *d, const struct codec_side_layout *s, const struct codec_parts *p,
                        uint32_t block, uint16_t *tile)
{
    const struct codec_side *side = &s->side;
    uint32_t rows = p->rows;
    if (p->raw) {
        memcpy(tile, p->raw, rows * d->layout->row_bytes);
        return;
    }
    TS_ASSERT(p->scales && p->codes);
    if (side->lossless) {
        d->level->unpack_tile(side, p->scales, p->codes, p->exceptions, rows, tile);
        return;
    }
    struct codec_centre centre = {.turns = side->centred ? codec_turns_of(d->to, d->chunk, block) : NULL,
                                  .mean = d->mean,
                                  .row_end = rows};
    memcpy(d->scales, p->scales, (size_t)rows * s->scale_row);
    if (side->asym)
        memcpy(d->minima, p->minima, (size_t)rows * s->scale_row);
    d->level->decode_tile(side, d->scales, d->minima, p->codes, side->centred ? &centre : NULL, rows, tile);
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

enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to)
{
    struct ts_codec_cache cache = {to->head_dim, to->dtype};
    codec_check_shape(codec, to, chunk);
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    if (!codec_payload_fits(&l, payload, bytes))
        return TS_ECORRUPT;
    struct decoder d;
    d.layout = &l;
    d.level = codec_level();
    d.to = to;
    d.chunk = chunk;
    d.payload = payload;
    struct codec_reader reader = codec_reader_of(&l, payload);
    codec_mode mode = codec_mode_enter();
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t head = 0; head < l.heads; head++) {
            for (uint32_t block = 0; block < l.blocks; block++) {
                uint32_t token = block * CODEC_ROWS;
                if (l.sides[kv].side.centred && token % TS_CODEC_SPAN_TOKENS == 0)
                    read_mean(&d, head, token / TS_CODEC_SPAN_TOKENS);
                struct codec_parts p = codec_next_tile(&reader);
                decode_tile(&d, &l.sides[kv], &p, block, codec_tile_at(to, chunk, kv, head, block));
            }
        }
    }
    codec_mode_leave(mode);
    read_first_tokens(&d);
    return TS_OK;
}
