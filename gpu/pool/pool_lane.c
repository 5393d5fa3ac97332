/*
 * Pieces of a pool on a device. The kernels of gpu/cuda read and write the pool itself; what passes between
 * device and host is the payload, in one copy, and checksum and digests are made of it here.
 */
#include <string.h>

#include "common/base/ts_crc32c.h"
#include "gpu/cuda/codec/ts_cuda_codec.h"
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

/* What is fetched at first: a payload without escaped tiles, which are rare, and, of sides without loss, a
 * sixteenth of the exceptions that there can be (of normal numbers 2.5 % in fp16 and 0.01 % in bf16 are). */
static size_t usual_bytes(const struct ts_codec *codec, size_t least, size_t most)
{
    bool lossless = ((codec->key.flags | codec->value.flags) & TS_CODEC_LOSSLESS) != 0;
    return lossless ? least + (most - least) / 16 : least;
}

/* What is behind the usual length is fetched once it is known. */
static enum ts_status encode(const struct ts_pool *pool, struct pool_lane *lane,
                             const struct ts_pool_piece *piece, const struct ts_codec_chunk *chunk, void *out,
                             struct ts_pool_given *given, struct ts_error *err)
{
    const struct ts_codec_cache cache = pool_cache(pool);
    size_t most = ts_codec_bytes_max(&piece->codec, cache, chunk);
    size_t usual = usual_bytes(&piece->codec, ts_codec_bytes(&piece->codec, cache, chunk, 0), most);
    struct ts_cuda *cuda = lane->cuda;
    struct ts_cuda_codec_result answer;
    enum ts_status status = prepare(lane, piece, most, err);
    if (status != TS_OK)
        return status;
    struct ts_cuda_codec_view view = view_of(pool, lane, piece);
    uint8_t *at = staged(lane, piece);
    status = ts_cuda_codec_encode(cuda, &piece->codec, &view, chunk, lane->payload, lane->workspace, err);
    if (status == TS_OK)
        status = ts_cuda_download(cuda, at, lane->payload, usual, err);
    if (status == TS_OK)
        status = ts_cuda_codec_answer(cuda, lane->workspace, &answer, err);
    if (status != TS_OK)
        return status;
    given->escapes = answer.escapes;
    given->bytes = ts_codec_bytes(&piece->codec, cache, chunk, answer.escapes) +
                   ((size_t)answer.exceptions + 15) / 16 * 16;
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
    struct ts_cuda_codec_result answer;
    enum ts_status status = prepare(lane, piece, bytes, err);
    if (status != TS_OK)
        return status;
    struct ts_cuda_codec_view view = view_of(pool, lane, piece);
    memcpy(staged(lane, piece), payload, bytes);
    status = ts_cuda_upload(cuda, lane->payload, staged(lane, piece), bytes, err);
    if (status == TS_OK)
        status = ts_cuda_codec_decode(cuda, &piece->codec, lane->payload, bytes, chunk, &view,
                                      lane->workspace, err);
    return status == TS_OK ? ts_cuda_codec_answer(cuda, lane->workspace, &answer, err) : status;
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
    enum ts_status status = encode(pool, lane, piece, chunk, out, given, err);
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
    status = decode(pool, lane, piece, chunk, payload, bytes, err);
    put_back(pool, lane, status);
    return status;
}
