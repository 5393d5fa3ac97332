/*
 * The kernels, once, in plain C written in lanes of 16 so that the compiler turns them into vector code of
 * whatever level the including file is built for (-O3, -ffp-contract as that file's flags say). Included by
 * cpu_scalar.c, cpu_avx2.c and cpu_avx512.c only; it defines CPU_LEVEL_NAME's table.
 *
 * Order of summation, the same for any batch: a matrix product sums over the inputs one after the other, one
 * chain per output; a dot product keeps 16 lanes and adds them in a fixed tree; softmax and the weighted sum
 * of values run over positions in ascending order.
 */
#include <math.h>
#include <string.h>

#include "gpu/cpu/cpu_level.h"

#define LANES CPU_PANEL

static inline float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline float widen_bf16(uint16_t bits)
{
    return from_bits((uint32_t)bits << 16);
}

/* fp16 to fp32, exact, without branches: subnormals come out right through the multiplication. */
static inline float widen_f16(uint16_t bits)
{
    float magnitude = from_bits((uint32_t)(bits & 0x7fff) << 13) * 0x1p112f;
    uint32_t u;
    if ((bits & 0x7c00) == 0x7c00)
        magnitude = from_bits(0x7f800000 | (uint32_t)(bits & 0x3ff) << 13);
    memcpy(&u, &magnitude, 4);
    return from_bits(u | (uint32_t)(bits & 0x8000) << 16);
}

static inline float sum_lanes(const float *lane)
{
    float half[8], quarter[4];
    for (int i = 0; i < 8; i++)
        half[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        quarter[i] = half[i] + half[i + 4];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* exp for arguments <= 0 and moderate positive ones: 2^(x log2 e) by a polynomial of degree 6 on [-0.5, 0.5],
 * about 2 ulp. */
static inline float fast_exp(float x)
{
    float y = x * 1.44269504f;
    y = y < -126.0f ? -126.0f : y > 126.0f ? 126.0f : y;
    float whole = (float)(int32_t)(y + (y < 0 ? -0.5f : 0.5f)), f = y - whole;
    float p = 1.535336188e-4f;
    p = p * f + 1.339887440e-3f;
    p = p * f + 9.618437357e-3f;
    p = p * f + 5.550332548e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472028e-1f;
    p = p * f + 1.0f;
    return p * from_bits((uint32_t)((int32_t)whole + 127) << 23);
}

#define GEMM_TILE(ROWS, NAME, TYPE, WIDEN)                                                                   \
    static void NAME(const TYPE *panel, const float *x, uint32_t inputs, float *y, uint32_t y_stride,        \
                     uint32_t valid)                                                                         \
    {                                                                                                        \
        float acc[ROWS][LANES] = {{0}};                                                                      \
        for (uint32_t k = 0; k < inputs; k++) {                                                              \
            float w[LANES];                                                                                  \
            for (int n = 0; n < LANES; n++)                                                                  \
                w[n] = WIDEN(panel[(size_t)k * LANES + n]);                                                  \
            for (int r = 0; r < ROWS; r++) {                                                                 \
                float a = x[(size_t)r * inputs + k];                                                         \
                for (int n = 0; n < LANES; n++)                                                              \
                    acc[r][n] += a * w[n];                                                                   \
            }                                                                                                \
        }                                                                                                    \
        for (int r = 0; r < ROWS; r++)                                                                       \
            memcpy(y + (size_t)r * y_stride, acc[r], valid * sizeof(float));                                 \
    }

#define AS_IS(v) (v)
GEMM_TILE(1, gemm_bf16_1, uint16_t, widen_bf16)
GEMM_TILE(8, gemm_bf16_8, uint16_t, widen_bf16)
GEMM_TILE(1, gemm_f32_1, float, AS_IS)
GEMM_TILE(8, gemm_f32_8, float, AS_IS)

static void gemm(const struct cpu_matrix *w, const float *x, uint32_t rows, float *y, uint32_t y_stride,
                 uint32_t first, uint32_t last)
{
    for (uint32_t p = first; p < last; p++) {
        uint32_t valid = w->outputs - p * LANES < LANES ? w->outputs - p * LANES : LANES, r = 0;
        size_t at = (size_t)p * w->inputs * LANES;
        float *out = y + (size_t)p * LANES;
        for (; r < rows;) {
            uint32_t step = rows - r >= 8 ? 8 : 1;
            const float *in = x + (size_t)r * w->inputs;
            float *to = out + (size_t)r * y_stride;
            if (w->dtype == TS_DTYPE_BF16)
                (step == 8 ? gemm_bf16_8 : gemm_bf16_1)((const uint16_t *)w->panels + at, in, w->inputs, to,
                                                        y_stride, valid);
            else
                (step == 8 ? gemm_f32_8 : gemm_f32_1)((const float *)w->panels + at, in, w->inputs, to,
                                                      y_stride, valid);
            r += step;
        }
        for (r = 0; w->bias && r < rows; r++) {
            for (uint32_t n = 0; n < valid; n++)
                out[(size_t)r * y_stride + n] += w->bias[p * LANES + n];
        }
    }
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out)
{
    float lane[LANES] = {0};
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            lane[l] += x[i + l] * x[i + l];
    }
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum_lanes(lane) / (float)n + eps);
    for (i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
}

static inline const uint16_t *kv_tile(const struct cpu_attention *a, uint32_t position, uint32_t kv)
{
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * a->head_dim;
    size_t index = ((size_t)a->blocks[position / TS_KV_BLOCK_TOKENS] * 2 + kv) * a->kv_heads + a->kv_head;
    return (const uint16_t *)a->pool_layer + index * tile +
           (size_t)(position % TS_KV_BLOCK_TOKENS) * a->head_dim;
}

#define DOT(NAME, WIDEN)                                                                                     \
    static inline float NAME(const float *q, const uint16_t *k, uint32_t n)                                  \
    {                                                                                                        \
        float lane[LANES] = {0};                                                                             \
        uint32_t i = 0;                                                                                      \
        for (; i + LANES <= n; i += LANES) {                                                                 \
            for (int l = 0; l < LANES; l++)                                                                  \
                lane[l] += q[i + l] * WIDEN(k[i + l]);                                                       \
        }                                                                                                    \
        for (int l = 0; i < n; i++, l++)                                                                     \
            lane[l] += q[i] * WIDEN(k[i]);                                                                   \
        return sum_lanes(lane);                                                                              \
    }

#define ADD_SCALED(NAME, WIDEN)                                                                              \
    static inline void NAME(float *out, float p, const uint16_t *v, uint32_t n)                              \
    {                                                                                                        \
        for (uint32_t i = 0; i < n; i++)                                                                     \
            out[i] += p * WIDEN(v[i]);                                                                       \
    }

DOT(dot_bf16, widen_bf16)
DOT(dot_f16, widen_f16)
ADD_SCALED(add_bf16, widen_bf16)
ADD_SCALED(add_f16, widen_f16)

static void attend(const struct cpu_attention *a)
{
    bool bf16 = a->kv_dtype == TS_DTYPE_BF16;
    float best = -INFINITY, sum = 0;
    for (uint32_t t = a->begin; t < a->end; t++) {
        const uint16_t *key = kv_tile(a, t, 0);
        a->scores[t] = bf16 ? dot_bf16(a->query, key, a->head_dim) : dot_f16(a->query, key, a->head_dim);
        best = a->scores[t] > best ? a->scores[t] : best;
    }
    memset(a->out, 0, a->head_dim * sizeof *a->out);
    for (uint32_t t = a->begin; t < a->end; t++) {
        float p = fast_exp(a->scores[t] - best);
        sum += p;
        if (bf16)
            add_bf16(a->out, p, kv_tile(a, t, 1), a->head_dim);
        else
            add_f16(a->out, p, kv_tile(a, t, 1), a->head_dim);
    }
    for (uint32_t i = 0; i < a->head_dim; i++)
        a->out[i] /= sum;
}

const struct cpu_level CPU_LEVEL_TABLE = {CPU_LEVEL_NAME, gemm, rms_norm, silu_mul, attend};
