/*
 * int8 weights as 16-bit numbers, scale included, for the library. A thread has 16 weights of a row: 16 bytes
 * read and 32 written.
 *
 * On an H100 a product of 2048 rows takes 1.02 to 1.12 of the time of one in bf16.
 */
#include "gpu/cuda/products/skinny.cuh"

template <bool bf16> TS_DEVICE uint32_t widen_2(uint32_t word, int i, float scale)
{
    return skinny_narrow_2<bf16>(skinny_int8(word, i) * scale, skinny_int8(word, i + 1) * scale);
}

template <bool bf16> TS_DEVICE void widen(const skinny_widen_args &args)
{
    uint32_t per_row = args.inputs / 16;
    for (uint32_t i = threadIdx.x; i < per_row; i += blockDim.x) {
        uint64_t at = ((uint64_t)blockIdx.x * per_row + i) * 16;
        float scale = args.scales[blockIdx.x];
        uint4 w = kernel_load_once(args.w + at);
        kernel_store_once(args.out + at * 2,
                          make_uint4(widen_2<bf16>(w.x, 0, scale), widen_2<bf16>(w.x, 2, scale),
                                     widen_2<bf16>(w.y, 0, scale), widen_2<bf16>(w.y, 2, scale)));
        kernel_store_once(args.out + at * 2 + 16,
                          make_uint4(widen_2<bf16>(w.z, 0, scale), widen_2<bf16>(w.z, 2, scale),
                                     widen_2<bf16>(w.w, 0, scale), widen_2<bf16>(w.w, 2, scale)));
    }
}

TS_KERNEL(skinny_widen_f16, SKINNY_WIDEN_THREADS, skinny_widen_args)
{
    widen<false>(args);
}

TS_KERNEL(skinny_widen_bf16, SKINNY_WIDEN_THREADS, skinny_widen_args)
{
    widen<true>(args);
}
