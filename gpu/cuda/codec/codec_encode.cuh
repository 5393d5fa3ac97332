/* From the pool to a payload: one tile, and what follows from all of them. */
#ifndef TS_GPU_CUDA_CODEC_CODEC_ENCODE_CUH
#define TS_GPU_CUDA_CODEC_CODEC_ENCODE_CUH

#include "gpu/cuda/codec/codec_tile.cuh"

/* --- one tile ------------------------------------------------------------------------------------------- */

/* Elements as they lie; zeros where there is no token, or one that travels in 16 bits. */
template <uint32_t DIM>
TS_DEVICE void load_slice(const codec_args &args, const tile &t, const slice &s, uint4 *low, uint4 *high)
{
    *low = *high = make_uint4(0, 0, 0, 0);
    if (s.active && s.row >= t.raw) {
        const uint8_t *row = t.at + s.row * row_bytes_of<DIM>(args);
        *low = kernel_load_once(row + s.low * 2);
        *high = kernel_load_once(row + s.high * 2);
    }
}

/* code = round(clamp((x - zero) * inverse)), counted from zero by the bits of `magic`. */
struct group {
    float zero, inverse, least, most, magic;
    uint32_t scale_bits, zero_bits;
    bool fits;
};

/* x / divisor rounded to fp16, of x >= 0 or not finite: what IEEE's division gives before that rounding
 * (kernel_quotient), in three operations. */
TS_DEVICE uint32_t quotient_f16(float x, float divisor, float reciprocal)
{
    float quotient = x * reciprocal, rest = kernel_fma(-divisor, quotient, x);
    return kernel_narrow_f16(kernel_fma(rest, reciprocal, quotient));
}

/* Of a number of fp16 what IEEE's division gives: 1 - step r is exact and 2^-22 at most, so that the last
 * sum, before it is rounded, is off by 2^-44 of it, and no inverse of 11 bits lies as near to the middle of
 * two neighbours. */
TS_DEVICE float inverse_of(float step, float reciprocal)
{
    float rest = kernel_fma(-step, reciprocal, 1);
    return step == 0 ? 0 : kernel_fma(rest, reciprocal, reciprocal);
}

/* 4 bits from a minimum on. The largest restored value must be finite too: of fp16 it is below what rounds to
 * infinity, of bf16 whenever both parameters are finite. */
template <bool BF16> TS_DEVICE group asymmetric(float least, float most)
{
    group g = {0, 0, 0, 15, MAGIC, 0, 0, false};
    g.zero_bits = kernel_narrow_f16(least);
    g.zero = kernel_widen_f16(g.zero_bits);
    g.scale_bits = quotient_f16(fmaxf(most - g.zero, 0), 15, 1.0f / 15);
    float step = kernel_widen_f16(g.scale_bits), top = g.zero + 15 * step;
    g.inverse = inverse_of(step, kernel_reciprocal(step));
    g.fits = fabsf(top) < (BF16 ? 1048576.0f : 65520.0f);
    return g;
}

/* 4 bits where the value farthest from zero has code 0 and its sign in the scale; 8 bits either way. */
TS_DEVICE group symmetric(float least, float most, bool wide)
{
    group g = {0, 0, -8, 7, MAGIC + 8, 0, 0, false};
    if (wide) {
        g.least = -127;
        g.most = 127;
        g.magic = MAGIC + 128;
        g.scale_bits = quotient_f16(fmaxf(most, -least), 127, 1.0f / 127);
    } else {
        uint32_t bits = kernel_narrow_f16((most >= -least ? most : least) * -0.125f);
        g.scale_bits = bits == 0x8000 ? 0 : bits;
    }
    float step = kernel_widen_f16(g.scale_bits);
    g.inverse = inverse_of(step, kernel_reciprocal(step));
    g.fits = (g.scale_bits & 0x7fff) < F16_INF;
    return g;
}

/* Over the lanes of a group that lie in a warp, neighbours and a power of two. */
TS_DEVICE void extremes_by_lanes(float *least, float *most, uint32_t lanes)
{
#pragma unroll
    for (uint32_t distance = 1; distance < lanes; distance *= 2) {
        *least = fminf(*least, __shfl_xor_sync(KERNEL_FULL_WARP, *least, (int)distance));
        *most = fmaxf(*most, __shfl_xor_sync(KERNEL_FULL_WARP, *most, (int)distance));
    }
}

/* Over the row, whatever its length. All threads of a block take part. */
TS_DEVICE void extremes_by_cells(const codec_args &args, const slice &s, float *cells, float *least,
                                 float *most)
{
    uint32_t per_row = args.head_dim / 16, first = threadIdx.x / per_row * per_row;
    cells[threadIdx.x * 2] = *least;
    cells[threadIdx.x * 2 + 1] = *most;
    __syncthreads();
    for (uint32_t i = first; s.there && i < first + per_row; i++) {
        *least = fminf(*least, cells[i * 2]);
        *most = fmaxf(*most, cells[i * 2 + 1]);
    }
    __syncthreads();
}

/* Of all elements of a group, times the factor of the transform; -0 and +0 are one. */
template <uint32_t DIM, uint32_t STRETCH, class SHARED>
TS_DEVICE void extremes_of(const codec_args &args, const codec_args_side &side, const slice &s,
                           SHARED &shared, const float *low, const float *high, float *least, float *most)
{
    *least = *most = low[0];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        *least = fminf(*least, fminf(low[i], high[i]));
        *most = fmaxf(*most, fmaxf(low[i], high[i]));
    }
    uint32_t lanes = group_of<DIM, STRETCH>(side) / 16;
    if (DIM || (lanes <= 32 && (lanes & (lanes - 1)) == 0))
        extremes_by_lanes(least, most, lanes);
    else
        extremes_by_cells(args, s, cells_of(shared), least, most);
    *least = *least * side.factor_in + 0.0f;
    *most = *most * side.factor_in + 0.0f;
}

/* Bits in whose low ones the code stands above those of MAGIC. A product with a power of two is exact: it
 * needs no rounding of its own. */
TS_DEVICE uint32_t code_of(const group &g, float x, float factor)
{
    float scaled = kernel_fma(x, factor, -g.zero) * g.inverse;
    return kernel_bits_of(fminf(fmaxf(scaled, g.least), g.most) + g.magic);
}

/* The same of 0 .. 15, in sixteenths, which are exact: then 0 is the lower end of a product by itself.
 * `sixteenth`: of the inverse. */
TS_DEVICE uint32_t code_from_zero(const group &g, float x, float factor, float sixteenth)
{
    float share = kernel_saturate(kernel_fma(x, factor, -g.zero) * sixteenth);
    return kernel_bits_of(kernel_fma(fminf(share, 0.9375f), 16, MAGIC));
}

/* Element j of a group in the lower half of byte j, element j + group / 2 in the upper. What MAGIC adds to
 * a word is the same for all. */
template <bool ASYM>
TS_DEVICE uint2 nibbles_of(const group &g, const float *low, const float *high, float factor)
{
    const float sixteenth = g.inverse * 0.0625f;
    uint32_t words[2] = {0u - (MAGIC_U + (MAGIC_U << 4)), 0u - (MAGIC_U + (MAGIC_U << 4))};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint32_t first = ASYM ? code_from_zero(g, low[i], factor, sixteenth) : code_of(g, low[i], factor);
        uint32_t second = ASYM ? code_from_zero(g, high[i], factor, sixteenth) : code_of(g, high[i], factor);
        words[i / 4] += first << (i % 4 * 8);
        words[i / 4] += second << (i % 4 * 8 + 4);
    }
    return make_uint2(words[0], words[1]);
}

/* Signed: what is counted from -128 on has the other topmost bit. */
TS_DEVICE uint2 bytes_of(const group &g, const float *x, float factor)
{
    uint32_t words[2] = {0u - MAGIC_U, 0u - MAGIC_U};
#pragma unroll
    for (int i = 0; i < 8; i++)
        words[i / 4] += code_of(g, x[i], factor) << (i % 4 * 8);
    return make_uint2(words[0] ^ 0x80808080u, words[1] ^ 0x80808080u);
}

template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE void store_codes(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s,
                           uint2 low, uint2 high)
{
    uint8_t *codes = t.payload + side.codes + code_at<DIM, STRETCH>(args, side, t, s);
    *(uint2 *)codes = low;
    if (side.bits == 8)
        *(uint2 *)(codes + stretch_of<STRETCH>(side) / 2) = high;
}

/* By the slice with which its group begins. */
template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE void store_params(const codec_args &args, const codec_args_side &side, const tile &t,
                            const slice &s, uint32_t scale, uint32_t zero)
{
    if (s.low % group_of<DIM, STRETCH>(side) != 0)
        return;
    uint64_t at = param_at<DIM, STRETCH>(args, side, t, s);
    *(uint16_t *)(t.payload + side.scales + at) = (uint16_t)scale;
    if (side.asym)
        *(uint16_t *)(t.payload + side.minima + at) = (uint16_t)zero;
}

/* Without their rotation, less the mean; zeros stay zeros. All threads of a block take part. */
template <uint32_t DIM, uint32_t STRETCH, class SHARED>
TS_DEVICE void centre(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s,
                      SHARED &shared, float *low, float *high)
{
    float low_mean[8] = {0, 0, 0, 0, 0, 0, 0, 0}, high_mean[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    turn<DIM, STRETCH>(args, side, t, s, shared, low, high, -1);
    if (s.active && s.row >= t.raw) {
        mean_run(args, t, s.low, low_mean);
        mean_run(args, t, s.high, high_mean);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        low[i] -= low_mean[i];
        high[i] -= high_mean[i];
    }
}

/* Returns whether the tile must escape. */
template <uint32_t DIM, uint32_t STRETCH, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE bool encode_slice(const codec_args &args, const codec_args_side &side, const tile &t,
                            const slice &s, SHARED &shared)
{
    float low[8], high[8], least, most;
    uint4 low_bits, high_bits;
    load_slice<DIM>(args, t, s, &low_bits, &high_bits);
    bool beyond = magnitude_of(low_bits, high_bits) >= side.limit;
    widen_run<BF16>(low_bits, low);
    widen_run<BF16>(high_bits, high);
    if (CENTRE && side.centred)
        centre<DIM, STRETCH>(args, side, t, s, shared, low, high);
    if (side.hadamard)
        transform<DIM, STRETCH>(low, high, side);
    extremes_of<DIM, STRETCH>(args, side, s, shared, low, high, &least, &most);
    group g = side.asym ? asymmetric<BF16>(least, most) : symmetric(least, most, side.bits == 8);
    uint2 codes, more = make_uint2(0, 0);
    if (side.bits == 8) {
        codes = bytes_of(g, low, side.factor_in);
        more = bytes_of(g, high, side.factor_in);
    } else {
        codes = side.asym ? nibbles_of<true>(g, low, high, side.factor_in)
                          : nibbles_of<false>(g, low, high, side.factor_in);
    }
    if (s.active) {
        store_codes<DIM, STRETCH>(args, side, t, s, codes, more);
        store_params<DIM, STRETCH>(args, side, t, s, g.scale_bits, g.zero_bits);
    }
    return beyond || !g.fits;
}

TS_DEVICE void copy_runs(uint8_t *to, const uint8_t *from, const slice &s)
{
    kernel_store_once(to + s.low * 2, kernel_load_once(from + s.low * 2));
    kernel_store_once(to + s.high * 2, kernel_load_once(from + s.high * 2));
}

/* Returns whether it must escape; the same to all threads. `lost`: so it is decided already. */
template <uint32_t DIM, uint32_t STRETCH, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE bool encode_tile(const codec_args &args, const codec_args_side &side, const tile &t, bool lost,
                           SHARED &shared)
{
    uint64_t row_bytes = (uint64_t)args.head_dim * 2;
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<DIM>(args)) {
        slice s = slice_of<DIM, STRETCH>(args, side, t, begin);
        lost |= encode_slice<DIM, STRETCH, BF16, CENTRE>(args, side, t, s, shared);
        if (s.there && s.row < t.raw)
            copy_runs(first_token_at(args, side, t, s.row), t.at + s.row * row_bytes, s);
    }
    lost = any_of_team<DIM>(args, lost);
    for (uint32_t begin = 0; lost && begin < ROWS; begin += rows_at_once<DIM>(args)) {
        slice s = slice_of<DIM, STRETCH>(args, side, t, begin);
        if (s.active) {
            store_codes<DIM, STRETCH>(args, side, t, s, make_uint2(0, 0), make_uint2(0, 0));
            store_params<DIM, STRETCH>(args, side, t, s, 0, 0);
        }
    }
    return lost;
}

/* A side of 16 bits, as it is. */
template <uint32_t DIM>
TS_DEVICE void copy_tile(const codec_args &args, const codec_args_side &side, const tile &t)
{
    uint64_t row_bytes = (uint64_t)args.head_dim * 2;
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<DIM>(args)) {
        slice s = slice_of<DIM, DIM>(args, side, t, begin);
        if (s.active)
            copy_runs(t.payload + side.codes + (t.row + s.row) * row_bytes, t.at + s.row * row_bytes, s);
    }
}

/* With a constant head_dim, one of the stretches that cuda_codec.c lets through. */
template <uint32_t DIM, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE bool encode_any(const codec_args &args, const codec_args_side &side, const tile &t, bool lost,
                          SHARED &shared)
{
    constexpr uint32_t narrow = DIM ? 32 : 0, usual = DIM ? 64 : 0;
    if (!DIM || side.stretch == DIM)
        return encode_tile < DIM, DIM, BF16, CENTRE && DIM != 128 > (args, side, t, lost, shared);
    return side.stretch == narrow ? encode_tile<DIM, narrow, BF16, false>(args, side, t, lost, shared)
                                  : encode_tile<DIM, usual, BF16, CENTRE>(args, side, t, lost, shared);
}

template <uint32_t DIM, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE void encode_tiles(const codec_args &args, SHARED &shared)
{
    for (uint32_t number = first_tile<DIM>(args); number < args.tiles * args.parts;
         number += tile_step<DIM>(args)) {
        tile t = tile_of(args, number);
        const codec_args_side &side = args.sides[t.kv];
        bool lost = false;
        if (side.bits == 16 && !side.lossless)
            copy_tile<DIM>(args, side, t);
        if (side.bits < 16)
            lost = encode_any<DIM, BF16, CENTRE>(args, side, t, side.centred && args.lost[number], shared);
        if (member_of<DIM>(args) == 0) {
            args.lost[number] = lost;
            if (lost)
                atomicAdd(&args.state[t.part].pending, 1u);
        }
    }
}

/* --- what follows from all tiles ------------------------------------------------------------------------ */

/* The padding byte that `index` names, or NULL: 16 of each section are looked at. */
TS_DEVICE uint8_t *padding_at(const codec_args &args, uint8_t *payload, uint32_t index)
{
    uint64_t end = args.section_ends[index / 16], at = end + index % 16;
    return at < ((end + 15) & ~(uint64_t)15) ? payload + at : nullptr;
}

/* A bitmap for when no tile escapes, and the ends of sections: of each part by one block. */
TS_DEVICE void clear_frames(const codec_args &args)
{
    for (uint32_t part = gridDim.x - 1 - blockIdx.x; part < args.parts; part += gridDim.x) {
        uint8_t *payload = args.part[part].payload;
        for (uint64_t at = threadIdx.x * 16; at < args.bitmap_bytes; at += blockDim.x * 16)
            *(uint4 *)(payload + at) = make_uint4(0, 0, 0, 0);
        for (uint32_t i = threadIdx.x; i < CODEC_SECTIONS * 16; i += blockDim.x) {
            uint8_t *at = padding_at(args, payload, i);
            if (at)
                *at = 0;
        }
    }
}

/* Whether this block is the last one to come here: then it sees what all of them wrote. */
TS_DEVICE bool is_last(codec_state *state, codec_small &shared)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        shared.last = atomicAdd(&state->ticket, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    return shared.last != 0;
}

/* By a block. */
TS_DEVICE void copy_lost_tile(const codec_args &args, uint32_t number, uint32_t rank)
{
    tile t = tile_of(args, number);
    uint8_t *to = raw_tiles_at(args, t.part) + rank * tile_bytes(args);
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<0>(args)) {
        slice s = slice_of<0, 0>(args, args.sides[t.kv], t, begin);
        uint4 low, high;
        load_slice<0>(args, t, s, &low, &high);
        if (s.there) {
            kernel_store_once(to + ((uint64_t)s.row * args.head_dim + s.low) * 2, low);
            kernel_store_once(to + ((uint64_t)s.row * args.head_dim + s.high) * 2, high);
        }
    }
}

/* Of a part, in the order of the pool. */
TS_DEVICE void copy_lost_tiles(const codec_args &args, uint32_t part, codec_small &shared)
{
    uint32_t rank = 0;
    for (uint32_t begin = 0; begin < args.tiles; begin += blockDim.x) {
        uint32_t index = begin + threadIdx.x, number = part * args.tiles + index;
        bool lost = index < args.tiles && kernel_load_shared_byte(args.lost + number);
        uint32_t bits = __ballot_sync(KERNEL_FULL_WARP, lost);
        if (threadIdx.x % 32 == 0)
            shared.words[threadIdx.x / 32] = bits;
        __syncthreads();
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) {
            for (uint32_t left = shared.words[warp]; left; left &= left - 1)
                copy_lost_tile(args, number - threadIdx.x + warp * 32 + (uint32_t)__ffs((int)left) - 1,
                               rank++);
        }
        __syncthreads();
    }
}

/* The tile of a bit of the bitmap, whose order is [K|V][head][block], as a number of the part. */
TS_DEVICE uint32_t index_of_bit(const codec_args &args, uint32_t bit)
{
    return bit % args.block_count * 2 * args.heads + bit / args.block_count;
}

TS_DEVICE void write_bitmap(const codec_args &args, uint32_t part)
{
    for (uint32_t byte = threadIdx.x; byte < args.bitmap_bytes; byte += blockDim.x) {
        uint32_t bits = 0;
        for (uint32_t i = 0; i < 8 && byte * 8 + i < args.tiles; i++) {
            uint32_t number = part * args.tiles + index_of_bit(args, byte * 8 + i);
            bits |= kernel_load_shared_byte(args.lost + number) << i;
        }
        args.part[part].payload[byte] = (uint8_t)bits;
    }
}

/* By the last block: escaped tiles follow each other in the payload, so that where one goes is known only
 * when all have been looked at. That is rare. */
TS_DEVICE void finish(const codec_args &args, codec_small &shared)
{
    bool any = false;
    for (uint32_t part = threadIdx.x; part < args.parts; part += blockDim.x)
        any |= kernel_load_shared_word(&args.state[part].pending) != 0;
    any = __syncthreads_or(any);
    for (uint32_t part = 0; any && part < args.parts; part++) {
        if (kernel_load_shared_word(&args.state[part].pending) == 0)
            continue;
        copy_lost_tiles(args, part, shared);
        write_bitmap(args, part);
    }
    __syncthreads();
    for (uint32_t part = threadIdx.x; part < args.parts; part += blockDim.x) {
        codec_state *state = &args.state[part];
        state->escapes = atomicExch(&state->pending, 0u);
        state->faults = 0;
        state->exceptions = list_bytes(args, part) ? state->exceptions : 0;
        state->ticket = 0;
    }
}

template <uint32_t DIM, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE void encode(const codec_args &args, SHARED &shared)
{
    encode_tiles<DIM, BF16, CENTRE>(args, shared);
    clear_frames(args);
    if (is_last(args.state, shared))
        finish(args, shared);
}

#endif
