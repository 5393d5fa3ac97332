/*
 * Attention of rows of one token, over the paged pool (kernels.md, 3.3). A block of threads has one span of a
 * row's keys and one KV head; the query heads that share it are the 16 rows of an mma (more of them take
 * several blocks), idle ones are free: it is memory that bounds. Each warp has every fourth block of the
 * pool, two of them under way or in hand, and its own sums; no warp waits for another before the end, where
 * their sums meet in shared memory.
 *
 * A row of one span is done then. Of a longer row each span leaves its sums in the workspace, and the block
 * that comes last, found by a ticket, adds them in the order of the spans: whoever is last, the bits are the
 * same.
 */
#include "gpu/cuda/attention/attention.cuh"

/* Spans that are added at a time, a divisor of ATTENTION_SPANS_MAX: kernels of narrow rows have fewer
 * registers. */
#define COMBINED(W) ((W) < 64 ? 4u : (W) < 128 ? 8u : 16u)
#define SUM_STEP(W) ((W) + 8) /* fp32 elements: 8 rows of a column lie in different banks */

template <int W> struct decode_shared {
    uint16_t query[ATTENTION_SLAB * W];
    /* K and V; then the warp's sums, fp32 [16][SUM_STEP]; then factors, fp32 [16][ATTENTION_SPANS_MAX] */
    uint16_t block[ATTENTION_SPAN_WARPS(W)][ATTENTION_STAGES][2][ATTENTION_BLOCK * W];
    float best[ATTENTION_SPAN_WARPS(W)][ATTENTION_SLAB], sum[ATTENTION_SPAN_WARPS(W)][ATTENTION_SLAB];
    uint32_t last, unused[3];
};

/* A block of threads' part of the batch. */
struct part {
    attention_span span;
    uint32_t index; /* of the span */
    uint32_t from;  /* first key: of the span and of the window */
    uint32_t kv_head;
    uint32_t head, heads; /* query heads, of all that the device has */
    uint32_t ticket;
};

TS_DEVICE part part_of(const attention_args &args)
{
    const attention_span *spans = (const attention_span *)(args.plan + 1);
    uint32_t per_span = args.kv_heads * args.slabs, of_span = blockIdx.x % per_span;
    part p;
    p.index = blockIdx.x / per_span;
    p.span = spans[p.index];
    uint32_t hidden = args.window && p.span.length > args.window ? p.span.length - args.window : 0;
    p.from = max(p.span.begin, hidden);
    p.kv_head = of_span / args.slabs;
    uint32_t before = of_span % args.slabs * ATTENTION_SLAB;
    p.head = p.kv_head * args.group + before;
    p.heads = min(args.group - before, ATTENTION_SLAB);
    p.ticket = p.span.row * per_span + of_span;
    return p;
}

template <int W>
TS_DEVICE void copy_query(const attention_args &args, const part &p, decode_shared<W> &shared)
{
    const uint16_t *q =
        args.q + ((uint64_t)p.span.token * args.kv_heads * args.group + p.head) * args.head_dim;
    for (uint32_t at = threadIdx.x; at < ATTENTION_SLAB * W / 8; at += blockDim.x) {
        uint32_t row = at / (W / 8), chunk = at % (W / 8);
        bool valid = row < p.heads;
        copy_chunk<W>(shared.query + place<W>(row, chunk), q + (valid ? row * args.head_dim : 0), chunk,
                      args.head_dim, valid);
    }
}

/* Number in the pool of the warp's block, a block of the row; asked for ahead. */
TS_DEVICE uint32_t block_id(const attention_args &args, const part &p, uint32_t block)
{
    bool valid = block * ATTENTION_BLOCK < p.span.end;
    return valid ? args.table[(uint64_t)p.span.row * args.table_step + block] : 0;
}

template <int W>
TS_DEVICE void copy_keys(const attention_args &args, const part &p, uint16_t shared[2][ATTENTION_BLOCK * W],
                         uint32_t block, uint32_t id)
{
    int first = (int)(block * ATTENTION_BLOCK);
    if (first < (int)p.span.end) {
#pragma unroll
        for (uint32_t kv = 0; kv < 2; kv++)
            copy_block<W>(shared[kv], args.pool + block_place(args, id, kv, p.kv_head), args.head_dim,
                          (int)p.from - first, (int)p.span.end - first);
    }
    kernel_copy_commit();
}

TS_DEVICE void mask(float score[1][2][4], uint32_t first, uint32_t from, uint32_t to)
{
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t key = first + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        if (key < from || key >= to)
            score[0][i / 4][i % 4] = minus_infinity();
    }
}

/* The warp's blocks. */
template <int W, bool bf16>
TS_DEVICE void add_span(const attention_args &args, const part &p, decode_shared<W> &shared, sums<W, 1> &s)
{
    constexpr uint32_t warps = ATTENTION_SPAN_WARPS(W);
    uint32_t warp = threadIdx.x / 32, block = p.from / ATTENTION_BLOCK + warp, stage = 0;
    uint32_t id = block_id(args, p, block), next = block_id(args, p, block + warps);
    copy_query(args, p, shared);
    kernel_copy_commit();
    copy_keys<W>(args, p, shared.block[warp][0], block, id);
    copy_keys<W>(args, p, shared.block[warp][1], block + warps, next);
    kernel_copy_wait<2>();
    __syncthreads();
    for (; block * ATTENTION_BLOCK < p.span.end; block += warps, stage ^= 1) {
        uint32_t first = block * ATTENTION_BLOCK;
        float score[1][2][4];
        next = block_id(args, p, block + 2 * warps);
        kernel_copy_wait<1>();
        __syncwarp();
        multiply_keys<W, 1, 16, bf16>(score, shared.query, shared.block[warp][stage][0]);
        if (first < p.from || first + ATTENTION_BLOCK > p.span.end)
            mask(score, first, p.from, p.span.end);
        weigh<W, 1, 16>(s, score, args.scale);
        add_values<W, 1, 16, bf16>(s, score, shared.block[warp][stage][1]);
        __syncwarp();
        copy_keys<W>(args, p, shared.block[warp][stage], block + 2 * warps, next);
    }
}

template <int W> TS_DEVICE float *warp_sums(decode_shared<W> &shared, uint32_t warp)
{
    return (float *)shared.block[warp];
}

/* The warp's sums to its shared memory, whose blocks it has used up. */
template <int W> TS_DEVICE void leave_sums(decode_shared<W> &shared, sums<W, 1> &s)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *to = warp_sums<W>(shared, warp);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t row = h * 8 + lane / 4;
        float sum = row_sum(s.sum[0][h]);
        if (lane % 4 == 0) {
            shared.best[warp][row] = s.best[0][h];
            shared.sum[warp][row] = sum;
        }
#pragma unroll
        for (int n = 0; n < W / 8; n++) {
            float *at = to + row * SUM_STEP(W) + n * 8 + lane % 4 * 2;
            at[0] = s.out[0][n][2 * h];
            at[1] = s.out[0][n][2 * h + 1];
        }
    }
}

/* What the warps' sums are multiplied with to make them one, of exponent `best` and the sum `sum`. */
template <int W> struct meeting {
    float factor[ATTENTION_SPAN_WARPS(W)], best, sum;
};

template <int W> TS_DEVICE meeting<W> meet(const decode_shared<W> &shared, uint32_t row)
{
    meeting<W> m;
    m.best = shared.best[0][row];
    m.sum = 0;
#pragma unroll
    for (int w = 1; w < ATTENTION_SPAN_WARPS(W); w++)
        m.best = fmaxf(m.best, shared.best[w][row]);
#pragma unroll
    for (int w = 0; w < ATTENTION_SPAN_WARPS(W); w++) {
        m.factor[w] = kernel_exp2(shared.best[w][row] - m.best);
        m.sum += m.factor[w] * shared.sum[w][row];
    }
    return m;
}

template <int W> TS_DEVICE float met(decode_shared<W> &shared, const meeting<W> &m, uint32_t at)
{
    float sum = 0;
#pragma unroll
    for (int w = 0; w < ATTENTION_SPAN_WARPS(W); w++)
        sum += m.factor[w] * warp_sums<W>(shared, w)[at];
    return sum;
}

/* Four elements of the batch's result. */
template <bool bf16>
TS_DEVICE void put(const attention_args &args, const part &p, uint32_t row, uint32_t column, const float *x)
{
    uint64_t head = (uint64_t)p.span.token * args.kv_heads * args.group + p.head + row;
    uint32_t *to = (uint32_t *)(args.out + head * args.head_dim + column);
    to[0] = narrow<bf16>(x[0], x[1]);
    to[1] = narrow<bf16>(x[2], x[3]);
}

/* All warps' sums: to the result, or to the workspace. */
template <int W, bool bf16>
TS_DEVICE void finish_span(const attention_args &args, const part &p, decode_shared<W> &shared)
{
    uint64_t first = (uint64_t)p.index * args.kv_heads * args.group + p.head;
    uint32_t quads = args.head_dim / 4;
    for (uint32_t i = threadIdx.x; i < p.heads * quads; i += blockDim.x) {
        uint32_t row = i / quads, column = i % quads * 4;
        meeting<W> m = meet(shared, row);
        float factor = p.span.of == 1 ? 1.0f / m.sum : 1.0f, x[4];
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            x[j] = met<W>(shared, m, row * SUM_STEP(W) + column + j) * factor;
        if (p.span.of == 1) {
            put<bf16>(args, p, row, column, x);
            continue;
        }
        *(uint4 *)(args.partial + (first + row) * args.head_dim + column) = make_uint4(
            kernel_bits_of(x[0]), kernel_bits_of(x[1]), kernel_bits_of(x[2]), kernel_bits_of(x[3]));
        if (column == 0)
            ((uint4 *)args.maxima)[first + row] =
                make_uint4(kernel_bits_of(m.best), kernel_bits_of(m.sum), 0, 0);
    }
}

/* Whether the row's other spans are done. */
template <int W> TS_DEVICE bool is_last(const attention_args &args, const part &p, decode_shared<W> &shared)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.last = atomicAdd(&args.tickets[p.ticket], 1u) == p.span.of - 1;
        if (shared.last)
            args.tickets[p.ticket] = 0;
        __threadfence();
    }
    __syncthreads();
    return shared.last;
}

/* factors[row][span]: with what the spans' sums are multiplied. Each warp has rows of its own. */
TS_DEVICE void weigh_spans(const attention_args &args, const part &p, float *factors)
{
    constexpr int most = ATTENTION_SPANS_MAX / 32; /* of a lane, all asked for at once */
    uint32_t lane = threadIdx.x % 32, step = args.kv_heads * args.group;
    for (uint32_t row = threadIdx.x / 32; row < p.heads; row += blockDim.x / 32) {
        const uint4 *from = (const uint4 *)args.maxima + (uint64_t)p.span.first * step + p.head + row;
        float best = LOWEST, sum = 0;
        uint4 of[most];
#pragma unroll
        for (int i = 0; i < most; i++)
            of[i] = lane + 32 * i < p.span.of ? kernel_load_others(from + (uint64_t)(lane + 32 * i) * step)
                                              : make_uint4(kernel_bits_of(LOWEST), 0, 0, 0);
#pragma unroll
        for (int i = 0; i < most; i++)
            best = fmaxf(best, kernel_float_of(of[i].x));
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            best = fmaxf(best, __shfl_xor_sync(KERNEL_FULL_WARP, best, distance));
#pragma unroll
        for (int i = 0; i < most; i++)
            sum += kernel_exp2(kernel_float_of(of[i].x) - best) * kernel_float_of(of[i].y);
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(KERNEL_FULL_WARP, sum, distance);
#pragma unroll
        for (int i = 0; i < most; i++)
            factors[row * ATTENTION_SPANS_MAX + lane + 32 * i] =
                kernel_exp2(kernel_float_of(of[i].x) - best) / sum;
    }
}

/* Adds several spans at a time, whose sums are asked for together; behind the last one it stands for others,
 * with factors of zero. */
template <int W, bool bf16>
TS_DEVICE void combine(const attention_args &args, const part &p, decode_shared<W> &shared)
{
    constexpr uint32_t together = COMBINED(W);
    float *factors = (float *)shared.block;
    uint64_t step = (uint64_t)args.kv_heads * args.group * args.head_dim;
    uint32_t quads = args.head_dim / 4;
    static_assert(sizeof shared.block >= sizeof(float) * ATTENTION_SLAB * ATTENTION_SPANS_MAX, "factors fit");
    weigh_spans(args, p, factors);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < p.heads * quads; i += blockDim.x) {
        uint32_t row = i / quads, column = i % quads * 4;
        const float *from =
            args.partial + p.span.first * step + (uint64_t)(p.head + row) * args.head_dim + column;
        float x[4] = {0, 0, 0, 0};
        for (uint32_t first = 0; first < p.span.of; first += together) {
            uint4 of[together];
#pragma unroll
            for (uint32_t s = 0; s < together; s++)
                of[s] = kernel_load_others(from + min(first + s, p.span.of - 1) * step);
#pragma unroll
            for (uint32_t s = 0; s < together; s++) {
                float factor = factors[row * ATTENTION_SPANS_MAX + first + s];
                x[0] = kernel_fma(factor, kernel_float_of(of[s].x), x[0]);
                x[1] = kernel_fma(factor, kernel_float_of(of[s].y), x[1]);
                x[2] = kernel_fma(factor, kernel_float_of(of[s].z), x[2]);
                x[3] = kernel_fma(factor, kernel_float_of(of[s].w), x[3]);
            }
        }
        put<bf16>(args, p, row, column, x);
    }
}

template <int W, bool bf16> TS_DEVICE void decode(const attention_args &args, decode_shared<W> &shared)
{
    part p = part_of(args); /* asked for together with what tells whether there is one */
    if (p.index >= args.plan->spans)
        return;
    sums<W, 1> s;
    begin_sums(s);
    add_span<W, bf16>(args, p, shared, s);
    leave_sums(shared, s);
    __syncthreads();
    p = part_of(args); /* anew: it need not be kept in registers for so long */
    finish_span<W, bf16>(args, p, shared);
    if (p.span.of > 1 && is_last(args, p, shared))
        combine<W, bf16>(args, p, shared);
}

#define DECODE(W, type, bf16)                                                                                \
    TS_KERNEL(cuda_decode_##type##_##W, 32 * ATTENTION_SPAN_WARPS(W), attention_args)                        \
    {                                                                                                        \
        static_assert(sizeof(decode_shared<W>) == ATTENTION_DECODE_BYTES(W), "as the launch has it");        \
        TS_SHARED_LARGE(decode_shared<W>, shared);                                                           \
        decode<W, bf16>(args, shared);                                                                       \
    }
#define DECODE_BOTH(W) DECODE(W, f16, false) DECODE(W, bf16, true)

ATTENTION_WIDTHS(DECODE_BOTH)
