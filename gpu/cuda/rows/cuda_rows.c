/* From the structs of cuda_rows.h to launches of rows.cu. */
#include "gpu/cuda/rows/cuda_rows.h"

#include "common/base/ts_assert.h"
#include "gpu/cuda/rows/rows_args.h"

_Static_assert(CUDA_NO_ROW == ROWS_NONE, "one name for host and device");

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

bool cuda_rows_take(const struct ts_model *model)
{
    return model->hidden % 8 == 0 && model->intermediate % 8 == 0 && model->head_dim % 16 == 0 &&
           model->head_dim <= 256;
}

/* A thread for each of `items`, in blocks of ROWS_THREADS; nothing for none. */
static enum ts_status launch(struct ts_cuda *cuda, const char *kernel, uint64_t items, const void *args,
                             size_t args_bytes, struct ts_error *err)
{
    uint64_t blocks = (items + ROWS_THREADS - 1) / ROWS_THREADS;
    struct ts_cuda_dim grid = {(uint32_t)blocks, 1, 1}, block = {ROWS_THREADS, 1, 1};
    TS_ASSERT(blocks * ROWS_THREADS <= UINT32_MAX);
    return blocks == 0 ? TS_OK : ts_cuda_launch(cuda, kernel, grid, block, 0, args, args_bytes, err);
}

enum ts_status cuda_embed(struct ts_cuda *cuda, const struct cuda_embedding *e, struct ts_error *err)
{
    struct rows_embed_args args = {.table = at(e->table),
                                   .ids = at(e->ids),
                                   .residual = at(e->residual),
                                   .hidden = e->hidden,
                                   .tokens = e->tokens,
                                   .f32 = e->dtype == TS_DTYPE_F32,
                                   .bf16 = e->dtype == TS_DTYPE_BF16};
    TS_ASSERT(e->hidden > 0 && e->hidden % 8 == 0);
    return launch(cuda, "cuda_rows_embed", (uint64_t)e->tokens * (e->hidden / 8), &args, sizeof args, err);
}

enum ts_status cuda_rms_norm(struct ts_cuda *cuda, const struct cuda_norm *n, struct ts_error *err)
{
    struct rows_norm_args args = {.residual = at(n->residual),
                                  .weight = at(n->weight),
                                  .which = at(n->which),
                                  .out = at(n->out),
                                  .eps = n->eps,
                                  .hidden = n->hidden,
                                  .bf16 = n->bf16};
    uint32_t threads = (n->hidden / 8 + 31) / 32 * 32;
    struct ts_cuda_dim grid = {n->tokens, 1, 1},
                       block = {threads < ROWS_THREADS_MAX ? threads : ROWS_THREADS_MAX, 1, 1};
    TS_ASSERT(n->hidden > 0 && n->hidden % 8 == 0);
    return n->tokens == 0 ? TS_OK
                          : ts_cuda_launch(cuda, "cuda_rows_norm", grid, block, 0, &args, sizeof args, err);
}

enum ts_status cuda_qkv_post(struct ts_cuda *cuda, const struct cuda_qkv *p, struct ts_error *err)
{
    uint32_t lanes = 1;
    while (lanes < p->head_dim / 16)
        lanes *= 2;
    struct rows_qkv_args args = {.qkv = at(p->qkv),
                                 .bias = at(p->bias),
                                 .q_norm = at(p->q_norm),
                                 .k_norm = at(p->k_norm),
                                 .cos = at(p->cos),
                                 .sin = at(p->sin),
                                 .position = at(p->position),
                                 .row_of = at(p->row_of),
                                 .table = at(p->table),
                                 .q = at(p->q),
                                 .pool_layer = at(p->pool_layer),
                                 .table_step = p->table_step,
                                 .q_heads = p->q_heads,
                                 .kv_heads = p->kv_heads,
                                 .head_dim = p->head_dim,
                                 .lanes = lanes,
                                 .items = p->tokens * (p->q_heads + 2 * p->kv_heads),
                                 .eps = p->eps,
                                 .bf16 = p->bf16};
    TS_ASSERT(p->head_dim > 0 && p->head_dim % 16 == 0 && p->head_dim <= 256);
    return launch(cuda, "cuda_rows_qkv", (uint64_t)args.items * lanes, &args, sizeof args, err);
}

enum ts_status cuda_silu_mul(struct ts_cuda *cuda, const struct cuda_silu *s, struct ts_error *err)
{
    struct rows_silu_args args = {.gate_up = at(s->gate_up),
                                  .out = at(s->out),
                                  .runs = s->tokens * (s->intermediate / 8),
                                  .bf16 = s->bf16};
    TS_ASSERT(s->intermediate > 0 && s->intermediate % 8 == 0);
    return launch(cuda, "cuda_rows_silu", args.runs, &args, sizeof args, err);
}
