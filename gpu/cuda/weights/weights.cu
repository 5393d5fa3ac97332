/*
 * What is done to weights on a device when a model is loaded: random ones for measurements are made there,
 * and rows of 16 bits become rows of int8 with a scale (kernels.md, 3.6). And biases that no other kernel
 * adds. All of it is bound by memory: a thread has 16 bytes in hand, neighbours have neighbouring ones.
 */
#include "gpu/cuda/kernel.cuh"
#include "gpu/cuda/weights/weights_args.h"

#define MAGIC   12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, to nearest even */
#define MAGIC_U 0x4b400000u /* its bits */
#define LEVELS  127.0f

struct weights_shared {
    float most[WEIGHTS_THREADS / 32];
};

/* Finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014, figure 16). */
TS_DEVICE uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

TS_DEVICE uint32_t narrow(float value, uint32_t bf16)
{
    return bf16 ? kernel_narrow_bf16(value) : kernel_narrow_f16(value);
}

TS_DEVICE float widen(uint32_t bits, uint32_t bf16)
{
    return bf16 ? kernel_float_of(bits << 16) : kernel_widen_f16(bits);
}

/* Two elements from 32 random bits; never zero. */
TS_DEVICE uint32_t pair_of(const weights_fill_args &args, uint32_t bits)
{
    float low = ((float)(bits & 0xffff) - 32767.5f) * (1.0f / 32768.0f) * args.scale;
    float high = ((float)(bits >> 16) - 32767.5f) * (1.0f / 32768.0f) * args.scale;
    return args.bf16 ? kernel_narrow_bf16x2(low, high) : kernel_narrow_f16x2(low, high);
}

TS_KERNEL(weights_fill, WEIGHTS_THREADS, weights_fill_args)
{
    uint64_t step = (uint64_t)gridDim.x * blockDim.x, runs = args.count / WEIGHTS_RUN;
    uint64_t first = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (uint64_t i = first; i < runs; i += step) {
        uint64_t a = mix(args.seed + 2 * i * 0x9e3779b97f4a7c15ull);
        uint64_t b = mix(args.seed + (2 * i + 1) * 0x9e3779b97f4a7c15ull);
        uint4 made = make_uint4(pair_of(args, (uint32_t)a), pair_of(args, (uint32_t)(a >> 32)),
                                pair_of(args, (uint32_t)b), pair_of(args, (uint32_t)(b >> 32)));
        kernel_store_once(args.to + i * 16, made);
    }
}

TS_DEVICE float bigger(float a, float b)
{
    return a > b ? a : b;
}

/* The largest magnitude of 8 elements. */
TS_DEVICE float most_of(uint4 run, uint32_t bf16)
{
    float low = bigger(kernel_float_of(kernel_bits_of(widen(run.x & 0xffff, bf16)) & 0x7fffffffu),
                       kernel_float_of(kernel_bits_of(widen(run.x >> 16, bf16)) & 0x7fffffffu));
    low = bigger(low, kernel_float_of(kernel_bits_of(widen(run.y & 0xffff, bf16)) & 0x7fffffffu));
    low = bigger(low, kernel_float_of(kernel_bits_of(widen(run.y >> 16, bf16)) & 0x7fffffffu));
    float high = bigger(kernel_float_of(kernel_bits_of(widen(run.z & 0xffff, bf16)) & 0x7fffffffu),
                        kernel_float_of(kernel_bits_of(widen(run.z >> 16, bf16)) & 0x7fffffffu));
    high = bigger(high, kernel_float_of(kernel_bits_of(widen(run.w & 0xffff, bf16)) & 0x7fffffffu));
    high = bigger(high, kernel_float_of(kernel_bits_of(widen(run.w >> 16, bf16)) & 0x7fffffffu));
    return bigger(low, high);
}

/* A rounded code in -127 .. 127, as a byte. */
TS_DEVICE uint32_t code_of(uint32_t bits, uint32_t bf16, float inverse)
{
    float x = widen(bits, bf16) * inverse;
    x = x > LEVELS ? LEVELS : x < -LEVELS ? -LEVELS : x;
    return (kernel_bits_of(x + MAGIC) - MAGIC_U) & 0xff;
}

TS_DEVICE uint32_t codes_of(uint32_t a, uint32_t b, uint32_t bf16, float inverse)
{
    return code_of(a & 0xffff, bf16, inverse) | code_of(a >> 16, bf16, inverse) << 8 |
           code_of(b & 0xffff, bf16, inverse) << 16 | code_of(b >> 16, bf16, inverse) << 24;
}

TS_KERNEL(weights_quantise, WEIGHTS_THREADS, weights_quantise_args)
{
    TS_SHARED(weights_shared, shared);
    uint32_t runs = args.inputs / WEIGHTS_RUN, lane = threadIdx.x % 32;
    const uint4 *from = (const uint4 *)(args.from + (uint64_t)blockIdx.x * args.inputs * 2);
    uint2 *to = (uint2 *)(args.to + (uint64_t)blockIdx.x * args.inputs);
    float most = 0;
    for (uint32_t i = threadIdx.x; i < runs; i += blockDim.x)
        most = bigger(most, most_of(from[i], args.bf16));
    for (int lanes = 16; lanes > 0; lanes /= 2)
        most = bigger(most, __shfl_xor_sync(KERNEL_FULL_WARP, most, lanes));
    if (lane == 0)
        shared.most[threadIdx.x / 32] = most;
    __syncthreads();
    for (uint32_t i = 0; i < WEIGHTS_THREADS / 32; i++)
        most = bigger(most, shared.most[i]);
    float scale = kernel_widen_f16(kernel_narrow_f16(most / LEVELS));
    float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (uint32_t i = threadIdx.x; i < runs; i += blockDim.x) {
        uint4 run = from[i];
        to[i] = make_uint2(codes_of(run.x, run.y, args.bf16, inverse),
                           codes_of(run.z, run.w, args.bf16, inverse));
    }
    if (threadIdx.x == 0)
        args.scales[blockIdx.x] = scale;
}

TS_KERNEL(weights_bias, WEIGHTS_THREADS, weights_bias_args)
{
    uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= args.count)
        return;
    float bias = args.bias[at % args.width];
    if (args.kind == WEIGHTS_BIAS_F32) {
        float *to = (float *)args.to + at;
        *to += bias;
        return;
    }
    uint32_t bf16 = args.kind == WEIGHTS_BIAS_BF16;
    uint16_t *to = (uint16_t *)args.to + at;
    *to = (uint16_t)narrow(widen(*to, bf16) + bias, bf16);
}
