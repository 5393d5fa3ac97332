/* Kernels of every level that the processor has against sums in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cpu/cpu_level.h"

static struct ts_rng rng;

static float draw(double scale)
{
    return (float)((ts_rng_unit(&rng) - 0.5) * 2 * scale);
}

static float widen(uint16_t bits, enum ts_dtype dtype)
{
    if (dtype == TS_DTYPE_BF16) {
        uint32_t u = (uint32_t)bits << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
    int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexp(fraction + 1024, exponent - 25)
                                      : ldexp(fraction, -24);
    return (float)(bits & 0x8000 ? -magnitude : magnitude);
}

/* Weights [outputs][inputs] in panels; `plain` gets what they are. */
static struct cpu_matrix random_matrix(uint32_t outputs, uint32_t inputs, enum ts_dtype dtype, float *plain)
{
    struct cpu_matrix m = {.outputs = outputs, .inputs = inputs, .depth = inputs, .dtype = dtype};
    if (dtype == TS_DTYPE_BF16)
        m.depth = (inputs + CPU_DEPTH - 1) / CPU_DEPTH * CPU_DEPTH;
    size_t elements = (size_t)(outputs + 15) / 16 * 16 * m.depth;
    m.panels = ts_xcalloc(elements, ts_dtype_bytes(dtype));
    m.bias = ts_xcalloc(outputs, sizeof(float));
    for (uint32_t o = 0; o < outputs; o++) {
        m.bias[o] = draw(1);
        for (uint32_t k = 0; k < inputs; k++) {
            float w = draw(1);
            size_t panel = (size_t)(o / 16) * m.depth * 16, at = panel + (size_t)k * 16 + o % 16;
            if (dtype == TS_DTYPE_BF16)
                at = panel + (size_t)(k / 2) * 32 + o % 16 * 2 + k % 2;
            if (dtype == TS_DTYPE_F32) {
                ((float *)m.panels)[at] = w;
            } else {
                uint16_t bits = cpu_to_16(w, dtype);
                ((uint16_t *)m.panels)[at] = bits;
                w = widen(bits, dtype);
            }
            plain[(size_t)o * inputs + k] = w;
        }
    }
    return m;
}

static void check_gemm(const struct cpu_level *level, uint32_t outputs, uint32_t inputs, uint32_t rows,
                       enum ts_dtype dtype)
{
    float *plain = ts_xcalloc((size_t)outputs * inputs, sizeof *plain);
    struct cpu_matrix m = random_matrix(outputs, inputs, dtype, plain);
    bool bf16 = level->bf16_inputs && dtype == TS_DTYPE_BF16;
    size_t x_step = m.depth * (bf16 ? 2 : 4) + 64, y_step = outputs + 3;
    uint8_t *x = ts_xcalloc(rows, x_step);
    float *exact = ts_xcalloc((size_t)rows * inputs, sizeof *exact);
    float *y = ts_xcalloc((size_t)rows * y_step, sizeof *y);
    for (size_t i = 0; i < (size_t)rows * inputs; i++) {
        uint8_t *at = x + i / inputs * x_step;
        float value = draw(1);
        uint16_t bits = cpu_to_16(value, TS_DTYPE_BF16);
        exact[i] = bf16 ? widen(bits, TS_DTYPE_BF16) : value;
        if (bf16)
            memcpy(at + i % inputs * 2, &bits, 2);
        else
            memcpy(at + i % inputs * 4, &value, 4);
    }
    for (size_t i = 0; i < (size_t)rows * y_step; i++)
        y[i] = 77; /* what lies behind a row stays */
    uint32_t panels = (outputs + 15) / 16, half = panels / 2;
    level->gemm(&m, x, x_step, rows, y, y_step, half, panels);
    level->gemm(&m, x, x_step, rows, y, y_step, 0, half);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t o = 0; o < outputs; o++) {
            double sum = m.bias[o], size = 1;
            for (uint32_t k = 0; k < inputs; k++) {
                double product = (double)exact[(size_t)r * inputs + k] * plain[(size_t)o * inputs + k];
                sum += product;
                size += fabs(product);
            }
            double error = fabs(y[r * y_step + o] - sum);
            if (!(error <= 1e-6 * size))
                fail_msg("%s %s %ux%ux%u: row %u output %u is off by %g", level->name, ts_dtype_name(dtype),
                         rows, outputs, inputs, r, o, error);
        }
        for (uint32_t o = outputs; o < y_step; o++)
            assert_true(y[r * y_step + o] == 77);
    }
    ts_free(plain);
    ts_free(m.panels);
    ts_free(m.bias);
    ts_free(x);
    ts_free(exact);
    ts_free(y);
}

static void test_gemm(void **state)
{
    static const uint32_t shapes[][3] = {/* rows, outputs, inputs */
                                         {1, 16, 32},    {1, 1, 1},     {1, 200, 96},   {2, 33, 70},
                                         {3, 64, 31},    {7, 80, 64},   {14, 48, 128},  {15, 130, 34},
                                         {16, 96, 64},   {29, 47, 100}, {63, 64, 1100}, {64, 40, 1100},
                                         {101, 72, 1027}};
    (void)state;
    ts_rng_init(&rng, 1);
    for (size_t l = 0; cpu_level_at(l); l++) {
        for (size_t i = 0; cpu_level_supported(cpu_level_at(l)) && i < sizeof shapes / sizeof *shapes; i++) {
            const uint32_t *s = shapes[i];
            check_gemm(cpu_level_at(l), s[1], s[2], s[0], TS_DTYPE_F32);
            check_gemm(cpu_level_at(l), s[1], s[2], s[0], TS_DTYPE_F16);
            check_gemm(cpu_level_at(l), s[1], s[2], s[0], TS_DTYPE_BF16);
        }
    }
}

struct paged {
    uint16_t *pool;
    uint32_t blocks[32], kv_heads, head_dim;
    enum ts_dtype dtype;
};

static double kv_at(const struct paged *p, uint32_t position, uint32_t kv, uint32_t head, uint32_t i)
{
    size_t tile = ((size_t)p->blocks[position / 16] * 2 + kv) * p->kv_heads + head;
    return widen(p->pool[(tile * 16 + position % 16) * p->head_dim + i], p->dtype);
}

static void expect_attention(const struct paged *p, const struct cpu_attention *a, uint32_t t, uint32_t g,
                             double *out)
{
    const float *q = a->query + t * a->query_step + (size_t)g * a->head_dim;
    uint32_t end = a->position + t + 1, begin = a->window && end > a->window ? end - a->window : 0;
    double score[512], best = -INFINITY, sum = 0;
    for (uint32_t j = begin; j < end; j++) {
        score[j] = 0;
        for (uint32_t i = 0; i < a->head_dim; i++)
            score[j] += q[i] * kv_at(p, j, 0, a->kv_head, i) / sqrt(a->head_dim);
        best = score[j] > best ? score[j] : best;
    }
    memset(out, 0, a->head_dim * sizeof *out);
    for (uint32_t j = begin; j < end; j++) {
        double weight = exp(score[j] - best);
        sum += weight;
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[i] += weight * kv_at(p, j, 1, a->kv_head, i);
    }
    for (uint32_t i = 0; i < a->head_dim; i++)
        out[i] /= sum;
}

static void check_attention(const struct cpu_level *level, enum ts_dtype dtype, uint32_t head_dim,
                            uint32_t group, uint32_t position, uint32_t count, uint32_t window)
{
    struct paged p = {.kv_heads = 3, .head_dim = head_dim, .dtype = dtype};
    size_t elements = (size_t)32 * 2 * p.kv_heads * 16 * head_dim, width = (size_t)group * head_dim;
    p.pool = ts_xcalloc(elements, sizeof *p.pool);
    memset(p.pool, 0xff, elements * sizeof *p.pool);
    for (uint32_t i = 0; i < 32; i++)
        p.blocks[i] = (i * 13 + 5) % 32;
    for (uint32_t j = 0; j < position + count; j++) {
        for (uint32_t i = 0; i < 2 * p.kv_heads * head_dim; i++) {
            size_t tile = (size_t)p.blocks[j / 16] * 2 * p.kv_heads + i / head_dim;
            p.pool[(tile * 16 + j % 16) * head_dim + i % head_dim] = cpu_to_16(draw(3), dtype);
        }
    }
    float *query = ts_xcalloc(count, (width + 5) * sizeof *query);
    float *out = ts_xcalloc(count, width * sizeof *out);
    for (size_t i = 0; i < count * (width + 5); i++)
        query[i] = draw(2);
    struct cpu_attention a = {.query = query,
                              .query_step = width + 5,
                              .out = out,
                              .out_step = width,
                              .pool_layer = (const uint8_t *)p.pool,
                              .blocks = p.blocks,
                              .kv_heads = p.kv_heads,
                              .kv_head = 1,
                              .head_dim = head_dim,
                              .group = group,
                              .kv_dtype = dtype,
                              .position = position,
                              .count = count,
                              .window = window,
                              .work = ts_xaligned(64, cpu_attention_work(head_dim, group) * sizeof(float))};
    memset(a.work, 0xff, cpu_attention_work(head_dim, group) * sizeof(float));
    level->attend(&a);
    for (uint32_t t = 0; t < count; t++) {
        for (uint32_t g = 0; g < group; g++) {
            double expected[512], difference = 0, size = 0;
            expect_attention(&p, &a, t, g, expected);
            for (uint32_t i = 0; i < head_dim; i++) {
                double d = out[t * width + g * head_dim + i] - expected[i];
                difference += d * d;
                size += expected[i] * expected[i];
            }
            if (!(difference <= 1e-10 * size))
                fail_msg("%s: head_dim %u, position %u, head %u of %u, window %u: relative error %g",
                         level->name, head_dim, position + t, g, group, window, sqrt(difference / size));
        }
    }
    ts_free(p.pool);
    ts_free(query);
    ts_free(out);
    ts_free(a.work);
}

static void test_attention(void **state)
{
    static const uint32_t cases[][5] = {/* head_dim, group, position, count, window */
                                        {64, 1, 0, 64, 0},   {64, 1, 0, 1, 0},    {64, 8, 63, 8, 0},
                                        {64, 3, 130, 20, 0}, {80, 2, 10, 30, 0},  {128, 1, 190, 64, 0},
                                        {20, 7, 60, 9, 0},   {16, 1, 300, 50, 0}, {64, 2, 100, 32, 40},
                                        {24, 1, 0, 64, 5},   {64, 80, 70, 1, 0},  {96, 4, 200, 16, 64},
                                        {2, 1, 5, 3, 0},     {256, 2, 33, 32, 1}, {64, 1, 449, 63, 200}};
    (void)state;
    ts_rng_init(&rng, 2);
    for (size_t l = 0; cpu_level_at(l); l++) {
        for (size_t i = 0; cpu_level_supported(cpu_level_at(l)) && i < sizeof cases / sizeof *cases; i++) {
            const uint32_t *c = cases[i];
            check_attention(cpu_level_at(l), TS_DTYPE_BF16, c[0], c[1], c[2], c[3], c[4]);
            check_attention(cpu_level_at(l), TS_DTYPE_F16, c[0], c[1], c[2], c[3], c[4]);
        }
    }
}

static void check_rows(const struct cpu_level *level, uint32_t n)
{
    float x[300], w[300], y[300];
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = draw(i % 7 == 0 ? 30 : 4);
        w[i] = draw(2);
        squares += (double)x[i] * x[i];
    }
    level->rms_norm(x, w, n, 1e-5f, y);
    for (uint32_t i = 0; i < n; i++) {
        double expected = x[i] / sqrt(squares / n + 1e-5) * w[i];
        assert_true(fabs(y[i] - expected) <= 1e-6 * fabs(expected) + 1e-12);
    }
    level->silu_mul(x, w, n, y);
    for (uint32_t i = 0; i < n; i++) {
        double expected = x[i] / (1 + exp(-x[i])) * w[i];
        assert_true(fabs(y[i] - expected) <= 1e-6 * fabs(expected) + 1e-12);
    }
}

static void check_narrow(const struct cpu_level *level, enum ts_dtype dtype)
{
    static const float special[] = {0.0f,   -0.0f, 1.0f,  65504.0f,    1e30f,
                                    -1e30f, 6e-5f, 3e-8f, 1.00390625f, 1.01171875f};
    float x[133];
    uint16_t bits[133];
    for (uint32_t i = 0; i < 133; i++)
        x[i] = i < 10 ? special[i] : (float)ldexp(draw(1), (int)(i % 40) - 25);
    level->narrow(x, 133, dtype, bits);
    for (uint32_t i = 0; i < 133; i++)
        assert_int_equal(bits[i], cpu_to_16(x[i], dtype));
}

static void test_elements(void **state)
{
    (void)state;
    ts_rng_init(&rng, 3);
    for (size_t l = 0; cpu_level_at(l); l++) {
        if (!cpu_level_supported(cpu_level_at(l)))
            continue;
        for (uint32_t n = 1; n < 300; n += n < 40 ? 1 : 37)
            check_rows(cpu_level_at(l), n);
        check_narrow(cpu_level_at(l), TS_DTYPE_BF16);
        check_narrow(cpu_level_at(l), TS_DTYPE_F16);
    }
}

/* By hand: halves of the last place go to the even neighbour; subnormals, overflow and NaN of both types. */
static void test_to_16(void **state)
{
    static const struct {
        float value;
        uint16_t bf16, f16;
    } table[] = {{1.0f, 0x3f80, 0x3c00},       {-2.0f, 0xc000, 0xc000},       {0x1.01p0f, 0x3f80, 0x3c04},
                 {0x1.03p0f, 0x3f82, 0x3c0c},  {0x1.0101p0f, 0x3f81, 0x3c04}, {0x1.002p0f, 0x3f80, 0x3c00},
                 {0x1.006p0f, 0x3f80, 0x3c02}, {65504.0f, 0x4780, 0x7bff},    {65520.0f, 0x4780, 0x7c00},
                 {0x1p-24f, 0x3380, 0x0001},   {0x1p-25f, 0x3300, 0x0000},    {0x1.8p-25f, 0x3340, 0x0001},
                 {0x1p-14f, 0x3880, 0x0400},   {3.4e38f, 0x7f80, 0x7c00},     {-INFINITY, 0xff80, 0xfc00}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(cpu_to_16(table[i].value, TS_DTYPE_BF16), table[i].bf16);
        assert_int_equal(cpu_to_16(table[i].value, TS_DTYPE_F16), table[i].f16);
    }
    assert_true(isnan(widen(cpu_to_16(NAN, TS_DTYPE_BF16), TS_DTYPE_BF16)));
    assert_true(isnan(widen(cpu_to_16(NAN, TS_DTYPE_F16), TS_DTYPE_F16)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gemm), cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_elements), cmocka_unit_test(test_to_16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
