/*
 * The KV codec: from the paged pool to a payload and back, keys and values of a layer in one launch, and
 * several layers too. gpu/codec/README.md has the format and the arithmetic; the bytes are those of the CPU.
 *
 * A team of threads, a block or a warp (codec_tile.cuh), has one tile at a time: 16 rows of head_dim
 * elements. A thread has a slice of 16 elements (codec_args.h), in registers. The slices of a group, and of a
 * transform, lie on neighbouring lanes: with groups of 64 elements and a transform of 128
 *
 *     bits of the element's place      0 1 2       3 4        5            6
 *     the other element of the stage   register    lane ^1,2  other half   lane ^4
 *
 * Bytes moved for each element: 2 read and 0.5625 written, or the reverse; 16 bytes of the pool and 8 of the
 * codes at a time, neighbouring lanes neighbouring bytes. What is the same for a whole tile, and what comes
 * once for a launch (the ticket that finds its last block), is shared by as many tiles as a block goes
 * through, one after the other.
 */
#include "gpu/cuda/codec/codec_decode.cuh"
#include "gpu/cuda/codec/codec_means.cuh"

/* Bounds: as many threads of a processor are enough. Else the compiler puts a register or two into memory to
 * have more of them. */
#define LARGE(threads) threads, 640 / threads
#define USUAL          128, 8

/* By shape, with centred keys (c) or without, and by type. */
TS_KERNEL(cuda_codec_encode_any_f16, LARGE(CODEC_THREADS_MAX), codec_args)
{
    TS_SHARED(codec_shared, shared);
    encode<0, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_encode_any_bf16, LARGE(CODEC_THREADS_MAX), codec_args)
{
    TS_SHARED(codec_shared, shared);
    encode<0, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_encode_64_f16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<64, false, false>(args, shared);
}

TS_KERNEL(cuda_codec_encode_64_bf16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<64, true, false>(args, shared);
}

TS_KERNEL(cuda_codec_encode_64c_f16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<64, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_encode_64c_bf16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<64, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_encode_128_f16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<128, false, false>(args, shared);
}

TS_KERNEL(cuda_codec_encode_128_bf16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<128, true, false>(args, shared);
}

TS_KERNEL(cuda_codec_encode_128c_f16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<128, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_encode_128c_bf16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    encode<128, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_any_f16, LARGE(CODEC_THREADS_MAX), codec_args)
{
    TS_SHARED(codec_shared, shared);
    decode<0, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_any_bf16, LARGE(CODEC_THREADS_MAX), codec_args)
{
    TS_SHARED(codec_shared, shared);
    decode<0, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_64_f16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<64, false, false>(args, shared);
}

TS_KERNEL(cuda_codec_decode_64_bf16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<64, true, false>(args, shared);
}

TS_KERNEL(cuda_codec_decode_64c_f16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<64, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_64c_bf16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<64, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_128_f16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<128, false, false>(args, shared);
}

TS_KERNEL(cuda_codec_decode_128_bf16, USUAL, codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<128, true, false>(args, shared);
}

TS_KERNEL(cuda_codec_decode_128c_f16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<128, false, true>(args, shared);
}

TS_KERNEL(cuda_codec_decode_128c_bf16, LARGE(128), codec_args)
{
    TS_SHARED(codec_small, shared);
    decode<128, true, true>(args, shared);
}

TS_KERNEL(cuda_codec_means_f16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_means, shared);
    means<false>(args, shared);
}

TS_KERNEL(cuda_codec_means_bf16, CODEC_THREADS_MAX, codec_args)
{
    TS_SHARED(codec_means, shared);
    means<true>(args, shared);
}
