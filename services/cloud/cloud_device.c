/*
 * Modelled devices: what workers and relays have done for them. No weight and no KV value exists, but every
 * token slot of a KV pool remembers the hash of the sequence up to its token and of the one before. So a
 * block that was given to another sequence too early, a chunk restored to the wrong place or a batch that
 * reads what was never written is seen by the next row that reads it, and a token is a pure function of the
 * tokens before it, wherever they were computed. Without checks there are no slots, and a token is a hash of
 * its sequence's seed and its index.
 */
#include "services/cloud/cloud_device.h"

#include "common/base/ts_mem.h"
#include "services/cloud/cloud_replica.h"

#define STOP_EVERY 97 /* one token in so many is an end-of-sequence one */

uint64_t device_chain(uint64_t before, uint32_t token)
{
    return digest_mix(before, (uint64_t)token + 1);
}

enum ts_finish device_finish(const struct ts_sampling *sampling, uint32_t token, uint32_t count)
{
    if (!sampling->ignore_eos && token % STOP_EVERY == 0)
        return TS_FINISH_STOP;
    return count >= sampling->max_tokens ? TS_FINISH_LENGTH : TS_FINISH_NONE;
}

static struct kv_pool *pool_new(struct cloud_node *owner)
{
    struct kv_pool *pool = ts_xcalloc(1, sizeof *pool);
    uint32_t layers = owner->cloud->kv.layers, blocks = owner->settings.worker.pool.kv_blocks;
    *pool = (struct kv_pool){.owner = owner, .refs = 1, .layers = layers, .blocks = blocks};
    pool->generations = ts_xcalloc((size_t)blocks + 1, sizeof(uint32_t));
    if (owner->cloud->settings.checks) {
        pool->uses = ts_xcalloc((size_t)blocks + 1, sizeof *pool->uses);
        pool->cells = ts_xcalloc((size_t)layers * blocks * TS_KV_BLOCK_TOKENS + 1, sizeof(struct cell));
    }
    return pool;
}

void kv_pool_unref(struct kv_pool *pool)
{
    if (!pool || --pool->refs > 0)
        return;
    ts_free(pool->generations);
    ts_free(pool->uses);
    ts_free(pool->cells);
    ts_free(pool);
}

struct cloud_device *device_new(struct cloud_node *node)
{
    struct cloud_device *d = ts_xcalloc(1, sizeof *d);
    d->node = node;
    d->streams = ts_map_new();
    d->mapped = ts_map_new();
    ts_arena_init(&d->arena);
    if (node->kind == CLOUD_WORKER)
        d->pool = pool_new(node);
    if (node->replica)
        cloud_replica_clear(node->replica);
    return d;
}

void device_destroy(struct cloud_device **device)
{
    struct cloud_device *d = *device;
    void *value;
    if (!d)
        return;
    for (size_t cursor = 0; (value = ts_map_next(d->streams, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(d->mapped, &cursor, NULL, NULL));)
        kv_pool_unref(value);
    ts_map_destroy(&d->streams);
    ts_map_destroy(&d->mapped);
    kv_pool_unref(d->pool);
    ts_arena_fini(&d->arena);
    ts_free(d);
    *device = NULL;
}

/* --- tokenising -------------------------------------------------------------------------------------- */

struct tokenise_job {
    struct occurrence o;
    uint64_t id;
    struct payload *prompt;
};

static void tokenise_forget(struct occurrence *o)
{
    payload_unref(((struct tokenise_job *)o)->prompt);
    ts_free(o);
}

static void tokenise_happens(struct cloud *cloud, struct occurrence *o)
{
    struct tokenise_job *job = (struct tokenise_job *)o;
    struct ts_event event = {.kind = TS_EVENT_TOKENISED, .tokenised = {.job = job->id}};
    (void)cloud;
    event.tokenised.ids = (struct ts_u32s){(const uint32_t *)(const void *)job->prompt->data,
                                           (uint32_t)(job->prompt->size / sizeof(uint32_t))};
    cloud_step(o->node, &event);
    tokenise_forget(o);
}

static void tokenise(struct cloud_node *node, const struct ts_action_tokenise *a)
{
    struct cloud *cloud = node->cloud;
    struct payload *prompt = bulk_payload(&node->bulks, a->bulk);
    if (!prompt) {
        cloud_fail(cloud, "%s tokenises a prompt it does not hold", node->id);
        return;
    }
    struct tokenise_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct tokenise_job){.o = {.node = node, .happen = tokenise_happens, .forget = tokenise_forget},
                                 .id = a->job,
                                 .prompt = payload_ref(prompt)};
    ts_time ns = cloud->settings.tokenise_ns * (ts_time)(prompt->size / sizeof(uint32_t));
    cloud_push(cloud, cloud->now + TS_US + ns, &job->o);
}

/* --- text ---------------------------------------------------------------------------------------------- */

static void open_stream(struct cloud_device *d, const struct ts_action_text_open *a)
{
    struct stream *stream = ts_map_get_u64(d->streams, a->tag);
    if (!stream) {
        stream = ts_xcalloc(1, sizeof *stream);
        ts_map_put_u64(d->streams, a->tag, stream);
    }
    *stream = (struct stream){.sampling = a->sampling};
    while (stream->count < a->produced.count && stream->complete == TS_FINISH_NONE) {
        uint32_t token = a->produced.data[stream->count++];
        stream->complete = device_finish(&stream->sampling, token, stream->count);
    }
}

/* --- mapping ----------------------------------------------------------------------------------------- */

struct map_job {
    struct occurrence o;
    uint64_t pool;
    bool found;
};

static void map_forget(struct occurrence *o)
{
    ts_free(o);
}

static void map_happens(struct cloud *cloud, struct occurrence *o)
{
    struct map_job *job = (struct map_job *)o;
    struct ts_event event = {
        .kind = TS_EVENT_POOL_MAPPED,
        .pool_mapped = {.pool = job->pool,
                        .reason = job->found ? TS_REASON_NONE : TS_REASON_UNSUPPORTED,
                        .text = ts_str_of(job->found ? "" : "the pool's owner is gone")}};
    (void)cloud;
    cloud_step(o->node, &event);
    ts_free(job);
}

static void map_pool(struct cloud_node *node, const struct ts_action_map_pool *a)
{
    struct cloud *cloud = node->cloud;
    struct kv_pool *pool = NULL;
    for (size_t i = 0; i < cloud->node_count; i++) {
        const struct cloud_node *worker = cloud->nodes[i];
        if (worker->kind == CLOUD_WORKER && worker->alive &&
            ts_str_equal(ts_str_of(worker->pool_path), a->layout.path))
            pool = worker->device->pool;
    }
    if (ts_map_get_u64(node->device->mapped, a->pool))
        cloud_fail(cloud, "%s maps two pools under one number", node->id);
    else if (pool) {
        pool->refs++;
        ts_map_put_u64(node->device->mapped, a->pool, pool);
    }
    struct map_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct map_job){.o = {.node = node, .happen = map_happens, .forget = map_forget},
                            .pool = a->pool,
                            .found = pool != NULL};
    cloud_push(cloud, cloud->now + 50 * TS_US, &job->o);
}

static void free_blocks(struct cloud_device *d, struct ts_u32s blocks)
{
    for (uint32_t i = 0; i < blocks.count; i++)
        d->pool->generations[blocks.data[i]]++;
}

bool device_perform(struct cloud_node *node, const struct ts_action *action)
{
    bool worker = node->kind == CLOUD_WORKER, relay = node->kind == CLOUD_RELAY;
    if (worker && action->kind == TS_ACTION_TOKENISE)
        tokenise(node, &action->tokenise);
    else if (worker && action->kind == TS_ACTION_TEXT_OPEN) {
        if (node->cloud->settings.checks)
            open_stream(node->device, &action->text_open);
    } else if (worker && action->kind == TS_ACTION_TEXT_CLOSE)
        ts_free(ts_map_remove_u64(node->device->streams, action->text_close.tag));
    else if (worker && action->kind == TS_ACTION_BATCH)
        device_batch(node, &action->batch);
    else if (worker && action->kind == TS_ACTION_SCATTER)
        device_scatter(node, &action->scatter);
    else if (worker && action->kind == TS_ACTION_FREE_BLOCKS)
        free_blocks(node->device, action->free_blocks.blocks);
    else if (relay && action->kind == TS_ACTION_MAP_POOL)
        map_pool(node, &action->map_pool);
    else if (relay && action->kind == TS_ACTION_UNMAP_POOL)
        kv_pool_unref(ts_map_remove_u64(node->device->mapped, action->unmap_pool.pool));
    else if (action->kind == TS_ACTION_ENCODE)
        device_encode(node, &action->encode);
    else
        return false;
    return true;
}
