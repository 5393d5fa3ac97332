/*
 * What the kernels of rows.cu are told, made by cuda_rows.c: shapes and units are those of cuda_rows.h. Read
 * by C and C++, by the compilers of host and device.
 */
#ifndef TS_GPU_CUDA_ROWS_ROWS_ARGS_H
#define TS_GPU_CUDA_ROWS_ROWS_ARGS_H

#include <stdint.h>

#define ROWS_THREADS_MAX 1024u /* of a norm */
#define ROWS_THREADS     256u  /* of the others */
#define ROWS_NONE        UINT32_MAX

/* A thread has 8 elements. */
struct rows_embed_args {
    const void *table;
    const uint32_t *ids;
    float *residual;
    uint32_t hidden, tokens;
    uint32_t f32, bf16; /* of the table: neither = fp16 */
};

/* A block of threads has a token. */
struct rows_norm_args {
    const float *residual, *weight;
    const uint32_t *which; /* NULL: all in order */
    uint16_t *out;
    float eps;
    uint32_t hidden, bf16;
};

/* `lanes` threads, a power of two, have a head of a token: 8 elements of its lower half each and the 8 of the
 * upper half that they are turned with. Lanes from head_dim / 16 on have none. */
struct rows_qkv_args {
    const uint16_t *qkv;
    const float *bias, *q_norm, *k_norm; /* or NULL */
    const float *cos, *sin;
    const uint32_t *position, *row_of, *table;
    uint16_t *q, *pool_layer;
    uint32_t table_step;
    uint32_t q_heads, kv_heads, head_dim;
    uint32_t lanes, items; /* items: heads of all tokens */
    float eps;
    uint32_t bf16;
};

/* A thread has a run of 8. */
struct rows_silu_args {
    const uint16_t *gate_up;
    uint16_t *out;
    uint32_t runs; /* of all tokens */
    uint32_t bf16;
};

#endif
