/*
 * The engine of a worker. A batch takes the time of its rows: by the cloud's coefficients, one batch after
 * the other, or by its replica, whose stages work on several at once. Several come to an end in the order of
 * their coming.
 */
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "services/cloud/cloud_device.h"
#include "services/cloud/cloud_replica.h"

struct batch_job { /* comes back once for each layer, if asked or checked, and once at the end */
    struct occurrence o;
    struct ts_action_batch batch; /* borrows the core's rows, as an engine does */
    ts_time began, ends;
    uint32_t layer;
    ts_time layer_done[]; /* [layers of the pool] */
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
    const struct ts_model *model = &cloud->model;
    struct ts_batch_sample sample = {.tag = row->tag};
    uint32_t last = row->position + row->tokens.count - 1;
    uint64_t chain = cell_at(d->pool, 0, row->blocks.data, last)->chain;
    for (uint32_t layer = 1; layer < d->pool->layers; layer++) {
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

/* What a sequence gives where nothing is checked: token i is a hash of (seed, i). */
static uint32_t plain_token(uint64_t seed, uint32_t index, uint32_t vocab)
{
    return (uint32_t)(digest_mix(seed, index) % vocab);
}

static struct ts_batch_sample plain_sample(const struct ts_batch_row *row, uint32_t vocab)
{
    const struct ts_sampling *sampling = &row->sampling;
    uint32_t index = row->sample_index;
    struct ts_batch_sample sample = {.tag = row->tag};
    if (index > 0) { /* a replay of a stream that had come to its end */
        sample.finish = device_finish(sampling, plain_token(sampling->seed, index - 1, vocab), index);
        sample.complete = sample.finish != TS_FINISH_NONE;
    }
    sample.item.token = plain_token(sampling->seed, index, vocab);
    if (!sample.complete)
        sample.finish = device_finish(sampling, sample.item.token, index + 1);
    return sample;
}

static struct ts_batch_samples samples_of(struct cloud_device *d, const struct ts_batch_rows *rows)
{
    const struct cloud *cloud = d->node->cloud;
    struct ts_batch_sample *samples = ts_arena_alloc(&d->arena, (rows->count + 1) * sizeof *samples);
    uint32_t count = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        const struct ts_batch_row *row = &rows->data[i];
        if (row->sample && cloud->settings.checks)
            samples[count++] = sample_of(d, row);
        else if (row->sample)
            samples[count++] = plain_sample(row, cloud->model.vocab);
    }
    return (struct ts_batch_samples){samples, count};
}

/* Their batch is over. */
static void leave_blocks(struct cloud_device *d, const struct ts_batch_rows *rows)
{
    for (uint32_t i = 0; i < rows->count && d->pool->uses; i++) {
        for (uint32_t k = 0; k < rows->data[i].blocks.count; k++)
            d->pool->uses[rows->data[i].blocks.data[k]].rows--;
    }
}

static void batch_ends(struct cloud_node *node, struct batch_job *job)
{
    struct cloud_device *d = node->device;
    ts_arena_reset(&d->arena);
    struct ts_event event = {.kind = TS_EVENT_BATCH_DONE,
                             .batch_done = {.batch = job->batch.batch,
                                            .samples = samples_of(d, &job->batch.rows),
                                            .compute_ns = job->ends - job->began}};
    if (cloud_job_fails(node, node->cloud->settings.engine_fault)) {
        event.batch_done.reason = TS_REASON_ENGINE;
        event.batch_done.text = ts_str_of("io");
        event.batch_done.samples.count = 0;
    }
    node->work.output_tokens += event.batch_done.samples.count;
    leave_blocks(d, &job->batch.rows);
    d->batches--;
    ts_free(job);
    cloud_step(node, &event);
}

static void batch_happens(struct cloud *cloud, struct occurrence *o)
{
    struct batch_job *job = (struct batch_job *)o;
    struct cloud_node *node = o->node;
    if (job->layer == cloud->kv.layers) {
        batch_ends(node, job);
        return;
    }
    struct ts_event event = {.kind = TS_EVENT_LAYER_DONE,
                             .layer_done = {.batch = job->batch.batch, .layer = job->layer}};
    if (cloud->settings.checks)
        compute_layer(node->device, &job->batch, job->layer);
    job->layer++;
    bool told = job->batch.report_layers;
    cloud_push(cloud, job->layer < cloud->kv.layers ? job->layer_done[job->layer] : job->ends, o);
    if (told)
        cloud_step(node, &event);
}

/* A block that is written is of one sequence, which may have chunks in several batches but one row in each.
 * What is only read may be of many. */
static bool use_block(struct block_use *use, uint64_t tag, uint64_t batch, bool written)
{
    bool fits = use->rows == 0 || (use->tag == tag && use->batch != batch) || (!written && !use->written);
    *use = (struct block_use){
        .tag = tag, .batch = batch, .rows = use->rows + 1, .written = written || (use->rows && use->written)};
    return fits;
}

static const char *row_fault(const struct cloud_device *d, uint64_t batch, const struct ts_batch_row *row)
{
    uint64_t end = (uint64_t)row->position + row->tokens.count;
    if (row->tokens.count == 0)
        return "computes nothing";
    if (end > (uint64_t)row->blocks.count * TS_KV_BLOCK_TOKENS)
        return "has too few blocks";
    for (uint32_t i = 0; i < row->blocks.count; i++) {
        if (row->blocks.data[i] >= d->pool->blocks)
            return "names a block outside of the pool";
        if (!use_block(&d->pool->uses[row->blocks.data[i]], row->tag, batch,
                       (i + 1) * TS_KV_BLOCK_TOKENS > row->position))
            return "shares a block with another one";
    }
    return NULL;
}

static void check_batch(struct cloud_node *node, const struct ts_action_batch *a)
{
    struct cloud *cloud = node->cloud;
    struct cloud_device *d = node->device;
    const struct worker_settings *s = &node->settings.worker;
    uint64_t tokens = 0;
    if (d->batches >= s->batches_max)
        cloud_fail(cloud, "%s starts a batch while %u run", node->id, d->batches);
    for (uint32_t i = 0; i < a->rows.count; i++) {
        const char *fault = row_fault(d, a->batch, &a->rows.data[i]);
        if (fault)
            cloud_fail(cloud, "%s: row %u of a batch %s", node->id, i, fault);
        tokens += a->rows.data[i].tokens.count;
    }
    if (a->rows.count == 0 || a->rows.count > s->max_rows || tokens > s->max_batch_tokens)
        cloud_fail(cloud, "%s: a batch of %u rows and %llu tokens", node->id, a->rows.count,
                   (unsigned long long)tokens);
}

static void time_by_costs(struct cloud_node *node, struct batch_job *job)
{
    const struct ts_sim_costs *costs = &node->cloud->costs;
    struct cloud_device *d = node->device;
    uint32_t layers = node->cloud->kv.layers;
    double ns = costs->step;
    for (uint32_t i = 0; i < job->batch.rows.count; i++)
        ns += ts_sim_row_ns(costs, job->batch.rows.data[i].position, job->batch.rows.data[i].tokens.count);
    ts_time begin = d->free_at > job->began ? d->free_at : job->began, lasts = (ts_time)ns;
    for (uint32_t layer = 0; layer < layers; layer++)
        job->layer_done[layer] = begin + lasts * (layer + 1) / (layers + 1);
    d->free_at = job->ends = begin + lasts;
}

static void time_by_replica(struct cloud_node *node, struct batch_job *job)
{
    struct cloud_replica_load load = {0};
    for (uint32_t i = 0; i < job->batch.rows.count; i++) {
        const struct ts_batch_row *row = &job->batch.rows.data[i];
        cloud_replica_load_row(node->replica, &load, row->position, row->tokens.count, row->sample);
    }
    node->work.prompt_tokens += (uint64_t)load.prompt_tokens;
    job->ends =
        cloud_replica_enter(node->replica, job->began, &load, node->cloud->kv.layers, job->layer_done);
}

void device_batch(struct cloud_node *node, const struct ts_action_batch *a)
{
    struct cloud *cloud = node->cloud;
    uint32_t layers = cloud->kv.layers;
    if (cloud->settings.checks)
        check_batch(node, a);
    if (cloud->failure.status != TS_OK)
        return;
    struct batch_job *job = ts_xcalloc(1, sizeof *job + layers * sizeof *job->layer_done);
    job->o = (struct occurrence){.node = node, .happen = batch_happens, .forget = batch_forget};
    job->batch = *a;
    job->began = cloud->now;
    if (node->replica)
        time_by_replica(node, job);
    else
        time_by_costs(node, job);
    if (!a->report_layers && !cloud->settings.checks)
        job->layer = layers;
    node->device->batches++;
    node->work.batches++;
    cloud->counts.batches++;
    cloud_push(cloud, job->layer < layers ? job->layer_done[0] : job->ends, &job->o);
}
