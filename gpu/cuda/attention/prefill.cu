/*
 * Attention of rows of several tokens: FlashAttention-2 (arXiv 2307.08691, algorithm 1) over the paged pool.
 * A block of threads has 64 or 128 *pairs* of token and query head that share a KV head, so that keys are
 * read once for all of them, and whatever is behind the last token of its pairs is skipped; each of its 4
 * warps has one or two slabs of 16 pairs, alone. Keys and values come in tiles of 64 (32 for wide heads) at
 * absolute positions, from the pool to shared memory in two stages: one is copied while the other one is
 * multiplied.
 *
 * Which pairs share a slab, or how many there are, changes nothing in what a pair adds, in which order: a
 * tile that a pair does not see adds zeros to it.
 */
#include "gpu/cuda/attention/attention.cuh"

/* A block of threads' part of the batch. */
struct piece {
    uint32_t row, token, kv_head;
    uint32_t start, begin, pairs; /* pairs begin .. of as many of the row */
    uint32_t from, to;            /* keys that one of the pairs sees */
};

template <int W, int slabs> struct prefill_shared {
    uint16_t query[ATTENTION_WARPS * slabs * ATTENTION_SLAB * W];   /* later the results */
    uint16_t tile[ATTENTION_STAGES][2][ATTENTION_TILE_KEYS(W) * W]; /* K and V */
    piece kept; /* for the loop, whose registers are all taken */
};

TS_DEVICE piece piece_of(const attention_args &args, uint32_t pairs)
{
    const attention_tile &t = args.tiles[blockIdx.x / args.kv_heads];
    piece p;
    p.row = t.row;
    p.token = t.token;
    p.kv_head = blockIdx.x % args.kv_heads;
    p.start = t.start;
    p.begin = t.begin;
    p.pairs = t.count * args.group;
    uint32_t first = t.start + t.begin / args.group,
             last = t.start + (min(t.begin + pairs, p.pairs) - 1) / args.group;
    p.to = last + 1;
    p.from = args.window && first >= args.window ? first + 1 - args.window : 0;
    return p;
}

/* Where the pair's query lies, and its result. */
TS_DEVICE uint64_t pair_place(const attention_args &args, const piece &p, uint32_t pair)
{
    uint32_t token = pair / args.group, head = p.kv_head * args.group + pair % args.group;
    return ((uint64_t)(p.token + token) * args.kv_heads * args.group + head) * args.head_dim;
}

template <int W, int slabs>
TS_DEVICE void copy_queries(const attention_args &args, const piece &p, prefill_shared<W, slabs> &shared)
{
#pragma unroll 2
    for (uint32_t i = 0; i < slabs * W / 16; i++) {
        uint32_t at = threadIdx.x + ATTENTION_THREADS * i, row = at / (W / 8), chunk = at % (W / 8);
        bool valid = p.begin + row < p.pairs;
        copy_chunk<W>(shared.query + place<W>(row, chunk),
                      args.q + (valid ? pair_place(args, p, p.begin + row) : 0), chunk, args.head_dim, valid);
    }
}

/* Block of the pool, of a tile, that the warp copies: K and V, or one of both when there are too few. */
template <int W> TS_DEVICE uint32_t warp_block()
{
    return threadIdx.x / 32 % (ATTENTION_TILE_KEYS(W) / ATTENTION_BLOCK);
}

/* Its number in the pool; asked for a tile ahead. */
template <int W> TS_DEVICE uint32_t block_id(const attention_args &args, const piece &p, uint32_t tile)
{
    uint32_t index = tile * (ATTENTION_TILE_KEYS(W) / ATTENTION_BLOCK) + warp_block<W>();
    bool valid = index * ATTENTION_BLOCK < p.to && (index + 1) * ATTENTION_BLOCK > p.from;
    return valid ? args.table[(uint64_t)p.row * args.table_step + index] : 0;
}

template <int W, int slabs>
TS_DEVICE void copy_tile(const attention_args &args, const piece &p, prefill_shared<W, slabs> &shared,
                         uint32_t tile, uint32_t id, uint32_t stage)
{
    constexpr uint32_t blocks = ATTENTION_TILE_KEYS(W) / ATTENTION_BLOCK,
                       passes = 2 * blocks / ATTENTION_WARPS;
    uint32_t block = warp_block<W>(), first = tile * ATTENTION_TILE_KEYS(W) + block * ATTENTION_BLOCK;
#pragma unroll
    for (uint32_t i = 0; i < passes; i++) {
        uint32_t kv = (threadIdx.x / 32 + i * ATTENTION_WARPS) / blocks;
        copy_block<W>(shared.tile[stage][kv] + block * ATTENTION_BLOCK * W,
                      args.pool + block_place(args, id, kv, p.kv_head), args.head_dim,
                      (int)p.from - (int)first, (int)p.to - (int)first);
    }
}

/* Scores of keys that a pair does not see. What this needs is asked for anew, as at the end: tiles to be
 * masked are few, and registers around the loop precious. */
template <int slabs, int keys>
TS_DEVICE void mask(const attention_args &args, float score[slabs][keys / 8][4], uint32_t first)
{
    constexpr uint32_t own = slabs * ATTENTION_SLAB;
    piece p = piece_of(args, ATTENTION_WARPS * own);
    uint32_t lane = threadIdx.x % 32, begin = p.begin + threadIdx.x / 32 * own;
#pragma unroll
    for (int m = 0; m < 2 * slabs; m++) {
        uint32_t pair = min(begin + m * 8 + lane / 4, p.pairs - 1), at = p.start + pair / args.group;
#pragma unroll
        for (int i = 0; i < keys / 4; i++) {
            uint32_t key = first + i / 2 * 8 + lane % 4 * 2 + i % 2;
            if (key > at || (args.window && key + args.window <= at))
                score[m / 2][i / 2][m % 2 * 2 + i % 2] = minus_infinity();
        }
    }
}

/* From registers over the warp's own part of shared memory to the batch, in runs of 16 bytes. */
template <int W, int slabs, bool bf16>
TS_DEVICE void store(const attention_args &args, sums<W, slabs> &s, uint16_t *shared)
{
    constexpr uint32_t own = slabs * ATTENTION_SLAB;
    piece p = piece_of(args, ATTENTION_WARPS * own);
    uint32_t lane = threadIdx.x % 32, begin = p.begin + threadIdx.x / 32 * own;
    __syncwarp(); /* the queries that lay there have been read by all lanes */
#pragma unroll
    for (int i = 0; i < 2 * slabs; i++) {
        float factor = 1.0f / row_sum(s.sum[i / 2][i % 2]);
#pragma unroll
        for (int n = 0; n < W / 8; n++) {
            const float *out = s.out[i / 2][n] + i % 2 * 2;
            uint32_t *to = (uint32_t *)(shared + place<W>(i * 8 + lane / 4, n)) + lane % 4;
            *to = narrow<bf16>(out[0] * factor, out[1] * factor);
        }
    }
    __syncwarp();
#pragma unroll 2
    for (uint32_t i = 0; i < slabs * W / 16; i++) {
        uint32_t at = lane + 32 * i, row = at / (W / 8), chunk = at % (W / 8);
        if (begin + row < p.pairs && chunk * 8 < args.head_dim)
            store_chunk<W>(args.out + pair_place(args, p, begin + row), shared + place<W>(row, chunk), chunk,
                           args.head_dim);
    }
}

template <int W, int slabs, bool bf16>
TS_DEVICE void prefill(const attention_args &args, prefill_shared<W, slabs> &shared)
{
    constexpr uint32_t keys = ATTENTION_TILE_KEYS(W), own = slabs * ATTENTION_SLAB;
    piece p = piece_of(args, ATTENTION_WARPS * own);
    uint32_t warp = threadIdx.x / 32, begin = p.begin + warp * own, tile = p.from / keys,
             last = (p.to - 1) / keys;
    uint32_t stage = 0;
    uint32_t first = p.start + min(begin, p.pairs - 1) / args.group; /* position of the warp's first pair */
    uint32_t end =
        begin < p.pairs ? p.start + (min(begin + own, p.pairs) - 1) / args.group + 1 : 0; /* of its keys */
    sums<W, slabs> s;
    begin_sums(s);
    if (threadIdx.x == 0)
        shared.kept = p;
    copy_queries(args, p, shared);
    copy_tile(args, p, shared, tile, block_id<W>(args, p, tile), 0);
    kernel_copy_commit();
    uint32_t id = block_id<W>(args, p, tile + 1);
    for (; tile <= last; tile++, stage ^= 1) {
        kernel_copy_wait<0>();
        __syncthreads();
        if (tile < last)
            copy_tile(args, shared.kept, shared, tile + 1, id, stage ^ 1);
        kernel_copy_commit();
        id = block_id<W>(args, shared.kept, tile + 2);
        uint32_t key = tile * keys;
        if (key >= end || (args.window && key + keys + args.window <= first + 1))
            continue;
        float score[slabs][keys / 8][4];
        multiply_keys<W, slabs, keys, bf16>(score, shared.query + anew<slabs>(threadIdx.x / 32) * own * W,
                                            shared.tile[stage][0]);
        if (key + keys > first + 1 || (args.window && key + args.window < end))
            mask<slabs, keys>(args, score, key);
        weigh<W, slabs, keys>(s, score, args.scale);
        add_values<W, slabs, keys, bf16>(s, score, shared.tile[stage][1]);
    }
    store<W, slabs, bf16>(args, s, shared.query + warp * own * W);
}

#define PREFILL(W, slabs, type, bf16)                                                                        \
    TS_KERNEL(cuda_prefill_##type##_##W##_##slabs, ATTENTION_THREADS, attention_args)                        \
    {                                                                                                        \
        typedef prefill_shared<W, slabs> shared_type;                                                        \
        static_assert(sizeof(shared_type) == ATTENTION_PREFILL_BYTES(W, slabs), "as the launch has it");     \
        TS_SHARED_LARGE(shared_type, shared);                                                                \
        if (args.tiles[blockIdx.x / args.kv_heads].count == 0) /* of a graph for more rows */                \
            return;                                                                                          \
        prefill<W, slabs, bf16>(args, shared);                                                               \
    }
#define PREFILL_1(W) PREFILL(W, 1, f16, false) PREFILL(W, 1, bf16, true)
#define PREFILL_2(W) PREFILL(W, 2, f16, false) PREFILL(W, 2, bf16, true)

ATTENTION_WIDTHS(PREFILL_1)
ATTENTION_WIDE_TILES(PREFILL_2)
