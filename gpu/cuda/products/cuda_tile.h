/*
 * Launches of the own kernels for many rows of x (tile.cu), whose results have the bits of skinny.cu's for
 * CUDA_SKINNY_INVARIANT_WARPS warps: how many rows there are decides about speed alone.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_TILE_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_TILE_H

#include "gpu/cuda/products/cuda_gemm.h"

/* Outputs of a block are 64 or 128. Rows of x are any number, from 1 on. */
#define CUDA_TILE_VARIANTS 2u

/* A rule of thumb: large blocks, which read less, when there are enough of them to keep all multiprocessors
 * busy. */
uint32_t cuda_tile_guess(uint32_t outputs, uint32_t m, uint32_t multiprocessors);
uint32_t cuda_tile_outputs(uint32_t variant);

/* `bf16`: T. */
enum ts_status cuda_tile_launch(struct ts_cuda *cuda, uint32_t variant, bool bf16,
                                const struct cuda_matrix *w, ts_cuda_address x, uint32_t m, ts_cuda_address y,
                                enum cuda_gemm_y y_kind, struct ts_error *err);

#endif
