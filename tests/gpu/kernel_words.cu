/* One kernel for each word of kernel.cuh that moves or multiplies matrices: what it makes of known input. */
#include "gpu/cuda/kernel.cuh"
#include "tests/gpu/kernel_words_args.h"

struct words_shared {
    uint4 rows[WORDS_ROWS];
};

/* a and b row by row, d in fp32; the fragments as kernel_ptx.cuh describes them. */
TS_KERNEL(words_multiply, 32, words_args)
{
    uint32_t lane = threadIdx.x, g = lane / 4, t = lane % 4, a[4], b[2];
    float d[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint16_t *pair = args.a + (g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2);
        a[i] = pair[0] | (uint32_t)pair[1] << 16;
        d[i] = args.d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    }
#pragma unroll
    for (uint32_t i = 0; i < 2; i++)
        b[i] = args.b[(2 * t + 8 * i) * 8 + g] | (uint32_t)args.b[(2 * t + 8 * i + 1) * 8 + g] << 16;
    if (args.bf16)
        kernel_mma_bf16(d, a, b);
    else
        kernel_mma_f16(d, a, b);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        args.d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

/* 32 rows of 8 elements: out[lane] has what the four loads give it. */
TS_KERNEL(words_load, 32, words_args)
{
    TS_SHARED(words_shared, shared);
    uint32_t lane = threadIdx.x, r[4];
    uint32_t *out = args.out + lane * 12;
    shared.rows[lane] = ((const uint4 *)args.a)[lane];
    __syncthreads();
    kernel_load_matrices(r, &shared.rows[lane]);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        out[i] = r[i];
    kernel_load_matrices_trans(r, &shared.rows[lane]);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        out[4 + i] = r[i];
    kernel_load_2_matrices(r, &shared.rows[lane % 16]);
    out[8] = r[0];
    out[9] = r[1];
    kernel_load_2_matrices_trans(r, &shared.rows[lane % 16]);
    out[10] = r[0];
    out[11] = r[1];
}

/* Two groups of copies, the second half of each of them not valid. */
TS_KERNEL(words_copy, 32, words_args)
{
    TS_SHARED(words_shared, shared);
    uint32_t lane = threadIdx.x;
    const uint4 *from = (const uint4 *)args.a;
    kernel_copy_async(&shared.rows[lane], &from[lane], lane < 16);
    kernel_copy_commit();
    kernel_copy_async(&shared.rows[32 + lane], &from[31 - lane], lane < 16);
    kernel_copy_commit();
    kernel_copy_wait<1>();
    __syncthreads();
    ((uint4 *)args.out)[lane] = shared.rows[lane ^ 1];
    kernel_copy_wait<0>();
    __syncthreads();
    ((uint4 *)args.out)[32 + lane] = shared.rows[32 + (lane ^ 1)];
}

/* a b + c of 32 words, of each lane its own; `out` has c, and gets the sums. */
TS_KERNEL(words_fma, 32, words_args)
{
    uint32_t lane = threadIdx.x, a = ((const uint32_t *)args.a)[lane], b = ((const uint32_t *)args.b)[lane],
             c = args.out[lane];
    args.out[lane] = args.bf16 ? kernel_fma_bf16x2(a, b, c) : kernel_fma_f16x2(a, b, c);
}
