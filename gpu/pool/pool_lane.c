/*
 * Pieces of a pool on a device. The kernels of gpu/cuda read and write the pool itself; what passes between
 * device and host is the payload, in one copy, and checksum and digests are made of it here. Codecs that have
 * no kernel are done by the CPU over tiles that are copied: the same bytes, and more of them on the way.
 */
#include <string.h>

#include "common/base/ts_crc32c.h"
#include "gpu/cuda/ts_cuda_codec.h"
#include "gpu/pool/pool_impl.h"

#define ROOM_STEP  ((size_t)256 << 10)
#define PIECE_MOST 512u /* tokens: chunk_tokens_max of a relay, unless it was changed */

/* Blocks of a piece, in the table of its sequence. */
struct range {
    uint32_t first, end;
};

static struct range range_of(const struct ts_pool_piece *piece)
{
    return (struct range){piece->token_begin / TS_KV_BLOCK_TOKENS,
                          ts_kv_blocks_for(piece->token_begin + piece->token_count)};
}

static size_t table_bytes(struct range r)
{
    return ((size_t)r.end * sizeof(uint32_t) + 255) & ~(size_t)255;
}

/* --- room ----------------------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes)
{
    return (bytes + ROOM_STEP - 1) / ROOM_STEP * ROOM_STEP;
}

static enum ts_status grow(struct ts_cuda *cuda, ts_cuda_address *at, size_t *room, size_t bytes,
                           struct ts_error *err)
{
    if (bytes <= *room)
        return TS_OK;
    if (*at)
        ts_cuda_free(cuda, at);
    *room = 0;
    enum ts_status status = ts_cuda_alloc(cuda, rounded(bytes), at, err);
    if (status == TS_OK)
        status = ts_cuda_clear(cuda, *at, rounded(bytes), err);
    if (status == TS_OK)
        *room = rounded(bytes);
    return status;
}

static enum ts_status grow_pinned(struct pool_lane *lane, size_t bytes, struct ts_error *err)
{
    if (bytes <= lane->pinned_room)
        return TS_OK;
    if (lane->pinned)
        ts_cuda_unpin(lane->cuda, &lane->pinned);
    lane->pinned_room = 0;
    enum ts_status status = ts_cuda_pin(lane->cuda, rounded(bytes), &lane->pinned, err);
    if (status == TS_OK)
        lane->pinned_room = rounded(bytes);
    return status;
}

void pool_lane_free(struct pool_lane *lane)
{
    if (lane->payload)
        ts_cuda_free(lane->cuda, &lane->payload);
    if (lane->blocks)
        ts_cuda_free(lane->cuda, &lane->blocks);
    if (lane->workspace)
        ts_cuda_free(lane->cuda, &lane->workspace);
    if (lane->pinned)
        ts_cuda_unpin(lane->cuda, &lane->pinned);
}

static enum ts_status grow_all(struct pool_lane *lane, size_t table, size_t payload, uint32_t tiles,
                               struct ts_error *err)
{
    enum ts_status status = grow_pinned(lane, table + payload, err);
    if (status == TS_OK)
        status = grow(lane->cuda, &lane->payload, &lane->payload_room, payload, err);
    if (status == TS_OK)
        status = grow(lane->cuda, &lane->blocks, &lane->blocks_room, table, err);
    if (status == TS_OK)
        status = grow(lane->cuda, &lane->workspace, &lane->workspace_room,
                      ts_cuda_codec_workspace_bytes(tiles), err);
    return status;
}

/* Allocations wait for all of the device: better now than beside an engine. */
void pool_lane_reserve(const struct ts_pool *pool, struct pool_lane *lane)
{
    const struct ts_codec_chunk whole = {.head_count = pool->heads, .token_count = PIECE_MOST};
    struct ts_codec longest;
    struct ts_error ignored;
    if (ts_codec_parse("lz16", &longest, &ignored) == TS_OK)
        grow_all(lane, ROOM_STEP, ts_codec_bytes_max(&longest, pool_cache(pool), &whole),
                 2 * pool->heads * ts_kv_blocks_for(PIECE_MOST), &ignored);
}

/* Room for the piece and its payload, and its blocks on the device. Behind the table, the lane's pinned
 * memory has `bytes`. */
static enum ts_status prepare(struct pool_lane *lane, const struct ts_pool_piece *piece, size_t bytes,
                              struct ts_error *err)
{
    struct range r = range_of(piece);
    uint32_t tiles = 2 * piece->head_count * (r.end - r.first);
    enum ts_status status = grow_all(lane, table_bytes(r), bytes, tiles, err);
    if (status != TS_OK)
        return status;
    memcpy(lane->pinned, piece->blocks, r.end * sizeof(uint32_t));
    return ts_cuda_upload(lane->cuda, lane->blocks, lane->pinned, r.end * sizeof(uint32_t), err);
}

static uint8_t *staged(const struct pool_lane *lane, const struct ts_pool_piece *piece)
{
    return (uint8_t *)lane->pinned + table_bytes(range_of(piece));
}

/* --- kernels -------------------------------------------------------------------------------------------- */

static struct ts_cuda_codec_view view_of(const struct ts_pool *pool, const struct pool_lane *lane,
                                         const struct ts_pool_piece *piece)
{
    return (struct ts_cuda_codec_view){.pool = pool->at,
                                       .pool_blocks = pool->blocks,
                                       .pool_heads = pool->heads,
                                       .head_dim = pool->head_dim,
                                       .dtype = pool->dtype,
                                       .blocks = lane->blocks,
                                       .block_count = range_of(piece).end,
                                       .turns = pool->turns};
}

/* Its length is that of a payload without escaped tiles, which are rare: what they add is fetched after. */
static enum ts_status encode(const struct ts_pool *pool, struct pool_lane *lane,
                             const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk, void *out,
                             struct ts_pool_given *given, struct ts_error *err)
{
    const struct ts_codec_cache cache = pool_cache(pool);
    size_t most = ts_codec_bytes_max(&piece->codec, cache, chunk);
    size_t usual = ts_codec_bytes(&piece->codec, cache, chunk, 0);
    struct ts_cuda *cuda = lane->cuda;
    enum ts_status status = prepare(lane, piece, most, err);
    if (status != TS_OK)
        return status;
    struct ts_cuda_codec_view view = view_of(pool, lane, piece);
    uint8_t *at = staged(lane, piece);
    status = ts_cuda_codec_encode(cuda, &piece->codec, &view, chunk, lane->payload, lane->workspace, err);
    if (status == TS_OK)
        status = ts_cuda_download(cuda, at, lane->payload, usual, err);
    if (status == TS_OK)
        status = ts_cuda_codec_answer(cuda, lane->workspace, &given->escapes, err);
    if (status != TS_OK)
        return status;
    given->bytes = ts_codec_bytes(&piece->codec, cache, chunk, given->escapes);
    if (given->bytes > usual) {
        status = ts_cuda_download(cuda, at + usual, lane->payload + usual, given->bytes - usual, err);
        if (status == TS_OK)
            status = ts_cuda_wait(cuda, err);
    }
    if (status == TS_OK)
        memcpy(out, at, given->bytes);
    return status;
}

static enum ts_status decode(const struct ts_pool *pool, struct pool_lane *lane,
                             const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk,
                             const void *payload, size_t bytes, struct ts_error *err)
{
    struct ts_cuda *cuda = lane->cuda;
    uint32_t escapes;
    enum ts_status status = prepare(lane, piece, bytes, err);
    if (status != TS_OK)
        return status;
    struct ts_cuda_codec_view view = view_of(pool, lane, piece);
    memcpy(staged(lane, piece), payload, bytes);
    status = ts_cuda_upload(cuda, lane->payload, staged(lane, piece), bytes, err);
    if (status == TS_OK)
        status = ts_cuda_codec_decode(cuda, &piece->codec, lane->payload, bytes, chunk, &view,
                                      lane->workspace, err);
    return status == TS_OK ? ts_cuda_codec_answer(cuda, lane->workspace, &escapes, err) : status;
}

/* --- the CPU over copies -------------------------------------------------------------------------------- */

/* A pool of one layer, of the piece's heads and blocks alone, in pinned memory. Its table is where prepare
 * puts that of the real one. */
struct copies {
    struct ts_codec_view view;
    struct ts_codec_chunk chunk;
};

static size_t tile_bytes(const struct ts_pool *pool)
{
    return (size_t)TS_KV_BLOCK_TOKENS * pool->head_dim * 2;
}

static enum ts_status copies_of(const struct ts_pool *pool, struct pool_lane *lane,
                                const struct ts_pool_piece *piece, struct copies *out, struct ts_error *err)
{
    struct range r = range_of(piece);
    size_t bytes = (size_t)(r.end - r.first) * 2 * piece->head_count * tile_bytes(pool);
    enum ts_status status = grow_pinned(lane, table_bytes(r) + bytes, err);
    if (status != TS_OK)
        return status;
    uint32_t *table = lane->pinned;
    for (uint32_t i = 0; i < r.end; i++)
        table[i] = i < r.first ? 0 : i - r.first;
    *out = (struct copies){.view = {.pool = staged(lane, piece),
                                    .pool_blocks = r.end - r.first,
                                    .pool_heads = piece->head_count,
                                    .head_dim = pool->head_dim,
                                    .dtype = pool->dtype,
                                    .blocks = table,
                                    .block_count = r.end,
                                    .rope = pool->rope},
                           .chunk = {.head_count = piece->head_count,
                                     .token_begin = piece->token_begin,
                                     .token_count = piece->token_count}};
    return TS_OK;
}

static enum ts_status move(struct ts_cuda *cuda, uint8_t *here, ts_cuda_address there, size_t bytes,
                           bool down, struct ts_error *err)
{
    return down ? ts_cuda_download(cuda, here, there, bytes, err)
                : ts_cuda_upload(cuda, there, here, bytes, err);
}

/* Keys or values of one block; `rows` of them where they go up: behind the last token nothing is touched. */
static enum ts_status move_block(const struct ts_pool *pool, struct ts_cuda *cuda, uint8_t *here,
                                 ts_cuda_address there, uint32_t heads, uint32_t rows, bool down,
                                 struct ts_error *err)
{
    size_t tile = tile_bytes(pool), row = (size_t)pool->head_dim * 2;
    enum ts_status status = TS_OK;
    if (down || rows == TS_KV_BLOCK_TOKENS)
        return move(cuda, here, there, heads * tile, down, err);
    for (uint32_t h = 0; status == TS_OK && h < heads; h++)
        status = move(cuda, here + h * tile, there + h * tile, rows * row, down, err);
    return status;
}

static enum ts_status move_tiles(const struct ts_pool *pool, struct ts_cuda *cuda,
                                 const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk,
                                 const struct copies *copies, bool down, struct ts_error *err)
{
    struct range r = range_of(piece);
    uint32_t end = piece->token_begin + piece->token_count;
    size_t tile = tile_bytes(pool), step = piece->head_count * tile;
    enum ts_status status = TS_OK;
    for (uint32_t b = r.first; status == TS_OK && b < r.end; b++) {
        uint32_t left = end - b * TS_KV_BLOCK_TOKENS,
                 rows = left < TS_KV_BLOCK_TOKENS ? left : TS_KV_BLOCK_TOKENS;
        uint64_t block = (uint64_t)chunk->layer * pool->blocks + piece->blocks[b];
        for (uint32_t kv = 0; status == TS_OK && kv < 2; kv++)
            status = move_block(pool, cuda, copies->view.pool + ((size_t)(b - r.first) * 2 + kv) * step,
                                pool->at + ((block * 2 + kv) * pool->heads + chunk->head_begin) * tile,
                                piece->head_count, rows, down, err);
    }
    return status == TS_OK ? ts_cuda_wait(cuda, err) : status;
}

static enum ts_status encode_copies(const struct ts_pool *pool, struct pool_lane *lane,
                                    const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk,
                                    void *out, struct ts_pool_given *given, struct ts_error *err)
{
    struct copies copies;
    enum ts_status status = copies_of(pool, lane, piece, &copies, err);
    if (status == TS_OK)
        status = move_tiles(pool, lane->cuda, piece, chunk, &copies, true, err);
    if (status == TS_OK)
        given->bytes = ts_codec_encode(&piece->codec, &copies.view, &copies.chunk, out, &given->escapes);
    return status;
}

static enum ts_status decode_copies(const struct ts_pool *pool, struct pool_lane *lane,
                                    const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk,
                                    const void *payload, size_t bytes, struct ts_error *err)
{
    struct copies copies;
    enum ts_status status = copies_of(pool, lane, piece, &copies, err);
    if (status != TS_OK)
        return status;
    if (ts_codec_decode(&piece->codec, payload, bytes, &copies.chunk, &copies.view) != TS_OK)
        return ts_error_set(err, TS_ECORRUPT, "a chunk is none that an encoder writes");
    return move_tiles(pool, lane->cuda, piece, chunk, &copies, false, err);
}

/* --- both ends ------------------------------------------------------------------------------------------ */

/* What was begun is over before anybody else has the lane. */
static void put_back(const struct ts_pool *pool, struct pool_lane *lane, enum ts_status status)
{
    struct ts_error ignored;
    if (status != TS_OK)
        ts_cuda_wait(lane->cuda, &ignored);
    pool_lane_back(pool->device, lane);
}

static enum ts_status digest(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                             const struct ts_codec_chunk *chunk, const void *payload, size_t bytes,
                             uint64_t *digests, struct ts_error *err)
{
    memset(digests, 0, chunk->head_count * sizeof *digests);
    if (ts_codec_digest(&piece->codec, pool_cache(pool), payload, bytes, chunk, digests) == TS_OK)
        return TS_OK;
    return ts_error_set(err, TS_ECORRUPT, "a chunk of %zu bytes has not the length of its shape", bytes);
}

enum ts_status pool_lane_give(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                              const struct ts_codec_chunk *chunk, void *out, uint64_t *digests,
                              struct ts_pool_given *given, struct ts_error *err)
{
    struct pool_lane *lane = pool_lane_take(pool->device);
    enum ts_status status = ts_cuda_codec_takes(&piece->codec, pool->head_dim)
                                ? encode(pool, lane, piece, chunk, out, given, err)
                                : encode_copies(pool, lane, piece, chunk, out, given, err);
    put_back(pool, lane, status);
    if (status != TS_OK)
        return status;
    given->crc = ts_crc32c(0, out, given->bytes);
    return digest(pool, piece, chunk, out, given->bytes, digests, err);
}

enum ts_status pool_lane_restore(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                                 const struct ts_codec_chunk *chunk, const void *payload, size_t bytes,
                                 uint32_t crc, uint64_t *digests, struct ts_error *err)
{
    if (ts_crc32c(0, payload, bytes) != crc)
        return ts_error_set(err, TS_EAGAIN, "a chunk came damaged");
    enum ts_status status = digest(pool, piece, chunk, payload, bytes, digests, err);
    if (status != TS_OK)
        return status;
    struct pool_lane *lane = pool_lane_take(pool->device);
    status = ts_cuda_codec_takes(&piece->codec, pool->head_dim)
                 ? decode(pool, lane, piece, chunk, payload, bytes, err)
                 : decode_copies(pool, lane, piece, chunk, payload, bytes, err);
    put_back(pool, lane, status);
    return status;
}
