/*
 * What one instruction-set level of the CPU backend provides. All levels are compiled from the same kernels
 * (cpu_kernels.inc over cpu_lanes.inc) with other flags. Within a level every output element is one chain of
 * operations in an order that depends on its own inputs and absolute positions alone: not on the number of
 * rows, on neighbours, on how work is cut or on threads. Between levels results differ by rounding.
 *
 * Weights are packed into panels of 16 outputs, alike for all levels:
 *
 *     F32, F16:  panel[input][16]                   BF16:  panel[input / 2][16][2]
 *
 * BF16 panels hold pairs of inputs, since that is what a bf16 dot product eats; inputs are padded with zeros
 * to a multiple of CPU_DEPTH.
 */
#ifndef TS_GPU_CPU_LEVEL_H
#define TS_GPU_CPU_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/ts_model.h"

#define CPU_PANEL          16
#define CPU_DEPTH          32
#define CPU_ATTENTION_TILE 64 /* key positions of a step of attention, cut at absolute multiples */
#define CPU_ATTENTION_ROWS 64 /* queries (positions times heads) that share loaded keys */

/* A matrix [outputs][inputs] in panels. Owns `panels` and `bias`. */
struct cpu_matrix {
    uint32_t outputs, inputs;
    uint32_t depth; /* inputs with padding */
    enum ts_dtype dtype;
    void *panels; /* [ceil(outputs / 16)][depth][16] */
    float *bias;  /* [outputs] or NULL */
};

/* Consecutive positions of one sequence and the query heads that share one KV head. */
struct cpu_attention {
    const float *query; /* [count][query_step], heads side by side; rotated */
    size_t query_step, out_step;
    float *out;
    const uint8_t *pool_layer;
    const uint32_t *blocks;
    uint32_t kv_heads, kv_head, head_dim, group;
    enum ts_dtype kv_dtype;
    uint32_t position, count; /* count * group at most max(group, CPU_ATTENTION_ROWS) */
    uint32_t window;          /* keys that a query sees, itself included; 0 = all */
    float *work;              /* cpu_attention_work() floats, 64-byte aligned */
};

struct cpu_level {
    const char *name, *kind; /* "avx2", "cpu avx2" */
    bool bf16_inputs;        /* matrices of BF16 take activations rounded to bf16, others fp32 */
    /* y[row][16 * panel ...] of panels first..last-1 for `rows` rows of x, `x_step` bytes apart and padded
     * with zeros to w->depth; y is fp32 with rows `y_step` elements apart. */
    void (*gemm)(const struct cpu_matrix *w, const void *x, size_t x_step, uint32_t rows, float *y,
                 size_t y_step, uint32_t first, uint32_t last);
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float eps, float *out);
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *out);
    void (*attend)(const struct cpu_attention *a);
    void (*narrow)(const float *from, uint32_t n, enum ts_dtype dtype, uint16_t *to); /* nearest even */
};

/* The levels of this build, best first. */
const struct cpu_level *cpu_level_at(size_t index); /* NULL past the end */
bool cpu_level_supported(const struct cpu_level *level);
/* The best level that the processor has, but none above the one that TS_CPU_LEVEL names. */
const struct cpu_level *cpu_level_pick(void);

size_t cpu_attention_work(uint32_t head_dim, uint32_t group);
uint16_t cpu_to_16(float value, enum ts_dtype dtype);

#endif
