/*
 * What stands between the matrices of a transformer's layer, token by token, on a device (rows.cu):
 *
 *     embedding     ids -> residual
 *     rms norm      residual -> inputs of a matrix
 *     qkv           product -> queries; keys and values into their pages: bias, q/k norm, rotation
 *     silu          interleaved product -> inputs of a matrix
 *
 * T is the activations' type, fp16 or bf16. The residual is fp32 [tokens][hidden]; products and inputs are T,
 * dense. Weights of norms and biases are fp32. Formulas: RMSNorm, Zhang & Sennrich, arXiv 1910.07467, eq. 4;
 * rotation of halves, Su et al., arXiv 2104.09864, section 3.2, with element i turned together with element
 * i + head_dim / 2; SwiGLU, Shazeer, arXiv 2002.05202, section 2. Arithmetic is fp32 and rounds to T once;
 * what a token gets depends on that token alone and not on how many there are.
 *
 * Launches go into the stream of the device and come back at once; nothing is allocated, grids depend on the
 * counts in the structs alone: all of it may be captured into graphs. All addresses are aligned to 16 bytes,
 * hidden and intermediate are multiples of 8. No launch is made for 0 tokens.
 */
#ifndef TS_GPU_CUDA_ROWS_CUDA_ROWS_H
#define TS_GPU_CUDA_ROWS_CUDA_ROWS_H

#include <stdbool.h>

#include "common/core/ts_model.h"
#include "gpu/cuda/device/ts_cuda.h"

/* row_of of a token that is only there to fill a batch up: it is computed at position 0 and leaves nothing in
 * the pool. */
#define CUDA_NO_ROW UINT32_MAX

/* Whether the kernels take a model: hidden and intermediate multiples of 8, head_dim one of 16 up to 256. */
bool cuda_rows_take(const struct ts_model *model);

struct cuda_embedding {
    ts_cuda_address table; /* [vocab][hidden] of `dtype` */
    enum ts_dtype dtype;   /* F16, BF16 or F32 */
    ts_cuda_address ids;   /* uint32_t [tokens], below the vocabulary */
    ts_cuda_address residual;
    uint32_t hidden, tokens;
};
enum ts_status cuda_embed(struct ts_cuda *cuda, const struct cuda_embedding *e, struct ts_error *err);

struct cuda_norm {
    ts_cuda_address residual; /* fp32 [..][hidden] */
    ts_cuda_address which;    /* uint32_t [tokens]: rows of the residual; 0 = row by row */
    ts_cuda_address weight;   /* fp32 [hidden] */
    ts_cuda_address out;      /* T [tokens][hidden] */
    float eps;
    uint32_t hidden, tokens;
    bool bf16; /* T; otherwise fp16 */
};
enum ts_status cuda_rms_norm(struct ts_cuda *cuda, const struct cuda_norm *n, struct ts_error *err);

struct cuda_qkv {
    ts_cuda_address qkv;  /* T [tokens][(q_heads + 2 kv_heads) * head_dim], queries first; not changed */
    ts_cuda_address bias; /* fp32 of one token's row, or 0 */
    ts_cuda_address q_norm, k_norm; /* fp32 [head_dim], or 0 */
    ts_cuda_address cos, sin;       /* fp32 [context][head_dim / 2], by position */
    ts_cuda_address position;       /* uint32_t [tokens], absolute */
    ts_cuda_address row_of;         /* uint32_t [tokens]: row of the batch, or CUDA_NO_ROW */
    ts_cuda_address table;          /* uint32_t [rows][table_step]: blocks of the pool */
    ts_cuda_address q;              /* out: T [tokens][q_heads * head_dim] */
    ts_cuda_address pool_layer;     /* the layer's blocks: T [block][K|V][kv_heads][16][head_dim] */
    uint32_t table_step;
    uint32_t q_heads, kv_heads, head_dim; /* of the shard */
    uint32_t tokens;
    float eps; /* of the norms */
    bool bf16;
};
enum ts_status cuda_qkv_post(struct ts_cuda *cuda, const struct cuda_qkv *p, struct ts_error *err);

/* out[i] = silu(gate[i]) * up[i]. Of a token's 2 * intermediate elements in `gate_up` 8 are of the gate, the
 * next 8 the same places of up, and so on. */
struct cuda_silu {
    ts_cuda_address gate_up; /* T [tokens][2 * intermediate] */
    ts_cuda_address out;     /* T [tokens][intermediate] */
    uint32_t intermediate, tokens;
    bool bf16;
};
enum ts_status cuda_silu_mul(struct ts_cuda *cuda, const struct cuda_silu *s, struct ts_error *err);

#endif
