/*
 * A pool from the inside. ts_pool.c has what all pools have in common, and those in memory of the host;
 * pool_device.c the devices of a process with their lanes; pool_lane.c gives and takes over a lane.
 */
#ifndef TS_GPU_POOL_IMPL_H
#define TS_GPU_POOL_IMPL_H

#include <pthread.h>

#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/pool/ts_pool.h"

/* A stream of high priority, so that it gets its turn beside an engine, and memory for one piece on its way.
 * Room is that of an ordinary piece from the start, and grows with the largest so far. */
struct pool_lane {
    struct ts_cuda *cuda;
    ts_cuda_address payload, blocks, workspace;
    size_t payload_room, blocks_room, workspace_room;
    void *pinned;
    size_t pinned_room;
    bool taken;
};

struct pool_device {
    struct ts_cuda *cuda; /* what the lanes were forked from; for what is not of a lane, under `lock` */
    pthread_mutex_t lock;
    pthread_cond_t back; /* a lane */
    struct pool_lane *lanes;
    uint32_t lane_count;
    struct pool_device *next;
};

struct ts_pool {
    struct ts_shard shard;
    uint32_t heads, blocks, head_dim;
    enum ts_dtype dtype;
    struct ts_codec_rope *rope;  /* NULL: keys are not turned, or it is modelled */
    uint8_t *base;               /* in memory of the host; NULL when it is elsewhere */
    const uint32_t *generations; /* [blocks] */
    void *mapped;                /* to be unmapped; NULL = somebody else's */
    size_t mapped_bytes;
    struct pool_device *device; /* where it lies; NULL = on none */
    bool device_own;            /* the pool's, to be closed with it */
    ts_cuda_address at;         /* there */
    ts_cuda_address imported;   /* to be given back; 0 = it is the caller's */
    ts_cuda_address turns;      /* `rope` there */
};

static inline struct ts_codec_cache pool_cache(const struct ts_pool *pool)
{
    return (struct ts_codec_cache){pool->head_dim, pool->dtype};
}

/* pool_device.c. The device is `cuda`'s, which outlives it. */
enum ts_status pool_device_new(struct ts_cuda *cuda, uint32_t lanes, struct pool_device **out,
                               struct ts_error *err);
void pool_device_free(struct pool_device **device); /* null-safe */
enum ts_status pool_device_map(struct ts_pool_devices *devices, struct ts_pool *pool,
                               const struct ts_pool_place *place, struct ts_error *err);
void pool_device_unmap(struct ts_pool *pool);
struct pool_lane *pool_lane_take(struct pool_device *device); /* waits for one */
void pool_lane_back(struct pool_device *device, struct pool_lane *lane);

/* pool_lane.c: as ts_pool_give and ts_pool_take, without a look at generations; `chunk` as the codec counts.
 */
enum ts_status pool_lane_give(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                              const struct ts_codec_chunk *chunk, void *out, uint64_t *digests,
                              struct ts_pool_given *given, struct ts_error *err);
enum ts_status pool_lane_restore(const struct ts_pool *pool, const struct ts_pool_piece *piece,
                                 const struct ts_codec_chunk *chunk, const void *payload, size_t bytes,
                                 uint32_t crc, uint64_t *digests, struct ts_error *err);
/* For pieces of the length that relays cut; what there is no room for now is looked for again when it is
 * needed. */
void pool_lane_reserve(const struct ts_pool *pool, struct pool_lane *lane);
void pool_lane_free(struct pool_lane *lane); /* its memory */

#endif
