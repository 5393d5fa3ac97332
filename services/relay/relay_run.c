#include "services/relay/relay_run.h"

#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/run/ts_jobs.h"
#include "gpu/pool/ts_pool.h"

struct pool {
    struct ts_pool *pool; /* NULL until it is mapped */
    uint32_t running;     /* jobs that use it */
    bool unmapped;        /* go once the last job has ended */
};

struct encode_job {
    struct ts_job job;
    uint64_t id;
    struct pool *pool;
    struct ts_pool_piece piece;
    sem_t *cores;
    struct ts_frame *frame;
    struct ts_pool_given given;
    uint64_t *digests;
    enum ts_reason reason;
    struct ts_error err;
};

struct map_job {
    struct ts_job job;
    uint64_t id;
    struct pool *pool;
    struct ts_pool_shape shape;
    struct ts_pool_place place;
    struct ts_pool_devices *devices;
    char path[TS_ENDPOINT_BYTES], device[64];
    uint8_t share[64];
    float frequencies[TS_CODEC_DIM_MAX / 2];
    struct ts_error err;
};

struct relay_run {
    struct ts_jobs *jobs;
    struct ts_map *pools; /* id -> struct pool */
    struct ts_pool_devices *devices;
    bool warned; /* that there is no MPS */
    sem_t cores; /* so many of the threads encode on the CPU */
};

/* What waits for a device needs no core: as many threads as there may be jobs. */
struct relay_run *relay_run_new(int cores, int jobs)
{
    struct relay_run *run = ts_xcalloc(1, sizeof *run);
    run->jobs = ts_jobs_new(jobs);
    run->pools = ts_map_new();
    run->devices = ts_pool_devices_new((uint32_t)jobs);
    sem_init(&run->cores, 0, (unsigned)cores);
    return run;
}

static void free_pool(struct pool *pool)
{
    ts_pool_close(&pool->pool);
    ts_free(pool);
}

static void free_encode(struct encode_job *job)
{
    ts_frame_unref(&job->frame);
    ts_pool_piece_fini(&job->piece);
    ts_free(job->digests);
    ts_free(job);
}

static void run_map(struct ts_job *base)
{
    struct map_job *job = (struct map_job *)base;
    if (job->err.status == TS_OK)
        ts_pool_map(job->devices, &job->shape, &job->place, &job->pool->pool, &job->err);
}

static void perform_map(struct relay_run *run, const struct ts_action_map_pool *action)
{
    const struct ts_msg_pool *p = &action->layout;
    struct map_job *job = ts_xcalloc(1, sizeof *job);
    job->job.run = run_map;
    job->id = action->pool;
    job->pool = ts_xcalloc(1, sizeof *job->pool);
    job->devices = run->devices;
    snprintf(job->path, sizeof job->path, "%.*s", (int)p->path.count, p->path.data);
    snprintf(job->device, sizeof job->device, "%.*s", (int)p->device.count, p->device.data);
    if (p->share.count == sizeof job->share)
        memcpy(job->share, p->share.data, sizeof job->share);
    job->place = (struct ts_pool_place){.path = job->path,
                                        .bytes = p->bytes,
                                        .device = job->device,
                                        .share = p->share.count == sizeof job->share ? job->share : NULL,
                                        .device_offset = p->device_offset};
    job->shape = (struct ts_pool_shape){.shard = {p->layer_begin, p->layer_end, p->head_begin, p->head_end},
                                        .blocks = p->kv_blocks,
                                        .head_dim = p->head_dim,
                                        .dtype = (enum ts_dtype)p->kv_dtype,
                                        .inverse_frequencies = p->rope.count ? job->frequencies : NULL};
    if (p->rope.count != 0 && (p->rope.count != p->head_dim / 2 || p->head_dim > TS_CODEC_DIM_MAX))
        ts_error_set(&job->err, TS_EINVAL, "the KV pool's keys turn otherwise than its layout says");
    else if (p->rope.count != 0)
        memcpy(job->frequencies, p->rope.data, p->rope.count * sizeof *job->frequencies);
    ts_map_put_u64(run->pools, job->id, job->pool);
    job->pool->running = 1;
    ts_jobs_submit(run->jobs, &job->job);
}

static void run_encode(struct ts_job *base)
{
    struct encode_job *job = (struct encode_job *)base;
    struct ts_pool *pool = job->pool->pool;
    if (job->reason != TS_REASON_NONE)
        return;
    bool busy = !ts_pool_on_device(pool);
    while (busy && sem_wait(job->cores) != 0) /* interrupted */
        ;
    size_t room = ts_pool_give_bytes(pool, &job->piece);
    job->frame = room ? ts_frame_new(room) : NULL;
    enum ts_status status =
        ts_pool_give(pool, &job->piece, room ? job->frame->data : NULL, job->digests, &job->given, &job->err);
    job->reason = ts_pool_reason(status);
    if (job->frame)
        job->frame->bytes = job->given.bytes;
    if (busy)
        sem_post(job->cores);
}

static void perform_encode(struct relay_run *run, const struct ts_action_encode *a)
{
    struct encode_job *job = ts_xcalloc(1, sizeof *job);
    job->job.run = run_encode;
    job->id = a->job;
    job->pool = ts_map_get_u64(run->pools, a->pool);
    TS_ASSERT(job->pool && job->pool->pool);
    job->cores = &run->cores;
    job->piece = ts_pool_piece_to_give(a);
    job->pool->running++;
    if (!ts_pool_fits(job->pool->pool, &job->piece)) {
        job->reason = TS_REASON_KV_MISMATCH;
        job->piece.head_count = 0;
    }
    job->digests = ts_xcalloc((size_t)job->piece.head_count + 1, sizeof *job->digests);
    ts_jobs_submit(run->jobs, &job->job);
}

static void pool_idle(struct pool *pool)
{
    if (--pool->running == 0 && pool->unmapped)
        free_pool(pool);
}

static void perform_unmap(struct relay_run *run, uint64_t id)
{
    struct pool *pool = ts_map_remove_u64(run->pools, id);
    if (!pool)
        return;
    pool->unmapped = true;
    if (pool->running == 0)
        free_pool(pool);
}

static void perform(void *context, struct ts_service *service, const struct ts_action *action)
{
    struct relay_run *run = context;
    (void)service;
    switch (action->kind) {
    case TS_ACTION_MAP_POOL:
        perform_map(run, &action->map_pool);
        break;
    case TS_ACTION_UNMAP_POOL:
        perform_unmap(run, action->unmap_pool.pool);
        break;
    case TS_ACTION_ENCODE:
        perform_encode(run, &action->encode);
        break;
    default:
        TS_ASSERT(!"an action that a relay does not perform");
    }
}

/* Once: the cost of what the operator can change. */
static void warn_of_turns(struct relay_run *run, const struct ts_pool *pool)
{
    if (run->warned || !ts_pool_takes_turns(pool))
        return;
    run->warned = true;
    ts_log(TS_LOG_WARN,
           "event=no_mps text=\"relay and workers take turns on the device: each piece of KV waits for "
           "a time slice, milliseconds instead of microseconds; start nvidia-cuda-mps-control, or "
           "let the workers encode (encode = worker)\"");
}

static void finish_map(struct relay_run *run, struct map_job *job, struct ts_service *service)
{
    struct ts_event event = {.kind = TS_EVENT_POOL_MAPPED,
                             .pool_mapped = {.pool = job->id,
                                             .reason = job->err.status == TS_OK       ? TS_REASON_NONE
                                                       : job->err.status == TS_EINVAL ? TS_REASON_KV_MISMATCH
                                                                                      : TS_REASON_UNSUPPORTED,
                                             .text = ts_str_of(job->err.text)}};
    if (job->pool->pool)
        warn_of_turns(run, job->pool->pool);
    pool_idle(job->pool);
    ts_service_step(service, &event);
    ts_free(job);
}

static void finish_encode(struct encode_job *job, struct ts_service *service)
{
    struct ts_event event = {.kind = TS_EVENT_ENCODED,
                             .encoded = {.job = job->id,
                                         .reason = job->reason,
                                         .text = ts_str_of(job->err.text),
                                         .declared_bytes = job->given.declared_bytes,
                                         .crc32c = job->given.crc,
                                         .escapes = job->given.escapes,
                                         .digests = {job->digests, job->piece.head_count}}};
    pool_idle(job->pool);
    if (job->frame)
        event.encoded.bulk = ts_bulk_put(ts_service_bulks(service), &job->frame);
    ts_service_step(service, &event);
    free_encode(job);
}

static void readable(void *context, struct ts_service *service)
{
    struct relay_run *run = context;
    struct ts_job *job;
    while ((job = ts_jobs_take(run->jobs))) {
        if (job->run == run_encode)
            finish_encode((struct encode_job *)job, service);
        else
            finish_map(run, (struct map_job *)job, service);
    }
}

struct ts_service_hooks relay_run_hooks(struct relay_run *run)
{
    return (struct ts_service_hooks){.context = run,
                                     .perform = perform,
                                     .fds = {ts_jobs_fd(run->jobs)},
                                     .fd_count = 1,
                                     .readable = readable};
}

void relay_run_destroy(struct relay_run **run)
{
    struct relay_run *r = *run;
    if (!r)
        return;
    ts_jobs_settle(r->jobs);
    for (struct ts_job *job; (job = ts_jobs_take(r->jobs));) {
        pool_idle(job->run == run_encode ? ((struct encode_job *)job)->pool : ((struct map_job *)job)->pool);
        if (job->run == run_encode)
            free_encode((struct encode_job *)job);
        else
            ts_free(job);
    }
    ts_jobs_destroy(&r->jobs);
    size_t cursor = 0;
    struct pool *pool;
    while ((pool = ts_map_next(r->pools, &cursor, NULL, NULL)))
        free_pool(pool);
    ts_map_destroy(&r->pools);
    ts_pool_devices_free(&r->devices);
    sem_destroy(&r->cores);
    ts_free(r);
    *run = NULL;
}
