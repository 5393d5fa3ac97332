/*
 * The host's half of kernel.cuh: the words of CUDA that kernels use, for the C++ compiler of the CPU, over
 * kernel_host.h; and the twins of the wrappers of kernel_ptx.cuh.
 */
#ifndef TS_GPU_CUDA_KERNEL_HOST_CUH
#define TS_GPU_CUDA_KERNEL_HOST_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "gpu/cuda/kernel_host.h"

#define TS_KERNEL(name, threads, type)                                                                       \
    static void name##_body(const type &args);                                                               \
    extern "C" void name(const void *args);                                                                  \
    extern "C" void name(const void *args)                                                                   \
    {                                                                                                        \
        name##_body(*static_cast<const type *>(args));                                                       \
    }                                                                                                        \
    static void name##_body(const type &args)
#define TS_SHARED(type, name) type &name = *static_cast<type *>(kernel_host_shared(sizeof(type)))
#define TS_DEVICE             static inline

#define threadIdx (kernel_host_self->thread)
#define blockIdx  (kernel_host_self->block)
#define blockDim  (kernel_host_self->block_dim)
#define gridDim   (kernel_host_self->grid_dim)

struct uint2 {
    uint32_t x, y;
};

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

TS_DEVICE uint2 make_uint2(uint32_t x, uint32_t y)
{
    return uint2{x, y};
}

TS_DEVICE uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return uint4{x, y, z, w};
}

/* --- barriers and warps --------------------------------------------------------------------------------- */

TS_DEVICE void __syncthreads()
{
    kernel_host_barrier(0);
}

TS_DEVICE int __syncthreads_or(int predicate)
{
    return kernel_host_barrier(predicate) > 0;
}

TS_DEVICE int __syncthreads_and(int predicate)
{
    return kernel_host_barrier(predicate) == blockDim.x * blockDim.y * blockDim.z;
}

TS_DEVICE int __syncthreads_count(int predicate)
{
    return (int)kernel_host_barrier(predicate);
}

TS_DEVICE uint32_t kernel_host_lane()
{
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T> static inline T kernel_host_from(uint32_t mask, T value, uint32_t lane)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move words");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    word = kernel_host_exchange(mask, word, lane);
    memcpy(&value, &word, sizeof value);
    return value;
}

template <class T> static inline T __shfl_sync(uint32_t mask, T value, int lane)
{
    return kernel_host_from(mask, value, (uint32_t)lane % 32);
}

template <class T> static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes)
{
    return kernel_host_from(mask, value, (kernel_host_lane() ^ (uint32_t)lanes) % 32);
}

/* At the end of the warp a lane keeps its own. */
template <class T> static inline T __shfl_down_sync(uint32_t mask, T value, uint32_t lanes)
{
    uint32_t own = kernel_host_lane();
    return kernel_host_from(mask, value, own + lanes < 32 ? own + lanes : own);
}

template <class T> static inline T __shfl_up_sync(uint32_t mask, T value, uint32_t lanes)
{
    uint32_t own = kernel_host_lane();
    return kernel_host_from(mask, value, own >= lanes ? own - lanes : own);
}

TS_DEVICE uint32_t __ballot_sync(uint32_t mask, int predicate)
{
    return kernel_host_ballot(mask, predicate);
}

TS_DEVICE int __any_sync(uint32_t mask, int predicate)
{
    return kernel_host_ballot(mask, predicate) != 0;
}

TS_DEVICE int __all_sync(uint32_t mask, int predicate)
{
    return kernel_host_ballot(mask, predicate) == mask;
}

TS_DEVICE void __syncwarp(uint32_t mask = 0xffffffffu)
{
    kernel_host_ballot(mask, 0);
}

/* --- memory --------------------------------------------------------------------------------------------- */

TS_DEVICE void __threadfence()
{
}

/* Threads yield at barriers alone, so that what stands between is atomic. */
template <class T> static inline T atomicAdd(T *at, T value)
{
    T was = *at;
    *at = was + value;
    return was;
}

template <class T> static inline T atomicOr(T *at, T value)
{
    T was = *at;
    *at = was | value;
    return was;
}

template <class T> static inline T atomicExch(T *at, T value)
{
    T was = *at;
    *at = value;
    return was;
}

/* --- arithmetic ----------------------------------------------------------------------------------------- */

TS_DEVICE uint32_t max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

TS_DEVICE uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

TS_DEVICE int __clz(int value)
{
    return value ? __builtin_clz((unsigned)value) : 32;
}

TS_DEVICE int __ffs(int value)
{
    return __builtin_ffs(value);
}

TS_DEVICE int __popc(uint32_t value)
{
    return __builtin_popcount(value);
}

/* --- twins of kernel_ptx.cuh ---------------------------------------------------------------------------- */

/* gpu/codec/codec_impl.h, which is C. */
extern "C" float codec_f16_to_f32(uint16_t bits);
extern "C" uint16_t codec_f32_to_f16(float value);
extern "C" uint16_t codec_f32_to_bf16(float value);

TS_DEVICE float kernel_float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

TS_DEVICE uint32_t kernel_bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

TS_DEVICE float kernel_widen_f16(uint32_t bits)
{
    return codec_f16_to_f32((uint16_t)bits);
}

TS_DEVICE uint32_t kernel_narrow_f16(float value)
{
    return codec_f32_to_f16(value);
}

TS_DEVICE uint32_t kernel_narrow_bf16(float value)
{
    return codec_f32_to_bf16(value);
}

TS_DEVICE uint32_t kernel_narrow_f16x2(float low, float high)
{
    return codec_f32_to_f16(low) | (uint32_t)codec_f32_to_f16(high) << 16;
}

TS_DEVICE uint32_t kernel_narrow_bf16x2(float low, float high)
{
    return codec_f32_to_bf16(low) | (uint32_t)codec_f32_to_bf16(high) << 16;
}

TS_DEVICE uint4 kernel_load_once(const void *from)
{
    return *static_cast<const uint4 *>(from);
}

TS_DEVICE void kernel_store_once(void *to, uint4 value)
{
    *static_cast<uint4 *>(to) = value;
}

TS_DEVICE uint32_t kernel_load_shared_byte(const uint8_t *from)
{
    return *from;
}

#endif
