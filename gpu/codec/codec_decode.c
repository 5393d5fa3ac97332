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
    uint16_t tile[CODEC_ROWS * CODEC_DIM_MAX]
        __attribute__((aligned(64))); /* where the pool is not aligned */
};

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
    bool aligned = ((uintptr_t)tile & 31) == 0;
    d->level->decode_tile(side, d->scales, d->minima, p->codes, side->centred ? &centre : NULL, rows,
                          aligned ? tile : d->tile);
    if (!aligned)
        memcpy(tile, d->tile, rows * d->layout->row_bytes);
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

static void fetch_parts(const struct codec_side_layout *s, const struct codec_parts *p)
{
    for (size_t i = 0; p->codes && i < (size_t)p->rows * s->code_row; i += 64)
        __builtin_prefetch(p->codes + i);
}

enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to)
{
    struct ts_codec_cache cache = {to->head_dim, to->dtype};
    codec_check_shape(codec, to, chunk);
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    if (!codec_payload_fits(&l, payload, bytes))
        return TS_ECORRUPT;
    if (l.tiles == 0)
        return TS_OK;
    struct decoder d;
    d.layout = &l;
    d.level = codec_level();
    d.to = to;
    d.chunk = chunk;
    d.payload = payload;
    struct codec_reader reader = codec_reader_of(&l, payload);
    codec_mode mode = codec_mode_enter();
    struct codec_parts p = codec_next_tile(&reader), following = p;
    for (uint32_t kv = 0, head = 0, block = 0; block < l.blocks; p = following) {
        uint32_t next_kv = reader.kv, next_head = reader.head, next_block = reader.block;
        if (next_block < l.blocks) {
            following = codec_next_tile(&reader);
            fetch_parts(&l.sides[next_kv], &following);
        }
        if (l.sides[kv].side.centred)
            d.level->read_halves(d.payload + codec_mean_at(&l, head, block), to->head_dim, d.mean);
        decode_tile(&d, &l.sides[kv], &p, block, codec_tile_at(to, chunk, kv, head, block));
        kv = next_kv, head = next_head, block = next_block;
    }
    codec_mode_leave(mode);
    codec_fence();
    read_first_tokens(&d);
    return TS_OK;
}
