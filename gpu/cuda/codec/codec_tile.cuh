/*
 * What the codec's kernels share: where tiles and slices lie, numbers, the transform and the rotation.
 *
 * Functions are made for head_dim DIM, stretches of STRETCH elements and one type, so that places are
 * constants and most of a tile's work is arithmetic; 0 = as the arguments say. A team of threads has one tile
 * at a time, and goes through it in passes of as many rows as its threads can have. With a constant head_dim
 * the team of a small launch has as many threads as the tile has slices, and is a block; that of a large one
 * is a warp, which works out once for all of its passes where the tile lies. Else it is a block.
 */
#ifndef TS_GPU_CUDA_CODEC_CODEC_TILE_CUH
#define TS_GPU_CUDA_CODEC_CODEC_TILE_CUH

#include "gpu/cuda/codec/codec_args.h"
#include "gpu/cuda/kernel.cuh"

#define ROWS    16u
#define MAGIC   8388608.0f  /* 2^23: adding it rounds to an integer, to nearest even */
#define MAGIC_U 0x4b000000u /* its bits: the integer stands in the low ones */
#define F16_INF 0x7c00u
#define SPAN    16u /* blocks that share a mean */

/* Of a block of threads. `cells` is for shapes whose lanes do not meet in a warp. */
struct codec_small {
    uint32_t words[CODEC_THREADS_MAX / 32];
    uint32_t last;
};

struct codec_shared : codec_small {
    float cells[CODEC_THREADS_MAX * 16];
};

/* Where a tile lies. */
struct tile {
    uint32_t part, index; /* of the part's tiles: [block][K|V][head] */
    uint32_t kv, head, block;
    uint32_t rows; /* that hold tokens */
    uint32_t raw;  /* of them, that travel in 16 bits */
    uint64_t row;  /* of its side, before it */
    uint8_t *at;   /* in the pool */
    uint8_t *payload;
};

TS_DEVICE uint32_t divide(uint32_t n, const codec_args_divisor &by)
{
    return (uint32_t)((uint64_t)n * by.factor >> by.shift);
}

template <uint32_t DIM> TS_DEVICE uint32_t dim_of(const codec_args &args)
{
    return DIM ? DIM : args.head_dim;
}

template <uint32_t STRETCH> TS_DEVICE uint32_t stretch_of(const codec_args_side &side)
{
    return STRETCH ? STRETCH : side.stretch;
}

TS_DEVICE uint32_t log2_of(uint32_t power)
{
    return 31u - (uint32_t)__clz((int)power);
}

TS_DEVICE tile tile_of(const codec_args &args, uint32_t number)
{
    tile t;
    t.part = divide(number, args.per_part);
    t.index = number - t.part * args.per_part.divisor;
    t.block = divide(t.index, args.per_block);
    uint32_t pair = t.index - t.block * args.per_block.divisor, left = args.tokens - t.block * ROWS;
    t.kv = pair >= args.heads;
    t.head = pair - (t.kv ? args.heads : 0);
    t.rows = left < ROWS ? left : ROWS;
    t.raw = t.block == 0 ? args.sides[t.kv].raw_rows : 0;
    t.row = (uint64_t)t.head * args.tokens + t.block * ROWS;
    uint64_t before = (args.part[t.part].layer_tiles + args.blocks[t.block]) * 2 + t.kv;
    t.at = args.pool + (before * args.pool_heads + args.head_begin + t.head) * ROWS * args.head_dim * 2;
    t.payload = args.part[t.part].payload;
    return t;
}

/* Of a part: bytes of the list of exceptions, filled up. */
TS_DEVICE uint64_t list_bytes(const codec_args &args, uint32_t part)
{
    bool any = args.sides[0].lossless || args.sides[1].lossless;
    return any ? ((uint64_t)args.state[part].exceptions + 15) & ~(uint64_t)15 : 0;
}

/* Where its raw tiles begin. */
TS_DEVICE uint8_t *raw_tiles_at(const codec_args &args, uint32_t part)
{
    return args.part[part].payload + args.tail + list_bytes(args, part);
}

TS_DEVICE uint64_t tile_bytes(const codec_args &args)
{
    return (uint64_t)ROWS * args.head_dim * 2;
}

template <uint32_t DIM> TS_DEVICE uint64_t row_bytes_of(const codec_args &args)
{
    return (uint64_t)dim_of<DIM>(args) * 2;
}

/* A thread's part of a tile. */
struct slice {
    uint32_t row;
    uint32_t low, high; /* elements of the row: where its two runs of 8 begin */
    bool there;         /* of the tile */
    bool active;        /* of a row that holds a token */
};

template <uint32_t DIM> TS_DEVICE uint32_t team_of(const codec_args &args)
{
    return DIM ? args.team : blockDim.x;
}

/* The thread's place in its team. */
template <uint32_t DIM> TS_DEVICE uint32_t member_of(const codec_args &args)
{
    return DIM ? threadIdx.x & (args.team - 1) : threadIdx.x;
}

/* Tiles that a block has at once, the team's one of them. */
template <uint32_t DIM> TS_DEVICE uint32_t teams_of(const codec_args &args)
{
    return DIM ? blockDim.x >> log2_of(args.team) : 1;
}

/* The shuffle tells the compiler that the lanes of a warp have the same. */
template <uint32_t DIM> TS_DEVICE uint32_t first_tile(const codec_args &args)
{
    if (DIM == 0)
        return blockIdx.x;
    uint32_t team = __shfl_sync(KERNEL_FULL_WARP, threadIdx.x >> log2_of(args.team), 0);
    return blockIdx.x * teams_of<DIM>(args) + team;
}

/* From one tile of a team to its next. */
template <uint32_t DIM> TS_DEVICE uint32_t tile_step(const codec_args &args)
{
    return gridDim.x * teams_of<DIM>(args);
}

/* Whether it is so for one of the team. */
template <uint32_t DIM> TS_DEVICE bool any_of_team(const codec_args &args, bool value)
{
    return team_of<DIM>(args) == 32 && DIM ? __any_sync(KERNEL_FULL_WARP, value) : __syncthreads_or(value);
}

/* Rows that a team has at once. */
template <uint32_t DIM> TS_DEVICE uint32_t rows_at_once(const codec_args &args)
{
    return DIM ? args.team / (DIM / 16) : blockDim.x / (args.head_dim / 16);
}

/* The thread's slice when the first row of the pass is `begin`. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE slice slice_of(const codec_args &args, const codec_args_side &side, const tile &t, uint32_t begin)
{
    uint32_t stretch = stretch_of<STRETCH>(side), lane_bits = log2_of(stretch / 16);
    uint32_t per_row = dim_of<DIM>(args) / 16, member = member_of<DIM>(args), row = member / per_row,
             place = member - row * per_row;
    slice s;
    s.row = begin + row;
    s.low = (place >> lane_bits) * stretch + (place & (stretch / 16 - 1)) * 8;
    s.high = s.low + stretch / 2;
    s.there = DIM || (s.row < ROWS && row < rows_at_once<DIM>(args));
    s.active = s.there && s.row < t.rows;
    return s;
}

/* Elements that share parameters. With a constant head_dim they are a stretch. */
template <uint32_t DIM, uint32_t STRETCH> TS_DEVICE uint32_t group_of(const codec_args_side &side)
{
    return DIM ? STRETCH : side.group;
}

/* Offset of the parameters of the slice's group from the first ones of the side. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE uint64_t param_at(const codec_args &args, const codec_args_side &side, const tile &t,
                            const slice &s)
{
    uint32_t group = group_of<DIM, STRETCH>(side);
    return ((t.row + s.row) * (dim_of<DIM>(args) / group) + s.low / group) * 2;
}

/* Of the codes of its lower run, likewise; with 8 bits those of the upper one lie half a stretch behind. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE uint64_t code_at(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s)
{
    uint32_t dim = dim_of<DIM>(args), stretch = stretch_of<STRETCH>(side);
    if (side.bits == 8)
        return (t.row + s.row) * dim + s.low;
    return (t.row + s.row) * (dim / 2) + s.low / stretch * (stretch / 2) + s.low % stretch;
}

/* The first tokens of a sequence, besides. */
TS_DEVICE uint8_t *first_token_at(const codec_args &args, const codec_args_side &side, const tile &t,
                                  uint32_t row)
{
    return t.payload + side.first_tokens + ((uint64_t)t.head * side.raw_rows + row) * args.head_dim * 2;
}

/* --- numbers -------------------------------------------------------------------------------------------- */

/* Of a word the lower half, and the upper. */
template <bool BF16> TS_DEVICE void widen_pair(uint32_t word, float *first, float *second)
{
    if (BF16) {
        *first = kernel_float_of(word << 16);
        *second = kernel_float_of(word & 0xffff0000u);
    } else {
        kernel_widen_f16x2(word, first, second);
    }
}

template <bool BF16> TS_DEVICE void widen_run(uint4 from, float *x)
{
    widen_pair<BF16>(from.x, &x[0], &x[1]);
    widen_pair<BF16>(from.y, &x[2], &x[3]);
    widen_pair<BF16>(from.z, &x[4], &x[5]);
    widen_pair<BF16>(from.w, &x[6], &x[7]);
}

template <bool BF16> TS_DEVICE uint4 narrow_run(const float *x)
{
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] =
            BF16 ? kernel_narrow_bf16x2(x[2 * i], x[2 * i + 1]) : kernel_narrow_f16x2(x[2 * i], x[2 * i + 1]);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* The largest magnitude of 16 elements, as bits; what is not a number is the largest. Those of bf16 are
 * compared as if they were of fp16, whose signs cost nothing: below 2^121 in the same order, and beyond no
 * parameter is finite, so that the tile escapes whatever the bound. */
TS_DEVICE uint32_t magnitude_of(uint4 a, uint4 b)
{
    uint32_t most =
        kernel_magnitudes_f16x2(kernel_magnitudes_f16x2(a.x, a.y), kernel_magnitudes_f16x2(a.z, a.w));
    uint32_t more =
        kernel_magnitudes_f16x2(kernel_magnitudes_f16x2(b.x, b.y), kernel_magnitudes_f16x2(b.z, b.w));
    most = kernel_magnitudes_f16x2(most, more);
    return max(most & 0xffff, most >> 16);
}

/* --- the transform -------------------------------------------------------------------------------------- */

/* The stage whose other element is on the lane `distance` away: a + b on the lower one, a - b on the upper.
 */
TS_DEVICE void stage_across(float *low, float *high, uint32_t distance)
{
    float sign = threadIdx.x & distance ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float other_low = __shfl_xor_sync(KERNEL_FULL_WARP, low[i], (int)distance);
        float other_high = __shfl_xor_sync(KERNEL_FULL_WARP, high[i], (int)distance);
        low[i] = kernel_fma(low[i], sign, other_low);
        high[i] = kernel_fma(high[i], sign, other_high);
    }
}

TS_DEVICE void stages_of_run(float *x)
{
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if ((i & step) == 0) {
                float a = x[i], b = x[i + step];
                x[i] = a + b;
                x[i + step] = a - b;
            }
        }
    }
}

/* All threads of a block take part. Stages go by the bits of the element's place, in order; the factor is
 * another's affair. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE void transform(float *low, float *high, const codec_args_side &side)
{
    /* A constant head_dim is a power of two, over all of which the transform goes. */
    uint32_t stretch_lanes = stretch_of<STRETCH>(side) / 16, lanes = (DIM ? DIM : side.hadamard) / 16;
    stages_of_run(low);
    stages_of_run(high);
#pragma unroll
    for (uint32_t distance = 1; distance < stretch_lanes; distance *= 2)
        stage_across(low, high, distance);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
    }
#pragma unroll
    for (uint32_t distance = stretch_lanes; distance < lanes; distance *= 2)
        stage_across(low, high, distance);
}

/* --- the rotation of keys ------------------------------------------------------------------------------- */

TS_DEVICE float *cells_of(codec_small &)
{
    return nullptr;
}

TS_DEVICE float *cells_of(codec_shared &shared)
{
    return shared.cells;
}

/* Where the run of that element of the row lies in the cells. */
TS_DEVICE uint32_t cell_of(const codec_args &args, const codec_args_side &side, uint32_t element)
{
    uint32_t first = threadIdx.x / (args.head_dim / 16) * (args.head_dim / 16), stretch = side.stretch;
    uint32_t lane = element % (stretch / 2) / 8, high = element % stretch >= stretch / 2;
    return (first + element / stretch * (stretch / 16) + lane) * 16 + high * 8;
}

/* Four elements: a cos - b sin, or with the other sign; each product and sum is rounded, a change of sign is
 * exact. */
TS_DEVICE void turn_four(float *x, const float *partner, uint4 cosines, uint4 sines, float sign)
{
    const uint32_t c[4] = {cosines.x, cosines.y, cosines.z, cosines.w};
    const uint32_t s[4] = {sines.x, sines.y, sines.z, sines.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = kernel_fma(partner[i] * kernel_float_of(s[i]), sign, x[i] * kernel_float_of(c[i]));
}

/* Eight elements from `element` on: a cos - b sin in the lower half of a row, b cos + a sin in the upper. */
TS_DEVICE void turn_run(float *x, const float *partner, const float *turns, uint32_t element, uint32_t half,
                        float direction)
{
    bool upper = element >= half;
    const uint4 *cosines = (const uint4 *)(turns + (upper ? element - half : element));
    const uint4 *sines = (const uint4 *)(turns + (upper ? element : element + half));
    float sign = upper ? direction : -direction;
    turn_four(x, partner, cosines[0], sines[0], sign);
    turn_four(x + 4, partner + 4, cosines[1], sines[1], sign);
}

/* Both runs of a slice, whose partners are given. */
TS_DEVICE void turn_slice(const codec_args &args, const tile &t, const slice &s, float *low, float *high,
                          const float *low_partner, const float *high_partner, float direction)
{
    uint32_t half = args.head_dim / 2, token = t.block % SPAN * ROWS + s.row % ROWS;
    const float *turns = args.turns + (uint64_t)token * 2 * half;
    turn_run(low, low_partner, turns, s.low, half, direction);
    turn_run(high, high_partner, turns, s.high, half, direction);
}

/* Through shared memory, whatever the shape. */
TS_DEVICE void turn_by_cells(const codec_args &args, const codec_args_side &side, const tile &t,
                             const slice &s, float *cells, float *low, float *high, float direction)
{
    uint32_t half = args.head_dim / 2;
    uint32_t low_cell = cell_of(args, side, s.low < half ? s.low + half : s.low - half);
    uint32_t high_cell = cell_of(args, side, s.high < half ? s.high + half : s.high - half);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        cells[threadIdx.x * 16 + i] = low[i];
        cells[threadIdx.x * 16 + 8 + i] = high[i];
    }
    __syncthreads();
    if (s.there)
        turn_slice(args, t, s, low, high, cells + low_cell, cells + high_cell, direction);
    __syncthreads();
}

/* With a constant head_dim an element's partner, which lies half a row away, is in the same thread or in the
 * other one of two stretches. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE void turn_by_lanes(const codec_args &args, const tile &t, const slice &s, float *low, float *high,
                             float direction)
{
    float low_partner[8], high_partner[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (DIM == STRETCH) {
            low_partner[i] = high[i];
            high_partner[i] = low[i];
        } else {
            low_partner[i] = __shfl_xor_sync(KERNEL_FULL_WARP, low[i], (int)(DIM / 32));
            high_partner[i] = __shfl_xor_sync(KERNEL_FULL_WARP, high[i], (int)(DIM / 32));
        }
    }
    turn_slice(args, t, s, low, high, low_partner, high_partner, direction);
}

/* By the position of the row, `direction` 1, or back, -1. All threads of a block take part. */
template <uint32_t DIM, uint32_t STRETCH, class SHARED>
TS_DEVICE void turn(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s,
                    SHARED &shared, float *low, float *high, float direction)
{
    if (!args.turns)
        return;
    if constexpr (DIM == 0)
        turn_by_cells(args, side, t, s, cells_of(shared), low, high, direction);
    else
        turn_by_lanes<DIM, STRETCH>(args, t, s, low, high, direction);
}

/* Of the tile's head and span; eight of its channels. */
TS_DEVICE void mean_run(const codec_args &args, const tile &t, uint32_t element, float *mean)
{
    uint64_t at = ((uint64_t)t.head * args.spans + t.block / SPAN) * args.head_dim + element;
    widen_run<false>(*(const uint4 *)(t.payload + args.means + at * 2), mean);
}

#endif
