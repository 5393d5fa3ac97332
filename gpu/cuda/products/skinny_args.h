/*
 * What the kernels of skinny.cu, gemv.cu and widen.cu are told, and which of them there are. Read by C and
 * C++, by the compilers of host and device: fixed widths.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_SKINNY_ARGS_H
#define TS_GPU_CUDA_PRODUCTS_SKINNY_ARGS_H

#include <stdint.h>

/* What becomes of a sum. */
#define SKINNY_Y_16      0u /* y of the type of x */
#define SKINNY_Y_F32     1u
#define SKINNY_Y_ADD_F32 2u /* y += */
#define SKINNY_SWIGLU                                                                                        \
    3u /* y[j] = silu(gate) x up, of the type of x, for outputs in runs of 8 (cuda_gemm.h) */

#define SKINNY_ROWS   16u /* weight rows of a tile */
#define SKINNY_TOKENS 8u  /* tokens of a tile */

struct skinny_args {
    const uint8_t *w;    /* [outputs][inputs] */
    const float *scales; /* [outputs], int8 only */
    const uint8_t *x;    /* [m][inputs] */
    uint8_t *y;          /* [m][outputs], SWIGLU: [m][outputs / 2] */
    uint32_t outputs, inputs;
    uint32_t m; /* at most 8 tokens for each tile of the kernel, at least 1 */
    uint32_t y_kind;
};

/* int8 as the type of x, a block for each row of the weights. */
#define SKINNY_WIDEN_THREADS 256u

struct skinny_widen_args {
    const uint8_t *w;
    const float *scales;
    uint8_t *out;
    uint32_t inputs; /* a multiple of 16 */
};

/* X(name, bf16, int8 weights, row tiles, token tiles, loads ahead, most threads). The more row tiles, the
 * less of x is read for each weight; the fewer, the more blocks. Loads ahead: what a thread waits for is 32
 * bytes of weights times row tiles times loads ahead, in registers. */
#define SKINNY_MMA_OF(X, type, bf16, int8)                                                                   \
    X(skinny_##type##_r1_t1, bf16, int8, 1, 1, 8, 512)                                                       \
    X(skinny_##type##_r2_t1, bf16, int8, 2, 1, 4, 512)                                                       \
    X(skinny_##type##_r4_t1, bf16, int8, 4, 1, 2, 256)

#define SKINNY_MMA(X)                                                                                        \
    SKINNY_MMA_OF(X, f16, false, false)                                                                      \
    SKINNY_MMA_OF(X, bf16, true, false)                                                                      \
    SKINNY_MMA_OF(X, i8f16, false, true)                                                                     \
    SKINNY_MMA_OF(X, i8bf16, true, true)

/* Those that have more tokens keep what is loaded ahead of them in shared memory. */
#define SKINNY_RING_OF(X, type, bf16, int8)                                                                  \
    X(skinny_##type##_r1_t2, bf16, int8, 1, 2, 6, 256)                                                       \
    X(skinny_##type##_r2_t2, bf16, int8, 2, 2, 4, 256)                                                       \
    X(skinny_##type##_r4_t2, bf16, int8, 4, 2, 2, 256)                                                       \
    X(skinny_##type##_r2_t4, bf16, int8, 2, 4, 4, 256)                                                       \
    X(skinny_##type##_r4_t4, bf16, int8, 4, 4, 2, 256)                                                       \
    X(skinny_##type##_r2_t8, bf16, int8, 2, 8, 2, 256)

#define SKINNY_RING(X)                                                                                       \
    SKINNY_RING_OF(X, f16, false, false)                                                                     \
    SKINNY_RING_OF(X, bf16, true, false)                                                                     \
    SKINNY_RING_OF(X, i8f16, false, true)                                                                    \
    SKINNY_RING_OF(X, i8bf16, true, true)

/* For as many rows as columns: of weights one piece is on its way, in registers, of tokens one in shared
 * memory beside the one in use. */
#define SKINNY_WIDE_OF(X, type, bf16, int8) X(skinny_##type##_r4_t8, bf16, int8, 4, 8, 2, 256)

#define SKINNY_WIDE(X)                                                                                       \
    SKINNY_WIDE_OF(X, f16, false, false)                                                                     \
    SKINNY_WIDE_OF(X, bf16, true, false)                                                                     \
    SKINNY_WIDE_OF(X, i8f16, false, true)                                                                    \
    SKINNY_WIDE_OF(X, i8bf16, true, true)

/* Shared memory of such a block: 16 bytes of each lane for each token tile and load ahead, twice that with
 * int8; at last, in the same place, sums of 8 tiles. */
#define SKINNY_RING_BYTES(int8, token_tiles, ahead, threads)                                                 \
    ((threads) * (token_tiles) * (ahead) * ((int8) ? 32u : 16u))
#define SKINNY_SUMS_BYTES 32768u

/* The same for kernels without tensor cores: row tiles are pairs of rows of a warp, token tiles are tokens.
 */
#define SKINNY_GEMV_OF(X, type, bf16, int8)                                                                  \
    X(gemv_##type##_p1_t1, bf16, int8, 1, 1, 8, 512)                                                         \
    X(gemv_##type##_p2_t1, bf16, int8, 2, 1, 4, 512)                                                         \
    X(gemv_##type##_p2_t2, bf16, int8, 2, 2, 4, 256)

#define SKINNY_GEMV(X)                                                                                       \
    SKINNY_GEMV_OF(X, f16, false, false)                                                                     \
    SKINNY_GEMV_OF(X, bf16, true, false)                                                                     \
    SKINNY_GEMV_OF(X, i8f16, false, true)                                                                    \
    SKINNY_GEMV_OF(X, i8bf16, true, true)

#endif
