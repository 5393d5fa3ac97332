#include "tests/gpu/rows_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cuda/rows/cuda_rows.h"
#include "tests/gpu/device_memory.h"

static struct ts_cuda *cuda;
static void (*before_case)(void);
static bool large_too;

void rows_use(struct ts_cuda *device, void (*before)(void), bool large)
{
    cuda = device;
    before_case = before;
    large_too = large;
}

static void begin_case(void)
{
    if (before_case)
        before_case();
}

/* --- numbers -------------------------------------------------------------------------------------------- */

static float widen(uint16_t bits, bool bf16)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return bf16 ? value : codec_f16_to_f32(bits);
}

static uint16_t narrow(float value, bool bf16)
{
    return bf16 ? codec_f32_to_bf16(value) : codec_f32_to_f16(value);
}

/* What the last place of the type is worth at a value. */
static double ulp(double value, bool bf16)
{
    int exponent = -1000;
    if (value != 0)
        frexp(value, &exponent);
    if (bf16)
        return ldexp(1, (exponent < -125 ? -125 : exponent) - 8);
    return ldexp(1, (exponent < -13 ? -13 : exponent) - 11);
}

/* `size`: of what was added up, where that can be more than the sum. */
static void check(uint16_t got, double expected, double size, bool bf16, const char *what, size_t at)
{
    double most = fmax(fabs(expected), size);
    if (!(fabs(widen(got, bf16) - expected) <= ulp(expected, bf16) + 1e-6 * most))
        fail_msg("%s: element %zu is %.9g, not %.9g", what, at, (double)widen(got, bf16), expected);
}

static float *floats(size_t count, double deviation, double middle, struct ts_rng *rng)
{
    float *x = ts_xcalloc(count, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(middle + deviation * ts_rng_normal(rng));
    return x;
}

static uint16_t *halves(size_t count, double deviation, bool bf16, struct ts_rng *rng)
{
    uint16_t *x = ts_xcalloc(count, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = narrow((float)(deviation * ts_rng_normal(rng)), bf16);
    return x;
}

/* --- embedding ------------------------------------------------------------------------------------------ */

static void embed(uint32_t hidden, uint32_t tokens, enum ts_dtype dtype)
{
    enum { VOCAB = 37 };
    struct ts_rng rng;
    struct ts_error err = {0};
    ts_rng_init(&rng, hidden + tokens);
    size_t elements = (size_t)VOCAB * hidden, bytes = elements * ts_dtype_bytes(dtype);
    float *wide = floats(elements, 1, 0, &rng), *out = ts_xcalloc((size_t)tokens * hidden, sizeof *out);
    uint16_t *small = halves(elements, 1, dtype == TS_DTYPE_BF16, &rng);
    uint32_t *ids = ts_xcalloc(tokens, sizeof *ids);
    for (uint32_t i = 0; i < tokens; i++)
        ids[i] = (uint32_t)ts_rng_below(&rng, VOCAB);
    begin_case();
    struct cuda_embedding e = {
        .table = device_new(cuda, dtype == TS_DTYPE_F32 ? (void *)wide : (void *)small, bytes),
        .dtype = dtype,
        .ids = device_new(cuda, ids, tokens * sizeof *ids),
        .residual = device_new(cuda, NULL, (size_t)tokens * hidden * sizeof(float)),
        .hidden = hidden,
        .tokens = tokens};
    device_ok(cuda_embed(cuda, &e, &err), &err);
    device_read(cuda, out, e.residual, (size_t)tokens * hidden * sizeof *out);
    for (size_t i = 0; i < (size_t)tokens * hidden; i++) {
        size_t from = (size_t)ids[i / hidden] * hidden + i % hidden;
        float expected = dtype == TS_DTYPE_F32 ? wide[from] : widen(small[from], dtype == TS_DTYPE_BF16);
        if (out[i] != expected)
            fail_msg("hidden %u, element %zu: %g, not %g", hidden, i, (double)out[i], (double)expected);
    }
    device_free(cuda, e.table), device_free(cuda, e.ids), device_free(cuda, e.residual);
    ts_free(wide), ts_free(small), ts_free(ids), ts_free(out);
}

void rows_test_embed(void **state)
{
    static const enum ts_dtype dtypes[] = {TS_DTYPE_F16, TS_DTYPE_BF16, TS_DTYPE_F32};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        embed(8, 1, dtypes[i]);
        embed(64, 3, dtypes[i]);
        embed(320, 33, dtypes[i]);
        if (large_too)
            embed(4096, 2048, dtypes[i]);
    }
}

/* --- norm ----------------------------------------------------------------------------------------------- */

/* Factors of a row: 1 / sqrt(mean of squares + eps). */
static double norm_factor(const double *x, size_t count, float eps)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return 1 / sqrt(sum / (double)count + (double)eps);
}

/* Rows of sizes from 1e-3 to 1e2; `chosen`: each row by its number, some of them twice. */
static void norm(uint32_t hidden, uint32_t tokens, bool chosen, bool bf16)
{
    struct ts_rng rng;
    struct ts_error err = {0};
    char what[64];
    ts_rng_init(&rng, hidden + tokens + bf16);
    size_t elements = (size_t)tokens * hidden;
    float *x = floats(elements, 1, 0.1, &rng), *weight = floats(hidden, 0.3, 1, &rng);
    uint16_t *out = ts_xcalloc(elements, sizeof *out);
    uint32_t *which = ts_xcalloc(tokens, sizeof *which);
    double *row = ts_xcalloc(hidden, sizeof *row);
    for (size_t i = 0; i < elements; i++)
        x[i] *= powf(10, (float)(i / hidden % 6) - 3);
    for (uint32_t i = 0; i < tokens; i++)
        which[i] = chosen ? (uint32_t)ts_rng_below(&rng, tokens) : i;
    begin_case();
    struct cuda_norm n = {.residual = device_new(cuda, x, elements * sizeof *x),
                          .which = device_new(cuda, which, tokens * sizeof *which),
                          .weight = device_new(cuda, weight, hidden * sizeof *weight),
                          .out = device_new(cuda, NULL, elements * sizeof *out),
                          .eps = 1e-5f,
                          .hidden = hidden,
                          .tokens = tokens,
                          .bf16 = bf16};
    ts_cuda_address which_there = n.which;
    n.which = chosen ? n.which : 0;
    device_ok(cuda_rms_norm(cuda, &n, &err), &err);
    device_read(cuda, out, n.out, elements * sizeof *out);
    snprintf(what, sizeof what, "hidden %u, tokens %u, %s", hidden, tokens, bf16 ? "bf16" : "f16");
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t i = 0; i < hidden; i++)
            row[i] = x[(size_t)which[t] * hidden + i];
        double factor = norm_factor(row, hidden, n.eps);
        for (uint32_t i = 0; i < hidden; i++)
            check(out[(size_t)t * hidden + i], row[i] * factor * weight[i], 0, bf16, what, i);
    }
    device_free(cuda, n.residual), device_free(cuda, which_there);
    device_free(cuda, n.weight), device_free(cuda, n.out);
    ts_free(x), ts_free(weight), ts_free(out), ts_free(which), ts_free(row);
}

void rows_test_norm(void **state)
{
    static const uint32_t sizes[] = {8, 64, 200, 264, 2048, 8192, 8200, 18432};
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof sizes / sizeof *sizes); i++) {
        norm(sizes[i / 2], 3, i / 2 % 2 == 1, i % 2);
        norm(sizes[i / 2], 1, false, i % 2);
    }
    for (uint32_t i = 0; large_too && i < 4; i++)
        norm(4096, 2048, i / 2, i % 2);
}

/* --- after the qkv product ------------------------------------------------------------------------------ */

struct qkv_case {
    uint32_t q_heads, kv_heads, head_dim, tokens;
    bool bias, norms, bf16;
};

#define QKV_ROWS    3u
#define QKV_BLOCKS  64u
#define QKV_CONTEXT 256u /* positions; 16 entries of a row's table */

struct qkv_fixture {
    const struct qkv_case *c;
    uint32_t heads, width; /* of a token */
    uint16_t *qkv, *q, *pool, *pool_before;
    float *bias, *q_norm, *k_norm, *cos, *sin;
    uint32_t *position, *row_of, table[QKV_ROWS * QKV_CONTEXT / 16];
    size_t pool_elements;
    uint8_t *written; /* [pool_elements] */
    char what[128];
};

/* Rows one after the other, from the middle of a block on; the last tokens fill the batch up. */
static void place_tokens(struct qkv_fixture *f)
{
    uint32_t each = (f->c->tokens + QKV_ROWS - 1) / QKV_ROWS, filling = f->c->tokens > 4 ? 2 : 0;
    for (uint32_t t = 0; t < f->c->tokens; t++) {
        bool last = t >= f->c->tokens - filling;
        f->row_of[t] = last ? CUDA_NO_ROW : t / each;
        f->position[t] = last ? 0xffffffffu : (t / each * 7 + 11 + t % each) % QKV_CONTEXT;
    }
    for (uint32_t i = 0; i < QKV_ROWS * QKV_CONTEXT / 16; i++)
        f->table[i] = i * 19 % QKV_BLOCKS; /* all different */
}

static void qkv_init(struct qkv_fixture *f, const struct qkv_case *c)
{
    struct ts_rng rng;
    ts_rng_init(&rng, c->head_dim + c->tokens);
    *f = (struct qkv_fixture){.c = c, .heads = c->q_heads + 2 * c->kv_heads};
    f->width = f->heads * c->head_dim;
    f->pool_elements = (size_t)QKV_BLOCKS * 2 * c->kv_heads * 16 * c->head_dim;
    f->qkv = halves((size_t)c->tokens * f->width, 2, c->bf16, &rng);
    f->q = ts_xcalloc((size_t)c->tokens * c->q_heads * c->head_dim, sizeof *f->q);
    f->pool_before = halves(f->pool_elements, 1, c->bf16, &rng);
    f->pool = ts_xcalloc(f->pool_elements, sizeof *f->pool);
    f->written = ts_xcalloc(f->pool_elements, 1);
    f->bias = floats(f->width, 3, 0, &rng);
    f->q_norm = floats(c->head_dim, 0.3, 1, &rng);
    f->k_norm = floats(c->head_dim, 0.3, 1, &rng);
    f->cos = ts_xcalloc((size_t)QKV_CONTEXT * c->head_dim / 2, sizeof *f->cos);
    f->sin = ts_xcalloc((size_t)QKV_CONTEXT * c->head_dim / 2, sizeof *f->sin);
    for (uint32_t i = 0; i < QKV_CONTEXT * c->head_dim / 2; i++) {
        double angle = i / (c->head_dim / 2) * pow(10000, -2.0 * (i % (c->head_dim / 2)) / c->head_dim);
        f->cos[i] = (float)cos(angle);
        f->sin[i] = (float)sin(angle);
    }
    f->position = ts_xcalloc(c->tokens, sizeof *f->position);
    f->row_of = ts_xcalloc(c->tokens, sizeof *f->row_of);
    place_tokens(f);
    snprintf(f->what, sizeof f->what, "%u + 2 x %u heads of %u, %u tokens, %s%s%s", c->q_heads, c->kv_heads,
             c->head_dim, c->tokens, c->bf16 ? "bf16" : "f16", c->bias ? ", bias" : "",
             c->norms ? ", norms" : "");
}

static void qkv_fini(struct qkv_fixture *f)
{
    ts_free(f->qkv), ts_free(f->q), ts_free(f->pool_before), ts_free(f->pool), ts_free(f->written);
    ts_free(f->bias), ts_free(f->q_norm), ts_free(f->k_norm), ts_free(f->cos), ts_free(f->sin);
    ts_free(f->position), ts_free(f->row_of);
}

static void qkv_run(struct qkv_fixture *f)
{
    const struct qkv_case *c = f->c;
    struct ts_error err = {0};
    size_t d = c->head_dim, angles = QKV_CONTEXT * d / 2 * sizeof(float);
    size_t q_bytes = c->tokens * c->q_heads * d * 2;
    struct cuda_qkv p = {.qkv = device_new(cuda, f->qkv, (size_t)c->tokens * f->width * 2),
                         .bias = device_new(cuda, f->bias, f->width * sizeof(float)),
                         .q_norm = device_new(cuda, f->q_norm, d * sizeof(float)),
                         .k_norm = device_new(cuda, f->k_norm, d * sizeof(float)),
                         .cos = device_new(cuda, f->cos, angles),
                         .sin = device_new(cuda, f->sin, angles),
                         .position = device_new(cuda, f->position, c->tokens * sizeof(uint32_t)),
                         .row_of = device_new(cuda, f->row_of, c->tokens * sizeof(uint32_t)),
                         .table = device_new(cuda, f->table, sizeof f->table),
                         .q = device_new(cuda, NULL, q_bytes),
                         .pool_layer = device_new(cuda, f->pool_before, f->pool_elements * 2),
                         .table_step = QKV_CONTEXT / 16,
                         .q_heads = c->q_heads,
                         .kv_heads = c->kv_heads,
                         .head_dim = c->head_dim,
                         .tokens = c->tokens,
                         .eps = 1e-6f,
                         .bf16 = c->bf16};
    const struct cuda_qkv all = p;
    p.bias = c->bias ? p.bias : 0;
    p.q_norm = c->norms ? p.q_norm : 0;
    p.k_norm = c->norms ? p.k_norm : 0;
    device_ok(cuda_qkv_post(cuda, &p, &err), &err);
    device_read(cuda, f->q, p.q, q_bytes);
    device_read(cuda, f->pool, p.pool_layer, f->pool_elements * 2);
    const ts_cuda_address there[] = {all.qkv, all.bias,     all.q_norm, all.k_norm, all.cos,       all.sin,
                                     all.q,   all.position, all.row_of, all.table,  all.pool_layer};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        device_free(cuda, there[i]);
}

/* One head of a token as it should be; `size` of each element, since a rotation adds. */
static void expected_head(const struct qkv_fixture *f, uint32_t token, uint32_t head, double *x, double *size)
{
    const struct qkv_case *c = f->c;
    uint32_t d = c->head_dim, half = d / 2,
             position = f->row_of[token] == CUDA_NO_ROW ? 0 : f->position[token];
    const float *weight = head < c->q_heads ? f->q_norm : f->k_norm;
    bool value = head >= c->q_heads + c->kv_heads;
    for (uint32_t i = 0; i < d; i++) {
        size_t at = (size_t)head * d + i;
        x[i] = widen(f->qkv[(size_t)token * f->width + at], c->bf16) + (c->bias ? (double)f->bias[at] : 0);
    }
    double factor = c->norms && !value ? norm_factor(x, d, 1e-6f) : 1;
    for (uint32_t i = 0; c->norms && !value && i < d; i++)
        x[i] *= factor * weight[i];
    for (uint32_t i = 0; i < half; i++) {
        double a = x[i], b = x[i + half];
        double cosine = f->cos[position * half + i], sine = f->sin[position * half + i];
        size[i] = size[i + half] = value ? 0 : fabs(a) + fabs(b);
        if (!value) {
            x[i] = a * cosine - b * sine;
            x[i + half] = b * cosine + a * sine;
        }
    }
}

static void check_token(struct qkv_fixture *f, uint32_t token)
{
    const struct qkv_case *c = f->c;
    uint32_t d = c->head_dim, row = f->row_of[token], position = f->position[token];
    double x[256], size[256];
    for (uint32_t head = 0; head < f->heads; head++) {
        size_t at = ((size_t)token * c->q_heads + head) * d;
        const uint16_t *got = f->q;
        expected_head(f, token, head, x, size);
        if (head >= c->q_heads) {
            if (row == CUDA_NO_ROW)
                continue;
            size_t block = f->table[row * QKV_CONTEXT / 16 + position / 16];
            at = ((block * 2 * c->kv_heads + head - c->q_heads) * 16 + position % 16) * d;
            got = f->pool;
            memset(f->written + at, 1, d);
        }
        for (uint32_t i = 0; i < d; i++)
            check(got[at + i], x[i], size[i], c->bf16, f->what, i);
    }
}

static void qkv(const struct qkv_case *c)
{
    struct qkv_fixture f;
    qkv_init(&f, c);
    begin_case();
    qkv_run(&f);
    for (uint32_t t = 0; t < c->tokens; t++)
        check_token(&f, t);
    for (size_t i = 0; i < f.pool_elements; i++) {
        if (!f.written[i] && f.pool[i] != f.pool_before[i])
            fail_msg("%s: element %zu of the pool has changed", f.what, i);
    }
    qkv_fini(&f);
}

void rows_test_qkv(void **state)
{
    static const struct qkv_case cases[] = {
        {.q_heads = 4, .kv_heads = 2, .head_dim = 64, .tokens = 21},
        {.q_heads = 7, .kv_heads = 1, .head_dim = 128, .tokens = 9, .bias = true, .bf16 = true},
        {.q_heads = 3, .kv_heads = 3, .head_dim = 80, .tokens = 5, .bias = true, .norms = true},
        {.q_heads = 5, .kv_heads = 1, .head_dim = 96, .tokens = 1, .norms = true, .bf16 = true},
        {.q_heads = 1, .kv_heads = 1, .head_dim = 16, .tokens = 40, .norms = true},
        {.q_heads = 4, .kv_heads = 4, .head_dim = 32, .tokens = 3, .bias = true, .norms = true, .bf16 = true},
        {.q_heads = 32, .kv_heads = 8, .head_dim = 128, .tokens = 600, .bf16 = true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases - !large_too; i++)
        qkv(&cases[i]);
    for (uint32_t d = 16; d <= 256; d += 16) {
        struct qkv_case c = {2, 1, d, 2, d % 32 == 0, d % 48 != 0, d % 64 < 32};
        qkv(&c);
    }
}

/* --- SiLU ----------------------------------------------------------------------------------------------- */

static void silu(uint32_t intermediate, uint32_t tokens, double deviation, bool bf16)
{
    struct ts_rng rng;
    struct ts_error err = {0};
    ts_rng_init(&rng, intermediate + tokens);
    size_t elements = (size_t)tokens * intermediate;
    uint16_t *pairs = halves(2 * elements, deviation, bf16, &rng), *out = ts_xcalloc(elements, sizeof *out);
    begin_case();
    struct cuda_silu s = {.gate_up = device_new(cuda, pairs, 4 * elements),
                          .out = device_new(cuda, NULL, 2 * elements),
                          .intermediate = intermediate,
                          .tokens = tokens,
                          .bf16 = bf16};
    device_ok(cuda_silu_mul(cuda, &s, &err), &err);
    device_read(cuda, out, s.out, 2 * elements);
    for (size_t i = 0; i < elements; i++) {
        size_t at = i / 8 * 16 + i % 8;
        double gate = widen(pairs[at], bf16), up = widen(pairs[at + 8], bf16);
        check(out[i], gate / (1 + exp(-gate)) * up, 0, bf16, "silu", i);
    }
    device_free(cuda, s.gate_up), device_free(cuda, s.out);
    ts_free(pairs), ts_free(out);
}

void rows_test_silu(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        silu(8, 1, 1, i);
        silu(40, 7, 3, i);
        silu(1000, 5, 15, i);
        if (large_too)
            silu(14336, 300, 2, i);
    }
}
