/*
 * The device's half of kernel.cuh, and the one home of inline PTX: wrappers of at most 15 lines, each with
 * its twin in kernel_host.cuh. No header of the toolkit is included: those of fp16 alone take longer to
 * compile than all kernels.
 */
#ifndef TS_GPU_CUDA_KERNEL_PTX_CUH
#define TS_GPU_CUDA_KERNEL_PTX_CUH

#define TS_KERNEL(name, threads, type)                                                                       \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ type args)
#define TS_SHARED(type, name) __shared__ type name
#define TS_DEVICE             static __device__ __forceinline__

TS_DEVICE float kernel_float_of(uint32_t bits)
{
    return __uint_as_float(bits);
}

TS_DEVICE uint32_t kernel_bits_of(float value)
{
    return __float_as_uint(value);
}

TS_DEVICE float kernel_widen_f16(uint32_t bits)
{
    float value;
    asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "r"(bits));
    return value;
}

/* Rounds to nearest even; overflow gives infinity. */
TS_DEVICE uint32_t kernel_narrow_f16(float value)
{
    uint32_t bits;
    asm("{ .reg .b16 h; cvt.rn.f16.f32 h, %1; cvt.u32.u16 %0, h; }" : "=r"(bits) : "f"(value));
    return bits;
}

TS_DEVICE uint32_t kernel_narrow_bf16(float value)
{
    uint32_t bits;
    asm("{ .reg .b16 h; cvt.rn.bf16.f32 h, %1; cvt.u32.u16 %0, h; }" : "=r"(bits) : "f"(value));
    return bits;
}

/* Two at once: `low` in the lower half. */
TS_DEVICE uint32_t kernel_narrow_f16x2(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(low), "f"(high));
    return bits;
}

TS_DEVICE uint32_t kernel_narrow_bf16x2(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(low), "f"(high));
    return bits;
}

/* What is read once, and what is written and not read again soon. */
TS_DEVICE uint4 kernel_load_once(const void *from)
{
    return __ldcs((const uint4 *)from);
}

TS_DEVICE void kernel_store_once(void *to, uint4 value)
{
    __stcs((uint4 *)to, value);
}

/* Written by other blocks of the same launch: not from this processor's own cache. */
TS_DEVICE uint32_t kernel_load_shared_byte(const uint8_t *from)
{
    return __ldcg(from);
}

#endif
