/*
 * What a token needs between two matrices: embedding, RMS norm, what follows the qkv product, SiLU
 * (cuda_rows.h has formulas and layouts). All of it is bound by memory: a thread moves 16 bytes of T at a
 * time, neighbouring lanes neighbouring bytes, and everything is read and written once.
 */
#include "gpu/cuda/kernel_numbers.cuh"
#include "gpu/cuda/rows/rows_args.h"

#define BLOCK_TOKENS 16u /* of the pool */
#define RUN          8u  /* elements of T in 16 bytes */
#define LOG2_E       1.44269504f

struct rows_shared {
    float sums[ROWS_THREADS_MAX / 32];
};

/* --- embedding ------------------------------------------------------------------------------------------ */

TS_KERNEL(cuda_rows_embed, ROWS_THREADS, rows_embed_args)
{
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x, runs = args.hidden / RUN;
    uint32_t token = index / runs, column = index % runs * RUN;
    float x[RUN];
    if (token >= args.tokens)
        return;
    uint64_t from = (uint64_t)args.ids[token] * args.hidden + column;
    if (args.f32)
        kernel_load_floats((const float *)args.table + from, x);
    else
        kernel_widen_run(*(const uint4 *)((const uint16_t *)args.table + from), args.bf16 != 0, x);
    kernel_store_floats(args.residual + (uint64_t)token * args.hidden + column, x);
}

/* --- norm ----------------------------------------------------------------------------------------------- */

TS_DEVICE float squares_of(const float *x)
{
    float sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++)
        sum = kernel_fma(x[i], x[i], sum);
    return sum;
}

/* Over `lanes` neighbouring threads, a power of two. */
TS_DEVICE float sum_of_lanes(float value, uint32_t lanes)
{
    for (uint32_t distance = 1; distance < lanes; distance *= 2)
        value += __shfl_xor_sync(KERNEL_FULL_WARP, value, (int)distance);
    return value;
}

/* Over the block, in a fixed order; all threads get it. */
TS_DEVICE float sum_of_block(float value, rows_shared &shared)
{
    uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
    value = sum_of_lanes(value, 32);
    if (lane == 0)
        shared.sums[threadIdx.x / 32] = value;
    __syncthreads();
    return sum_of_lanes(lane < warps ? shared.sums[lane] : 0, 32);
}

TS_DEVICE uint4 normed_run(float *x, const float *weight, float factor, bool bf16)
{
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++)
        x[i] = x[i] * factor * weight[i];
    return kernel_narrow_run(x, bf16);
}

/* The first run of a thread stays in registers; rows longer than 8 elements for each thread are read twice.
 */
TS_KERNEL(cuda_rows_norm, ROWS_THREADS_MAX, rows_norm_args)
{
    TS_SHARED(rows_shared, shared);
    uint32_t first = threadIdx.x * RUN, step = blockDim.x * RUN;
    uint64_t row = args.which ? args.which[blockIdx.x] : blockIdx.x;
    const float *from = args.residual + row * args.hidden;
    uint16_t *to = args.out + (uint64_t)blockIdx.x * args.hidden;
    float x[RUN] = {0}, weight[RUN] = {0}, y[RUN];
    if (first < args.hidden) {
        kernel_load_floats(from + first, x);
        kernel_load_floats(args.weight + first, weight);
    }
    float sum = squares_of(x);
    for (uint32_t at = first + step; at < args.hidden; at += step) {
        kernel_load_floats(from + at, y);
        sum += squares_of(y);
    }
    float factor = kernel_rsqrt(sum_of_block(sum, shared) / (float)args.hidden + args.eps);
    if (first < args.hidden)
        *(uint4 *)(to + first) = normed_run(x, weight, factor, args.bf16 != 0);
    for (uint32_t at = first + step; at < args.hidden; at += step) {
        kernel_load_floats(from + at, y);
        kernel_load_floats(args.weight + at, weight);
        *(uint4 *)(to + at) = normed_run(y, weight, factor, args.bf16 != 0);
    }
}

/* --- after the qkv product ------------------------------------------------------------------------------ */

/* One head of a token, and a thread's part of it. */
struct head {
    uint32_t token, index; /* queries, keys, values */
    uint32_t low, high;    /* elements of the head where the thread's two runs begin */
    uint32_t position;
    bool active; /* there is such a head, and the thread has a part of it */
};

TS_DEVICE head head_of(const rows_qkv_args &args)
{
    uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, lane = thread % args.lanes;
    uint32_t item = thread / args.lanes, heads = args.q_heads + 2 * args.kv_heads;
    head h;
    h.active = item < args.items && lane < args.head_dim / 16;
    h.token = h.active ? item / heads : 0;
    h.index = h.active ? item % heads : 0;
    h.low = lane * RUN;
    h.high = h.low + args.head_dim / 2;
    h.position = 0;
    return h;
}

TS_DEVICE void add_run(const float *from, float *x)
{
    float y[RUN];
    kernel_load_floats(from, y);
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++)
        x[i] += y[i];
}

TS_DEVICE void load_head(const rows_qkv_args &args, const head &h, float *low, float *high)
{
    uint32_t width = (args.q_heads + 2 * args.kv_heads) * args.head_dim, at = h.index * args.head_dim;
    const uint16_t *from = args.qkv + (uint64_t)h.token * width + at;
    if (!h.active)
        return;
    kernel_widen_run(*(const uint4 *)(from + h.low), args.bf16 != 0, low);
    kernel_widen_run(*(const uint4 *)(from + h.high), args.bf16 != 0, high);
    if (args.bias) {
        add_run(args.bias + at + h.low, low);
        add_run(args.bias + at + h.high, high);
    }
}

TS_DEVICE void scale_run(const float *weight, float factor, float *x)
{
    float w[RUN];
    kernel_load_floats(weight, w);
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++)
        x[i] = x[i] * factor * w[i];
}

/* All threads come here: the lanes of a head have to meet. */
TS_DEVICE void norm_head(const rows_qkv_args &args, const head &h, float *low, float *high)
{
    const float *weight = h.index < args.q_heads                   ? args.q_norm
                          : h.index < args.q_heads + args.kv_heads ? args.k_norm
                                                                   : nullptr;
    float sum = sum_of_lanes(squares_of(low) + squares_of(high), args.lanes);
    if (!weight || !h.active)
        return;
    float factor = kernel_rsqrt(sum / (float)args.head_dim + args.eps);
    scale_run(weight + h.low, factor, low);
    scale_run(weight + h.high, factor, high);
}

TS_DEVICE void rotate(const rows_qkv_args &args, const head &h, float *low, float *high)
{
    uint64_t at = (uint64_t)h.position * (args.head_dim / 2) + h.low;
    float c[RUN], s[RUN];
    kernel_load_floats(args.cos + at, c);
    kernel_load_floats(args.sin + at, s);
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++) {
        float a = low[i], b = high[i];
        low[i] = a * c[i] - b * s[i];
        high[i] = b * c[i] + a * s[i];
    }
}

/* Where the head goes, or NULL: keys and values of a token without a row. */
TS_DEVICE uint16_t *place_of(const rows_qkv_args &args, const head &h, uint32_t row)
{
    if (h.index < args.q_heads)
        return args.q + ((uint64_t)h.token * args.q_heads + h.index) * args.head_dim;
    if (row == ROWS_NONE)
        return nullptr;
    uint32_t pair = h.index - args.q_heads; /* [K|V][head] */
    uint64_t block = args.table[(uint64_t)row * args.table_step + h.position / BLOCK_TOKENS];
    uint64_t tile = block * 2 * args.kv_heads + pair;
    return args.pool_layer + (tile * BLOCK_TOKENS + h.position % BLOCK_TOKENS) * args.head_dim;
}

TS_KERNEL(cuda_rows_qkv, ROWS_THREADS, rows_qkv_args)
{
    float low[RUN] = {0}, high[RUN] = {0};
    head h = head_of(args);
    uint32_t row = args.row_of[h.token];
    h.position = row == ROWS_NONE ? 0 : args.position[h.token];
    load_head(args, h, low, high);
    norm_head(args, h, low, high);
    if (!h.active)
        return;
    if (h.index < args.q_heads + args.kv_heads)
        rotate(args, h, low, high);
    uint16_t *to = place_of(args, h, row);
    if (to) {
        *(uint4 *)(to + h.low) = kernel_narrow_run(low, args.bf16 != 0);
        *(uint4 *)(to + h.high) = kernel_narrow_run(high, args.bf16 != 0);
    }
}

/* --- SiLU ----------------------------------------------------------------------------------------------- */

TS_KERNEL(cuda_rows_silu, ROWS_THREADS, rows_silu_args)
{
    uint32_t run = blockIdx.x * blockDim.x + threadIdx.x;
    float gate[RUN], up[RUN];
    if (run >= args.runs)
        return;
    const uint16_t *from = args.gate_up + (uint64_t)run * 2 * RUN;
    kernel_widen_run(*(const uint4 *)from, args.bf16 != 0, gate);
    kernel_widen_run(*(const uint4 *)(from + RUN), args.bf16 != 0, up);
#pragma unroll
    for (uint32_t i = 0; i < RUN; i++)
        gate[i] = gate[i] / (1.0f + kernel_exp2(-LOG2_E * gate[i])) * up[i];
    *(uint4 *)(args.out + (uint64_t)run * RUN) = kernel_narrow_run(gate, args.bf16 != 0);
}
