/*
 * y = x W^T for few tokens on tensor cores: bound by reading W, which is read once, from memory straight into
 * registers. Weights are the 16-row operand A of mma.m16n8k16, tokens the 8-wide B (kernels.md, 3.5).
 *
 * A thread loads 16 bytes of a weight row at a time; four lanes have 64 bytes of it, a *piece*. That is not
 * the order of A's columns, but a sum has no order of columns as long as A and B agree, and the same loads of
 * the tokens' rows give just that order of B: lane 4 g + t has bytes 16 t .. of row g and of row g + 8, and
 * of token g. The words of 16 bytes are, two by two, the registers of two MMAs (four with int8).
 *
 *     block     16 x row_tiles outputs, all tokens, all of the sum
 *     warp      every `warps`th piece, `ahead` pieces on their way: weights in registers, more than 8 tokens
 *               in shared memory
 *     at last   sums of warps through shared memory, added in the order of warps
 *
 * So a sum's order depends on the number of warps alone: not on tiles, tokens, nor loads ahead. What lies
 * beyond inputs is zero on both sides; rows beyond outputs and tokens beyond m are read as the last one and
 * not stored.
 *
 * On an H100 (de1e5bf), bf16, 8 tokens: 0.76 of the bandwidth of copies for 4096 x 4096, 0.80 for 6144 x
 * 4096, 0.90 for 4096 x 14336, 0.94 for 28672 x 4096. With more tokens each block reads as much of x from the
 * L2 cache as it reads weights: for 32 it is 0.63, 0.68, 0.82 and 0.80, where cuBLASLt has 0.82 to 0.91; for
 * 64 twice as much (r2_t8), 5 TB/s together: 0.52 to 0.62, where it has 0.84 to 0.93.
 *
 * int8 has twice as many tokens for a byte of weights. With conversions to fp32 and to T it took 45, 53 and
 * 120 us for 28672 x 4096 with 1, 8 and 32 tokens. Instructions of the loop for each 512 bytes of a warp's
 * weights, then and now (sm_90): r1_t1 62 and 41, r4_t1 56 and 36, r4_t4 68 and 47, r4_t8 64 now; conversions
 * were 24 of them. While as many bytes come from memory at the rate of copies a processor issues about 160.
 * Estimated, no GPU has measured it: 42 to 46 us with 8 tokens, 65 to 70 with 32 (twice the weights from the
 * L2 cache, at 3.6 TB/s as with bf16), 70 to 85 with 64 and r4_t8 (three times, at 5 TB/s; r2_t8 has five
 * times: 117); bf16 has 84, 87 and 89 by the faster way.
 */
#include "gpu/cuda/products/skinny.cuh"

#define PIECE 64u /* bytes of a weight row */

template <int tiles, int threads> struct skinny_shared {
    float sums[threads / 32][tiles][SKINNY_ROWS * SKINNY_TOKENS];
};

/* What a lane has loaded ahead of tokens, it alone; at last its place is that of the sums. */
template <int tiles, int threads, int slots, int runs> union skinny_ring {
    uint4 tokens[slots][runs][threads];
    skinny_shared<tiles, threads> at_last;
};

/* Which of the bytes are a thread's. */
struct lane_place {
    uint32_t warp, warps; /* its number, and how many */
    uint32_t group, byte; /* lane / 4; of a piece */
    uint32_t row_bytes;
};

template <bool int8> TS_DEVICE lane_place place_of(const skinny_args &args)
{
    lane_place p;
    p.warp = threadIdx.x / 32;
    p.warps = blockDim.x / 32;
    p.group = threadIdx.x % 32 / 4;
    p.byte = threadIdx.x % 4 * 16;
    p.row_bytes = args.inputs * (int8 ? 1 : 2);
    return p;
}

/* Rows g and g + 8 of each tile, at `byte` of the row. */
template <int row_tiles>
TS_DEVICE void load_weights(uint4 *w, const uint8_t *base, const uint32_t *offsets, uint32_t byte,
                            uint32_t row_bytes)
{
#pragma unroll
    for (int i = 0; i < 2 * row_tiles; i++) {
        w[i] = make_uint4(0, 0, 0, 0);
        if (byte < row_bytes)
            w[i] = kernel_load_weights(base + offsets[i] + byte);
    }
}

/* Of one token, the words that go with `byte` of a weight row: 4, or 8 with int8. */
template <bool int8>
TS_DEVICE void load_token(uint32_t *b, const uint8_t *row, uint32_t byte, uint32_t row_bytes)
{
#pragma unroll
    for (int i = 0; i < (int8 ? 2 : 1); i++) {
        uint4 words = make_uint4(0, 0, 0, 0);
        if (byte < row_bytes)
            words = *(const uint4 *)(row + (int8 ? 2 : 1) * byte + i * 16);
        b[4 * i] = words.x;
        b[4 * i + 1] = words.y;
        b[4 * i + 2] = words.z;
        b[4 * i + 3] = words.w;
    }
}

/* One piece of all tiles. */
template <bool bf16, bool int8, int row_tiles, int token_tiles>
TS_DEVICE void multiply_piece(float (*d)[4], const uint4 *w, const uint32_t (*b)[int8 ? 8 : 4])
{
#pragma unroll
    for (int k = 0; k < (int8 ? 4 : 2); k++) {
#pragma unroll
        for (int r = 0; r < row_tiles; r++) {
            uint32_t a[4];
            skinny_operand<bf16, int8>(a, w[2 * r], w[2 * r + 1], k);
#pragma unroll
            for (int n = 0; n < token_tiles; n++)
                skinny_multiply<bf16>(d[r * token_tiles + n], a, b[n] + 2 * k);
        }
    }
}

/* The same words by way of a slot of the ring: on their way, and when they have come. */
template <bool int8, int token_tiles, int threads>
TS_DEVICE void copy_tokens(uint4 (*slot)[threads], const uint8_t *const *tokens, uint32_t byte,
                           uint32_t row_bytes)
{
    constexpr int runs = int8 ? 2 : 1;
#pragma unroll
    for (int i = 0; i < runs * token_tiles; i++)
        kernel_copy_async(&slot[i][threadIdx.x], tokens[i / runs] + runs * byte + i % runs * 16,
                          byte < row_bytes);
    kernel_copy_commit();
}

template <bool int8, int token_tiles, int threads>
TS_DEVICE void take_tokens(uint32_t (*b)[int8 ? 8 : 4], const uint4 (*slot)[threads])
{
    constexpr int runs = int8 ? 2 : 1;
#pragma unroll
    for (int i = 0; i < runs * token_tiles; i++) {
        uint4 words = slot[i][threadIdx.x];
        uint32_t *to = b[i / runs] + i % runs * 4;
        to[0] = words.x;
        to[1] = words.y;
        to[2] = words.z;
        to[3] = words.w;
    }
}

/* --- the end: sums of warps, in their order ------------------------------------------------------------- */

/* Where the sum of row `row` and token `token` of a tile lies in shared memory: as fragments have it. */
TS_DEVICE uint32_t sum_at(uint32_t row, uint32_t token)
{
    return (row % 8 * 4 + token / 2) * 4 + row / 8 * 2 + token % 2;
}

template <int tiles, int threads>
TS_DEVICE float sum_of(const skinny_shared<tiles, threads> &shared, uint32_t tile, uint32_t at)
{
    float sum = 0;
    for (uint32_t warp = 0; warp < blockDim.x / 32; warp++)
        sum += shared.sums[warp][tile][at];
    return sum;
}

/* Element `index` of a tile whose first row and token are given. */
template <bool bf16, bool int8, int tiles, int threads>
TS_DEVICE void finish(const skinny_args &args, const skinny_shared<tiles, threads> &shared, uint32_t tile,
                      uint32_t index, uint32_t first_row, uint32_t first_token)
{
    uint32_t row = index % SKINNY_ROWS, token = index / SKINNY_ROWS, output = first_row + row;
    if (output >= args.outputs || first_token + token >= args.m)
        return;
    float sum = sum_of(shared, tile, sum_at(row, token));
    if (int8)
        sum = skinny_scaled<bf16>(args, output, sum);
    if (args.y_kind != SKINNY_SWIGLU) {
        skinny_store<bf16>(args, first_token + token, output, sum);
    } else if (row < 8) {
        float up = sum_of(shared, tile, sum_at(row + 8, token));
        skinny_store_swiglu<bf16>(args, first_token + token, output, sum,
                                  int8 ? skinny_scaled<bf16>(args, output + 8, up) : up);
    }
}

/* As many tiles at a time as shared memory has room for. */
template <bool bf16, bool int8, int row_tiles, int token_tiles, int tiles, int threads>
TS_DEVICE void finish_all(const skinny_args &args, skinny_shared<tiles, threads> &shared, const float (*d)[4],
                          uint32_t first_row)
{
    const uint32_t elements = SKINNY_ROWS * SKINNY_TOKENS;
#pragma unroll
    for (int begin = 0; begin < row_tiles * token_tiles; begin += tiles) {
        if (begin)
            __syncthreads();
#pragma unroll
        for (int i = 0; i < tiles; i++) {
            uint4 bits = make_uint4(kernel_bits_of(d[begin + i][0]), kernel_bits_of(d[begin + i][1]),
                                    kernel_bits_of(d[begin + i][2]), kernel_bits_of(d[begin + i][3]));
            *(uint4 *)&shared.sums[threadIdx.x / 32][i][threadIdx.x % 32 * 4] = bits;
        }
        __syncthreads();
        for (uint32_t e = threadIdx.x; e < tiles * elements; e += blockDim.x) {
            uint32_t tile = (uint32_t)begin + e / elements;
            finish<bf16, int8>(args, shared, e / elements, e % elements,
                               first_row + tile / token_tiles * SKINNY_ROWS,
                               tile % token_tiles * SKINNY_TOKENS);
        }
    }
}

/* What a thread works on. */
template <int row_tiles, int token_tiles> struct work {
    lane_place place;
    uint32_t first_row;
    const uint8_t *base; /* of the first row */
    uint32_t offsets[2 * row_tiles];
    const uint8_t *tokens[token_tiles];
    uint32_t start, step; /* bytes of a row: the first one, from piece to piece */
};

template <bool int8, int row_tiles, int token_tiles>
TS_DEVICE void begin_work(work<row_tiles, token_tiles> &k, const skinny_args &args, float (*d)[4])
{
    k.place = place_of<int8>(args);
    k.first_row = blockIdx.x * (SKINNY_ROWS * row_tiles);
    k.base = args.w + (uint64_t)k.first_row * k.place.row_bytes;
    k.start = k.place.warp * PIECE + k.place.byte;
    k.step = k.place.warps * PIECE;
#pragma unroll
    for (int i = 0; i < 2 * row_tiles; i++)
        k.offsets[i] = min(i * 8 + k.place.group, args.outputs - 1 - k.first_row) * k.place.row_bytes;
#pragma unroll
    for (int n = 0; n < token_tiles; n++)
        k.tokens[n] = args.x + (uint64_t)min(n * SKINNY_TOKENS + k.place.group, args.m - 1) * args.inputs * 2;
#pragma unroll
    for (int i = 0; i < row_tiles * token_tiles; i++)
        d[i][0] = d[i][1] = d[i][2] = d[i][3] = 0;
}

template <bool bf16, bool int8, int row_tiles, int token_tiles, int ahead, int tiles, int threads>
TS_DEVICE void run(const skinny_args &args, skinny_shared<tiles, threads> &shared)
{
    work<row_tiles, token_tiles> k;
    float d[row_tiles * token_tiles][4];
    uint4 w[ahead][2 * row_tiles];
    begin_work<int8>(k, args, d);
    const uint32_t row_bytes = k.place.row_bytes;
#pragma unroll
    for (int s = 0; s < ahead; s++)
        load_weights<row_tiles>(w[s], k.base, k.offsets, k.start + s * k.step, row_bytes);
    for (uint32_t begin = 0; begin < row_bytes; begin += ahead * k.step) {
#pragma unroll
        for (int s = 0; s < ahead; s++) {
            uint32_t byte = begin + k.start + s * k.step, b[token_tiles][int8 ? 8 : 4];
#pragma unroll
            for (int n = 0; n < token_tiles; n++)
                load_token<int8>(b[n], k.tokens[n], byte, row_bytes);
            multiply_piece<bf16, int8, row_tiles, token_tiles>(d, w[s], b);
            load_weights<row_tiles>(w[s], k.base, k.offsets, byte + ahead * k.step, row_bytes);
        }
    }
    finish_all<bf16, int8, row_tiles, token_tiles>(args, shared, d, k.first_row);
}

/* Tokens come by way of shared memory, so that their way takes no registers: a thread waits for none but what
 * it copied itself. */
template <bool bf16, bool int8, int row_tiles, int token_tiles, int ahead, int tiles, int threads>
TS_DEVICE void run_ring(const skinny_args &args,
                        skinny_ring<tiles, threads, ahead, token_tiles *(int8 ? 2 : 1)> &shared)
{
    work<row_tiles, token_tiles> k;
    float d[row_tiles * token_tiles][4];
    uint4 w[ahead][2 * row_tiles];
    begin_work<int8>(k, args, d);
    const uint32_t row_bytes = k.place.row_bytes;
#pragma unroll
    for (int s = 0; s < ahead; s++) {
        load_weights<row_tiles>(w[s], k.base, k.offsets, k.start + s * k.step, row_bytes);
        copy_tokens<int8, token_tiles>(shared.tokens[s], k.tokens, k.start + s * k.step, row_bytes);
    }
    for (uint32_t begin = 0; begin < row_bytes; begin += ahead * k.step) {
#pragma unroll
        for (int s = 0; s < ahead; s++) {
            uint32_t byte = begin + k.start + s * k.step, b[token_tiles][int8 ? 8 : 4];
            kernel_copy_wait<ahead - 1>();
            take_tokens<int8, token_tiles>(b, shared.tokens[s]);
            multiply_piece<bf16, int8, row_tiles, token_tiles>(d, w[s], b);
            load_weights<row_tiles>(w[s], k.base, k.offsets, byte + ahead * k.step, row_bytes);
            copy_tokens<int8, token_tiles>(shared.tokens[s], k.tokens, byte + ahead * k.step, row_bytes);
        }
    }
    kernel_copy_wait<0>();
    __syncthreads();
    finish_all<bf16, int8, row_tiles, token_tiles>(args, shared.at_last, d, k.first_row);
}

/* One piece of all tiles. Tokens are taken as they are needed, and as soon as all weights are operands the
 * next ones are loaded: sums of so many tiles leave no registers for more. */
template <bool bf16, bool int8, int row_tiles, int token_tiles, int threads>
TS_DEVICE void multiply_wide(float (*d)[4], uint4 *w, const uint4 (*slot)[threads],
                             const work<row_tiles, token_tiles> &k, uint32_t next)
{
    constexpr int runs = int8 ? 2 : 1;
#pragma unroll
    for (int run = 0; run < runs; run++) {
        uint32_t a[2 * row_tiles][4];
#pragma unroll
        for (int i = 0; i < 2 * row_tiles; i++)
            skinny_operand<bf16, int8>(a[i], w[2 * (i % row_tiles)], w[2 * (i % row_tiles) + 1],
                                       2 * run + i / row_tiles);
        if (run == runs - 1)
            load_weights<row_tiles>(w, k.base, k.offsets, next, k.place.row_bytes);
#pragma unroll
        for (int n = 0; n < token_tiles; n++) {
            const uint4 words = slot[n * runs + run][threadIdx.x];
            const uint32_t b[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int i = 0; i < 2 * row_tiles; i++)
                skinny_multiply<bf16>(d[i % row_tiles * token_tiles + n], a[i], b + i / row_tiles * 2);
        }
    }
}

template <bool bf16, bool int8, int row_tiles, int token_tiles, int slots, int tiles, int threads>
TS_DEVICE void run_wide(const skinny_args &args,
                        skinny_ring<tiles, threads, slots, token_tiles *(int8 ? 2 : 1)> &shared)
{
    static_assert(slots == 2, "the one in use and the next");
    work<row_tiles, token_tiles> k;
    float d[row_tiles * token_tiles][4];
    uint4 w[2 * row_tiles];
    begin_work<int8>(k, args, d);
    const uint32_t row_bytes = k.place.row_bytes;
    load_weights<row_tiles>(w, k.base, k.offsets, k.start, row_bytes);
    copy_tokens<int8, token_tiles>(shared.tokens[0], k.tokens, k.start, row_bytes);
    uint32_t slot = 0;
#pragma unroll 1
    for (uint32_t byte = k.start; byte - k.start < row_bytes; byte += k.step, slot ^= 1) {
        copy_tokens<int8, token_tiles>(shared.tokens[slot ^ 1], k.tokens, byte + k.step, row_bytes);
        kernel_copy_wait<1>();
        multiply_wide<bf16, int8>(d, w, shared.tokens[slot], k, byte + k.step);
    }
    kernel_copy_wait<0>();
    __syncthreads();
    finish_all<bf16, int8, row_tiles, token_tiles>(args, shared.at_last, d, k.first_row);
}

/* Tiles whose sums are in shared memory at a time: 32 KiB at most. */
constexpr int tiles_at_once(int tiles, int threads)
{
    return tiles * threads <= 2048 ? tiles : 2048 / threads;
}

#define SKINNY_KERNEL(name, bf16, int8, row_tiles, token_tiles, ahead, threads)                              \
    typedef skinny_shared<tiles_at_once(row_tiles *token_tiles, threads), threads> name##_shared;            \
    TS_KERNEL(name, threads, skinny_args)                                                                    \
    {                                                                                                        \
        TS_SHARED(name##_shared, shared);                                                                    \
        run<bf16, int8, row_tiles, token_tiles, ahead>(args, shared);                                        \
    }
SKINNY_MMA(SKINNY_KERNEL)

#define SKINNY_RING_BY(run, name, bf16, int8, row_tiles, token_tiles, ahead, threads)                        \
    typedef skinny_ring<tiles_at_once(row_tiles *token_tiles, threads), threads, ahead,                      \
                        token_tiles *(int8 ? 2 : 1)>                                                         \
        name##_shared;                                                                                       \
    static_assert(sizeof(name##_shared) <= SKINNY_SUMS_BYTES ||                                              \
                      sizeof(name##_shared) == SKINNY_RING_BYTES(int8, token_tiles, ahead, threads),         \
                  "what the launch gives");                                                                  \
    TS_KERNEL(name, threads, skinny_args)                                                                    \
    {                                                                                                        \
        TS_SHARED_LARGE(name##_shared, shared);                                                              \
        run<bf16, int8, row_tiles, token_tiles, ahead>(args, shared);                                        \
    }
#define SKINNY_RING_KERNEL(name, ...) SKINNY_RING_BY(run_ring, name, __VA_ARGS__)
SKINNY_RING(SKINNY_RING_KERNEL)
#define SKINNY_WIDE_KERNEL(name, ...) SKINNY_RING_BY(run_wide, name, __VA_ARGS__)
SKINNY_WIDE(SKINNY_WIDE_KERNEL)
