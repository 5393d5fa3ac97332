/*
 * Runs of 16-bit numbers, 16 bytes at a time. `bf16` is a constant where it counts: then the other way is not
 * compiled.
 */
#ifndef TS_GPU_CUDA_KERNEL_NUMBERS_CUH
#define TS_GPU_CUDA_KERNEL_NUMBERS_CUH

#include "gpu/cuda/kernel.cuh"

TS_DEVICE void kernel_widen_pair(uint32_t word, bool bf16, float *x)
{
    if (bf16) {
        x[0] = kernel_float_of(word << 16);
        x[1] = kernel_float_of(word & 0xffff0000u);
    } else {
        kernel_widen_f16x2(word, &x[0], &x[1]);
    }
}

/* Eight elements. */
TS_DEVICE void kernel_widen_run(uint4 from, bool bf16, float *x)
{
    kernel_widen_pair(from.x, bf16, x);
    kernel_widen_pair(from.y, bf16, x + 2);
    kernel_widen_pair(from.z, bf16, x + 4);
    kernel_widen_pair(from.w, bf16, x + 6);
}

TS_DEVICE uint32_t kernel_narrow_pair(const float *x, bool bf16)
{
    return bf16 ? kernel_narrow_bf16x2(x[0], x[1]) : kernel_narrow_f16x2(x[0], x[1]);
}

TS_DEVICE uint4 kernel_narrow_run(const float *x, bool bf16)
{
    return make_uint4(kernel_narrow_pair(x, bf16), kernel_narrow_pair(x + 2, bf16),
                      kernel_narrow_pair(x + 4, bf16), kernel_narrow_pair(x + 6, bf16));
}

/* Eight of fp32, from 16-byte aligned memory. */
TS_DEVICE void kernel_load_floats(const float *from, float *x)
{
    const uint4 low = *(const uint4 *)from, high = *(const uint4 *)(from + 4);
    x[0] = kernel_float_of(low.x);
    x[1] = kernel_float_of(low.y);
    x[2] = kernel_float_of(low.z);
    x[3] = kernel_float_of(low.w);
    x[4] = kernel_float_of(high.x);
    x[5] = kernel_float_of(high.y);
    x[6] = kernel_float_of(high.z);
    x[7] = kernel_float_of(high.w);
}

TS_DEVICE uint4 kernel_pack_floats(const float *x)
{
    return make_uint4(kernel_bits_of(x[0]), kernel_bits_of(x[1]), kernel_bits_of(x[2]), kernel_bits_of(x[3]));
}

TS_DEVICE void kernel_store_floats(float *to, const float *x)
{
    *(uint4 *)to = kernel_pack_floats(x);
    *(uint4 *)(to + 4) = kernel_pack_floats(x + 4);
}

#endif
