/*
 * Sides without loss (gpu/codec/codec_lossless.inc): from the pool to planes and a list of exceptions, and
 * back. Where an exception stands in the list depends on all tiles before it; so there are three launches
 * each way:
 *
 *     encoding   pack: bases, planes, how many exceptions a tile has | scan | list: the exceptions
 *     restoring  count: how many a tile has, codes are checked | check: as scan | unpack
 *
 * scan turns the numbers of tiles into places, one block of threads for each part. In the other launches a
 * block has a tile at a time, a thread 16 elements of a row: four in each quarter, from `first` on. Then low
 * bytes, nibbles and pairs of bits are whole words, and the words of neighbours are neighbours. Words hold
 * four elements, a byte each, the first one lowest; a mask of exceptions has bit 7 of their bytes.
 */
#ifndef TS_GPU_CUDA_CODEC_CODEC_LOSSLESS_CUH
#define TS_GPU_CUDA_CODEC_CODEC_LOSSLESS_CUH

#include "gpu/cuda/codec/codec_decode.cuh"

#define BYTES     0x01010101u
#define TOPS      0x80808080u
#define SCAN_EACH 8u /* tiles of a thread of scan at a time */

struct lossless_pack {
    uint32_t most[ROWS]; /* the largest magnitude, as bits */
    uint32_t count;      /* exceptions of the tile */
};

struct lossless_ranks {
    uint32_t rows[ROWS];             /* exceptions of each row */
    uint32_t bits[ROWS * 1024 / 32]; /* which elements they are: [row][row_words] */
};

/* --- a thread's part of a row --------------------------------------------------------------------------- */

struct quarters {
    uint32_t row, first;
    uint32_t quarter; /* elements of one: from a run to the next */
    bool active;      /* of a row that holds a token */
};

TS_DEVICE quarters quarters_of(const codec_args &args, const tile &t, uint32_t begin)
{
    uint32_t per_row = args.head_dim / 16, row = threadIdx.x / per_row;
    quarters q;
    q.row = begin + row;
    q.first = (threadIdx.x - row * per_row) * 4;
    q.quarter = args.head_dim / 4;
    q.active = row < rows_at_once<0>(args) && q.row < t.rows;
    return q;
}

TS_DEVICE uint8_t *run_in_pool(const codec_args &args, const tile &t, const quarters &q, uint32_t run)
{
    return t.at + ((uint64_t)q.row * args.head_dim + q.first + run * q.quarter) * 2;
}

TS_DEVICE uint8_t *base_at(const codec_args &args, const tile &t, const quarters &q)
{
    return t.payload + args.sides[t.kv].scales + t.row + q.row;
}

/* Low bytes; behind those of the row nibbles, then, for fp16, pairs of bits. */
template <bool BF16> TS_DEVICE uint8_t *planes_at(const codec_args &args, const tile &t, const quarters &q)
{
    uint32_t bytes = args.head_dim / 4 * (BF16 ? 6 : 7);
    return t.payload + args.sides[t.kv].codes + (t.row + q.row) * bytes + q.first;
}

/* Four runs; zeros where there is no token. */
TS_DEVICE void load_runs(const codec_args &args, const tile &t, const quarters &q, uint2 *runs)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        runs[i] = q.active ? *(const uint2 *)run_in_pool(args, t, q, i) : make_uint2(0, 0);
}

TS_DEVICE uint32_t low_bytes(uint2 run)
{
    return __byte_perm(run.x, run.y, 0x6420);
}

TS_DEVICE uint32_t high_bytes(uint2 run)
{
    return __byte_perm(run.x, run.y, 0x7531);
}

template <bool BF16> TS_DEVICE uint32_t exponents_of(uint2 run)
{
    uint32_t high = high_bytes(run);
    return BF16 ? (high << 1 & 0xfefefefeu) | (low_bytes(run) >> 7 & BYTES) : high >> 2 & 0x1f1f1f1fu;
}

/* --- codes ---------------------------------------------------------------------------------------------- */

/* All bits of a code, which stand for an exception. */
template <bool BF16> TS_DEVICE uint32_t exception_code()
{
    return BF16 ? 15 : 7;
}

/* Of distances, or codes, those that no code has. */
template <bool BF16> TS_DEVICE uint32_t exceptions_in(uint32_t bytes)
{
    return (((bytes & ~TOPS) + (0x80 - exception_code<BF16>()) * BYTES) | bytes) & TOPS;
}

/* None of the exponents is larger than the base. */
template <bool BF16> TS_DEVICE uint32_t codes_of(uint32_t distances, uint32_t exceptions)
{
    return (distances | (exceptions >> 7) * 255) & exception_code<BF16>() * BYTES;
}

/* Of a mask the four bits together, that of the first element lowest. */
TS_DEVICE uint32_t gathered(uint32_t exceptions)
{
    return (exceptions >> 7) * 0x01020408u >> 24;
}

/* Nibbles of four runs from the row's plane of them. */
TS_DEVICE void load_nibbles(const codec_args &args, const quarters &q, const uint8_t *planes, uint32_t *runs)
{
    uint32_t even = *(const uint32_t *)(planes + args.head_dim);
    uint32_t odd = *(const uint32_t *)(planes + args.head_dim + q.quarter);
    runs[0] = even & 0x0f0f0f0fu;
    runs[1] = odd & 0x0f0f0f0fu;
    runs[2] = even >> 4 & 0x0f0f0f0fu;
    runs[3] = odd >> 4 & 0x0f0f0f0fu;
}

/* --- encoding: pack ------------------------------------------------------------------------------------- */

TS_DEVICE uint32_t largest_of(const uint2 *runs)
{
    uint32_t most = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        most = max(most, max(runs[i].x & 0x7fff, runs[i].x >> 16 & 0x7fff));
        most = max(most, max(runs[i].y & 0x7fff, runs[i].y >> 16 & 0x7fff));
    }
    return most;
}

/* Returns the number of exceptions. */
template <bool BF16>
TS_DEVICE uint32_t pack_runs(const codec_args &args, const tile &t, const quarters &q, uint32_t base,
                             const uint2 *runs)
{
    uint8_t *planes = planes_at<BF16>(args, t, q);
    uint32_t nibbles[4], pairs = 0, count = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t low = low_bytes(runs[i]), high = high_bytes(runs[i]);
        uint32_t distances = base * BYTES - exponents_of<BF16>(runs[i]);
        uint32_t exceptions = exceptions_in<BF16>(distances);
        nibbles[i] = codes_of<BF16>(distances, exceptions) | (BF16 ? 0 : high >> 4 & 0x08080808u);
        pairs |= (high & 0x03030303u) << 2 * i;
        count += (uint32_t)__popc(exceptions);
        *(uint32_t *)(planes + i * q.quarter) = BF16 ? (low & ~TOPS) | (high & TOPS) : low;
    }
    planes += args.head_dim;
    *(uint32_t *)planes = nibbles[0] | nibbles[2] << 4;
    *(uint32_t *)(planes + q.quarter) = nibbles[1] | nibbles[3] << 4;
    if (!BF16)
        *(uint32_t *)(planes + 2 * q.quarter) = pairs;
    return count;
}

/* Rows from `begin` on, as many as the threads have at once. All of them take part. */
template <bool BF16>
TS_DEVICE void pack_rows(const codec_args &args, const tile &t, uint32_t begin, lossless_pack &shared)
{
    quarters q = quarters_of(args, t, begin);
    uint2 runs[4];
    load_runs(args, t, q, runs);
    if (q.active)
        atomicMax(&shared.most[q.row], largest_of(runs));
    __syncthreads();
    if (!q.active)
        return;
    uint32_t base = shared.most[q.row] >> (BF16 ? 7 : 10);
    uint32_t count = pack_runs<BF16>(args, t, q, base, runs);
    if (q.first == 0)
        *base_at(args, t, q) = (uint8_t)base;
    if (count)
        atomicAdd(&shared.count, count);
}

template <bool BF16> TS_DEVICE void pack(const codec_args &args, lossless_pack &shared)
{
    for (uint32_t number = blockIdx.x; number < args.tiles * args.parts; number += gridDim.x) {
        tile t = tile_of(args, number);
        if (threadIdx.x < ROWS)
            shared.most[threadIdx.x] = 0;
        if (threadIdx.x == 0)
            shared.count = 0;
        __syncthreads();
        for (uint32_t begin = 0; args.sides[t.kv].lossless && begin < t.rows; begin += rows_at_once<0>(args))
            pack_rows<BF16>(args, t, begin, shared);
        __syncthreads();
        if (threadIdx.x == 0)
            args.counts[number] = shared.count;
    }
}

/* --- both ways: ranks ----------------------------------------------------------------------------------- */

TS_DEVICE uint32_t row_words(const codec_args &args)
{
    return (args.head_dim + 31) / 32;
}

/* All threads of a block take part. */
TS_DEVICE void clear_ranks(const codec_args &args, lossless_ranks &shared)
{
    __syncthreads();
    if (threadIdx.x < ROWS)
        shared.rows[threadIdx.x] = 0;
    for (uint32_t i = threadIdx.x; i < ROWS * row_words(args); i += blockDim.x)
        shared.bits[i] = 0;
    __syncthreads();
}

TS_DEVICE void mark(const codec_args &args, const quarters &q, const uint32_t *exceptions,
                    lossless_ranks &shared)
{
    uint32_t count = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t element = q.first + i * q.quarter;
        if (exceptions[i])
            atomicOr(&shared.bits[q.row * row_words(args) + element / 32], gathered(exceptions[i])
                                                                               << element % 32);
        count += (uint32_t)__popc(exceptions[i]);
    }
    if (count)
        atomicAdd(&shared.rows[q.row], count);
}

/* Exceptions of the tile before that element. */
TS_DEVICE uint32_t rank_in_tile(const codec_args &args, const lossless_ranks &shared, uint32_t row,
                                uint32_t element)
{
    const uint32_t *bits = shared.bits + row * row_words(args);
    uint32_t rank = (uint32_t)__popc(bits[element / 32] & ((1u << element % 32) - 1));
    for (uint32_t i = 0; i < row; i++)
        rank += shared.rows[i];
    for (uint32_t i = 0; i < element / 32; i++)
        rank += (uint32_t)__popc(bits[i]);
    return rank;
}

/* Of the launch's tile the first exception, behind `tail`, and how many there are. */
struct listed {
    uint32_t first, count;
};

TS_DEVICE listed listed_of(const codec_args &args, const tile &t, uint32_t number)
{
    listed l;
    uint32_t total = args.state[t.part].exceptions;
    l.first = args.counts[number];
    l.count = (t.index + 1 < args.tiles ? args.counts[number + 1] : total) - l.first;
    return l;
}

/* --- encoding: list ------------------------------------------------------------------------------------- */

template <bool BF16>
TS_DEVICE void list_rows(const codec_args &args, const tile &t, uint32_t begin, uint8_t *first,
                         lossless_ranks &shared)
{
    quarters q = quarters_of(args, t, begin);
    uint2 runs[4];
    uint32_t exceptions[4], base = q.active ? *base_at(args, t, q) : 0;
    load_runs(args, t, q, runs);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        exceptions[i] = exceptions_in<BF16>(base * BYTES - exponents_of<BF16>(runs[i]));
    if (q.active)
        mark(args, q, exceptions, shared);
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (!q.active || !exceptions[i])
            continue;
        uint8_t *to = first + rank_in_tile(args, shared, q.row, q.first + i * q.quarter);
        uint32_t exponents = exponents_of<BF16>(runs[i]);
        for (uint32_t left = gathered(exceptions[i]); left; left &= left - 1)
            *to++ = (uint8_t)(exponents >> 8 * (__ffs((int)left) - 1));
    }
}

template <bool BF16> TS_DEVICE void list(const codec_args &args, lossless_ranks &shared)
{
    for (uint32_t number = blockIdx.x; number < args.tiles * args.parts; number += gridDim.x) {
        tile t = tile_of(args, number);
        listed l = listed_of(args, t, number);
        if (l.count == 0)
            continue;
        clear_ranks(args, shared);
        for (uint32_t begin = 0; begin < t.rows; begin += rows_at_once<0>(args))
            list_rows<BF16>(args, t, begin, t.payload + args.tail + l.first, shared);
    }
}

/* --- both ways: scan ------------------------------------------------------------------------------------ */

/* Of a part: numbers of exceptions become the places of their tiles' first ones. Returns their sum. */
TS_DEVICE uint32_t scan_counts(const codec_args &args, uint32_t part, codec_small &shared)
{
    uint32_t *counts = args.counts + part * args.tiles, total = 0;
    for (uint32_t begin = 0; begin < args.tiles; begin += blockDim.x * SCAN_EACH) {
        uint32_t own[SCAN_EACH], first = begin + threadIdx.x * SCAN_EACH, sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < SCAN_EACH; i++) {
            own[i] = first + i < args.tiles ? counts[first + i] : 0;
            sum += own[i];
        }
        uint32_t through = sum; /* the thread's own and those of lower lanes */
        for (uint32_t distance = 1; distance < 32; distance *= 2) {
            uint32_t lower = __shfl_up_sync(KERNEL_FULL_WARP, through, distance);
            through += threadIdx.x % 32 >= distance ? lower : 0;
        }
        if (threadIdx.x % 32 == 31)
            shared.words[threadIdx.x / 32] = through;
        __syncthreads();
        uint32_t at = total + through - sum;
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) {
            at += warp < threadIdx.x / 32 ? shared.words[warp] : 0;
            total += shared.words[warp];
        }
#pragma unroll
        for (uint32_t i = 0; i < SCAN_EACH; i++) {
            if (first + i < args.tiles)
                counts[first + i] = at;
            at += own[i];
        }
        __syncthreads();
    }
    return total;
}

/* Where the list is filled up to 16 bytes; NULL for threads that have no byte of that. */
TS_DEVICE uint8_t *list_padding(const codec_args &args, uint32_t part, uint32_t total)
{
    bool there = threadIdx.x < (16 - total % 16) % 16;
    return there ? args.part[part].payload + args.tail + total + threadIdx.x : nullptr;
}

TS_DEVICE bool all_lossless(const codec_args &args)
{
    return args.sides[0].lossless && args.sides[1].lossless;
}

/* Encoding. The rest of the payload is the affair of the launch for the other side, if there is one. */
TS_DEVICE void scan(const codec_args &args, codec_small &shared)
{
    uint32_t part = blockIdx.x, total = scan_counts(args, part, shared);
    uint8_t *padding = list_padding(args, part, total);
    if (padding)
        *padding = 0;
    if (threadIdx.x == 0) {
        args.state[part].exceptions = total;
        args.state[part].escapes = 0;
        args.state[part].faults = 0;
    }
    if (all_lossless(args))
        clear_frames(args);
}

/* Restoring: also whether there are as many exceptions as codes say. Raw tiles are told from what is left by
 * who looks for them. */
TS_DEVICE void check(const codec_args &args, codec_small &shared)
{
    uint32_t part = blockIdx.x, total = scan_counts(args, part, shared);
    bool fits = (total + 15) / 16 * 16 <= args.part[part].tail_bytes;
    const uint8_t *padding = fits ? list_padding(args, part, total) : nullptr;
    if (threadIdx.x == 0)
        args.state[part].exceptions = fits ? total : CODEC_LIST_WRONG;
    uint32_t faults = __syncthreads_or(padding && *padding != 0) ? CODEC_FAULT_CONTENT : 0;
    if (all_lossless(args))
        faults |= frame_faults(args, part, shared);
    tell(args, part, faults | (fits ? 0 : CODEC_FAULT_LIST));
}

/* --- restoring: count ----------------------------------------------------------------------------------- */

/* Codes that go below exponent zero. Those of exceptions have no less of a base: their exponents lie farther
 * below it. */
TS_DEVICE uint32_t below_zero(uint32_t codes, uint32_t base)
{
    return ~((min(base, 15) * BYTES | TOPS) - codes) & TOPS;
}

/* Returns whether the thread's codes are none that an encoder writes. */
template <bool BF16>
TS_DEVICE bool count_rows(const codec_args &args, const tile &t, uint32_t begin, lossless_pack &shared)
{
    quarters q = quarters_of(args, t, begin);
    if (!q.active)
        return false;
    uint32_t runs[4], count = 0, base = *base_at(args, t, q), below = 0;
    load_nibbles(args, q, planes_at<BF16>(args, t, q), runs);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t codes = runs[i] & exception_code<BF16>() * BYTES;
        count += (uint32_t)__popc(exceptions_in<BF16>(codes));
        below |= below_zero(codes, base);
    }
    if (count)
        atomicAdd(&shared.count, count);
    return below != 0 || (!BF16 && base > 31);
}

template <bool BF16> TS_DEVICE void count(const codec_args &args, lossless_pack &shared)
{
    for (uint32_t number = blockIdx.x; number < args.tiles * args.parts; number += gridDim.x) {
        tile t = tile_of(args, number);
        bool wrong = false;
        if (threadIdx.x == 0)
            shared.count = 0;
        __syncthreads();
        for (uint32_t begin = 0; args.sides[t.kv].lossless && begin < t.rows; begin += rows_at_once<0>(args))
            wrong |= count_rows<BF16>(args, t, begin, shared);
        wrong = __syncthreads_or(wrong);
        if (threadIdx.x == 0)
            args.counts[number] = shared.count;
        tell(args, t.part, wrong ? CODEC_FAULT_CONTENT : 0);
    }
}

/* --- restoring: unpack ---------------------------------------------------------------------------------- */

/* Exponents of a run in the place of what their codes gave. Returns whether one is in the window. */
template <bool BF16>
TS_DEVICE bool put_exceptions(const uint8_t *from, uint32_t exceptions, uint32_t base, uint32_t *exponents)
{
    bool wrong = false;
    for (uint32_t left = gathered(exceptions); left; left &= left - 1) {
        uint32_t shift = 8 * ((uint32_t)__ffs((int)left) - 1), exponent = *from++;
        *exponents = (*exponents & ~(255u << shift)) | exponent << shift;
        wrong |= exponent + exception_code<BF16>() > base;
    }
    return wrong;
}

/* Four elements of their bytes. */
template <bool BF16>
TS_DEVICE uint2 run_of(uint32_t exponents, uint32_t low, uint32_t nibbles, uint32_t pairs)
{
    uint32_t high;
    if (BF16) {
        high = (low & TOPS) | (exponents >> 1 & ~TOPS);
        low = (low & ~TOPS) | (exponents & BYTES) << 7;
    } else {
        high = (nibbles & 0x08080808u) << 4 | (exponents & 0x1f1f1f1fu) << 2 | (pairs & 0x03030303u);
    }
    return make_uint2(__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362));
}

/* Returns whether an exception of the thread's is none that an encoder writes. */
template <bool BF16>
TS_DEVICE bool unpack_rows(const codec_args &args, const tile &t, uint32_t begin, const uint8_t *first,
                           lossless_ranks &shared)
{
    quarters q = quarters_of(args, t, begin);
    const uint8_t *planes = planes_at<BF16>(args, t, q);
    uint32_t nibbles[4] = {0, 0, 0, 0}, low[4] = {0, 0, 0, 0}, exceptions[4], base = 0, pairs = 0;
    bool wrong = false;
    if (q.active) {
        base = *base_at(args, t, q);
        load_nibbles(args, q, planes, nibbles);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            low[i] = *(const uint32_t *)(planes + i * q.quarter);
        pairs = BF16 ? 0 : *(const uint32_t *)(planes + args.head_dim + 2 * q.quarter);
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        exceptions[i] = exceptions_in<BF16>(nibbles[i] & exception_code<BF16>() * BYTES);
    if (q.active)
        mark(args, q, exceptions, shared);
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t exponents = base * BYTES - (nibbles[i] & exception_code<BF16>() * BYTES);
        if (exceptions[i])
            wrong |= put_exceptions<BF16>(first + rank_in_tile(args, shared, q.row, q.first + i * q.quarter),
                                          exceptions[i], base, &exponents);
        if (q.active)
            *(uint2 *)run_in_pool(args, t, q, i) =
                run_of<BF16>(exponents, low[i], nibbles[i], pairs >> 2 * i);
    }
    return wrong;
}

/* Nothing of a part whose exceptions are not all there: its other tiles stand in no relation to the list. */
template <bool BF16> TS_DEVICE void unpack(const codec_args &args, lossless_ranks &shared)
{
    for (uint32_t number = blockIdx.x; number < args.tiles * args.parts; number += gridDim.x) {
        tile t = tile_of(args, number);
        if (!args.sides[t.kv].lossless || args.state[t.part].exceptions == CODEC_LIST_WRONG)
            continue;
        const uint8_t *first = t.payload + args.tail + args.counts[number];
        bool wrong = false;
        clear_ranks(args, shared);
        for (uint32_t begin = 0; begin < t.rows; begin += rows_at_once<0>(args))
            wrong |= unpack_rows<BF16>(args, t, begin, first, shared);
        tell(args, t.part, __syncthreads_or(wrong) ? CODEC_FAULT_CONTENT : 0);
    }
}

#endif
