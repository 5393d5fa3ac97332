/*
 * The CUDA engine from the inside: the weights of a shard in device memory, a workspace for one batch, the
 * paged pool, and graphs of decode steps. The launches it is made of are those of gpu/cuda.
 *
 * A batch is flattened into a pinned array of the host that has the same layout in device memory (struct
 * cuda_region): one copy brings it there. Rows of one token each, up to the largest bucket, are a decode
 * step: they use the small region and the graph of the next larger bucket, padded with tokens of no row. All
 * other batches use the large region and launches one by one. Between submit and result nothing is allocated,
 * and nothing waits but for the end, or for the end of each layer when the batch reports them.
 *
 * T is the model's kv_dtype, the type of activations and of weights unless they are int8. The residual is
 * fp32. Everything is used by the thread that opens the engine, then by the runner's.
 */
#ifndef TS_GPU_ENGINE_CUDA_H
#define TS_GPU_ENGINE_CUDA_H

#include "gpu/cuda/attention/cuda_attention.h"
#include "gpu/cuda/products/cuda_gemm.h"
#include "gpu/cuda/sample/cuda_sample.h"
#include "gpu/engine/engine_runner.h"
#include "gpu/engine/engine_tensors.h"
#include "gpu/engine/ts_sampler.h"

#define CUDA_BUCKETS    12u
#define CUDA_BUCKET_MAX 128u
#define CUDA_ALIGN      256u

struct cuda_layer {
    struct cuda_matrix qkv;     /* [(q heads + 2 kv heads) * head_dim of the shard][hidden] */
    struct cuda_matrix o;       /* [hidden][q heads * head_dim of the shard] */
    struct cuda_matrix gate_up; /* [2 * intermediate][hidden], in runs of 8 rows */
    struct cuda_matrix down;    /* [hidden][intermediate] */
    /* fp32; 0 where the model has none. That of gate_up in the order of its rows. */
    ts_cuda_address attention_norm, mlp_norm, q_norm, k_norm;
    ts_cuda_address qkv_bias, o_bias, gate_up_bias, down_bias;
    uint32_t window; /* of attention; 0 = none */
};

/* What a batch tells the kernels: arrays at fixed places of one piece of memory, on the host (pinned) and on
 * the device. The attention's plan is last, so that what is not used of it is not copied. */
struct cuda_region {
    uint32_t tokens_max;
    size_t bytes;
    size_t position_at, row_at, last_at, plan_at; /* ids are at 0 */
    uint8_t *host;
    ts_cuda_address device;
};

struct cuda_engine {
    struct ts_engine base;
    struct ts_engine_options options;
    struct engine_runner runner;
    struct ts_cuda *cuda;
    char kind[160];
    uint32_t q_heads, kv_heads; /* of the shard */
    uint32_t layer_count;
    bool first, last; /* whether it owns the first layer, the last one */
    bool int8;
    float rms_eps;

    /* weights: one allocation */
    ts_cuda_address weights;
    uint64_t weights_bytes;
    struct cuda_layer *layers;
    ts_cuda_address embedding; /* T [vocab][hidden]; 0 unless `first` or tied */
    ts_cuda_address final_norm;
    struct cuda_matrix lm_head;
    ts_cuda_address cosines, sines; /* fp32 [context][head_dim / 2] */
    float *frequencies;             /* the info's */

    /* workspace: one allocation */
    ts_cuda_address workspace;
    uint64_t workspace_bytes;
    ts_cuda_address residual;           /* fp32 [tokens][hidden] */
    ts_cuda_address input;              /* T [tokens][hidden]: what a norm leaves */
    ts_cuda_address qkv, q;             /* T; the result of attention goes where qkv was */
    ts_cuda_address gate_up, activated; /* T, where qkv and q were */
    ts_cuda_address logits;             /* fp32 [rows][vocab] */
    ts_cuda_address attention_work, table;
    struct cuda_region large, small;
    uint32_t *table_host; /* pinned [rows][table_step]: what is in the device's */
    uint32_t table_step;

    struct cuda_gemm *gemm;
    struct cuda_sample *sampler;
    struct cuda_attention_limits limits;
    struct ts_cuda_event **layer_done; /* [layer_count] */
    struct ts_cuda_graph *graphs[CUDA_BUCKETS];
    uint32_t bucket_count; /* graphs */

    /* the batch under way */
    uint32_t *row_first, *row_count, *row_start; /* [rows], for the plan */
    uint32_t *wanting;                           /* rows that want logits */
    uint32_t wanting_count;
    bool *declined; /* of `wanting`: drawn on the host */
    struct ts_engine_sample *samples;
    struct ts_sampler *host_sampler;
    float *host_logits; /* of one row */
};

/* One pass of launches over what a region says. */
struct cuda_pass {
    const struct cuda_region *region;
    const struct cuda_attention_plan *plan;
    uint32_t tokens;  /* of them, with padding */
    uint32_t rows;    /* rows of the plan, at most */
    uint32_t wanting; /* logits of so many tokens */
    bool report;      /* record an event behind each layer */
};

/* engine_cuda_weights.c: where all lies, then what lies there. */
enum ts_status cuda_weights_load(struct cuda_engine *e, const struct ts_hf *hf, struct ts_error *err);
void cuda_weights_free(struct cuda_engine *e);

/* engine_cuda_space.c */
enum ts_status cuda_space_new(struct cuda_engine *e, struct ts_error *err);
void cuda_space_free(struct cuda_engine *e);

/* engine_cuda_forward.c */
enum ts_status cuda_forward(struct cuda_engine *e, const struct cuda_pass *pass, struct ts_error *err);
enum ts_status cuda_graphs_new(struct cuda_engine *e, struct ts_error *err);

/* engine_cuda_batch.c */
enum ts_status cuda_run(struct ts_engine *engine, const struct ts_engine_batch *batch,
                        struct engine_result *out, struct ts_error *err);

/* Batches of that many rows are a decode step of the bucket with the index; `bucket_count` if of none. */
uint32_t cuda_bucket_of(const struct cuda_engine *e, uint32_t rows);
extern const uint32_t cuda_buckets[CUDA_BUCKETS];

static inline struct cuda_attention_shape cuda_shape_of(const struct cuda_engine *e, uint32_t window)
{
    return (struct cuda_attention_shape){.q_heads = e->q_heads,
                                         .kv_heads = e->kv_heads,
                                         .head_dim = e->base.info.model.head_dim,
                                         .window = window,
                                         .bf16 = e->base.info.model.kv_dtype == TS_DTYPE_BF16};
}

#endif
