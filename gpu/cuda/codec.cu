/*
 * The 4-bit KV codec with minima, with the transform (i4h) and without (i4): from the paged pool to a payload
 * and back, keys and values of a layer in one launch. gpu/codec/README.md has the format and the arithmetic;
 * the bytes are those of the CPU.
 *
 * A block of threads has one tile: 16 rows of head_dim elements. A thread has a slice of 16 elements
 * (codec_args.h) at a time; with head_dim 64 to 256 each thread has exactly one, in registers. The slices of
 * a group, and of a transform, lie on neighbouring lanes: with groups of 64 elements and a transform of 128
 *
 *     bits of the element's place      0 1 2       3 4        5            6
 *     the other element of the stage   register    lane ^1,2  other half   lane ^4
 *
 * Bytes moved for each element: 2 read and 0.5625 written, or the reverse; 16 bytes of the pool and 8 of the
 * codes at a time, neighbouring lanes neighbouring bytes. No device has measured it yet (README.md).
 *
 * What is rare is done by the last block of a launch, found by a ticket: escaped tiles follow each other in
 * the payload, so that where one goes is known only when all have been looked at.
 */
#include "gpu/cuda/codec_args.h"
#include "gpu/cuda/kernel.cuh"

#define ROWS    16u
#define MAGIC   8388608.0f  /* 2^23: adding it rounds to an integer, to nearest even */
#define MAGIC_U 0x4b000000u /* its bits: the integer stands in the low ones */
#define F16_INF 0x7c00u

struct codec_shared {
    uint32_t words[CODEC_THREADS_MAX / 32];
    uint32_t last;
};

/* Where a tile lies. */
struct tile {
    uint32_t kv, head, block;
    uint32_t rows; /* that hold tokens */
    uint32_t raw;  /* of them, that travel in 16 bits */
    uint64_t row;  /* of its side, before it */
    uint8_t *at;   /* in the pool */
};

TS_DEVICE tile tile_of(const codec_args &args, uint32_t index)
{
    tile t;
    uint32_t pair = index % (2 * args.heads), left;
    t.block = index / (2 * args.heads);
    t.kv = pair / args.heads;
    t.head = pair % args.heads;
    left = args.tokens - t.block * ROWS;
    t.rows = left < ROWS ? left : ROWS;
    t.raw = t.block == 0 ? args.raw_rows : 0;
    t.row = (uint64_t)t.head * args.tokens + t.block * ROWS;
    uint64_t before = (args.layer_tiles + args.blocks[t.block]) * 2 + t.kv;
    t.at = args.pool + (before * args.pool_heads + args.head_begin + t.head) * ROWS * args.head_dim * 2;
    return t;
}

/* A thread's part of a tile. */
struct slice {
    uint32_t row;
    uint32_t low, high; /* elements of the row: where its two runs of 8 begin */
    uint64_t param;     /* offset from that of the scales, or of the minima */
    uint64_t code;      /* from that of the codes */
    bool active;        /* of a tile that has as many */
    bool first;         /* of its group: the one that writes the parameters */
};

TS_DEVICE slice slice_of(const codec_args &args, const tile &t, uint32_t index)
{
    const codec_args_side &side = args.sides[t.kv];
    uint32_t per_row = args.head_dim / 16, lanes = side.group / 16;
    uint32_t place = index % per_row, group = place / lanes, lane = place % lanes;
    slice s;
    s.row = index / per_row;
    s.low = group * side.group + lane * 8;
    s.high = s.low + side.group / 2;
    s.param = ((t.row + s.row) * (args.head_dim / side.group) + group) * 2;
    s.code = (t.row + s.row) * (args.head_dim / 2) + group * (side.group / 2) + lane * 8;
    s.active = s.row < t.rows;
    s.first = lane == 0;
    return s;
}

/* --- numbers -------------------------------------------------------------------------------------------- */

TS_DEVICE float widen(uint32_t bits, uint32_t bf16)
{
    return bf16 ? kernel_float_of(bits << 16) : kernel_widen_f16(bits);
}

TS_DEVICE uint32_t narrow(float value, uint32_t bf16)
{
    return bf16 ? kernel_narrow_bf16(value) : kernel_narrow_f16(value);
}

TS_DEVICE bool finite(float value)
{
    return (kernel_bits_of(value) & 0x7f800000u) != 0x7f800000u;
}

TS_DEVICE float power_of_two(int exponent)
{
    return kernel_float_of((uint32_t)(exponent + 127) << 23);
}

TS_DEVICE int log2_of(uint32_t power)
{
    return 31 - __clz((int)power);
}

TS_DEVICE void widen_run(uint4 from, uint32_t bf16, float *x)
{
    const uint32_t words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = widen(words[i] & 0xffff, bf16);
        x[2 * i + 1] = widen(words[i] >> 16, bf16);
    }
}

TS_DEVICE uint4 narrow_run(const float *x, uint32_t bf16)
{
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] =
            bf16 ? kernel_narrow_bf16x2(x[2 * i], x[2 * i + 1]) : kernel_narrow_f16x2(x[2 * i], x[2 * i + 1]);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* The largest magnitude of eight elements, as bits. */
TS_DEVICE uint32_t magnitude_of(uint4 from)
{
    const uint32_t words[4] = {from.x, from.y, from.z, from.w};
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t low = words[i] & 0x7fff, high = words[i] >> 16 & 0x7fff;
        most = max(most, max(low, high));
    }
    return most;
}

/* --- the transform -------------------------------------------------------------------------------------- */

/* The stage whose other element is on the lane `distance` away: a + b on the lower one, a - b on the upper.
 */
TS_DEVICE void stage_across(float *low, float *high, uint32_t distance)
{
    uint32_t sign = threadIdx.x & distance ? 0x80000000u : 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float other_low = __shfl_xor_sync(KERNEL_FULL_WARP, low[i], (int)distance);
        float other_high = __shfl_xor_sync(KERNEL_FULL_WARP, high[i], (int)distance);
        low[i] = other_low + kernel_float_of(kernel_bits_of(low[i]) ^ sign);
        high[i] = other_high + kernel_float_of(kernel_bits_of(high[i]) ^ sign);
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

/* All threads of a block take part. Stages go by the bits of the element's place, in order. */
TS_DEVICE void transform(float *low, float *high, const codec_args_side &side, float factor)
{
    uint32_t group_lanes = side.group / 16, lanes = side.hadamard / 16;
    stages_of_run(low);
    stages_of_run(high);
    for (uint32_t distance = 1; distance < group_lanes; distance *= 2)
        stage_across(low, high, distance);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
    }
    for (uint32_t distance = group_lanes; distance < lanes; distance *= 2)
        stage_across(low, high, distance);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        low[i] *= factor;
        high[i] *= factor;
    }
}

/* --- encoding ------------------------------------------------------------------------------------------- */

/* Elements as they lie; zeros where there is no token, or one that travels in 16 bits. */
TS_DEVICE void load_slice(const codec_args &args, const tile &t, const slice &s, uint4 *low, uint4 *high)
{
    *low = *high = make_uint4(0, 0, 0, 0);
    if (s.active && s.row >= t.raw) {
        const uint8_t *row = t.at + (uint64_t)s.row * args.head_dim * 2;
        *low = kernel_load_once(row + s.low * 2);
        *high = kernel_load_once(row + s.high * 2);
    }
}

struct group {
    float zero, inverse;
    uint32_t scale_bits, zero_bits;
    bool fits;
};

/* The parameters of the group that the lanes share. */
TS_DEVICE group group_of(const codec_args &args, const codec_args_side &side, const float *low,
                         const float *high)
{
    float least = low[0], most = low[0];
    group g;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        least = fminf(least, fminf(low[i], high[i]));
        most = fmaxf(most, fmaxf(low[i], high[i]));
    }
    for (uint32_t distance = 1; distance < side.group / 16; distance *= 2) {
        least = fminf(least, __shfl_xor_sync(KERNEL_FULL_WARP, least, (int)distance));
        most = fmaxf(most, __shfl_xor_sync(KERNEL_FULL_WARP, most, (int)distance));
    }
    g.zero_bits = kernel_narrow_f16(least + 0.0f); /* -0 and +0 are one */
    g.zero = kernel_widen_f16(g.zero_bits);
    float range = most + 0.0f - g.zero;
    g.scale_bits = kernel_narrow_f16((range > 0 ? range : 0) / 15.0f);
    float step = kernel_widen_f16(g.scale_bits), top = g.zero + 15.0f * step;
    g.inverse = step == 0 ? 0 : 1.0f / step;
    g.fits = finite(g.zero) && finite(step) && finite(widen(narrow(g.zero, args.bf16), args.bf16)) &&
             finite(widen(narrow(top, args.bf16), args.bf16));
    return g;
}

TS_DEVICE uint32_t code_of(const group &g, float x)
{
    return kernel_bits_of(fminf(fmaxf((x - g.zero) * g.inverse, 0.0f), 15.0f) + MAGIC) & 15;
}

TS_DEVICE uint2 codes_of(const group &g, const float *low, const float *high)
{
    uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++)
        words[i / 4] |= (code_of(g, low[i]) | code_of(g, high[i]) << 4) << i % 4 * 8;
    return make_uint2(words[0], words[1]);
}

TS_DEVICE void store_slice(const codec_args &args, const codec_args_side &side, const slice &s, uint2 codes,
                           uint32_t scale, uint32_t zero)
{
    if (!s.active)
        return;
    *(uint2 *)(args.payload + side.codes + s.code) = codes;
    if (s.first) {
        *(uint16_t *)(args.payload + side.scales + s.param) = (uint16_t)scale;
        *(uint16_t *)(args.payload + side.minima + s.param) = (uint16_t)zero;
    }
}

/* Returns whether the tile must escape. */
TS_DEVICE bool encode_slice(const codec_args &args, const tile &t, const slice &s)
{
    const codec_args_side &side = args.sides[t.kv];
    float low[8], high[8];
    uint4 low_bits, high_bits;
    load_slice(args, t, s, &low_bits, &high_bits);
    widen_run(low_bits, args.bf16, low);
    widen_run(high_bits, args.bf16, high);
    if (side.hadamard)
        transform(low, high, side, power_of_two(-(log2_of(side.hadamard) / 2)));
    group g = group_of(args, side, low, high);
    store_slice(args, side, s, codes_of(g, low, high), g.scale_bits, g.zero_bits);
    return max(magnitude_of(low_bits), magnitude_of(high_bits)) >= side.limit || !g.fits;
}

/* The first tokens of a sequence, besides. */
TS_DEVICE uint8_t *first_token_at(const codec_args &args, const tile &t, const slice &s)
{
    uint64_t row = ((uint64_t)t.kv * args.heads + t.head) * args.raw_rows + s.row;
    return args.payload + args.first_tokens + row * args.head_dim * 2;
}

TS_DEVICE void copy_first_token(const codec_args &args, const tile &t, const slice &s)
{
    const uint8_t *from = t.at + (uint64_t)s.row * args.head_dim * 2;
    uint8_t *to = first_token_at(args, t, s);
    if (s.row >= t.raw)
        return;
    *(uint4 *)(to + s.low * 2) = *(const uint4 *)(from + s.low * 2);
    *(uint4 *)(to + s.high * 2) = *(const uint4 *)(from + s.high * 2);
}

TS_DEVICE void encode_tile(const codec_args &args, const tile &t, uint32_t index)
{
    bool lost = false;
    for (uint32_t at = threadIdx.x; at - threadIdx.x < args.head_dim; at += blockDim.x) {
        slice s = slice_of(args, t, at);
        lost |= encode_slice(args, t, s);
        copy_first_token(args, t, s);
    }
    lost = __syncthreads_or(lost);
    for (uint32_t at = threadIdx.x; lost && at < args.head_dim; at += blockDim.x)
        store_slice(args, args.sides[t.kv], slice_of(args, t, at), make_uint2(0, 0), 0, 0);
    if (threadIdx.x == 0)
        args.lost[index] = lost;
}

/* --- the last block of a launch ------------------------------------------------------------------------- */

/* Whether this block is the last one to come here: then it sees what all of them wrote. */
TS_DEVICE bool is_last(codec_state *state, codec_shared &shared)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        shared.last = atomicAdd(&state->ticket, 1u) == gridDim.x - 1;
    __syncthreads();
    __threadfence();
    return shared.last != 0;
}

TS_DEVICE void copy_lost_tile(const codec_args &args, uint32_t index, uint32_t rank)
{
    tile t = tile_of(args, index);
    uint8_t *to = args.payload + args.tail + (uint64_t)rank * ROWS * args.head_dim * 2;
    for (uint32_t at = threadIdx.x; at < args.head_dim; at += blockDim.x) {
        slice s = slice_of(args, t, at);
        uint4 low, high;
        load_slice(args, t, s, &low, &high);
        kernel_store_once(to + ((uint64_t)s.row * args.head_dim + s.low) * 2, low);
        kernel_store_once(to + ((uint64_t)s.row * args.head_dim + s.high) * 2, high);
    }
}

/* In the order of the pool; returns their number. */
TS_DEVICE uint32_t copy_lost_tiles(const codec_args &args, codec_shared &shared)
{
    uint32_t rank = 0;
    for (uint32_t begin = 0; begin < args.tiles; begin += blockDim.x) {
        uint32_t index = begin + threadIdx.x;
        bool lost = index < args.tiles && kernel_load_shared_byte(args.lost + index);
        uint32_t bits = __ballot_sync(KERNEL_FULL_WARP, lost);
        if (threadIdx.x % 32 == 0)
            shared.words[threadIdx.x / 32] = bits;
        __syncthreads();
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) {
            for (uint32_t left = shared.words[warp]; left; left &= left - 1)
                copy_lost_tile(args, begin + warp * 32 + (uint32_t)__ffs((int)left) - 1, rank++);
        }
        __syncthreads();
    }
    return rank;
}

/* The tile of a bit of the bitmap, whose order is [K|V][head][block], as a number of the grid. */
TS_DEVICE uint32_t grid_index_of(const codec_args &args, uint32_t bit)
{
    return bit % args.block_count * 2 * args.heads + bit / args.block_count;
}

TS_DEVICE void write_bitmap(const codec_args &args)
{
    for (uint32_t byte = threadIdx.x; byte < args.bitmap_bytes; byte += blockDim.x) {
        uint32_t bits = 0;
        for (uint32_t i = 0; i < 8 && byte * 8 + i < args.tiles; i++)
            bits |= kernel_load_shared_byte(args.lost + grid_index_of(args, byte * 8 + i)) << i;
        args.payload[byte] = (uint8_t)bits;
    }
}

/* Where the sections of scales, minima and codes of both sides end: six, filled up to 16 bytes with zeros. */
TS_DEVICE uint64_t section_end(const codec_args &args, uint32_t section)
{
    const codec_args_side &side = args.sides[section & 1];
    uint64_t rows = (uint64_t)args.heads * args.tokens, groups = rows * (args.head_dim / side.group);
    if (section / 2 == 0)
        return side.scales + groups * 2;
    return section / 2 == 1 ? side.minima + groups * 2 : side.codes + rows * (args.head_dim / 2);
}

/* The padding byte that `index` names, or NULL: six times 16 are looked at. */
TS_DEVICE uint8_t *padding_at(const codec_args &args, uint32_t index)
{
    uint64_t end = section_end(args, index / 16), at = end + index % 16;
    return at < ((end + 15) & ~(uint64_t)15) ? args.payload + at : nullptr;
}

TS_DEVICE void clear_padding(const codec_args &args)
{
    for (uint32_t i = threadIdx.x; i < 6 * 16; i += blockDim.x) {
        uint8_t *at = padding_at(args, i);
        if (at)
            *at = 0;
    }
}

/* Leaves the answer; the ticket begins anew. */
TS_DEVICE void leave(codec_state *state, uint32_t escapes)
{
    if (threadIdx.x != 0)
        return;
    state->escapes = escapes;
    state->faults = atomicExch(&state->pending, 0u);
    state->ticket = 0;
}

TS_KERNEL(cuda_codec_encode, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_shared, shared);
    if (blockIdx.x < args.tiles)
        encode_tile(args, tile_of(args, blockIdx.x), blockIdx.x);
    if (!is_last(args.state, shared))
        return;
    uint32_t escapes = copy_lost_tiles(args, shared);
    write_bitmap(args);
    clear_padding(args);
    leave(args.state, escapes);
}

/* --- decoding ------------------------------------------------------------------------------------------- */

TS_DEVICE bool bit_of(const codec_args &args, uint32_t bit)
{
    return args.payload[bit / 8] >> bit % 8 & 1;
}

/* The sum over all threads of a block. */
TS_DEVICE uint32_t block_sum(uint32_t value, codec_shared &shared)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(KERNEL_FULL_WARP, value, distance);
    if (threadIdx.x % 32 == 0)
        shared.words[threadIdx.x / 32] = value;
    __syncthreads();
    uint32_t sum = 0;
    for (uint32_t warp = 0; warp < blockDim.x / 32; warp++)
        sum += shared.words[warp];
    __syncthreads();
    return sum;
}

/* Escaped tiles before that one, in the order of the pool. */
TS_DEVICE uint32_t rank_of(const codec_args &args, uint32_t index, codec_shared &shared)
{
    uint32_t before = 0;
    for (uint32_t bit = threadIdx.x; bit < args.tiles; bit += blockDim.x)
        before += bit_of(args, bit) && grid_index_of(args, bit) < index;
    return block_sum(before, shared);
}

/* Whether parameters are some that an encoder writes; those and the codes of an escaped tile are zeros. */
TS_DEVICE bool slice_sane(const codec_args &args, const codec_args_side &side, const slice &s, bool escaped)
{
    uint32_t scale = *(const uint16_t *)(args.payload + side.scales + s.param);
    uint32_t zero = *(const uint16_t *)(args.payload + side.minima + s.param);
    if (!escaped)
        return scale < F16_INF && (zero & 0x7fff) < F16_INF;
    uint2 codes = *(const uint2 *)(args.payload + side.codes + s.code);
    return (scale | zero | codes.x | codes.y) == 0;
}

TS_DEVICE bool tile_sane(const codec_args &args, const tile &t, bool escaped)
{
    bool faulty = false;
    for (uint32_t at = threadIdx.x; at < args.head_dim; at += blockDim.x) {
        slice s = slice_of(args, t, at);
        faulty |= s.active && !slice_sane(args, args.sides[t.kv], s, escaped);
    }
    return !__syncthreads_or(faulty);
}

/* Zeros between the sections, no bit behind the last tile, as many bits as there are raw tiles: looked at by
 * one block for all. Returns CODEC_FAULT_*. */
TS_DEVICE uint32_t frame_faults(const codec_args &args, codec_shared &shared)
{
    uint32_t set = 0, wrong = 0;
    for (uint32_t byte = threadIdx.x; byte < args.bitmap_bytes; byte += blockDim.x) {
        uint32_t bits = args.payload[byte], last = args.tiles > byte * 8 ? args.tiles - byte * 8 : 0;
        set += (uint32_t)__popc(bits);
        wrong |= last < 8 && bits >> last;
    }
    set = block_sum(set, shared);
    for (uint32_t i = threadIdx.x; i < 6 * 16; i += blockDim.x) {
        const uint8_t *at = padding_at(args, i);
        wrong |= at && *at != 0;
    }
    wrong = __syncthreads_or((int)wrong) ? CODEC_FAULT_CONTENT : 0;
    return wrong | (set != args.raw_tiles ? CODEC_FAULT_ESCAPES : 0);
}

TS_DEVICE void restore_run(uint2 codes, int shift, float zero, float scale, float *x)
{
    const uint32_t words[2] = {codes.x, codes.y};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint32_t code = words[i / 4] >> (i % 4 * 8 + shift) & 15;
        x[i] = zero + (kernel_float_of(MAGIC_U | code) - MAGIC) * scale;
    }
}

TS_DEVICE void restore_slice(const codec_args &args, const tile &t, const slice &s, uint4 *low, uint4 *high)
{
    const codec_args_side &side = args.sides[t.kv];
    float x[8] = {0, 0, 0, 0, 0, 0, 0, 0}, y[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (s.active) {
        uint2 codes = *(const uint2 *)(args.payload + side.codes + s.code);
        float scale = kernel_widen_f16(*(const uint16_t *)(args.payload + side.scales + s.param));
        float zero = kernel_widen_f16(*(const uint16_t *)(args.payload + side.minima + s.param));
        restore_run(codes, 0, zero, scale, x);
        restore_run(codes, 4, zero, scale, y);
    }
    if (side.hadamard)
        transform(x, y, side, power_of_two(-((log2_of(side.hadamard) + 1) / 2)));
    *low = narrow_run(x, args.bf16);
    *high = narrow_run(y, args.bf16);
}

/* `raw`: the tile as it was, or NULL. First tokens come from their own section whatever the tile says. */
TS_DEVICE void decode_tile(const codec_args &args, const tile &t, const uint8_t *raw)
{
    for (uint32_t at = threadIdx.x; at - threadIdx.x < args.head_dim; at += blockDim.x) {
        slice s = slice_of(args, t, at);
        uint64_t row = (uint64_t)s.row * args.head_dim * 2;
        const uint8_t *from = s.row < t.raw ? first_token_at(args, t, s) : raw ? raw + row : nullptr;
        uint4 low, high;
        restore_slice(args, t, s, &low, &high);
        if (!s.active)
            continue;
        if (from) {
            low = *(const uint4 *)(from + s.low * 2);
            high = *(const uint4 *)(from + s.high * 2);
        }
        kernel_store_once(t.at + row + s.low * 2, low);
        kernel_store_once(t.at + row + s.high * 2, high);
    }
}

/* Returns CODEC_FAULT_*; a tile at fault is not written. */
TS_DEVICE uint32_t decode_checked(const codec_args &args, uint32_t index, codec_shared &shared)
{
    tile t = tile_of(args, index);
    bool escaped = bit_of(args, (t.kv * args.heads + t.head) * args.block_count + t.block);
    uint32_t rank = escaped ? rank_of(args, index, shared) : 0;
    if (escaped && rank >= args.raw_tiles)
        return CODEC_FAULT_ESCAPES;
    if (!tile_sane(args, t, escaped))
        return CODEC_FAULT_CONTENT;
    decode_tile(args, t,
                escaped ? args.payload + args.tail + (uint64_t)rank * ROWS * args.head_dim * 2 : nullptr);
    return 0;
}

TS_KERNEL(cuda_codec_decode, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_shared, shared);
    uint32_t faults = blockIdx.x == 0 ? frame_faults(args, shared) : 0;
    if (blockIdx.x < args.tiles)
        faults |= decode_checked(args, blockIdx.x, shared);
    if (threadIdx.x == 0 && faults)
        atomicOr(&args.state->pending, faults);
    if (is_last(args.state, shared))
        leave(args.state, 0);
}
