/*
 * Launches of lossless.cu for the sides of a codec that are coded without loss; cuda_codec.c makes the
 * arguments. `dtype` is that of the cache. The calls do not wait.
 */
#ifndef TS_GPU_CUDA_CODEC_CUDA_LOSSLESS_H
#define TS_GPU_CUDA_CODEC_CUDA_LOSSLESS_H

#include "common/core/ts_model.h"
#include "gpu/cuda/codec/codec_args.h"
#include "gpu/cuda/device/ts_cuda.h"

enum ts_status cuda_lossless_encode(struct ts_cuda *cuda, enum ts_dtype dtype, const struct codec_args *args,
                                    struct ts_error *err);
enum ts_status cuda_lossless_decode(struct ts_cuda *cuda, enum ts_dtype dtype, const struct codec_args *args,
                                    struct ts_error *err);

#endif
