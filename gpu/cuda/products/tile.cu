/*
 * y = x W^T for many tokens on tensor cores, with the bits of skinny.cu for TILE_SPLIT warps: weights are
 * operand A, tokens B, a lane has the same 16 bytes of a piece of 64, and the sum of a token and an output is
 *
 *     total = 0; for part in 0 .. 7: { sum = 0; for piece = part, part + 8, ..: two MMAs (int8: four);
 *                                      total += sum }
 *
 * which is what skinny.cu's warps do side by side and add up. Pieces beyond the last are zeros and change
 * nothing. A row of x has the same result whatever kernel, number of rows and place in the batch.
 *
 *     block     128 (64) outputs x 128 tokens, all parts one after the other
 *     warp      64 (32) x 32 of them: 4 (2) x 4 tiles of mma.m16n8k16, sums and totals in registers
 *     stage     two pieces (int8: one) of all rows, copied asynchronously, TILE_STAGES of them on their way
 *     blocks    TILE_BAND tiles of outputs take turns, then the next tokens: blocks that run at the same
 *               time share weights and tokens, which come from the L2 cache but for the first time
 *
 * Banks: 8 lanes that load 16 bytes at a time have 4 chunks of two neighbouring rows, 128 bytes in a row. A
 * row of int8's tokens has 128 bytes; its even chunks are in one half of the stage, the odd ones in the
 * other, with rows 2i and 2i + 1 exchanged, so that 8 lanes that copy a row write 128 different bytes of the
 * banks.
 *
 * Counts for each piece, 128 outputs, 16 bits: a warp has 32 MMAs and 12 loads of 512 bytes; a block 256 MMAs
 * (256 cycles of an H100's tensor cores at their full rate, 410 if mma.sync reaches five eighths of it),
 * 48 KiB read from shared memory and 16 KiB written (512 cycles), 16 KiB from the L2 cache (550 cycles if it
 * gives 5.5 to 7 TB/s to 132 processors). So no more than about 450 TFLOP/s; estimated are 300 to 350, and 90
 * ms for the products of 2048 tokens of an 8B model. int8 has twice the MMAs to a piece and a half more from
 * the L2 cache, a quarter less for each product. No GPU has measured any of it.
 */
#include "gpu/cuda/products/skinny.cuh"
#include "gpu/cuda/products/tile_args.h"

#define TOKEN_TILES 4u /* of a warp */
#define CHUNKS      4u /* of 16 bytes of a piece */

template <bool int8, int row_tiles> struct tile_stage {
    uint4 weights[TILE_PIECES(int8)][TILE_OUTPUTS(row_tiles)][CHUNKS];
    uint4 tokens[2][TILE_TOKENS][CHUNKS]; /* of either piece; int8: even and odd chunks */
};

template <bool int8, int row_tiles> struct tile_shared {
    tile_stage<int8, row_tiles> stages[TILE_STAGES];
};

/* What a block works on. */
struct tile_place {
    uint32_t first_row, first_token;
    uint32_t last_row, last_token; /* of those that are there, from the first */
};

template <int row_tiles> TS_DEVICE tile_place place_of(const skinny_args &args)
{
    constexpr uint32_t outputs = TILE_OUTPUTS(row_tiles);
    const uint32_t row_blocks = (args.outputs + outputs - 1) / outputs;
    const uint32_t token_blocks = (args.m + TILE_TOKENS - 1) / TILE_TOKENS;
    const uint32_t band = blockIdx.x / (TILE_BAND * token_blocks), first = band * TILE_BAND;
    const uint32_t rows = min(TILE_BAND, row_blocks - first),
                   index = blockIdx.x - band * TILE_BAND * token_blocks;
    tile_place p;
    p.first_row = (first + index % rows) * outputs;
    p.first_token = index / rows * TILE_TOKENS;
    p.last_row = min(outputs, args.outputs - p.first_row) - 1;
    p.last_token = min(TILE_TOKENS, args.m - p.first_token) - 1;
    return p;
}

/* --- what comes ----------------------------------------------------------------------------------------- */

/* The stage that is copied next. */
struct tile_next {
    const uint8_t *weights, *tokens; /* of the block's first row and token */
    uint32_t byte;                   /* of a weight row: its first piece */
    uint32_t left, left_of_part;     /* stages, this one included */
    uint32_t part, slot;
};

template <bool int8> TS_DEVICE uint32_t row_bytes_of(const skinny_args &args)
{
    return args.inputs * (int8 ? 1 : 2);
}

/* Parts that have pieces. */
template <bool int8> TS_DEVICE uint32_t parts_of(const skinny_args &args)
{
    return min(TILE_SPLIT, (row_bytes_of<int8>(args) + TILE_PIECE_BYTES - 1) / TILE_PIECE_BYTES);
}

/* Stages of each part, the same for all. */
template <bool int8> TS_DEVICE uint32_t stages_of(const skinny_args &args)
{
    constexpr uint32_t bytes = TILE_SPLIT * TILE_PIECES(int8) * TILE_PIECE_BYTES;
    return (row_bytes_of<int8>(args) + bytes - 1) / bytes;
}

template <bool int8, int row_tiles>
TS_DEVICE void copy_weights(const skinny_args &args, const tile_place &p, tile_stage<int8, row_tiles> &stage,
                            const tile_next &next)
{
    const uint32_t row_bytes = row_bytes_of<int8>(args);
#pragma unroll
    for (uint32_t i = 0; i < TILE_PIECES(int8); i++) {
        uint32_t byte = next.byte + i * TILE_SPLIT * TILE_PIECE_BYTES + threadIdx.x % CHUNKS * 16;
#pragma unroll
        for (uint32_t r = 0; r < TILE_OUTPUTS(row_tiles); r += TILE_THREADS / CHUNKS) {
            uint32_t row = r + threadIdx.x / CHUNKS;
            kernel_copy_async(&stage.weights[i][row][threadIdx.x % CHUNKS],
                              next.weights + (uint64_t)min(row, p.last_row) * row_bytes + byte,
                              byte < row_bytes);
        }
    }
}

/* Of the same pieces; what lies beyond the inputs is nothing, as of weights. */
template <bool int8, int row_tiles>
TS_DEVICE void copy_tokens(const skinny_args &args, const tile_place &p, tile_stage<int8, row_tiles> &stage,
                           const tile_next &next)
{
    constexpr uint32_t chunks = CHUNKS * (int8 ? 2 : 1);
    const uint32_t token_bytes = args.inputs * 2, chunk = threadIdx.x % chunks;
#pragma unroll
    for (uint32_t i = 0; i < TILE_PIECES(int8); i++) {
        uint32_t byte = next.byte * (int8 ? 2 : 1) + i * TILE_SPLIT * TILE_PIECE_BYTES + chunk * 16;
#pragma unroll
        for (uint32_t r = 0; r < TILE_TOKENS; r += TILE_THREADS / chunks) {
            uint32_t token = r + threadIdx.x / chunks;
            uint4 *to = int8 ? &stage.tokens[chunk % 2][token ^ (chunk % 2)][chunk / 2]
                             : &stage.tokens[i][token][chunk];
            kernel_copy_async(to, next.tokens + (uint64_t)min(token, p.last_token) * token_bytes + byte,
                              byte < token_bytes);
        }
    }
}

/* A group of copies, empty when all is on its way. */
template <bool int8, int row_tiles>
TS_DEVICE void copy_next(const skinny_args &args, const tile_place &p, tile_shared<int8, row_tiles> &shared,
                         tile_next &next)
{
    if (next.left > 0) {
        copy_weights<int8, row_tiles>(args, p, shared.stages[next.slot], next);
        copy_tokens<int8, row_tiles>(args, p, shared.stages[next.slot], next);
        next.left--;
        next.byte += TILE_SPLIT * TILE_PIECES(int8) * TILE_PIECE_BYTES;
        next.slot = next.slot + 1 == TILE_STAGES ? 0 : next.slot + 1;
        if (--next.left_of_part == 0) {
            next.left_of_part = stages_of<int8>(args);
            next.byte = ++next.part * TILE_PIECE_BYTES;
        }
    }
    kernel_copy_commit();
}

/* --- what is multiplied --------------------------------------------------------------------------------- */

/* Which of the block's are a warp's: two warps to the outputs, four to the tokens. */
template <int row_tiles> TS_DEVICE uint32_t warp_row()
{
    return threadIdx.x / 32 % 2 * (SKINNY_ROWS * row_tiles);
}

TS_DEVICE uint32_t warp_token()
{
    return threadIdx.x / 64 * (SKINNY_TOKENS * TOKEN_TILES);
}

/* A lane's words of piece `i` of the tokens: 4 of each token tile, or 8 with int8. */
template <bool int8, int row_tiles>
TS_DEVICE void take_tokens(uint32_t (*b)[int8 ? 8 : 4], const tile_stage<int8, row_tiles> &stage, uint32_t i)
{
    const uint32_t group = threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
#pragma unroll
    for (uint32_t n = 0; n < TOKEN_TILES; n++) {
        const uint32_t token = warp_token() + n * SKINNY_TOKENS + group;
#pragma unroll
        for (uint32_t half = 0; half < (int8 ? 2 : 1); half++) {
            uint4 words = stage.tokens[i + half][token ^ half][lane];
            b[n][4 * half] = words.x;
            b[n][4 * half + 1] = words.y;
            b[n][4 * half + 2] = words.z;
            b[n][4 * half + 3] = words.w;
        }
    }
}

template <bool bf16, bool int8, int row_tiles>
TS_DEVICE void multiply_stage(float (*d)[TOKEN_TILES][4], const tile_stage<int8, row_tiles> &stage)
{
    const uint32_t group = threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
#pragma unroll
    for (uint32_t i = 0; i < TILE_PIECES(int8); i++) {
        uint32_t b[TOKEN_TILES][int8 ? 8 : 4];
        take_tokens<int8, row_tiles>(b, stage, i);
#pragma unroll
        for (int r = 0; r < row_tiles; r++) {
            const uint32_t row = warp_row<row_tiles>() + r * SKINNY_ROWS + group;
            const uint4 low = stage.weights[i][row][lane], high = stage.weights[i][row + 8][lane];
#pragma unroll
            for (int k = 0; k < (int8 ? 4 : 2); k++) {
                uint32_t a[4];
                skinny_operand<bf16, int8>(a, low, high, k);
#pragma unroll
                for (uint32_t n = 0; n < TOKEN_TILES; n++)
                    skinny_multiply<bf16>(d[r][n], a, b[n] + 2 * k);
            }
        }
    }
}

/* --- the end -------------------------------------------------------------------------------------------- */

/* Of tile `n` of a lane's tokens, number `i` of a fragment is row g + 8 (i / 2) and token 2 t + i % 2: its
 * token, from the block's first one. */
TS_DEVICE uint32_t token_of(uint32_t n, uint32_t i)
{
    return warp_token() + n * SKINNY_TOKENS + threadIdx.x % 4 * 2 + i % 2;
}

/* Adds what y holds: 16 loads are under way before the first is waited for. */
TS_DEVICE void add_before(const skinny_args &args, const tile_place &p, float (*d)[4], uint32_t row)
{
    float before[TOKEN_TILES][4];
#pragma unroll
    for (uint32_t i = 0; i < 4 * TOKEN_TILES; i++) {
        const uint32_t output = row + i % 4 / 2 * 8, token = token_of(i / 4, i);
        before[i / 4][i % 4] = 0;
        if (output <= p.last_row && token <= p.last_token)
            before[i / 4][i % 4] =
                ((const float *)
                     args.y)[(uint64_t)(p.first_token + token) * args.outputs + p.first_row + output];
    }
#pragma unroll
    for (uint32_t i = 0; i < 4 * TOKEN_TILES; i++)
        d[i / 4][i % 4] += before[i / 4][i % 4];
}

template <bool bf16>
TS_DEVICE void store(const skinny_args &args, const tile_place &p, const float (*d)[4], uint32_t row)
{
#pragma unroll
    for (uint32_t i = 0; i < 4 * TOKEN_TILES; i++) {
        const uint32_t output = row + i % 4 / 2 * 8, token = token_of(i / 4, i);
        const uint64_t at = (uint64_t)(p.first_token + token) * args.outputs + p.first_row + output;
        if (output > p.last_row || token > p.last_token)
            continue;
        if (args.y_kind == SKINNY_Y_16)
            ((uint16_t *)args.y)[at] = (uint16_t)skinny_narrow<bf16>(d[i / 4][i % 4]);
        else
            ((float *)args.y)[at] = d[i / 4][i % 4];
    }
}

/* Gates are rows 0 .. 7 of each 16, what belongs to them 8 .. 15: a lane has both. */
template <bool bf16>
TS_DEVICE void store_swiglu(const skinny_args &args, const tile_place &p, const float (*d)[4], uint32_t row)
{
#pragma unroll
    for (uint32_t i = 0; i < 2 * TOKEN_TILES; i++) {
        const uint32_t token = token_of(i / 2, i);
        if (row <= p.last_row && token <= p.last_token)
            skinny_store_swiglu<bf16>(args, p.first_token + token, p.first_row + row, d[i / 2][i % 2],
                                      d[i / 2][i % 2 + 2]);
    }
}

template <bool bf16, bool int8>
TS_DEVICE void finish(const skinny_args &args, const tile_place &p, float (*d)[4], uint32_t row)
{
    if (int8) {
#pragma unroll
        for (uint32_t i = 0; i < 4 * TOKEN_TILES; i++) {
            uint32_t output = p.first_row + min(row + i % 4 / 2 * 8, p.last_row);
            d[i / 4][i % 4] = skinny_scaled<bf16>(args, output, d[i / 4][i % 4]);
        }
    }
    if (args.y_kind == SKINNY_Y_ADD_F32)
        add_before(args, p, d, row);
    if (args.y_kind == SKINNY_SWIGLU)
        store_swiglu<bf16>(args, p, d, row);
    else
        store<bf16>(args, p, d, row);
}

/* --- all of it ------------------------------------------------------------------------------------------ */

/* Adds the sums of a part to the totals and begins the next ones. */
template <int row_tiles> TS_DEVICE void end_part(float (*total)[TOKEN_TILES][4], float (*d)[TOKEN_TILES][4])
{
#pragma unroll
    for (uint32_t i = 0; i < 4 * TOKEN_TILES * row_tiles; i++) {
        const uint32_t r = i / (4 * TOKEN_TILES), n = i / 4 % TOKEN_TILES;
        total[r][n][i % 4] += d[r][n][i % 4];
        d[r][n][i % 4] = 0;
    }
}

template <bool bf16, bool int8, int row_tiles>
TS_DEVICE void run(const skinny_args &args, tile_shared<int8, row_tiles> &shared)
{
    const tile_place p = place_of<row_tiles>(args);
    const uint32_t of_part = stages_of<int8>(args), stages = parts_of<int8>(args) * of_part;
    float d[row_tiles][TOKEN_TILES][4], total[row_tiles][TOKEN_TILES][4];
    tile_next next = {args.w + (uint64_t)p.first_row * row_bytes_of<int8>(args),
                      args.x + (uint64_t)p.first_token * args.inputs * 2,
                      0,
                      stages,
                      of_part,
                      0,
                      0};
#pragma unroll
    for (uint32_t i = 0; i < 4 * TOKEN_TILES * row_tiles; i++)
        d[i / (4 * TOKEN_TILES)][i / 4 % TOKEN_TILES][i % 4] =
            total[i / (4 * TOKEN_TILES)][i / 4 % TOKEN_TILES][i % 4] = 0;
#pragma unroll
    for (uint32_t s = 0; s + 1 < TILE_STAGES; s++)
        copy_next<int8, row_tiles>(args, p, shared, next);
    for (uint32_t slot = 0, left = stages, left_of_part = of_part; left > 0; left--) {
        kernel_copy_wait<TILE_STAGES - 2>();
        __syncthreads(); /* what others copied is there; all are through with the stage that comes anew */
        copy_next<int8, row_tiles>(args, p, shared, next);
        multiply_stage<bf16, int8, row_tiles>(d, shared.stages[slot]);
        slot = slot + 1 == TILE_STAGES ? 0 : slot + 1;
        if (--left_of_part == 0) {
            left_of_part = of_part;
            end_part<row_tiles>(total, d);
        }
    }
#pragma unroll
    for (int r = 0; r < row_tiles; r++)
        finish<bf16, int8>(args, p, total[r], warp_row<row_tiles>() + r * SKINNY_ROWS + threadIdx.x % 32 / 4);
}

#define TILE_KERNEL(name, bf16, int8, row_tiles)                                                             \
    TS_KERNEL(name, TILE_THREADS, skinny_args)                                                               \
    {                                                                                                        \
        typedef tile_shared<int8, row_tiles> shared_type;                                                    \
        static_assert(sizeof(shared_type) == TILE_BYTES(int8, row_tiles), "as the launch has it");           \
        TS_SHARED_LARGE(shared_type, shared);                                                                \
        run<bf16, int8, row_tiles>(args, shared);                                                            \
    }
TILE_KERNELS(TILE_KERNEL)
