/* Device memory beside the weights: the workspace of a batch, the pool, and what the launchers keep. */
#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/engine/engine_cuda.h"
#include "gpu/engine/engine_pool.h"

#define RESERVE_BYTES ((uint64_t)1 << 30)
#define LAYER_USES    4u

const uint32_t cuda_buckets[CUDA_BUCKETS] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, CUDA_BUCKET_MAX};

uint32_t cuda_bucket_of(const struct cuda_engine *e, uint32_t rows)
{
    uint32_t i = 0;
    while (i < e->bucket_count && cuda_buckets[i] < rows)
        i++;
    return i;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
}

/* Batches of equal rows and tokens are captured, up to the bucket that holds a batch of max_batch_rows. */
static void set_limits(struct cuda_engine *e)
{
    const struct ts_engine_options *o = &e->options;
    uint32_t padded = 0;
    for (uint32_t i = 0; i < CUDA_BUCKETS; i++) {
        if (padded < o->max_batch_rows)
            padded = cuda_buckets[e->bucket_count++];
    }
    e->limits =
        (struct cuda_attention_limits){.rows = (uint32_t)most(o->max_batch_rows, padded),
                                       .tokens = (uint32_t)most(o->max_batch_tokens, padded),
                                       .context = e->base.info.model.context_tokens,
                                       .multiprocessors = ts_cuda_properties(e->cuda)->multiprocessors,
                                       .batch_invariant = o->batch_invariant};
    e->table_step = ts_kv_blocks_for(e->base.info.model.context_tokens);
}

static void place_region(struct cuda_engine *e, struct cuda_region *r, uint32_t tokens)
{
    struct cuda_attention_shape shape = cuda_shape_of(e, 0);
    uint64_t words = aligned((uint64_t)tokens * 4);
    r->tokens_max = tokens;
    r->position_at = words;
    r->row_at = 2 * words;
    r->last_at = 3 * words;
    r->plan_at = r->last_at + aligned((uint64_t)e->limits.rows * 4);
    r->bytes = r->plan_at + aligned(cuda_attention_plan_bytes(&shape, &e->limits));
}

/* Places of the workspace; returns its size. */
static uint64_t place(struct cuda_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    struct cuda_attention_shape shape = cuda_shape_of(e, 0);
    uint64_t tokens = e->limits.tokens, rows = e->limits.rows, at = e->workspace;
    uint64_t q = (uint64_t)e->q_heads * m->head_dim, kv = (uint64_t)e->kv_heads * m->head_dim;
    uint64_t qkv = aligned(tokens * (q + 2 * kv) * 2), pair = aligned(tokens * 2 * m->intermediate * 2);
    e->residual = at;
    at += aligned(tokens * m->hidden * 4);
    e->input = at;
    at += aligned(most(tokens, rows) * m->hidden * 2);
    e->qkv = e->gate_up = at;
    e->q = at + qkv;
    e->activated = at + pair;
    at += most(qkv + aligned(tokens * q * 2), pair + aligned(tokens * m->intermediate * 2));
    e->logits = at;
    at += e->last ? aligned(rows * m->vocab * 4) : 0;
    e->attention_work = at;
    at += aligned(cuda_attention_workspace_bytes(&shape, &e->limits));
    e->table = at;
    at += aligned(rows * e->table_step * 4);
    e->large.device = at;
    at += e->large.bytes;
    e->small.device = at;
    at += e->small.bytes;
    return at - e->workspace;
}

static enum ts_status pin(struct cuda_engine *e, size_t bytes, void *out, struct ts_error *err)
{
    void *memory = NULL;
    enum ts_status status = ts_cuda_pin(e->cuda, bytes, &memory, err);
    memcpy(out, &memory, sizeof memory);
    if (status == TS_OK)
        memset(memory, 0, bytes);
    return status;
}

static enum ts_status no_memory(struct cuda_engine *e, const char *what, uint64_t bytes, const char *remedy,
                                struct ts_error *err)
{
    uint64_t unused = 0, total = 0;
    (void)ts_cuda_memory(e->cuda, &unused, &total, NULL);
    return ts_error_set(
        err, TS_ENOMEM, "%s: %s needs %llu MiB, and beside weights of %llu MiB %llu are free: %s",
        ts_cuda_name(e->cuda), what, (unsigned long long)(bytes >> 20),
        (unsigned long long)(e->weights_bytes >> 20), (unsigned long long)(unused >> 20), remedy);
}

static enum ts_status alloc_workspace(struct cuda_engine *e, struct ts_error *err)
{
    set_limits(e);
    place_region(e, &e->large, e->limits.tokens);
    place_region(e, &e->small, e->bucket_count ? cuda_buckets[e->bucket_count - 1] : 0);
    e->workspace_bytes = place(e);
    enum ts_status status = ts_cuda_alloc(e->cuda, e->workspace_bytes, &e->workspace, err);
    if (status == TS_ENOMEM)
        return no_memory(e, "the workspace", e->workspace_bytes,
                         "lower max_num_batched_tokens or max_num_seqs", err);
    (void)place(e); /* now at their addresses */
    if (status == TS_OK)
        status = ts_cuda_clear(e->cuda, e->workspace, e->workspace_bytes, err);
    if (status == TS_OK)
        status = pin(e, e->large.bytes, &e->large.host, err);
    if (status == TS_OK)
        status = pin(e, e->small.bytes, &e->small.host, err);
    if (status == TS_OK)
        status = pin(e, (size_t)e->limits.rows * e->table_step * 4, &e->table_host, err);
    return status;
}

/* The uses of all matrices, in the order in which a step reads them. */
static enum ts_status prepare_gemm(struct cuda_engine *e, struct ts_error *err)
{
    const struct cuda_gemm_options options = {.activations = e->base.info.model.kv_dtype,
                                              .batch_invariant = e->options.batch_invariant};
    struct cuda_gemm_use *uses = ts_xcalloc((size_t)e->layer_count * LAYER_USES + 1, sizeof *uses);
    size_t count = 0;
    for (uint32_t i = 0; i < e->layer_count; i++) {
        const struct cuda_layer *l = &e->layers[i];
        uses[count++] = (struct cuda_gemm_use){l->qkv, CUDA_GEMM_Y_16};
        uses[count++] = (struct cuda_gemm_use){l->o, CUDA_GEMM_Y_ADD_F32};
        uses[count++] =
            (struct cuda_gemm_use){l->gate_up, l->gate_up_bias ? CUDA_GEMM_Y_16 : CUDA_GEMM_SWIGLU};
        uses[count++] = (struct cuda_gemm_use){l->down, CUDA_GEMM_Y_ADD_F32};
    }
    if (e->last)
        uses[count++] = (struct cuda_gemm_use){e->lm_head, CUDA_GEMM_Y_F32};
    enum ts_status status = cuda_gemm_new(e->cuda, &options, &e->gemm, err);
    if (status == TS_OK)
        status = cuda_gemm_prepare(e->gemm, e->cuda, uses, count, e->limits.tokens, err);
    ts_free(uses);
    return status;
}

static enum ts_status alloc_pool(struct cuda_engine *e, struct ts_error *err)
{
    struct ts_engine_info *info = &e->base.info;
    const struct ts_engine_options *o = &e->options;
    uint64_t bytes = o->kv_bytes, unused = 0, total = 0;
    ts_cuda_address pool = 0;
    if (o->kv_blocks == 0 && bytes == 0) {
        uint64_t reserve = o->reserve_bytes ? o->reserve_bytes : RESERVE_BYTES;
        enum ts_status known = ts_cuda_memory(e->cuda, &unused, &total, err);
        if (known != TS_OK)
            return known;
        bytes = unused > reserve ? unused - reserve : 0;
        if (bytes < engine_pool_block_bytes(info))
            return no_memory(e, "the KV pool and a reserve", reserve + engine_pool_block_bytes(info),
                             "take weights = int8, a smaller model or a shard", err);
    }
    enum ts_status status = engine_pool_size(info, o->kv_blocks, bytes, err);
    if (status == TS_OK)
        status = engine_pool_map(info, 0, err);
    if (status == TS_OK)
        status = ts_cuda_alloc(e->cuda, info->pool_bytes, &pool, err);
    info->device_pool = pool;
    if (status == TS_ENOMEM)
        return no_memory(e, "the KV pool", info->pool_bytes, "lower kv_cache_mib, or 0 for what is free",
                         err);
    return status == TS_OK ? ts_cuda_clear(e->cuda, pool, info->pool_bytes, err) : status;
}

static enum ts_status alloc_rows(struct cuda_engine *e, struct ts_error *err)
{
    const struct ts_model *m = &e->base.info.model;
    const struct cuda_sample_options options = {
        .model = m, .token_ids = e->options.token_ids, .rows_max = e->limits.rows};
    size_t rows = e->limits.rows;
    enum ts_status status = TS_OK;
    e->row_first = ts_xcalloc(rows, sizeof *e->row_first);
    e->row_count = ts_xcalloc(rows, sizeof *e->row_count);
    e->row_start = ts_xcalloc(rows, sizeof *e->row_start);
    e->wanting = ts_xcalloc(rows, sizeof *e->wanting);
    e->declined = ts_xcalloc(rows, sizeof *e->declined);
    e->samples = ts_xcalloc(rows, sizeof *e->samples);
    e->layer_done = ts_xcalloc(e->layer_count, sizeof(struct ts_cuda_event *));
    for (uint32_t i = 0; i < e->layer_count && status == TS_OK; i++)
        status = ts_cuda_event_new(e->cuda, &e->layer_done[i], err);
    if (status != TS_OK || !e->last)
        return status;
    e->host_sampler = ts_sampler_new(m);
    e->host_logits = ts_xcalloc(m->vocab, sizeof *e->host_logits);
    return cuda_sample_new(e->cuda, &options, &e->sampler, err);
}

enum ts_status cuda_space_new(struct cuda_engine *e, struct ts_error *err)
{
    enum ts_status status = alloc_workspace(e, err);
    if (status == TS_OK)
        status = alloc_rows(e, err);
    if (status == TS_OK)
        status = prepare_gemm(e, err);
    return status == TS_OK ? alloc_pool(e, err) : status;
}

static void unpin(struct cuda_engine *e, void *memory)
{
    ts_cuda_unpin(e->cuda, &memory);
}

void cuda_space_free(struct cuda_engine *e)
{
    ts_cuda_address pool = e->base.info.device_pool;
    for (uint32_t i = 0; i < CUDA_BUCKETS; i++)
        ts_cuda_graph_free(&e->graphs[i]);
    for (uint32_t i = 0; e->layer_done && i < e->layer_count; i++)
        ts_cuda_event_free(&e->layer_done[i]);
    cuda_sample_free(e->cuda, &e->sampler);
    cuda_gemm_free(&e->gemm);
    unpin(e, e->large.host);
    unpin(e, e->small.host);
    unpin(e, e->table_host);
    ts_cuda_free(e->cuda, &e->workspace);
    ts_cuda_free(e->cuda, &pool);
    engine_pool_unmap(&e->base.info);
    ts_sampler_destroy(&e->host_sampler);
    ts_free(e->host_logits);
    ts_free(e->layer_done);
    ts_free(e->row_first);
    ts_free(e->row_count);
    ts_free(e->row_start);
    ts_free(e->wanting);
    ts_free(e->declined);
    ts_free(e->samples);
}
