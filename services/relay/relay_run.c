#include "services/relay/relay_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "common/run/ts_jobs.h"
#include "gpu/codec/ts_codec.h"

struct pool {
    uint8_t *base; /* NULL when modelled */
    size_t bytes;
    const uint32_t *generations; /* behind the KV; the worker counts there */
    uint32_t layer_begin, layers, head_begin, heads, blocks, head_dim;
    enum ts_dtype dtype;
    struct ts_codec_rope *rope; /* NULL: keys are not turned, or it is modelled */
    uint32_t running;           /* jobs that read it */
    bool unmapped;              /* go once the last job has ended */
};

struct encode_job {
    struct ts_job job;
    uint64_t id;
    struct pool *pool;
    struct ts_codec codec;
    struct ts_codec_chunk chunk;
    uint32_t first_head; /* as the model counts */
    uint32_t layer;
    uint32_t *blocks, *generations; /* [block_count] */
    uint32_t block_count;
    struct ts_frame *frame;
    uint64_t declared_bytes;
    uint32_t crc, escapes;
    uint64_t *digests;
    enum ts_reason reason;
};

struct map_job {
    struct ts_job job;
    uint64_t id;
    struct pool *pool;
    char path[TS_ENDPOINT_BYTES];
    struct ts_error err;
};

struct relay_run {
    struct ts_jobs *jobs;
    struct ts_map *pools; /* id -> struct pool */
};

struct relay_run *relay_run_new(int threads)
{
    struct relay_run *run = ts_xcalloc(1, sizeof *run);
    run->jobs = ts_jobs_new(threads);
    run->pools = ts_map_new();
    return run;
}

static void free_pool(struct pool *pool)
{
    if (pool->base)
        munmap(pool->base, pool->bytes);
    ts_codec_rope_destroy(&pool->rope);
    ts_free(pool);
}

static void free_encode(struct encode_job *job)
{
    ts_frame_unref(&job->frame);
    ts_free(job->blocks);
    ts_free(job->generations);
    ts_free(job->digests);
    ts_free(job);
}

static uint64_t kv_bytes(uint64_t layers, uint64_t blocks, uint64_t heads, uint64_t head_dim)
{
    return layers * blocks * 2 * heads * TS_KV_BLOCK_TOKENS * head_dim * 2;
}

static void set_base(struct pool *pool, void *base)
{
    pool->base = base;
    pool->generations = (const uint32_t *)(const void *)(pool->base + kv_bytes(pool->layers, pool->blocks,
                                                                               pool->heads, pool->head_dim));
}

static void run_map(struct ts_job *base)
{
    struct map_job *job = (struct map_job *)base;
    struct stat st;
    if (job->err.status != TS_OK || job->path[0] == '\0') /* refused already, or modelled: nothing to map */
        return;
    int fd = open(job->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        ts_error_set(&job->err, TS_EIO,
                     "cannot open the KV pool %s: %s; run relay and worker as the same user on one host",
                     job->path, strerror(errno));
    } else if ((uint64_t)st.st_size < job->pool->bytes) {
        ts_error_set(&job->err, TS_EINVAL, "the KV pool %s has %lld bytes, its worker announced %zu",
                     job->path, (long long)st.st_size, job->pool->bytes);
    } else {
        void *base_address = mmap(NULL, job->pool->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (base_address == MAP_FAILED)
            ts_error_set(&job->err, TS_EIO, "cannot map the KV pool %s: %s", job->path, strerror(errno));
        else
            set_base(job->pool, base_address);
    }
    if (fd >= 0)
        close(fd);
}

static bool layout_sane(const struct ts_msg_pool *p)
{
    if (p->layer_end <= p->layer_begin || p->head_end <= p->head_begin || p->head_dim == 0 ||
        p->head_dim > 1024 || p->kv_blocks == 0)
        return false;
    if (p->kv_dtype != TS_DTYPE_F16 && p->kv_dtype != TS_DTYPE_BF16)
        return false;
    uint64_t need =
        kv_bytes(p->layer_end - p->layer_begin, p->kv_blocks, p->head_end - p->head_begin, p->head_dim) +
        (uint64_t)p->kv_blocks * sizeof(uint32_t);
    if (p->rope.count != 0 && p->rope.count != p->head_dim / 2)
        return false;
    return p->path.count == 0 || p->bytes >= need;
}

static struct ts_codec_rope *rope_of(const struct ts_msg_pool *p)
{
    float frequencies[TS_CODEC_DIM_MAX / 2];
    memcpy(frequencies, p->rope.data, p->rope.count * sizeof *frequencies);
    return ts_codec_rope_new(frequencies, p->head_dim);
}

static void perform_map(struct relay_run *run, const struct ts_action_map_pool *action)
{
    const struct ts_msg_pool *p = &action->layout;
    struct map_job *job = ts_xcalloc(1, sizeof *job);
    job->id = action->pool;
    job->pool = ts_xcalloc(1, sizeof *job->pool);
    *job->pool = (struct pool){.bytes = p->bytes,
                               .layer_begin = p->layer_begin,
                               .layers = p->layer_end - p->layer_begin,
                               .head_begin = p->head_begin,
                               .heads = p->head_end - p->head_begin,
                               .blocks = p->kv_blocks,
                               .head_dim = p->head_dim,
                               .dtype = (enum ts_dtype)p->kv_dtype};
    job->job.run = run_map;
    snprintf(job->path, sizeof job->path, "%.*s", (int)p->path.count, p->path.data);
    ts_map_put_u64(run->pools, job->id, job->pool);
    job->pool->running = 1;
    if (layout_sane(p) && p->rope.count > 0)
        job->pool->rope = rope_of(p);
    if (!layout_sane(p))
        ts_error_set(&job->err, TS_EINVAL, "the KV pool's announced layout is inconsistent");
    ts_jobs_submit(run->jobs, &job->job);
}

/* Whether all that was read was what the worker had announced: it counts before it writes anew. */
static bool still_theirs(const struct encode_job *job)
{
    const struct ts_codec_chunk *c = &job->chunk;
    uint32_t end = ts_kv_blocks_for(c->token_begin + c->token_count);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    for (uint32_t i = c->token_begin / TS_KV_BLOCK_TOKENS; i < end; i++) {
        if (__atomic_load_n(&job->pool->generations[job->blocks[i]], __ATOMIC_RELAXED) != job->generations[i])
            return false;
    }
    return true;
}

static void run_encode(struct ts_job *base)
{
    struct encode_job *job = (struct encode_job *)base;
    const struct pool *pool = job->pool;
    const struct ts_codec_chunk *c = &job->chunk;
    const struct ts_codec_cache cache = {pool->head_dim, pool->dtype};
    if (job->reason != TS_REASON_NONE)
        return;
    for (uint32_t h = 0; h < c->head_count; h++)
        job->digests[h] =
            pool->base ? 0
                       : ts_modelled_digest(job->layer, job->first_head + h, c->token_begin, c->token_count);
    if (!pool->base) {
        job->declared_bytes = ts_codec_bytes(&job->codec, cache, c, 0);
        return;
    }
    struct ts_codec_view view = {.pool = pool->base,
                                 .pool_blocks = pool->blocks,
                                 .pool_heads = pool->heads,
                                 .head_dim = pool->head_dim,
                                 .dtype = pool->dtype,
                                 .blocks = job->blocks,
                                 .block_count = job->block_count,
                                 .rope = pool->rope};
    job->frame = ts_frame_new(ts_codec_bytes_max(&job->codec, cache, c));
    struct ts_codec_sums sums = {.digest = job->digests};
    job->frame->bytes = ts_codec_give(&job->codec, &view, c, job->frame->data, &job->escapes, &sums);
    job->crc = sums.crc;
    if (!still_theirs(job))
        job->reason = TS_REASON_KV_CORRUPT;
}

static bool encode_sane(const struct encode_job *job, const struct ts_action_encode *a)
{
    const struct pool *pool = job->pool;
    const struct ts_codec_chunk shape = {
        .head_count = a->head_count, .token_begin = a->token_begin, .token_count = a->token_count};
    if (a->layer < pool->layer_begin || a->layer - pool->layer_begin >= pool->layers ||
        a->head_begin < pool->head_begin ||
        (uint64_t)(a->head_begin - pool->head_begin) + a->head_count > pool->heads)
        return false;
    if (ts_codec_check(&job->codec, pool->head_dim, NULL) != TS_OK ||
        !ts_codec_shape_ok(&job->codec, pool->head_dim, &shape))
        return false;
    if ((uint64_t)a->token_begin + a->token_count > (uint64_t)a->blocks.count * TS_KV_BLOCK_TOKENS)
        return false;
    for (uint32_t i = 0; i < a->blocks.count; i++) {
        if (a->blocks.data[i] >= pool->blocks)
            return false;
    }
    return true;
}

static void perform_encode(struct relay_run *run, const struct ts_action_encode *a)
{
    struct encode_job *job = ts_xcalloc(1, sizeof *job);
    job->job.run = run_encode;
    job->id = a->job;
    job->codec = a->codec;
    job->pool = ts_map_get_u64(run->pools, a->pool);
    TS_ASSERT(job->pool);
    job->layer = a->layer;
    job->first_head = a->head_begin;
    job->blocks = ts_xcalloc(a->blocks.count ? a->blocks.count : 1, sizeof *job->blocks);
    job->block_count = a->blocks.count;
    job->generations = ts_xcalloc(a->blocks.count ? a->blocks.count : 1, sizeof *job->generations);
    for (uint32_t i = 0; i < a->blocks.count; i++) {
        job->blocks[i] = a->blocks.data[i];
        job->generations[i] = i < a->generations.count ? a->generations.data[i] : UINT32_MAX;
    }
    job->pool->running++;
    if (!encode_sane(job, a)) {
        job->reason = TS_REASON_KV_MISMATCH;
        job->chunk.head_count = 0;
    } else {
        job->chunk = (struct ts_codec_chunk){.layer = a->layer - job->pool->layer_begin,
                                             .head_begin = a->head_begin - job->pool->head_begin,
                                             .head_count = a->head_count,
                                             .token_begin = a->token_begin,
                                             .token_count = a->token_count};
    }
    job->digests = ts_xcalloc((size_t)job->chunk.head_count + 1, sizeof *job->digests);
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

static void finish_map(struct map_job *job, struct ts_service *service)
{
    struct ts_event event = {
        .kind = TS_EVENT_POOL_MAPPED,
        .pool_mapped = {.pool = job->id,
                        .reason = job->err.status == TS_OK ? TS_REASON_NONE : TS_REASON_UNSUPPORTED,
                        .text = ts_str_of(job->err.text)}};
    pool_idle(job->pool);
    ts_service_step(service, &event);
    ts_free(job);
}

static void finish_encode(struct encode_job *job, struct ts_service *service)
{
    struct ts_event event = {.kind = TS_EVENT_ENCODED,
                             .encoded = {.job = job->id,
                                         .reason = job->reason,
                                         .declared_bytes = job->declared_bytes,
                                         .crc32c = job->crc,
                                         .escapes = job->escapes,
                                         .digests = {job->digests, job->chunk.head_count}}};
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
            finish_map((struct map_job *)job, service);
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
    ts_free(r);
    *run = NULL;
}
