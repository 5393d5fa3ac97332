/*
 * Which kernels tile.cu has, and how a product is cut into their blocks; they are told what skinny.cu's are
 * (skinny_args.h), with any `m`. Read by C and C++, by the compilers of host and device.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_TILE_ARGS_H
#define TS_GPU_CUDA_PRODUCTS_TILE_ARGS_H

#include "gpu/cuda/products/skinny_args.h"

#define TILE_THREADS     256u
#define TILE_TOKENS      128u /* rows of x of a block */
#define TILE_SPLIT       8u   /* parts of a sum: those of as many warps of skinny.cu */
#define TILE_STAGES      3u
#define TILE_BAND        8u /* tiles of outputs that take turns before the next tokens */
#define TILE_PIECE_BYTES 64u

/* X(name, bf16, int8 weights, tiles of 16 outputs of a warp). A block has twice the warp's outputs: with two
 * tiles there are twice as many blocks, for few rows of x or few outputs, and a half more to read for each
 * product. */
#define TILE_KERNELS_OF(X, type, bf16, int8)                                                                 \
    X(tile_##type##_64, bf16, int8, 2)                                                                       \
    X(tile_##type##_128, bf16, int8, 4)

#define TILE_KERNELS(X)                                                                                      \
    TILE_KERNELS_OF(X, f16, false, false)                                                                    \
    TILE_KERNELS_OF(X, bf16, true, false)                                                                    \
    TILE_KERNELS_OF(X, i8f16, false, true)                                                                   \
    TILE_KERNELS_OF(X, i8bf16, true, true)

/* Outputs of a block. */
#define TILE_OUTPUTS(row_tiles) (2u * SKINNY_ROWS * (row_tiles))

/* Pieces of 64 bytes of weight rows of a stage: as many products with int8, which has twice as many to a
 * piece. Of tokens a stage has 128 bytes a row either way. */
#define TILE_PIECES(int8) ((int8) ? 1u : 2u)
#define TILE_BYTES(int8, row_tiles)                                                                          \
    (TILE_STAGES * TILE_PIECE_BYTES * (TILE_PIECES(int8) * TILE_OUTPUTS(row_tiles) + 2u * TILE_TOKENS))

#endif
