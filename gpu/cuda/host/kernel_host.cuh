/*
 * The host's half of kernel.cuh: the words of CUDA that kernels use, for the C++ compiler of the CPU, over
 * kernel_host.h; and the twins of the wrappers of kernel_ptx.cuh.
 */
#ifndef TS_GPU_CUDA_HOST_KERNEL_HOST_CUH
#define TS_GPU_CUDA_HOST_KERNEL_HOST_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "gpu/cuda/host/kernel_host.h"

#define TS_KERNEL(name, threads, type)                                                                       \
    static void name##_body(const type &args);                                                               \
    extern "C" void name(const void *args);                                                                  \
    extern "C" void name(const void *args)                                                                   \
    {                                                                                                        \
        name##_body(*static_cast<const type *>(args));                                                       \
    }                                                                                                        \
    static void name##_body(const type &args)
#define TS_SHARED(type, name)       type &name = *static_cast<type *>(kernel_host_shared(sizeof(type)))
#define TS_SHARED_LARGE(type, name) type &name = *static_cast<type *>(kernel_host_dynamic(sizeof(type)))
#define TS_DEVICE                   static inline

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

template <class T> static inline T atomicMax(T *at, T value)
{
    T was = *at;
    *at = was < value ? value : was;
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

/* Bytes of the two words, b before a, as the four lowest nibbles of `order` name them; their topmost bits are
 * not used. */
TS_DEVICE uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t order)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++)
        word |= (uint32_t)(bytes >> (order >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
    return word;
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

TS_DEVICE void kernel_widen_f16x2(uint32_t bits, float *low, float *high)
{
    *low = kernel_widen_f16(bits & 0xffff);
    *high = kernel_widen_f16(bits >> 16);
}

/* Positive numbers have the order of their bits; all that are not numbers become one. */
TS_DEVICE uint32_t kernel_host_magnitude(uint32_t a, uint32_t b)
{
    uint32_t most = (a & 0x7fff) > (b & 0x7fff) ? a & 0x7fff : b & 0x7fff;
    return most > 0x7c00 ? 0x7fff : most;
}

TS_DEVICE uint32_t kernel_magnitudes_f16x2(uint32_t a, uint32_t b)
{
    return kernel_host_magnitude(a, b) | kernel_host_magnitude(a >> 16, b >> 16) << 16;
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

/* a b + c of numbers of 16 bits so that rounding it once more is right: of two that enclose it the one that
 * is odd, in double precision and then in fp32. */
TS_DEVICE float kernel_host_fma_odd(float a, float b, float c)
{
    double product = (double)a * (double)b, sum = product + (double)c, part = sum - product;
    double lost = (product - (sum - part)) + ((double)c - part);
    uint64_t wide;
    memcpy(&wide, &sum, sizeof wide);
    if (isfinite(sum) && lost != 0 && wide % 2 == 0)
        sum = nextafter(sum, lost > 0 ? HUGE_VAL : -HUGE_VAL);
    float narrow = (float)sum;
    if (isfinite(narrow) && (double)narrow != sum && kernel_bits_of(narrow) % 2 == 0)
        narrow = nextafterf(narrow, (double)narrow < sum ? HUGE_VALF : -HUGE_VALF);
    return narrow;
}

TS_DEVICE uint32_t kernel_fma_f16x2(uint32_t a, uint32_t b, uint32_t c)
{
    return kernel_narrow_f16x2(
        kernel_host_fma_odd(kernel_widen_f16(a & 0xffff), kernel_widen_f16(b & 0xffff),
                            kernel_widen_f16(c & 0xffff)),
        kernel_host_fma_odd(kernel_widen_f16(a >> 16), kernel_widen_f16(b >> 16), kernel_widen_f16(c >> 16)));
}

TS_DEVICE uint32_t kernel_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t high = 0xffff0000u;
    return kernel_narrow_bf16x2(
        kernel_host_fma_odd(kernel_float_of(a << 16), kernel_float_of(b << 16), kernel_float_of(c << 16)),
        kernel_host_fma_odd(kernel_float_of(a & high), kernel_float_of(b & high), kernel_float_of(c & high)));
}

TS_DEVICE uint4 kernel_load_once(const void *from)
{
    return *static_cast<const uint4 *>(from);
}

TS_DEVICE uint4 kernel_load_weights(const void *from)
{
    return *static_cast<const uint4 *>(kernel_host_aligned(from, 16));
}

TS_DEVICE void kernel_store_once(void *to, uint4 value)
{
    *static_cast<uint4 *>(to) = value;
}

TS_DEVICE uint4 kernel_load_others(const void *from)
{
    return *static_cast<const uint4 *>(from);
}

TS_DEVICE uint32_t kernel_load_shared_byte(const uint8_t *from)
{
    return *from;
}

TS_DEVICE uint32_t kernel_load_shared_word(const uint32_t *from)
{
    return *from;
}

TS_DEVICE uint32_t kernel_anew(uint32_t value)
{
    return value;
}

struct kernel_host_mma {
    float *d;
    const uint32_t *a, *b;
};

/* Row `lane / 4 + 8 * (i % 2)` of a has, in a[i], columns 2 (lane % 4) + 8 * (i / 2) and the next. The sum is
 * that of the exact products, rounded once: devices sum with less. */
template <float (*widen)(uint32_t)> static void kernel_host_multiply(void *const *lanes)
{
    static float a[16][16], b[16][8];
    for (uint32_t lane = 0; lane < 32; lane++) {
        const kernel_host_mma *m = static_cast<const kernel_host_mma *>(lanes[lane]);
        uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t i = 0; i < 8; i++) /* register i / 2, half i % 2 */
            a[g + 8 * (i / 2 % 2)][2 * t + 8 * (i / 4) + i % 2] =
                widen(m->a[i / 2] >> (16 * (i % 2)) & 0xffff);
        for (uint32_t i = 0; i < 4; i++)
            b[2 * t + 8 * (i / 2) + i % 2][g] = widen(m->b[i / 2] >> (16 * (i % 2)) & 0xffff);
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        float *d = static_cast<const kernel_host_mma *>(lanes[lane])->d;
        for (uint32_t i = 0; i < 4; i++) {
            double sum = d[i];
            for (uint32_t k = 0; k < 16; k++)
                sum += (double)a[lane / 4 + 8 * (i / 2)][k] * (double)b[k][2 * (lane % 4) + i % 2];
            d[i] = (float)sum;
        }
    }
}

static inline float kernel_host_widen_bf16(uint32_t bits)
{
    return kernel_float_of(bits << 16);
}

TS_DEVICE void kernel_mma_f16(float *d, const uint32_t *a, const uint32_t *b)
{
    kernel_host_mma m = {d, a, b};
    kernel_host_warp(kernel_host_multiply<kernel_widen_f16>, &m);
}

TS_DEVICE void kernel_mma_bf16(float *d, const uint32_t *a, const uint32_t *b)
{
    kernel_host_mma m = {d, a, b};
    kernel_host_warp(kernel_host_multiply<kernel_host_widen_bf16>, &m);
}

struct kernel_host_load {
    uint32_t *r;
    const void *row;
};

/* `count` matrices of 8x8 elements; lanes 8 i .. 8 i + 7 name the rows of matrix i. */
template <uint32_t count, bool trans> static void kernel_host_matrices(void *const *lanes)
{
    for (uint32_t lane = 0; lane < 32; lane++) {
        const kernel_host_load *own = static_cast<const kernel_host_load *>(lanes[lane]);
        for (uint32_t i = 0; i < count; i++) {
            uint16_t pair[2];
            for (uint32_t j = 0; j < 2; j++) {
                uint32_t row = trans ? 2 * (lane % 4) + j : lane / 4,
                         column = trans ? lane / 4 : 2 * (lane % 4) + j;
                const kernel_host_load *from = static_cast<const kernel_host_load *>(lanes[8 * i + row]);
                memcpy(&pair[j], static_cast<const uint8_t *>(from->row) + 2 * column, 2);
            }
            own->r[i] = pair[0] | (uint32_t)pair[1] << 16;
        }
    }
}

TS_DEVICE void kernel_load_matrices(uint32_t *r, const void *row)
{
    kernel_host_load load = {r, kernel_host_aligned(row, 16)};
    kernel_host_warp(kernel_host_matrices<4, false>, &load);
}

TS_DEVICE void kernel_load_matrices_trans(uint32_t *r, const void *row)
{
    kernel_host_load load = {r, kernel_host_aligned(row, 16)};
    kernel_host_warp(kernel_host_matrices<4, true>, &load);
}

TS_DEVICE void kernel_load_2_matrices(uint32_t *r, const void *row)
{
    kernel_host_load load = {r, kernel_host_aligned(row, 16)};
    kernel_host_warp(kernel_host_matrices<2, false>, &load);
}

TS_DEVICE void kernel_load_2_matrices_trans(uint32_t *r, const void *row)
{
    kernel_host_load load = {r, kernel_host_aligned(row, 16)};
    kernel_host_warp(kernel_host_matrices<2, true>, &load);
}

TS_DEVICE void kernel_copy_async(void *shared, const void *global, bool valid)
{
    kernel_host_copy((void *)kernel_host_aligned(shared, 16),
                     valid ? kernel_host_aligned(global, 16) : nullptr);
}

TS_DEVICE void kernel_copy_commit()
{
    kernel_host_copy_commit();
}

template <int left> static inline void kernel_copy_wait()
{
    kernel_host_copy_wait(left);
}

TS_DEVICE float kernel_exp2(float x)
{
    return exp2f(x);
}

TS_DEVICE float kernel_log2(float x)
{
    return log2f(x);
}

TS_DEVICE float kernel_reciprocal(float x)
{
    return 1 / x;
}

TS_DEVICE float kernel_saturate(float x)
{
    return x > 0 ? fminf(x, 1) : 0;
}

TS_DEVICE float kernel_rsqrt(float x)
{
    return 1.0f / sqrtf(x);
}

TS_DEVICE float kernel_product(float a, float b)
{
    return a * b;
}

TS_DEVICE float kernel_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}

#endif
