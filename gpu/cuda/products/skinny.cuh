/*
 * What skinny.cu, gemv.cu and tile.cu share: numbers of both types, int8 weights, and what becomes of a sum.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_SKINNY_CUH
#define TS_GPU_CUDA_PRODUCTS_SKINNY_CUH

#include "gpu/cuda/kernel.cuh"
#include "gpu/cuda/products/skinny_args.h"

template <bool bf16> TS_DEVICE uint32_t skinny_narrow(float value)
{
    return bf16 ? kernel_narrow_bf16(value) : kernel_narrow_f16(value);
}

template <bool bf16> TS_DEVICE uint32_t skinny_narrow_2(float low, float high)
{
    return bf16 ? kernel_narrow_bf16x2(low, high) : kernel_narrow_f16x2(low, high);
}

/* Bytes become numbers without conversions, which devices do at a fraction of the rate of logic and sums.
 * With its sign turned a byte is u = 128 + x. Of 16 bytes that go to tensor cores 16 I2F, 8 F2FP, 4 PRMT and
 * 12 shifts have become 4 LOP3, 8 PRMT and 8 HFMA2; of those that become fp32, 16 I2F and as many others are
 * 4 LOP3, 16 PRMT and 16 FADD (sm_80 and sm_90). */
TS_DEVICE uint32_t skinny_turned(uint32_t word)
{
    return word ^ 0x80808080u;
}

/* Byte `i` of a word, as a signed number: 2^23 + u, less 2^23 + 128. */
TS_DEVICE float skinny_int8(uint32_t word, int i)
{
    return kernel_float_of(__byte_perm(skinny_turned(word), 0x4b000000u, 0x7440u + (uint32_t)i)) - 8388736.0f;
}

/* Bytes 0 and 1 of a word, or 2 and 3 (`upper`), as two numbers of 16 bits: exactly x times SKINNY_INT8_UNIT.
 * As its bits u is u times the least number, 2^-24 in fp16; in bf16 2^-133, and beyond 127 too, as subnormal
 * numbers go on where those with the least exponent begin. That times 2^15 (2^127), less 128 of it. */
template <bool bf16> TS_DEVICE uint32_t skinny_int8x2(uint32_t word, bool upper)
{
    const uint32_t bits = __byte_perm(skinny_turned(word), 0, upper ? 0x4342u : 0x4140u);
    return bf16 ? kernel_fma_bf16x2(bits, 0x7f007f00u, 0xc000c000u)
                : kernel_fma_f16x2(bits, 0x78007800u, 0xb400b400u);
}
#define SKINNY_INT8_UNIT(bf16) ((bf16) ? 1.0f / 64 : 1.0f / 512)

/* --- products, of skinny.cu and tile.cu ---------------------------------------------------------------- */

template <bool bf16> TS_DEVICE void skinny_multiply(float *d, const uint32_t *a, const uint32_t *b)
{
    if (bf16)
        kernel_mma_bf16(d, a, b);
    else
        kernel_mma_f16(d, a, b);
}

/* Operand A number `k` of a row tile: 2 words of each row, or one with int8. */
template <bool bf16, bool int8>
TS_DEVICE void skinny_operand(uint32_t *a, const uint4 &low, const uint4 &high, int k)
{
    const uint32_t lows[4] = {low.x, low.y, low.z, low.w}, highs[4] = {high.x, high.y, high.z, high.w};
    if (int8) {
        a[0] = skinny_int8x2<bf16>(lows[k], false);
        a[1] = skinny_int8x2<bf16>(highs[k], false);
        a[2] = skinny_int8x2<bf16>(lows[k], true);
        a[3] = skinny_int8x2<bf16>(highs[k], true);
    } else {
        a[0] = lows[2 * k & 3];
        a[1] = highs[2 * k & 3];
        a[2] = lows[(2 * k + 1) & 3];
        a[3] = highs[(2 * k + 1) & 3];
    }
}

/* The sum of output `output`, of int8 weights, in what they stand for. Rounded by itself, so that all kernels
 * add the same number to what y holds. */
template <bool bf16> TS_DEVICE float skinny_scaled(const skinny_args &args, uint32_t output, float sum)
{
    return kernel_product(sum, args.scales[output] * (1 / SKINNY_INT8_UNIT(bf16)));
}

/* --- what becomes of a sum ------------------------------------------------------------------------------ */

/* A gate and its value: g / (1 + exp(-g)) x up. */
TS_DEVICE float skinny_silu(float gate, float up)
{
    return gate / (1.0f + kernel_exp2(gate * -1.4426950408889634f)) * up;
}

/* The place of a finished sum: token `token`, output `row`. */
template <bool bf16>
TS_DEVICE void skinny_store(const skinny_args &args, uint32_t token, uint32_t row, float value)
{
    uint64_t at = (uint64_t)token * args.outputs + row;
    float *wide = (float *)args.y + at;
    if (args.y_kind == SKINNY_Y_16)
        ((uint16_t *)args.y)[at] = (uint16_t)skinny_narrow<bf16>(value);
    else
        *wide = args.y_kind == SKINNY_Y_ADD_F32 ? *wide + value : value;
}

/* The place of a gate in row `row` of the weights, whose up is 8 rows further. */
template <bool bf16>
TS_DEVICE void skinny_store_swiglu(const skinny_args &args, uint32_t token, uint32_t row, float gate,
                                   float up)
{
    uint64_t at = (uint64_t)token * (args.outputs / 2) + row / SKINNY_ROWS * 8 + row % 8;
    ((uint16_t *)args.y)[at] = (uint16_t)skinny_narrow<bf16>(skinny_silu(gate, up));
}

#endif
