/* The devices of a process: those that it has opened for pools of others, and that of its own pool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/codec/ts_cuda_codec.h"
#include "gpu/pool/pool_impl.h"

struct ts_pool_devices {
    uint32_t lanes; /* of each */
    pthread_mutex_t lock;
    struct pool_device *first;
};

/* --- one ------------------------------------------------------------------------------------------------ */

enum ts_status pool_device_new(struct ts_cuda *cuda, uint32_t lanes, struct pool_device **out,
                               struct ts_error *err)
{
    struct pool_device *d = ts_xcalloc(1, sizeof *d);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->back, NULL);
    d->lanes = ts_xcalloc(lanes, sizeof *d->lanes);
    d->cuda = cuda;
    enum ts_status status = TS_OK;
    while (status == TS_OK && d->lane_count < lanes) {
        status = ts_cuda_fork(cuda, true, &d->lanes[d->lane_count].cuda, err);
        d->lane_count += status == TS_OK;
    }
    if (status != TS_OK)
        pool_device_free(&d);
    *out = d;
    return status;
}

/* Of a device that nobody uses yet. */
static void reserve(struct pool_device *d, const struct ts_pool *pool)
{
    for (uint32_t i = 0; i < d->lane_count; i++)
        pool_lane_reserve(pool, &d->lanes[i]);
}

void pool_device_free(struct pool_device **device)
{
    struct pool_device *d = *device;
    if (!d)
        return;
    for (uint32_t i = 0; i < d->lane_count; i++) {
        pool_lane_free(&d->lanes[i]);
        ts_cuda_close(&d->lanes[i].cuda);
    }
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->back);
    ts_free(d->lanes);
    ts_free(d);
    *device = NULL;
}

static struct pool_lane *idle_lane(struct pool_device *d)
{
    for (uint32_t i = 0; i < d->lane_count; i++) {
        if (!d->lanes[i].taken)
            return &d->lanes[i];
    }
    return NULL;
}

struct pool_lane *pool_lane_take(struct pool_device *device)
{
    struct pool_lane *lane;
    pthread_mutex_lock(&device->lock);
    while (!(lane = idle_lane(device)))
        pthread_cond_wait(&device->back, &device->lock);
    lane->taken = true;
    pthread_mutex_unlock(&device->lock);
    return lane;
}

void pool_lane_back(struct pool_device *device, struct pool_lane *lane)
{
    pthread_mutex_lock(&device->lock);
    lane->taken = false;
    pthread_cond_signal(&device->back);
    pthread_mutex_unlock(&device->lock);
}

/* --- all ------------------------------------------------------------------------------------------------ */

struct ts_pool_devices *ts_pool_devices_new(uint32_t lanes)
{
    struct ts_pool_devices *devices = ts_xcalloc(1, sizeof *devices);
    devices->lanes = lanes;
    pthread_mutex_init(&devices->lock, NULL);
    return devices;
}

void ts_pool_devices_free(struct ts_pool_devices **devices)
{
    struct ts_pool_devices *all = *devices;
    if (!all)
        return;
    while (all->first) {
        struct pool_device *d = all->first;
        struct ts_cuda *cuda = d->cuda;
        all->first = d->next;
        pool_device_free(&d);
        ts_cuda_close(&cuda);
    }
    pthread_mutex_destroy(&all->lock);
    ts_free(all);
    *devices = NULL;
}

/* The one of that uuid: ordinals are those of a process. */
static enum ts_status open_uuid(const char *uuid, struct ts_cuda **out, struct ts_error *err)
{
    uint32_t count;
    enum ts_status status = ts_cuda_count(&count, err);
    *out = NULL;
    for (uint32_t i = 0; status == TS_OK && i < count; i++) {
        status = ts_cuda_open(i, out, err);
        if (status == TS_OK && strcmp(ts_cuda_properties(*out)->uuid, uuid) == 0)
            return TS_OK;
        if (status == TS_OK)
            ts_cuda_close(out);
    }
    return status != TS_OK ? status
                           : ts_error_set(err, TS_ENOTFOUND, "this process is shown %u others", count);
}

static enum ts_status find(struct ts_pool_devices *all, const char *uuid, const struct ts_pool *pool,
                           struct pool_device **out, struct ts_error *err)
{
    struct ts_cuda *cuda;
    for (*out = all->first; *out; *out = (*out)->next) {
        if (strcmp(ts_cuda_properties((*out)->cuda)->uuid, uuid) == 0)
            return TS_OK;
    }
    enum ts_status status = open_uuid(uuid, &cuda, err);
    if (status != TS_OK)
        return status;
    status = pool_device_new(cuda, all->lanes, out, err);
    if (status != TS_OK) {
        ts_cuda_close(&cuda);
        return status;
    }
    reserve(*out, pool);
    (*out)->next = all->first;
    all->first = *out;
    return TS_OK;
}

static enum ts_status bring_rope(struct ts_pool *pool, struct ts_error *err)
{
    if (!pool->rope)
        return TS_OK;
    pthread_mutex_lock(&pool->device->lock);
    enum ts_status status =
        ts_cuda_codec_upload_rope(pool->device->cuda, pool->rope, pool->head_dim, &pool->turns, err);
    pthread_mutex_unlock(&pool->device->lock);
    return status;
}

static enum ts_status import(struct ts_pool *pool, const struct ts_pool_place *place, struct ts_error *err)
{
    struct ts_cuda_share share;
    if (!place->share)
        return ts_error_set(err, TS_EUNSUPPORTED, "its worker cannot share it");
    memcpy(share.bytes, place->share, sizeof share.bytes);
    pthread_mutex_lock(&pool->device->lock);
    enum ts_status status = ts_cuda_import(pool->device->cuda, &share, &pool->imported, err);
    pthread_mutex_unlock(&pool->device->lock);
    pool->at = pool->imported + place->device_offset;
    return status;
}

enum ts_status pool_device_map(struct ts_pool_devices *devices, struct ts_pool *pool,
                               const struct ts_pool_place *place, struct ts_error *err)
{
    if (pool->head_dim % 16 != 0) /* no engine of a device has it, nor its codecs */
        return ts_error_set(err, TS_EUNSUPPORTED, "a KV pool on a device with a head_dim of %u",
                            pool->head_dim);
    pthread_mutex_lock(&devices->lock);
    enum ts_status status = find(devices, place->device, pool, &pool->device, err);
    pthread_mutex_unlock(&devices->lock);
    if (status == TS_OK)
        status = import(pool, place, err);
    if (status == TS_OK)
        status = bring_rope(pool, err);
    if (status != TS_OK)
        ts_error_prefix(err, "cannot map the KV pool on device %s", place->device);
    /* Whatever a device says, what was announced contradicts nothing. */
    return status == TS_EINVAL ? (err->status = TS_EIO) : status;
}

/* Where the daemon listens for the processes that it serves: CUDA's own names. */
static bool mps_there(void)
{
    const char *folder = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char path[4096];
    snprintf(path, sizeof path, "%s/control", folder && *folder ? folder : "/tmp/nvidia-mps");
    return access(path, F_OK) == 0;
}

bool ts_pool_takes_turns(const struct ts_pool *pool)
{
    return pool->imported && !ts_cuda_properties(pool->device->cuda)->emulated && !mps_there();
}

void pool_device_unmap(struct ts_pool *pool)
{
    if (pool->imported || pool->turns) {
        pthread_mutex_lock(&pool->device->lock);
        if (pool->turns)
            ts_cuda_free(pool->device->cuda, &pool->turns);
        if (pool->imported)
            ts_cuda_unimport(pool->device->cuda, &pool->imported);
        pthread_mutex_unlock(&pool->device->lock);
    }
    if (pool->device_own) {
        struct ts_cuda *cuda = pool->device->cuda;
        pool_device_free(&pool->device);
        ts_cuda_close(&cuda);
    }
}

enum ts_status ts_pool_own_device(const struct ts_pool_shape *shape, struct ts_cuda *cuda, uint64_t at,
                                  const uint32_t *generations, uint32_t lanes, struct ts_pool **out,
                                  struct ts_error *err)
{
    struct ts_cuda *mine;
    struct pool_device *device = NULL;
    enum ts_status status = ts_cuda_fork(cuda, false, &mine, err);
    if (status != TS_OK)
        return status;
    status = pool_device_new(mine, lanes, &device, err);
    if (status != TS_OK) {
        ts_cuda_close(&mine);
        return status;
    }
    *out = ts_pool_own(shape, NULL, generations);
    (*out)->device = device;
    (*out)->device_own = true;
    (*out)->at = at;
    reserve(device, *out);
    status = bring_rope(*out, err);
    if (status != TS_OK)
        ts_pool_close(out);
    return status;
}

enum ts_status ts_pool_share(struct ts_pool *pool, struct ts_pool_share *out, struct ts_error *err)
{
    struct ts_cuda_share share;
    *out = (struct ts_pool_share){.offset = 0};
    if (!pool->device)
        return TS_OK;
    pthread_mutex_lock(&pool->device->lock);
    memcpy(out->device, ts_cuda_properties(pool->device->cuda)->uuid, sizeof out->device);
    enum ts_status status = ts_cuda_export(pool->device->cuda, pool->at, &share, err);
    pthread_mutex_unlock(&pool->device->lock);
    out->shared = status == TS_OK;
    if (out->shared)
        memcpy(out->bytes, share.bytes, sizeof out->bytes);
    return status;
}
