/* From the pool to a payload. */
#include <string.h>

#include "gpu/codec/codec_impl.h"

struct encoder {
    const struct codec_layout *layout;
    const struct codec_level *level;
    const struct ts_codec_view *from;
    const struct ts_codec_chunk *chunk;
    uint8_t *out;
    uint8_t *raw;        /* where the next escaped tile goes */
    uint8_t *exceptions; /* and the next exception */
    uint32_t escapes;
    uint64_t *digest;          /* or NULL */
    float mean[CODEC_DIM_MAX]; /* of the present head and span */
    uint16_t scratch[CODEC_ROWS * CODEC_DIM_MAX];
    /* Of a tile that is not full: only its rows are copied. */
    uint16_t scales[CODEC_TILE_GROUPS], minima[CODEC_TILE_GROUPS];
    uint8_t codes[CODEC_ROWS * CODEC_DIM_MAX * 2];
};

/* A tile whose tokens beyond the sequence are zeros, so that the bytes do not depend on what lies there; so
 * are those that travel in 16 bits. */
static const uint16_t *tile_of(struct encoder *e, uint32_t kv, uint32_t head, uint32_t block,
                               uint32_t row_begin)
{
    const uint16_t *tile = codec_tile_at(e->from, e->chunk, kv, head, block);
    uint32_t rows = codec_place_of(e->layout, kv, head, block).rows, head_dim = e->from->head_dim;
    if (rows == CODEC_ROWS && row_begin == 0)
        return tile;
    memset(e->scratch, 0, (size_t)CODEC_ROWS * head_dim * 2);
    if (rows > row_begin)
        memcpy(e->scratch + (size_t)row_begin * head_dim, tile + (size_t)row_begin * head_dim,
               (size_t)(rows - row_begin) * head_dim * 2);
    return e->scratch;
}

struct source { /* a tile, the one after it, and how it is centred, if it is */
    const uint16_t *tile, *next;
    const struct codec_centre *centre;
};

struct sections { /* of one tile */
    uint8_t *scales, *minima, *codes;
};

static struct sections sections_of(const struct encoder *e, const struct codec_side_layout *s, size_t row)
{
    return (struct sections){e->out + s->scales + row * s->scale_row,
                             s->side.asym ? e->out + s->minima + row * s->scale_row : NULL,
                             e->out + s->codes + row * s->code_row};
}

/* False: the tile must escape. */
static bool write_tile(struct encoder *e, const struct codec_side_layout *s, const struct source *from,
                       const struct sections *to)
{
    if (s->side.lossless) {
        e->exceptions += e->level->pack_tile(&s->side, from->tile, to->scales, to->codes, e->exceptions);
        return true;
    }
    return e->level->encode_tile(&s->side, from->tile, from->next, from->centre,
                                 (uint16_t *)(void *)to->scales, (uint16_t *)(void *)to->minima, to->codes);
}

/* The rows of a tile that is not full. */
static bool write_part(struct encoder *e, const struct codec_side_layout *s, const struct source *from,
                       const struct sections *to, uint32_t rows)
{
    struct sections whole = {(uint8_t *)e->scales, (uint8_t *)e->minima, e->codes};
    if (!write_tile(e, s, from, &whole))
        return false;
    memcpy(to->scales, whole.scales, (size_t)rows * s->scale_row);
    if (to->minima)
        memcpy(to->minima, whole.minima, (size_t)rows * s->scale_row);
    memcpy(to->codes, whole.codes, (size_t)rows * s->code_row);
    return true;
}

static void mark_lost(struct encoder *e, uint32_t index)
{
    e->out[index / 8] |= (uint8_t)(1u << index % 8);
}

static void escape(struct encoder *e, const struct codec_side_layout *s, const uint16_t *tile,
                   struct codec_place at, const struct sections *to)
{
    memset(to->scales, 0, (size_t)at.rows * s->scale_row);
    if (to->minima)
        memset(to->minima, 0, (size_t)at.rows * s->scale_row);
    memset(to->codes, 0, (size_t)at.rows * s->code_row);
    mark_lost(e, at.index);
    memcpy(e->raw, tile, e->layout->tile_bytes);
    e->raw += e->layout->tile_bytes;
    e->escapes++;
}

/* Where the codes of the same head in the next block will go: to be written at once when it is their turn.
 * The processor sees the rest coming. */
static void fetch_next(const struct codec_side_layout *s, const uint8_t *codes)
{
    size_t bytes = (size_t)CODEC_ROWS * s->code_row;
    for (size_t i = 0; i < bytes && i < 512; i += 64)
        __builtin_prefetch(codes + bytes + i, 1);
}

/* `lost`: it must escape. */
static void encode_tile(struct encoder *e, uint32_t kv, struct codec_place at, const struct source *from,
                        bool lost)
{
    const struct codec_side_layout *s = &e->layout->sides[kv];
    struct sections to = sections_of(e, s, at.row);
    if (s->side.bits == 16 && !s->side.lossless) {
        memcpy(to.codes, from->tile, at.rows * e->layout->row_bytes);
        return;
    }
    fetch_next(s, to.codes);
    if (lost || !(at.rows == CODEC_ROWS ? write_tile(e, s, from, &to) : write_part(e, s, from, &to, at.rows)))
        escape(e, s, from->tile, at, &to);
}

/* --- centred keys: the means of a span first --- */

static struct codec_centre centre_of(const struct encoder *e, uint32_t block, const float *mean)
{
    return (struct codec_centre){.turns = codec_turns_of(e->from, e->chunk, block),
                                 .mean = mean,
                                 .row_begin = codec_raw_rows_of(e->layout, block),
                                 .row_end = codec_place_of(e->layout, 0, 0, block).rows};
}

/* Sums over the tiles that do not escape, in their order; the others are marked. The sum of a tile is turned
 * back by its rows' places in the tile, then by the tile's place in the span: the rotations of 16 rows stay
 * in the first cache. Returns the tokens. */
static uint32_t sum_span(struct encoder *e, uint32_t head, uint32_t block, uint32_t block_end, float *sums)
{
    const struct codec_side *side = &e->layout->sides[0].side;
    const float *turns_of_rows = codec_turns_of(e->from, e->chunk, block);
    uint32_t count = 0;
    for (; block < block_end; block++) {
        struct codec_centre c = centre_of(e, block, NULL);
        const float *turns = c.turns;
        c.turns = turns_of_rows;
        const uint16_t *tile = tile_of(e, 0, head, block, c.row_begin);
        if (!e->level->within(tile, CODEC_ROWS * side->head_dim, side->limit)) {
            mark_lost(e, codec_place_of(e->layout, 0, head, block).index);
        } else if (c.row_begin < c.row_end) {
            float of_tile[CODEC_DIM_MAX];
            memset(of_tile, 0, side->head_dim * sizeof *of_tile);
            e->level->add_rows(side, tile, &c, of_tile);
            codec_add_turned(of_tile, turns, side->head_dim / 2, sums);
            count += c.row_end - c.row_begin;
        }
    }
    return count;
}

/* The mean of each channel: fp32 sums times 1 / count, rounded to fp16. One that is not finite loses the
 * span. */
static void take_mean(struct encoder *e, uint32_t head, uint32_t block, uint32_t block_end)
{
    uint32_t head_dim = e->from->head_dim;
    float sums[CODEC_DIM_MAX] = {0};
    uint32_t count = sum_span(e, head, block, block_end, sums);
    uint16_t *out = (uint16_t *)(void *)(e->out + codec_mean_at(e->layout, head, block));
    float share = count ? 1.0f / (float)count : 0.0f;
    bool finite = true;
    for (uint32_t i = 0; i < head_dim; i++) {
        out[i] = codec_f32_to_f16(sums[i] * share + 0.0f);
        finite &= (out[i] & 0x7fff) < 0x7c00;
    }
    if (finite)
        return;
    memset(out, 0, head_dim * sizeof *out);
    for (; block < block_end; block++)
        mark_lost(e, codec_place_of(e->layout, 0, head, block).index);
}

/* --- all --- */

/* While it lies in the first-level cache; `p` holds where exceptions and raw tiles ended before it. */
static uint64_t digest_of(const struct encoder *e, uint32_t kv, uint32_t block, struct codec_place at,
                          struct codec_parts *p)
{
    const struct codec_side_layout *s = &e->layout->sides[kv];
    struct sections to = sections_of(e, s, at.row);
    p->rows = at.rows;
    p->scales = to.scales;
    p->minima = to.minima;
    p->codes = to.codes;
    p->exception_count = (uint32_t)(e->exceptions - p->exceptions);
    if (s->side.bits == 16 && !s->side.lossless)
        p->raw = to.codes;
    else if (p->raw == e->raw)
        p->raw = NULL;
    return codec_tile_digest(e->layout, e->chunk, kv, block, p);
}

static void encode_block(struct encoder *e, uint32_t kv, uint32_t block)
{
    const struct codec_layout *l = e->layout;
    const struct codec_side *side = &l->sides[kv].side;
    uint32_t raw = side->bits < 16 ? codec_raw_rows_of(l, block) : 0;
    for (uint32_t head = 0; head < l->heads; head++) {
        struct codec_place at = codec_place_of(l, kv, head, block);
        struct codec_centre centre = centre_of(e, block, e->mean);
        struct source from = {tile_of(e, kv, head, block, raw),
                              codec_tile_after(l, e->from, e->chunk, kv, head, block),
                              side->centred ? &centre : NULL};
        if (side->centred)
            e->level->read_halves(e->out + codec_mean_at(l, head, block), side->head_dim, e->mean);
        struct codec_parts now = {.exceptions = e->exceptions, .raw = e->raw};
        encode_tile(e, kv, at, &from, codec_escaped(l, e->out, at.index));
        if (e->digest)
            e->digest[head] ^= digest_of(e, kv, block, at, &now);
    }
}

/* As the tiles lie in the pool. */
static void encode_all(struct encoder *e)
{
    const uint32_t span_blocks = TS_CODEC_SPAN_TOKENS / CODEC_ROWS, blocks = e->layout->blocks;
    for (uint32_t block = 0; block < blocks; block++) {
        uint32_t span_end = block + span_blocks < blocks ? block + span_blocks : blocks;
        bool first = e->layout->sides[0].side.centred && block % span_blocks == 0;
        for (uint32_t head = 0; first && head < e->layout->heads; head++)
            take_mean(e, head, block, span_end);
        encode_block(e, 0, block);
        encode_block(e, 1, block);
    }
}

static void write_first_tokens(struct encoder *e)
{
    const struct codec_layout *l = e->layout;
    uint8_t *to = e->out + l->first_tokens;
    size_t bytes = l->raw_rows * l->row_bytes;
    for (uint32_t kv = 0; kv < 2 && bytes > 0; kv++) {
        for (uint32_t head = 0; head < l->heads && l->sides[kv].side.bits < 16; head++, to += bytes)
            memcpy(to, codec_tile_at(e->from, e->chunk, kv, head, 0), bytes);
    }
}

/* Ends of sections, and the bitmap, are zero where nobody writes, so that equal caches give equal bytes. */
static void clear_padding(const struct codec_layout *l, uint8_t *out)
{
    memset(out, 0, l->means);
    for (uint32_t kv = 0; kv < 2; kv++) {
        const struct codec_side_layout *s = &l->sides[kv];
        size_t ends[3] = {s->scales + codec_scale_bytes(l, s),
                          s->minima + (s->side.asym ? codec_scale_bytes(l, s) : 0),
                          s->codes + codec_code_bytes(l, s)};
        for (size_t i = 0; i < 3; i++)
            memset(out + ends[i], 0, codec_align16(ends[i]) - ends[i]);
    }
}

/* Exceptions were written where they are; raw tiles, whose number of bytes before them was not known, follow
 * from the end of the buffer. */
static size_t finish(struct encoder *e, uint8_t *raw_begin)
{
    uint8_t *begin = e->out + e->layout->tail, *end = e->exceptions;
    size_t pad = codec_align16((size_t)(end - begin)) - (size_t)(end - begin),
           raw = (size_t)(e->raw - raw_begin);
    memset(end, 0, pad);
    end += pad;
    if (end != raw_begin && raw > 0)
        memmove(end, raw_begin, raw);
    return (size_t)(end + raw - e->out);
}

size_t codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                    const struct ts_codec_chunk *chunk, uint8_t *out, uint32_t *escapes, uint64_t *digest)
{
    struct ts_codec_cache cache = {from->head_dim, from->dtype};
    codec_check_shape(codec, from, chunk);
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    size_t most = 0;
    for (uint32_t kv = 0; kv < 2; kv++)
        most += l.sides[kv].side.lossless ? (size_t)l.heads * l.tokens * l.row_bytes / 2 : 0;
    struct encoder e;
    e.layout = &l;
    e.level = codec_level();
    e.from = from;
    e.chunk = chunk;
    e.out = out;
    e.exceptions = e.out + l.tail;
    e.raw = e.exceptions + codec_align16(most);
    e.escapes = 0;
    e.digest = digest;
    uint8_t *raw_begin = e.raw;
    codec_mode mode = codec_mode_enter();
    clear_padding(&l, out);
    encode_all(&e);
    write_first_tokens(&e);
    codec_mode_leave(mode);
    *escapes = e.escapes;
    if (digest)
        codec_rest_digest(&l, out, chunk, digest);
    return finish(&e, raw_begin);
}

size_t ts_codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                       const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes)
{
    return codec_encode(codec, from, chunk, out, escapes, NULL);
}
