/* Where the sections of a payload lie, and where tiles lie in the pool. */
#include "common/base/ts_assert.h"
#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"
#include "gpu/codec/codec_impl.h"

#define TILES_MAX (1u << 30)

/* Magnitudes from which a tile escapes. As it is: what is not finite. Transformed: below these bounds no
 * rounding of codes can restore to infinity, nor sums overflow (README.md). */
#define LIMIT_F16        0x7c00
#define LIMIT_BF16       0x7f80
#define LIMIT_F16_MOVED  0x6c00 /* 4096 */
#define LIMIT_F16_MEAN   0x6400 /* 1024 */
#define LIMIT_BF16_MOVED 0x6f80 /* 2^96 */

struct ts_codec_rope {
    uint32_t head_dim;
    float turns[];
};

struct ts_codec_rope *ts_codec_rope_new(const float *inverse_frequencies, uint32_t head_dim)
{
    const double turn = 0x1.45f306dc9c883p-3; /* 1 / (2 pi) */
    uint32_t half = head_dim / 2;
    struct ts_codec_rope *rope =
        ts_xcalloc(1, sizeof *rope + (size_t)TS_CODEC_SPAN_TOKENS * 2 * half * sizeof(float));
    rope->head_dim = head_dim;
    for (uint32_t t = 0; t < TS_CODEC_SPAN_TOKENS; t++) {
        for (uint32_t i = 0; i < half; i++) {
            double turns = t * (double)inverse_frequencies[i] * turn;
            float *at = rope->turns + (size_t)t * 2 * half + i;
            at[0] = (float)ts_math_cos_turns(turns);
            at[half] = (float)ts_math_cos_turns(turns - 0.25);
        }
    }
    return rope;
}

void ts_codec_rope_destroy(struct ts_codec_rope **rope)
{
    ts_free(*rope);
    *rope = NULL;
}

const float *codec_turns_of(const struct ts_codec_view *view, const struct ts_codec_chunk *chunk,
                            uint32_t block)
{
    uint32_t token = (chunk->token_begin + block * CODEC_ROWS) % TS_CODEC_SPAN_TOKENS;
    if (!view->rope)
        return NULL;
    TS_ASSERT(view->rope->head_dim == view->head_dim);
    return view->rope->turns + (size_t)token * (view->head_dim / 2 * 2);
}

static uint64_t blocks_for(uint32_t tokens)
{
    return ((uint64_t)tokens + CODEC_ROWS - 1) / CODEC_ROWS;
}

bool ts_codec_shape_ok(const struct ts_codec *codec, uint32_t head_dim, const struct ts_codec_chunk *c)
{
    return head_dim >= 1 && head_dim <= CODEC_DIM_MAX && c->token_begin % ts_codec_span(codec) == 0 &&
           (uint64_t)c->token_begin + c->token_count <= UINT32_MAX &&
           (uint64_t)c->head_begin + c->head_count <= UINT32_MAX &&
           (c->token_count == 0 || (c->head_count <= TILES_MAX / 2 / blocks_for(c->token_count) &&
                                    c->head_count <= UINT32_MAX / c->token_count));
}

void codec_check_shape(const struct ts_codec *codec, const struct ts_codec_view *view,
                       const struct ts_codec_chunk *c)
{
    TS_ASSERT(ts_codec_shape_ok(codec, view->head_dim, c));
    TS_ASSERT((uint64_t)c->head_begin + c->head_count <= view->pool_heads);
    TS_ASSERT((uint64_t)c->token_begin + c->token_count <= (uint64_t)view->block_count * CODEC_ROWS);
}

uint16_t *codec_tile_at(const struct ts_codec_view *view, const struct ts_codec_chunk *c, uint32_t kv,
                        uint32_t head, uint32_t block)
{
    size_t tile = (size_t)CODEC_ROWS * view->head_dim * 2;
    size_t index =
        ((size_t)c->layer * view->pool_blocks + view->blocks[c->token_begin / CODEC_ROWS + block]) * 2 + kv;
    return (uint16_t *)(view->pool + (index * view->pool_heads + c->head_begin + head) * tile);
}

uint16_t *codec_tile_after(const struct codec_layout *l, const struct ts_codec_view *view,
                           const struct ts_codec_chunk *chunk, uint32_t kv, uint32_t head, uint32_t block)
{
    if (head + 1 < l->heads)
        return codec_tile_at(view, chunk, kv, head + 1, block);
    if (kv == 0)
        return codec_tile_at(view, chunk, 1, 0, block);
    return block + 1 < l->blocks ? codec_tile_at(view, chunk, 0, 0, block + 1)
                                 : codec_tile_at(view, chunk, kv, head, block);
}

static uint16_t limit_of(enum ts_dtype dtype, const struct codec_side *s)
{
    bool moved = s->hadamard || s->centred || s->bits == 8 || !s->asym;
    if (dtype == TS_DTYPE_F16)
        return s->centred ? LIMIT_F16_MEAN : moved ? LIMIT_F16_MOVED : LIMIT_F16;
    return moved ? LIMIT_BF16_MOVED : LIMIT_BF16;
}

static struct codec_side side_of(struct ts_codec_side from, struct ts_codec_cache cache)
{
    uint32_t power = cache.head_dim & -cache.head_dim;
    struct codec_side s = {.dtype = cache.dtype,
                           .head_dim = cache.head_dim,
                           .bits = from.bits,
                           .lossless = (from.flags & TS_CODEC_LOSSLESS) != 0};
    if (from.bits == 16)
        return s;
    s.asym = (from.flags & TS_CODEC_ASYM) != 0;
    s.centred = (from.flags & TS_CODEC_CENTRE) != 0;
    /* The group in effect: as asked, or the largest power of two that divides head_dim when that is smaller.
     */
    s.group = from.group == 0 ? cache.head_dim : from.group < power ? from.group : power;
    s.groups = CODEC_ROWS * (cache.head_dim / s.group);
    if (from.flags & TS_CODEC_HADAMARD)
        s.hadamard = power < CODEC_HADAMARD_MAX ? power : CODEC_HADAMARD_MAX;
    s.limit = limit_of(cache.dtype, &s);
    return s;
}

uint32_t codec_plane_bytes(const struct codec_side *side)
{
    return side->head_dim + side->head_dim / 2 + (side->dtype == TS_DTYPE_F16 ? side->head_dim / 4 : 0);
}

static void lay_out_side(struct codec_side_layout *l, struct ts_codec_side from, struct ts_codec_cache cache)
{
    l->side = side_of(from, cache);
    if (l->side.lossless) {
        l->scale_row = 1; /* a base */
        l->code_row = codec_plane_bytes(&l->side);
    } else {
        l->scale_row = l->side.groups / CODEC_ROWS * 2;
        l->code_row = cache.head_dim * l->side.bits / 8;
    }
}

/* The next section, of so many bytes; returns where it begins. */
static size_t section(size_t *at, size_t bytes)
{
    size_t begin = *at;
    *at = codec_align16(begin + bytes);
    return begin;
}

struct codec_layout codec_layout_of(const struct ts_codec *codec, struct ts_codec_cache cache,
                                    const struct ts_codec_chunk *c)
{
    TS_ASSERT(ts_codec_shape_ok(codec, cache.head_dim, c));
    struct codec_layout l = {.heads = c->head_count,
                             .blocks = (uint32_t)blocks_for(c->token_count),
                             .tokens = c->token_count,
                             .row_bytes = (size_t)cache.head_dim * 2,
                             .tile_bytes = (size_t)CODEC_ROWS * cache.head_dim * 2};
    size_t at = 0, first = 0;
    l.tiles = 2 * l.heads * l.blocks;
    for (uint32_t kv = 0; kv < 2; kv++) {
        lay_out_side(&l.sides[kv], kv ? codec->value : codec->key, cache);
        l.bitmapped |= l.sides[kv].side.bits < 16;
    }
    if (l.sides[0].side.centred)
        l.spans = (uint32_t)(((uint64_t)c->token_count + TS_CODEC_SPAN_TOKENS - 1) / TS_CODEC_SPAN_TOKENS);
    if (c->token_begin == 0)
        l.raw_rows = codec->raw_tokens < c->token_count ? codec->raw_tokens : c->token_count;
    section(&at, l.bitmapped ? (l.tiles + 7) / 8 : 0);
    l.means = section(&at, l.heads * l.spans * l.row_bytes);
    for (uint32_t kv = 0; kv < 2; kv++)
        l.sides[kv].scales = section(&at, codec_scale_bytes(&l, &l.sides[kv]));
    for (uint32_t kv = 0; kv < 2; kv++)
        l.sides[kv].minima = section(&at, l.sides[kv].side.asym ? codec_scale_bytes(&l, &l.sides[kv]) : 0);
    for (uint32_t kv = 0; kv < 2; kv++) {
        l.sides[kv].codes = section(&at, codec_code_bytes(&l, &l.sides[kv]));
        first += l.sides[kv].side.bits < 16 ? l.heads * l.raw_rows * l.row_bytes : 0;
    }
    l.first_tokens = section(&at, first);
    l.tail = at;
    return l;
}

size_t ts_codec_bytes(const struct ts_codec *codec, struct ts_codec_cache cache,
                      const struct ts_codec_chunk *chunk, uint32_t escapes)
{
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    return l.tail + escapes * l.tile_bytes;
}

size_t ts_codec_bytes_max(const struct ts_codec *codec, struct ts_codec_cache cache,
                          const struct ts_codec_chunk *chunk)
{
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    size_t exceptions = 0, raw = 0;
    for (uint32_t kv = 0; kv < 2; kv++) {
        exceptions += l.sides[kv].side.lossless ? (size_t)l.heads * l.tokens * cache.head_dim : 0;
        raw += l.sides[kv].side.bits < 16 ? (size_t)l.heads * l.blocks * l.tile_bytes : 0;
    }
    return l.tail + codec_align16(exceptions) + raw;
}
