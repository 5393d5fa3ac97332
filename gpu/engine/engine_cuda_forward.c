/*
 * The forward pass as launches (kernels.md, 3.2): eight for a layer, and attention's second where a batch has
 * both kinds of rows. The residual is fp32, and matrices add their results to it.
 */
#include "gpu/cuda/rows/cuda_rows.h"
#include "gpu/cuda/weights/cuda_weights.h"
#include "gpu/engine/engine_cuda.h"

/* Commands one after the other; the first failure ends them. */
struct chain {
    struct cuda_engine *e;
    const struct cuda_pass *pass;
    struct ts_error *err;
    enum ts_status status;
};

#define DO(chain, call)                                                                                      \
    do {                                                                                                     \
        if ((chain)->status == TS_OK)                                                                        \
            (chain)->status = (call);                                                                        \
    } while (0)

static void norm(struct chain *c, ts_cuda_address weight, ts_cuda_address which, uint32_t tokens)
{
    struct cuda_engine *e = c->e;
    const struct cuda_norm n = {.residual = e->residual,
                                .which = which,
                                .weight = weight,
                                .out = e->input,
                                .eps = e->rms_eps,
                                .hidden = e->base.info.model.hidden,
                                .tokens = tokens,
                                .bf16 = e->base.info.model.kv_dtype == TS_DTYPE_BF16};
    DO(c, cuda_rms_norm(e->cuda, &n, c->err));
}

static void multiply(struct chain *c, const struct cuda_matrix *w, ts_cuda_address x, uint32_t rows,
                     ts_cuda_address y, enum cuda_gemm_y kind)
{
    DO(c, cuda_gemm_run(c->e->gemm, c->e->cuda, w, x, rows, y, kind, c->err));
}

static void add_bias(struct chain *c, ts_cuda_address to, ts_cuda_address bias, uint32_t width,
                     enum ts_dtype dtype)
{
    if (bias)
        DO(c, cuda_weights_bias(c->e->cuda, to, bias, c->pass->tokens, width, dtype, c->err));
}

static ts_cuda_address pool_layer(const struct cuda_engine *e, uint32_t index)
{
    const struct ts_engine_info *info = &e->base.info;
    return info->device_pool +
           (uint64_t)index * info->kv_blocks * ts_model_kv_layer_block_bytes(&info->model, e->kv_heads);
}

static void post_qkv(struct chain *c, const struct cuda_layer *l, uint32_t index)
{
    struct cuda_engine *e = c->e;
    const struct cuda_region *r = c->pass->region;
    const struct cuda_qkv p = {.qkv = e->qkv,
                               .bias = l->qkv_bias,
                               .q_norm = l->q_norm,
                               .k_norm = l->k_norm,
                               .cos = e->cosines,
                               .sin = e->sines,
                               .position = r->device + r->position_at,
                               .row_of = r->device + r->row_at,
                               .table = e->table,
                               .q = e->q,
                               .pool_layer = pool_layer(e, index),
                               .table_step = e->table_step,
                               .q_heads = e->q_heads,
                               .kv_heads = e->kv_heads,
                               .head_dim = e->base.info.model.head_dim,
                               .tokens = c->pass->tokens,
                               .eps = e->rms_eps,
                               .bf16 = e->base.info.model.kv_dtype == TS_DTYPE_BF16};
    DO(c, cuda_qkv_post(e->cuda, &p, c->err));
}

/* Where qkv was: that is in q and in the pool by now. */
static void attend(struct chain *c, const struct cuda_layer *l, uint32_t index)
{
    struct cuda_engine *e = c->e;
    const struct cuda_region *r = c->pass->region;
    const struct cuda_attention_shape shape = cuda_shape_of(e, l->window);
    const struct cuda_attention_io io = {.q = e->q,
                                         .out = e->qkv,
                                         .pool = pool_layer(e, index),
                                         .table = e->table,
                                         .table_step = e->table_step,
                                         .plan = r->device + r->plan_at,
                                         .workspace = e->attention_work};
    if (c->pass->plan)
        DO(c, cuda_prefill_attention(e->cuda, &shape, &io, c->pass->plan, c->err));
    if (!c->pass->plan || c->pass->plan->spans > 0)
        DO(c, cuda_decode_attention(e->cuda, &shape, &e->limits, &io, c->pass->rows, c->err));
}

static void mlp(struct chain *c, const struct cuda_layer *l)
{
    struct cuda_engine *e = c->e;
    const struct ts_model *m = &e->base.info.model;
    uint32_t tokens = c->pass->tokens;
    norm(c, l->mlp_norm, 0, tokens);
    if (l->gate_up_bias) {
        const struct cuda_silu silu = {.gate_up = e->gate_up,
                                       .out = e->activated,
                                       .intermediate = m->intermediate,
                                       .tokens = tokens,
                                       .bf16 = m->kv_dtype == TS_DTYPE_BF16};
        multiply(c, &l->gate_up, e->input, tokens, e->gate_up, CUDA_GEMM_Y_16);
        add_bias(c, e->gate_up, l->gate_up_bias, 2 * m->intermediate, m->kv_dtype);
        DO(c, cuda_silu_mul(e->cuda, &silu, c->err));
    } else {
        DO(c, cuda_gemm_swiglu(e->gemm, e->cuda, &l->gate_up, e->input, tokens, e->activated, e->gate_up,
                               c->err));
    }
    multiply(c, &l->down, e->activated, tokens, e->residual, CUDA_GEMM_Y_ADD_F32);
    add_bias(c, e->residual, l->down_bias, m->hidden, TS_DTYPE_F32);
}

static void layer(struct chain *c, uint32_t index)
{
    struct cuda_engine *e = c->e;
    const struct cuda_layer *l = &e->layers[index];
    uint32_t tokens = c->pass->tokens;
    norm(c, l->attention_norm, 0, tokens);
    multiply(c, &l->qkv, e->input, tokens, e->qkv, CUDA_GEMM_Y_16);
    post_qkv(c, l, index);
    attend(c, l, index);
    multiply(c, &l->o, e->qkv, tokens, e->residual, CUDA_GEMM_Y_ADD_F32);
    add_bias(c, e->residual, l->o_bias, e->base.info.model.hidden, TS_DTYPE_F32);
    mlp(c, l);
}

enum ts_status cuda_forward(struct cuda_engine *e, const struct cuda_pass *pass, struct ts_error *err)
{
    struct chain c = {.e = e, .pass = pass, .err = err};
    const struct cuda_region *r = pass->region;
    const struct cuda_embedding embedding = {.table = e->embedding,
                                             .dtype = e->base.info.model.kv_dtype,
                                             .ids = r->device,
                                             .residual = e->residual,
                                             .hidden = e->base.info.model.hidden,
                                             .tokens = pass->tokens};
    if (e->first)
        DO(&c, cuda_embed(e->cuda, &embedding, err));
    for (uint32_t i = 0; i < e->layer_count; i++) {
        layer(&c, i);
        if (pass->report)
            DO(&c, ts_cuda_record(e->cuda, e->layer_done[i], err));
    }
    if (pass->wanting > 0) {
        norm(&c, e->final_norm, r->device + r->last_at, pass->wanting);
        multiply(&c, &e->lm_head, e->input, pass->wanting, e->logits, CUDA_GEMM_Y_F32);
    }
    return c.status;
}

/* Each bucket as a graph, the largest first: what the driver allocates for it serves the others. Attention
 * has the spans of whichever plan is there when it is launched; with `batch_invariant` the tiles of the
 * bucket, of which those behind the batch are empty. */
enum ts_status cuda_graphs_new(struct cuda_engine *e, struct ts_error *err)
{
    const struct cuda_attention_shape shape = cuda_shape_of(e, 0);
    enum ts_status status = TS_OK;
    for (uint32_t i = e->bucket_count; i-- > 0 && status == TS_OK;) {
        const struct cuda_attention_rows rows = {.padded = cuda_buckets[i]};
        struct cuda_attention_plan plan;
        cuda_attention_plan_make(&shape, &e->limits, &rows, e->small.host + e->small.plan_at, &plan);
        const struct cuda_pass pass = {.region = &e->small,
                                       .plan = e->options.batch_invariant ? &plan : NULL,
                                       .tokens = cuda_buckets[i],
                                       .rows = cuda_buckets[i],
                                       .wanting = e->last ? cuda_buckets[i] : 0};
        status = ts_cuda_capture_begin(e->cuda, err);
        if (status != TS_OK)
            return status;
        status = cuda_forward(e, &pass, err);
        enum ts_status ended = ts_cuda_capture_end(e->cuda, &e->graphs[i], status == TS_OK ? err : NULL);
        status = status != TS_OK ? status : ended;
    }
    return status;
}
