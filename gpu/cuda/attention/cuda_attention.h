/*
 * Attention of a ragged batch on a device: queries of the batch against keys and values in the paged pool
 * (ts_model.h: [block][K|V][kv_head][16][head_dim] in each layer), causal, with an optional window, any
 * number of query heads to a KV head. T is fp16 or bf16; scores, weights and sums are fp32. Sources:
 * FlashAttention-2 (arXiv 2307.08691, algorithm 1) for rows of several tokens, Flash-Decoding's parts of the
 * keys for rows of one (kernels.md, 3.3 and 3.4).
 *
 * The host plans a batch once and all layers use the plan: rows of one token become *spans* of keys
 * (decode.cu), enough of them to keep the device busy, others *tiles* of queries (prefill.cu). A plan lies in
 * one array of the host whose greatest size is known beforehand; the caller puts it into device memory. Keys
 * and values of the batch's own tokens are written before attention reads them. Nothing here allocates or
 * waits.
 *
 * In a graph: the grid of cuda_decode_attention depends on the number of rows alone, not on the plan, which
 * it reads from device memory; the grid of cuda_prefill_attention is that of its plan.
 *
 * What is in the pool beyond a row's last token, or before its window, is never used, NaN or not. A row's
 * result in tiles does not depend on its neighbours, nor on how its tokens are cut into chunks: the same
 * bits. In spans it depends, in the last bits, on how many there are: `batch_invariant` puts all rows into
 * tiles, `span_tokens` fixes the length of spans.
 *
 * Functions without a device are pure; those with one are called by its thread.
 */
#ifndef TS_GPU_CUDA_ATTENTION_CUDA_ATTENTION_H
#define TS_GPU_CUDA_ATTENTION_CUDA_ATTENTION_H

#include <stdbool.h>

#include "gpu/cuda/device/ts_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer's heads that are on this device. */
struct cuda_attention_shape {
    uint32_t q_heads,
        kv_heads; /* q_heads is a multiple of kv_heads: query head h reads KV head h / (q / kv) */
    uint32_t head_dim;
    uint32_t window; /* a query sees so many keys, its own included; 0 = all before it */
    bool bf16;       /* T; else fp16 */
};

/* TS_EUNSUPPORTED with the reason: head_dim is 4 to 32 in steps of 4, or up to 256 in steps of 8. */
enum ts_status cuda_attention_check(const struct cuda_attention_shape *shape, struct ts_error *err);

/* What no batch exceeds. Sizes below follow from it and from the shape. */
struct cuda_attention_limits {
    uint32_t rows, tokens;    /* of a batch */
    uint32_t context;         /* tokens of a row, those in the pool included */
    uint32_t multiprocessors; /* of the device */
    uint32_t span_tokens;     /* 0 = as the batch wants it; else fixed, rounded up to 64 */
    bool batch_invariant;
};

/* Rows of the batch: row r has tokens first[r] .. first[r] + count[r] - 1 of it, at positions start[r] on. A
 * row of no tokens is allowed (a padded graph). Arrays of the host. `padded`, of batch_invariant alone: the
 * plan has the tiles of so many rows of one token each, empty ones behind those of the rows there are, as a
 * graph was captured for them; 0 = of no graph. */
struct cuda_attention_rows {
    uint32_t rows;
    const uint32_t *first, *count, *start;
    uint32_t padded;
};

/* A planned batch. Zeros: one without rows. */
struct cuda_attention_plan {
    size_t bytes; /* of the array, from its begin, that must be in device memory; a multiple of 16 */
    size_t tiles_at;
    uint32_t spans, tiles;
    uint32_t tile_rows; /* (token, head) pairs of a tile: 64 or 128 */
};

/* Of the array, host and device alike; and of the workspace in device memory, which must be zeroed once
 * (ts_cuda_clear) and is for one stream. Both are 0 for limits of no rows. */
size_t cuda_attention_plan_bytes(const struct cuda_attention_shape *shape,
                                 const struct cuda_attention_limits *limits);
size_t cuda_attention_workspace_bytes(const struct cuda_attention_shape *shape,
                                      const struct cuda_attention_limits *limits);

/* Writes `array`, 16-byte aligned. `shape` has the widest window among the layers that use the plan (0 if one
 * has none): a plan serves every narrower one. A batch beyond the limits is a fault of the programmer. */
void cuda_attention_plan_make(const struct cuda_attention_shape *shape,
                              const struct cuda_attention_limits *limits,
                              const struct cuda_attention_rows *rows, void *array,
                              struct cuda_attention_plan *plan);

/* Where it all lies, in device memory; 16-byte aligned. */
struct cuda_attention_io {
    ts_cuda_address q;     /* T [tokens][q_heads * head_dim] */
    ts_cuda_address out;   /* the same; rows of no tokens and padding are not written */
    ts_cuda_address pool;  /* of the layer */
    ts_cuda_address table; /* uint32_t [rows][table_step]: block of the pool for each 16 positions of a row */
    uint32_t table_step;
    ts_cuda_address plan;      /* the array */
    ts_cuda_address workspace; /* of cuda_decode_attention */
};

/* The plan's tiles; without any there is no launch. */
enum ts_status cuda_prefill_attention(struct ts_cuda *cuda, const struct cuda_attention_shape *shape,
                                      const struct cuda_attention_io *io,
                                      const struct cuda_attention_plan *plan, struct ts_error *err);

/* The spans of whichever plan is in device memory then, of a batch of at most `rows` rows (a graph's bucket),
 * limits->rows at most. Not for batch_invariant, which has no spans: no launch. */
enum ts_status cuda_decode_attention(struct ts_cuda *cuda, const struct cuda_attention_shape *shape,
                                     const struct cuda_attention_limits *limits,
                                     const struct cuda_attention_io *io, uint32_t rows, struct ts_error *err);

#ifdef __cplusplus
}
#endif

#endif
