/* From a payload, which is checked, into the pool. */
#ifndef TS_GPU_CUDA_CODEC_CODEC_DECODE_CUH
#define TS_GPU_CUDA_CODEC_CODEC_DECODE_CUH

#include "gpu/cuda/codec/codec_encode.cuh"

/* --- checks --------------------------------------------------------------------------------------------- */

TS_DEVICE bool bit_of(const uint8_t *payload, uint32_t bit)
{
    return payload[bit / 8] >> bit % 8 & 1;
}

TS_DEVICE bool escaped_of(const codec_args &args, const tile &t)
{
    return bit_of(t.payload, (t.kv * args.heads + t.head) * args.block_count + t.block);
}

/* The sum over all threads of a block. */
TS_DEVICE uint32_t block_sum(uint32_t value, codec_small &shared)
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

/* Escaped tiles of the part before that one, in the order of the pool. */
TS_DEVICE uint32_t rank_of(const codec_args &args, const tile &t, codec_small &shared)
{
    uint32_t before = 0;
    for (uint32_t bit = threadIdx.x; bit < args.tiles; bit += blockDim.x)
        before += bit_of(t.payload, bit) && index_of_bit(args, bit) < t.index;
    return block_sum(before, shared);
}

/* Bits of tiles: how many, and whether one stands where no tile can escape. */
TS_DEVICE uint32_t look_at_bitmap(const codec_args &args, const uint8_t *payload, bool *wrong)
{
    uint32_t set = 0, per_side = args.tiles / 2;
    for (uint32_t byte = threadIdx.x; byte < args.bitmap_bytes; byte += blockDim.x) {
        for (uint32_t left = payload[byte]; left; left &= left - 1) {
            uint32_t bit = byte * 8 + (uint32_t)__ffs((int)left) - 1;
            *wrong |= bit >= args.tiles || args.sides[bit >= per_side].bits == 16;
            set++;
        }
    }
    return set;
}

TS_DEVICE bool halves_finite(uint4 of)
{
    return magnitude_of(of, of) < F16_INF;
}

/* Of a part that is restored: bytes that its raw tiles have. */
TS_DEVICE uint64_t raw_tile_bytes(const codec_args &args, uint32_t part)
{
    uint64_t list = list_bytes(args, part), room = args.part[part].tail_bytes;
    return list <= room ? room - list : 0;
}

/* Zeros between the sections, finite means, bits of tiles alone, and as many as there are raw tiles: looked
 * at by one block for all of a part. Returns CODEC_FAULT_*. */
TS_DEVICE uint32_t frame_faults(const codec_args &args, uint32_t part, codec_small &shared)
{
    uint8_t *payload = args.part[part].payload;
    bool wrong = false;
    uint32_t set = block_sum(look_at_bitmap(args, payload, &wrong), shared);
    for (uint32_t i = threadIdx.x; i < CODEC_SECTIONS * 16; i += blockDim.x) {
        const uint8_t *at = padding_at(args, payload, i);
        wrong |= at && *at != 0;
    }
    uint64_t means = (uint64_t)args.heads * args.spans * args.head_dim * 2;
    for (uint64_t at = threadIdx.x * 16; at < means; at += blockDim.x * 16)
        wrong |= !halves_finite(*(const uint4 *)(payload + args.means + at));
    uint32_t faults = __syncthreads_or(wrong) ? CODEC_FAULT_CONTENT : 0;
    return faults | (set * tile_bytes(args) != raw_tile_bytes(args, part) ? CODEC_FAULT_ESCAPES : 0);
}

/* --- one slice ------------------------------------------------------------------------------------------ */

struct coded {
    uint2 low, high; /* codes: with 4 bits the first alone */
    uint32_t scale, zero;
};

template <uint32_t DIM, uint32_t STRETCH>
TS_DEVICE coded load_coded(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s)
{
    coded c = {{0, 0}, {0, 0}, 0, 0};
    if (!s.active)
        return c;
    const uint8_t *codes = t.payload + side.codes + code_at<DIM, STRETCH>(args, side, t, s);
    uint64_t param = param_at<DIM, STRETCH>(args, side, t, s);
    c.low = *(const uint2 *)codes;
    if (side.bits == 8)
        c.high = *(const uint2 *)(codes + stretch_of<STRETCH>(side) / 2);
    c.scale = *(const uint16_t *)(t.payload + side.scales + param);
    if (side.asym)
        c.zero = *(const uint16_t *)(t.payload + side.minima + param);
    return c;
}

/* A byte of the word is -128. */
TS_DEVICE bool has_80(uint32_t word)
{
    uint32_t x = word ^ 0x80808080u;
    return ((x - 0x01010101u) & ~x & 0x80808080u) != 0;
}

/* Whether they are some that an encoder writes; those of an escaped tile are zeros. */
TS_DEVICE bool coded_sane(const codec_args_side &side, const coded &c, bool escaped)
{
    if (escaped)
        return (c.scale | c.zero | c.low.x | c.low.y | c.high.x | c.high.y) == 0;
    bool finite = (c.scale & 0x7fff) < F16_INF && (c.zero & 0x7fff) < F16_INF;
    if (side.bits == 8 && (has_80(c.low.x) || has_80(c.low.y) || has_80(c.high.x) || has_80(c.high.y)))
        return false;
    return finite && (side.bits == 4 && !side.asym ? c.scale != 0x8000 : c.scale < 0x8000);
}

/* How codes become numbers: (code - base) scale + zero, where base is a number with MAGIC in it. */
struct ladder {
    float base, scale, zero;
};

/* Products with powers of two are exact: what the transform is followed by is taken first. */
TS_DEVICE ladder ladder_of(const codec_args_side &side, const coded &c)
{
    ladder l;
    l.base = side.bits == 8 ? MAGIC + 128 : MAGIC;
    l.scale = kernel_widen_f16(c.scale) * side.factor_out;
    l.zero = side.asym ? kernel_widen_f16(c.zero) * side.factor_out : side.bits == 8 ? 0 : -8 * l.scale;
    return l;
}

/* Bytes 0 .. 3 of two words; the product is exact, so that its sum is rounded once either way. */
TS_DEVICE void climb(const ladder &l, uint32_t first, uint32_t second, float *x)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        float a = kernel_float_of(__byte_perm(first, MAGIC_U, 0x7650u + i));
        float b = kernel_float_of(__byte_perm(second, MAGIC_U, 0x7650u + i));
        x[i] = kernel_fma(a - l.base, l.scale, l.zero);
        x[4 + i] = kernel_fma(b - l.base, l.scale, l.zero);
    }
}

template <uint32_t DIM, uint32_t STRETCH, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE void restore_slice(const codec_args &args, const codec_args_side &side, const tile &t,
                             const slice &s, const coded &c, SHARED &shared, uint4 *low_bits,
                             uint4 *high_bits)
{
    float low[8], high[8];
    ladder l = ladder_of(side, c);
    if (side.bits == 8) {
        climb(l, c.low.x ^ 0x80808080u, c.low.y ^ 0x80808080u, low);
        climb(l, c.high.x ^ 0x80808080u, c.high.y ^ 0x80808080u, high);
    } else {
        climb(l, c.low.x & 0x0f0f0f0fu, c.low.y & 0x0f0f0f0fu, low);
        climb(l, c.low.x >> 4 & 0x0f0f0f0fu, c.low.y >> 4 & 0x0f0f0f0fu, high);
    }
    if (side.hadamard)
        transform<DIM, STRETCH>(low, high, side);
    if (CENTRE && side.centred) {
        float low_mean[8], high_mean[8];
        mean_run(args, t, s.low, low_mean);
        mean_run(args, t, s.high, high_mean);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            low[i] += low_mean[i];
            high[i] += high_mean[i];
        }
        turn<DIM, STRETCH>(args, side, t, s, shared, low, high, 1);
    }
    *low_bits = narrow_run<BF16>(low);
    *high_bits = narrow_run<BF16>(high);
}

/* --- one tile ------------------------------------------------------------------------------------------- */

/* First tokens come from their own section whatever the tile says. */
template <uint32_t DIM>
TS_DEVICE void write_slice(const codec_args &args, const codec_args_side &side, const tile &t, const slice &s,
                           uint4 low, uint4 high)
{
    uint8_t *row = t.at + s.row * row_bytes_of<DIM>(args);
    if (s.row < t.raw) {
        copy_runs(row, first_token_at(args, side, t, s.row), s);
    } else {
        kernel_store_once(row + s.low * 2, low);
        kernel_store_once(row + s.high * 2, high);
    }
}

/* Whether the thread finds it sound. One that has escaped is not written. */
template <uint32_t DIM, uint32_t STRETCH, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE bool decode_tile(const codec_args &args, const codec_args_side &side, const tile &t, bool escaped,
                           SHARED &shared)
{
    bool sound = true;
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<DIM>(args)) {
        uint4 low, high;
        slice s = slice_of<DIM, STRETCH>(args, side, t, begin);
        coded c = load_coded<DIM, STRETCH>(args, side, t, s);
        sound &= coded_sane(side, c, escaped);
        restore_slice<DIM, STRETCH, BF16, CENTRE>(args, side, t, s, c, shared, &low, &high);
        if (s.active && !escaped)
            write_slice<DIM>(args, side, t, s, low, high);
    }
    return sound;
}

/* A side of 16 bits, as it is. */
template <uint32_t DIM>
TS_DEVICE void uncopy_tile(const codec_args &args, const codec_args_side &side, const tile &t)
{
    uint64_t row_bytes = (uint64_t)args.head_dim * 2;
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<DIM>(args)) {
        slice s = slice_of<DIM, DIM>(args, side, t, begin);
        if (s.active)
            copy_runs(t.at + s.row * row_bytes, t.payload + side.codes + (t.row + s.row) * row_bytes, s);
    }
}

/* As encode_any. */
template <uint32_t DIM, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE bool decode_any(const codec_args &args, const codec_args_side &side, const tile &t, bool escaped,
                          SHARED &shared)
{
    constexpr uint32_t narrow = DIM ? 32 : 0, usual = DIM ? 64 : 0;
    if (!DIM || side.stretch == DIM)
        return decode_tile < DIM, DIM, BF16, CENTRE && DIM != 128 > (args, side, t, escaped, shared);
    return side.stretch == narrow ? decode_tile<DIM, narrow, BF16, false>(args, side, t, escaped, shared)
                                  : decode_tile<DIM, usual, BF16, CENTRE>(args, side, t, escaped, shared);
}

TS_DEVICE void tell(const codec_args &args, uint32_t part, uint32_t faults)
{
    if (faults)
        atomicOr(&args.state[part].faults, faults);
}

/* By a block, which needs to know how many escaped tiles stand before it. */
TS_DEVICE void restore_escaped(const codec_args &args, const tile &t, codec_small &shared)
{
    const codec_args_side &side = args.sides[t.kv];
    uint32_t rank = rank_of(args, t, shared);
    if ((rank + 1) * tile_bytes(args) > raw_tile_bytes(args, t.part)) {
        tell(args, t.part, CODEC_FAULT_ESCAPES);
        return;
    }
    const uint8_t *raw = raw_tiles_at(args, t.part) + rank * tile_bytes(args);
    for (uint32_t begin = 0; begin < ROWS; begin += rows_at_once<0>(args)) {
        slice s = slice_of<0, 0>(args, side, t, begin);
        uint64_t row = (uint64_t)s.row * args.head_dim * 2;
        if (s.active)
            copy_runs(t.at + row, s.row < t.raw ? first_token_at(args, side, t, s.row) : raw + row, s);
    }
}

template <uint32_t DIM, bool BF16, bool CENTRE, class SHARED>
TS_DEVICE void decode(const codec_args &args, SHARED &shared)
{
    const uint32_t teams = teams_of<DIM>(args), tiles = args.tiles * args.parts;
    bool any_escaped = false;
    for (uint32_t number = first_tile<DIM>(args); number < tiles; number += tile_step<DIM>(args)) {
        tile t = tile_of(args, number);
        const codec_args_side &side = args.sides[t.kv];
        if (side.bits == 16) {
            if (!side.lossless)
                uncopy_tile<DIM>(args, side, t);
            continue;
        }
        bool escaped = escaped_of(args, t);
        tell(args, t.part,
             decode_any<DIM, BF16, CENTRE>(args, side, t, escaped, shared) ? 0 : CODEC_FAULT_CONTENT);
        any_escaped |= escaped;
    }
    any_escaped = __syncthreads_or(any_escaped);
    for (uint32_t first = blockIdx.x * teams; any_escaped && first < tiles; first += tile_step<DIM>(args)) {
        for (uint32_t number = first; number < min(first + teams, tiles); number++) {
            tile t = tile_of(args, number);
            if (args.sides[t.kv].bits < 16 && escaped_of(args, t))
                restore_escaped(args, t, shared);
        }
    }
    for (uint32_t part = gridDim.x - 1 - blockIdx.x; part < args.parts; part += gridDim.x)
        tell(args, part, frame_faults(args, part, shared));
}

#endif
