/*
 * Modelled devices: what workers and relays have done for them. No weight and no KV value exists, but every
 * token slot of a KV pool remembers the hash of the sequence up to its token and of the one before. So a
 * block that was given to another sequence too early, a chunk restored to the wrong place or a batch that
 * reads what was never written is seen by the next row that reads it, and a token is a pure function of the
 * tokens before it, wherever they were computed.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_crc32c.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "services/cloud/cloud_impl.h"

#define STOP_EVERY 97 /* one token in so many is an end-of-sequence one */

struct cell { /* one token of one layer */
    uint64_t before, chain;
};

struct kv_pool {
    uint32_t refs, layers, blocks;
    uint32_t *generations; /* [blocks] */
    struct cell cells[];   /* [layer][block][token] */
};

struct stream { /* the text of one sequence: counts */
    struct ts_sampling sampling;
    uint32_t count;
    enum ts_finish complete; /* how the produced tokens end it, if they do */
};

struct cloud_device {
    struct cloud_node *node;
    struct kv_pool *pool;   /* of a worker */
    struct ts_map *streams; /* tag -> stream */
    struct ts_map *mapped;  /* relay: pool id -> kv_pool */
    struct batch_job *batch;
    ts_time codec_free_at; /* one thread, jobs one after the other */
    struct ts_arena arena; /* of one event */
};

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

static void pool_unref(struct kv_pool *pool)
{
    if (!pool || --pool->refs > 0)
        return;
    ts_free(pool->generations);
    ts_free(pool);
}

static struct cell *cell_at(struct kv_pool *pool, uint32_t layer, const uint32_t *blocks, uint32_t token)
{
    uint32_t block = blocks[token / TS_KV_BLOCK_TOKENS];
    return &pool->cells[((size_t)layer * pool->blocks + block) * TS_KV_BLOCK_TOKENS +
                        token % TS_KV_BLOCK_TOKENS];
}

struct cloud_device *device_new(struct cloud_node *node)
{
    struct cloud_device *d = ts_xcalloc(1, sizeof *d);
    d->node = node;
    d->streams = ts_map_new();
    d->mapped = ts_map_new();
    ts_arena_init(&d->arena);
    if (node->kind == CLOUD_WORKER) {
        uint32_t layers = node->cloud->device.model.layers, blocks = node->settings.worker.pool.kv_blocks;
        d->pool = ts_xcalloc(1, sizeof *d->pool +
                                    (size_t)layers * blocks * TS_KV_BLOCK_TOKENS * sizeof(struct cell));
        d->pool->refs = 1;
        d->pool->layers = layers;
        d->pool->blocks = blocks;
        d->pool->generations = ts_xcalloc((size_t)blocks + 1, sizeof(uint32_t));
    }
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
        pool_unref(value);
    ts_map_destroy(&d->streams);
    ts_map_destroy(&d->mapped);
    pool_unref(d->pool);
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

/* --- batches ----------------------------------------------------------------------------------------- */

struct batch_job { /* comes back once for each layer, if asked, and once at the end */
    struct occurrence o;
    struct ts_action_batch batch; /* borrows the core's rows, as an engine does */
    ts_time began, lasts;
    uint32_t layer;
};

static void batch_forget(struct occurrence *o)
{
    ts_free(o);
}

/* Computes a row in one layer: reads all before it, writes what is new. Returns the hash of the sequence. */
static uint64_t compute_row(struct cloud_device *d, const struct ts_batch_row *row, uint32_t layer)
{
    uint64_t chain = 0;
    for (uint32_t i = 0; i < row->position; i++) {
        const struct cell *cell = cell_at(d->pool, layer, row->blocks.data, i);
        if (cell->before != chain || cell->chain == 0) {
            cloud_fail(d->node->cloud,
                       "%s reads KV that is not its own: tag %llu, layer %u, position %u of %u", d->node->id,
                       (unsigned long long)row->tag, layer, i, row->position);
            return 0;
        }
        chain = cell->chain;
    }
    for (uint32_t i = 0; i < row->tokens.count; i++) {
        uint64_t next = device_chain(chain, row->tokens.data[i]);
        *cell_at(d->pool, layer, row->blocks.data, row->position + i) = (struct cell){chain, next};
        chain = next;
    }
    return chain;
}

static void compute_layer(struct cloud_device *d, const struct ts_action_batch *batch, uint32_t layer)
{
    for (uint32_t i = 0; i < batch->rows.count; i++)
        compute_row(d, &batch->rows.data[i], layer);
}

/* What penalties are computed from must be the sequence itself. */
static void check_history(struct cloud_device *d, const struct ts_batch_row *row, uint64_t expected)
{
    uint64_t chain = 0;
    if (row->prompt_ids.count == 0)
        return;
    for (uint32_t i = 0; i < row->prompt_ids.count; i++)
        chain = device_chain(chain, row->prompt_ids.data[i]);
    for (uint32_t i = 0; i < row->output_ids.count; i++)
        chain = device_chain(chain, row->output_ids.data[i]);
    if (chain != expected)
        cloud_fail(d->node->cloud, "%s: the history of tag %llu is not its own", d->node->id,
                   (unsigned long long)row->tag);
}

static struct ts_tops tops_of(struct cloud_device *d, const struct ts_batch_row *row, uint32_t token)
{
    struct ts_top *tops = ts_arena_alloc(&d->arena, (row->sampling.logprobs + 1) * sizeof *tops);
    for (uint32_t i = 0; i < row->sampling.logprobs; i++)
        tops[i] = (struct ts_top){.token = token + i, .logprob = -(float)i};
    return (struct ts_tops){tops, row->sampling.logprobs};
}

static struct ts_batch_sample sample_of(struct cloud_device *d, const struct ts_batch_row *row)
{
    struct cloud *cloud = d->node->cloud;
    const struct ts_model *model = &cloud->device.model;
    struct ts_batch_sample sample = {.tag = row->tag};
    uint32_t last = row->position + row->tokens.count - 1;
    uint64_t chain = cell_at(d->pool, 0, row->blocks.data, last)->chain;
    for (uint32_t layer = 1; layer < model->layers; layer++) {
        if (cell_at(d->pool, layer, row->blocks.data, last)->chain != chain)
            cloud_fail(cloud, "%s: the layers of tag %llu disagree", d->node->id,
                       (unsigned long long)row->tag);
    }
    sample.item.token = ts_modelled_token(chain, row->sampling.seed, row->sample_index, model->vocab);
    sample.item.top = tops_of(d, row, sample.item.token);
    check_history(d, row, chain);
    struct stream *stream = ts_map_get_u64(d->streams, row->tag);
    if (!stream) /* closed while the batch ran: nobody will look at it */
        return sample;
    sample.complete = stream->complete != TS_FINISH_NONE;
    sample.finish = stream->complete;
    if (sample.complete)
        return sample;
    char *text = ts_arena_printf(&d->arena, "%u:%u ", stream->count, sample.item.token);
    sample.item.text = ts_str_of(text);
    sample.finish = device_finish(&stream->sampling, sample.item.token, ++stream->count);
    return sample;
}

static void batch_ends(struct cloud_node *node, struct batch_job *job)
{
    struct cloud_device *d = node->device;
    const struct ts_batch_rows *rows = &job->batch.rows;
    ts_arena_reset(&d->arena);
    struct ts_batch_sample *samples = ts_arena_alloc(&d->arena, (rows->count + 1) * sizeof *samples);
    uint32_t count = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        if (rows->data[i].sample)
            samples[count++] = sample_of(d, &rows->data[i]);
    }
    struct ts_event event = {
        .kind = TS_EVENT_BATCH_DONE,
        .batch_done = {.batch = job->batch.batch, .samples = {samples, count}, .compute_ns = job->lasts}};
    if (cloud_job_fails(node, node->cloud->settings.engine_fault)) {
        event.batch_done.reason = TS_REASON_ENGINE;
        event.batch_done.text = ts_str_of("io");
        event.batch_done.samples.count = 0;
    }
    d->batch = NULL;
    ts_free(job);
    cloud_step(node, &event);
}

static void batch_happens(struct cloud *cloud, struct occurrence *o)
{
    struct batch_job *job = (struct batch_job *)o;
    struct cloud_node *node = o->node;
    uint32_t layers = cloud->device.model.layers;
    if (job->layer == layers) {
        batch_ends(node, job);
        return;
    }
    struct ts_event event = {.kind = TS_EVENT_LAYER_DONE,
                             .layer_done = {.batch = job->batch.batch, .layer = job->layer}};
    compute_layer(node->device, &job->batch, job->layer++);
    ts_time at = job->began + job->lasts * (job->layer + 1) / (layers + 1);
    bool told = job->batch.report_layers;
    cloud_push(cloud, at, o);
    if (told)
        cloud_step(node, &event);
}

/* What a row must hold to; blocks count how many rows of the batch name them. */
static const char *row_fault(const struct cloud_device *d, const struct ts_batch_row *row, uint8_t *named)
{
    uint64_t end = (uint64_t)row->position + row->tokens.count;
    if (row->tokens.count == 0)
        return "computes nothing";
    if (end > (uint64_t)row->blocks.count * TS_KV_BLOCK_TOKENS)
        return "has too few blocks";
    for (uint32_t i = 0; i < row->blocks.count; i++) {
        if (row->blocks.data[i] >= d->pool->blocks)
            return "names a block outside of the pool";
        if (named[row->blocks.data[i]]++)
            return "shares a block with another one";
    }
    return NULL;
}

static void start_batch(struct cloud_node *node, const struct ts_action_batch *a)
{
    struct cloud *cloud = node->cloud;
    struct cloud_device *d = node->device;
    const struct worker_settings *s = &node->settings.worker;
    double ns = cloud->device.costs.step;
    uint64_t tokens = 0;
    uint8_t *named = ts_xcalloc(d->pool->blocks, 1);
    if (d->batch)
        cloud_fail(cloud, "%s starts a batch while one runs", node->id);
    for (uint32_t i = 0; i < a->rows.count; i++) {
        const struct ts_batch_row *row = &a->rows.data[i];
        const char *fault = row_fault(d, row, named);
        if (fault)
            cloud_fail(cloud, "%s: row %u of a batch %s", node->id, i, fault);
        ns += ts_sim_row_ns(&cloud->device.costs, row->position, row->tokens.count);
        tokens += row->tokens.count;
    }
    ts_free(named);
    if (a->rows.count == 0 || a->rows.count > s->max_rows || tokens > s->max_batch_tokens)
        cloud_fail(cloud, "%s: a batch of %u rows and %llu tokens", node->id, a->rows.count,
                   (unsigned long long)tokens);
    if (cloud->failure.status != TS_OK)
        return;
    struct batch_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct batch_job){.o = {.node = node, .happen = batch_happens, .forget = batch_forget},
                              .batch = *a,
                              .began = cloud->now,
                              .lasts = (ts_time)ns};
    d->batch = job;
    cloud->counts.batches++;
    cloud_push(cloud, cloud->now + job->lasts / (cloud->device.model.layers + 1), &job->o);
}

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

/* --- the codec: one thread per node ------------------------------------------------------------------ */

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
    pool_unref(job->pool);
    payload_unref(job->payload);
    ts_free(job->blocks);
    ts_free(job->generations);
    ts_free(job);
}

/* 16-bit values; or 4 bits and, for each group of 64, a 16-bit scale and minimum. */
static uint64_t encoded_bytes(const struct ts_model *m, struct ts_str codec, uint32_t heads, uint32_t tokens)
{
    uint64_t raw = (uint64_t)2 * 2 * heads * m->head_dim * tokens;
    return ts_str_equal(codec, ts_str_of("none")) ? raw : raw * 9 / 32;
}

static void push_codec(struct cloud_node *node, struct codec_job *job)
{
    struct cloud *cloud = node->cloud;
    struct cloud_device *d = node->device;
    double raw = 4.0 * job->head_count * cloud->device.model.head_dim * job->token_count;
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
    uint64_t *digests = ts_arena_alloc(arena, ((size_t)job->head_count + 1) * sizeof *digests);
    uint64_t content = content_of(payload, job->layer);
    for (uint32_t h = 0; h < job->head_count; h++)
        digests[h] =
            content ^ ts_modelled_digest(job->layer, job->head_begin + h, job->token_begin, job->token_count);
    return digests;
}

static struct payload *read_cells(const struct codec_job *job)
{
    struct payload *payload = payload_new(job->token_count * sizeof(struct cell), job->bytes);
    for (uint32_t i = 0; i < job->token_count; i++) {
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

static void encode(struct cloud_node *node, const struct ts_action_encode *a)
{
    struct kv_pool *pool = ts_map_get_u64(node->device->mapped, a->pool);
    if (!range_ok(pool, a->blocks, a->layer, a->token_begin, a->token_count) ||
        a->generations.count != a->blocks.count) {
        cloud_fail(node->cloud, "%s encodes what lies outside of a mapped pool", node->id);
        return;
    }
    struct codec_job *job = ts_xcalloc(1, sizeof *job);
    *job = (struct codec_job){
        .o = {.node = node, .happen = encode_happens, .forget = codec_forget},
        .id = a->job,
        .pool = pool,
        .blocks = copy_blocks(a->blocks),
        .generations = copy_blocks(a->generations),
        .layer = a->layer,
        .head_begin = a->head_begin,
        .head_count = a->head_count,
        .token_begin = a->token_begin,
        .token_count = a->token_count,
        .bytes = encoded_bytes(&node->cloud->device.model, a->codec, a->head_count, a->token_count)};
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
        job->payload->size != job->token_count * sizeof(struct cell)) {
        event.scattered.reason = TS_REASON_KV_CORRUPT;
    } else {
        for (uint32_t i = 0; i < job->token_count; i++) {
            struct cell *cell = cell_at(job->pool, job->layer, job->blocks, job->token_begin + i);
            memcpy(cell, job->payload->data + i * sizeof *cell, sizeof *cell);
        }
        event.scattered.digests = (struct ts_u64s){digests_of(&d->arena, job, job->payload), job->head_count};
    }
    cloud->counts.scatters++;
    cloud_step(o->node, &event);
    codec_forget(o);
}

static void scatter(struct cloud_node *node, const struct ts_action_scatter *a)
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
    else if (worker && action->kind == TS_ACTION_TEXT_OPEN)
        open_stream(node->device, &action->text_open);
    else if (worker && action->kind == TS_ACTION_TEXT_CLOSE)
        ts_free(ts_map_remove_u64(node->device->streams, action->text_close.tag));
    else if (worker && action->kind == TS_ACTION_BATCH)
        start_batch(node, &action->batch);
    else if (worker && action->kind == TS_ACTION_SCATTER)
        scatter(node, &action->scatter);
    else if (worker && action->kind == TS_ACTION_FREE_BLOCKS)
        free_blocks(node->device, action->free_blocks.blocks);
    else if (relay && action->kind == TS_ACTION_MAP_POOL)
        map_pool(node, &action->map_pool);
    else if (relay && action->kind == TS_ACTION_UNMAP_POOL)
        pool_unref(ts_map_remove_u64(node->device->mapped, action->unmap_pool.pool));
    else if (relay && action->kind == TS_ACTION_ENCODE)
        encode(node, &action->encode);
    else
        return false;
    return true;
}
