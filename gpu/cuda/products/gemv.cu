/*
 * y = x W^T for one or two tokens without tensor cores: a warp has two rows of weights for each pair, q and
 * q + 8 of a run of 16 (so that a gate and its value meet in SwiGLU), and all of their sums. A thread loads
 * 16 bytes, neighbouring lanes neighbouring bytes: 512 of a row at a time. Products are of fp32; a thread
 * adds them in the order of inputs, lanes are added by halves. Where a row ends within a piece, the rest is
 * zero.
 *
 * On an H100, bf16, one token: 0.82 of the bandwidth of copies for 4096 x 4096, 0.89 for 6144 x 4096, 0.95
 * for 4096 x 14336, 1.02 for 28672 x 4096.
 *
 * int8 took 45 us for 28672 x 4096 and 11.4 for 4096 x 4096, with 72 instructions for each 512 bytes of a
 * warp's weights, 16 of them conversions. It has 75 now (p2: 66) and no conversion (skinny.cuh); estimated
 * are 41 to 43 and 9 to 10 us, no GPU has measured it.
 */
#include "gpu/cuda/products/skinny.cuh"

#define PIECE 512u /* bytes of a weight row that a warp loads at a time */

template <bool bf16> TS_DEVICE void widen_2(float *out, uint32_t word)
{
    out[0] = bf16 ? kernel_float_of(word << 16) : kernel_widen_f16(word & 0xffff);
    out[1] = bf16 ? kernel_float_of(word & 0xffff0000u) : kernel_widen_f16(word >> 16);
}

template <bool bf16> TS_DEVICE void widen_8(float *out, const uint4 &words)
{
    widen_2<bf16>(out, words.x);
    widen_2<bf16>(out + 2, words.y);
    widen_2<bf16>(out + 4, words.z);
    widen_2<bf16>(out + 6, words.w);
}

/* 8 weights, or 16 with int8. */
template <bool bf16, bool int8> TS_DEVICE void widen_weights(float *out, const uint4 &words)
{
    const uint32_t of[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int word = 0; word < 4; word++) {
        if (int8) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[(4 * word + i) % (int8 ? 16 : 8)] = skinny_int8(of[word], i);
        } else {
            widen_2<bf16>(out + 2 * word % (int8 ? 16 : 8), of[word]);
        }
    }
}

template <int rows>
TS_DEVICE void load_rows(uint4 *w, const uint8_t *base, const uint32_t *offsets, uint32_t byte,
                         uint32_t row_bytes)
{
#pragma unroll
    for (int r = 0; r < rows; r++) {
        w[r] = make_uint4(0, 0, 0, 0);
        if (byte < row_bytes)
            w[r] = kernel_load_weights(base + offsets[r] + byte);
    }
}

/* Adds what one piece gives to the sums of each row and token. */
template <bool bf16, bool int8, int rows, int count>
TS_DEVICE void multiply_piece(float (*sums)[count], const uint4 *w, const uint8_t *const *tokens,
                              uint32_t byte, uint32_t row_bytes)
{
    constexpr int elements = int8 ? 16 : 8;
    float x[count][elements];
#pragma unroll
    for (int n = 0; n < count; n++) {
#pragma unroll
        for (int i = 0; i < elements / 8; i++) {
            uint4 words = make_uint4(0, 0, 0, 0);
            if (byte < row_bytes)
                words = *(const uint4 *)(tokens[n] + byte * (elements / 8) + i * 16);
            widen_8<bf16>(x[n] + 8 * i, words);
        }
    }
#pragma unroll
    for (int r = 0; r < rows; r++) {
        float weights[elements];
        widen_weights<bf16, int8>(weights, w[r]);
#pragma unroll
        for (int n = 0; n < count; n++) {
#pragma unroll
            for (int i = 0; i < elements; i++)
                sums[r][n] = kernel_fma(weights[i], x[n][i], sums[r][n]);
        }
    }
}

/* Row of the weights: of row `r` of the warp's, half of them 8 further. */
template <int pairs> TS_DEVICE uint32_t row_of(uint32_t warp, int r)
{
    const uint32_t warps_of_16 = 8 / pairs;
    return warp / warps_of_16 * SKINNY_ROWS + warp % warps_of_16 * pairs + r % pairs + r / pairs * 8;
}

/* All lanes have the sums; lane 0 stores them. */
template <bool bf16, bool int8, int pairs, int count>
TS_DEVICE void finish(const skinny_args &args, const float (*sums)[count], uint32_t warp)
{
#pragma unroll
    for (int r = 0; r < 2 * pairs; r++) {
        uint32_t row = row_of<pairs>(warp, r);
        if (row >= args.outputs)
            continue;
#pragma unroll
        for (int n = 0; n < count; n++) {
            float scale = int8 ? args.scales[row] : 1.0f, sum = sums[r][n] * scale;
            if ((uint32_t)n >= args.m)
                continue;
            if (args.y_kind != SKINNY_SWIGLU)
                skinny_store<bf16>(args, (uint32_t)n, row, sum);
            else if (r < pairs)
                skinny_store_swiglu<bf16>(args, (uint32_t)n, row, sum,
                                          sums[(r + pairs) % (2 * pairs)][n] *
                                              (int8 ? args.scales[row + 8] : 1.0f));
        }
    }
}

template <bool bf16, bool int8, int pairs, int count, int ahead> TS_DEVICE void run(const skinny_args &args)
{
    constexpr int rows = 2 * pairs;
    const uint32_t warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    const uint32_t row_bytes = args.inputs * (int8 ? 1 : 2);
    const uint32_t first_row = min(row_of<pairs>(warp, 0), args.outputs - 1);
    const uint8_t *base = args.w + (uint64_t)first_row * row_bytes, *tokens[count];
    uint32_t offsets[rows];
    float sums[rows][count];
    uint4 w[ahead][rows];
#pragma unroll
    for (int r = 0; r < rows; r++) {
        offsets[r] = (min(row_of<pairs>(warp, r), args.outputs - 1) - first_row) * row_bytes;
#pragma unroll
        for (int n = 0; n < count; n++)
            sums[r][n] = 0;
    }
#pragma unroll
    for (int n = 0; n < count; n++)
        tokens[n] = args.x + (uint64_t)min((uint32_t)n, args.m - 1) * args.inputs * 2;
#pragma unroll
    for (int s = 0; s < ahead; s++)
        load_rows<rows>(w[s], base, offsets, s * PIECE + lane * 16, row_bytes);
    for (uint32_t begin = 0; begin < row_bytes; begin += ahead * PIECE) {
#pragma unroll
        for (int s = 0; s < ahead; s++) {
            uint32_t byte = begin + s * PIECE + lane * 16;
            multiply_piece<bf16, int8, rows, count>(sums, w[s], tokens, byte, row_bytes);
            load_rows<rows>(w[s], base, offsets, byte + ahead * PIECE, row_bytes);
        }
    }
#pragma unroll
    for (int r = 0; r < rows; r++) {
#pragma unroll
        for (int n = 0; n < count; n++) {
#pragma unroll
            for (int lanes = 16; lanes > 0; lanes /= 2)
                sums[r][n] += __shfl_xor_sync(KERNEL_FULL_WARP, sums[r][n], lanes);
        }
    }
    if (lane == 0)
        finish<bf16, int8, pairs, count>(args, sums, warp);
}

#define GEMV_KERNEL(name, bf16, int8, pairs, tokens, ahead, threads)                                         \
    TS_KERNEL(name, threads, skinny_args)                                                                    \
    {                                                                                                        \
        run<bf16, int8, pairs, tokens, ahead>(args);                                                         \
    }
SKINNY_GEMV(GEMV_KERNEL)
