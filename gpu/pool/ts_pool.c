/* Pools in shared memory and modelled ones, and what all have in common. */
#include "gpu/pool/pool_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "gpu/ts_engine.h"

#define HEAD_DIM_MAX 1024

static uint64_t kv_bytes(const struct ts_pool_shape *s)
{
    uint64_t layers = s->shard.layer_end - s->shard.layer_begin;
    uint64_t heads = s->shard.head_end - s->shard.head_begin;
    return layers * s->blocks * 2 * heads * TS_KV_BLOCK_TOKENS * s->head_dim * 2;
}

static bool shape_sane(const struct ts_pool_shape *s)
{
    return s->shard.layer_end > s->shard.layer_begin && s->shard.head_end > s->shard.head_begin &&
           s->head_dim > 0 && s->head_dim <= HEAD_DIM_MAX && s->blocks > 0 &&
           (s->dtype == TS_DTYPE_F16 || s->dtype == TS_DTYPE_BF16);
}

struct ts_pool *ts_pool_own(const struct ts_pool_shape *shape, void *base, const uint32_t *generations)
{
    struct ts_pool *pool = ts_xcalloc(1, sizeof *pool);
    *pool = (struct ts_pool){.shard = shape->shard,
                             .heads = shape->shard.head_end - shape->shard.head_begin,
                             .blocks = shape->blocks,
                             .head_dim = shape->head_dim,
                             .dtype = shape->dtype,
                             .base = base,
                             .generations = generations};
    if (shape->inverse_frequencies)
        pool->rope = ts_codec_rope_new(shape->inverse_frequencies, shape->head_dim);
    return pool;
}

enum ts_status ts_pool_of_engine(const struct ts_engine_info *info, uint32_t lanes, struct ts_pool **out,
                                 struct ts_error *err)
{
    const struct ts_pool_shape shape = {.shard = info->shard,
                                        .blocks = info->kv_blocks,
                                        .head_dim = info->model.head_dim,
                                        .dtype = info->model.kv_dtype,
                                        .inverse_frequencies = info->inverse_frequencies};
    if (info->device)
        return ts_pool_own_device(&shape, info->device, info->device_pool, info->generations, lanes, out,
                                  err);
    *out = ts_pool_own(&shape, info->pool, info->generations);
    return TS_OK;
}

/* All of the memfd, or NULL. */
static uint8_t *map_file(const struct ts_pool_place *place, struct ts_error *err)
{
    struct stat st;
    uint8_t *mapped = NULL;
    int fd = open(place->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        ts_error_set(err, TS_EIO,
                     "cannot open the KV pool %s: %s; run relay and worker as the same user on one host",
                     place->path, strerror(errno));
    } else if ((uint64_t)st.st_size < place->bytes) {
        ts_error_set(err, TS_EINVAL, "the KV pool %s has %lld bytes, its worker announced %llu", place->path,
                     (long long)st.st_size, (unsigned long long)place->bytes);
    } else {
        void *at = mmap(NULL, place->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        mapped = at == MAP_FAILED ? NULL : at;
        if (!mapped)
            ts_error_set(err, TS_EIO, "cannot map the KV pool %s: %s", place->path, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    return mapped;
}

/* On a device the memfd has the generations alone. */
enum ts_status ts_pool_map(struct ts_pool_devices *devices, const struct ts_pool_shape *shape,
                           const struct ts_pool_place *place, struct ts_pool **out, struct ts_error *err)
{
    bool on_device = place->device && *place->device;
    uint64_t kv = on_device ? 0 : kv_bytes(shape);
    if (!shape_sane(shape) || (*place->path && place->bytes < kv + shape->blocks * sizeof(uint32_t)) ||
        (on_device && !*place->path))
        return ts_error_set(err, TS_EINVAL, "the KV pool's announced layout is inconsistent");
    if (!*place->path) {
        *out = ts_pool_own(shape, NULL, NULL);
        return TS_OK;
    }
    uint8_t *mapped = map_file(place, err);
    if (!mapped)
        return err->status;
    struct ts_pool *pool =
        ts_pool_own(shape, on_device ? NULL : mapped, (const uint32_t *)(const void *)(mapped + kv));
    pool->mapped = mapped;
    pool->mapped_bytes = place->bytes;
    if (on_device && pool_device_map(devices, pool, place, err) != TS_OK)
        ts_pool_close(&pool);
    *out = pool;
    return pool ? TS_OK : err->status;
}

void ts_pool_close(struct ts_pool **pool)
{
    struct ts_pool *p = *pool;
    if (!p)
        return;
    pool_device_unmap(p);
    if (p->mapped)
        munmap(p->mapped, p->mapped_bytes);
    ts_codec_rope_destroy(&p->rope);
    ts_free(p);
    *pool = NULL;
}

/* As the codec counts: from the pool's first layer and head. */
static struct ts_codec_chunk chunk_of(const struct ts_pool *pool, const struct ts_pool_piece *piece)
{
    return (struct ts_codec_chunk){.layer = piece->layer - pool->shard.layer_begin,
                                   .head_begin = piece->head_begin - pool->shard.head_begin,
                                   .head_count = piece->head_count,
                                   .token_begin = piece->token_begin,
                                   .token_count = piece->token_count};
}

bool ts_pool_fits(const struct ts_pool *pool, const struct ts_pool_piece *piece)
{
    const struct ts_shard *s = &pool->shard;
    const struct ts_codec_chunk shape = {.head_count = piece->head_count,
                                         .token_begin = piece->token_begin,
                                         .token_count = piece->token_count};
    if (piece->layer < s->layer_begin || piece->layer >= s->layer_end || piece->head_begin < s->head_begin ||
        (uint64_t)piece->head_begin + piece->head_count > s->head_end)
        return false;
    if (ts_codec_check(&piece->codec, pool->head_dim, NULL) != TS_OK ||
        !ts_codec_shape_ok(&piece->codec, pool->head_dim, &shape))
        return false;
    if ((uint64_t)piece->token_begin + piece->token_count > (uint64_t)piece->block_count * TS_KV_BLOCK_TOKENS)
        return false;
    for (uint32_t i = 0; i < piece->block_count; i++) {
        if (piece->blocks[i] >= pool->blocks)
            return false;
    }
    return true;
}

static uint32_t *copy_of(struct ts_u32s from, uint32_t count)
{
    uint32_t *copy = ts_xcalloc((size_t)count + 1, sizeof *copy);
    if (from.count)
        memcpy(copy, from.data, (from.count < count ? from.count : count) * sizeof *copy);
    return copy;
}

/* A block without a generation has none that it could have. */
struct ts_pool_piece ts_pool_piece_to_give(const struct ts_action_encode *a)
{
    uint32_t *generations = copy_of(a->generations, a->blocks.count);
    for (uint32_t i = a->generations.count; i < a->blocks.count; i++)
        generations[i] = UINT32_MAX;
    return (struct ts_pool_piece){.codec = a->codec,
                                  .layer = a->layer,
                                  .head_begin = a->head_begin,
                                  .head_count = a->head_count,
                                  .token_begin = a->token_begin,
                                  .token_count = a->token_count,
                                  .blocks = copy_of(a->blocks, a->blocks.count),
                                  .generations = generations,
                                  .block_count = a->blocks.count};
}

struct ts_pool_piece ts_pool_piece_to_take(const struct ts_action_scatter *a)
{
    return (struct ts_pool_piece){.codec = a->codec,
                                  .layer = a->layer,
                                  .head_begin = a->head_begin,
                                  .head_count = a->head_count,
                                  .token_begin = a->token_begin,
                                  .token_count = a->token_count,
                                  .blocks = copy_of(a->blocks, a->blocks.count),
                                  .block_count = a->blocks.count};
}

void ts_pool_piece_fini(struct ts_pool_piece *piece)
{
    ts_free((uint32_t *)piece->blocks);
    ts_free((uint32_t *)piece->generations);
}

enum ts_reason ts_pool_reason(enum ts_status status)
{
    switch (status) {
    case TS_OK:
        return TS_REASON_NONE;
    case TS_EAGAIN:
    case TS_ECORRUPT:
        return TS_REASON_KV_CORRUPT;
    case TS_ENOMEM:
        return TS_REASON_KV_NO_MEMORY;
    default:
        return TS_REASON_ENGINE;
    }
}

bool ts_pool_on_device(const struct ts_pool *pool)
{
    return pool->device != NULL;
}

size_t ts_pool_give_bytes(const struct ts_pool *pool, const struct ts_pool_piece *piece)
{
    const struct ts_codec_chunk chunk = chunk_of(pool, piece);
    return pool->base || pool->device ? ts_codec_bytes_max(&piece->codec, pool_cache(pool), &chunk) : 0;
}

static void modelled_digests(const struct ts_pool_piece *piece, uint64_t *digests)
{
    for (uint32_t h = 0; h < piece->head_count; h++)
        digests[h] =
            ts_modelled_digest(piece->layer, piece->head_begin + h, piece->token_begin, piece->token_count);
}

/* Whether all that was read was what the worker had announced: it counts before it writes anew. */
static bool still_theirs(const struct ts_pool *pool, const struct ts_pool_piece *piece)
{
    uint32_t end = ts_kv_blocks_for(piece->token_begin + piece->token_count);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    for (uint32_t i = piece->token_begin / TS_KV_BLOCK_TOKENS; i < end; i++) {
        if (__atomic_load_n(&pool->generations[piece->blocks[i]], __ATOMIC_RELAXED) != piece->generations[i])
            return false;
    }
    return true;
}

static struct ts_codec_view view_of(const struct ts_pool *pool, const struct ts_pool_piece *piece)
{
    return (struct ts_codec_view){.pool = pool->base,
                                  .pool_blocks = pool->blocks,
                                  .pool_heads = pool->heads,
                                  .head_dim = pool->head_dim,
                                  .dtype = pool->dtype,
                                  .blocks = piece->blocks,
                                  .block_count = piece->block_count,
                                  .rope = pool->rope};
}

static void give_host(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                      const struct ts_codec_chunk *chunk, void *out, uint64_t *digests,
                      struct ts_pool_given *given)
{
    struct ts_codec_view view = view_of(pool, piece);
    struct ts_codec_sums sums = {.digest = digests};
    given->bytes = ts_codec_give(&piece->codec, &view, chunk, out, &given->escapes, &sums);
    given->crc = sums.crc;
}

enum ts_status ts_pool_give(struct ts_pool *pool, const struct ts_pool_piece *piece, void *out,
                            uint64_t *digests, struct ts_pool_given *given, struct ts_error *err)
{
    const struct ts_codec_chunk chunk = chunk_of(pool, piece);
    enum ts_status status = TS_OK;
    *given = (struct ts_pool_given){.bytes = 0};
    if (!pool->base && !pool->device) {
        modelled_digests(piece, digests);
        given->declared_bytes = ts_codec_bytes(&piece->codec, pool_cache(pool), &chunk, 0);
        return TS_OK;
    }
    if (pool->device)
        status = pool_lane_give(pool, piece, &chunk, out, digests, given, err);
    else
        give_host(pool, piece, &chunk, out, digests, given);
    if (status == TS_OK && !still_theirs(pool, piece))
        status = ts_error_set(err, TS_ECORRUPT, "a block was given back while it was encoded");
    return status;
}

enum ts_status ts_pool_take(struct ts_pool *pool, const struct ts_pool_piece *piece, const void *payload,
                            size_t bytes, uint32_t crc, uint64_t *digests, struct ts_error *err)
{
    const struct ts_codec_chunk chunk = chunk_of(pool, piece);
    if (pool->device)
        return pool_lane_restore(pool, piece, &chunk, payload, bytes, crc, digests, err);
    if (!pool->base) {
        modelled_digests(piece, digests);
        return TS_OK;
    }
    struct ts_codec_view view = view_of(pool, piece);
    struct ts_codec_sums sums = {.crc = crc, .digest = digests};
    enum ts_status status = ts_codec_take(&piece->codec, payload, bytes, &chunk, &view, &sums);
    if (status == TS_EAGAIN)
        ts_error_set(err, status, "a chunk came damaged");
    else if (status != TS_OK)
        ts_error_set(err, status, "a chunk is none that an encoder writes");
    return status;
}
