/*
 * What skinny.cu and gemv.cu share: numbers of both types, int8 weights, and what becomes of a sum.
 */
#ifndef TS_GPU_CUDA_SKINNY_CUH
#define TS_GPU_CUDA_SKINNY_CUH

#include "gpu/cuda/kernel.cuh"
#include "gpu/cuda/skinny_args.h"

template <bool bf16> TS_DEVICE uint32_t skinny_narrow(float value)
{
    return bf16 ? kernel_narrow_bf16(value) : kernel_narrow_f16(value);
}

template <bool bf16> TS_DEVICE uint32_t skinny_narrow_2(float low, float high)
{
    return bf16 ? kernel_narrow_bf16x2(low, high) : kernel_narrow_f16x2(low, high);
}

/* Byte `i` of a word, as a signed number. */
TS_DEVICE float skinny_int8(uint32_t word, int i)
{
    return (float)(int8_t)(word >> 8 * i);
}

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
