/*
 * What the kernels of codec.cu are told: one flat struct by value, made by cuda_codec.c from the layout of a
 * payload (gpu/codec), and one struct in device memory through which they answer. Read by C and C++, by the
 * compilers of host and device: fixed widths, no pointers of the host.
 */
#ifndef TS_GPU_CUDA_CODEC_ARGS_H
#define TS_GPU_CUDA_CODEC_ARGS_H

#include <stdint.h>

#define CODEC_THREADS_MAX 256u

/* One side of 4 bits with minima. A *slice* is what a thread has in hand: 16 elements of a row, 8 that lie
 * together in the lower half of a group and the 8 with the same places in the upper half, so that it makes 8
 * whole bytes of codes. */
struct codec_args_side {
    uint64_t scales, minima, codes; /* offsets in the payload */
    uint32_t group;                 /* elements: a power of two, 16 .. 256 */
    uint32_t hadamard;              /* elements of a transform, a multiple of the group; 0 = none */
    uint32_t limit;                 /* magnitude from which a tile escapes */
};

/* One chunk. The grid has a block of threads for each tile, in the order of the pool: [block][K|V][head]. */
struct codec_args {
    uint8_t *pool;
    const uint32_t *blocks; /* of the chunk: its first one is blocks[0] */
    uint8_t *payload;       /* encoding writes it, decoding reads it; 16-byte aligned */
    struct codec_state *state;
    uint8_t *lost; /* a byte for each tile, in the order of the grid */
    struct codec_args_side sides[2];
    uint64_t layer_tiles;  /* tiles of the pool before the layer */
    uint64_t bitmap_bytes; /* of the section: filled up to 16 */
    uint64_t first_tokens; /* offset */
    uint64_t tail;         /* offset of the raw tiles */
    uint32_t raw_tiles;    /* that a received payload has room for */
    uint32_t pool_heads, head_begin, heads;
    uint32_t block_count, tokens, tiles;
    uint32_t raw_rows; /* first tokens that travel in 16 bits */
    uint32_t head_dim, bf16;
};

#define CODEC_FAULT_CONTENT 1u /* a parameter, or what must be zero, is none that an encoder writes */
#define CODEC_FAULT_ESCAPES 2u /* the bitmap and the length of the payload do not agree */

/* In device memory, zeros before the first launch. The last block of a launch leaves the answer, and what
 * later launches need as they found it. */
struct codec_state {
    uint32_t escapes; /* encoded: tiles that are escaped */
    uint32_t faults;  /* decoded: CODEC_FAULT_* */
    uint32_t ticket, pending;
};

#endif
