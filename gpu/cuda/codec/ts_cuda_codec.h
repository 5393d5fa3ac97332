/*
 * The KV codec on a device: from a paged pool in its memory to a payload in its memory, and back, keys and
 * values of a layer in one launch, and as many layers as have the same chunk. The bytes are those of
 * ts_codec_encode (gpu/codec), payloads that one side writes the other reads. Nothing waits here: calls put
 * launches into the stream of the device, ts_cuda_wait ends the wait, and ts_cuda_codec_answers tells how
 * it ended. Sides without loss take three launches, before the one of the other side if there is one.
 *
 * All codecs are known here, with any group and any head_dim that 16 divides: other ones are
 * TS_EUNSUPPORTED.
 *
 * The workspace is device memory that the caller gives: one for each stream of launches, zeroed once.
 */
#ifndef TS_GPU_CUDA_CODEC_TS_CUDA_CODEC_H
#define TS_GPU_CUDA_CODEC_TS_CUDA_CODEC_H

#include <stdbool.h>

#include "gpu/codec/ts_codec.h"
#include "gpu/cuda/device/ts_cuda.h"

/* As struct ts_codec_view, in device memory. `pool` is aligned to 16 bytes; entries of `blocks` (uint32_t)
 * that a chunk needs name blocks of the pool, which nobody checks here. */
struct ts_cuda_codec_view {
    ts_cuda_address pool;
    uint32_t pool_blocks, pool_heads;
    uint32_t head_dim;
    enum ts_dtype dtype; /* F16 or BF16 */
    ts_cuda_address blocks;
    uint32_t block_count;
    ts_cuda_address turns; /* of keys, for CENTRE: of ts_cuda_codec_upload_rope; 0 = they are not rotated */
};

/* What ts_codec_view.rope is there. `*out` is freed by the caller. Waits. */
enum ts_status ts_cuda_codec_upload_rope(struct ts_cuda *cuda, const struct ts_codec_rope *rope,
                                         uint32_t head_dim, ts_cuda_address *out, struct ts_error *err);

/* For launches of at most so many tiles: 2 x heads x blocks for each layer. */
size_t ts_cuda_codec_workspace_bytes(uint32_t tiles);

/* One layer of a launch, whose other layers have the same heads and tokens. A small chunk takes as long as
 * starting it takes: several layers at once take little longer than one. */
#define TS_CUDA_CODEC_PARTS_MAX 64
struct ts_cuda_codec_part {
    uint32_t layer; /* of the pool */
    ts_cuda_address payload;
    size_t bytes; /* of it, for decoding */
};

/* `out`: at least ts_codec_bytes_max. How long the payload is follows from the answer. */
enum ts_status ts_cuda_codec_encode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    const struct ts_cuda_codec_view *from, const struct ts_codec_chunk *chunk,
                                    ts_cuda_address out, ts_cuda_address workspace, struct ts_error *err);

/* Restores a payload of `bytes` bytes. TS_ECORRUPT at once when no payload of that shape has so many; what
 * the kernel finds wrong in it, by the same rules as the CPU, is in the answer. Whatever the bytes are,
 * nothing outside of the payload is read and nothing outside of the chunk's tiles is written; tiles of a
 * refused payload may have been, so that the blocks of the chunk hold nothing until it has come again. */
enum ts_status ts_cuda_codec_decode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    ts_cuda_address payload, size_t bytes, const struct ts_codec_chunk *chunk,
                                    const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                    struct ts_error *err);

/* The same of `count` layers; chunk->layer is not looked at. TS_ECORRUPT at once if one payload has not the
 * length of its shape: then nothing is launched. */
enum ts_status ts_cuda_codec_encode_layers(struct ts_cuda *cuda, const struct ts_codec *codec,
                                           const struct ts_cuda_codec_view *from,
                                           const struct ts_codec_chunk *chunk,
                                           const struct ts_cuda_codec_part *parts, uint32_t count,
                                           ts_cuda_address workspace, struct ts_error *err);
enum ts_status ts_cuda_codec_decode_layers(struct ts_cuda *cuda, const struct ts_codec *codec,
                                           const struct ts_cuda_codec_part *parts, uint32_t count,
                                           const struct ts_codec_chunk *chunk,
                                           const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                           struct ts_error *err);

/* Waits, and tells of each layer. After encodings `escapes` and `exceptions` are of the last one: its payload
 * has ts_codec_bytes(..., escapes) bytes and one for each exception, filled up to 16. `status` is TS_ECORRUPT
 * when the payload of a decoding since the last answer is none that an encoder writes. Returns the first one
 * that is not TS_OK. */
struct ts_cuda_codec_result {
    uint32_t escapes, exceptions;
    enum ts_status status;
};
enum ts_status ts_cuda_codec_answers(struct ts_cuda *cuda, ts_cuda_address workspace, uint32_t count,
                                     struct ts_cuda_codec_result *out, struct ts_error *err);

/* Of a launch of one layer. */
enum ts_status ts_cuda_codec_answer(struct ts_cuda *cuda, ts_cuda_address workspace,
                                    struct ts_cuda_codec_result *out, struct ts_error *err);

#endif
