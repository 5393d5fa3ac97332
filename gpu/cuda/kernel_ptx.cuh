/*
 * The device's half of kernel.cuh, and the one home of inline PTX: wrappers of at most 15 lines, each with
 * its twin in kernel_host.cuh. No header of the toolkit is included: those of fp16 alone take longer to
 * compile than all kernels.
 */
#ifndef TS_GPU_CUDA_KERNEL_PTX_CUH
#define TS_GPU_CUDA_KERNEL_PTX_CUH

/* Where devices can, blocks of a kernel are brought in while the one before ends; kernel_begin waits for that
 * end. */
#if __CUDA_ARCH__ >= 900
#define TS_KERNEL(name, threads, type)                                                                       \
    static __device__ __forceinline__ void name##_body(const type &args);                                    \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ type args)            \
    {                                                                                                        \
        kernel_begin();                                                                                      \
        name##_body(args);                                                                                   \
    }                                                                                                        \
    static __device__ __forceinline__ void name##_body(const type &args)
#else
#define TS_KERNEL(name, threads, type)                                                                       \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ type args)
#endif
#define TS_SHARED(type, name) __shared__ type name
#define TS_SHARED_LARGE(type, name)                                                                          \
    extern __shared__ uint4 kernel_shared_large[];                                                           \
    type &name = *reinterpret_cast<type *>(kernel_shared_large)
#define TS_DEVICE static __device__ __forceinline__

#if __CUDA_ARCH__ >= 900
/* Blocks of the next kernel may be brought in when all of this one are there; what the kernel before has
 * written is waited for. Both do nothing for launches that do not allow it (driver_launch). */
TS_DEVICE void kernel_begin()
{
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
#endif

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

/* Both halves of a word: `low` of the lower one. */
TS_DEVICE void kernel_widen_f16x2(uint32_t bits, float *low, float *high)
{
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(*low), "=f"(*high)
        : "r"(bits));
}

/* Of each half of two words the larger magnitude; what is not a number wins. */
TS_DEVICE uint32_t kernel_magnitudes_f16x2(uint32_t a, uint32_t b)
{
    uint32_t most;
    asm("{ .reg .b32 x, y; abs.f16x2 x, %1; abs.f16x2 y, %2; max.NaN.f16x2 %0, x, y; }"
        : "=r"(most)
        : "r"(a), "r"(b));
    return most;
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

/* a b + c of both halves, rounded once, subnormal numbers included. */
TS_DEVICE uint32_t kernel_fma_f16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

TS_DEVICE uint32_t kernel_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
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

/* Weights: read once in this launch and written by none, in runs that the lanes of a warp share. */
TS_DEVICE uint4 kernel_load_weights(const void *from)
{
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(from));
    return v;
}

/* Written by other blocks of the same launch: not from this processor's own cache. */
TS_DEVICE uint32_t kernel_load_shared_byte(const uint8_t *from)
{
    return __ldcg(from);
}

TS_DEVICE uint4 kernel_load_others(const void *from)
{
    return __ldcg((const uint4 *)from);
}

TS_DEVICE uint32_t kernel_load_shared_word(const uint32_t *from)
{
    return __ldcg(from);
}

/* The same value, of which the compiler knows nothing: what is computed from it in a loop is not kept in
 * registers around the loop. */
TS_DEVICE uint32_t kernel_anew(uint32_t value)
{
    asm volatile("" : "+r"(value));
    return value;
}

/* --- matrices of 16-bit elements ------------------------------------------------------------------------ */

/* d += a b: a is 16x16, b is 16x8, d 16x8 in fp32, each spread over the warp as the PTX manual has it
 * ("Matrix Fragments for mma.m16n8k16"); with g = lane / 4 and t = lane % 4:
 *     a[0] row g, columns 2t 2t+1    a[1] row g+8    a[2] row g, columns 2t+8 2t+9    a[3] row g+8, the same
 *     b[0] rows 2t 2t+1, column g    b[1] rows 2t+8 2t+9
 *     d[0] d[1] row g, columns 2t 2t+1    d[2] d[3] row g+8 */
TS_DEVICE void kernel_mma_f16(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TS_DEVICE void kernel_mma_bf16(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TS_DEVICE uint32_t kernel_shared_address(const void *at)
{
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* Four 8x8 matrices of 16-bit elements from shared memory: lanes 8i .. 8i+7 name the rows, of 16 bytes, of
 * matrix i. r[i] gets of it row lane / 4, columns 2 (lane % 4) and the next. */
TS_DEVICE void kernel_load_matrices(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(kernel_shared_address(row))
                 : "memory");
}

/* The same, transposed: rows 2 (lane % 4) and the next of column lane / 4. */
TS_DEVICE void kernel_load_matrices_trans(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(kernel_shared_address(row))
                 : "memory");
}

/* Two of them: lanes 0 .. 15 name the rows. */
TS_DEVICE void kernel_load_2_matrices(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(kernel_shared_address(row))
                 : "memory");
}

TS_DEVICE void kernel_load_2_matrices_trans(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(kernel_shared_address(row))
                 : "memory");
}

/* --- copies that go on beside the thread ---------------------------------------------------------------- */

/* 16 bytes into shared memory, both ends aligned to as many; zeros, and nothing is read, unless `valid`. */
TS_DEVICE void kernel_copy_async(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(kernel_shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

/* The thread's copies since the last commit become a group. */
TS_DEVICE void kernel_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most the last `left` groups of the thread are under way. Others see what it copied behind a
 * barrier. */
template <int left> static __device__ __forceinline__ void kernel_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* --- fast functions of fp32 ----------------------------------------------------------------------------- */

/* 2^x within 2 ulp; subnormal results are zero. */
TS_DEVICE float kernel_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

TS_DEVICE float kernel_log2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x within 1 ulp; subnormal results are zero. */
TS_DEVICE float kernel_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

TS_DEVICE float kernel_rsqrt(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* a b, rounded by itself: never half of a fused operation. */
TS_DEVICE float kernel_product(float a, float b)
{
    return __fmul_rn(a, b);
}

/* Within 0 .. 1; what is not a number is 0. Behind a product it costs nothing. */
TS_DEVICE float kernel_saturate(float x)
{
    return __saturatef(x);
}

/* a b + c, rounded once. */
TS_DEVICE float kernel_fma(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}

#endif
