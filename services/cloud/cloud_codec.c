/*
 * The codec: one thread for each node. What it makes of KV has the size of the real codecs' chunks; with
 * checks the slots of the tokens are its payload.
 */
#include <string.h>

#include "common/base/ts_crc32c.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "services/cloud/cloud_device.h"

struct codec_job { /* of either direction */
    struct occurrence o;
    uint64_t id;
    struct kv_pool *pool;
    uint32_t *blocks, *generations; /* the latter to encode */
    uint32_t layer, head_begin, head_count, token_begin, token_count, crc;
    struct payload *payload; /* to restore */
    uint64_t bytes;          /* of the encoded chunk */
    uint64_t before;         /* hash of what is to be encoded, when it was asked for */
};

static void codec_forget(struct occurrence *o)
{
    struct codec_job *job = (struct codec_job *)o;
    kv_pool_unref(job->pool);
    payload_unref(job->payload);
    ts_free(job->blocks);
    ts_free(job->generations);
    ts_free(job);
}

static uint64_t encoded_bytes(const struct ts_model *m, const struct ts_codec *codec, uint32_t heads,
                              uint32_t tokens)
{
    uint64_t raw = (uint64_t)2 * 2 * heads * m->head_dim * tokens;
    return (uint64_t)((double)raw * ts_codec_bits(codec, m->head_dim) / 16);
}

static void push_codec(struct cloud_node *node, struct codec_job *job)
{
    struct cloud *cloud = node->cloud;
    struct cloud_device *d = node->device;
    double raw = 4.0 * job->head_count * cloud->kv.head_dim * job->token_count;
    ts_time start = d->codec_free_at > cloud->now ? d->codec_free_at : cloud->now;
    d->codec_free_at = start + TS_US + (ts_time)(raw / cloud->settings.codec_bytes_per_s * 1e9);
    cloud_push(cloud, d->codec_free_at, &job->o);
}

static uint64_t content_of(const struct payload *payload, uint32_t layer)
{
    return ts_hash64(payload->data, payload->size, layer);
}

static uint64_t *digests_of(struct ts_arena *arena, const struct codec_job *job,
                            const struct payload *payload)
{
    uint64_t *digests = ts_arena_zalloc(arena, ((size_t)job->head_count + 1) * sizeof *digests);
    if (!job->pool->cells)
        return digests;
    uint64_t content = content_of(payload, job->layer);
    for (uint32_t h = 0; h < job->head_count; h++)
        digests[h] =
            content ^ ts_modelled_digest(job->layer, job->head_begin + h, job->token_begin, job->token_count);
    return digests;
}

static size_t payload_size(const struct codec_job *job)
{
    return job->pool->cells ? job->token_count * sizeof(struct cell) : 0;
}

static struct payload *read_cells(const struct codec_job *job)
{
    struct payload *payload = payload_new(payload_size(job), job->bytes);
    payload->place = cloud_node_place(job->pool->owner, job->layer);
    for (uint32_t i = 0; i < job->token_count && job->pool->cells; i++) {
        const struct cell *cell = cell_at(job->pool, job->layer, job->blocks, job->token_begin + i);
        memcpy(payload->data + i * sizeof *cell, cell, sizeof *cell);
    }
    return payload;
}

static bool still_theirs(const struct codec_job *job)
{
    uint32_t end = ts_kv_blocks_for(job->token_begin + job->token_count);
    for (uint32_t i = job->token_begin / TS_KV_BLOCK_TOKENS; i < end; i++) {
        if (job->pool->generations[job->blocks[i]] != job->generations[i])
            return false;
    }
    return true;
}

static void encode_happens(struct cloud *cloud, struct occurrence *o)
{
    struct codec_job *job = (struct codec_job *)o;
    struct cloud_device *d = o->node->device;
    struct payload *payload = read_cells(job);
    struct ts_event event = {.kind = TS_EVENT_ENCODED, .encoded = {.job = job->id}};
    ts_arena_reset(&d->arena);
    bool theirs = still_theirs(job);
    if (theirs ? content_of(payload, job->layer) != job->before : cloud->settings.blocks_stay)
        cloud_fail(cloud, "%s encodes KV that changes meanwhile: layer %u, tokens from %u", o->node->id,
                   job->layer, job->token_begin);
    if (!theirs || cloud_job_fails(o->node, cloud->settings.codec_fault)) {
        event.encoded.reason = theirs ? TS_REASON_INTERNAL : TS_REASON_KV_CORRUPT;
        payload_unref(payload);
    } else {
        event.encoded.digests = (struct ts_u64s){digests_of(&d->arena, job, payload), job->head_count};
        event.encoded.crc32c = ts_crc32c(0, payload->data, payload->size);
        event.encoded.bulk = bulk_put(&o->node->bulks, payload);
    }
    cloud->counts.encodes++;
    cloud_step(o->node, &event);
    codec_forget(o);
}

static uint32_t *copy_blocks(struct ts_u32s blocks)
{
    uint32_t *copy = ts_xcalloc((size_t)blocks.count + 1, sizeof *copy);
    if (blocks.count)
        memcpy(copy, blocks.data, blocks.count * sizeof *copy);
    return copy;
}

static bool range_ok(const struct kv_pool *pool, struct ts_u32s blocks, uint32_t layer, uint32_t token_begin,
                     uint32_t token_count)
{
    if (!pool || layer >= pool->layers ||
        (uint64_t)token_begin + token_count > (uint64_t)blocks.count * TS_KV_BLOCK_TOKENS)
        return false;
    for (uint32_t i = 0; i < blocks.count; i++) {
        if (blocks.data[i] >= pool->blocks)
            return false;
    }
    return true;
}

void device_encode(struct cloud_node *node, const struct ts_action_encode *a)
{
    struct kv_pool *pool =
        node->kind == CLOUD_WORKER ? node->device->pool : ts_map_get_u64(node->device->mapped, a->pool);
    if (!range_ok(pool, a->blocks, a->layer, a->token_begin, a->token_count) ||
        a->generations.count != a->blocks.count) {
        cloud_fail(node->cloud, "%s encodes what lies outside of a mapped pool", node->id);
        return;
    }
    struct codec_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct codec_job){.o = {.node = node, .happen = encode_happens, .forget = codec_forget},
                              .id = a->job,
                              .pool = pool,
                              .blocks = copy_blocks(a->blocks),
                              .generations = copy_blocks(a->generations),
                              .layer = a->layer,
                              .head_begin = a->head_begin,
                              .head_count = a->head_count,
                              .token_begin = a->token_begin,
                              .token_count = a->token_count,
                              .bytes =
                                  encoded_bytes(&node->cloud->kv, &a->codec, a->head_count, a->token_count)};
    pool->refs++;
    struct payload *payload = read_cells(job);
    job->before = content_of(payload, job->layer);
    payload_unref(payload);
    push_codec(node, job);
}

static void scatter_happens(struct cloud *cloud, struct occurrence *o)
{
    struct codec_job *job = (struct codec_job *)o;
    struct cloud_device *d = o->node->device;
    struct ts_event event = {.kind = TS_EVENT_SCATTERED, .scattered = {.job = job->id}};
    ts_arena_reset(&d->arena);
    if (ts_crc32c(0, job->payload->data, job->payload->size) != job->crc ||
        job->payload->size != payload_size(job)) {
        event.scattered.reason = TS_REASON_KV_CORRUPT;
    } else {
        for (uint32_t i = 0; i < job->token_count && job->pool->cells; i++) {
            struct cell *cell = cell_at(job->pool, job->layer, job->blocks, job->token_begin + i);
            memcpy(cell, job->payload->data + i * sizeof *cell, sizeof *cell);
        }
        event.scattered.digests = (struct ts_u64s){digests_of(&d->arena, job, job->payload), job->head_count};
    }
    cloud->counts.scatters++;
    cloud_step(o->node, &event);
    codec_forget(o);
}

void device_scatter(struct cloud_node *node, const struct ts_action_scatter *a)
{
    struct cloud_device *d = node->device;
    struct payload *payload = bulk_payload(&node->bulks, a->bulk);
    if (!payload || !range_ok(d->pool, a->blocks, a->layer, a->token_begin, a->token_count)) {
        cloud_fail(node->cloud, "%s scatters %s", node->id,
                   payload ? "outside of its pool" : "a chunk it does not hold");
        return;
    }
    struct codec_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct codec_job){.o = {.node = node, .happen = scatter_happens, .forget = codec_forget},
                              .id = a->job,
                              .pool = d->pool,
                              .blocks = copy_blocks(a->blocks),
                              .layer = a->layer,
                              .head_begin = a->head_begin,
                              .head_count = a->head_count,
                              .token_begin = a->token_begin,
                              .token_count = a->token_count,
                              .crc = a->crc32c,
                              .payload = payload_ref(payload)};
    d->pool->refs++;
    push_codec(node, job);
}
