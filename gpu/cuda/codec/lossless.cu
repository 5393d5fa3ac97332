/*
 * The KV codec's sides without loss: three launches each way (codec_lossless.cuh). What the codec has
 * besides, a side of 8 or 4 bits or one as it is, codec.cu does in a launch behind these.
 *
 * Bytes moved for each element: encoding reads 2 and writes 1.5 (bf16) or 1.75 (fp16), then reads those of
 * tiles that have exceptions again; restoring reads the nibbles twice.
 */
#include "gpu/cuda/codec/codec_lossless.cuh"

TS_KERNEL(cuda_lossless_pack_f16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_pack, shared);
    pack<false>(args, shared);
}

TS_KERNEL(cuda_lossless_pack_bf16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_pack, shared);
    pack<true>(args, shared);
}

TS_KERNEL(cuda_lossless_scan, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_small, shared);
    scan(args, shared);
}

TS_KERNEL(cuda_lossless_list_f16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_ranks, shared);
    list<false>(args, shared);
}

TS_KERNEL(cuda_lossless_list_bf16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_ranks, shared);
    list<true>(args, shared);
}

TS_KERNEL(cuda_lossless_count_f16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_pack, shared);
    count<false>(args, shared);
}

TS_KERNEL(cuda_lossless_count_bf16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_pack, shared);
    count<true>(args, shared);
}

TS_KERNEL(cuda_lossless_check, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_small, shared);
    check(args, shared);
}

TS_KERNEL(cuda_lossless_unpack_f16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_ranks, shared);
    unpack<false>(args, shared);
}

TS_KERNEL(cuda_lossless_unpack_bf16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(lossless_ranks, shared);
    unpack<true>(args, shared);
}
