/*
 * The means of centred keys, before they are encoded: of each head and span of 256 tokens one block of
 * threads, of which each has two channels, those that turn together. Sums go in the order of the tokens, so
 * that they are those of the CPU; the rows of a tile are loaded at once.
 */
#ifndef TS_GPU_CUDA_CODEC_MEANS_CUH
#define TS_GPU_CUDA_CODEC_MEANS_CUH

#include "gpu/cuda/codec_tile.cuh"

/* Sixteen rows of two channels: the first in the lower half of a word. Zeros where no token is to be summed.
 */
TS_DEVICE void load_channels(const codec_args &args, const tile &t, uint32_t channel, uint32_t *words)
{
    const uint16_t *from = (const uint16_t *)t.at + channel;
    uint32_t half = args.head_dim / 2;
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row++) {
        bool there = row >= t.raw && row < t.rows;
        words[row] = 0;
        if (there)
            words[row] = from[row * args.head_dim] | (uint32_t)from[row * args.head_dim + half] << 16;
    }
}

/* Of a tile that does not escape, without the rotation. */
template <bool BF16>
TS_DEVICE void add_channels(const codec_args &args, const tile &t, uint32_t channel, const uint32_t *words,
                            float *first, float *second)
{
    uint32_t half = args.head_dim / 2;
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row++) {
        float a, b, cosine = 1, sine = 0;
        widen_pair<BF16>(words[row], &a, &b);
        if (args.turns) {
            const float *turns = args.turns + (uint64_t)(t.block % SPAN * ROWS + row) * 2 * half + channel;
            cosine = turns[0];
            sine = turns[half];
        }
        bool there = row >= t.raw && row < t.rows;
        *first += there ? a * cosine + b * sine : 0;
        *second += there ? b * cosine - a * sine : 0;
    }
}

/* Sums over the span from `number` on, the first key tile of the head in it. Returns the tokens. */
template <bool BF16>
TS_DEVICE uint32_t sum_span(const codec_args &args, uint32_t number, uint32_t blocks, float *first,
                            float *second)
{
    uint32_t half = args.head_dim / 2, channel = threadIdx.x < half ? threadIdx.x : half - 1, count = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        tile t = tile_of(args, number + i * 2 * args.heads);
        uint32_t words[ROWS], most = 0;
        load_channels(args, t, channel, words);
#pragma unroll
        for (uint32_t row = 0; row < ROWS; row++)
            most = larger_magnitudes<BF16>(most, words[row]);
        if (__syncthreads_or(max(most & 0xffff, most >> 16) >= args.sides[0].limit) || t.rows <= t.raw)
            continue;
        add_channels<BF16>(args, t, channel, words, first, second);
        count += t.rows - t.raw;
    }
    return count;
}

/* A mean that is not finite loses the span. */
template <bool BF16> TS_DEVICE void means(const codec_args &args)
{
    uint32_t span = blockIdx.x % args.spans, head = blockIdx.x / args.spans % args.heads;
    uint32_t part = blockIdx.x / args.spans / args.heads, half = args.head_dim / 2;
    uint32_t left = args.block_count - span * SPAN, blocks = left < SPAN ? left : SPAN;
    uint32_t number = part * args.tiles + span * SPAN * 2 * args.heads + head;
    float first = 0, second = 0;
    uint32_t count = sum_span<BF16>(args, number, blocks, &first, &second);
    float share = count ? 1.0f / (float)count : 0;
    uint32_t first_bits = kernel_narrow_f16(first * share + 0.0f),
             second_bits = kernel_narrow_f16(second * share + 0.0f);
    bool lost = __syncthreads_or((first_bits & 0x7fff) >= F16_INF || (second_bits & 0x7fff) >= F16_INF);
    if (threadIdx.x < half) {
        uint16_t *to = (uint16_t *)(args.part[part].payload + args.means) +
                       ((uint64_t)head * args.spans + span) * args.head_dim + threadIdx.x;
        to[0] = lost ? 0 : (uint16_t)first_bits;
        to[half] = lost ? 0 : (uint16_t)second_bits;
    }
    if (threadIdx.x < blocks)
        args.lost[number + threadIdx.x * 2 * args.heads] = lost;
}

#endif
