/*
 * What the kernels of prefill.cu and decode.cu are told, and the array of a plan, made by cuda_attention.c.
 * Read by C and C++, by the compilers of host and device: fixed widths.
 *
 * A plan's array: struct attention_head, then the spans, then the tiles. A *pair* is one query: a token and
 * one of the query heads that share a KV head, numbered token by token within its row.
 */
#ifndef TS_GPU_CUDA_ATTENTION_ATTENTION_ARGS_H
#define TS_GPU_CUDA_ATTENTION_ATTENTION_ARGS_H

#include <stdint.h>

#define ATTENTION_THREADS   128u
#define ATTENTION_WARPS     4
#define ATTENTION_BLOCK     16  /* tokens of a block of the pool */
#define ATTENTION_SLAB      16  /* pairs that an mma multiplies at once */
#define ATTENTION_SPANS_MAX 128 /* of one row */

/* The kernels are made for rows of so many elements; heads between them are filled up with zeros. */
#define ATTENTION_WIDTHS(X)     X(32) X(64) X(80) X(96) X(112) X(128) X(256)
#define ATTENTION_WIDE_TILES(X) X(64) X(128) /* those for which there are tiles of 128 pairs */

/* Tiles of wide rows have half of the keys, so that two stages fit into 99 KiB; their spans half of the
 * warps. */
#define ATTENTION_TILE_KEYS(width)  ((width) > 128 ? 32 : 64)
#define ATTENTION_SPAN_WARPS(width) ((width) > 128 ? 2 : 4)
#define ATTENTION_STAGES            2

struct attention_head {
    uint32_t spans, unused[3];
};

/* A row of one token, or a part of its keys. */
struct attention_span {
    uint32_t row, token; /* of the table; of the batch */
    uint32_t begin, end; /* keys */
    uint32_t length;     /* of the row: keys that its token may see */
    uint32_t first, of;  /* the row's spans */
    uint32_t unused;
};

/* Up to 64 or 128 pairs of one row. */
struct attention_tile {
    uint32_t row, token;   /* of the table; of the batch, the row's first one */
    uint32_t start, count; /* the row's positions */
    uint32_t begin;        /* pair */
    uint32_t unused[3];
};

struct attention_args {
    const uint16_t *q, *pool;
    uint16_t *out;
    const uint32_t *table;
    const struct attention_head *plan;
    const struct attention_tile *tiles;
    float *partial;    /* [spans][q_heads][head_dim]: sums that were not yet divided */
    uint32_t *maxima;  /* [spans][q_heads][4]: fp32 exponent of the weights, their sum, 0, 0 */
    uint32_t *tickets; /* [rows][kv_heads][slabs]: spans that are done */
    uint32_t table_step, kv_heads, group, head_dim, window;
    uint32_t slabs; /* of a group: those of decoding */
    float scale;    /* log2(e) / sqrt(head_dim) */
};

/* Shared memory, which the launch names. */
#define ATTENTION_PREFILL_BYTES(width, slabs)                                                                \
    (2u * (width) *                                                                                          \
         (ATTENTION_SLAB * ATTENTION_WARPS * (slabs) + ATTENTION_STAGES * 2 * ATTENTION_TILE_KEYS(width)) +  \
     32u)
#define ATTENTION_DECODE_BYTES(width)                                                                        \
    (2u * (width) *                                                                                          \
         (ATTENTION_SLAB + ATTENTION_SPAN_WARPS(width) * ATTENTION_STAGES * 2 * ATTENTION_BLOCK) +           \
     4u * (2 * ATTENTION_SPAN_WARPS(width) * ATTENTION_SLAB + 4))

#endif
