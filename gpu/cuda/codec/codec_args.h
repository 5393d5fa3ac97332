/*
 * What the kernels of codec.cu are told: one flat struct by value, made by cuda_codec.c from the layout of a
 * payload (gpu/codec), and in device memory a state for each part, through which they answer. Read by C and
 * C++, by the compilers of host and device: fixed widths, no pointers of the host.
 */
#ifndef TS_GPU_CUDA_CODEC_CODEC_ARGS_H
#define TS_GPU_CUDA_CODEC_CODEC_ARGS_H

#include <stdint.h>

#define CODEC_THREADS_MAX 256u
#define CODEC_PARTS_MAX   64u
#define CODEC_MEANS_LANES 16u /* threads of a tile where means are taken, at most: 8 channels each */
#define CODEC_SECTIONS    6u  /* scales, minima and codes of both sides: filled up with zeros */

/* One side. A *slice* is what a thread has in hand: 16 elements of a row, 8 that lie together in the lower
 * half of a *stretch* and the 8 with the same places in its upper half. With 4 bits a stretch is a group, so
 * that a slice makes 8 whole bytes of codes; else it is what the transform, or a row, allows. */
struct codec_args_side {
    uint64_t scales, minima, codes; /* offsets in the payload */
    uint64_t first_tokens;
    uint32_t bits;     /* 16, 8, 4 */
    uint32_t stretch;  /* elements: a power of two, 16 .. 256 */
    uint32_t group;    /* elements that share parameters; 0 with 16 bits */
    uint32_t hadamard; /* elements of a transform, a multiple of the stretch; 0 = none */
    uint32_t limit;    /* magnitude from which a tile escapes */
    uint32_t raw_rows; /* first tokens that travel in 16 bits besides */
    float factor_in;   /* of the transform, before quantising and after the inverse; 1 without */
    float factor_out;
    uint32_t asym, centred;
    uint32_t lossless; /* of 16 bits, exponents coded: the affair of lossless.cu */
};

/* n / divisor = n * factor >> shift, of n below 2^31. */
struct codec_args_divisor {
    uint32_t divisor, factor, shift;
};

/* A layer of the chunk: all have the shape, each its own tiles and its own payload. */
struct codec_args_part {
    uint8_t *payload;     /* encoding writes it, decoding reads it; 16-byte aligned */
    uint64_t layer_tiles; /* tiles of the pool before the layer, in pairs of K and V of a head */
    uint64_t tail_bytes;  /* of a received payload: behind `tail` */
};

/* Tiles are counted part after part, in the order of the pool: [block][K|V][head]. */
struct codec_args {
    uint8_t *pool;
    const uint32_t *blocks; /* of the chunk: its first one is blocks[0] */
    const float *turns;     /* of the rotation of keys: [256][cos, sin][head_dim / 2]; NULL = none */
    struct codec_state *state;
    uint32_t *counts; /* of each tile: its exceptions, then how many stand before them in the part's list */
    uint8_t *lost;    /* a byte for each tile */
    struct codec_args_side sides[2];
    uint64_t section_ends[CODEC_SECTIONS];
    uint64_t bitmap_bytes; /* of the section: filled up to 16 */
    uint64_t means;        /* offset */
    uint64_t tail;         /* offset of the exceptions, filled up to 16, and raw tiles */
    struct codec_args_divisor per_part, per_block; /* tiles of a part, of a block of tokens */
    uint32_t pool_heads, head_begin, heads;
    uint32_t block_count, tokens, spans;
    uint32_t tiles; /* of a part */
    uint32_t parts;
    uint32_t head_dim;
    uint32_t team; /* threads that have a tile, where head_dim is a constant of the kernel */
    struct codec_args_part part[CODEC_PARTS_MAX];
};

#define CODEC_FAULT_CONTENT 1u /* a parameter, or what must be zero, is none that an encoder writes */
#define CODEC_FAULT_ESCAPES 2u /* the bitmap and the length of the payload do not agree */
#define CODEC_FAULT_LIST    4u /* the payload has not as many exceptions as its codes say */

/* In `exceptions`: their list is not to be looked at. No payload is as long as that (cuda_codec.c). */
#define CODEC_LIST_WRONG 0xffffffffu

/* In device memory, zeros before the first launch. */
struct codec_state {
    uint32_t escapes;    /* encoded: tiles that are escaped */
    uint32_t exceptions; /* of lossless sides */
    uint32_t faults;     /* decoded: CODEC_FAULT_*, kept until ts_cuda_codec_answers has told them */
    uint32_t pending;    /* escapes of the launch that runs */
    uint32_t ticket;     /* of the first part: blocks of threads of the launch that have ended */
};

#endif
