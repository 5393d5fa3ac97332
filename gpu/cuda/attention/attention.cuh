/*
 * What both attention kernels are made of: a warp that has 16-row slabs of queries and their running sums in
 * registers, in the fragments of mma.m16n8k16 (kernel_ptx.cuh), and multiplies them with keys and values that
 * lie in shared memory.
 *
 * Rows in shared memory have W elements, in chunks of 8 (16 bytes) that change places so that any 8 rows of a
 * column of chunks, which ldmatrix reads at once, lie in different banks.
 *
 * Weights are 2^(x - best) with x = q k log2(e) / sqrt(head_dim) and best the running maximum rounded *up to
 * an integer*: then sums are scaled to a new maximum exactly, and a weight is rounded to 16 bits in the same
 * way whatever the maximum was. So in how many parts keys are added shows in the order of the fp32 sums
 * alone.
 */
#ifndef TS_GPU_CUDA_ATTENTION_ATTENTION_CUH
#define TS_GPU_CUDA_ATTENTION_ATTENTION_CUH

#include "gpu/cuda/attention/attention_args.h"
#include "gpu/cuda/kernel.cuh"

#define LOWEST (-1e30f) /* below all scores, and not infinite: a difference of two is 0 */

TS_DEVICE float minus_infinity()
{
    return kernel_float_of(0xff800000u);
}

/* Chunks that change places among each other: as many as their rows, taken together, have banks for. */
template <int W> constexpr uint32_t exchanged = W % 64 == 0 ? 8 : W % 32 == 0 ? 4 : 2;

/* What a row's chunks are exchanged by. */
template <int W> TS_DEVICE uint32_t exchange(uint32_t row)
{
    static_assert(W % 16 == 0, "rows of 32 bytes or a multiple");
    return exchanged<W> == 8 ? row & 7 : exchanged<W> == 4 ? row >> 1 & 3 : row >> 2 & 1;
}

/* Where, in elements, a chunk of a row begins. */
template <int W> TS_DEVICE uint32_t place(uint32_t row, uint32_t chunk)
{
    return row * W + (chunk ^ exchange<W>(row)) * 8;
}

/* From the place of chunk 0 or 1 of a row to that which is an even number of chunks behind it. */
template <int W> TS_DEVICE uint32_t behind(uint32_t place, uint32_t chunks)
{
    uint32_t low = chunks % exchanged<W>;
    return (place ^ low * 8) + (chunks - low) * 8;
}

template <bool bf16> TS_DEVICE void multiply(float *d, const uint32_t *a, const uint32_t *b)
{
    if constexpr (bf16)
        kernel_mma_bf16(d, a, b);
    else
        kernel_mma_f16(d, a, b);
}

template <bool bf16> TS_DEVICE uint32_t narrow(float low, float high)
{
    if constexpr (bf16)
        return kernel_narrow_bf16x2(low, high);
    else
        return kernel_narrow_f16x2(low, high);
}

/* --- from global memory --------------------------------------------------------------------------------- */

/* A chunk of a row of head_dim elements; zeros beyond it, or when the row is not valid. Rows of narrow heads
 * need not be aligned. */
template <int W>
TS_DEVICE void copy_chunk(uint16_t *to, const uint16_t *row, uint32_t chunk, uint32_t head_dim, bool valid)
{
    if constexpr (W == 32) {
        if (head_dim % 8 != 0) {
            for (uint32_t i = 0; i < 8; i++)
                to[i] = valid && chunk * 8 + i < head_dim ? row[chunk * 8 + i] : 0;
            return;
        }
    }
    kernel_copy_async(to, row + chunk * 8, valid && chunk * 8 < head_dim);
}

/* The reverse, of an aligned place in shared memory. */
template <int W>
TS_DEVICE void store_chunk(uint16_t *row, const uint16_t *from, uint32_t chunk, uint32_t head_dim)
{
    if constexpr (W == 32) {
        if (head_dim % 8 != 0) {
            for (uint32_t i = chunk * 8; i < head_dim && i < chunk * 8 + 8; i++)
                row[i] = from[i - chunk * 8];
            return;
        }
    }
    *(uint4 *)(row + chunk * 8) = *(const uint4 *)from;
}

/* A block of the pool, by one warp: rows `from` .. `to` - 1 of it, zeros else. */
template <int W>
TS_DEVICE void copy_block(uint16_t *shared, const uint16_t *block, uint32_t head_dim, int from, int to)
{
    constexpr uint32_t chunks = W / 8;
    uint32_t lane = threadIdx.x % 32;
    if (head_dim == W && from <= 0 && to >= ATTENTION_BLOCK) { /* most of them: one run */
        const uint4 *run = (const uint4 *)block + lane;
#pragma unroll
        for (uint32_t i = 0; i < W / 16; i++) {
            uint32_t at = place<W>((lane + 32 * i) / chunks, (lane + 32 * i) % chunks);
            if constexpr (32 % chunks == 0) { /* the same chunk of other rows, whose exchanges add up */
                constexpr uint32_t rows = 32 / chunks;
                at = (place<W>(lane / chunks, lane % chunks) ^ exchange<W>(i * rows) * 8) + i * rows * W;
            }
            kernel_copy_async(shared + at, run + 32 * i, true);
        }
        return;
    }
#pragma unroll 1
    for (uint32_t at = lane; at < 2 * W; at += 32) {
        uint32_t row = at / chunks, chunk = at % chunks;
        copy_chunk<W>(shared + place<W>(row, chunk), block + row * head_dim, chunk, head_dim,
                      (int)row >= from && (int)row < to);
    }
}

/* Of K (0) or V (1), in elements. */
TS_DEVICE uint64_t block_place(const attention_args &args, uint32_t id, uint32_t kv, uint32_t kv_head)
{
    return (((uint64_t)id * 2 + kv) * args.kv_heads + kv_head) * (ATTENTION_BLOCK * args.head_dim);
}

/* --- a warp's slabs ------------------------------------------------------------------------------------- */

/* out[.][n], best[.][h], sum[.][h]: columns 8 n .. 8 n + 7, rows lane / 4 + 8 h. `sum` is of the lane's own
 * columns until it is asked for. */
template <int W, int slabs> struct sums {
    float out[slabs][W / 8][4];
    float best[slabs][2], sum[slabs][2];
};

template <int W, int slabs> TS_DEVICE void begin_sums(sums<W, slabs> &s)
{
#pragma unroll
    for (int m = 0; m < slabs; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s.best[m][h] = LOWEST;
            s.sum[m][h] = 0;
        }
#pragma unroll
        for (int i = 0; i < W / 2; i++)
            s.out[m][i / 4][i % 4] = 0;
    }
}

/* With two slabs, registers are too precious to keep in them where the thread's chunks lie. */
template <int slabs> TS_DEVICE uint32_t anew(uint32_t value)
{
    return slabs > 1 ? kernel_anew(value) : value;
}

/* score[m][n]: queries of slab m with keys 8 n .. 8 n + 7. */
template <int W, int slabs, int keys, bool bf16>
TS_DEVICE void multiply_keys(float score[slabs][keys / 8][4], const uint16_t *query, const uint16_t *key)
{
    uint32_t lane = anew<slabs>(threadIdx.x % 32), row = lane % 8, matrix = lane / 8;
    uint32_t of_query = place<W>(matrix % 2 * 8 + row, matrix / 2),
             of_key = place<W>(matrix / 2 * 8 + row, matrix % 2);
#pragma unroll
    for (int i = 0; i < slabs * keys / 2; i++)
        score[i / (keys / 2)][i / 4 % (keys / 8)][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < W / 16; k++) {
        uint32_t a[slabs][4];
#pragma unroll
        for (int m = 0; m < slabs; m++)
            kernel_load_matrices(a[m], query + m * 16 * W + behind<W>(of_query, 2 * k));
#pragma unroll
        for (int n = 0; n < keys / 16; n++) {
            uint32_t b[4];
            kernel_load_matrices(b, key + n * 16 * W + behind<W>(of_key, 2 * k));
#pragma unroll
            for (int m = 0; m < slabs; m++) {
                multiply<bf16>(score[m][2 * n], a[m], b);
                multiply<bf16>(score[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

/* The largest value among the four lanes that share a row. */
TS_DEVICE float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(KERNEL_FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(KERNEL_FULL_WARP, x, 2));
}

TS_DEVICE float row_sum(float x)
{
    x += __shfl_xor_sync(KERNEL_FULL_WARP, x, 1);
    return x + __shfl_xor_sync(KERNEL_FULL_WARP, x, 2);
}

/* Scores to weights; what was summed before is scaled to the new maxima, if a lane has one. */
template <int W, int slabs, int keys>
TS_DEVICE void weigh(sums<W, slabs> &s, float score[slabs][keys / 8][4], float scale)
{
    float before[slabs][2];
    bool grown = false;
#pragma unroll
    for (int m = 0; m < slabs; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = score[m][0][2 * h];
#pragma unroll
            for (int i = 1; i < keys / 4; i++)
                most = fmaxf(most, score[m][i / 2][2 * h + i % 2]);
            before[m][h] = s.best[m][h];
            s.best[m][h] = fmaxf(before[m][h], ceilf(row_max(most) * scale));
            grown |= s.best[m][h] > before[m][h];
        }
    }
    if (__any_sync(KERNEL_FULL_WARP, grown)) {
#pragma unroll
        for (int m = 0; m < slabs; m++) {
            float shrink[2] = {kernel_exp2(before[m][0] - s.best[m][0]),
                               kernel_exp2(before[m][1] - s.best[m][1])};
            s.sum[m][0] *= shrink[0];
            s.sum[m][1] *= shrink[1];
#pragma unroll
            for (int i = 0; i < W / 2; i++)
                s.out[m][i / 4][i % 4] *= shrink[i % 4 / 2];
        }
    }
#pragma unroll
    for (int m = 0; m < slabs; m++) {
#pragma unroll
        for (int i = 0; i < keys / 2; i++) {
            float weight = kernel_exp2(kernel_fma(score[m][i / 4][i % 4], scale, -s.best[m][i % 4 / 2]));
            score[m][i / 4][i % 4] = weight;
            s.sum[m][i % 4 / 2] += weight;
        }
    }
}

template <int W, int slabs, int keys, bool bf16>
TS_DEVICE void add_values(sums<W, slabs> &s, float weight[slabs][keys / 8][4], const uint16_t *value)
{
    uint32_t lane = anew<slabs>(threadIdx.x % 32), row = lane % 8, matrix = lane / 8;
    uint32_t of_value = place<W>(matrix % 2 * 8 + row, matrix / 2);
#pragma unroll
    for (int k = 0; k < keys / 16; k++) {
        uint32_t a[slabs][4];
#pragma unroll
        for (int m = 0; m < slabs; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = narrow<bf16>(weight[m][2 * k + i / 2][i % 2 * 2],
                                       weight[m][2 * k + i / 2][i % 2 * 2 + 1]);
        }
#pragma unroll
        for (int n = 0; n < W / 16; n++) {
            uint32_t b[4];
            kernel_load_matrices_trans(b, value + k * 16 * W + behind<W>(of_value, 2 * n));
#pragma unroll
            for (int m = 0; m < slabs; m++) {
                multiply<bf16>(s.out[m][2 * n], a[m], b);
                multiply<bf16>(s.out[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

#endif
