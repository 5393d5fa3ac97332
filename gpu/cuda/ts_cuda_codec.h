/*
 * The KV codec on a device: from a paged pool in its memory to a payload in its memory, and back, keys and
 * values of a layer in one launch. The bytes are those of ts_codec_encode (gpu/codec), payloads that one side
 * writes the other reads. Nothing waits here: calls put a launch into the stream of the device, ts_cuda_wait
 * ends the wait, and ts_cuda_codec_answer tells how the last launch ended.
 *
 * Codecs whose two sides have 4 bits with minima, with or without the transform, are known here: i4, i4h and
 * mixtures of them, of any group and head_dim that ts_codec_check accepts. For others ts_cuda_codec_takes is
 * false, and the CPU has to do it.
 *
 * The workspace is device memory that the caller gives: one for each stream of launches, zeroed once.
 */
#ifndef TS_GPU_CUDA_TS_CUDA_CODEC_H
#define TS_GPU_CUDA_TS_CUDA_CODEC_H

#include <stdbool.h>

#include "gpu/codec/ts_codec.h"
#include "gpu/cuda/ts_cuda.h"

/* As struct ts_codec_view, in device memory. `pool` is aligned to 16 bytes; entries of `blocks` (uint32_t)
 * that a chunk needs name blocks of the pool, which nobody checks here. */
struct ts_cuda_codec_view {
    ts_cuda_address pool;
    uint32_t pool_blocks, pool_heads;
    uint32_t head_dim;
    enum ts_dtype dtype; /* F16 or BF16 */
    ts_cuda_address blocks;
    uint32_t block_count;
};

bool ts_cuda_codec_takes(const struct ts_codec *codec, uint32_t head_dim);

/* For chunks of at most so many tiles: 2 x heads x blocks. */
size_t ts_cuda_codec_workspace_bytes(uint32_t tiles);

/* `out`: at least ts_codec_bytes_max. The payload has ts_codec_bytes(..., answer.escapes) bytes. */
enum ts_status ts_cuda_codec_encode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    const struct ts_cuda_codec_view *from, const struct ts_codec_chunk *chunk,
                                    ts_cuda_address out, ts_cuda_address workspace, struct ts_error *err);

/* Restores a payload of `bytes` bytes. TS_ECORRUPT at once when no payload of that shape has so many; what
 * the kernel finds wrong in it, by the same rules as the CPU, is in the answer. Whatever the bytes are,
 * nothing outside of the payload is read and nothing outside of the chunk's tiles is written; a tile at fault
 * is not written, but the others may be, so that the blocks of a refused chunk hold nothing until it has come
 * again. */
enum ts_status ts_cuda_codec_decode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    ts_cuda_address payload, size_t bytes, const struct ts_codec_chunk *chunk,
                                    const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                    struct ts_error *err);

/* Waits. Of an encoding `*escapes` is the number of escaped tiles; of a decoding 0, and TS_ECORRUPT when the
 * payload is none that an encoder writes. */
enum ts_status ts_cuda_codec_answer(struct ts_cuda *cuda, ts_cuda_address workspace, uint32_t *escapes,
                                    struct ts_error *err);

#endif
