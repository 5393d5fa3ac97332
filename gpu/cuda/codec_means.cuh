/*
 * The means of centred keys, before they are encoded: of each head and span of 256 tokens one block of
 * threads. All of them look which tiles escape, then take the rotation back, some rows at a time, in shared
 * memory; there each thread sums up its channels in the order of the tokens, so that means are those of the
 * CPU. What is loaded again lies in the processor's cache.
 */
#ifndef TS_GPU_CUDA_CODEC_MEANS_CUH
#define TS_GPU_CUDA_CODEC_MEANS_CUH

#include "gpu/cuda/codec_tile.cuh"

#define MEANS_CELLS    8192u /* elements in shared memory at a time: whole rows */
#define MEANS_CHANNELS 4u    /* of a thread, at most */

struct codec_means {
    uint32_t lost[SPAN]; /* tiles that escape */
    float cells[MEANS_CELLS];
};

/* The tiles of the block's span. */
struct span_of_tiles {
    uint32_t part, head, span;
    uint32_t first; /* tile, as a number of the launch; the next ones lie `step` apart */
    uint32_t step, tiles, rows;
};

TS_DEVICE span_of_tiles span_of(const codec_args &args)
{
    span_of_tiles s;
    s.span = blockIdx.x % args.spans;
    s.head = blockIdx.x / args.spans % args.heads;
    s.part = blockIdx.x / args.spans / args.heads;
    uint32_t left = args.block_count - s.span * SPAN, tokens = args.tokens - s.span * SPAN * ROWS;
    s.step = 2 * args.heads;
    s.first = s.part * args.tiles + s.span * SPAN * s.step + s.head;
    s.tiles = left < SPAN ? left : SPAN;
    s.rows = tokens < SPAN * ROWS ? tokens : SPAN * ROWS;
    return s;
}

/* Rows that count are those that hold tokens which do not travel in 16 bits. */
template <bool BF16>
TS_DEVICE void find_lost(const codec_args &args, const span_of_tiles &s, codec_means &shared)
{
    if (threadIdx.x < SPAN)
        shared.lost[threadIdx.x] = 0;
    __syncthreads();
#pragma unroll 4
    for (uint32_t i = 0; i < s.tiles; i++) {
        tile t = tile_of(args, s.first + i * s.step);
        uint32_t begin = t.raw * args.head_dim, end = t.rows * args.head_dim, most = 0;
        for (uint32_t at = begin + threadIdx.x * 8; at < end; at += blockDim.x * 8) {
            uint4 run = *(const uint4 *)(t.at + at * 2);
            most = max(most, magnitude_of<BF16>(run, run));
        }
        if (most >= args.sides[0].limit)
            shared.lost[i] = 1;
    }
    __syncthreads();
}

/* Two neighbours of a row and their partners half a row away, without the rotation, into the row's cells. */
template <bool BF16>
TS_DEVICE void take_back(const codec_args &args, const tile &t, uint32_t row, uint32_t element, float *cells)
{
    uint32_t half = args.head_dim / 2;
    const uint8_t *from = t.at + ((uint64_t)row * args.head_dim + element) * 2;
    float a[2], b[2];
    widen_pair<BF16>(*(const uint32_t *)from, &a[0], &a[1]);
    widen_pair<BF16>(*(const uint32_t *)(from + half * 2), &b[0], &b[1]);
    uint64_t turn = (uint64_t)(t.block % SPAN * ROWS + row) * 2 * half + element;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        float cosine = args.turns ? args.turns[turn + i] : 1;
        float sine = args.turns ? args.turns[turn + half + i] : 0;
        cells[element + i] = a[i] * cosine + b[i] * sine;
        cells[half + element + i] = b[i] * cosine - a[i] * sine;
    }
}

/* Of the rows of the span from `begin` on as many as there are cells for; those that do not count are left.
 */
template <bool BF16>
TS_DEVICE void fill_cells(const codec_args &args, const span_of_tiles &s, uint32_t begin, uint32_t end,
                          codec_means &shared)
{
    uint32_t pairs = args.head_dim / 4, at_once = blockDim.x / pairs, row = threadIdx.x / pairs;
    uint32_t element = (threadIdx.x - row * pairs) * 2;
    for (row += begin; row < end; row += at_once) {
        tile t = tile_of(args, s.first + row / ROWS * s.step);
        if (threadIdx.x < at_once * pairs && !shared.lost[row / ROWS] && row % ROWS >= t.raw)
            take_back<BF16>(args, t, row % ROWS, element, shared.cells + (row - begin) * args.head_dim);
    }
}

/* The thread's channels, each from its sum so far. */
TS_DEVICE void add_cells(const codec_args &args, const span_of_tiles &s, uint32_t begin, uint32_t end,
                         uint32_t raw, const codec_means &shared, float *sums)
{
    for (uint32_t row = begin; row < end; row++) {
        if (shared.lost[row / ROWS] || (s.span == 0 && row < raw))
            continue;
#pragma unroll
        for (uint32_t i = 0; i < MEANS_CHANNELS; i++) {
            uint32_t channel = threadIdx.x + i * blockDim.x;
            if (channel < args.head_dim)
                sums[i] += shared.cells[(row - begin) * args.head_dim + channel];
        }
    }
}

/* Rows of the span that count. */
TS_DEVICE uint32_t rows_counted(const codec_args &args, const span_of_tiles &s, const codec_means &shared)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s.tiles; i++) {
        uint32_t raw = s.span == 0 && i == 0 ? args.sides[0].raw_rows : 0, left = s.rows - i * ROWS;
        if (!shared.lost[i])
            count += (left < ROWS ? left : ROWS) - raw;
    }
    return count;
}

/* A mean that is not finite loses the span. */
TS_DEVICE void write_means(const codec_args &args, const span_of_tiles &s, uint32_t count, const float *sums)
{
    float share = count ? 1.0f / (float)count : 0;
    uint32_t bits[MEANS_CHANNELS];
    bool lost = false;
#pragma unroll
    for (uint32_t i = 0; i < MEANS_CHANNELS; i++) {
        bits[i] = kernel_narrow_f16(sums[i] * share + 0.0f);
        lost |= (bits[i] & 0x7fff) >= F16_INF;
    }
    lost = __syncthreads_or(lost);
    uint16_t *to = (uint16_t *)(args.part[s.part].payload + args.means) +
                   ((uint64_t)s.head * args.spans + s.span) * args.head_dim;
#pragma unroll
    for (uint32_t i = 0; i < MEANS_CHANNELS; i++) {
        uint32_t channel = threadIdx.x + i * blockDim.x;
        if (channel < args.head_dim)
            to[channel] = lost ? 0 : (uint16_t)bits[i];
    }
    if (threadIdx.x < s.tiles)
        args.lost[s.first + threadIdx.x * s.step] = lost;
}

template <bool BF16> TS_DEVICE void means(const codec_args &args, codec_means &shared)
{
    span_of_tiles s = span_of(args);
    uint32_t at_once = MEANS_CELLS / args.head_dim;
    float sums[MEANS_CHANNELS] = {0, 0, 0, 0};
    find_lost<BF16>(args, s, shared);
    for (uint32_t begin = 0; begin < s.rows; begin += at_once) {
        uint32_t end = begin + at_once < s.rows ? begin + at_once : s.rows;
        fill_cells<BF16>(args, s, begin, end, shared);
        __syncthreads();
        add_cells(args, s, begin, end, args.sides[0].raw_rows, shared, sums);
        __syncthreads();
    }
    write_means(args, s, rows_counted(args, s, shared), sums);
}

#endif
