/* One batch: from rows to a region in device memory, through a graph or launches, and back to samples. */
#include <math.h>
#include <string.h>

#include "gpu/cuda/rows/cuda_rows.h"
#include "gpu/engine/engine_cuda.h"

struct step {
    struct cuda_engine *e;
    const struct ts_engine_batch *batch;
    struct cuda_region *region;
    struct cuda_attention_plan plan;
    uint32_t tokens, bucket;         /* bucket_count: no graph */
    uint32_t dirty_begin, dirty_end; /* rows of the table that the device does not have */
    struct ts_error *err;
};

static uint32_t *words(const struct cuda_region *r, size_t at)
{
    return (uint32_t *)(void *)(r->host + at);
}

static bool is_decode(const struct ts_engine_batch *batch)
{
    for (uint32_t i = 0; i < batch->row_count; i++) {
        if (batch->rows[i].token_count != 1)
            return false;
    }
    return !batch->report_layers;
}

/* The row's blocks, unless the device has them from the batch before. */
static void put_table(struct step *s, uint32_t row)
{
    const struct ts_engine_row *r = &s->batch->rows[row];
    uint32_t *to = s->e->table_host + (size_t)row * s->e->table_step;
    size_t bytes = (size_t)ts_kv_blocks_for(r->position + r->token_count) * sizeof *to;
    if (memcmp(to, r->blocks, bytes) == 0)
        return;
    memcpy(to, r->blocks, bytes);
    if (s->dirty_begin == s->dirty_end)
        s->dirty_begin = row;
    s->dirty_end = row + 1;
}

/* Fills the region; the rows that want logits into `last` and e->wanting. */
static void flatten(struct step *s)
{
    struct cuda_engine *e = s->e;
    uint32_t *ids = words(s->region, 0), *position = words(s->region, s->region->position_at);
    uint32_t *row_of = words(s->region, s->region->row_at), *last = words(s->region, s->region->last_at);
    uint32_t at = 0;
    e->wanting_count = 0;
    for (uint32_t i = 0; i < s->batch->row_count; i++) {
        const struct ts_engine_row *row = &s->batch->rows[i];
        e->row_first[i] = at;
        e->row_count[i] = row->token_count;
        e->row_start[i] = row->position;
        for (uint32_t j = 0; j < row->token_count; j++, at++) {
            ids[at] = e->first ? row->tokens[j] : 0;
            position[at] = row->position + j;
            row_of[at] = i;
        }
        if (e->last && (row->sample || s->batch->logits_out)) {
            last[e->wanting_count] = at - 1;
            e->wanting[e->wanting_count++] = i;
        }
        put_table(s, i);
    }
    s->tokens = at;
    for (uint32_t bucket = s->bucket < e->bucket_count ? cuda_buckets[s->bucket] : 0; at < bucket; at++) {
        ids[at] = position[at] = 0;
        row_of[at] = CUDA_NO_ROW;
    }
    for (uint32_t i = e->wanting_count; s->bucket < e->bucket_count && i < cuda_buckets[s->bucket]; i++)
        last[i] = 0;
}

static void plan(struct step *s)
{
    struct cuda_engine *e = s->e;
    uint32_t window = e->layers[0].window;
    const struct cuda_attention_rows rows = {.rows = s->batch->row_count,
                                             .padded =
                                                 s->bucket < e->bucket_count ? cuda_buckets[s->bucket] : 0,
                                             .first = e->row_first,
                                             .count = e->row_count,
                                             .start = e->row_start};
    for (uint32_t i = 0; i < e->layer_count; i++)
        window = e->layers[i].window == 0 ? 0 : window;
    const struct cuda_attention_shape shape = cuda_shape_of(e, window);
    cuda_attention_plan_make(&shape, &e->limits, &rows, s->region->host + s->region->plan_at, &s->plan);
}

static enum ts_status upload(struct step *s)
{
    struct cuda_engine *e = s->e;
    const struct cuda_region *r = s->region;
    size_t row_bytes = (size_t)e->table_step * 4;
    enum ts_status status = ts_cuda_upload(e->cuda, r->device, r->host, r->plan_at + s->plan.bytes, s->err);
    if (status == TS_OK && s->dirty_end > s->dirty_begin)
        status = ts_cuda_upload(e->cuda, e->table + s->dirty_begin * row_bytes,
                                (const uint8_t *)e->table_host + s->dirty_begin * row_bytes,
                                (s->dirty_end - s->dirty_begin) * row_bytes, s->err);
    if (status == TS_OK && !e->first && s->batch->hidden_in)
        status = ts_cuda_upload(e->cuda, e->residual, s->batch->hidden_in,
                                (size_t)s->tokens * e->base.info.model.hidden * 4, s->err);
    return status;
}

static enum ts_status compute(struct step *s)
{
    struct cuda_engine *e = s->e;
    const struct cuda_pass pass = {.region = s->region,
                                   .plan = &s->plan,
                                   .tokens = s->tokens,
                                   .rows = s->batch->row_count,
                                   .wanting = e->wanting_count,
                                   .report = s->batch->report_layers};
    return s->bucket < e->bucket_count ? ts_cuda_graph_launch(e->cuda, e->graphs[s->bucket], s->err)
                                       : cuda_forward(e, &pass, s->err);
}

/* What the batch wants of the logits, before sampling changes them. */
static enum ts_status download(struct step *s)
{
    struct cuda_engine *e = s->e;
    size_t hidden = e->base.info.model.hidden, vocab = e->base.info.model.vocab;
    enum ts_status status = TS_OK;
    if (s->batch->hidden_out)
        status = ts_cuda_download(e->cuda, s->batch->hidden_out, e->residual, s->tokens * hidden * 4, s->err);
    for (uint32_t i = 0; i < e->wanting_count && s->batch->logits_out && status == TS_OK; i++)
        status = ts_cuda_download(e->cuda, s->batch->logits_out + e->wanting[i] * vocab,
                                  e->logits + i * vocab * 4, vocab * 4, s->err);
    return status;
}

static bool samples(const struct step *s)
{
    for (uint32_t i = 0; i < s->e->wanting_count; i++) {
        if (s->batch->rows[s->e->wanting[i]].sample)
            return true;
    }
    return false;
}

static enum ts_status sample(struct step *s)
{
    struct cuda_engine *e = s->e;
    uint32_t count = e->wanting_count;
    if (!samples(s))
        return TS_OK;
    cuda_sample_begin(e->sampler);
    for (uint32_t i = 0; i < count; i++) {
        const struct ts_engine_row *row = &s->batch->rows[e->wanting[i]];
        e->declined[i] = row->sample && !cuda_sample_set(e->sampler, i, row);
    }
    enum ts_status status = cuda_sample_upload(e->sampler, e->cuda, count, s->err);
    if (status == TS_OK)
        status = cuda_sample_run(e->sampler, e->cuda, e->logits, count, s->err);
    return status == TS_OK ? cuda_sample_download(e->sampler, e->cuda, count, s->err) : status;
}

/* A row that the device declined: its logits come over, and the host draws. */
static enum ts_status sample_here(struct step *s, uint32_t index, struct ts_engine_sample *out)
{
    struct cuda_engine *e = s->e;
    size_t vocab = e->base.info.model.vocab;
    enum ts_status status =
        ts_cuda_download(e->cuda, e->host_logits, e->logits + index * vocab * 4, vocab * 4, s->err);
    if (status == TS_OK)
        status = ts_cuda_wait(e->cuda, s->err);
    for (size_t i = e->options.token_ids; e->options.token_ids && i < vocab; i++)
        e->host_logits[i] = -INFINITY; /* padding rows of the embedding: no text stands for them */
    if (status == TS_OK)
        ts_sample(e->host_sampler, e->host_logits, &s->batch->rows[e->wanting[index]], out);
    return status;
}

static enum ts_status collect(struct step *s, struct engine_result *out)
{
    struct cuda_engine *e = s->e;
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < e->wanting_count && status == TS_OK; i++) {
        const struct ts_engine_row *row = &s->batch->rows[e->wanting[i]];
        struct ts_engine_sample *to = &e->samples[out->sample_count];
        if (!row->sample)
            continue;
        if (e->declined[i])
            status = sample_here(s, i, to);
        else
            cuda_sample_get(e->sampler, i, to);
        to->tag = row->tag;
        out->sample_count++;
    }
    out->samples = e->samples;
    return status;
}

/* Layers in their order, each when the device has passed it. */
static enum ts_status report(struct step *s)
{
    struct cuda_engine *e = s->e;
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < e->layer_count && s->batch->report_layers && status == TS_OK; i++) {
        status = ts_cuda_event_wait(e->layer_done[i], s->err);
        if (status == TS_OK)
            engine_runner_layer(&e->runner, e->base.info.shard.layer_begin + i);
    }
    return status;
}

enum ts_status cuda_run(struct ts_engine *engine, const struct ts_engine_batch *batch,
                        struct engine_result *out, struct ts_error *err)
{
    struct cuda_engine *e = (struct cuda_engine *)engine;
    struct step s = {.e = e, .batch = batch, .err = err};
    s.bucket = is_decode(batch) ? cuda_bucket_of(e, batch->row_count) : e->bucket_count;
    s.region = s.bucket < e->bucket_count ? &e->small : &e->large;
    flatten(&s);
    plan(&s);
    enum ts_status status = upload(&s);
    if (status == TS_OK)
        status = compute(&s);
    if (status == TS_OK)
        status = download(&s);
    if (status == TS_OK)
        status = sample(&s);
    if (status == TS_OK)
        status = report(&s);
    if (status == TS_OK)
        status = ts_cuda_wait(e->cuda, err);
    return status == TS_OK ? collect(&s, out) : status;
}
