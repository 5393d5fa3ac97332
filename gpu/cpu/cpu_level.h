/*
 * What one instruction-set level of the CPU backend provides. All levels are compiled from the same C
 * (cpu_kernels.h) with other flags, so a level differs from another in rounding only where fused operations
 * do. Within a level every output element is one chain of operations in a fixed order that depends on nothing
 * but its own inputs: not on the number of rows, on neighbours or on threads.
 *
 * Weights are packed into panels of 16 outputs: panel[k][16], bf16 or fp32, zero-padded.
 */
#ifndef TS_GPU_CPU_LEVEL_H
#define TS_GPU_CPU_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/core/ts_model.h"

#define CPU_PANEL 16

/* A matrix [outputs][inputs] in panels. Owns `panels`. */
struct cpu_matrix {
    uint32_t outputs, inputs;
    enum ts_dtype dtype; /* BF16 or F32 */
    void *panels;        /* [ceil(outputs/16)][inputs][16] */
    float *bias;         /* [outputs] or NULL */
};

struct cpu_attention {
    const float *query; /* [head_dim], rotated and scaled */
    const uint8_t *pool_layer;
    const uint32_t *blocks;
    uint32_t kv_heads, kv_head, head_dim;
    enum ts_dtype kv_dtype;
    uint32_t begin, end; /* key positions */
    float *scores;       /* workspace [end] */
    float *out;          /* [head_dim] */
};

struct cpu_level {
    const char *name;
    /* y[row][panel outputs] of panels first..last-1 for `rows` rows of x (stride inputs); y has stride
     * `y_stride`. */
    void (*gemm)(const struct cpu_matrix *w, const float *x, uint32_t rows, float *y, uint32_t y_stride,
                 uint32_t first, uint32_t last);
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float eps, float *out);
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *out);
    void (*attend)(const struct cpu_attention *a);
};

extern const struct cpu_level cpu_scalar;
#if defined(__x86_64__)
extern const struct cpu_level cpu_avx2, cpu_avx512;
#endif

/* The best level the processor has, or the one TS_CPU_LEVEL names. */
const struct cpu_level *cpu_level_pick(void);

uint16_t cpu_to_16(float value, enum ts_dtype dtype);

#endif
