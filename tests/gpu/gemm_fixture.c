#include "tests/gpu/gemm_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"

#define GUARD      256u
#define GUARD_BYTE 0x5a

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static ts_cuda_address give(struct ts_cuda *cuda, const void *from, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address to;
    ok(ts_cuda_alloc(cuda, bytes, &to, &err), &err);
    ok(ts_cuda_upload(cuda, to, from, bytes, &err), &err);
    ok(ts_cuda_wait(cuda, &err), &err);
    return to;
}

static uint16_t narrow(float value, bool bf16)
{
    return bf16 ? codec_f32_to_bf16(value) : codec_f32_to_f16(value);
}

static float widen(uint16_t bits, bool bf16)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return bf16 ? value : codec_f16_to_f32(bits);
}

/* Values of a 16-bit type; `exact` is what they are. */
static void draw_16(uint16_t *out, float *exact, size_t count, bool bf16, double deviation,
                    struct ts_rng *rng)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = narrow((float)(deviation * ts_rng_normal(rng)), bf16);
        exact[i] = widen(out[i], bf16);
    }
}

/* The weights, on the device; `exact` is what they are, scales included. */
static void make_weights(struct gemm_case *c, bool int8, float *exact, struct ts_rng *rng)
{
    size_t count = (size_t)c->w.outputs * c->w.inputs;
    uint16_t *bits = ts_xmalloc(count * sizeof *bits);
    int8_t *bytes = (int8_t *)bits;
    float *scales = ts_xmalloc(c->w.outputs * sizeof *scales);
    if (int8) {
        for (size_t o = 0; o < c->w.outputs; o++)
            scales[o] = codec_f16_to_f32(codec_f32_to_f16((float)(0.001 + 0.002 * ts_rng_unit(rng))));
        for (size_t i = 0; i < count; i++) {
            bytes[i] = (int8_t)((int)ts_rng_below(rng, 256) - 128);
            exact[i] = (float)bytes[i] * scales[i / c->w.inputs];
        }
        c->w.scales = give(c->cuda, scales, c->w.outputs * sizeof *scales);
    } else {
        draw_16(bits, exact, count, c->bf16, 0.1, rng);
    }
    c->w.type = int8 ? CUDA_MATRIX_I8 : c->bf16 ? CUDA_MATRIX_BF16 : CUDA_MATRIX_F16;
    c->w.data = give(c->cuda, bits, int8 ? count : count * sizeof *bits);
    ts_free(bits);
    ts_free(scales);
}

static void expect(struct gemm_case *c, const float *w, const float *x)
{
    const uint32_t n = c->w.outputs, k = c->w.inputs;
    double *sums = ts_xcalloc(n, sizeof *sums), squares = 0;
    size_t out = 0;
    for (uint32_t token = 0; token < c->m; token++) {
        for (uint32_t o = 0; o < n; o++) {
            sums[o] = 0;
            for (uint32_t i = 0; i < k; i++)
                sums[o] += (double)w[(size_t)o * k + i] * (double)x[(size_t)token * k + i];
        }
        for (uint32_t o = 0; o < n; o++) {
            if (c->kind == CUDA_GEMM_SWIGLU && o % 16 >= 8)
                continue;
            double value =
                c->kind == CUDA_GEMM_SWIGLU ? sums[o] / (1 + exp(-sums[o])) * sums[o + 8] : sums[o];
            squares += value * value;
            c->expected[out++] = value;
        }
    }
    c->rms = sqrt(squares / (double)out);
    for (size_t i = 0; i < out && c->kind == CUDA_GEMM_Y_ADD_F32; i++)
        c->expected[i] += (double)c->before[i];
    ts_free(sums);
}

static size_t y_count(const struct gemm_case *c)
{
    return (size_t)c->m * (c->kind == CUDA_GEMM_SWIGLU ? c->w.outputs / 2 : c->w.outputs);
}

static bool wide(const struct gemm_case *c)
{
    return c->kind == CUDA_GEMM_Y_F32 || c->kind == CUDA_GEMM_Y_ADD_F32;
}

void gemm_case_init(struct gemm_case *c, struct ts_cuda *cuda, bool bf16, bool int8, uint32_t outputs,
                    uint32_t inputs, uint32_t m, enum cuda_gemm_y kind)
{
    struct ts_error err = {0};
    struct ts_rng rng;
    size_t x_count = (size_t)m * inputs, w_count = (size_t)outputs * inputs;
    float *w = ts_xmalloc(w_count * sizeof *w), *x = ts_xmalloc(x_count * sizeof *x);
    uint16_t *bits = ts_xmalloc(x_count * sizeof *bits);
    ts_rng_init(&rng, outputs * 977 + inputs * 31 + m);
    *c = (struct gemm_case){
        .cuda = cuda, .bf16 = bf16, .w = {.outputs = outputs, .inputs = inputs}, .m = m, .kind = kind};
    make_weights(c, int8, w, &rng);
    draw_16(bits, x, x_count, bf16, 1, &rng);
    c->x = give(cuda, bits, x_count * sizeof *bits);
    c->y_bytes = y_count(c) * (wide(c) ? 4 : 2);
    c->expected = ts_xmalloc(y_count(c) * sizeof *c->expected);
    c->before = ts_xmalloc(y_count(c) * sizeof *c->before);
    for (size_t i = 0; i < y_count(c); i++)
        c->before[i] = (float)ts_rng_normal(&rng);
    ok(ts_cuda_alloc(cuda, c->y_bytes + (size_t)2 * GUARD, &c->y, &err), &err);
    c->y += GUARD;
    ok(ts_cuda_alloc(cuda, (size_t)m * outputs * 2, &c->scratch, &err), &err);
    expect(c, w, x);
    ts_free(w);
    ts_free(x);
    ts_free(bits);
}

void gemm_case_reset(struct gemm_case *c)
{
    struct ts_error err = {0};
    uint8_t *bytes = ts_xmalloc(c->y_bytes + (size_t)2 * GUARD);
    memset(bytes, GUARD_BYTE, c->y_bytes + (size_t)2 * GUARD);
    if (c->kind == CUDA_GEMM_Y_ADD_F32)
        memcpy(bytes + GUARD, c->before, c->y_bytes);
    ok(ts_cuda_upload(c->cuda, c->y - GUARD, bytes, c->y_bytes + (size_t)2 * GUARD, &err), &err);
    ok(ts_cuda_wait(c->cuda, &err), &err);
    ts_free(bytes);
}

void gemm_case_check(struct gemm_case *c, const char *who)
{
    struct ts_error err = {0};
    size_t all = c->y_bytes + (size_t)2 * GUARD, count = y_count(c);
    double step = c->bf16 ? 1.0 / 256 : 1.0 / 2048; /* of type T */
    uint8_t *bytes = ts_xmalloc(all);
    ok(ts_cuda_download(c->cuda, bytes, c->y - GUARD, all, &err), &err);
    ok(ts_cuda_wait(c->cuda, &err), &err);
    for (size_t i = 0; i < GUARD; i++) {
        if (bytes[i] != GUARD_BYTE || bytes[all - 1 - i] != GUARD_BYTE)
            fail_msg("%s, kind %d, %u x %u, m %u: written beyond y", who, (int)c->kind, c->w.outputs,
                     c->w.inputs, c->m);
    }
    for (size_t i = 0; i < count; i++) {
        float value;
        uint16_t half;
        memcpy(&value, bytes + GUARD + i * 4 * wide(c), sizeof value);
        memcpy(&half, bytes + GUARD + i * 2 * !wide(c), sizeof half);
        double got = wide(c) ? (double)value : (double)widen(half, c->bf16);
        double bound = wide(c) ? c->rms / 4096 : 4 * step * c->rms;
        if (c->kind == CUDA_GEMM_Y_16) /* far from zero the rounding alone is more */
            bound = fmax(bound, 1.25 * step * fabs(c->expected[i]));
        if (c->kind ==
            CUDA_GEMM_SWIGLU) /* long tails; three roundings, of which silu makes one 1.3 as large */
            bound = fmax(bound, 3.5 * step * fabs(c->expected[i]));
        if (!(fabs(got - c->expected[i]) <= bound))
            fail_msg("%s, kind %d, %u x %u, m %u: element %zu is %g, not %g (allowed %g)", who, (int)c->kind,
                     c->w.outputs, c->w.inputs, c->m, i, got, c->expected[i], bound);
    }
    ts_free(bytes);
}

void *gemm_case_rows(struct gemm_case *c, uint32_t rows, size_t *bytes)
{
    struct ts_error err = {0};
    *bytes = c->y_bytes / c->m * rows;
    void *out = ts_xmalloc(*bytes);
    ok(ts_cuda_download(c->cuda, out, c->y, *bytes, &err), &err);
    ok(ts_cuda_wait(c->cuda, &err), &err);
    return out;
}

void gemm_case_fini(struct gemm_case *c)
{
    ts_cuda_address y = c->y - GUARD;
    ts_cuda_free(c->cuda, &c->w.data);
    ts_cuda_free(c->cuda, &c->w.scales);
    ts_cuda_free(c->cuda, &c->x);
    ts_cuda_free(c->cuda, &y);
    ts_cuda_free(c->cuda, &c->scratch);
    ts_free(c->expected);
    ts_free(c->before);
}
