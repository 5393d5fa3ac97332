/*
 * Weights on a device, when a model is loaded: random ones, and int8 with a scale for each output (row).
 * Biases of products that have no other place for them. T is fp16 or bf16. All calls are launches in the
 * stream of the device; addresses are aligned to 16 bytes.
 */
#ifndef TS_GPU_CUDA_WEIGHTS_CUDA_WEIGHTS_H
#define TS_GPU_CUDA_WEIGHTS_CUDA_WEIGHTS_H

#include "common/core/ts_model.h"
#include "gpu/cuda/device/ts_cuda.h"

/* `count` elements of type `dtype` (16 bits), a multiple of 8, uniform with that standard deviation, none of
 * them zero; equal seeds give equal bits. */
enum ts_status cuda_weights_fill(struct ts_cuda *cuda, ts_cuda_address to, uint64_t count, uint64_t seed,
                                 double deviation, enum ts_dtype dtype, struct ts_error *err);

/* Rows of T, `inputs` (a multiple of 16) long, to int8 in -127 .. 127 with the scale max|row| / 127, rounded
 * to fp16 and stored as fp32. A row of zeros has scale 0. */
enum ts_status cuda_weights_quantise(struct ts_cuda *cuda, ts_cuda_address from, uint32_t rows,
                                     uint32_t inputs, enum ts_dtype dtype, ts_cuda_address to,
                                     ts_cuda_address scales, struct ts_error *err);

/* to[token][i] += bias[i]; `to` of type `dtype`, F32 included, the bias fp32. */
enum ts_status cuda_weights_bias(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address bias,
                                 uint32_t tokens, uint32_t width, enum ts_dtype dtype, struct ts_error *err);

#endif
