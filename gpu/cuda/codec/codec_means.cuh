/*
 * The means of centred keys, before they are encoded: a block of threads for each head and span of 256
 * tokens. A thread has four pairs of channels (i, i + head_dim / 2) in the 16 rows of one tile: it asks for
 * all of them at once, 256 bytes, a block of head_dim 128 thus for its 64 KiB, which wait for the block table
 * alone. Beside them come the rotations into shared memory, of the 16 rows of a tile and of the 16 tiles of a
 * span, 16 KiB instead of the 128 KiB of all rows. Sums of tiles meet in shared memory, where the tiles that
 * escape are left out.
 *
 * Wider rows go in pieces of 64 pairs. Their tiles are known to escape when all pieces have been looked at:
 * if one does, they are summed once more.
 *
 * Floor: 2 bytes read for each element of keys; what is read stays in the second cache for the encoding. With
 * head_dim 128 a thread has 36 loads under way beside each other (33 in a row before), and about 145
 * instructions for 16 elements (sm_90). An H100 took about 40 us for 1 MiB of keys and values when tokens
 * were summed one after the other, 3 us each for 16 of them in a launch. Estimated, not measured: 3 us, and
 * 0.3.
 */
#ifndef TS_GPU_CUDA_CODEC_CODEC_MEANS_CUH
#define TS_GPU_CUDA_CODEC_CODEC_MEANS_CUH

#include "gpu/cuda/codec/codec_tile.cuh"
#include "gpu/cuda/kernel_numbers.cuh"

#define MEANS_PAIRS (CODEC_MEANS_LANES * 4)

struct codec_means {
    uint32_t lost;                                 /* tiles that escape, a bit each */
    alignas(16) float rows[ROWS][2][MEANS_PAIRS];  /* cosines and sines of a tile's rows */
    alignas(16) float tiles[SPAN][2][MEANS_PAIRS]; /* of the span's tiles */
    alignas(16) float sums[SPAN][2][MEANS_PAIRS];
};

/* What a block of threads has: of its span the pairs from `begin` to `end`. */
struct span_piece {
    uint32_t part, head, span;
    uint32_t first; /* tile, as a number of the launch; the next ones lie `step` apart */
    uint32_t step, tiles, rows, raw;
    uint32_t begin, end;
};

TS_DEVICE span_piece span_of(const codec_args &args)
{
    span_piece s;
    uint32_t spans = blockIdx.x / args.heads;
    s.head = blockIdx.x - spans * args.heads;
    s.part = spans / args.spans;
    s.span = spans - s.part * args.spans;
    uint32_t left = args.block_count - s.span * SPAN, tokens = args.tokens - s.span * SPAN * ROWS;
    s.step = 2 * args.heads;
    s.first = s.part * args.tiles + s.span * SPAN * s.step + s.head;
    s.tiles = left < SPAN ? left : SPAN;
    s.rows = tokens < SPAN * ROWS ? tokens : SPAN * ROWS;
    s.raw = s.span == 0 ? args.sides[0].raw_rows : 0;
    s.begin = s.end = 0;
    return s;
}

/* Four cosines and sines of a position of the span; without a rotation those of none. */
TS_DEVICE void load_turns(const codec_args &args, uint32_t position, uint32_t pair, uint4 *cosines,
                          uint4 *sines)
{
    const uint32_t half = args.head_dim / 2, one = kernel_bits_of(1);
    *cosines = make_uint4(one, one, one, one);
    *sines = make_uint4(0, 0, 0, 0);
    if (args.turns) {
        const float *from = args.turns + (uint64_t)position * 2 * half + pair;
        *cosines = *(const uint4 *)from;
        *sines = *(const uint4 *)(from + half);
    }
}

/* Four pairs turned back, added to what is there; each product and sum is rounded. */
TS_DEVICE void add_turned(const float *a, const float *b, uint4 cosines, uint4 sines, float *sum_a,
                          float *sum_b)
{
    const uint32_t c[4] = {cosines.x, cosines.y, cosines.z, cosines.w};
    const uint32_t s[4] = {sines.x, sines.y, sines.z, sines.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float cosine = kernel_float_of(c[i]), sine = kernel_float_of(s[i]);
        sum_a[i] += a[i] * cosine + b[i] * sine;
        sum_b[i] += b[i] * cosine - a[i] * sine;
    }
}

/* The sums of a tile's rows, in their order, four pairs a thread. The bound of centred keys is a number of
 * fp16 in either type, so that magnitudes may be compared as those of fp16. Rows that count are those that
 * hold tokens which do not travel in 16 bits. There are as many tiles in a span as rows in a tile: each
 * thread brings its pairs' rotations of one row and one tile for all. */
template <bool BF16>
TS_DEVICE void sum_tiles(const codec_args &args, const span_piece &s, codec_means &shared)
{
    uint32_t lanes = blockDim.x / SPAN, number = threadIdx.x / lanes,
             place = (threadIdx.x - number * lanes) * 4, half = args.head_dim / 2, most = 0;
    bool there = s.begin + place < s.end, active = there && number < s.tiles;
    tile t = tile_of(args, s.first + (number < s.tiles ? number : 0) * s.step);
    uint2 low[ROWS], high[ROWS];
    uint4 of_row[2], of_tile[2];
    if (there) {
        load_turns(args, number, s.begin + place, &of_row[0], &of_row[1]);
        load_turns(args, number * ROWS, s.begin + place, &of_tile[0], &of_tile[1]);
    }
    const uint8_t *at = t.at + (s.begin + place) * 2;
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row++, at += half * 4) {
        low[row] = high[row] = make_uint2(0, 0);
        if (active && row >= t.raw && row < t.rows) {
            low[row] = *(const uint2 *)at;
            high[row] = *(const uint2 *)(at + half * 2);
        }
    }
    if (there) {
        for (uint32_t kind = 0; kind < 2; kind++) {
            *(uint4 *)&shared.rows[number][kind][place] = of_row[kind];
            *(uint4 *)&shared.tiles[number][kind][place] = of_tile[kind];
        }
    }
    __syncthreads();
    float sums[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row++) {
        float a[4], b[4];
        most = kernel_magnitudes_f16x2(most, kernel_magnitudes_f16x2(low[row].x, low[row].y));
        most = kernel_magnitudes_f16x2(most, kernel_magnitudes_f16x2(high[row].x, high[row].y));
        widen_pair<BF16>(low[row].x, &a[0], &a[1]);
        widen_pair<BF16>(low[row].y, &a[2], &a[3]);
        widen_pair<BF16>(high[row].x, &b[0], &b[1]);
        widen_pair<BF16>(high[row].y, &b[2], &b[3]);
        add_turned(a, b, *(const uint4 *)&shared.rows[row][0][place],
                   *(const uint4 *)&shared.rows[row][1][place], sums[0], sums[1]);
    }
    if (max(most & 0xffff, most >> 16) >= args.sides[0].limit)
        atomicOr(&shared.lost, 1u << number);
    *(uint4 *)&shared.sums[number][0][place] = kernel_pack_floats(sums[0]);
    *(uint4 *)&shared.sums[number][1][place] = kernel_pack_floats(sums[1]);
}

/* Rows of the span that count. */
TS_DEVICE uint32_t rows_counted(const span_piece &s, uint32_t lost)
{
    uint32_t left = ((1u << s.tiles) - 1) & ~lost, rows = (uint32_t)__popc(left) * ROWS;
    rows -= left >> (s.tiles - 1) ? s.tiles * ROWS - s.rows : 0;
    return rows - (left & 1 ? s.raw : 0);
}

/* Of the piece; returns whether one is not finite. */
TS_DEVICE bool write_means(const codec_args &args, const span_piece &s, uint32_t lost,
                           const codec_means &shared, uint16_t *to)
{
    uint32_t pair = threadIdx.x, count = rows_counted(s, lost);
    float sum_a = 0, sum_b = 0, share = count ? 1.0f / (float)count : 0;
    if (pair >= s.end - s.begin)
        return false;
#pragma unroll
    for (uint32_t i = 0; i < SPAN; i++) {
        float a = shared.sums[i][0][pair], b = shared.sums[i][1][pair];
        float cosine = shared.tiles[i][0][pair], sine = shared.tiles[i][1][pair];
        bool counts = i < s.tiles && !(lost >> i & 1);
        sum_a += counts ? a * cosine + b * sine : 0;
        sum_b += counts ? b * cosine - a * sine : 0;
    }
    uint32_t low = kernel_narrow_f16(sum_a * share + 0.0f), high = kernel_narrow_f16(sum_b * share + 0.0f);
    to[s.begin + pair] = (uint16_t)low;
    to[args.head_dim / 2 + s.begin + pair] = (uint16_t)high;
    return (low & 0x7fff) >= F16_INF || (high & 0x7fff) >= F16_INF;
}

/* A mean that is not finite loses the span. */
TS_DEVICE void end_span(const codec_args &args, const span_piece &s, bool lost, uint16_t *to)
{
    for (uint32_t i = threadIdx.x; lost && i < args.head_dim; i += blockDim.x)
        to[i] = 0;
    if (threadIdx.x < s.tiles)
        args.lost[s.first + threadIdx.x * s.step] = lost;
}

template <bool BF16> TS_DEVICE void means(const codec_args &args, codec_means &shared)
{
    span_piece s = span_of(args);
    uint32_t half = args.head_dim / 2, known, lost = 0;
    uint16_t *to = (uint16_t *)(args.part[s.part].payload + args.means) +
                   ((uint64_t)s.head * args.spans + s.span) * args.head_dim;
    bool endless;
    if (threadIdx.x == 0)
        shared.lost = 0;
    do {
        known = lost;
        endless = false;
        for (s.begin = 0; s.begin < half; s.begin = s.end) {
            s.end = min(s.begin + MEANS_PAIRS, half);
            sum_tiles<BF16>(args, s, shared);
            __syncthreads();
            lost = shared.lost;
            endless |= write_means(args, s, lost, shared, to);
            endless = __syncthreads_or(endless);
        }
    } while (half > MEANS_PAIRS && lost != known);
    end_span(args, s, endless, to);
}

#endif
